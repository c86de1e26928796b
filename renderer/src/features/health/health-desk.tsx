/** Whether all is well, what to do where it is not, and the figures behind it. */
import { Button } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { type ReactNode, useState } from "react";
import type { HealthCheck, HealthDetails } from "../../../../shared/contract/health.ts";
import { useCall, useConsole } from "../../lib/console.tsx";
import { formatBytes, formatDuration, formatTokens } from "../../lib/format.ts";
import { useKeys } from "../../lib/keys.ts";
import { useMayAct } from "../../lib/live.ts";
import { placeAddress } from "../../lib/router.ts";
import { capitalise, codeWords, counted } from "../../lib/text.ts";
import type { Column } from "../../ui/data-table.tsx";
import { DeskBar, Grow } from "../../ui/desk.tsx";
import { CheckIcon, RefreshIcon } from "../../ui/icons.tsx";
import { showDone, showFailure } from "../../ui/notices.tsx";
import { Facts, Note, SafeText, Section, Tag, Time, TimedText, UserName } from "../../ui/parts.tsx";
import { PlainTable } from "../../ui/plain-table.tsx";
import { QueryView, Skeleton, StaleLine } from "../../ui/states.tsx";
import { Guards } from "./guards.tsx";
import css from "./health.module.css";
import { translated } from "../../lib/language.ts";

/** A person who looks at this desk while something is wrong wants to see it turn green. */
const refreshMs = 15_000;

export function HealthDesk(): ReactNode {
  const query = useCall("health.get", {}, { refetchMs: refreshMs });
  useKeys({ r: () => void query.refetch() });
  return (
    <>
      <DeskBar title="Health">
        <Grow />
        <Button
          leftSection={<RefreshIcon size={14} />}
          loading={query.isFetching && query.data === undefined}
          title="Check again (r)"
          onClick={() => void query.refetch()}
        >
          Check again
        </Button>
      </DeskBar>
      <div className={css.body}>
        <QueryView query={query} skeleton={<Skeleton lines={16} />}>
          {({ checks, sizes, details, as_of: asOf }) => (
            <>
              {asOf ? <StaleLine asOf={asOf} /> : null}
              <Checks checks={checks} />
              <Upkeep runs={details.runs} />
              <div className={css.columns}>
                <Ledger details={details} />
                <Deliveries deliveries={details.deliveries} />
              </div>
              <Guards guards={details.guards} />
              <Holds details={details} />
              <div className={css.columns}>
                <SlowFunctions details={details} />
                <Sizes sizes={sizes} details={details} />
              </div>
            </>
          )}
        </QueryView>
      </div>
    </>
  );
}

/** Where a person acts on what a check found. */
const doors: Readonly<Record<string, readonly [string, string]>> = {
  upkeep_failures: ["Open alerts", "/alerts"],
  failed_deliveries: ["See which", "/alerts?show=undelivered"],
  settlements: ["Open alerts", "/alerts"],
  stripe_events: ["Open Stripe events", "/finance/events"],
  rules: ["Open rules", "/rules"],
};

const checkColumns: readonly Column<HealthCheck>[] = [
  {
    id: "state",
    header: "State",
    width: 60,
    cell: ({ ok }) => (
      <Tag tone={ok ? "green" : "red"} dot plain>
        {ok ? "well" : "not well"}
      </Tag>
    ),
  },
  { id: "check", header: "Check", width: 130, cell: ({ check }) => capitalise(codeWords(check)) },
  {
    id: "found",
    header: "Found, and what to do",
    width: 260,
    grow: 1,
    cell: ({ check, found, advice, ok }) => (
      <div className={css.found}>
        <TimedText text={translated(found)} length={600} />
        {advice ? (
          <div className={css.advice}>
            <SafeText text={translated(advice)} length={600} />
          </div>
        ) : null}
        {!ok && doors[check] ? <a href={`#${doors[check][1]}`}>{doors[check][0]}</a> : null}
      </div>
    ),
  },
];

function Checks({ checks }: { readonly checks: readonly HealthCheck[] }): ReactNode {
  const [showsAll, setShowsAll] = useState(false);
  const troubles = checks.filter(({ ok }) => !ok);
  const sound = checks.filter(({ ok }) => ok);
  return (
    <Section
      title="Checks"
      aside={
        <Button variant="subtle" onClick={() => setShowsAll(!showsAll)}>
          {showsAll ? "Show troubles alone" : `Show all ${checks.length}`}
        </Button>
      }
    >
      <div role="status">
        {troubles.length === 0 ? (
          <Note tone="green">All is well: {counted(sound.length, "check")}, none found a trouble.</Note>
        ) : (
          <Note tone="red">
            {counted(troubles.length, "trouble")} found, {counted(sound.length, "check")} well.
          </Note>
        )}
      </div>
      {troubles.length > 0 || showsAll ? (
        <PlainTable
          label="Checks"
          columns={checkColumns}
          rows={showsAll ? [...troubles, ...sound] : troubles}
          rowKey={({ check }) => check}
          empty={null}
        />
      ) : null}
    </Section>
  );
}

type Run = HealthDetails["runs"][number];

/** What upkeep counts, as the figures of `run_maintenance` are called. */
const works: Readonly<Record<string, (n: number) => string>> = {
  accounts_failed: (n) => counted(n, "account failed", "accounts failed"),
  alerts_triggered: (n) => counted(n, "alert raised", "alerts raised"),
  allowances_reset: (n) => counted(n, "allowance given", "allowances given"),
  days_aggregated: (n) => counted(n, "day added up", "days added up"),
  entries_counted: (n) => counted(n, "entry counted for revenue", "entries counted for revenue"),
  events_followed: (n) => counted(n, "event followed", "events followed"),
  expired_grants: (n) => counted(n, "lot expired", "lots expired"),
  expired_reservations: (n) => counted(n, "hold expired", "holds expired"),
  notifications_queued: (n) => counted(n, "message queued", "messages queued"),
  partitions_created: (n) => counted(n, "partition made", "partitions made"),
  partitions_dropped: (n) => counted(n, "partition dropped", "partitions dropped"),
  rollup_problems: (n) => counted(n, "roll-up differs", "roll-ups differ"),
  rows_purged: (n) => counted(n, "row purged", "rows purged"),
  rules_put_back: (n) => counted(n, "rule put back", "rules put back"),
  webhook_events_purged: (n) => counted(n, "Stripe event purged", "Stripe events purged"),
};

/** What a round did, in words: "3 holds expired, 1 row purged". */
export function roundWords(counts: Run["counts"]): string {
  const parts = Object.entries(counts)
    .filter(([name, value]) => name !== "more" && typeof value === "number" && value > 0)
    .map(
      ([name, value]) =>
        works[name]?.(value as number) ?? `${formatTokens(value as number)} ${codeWords(name)}`,
    );
  if (counts["more"] === true) parts.push("more is left for the next round");
  return parts.length === 0 ? "nothing to do" : parts.join(", ");
}

const runColumns: readonly Column<Run>[] = [
  { id: "at", header: "Began", width: 110, cell: ({ started_at: at }) => <Time at={at} /> },
  {
    id: "took",
    header: "Took",
    width: 70,
    align: "right",
    cell: ({ milliseconds }) => (milliseconds < 1000 ? `${milliseconds} ms` : formatDuration(milliseconds)),
  },
  { id: "did", header: "What it did", width: 260, grow: 1, cell: ({ counts }) => roundWords(counts) },
];

const fewRuns = 6;

function Upkeep({ runs }: { readonly runs: readonly Run[] }): ReactNode {
  const [showsAll, setShowsAll] = useState(false);
  return (
    <Section
      title="Upkeep"
      aside={
        runs.length > fewRuns ? (
          <Button variant="subtle" onClick={() => setShowsAll(!showsAll)}>
            {showsAll ? "Show fewer" : `Show the last ${runs.length}`}
          </Button>
        ) : null
      }
    >
      <PlainTable
        label="Rounds of upkeep, newest first"
        columns={runColumns}
        rows={showsAll ? runs : runs.slice(0, fewRuns)}
        rowKey={({ run_id: id }) => String(id)}
        empty="Upkeep has not run yet. Have run_maintenance called every minute."
      />
    </Section>
  );
}

function Ledger({ details }: { readonly details: HealthDetails }): ReactNode {
  const client = useConsole();
  const queries = useQueryClient();
  const isLive = useMayAct();
  const [isBusy, setBusy] = useState(false);
  const { verified } = details;
  const verify = async (): Promise<void> => {
    setBusy(true);
    const result = await client.call("health.verify_ledger", { command_id: crypto.randomUUID() });
    setBusy(false);
    if (!result.ok) return showFailure("The ledger was not verified", result.error);
    const { problem_count: problems, entries_checked: entries } = result.value;
    showDone(
      problems === 0
        ? `The ledger is sound: ${formatTokens(entries)} entries`
        : `${counted(problems, "problem")} in the ledger`,
    );
    await queries.invalidateQueries({ queryKey: ["health.get"] });
  };
  return (
    <Section
      title="Ledger"
      aside={
        <Button
          leftSection={<CheckIcon size={14} />}
          loading={isBusy}
          disabled={!isLive}
          onClick={() => void verify()}
        >
          Verify now
        </Button>
      }
    >
      {verified && verified.problem_count > 0 ? (
        <Note tone="red" role="alert">
          {counted(verified.problem_count, "problem")} found. The first:{" "}
          {verified.problems
            .slice(0, 5)
            .map(
              ({ problem, user_id: user }) => `${codeWords(problem ?? "problem")}${user ? ` (${user})` : ""}`,
            )
            .join(", ")}
          . Look at these users' ledgers before anything is granted or spent.
        </Note>
      ) : null}
      <Facts
        rows={[
          ["Last verified", verified ? <Time key="v" at={verified.at} form="full" /> : "by nobody yet"],
          ...(verified
            ? ([
                ["By", <SafeText key="o" text={verified.operator ?? "unknown"} length={80} />],
                [
                  "Found",
                  verified.problem_count === 0
                    ? `sound: ${formatTokens(verified.entries_checked)} entries of ${counted(verified.accounts_checked, "account")}`
                    : counted(verified.problem_count, "problem"),
                ],
              ] as const)
            : []),
          ["Anchored", details.anchored_at ? <Time key="a" at={details.anchored_at} /> : "not yet"],
          [
            "Rules compiled",
            <span key="r">
              {details.rules.compiled_at ? <Time at={details.rules.compiled_at} /> : "never"}:{" "}
              {details.rules.in_force} enforced, {details.rules.in_shadow} in shadow
            </span>,
          ],
        ]}
      />
    </Section>
  );
}

function Deliveries({ deliveries }: { readonly deliveries: HealthDetails["deliveries"] }): ReactNode {
  return (
    <Section title="Messages">
      <Facts
        rows={[
          ["Queued", `${formatTokens(deliveries.queued)}, ${formatTokens(deliveries.due)} of them due now`],
          ["Oldest due", deliveries.oldest_due_at ? <Time key="d" at={deliveries.oldest_due_at} /> : "none"],
          [
            "Given up",
            deliveries.failed > 0 ? (
              <a key="f" href="#/alerts?show=undelivered">
                {counted(deliveries.failed, "message")}
              </a>
            ) : (
              "none"
            ),
          ],
          ["Sent in 24 hours", formatTokens(deliveries.sent_today)],
          ["Last sent", deliveries.last_sent_at ? <Time key="s" at={deliveries.last_sent_at} /> : "never"],
        ]}
      />
    </Section>
  );
}

const ages: Readonly<Record<number, string>> = {
  0: "under a minute",
  60: "1 to 10 minutes",
  600: "10 to 60 minutes",
  3600: "1 to 24 hours",
  86400: "over a day",
};
type AgeRow = HealthDetails["holds"][number];
const ageColumns: readonly Column<AgeRow>[] = [
  {
    id: "age",
    header: "Age",
    width: 130,
    grow: 1,
    cell: (row) => ages[row.from_seconds] ?? `${row.from_seconds} s`,
  },
  { id: "holds", header: "Holds", width: 80, align: "right", cell: ({ holds }) => formatTokens(holds) },
  {
    id: "tokens",
    header: "Tokens held",
    width: 110,
    align: "right",
    cell: ({ tokens }) => formatTokens(tokens),
  },
  {
    id: "expired",
    header: "Past their end",
    width: 110,
    align: "right",
    cell: ({ expired }) =>
      expired > 0 ? <span className={css.late}>{formatTokens(expired)}</span> : formatTokens(expired),
  },
];
type Waiting = HealthDetails["waiting"][number];
const waitingColumns: readonly Column<Waiting>[] = [
  {
    id: "what",
    header: "What waits",
    width: 130,
    cell: ({ status }) => (
      <Tag tone={status === "quarantined" ? "red" : "amber"} dot plain>
        {status === "quarantined" ? "settlement to decide" : "hold past its end"}
      </Tag>
    ),
  },
  { id: "at", header: "Asked", width: 100, cell: ({ created_at: at }) => <Time at={at} /> },
  {
    id: "user",
    header: "User",
    width: 140,
    grow: 1,
    cell: ({ user_id: id, display_name: name }) => (
      <a href={`#${placeAddress(["users", id, "holds"])}`}>
        <UserName name={name} id={id} />
      </a>
    ),
  },
  {
    id: "model",
    header: "Model",
    width: 120,
    cell: ({ model }) => <SafeText text={model ?? "—"} length={60} />,
  },
  {
    id: "tokens",
    header: "Tokens held",
    width: 100,
    align: "right",
    cell: ({ reserved_tokens: held }) => formatTokens(held),
  },
  {
    id: "call",
    header: "Call",
    width: 60,
    cell: ({ decision_id: id }) => <a href={`#${placeAddress(["watch", "decisions", String(id)])}`}>open</a>,
  },
];

function Holds({ details }: { readonly details: HealthDetails }): ReactNode {
  return (
    <>
      <Section title="Open holds by age">
        <PlainTable
          label="Open holds by age"
          columns={ageColumns}
          rows={details.holds}
          rowKey={({ from_seconds: from }) => String(from)}
          empty="No call holds tokens."
        />
      </Section>
      <Section title="Waiting for a person">
        <PlainTable
          label="Holds and settlements that wait"
          columns={waitingColumns}
          rows={details.waiting}
          rowKey={({ decision_id: id }) => String(id)}
          empty="No settlement waits for a decision and no hold has outlived its end."
        />
      </Section>
    </>
  );
}

type Slow = NonNullable<HealthDetails["slow_functions"]>[number];
const slowColumns: readonly Column<Slow>[] = [
  { id: "function", header: "Function", width: 150, grow: 1, cell: (row) => <code>{row.function}</code> },
  { id: "calls", header: "Calls", width: 70, align: "right", cell: ({ calls }) => formatTokens(calls) },
  { id: "mean", header: "Mean", width: 80, align: "right", cell: ({ mean_ms: ms }) => `${ms} ms` },
  { id: "max", header: "Longest", width: 80, align: "right", cell: ({ max_ms: ms }) => `${ms} ms` },
];

function SlowFunctions({ details }: { readonly details: HealthDetails }): ReactNode {
  return (
    <Section title="Slowest functions">
      {details.slow_functions === null ? (
        <p className={css.quiet}>
          Not measured here. <SafeText text={details.slow_functions_reason ?? ""} length={300} />
        </p>
      ) : (
        <PlainTable
          label="Functions by mean time"
          columns={slowColumns}
          rows={details.slow_functions}
          rowKey={(row) => row.function}
          empty="No call was measured yet."
        />
      )}
    </Section>
  );
}

type Size = readonly [name: string, bytes: number];
const sizeColumns: readonly Column<Size>[] = [
  { id: "table", header: "Table", width: 150, grow: 1, cell: ([name]) => <code>{name}</code> },
  { id: "bytes", header: "Size", width: 80, align: "right", cell: ([, bytes]) => formatBytes(bytes) },
];

function Sizes({
  sizes,
  details,
}: {
  readonly sizes: Readonly<Record<string, number>> | null;
  readonly details: HealthDetails;
}): ReactNode {
  const months = details.partitions.filter((each) => !each.is_default);
  const rows = Object.entries(sizes ?? {}).toSorted(([, a], [, b]) => b - a);
  return (
    <Section
      title="Sizes"
      aside={<span className={css.quiet}>{formatBytes(details.database_bytes)} in all</span>}
    >
      <p className={css.quiet}>
        Calls are kept in {counted(months.length, "month")}
        {months.length > 0 ? `, made ahead to ${monthOf(months.at(-1)?.name ?? "")}` : ""}.
      </p>
      <PlainTable
        label="Largest tables"
        columns={sizeColumns}
        rows={rows}
        rowKey={([name]) => name}
        empty="No sizes are known."
      />
    </Section>
  );
}

/** `requests_2026_11` is 2026-11. */
const monthOf = (partition: string): string => partition.replace(/^requests_(\d{4})_(\d{2})$/, "$1-$2");
