import { proRata } from "../../money/index.ts";
import { firstOf } from "../columns.ts";
import { SUBSCRIPTION_GRANT } from "../ledger-side.ts";
import { exclude, IN_DIFFERENCE, MATCHED, PENDING_ROW } from "../match.ts";
import { CHARGE, LOST, NOT_PAID, PAID } from "../stripe-side.ts";
import type { PackPrice } from "../types.ts";
import type { Disputes } from "./disputes.ts";
import { count, type Findings, type Told } from "./findings.ts";
import type { Grants } from "./grants.ts";
import type { Refunds } from "./refunds.ts";

/** Charges, and the grants that claim them. */
export function classifyPayments(
  findings: Findings,
  refunds: Refunds,
  disputes: Disputes,
  grants: Grants,
): void {
  const { side, links, currencies, frame, stripe, ledger, stripePlace, ledgerPlace, sums, packs } = findings;
  const { tally, bridge, text, money, eventKey, grantKey, paymentOf, granted, grantMoney } = findings;
  const { paidInBridge, grantInBridge, linkWords, isInPeriod, aboutEvent, reverseGrant } = findings;
  const events = side.table.length;
  const bestByKey = new Map<string, number>();
  /** The one grant of nearly every charge, without a list each time. */
  const only: number[] = [0];

  for (let event = 0; event < events; event++) {
    if (stripe.kind[event] !== CHARGE || stripePlace[event] !== PENDING_ROW) continue;
    const first = links.claims.first[event];
    if (stripe.state[event] === NOT_PAID) {
      for (let record = first; record >= 0; record = links.claims.next[record])
        grants.grantedNotPaid(record, event);
      stripePlace[event] = IN_DIFFERENCE;
    } else if (first < 0) unclaimedCharge(event);
    else claimedCharge(event, first);
  }

  function packPaidFor(event: number): PackPrice | null {
    const time = stripe.created[event];
    return (
      packs.named(stripe.pack[event], time) ??
      packs.costing(stripe.amount[event], stripe.currency[event], time)
    );
  }

  function unclaimedCharge(event: number): void {
    const amount = stripe.amount[event];
    const currency = stripe.currency[event];
    const created = stripe.created[event];
    if (!isInPeriod(created)) {
      stripePlace[event] = exclude("outside_period");
      return;
    }
    const sibling = siblingOf(event);
    if (
      links.refundedOf[event] >= amount ||
      (links.disputeOf[event] === LOST && links.disputedOf[event] >= amount)
    ) {
      stripePlace[event] = exclude("refunded_in_full");
      return;
    }
    stripePlace[event] = IN_DIFFERENCE;
    paidInBridge(event);
    const tried = `no grant by ${
      [
        stripe.object[event] && "charge",
        stripe.intent[event] && "payment intent",
        stripe.session[event] && "checkout session",
        (stripe.order[event] || stripe.reference[event]) && "order",
        stripe.invoice[event] && "invoice",
      ]
        .filter(Boolean)
        .join(", ") || "any id: the row has none"
    }`;
    if (created > frame.grantedBy) {
      bridge("TIMING", currency, amount);
      aboutEvent(event, {
        class: "TIMING",
        amount,
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
      aboutEvent(event, {
        class: "DUPLICATE_CHARGE",
        amount,
        trail: [tried, `same order as ${paymentOf(sibling)}`],
        explanation: `The customer was charged twice for one order: ${eventKey(event)} and ${eventKey(sibling)}. Tokens were granted for one at most.`,
        action: "propose_refund",
        words: `Refund ${money(amount, currency)} of ${eventKey(event)} in Stripe.`,
        correctionTokens: 0,
        correctionAmount: amount,
      });
      return;
    }
    // A subscription's tokens are its plan's: the price of a pack that happens to be the same says nothing.
    const pack = stripe.invoice[event] === 0 ? packPaidFor(event) : null;
    const refunded = links.refundedOf[event];
    const due = pack ? pack.tokens - proRata(pack.tokens, refunded, amount) : null;
    const subscription = stripe.invoice[event] !== 0;
    const name = subscription ? "SUB_PERIOD_GAP" : "PAID_NOT_GRANTED";
    bridge(name, currency, amount);
    aboutEvent(event, {
      class: name,
      amount,
      tokens: due === null ? 0 : -due,
      trail: [tried],
      explanation: subscription
        ? `Invoice ${text(stripe.invoice[event])} was paid (${money(amount, currency)}), and its period was never granted.`
        : `${money(amount, currency)} was paid and captured, and no tokens were granted for it.`,
      action: "grant",
      words:
        due === null
          ? `Grant what was bought, keyed on ${eventKey(event)}; the pack cannot be told from the file.`
          : `Grant ${count(due)} tokens (pack ${pack?.pack_id}${refunded > 0 ? ", less what was refunded" : ""}), keyed on ${eventKey(event)}.`,
      correctionTokens: pack?.tokens ?? null,
      packId: pack?.pack_id ?? null,
    });
  }

  /**
   * Another paid charge of the same order, session, intent or invoice: the oldest that was granted, else the oldest.
   * None for the oldest itself, so that one of several unpaid-for tokens is still to be granted.
   */
  function siblingOf(event: number): number {
    let found = -1;
    for (const name of ["order", "session", "intent", "invoice"] as const) {
      const key = stripe[name][event];
      if (key === 0) continue;
      const best = bestOf(name, key);
      if (best !== event && best >= 0 && (found < 0 || better(best, found))) found = best;
    }
    return found;
  }
  function better(a: number, b: number): boolean {
    const claimed = (x: number): number => (links.claims.first[x] >= 0 ? 0 : 1);
    const off = claimed(a) - claimed(b) || stripe.created[a] - stripe.created[b];
    return off < 0 || (off === 0 && eventKey(a) < eventKey(b));
  }
  function bestOf(name: "order" | "session" | "intent" | "invoice", key: number): number {
    const known = bestByKey.get(`${name}/${key}`);
    if (known !== undefined) return known;
    const index = links.chargesBy(name);
    let best = -1;
    for (let other = firstOf(index, key); other >= 0; other = index?.next[other] ?? -1) {
      if (stripe.state[other] !== PAID || stripe.test[other]) continue;
      if (best < 0 || better(other, best)) best = other;
    }
    bestByKey.set(`${name}/${key}`, best);
    return best;
  }

  function claimedCharge(event: number, first: number): void {
    stripePlace[event] = MATCHED;
    paidInBridge(event);
    if (links.claims.next[first] < 0) {
      compare(event, first);
      only[0] = first;
      follow(event, only);
      return;
    }
    const claimants: number[] = [];
    for (let record = first; record >= 0; record = links.claims.next[record]) claimants.push(record);
    claimants.sort(
      (a, b) =>
        links.claimPass[a] - links.claimPass[b] ||
        ledger.created[a] - ledger.created[b] ||
        ledger.transaction[a] - ledger.transaction[b],
    );
    const chosen = exactSubset(claimants, event);
    const kept = chosen ?? [
      claimants.find((record) => grantMoney(record) === stripe.amount[event]) ?? claimants[0],
    ];
    const keptSet = new Set(kept);
    if (chosen && chosen.length > 1) {
      sums.byPass[6] = sums.byPass[6] + chosen.length;
      tally(sums.matched, stripe.currency[event], stripe.amount[event]);
      for (const record of chosen) {
        ledgerPlace[record] = MATCHED;
        grantInBridge(record);
        quantity(event, record);
      }
    } else compare(event, kept[0]);
    for (const record of claimants) if (!keptSet.has(record)) duplicateGrant(event, record, kept);
    follow(event, kept);
  }

  /** The first set of grants, oldest first, whose money adds up to the charge; none for more than 12. */
  function exactSubset(claimants: number[], event: number): number[] | null {
    const target = stripe.amount[event];
    const usable = claimants.filter(
      (record) => ledger.currency[record] === stripe.currency[event] && grantMoney(record) > 0,
    );
    const single = usable.find((record) => grantMoney(record) === target);
    if (single !== undefined) return [single];
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

  function duplicateGrant(event: number, record: number, kept: readonly number[]): void {
    const first = ledger.transaction[kept[0]];
    const again = ledger.transaction[record];
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

  /** One charge, one grant. */
  function compare(event: number, record: number): void {
    grantInBridge(record);
    ledgerPlace[record] = MATCHED;
    const currency = stripe.currency[event];
    const amount = stripe.amount[event];
    const pack = links.relabelled[record] ? null : packs.named(ledger.pack[record], stripe.created[event]);
    const isMispriced =
      pack !== null &&
      pack.price_minor !== amount &&
      stripe.settledOnly[event] === 0 &&
      pack.currency.toLowerCase() === currencies.code(currency);
    if (ledger.amount[record] !== amount || ledger.currency[record] !== currency || isMispriced) {
      moneyDiffers(event, record, isMispriced ? pack : null);
      return;
    }
    if (!quantity(event, record)) {
      const pass = links.claimPass[record];
      sums.byPass[pass] = sums.byPass[pass] + 1;
    }
    tally(sums.matched, currency, amount);
  }

  /** Currency, amount, price at the time: the first that is off is the class. */
  function moneyDiffers(event: number, record: number, mispriced: PackPrice | null): void {
    const currency = stripe.currency[event];
    const amount = stripe.amount[event];
    const ledgerCurrency = ledger.currency[record];
    const ledgerAmount = ledger.amount[record];
    const different = (told: Omit<Told, "trail">): void => {
      ledgerPlace[record] = IN_DIFFERENCE;
      stripePlace[event] = IN_DIFFERENCE;
      if (ledgerCurrency === currency) bridge(told.class, currency, amount - grantMoney(record));
      else {
        bridge(told.class, currency, amount);
        if (ledgerAmount >= 0) bridge(told.class, ledgerCurrency, -ledgerAmount);
      }
      aboutEvent(event, { record, trail: [linkWords(record, event)], ...told });
    };
    const rounded = (off: number, inCurrency: number, explanation: string): void => {
      different({
        class: "FX_ROUNDING",
        amount: off,
        currency: inCurrency,
        explanation,
        action: "list",
        words: "Nothing to book.",
        blocks: false,
      });
    };
    const amountDiffers = (off: number, explanation: string, words: string): void => {
      different({
        class: "AMOUNT_MISMATCH",
        amount: off,
        explanation,
        action: "relabel",
        words,
        correctionAmount: amount,
        correctionCurrency: currency,
      });
    };
    const relabel = `elabel entry ${ledger.transaction[record]} as ${money(amount, currency)}`;
    if (ledgerAmount >= 0 && ledgerCurrency !== currency) {
      const settled = stripe.cashCurrency[event] === ledgerCurrency && stripe.cash[event] !== 0;
      const off = Math.abs(stripe.cash[event]) - ledgerAmount;
      const settledOnly = stripe.settledOnly[event] === 1;
      if (settled && Math.abs(off) <= 1)
        rounded(
          off,
          ledgerCurrency,
          `Paid as ${money(amount, currency)}, booked as settled, ${money(ledgerAmount, ledgerCurrency)}${off === 0 ? "" : `: ${money(off, ledgerCurrency)} of rounding in the conversion`}.`,
        );
      else
        different({
          class: "CURRENCY_MISMATCH",
          amount,
          explanation: settledOnly
            ? `Stripe's row tells ${money(amount, currency)} as settled, the ledger has ${money(ledgerAmount, ledgerCurrency)}; what the customer paid is not in this export.`
            : `Paid ${money(amount, currency)}, but the ledger has ${money(ledgerAmount, ledgerCurrency)}.`,
          action: settledOnly ? "investigate" : "relabel",
          words: settledOnly
            ? "Export with the column Customer Facing Amount, or add the Payments export."
            : `R${relabel}.`,
          correctionAmount: amount,
          correctionCurrency: currency,
        });
      return;
    }
    if (ledgerAmount >= 0 && ledgerAmount !== amount) {
      const isConverted =
        stripe.cashCurrency[event] !== currency &&
        stripe.cashCurrency[event] !== 0 &&
        stripe.settledOnly[event] === 0;
      if (isConverted && Math.abs(amount - ledgerAmount) === 1)
        rounded(
          amount - ledgerAmount,
          currency,
          `One minor unit of rounding in a conversion: paid ${money(amount, currency)}, booked ${money(ledgerAmount, currency)}.`,
        );
      else
        amountDiffers(
          amount - ledgerAmount,
          `Paid ${money(amount, currency)}, but the ledger has ${money(ledgerAmount, currency)} for it.`,
          `Find out why; then r${relabel}, or refund the rest in Stripe.`,
        );
      return;
    }
    if (mispriced)
      amountDiffers(
        amount - mispriced.price_minor,
        `Paid ${money(amount, currency)}, but pack ${mispriced.pack_id} cost ${money(mispriced.price_minor, currency)} then.`,
        "Find out why (a voucher, an old price); accept it by relabelling, or settle the rest in Stripe.",
      );
    else
      amountDiffers(
        amount,
        `The grant belongs to this payment of ${money(amount, currency)}, but the ledger has no amount for it.`,
        `R${relabel}.`,
      );
  }

  /** Tokens granted against the pack's, where the catalogue knows it. */
  function quantity(event: number, record: number): boolean {
    const pack = packs.named(ledger.pack[record], stripe.created[event]);
    if (!pack || ledger.kind[record] === SUBSCRIPTION_GRANT || pack.tokens === granted(record)) return false;
    ledgerPlace[record] = IN_DIFFERENCE;
    stripePlace[event] = IN_DIFFERENCE;
    const off = granted(record) - pack.tokens;
    aboutEvent(event, {
      class: "TOKEN_QTY_MISMATCH",
      key: `${eventKey(event)}${links.claims.next[links.claims.first[event]] >= 0 ? `-${grantKey(record)}` : ""}`,
      record,
      tokens: off,
      occurred: ledger.created[record],
      trail: [linkWords(record, event)],
      explanation: `Pack ${pack.pack_id} has ${count(pack.tokens)} tokens, but ${count(granted(record))} were granted.`,
      action: "adjust",
      words: off > 0 ? `Take back ${count(off)} tokens.` : `Grant the missing ${count(-off)} tokens.`,
      correctionTokens: -off,
    });
    return true;
  }

  /** Refunds and disputes of a charge against what its grants went through. */
  function follow(event: number, followed: readonly number[]): void {
    const paid = stripe.amount[event];
    if (side.has.refunds) refunds.check(event, followed, links.refundedOf[event], paid);
    if (side.has.disputes)
      disputes.check(event, followed, links.disputeOf[event], links.disputedOf[event], paid);
  }
}
