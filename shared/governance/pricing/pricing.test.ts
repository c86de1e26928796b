import fc from "fast-check";
import { describe, expect, expectTypeOf, it } from "vitest";
import {
  costOf,
  costOfCall,
  type MicroUnits,
  makeCounts,
  type MinorUnits,
  microUnits,
  type Price,
  parseInstant,
  parsePrices,
  providerOf,
  type Tokens,
  tokens,
  type UsageCounts,
} from "../index.ts";

const gpt4oMini = {
  provider: "openai",
  model: "gpt-4o-mini",
  input_micros_per_million: 150_000,
  output_micros_per_million: 600_000,
  cached_input_micros_per_million: 75_000,
  currency: "USD",
  effective_from: "2024-07-18",
};

function counts(input: number, output: number, cached = 0, cacheWrite = 0, reasoning = 0): UsageCounts {
  const made = makeCounts({ input, output, cached, cacheWrite, reasoning });
  if (!made.ok) throw new Error(made.error.message);
  return made.value;
}

function book(prices: unknown) {
  const parsed = parsePrices(prices);
  if (!parsed.ok) throw new Error(JSON.stringify(parsed.error));
  return parsed.value;
}

const at = (day: string): number => Date.parse(`${day}T00:00:00Z`);

describe("the cost of a call", () => {
  it("is rounded half up once, not once a part", () => {
    const price = { ...gpt4oMini, cached_input_micros_per_million: null } as Price;
    expect(costOf(counts(3, 0), price)).toEqual({ ok: true, value: 0 }); // 0.45
    expect(costOf(counts(0, 1), price)).toEqual({ ok: true, value: 1 }); // 0.6
    expect(costOf(counts(1, 1), price)).toEqual({ ok: true, value: 1 }); // 0.75
    expect(costOf(counts(10, 0), price)).toEqual({ ok: true, value: 2 }); // 1.5
  });

  it("prices cached input, cache writes and reasoning by their own prices, once", () => {
    const price = {
      ...gpt4oMini,
      input_micros_per_million: 1_000_000,
      output_micros_per_million: 10_000_000,
      cached_input_micros_per_million: 100_000,
      cache_write_micros_per_million: 2_000_000,
      reasoning_micros_per_million: 5_000_000,
    } as Price;
    // 70 plain + 20 × 0.1 + 10 × 2 + 60 × 10 + 40 × 5
    expect(costOf(counts(100, 100, 20, 10, 40), price)).toEqual({ ok: true, value: 70 + 2 + 20 + 600 + 200 });
  });

  it("is that of the tier that served the call, and of a long context", () => {
    const price = {
      ...gpt4oMini,
      input_micros_per_million: 1_000_000,
      output_micros_per_million: 10_000_000,
      cached_input_micros_per_million: 100_000,
      batch_input_micros_per_million: 500_000,
      batch_output_micros_per_million: 5_000_000,
      priority_input_micros_per_million: 2_000_000,
      long_context_above_tokens: 1_000,
      long_context_input_micros_per_million: 3_000_000,
      long_context_output_micros_per_million: 15_000_000,
    } as Price;
    const cost = (input: number, tier?: string) =>
      costOf({ ...counts(input, 100, 100), ...(tier ? { service_tier: tier } : {}) }, price);
    // 900 plain + 100 cached at a tenth + 100 × 10: exactly at the bound the context is not long.
    expect(cost(1_000)).toEqual({ ok: true, value: 900 + 10 + 1_000 });
    expect(cost(1_000, "standard")).toEqual(cost(1_000));
    expect(cost(1_000, "batch")).toEqual({ ok: true, value: 450 + 5 + 500 });
    expect(cost(1_000, "flex")).toEqual(cost(1_000, "batch"));
    // What the tier has no price for costs as usual.
    expect(cost(1_000, "priority")).toEqual({ ok: true, value: 1_800 + 20 + 1_000 });
    expect(cost(1_100)).toEqual({ ok: true, value: 3_000 + 30 + 1_500 });
    expect(cost(1_100, "batch")).toEqual({ ok: true, value: 1_500 + 15 + 750 });
  });

  it("equals exact arithmetic for every price and count, and is refused at 2^53", () => {
    const amount = fc.integer({ min: 0, max: 1_000_000_000_000_000 });
    const count = fc.integer({ min: 0, max: 1_000_000_000 });
    fc.assert(
      fc.property(
        fc.tuple(amount, amount, amount, amount, amount),
        fc.tuple(count, count, count, count, count),
        (p, c) => {
          const price: Price = {
            ...gpt4oMini,
            input_micros_per_million: p[0],
            output_micros_per_million: p[1],
            cached_input_micros_per_million: p[2],
            cache_write_micros_per_million: p[3],
            reasoning_micros_per_million: p[4],
          };
          const usage = counts(c[0] + c[1] + c[2], c[3] + c[4], c[1], c[2], c[4]);
          const exact =
            (BigInt(c[0]) * BigInt(p[0]) +
              BigInt(c[1]) * BigInt(p[2]) +
              BigInt(c[2]) * BigInt(p[3]) +
              BigInt(c[3]) * BigInt(p[1]) +
              BigInt(c[4]) * BigInt(p[4]) +
              500_000n) /
            1_000_000n;
          const cost = costOf(usage, price);
          return exact > BigInt(Number.MAX_SAFE_INTEGER)
            ? !cost.ok && cost.error.code === "too_large"
            : cost.ok && BigInt(cost.value) === exact;
        },
      ),
    );
  });

  it("uses the price that was in force at the call's own time", () => {
    const prices = book([
      { ...gpt4oMini, effective_from: "2025-06-01T00:00:00+01:00", input_micros_per_million: 300_000 },
      gpt4oMini,
    ]);
    const million = counts(1_000_000, 0);
    const cost = (ms: number) => costOfCall(prices, "gpt-4o-mini", million, ms);
    expect(cost(at("2025-05-31"))).toMatchObject({
      ok: true,
      value: { cost_micros: 150_000, currency: "usd" },
    });
    expect(cost(Date.parse("2025-05-31T22:59:59.999Z"))).toMatchObject({ value: { cost_micros: 150_000 } });
    expect(cost(Date.parse("2025-05-31T23:00:00Z"))).toMatchObject({ value: { cost_micros: 300_000 } });
    expect(cost(at("2024-07-17"))).toMatchObject({ ok: false, error: { code: "not_priced_then" } });
    expect(costOfCall(prices, "gpt-9", million, at("2025-01-01"))).toMatchObject({
      ok: false,
      error: { code: "unknown_model" },
    });
    expect([providerOf(prices, "gpt-4o-mini", at("2025-01-01")), providerOf(prices, "gpt-9", 0)]).toEqual([
      "openai",
      null,
    ]);
  });
});

describe("a price list", () => {
  it.each<[string, unknown, string]>([
    ["is no list", {}, ""],
    ["holds no objects", [3], "[0]"],
    [
      "has a negative price",
      [{ ...gpt4oMini, input_micros_per_million: -1 }],
      "[0].input_micros_per_million",
    ],
    ["has a fraction", [{ ...gpt4oMini, output_micros_per_million: 0.5 }], "[0].output_micros_per_million"],
    ["has no currency", [{ ...gpt4oMini, currency: "dollars" }], "[0].currency"],
    ["has a local time", [{ ...gpt4oMini, effective_from: "2025-01-01T00:00:00" }], "[0].effective_from"],
    ["has no such day", [{ ...gpt4oMini, effective_from: "2025-02-31T00:00:00Z" }], "[0].effective_from"],
    ["prices a model twice", [gpt4oMini, gpt4oMini], "[1]"],
  ])("is refused with the place when it %s", (_name, input, path) => {
    const parsed = parsePrices(input);
    expect(parsed.ok ? null : parsed.error.map((problem) => problem.path)).toEqual([path]);
  });

  it("reads PostgreSQL's times too", () => {
    expect(parseInstant("2025-01-01 00:00:00+00")).toBe(at("2025-01-01"));
    expect(parseInstant("2025-01-01")).toBe(at("2025-01-01"));
  });
});

describe("a call that another model worked for", () => {
  const counts = (input: number, output: number) => {
    const made = makeCounts({ input, output });
    if (!made.ok) throw new Error(made.error.message);
    return made.value;
  };
  const book = parsePrices([gpt4oMini, { ...gpt4oMini, model: "dear", input_micros_per_million: 9_000_000 }]);
  if (!book.ok) throw new Error("prices");
  const { input_micros_per_million: plain, output_micros_per_million: output } = gpt4oMini;

  it("costs each part at its own model's price", () => {
    const cost = costOfCall(book.value, gpt4oMini.model, counts(1_000_000, 1_000_000), at("2026-01-01"), [
      { model: "dear", counts: counts(400_000, 0) },
    ]);
    expect(cost).toMatchObject({
      ok: true,
      value: { cost_micros: 0.6 * plain + 0.4 * 9_000_000 + output },
    });
  });

  it("has no cost where one of the models has no price", () => {
    const others = [{ model: "unheard of", counts: counts(1, 0) }];
    expect(costOfCall(book.value, gpt4oMini.model, counts(9, 0), at("2026-01-01"), others)).toMatchObject({
      ok: false,
      error: { code: "unknown_model" },
    });
  });
});

describe("units", () => {
  it("do not mix: tokens, micro-units and minor units are different types", () => {
    expectTypeOf<Tokens>().not.toEqualTypeOf<MicroUnits>();
    expectTypeOf<MicroUnits>().not.toExtend<MinorUnits>();
    expectTypeOf<Tokens>().not.toExtend<MicroUnits>();
    expectTypeOf<number>().not.toExtend<Tokens>();
    const spend = (amount: MicroUnits): MicroUnits => amount;
    // @ts-expect-error tokens are not money
    spend(tokens(1));
    // @ts-expect-error a bare number has no unit
    spend(1);
    expect(spend(microUnits(1))).toBe(1);
  });
});
