import { describe, expect, it } from "vitest";
import { alternate, median } from "./measure.ts";

describe("measuring side by side", () => {
  it("takes the middle of the rounds, not their mean", () => {
    expect(median([1, 2, 90])).toBe(2);
    expect(median([4, 1, 3, 2])).toBe(2.5);
    expect(() => median([])).toThrow("not known");
  });

  it("does not count the warm-up round and alternates which side runs first", async () => {
    const order: string[] = [];
    const result = await alternate(
      2,
      () => order.push("ours") && (order.length <= 2 ? 1000 : 6),
      () => order.push("floor") && 3,
    );
    expect(order).toEqual(["ours", "floor", "ours", "floor", "floor", "ours"]);
    expect(result).toEqual({ ours: 6, floor: 3, ratio: 2, ratios: [2, 2] });
  });
});
