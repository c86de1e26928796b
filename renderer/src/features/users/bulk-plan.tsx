/** Whom an act on many users hits, and what it costs. */
import type { ReactNode } from "react";
import { type BulkKind, type ManyPreview, movesTokens } from "../../../../shared/contract/bulk.ts";
import { useNow, useZone } from "../../lib/clock.ts";
import { formatChange, formatShortInstant, formatTokens } from "../../lib/format.ts";
import { cleanText, clip, codeWords, counted } from "../../lib/text.ts";
import { Facts, Note, PlanName, ProposalNote, UserLine } from "../../ui/parts.tsx";
import { PlainTable } from "../../ui/plain-table.tsx";
import css from "./bulk.module.css";

export const people = (count: number): string => counted(count, "user");

type Shown = ManyPreview["shown"][number];
type Given = Readonly<Record<string, unknown>>;

/** Why users are left out whom the act would not change. */
const unchanged: Partial<Record<BulkKind, string>> = {
  change_plan: "on this plan already",
  raise_limit: "their plan has no such limit, or one as high",
  flag_user: "flagged already",
  unflag_user: "not flagged",
  block_user: "blocked for as long already",
  unblock_user: "not blocked",
};

export function BulkPlan({
  kind,
  given,
  plan,
}: {
  readonly kind: BulkKind;
  /** What is wanted: the fields of the act. */
  readonly given: Given;
  readonly plan: ManyPreview;
}): ReactNode {
  const others = [
    ...plan.by_refusal.map(
      ({ hint, accounts }) =>
        [(hint === "nothing_to_change" && unchanged[kind]) || codeWords(hint), accounts] as const,
    ),
    ...(plan.missing > 0 ? ([["not a user here any more", plan.missing]] as const) : []),
  ];
  return (
    <>
      <Facts rows={factsOf(kind, plan)} />
      {others.length > 0 ? (
        <Note tone="amber">
          Left out: {others.map(([why, count]) => `${people(count)} (${why})`).join(", ")}.
        </Note>
      ) : null}
      {plan.why ? <ProposalNote why={plan.why} /> : null}
      <details className={css.shown}>
        <summary>
          {plan.accounts > plan.shown.length
            ? `The first ${plan.shown.length} of them`
            : "All of them, one by one"}
        </summary>
        <div className={css.scroll}>
          <ShownUsers kind={kind} given={given} rows={plan.shown} />
        </div>
      </details>
    </>
  );
}

function factsOf(kind: BulkKind, plan: ManyPreview): readonly (readonly [string, ReactNode])[] {
  const count = (
    name: string,
    value: number | null | undefined,
  ): readonly (readonly [string, ReactNode])[] => (value ? [[name, people(value)]] : []);
  const byPlan = plan.by_plan
    .slice(0, 6)
    .map((each) => `${clip(cleanText(each.name || each.plan_id), 30)} ${each.accounts.toLocaleString("en")}`);
  return [
    ["Changes", <b key="changes">{people(plan.changes)}</b>],
    ...(movesTokens(kind)
      ? [
          [
            plan.tokens < 0 ? "Tokens taken in all" : "Tokens given in all",
            <b key="tokens">{formatTokens(Math.abs(plan.tokens))}</b>,
          ] as const,
        ]
      : []),
    ...(plan.debt_paid > 0 ? [["Of it pays debt", formatTokens(plan.debt_paid)] as const] : []),
    ["By plan", byPlan.join(", ") || "none"],
    ...count("Have paid", plan.paying),
    ...count("Blocked now", plan.blocked),
    ...count("Flagged now", plan.flagged),
    // A call that runs is not cut off: the next one is refused.
    ...(kind === "block_user" ? count("With calls in flight, which end", plan.holding) : []),
    ...(movesTokens(kind) || plan.used_this_month === undefined || plan.used_this_month === null
      ? []
      : [["Tokens they used this month", formatTokens(plan.used_this_month)] as const]),
  ];
}

function ShownUsers({
  kind,
  given,
  rows,
}: {
  readonly kind: BulkKind;
  readonly given: Given;
  readonly rows: readonly Shown[];
}): ReactNode {
  const zone = useZone(null);
  const moment = useNow(60_000);
  const [header, now, then] = columnsOf(kind, given, (at) => formatShortInstant(at, zone, moment));
  return (
    <PlainTable
      label="Whom it affects"
      columns={[
        {
          id: "user",
          header: "User",
          width: 160,
          grow: 1,
          cell: (row) => <UserLine user={row} />,
        },
        { id: "now", header, width: 120, align: "right", cell: now },
        {
          id: "then",
          header: "then",
          width: 130,
          align: "right",
          cell: (row) =>
            row.hint ? (
              <span className={css.quiet}>
                {row.hint === "nothing_to_change" ? "stays" : codeWords(row.hint)}
              </span>
            ) : (
              then(row)
            ),
        },
      ]}
      rows={rows}
      rowKey={(row) => row.user_id}
      empty="Nobody."
    />
  );
}

/** What the act changes of each: the heading, what is there now, and what will be. */
function columnsOf(
  kind: BulkKind,
  given: Given,
  when: (at: string) => string,
): readonly [header: string, now: (row: Shown) => ReactNode, then: (row: Shown) => ReactNode] {
  const planName = (row: Shown): ReactNode => <PlanName id={row.plan_id} />;
  const limit = (value: number | null): string => (value === null ? "no limit" : formatTokens(value));
  const blocked = (row: Shown): string =>
    row.is_blocked
      ? row.blocked_until
        ? `until ${when(row.blocked_until)}`
        : "until unblocked"
      : "not blocked";
  switch (kind) {
    case "flag_user":
    case "unflag_user":
      return [
        "Flag now",
        (row) => (row.is_flagged ? "flagged" : "not flagged"),
        () => (kind === "flag_user" ? "flagged" : "not flagged"),
      ];
    case "block_user":
    case "unblock_user":
      return [
        "Blocked now",
        blocked,
        () =>
          kind === "unblock_user"
            ? "not blocked"
            : typeof given["until"] === "string"
              ? `until ${when(given["until"])}`
              : "until unblocked",
      ];
    case "raise_limit": {
      const by = typeof given["daily_limit"] === "number" ? "daily" : "monthly";
      return [
        `${by === "daily" ? "Daily" : "Monthly"} limit now`,
        (row) => limit(by === "daily" ? row.daily_limit : row.monthly_limit),
        () => limit((given[`${by}_limit`] as number | null) ?? null),
      ];
    }
    case "note":
      return ["Plan", planName, () => "a note"];
    case "change_plan":
      return [
        "Plan and free tokens now",
        (row) => (
          <>
            {planName(row)}, {formatTokens(row.before)}
          </>
        ),
        (row) => (
          <>
            <PlanName id={String(given["plan_id"])} />, {formatTokens(row.after)}
          </>
        ),
      ];
    case "give_tokens":
    case "take_tokens":
      return [
        "Free now",
        (row) => formatTokens(row.before),
        (row) => <span title={formatChange(row.after - row.before)}>{formatTokens(row.after)}</span>,
      ];
  }
}
