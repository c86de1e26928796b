import { type DecidingPlan, usagePercent } from "../rules/decide.ts";
import type { Facts } from "../rules/types.ts";

/** What differs for an account between what happened and the draft, so far. */
export interface Drift {
  day: string;
  month: string;
  dayTokens: number;
  monthTokens: number;
  totalTokens: number;
  dayCost: number;
  monthCost: number;
  ruleBlock: { readonly reason: string; readonly message: string; readonly until_ms: number } | null;
  stopped: boolean;
  newlyStopped: boolean;
  flagged: boolean;
}

/** What differs for an account so far; begun where it is the first time. */
export function driftOf(drifts: Map<string, Drift>, userId: string): Drift {
  let drift = drifts.get(userId);
  if (!drift) {
    drift = {
      day: "",
      month: "",
      dayTokens: 0,
      monthTokens: 0,
      totalTokens: 0,
      dayCost: 0,
      monthCost: 0,
      ruleBlock: null,
      stopped: false,
      newlyStopped: false,
      flagged: false,
    };
    drifts.set(userId, drift);
  }
  return drift;
}

/** Begins the account's day and month, and ends a block whose time is over. */
export function rollDrift(drift: Drift, localDay: string, atMs: number): void {
  if (drift.ruleBlock && drift.ruleBlock.until_ms <= atMs) drift.ruleBlock = null;
  if (drift.day === localDay) return;
  drift.day = localDay;
  drift.dayTokens = 0;
  drift.dayCost = 0;
  const month = localDay.slice(0, 7);
  if (drift.month === month) return;
  drift.month = month;
  drift.monthTokens = 0;
  drift.monthCost = 0;
}

/** Counts what the draft used less than was used in fact; negative where it used more. */
export function addSaving(drift: Drift, localDay: string, tokens: number, cost: number): void {
  drift.totalTokens += tokens;
  if (drift.day === localDay) {
    drift.dayTokens += tokens;
    drift.dayCost += cost;
  }
  if (drift.month === localDay.slice(0, 7)) {
    drift.monthTokens += tokens;
    drift.monthCost += cost;
  }
}

/** The facts as they would have been: less spent before means more left now. */
export function correctedFacts(facts: Facts, drift: Drift, plan: DecidingPlan): Facts {
  if (drift.totalTokens === 0 && drift.monthCost === 0 && !drift.flagged) return facts;
  const today = Math.max(0, (facts.tokens_today ?? 0) - drift.dayTokens);
  const month = Math.max(0, (facts.tokens_this_month ?? 0) - drift.monthTokens);
  return {
    ...facts,
    tokens_today: today,
    tokens_this_month: month,
    available_tokens: Math.max(0, (facts.available_tokens ?? 0) + drift.totalTokens),
    cost_today_micros: Math.max(0, (facts.cost_today_micros ?? 0) - drift.dayCost),
    cost_this_month_micros: Math.max(0, (facts.cost_this_month_micros ?? 0) - drift.monthCost),
    usage_percent: facts.usage_percent === null ? null : usagePercent(today, month, plan),
    is_flagged: facts.is_flagged === true || drift.flagged,
  };
}
