/** Reading the cells of one row of an export: ids, words, money, times, each refused by its row and column. */
import { amountProblem, type Currencies, readAmount, readTime } from "./cells.ts";
import { createKeyQueue, type QueuedColumn } from "./columns.ts";
import type { CsvRow } from "./csv-scanner.ts";
import type { Interner } from "./interner.ts";
import { BadInput } from "./problem.ts";
import type { StripeTable } from "./stripe-table.ts";
import { decodeUtf8 } from "./text.ts";
import type { InputProblem, ReconcileOptions } from "./types.ts";

/** Columns of the table that are looked up many at a time, as the queue numbers them. */
export const OBJECT: QueuedColumn = 0;
export const INTENT: QueuedColumn = 1;
export const SESSION: QueuedColumn = 2;
export const TRANSACTION: QueuedColumn = 3;

export type RowCells = ReturnType<typeof createRowCells>;

const SPACE = 0x20;

export function createRowCells(
  file: string,
  columnName: (column: number) => string | null,
  table: StripeTable,
  interner: Interner,
  currencies: Currencies,
  options: ReconcileOptions,
  warn: (problem: InputProblem) => void,
) {
  const queue = createKeyQueue(interner, table, ["object", "intent", "session", "transaction"]);
  const warned = new Map<string, number>();
  /** By column: further columns of the same meaning, asked where it is empty. */
  let others: readonly (readonly number[] | undefined)[] = [];

  function fail(row: CsvRow, column: number, code: string, message: string): never {
    throw new BadInput({ code, file, row: row.row, column: columnName(column), message });
  }
  /** A warning that repeats is given once, with its first row. */
  function warnOnce(code: string, row: CsvRow, column: number, message: string): void {
    const times = warned.get(code) ?? 0;
    warned.set(code, times + 1);
    if (times === 0) warn({ code, file, row: row.row, column: columnName(column), message });
  }
  /** Where the text of a cell begins and ends, without the spaces around it. */
  function startOf(row: CsvRow, column: number): number {
    let start = row.starts[column];
    while (start < row.ends[column] && row.bytes[start] <= SPACE) start++;
    return start;
  }
  function endOf(row: CsvRow, column: number, start: number): number {
    let end = row.ends[column];
    while (end > start && row.bytes[end - 1] <= SPACE) end--;
    return end;
  }

  function id(row: CsvRow, column: number): number {
    if (column < 0) return 0;
    const start = startOf(row, column);
    const end = endOf(row, column, start);
    if (start !== end) return interner.intern(row, start, end);
    for (const other of others[column] ?? []) {
      const found = id(row, other);
      if (found !== 0) return found;
    }
    return 0;
  }
  /** The number of a text that is only shown, or compared by its text: kept, not looked up. */
  function shown(row: CsvRow, column: number): number {
    if (column < 0) return 0;
    const start = startOf(row, column);
    const kept = interner.keep(row, start, endOf(row, column, start));
    return kept === 0 && others[column] !== undefined ? id(row, column) : kept;
  }
  /** As id, for ids of which nearly every row has its own: looked up many at a time. */
  function ownId(row: CsvRow, column: number, event: number, into: QueuedColumn): number {
    if (column < 0) return 0;
    const start = startOf(row, column);
    return queue.push(into, event, row, start, endOf(row, column, start));
  }
  function isEmpty(row: CsvRow, column: number): boolean {
    return column < 0 || startOf(row, column) === row.ends[column];
  }
  /** Whether a cell begins so. */
  function begins(row: CsvRow, column: number, prefix: string): boolean {
    if (column < 0) return false;
    const start = row.starts[column];
    if (row.ends[column] - start < prefix.length) return false;
    for (let i = 0; i < prefix.length; i++) if (row.bytes[start + i] !== prefix.charCodeAt(i)) return false;
    return true;
  }
  let lastWord = 0;
  /** As id, for a column of few words: mostly the same as in the row before. */
  function word(row: CsvRow, column: number): number {
    const start = row.starts[column];
    if (lastWord !== 0 && interner.is(lastWord, row, start, row.ends[column] - start)) return lastWord;
    return (lastWord = id(row, column));
  }
  function text(row: CsvRow, column: number): string {
    return column < 0 ? "" : decodeUtf8(row.bytes, row.starts[column], row.ends[column]).trim();
  }
  const values = createValueCells(currencies, options, text, fail);

  return {
    fail,
    warnOnce,
    id,
    shown,
    ownId,
    isEmpty,
    begins,
    word,
    text,
    ...values,
    setOthers(found: typeof others): void {
      others = found;
    },
    /** Once the file is read: looks up what waits, and tells how often each warning came. */
    finish(): void {
      queue.flush();
      for (const [code, times] of warned)
        if (times > 1)
          warn({
            code: `${code}_repeated`,
            file,
            row: null,
            column: null,
            message: `… and ${times - 1} more such rows.`,
          });
    },
  };
}

/** Amounts, currencies and times. */
function createValueCells(
  currencies: Currencies,
  { decimal, date_order: dateOrder }: ReconcileOptions,
  text: (row: CsvRow, column: number) => string,
  fail: (row: CsvRow, column: number, code: string, message: string) => never,
) {
  let first = Number.POSITIVE_INFINITY;
  let last = Number.NEGATIVE_INFINITY;

  function money(row: CsvRow, column: number, currency: number): number {
    if (column < 0) return 0;
    const start = row.starts[column];
    const end = row.ends[column];
    const code = currencies.code(currency) || "usd";
    const value = readAmount(row.bytes, start, end, code, currencies.exponent(currency), decimal);
    if (value !== value) fail(row, column, "bad_amount", amountProblem(row.bytes, start, end, code, decimal));
    return value;
  }
  function currency(row: CsvRow, column: number, required: boolean): number {
    if (column < 0) return 0;
    const found = currencies.read(row.bytes, row.starts[column], row.ends[column]);
    if (found < 0 || (found === 0 && required))
      fail(
        row,
        column,
        "bad_currency",
        `"${text(row, column).slice(0, 20)}" is not a currency code such as usd: use the file as it was downloaded.`,
      );
    return found;
  }
  function timeAt(row: CsvRow, column: number): number {
    const start = row.starts[column];
    const end = row.ends[column];
    const seconds = readTime(row.bytes, start, end, dateOrder);
    if (seconds !== seconds)
      fail(
        row,
        column,
        "bad_time",
        start === end
          ? "The time is empty: use the file as it was downloaded."
          : `"${text(row, column).slice(0, 40)}" cannot be read as one time: expected YYYY-MM-DD HH:MM. If a spreadsheet changed it, say whether day or month comes first, or use the file as it was downloaded.`,
      );
    return seconds;
  }
  /** When the row came about; widens the file's window. NaN where the export has no such column. */
  function created(row: CsvRow, column: number): number {
    if (column < 0) return Number.NaN;
    const seconds = timeAt(row, column);
    if (seconds < first) first = seconds;
    if (seconds > last) last = seconds;
    return seconds;
  }
  /** A time that may be missing: 0 then. */
  function optionalTime(row: CsvRow, column: number): number {
    return text(row, column) === "" ? 0 : timeAt(row, column);
  }

  return { money, currency, created, optionalTime, window: () => ({ first, last }) };
}
