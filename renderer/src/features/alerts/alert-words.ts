/** The words of alerts, their messages, and the alerts that are set. */
import type { Alert, CostAlert, Notification } from "../../../../shared/contract/alerts.ts";
import { alertMetrics, alertPeriodWords } from "../../../../shared/governance/alerts/kinds.ts";
import { formatCost, formatTokens } from "../../lib/format.ts";
import type { Sign } from "../../lib/signs.ts";
import { capitalise, cleanText, codeWords, counted } from "../../lib/text.ts";

export function severitySign(severity: Alert["severity"]): Sign {
  if (severity === "critical") return { tone: "red", word: "critical" };
  if (severity === "warning") return { tone: "amber", word: "warning" };
  return { tone: "blue", word: "info" };
}

/** In lists: what needs an operator by its severity; a user's own limit is severe to the user alone. */
export const listSign = ({
  severity,
  needs_operator: needs,
}: Pick<Alert, "severity" | "needs_operator">): Sign =>
  needs === false ? { tone: "grey", word: "users' own" } : severitySign(severity);

/** The state of the messages of an alert, taken together: failures first. */
export function deliverySign({
  notifications,
  considered_at: consideredAt,
}: Pick<Alert, "notifications" | "considered_at">): Sign {
  const has = (status: Notification["status"]): boolean =>
    notifications.some((each) => each.status === status);
  if (consideredAt === null) return { tone: "grey", word: "not yet" };
  if (notifications.length === 0) return { tone: "grey", word: "nobody to notify" };
  if (has("failed")) return { tone: "red", word: "not delivered" };
  if (notifications.some((each) => each.status === "queued" && each.last_error !== null))
    return { tone: "amber", word: "trying again" };
  if (has("queued")) return { tone: "blue", word: "queued" };
  if (!has("sent")) return { tone: "grey", word: "withdrawn" };
  return { tone: "green", word: "sent" };
}

export function notificationSign(notification: Notification): Sign {
  if (notification.status === "sent") return { tone: "green", word: "sent" };
  if (notification.status === "failed") return { tone: "red", word: "given up" };
  if (notification.status === "withdrawn") return { tone: "grey", word: "withdrawn" };
  return notification.last_error === null
    ? { tone: "blue", word: "queued" }
    : { tone: "amber", word: `${counted(notification.attempts, "try", "tries")}` };
}

/** Where a message goes. */
export function notificationTarget({ channel, audience, recipient }: Notification): string {
  if (channel === "slack") return "Slack channel";
  if (channel === "webhook") return "webhook of the project";
  if (recipient) return cleanText(recipient);
  return audience === "operators" ? "operators (no address is set)" : capitalise(codeWords(channel));
}

/** What an alert that is set watches: "cost of all, a month". */
export function watchedWords({ metric, scope_kind: kind, scope_id: id, period }: CostAlert): string {
  const whose =
    kind === "all"
      ? "of all"
      : kind === "user"
        ? "of each user"
        : `of ${codeWords(kind)} ${cleanText(id ?? "")}`;
  return `${alertMetrics[metric]?.words ?? codeWords(metric)} ${whose}, ${alertPeriodWords[period] ?? codeWords(period)}`;
}

/** "50, 75, 90 % of $500.00", or the amounts. */
export function thresholdWords(alert: CostAlert): string {
  const money = alert.metric === "cost_micros";
  const show = (value: number): string => (money ? formatCost(value, alert.currency) : formatTokens(value));
  if (alert.budget !== null) return `${alert.thresholds.join(", ")} % of ${show(alert.budget)}`;
  if (alert.metric === "spike") return alert.thresholds.map((each) => `${each} times the usual`).join(", ");
  return alert.thresholds.map(show).join(", ");
}
