import { Button, NativeSelect, TextInput } from "@mantine/core";
import { type ReactNode, useEffect, useState } from "react";
import type { SimulationRun, WantedChange } from "../../../../shared/contract/plans.ts";
import { plainNumber, typedNumber } from "../../lib/typed.ts";
import { decimal, readDecimal } from "../../../../shared/governance/configuration/index.ts";
import { currencyExponent } from "../../../../shared/governance/money/currency.ts";
import type { PlanOutcome, RunsOut } from "../../../../shared/governance/simulation/index.ts";
import { useConsole } from "../../lib/console.tsx";
import { dayMs, formatCost } from "../../lib/format.ts";
import { useIsLive, useLive, useOpenProject, useProjectCurrency } from "../../lib/live.ts";
import { isNumber, useRemembered } from "../../lib/remember.ts";
import { cleanText, codeWords, counted } from "../../lib/text.ts";
import type { Column } from "../../ui/data-table.tsx";
import { showFailure } from "../../ui/notices.tsx";
import { Note, PlanName, Section, Time, Tokens, UserName } from "../../ui/parts.tsx";
import { PlainTable } from "../../ui/plain-table.tsx";
import { RunState } from "../../ui/run-state.tsx";
import css from "./plans.module.css";

const periods = [
  { value: "7", label: "the last 7 days" },
  { value: "30", label: "the last 30 days" },
  { value: "90", label: "the last 90 days" },
];
const isAmounts = (value: unknown): value is Record<string, number> =>
  typeof value === "object" && value !== null && Object.values(value).every(isNumber);

/** Replays past usage under the change: margin now and then, who would run out and when. */
export function SimulationPanel({ changes }: { readonly changes: readonly WantedChange[] }): ReactNode {
  const client = useConsole();
  const isLive = useIsLive();
  const currency = useProjectCurrency();
  const [days, setDays] = useRemembered("simulation.days", 30, isNumber);
  const [revenue, setRevenue] = useRemembered<Record<string, number>>(
    `simulation.revenue.${useOpenProject()}`,
    {},
    isAmounts,
  );
  const [runId, setRunId] = useState<string | null>(null);
  const [judged, setJudged] = useState("");
  const run = useSimulation(runId);
  const start = async (): Promise<void> => {
    const until = new Date();
    const result = await client.call("plans.simulate", {
      changes: [...changes],
      since: new Date(until.getTime() - days * dayMs).toISOString(),
      until: until.toISOString(),
      revenue_now: revenue,
      revenue,
    });
    if (!result.ok) return showFailure("Not simulated", result.error);
    setJudged(JSON.stringify(changes));
    setRunId(result.value.run_id);
  };
  const cancel = async (): Promise<void> => {
    if (run) await client.call("plans.simulate_cancel", { run_id: run.run_id });
  };
  return (
    <Section title="Simulate it on real usage">
      <PlanPrices revenue={revenue} setRevenue={setRevenue} />
      <div className={css.row}>
        <NativeSelect
          size="xs"
          aria-label="Time to simulate"
          data={periods}
          value={String(days)}
          onChange={(event) => setDays(Number(event.currentTarget.value))}
        />
        {run?.status === "running" ? (
          <Button onClick={() => void cancel()}>Cancel</Button>
        ) : (
          <Button disabled={!isLive || changes.length === 0} onClick={() => void start()}>
            Simulate
          </Button>
        )}
      </div>
      {run ? <RunState run={run} what="simulation" /> : null}
      {run?.status === "finished" && run.report ? (
        <>
          {judged === JSON.stringify(changes) ? null : (
            <Note tone="amber">The draft was changed since: simulate it again.</Note>
          )}
          <SimulationReport report={run.report} currency={run.report.currency ?? currency} />
        </>
      ) : null}
    </Section>
  );
}

function useSimulation(runId: string | null): SimulationRun | null {
  const client = useConsole();
  const [run, setRun] = useState<SimulationRun | null>(null);
  useEffect(
    () => (runId === null ? undefined : client.follow("simulation", { run_id: runId }, setRun)),
    [client, runId],
  );
  return run?.run_id === runId ? run : null;
}

/** What each plan brings in a month: for the margin. Kept on this machine. */
function PlanPrices({
  revenue,
  setRevenue,
}: {
  readonly revenue: Readonly<Record<string, number>>;
  readonly setRevenue: (revenue: Record<string, number>) => void;
}): ReactNode {
  const project = useLive((state) => state.connection?.project ?? null);
  const currency = project?.currency ?? "usd";
  const places = currencyExponent(currency);
  return (
    <details>
      <summary>What plans bring in a month, for the margin</summary>
      <div className={css.fields}>
        {(project?.plans ?? []).map((plan) => (
          <TextInput
            key={plan.plan_id}
            size="xs"
            label={cleanText(plan.name)}
            inputMode="decimal"
            rightSection={<span className={css.unit}>{currency.toUpperCase()}</span>}
            defaultValue={
              Object.hasOwn(revenue, plan.plan_id)
                ? typedNumber(decimal(revenue[plan.plan_id] ?? 0, places))
                : ""
            }
            onChange={(event) => {
              const amount = readDecimal(plainNumber(event.currentTarget.value) ?? "", places);
              const { [plan.plan_id]: _was, ...others } = revenue;
              setRevenue(amount === null ? others : { ...others, [plan.plan_id]: amount });
            }}
          />
        ))}
      </div>
    </details>
  );
}

const outcomeColumns = (currency: string): readonly Column<PlanOutcome>[] => [
  { id: "plan", header: "Plan", width: 80, cell: (plan) => <PlanName id={plan.plan_id} /> },
  {
    id: "cost",
    width: 150,
    header: "Cost, now and then",
    align: "right",
    cell: (plan) =>
      `${formatCost(plan.now.cost_micros, currency)} → ${formatCost(plan.would_be.cost_micros, currency)}`,
  },
  {
    id: "margin",
    width: 150,
    header: "Margin, now and then",
    align: "right",
    hint: "What the plan brings in, less its cost",
    cell: (plan) =>
      plan.now.margin_micros === null || plan.would_be.margin_micros === null
        ? "—"
        : `${formatCost(plan.now.margin_micros, currency)} → ${formatCost(plan.would_be.margin_micros, currency)}`,
  },
  {
    id: "calls",
    width: 110,
    header: "Calls stopped, gained",
    align: "right",
    cell: (plan) => (
      <>
        <Tokens value={plan.calls_refused} />, <Tokens value={plan.calls_gained} />
      </>
    ),
  },
  {
    id: "out",
    width: 110,
    header: "Users running out",
    align: "right",
    cell: (plan) => (
      <>
        <Tokens value={plan.accounts_running_out} /> of <Tokens value={plan.accounts} />
      </>
    ),
  },
];

const runsOutColumns: readonly Column<RunsOut>[] = [
  {
    id: "user",
    header: "User",
    width: 120,
    grow: 1,
    cell: (each) => (
      <a href={`#/users/${encodeURIComponent(each.user_id)}`}>
        <UserName name={null} id={each.user_id} />
      </a>
    ),
  },
  { id: "plan", header: "Plan", width: 80, cell: (each) => <PlanName id={each.plan_id} /> },
  { id: "at", header: "From", width: 120, cell: (each) => <Time at={each.at} form="short" /> },
  { id: "why", header: "By", width: 110, cell: (each) => codeWords(each.why) },
];

function SimulationReport({
  report,
  currency,
}: {
  readonly report: NonNullable<SimulationRun["report"]>;
  readonly currency: string;
}): ReactNode {
  return (
    <>
      <PlainTable
        label="Simulation by plan"
        columns={outcomeColumns(currency)}
        rows={report.plans}
        rowKey={(plan) => plan.plan_id}
        empty="No call in this time."
      />
      {report.runs_out_total > 0 ? (
        <>
          <span className={css.quiet}>
            {counted(report.runs_out_total, "user")} would be stopped where they were not, first in time first
            {report.runs_out_total > 20 ? " (20 shown)" : ""}:
          </span>
          <PlainTable
            label="Users who would run out"
            columns={runsOutColumns}
            rows={report.runs_out.slice(0, 20)}
            rowKey={(each) => each.user_id}
            empty=""
          />
        </>
      ) : (
        <span className={css.quiet}>Nobody would be stopped who was not.</span>
      )}
      {report.calls_not_judged > 0 ? (
        <span className={css.quiet}>
          {counted(report.calls_not_judged, "call")} of accounts without a plan could not be judged.
        </span>
      ) : null}
    </>
  );
}
