/** The words of an alert for operators: one catalogue for the screens, their notices and those of the desktop. */
import { showCost, showCount, showPercent } from "../money/shown.ts";
import { sayPeriod } from "../rules/user-words.ts";
import { alertKind } from "./kinds.ts";

/** An alert as it was raised. */
export interface RaisedAlert {
  /** Of `alertKinds`; limits carry their percent. */
  readonly kind: string;
  /** The alert that is set; null for what the database notices by itself. */
  readonly alert_name: string | null;
  /** The database's own words, in English. */
  readonly message: string;
  readonly threshold: number | null;
  readonly value: number | null;
  readonly period: string;
  readonly details: Readonly<Record<string, unknown>>;
}

/** How codes and other people's words are shown. */
export interface Wording {
  /** `monthly_budget` as words. */
  readonly code: (code: string) => string;
  /** A text of the database. */
  readonly text: (text: string) => string;
  /** `2027-03` as words. */
  readonly period: (key: string) => string;
}

/** Outside the screens: in English, as it is. */
const plainWording: Wording = {
  code: (code) => code.replaceAll("_", " "),
  text: (text) => text,
  period: (key) => sayPeriod(key, "en"),
};

/** `daily limit` → `Daily limit`. */
export const capitalise = (text: string): string => text.slice(0, 1).toLocaleUpperCase("en") + text.slice(1);
/** Kinds by what they measure. */
const limitOf = (kind: string): string | null =>
  /^(daily_limit|monthly_limit|allowance)_\d+$/.exec(kind)?.[1] ?? null;
const numberOf = (details: RaisedAlert["details"], name: string): number | null => {
  const value = details[name];
  return typeof value === "number" ? value : null;
};

/** The matter in few words: the name of the alert that is set, or what its kind is called. */
export function alertTitle(
  { kind, alert_name: name, threshold }: Pick<RaisedAlert, "kind" | "alert_name" | "threshold">,
  { code }: Wording = plainWording,
): string {
  if (name && (kind === "budget" || kind === "user_budget")) return capitalise(code(name));
  const limit = limitOf(kind);
  if (limit && threshold !== null) return `${capitalise(code(limit))} at ${threshold} %`;
  return alertKind(kind)?.kind.title ?? capitalise(code(kind));
}

/** Percent, tokens or money, as the kind measures; `currency` is the project's, for what names none. */
export function alertAmount(
  { kind, details }: Pick<RaisedAlert, "kind" | "details">,
  value: number | null,
  currency = "",
): string {
  if (value === null) return "—";
  if (limitOf(kind) || (kind === "budget" && numberOf(details, "budget") !== null)) return showPercent(value);
  if (details["metric"] === "cost_micros") {
    const own = typeof details["currency"] === "string" ? details["currency"] : currency;
    return showCost(value, own);
  }
  return showCount(value);
}

/** The threshold of a spike is how many times the usual; all others are in the unit of the value. */
export function alertThreshold(alert: RaisedAlert, currency = ""): string {
  if (alert.kind === "usage_spike" && alert.threshold !== null) return `${alert.threshold} times`;
  return alertAmount(alert, alert.threshold, currency);
}

/** What happened, in one sentence; the database's own where this version does not know the kind, or what it needs of it. */
export function alertSentence(alert: RaisedAlert, currency = "", wording: Wording = plainWording): string {
  const { kind, details, threshold, value } = alert;
  const { code, text } = wording;
  const period = wording.period(alert.period);
  const amount = alertAmount(alert, value, currency);
  const most = showCount(threshold ?? 0);
  const said = text(alert.message);
  switch (kind) {
    case "low_balance":
      return `${amount} tokens are left, less than ${most}.`;
    case "high_usage":
      return `One call used ${amount} tokens, more than ${most}.`;
    case "negative_balance":
      return `${showCount(Math.abs(value ?? 0))} tokens were used beyond the balance; the next grant pays them first.`;
    case "usage_spike": {
      const usual = showCount(numberOf(details, "usual_tokens") ?? 0);
      return `${amount} tokens in an hour; ${usual} is usual.`;
    }
    case "settlement_quarantined":
      return value === null
        ? said
        : `A settlement of ${amount} tokens is above the ceiling of ${most} and waits for a person.`;
    case "abuse_burst": {
      const [users, usual] = [numberOf(details, "users"), numberOf(details, "usual_calls")];
      if (users === null || usual === null || value === null) return said;
      const reason = code(String(details["reason"]));
      return `Rules stopped ${amount} calls of ${showCount(users)} users within ten minutes, mostly for ${reason}; ${showCount(usual)} is usual.`;
    }
    case "rollup_mismatch": {
      const figures = ["day_tokens", "rolled_day", "month_tokens", "rolled_month"].map((name) =>
        numberOf(details, name),
      );
      if (figures.includes(null)) return said;
      const [day, rolledDay, month, rolledMonth] = figures.map((figure) => showCount(figure ?? 0));
      return `The counters of this user and their roll-up differ: day ${day} and ${rolledDay}, month ${month} and ${rolledMonth}.`;
    }
    case "budget": {
      const [used, budget] = [numberOf(details, "amount"), numberOf(details, "budget")];
      if (used === null || budget === null) return `${amount} used so far (${period}).`;
      const shown = (figure: number): string => alertAmount({ kind: "amount", details }, figure, currency);
      return `${shown(used)} of ${shown(budget)} used (${period}): ${amount}.`;
    }
    case "user_budget":
      return `${amount} used so far (${period}).`;
    default: {
      const limit = limitOf(kind);
      if (limit === null) return said;
      return limit === "daily_limit"
        ? `${amount} of the day's tokens are used.`
        : `${amount} of the month's tokens are used.`;
    }
  }
}
