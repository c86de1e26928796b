import { describe, expect, it } from "vitest";
import { lookQuery, readLook, stepWords } from "./look.ts";

const asQuery = (record: Readonly<Record<string, string | undefined>>): URLSearchParams =>
  new URLSearchParams(
    Object.entries(record).filter((entry): entry is [string, string] => entry[1] !== undefined),
  );

describe("what Watch looks at", () => {
  it("is in the address and is read from it again", () => {
    for (const look of [
      { filter: {}, minutes: 60, stretch: null },
      {
        filter: { user_id: "ü/1", decision: "block" as const, reason: "daily_limit", model: "gpt-4o" },
        minutes: 129_600,
        stretch: null,
      },
      {
        filter: { model: "m" },
        minutes: 60,
        stretch: { from: "2026-11-01T00:00:00.000Z", to: "2026-11-02T00:00:00.000Z" },
      },
    ])
      expect(readLook(asQuery(lookQuery(look)))).toEqual(look);
  });
  it.each([
    "decision=maybe",
    "last=7",
    "from=2026-02-02&to=2026-01-01",
    "from=x&to=y",
    "from=1990-01-01&to=2026-01-01",
  ])("leaves out what is odd: %s", (address) => {
    expect(readLook(new URLSearchParams(address))).toEqual({ filter: {}, minutes: 60, stretch: null });
  });
  it("names steps in the largest unit that fits", () => {
    expect([1, 15, 60, 120, 1_440, 10_080].map(stepWords)).toEqual([
      "minute",
      "15 minutes",
      "hour",
      "2 hours",
      "day",
      "week",
    ]);
  });
});
