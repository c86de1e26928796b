import { formatMinor } from "../money/index.ts";
import type { Difference } from "./types.ts";

/** Spreadsheets run a cell that begins with one of these as a formula (OWASP, "CSV Injection"). */
const FORMULA_START = /^[=+\-@\t\r\n\uff0b\uff0d\uff1d\uff20]/;
const PLAIN_NUMBER = /^-?\d+(?:\.\d+)?$/;

/** One CSV cell: quoted where needed, and text that a spreadsheet would take for a formula made harmless with an apostrophe. */
export function csvCell(value: string | number | boolean | null | undefined): string {
  if (value === null || value === undefined) return "";
  let text = String(value).replaceAll("\u0000", "");
  if (FORMULA_START.test(text) && !PLAIN_NUMBER.test(text)) text = `'${text}`;
  return /[",;\t\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** One CSV line with CRLF, as RFC 4180 has it. */
export const csvLine = (cells: readonly (string | number | boolean | null | undefined)[]): string =>
  `${cells.map(csvCell).join(",")}\r\n`;

const COLUMNS: readonly (readonly [string, (d: Difference) => string | number | boolean | null])[] = [
  ["difference_id", (difference) => difference.difference_id],
  ["class", (difference) => difference.class],
  ["blocks", (difference) => difference.blocks],
  ["occurred_at", (difference) => difference.occurred_at],
  ["age_days", (difference) => difference.age_days],
  ["currency", (difference) => difference.currency],
  ["amount_minor", (difference) => difference.amount_minor],
  [
    "amount",
    (difference) =>
      difference.currency === null ? null : formatMinor(difference.amount_minor, difference.currency),
  ],
  ["tokens", (difference) => difference.tokens],
  ["user_id", (difference) => difference.user_id],
  ["stripe_event", (difference) => difference.stripe?.event ?? null],
  ["stripe_object_id", (difference) => difference.stripe?.object_id ?? null],
  ["charge_id", (difference) => difference.correction.charge_id],
  ["payment_intent_id", (difference) => difference.correction.payment_intent_id],
  ["stripe_amount_minor", (difference) => difference.stripe?.amount_minor ?? null],
  ["stripe_currency", (difference) => difference.stripe?.currency ?? null],
  [
    "stripe_rows",
    (difference) => difference.stripe?.rows.map((row) => `${row.file}:${row.row}`).join(" ") ?? null,
  ],
  ["ledger_transaction_id", (difference) => difference.ledger?.transaction_id ?? null],
  ["ledger_lot_id", (difference) => difference.ledger?.lot_id ?? null],
  ["ledger_amount_minor", (difference) => difference.ledger?.amount_minor ?? null],
  ["ledger_currency", (difference) => difference.ledger?.currency ?? null],
  ["ledger_tokens", (difference) => difference.ledger?.tokens ?? null],
  ["explanation", (difference) => difference.explanation],
  ["correction", (difference) => difference.correction.action],
  ["correction_tokens", (difference) => difference.correction.tokens],
  ["correction_words", (difference) => difference.correction.words],
  ["suggestion", (difference) => difference.suggestion?.words ?? null],
];

/** differences.csv, line by line, header first. Safe to open in a spreadsheet. */
export function* differencesCsv(differences: Iterable<Difference>): Generator<string> {
  yield csvLine(COLUMNS.map(([name]) => name));
  for (const difference of differences) yield csvLine(COLUMNS.map(([, read]) => read(difference)));
}
