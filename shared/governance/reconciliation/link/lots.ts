import { createPlaces, findRepeated, firstOf, indexBy, type KeyIndex, rowsWith } from "../columns.ts";
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
export function followLots({ ledgerTable, interner, times }: Sides): Lots {
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
  const later = listLater(ledger.type, ledgerPlace);
  const grantOfLot = findGrants(lots, ledgerTable, later);
  // In the ledger's own order, whatever the order of the records: the last record of a lot counts.
  for (const record of inLedgerOrder(later, ledger.transaction)) {
    const grant = grantOfLot(record);
    lots.grantOf[record] = grant;
    if (grant >= 0) applyRecord(lots, ledger, record, grant, ledger.created[record] < times.to);
  }
  for (const record of later)
    if (lots.grantOf[record] >= 0) voidCorrected(lots, ledger, lots.grantOf[record]);
  for (const record of rowsWith(ledger.kind, PROMOTIONAL_GRANT, records))
    if (isGrant(record)) lots.void[record] = 1;
  return lots;
}

/** An entry that comes a second time, as a page that is read again, is left out. */
function placeRepeated(transactions: Float64Array, records: number, ledgerPlace: Uint8Array): void {
  const repeated = findRepeated(transactions, records);
  if (repeated === null) return;
  const seen = new Set<number>();
  for (let record = 0; record < records; record++) {
    const transaction = transactions[record];
    if (!repeated.has(transaction)) continue;
    if (seen.has(transaction)) ledgerPlace[record] = DUPLICATE;
    seen.add(transaction);
  }
}

/** Records that change a grant. */
function listLater(types: Uint8Array, ledgerPlace: Uint8Array): Int32Array {
  const later = new Int32Array(ledgerPlace.length);
  let count = 0;
  for (let record = 0; record < later.length; record++)
    if (types[record] !== GRANT && ledgerPlace[record] === PENDING_ROW) later[count++] = record;
  return later.subarray(0, count);
}

/** Records by their numbers; mostly they come so. */
function inLedgerOrder(records: Int32Array, transactions: Float64Array): Int32Array {
  let isOrdered = true;
  for (let i = 1; i < records.length && isOrdered; i++)
    isOrdered = transactions[records[i]] > transactions[records[i - 1]];
  return isOrdered ? records : records.sort((a, b) => transactions[a] - transactions[b]);
}

type LedgerColumns = Sides["ledgerTable"]["columns"];

/**
 * The grant that a later record changes: that of its lot (where several payments added to the lot, that of its charge),
 * else the oldest of its charge; −1 for none.
 */
function findGrants(
  { isGrant, grantsByCharge }: Lots,
  ledgerTable: Sides["ledgerTable"],
  later: Int32Array,
): (record: number) => number {
  const ledger = ledgerTable.columns;
  const placeOf = createPlaces(new Float64Array(later.length).map((_, i) => ledger.lot[later[i]]));
  const first = new Int32Array(later.length).fill(-1);
  const next = new Int32Array(ledgerTable.length);
  for (let record = 0; record < ledgerTable.length; record++) {
    // Nearly all grants are of lots that nothing came after.
    const place = placeOf(ledger.lot[record]);
    if (place < 0 || ledger.lot[record] === 0 || !isGrant(record)) continue;
    next[record] = first[place];
    first[place] = record;
  }
  const isOlder = (a: number, b: number): boolean => ledger.transaction[a] < ledger.transaction[b];
  function findByLot(record: number): number {
    let oldest = -1;
    let sameCharge = -1;
    for (let grant = first[placeOf(ledger.lot[record])]; grant >= 0; grant = next[grant]) {
      if (oldest < 0 || isOlder(grant, oldest)) oldest = grant;
      if (ledger.charge[grant] === ledger.charge[record] && (sameCharge < 0 || isOlder(grant, sameCharge)))
        sameCharge = grant;
    }
    return sameCharge >= 0 ? sameCharge : oldest;
  }
  return (record) => {
    const byLot = findByLot(record);
    if (byLot >= 0 || ledger.charge[record] === 0) return byLot;
    const index = grantsByCharge();
    let oldest = firstOf(index, ledger.charge[record]);
    for (let other = oldest; other >= 0; other = index.next[other])
      if (isOlder(other, oldest)) oldest = other;
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

/** A grant that was corrected away: all of its tokens were taken back. */
function voidCorrected(lots: Lots, ledger: LedgerColumns, grant: number): void {
  const isFree = lots.lotDispute[grant] === RELEASED || lots.lotDispute[grant] === FREE;
  if (isFree && lots.clawed[grant] !== 0) lots.clawed[grant] = 0;
  if (lots.adjusted[grant] >= 0) return;
  const left = ledger.tokens[grant] + lots.adjusted[grant];
  if (left <= lots.reversed[grant] + lots.clawed[grant]) lots.void[grant] = 1;
}
