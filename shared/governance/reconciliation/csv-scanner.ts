import { below, findByte, firstOf, repeat } from "./four-bytes.ts";
import { BadInput } from "./problem.ts";
import { decodeUtf8, utf16Reader } from "./text.ts";

const QUOTE = 0x22;
const LF = 0x0a;
const CR = 0x0d;
const MAX_ROW_BYTES = 4 << 20;
export const MAX_COLUMNS = 1024;
/** Beyond what was read: the end's own line feed, and the rest of four bytes that are looked at together. */
const SLACK_BYTES = 4;
/** A file is encoded twice from its beginning or not at all. */
const LOOK_FOR_TWICE_ENCODED_BYTES = 8 << 20;

/** The row just read: bytes and, per column, where its value begins and ends. Valid only during the callback. */
export interface CsvRow {
  bytes: Uint8Array;
  /** The same memory as `bytes`. */
  view: DataView;
  readonly starts: Int32Array;
  readonly ends: Int32Array;
  columns: number;
  /** As a spreadsheet counts: the header is row 1. A row with line breaks in a cell counts once. */
  row: number;
}

interface CsvHandler {
  /** The header's cells. Called once, before any row. */
  onHeader(cells: string[], delimiter: "," | ";" | "tab"): void;
  onRow(row: CsvRow): void;
  onWarning(code: string, row: number, column: number, message: string): void;
}

/**
 * Reads CSV from chunks of bytes without making a string or an object per cell: quotes, doubled quotes, line breaks in
 * cells, LF, CRLF and CR, a byte order mark, and `,` `;` or tab found from the header. Throws BadInput with row and column
 * for what is not a whole CSV file: empty, binary, another format, cut off, rows of another width, encoded twice.
 */
export class CsvScanner {
  private buffer = new Uint8Array(1 << 16);
  private length = 0;
  private delimiter = 0;
  private headerCells: string[] = [];
  /** With the nameless columns that a spreadsheet left at its end. */
  private headerWidth = 0;
  /** The first byte of the header's first cell, in lower case. */
  private headerStart = 0;
  private rowNumber = 0;
  /** Of a file in UTF-16. */
  private wide: ((chunk: Uint8Array) => Uint8Array) | null = null;
  private sawFirstBytes = false;
  private suspectFrom = -1;
  private warnedTwice = false;
  private lookedAt = 0;
  /** Whether the row being read has doubled quotes. */
  private doubled = false;
  /** Lines end with CR alone, as old spreadsheets on a Mac write them. */
  private endsWithCr = false;
  private readonly file: string;
  private readonly handler: CsvHandler;
  private readonly row: CsvRow;

  constructor(file: string, handler: CsvHandler) {
    this.file = file;
    this.handler = handler;
    this.row = {
      bytes: this.buffer,
      view: new DataView(this.buffer.buffer),
      starts: new Int32Array(MAX_COLUMNS),
      ends: new Int32Array(MAX_COLUMNS),
      columns: 0,
      row: 0,
    };
  }

  get rows(): number {
    return Math.max(0, this.rowNumber - 1);
  }

  push(chunk: Uint8Array): void {
    this.add(this.wide ? this.wide(chunk) : chunk);
  }

  private add(chunk: Uint8Array): void {
    const needed = this.length + chunk.length + SLACK_BYTES;
    if (needed > this.buffer.length) {
      const larger = new Uint8Array(Math.max(this.buffer.length * 2, needed));
      larger.set(this.buffer.subarray(0, this.length));
      this.buffer = larger;
      this.row.bytes = larger;
      this.row.view = new DataView(larger.buffer);
    }
    this.buffer.set(chunk, this.length);
    const before = this.length;
    this.length += chunk.length;
    if (this.endsWithCr) this.replaceCr(before);
    if (!this.sawFirstBytes) {
      if (this.length < 8) return;
      this.lookAtFirstBytes();
    }
    this.consume(false);
  }

  finish(): void {
    if (!this.sawFirstBytes) this.lookAtFirstBytes();
    this.consume(true);
    if (this.delimiter === 0)
      this.fail("empty", null, null, "The file is empty: export it from Stripe again.");
  }

  /** The header's name of a column, for messages. */
  columnName(column: number): string | null {
    return this.headerCells[column] ?? null;
  }

  private fail(code: string, row: number | null, column: number | null, message: string): never {
    throw new BadInput({
      code,
      file: this.file,
      row,
      column: column === null ? null : (this.columnName(column) ?? `column ${column + 1}`),
      message,
    });
  }

  private lookAtFirstBytes(): void {
    this.sawFirstBytes = true;
    const b = this.buffer;
    const starts = (...bytes: number[]): boolean =>
      this.length >= bytes.length && bytes.every((byte, i) => b[i] === byte);
    const other: [boolean, string][] = [
      [starts(0x50, 0x4b, 3, 4), "a ZIP or XLSX file; save the sheet as CSV (UTF-8), or unpack the ZIP"],
      [starts(0x1f, 0x8b), "a gzip file; unpack it first"],
      [starts(0x25, 0x50, 0x44, 0x46), "a PDF; export the CSV instead"],
      [starts(0xd0, 0xcf, 0x11, 0xe0), "an old Excel file; save the sheet as CSV (UTF-8)"],
    ];
    const found = other.find(([is]) => is);
    if (found) this.fail("not_csv", null, null, `This is not a CSV file but ${found[1]}.`);
    if (starts(0xc3, 0xaf, 0xc2, 0xbb, 0xc2, 0xbf))
      this.fail(
        "encoded_twice",
        1,
        0,
        "The file was encoded as UTF-8 twice (its first bytes are a garbled byte order mark): use the file as it was downloaded.",
      );
    // UTF-16, as Excel's "Unicode text" is: with its mark, or recognised by every other byte.
    const isLittle = starts(0xff, 0xfe) || (b[0] > 0 && b[1] === 0 && b[2] > 0 && b[3] === 0);
    if (isLittle || starts(0xfe, 0xff) || (b[0] === 0 && b[1] > 0 && b[2] === 0 && b[3] > 0)) {
      this.wide = utf16Reader(isLittle);
      const begun = b.slice(b[0] > 0xfd ? 2 : 0, this.length);
      this.length = 0;
      return this.push(begun);
    }
    if (starts(0xef, 0xbb, 0xbf)) {
      b.copyWithin(0, 3, this.length);
      this.length -= 3;
    }
    const first = decodeUtf8(b, 0, Math.min(this.length, 64)).trimStart();
    if (/^(<!doctype|<html|<\?xml|\{|\[)/i.test(first))
      this.fail("not_csv", 1, null, "This is a web page or JSON, not a CSV file: download the CSV export.");
  }

  /** Scans whole rows; what is left of an unfinished one moves to the front of the buffer. */
  private consume(final: boolean): void {
    const buffer = this.buffer;
    if (this.delimiter === 0) {
      if (this.length === 0) return;
      if (!this.findDelimiter(final)) return;
    }
    const end = this.length;
    buffer[end] = LF; // a sentinel, so that the inner loop needs no bound
    if (this.lookedAt < LOOK_FOR_TWICE_ENCODED_BYTES && !this.warnedTwice && this.suspectFrom < 0) {
      this.lookedAt += end;
      this.suspectFrom = this.findTwiceEncoded(end);
    }

    const rowStart = this.scanRows(end, final);
    if (rowStart >= end || final) {
      this.length = 0;
      return;
    }
    if (end - rowStart > MAX_ROW_BYTES)
      this.fail(
        "row_too_long",
        this.rowNumber + 1,
        null,
        "A row is longer than 4 MB: a quote is never closed, or this is not a CSV file.",
      );
    buffer.copyWithin(0, rowStart, end);
    this.length = end - rowStart;
    if (this.suspectFrom >= 0) this.suspectFrom -= rowStart;
  }

  /** Hands over each complete row before `end`; returns where the first incomplete one begins. */
  private scanRows(end: number, final: boolean): number {
    const { row, delimiter } = this;
    const { bytes: buffer, view, starts, ends } = row;
    const ceilings = repeat(Math.max(delimiter, CR) + 1);
    let position = 0;
    while (position < end) {
      const rowStart = position;
      let column = 0;
      let at = position;
      for (;;) {
        if (column >= MAX_COLUMNS) this.failTooWide();
        if (buffer[at] === QUOTE) {
          at = this.endOfQuoted(column, at, end, final);
          if (at < 0) return rowStart;
        } else {
          for (;;) {
            const found = below(view.getInt32(at, true), ceilings);
            if (found === 0) {
              at += 4;
              continue;
            }
            at += firstOf(found);
            const byte = buffer[at];
            if (byte === delimiter || byte === LF) break;
            if (byte === CR) {
              if (at + 1 >= end && !final) return rowStart;
              if (buffer[at + 1] !== LF && buffer[at + 1] !== CR) break;
            } else if (byte === 0) this.failBinary(column);
            at++;
          }
          starts[column] = position;
          ends[column] = at > position && buffer[at] === LF && buffer[at - 1] === CR ? at - 1 : at;
        }
        column++;
        if (buffer[at] !== delimiter || at >= end) break;
        position = ++at;
      }
      if (at >= end && !final) return rowStart;
      position = at + 1;
      row.columns = column;
      if (this.doubled) this.closeUpQuotes();
      this.emit(rowStart, Math.min(position, end), final && position > end);
    }
    return end;
  }

  /** Notes where a quoted cell's text is; returns the place of the byte that ends the cell, −1 where it has not come yet. */
  private endOfQuoted(column: number, quote: number, end: number, final: boolean): number {
    const { buffer, delimiter } = this;
    const { view, starts, ends } = this.row;
    let at = quote + 1;
    starts[column] = at;
    for (;;) {
      at = findByte(view, QUOTE, at, end);
      if (at + 1 >= end && !final) return -1;
      if (at >= end)
        this.fail(
          "cut_off",
          this.rowNumber + 1,
          column,
          "The file ends inside a quoted cell: it was cut off. Download it again.",
        );
      if (at + 1 >= end || buffer[at + 1] !== QUOTE) break;
      this.doubled = true;
      at += 2;
    }
    ends[column] = at;
    at++;
    // A CR alone ends a line too: files of several programs were put together.
    if (buffer[at] === CR) {
      if (at + 1 === end && !final) return -1;
      if (buffer[at + 1] !== LF) return at;
      at++;
    }
    if (buffer[at] !== delimiter && buffer[at] !== LF)
      this.fail(
        "stray_quote",
        this.rowNumber + 1,
        column,
        "A quoted cell is followed by more text before the next separator: the file was damaged. Download it again.",
      );
    return at;
  }

  private failBinary(column: number): never {
    this.fail("binary", this.rowNumber + 1, column, "The file holds binary data, not text.");
  }
  private failTooWide(): never {
    this.fail("too_many_columns", this.rowNumber + 1, null, `More than ${MAX_COLUMNS} columns in a row.`);
  }

  /** Closes up doubled quotes in place: the bytes are ours. A cell after a quote was a quoted one. */
  private closeUpQuotes(): void {
    const { bytes, starts, ends, columns } = this.row;
    this.doubled = false;
    for (let column = 0; column < columns; column++) {
      const start = starts[column];
      const end = ends[column];
      if (start === 0 || bytes[start - 1] !== QUOTE) continue;
      let write = start;
      for (let at = start; at < end; at++) {
        const byte = bytes[at];
        bytes[write++] = byte;
        if (byte === QUOTE) at++;
      }
      ends[column] = write;
    }
  }

  private emit(rowStart: number, rowEnd: number, unterminated: boolean): void {
    const { row } = this;
    if (row.columns === 1 && this.isBlankFrom(0, 1)) return; // an empty line
    this.rowNumber++;
    row.row = this.rowNumber;
    if (this.rowNumber === 1) {
      this.readHeader();
      return;
    }
    if (this.beginsAsHeader() && this.isHeaderAgain()) return;
    if (row.columns !== this.headerCells.length) {
      const blankTail =
        row.columns > this.headerCells.length &&
        row.columns <= this.headerWidth &&
        this.isBlankFrom(this.headerCells.length, row.columns);
      if (!blankTail)
        this.fail(
          unterminated ? "cut_off" : "ragged_row",
          this.rowNumber,
          Math.min(row.columns, this.headerCells.length) - 1,
          unterminated
            ? `The last row has ${row.columns} of ${this.headerCells.length} columns: the file was cut off. Download it again.`
            : `This row has ${row.columns} columns, the header has ${this.headerCells.length}: a separator inside a cell is not quoted, or the row was cut. Use the file as it was downloaded.`,
        );
      row.columns = this.headerCells.length;
    }
    if (unterminated)
      this.handler.onWarning(
        "no_final_newline",
        this.rowNumber,
        row.columns - 1,
        "The file does not end with a line break, as Stripe's do: check that its last row is whole.",
      );
    if (this.suspectFrom >= 0 && this.suspectFrom < rowEnd) {
      const suspect = this.suspectFrom;
      this.suspectFrom = -1;
      if (suspect >= rowStart) {
        this.warnedTwice = true;
        let column = 0;
        while (column + 1 < row.columns && row.ends[column] < suspect) column++;
        this.handler.onWarning(
          "encoded_twice",
          this.rowNumber,
          column,
          "Text in this cell was encoded as UTF-8 twice (é became Ã©). Ids and amounts are not touched by it, texts are.",
        );
      }
    }
    this.handler.onRow(row);
  }

  private isBlankFrom(from: number, to: number): boolean {
    const { bytes, starts, ends } = this.row;
    for (let i = from; i < to; i++)
      for (let at = starts[i]; at < ends[i]; at++) if (bytes[at] > 0x20) return false;
    return true;
  }

  /** A quick look, asked of every row. */
  private beginsAsHeader(): boolean {
    const { bytes, starts } = this.row;
    const first = bytes[starts[0]] | 0x20;
    return first === this.headerStart || first === 0xef || first === QUOTE;
  }

  /** Whether the row is the header once more: exports that were put together into one file. Another header is refused. */
  private isHeaderAgain(): boolean {
    const { row, headerCells } = this;
    const cell = (i: number): string =>
      decodeUtf8(row.bytes, row.starts[i], row.ends[i])
        .replace(/^\ufeff?"?|"$/g, "")
        .trim()
        .toLowerCase();
    if (cell(0) !== headerCells[0]?.toLowerCase()) return false;
    let isSame = row.columns >= headerCells.length && this.isBlankFrom(headerCells.length, row.columns);
    for (let i = 1; i < headerCells.length && isSame; i++) isSame = cell(i) === headerCells[i]?.toLowerCase();
    if (!isSame)
      this.fail(
        "another_header",
        this.rowNumber,
        null,
        "Here begins another export with other columns: bring each file by itself, as it was downloaded.",
      );
    this.handler.onWarning(
      "repeated_header",
      this.rowNumber,
      0,
      "The header is there again: several exports were put together. Rows that are in more than one of them count once.",
    );
    return true;
  }

  private readHeader(): void {
    const { row } = this;
    const cells: string[] = [];
    for (let i = 0; i < row.columns; i++)
      cells.push(decodeUtf8(row.bytes, row.starts[i], row.ends[i]).trim());
    this.headerWidth = cells.length;
    while (cells.length > 1 && cells[cells.length - 1] === "") cells.pop();
    if (cells.length === 1 && /[,;\t]/.test(cells[0] ?? ""))
      this.fail(
        "encoded_twice",
        1,
        0,
        "Each row is one quoted cell: the CSV was saved as CSV a second time. Use the file as it was downloaded.",
      );
    if (cells.some((cell) => cell.includes("\ufffd")))
      this.fail("not_utf8", 1, null, "The header is not UTF-8 text: save the file again as CSV UTF-8.");
    this.headerCells = cells;
    this.headerStart = (cells[0]?.charCodeAt(0) ?? 0) | 0x20;
    this.handler.onHeader(cells, this.delimiter === 0x2c ? "," : this.delimiter === 0x3b ? ";" : "tab");
  }

  /** Most frequent candidate outside quotes in the first line; an Excel `sep=` line is obeyed and dropped. */
  private findDelimiter(final: boolean): boolean {
    const { buffer, length } = this;
    const hint = /^sep=([,;\t])(?:\r\n|\n|\r)/.exec(decodeUtf8(buffer, 0, Math.min(length, 8)));
    if (hint) {
      buffer.copyWithin(0, hint[0].length, length);
      this.length -= hint[0].length;
      this.delimiter = hint[1]?.charCodeAt(0) ?? 0x2c;
      this.endsWithCr = hint[0].endsWith("\r");
      if (this.endsWithCr) this.replaceCr(0);
      return this.length > 0 || final;
    }
    let commas = 0;
    let semicolons = 0;
    let tabs = 0;
    let quoted = false;
    let ended = final;
    let start = 0;
    while (start < length && (buffer[start] === LF || buffer[start] === CR)) start++;
    for (let i = start; i < length; i++) {
      const byte = buffer[i];
      if (byte === 0) this.fail("binary", 1, null, "The file holds binary data, not text.");
      if (byte === QUOTE) quoted = !quoted;
      else if (quoted) continue;
      else if (byte === 0x2c) commas++;
      else if (byte === 0x3b) semicolons++;
      else if (byte === 0x09) tabs++;
      else if (byte === LF) {
        ended = true;
        break;
      } else if (byte === CR && (i + 1 < length ? buffer[i + 1] !== LF : final)) {
        this.endsWithCr = true;
        this.replaceCr(0);
        ended = true;
        break;
      }
    }
    if (start >= length) {
      if (final) this.length = 0;
      return false;
    }
    if (!ended) {
      if (length > 1 << 18)
        this.fail("not_csv", 1, null, "No end of line in the first 256 kB: this is not a CSV file.");
      return false;
    }
    this.delimiter = tabs > commas && tabs > semicolons ? 0x09 : semicolons > commas ? 0x3b : 0x2c;
    return true;
  }

  /** Makes a line feed of each CR from there on. */
  private replaceCr(from: number): void {
    const { buffer, length } = this;
    for (let at = buffer.indexOf(CR, from); at >= 0 && at < length; at = buffer.indexOf(CR, at + 1))
      buffer[at] = LF;
  }

  /** First place where UTF-8 looks encoded twice: Ã or Â (as UTF-8) followed by a C1 or Latin-1 character (as UTF-8). */
  private findTwiceEncoded(end: number): number {
    const { buffer } = this;
    let at = buffer.indexOf(0xc3);
    while (at >= 0 && at + 3 < end) {
      const second = buffer[at + 1];
      if ((second === 0x83 || second === 0x82) && buffer[at + 2] === 0xc2 && buffer[at + 3] >= 0x80)
        return at;
      at = buffer.indexOf(0xc3, at + 1);
    }
    return -1;
  }
}
