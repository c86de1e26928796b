/**
 * What every desk of the contract is made of: units, failures, and how an operation is written down.
 *
 * Records keep the field names of the database's functions, so that one word means one thing in SQL, in an API answer
 * and on the screen. Objects are open: a newer backend may add keys, and they pass through unread.
 */
import { z } from "zod";
import type { Result } from "../governance/result.ts";

/** A whole number that JSON carries exactly. */
export const whole = z.number().int();

export const tokens = whole;

/** ISO 8601 instant with offset. */
export const instant = z.string();

/** Why something could not be done, for a person: one sentence, and what to do. */
export const failure = z.object({
  /** Stable word, e.g. `offline`, `invalid_argument`, `version_conflict`, `wrong_key`. */
  code: z.string(),
  message: z.string(),
  /** What the person can do about it. */
  advice: z.string().nullable(),
  /** Technical details to copy into a ticket; never a secret. */
  details: z.string().nullable(),
});
export type Failure = z.infer<typeof failure>;

/** What every operation answers. */
export type Reply<T> = Result<T, Failure>;

export const userId = z.string().min(1).max(500);

export const commandId = z.uuid();

/** Operators give a reason with each action on a user; it is audited. */
export const reason = z.string().trim().min(3, "Give a reason of at least 3 characters.").max(1000);

export const nothing = z.object({}).strict();

export const done = z.object({}).loose();

export function operation<I extends z.ZodType, O extends z.ZodType>(input: I, output: O) {
  return { input, output };
}

export const decision = z.enum(["allow", "warn", "block"]);

export const ruleMode = z.enum(["enforce", "shadow", "off"]);
export type RuleMode = z.infer<typeof ruleMode>;
