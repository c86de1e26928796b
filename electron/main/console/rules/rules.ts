/** The rules desk: what is set, what it was, what it hit. The core reads and compares; the screen draws. */
import { stringify } from "yaml";
import { z } from "zod";
import {
  type Failure,
  rule,
  type RuleChange,
  ruleHits,
  type RuleRecord,
  rulesOperations,
} from "../../../../shared/contract/index.ts";
import { fail, ok, type Result } from "../../../../shared/governance/result.ts";
import { compareRules, parseRule, type RuleNames } from "../../../../shared/governance/rules/index.ts";
import { type Answer, type DeskContext, readThrough, withWaiting } from "../desk-context.ts";
import type { Handlers } from "../dispatch.ts";
import { predictWaiting } from "./predict.ts";
import { compareAsWhole, compareWithRules, exportRules, readRuleFile } from "./rule-files.ts";

const ruleList = z.array(rule);
const pageSize = 50;

const readRules = (desk: DeskContext): Promise<Result<Answer<RuleRecord[]>, Failure>> =>
  readThrough(desk, "rules", "list_rules", {}, ruleList);

/** Names for sentences: the plans' own, and the project's currency. */
export function ruleNames(desk: DeskContext): RuleNames {
  const project = desk.connection.state().project;
  return {
    plans: Object.fromEntries((project?.plans ?? []).map((plan) => [plan.plan_id, plan.name])),
    ...(project?.currency ? { currency: project.currency } : {}),
  };
}

const version = z.looseObject({
  version_id: z.number(),
  rule_name: z.string(),
  version: z.number(),
  rule: z.looseObject({ rule_name: z.string() }),
  at: z.string(),
  by: z.string().nullable(),
  reason: z.string().nullable(),
  is_retired: z.boolean(),
});
const changesAnswer = z.looseObject({
  changes: z.array(version.extend({ before: version.nullable() })),
  latest_version_id: z.number().nullable(),
});

/** What a version changed, in words; null for a rule that was not there before. */
function differenceOf(
  { rule: after, before, is_retired }: z.output<typeof changesAnswer>["changes"][number],
  names: RuleNames,
): RuleChange["difference"] {
  if (is_retired) return [];
  if (before === null || before.is_retired) return null;
  const [was, is] = [parseRule(before.rule), parseRule(after)];
  if (!was.ok || !is.ok) return [];
  const described = (parsed: typeof is.value, from: Readonly<Record<string, unknown>>) => ({
    ...parsed,
    description: typeof from["description"] === "string" ? from["description"] : null,
  });
  return compareRules(described(was.value, before.rule), described(is.value, after), names).map((each) => ({
    part: each.part,
    removed: [...each.removed],
    added: [...each.added],
  }));
}

type RuleHandlers = Pick<
  Handlers,
  Exclude<
    keyof typeof rulesOperations,
    "rules.set_mode" | "rules.save" | "rules.retire" | "rules.replay_start" | "rules.replay_cancel"
  >
>;

async function listRules(desk: DeskContext): Promise<Awaited<ReturnType<Handlers["rules.list"]>>> {
  const answer = await readRules(desk);
  if (!answer.ok) return answer;
  const { value: rules, as_of: asOf } = answer.value;
  if (asOf === null) return ok({ rules, as_of: desk.now().toISOString() });
  const done = withWaiting(desk, "rule");
  return ok({ rules: rules.map((rule) => done(rule.rule_name, rule)), as_of: asOf });
}

export function ruleHandlers(desk: DeskContext): RuleHandlers {
  const { connection } = desk;
  return {
    "rules.list": () => listRules(desk),
    "rules.predict": ({ rule_name }) => predictWaiting(desk, rule_name),
    "rules.changes": async ({ rule_name, before }) => {
      const answer = await readThrough(
        desk,
        `rule-changes:${rule_name ?? ""}:${before ?? ""}`,
        "console_rule_changes",
        { p_rule_name: rule_name, p_before: before, p_limit: pageSize },
        changesAnswer,
      );
      if (!answer.ok) return answer;
      const { changes, latest_version_id } = answer.value.value;
      const names = ruleNames(desk);
      return ok({
        changes: changes.map((change) => ({ ...change, difference: differenceOf(change, names) })),
        has_more: changes.length === pageSize,
        latest_version_id,
        as_of: answer.value.as_of ?? desk.now().toISOString(),
      });
    },
    "rules.as_of": async ({ version_id }) => {
      const [then, now, latest] = await Promise.all([
        connection.rpc("console_rules_as_of", { p_version_id: version_id }, z.array(z.unknown()), {
          retries: 1,
        }),
        readRules(desk),
        connection.rpc("console_rule_changes", { p_limit: 1 }, changesAnswer, { retries: 1 }),
      ]);
      if (!then.ok) return then;
      if (!now.ok) return now;
      if (!latest.ok) return latest;
      return ok({
        steps: compareAsWhole(then.value, now.value.value, ruleNames(desk)),
        latest_version_id: latest.value.latest_version_id ?? 0,
      });
    },
    "rules.restore": async ({ command_id, version_id, expected_version_id, reason }) => {
      const answer = await connection.rpc(
        "console_restore_rules",
        {
          p_command_id: command_id,
          p_version_id: version_id,
          p_expected_version_id: expected_version_id,
          p_reason: reason,
          p_operator: desk.operator(),
        },
        z.object({ changed: z.array(z.string()) }),
        { retries: 3 },
      );
      if (answer.ok) connection.wake();
      return answer;
    },
    "rules.read_file": async ({ text }) => {
      const read = readRuleFile(text);
      if (!read.ok) return read;
      const now = await readRules(desk);
      if (!now.ok) return now;
      return ok(compareWithRules(read.value, now.value.value, ruleNames(desk)));
    },
    "rules.export": async ({ rule_name }) => {
      const answer = await readRules(desk);
      if (!answer.ok) return answer;
      const rules = answer.value.value.filter((each) => rule_name === null || each.rule_name === rule_name);
      return ok(exportRules(rules, desk.now()));
    },
    "rules.export_preset": async () => {
      const answer = await connection.rpc(
        "console_preset",
        {},
        z.looseObject({ name: z.string().nullable() }),
        { retries: 1 },
      );
      if (!answer.ok) return answer;
      const name = (answer.value.name ?? "preset").replace(/[^\w-]+/g, "_");
      return ok({
        file_name: `${name}-${desk.now().toISOString().slice(0, 10)}.yaml`,
        text: stringify(answer.value, { lineWidth: 120 }),
      });
    },
    "rules.hits": async ({ rule_name }) => {
      const answer = await readThrough(
        desk,
        `rule-hits:${rule_name}`,
        "console_rule_hits",
        { p_rule_name: rule_name },
        ruleHits,
      );
      return answer.ok ? ok(answer.value.value) : answer;
    },
    "rules.calls": async ({ rule_name, from, to, before }) => {
      const answer = await connection.rpc(
        "console_rule_calls",
        { p_rule_name: rule_name, p_from: from, p_to: to, p_before: before, p_limit: pageSize },
        rulesOperations["rules.calls"].output.omit({ has_more: true }),
        { retries: 1, timeoutMs: 30_000 },
      );
      return answer.ok ? ok({ ...answer.value, has_more: answer.value.calls.length === pageSize }) : answer;
    },
  };
}

/** The rule in the version that the operator saw; from the project where the last list has another. */
export async function findRule(
  desk: DeskContext,
  profileId: string,
  name: string,
  version: number,
): Promise<Result<RuleRecord, Failure>> {
  const kept = ruleList.safeParse(desk.store.getSnapshot(profileId, "rules")?.value);
  const known = kept.success ? kept.data.find((one) => one.rule_name === name) : undefined;
  if (known?.version === version) return ok(known);
  const fresh = await readRules(desk);
  const found = (fresh.ok ? fresh.value.value.find((one) => one.rule_name === name) : undefined) ?? known;
  return found
    ? ok(found)
    : fail({
        code: "not_found",
        message: `There is no rule ${name}.`,
        advice: "It may have been retired: refresh the list.",
        details: null,
      });
}
