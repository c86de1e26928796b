/** What an alert says, in words and figures of its own: the database's message has neither units nor separators. */
import type { Alert, CostAlert, Notification } from "../../../../shared/contract/alerts.ts";
import { alertKind, alertMetrics } from "../../../../shared/governance/alerts/kinds.ts";
import { formatCost, formatPercent, formatTokens } from "../../lib/format.ts";
import type { Sign } from "../../lib/signs.ts";
import { capitalise, cleanText, clip, codeWords, counted } from "../../lib/text.ts";

export function severitySign(severity: Alert["severity"]): Sign {
  if (severity === "critical") return { tone: "red", word: "critical" };
  if (severity === "warning") return { tone: "amber", word: "warning" };
  return { tone: "blue", word: "info" };
}

/** Kinds by what they measure. */
const limitKind = /^(daily_limit|monthly_limit|allowance)_\d+$/;

/** The matter in few words: the name of the alert that is set, or what its kind is called. */
export function alertTitle({ kind, alert_name: name, threshold }: Alert): string {
  if (name && (kind === "budget" || kind === "user_budget")) return capitalise(codeWords(name));
  const limit = limitKind.exec(kind)?.[1];
  if (limit) return `${capitalise(codeWords(limit))} at ${threshold ?? 0} %`;
  return alertKind(kind)?.kind.title ?? capitalise(codeWords(kind));
}

/** Percent, tokens or money, as the kind measures. */
export function alertAmount(
  alert: Pick<Alert, "kind" | "details">,
  value: number | null,
  currency: string,
): string {
  if (value === null) return "—";
  const { kind, details } = alert;
  if (limitKind.test(kind) || (kind === "budget" && typeof details["budget"] === "number"))
    return formatPercent(value);
  if (details["metric"] === "cost_micros") {
    const own = typeof details["currency"] === "string" ? details["currency"] : currency;
    return formatCost(value, own);
  }
  return formatTokens(value);
}

/** The threshold of a spike is how many times the usual; all others are in the unit of the value. */
export function alertThreshold(alert: Alert, currency: string): string {
  if (alert.kind === "usage_spike" && alert.threshold !== null) return `${alert.threshold} times`;
  return alertAmount(alert, alert.threshold, currency);
}

/** What happened, in one sentence; the database's own where this console does not know the kind. */
export function alertSentence(alert: Alert, currency: string): string {
  const { kind, details } = alert;
  const value = alertAmount(alert, alert.value, currency);
  switch (kind) {
    case "low_balance":
      return `${value} tokens are left, less than ${formatTokens(alert.threshold ?? 0)}.`;
    case "high_usage":
      return `One call used ${value} tokens, more than ${formatTokens(alert.threshold ?? 0)}.`;
    case "negative_balance":
      return `${formatTokens(Math.abs(alert.value ?? 0))} tokens were used beyond the balance; the next grant pays them first.`;
    case "usage_spike": {
      const usual = typeof details["usual_tokens"] === "number" ? details["usual_tokens"] : 0;
      return `${value} tokens in an hour; ${formatTokens(usual)} is usual.`;
    }
    case "budget":
      if (typeof details["budget"] === "number" && typeof details["amount"] === "number") {
        const part = {
          kind: "amount",
          details: { metric: details["metric"], currency: details["currency"] },
        };
        const [used, budget] = [details["amount"], details["budget"]].map((each) =>
          alertAmount(part, each, currency),
        );
        return `${used} of ${budget} used in ${cleanText(alert.period)}: ${value}.`;
      }
      return `${value} used in ${cleanText(alert.period)}.`;
    case "user_budget":
      return `${value} used in ${cleanText(alert.period)}.`;
    default: {
      const limit = limitKind.exec(kind)?.[1];
      if (limit) return `${value} of the ${limit === "daily_limit" ? "day" : "month"}'s tokens are used.`;
      return clip(cleanText(alert.message), 300);
    }
  }
}

/** How the messages of an alert stand, taken together: what went wrong first. */
export function deliverySign({
  notifications,
  considered_at: consideredAt,
}: Pick<Alert, "notifications" | "considered_at">): Sign {
  const has = (status: Notification["status"]): boolean =>
    notifications.some((each) => each.status === status);
  if (consideredAt === null) return { tone: "grey", word: "not yet" };
  if (notifications.length === 0) return { tone: "grey", word: "nobody to tell" };
  if (has("failed")) return { tone: "red", word: "not delivered" };
  if (notifications.some((each) => each.status === "queued" && each.last_error !== null))
    return { tone: "amber", word: "trying again" };
  if (has("queued")) return { tone: "blue", word: "queued" };
  return { tone: "green", word: "sent" };
}

export function notificationSign(notification: Notification): Sign {
  if (notification.status === "sent") return { tone: "green", word: "sent" };
  if (notification.status === "failed") return { tone: "red", word: "given up" };
  return notification.last_error === null
    ? { tone: "blue", word: "queued" }
    : { tone: "amber", word: `${counted(notification.attempts, "try", "tries")}` };
}

/** Where a message goes. */
export function notificationTarget({ channel, audience, recipient }: Notification): string {
  if (channel === "slack") return "Slack channel";
  if (recipient) return cleanText(recipient);
  return audience === "operators" ? "operators (no address is set)" : capitalise(codeWords(channel));
}

/** What an alert that is set watches: "cost of all, a month". */
export function watchedWords({ metric, scope, period }: CostAlert): string {
  const [kind = "", ...id] = scope.split(":");
  const whose =
    kind === "all"
      ? "of all"
      : kind === "user"
        ? "of each user"
        : `of ${codeWords(kind)} ${cleanText(id.join(":"))}`;
  return `${alertMetrics[metric]?.words ?? codeWords(metric)} ${whose}, ${period === "hour" ? "an" : "a"} ${codeWords(period)}`;
}

/** "50, 75, 90 % of $500.00", or the amounts. */
export function thresholdWords(alert: CostAlert): string {
  const money = alert.metric === "cost_micros";
  const show = (value: number): string => (money ? formatCost(value, alert.currency) : formatTokens(value));
  if (alert.budget !== null) return `${alert.thresholds.join(", ")} % of ${show(alert.budget)}`;
  if (alert.metric === "spike") return alert.thresholds.map((each) => `${each} times the usual`).join(", ");
  return alert.thresholds.map(show).join(", ");
}
