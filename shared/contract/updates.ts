/** Newer versions of this program: looked for, fetched, and put in place between two acts. */
import { z } from "zod";
import { done, failure, instant, nothing, operation } from "./basics.ts";

export const updateChannel = z.enum(["stable", "beta"]);
export type UpdateChannel = z.infer<typeof updateChannel>;

const updateState = z.object({
  /** off: this program is not updated from here; `why` gives the reason. ready: waits for the next start. */
  status: z.enum(["off", "idle", "checking", "downloading", "ready"]),
  why: z.string().nullable(),
  current: z.string(),
  channel: updateChannel,
  /** The version that is fetched or ready. */
  version: z.string().nullable(),
  /** Its part of the changelog, as text. */
  notes: z.string().nullable(),
  /** Of the download, 0 to 1. */
  progress: z.number().min(0).max(1).nullable(),
  checked_at: instant.nullable(),
  /** Earlier versions that one can go back to by hand, newest first. */
  earlier: z.array(z.string()),
  /** Chosen by hand: no other version is fetched until the newest is asked for again. */
  stays_at: z.string().nullable(),
  failure: failure.nullable(),
});
export type UpdateState = z.infer<typeof updateState>;

export const updatesOperations = {
  /** Looks for a newer version now, and fetches it. */
  "updates.check": operation(nothing, updateState),
  "updates.set_channel": operation(z.object({ channel: updateChannel }).strict(), updateState),
  /** Ends the program and starts the version that is ready; refused while something is under way. */
  "updates.restart": operation(nothing, done),
  /** Fetches an earlier version by hand and stays at it; null: the newest again. */
  "updates.stay_at": operation(z.object({ version: z.string().max(50).nullable() }).strict(), updateState),
} as const;

export const updatesStreams = {
  updates: { input: nothing, item: updateState },
} as const;
