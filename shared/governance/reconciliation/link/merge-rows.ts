import { findRepeated, indexBy, type KeyIndex } from "../columns.ts";
import { DUPLICATE, exclude, IN_DIFFERENCE, MERGED, PENDING_ROW } from "../places.ts";
import {
  CHARGE,
  CHARGE_FAILURE,
  DISPUTE,
  DISPUTE_REVERSAL,
  isCash,
  PAID,
  REFUND,
  REFUND_FAILURE,
} from "../stripe-table.ts";
import type { Merged, Sides } from "./links.ts";

/** Ids and words that the row representing an event takes over where it has none. */
const FILLED = [
  "object",
  "charge",
  "intent",
  "session",
  "order",
  "reference",
  "invoice",
  "customer",
  "user",
  "pack",
  "tokens",
  "product",
] as const;

/** Kinds that follow a payment and may come in a later period. */
const FOLLOWS: ReadonlySet<number> = new Set([
  REFUND,
  REFUND_FAILURE,
  CHARGE_FAILURE,
  DISPUTE,
  DISPUTE_REVERSAL,
]);

type SameEvent = (a: number, b: number) => boolean;

/** One economic event, however many rows report it: one row represents it, the others are merged into it. */
export function mergeRows(sides: Sides): Merged & { readonly before: SameEventOrder } {
  const { side, stripeKeys, times } = sides;
  const { table, kinds } = side;
  const stripe = table.columns;
  const events = table.length;
  const stripePlace = new Uint8Array(events);
  const mergedInto = new Int32Array(events).fill(-1);
  const cashCounts = new Uint8Array(events);
  const conflicts: number[] = [];
  if (side.has.cash)
    for (let event = 0; event < events; event++) if (isCash(kinds[stripe.file[event]])) cashCounts[event] = 1;

  const later: number[] = [];
  const hasFollowers = side.has.cash || side.has.disputes;
  for (let event = 0; event < events && hasFollowers; event++)
    if (stripe.created[event] >= times.to && FOLLOWS.has(stripe.kind[event])) {
      later.push(event);
      stripePlace[event] = exclude("outside_period");
    }
  const before = createOrder(sides);

  function merge(into: number, from: number): void {
    mergedInto[from] = into;
    for (const column of FILLED) if (stripe[column][into] === 0) stripe[column][into] = stripe[column][from];
    for (const column of [
      "dispute",
      "disputed",
      "refunded",
      "refundedAt",
      "disputedAt",
      "isCaptured",
      "uncaptured",
    ] as const)
      if (stripe[column][from] > stripe[column][into]) stripe[column][into] = stripe[column][from];
    if (stripe.test[from] === 1 || stripe.test[into] === 0) stripe.test[into] = stripe.test[from];
    if (stripe.settledOnly[into] && !stripe.settledOnly[from]) {
      stripe.amount[into] = stripe.amount[from];
      stripe.currency[into] = stripe.currency[from];
      stripe.settledOnly[into] = 0;
    }
    if (!isCash(kinds[stripe.file[into]]) && isCash(kinds[stripe.file[from]])) {
      stripe.cash[into] = Math.abs(stripe.cash[from]);
      stripe.cashCurrency[into] = stripe.cashCurrency[from];
    }
  }

  /** The first row represents all. Two rows of one file are duplicates, or they disagree; so may two files. */
  function absorb([primary, ...rest]: readonly number[], sameEvent: SameEvent, sameAcross: SameEvent): void {
    if (primary === undefined) return;
    for (const event of rest) {
      const twin = [primary, ...rest].find(
        (other) =>
          other !== event && stripe.file[other] === stripe.file[event] && stripePlace[other] === PENDING_ROW,
      );
      if (!(twin === undefined ? sameAcross : sameEvent)(primary, event)) {
        conflicts.push(event);
        stripePlace[event] = IN_DIFFERENCE;
        continue;
      }
      merge(primary, event);
      stripePlace[event] = twin === undefined ? MERGED : DUPLICATE;
    }
  }

  function mergeBy(
    column: Uint32Array,
    include: (event: number) => boolean,
    sameEvent: SameEvent,
    sameAcross: SameEvent = () => true,
  ): void {
    if (findRepeated(column, events, 0) === null) return;
    const index = indexBy(
      column,
      events,
      stripeKeys,
      (event) => stripePlace[event] === PENDING_ROW && include(event),
    );
    for (let event = 0; event < events; event++) {
      const key = column[event];
      // Only the first of a list looks at it, and only lists of two or more.
      if (key !== 0 && index.first[key] === event && index.next[event] >= 0)
        absorb(listOf(index, key).sort(before), sameEvent, sameAcross);
    }
  }

  const sameCash: SameEvent = (a, b) =>
    stripe.cash[a] === stripe.cash[b] && stripe.cashCurrency[a] === stripe.cashCurrency[b];
  const sameMoney: SameEvent = (a, b) =>
    stripe.amount[a] === stripe.amount[b] &&
    stripe.currency[a] === stripe.currency[b] &&
    stripe.state[a] === stripe.state[b];
  /** Two lists of payments, of which one may be older: what was paid stays, what was refunded or disputed since does not. */
  const samePaid: SameEvent = (a, b) =>
    isCash(kinds[stripe.file[a]]) ||
    isCash(kinds[stripe.file[b]]) ||
    stripe.state[a] !== PAID ||
    stripe.state[b] !== PAID ||
    (stripe.amount[a] + stripe.uncaptured[a] === stripe.amount[b] + stripe.uncaptured[b] &&
      stripe.currency[a] === stripe.currency[b]);
  const kindIs =
    (...wanted: readonly number[]) =>
    (event: number): boolean =>
      wanted.includes(stripe.kind[event]);

  if (side.has.cash) mergeBy(stripe.transaction, (event) => cashCounts[event] === 1, sameCash, sameCash);
  // A balance transaction that is in two files moves the balance once.
  for (let event = 0; event < events && side.has.cash; event++)
    if (cashCounts[event] === 1 && stripePlace[event] !== PENDING_ROW) cashCounts[event] = 0;
  mergeBy(stripe.object, kindIs(CHARGE), sameMoney, samePaid);
  if (hasFollowers) {
    for (const kind of [REFUND, REFUND_FAILURE, CHARGE_FAILURE])
      mergeBy(stripe.object, kindIs(kind), sameMoney);
    // Withdrawn, then reinstated: two rows, one dispute, the more final state counts.
    mergeBy(stripe.object, kindIs(DISPUTE, DISPUTE_REVERSAL), () => true);
  }
  mergeIntents(sides, stripePlace, before, merge);
  return { stripePlace, mergedInto, cashCounts, conflicts, later, before };
}

/** A paid row without a charge id is the same payment as a paid charge of its intent in another row. */
function mergeIntents(
  { side, stripeKeys }: Sides,
  stripePlace: Uint8Array,
  before: SameEventOrder,
  merge: (into: number, from: number) => void,
): void {
  const stripe = side.table.columns;
  const events = side.table.length;
  const isPaid = (event: number): boolean =>
    stripe.kind[event] === CHARGE && stripe.state[event] === PAID && stripePlace[event] === PENDING_ROW;
  if (!side.ids.has("intent")) return;
  let any = false;
  for (let event = 0; event < events && !any; event++)
    any = stripe.object[event] === 0 && stripe.intent[event] !== 0 && isPaid(event);
  if (!any) return;
  const index = indexBy(stripe.intent, events, stripeKeys, isPaid);
  for (let event = 0; event < events; event++) {
    const key = stripe.intent[event];
    if (key === 0 || index.first[key] !== event || index.next[event] < 0) continue;
    const rows = listOf(index, key).sort(before);
    const withId = rows.filter((row) => stripe.object[row] !== 0);
    const without = rows.filter((row) => stripe.object[row] === 0);
    const primary = withId[0] ?? without.shift();
    if (primary === undefined || withId.length > 1) continue;
    for (const row of without) {
      merge(primary, row);
      stripePlace[row] = stripe.file[row] === stripe.file[primary] ? DUPLICATE : MERGED;
    }
  }
}

export type SameEventOrder = (a: number, b: number) => number;

/** Any fixed order of contents will do: it must only not depend on the order of the rows. */
function createOrder({ side, interner, currencies }: Sides): SameEventOrder {
  const { table, kinds } = side;
  const stripe = table.columns;
  // The payments list knows what the customer paid; a balance export may know what was settled alone.
  const rank = (event: number): number =>
    isCash(kinds[stripe.file[event]]) ? (stripe.settledOnly[event] ? 2 : 1) : 0;
  const compare = (x: string, y: string): number => (x < y ? -1 : x > y ? 1 : 0);
  const compareText = (a: number, b: number): number =>
    a === b ? 0 : compare(interner.text(a), interner.text(b));
  const compareCurrency = (a: number, b: number): number =>
    a === b ? 0 : compare(currencies.code(a), currencies.code(b));
  return (a, b) =>
    rank(a) - rank(b) ||
    stripe.state[a] - stripe.state[b] ||
    stripe.created[a] - stripe.created[b] ||
    stripe.amount[a] - stripe.amount[b] ||
    compareCurrency(stripe.currency[a], stripe.currency[b]) ||
    stripe.refunded[b] - stripe.refunded[a] ||
    stripe.dispute[b] - stripe.dispute[a] ||
    compareText(stripe.object[a], stripe.object[b]) ||
    compareText(stripe.intent[a], stripe.intent[b]) ||
    compareText(stripe.transaction[a], stripe.transaction[b]);
}

export function listOf(index: KeyIndex, key: number): number[] {
  const rows: number[] = [];
  for (let row = index.first[key]; row >= 0; row = index.next[row]) rows.push(row);
  return rows;
}
