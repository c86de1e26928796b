/** Alerts: those that were raised, whether people heard of them, and those that are set. */
import { z } from "zod";
import { alertPage, costAlert } from "../../../../shared/contract/index.ts";
import { fail, ok } from "../../../../shared/governance/result.ts";
import { notConnected } from "../connection/connection.ts";
import { type Desk, readThrough } from "../desk.ts";
import type { Handlers } from "../dispatch.ts";

export type AlertHandlers = Pick<
  Handlers,
  "alerts.list" | "alerts.set" | "alerts.acknowledge" | "alerts.send_again"
>;

export function alertHandlers(desk: Desk): AlertHandlers {
  const { connection, outbox } = desk;
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

    "alerts.acknowledge": async ({ command_id: commandId, alert_event_id: id }) => {
      const profileId = connection.profileId();
      if (profileId === null) return fail(notConnected);
      const acted = await outbox.submit(profileId, connection.backend(), {
        command_id: commandId,
        kind: "acknowledge_alert",
        subject: String(id),
        summary: `Acknowledge alert ${id}`,
        payload: { p_alert_event_id: id, p_operator: desk.operator() },
        // Whoever saw to it first stands in the record; nobody's word is overwritten.
        base: null,
        mine: { acknowledged: true },
      });
      if (!acted.ok) return acted;
      const { intent } = acted.value;
      if (intent.status === "failed" && intent.failure) return fail(intent.failure);
      if (intent.status === "acknowledged") connection.wake();
      return ok({ intent });
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
