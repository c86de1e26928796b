import type { DecidingPlan } from "../rules/decide.ts";
import type { Facts, PlanNumbers } from "../rules/types.ts";

/**
 * What a simulation reads of an event of `usage_events_since` (filter `{"facts": true}`). Tokens are whole, cost is in
 * micro-units of `currency`. Other keys pass unread.
 */
export interface ReplayEvent {
  readonly kind: "authorized" | "blocked" | "settled" | "released" | "expired" | "quarantined";
  /** ISO instant. */
  readonly at: string;
  readonly request_id: string;
  readonly user_id: string;
  readonly plan_id: string | null;
  readonly decision: "allow" | "warn" | "block" | null;
  readonly reason: string | null;
  readonly requested_model: string | null;
  readonly model: string | null;
  readonly tokens: number;
  readonly input_tokens?: number | null;
  readonly output_tokens?: number | null;
  readonly cost_micros?: number | null;
  readonly currency?: string | null;
  /** What the user was warned of. */
  readonly warnings?: readonly string[] | null;
  /** The rule that stopped the call. */
  readonly rule_name?: string | null;
  /** Names of the rules in force that matched. */
  readonly matched?: readonly string[] | null;
  /** On `authorized` and `blocked`: the facts as they were seen, without the message. */
  readonly facts?: Facts | null;
  readonly plan?: PlanNumbers | null;
  /** The account's own day, e.g. "2026-11-22". */
  readonly local_day?: string | null;
}

const kinds: readonly string[] = ["authorized", "blocked", "settled", "released", "expired", "quarantined"];

const isCount = (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) >= 0;

/** True for an object that can be replayed: kind, time, request and user are there; tokens and a cost are whole. */
export function isReplayEvent(value: unknown): value is ReplayEvent {
  if (typeof value !== "object" || value === null) return false;
  const event = value as Record<string, unknown>;
  return (
    typeof event["kind"] === "string" &&
    kinds.includes(event["kind"]) &&
    typeof event["at"] === "string" &&
    !Number.isNaN(Date.parse(event["at"])) &&
    typeof event["request_id"] === "string" &&
    typeof event["user_id"] === "string" &&
    isCount(event["tokens"]) &&
    isCount(event["cost_micros"] ?? 0)
  );
}

/** True where a rule warned: the plan's own warnings (docs/RULES.md, step 10) are no matter of rules. */
export function wasWarnedByRule(event: ReplayEvent): boolean {
  if (event.decision !== "warn") return false;
  return (
    event.warnings?.some((warning) => !/^\d+% of the (daily|monthly) limit is used\.$/.test(warning)) ?? true
  );
}

/** Limits as an event carries them. Warnings of the plan are no matter of rules, so none are made. */
export function planOfEvent(event: ReplayEvent): DecidingPlan {
  const plan = event.plan;
  return {
    monthly_allowance: plan?.monthly_allowance ?? null,
    daily_limit: plan?.daily_limit ?? null,
    monthly_limit: plan?.monthly_limit ?? null,
    warn_at: [],
    upgrade_to: null,
  };
}
