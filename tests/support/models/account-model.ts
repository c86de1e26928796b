import type { DecisionSettings, Plan, TaskEstimate } from "../../../shared/governance/plans/plan.ts";
import {
  costOfCall,
  type OtherModelUsage,
  type PriceBook,
  providerOf,
} from "../../../shared/governance/pricing/prices.ts";
import { type Decision, decide, usagePercent } from "../../../shared/governance/rules/decide.ts";
import { type CompiledRules, multiplyTokens } from "../../../shared/governance/rules/evaluate.ts";
import { identityText, readMessage } from "../../../shared/governance/rules/text.ts";
import type { Facts } from "../../../shared/governance/rules/types.ts";
import { dayOf, localTime, localWeekday, monthOf } from "../../../shared/governance/time/zone.ts";
import type { UsageCounts } from "../../../shared/governance/usage/counts.ts";
import { estimateCall } from "../../../shared/governance/usage/estimate.ts";

/** The configuration that decides on an account's calls. */
export interface Policy {
  readonly rules: CompiledRules;
  readonly settings: DecisionSettings;
  readonly estimates: readonly TaskEstimate[];
  readonly prices: PriceBook;
}

/** A call as it is asked for. */
interface ModelCall {
  readonly request_id: string;
  readonly at_ms: number;
  readonly model: string;
  readonly estimated_tokens?: number | null;
  readonly message?: string | null;
  readonly conversation_id?: string | null;
  readonly task_type?: string | null;
  readonly scope_id?: string | null;
  /** 0 to 1. */
  readonly complexity?: number | null;
}

interface ModelLot {
  readonly id: number;
  readonly kind: "subscription" | "purchased" | "promotional";
  readonly expires_ms: number | null;
  readonly created_ms: number;
  remaining: number;
}

interface ModelHold {
  readonly created_ms: number;
  readonly expires_ms: number;
  readonly factors: readonly number[];
  readonly model: string;
  reserved: number;
}

const kindOrder = { subscription: 0, promotional: 1, purchased: 2 } as const;
const rapidMs = 2_000;
const dayMs = 86_400_000;

/**
 * One account as the database keeps it (counters, holds, lots, blocks), in memory: what `authorize_usage`,
 * `settle_usage` and `release_usage` would do, without the database. For simulations, and to prove both equal.
 * Calls must come in order of time. Idempotency and the ledger are the database's alone.
 */
export class AccountModel {
  readonly policy: Policy;
  plan: Plan;
  readonly zone: string;
  readonly created_ms: number;
  is_flagged = false;
  operator_block: { readonly until_ms: number | null } | null = null;
  rule_block: { readonly reason: string; readonly message: string; readonly until_ms: number } | null = null;
  day_tokens = 0;
  month_tokens = 0;
  day_cost_micros = 0;
  month_cost_micros = 0;
  day_messages = 0;
  reserved = 0;
  debt = 0;
  readonly lots: ModelLot[] = [];
  #dayEndsMs: number;
  #monthEndsMs: number;
  #lastMessageMs: number | null = null;
  #rapid = 0;
  #forgivenMs = Number.NEGATIVE_INFINITY;
  #lots = 0;
  readonly #holds = new Map<string, ModelHold>();
  readonly #messages: { readonly at_ms: number; readonly identity: string }[] = [];
  readonly #conversations = new Map<string, number>();

  constructor(policy: Policy, plan: Plan, zone: string, createdMs: number) {
    this.policy = policy;
    this.plan = plan;
    this.zone = zone;
    this.created_ms = createdMs;
    this.#dayEndsMs = dayOf(createdMs, zone).endMs;
    this.#monthEndsMs = monthOf(createdMs, zone).endMs;
    this.#grantAllowance(createdMs, createdMs);
  }

  get total(): number {
    return this.lots.reduce((sum, lot) => sum + lot.remaining, 0);
  }

  get available(): number {
    return this.total - this.reserved;
  }

  get day_ends_ms(): number {
    return this.#dayEndsMs;
  }

  get month_ends_ms(): number {
    return this.#monthEndsMs;
  }

  /** Tokens of one kind that are left, held ones included. */
  tokensOf(kind: ModelLot["kind"]): number {
    return this.lots.reduce((sum, lot) => sum + (lot.kind === kind ? lot.remaining : 0), 0);
  }

  /** Adds tokens, and pays debt. */
  grant(tokens: number, kind: ModelLot["kind"], atMs: number, expiresMs: number | null = null): void {
    this.lots.push({
      id: ++this.#lots,
      kind,
      expires_ms: expiresMs,
      created_ms: atMs,
      remaining: tokens,
    });
    this.#payDebt(tokens);
  }

  /** Debt is paid out of what is free, in the order in which lots are spent; or only out of what was just granted. */
  #payDebt(granted = 0): void {
    const most = this.policy.settings.pay_debt_from === "grants" ? granted : Number.POSITIVE_INFINITY;
    const paid = Math.min(this.debt, this.available, most);
    if (paid <= 0) return;
    this.#spend(paid);
    this.debt -= paid;
  }

  /** A month's allowance, which ends with the month (or as many later as the plan says). */
  #grantAllowance(monthMs: number, atMs: number): void {
    if (this.plan.monthly_allowance <= 0) return;
    let end = monthOf(monthMs, this.zone).endMs;
    for (let months = this.plan.rollover_months ?? 0; months > 0; months--)
      end = monthOf(end, this.zone).endMs;
    this.grant(this.plan.monthly_allowance, "subscription", atMs, end);
  }

  /** Brings the account up to a moment: holds and lots expire, day and month turn, allowances come. */
  roll(atMs: number): void {
    // An expired hold is kept for its factors: a late settlement still charges.
    for (const hold of this.#holds.values())
      if (hold.expires_ms <= atMs && hold.reserved > 0) {
        this.reserved -= hold.reserved;
        hold.reserved = 0;
      }
    this.#payDebt();
    const expired = this.lots
      .filter((lot) => lot.expires_ms !== null && lot.expires_ms <= atMs && lot.remaining > 0)
      .toSorted((a, b) => (a.expires_ms ?? 0) - (b.expires_ms ?? 0) || a.id - b.id);
    for (const lot of expired) lot.remaining -= Math.min(lot.remaining, this.available);
    if (this.#dayEndsMs <= atMs) {
      this.#dayEndsMs = dayOf(atMs, this.zone).endMs;
      this.day_tokens = 0;
      this.day_cost_micros = 0;
      this.day_messages = 0;
    }
    if (this.#monthEndsMs <= atMs) {
      const passed = this.#monthEndsMs;
      const month = monthOf(atMs, this.zone);
      this.#monthEndsMs = month.endMs;
      this.month_tokens = 0;
      this.month_cost_micros = 0;
      // Months that passed unseen are granted only as far as their tokens would still be there.
      let first = month.startMs;
      for (let months = this.plan.rollover_months ?? 0; months > 0 && first > passed; months--)
        first = monthOf(first - 1, this.zone).startMs;
      for (let start = first; start <= atMs; start = monthOf(start, this.zone).endMs)
        this.#grantAllowance(start, atMs);
    }
  }

  /** Every fact of a call, as docs/RULES.md has them. Rolls the account first. */
  facts(call: ModelCall): Required<Facts> {
    const at = call.at_ms;
    const message = call.message ?? null;
    const { settings } = this.policy;
    const windowMs = (settings.identical_window_minutes ?? 60) * 60_000;
    const utc = localTime(at, "UTC");
    const local = localTime(at, this.zone);
    const since = this.#lastMessageMs === null || message === null ? null : at - this.#lastMessageMs;
    const today = this.day_tokens + this.reserved;
    const month = this.month_tokens + this.reserved;
    const conversation = call.conversation_id || null;
    return {
      ...readMessage(message, settings, call.complexity ?? null),
      tokens_today: today,
      tokens_this_month: month,
      messages_today: this.day_messages + (message === null ? 0 : 1),
      identical_messages: message === null ? 0 : this.#identical(message, at, windowMs),
      seconds_since_last_message: since === null ? null : since / 1000,
      rapid_messages: message === null ? 0 : this.#rapidWith(at),
      conversation_messages:
        conversation === null
          ? null
          : (this.#conversations.get(conversation) ?? 0) + (message === null ? 0 : 1),
      estimated_tokens: estimateCall(
        {
          estimated_tokens: call.estimated_tokens ?? null,
          task_type: call.task_type || null,
          message,
        },
        { ...settings, estimates: this.policy.estimates },
      ).tokens,
      hour_utc: utc.hour,
      hour_local: local.hour,
      weekday_local: localWeekday(at, this.zone),
      plan: this.plan.plan_id,
      model: call.model,
      provider: providerOf(this.policy.prices, call.model, at),
      task_type: call.task_type || null,
      scope_id: call.scope_id || null,
      available_tokens: this.available,
      usage_percent: usagePercent(today, month, this.plan),
      cost_today_micros: this.day_cost_micros,
      cost_this_month_micros: this.month_cost_micros,
      account_age_days: Math.floor((at - this.created_ms) / dayMs),
      is_flagged: this.is_flagged,
    };
  }

  #identical(message: string, atMs: number, windowMs: number): number {
    const identity = identityText(message);
    const from = Math.max(atMs - windowMs, this.#forgivenMs);
    let count = 1;
    for (let index = this.#messages.length - 1; index >= 0 && count < 1_000; index--) {
      const earlier = this.#messages[index];
      if (!earlier || earlier.at_ms <= from) break;
      if (earlier.identity === identity) count++;
    }
    return count;
  }

  #rapidWith(atMs: number): number {
    const last = this.#lastMessageMs;
    return last !== null && atMs - last < rapidMs && last > this.#forgivenMs ? this.#rapid + 1 : 1;
  }

  /** Decides on a call and does what the decision says: holds, counts, blocks, flags. */
  authorize(call: ModelCall): Decision {
    const at = call.at_ms;
    this.roll(at);
    const facts = this.facts(call);
    if (this.rule_block && this.rule_block.until_ms <= at) this.rule_block = null;
    const operator = this.operator_block;
    const decision = decide(this.policy.rules, {
      facts,
      plan: this.plan,
      requested_model: call.model,
      at_ms: at,
      day_ends_ms: this.#dayEndsMs,
      month_ends_ms: this.#monthEndsMs,
      operator_block: operator && (operator.until_ms === null || operator.until_ms > at) ? operator : null,
      rule_block: this.rule_block,
      identical_window_minutes: this.policy.settings.identical_window_minutes ?? 60,
      providerOf: (model) => providerOf(this.policy.prices, model, at),
    });
    const message = call.message ?? null;
    if (message !== null) {
      this.#rapid = facts.rapid_messages ?? 1;
      this.#lastMessageMs = at;
      this.day_messages++;
      this.#messages.push({ at_ms: at, identity: identityText(message) });
      if (this.#messages.length > 4_000) this.#messages.splice(0, 2_000);
    }
    if (call.conversation_id && typeof facts.conversation_messages === "number")
      this.#conversations.set(call.conversation_id, facts.conversation_messages);
    if (decision.outcome?.flag) this.is_flagged = true;
    if (decision.block_until_ms !== null && decision.reason !== null)
      this.rule_block = {
        reason: decision.reason,
        message: decision.message ?? "",
        until_ms: decision.block_until_ms,
      };
    if (decision.decision !== "block") {
      this.reserved += decision.reserved_tokens;
      this.#holds.set(call.request_id, {
        created_ms: at,
        expires_ms: at + (this.policy.settings.hold_minutes ?? 15) * 60_000,
        factors: decision.outcome?.factors_thousandths ?? [],
        model: decision.model,
        reserved: decision.reserved_tokens,
      });
    }
    return decision;
  }

  /** Charges a call that was authorised. Answers what was charged, what of it is debt, and its cost (null: no price). */
  settle(
    requestId: string,
    usage: UsageCounts,
    atMs: number,
    others: readonly OtherModelUsage[] = [],
  ): { charged: number; debt: number; cost_micros: number | null } {
    this.roll(atMs);
    const hold = this.#holds.get(requestId);
    if (!hold) throw new RangeError(`There is no hold "${requestId}" to settle`);
    this.#holds.delete(requestId);
    this.reserved -= hold.reserved;
    const charged = multiplyTokens(usage.input_tokens + usage.output_tokens, hold.factors);
    const taken = Math.min(charged, this.available);
    this.#spend(taken);
    this.debt += charged - taken;
    this.#payDebt();
    const cost = costOfCall(this.policy.prices, hold.model, usage, hold.created_ms, others);
    const cost_micros = cost.ok ? cost.value.cost_micros : null;
    this.day_tokens += charged;
    this.month_tokens += charged;
    this.day_cost_micros += cost_micros ?? 0;
    this.month_cost_micros += cost_micros ?? 0;
    return { charged, debt: charged - taken, cost_micros };
  }

  /** True while a call's hold was neither settled nor released (it may have expired). */
  holds(requestId: string): boolean {
    return this.#holds.has(requestId);
  }

  /** Gives a hold back. */
  release(requestId: string, atMs: number): void {
    this.roll(atMs);
    const hold = this.#holds.get(requestId);
    if (!hold) return;
    this.#holds.delete(requestId);
    this.reserved -= hold.reserved;
    this.#payDebt();
  }

  /** Lifts blocks and forgives: identical, rapid and temporary-block counters start again. */
  unblock(atMs: number): void {
    this.roll(atMs);
    this.operator_block = null;
    this.rule_block = null;
    this.#forgivenMs = atMs;
  }

  /** Takes tokens in the stated order: soonest expiry, then subscription, promotional, purchased, then oldest. */
  #spend(tokens: number): void {
    let left = tokens;
    const order = this.lots
      .filter((lot) => lot.remaining > 0)
      .toSorted(
        (a, b) =>
          (a.expires_ms ?? Number.POSITIVE_INFINITY) - (b.expires_ms ?? Number.POSITIVE_INFINITY) ||
          kindOrder[a.kind] - kindOrder[b.kind] ||
          a.created_ms - b.created_ms ||
          a.id - b.id,
      );
    for (const lot of order) {
      const take = Math.min(lot.remaining, left);
      lot.remaining -= take;
      left -= take;
      if (left === 0) break;
    }
    for (let index = this.lots.length - 1; index >= 0; index--)
      if (this.lots[index]?.remaining === 0) this.lots.splice(index, 1);
  }
}
