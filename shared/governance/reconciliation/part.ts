/**
 * A large file may be read apart, in another thread, while this one reads another file. The result is a part: the
 * file's rows and texts, as data that threads hand over. The run then takes it over, as if it had read the file itself.
 */
import { fail, ok, type Result } from "../result.ts";
import { Currencies } from "./cells.ts";
import { type ColumnSpec, type Columns, createKeyQueue, type Table } from "./columns.ts";
import { Interner, type Texts } from "./interner.ts";
import { createLedgerTable, SHOWN, TEXT_FIELDS } from "./ledger-side.ts";
import { BadInput } from "./problem.ts";
import { type OnChunk, readLedgerExport, readStripeExport, type Sources } from "./read-file.ts";
import { createStripeSide, type StripeSide, type StripeTable } from "./stripe-table.ts";
import type {
  InputFile,
  InputManifest,
  InputProblem,
  LedgerRecord,
  Part,
  PartJob,
  ReconcileOptions,
} from "./types.ts";

/** The content of a part, which only this file reads. */
interface ReadPart extends Part {
  /** Without those that nothing was written to. */
  readonly columns: Readonly<Record<string, Uint8Array | Uint32Array | Int32Array | Float64Array>>;
  readonly length: number;
  readonly texts: Texts;
  /** Codes by the number that the columns have them under. */
  readonly currencies: readonly string[];
  readonly warnings: readonly InputProblem[];
  readonly sha256: string | null;
  /** What the file contains, where it is one of Stripe's; null of a ledger export. */
  readonly stripe: Pick<StripeSide, "files" | "kinds" | "has" | "ids" | "namesTokens"> | null;
}

/** The columns of a part that hold numbers of its own texts and currencies, which the run numbers in another way. */
interface NumbersOf<Name> {
  /** Ids, of which a row mostly has its own. */
  readonly ids: readonly Name[];
  /** Texts of which there are few: each is looked up once. */
  readonly words: readonly Name[];
  /** Texts that are not looked up, as they are only shown. */
  readonly shown: readonly Name[];
  readonly currencies: readonly Name[];
}

const STRIPE_NUMBERS: NumbersOf<keyof StripeTable["columns"]> = {
  ids: ["object", "transaction", "charge", "intent", "session", "order", "reference", "invoice", "product"],
  words: ["pack", "tokens", "category"],
  shown: ["customer", "user"],
  currencies: ["currency", "cashCurrency"],
};

/** Ids that a ledger export alone cannot look up: what they are compared with is in other files. Packs are few. */
const KEPT: ReadonlySet<keyof LedgerRecord> = new Set(
  TEXT_FIELDS.map(([, field]) => field).filter((field) => field !== "pack_id"),
);

/** Reads one file by itself; a problem of the file is a value. To be called in the other thread. */
export async function readPart(
  file: InputFile,
  of: PartJob["of"],
  options: ReconcileOptions,
  onChunk: OnChunk,
): Promise<Result<ReadPart, InputProblem>> {
  const warnings: InputProblem[] = [];
  const side = createStripeSide();
  const ledgerTable = createLedgerTable();
  const interner = new Interner();
  const currencies = new Currencies();
  const warn = (found: InputProblem): void => void warnings.push(found);
  const sources = { side, ledgerTable, interner, currencies, options, warn };
  try {
    const sha256 = await (of === "ledger"
      ? readLedgerExport(file, sources, KEPT, onChunk)
      : readStripeExport(file, sources, onChunk).then((manifest) => manifest.sha256));
    const table = of === "ledger" ? ledgerTable : side.table;
    const { files, kinds, has, ids, namesTokens } = side;
    return ok({
      of,
      columns: table.written(),
      length: table.length,
      texts: interner.texts(),
      currencies: Array.from({ length: currencies.count }, (_, i) => currencies.code(i)),
      warnings,
      sha256,
      stripe: of === "ledger" ? null : { files, kinds, has, ids, namesTokens },
    });
  } catch (error) {
    if (error instanceof BadInput) return fail(error.problem);
    throw error;
  }
}

/** The memory of a part, which a thread hands over rather than copies. */
export const memoryOf = ({ columns, texts }: ReadPart): ArrayBuffer[] =>
  [...Object.values(columns), ...texts.blocks, texts.offsets].map(({ buffer }) => buffer as ArrayBuffer);

/** As `readStripeExport`, of a file that was read apart. */
export function takeStripePart(taken: Part, sources: Omit<Sources, "ledgerTable">): InputManifest {
  const { side } = sources;
  const part = taken as ReadPart;
  const { stripe } = part;
  const manifest = stripe?.files[0];
  if (!stripe || !manifest) throw new TypeError("The part is not of a Stripe export.");
  const from = side.table.length;
  takeRows(part, sources, side.table, STRIPE_NUMBERS);
  side.table.columns.file.fill(side.files.length, from, side.table.length);
  side.files.push(manifest);
  side.kinds.push(...stripe.kinds);
  side.namesTokens.push(...stripe.namesTokens);
  for (const id of stripe.ids) side.ids.add(id);
  for (const what of ["refunds", "disputes", "cash", "payments"] as const)
    side.has[what] ||= stripe.has[what];
  return manifest;
}

/** As `readLedgerExport`, of a file that was read apart. */
export function takeLedgerPart(
  taken: Part,
  sources: Omit<Sources, "side">,
  isKept: ReadonlySet<keyof LedgerRecord>,
): string | null {
  const part = taken as ReadPart;
  const columns = (where: (name: string, field: keyof LedgerRecord) => boolean) =>
    TEXT_FIELDS.filter(([name, field]) => where(name, field)).map(([name]) => name);
  takeRows(part, sources, sources.ledgerTable, {
    ids: columns((name, field) => !SHOWN.has(name) && !isKept.has(field) && KEPT.has(field)),
    words: columns((_, field) => !KEPT.has(field)),
    shown: columns((name, field) => SHOWN.has(name) || isKept.has(field)),
    currencies: ["currency"],
  });
  return part.sha256;
}

/** Puts the part's rows into our table, its texts and currencies under our numbers. */
function takeRows<S extends ColumnSpec>(
  part: ReadPart,
  { interner, currencies, warn }: Pick<Sources, "interner" | "currencies" | "warn">,
  table: Table<S>,
  names: NumbersOf<keyof S & string>,
): void {
  for (const found of part.warnings) warn(found);
  const from = table.length;
  table.takeOver(part.columns as Partial<Columns<S>>, part.length);
  const base = interner.takeOver(part.texts);
  const rows = table.length;
  /** Of the columns named, those that the part has written to. */
  const written = (of: readonly (keyof S & string)[]) =>
    of.filter((name) => name in part.columns).map((name) => table.columns[name] as Uint8Array | Uint32Array);
  const queue = createKeyQueue(interner, table, names.ids);
  for (const [into, name] of names.ids.entries())
    for (const column of written([name]))
      for (let row = from; row < rows; row++)
        if (column[row] !== 0) queue.pushKept(into, row, base + column[row]);
  queue.flush();
  const wordOf = eachOnce((word) => interner.internKept(base + word));
  for (const column of written(names.words))
    for (let row = from; row < rows; row++) if (column[row] !== 0) column[row] = wordOf(column[row]);
  for (const column of written(names.shown))
    for (let row = from; row < rows; row++) if (column[row] !== 0) column[row] += base;
  const codes = part.currencies.map((code) => currencies.readText(code));
  if (codes.every((ours, theirs) => ours === theirs)) return;
  for (const column of written(names.currencies))
    for (let row = from; row < rows; row++) column[row] = codes[column[row]];
}

/** Calls `find` once for each value. The value asked for last is kept apart: mostly it is asked for again. */
function eachOnce(find: (value: number) => number): (value: number) => number {
  const known = new Map<number, number>();
  let lastValue = 0;
  let lastFound = 0;
  return (value) => {
    if (value === lastValue) return lastFound;
    let found = known.get(value);
    if (found === undefined) {
      found = find(value);
      known.set(value, found);
    }
    lastValue = value;
    lastFound = found;
    return found;
  };
}
