import { fail, ok, type Result } from "../result.ts";
import { Currencies, parseTime } from "./cells.ts";
import { classify } from "./classify/index.ts";
import { makeFrame } from "./frame.ts";
import { Interner } from "./interner.ts";
import { addLedgerRecord, createLedgerTable, GRANT, type LedgerTable } from "./ledger-side.ts";
import { LedgerFile } from "./ledger-file.ts";
import { link } from "./link/index.ts";
import { BadInput, Cancelled } from "./problem.ts";
import { makeReport } from "./report.ts";
import { readStripeFile } from "./stripe-side.ts";
import { CHARGE, createStripeSide, type StripeSide } from "./stripe-table.ts";
import type {
  InputFile,
  InputManifest,
  InputProblem,
  LedgerRecord,
  ReconcileFailure,
  ReconcileInput,
  ReconcileOptions,
  ReconcileProgress,
  Report,
} from "./types.ts";

/**
 * Reconciles Stripe's exports with the ledger. Pure: bytes and records in, a report out; no clock, no I/O. The result
 * does not depend on the order of rows or files. Bad input is a value naming file, row and column, and then nothing is
 * reported at all; so is a run that `signal` cancelled.
 */
export async function reconcile(input: ReconcileInput): Promise<Result<Report, ReconcileFailure>> {
  try {
    return await run(input);
  } catch (error) {
    if (error instanceof BadInput) return fail({ code: "bad_input", problems: [error.problem] });
    if (error instanceof Cancelled) return fail({ code: "cancelled", problems: [] });
    throw error;
  }
}

/**
 * Looks at exports without a ledger: which they are, what they cover, what is missing in them. For choosing the period,
 * and for saying at once what is wrong with a file.
 */
export async function inspectExports(
  stripeFiles: readonly InputFile[],
  options: ReconcileOptions = {},
): Promise<Result<readonly InputManifest[], ReconcileFailure>> {
  const side = createStripeSide();
  const problems: InputProblem[] = [];
  for (const file of stripeFiles) {
    try {
      const warn = (): void => undefined;
      const sources = { side, interner: new Interner(), currencies: new Currencies(), options, warn };
      await readOne(file, sources, () => undefined);
    } catch (error) {
      if (!(error instanceof BadInput)) throw error;
      problems.push(error.problem);
    }
  }
  return problems.length > 0 ? fail({ code: "bad_input", problems }) : ok(side.files);
}

const problem = (code: string, file: string, message: string): InputProblem => ({
  code,
  file,
  row: null,
  column: null,
  message,
});

/** Both sides while they are read. */
interface Sources {
  readonly side: StripeSide;
  readonly ledgerTable: LedgerTable;
  readonly interner: Interner;
  readonly currencies: Currencies;
  readonly options: ReconcileOptions;
  readonly warn: (problem: InputProblem) => void;
}

async function run(input: ReconcileInput): Promise<Result<Report, ReconcileFailure>> {
  const options = input.options ?? {};
  const { from, to } = checkInput(input);
  const warnings: InputProblem[] = [];
  const sources: Sources = {
    side: createStripeSide(),
    ledgerTable: createLedgerTable(),
    interner: new Interner(),
    currencies: new Currencies(),
    options,
    warn: (found) => void warnings.push(found),
  };
  const { side, ledgerTable, interner, currencies, warn } = sources;
  const progress = createProgress(input);

  const problems = await readStripeFiles(input, sources, progress);
  if (problems.length > 0) return fail({ code: "bad_input", problems });
  const stripeKeys = interner.size;
  const ledgerHash = await readLedger(input, sources, progress);

  progress.step("matching");
  decideModes(side, ledgerTable, options);
  const frame = makeFrame(side, from, to, options, warn);
  const links = link({ side, ledgerTable, interner, stripeKeys, frame });
  progress.step("matching");
  const classified = classify(side, ledgerTable, links, interner, currencies, frame, options);
  progress.step("reporting");
  return ok(makeReport({ ...sources, links, classified, frame, ledgerHash, warnings }));
}

function checkInput(input: ReconcileInput): { readonly from: number; readonly to: number } {
  const from = parseTime(input.period.from);
  const to = parseTime(input.period.to);
  if (!(from < to))
    throw new BadInput(
      problem(
        "bad_period",
        "",
        `The period ${input.period.from} – ${input.period.to} is not one: from must come before to.`,
      ),
    );
  if (input.stripeFiles.length === 0)
    throw new BadInput(problem("no_files", "", "Choose at least one export from Stripe."));
  if (input.stripeFiles.length > 255)
    throw new BadInput(problem("too_many_files", "", "At most 255 files at once."));
  return { from, to };
}

const isFile = (source: ReconcileInput["ledger"]): source is InputFile => "chunks" in source;

type Progress = ReturnType<typeof createProgress>;

/** Tells how far the run is; throws where it was cancelled. */
function createProgress(input: ReconcileInput) {
  const sizes = [
    ...input.stripeFiles.map((file) => file.size_bytes),
    ...(isFile(input.ledger) ? [input.ledger.size_bytes] : []),
  ];
  const state = {
    stage: "reading_stripe" as ReconcileProgress["stage"],
    file: null as string | null,
    stripe_rows: 0,
    ledger_records: 0,
    bytes_read: 0,
    bytes_total: sizes.includes(null) ? null : sizes.reduce<number>((sum, size) => sum + (size ?? 0), 0),
  };
  return {
    state,
    step(stage: ReconcileProgress["stage"], file: string | null = null): void {
      if (input.signal?.aborted) throw new Cancelled();
      state.stage = stage;
      state.file = file;
      input.onProgress?.({ ...state });
    },
  };
}

/** Every file is read, so that one look shows all that is wrong. */
async function readStripeFiles(
  input: ReconcileInput,
  sources: Sources,
  progress: Progress,
): Promise<readonly InputProblem[]> {
  const { state } = progress;
  const problems: InputProblem[] = [];
  for (const file of input.stripeFiles) {
    try {
      const before = state.stripe_rows;
      const manifest = await readOne(file, sources, (rows, bytes) => {
        state.stripe_rows = before + rows;
        state.bytes_read += bytes;
        progress.step("reading_stripe", file.name);
      });
      state.stripe_rows = before + manifest.rows;
    } catch (error) {
      if (!(error instanceof BadInput)) throw error;
      problems.push(error.problem);
    }
  }
  const { files } = sources.side;
  const hashes = files.map((file) => file.sha256).filter((hash) => hash !== null);
  const twice = files.find((file, i) => file.sha256 !== null && hashes.indexOf(file.sha256) !== i);
  if (twice) problems.push(problem("same_file_twice", twice.name, "This file was given twice: remove one."));
  return problems;
}

/** Reads the ledger's records, from pages or from a file; answers the file's hash. */
async function readLedger(
  input: ReconcileInput,
  sources: Sources,
  progress: Progress,
): Promise<string | null> {
  if (isFile(input.ledger)) return readLedgerExport(input.ledger, sources, progress);
  const { ledgerTable, interner, currencies } = sources;
  let waiting = 0;
  for await (const page of input.ledger) {
    const records: readonly LedgerRecord[] = Array.isArray(page) ? page : [page as LedgerRecord];
    for (const record of records) addLedgerRecord(record, ledgerTable, interner, currencies);
    waiting += records.length;
    if (waiting >= 500) {
      waiting = 0;
      progress.state.ledger_records = ledgerTable.length;
      progress.step("reading_ledger");
    }
  }
  progress.state.ledger_records = ledgerTable.length;
  return null;
}

async function readLedgerExport(
  file: InputFile,
  { side, ledgerTable, interner, currencies, options, warn }: Sources,
  progress: Progress,
): Promise<string | null> {
  const unmatchable = unmatchableFields(side);
  const reader = new LedgerFile(file.name, ledgerTable, interner, currencies, unmatchable, warn);
  const hash = options.create_sha256?.();
  let bytes = 0;
  let isReserved = false;
  for await (const chunk of file.chunks) {
    hash?.update(chunk);
    reader.push(chunk);
    bytes += chunk.length;
    if (!isReserved && ledgerTable.length > 100) {
      isReserved = true;
      ledgerTable.reserve(expectedRows(file, ledgerTable.length, bytes));
    }
    progress.state.ledger_records = ledgerTable.length;
    progress.state.bytes_read += chunk.length;
    progress.step("reading_ledger", file.name);
  }
  reader.finish();
  progress.state.ledger_records = ledgerTable.length;
  return hash?.digest("hex") ?? null;
}

/** Rows of a file by its size and its first rows, with some air; no more than what a wrong size could cost us. */
function expectedRows(file: InputFile, rows: number, bytes: number): number {
  return file.size_bytes === null
    ? rows
    : Math.min(Math.ceil((file.size_bytes / bytes) * rows * 1.02), 5_000_000);
}

async function readOne(
  file: InputFile,
  { side, interner, currencies, options, warn }: Omit<Sources, "ledgerTable">,
  onChunk: (rows: number, bytes: number) => void,
): Promise<InputManifest> {
  const reader = readStripeFile(file.name, side, interner, currencies, options, warn);
  const hash = options.create_sha256?.();
  let bytes = 0;
  const before = side.table.length;
  let isReserved = false;
  for await (const chunk of file.chunks) {
    hash?.update(chunk);
    reader.push(chunk);
    bytes += chunk.length;
    if (!isReserved && reader.rows > 100) {
      isReserved = true;
      const rows = expectedRows(file, reader.rows, bytes);
      side.table.reserve(before + rows);
      interner.reserve(rows);
    }
    onChunk(reader.rows, chunk.length);
  }
  const manifest = { ...reader.finish(bytes), sha256: hash?.digest("hex") ?? null };
  side.files[side.files.length - 1] = manifest;
  return manifest;
}

/** Ledger ids of which the Stripe files have none: nothing will be looked up by them. */
function unmatchableFields(side: StripeSide): ReadonlySet<keyof LedgerRecord> {
  const { table, has } = side;
  const stripe = table.columns;
  const tells = (column: Uint32Array): boolean => {
    for (let event = 0; event < table.length; event++) if (column[event] !== 0) return true;
    return false;
  };
  const fields = new Set<keyof LedgerRecord>();
  if (!tells(stripe.intent)) fields.add("payment_intent_id");
  if (!tells(stripe.session)) fields.add("checkout_session_id");
  if (!tells(stripe.order) && !tells(stripe.reference)) fields.add("order_id");
  if (!tells(stripe.invoice)) fields.add("invoice_id");
  if (!has.cash) fields.add("balance_transaction_id").add("refund_id");
  return fields;
}

/** Test mode is a leak in a live project, and the ordinary thing in a test project: the rows themselves say which it is. */
function decideModes(side: StripeSide, ledgerTable: LedgerTable, options: ReconcileOptions): void {
  const stripe = side.table.columns;
  const ledger = ledgerTable.columns;
  let live = 0;
  const count = (modes: Uint8Array, length: number, counts: (row: number) => boolean): boolean => {
    let test = 0;
    let rows = 0;
    for (let i = 0; i < length; i++) {
      if (!counts(i)) continue;
      rows++;
      if (modes[i] === 1) test++;
      else if (modes[i] === 2) live++;
    }
    return test * 2 > rows;
  };
  const mostlyTest = [
    count(stripe.test, side.table.length, (event) => stripe.kind[event] === CHARGE),
    count(ledger.test, ledgerTable.length, (record) => ledger.type[record] === GRANT),
  ];
  const isLive = options.livemode ?? (live > 0 || !mostlyTest.includes(true));
  for (const [modes, length] of [
    [stripe.test, side.table.length],
    [ledger.test, ledgerTable.length],
  ] as const)
    for (let i = 0; i < length; i++) if (modes[i] !== 0) modes[i] = isLive && modes[i] === 1 ? 1 : 0;
}
