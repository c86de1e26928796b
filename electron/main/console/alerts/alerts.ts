/** Alerts: those that were raised, whether people heard of them, and those that are set. */
import { z } from "zod";
import { alertPage, costAlert } from "../../../../shared/contract/index.ts";
import { ok } from "../../../../shared/governance/result.ts";
import { type DeskContext, readThrough } from "../desk-context.ts";
import type { Handlers } from "../dispatch.ts";

export type AlertHandlers = Pick<Handlers, "alerts.list" | "alerts.set" | "alerts.send_again">;

export function alertHandlers(desk: DeskContext): AlertHandlers {
  const { connection } = desk;
  return {
    "alerts.list": async ({ show, before_id: beforeId, limit }) => {
      const answer = await readThrough(
        desk,
        `alerts:${show}:${beforeId}:${limit}`,
        "console_alerts",
        {
          p_before_id: beforeId,
          p_limit: limit,
          p_open_only: show === "open",
          p_undelivered_only: show === "undelivered",
        },
        alertPage,
      );
      return answer.ok ? ok({ ...answer.value.value, as_of: answer.value.as_of }) : answer;
    },

    "alerts.set": async () => {
      const answer = await readThrough(desk, "cost_alerts", "console_cost_alerts", {}, z.array(costAlert));
      return answer.ok ? ok({ alerts: answer.value.value, as_of: answer.value.as_of }) : answer;
    },

    "alerts.send_again": async ({ command_id: commandId, notification_id: id }) => {
      const answer = await connection.rpc(
        "console_retry_notification",
        { p_command_id: commandId, p_notification_id: id, p_operator: desk.operator() },
        z.object({}).loose(),
        { retries: 2 },
      );
      return answer.ok ? ok({}) : answer;
    },
  };
}
