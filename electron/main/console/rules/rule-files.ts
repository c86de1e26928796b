/** Files of rules: read, compared with what is in force, written. */
import { parse, stringify } from "yaml";
import type { Failure, RuleRecord, RuleStep } from "../../../../shared/contract/index.ts";
import { ruleDefinition } from "../../../../shared/contract/index.ts";
import { fail, ok, type Result } from "../../../../shared/governance/result.ts";
import {
  compareRules,
  type ComparedRule,
  describeRule,
  parseRule,
  type RuleNames,
} from "../../../../shared/governance/rules/index.ts";

const maximalRules = 500;

const unreadable = (message: string, details: string | null = null): Result<never, Failure> =>
  fail({
    code: "invalid_file",
    message,
    advice: "A file of rules is YAML or JSON: a rule, a list of rules, or a preset with rules.",
    details,
  });

/** The rules of a file, unchecked. */
export function readRuleFile(text: string): Result<readonly unknown[], Failure> {
  let content: unknown;
  try {
    // Aliases could make a small file endless.
    content = parse(text, { maxAliasCount: 0 });
  } catch (error) {
    return unreadable("The file is neither YAML nor JSON.", (error as Error).message.slice(0, 500));
  }
  if (typeof content !== "object" || content === null) return unreadable("The file holds no rules.");
  const held = "rules" in content ? content.rules : content;
  const list: readonly unknown[] = Array.isArray(held) ? held : [held];
  if (list.length === 0) return unreadable("The file holds no rules.");
  if (list.length > maximalRules) return unreadable(`The file holds more than ${maximalRules} rules.`);
  return ok(list);
}

const compared = (input: unknown): ComparedRule | null => {
  const parsed = parseRule(input);
  const description = (input as { readonly description?: unknown }).description;
  return parsed.ok
    ? { ...parsed.value, description: typeof description === "string" ? description : null }
    : null;
};

/** What each of these rules would change of those in force. */
export function compareWithRules(
  wanted: readonly unknown[],
  inForce: readonly RuleRecord[],
  names: RuleNames,
): RuleStep[] {
  const seen = new Set<string>();
  return wanted.map((input, index): RuleStep => {
    const parsed = parseRule(input);
    const given = (input ?? {}) as { readonly rule_name?: unknown; readonly description?: unknown };
    const rule_name = typeof given.rule_name === "string" ? given.rule_name : `rule ${index + 1}`;
    const wrong = { rule_name, kind: "wrong" as const, rule: null, sentence: null, difference: [] };
    if (!parsed.ok)
      return { ...wrong, problems: parsed.error.slice(0, 10).map((problem) => ({ ...problem })) };
    if (seen.has(rule_name))
      return {
        ...wrong,
        problems: [
          { path: "rule_name", message: "The file names this rule twice.", fix: "Give each its own name." },
        ],
      };
    seen.add(rule_name);
    const { version: _version, ...definition } = parsed.value;
    const description = typeof given.description === "string" ? given.description : undefined;
    const rule = { ...definition, ...(description === undefined ? {} : { description }) };
    const current = inForce.find((each) => each.rule_name === rule_name);
    const before = current ? compared(current) : null;
    const difference =
      before === null
        ? []
        : compareRules(before, { ...rule, description: description ?? null }, names).map((each) => ({
            part: each.part,
            removed: [...each.removed],
            added: [...each.added],
          }));
    return {
      rule_name,
      kind: !current ? "new" : difference.length === 0 && before !== null ? "same" : "changed",
      rule,
      sentence: describeRule(parsed.value, names),
      difference,
      problems: [],
    };
  });
}

/** The same where these rules would be all: whatever else is in force is retired. */
export function compareAsWhole(
  wanted: readonly unknown[],
  inForce: readonly RuleRecord[],
  names: RuleNames,
): RuleStep[] {
  const steps = compareWithRules(wanted, inForce, names);
  const named = new Set(steps.map((step) => step.rule_name));
  const retired = inForce
    .filter(({ rule_name }) => !named.has(rule_name))
    .map(({ rule_name }) => ({
      rule_name,
      kind: "retired" as const,
      rule: null,
      sentence: null,
      difference: [],
      problems: [],
    }));
  return [...steps, ...retired];
}

/** Rules as a YAML file, in the order in which they run. */
export function exportRules(
  rules: readonly RuleRecord[],
  now: Date,
): { readonly file_name: string; readonly text: string } {
  const [only] = rules.length === 1 ? rules : [];
  return {
    file_name: `${only ? `rule-${only.rule_name.replace(/[^\w-]+/g, "_")}` : "rules"}-${now.toISOString().slice(0, 10)}.yaml`,
    text: stringify({ rules: rules.map((rule) => ruleDefinition(rule)) }, { lineWidth: 120 }),
  };
}
