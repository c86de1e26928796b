/**
 * Plans, packs, prices and the rest of a configuration, in the records' own field names (CONTRACT, "A preset").
 * Tokens are whole; money is minor units where it says `_minor`, micro-units where it says `_micros`.
 */
import type { Rule } from "../rules/types.ts";
import type { Topic } from "../rules/text.ts";

/** What an account may use. Tokens are whole. */
export interface Plan {
  readonly plan_id: string;
  readonly name: string;
  /** Tokens granted each month; 0 for none. */
  readonly monthly_allowance: number;
  /** Most tokens used in a local day; null for no limit. */
  readonly daily_limit: number | null;
  /** Most tokens used in a local month; null for no limit. */
  readonly monthly_limit: number | null;
  readonly allows_top_up: boolean;
  /** Percents of a limit at which a call is warned, e.g. [80, 90, 95]. */
  readonly warn_at: readonly number[];
  /** What the guard does when no decision can be had: refuse (closed) or let through (open). */
  readonly fail_mode: "closed" | "open";
  /** What becomes of subscription tokens when the subscription ends. */
  readonly on_cancel: "keep" | "convert" | "expire";
  /** Months that an unspent allowance outlives its own month. Default 0. */
  readonly rollover_months?: number;
  /** Plan to offer at a limit; null for none. */
  readonly upgrade_to: string | null;
}

/** Tokens for sale, at a price in minor units of `currency`. */
export interface Pack {
  readonly pack_id: string;
  readonly tokens: number;
  readonly price_minor: number;
  readonly currency: string;
  /** Plans that may buy it; absent or empty: all that allow top-ups. */
  readonly plans?: readonly string[];
}

/** Micro-units of `currency` per million tokens, from `effective_from` until the model's next price. */
export interface Price {
  readonly provider: string;
  readonly model: string;
  readonly input_micros_per_million: number;
  readonly output_micros_per_million: number;
  /** null or absent: cached input costs as input. */
  readonly cached_input_micros_per_million?: number | null;
  /** null or absent: writing to a cache costs as input. */
  readonly cache_write_micros_per_million?: number | null;
  /** Writes that are kept for an hour; null: twice the input. */
  readonly cache_write_1h_micros_per_million?: number | null;
  /** null or absent: reasoning costs as output. */
  readonly reasoning_micros_per_million?: number | null;
  /** What the tiers of the provider charge otherwise; null or absent: as above. Flex costs as batch. */
  readonly batch_input_micros_per_million?: number | null;
  readonly batch_output_micros_per_million?: number | null;
  readonly priority_input_micros_per_million?: number | null;
  readonly priority_output_micros_per_million?: number | null;
  /** Of a call that reads more than so many tokens; null or absent: of none. */
  readonly long_context_above_tokens?: number | null;
  readonly long_context_input_micros_per_million?: number | null;
  readonly long_context_output_micros_per_million?: number | null;
  readonly currency: string;
  /** ISO date or instant; a date means its midnight UTC. */
  readonly effective_from: string;
}

/** Tokens expected of a call of a task. */
export interface TaskEstimate {
  readonly task_type: string;
  readonly tokens: number;
}

/** When somebody is notified of a metric. `threshold` and `budget` are in the metric's unit. */
export interface Alert {
  readonly alert_name: string;
  readonly metric: string;
  readonly scope: string;
  readonly period: string;
  /** Ascending; percents of the budget where there is one, else amounts. Each fires once a period. */
  readonly thresholds: readonly number[];
  /** In the metric's unit. */
  readonly budget?: number | null;
  readonly channels?: readonly string[];
}

/** Settings that decisions read. Others pass through unread. */
export interface DecisionSettings {
  /** Tokens expected of a reply, added to a message's own. */
  readonly reply_tokens?: number;
  /** Tokens of a call nothing is known of (300). */
  readonly default_estimate?: number;
  /** Minutes within which identical messages count (60). */
  readonly identical_window_minutes?: number;
  /** Minutes until an unsettled hold gives its tokens back (15). */
  readonly hold_minutes?: number;
  /** What pays debt: whatever is free, at once (free), or only the next grants. */
  readonly pay_debt_from?: "free" | "grants";
  readonly complexity_words?: readonly string[];
  readonly topics?: readonly Topic[];
}

/** A whole configuration. Keys left out take the default. */
export interface Preset {
  readonly name: string;
  readonly currency: string;
  readonly settings: DecisionSettings & Readonly<Record<string, unknown>>;
  readonly default_plan: string;
  readonly plans: readonly Plan[];
  readonly packs: readonly Pack[];
  readonly rules: readonly Rule[];
  readonly prices: readonly Price[];
  readonly estimates: readonly TaskEstimate[];
  readonly alerts: readonly Alert[];
}
