import { expect, it } from "vitest";
import { warnPercent } from "./warn.ts";

it("warns with the highest percent reached with this call, exactly", () => {
  expect(warnPercent(799, 1, 1_000, [80, 90])).toBe(80);
  expect(warnPercent(798, 1, 1_000, [80, 90])).toBeNull();
  expect(warnPercent(0, 900, 1_000, [80, 90])).toBe(90);
  expect(warnPercent(1, 1, null, [80])).toBeNull();
  expect(warnPercent(Number.MAX_SAFE_INTEGER - 1, 1, Number.MAX_SAFE_INTEGER, [100])).toBe(100);
});
