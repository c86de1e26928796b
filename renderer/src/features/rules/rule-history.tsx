import { Button, Popover, Textarea } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { type ReactNode, useState } from "react";
import type { RuleChange, RuleRecord } from "../../../../shared/contract/rules.ts";
import { useCall, useConsole } from "../../lib/console.tsx";
import { navigate, placeAddress } from "../../lib/router.ts";
import { capitalise, codeWords, counted } from "../../lib/text.ts";
import { useAct } from "../../ui/acts.ts";
import { DeskBar, Grow } from "../../ui/desk.tsx";
import { showDone, showFailure } from "../../ui/notices.tsx";
import { Note, Tag, Time } from "../../ui/parts.tsx";
import { DetailScroll } from "../../ui/side-detail.tsx";
import { EmptyView, QueryView } from "../../ui/states.tsx";
import { OlderPages, VersionLine, VersionList, VersionPage } from "../../ui/versions.tsx";
import css from "./editor.module.css";
import { RuleStepView } from "./rule-steps.tsx";

function Changes({
  ruleName,
  children,
}: {
  readonly ruleName: string | null;
  readonly children: (change: RuleChange) => ReactNode;
}): ReactNode {
  return (
    <OlderPages>
      {(before, onMore) => (
        <ChangesPage key={before ?? "first"} asked={{ rule_name: ruleName, before }} onMore={onMore}>
          {children}
        </ChangesPage>
      )}
    </OlderPages>
  );
}

function ChangesPage({
  asked,
  onMore,
  children,
}: {
  readonly asked: { readonly rule_name: string | null; readonly before: number | null };
  readonly onMore: ((before: number) => void) | null;
  readonly children: (change: RuleChange) => ReactNode;
}): ReactNode {
  const query = useCall("rules.changes", asked);
  return (
    <VersionPage query={query} before={asked.before} onMore={onMore} nothing="No rule was changed yet">
      {children}
    </VersionPage>
  );
}

/** Every version of one rule, with who, why and what changed; any of them can come back. */
export function RuleHistory({
  ruleName,
  record,
}: {
  readonly ruleName: string;
  /** Null where the rule is retired. */
  readonly record: RuleRecord | null;
}): ReactNode {
  const runAct = useAct();
  const queries = useQueryClient();
  return (
    <Changes ruleName={ruleName}>
      {(change) => (
        <VersionLine key={change.version_id} change={change}>
          {change.version === record?.version ? (
            <Tag tone="green">in force</Tag>
          ) : change.is_retired ? null : (
            <Button
              size="compact-xs"
              onClick={() => {
                void runAct("save_rule", record ?? { rule_name: ruleName, version: 0 }, {
                  rule: change.rule,
                  reason: `Return to version ${change.version}`,
                }).then(() => queries.invalidateQueries({ queryKey: ["rules.changes"] }));
              }}
            >
              Return to this
            </Button>
          )}
        </VersionLine>
      )}
    </Changes>
  );
}

/** A rule that is not in force: its history, from which it can come back. */
export function RetiredRule({ ruleName }: { readonly ruleName: string }): ReactNode {
  const known = useCall("rules.changes", { rule_name: ruleName, before: null });
  if (known.data?.changes.length === 0)
    return <EmptyView title="There is no such rule">This project never had a rule of this name.</EmptyView>;
  return (
    <DetailScroll>
      <div className={css.page}>
        <Note tone="grey">This rule is not in force. Any version of it can come back.</Note>
        <RuleHistory ruleName={ruleName} record={null} />
      </div>
    </DetailScroll>
  );
}

/** Every change of every rule; the whole rule set can return to the moment after any of them. */
export function RulesHistory(): ReactNode {
  const [chosen, setChosen] = useState<RuleChange | null>(null);
  return (
    <div className={css.editor}>
      <DeskBar title="History of the rules">
        <Grow />
        <Button onClick={() => navigate("/rules")}>Back</Button>
      </DeskBar>
      <div className={css.columns}>
        <div className={css.form}>
          <Changes ruleName={null}>
            {(change) => (
              <VersionLine
                key={change.version_id}
                change={change}
                link={
                  <a href={`#${placeAddress(["rules", change.rule_name], { tab: "history" })}`}>
                    {capitalise(codeWords(change.rule_name))}
                  </a>
                }
              >
                <Button
                  size="compact-xs"
                  variant={chosen?.version_id === change.version_id ? "filled" : "default"}
                  onClick={() => setChosen(change)}
                >
                  The rules as they were then
                </Button>
              </VersionLine>
            )}
          </Changes>
        </div>
        <div className={css.side}>
          {chosen === null ? (
            <EmptyView title="Choose a moment">
              What returning the whole rule set to it would change is shown here first.
            </EmptyView>
          ) : (
            <ReturnTo key={chosen.version_id} change={chosen} onDone={() => setChosen(null)} />
          )}
        </div>
      </div>
    </div>
  );
}

function ReturnTo({
  change,
  onDone,
}: {
  readonly change: RuleChange;
  readonly onDone: () => void;
}): ReactNode {
  const query = useCall("rules.as_of", { version_id: change.version_id });
  return (
    <QueryView query={query}>
      {({ steps, latest_version_id }) => {
        const changing = steps.filter((step) => step.kind !== "same");
        return (
          <>
            <div>
              The rules right after <Time at={change.at} form="short" />:{" "}
              {counted(steps.filter((step) => step.kind !== "retired").length, "rule")}.
            </div>
            {changing.length === 0 ? (
              <Note tone="green">The rules are as they were then.</Note>
            ) : (
              <>
                <VersionList>
                  {changing.map((step) => (
                    <RuleStepView
                      key={step.rule_name}
                      step={step}
                      words={{ new: "comes back", changed: "changes back", retired: "is retired" }}
                    />
                  ))}
                </VersionList>
                <ReturnButton
                  change={change}
                  latest={latest_version_id}
                  count={changing.length}
                  onDone={onDone}
                />
              </>
            )}
          </>
        );
      }}
    </QueryView>
  );
}

function ReturnButton({
  change,
  latest,
  count,
  onDone,
}: {
  readonly change: RuleChange;
  readonly latest: number;
  readonly count: number;
  readonly onDone: () => void;
}): ReactNode {
  const client = useConsole();
  const queries = useQueryClient();
  const [isAsking, setAsking] = useState(false);
  const [reason, setReason] = useState("");
  const [busy, setBusy] = useState(false);
  const [commandId] = useState(() => crypto.randomUUID());
  const restore = async (): Promise<void> => {
    setBusy(true);
    const result = await client.call("rules.restore", {
      command_id: commandId,
      version_id: change.version_id,
      expected_version_id: latest,
      reason,
    });
    setBusy(false);
    for (const key of ["rules.list", "rules.changes", "rules.as_of"])
      void queries.invalidateQueries({ queryKey: [key] });
    if (!result.ok) return showFailure("The rules did not return", result.error);
    showDone(`${counted(result.value.changed.length, "rule")} returned to what they were`);
    setAsking(false);
    onDone();
  };
  return (
    <Popover opened={isAsking} onChange={setAsking} position="top-end" trapFocus returnFocus>
      <Popover.Target>
        <Button variant="filled" onClick={() => setAsking(!isAsking)}>
          Return {counted(count, "rule")}…
        </Button>
      </Popover.Target>
      <Popover.Dropdown>
        <form
          aria-label="Return the whole rule set"
          style={{ display: "flex", flexDirection: "column", gap: 8, width: 320 }}
          onSubmit={(event) => {
            event.preventDefault();
            void restore();
          }}
        >
          <Textarea
            label="Why"
            data-autofocus
            minRows={2}
            maxLength={1000}
            value={reason}
            onChange={(event) => setReason(event.currentTarget.value)}
          />
          <Button type="submit" variant="filled" loading={busy} disabled={reason.trim().length < 3}>
            Return the whole rule set
          </Button>
        </form>
      </Popover.Dropdown>
    </Popover>
  );
}
