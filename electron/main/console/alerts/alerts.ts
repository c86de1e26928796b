/** Alerts: those that were raised, whether people heard of them, and those that are set. */
import { z } from "zod";
import {
  alertCauses,
  alertGroups,
  alertPage,
  alertsOperations,
  costAlert,
} from "../../../../shared/contract/index.ts";
import { ok } from "../../../../shared/governance/result.ts";
import { type DeskContext, readThrough } from "../desk-context.ts";
import type { Handlers } from "../dispatch.ts";
import { createTopic, type Topic } from "../topic.ts";

type AlertHandlers = Pick<
  Handlers,
  "alerts.list" | "alerts.groups" | "alerts.causes" | "alerts.decide" | "alerts.set" | "alerts.send_again"
>;

export function alertHandlers(desk: DeskContext): AlertHandlers {
  const { connection } = desk;
  return {
    "alerts.list": async ({ show, before_id: beforeId, limit, filter = {} }) => {
      const answer = await readThrough(
        desk,
        `alerts:${show}:${beforeId}:${limit}:${JSON.stringify(filter)}`,
        "console_alerts",
        {
          p_before_id: beforeId,
          p_limit: limit,
          p_open_only: show === "open",
          p_undelivered_only: show === "undelivered",
          p_filter: filter,
        },
        alertPage,
      );
      return answer.ok ? ok({ ...answer.value.value, as_of: answer.value.as_of }) : answer;
    },

    "alerts.groups": async ({ filter }) => {
      const answer = await readThrough(
        desk,
        `alert_groups:${JSON.stringify(filter)}`,
        "console_alert_groups",
        { p_filter: filter },
        alertGroups,
      );
      return answer.ok ? ok({ ...answer.value.value, as_of: answer.value.as_of }) : answer;
    },

    "alerts.decide": ({ command_id: commandId, alert_event_ids: ids, action, reason, until }) =>
      connection.rpc(
        "console_decide_alerts",
        {
          p_command_id: commandId,
          p_alert_event_ids: ids,
          p_action: action,
          p_reason: reason,
          p_until: until,
          p_operator: desk.operator(),
        },
        alertsOperations["alerts.decide"].output,
        { retries: 2 },
      ),

    "alerts.causes": async ({ alert_event_id: id }) => {
      const answer = await readThrough(
        desk,
        `alert_causes:${id}`,
        "console_alert_causes",
        { p_alert_event_id: id },
        alertCauses,
      );
      return answer.ok ? ok(answer.value.value) : answer;
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

/** Wake-ups come at most every few hundred milliseconds. */
const afterSignalMs = 500;

/** The topic that screens and counts follow to read the alerts again. */
export function followAlerts(now: () => Date): { topic: Topic<{ at: string }>; wake: () => void } {
  const current = () => ({ at: now().toISOString() });
  const topic = createTopic(current);
  let timer: NodeJS.Timeout | null = null;
  return {
    topic,
    wake() {
      topic.publish(current());
      // What is raised right after a wake-up has none of its own.
      if (timer) clearTimeout(timer);
      timer = setTimeout(() => topic.publish(current()), afterSignalMs).unref();
    },
  };
}
