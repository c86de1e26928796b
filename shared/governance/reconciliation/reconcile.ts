import { proRata } from "../money/index.ts";
import { fail, ok, type Result } from "../result.ts";
import { Currencies, isoTime, parseTime } from "./cells.ts";
import { type Classified, classify, type Frame } from "./classify/index.ts";
import { Interner } from "./interner.ts";
import {
  addLedgerRecord,
  createLedgerTable,
  GRANT,
  type LedgerTable,
  readLedgerFile,
} from "./ledger-side.ts";
import {
  DUPLICATE,
  EXCLUDED,
  EXCLUSIONS,
  IN_DIFFERENCE,
  type Links,
  link,
  MATCHED,
  MERGED,
  PASSES,
} from "./match.ts";
import { BadInput, Cancelled } from "./problem.ts";
import {
  CHARGE,
  createStripeSide,
  DISPUTE,
  DISPUTE_REVERSAL,
  FEE,
  PAID,
  PAYOUT,
  REFUND,
  REFUND_FAILURE,
  readStripeFile,
  type StripeSide,
} from "./stripe-side.ts";
import {
  type Bridge,
  type ClassSummary,
  DIFFERENCE_CLASSES,
  type Difference,
  type InputFile,
  type InputManifest,
  type InputProblem,
  type LedgerRecord,
  type ReconcileFailure,
  type ReconcileInput,
  type ReconcileOptions,
  type Report,
  type RollForwardCheck,
  type RowCounts,
  type TieOut,
} from "./types.ts";

const HOUR = 3600;

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
      await readOne(
        file,
        side,
        new Interner(),
        new Currencies(),
        options,
        () => undefined,
        () => undefined,
      );
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

async function run(input: ReconcileInput): Promise<Result<Report, ReconcileFailure>> {
  const options = input.options ?? {};
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

  const interner = new Interner();
  const currencies = new Currencies();
  const side = createStripeSide();
  const ledgerTable = createLedgerTable();
  const warnings: InputProblem[] = [];
  const warn = (found: InputProblem): void => void warnings.push(found);
  const isFile = (source: ReconcileInput["ledger"]): source is InputFile => "chunks" in source;
  const sizes = [
    ...input.stripeFiles.map((file) => file.size_bytes),
    ...(isFile(input.ledger) ? [input.ledger.size_bytes] : []),
  ];
  const progress = {
    stage: "reading_stripe" as "reading_stripe" | "reading_ledger" | "matching" | "reporting",
    file: null as string | null,
    stripe_rows: 0,
    ledger_records: 0,
    bytes_read: 0,
    bytes_total: sizes.includes(null) ? null : sizes.reduce<number>((sum, size) => sum + (size ?? 0), 0),
  };
  const step = (): void => {
    if (input.signal?.aborted) throw new Cancelled();
    input.onProgress?.({ ...progress });
  };

  // Every file is read, so that one look shows all that is wrong.
  const problems: InputProblem[] = [];
  for (const file of input.stripeFiles) {
    progress.file = file.name;
    try {
      const before = progress.stripe_rows;
      const manifest = await readOne(file, side, interner, currencies, options, warn, (rows, bytes) => {
        progress.stripe_rows = before + rows;
        progress.bytes_read += bytes;
        step();
      });
      progress.stripe_rows = before + manifest.rows;
    } catch (error) {
      if (!(error instanceof BadInput)) throw error;
      problems.push(error.problem);
    }
  }
  const hashes = side.files.map((file) => file.sha256).filter((hash) => hash !== null);
  const twice = side.files.find((file, i) => file.sha256 !== null && hashes.indexOf(file.sha256) !== i);
  if (twice) problems.push(problem("same_file_twice", twice.name, "This file was given twice: remove one."));
  if (problems.length > 0) return fail({ code: "bad_input", problems });

  const stripeKeys = interner.size;
  progress.stage = "reading_ledger";
  let ledgerHash: string | null = null;
  if (isFile(input.ledger)) {
    const file = input.ledger;
    progress.file = file.name;
    const reader = readLedgerFile(
      file.name,
      ledgerTable,
      interner,
      currencies,
      unmatchableFields(side),
      warn,
    );
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
      progress.ledger_records = ledgerTable.length;
      progress.bytes_read += chunk.length;
      step();
    }
    reader.finish();
    ledgerHash = hash?.digest("hex") ?? null;
  } else {
    progress.file = null;
    let waiting = 0;
    for await (const page of input.ledger) {
      const records: readonly LedgerRecord[] = Array.isArray(page) ? page : [page as LedgerRecord];
      for (const record of records) addLedgerRecord(record, ledgerTable, interner, currencies);
      waiting += records.length;
      if (waiting >= 500) {
        waiting = 0;
        progress.ledger_records = ledgerTable.length;
        step();
      }
    }
  }
  progress.ledger_records = ledgerTable.length;
  progress.file = null;
  progress.stage = "matching";
  step();

  decideModes(side, ledgerTable, options);
  const frame = makeFrame(side, from, to, options, warn);
  const links = link(side, ledgerTable, interner, stripeKeys);
  step();
  const classified = classify(side, ledgerTable, links, interner, currencies, frame, options);
  progress.stage = "reporting";
  step();
  return ok(makeReport(input, side, ledgerTable, links, classified, currencies, frame, ledgerHash, warnings));
}

/** Rows of a file by its size and its first rows, with some air; no more than what a wrong size could cost us. */
function expectedRows(file: InputFile, rows: number, bytes: number): number {
  return file.size_bytes === null
    ? rows
    : Math.min(Math.ceil((file.size_bytes / bytes) * rows * 1.02), 5_000_000);
}

async function readOne(
  file: InputFile,
  side: StripeSide,
  interner: Interner,
  currencies: Currencies,
  options: ReconcileOptions,
  warn: (problem: InputProblem) => void,
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

/** What the files cover, and how far it falls short of the period. */
function makeFrame(
  side: StripeSide,
  from: number,
  to: number,
  options: ReconcileOptions,
  warn: (problem: InputProblem) => void,
): Frame {
  let first = Number.POSITIVE_INFINITY;
  let last = Number.NEGATIVE_INFINITY;
  for (const file of side.files) {
    if (file.kind === "disputes" || file.window === null) continue;
    first = Math.min(first, parseTime(file.window.from));
    last = Math.max(last, parseTime(file.window.to));
  }
  const through = options.data_through ? parseTime(options.data_through) : Number.NaN;
  if (options.data_through && through !== through)
    throw new BadInput(problem("bad_data_through", "", `"${options.data_through}" is not a time.`));
  const ledgerThrough = options.ledger_through ? parseTime(options.ledger_through) : Number.NaN;
  if (options.ledger_through && ledgerThrough !== ledgerThrough)
    throw new BadInput(problem("bad_ledger_through", "", `"${options.ledger_through}" is not a time.`));
  // A Dashboard export knows all until it was made; Stripe's reports lag, and one of them makes the whole look younger.
  // Whoever chose period and exports is taken at their word for the rest, and warned where the rows do not reach.
  const isReport = side.files.some((file) => file.kind.endsWith("_itemized"));
  const known = isReport ? last - (options.report_lag_hours ?? 12) * HOUR : last;
  const coveredTo = through === through ? through : isReport ? known : to;
  const watermark = through === through ? through : known;
  const names = side.files.map((file) => file.name).join(", ");
  if (last === Number.NEGATIVE_INFINITY)
    warn(
      problem(
        "no_payments",
        names,
        "No file tells about payments: only refunds and disputes can be judged. Add the Payments or a balance export.",
      ),
    );
  else if (last < from || first >= to)
    warn(
      problem(
        "period_not_covered",
        names,
        `The files have no rows in the period; they reach from ${isoTime(first)} to ${isoTime(last)}. Export them again for the period.`,
      ),
    );
  else {
    const since = options.data_from ? parseTime(options.data_from) : Number.NaN;
    if (first > from + 24 * HOUR && !(since <= from))
      warn(
        problem(
          "starts_late",
          names,
          `The first row is of ${isoTime(first)}, the period begins ${isoTime(from)}. What lies before is not known from these files.`,
        ),
      );
    if (last < to - 24 * HOUR && !(through >= to))
      warn(
        problem(
          "ends_early",
          names,
          `The last row is of ${isoTime(last)}, the period ends ${isoTime(to)}. What lies after is not known from these files.`,
        ),
      );
  }
  return {
    from,
    to,
    coveredTo,
    watermark,
    grantedBy: (ledgerThrough === ledgerThrough ? ledgerThrough : to) - (options.grace_hours ?? 1) * HOUR,
  };
}

function countRows(dispositions: Uint8Array): RowCounts {
  let matched = 0;
  let inDifferences = 0;
  let merged = 0;
  let duplicates = 0;
  const excluded: Record<string, number> = {};
  const tallies = new Float64Array(EXCLUSIONS.length);
  for (let i = 0; i < dispositions.length; i++) {
    const where = dispositions[i];
    if (where === MATCHED) matched++;
    else if (where === IN_DIFFERENCE) inDifferences++;
    else if (where === MERGED) merged++;
    else if (where === DUPLICATE) duplicates++;
    else if (where >= EXCLUDED) tallies[where - EXCLUDED] = tallies[where - EXCLUDED] + 1;
    else throw new Error("A row was given no place."); // a bug of ours: no report is better than one that hides a row
  }
  EXCLUSIONS.forEach((reason, i) => {
    if (tallies[i] !== 0) excluded[reason] = tallies[i];
  });
  return { rows: dispositions.length, matched, in_differences: inDifferences, merged, duplicates, excluded };
}

function makeReport(
  input: ReconcileInput,
  side: StripeSide,
  ledgerTable: LedgerTable,
  links: Links,
  { differences, sums }: Classified,
  currencies: Currencies,
  frame: Frame,
  ledgerHash: string | null,
  warnings: InputProblem[],
): Report {
  const options = input.options ?? {};
  const ledger = ledgerTable.columns;
  let first = Number.POSITIVE_INFINITY;
  let last = Number.NEGATIVE_INFINITY;
  for (let record = 0; record < ledgerTable.length; record++) {
    const created = ledger.created[record];
    if (created < first) first = created;
    if (created > last) last = created;
  }

  const bridge: Bridge[] = [];
  for (let currency = 1; currency < currencies.count; currency++) {
    const none = { amount: 0, count: 0 };
    const stripe = sums.stripe.get(currency) ?? none;
    const books = sums.ledger.get(currency) ?? none;
    const matched = sums.matched.get(currency) ?? none;
    const lines = DIFFERENCE_CLASSES.flatMap((name) => {
      const sum = sums.byClass.get(`${currency}/${name}`);
      return sum ? [{ class: name, count: sum.count, amount_minor: sum.amount }] : [];
    });
    if (stripe.count + books.count + lines.length === 0) continue;
    bridge.push({
      currency: currencies.code(currency),
      stripe_gross_minor: stripe.amount,
      stripe_count: stripe.count,
      lines,
      ledger_minor: books.amount,
      ledger_count: books.count,
      matched_minor: matched.amount,
      matched_count: matched.count,
      unexplained_minor:
        stripe.amount - books.amount - lines.reduce((sum, line) => sum + line.amount_minor, 0),
    });
  }
  bridge.sort((a, b) => (a.currency < b.currency ? -1 : 1));

  const tieOut = makeTieOut(side, links, currencies, frame, options);
  const rollForward = (options.roll_forward ?? []).map(checkRollForward);
  const classes = DIFFERENCE_CLASSES.flatMap((name) => summarise(name, differences));
  const tiedOut =
    classes.every((summary) => !summary.blocks) &&
    bridge.every((line) => line.unexplained_minor === 0) &&
    tieOut.every((line) => line.unexplained_minor === null || line.unexplained_minor === 0) &&
    rollForward.every(
      (line) =>
        line.unexplained_tokens === 0 && line.drift_tokens === 0 && line.unexplained_deferred_minor === 0,
    );

  return {
    report_version: 1,
    period: { from: isoTime(frame.from) as string, to: isoTime(frame.to) as string },
    tied_out: tiedOut,
    inputs: side.files,
    ledger_input: {
      sha256: ledgerHash,
      records: ledgerTable.length,
      window: first <= last ? { from: isoTime(first) as string, to: isoTime(last) as string } : null,
    },
    watermark: isoTime(frame.watermark),
    stripe_rows: countRows(links.stripeDisposition),
    ledger_rows: countRows(links.ledgerDisposition),
    matched_by_pass: PASSES.flatMap((by, pass) =>
      pass === 0 ? [] : [{ pass, by, count: sums.byPass[pass] ?? 0 }],
    ),
    tie_out: tieOut,
    bridge,
    roll_forward: rollForward,
    deferred_revenue: deferredRevenue(ledgerTable, links, currencies, frame.to),
    classes,
    differences,
    warnings,
  };
}

function summarise(name: ClassSummary["class"], differences: readonly Difference[]): ClassSummary[] {
  let count = 0;
  let blocks = false;
  let oldest: string | null = null;
  let tokens = 0;
  const stake = new Map<string, number>();
  for (const difference of differences) {
    if (difference.class !== name) continue;
    count++;
    blocks ||= difference.blocks;
    tokens += Math.abs(difference.tokens);
    if (difference.occurred_at !== null && (oldest === null || difference.occurred_at < oldest))
      oldest = difference.occurred_at;
    if (difference.currency !== null && difference.amount_minor !== 0)
      stake.set(
        difference.currency,
        (stake.get(difference.currency) ?? 0) + Math.abs(difference.amount_minor),
      );
  }
  if (count === 0) return [];
  return [
    {
      class: name,
      count,
      blocks,
      oldest_at: oldest,
      at_stake: [...stake]
        .map(([currency, amount_minor]) => ({ currency, amount_minor }))
        .sort((a, b) => (a.currency < b.currency ? -1 : 1)),
      tokens_at_stake: tokens,
    },
  ];
}

/** Per settlement currency, from balance transactions if a file has them, else from the payments list. */
function makeTieOut(
  side: StripeSide,
  links: Links,
  currencies: Currencies,
  frame: Frame,
  options: ReconcileOptions,
): TieOut[] {
  const stripe = side.table.columns;
  const lines: TieOut[] = [];
  const size = currencies.count;
  const zero = (): Float64Array => new Float64Array(size);
  const gross = zero();
  const refunds = zero();
  const disputes = zero();
  const reversals = zero();
  const fees = zero();
  const payouts = zero();
  const other = zero();
  const net = zero();
  const rows = zero();
  const addTo = (sums: Float64Array, currency: number, amount: number): void => {
    sums[currency] = sums[currency] + amount;
  };
  for (let event = 0; event < side.table.length; event++) {
    const currency = stripe.cashCurrency[event];
    if (currency === 0 || stripe.test[event] || stripe.foreign[event]) continue;
    const created = stripe.created[event];
    if (created < frame.from || created >= frame.to) continue;
    const kind = stripe.kind[event];
    if (side.has.cash) {
      if (links.cashCounts[event] !== 1) continue;
      const cash = stripe.cash[event];
      addTo(fees, currency, -stripe.fee[event]);
      addTo(net, currency, stripe.net[event]);
      addTo(rows, currency, 1);
      const into =
        kind === CHARGE
          ? gross
          : kind === REFUND
            ? refunds
            : kind === DISPUTE
              ? disputes
              : kind === DISPUTE_REVERSAL || kind === REFUND_FAILURE
                ? reversals
                : kind === PAYOUT
                  ? payouts
                  : kind === FEE
                    ? fees
                    : other;
      addTo(into, currency, cash);
    } else if (
      kind === CHARGE &&
      stripe.state[event] === PAID &&
      links.mergedInto[event] === -1 &&
      links.stripeDisposition[event] !== DUPLICATE
    ) {
      const amount = stripe.amount[event];
      const cash = stripe.cash[event];
      const refunded = Math.min(links.refundedOf[event], amount);
      addTo(gross, currency, cash);
      // The list tells refunds as paid; in another currency they are told in proportion, as it does itself.
      addTo(
        refunds,
        currency,
        -(stripe.currency[event] === currency ? refunded : proRata(cash, refunded, Math.max(1, amount))),
      );
      addTo(fees, currency, -stripe.fee[event]);
      addTo(rows, currency, 1);
    }
  }
  for (let currency = 1; currency < size; currency++) {
    if (rows[currency] === 0) continue;
    const code = currencies.code(currency);
    const value = (sums: Float64Array): number => (sums[currency] === 0 ? 0 : sums[currency]);
    const movement = [gross, refunds, disputes, reversals, fees, payouts, other].reduce(
      (sum, part) => sum + value(part),
      0,
    );
    const opening = options.opening_balances?.[code] ?? null;
    lines.push({
      currency: code,
      source: side.has.cash ? "balance" : "payments",
      opening_minor: opening,
      gross_minor: value(gross),
      refunds_minor: value(refunds),
      disputes_minor: value(disputes),
      reversals_minor: value(reversals),
      fees_minor: value(fees),
      payouts_minor: value(payouts),
      other_minor: value(other),
      net_minor: movement,
      closing_minor: opening === null ? null : opening + movement,
      unexplained_minor: side.has.cash ? value(net) - movement : null,
      rows: value(rows),
    });
  }
  return lines.sort((a, b) => (a.currency < b.currency ? -1 : 1));
}

function checkRollForward(line: NonNullable<ReconcileOptions["roll_forward"]>[number]): RollForwardCheck {
  const closing =
    line.opening_tokens +
    line.purchased_tokens +
    line.promotional_tokens +
    line.restored_tokens -
    line.consumed_tokens -
    line.refunded_tokens -
    line.disputed_tokens -
    line.expired_tokens +
    line.adjusted_tokens;
  return {
    ...line,
    unexplained_tokens: closing - line.closing_tokens,
    drift_tokens: line.closing_tokens - line.ledger_tokens,
    unexplained_deferred_minor:
      line.opening_deferred_minor +
      line.sold_minor -
      line.recognised_minor -
      line.refunded_minor -
      line.closing_deferred_minor,
  };
}

/** Money that unspent tokens still stand for: per lot, its price in proportion to what is left, rounded down. */
function deferredRevenue(
  ledgerTable: LedgerTable,
  links: Links,
  currencies: Currencies,
  to: number,
): Report["deferred_revenue"] {
  const ledger = ledgerTable.columns;
  const sums = new Map<number, { lots: number; tokens: number; amount: number }>();
  for (let record = 0; record < ledgerTable.length; record++) {
    if (
      ledger.type[record] !== GRANT ||
      ledger.created[record] >= to ||
      links.void[record] ||
      ledger.test[record] ||
      links.ledgerDisposition[record] === DUPLICATE
    )
      continue;
    const remaining = ledger.remaining[record];
    const granted = ledger.tokens[record] + links.adjusted[record];
    const amount = ledger.amount[record];
    if (remaining <= 0 || amount < 0 || granted <= 0) continue;
    const currency = ledger.currency[record];
    const sum = sums.get(currency) ?? { lots: 0, tokens: 0, amount: 0 };
    sum.lots++;
    sum.tokens += remaining;
    sum.amount += proRata(amount, remaining, granted);
    sums.set(currency, sum);
  }
  return [...sums]
    .map(([currency, sum]) => ({
      currency: currencies.code(currency),
      lots: sum.lots,
      tokens_remaining: sum.tokens,
      deferred_minor: sum.amount,
    }))
    .sort((a, b) => (a.currency < b.currency ? -1 : 1));
}
