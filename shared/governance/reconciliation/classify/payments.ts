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
    if ((s.kind[e] as number) !== CHARGE || stripe[e] !== PENDING_ROW) continue;
    const first = links.claims.first[e] as number;
    if ((s.state[e] as number) === NOT_PAID) {
      for (let r = first; r >= 0; r = links.claims.next[r] as number) grants.grantedNotPaid(r, e);
      stripe[e] = IN_DIFFERENCE;
    } else if (first < 0) unclaimedCharge(e);
    else claimedCharge(e, first);
  }

  function packPaidFor(e: number): PackPrice | null {
    const time = s.created[e] as number;
    return (
      packs.named(s.pack[e] as number, time) ??
      packs.costing(s.amount[e] as number, s.currency[e] as number, time)
    );
  }

  function unclaimedCharge(e: number): void {
    const amount = s.amount[e] as number;
    const currency = s.currency[e] as number;
    const created = s.created[e] as number;
    if (!isInPeriod(created)) {
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
    const pack = (s.invoice[e] as number) === 0 ? packPaidFor(e) : null;
    const refunded = links.refundedOf[e] as number;
    const due = pack ? pack.tokens - proRata(pack.tokens, refunded, amount) : null;
    const subscription = (s.invoice[e] as number) !== 0;
    const name = subscription ? "SUB_PERIOD_GAP" : "PAID_NOT_GRANTED";
    bridge(name, currency, amount);
    aboutEvent(e, {
      class: name,
      amount,
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
    const first = l.transaction[kept[0] as number] as number;
    const again = l.transaction[r] as number;
    const overlap = (l.kind[r] as number) === SUBSCRIPTION_GRANT;
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
    const currency = s.currency[e] as number;
    const amount = s.amount[e] as number;
    const pack = links.relabelled[r] ? null : packs.named(l.pack[r] as number, s.created[e] as number);
    const isMispriced =
      pack !== null &&
      pack.price_minor !== amount &&
      (s.settledOnly[e] as number) === 0 &&
      pack.currency.toLowerCase() === currencies.code(currency);
    if ((l.amount[r] as number) !== amount || (l.currency[r] as number) !== currency || isMispriced) {
      moneyDiffers(e, r, isMispriced ? pack : null);
      return;
    }
    if (!quantity(e, r)) {
      const pass = links.claimPass[r] as number;
      sums.byPass[pass] = (sums.byPass[pass] as number) + 1;
    }
    tally(sums.matched, currency, amount);
  }

  /** Currency, amount, price at the time: the first that is off is the class. */
  function moneyDiffers(e: number, r: number, mispriced: PackPrice | null): void {
    const currency = s.currency[e] as number;
    const amount = s.amount[e] as number;
    const ledgerCurrency = l.currency[r] as number;
    const ledgerAmount = l.amount[r] as number;
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
    const relabel = `elabel entry ${l.transaction[r] as number} as ${money(amount, currency)}`;
    if (ledgerAmount >= 0 && ledgerCurrency !== currency) {
      const settled = (s.cashCurrency[e] as number) === ledgerCurrency && (s.cash[e] as number) !== 0;
      const off = Math.abs(s.cash[e] as number) - ledgerAmount;
      const settledOnly = (s.settledOnly[e] as number) === 1;
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
        (s.cashCurrency[e] as number) !== currency &&
        (s.cashCurrency[e] as number) !== 0 &&
        (s.settledOnly[e] as number) === 0;
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
    const pack = packs.named(l.pack[r] as number, s.created[e] as number);
    if (!pack || (l.kind[r] as number) === SUBSCRIPTION_GRANT || pack.tokens === granted(r)) return false;
    books[r] = IN_DIFFERENCE;
    stripe[e] = IN_DIFFERENCE;
    const off = granted(r) - pack.tokens;
    aboutEvent(e, {
      class: "TOKEN_QTY_MISMATCH",
      key: `${eventKey(e)}${(links.claims.next[links.claims.first[e] as number] as number) >= 0 ? `-${grantKey(r)}` : ""}`,
      record: r,
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
  function follow(e: number, followed: readonly number[]): void {
    const paid = s.amount[e] as number;
    if (side.has.refunds) refunds.check(e, followed, links.refundedOf[e] as number, paid);
    if (side.has.disputes)
      disputes.check(e, followed, links.disputeOf[e] as number, links.disputedOf[e] as number, paid);
  }
}
