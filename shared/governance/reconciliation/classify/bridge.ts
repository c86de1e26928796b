import type { RunTimes } from "../run-times.ts";
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
  /** The part of payments that was not for tokens: tax, other things sold with them. */
  readonly besides: ReadonlyMap<number, Readonly<Sum>>;
  /** Lines of the bridge by `currency/CLASS`: Stripe's side less the ledger's. */
  readonly byClass: ReadonlyMap<string, Readonly<Sum>>;
}

export function createBridge(stripeTable: StripeTable, ledgerTable: LedgerTable, { from, to }: RunTimes) {
  const stripe = stripeTable.columns;
  const ledger = ledgerTable.columns;
  const sums = {
    stripe: new Map<number, Sum>(),
    ledger: new Map<number, Sum>(),
    matched: new Map<number, Sum>(),
    besides: new Map<number, Sum>(),
    byClass: new Map<string, Sum>(),
  };
  function tally<Key>(map: Map<Key, Sum>, key: Key, amount: number, count = 1): void {
    const sum = map.get(key);
    if (sum) {
      sum.amount += amount;
      sum.count += count;
    } else map.set(key, { amount, count });
  }
  const isInPeriod = (time: number): boolean => time >= from && time < to;
  /** Payments made outside of Stripe are booked too, and are not part of Stripe's cash. */
  const bookedFor = (record: number): number => {
    const collected = Math.max(0, ledger.amount[record]);
    return ledger.booked[record] > 0 ? Math.min(ledger.booked[record] - 1, collected) : collected;
  };

  /** Pairs of the same money that are not in the sums yet: of one currency, mostly all of them. */
  const alike = { currency: 0, amount: 0, count: 0 };
  function addAlike(next: number): void {
    for (const map of [sums.stripe, sums.ledger, sums.matched])
      if (alike.count > 0) tally(map, alike.currency, alike.amount, alike.count);
    Object.assign(alike, { currency: next, amount: 0, count: 0 });
  }

  /** One payment and its one grant, where money and period of both are the same; false for others. */
  function matchOne(event: number, record: number): boolean {
    const currency = stripe.currency[event];
    const amount = stripe.amount[event];
    if (currency !== ledger.currency[record] || bookedFor(record) !== amount || ledger.paid[record] !== 0)
      return false;
    if (!isInPeriod(stripe.created[event]) || !isInPeriod(ledger.created[record])) return false;
    if (currency !== alike.currency) addAlike(currency);
    alike.amount += amount;
    alike.count++;
    return true;
  }

  /** Payments and their grants, of which money is off by a class; or, without one, it agrees. */
  function pair(name: DifferenceClass | null, events: readonly number[], records: readonly number[]): void {
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

  /** The sums of all that was paired. */
  function finish(): Sums {
    addAlike(0);
    return sums;
  }

  return { finish, isInPeriod, bookedFor, matchOne, pair };
}
