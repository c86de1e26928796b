import { firstOf, indexBy, type KeyIndex } from "../columns.ts";
import {
  ADJUSTMENT,
  CLAWBACK,
  GRANT,
  HOLD,
  PROMOTIONAL,
  PROMOTIONAL_GRANT,
  REFUND_RECORD,
  RELABEL,
  RELEASE,
  RESTORATION,
} from "../ledger-side.ts";
import { DUPLICATE, PENDING_ROW } from "../places.ts";
import { CLAWED, FREE, HELD, type Lots, RELEASED, type Sides } from "./links.ts";

/** What became of each grant: every later record goes to the grant it changes, by its lot, else by its charge. */
export function followLots({ ledgerTable, interner, frame }: Sides): Lots {
  const ledger = ledgerTable.columns;
  const records = ledgerTable.length;
  const ledgerPlace = new Uint8Array(records);
  placeRepeated(ledger.transaction, records, ledgerPlace);
  const isGrant = (record: number): boolean =>
    ledger.type[record] === GRANT && ledgerPlace[record] !== DUPLICATE;
  let index: KeyIndex | null = null;
  const grantsByCharge = (): KeyIndex => (index ??= indexBy(ledger.charge, records, interner.size, isGrant));
  const lots: Lots = {
    ledgerPlace,
    grantOf: new Int32Array(records).fill(-1),
    reversed: new Float64Array(records),
    reversedByEnd: new Float64Array(records),
    adjusted: new Float64Array(records),
    clawed: new Float64Array(records),
    held: new Float64Array(records),
    lotDispute: new Uint8Array(records),
    lotDisputeByEnd: new Uint8Array(records),
    lotDisputeAt: new Float64Array(records),
    void: new Uint8Array(records),
    relabelled: new Uint8Array(records),
    isGrant,
    grantsByCharge,
  };
  const later: number[] = [];
  for (let record = 0; record < records; record++)
    if (ledger.type[record] !== GRANT && ledgerPlace[record] === PENDING_ROW) later.push(record);
  // In the ledger's own order, whatever the order of the records: the last word on a lot counts.
  later.sort((a, b) => ledger.transaction[a] - ledger.transaction[b]);
  const grantOfLot = findGrants(lots, ledgerTable, later);
  for (const record of later) {
    const grant = grantOfLot(record);
    lots.grantOf[record] = grant;
    if (grant >= 0) applyRecord(lots, ledger, record, grant, ledger.created[record] < frame.to);
  }
  if (later.length > 0) voidCorrected(lots, ledgerTable);
  for (let record = 0; record < records; record++)
    if (isGrant(record) && ledger.kind[record] === PROMOTIONAL_GRANT) lots.void[record] = 1;
  return lots;
}

/** An entry that comes a second time, as a page that is read again, is left out. */
function placeRepeated(transactions: Float64Array, records: number, ledgerPlace: Uint8Array): void {
  let ascending = true;
  for (let record = 1; record < records && ascending; record++)
    ascending = transactions[record] > transactions[record - 1];
  if (ascending) return;
  const sorted = transactions.slice(0, records).sort();
  const repeated = new Set<number>();
  for (let record = 1; record < records; record++)
    if (sorted[record] === sorted[record - 1]) repeated.add(sorted[record]);
  if (repeated.size === 0) return;
  const seen = new Set<number>();
  for (let record = 0; record < records; record++) {
    const transaction = transactions[record];
    if (!repeated.has(transaction)) continue;
    if (seen.has(transaction)) ledgerPlace[record] = DUPLICATE;
    seen.add(transaction);
  }
}

type LedgerColumns = Sides["ledgerTable"]["columns"];

/**
 * The grant that a later record changes: that of its lot (where several payments added to the lot, that of its charge),
 * else the oldest of its charge; −1 for none.
 */
function findGrants(
  { isGrant, grantsByCharge }: Lots,
  ledgerTable: Sides["ledgerTable"],
  later: readonly number[],
): (record: number) => number {
  const ledger = ledgerTable.columns;
  const grants = new Map<number, number[]>();
  for (const record of later) if (ledger.lot[record] !== 0) grants.set(ledger.lot[record], []);
  if (grants.size > 0)
    for (let record = 0; record < ledgerTable.length; record++)
      if (isGrant(record)) grants.get(ledger.lot[record])?.push(record);
  const isOlder = (a: number, b: number): number => ledger.transaction[a] - ledger.transaction[b];
  for (const list of grants.values()) list.sort(isOlder);
  return (record) => {
    const ofLot = ledger.lot[record] === 0 ? [] : (grants.get(ledger.lot[record]) ?? []);
    const sameCharge = ofLot.find((grant) => ledger.charge[grant] === ledger.charge[record]);
    const byLot = sameCharge ?? ofLot[0] ?? -1;
    if (byLot >= 0 || ledger.charge[record] === 0) return byLot;
    const index = grantsByCharge();
    let oldest = firstOf(index, ledger.charge[record]);
    for (let other = oldest; other >= 0; other = index.next[other])
      if (isOlder(other, oldest) < 0) oldest = other;
    return oldest;
  };
}

function applyRecord(
  lots: Lots,
  ledger: LedgerColumns,
  record: number,
  grant: number,
  isByEnd: boolean,
): void {
  const tokens = ledger.tokens[record];
  switch (ledger.type[record]) {
    case REFUND_RECORD:
    case RESTORATION:
      lots.reversed[grant] -= tokens;
      if (isByEnd) lots.reversedByEnd[grant] -= tokens;
      break;
    case ADJUSTMENT:
      lots.adjusted[grant] += tokens;
      break;
    case PROMOTIONAL:
      lots.void[grant] = 1;
      break;
    case RELABEL:
      lots.relabelled[grant] = 1;
      ledger.amount[grant] = ledger.amount[record];
      ledger.currency[grant] = ledger.currency[record];
      ledger.booked[grant] = 0;
      ledger.paid[grant] = 0;
      break;
    case HOLD:
    case RELEASE:
    case CLAWBACK: {
      const type = ledger.type[record];
      const state = type === HOLD ? HELD : type === RELEASE ? RELEASED : CLAWED;
      if (state === CLAWED) lots.clawed[grant] -= tokens;
      lots.held[grant] = state === HELD ? -tokens : 0;
      lots.lotDispute[grant] = state;
      lots.lotDisputeAt[grant] = ledger.created[record];
      if (isByEnd) lots.lotDisputeByEnd[grant] = state;
      break;
    }
  }
}

function voidCorrected(lots: Lots, ledgerTable: Sides["ledgerTable"]): void {
  const ledger = ledgerTable.columns;
  for (let record = 0; record < ledgerTable.length; record++) {
    if (!lots.isGrant(record)) continue;
    if (lots.lotDispute[record] === RELEASED || lots.lotDispute[record] === FREE) lots.clawed[record] = 0;
    // Corrected away: nothing of it is left that was not taken back.
    const left = ledger.tokens[record] + lots.adjusted[record];
    if (lots.adjusted[record] < 0 && left <= lots.reversed[record] + lots.clawed[record])
      lots.void[record] = 1;
  }
}
