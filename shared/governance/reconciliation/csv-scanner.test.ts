/** Four bytes at a time and in any pieces: what is read must not depend on where a quote, a line end or a chunk lies. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { CsvScanner } from "./csv-scanner.ts";
import { seeded, sized } from "../../../tests/support/size.ts";
import { BadInput } from "./problem.ts";
import { decodeUtf8 } from "./text.ts";

const encode = (text: string): Uint8Array => new TextEncoder().encode(text);

/** All that a scanner says of a file in these pieces: its rows with their numbers, its warnings, and what was wrong. */
function scan(pieces: readonly Uint8Array[]): readonly unknown[] {
  const said: unknown[] = [];
  const scanner = new CsvScanner("x", {
    onHeader: (cells, delimiter) => void said.push({ cells, delimiter }),
    onRow: ({ bytes, starts, ends, columns, row }) =>
      void said.push({
        row,
        cells: Array.from({ length: columns }, (_, i) =>
          decodeUtf8(bytes, starts[i] as number, ends[i] as number),
        ),
      }),
    onWarning: (code, row, column) => void said.push({ code, row, column }),
  });
  try {
    for (const piece of pieces) scanner.push(piece);
    scanner.finish();
  } catch (error) {
    if (!(error instanceof BadInput)) throw error;
    said.push(error.problem);
  }
  return said;
}

/** The file cut in two at each place, and into single bytes. */
function* cuts(bytes: Uint8Array): Generator<readonly Uint8Array[]> {
  for (let at = 1; at < bytes.length; at++) yield [bytes.subarray(0, at), bytes.subarray(at)];
  yield Array.from(bytes, (byte) => Uint8Array.of(byte));
}

/** Bytes just below and above those that end a cell, quotes, and characters of two to four bytes. */
const piece = fc.constantFrom(
  ..."\u0001\u000b\u001f !#+-./09:<=@Zaz{\u007f".split(""),
  '"',
  '""',
  "é",
  "€",
  "💥",
  "Ã",
  "\u0080",
);
const text = fc.array(piece, { maxLength: 9 }).map((parts) => parts.join(""));
const inQuotes = fc
  .array(fc.oneof(piece, fc.constantFrom(",", ";", "\t", "\n", "\r\n", "\r")), { maxLength: 9 })
  .map((parts) => parts.join(""));
const cell = fc.oneof(
  text.filter((plain) => !plain.startsWith('"')).map((plain) => ({ plain, written: plain })),
  inQuotes.map((plain) => ({ plain, written: `"${plain.replaceAll('"', '""')}"` })),
);

describe("the CSV scanner", () => {
  it("reads each cell as it was written (RFC 4180), quoted or not, wherever the file is cut", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 2, max: 5 }).chain((width) =>
          fc.array(
            fc.record({
              cells: fc.array(cell, { minLength: width, maxLength: width }),
              end: fc.constantFrom("\n", "\r\n", "\r"),
            }),
            { minLength: 1, maxLength: 4 },
          ),
        ),
        fc.constantFrom(",", ";", "\t"),
        (drawn, delimiter) => {
          // A cell with another file's separator stays one cell only in quotes.
          const rows = drawn.map(({ cells, end }) => ({
            end,
            cells: cells.map(({ plain, written }) =>
              written.startsWith('"') || !plain.includes(delimiter)
                ? { plain, written }
                : { plain, written: `"${plain.replaceAll('"', '""')}"` },
            ),
          }));
          const header = rows[0]?.cells.map((_, i) => `Column ${i}`) ?? [];
          const file = [
            `${header.join(delimiter)}\n`,
            ...rows.map(({ cells, end }) => cells.map(({ written }) => written).join(delimiter) + end),
          ].join("");
          const expected = rows.map(({ cells }, i) => ({
            row: i + 2,
            cells: cells.map(({ plain }) => plain),
          }));
          for (const pieces of cuts(encode(file))) {
            const [head, ...said] = scan(pieces);
            expect(head).toMatchObject({ cells: header });
            expect(said.filter((one) => (one as { cells?: unknown }).cells !== undefined)).toEqual(expected);
          }
        },
      ),
      { numRuns: sized(40, 2_000), seed: seeded(20261129) },
    );
  });

  it("says the same of any bytes, rows, warnings and what is wrong, wherever the file is cut", () => {
    const noise = fc
      .array(fc.oneof(piece, fc.constantFrom(",", ",", "\n", "\n", "\r\n", "\r", '"', "\u0000", "a,b\n")), {
        maxLength: 40,
      })
      .map((parts) => parts.join(""));
    fc.assert(
      fc.property(
        noise,
        fc.constantFrom("", "\ufeff", "a,b\n", "sep=;\n", "\ufeffa;b\r\n", "a,b\r"),
        (body, head) => {
          const bytes = encode(head + body);
          const whole = scan([bytes]);
          for (const pieces of cuts(bytes)) expect(scan(pieces)).toEqual(whole);
        },
      ),
      { numRuns: sized(100, 5_000), seed: seeded(20261129) },
    );
  });
});
