/** Tables, times and money in the text that a backtest prints. */
import { countCharacters, formatMicro } from "../shared/governance/index.ts";

/** Aligned columns; those from `rightFrom` on are aligned to the right. */
export function table(rows: readonly (readonly string[])[], rightFrom = 1): string {
  const widths = (rows[0] ?? []).map((_, column) =>
    Math.max(...rows.map((row) => countCharacters(row[column] ?? ""))),
  );
  const line = (row: readonly string[]): string =>
    row
      .map((cell, column) => {
        const space = " ".repeat(Math.max(0, (widths[column] ?? 0) - countCharacters(cell)));
        return column >= rightFrom ? space + cell : cell + space;
      })
      .join("  ")
      .trimEnd();
  return rows.map(line).join("\n");
}

/** "2026-11-22 14:05:09", UTC. */
export const moment = (at: string): string =>
  Number.isNaN(Date.parse(at)) ? at : new Date(at).toISOString().slice(0, 19).replace("T", " ");

/** Money as people read it: to the cent, and exactly where it is less than one. */
export const moneyIn =
  (currency: string | null) =>
  (micros: number): string => {
    const cents = Math.round(micros / 10_000) * 10_000;
    return `${formatMicro(Math.abs(micros) < 10_000 ? micros : cents)}${currency ? ` ${currency.toUpperCase()}` : ""}`;
  };

/** Without control characters: text from outside must not control the terminal. */
export const printable = (text: string): string =>
  text.replace(/[\p{Cc}\p{Bidi_Control}]/gu, (character) => (character === "\n" ? character : "\ufffd"));
