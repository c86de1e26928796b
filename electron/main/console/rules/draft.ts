/** A draft of a rule as it grows: what is wrong with it, and the sentence of what is there already. */
import type { RuleProblem } from "../../../../shared/contract/index.ts";
import { describeRule, parseRule, type RuleNames } from "../../../../shared/governance/rules/index.ts";

type Json = Readonly<Record<string, unknown>>;
const isObject = (value: unknown): value is Json =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** The conditions without those that problems are about; counts what was left out. */
function withoutProblems(
  condition: unknown,
  path: string,
  problems: readonly RuleProblem[],
  left: { out: number },
): unknown {
  if (!isObject(condition)) return null;
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

/** Every problem of a draft, and its sentence; what is not finished is shown as an ellipsis. */
export function checkDraft(
  draft: unknown,
  names: RuleNames,
): { problems: RuleProblem[]; sentence: string | null } {
  const parsed = parseRule(draft);
  if (parsed.ok) return { problems: [], sentence: describeRule(parsed.value, names) };
  // A field that nothing was written into yet.
  const problems = parsed.error.map((problem) =>
    problem.message.startsWith('"" is not')
      ? { ...problem, message: "A value is missing.", fix: "Write one." }
      : { ...problem },
  );
  if (!isObject(draft)) return { problems, sentence: null };
  const left = { out: 0 };
  const conditions = withoutProblems(draft["conditions"], "conditions", problems, left);
  const isActionWrong = problems.some((each) => each.path.startsWith("action"));
  const partly = parseRule({
    ...draft,
    rule_name: "draft",
    mode: "enforce",
    is_active: true,
    conditions: conditions ?? { all: [] },
    ...(isActionWrong ? { action: { warn: { message: "…" } } } : {}),
  });
  if (!partly.ok) return { problems, sentence: null };
  const sentence = describeRule(partly.value, names);
  const begun = isActionWrong ? sentence.replace(/^Warn/, "…") : sentence;
  return { problems, sentence: left.out > 0 ? `${begun.replace(/ always$/, " when")} …` : begun };
}
