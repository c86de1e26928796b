/** Audit: who did what to whom, when and why. Append-only in the project. */
import { z } from "zod";
import { instant, operation, userId, whole } from "./basics.ts";
import { auditEntry } from "./users.ts";

export const auditRow = auditEntry.extend({
  display_name: z.string().nullable(),
  email: z.string().nullable(),
  rule_name: z.string().nullable(),
});
export type AuditRow = z.infer<typeof auditRow>;

export const auditFilter = z
  .object({
    /** People alone, rules and upkeep alone, or both (null). */
    by: z.enum(["people", "rules"]).nullable(),
    operator: z.string().max(255).nullable(),
    action: z.string().max(100).nullable(),
    user_id: userId.nullable(),
    /** From this moment, up to (not including) that one. */
    from: instant.nullable(),
    to: instant.nullable(),
  })
  .strict();
export type AuditFilter = z.infer<typeof auditFilter>;

export const auditOperations = {
  "audit.list": operation(
    z
      .object({ filter: auditFilter, before_id: whole.nullable(), limit: z.number().int().min(1).max(1000) })
      .strict(),
    z.looseObject({
      entries: z.array(auditRow),
      next_before_id: whole.nullable(),
      as_of: instant.nullable(),
    }),
  ),
} as const;
