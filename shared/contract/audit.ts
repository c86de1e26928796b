/** Audit: who did what to whom, when, why and from which machine. Append-only and sealed in the project. */
import { z } from "zod";
import { commandId, instant, operation, userId, whole } from "./basics.ts";
import { auditEntry } from "./users.ts";

export const auditRow = auditEntry.extend({
  display_name: z.string().nullable(),
  email: z.string().nullable(),
  rule_name: z.string().nullable(),
});
export type AuditRow = z.infer<typeof auditRow>;

const auditFilter = z
  .object({
    /** People alone, rules and upkeep alone, or both (null). */
    by: z.enum(["people", "rules"]).nullable(),
    operator: z.string().max(255).nullable(),
    device: z.string().max(255).nullish(),
    action: z.string().max(100).nullable(),
    user_id: userId.nullable(),
    /** From this moment, up to (not including) that one. */
    from: instant.nullable(),
    to: instant.nullable(),
  })
  .strict();
export type AuditFilter = z.infer<typeof auditFilter>;

/** What came of checking the log against its seals. */
export const auditCheck = z.looseObject({
  entries_checked: whole,
  seals: whole,
  problem_count: whole,
  /** The first 20: entries after `after_id` up to `upto` are not those that were sealed. */
  problems: z.array(
    z.looseObject({
      seal_id: whole.nullable(),
      sealed_at: instant.nullable(),
      after_id: whole,
      upto: whole,
      /** How many were sealed, and how many are there; null where the seal itself is gone. */
      entries: whole.nullable(),
      found: whole.nullable(),
    }),
  ),
  upto: whole.nullable(),
  /** The last seal. A copy kept elsewhere proves the log up to it. */
  hash: z.string().nullable(),
  /** The newest entries, not sealed yet. */
  unsealed: whole,
});
export type AuditCheck = z.infer<typeof auditCheck>;

export const auditOperations = {
  "audit.verify": operation(z.object({ command_id: commandId }).strict(), auditCheck),
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
