/** The rules' desk. */
import { z } from "zod";
import { rule, type RuleRecord } from "../../../../shared/contract/index.ts";
import { fail, ok } from "../../../../shared/governance/result.ts";
import { notConnected } from "../connection/connection.ts";
import { type Desk, readThrough } from "../desk.ts";
import type { Handlers } from "../dispatch.ts";

const ruleList = z.array(rule);

export function ruleHandlers(desk: Desk): Pick<Handlers, "rules.list" | "rules.set_mode"> {
  const { connection, outbox, store, now } = desk;

  const readRules = () => readThrough(desk, "rules", "list_rules", {}, ruleList);

  /** The rule in the version that the operator saw; from the project where the last list has another. */
  async function findRule(profileId: string, name: string, version: number): Promise<RuleRecord | null> {
    const kept = ruleList.safeParse(store.getSnapshot(profileId, "rules")?.value);
    const known = kept.success ? kept.data.find((one) => one.rule_name === name) : undefined;
    if (known?.version === version) return known;
    const fresh = await readRules();
    return (fresh.ok ? fresh.value.value.find((one) => one.rule_name === name) : undefined) ?? known ?? null;
  }

  return {
    "rules.list": async () => {
      const answer = await readRules();
      if (!answer.ok) return answer;
      return ok({ rules: answer.value.value, as_of: answer.value.as_of ?? now().toISOString() });
    },

    "rules.set_mode": async ({ command_id: commandId, rule_name: name, mode, expected_version: version }) => {
      const profileId = connection.profileId();
      if (profileId === null) return fail(notConnected);
      const base = await findRule(profileId, name, version);
      if (!base) {
        return fail({
          code: "not_found",
          message: `There is no rule ${name}.`,
          advice: "It may have been retired: refresh the list.",
          details: null,
        });
      }
      const mine = { ...base, mode };
      const acted = await outbox.submit(profileId, connection.backend(), {
        command_id: commandId,
        kind: "set_rule_mode",
        subject: name,
        summary: `Set ${name} to ${mode}`,
        payload: { p_rule: definition(mine), p_expected_version: version, p_operator: desk.operator() },
        base,
        mine,
      });
      if (!acted.ok) return acted;
      const { intent, answer } = acted.value;
      if (intent.status === "failed" && intent.failure) return fail(intent.failure);
      const saved = rule.safeParse(answer);
      return ok({ intent, rule: saved.success ? saved.data : null });
    },
  };
}

/** What save_rule takes of a rule as list_rules gives it. */
export function definition(one: RuleRecord): Readonly<Record<string, unknown>> {
  const { rule_name, rule_type, conditions, action, priority, mode, applies_to, description } = one;
  return {
    rule_name,
    rule_type,
    conditions,
    action,
    priority,
    mode,
    is_active: mode !== "off",
    applies_to,
    ...(description === undefined ? {} : { description }),
  };
}
