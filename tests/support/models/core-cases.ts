/**
 * Generated (rule set, account, history) cases for proving that the core decides as the database does. Seeded: the
 * same seed gives the same cases.
 */
import type { Condition, NumberFact, Plan, Price, Rule } from "../../../shared/governance/index.ts";

/** A small seeded generator of numbers (mulberry32). */
export class Dice {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** 0 ≤ x < 1. */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  }

  /** Whole, both ends included. */
  whole(low: number, high: number): number {
    return low + Math.floor(this.next() * (high - low + 1));
  }

  chance(probability: number): boolean {
    return this.next() < probability;
  }

  pick<T>(items: readonly T[]): T {
    return items[this.whole(0, items.length - 1)] as T;
  }

  some<T>(items: readonly T[], most: number): T[] {
    return Array.from({ length: this.whole(1, most) }, () => this.pick(items));
  }
}

export const plans: readonly Plan[] = [
  plan("free", { daily_limit: 1_000, monthly_limit: 5_000, monthly_allowance: 5_000, upgrade_to: "gold" }),
  plan("gold", { daily_limit: 10_000, monthly_allowance: 200_000, warn_at: [50, 80] }),
  plan("gold+", { monthly_limit: 20_000, monthly_allowance: 8_000, rollover_months: 1 }),
  plan("open", { monthly_allowance: 100_000_000 }),
  plan("none", { monthly_allowance: 0, daily_limit: 0, upgrade_to: "free" }),
  plan("bare", { monthly_allowance: 0, warn_at: [] }),
];

function plan(plan_id: string, changes: Partial<Plan>): Plan {
  return {
    plan_id,
    name: `Plan ${plan_id}`,
    monthly_allowance: 0,
    daily_limit: null,
    monthly_limit: null,
    allows_top_up: true,
    warn_at: [80, 90, 95],
    fail_mode: "closed",
    on_cancel: "expire",
    upgrade_to: null,
    ...changes,
  };
}

const price = (
  provider: string,
  model: string,
  input: number,
  output: number,
  changes: Partial<Price> = {},
): Price => ({
  provider,
  model,
  input_micros_per_million: input,
  output_micros_per_million: output,
  currency: "usd",
  effective_from: "2024-01-01",
  ...changes,
});

export const prices: readonly Price[] = [
  price("openai", "gpt-4o-mini", 150_000, 600_000, { cached_input_micros_per_million: 75_000 }),
  price("openai", "gpt-4o", 2_500_000, 10_000_000, {
    batch_input_micros_per_million: 1_250_001,
    priority_input_micros_per_million: 4_250_000,
    priority_output_micros_per_million: 17_000_000,
  }),
  price("openai", "gpt-4o", 3_333_333, 12_345_678, {
    effective_from: "2026-03-29T00:30:00Z",
    reasoning_micros_per_million: 20_000_000,
  }),
  price("anthropic", "claude-3-5-sonnet", 3_000_000, 15_000_000, {
    cached_input_micros_per_million: 300_000,
    cache_write_micros_per_million: 3_750_000,
    cache_write_1h_micros_per_million: 6_100_001,
    batch_input_micros_per_million: 1_500_000,
    batch_output_micros_per_million: 7_500_000,
    long_context_above_tokens: 1_999,
    long_context_input_micros_per_million: 6_000_001,
    long_context_output_micros_per_million: 22_500_000,
  }),
  price("perplexity", "late", 1, 1, { effective_from: "2027-01-01" }),
  price("zeta", "shared", 7, 7),
  price("alpha", "shared", 5, 5),
];

export const estimates = [
  { task_type: "chat", tokens: 700 },
  { task_type: "generate-characters", tokens: 2_500 },
] as const;

export const settings = {
  reply_tokens: 200,
  default_estimate: 300,
  identical_window_minutes: 30,
  hold_minutes: 15,
  settle_ceiling_tokens: 9_007_199_254_740_991,
  complexity_words: ["why", "explain", "Größe", "step by step", "ΣΟΦΙΑ"],
  topics: [
    { topic: "homework", words: ["home work", "homework", "Жук"] },
    { topic: "sales", words: ["buy now", "№1", "ﬁne print"] },
  ],
} as const;

const models = ["gpt-4o-mini", "gpt-4o", "claude-3-5-sonnet", "mystery", "late", "shared"];
const tasks = ["chat", "generate-characters", "other", ""];
const scopes = ["brand-1", "Brand-1", "ÜBER", ""];
const conversations = ["c1", "c2", ""];
const zones = [
  "UTC",
  "Europe/London",
  "America/New_York",
  "Asia/Kolkata",
  "Pacific/Auckland",
  "America/St_Johns",
  "Pacific/Kiritimati",
  "Africa/Cairo",
  "Australia/Lord_Howe",
];
const pieces = [
  "hello",
  "Hello",
  "HELLO  ",
  "buy now!!!",
  "Buy\tNOW",
  "why",
  "explain",
  "Step-by-step",
  "GRÖSSE größe",
  "ΣΟΦΊΑ σοφια ΣΟΦΙΑ",
  "жук ЖУК",
  "ﬁne print",
  "№1",
  "İstanbul ı",
  "😀 emoji 😀",
  "a\u00a0b\u2003c\u3000d",
  "ＦＵＬＬ　ｗｉｄｔｈ！",
  "e\u0301 É ñ Ñ",
  "ẞ ß",
  "H\u0331 Ԁ Ꙁ",
  "home-work",
  "home — work",
  "homeworks",
  "it's “quoted”…",
  "مرحبا \u202eabc",
  "ﷺ Ⅷ ½ ㎏",
  "'; drop table x; --",
  "%s {0} \\n $1",
  "我们去赌博吧，iPhone手机！",
  "ｶｼﾞﾉで 赌、博",
  "การพนันออนไลน์ สวัสดี",
];
const phrases = [
  "hello",
  "Buy now",
  "why",
  "größe",
  "σοφια",
  "Жук",
  "fine print",
  "no1",
  "full width",
  "é",
  "home work",
  "😀",
  "it's",
  "viii",
  "a b",
  "赌博",
  "iphone手机",
  "カジノ",
  "พนัน",
];
const reasons = [
  "daily_limit",
  "spam_identical",
  "bot_behavior",
  "token_hogging",
  "rate_limited",
  "budget_exhausted",
  "custom_reason",
  "monthly_limit",
  "insufficient_tokens",
];

const numberValues: Readonly<Record<NumberFact, readonly number[]>> = {
  tokens_today: [0, 300, 700, 1_000, 2_500],
  tokens_this_month: [0, 1_000, 5_000, 20_000],
  messages_today: [1, 2, 3, 5],
  identical_messages: [0, 1, 2, 3],
  seconds_since_last_message: [0.5, 1.999, 2, 2.001, 60, 3600],
  rapid_messages: [0, 1, 2, 3],
  conversation_messages: [0, 1, 2, 4],
  message_words: [0, 1, 3, 10, 500],
  message_characters: [0, 5, 12, 100],
  estimated_tokens: [1, 300, 700, 2_500, 5_000],
  complexity: [0.2, 0.206, 0.4, 0.7, 0.733, 1],
  hour_utc: [0, 2, 6, 12, 23],
  hour_local: [0, 1, 2, 5, 12, 23],
  weekday_local: [1, 5, 6, 7],
  available_tokens: [0, 1_000, 5_000, 100_000],
  usage_percent: [0, 20, 50, 80, 100],
  cost_today_micros: [0, 1, 500, 10_000],
  cost_this_month_micros: [0, 1, 500, 10_000],
  account_age_days: [0, 1, 30],
};

function condition(dice: Dice, depth: number): Condition {
  if (depth > 0 && dice.chance(0.35)) {
    if (dice.chance(0.25)) return { not: condition(dice, depth - 1) };
    const children = Array.from({ length: dice.whole(0, 3) }, () => condition(dice, depth - 1));
    return dice.chance(0.5) ? { all: children } : { any: children };
  }
  const kind = dice.next();
  if (kind < 0.08) return { fact: "is_flagged", op: dice.pick(["=", "!="]), value: dice.chance(0.5) };
  if (kind < 0.35) {
    const fact = dice.pick([
      "message",
      "plan",
      "model",
      "provider",
      "task_type",
      "scope_id",
      "topic",
    ] as const);
    const values: Record<typeof fact, readonly string[]> = {
      message: ["hello", "buy now!!!", ...phrases],
      plan: plans.map(({ plan_id }) => plan_id),
      model: models,
      provider: ["openai", "anthropic", "alpha"],
      task_type: tasks,
      scope_id: scopes,
      topic: ["homework", "sales"],
    };
    const op = dice.pick(["=", "!=", "in", "not_in", "contains", "matches_any"] as const);
    if (op === "contains" || op === "matches_any") {
      const words = fact === "message" ? phrases : ["gold", "gpt 4o", "GPT", "brand", "über", "home"];
      return {
        fact,
        op,
        value: op === "contains" && dice.chance(0.5) ? dice.pick(words) : dice.some(words, 3),
      };
    }
    return {
      fact,
      op,
      value: op === "=" || op === "!=" ? dice.pick(values[fact]) : dice.some(values[fact], 3),
    };
  }
  const fact = dice.pick(Object.keys(numberValues) as (keyof typeof numberValues)[]);
  const values = numberValues[fact] ?? [0];
  const op = dice.pick(["=", "!=", ">", ">=", "<", "<=", ">", ">=", "in", "not_in", "between"] as const);
  if (op === "between") return { fact, op, value: [dice.pick(values), dice.pick(values)] } as Condition;
  if (op === "in" || op === "not_in") return { fact, op, value: dice.some(values, 3) } as Condition;
  if (dice.chance(0.15))
    return {
      fact,
      op,
      value: { plan: dice.pick(["monthly_allowance", "daily_limit", "monthly_limit"] as const) },
    } as Condition;
  return { fact, op, value: dice.pick(values) } as Condition;
}

export function ruleSet(dice: Dice): Rule[] {
  return Array.from({ length: dice.whole(0, 7) }, (_, index) => {
    const action: Record<string, unknown> = {};
    const effects = dice.whole(1, 2);
    for (let effect = 0; effect < effects; effect++) {
      const kind = dice.pick([
        "block",
        "warn",
        "truncate",
        "route",
        "flag",
        "deflect",
        "multiply_cost",
        "warn",
        "route",
      ]);
      if (kind === "block" && !action["deflect"])
        action["block"] = {
          reason: dice.pick(reasons),
          ...(dice.chance(0.5) ? { message: `Stopped by ${index}: it's "enough"` } : {}),
          ...(dice.chance(0.3) ? { minutes: dice.pick([1, 10, 1_440]) } : {}),
        };
      if (kind === "deflect" && !action["block"])
        action["deflect"] = {
          message: "Let us talk of something else.",
          ...(dice.chance(0.3) ? { reason: "custom_reason" } : {}),
        };
      if (kind === "warn") action["warn"] = { message: `Careful, ${index}% $1 \\n` };
      if (kind === "truncate") action["truncate"] = { words: dice.pick([1, 5, 500]) };
      if (kind === "route") action["route"] = { model: dice.pick(models) };
      if (kind === "flag") action["flag"] = { reason: `flag_${index}` };
      if (kind === "multiply_cost")
        action["multiply_cost"] = { by: dice.pick([0.001, 0.333, 1, 1.5, 2, 1000]) };
    }
    if (Object.keys(action).length === 0) action["warn"] = { message: "w" };
    // Blocks on nearly everything would leave no history to speak of.
    const narrow = "block" in action || "deflect" in action;
    const main = condition(dice, 3);
    return {
      rule_name: dice.pick(["a", "B", "z", "ß", "😀", "\uff21"]) + String(index),
      rule_type: "custom",
      conditions: narrow && dice.chance(0.7) ? { all: [main, condition(dice, 1)] } : main,
      action,
      priority: dice.pick([1, 1, 5, 100]),
      mode: dice.pick(["enforce", "enforce", "enforce", "enforce", "shadow", "off"]),
      is_active: dice.chance(0.95),
      applies_to: {
        ...(dice.chance(0.2) ? { plans: dice.some(plans, 3).map(({ plan_id }) => plan_id) } : {}),
        ...(dice.chance(0.1) ? { scopes: dice.some(scopes, 2).filter((scope) => scope !== "") } : {}),
      },
      version: 0,
    } as Rule;
  });
}

/** One step of a history; `at` in ms since 1970. */
export type Step =
  | {
      readonly kind: "authorize";
      readonly at: number;
      readonly request_id: string;
      readonly model: string;
      readonly estimated_tokens: number | null;
      readonly message: string | null;
      readonly conversation_id: string | null;
      readonly task_type: string | null;
      readonly scope_id: string | null;
      readonly complexity: number | null;
    }
  | {
      readonly kind: "settle";
      readonly at: number;
      readonly request_id: string;
      readonly input: number;
      readonly output: number;
      readonly cached: number;
      readonly cache_write: number;
      readonly cache_write_1h: number;
      readonly reasoning: number;
      /** The tier that the settlement names; null for none. */
      readonly tier: string | null;
      /** A model that worked for a part, with its input, output and writes for an hour; null for none. */
      readonly other: { readonly model: string; readonly input: number; readonly output: number } | null;
    }
  | { readonly kind: "release"; readonly at: number; readonly request_id: string }
  | {
      readonly kind: "grant";
      readonly at: number;
      readonly tokens: number;
      readonly expires: number | null;
      readonly type: "purchase" | "bonus";
    }
  | { readonly kind: "block"; readonly at: number; readonly until: number | null }
  | { readonly kind: "unblock"; readonly at: number }
  | { readonly kind: "flag"; readonly at: number };

export interface Case {
  readonly user_id: string;
  readonly plan_id: string;
  readonly timezone: string;
  readonly created_at: number;
  readonly steps: readonly Step[];
}

/** Moments around which histories are laid: month ends, a leap day, clock changes in several zones, an ordinary day. */
const moments = [
  "2026-01-31T23:40:00Z",
  "2028-02-28T23:50:00Z",
  "2028-02-29T23:50:00Z",
  "2026-03-29T00:20:00Z",
  "2026-03-08T06:40:00Z",
  "2026-04-23T21:50:00Z",
  "2026-10-25T00:20:00Z",
  "2026-11-01T05:30:00Z",
  "2026-10-29T20:30:00Z",
  "2026-04-04T14:30:00Z",
  "2026-12-31T09:55:00Z",
  "2026-06-15T12:00:00Z",
].map((text) => Date.parse(text));

/** Durations between steps, ms. */
const pauses = [
  0, 1, 400, 1_000, 1_999, 2_000, 2_001, 5_000, 60_000, 60_000, 600_000, 900_000, 1_800_000, 3_600_000,
  7_200_000, 43_200_000, 86_400_000, 2_700_000_000,
];

function message(dice: Dice): string | null {
  if (dice.chance(0.12)) return null;
  if (dice.chance(0.05)) return "";
  if (dice.chance(0.03)) return "word ".repeat(dice.whole(400, 700));
  if (dice.chance(0.5)) return dice.pick(pieces.slice(0, 6));
  return dice.some(pieces, 5).join(dice.pick([" ", "  ", "", ", "]));
}

export function history(dice: Dice, id: string): Case {
  let at = dice.pick(moments) + dice.whole(0, 3_000);
  const created_at = at;
  const steps: Step[] = [];
  const open: string[] = [];
  const calls = dice.whole(2, 6);
  if (dice.chance(0.3))
    steps.push({
      kind: "grant",
      at,
      tokens: dice.pick([500, 5_000, 1_000_000]),
      expires: null,
      type: "purchase",
    });
  for (let call = 0; call < calls; call++) {
    at += dice.pick(pauses);
    const event = dice.next();
    if (event < 0.04)
      steps.push({
        kind: "block",
        at,
        until: dice.chance(0.5) ? at + dice.pick([1_000, 60_000, 86_400_000]) : null,
      });
    else if (event < 0.08) steps.push({ kind: "unblock", at });
    else if (event < 0.1) steps.push({ kind: "flag", at });
    else if (event < 0.14)
      steps.push({
        kind: "grant",
        at,
        tokens: dice.pick([1, 500, 5_000]),
        expires: dice.chance(0.5) ? at + dice.pick([1_000, 3_600_000]) : null,
        type: "bonus",
      });
    else if (event < 0.45 && open.length > 0) {
      const request_id = open.splice(dice.whole(0, open.length - 1), 1)[0] as string;
      // The most is more than most accounts have: later calls are judged in debt.
      const input = dice.pick([0, 1, 10, 333, 2_000, 9_999, 300_000]);
      const output = dice.pick([0, 1, 7, 500, 3_000]);
      if (dice.chance(0.2)) steps.push({ kind: "release", at, request_id });
      else {
        const cache_write = dice.chance(0.2) ? Math.floor(input / 3) : 0;
        steps.push({
          kind: "settle",
          at,
          request_id,
          input,
          output,
          cached: dice.chance(0.3) ? Math.floor(input / 2) : 0,
          cache_write,
          cache_write_1h: dice.chance(0.5) ? Math.floor(cache_write / 2) : 0,
          reasoning: dice.chance(0.2) ? Math.floor(output / 2) : 0,
          tier: dice.pick([null, null, "batch", "flex", "priority", "fast", "standard"]),
          other: dice.chance(0.2)
            ? {
                model: dice.pick(["gpt-4o", "claude-3-5-sonnet", "shared", "unpriced"]),
                input: Math.floor(input / 4),
                output: Math.floor(output / 3),
              }
            : null,
        });
      }
    } else {
      const request_id = `${id}-${call}`;
      open.push(request_id);
      steps.push({
        kind: "authorize",
        at,
        request_id,
        model: dice.pick(models),
        estimated_tokens: dice.chance(0.5)
          ? null
          : dice.pick([1, 10, 200, 800, 999, 5_000, 9_007_199_254_740_991]),
        message: message(dice),
        conversation_id: dice.chance(0.5) ? null : dice.pick(conversations),
        task_type: dice.chance(0.5) ? null : dice.pick(tasks),
        scope_id: dice.chance(0.6) ? null : dice.pick(scopes),
        complexity: dice.chance(0.8) ? null : dice.pick([0, 0.2, 0.7, 0.7335, 0.0005, 1]),
      });
    }
  }
  return { user_id: id, plan_id: dice.pick(plans).plan_id, timezone: dice.pick(zones), created_at, steps };
}
