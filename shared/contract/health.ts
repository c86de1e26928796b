/** Health: whether all is well, and what to do where it is not. The same checks as `npm run doctor`. */
import { z } from "zod";
import { commandId, instant, nothing, operation, tokens, whole } from "./basics.ts";

const healthCheck = z.looseObject({
  /** Stable name, such as `upkeep` or `doors`. */
  check: z.string(),
  ok: z.boolean(),
  found: z.string(),
  /** What to do; null where all is well. */
  advice: z.string().nullable(),
});
export type HealthCheck = z.infer<typeof healthCheck>;

/** What console_health answers. */
export const health = z.looseObject({
  checks: z.array(healthCheck),
  server_time: instant,
  /** Bytes of the largest tables. */
  sizes: z.record(z.string(), z.number()).nullable(),
});

/** A proof of the whole ledger. */
const verification = z.looseObject({
  accounts_checked: whole,
  entries_checked: whole,
  problem_count: whole,
  /** The first 20. */
  problems: z.array(z.looseObject({ problem: z.string().optional(), user_id: z.string().nullish() })),
});

/** What console_health_details answers: the figures behind the checks. */
export const healthDetails = z.looseObject({
  /** Rounds of upkeep, newest first. */
  runs: z.array(
    z.looseObject({
      run_id: whole,
      started_at: instant,
      milliseconds: whole,
      /** What it did, by name; what it did not do is left out. */
      counts: z.record(z.string(), z.unknown()),
    }),
  ),
  deliveries: z.looseObject({
    queued: whole,
    due: whole,
    oldest_due_at: instant.nullable(),
    failed: whole,
    sent_today: whole,
    last_sent_at: instant.nullable(),
  }),
  /** What backends' guards owe, by the last report of each; at most 50. Missing from what an older version kept. */
  guards: z
    .array(
      z.looseObject({
        backend: z.string(),
        waiting: whole,
        parked: whole,
        oldest_at: instant.nullable(),
        reported_at: instant,
      }),
    )
    .default([]),
  /** Open holds by age. */
  holds: z.array(
    z.looseObject({
      from_seconds: whole,
      /** Null: any age above. */
      to_seconds: whole.nullable(),
      holds: whole,
      tokens,
      /** Past their end. */
      expired: whole,
    }),
  ),
  /** Holds past their end for five minutes, and settlements that wait for a person. */
  waiting: z.array(
    z.looseObject({
      request_id: z.string(),
      decision_id: whole,
      user_id: z.string(),
      display_name: z.string().nullable(),
      status: z.string(),
      model: z.string().nullable(),
      reserved_tokens: tokens,
      created_at: instant,
    }),
  ),
  partitions: z.array(z.looseObject({ name: z.string(), bytes: whole, is_default: z.boolean() })),
  rules: z.looseObject({ in_force: whole, in_shadow: whole, compiled_at: instant.nullable() }),
  /** The last proof that somebody asked for; null: none within the time that the audit is searched. */
  verified: verification.extend({ at: instant, operator: z.string().nullable() }).nullable(),
  anchored_at: instant.nullable(),
  database_bytes: whole,
  /** By mean time, in milliseconds; null where they are not measured. */
  slow_functions: z
    .array(z.looseObject({ function: z.string(), calls: whole, mean_ms: z.number(), max_ms: z.number() }))
    .nullable(),
  slow_functions_reason: z.string().nullable(),
});
export type HealthDetails = z.infer<typeof healthDetails>;

export const healthOperations = {
  /** All checks, those of this machine among them, and the figures behind them. */
  "health.get": operation(
    nothing,
    z.object({
      checks: z.array(healthCheck),
      sizes: z.record(z.string(), z.number()).nullable(),
      details: healthDetails,
      as_of: instant.nullable(),
    }),
  ),
  /** Verifies the whole ledger now; kept in the audit under the operator's name. Takes as long as it takes. */
  "health.verify_ledger": operation(z.object({ command_id: commandId }).strict(), verification),
} as const;
