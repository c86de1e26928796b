/** Costs: what was used and what it cost, over any range; revenue beside it. One source for each figure. */
import { z } from "zod";
import { instant, operation, tokens, whole } from "./basics.ts";

/** A calendar day, YYYY-MM-DD: each account's own. */
const day = z.iso.date();

const costStep = z.enum(["day", "week", "month"]);
export type CostStep = z.infer<typeof costStep>;
export const costDimension = z.enum([
  "model",
  "provider",
  "plan",
  "task_type",
  "scope",
  "user",
  "session",
  "agent",
]);
export type CostDimension = z.infer<typeof costDimension>;

const sums = z.looseObject({
  /** Micro-units of the project's currency, at each call's price of its day; models without a price cost nothing. */
  cost_micros: whole,
  /** Settled calls. */
  calls: whole,
  /** Input and output. */
  tokens,
});

/** What console_costs answers. Source: the roll-ups that each settlement writes. */
export const costs = sums.extend({
  from: day,
  to: day,
  before_from: day,
  currency: z.string(),
  /** As many days before the range. */
  before: sums,
  /** Oldest first, without gaps; the first and last are cut to the range. */
  periods: z.array(
    sums.extend({
      from: day,
      to: day,
      /** Charged: what budgets of tokens count. */
      charged_tokens: tokens.optional(),
    }),
  ),
  /** The dearest first, at most 100. */
  parts: z.array(
    sums.extend({
      /** Empty for calls that name none. */
      key: z.string().nullable(),
      name: z.string().nullable(),
      before_cost_micros: whole,
    }),
  ),
  /** How many there are in all; null where very many are not all read. */
  part_count: whole.nullable(),
  /** Of the ten dearest together. */
  top_ten_cost_micros: whole,
  /** Estimates of what was not spent, of everybody; empty with a filter. A figure below zero was spent more. */
  savings: z.partialRecord(
    z.enum(["routing", "caching", "rules"]),
    z.looseObject({ calls: whole, saved_micros: z.number().int() }),
  ),
});
export type Costs = z.infer<typeof costs>;

/** A session and an agent have calls of their own desk; the figures are narrowed by the others. */
export const costFilters = costDimension.exclude(["session", "agent"]);

const costFilter = z
  .object(Object.fromEntries(costFilters.options.map((name) => [name, z.string().max(500).optional()])))
  .strict();

export const costsOperations = {
  "costs.get": operation(
    z.object({ from: day, to: day, step: costStep, by: costDimension, filter: costFilter }).strict(),
    costs.extend({ as_of: instant.nullable() }),
  ),
} as const;
