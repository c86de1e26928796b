import { expect, it } from "vitest";
import { addDays } from "../../lib/format.ts";
import { allowanceWords } from "./allowance-forecast.tsx";

const today = "2026-11-10";
const detail = (remaining: number, expiresAt: string | null = "2026-12-01T00:00:00Z") =>
  ({
    lots: [
      { kind: "subscription", remaining, expires_at: expiresAt },
      { kind: "purchased", remaining: 1_000_000, expires_at: null },
    ],
    limits: { monthly: { resets_at: "2026-12-01T00:00:00Z" } },
    plan: { monthly_allowance: 10_000 },
  }) as unknown as Parameters<typeof allowanceWords>[0];
const days = (tokens: (n: number) => number, count = 28) =>
  Array.from({ length: count }, (_, n) => ({ day: addDays(today, n - count), charged_tokens: tokens(n) }));

it("says the day the allowance runs out, with its band and from what, and calls it an estimate", () => {
  expect(
    allowanceWords(
      detail(500),
      days(() => 100),
      today,
      "UTC",
    ),
  ).toMatch(
    /^Estimate: the allowance runs out on .*14.*, 80 % likely between .*14.* and .*14.*, if days go on like the last 28 \(100 tokens a day\)\.$/,
  );
  // Purchased tokens are no allowance, and a day without use counts.
  expect(
    allowanceWords(
      detail(500),
      days((n) => (n % 2 === 0 ? 200 : 0)),
      today,
      "UTC",
    ),
  ).toMatch(/runs out on/);
});

it("says that it lasts, or that it is used; and nothing where there is nothing to say", () => {
  expect(
    allowanceWords(
      detail(9_000),
      days(() => 100),
      today,
      "UTC",
    ),
  ).toMatch(/^Estimate: the allowance lasts the period, if/);
  expect(
    allowanceWords(
      detail(9_000, null),
      days(() => 1),
      today,
      "UTC",
    ),
  ).toMatch(/lasts the period/);
  expect(
    allowanceWords(
      detail(0),
      days(() => 100),
      today,
      "UTC",
    ),
  ).toBe("All of the period's allowance is used.");
  expect(
    allowanceWords(
      detail(500),
      days(() => 100, 3),
      today,
      "UTC",
    ),
  ).toBeNull();
  expect(
    allowanceWords(
      { ...detail(0), plan: { monthly_allowance: 0 } } as never,
      days(() => 100),
      today,
      "UTC",
    ),
  ).toBeNull();
});

it("lasts no longer than the user's own month, wherever they are: its last day has one day left", () => {
  // The month's end in each zone; a hundred tokens a day, and what is left is enough for one more.
  const ends: readonly (readonly [zone: string, endsAt: string])[] = [
    ["UTC", "2026-12-01T00:00:00Z"],
    ["America/Los_Angeles", "2026-12-01T08:00:00Z"],
    ["America/St_Johns", "2026-12-01T03:30:00Z"],
    ["Etc/GMT+12", "2026-12-01T12:00:00Z"],
    ["Asia/Tokyo", "2026-11-30T15:00:00Z"],
    ["Asia/Kathmandu", "2026-11-30T18:15:00Z"],
    ["Pacific/Kiritimati", "2026-11-30T10:00:00Z"],
  ];
  for (const [zone, endsAt] of ends)
    for (const [on, left] of [
      ["2026-11-30", 1],
      ["2026-11-29", 2],
      ["2026-11-01", 30],
    ] as const) {
      const past = Array.from({ length: 28 }, (_, n) => ({ day: addDays(on, n - 28), charged_tokens: 100 }));
      expect([zone, on, allowanceWords(detail(100 * left + 1, endsAt), past, on, zone)]).toEqual([
        zone,
        on,
        expect.stringMatching(/lasts the period/),
      ]);
      expect([zone, on, allowanceWords(detail(100 * left, endsAt), past, on, zone)]).toEqual([
        zone,
        on,
        expect.stringMatching(/runs out on .*30/),
      ]);
    }
});
