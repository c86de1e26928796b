import { describe, expect, it } from "vitest";
import { daysIn } from "../../lib/format.ts";
import { changeSince, changeWords, fittingStep, lastOfMonth, presetRange, readRange } from "./ranges.ts";

const today = "2026-03-02";

describe("a range of the costs desk", () => {
  it.each([
    ["7", "2026-02-24", "2026-03-02"],
    ["month", "2026-03-01", "2026-03-02"],
    ["last", "2026-02-01", "2026-02-28"],
    ["365", "2025-03-03", "2026-03-02"],
  ] as const)("%s is %s to %s", (id, from, to) => {
    expect(presetRange(id, today)).toEqual({ from, to });
  });

  it("is 30 days where the address names none, or nonsense", () => {
    for (const query of ["", "from=2026-03-02&to=2026-03-01", "from=x&to=y", "range=99"])
      expect(daysIn(readRange(new URLSearchParams(query), today))).toBe(30);
    expect(readRange(new URLSearchParams("from=2026-01-01&to=2026-01-03"), today)).toEqual({
      from: "2026-01-01",
      to: "2026-01-03",
      preset: null,
    });
  });

  it("is charted by day, week or month, as can be read", () => {
    expect(fittingStep(presetRange("30", today))).toBe("day");
    expect(fittingStep(presetRange("90", today))).toBe("week");
    expect(fittingStep({ from: "2020-01-01", to: today })).toBe("month");
  });
});

it("a month ends on its own last day", () => {
  expect(lastOfMonth("2028-02-11")).toBe("2028-02-29");
  expect(lastOfMonth("2026-12-31")).toBe("2026-12-31");
});

it("a change is said in percent, and in words where nothing was before", () => {
  expect(changeWords(112, 100)).toBe("+12 %");
  expect(changeWords(97, 100)).toBe("-3.0 %");
  expect(changeWords(5, 0)).toBe("none before");
  // What was nothing is not said twice.
  expect(changeSince(5, 0, "0")).toBe("none before");
  expect(changeSince(6, 5, "5")).toBe("+20 % (before: 5)");
});
