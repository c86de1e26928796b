/** Revenue and deferred revenue of any range, without a run: what was sold, given back, recognised, and what is owed. */
import { SegmentedControl } from "@mantine/core";
import { type ReactNode, useMemo } from "react";
import type { Revenue } from "../../../../shared/contract/payments.ts";
import { Chart, type ChartTable } from "../../charts/chart.tsx";
import { revenueOverTime } from "../../charts/options.ts";
import { useNow } from "../../lib/clock.ts";
import { useAnswered, useCall } from "../../lib/console.tsx";
import { addDays, daysIn, formatDay } from "../../lib/format.ts";
import { useSampleFilling } from "../../lib/live.ts";
import { changeQuery, usePlace } from "../../lib/router.ts";
import { capitalise, codeWords } from "../../lib/text.ts";
import type { Column } from "../../ui/data-table.tsx";
import { DayRange } from "../../ui/day-range.tsx";
import { DeskBar, Grow } from "../../ui/desk.tsx";
import { Note, Section } from "../../ui/parts.tsx";
import { PlainTable } from "../../ui/plain-table.tsx";
import { QueryView, Skeleton, StaleLine } from "../../ui/states.tsx";
import css from "./finance.module.css";
import { periodName } from "./period.ts";
import { minorMoney } from "./words.ts";

const ranges = ["month", "last", "year", "custom"] as const;
type RangeId = (typeof ranges)[number];
const rangeWords: Readonly<Record<RangeId, string>> = {
  month: "This month",
  last: "Last month",
  year: "This year",
  custom: "Any days",
};
const kindWords: Readonly<Record<string, string>> = {
  purchased: "packs",
  subscription: "subscriptions",
  promotional: "promotional",
};

const isDay = (text: string | null): text is string =>
  text !== null && /^\d{4}-\d{2}-\d{2}$/.test(text) && !Number.isNaN(Date.parse(`${text}T00:00:00Z`));

function readDays(
  query: URLSearchParams,
  today: string,
): { readonly id: RangeId; readonly from: string; readonly to: string } {
  const [from, to] = [query.get("from"), query.get("to")];
  if (isDay(from) && isDay(to) && from <= to) return { id: "custom", from, to };
  const id = ranges.find((each) => each === query.get("range")) ?? "month";
  const first = `${today.slice(0, 7)}-01`;
  if (id === "last") {
    const last = addDays(first, -1);
    return { id, from: `${last.slice(0, 7)}-01`, to: last };
  }
  return { id, from: id === "year" ? `${today.slice(0, 4)}-01-01` : first, to: today };
}

type Line = Revenue["lines"][number];
const sum = (id: keyof Line, header: string, hint: string): Column<Line> => ({
  id,
  header,
  hint,
  width: 110,
  align: "right",
  cell: (line) => minorMoney(Number(line[id]), line.currency),
});
const columns: readonly Column<Line>[] = [
  {
    id: "what",
    header: "What was sold",
    width: 150,
    grow: 1,
    cell: ({ kind, currency }) => `${capitalise(kindWords[kind] ?? kind)}, ${currency.toUpperCase()}`,
  },
  sum(
    "opening_deferred_minor",
    "Deferred before",
    "Paid for tokens not yet used at the beginning, and for days to come of years paid in advance",
  ),
  sum("sold_minor", "Sold", "Paid for tokens that were granted in these days, net of tax"),
  sum("given_back_minor", "Given back", "Refunds and lost disputes, by the tokens that went back"),
  sum(
    "recognised_minor",
    "Recognised",
    "Paid for tokens used or expired in these days; of a year paid in advance, these days of it",
  ),
  sum(
    "closing_deferred_minor",
    "Deferred after",
    "Paid for tokens not yet used at the end, and for days to come of years paid in advance",
  ),
];

export function RevenuePage(): ReactNode {
  const { query: address } = usePlace();
  const today = new Date(useNow(60_000)).toISOString().slice(0, 10);
  const { id, from, to } = readDays(address, today);
  const days = daysIn({ from, to });
  const step = days <= 45 ? "day" : days <= 200 ? "week" : "month";
  const asked = { from, to, step } as const;
  const query = useCall("finance.revenue", asked, { keepPrevious: true, refetchMs: 60_000 });
  const shown = useAnswered(query, asked);
  const isFilling = useSampleFilling() !== null;
  return (
    <>
      <DeskBar title="Revenue">
        <SegmentedControl
          aria-label="Range"
          value={id}
          onChange={(value) =>
            value === "custom"
              ? changeQuery({ range: null, from, to })
              : changeQuery({ range: value, from: null, to: null })
          }
          data={ranges.map((value) => ({ value, label: rangeWords[value] }))}
        />
        <Grow />
        <DayRange from={from} to={to} onChange={(days) => changeQuery({ range: null, ...days })} />
      </DeskBar>
      <div className={css.revenue}>
        <QueryView query={query} skeleton={<Skeleton lines={10} />}>
          {(revenue) => (
            <>
              {revenue.as_of ? <StaleLine asOf={revenue.as_of} /> : null}
              <RevenueChart revenue={revenue} step={shown.step} />
              <Section
                title={`${periodName(`${shown.from}T00:00:00Z`, `${addDays(shown.to, 1)}T00:00:00Z`)}, days of UTC`}
              >
                <PlainTable
                  label="Revenue by what was sold"
                  columns={columns}
                  rows={revenue.lines}
                  rowKey={(line) => `${line.currency} ${line.kind}`}
                  empty={
                    isFilling
                      ? "The sample's past is still being written. Its sales are counted at the end."
                      : "Nothing was ever sold here."
                  }
                />
              </Section>
              <Note tone="grey">
                Deferred before and sold, less given back and recognised, is deferred after. Counted from the
                ledger; a closed period has its own sealed figures.
              </Note>
            </>
          )}
        </QueryView>
      </div>
    </>
  );
}

function RevenueChart({
  revenue,
  step,
}: {
  readonly revenue: Revenue;
  readonly step: "day" | "week" | "month";
}): ReactNode {
  // One currency has one scale: the one that most was recognised in.
  const sums = new Map<string, number>();
  for (const each of revenue.periods)
    sums.set(each.currency, (sums.get(each.currency) ?? 0) + Math.abs(each.recognised_minor));
  const currency = [...sums].sort((a, b) => b[1] - a[1])[0]?.[0] ?? null;
  const periods = useMemo(
    () => revenue.periods.filter((each) => each.currency === currency),
    [revenue.periods, currency],
  );
  const build = useMemo(
    () => revenueOverTime(periods, step, (minor) => minorMoney(minor, currency)),
    [periods, step, currency],
  );
  if (currency === null) return null;
  const table: ChartTable = {
    header: ["from", "to", "currency", "sold (minor units)", "given back", "recognised"],
    rows: revenue.periods.map((each) => [
      each.from,
      each.to,
      each.currency,
      each.sold_minor,
      each.given_back_minor,
      each.recognised_minor,
    ]),
    show: (value, column) =>
      column > 2
        ? minorMoney(Number(value), currency)
        : column === 2
          ? String(value).toUpperCase()
          : formatDay(`${String(value)}T00:00:00Z`, "UTC"),
  };
  return (
    <div className={css.revenueChart}>
      <Chart
        title={`Sold, and recognised as it was used, by ${codeWords(step)} (${currency.toUpperCase()})`}
        build={build}
        table={table}
        fileName={`revenue-${revenue.from}-${revenue.to}`}
      />
    </div>
  );
}
