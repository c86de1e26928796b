/** Pure builders of chart options: figures in, ECharts option out. The same colours for the same things everywhere. */
import type { BarSeriesOption, LineSeriesOption } from "echarts/charts";
import type { GridComponentOption, LegendComponentOption, TooltipComponentOption } from "echarts/components";
import type { ComposeOption } from "echarts/core";
import type { AccountUsage } from "../../../shared/contract/users.ts";
import type { OverviewStep } from "../../../shared/contract/watch.ts";
import {
  dayMs,
  formatCompact,
  formatCost,
  formatHourMinute,
  formatMonth,
  formatShortDay,
  formatTokens,
} from "../lib/format.ts";
import type { Palette } from "../ui/tokens.ts";

export type ChartOption = ComposeOption<
  BarSeriesOption | LineSeriesOption | GridComponentOption | LegendComponentOption | TooltipComponentOption
>;

/** One stack of bars. */
interface Stack {
  readonly name: string;
  readonly color: string;
  readonly values: readonly number[];
  /** Stacks of one group are on top of each other; groups are side by side. */
  readonly group?: string;
}

function stackedBars(
  palette: Palette,
  categories: readonly string[],
  stacks: readonly Stack[],
  format: (value: number) => string,
  formatAxis: (value: number) => string,
  /** The heading over a bar's figures. */
  heading: (index: number) => string,
): ChartOption {
  const text = { color: palette.muted, fontSize: 11, fontFamily: "inherit" };
  return {
    animation: false,
    grid: {
      left: 4,
      right: 20,
      top: 26,
      bottom: 2,
      outerBoundsMode: "same",
      outerBoundsContain: "axisLabel",
    },
    legend: {
      top: 0,
      left: 0,
      itemWidth: 10,
      itemHeight: 10,
      itemGap: 14,
      icon: "roundRect",
      textStyle: { ...text, color: palette.text },
      data: stacks.map((stack) => stack.name),
    },
    tooltip: {
      trigger: "axis",
      axisPointer: { type: "shadow", shadowStyle: { color: palette.text, opacity: 0.06 } },
      backgroundColor: palette.raised,
      borderColor: palette.lineStrong,
      padding: [6, 10],
      textStyle: { color: palette.text, fontSize: 12, fontFamily: "inherit" },
      transitionDuration: 0,
      confine: true,
      formatter: (params) => {
        const list = Array.isArray(params) ? params : [params];
        const index = list[0]?.dataIndex ?? 0;
        const lines = stacks.map(
          (stack) =>
            `<tr><td style="padding-right:14px"><span style="display:inline-block;width:8px;height:8px;border-radius:2px;margin-right:6px;background:${stack.color}"></span>${stack.name}</td><td style="text-align:right">${format(stack.values[index] ?? 0)}</td></tr>`,
        );
        return `<b style="font-weight:600">${heading(index)}</b><table style="border-spacing:0">${lines.join("")}</table>`;
      },
    },
    xAxis: {
      type: "category",
      data: [...categories],
      axisTick: { show: false },
      axisLine: { lineStyle: { color: palette.lineStrong } },
      axisLabel: { ...text, hideOverlap: true, margin: 6 },
    },
    yAxis: {
      type: "value",
      splitNumber: 3,
      minInterval: 1,
      axisLabel: { ...text, formatter: (value: number) => formatAxis(value) },
      splitLine: { lineStyle: { color: palette.line } },
    },
    series: stacks.map((stack) => ({
      type: "bar" as const,
      name: stack.name,
      stack: stack.group ?? "all",
      data: [...stack.values],
      itemStyle: { color: stack.color },
      barCategoryGap: categories.length > 60 ? "10%" : "25%",
      barMaxWidth: 28,
      emphasis: { disabled: true },
    })),
  };
}

/** How a step of time is named under its bar and over its figures: by the clock, or by the day where it has whole days. */
export function stepName(start: string, stepMinutes: number, zone: string): string {
  if (stepMinutes >= 1440) return formatShortDay(start, "UTC");
  return stepMinutes >= 60
    ? `${formatShortDay(start, zone)} ${formatHourMinute(start, zone)}`
    : formatHourMinute(start, zone);
}

/** "Tokens per minute", hour, day or week: used, beside those asked for by decision. */
export function tokensOverTime(steps: readonly OverviewStep[], stepMinutes: number, zone: string) {
  return (palette: Palette): ChartOption =>
    stackedBars(
      palette,
      steps.map(({ start }) => stepName(start, stepMinutes, zone)),
      [
        {
          name: "used",
          color: palette.blueMark,
          values: steps.map((each) => each.settled_tokens),
          group: "used",
        },
        { name: "allowed", color: palette.greenMark, values: steps.map((each) => each.allowed_tokens) },
        { name: "warned", color: palette.amberMark, values: steps.map((each) => each.warned_tokens) },
        { name: "blocked", color: palette.redMark, values: steps.map((each) => each.blocked_tokens) },
      ],
      (value) => `${formatTokens(value)} tokens`,
      formatCompact,
      (index) => {
        const step = steps[index];
        if (!step) return "";
        const name = stepName(step.start, stepMinutes, zone);
        const prefix = stepMinutes === 10_080 ? "Week from " : "";
        return `${prefix}${name}, ${formatTokens(step.calls)} calls, ${formatTokens(step.blocked_calls)} blocked`;
      },
    );
}

/** "Cost a day", week or month. */
export function costOverTime(
  periods: readonly { readonly from: string; readonly cost_micros: number; readonly calls: number }[],
  step: UsageStep,
  currency: string,
) {
  return (palette: Palette): ChartOption => {
    const names = periods.map(({ from }) => periodName(from, step));
    return stackedBars(
      palette,
      names,
      [{ name: "cost", color: palette.blueMark, values: periods.map((each) => each.cost_micros) }],
      (value) => formatCost(value, currency),
      (value) => formatCost(value, currency),
      (index) =>
        `${step === "week" ? "Week from " : ""}${names[index] ?? ""}, ${formatTokens(periods[index]?.calls ?? 0)} calls`,
    );
  };
}

/** "Sold, and recognised as it was used": beside each other, in one currency. */
export function revenueOverTime(
  periods: readonly {
    readonly from: string;
    readonly sold_minor: number;
    readonly recognised_minor: number;
  }[],
  step: UsageStep,
  format: (minor: number) => string,
) {
  return (palette: Palette): ChartOption => {
    const names = periods.map(({ from }) => periodName(from, step));
    return stackedBars(
      palette,
      names,
      [
        {
          name: "sold",
          color: palette.greyMark,
          values: periods.map((each) => each.sold_minor),
          group: "sold",
        },
        {
          name: "recognised",
          color: palette.greenMark,
          values: periods.map((each) => each.recognised_minor),
        },
      ],
      format,
      format,
      (index) => `${step === "week" ? "Week from " : ""}${names[index] ?? ""}`,
    );
  };
}

export type UsageSplit = "direction" | "cost";
export type UsageStep = "day" | "week" | "month";

export interface UsagePeriod {
  /** First day of the period, YYYY-MM-DD. */
  readonly start: string;
  readonly prompt_tokens: number;
  readonly completion_tokens: number;
  readonly message_count: number;
  readonly cost_micros: number;
}

/** Days added up to weeks (from Monday) or months; days without use between two days are filled with zero. */
export function groupUsage(
  days: AccountUsage["by_day"],
  step: UsageStep,
  from: string,
  to: string,
): UsagePeriod[] {
  const periods = new Map<string, UsagePeriod>();
  const startOf = (day: string): string => {
    if (step === "month") return `${day.slice(0, 7)}-01`;
    if (step === "day") return day;
    const date = new Date(`${day}T00:00:00Z`);
    date.setUTCDate(date.getUTCDate() - ((date.getUTCDay() + 6) % 7));
    return date.toISOString().slice(0, 10);
  };
  const zero = { prompt_tokens: 0, completion_tokens: 0, message_count: 0, cost_micros: 0 };
  const end = Date.parse(`${to}T00:00:00Z`);
  for (let at = Date.parse(`${from}T00:00:00Z`); at <= end; at += dayMs) {
    const start = startOf(new Date(at).toISOString().slice(0, 10));
    if (!periods.has(start)) periods.set(start, { start, ...zero });
  }
  for (const day of days) {
    const start = startOf(day.day.slice(0, 10));
    const period = periods.get(start) ?? { start, ...zero };
    periods.set(start, {
      start,
      prompt_tokens: period.prompt_tokens + day.prompt_tokens,
      completion_tokens: period.completion_tokens + day.completion_tokens,
      message_count: period.message_count + day.message_count,
      cost_micros: period.cost_micros + day.cost_micros,
    });
  }
  return [...periods.values()].sort((a, b) => a.start.localeCompare(b.start));
}

function periodName(start: string, step: UsageStep): string {
  const at = `${start}T12:00:00Z`;
  return step === "month" ? formatMonth(at, "UTC") : formatShortDay(at, "UTC");
}

/** "Tokens a day, read and written" or "Cost a day". */
export function usageOverTime(
  periods: readonly UsagePeriod[],
  step: UsageStep,
  split: UsageSplit,
  currency: string,
) {
  return (palette: Palette): ChartOption => {
    const names = periods.map((period) => periodName(period.start, step));
    const heading = (index: number): string => {
      const period = periods[index];
      if (!period) return "";
      const prefix = step === "week" ? "Week from " : "";
      return `${prefix}${names[index]}, ${formatTokens(period.message_count)} messages`;
    };
    if (split === "cost")
      return stackedBars(
        palette,
        names,
        [{ name: "cost", color: palette.blueMark, values: periods.map((period) => period.cost_micros) }],
        (value) => formatCost(value, currency),
        (value) => formatCost(value, currency),
        heading,
      );
    return stackedBars(
      palette,
      names,
      [
        { name: "input", color: palette.greyMark, values: periods.map((period) => period.prompt_tokens) },
        {
          name: "output",
          color: palette.blueMark,
          values: periods.map((period) => period.completion_tokens),
        },
      ],
      (value) => `${formatTokens(value)} tokens`,
      formatCompact,
      heading,
    );
  };
}
