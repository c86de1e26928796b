import type { FactName } from "../rules/facts.ts";

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
  /** Of those, calls of which it is not known what they would have cost: they count as saving nothing. */
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

/** What a rule of the draft has done so far. */
export interface Impact {
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

/** Calls of one plan so far. */
export interface PlanRow {
  readonly plan_id: string | null;
  calls: number;
  newlyStopped: number;
  readonly usersStopped: Set<string>;
  tokensSaved: number;
  costSaved: number;
}

/** Calls of one UTC day so far. */
export interface DayRow {
  readonly day: string;
  calls: number;
  stopped: number;
  newlyStopped: number;
  tokensSaved: number;
}

/** What a replay has counted so far, under the names of the report. */
export type Totals = {
  -readonly [K in
    | "calls"
    | "judged"
    | "without_facts"
    | "stopped_by_operator"
    | "malformed"
    | "newly_stopped"
    | "newly_allowed"
    | "newly_warned"
    | "rerouted"
    | "rerouted_without_cost"
    | "truncated"
    | "newly_flagged_users"
    | "tokens_saved"
    | "cost_saved_micros"
    | "tokens_newly_expected"
    | "users_stopped"
    | "users_newly_stopped"
    | "changed_total"]: BacktestReport[K];
};

/** The counts of a replay before its first event. */
export const noTotals: Readonly<Totals> = {
  calls: 0,
  judged: 0,
  without_facts: 0,
  stopped_by_operator: 0,
  malformed: 0,
  newly_stopped: 0,
  newly_allowed: 0,
  newly_warned: 0,
  rerouted: 0,
  rerouted_without_cost: 0,
  truncated: 0,
  newly_flagged_users: 0,
  tokens_saved: 0,
  cost_saved_micros: 0,
  tokens_newly_expected: 0,
  users_stopped: 0,
  users_newly_stopped: 0,
  changed_total: 0,
};

/** What one rule did, as the report says it. */
export function ruleImpact(impact: Impact): RuleImpact {
  return {
    rule_name: impact.rule_name,
    mode: impact.mode,
    matched: impact.matched,
    stopped: impact.stopped,
    newly_stopped: impact.newlyStopped,
    users: impact.users.size,
    tokens_saved: impact.tokensSaved,
    cost_saved_micros: impact.costSaved,
    overlap: Object.fromEntries([...impact.overlap].toSorted((a, b) => b[1] - a[1])),
  };
}

/** One UTC day, as the report says it. */
export function dayReport(row: DayRow): BacktestReport["days"][number] {
  return {
    day: row.day,
    calls: row.calls,
    stopped: row.stopped,
    newly_stopped: row.newlyStopped,
    tokens_saved: row.tokensSaved,
  };
}

/** One plan, as the report says it. */
export function planReport(row: PlanRow): BacktestReport["plans"][number] {
  return {
    plan_id: row.plan_id,
    calls: row.calls,
    newly_stopped: row.newlyStopped,
    users_newly_stopped: row.usersStopped.size,
    tokens_saved: row.tokensSaved,
    cost_saved_micros: row.costSaved,
  };
}
