import { within } from "./rpc.ts";
import type { GuardOptions, QueuedSettlement } from "./types.ts";

type Options = Pick<GuardOptions, "client" | "name" | "now" | "timer" | "rpcTimeoutMs">;

/**
 * Tells the project what this backend owes it, so that its console can show it: the answer is called when that may have
 * changed. One report at a time; what cannot be sent now goes with the next change. Never rejects, and keeps nobody
 * waiting.
 */
export function queueReports(
  { client, name = "backend", now, timer, rpcTimeoutMs = 5_000 }: Options,
  owed: () => Promise<readonly QueuedSettlement[]>,
): () => void {
  let isBusy = false;
  let isAgain = false;
  /** Whether the project may believe that something is owed: after a report of an earlier process it does. */
  let isOwing = true;

  async function tell(): Promise<void> {
    const entries = await owed();
    const waiting = entries.filter((entry) => entry.parked === undefined);
    if (entries.length === 0 && !isOwing) return;
    const oldest = Math.min(...waiting.map((entry) => entry.queued_at_ms));
    const reply = await within(
      client.rpc("report_guard_queue", {
        p_backend: name,
        p_waiting: waiting.length,
        p_parked: entries.length - waiting.length,
        p_oldest_seconds: waiting.length > 0 ? Math.max(0, Math.round((now() - oldest) / 1000)) : null,
      }),
      rpcTimeoutMs,
      timer,
      null,
    );
    if (reply && !reply.error) isOwing = entries.length > 0;
  }

  return function changed(): void {
    if (isBusy) {
      isAgain = true;
      return;
    }
    isBusy = true;
    isAgain = false;
    // A project or a store that is away, or a project that does not have the function yet: the report is for a screen.
    void tell()
      .catch(() => undefined)
      .then(() => {
        isBusy = false;
        if (isAgain) changed();
      });
  };
}
