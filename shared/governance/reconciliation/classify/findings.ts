import { formatMoney } from "../../money/index.ts";
import { type Currencies, isoTime, parseTime } from "../cells.ts";
import type { Interner } from "../interner.ts";
import type { LedgerTable } from "../ledger-side.ts";
import { IN_DIFFERENCE, type Links, PASSES } from "../match.ts";
import { EVENT_NAMES, type StripeSide } from "../stripe-side.ts";
import type { CorrectionAction, DifferenceClass, PackPrice, ReconcileOptions } from "../types.ts";

/** The frame that time-dependent classes are decided in, in seconds since 1970. */
export interface Frame {
  readonly from: number;
  readonly to: number;
  /** What the Stripe files cover. */
  readonly coveredTo: number;
  /** Of the last thing that they know. */
  readonly watermark: number;
  /** A payment after this may still get its grant. */

  readonly grantedBy: number;
}

/** Sums kept beside the differences, per currency: the bridge is checked with them. */
export interface Sums {
  readonly stripe: Map<number, { amount: number; count: number }>;
  readonly ledger: Map<number, { amount: number; count: number }>;
  readonly matched: Map<number, { amount: number; count: number }>;
  readonly byClass: Map<string, { currency: number; class: DifferenceClass; amount: number; count: number }>;
  readonly byPass: number[];
}

export interface Draft {
  readonly class: DifferenceClass;
  readonly key: string;
  readonly event: number;
  readonly record: number;
  readonly amount: number;
  readonly currency: number;
  readonly tokens: number;
  readonly occurred: number;
  readonly trail: readonly string[];
  readonly explanation: string;
  readonly action: CorrectionAction;
  readonly words: string;
  readonly correctionTokens?: number | null;
  readonly packId?: string | null;
  readonly correctionAmount?: number | null;
  readonly correctionCurrency?: number;
  readonly blocks?: boolean;
  readonly refundedMinor?: number;
  suggestion?: { draft: Draft; words: string };
}

/** What every draft is made with; `aboutEvent` and `aboutGrant` know the rest. */
export type Told = Pick<Draft, "class" | "trail" | "explanation" | "action" | "words"> & Partial<Draft>;

/** `1,234,567`, the same in every locale. */
export const count = (n: number): string => String(n).replace(/\B(?=(\d{3})+$)/g, ",");

/** Both sides, what is found in them, and the words for it: what the families of classes share. */
export type Findings = ReturnType<typeof createFindings>;

export function createFindings(
  side: StripeSide,
  ledgerTable: LedgerTable,
  links: Links,
  interner: Interner,
  currencies: Currencies,
  frame: Frame,
  options: ReconcileOptions,
) {
  const stripe = side.table.columns;
  const ledger = ledgerTable.columns;
  const { stripeDisposition: stripePlace, ledgerDisposition: ledgerPlace } = links;
  const text = (key: number): string | null => (key === 0 ? null : interner.text(key));
  const drafts: Draft[] = [];
  const tally = (
    map: Map<number, { amount: number; count: number }>,
    currency: number,
    amount: number,
  ): void => {
    const sum = map.get(currency);
    if (sum) {
      sum.amount += amount;
      sum.count++;
    } else map.set(currency, { amount, count: 1 });
  };
  const sums: Sums = {
    stripe: new Map(),
    ledger: new Map(),
    matched: new Map(),
    byClass: new Map(),
    byPass: [0, 0, 0, 0, 0, 0, 0],
  };
  /** A line of the bridge: Stripe's side less the ledger's. */
  const bridge = (name: DifferenceClass, currency: number, amount: number): void => {
    const key = `${currency}/${name}`;
    const sum = sums.byClass.get(key);
    if (sum) {
      sum.amount += amount;
      sum.count++;
    } else sums.byClass.set(key, { currency, class: name, amount, count: 1 });
  };
  const money = (amount: number, currency: number): string =>
    formatMoney(amount, currencies.code(currency) || "xxx");
  const eventKey = (event: number): string =>
    text(stripe.object[event]) ??
    text(stripe.intent[event]) ??
    text(stripe.session[event]) ??
    text(stripe.transaction[event]) ??
    `no-id-${isoTime(stripe.created[event]) ?? "no-time"}-${stripe.amount[event]}-${text(stripe.customer[event]) ?? "nobody"}`;
  const grantKey = (record: number): string => `entry-${ledger.transaction[record]}`;
  const paymentOf = (event: number): string => `${EVENT_NAMES[stripe.kind[event]]} ${eventKey(event)}`;
  const granted = (record: number): number => ledger.tokens[record] + links.adjusted[record];
  const grantMoney = (record: number): number => Math.max(0, ledger.amount[record]);
  /** Tokens of a grant that nothing has taken back yet. */
  const stillGranted = (record: number): number =>
    Math.max(0, granted(record) - links.reversed[record] - links.clawed[record]);
  const paidInBridge = (event: number): void =>
    tally(sums.stripe, stripe.currency[event], stripe.amount[event]);
  const grantInBridge = (record: number): void =>
    tally(sums.ledger, ledger.currency[record], grantMoney(record));
  const linkWords = (record: number, event: number): string =>
    `entry ${ledger.transaction[record]} ↔ ${eventKey(event)} by ${PASSES[links.claimPass[record]]}`;
  const isInPeriod = (time: number): boolean => time >= frame.from && time < frame.to;

  /** A difference about a row of Stripe's. */
  function aboutEvent(event: number, told: Told): void {
    drafts.push({
      key: eventKey(event),
      event,
      record: -1,
      amount: 0,
      currency: stripe.currency[event],
      tokens: 0,
      occurred: stripe.created[event],
      ...told,
    });
  }
  /** A grant whose money has no counterpart: off the bridge with it. `e` is the payment it is about, −1 for none. */
  function aboutGrant(record: number, event: number, told: Told): void {
    ledgerPlace[record] = IN_DIFFERENCE;
    grantInBridge(record);
    bridge(told.class, ledger.currency[record], -grantMoney(record));
    drafts.push({
      key: grantKey(record),
      event,
      record,
      amount: -grantMoney(record),
      currency: ledger.currency[record],
      tokens: 0,
      occurred: ledger.created[record],
      ...told,
    });
  }
  /** As aboutGrant, for tokens that are to be taken back. */
  function reverseGrant(
    record: number,
    event: number,
    told: Omit<Told, "action" | "words">,
    words: (back: string) => string,
  ): void {
    const back = stillGranted(record);
    aboutGrant(record, event, {
      ...told,
      action: "reverse",
      words: words(count(back)),
      tokens: back,
      correctionTokens: -back,
    });
  }

  return {
    side,
    ledgerTable,
    links,
    interner,
    currencies,
    frame,
    stripe,
    ledger,
    stripePlace,
    ledgerPlace,
    drafts,
    sums,
    tally,
    bridge,
    text,
    money,
    eventKey,
    grantKey,
    paymentOf,
    granted,
    grantMoney,
    stillGranted,
    paidInBridge,
    grantInBridge,
    linkWords,
    isInPeriod,
    aboutEvent,
    aboutGrant,
    reverseGrant,
    packs: createPackPrices(options.packs ?? [], interner, currencies),
    /** Grants whose refunds, whose disputes are in a difference: their records go there too. */
    refundsInDifference: new Set<number>(),
    disputesInDifference: new Set<number>(),
    /** Ledger records of refunds that a refund of Stripe's matched, or disagreed with. */
    matchedRefunds: new Set<number>(),
    disputedRefunds: new Set<number>(),
  };
}

/** What packs cost and held at a time. */
function createPackPrices(prices: readonly PackPrice[], interner: Interner, currencies: Currencies) {
  type Dated = PackPrice & { readonly from: number };
  const packs = new Map<string, Dated[]>();
  for (const price of prices) {
    const list = packs.get(price.pack_id) ?? [];
    list.push({ ...price, from: parseTime(price.valid_from) });
    packs.set(price.pack_id, list);
  }
  for (const list of packs.values()) list.sort((a, b) => a.from - b.from);
  const at = (list: readonly Dated[], time: number): PackPrice | null => {
    let found: PackPrice | null = null;
    for (let i = 0; i < list.length; i++) {
      const price = list[i];
      if (price.from > time) break;
      found = price;
    }
    return found;
  };
  const byKey = new Map<number, readonly Dated[]>();
  const none: readonly Dated[] = [];
  /** The pack whose id has this number, without making the id's text each time. */
  function named(key: number, time: number): PackPrice | null {
    if (key === 0) return null;
    let list = byKey.get(key);
    if (list === undefined) {
      list = packs.get(interner.text(key)) ?? none;
      byKey.set(key, list);
    }
    return at(list, time);
  }
  /** The only pack that cost so much then; null where there are several, or none. */
  function costing(amount: number, currency: number, time: number): PackPrice | null {
    const code = currencies.code(currency);
    const fitting = [...packs.values()]
      .map((list) => at(list, time))
      .filter(
        (price) => price !== null && price.price_minor === amount && price.currency.toLowerCase() === code,
      );
    return fitting.length === 1 ? (fitting[0] ?? null) : null;
  }
  return { named, costing };
}
