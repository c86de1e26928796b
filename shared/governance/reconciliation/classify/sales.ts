import { CHARGE } from "../stripe-table.ts";
import type { PackPrice } from "../types.ts";
import { count, type Findings } from "./findings.ts";

/** Whether a payment that has no grant was for tokens, and how that is known. A price alone never decides. */
type Sale =
  | {
      readonly is: "tokens";
      readonly pack: PackPrice | null;
      readonly tokens: number | null;
      readonly because: string;
    }
  /** The project's own marks are in the file, and this payment has none of them. */
  | { readonly is: "other" }
  /** The file does not show it. */
  | { readonly is: "unknown"; readonly because: string };

/** How a sale of tokens is recognised: by the project's packs, by metadata, and by the products of granted payments. */
export function learnSales({ side, links, ledger, stripe, text, packs, otherSales, money }: Findings) {
  let products: ReadonlyMap<number, Product> | null = null;

  function saleOf(event: number): Sale {
    const time = stripe.created[event];
    const packId = text(stripe.pack[event]);
    if (packId !== null) {
      const pack = packs.named(stripe.pack[event], time);
      return {
        is: "tokens",
        pack,
        tokens: pack?.tokens ?? null,
        because: `its metadata names the pack ${packId}`,
      };
    }
    const named = text(stripe.tokens[event]);
    if (named !== null && /^[1-9]\d{0,8}$/.test(named)) {
      const tokens = Number(named);
      return {
        is: "tokens",
        pack: packs.holding(tokens, time),
        tokens,
        because: `its metadata names ${count(tokens)} tokens`,
      };
    }
    products ??= learnProducts();
    const product = products.get(stripe.product[event]);
    if (product !== undefined) {
      // It is known to be for tokens: then the price says which pack.
      const alike = packs.costing(stripe.amount[event], stripe.currency[event], time);
      const pack = packs.named(product.pack, time) ?? (alike.length === 1 ? (alike[0] ?? null) : null);
      const times =
        product.sales === 1
          ? "a payment that was granted"
          : `${count(product.sales)} payments that were granted`;
      return {
        is: "tokens",
        pack,
        tokens: pack?.tokens ?? null,
        because: `it sold "${text(stripe.product[event])}", as did ${times}`,
      };
    }
    if (isMarked(event)) return { is: "other" };
    const alike = packs.costing(stripe.amount[event], stripe.currency[event], time);
    return {
      is: "unknown",
      because:
        alike.length > 0
          ? `${money(stripe.amount[event], stripe.currency[event])} is the price of ${alike.map((pack) => pack.pack_id).join(" and ")}, which alone does not make it a sale of tokens`
          : "nothing in the files shows what was sold",
    };
  }

  /** Whether the project itself knows that the payment was for something else. */
  function isOtherSale(event: number): boolean {
    if (otherSales.size === 0) return false;
    const ids = [stripe.invoice[event], stripe.intent[event], stripe.object[event]];
    return ids.some((key) => otherSales.has(text(key) ?? ""));
  }

  let marking: Uint8Array | null = null;
  /**
   * Whether a sale of tokens would be marked: some file with this payment has the columns that name one, and no payment
   * that was granted is in such a file without a mark.
   */
  function isMarked(event: number): boolean {
    marking ??= findMarking();
    return marking[event] === 1;
  }
  function findMarking(): Uint8Array {
    const marked = new Uint8Array(side.table.length);
    for (let row = 0; row < side.table.length; row++)
      if (side.namesTokens[stripe.file[row]]) {
        marked[row] = 1;
        if (links.mergedInto[row] >= 0) marked[links.mergedInto[row]] = 1;
      }
    for (let event = 0; event < side.table.length; event++)
      if (
        marked[event] === 1 &&
        links.claims.first[event] >= 0 &&
        stripe.invoice[event] === 0 &&
        stripe.pack[event] === 0 &&
        stripe.tokens[event] === 0
      )
        return marked.fill(0);
    return marked;
  }

  /** The products of granted payments; the pack is 0 where they were of several packs, or of none. */
  function learnProducts(): ReadonlyMap<number, Product> {
    const learnt = new Map<number, Product>();
    for (let event = 0; event < side.table.length; event++) {
      const key = stripe.product[event];
      const grant = links.claims.first[event];
      if (key === 0 || grant < 0 || stripe.kind[event] !== CHARGE) continue;
      const known = learnt.get(key);
      if (!known) learnt.set(key, { pack: ledger.pack[grant], sales: 1 });
      else {
        known.sales++;
        if (known.pack !== ledger.pack[grant]) known.pack = 0;
      }
    }
    return learnt;
  }

  return { saleOf, isOtherSale };
}

interface Product {
  pack: number;
  sales: number;
}
