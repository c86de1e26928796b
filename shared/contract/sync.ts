/** Sync: acts of operators on their way to the project. */
import { z } from "zod";
import { actNames } from "./acts.ts";
import { failure, instant, nothing, operation, whole } from "./basics.ts";

/** An operator's act, kept durably until the project has acknowledged it. */
export const intent = z.object({
  command_id: z.string(),
  kind: z.enum(actNames),
  /** User id, rule name or the alert's number. */
  subject: z.string(),
  summary: z.string(),
  status: z.enum(["pending", "acknowledged", "conflict", "failed", "expired"]),
  created_at: instant,
  expires_at: instant,
  attempts: whole,
  failure: failure.nullable(),
  /** For a conflict: what the operator saw, wants, and what the project has now. */
  base: z.unknown(),
  mine: z.unknown(),
  theirs: z.unknown(),
});
export type Intent = z.infer<typeof intent>;

export const syncOperations = {
  "sync.intents": operation(nothing, z.array(intent)),
  /** Resolves a conflict or failure: send mine on top of theirs, or drop mine. */
  "sync.resolve": operation(
    z.object({ command_id: z.string(), choice: z.enum(["mine", "theirs"]) }).strict(),
    z.array(intent),
  ),
} as const;

export const syncStreams = {
  intents: { input: nothing, item: z.array(intent) },
} as const;
