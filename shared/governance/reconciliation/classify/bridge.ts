import type { Frame } from "../frame.ts";
import type { LedgerTable } from "../ledger-side.ts";
import { paidForAll } from "../link/passes.ts";
import type { StripeTable } from "../stripe-table.ts";
import type { DifferenceClass } from "../classes.ts";

interface Sum {
  amount: number;
  count: number;
}

/** Sums by currency, of the period alone: from Stripe's gross, line by line, to the ledger's purchases. */
export interface Sums {
  readonly stripe: ReadonlyMap<number, Readonly<Sum>>;
  readonly ledger: ReadonlyMap<number, Readonly<Sum>>;
  readonly matched: ReadonlyMap<number, Readonly<Sum>>;
  /** What payments took beside the tokens: tax, other things sold with them. */
  readonly besides: ReadonlyMap<number, Readonly<Sum>>;
  /** Lines of the bridge by `currency/CLASS`: Stripe's side less the ledger's. */
  readonly byClass: ReadonlyMap<string, Readonly<Sum>>;
}

export type Bridge = ReturnType<typeof createBridge>;

export function createBridge(stripeTable: StripeTable, ledgerTable: LedgerTable, { from, to }: Frame) {
  const stripe = stripeTable.columns;
  const ledger = ledgerTable.columns;
  const sums = {
    stripe: new Map<number, Sum>(),
    ledger: new Map<number, Sum>(),
    matched: new Map<number, Sum>(),
    besides: new Map<number, Sum>(),
    byClass: new Map<string, Sum>(),
  };
  function tally<Key>(map: Map<Key, Sum>, key: Key, amount: number): void {
    const sum = map.get(key);
    if (sum) {
      sum.amount += amount;
      sum.count++;
    } else map.set(key, { amount, count: 1 });
  }
  const isInPeriod = (time: number): boolean => time >= from && time < to;
  const bookedFor = (record: number): number =>
    ledger.booked[record] > 0 ? ledger.booked[record] - 1 : Math.max(0, ledger.amount[record]);

  /** Nearly all pairs are of one payment and one grant of the same money: done without a list. False for others. */
  function matchOne(event: number, record: number): boolean {
    const currency = stripe.currency[event];
    const amount = stripe.amount[event];
    if (currency !== ledger.currency[record] || bookedFor(record) !== amount || ledger.paid[record] !== 0)
      return false;
    if (!isInPeriod(stripe.created[event]) || !isInPeriod(ledger.created[record])) return false;
    tally(sums.stripe, currency, amount);
    tally(sums.ledger, currency, amount);
    tally(sums.matched, currency, amount);
    return true;
  }

  /** Payments and their grants, of which money is off by a class; or, without one, it agrees. */
  function pair(name: DifferenceClass | null, events: readonly number[], records: readonly number[]): void {
    if (name === null && events.length === 1 && records.length === 1 && matchOne(events[0], records[0]))
      return;
    const off = new Map<number, number>();
    const add = (currency: number, amount: number): void => {
      off.set(currency, (off.get(currency) ?? 0) + amount);
    };
    let isWhole = true;
    let paid = 0;
    for (const event of events) {
      paid += stripe.amount[event];
      if (isInPeriod(stripe.created[event])) {
        tally(sums.stripe, stripe.currency[event], stripe.amount[event]);
        add(stripe.currency[event], stripe.amount[event]);
      } else isWhole = false;
    }
    let forTokens = 0;
    for (const record of records) {
      forTokens += bookedFor(record);
      if (isInPeriod(ledger.created[record])) {
        tally(sums.ledger, ledger.currency[record], bookedFor(record));
        add(ledger.currency[record], -bookedFor(record));
      } else isWhole = false;
    }
    const besides = events.length > 0 && records.length > 0 ? paidForAll(ledger, records) - forTokens : 0;
    if (besides > 0 && isInPeriod(stripe.created[events[0]])) {
      tally(sums.besides, stripe.currency[events[0]], besides);
      add(stripe.currency[events[0]], -besides);
    }
    // A payment at the end of one period whose grant came in the next: a matter of time for both.
    const line = name ?? (isWhole ? null : "TIMING");
    for (const [currency, amount] of off)
      if (line !== null && (amount !== 0 || name !== null))
        tally(sums.byClass, `${currency}/${line}`, amount);
    if (name === null && isWhole && events.length > 0) tally(sums.matched, stripe.currency[events[0]], paid);
  }

  return { sums: sums as Sums, isInPeriod, bookedFor, pair };
}
