import { proRata } from "../../money/index.ts";
import { firstOf } from "../columns.ts";
import { REFUND_RECORD } from "../ledger-side.ts";
import { exclude, IN_DIFFERENCE, MATCHED, PENDING_ROW } from "../match.ts";
import { REFUND } from "../stripe-side.ts";
import type { DifferenceClass } from "../types.ts";
import { count, type Findings } from "./findings.ts";

export type Refunds = ReturnType<typeof refundClasses>;

/** Refunds: what went back against the tokens that were taken back. */
export function refundClasses(findings: Findings) {
  const { side, ledger, links, interner, s, l, stripe, books, sums } = findings;
  const { money, eventKey, granted, grantMoney, linkWords, isInPeriod, aboutEvent } = findings;
  const { refundsInDifference, matchedRefunds, disputedRefunds } = findings;

  /** The refunds of one payment against its grants; true where nothing is off. `byCharge`: the payment is not in the files. */
  function check(
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
      actual += links.reversed[r];
      if (l.remaining[r] < 0) leftKnown = false;
      else left += l.remaining[r];
    }
    if (actual === expected || (byCharge !== null && actual > expected)) return true;
    const key = byCharge ?? eventKey(e);
    const r = grants[0];
    const off = expected - actual;
    const afterSpend = off > 0 && leftKnown && left < off;
    const name = off < 0 ? "REFUND_OVER_REVERSED" : afterSpend ? "REFUND_AFTER_SPEND" : "REFUND_NOT_REVERSED";
    stripe[e] = IN_DIFFERENCE;
    for (const grant of grants) {
      books[grant] = IN_DIFFERENCE;
      refundsInDifference.add(grant);
    }
    const currency = s.currency[e];
    aboutEvent(e, {
      class: name,
      key,
      record: r,
      amount: off > 0 ? -Math.min(refunded, paid) : 0,
      currency,
      tokens: off,
      trail: [links.claim[r] >= 0 ? linkWords(r, e) : `entry ${l.transaction[r]} ↔ ${key} by charge id`],
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

  /** Refunds whose charge is not in the files, by its id. */
  const withoutCharge = new Map<number, number[]>();
  let recordsByRefund: Map<number, number> | null = null;
  const recordOf = (refund: number): number => {
    if (recordsByRefund === null) {
      recordsByRefund = new Map();
      for (let r = 0; r < ledger.length; r++)
        if (books[r] === PENDING_ROW && l.refund[r] !== 0 && l.type[r] === REFUND_RECORD)
          recordsByRefund.set(l.refund[r], r);
    }
    return recordsByRefund.get(refund) ?? -1;
  };

  function takeLoose(e: number): void {
    const record = recordOf(s.object[e]);
    if (record >= 0 && s.kind[e] === REFUND) {
      const same =
        l.amount[record] < 0 || l.currency[record] !== s.currency[e] || l.amount[record] === s.amount[e];
      if (same) {
        stripe[e] = MATCHED;
        matchedRefunds.add(record);
        sums.byPass[1] = sums.byPass[1] + 1;
        return;
      }
    }
    const key = s.charge[e];
    if (key !== 0 && firstOf(links.grantsByCharge(), key) >= 0) {
      const list = withoutCharge.get(key);
      if (list) list.push(e);
      else withoutCharge.set(key, [e]);
    } else loose(e, record);
  }

  /** Once all are taken: several refunds of one charge are judged together. */
  function judgeLoose(): void {
    for (const [key, list] of withoutCharge) {
      const grants: number[] = [];
      for (let r = firstOf(links.grantsByCharge(), key); r >= 0; r = links.grantsByCharge().next[r])
        if (!links.void[r]) grants.push(r);
      list.sort((a, b) => s.created[a] - s.created[b] || (eventKey(a) < eventKey(b) ? -1 : 1));
      let refunded = 0;
      let paid = 0;
      for (const e of list) {
        stripe[e] = MATCHED;
        refunded += s.kind[e] === REFUND ? s.amount[e] : -s.amount[e];
      }
      for (const r of grants) paid += grantMoney(r);
      const first = list[0];
      if (grants.length > 0 && !check(first, grants, refunded, paid, interner.text(key)))
        for (const e of list) stripe[e] = IN_DIFFERENCE;
    }
  }

  function loose(e: number, record: number): void {
    const created = s.created[e];
    if (!isInPeriod(created)) {
      stripe[e] = exclude("outside_period");
      return;
    }
    // The payments list carries refunds as one figure a charge: there they are judged.
    if (side.has.payments && s.charge[e] === 0 && s.intent[e] === 0) {
      stripe[e] = exclude("covered_by_payments");
      return;
    }
    stripe[e] = IN_DIFFERENCE;
    if (record >= 0) disputedRefunds.add(record);
    const currency = s.currency[e];
    const known = record >= 0;
    const name: DifferenceClass =
      known || (s.charge[e] === 0 && s.intent[e] === 0) ? "REFUND_NOT_REVERSED" : "ORPHAN";
    aboutEvent(e, {
      class: name,
      record,
      amount: -s.amount[e],
      currency,
      occurred: created,
      trail: [
        known
          ? `entry ${l.transaction[record]} ↔ ${eventKey(e)} by refund id`
          : "no grant and no reversal by refund, charge or payment intent",
      ],
      explanation: known
        ? `The refund is ${money(s.amount[e], currency)} at Stripe, ${money(l.amount[record], l.currency[record])} in the ledger.`
        : name === "ORPHAN"
          ? `A refund of ${money(s.amount[e], currency)} for a payment that neither the files nor the ledger know.`
          : `A refund of ${money(s.amount[e], currency)} has no reversal in the ledger; the file does not tell its payment.`,
      action: "investigate",
      words: known
        ? "Compare the two, then take back or give back the difference."
        : "Add the Payments export, or the columns charge_id and payment_intent_id, to see which payment it belongs to.",
    });
  }

  return { check, takeLoose, judgeLoose };
}
