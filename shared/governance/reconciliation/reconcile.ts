import { fail, ok, type Result } from "../result.ts";
import { Currencies, parseTime } from "./cells.ts";
import { classify } from "./classify/index.ts";
import { findRunTimes } from "./run-times.ts";
import { warnOfTimeZones } from "./time-zone.ts";
import { Interner } from "./interner.ts";
import { addLedgerRecord, createLedgerTable, GRANT, type LedgerTable } from "./ledger-side.ts";
import { link } from "./link/index.ts";
import { takeLedgerPart, takeStripePart } from "./part.ts";
import { BadInput, Cancelled, fileProblem } from "./problem.ts";
import { readLedgerExport, readStripeExport, type Sources } from "./read-file.ts";
import { makeReport } from "./report.ts";
import {
  CHARGE,
  createStripeSide,
  DISPUTE,
  DISPUTE_REVERSAL,
  REFUND,
  REFUND_FAILURE,
  type StripeSide,
} from "./stripe-table.ts";
import type {
  InputFile,
  InputManifest,
  InputProblem,
  LedgerRecord,
  Part,
  PartJob,
  PartReading,
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
      await readStripeExport(file, sources, () => undefined);
    } catch (error) {
      if (!(error instanceof BadInput)) throw error;
      problems.push(error.problem);
    }
  }
  return problems.length > 0 ? fail({ code: "bad_input", problems }) : ok(side.files);
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

  const { problems, stripeKeys, ledgerHash } = await readBoth(input, sources, progress);
  if (problems.length > 0) return fail({ code: "bad_input", problems });

  progress.step("matching");
  decideModes(side, ledgerTable, options);
  nameCharges(side, interner, options.known_payments?.returns ?? {});
  const keys = Math.max(stripeKeys, nameInvoices(side, interner, options.known_payments?.invoices ?? {}));
  const times = findRunTimes(side, from, to, options, warn);
  const links = link({ side, ledgerTable, interner, currencies, stripeKeys: keys, times });
  warnOfTimeZones(side, ledgerTable, links, warn);
  progress.step("matching");
  const classified = classify(side, ledgerTable, links, interner, currencies, times, options);
  progress.step("reporting");
  return ok(makeReport({ ...sources, links, classified, times, ledgerHash, warnings }));
}

/** Refunds and disputes whose row names no payment, by what the project knows of them. */
function nameCharges(
  side: Sources["side"],
  interner: Interner,
  known: Readonly<Record<string, string>>,
): void {
  if (Object.keys(known).length === 0) return;
  const stripe = side.table.columns;
  const returns = new Set([REFUND, REFUND_FAILURE, DISPUTE, DISPUTE_REVERSAL]);
  for (let row = 0; row < side.table.length; row++) {
    if (!returns.has(stripe.kind[row]) || stripe.charge[row] !== 0 || stripe.intent[row] !== 0) continue;
    const id = stripe.object[row] === 0 ? "" : interner.text(stripe.object[row]);
    if (Object.hasOwn(known, id)) stripe.charge[row] = interner.internText(known[id]);
  }
}

/** Payments whose row names no invoice, where several paid one together. Answers how far the keys of rows go now. */
function nameInvoices(
  side: Sources["side"],
  interner: Interner,
  known: Readonly<Record<string, string>>,
): number {
  let keys = 0;
  if (Object.keys(known).length === 0) return keys;
  const stripe = side.table.columns;
  for (let row = 0; row < side.table.length; row++) {
    if (stripe.kind[row] !== CHARGE || stripe.invoice[row] !== 0 || stripe.object[row] === 0) continue;
    const id = interner.text(stripe.object[row]);
    if (!Object.hasOwn(known, id)) continue;
    const invoice = interner.internText(known[id]);
    stripe.invoice[row] = invoice;
    side.ids.add("invoice");
    keys = Math.max(keys, invoice + 1);
  }
  return keys;
}

function checkInput(input: ReconcileInput): { readonly from: number; readonly to: number } {
  const from = parseTime(input.period.from);
  const to = parseTime(input.period.to);
  if (!(from < to))
    throw new BadInput(
      fileProblem(
        "bad_period",
        "",
        `The period ${input.period.from} – ${input.period.to} is not one: from must come before to.`,
      ),
    );
  if (input.stripeFiles.length === 0)
    throw new BadInput(fileProblem("no_files", "", "Choose at least one export from Stripe."));
  if (input.stripeFiles.length > 255)
    throw new BadInput(fileProblem("too_many_files", "", "At most 255 files at once."));
  return { from, to };
}

const isFile = (source: ReconcileInput["ledger"]): source is InputFile => "chunks" in source;

type Progress = ReturnType<typeof createProgress>;

/** Reports how far the run is; throws where it was cancelled. */
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
    /** Adds up what is read of one file: rows so far, and the bytes that are new. */
    counter(of: PartJob["of"]): (rows: number, bytes: number) => void {
      const field = of === "stripe" ? "stripe_rows" : "ledger_records";
      let counted = 0;
      return (rows, bytes) => {
        state[field] += rows - counted;
        counted = rows;
        state.bytes_read += bytes;
      };
    },
    step(stage: ReconcileProgress["stage"], file: string | null = null): void {
      if (input.signal?.aborted) throw new Cancelled();
      state.stage = stage;
      state.file = file;
      input.onProgress?.({ ...state });
    },
  };
}

/** Files below this are read here: until a thread has started, they are read. */
const APART_BYTES = 16 << 20;
/** So many threads at most beside this one: a file each, as large as they are. */
const MOST_THREADS = 3;

/** A file that is read in another thread. */
interface Apart {
  readonly reading: PartReading;
  /** Called once the run waits for it: from then on progress reports it. */
  readonly begin: () => void;
}

/** Starts threads for large files, but for the first of them, which this thread reads meanwhile. */
function readApart(input: ReconcileInput, progress: Progress): ReadonlyMap<InputFile, Apart> {
  const { create_sha256: hashed, ...options } = input.options ?? {};
  const started = new Map<InputFile, Apart>();
  const files = [...input.stripeFiles, ...(isFile(input.ledger) ? [input.ledger] : [])];
  const large = files.filter((file) => file.read_apart && (file.size_bytes ?? 0) >= APART_BYTES);
  for (const file of large.slice(1, 1 + MOST_THREADS)) {
    const of = file === input.ledger ? "ledger" : "stripe";
    const count = progress.counter(of);
    let isAwaited = false;
    const report = (): void => progress.step(`reading_${of}`, file.name);
    const reading = file.read_apart?.({ of, options, is_hashed: hashed !== undefined }, (rows, bytes) => {
      count(rows, bytes);
      if (isAwaited) report();
    });
    // It may fail before anybody waits for it; the wait then gets the failure.
    reading?.done.catch(() => undefined);
    const begin = (): void => {
      isAwaited = true;
      report();
    };
    if (reading) started.set(file, { reading, begin });
  }
  return started;
}

/** The part that a thread reads, once it is done. Throws BadInput. */
async function partOf({ reading, begin }: Apart): Promise<Part> {
  begin();
  const part = await reading.done;
  if (!part.ok) throw new BadInput(part.error);
  return part.value;
}

/** Both sides read: what is wrong with Stripe's files, the numbers of texts that they know, and the ledger's hash. */
interface BothRead {
  readonly problems: readonly InputProblem[];
  readonly stripeKeys: number;
  readonly ledgerHash: string | null;
}

async function readBoth(input: ReconcileInput, sources: Sources, progress: Progress): Promise<BothRead> {
  const apart = readApart(input, progress);
  try {
    const problems = await readStripeFiles(input, sources, progress, apart);
    const stripeKeys = sources.interner.size;
    const ledgerHash = problems.length > 0 ? null : await readLedger(input, sources, progress, apart);
    return { problems, stripeKeys, ledgerHash };
  } finally {
    await Promise.all([...apart.values()].map(({ reading }) => reading.stop()));
  }
}

/** Every file is read, so that one look shows all that is wrong. */
async function readStripeFiles(
  input: ReconcileInput,
  sources: Sources,
  progress: Progress,
  apart: ReadonlyMap<InputFile, Apart>,
): Promise<readonly InputProblem[]> {
  const problems: InputProblem[] = [];
  for (const file of input.stripeFiles) {
    try {
      const other = apart.get(file);
      if (other) takeStripePart(await partOf(other), sources);
      else {
        const count = progress.counter("stripe");
        await readStripeExport(file, sources, (rows, bytes) => {
          count(rows, bytes);
          progress.step("reading_stripe", file.name);
        });
      }
    } catch (error) {
      if (!(error instanceof BadInput)) throw error;
      problems.push(error.problem);
    }
  }
  const { files } = sources.side;
  const hashes = files.map((file) => file.sha256).filter((hash) => hash !== null);
  const twice = files.find((file, i) => file.sha256 !== null && hashes.indexOf(file.sha256) !== i);
  if (twice)
    problems.push(fileProblem("same_file_twice", twice.name, "This file was given twice: remove one."));
  return problems;
}

/** Reads the ledger's records, from pages or from a file; returns the file's hash. */
async function readLedger(
  input: ReconcileInput,
  sources: Sources,
  progress: Progress,
  apart: ReadonlyMap<InputFile, Apart>,
): Promise<string | null> {
  const { ledger } = input;
  if (isFile(ledger)) {
    const unmatchable = unmatchableFields(sources.side);
    const other = apart.get(ledger);
    if (other) return takeLedgerPart(await partOf(other), sources, unmatchable);
    const count = progress.counter("ledger");
    return readLedgerExport(ledger, sources, unmatchable, (rows, bytes) => {
      count(rows, bytes);
      progress.step("reading_ledger", ledger.name);
    });
  }
  const { ledgerTable, interner, currencies } = sources;
  let waiting = 0;
  for await (const page of ledger) {
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

/** Ledger ids of which the Stripe files have none: nothing will be looked up by them. */
function unmatchableFields({ ids, has }: StripeSide): ReadonlySet<keyof LedgerRecord> {
  const fields = new Set<keyof LedgerRecord>();
  if (!ids.has("intent")) fields.add("payment_intent_id");
  if (!ids.has("session")) fields.add("checkout_session_id");
  if (!ids.has("order") && !ids.has("reference")) fields.add("order_id");
  if (!ids.has("invoice")) fields.add("invoice_id");
  if (!has.cash) fields.add("balance_transaction_id").add("refund_id");
  return fields;
}

/** Test mode is a leak in a live project, and the ordinary thing in a test project: the rows themselves say which it is. */
function decideModes(side: StripeSide, ledgerTable: LedgerTable, options: ReconcileOptions): void {
  const stripe = side.table.columns;
  const ledger = ledgerTable.columns;
  const isModeKnown = [stripe.test, ledger.test].some((modes) => modes.includes(1) || modes.includes(2));
  if (!isModeKnown) return;
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
