import { firstOf, type KeyIndex } from "../columns.ts";
import { NOT_PAID, PAID } from "../stripe-table.ts";
import type { ChargeKey, Claims, Lots, Sides } from "./links.ts";
import { listOf, type SameEventOrder } from "./merge-rows.ts";
import type { Charges } from "./charges.ts";

type LedgerColumns = Sides["ledgerTable"]["columns"];

/** Grants claim charges, pass after pass: the first that finds one wins, and each charge is found by one pass alone. */
export function claimCharges(
  sides: Sides,
  lots: Lots,
  { chargesBy }: Charges,
  before: SameEventOrder,
): Claims {
  const { side, ledgerTable } = sides;
  const stripe = side.table.columns;
  const ledger = ledgerTable.columns;
  const events = side.table.length;
  const records = ledgerTable.length;
  const claim = new Int32Array(records).fill(-1);
  const claimPass = new Uint8Array(records);
  const takenBy = new Uint8Array(events);
  const isClaimant = (record: number): boolean =>
    lots.isGrant(record) && lots.void[record] === 0 && ledger.test[record] === 0 && claim[record] < 0;

  function take(record: number, event: number, pass: number): void {
    claim[record] = event;
    claimPass[record] = pass;
  }
  function runPass(pass: number, ledgerColumn: Uint32Array, name: ChargeKey, isStrict = false): void {
    const index = chargesBy(name);
    if (index === null) return;
    if (isStrict) strictPass(pass, ledgerColumn, index);
    else openPass(pass, ledgerColumn, index);
    for (let record = 0; record < records; record++) {
      const event = claim[record];
      if (event >= 0 && takenBy[event] === 0) takenBy[event] = pass;
    }
  }
  function openPass(pass: number, ledgerColumn: Uint32Array, index: KeyIndex): void {
    const shared = new Map<number, number[]>();
    for (let record = 0; record < records; record++) {
      const key = ledgerColumn[record];
      if (key === 0) continue;
      const event = firstOf(index, key);
      if (event < 0 || !isClaimant(record)) continue;
      if (index.next[event] < 0) take(record, event, pass);
      else {
        const list = shared.get(key);
        if (list) list.push(record);
        else shared.set(key, [record]);
      }
    }
    for (const [key, list] of shared) pairShared(pass, list, listOf(index, key).sort(before));
  }

  /** Several charges share the key: paid and free ones first, exact amounts first, then by age. */
  function pairShared(pass: number, grants: number[], charges: readonly number[]): void {
    const paid = charges.filter((event) => stripe.state[event] === PAID);
    const open = paid.filter((event) => takenBy[event] === 0);
    const pool = [open, paid, charges.filter((event) => stripe.state[event] === NOT_PAID)].find(
      (list) => list.length > 0,
    );
    if (pool === undefined) return;
    grants.sort(
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
    for (const record of grants) {
      const exact = byAmount.get(`${ledger.currency[record]}/${paidFor(ledger, record)}`)?.pop();
      if (exact === undefined) rest.push(record);
      else {
        used.add(exact);
        take(record, exact, pass);
      }
    }
    const free = pool.filter((event) => !used.has(event));
    for (const [i, record] of rest.entries()) take(record, free[i] ?? pool[0], pass);
  }

  /** A client reference may be anything, a user's id too: it counts only where it is unique on both sides and the money agrees. */
  function strictPass(pass: number, ledgerColumn: Uint32Array, index: KeyIndex): void {
    const grants = new Map<number, number>();
    for (let record = 0; record < records; record++) {
      const key = ledgerColumn[record];
      if (key === 0 || firstOf(index, key) < 0 || !lots.isGrant(record) || lots.void[record]) continue;
      grants.set(key, grants.has(key) ? -1 : record);
    }
    for (const [key, record] of grants) {
      const event = firstOf(index, key);
      if (record < 0 || claim[record] >= 0 || index.next[event] >= 0 || takenBy[event] !== 0) continue;
      const isSameMoney =
        paidFor(ledger, record) === stripe.amount[event] &&
        ledger.currency[record] === stripe.currency[event];
      if (isSameMoney) take(record, event, pass);
    }
  }

  if (side.has.cash) runPass(1, ledger.balance, "transaction");
  runPass(2, ledger.charge, "object");
  runPass(3, ledger.intent, "intent");
  runPass(4, ledger.session, "session");
  runPass(4, ledger.order, "order");
  runPass(4, ledger.order, "reference", true);
  runPass(5, ledger.invoice, "invoice");
  const partsOf = joinParts(sides, claim, chargesBy("invoice"), before);
  const partOf = new Int32Array(partsOf.size > 0 ? events : 0).fill(-1);
  for (const [event, parts] of partsOf) for (const part of parts) partOf[part] = event;
  return { claim, claimPass, claims: listClaims(claim, events, records), partOf, partsOf };
}

/**
 * One invoice may be paid by several payments (Stripe, API 2025-03-31): where the grants of an invoice come to what
 * its payments make together, and not each to one of them, the payments are parts of one. The grants go to the first.
 */
function joinParts(
  { side, ledgerTable }: Sides,
  claim: Int32Array,
  index: KeyIndex | null,
  before: SameEventOrder,
): Map<number, readonly number[]> {
  const stripe = side.table.columns;
  const ledger = ledgerTable.columns;
  const records = ledgerTable.length;
  const joined = new Map<number, readonly number[]>();
  if (index === null) return joined;
  const grantsOf = new Map<number, number[]>();
  for (let record = 0; record < records; record++) {
    const invoice = claim[record] < 0 ? 0 : stripe.invoice[claim[record]];
    if (invoice === 0 || index.next[index.first[invoice]] < 0) continue;
    const list = grantsOf.get(invoice);
    if (list) list.push(record);
    else grantsOf.set(invoice, [record]);
  }
  for (const [invoice, grants] of grantsOf) {
    const parts = listOf(index, invoice)
      .filter((event) => stripe.state[event] === PAID && !stripe.test[event])
      .sort(before);
    const [main] = parts;
    if (main === undefined || parts.length < 2) continue;
    const isExact = (record: number): boolean => paidFor(ledger, record) === stripe.amount[claim[record]];
    const currency = stripe.currency[main];
    const paid = parts.reduce((sum, event) => sum + stripe.amount[event], 0);
    const booked = paidForAll(ledger, grants);
    if (grants.every(isExact) || paid !== booked) continue;
    if (
      parts.some((event) => stripe.currency[event] !== currency) ||
      grants.some((record) => ledger.currency[record] !== currency)
    )
      continue;
    for (const record of grants) claim[record] = main;
    joined.set(main, parts);
  }
  return joined;
}

function listClaims(claim: Int32Array, events: number, records: number): Claims["claims"] {
  const claims = { first: new Int32Array(events).fill(-1), next: new Int32Array(records).fill(-1) };
  for (let record = records - 1; record >= 0; record--) {
    const event = claim[record];
    if (event < 0) continue;
    claims.next[record] = claims.first[event];
    claims.first[event] = record;
  }
  return claims;
}

/** The whole amount of a grant's payment: with tax, and with other things sold beside the tokens. */
export function paidFor(ledger: LedgerColumns, record: number): number {
  return ledger.paid[record] > 0 ? ledger.paid[record] : ledger.amount[record];
}

/**
 * The whole amount of a payment with several grants. A grant that records it records all of it, so it is not summed up;
 * where none does, the prices of the grants are.
 */
export function paidForAll(ledger: LedgerColumns, records: readonly number[]): number {
  let recorded = 0;
  let sum = 0;
  for (const record of records) {
    recorded = Math.max(recorded, ledger.paid[record]);
    sum += Math.max(0, ledger.amount[record]);
  }
  return recorded > 0 ? recorded : sum;
}
