import { describe, expect, it } from "vitest";
import { roundWords } from "./health-desk.tsx";

describe("a round of upkeep reads", () => {
  it.each<[string, Record<string, unknown>]>([
    ["nothing to do", { more: false }],
    [
      "3 expired reservations, 1,200 rows purged",
      { expired_reservations: 3, rows_purged: 1_200, more: false },
    ],
    ["2,000 events followed, more is left for the next round", { events_followed: 2_000, more: true }],
  ])("%s", (words, counts) => {
    expect(roundWords(counts)).toBe(words);
  });
});
