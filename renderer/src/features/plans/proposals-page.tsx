import { Button, TextInput } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { type ReactNode, useState } from "react";
import type { ConfigItemRecord, ConfigProposal } from "../../../../shared/contract/plans.ts";
import type { RuleRecord } from "../../../../shared/contract/rules.ts";
import { compareConfig, type ConfigKind } from "../../../../shared/governance/configuration/index.ts";
import { compareRules, describeRule, parseRule } from "../../../../shared/governance/rules/index.ts";
import { useCall, useConsole } from "../../lib/console.tsx";
import { useIsLive, useIsReadOnly, useProjectCurrency } from "../../lib/live.ts";
import { navigate } from "../../lib/router.ts";
import { capitalise, cleanText, clip, codeWords } from "../../lib/text.ts";
import { DeskBar, Grow } from "../../ui/desk.tsx";
import { DifferenceView } from "../../ui/difference.tsx";
import { showDone, showFailure } from "../../ui/notices.tsx";
import { SafeText, Tag, Time } from "../../ui/parts.tsx";
import { EmptyView, QueryView, Skeleton } from "../../ui/states.tsx";
import type { Tone } from "../../ui/theme.ts";
import { asWanted, fullTitle } from "./kinds.ts";
import { LookAhead } from "./look-ahead.tsx";
import { VersionHead, VersionList } from "../../ui/versions.tsx";
import css from "./plans.module.css";

const tones: Readonly<Record<ConfigProposal["status"], Tone>> = {
  proposed: "amber",
  approved: "green",
  rejected: "grey",
};

/** Changes that wait for a second person, and what became of others. */
export function ProposalsPage({ records }: { readonly records: readonly ConfigItemRecord[] }): ReactNode {
  const query = useCall("plans.proposals", {}, { refetchMs: 15_000 });
  const rules = useCall("rules.list", {});
  const settings = useCall("settings.get", {});
  return (
    <>
      <DeskBar title="Proposed changes">
        <Grow />
        <Button onClick={() => navigate("/plans")}>Back</Button>
      </DeskBar>
      <div className={css.wideContent}>
        <QueryView query={query} skeleton={<Skeleton lines={6} />}>
          {({ proposals }) =>
            proposals.length === 0 ? (
              <EmptyView title="Nothing was proposed">
                Where the setting “Changes that need a second person” names a kind, its changes are proposed
                and wait here until somebody else approves them.
              </EmptyView>
            ) : (
              <VersionList label="Proposed changes">
                {proposals.map((proposal) => (
                  <Proposal
                    key={proposal.proposal_id}
                    proposal={proposal}
                    records={records}
                    rules={rules.data?.rules ?? []}
                    isOwn={settings.data?.operator.trim().toLowerCase() === proposal.by.trim().toLowerCase()}
                  />
                ))}
              </VersionList>
            )
          }
        </QueryView>
      </div>
    </>
  );
}

type Change = ConfigProposal["changes"][number];

function ChangeView({
  change,
  records,
  rules,
}: {
  readonly change: Change;
  readonly records: readonly ConfigItemRecord[];
  readonly rules: readonly RuleRecord[];
}): ReactNode {
  const currency = useProjectCurrency();
  if (change.kind === "rule") {
    const parsed = change.record === null ? null : parseRule(change.record);
    const now = rules.find(({ rule_name }) => rule_name === change.key);
    const before = now ? parseRule(now) : null;
    return (
      <div>
        <b>Rule {codeWords(change.key)}</b>{" "}
        {change.record === null ? (
          <Tag tone="red">is retired</Tag>
        ) : parsed?.ok && before?.ok ? (
          <DifferenceView
            difference={compareRules(before.value, parsed.value).map((each) => ({
              part: each.part,
              removed: [...each.removed],
              added: [...each.added],
            }))}
          />
        ) : parsed?.ok ? (
          <span>{cleanText(describeRule(parsed.value))}</span>
        ) : null}
      </div>
    );
  }
  const kind: ConfigKind = change.kind;
  const now = records.find((each) => each.kind === kind && each.key === change.key);
  return (
    <div>
      <b>{clip(capitalise(cleanText(fullTitle(kind, change.key, change.record))), 80)}</b>{" "}
      {change.record === null ? <Tag tone="red">is retired</Tag> : now ? null : <Tag tone="blue">new</Tag>}
      {change.record !== null && now ? (
        <DifferenceView difference={compareConfig(kind, change.key, now.record, change.record, currency)} />
      ) : null}
    </div>
  );
}

function Proposal({
  proposal,
  records,
  rules,
  isOwn,
}: {
  readonly proposal: ConfigProposal;
  readonly records: readonly ConfigItemRecord[];
  readonly rules: readonly RuleRecord[];
  readonly isOwn: boolean;
}): ReactNode {
  const waits = proposal.status === "proposed";
  return (
    <li>
      <VersionHead>
        <b>{clip(cleanText(proposal.by), 60)}</b>
        <Time at={proposal.at} form="short" />
        <span>
          {proposal.decided_by ? (
            <span className={css.quiet}>
              by {clip(cleanText(proposal.decided_by), 60)} <Time
                at={proposal.decided_at}
                form="short"
              />{" "}
            </span>
          ) : null}
          <Tag tone={tones[proposal.status]}>{proposal.status}</Tag>
        </span>
      </VersionHead>
      <SafeText text={proposal.reason} length={400} />
      {proposal.decision_reason ? (
        <span className={css.quiet}>
          <SafeText text={proposal.decision_reason} length={400} />
        </span>
      ) : null}
      {waits
        ? proposal.changes.map((change) => (
            <ChangeView key={`${change.kind}${change.key}`} change={change} records={records} rules={rules} />
          ))
        : proposal.changes.slice(0, 5).map((change) => (
            <span key={`${change.kind}${change.key}`} className={css.quiet}>
              {change.kind} {clip(cleanText(change.key), 80)}
            </span>
          ))}
      {waits ? (
        <>
          <LookAhead changes={proposal.changes.map(asWanted)} />
          <Decide proposal={proposal} isOwn={isOwn} />
        </>
      ) : null}
    </li>
  );
}

function Decide({
  proposal,
  isOwn,
}: {
  readonly proposal: ConfigProposal;
  readonly isOwn: boolean;
}): ReactNode {
  const client = useConsole();
  const queries = useQueryClient();
  const isLive = useIsLive();
  const isReadOnly = useIsReadOnly();
  const [reason, setReason] = useState("");
  const [busy, setBusy] = useState(false);
  const decide = async (decision: "approve" | "reject"): Promise<void> => {
    const approve = decision === "approve";
    setBusy(true);
    const result = await client.call("plans.decide", {
      command_id: crypto.randomUUID(),
      proposal_id: proposal.proposal_id,
      approve,
      reason: reason.trim() || null,
    });
    setBusy(false);
    for (const key of ["plans.proposals", "plans.list", "plans.changes", "rules.list", "rules.changes"])
      void queries.invalidateQueries({ queryKey: [key] });
    if (!result.ok) return showFailure("Not decided", result.error);
    showDone(approve ? "Approved: the project has it now" : "Rejected: nothing was changed");
  };
  return (
    <div className={css.save}>
      <TextInput
        aria-label="Your comment"
        placeholder="Your comment (optional)"
        maxLength={1000}
        value={reason}
        onChange={(event) => setReason(event.currentTarget.value)}
      />
      <Button
        variant="filled"
        loading={busy}
        disabled={isOwn || !isLive || isReadOnly}
        title={isOwn ? "You proposed it: somebody else approves it" : undefined}
        onClick={() => void decide("approve")}
      >
        Approve
      </Button>
      <Button loading={busy} disabled={!isLive || isReadOnly} onClick={() => void decide("reject")}>
        Reject
      </Button>
    </div>
  );
}
