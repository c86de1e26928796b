import { proRata } from "../../money/index.ts";
import { REFUND_RECORD } from "../ledger-side.ts";
import { PENDING_ROW } from "../places.ts";
import {
  CHARGE,
  DISPUTE,
  DISPUTE_REVERSAL,
  INQUIRY,
  LOST,
  NO_DISPUTE,
  OPEN,
  REFUND,
  REFUND_FAILURE,
  WITHDRAWN,
  WON,
} from "../stripe-table.ts";
import type { Charges } from "./charges.ts";
import type { Claims, Lots, Merged, Returns, Sides } from "./links.ts";
import { paidForAll } from "./passes.ts";

/**
 * Refunds and disputes to their charge: by what the row names, else by what the ledger knows of the refund or dispute.
 * Sums hold what came about by the end of the period; what came later is kept apart.
 */
export function collectReturns(
  sides: Sides,
  merged: Merged,
  lots: Lots,
  claims: Claims,
  charges: Charges,
  chargeOf: Int32Array,
  failedAt: Float64Array,
): Returns {
  const { side, times } = sides;
  const stripe = side.table.columns;
  const events = side.table.length;
  const returns: Returns = {
    chargeOf,
    refundedOf: new Float64Array(events),
    refundedAtMost: new Float64Array(events),
    refundedAt: new Float64Array(events),
    disputedOf: new Float64Array(events),
    disputeOf: new Uint8Array(events),
    disputeNow: new Uint8Array(events),
    disputedAt: new Float64Array(events),
    failedAt,
  };
  const chargeByLedger = ledgerKnows(sides, lots, claims);
  const sums = new Map<number, RefundSum>();
  const disputed = new Map<number, number>();
  const hasReturns = side.has.cash || side.has.disputes;
  for (let event = 0; event < events && hasReturns; event++) {
    if (merged.stripePlace[event] !== PENDING_ROW) continue;
    const kind = stripe.kind[event];
    const isRefund = kind === REFUND || kind === REFUND_FAILURE;
    if (!isRefund && kind !== DISPUTE && kind !== DISPUTE_REVERSAL) continue;
    const named = charges.namedBy(event);
    const charge = named >= 0 ? named : chargeByLedger(event);
    chargeOf[event] = charge;
    if (charge < 0) continue;
    if (isRefund) addRefund(stripe, event, charge, chargeOf, sums);
    else addDispute(stripe, event, charge, returns, disputed);
  }
  // Of nearly all payments nothing went back.
  const isTouched = (event: number): boolean =>
    stripe.refunded[event] !== 0 ||
    stripe.dispute[event] !== 0 ||
    stripe.disputed[event] !== 0 ||
    (sums.size > 0 && sums.has(event)) ||
    (disputed.size > 0 && disputed.has(event)) ||
    returns.disputeOf[event] !== 0;
  for (let event = 0; event < events; event++)
    if (isTouched(event) && stripe.kind[event] === CHARGE && merged.stripePlace[event] === PENDING_ROW)
      settleCharge(stripe, event, sums.get(event), returns, times.to, (disputed.get(event) ?? 0) > 1);
  for (const event of merged.later) noteLater(stripe, event, charges.namedBy(event), returns);
  for (const [main, parts] of claims.partsOf) addParts(returns, main, parts);
  return returns;
}

type StripeColumns = Sides["side"]["table"]["columns"];

interface RefundSum {
  amount: number;
  at: number;
}

function addRefund(
  stripe: StripeColumns,
  event: number,
  charge: number,
  chargeOf: Int32Array,
  sums: Map<number, RefundSum>,
): void {
  if (stripe.currency[event] !== stripe.currency[charge]) {
    // Converted at the refund's own day's rate: only a whole refund can be recognised by the settled amounts.
    if (stripe.refunded[charge] === 0) chargeOf[event] = -1;
    return;
  }
  const sum = sums.get(charge) ?? { amount: 0, at: Number.NaN };
  sum.amount += stripe.kind[event] === REFUND ? stripe.amount[event] : -stripe.amount[event];
  if (!(sum.at > stripe.created[event])) sum.at = stripe.created[event];
  sums.set(charge, sum);
}

/** Of several disputes of a payment: one that is open counts, then one whose money has left, then those that were lost. */
const byWeight = [NO_DISPUTE, INQUIRY, WON, LOST, WITHDRAWN, OPEN];

function addDispute(
  stripe: StripeColumns,
  event: number,
  charge: number,
  returns: Returns,
  disputed: Map<number, number>,
): void {
  const state = stripe.dispute[event];
  const before = returns.disputeOf[charge];
  // A dispute in another currency than its payment's does not show the part: it counts as the whole.
  const amount =
    stripe.currency[event] === stripe.currency[charge] ? stripe.amount[event] : stripe.amount[charge];
  returns.disputedAt[charge] = stripe.created[event];
  const hasOwnId = stripe.object[event] !== 0 && stripe.object[event] !== stripe.object[charge];
  const others = disputed.get(charge) ?? 0;
  if (hasOwnId) disputed.set(charge, others + 1);
  if (!hasOwnId || others === 0) {
    // Rows without an id of their own may be of one dispute: its most final state counts.
    if (state > before) returns.disputeOf[charge] = state;
    if (amount > returns.disputedOf[charge]) returns.disputedOf[charge] = amount;
  } else if (state === before) returns.disputedOf[charge] += amount;
  else if (byWeight.indexOf(state) > byWeight.indexOf(before)) {
    returns.disputeOf[charge] = state;
    returns.disputedOf[charge] = amount;
  }
}

/** Joins the cumulative figures of the payments list with the single refunds and disputes of a charge. */
function settleCharge(
  stripe: StripeColumns,
  event: number,
  single: RefundSum | undefined,
  returns: Returns,
  end: number,
  hasSeveralDisputes: boolean,
): void {
  const cumulative = stripe.refunded[event];
  const sum = single?.amount ?? 0;
  const known = Math.max(0, sum >= stripe.uncaptured[event] ? sum - stripe.uncaptured[event] : sum);
  const isLater = stripe.refundedAt[event] >= end;
  if (known > 0 || cumulative > 0) {
    returns.refundedOf[event] = isLater ? known : Math.max(known, cumulative);
    returns.refundedAtMost[event] = Math.max(known, cumulative);
  }
  const refundedAt = single?.at ?? (cumulative > 0 ? stripe.refundedAt[event] : 0);
  if (refundedAt > 0) returns.refundedAt[event] = refundedAt;
  if (hasSeveralDisputes) {
    // The payments list reports only one of them.
    returns.disputeNow[event] = returns.disputeOf[event];
    return;
  }
  if (stripe.dispute[event] > returns.disputeNow[event]) returns.disputeNow[event] = stripe.dispute[event];
  if (stripe.disputedAt[event] < end && stripe.dispute[event] > returns.disputeOf[event]) {
    returns.disputeOf[event] = stripe.dispute[event];
    if (stripe.disputedAt[event] > 0) returns.disputedAt[event] = stripe.disputedAt[event];
  }
  if (returns.disputeOf[event] > returns.disputeNow[event])
    returns.disputeNow[event] = returns.disputeOf[event];
  if (stripe.disputed[event] > returns.disputedOf[event]) returns.disputedOf[event] = stripe.disputed[event];
}

/** After the period's end: it may explain what the ledger did since, and is no difference of this period. */
function noteLater(stripe: StripeColumns, event: number, charge: number, returns: Returns): void {
  if (charge < 0) return;
  const kind = stripe.kind[event];
  if (kind === DISPUTE || kind === DISPUTE_REVERSAL) {
    if (stripe.dispute[event] > returns.disputeNow[charge])
      returns.disputeNow[charge] = stripe.dispute[event];
    if (returns.disputedOf[charge] === 0) returns.disputedOf[charge] = stripe.amount[charge];
  } else if (kind !== REFUND_FAILURE)
    returns.refundedAtMost[charge] = Math.min(
      stripe.amount[charge],
      returns.refundedAtMost[charge] +
        (kind === REFUND && stripe.currency[event] === stripe.currency[charge]
          ? stripe.amount[event]
          : stripe.amount[charge]),
    );
}

function addParts(returns: Returns, main: number, parts: readonly number[]): void {
  for (const part of parts) {
    if (part === main) continue;
    returns.refundedOf[main] += returns.refundedOf[part];
    returns.refundedAtMost[main] += returns.refundedAtMost[part];
    if (returns.refundedAt[part] > returns.refundedAt[main])
      returns.refundedAt[main] = returns.refundedAt[part];
    if (returns.disputeOf[part] > 0) returns.disputedOf[main] += returns.disputedOf[part];
    if (returns.disputeOf[part] > returns.disputeOf[main]) returns.disputeOf[main] = returns.disputeOf[part];
    if (returns.disputeNow[part] > returns.disputeNow[main])
      returns.disputeNow[main] = returns.disputeNow[part];
  }
}

/** The charge of a refund or dispute whose row names none, where the ledger has a record of it. */
function ledgerKnows({ ledgerTable, side }: Sides, lots: Lots, { claim }: Claims): (event: number) => number {
  const ledger = ledgerTable.columns;
  const stripe = side.table.columns;
  let grants: Map<number, number> | null = null;
  return (event) => {
    if (stripe.object[event] === 0) return -1;
    if (grants === null) {
      grants = new Map();
      for (let record = 0; record < ledgerTable.length; record++) {
        if (lots.grantOf[record] < 0) continue;
        const key = ledger.type[record] === REFUND_RECORD ? ledger.refund[record] : ledger.dispute[record];
        if (key !== 0) grants.set(key, lots.grantOf[record]);
      }
    }
    const grant = grants.get(stripe.object[event]) ?? -1;
    return grant < 0 ? -1 : claim[grant];
  };
}

/**
 * An export without captures shows what was never captured as refunded. Where the grant has the price of
 * less than the payment, what is missing is among the refunds, and the ledger took back what the others call for, the
 * payment is what was captured, and only the others were refunded.
 */
export function readPartialCaptures(
  { side, ledgerTable }: Sides,
  lots: Lots,
  { claims, partsOf }: Claims,
  returns: Returns,
): void {
  const stripe = side.table.columns;
  const ledger = ledgerTable.columns;
  for (let event = 0; event < side.table.length; event++) {
    if (returns.refundedAtMost[event] === 0 || stripe.isCaptured[event] === 1) continue;
    if (partsOf.has(event)) continue;
    const grants: number[] = [];
    for (let record = claims.first[event]; record >= 0; record = claims.next[record]) grants.push(record);
    if (grants.length === 0 || grants.some((record) => ledger.currency[record] !== stripe.currency[event]))
      continue;
    const captured = paidForAll(ledger, grants);
    const uncaptured = stripe.amount[event] - captured;
    if (captured <= 0 || uncaptured <= 0 || uncaptured > returns.refundedAtMost[event]) continue;
    const sure = Math.max(0, returns.refundedOf[event] - uncaptured);
    const atMost = returns.refundedAtMost[event] - uncaptured;
    const isTaken = grants.every((record) => {
      const tokens = Math.max(0, ledger.tokens[record] + lots.adjusted[record]);
      const taken = [lots.reversed[record], lots.reversedByEnd[record]];
      return [sure, atMost].some((refunded) => taken.includes(proRata(tokens, refunded, captured)));
    });
    if (!isTaken) continue;
    stripe.isCaptured[event] = 1;
    stripe.amount[event] = captured;
    returns.refundedOf[event] = sure;
    returns.refundedAtMost[event] = atMost;
  }
}
