import { type Currencies, readTime } from "./cells.ts";
import { createKeyQueue, type QueuedColumn } from "./columns.ts";
import { type CsvRow, CsvScanner } from "./csv-scanner.ts";
import type { Interner } from "./interner.ts";
import {
  DISTINCT,
  GRANT_KINDS,
  type LedgerTable,
  modeOfSession,
  RECORD_TYPES,
  SHOWN,
  TEXT_FIELDS,
} from "./ledger-side.ts";
import { BadInput } from "./problem.ts";
import { decodeUtf8 } from "./text.ts";
import type { InputProblem, LedgerRecord, LedgerRecordType } from "./types.ts";

const REQUIRED = ["transaction_id", "record_type", "user_id", "tokens", "created_at"];

/** Columns that every row is asked for: by name, so that asking costs nothing. */
const noColumns = {
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
type Column = keyof typeof noColumns;

interface TextColumn {
  /** Its place in the queue's list. */
  readonly into: QueuedColumn;
  readonly index: number;
  readonly isKept: boolean;
  readonly isDistinct: boolean;
  last: number;
}

/**
 * Reads a ledger export: CSV with the field names of LedgerRecord. Ids that no Stripe row can match (`unmatchable`) are
 * kept without being looked up. Throws BadInput with row and column.
 */
export class LedgerFile {
  private readonly file: string;
  private readonly table: LedgerTable;
  private readonly interner: Interner;
  private readonly currencies: Currencies;
  private readonly unmatchable: ReadonlySet<keyof LedgerRecord>;
  private readonly scanner: CsvScanner;
  private readonly queue: ReturnType<typeof createKeyQueue>;
  private readonly types = new Map<number, number>();
  private readonly kinds = new Map<number, number>();
  private readonly at = { ...noColumns };
  private readonly lastWord = { record_type: 0, grant_kind: 0 };
  private texts: readonly TextColumn[] = [];

  constructor(
    file: string,
    table: LedgerTable,
    interner: Interner,
    currencies: Currencies,
    unmatchable: ReadonlySet<keyof LedgerRecord>,
    warn: (problem: InputProblem) => void,
  ) {
    this.file = file;
    this.table = table;
    this.interner = interner;
    this.currencies = currencies;
    this.unmatchable = unmatchable;
    this.queue = createKeyQueue(
      interner,
      table,
      TEXT_FIELDS.map(([column]) => column),
    );
    this.scanner = new CsvScanner(file, {
      onHeader: (cells) => this.readHeader(cells),
      onRow: (row) => this.readRow(row),
      onWarning: (code, row, column, message) =>
        warn({ code, file, row, column: this.scanner.columnName(column), message }),
    });
  }

  push(chunk: Uint8Array): void {
    this.scanner.push(chunk);
  }

  finish(): void {
    this.scanner.finish();
    this.queue.flush();
  }

  private readHeader(cells: readonly string[]): void {
    const names = cells.map((cell) => cell.trim().toLowerCase());
    const absent = REQUIRED.filter((field) => !names.includes(field));
    if (absent.length > 0)
      throw new BadInput({
        code: "missing_column",
        file: this.file,
        row: 1,
        column: absent[0],
        message: `A ledger export needs the column${absent.length > 1 ? "s" : ""} ${absent.join(", ")}.`,
      });
    for (const name of Object.keys(noColumns) as Column[]) this.at[name] = names.lastIndexOf(name);
    this.texts = TEXT_FIELDS.map(([name, field], into) => ({
      into,
      index: names.lastIndexOf(field),
      isKept: SHOWN.has(name) || this.unmatchable.has(field),
      isDistinct: DISTINCT.has(name),
      last: 0,
    })).filter(({ index }) => index >= 0);
  }

  private readRow(row: CsvRow): void {
    const type = this.typeOf(row);
    const kind = this.kindOf(row);
    const created = this.createdOf(row);
    const amount = this.whole(row, "amount_minor", -1);
    const currency = this.currencyOf(row);
    if (amount !== -1 && currency === 0) this.fail(row, "currency", "An amount without a currency.");
    const transaction = this.whole(row, "transaction_id", Number.NaN);
    if (transaction !== transaction) this.fail(row, "transaction_id", "The transaction_id is empty.");
    const record = this.table.add();
    const { columns } = this.table;
    columns.type[record] = type;
    columns.kind[record] = kind;
    columns.currency[record] = currency;
    columns.row[record] = row.row;
    columns.transaction[record] = transaction;
    columns.lot[record] = this.whole(row, "lot_id", 0);
    columns.tokens[record] = this.whole(row, "tokens", 0);
    columns.debt[record] = this.whole(row, "debt_tokens", 0);
    columns.remaining[record] = this.whole(row, "tokens_remaining", -1);
    columns.amount[record] = amount;
    const booked = this.whole(row, "booked_minor", -1);
    if (booked >= 0) columns.booked[record] = booked + 1;
    const paid = this.whole(row, "payment_minor", 0);
    if (paid > 0) columns.paid[record] = paid;
    columns.created[record] = created;
    this.readTexts(row, record);
    const told = yesOrNo(row, this.at.livemode);
    const mode = told === 0 ? modeOfSession(this.interner, columns.session[record]) : told;
    if (mode !== 0) columns.test[record] = mode;
  }

  private readTexts(row: CsvRow, record: number): void {
    const { interner, queue } = this;
    for (const column of this.texts) {
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
  }

  private fail(row: CsvRow, column: Column, message: string): never {
    throw new BadInput({ code: "bad_ledger_record", file: this.file, row: row.row, column, message });
  }

  private cell(row: CsvRow, field: Column): string {
    const column = this.at[field];
    return column < 0 ? "" : decodeUtf8(row.bytes, row.starts[column], row.ends[column]).slice(0, 40);
  }

  /** A whole number; `empty` where the cell is. */
  private whole(row: CsvRow, field: Column, empty: number): number {
    const column = this.at[field];
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
      this.fail(row, field, `"${this.cell(row, field)}" is not a whole number.`);
    return negative && value !== 0 ? -value : value;
  }

  /** The key of a word out of few: mostly the same as in the record before. */
  private word(row: CsvRow, field: "record_type" | "grant_kind"): number {
    const column = this.at[field];
    if (column < 0) return 0;
    const start = row.starts[column];
    const end = row.ends[column];
    const last = this.lastWord[field];
    if (last !== 0 && this.interner.is(last, row, start, end - start)) return last;
    return (this.lastWord[field] = this.interner.intern(row, start, end));
  }

  private typeOf(row: CsvRow): number {
    const key = this.word(row, "record_type");
    let type = this.types.get(key);
    if (type === undefined) {
      type = RECORD_TYPES.indexOf(this.interner.text(key) as LedgerRecordType);
      if (type < 0) this.fail(row, "record_type", `"${this.cell(row, "record_type")}" is not a record type.`);
      this.types.set(key, type);
    }
    return type;
  }

  private kindOf(row: CsvRow): number {
    const key = this.word(row, "grant_kind");
    let kind = this.kinds.get(key);
    if (kind === undefined) {
      kind = Math.max(0, GRANT_KINDS.indexOf(this.interner.text(key)));
      this.kinds.set(key, kind);
    }
    return kind;
  }

  private createdOf(row: CsvRow): number {
    const column = this.at.created_at;
    const created = readTime(row.bytes, row.starts[column], row.ends[column], undefined);
    if (created !== created) this.fail(row, "created_at", `"${this.cell(row, "created_at")}" is not a time.`);
    return created;
  }

  private currencyOf(row: CsvRow): number {
    const column = this.at.currency;
    if (column < 0) return 0;
    const currency = this.currencies.read(row.bytes, row.starts[column], row.ends[column]);
    if (currency < 0) this.fail(row, "currency", `"${this.cell(row, "currency")}" is not a currency code.`);
    return currency;
  }
}

/** 1 for false, 2 for true, 0 for an empty cell. */
function yesOrNo(row: CsvRow, column: number): number {
  if (column < 0 || row.starts[column] === row.ends[column]) return 0;
  const first = row.bytes[row.starts[column]] | 0x20;
  return first === 0x66 ? 1 : first === 0x74 ? 2 : 0;
}
