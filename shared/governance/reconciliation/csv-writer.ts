import { formatMinor } from "../money/index.ts";
import type { Difference } from "./types.ts";

/** What a spreadsheet would run as a formula begins with one of these (OWASP, "CSV Injection"). */
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
  ["difference_id", (d) => d.difference_id],
  ["class", (d) => d.class],
  ["blocks", (d) => d.blocks],
  ["occurred_at", (d) => d.occurred_at],
  ["age_days", (d) => d.age_days],
  ["currency", (d) => d.currency],
  ["amount_minor", (d) => d.amount_minor],
  ["amount", (d) => (d.currency === null ? null : formatMinor(d.amount_minor, d.currency))],
  ["tokens", (d) => d.tokens],
  ["user_id", (d) => d.user_id],
  ["stripe_event", (d) => d.stripe?.event ?? null],
  ["stripe_object_id", (d) => d.stripe?.object_id ?? null],
  ["charge_id", (d) => d.correction.charge_id],
  ["payment_intent_id", (d) => d.correction.payment_intent_id],
  ["stripe_amount_minor", (d) => d.stripe?.amount_minor ?? null],
  ["stripe_currency", (d) => d.stripe?.currency ?? null],
  ["stripe_rows", (d) => d.stripe?.rows.map((row) => `${row.file}:${row.row}`).join(" ") ?? null],
  ["ledger_transaction_id", (d) => d.ledger?.transaction_id ?? null],
  ["ledger_lot_id", (d) => d.ledger?.lot_id ?? null],
  ["ledger_amount_minor", (d) => d.ledger?.amount_minor ?? null],
  ["ledger_currency", (d) => d.ledger?.currency ?? null],
  ["ledger_tokens", (d) => d.ledger?.tokens ?? null],
  ["explanation", (d) => d.explanation],
  ["correction", (d) => d.correction.action],
  ["correction_tokens", (d) => d.correction.tokens],
  ["correction_words", (d) => d.correction.words],
  ["suggestion", (d) => d.suggestion?.words ?? null],
];

/** differences.csv, line by line, header first. Safe to open in a spreadsheet. */
export function* differencesCsv(differences: Iterable<Difference>): Generator<string> {
  yield csvLine(COLUMNS.map(([name]) => name));
  for (const difference of differences) yield csvLine(COLUMNS.map(([, read]) => read(difference)));
}
