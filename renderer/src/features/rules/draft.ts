/** A draft of a rule as it grows: what is wrong with it, and the sentence of what is there already. */
import type { RuleProblem } from "../../../../shared/contract/rules.ts";
import {
  describeRule,
  parseRule,
  type Rule,
  type RuleNames,
} from "../../../../shared/governance/rules/index.ts";
import { isRecord } from "../../../../shared/governance/values.ts";

type Json = Readonly<Record<string, unknown>>;

/** The conditions without those that problems are about; counts what was left out. */
function withoutProblems(
  condition: unknown,
  path: string,
  problems: readonly RuleProblem[],
  left: { out: number },
): unknown {
  if (!isRecord(condition)) return null;
  for (const kind of ["all", "any"] as const) {
    const children = condition[kind];
    if (!Array.isArray(children)) continue;
    const kept = children
      .map((child, index) => withoutProblems(child, `${path}.${kind}[${index}]`, problems, left))
      .filter((child) => child !== null);
    return children.length > 0 && kept.length === 0 ? null : { [kind]: kept };
  }
  if ("not" in condition) {
    const inner = withoutProblems(condition["not"], `${path}.not`, problems, left);
    return inner === null ? null : { not: inner };
  }
  const isWrong = problems.some((each) => each.path === path || each.path.startsWith(`${path}.`));
  if (isWrong) left.out += 1;
  return isWrong ? null : condition;
}

interface ReadDraft {
  /** Null where there are problems. */
  readonly rule: Rule | null;
  readonly problems: readonly RuleProblem[];
  /** What is not finished is shown as an ellipsis. */
  readonly sentence: string;
}

/** Every problem of a draft, and its sentence. */
export function readDraft(draft: Json, names: RuleNames): ReadDraft {
  const parsed = parseRule(draft);
  if (parsed.ok) return { rule: parsed.value, problems: [], sentence: describeRule(parsed.value, names) };
  // A field that nothing was written into yet.
  const problems = parsed.error.map((problem) =>
    problem.message.startsWith('"" is not')
      ? { ...problem, message: "A value is missing.", fix: "Write one." }
      : { ...problem },
  );
  const left = { out: 0 };
  const kept = withoutProblems(draft["conditions"], "conditions", problems, left);
  const isActionWrong = problems.some((each) => each.path.startsWith("action"));
  const partly = parseRule({
    ...draft,
    rule_name: "draft",
    mode: "enforce",
    is_active: true,
    conditions: kept ?? { all: [] },
    ...(isActionWrong ? { action: { warn: { message: "…" } } } : {}),
  });
  if (!partly.ok) return { rule: null, problems, sentence: "…" };
  const gaps = { action: isActionWrong, conditions: left.out > 0 };
  return { rule: null, problems, sentence: describeRule(partly.value, names, gaps) };
}
