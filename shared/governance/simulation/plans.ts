import { currencyExponent, type MicroUnits, type MinorUnits, microUnits } from "../money/index.ts";
import type { PriceBook } from "../pricing/prices.ts";
import type { Facts, PlanNumbers } from "../rules/types.ts";
import { costInstead } from "./cost-instead.ts";
import { isReplayEvent, type ReplayEvent } from "./events.ts";

/** What a month of a plan brings in. */
export interface PlanRevenue {
  /** What a customer pays a month, in minor units of `currency`. */
  readonly monthly_price_minor: MinorUnits;
  readonly currency: string;
}

/** One way things could be. What is left out stays as it was. */
export interface Scenario {
  /** New numbers by plan id, in tokens; null for no limit. What is not named stays as the call's plan has it. */
  readonly plans?: Readonly<Record<string, Partial<PlanNumbers>>>;
  /** What plans cost their customers now, and what they would; the latter is the former where it is left out. */
  readonly revenue_now?: Readonly<Record<string, PlanRevenue>>;
  readonly revenue?: Readonly<Record<string, PlanRevenue>>;
  /** Prices of models now and as they would be; needed for routes and for other prices. */
  readonly prices_now?: PriceBook;
  readonly prices?: PriceBook;
  /** Calls of a model go to another one. */
  readonly routes?: Readonly<Record<string, string>>;
}

/** A plan's usage and money over the events. Money in micro-units. */
export interface PlanSide {
  readonly tokens_used: number;
  readonly cost_micros: MicroUnits;
  /** Null where the plan has no price. */
  readonly revenue_micros: MicroUnits | null;
  /** Null without a revenue, or where it is in another currency than the cost. */
  readonly margin_micros: MicroUnits | null;
}

/** What a scenario makes of one plan. Counts are calls, accounts or tokens, as named. */
export interface PlanOutcome {
  readonly plan_id: string;
  readonly accounts: number;
  /** Account-months with a call in them: what revenue is counted by. */
  readonly active_months: number;
  readonly now: PlanSide;
  readonly would_be: PlanSide;
  /** Calls that were made and would be refused, and their tokens. */
  readonly calls_refused: number;
  readonly tokens_refused: number;
  /** Calls that were refused and would be made, and the tokens expected of them (they count as used in `would_be`). */
  readonly calls_gained: number;
  readonly tokens_gained: number;
  /** Accounts that are refused a call which they could make in fact. */
  readonly accounts_running_out: number;
}

/** An account that would run out, first in time first. */
export interface RunsOut {
  readonly user_id: string;
  readonly plan_id: string;
  /** Instant of the first call that would be refused. */
  readonly at: string;
  readonly why: "insufficient_tokens" | "daily_limit" | "monthly_limit";
}

/** What a scenario makes of all plans. Counts are accounts or calls, as named. */
export interface PlanSimulation {
  readonly plans: readonly PlanOutcome[];
  readonly runs_out: readonly RunsOut[];
  /** Accounts, also those that are not listed. */
  readonly runs_out_total: number;
  readonly currency: string | null;
  /** Calls of accounts without a plan, or without facts: they cannot be judged. */
  readonly calls_not_judged: number;
  /** Settled calls whose cost is not known, now or then. */
  readonly calls_without_cost: number;
}

/** A replay under way. */
export interface PlanSimulator {
  /** Takes an event, in order of the feed, with its facts. */
  push(event: ReplayEvent): void;
  report(): PlanSimulation;
}

/** How an account fares under the scenario, beside how it fared. Tokens more are tokens used less. */
interface Fortune {
  day: string;
  month: string;
  /** Tokens that the scenario used less than was used in fact, this day and this month. */
  savedToday: number;
  savedThisMonth: number;
  /** Allowances of the month, in fact and in the scenario, and what was used of them in fact. */
  allowance: number;
  newAllowance: number;
  used: number;
  /** Bought and given tokens that the scenario has left over from earlier months, more than in fact. */
  carried: number;
  ranOut: boolean;
}

interface Sums {
  readonly planId: string;
  accounts: Set<string>;
  months: number;
  used: number;
  cost: number;
  newUsed: number;
  newCost: number;
  refused: number;
  refusedTokens: number;
  gained: number;
  gainedTokens: number;
  runningOut: number;
}

/** A call that was made in fact, until its settlement says what it used. */
interface Pending {
  readonly fortune: Fortune;
  readonly sums: Sums;
  readonly refused: boolean;
  readonly day: string;
}

/** The value of a record's own key: a plan may be called "constructor". */
const ownValue = <T>(record: Readonly<Record<string, T>> | undefined, key: string): T | undefined =>
  record && Object.hasOwn(record, key) ? record[key] : undefined;

/** Holds end within days. A limit, so that holds which never end do not fill the memory. */
const maximalPending = 200_000;
const shortOfTokens: ReadonlySet<string> = new Set(["insufficient_tokens", "daily_limit", "monthly_limit"]);

/** A replay under way: sums by plan, accounts by user id, calls that were made and have not ended. */
interface Replay {
  readonly scenario: Scenario;
  readonly plans: Map<string, Sums>;
  readonly fortunes: Map<string, Fortune>;
  readonly pending: Map<string, Pending>;
  readonly runsOut: RunsOut[];
  /** How many accounts are listed in `runsOut`. */
  readonly examples: number;
  runsOutTotal: number;
  notJudged: number;
  withoutCost: number;
  currency: string | null;
}

/**
 * Replays real usage under a scenario: what each plan would use, cost and bring in, and which accounts would run out
 * and when. A call is judged by what the account had in fact (bought tokens included), corrected by what the scenario
 * changed before. Nothing changed means nothing refused. What it cannot know: who would leave, buy more or ask less.
 * A call that was refused and would be made is taken to use its estimate, at its plan's mean cost. Cached input is not
 * in events: another price or model scales the recorded cost. Memory grows with accounts, not with events.
 */
export function simulatePlans(scenario: Scenario, examples = 100): PlanSimulator {
  const replay: Replay = {
    scenario,
    plans: new Map(),
    fortunes: new Map(),
    pending: new Map(),
    runsOut: [],
    examples,
    runsOutTotal: 0,
    notJudged: 0,
    withoutCost: 0,
    currency: null,
  };
  return {
    push(event) {
      if (!isReplayEvent(event)) return;
      replay.currency ??= event.currency ?? null;
      if (event.kind === "authorized" || event.kind === "blocked") judge(replay, event);
      else end(replay, event);
    },
    report: () => ({
      plans: [...replay.plans.values()].map((sums) => outcomeOf(replay, sums)),
      runs_out: [...replay.runsOut],
      runs_out_total: replay.runsOutTotal,
      currency: replay.currency,
      calls_not_judged: replay.notJudged,
      calls_without_cost: replay.withoutCost,
    }),
  };
}

function judge(replay: Replay, event: ReplayEvent): void {
  const { facts, plan, plan_id } = event;
  const wasMade = event.kind === "authorized";
  if (!facts || !plan || plan_id === null) {
    replay.notJudged++;
    return;
  }
  if (!wasMade && !shortOfTokens.has(event.reason ?? "")) return;
  const sums = sumsOf(replay, plan_id);
  const fortune = fortuneOf(replay, event, facts, plan, sums);
  const need = wasMade ? event.tokens : (facts.estimated_tokens ?? event.tokens);
  const why = refusal(replay.scenario, facts, plan, plan_id, fortune, need);
  if (wasMade) {
    awaitEnd(replay, event.request_id, { fortune, sums, refused: why !== null, day: fortune.day });
    if (why !== null) refuse(replay, sums, fortune, { user_id: event.user_id, plan_id, at: event.at, why });
  } else if (why === null) gain(sums, fortune, need);
}

/** The plan's sums, begun where there are none. */
function sumsOf({ plans }: Replay, planId: string): Sums {
  let sums = plans.get(planId);
  if (!sums) {
    sums = {
      planId,
      accounts: new Set(),
      months: 0,
      used: 0,
      cost: 0,
      newUsed: 0,
      newCost: 0,
      refused: 0,
      refusedTokens: 0,
      gained: 0,
      gainedTokens: 0,
      runningOut: 0,
    };
    plans.set(planId, sums);
  }
  return sums;
}

/** The account at the time of this event, in its day and month. */
function fortuneOf(
  { scenario, fortunes }: Replay,
  event: ReplayEvent,
  facts: Facts,
  plan: PlanNumbers,
  sums: Sums,
): Fortune {
  const day = event.local_day ?? event.at.slice(0, 10);
  let fortune = fortunes.get(event.user_id);
  if (!fortune) {
    fortune = {
      day: "",
      month: "",
      savedToday: 0,
      savedThisMonth: 0,
      allowance: 0,
      newAllowance: 0,
      used: 0,
      carried: 0,
      ranOut: false,
    };
    fortunes.set(event.user_id, fortune);
  }
  sums.accounts.add(event.user_id);
  if (fortune.day !== day) {
    fortune.day = day;
    fortune.savedToday = 0;
  }
  const month = day.slice(0, 7);
  if (fortune.month !== month) {
    beginMonth(fortune, month);
    sums.months++;
  }
  fortune.allowance = plan.monthly_allowance ?? 0;
  fortune.newAllowance =
    ownValue(scenario.plans, sums.planId)?.monthly_allowance ?? plan.monthly_allowance ?? 0;
  fortune.used = facts.tokens_this_month ?? 0;
  return fortune;
}

function beginMonth(fortune: Fortune, month: string): void {
  // Usage beyond the allowance came out of bought tokens: what is left of those stays, an allowance does not.
  const beyond = Math.max(0, fortune.used - fortune.allowance);
  const newBeyond = Math.max(0, fortune.used - fortune.savedThisMonth - fortune.newAllowance);
  fortune.carried += beyond - newBeyond;
  fortune.month = month;
  fortune.savedThisMonth = 0;
}

/** Why the scenario would refuse a call, or null. */
function refusal(
  scenario: Scenario,
  facts: Facts,
  plan: PlanNumbers,
  planId: string,
  fortune: Fortune,
  need: number,
): RunsOut["why"] | null {
  const changed = ownValue(scenario.plans, planId) ?? {};
  const daily = changed.daily_limit === undefined ? plan.daily_limit : changed.daily_limit;
  const monthly = changed.monthly_limit === undefined ? plan.monthly_limit : changed.monthly_limit;
  if (daily !== null && (facts.tokens_today ?? 0) - fortune.savedToday + need > daily) return "daily_limit";
  if (monthly !== null && (facts.tokens_this_month ?? 0) - fortune.savedThisMonth + need > monthly)
    return "monthly_limit";
  const available =
    (facts.available_tokens ?? 0) +
    fortune.newAllowance -
    fortune.allowance +
    fortune.savedThisMonth +
    fortune.carried;
  return need > available ? "insufficient_tokens" : null;
}

/** A call that was made: what it used comes with its end. */
function awaitEnd({ pending }: Replay, requestId: string, call: Pending): void {
  pending.set(requestId, call);
  if (pending.size <= maximalPending) return;
  const oldest = pending.keys().next();
  if (!oldest.done) pending.delete(oldest.value);
}

/** A call that was made and would be refused. */
function refuse(replay: Replay, sums: Sums, fortune: Fortune, first: RunsOut): void {
  sums.refused++;
  if (fortune.ranOut) return;
  fortune.ranOut = true;
  sums.runningOut++;
  replay.runsOutTotal++;
  if (replay.runsOut.length < replay.examples) replay.runsOut.push(first);
}

/** A call that was refused and would be made. */
function gain(sums: Sums, fortune: Fortune, tokens: number): void {
  sums.gained++;
  sums.gainedTokens += tokens;
  fortune.savedToday -= tokens;
  fortune.savedThisMonth -= tokens;
}

function end(replay: Replay, event: ReplayEvent): void {
  const call = replay.pending.get(event.request_id);
  if (!call) return;
  // An expired hold may still be settled.
  if (event.kind !== "expired") replay.pending.delete(event.request_id);
  if (event.kind === "settled") settle(replay, event, call);
}

function settle(replay: Replay, event: ReplayEvent, call: Pending): void {
  const { fortune, sums } = call;
  const cost = event.cost_micros ?? null;
  const isSameMonth = fortune.month === call.day.slice(0, 7);
  sums.used += event.tokens;
  sums.cost += cost ?? 0;
  if (isSameMonth) fortune.used += event.tokens;
  if (call.refused) {
    sums.refusedTokens += event.tokens;
    if (fortune.day === call.day) fortune.savedToday += event.tokens;
    if (isSameMonth) fortune.savedThisMonth += event.tokens;
    else fortune.carried += event.tokens;
    return;
  }
  const newCost = newCostOf(replay.scenario, event);
  if (cost === null || newCost === null) replay.withoutCost++;
  sums.newUsed += event.tokens;
  sums.newCost += newCost ?? 0;
}

/** What a settled call would cost: its recorded cost, scaled by what other prices or another model make of it. */
function newCostOf(scenario: Scenario, event: ReplayEvent): number | null {
  const recorded = event.cost_micros ?? null;
  const model = event.model ?? "";
  const routed = ownValue(scenario.routes, model) ?? model;
  const prices = scenario.prices ?? scenario.prices_now;
  if (!prices || (routed === model && prices === scenario.prices_now)) return recorded;
  const instead = costInstead(event, routed, prices, scenario.prices_now ?? null, Date.parse(event.at));
  return instead ?? (routed === model ? recorded : null);
}

function outcomeOf({ scenario, currency }: Replay, sums: Sums): PlanOutcome {
  const meanCost = sums.newUsed > 0 ? sums.newCost / sums.newUsed : 0;
  const paid = ownValue(scenario.revenue_now, sums.planId);
  const wouldPay = ownValue(scenario.revenue, sums.planId) ?? paid;
  const newUsed = sums.newUsed + sums.gainedTokens;
  const newCost = sums.newCost + Math.round(meanCost * sums.gainedTokens);
  return {
    plan_id: sums.planId,
    accounts: sums.accounts.size,
    active_months: sums.months,
    now: sideOf(sums.used, sums.cost, sums.months, paid, currency),
    would_be: sideOf(newUsed, newCost, sums.months, wouldPay, currency),
    calls_refused: sums.refused,
    tokens_refused: sums.refusedTokens,
    calls_gained: sums.gained,
    tokens_gained: sums.gainedTokens,
    accounts_running_out: sums.runningOut,
  };
}

/** `currency` is the costs', null where none is known. */
function sideOf(
  used: number,
  cost: number,
  months: number,
  paid: PlanRevenue | undefined,
  currency: string | null,
): PlanSide {
  // A minor unit is 10^(6 − exponent) micro-units.
  const revenue = paid
    ? months * paid.monthly_price_minor * 10 ** (6 - currencyExponent(paid.currency))
    : null;
  const comparable = currency === null || paid?.currency.toLowerCase() === currency.toLowerCase();
  return {
    tokens_used: used,
    cost_micros: microUnits(cost),
    revenue_micros: revenue === null ? null : microUnits(revenue),
    margin_micros: revenue === null || !comparable ? null : microUnits(revenue - cost),
  };
}
