import { statusOfBlock } from "./status.ts";
import { foldText, phraseText, soughtPhrase } from "./text.ts";
import type { FactName, NumberFact, Operator, PlanKey, TextFact } from "./facts.ts";
import type { Condition, Facts, FactValue, Leaf, LeafValue, PlanNumbers, Rule } from "./types.ts";

/** What evaluation needs to know besides the facts. */
export interface RuleContext {
  /** The account's plan in numbers, for values such as `{"plan":"daily_limit"}`. */
  readonly plan: PlanNumbers;
  /** The provider of a model by the price table, null if unknown. Asked when a rule has routed. */
  readonly providerOf?: (model: string) => string | null;
}

/** What the user is warned of, and by which rule. */
export interface RuleWarning {
  readonly rule_name: string;
  readonly message: string;
}

/** What the rules alone decide about a call (limits and balance come after: see `decide`). */
export interface RuleOutcome {
  readonly decision: "allow" | "warn" | "block";
  /** The rule that blocked or deflected; null unless the decision is block. */
  readonly blocked_by: Rule | null;
  readonly reason: string | null;
  /** The rule's own words for the user; null: a standard message by reason. */
  readonly message: string | null;
  readonly http_status: 200 | 402 | 403 | 429;
  /** Minutes for which the account's next calls are blocked too; null for none. */
  readonly block_minutes: number | null;
  /** The model of the latest route; null when no rule routed. */
  readonly route: string | null;
  readonly truncate_to_words: number | null;
  /** Reason of the first flag; the account is flagged with it if it is not flagged already. */
  readonly flag: string | null;
  readonly warnings: readonly RuleWarning[];
  /** Factors on tokens, in thousandths, to multiply (see `multiplyTokens`). */
  readonly factors_thousandths: readonly number[];
  /** Rules in force that matched, in order. */
  readonly matched: readonly Rule[];
  /** Rules in shadow that matched, in order: recorded, nothing changed. */
  readonly shadow_matched: readonly Rule[];
}

/** A leaf that decided its rule, with what it saw. */
export interface LeafTrace {
  /** Place in the rule, e.g. `conditions.all[0]`. */
  readonly path: string;
  readonly fact: FactName;
  readonly op: Leaf["op"];
  readonly value: LeafValue;
  /** The fact as it was. */
  readonly seen: FactValue;
  /** The number compared with, where the value names one of the plan's; null when the plan has none. */
  readonly plan_value?: number | null;
  readonly matched: boolean;
}

/** One rule's line in a receipt. */
export interface RuleTrace {
  readonly rule_name: string;
  readonly version: number;
  readonly mode: "enforce" | "shadow";
  readonly matched: boolean;
  /** Every fact the rule reads, as it was. */
  readonly facts: Readonly<Record<string, FactValue>>;
  /** The leaves that made it so: all true ones of a match, the first false one of a miss. */
  readonly decided_by: readonly LeafTrace[];
}

/** The facts of one call as the rules that are still to run see them: a route changes model and provider. */
class View {
  #phrases: Map<TextFact, string> | null = null;
  #model: string | null = null;
  #provider: string | null = null;

  readonly facts: Facts;
  readonly context: RuleContext;

  constructor(facts: Facts, context: RuleContext) {
    this.facts = facts;
    this.context = context;
  }

  route(model: string): void {
    this.#model = model;
    this.#provider = this.context.providerOf?.(model) ?? null;
    this.#phrases = null;
  }

  seen(fact: FactName): FactValue {
    if (this.#model !== null && fact === "model") return this.#model;
    if (this.#model !== null && fact === "provider") return this.#provider;
    return this.facts[fact] ?? null;
  }

  /** A text fact as phrases are looked for in it; null if the fact is. */
  phrases(fact: TextFact): string | null {
    const text = this.seen(fact);
    if (typeof text !== "string") return null;
    this.#phrases ??= new Map();
    let phrases = this.#phrases.get(fact);
    if (phrases === undefined) {
      // The message was folded when it was read, and folding is not meant to run twice.
      phrases = phraseText(fact === "message" ? text : foldText(text));
      this.#phrases.set(fact, phrases);
    }
    return phrases;
  }
}

type Test = (view: View) => boolean;

/** A condition made ready, with its place in the rule. */
type Node = { readonly path: string; readonly test: Test } & (
  | { readonly leaf: Leaf }
  | { readonly kind: "all" | "any" | "not"; readonly children: readonly Node[] }
);

const isPlanValue = (value: LeafValue): value is { readonly plan: PlanKey } =>
  typeof value === "object" && "plan" in value;

type Given = number | string | boolean;

/** How two values of one type compare, of which neither is null. */
const comparisons: Readonly<Partial<Record<Operator, (seen: Given, value: Given) => boolean>>> = {
  "=": (seen, value) => seen === value,
  "!=": (seen, value) => seen !== value,
  ">": (seen, value) => seen > value,
  ">=": (seen, value) => seen >= value,
  "<": (seen, value) => seen < value,
  "<=": (seen, value) => seen <= value,
};

/** A number fact against a number: most leaves are this, and it is asked most often. (undefined compares as NaN, null as 0.) */
function compileThreshold(fact: NumberFact, op: Operator, value: number): Test | null {
  switch (op) {
    case ">":
      return ({ facts }) => (facts[fact] as number) > value && facts[fact] !== null;
    case ">=":
      return ({ facts }) => (facts[fact] as number) >= value && facts[fact] !== null;
    case "<":
      return ({ facts }) => (facts[fact] as number) < value && facts[fact] !== null;
    case "<=":
      return ({ facts }) => (facts[fact] as number) <= value && facts[fact] !== null;
    default:
      return null;
  }
}

/** A leaf as a test. A fact that is null, or a plan's number that is, matches nothing. */
function compileLeaf({ fact, op, value }: Leaf): Test {
  const whereGiven =
    (test: (seen: Given) => boolean): Test =>
    (view) => {
      const seen = view.seen(fact);
      return seen !== null && test(seen);
    };
  if (op === "contains" || op === "matches_any") {
    const phrases = (Array.isArray(value) ? value : [value]).map((phrase) => soughtPhrase(String(phrase)));
    return (view) => {
      const text = view.phrases(fact as TextFact);
      if (text === null) return false;
      return op === "contains"
        ? phrases.every((phrase) => text.includes(phrase))
        : phrases.some((phrase) => text.includes(phrase));
    };
  }
  const compare = comparisons[op];
  if (isPlanValue(value))
    return (view) => {
      const seen = view.seen(fact);
      const number = view.context.plan[value.plan];
      return seen !== null && number !== null && compare !== undefined && compare(seen, number);
    };
  if (Array.isArray(value)) {
    const list = value as readonly (number | string)[];
    if (op === "between") {
      const [low = Number.NaN, high = Number.NaN] = list as readonly number[];
      return whereGiven((seen) => Number(seen) >= low && Number(seen) <= high);
    }
    const set = new Set<Given>(list);
    return whereGiven((seen) => set.has(seen) === (op === "in"));
  }
  const threshold = typeof value === "number" ? compileThreshold(fact as NumberFact, op, value) : null;
  return threshold ?? whereGiven((seen) => compare !== undefined && compare(seen, value as Given));
}

function compileCondition(condition: Condition, path: string): Node {
  if ("fact" in condition) return { path, test: compileLeaf(condition), leaf: condition };
  if ("not" in condition) {
    const child = compileCondition(condition.not, `${path}.not`);
    return { path, test: (view) => !child.test(view), kind: "not", children: [child] };
  }
  const kind = "all" in condition ? "all" : "any";
  const list = "all" in condition ? condition.all : condition.any;
  const children = list.map((item, index) => compileCondition(item, `${path}.${kind}[${index}]`));
  const [only, more] = children;
  if (only && !more) return { path, test: only.test, kind, children };
  const test: Test =
    kind === "all"
      ? (view) => children.every((child) => child.test(view))
      : (view) => children.some((child) => child.test(view));
  return { path, test, kind, children };
}

/** The leaves that made a node's result what it is. */
function decisiveLeaves(node: Node, view: View, found: LeafTrace[]): void {
  const matched = node.test(view);
  if ("leaf" in node) {
    const { fact, op, value } = node.leaf;
    found.push({
      path: node.path,
      fact,
      op,
      value,
      seen: view.seen(fact),
      ...(isPlanValue(value) ? { plan_value: view.context.plan[value.plan] } : {}),
      matched,
    });
    return;
  }
  // One false child decides a failed `all`, one true child a matched `any`; else all of them together.
  const isOne = node.kind === "all" ? !matched : node.kind === "any" && matched;
  if (!isOne) {
    for (const child of node.children) decisiveLeaves(child, view, found);
    return;
  }
  const child = node.children.find((candidate) => candidate.test(view) === matched);
  if (child) decisiveLeaves(child, view, found);
}

/** Each comparison of a condition, in order. */
export function* leavesOf(condition: Condition): Generator<Leaf> {
  if ("fact" in condition) yield condition;
  else if ("not" in condition) yield* leavesOf(condition.not);
  else for (const child of "all" in condition ? condition.all : condition.any) yield* leavesOf(child);
}

/** The facts that a condition reads. */
export function factsOf(condition: Condition): readonly FactName[] {
  return [...new Set(Array.from(leavesOf(condition), ({ fact }) => fact))];
}

/** Order of text by its UTF-8 bytes, which is the order of its code points. */
export function compareBytes(a: string, b: string): number {
  const shorter = Math.min(a.length, b.length);
  for (let index = 0; index < shorter; index++) {
    const left = a.charCodeAt(index);
    const right = b.charCodeAt(index);
    if (left === right) continue;
    // Surrogates stand for code points above U+FFFF, so they come after every other unit.
    const leftHigh = left >= 0xd800 && left <= 0xdfff;
    const rightHigh = right >= 0xd800 && right <= 0xdfff;
    return leftHigh === rightHigh ? left - right : leftHigh ? 1 : -1;
  }
  return a.length - b.length;
}

/** Rules in the order in which they run: priority, then name by bytes. Rules that are off stay in place. */
export function orderRules<R extends Pick<Rule, "priority" | "rule_name">>(rules: readonly R[]): R[] {
  return rules.toSorted((a, b) => a.priority - b.priority || compareBytes(a.rule_name, b.rule_name));
}

/** True for a rule that is looked at: active, and in force or in shadow. */
export function isLookedAt(rule: Rule): boolean {
  return rule.is_active && rule.mode !== "off";
}

const none: readonly never[] = Object.freeze([]);

/** A rule set made ready to judge many calls. Make one when the rules change; not for use from inside itself. */
export interface CompiledRules {
  /** The rules that are looked at, in order. */
  readonly rules: readonly Rule[];
  /** Judges one call. */
  evaluate(facts: Facts, context: RuleContext): RuleOutcome;
  /** Judges one call and explains it, rule by rule, up to the one that stopped it. */
  explain(
    facts: Facts,
    context: RuleContext,
  ): { readonly outcome: RuleOutcome; readonly trace: readonly RuleTrace[] };
}

const nothingMatched: RuleOutcome = Object.freeze({
  decision: "allow",
  blocked_by: null,
  reason: null,
  message: null,
  http_status: 200,
  block_minutes: null,
  route: null,
  truncate_to_words: null,
  flag: null,
  warnings: none,
  factors_thousandths: none,
  matched: none,
  shadow_matched: none,
});

/** A rule made ready to be asked. */
interface Prepared {
  readonly rule: Rule;
  readonly root: Node;
  readonly test: Test;
  /** Null for a rule that is for everyone. */
  readonly applies: ((facts: Facts) => boolean) | null;
}

function prepare(rule: Rule): Prepared {
  const { plans, scopes } = rule.applies_to;
  const root = compileCondition(rule.conditions, "conditions");
  return {
    rule,
    root,
    test: root.test,
    applies:
      plans?.length || scopes?.length
        ? (facts) =>
            (!plans?.length || plans.includes(facts.plan as string)) &&
            (!scopes?.length || scopes.includes(facts.scope_id as string))
        : null,
  };
}

function traceOf({ rule, root }: Prepared, matched: boolean, view: View): RuleTrace {
  const leaves: LeafTrace[] = [];
  decisiveLeaves(root, view, leaves);
  return {
    rule_name: rule.rule_name,
    version: rule.version,
    mode: rule.mode === "shadow" ? "shadow" : "enforce",
    matched,
    facts: Object.fromEntries(factsOf(rule.conditions).map((fact) => [fact, view.seen(fact)])),
    decided_by: leaves,
  };
}

/** Compiles parsed rules (see `parseRules`). Semantics: docs/RULES.md, step 7. */
export function compileRules(rules: readonly Rule[]): CompiledRules {
  const prepared = orderRules(rules.filter(isLookedAt)).map(prepare);

  function run(facts: Facts, context: RuleContext, trace: RuleTrace[] | null): RuleOutcome {
    const view = new View(facts, context);
    // Most calls match nothing: lists are made when something does.
    let matched: Rule[] | null = null;
    let shadowMatched: Rule[] | null = null;
    let warnings: RuleWarning[] | null = null;
    let factors: number[] | null = null;
    let route: string | null = null;
    let words: number | null = null;
    let flag: string | null = null;
    let stop: Rule | null = null;
    for (const item of prepared) {
      if (item.applies !== null && !item.applies(facts)) continue;
      const matches = item.test(view);
      if (trace !== null) trace.push(traceOf(item, matches, view));
      if (!matches) continue;
      const { rule } = item;
      if (rule.mode === "shadow") {
        (shadowMatched ??= []).push(rule);
        continue;
      }
      (matched ??= []).push(rule);
      const { action } = rule;
      if (action.warn) (warnings ??= []).push({ rule_name: rule.rule_name, message: action.warn.message });
      if (action.truncate) words = Math.min(words ?? action.truncate.words, action.truncate.words);
      if (action.route) {
        route = action.route.model;
        view.route(route);
      }
      if (action.flag) flag ??= action.flag.reason;
      if (action.multiply_cost) (factors ??= []).push(Math.round(action.multiply_cost.by * 1000));
      if (action.block || action.deflect) {
        stop = rule;
        break;
      }
    }
    if (matched === null && shadowMatched === null) return nothingMatched;
    const { block, deflect } = stop?.action ?? {};
    const reason = stop === null ? null : (block?.reason ?? deflect?.reason ?? "off_topic");
    return {
      decision: stop !== null ? "block" : warnings !== null ? "warn" : "allow",
      blocked_by: stop,
      reason,
      message: block?.message ?? deflect?.message ?? null,
      http_status: reason === null ? 200 : statusOfBlock(reason),
      block_minutes: block?.minutes ?? null,
      route,
      truncate_to_words: words,
      flag,
      warnings: warnings ?? none,
      factors_thousandths: factors ?? none,
      matched: matched ?? none,
      shadow_matched: shadowMatched ?? none,
    };
  }

  return {
    rules: prepared.map((item) => item.rule),
    evaluate: (facts, context) => run(facts, context, null),
    explain(facts, context) {
      const trace: RuleTrace[] = [];
      const outcome = run(facts, context, trace);
      return { outcome, trace };
    },
  };
}

/** Judges one call by rules that are used once. For many calls compile them once (`compileRules`). */
export function evaluateRules(
  rules: readonly Rule[],
  facts: Facts,
  context: RuleContext,
): { readonly outcome: RuleOutcome; readonly trace: readonly RuleTrace[] } {
  return compileRules(rules).explain(facts, context);
}

/**
 * Tokens held or charged under `multiply_cost`: ⌈tokens × product of the factors⌉, exact, at most 2^53 − 1.
 * Source: docs/RULES.md, step 7.
 */
export function multiplyTokens(count: number, factorsThousandths: readonly number[]): number {
  if (factorsThousandths.length === 0) return count;
  let numerator = BigInt(count);
  let denominator = 1n;
  for (const factor of factorsThousandths) {
    numerator *= BigInt(factor);
    denominator *= 1000n;
  }
  const product = (numerator + denominator - 1n) / denominator;
  return product > BigInt(Number.MAX_SAFE_INTEGER) ? Number.MAX_SAFE_INTEGER : Number(product);
}
