import { type Currencies, parseTime } from "../cells.ts";
import type { Interner } from "../interner.ts";
import type { PackPrice } from "../types.ts";

type Dated = PackPrice & { readonly from: number; readonly currencyIndex: number };

/** The price of packs and the tokens in them, at a given time. */
export function createPackPrices(prices: readonly PackPrice[], interner: Interner, currencies: Currencies) {
  const packs = new Map<string, Dated[]>();
  for (const price of prices) {
    const list = packs.get(price.pack_id) ?? [];
    list.push({
      ...price,
      from: parseTime(price.valid_from),
      currencyIndex: currencies.readText(price.currency),
    });
    packs.set(price.pack_id, list);
  }
  for (const list of packs.values()) list.sort((a, b) => a.from - b.from);
  function at(list: readonly Dated[], time: number): Dated | null {
    let found: Dated | null = null;
    for (const price of list) {
      if (price.from > time) break;
      found = price;
    }
    return found;
  }
  const byKey = new Map<number, readonly Dated[]>();
  let last: { readonly key: number; readonly list: readonly Dated[] } = { key: 0, list: [] };
  /** The pack whose id has this number, without making the id's text each time. */
  function named(key: number, time: number): Dated | null {
    if (key === 0) return null;
    if (key !== last.key) {
      const list = byKey.get(key) ?? packs.get(interner.text(key)) ?? [];
      byKey.set(key, list);
      last = { key, list };
    }
    return at(last.list, time);
  }
  /** The packs that cost so much then. */
  function costing(amount: number, currency: number, time: number): readonly PackPrice[] {
    return [...packs.values()].flatMap((list) => {
      const price = at(list, time);
      return price !== null && price.price_minor === amount && price.currencyIndex === currency
        ? [price]
        : [];
    });
  }
  /** The only pack that holds so many tokens then; null where there are several, or none. */
  function holding(tokens: number, time: number): PackPrice | null {
    const fitting = [...packs.values()].flatMap((list) => {
      const price = at(list, time);
      return price?.tokens === tokens ? [price] : [];
    });
    return fitting.length === 1 ? (fitting[0] ?? null) : null;
  }
  return { named, costing, holding };
}
