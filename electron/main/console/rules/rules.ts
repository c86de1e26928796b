/** The rules desk: what is set. */
import { z } from "zod";
import { type Failure, rule, type RuleRecord } from "../../../../shared/contract/index.ts";
import { fail, ok, type Result } from "../../../../shared/governance/result.ts";
import { type DeskContext, readThrough } from "../desk-context.ts";
import type { Handlers } from "../dispatch.ts";

const ruleList = z.array(rule);

const readRules = (desk: DeskContext) => readThrough(desk, "rules", "list_rules", {}, ruleList);

export function ruleHandlers(desk: DeskContext): Pick<Handlers, "rules.list"> {
  return {
    "rules.list": async () => {
      const answer = await readRules(desk);
      if (!answer.ok) return answer;
      return ok({ rules: answer.value.value, as_of: answer.value.as_of ?? desk.now().toISOString() });
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
