import { SegmentedControl, Select } from "@mantine/core";
import { type ReactNode, useMemo } from "react";
import { Chart, type ChartTable } from "../../charts/chart.tsx";
import {
  groupUsage,
  type UsagePeriod,
  type UsageSplit,
  type UsageStep,
  usageOverTime,
} from "../../charts/options.ts";
import { useNow } from "../../lib/clock.ts";
import { useCall } from "../../lib/console.tsx";
import { addDays, formatCost, formatTokens, isoDay } from "../../lib/format.ts";
import { isOneOf, useRemembered } from "../../lib/remember.ts";
import { cleanText, clip, codeWords, counted } from "../../lib/text.ts";
import { Cost, Section, Time, Tokens } from "../../ui/parts.tsx";
import { PlainTable } from "../../ui/plain-table.tsx";
import { QueryView, Skeleton } from "../../ui/states.tsx";
import css from "./users.module.css";

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
        ? String(value ?? "")
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
  const to = isoDay(useNow(60_000), timezone);
  const from = addDays(to, 1 - spans[step]);
  const query = useCall(
    "users.usage",
    { user_id: userId, from, to },
    { keepPrevious: true, refetchMs: 15_000 },
  );
  const periods = useMemo(
    () => (query.data ? groupUsage(query.data.by_day, step, from, to) : []),
    [query.data, step, from, to],
  );
  const money = query.data?.currency ?? currency;
  const build = useMemo(() => usageOverTime(periods, step, split, money), [periods, step, split, money]);
  const table = useMemo(() => usageTable(periods, money), [periods, money]);
  return (
    <QueryView query={query} skeleton={<Skeleton lines={7} />}>
      {(usage) => (
        <>
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
              tokens in {counted(spans[step], "day")}: <Tokens value={usage.prompt_tokens} /> input,{" "}
              <Tokens value={usage.completion_tokens} /> output
            </span>
            <span>
              <b>
                <Cost micros={usage.cost_micros} currency={money} />
              </b>{" "}
              cost
            </span>
            <span>
              <b>{usage.message_count.toLocaleString("en")}</b> messages in{" "}
              <b>{usage.conversation_count.toLocaleString("en")}</b> conversations
            </span>
            <span>
              last activity <Time at={usage.last_activity} zone={timezone} />
            </span>
          </div>
          {breakdown ? (
            <div className={css.two}>
              <UsageBreakdown
                title="By model"
                header="Model"
                currency={money}
                rows={usage.by_model.map((row) => ({
                  ...row,
                  name: row.model ? clip(cleanText(row.model), 60) : null,
                }))}
              />
              <UsageBreakdown
                title="By task"
                header="Task"
                currency={money}
                rows={usage.by_task_type.map((row) => ({
                  ...row,
                  name: row.task_type ? codeWords(row.task_type) : null,
                }))}
              />
            </div>
          ) : null}
        </>
      )}
    </QueryView>
  );
}

interface Used {
  /** null: the calls did not say. */
  readonly name: string | null;
  readonly total_tokens: number;
  readonly cost_micros: number;
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
          { id: "name", header, width: 90, grow: 1, cell: (row) => row.name ?? "not said" },
          {
            id: "tokens",
            header: "Tokens",
            width: 70,
            align: "right",
            cell: (row) => <Tokens value={row.total_tokens} />,
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
