import { proRata } from "../../money/index.ts";
import { firstOf } from "../columns.ts";
import { FREE } from "../link/index.ts";
import { paidForAll } from "../link/passes.ts";
import { SUBSCRIPTION_GRANT } from "../ledger-side.ts";
import { exclude, IN_DIFFERENCE, MATCHED, PENDING_ROW } from "../places.ts";
import { CHARGE, LOST, NOT_PAID, PAID } from "../stripe-table.ts";
import { createComparison } from "./compare.ts";
import type { Disputes } from "./disputes.ts";
import { count, type Findings } from "./findings.ts";
import type { Grants } from "./grants.ts";
import type { Refunds } from "./refunds.ts";
import { learnSales } from "./sales.ts";

/** Charges, and the grants that claim them. */
export function classifyPayments(
  findings: Findings,
  refunds: Refunds,
  disputes: Disputes,
  grants: Grants,
): void {
  const { side, links, stripe, ledger, stripePlace, ledgerPlace } = findings;
  const { eventKey, paidAmount, partsOf, stillGranted } = findings;
  const { linkWords, isInPeriod, isJudged, reverseGrant } = findings;
  const comparison = createComparison(findings);
  const keptGrants = createChoice(findings);
  const unclaimedCharge = createUnclaimed(findings);
  /** The one grant of nearly every charge, without a list each time. */
  const only: number[] = [0];

  for (let event = 0; event < side.table.length; event++) {
    if (stripe.kind[event] !== CHARGE || stripePlace[event] !== PENDING_ROW) continue;
    const main = links.partOf[event] ?? -1;
    const first = links.claims.first[event];
    if (main >= 0 && main !== event) continue;
    if (stripe.state[event] === NOT_PAID) failedCharge(event, first);
    else if (first < 0) unclaimedCharge(event);
    else claimedCharge(event, first);
  }
  for (const [main, parts] of links.partsOf)
    for (const part of parts) if (stripePlace[part] === PENDING_ROW) stripePlace[part] = stripePlace[main];

  function grantsOf(first: number): number[] {
    const claimants: number[] = [];
    for (let record = first; record >= 0; record = links.claims.next[record]) claimants.push(record);
    return claimants;
  }

  /** A payment that failed, before or after it was booked: its grants are to be gone. */
  function failedCharge(event: number, first: number): void {
    stripePlace[event] = MATCHED;
    for (const record of grantsOf(first)) {
      if (stillGranted(record) === 0 || !isJudged(ledger.created[record])) {
        // Both sides are back at nothing: the money of neither counts.
        ledgerPlace[record] = MATCHED;
        continue;
      }
      stripePlace[event] = IN_DIFFERENCE;
      grants.grantedNotPaid(record, event);
    }
  }

  function claimedCharge(event: number, first: number): void {
    stripePlace[event] = MATCHED;
    if (links.claims.next[first] < 0) {
      only[0] = first;
      if (isOfOtherPeriod(event, only)) placeOutside(event, only);
      else comparison.compare(event, first);
      follow(event, only);
      return;
    }
    const claimants = grantsOf(first).sort(
      (a, b) =>
        links.claimPass[a] - links.claimPass[b] ||
        ledger.created[a] - ledger.created[b] ||
        ledger.transaction[a] - ledger.transaction[b],
    );
    const kept = keptGrants(event, claimants);
    if (isOfOtherPeriod(event, claimants)) placeOutside(event, claimants);
    else {
      if (kept.length > 1) comparison.compareSum(event, kept);
      else comparison.compare(event, kept[0]);
      for (const record of claimants) if (!kept.includes(record)) duplicateGrant(event, record, kept);
    }
    follow(event, kept);
  }

  function isOfOtherPeriod(event: number, records: readonly number[]): boolean {
    if (isInPeriod(stripe.created[event])) return false;
    return (
      partsOf(event).every((part) => !isInPeriod(stripe.created[part])) &&
      records.every((record) => !isInPeriod(ledger.created[record]))
    );
  }

  function placeOutside(event: number, records: readonly number[]): void {
    stripePlace[event] = exclude("outside_period");
    for (const record of records) ledgerPlace[record] = exclude("outside_period");
  }

  function duplicateGrant(event: number, record: number, kept: readonly number[]): void {
    const first = ledger.transaction[kept[0]];
    const again = ledger.transaction[record];
    if (stillGranted(record) === 0 || !isJudged(ledger.created[record])) {
      ledgerPlace[record] = exclude(stillGranted(record) === 0 ? "voided" : "outside_period");
      return;
    }
    const overlap = ledger.kind[record] === SUBSCRIPTION_GRANT;
    reverseGrant(
      record,
      event,
      {
        class: overlap ? "SUB_PERIOD_OVERLAP" : "DUPLICATE_GRANT",
        trail: [linkWords(record, event), `${eventKey(event)} was granted already by entry ${first}`],
        explanation: overlap
          ? `One invoiced period was granted twice: entries ${first} and ${again}.`
          : `One payment was credited twice: entries ${first} and ${again} both belong to ${eventKey(event)}.`,
      },
      (back) => `Take back ${back} tokens of entry ${again}.`,
    );
  }

  /** Refunds and disputes of a charge against what its grants went through. */
  function follow(event: number, followed: readonly number[]): void {
    if (isQuiet(links, event, followed)) return;
    const paid = paidAmount(event);
    if (side.has.refunds) refunds.check(event, followed, paid);
    if (side.has.disputes) disputes.checkCharge(event, followed, paid);
  }
}

/** Nothing went back, and nothing was held: neither at Stripe's nor in the ledger. */
function isQuiet(links: Findings["links"], event: number, records: readonly number[]): boolean {
  if (links.refundedAtMost[event] !== 0 || links.refundedOf[event] !== 0) return false;
  if (links.disputeOf[event] !== 0 || links.disputeNow[event] !== 0) return false;
  for (const record of records) {
    if (links.reversed[record] !== 0 || links.reversedByEnd[record] !== 0) return false;
    if (links.lotDispute[record] !== FREE || links.lotDisputeByEnd[record] !== FREE) return false;
  }
  return true;
}

type Choice = (event: number, claimants: readonly number[]) => readonly number[];

/** Chooses among several grants that claim one payment. */
function createChoice({ ledger, stripe, grantMoney, paidAmount }: Findings): Choice {
  return keptGrants;

  /**
   * Of several grants that claim one payment those that belong to it: a set whose money adds up to it; all, where each
   * is a line of its own of the invoice that was paid; else one.
   */
  function keptGrants(event: number, claimants: readonly number[]): readonly number[] {
    const exact = exactSubset(claimants, event);
    if (exact !== null) return exact;
    const lines = new Set(claimants.map((record) => ledger.line[record]));
    if (!lines.has(0) && lines.size === claimants.length) return claimants;
    return [claimants.find((record) => grantMoney(record) === paidAmount(event)) ?? claimants[0]];
  }

  /** The first set of grants, oldest first, whose money adds up to the charge; none for more than 12. */
  function exactSubset(claimants: readonly number[], event: number): readonly number[] | null {
    const target = paidAmount(event);
    const usable = claimants.filter(
      (record) => ledger.currency[record] === stripe.currency[event] && grantMoney(record) > 0,
    );
    const single = usable.find((record) => grantMoney(record) === target);
    if (single !== undefined) return [single];
    if (usable.length === claimants.length && paidForAll(ledger, usable) === target) return usable;
    if (usable.length > 12) return null;
    const walk = (from: number, left: number, taken: number[]): number[] | null => {
      if (left === 0) return taken;
      for (let i = from; i < usable.length; i++) {
        const record = usable[i];
        if (grantMoney(record) > left) continue;
        const found = walk(i + 1, left - grantMoney(record), [...taken, record]);
        if (found) return found;
      }
      return null;
    };
    return walk(0, target, []);
  }
}

/** Judges a charge that no grant claims. */
function createUnclaimed(findings: Findings): (event: number) => void {
  const { links, times, stripe, stripePlace, bridge, text, money, eventKey, paymentOf } = findings;
  const { isInPeriod, aboutEvent } = findings;
  const { saleOf, isOtherSale } = learnSales(findings);
  const siblingOf = createSiblings(findings);

  return (event) => {
    const amount = stripe.amount[event];
    const isBackInFull =
      links.refundedOf[event] >= amount ||
      (links.disputeOf[event] === LOST && links.disputedOf[event] >= amount);
    if (!isInPeriod(stripe.created[event])) stripePlace[event] = exclude("outside_period");
    else if (isBackInFull) stripePlace[event] = exclude("refunded_in_full");
    else judge(event);
  };

  function judge(event: number): void {
    const sibling = siblingOf(event);
    const isSubscription = stripe.invoice[event] !== 0;
    // A subscription's tokens are its plan's: the marks of a pack do not apply to them.
    const sale = isOtherSale(event) ? ({ is: "other" } as const) : isSubscription ? null : saleOf(event);
    if (sale?.is === "other" && (sibling < 0 || links.claims.first[sibling] < 0)) {
      stripePlace[event] = exclude("other_sale");
      return;
    }
    stripePlace[event] = IN_DIFFERENCE;
    if (stripe.created[event] > times.grantedBy) tooYoung(event);
    else if (sibling >= 0) chargedTwice(event, sibling);
    else if (sale === null) periodNotGranted(event);
    else notGranted(event, sale);
  }

  function tooYoung(event: number): void {
    bridge.pair("TIMING", [event], []);
    aboutEvent(event, {
      class: "TIMING",
      amount: stripe.amount[event],
      trail: [triedWords(event)],
      explanation: `Paid less than the grace time before the end of the period; its grant may still come.`,
      action: "carry_forward",
      words: "Carry forward to the next period.",
    });
  }

  function chargedTwice(event: number, sibling: number): void {
    const amount = stripe.amount[event];
    bridge.pair("DUPLICATE_CHARGE", [event], []);
    aboutEvent(event, {
      class: "DUPLICATE_CHARGE",
      amount,
      trail: [triedWords(event), `same order as ${paymentOf(sibling)}`],
      explanation: `The customer was charged twice for one order: ${eventKey(event)} and ${eventKey(sibling)}. Tokens were granted for one at most.`,
      action: "propose_refund",
      words: `Refund ${money(amount, stripe.currency[event])} of ${eventKey(event)} in Stripe.`,
      correctionTokens: 0,
      correctionAmount: amount,
    });
  }

  function periodNotGranted(event: number): void {
    const amount = stripe.amount[event];
    bridge.pair("SUB_PERIOD_GAP", [event], []);
    aboutEvent(event, {
      class: "SUB_PERIOD_GAP",
      amount,
      trail: [triedWords(event)],
      explanation: `Invoice ${text(stripe.invoice[event])} was paid (${money(amount, stripe.currency[event])}), and its period was never granted.`,
      action: "grant",
      words: `Grant what the invoice's plan gives, keyed on ${eventKey(event)}; the plan cannot be read from the file.`,
      correctionTokens: null,
    });
  }

  function notGranted(event: number, sale: ReturnType<typeof saleOf>): void {
    const amount = stripe.amount[event];
    const refunded = links.refundedOf[event];
    const tokens = sale.is === "tokens" ? sale.tokens : null;
    const pack = sale.is === "tokens" ? sale.pack : null;
    // Where the price is what is left, the rest was never captured: no refund takes anything back.
    const isCaptured = pack !== null && pack.price_minor === amount - refunded;
    const due = tokens === null ? null : tokens - (isCaptured ? 0 : proRata(tokens, refunded, amount));
    const isKnown = sale.is === "tokens";
    bridge.pair("PAID_NOT_GRANTED", [event], []);
    aboutEvent(event, {
      class: "PAID_NOT_GRANTED",
      amount,
      tokens: due === null ? 0 : -due,
      trail: [triedWords(event), ...(sale.is === "other" ? [] : [sale.because])],
      explanation: `${money(amount, stripe.currency[event])} was paid and captured, and no tokens were granted for it.${
        isKnown
          ? ` It was for tokens: ${sale.because}.`
          : sale.is === "unknown"
            ? ` Whether it was for tokens is not known: ${sale.because}.`
            : ""
      }`,
      action: isKnown ? "grant" : "investigate",
      words: !isKnown
        ? "Find out what was sold. Export with the metadata that your sales of tokens carry (pack_id, tokens): then other sales are recognised."
        : due === null
          ? `Grant what was bought, keyed on ${eventKey(event)}; how many tokens cannot be read from the file.`
          : `Grant ${count(due)} tokens (${pack ? `pack ${pack.pack_id}` : "as the metadata says"}${refunded > 0 && !isCaptured ? ", less what was refunded" : ""}), keyed on ${eventKey(event)}.`,
      correctionTokens: tokens,
      packId: pack?.pack_id ?? null,
      ...(isCaptured && refunded > 0 ? { correctionAmount: amount - refunded, refundedMinor: 0 } : {}),
    });
  }

  function triedWords(event: number): string {
    const tried = [
      stripe.object[event] !== 0 && "charge",
      stripe.intent[event] !== 0 && "payment intent",
      stripe.session[event] !== 0 && "checkout session",
      (stripe.order[event] !== 0 || stripe.reference[event] !== 0) && "order",
      stripe.invoice[event] !== 0 && "invoice",
    ].filter((one) => one !== false);
    return `no grant by ${tried.join(", ") || "any id: the row has none"}`;
  }
}

type SiblingKey = "order" | "session" | "intent" | "invoice";

/**
 * Another paid charge of the same order, session, intent or invoice: the oldest that was granted, else the oldest. None
 * for the oldest itself, so that one of several charges without a grant is still to be granted.
 */
function createSiblings({ links, stripe, eventKey }: Findings): (event: number) => number {
  const bestByKey = new Map<string, number>();
  const isGranted = (event: number): boolean => links.claims.first[event] >= 0;
  function isBetter(a: number, b: number): boolean {
    if (isGranted(a) !== isGranted(b)) return isGranted(a);
    const off = stripe.created[a] - stripe.created[b];
    return off < 0 || (off === 0 && eventKey(a) < eventKey(b));
  }
  function bestOf(name: SiblingKey, key: number): number {
    const known = bestByKey.get(`${name}/${key}`);
    if (known !== undefined) return known;
    const index = links.chargesBy(name);
    let best = -1;
    for (let other = firstOf(index, key); other >= 0; other = index?.next[other] ?? -1) {
      if (stripe.state[other] !== PAID || stripe.test[other]) continue;
      if (best < 0 || isBetter(other, best)) best = other;
    }
    bestByKey.set(`${name}/${key}`, best);
    return best;
  }
  return (event) => {
    let found = -1;
    for (const name of ["order", "session", "intent", "invoice"] as const) {
      const key = stripe[name][event];
      if (key === 0) continue;
      const best = bestOf(name, key);
      if (best !== event && best >= 0 && (found < 0 || isBetter(best, found))) found = best;
    }
    return found;
  };
}
