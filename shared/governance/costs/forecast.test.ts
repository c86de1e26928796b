import { describe, expect, it } from "vitest";
import { forecastPeriod, runsOut } from "./forecast.ts";

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

  it("takes a day that cost more than usual as it is, and is never below what is spent", () => {
    const past = Array.from({ length: 28 }, () => 100);
    expect(forecastPeriod(past, 2_800, 2, 900)).toMatchObject({ expected_micros: 3_800, low_micros: 3_800 });
    expect(forecastPeriod(past, 2_800, 2, 40)).toMatchObject({ expected_micros: 3_000 });
    for (const today of [0, 50, 500, 5_000])
      expect(forecastPeriod([0, 200, 0, 200, 0, 200, 0], 700, 1, today)?.low_micros).toBeGreaterThanOrEqual(
        700 + today,
      );
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

describe("the day something runs out", () => {
  it("is exact where every day is like the other, and unknown beyond the days asked for", () => {
    const past = Array.from({ length: 28 }, () => 100);
    expect(runsOut(past, 600, 30)).toEqual({ expected: 6, earliest: 6, latest: 6, per_day: 100, days: 28 });
    expect(runsOut(past, 601, 6)).toMatchObject({ expected: null, earliest: null, latest: null });
    expect(
      runsOut(
        Array.from({ length: 28 }, () => 0),
        600,
        30,
      ),
    ).toMatchObject({ expected: null });
    expect(runsOut([1, 2, 3], 600, 30)).toBeNull();
    // Half of it is gone on the first day: the other half lasts three more.
    expect(runsOut(past, 600, 30, 300)).toMatchObject({ expected: 4 });
  });

  it("comes between the earliest and the latest day in about four of five random histories", () => {
    let seed = 7;
    const aDay = (): number => {
      let sum = 0;
      for (let n = 0; n < 3; n++) {
        seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648;
        sum += seed / 2_147_483_648;
      }
      return Math.round(1_000 * sum);
    };
    let held = 0;
    for (let n = 0; n < 1_000; n++) {
      const found = runsOut(Array.from({ length: 28 }, aDay), 20_000, 60);
      let day = 0;
      for (let used = 0; used < 20_000; day++) used += aDay();
      if (found?.earliest && found.latest && day >= found.earliest && day <= found.latest) held++;
    }
    // Days are whole: the band is a little wider than it says.
    expect(held / 1_000).toBeGreaterThan(0.75);
    expect(held / 1_000).toBeLessThan(0.95);
  });
});
