import { describe, expect, it } from "vitest";
import { light } from "../ui/tokens.ts";
import { groupUsage, tokensOverTime, usageOverTime } from "./options.ts";

const day = (date: string, prompt: number, completion: number) => ({
  day: date,
  prompt_tokens: prompt,
  completion_tokens: completion,
  total_tokens: prompt + completion,
  message_count: 1,
  cost_micros: 10,
});

describe("groupUsage", () => {
  it("fills days without use, so that a gap looks like one", () => {
    const periods = groupUsage([day("2026-11-03", 5, 6)], "day", "2026-11-01", "2026-11-04");
    expect(periods.map((each) => [each.start, each.prompt_tokens])).toEqual([
      ["2026-11-01", 0],
      ["2026-11-02", 0],
      ["2026-11-03", 5],
      ["2026-11-04", 0],
    ]);
  });
  it("adds days up to weeks from Monday and to months, losing none", () => {
    const days = [day("2026-10-31", 1, 1), day("2026-11-01", 2, 2), day("2026-11-02", 4, 4)];
    const weeks = groupUsage(days, "week", "2026-10-26", "2026-11-02");
    expect(weeks.map((each) => [each.start, each.prompt_tokens])).toEqual([
      ["2026-10-26", 3],
      ["2026-11-02", 4],
    ]);
    const months = groupUsage(days, "month", "2026-10-26", "2026-11-02");
    expect(months.map((each) => [each.start, each.completion_tokens])).toEqual([
      ["2026-10-01", 1],
      ["2026-11-01", 6],
    ]);
  });
});

describe("options", () => {
  it("show tokens used beside those asked for, decisions in the colours they have everywhere", () => {
    const bucket = {
      start: "2026-11-22T12:00:00Z",
      calls: 3,
      settled_tokens: 10,
      allowed_tokens: 30,
      warned_tokens: 20,
      blocked_tokens: 10,
      blocked_calls: 1,
      cost_micros: 5,
    };
    const option = tokensOverTime([bucket], 1, "UTC")(light);
    const series = option.series as { name: string; data: number[]; itemStyle: { color: string } }[];
    expect(series.map((each) => [each.name, each.data, each.itemStyle.color])).toEqual([
      ["used", [10], light.blueMark],
      ["allowed", [30], light.greenMark],
      ["warned", [20], light.amberMark],
      ["blocked", [10], light.redMark],
    ]);
    const formatter = (option.tooltip as { formatter: (of: unknown) => string }).formatter;
    expect(formatter([{ dataIndex: 0 }])).toContain("12:00, 3 calls");
  });
  it("show cost in its currency", () => {
    const periods = groupUsage([day("2026-11-03", 5, 6)], "day", "2026-11-03", "2026-11-03");
    const option = usageOverTime(periods, "day", "cost", "GBP")(light);
    const axis = option.yAxis as { axisLabel: { formatter: (of: number) => string } };
    expect(axis.axisLabel.formatter(2_000_000)).toBe("£2.00");
  });
});
