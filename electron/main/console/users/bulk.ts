/**
 * Corrections of many users: this console sends the steps, the database keeps each. Where the connection or the console
 * is lost, the act stands where it was, and goes on when the project answers again.
 */
import {
  type AccountPage,
  accountPage,
  type BulkAct,
  bulkAct,
  bulkOperations,
  manyPreview,
  correctionWords,
  mostInBulk,
  type Notice,
  type Reply,
} from "../../../../shared/contract/index.ts";
import { ok } from "../../../../shared/governance/result.ts";
import type { Backend } from "../../backend/backend.ts";
import { isUnreachable } from "../../backend/failures.ts";
import type { DeskContext } from "../desk-context.ts";
import type { Handlers } from "../dispatch.ts";
import type { Corrections } from "./corrections.ts";

export type BulkHandlers = Pick<Handlers, keyof typeof bulkOperations>;

const stepSize = 50;
/** How long the driver waits before it asks a project that did not answer again. */
const waitMs = [500, 1_000, 2_000, 5_000];

const isUnderWay = ({ status }: BulkAct): boolean => status === "running" || status === "undoing";

export function createBulk(desk: DeskContext, corrections: Corrections, notify: (notice: Notice) => void) {
  const { connection, operator } = desk;
  /** Projects and bulk acts whose steps this console sends now. */
  const driven = new Set<string>();
  /** Projects that were looked through for acts that this operator left in the middle. */
  const resumed = new Set<string>();
  const keyOf = (profileId: string, bulkId: number): string => `${profileId} ${bulkId}`;

  async function drive(bulkId: number): Promise<void> {
    const profileId = connection.profileId();
    if (profileId === null || driven.has(keyOf(profileId, bulkId))) return;
    const key = keyOf(profileId, bulkId);
    driven.add(key);
    try {
      let failures = 0;
      while (connection.profileId() === profileId) {
        const stepped = await connection.rpc(
          "console_step_bulk_act",
          { p_bulk_id: bulkId, p_limit: stepSize },
          bulkAct,
        );
        if (stepped.ok) {
          failures = 0;
          if (isUnderWay(stepped.value)) continue;
          tell(stepped.value);
          connection.wake();
          return;
        }
        // A step that was lost did nothing, or is kept: the next one goes on either way.
        failures += 1;
        if (!isUnreachable(stepped.error) && failures > waitMs.length) {
          notify({
            level: "warning",
            title: "An act on many users waits",
            body: `${stepped.error.message} It stands where it was: Audit, Many at once.`,
          });
          return;
        }
        await new Promise((resolve) => setTimeout(resolve, waitMs[Math.min(failures, waitMs.length) - 1]));
      }
    } finally {
      driven.delete(key);
    }
  }

  function tell(bulk: BulkAct): void {
    if (bulk.status !== "done" && bulk.status !== "undone") return;
    const words = correctionWords[bulk.kind as keyof typeof correctionWords];
    const title = words?.title ?? bulk.kind;
    const refused = bulk.refused > 0 ? ` ${bulk.refused.toLocaleString("en")} were refused.` : "";
    notify({
      level: bulk.refused > 0 ? "warning" : "info",
      title: bulk.status === "done" ? `Done: ${title}` : `Undone: ${title}`,
      body:
        bulk.status === "done"
          ? `${bulk.done.toLocaleString("en")} of ${bulk.accounts.toLocaleString("en")} users.${refused}`
          : `Taken back from ${bulk.undone.toLocaleString("en")} of ${bulk.done.toLocaleString("en")} users.`,
    });
  }

  /** Starts to send the steps, where there are any; the answer goes to the screen at once. */
  function driveIfUnderWay(bulk: BulkAct): void {
    if (isUnderWay(bulk)) void drive(bulk.bulk_id);
  }

  const listed = bulkOperations["bulk.list"].output;
  const got = bulkOperations["bulk.get"].output.omit({ is_driven: true, operator: true });

  const handlers: BulkHandlers = {
    "bulk.choose": async ({ query, filter, plan_id: planId, active_since: since }) => {
      const ids = new Set<string>();
      let cursor: string | null = null;
      do {
        const page: Reply<AccountPage> = await connection.rpc(
          "console_search_accounts",
          {
            p_query: query,
            p_filter: filter,
            p_plan_id: planId,
            p_sort: "name",
            p_descending: false,
            p_cursor: cursor,
            p_limit: 100,
            ...(since === null ? {} : { p_active_since: since }),
          },
          accountPage,
          { retries: 1 },
        );
        if (!page.ok) return page;
        // Close to what was typed is not what was typed: nobody is acted on by a guess.
        if (page.value.is_close) return ok({ user_ids: [], is_cut: false });
        for (const account of page.value.accounts) ids.add(account.user_id);
        cursor = page.value.next_cursor;
      } while (cursor !== null && ids.size < mostInBulk);
      return ok({ user_ids: [...ids].slice(0, mostInBulk), is_cut: cursor !== null });
    },
    "bulk.preview": ({ user_ids: userIds, correction }) =>
      connection.rpc(
        "console_preview_bulk_act",
        { p_act: correction, p_user_ids: userIds, p_operator: operator() },
        manyPreview,
      ),
    "bulk.start": async (input) => {
      const started = await corrections.send(
        "console_start_bulk_act",
        {
          p_command_id: input.command_id,
          p_act: input.correction,
          p_user_ids: input.user_ids,
          p_reason: input.reason,
          p_operator: operator(),
          p_expected_changes: input.expected_changes,
          p_expected_tokens: input.expected_tokens,
        },
        `${correctionWords[input.correction.kind].title}: ${input.user_ids.length.toLocaleString("en")} users`,
        bulkAct,
      );
      if (started.ok) driveIfUnderWay(started.value);
      return started;
    },
    "bulk.change": async (input) => {
      const changed = await corrections.send(
        "console_change_bulk_act",
        {
          p_command_id: input.command_id,
          p_bulk_id: input.bulk_id,
          p_action: input.action,
          p_reason: input.reason,
          p_operator: operator(),
        },
        `Bulk act ${input.bulk_id}: ${input.action.replace("_", " ")}`,
        bulkAct,
      );
      if (changed.ok) driveIfUnderWay(changed.value);
      return changed;
    },
    "bulk.drive": async ({ bulk_id: bulkId }) => {
      const stepped = await connection.rpc(
        "console_step_bulk_act",
        { p_bulk_id: bulkId, p_limit: stepSize },
        bulkAct,
      );
      if (stepped.ok) driveIfUnderWay(stepped.value);
      return stepped;
    },
    "bulk.get": async ({ bulk_id: bulkId, status, after_id: afterId, limit }) => {
      const answer = await connection.rpc(
        "console_bulk_act",
        { p_bulk_id: bulkId, p_status: status, p_after_id: afterId, p_limit: limit },
        got,
      );
      const profileId = connection.profileId() ?? "";
      return answer.ok
        ? ok({ ...answer.value, is_driven: driven.has(keyOf(profileId, bulkId)), operator: operator() })
        : answer;
    },
    "bulk.list": ({ before_id: beforeId, limit }) =>
      connection.rpc("console_list_bulk_acts", { p_before_id: beforeId, p_limit: limit }, listed),
  };

  return {
    handlers,

    /** Goes on with what this operator's console was in the middle of when it ended. */
    async resume(profileId: string, backend: Backend): Promise<void> {
      if (resumed.has(profileId)) return;
      const found = await backend.rpc("console_list_bulk_acts", { p_limit: 50 }, listed);
      if (!found.ok) return;
      resumed.add(profileId);
      for (const bulk of found.value.bulks) {
        const whose = bulk.status === "undoing" ? bulk.undone_by : bulk.operator;
        if (isUnderWay(bulk) && whose === operator()) void drive(bulk.bulk_id);
      }
    },
  };
}
