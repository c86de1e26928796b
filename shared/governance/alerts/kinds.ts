/**
 * Every kind of alert, and what a preset may watch: the same lists as `governance.alert_kinds` and
 * `governance.alert_metrics` in supabase/schemas/50_alerts.sql; a test compares them. A new kind: a line in each, and
 * `raise_alert` where the database notices it.
 */

export type AlertUnit = "percent" | "amount" | "tokens" | "none";

export interface AlertKind {
  /** What a settlement measures it by; null for what is not set as a metric of a preset. */
  readonly metric: string | null;
  /** Of value and threshold; `amount`: of the metric that its details name. */
  readonly unit: AlertUnit;
  /** As raised; null where it depends on how much. */
  readonly severity: "info" | "warning" | "critical" | null;
  /** Raised without a preset asking for it; operators always get it, users never see it. */
  readonly is_for_operators: boolean;
  /** It is on the operators' list; the others are each user's own limits. */
  readonly needs_operator: boolean;
  /** In few words, for operators. */
  readonly title: string;
}

function kind(
  title: string,
  unit: AlertUnit,
  severity: AlertKind["severity"],
  metric: string | null = null,
  needs_operator = false,
): AlertKind {
  return { metric, unit, severity, is_for_operators: false, needs_operator, title };
}

function forOperators(
  title: string,
  severity: AlertKind["severity"] = "critical",
  unit: AlertUnit = "none",
): AlertKind {
  return {
    metric: null,
    unit,
    severity,
    is_for_operators: true,
    needs_operator: true,
    title,
  };
}

export const alertKinds: Readonly<Record<string, AlertKind>> = {
  budget: kind("Budget", "percent", null, null, true),
  user_budget: kind("Budget of a user", "amount", "warning", null, true),
  usage_spike: kind("Sudden use", "tokens", "info", "spike", true),
  low_balance: kind("Balance is low", "tokens", "warning", "balance"),
  high_usage: kind("High usage", "tokens", "warning", "operation_tokens"),
  negative_balance: kind("Used beyond the balance", "tokens", "critical", "debt"),
  daily_limit: kind("Daily limit", "percent", null),
  monthly_limit: kind("Monthly limit", "percent", null),
  allowance: kind("Allowance", "percent", null),
  abuse_burst: forOperators("Burst of stopped calls"),
  unknown_price: forOperators("Model without a price", "warning"),
  unknown_zone: forOperators("Time zone not known", "warning"),
  settlement_quarantined: forOperators("Settlement waits for a decision", "critical", "tokens"),
  rollup_mismatch: forOperators("Counters and roll-up differ"),
  maintenance_failed: forOperators("Upkeep of one user failed"),
  upkeep_failed: forOperators("A step of upkeep failed", null),
  upkeep_late: forOperators("Upkeep was not run"),
  doors_open: forOperators("Rights are open that should not be"),
  webhook_quarantined: forOperators("Stripe event waits for a decision"),
  event_quarantined: forOperators("Event waits for a decision"),
  stripe_dispute: forOperators("Payment disputed", "warning"),
};

/** The kind in the list: `daily_limit` of `daily_limit_80`; null for one that this version does not know. */
export function alertKind(kind: string): { readonly name: string; readonly kind: AlertKind } | null {
  const name = kind.replace(/^(daily_limit|monthly_limit|allowance)_\d+$/, "$1");
  const found = Object.hasOwn(alertKinds, name) ? alertKinds[name] : undefined;
  return found ? { name, kind: found } : null;
}

export interface AlertMetric {
  /** Of its thresholds where it has no budget. */
  readonly unit: string;
  /** In few words: what is watched. */
  readonly words: string;
  /** Whose; the first is the default. plan, scope and model come with an id: `plan:pro`. */
  readonly scopes: readonly string[];
  /** The first is the default. Periods of budgets are made of the accounts' own days. */
  readonly periods: readonly string[];
  readonly has_budget: boolean;
}

/** Periods in words: "cost of all, a month". */
export const alertPeriodWords: Readonly<Record<string, string>> = {
  month: "a month",
  week: "a week",
  day: "a day",
  year: "a year",
  hour: "an hour",
};

/** What is watched, in few words. */
const metricWords = {
  cost_micros: "cost",
  tokens: "tokens",
  balance: "balance",
  operation_tokens: "tokens of one call",
  debt: "debt",
  spike: "sudden use",
};

const everybody = ["all", "user", "plan", "scope", "model"];
const calendar = ["month", "day", "week", "year"];

function ofAll(unit: string, words: string): AlertMetric {
  return { unit, words, scopes: everybody, periods: calendar, has_budget: true };
}

function ofUser(unit: string, words: string, period = "day"): AlertMetric {
  return { unit, words, scopes: ["user"], periods: [period], has_budget: false };
}

export const alertMetrics: Readonly<Record<string, AlertMetric>> = {
  cost_micros: ofAll("micro-units of the currency", metricWords.cost_micros),
  tokens: ofAll("tokens", metricWords.tokens),
  balance: ofUser("tokens left", metricWords.balance),
  operation_tokens: ofUser("tokens of one call", metricWords.operation_tokens),
  debt: ofUser("tokens used beyond the balance", metricWords.debt),
  spike: ofUser("times the usual hour", metricWords.spike, "hour"),
};
