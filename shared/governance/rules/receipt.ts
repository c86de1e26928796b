import { dayOf, isTimeZone, localClock, localDay } from "../time/zone.ts";
import { describeFact, duration, formatCount } from "./words.ts";

/**
 * What a receipt's words are made from: the record that `explain_decision` answers, as far as it is read here
 * (see shared/contract for the whole).
 */
export interface ReceiptFacts {
  readonly decision: "allow" | "warn" | "block";
  readonly reason: string | null;
  readonly rule_name: string | null;
  readonly rule_version: number | null;
  readonly estimated_tokens: number;
  /** Tokens the call needs, what there was for it, and the difference; null where tokens were not the matter. */
  readonly shortfall: { readonly need: number; readonly have: number; readonly missing: number } | null;
  readonly limit: { readonly window: string; readonly limit: number; readonly used: number } | null;
  /** ISO instant; null if it does not clear by itself. */
  readonly clears_at: string | null;
  /** The account's own zone. */
  readonly timezone: string;
  /** Currency of the cost facts; absent in records of older projects. */
  readonly currency?: string | null | undefined;
  readonly rules: readonly {
    readonly rule_name: string;
    readonly matched: boolean;
    readonly facts: Readonly<Record<string, unknown>>;
  }[];
}

/**
 * Reasons that do not come from a rule. A rule's reason is shown as the rule's name, so that it has one name
 * everywhere.
 */
const reasonWords = new Map([
  ["insufficient_tokens", "too few tokens"],
  ["daily_limit", "daily limit"],
  ["monthly_limit", "monthly limit"],
  ["user_blocked", "an operator's block"],
  ["budget_exhausted", "budget exhausted"],
  ["rate_limited", "too many calls"],
]);

/** A reason code in words: "daily_limit" → "daily limit"; an unknown one with spaces for its underscores. */
export function describeReason(reason: string): string {
  return reasonWords.get(reason) ?? reason.replaceAll("_", " ");
}

/** When it clears, in the account's own zone: "00:00 Europe/London, in 3 h 12 m", with the date if not today or tomorrow's midnight. */
function clearing(clearsAtMs: number, nowMs: number, zone: string): string {
  const known = isTimeZone(zone) ? zone : "UTC";
  const clock = localClock(clearsAtMs, known);
  const day = dayOf(nowMs, known);
  const date = clearsAtMs >= day.startMs && clearsAtMs <= day.endMs ? "" : `${localDay(clearsAtMs, known)} `;
  const wait = clearsAtMs <= nowMs ? "" : `, in ${duration(clearsAtMs - nowMs)}`;
  return `${date}${clock} ${known}${wait}`;
}

/** What the rule that decided saw, in words: "10 identical messages". Empty where no line has it. */
function seen(receipt: ReceiptFacts): string {
  const line = receipt.rules.find((rule) => rule.rule_name === receipt.rule_name && rule.matched);
  const names = receipt.currency ? { currency: receipt.currency } : {};
  return Object.entries(line?.facts ?? {})
    .flatMap(([fact, value]) => describeFact(fact, value, names) ?? [])
    .join(", ");
}

/** Why, in figures that add up: what was used, what the call needs on top of it, and what there is for it. */
function causes(receipt: ReceiptFacts): readonly string[] {
  const { limit, shortfall } = receipt;
  const needs = shortfall ? formatCount(shortfall.need) : "";
  const has = shortfall ? formatCount(shortfall.have) : "";
  if (limit) {
    const window = limit.window === "monthly" ? "this month" : "today";
    const used = `${formatCount(limit.used)} of ${formatCount(limit.limit)} tokens used ${window}`;
    return shortfall ? [used, `needs ${needs} more, has ${has}`] : [used];
  }
  if (shortfall)
    return [`needs ${needs} tokens, has ${has}`, `${formatCount(shortfall.missing)} are missing`];
  const saw = seen(receipt);
  if (saw !== "") return [saw];
  // A rule's block that outlives its call: no rule was asked again.
  const outlives = receipt.decision === "block" && receipt.rule_name !== null && receipt.rules.length === 0;
  return outlives ? ["blocked for a while since an earlier call"] : [];
}

/** When and how it clears; empty where nothing can be said. */
function clears(receipt: ReceiptFacts, nowMs: number): string {
  const at = receipt.clears_at === null ? Number.NaN : Date.parse(receipt.clears_at);
  if (!Number.isNaN(at)) {
    const when = clearing(at, nowMs, receipt.timezone);
    return at <= nowMs ? ` Cleared at ${when}.` : ` Clears at ${when}.`;
  }
  if (receipt.reason === "user_blocked") return " Clears when an operator lifts it.";
  const { limit, shortfall } = receipt;
  if (limit && shortfall && shortfall.need > limit.limit)
    return ` Does not clear by itself: the call asks for more than the whole ${limit.window} limit.`;
  if (receipt.reason === "insufficient_tokens") return " Clears when tokens are added.";
  return "";
}

/**
 * The receipt in one or two sentences, to read out or send: "Stopped by *daily limit* (v3): 10,240 of 10,000
 * tokens used today; needs 1,240 more, has 0. Clears at 00:00 Europe/London, in 3 h 12 m."
 * `nowMs` is the reader's now, for "in 3 h 12 m"; `nameRule` says what the reader calls a rule.
 */
export function describeReceipt(
  receipt: ReceiptFacts,
  nowMs: number,
  nameRule: (ruleName: string) => string = (ruleName) => ruleName.replaceAll("_", " "),
): string {
  const { rule_name: rule, reason } = receipt;
  const name = rule === null ? (reason ? describeReason(reason) : null) : nameRule(rule);
  const version = receipt.rule_version === null ? "" : ` (v${receipt.rule_version})`;
  if (receipt.decision === "allow") return `Allowed: ${formatCount(receipt.estimated_tokens)} tokens held.`;
  const details = causes(receipt);
  const cause = details.length > 0 ? `: ${details.join("; ")}.` : ".";
  if (receipt.decision === "warn")
    return `Allowed with a warning${name ? ` by *${name}*${version}` : ""}${cause}`;
  return `Stopped by *${name ?? "a rule"}*${version}${cause}${clears(receipt, nowMs)}`;
}
