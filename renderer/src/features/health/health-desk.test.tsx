import { describe, expect, it } from "vitest";
import { roundWords } from "./health-desk.tsx";

describe("a round of upkeep reads", () => {
  it.each<[string, Record<string, unknown>]>([
    ["nothing to do", { more: false }],
    [
      "3 holds expired, 1 alert raised, 1,200 rows purged, 2 something new",
      { expired_reservations: 3, alerts_triggered: 1, rows_purged: 1_200, something_new: 2, more: false },
    ],
    ["2,000 events followed, more is left for the next round", { events_followed: 2_000, more: true }],
  ])("%s", (words, counts) => {
    expect(roundWords(counts)).toBe(words);
  });
});
