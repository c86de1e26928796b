import { formatMoney, proRata } from "../money/index.ts";
import { type Currencies, isoTime, parseTime } from "./cells.ts";
import { firstOf } from "./columns.ts";
import type { Interner } from "./interner.ts";
import {
  ADJUSTMENT,
  CLAWBACK,
  GRANT,
  HOLD,
  type LedgerTable,
  PROMOTIONAL,
  RECORD_TYPES,
  REFUND_RECORD,
  RELABEL,
  RELEASE,
  RESTORATION,
  SUBSCRIPTION_GRANT,
} from "./ledger-side.ts";
import {
  CLAWED,
  DUPLICATE,
  exclude,
  FREE,
  HELD,
  IN_DIFFERENCE,
  type Links,
  MATCHED,
  PASSES,
  PENDING_ROW,
} from "./match.ts";
import {
  CHARGE,
  DISPUTE,
  DISPUTE_REVERSAL,
  DISPUTE_STATES,
  EVENT_NAMES,
  FEE,
  INQUIRY,
  LOST,
  NO_DISPUTE,
  NOT_PAID,
  OPEN,
  OTHER,
  PAID,
  PAYMENT_STATES,
  PAYOUT,
  PENDING,
  REFUND,
  REFUND_FAILURE,
  type StripeSide as StripeSideData,
  UNCAPTURED,
  UNKNOWN,
  WITHDRAWN,
  WON,
} from "./stripe-side.ts";
import {
  type Correction,
  type CorrectionAction,
  DIFFERENCE_CLASSES,
  type Difference,
  type DifferenceClass,
  type LedgerSide,
  type PackPrice,
  type ReconcileOptions,
  type StripeSide,
} from "./types.ts";

const HOUR = 3600;

/** The frame that time-dependent classes are decided in, in seconds since 1970. */
export interface Frame {
  readonly from: number;
  readonly to: number;
  /** What the Stripe files cover. */
  readonly coveredTo: number;
  /** Of the last thing that they know. */
  readonly watermark: number;
  /** A payment after this may still get its grant. */
  readonly grantedBy: number;
}

/** Sums kept beside the differences, per currency: the bridge is checked with them. */
export interface Sums {
  readonly stripe: Map<number, { amount: number; count: number }>;
  readonly ledger: Map<number, { amount: number; count: number }>;
  readonly matched: Map<number, { amount: number; count: number }>;
  readonly byClass: Map<string, { currency: number; class: DifferenceClass; amount: number; count: number }>;
  readonly byPass: number[];
}

export interface Classified {
  readonly differences: Difference[];
  readonly sums: Sums;
}

interface Draft {
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

const NOT_BOOKED: ReadonlySet<CorrectionAction> = new Set([
  "propose_refund",
  "investigate",
  "carry_forward",
  "exclude",
  "list",
]);

const count = (n: number): string => String(n).replace(/\B(?=(\d{3})+$)/g, ",");

/** Gives every row of both sides its place: matched, in a difference of one class, or excluded with a reason. */
export function classify(
  side: StripeSideData,
  ledger: LedgerTable,
  links: Links,
  interner: Interner,
  currencies: Currencies,
  frame: Frame,
  options: ReconcileOptions,
): Classified {
  const s = side.table.columns;
  const l = ledger.columns;
  const events = side.table.length;
  const records = ledger.length;
  const text = (key: number): string | null => (key === 0 ? null : interner.text(key));
  const { stripeDisposition: stripe, ledgerDisposition: books } = links;
  const drafts: Draft[] = [];
  /** Rows whose own arithmetic is off, whatever else becomes of them. */
  const feeRows = new Set<number>();
  const refundInDifference = new Set<number>();
  const disputeInDifference = new Set<number>();
  const refundMatched = new Set<number>();
  const refundInRecord = new Set<number>();
  const bestByKey = new Map<string, number>();
  /** The one grant of nearly every charge, without a list each time. */
  const only: number[] = [0];
  const tally = (
    map: Map<number, { amount: number; count: number }>,
    currency: number,
    amount: number,
  ): void => {
    const sum = map.get(currency);
    if (sum) {
      sum.amount += amount;
      sum.count++;
    } else map.set(currency, { amount, count: 1 });
  };
  const sums: Sums = {
    stripe: new Map(),
    ledger: new Map(),
    matched: new Map(),
    byClass: new Map(),
    byPass: [0, 0, 0, 0, 0, 0, 0],
  };
  /** A line of the bridge: Stripe's side less the ledger's. */
  const bridge = (name: DifferenceClass, currency: number, amount: number): void => {
    const key = `${currency}/${name}`;
    const sum = sums.byClass.get(key);
    if (sum) {
      sum.amount += amount;
      sum.count++;
    } else sums.byClass.set(key, { currency, class: name, amount, count: 1 });
  };

  const packs = new Map<string, (PackPrice & { from: number })[]>();
  for (const price of options.packs ?? []) {
    const list = packs.get(price.pack_id) ?? [];
    list.push({ ...price, from: parseTime(price.valid_from) });
    packs.set(price.pack_id, list);
  }
  for (const list of packs.values()) list.sort((a, b) => a.from - b.from);
  const packAt = (packId: string | null, time: number): PackPrice | null => {
    let found: PackPrice | null = null;
    for (const price of packId === null ? [] : (packs.get(packId) ?? []))
      if (price.from <= time) found = price;
    return found;
  };
  const pricesByKey = new Map<number, readonly (PackPrice & { from: number })[] | null>();
  /** As packAt, without making the pack's name each time. */
  const packByKey = (key: number, time: number): PackPrice | null => {
    if (key === 0) return null;
    let prices = pricesByKey.get(key);
    if (prices === undefined) {
      prices = packs.get(interner.text(key)) ?? null;
      pricesByKey.set(key, prices);
    }
    if (prices === null) return null;
    let found: PackPrice | null = null;
    for (let i = 0; i < prices.length; i++) {
      const price = prices[i] as PackPrice & { from: number };
      if (price.from > time) break;
      found = price;
    }
    return found;
  };
  const packPaidFor = (event: number): PackPrice | null => {
    const time = s.created[event] as number;
    const named = packByKey(s.pack[event] as number, time);
    if (named) return named;
    const code = currencies.code(s.currency[event] as number);
    const fitting = [...packs.keys()]
      .map((packId) => packAt(packId, time))
      .filter(
        (price) =>
          price !== null &&
          price.price_minor === (s.amount[event] as number) &&
          price.currency.toLowerCase() === code,
      );
    return fitting.length === 1 ? (fitting[0] ?? null) : null;
  };

  const money = (amount: number, currency: number): string =>
    formatMoney(amount, currencies.code(currency) || "xxx");
  const eventKey = (e: number): string =>
    text(s.object[e] as number) ??
    text(s.intent[e] as number) ??
    text(s.session[e] as number) ??
    text(s.transaction[e] as number) ??
    `no-id-${isoTime(s.created[e] as number) ?? "no-time"}-${s.amount[e] as number}-${text(s.customer[e] as number) ?? "nobody"}`;
  const grantKey = (r: number): string => `entry-${l.transaction[r] as number}`;
  const paymentOf = (e: number): string => `${EVENT_NAMES[s.kind[e] as number]} ${eventKey(e)}`;
  const granted = (r: number): number => (l.tokens[r] as number) + (links.adjusted[r] as number);

  // --- rows that say nothing about tokens ---------------------------------------------------------------------------
  const conflicts = new Set(links.conflicts);
  for (const e of conflicts)
    drafts.push({
      class: "ORPHAN",
      key: `${eventKey(e)}-${s.amount[e] as number}-${currencies.code(s.currency[e] as number)}`,
      event: e,
      record: -1,
      amount: s.amount[e] as number,
      currency: s.currency[e] as number,
      tokens: 0,
      occurred: s.created[e] as number,
      trail: [`${eventKey(e)} stands twice in one file, with different amounts`],
      explanation: `Two rows of one file claim the id ${eventKey(e)} and disagree. The other row was used.`,
      action: "investigate",
      words: "Export the file again; if both rows come back, ask Stripe.",
    });
  for (let e = 0; e < events; e++) {
    if ((links.cashCounts[e] as number) === 1) checkRow(e);
    if (stripe[e] !== PENDING_ROW) continue;
    if (s.foreign[e] as number) stripe[e] = exclude("other_account");
    else if (s.test[e] as number) testMode(e);
    else
      switch (s.kind[e] as number) {
        case FEE:
          stripe[e] = exclude("fee");
          break;
        case PAYOUT:
          stripe[e] = exclude("payout");
          break;
        case OTHER:
          stripe[e] = exclude("other_movement");
          break;
        case UNKNOWN:
          unknownRow(e);
          break;
        case CHARGE:
          if ((s.state[e] as number) === NOT_PAID) {
            if ((links.claims.first[e] as number) < 0) stripe[e] = exclude("not_paid");
          } else if ((s.state[e] as number) === PENDING) stripe[e] = exclude("pending");
          else if ((s.state[e] as number) === UNCAPTURED) stripe[e] = exclude("not_captured");
          break;
      }
  }

  function checkRow(e: number): void {
    const off = (s.cash[e] as number) - (s.fee[e] as number) - (s.net[e] as number);
    if (off === 0) return;
    const currency = s.cashCurrency[e] as number;
    if (stripe[e] === PENDING_ROW || stripe[e] === MATCHED) feeRows.add(e);
    drafts.push({
      class: "FEE_VARIANCE",
      key: text(s.transaction[e] as number) ?? eventKey(e),
      event: e,
      record: -1,
      amount: off,
      currency,
      tokens: 0,
      occurred: s.created[e] as number,
      trail: [
        `gross ${money(s.cash[e] as number, currency)} − fee ${money(s.fee[e] as number, currency)} ≠ net ${money(s.net[e] as number, currency)}`,
      ],
      explanation: `Gross less fee is not net in this row: ${money(off, currency)} is missing. The tie-out is blocked.`,
      action: "investigate",
      words: "Export the file again; a damaged or edited row is the usual cause.",
    });
  }
  function testMode(e: number): void {
    stripe[e] = IN_DIFFERENCE;
    drafts.push({
      class: "TEST_MODE_LEAK",
      key: eventKey(e),
      event: e,
      record: -1,
      amount: 0,
      currency: s.currency[e] as number,
      tokens: 0,
      occurred: s.created[e] as number,
      trail: [`${text(s.session[e] as number) ?? eventKey(e)} is of test mode`],
      explanation: `${paymentOf(e)} is a test payment in a live export. It was left out.`,
      action: "exclude",
      words: "Leave it out, and find out why a test row is in a live export.",
      blocks: false,
    });
  }
  function unknownRow(e: number): void {
    stripe[e] = IN_DIFFERENCE;
    const category = text(s.category[e] as number) ?? "(empty)";
    const amount = s.amount[e] as number;
    drafts.push({
      class: "UNKNOWN_CATEGORY",
      key: text(s.transaction[e] as number) ?? eventKey(e),
      event: e,
      record: -1,
      amount,
      currency: s.currency[e] as number,
      tokens: 0,
      occurred: s.created[e] as number,
      trail: [`status or category "${category}"`],
      explanation: `"${category}" is a status or category that is not known here, so nothing can be said about its tokens.`,
      action: "investigate",
      words: "Find out what it is at Stripe; then treat the row by hand or update this program.",
    });
  }

  // --- charges and the grants that claim them -----------------------------------------------------------------------
  const chargesSeen = side.has.payments || side.has.cash;
  for (let e = 0; e < events; e++) {
    if ((s.kind[e] as number) !== CHARGE || stripe[e] !== PENDING_ROW) continue;
    const first = links.claims.first[e] as number;
    if ((s.state[e] as number) === NOT_PAID) {
      for (let r = first; r >= 0; r = links.claims.next[r] as number) grantedNotPaid(r, e);
      stripe[e] = IN_DIFFERENCE;
    } else if (first < 0) unclaimedCharge(e);
    else claimedCharge(e, first);
  }

  function paidInBridge(e: number): void {
    tally(sums.stripe, s.currency[e] as number, s.amount[e] as number);
  }
  function grantInBridge(r: number): void {
    tally(sums.ledger, l.currency[r] as number, Math.max(0, l.amount[r] as number));
  }
  function grantMoney(r: number): number {
    return Math.max(0, l.amount[r] as number);
  }

  function unclaimedCharge(e: number): void {
    const amount = s.amount[e] as number;
    const currency = s.currency[e] as number;
    const created = s.created[e] as number;
    if (created < frame.from || created >= frame.to) {
      stripe[e] = exclude("outside_period");
      return;
    }
    const sibling = siblingOf(e);
    if (
      (links.refundedOf[e] as number) >= amount ||
      ((links.disputeOf[e] as number) === LOST && (links.disputedOf[e] as number) >= amount)
    ) {
      stripe[e] = exclude("refunded_in_full");
      return;
    }
    stripe[e] = IN_DIFFERENCE;
    paidInBridge(e);
    const base = { key: eventKey(e), event: e, record: -1, amount, currency, occurred: created };
    const tried = `no grant by ${
      [
        (s.object[e] as number) && "charge",
        (s.intent[e] as number) && "payment intent",
        (s.session[e] as number) && "checkout session",
        ((s.order[e] as number) || (s.reference[e] as number)) && "order",
        (s.invoice[e] as number) && "invoice",
      ]
        .filter(Boolean)
        .join(", ") || "any id: the row has none"
    }`;
    if (created > frame.grantedBy) {
      bridge("TIMING", currency, amount);
      drafts.push({
        ...base,
        class: "TIMING",
        tokens: 0,
        trail: [tried],
        explanation: `Paid less than the grace time before the end of the period; its grant may still come.`,
        action: "carry_forward",
        words: "Carry forward to the next period.",
        blocks: false,
      });
      return;
    }
    if (sibling >= 0) {
      bridge("DUPLICATE_CHARGE", currency, amount);
      drafts.push({
        ...base,
        class: "DUPLICATE_CHARGE",
        tokens: 0,
        trail: [tried, `same order as ${paymentOf(sibling)}`],
        explanation: `The customer was charged twice for one order: ${eventKey(e)} and ${eventKey(sibling)}. Tokens were granted for one at most.`,
        action: "propose_refund",
        words: `Refund ${money(amount, currency)} of ${eventKey(e)} in Stripe.`,
        correctionTokens: 0,
        correctionAmount: amount,
      });
      return;
    }
    // A subscription's tokens are its plan's: the price of a pack that happens to be the same says nothing.
    const pack = (s.invoice[e] as number) === 0 ? packPaidFor(e) : null;
    const refunded = links.refundedOf[e] as number;
    const due = pack ? pack.tokens - proRata(pack.tokens, refunded, amount) : null;
    const subscription = (s.invoice[e] as number) !== 0;
    const name = subscription ? "SUB_PERIOD_GAP" : "PAID_NOT_GRANTED";
    bridge(name, currency, amount);
    drafts.push({
      ...base,
      class: name,
      tokens: due === null ? 0 : -due,
      trail: [tried],
      explanation: subscription
        ? `Invoice ${text(s.invoice[e] as number)} was paid (${money(amount, currency)}), and its period was never granted.`
        : `${money(amount, currency)} was paid and captured, and no tokens were granted for it.`,
      action: "grant",
      words:
        due === null
          ? `Grant what was bought, keyed on ${eventKey(e)}; the pack cannot be told from the file.`
          : `Grant ${count(due)} tokens (pack ${pack?.pack_id}${refunded > 0 ? ", less what was refunded" : ""}), keyed on ${eventKey(e)}.`,
      correctionTokens: pack?.tokens ?? null,
      packId: pack?.pack_id ?? null,
    });
  }

  /**
   * Another paid charge of the same order, session, intent or invoice: the oldest that was granted, else the oldest.
   * None for the oldest itself, so that one of several unpaid-for tokens is still to be granted.
   */
  function siblingOf(e: number): number {
    let found = -1;
    for (const name of ["order", "session", "intent", "invoice"] as const) {
      const key = s[name][e] as number;
      if (key === 0) continue;
      const best = bestOf(name, key);
      if (best !== e && best >= 0 && (found < 0 || better(best, found))) found = best;
    }
    return found;
  }
  function better(a: number, b: number): boolean {
    const claimed = (x: number): number => ((links.claims.first[x] as number) >= 0 ? 0 : 1);
    const off = claimed(a) - claimed(b) || (s.created[a] as number) - (s.created[b] as number);
    return off < 0 || (off === 0 && eventKey(a) < eventKey(b));
  }
  function bestOf(name: "order" | "session" | "intent" | "invoice", key: number): number {
    const known = bestByKey.get(`${name}/${key}`);
    if (known !== undefined) return known;
    const index = links.chargesBy(name);
    let best = -1;
    for (let other = firstOf(index, key); other >= 0; other = index?.next[other] ?? -1) {
      if (s.state[other] !== PAID || s.test[other]) continue;
      if (best < 0 || better(other, best)) best = other;
    }
    bestByKey.set(`${name}/${key}`, best);
    return best;
  }

  function claimedCharge(e: number, first: number): void {
    stripe[e] = MATCHED;
    paidInBridge(e);
    if ((links.claims.next[first] as number) < 0) {
      compare(e, first);
      only[0] = first;
      follow(e, only);
      return;
    }
    const claimants: number[] = [];
    for (let r = first; r >= 0; r = links.claims.next[r] as number) claimants.push(r);
    claimants.sort(
      (a, b) =>
        (links.claimPass[a] as number) - (links.claimPass[b] as number) ||
        (l.created[a] as number) - (l.created[b] as number) ||
        (l.transaction[a] as number) - (l.transaction[b] as number),
    );
    const chosen = exactSubset(claimants, e);
    const kept = chosen ?? [
      claimants.find((r) => grantMoney(r) === (s.amount[e] as number)) ?? (claimants[0] as number),
    ];
    const keptSet = new Set(kept);
    if (chosen && chosen.length > 1) {
      sums.byPass[6] = (sums.byPass[6] as number) + chosen.length;
      tally(sums.matched, s.currency[e] as number, s.amount[e] as number);
      for (const r of chosen) {
        books[r] = MATCHED;
        grantInBridge(r);
        quantity(e, r);
      }
    } else compare(e, kept[0] as number);
    for (const r of claimants) if (!keptSet.has(r)) duplicateGrant(e, r, kept);
    follow(e, kept);
  }

  /** The first set of grants, oldest first, whose money adds up to the charge; none for more than 12. */
  function exactSubset(claimants: number[], e: number): number[] | null {
    const target = s.amount[e] as number;
    const usable = claimants.filter(
      (r) => (l.currency[r] as number) === (s.currency[e] as number) && grantMoney(r) > 0,
    );
    const single = usable.find((r) => grantMoney(r) === target);
    if (single !== undefined) return [single];
    if (usable.length > 12) return null;
    const walk = (from: number, left: number, taken: number[]): number[] | null => {
      if (left === 0) return taken;
      for (let i = from; i < usable.length; i++) {
        const r = usable[i] as number;
        if (grantMoney(r) > left) continue;
        const found = walk(i + 1, left - grantMoney(r), [...taken, r]);
        if (found) return found;
      }
      return null;
    };
    return walk(0, target, []);
  }

  function duplicateGrant(e: number, r: number, kept: readonly number[]): void {
    books[r] = IN_DIFFERENCE;
    grantInBridge(r);
    const twin = kept[0] as number;
    const overlap = (l.kind[r] as number) === SUBSCRIPTION_GRANT;
    const name = overlap ? "SUB_PERIOD_OVERLAP" : "DUPLICATE_GRANT";
    bridge(name, l.currency[r] as number, -grantMoney(r));
    const back = Math.max(0, granted(r) - (links.reversed[r] as number) - (links.clawed[r] as number));
    drafts.push({
      class: name,
      key: grantKey(r),
      event: e,
      record: r,
      amount: -grantMoney(r),
      currency: l.currency[r] as number,
      tokens: back,
      occurred: l.created[r] as number,
      trail: [
        linkWords(r, e),
        `${eventKey(e)} was granted already by entry ${l.transaction[twin] as number}`,
      ],
      explanation: overlap
        ? `One invoiced period was granted twice: entries ${l.transaction[twin] as number} and ${l.transaction[r] as number}.`
        : `One payment was credited twice: entries ${l.transaction[twin] as number} and ${l.transaction[r] as number} both belong to ${eventKey(e)}.`,
      action: "reverse",
      words: `Take back ${count(back)} tokens of entry ${l.transaction[r] as number}.`,
      correctionTokens: -back,
    });
  }

  function linkWords(r: number, e: number): string {
    return `entry ${l.transaction[r] as number} ↔ ${eventKey(e)} by ${PASSES[links.claimPass[r] as number]}`;
  }

  /** One charge, one grant: currency, amount, price at the time, tokens; the first that is off is the class. */
  function compare(e: number, r: number): void {
    grantInBridge(r);
    books[r] = MATCHED;
    const currency = s.currency[e] as number;
    const amount = s.amount[e] as number;
    const ledgerCurrency = l.currency[r] as number;
    const ledgerAmount = l.amount[r] as number;
    const base = () => ({
      event: e,
      record: r,
      key: eventKey(e),
      occurred: s.created[e] as number,
      trail: [linkWords(r, e)],
    });
    const different = (name: DifferenceClass): void => {
      books[r] = IN_DIFFERENCE;
      stripe[e] = IN_DIFFERENCE;
      if (ledgerCurrency === currency) bridge(name, currency, amount - grantMoney(r));
      else {
        bridge(name, currency, amount);
        if (ledgerAmount >= 0) bridge(name, ledgerCurrency, -ledgerAmount);
      }
    };
    if (ledgerAmount >= 0 && ledgerCurrency !== currency) {
      const settled = (s.cashCurrency[e] as number) === ledgerCurrency && (s.cash[e] as number) !== 0;
      const off = Math.abs(s.cash[e] as number) - ledgerAmount;
      if (settled && Math.abs(off) <= 1) {
        different("FX_ROUNDING");
        drafts.push({
          ...base(),
          class: "FX_ROUNDING",
          amount: off,
          currency: ledgerCurrency,
          tokens: 0,
          explanation: `Paid as ${money(amount, currency)}, booked as settled, ${money(ledgerAmount, ledgerCurrency)}${off === 0 ? "" : `: ${money(off, ledgerCurrency)} of rounding in the conversion`}.`,
          action: "list",
          words: "Nothing to book.",
          blocks: false,
        });
        quantity(e, r, true);
        return;
      }
      different("CURRENCY_MISMATCH");
      drafts.push({
        ...base(),
        class: "CURRENCY_MISMATCH",
        amount,
        currency,
        tokens: 0,
        explanation: (s.settledOnly[e] as number)
          ? `Stripe's row tells ${money(amount, currency)} as settled, the ledger has ${money(ledgerAmount, ledgerCurrency)}; what the customer paid is not in this export.`
          : `Paid ${money(amount, currency)}, but the ledger has ${money(ledgerAmount, ledgerCurrency)}.`,
        action: (s.settledOnly[e] as number) ? "investigate" : "relabel",
        words: (s.settledOnly[e] as number)
          ? "Export with the column Customer Facing Amount, or add the Payments export."
          : `Relabel entry ${l.transaction[r] as number} as ${money(amount, currency)}.`,
        correctionAmount: amount,
        correctionCurrency: currency,
      });
      return;
    }
    if (ledgerAmount >= 0 && ledgerAmount !== amount) {
      const converted = (s.cashCurrency[e] as number) !== currency || (s.settledOnly[e] as number) === 1;
      if (
        converted &&
        Math.abs(amount - ledgerAmount) === 1 &&
        (s.cashCurrency[e] as number) !== 0 &&
        (s.settledOnly[e] as number) === 0
      ) {
        different("FX_ROUNDING");
        drafts.push({
          ...base(),
          class: "FX_ROUNDING",
          amount: amount - ledgerAmount,
          currency,
          tokens: 0,
          explanation: `One minor unit of rounding in a conversion: paid ${money(amount, currency)}, booked ${money(ledgerAmount, currency)}.`,
          action: "list",
          words: "Nothing to book.",
          blocks: false,
        });
        quantity(e, r, true);
        return;
      }
      different("AMOUNT_MISMATCH");
      drafts.push({
        ...base(),
        class: "AMOUNT_MISMATCH",
        amount: amount - ledgerAmount,
        currency,
        tokens: 0,
        explanation: `Paid ${money(amount, currency)}, but the ledger has ${money(ledgerAmount, currency)} for it.`,
        action: "relabel",
        words: `Find out why; then relabel entry ${l.transaction[r] as number} as ${money(amount, currency)}, or refund the rest in Stripe.`,
        correctionAmount: amount,
        correctionCurrency: currency,
      });
      return;
    }
    const pack = links.relabelled[r] ? null : packByKey(l.pack[r] as number, s.created[e] as number);
    if (
      pack &&
      (s.settledOnly[e] as number) === 0 &&
      pack.currency.toLowerCase() === currencies.code(currency) &&
      pack.price_minor !== amount
    ) {
      different("AMOUNT_MISMATCH");
      drafts.push({
        ...base(),
        class: "AMOUNT_MISMATCH",
        amount: amount - pack.price_minor,
        currency,
        tokens: 0,
        explanation: `Paid ${money(amount, currency)}, but pack ${pack.pack_id} cost ${money(pack.price_minor, currency)} then.`,
        action: "relabel",
        words:
          "Find out why (a voucher, an old price); accept it by relabelling, or settle the rest in Stripe.",
        correctionAmount: amount,
        correctionCurrency: currency,
      });
      return;
    }
    if (ledgerAmount < 0) bridge("AMOUNT_MISMATCH", currency, amount);
    if (ledgerAmount < 0) {
      books[r] = IN_DIFFERENCE;
      stripe[e] = IN_DIFFERENCE;
      drafts.push({
        ...base(),
        class: "AMOUNT_MISMATCH",
        amount,
        currency,
        tokens: 0,
        explanation: `The grant belongs to this payment of ${money(amount, currency)}, but the ledger has no amount for it.`,
        action: "relabel",
        words: `Relabel entry ${l.transaction[r] as number} as ${money(amount, currency)}.`,
        correctionAmount: amount,
        correctionCurrency: currency,
      });
      return;
    }
    if (!quantity(e, r)) {
      const pass = links.claimPass[r] as number;
      sums.byPass[pass] = (sums.byPass[pass] as number) + 1;
    }
    tally(sums.matched, currency, amount);
  }

  /** Tokens granted against the pack's, where the catalogue knows it. */
  function quantity(e: number, r: number, quiet = false): boolean {
    const pack = packByKey(l.pack[r] as number, s.created[e] as number);
    if (quiet || !pack || (l.kind[r] as number) === SUBSCRIPTION_GRANT || pack.tokens === granted(r))
      return false;
    books[r] = IN_DIFFERENCE;
    stripe[e] = IN_DIFFERENCE;
    const off = granted(r) - pack.tokens;
    drafts.push({
      class: "TOKEN_QTY_MISMATCH",
      key: `${eventKey(e)}${(links.claims.next[links.claims.first[e] as number] as number) >= 0 ? `-${grantKey(r)}` : ""}`,
      event: e,
      record: r,
      amount: 0,
      currency: s.currency[e] as number,
      tokens: off,
      occurred: l.created[r] as number,
      trail: [linkWords(r, e)],
      explanation: `Pack ${pack.pack_id} has ${count(pack.tokens)} tokens, but ${count(granted(r))} were granted.`,
      action: "adjust",
      words: off > 0 ? `Take back ${count(off)} tokens.` : `Grant the missing ${count(-off)} tokens.`,
      correctionTokens: -off,
    });
    return true;
  }

  /** Refunds and disputes of a charge against what its grants went through. */
  function follow(e: number, grants: readonly number[]): void {
    const paid = s.amount[e] as number;
    if (side.has.refunds) checkRefund(e, grants, links.refundedOf[e] as number, paid);
    if (side.has.disputes)
      checkDispute(e, grants, links.disputeOf[e] as number, links.disputedOf[e] as number, paid);
  }

  function checkRefund(
    e: number,
    grants: readonly number[],
    refunded: number,
    paid: number,
    byCharge: string | null = null,
  ): boolean {
    let expected = 0;
    let actual = 0;
    let left = 0;
    let leftKnown = true;
    for (const r of grants) {
      expected += paid > 0 ? proRata(Math.max(0, granted(r)), Math.max(0, refunded), paid) : 0;
      actual += links.reversed[r] as number;
      if ((l.remaining[r] as number) < 0) leftKnown = false;
      else left += l.remaining[r] as number;
    }
    if (actual === expected || (byCharge !== null && actual > expected)) return true;
    const key = byCharge ?? eventKey(e);
    const r = grants[0] as number;
    const off = expected - actual;
    const afterSpend = off > 0 && leftKnown && left < off;
    const name = off < 0 ? "REFUND_OVER_REVERSED" : afterSpend ? "REFUND_AFTER_SPEND" : "REFUND_NOT_REVERSED";
    stripe[e] = IN_DIFFERENCE;
    for (const grant of grants) {
      books[grant] = IN_DIFFERENCE;
      refundInDifference.add(grant);
    }
    const currency = s.currency[e] as number;
    drafts.push({
      class: name,
      key,
      event: e,
      record: r,
      amount: off > 0 ? -Math.min(refunded, paid) : 0,
      currency,
      tokens: off,
      occurred: s.created[e] as number,
      trail: [
        (links.claim[r] as number) >= 0
          ? linkWords(r, e)
          : `entry ${l.transaction[r] as number} ↔ ${key} by charge id`,
      ],
      explanation:
        off < 0
          ? `${count(actual)} tokens were taken back, ${count(-off)} more than the refund of ${money(refunded, currency)} calls for.`
          : afterSpend
            ? `${money(refunded, currency)} of ${money(paid, currency)} was refunded: ${count(off)} tokens are to be taken back, but only ${count(left)} are left of the lot.`
            : `${money(refunded, currency)} of ${money(paid, currency)} was refunded, but ${count(actual)} of ${count(expected)} tokens were taken back.`,
      action: off < 0 ? "restore" : "claw_back",
      words:
        off < 0
          ? `Give ${count(-off)} tokens back.`
          : afterSpend
            ? `Take back ${count(left)} tokens; the other ${count(off - left)} become the account's debt, to be recovered or written off.`
            : `Take back ${count(off)} tokens.`,
      correctionTokens: -off,
      refundedMinor: refunded,
    });
    return false;
  }

  function checkDispute(
    e: number,
    grants: readonly number[],
    state: number,
    disputed: number,
    paid: number,
  ): boolean {
    const r = grants[0] as number;
    const lot = grants.reduce((most, grant) => Math.max(most, links.lotDispute[grant] as number), FREE);
    if (state === NO_DISPUTE && lot === FREE) return true;
    let total = 0;
    let reversed = 0;
    let clawed = 0;
    let left = 0;
    for (const grant of grants) {
      total += Math.max(0, granted(grant));
      reversed += links.reversed[grant] as number;
      clawed += links.clawed[grant] as number;
      left += (l.remaining[grant] as number) < 0 ? 1 : (l.remaining[grant] as number);
    }
    const currency = s.currency[e] as number;
    const key = eventKey(e);
    const draft = (
      name: DifferenceClass,
      tokens: number,
      explanation: string,
      action: CorrectionAction,
      words: string,
      correctionTokens: number | null,
    ): false => {
      stripe[e] = IN_DIFFERENCE;
      for (const grant of grants) {
        books[grant] = IN_DIFFERENCE;
        disputeInDifference.add(grant);
      }
      drafts.push({
        class: name,
        key,
        event: e,
        record: r,
        amount: name === "DISPUTE_WON_NOT_RESTORED" ? 0 : -disputed,
        currency,
        tokens,
        occurred: s.created[e] as number,
        trail: [
          (links.claim[r] as number) >= 0
            ? linkWords(r, e)
            : `entry ${l.transaction[r] as number} ↔ ${key} by charge id`,
        ],
        explanation,
        action,
        words,
        correctionTokens,
      });
      return false;
    };
    switch (state) {
      case WITHDRAWN:
      case OPEN:
        if (lot === HELD || (state === WITHDRAWN && lot === CLAWED)) return true;
        if (lot === CLAWED)
          return draft(
            "DISPUTE_NOT_HELD",
            -clawed,
            "The dispute is still open, but its tokens were taken for good.",
            "hold",
            `Give ${count(clawed)} tokens back and freeze them until the dispute is decided.`,
            clawed,
          );
        if (left === 0) return true; // nothing to freeze
        return draft(
          "DISPUTE_NOT_HELD",
          left,
          `A dispute over ${money(disputed, currency)} is ${state === OPEN ? "open" : "on record: its money has left"}, and the lot's tokens can still be spent.`,
          "hold",
          "Freeze what is left of the lot until the dispute is decided.",
          null,
        );
      case LOST: {
        const due = Math.min(
          paid > 0 ? proRata(total, disputed, paid) : total,
          Math.max(0, total - reversed),
        );
        if (lot === CLAWED && clawed === due) return true;
        if (lot !== CLAWED && due === 0) return true;
        return draft(
          "DISPUTE_LOST_NOT_CHARGED",
          due - clawed,
          `The dispute over ${money(disputed, currency)} was lost: ${count(due)} tokens are to be taken for good, ${count(clawed)} were.`,
          "finalise_dispute",
          due >= clawed
            ? `Take ${count(due - clawed)} more tokens for good, as debt where they are spent.`
            : `Give ${count(clawed - due)} tokens back.`,
          clawed - due,
        );
      }
      case NO_DISPUTE:
        // Stripe's files tell of no dispute. They may begin after it was opened, or end before: then nothing is said.
        if (lot !== HELD && lot !== CLAWED) return true;
        if (
          (links.lotDisputeAt[r] as number) < frame.from ||
          (links.lotDisputeAt[r] as number) > frame.coveredTo
        )
          return true;
        return draft(
          "DISPUTE_WON_NOT_RESTORED",
          lot === CLAWED ? -clawed : 0,
          "The ledger holds this lot for a dispute, but Stripe's files have none for it.",
          "release",
          lot === CLAWED ? `Give ${count(clawed)} tokens back.` : "Release the lot's tokens.",
          clawed,
        );
      default:
        if (lot !== HELD && lot !== CLAWED) return true;
        return draft(
          "DISPUTE_WON_NOT_RESTORED",
          lot === CLAWED ? -clawed : 0,
          state === INQUIRY
            ? "Stripe only asks (an inquiry): no money has left, but the tokens are held."
            : "The dispute was won, but its tokens were not given back.",
          "release",
          lot === CLAWED ? `Give ${count(clawed)} tokens back.` : "Release the lot's tokens.",
          clawed,
        );
    }
  }

  // --- refunds and disputes whose charge is not in the files --------------------------------------------------------
  const refundRecords = new Map<number, number>();
  const disputeRecords = new Map<number, number>();
  for (let r = 0; r < records; r++) {
    if (books[r] !== PENDING_ROW) continue;
    if ((l.refund[r] as number) !== 0 && (l.type[r] as number) === REFUND_RECORD)
      refundRecords.set(l.refund[r] as number, r);
    if ((l.dispute[r] as number) !== 0) {
      const known = disputeRecords.get(l.dispute[r] as number);
      if (known === undefined || (l.transaction[r] as number) > (l.transaction[known] as number))
        disputeRecords.set(l.dispute[r] as number, r);
    }
  }
  const looseRefunds = new Map<number, number[]>();
  for (let e = 0; e < events; e++) {
    if (stripe[e] !== PENDING_ROW) continue;
    const kind = s.kind[e] as number;
    if (kind !== REFUND && kind !== REFUND_FAILURE && kind !== DISPUTE && kind !== DISPUTE_REVERSAL) continue;
    const charge = links.chargeOf[e] as number;
    if (charge >= 0) {
      // Judged with its charge, and goes where the charge went.
      stripe[e] = stripe[charge] as number;
      continue;
    }
    if (kind === DISPUTE || kind === DISPUTE_REVERSAL) looseDispute(e);
    else {
      const record = refundRecords.get(s.object[e] as number);
      if (record !== undefined && kind === REFUND) {
        const same =
          (l.amount[record] as number) < 0 ||
          (l.currency[record] as number) !== (s.currency[e] as number) ||
          (l.amount[record] as number) === (s.amount[e] as number);
        if (same) {
          stripe[e] = MATCHED;
          refundMatched.add(record);
          sums.byPass[1] = (sums.byPass[1] as number) + 1;
          continue;
        }
      }
      const key = s.charge[e] as number;
      if (key !== 0 && firstOf(links.grantsByCharge(), key) >= 0) {
        const list = looseRefunds.get(key);
        if (list) list.push(e);
        else looseRefunds.set(key, [e]);
      } else looseRefund(e, record ?? -1);
    }
  }
  for (const [key, list] of looseRefunds) {
    const grants: number[] = [];
    for (let r = firstOf(links.grantsByCharge(), key); r >= 0; r = links.grantsByCharge().next[r] as number)
      if (!links.void[r]) grants.push(r);
    list.sort(
      (a, b) => (s.created[a] as number) - (s.created[b] as number) || (eventKey(a) < eventKey(b) ? -1 : 1),
    );
    let refunded = 0;
    let paid = 0;
    for (const e of list) {
      stripe[e] = MATCHED;
      refunded += (s.kind[e] as number) === REFUND ? (s.amount[e] as number) : -(s.amount[e] as number);
    }
    for (const r of grants) paid += grantMoney(r);
    const first = list[0] as number;
    if (grants.length > 0 && !checkRefund(first, grants, refunded, paid, interner.text(key)))
      for (const e of list) stripe[e] = IN_DIFFERENCE;
  }

  function looseRefund(e: number, record: number): void {
    const created = s.created[e] as number;
    if (created < frame.from || created >= frame.to) {
      stripe[e] = exclude("outside_period");
      return;
    }
    // The payments list carries refunds as one figure a charge: there they are judged.
    if (side.has.payments && (s.charge[e] as number) === 0 && (s.intent[e] as number) === 0) {
      stripe[e] = exclude("covered_by_payments");
      return;
    }
    stripe[e] = IN_DIFFERENCE;
    if (record >= 0) refundInRecord.add(record);
    const currency = s.currency[e] as number;
    const known = record >= 0;
    const name: DifferenceClass =
      known || ((s.charge[e] as number) === 0 && (s.intent[e] as number) === 0)
        ? "REFUND_NOT_REVERSED"
        : "ORPHAN";
    drafts.push({
      class: name,
      key: eventKey(e),
      event: e,
      record,
      amount: -(s.amount[e] as number),
      currency,
      tokens: 0,
      occurred: created,
      trail: [
        known
          ? `entry ${l.transaction[record] as number} ↔ ${eventKey(e)} by refund id`
          : "no grant and no reversal by refund, charge or payment intent",
      ],
      explanation: known
        ? `The refund is ${money(s.amount[e] as number, currency)} at Stripe, ${money(l.amount[record] as number, l.currency[record] as number)} in the ledger.`
        : name === "ORPHAN"
          ? `A refund of ${money(s.amount[e] as number, currency)} for a payment that neither the files nor the ledger know.`
          : `A refund of ${money(s.amount[e] as number, currency)} has no reversal in the ledger; the file does not tell its payment.`,
      action: "investigate",
      words: known
        ? "Compare the two, then take back or give back the difference."
        : "Add the Payments export, or the columns charge_id and payment_intent_id, to see which payment it belongs to.",
    });
  }

  function looseDispute(e: number): void {
    const record = disputeRecords.get(s.object[e] as number) ?? -1;
    const byRecord = record >= 0 ? (links.grantOf[record] as number) : -1;
    const grants: number[] = [];
    if (byRecord >= 0) grants.push(byRecord);
    else if ((s.charge[e] as number) !== 0)
      for (
        let r = firstOf(links.grantsByCharge(), s.charge[e] as number);
        r >= 0;
        r = links.grantsByCharge().next[r] as number
      )
        if (!links.void[r]) grants.push(r);
    if (grants.length > 0) {
      stripe[e] = MATCHED;
      let paid = 0;
      for (const r of grants) paid += grantMoney(r);
      if (checkDispute(e, grants, s.dispute[e] as number, s.amount[e] as number, paid))
        sums.byPass[1] = (sums.byPass[1] as number) + 1;
      return;
    }
    const created = s.created[e] as number;
    if ((s.dispute[e] as number) === INQUIRY || (s.dispute[e] as number) === WON) {
      stripe[e] = exclude("not_covered");
      return;
    }
    if (created < frame.from || created >= frame.to) {
      stripe[e] = exclude("outside_period");
      return;
    }
    if (record >= 0) {
      stripe[e] = MATCHED;
      return;
    }
    stripe[e] = IN_DIFFERENCE;
    drafts.push({
      class: "ORPHAN",
      key: eventKey(e),
      event: e,
      record: -1,
      amount: -(s.amount[e] as number),
      currency: s.currency[e] as number,
      tokens: 0,
      occurred: created,
      trail: ["no grant by dispute or charge id"],
      explanation: `A dispute over ${money(s.amount[e] as number, s.currency[e] as number)} for a payment that neither the files nor the ledger know.`,
      action: "investigate",
      words: "Add the Payments export, or find the payment in Stripe by hand.",
    });
  }

  // --- what is left of the ledger -------------------------------------------------------------------------------------
  /** Of each invoice line the grant that stands: the one tied to a payment, else the oldest. */
  const lines = new Map<number, number>();
  for (let r = 0; r < records; r++) {
    const line = l.line[r] as number;
    if (line === 0 || l.type[r] !== GRANT || l.kind[r] !== SUBSCRIPTION_GRANT) continue;
    if (links.void[r] || books[r] === DUPLICATE) continue;
    const known = lines.get(line);
    const unclaimed = (x: number): number => ((links.claim[x] as number) >= 0 ? 0 : 1);
    if (
      known === undefined ||
      (unclaimed(r) - unclaimed(known) || (l.transaction[r] as number) - (l.transaction[known] as number)) < 0
    )
      lines.set(line, r);
  }
  for (let r = 0; r < records; r++) {
    if (books[r] !== PENDING_ROW || (l.type[r] as number) !== GRANT) continue;
    unclaimedGrant(r);
  }

  function unclaimedGrant(r: number): void {
    if (links.void[r]) {
      books[r] = exclude(granted(r) === 0 ? "voided" : "promotional");
      return;
    }
    const created = l.created[r] as number;
    if (l.test[r] as number) {
      books[r] = IN_DIFFERENCE;
      const back = Math.max(0, granted(r) - (links.reversed[r] as number) - (links.clawed[r] as number));
      grantInBridge(r);
      bridge("TEST_MODE_LEAK", l.currency[r] as number, -grantMoney(r));
      drafts.push({
        class: "TEST_MODE_LEAK",
        key: grantKey(r),
        event: -1,
        record: r,
        amount: -grantMoney(r),
        currency: l.currency[r] as number,
        tokens: back,
        occurred: created,
        trail: [`entry ${l.transaction[r] as number} comes from test mode`],
        explanation: "Tokens were granted for a payment in Stripe's test mode: no money was paid.",
        action: "reverse",
        words: `Take back ${count(back)} tokens, and find out why the live ledger takes test events.`,
        correctionTokens: -back,
      });
      return;
    }
    const twin = l.line[r] === 0 ? undefined : lines.get(l.line[r] as number);
    if (twin !== undefined && twin !== r) {
      books[r] = IN_DIFFERENCE;
      const back = Math.max(0, granted(r) - (links.reversed[r] as number));
      grantInBridge(r);
      bridge("SUB_PERIOD_OVERLAP", l.currency[r] as number, -grantMoney(r));
      drafts.push({
        class: "SUB_PERIOD_OVERLAP",
        key: grantKey(r),
        event: -1,
        record: r,
        amount: -grantMoney(r),
        currency: l.currency[r] as number,
        tokens: back,
        occurred: created,
        trail: [
          `invoice line ${text(l.line[r] as number)} was granted already by entry ${l.transaction[twin] as number}`,
        ],
        explanation: `One invoiced period was granted twice: entries ${l.transaction[twin] as number} and ${l.transaction[r] as number}.`,
        action: "reverse",
        words: `Take back ${count(back)} tokens of entry ${l.transaction[r] as number}.`,
        correctionTokens: -back,
      });
      return;
    }
    if (!chargesSeen) {
      books[r] = exclude("not_covered");
      return;
    }
    if (created < frame.from || created >= frame.to) {
      books[r] = exclude("outside_period");
      return;
    }
    if (created > frame.coveredTo) {
      books[r] = IN_DIFFERENCE;
      grantInBridge(r);
      bridge("TIMING", l.currency[r] as number, -grantMoney(r));
      drafts.push({
        class: "TIMING",
        key: grantKey(r),
        event: -1,
        record: r,
        amount: -grantMoney(r),
        currency: l.currency[r] as number,
        tokens: 0,
        occurred: created,
        trail: ["the Stripe files do not reach this time"],
        explanation:
          "Granted after the Stripe files end, or within the lag of Stripe's reports; nothing can be said about its payment yet.",
        action: "carry_forward",
        words: "Carry forward, or bring an export that covers it.",
        blocks: false,
      });
      return;
    }
    grantedNotPaid(r, -1);
  }

  function grantedNotPaid(r: number, e: number): void {
    books[r] = IN_DIFFERENCE;
    grantInBridge(r);
    bridge("GRANTED_NOT_PAID", l.currency[r] as number, -grantMoney(r));
    const back = Math.max(0, granted(r) - (links.reversed[r] as number) - (links.clawed[r] as number));
    drafts.push({
      class: "GRANTED_NOT_PAID",
      key: grantKey(r),
      event: e,
      record: r,
      amount: -grantMoney(r),
      currency: l.currency[r] as number,
      tokens: back,
      occurred: l.created[r] as number,
      trail: [
        e >= 0 ? linkWords(r, e) : "no payment by charge, payment intent, checkout session, order or invoice",
      ],
      explanation:
        e >= 0
          ? `${count(granted(r))} tokens were granted, but the payment failed or was never made (${text(s.category[e] as number) ?? "not paid"}).`
          : `${count(granted(r))} tokens were granted, but Stripe's files have no payment for them${(l.created[r] as number) > frame.watermark ? "; their last row is older, so they may have been made before it" : ""}.`,
      action: "reverse",
      words: `Take back ${count(back)} tokens, or reclassify the lot as promotional.`,
      correctionTokens: -back,
    });
  }

  for (let r = 0; r < records; r++) {
    if (books[r] !== PENDING_ROW) continue;
    const grant = links.grantOf[r] as number;
    const type = l.type[r] as number;
    if (refundMatched.has(r)) books[r] = MATCHED;
    else if (refundInRecord.has(r)) books[r] = IN_DIFFERENCE;
    else if (grant < 0) {
      if (
        (l.dispute[r] as number) !== 0 &&
        disputeRecords.get(l.dispute[r] as number) !== undefined &&
        !frameHas(l.created[r] as number)
      )
        books[r] = exclude("outside_period");
      else if (!frameHas(l.created[r] as number)) books[r] = exclude("outside_period");
      else orphanRecord(r);
    } else if (type === ADJUSTMENT || type === RELABEL || type === PROMOTIONAL)
      books[r] = exclude("correction");
    else if (links.void[grant]) books[r] = exclude("voided");
    else if (type === REFUND_RECORD || type === RESTORATION)
      books[r] = refundInDifference.has(grant) ? IN_DIFFERENCE : settledWith(grant, side.has.refunds);
    else if (type === HOLD || type === RELEASE || type === CLAWBACK)
      books[r] = disputeInDifference.has(grant) ? IN_DIFFERENCE : settledWith(grant, side.has.disputes);
  }
  function settledWith(grant: number, told: boolean): number {
    if ((links.claim[grant] as number) >= 0 && told) return MATCHED;
    return books[grant] === IN_DIFFERENCE || books[grant] === MATCHED
      ? told
        ? (books[grant] as number)
        : exclude("not_covered")
      : exclude("not_covered");
  }
  function frameHas(time: number): boolean {
    return time >= frame.from && time < frame.to;
  }
  function orphanRecord(r: number): void {
    books[r] = IN_DIFFERENCE;
    drafts.push({
      class: "ORPHAN",
      key: grantKey(r),
      event: -1,
      record: r,
      amount: 0,
      currency: l.currency[r] as number,
      tokens: l.tokens[r] as number,
      occurred: l.created[r] as number,
      trail: ["no grant by lot or charge"],
      explanation: `A ledger entry (${RECORD_TYPES[l.type[r] as number]}) that belongs to no grant the ledger gave.`,
      action: "investigate",
      words: "Look the entry up in the ledger.",
    });
  }

  for (const e of feeRows) if (stripe[e] !== PENDING_ROW) stripe[e] = IN_DIFFERENCE;
  suggest();
  return { differences: finish(), sums };

  // --- pass 7 ----------------------------------------------------------------------------------------------------------------
  function suggest(): void {
    const payments = drafts.filter(
      (d) =>
        d.record < 0 &&
        (s.kind[d.event] as number) === CHARGE &&
        (d.class === "PAID_NOT_GRANTED" || d.class === "SUB_PERIOD_GAP" || d.class === "TIMING"),
    );
    const grants = drafts.filter(
      (d) => d.event < 0 && (d.class === "GRANTED_NOT_PAID" || d.class === "TIMING"),
    );
    if (payments.length === 0 || grants.length === 0) return;
    const byKey = new Map<string, Draft[]>();
    for (const d of grants)
      for (const who of new Set([text(l.customer[d.record] as number), text(l.user[d.record] as number)])) {
        if (who === null || (l.amount[d.record] as number) < 0) continue;
        const key = `${who}/${l.currency[d.record] as number}/${l.amount[d.record] as number}`;
        const list = byKey.get(key);
        if (list) list.push(d);
        else byKey.set(key, [d]);
      }
    const candidatesOf = new Map<Draft, Set<Draft>>();
    const claimedBy = new Map<Draft, number>();
    for (const d of payments) {
      const found = new Set<Draft>();
      for (const who of new Set([
        text(s.customer[d.event] as number),
        text(s.user[d.event] as number),
        text(s.reference[d.event] as number),
      ])) {
        if (who === null) continue;
        const bucket =
          byKey.get(`${who}/${s.currency[d.event] as number}/${s.amount[d.event] as number}`) ?? [];
        // So many of one person, currency and amount: none of them is the only one.
        if (bucket.length > 1000) continue;
        for (const g of bucket)
          if (Math.abs((l.created[g.record] as number) - (s.created[d.event] as number)) <= 72 * HOUR)
            found.add(g);
      }
      candidatesOf.set(d, found);
      for (const g of found) claimedBy.set(g, (claimedBy.get(g) ?? 0) + 1);
    }
    for (const [d, found] of candidatesOf) {
      const [g] = found;
      if (found.size !== 1 || !g || claimedBy.get(g) !== 1) continue;
      d.suggestion = {
        draft: g,
        words: `Entry ${l.transaction[g.record] as number} has the same customer, currency and amount within 72 hours. Check before you link them.`,
      };
      g.suggestion = {
        draft: d,
        words: `${paymentOf(d.event)} has the same customer, currency and amount within 72 hours. Check before you link them.`,
      };
    }
  }

  function finish(): Difference[] {
    const order = new Map(DIFFERENCE_CLASSES.map((name, i) => [name, i]));
    drafts.sort(
      (a, b) =>
        (order.get(a.class) as number) - (order.get(b.class) as number) ||
        (a.key < b.key ? -1 : a.key > b.key ? 1 : 0) ||
        a.occurred - b.occurred ||
        a.amount - b.amount ||
        a.tokens - b.tokens,
    );
    const ids = new Map<Draft, string>();
    const taken = new Map<string, number>();
    for (const d of drafts) {
      const id = `${d.class}/${d.key}`;
      const times = (taken.get(id) ?? 0) + 1;
      taken.set(id, times);
      ids.set(d, times === 1 ? id : `${id}#${times}`);
    }
    const rowsOf = new Map<number, number[]>();
    for (const d of drafts) if (d.event >= 0) rowsOf.set(d.event, [d.event]);
    for (let e = 0; e < events; e++) {
      const into = links.mergedInto[e] as number;
      if (into >= 0) rowsOf.get(into)?.push(e);
    }
    return drafts.map((d) => {
      const age = (frame.to - d.occurred) / 86_400;
      const e = d.event;
      const r = d.record;
      const isCharge = e >= 0 && (s.kind[e] as number) === CHARGE;
      const isDispute =
        e >= 0 && ((s.kind[e] as number) === DISPUTE || (s.kind[e] as number) === DISPUTE_REVERSAL);
      const told = (column: "intent" | "session" | "invoice" | "customer"): string | null =>
        (e >= 0 ? text(s[column][e] as number) : null) ?? (r >= 0 ? text(l[column][r] as number) : null);
      const correction: Correction = {
        action: d.action,
        books: !NOT_BOOKED.has(d.action),
        words: d.words,
        tokens: d.correctionTokens ?? null,
        user_id: r >= 0 ? text(l.user[r] as number) : e >= 0 ? text(s.user[e] as number) : null,
        customer_id: told("customer"),
        lot_id: r >= 0 && (l.lot[r] as number) !== 0 ? (l.lot[r] as number) : null,
        pack_id: d.packId ?? (r >= 0 ? text(l.pack[r] as number) : null),
        charge_id:
          (e >= 0 ? text((isCharge ? s.object[e] : s.charge[e]) as number) : null) ??
          (r >= 0 ? text(l.charge[r] as number) : null),
        payment_intent_id: told("intent"),
        checkout_session_id: told("session"),
        invoice_id: told("invoice"),
        dispute_id: isDispute ? text(s.object[e] as number) : null,
        amount_minor: d.correctionAmount ?? (d.action === "grant" && e >= 0 ? (s.amount[e] as number) : null),
        currency: currencies.code(d.correctionCurrency ?? d.currency) || null,
        refunded_minor: d.refundedMinor ?? (isCharge ? (links.refundedOf[e] as number) : null),
        disputed_minor: isCharge
          ? (links.disputedOf[e] as number)
          : isDispute
            ? (s.amount[e] as number)
            : null,
      };
      const suggestion = d.suggestion
        ? { difference_id: ids.get(d.suggestion.draft) as string, words: d.suggestion.words }
        : null;
      return {
        difference_id: ids.get(d) as string,
        class: d.class,
        blocks: d.blocks ?? true,
        amount_minor: d.amount === 0 ? 0 : d.amount,
        currency: currencies.code(d.currency) || null,
        tokens: d.tokens === 0 ? 0 : d.tokens,
        occurred_at: isoTime(d.occurred),
        age_days: Number.isFinite(age) ? Math.max(0, Math.floor(age)) : null,
        user_id: correction.user_id,
        stripe: d.event < 0 ? null : stripeSide(d.event, rowsOf.get(d.event) ?? [d.event]),
        ledger: d.record < 0 ? null : ledgerSide(d.record),
        trail: d.trail,
        explanation: d.explanation,
        correction,
        suggestion,
      };
    });
  }

  function stripeSide(e: number, rows: readonly number[]): StripeSide {
    const charge = (s.kind[e] as number) === CHARGE;
    const refunded = charge ? (links.refundedOf[e] as number) : 0;
    const disputed = charge ? (links.disputedOf[e] as number) : 0;
    const dispute = charge ? (links.disputeOf[e] as number) : (s.dispute[e] as number);
    return {
      event: EVENT_NAMES[s.kind[e] as number] as string,
      object_id: text(s.object[e] as number),
      charge_id: charge ? text(s.object[e] as number) : text(s.charge[e] as number),
      payment_intent_id: text(s.intent[e] as number),
      checkout_session_id: text(s.session[e] as number),
      order_id: text(s.order[e] as number) ?? text(s.reference[e] as number),
      invoice_id: text(s.invoice[e] as number),
      customer_id: text(s.customer[e] as number),
      amount_minor: s.amount[e] as number,
      currency: currencies.code(s.currency[e] as number) || null,
      refunded_minor: refunded > 0 ? refunded : null,
      disputed_minor: disputed > 0 ? disputed : null,
      dispute_status: DISPUTE_STATES[dispute] || null,
      status: charge ? (PAYMENT_STATES[s.state[e] as number] as string) : text(s.category[e] as number),
      created: isoTime(s.created[e] as number),
      rows: rows
        .map((row) => ({ file: side.files[s.file[row] as number]?.name ?? "", row: s.row[row] as number }))
        .sort((a, b) => (a.file === b.file ? a.row - b.row : a.file < b.file ? -1 : 1)),
    };
  }

  function ledgerSide(r: number): LedgerSide {
    return {
      record_type: RECORD_TYPES[l.type[r] as number] as LedgerSide["record_type"],
      transaction_id: l.transaction[r] as number,
      lot_id: (l.lot[r] as number) || null,
      user_id: interner.text(l.user[r] as number),
      tokens: granted(r),
      tokens_reversed: (links.reversed[r] as number) + (links.clawed[r] as number),
      tokens_remaining: (l.remaining[r] as number) < 0 ? null : (l.remaining[r] as number),
      amount_minor: (l.amount[r] as number) < 0 ? null : (l.amount[r] as number),
      currency: currencies.code(l.currency[r] as number) || null,
      pack_id: text(l.pack[r] as number),
      charge_id: text(l.charge[r] as number),
      payment_intent_id: text(l.intent[r] as number),
      created: isoTime(l.created[r] as number) as string,
    };
  }
}
