/**
 * The facts that rules read, in one table: types, parsing, words and generated cases follow from it. CONTRIBUTING.md says
 * how to add one. Meaning: docs/RULES.md, "Facts".
 */

interface NumberEntry {
  readonly type: "number";
  /** What is counted, for one and for many; or how the number reads. */
  readonly words:
    | readonly [one: string, many: string]
    | { readonly hour: string }
    | { readonly weekday: true }
    | { readonly money: string }
    | { readonly percent: string }
    | { readonly score: string };
}
interface TextEntry {
  readonly type: "text";
  readonly words: string;
}
interface BooleanEntry {
  readonly type: "boolean";
  /** When true, and when false. */
  readonly words: readonly [yes: string, no: string];
}

/** Each fact's type, and how it reads. */
export const facts = {
  tokens_today: { type: "number", words: ["token used today", "tokens used today"] },
  tokens_this_month: { type: "number", words: ["token used this month", "tokens used this month"] },
  messages_today: { type: "number", words: ["message a day", "messages a day"] },
  identical_messages: { type: "number", words: ["identical message", "identical messages"] },
  seconds_since_last_message: {
    type: "number",
    words: ["second since the last message", "seconds since the last message"],
  },
  rapid_messages: { type: "number", words: ["rapid message in a row", "rapid messages in a row"] },
  conversation_messages: {
    type: "number",
    words: ["message in the conversation", "messages in the conversation"],
  },
  message_words: { type: "number", words: ["word in the message", "words in the message"] },
  message_characters: { type: "number", words: ["character in the message", "characters in the message"] },
  estimated_tokens: {
    type: "number",
    words: ["token expected for the call", "tokens expected for the call"],
  },
  complexity: { type: "number", words: { score: "complexity of" } },
  hour_utc: { type: "number", words: { hour: "UTC" } },
  hour_local: { type: "number", words: { hour: "local time" } },
  weekday_local: { type: "number", words: { weekday: true } },
  available_tokens: { type: "number", words: ["token available", "tokens available"] },
  usage_percent: { type: "number", words: { percent: "of the limit used" } },
  cost_today_micros: { type: "number", words: { money: "spent today" } },
  cost_this_month_micros: { type: "number", words: { money: "spent this month" } },
  account_age_days: {
    type: "number",
    words: ["day since the account was made", "days since the account was made"],
  },
  message: { type: "text", words: "the message" },
  plan: { type: "text", words: "the plan" },
  model: { type: "text", words: "the model" },
  provider: { type: "text", words: "the provider" },
  task_type: { type: "text", words: "the task" },
  scope_id: { type: "text", words: "the scope" },
  topic: { type: "text", words: "the topic" },
  is_flagged: { type: "boolean", words: ["the account is flagged", "the account is not flagged"] },
} as const satisfies Readonly<Record<string, NumberEntry | TextEntry | BooleanEntry>>;

/** Everything that a rule may read. */
export type FactName = keyof typeof facts;
/** What a fact's value is. */
export type FactType = "number" | "text" | "boolean";
type FactsOf<T extends FactType> = {
  [F in FactName]: (typeof facts)[F]["type"] extends T ? F : never;
}[FactName];
/** Facts that are numbers. Units are in the names. */
export type NumberFact = FactsOf<"number">;
/** Facts that are text. `message` is the folded message (see `foldText`). */
export type TextFact = FactsOf<"text">;
/** Facts that are true or false. */
export type BooleanFact = FactsOf<"boolean">;

/** Every fact a rule may read. */
export const factNames = Object.keys(facts) as readonly FactName[];

const factsOfType = <T extends FactType>(type: T) =>
  factNames.filter((fact): fact is FactsOf<T> => facts[fact].type === type);
/** Facts that are numbers. */
export const numberFacts = factsOfType("number");
/** Facts that are text. */
export const textFacts = factsOfType("text");
/** Facts that are true or false. */
export const booleanFacts = factsOfType("boolean");

/** The type of a fact's value, or null for a name that is no fact. */
export function factType(name: string): FactType | null {
  return Object.hasOwn(facts, name) ? facts[name as FactName].type : null;
}

/** Numbers of a plan that a leaf may compare with. */
export const planKeys = ["monthly_allowance", "daily_limit", "monthly_limit"] as const;
/** A number of the plan that a leaf may compare with. */
export type PlanKey = (typeof planKeys)[number];

/** The operators that a fact of each type takes (docs/RULES.md, "Leaves"). */
export const operatorsOf = {
  number: ["=", "!=", ">", ">=", "<", "<=", "in", "not_in", "between"],
  text: ["=", "!=", "in", "not_in", "contains", "matches_any"],
  boolean: ["=", "!="],
} as const satisfies Readonly<Record<FactType, readonly string[]>>;
/** How a leaf compares. */
export type Operator = (typeof operatorsOf)[FactType][number];
