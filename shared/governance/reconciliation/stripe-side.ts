import { type Currencies, isoTime } from "./cells.ts";
import { adjusted, CATEGORIES, createReader, DISPUTE_STATUS, PAYMENT_STATUS } from "./categories.ts";
import { type CsvRow, CsvScanner } from "./csv-scanner.ts";
import { type ExportLayout, recogniseExport } from "./exports.ts";
import type { Interner } from "./interner.ts";
import { BadInput, fileProblem } from "./problem.ts";
import { yesOrNo } from "./text.ts";
import { createRowCells, INTENT, OBJECT, type RowCells, SESSION, TRANSACTION } from "./row-cells.ts";
import {
  CHARGE,
  DISPUTE,
  DISPUTE_REVERSAL,
  isCash,
  OPEN,
  OTHER,
  PAID,
  type StripeSide,
  UNCAPTURED,
  UNKNOWN,
  WITHDRAWN,
  WON,
} from "./stripe-table.ts";
import type { InputManifest, InputProblem, ReconcileOptions } from "./types.ts";

interface StripeFileReader {
  push(chunk: Uint8Array): void;
  /** The manifest; its hash is filled in by the caller. */
  finish(bytes: number): InputManifest;
  readonly rows: number;
}

/** A file that is being read: where its columns are, and what reads its rows. */
interface Reading {
  readonly side: StripeSide;
  readonly fileIndex: number;
  readonly layout: ExportLayout;
  readonly cells: RowCells;
  readonly interner: Interner;
  readonly accountId: string | undefined;
  readonly paymentStatus: (word: number) => number;
  readonly disputeStatus: (word: number) => number;
  readonly category: (word: number) => number;
  readonly isAdjustment: (word: number) => number;
}

/** Reads one export into the table, row by row. Throws BadInput with file, row and column. */
export function readStripeFile(
  name: string,
  side: StripeSide,
  interner: Interner,
  currencies: Currencies,
  options: ReconcileOptions,
  warn: (problem: InputProblem) => void,
): StripeFileReader {
  let reading: Reading | null = null;
  let read: (reading: Reading, row: CsvRow) => void = () => undefined;
  let delimiter: InputManifest["delimiter"] = ",";
  const scanner = new CsvScanner(name, {
    onHeader(header, found) {
      delimiter = found;
      const layout = recogniseExport(name, header);
      cells.setOthers(layout.others);
      noteContents(side, layout);
      read = isCash(layout.kind) ? readCash : layout.kind === "disputes" ? readDispute : readPayment;
      reading = {
        side,
        fileIndex: side.files.length,
        layout,
        cells,
        interner,
        accountId: options.account_id,
        paymentStatus: createReader(interner, PAYMENT_STATUS),
        disputeStatus: createReader(interner, DISPUTE_STATUS),
        category: createReader(interner, CATEGORIES),
        isAdjustment: createReader(interner, { adjustment: 1, other_adjustment: 1 }),
      };
    },
    onRow(row) {
      if (reading !== null && !isTotal(reading, row)) read(reading, row);
    },
    onWarning(code, row, column, message) {
      warn({ code, file: name, row, column: scanner.columnName(column), message });
    },
  });
  const cells = createRowCells(
    name,
    (column) => scanner.columnName(column),
    side.table,
    interner,
    currencies,
    options,
    warn,
  );
  return {
    push: (chunk) => scanner.push(chunk),
    get rows() {
      return scanner.rows;
    },
    finish(bytes) {
      scanner.finish();
      cells.finish();
      if (reading === null) throw new BadInput(fileProblem("empty", name, "The file is empty."));
      if (scanner.rows === 0)
        warn(
          fileProblem(
            "no_rows",
            name,
            "The file has a header and no rows: check the export's dates and filters.",
          ),
        );
      const { layout } = reading;
      const { first, last } = cells.window();
      const manifest: InputManifest = {
        name,
        kind: layout.kind,
        sha256: null,
        bytes,
        rows: scanner.rows,
        window: first <= last ? { from: isoTime(first) as string, to: isoTime(last) as string } : null,
        time_zone: layout.createdIsUtc ? "UTC" : "assumed UTC",
        delimiter,
        missing_columns: layout.missing,
        unknown_columns: layout.unknown,
      };
      side.files.push(manifest);
      side.kinds.push(layout.kind);
      side.namesTokens.push(layout.at.pack >= 0 || layout.at.tokens >= 0);
      return manifest;
    },
  };
}

/** Notes which ids and which kinds of rows an export has. */
function noteContents({ has, ids }: StripeSide, layout: ExportLayout): void {
  const { at } = layout;
  if (at.intent >= 0) ids.add("intent");
  if (at.session >= 0) ids.add("session");
  if (at.order >= 0) ids.add("order");
  if (at.client_reference >= 0) ids.add("reference");
  if (at.invoice >= 0) ids.add("invoice");
  if (isCash(layout.kind)) {
    has.cash = true;
    has.refunds = true;
    has.disputes = true;
  } else if (layout.kind === "disputes") has.disputes = true;
  else {
    has.payments = true;
    has.refunds = true;
    if (layout.at.dispute_status >= 0) has.disputes = true;
  }
}

/**
 * A line that sums the rows up, as spreadsheets and people add them, or an empty one: it has no time, and what
 * stands for its id is no id of Stripe's. Left out, with a warning where it holds anything.
 */
function isTotal({ layout: { at }, cells }: Reading, row: CsvRow): boolean {
  if (at.created < 0 || !cells.isEmpty(row, at.created)) return false;
  if (/^[a-z]+_\w/i.test(cells.text(row, at.id >= 0 ? at.id : at.charge))) return false;
  let isBlank = true;
  for (let column = 0; column < row.columns && isBlank; column++) isBlank = cells.isEmpty(row, column);
  const isLabelled =
    /^[^\p{L}]*(?:grand |sub-?|zwischen)?(?:tota(?:l|ls|le|al)|sum|summe|suma|soma|somme|gesamt|insgesamt|razem|celkem|итого|всего|合计|合計)(?!\p{L})/iu;
  let label = -1;
  for (let column = 0; column < row.columns && label < 0; column++)
    if (isLabelled.test(cells.text(row, column))) label = column;
  if (!isBlank && label < 0 && (at.id < 0 || !cells.isEmpty(row, at.currency))) return false;
  if (!isBlank)
    cells.warnOnce(
      "total_line",
      row,
      Math.max(label, 0),
      "This row has neither a time nor an id of Stripe's: taken for a line of totals and left out.",
    );
  return true;
}

/** Writes all but zero: a new row is zero, and memory that is never written to costs nothing. */
function set(column: Uint8Array | Uint32Array | Float64Array, row: number, value: number): void {
  if (value !== 0) column[row] = value;
}

function add({ side, fileIndex }: Reading, row: CsvRow, kind: number): number {
  const event = side.table.add();
  const { columns } = side.table;
  columns.kind[event] = kind;
  columns.file[event] = fileIndex;
  columns.row[event] = row.row;
  return event;
}

/** The ids and metadata that every export may have beside a payment. */
function readLinks(reading: Reading, row: CsvRow, event: number): void {
  const { cells, side, layout } = reading;
  const { at } = layout;
  const { columns } = side.table;
  const session = cells.ownId(row, at.session, event, SESSION);
  if (at.order >= 0) columns.order[event] = cells.id(row, at.order);
  if (at.client_reference >= 0) columns.reference[event] = cells.id(row, at.client_reference);
  if (at.invoice >= 0) columns.invoice[event] = cells.id(row, at.invoice);
  columns.customer[event] = cells.shown(row, at.customer) || cells.shown(row, at.email);
  if (at.user >= 0) columns.user[event] = cells.shown(row, at.user);
  if (at.pack >= 0) columns.pack[event] = cells.id(row, at.pack);
  if (at.tokens >= 0) columns.tokens[event] = cells.id(row, at.tokens);
  if (at.product >= 0) columns.product[event] = cells.id(row, at.product);
  set(columns.test, event, modeOf(reading, row, session));
}

/** 1 test mode, 2 live, 0 unknown. */
function modeOf({ cells, layout: { at }, interner }: Reading, row: CsvRow, session: number): number {
  if (at.livemode >= 0) {
    const mode = cells.text(row, at.livemode);
    const isLive = /^test(?: mode)?$/i.test(mode) ? false : /^live(?: mode)?$/i.test(mode) || yesOrNo(mode);
    if (isLive !== null) return isLive ? 2 : 1;
  }
  if (session === 0) return 0;
  return interner.startsWith(session, "cs_test_") ? 1 : interner.startsWith(session, "cs_live_") ? 2 : 0;
}

/** Stripe's newer ids carry the account's: `ch_3` + 5 + account's last 10 + 8. Undocumented, so used only when asked to. */
function isForeign(
  { accountId, cells, layout: { at }, interner }: Reading,
  row: CsvRow,
  key: number,
): boolean {
  if (accountId === undefined) return false;
  const account = cells.text(row, at.account);
  if (account !== "") return account !== accountId;
  const text = interner.text(key);
  return /^(?:ch|py|pi)_3[A-Za-z0-9]{23}$/.test(text) && text.slice(9, 19) !== accountId.slice(-10);
}

/** A row of the payments list. */
function readPayment(reading: Reading, row: CsvRow): void {
  const { cells, side } = reading;
  const { at } = reading.layout;
  const code = cells.currency(row, at.currency);
  const statusKey = cells.id(row, at.status);
  const created = cells.created(row, at.created);
  let amount = cells.money(row, at.amount, code);
  let refunded = cells.money(row, at.refunded, code);
  let state = reading.paymentStatus(statusKey);
  if (state === PAID && isNo(cells, row, at.captured)) state = UNCAPTURED;
  if (amount < 0 || refunded < 0)
    cells.fail(
      row,
      amount < 0 ? at.amount : at.refunded,
      "negative_amount",
      "A payment cannot be negative: use the file as it was downloaded.",
    );
  if (refunded > amount && state === PAID)
    cells.warnOnce(
      "refund_above_amount",
      row,
      at.refunded,
      "More was refunded than was paid: shown as a full refund.",
    );
  const settled = cells.optionalCurrency(row, at.converted_currency);
  let cash = settled > 0 ? cells.money(row, at.converted_amount, settled) : amount;
  const feeCurrency = settled > 0 ? settled : code;
  // Fee is without the tax on it (Stripe, "Taxes On Fee").
  const fee = cells.money(row, at.fee, feeCurrency) + cells.money(row, at.fee_tax, feeCurrency);
  const captured = state === PAID ? cells.money(row, at.amount_captured, code) : 0;
  const uncaptured = captured > 0 ? Math.max(0, amount - captured) : 0;
  if (captured > 0 && captured < amount) {
    // Stripe counts what a partial capture let go as refunded.
    refunded = Math.max(0, refunded - uncaptured);
    if (settled === 0) cash = captured;
    amount = captured;
  }
  const event = add(reading, row, state < 0 ? UNKNOWN : CHARGE);
  const { columns } = side.table;
  columns.state[event] = state < 0 ? 0 : state;
  columns.category[event] = statusKey;
  columns.created[event] = created;
  columns.amount[event] = amount;
  columns.fee[event] = fee;
  columns.currency[event] = code;
  columns.cash[event] = cash;
  columns.cashCurrency[event] = feeCurrency;
  set(columns.isCaptured, event, captured > 0 ? 1 : 0);
  set(columns.uncaptured, event, uncaptured);
  if (refunded > 0) {
    columns.refunded[event] = refunded;
    set(columns.refundedAt, event, cells.optionalTime(row, at.refunded_at));
    if (settled > 0) columns.cashRefunded[event] = cells.money(row, at.converted_refunded, settled);
  }
  // A blank or pi_ id is a PaymentIntent without a charge.
  const isIntent = cells.begins(row, at.id, "pi_");
  const object = isIntent ? 0 : cells.ownId(row, at.id, event, OBJECT);
  const intent = cells.ownId(row, at.intent, event, INTENT);
  if (intent === 0 && isIntent) {
    columns.intent[event] = cells.id(row, at.id);
    side.ids.add("intent");
  }
  readLinks(reading, row, event);
  set(columns.foreign, event, isForeign(reading, row, object) ? 1 : 0);
  readPaymentsDispute(reading, row, event);
  if (object === 0 && state === PAID && columns.intent[event] === 0)
    cells.warnOnce(
      "no_id",
      row,
      at.id,
      "A paid row without any id: it can only be suggested, never matched. Use the file as it was downloaded.",
    );
}

/** Whether a cell says no. */
function isNo(cells: RowCells, row: CsvRow, column: number): boolean {
  // Nearly every cell says true.
  if (column < 0 || row.ends[column] === row.starts[column]) return false;
  if ((row.bytes[row.starts[column]] | 0x20) === 0x74) return false;
  return yesOrNo(cells.text(row, column)) === false;
}

function readPaymentsDispute(reading: Reading, row: CsvRow, event: number): void {
  const { cells, side, layout } = reading;
  const { at } = layout;
  const status = cells.id(row, at.dispute_status);
  if (status === 0) return;
  const { columns } = side.table;
  columns.dispute[event] = disputeState(reading, row, at.dispute_status, status);
  const disputed = cells.money(row, at.disputed, columns.currency[event]);
  columns.disputed[event] = disputed > 0 ? disputed : columns.amount[event];
  columns.disputedAt[event] = cells.optionalTime(row, at.disputed_at);
}

function disputeState(reading: Reading, row: CsvRow, column: number, status: number): number {
  const known = reading.disputeStatus(status);
  if (known >= 0) return known;
  reading.cells.warnOnce(
    "unknown_dispute_status",
    row,
    column,
    `"${reading.interner.text(status)}" is not a dispute status we know: taken as open.`,
  );
  return OPEN;
}

/** A movement of Stripe's balance. */
function readCash(reading: Reading, row: CsvRow): void {
  const { cells, side, interner } = reading;
  const { at } = reading.layout;
  const code = cells.currency(row, at.currency);
  const type = cells.id(row, at.type);
  const created = cells.created(row, at.created);
  const cash = cells.money(row, at.amount, code);
  const source = cells.id(row, at.source);
  let kind = reading.category(type);
  if (kind === OTHER && reading.isAdjustment(type) > 0)
    kind = adjusted(interner.text(source), cells.text(row, at.description), cash);
  if (kind === DISPUTE && cash > 0) kind = DISPUTE_REVERSAL;
  const event = add(reading, row, kind < 0 ? UNKNOWN : kind);
  const { columns } = side.table;
  columns.category[event] = type;
  columns.created[event] = created;
  cells.ownId(row, at.id, event, TRANSACTION);
  const isCharge = interner.startsWith(source, "ch_") || interner.startsWith(source, "py_");
  const charge = cells.id(row, at.charge) || (isCharge ? source : 0);
  // An export may name the charge without the column of sources. Older files name it as the source of its refunds and
  // disputes too: such a row has no object of its own, else two refunds of one charge would be one.
  set(columns.object, event, kind === CHARGE ? source || charge : isCharge ? 0 : source);
  set(columns.charge, event, charge);
  cells.ownId(row, at.intent, event, INTENT);
  readLinks(reading, row, event);
  columns.cash[event] = cash;
  columns.fee[event] = cells.money(row, at.fee, code);
  columns.net[event] = cells.money(row, at.net, code);
  columns.cashCurrency[event] = code;
  const facing = cells.optionalCurrency(row, at.facing_currency);
  if (facing > 0) {
    columns.currency[event] = facing;
    columns.amount[event] = Math.abs(cells.money(row, at.facing_amount, facing));
  } else {
    columns.currency[event] = code;
    columns.amount[event] = Math.abs(cash);
    columns.settledOnly[event] = 1;
  }
  if (kind === CHARGE) columns.state[event] = PAID;
  if (kind === DISPUTE) columns.dispute[event] = WITHDRAWN;
  if (kind === DISPUTE_REVERSAL) columns.dispute[event] = WON;
  set(columns.foreign, event, isForeign(reading, row, source) ? 1 : 0);
}

/** A row of the list of disputes. */
function readDispute(reading: Reading, row: CsvRow): void {
  const { cells, side } = reading;
  const { at } = reading.layout;
  const code = cells.currency(row, at.currency);
  const status = cells.id(row, at.status);
  const created = cells.created(row, at.created);
  const amount = cells.money(row, at.amount, code);
  const event = add(reading, row, DISPUTE);
  const { columns } = side.table;
  columns.category[event] = status;
  columns.created[event] = created;
  columns.object[event] = cells.id(row, at.id);
  columns.charge[event] = cells.id(row, at.charge);
  columns.intent[event] = cells.id(row, at.intent);
  columns.customer[event] = cells.shown(row, at.customer) || cells.shown(row, at.email);
  columns.amount[event] = amount;
  columns.disputed[event] = amount;
  columns.currency[event] = code;
  columns.dispute[event] = disputeState(reading, row, at.status, status);
  set(columns.test, event, modeOf(reading, row, 0));
  set(columns.foreign, event, isForeign(reading, row, columns.charge[event]) ? 1 : 0);
}
