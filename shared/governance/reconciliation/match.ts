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

export function link(side: StripeSide, ledger: LedgerTable, interner: Interner, stripeKeys: number): Links {
  const { table: stripe, kinds } = side;
  const s = stripe.columns;
  const l = ledger.columns;
  const events = stripe.length;
  const records = ledger.length;

  const stripeDisposition = new Uint8Array(events);
  const ledgerDisposition = new Uint8Array(records);
  const mergedInto = new Int32Array(events).fill(-1);
  const cashCounts = new Uint8Array(events);
  const conflicts: number[] = [];
  for (let e = 0; e < events; e++) if (isCash(kinds[s.file[e]] as never)) cashCounts[e] = 1;

  // --- one economic event, however many rows tell it ---------------------------------------------------------------
  const rank = (e: number): number => (isCash(kinds[s.file[e]] as never) ? (s.settledOnly[e] ? 2 : 1) : 0);
  /** Any fixed order of contents will do: it must only not depend on where the rows stand. */
  const before = (a: number, b: number): number =>
    rank(a) - rank(b) ||
    s.state[a] - s.state[b] ||
    s.created[a] - s.created[b] ||
    s.amount[a] - s.amount[b] ||
    s.refunded[b] - s.refunded[a] ||
    s.dispute[b] - s.dispute[a] ||
    compareKey(s.object[a], s.object[b]) ||
    compareKey(s.intent[a], s.intent[b]) ||
    compareKey(s.transaction[a], s.transaction[b]);
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
    for (const column of FILL) if (s[column][into] === 0) s[column][into] = s[column][from];
    if (s.object[into] === 0) s.object[into] = s.object[from];
    if (s.dispute[from] > s.dispute[into]) s.dispute[into] = s.dispute[from];
    if (s.disputed[from] > s.disputed[into]) s.disputed[into] = s.disputed[from];
    if (s.refunded[from] > s.refunded[into]) s.refunded[into] = s.refunded[from];
    if (s.test[from]) s.test[into] = 1;
    if (s.settledOnly[into] && !s.settledOnly[from]) {
      s.amount[into] = s.amount[from];
      s.currency[into] = s.currency[from];
      s.settledOnly[into] = 0;
    }
    if (rank(into) === 0 && rank(from) > 0) {
      s.cash[into] = Math.abs(s.cash[from]);
      s.cashCurrency[into] = s.cashCurrency[from];
    }
  };
  const group = (index: KeyIndex, key: number): number[] => {
    const rows: number[] = [];
    for (let e = index.first[key]; e >= 0; e = index.next[e]) rows.push(e);
    return rows.sort(before);
  };
  const absorb = (rows: number[], sameEvent: (a: number, b: number) => boolean): void => {
    const [primary, ...rest] = rows;
    if (primary === undefined) return;
    for (const e of rest) {
      const twin = rows.find(
        (other) => other !== e && s.file[other] === s.file[e] && stripeDisposition[other] === 0,
      );
      if (twin !== undefined && !sameEvent(primary, e)) {
        conflicts.push(e);
        stripeDisposition[e] = IN_DIFFERENCE;
        continue;
      }
      merge(primary, e);
      stripeDisposition[e] = twin === undefined ? MERGED : DUPLICATE;
    }
  };
  const sameMoney = (a: number, b: number): boolean =>
    s.amount[a] === s.amount[b] && s.currency[a] === s.currency[b] && s.state[a] === s.state[b];

  const mergeBy = (
    column: Uint32Array,
    include: (e: number) => boolean,
    same: (a: number, b: number) => boolean,
  ): void => {
    const index = indexBy(column, events, stripeKeys, (e) => stripeDisposition[e] === 0 && include(e));
    for (let e = 0; e < events; e++) {
      const key = column[e];
      // Only the first of a list looks at it, and only lists of two or more.
      if (key !== 0 && index.first[key] === e && index.next[e] >= 0) absorb(group(index, key), same);
    }
  };
  if (side.has.cash)
    mergeBy(
      s.transaction,
      (e) => cashCounts[e] === 1,
      (a, b) => s.cash[a] === s.cash[b] && s.cashCurrency[a] === s.cashCurrency[b],
    );
  // A balance transaction that two files tell moves the balance once.
  for (let e = 0; e < events; e++)
    if (stripeDisposition[e] === MERGED || stripeDisposition[e] === DUPLICATE) cashCounts[e] = 0;
  const kindIs = (kind: number) => (e: number) => s.kind[e] === kind;
  mergeBy(s.object, kindIs(CHARGE), sameMoney);
  if (side.has.cash || side.has.disputes) {
    mergeBy(s.object, kindIs(REFUND), sameMoney);
    mergeBy(s.object, kindIs(REFUND_FAILURE), sameMoney);
    mergeBy(
      s.object,
      (e) => s.kind[e] === DISPUTE || s.kind[e] === DISPUTE_REVERSAL,
      () => true, // withdrawn, then reinstated: two rows, one dispute, the more final state stands
    );
  }
  mergeIntents();

  /** A paid row without a charge id is the same payment as a paid charge of its intent in another row. */
  function mergeIntents(): void {
    let any = false;
    for (let e = 0; e < events && !any; e++)
      any = s.kind[e] === CHARGE && s.object[e] === 0 && s.intent[e] !== 0 && s.state[e] === PAID;
    if (!any) return;
    const index = indexBy(
      s.intent,
      events,
      stripeKeys,
      (e) => s.kind[e] === CHARGE && s.state[e] === PAID && stripeDisposition[e] === 0,
    );
    for (let e = 0; e < events; e++) {
      const key = s.intent[e];
      if (key === 0 || index.first[key] !== e || index.next[e] < 0) continue;
      const rows = group(index, key);
      const withId = rows.filter((row) => s.object[row] !== 0);
      const without = rows.filter((row) => s.object[row] === 0);
      const primary = withId[0] ?? without.shift();
      if (primary === undefined || withId.length > 1) continue;
      for (const row of without) {
        merge(primary, row);
        stripeDisposition[row] = s.file[row] === s.file[primary] ? DUPLICATE : MERGED;
      }
    }
  }

  // --- charges by their keys ------------------------------------------------------------------------------------------
  // As it stands now: an index may be made when rows have gone to their places already, and must hold those too.
  const toldElsewhere = stripeDisposition.slice();
  const isCharge = (e: number): boolean => s.kind[e] === CHARGE && toldElsewhere[e] === 0 && !s.foreign[e];
  const indexes = new Map<string, KeyIndex | null>();
  /** Charges by one of their keys, made when first asked for; null where no row has any. */
  const chargesBy = (name: ChargeKey): KeyIndex | null => {
    let index = indexes.get(name);
    if (index === undefined) {
      const column = s[name];
      let any = false;
      for (let e = 0; e < events && !any; e++) any = column[e] !== 0;
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
  for (let e = 0; e < events; e++) {
    if (stripeDisposition[e] !== 0) continue;
    const kind = s.kind[e];
    if (kind === CHARGE) {
      refundedOf[e] = Math.max(refundedOf[e], s.refunded[e]);
      if (s.dispute[e] > disputeOf[e]) disputeOf[e] = s.dispute[e];
      if (s.disputed[e] > disputedOf[e]) disputedOf[e] = s.disputed[e];
      continue;
    }
    if (kind !== REFUND && kind !== REFUND_FAILURE && kind !== DISPUTE && kind !== DISPUTE_REVERSAL) continue;
    let charge = s.charge[e] === 0 ? -1 : firstOf(chargesBy("object"), s.charge[e]);
    if (charge < 0 && s.intent[e] !== 0) charge = paidOf(chargesBy("intent"), s.intent[e]);
    chargeOf[e] = charge;
    if (charge < 0) continue;
    if (kind === REFUND || kind === REFUND_FAILURE) {
      if (s.currency[e] !== s.currency[charge]) {
        // Converted at the refund's own day's rate: only a whole refund can be told from the settled amounts.
        if (s.refunded[charge] === 0) chargeOf[e] = -1;
        continue;
      }
      summed.set(charge, (summed.get(charge) ?? 0) + (kind === REFUND ? s.amount[e] : -s.amount[e]));
    } else {
      if (s.dispute[e] > disputeOf[charge]) disputeOf[charge] = s.dispute[e];
      const amount = s.currency[e] === s.currency[charge] ? s.amount[e] : s.amount[charge];
      if (amount > disputedOf[charge]) disputedOf[charge] = amount;
    }
  }
  for (const [charge, sum] of summed) if (sum > refundedOf[charge]) refundedOf[charge] = sum;

  function paidOf(index: KeyIndex | null, key: number): number {
    let found = -1;
    for (let e = firstOf(index, key); e >= 0; e = index?.next[e] ?? -1) {
      if (s.state[e] !== PAID) continue;
      if (found < 0 || before(e, found) < 0) found = e;
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
    for (let r = 1; r < records && ascending; r++) ascending = l.transaction[r] > l.transaction[r - 1];
    if (ascending) return;
    const sorted = l.transaction.slice(0, records).sort();
    const repeated = new Set<number>();
    for (let r = 1; r < records; r++) if (sorted[r] === sorted[r - 1]) repeated.add(sorted[r]);
    if (repeated.size === 0) return;
    const seen = new Set<number>();
    for (let r = 0; r < records; r++) {
      const transaction = l.transaction[r];
      if (!repeated.has(transaction)) continue;
      if (seen.has(transaction)) ledgerDisposition[r] = DUPLICATE;
      seen.add(transaction);
    }
  }

  const isGrant = (r: number): boolean => l.type[r] === GRANT && ledgerDisposition[r] === 0;
  let chargeGrants: KeyIndex | null = null;
  const grantsByCharge = (): KeyIndex => {
    chargeGrants ??= indexBy(l.charge, records, interner.size, isGrant);
    return chargeGrants;
  };
  const lots = new Map<number, number>();
  let laterRecords = 0;
  for (let r = 0; r < records; r++) {
    if (l.type[r] === GRANT || ledgerDisposition[r] !== 0) continue;
    laterRecords++;
    if (l.lot[r] !== 0) lots.set(l.lot[r], -1);
  }
  if (lots.size > 0)
    for (let r = 0; r < records; r++) if (isGrant(r) && lots.has(l.lot[r])) lots.set(l.lot[r], r);
  if (laterRecords > 0) {
    for (let r = 0; r < records; r++) {
      if (l.type[r] === GRANT || ledgerDisposition[r] !== 0) continue;
      let grant = l.lot[r] !== 0 ? (lots.get(l.lot[r]) ?? -1) : -1;
      if (grant < 0 && l.charge[r] !== 0) {
        const index = grantsByCharge();
        grant = firstOf(index, l.charge[r]);
        for (let g = grant; g >= 0; g = index.next[g]) if (l.transaction[g] < l.transaction[grant]) grant = g;
      }
      grantOf[r] = grant;
      if (grant < 0) continue;
      const tokens = l.tokens[r];
      const when = l.transaction[r];
      switch (l.type[r]) {
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
            l.amount[grant] = l.amount[r];
            l.currency[grant] = l.currency[r];
          }
          break;
        case HOLD:
        case RELEASE:
        case CLAWBACK: {
          const state = l.type[r] === HOLD ? HELD : l.type[r] === RELEASE ? RELEASED : CLAWED;
          if (state === CLAWED) clawed[grant] = clawed[grant] - tokens;
          if (when > lotDisputeBy[grant]) {
            lotDisputeBy[grant] = when;
            lotDispute[grant] = state;
            lotDisputeAt[grant] = l.created[r];
          }
          break;
        }
      }
    }
    for (let r = 0; r < records; r++)
      if (isGrant(r)) {
        if (lotDispute[r] === RELEASED) clawed[r] = 0;
        // Corrected away: nothing of it is left that was not taken back.
        if (adjusted[r] < 0 && l.tokens[r] + adjusted[r] <= reversed[r] + clawed[r]) isVoid[r] = 1;
      }
  }
  for (let r = 0; r < records; r++) if (isGrant(r) && l.kind[r] === PROMOTIONAL_GRANT) isVoid[r] = 1;

  // --- the passes --------------------------------------------------------------------------------------------------------
  const claim = new Int32Array(records).fill(-1);
  const claimPass = new Uint8Array(records);
  const takenBy = new Uint8Array(events);
  const canClaim = (r: number): boolean => isGrant(r) && isVoid[r] === 0 && l.test[r] === 0 && claim[r] < 0;
  const sameAmount = (r: number, e: number): boolean =>
    l.amount[r] === s.amount[e] && l.currency[r] === s.currency[e];

  const take = (r: number, e: number, number: number): void => {
    claim[r] = e;
    claimPass[r] = number;
  };
  const pass = (number: number, ledgerColumn: Uint32Array, name: ChargeKey, strict = false): void => {
    const index = chargesBy(name);
    if (index === null) return;
    if (strict) strictPass(number, ledgerColumn, index);
    else {
      const shared = new Map<number, number[]>();
      for (let r = 0; r < records; r++) {
        const key = ledgerColumn[r];
        if (key === 0) continue;
        const e = firstOf(index, key);
        if (e < 0 || !canClaim(r)) continue;
        if (index.next[e] < 0) take(r, e, number);
        else {
          const list = shared.get(key);
          if (list) list.push(r);
          else shared.set(key, [r]);
        }
      }
      for (const [key, list] of shared) pair(number, list, group(index, key));
    }
    for (let r = 0; r < records; r++) {
      const e = claim[r];
      if (e >= 0 && takenBy[e] === 0) takenBy[e] = number;
    }
  };

  /** Several charges share the key: paid and free ones first, exact amounts first, then by age. */
  function pair(number: number, grants: number[], charges: number[]): void {
    const paid = charges.filter((e) => s.state[e] === PAID);
    const open = paid.filter((e) => takenBy[e] === 0);
    const pool =
      open.length > 0 ? open : paid.length > 0 ? paid : charges.filter((e) => s.state[e] === NOT_PAID);
    if (pool.length === 0) return;
    const waiting = grants.sort((a, b) => l.created[a] - l.created[b] || l.transaction[a] - l.transaction[b]);
    const byAmount = new Map<string, number[]>();
    for (const e of pool.toReversed()) {
      const amount = `${s.currency[e]}/${s.amount[e]}`;
      const list = byAmount.get(amount);
      if (list) list.push(e);
      else byAmount.set(amount, [e]);
    }
    const used = new Set<number>();
    const rest: number[] = [];
    for (const r of waiting) {
      const exact = byAmount.get(`${l.currency[r]}/${l.amount[r]}`)?.pop();
      if (exact === undefined) rest.push(r);
      else {
        used.add(exact);
        take(r, exact, number);
      }
    }
    let at = 0;
    for (const r of rest) {
      while (at < pool.length && used.has(pool[at])) at++;
      take(r, (pool[at] ?? pool[0]) as number, number);
      if (at < pool.length) used.add(pool[at]);
    }
  }

  /** A client reference may be anything, a user's id too: it counts only where it is unique on both sides and the money agrees. */
  function strictPass(number: number, ledgerColumn: Uint32Array, index: KeyIndex): void {
    const grants = new Map<number, number>();
    for (let r = 0; r < records; r++) {
      const key = ledgerColumn[r];
      if (key === 0 || firstOf(index, key) < 0 || !isGrant(r) || isVoid[r]) continue;
      grants.set(key, grants.has(key) ? -1 : r);
    }
    for (const [key, r] of grants) {
      const e = firstOf(index, key);
      if (r < 0 || claim[r] >= 0 || index.next[e] >= 0 || takenBy[e] !== 0) continue;
      if (sameAmount(r, e)) take(r, e, number);
    }
  }

  const ledgerHas = (column: Uint32Array): boolean => {
    for (let r = 0; r < records; r++) if (column[r] !== 0) return true;
    return false;
  };
  if (side.has.cash) pass(1, l.balance, "transaction");
  pass(2, l.charge, "object");
  if (ledgerHas(l.intent)) pass(3, l.intent, "intent");
  if (ledgerHas(l.session)) pass(4, l.session, "session");
  if (ledgerHas(l.order)) {
    pass(4, l.order, "order");
    pass(4, l.order, "reference", true);
  }
  if (ledgerHas(l.invoice)) pass(5, l.invoice, "invoice");

  const claims: KeyIndexByRow = {
    first: new Int32Array(events).fill(-1),
    next: new Int32Array(records).fill(-1),
  };
  for (let r = records - 1; r >= 0; r--) {
    const e = claim[r];
    if (e < 0) continue;
    claims.next[r] = claims.first[e];
    claims.first[e] = r;
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
