import { describe, expect, it } from "vitest";
import { DIFFERENCE_CLASSES, type DifferenceClass } from "../../shared/governance/reconciliation/index.ts";
import { localDay } from "../../shared/governance/time/index.ts";
import { type Catalogue, DAY_MS, type History, inventHistory, type Lot } from "./history.ts";
import { inventPeople } from "./people.ts";

const catalogue: Catalogue = {
  hold_minutes: 15,
  reasons: ["spam_identical", "bot_behavior", "off_topic"],
  plans: [
    plan("starter", 50_000, 10_000, null),
    plan("pro", 500_000, null, null),
    plan("business", 5_000_000, null, 4_000_000),
  ],
  packs: [
    { pack_id: "small", tokens: 500_000, price_minor: 500, currency: "usd", plans: null },
    { pack_id: "large", tokens: 5_000_000, price_minor: 4_000, currency: "usd", plans: ["pro", "business"] },
  ],
  prices: [
    {
      provider: "openai",
      model: "small",
      input_micros_per_million: 150_000,
      output_micros_per_million: 600_000,
    },
    {
      provider: "openai",
      model: "big",
      input_micros_per_million: 2_500_000,
      output_micros_per_million: 10_000_000,
    },
  ],
  estimates: [
    { task_type: "chat", tokens: 500 },
    { task_type: "code", tokens: 1_800 },
  ],
};
function plan(
  plan_id: string,
  monthly_allowance: number,
  daily_limit: number | null,
  monthly_limit: number | null,
) {
  const warn_at = [80, 90, 95];
  return {
    plan_id,
    name: plan_id,
    monthly_allowance,
    daily_limit,
    monthly_limit,
    allows_top_up: true,
    rollover_months: 0,
    warn_at,
  };
}

const endsAt = Date.parse("2026-11-22T15:20:00Z");
const invent = (seed: number, users = 500): History[] =>
  inventPeople(seed, users, 45).map((person) => inventHistory(person, catalogue, { seed, days: 45, endsAt }));
const sample = invent(7);

describe("the invented history", () => {
  it("is the same for the same seed, and another for another", () => {
    expect(invent(7, 40)).toEqual(invent(7, 40));
    expect(invent(8, 40)).not.toEqual(invent(7, 40));
  });

  it("has distinct people under example.com, in many scripts", () => {
    const emails = sample.map(({ person }) => person.email);
    expect(new Set(emails).size).toBe(500);
    for (const email of emails) expect(email).toMatch(/^[a-z0-9.-]+@example\.com$/);
    for (const script of [
      "Latin",
      "Greek",
      "Cyrillic",
      "Arabic",
      "Hebrew",
      "Devanagari",
      "Han",
      "Hiragana",
      "Hangul",
      "Thai",
    ]) {
      const pattern = new RegExp(`\\p{Script=${script}}`, "u");
      expect(sample.filter(({ person }) => pattern.test(person.display_name)).length, script).toBeGreaterThan(
        2,
      );
    }
    expect(sample.some(({ person }) => /\p{Extended_Pictographic}/u.test(person.display_name))).toBe(true);
  });

  it("adds up: each balance follows from the one before, each lot from what went in and out", () => {
    for (const { entries, lots, balance, person } of sample) {
      let running = 0;
      const moved = new Map<number, number>();
      for (const entry of entries) {
        expect(
          entry.lots.reduce((sum, [, amount]) => sum + amount, 0),
          person.user_id,
        ).toBe(entry.amount);
        for (const [lot, amount] of entry.lots) moved.set(lot, (moved.get(lot) ?? 0) + amount);
        running += entry.amount;
        expect(entry.new_balance).toBe(running);
        expect(running).toBeGreaterThanOrEqual(0);
      }
      for (const lot of lots) {
        expect(lot.remaining + lot.frozen + lot.spent + lot.expired + lot.clawed_back).toBe(lot.granted);
        expect(moved.get(lot.lot)).toBe(lot.remaining);
        for (const part of [lot.remaining, lot.frozen, lot.spent, lot.expired, lot.clawed_back]) {
          expect(part).toBeGreaterThanOrEqual(0);
        }
      }
      expect(balance.subscription + balance.purchased + balance.promotional).toBe(running);
      expect(balance.reserved).toBe(0);
    }
  });

  it("ends now, in order of time, with every call ended", () => {
    for (const { entries, calls, person } of sample) {
      for (const list of [entries, calls]) {
        expect(
          list.every((one, index) => one.at >= (list[index - 1]?.at ?? 0)),
          person.user_id,
        ).toBe(true);
        expect(list.every((one) => one.at <= endsAt && one.at > endsAt - 46 * DAY_MS)).toBe(true);
      }
      for (const call of calls) {
        expect(call.status).not.toBe("held");
        expect(call.ended_at === null).toBe(call.status === "blocked");
        expect(call.ended_at ?? 0).toBeLessThanOrEqual(endsAt);
      }
    }
  });

  it("keeps the counters of the day and month equal to the calls", () => {
    for (const { calls, day, month, person } of sample) {
      for (const [period, length] of [
        [day, 10],
        [month, 7],
      ] as const) {
        const within = (at: number | null): boolean =>
          at !== null && localDay(at, person.timezone).slice(0, length) === period.date.slice(0, length);
        const settled = calls.filter((call) => call.status === "settled" && within(call.ended_at));
        expect(period.messages, person.user_id).toBe(calls.filter((call) => within(call.at)).length);
        expect(period.tokens).toBe(
          settled.reduce((sum, call) => sum + call.input_tokens + call.output_tokens, 0),
        );
        expect(period.cost_micros).toBe(settled.reduce((sum, call) => sum + call.cost_micros, 0));
      }
    }
  });

  it("has something of everything an operator meets", () => {
    const calls = sample.flatMap((history) => history.calls);
    const payments = sample.flatMap((history) => history.payments);
    for (const status of ["settled", "released", "expired", "blocked"]) {
      expect(calls.filter((call) => call.status === status).length, status).toBeGreaterThan(20);
    }
    for (const reason of [
      "daily_limit",
      "insufficient_tokens",
      "spam_identical",
      "bot_behavior",
      "off_topic",
    ]) {
      expect(calls.filter((call) => call.reason === reason).length, reason).toBeGreaterThan(20);
    }
    expect(calls.some((call) => call.warning)).toBe(true);
    expect(payments.length).toBeGreaterThan(60);
    expect(sample.some((history) => history.block)).toBe(true);
    const types = new Set(sample.flatMap((history) => history.entries.map((entry) => entry.type)));
    for (const type of ["subscription_grant", "purchase", "bonus", "usage", "expiry", "refund", "reversal"]) {
      expect(types.has(type as never), type).toBe(true);
    }
  });

  it.each([
    "2026-11-25T15:56:00Z",
    "2026-12-31T23:59:58Z",
    "2027-01-01T00:00:03Z",
    "2027-02-28T23:50:00Z",
    "2028-02-29T12:00:00Z",
    "2028-03-01T00:12:00Z",
    // Clocks change in America, in Europe and back.
    "2027-03-14T07:00:01Z",
    "2027-03-28T00:59:59Z",
    "2027-10-31T01:00:00Z",
  ])("has, at %s, a payment of each kind that finance is to find, as large as it is to be", (moment) => {
    const options = { seed: 20_260, days: 45, endsAt: Date.parse(moment) };
    const bought = new Map(
      inventPeople(20_260, 500, 45)
        .filter(({ plant }) => plant)
        .map((person) => {
          const { lots } = inventHistory(person, catalogue, options);
          return [person.plant, lots.filter(({ payment }) => payment?.plant === person.plant)] as const;
        }),
    );
    expect(bought.size).toBe(DIFFERENCE_CLASSES.length - 2);
    const whole = ({ remaining, granted }: Lot): boolean => remaining === granted;
    const isAs: Partial<Record<DifferenceClass, (lot: Lot) => boolean>> = {
      DISPUTE_WON_NOT_RESTORED: ({ frozen, granted }) => frozen === granted && granted === 5_000_000,
      REFUND_OVER_REVERSED: ({ clawed_back, granted }) => clawed_back === granted,
      REFUND_AFTER_SPEND: ({ remaining }) => remaining <= 100,
    };
    for (const [plant, lots] of bought) {
      expect(lots.length, `${plant}`).toBe(
        plant === "DUPLICATE_GRANT" || plant === "SUB_PERIOD_OVERLAP" ? 2 : 1,
      );
      // A subscription's lot is spent with the allowance, and ends with the month.
      if (plant && plant !== "SUB_PERIOD_OVERLAP")
        expect(lots.every(isAs[plant] ?? whole), `${plant} ${JSON.stringify(lots)}`).toBe(true);
    }
  });
});
