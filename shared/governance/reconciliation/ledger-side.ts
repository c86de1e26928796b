import { type Currencies, parseTime, readTime } from "./cells.ts";
import { createKeyQueue, createTable, type QueuedColumn, type Table } from "./columns.ts";
import { type CsvRow, CsvScanner } from "./csv-scanner.ts";
import type { Interner } from "./interner.ts";
import { BadInput } from "./problem.ts";
import { decodeUtf8 } from "./text.ts";
import type { InputProblem, LedgerRecord, LedgerRecordType } from "./types.ts";

export const RECORD_TYPES: readonly LedgerRecordType[] = [
  "grant",
  "refund",
  "restoration",
  "dispute_hold",
  "dispute_release",
  "dispute_clawback",
  "adjustment",
  "promotional",
  "relabel",
];
export const GRANT = 0;
export const REFUND_RECORD = 1;
export const RESTORATION = 2;
export const HOLD = 3;
export const RELEASE = 4;
export const CLAWBACK = 5;
export const ADJUSTMENT = 6;
export const PROMOTIONAL = 7;
export const RELABEL = 8;

const GRANT_KINDS = ["", "purchase", "subscription", "promotional"];
export const SUBSCRIPTION_GRANT = 2;
export const PROMOTIONAL_GRANT = 3;

const spec = {
  type: "u8",
  kind: "u8",
  currency: "u8",
  /** While reading: 1 test mode, 2 live, 0 not told. Then 1 for what does not belong here, else 0. */
  test: "u8",
  row: "u32",
  transaction: "f64",
  lot: "f64",
  tokens: "f64",
  debt: "f64",
  /** −1 where it is not told. */
  remaining: "f64",
  /** −1 where it is not told. */
  amount: "f64",
  /** What is booked for the tokens; −1 where that is the amount. */
  booked: "f64",
  /** What the payment took in all; 0 where that is the amount. */
  paid: "f64",
  created: "f64",
  user: "u32",
  pack: "u32",
  charge: "u32",
  intent: "u32",
  session: "u32",
  order: "u32",
  invoice: "u32",
  line: "u32",
  periodStart: "u32",
  periodEnd: "u32",
  customer: "u32",
  balance: "u32",
  refund: "u32",
  dispute: "u32",
} as const;
export type LedgerTable = Table<typeof spec>;
export const createLedgerTable = (): LedgerTable => createTable(spec);

const TEXT_FIELDS = [
  ["user", "user_id"],
  ["pack", "pack_id"],
  ["charge", "charge_id"],
  ["intent", "payment_intent_id"],
  ["session", "checkout_session_id"],
  ["order", "order_id"],
  ["invoice", "invoice_id"],
  ["line", "invoice_line_id"],
  ["periodStart", "period_start"],
  ["periodEnd", "period_end"],
  ["customer", "customer_id"],
  ["balance", "balance_transaction_id"],
  ["refund", "refund_id"],
  ["dispute", "dispute_id"],
] as const;

/** Texts that are only shown, or compared by their text where few are left. */
const SHOWN: ReadonlySet<string> = new Set(["user", "customer", "periodStart", "periodEnd"]);
/** Ids of which nearly every record has its own. */
const DISTINCT: ReadonlySet<string> = new Set(["charge", "intent", "session", "order", "balance", "line"]);

/** Adds a record from the database. Throws BadInput naming record and field. */
export function addLedgerRecord(
  record: LedgerRecord,
  table: LedgerTable,
  interner: Interner,
  currencies: Currencies,
): void {
  const fail = (field: keyof LedgerRecord, message: string): never => {
    throw new BadInput({
      code: "bad_ledger_record",
      file: "ledger",
      row: table.length + 1,
      column: field,
      message: `Ledger record ${String(record?.transaction_id)}: ${message}`,
    });
  };
  if (record === null || typeof record !== "object") return fail("transaction_id", "is not an object.");
  const type = RECORD_TYPES.indexOf(record.record_type);
  if (type < 0) fail("record_type", `"${String(record.record_type)}" is not a record type.`);
  if (!Number.isSafeInteger(record.transaction_id))
    fail("transaction_id", "transaction_id is not a whole number.");
  if (!Number.isSafeInteger(record.tokens)) fail("tokens", "tokens is not a whole number.");
  for (const field of [
    "amount_minor",
    "booked_minor",
    "payment_minor",
    "debt_tokens",
    "tokens_remaining",
    "lot_id",
  ] as const) {
    const value = record[field];
    if (value !== null && value !== undefined && !Number.isSafeInteger(value))
      fail(field, `${field} is not a whole number.`);
  }
  const created = parseTime(String(record.created_at));
  if (created !== created) fail("created_at", `"${String(record.created_at)}" is not a time.`);
  const currency = currencies.readText(record.currency);
  if (currency < 0) fail("currency", `"${String(record.currency)}" is not a currency code.`);
  if (record.amount_minor !== null && record.amount_minor !== undefined && currency === 0)
    fail("currency", "has an amount without a currency.");
  const at = table.add();
  const columns = table.columns;
  columns.type[at] = type;
  columns.kind[at] = Math.max(0, GRANT_KINDS.indexOf(record.grant_kind ?? ""));
  columns.currency[at] = currency;
  columns.row[at] = at + 1;
  columns.transaction[at] = record.transaction_id;
  columns.lot[at] = record.lot_id ?? 0;
  columns.tokens[at] = record.tokens;
  columns.debt[at] = record.debt_tokens ?? 0;
  columns.remaining[at] = record.tokens_remaining ?? -1;
  columns.amount[at] = record.amount_minor ?? -1;
  columns.booked[at] = record.booked_minor ?? -1;
  columns.paid[at] = record.payment_minor ?? 0;
  columns.created[at] = created;
  for (const [column, field] of TEXT_FIELDS) columns[column][at] = interner.internText(record[field]);
  columns.test[at] =
    record.livemode === false
      ? 1
      : record.livemode === true
        ? 2
        : modeOfSession(interner, columns.session[at]);
}

function modeOfSession(interner: Interner, session: number): number {
  if (session === 0) return 0;
  return interner.startsWith(session, "cs_test_") ? 1 : interner.startsWith(session, "cs_live_") ? 2 : 0;
}

/** 1 for false, 2 for true, 0 for an empty cell. */
function yesOrNo(row: CsvRow, column: number): number {
  if (column < 0 || row.starts[column] === row.ends[column]) return 0;
  const first = row.bytes[row.starts[column]] | 0x20;
  return first === 0x66 ? 1 : first === 0x74 ? 2 : 0;
}

/**
 * Reads a ledger export: CSV with the field names of LedgerRecord. Ids that no Stripe row can match (`unmatchable`) are
 * kept without being looked up.
 */
export function readLedgerFile(
  name: string,
  table: LedgerTable,
  interner: Interner,
  currencies: Currencies,
  unmatchable: ReadonlySet<keyof LedgerRecord>,
  warn: (problem: InputProblem) => void,
): { push(chunk: Uint8Array): void; finish(): void; readonly rows: number } {
  const queue = createKeyQueue(
    interner,
    table,
    TEXT_FIELDS.map(([column]) => column),
  );
  const at: Record<string, number> = {};
  const types = new Map<number, number>();
  const kinds = new Map<number, number>();
  const columnOf = (field: string): number => at[field] ?? -1;
  /** Columns that every row is asked for: by name, so that asking costs nothing. */
  const col = {
    transaction_id: -1,
    record_type: -1,
    grant_kind: -1,
    tokens: -1,
    created_at: -1,
    lot_id: -1,
    debt_tokens: -1,
    tokens_remaining: -1,
    amount_minor: -1,
    booked_minor: -1,
    payment_minor: -1,
    currency: -1,
    livemode: -1,
  };

  const fail = (row: CsvRow, field: string, message: string): never => {
    throw new BadInput({ code: "bad_ledger_record", file: name, row: row.row, column: field, message });
  };
  const cell = (row: CsvRow, field: string): string => {
    const column = columnOf(field);
    return column < 0 ? "" : decodeUtf8(row.bytes, row.starts[column], row.ends[column]);
  };
  const whole = (row: CsvRow, field: string, column: number, empty: number): number => {
    if (column < 0) return empty;
    const start = row.starts[column];
    const end = row.ends[column];
    if (start === end) return empty;
    const { bytes } = row;
    let i = start;
    const negative = bytes[i] === 0x2d;
    if (negative) i++;
    let value = 0;
    if (i === end || end - i > 16) value = Number.NaN;
    for (; i < end; i++) {
      const digit = bytes[i] - 0x30;
      value = digit >= 0 && digit <= 9 ? value * 10 + digit : Number.NaN;
    }
    if (!Number.isSafeInteger(value))
      fail(row, field, `"${cell(row, field).slice(0, 40)}" is not a whole number.`);
    return negative && value !== 0 ? -value : value;
  };
  const lastWord = { record_type: 0, grant_kind: 0 };
  /** The key of a word out of few: mostly the same as in the record before. */
  const word = (row: CsvRow, field: keyof typeof lastWord): number => {
    const column = field === "record_type" ? col.record_type : col.grant_kind;
    if (column < 0) return 0;
    const start = row.starts[column];
    const end = row.ends[column];
    const last = lastWord[field];
    if (last !== 0 && interner.is(last, row, start, end - start)) return last;
    lastWord[field] = interner.intern(row, start, end);
    return lastWord[field];
  };

  let textColumns: {
    /** Its place in the queue's list. */
    into: QueuedColumn;
    index: number;
    isKept: boolean;
    isDistinct: boolean;
    last: number;
  }[] = [];

  const scanner = new CsvScanner(name, {
    onHeader(cells) {
      cells.forEach((header, i) => {
        at[header.trim().toLowerCase()] = i;
      });
      for (const name of Object.keys(col) as (keyof typeof col)[]) col[name] = columnOf(name);
      const absent = ["transaction_id", "record_type", "user_id", "tokens", "created_at"].filter(
        (field) => columnOf(field) < 0,
      );
      if (absent.length > 0)
        throw new BadInput({
          code: "missing_column",
          file: name,
          row: 1,
          column: absent[0],
          message: `A ledger export needs the column${absent.length > 1 ? "s" : ""} ${absent.join(", ")}.`,
        });
      textColumns = TEXT_FIELDS.map(([name, field], into) => ({
        into,
        index: columnOf(field),
        isKept: SHOWN.has(name) || unmatchable.has(field),
        isDistinct: DISTINCT.has(name),
        last: 0,
      })).filter((column) => column.index >= 0);
    },
    onWarning(code, row, column, message) {
      warn({ code, file: name, row, column: scanner.columnName(column), message });
    },
    onRow(row) {
      const typeKey = word(row, "record_type");
      let type = types.get(typeKey);
      if (type === undefined) {
        type = RECORD_TYPES.indexOf(interner.text(typeKey) as LedgerRecordType);
        if (type < 0)
          fail(row, "record_type", `"${cell(row, "record_type").slice(0, 40)}" is not a record type.`);
        types.set(typeKey, type);
      }
      const kindKey = word(row, "grant_kind");
      let kind = kinds.get(kindKey);
      if (kind === undefined) {
        kind = Math.max(0, GRANT_KINDS.indexOf(interner.text(kindKey)));
        kinds.set(kindKey, kind);
      }
      const createdColumn = col.created_at;
      const created = readTime(row.bytes, row.starts[createdColumn], row.ends[createdColumn], undefined);
      if (created !== created)
        fail(row, "created_at", `"${cell(row, "created_at").slice(0, 40)}" is not a time.`);
      const currencyColumn = col.currency;
      const currency =
        currencyColumn < 0
          ? 0
          : currencies.read(row.bytes, row.starts[currencyColumn], row.ends[currencyColumn]);
      if (currency < 0)
        fail(row, "currency", `"${cell(row, "currency").slice(0, 20)}" is not a currency code.`);
      const amount = whole(row, "amount_minor", col.amount_minor, -1);
      if (amount !== -1 && currency === 0) fail(row, "currency", "An amount without a currency.");
      const transactionColumn = col.transaction_id;
      const transaction = whole(row, "transaction_id", transactionColumn, Number.NaN);
      if (transaction !== transaction) fail(row, "transaction_id", "The transaction_id is empty.");
      const record = table.add();
      const columns = table.columns;
      columns.type[record] = type;
      columns.kind[record] = kind;
      columns.currency[record] = currency;
      columns.row[record] = row.row;
      columns.transaction[record] = transaction;
      columns.lot[record] = whole(row, "lot_id", col.lot_id, 0);
      columns.tokens[record] = whole(row, "tokens", col.tokens, 0);
      columns.debt[record] = whole(row, "debt_tokens", col.debt_tokens, 0);
      columns.remaining[record] = whole(row, "tokens_remaining", col.tokens_remaining, -1);
      columns.amount[record] = amount;
      columns.booked[record] = whole(row, "booked_minor", col.booked_minor, -1);
      columns.paid[record] = whole(row, "payment_minor", col.payment_minor, 0);
      columns.created[record] = created;
      for (let i = 0; i < textColumns.length; i++) {
        const column = textColumns[i];
        const start = row.starts[column.index];
        const end = row.ends[column.index];
        if (start === end) continue;
        if (column.isKept) queue.set(column.into, record, interner.keep(row, start, end));
        else if (column.isDistinct) queue.push(column.into, record, row, start, end);
        else {
          // Packs, and whatever else is mostly the same as in the record before.
          if (column.last === 0 || !interner.is(column.last, row, start, end - start))
            column.last = interner.intern(row, start, end);
          queue.set(column.into, record, column.last);
        }
      }
      const told = yesOrNo(row, col.livemode);
      const mode = told === 0 ? modeOfSession(interner, columns.session[record]) : told;
      if (mode !== 0) columns.test[record] = mode;
    },
  });
  return {
    push: (chunk) => scanner.push(chunk),
    finish() {
      scanner.finish();
      queue.flush();
    },
    get rows() {
      return scanner.rows;
    },
  };
}
