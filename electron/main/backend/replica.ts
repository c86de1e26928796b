/**
 * Reads that may leave the primary. A read replica never writes, and Supabase's answers GET alone: so these functions
 * are asked by GET there. Acts go to the primary, and so does every read for a while after one: the replica may not
 * have it yet.
 */

/** Functions that only read, and whose answer may be a moment old. */
const replicaFunctions: ReadonlySet<string> = new Set([
  "calculate_user_token_usage",
  "console_account_decisions",
  "console_account_history",
  "console_account_ledger",
  "console_calls_before",
  "console_events_before",
  "console_ledger_purchases_since",
  "console_payments",
  "console_search",
  "console_search_accounts",
  "console_token_roll_forward",
  "console_token_stats",
  "console_usage_totals",
  "explain_decision",
  "get_user_transaction_history",
  "usage_events_since",
  "user_token_usage",
]);

/** How long after an act its effect may be missing on a replica that keeps up. */
export const settleMs = 10_000;
/** How long a replica that did not answer is left alone. */
export const restMs = 30_000;

interface ReplicaRoute {
  /** Whether this call may be asked of the replica now. */
  takes(name: string, nowMs: number): boolean;
  /** An act went to the primary. */
  acted(nowMs: number): void;
  /** The replica could not be asked. */
  failed(nowMs: number): void;
}

export function createReplicaRoute(): ReplicaRoute {
  let actedAtMs = Number.NEGATIVE_INFINITY;
  let failedAtMs = Number.NEGATIVE_INFINITY;
  // A feed's cursor from the primary may be ahead of the replica: once read there, it stays there.
  let feedStays = false;
  return {
    takes(name, nowMs) {
      if (!replicaFunctions.has(name)) return false;
      const mayRead = nowMs - failedAtMs >= restMs;
      if (name === "usage_events_since") {
        if (!mayRead) feedStays = true;
        return !feedStays;
      }
      return mayRead && nowMs - actedAtMs >= settleMs;
    },
    acted(nowMs) {
      actedAtMs = nowMs;
    },
    failed(nowMs) {
      failedAtMs = nowMs;
      feedStays = true;
    },
  };
}

/** Parameters as PostgREST reads them from an address: nothing for null, JSON for objects, `{…}` for arrays of texts. */
export function queryParameters(parameters: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(parameters)
      .filter(([, value]) => value !== null && value !== undefined)
      .map(([name, value]) => [
        name,
        Array.isArray(value)
          ? `{${value.map((item) => `"${String(item).replace(/["\\]/g, "\\$&")}"`).join(",")}}`
          : typeof value === "object"
            ? JSON.stringify(value)
            : value,
      ]),
  );
}
