import { type PriceBook, providerOf } from "../pricing/prices.ts";
import { type Decision, decide } from "../rules/decide.ts";
import { type CompiledRules, factsOf, multiplyTokens } from "../rules/evaluate.ts";
import type { FactName } from "../rules/facts.ts";
import { describeReason } from "../rules/receipt.ts";
import type { Facts } from "../rules/types.ts";
import { addSaving, correctedFacts, type Drift, driftOf, rollDrift } from "./backtest-drift.ts";
import {
  type BacktestReport,
  type ChangedDecision,
  type DayRow,
  dayReport,
  type Impact,
  noTotals,
  type PlanRow,
  planReport,
  ruleImpact,
  type Totals,
} from "./backtest-report.ts";
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
  /** Changed decisions to keep as examples, at most; where there are more, from all of the time. Default 100. */
  readonly examples?: number;
}

/** A replay under way. */
export interface Backtest {
  /** Takes an event, in order of the feed. */
  push(event: ReplayEvent): void;
  report(): BacktestReport;
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

/** One in `every` of the changed decisions that were seen. */
interface Examples {
  kept: ChangedDecision[];
  every: number;
  seen: number;
}

/** What a replay knows. Who is stopped or let through matters most: other changes are listed after, where there is room. */
interface Replay {
  readonly options: BacktestOptions;
  readonly maximalExamples: number;
  readonly factsRead: readonly FactName[];
  readonly impacts: ReadonlyMap<string, Impact>;
  readonly drifts: Map<string, Drift>;
  readonly open: Map<string, Open>;
  readonly days: Map<string, DayRow>;
  readonly plans: Map<string | null, PlanRow>;
  readonly stopsChanged: Examples;
  readonly othersChanged: Examples;
  readonly factsMissing: Map<FactName, number>;
  readonly paying: Set<string>;
  readonly was: Record<"allow" | "warn" | "block", number>;
  readonly wouldBe: Record<"allow" | "warn" | "block", number>;
  readonly totals: Totals;
  topicsSeen: number;
  from: string | null;
  to: string | null;
  currency: string | null;
  /** The day of the last event: most events are of the same. */
  day: DayRow | null;
}

/** Holds end within days. A limit, so that holds which never end do not fill the memory. */
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
  const { draft } = options;
  const replay: Replay = {
    options,
    maximalExamples: options.examples ?? 100,
    factsRead: [...new Set(draft.rules.flatMap((rule) => factsOf(rule.conditions)))],
    impacts: new Map(draft.rules.map((rule) => [rule.rule_name, noImpact(rule.rule_name, rule.mode)])),
    drifts: new Map(),
    open: new Map(),
    days: new Map(),
    plans: new Map(),
    stopsChanged: { kept: [], every: 1, seen: 0 },
    othersChanged: { kept: [], every: 1, seen: 0 },
    factsMissing: new Map(),
    paying: new Set(),
    was: { allow: 0, warn: 0, block: 0 },
    wouldBe: { allow: 0, warn: 0, block: 0 },
    totals: { ...noTotals },
    topicsSeen: 0,
    from: null,
    to: null,
    currency: null,
    day: null,
  };
  return { push: (event) => push(replay, event), report: () => reportOf(replay) };
}

function noImpact(ruleName: string, mode: string | undefined): Impact {
  return {
    rule_name: ruleName,
    mode: mode === "shadow" ? "shadow" : "enforce",
    matched: 0,
    stopped: 0,
    newlyStopped: 0,
    users: new Set(),
    tokensSaved: 0,
    costSaved: 0,
    overlap: new Map(),
  };
}

function push(replay: Replay, event: ReplayEvent): void {
  if (!isReplayEvent(event)) {
    replay.totals.malformed++;
    return;
  }
  replay.from ??= event.at;
  replay.to = event.at;
  replay.currency ??= event.currency ?? null;
  switch (event.kind) {
    case "authorized":
    case "blocked":
      return pushCall(replay, event);
    case "settled": {
      const call = replay.open.get(event.request_id);
      if (!call) return;
      replay.open.delete(event.request_id);
      return settle(replay, event, call);
    }
    case "released":
    case "quarantined":
      replay.open.delete(event.request_id);
      return;
    case "expired":
      // A late settlement may still come.
      return;
  }
}

function pushCall(replay: Replay, event: ReplayEvent): void {
  const { totals } = replay;
  totals.calls++;
  if (event.reason === "user_blocked") {
    totals.stopped_by_operator++;
    driftOf(replay.drifts, event.user_id);
  } else if (event.facts) judge(replay, event, event.facts);
  else totals.without_facts++;
}

/** A call with what the draft would have decided. */
interface Judged {
  readonly event: ReplayEvent;
  readonly facts: Facts;
  readonly decision: Decision;
  readonly drift: Drift;
  readonly localDay: string;
  readonly day: DayRow;
  readonly planRow: PlanRow;
  /** Of the rule that stops it. */
  readonly impact: Impact | null;
  readonly atMs: number;
}

function judge(replay: Replay, event: ReplayEvent, facts: Facts): void {
  noteMissing(replay, facts);
  const drift = driftOf(replay.drifts, event.user_id);
  const localDay = event.local_day ?? event.at.slice(0, 10);
  const atMs = Date.parse(event.at);
  rollDrift(drift, localDay, atMs);
  const decision = decideByDraft(replay.options, event, facts, drift, atMs);
  const blockedBy = decision.outcome?.blocked_by;
  const call: Judged = {
    event,
    facts,
    decision,
    drift,
    localDay,
    day: dayOf(replay, event.at),
    planRow: planRowOf(replay, event.plan_id),
    impact: blockedBy ? (replay.impacts.get(blockedBy.rule_name) ?? null) : null,
    atMs,
  };
  countCall(replay, call);
  if (decision.decision === "block") countStopped(replay, call);
  else countMade(replay, call);
  if (event.kind !== "blocked") awaitSettlement(replay, call);
}

function decideByDraft(
  { draft, prices }: BacktestOptions,
  event: ReplayEvent,
  facts: Facts,
  drift: Drift,
  atMs: number,
): Decision {
  const plan = event.plan ? planOfEvent(event) : noPlan;
  return decide(draft, {
    facts: correctedFacts(facts, drift, plan),
    plan,
    requested_model: event.requested_model ?? facts.model ?? "",
    at_ms: atMs,
    // Only for retry times, which nobody reads here.
    day_ends_ms: atMs,
    month_ends_ms: atMs,
    rule_block: drift.ruleBlock,
    ...(prices ? { providerOf: (model: string) => providerOf(prices, model, atMs) } : {}),
  });
}

/** What is counted of every call, whatever the draft decides. */
function countCall(replay: Replay, { event, facts, decision, drift, day, planRow }: Judged): void {
  replay.totals.judged++;
  replay.was[event.kind === "blocked" ? "block" : wasWarnedByRule(event) ? "warn" : "allow"]++;
  replay.wouldBe[decision.decision]++;
  day.calls++;
  planRow.calls++;
  countMatches(replay, event, decision);
  if (decision.block_until_ms !== null && decision.reason !== null)
    drift.ruleBlock = {
      reason: decision.reason,
      message: decision.message ?? "",
      until_ms: decision.block_until_ms,
    };
  if (decision.outcome?.flag && facts.is_flagged !== true && !drift.flagged) {
    drift.flagged = true;
    replay.totals.newly_flagged_users++;
  }
}

/** The draft stops the call. */
function countStopped(replay: Replay, call: Judged): void {
  const { totals, options } = replay;
  const { event, decision, drift, day, planRow, impact } = call;
  day.stopped++;
  if (!drift.stopped) totals.users_stopped++;
  drift.stopped = true;
  if (impact) impact.stopped++;
  if (event.kind === "blocked") return;
  totals.newly_stopped++;
  day.newlyStopped++;
  planRow.newlyStopped++;
  planRow.usersStopped.add(event.user_id);
  if (impact) impact.newlyStopped++;
  if (!drift.newlyStopped) totals.users_newly_stopped++;
  drift.newlyStopped = true;
  if (event.plan_id !== null && options.paying_plans?.has(event.plan_id)) replay.paying.add(event.user_id);
  noteChange(replay, event, decision, `Would be stopped: ${describeReason(decision.reason ?? "blocked")}.`);
}

/** The draft lets the call through. */
function countMade(replay: Replay, call: Judged): void {
  const { totals } = replay;
  const { event, facts, decision } = call;
  if (event.kind === "blocked") {
    countNewlyAllowed(replay, call);
  } else {
    if (decision.decision === "warn" && !wasWarnedByRule(event)) {
      totals.newly_warned++;
      noteChange(replay, event, decision, "Would be warned.");
    }
    if (event.model !== null && decision.model !== event.model) {
      totals.rerouted++;
      noteChange(replay, event, decision, `Would use ${decision.model} instead of ${event.model}.`);
    }
  }
  if (decision.truncate_to_words !== null && (facts.message_words ?? 0) > decision.truncate_to_words)
    totals.truncated++;
}

function countNewlyAllowed(replay: Replay, { event, facts, decision, drift, localDay }: Judged): void {
  replay.totals.newly_allowed++;
  replay.totals.tokens_newly_expected += facts.estimated_tokens ?? event.tokens;
  // What it would have used is not known: its estimate is used, so that later limits are not too generous.
  const factors = decision.outcome?.factors_thousandths ?? [];
  addSaving(drift, localDay, -multiplyTokens(facts.estimated_tokens ?? 0, factors), 0);
  noteChange(
    replay,
    event,
    decision,
    `Would be let through; it was stopped: ${describeReason(event.reason ?? "blocked")}.`,
  );
}

/** Keeps a call that was made: what it saves is known when it is settled. */
function awaitSettlement({ open, impacts }: Replay, call: Judged): void {
  const { event, decision, drift, day, planRow, localDay, atMs } = call;
  const stopped = decision.decision === "block";
  const router = decision.outcome?.matched.findLast((rule) => rule.action.route)?.rule_name ?? "";
  open.set(event.request_id, {
    drift,
    day,
    planRow,
    localDay,
    // What a reroute saves is counted for the last rule that routed.
    impact: stopped ? call.impact : (impacts.get(router) ?? null),
    stopped,
    model: decision.model,
    factors: decision.outcome?.factors_thousandths ?? [],
    atMs,
  });
  if (open.size <= maximalOpen) return;
  const oldest = open.keys().next();
  if (!oldest.done) open.delete(oldest.value);
}

function settle({ options, totals }: Replay, event: ReplayEvent, call: Open): void {
  const tokens = call.stopped ? event.tokens : tokensSaved(event, call);
  let cost = call.stopped ? (event.cost_micros ?? 0) : 0;
  if (!call.stopped && call.model !== null && call.model !== event.model) {
    const saved = costSaved(event, call.model, call.atMs, options.prices);
    if (saved === null) totals.rerouted_without_cost++;
    else cost = saved;
  }
  if (tokens === 0 && cost === 0) return;
  totals.tokens_saved += tokens;
  totals.cost_saved_micros += cost;
  call.day.tokensSaved += tokens;
  call.planRow.tokensSaved += tokens;
  call.planRow.costSaved += cost;
  if (call.impact) {
    call.impact.tokensSaved += tokens;
    call.impact.costSaved += cost;
  }
  addSaving(call.drift, call.localDay, tokens, cost);
}

/** Tokens charged less by other factors, for a call that is made. */
function tokensSaved(event: ReplayEvent, { factors }: Open): number {
  if (event.input_tokens === null || event.input_tokens === undefined) return 0;
  return event.tokens - multiplyTokens(event.input_tokens + (event.output_tokens ?? 0), factors);
}

/** What another model saves on a call; null where a price or its cost is not known. */
function costSaved(
  event: ReplayEvent,
  model: string,
  atMs: number,
  prices: PriceBook | undefined,
): number | null {
  const instead = prices ? costInstead(event, model, prices, prices, atMs) : null;
  if (instead === null || event.cost_micros === null || event.cost_micros === undefined) return null;
  return event.cost_micros - instead;
}

function dayOf(replay: Replay, at: string): DayRow {
  const day = at.slice(0, 10);
  if (replay.day?.day === day) return replay.day;
  const row = replay.days.get(day) ?? { day, calls: 0, stopped: 0, newlyStopped: 0, tokensSaved: 0 };
  replay.days.set(day, row);
  replay.day = row;
  return row;
}

function planRowOf({ plans }: Replay, planId: string | null): PlanRow {
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

function countMatches({ impacts }: Replay, event: ReplayEvent, decision: Decision): void {
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

/** Counts facts that are null because nobody worked them out, rather than because there was none. */
function noteMissing(replay: Replay, facts: Facts): void {
  const { factsRead, factsMissing } = replay;
  const hasMessage = typeof facts.message_words === "number";
  if (typeof facts.topic === "string") replay.topicsSeen++;
  for (const fact of factsRead) {
    const value = facts[fact];
    if (value === undefined || (value === null && hasMessage && workedOutOnDemand.has(fact)))
      if (fact !== "message" || hasMessage) factsMissing.set(fact, (factsMissing.get(fact) ?? 0) + 1);
  }
}

function noteChange(replay: Replay, event: ReplayEvent, decision: Decision, words: string): void {
  replay.totals.changed_total++;
  const examples =
    (decision.decision === "block") !== (event.kind === "blocked")
      ? replay.stopsChanged
      : replay.othersChanged;
  if (examples.seen++ % examples.every !== 0 || replay.maximalExamples === 0) return;
  examples.kept.push({
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
  if (examples.kept.length <= replay.maximalExamples) return;
  // Half of them, evenly, so that the last day is among them as the first is.
  examples.kept = examples.kept.filter((_, at) => at % 2 === 0);
  examples.every *= 2;
}

function reportOf(replay: Replay): BacktestReport {
  const { stopsChanged, othersChanged, maximalExamples } = replay;
  return {
    from: replay.from,
    to: replay.to,
    ...replay.totals,
    // A message may well have no topic; where none ever had one, none was looked for.
    facts_missing: Object.fromEntries(
      [...replay.factsMissing].filter(([fact]) => fact !== "topic" || replay.topicsSeen === 0),
    ),
    was: { ...replay.was },
    would_be: { ...replay.wouldBe },
    currency: replay.currency,
    users: replay.drifts.size,
    paying_users_newly_stopped: replay.options.paying_plans ? replay.paying.size : null,
    rules: [...replay.impacts.values()].map(ruleImpact),
    days: [...replay.days.values()].map(dayReport),
    plans: [...replay.plans.values()].map(planReport).toSorted((a, b) => b.newly_stopped - a.newly_stopped),
    changed: [...stopsChanged.kept, ...othersChanged.kept].slice(0, maximalExamples),
  };
}
