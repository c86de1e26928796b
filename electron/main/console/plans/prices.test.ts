import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { readCatalogue, reviewPrices } from "./prices.ts";

const catalogue = readCatalogue(
  readFileSync(new URL("../../../../supabase/prices/catalogue.yaml", import.meta.url), "utf8"),
);
const now = new Date("2026-11-28T12:00:00Z");
const empty = { currency: "usd", prices: [], unpriced: [] };

describe("the catalogue", () => {
  it("has each name once, each price with its source and date", () => {
    const names = catalogue.flatMap((line) =>
      [line.model, ...line.aliases].map((name) => `${line.provider} ${name}`),
    );
    expect(names.toSorted()).toEqual([...new Set(names)].toSorted());
    for (const line of catalogue) expect(line.as_of >= line.from.slice(0, 4), line.model).toBe(true);
  });

  it("agrees with the prices of the default preset", () => {
    const preset = parse(
      readFileSync(new URL("../../../../supabase/presets/default.yaml", import.meta.url), "utf8"),
    ) as { prices: Record<string, unknown>[] };
    const prices = preset.prices.map((each) => ({
      cached_input_micros_per_million: null,
      cache_write_micros_per_million: null,
      cache_write_1h_micros_per_million: null,
      reasoning_micros_per_million: null,
      batch_input_micros_per_million: null,
      batch_output_micros_per_million: null,
      priority_input_micros_per_million: null,
      priority_output_micros_per_million: null,
      long_context_above_tokens: null,
      long_context_input_micros_per_million: null,
      long_context_output_micros_per_million: null,
      ...each,
    }));
    const reviews = reviewPrices(catalogue, { ...empty, prices: prices as never }, 1, now);
    const different = reviews.filter((review) => review.kind === "different");
    // Where the preset says nothing of writes for an hour, twice the input is what the catalogue says too.
    for (const { current, proposed, model } of different) {
      expect(proposed?.cache_write_1h_micros_per_million, model).toBe(
        2 * (current?.input_micros_per_million ?? 0),
      );
      expect({ ...proposed, cache_write_1h_micros_per_million: null }, model).toEqual(current);
    }
  });
});

it("proposes a price for a model that is used without one, under the name that is used", () => {
  const unpriced = [
    { model: "claude-haiku-4-5-20251001", first_seen_at: "2026-11-20T00:00:00Z", calls: 7 },
    { model: "our-own", first_seen_at: "2026-11-21T00:00:00Z", calls: 2 },
  ];
  const [first, second] = reviewPrices(catalogue, { ...empty, currency: "gbp", unpriced }, 0.8, now);
  expect(first).toMatchObject({ kind: "unknown", model: "our-own", proposed: null });
  expect(second).toMatchObject({
    kind: "missing",
    model: "claude-haiku-4-5-20251001",
    proposed: { input_micros_per_million: 800_000, output_micros_per_million: 4_000_000, currency: "gbp" },
    unpriced: { calls: 7 },
  });
});
