/** Reading the cells of one row of an export: ids, words, money, times, each refused by its row and column. */
import { type Currencies, readAmount, readPlainAmount, readTime } from "./cells.ts";
import { createKeyQueue, type QueuedColumn } from "./columns.ts";
import { type CsvRow, MAX_COLUMNS } from "./csv-scanner.ts";
import type { Interner } from "./interner.ts";
import { BadInput } from "./problem.ts";
import type { StripeTable } from "./stripe-table.ts";
import { decodeUtf8, encodeUtf8 } from "./text.ts";
import type { InputProblem, ReconcileOptions } from "./types.ts";

/** Columns of the table that are looked up many at a time, as the queue numbers them. */
export const OBJECT: QueuedColumn = 0;
export const INTENT: QueuedColumn = 1;
export const SESSION: QueuedColumn = 2;
export const TRANSACTION: QueuedColumn = 3;

export type RowCells = ReturnType<typeof createRowCells>;

const SPACE = 0x20;
const DOT = 0x2e;
const COMMA = 0x2c;
/** A long number as a spreadsheet shows it. */
const SHORTENED = /^\d(?:[.,]\d+)?E\+\d\d+$/i;
/** By byte: 1 for what an id begins and ends with, a letter or a digit. */
const PLAIN = Uint8Array.from({ length: 256 }, (_, byte) =>
  /[A-Za-z0-9]/.test(String.fromCharCode(byte)) ? 1 : 0,
);
const isDigit = (byte: number): boolean => byte >= 0x30 && byte <= 0x39;

/** Moves a cell's ends past the spaces around its text. */
function trim({ bytes, starts, ends }: CsvRow, column: number): void {
  let start = starts[column];
  let end = ends[column];
  if (start === end || (bytes[start] > SPACE && bytes[end - 1] > SPACE)) return;
  while (start < end && bytes[start] <= SPACE) start++;
  while (end > start && bytes[end - 1] <= SPACE) end--;
  starts[column] = start;
  ends[column] = end;
}

/** Moves a cell's ends past what spreadsheets and web pages put around an id: '…, ="…", invisible marks. */
function closeUp(row: CsvRow, column: number): void {
  const { bytes, starts, ends } = row;
  const start = starts[column];
  const end = ends[column];
  if (start === end || (PLAIN[bytes[start]] & PLAIN[bytes[end - 1]]) === 1) return;
  closeUpText(row, column);
}
function closeUpText(row: CsvRow, column: number): void {
  trim(row, column);
  const { bytes, starts, ends } = row;
  const text = decodeUtf8(bytes, starts[column], ends[column]);
  const before = /^(?:[^\p{L}\p{N}]*)/u.exec(text)?.[0] ?? "";
  const after = /[^\p{L}\p{N}]*$/u.exec(text)?.[0] ?? "";
  if (
    before.length === text.length ||
    !/^(?:\p{Cf}|\p{Zs}|'|="|")*$/u.test(before) ||
    !/^(?:\p{Cf}|\p{Zs}|")*$/u.test(after)
  )
    return;
  starts[column] += encodeUtf8(before).length;
  ends[column] -= encodeUtf8(after).length;
}

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
  const { fail, warnOnce, repeatWarnings } = createProblems(file, columnName, warn);
  /** By column: further columns of the same meaning, asked where it is empty. */
  let others: readonly (readonly number[] | undefined)[] = [];

  /** Whether a spreadsheet took an id for a number and lost its digits ("1.23E+15"). */
  function isShortened(row: CsvRow, column: number): boolean {
    const { bytes } = row;
    const start = row.starts[column];
    const end = row.ends[column];
    if (end - start < 5 || end - start > 24 || !isDigit(bytes[start])) return false;
    const second = bytes[start + 1];
    if (second !== DOT && second !== COMMA && (second | 0x20) !== 0x65) return false;
    const text = decodeUtf8(bytes, start, end);
    if (!SHORTENED.test(text)) return false;
    warnOnce(
      "shortened_id",
      row,
      column,
      `"${text}" was shortened by a spreadsheet and its digits are lost: such ids are left out. Use the file as it was downloaded.`,
    );
    return true;
  }
  /** By column: the id of the row before. */
  const last = new Uint32Array(MAX_COLUMNS);
  function id(row: CsvRow, column: number): number {
    if (column < 0) return 0;
    closeUp(row, column);
    const start = row.starts[column];
    const end = row.ends[column];
    if (start === end || isShortened(row, column)) return otherId(row, column);
    const before = last[column];
    if (before !== 0 && interner.is(before, row, start, end - start)) return before;
    return (last[column] = interner.intern(row, start, end));
  }
  function otherId(row: CsvRow, column: number): number {
    const list = others[column];
    if (list !== undefined)
      for (const other of list) {
        const found = id(row, other);
        if (found !== 0) return found;
      }
    return 0;
  }
  /** The number of a text that is only shown, or compared by its text: kept, not looked up. */
  function shown(row: CsvRow, column: number): number {
    if (column < 0) return 0;
    trim(row, column);
    return interner.keep(row, row.starts[column], row.ends[column]) || otherId(row, column);
  }
  /** As id, for ids of which nearly every row has its own: looked up many at a time. */
  function ownId(row: CsvRow, column: number, event: number, into: QueuedColumn): number {
    if (column < 0) return 0;
    closeUp(row, column);
    if (isShortened(row, column)) return 0;
    return queue.push(into, event, row, row.starts[column], row.ends[column]);
  }
  function isEmpty(row: CsvRow, column: number): boolean {
    if (column < 0) return true;
    const start = row.starts[column];
    if (row.bytes[start] > SPACE && start < row.ends[column]) return false;
    trim(row, column);
    return row.starts[column] === row.ends[column];
  }
  /** Whether a cell begins so. */
  function begins(row: CsvRow, column: number, prefix: string): boolean {
    if (column < 0) return false;
    const start = row.starts[column];
    if (row.ends[column] - start < prefix.length) return false;
    for (let i = 0; i < prefix.length; i++) if (row.bytes[start + i] !== prefix.charCodeAt(i)) return false;
    return true;
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
    text,
    ...values,
    setOthers(found: typeof others): void {
      others = found;
    },
    /** Once the file is read: looks up what waits, and reports how often each warning came. */
    finish(): void {
      queue.flush();
      repeatWarnings();
    },
  };
}

/** What is wrong with a file, by row and column. */
function createProblems(
  file: string,
  columnName: (column: number) => string | null,
  warn: (problem: InputProblem) => void,
) {
  const warned = new Map<string, number>();
  function fail(row: CsvRow, column: number, code: string, message: string): never {
    throw new BadInput({ code, file, row: row.row, column: columnName(column), message });
  }
  /** A warning that repeats is given once, with its first row. */
  function warnOnce(code: string, row: CsvRow, column: number, message: string): void {
    const times = warned.get(code) ?? 0;
    warned.set(code, times + 1);
    if (times === 0) warn({ code, file, row: row.row, column: columnName(column), message });
  }
  function repeatWarnings(): void {
    for (const [code, times] of warned)
      if (times > 1)
        warn({
          code: `${code}_repeated`,
          file,
          row: null,
          column: null,
          message: `… and ${times - 1} more such rows.`,
        });
  }
  return { fail, warnOnce, repeatWarnings };
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
    if (start === end) return 0;
    const exponent = currencies.exponent(currency);
    const plain = decimal === "," ? Number.NaN : readPlainAmount(row.bytes, start, end, exponent);
    return Number.isNaN(plain) ? anyMoney(row, column, currency) : plain;
  }
  function anyMoney(row: CsvRow, column: number, currency: number): number {
    const code = currencies.code(currency) || "usd";
    const parsed = readAmount(row.bytes, row.starts[column], row.ends[column], code, decimal);
    return parsed.ok ? parsed.value : fail(row, column, "bad_amount", parsed.error.message);
  }
  /** The number of a cell's currency; 0 where the file has no such column. An empty cell is refused. */
  function currency(row: CsvRow, column: number): number {
    const found = optionalCurrency(row, column);
    return found === 0 && column >= 0 ? refuseCurrency(row, column) : found;
  }
  /** The same, 0 for an empty cell too. */
  function optionalCurrency(row: CsvRow, column: number): number {
    if (column < 0) return 0;
    const found = currencies.read(row, row.starts[column], row.ends[column]);
    return found < 0 ? refuseCurrency(row, column) : found;
  }
  function refuseCurrency(row: CsvRow, column: number): never {
    return fail(
      row,
      column,
      "bad_currency",
      `"${text(row, column).slice(0, 20)}" is not a currency code such as usd: use the file as it was downloaded.`,
    );
  }
  function timeAt(row: CsvRow, column: number): number {
    const start = row.starts[column];
    const end = row.ends[column];
    const seconds = readTime(row, start, end, dateOrder);
    if (Number.isNaN(seconds))
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
    const isEmpty = column < 0 || row.starts[column] === row.ends[column];
    return isEmpty || text(row, column) === "" ? 0 : timeAt(row, column);
  }

  return { money, currency, optionalCurrency, created, optionalTime, window: () => ({ first, last }) };
}
