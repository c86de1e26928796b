import { firstOf, indexBy, type KeyIndex } from "../columns.ts";
import { PENDING_ROW } from "../places.ts";
import { CHARGE, CHARGE_FAILURE, NOT_PAID, PAID, PARTIAL_CAPTURE } from "../stripe-table.ts";
import type { ChargeKey, Links, Merged, Sides } from "./links.ts";
import type { SameEventOrder } from "./merge-rows.ts";

export interface Charges extends Pick<Links, "chargesBy"> {
  /** The charge that a refund, failure or dispute names, by its id or its payment intent; −1 where none is known. */
  readonly namedBy: (event: number) => number;
}

/** Charges by their keys. */
export function indexCharges(
  { side, stripeKeys }: Sides,
  { stripePlace }: Merged,
  before: SameEventOrder,
): Charges {
  const stripe = side.table.columns;
  const events = side.table.length;
  // As it is now: an index may be made when rows have gone to their places already, and must hold those too.
  const isElsewhere = stripePlace.slice();
  const isCharge = (event: number): boolean =>
    stripe.kind[event] === CHARGE && isElsewhere[event] === PENDING_ROW && !stripe.foreign[event];
  const indexes = new Map<ChargeKey, KeyIndex | null>();
  function chargesBy(name: ChargeKey): KeyIndex | null {
    let index = indexes.get(name);
    if (index === undefined) {
      const isThere = name === "object" || name === "transaction" || side.ids.has(name);
      index = isThere ? indexBy(stripe[name], events, stripeKeys, isCharge) : null;
      indexes.set(name, index);
    }
    return index;
  }
  /** Of several charges of an intent the one that was paid, or was until it failed. */
  function paidByIntent(intent: number): number {
    const index = chargesBy("intent");
    let found = -1;
    for (let event = firstOf(index, intent); event >= 0; event = index?.next[event] ?? -1)
      if (stripe.state[event] === PAID && (found < 0 || before(event, found) < 0)) found = event;
    return found;
  }
  function namedBy(event: number): number {
    const charge = stripe.charge[event] === 0 ? -1 : firstOf(chargesBy("object"), stripe.charge[event]);
    return charge < 0 && stripe.intent[event] !== 0 ? paidByIntent(stripe.intent[event]) : charge;
  }
  return { chargesBy, namedBy };
}

/**
 * Settles the final amount of payments: less the part that was never captured, and nothing for one that failed after it
 * was booked. Returns when each failed (0 where it did not) and the charges that these rows belong to.
 */
export function settleCharges(
  { side }: Sides,
  { stripePlace, later }: Merged,
  { namedBy }: Charges,
  chargeOf: Int32Array,
): Float64Array {
  const stripe = side.table.columns;
  const events = side.table.length;
  const failedAt = new Float64Array(events);
  // The payments list has neither.
  if (!side.has.cash) return failedAt;
  const uncaptured = new Map<number, number>();
  for (let event = 0; event < events; event++) {
    const kind = stripe.kind[event];
    if ((kind !== CHARGE_FAILURE && kind !== PARTIAL_CAPTURE) || stripePlace[event] !== PENDING_ROW) continue;
    const charge = namedBy(event);
    chargeOf[event] = charge;
    if (charge < 0) continue;
    if (kind === PARTIAL_CAPTURE)
      uncaptured.set(charge, (uncaptured.get(charge) ?? 0) + amountOf(event, charge));
    else {
      stripe.state[charge] = NOT_PAID;
      failedAt[charge] = stripe.created[event];
    }
  }
  // The payments list has the state of today: a payment that failed after the period was paid at its end.
  for (const event of later) {
    const charge = stripe.kind[event] === CHARGE_FAILURE ? namedBy(event) : -1;
    if (charge >= 0 && stripe.state[charge] === NOT_PAID) stripe.state[charge] = PAID;
  }
  function amountOf(event: number, charge: number): number {
    return stripe.currency[event] === stripe.currency[charge] ? stripe.amount[event] : 0;
  }
  for (const [charge, amount] of uncaptured) {
    // The file says that this part was never captured: it is no refund, so none is looked for.
    stripe.uncaptured[charge] = 0;
    if (stripe.isCaptured[charge] === 1) continue;
    stripe.isCaptured[charge] = 1;
    // Stripe counts what a partial capture let go as refunded.
    stripe.refunded[charge] = Math.max(0, stripe.refunded[charge] - amount);
    stripe.amount[charge] = Math.max(0, stripe.amount[charge] - amount);
  }
  return failedAt;
}
