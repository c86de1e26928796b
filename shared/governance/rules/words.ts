import { formatMicro } from "../money/index.ts";
import { assertNever } from "../result.ts";
import type { Action, Condition, Leaf, NumberFact, Operator, PlanKey, Rule } from "./types.ts";

/** Names that make a sentence readable; ids stand in where a name is not known. */
export interface RuleNames {
  /** Plan names by id, e.g. `{ gold_plus: "Gold+" }`. */
  readonly plans?: Readonly<Record<string, string>>;
  /** Currency code of the cost facts, e.g. "GBP". */
  readonly currency?: string;
}

/** [one, many] of what a numeric fact counts. */
const counted: Readonly<
  Record<
    Exclude<
      NumberFact,
      | "complexity"
      | "hour_utc"
      | "hour_local"
      | "weekday_local"
      | "usage_percent"
      | "cost_today_micros"
      | "cost_this_month_micros"
    >,
    readonly [string, string]
  >
> = {
  tokens_today: ["token used today", "tokens used today"],
  tokens_this_month: ["token used this month", "tokens used this month"],
  messages_today: ["message a day", "messages a day"],
  identical_messages: ["identical message", "identical messages"],
  seconds_since_last_message: ["second since the last message", "seconds since the last message"],
  rapid_messages: ["rapid message in a row", "rapid messages in a row"],
  conversation_messages: ["message in the conversation", "messages in the conversation"],
  message_words: ["word in the message", "words in the message"],
  message_characters: ["character in the message", "characters in the message"],
  estimated_tokens: ["token expected for the call", "tokens expected for the call"],
  available_tokens: ["token available", "tokens available"],
  account_age_days: ["day since the account was made", "days since the account was made"],
};

const planNumbers: Readonly<Record<PlanKey, string>> = {
  monthly_allowance: "the plan's monthly allowance",
  daily_limit: "the plan's daily limit",
  monthly_limit: "the plan's monthly limit",
};

const weekdays = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/** A whole or decimal number with thousands separators: 10240 → "10,240". Independent of locale. */
export function formatCount(value: number): string {
  const [whole = "", fraction] = String(value).split(".");
  const grouped = whole.replace(/\B(?=(\d{3})+$)/g, ",");
  return fraction === undefined ? grouped : `${grouped}.${fraction}`;
}

const clock = (hour: number): string => `${String(hour).padStart(2, "0")}:00`;

function formatMicros(value: number, currency: string | undefined): string {
  if (!Number.isSafeInteger(value)) return `${formatCount(value)} micro-units`;
  return `${formatMicro(value).replace(/\B(?=(\d{3})+\.)/g, ",")}${currency ? ` ${currency.toUpperCase()}` : ""}`;
}

function list(items: readonly string[], conjunction: "and" | "or"): string {
  if (items.length <= 1) return items[0] ?? "nothing";
  return `${items.slice(0, -1).join(", ")} ${conjunction} ${items.at(-1)}`;
}

const quoted = (text: string): string => `“${text}”`;

/** "more than 100", with the unit after it. */
function amount(op: Operator, shown: string, isMeasured: boolean): string {
  switch (op) {
    case "=":
      return `exactly ${shown}`;
    case "!=":
      return `other than ${shown}`;
    case ">":
      return `more than ${shown}`;
    case ">=":
      return `at least ${shown}`;
    case "<":
      return `${isMeasured ? "less" : "fewer"} than ${shown}`;
    case "<=":
      return `at most ${shown}`;
    default:
      return shown;
  }
}

function hours(leaf: Leaf, zone: string): string {
  const value = leaf.value;
  if (leaf.op === "between" && Array.isArray(value)) {
    const [from, to] = value as readonly number[];
    // Whole hours, both included: 2 to 5 lasts until 06:00.
    return `between ${clock(Math.ceil(from ?? 0))} and ${clock((Math.floor(to ?? 0) + 1) % 24)} ${zone}`;
  }
  if (typeof value === "number") {
    if (leaf.op === ">=") return `from ${clock(value)} ${zone}`;
    if (leaf.op === ">") return `from ${clock(Math.floor(value) + 1)} ${zone}`;
    if (leaf.op === "<") return `before ${clock(Math.ceil(value))} ${zone}`;
    if (leaf.op === "<=") return `before ${clock(Math.floor(value) + 1)} ${zone}`;
  }
  const items = (Array.isArray(value) ? value : [value]).map((hour) => clock(Number(hour)));
  const not = leaf.op === "!=" || leaf.op === "not_in" ? "not " : "";
  return `${not}in the hour of ${list(items, "or")} ${zone}`;
}

function textLeaf(leaf: Leaf, names: RuleNames): string {
  const subject: Readonly<Record<string, string>> = {
    message: "the message",
    plan: "the plan",
    model: "the model",
    provider: "the provider",
    task_type: "the task",
    scope_id: "the scope",
    topic: "the topic",
  };
  const of = subject[leaf.fact] ?? leaf.fact;
  const raw = (Array.isArray(leaf.value) ? leaf.value : [leaf.value]) as readonly string[];
  const items = raw.map((item) =>
    leaf.fact === "plan" && leaf.op !== "contains" && leaf.op !== "matches_any"
      ? (names.plans?.[item] ?? item)
      : quoted(item),
  );
  const few = items.length > 8 ? [...items.slice(0, 7), `${items.length - 7} others`] : items;
  switch (leaf.op) {
    case "contains":
      return `${of} contains ${list(few, "and")}`;
    case "matches_any":
      return `${of} contains ${list(few, "or")}`;
    case "!=":
    case "not_in":
      return `${of} is not ${list(few, "or")}`;
    default:
      return `${of} is ${list(few, "or")}`;
  }
}

function numberLeaf(leaf: Leaf, names: RuleNames): string {
  const { fact, op, value } = leaf;
  if (fact === "hour_utc") return hours(leaf, "UTC");
  if (fact === "hour_local") return hours(leaf, "local time");
  const show = (number: number): string => {
    if (fact === "weekday_local") return weekdays[number - 1] ?? String(number);
    if (fact === "cost_today_micros" || fact === "cost_this_month_micros")
      return formatMicros(number, names.currency);
    return formatCount(number);
  };
  let shown: string;
  let many = true;
  if (Array.isArray(value)) {
    const numbers = (value as readonly number[]).map(show);
    shown =
      op === "between"
        ? `${numbers[0]} to ${numbers[1]}`
        : `${op === "not_in" ? "none of " : ""}${list(numbers, "or")}`;
  } else if (typeof value === "object") {
    const plan = planNumbers[(value as { plan: PlanKey }).plan];
    if (fact === "usage_percent" || fact === "complexity" || fact === "weekday_local")
      return `${fact} ${op} ${plan}`;
    const unit = fact in counted ? counted[fact as keyof typeof counted][1] : "spent";
    const relation: Partial<Record<Operator, string>> = {
      ">": "exceed",
      ">=": "reach",
      "<": "are below",
      "<=": "are at most",
      "=": "equal",
      "!=": "differ from",
    };
    return `${unit} ${relation[op] ?? op} ${plan}`;
  } else {
    shown = amount(op, show(value as number), !(fact in counted) || fact === "seconds_since_last_message");
    many = Math.abs(value as number) !== 1;
  }
  switch (fact) {
    case "complexity":
      return `complexity of ${shown}`;
    case "weekday_local":
      return op === "=" ? `on ${show(Number(value))}` : `on weekday ${shown}`;
    case "usage_percent":
      return `${shown} % of the limit used`;
    case "cost_today_micros":
      return `${shown} spent today`;
    case "cost_this_month_micros":
      return `${shown} spent this month`;
    default:
      return `${shown} ${counted[fact as keyof typeof counted][many ? 1 : 0]}`;
  }
}

function leafWords(leaf: Leaf, names: RuleNames): string {
  switch (leaf.fact) {
    case "message":
    case "plan":
    case "model":
    case "provider":
    case "task_type":
    case "scope_id":
    case "topic":
      return textLeaf(leaf, names);
    case "is_flagged":
      return (leaf.value === true) === (leaf.op === "=")
        ? "the account is flagged"
        : "the account is not flagged";
    default:
      return numberLeaf(leaf, names);
  }
}

/** A fact as it was seen, in words: "10 identical messages", "0.42 USD spent today"; null for one that is no figure. */
export function describeFact(fact: string, value: unknown, names: RuleNames = {}): string | null {
  if (fact === "is_flagged") return value === true ? "the account is flagged" : null;
  if (typeof value !== "number") return null;
  switch (fact) {
    case "cost_today_micros":
      return `${formatMicros(value, names.currency)} spent today`;
    case "cost_this_month_micros":
      return `${formatMicros(value, names.currency)} spent this month`;
    case "usage_percent":
      return `${formatCount(value)} % of the limit used`;
    case "complexity":
      return `complexity of ${formatCount(value)}`;
    case "hour_utc":
    case "hour_local":
      return `in the hour of ${clock(value)} ${fact === "hour_utc" ? "UTC" : "local time"}`;
    case "weekday_local":
      return `on ${weekdays[value - 1] ?? `weekday ${value}`}`;
    case "messages_today":
      return `${formatCount(value)} ${value === 1 ? "message" : "messages"} today`;
    default: {
      const unit = Object.hasOwn(counted, fact) ? counted[fact as keyof typeof counted] : null;
      return unit
        ? `${formatCount(value)} ${unit[value === 1 ? 0 : 1]}`
        : `${fact.replaceAll("_", " ")} ${formatCount(value)}`;
    }
  }
}

/** A condition in words: "more than 100 messages a day and the plan is not Business". */
export function describeCondition(condition: Condition, names: RuleNames = {}): string {
  return conditionWords(condition, names, false);
}

function conditionWords(condition: Condition, names: RuleNames, nested: boolean): string {
  if ("fact" in condition) return leafWords(condition, names);
  if ("not" in condition) return `not (${conditionWords(condition.not, names, false)})`;
  const children = "all" in condition ? condition.all : condition.any;
  if (children.length === 0) return "all" in condition ? "always" : "never";
  const parts = children.map((child) => conditionWords(child, names, children.length > 1));
  if (parts.length === 1) return parts[0] ?? "";
  const words = parts.join("all" in condition ? " and " : " or ");
  return nested ? `(${words})` : words;
}

/** An action in words: "block for 30 minutes (spam_identical) and flag for review". */
export function describeAction(action: Action): string {
  const parts: string[] = [];
  for (const key of Object.keys(action) as (keyof Action)[]) {
    switch (key) {
      case "block": {
        const minutes = action.block?.minutes;
        parts.push(minutes === undefined ? "block" : `block for ${duration(minutes * 60_000)}`);
        break;
      }
      case "warn":
        parts.push("warn");
        break;
      case "truncate":
        parts.push(`shorten the message to ${formatCount(action.truncate?.words ?? 0)} words`);
        break;
      case "route":
        parts.push(`use ${action.route?.model}`);
        break;
      case "flag":
        parts.push("flag for review");
        break;
      case "deflect":
        parts.push("deflect with a set reply");
        break;
      case "multiply_cost":
        parts.push(`count tokens ${formatCount(action.multiply_cost?.by ?? 1)} times`);
        break;
      default:
        assertNever(key);
    }
  }
  return list(parts, "and");
}

/** A span of time as people say it: "3 h 12 m", "45 s", "2 d 4 h". Rounded up to its second unit. */
export function duration(ms: number): string {
  const seconds = Math.max(0, Math.ceil(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.ceil(seconds / 60);
  if (minutes < 60) return `${minutes} m`;
  const shownHours = minutes < 1440 ? minutes / 60 : Math.ceil(minutes / 60);
  if (minutes < 1440)
    return minutes % 60 === 0 ? `${minutes / 60} h` : `${Math.floor(shownHours)} h ${minutes % 60} m`;
  const days = Math.floor(shownHours / 24);
  return shownHours % 24 === 0 ? `${days} d` : `${days} d ${shownHours % 24} h`;
}

/** Plans that a top-level condition leaves out: said as "except Business" rather than inside the sentence. */
function takeExceptions(condition: Condition): {
  readonly rest: Condition;
  readonly except: readonly string[];
} {
  if (!("all" in condition)) return { rest: condition, except: [] };
  const except: string[] = [];
  const rest = condition.all.filter((child) => {
    const leaf = "not" in child && "fact" in child.not ? child.not : "fact" in child ? child : null;
    if (!leaf || leaf.fact !== "plan") return true;
    const excludes =
      "not" in child ? leaf.op === "=" || leaf.op === "in" : leaf.op === "!=" || leaf.op === "not_in";
    if (!excludes) return true;
    except.push(...(Array.isArray(leaf.value) ? (leaf.value as readonly string[]) : [leaf.value as string]));
    return false;
  });
  return { rest: { all: rest }, except };
}

/**
 * A rule in one sentence, for people: "Block when more than 100 messages a day, except Business". Says shadow
 * and off, and whom the rule is for.
 */
export function describeRule(
  rule: Pick<Rule, "conditions" | "action" | "applies_to" | "mode" | "is_active">,
  names: RuleNames = {},
): string {
  const { rest, except } = takeExceptions(rule.conditions);
  const action = describeAction(rule.action);
  const empty = "all" in rest && rest.all.length === 0;
  const plan = (id: string): string => names.plans?.[id] ?? id;
  const plans = rule.applies_to.plans ?? [];
  const scopes = rule.applies_to.scopes ?? [];
  const sentence = [
    `${action.charAt(0).toUpperCase()}${action.slice(1)}${empty ? " always" : ` when ${describeCondition(rest, names)}`}`,
    plans.length > 0 ? `for ${list(plans.map(plan), "and")}` : "",
    scopes.length > 0 ? `in ${list(scopes, "and")}` : "",
    except.length > 0 ? `except ${list(except.map(plan), "and")}` : "",
  ];
  const state =
    !rule.is_active || rule.mode === "off"
      ? " (off)"
      : rule.mode === "shadow"
        ? " (shadow: recorded only)"
        : "";
  return `${sentence.filter((part) => part !== "").join(", ")}${state}`;
}
