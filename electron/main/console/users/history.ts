/** What happened to one account, and the proof of it. What was looked at is kept for when the project is away. */
import { z } from "zod";
import { type Failure, historyOperations } from "../../../../shared/contract/index.ts";
import { fail, ok, type Result } from "../../../../shared/governance/result.ts";
import { type DeskContext, readThrough } from "../desk-context.ts";
import type { Handlers } from "../dispatch.ts";

const statementPage = z.array(z.looseObject({ transaction_id: z.number().int() }));
const statementPageSize = 500;
/** What fits into a file that a screen hands over; longer ones are written by the command. */
const mostStatementPages = 200;

async function readStatement(
  { connection }: DeskContext,
  userId: string,
): Promise<Result<z.output<(typeof historyOperations)["users.statement"]["output"]>, Failure>> {
  const project = connection.current();
  // The project answers the newest first; a statement begins with the oldest.
  const pages: z.output<typeof statementPage>[] = [];
  for (let before: number | null = null; ; ) {
    if (pages.length >= mostStatementPages)
      return fail({
        code: "too_large",
        message: "This ledger is too long for one file from here.",
        advice: `Write it with npm run statement -- --user ${JSON.stringify(userId)} --url <project>.`,
        details: null,
      });
    const answer = await project.rpc(
      "get_user_transaction_history",
      { p_user_id: userId, p_limit: statementPageSize, p_before_id: before },
      statementPage,
      { retries: 3, timeoutMs: 60_000 },
    );
    if (!answer.ok) return answer;
    const page: z.output<typeof statementPage> = answer.value;
    pages.push(page);
    before = page.at(-1)?.transaction_id ?? null;
    if (page.length < statementPageSize || before === null) break;
  }
  const entries = pages.flat().toReversed();
  const hash = entries.at(-1)?.["hash"];
  return ok({
    file_name: `statement-${userId.replace(/[^\w.-]+/g, "_").slice(0, 60)}.ndjson`,
    text: entries.map((entry) => `${JSON.stringify(entry)}\n`).join(""),
    entries: entries.length,
    last_hash: typeof hash === "string" ? hash : null,
  });
}

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

    "users.explain_balance": async ({ user_id: userId }) => {
      const answer = await readThrough(
        desk,
        `balance:${userId}`,
        "console_explain_balance",
        { p_user_id: userId },
        historyOperations["users.explain_balance"].output,
      );
      return answer.ok ? ok(answer.value.value) : answer;
    },

    "users.statement": ({ user_id: userId }) => readStatement(desk, userId),

    // Never out of what was kept: a proof is of what is there now.
    "users.verify": ({ user_id: userId }) =>
      desk.connection.rpc("verify_ledger", { p_user_id: userId }, historyOperations["users.verify"].output, {
        retries: 1,
      }),
  };
}
