import { type PriceBook, providerOf } from "../pricing/prices.ts";
import { type Decision, decide, usagePercent } from "../rules/decide.ts";
import { type CompiledRules, factsOf, multiplyTokens } from "../rules/evaluate.ts";
import { describeReason } from "../rules/receipt.ts";
import type { FactName } from "../rules/facts.ts";
import type { Facts } from "../rules/types.ts";
import { costInstead } from "./cost-instead.ts";
import { isReplayEvent, planOfEvent, type ReplayEvent, wasWarnedByRule } from "./events.ts";

/** What a backtest replays under, and what it lists. */
export interface BacktestOptions {
  /** The rules as they would be: all of them, not the changed one alone. */
  readonly draft: CompiledRules;
  /** For what a reroute costs, and for the fact `provider` after one. */
  readonly prices?: PriceBook;
  /** Plans whose customers pay; without it the report does not say who of them was hit. */
  readonly paying_plans?: ReadonlySet<string>;
  /** Changed decisions to keep as examples. Default 100. */
  readonly examples?: number;
}

/** What would have been different for one call. */
export interface ChangedDecision {
  readonly at: string;
  readonly request_id: string;
  readonly user_id: string;
  readonly plan_id: string | null;
  readonly was: { readonly decision: string; readonly reason: string | null; readonly model: string | null };
  readonly would_be: {
    readonly decision: string;
    readonly reason: string | null;
    readonly model: string | null;
    readonly rule_name: string | null;
  };
  /** The change in words. */
  readonly words: string;
}

/** What one rule of the draft would have done. Counts are calls unless named otherwise. */
export interface RuleImpact {
  readonly rule_name: string;
  readonly mode: "enforce" | "shadow";
  readonly matched: number;
  /** Calls that this rule would have stopped. */
  readonly stopped: number;
  /** Of those: calls that were not stopped in fact. */
  readonly newly_stopped: number;
  readonly users: number;
  /** Tokens and cost of the calls that it newly stops, as they were settled. */
  readonly tokens_saved: number;
  readonly cost_saved_micros: number;
  /** How often it matched together with each rule that was in force. */
  readonly overlap: Readonly<Record<string, number>>;
}

/** What a draft would have changed. Counts are calls or users, as named; cost is in micro-units of `currency`. */
export interface BacktestReport {
  readonly from: string | null;
  readonly to: string | null;
  /** Calls in the events; judged ones had their facts and were not stopped by an operator. */
  readonly calls: number;
  readonly judged: number;
  readonly without_facts: number;
  readonly stopped_by_operator: number;
  /** Rows that are no events. */
  readonly malformed: number;
  /**
   * Facts that the draft reads and that were not recorded, with the judged calls that lack them: `message` is never
   * kept, others are worked out only where a rule in force reads them. A condition on them matches nothing here, so a
   * rule with one shows fewer hits than it would have.
   */
  readonly facts_missing: Readonly<Partial<Record<FactName, number>>>;
  /** Warnings by rules alone, on both sides: a plan's warnings are no matter of rules. */
  readonly was: Readonly<Record<"allow" | "warn" | "block", number>>;
  readonly would_be: Readonly<Record<"allow" | "warn" | "block", number>>;
  readonly newly_stopped: number;
  readonly newly_allowed: number;
  readonly newly_warned: number;
  readonly rerouted: number;
  /** Of those, calls of which it cannot be told what they would have cost: they count as saving nothing. */
  readonly rerouted_without_cost: number;
  readonly truncated: number;
  readonly newly_flagged_users: number;
  /** Tokens charged in fact that the draft would not have charged; negative where it charges more. */
  readonly tokens_saved: number;
  readonly cost_saved_micros: number;
  /** Calls that are newly allowed have no settlement: this is what they were expected to use. */
  readonly tokens_newly_expected: number;
  readonly currency: string | null;
  readonly users: number;
  readonly users_stopped: number;
  readonly users_newly_stopped: number;
  /** Paying customers among the newly stopped; null where it is not known who pays. */
  readonly paying_users_newly_stopped: number | null;
  readonly rules: readonly RuleImpact[];
  /** By UTC day, oldest first. */
  readonly days: readonly {
    readonly day: string;
    readonly calls: number;
    readonly stopped: number;
    readonly newly_stopped: number;
    readonly tokens_saved: number;
  }[];
  /** By plan, those with most newly stopped calls first. */
  readonly plans: readonly {
    readonly plan_id: string | null;
    readonly calls: number;
    readonly newly_stopped: number;
    readonly users_newly_stopped: number;
    readonly tokens_saved: number;
    readonly cost_saved_micros: number;
  }[];
  readonly changed: readonly ChangedDecision[];
  /** More decisions changed than are listed. */
  readonly changed_total: number;
}

/** A replay under way. */
export interface Backtest {
  /** Takes an event, in order of the feed. */
  push(event: ReplayEvent): void;
  report(): BacktestReport;
}

/** What differs for an account between what happened and the draft, so far. */
interface Drift {
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

/** A call that was made in fact, waiting for its settlement. */
interface Open {
  readonly drift: Drift;
  readonly day: DayRow;
  readonly planRow: PlanRow;
  readonly localDay: string;
  readonly impact: Impact | null;
  readonly stopped: boolean;
  readonly model: string | null;
  readonly factors: readonly number[];
  readonly atMs: number;
}

interface Impact {
  readonly rule_name: string;
  readonly mode: "enforce" | "shadow";
  matched: number;
  stopped: number;
  newlyStopped: number;
  readonly users: Set<string>;
  tokensSaved: number;
  costSaved: number;
  readonly overlap: Map<string, number>;
}

interface PlanRow {
  readonly plan_id: string | null;
  calls: number;
  newlyStopped: number;
  readonly usersStopped: Set<string>;
  tokensSaved: number;
  costSaved: number;
}

interface DayRow {
  readonly day: string;
  calls: number;
  stopped: number;
  newlyStopped: number;
  tokensSaved: number;
}

/** Holds end within days; one that never does must not be waited for. */
const maximalOpen = 200_000;
const workedOutOnDemand: ReadonlySet<FactName> = new Set(["identical_messages", "complexity", "topic"]);
const noPlan = planOfEvent({} as ReplayEvent);

/**
 * Starts a replay of past events under a draft. Every call is judged by the draft on the facts that were seen then,
 * corrected by what the draft would have let the account spend before. Memory grows with accounts and days, not with
 * events. What it cannot know: what a stopped user would have done next, and the text of messages (rules that read
 * `message` itself match nothing in a backtest; topic, complexity and lengths were kept).
 */
export function startBacktest(options: BacktestOptions): Backtest {
  const { draft, prices } = options;
  const maximalExamples = options.examples ?? 100;
  const drifts = new Map<string, Drift>();
  const open = new Map<string, Open>();
  const days = new Map<string, DayRow>();
  const plans = new Map<string | null, PlanRow>();
  /** Who is stopped or let through matters most: other changes are listed after, where there is room. */
  const stopsChanged: ChangedDecision[] = [];
  const othersChanged: ChangedDecision[] = [];
  const impacts = new Map<string, Impact>(
    draft.rules.map((rule) => [
      rule.rule_name,
      {
        rule_name: rule.rule_name,
        mode: rule.mode === "shadow" ? "shadow" : "enforce",
        matched: 0,
        stopped: 0,
        newlyStopped: 0,
        users: new Set(),
        tokensSaved: 0,
        costSaved: 0,
        overlap: new Map(),
      },
    ]),
  );
  const factsRead = [...new Set(draft.rules.flatMap((rule) => factsOf(rule.conditions)))];
  const factsMissing = new Map<FactName, number>();
  let topicsSeen = 0;
  const was = { allow: 0, warn: 0, block: 0 };
  const wouldBe = { allow: 0, warn: 0, block: 0 };
  const paying = new Set<string>();
  let from: string | null = null;
  let to: string | null = null;
  let calls = 0;
  let judged = 0;
  let withoutFacts = 0;
  let byOperator = 0;
  let malformed = 0;
  let newlyStopped = 0;
  let newlyAllowed = 0;
  let newlyWarned = 0;
  let rerouted = 0;
  let reroutedWithoutCost = 0;
  let truncated = 0;
  let newlyFlagged = 0;
  let tokensSaved = 0;
  let costSaved = 0;
  let newlyExpected = 0;
  let usersStopped = 0;
  let usersNewlyStopped = 0;
  let changedTotal = 0;
  let currency: string | null = null;
  let dayRow: DayRow | null = null;

  function driftOf(userId: string): Drift {
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

  function rollDrift(drift: Drift, localDay: string): void {
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

  /** The facts as they would have been: less spent before means more left now. */
  function corrected(facts: Facts, drift: Drift, plan: typeof noPlan): Facts {
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

  function save(drift: Drift, localDay: string, tokens: number, cost: number): void {
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

  function dayOfEvent(at: string): DayRow {
    const day = at.slice(0, 10);
    if (dayRow?.day === day) return dayRow;
    dayRow = days.get(day) ?? { day, calls: 0, stopped: 0, newlyStopped: 0, tokensSaved: 0 };
    days.set(day, dayRow);
    return dayRow;
  }

  function planRowOf(planId: string | null): PlanRow {
    let row = plans.get(planId);
    if (!row) {
      row = {
        plan_id: planId,
        calls: 0,
        newlyStopped: 0,
        usersStopped: new Set(),
        tokensSaved: 0,
        costSaved: 0,
      };
      plans.set(planId, row);
    }
    return row;
  }

  function note(event: ReplayEvent, decision: Decision, words: string): void {
    changedTotal++;
    const changed =
      (decision.decision === "block") !== (event.kind === "blocked") ? stopsChanged : othersChanged;
    if (changed.length >= maximalExamples) return;
    changed.push({
      at: event.at,
      request_id: event.request_id,
      user_id: event.user_id,
      plan_id: event.plan_id,
      was: {
        decision: event.decision ?? (event.kind === "blocked" ? "block" : "allow"),
        reason: event.reason,
        model: event.model,
      },
      would_be: {
        decision: decision.decision,
        reason: decision.reason,
        model: decision.model,
        rule_name: decision.outcome?.blocked_by?.rule_name ?? null,
      },
      words,
    });
  }

  function countMatches(event: ReplayEvent, decision: Decision): void {
    const outcome = decision.outcome;
    if (!outcome || outcome.matched.length + outcome.shadow_matched.length === 0) return;
    for (const list of [outcome.matched, outcome.shadow_matched])
      for (const rule of list) {
        const impact = impacts.get(rule.rule_name);
        if (!impact) continue;
        impact.matched++;
        impact.users.add(event.user_id);
        for (const other of event.matched ?? [])
          if (other !== rule.rule_name) impact.overlap.set(other, (impact.overlap.get(other) ?? 0) + 1);
      }
  }

  /** A fact that is null because nobody worked it out, rather than because there was none. */
  function noteMissing(facts: Facts): void {
    const hasMessage = typeof facts.message_words === "number";
    if (typeof facts.topic === "string") topicsSeen++;
    for (const fact of factsRead) {
      const value = facts[fact];
      if (value === undefined || (value === null && hasMessage && workedOutOnDemand.has(fact)))
        if (fact !== "message" || hasMessage) factsMissing.set(fact, (factsMissing.get(fact) ?? 0) + 1);
    }
  }

  function judge(event: ReplayEvent, facts: Facts): void {
    noteMissing(facts);
    const day = dayOfEvent(event.at);
    const drift = driftOf(event.user_id);
    const localDay = event.local_day ?? event.at.slice(0, 10);
    rollDrift(drift, localDay);
    const atMs = Date.parse(event.at);
    if (drift.ruleBlock && drift.ruleBlock.until_ms <= atMs) drift.ruleBlock = null;
    const plan = event.plan ? planOfEvent(event) : noPlan;
    const decision = decide(draft, {
      facts: corrected(facts, drift, plan),
      plan,
      requested_model: event.requested_model ?? facts.model ?? "",
      at_ms: atMs,
      // Only for retry times, which nobody reads here.
      day_ends_ms: atMs,
      month_ends_ms: atMs,
      rule_block: drift.ruleBlock,
      ...(prices ? { providerOf: (model: string) => providerOf(prices, model, atMs) } : {}),
    });
    judged++;
    const wasStopped = event.kind === "blocked";
    const wasWarned = wasWarnedByRule(event);
    const stops = decision.decision === "block";
    was[wasStopped ? "block" : wasWarned ? "warn" : "allow"]++;
    wouldBe[decision.decision]++;
    day.calls++;
    const planRow = planRowOf(event.plan_id);
    planRow.calls++;
    countMatches(event, decision);
    if (decision.block_until_ms !== null && decision.reason !== null)
      drift.ruleBlock = {
        reason: decision.reason,
        message: decision.message ?? "",
        until_ms: decision.block_until_ms,
      };
    if (decision.outcome?.flag && facts.is_flagged !== true && !drift.flagged) {
      drift.flagged = true;
      newlyFlagged++;
    }
    const impact = decision.outcome?.blocked_by
      ? (impacts.get(decision.outcome.blocked_by.rule_name) ?? null)
      : null;
    if (stops) {
      day.stopped++;
      if (!drift.stopped) usersStopped++;
      drift.stopped = true;
      if (impact) impact.stopped++;
      if (!wasStopped) {
        newlyStopped++;
        day.newlyStopped++;
        planRow.newlyStopped++;
        planRow.usersStopped.add(event.user_id);
        if (impact) impact.newlyStopped++;
        if (!drift.newlyStopped) usersNewlyStopped++;
        drift.newlyStopped = true;
        if (event.plan_id !== null && options.paying_plans?.has(event.plan_id)) paying.add(event.user_id);
        note(event, decision, `Would be stopped: ${describeReason(decision.reason ?? "blocked")}.`);
      }
    } else {
      if (wasStopped) {
        newlyAllowed++;
        newlyExpected += facts.estimated_tokens ?? event.tokens;
        // Nobody knows what it would have used: its estimate stands in, so that later limits are not too generous.
        const factors = decision.outcome?.factors_thousandths ?? [];
        save(drift, localDay, -multiplyTokens(facts.estimated_tokens ?? 0, factors), 0);
        note(
          event,
          decision,
          `Would be let through; it was stopped: ${describeReason(event.reason ?? "blocked")}.`,
        );
      } else if (decision.decision === "warn" && !wasWarned) {
        newlyWarned++;
        note(event, decision, "Would be warned.");
      }
      if (!wasStopped && event.model !== null && decision.model !== event.model) {
        rerouted++;
        note(event, decision, `Would use ${decision.model} instead of ${event.model}.`);
      }
      if (decision.truncate_to_words !== null && (facts.message_words ?? 0) > decision.truncate_to_words)
        truncated++;
    }
    if (wasStopped) return;
    open.set(event.request_id, {
      drift,
      day,
      planRow,
      localDay,
      // What a reroute saves is its rule's doing: the last one that routed.
      impact: stops
        ? impact
        : (impacts.get(decision.outcome?.matched.findLast((rule) => rule.action.route)?.rule_name ?? "") ??
          null),
      stopped: stops,
      model: decision.model,
      factors: decision.outcome?.factors_thousandths ?? [],
      atMs,
    });
    if (open.size > maximalOpen) {
      const oldest = open.keys().next();
      if (!oldest.done) open.delete(oldest.value);
    }
  }

  function settle(event: ReplayEvent, call: Open): void {
    const cost = event.cost_micros ?? 0;
    let tokens = event.tokens;
    let saved = cost;
    if (!call.stopped) {
      const used = (event.input_tokens ?? 0) + (event.output_tokens ?? 0);
      tokens =
        event.input_tokens === null || event.input_tokens === undefined
          ? 0
          : event.tokens - multiplyTokens(used, call.factors);
      saved = 0;
      if (call.model !== null && call.model !== event.model) {
        const would = prices ? costInstead(event, call.model, prices, prices, call.atMs) : null;
        if (would === null || event.cost_micros === null || event.cost_micros === undefined)
          reroutedWithoutCost++;
        else saved = cost - would;
      }
    }
    if (tokens === 0 && saved === 0) return;
    tokensSaved += tokens;
    costSaved += saved;
    call.day.tokensSaved += tokens;
    call.planRow.tokensSaved += tokens;
    call.planRow.costSaved += saved;
    if (call.impact) {
      call.impact.tokensSaved += tokens;
      call.impact.costSaved += saved;
    }
    save(call.drift, call.localDay, tokens, saved);
  }

  return {
    push(event) {
      if (!isReplayEvent(event)) {
        malformed++;
        return;
      }
      from ??= event.at;
      to = event.at;
      currency ??= event.currency ?? null;
      switch (event.kind) {
        case "authorized":
        case "blocked":
          calls++;
          if (event.reason === "user_blocked") {
            byOperator++;
            driftOf(event.user_id);
          } else if (event.facts) judge(event, event.facts);
          else withoutFacts++;
          return;
        case "settled": {
          const call = open.get(event.request_id);
          if (call) {
            open.delete(event.request_id);
            settle(event, call);
          }
          return;
        }
        case "released":
        case "quarantined":
          open.delete(event.request_id);
          return;
        case "expired":
          // A late settlement may still come.
          return;
      }
    },
    report: () => ({
      from,
      to,
      calls,
      judged,
      without_facts: withoutFacts,
      stopped_by_operator: byOperator,
      malformed,
      // A message may well have no topic; where none ever had one, none was looked for.
      facts_missing: Object.fromEntries(
        [...factsMissing].filter(([fact]) => fact !== "topic" || topicsSeen === 0),
      ),
      was: { ...was },
      would_be: { ...wouldBe },
      newly_stopped: newlyStopped,
      newly_allowed: newlyAllowed,
      newly_warned: newlyWarned,
      rerouted,
      rerouted_without_cost: reroutedWithoutCost,
      truncated,
      newly_flagged_users: newlyFlagged,
      tokens_saved: tokensSaved,
      cost_saved_micros: costSaved,
      tokens_newly_expected: newlyExpected,
      currency,
      users: drifts.size,
      users_stopped: usersStopped,
      users_newly_stopped: usersNewlyStopped,
      paying_users_newly_stopped: options.paying_plans ? paying.size : null,
      rules: [...impacts.values()].map((impact) => ({
        rule_name: impact.rule_name,
        mode: impact.mode,
        matched: impact.matched,
        stopped: impact.stopped,
        newly_stopped: impact.newlyStopped,
        users: impact.users.size,
        tokens_saved: impact.tokensSaved,
        cost_saved_micros: impact.costSaved,
        overlap: Object.fromEntries([...impact.overlap].toSorted((a, b) => b[1] - a[1])),
      })),
      days: [...days.values()].map((row) => ({
        day: row.day,
        calls: row.calls,
        stopped: row.stopped,
        newly_stopped: row.newlyStopped,
        tokens_saved: row.tokensSaved,
      })),
      plans: [...plans.values()]
        .map((row) => ({
          plan_id: row.plan_id,
          calls: row.calls,
          newly_stopped: row.newlyStopped,
          users_newly_stopped: row.usersStopped.size,
          tokens_saved: row.tokensSaved,
          cost_saved_micros: row.costSaved,
        }))
        .toSorted((a, b) => b.newly_stopped - a.newly_stopped),
      changed: [...stopsChanged, ...othersChanged].slice(0, maximalExamples),
      changed_total: changedTotal,
    }),
  };
}
