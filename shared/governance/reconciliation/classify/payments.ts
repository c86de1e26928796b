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
  const { side, links, currencies, frame, s, l, stripe, books, sums, packs } = findings;
  const { tally, bridge, text, money, eventKey, grantKey, paymentOf, granted, grantMoney } = findings;
  const { paidInBridge, grantInBridge, linkWords, isInPeriod, aboutEvent, reverseGrant } = findings;
  const events = side.table.length;
  const bestByKey = new Map<string, number>();
  /** The one grant of nearly every charge, without a list each time. */
  const only: number[] = [0];

  for (let e = 0; e < events; e++) {
    if (s.kind[e] !== CHARGE || stripe[e] !== PENDING_ROW) continue;
    const first = links.claims.first[e];
    if (s.state[e] === NOT_PAID) {
      for (let r = first; r >= 0; r = links.claims.next[r]) grants.grantedNotPaid(r, e);
      stripe[e] = IN_DIFFERENCE;
    } else if (first < 0) unclaimedCharge(e);
    else claimedCharge(e, first);
  }

  function packPaidFor(e: number): PackPrice | null {
    const time = s.created[e];
    return packs.named(s.pack[e], time) ?? packs.costing(s.amount[e], s.currency[e], time);
  }

  function unclaimedCharge(e: number): void {
    const amount = s.amount[e];
    const currency = s.currency[e];
    const created = s.created[e];
    if (!isInPeriod(created)) {
      stripe[e] = exclude("outside_period");
      return;
    }
    const sibling = siblingOf(e);
    if (links.refundedOf[e] >= amount || (links.disputeOf[e] === LOST && links.disputedOf[e] >= amount)) {
      stripe[e] = exclude("refunded_in_full");
      return;
    }
    stripe[e] = IN_DIFFERENCE;
    paidInBridge(e);
    const tried = `no grant by ${
      [
        s.object[e] && "charge",
        s.intent[e] && "payment intent",
        s.session[e] && "checkout session",
        (s.order[e] || s.reference[e]) && "order",
        s.invoice[e] && "invoice",
      ]
        .filter(Boolean)
        .join(", ") || "any id: the row has none"
    }`;
    if (created > frame.grantedBy) {
      bridge("TIMING", currency, amount);
      aboutEvent(e, {
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
      aboutEvent(e, {
        class: "DUPLICATE_CHARGE",
        amount,
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
    const pack = s.invoice[e] === 0 ? packPaidFor(e) : null;
    const refunded = links.refundedOf[e];
    const due = pack ? pack.tokens - proRata(pack.tokens, refunded, amount) : null;
    const subscription = s.invoice[e] !== 0;
    const name = subscription ? "SUB_PERIOD_GAP" : "PAID_NOT_GRANTED";
    bridge(name, currency, amount);
    aboutEvent(e, {
      class: name,
      amount,
      tokens: due === null ? 0 : -due,
      trail: [tried],
      explanation: subscription
        ? `Invoice ${text(s.invoice[e])} was paid (${money(amount, currency)}), and its period was never granted.`
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
      const key = s[name][e];
      if (key === 0) continue;
      const best = bestOf(name, key);
      if (best !== e && best >= 0 && (found < 0 || better(best, found))) found = best;
    }
    return found;
  }
  function better(a: number, b: number): boolean {
    const claimed = (x: number): number => (links.claims.first[x] >= 0 ? 0 : 1);
    const off = claimed(a) - claimed(b) || s.created[a] - s.created[b];
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
    if (links.claims.next[first] < 0) {
      compare(e, first);
      only[0] = first;
      follow(e, only);
      return;
    }
    const claimants: number[] = [];
    for (let r = first; r >= 0; r = links.claims.next[r]) claimants.push(r);
    claimants.sort(
      (a, b) =>
        links.claimPass[a] - links.claimPass[b] ||
        l.created[a] - l.created[b] ||
        l.transaction[a] - l.transaction[b],
    );
    const chosen = exactSubset(claimants, e);
    const kept = chosen ?? [claimants.find((r) => grantMoney(r) === s.amount[e]) ?? claimants[0]];
    const keptSet = new Set(kept);
    if (chosen && chosen.length > 1) {
      sums.byPass[6] = sums.byPass[6] + chosen.length;
      tally(sums.matched, s.currency[e], s.amount[e]);
      for (const r of chosen) {
        books[r] = MATCHED;
        grantInBridge(r);
        quantity(e, r);
      }
    } else compare(e, kept[0]);
    for (const r of claimants) if (!keptSet.has(r)) duplicateGrant(e, r, kept);
    follow(e, kept);
  }

  /** The first set of grants, oldest first, whose money adds up to the charge; none for more than 12. */
  function exactSubset(claimants: number[], e: number): number[] | null {
    const target = s.amount[e];
    const usable = claimants.filter((r) => l.currency[r] === s.currency[e] && grantMoney(r) > 0);
    const single = usable.find((r) => grantMoney(r) === target);
    if (single !== undefined) return [single];
    if (usable.length > 12) return null;
    const walk = (from: number, left: number, taken: number[]): number[] | null => {
      if (left === 0) return taken;
      for (let i = from; i < usable.length; i++) {
        const r = usable[i];
        if (grantMoney(r) > left) continue;
        const found = walk(i + 1, left - grantMoney(r), [...taken, r]);
        if (found) return found;
      }
      return null;
    };
    return walk(0, target, []);
  }

  function duplicateGrant(e: number, r: number, kept: readonly number[]): void {
    const first = l.transaction[kept[0]];
    const again = l.transaction[r];
    const overlap = l.kind[r] === SUBSCRIPTION_GRANT;
    reverseGrant(
      r,
      e,
      {
        class: overlap ? "SUB_PERIOD_OVERLAP" : "DUPLICATE_GRANT",
        trail: [linkWords(r, e), `${eventKey(e)} was granted already by entry ${first}`],
        explanation: overlap
          ? `One invoiced period was granted twice: entries ${first} and ${again}.`
          : `One payment was credited twice: entries ${first} and ${again} both belong to ${eventKey(e)}.`,
      },
      (back) => `Take back ${back} tokens of entry ${again}.`,
    );
  }

  /** One charge, one grant. */
  function compare(e: number, r: number): void {
    grantInBridge(r);
    books[r] = MATCHED;
    const currency = s.currency[e];
    const amount = s.amount[e];
    const pack = links.relabelled[r] ? null : packs.named(l.pack[r], s.created[e]);
    const isMispriced =
      pack !== null &&
      pack.price_minor !== amount &&
      s.settledOnly[e] === 0 &&
      pack.currency.toLowerCase() === currencies.code(currency);
    if (l.amount[r] !== amount || l.currency[r] !== currency || isMispriced) {
      moneyDiffers(e, r, isMispriced ? pack : null);
      return;
    }
    if (!quantity(e, r)) {
      const pass = links.claimPass[r];
      sums.byPass[pass] = sums.byPass[pass] + 1;
    }
    tally(sums.matched, currency, amount);
  }

  /** Currency, amount, price at the time: the first that is off is the class. */
  function moneyDiffers(e: number, r: number, mispriced: PackPrice | null): void {
    const currency = s.currency[e];
    const amount = s.amount[e];
    const ledgerCurrency = l.currency[r];
    const ledgerAmount = l.amount[r];
    const different = (told: Omit<Told, "trail">): void => {
      books[r] = IN_DIFFERENCE;
      stripe[e] = IN_DIFFERENCE;
      if (ledgerCurrency === currency) bridge(told.class, currency, amount - grantMoney(r));
      else {
        bridge(told.class, currency, amount);
        if (ledgerAmount >= 0) bridge(told.class, ledgerCurrency, -ledgerAmount);
      }
      aboutEvent(e, { record: r, trail: [linkWords(r, e)], ...told });
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
    const relabel = `elabel entry ${l.transaction[r]} as ${money(amount, currency)}`;
    if (ledgerAmount >= 0 && ledgerCurrency !== currency) {
      const settled = s.cashCurrency[e] === ledgerCurrency && s.cash[e] !== 0;
      const off = Math.abs(s.cash[e]) - ledgerAmount;
      const settledOnly = s.settledOnly[e] === 1;
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
      const isConverted = s.cashCurrency[e] !== currency && s.cashCurrency[e] !== 0 && s.settledOnly[e] === 0;
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
  function quantity(e: number, r: number): boolean {
    const pack = packs.named(l.pack[r], s.created[e]);
    if (!pack || l.kind[r] === SUBSCRIPTION_GRANT || pack.tokens === granted(r)) return false;
    books[r] = IN_DIFFERENCE;
    stripe[e] = IN_DIFFERENCE;
    const off = granted(r) - pack.tokens;
    aboutEvent(e, {
      class: "TOKEN_QTY_MISMATCH",
      key: `${eventKey(e)}${links.claims.next[links.claims.first[e]] >= 0 ? `-${grantKey(r)}` : ""}`,
      record: r,
      tokens: off,
      occurred: l.created[r],
      trail: [linkWords(r, e)],
      explanation: `Pack ${pack.pack_id} has ${count(pack.tokens)} tokens, but ${count(granted(r))} were granted.`,
      action: "adjust",
      words: off > 0 ? `Take back ${count(off)} tokens.` : `Grant the missing ${count(-off)} tokens.`,
      correctionTokens: -off,
    });
    return true;
  }

  /** Refunds and disputes of a charge against what its grants went through. */
  function follow(e: number, followed: readonly number[]): void {
    const paid = s.amount[e];
    if (side.has.refunds) refunds.check(e, followed, links.refundedOf[e], paid);
    if (side.has.disputes) disputes.check(e, followed, links.disputeOf[e], links.disputedOf[e], paid);
  }
}
