/** What happened to one account, and the proof of it. What was looked at is kept for when the project is away. */
import { historyOperations } from "../../../../shared/contract/index.ts";
import { ok } from "../../../../shared/governance/result.ts";
import { type DeskContext, readThrough } from "../desk-context.ts";
import type { Handlers } from "../dispatch.ts";

export function historyHandlers(desk: DeskContext): Pick<Handlers, keyof typeof historyOperations> {
  return {
    "users.history": async ({ user_id: userId, kinds, cursor, limit }) => {
      const answer = await readThrough(
        desk,
        `history:${userId}:${kinds?.join() ?? "all"}:${cursor ?? "newest"}:${limit}`,
        "console_account_history",
        { p_user_id: userId, p_filter: { kinds }, p_cursor: cursor, p_limit: limit },
        historyOperations["users.history"].output,
      );
      return answer.ok ? ok(answer.value.value) : answer;
    },

    "users.ledger": async ({ user_id: userId, filter, before_id: beforeId, limit }) => {
      const answer = await readThrough(
        desk,
        `ledger:${userId}:${JSON.stringify(filter)}:${beforeId ?? "newest"}:${limit}`,
        "console_account_ledger",
        { p_user_id: userId, p_filter: filter, p_before_id: beforeId, p_limit: limit },
        historyOperations["users.ledger"].output,
      );
      return answer.ok ? ok(answer.value.value) : answer;
    },

    // Never out of what was kept: a proof is of what is there now.
    "users.verify": ({ user_id: userId }) =>
      desk.connection.rpc("verify_ledger", { p_user_id: userId }, historyOperations["users.verify"].output, {
        retries: 1,
      }),
  };
}
