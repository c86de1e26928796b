/** What it costs and what it earns, over any range. The address holds what is shown. */
import { Button, SegmentedControl, Select } from "@mantine/core";
import { type ReactNode, useMemo } from "react";
import {
  type CostDimension,
  costDimension,
  costFilters,
  type Costs,
  type CostStep,
} from "../../../../shared/contract/costs.ts";
import { Chart, type ChartTable } from "../../charts/chart.tsx";
import { costOverTime } from "../../charts/options.ts";
import { useNow } from "../../lib/clock.ts";
import { useAnswered, useCall } from "../../lib/console.tsx";
import { saveFile, toCsv } from "../../lib/csv.ts";
import {
  formatCallCost,
  formatCost,
  formatDay,
  formatExactCost,
  formatPercent,
  formatTokens,
} from "../../lib/format.ts";
import { navigate, placeAddress, usePlace } from "../../lib/router.ts";
import { cleanText, clip, codeWords } from "../../lib/text.ts";
import type { Column } from "../../ui/data-table.tsx";
import { DayRange } from "../../ui/day-range.tsx";
import { DeskBar, Grow } from "../../ui/desk.tsx";
import { DownloadIcon } from "../../ui/icons.tsx";
import { SafeText, Section, UserName } from "../../ui/parts.tsx";
import { PlainTable } from "../../ui/plain-table.tsx";
import { QueryView, Skeleton, StaleLine } from "../../ui/states.tsx";
import css from "./costs.module.css";
import { ForecastLines } from "./forecast-lines.tsx";
import {
  changeSince,
  changeWords,
  fittingStep,
  type PresetId,
  presets,
  type Range,
  readRange,
} from "./ranges.ts";
import { Revenue } from "./revenue.tsx";
import { Savings } from "./savings.tsx";

const dimensionNames: Readonly<Record<CostDimension, string>> = {
  model: "Model",
  provider: "Provider",
  plan: "Plan",
  task_type: "Task",
  scope: "Scope",
  user: "User",
  session: "Session",
  agent: "Agent",
};
const none: Readonly<Record<CostDimension, string>> = {
  model: "no model",
  provider: "provider not known",
  plan: "no plan",
  task_type: "no task named",
  scope: "no scope named",
  user: "no user",
  session: "no session named, or not among the dearest of a day",
  agent: "no agent named, or not among the dearest of a day",
};

export function CostsDesk(): ReactNode {
  const place = usePlace();
  const today = new Date(useNow(60_000)).toISOString().slice(0, 10);
  const range = readRange(place.query, today);
  const { preset } = range;
  const asked = place.query.get("step");
  const step: CostStep =
    asked === "day" || asked === "week" || asked === "month" ? asked : fittingStep(range);
  const by = costDimension.options.find((each) => each === place.query.get("by")) ?? "model";
  const filter = Object.fromEntries(
    costFilters.options.flatMap((name) => {
      const value = place.query.get(`only_${name}`);
      return value === null ? [] : [[name, value]];
    }),
  );
  /** The address with these changes; null takes a part out. */
  const go = (change: Readonly<Record<string, string | null>>): void => {
    const now = Object.fromEntries(place.query);
    navigate(placeAddress(["costs"], { ...now, ...change }));
  };
  const show = (next: Range): void => go({ from: next.from, to: next.to, range: null, step: null });
  const query = useCall(
    "costs.get",
    { from: range.from, to: range.to, step, by, filter },
    { keepPrevious: true, refetchMs: 60_000 },
  );
  const shown = useAnswered(query, { range, step, by, isWhole: Object.keys(filter).length === 0 });
  return (
    <>
      <DeskBar title="Costs">
        <SegmentedControl
          aria-label="Range"
          value={preset ?? ""}
          onChange={(value) => go({ range: value as PresetId, from: null, to: null, step: null })}
          data={presets.map(({ id, label }) => ({ value: id, label }))}
        />
        <Grow />
        <DayRange from={range.from} to={range.to} onChange={show} />
      </DeskBar>
      <div className={css.filters}>
        <Select
          aria-label="By day, week or month"
          w={120}
          allowDeselect={false}
          data={[
            { value: "day", label: "By day" },
            { value: "week", label: "By week" },
            { value: "month", label: "By month" },
          ]}
          value={step}
          onChange={(value) => go({ step: value })}
        />
        {Object.entries(filter).map(([name, value]) => (
          <Button key={name} variant="default" onClick={() => go({ [`only_${name}`]: null })}>
            {dimensionNames[name as CostDimension]}:{" "}
            {clip(cleanText(value), 40) || none[name as CostDimension]} ×
          </Button>
        ))}
        <span className={css.quiet}>Days are each user's own. A call counts when it settled.</span>
      </div>
      <div className={css.body}>
        <QueryView query={query} skeleton={<Skeleton lines={14} />}>
          {(costs) => (
            <>
              {costs.as_of ? <StaleLine asOf={costs.as_of} /> : null}
              <Figures costs={costs} range={shown.range} isWhole={shown.isWhole} />
              <div className={css.chart}>
                <CostChart
                  costs={costs}
                  step={shown.step}
                  onPick={(index) => {
                    const period = costs.periods[index];
                    if (period) go({ from: period.from, to: period.to, range: null, step: null });
                  }}
                />
              </div>
              <Savings costs={costs} />
              <ForecastLines today={today} filter={filter} currency={costs.currency} />
              <Parts
                costs={costs}
                by={shown.by}
                chosen={by}
                onBy={(next) => go({ by: next })}
                onOnly={
                  costFilters.options.some((each) => each === shown.by)
                    ? (key) => go({ [`only_${shown.by}`]: key, by: shown.by === "model" ? "user" : "model" })
                    : null
                }
              />
            </>
          )}
        </QueryView>
      </div>
    </>
  );
}

function Figures({
  costs,
  range,
  isWhole,
}: {
  readonly costs: Costs;
  readonly range: Range;
  readonly isWhole: boolean;
}): ReactNode {
  const perCall = costs.calls > 0 ? Math.round(costs.cost_micros / costs.calls) : 0;
  const figures: readonly (readonly [name: string, value: string, change: string, exact: string])[] = [
    [
      "Cost",
      formatCost(costs.cost_micros, costs.currency),
      changeSince(
        costs.cost_micros,
        costs.before.cost_micros,
        formatCost(costs.before.cost_micros, costs.currency),
      ),
      `${formatExactCost(costs.cost_micros, costs.currency)}; the range before: ${formatExactCost(costs.before.cost_micros, costs.currency)}`,
    ],
    [
      "Calls",
      formatTokens(costs.calls),
      changeSince(costs.calls, costs.before.calls, formatTokens(costs.before.calls)),
      "settled calls",
    ],
    [
      "Tokens",
      formatTokens(costs.tokens),
      changeSince(costs.tokens, costs.before.tokens, formatTokens(costs.before.tokens)),
      "input and output",
    ],
    ["Cost a call", formatCallCost(perCall, costs.currency), "", formatExactCost(perCall, costs.currency)],
  ];
  return (
    <div className={css.figures}>
      {figures.map(([name, value, change, exact]) => (
        <div key={name} title={exact}>
          <span>{name}</span>
          <strong>{value}</strong>
          <small>{change || " "}</small>
        </div>
      ))}
      {isWhole ? <Revenue range={range} costMicros={costs.cost_micros} currency={costs.currency} /> : null}
    </div>
  );
}

function CostChart({
  costs,
  step,
  onPick,
}: {
  readonly costs: Costs;
  readonly step: CostStep;
  readonly onPick: (index: number) => void;
}): ReactNode {
  const { periods, currency } = costs;
  const build = useMemo(() => costOverTime(periods, step, currency), [periods, step, currency]);
  const table: ChartTable = {
    header: ["from", "to", `cost (${currency}, micro-units)`, "calls", "tokens"],
    rows: periods.map((each) => [each.from, each.to, each.cost_micros, each.calls, each.tokens]),
    show: (value, column) =>
      typeof value !== "number"
        ? formatDay(`${String(value)}T00:00:00Z`, "UTC")
        : column === 2
          ? formatCost(value, currency)
          : formatTokens(value),
  };
  return (
    <Chart
      title={`Cost a ${codeWords(step)}; click a bar for what is behind it`}
      build={build}
      table={table}
      fileName={`costs-${costs.from}-${costs.to}`}
      onPick={onPick}
    />
  );
}

type Part = Costs["parts"][number];

const userDoor: Column<Part> = {
  id: "doors",
  header: "",
  width: 110,
  cell: ({ key }) =>
    key ? (
      <a href={`#${placeAddress(["users", key])}`} onClick={(event) => event.stopPropagation()}>
        open the user
      </a>
    ) : null,
};

function Parts({
  costs,
  by,
  chosen,
  onBy,
  onOnly,
}: {
  readonly costs: Costs;
  /** The dimension that the shown parts have. */
  readonly by: CostDimension;
  /** The dimension asked for: another one only while its answer is on the way. */
  readonly chosen: CostDimension;
  readonly onBy: (by: CostDimension) => void;
  /** Null where the figures are not narrowed by it. */
  readonly onOnly: ((key: string) => void) | null;
}): ReactNode {
  const { parts, currency, cost_micros: whole } = costs;
  const share = (micros: number): string =>
    whole > 0 ? formatPercent(Math.round((1000 * micros) / whole) / 10) : "—";
  const columns: readonly Column<Part>[] = [
    {
      id: "key",
      header: dimensionNames[by],
      width: 200,
      grow: 1,
      cell: ({ key, name }) =>
        by === "user" ? (
          <UserName name={name} id={key ?? ""} />
        ) : key ? (
          <SafeText text={name ?? (by === "task_type" ? codeWords(key) : key)} length={80} />
        ) : (
          <span className={css.quiet}>{none[by]}</span>
        ),
    },
    {
      id: "cost",
      header: "Cost",
      width: 90,
      align: "right",
      cell: ({ cost_micros: micros }) => formatCost(micros, currency),
    },
    {
      id: "share",
      header: "Share",
      width: 70,
      align: "right",
      cell: ({ cost_micros: micros }) => share(micros),
    },
    {
      id: "change",
      header: "Against before",
      width: 110,
      align: "right",
      cell: ({ cost_micros: micros, before_cost_micros: before }) => changeWords(micros, before),
    },
    { id: "calls", header: "Calls", width: 80, align: "right", cell: ({ calls }) => formatTokens(calls) },
    {
      id: "tokens",
      header: "Tokens",
      width: 110,
      align: "right",
      cell: ({ tokens }) => formatTokens(tokens),
    },
    ...(by === "user" ? [userDoor] : []),
  ];
  return (
    <Section
      title={
        costs.part_count === null || costs.part_count > 10
          ? `The ten dearest are ${share(costs.top_ten_cost_micros)} of the cost`
          : "What the cost is made of"
      }
      aside={
        <div className={css.aside}>
          <SegmentedControl
            aria-label="Made of"
            value={chosen}
            onChange={(value) => onBy(value as CostDimension)}
            data={costDimension.options.map((value) => ({ value, label: dimensionNames[value] }))}
          />
          <Button
            leftSection={<DownloadIcon size={14} />}
            disabled={parts.length === 0}
            onClick={() =>
              saveFile(`costs-by-${by}-${costs.from}-${costs.to}.csv`, "text/csv", partsCsv(costs, by))
            }
          >
            Export
          </Button>
        </div>
      }
    >
      <PlainTable
        label={`Costs by ${dimensionNames[by].toLowerCase()}`}
        columns={columns}
        rows={parts}
        rowKey={({ key }) => key ?? ""}
        {...(onOnly ? { onOpen: ({ key }: Part) => onOnly(key ?? "") } : {})}
        empty="Nothing was used in this range."
      />
      {costs.part_count === null ? (
        <p className={css.quiet}>
          So many users are not all added up: these were among the dearest of a day, with their exact figures.
        </p>
      ) : costs.part_count > parts.length ? (
        <p className={css.quiet}>
          The {parts.length} dearest of {formatTokens(costs.part_count)}. Choose one to narrow the range to
          it.
        </p>
      ) : null}
    </Section>
  );
}

function partsCsv({ parts, currency }: Costs, by: CostDimension): string {
  return toCsv(
    [by, "name", "cost_micros", "before_cost_micros", "calls", "tokens", "currency"],
    parts.map((each) => [
      each.key,
      each.name,
      each.cost_micros,
      each.before_cost_micros,
      each.calls,
      each.tokens,
      currency,
    ]),
  );
}
