/** Tables as files. */
export type CsvValue = string | number | null | undefined;

/**
 * RFC 4180 text. A text that a spreadsheet would run as a formula gets an apostrophe in front; numbers are written
 * as they are.
 */
export function toCsv(header: readonly string[], rows: readonly (readonly CsvValue[])[]): string {
  return [header, ...rows].map((row) => row.map(csvCell).join(",")).join("\r\n") + "\r\n";
}

function csvCell(value: CsvValue): string {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return String(value);
  const safe = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\r\n;]/.test(safe) || safe !== safe.trim() ? `"${safe.replaceAll('"', '""')}"` : safe;
}

/** Hands a text, or bytes, to the person as a file. */
export function saveFile(
  fileName: string,
  mediaType: string,
  content: string | Uint8Array<ArrayBuffer>,
): void {
  const link = document.createElement("a");
  link.href = addressOf(mediaType, content);
  link.download = fileName;
  link.click();
}

/** Shows a page in a tab of its own; false where there is none to open. */
export function openPage(mediaType: string, text: string): boolean {
  return window.open(addressOf(mediaType, text)) !== null;
}

function addressOf(mediaType: string, content: string | Uint8Array<ArrayBuffer>): string {
  const type = typeof content === "string" ? `${mediaType};charset=utf-8` : mediaType;
  const url = URL.createObjectURL(new Blob([content], { type }));
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
  return url;
}
