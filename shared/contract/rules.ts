/** Rules: what is set, and which mode each is in. */
import { z } from "zod";
import { actOperations } from "./acts.ts";
import { instant, nothing, operation, ruleMode, whole } from "./basics.ts";
import { intent } from "./sync.ts";

export const rule = z.looseObject({
  rule_name: z.string(),
  rule_type: z.string(),
  /** Checked by shared/governance's rule parser, not here. */
  conditions: z.unknown(),
  action: z.unknown(),
  priority: whole,
  mode: ruleMode,
  is_active: z.boolean(),
  applies_to: z.looseObject({ plans: z.array(z.string()).nullish(), scopes: z.array(z.string()).nullish() }),
  version: whole,
  description: z.string().nullish(),
  updated_at: instant,
  updated_by: z.string().nullable(),
  /** Calls that any version of it matched in the last 24 hours, enforced or in shadow. */
  matches_24h: whole.nullish(),
});
export type RuleRecord = z.infer<typeof rule>;

const actedOnRule = z.object({ intent, rule: rule.nullable() });

export const rulesOperations = {
  "rules.list": operation(nothing, z.object({ rules: z.array(rule), as_of: instant })),
  ...actOperations("rule", actedOnRule),
} as const;
