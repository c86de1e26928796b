import { describe, expect, it } from "vitest";
import { dueAlerts, firedKey, periodKey, warnPercent } from "../index.ts";

const alert = { alert_name: "monthly cost", period: "month", thresholds: [50, 75, 90], budget: 10_000_000 };
const reading = (value: number, at = "2026-06-15T12:00:00Z") => ({
  value,
  at_ms: Date.parse(at),
  zone: "Europe/London",
});

describe("an alert", () => {
  it("fires each threshold once a period, and names the highest to tell a person", () => {
    const fired = new Set<string>();
    const fire = (value: number, at?: string) => {
      const due = dueAlerts(alert, reading(value, at), fired);
      for (const each of due) fired.add(firedKey(each.alert_name, each.threshold, each.period_key));
      return due.map((each) => [each.threshold, each.is_highest]);
    };
    expect(fire(4_999_999)).toEqual([]);
    expect(fire(5_000_000)).toEqual([[50, true]]);
    expect(fire(6_000_000)).toEqual([]);
    expect(fire(9_500_000)).toEqual([
      [75, false],
      [90, true],
    ]);
    // 23:30 UTC on 30 June is July in London.
    expect(fire(5_000_000, "2026-06-30T23:30:00Z")).toEqual([[50, true]]);
  });

  it("without a budget compares amounts", () => {
    expect(
      dueAlerts({ alert_name: "big call", period: "", thresholds: [5_000] }, reading(5_001), new Set()),
    ).toMatchObject([{ threshold: 5_000, percent: null, period_key: "" }]);
  });

  it("never fires on nonsense", () => {
    expect(dueAlerts({ ...alert, budget: 0 }, reading(1), new Set())).toEqual([]);
    expect(dueAlerts(alert, reading(Number.NaN), new Set())).toEqual([]);
  });

  it("names its periods by the account's own clock", () => {
    const at = Date.parse("2026-10-25T00:30:00Z");
    expect(["hour", "day", "month", "ever"].map((period) => periodKey(period, at, "Europe/London"))).toEqual([
      "2026-10-25T01",
      "2026-10-25",
      "2026-10",
      "",
    ]);
  });
});

describe("a plan's warning", () => {
  it("is the highest percent reached with this call, exactly", () => {
    expect(warnPercent(799, 1, 1_000, [80, 90])).toBe(80);
    expect(warnPercent(798, 1, 1_000, [80, 90])).toBeNull();
    expect(warnPercent(0, 900, 1_000, [80, 90])).toBe(90);
    expect(warnPercent(1, 1, null, [80])).toBeNull();
    expect(warnPercent(Number.MAX_SAFE_INTEGER - 1, 1, Number.MAX_SAFE_INTEGER, [100])).toBe(100);
  });
});
