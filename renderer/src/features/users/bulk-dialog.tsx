/** One correction of many users: whom it hits, what it costs, and why, before it starts. */
import { Button, Modal, SegmentedControl, Textarea } from "@mantine/core";
import { useDebouncedValue } from "@mantine/hooks";
import { type ReactNode, useState } from "react";
import { type BulkKind, bulkKinds, type ManyPreview, mostInBulk } from "../../../../shared/contract/bulk.ts";
import {
  type Correction,
  correction as correctionSchema,
  correctionWords,
} from "../../../../shared/contract/corrections.ts";
import { toFailure, useCall, useConsole } from "../../lib/console.tsx";
import { formatChange, formatTokens } from "../../lib/format.ts";
import { navigate } from "../../lib/router.ts";
import { cleanText, clip, codeWords, counted } from "../../lib/text.ts";
import { CorrectionFields } from "../../ui/correction-form.tsx";
import { showFailure } from "../../ui/notices.tsx";
import { Facts, Note, SafeText, UserName } from "../../ui/parts.tsx";
import { PlainTable } from "../../ui/plain-table.tsx";
import { FailureLine, Skeleton } from "../../ui/states.tsx";
import type { UserSearch } from "./user-search.ts";
import { PresetReasons } from "../../ui/preset-reasons.tsx";
import css from "./bulk.module.css";

const people = (count: number): string => counted(count, "user");

/** The button on the users desk: for the chosen rows, or for all that the list finds. */
export function CorrectMany({
  search,
  picked,
  isLive,
}: {
  readonly search: UserSearch;
  readonly picked: ReadonlySet<string>;
  readonly isLive: boolean;
}): ReactNode {
  const [opened, setOpened] = useState(false);
  return (
    <>
      <Button
        disabled={!isLive}
        title={
          isLive
            ? "Give or take tokens, or change the plan, of many users at once. Choose rows with x, or take all that the list finds."
            : "Needs a connection to the project"
        }
        aria-haspopup="dialog"
        variant={picked.size > 0 ? "filled" : "default"}
        onClick={() => setOpened(true)}
      >
        {picked.size > 0 ? `Correct ${people(picked.size)}…` : "Correct many…"}
      </Button>
      {opened ? <BulkDialog search={search} picked={picked} onClose={() => setOpened(false)} /> : null}
    </>
  );
}

function BulkDialog({
  search: { searched, filter, planId, since, isNarrowed },
  picked,
  onClose,
}: {
  readonly search: UserSearch;
  readonly picked: ReadonlySet<string>;
  readonly onClose: () => void;
}): ReactNode {
  const [whom, setWhom] = useState<"picked" | "all">(picked.size > 0 ? "picked" : "all");
  // The users are fixed when the dialog opens: what is looked at is what is done.
  const [chosen] = useState(() => [...picked]);
  const all = useCall(
    "bulk.choose",
    { query: searched, filter, plan_id: planId || null, active_since: since },
    { enabled: whom === "all", staleMs: Number.POSITIVE_INFINITY },
  );
  const ids = whom === "picked" ? chosen : (all.data?.user_ids ?? []);
  return (
    <Modal opened onClose={onClose} title="Correct many users" size={620}>
      <div className={css.dialog}>
        <SegmentedControl
          aria-label="Whom"
          data={[
            { value: "picked", label: `Chosen rows (${chosen.length})`, disabled: chosen.length === 0 },
            {
              value: "all",
              label: `${isNarrowed ? "All that the list finds" : "Everybody"}${all.data ? ` (${all.data.user_ids.length.toLocaleString("en")}${all.data.is_cut ? "+" : ""})` : ""}`,
            },
          ]}
          value={whom}
          onChange={(value) => setWhom(value as "picked" | "all")}
        />
        {whom === "all" && all.error ? <FailureLine failure={toFailure(all.error)} /> : null}
        {whom === "all" && all.isLoading ? <Skeleton lines={4} /> : null}
        {whom === "all" && all.data?.is_cut ? (
          <Note tone="amber">
            More than {mostInBulk.toLocaleString("en")} users fit. Narrow the list: so many go into one act.
          </Note>
        ) : ids.length > 0 ? (
          <BulkForm key={whom} ids={ids} onClose={onClose} />
        ) : whom === "all" && all.data ? (
          <Note tone="grey">Nobody fits.</Note>
        ) : null}
      </div>
    </Modal>
  );
}

function BulkForm({
  ids,
  onClose,
}: {
  readonly ids: readonly string[];
  readonly onClose: () => void;
}): ReactNode {
  const client = useConsole();
  const [kind, setKind] = useState<BulkKind>("give_tokens");
  const [fields, setFields] = useState<Readonly<Record<string, unknown>>>({
    lot_kind: "promotional",
    expires_at: null,
  });
  const [reason, setReason] = useState("");
  const [error, setError] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const [commandId, setCommandId] = useState(() => crypto.randomUUID());
  const wanted = correctionSchema.safeParse(
    kind === "give_tokens"
      ? {
          kind,
          tokens: fields["tokens"],
          lot_kind: fields["lot_kind"],
          expires_at: fields["expires_at"] ?? null,
        }
      : kind === "take_tokens"
        ? { kind, tokens: fields["tokens"] }
        : { kind, plan_id: fields["plan_id"] },
  );
  const [settled] = useDebouncedValue(wanted.data, 300);
  const isSettled = wanted.success && JSON.stringify(settled) === JSON.stringify(wanted.data);
  const preview = useCall(
    "bulk.preview",
    { user_ids: [...ids], correction: settled as Correction },
    { enabled: settled !== undefined, staleMs: 0 },
  );
  const plan = isSettled ? preview.data : undefined;
  const isReady = plan !== undefined && plan.changes > 0 && !preview.error;
  const words = correctionWords[kind];

  const submit = async (): Promise<void> => {
    if (busy || !isReady || !wanted.success) return;
    if (reason.trim().length < 3) {
      setError("Give a reason of at least 3 characters.");
      return;
    }
    setBusy(true);
    const started = await client.call("bulk.start", {
      command_id: commandId,
      user_ids: [...ids],
      correction: wanted.data,
      reason: reason.trim(),
      expected_changes: plan.changes,
      expected_tokens: plan.tokens,
    });
    setBusy(false);
    if (!started.ok) {
      showFailure("Not started", started.error);
      if (started.error.code === "in_doubt") return onClose();
      setCommandId(crypto.randomUUID());
      return void preview.refetch();
    }
    onClose();
    navigate(`/audit/many/${started.value.bulk_id}`);
  };
  return (
    <form
      className={css.dialog}
      aria-label="Correct many users"
      onSubmit={(event) => {
        event.preventDefault();
        void submit();
      }}
    >
      <SegmentedControl
        aria-label="What"
        data={bulkKinds.map((value) => ({ value, label: correctionWords[value].title }))}
        value={kind}
        onChange={(value) => setKind(value as BulkKind)}
      />
      <CorrectionFields
        kind={kind}
        fields={fields}
        set={(more) => setFields((before) => ({ ...before, ...more }))}
        plan=""
        given={{}}
      />
      {isSettled && preview.error ? <FailureLine failure={toFailure(preview.error)} /> : null}
      {isSettled && preview.isLoading ? <Skeleton lines={4} /> : null}
      {plan ? <PlanView plan={plan} /> : null}
      <Textarea
        label="Reason"
        description="Kept in the audit and in the ledger of each of them."
        autosize
        minRows={2}
        maxRows={6}
        maxLength={1000}
        value={reason}
        error={error}
        onChange={(event) => {
          setReason(event.currentTarget.value);
          setError(null);
        }}
      />
      <PresetReasons
        reasons={["Goodwill after an outage", ...words.reasons.slice(0, 2)]}
        onPick={(each) => {
          setReason(each);
          setError(null);
        }}
      />
      <div className={css.formButtons}>
        <Button onClick={onClose}>Cancel</Button>
        <Button
          type="submit"
          variant="filled"
          color={words.isDangerous ? "danger" : "accent"}
          loading={busy}
          disabled={!isReady}
        >
          {plan?.why ? "Propose for" : `${words.title}:`} {people(plan?.changes ?? ids.length)}
        </Button>
      </div>
    </form>
  );
}

/** Whom it hits and what it costs. */
function PlanView({ plan }: { readonly plan: ManyPreview }): ReactNode {
  const others = [
    ...plan.by_refusal.map(({ hint, accounts }) => [codeWords(hint), accounts] as const),
    ...(plan.missing > 0 ? ([["not a user here any more", plan.missing]] as const) : []),
  ];
  return (
    <>
      <Facts
        rows={[
          ["Changes", people(plan.changes)],
          [
            plan.tokens < 0 ? "Tokens taken in all" : "Tokens given in all",
            <b key="tokens">{formatTokens(Math.abs(plan.tokens))}</b>,
          ],
          ...(plan.debt_paid > 0 ? [["Of it pays debt", formatTokens(plan.debt_paid)] as const] : []),
          [
            "By plan",
            plan.by_plan
              .slice(0, 6)
              .map(
                (each) =>
                  `${clip(cleanText(each.name || each.plan_id), 30)} ${each.accounts.toLocaleString("en")}`,
              )
              .join(", ") || "none",
          ],
          ...(plan.blocked > 0 ? [["Blocked now", people(plan.blocked)] as const] : []),
        ]}
      />
      {others.length > 0 ? (
        <Note tone="amber">
          Left out: {others.map(([why, count]) => `${people(count)} (${why})`).join(", ")}.
        </Note>
      ) : null}
      {plan.why ? <Note tone="amber">{plan.why}. You propose it; nothing moves until then.</Note> : null}
      <details className={css.shown}>
        <summary>
          {plan.accounts > plan.shown.length
            ? `The first ${plan.shown.length} of them`
            : "All of them, one by one"}
        </summary>
        <div className={css.scroll}>
          <PlainTable
            label="Whom it hits"
            columns={[
              {
                id: "user",
                header: "User",
                width: 160,
                grow: 1,
                cell: (row) => (
                  <span className={css.user} title={row.user_id}>
                    <UserName name={row.display_name} id={row.user_id} />
                    {row.email ? (
                      <span className={css.quiet}>
                        <SafeText text={row.email} length={40} />
                      </span>
                    ) : null}
                  </span>
                ),
              },
              {
                id: "now",
                header: "Free now",
                width: 90,
                align: "right",
                cell: (row) => formatTokens(row.before),
              },
              {
                id: "then",
                header: "then",
                width: 110,
                align: "right",
                cell: (row) =>
                  row.hint ? (
                    <span className={css.quiet}>{codeWords(row.hint)}</span>
                  ) : (
                    <span title={formatChange(row.after - row.before)}>{formatTokens(row.after)}</span>
                  ),
              },
            ]}
            rows={plan.shown}
            rowKey={(row) => row.user_id}
            empty="Nobody."
          />
        </div>
      </details>
    </>
  );
}
