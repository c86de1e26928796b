/** Rules, the same written by hand as ifs, and the calls that both judge. */
import { type Facts, phraseText, type PlanNumbers, type RuleOutcome } from "../../shared/governance/index.ts";

export const plan: PlanNumbers = { monthly_allowance: 200_000, daily_limit: 10_000, monthly_limit: 200_000 };

const block = (reason: string, message: string) => ({ block: { reason, message } });
/** Twenty rules of the kinds that the presets have. `byHand` below says the same. */
export const ruleRecords = [
  {
    rule_name: "r01",
    conditions: { fact: "identical_messages", op: ">=", value: 10 },
    action: block("spam_identical", "Same."),
  },
  {
    rule_name: "r02",
    conditions: { fact: "rapid_messages", op: ">=", value: 5 },
    action: block("bot_behavior", "Fast."),
  },
  {
    rule_name: "r03",
    conditions: {
      all: [
        { fact: "messages_today", op: ">", value: 100 },
        { fact: "plan", op: "!=", value: "business" },
      ],
    },
    action: block("token_hogging", "Many."),
  },
  {
    rule_name: "r04",
    conditions: { fact: "message_words", op: ">", value: 500 },
    action: { truncate: { words: 500 } },
  },
  {
    rule_name: "r05",
    conditions: {
      all: [
        { fact: "hour_utc", op: "between", value: [2, 5] },
        { fact: "plan", op: "=", value: "gold_plus" },
      ],
    },
    action: { route: { model: "gpt-4o-mini" } },
  },
  {
    rule_name: "r06",
    conditions: {
      all: [
        { fact: "complexity", op: ">=", value: 0.7 },
        { fact: "plan", op: "=", value: "gold_plus" },
      ],
    },
    action: { route: { model: "claude-sonnet-4" } },
  },
  {
    rule_name: "r07",
    conditions: {
      all: [
        { fact: "plan", op: "=", value: "gold" },
        { fact: "provider", op: "=", value: "anthropic" },
      ],
    },
    action: { route: { model: "gpt-4o-mini" } },
  },
  {
    rule_name: "r08",
    conditions: { fact: "message", op: "matches_any", value: ["homework", "write my essay"] },
    action: { deflect: { message: "No." } },
  },
  {
    rule_name: "r09",
    conditions: { fact: "usage_percent", op: ">=", value: 80 },
    action: { warn: { message: "Nearly there." } },
  },
  {
    rule_name: "r10",
    conditions: { fact: "tokens_today", op: ">", value: { plan: "daily_limit" } },
    action: block("daily_limit", "Enough."),
  },
  {
    rule_name: "r11",
    conditions: { fact: "tokens_this_month", op: ">", value: { plan: "monthly_limit" } },
    action: block("monthly_limit", "Enough."),
  },
  {
    rule_name: "r12",
    conditions: { fact: "cost_today_micros", op: ">", value: 5_000_000 },
    action: block("budget_exhausted", "Spent."),
  },
  {
    rule_name: "r13",
    conditions: { fact: "conversation_messages", op: ">", value: 50 },
    action: { warn: { message: "Long." } },
  },
  {
    rule_name: "r14",
    conditions: { fact: "estimated_tokens", op: ">", value: 8_000 },
    action: { flag: { reason: "large_call" } },
  },
  {
    rule_name: "r15",
    conditions: {
      all: [
        { fact: "account_age_days", op: "<", value: 2 },
        { fact: "messages_today", op: ">", value: 40 },
      ],
    },
    action: { warn: { message: "New." } },
  },
  {
    rule_name: "r16",
    conditions: { fact: "task_type", op: "in", value: ["video", "batch", "embed"] },
    action: { multiply_cost: { by: 1.5 } },
  },
  {
    rule_name: "r17",
    conditions: { fact: "is_flagged", op: "=", value: true },
    action: { route: { model: "gpt-4o-mini" } },
  },
  {
    rule_name: "r18",
    conditions: {
      any: [
        { fact: "weekday_local", op: "in", value: [6, 7] },
        { fact: "hour_local", op: "<", value: 6 },
      ],
    },
    action: { truncate: { words: 800 } },
  },
  {
    rule_name: "r19",
    conditions: { fact: "available_tokens", op: "<", value: 1_000 },
    action: { warn: { message: "Low." } },
  },
  {
    rule_name: "r20",
    conditions: { fact: "message", op: "contains", value: ["free", "tokens"] },
    action: { flag: { reason: "asks_for_tokens" } },
  },
];
export type Verdict = Pick<
  RuleOutcome,
  | "decision"
  | "reason"
  | "message"
  | "http_status"
  | "route"
  | "truncate_to_words"
  | "flag"
  | "factors_thousandths"
> & {
  readonly warnings: readonly string[];
};

/** What a careful engineer would write for these twenty rules. */
export function byHand(f: Facts): Verdict {
  let route: string | null = null;
  let model = f.model ?? null;
  let provider = f.provider ?? null;
  let words: number | null = null;
  let flag: string | null = null;
  let phrases: string | null = null;
  const warnings: string[] = [];
  const factors: number[] = [];
  const stop = (reason: string, message: string, http_status: 403 | 429): Verdict => ({
    decision: "block",
    reason,
    message,
    http_status,
    route,
    truncate_to_words: words,
    flag,
    factors_thousandths: factors,
    warnings,
  });
  const goTo = (to: string): void => {
    route = to;
    model = to;
    provider = null;
  };
  if (f.identical_messages != null && f.identical_messages >= 10) return stop("spam_identical", "Same.", 429);
  if (f.rapid_messages != null && f.rapid_messages >= 5) return stop("bot_behavior", "Fast.", 429);
  if (f.messages_today != null && f.messages_today > 100 && f.plan != null && f.plan !== "business")
    return stop("token_hogging", "Many.", 429);
  if (f.message_words != null && f.message_words > 500) words = 500;
  if (f.hour_utc != null && f.hour_utc >= 2 && f.hour_utc <= 5 && f.plan === "gold_plus") goTo("gpt-4o-mini");
  if (f.complexity != null && f.complexity >= 0.7 && f.plan === "gold_plus") goTo("claude-sonnet-4");
  if (f.plan === "gold" && provider === "anthropic") goTo("gpt-4o-mini");
  if (f.message != null) {
    phrases = phraseText(f.message);
    if (phrases.includes(" homework ") || phrases.includes(" write my essay "))
      return stop("off_topic", "No.", 403);
  }
  if (f.usage_percent != null && f.usage_percent >= 80) warnings.push("Nearly there.");
  if (f.tokens_today != null && plan.daily_limit != null && f.tokens_today > plan.daily_limit)
    return stop("daily_limit", "Enough.", 429);
  if (f.tokens_this_month != null && plan.monthly_limit != null && f.tokens_this_month > plan.monthly_limit)
    return stop("monthly_limit", "Enough.", 429);
  if (f.cost_today_micros != null && f.cost_today_micros > 5_000_000)
    return stop("budget_exhausted", "Spent.", 429);
  if (f.conversation_messages != null && f.conversation_messages > 50) warnings.push("Long.");
  if (f.estimated_tokens != null && f.estimated_tokens > 8_000) flag ??= "large_call";
  if (
    f.account_age_days != null &&
    f.account_age_days < 2 &&
    f.messages_today != null &&
    f.messages_today > 40
  )
    warnings.push("New.");
  if (f.task_type === "video" || f.task_type === "batch" || f.task_type === "embed") factors.push(1500);
  if (f.is_flagged === true) goTo("gpt-4o-mini");
  if (f.weekday_local === 6 || f.weekday_local === 7 || (f.hour_local != null && f.hour_local < 6))
    words = words === null ? 800 : Math.min(words, 800);
  if (f.available_tokens != null && f.available_tokens < 1_000) warnings.push("Low.");
  if (phrases !== null && phrases.includes(" free ") && phrases.includes(" tokens "))
    flag ??= "asks_for_tokens";
  return {
    decision: warnings.length > 0 ? "warn" : "allow",
    reason: null,
    message: null,
    http_status: 200,
    route: model === f.model ? route : model,
    truncate_to_words: words,
    flag,
    factors_thousandths: factors,
    warnings,
  };
}

const messages = [
  "what is the weather like in paris today",
  "please summarise this text for me",
  "can i have more free tokens",
  "is my homework good",
  null,
];

export function factsOfCall(index: number): Facts {
  const at = (spread: number, step: number): number => (index * step) % spread;
  return {
    message: messages[index % messages.length] ?? null,
    tokens_today: at(10_400, 37),
    tokens_this_month: at(201_000, 731),
    messages_today: at(103, 7),
    identical_messages: index % 61 === 0 ? 12 : at(4, 3),
    seconds_since_last_message: at(300, 11) / 10,
    rapid_messages: at(6, 5),
    conversation_messages: at(55, 13),
    message_words: at(600, 17),
    message_characters: at(3_000, 97),
    estimated_tokens: at(9_000, 41),
    complexity: at(1_000, 29) / 1_000,
    hour_utc: at(24, 5),
    hour_local: at(24, 7),
    weekday_local: 1 + at(7, 3),
    plan: ["gold", "gold_plus", "business", "free"][index % 4] ?? null,
    model: index % 3 === 0 ? "claude-sonnet-4" : "gpt-4o",
    provider: index % 3 === 0 ? "anthropic" : "openai",
    task_type: index % 9 === 0 ? "video" : "chat",
    scope_id: null,
    available_tokens: at(100_000, 991),
    usage_percent: at(101, 3),
    cost_today_micros: at(5_100_000, 4_999),
    cost_this_month_micros: at(90_000_000, 49_999),
    account_age_days: at(400, 3),
    is_flagged: index % 23 === 0,
    topic: null,
  };
}

/** The hardest case for a rule engine: twenty bare comparisons, where an `if` costs next to nothing. */
export const plainRules = [
  "messages_today",
  "tokens_today",
  "identical_messages",
  "rapid_messages",
  "message_words",
  "estimated_tokens",
  "hour_utc",
  "usage_percent",
  "cost_today_micros",
  "account_age_days",
].flatMap((fact, index) =>
  [0, 10].map((more) => ({
    rule_name: `plain_${String(index + more).padStart(2, "0")}`,
    priority: index + more,
    conditions: { fact, op: ">", value: 1_000_000 + index + more },
    action: index % 3 === 0 ? { warn: { message: "w" } } : block("rate_limited", "m"),
  })),
);

export function plainByHand(f: Facts): { decision: string; reason: string | null; warnings: number } {
  let warnings = 0;
  const stop = { decision: "block", reason: "rate_limited" };
  if (f.messages_today != null && f.messages_today > 1_000_000) warnings++;
  if (f.tokens_today != null && f.tokens_today > 1_000_001) return { ...stop, warnings };
  if (f.identical_messages != null && f.identical_messages > 1_000_002) return { ...stop, warnings };
  if (f.rapid_messages != null && f.rapid_messages > 1_000_003) warnings++;
  if (f.message_words != null && f.message_words > 1_000_004) return { ...stop, warnings };
  if (f.estimated_tokens != null && f.estimated_tokens > 1_000_005) return { ...stop, warnings };
  if (f.hour_utc != null && f.hour_utc > 1_000_006) warnings++;
  if (f.usage_percent != null && f.usage_percent > 1_000_007) return { ...stop, warnings };
  if (f.cost_today_micros != null && f.cost_today_micros > 1_000_008) return { ...stop, warnings };
  if (f.account_age_days != null && f.account_age_days > 1_000_009) warnings++;
  if (f.messages_today != null && f.messages_today > 1_000_010) warnings++;
  if (f.tokens_today != null && f.tokens_today > 1_000_011) return { ...stop, warnings };
  if (f.identical_messages != null && f.identical_messages > 1_000_012) return { ...stop, warnings };
  if (f.rapid_messages != null && f.rapid_messages > 1_000_013) warnings++;
  if (f.message_words != null && f.message_words > 1_000_014) return { ...stop, warnings };
  if (f.estimated_tokens != null && f.estimated_tokens > 1_000_015) return { ...stop, warnings };
  if (f.hour_utc != null && f.hour_utc > 1_000_016) warnings++;
  if (f.usage_percent != null && f.usage_percent > 1_000_017) return { ...stop, warnings };
  if (f.cost_today_micros != null && f.cost_today_micros > 1_000_018) return { ...stop, warnings };
  if (f.account_age_days != null && f.account_age_days > 1_000_019) warnings++;
  return { decision: warnings > 0 ? "warn" : "allow", reason: null, warnings };
}
