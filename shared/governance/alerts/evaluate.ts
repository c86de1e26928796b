import { localDay, localTime } from "../time/zone.ts";

/** What an alert watches, as far as it is read here (see `Alert`). */
export interface Watched {
  readonly alert_name: string;
  readonly period: string;
  /** Percents of the budget where there is one, else amounts of the metric. */
  readonly thresholds: readonly number[];
  /** In the metric's unit; null or absent: thresholds are amounts. */
  readonly budget?: number | null;
}

/**
 * A threshold that was reached. `threshold` is a percent of the budget where there is one, else an amount of the
 * metric; `value` is in the metric's unit.
 */
export interface AlertDue {
  readonly alert_name: string;
  readonly threshold: number;
  readonly value: number;
  /** The value in percent of the budget, rounded down; null without one. */
  readonly percent: number | null;
  readonly period_key: string;
  /** True for the highest of those due at once: the one to tell a person. The others are passed. */
  readonly is_highest: boolean;
}

/** The name of a period around an instant: "2026-11-22", "2026-11", "2026-11-22T15" or "" for one that never ends. */
export function periodKey(period: string, atMs: number, zone: string): string {
  switch (period) {
    case "hour": {
      const { hour } = localTime(atMs, zone);
      return `${localDay(atMs, zone)}T${String(hour).padStart(2, "0")}`;
    }
    case "day":
      return localDay(atMs, zone);
    case "month":
      return localDay(atMs, zone).slice(0, 7);
    default:
      return "";
  }
}

/**
 * The thresholds of an alert that a reading reaches and that were not fired in this period. Exact: percents are
 * compared by multiplication. `fired` holds `threshold@period_key`; add the answer's with `firedKey`.
 */
export function dueAlerts(
  alert: Watched,
  reading: { readonly value: number; readonly at_ms: number; readonly zone: string },
  fired: ReadonlySet<string>,
): readonly AlertDue[] {
  const key = periodKey(alert.period, reading.at_ms, reading.zone);
  const budget = alert.budget ?? null;
  if (!Number.isFinite(reading.value) || (budget !== null && budget <= 0)) return [];
  const reached = (threshold: number): boolean =>
    budget === null ? reading.value >= threshold : reading.value * 100 >= threshold * budget;
  const due = alert.thresholds
    .filter((threshold) => reached(threshold) && !fired.has(firedKey(alert.alert_name, threshold, key)))
    .toSorted((a, b) => a - b);
  return due.map((threshold, index) => ({
    alert_name: alert.alert_name,
    threshold,
    value: reading.value,
    percent: budget === null ? null : Math.floor((reading.value * 100) / budget),
    period_key: key,
    is_highest: index === due.length - 1,
  }));
}

/** How a fired threshold is remembered. */
export function firedKey(alertName: string, threshold: number, period: string): string {
  return `${alertName}\n${threshold}@${period}`;
}

/**
 * Percents of a limit at which a call is warned: the highest reached by what is used with this call, or null.
 * Source: docs/RULES.md, step 10.
 */
export function warnPercent(
  used: number,
  need: number,
  limit: number | null,
  warnAt: readonly number[],
): number | null {
  if (limit === null || limit === 0) return null;
  let highest: number | null = null;
  // BigInt: limits may be near 2^53.
  for (const percent of warnAt)
    if (
      BigInt(used + need) * 100n >= BigInt(limit) * BigInt(percent) &&
      (highest === null || percent > highest)
    )
      highest = percent;
  return highest;
}
