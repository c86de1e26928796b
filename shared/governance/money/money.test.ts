import fc from "fast-check";
import { describe, expect, expectTypeOf, it } from "vitest";
import {
  currencyExponent,
  formatMicro,
  formatMinor,
  formatMoney,
  type MicroUnits,
  microUnits,
  type MinorUnits,
  minorUnits,
  normalizeCurrency,
  parseMajor,
  proRata,
  type Tokens,
  tokens,
} from "./index.ts";
import type { CallCost } from "../pricing/index.ts";
import type { PlanRevenue } from "../simulation/index.ts";
import type { UsageCounts } from "../usage/index.ts";

const value = (text: string, currency = "usd", decimal?: "." | ","): number | string => {
  const result = parseMajor(text, currency, decimal ? { decimal } : {});
  return result.ok ? result.value : result.error.code;
};

describe("parseMajor", () => {
  it.each([
    ["1,234.50", "usd", 123450],
    ["1.234,50", "EUR", 123450],
    ["1 234,50", "eur", 123450],
    ["1\u202f234,50", "eur", 123450],
    ["1'234.50", "chf", 123450],
    ["2", "gbp", 200],
    ["2.0", "gbp", 200],
    ["2,00", "gbp", 200],
    [".5", "usd", 50],
    ["-500.00", "jpy", -500],
    ["500", "JPY", 500],
    ["1,234", "usd", 123400],
    ["1,234,567", "jpy", 1234567],
    ["1.234.567", "eur", 123456700],
    ["1.234", "kwd", 1234],
    ["(12.00)", "usd", -1200],
    ["$1,234.56", "usd", 123456],
    ["US$1,234.56", "usd", 123456],
    ["($12.00)", "usd", -1200],
    ["-$12.00", "usd", -1200],
    ["$12.00", "cad", 1200],
    ["CA$12.00", "cad", 1200],
    ["1.234,56 €", "eur", 123456],
    ["€1.234,56", "eur", 123456],
    ["(12,00 €)", "eur", -1200],
    ["£5", "gbp", 500],
    ["12.00 usd", "usd", 1200],
    ["CHF 12.00", "chf", 1200],
    ["¥1,234", "jpy", 1234],
    ["\u221212.00", "usd", -1200],
    ["+12.00", "usd", 1200],
    ["-0.00", "usd", 0],
    ["0.100", "usd", 10],
    ["90071992547409.91", "usd", 9007199254740991],
    ["1,00,000.00", "inr", 10_000_000],
    ["₹12,34,56,789", "inr", 12_345_678_900],
    ["12.00-", "usd", -1200],
    ["1.234,50\u2212", "eur", -123450],
  ])("reads %s %s as %d", (text, currency, expected) => {
    expect(value(text, currency)).toBe(expected);
  });

  it.each([
    ["", "usd", "empty"],
    ["  ", "usd", "empty"],
    ["500.50", "jpy", "too_many_decimals"],
    ["1.005", "usd", "ambiguous_separator"],
    ["1.2345", "usd", "too_many_decimals"],
    ["1,234", "kwd", "ambiguous_separator"],
    ["1.2E+05", "usd", "scientific_notation"],
    ["NaN", "usd", "not_a_number"],
    ["0x10", "usd", "not_a_number"],
    ["12,34,56.00", "usd", "not_a_number"],
    ["1.2.3,4", "usd", "not_a_number"],
    ["1.00.000,00", "eur", "not_a_number"],
    ["1,00,00", "inr", "not_a_number"],
    ["-12.00-", "usd", "not_a_number"],
    ["(12.00-)", "usd", "not_a_number"],
    ["12.00+", "usd", "not_a_number"],
    ["-", "usd", "not_a_number"],
    ["1,2.3,4", "usd", "not_a_number"],
    ["--1", "usd", "not_a_number"],
    ["(-1)", "usd", "not_a_number"],
    [".", "usd", "not_a_number"],
    ["٣", "usd", "not_a_number"],
    ["90071992547409.92", "usd", "too_large"],
    ["1".repeat(65), "usd", "not_a_number"],
    ["$12.00", "gbp", "other_currency"],
    ["€12.00", "usd", "other_currency"],
    ["12.00 EUR", "usd", "other_currency"],
    ["(£12.00)", "usd", "other_currency"],
    ["CA$12.00", "usd", "other_currency"],
    ["$$12.00", "usd", "other_currency"],
    ["1", "dollars", "unknown_currency"],
    ["1", "", "unknown_currency"],
  ])("refuses %j %s: %s", (text, currency, expected) => {
    expect(value(text, currency)).toBe(expected);
  });

  it("lets the file's decimal sign settle what is ambiguous", () => {
    expect(value("1.234", "usd", ",")).toBe(123400);
    expect(value("1.230", "usd", ".")).toBe(123);
    expect(value("1,234", "kwd", ",")).toBe(1234);
    expect(value("1,234", "kwd", ".")).toBe(1234000);
    expect(value("1,234.50", "usd", ",")).toBe("ambiguous_separator");
  });

  it("reads back everything that formatMinor and formatMoney write", () => {
    fc.assert(
      fc.property(fc.maxSafeInteger(), fc.constantFrom("usd", "jpy", "kwd", "eur"), (amount, currency) => {
        const expected = { ok: true, value: amount === 0 ? 0 : amount };
        expect(parseMajor(formatMinor(amount, currency), currency, { decimal: "." })).toEqual(expected);
        const money = formatMoney(amount, currency).slice(0, -4);
        expect(parseMajor(money, currency, { decimal: "." })).toEqual(expected);
      }),
    );
  });

  it("never throws and never guesses, whatever the text", () => {
    fc.assert(
      fc.property(fc.string(), fc.string(), (text, currency) => {
        const result = parseMajor(text, currency);
        if (result.ok) expect(Number.isSafeInteger(result.value)).toBe(true);
        else expect(result.error.message).not.toBe("");
      }),
    );
  });
});

describe("micro-units", () => {
  it("are written exactly", () => {
    expect(formatMicro(2_500_000)).toBe("2.50");
    expect(formatMicro(150)).toBe("0.00015");
    expect(formatMicro(-1)).toBe("-0.000001");
  });
});

describe("currencies", () => {
  it("know their decimals in either case", () => {
    expect(currencyExponent("JPY")).toBe(0);
    expect(currencyExponent("kwd")).toBe(3);
    expect(currencyExponent("usd")).toBe(2);
    expect(normalizeCurrency(" USD ")).toBe("usd");
    expect(normalizeCurrency("US$")).toBeNull();
  });
});

describe("units", () => {
  it("refuse anything but safe whole numbers", () => {
    expect(() => minorUnits(1.5)).toThrow(RangeError);
    expect(() => tokens(2 ** 53)).toThrow(RangeError);
    expect(Object.is(minorUnits(-0), 0)).toBe(true);
  });

  it("cannot be mixed by the compiler", () => {
    expectTypeOf<MinorUnits>().not.toEqualTypeOf<Tokens>();
    expectTypeOf<MinorUnits>().not.toExtend<MicroUnits>();
    expectTypeOf<number>().not.toExtend<Tokens>();
    // Each line below must not compile; what must, does.
    // @ts-expect-error tokens are no money
    formatMoney(tokens(1), "usd");
    // @ts-expect-error micro-units are no minor units
    formatMinor(microUnits(1), "usd");
    // @ts-expect-error minor units are no micro-units
    formatMicro(minorUnits(1));
    // @ts-expect-error a plan's price is in minor units
    const revenue: PlanRevenue = { monthly_price_minor: microUnits(1), currency: "usd" };
    // @ts-expect-error counts are tokens, not money
    const counts: Pick<UsageCounts, "input_tokens"> = { input_tokens: microUnits(1) };
    // @ts-expect-error a cost is in micro-units
    const cost: MinorUnits = ({ cost_micros: microUnits(1) } as CallCost).cost_micros;
    // @ts-expect-error a sum has lost its unit, and must be said to be tokens again
    const sum: Tokens = tokens(1) + tokens(2);
    expect([
      formatMoney(minorUnits(100), "usd"),
      formatMinor(100, "usd"),
      formatMicro(microUnits(10_000)),
    ]).toEqual(["1.00 USD", "1.00", "0.01"]);
    expect([revenue, cost, sum, counts]).toHaveLength(4);
  });

  it("share a whole pro rata, rounded down and exact beyond 2^53", () => {
    expect(proRata(320_000, 50, 200)).toBe(80_000);
    expect(proRata(100, 1, 3)).toBe(33);
    expect(proRata(100, 5, 3)).toBe(100);
    expect(proRata(9_007_199_254_740_991, 1, 3)).toBe(3_002_399_751_580_330);
    fc.assert(
      fc.property(fc.nat(), fc.nat(), fc.integer({ min: 1 }), (amount, part, of) => {
        const expected = part >= of ? BigInt(amount) : (BigInt(amount) * BigInt(part)) / BigInt(of);
        expect(BigInt(proRata(amount, part, of))).toBe(expected);
      }),
    );
  });
});
