/** Acts on many users: chosen, tried, started, stopped and undone. */
import {
  type AccountPage,
  accountPage,
  bulkAct,
  bulkOperations,
  bulkTitle,
  manyPreview,
  mostInBulk,
  type Reply,
} from "../../../../shared/contract/index.ts";
import { ok } from "../../../../shared/governance/result.ts";
import type { DeskContext } from "../desk-context.ts";
import type { Handlers } from "../dispatch.ts";
import { type BulkDriver, stepSize } from "./bulk-driver.ts";
import type { Commands } from "./sent-once.ts";

type BulkHandlers = Pick<Handlers, keyof typeof bulkOperations>;

const listed = bulkOperations["bulk.list"].output;
const got = bulkOperations["bulk.get"].output.omit({ is_driven: true, operator: true });

export function bulkHandlers(desk: DeskContext, { send }: Commands, driver: BulkDriver): BulkHandlers {
  const { connection, operator } = desk;
  return {
    "bulk.choose": async ({ query, filter, plan_id: planId, active_since: since }) => {
      const project = connection.current();
      const ids = new Set<string>();
      let cursor: string | null = null;
      do {
        const page: Reply<AccountPage> = await project.rpc(
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
      const project = connection.current();
      const started = await send(
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
        `${bulkTitle(input.correction.kind)}: ${input.user_ids.length.toLocaleString("en")} users`,
        bulkAct,
      );
      if (started.ok) driver.driveIfUnderWay(project, started.value);
      return started;
    },
    "bulk.change": async (input) => {
      const project = connection.current();
      const changed = await send(
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
      if (changed.ok) driver.driveIfUnderWay(project, changed.value);
      return changed;
    },
    "bulk.drive": async ({ bulk_id: bulkId }) => {
      const project = connection.current();
      const stepped = await project.rpc(
        "console_step_bulk_act",
        { p_bulk_id: bulkId, p_limit: stepSize },
        bulkAct,
      );
      if (stepped.ok) driver.driveIfUnderWay(project, stepped.value);
      return stepped;
    },
    "bulk.get": async ({ bulk_id: bulkId, status, after_id: afterId, limit }) => {
      const answer = await connection.rpc(
        "console_bulk_act",
        { p_bulk_id: bulkId, p_status: status, p_after_id: afterId, p_limit: limit },
        got,
      );
      return answer.ok
        ? ok({ ...answer.value, is_driven: driver.isDriven(bulkId), operator: operator() })
        : answer;
    },
    "bulk.list": ({ before_id: beforeId, limit }) =>
      connection.rpc("console_list_bulk_acts", { p_before_id: beforeId, p_limit: limit }, listed),
  };
}
