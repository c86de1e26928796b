import { isRecord } from "../values.ts";
import { describeAction, describeCondition, type RuleNames } from "./words.ts";
import type { Condition, Rule } from "./types.ts";

/** What changed of one part of a rule, in words; an empty side: there was nothing, or nothing is left. */
export interface RuleDifference {
  readonly part: "when" | "then" | "for" | "mode" | "priority" | "kind" | "description";
  readonly removed: readonly string[];
  readonly added: readonly string[];
}

/** A rule as a version keeps it. */
export type ComparedRule = Omit<Rule, "version"> & { readonly description?: string | null };

/** JSON with keys in order, so that equal values have equal texts however they were written. */
export function canonicalJson(value: unknown): string {
  return (
    JSON.stringify(value, (_key, inner: unknown) =>
      isRecord(inner)
        ? Object.fromEntries(Object.entries(inner).toSorted(([a], [b]) => (a < b ? -1 : 1)))
        : inner,
    ) ?? "null"
  );
}

/** The conditions that must all hold, each in words: what people compare one by one. */
function linesOf(condition: Condition, names: RuleNames): readonly string[] {
  const children = "all" in condition ? condition.all : [condition];
  return children.length === 0 ? ["always"] : children.map((child) => describeCondition(child, names));
}

/** The action part by part, with the text that users read. */
function effectsOf(rule: ComparedRule): readonly string[] {
  const { action } = rule;
  return (Object.keys(action) as (keyof typeof action)[]).map((kind) => {
    const effect = action[kind] as { readonly reason?: string; readonly message?: string };
    const said = [effect.reason, effect.message === undefined ? undefined : `“${effect.message}”`].filter(
      (part) => part !== undefined,
    );
    return `${describeAction({ [kind]: action[kind] })}${said.length > 0 ? ` (${said.join(", ")})` : ""}`;
  });
}

function audienceOf({ applies_to: { plans = [], scopes = [] } }: ComparedRule, names: RuleNames): string {
  const parts = [...plans.map((id) => names.plans?.[id] ?? id), ...scopes.map((id) => `scope ${id}`)];
  return parts.length === 0 ? "every call" : parts.join(", ");
}

const modeOf = (rule: ComparedRule): string => (rule.is_active ? rule.mode : "off");

function differing(
  part: RuleDifference["part"],
  before: readonly string[],
  after: readonly string[],
): readonly RuleDifference[] {
  const removed = before.filter((line) => !after.includes(line));
  const added = after.filter((line) => !before.includes(line));
  return removed.length + added.length === 0 ? [] : [{ part, removed, added }];
}

const given = (text: string | null | undefined): readonly string[] => (text ? [text] : []);

/** What changed between two versions of a rule, part by part; empty where they do the same. */
export function compareRules(
  before: ComparedRule,
  after: ComparedRule,
  names: RuleNames = {},
): readonly RuleDifference[] {
  const isSame = (key: "conditions" | "action"): boolean =>
    canonicalJson(before[key]) === canonicalJson(after[key]);
  const found = [
    ...differing("mode", [modeOf(before)], [modeOf(after)]),
    ...differing("when", linesOf(before.conditions, names), linesOf(after.conditions, names)),
    ...differing("then", effectsOf(before), effectsOf(after)),
    ...differing("for", [audienceOf(before, names)], [audienceOf(after, names)]),
    ...differing("priority", [String(before.priority)], [String(after.priority)]),
    ...differing("kind", [before.rule_type], [after.rule_type]),
    ...differing("description", given(before.description), given(after.description)),
  ];
  // Words may leave out what still differs: it is shown as it is written.
  for (const [key, part] of [
    ["conditions", "when"],
    ["action", "then"],
  ] as const)
    if (!isSame(key) && !found.some((each) => each.part === part))
      found.push({ part, removed: [canonicalJson(before[key])], added: [canonicalJson(after[key])] });
  return found;
}

/** The fields of a rule that a person sets. */
const fields = [
  "rule_type",
  "conditions",
  "action",
  "priority",
  "mode",
  "is_active",
  "applies_to",
  "description",
] as const;

type Definition = Readonly<Record<string, unknown>>;

/** One person's change of a rule laid over another's: each field as that person set it, else as the other left it. */
export function mergeDefinitions(mine: Definition, base: Definition | null, theirs: Definition): Definition {
  const isMine = (field: string): boolean =>
    base === null || canonicalJson(mine[field] ?? null) !== canonicalJson(base[field] ?? null);
  return {
    ...mine,
    ...Object.fromEntries(fields.filter((field) => !isMine(field)).map((field) => [field, theirs[field]])),
  };
}

/** A place for a rule in the order: the priorities to set so that it comes right after `previous` (null: first). */
export function placeRule<R extends { readonly rule_name: string; readonly priority: number }>(
  ordered: readonly R[],
  name: string,
  previous: string | null,
): readonly { readonly rule_name: string; readonly priority: number }[] {
  const others = ordered.filter((rule) => rule.rule_name !== name);
  const at = previous === null ? 0 : others.findIndex((rule) => rule.rule_name === previous) + 1;
  const low = others[at - 1]?.priority ?? null;
  const high = others[at]?.priority ?? null;
  if (low === null) return [{ rule_name: name, priority: high === null ? 100 : high - 10 }];
  if (high === null) return [{ rule_name: name, priority: low + 10 }];
  if (high - low > 1) return [{ rule_name: name, priority: Math.floor((low + high) / 2) }];
  // No number is free in between: those after it make room.
  const moved: { rule_name: string; priority: number }[] = [{ rule_name: name, priority: low + 10 }];
  let last = low + 10;
  for (const rule of others.slice(at)) {
    if (rule.priority > last) break;
    last += 10;
    moved.push({ rule_name: rule.rule_name, priority: last });
  }
  return moved;
}
