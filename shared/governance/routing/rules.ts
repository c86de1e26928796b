import type { Condition, Rule } from "../rules/types.ts";

/** What the routing rules made here have in common; see `Rule`. */
export interface RoutingOptions {
  readonly rule_name: string;
  /** Model that calls are sent to. */
  readonly model: string;
  /** Plans it is for; absent: all. */
  readonly plans?: readonly string[];
  readonly priority?: number;
}

function routingRule(options: RoutingOptions, conditions: Condition): Rule {
  return {
    rule_name: options.rule_name,
    rule_type: "routing",
    conditions,
    action: { route: { model: options.model } },
    priority: options.priority ?? 500,
    mode: "enforce",
    is_active: true,
    applies_to: options.plans ? { plans: options.plans } : {},
    version: 0,
  };
}

/**
 * True in whole hours from `fromHour` until `untilHour` (not included), over midnight where it is the smaller. Throws
 * RangeError for what is no hour.
 */
export function hoursBetween(
  fact: "hour_utc" | "hour_local",
  fromHour: number,
  untilHour: number,
): Condition {
  for (const hour of [fromHour, untilHour])
    if (!Number.isInteger(hour) || hour < 0 || hour > 24)
      throw new RangeError(`Not an hour of the day: ${hour}`);
  if (fromHour < untilHour) return { fact, op: "between", value: [fromHour, untilHour - 1] };
  return {
    any: [
      { fact, op: ">=", value: fromHour },
      { fact, op: "<", value: untilHour },
    ],
  };
}

/** Off-peak: in these hours UTC calls go to another model (row 000.4: 02:00–06:00). */
export function routeOffPeak(
  options: RoutingOptions & { readonly from_hour: number; readonly until_hour: number },
): Rule {
  return routingRule(options, hoursBetween("hour_utc", options.from_hour, options.until_hour));
}

/** Complex messages go to a stronger model (row 000.4: from 0.7). */
export function routeComplex(options: RoutingOptions & { readonly from_complexity: number }): Rule {
  return routingRule(options, { fact: "complexity", op: ">=", value: options.from_complexity });
}

/** Near the plan's limit calls go to a cheaper model. */
export function routeNearLimit(options: RoutingOptions & { readonly from_percent: number }): Rule {
  return routingRule(options, { fact: "usage_percent", op: ">=", value: options.from_percent });
}

/** Once so much was spent in the local day or month, calls go to a cheaper model. Amount in micro-units. */
export function routeOverBudget(
  options: RoutingOptions & { readonly period: "day" | "month"; readonly from_micros: number },
): Rule {
  const fact = options.period === "day" ? "cost_today_micros" : "cost_this_month_micros";
  return routingRule(options, { fact, op: ">=", value: options.from_micros });
}

/** Plans that must never get a model: a request for it goes to another one (row 000.4: Gold never gets Claude). */
export function routeAway(options: RoutingOptions & { readonly from_models: readonly string[] }): Rule {
  return routingRule(options, { fact: "model", op: "in", value: options.from_models });
}
