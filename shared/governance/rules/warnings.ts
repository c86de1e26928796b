import { leavesOf } from "./evaluate.ts";
import { type FactName, facts } from "./facts.ts";
import type { Action, Condition, Leaf, Rule } from "./types.ts";
import { describeCondition, formatCount, type RuleNames } from "./words.ts";

/** What a number of a fact can be. Counts, money and tokens are never below zero. */
interface Range {
  readonly least: number;
  readonly most: number;
  readonly isWhole: boolean;
}

function rangeOf(fact: FactName): Range | null {
  const entry = facts[fact];
  if (entry.type !== "number") return null;
  const words = entry.words as object;
  if ("hour" in words) return { least: 0, most: 23, isWhole: true };
  if ("weekday" in words) return { least: 1, most: 7, isWhole: true };
  if ("score" in words) return { least: 0, most: 1, isWhole: false };
  return { least: 0, most: Number.POSITIVE_INFINITY, isWhole: fact !== "seconds_since_last_message" };
}

/** Whether a comparison holds for each number that the fact can be, or for none; null where it depends. */
function verdict({ fact, op, value }: Leaf): "any" | "none" | null {
  const range = rangeOf(fact);
  if (range === null) return null;
  const { least, most, isWhole } = range;
  const canBe = (number: number): boolean =>
    number >= least && number <= most && (!isWhole || Number.isInteger(number));
  const when = (any: boolean, none: boolean): "any" | "none" | null => (any ? "any" : none ? "none" : null);
  if (Array.isArray(value)) {
    const numbers = value as readonly number[];
    if (op === "between") {
      const [from = least, to = most] = numbers;
      const hasWhole = !isWhole || Math.ceil(Math.max(from, least)) <= Math.floor(Math.min(to, most));
      return when(from <= least && to >= most, to < least || from > most || !hasWhole);
    }
    const isNone = !numbers.some(canBe);
    return op === "in" ? when(false, isNone) : when(isNone, false);
  }
  if (typeof value !== "number") return null;
  switch (op) {
    case ">":
      return when(value < least, value >= most);
    case ">=":
      return when(value <= least, value > most);
    case "<":
      return when(value > most, value <= least);
    case "<=":
      return when(value >= most, value < least);
    case "=":
      return when(false, !canBe(value));
    default:
      return when(!canBe(value), false);
  }
}

function numbersOf(condition: Condition): Set<number> {
  const numbers = new Set<number>();
  for (const { value } of leavesOf(condition))
    for (const each of Array.isArray(value) ? (value as readonly unknown[]) : [value])
      if (typeof each === "number") numbers.add(each);
  return numbers;
}

const textsOf = (action: Action): string[] =>
  [action.block?.message, action.warn?.message, action.deflect?.message].filter((text) => text !== undefined);

/** Whether a text names a number by itself, with or without separators: 100 is not in "1,100" nor in "100.5". */
function names(text: string, number: number): boolean {
  const written = new Set([String(number), formatCount(number)]);
  return (text.match(/\d+(?:[.,]\d+)*/g) ?? []).some((found) => written.has(found));
}

/**
 * What is valid in a rule but may not be meant, a sentence each: conditions that any number meets, or none, and texts
 * for the user that still name a number which the rule had before.
 */
export function ruleWarnings(rule: Rule, before: Rule | null, ruleNames: RuleNames = {}): string[] {
  const warnings = new Set<string>();
  for (const leaf of leavesOf(rule.conditions)) {
    const met = verdict(leaf);
    if (met === null) continue;
    const words = describeCondition(leaf, ruleNames);
    warnings.add(
      met === "any"
        ? `Any number meets “${words}”: it leaves no call out.`
        : `No number meets “${words}”: no call can match it.`,
    );
  }
  if (before !== null) {
    const now = numbersOf(rule.conditions);
    for (const number of numbersOf(before.conditions))
      if (!now.has(number) && textsOf(rule.action).some((text) => names(text, number)))
        warnings.add(`The text for the user still names ${formatCount(number)}.`);
  }
  return [...warnings];
}
