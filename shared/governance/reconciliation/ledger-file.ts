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
import { decodeUtf8, yesOrNo } from "./text.ts";
import type { InputProblem, LedgerRecord } from "./types.ts";

const REQUIRED = ["transaction_id", "record_type", "user_id", "tokens", "created_at"];

/** A field of the records, and its column in the file: −1 where it has none. */
interface Column {
  readonly field: keyof LedgerRecord;
  index: number;
}
/** The columns that are read of every row, each by name: a lookup in a map would cost time at each cell. */
function createColumns() {
  const of = (field: keyof LedgerRecord): Column => ({ field, index: -1 });
  return {
    transaction: of("transaction_id"),
    type: of("record_type"),
    kind: of("grant_kind"),
    tokens: of("tokens"),
    created: of("created_at"),
    charged: of("charged_at"),
    lot: of("lot_id"),
    debt: of("debt_tokens"),
    remaining: of("tokens_remaining"),
    amount: of("amount_minor"),
    booked: of("booked_minor"),
    deferred: of("deferred_minor"),
    paid: of("payment_minor"),
    currency: of("currency"),
    livemode: of("livemode"),
  };
}

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
  private readonly at = createColumns();
  private readonly types: Words;
  private readonly kinds: Words;
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
    this.types = createWords(interner, RECORD_TYPES);
    this.kinds = createWords(interner, GRANT_KINDS);
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
    for (const column of Object.values(this.at)) column.index = names.lastIndexOf(column.field);
    this.texts = TEXT_FIELDS.map(([name, field], into) => ({
      into,
      index: names.lastIndexOf(field),
      isKept: SHOWN.has(name) || this.unmatchable.has(field),
      isDistinct: DISTINCT.has(name),
      last: 0,
    })).filter(({ index }) => index >= 0);
  }

  private readRow(row: CsvRow): void {
    const { at } = this;
    const type = this.types(row, at.type.index);
    if (type < 0) this.fail(row, at.type, `"${this.cell(row, at.type)}" is not a record type.`);
    const kind = this.kinds(row, at.kind.index);
    const created = this.timeOf(row, at.created);
    const amount = this.whole(row, at.amount, -1);
    const currency = this.currencyOf(row);
    if (amount !== -1 && currency === 0) this.fail(row, at.currency, "An amount without a currency.");
    const transaction = this.whole(row, at.transaction, Number.NaN);
    if (Number.isNaN(transaction)) this.fail(row, at.transaction, "The transaction_id is empty.");
    const record = this.table.add();
    const { columns } = this.table;
    columns.type[record] = type;
    columns.kind[record] = Math.max(0, kind);
    columns.currency[record] = currency;
    columns.row[record] = row.row;
    columns.transaction[record] = transaction;
    columns.tokens[record] = this.whole(row, at.tokens, 0);
    columns.remaining[record] = this.whole(row, at.remaining, -1);
    columns.amount[record] = amount;
    columns.created[record] = created;
    this.readOptional(row, record);
    this.readTexts(row, record);
    const mode = modeOf(row, at.livemode.index) || modeOfSession(this.interner, columns.session[record]);
    if (mode !== 0) columns.test[record] = mode;
  }

  /** Columns where 0 stands for none. A new row is zero, so an empty cell is not written. */
  private readOptional(row: CsvRow, record: number): void {
    const { at } = this;
    const { columns } = this.table;
    if (at.lot.index >= 0) columns.lot[record] = this.whole(row, at.lot, 0);
    if (at.debt.index >= 0) columns.debt[record] = this.whole(row, at.debt, 0);
    if (at.booked.index >= 0) columns.booked[record] = Math.max(-1, this.whole(row, at.booked, -1)) + 1;
    if (at.deferred.index >= 0) columns.deferred[record] = Math.max(-1, this.whole(row, at.deferred, -1)) + 1;
    if (at.paid.index >= 0) columns.paid[record] = Math.max(0, this.whole(row, at.paid, 0));
    const { index } = at.charged;
    if (index >= 0 && row.starts[index] < row.ends[index])
      columns.charged[record] = this.timeOf(row, at.charged);
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
    throw new BadInput({
      code: "bad_ledger_record",
      file: this.file,
      row: row.row,
      column: column.field,
      message,
    });
  }

  private cell(row: CsvRow, { index }: Column): string {
    return index < 0 ? "" : decodeUtf8(row.bytes, row.starts[index], row.ends[index]).slice(0, 40);
  }

  /** A whole number; `empty` where the cell is. */
  private whole(row: CsvRow, column: Column, empty: number): number {
    const { index } = column;
    if (index < 0) return empty;
    const { bytes } = row;
    const start = row.starts[index];
    const end = row.ends[index];
    if (start === end) return empty;
    const isNegative = bytes[start] === 0x2d;
    let at = isNegative ? start + 1 : start;
    const first = at;
    let value = 0;
    for (; at < end; at++) {
      const digit = bytes[at] - 0x30;
      if (digit < 0 || digit > 9) break;
      value = value * 10 + digit;
    }
    if (at < end || at === first || end - first > 16 || value > Number.MAX_SAFE_INTEGER)
      this.fail(row, column, `"${this.cell(row, column)}" is not a whole number.`);
    return isNegative && value !== 0 ? -value : value;
  }

  private timeOf(row: CsvRow, column: Column): number {
    const time = readTime(row, row.starts[column.index], row.ends[column.index], undefined);
    if (Number.isNaN(time)) this.fail(row, column, `"${this.cell(row, column)}" is not a time.`);
    return time;
  }

  private currencyOf(row: CsvRow): number {
    const { currency } = this.at;
    if (currency.index < 0) return 0;
    const found = this.currencies.read(row, row.starts[currency.index], row.ends[currency.index]);
    if (found < 0) this.fail(row, currency, `"${this.cell(row, currency)}" is not a currency code.`);
    return found;
  }
}

/** Reads a cell that holds one of few words: its index among them, −1 for any other. */
type Words = (row: CsvRow, column: number) => number;

function createWords(interner: Interner, words: readonly string[]): Words {
  const known = new Map<number, number>();
  /** The last word and its index: mostly the next record has the same. */
  let last = 0;
  let place = words.indexOf("");
  return (row, column) => {
    const start = column < 0 ? 0 : row.starts[column];
    const end = column < 0 ? 0 : row.ends[column];
    if (last !== 0 && interner.is(last, row, start, end - start)) return place;
    last = interner.intern(row, start, end);
    place = known.get(last) ?? words.indexOf(interner.text(last));
    known.set(last, place);
    return place;
  };
}

/** 1 for false, 2 for true, 0 for an empty cell. */
function modeOf({ bytes, starts, ends }: CsvRow, column: number): number {
  if (column < 0 || starts[column] === ends[column]) return 0;
  // Nearly every cell says true.
  if ((bytes[starts[column]] | 0x20) === 0x74) return 2;
  const isLive = yesOrNo(decodeUtf8(bytes, starts[column], ends[column]));
  return isLive === null ? 0 : isLive ? 2 : 1;
}
