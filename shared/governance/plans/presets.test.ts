/** The preset files are the one source of prices, plans and rules: whatever they say, the core reads. */
import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { compileRules, costOfCall, describeRule, makeCounts, parsePrices, parseRules } from "../index.ts";

const folder = new URL("../../../supabase/presets/", import.meta.url);
const presets = readdirSync(folder).filter((file) => file.endsWith(".yaml"));

interface PresetFile {
  readonly currency: string;
  readonly prices?: readonly Record<string, unknown>[];
  readonly rules?: readonly Record<string, unknown>[];
  readonly plans: readonly { readonly plan_id: string; readonly name: string }[];
}
const read = (file: string): PresetFile => parse(readFileSync(new URL(file, folder), "utf8")) as PresetFile;

describe.each(presets)("%s", (file) => {
  const preset = read(file);

  it("has prices that the core reads and can charge by", () => {
    const prices = parsePrices(
      (preset.prices ?? []).map((price) => ({
        currency: preset.currency,
        effective_from: "1970-01-01",
        ...price,
      })),
    );
    if (!prices.ok) throw new Error(JSON.stringify(prices.error));
    // Less than a long context: that has a price of its own.
    const counts = makeCounts({ input: 100_000, output: 100_000 });
    if (!counts.ok) throw new Error("counts");
    for (const [model, dated] of prices.value.byModel) {
      const price = dated.at(-1);
      const cost = costOfCall(prices.value, model, counts.value, Date.UTC(2040, 0, 1));
      expect(cost, model).toMatchObject({
        ok: true,
        value: {
          cost_micros:
            ((price?.input_micros_per_million ?? -1) + (price?.output_micros_per_million ?? -1)) / 10,
        },
      });
    }
  });

  it("has rules that the core reads, runs and can put in words", () => {
    const rules = parseRules(preset.rules ?? []);
    if (!rules.ok) throw new Error(JSON.stringify(rules.error, null, 1));
    const names = {
      plans: Object.fromEntries(preset.plans.map((plan) => [plan.plan_id, plan.name])),
      currency: preset.currency,
    };
    for (const rule of rules.value) expect(describeRule(rule, names)).toMatch(/^[A-Z].{10,}/);
    expect(
      compileRules(rules.value).evaluate(
        {},
        { plan: { monthly_allowance: null, daily_limit: null, monthly_limit: null } },
      ).decision,
    ).toBe("allow");
  });
});
