import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  checkConfig,
  compareConfig,
  type ConfigKind,
  configWarnings,
  decimal,
  mergeConfig,
  presetRecords,
  readDecimal,
  stepsBetween,
  wholeRecord,
} from "./index.ts";

const around = { currency: "usd", plans: ["free", "pro"] };
const pro = wholeRecord("plan", "pro", { plan_id: "pro", name: "Pro", monthly_allowance: 500 }, "usd");
const wrong = (kind: ConfigKind, key: string, record: Record<string, unknown>): string[] =>
  checkConfig(kind, key, record, around).map(({ path }) => path);

describe("a record of the configuration", () => {
  it("is checked field by field, with what would mend it", () => {
    expect(wrong("plan", "pro", pro)).toEqual([]);
    expect(
      wrong("plan", "pro", { ...pro, monthly_allowance: -1, warn_at: [0], upgrade_to: "gold", name: "" }),
    ).toEqual(["name", "monthly_allowance", "warn_at", "upgrade_to"]);
    expect(wrong("pack", "p", { pack_id: "p", tokens: 0, price_minor: 1.5, currency: "dollars" })).toEqual([
      "tokens",
      "price_minor",
      "currency",
    ]);
    expect(
      wrong("price", "a/b@2026-02-30", {
        provider: "a",
        model: "b",
        effective_from: "2026-02-30",
        input_micros_per_million: 1,
        output_micros_per_million: 2,
        currency: "eur",
      }),
    ).toEqual(["effective_from", "currency"]);
    expect(wrong("setting", "hold_minutes", { key: "hold_minutes", value: 0 })).toEqual(["value"]);
    expect(wrong("setting", "operator_emails", { key: "operator_emails", value: ["nobody"] })).toEqual([
      "value",
    ]);
    // A setting of a newer project is kept as it is.
    expect(wrong("setting", "newer", { key: "newer", value: { any: ["thing"] } })).toEqual([]);
  });

  it("is warned of where it holds and may not be meant", () => {
    const now = new Date("2026-11-28T00:00:00Z");
    const free = { input_micros_per_million: 0, output_micros_per_million: 0, effective_from: "2026-01-01" };
    expect(configWarnings("price", free, null, now)).toHaveLength(2);
    expect(configWarnings("price", { ...free, input_micros_per_million: 1 }, free, now)).toEqual([]);
    expect(configWarnings("plan", { ...pro, daily_limit: 0 }, pro, now)).toHaveLength(1);
  });

  it("has its days as the project keeps them, however they were given", () => {
    const from = (given: string): unknown =>
      wholeRecord("price", "", { effective_from: given }, "usd")["effective_from"];
    expect(from("2025-09-29T00:00:00+00:00")).toBe("2025-09-29");
    expect(from("2025-09-29T02:00:00+02:00")).toBe("2025-09-29");
    expect(from("2025-09-29")).toBe("2025-09-29");
    expect(from("2025-09-29T08:00:00Z")).toBe("2025-09-29T08:00:00.000000Z");
  });

  it("says in words what changed, and nothing where it does the same", () => {
    expect(compareConfig("plan", "pro", pro, { ...pro, daily_limit: 100 }, "usd")).toEqual([
      { part: "Most tokens a day", removed: ["no limit"], added: ["100 tokens"] },
    ]);
    expect(compareConfig("plan", "pro", pro, { ...pro }, "usd")).toEqual([]);
    const words = (list: string[]) => ({ topic: "sport", words: list });
    expect(compareConfig("topic", "sport", words(["a", "b"]), words(["b", "c"]), "usd")).toEqual([
      { part: "Words and phrases", removed: ["a"], added: ["c"] },
    ]);
  });

  it("merges two persons' changes field by field; on the same field the one who decides wins", () => {
    const mine = { ...pro, monthly_allowance: 600 };
    const theirs = { ...pro, daily_limit: 50, monthly_allowance: 700 };
    expect(mergeConfig(mine, pro, theirs)).toEqual({ ...pro, daily_limit: 50, monthly_allowance: 600 });
  });

  it("writes money exactly, and reads what it wrote", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 9_000_000_000_000_000 }),
        fc.constantFrom(0, 2, 3, 6),
        (amount, places) => readDecimal(decimal(amount, places), places) === amount,
      ),
    );
    expect(readDecimal("1.255", 2)).toBeNull();
    expect(readDecimal("1e3", 2)).toBeNull();
    expect(readDecimal("1,250.50", 2)).toBe(125_050);
  });
});

describe("a preset", () => {
  const preset = {
    name: "small",
    currency: "USD",
    plans: [{ plan_id: "free" }],
    packs: [{ pack_id: "p", tokens: 10, price_minor: 1 }],
    settings: { hold_minutes: 5, topics: [{ topic: "sport", words: ["ball"] }], gone: null },
    prices: "none",
  };

  it("is read as records with what it leaves out filled in, whatever else is in it", () => {
    const records = presetRecords(preset);
    expect(records.map(({ kind, key }) => `${kind}:${key}`)).toEqual([
      "project:project",
      "plan:free",
      "pack:p",
      "topic:sport",
      "setting:hold_minutes",
    ]);
    expect(records[1]?.record).toMatchObject({ name: "free", monthly_allowance: 0, warn_at: [80, 90, 95] });
    expect(records[2]?.record).toMatchObject({ currency: "usd", plans: [] });
  });

  it("differs from itself in nothing, and names what is new, changed and retired", () => {
    const records = presetRecords(preset);
    expect(stepsBetween(records, records).every(({ step }) => step === "same")).toBe(true);
    const other = presetRecords({
      ...preset,
      packs: [],
      plans: [{ plan_id: "free", daily_limit: 9 }, { plan_id: "pro" }],
    });
    expect(
      stepsBetween(records, other)
        .filter(({ step }) => step !== "same")
        .map(({ step, key }) => `${step} ${key}`),
    ).toEqual(["changed free", "new pro", "retired p"]);
  });
});
