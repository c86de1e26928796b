import { proRata } from "../money/index.ts";
import { type Currencies, isoTime } from "./cells.ts";
import { DIFFERENCE_CLASSES } from "./classes.ts";
import type { Sums } from "./classify/bridge.ts";
import type { Classified } from "./classify/index.ts";
import type { RunTimes } from "./run-times.ts";
import { GRANT, type LedgerTable } from "./ledger-side.ts";
import { type Links, PASSES } from "./link/index.ts";
import { DUPLICATE, EXCLUDED, EXCLUSIONS, IN_DIFFERENCE, MATCHED, MERGED } from "./places.ts";
import type { StripeSide } from "./stripe-table.ts";
import { makeTieOut } from "./tie-out.ts";
import type {
  Bridge,
  ClassSummary,
  Difference,
  InputProblem,
  ReconcileOptions,
  Report,
  RollForwardCheck,
  RowCounts,
} from "./types.ts";

/** Everything that a report is made of. */
interface Outcome {
  readonly side: StripeSide;
  readonly ledgerTable: LedgerTable;
  readonly links: Links;
  readonly classified: Classified;
  readonly currencies: Currencies;
  readonly times: RunTimes;
  readonly options: ReconcileOptions;
  readonly ledgerHash: string | null;
  readonly warnings: readonly InputProblem[];
}

export function makeReport(outcome: Outcome): Report {
  const { side, ledgerTable, links, classified, currencies, times, options } = outcome;
  const { differences, sums, byPass } = classified;
  const bridge = makeBridge(sums, currencies);
  const tieOut = makeTieOut(side, links, currencies, times, options);
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
    period: { from: isoTime(times.from) as string, to: isoTime(times.to) as string },
    tied_out: tiedOut,
    inputs: side.files,
    ledger_input: {
      sha256: outcome.ledgerHash,
      records: ledgerTable.length,
      window: ledgerWindow(ledgerTable),
    },
    watermark: isoTime(times.watermark),
    stripe_rows: countRows(links.stripePlace),
    ledger_rows: countRows(links.ledgerPlace),
    matched_by_pass: PASSES.flatMap((by, pass) => (pass === 0 ? [] : [{ pass, by, count: byPass[pass] }])),
    tie_out: tieOut,
    bridge,
    roll_forward: rollForward,
    deferred_revenue: deferredRevenue(ledgerTable, links, currencies, times.to),
    classes,
    differences,
    warnings: outcome.warnings,
  };
}

function ledgerWindow(ledgerTable: LedgerTable): Report["ledger_input"]["window"] {
  const { created } = ledgerTable.columns;
  let first = Number.POSITIVE_INFINITY;
  let last = Number.NEGATIVE_INFINITY;
  for (let record = 0; record < ledgerTable.length; record++) {
    if (created[record] < first) first = created[record];
    if (created[record] > last) last = created[record];
  }
  return first <= last ? { from: isoTime(first) as string, to: isoTime(last) as string } : null;
}

function countRows(places: Uint8Array): RowCounts {
  let matched = 0;
  let inDifferences = 0;
  let merged = 0;
  let duplicates = 0;
  const excluded: Record<string, number> = {};
  const tallies = new Float64Array(EXCLUSIONS.length);
  for (let i = 0; i < places.length; i++) {
    const where = places[i];
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
  return { rows: places.length, matched, in_differences: inDifferences, merged, duplicates, excluded };
}

function makeBridge(sums: Sums, currencies: Currencies): Bridge[] {
  const bridge: Bridge[] = [];
  const none = { amount: 0, count: 0 };
  for (let currency = 1; currency < currencies.count; currency++) {
    const stripe = sums.stripe.get(currency) ?? none;
    const ledger = sums.ledger.get(currency) ?? none;
    const matched = sums.matched.get(currency) ?? none;
    const besides = sums.besides.get(currency) ?? none;
    const lines = DIFFERENCE_CLASSES.flatMap((name) => {
      const sum = sums.byClass.get(`${currency}/${name}`);
      return sum ? [{ class: name, count: sum.count, amount_minor: sum.amount }] : [];
    });
    if (stripe.count + ledger.count + lines.length === 0) continue;
    const explained = lines.reduce((sum, line) => sum + line.amount_minor, besides.amount);
    bridge.push({
      currency: currencies.code(currency),
      stripe_gross_minor: stripe.amount,
      stripe_count: stripe.count,
      lines,
      besides_minor: besides.amount,
      ledger_minor: ledger.amount,
      ledger_count: ledger.count,
      matched_minor: matched.amount,
      matched_count: matched.count,
      unexplained_minor: stripe.amount - ledger.amount - explained,
    });
  }
  return bridge.sort((a, b) => (a.currency < b.currency ? -1 : 1));
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

/**
 * Money that corresponds to unspent tokens: per lot, its price in proportion to what is left, rounded down. Of a year
 * paid in advance, which gives its tokens month by month, the ledger has it by the days that are left.
 */
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
      links.ledgerPlace[record] === DUPLICATE
    )
      continue;
    const remaining = ledger.remaining[record];
    const granted = ledger.tokens[record] + links.adjusted[record];
    const amount = ledger.booked[record] > 0 ? ledger.booked[record] - 1 : ledger.amount[record];
    const byDays = ledger.deferred[record] - 1;
    if ((remaining <= 0 && byDays <= 0) || amount < 0 || granted <= 0) continue;
    const currency = ledger.currency[record];
    let sum = sums.get(currency);
    if (sum === undefined) {
      sum = { lots: 0, tokens: 0, amount: 0 };
      sums.set(currency, sum);
    }
    sum.lots++;
    sum.tokens += Math.max(0, remaining);
    sum.amount += byDays >= 0 ? byDays : proRata(amount, remaining, granted);
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
