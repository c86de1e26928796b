import { expect, test } from "vitest";
import { daysOf, periodProblem } from "./period.ts";

const none = { from: "", to: "" };
const at = (text: string): number => Date.parse(text);

test("a month is a month in UTC, also in January, in a leap year and at its very first moment", () => {
  expect(daysOf("last_month", at("2026-11-25T13:00:00Z"), null, none)).toEqual({
    from: "2026-10-01",
    to: "2026-10-31",
  });
  expect(daysOf("last_month", at("2026-01-01T00:00:00Z"), null, none)).toEqual({
    from: "2025-12-01",
    to: "2025-12-31",
  });
  expect(daysOf("last_month", at("2028-03-31T23:59:59Z"), null, none)).toEqual({
    from: "2028-02-01",
    to: "2028-02-29",
  });
  expect(daysOf("this_month", at("2026-11-01T00:00:00Z"), null, none)).toEqual({
    from: "2026-11-01",
    to: "2026-11-01",
  });
});

test("since the last close begins where that period ended", () => {
  expect(daysOf("since_close", at("2026-11-25T13:00:00Z"), "2026-11-01T00:00:00+00:00", none)).toEqual({
    from: "2026-11-01",
    to: "2026-11-25",
  });
});

test("a period that cannot be used says why", () => {
  expect(periodProblem({ from: "2026-10-02", to: "2026-10-01" }, false)).toBe("The end is before the start.");
  expect(periodProblem(none, false)).toBeNull();
  expect(periodProblem({ from: "2026-10-02", to: "" }, true)).toContain("both days");
  expect(periodProblem({ from: "2026-10-02", to: "2026-10-02" }, true)).toBeNull();
});
