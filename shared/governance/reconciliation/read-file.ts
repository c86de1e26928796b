/** Reads one file into the tables of its side. */
import type { Currencies } from "./cells.ts";
import type { Interner } from "./interner.ts";
import { LedgerFile } from "./ledger-file.ts";
import type { LedgerTable } from "./ledger-side.ts";
import { readStripeFile } from "./stripe-side.ts";
import type { StripeSide } from "./stripe-table.ts";
import type { InputFile, InputManifest, InputProblem, LedgerRecord, ReconcileOptions } from "./types.ts";

/** Both sides while they are read. */
export interface Sources {
  readonly side: StripeSide;
  readonly ledgerTable: LedgerTable;
  readonly interner: Interner;
  readonly currencies: Currencies;
  readonly options: ReconcileOptions;
  readonly warn: (problem: InputProblem) => void;
}

/** Called with each chunk, and at the end: rows of the file so far, and the bytes that are new. */
export type OnChunk = (rows: number, bytes: number) => void;

/** Reads one of Stripe's exports. Throws BadInput. */
export async function readStripeExport(
  file: InputFile,
  { side, interner, currencies, options, warn }: Omit<Sources, "ledgerTable">,
  onChunk: OnChunk,
): Promise<InputManifest> {
  const reader = readStripeFile(file.name, side, interner, currencies, options, warn);
  const before = side.table.length;
  const { bytes, sha256 } = await feed(file, interner, options, onChunk, {
    push: (chunk) => reader.push(chunk),
    rows: () => reader.rows,
    reserve(rows) {
      side.table.reserve(before + rows);
      interner.reserve(rows);
    },
  });
  const manifest = { ...reader.finish(bytes), sha256 };
  side.files[side.files.length - 1] = manifest;
  onChunk(manifest.rows, 0);
  return manifest;
}

/** Reads a ledger export; returns its hash. Ids of these fields are kept without being looked up. Throws BadInput. */
export async function readLedgerExport(
  file: InputFile,
  { ledgerTable, interner, currencies, options, warn }: Omit<Sources, "side">,
  isKept: ReadonlySet<keyof LedgerRecord>,
  onChunk: OnChunk,
): Promise<string | null> {
  const reader = new LedgerFile(file.name, ledgerTable, interner, currencies, isKept, warn);
  const { sha256 } = await feed(file, interner, options, onChunk, {
    push: (chunk) => reader.push(chunk),
    rows: () => ledgerTable.length,
    reserve: (rows) => ledgerTable.reserve(rows),
  });
  reader.finish();
  onChunk(ledgerTable.length, 0);
  return sha256;
}

/** The reader of a file's chunks: it counts the rows so far, and reserves room for those to come. */
interface Reader {
  push(chunk: Uint8Array): void;
  rows(): number;
  reserve(rows: number): void;
}

/** Gives a file's chunks to its reader, which makes room once its first rows tell how many there will be. */
async function feed(
  file: InputFile,
  interner: Interner,
  options: ReconcileOptions,
  onChunk: OnChunk,
  reader: Reader,
): Promise<{ readonly bytes: number; readonly sha256: string | null }> {
  const hash = options.create_sha256?.();
  const texts = interner.size;
  let bytes = 0;
  let isReserved = false;
  for await (const chunk of file.chunks) {
    hash?.update(chunk);
    reader.push(chunk);
    bytes += chunk.length;
    const rows = reader.rows();
    if (!isReserved && rows > 100) {
      isReserved = true;
      const expected = expectedRows(file, rows, bytes);
      reader.reserve(expected);
      interner.reserveTexts(expectedTexts(interner, texts, expected / rows));
    }
    onChunk(rows, chunk.length);
  }
  return { bytes, sha256: hash?.digest("hex") ?? null };
}

/** Rows of a file by its size and its first rows, with some air; no more than what a wrong size could cost us. */
function expectedRows(file: InputFile, rows: number, bytes: number): number {
  return file.size_bytes === null
    ? rows
    : Math.min(Math.ceil((file.size_bytes / bytes) * rows * 1.02), 5_000_000);
}

/** Texts there will be, given those from before the file and how many times its rows so far it has. */
const expectedTexts = ({ size }: Interner, before: number, times: number): number =>
  before + Math.ceil((size - before) * times);
