import { describe, expect, it } from "vitest";
import {
  addDays,
  formatBytes,
  formatChange,
  formatCompact,
  formatCallCost,
  formatCost,
  formatDuration,
  formatExactCost,
  formatInstant,
  formatMinorMoney,
  formatPeriod,
  formatRelative,
  formatShortInstant,
  formatTokens,
  isoDay,
} from "./format.ts";

describe("tokens", () => {
  it("have separators, and a true minus", () => {
    expect(formatTokens(1_234_567)).toBe("1,234,567");
    expect(formatTokens(-250)).toBe("−250");
    expect(formatChange(1000)).toBe("+1,000");
    expect(formatChange(0)).toBe("0");
  });
  it.each([
    [0, "0"],
    [9_999, "9,999"],
    [10_000, "10k"],
    [12_345, "12.3k"],
    [999_949, "999.9k"],
    [999_950, "1M"],
    [1_254_000, "1.25M"],
    [12_540_000, "12.5M"],
    [999_960_000, "1B"],
    [-12_345, "−12.3k"],
    [Number.MAX_SAFE_INTEGER, "9,007.2T"],
  ])("%d is %s where space is short", (value, text) => {
    expect(formatCompact(value)).toBe(text);
  });
});

describe("cost", () => {
  it("has its currency, and decimals enough not to read as nothing", () => {
    expect(formatCost(12_345_678, "GBP")).toBe("£12.35");
    expect(formatCost(0, "usd")).toBe("US$0.00");
    expect(formatCost(34_400, "USD")).toBe("US$0.03");
    expect(formatCost(1_200, "USD")).toBe("< US$0.01");
    expect(formatCallCost(1_200, "USD")).toBe("US$0.0012");
    expect(formatCallCost(550_000, "USD")).toBe("US$0.5500");
    expect(formatCallCost(49, "USD")).toBe("< US$0.0001");
    expect(formatExactCost(1_234, "EUR")).toBe("€0.001234");
    expect(formatCost(-2_500_000, "GBP")).toBe("−£2.50");
  });
  it("stays exact beyond what a float holds", () => {
    expect(formatExactCost(9_007_199_254_740_991, "USD")).toBe("US$9,007,199,254.740991");
  });
  it("writes out what is not a currency code", () => {
    expect(formatCost(1_000_000, "credits")).toBe("1.000000 CREDITS");
    expect(formatCost(1_000_000, "")).toBe("1.000000");
  });
});

it("writes minor units with the decimals of their currency", () => {
  expect(formatMinorMoney(123_450, "usd", 2)).toBe("US$1,234.50");
  expect(formatMinorMoney(-500, "jpy", 0)).toBe("−JP¥500");
  expect(formatMinorMoney(1_234, "kwd", 3)).toBe("KWD 1.234");
  expect(formatMinorMoney(-5, "gbp", 2)).toBe("−£0.05");
});

describe("spans", () => {
  it.each([
    [-5, "0 s"],
    [45_000, "45 s"],
    [90_000, "1 m 30 s"],
    [12 * 60_000, "12 m"],
    [(3 * 60 + 12) * 60_000, "3 h 12 m"],
    [52 * 3_600_000, "2 d 4 h"],
    [40 * 86_400_000, "40 d"],
  ])("%d ms is %s", (ms, text) => {
    expect(formatDuration(ms)).toBe(text);
  });
  it("say how long ago, and how long until", () => {
    const now = Date.parse("2026-11-22T12:00:00Z");
    expect(formatRelative("2026-11-22T11:59:58Z", now)).toBe("just now");
    expect(formatRelative("2026-11-22T11:59:40Z", now)).toBe("20 s ago");
    expect(formatRelative("2026-11-22T09:00:00Z", now)).toBe("3 h ago");
    expect(formatRelative("2026-11-22T15:12:00Z", now)).toBe("in 3 h 12 m");
    expect(formatRelative("not a time", now)).toBe("at an unknown time");
  });
});

describe("instants", () => {
  it("say their zone, also across a change of clocks", () => {
    expect(formatInstant("2026-07-01T12:00:00Z", "Europe/London")).toBe("1 Jul 2026, 13:00:00 Europe/London");
    expect(formatInstant("2026-11-22T12:00:00Z", "Europe/London")).toBe(
      "22 Nov 2026, 12:00:00 Europe/London",
    );
  });
  it("leave out this year, not another", () => {
    const now = Date.parse("2026-11-22T12:00:00Z");
    expect(formatShortInstant("2026-11-22T12:03:04Z", "UTC", now)).toBe("22 Nov, 12:03");
    expect(formatShortInstant("2025-11-22T12:03:04Z", "UTC", now)).toBe("22 Nov 2025, 12:03");
  });
  it("do not fail on a zone or time that is none", () => {
    expect(formatInstant("2026-11-22T12:00:00Z", "Mars/Olympus")).toContain("12:00:00");
    expect(formatInstant("never", "UTC")).toBe("an unknown time");
  });
  it("name a period by its key, and nothing that is none", () => {
    expect(
      [
        "2027-03-05",
        "2027-W01",
        "2026-W53",
        "2027-03",
        "2027",
        "2027-W00",
        "2027-03-05T14:30",
        "evt_1",
        "",
      ].map(formatPeriod),
    ).toEqual([
      "5 March 2027",
      "the week from 4 January 2027",
      "the week from 28 December 2026",
      "March 2027",
      "2027",
      null,
      null,
      null,
      null,
    ]);
  });
  it("know the local day", () => {
    expect(isoDay("2026-11-22T23:30:00Z", "Asia/Tokyo")).toBe("2026-11-23");
    expect(addDays("2026-03-01", -1)).toBe("2026-02-28");
  });
});

it("writes sizes of files", () => {
  expect([0, 999, 1_000, 99_960, 1_500_000, 3_200_000_000].map(formatBytes)).toEqual([
    "0 B",
    "999 B",
    "1.0 kB",
    "100 kB",
    "1.5 MB",
    "3.20 GB",
  ]);
});
