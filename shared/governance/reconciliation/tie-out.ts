import { proRata } from "../money/index.ts";
import type { Currencies } from "./cells.ts";
import type { RunTimes } from "./run-times.ts";
import type { Links } from "./link/index.ts";
import { DUPLICATE } from "./places.ts";
import {
  CHARGE,
  CHARGE_FAILURE,
  DISPUTE,
  DISPUTE_REVERSAL,
  FEE,
  LOST,
  OPEN,
  PAID,
  PARTIAL_CAPTURE,
  PAYOUT,
  REFUND,
  REFUND_FAILURE,
  type StripeSide,
  WITHDRAWN,
  WON,
} from "./stripe-table.ts";
import type { ReconcileOptions, TieOut } from "./types.ts";

/** Parts of a movement, as the statement has them. */
type Part = "gross" | "refunds" | "disputes" | "reversals" | "fees" | "payouts" | "other";

const PART_OF_KIND: Readonly<Partial<Record<number, Part>>> = {
  [CHARGE]: "gross",
  // The part that was never captured was booked with the payment.
  [PARTIAL_CAPTURE]: "gross",
  [REFUND]: "refunds",
  [DISPUTE]: "disputes",
  [DISPUTE_REVERSAL]: "reversals",
  [REFUND_FAILURE]: "reversals",
  [CHARGE_FAILURE]: "reversals",
  [PAYOUT]: "payouts",
  [FEE]: "fees",
};

class Sums {
  readonly gross: Float64Array;
  readonly refunds: Float64Array;
  readonly disputes: Float64Array;
  readonly reversals: Float64Array;
  readonly fees: Float64Array;
  readonly payouts: Float64Array;
  readonly other: Float64Array;
  readonly net: Float64Array;
  readonly rows: Float64Array;
  constructor(size: number) {
    const zero = (): Float64Array => new Float64Array(size);
    this.gross = zero();
    this.refunds = zero();
    this.disputes = zero();
    this.reversals = zero();
    this.fees = zero();
    this.payouts = zero();
    this.other = zero();
    this.net = zero();
    this.rows = zero();
  }
}

/** Per settlement currency, from balance transactions if a file has them, else from the payments list. */
export function makeTieOut(
  side: StripeSide,
  links: Links,
  currencies: Currencies,
  times: RunTimes,
  options: ReconcileOptions,
): TieOut[] {
  const sums = new Sums(currencies.count);
  if (side.has.cash) addMovements(side, links, times, sums);
  else addPayments(side, links, times, sums);
  const lines: TieOut[] = [];
  for (let currency = 1; currency < currencies.count; currency++) {
    const value = (part: Part | "net" | "rows"): number => sums[part][currency] || 0;
    const code = currencies.code(currency);
    const movement = (
      ["gross", "refunds", "disputes", "reversals", "fees", "payouts", "other"] as const
    ).reduce((sum, part) => sum + value(part), 0);
    if (value("rows") === 0 && movement === 0) continue;
    const opening = options.opening_balances?.[code] ?? null;
    lines.push({
      currency: code,
      source: side.has.cash ? "balance" : "payments",
      opening_minor: opening,
      gross_minor: value("gross"),
      refunds_minor: value("refunds"),
      disputes_minor: value("disputes"),
      reversals_minor: value("reversals"),
      fees_minor: value("fees"),
      payouts_minor: value("payouts"),
      other_minor: value("other"),
      net_minor: movement,
      closing_minor: opening === null ? null : opening + movement,
      unexplained_minor: side.has.cash ? value("net") - movement : null,
      rows: value("rows"),
    });
  }
  return lines.sort((a, b) => (a.currency < b.currency ? -1 : 1));
}

/** Every balance transaction of the period, once. */
function addMovements(side: StripeSide, links: Links, { from, to }: RunTimes, sums: Sums): void {
  const stripe = side.table.columns;
  for (let event = 0; event < side.table.length; event++) {
    const currency = stripe.cashCurrency[event];
    if (currency === 0 || stripe.test[event] || stripe.foreign[event]) continue;
    if (links.cashCounts[event] !== 1) continue;
    if (stripe.created[event] < from || stripe.created[event] >= to) continue;
    sums.fees[currency] -= stripe.fee[event];
    sums.net[currency] += stripe.net[event];
    sums.rows[currency]++;
    sums[PART_OF_KIND[stripe.kind[event]] ?? "other"][currency] += stripe.cash[event];
  }
}

/**
 * The payments list has no movements: a refund or a dispute counts when it was made where the list says, else with its
 * payment. Fees of disputes are not in it.
 */
function addPayments(side: StripeSide, links: Links, { from, to }: RunTimes, sums: Sums): void {
  const stripe = side.table.columns;
  const isInPeriod = (time: number): boolean => time >= from && time < to;
  for (let event = 0; event < side.table.length; event++) {
    const currency = stripe.cashCurrency[event];
    if (currency === 0 || stripe.test[event] || stripe.foreign[event]) continue;
    if (stripe.kind[event] !== CHARGE || stripe.state[event] !== PAID) continue;
    if (links.mergedInto[event] !== -1 || links.stripePlace[event] === DUPLICATE) continue;
    const cash = stripe.cash[event];
    const isSettled = stripe.currency[event] !== currency;
    const created = stripe.created[event];
    if (isInPeriod(created)) {
      sums.gross[currency] += cash;
      sums.fees[currency] -= stripe.fee[event];
      sums.rows[currency]++;
    }
    const refunded = stripe.refunded[event];
    if (refunded > 0 && isInPeriod(stripe.refundedAt[event] || created))
      sums.refunds[currency] -= isSettled
        ? stripe.cashRefunded[event] ||
          proRata(cash, Math.min(refunded, stripe.amount[event]), stripe.amount[event] || 1)
        : Math.min(refunded, cash);
    const state = links.disputeOf[event];
    if (state !== OPEN && state !== WITHDRAWN && state !== LOST && state !== WON) continue;
    if (!isInPeriod(links.disputedAt[event] || created)) continue;
    const disputed = Math.min(links.disputedOf[event], stripe.amount[event]);
    const moved = isSettled ? proRata(cash, disputed, stripe.amount[event] || 1) : disputed;
    sums.disputes[currency] -= moved;
    if (state === WON) sums.reversals[currency] += moved;
  }
}
