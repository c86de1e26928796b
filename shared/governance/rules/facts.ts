import type { BooleanFact, FactName, NumberFact, Operator, PlanKey, TextFact } from "./types.ts";

/** Facts that are numbers. */
export const numberFacts = [
  "tokens_today",
  "tokens_this_month",
  "messages_today",
  "identical_messages",
  "seconds_since_last_message",
  "rapid_messages",
  "conversation_messages",
  "message_words",
  "message_characters",
  "estimated_tokens",
  "complexity",
  "hour_utc",
  "hour_local",
  "weekday_local",
  "available_tokens",
  "usage_percent",
  "cost_today_micros",
  "cost_this_month_micros",
  "account_age_days",
] as const satisfies readonly NumberFact[];

/** Facts that are text. */
export const textFacts = [
  "message",
  "plan",
  "model",
  "provider",
  "task_type",
  "scope_id",
  "topic",
] as const satisfies readonly TextFact[];

/** Facts that are true or false. */
export const booleanFacts = ["is_flagged"] as const satisfies readonly BooleanFact[];

/** Every fact a rule may read. */
export const factNames: readonly FactName[] = [...numberFacts, ...textFacts, ...booleanFacts];

/** Numbers of a plan that a leaf may compare with. */
export const planKeys = [
  "monthly_allowance",
  "daily_limit",
  "monthly_limit",
] as const satisfies readonly PlanKey[];

const factTypes = new Map<string, "number" | "text" | "boolean">([
  ...numberFacts.map((fact) => [fact, "number"] as const),
  ...textFacts.map((fact) => [fact, "text"] as const),
  ...booleanFacts.map((fact) => [fact, "boolean"] as const),
]);

/** The type of a fact's value, or null for a name that is no fact. */
export function factType(name: string): "number" | "text" | "boolean" | null {
  return factTypes.get(name) ?? null;
}

/** The operators that a fact of each type takes. */
export const operatorsOf: Readonly<Record<"number" | "text" | "boolean", readonly Operator[]>> = {
  number: ["=", "!=", ">", ">=", "<", "<=", "in", "not_in", "between"],
  text: ["=", "!=", "in", "not_in", "contains", "matches_any"],
  boolean: ["=", "!="],
};
