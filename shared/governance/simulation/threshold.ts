import { compileRules } from "../rules/evaluate.ts";
import type { NumberFact } from "../rules/facts.ts";
import type { Condition, Leaf, Rule } from "../rules/types.ts";
import { isReplayEvent, planOfEvent, type ReplayEvent } from "./events.ts";

/** A number in a rule that can be dragged: a bound of a figure, with its place, e.g. `conditions.all[0]`. */
export interface Threshold {
  readonly path: string;
  readonly fact: NumberFact;
  readonly op: ">" | ">=" | "<" | "<=";
  /** The number as the rule has it, in the unit of its fact. */
  readonly value: number;
}

/** What a rule does with its number at one value. Counts are calls or users; cost is in micro-units. */
export interface ThresholdPoint {
  /** The number, in the unit of its fact. */
  readonly value: number;
  /** Calls that match. */
  readonly calls: number;
  /** Calls that match and were not stopped in fact, and whose they were. */
  readonly newly: number;
  readonly users: number;
  readonly paying_users: number;
  /** What those calls used. */
  readonly tokens: number;
  readonly cost_micros: number;
}

/** All values of a threshold that make a difference, lowest first; at most 2,000, where there are more some are left out. */
export interface ThresholdCurve extends Threshold {
  readonly points: readonly ThresholdPoint[];
}

const mostPoints = 2_000;
const operators: readonly string[] = [">", ">=", "<", "<="];

/** The numbers of a rule that can be dragged: bounds of figures that are under no `not`. */
export function thresholdsOf(rule: Pick<Rule, "conditions">): readonly Threshold[] {
  const found: Threshold[] = [];
  const visit = (condition: Condition, path: string): void => {
    if ("fact" in condition) {
      if (typeof condition.value === "number" && operators.includes(condition.op))
        found.push({
          path,
          fact: condition.fact as NumberFact,
          op: condition.op as Threshold["op"],
          value: condition.value,
        });
    } else if (!("not" in condition)) {
      const kind = "all" in condition ? "all" : "any";
      const children = "all" in condition ? condition.all : condition.any;
      for (const [index, child] of children.entries()) visit(child, `${path}.${kind}[${index}]`);
    }
  };
  visit(rule.conditions, "conditions");
  return found;
}

/** The conditions with another one at a place. */
function replaced(condition: Condition, path: string, at: string, leaf: Condition): Condition {
  if (path === at) return leaf;
  if ("fact" in condition || "not" in condition) return condition;
  const kind = "all" in condition ? "all" : "any";
  const children = "all" in condition ? condition.all : condition.any;
  const list = children.map((child, index) => replaced(child, `${path}.${kind}[${index}]`, at, leaf));
  return kind === "all" ? { all: list } : { any: list };
}

/** The rule with another number in the place of a threshold. */
export function withThreshold<R extends Pick<Rule, "conditions">>(
  rule: R,
  threshold: Threshold,
  value: number,
): R {
  const leaf: Leaf = { fact: threshold.fact, op: threshold.op, value };
  return { ...rule, conditions: replaced(rule.conditions, "conditions", threshold.path, leaf) };
}

interface Call {
  readonly value: number;
  readonly user: string;
  readonly isPaying: boolean;
  readonly isNew: boolean;
  tokens: number;
  cost: number;
}

/** What a curve is made from, event by event. */
export interface ThresholdReader {
  /** Takes an event, in order of the feed. */
  push(event: ReplayEvent): void;
  /** The curve so far. */
  curve(): ThresholdCurve;
}

/**
 * Reads past calls once and answers what the rule would match at any value of its threshold, so that dragging it asks
 * nobody again. Each call is judged on the facts as they were: what a stopped call changes for the next ones is for the
 * replay (`startBacktest`) to say.
 */
export function readThreshold(
  rule: Rule,
  threshold: Threshold,
  payingPlans: ReadonlySet<string> = new Set(),
): ThresholdReader {
  const judge = (leaf: Condition) =>
    compileRules([
      {
        ...rule,
        mode: "enforce",
        is_active: true,
        conditions: replaced(rule.conditions, "conditions", threshold.path, leaf),
      },
    ]);
  const withLeaf = judge({ all: [] });
  const withoutLeaf = judge({ any: [] });
  /** Calls that match whatever the number is, and those for which it decides. */
  const always: Call[] = [];
  const deciding: Call[] = [];
  const open = new Map<string, Call>();

  function push(event: ReplayEvent): void {
    if (!isReplayEvent(event)) return;
    if (event.kind === "settled") {
      const call = open.get(event.request_id);
      if (!call) return;
      open.delete(event.request_id);
      call.tokens = event.tokens;
      call.cost = event.cost_micros ?? 0;
      return;
    }
    if (event.kind !== "authorized" && event.kind !== "blocked") return;
    const { facts } = event;
    if (!facts || event.reason === "user_blocked") return;
    const context = { plan: planOfEvent(event) };
    if (withLeaf.evaluate(facts, context).matched.length === 0) return;
    const isAlways = withoutLeaf.evaluate(facts, context).matched.length > 0;
    const value = facts[threshold.fact];
    if (!isAlways && typeof value !== "number") return;
    const call: Call = {
      value: typeof value === "number" ? value : 0,
      user: event.user_id,
      isPaying: event.plan_id !== null && payingPlans.has(event.plan_id),
      isNew: event.kind === "authorized",
      tokens: 0,
      cost: 0,
    };
    (isAlways ? always : deciding).push(call);
    if (call.isNew) open.set(event.request_id, call);
  }

  return { push, curve: () => ({ ...threshold, points: sweep(threshold, always, deciding) }) };
}

/** The points of the curve: calls join one after the other as the number lets them in. */
function sweep(threshold: Threshold, always: readonly Call[], deciding: readonly Call[]): ThresholdPoint[] {
  const isAbove = threshold.op === ">" || threshold.op === ">=";
  const includesEqual = threshold.op === ">=" || threshold.op === "<=";
  // The number that lets in fewest calls comes first.
  const calls = deciding.toSorted((a, b) => (isAbove ? b.value - a.value : a.value - b.value));
  const distinct = [...new Set([...calls.map((call) => call.value), threshold.value])];
  const values = distinct.toSorted((a, b) => (isAbove ? b - a : a - b));
  const step = Math.max(1, Math.ceil(values.length / mostPoints));
  const users = new Set<string>();
  const paying = new Set<string>();
  const sum = { calls: 0, newly: 0, tokens: 0, cost: 0 };
  const add = (call: Call): void => {
    sum.calls += 1;
    if (!call.isNew) return;
    sum.newly += 1;
    sum.tokens += call.tokens;
    sum.cost += call.cost;
    users.add(call.user);
    if (call.isPaying) paying.add(call.user);
  };
  for (const call of always) add(call);
  const points: ThresholdPoint[] = [];
  let next = 0;
  for (const [index, value] of values.entries()) {
    const isIn = (seen: number): boolean => {
      if (seen === value) return includesEqual;
      return isAbove ? seen > value : seen < value;
    };
    for (let call = calls[next]; call && isIn(call.value); call = calls[++next]) add(call);
    if (index % step !== 0 && value !== threshold.value && index !== values.length - 1) continue;
    points.push({
      value,
      calls: sum.calls,
      newly: sum.newly,
      users: users.size,
      paying_users: paying.size,
      tokens: sum.tokens,
      cost_micros: sum.cost,
    });
  }
  return isAbove ? points.toReversed() : points;
}
