import { costOfCall, type PriceBook } from "../pricing/prices.ts";
import { makeCounts } from "../usage/counts.ts";
import type { ReplayEvent } from "./events.ts";

/**
 * What a settled call would have cost on another model or at other prices, in micro-units: its recorded cost, scaled by
 * what both prices make of its tokens, so that cached input, which events do not carry, keeps its discount. Null where
 * the model has no price then, or one in another currency and the call's own has none to compare it with.
 */
export function costInstead(
  event: ReplayEvent,
  model: string,
  prices: PriceBook,
  pricesNow: PriceBook | null,
  atMs: number,
): number | null {
  const counts = makeCounts({ input: event.input_tokens ?? 0, output: event.output_tokens ?? 0 });
  if (!counts.ok) return null;
  const instead = costOfCall(prices, model, counts.value, atMs);
  if (!instead.ok) return null;
  const { cost_micros: micros, currency } = instead.value;
  const recorded = event.cost_micros ?? null;
  const now = pricesNow && costOfCall(pricesNow, event.model ?? "", counts.value, atMs);
  if (recorded !== null && now?.ok && now.value.cost_micros > 0 && now.value.currency === currency)
    return Math.round((recorded * micros) / now.value.cost_micros);
  return (event.currency ?? currency).toLowerCase() === currency ? micros : null;
}
