import { formatMicro } from "../money/index.ts";
import { assertNever } from "../result.ts";
import { facts, type FactName, type Operator, type PlanKey } from "./facts.ts";
import type { Action, Condition, Leaf, Rule } from "./types.ts";

/** Names that make a sentence readable; ids stand in where a name is not known. */
export interface RuleNames {
  /** Plan names by id, e.g. `{ gold_plus: "Gold+" }`. */
  readonly plans?: Readonly<Record<string, string>>;
  /** Currency code of the cost facts, e.g. "GBP". */
  readonly currency?: string;
}

/** [one, many] of what a numeric fact counts; null for one that reads otherwise. */
function countedBy(fact: FactName): readonly [one: string, many: string] | null {
  const entry = facts[fact];
  return entry.type === "number" && Array.isArray(entry.words) ? (entry.words as [string, string]) : null;
}

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
  const { words } = facts[leaf.fact];
  const of = typeof words === "string" ? words : leaf.fact;
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
  const words = facts[fact].words as object;
  if ("hour" in words) return hours(leaf, String(words.hour));
  const show = (number: number): string => {
    if ("weekday" in words) return weekdays[number - 1] ?? String(number);
    return "money" in words ? formatMicros(number, names.currency) : formatCount(number);
  };
  const counted = countedBy(fact);
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
    if (counted === null && !("money" in words)) return `${fact} ${op} ${plan}`;
    const of = counted?.[1] ?? "spent";
    const relation: Partial<Record<Operator, string>> = {
      ">": `${of} exceed ${plan}`,
      ">=": `${of} reach ${plan}`,
      "<": `${of} are below ${plan}`,
      "<=": `${of} are at most ${plan}`,
      "=": `${of} equal ${plan}`,
      "!=": `${of} differ from ${plan}`,
    };
    return relation[op] ?? `${of} ${op} ${plan}`;
  } else {
    shown = amount(op, show(value as number), counted === null || fact === "seconds_since_last_message");
    many = Math.abs(value as number) !== 1;
  }
  if ("weekday" in words) return op === "=" ? `on ${show(Number(value))}` : `on weekday ${shown}`;
  return withUnit(fact, shown, many);
}

/** A figure with what it counts after it, or before it. */
function withUnit(fact: FactName, shown: string, many: boolean): string {
  const words = facts[fact].words as object;
  if ("score" in words) return `${String(words.score)} ${shown}`;
  if ("percent" in words) return `${shown} % ${String(words.percent)}`;
  if ("money" in words) return `${shown} ${String(words.money)}`;
  return `${shown} ${countedBy(fact)?.[many ? 1 : 0] ?? fact}`;
}

function leafWords(leaf: Leaf, names: RuleNames): string {
  const entry = facts[leaf.fact];
  if (entry.type === "text") return textLeaf(leaf, names);
  if (entry.type === "number") return numberLeaf(leaf, names);
  return entry.words[(leaf.value === true) === (leaf.op === "=") ? 0 : 1];
}

/** A fact as it was seen, in words: "10 identical messages", "0.42 USD spent today"; null for one that is no figure. */
export function describeFact(fact: string, value: unknown, names: RuleNames = {}): string | null {
  const entry = Object.hasOwn(facts, fact) ? facts[fact as FactName] : null;
  if (entry?.type === "boolean") return value === true ? entry.words[0] : null;
  if (typeof value !== "number") return null;
  const shown = formatCount(value);
  if (entry?.type !== "number") return `${fact.replaceAll("_", " ")} ${shown}`;
  const words = entry.words as object;
  if ("hour" in words) return `in the hour of ${clock(value)} ${String(words.hour)}`;
  if ("weekday" in words) return `on ${weekdays[value - 1] ?? `weekday ${value}`}`;
  if ("money" in words) return withUnit(fact as FactName, formatMicros(value, names.currency), true);
  // As a limit it is "messages a day"; as a figure of one day, "messages today".
  if (fact === "messages_today") return `${shown} ${value === 1 ? "message" : "messages"} today`;
  return withUnit(fact as FactName, shown, value !== 1);
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

/** What a rule that is still being written lacks. */
export interface RuleGaps {
  readonly action?: boolean;
  /** Some of its conditions; those it has are described. */
  readonly conditions?: boolean;
}

/**
 * A rule in one sentence, for people: "Block when more than 100 messages a day, except Business". Says shadow
 * and off, and whom the rule is for. What it lacks is an ellipsis.
 */
export function describeRule(
  rule: Pick<Rule, "conditions" | "action" | "applies_to" | "mode" | "is_active">,
  names: RuleNames = {},
  gaps: RuleGaps = {},
): string {
  const { rest, except } = takeExceptions(rule.conditions);
  const action = gaps.action ? "…" : describeAction(rule.action);
  const isEmpty = "all" in rest && rest.all.length === 0;
  const when = isEmpty ? (gaps.conditions ? "" : " always") : ` when ${describeCondition(rest, names)}`;
  const gap = gaps.conditions && !(gaps.action && isEmpty) ? " …" : "";
  const plan = (id: string): string => names.plans?.[id] ?? id;
  const plans = rule.applies_to.plans ?? [];
  const scopes = rule.applies_to.scopes ?? [];
  const sentence = [
    `${action.charAt(0).toUpperCase()}${action.slice(1)}${when}${gap}`,
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
