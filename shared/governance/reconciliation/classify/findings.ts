import { formatMoney } from "../../money/index.ts";
import { type Currencies, isoTime } from "../cells.ts";
import type { Interner } from "../interner.ts";
import type { RunTimes } from "../run-times.ts";
import type { LedgerTable } from "../ledger-side.ts";
import { type Links, PASSES } from "../link/index.ts";
import { IN_DIFFERENCE } from "../places.ts";
import { EVENT_NAMES, REFUND, REFUND_FAILURE, type StripeSide } from "../stripe-table.ts";
import type { DifferenceClass } from "../classes.ts";
import type { CorrectionAction, ReconcileOptions } from "../types.ts";
import { createBridge } from "./bridge.ts";
import { createPackPrices } from "./packs.ts";

export interface Draft {
  readonly class: DifferenceClass;
  readonly key: string;
  readonly event: number;
  readonly record: number;
  readonly amount: number;
  readonly currency: number;
  readonly tokens: number;
  readonly occurred: number;
  readonly trail: readonly string[];
  readonly explanation: string;
  readonly action: CorrectionAction;
  readonly words: string;
  readonly correctionTokens?: number | null;
  readonly packId?: string | null;
  readonly correctionAmount?: number | null;
  readonly correctionCurrency?: number;
  readonly blocks?: boolean;
  readonly refundedMinor?: number;
  suggestion?: { draft: Draft; words: string };
}

/** The fields that each draft is given; `aboutEvent` and `aboutGrant` fill in the rest. */
export type Finding = Pick<Draft, "class" | "trail" | "explanation" | "action" | "words"> & Partial<Draft>;

/** `1,234,567`, the same in every locale. */
export const count = (n: number): string => String(n).replace(/\B(?=(\d{3})+$)/g, ",");

/** Amounts and tokens of rows of both sides, and the words for them. */
function createWords(
  side: StripeSide,
  ledgerTable: LedgerTable,
  links: Links,
  interner: Interner,
  currencies: Currencies,
) {
  const stripe = side.table.columns;
  const ledger = ledgerTable.columns;
  const text = (key: number): string | null => (key === 0 ? null : interner.text(key));
  /** The money collected for a grant. */
  const grantMoney = (record: number): number => Math.max(0, ledger.amount[record]);
  const money = (amount: number, currency: number): string =>
    currency === 0 ? "an amount without a currency" : formatMoney(amount, currencies.code(currency));
  /** The ledger's amount of an entry, in words: there may be none. */
  const bookedWords = (record: number): string =>
    ledger.amount[record] < 0 ? "no amount" : money(ledger.amount[record], ledger.currency[record]);
  const isReturn = (event: number): boolean =>
    stripe.kind[event] === REFUND || stripe.kind[event] === REFUND_FAILURE;
  const eventKey = (event: number): string =>
    text(stripe.object[event]) ??
    (isReturn(event) ? text(stripe.transaction[event]) : null) ??
    text(stripe.intent[event]) ??
    text(stripe.session[event]) ??
    text(stripe.transaction[event]) ??
    `no-id-${isoTime(stripe.created[event]) ?? "no-time"}-${stripe.amount[event]}-${text(stripe.customer[event]) ?? "nobody"}`;
  const grantKey = (record: number): string => `entry-${ledger.transaction[record]}`;
  const paymentOf = (event: number): string => `${EVENT_NAMES[stripe.kind[event]]} ${eventKey(event)}`;
  const granted = (record: number): number => ledger.tokens[record] + links.adjusted[record];
  /** The amount of a payment; where several paid one invoice, of all of them together. */
  const paidAmount = (event: number): number =>
    links.partsOf.size === 0
      ? stripe.amount[event]
      : partsOf(event).reduce((sum, part) => sum + stripe.amount[part], 0);
  const partsOf = (event: number): readonly number[] => links.partsOf.get(event) ?? [event];
  /** Tokens of a grant that nothing has taken back yet. */
  const stillGranted = (record: number): number =>
    Math.max(0, granted(record) - links.reversed[record] - links.clawed[record]);
  const linkWords = (record: number, event: number): string =>
    `entry ${ledger.transaction[record]} ↔ ${eventKey(event)} by ${PASSES[links.claimPass[record]]}`;
  return {
    text,
    money,
    bookedWords,
    eventKey,
    grantKey,
    paymentOf,
    granted,
    grantMoney,
    paidAmount,
    partsOf,
    stillGranted,
    linkWords,
  };
}

/** Both sides, what is found in them, and the words for it: what the families of classes share. */
export type Findings = ReturnType<typeof createFindings>;

export function createFindings(
  side: StripeSide,
  ledgerTable: LedgerTable,
  links: Links,
  interner: Interner,
  currencies: Currencies,
  times: RunTimes,
  options: ReconcileOptions,
) {
  const stripe = side.table.columns;
  const ledger = ledgerTable.columns;
  const { stripePlace, ledgerPlace } = links;
  const drafts: Draft[] = [];
  /** Matches by pass. */
  const byPass: number[] = PASSES.map(() => 0);
  const bridge = createBridge(side.table, ledgerTable, times);
  const { isInPeriod } = bridge;
  const words = createWords(side, ledgerTable, links, interner, currencies);
  const { eventKey, grantKey, grantMoney, stillGranted } = words;
  /** Nothing that happened after the period is one of its differences. */
  const isJudged = (time: number): boolean => !(time >= times.to);

  /** A difference about a row of Stripe's. */
  function aboutEvent(event: number, finding: Finding): void {
    drafts.push({
      key: eventKey(event),
      event,
      record: -1,
      amount: 0,
      currency: stripe.currency[event],
      tokens: 0,
      occurred: stripe.created[event],
      ...finding,
    });
  }
  /** A grant whose money has no counterpart: off the bridge with it. `event` is the payment it is about, −1 for none. */
  function aboutGrant(record: number, event: number, finding: Finding): void {
    ledgerPlace[record] = IN_DIFFERENCE;
    bridge.pair(finding.class, [], [record]);
    drafts.push({
      key: grantKey(record),
      event,
      record,
      amount: -grantMoney(record),
      currency: ledger.currency[record],
      tokens: 0,
      occurred: ledger.created[record],
      ...finding,
    });
  }
  /** As aboutGrant, for tokens that are to be taken back. */
  function reverseGrant(
    record: number,
    event: number,
    finding: Omit<Finding, "action" | "words">,
    words: (back: string) => string,
  ): void {
    const back = stillGranted(record);
    aboutGrant(record, event, {
      ...finding,
      action: "reverse",
      words: words(count(back)),
      tokens: back,
      correctionTokens: -back,
    });
  }

  return {
    side,
    ledgerTable,
    links,
    interner,
    currencies,
    times,
    stripe,
    ledger,
    stripePlace,
    ledgerPlace,
    drafts,
    ...words,
    bridge,
    byPass,
    isInPeriod,
    isJudged,
    aboutEvent,
    aboutGrant,
    reverseGrant,
    otherSales: new Set(options.known_payments?.other_sales),
    packs: createPackPrices(options.packs ?? [], interner, currencies),
    /** Grants whose refunds, whose disputes are in a difference: their records go there too. */
    refundsInDifference: new Set<number>(),
    disputesInDifference: new Set<number>(),
    /** Ledger records of refunds that a refund of Stripe's matched, or disagreed with. */
    matchedRefunds: new Set<number>(),
    disputedRefunds: new Set<number>(),
  };
}
