import { indexBy, type KeyIndex } from "./columns.ts";
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
  readonly chargesByObject: KeyIndex;
  readonly chargesBySession: KeyIndex;
  readonly chargesByOrder: KeyIndex;
  readonly chargesByIntent: KeyIndex;
  readonly chargesByInvoice: KeyIndex;
  readonly grantsByCharge: KeyIndex;
}

/** Lists of ledger rows by stripe row. */
interface KeyIndexByRow {
  readonly first: Int32Array;
  readonly next: Int32Array;
}

export function link(side: StripeSide, ledger: LedgerTable, interner: Interner): Links {
  const { table: stripe, kinds } = side;
  const s = stripe.columns;
  const l = ledger.columns;
  const events = stripe.length;
  const records = ledger.length;
  const keys = interner.size;
  const at = <T extends ArrayLike<number>>(column: T, row: number): number => column[row] as number;

  const stripeDisposition = new Uint8Array(events);
  const ledgerDisposition = new Uint8Array(records);
  const mergedInto = new Int32Array(events).fill(-1);
  const cashCounts = new Uint8Array(events);
  const conflicts: number[] = [];
  for (let e = 0; e < events; e++) if (isCash(kinds[at(s.file, e)] as never)) cashCounts[e] = 1;

  // --- one economic event, however many rows tell it ---------------------------------------------------------------
  const rank = (e: number): number =>
    isCash(kinds[at(s.file, e)] as never) ? (at(s.settledOnly, e) ? 2 : 1) : 0;
  /** Any fixed order of contents will do: it must only not depend on where the rows stand. */
  const before = (a: number, b: number): number =>
    rank(a) - rank(b) ||
    at(s.state, a) - at(s.state, b) ||
    at(s.created, a) - at(s.created, b) ||
    at(s.amount, a) - at(s.amount, b) ||
    at(s.refunded, b) - at(s.refunded, a) ||
    at(s.dispute, b) - at(s.dispute, a) ||
    compareKey(at(s.object, a), at(s.object, b)) ||
    compareKey(at(s.intent, a), at(s.intent, b)) ||
    compareKey(at(s.transaction, a), at(s.transaction, b));
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
    for (const column of FILL) if (at(s[column], into) === 0) s[column][into] = at(s[column], from);
    if (at(s.object, into) === 0) s.object[into] = at(s.object, from);
    if (at(s.dispute, from) > at(s.dispute, into)) s.dispute[into] = at(s.dispute, from);
    if (at(s.disputed, from) > at(s.disputed, into)) s.disputed[into] = at(s.disputed, from);
    if (at(s.refunded, from) > at(s.refunded, into)) s.refunded[into] = at(s.refunded, from);
    if (at(s.test, from)) s.test[into] = 1;
    if (at(s.settledOnly, into) && !at(s.settledOnly, from)) {
      s.amount[into] = at(s.amount, from);
      s.currency[into] = at(s.currency, from);
      s.settledOnly[into] = 0;
    }
    if (rank(into) === 0 && rank(from) > 0) {
      s.cash[into] = Math.abs(at(s.cash, from));
      s.cashCurrency[into] = at(s.cashCurrency, from);
    }
  };
  const group = (index: KeyIndex, key: number): number[] => {
    const rows: number[] = [];
    for (let e = at(index.first, key); e >= 0; e = at(index.next, e)) rows.push(e);
    return rows.sort(before);
  };
  const absorb = (rows: number[], sameEvent: (a: number, b: number) => boolean): void => {
    const [primary, ...rest] = rows;
    if (primary === undefined) return;
    for (const e of rest) {
      const twin = rows.find(
        (other) => other !== e && at(s.file, other) === at(s.file, e) && stripeDisposition[other] === 0,
      );
      if (twin !== undefined && !sameEvent(primary, e)) {
        conflicts.push(e);
        stripeDisposition[e] = IN_DIFFERENCE;
        cashCounts[e] = 1;
        continue;
      }
      merge(primary, e);
      stripeDisposition[e] = twin === undefined ? MERGED : DUPLICATE;
    }
  };
  const sameMoney = (a: number, b: number): boolean =>
    at(s.amount, a) === at(s.amount, b) &&
    at(s.currency, a) === at(s.currency, b) &&
    at(s.state, a) === at(s.state, b);

  const mergeBy = (
    column: Uint32Array,
    include: (e: number) => boolean,
    same: (a: number, b: number) => boolean,
  ): void => {
    const index = indexBy(column, events, keys, (e) => stripeDisposition[e] === 0 && include(e));
    for (let e = 0; e < events; e++) {
      const key = at(column, e);
      // Only the first of a list looks at it, and only lists of two or more.
      if (key !== 0 && at(index.first, key) === e && at(index.next, e) >= 0) absorb(group(index, key), same);
    }
  };
  if (side.has.cash)
    mergeBy(
      s.transaction,
      (e) => cashCounts[e] === 1,
      (a, b) => at(s.cash, a) === at(s.cash, b) && at(s.cashCurrency, a) === at(s.cashCurrency, b),
    );
  // A balance transaction that two files tell moves the balance once.
  for (let e = 0; e < events; e++)
    if (stripeDisposition[e] === MERGED || stripeDisposition[e] === DUPLICATE) cashCounts[e] = 0;
  const kindIs = (kind: number) => (e: number) => at(s.kind, e) === kind;
  mergeBy(s.object, kindIs(CHARGE), sameMoney);
  if (side.has.cash || side.has.disputes) {
    mergeBy(s.object, kindIs(REFUND), sameMoney);
    mergeBy(s.object, kindIs(REFUND_FAILURE), sameMoney);
    mergeBy(
      s.object,
      (e) => at(s.kind, e) === DISPUTE || at(s.kind, e) === DISPUTE_REVERSAL,
      () => true, // withdrawn, then reinstated: two rows, one dispute, the more final state stands
    );
  }
  mergeIntents();

  /** A paid row without a charge id is the same payment as a paid charge of its intent in another row. */
  function mergeIntents(): void {
    let any = false;
    for (let e = 0; e < events && !any; e++)
      any =
        at(s.kind, e) === CHARGE && at(s.object, e) === 0 && at(s.intent, e) !== 0 && at(s.state, e) === PAID;
    if (!any) return;
    const index = indexBy(
      s.intent,
      events,
      keys,
      (e) => at(s.kind, e) === CHARGE && at(s.state, e) === PAID && stripeDisposition[e] === 0,
    );
    for (let e = 0; e < events; e++) {
      const key = at(s.intent, e);
      if (key === 0 || at(index.first, key) !== e || at(index.next, e) < 0) continue;
      const rows = group(index, key);
      const withId = rows.filter((row) => at(s.object, row) !== 0);
      const without = rows.filter((row) => at(s.object, row) === 0);
      const primary = withId[0] ?? without.shift();
      if (primary === undefined || withId.length > 1) continue;
      for (const row of without) {
        merge(primary, row);
        stripeDisposition[row] = at(s.file, row) === at(s.file, primary) ? DUPLICATE : MERGED;
      }
    }
  }

  // --- charges by their keys ------------------------------------------------------------------------------------------
  const isCharge = (e: number): boolean =>
    at(s.kind, e) === CHARGE && stripeDisposition[e] === 0 && !at(s.foreign, e);
  const used = { session: false, order: false, reference: false, invoice: false, intent: false };
  for (let r = 0; r < records; r++) {
    if (at(l.session, r)) used.session = true;
    if (at(l.order, r)) used.order = true;
    if (at(l.invoice, r)) used.invoice = true;
    if (at(l.intent, r)) used.intent = true;
  }
  const none: KeyIndex = { first: new Int32Array(keys).fill(-1), next: new Int32Array(events).fill(-1) };
  const chargeIndex = (column: Uint32Array): KeyIndex => {
    let any = false;
    for (let e = 0; e < events && !any; e++) any = at(column, e) !== 0;
    return any ? indexBy(column, events, keys, isCharge) : none;
  };
  const chargesByObject = chargeIndex(s.object);
  const chargesByIntent = chargeIndex(s.intent);
  const chargesBySession = chargeIndex(s.session);
  const chargesByOrder = chargeIndex(s.order);
  const chargesByInvoice = chargeIndex(s.invoice);

  // --- refunds and disputes to their charge ---------------------------------------------------------------------------
  const chargeOf = new Int32Array(events).fill(-1);
  const refundedOf = new Float64Array(events);
  const disputedOf = new Float64Array(events);
  const disputeOf = new Uint8Array(events);
  const summed = new Map<number, number>();
  for (let e = 0; e < events; e++) {
    if (stripeDisposition[e] !== 0) continue;
    const kind = at(s.kind, e);
    if (kind === CHARGE) {
      refundedOf[e] = Math.max(refundedOf[e] as number, at(s.refunded, e));
      if (at(s.dispute, e) > at(disputeOf, e)) disputeOf[e] = at(s.dispute, e);
      if (at(s.disputed, e) > at(disputedOf, e)) disputedOf[e] = at(s.disputed, e);
      continue;
    }
    if (kind !== REFUND && kind !== REFUND_FAILURE && kind !== DISPUTE && kind !== DISPUTE_REVERSAL) continue;
    let charge = at(s.charge, e) === 0 ? -1 : at(chargesByObject.first, at(s.charge, e));
    if (charge < 0 && at(s.intent, e) !== 0) charge = paidOf(chargesByIntent, at(s.intent, e));
    chargeOf[e] = charge;
    if (charge < 0) continue;
    if (kind === REFUND || kind === REFUND_FAILURE) {
      if (at(s.currency, e) !== at(s.currency, charge)) {
        // Converted at the refund's own day's rate: only a whole refund can be told from the settled amounts.
        if (at(s.refunded, charge) === 0) chargeOf[e] = -1;
        continue;
      }
      summed.set(charge, (summed.get(charge) ?? 0) + (kind === REFUND ? at(s.amount, e) : -at(s.amount, e)));
    } else {
      if (at(s.dispute, e) > at(disputeOf, charge)) disputeOf[charge] = at(s.dispute, e);
      const amount = at(s.currency, e) === at(s.currency, charge) ? at(s.amount, e) : at(s.amount, charge);
      if (amount > at(disputedOf, charge)) disputedOf[charge] = amount;
    }
  }
  for (const [charge, sum] of summed) if (sum > at(refundedOf, charge)) refundedOf[charge] = sum;

  function paidOf(index: KeyIndex, key: number): number {
    let found = -1;
    for (let e = at(index.first, key); e >= 0; e = at(index.next, e)) {
      if (at(s.state, e) !== PAID) continue;
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
    for (let r = 1; r < records && ascending; r++)
      ascending = at(l.transaction, r) > at(l.transaction, r - 1);
    if (ascending) return;
    const sorted = l.transaction.slice(0, records).sort();
    const repeated = new Set<number>();
    for (let r = 1; r < records; r++) if (sorted[r] === sorted[r - 1]) repeated.add(sorted[r] as number);
    if (repeated.size === 0) return;
    const seen = new Set<number>();
    for (let r = 0; r < records; r++) {
      const transaction = at(l.transaction, r);
      if (!repeated.has(transaction)) continue;
      if (seen.has(transaction)) ledgerDisposition[r] = DUPLICATE;
      seen.add(transaction);
    }
  }

  const isGrant = (r: number): boolean => at(l.type, r) === GRANT && ledgerDisposition[r] === 0;
  const grantsByCharge = indexBy(l.charge, records, keys, isGrant);
  const lots = new Map<number, number>();
  let laterRecords = 0;
  for (let r = 0; r < records; r++) {
    if (at(l.type, r) === GRANT || ledgerDisposition[r] !== 0) continue;
    laterRecords++;
    if (at(l.lot, r) !== 0) lots.set(at(l.lot, r), -1);
  }
  if (lots.size > 0)
    for (let r = 0; r < records; r++) if (isGrant(r) && lots.has(at(l.lot, r))) lots.set(at(l.lot, r), r);
  if (laterRecords > 0) {
    for (let r = 0; r < records; r++) {
      if (at(l.type, r) === GRANT || ledgerDisposition[r] !== 0) continue;
      let grant = at(l.lot, r) !== 0 ? (lots.get(at(l.lot, r)) ?? -1) : -1;
      if (grant < 0 && at(l.charge, r) !== 0) {
        grant = at(grantsByCharge.first, at(l.charge, r));
        for (let g = grant; g >= 0; g = at(grantsByCharge.next, g))
          if (at(l.transaction, g) < at(l.transaction, grant)) grant = g;
      }
      grantOf[r] = grant;
      if (grant < 0) continue;
      const tokens = at(l.tokens, r);
      const when = at(l.transaction, r);
      switch (at(l.type, r)) {
        case REFUND_RECORD:
        case RESTORATION:
          reversed[grant] = at(reversed, grant) - tokens;
          break;
        case ADJUSTMENT:
          adjusted[grant] = at(adjusted, grant) + tokens;
          break;
        case PROMOTIONAL:
          isVoid[grant] = 1;
          break;
        case RELABEL:
          relabelled[grant] = 1;
          if (when > at(relabelledBy, grant)) {
            relabelledBy[grant] = when;
            l.amount[grant] = at(l.amount, r);
            l.currency[grant] = at(l.currency, r);
          }
          break;
        case HOLD:
        case RELEASE:
        case CLAWBACK: {
          const state = at(l.type, r) === HOLD ? HELD : at(l.type, r) === RELEASE ? RELEASED : CLAWED;
          if (state === CLAWED) clawed[grant] = at(clawed, grant) - tokens;
          if (when > at(lotDisputeBy, grant)) {
            lotDisputeBy[grant] = when;
            lotDispute[grant] = state;
            lotDisputeAt[grant] = at(l.created, r);
          }
          break;
        }
      }
    }
    for (let r = 0; r < records; r++)
      if (isGrant(r)) {
        if (at(lotDispute, r) === RELEASED) clawed[r] = 0;
        // Corrected away: nothing of it is left that was not taken back.
        if (at(adjusted, r) < 0 && at(l.tokens, r) + at(adjusted, r) <= at(reversed, r) + at(clawed, r))
          isVoid[r] = 1;
      }
  }
  for (let r = 0; r < records; r++) if (isGrant(r) && at(l.kind, r) === PROMOTIONAL_GRANT) isVoid[r] = 1;

  // --- the passes --------------------------------------------------------------------------------------------------------
  const claim = new Int32Array(records).fill(-1);
  const claimPass = new Uint8Array(records);
  const takenBy = new Uint8Array(events);
  const canClaim = (r: number): boolean =>
    isGrant(r) && isVoid[r] === 0 && at(l.test, r) === 0 && at(claim, r) < 0;
  const sameAmount = (r: number, e: number): boolean =>
    at(l.amount, r) === at(s.amount, e) && at(l.currency, r) === at(s.currency, e);

  const pass = (number: number, ledgerColumn: Uint32Array, index: KeyIndex, strict = false): void => {
    if (index === none) return;
    const shared: number[] = [];
    const claimed: number[] = [];
    for (let r = 0; r < records; r++) {
      const key = at(ledgerColumn, r);
      if (key === 0) continue;
      const e = at(index.first, key);
      if (e < 0 || !canClaim(r)) continue;
      if (strict) continue;
      if (at(index.next, e) >= 0) shared.push(key);
      else {
        claim[r] = e;
        claimPass[r] = number;
        claimed.push(e);
      }
    }
    if (strict) strictPass(number, ledgerColumn, index, claimed);
    if (shared.length > 0) {
      const grants = new Map<number, number[]>(shared.map((key) => [key, []]));
      for (let r = 0; r < records; r++) {
        const list = grants.get(at(ledgerColumn, r));
        if (list && canClaim(r)) list.push(r);
      }
      for (const [key, list] of grants) pair(number, list, group(index, key), claimed);
    }
    for (const e of claimed) if (takenBy[e] === 0) takenBy[e] = number;
  };

  /** Several charges share the key: paid and free ones first, exact amounts first, then by age. */
  function pair(number: number, grants: number[], charges: number[], claimed: number[]): void {
    const paid = charges.filter((e) => at(s.state, e) === PAID);
    const open = paid.filter((e) => takenBy[e] === 0);
    const pool =
      open.length > 0 ? open : paid.length > 0 ? paid : charges.filter((e) => at(s.state, e) === NOT_PAID);
    const waiting = [...grants].sort(
      (a, b) => at(l.created, a) - at(l.created, b) || at(l.transaction, a) - at(l.transaction, b),
    );
    if (pool.length === 0) return;
    const free = new Set(pool);
    const take = (r: number, e: number): void => {
      claim[r] = e;
      claimPass[r] = number;
      claimed.push(e);
      free.delete(e);
    };
    const rest: number[] = [];
    for (const r of waiting) {
      const exact = [...free].find((e) => sameAmount(r, e));
      if (exact === undefined) rest.push(r);
      else take(r, exact);
    }
    for (const r of rest) take(r, [...free][0] ?? (pool[0] as number));
  }

  /** A client reference may be anything, a user's id too: it counts only where it is unique on both sides and the money agrees. */
  function strictPass(number: number, ledgerColumn: Uint32Array, index: KeyIndex, claimed: number[]): void {
    const grants = new Map<number, number>();
    for (let r = 0; r < records; r++) {
      const key = at(ledgerColumn, r);
      if (key === 0 || at(index.first, key) < 0 || !isGrant(r) || isVoid[r]) continue;
      grants.set(key, grants.has(key) ? -1 : r);
    }
    for (const [key, r] of grants) {
      const e = at(index.first, key);
      if (r < 0 || at(claim, r) >= 0 || at(index.next, e) >= 0 || takenBy[e] !== 0 || !sameAmount(r, e))
        continue;
      claim[r] = e;
      claimPass[r] = number;
      claimed.push(e);
    }
  }

  if (side.has.cash) pass(1, l.balance, indexBy(s.transaction, events, keys, isCharge));
  pass(2, l.charge, chargesByObject);
  if (used.intent) pass(3, l.intent, chargesByIntent);
  if (used.session) pass(4, l.session, chargesBySession);
  if (used.order) {
    pass(4, l.order, chargesByOrder);
    pass(4, l.order, chargeIndex(s.reference), true);
  }
  if (used.invoice) pass(5, l.invoice, chargesByInvoice);

  const claims: KeyIndexByRow = {
    first: new Int32Array(events).fill(-1),
    next: new Int32Array(records).fill(-1),
  };
  for (let r = records - 1; r >= 0; r--) {
    const e = at(claim, r);
    if (e < 0) continue;
    claims.next[r] = at(claims.first, e);
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
    chargesByObject,
    chargesBySession,
    chargesByOrder,
    chargesByIntent,
    chargesByInvoice,
    grantsByCharge,
  };
}
