import { warnPercent } from "../plans/warn.ts";
import { type CompiledRules, multiplyTokens, type RuleOutcome } from "./evaluate.ts";
import { standardMessage } from "./user-words.ts";
import { statusOfBlock } from "./status.ts";
import type { Facts, PlanNumbers } from "./types.ts";

/** The plan as decisions read it. */
export interface DecidingPlan extends PlanNumbers {
  /** Percents of a limit at which a call is warned, ascending. */
  readonly warn_at: readonly number[];
  readonly upgrade_to: string | null;
}

/** Everything a decision depends on. Times are ms since 1970; tokens whole. */
export interface DecisionInput {
  /**
   * As docs/RULES.md has them. `tokens_today`, `tokens_this_month`, `estimated_tokens` and `available_tokens` also
   * decide on limits and balance; absent ones read 0.
   */
  readonly facts: Facts;
  readonly plan: DecidingPlan;
  readonly requested_model: string;
  readonly at_ms: number;
  readonly day_ends_ms: number;
  readonly month_ends_ms: number;
  /** An operator's block in force; `until_ms` null until someone lifts it. */
  readonly operator_block?: { readonly until_ms: number | null } | null;
  /** A rule's block in force. */
  readonly rule_block?: {
    readonly reason: string;
    readonly message: string;
    readonly until_ms: number;
  } | null;
  readonly identical_window_minutes?: number;
  readonly providerOf?: (model: string) => string | null;
}

/** What `authorize_usage` decides. */
export interface Decision {
  readonly decision: "allow" | "warn" | "block";
  readonly reason: string | null;
  readonly http_status: 200 | 402 | 403 | 429;
  /** For the user; null unless blocked. */
  readonly message: string | null;
  readonly model: string;
  readonly truncate_to_words: number | null;
  /** 0 when blocked. */
  readonly reserved_tokens: number;
  readonly retry_after_seconds: number | null;
  /** Plan to offer; null unless tokens or limits were the matter. */
  readonly upgrade_to: string | null;
  readonly warnings: readonly string[];
  /** Until when a matched rule blocks the account's next calls; null for none. */
  readonly block_until_ms: number | null;
  /** Null when a block was in force, so that no rule was asked. */
  readonly outcome: RuleOutcome | null;
}

const minuteMs = 60_000;

/** When a call that was refused for this reason is worth repeating. Source: docs/RULES.md, "Status of a block". */
function retryAtMs(reason: string, input: DecisionInput): number | null {
  switch (reason) {
    case "daily_limit":
    case "token_hogging":
      return input.day_ends_ms;
    case "monthly_limit":
    case "budget_exhausted":
      return input.month_ends_ms;
    case "spam_identical":
      return input.at_ms + (input.identical_window_minutes ?? 60) * minuteMs;
    case "bot_behavior":
      return input.at_ms + 2_000;
    default:
      return statusOfBlock(reason) === 429 ? input.at_ms + minuteMs : null;
  }
}

function block(
  input: DecisionInput,
  reason: string,
  message: string | null,
  endsMs: number | null,
  outcome: RuleOutcome | null,
  blockUntilMs: number | null = null,
): Decision {
  const retryMs = endsMs ?? retryAtMs(reason, input);
  const tokensMatter =
    reason === "insufficient_tokens" || reason === "daily_limit" || reason === "monthly_limit";
  return {
    decision: "block",
    reason,
    http_status: statusOfBlock(reason),
    message: message ?? standardMessage(reason),
    model: outcome?.route ?? input.requested_model,
    truncate_to_words: outcome?.truncate_to_words ?? null,
    reserved_tokens: 0,
    retry_after_seconds:
      retryMs === null ? null : Math.min(2_147_483_647, Math.ceil((retryMs - input.at_ms) / 1000)),
    upgrade_to: tokensMatter ? input.plan.upgrade_to : null,
    warnings: outcome?.warnings.map((warning) => warning.message) ?? [],
    block_until_ms: blockUntilMs,
    outcome,
  };
}

/** Decides on one call: blocks in force, rules, limits, balance, warnings. Source: docs/RULES.md, "Order". */
export function decide(rules: CompiledRules, input: DecisionInput): Decision {
  const { facts, plan } = input;
  if (input.operator_block) return block(input, "user_blocked", null, input.operator_block.until_ms, null);
  if (input.rule_block)
    return block(input, input.rule_block.reason, input.rule_block.message, input.rule_block.until_ms, null);

  const outcome = rules.evaluate(facts, input.providerOf ? { plan, providerOf: input.providerOf } : { plan });
  if (outcome.decision === "block" && outcome.reason !== null) {
    const until = outcome.block_minutes === null ? null : input.at_ms + outcome.block_minutes * minuteMs;
    return block(input, outcome.reason, outcome.message, until, outcome, until);
  }
  const need = multiplyTokens(facts.estimated_tokens ?? 0, outcome.factors_thousandths);
  const today = facts.tokens_today ?? 0;
  const month = facts.tokens_this_month ?? 0;
  // Subtracted rather than added: a sum could leave the whole numbers that are exact.
  if (plan.daily_limit !== null && need > plan.daily_limit - today)
    return block(input, "daily_limit", null, null, outcome);
  if (plan.monthly_limit !== null && need > plan.monthly_limit - month)
    return block(input, "monthly_limit", null, null, outcome);
  if (need > (facts.available_tokens ?? 0)) return block(input, "insufficient_tokens", null, null, outcome);

  const warnings = outcome.warnings.map((warning) => warning.message);
  const dayPercent = warnPercent(today, need, plan.daily_limit, plan.warn_at);
  if (dayPercent !== null) warnings.push(`${dayPercent}% of the daily limit is used.`);
  const monthPercent = warnPercent(month, need, plan.monthly_limit, plan.warn_at);
  if (monthPercent !== null) warnings.push(`${monthPercent}% of the monthly limit is used.`);
  return {
    decision: warnings.length > 0 ? "warn" : "allow",
    reason: null,
    http_status: 200,
    message: null,
    model: outcome.route ?? input.requested_model,
    truncate_to_words: outcome.truncate_to_words,
    reserved_tokens: need,
    retry_after_seconds: null,
    upgrade_to: null,
    warnings,
    block_until_ms: null,
    outcome,
  };
}

/** The fact `usage_percent`. Source: docs/RULES.md, "Facts". */
export function usagePercent(tokensToday: number, tokensThisMonth: number, plan: PlanNumbers): number | null {
  const percent = (used: number, limit: number): number =>
    limit === 0 ? 100 : Number((BigInt(used) * 100n) / BigInt(limit));
  const daily = plan.daily_limit === null ? null : percent(tokensToday, plan.daily_limit);
  const monthly = plan.monthly_limit === null ? null : percent(tokensThisMonth, plan.monthly_limit);
  if (daily !== null || monthly !== null) return Math.max(daily ?? 0, monthly ?? 0);
  return plan.monthly_allowance ? percent(tokensThisMonth, plan.monthly_allowance) : null;
}
