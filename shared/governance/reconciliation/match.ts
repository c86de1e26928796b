import { firstOf, indexBy, type KeyIndex } from "./columns.ts";
import type { Interner } from "./interner.ts";
import {
  ADJUSTMENT,
  CLAWBACK,
  GRANT,
  HOLD,
  type LedgerTable,
  PROMOTIONAL,
  PROMOTIONAL_GRANT,
  REFUND_RECORD,
  RELABEL,
  RELEASE,
  RESTORATION,
} from "./ledger-side.ts";
import {
  CHARGE,
  DISPUTE,
  DISPUTE_REVERSAL,
  isCash,
  NOT_PAID,
  PAID,
  REFUND,
  REFUND_FAILURE,
  type StripeSide,
} from "./stripe-side.ts";

/** Where a row went. From EXCLUDED on: the index into EXCLUSIONS. */
export const PENDING_ROW = 0;
export const MATCHED = 1;
export const IN_DIFFERENCE = 2;
export const MERGED = 3;
export const DUPLICATE = 4;
export const EXCLUDED = 5;
export const EXCLUSIONS = [
  "not_paid",
  "pending",
  "not_captured",
  "outside_period",
  "other_account",
  "fee",
  "payout",
  "other_movement",
  "refunded_in_full",
  "covered_by_payments",
  "not_covered",
  "promotional",
  "voided",
  "correction",
] as const;
export const exclude = (reason: (typeof EXCLUSIONS)[number]): number => EXCLUDED + EXCLUSIONS.indexOf(reason);

/** States of a lot in a dispute, as the ledger has them. */
export const FREE = 0;
export const HELD = 1;
export const RELEASED = 2;
export const CLAWED = 3;

export const PASSES = [
  "",
  "balance transaction, refund or dispute id",
  "charge id",
  "payment intent",
  "checkout session, order or client reference",
  "invoice line and period",
  "exact sum inside one charge",
] as const;

/** Columns of the Stripe side that charges are found by. */
export type ChargeKey = "object" | "intent" | "session" | "order" | "reference" | "invoice" | "transaction";

/** Both sides linked: everything the classes are decided from. Indexes are rows of the two tables. */
export interface Links {
  readonly stripeDisposition: Uint8Array;
  readonly ledgerDisposition: Uint8Array;
  /** The event that a merged row went into, else −1. */
  readonly mergedInto: Int32Array;
  /** 1 where the row's cash counts in the tie-out: once a balance transaction. */
  readonly cashCounts: Uint8Array;
  /** Rows of one file that claim the same id and disagree. */
  readonly conflicts: number[];
  /** The charge a refund or dispute belongs to, else −1. */
  readonly chargeOf: Int32Array;
  /** Refunded in all, per charge: the cumulative figure or the sum of refunds, whichever is more. */
  readonly refundedOf: Float64Array;
  readonly disputedOf: Float64Array;
  readonly disputeOf: Uint8Array;
  /** Per grant: the charge it claims, else −1, and by which pass. */
  readonly claim: Int32Array;
  readonly claimPass: Uint8Array;
  readonly claims: KeyIndexByRow;
  /** Per later record: its grant, else −1. */
  readonly grantOf: Int32Array;
  /** Per grant: tokens taken back for refunds (≥ 0), quantity corrections, taken for disputes (≥ 0). */
  readonly reversed: Float64Array;
  readonly adjusted: Float64Array;
  readonly clawed: Float64Array;
  readonly lotDispute: Uint8Array;
  /** Per grant: when its dispute state was set. */
  readonly lotDisputeAt: Float64Array;
  /** 1 where nothing of the grant is left to match: reclassified or corrected to zero. */
  readonly void: Uint8Array;
  /** 1 where a person posted the grant's amount as checked (relabel). */
  readonly relabelled: Uint8Array;
  /** Made when first asked for. */
  readonly chargesBy: (name: ChargeKey) => KeyIndex | null;
  readonly grantsByCharge: () => KeyIndex;
}

/** Lists of ledger rows by stripe row. */
interface KeyIndexByRow {
  readonly first: Int32Array;
  readonly next: Int32Array;
}

export function link(
  side: StripeSide,
  ledgerTable: LedgerTable,
  interner: Interner,
  stripeKeys: number,
): Links {
  const { table: stripeTable, kinds } = side;
  const stripe = stripeTable.columns;
  const ledger = ledgerTable.columns;
  const events = stripeTable.length;
  const records = ledgerTable.length;

  const stripeDisposition = new Uint8Array(events);
  const ledgerDisposition = new Uint8Array(records);
  const mergedInto = new Int32Array(events).fill(-1);
  const cashCounts = new Uint8Array(events);
  const conflicts: number[] = [];
  for (let event = 0; event < events; event++)
    if (isCash(kinds[stripe.file[event]] as never)) cashCounts[event] = 1;

  // --- one economic event, however many rows tell it ---------------------------------------------------------------
  const rank = (event: number): number =>
    isCash(kinds[stripe.file[event]] as never) ? (stripe.settledOnly[event] ? 2 : 1) : 0;
  /** Any fixed order of contents will do: it must only not depend on where the rows stand. */
  const before = (a: number, b: number): number =>
    rank(a) - rank(b) ||
    stripe.state[a] - stripe.state[b] ||
    stripe.created[a] - stripe.created[b] ||
    stripe.amount[a] - stripe.amount[b] ||
    stripe.refunded[b] - stripe.refunded[a] ||
    stripe.dispute[b] - stripe.dispute[a] ||
    compareKey(stripe.object[a], stripe.object[b]) ||
    compareKey(stripe.intent[a], stripe.intent[b]) ||
    compareKey(stripe.transaction[a], stripe.transaction[b]);
  const compareKey = (a: number, b: number): number => {
    if (a === b) return 0;
    const x = interner.text(a);
    const y = interner.text(b);
    return x < y ? -1 : x > y ? 1 : 0;
  };
  const FILL = [
    "charge",
    "intent",
    "session",
    "order",
    "reference",
    "invoice",
    "customer",
    "user",
    "pack",
  ] as const;
  const merge = (into: number, from: number): void => {
    mergedInto[from] = into;
    for (const column of FILL) if (stripe[column][into] === 0) stripe[column][into] = stripe[column][from];
    if (stripe.object[into] === 0) stripe.object[into] = stripe.object[from];
    if (stripe.dispute[from] > stripe.dispute[into]) stripe.dispute[into] = stripe.dispute[from];
    if (stripe.disputed[from] > stripe.disputed[into]) stripe.disputed[into] = stripe.disputed[from];
    if (stripe.refunded[from] > stripe.refunded[into]) stripe.refunded[into] = stripe.refunded[from];
    if (stripe.test[from]) stripe.test[into] = 1;
    if (stripe.settledOnly[into] && !stripe.settledOnly[from]) {
      stripe.amount[into] = stripe.amount[from];
      stripe.currency[into] = stripe.currency[from];
      stripe.settledOnly[into] = 0;
    }
    if (rank(into) === 0 && rank(from) > 0) {
      stripe.cash[into] = Math.abs(stripe.cash[from]);
      stripe.cashCurrency[into] = stripe.cashCurrency[from];
    }
  };
  const group = (index: KeyIndex, key: number): number[] => {
    const rows: number[] = [];
    for (let event = index.first[key]; event >= 0; event = index.next[event]) rows.push(event);
    return rows.sort(before);
  };
  const absorb = (rows: number[], sameEvent: (a: number, b: number) => boolean): void => {
    const [primary, ...rest] = rows;
    if (primary === undefined) return;
    for (const event of rest) {
      const twin = rows.find(
        (other) =>
          other !== event && stripe.file[other] === stripe.file[event] && stripeDisposition[other] === 0,
      );
      if (twin !== undefined && !sameEvent(primary, event)) {
        conflicts.push(event);
        stripeDisposition[event] = IN_DIFFERENCE;
        continue;
      }
      merge(primary, event);
      stripeDisposition[event] = twin === undefined ? MERGED : DUPLICATE;
    }
  };
  const sameMoney = (a: number, b: number): boolean =>
    stripe.amount[a] === stripe.amount[b] &&
    stripe.currency[a] === stripe.currency[b] &&
    stripe.state[a] === stripe.state[b];

  const mergeBy = (
    column: Uint32Array,
    include: (e: number) => boolean,
    same: (a: number, b: number) => boolean,
  ): void => {
    const index = indexBy(
      column,
      events,
      stripeKeys,
      (event) => stripeDisposition[event] === 0 && include(event),
    );
    for (let event = 0; event < events; event++) {
      const key = column[event];
      // Only the first of a list looks at it, and only lists of two or more.
      if (key !== 0 && index.first[key] === event && index.next[event] >= 0) absorb(group(index, key), same);
    }
  };
  if (side.has.cash)
    mergeBy(
      stripe.transaction,
      (event) => cashCounts[event] === 1,
      (a, b) => stripe.cash[a] === stripe.cash[b] && stripe.cashCurrency[a] === stripe.cashCurrency[b],
    );
  // A balance transaction that two files tell moves the balance once.
  for (let event = 0; event < events; event++)
    if (stripeDisposition[event] === MERGED || stripeDisposition[event] === DUPLICATE) cashCounts[event] = 0;
  const kindIs = (kind: number) => (event: number) => stripe.kind[event] === kind;
  mergeBy(stripe.object, kindIs(CHARGE), sameMoney);
  if (side.has.cash || side.has.disputes) {
    mergeBy(stripe.object, kindIs(REFUND), sameMoney);
    mergeBy(stripe.object, kindIs(REFUND_FAILURE), sameMoney);
    mergeBy(
      stripe.object,
      (event) => stripe.kind[event] === DISPUTE || stripe.kind[event] === DISPUTE_REVERSAL,
      () => true, // withdrawn, then reinstated: two rows, one dispute, the more final state stands
    );
  }
  mergeIntents();

  /** A paid row without a charge id is the same payment as a paid charge of its intent in another row. */
  function mergeIntents(): void {
    let any = false;
    for (let event = 0; event < events && !any; event++)
      any =
        stripe.kind[event] === CHARGE &&
        stripe.object[event] === 0 &&
        stripe.intent[event] !== 0 &&
        stripe.state[event] === PAID;
    if (!any) return;
    const index = indexBy(
      stripe.intent,
      events,
      stripeKeys,
      (event) =>
        stripe.kind[event] === CHARGE && stripe.state[event] === PAID && stripeDisposition[event] === 0,
    );
    for (let event = 0; event < events; event++) {
      const key = stripe.intent[event];
      if (key === 0 || index.first[key] !== event || index.next[event] < 0) continue;
      const rows = group(index, key);
      const withId = rows.filter((row) => stripe.object[row] !== 0);
      const without = rows.filter((row) => stripe.object[row] === 0);
      const primary = withId[0] ?? without.shift();
      if (primary === undefined || withId.length > 1) continue;
      for (const row of without) {
        merge(primary, row);
        stripeDisposition[row] = stripe.file[row] === stripe.file[primary] ? DUPLICATE : MERGED;
      }
    }
  }

  // --- charges by their keys ------------------------------------------------------------------------------------------
  // As it stands now: an index may be made when rows have gone to their places already, and must hold those too.
  const toldElsewhere = stripeDisposition.slice();
  const isCharge = (event: number): boolean =>
    stripe.kind[event] === CHARGE && toldElsewhere[event] === 0 && !stripe.foreign[event];
  const indexes = new Map<string, KeyIndex | null>();
  /** Charges by one of their keys, made when first asked for; null where no row has any. */
  const chargesBy = (name: ChargeKey): KeyIndex | null => {
    let index = indexes.get(name);
    if (index === undefined) {
      const column = stripe[name];
      let any = false;
      for (let event = 0; event < events && !any; event++) any = column[event] !== 0;
      index = any ? indexBy(column, events, stripeKeys, isCharge) : null;
      indexes.set(name, index);
    }
    return index;
  };

  // --- refunds and disputes to their charge ---------------------------------------------------------------------------
  const chargeOf = new Int32Array(events).fill(-1);
  const refundedOf = new Float64Array(events);
  const disputedOf = new Float64Array(events);
  const disputeOf = new Uint8Array(events);
  const summed = new Map<number, number>();
  for (let event = 0; event < events; event++) {
    if (stripeDisposition[event] !== 0) continue;
    const kind = stripe.kind[event];
    if (kind === CHARGE) {
      refundedOf[event] = Math.max(refundedOf[event], stripe.refunded[event]);
      if (stripe.dispute[event] > disputeOf[event]) disputeOf[event] = stripe.dispute[event];
      if (stripe.disputed[event] > disputedOf[event]) disputedOf[event] = stripe.disputed[event];
      continue;
    }
    if (kind !== REFUND && kind !== REFUND_FAILURE && kind !== DISPUTE && kind !== DISPUTE_REVERSAL) continue;
    let charge = stripe.charge[event] === 0 ? -1 : firstOf(chargesBy("object"), stripe.charge[event]);
    if (charge < 0 && stripe.intent[event] !== 0) charge = paidOf(chargesBy("intent"), stripe.intent[event]);
    chargeOf[event] = charge;
    if (charge < 0) continue;
    if (kind === REFUND || kind === REFUND_FAILURE) {
      if (stripe.currency[event] !== stripe.currency[charge]) {
        // Converted at the refund's own day's rate: only a whole refund can be told from the settled amounts.
        if (stripe.refunded[charge] === 0) chargeOf[event] = -1;
        continue;
      }
      summed.set(
        charge,
        (summed.get(charge) ?? 0) + (kind === REFUND ? stripe.amount[event] : -stripe.amount[event]),
      );
    } else {
      if (stripe.dispute[event] > disputeOf[charge]) disputeOf[charge] = stripe.dispute[event];
      const amount =
        stripe.currency[event] === stripe.currency[charge] ? stripe.amount[event] : stripe.amount[charge];
      if (amount > disputedOf[charge]) disputedOf[charge] = amount;
    }
  }
  for (const [charge, sum] of summed) if (sum > refundedOf[charge]) refundedOf[charge] = sum;

  function paidOf(index: KeyIndex | null, key: number): number {
    let found = -1;
    for (let event = firstOf(index, key); event >= 0; event = index?.next[event] ?? -1) {
      if (stripe.state[event] !== PAID) continue;
      if (found < 0 || before(event, found) < 0) found = event;
    }
    return found;
  }

  // --- later ledger records to their grant ----------------------------------------------------------------------------
  const grantOf = new Int32Array(records).fill(-1);
  const reversed = new Float64Array(records);
  const adjusted = new Float64Array(records);
  const clawed = new Float64Array(records);
  const lotDispute = new Uint8Array(records);
  const lotDisputeAt = new Float64Array(records);
  const lotDisputeBy = new Float64Array(records);
  const isVoid = new Uint8Array(records);
  const relabelled = new Uint8Array(records);
  const relabelledBy = new Float64Array(records);
  dropRepeatedRecords();

  function dropRepeatedRecords(): void {
    let ascending = true;
    for (let record = 1; record < records && ascending; record++)
      ascending = ledger.transaction[record] > ledger.transaction[record - 1];
    if (ascending) return;
    const sorted = ledger.transaction.slice(0, records).sort();
    const repeated = new Set<number>();
    for (let record = 1; record < records; record++)
      if (sorted[record] === sorted[record - 1]) repeated.add(sorted[record]);
    if (repeated.size === 0) return;
    const seen = new Set<number>();
    for (let record = 0; record < records; record++) {
      const transaction = ledger.transaction[record];
      if (!repeated.has(transaction)) continue;
      if (seen.has(transaction)) ledgerDisposition[record] = DUPLICATE;
      seen.add(transaction);
    }
  }

  const isGrant = (record: number): boolean =>
    ledger.type[record] === GRANT && ledgerDisposition[record] === 0;
  let chargeGrants: KeyIndex | null = null;
  const grantsByCharge = (): KeyIndex => {
    chargeGrants ??= indexBy(ledger.charge, records, interner.size, isGrant);
    return chargeGrants;
  };
  const lots = new Map<number, number>();
  let laterRecords = 0;
  for (let record = 0; record < records; record++) {
    if (ledger.type[record] === GRANT || ledgerDisposition[record] !== 0) continue;
    laterRecords++;
    if (ledger.lot[record] !== 0) lots.set(ledger.lot[record], -1);
  }
  if (lots.size > 0)
    for (let record = 0; record < records; record++)
      if (isGrant(record) && lots.has(ledger.lot[record])) lots.set(ledger.lot[record], record);
  if (laterRecords > 0) {
    for (let record = 0; record < records; record++) {
      if (ledger.type[record] === GRANT || ledgerDisposition[record] !== 0) continue;
      let grant = ledger.lot[record] !== 0 ? (lots.get(ledger.lot[record]) ?? -1) : -1;
      if (grant < 0 && ledger.charge[record] !== 0) {
        const index = grantsByCharge();
        grant = firstOf(index, ledger.charge[record]);
        for (let other = grant; other >= 0; other = index.next[other])
          if (ledger.transaction[other] < ledger.transaction[grant]) grant = other;
      }
      grantOf[record] = grant;
      if (grant < 0) continue;
      const tokens = ledger.tokens[record];
      const when = ledger.transaction[record];
      switch (ledger.type[record]) {
        case REFUND_RECORD:
        case RESTORATION:
          reversed[grant] = reversed[grant] - tokens;
          break;
        case ADJUSTMENT:
          adjusted[grant] = adjusted[grant] + tokens;
          break;
        case PROMOTIONAL:
          isVoid[grant] = 1;
          break;
        case RELABEL:
          relabelled[grant] = 1;
          if (when > relabelledBy[grant]) {
            relabelledBy[grant] = when;
            ledger.amount[grant] = ledger.amount[record];
            ledger.currency[grant] = ledger.currency[record];
          }
          break;
        case HOLD:
        case RELEASE:
        case CLAWBACK: {
          const state =
            ledger.type[record] === HOLD ? HELD : ledger.type[record] === RELEASE ? RELEASED : CLAWED;
          if (state === CLAWED) clawed[grant] = clawed[grant] - tokens;
          if (when > lotDisputeBy[grant]) {
            lotDisputeBy[grant] = when;
            lotDispute[grant] = state;
            lotDisputeAt[grant] = ledger.created[record];
          }
          break;
        }
      }
    }
    for (let record = 0; record < records; record++)
      if (isGrant(record)) {
        if (lotDispute[record] === RELEASED) clawed[record] = 0;
        // Corrected away: nothing of it is left that was not taken back.
        if (
          adjusted[record] < 0 &&
          ledger.tokens[record] + adjusted[record] <= reversed[record] + clawed[record]
        )
          isVoid[record] = 1;
      }
  }
  for (let record = 0; record < records; record++)
    if (isGrant(record) && ledger.kind[record] === PROMOTIONAL_GRANT) isVoid[record] = 1;

  // --- the passes --------------------------------------------------------------------------------------------------------
  const claim = new Int32Array(records).fill(-1);
  const claimPass = new Uint8Array(records);
  const takenBy = new Uint8Array(events);
  const canClaim = (record: number): boolean =>
    isGrant(record) && isVoid[record] === 0 && ledger.test[record] === 0 && claim[record] < 0;
  const sameAmount = (record: number, event: number): boolean =>
    ledger.amount[record] === stripe.amount[event] && ledger.currency[record] === stripe.currency[event];

  const take = (record: number, event: number, number: number): void => {
    claim[record] = event;
    claimPass[record] = number;
  };
  const pass = (number: number, ledgerColumn: Uint32Array, name: ChargeKey, strict = false): void => {
    const index = chargesBy(name);
    if (index === null) return;
    if (strict) strictPass(number, ledgerColumn, index);
    else {
      const shared = new Map<number, number[]>();
      for (let record = 0; record < records; record++) {
        const key = ledgerColumn[record];
        if (key === 0) continue;
        const event = firstOf(index, key);
        if (event < 0 || !canClaim(record)) continue;
        if (index.next[event] < 0) take(record, event, number);
        else {
          const list = shared.get(key);
          if (list) list.push(record);
          else shared.set(key, [record]);
        }
      }
      for (const [key, list] of shared) pair(number, list, group(index, key));
    }
    for (let record = 0; record < records; record++) {
      const event = claim[record];
      if (event >= 0 && takenBy[event] === 0) takenBy[event] = number;
    }
  };

  /** Several charges share the key: paid and free ones first, exact amounts first, then by age. */
  function pair(number: number, grants: number[], charges: number[]): void {
    const paid = charges.filter((event) => stripe.state[event] === PAID);
    const open = paid.filter((event) => takenBy[event] === 0);
    const pool =
      open.length > 0
        ? open
        : paid.length > 0
          ? paid
          : charges.filter((event) => stripe.state[event] === NOT_PAID);
    if (pool.length === 0) return;
    const waiting = grants.sort(
      (a, b) => ledger.created[a] - ledger.created[b] || ledger.transaction[a] - ledger.transaction[b],
    );
    const byAmount = new Map<string, number[]>();
    for (const event of pool.toReversed()) {
      const amount = `${stripe.currency[event]}/${stripe.amount[event]}`;
      const list = byAmount.get(amount);
      if (list) list.push(event);
      else byAmount.set(amount, [event]);
    }
    const used = new Set<number>();
    const rest: number[] = [];
    for (const record of waiting) {
      const exact = byAmount.get(`${ledger.currency[record]}/${ledger.amount[record]}`)?.pop();
      if (exact === undefined) rest.push(record);
      else {
        used.add(exact);
        take(record, exact, number);
      }
    }
    let at = 0;
    for (const record of rest) {
      while (at < pool.length && used.has(pool[at])) at++;
      take(record, (pool[at] ?? pool[0]) as number, number);
      if (at < pool.length) used.add(pool[at]);
    }
  }

  /** A client reference may be anything, a user's id too: it counts only where it is unique on both sides and the money agrees. */
  function strictPass(number: number, ledgerColumn: Uint32Array, index: KeyIndex): void {
    const grants = new Map<number, number>();
    for (let record = 0; record < records; record++) {
      const key = ledgerColumn[record];
      if (key === 0 || firstOf(index, key) < 0 || !isGrant(record) || isVoid[record]) continue;
      grants.set(key, grants.has(key) ? -1 : record);
    }
    for (const [key, record] of grants) {
      const event = firstOf(index, key);
      if (record < 0 || claim[record] >= 0 || index.next[event] >= 0 || takenBy[event] !== 0) continue;
      if (sameAmount(record, event)) take(record, event, number);
    }
  }

  const ledgerHas = (column: Uint32Array): boolean => {
    for (let record = 0; record < records; record++) if (column[record] !== 0) return true;
    return false;
  };
  if (side.has.cash) pass(1, ledger.balance, "transaction");
  pass(2, ledger.charge, "object");
  if (ledgerHas(ledger.intent)) pass(3, ledger.intent, "intent");
  if (ledgerHas(ledger.session)) pass(4, ledger.session, "session");
  if (ledgerHas(ledger.order)) {
    pass(4, ledger.order, "order");
    pass(4, ledger.order, "reference", true);
  }
  if (ledgerHas(ledger.invoice)) pass(5, ledger.invoice, "invoice");

  const claims: KeyIndexByRow = {
    first: new Int32Array(events).fill(-1),
    next: new Int32Array(records).fill(-1),
  };
  for (let record = records - 1; record >= 0; record--) {
    const event = claim[record];
    if (event < 0) continue;
    claims.next[record] = claims.first[event];
    claims.first[event] = record;
  }
  return {
    stripeDisposition,
    ledgerDisposition,
    mergedInto,
    cashCounts,
    conflicts,
    chargeOf,
    refundedOf,
    disputedOf,
    disputeOf,
    claim,
    claimPass,
    claims,
    grantOf,
    reversed,
    adjusted,
    clawed,
    lotDispute,
    lotDisputeAt,
    void: isVoid,
    relabelled,
    chargesBy,
    grantsByCharge,
  };
}
