/** What a rule is. Field names are the records' own (CONTRACT, "A rule"). Semantics: docs/RULES.md. */

import type { BooleanFact, FactName, NumberFact, Operator, PlanKey, TextFact } from "./facts.ts";

/** A fact as it was; null where there was none. */
export type FactValue = number | string | boolean | null;

/** What was true when a call was judged. A fact that is absent or null matches nothing. */
export type Facts = { readonly [F in NumberFact]?: number | null } & {
  readonly [F in TextFact]?: string | null;
} & { readonly [F in BooleanFact]?: boolean | null };

/** What a leaf compares with. */
export type LeafValue =
  | number
  | string
  | boolean
  | { readonly plan: PlanKey }
  | readonly number[]
  | readonly string[];

/** One comparison of a fact with a value. */
export interface Leaf {
  readonly fact: FactName;
  readonly op: Operator;
  readonly value: LeafValue;
}

/** When a rule matches: groups of leaves, at most 20 deep. */
export type Condition =
  | { readonly all: readonly Condition[] }
  | { readonly any: readonly Condition[] }
  | { readonly not: Condition }
  | Leaf;

/** One or more effects; `block` and `deflect` exclude each other. Minutes and words are whole numbers. */
export interface Action {
  readonly block?: { readonly reason: string; readonly message?: string; readonly minutes?: number };
  readonly warn?: { readonly message: string };
  readonly truncate?: { readonly words: number };
  readonly route?: { readonly model: string };
  readonly flag?: { readonly reason: string };
  readonly deflect?: { readonly message: string; readonly reason?: string };
  /** Factor on the tokens held and charged, at most three decimals, 0.001 to 1000. */
  readonly multiply_cost?: { readonly by: number };
}

/** enforce: changes decisions. shadow: evaluated and recorded, changes nothing. off: not looked at. */
export type RuleMode = "enforce" | "shadow" | "off";

/** A rule as the database keeps it. */
export interface Rule {
  readonly rule_name: string;
  readonly rule_type: string;
  readonly conditions: Condition;
  readonly action: Action;
  /** Lower runs first; equal ones in order of `rule_name` by bytes. */
  readonly priority: number;
  readonly mode: RuleMode;
  /** False is the same as mode off. */
  readonly is_active: boolean;
  readonly applies_to: { readonly plans?: readonly string[]; readonly scopes?: readonly string[] };
  /** 0 for a draft that was never saved. */
  readonly version: number;
}

/** The numbers of a plan that rules and limits read, in tokens; null means none. */
export interface PlanNumbers {
  readonly monthly_allowance: number | null;
  readonly daily_limit: number | null;
  readonly monthly_limit: number | null;
}
