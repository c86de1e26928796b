import { expect, test } from "vitest";
import { type NumberFact, numberFacts } from "./facts.ts";
import type { Condition, Leaf, Rule } from "./types.ts";
import { ruleWarnings } from "./warnings.ts";

const rule = (conditions: Condition, message = "Slow down."): Rule => ({
  rule_name: "r",
  rule_type: "custom",
  conditions,
  action: { block: { reason: "rate_limited", message } },
  priority: 1,
  mode: "enforce",
  is_active: true,
  version: 1,
  applies_to: {},
});
const leaf = (fact: NumberFact, op: Leaf["op"], value: Leaf["value"]): Leaf => ({ fact, op, value });
const warningOf = (one: Leaf): string[] => ruleWarnings(rule({ all: [one] }), null);

test("a condition that any number meets, or none, is named", () => {
  expect(warningOf(leaf("messages_today", ">", -1))).toEqual([
    "Any number meets “more than -1 message a day”: it leaves no call out.",
  ]);
  expect(warningOf(leaf("tokens_today", "<", 0))).toEqual([
    "No number meets “fewer than 0 tokens used today”: no call can match it.",
  ]);
  expect(warningOf(leaf("messages_today", "=", 1.5))).toHaveLength(1);
  expect(warningOf(leaf("complexity", "=", 0.5))).toEqual([]);
  expect(warningOf(leaf("messages_today", ">", 100))).toEqual([]);
});

test("what is said of a comparison is so for every number that the fact can be", () => {
  const values = [-1, 0, 0.5, 1, 3, 7, 7.5, 23, 24, 1e9];
  const compare: Partial<Record<Leaf["op"], (one: number, other: number) => boolean>> = {
    ">": (one, other) => one > other,
    ">=": (one, other) => one >= other,
    "<": (one, other) => one < other,
    "<=": (one, other) => one <= other,
    "=": (one, other) => one === other,
    "!=": (one, other) => one !== other,
  };
  const seen = new Set<string>();
  for (const fact of numberFacts) {
    const whole = Array.from({ length: 24 }, (_, n) => n);
    const possible = fact.startsWith("hour_")
      ? whole
      : fact === "weekday_local"
        ? whole.slice(1, 8)
        : fact === "complexity"
          ? [0, 0.25, 0.5, 1]
          : fact === "seconds_since_last_message"
            ? [...whole, 0.5, 7.5, 24, 1e9, 1e12]
            : [...whole, 24, 1e9, 1e12];
    const check = (one: Leaf, holds: (number: number) => boolean): void => {
      const met = possible.filter(holds).length;
      const right = met === possible.length ? "Any" : met === 0 ? "No" : "nothing";
      expect([one, warningOf(one)[0]?.split(" ")[0] ?? "nothing"]).toEqual([one, right]);
      seen.add(`${one.op} ${right}`);
    };
    for (const value of values)
      for (const [op, holds] of Object.entries(compare))
        check(leaf(fact, op as Leaf["op"], value), (number) => holds(number, value));
    for (const from of values)
      for (const to of values.filter((each) => each >= from)) {
        check(leaf(fact, "between", [from, to]), (number) => number >= from && number <= to);
        check(leaf(fact, "in", [from, to]), (number) => number === from || number === to);
        check(leaf(fact, "not_in", [from, to]), (number) => number !== from && number !== to);
      }
  }
  for (const op of [">", ">=", "<", "<=", "between"]) expect(seen).toContain(`${op} No`);
  for (const op of [">", ">=", "<", "<=", "between", "!=", "not_in"]) expect(seen).toContain(`${op} Any`);
});

test("a text for the user that names a number which the rule no longer has is named, and no other", () => {
  const over = (limit: number, message: string): Rule =>
    rule({ all: [leaf("messages_today", ">", limit)] }, message);
  const warned = (message: string, from = 1000, to = 2000): string[] =>
    ruleWarnings(over(to, message), over(from, message));
  for (const message of ["More than 1000 a day.", "More than 1,000 a day.", "1000"])
    expect(warned(message)).toEqual(["The text for the user still names 1,000."]);
  for (const message of ["More than 2,000 a day.", "11000 or 1,000.5 or 10000", "Slow down."])
    expect(warned(message)).toEqual([]);
  expect(warned("More than 1000 a day.", 1000, 1000)).toEqual([]);
});
