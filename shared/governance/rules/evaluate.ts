import { booleanFacts, factType, numberFacts, planKeys, textFacts } from "./facts.ts";
import { statusOfBlock } from "./status.ts";
import { foldText, phraseText, soughtPhrase } from "./text.ts";
import type { Condition, FactName, Facts, FactValue, Leaf, LeafValue, PlanNumbers, Rule } from "./types.ts";

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

/** What the rules alone say of a call (limits and balance come after: see `decide`). */
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

type Test = () => boolean;

interface Node {
  readonly test: Test;
  readonly path: string;
  readonly kind: "all" | "any" | "not" | "leaf";
  readonly children: readonly Node[];
  readonly leaf: Leaf | null;
}

/** A rule with its action spelt out, so that all have one shape: reading many shapes is what costs. */
interface Prepared {
  readonly rule: Rule;
  readonly shadow: boolean;
  readonly plans: ReadonlySet<string> | null;
  readonly scopes: ReadonlySet<string> | null;
  readonly root: Node;
  /** Null where the rule's range is all of its conditions. */
  readonly test: Test | null;
  readonly warning: RuleWarning | null;
  readonly words: number | null;
  readonly route: string | null;
  readonly flag: string | null;
  readonly factorThousandths: number | null;
  /** Reason of a block or a deflection; null for a rule that does not stop. */
  readonly reason: string | null;
  readonly message: string | null;
  readonly status: 402 | 403 | 429;
  readonly minutes: number | null;
}

const planSlot = numberFacts.length;
const booleanSlot = planSlot + planKeys.length;
const slotCount = booleanSlot + booleanFacts.length;
const modelSlot = textFacts.indexOf("model");
const providerSlot = textFacts.indexOf("provider");
const messageSlot = textFacts.indexOf("message");

/**
 * The facts of one call, laid out for speed. A number that is null is NaN, which no comparison matches: just
 * what a null fact means.
 */
class Slots {
  readonly numbers = new Float64Array(slotCount);
  /** One bit for each slot that some rule reads. */
  numbersUsed = 0;
  textsUsed = 0;
  readonly texts: (string | null)[] = textFacts.map(() => null);
  readonly phrases: (string | null)[] = textFacts.map(() => null);

  load(facts: Facts, plan: PlanNumbers): void {
    const { numbers, texts, numbersUsed, textsUsed } = this;
    // Written out, and only what some rule reads: a computed key costs several times as much, and this is most of the
    // work of a small rule set. Order: `numberFacts`, then `planKeys`, then `booleanFacts`.
    if (numbersUsed & 0x1) numbers[0] = facts.tokens_today ?? Number.NaN;
    if (numbersUsed & 0x2) numbers[1] = facts.tokens_this_month ?? Number.NaN;
    if (numbersUsed & 0x4) numbers[2] = facts.messages_today ?? Number.NaN;
    if (numbersUsed & 0x8) numbers[3] = facts.identical_messages ?? Number.NaN;
    if (numbersUsed & 0x10) numbers[4] = facts.seconds_since_last_message ?? Number.NaN;
    if (numbersUsed & 0x20) numbers[5] = facts.rapid_messages ?? Number.NaN;
    if (numbersUsed & 0x40) numbers[6] = facts.conversation_messages ?? Number.NaN;
    if (numbersUsed & 0x80) numbers[7] = facts.message_words ?? Number.NaN;
    if (numbersUsed & 0x100) numbers[8] = facts.message_characters ?? Number.NaN;
    if (numbersUsed & 0x200) numbers[9] = facts.estimated_tokens ?? Number.NaN;
    if (numbersUsed & 0x400) numbers[10] = facts.complexity ?? Number.NaN;
    if (numbersUsed & 0x800) numbers[11] = facts.hour_utc ?? Number.NaN;
    if (numbersUsed & 0x1000) numbers[12] = facts.hour_local ?? Number.NaN;
    if (numbersUsed & 0x2000) numbers[13] = facts.weekday_local ?? Number.NaN;
    if (numbersUsed & 0x4000) numbers[14] = facts.available_tokens ?? Number.NaN;
    if (numbersUsed & 0x8000) numbers[15] = facts.usage_percent ?? Number.NaN;
    if (numbersUsed & 0x10000) numbers[16] = facts.cost_today_micros ?? Number.NaN;
    if (numbersUsed & 0x20000) numbers[17] = facts.cost_this_month_micros ?? Number.NaN;
    if (numbersUsed & 0x40000) numbers[18] = facts.account_age_days ?? Number.NaN;
    if (numbersUsed & 0x80000) numbers[19] = plan.monthly_allowance ?? Number.NaN;
    if (numbersUsed & 0x100000) numbers[20] = plan.daily_limit ?? Number.NaN;
    if (numbersUsed & 0x200000) numbers[21] = plan.monthly_limit ?? Number.NaN;
    if (numbersUsed & 0x400000)
      numbers[22] = facts.is_flagged === true ? 1 : facts.is_flagged === false ? 0 : Number.NaN;
    if (textsUsed === 0) return;
    // Order: `textFacts`.
    texts[0] = facts.message ?? null;
    texts[1] = facts.plan ?? null;
    texts[2] = facts.model ?? null;
    texts[3] = facts.provider ?? null;
    texts[4] = facts.task_type ?? null;
    texts[5] = facts.scope_id ?? null;
    texts[6] = facts.topic ?? null;
    const phrases = this.phrases;
    for (let slot = 0; slot < phrases.length; slot++) phrases[slot] = null;
  }

  route(model: string, provider: string | null): void {
    this.texts[modelSlot] = model;
    this.texts[providerSlot] = provider;
    this.phrases[modelSlot] = null;
    this.phrases[providerSlot] = null;
  }

  /** The text of a slot as phrases are looked for in it; null if the fact is. */
  phrase(slot: number): string | null {
    const text = this.texts[slot] ?? null;
    if (text === null) return null;
    // The message was folded when it was read, and folding is not meant to run twice.
    return (this.phrases[slot] ??= phraseText(slot === messageSlot ? text : foldText(text)));
  }

  /** Counts a fact, and the plan's numbers that it is compared with, among those that are read. */
  use(condition: Condition): void {
    if ("fact" in condition) {
      const text = (textFacts as readonly string[]).indexOf(condition.fact);
      if (text >= 0) this.textsUsed |= 1 << text;
      else this.numbersUsed |= 1 << numberSlot(condition.fact);
      const value = condition.value;
      if (typeof value === "object" && "plan" in value)
        this.numbersUsed |= 1 << (planSlot + planKeys.indexOf(value.plan));
    } else if ("not" in condition) this.use(condition.not);
    else for (const child of "all" in condition ? condition.all : condition.any) this.use(child);
  }

  seen(fact: FactName): FactValue {
    const text = (textFacts as readonly string[]).indexOf(fact);
    if (text >= 0) return this.texts[text] ?? null;
    const number = this.numbers[numberSlot(fact)] ?? Number.NaN;
    if (Number.isNaN(number)) return null;
    return fact === "is_flagged" ? number === 1 : number;
  }
}

function numberSlot(fact: FactName): number {
  return fact === "is_flagged" ? booleanSlot : (numberFacts as readonly string[]).indexOf(fact);
}

function compileNumber(numbers: Float64Array, slot: number, leaf: Leaf): Test {
  const at = (): number => numbers[slot] as number;
  const value = leaf.value;
  if (Array.isArray(value)) {
    const list = value as readonly number[];
    if (leaf.op === "between") {
      const [low = Number.NaN, high = Number.NaN] = list;
      return () => (numbers[slot] as number) >= low && (numbers[slot] as number) <= high;
    }
    // A Set finds NaN in itself, but a rule cannot hold NaN; -0 and 0 are one in a Set as in decimal.
    const set = new Set(list);
    if (leaf.op === "in") return () => set.has(at());
    return () => !Number.isNaN(at()) && !set.has(at());
  }
  if (typeof value === "object") {
    const other = planSlot + planKeys.indexOf((value as { plan: (typeof planKeys)[number] }).plan);
    switch (leaf.op) {
      case "=":
        return () => numbers[slot] === numbers[other];
      case "!=":
        return () =>
          (numbers[slot] as number) < (numbers[other] as number) ||
          (numbers[slot] as number) > (numbers[other] as number);
      case ">":
        return () => (numbers[slot] as number) > (numbers[other] as number);
      case ">=":
        return () => (numbers[slot] as number) >= (numbers[other] as number);
      case "<":
        return () => (numbers[slot] as number) < (numbers[other] as number);
      default:
        return () => (numbers[slot] as number) <= (numbers[other] as number);
    }
  }
  const constant = Number(value);
  switch (leaf.op) {
    case "=":
      return () => numbers[slot] === constant;
    case "!=":
      return () => (numbers[slot] as number) < constant || (numbers[slot] as number) > constant;
    case ">":
      return () => (numbers[slot] as number) > constant;
    case ">=":
      return () => (numbers[slot] as number) >= constant;
    case "<":
      return () => (numbers[slot] as number) < constant;
    default:
      return () => (numbers[slot] as number) <= constant;
  }
}

function compileText(slots: Slots, slot: number, leaf: Leaf): Test {
  const texts = slots.texts;
  const value = leaf.value as string | readonly string[];
  switch (leaf.op) {
    case "=":
      return () => texts[slot] === value;
    case "!=":
      return () => texts[slot] !== null && texts[slot] !== value;
    case "in": {
      const set = new Set<string | null>(value);
      return () => set.has(texts[slot] ?? null);
    }
    case "not_in": {
      const set = new Set<string | null>(value);
      return () => texts[slot] !== null && !set.has(texts[slot] ?? null);
    }
    default: {
      const phrases = (typeof value === "string" ? [value] : value).map(soughtPhrase);
      if (leaf.op === "contains")
        return () => {
          const text = slots.phrase(slot);
          return text !== null && phrases.every((phrase) => text.includes(phrase));
        };
      return () => {
        const text = slots.phrase(slot);
        return text !== null && phrases.some((phrase) => text.includes(phrase));
      };
    }
  }
}

function compileCondition(slots: Slots, condition: Condition, path: string): Node {
  if ("fact" in condition) {
    const text = (textFacts as readonly string[]).indexOf(condition.fact);
    const test =
      text >= 0
        ? compileText(slots, text, condition)
        : compileNumber(slots.numbers, numberSlot(condition.fact), condition);
    return { test, path, kind: "leaf", children: [], leaf: condition };
  }
  if ("not" in condition) {
    const child = compileCondition(slots, condition.not, `${path}.not`);
    const inner = child.test;
    return { test: () => !inner(), path, kind: "not", children: [child], leaf: null };
  }
  const kind = "all" in condition ? "all" : "any";
  const list = "all" in condition ? condition.all : condition.any;
  const children = list.map((item, index) => compileCondition(slots, item, `${path}.${kind}[${index}]`));
  const tests = children.map((child) => child.test);
  const [first, second] = tests;
  let test: Test;
  if (first && tests.length === 1) test = first;
  else if (first && second && tests.length === 2)
    test = kind === "all" ? () => first() && second() : () => first() || second();
  else if (kind === "all")
    test = () => {
      for (let index = 0; index < tests.length; index++) if (!(tests[index] as Test)()) return false;
      return true;
    };
  else
    test = () => {
      for (let index = 0; index < tests.length; index++) if ((tests[index] as Test)()) return true;
      return false;
    };
  return { test, path, kind, children, leaf: null };
}

/** The leaves that made a node's result what it is. */
function decisiveLeaves(node: Node, slots: Slots, found: LeafTrace[]): void {
  const matched = node.test();
  if (node.leaf) {
    const { fact, op, value } = node.leaf;
    const planned =
      typeof value === "object" && !Array.isArray(value)
        ? (value as { plan: (typeof planKeys)[number] })
        : null;
    const number = planned ? (slots.numbers[planSlot + planKeys.indexOf(planned.plan)] ?? Number.NaN) : null;
    found.push({
      path: node.path,
      fact,
      op,
      value,
      seen: slots.seen(fact),
      ...(number === null ? {} : { plan_value: Number.isNaN(number) ? null : number }),
      matched,
    });
    return;
  }
  // One false child decides a failed `all`, one true child a matched `any`; else all of them together.
  const one = node.kind === "all" ? !matched : node.kind === "any" ? matched : false;
  if (!one) {
    for (const child of node.children) decisiveLeaves(child, slots, found);
    return;
  }
  const child = node.children.find((candidate) => candidate.test() === matched);
  if (child) decisiveLeaves(child, slots, found);
}

const floatBits = new Float64Array(1);
const wholeBits = new BigInt64Array(floatBits.buffer);

/** The next number above (or below) among those a computer has: `x > c` is `x ≥ nextAbove(c)`, exactly. */
function nextAbove(value: number, below = false): number {
  if (value === 0) return below ? -Number.MIN_VALUE : Number.MIN_VALUE;
  floatBits[0] = value;
  wholeBits[0] = (wholeBits[0] as bigint) + (value > 0 !== below ? 1n : -1n);
  return floatBits[0] as number;
}

/** A range of one number that a rule cannot match outside of. */
interface Range {
  readonly slot: number;
  readonly low: number;
  readonly high: number;
  /** True when the range is the whole condition. */
  readonly isWhole: boolean;
}

const anywhere: Range = { slot: -1, low: Number.NaN, high: Number.NaN, isWhole: false };

/** A range that must hold for a condition to match; most rules on counters are nothing else. */
function rangeOf(condition: Condition): Range {
  if ("all" in condition) {
    const ranges = condition.all.map(rangeOf);
    const found = ranges.find((range) => range !== anywhere) ?? anywhere;
    return found.isWhole && condition.all.length > 1 ? { ...found, isWhole: false } : found;
  }
  if (!("fact" in condition) || factType(condition.fact) !== "number") return anywhere;
  const slot = numberSlot(condition.fact);
  const { op, value } = condition;
  if (op === "between" && Array.isArray(value)) {
    const [low = Number.NaN, high = Number.NaN] = value as readonly number[];
    return { slot, low, high, isWhole: true };
  }
  if (typeof value !== "number") return anywhere;
  const { NEGATIVE_INFINITY: lowest, POSITIVE_INFINITY: highest } = Number;
  switch (op) {
    case "=":
      return { slot, low: value, high: value, isWhole: true };
    case ">=":
      return { slot, low: value, high: highest, isWhole: true };
    case ">":
      return { slot, low: nextAbove(value), high: highest, isWhole: true };
    case "<=":
      return { slot, low: lowest, high: value, isWhole: true };
    case "<":
      return { slot, low: lowest, high: nextAbove(value, true), isWhole: true };
    default:
      return anywhere;
  }
}

interface IndexedRange extends Range {
  /** Place of the rule in the order of evaluation. */
  readonly rule: number;
}

/**
 * Which rules can match at all, by their ranges: one look at each fact instead of one at each rule. Most calls match
 * nothing, and most rules are about few facts.
 */
class RangeIndex {
  /** One bit for each rule that can match; 32 rules a word. */
  readonly candidates: Int32Array;
  readonly #always: Int32Array;
  /** One bit for each fact that some range is about. */
  #used = 0;
  /** All ranges of a fact lie between these. */
  readonly #lowest = new Float64Array(numberFacts.length).fill(Number.POSITIVE_INFINITY);
  readonly #highest = new Float64Array(numberFacts.length).fill(Number.NEGATIVE_INFINITY);
  readonly #ranges: readonly (readonly IndexedRange[])[];

  constructor(ranges: readonly Range[]) {
    this.candidates = new Int32Array(Math.ceil(ranges.length / 32));
    this.#always = new Int32Array(this.candidates.length);
    this.#ranges = numberFacts.map((_, slot) =>
      ranges.flatMap((range, rule) => (range.slot === slot ? [{ ...range, rule }] : [])),
    );
    for (const [rule, range] of ranges.entries()) {
      if (range.slot < 0) {
        this.#always[rule >> 5] = (this.#always[rule >> 5] as number) | (1 << (rule & 31));
        continue;
      }
      this.#used |= 1 << range.slot;
      this.#lowest[range.slot] = Math.min(this.#lowest[range.slot] as number, range.low);
      this.#highest[range.slot] = Math.max(this.#highest[range.slot] as number, range.high);
    }
  }

  #add(slot: number, value: number | null): void {
    // A comparison reads null as 0; null matches nothing.
    if (value === null) return;
    const ranges = this.#ranges[slot] as readonly IndexedRange[];
    for (let index = 0; index < ranges.length; index++) {
      const range = ranges[index] as IndexedRange;
      if (value < range.low || value > range.high) continue;
      const word = range.rule >> 5;
      this.candidates[word] = (this.candidates[word] as number) | (1 << (range.rule & 31));
    }
  }

  /** Fills `candidates` for a call. */
  look(facts: Facts): void {
    const used = this.#used;
    const lowest = this.#lowest;
    const highest = this.#highest;
    const candidates = this.candidates;
    for (let word = 0; word < candidates.length; word++) candidates[word] = this.#always[word] as number;
    // Written out: a computed key costs several times as much. Order: `numberFacts`. Absent facts are NaN here.
    if (used & 0x1) {
      const value = facts.tokens_today as number;
      if (value >= (lowest[0] as number) && value <= (highest[0] as number)) this.#add(0, value);
    }
    if (used & 0x2) {
      const value = facts.tokens_this_month as number;
      if (value >= (lowest[1] as number) && value <= (highest[1] as number)) this.#add(1, value);
    }
    if (used & 0x4) {
      const value = facts.messages_today as number;
      if (value >= (lowest[2] as number) && value <= (highest[2] as number)) this.#add(2, value);
    }
    if (used & 0x8) {
      const value = facts.identical_messages as number;
      if (value >= (lowest[3] as number) && value <= (highest[3] as number)) this.#add(3, value);
    }
    if (used & 0x10) {
      const value = facts.seconds_since_last_message as number;
      if (value >= (lowest[4] as number) && value <= (highest[4] as number)) this.#add(4, value);
    }
    if (used & 0x20) {
      const value = facts.rapid_messages as number;
      if (value >= (lowest[5] as number) && value <= (highest[5] as number)) this.#add(5, value);
    }
    if (used & 0x40) {
      const value = facts.conversation_messages as number;
      if (value >= (lowest[6] as number) && value <= (highest[6] as number)) this.#add(6, value);
    }
    if (used & 0x80) {
      const value = facts.message_words as number;
      if (value >= (lowest[7] as number) && value <= (highest[7] as number)) this.#add(7, value);
    }
    if (used & 0x100) {
      const value = facts.message_characters as number;
      if (value >= (lowest[8] as number) && value <= (highest[8] as number)) this.#add(8, value);
    }
    if (used & 0x200) {
      const value = facts.estimated_tokens as number;
      if (value >= (lowest[9] as number) && value <= (highest[9] as number)) this.#add(9, value);
    }
    if (used & 0x400) {
      const value = facts.complexity as number;
      if (value >= (lowest[10] as number) && value <= (highest[10] as number)) this.#add(10, value);
    }
    if (used & 0x800) {
      const value = facts.hour_utc as number;
      if (value >= (lowest[11] as number) && value <= (highest[11] as number)) this.#add(11, value);
    }
    if (used & 0x1000) {
      const value = facts.hour_local as number;
      if (value >= (lowest[12] as number) && value <= (highest[12] as number)) this.#add(12, value);
    }
    if (used & 0x2000) {
      const value = facts.weekday_local as number;
      if (value >= (lowest[13] as number) && value <= (highest[13] as number)) this.#add(13, value);
    }
    if (used & 0x4000) {
      const value = facts.available_tokens as number;
      if (value >= (lowest[14] as number) && value <= (highest[14] as number)) this.#add(14, value);
    }
    if (used & 0x8000) {
      const value = facts.usage_percent as number;
      if (value >= (lowest[15] as number) && value <= (highest[15] as number)) this.#add(15, value);
    }
    if (used & 0x10000) {
      const value = facts.cost_today_micros as number;
      if (value >= (lowest[16] as number) && value <= (highest[16] as number)) this.#add(16, value);
    }
    if (used & 0x20000) {
      const value = facts.cost_this_month_micros as number;
      if (value >= (lowest[17] as number) && value <= (highest[17] as number)) this.#add(17, value);
    }
    if (used & 0x40000) {
      const value = facts.account_age_days as number;
      if (value >= (lowest[18] as number) && value <= (highest[18] as number)) this.#add(18, value);
    }
  }
}

function collectFacts(condition: Condition, into: Set<FactName>): void {
  if ("fact" in condition) into.add(condition.fact);
  else if ("not" in condition) collectFacts(condition.not, into);
  else for (const child of "all" in condition ? condition.all : condition.any) collectFacts(child, into);
}

/** The facts that a condition reads. */
export function factsOf(condition: Condition): readonly FactName[] {
  const found = new Set<FactName>();
  collectFacts(condition, found);
  return [...found];
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
  /** Judges one call and says why, rule by rule, up to the one that stopped it. */
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

function prepareAction({ rule_name, action }: Rule) {
  const { block, deflect } = action;
  const reason = block?.reason ?? (deflect ? (deflect.reason ?? "off_topic") : null);
  return {
    warning: action.warn ? { rule_name, message: action.warn.message } : null,
    words: action.truncate?.words ?? null,
    route: action.route?.model ?? null,
    flag: action.flag?.reason ?? null,
    factorThousandths: action.multiply_cost ? Math.round(action.multiply_cost.by * 1000) : null,
    reason,
    message: block?.message ?? deflect?.message ?? null,
    status: statusOfBlock(reason ?? ""),
    minutes: block?.minutes ?? null,
  };
}

const nonEmptySet = (list: readonly string[] | undefined): ReadonlySet<string> | null =>
  list && list.length > 0 ? new Set(list) : null;

/** Compiles parsed rules (see `parseRules`). Semantics: docs/RULES.md, step 7. */
export function compileRules(rules: readonly Rule[]): CompiledRules {
  const slots = new Slots();
  const ordered = orderRules(rules.filter(isLookedAt));
  for (const rule of ordered) slots.use(rule.conditions);
  const ranges = ordered.map((rule) => rangeOf(rule.conditions));
  const index = new RangeIndex(ranges);
  const prepared: readonly Prepared[] = ordered.map((rule, at) => {
    const root = compileCondition(slots, rule.conditions, "conditions");
    return {
      rule,
      shadow: rule.mode === "shadow",
      plans: nonEmptySet(rule.applies_to.plans),
      scopes: nonEmptySet(rule.applies_to.scopes),
      root,
      test: ranges[at]?.isWhole ? null : root.test,
      ...prepareAction(rule),
    };
  });

  function run(facts: Facts, context: RuleContext, trace: RuleTrace[] | null): RuleOutcome {
    index.look(facts);
    const candidates = index.candidates;
    // Facts are laid out when the first rule needs more than its range.
    let isLoaded = trace !== null;
    if (isLoaded) slots.load(facts, context.plan);
    let matched: Rule[] | null = null;
    let shadowMatched: Rule[] | null = null;
    let warnings: RuleWarning[] | null = null;
    let factors: number[] | null = null;
    let stop: Prepared | null = null;
    let route: string | null = null;
    let words: number | null = null;
    let flag: string | null = null;
    for (let word = 0; word < candidates.length && stop === null; word++) {
      // With a trace every rule is looked at, else those that can match, from the lowest bit up.
      let bits = trace === null ? (candidates[word] as number) : -1;
      while (bits !== 0) {
        const bit = 31 - Math.clz32(bits & -bits);
        bits &= bits - 1;
        const item = prepared[word * 32 + bit];
        if (item === undefined) break;
        if (item.plans !== null && !item.plans.has(facts.plan as string)) continue;
        if (item.scopes !== null && !item.scopes.has(facts.scope_id as string)) continue;
        const isCandidate = ((candidates[word] as number) & (1 << bit)) !== 0;
        if (item.test !== null && isCandidate && !isLoaded) {
          slots.load(facts, context.plan);
          isLoaded = true;
          if (route !== null) slots.route(route, context.providerOf?.(route) ?? null);
        }
        const matches = isCandidate && (item.test === null || item.test());
        if (trace) trace.push(traceOf(item, matches));
        if (!matches) continue;
        if (item.shadow) {
          if (shadowMatched === null) shadowMatched = [item.rule];
          else shadowMatched.push(item.rule);
          continue;
        }
        if (matched === null) matched = [item.rule];
        else matched.push(item.rule);
        if (item.warning !== null) {
          if (warnings === null) warnings = [item.warning];
          else warnings.push(item.warning);
        }
        if (item.words !== null) words = words === null ? item.words : Math.min(words, item.words);
        if (item.route !== null) {
          route = item.route;
          if (isLoaded) slots.route(route, context.providerOf?.(route) ?? null);
        }
        if (item.flag !== null) flag ??= item.flag;
        if (item.factorThousandths !== null) (factors ??= []).push(item.factorThousandths);
        if (item.reason !== null) {
          stop = item;
          break;
        }
      }
    }
    if (matched === null && shadowMatched === null) return nothingMatched;
    return {
      decision: stop !== null ? "block" : warnings !== null ? "warn" : "allow",
      blocked_by: stop === null ? null : stop.rule,
      reason: stop === null ? null : stop.reason,
      message: stop === null ? null : stop.message,
      http_status: stop === null ? 200 : stop.status,
      block_minutes: stop === null ? null : stop.minutes,
      route,
      truncate_to_words: words,
      flag,
      warnings: warnings ?? none,
      factors_thousandths: factors ?? none,
      matched: matched ?? none,
      shadow_matched: shadowMatched ?? none,
    };
  }

  function traceOf(item: Prepared, matches: boolean): RuleTrace {
    const leaves: LeafTrace[] = [];
    decisiveLeaves(item.root, slots, leaves);
    return {
      rule_name: item.rule.rule_name,
      version: item.rule.version,
      mode: item.shadow ? "shadow" : "enforce",
      matched: matches,
      facts: Object.fromEntries(factsOf(item.rule.conditions).map((fact) => [fact, slots.seen(fact)])),
      decided_by: leaves,
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
