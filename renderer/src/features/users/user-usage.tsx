import { SegmentedControl, Select } from "@mantine/core";
import { type ReactNode, useMemo } from "react";
import type { AccountUsage } from "../../../../shared/contract/users.ts";
import { Chart, type ChartTable } from "../../charts/chart.tsx";
import {
  groupUsage,
  type UsagePeriod,
  type UsageSplit,
  type UsageStep,
  usageOverTime,
} from "../../charts/options.ts";
import { useNow } from "../../lib/clock.ts";
import { useAnswered, useCall } from "../../lib/console.tsx";
import {
  addDays,
  daysIn,
  formatCost,
  formatDay,
  formatPercent,
  formatTokens,
  isoDay,
} from "../../lib/format.ts";
import { isOneOf, useRemembered } from "../../lib/remember.ts";
import { changeQuery, usePlace } from "../../lib/router.ts";
import { cleanText, clip, codeWords, counted } from "../../lib/text.ts";
import { DayRange, longestRange } from "../../ui/day-range.tsx";
import { Cost, Section, Time, Tokens } from "../../ui/parts.tsx";
import { PlainTable } from "../../ui/plain-table.tsx";
import { QueryView, Skeleton } from "../../ui/states.tsx";
import css from "./users.module.css";

/** What is shown until the person chooses a range. */
const spans: Readonly<Record<UsageStep, number>> = { day: 30, week: 91, month: 365 };

const titles: Readonly<Record<UsageSplit, Readonly<Record<UsageStep, string>>>> = {
  direction: {
    day: "Tokens a day, input and output",
    week: "Tokens a week, input and output",
    month: "Tokens a month, input and output",
  },
  cost: { day: "Cost a day", week: "Cost a week", month: "Cost a month" },
};

function usageTable(periods: readonly UsagePeriod[], currency: string): ChartTable {
  return {
    header: [
      "from",
      "input tokens",
      "output tokens",
      "messages",
      `cost (millionths of ${currency || "the currency"})`,
    ],
    rows: periods.map((each) => [
      each.start,
      each.prompt_tokens,
      each.completion_tokens,
      each.message_count,
      each.cost_micros,
    ]),
    show: (value, column) =>
      typeof value !== "number"
        ? formatDay(`${String(value)}T00:00:00Z`, "UTC")
        : column === 4 && currency
          ? formatCost(value, currency)
          : formatTokens(value),
  };
}

/** What a user used over time, in the user's own days. */
export function UserUsage({
  userId,
  timezone,
  currency,
  breakdown,
}: {
  readonly userId: string;
  readonly timezone: string;
  readonly currency: string;
  /** Also by model and by task. */
  readonly breakdown: boolean;
}): ReactNode {
  const [step, setStep] = useRemembered<UsageStep>("usage.step", "day", isOneOf("day", "week", "month"));
  const [split, setSplit] = useRemembered<UsageSplit>(
    "usage.split",
    "direction",
    isOneOf("direction", "cost"),
  );
  const today = isoDay(useNow(60_000), timezone);
  const { from, to } = readRange(usePlace().query, today, spans[step]);
  const query = useCall(
    "users.usage",
    { user_id: userId, from, to },
    { keepPrevious: true, refetchMs: 15_000 },
  );
  const shown = useAnswered(query, { from, to });
  const days = daysIn(shown);
  const before = useCall(
    "users.usage",
    { user_id: userId, from: addDays(from, -daysIn({ from, to })), to: addDays(from, -1) },
    { enabled: breakdown, staleMs: 60_000 },
  ).data;
  const earlier = query.isPlaceholderData ? undefined : before;
  const periods = useMemo(
    () => (query.data ? groupUsage(query.data.by_day, step, shown.from, shown.to) : []),
    [query.data, step, shown.from, shown.to],
  );
  const money = query.data?.currency ?? currency;
  const build = useMemo(() => usageOverTime(periods, step, split, money), [periods, step, split, money]);
  const table = useMemo(() => usageTable(periods, money), [periods, money]);
  return (
    <QueryView query={query} skeleton={<Skeleton lines={7} />}>
      {(usage) => (
        <>
          {breakdown ? <Range from={from} to={to} today={today} /> : null}
          <div className={css.chart}>
            <Chart
              title={titles[split][step]}
              build={build}
              table={table}
              fileName={`usage-${userId.replace(/[^\w-]+/g, "_").slice(0, 60)}`}
              tools={
                <>
                  <SegmentedControl
                    data={[
                      { value: "day", label: "Day" },
                      { value: "week", label: "Week" },
                      { value: "month", label: "Month" },
                    ]}
                    value={step}
                    onChange={setStep}
                    aria-label="Step"
                  />
                  <Select
                    aria-label="Show"
                    w={92}
                    allowDeselect={false}
                    data={[
                      { value: "direction", label: "Tokens" },
                      { value: "cost", label: "Cost" },
                    ]}
                    value={split}
                    onChange={(value) => setSplit(value === "cost" ? "cost" : "direction")}
                  />
                </>
              }
            />
          </div>
          <div className={css.figures}>
            <span>
              <b>
                <Tokens value={usage.total_tokens} />
              </b>{" "}
              tokens in {counted(days, "day")}: <Tokens value={usage.prompt_tokens} /> input,{" "}
              <Tokens value={usage.completion_tokens} /> output
              {earlier ? (
                <Against now={usage.total_tokens} before={earlier.total_tokens} days={days} />
              ) : null}
            </span>
            <span>
              <b>
                <Cost micros={usage.cost_micros} currency={money} />
              </b>{" "}
              cost
              {earlier ? <Against now={usage.cost_micros} before={earlier.cost_micros} days={days} /> : null}
            </span>
            <span>
              <b>{counted(usage.message_count, "message")}</b> in{" "}
              <b>{counted(usage.conversation_count, "conversation")}</b>
            </span>
            <span>
              last activity <Time at={usage.last_activity} zone={timezone} />
            </span>
          </div>
          {breakdown ? <Breakdowns usage={usage} earlier={earlier ?? null} money={money} /> : null}
        </>
      )}
    </QueryView>
  );
}

/** The range that the address names; the last days where it names none that can be shown. */
export function readRange(
  query: URLSearchParams,
  today: string,
  usualDays: number,
): { readonly from: string; readonly to: string } {
  const day = (key: string): string | null => {
    const text = query.get(key) ?? "";
    return /^\d{4}-\d\d-\d\d$/.test(text) && !Number.isNaN(Date.parse(`${text}T00:00:00Z`)) ? text : null;
  };
  const to = day("to") ?? today;
  const from = day("from") ?? addDays(to, 1 - usualDays);
  const days = daysIn({ from, to });
  return days >= 1 && days <= longestRange
    ? { from, to }
    : { from: addDays(today, 1 - usualDays), to: today };
}

/** From and to, kept in the address. */
function Range({
  from,
  to,
  today,
}: {
  readonly from: string;
  readonly to: string;
  readonly today: string;
}): ReactNode {
  const last = (days: number): void => changeQuery({ from: addDays(today, 1 - days), to: today });
  return (
    <div className={css.chips}>
      <DayRange
        from={from}
        to={to}
        between={<span className={css.quiet}>to</span>}
        onChange={(days) => changeQuery({ ...days })}
      />
      {[7, 30, 90, 365].map((days) => (
        <button
          key={days}
          type="button"
          className={css.preset}
          aria-pressed={to === today && daysIn({ from, to }) === days}
          onClick={() => last(days)}
        >
          {counted(days, "day")}
        </button>
      ))}
    </div>
  );
}

/** ", 12 % more than in the 30 days before". */
function Against({
  now,
  before,
  days,
}: {
  readonly now: number;
  readonly before: number;
  readonly days: number;
}): ReactNode {
  const span = `the ${counted(days, "day")} before`;
  if (before === 0) return now === 0 ? null : `, none in ${span}`;
  const percent = Math.round((100 * (now - before)) / before);
  if (percent === 0) return `, as in ${span}`;
  return `, ${formatPercent(Math.abs(percent))} ${percent > 0 ? "more" : "less"} than in ${span}`;
}

interface Used {
  /** null: the calls did not name it. */
  readonly name: string | null;
  readonly total_tokens: number;
  readonly cost_micros: number;
  /** Tokens in the range before; null while that is not known. */
  readonly before: number | null;
}

/** Parts of the whole beside what they were in the range before; those that have ended come last, with nothing. */
export function besideBefore<Part extends { readonly total_tokens: number; readonly cost_micros: number }>(
  now: readonly Part[],
  earlier: readonly Part[] | null,
  nameOf: (part: Part) => string | null,
): readonly Used[] {
  const before = new Map((earlier ?? []).map((part) => [nameOf(part), part.total_tokens]));
  const names = new Set(now.map(nameOf));
  return [
    ...now.map((part) => ({
      name: nameOf(part),
      total_tokens: part.total_tokens,
      cost_micros: part.cost_micros,
      before: earlier === null ? null : (before.get(nameOf(part)) ?? 0),
    })),
    ...[...before]
      .filter(([name, tokens]) => !names.has(name) && tokens > 0)
      .map(([name, tokens]) => ({ name, total_tokens: 0, cost_micros: 0, before: tokens })),
  ];
}

function Breakdowns({
  usage,
  earlier,
  money,
}: {
  readonly usage: AccountUsage;
  readonly earlier: AccountUsage | null;
  readonly money: string;
}): ReactNode {
  const named = (text: string | null): string | null => (text ? clip(cleanText(text), 60) : null);
  return (
    <div className={css.two}>
      <UsageBreakdown
        title="By model"
        header="Model"
        currency={money}
        rows={besideBefore(usage.by_model, earlier?.by_model ?? null, (row) => named(row.model))}
      />
      <UsageBreakdown
        title="By task"
        header="Task"
        currency={money}
        rows={besideBefore(usage.by_task_type, earlier?.by_task_type ?? null, (row) =>
          row.task_type ? codeWords(row.task_type) : null,
        )}
      />
      <UsageBreakdown
        title="By scope"
        header="Scope"
        currency={money}
        rows={besideBefore(usage.by_scope, earlier?.by_scope ?? null, (row) => named(row.scope_id))}
      />
    </div>
  );
}

/** Tokens and cost of each part of the whole. */
function UsageBreakdown({
  title,
  header,
  rows,
  currency,
}: {
  readonly title: string;
  readonly header: string;
  readonly rows: readonly Used[];
  readonly currency: string;
}): ReactNode {
  return (
    <Section title={title}>
      <PlainTable
        label={title}
        rows={rows}
        rowKey={(row) => row.name ?? ""}
        empty="Nothing used in this time."
        columns={[
          { id: "name", header, width: 90, grow: 1, cell: (row) => row.name ?? "not given" },
          {
            id: "tokens",
            header: "Tokens",
            width: 70,
            align: "right",
            cell: (row) => <Tokens value={row.total_tokens} />,
          },
          {
            id: "before",
            header: "Before",
            width: 70,
            align: "right",
            hint: "Tokens in as many days right before",
            cell: (row) =>
              row.before === null ? null : (
                <span className={css.quiet}>
                  <Tokens value={row.before} />
                </span>
              ),
          },
          {
            id: "cost",
            header: "Cost",
            width: 60,
            align: "right",
            cell: (row) => <Cost micros={row.cost_micros} currency={currency} />,
          },
        ]}
      />
    </Section>
  );
}
