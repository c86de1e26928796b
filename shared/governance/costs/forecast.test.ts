import { describe, expect, it } from "vitest";
import { daysLeft, forecastPeriod } from "./forecast.ts";

describe("a forecast", () => {
  it("is exact, without a band, where every day costs the same", () => {
    expect(
      forecastPeriod(
        Array.from({ length: 28 }, () => 100),
        1_000,
        10,
      ),
    ).toEqual({
      expected_micros: 2_000,
      low_micros: 2_000,
      high_micros: 2_000,
      per_day_micros: 100,
      days: 28,
    });
  });

  it("is wider the less regular the days and the more of them are left, and never below what is spent", () => {
    const days = [0, 200, 0, 200, 0, 200, 0, 200];
    const near = forecastPeriod(days, 500, 1);
    const far = forecastPeriod(days, 500, 20);
    if (!near || !far) throw new Error("there is a forecast");
    expect(near.low_micros).toBeGreaterThanOrEqual(500);
    expect(far.high_micros - far.expected_micros).toBeGreaterThan(near.high_micros - near.expected_micros);
  });

  it("is not made from less than a week", () => {
    expect(forecastPeriod([1, 2, 3, 4, 5, 6], 0, 10)).toBeNull();
  });

  it("holds the true end in about four of five random periods", () => {
    let seed = 42;
    const chance = (): number => {
      seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648;
      return seed / 2_147_483_648;
    };
    const aDay = (): number => Math.round(1_000 * (chance() + chance() + chance()));
    let held = 0;
    for (let n = 0; n < 2_000; n++) {
      const found = forecastPeriod(Array.from({ length: 28 }, aDay), 0, 15);
      const truth = Array.from({ length: 15 }, aDay).reduce((sum, each) => sum + each, 0);
      if (found && truth >= found.low_micros && truth <= found.high_micros) held++;
    }
    expect(held / 2_000).toBeGreaterThan(0.75);
    expect(held / 2_000).toBeLessThan(0.85);
  });
});

it("a budget lasts as many whole days as the usual day fits into what is left of it", () => {
  expect(daysLeft(1_000, 400, 100)).toBe(6);
  expect(daysLeft(1_000, 1_000, 100)).toBe(0);
  expect(daysLeft(1_000, 400, 0)).toBeNull();
});
