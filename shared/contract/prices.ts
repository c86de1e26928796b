/** Prices: what is set, and where it differs from the catalogue of public list prices. They change as plans do. */
import { z } from "zod";
import { instant, operation, whole } from "./basics.ts";

const perMillion = z.number().int().min(0).max(1_000_000_000_000_000);

/** Micro-units of a currency per million tokens; null: as docs/RULES.md, "Cost of a call", says. */
export const price = z.object({
  provider: z.string().min(1).max(200),
  model: z.string().min(1).max(200),
  input_micros_per_million: perMillion,
  output_micros_per_million: perMillion,
  cached_input_micros_per_million: perMillion.nullable(),
  cache_write_micros_per_million: perMillion.nullable(),
  cache_write_1h_micros_per_million: perMillion.nullable(),
  reasoning_micros_per_million: perMillion.nullable(),
  // Of a project that is older than tiers there are none.
  batch_input_micros_per_million: perMillion.nullable().default(null),
  batch_output_micros_per_million: perMillion.nullable().default(null),
  priority_input_micros_per_million: perMillion.nullable().default(null),
  priority_output_micros_per_million: perMillion.nullable().default(null),
  long_context_above_tokens: whole.nullable().default(null),
  long_context_input_micros_per_million: perMillion.nullable().default(null),
  long_context_output_micros_per_million: perMillion.nullable().default(null),
  currency: z.string(),
  /** A day or an instant. */
  effective_from: z.string(),
});
export type PriceRecord = z.infer<typeof price>;

/** A line of the catalogue beside what the project has. */
const priceReview = z.object({
  /** missing: no price; different: another one; same; unknown: used and not in the catalogue. */
  kind: z.enum(["missing", "different", "same", "unknown"]),
  provider: z.string().nullable(),
  /** The name that the project uses: the model's own, or an alias. */
  model: z.string(),
  current: price.nullable(),
  /** In the project's currency; null where the catalogue has none. */
  proposed: price.nullable(),
  source: z.string().nullable(),
  as_of: z.string().nullable(),
  /** Where calls used the model without a price. */
  unpriced: z.object({ first_seen_at: instant, calls: whole }).nullable(),
});
export type PriceReview = z.infer<typeof priceReview>;

export const pricesOperations = {
  /** The catalogue beside the project; `rate`: units of the project's currency for one US dollar. */
  "prices.review": operation(
    z.object({ rate: z.number().positive().max(1_000_000) }).strict(),
    z.object({ currency: z.string(), reviews: z.array(priceReview) }),
  ),
} as const;
