import { describe, expect, it } from "vitest";
import { Dice, ruleSet } from "../../../tests/support/models/core-cases.ts";
import {
  compileRules,
  type Condition,
  type Facts,
  orderRules,
  type PlanNumbers,
  type Rule,
} from "../index.ts";

const plan: PlanNumbers = { monthly_allowance: 5_000, daily_limit: 1_000, monthly_limit: null };

/** The plain meaning of numeric leaves and groups, with none of the short cuts. */
function holds(condition: Condition, facts: Facts): boolean {
  if ("all" in condition) return condition.all.every((child) => holds(child, facts));
  if ("any" in condition) return condition.any.some((child) => holds(child, facts));
  if ("not" in condition) return !holds(condition.not, facts);
  const seen = facts[condition.fact];
  const { op } = condition;
  const value =
    typeof condition.value === "object" && "plan" in condition.value
      ? plan[condition.value.plan]
      : condition.value;
  if (typeof seen !== "number" || value === null) return false;
  const [low, high] = Array.isArray(value) ? (value as readonly number[]) : [];
  const one = value as number;
  switch (op) {
    case "=":
      return seen === one;
    case "!=":
      return seen !== one;
    case ">":
      return seen > one;
    case ">=":
      return seen >= one;
    case "<":
      return seen < one;
    case "<=":
      return seen <= one;
    case "in":
      return (value as unknown as readonly number[]).includes(seen);
    case "not_in":
      return !(value as unknown as readonly number[]).includes(seen);
    default:
      return seen >= (low ?? 0) && seen <= (high ?? 0);
  }
}

const numbers = [0, 1, 2, 3, 5, 0.2, 0.7, 300, 700, 1_000, 1_001, 2_500, 5_000, -1, Number.MAX_SAFE_INTEGER];
const names = [
  "tokens_today",
  "messages_today",
  "identical_messages",
  "complexity",
  "estimated_tokens",
  "available_tokens",
] as const;
const factsOf = (dice: Dice): Facts =>
  Object.fromEntries(
    names.flatMap((name) =>
      dice.chance(0.15) ? [] : [[name, dice.chance(0.1) ? null : dice.pick(numbers)]],
    ),
  );

function condition(dice: Dice, depth: number): Condition {
  if (depth > 0 && dice.chance(0.4)) {
    if (dice.chance(0.2)) return { not: condition(dice, depth - 1) };
    const children = Array.from({ length: dice.whole(0, 3) }, () => condition(dice, depth - 1));
    return dice.chance(0.6) ? { all: children } : { any: children };
  }
  const op = dice.pick(["=", "!=", ">", ">=", "<", "<=", "in", "not_in", "between"] as const);
  const fact = dice.pick(names);
  if (op === "between" || op === "in" || op === "not_in")
    return { fact, op, value: [dice.pick(numbers), dice.pick(numbers)] };
  return {
    fact,
    op,
    value: dice.chance(0.1)
      ? { plan: dice.pick(["daily_limit", "monthly_limit"] as const) }
      : dice.pick(numbers),
  };
}

describe("compiled rules", () => {
  it("match exactly what their conditions say, in order, for sets of every size", () => {
    const dice = new Dice(4);
    for (let turn = 0; turn < 300; turn++) {
      const rules = Array.from(
        { length: dice.pick([1, 5, 31, 32, 33, 70]) },
        (_, index): Rule => ({
          rule_name: `r${index}`,
          rule_type: "custom",
          conditions: condition(dice, 3),
          action: dice.chance(0.05) ? { block: { reason: "x" } } : { warn: { message: `m${index}` } },
          priority: dice.whole(0, 3),
          mode: dice.chance(0.8) ? "enforce" : "shadow",
          is_active: true,
          applies_to: {},
          version: 1,
        }),
      );
      const compiled = compileRules(rules);
      for (let each = 0; each < 10; each++) {
        const facts = factsOf(dice);
        const expected: string[] = [];
        for (const rule of orderRules(rules)) {
          if (!holds(rule.conditions, facts)) continue;
          expected.push(rule.rule_name);
          if (rule.mode === "enforce" && rule.action.block) break;
        }
        const outcome = compiled.evaluate(facts, { plan });
        const seen = new Set([...outcome.matched, ...outcome.shadow_matched].map((rule) => rule.rule_name));
        expect([...seen].toSorted(), JSON.stringify({ rules, facts })).toEqual(expected.toSorted());
      }
    }
  });

  it("decide the same with and without a trace, and the trace says the same", () => {
    const dice = new Dice(9);
    for (let turn = 0; turn < 400; turn++) {
      const compiled = compileRules(ruleSet(dice));
      const facts: Facts = {
        ...factsOf(dice),
        message: dice.pick(["hello", "buy now", null]),
        plan: dice.pick(["free", "gold"]),
        model: dice.pick(["gpt-4o", "mystery"]),
        provider: dice.pick(["openai", null]),
        is_flagged: dice.chance(0.3),
        topic: dice.pick(["homework", null]),
      };
      const context = { plan, providerOf: (model: string) => (model.startsWith("gpt") ? "openai" : null) };
      const { outcome, trace } = compiled.explain(facts, context);
      expect(compiled.evaluate(facts, context)).toEqual(outcome);
      const matched = [...outcome.matched, ...outcome.shadow_matched]
        .map((rule) => rule.rule_name)
        .toSorted();
      expect(
        trace
          .filter((line) => line.matched)
          .map((line) => line.rule_name)
          .toSorted(),
      ).toEqual(matched);
    }
  });
});
