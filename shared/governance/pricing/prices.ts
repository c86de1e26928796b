import { type MicroUnits, microUnits } from "../money/index.ts";
import type { Price } from "../plans/plan.ts";
import { fail, ok, type Result } from "../result.ts";
import { compareBytes } from "../rules/evaluate.ts";
import { type Problem, show } from "../rules/problems.ts";
import { isRecord } from "../values.ts";
import { type UsageCounts } from "../usage/counts.ts";

/** Highest price that is accepted: a thousand million major units per million tokens. */
const maximalPrice = 1_000_000_000_000_000;

/** Prices by model and time, ready to look up. */
export interface PriceBook {
  /** The prices it was made from, by model, oldest first. */
  readonly byModel: ReadonlyMap<string, readonly DatedPrice[]>;
}

/** A price with its start as an instant, in ms. */
export interface DatedPrice extends Price {
  readonly effectiveFromMs: number;
}

/** Why a cost is unknown. */
export interface PricingProblem {
  readonly code: "unknown_model" | "not_priced_then" | "too_large";
  readonly message: string;
}

/** What one call costs, and by which price. */
export interface CallCost {
  readonly cost_micros: MicroUnits;
  readonly currency: string;
  readonly price: Price;
}

const isoInstant =
  /^(\d{4})-(\d{2})-(\d{2})(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}(?::?\d{2})?))?$/;

/**
 * An instant from a date ("2026-11-22": midnight UTC) or an ISO time with its offset, PostgreSQL's spelling included;
 * null if it is neither. Without an offset each reader's own zone would decide, so that is refused.
 */
export function parseInstant(text: string): number | null {
  const match = isoInstant.exec(text);
  if (!match) return null;
  const [, year, month, day] = match.map(Number) as [number, number, number, number];
  // Date.parse reads 31 February as 3 March.
  if (new Date(Date.UTC(year, month - 1, day)).getUTCDate() !== day) return null;
  // PostgreSQL writes "+00", which Date.parse does not read.
  const ms = Date.parse(text.length === 10 ? text : text.replace(" ", "T").replace(/([+-]\d{2})$/, "$1:00"));
  return Number.isNaN(ms) ? null : ms;
}

const tierAmounts = [
  "batch_input_micros_per_million",
  "batch_output_micros_per_million",
  "priority_input_micros_per_million",
  "priority_output_micros_per_million",
  "long_context_input_micros_per_million",
  "long_context_output_micros_per_million",
] as const;

/** What of a price only some calls pay; a price without tiers has no such keys. */
function tiers(
  item: Readonly<Record<string, unknown>>,
  optional: (key: string, least?: number, most?: number) => number | null,
): Partial<Price> {
  const given = tierAmounts.filter((key) => item[key] !== undefined && item[key] !== null);
  const above = optional("long_context_above_tokens", 1, Number.MAX_SAFE_INTEGER);
  return {
    ...Object.fromEntries(given.map((key) => [key, optional(key)])),
    ...(above === null ? {} : { long_context_above_tokens: above }),
  };
}

/**
 * Reads a price list (a preset's `prices`, or the database's) into a book. Every problem is answered with its
 * path. Prices are whole micro-units of a currency per million tokens, 0 to 10^15.
 */
export function parsePrices(input: unknown): Result<PriceBook, readonly Problem[]> {
  if (!Array.isArray(input))
    return fail([{ path: "", message: `${show(input)} is not a list of prices.`, fix: "Write [price, …]." }]);
  const problems: Problem[] = [];
  const report = (path: string, message: string, fix: string): void => {
    if (problems.length < 50) problems.push({ path, message, fix });
  };
  const byModel = new Map<string, DatedPrice[]>();
  for (const [index, item] of input.entries()) {
    const at = `[${index}]`;
    if (!isRecord(item)) {
      report(
        at,
        `${show(item)} is not a price.`,
        'Write {"provider":…,"model":…,"input_micros_per_million":…}.',
      );
      continue;
    }
    const before = problems.length;
    // Counted as the database counts: a character beyond the first 65,536 is one.
    const text = (key: string, most: number): string => {
      const value = item[key];
      if (typeof value === "string" && value !== "" && Array.from(value).length <= most) return value;
      report(`${at}.${key}`, `${show(value)} is not a name.`, `Write 1 to ${most} characters.`);
      return "";
    };
    const required = (key: string, least = 0, most: number = maximalPrice): number => {
      const value = item[key];
      if (typeof value === "number" && Number.isSafeInteger(value) && value >= least && value <= most)
        return value;
      report(
        `${at}.${key}`,
        `${show(value)} is not a price.`,
        "Write whole micro-units per million tokens, 0 to 10^15.",
      );
      return 0;
    };
    const optional = (key: string, least?: number, most?: number): number | null =>
      item[key] === null || item[key] === undefined ? null : required(key, least, most);
    const code = item["currency"];
    const currency = typeof code === "string" && /^[a-z]{3}$/i.test(code) ? code.toLowerCase() : null;
    if (currency === null)
      report(`${at}.currency`, `${show(code)} is not a currency.`, 'Write three letters such as "usd".');
    const from = item["effective_from"];
    const effectiveFromMs = typeof from === "string" ? parseInstant(from) : null;
    if (effectiveFromMs === null)
      report(
        `${at}.effective_from`,
        `${show(from)} is not a date.`,
        'Write "2026-11-22" or a time with its offset.',
      );
    const price: DatedPrice = {
      provider: text("provider", 255),
      model: text("model", 200),
      input_micros_per_million: required("input_micros_per_million"),
      output_micros_per_million: required("output_micros_per_million"),
      cached_input_micros_per_million: optional("cached_input_micros_per_million"),
      cache_write_micros_per_million: optional("cache_write_micros_per_million"),
      cache_write_1h_micros_per_million: optional("cache_write_1h_micros_per_million"),
      reasoning_micros_per_million: optional("reasoning_micros_per_million"),
      ...tiers(item, optional),
      currency: currency ?? "",
      effective_from: typeof from === "string" ? from : "",
      effectiveFromMs: effectiveFromMs ?? 0,
    };
    if (problems.length > before) continue;
    const dated = byModel.get(price.model) ?? [];
    const twin = dated.find(
      (other) => other.effectiveFromMs === price.effectiveFromMs && other.provider === price.provider,
    );
    if (twin) report(at, `${price.model} has two prices from ${price.effective_from}.`, "Keep one of them.");
    dated.push(price);
    byModel.set(price.model, dated);
  }
  if (problems.length > 0) return fail(problems);
  // Of two providers with one start the first by name counts: it is last, where it is looked for.
  for (const dated of byModel.values())
    dated.sort((a, b) => a.effectiveFromMs - b.effectiveFromMs || compareBytes(b.provider, a.provider));
  return ok({ byModel });
}

/** The price of a model at a moment: the one with the latest start not after it. */
export function priceAt(book: PriceBook, model: string, atMs: number): Result<Price, PricingProblem> {
  const dated = book.byModel.get(model);
  if (!dated)
    return fail({ code: "unknown_model", message: `No price is known for the model ${show(model)}.` });
  const price = dated.findLast((candidate) => candidate.effectiveFromMs <= atMs);
  if (!price)
    return fail({
      code: "not_priced_then",
      message: `${show(model)} has no price before ${dated[0]?.effective_from ?? "its first"}.`,
    });
  return ok(price);
}

/** The provider of a model by the price in force then; null if unknown. For the fact `provider`. */
export function providerOf(book: PriceBook, model: string, atMs: number): string | null {
  const price = priceAt(book, model, atMs);
  return price.ok ? price.value.provider : null;
}

/**
 * A price as a tier of its provider charges it (`batch`, `flex`, `priority` or `fast`; any other: as it stands), for a
 * call that reads so many tokens. Cached input and cache writes keep their share of the input's price, reasoning of the
 * output's.
 * Source: docs/RULES.md, "Cost of a call".
 */
export function priceInTier(price: Price, inputTokens: number, tier: string | null | undefined): Price {
  const isLong = inputTokens > (price.long_context_above_tokens ?? Infinity);
  const column =
    tier === "batch" || tier === "flex"
      ? "batch"
      : tier === "priority" || tier === "fast"
        ? "priority"
        : null;
  if (!isLong && column === null) return price;
  const scaled = (amount: number, by: number, of: number): number =>
    of === 0 ? by : Number((BigInt(amount) * BigInt(by)) / BigInt(of));
  const inTier = (kind: "input" | "output"): number => {
    const plain = price[`${kind}_micros_per_million`];
    const long = isLong ? (price[`long_context_${kind}_micros_per_million`] ?? plain) : plain;
    const named = column && price[`${column}_${kind}_micros_per_million`];
    return named === null || named === undefined ? long : scaled(long, named, plain);
  };
  const [input, output] = [inTier("input"), inTier("output")];
  const share = (amount: number | null | undefined, by: number, of: number): number | null | undefined =>
    amount === null || amount === undefined || of === 0 ? amount : scaled(amount, by, of);
  const ofInput = (amount: number | null | undefined) =>
    share(amount, input, price.input_micros_per_million) ?? null;
  return {
    ...price,
    input_micros_per_million: input,
    output_micros_per_million: output,
    cached_input_micros_per_million: ofInput(price.cached_input_micros_per_million),
    cache_write_micros_per_million: ofInput(price.cache_write_micros_per_million),
    cache_write_1h_micros_per_million: ofInput(price.cache_write_1h_micros_per_million),
    reasoning_micros_per_million:
      share(price.reasoning_micros_per_million, output, price.output_micros_per_million) ?? null,
  };
}

/** What each kind of token of a call counts and costs, in micro-units per million. */
function costParts(usage: UsageCounts, price: Price): readonly (readonly [count: number, price: number])[] {
  const input = price.input_micros_per_million;
  const output = price.output_micros_per_million;
  const writes1h = usage.cache_write_1h_tokens ?? 0;
  return [
    [usage.input_tokens - usage.cached_input_tokens - usage.cache_write_tokens, input],
    [usage.cached_input_tokens, price.cached_input_micros_per_million ?? input],
    [usage.cache_write_tokens - writes1h, price.cache_write_micros_per_million ?? input],
    [writes1h, price.cache_write_1h_micros_per_million ?? 2 * input],
    [usage.output_tokens - usage.reasoning_tokens, output],
    [usage.reasoning_tokens, price.reasoning_micros_per_million ?? output],
  ];
}

/** Before rounding: in millionths of a micro-unit. */
function exactCost(usage: UsageCounts, price: Price): bigint {
  return costParts(usage, price).reduce((sum, [count, each]) => sum + BigInt(count) * BigInt(each), 0n);
}

function roundCost(exact: bigint): Result<MicroUnits, PricingProblem> {
  const cost = (exact + 500_000n) / 1_000_000n;
  return cost > BigInt(Number.MAX_SAFE_INTEGER)
    ? fail({ code: "too_large", message: "The cost is beyond what can be counted exactly." })
    : ok(microUnits(Number(cost)));
}

/**
 * Cost of a call at a price, in micro-units of the price's currency: exact, rounded half up once.
 * Source: docs/RULES.md, "Cost of a call". Fails (`too_large`) at 2^53 and beyond.
 */
export function costOf(usage: UsageCounts, listed: Price): Result<MicroUnits, PricingProblem> {
  const price = priceInTier(listed, usage.input_tokens, usage.service_tier);
  let sum = 500_000;
  for (const [count, each] of costParts(usage, price)) sum += count * each;
  // Every product and partial sum is below the whole sum, so a safe sum means that nothing was rounded.
  if (Number.isSafeInteger(sum)) return ok(microUnits((sum - (sum % 1_000_000)) / 1_000_000));
  return roundCost(exactCost(usage, price));
}

/** Part of a call's tokens that another model worked for. */
export interface OtherModelUsage {
  readonly model: string;
  readonly counts: UsageCounts;
}

/**
 * What a call cost (or would cost, on another model or at another time: the what-if). `others` are parts of `usage`
 * that other models worked for, each at its own price; without a price of one of them there is no cost.
 */
export function costOfCall(
  book: PriceBook,
  model: string,
  usage: UsageCounts,
  atMs: number,
  others: readonly OtherModelUsage[] = [],
): Result<CallCost, PricingProblem> {
  const price = priceAt(book, model, atMs);
  if (!price.ok) return price;
  const { currency } = price.value;
  if (others.length === 0) {
    const cost = costOf(usage, price.value);
    return cost.ok ? ok({ cost_micros: cost.value, currency, price: price.value }) : cost;
  }
  const inTier = priceInTier(price.value, usage.input_tokens, usage.service_tier);
  let exact = exactCost(usage, inTier);
  for (const other of others) {
    const otherPrice = priceAt(book, other.model, atMs);
    if (!otherPrice.ok) return otherPrice;
    const itsTier = priceInTier(otherPrice.value, other.counts.input_tokens, usage.service_tier);
    exact += exactCost(other.counts, itsTier) - exactCost(other.counts, inTier);
  }
  const cost = roundCost(exact < 0n ? 0n : exact);
  return cost.ok ? ok({ cost_micros: cost.value, currency, price: price.value }) : cost;
}
