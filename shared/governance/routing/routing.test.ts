import { describe, expect, it } from "vitest";
import {
  compileRules,
  describeRule,
  type Facts,
  hoursBetween,
  parseRule,
  routeAway,
  routeComplex,
  routeNearLimit,
  routeOffPeak,
  routeOverBudget,
} from "../index.ts";

/** The routing of row 000.4, as rules. */
const rules = [
  routeComplex({
    rule_name: "complex",
    model: "claude",
    plans: ["gold_plus"],
    from_complexity: 0.7,
    priority: 1,
  }),
  routeOffPeak({
    rule_name: "offpeak_routing",
    model: "gpt-4o-mini",
    plans: ["gold_plus"],
    from_hour: 2,
    until_hour: 6,
    priority: 2,
  }),
  routeNearLimit({ rule_name: "near_limit", model: "gpt-4o-mini", from_percent: 90, priority: 3 }),
  routeOverBudget({
    rule_name: "over_budget",
    model: "gpt-4o-mini",
    period: "month",
    from_micros: 5_000_000,
    priority: 4,
  }),
  routeAway({
    rule_name: "gold_never_claude",
    model: "gpt-4o-mini",
    plans: ["gold"],
    from_models: ["claude"],
    priority: 5,
  }),
];
const compiled = compileRules(rules);
const modelOf = (facts: Facts): string | null =>
  compiled.evaluate(facts, { plan: { monthly_allowance: null, daily_limit: null, monthly_limit: null } })
    .route ??
  facts.model ??
  null;

describe("routing by rules alone", () => {
  it.each<[Facts, string]>([
    [{ plan: "gold_plus", model: "gpt-4o", complexity: 0.7, hour_utc: 12 }, "claude"],
    [{ plan: "gold_plus", model: "gpt-4o", complexity: 0.69, hour_utc: 12 }, "gpt-4o"],
    [{ plan: "gold_plus", model: "gpt-4o", complexity: 0.1, hour_utc: 2 }, "gpt-4o-mini"],
    [{ plan: "gold_plus", model: "gpt-4o", complexity: 0.9, hour_utc: 5 }, "gpt-4o-mini"],
    [{ plan: "gold_plus", model: "gpt-4o", hour_utc: 6 }, "gpt-4o"],
    [{ plan: "gold", model: "claude", complexity: 0.9, hour_utc: 3 }, "gpt-4o-mini"],
    [{ plan: "free", model: "gpt-4o", usage_percent: 90 }, "gpt-4o-mini"],
    [{ plan: "free", model: "gpt-4o", cost_this_month_micros: 5_000_000 }, "gpt-4o-mini"],
    [{ plan: "free", model: "claude", usage_percent: 10 }, "claude"],
  ])("sends %j to %s", (facts, model) => {
    expect(modelOf(facts)).toBe(model);
  });

  it("makes rules that the parser takes and words can tell", () => {
    for (const rule of rules) expect(parseRule(JSON.parse(JSON.stringify(rule)))).toMatchObject({ ok: true });
    expect(describeRule(rules[1] as (typeof rules)[number])).toBe(
      "Use gpt-4o-mini when between 02:00 and 06:00 UTC, for gold_plus",
    );
  });

  it("has windows that run over midnight", () => {
    const night = compileRules([
      {
        ...(rules[1] as (typeof rules)[number]),
        applies_to: {},
        conditions: hoursBetween("hour_utc", 22, 4),
      },
    ]);
    const inside = Array.from({ length: 24 }, (_, hour) => hour).filter(
      (hour_utc) =>
        night.evaluate(
          { hour_utc },
          { plan: { monthly_allowance: null, daily_limit: null, monthly_limit: null } },
        ).route !== null,
    );
    expect(inside).toEqual([0, 1, 2, 3, 22, 23]);
    expect(() => hoursBetween("hour_utc", 1.5, 3)).toThrow(RangeError);
  });
});
