/** Prices: the project's beside a catalogue of public list prices. Nothing is taken over by itself. */
import { parse } from "yaml";
import { z } from "zod";
import {
  price,
  type PriceRecord,
  type PriceReview,
  pricesOperations,
} from "../../../../shared/contract/index.ts";
import { ok } from "../../../../shared/governance/result.ts";
import { type DeskContext, readThrough } from "../desk-context.ts";
import type { Handlers } from "../dispatch.ts";

const dollars = z.number().min(0).max(1_000_000);
const tier = z.strictObject({ input: dollars, output: dollars });
const catalogueFile = z.strictObject({
  prices: z.array(
    z.strictObject({
      provider: z.string().min(1),
      model: z.string().min(1),
      aliases: z.array(z.string().min(1)).default([]),
      from: z.iso.date(),
      input: dollars,
      output: dollars,
      cached_input: dollars.optional(),
      cache_write: dollars.optional(),
      cache_write_1h: dollars.optional(),
      batch: tier.optional(),
      priority: tier.optional(),
      long_context: tier.extend({ above_input_tokens: z.number().int().positive() }).optional(),
      source: z.url(),
      as_of: z.iso.date(),
    }),
  ),
});
type Catalogue = z.output<typeof catalogueFile>["prices"];

/** Reads the catalogue that the console came with. Throws where the file does not hold: a test keeps it right. */
export function readCatalogue(text: string): Catalogue {
  return catalogueFile.parse(parse(text)).prices;
}

const project = z.looseObject({
  currency: z.string(),
  prices: z.array(price),
  unpriced: z.array(z.object({ model: z.string(), first_seen_at: z.string(), calls: z.number().int() })),
});

const amounts = [
  "input_micros_per_million",
  "output_micros_per_million",
  "cached_input_micros_per_million",
  "cache_write_micros_per_million",
  "cache_write_1h_micros_per_million",
  "reasoning_micros_per_million",
  "batch_input_micros_per_million",
  "batch_output_micros_per_million",
  "priority_input_micros_per_million",
  "priority_output_micros_per_million",
  "long_context_above_tokens",
  "long_context_input_micros_per_million",
  "long_context_output_micros_per_million",
] as const;

function proposedPrice(line: Catalogue[number], model: string, currency: string, rate: number): PriceRecord {
  const micros = (amount: number): number => Math.round(amount * 1_000_000 * rate);
  const optional = (amount: number | undefined): number | null =>
    amount === undefined ? null : micros(amount);
  return {
    provider: line.provider,
    model,
    input_micros_per_million: micros(line.input),
    output_micros_per_million: micros(line.output),
    cached_input_micros_per_million: optional(line.cached_input),
    cache_write_micros_per_million: optional(line.cache_write),
    cache_write_1h_micros_per_million: optional(line.cache_write_1h),
    reasoning_micros_per_million: null,
    batch_input_micros_per_million: optional(line.batch?.input),
    batch_output_micros_per_million: optional(line.batch?.output),
    priority_input_micros_per_million: optional(line.priority?.input),
    priority_output_micros_per_million: optional(line.priority?.output),
    long_context_above_tokens: line.long_context?.above_input_tokens ?? null,
    long_context_input_micros_per_million: optional(line.long_context?.input),
    long_context_output_micros_per_million: optional(line.long_context?.output),
    currency,
    effective_from: line.from,
  };
}

/** The catalogue beside what the project has: the price in force now, under the model's name or an alias. */
export function reviewPrices(
  catalogue: Catalogue,
  { currency, prices, unpriced }: z.output<typeof project>,
  rate: number,
  now: Date,
): PriceReview[] {
  const inForce = (provider: string, model: string): PriceRecord | null =>
    prices
      .filter(
        (each) =>
          each.provider === provider &&
          each.model === model &&
          Date.parse(each.effective_from) <= now.getTime(),
      )
      .toSorted((a, b) => Date.parse(a.effective_from) - Date.parse(b.effective_from))
      .at(-1) ?? null;
  const missing = new Map(unpriced.map((each) => [each.model, each]));
  const reviews = catalogue.flatMap((line): PriceReview[] => {
    const names = [line.model, ...line.aliases];
    // The names that the project uses; the model's own where it uses none.
    const used = names.filter((name) => inForce(line.provider, name) !== null || missing.has(name));
    return (used.length > 0 ? used : [line.model]).map((model) => {
      const current = inForce(line.provider, model);
      const listed = proposedPrice(line, model, currency, rate);
      // A correction counts from the moment that the price it corrects does.
      const proposed = current ? { ...listed, effective_from: current.effective_from } : listed;
      // What the catalogue does not name stays as it is.
      const isSame =
        current !== null && amounts.every((key) => proposed[key] === null || proposed[key] === current[key]);
      const seen = missing.get(model);
      missing.delete(model);
      return {
        kind: current === null ? "missing" : isSame ? "same" : "different",
        provider: line.provider,
        model,
        current,
        proposed: current
          ? { ...proposed, ...Object.fromEntries(amounts.map((key) => [key, proposed[key] ?? current[key]])) }
          : proposed,
        source: line.source,
        as_of: line.as_of,
        unpriced: seen ? { first_seen_at: seen.first_seen_at, calls: seen.calls } : null,
      };
    });
  });
  const unknown = [...missing.values()].map(
    ({ model, first_seen_at, calls }): PriceReview => ({
      kind: "unknown",
      provider: null,
      model,
      current: null,
      proposed: null,
      source: null,
      as_of: null,
      unpriced: { first_seen_at, calls },
    }),
  );
  const rank = (review: PriceReview): number =>
    review.unpriced ? 0 : ["different", "missing", "same"].indexOf(review.kind) + 1;
  return [...unknown, ...reviews].toSorted((a, b) => rank(a) - rank(b));
}

export function priceHandlers(
  desk: DeskContext,
  catalogue: Catalogue,
): Pick<Handlers, keyof typeof pricesOperations> {
  const read = () => readThrough(desk, "prices", "console_prices", {}, project);
  return {
    "prices.review": async ({ rate }) => {
      const answer = await read();
      if (!answer.ok) return answer;
      const { value } = answer.value;
      return ok({ currency: value.currency, reviews: reviewPrices(catalogue, value, rate, desk.now()) });
    },
  };
}
