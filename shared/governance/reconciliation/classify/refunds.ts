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
  const { side, ledgerTable, links, interner, stripe, ledger, stripePlace, ledgerPlace, sums } = findings;
  const { money, eventKey, granted, grantMoney, linkWords, isInPeriod, aboutEvent } = findings;
  const { refundsInDifference, matchedRefunds, disputedRefunds } = findings;

  /** The refunds of one payment against its grants; true where nothing is off. `byCharge`: the payment is not in the files. */
  function check(
    event: number,
    grants: readonly number[],
    refunded: number,
    paid: number,
    byCharge: string | null = null,
  ): boolean {
    let expected = 0;
    let actual = 0;
    let left = 0;
    let leftKnown = true;
    for (const record of grants) {
      expected += paid > 0 ? proRata(Math.max(0, granted(record)), Math.max(0, refunded), paid) : 0;
      actual += links.reversed[record];
      if (ledger.remaining[record] < 0) leftKnown = false;
      else left += ledger.remaining[record];
    }
    if (actual === expected || (byCharge !== null && actual > expected)) return true;
    const key = byCharge ?? eventKey(event);
    const record = grants[0];
    const off = expected - actual;
    const afterSpend = off > 0 && leftKnown && left < off;
    const name = off < 0 ? "REFUND_OVER_REVERSED" : afterSpend ? "REFUND_AFTER_SPEND" : "REFUND_NOT_REVERSED";
    stripePlace[event] = IN_DIFFERENCE;
    for (const grant of grants) {
      ledgerPlace[grant] = IN_DIFFERENCE;
      refundsInDifference.add(grant);
    }
    const currency = stripe.currency[event];
    aboutEvent(event, {
      class: name,
      key,
      record,
      amount: off > 0 ? -Math.min(refunded, paid) : 0,
      currency,
      tokens: off,
      trail: [
        links.claim[record] >= 0
          ? linkWords(record, event)
          : `entry ${ledger.transaction[record]} ↔ ${key} by charge id`,
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

  /** Refunds whose charge is not in the files, by its id. */
  const withoutCharge = new Map<number, number[]>();
  let recordsByRefund: Map<number, number> | null = null;
  const recordOf = (refund: number): number => {
    if (recordsByRefund === null) {
      recordsByRefund = new Map();
      for (let record = 0; record < ledgerTable.length; record++)
        if (
          ledgerPlace[record] === PENDING_ROW &&
          ledger.refund[record] !== 0 &&
          ledger.type[record] === REFUND_RECORD
        )
          recordsByRefund.set(ledger.refund[record], record);
    }
    return recordsByRefund.get(refund) ?? -1;
  };

  function takeLoose(event: number): void {
    const record = recordOf(stripe.object[event]);
    if (record >= 0 && stripe.kind[event] === REFUND) {
      const same =
        ledger.amount[record] < 0 ||
        ledger.currency[record] !== stripe.currency[event] ||
        ledger.amount[record] === stripe.amount[event];
      if (same) {
        stripePlace[event] = MATCHED;
        matchedRefunds.add(record);
        sums.byPass[1] = sums.byPass[1] + 1;
        return;
      }
    }
    const key = stripe.charge[event];
    if (key !== 0 && firstOf(links.grantsByCharge(), key) >= 0) {
      const list = withoutCharge.get(key);
      if (list) list.push(event);
      else withoutCharge.set(key, [event]);
    } else loose(event, record);
  }

  /** Once all are taken: several refunds of one charge are judged together. */
  function judgeLoose(): void {
    for (const [key, list] of withoutCharge) {
      const grants: number[] = [];
      for (
        let record = firstOf(links.grantsByCharge(), key);
        record >= 0;
        record = links.grantsByCharge().next[record]
      )
        if (!links.void[record]) grants.push(record);
      list.sort((a, b) => stripe.created[a] - stripe.created[b] || (eventKey(a) < eventKey(b) ? -1 : 1));
      let refunded = 0;
      let paid = 0;
      for (const event of list) {
        stripePlace[event] = MATCHED;
        refunded += stripe.kind[event] === REFUND ? stripe.amount[event] : -stripe.amount[event];
      }
      for (const record of grants) paid += grantMoney(record);
      const first = list[0];
      if (grants.length > 0 && !check(first, grants, refunded, paid, interner.text(key)))
        for (const event of list) stripePlace[event] = IN_DIFFERENCE;
    }
  }

  function loose(event: number, record: number): void {
    const created = stripe.created[event];
    if (!isInPeriod(created)) {
      stripePlace[event] = exclude("outside_period");
      return;
    }
    // The payments list carries refunds as one figure a charge: there they are judged.
    if (side.has.payments && stripe.charge[event] === 0 && stripe.intent[event] === 0) {
      stripePlace[event] = exclude("covered_by_payments");
      return;
    }
    stripePlace[event] = IN_DIFFERENCE;
    if (record >= 0) disputedRefunds.add(record);
    const currency = stripe.currency[event];
    const known = record >= 0;
    const name: DifferenceClass =
      known || (stripe.charge[event] === 0 && stripe.intent[event] === 0) ? "REFUND_NOT_REVERSED" : "ORPHAN";
    aboutEvent(event, {
      class: name,
      record,
      amount: -stripe.amount[event],
      currency,
      occurred: created,
      trail: [
        known
          ? `entry ${ledger.transaction[record]} ↔ ${eventKey(event)} by refund id`
          : "no grant and no reversal by refund, charge or payment intent",
      ],
      explanation: known
        ? `The refund is ${money(stripe.amount[event], currency)} at Stripe, ${money(ledger.amount[record], ledger.currency[record])} in the ledger.`
        : name === "ORPHAN"
          ? `A refund of ${money(stripe.amount[event], currency)} for a payment that neither the files nor the ledger know.`
          : `A refund of ${money(stripe.amount[event], currency)} has no reversal in the ledger; the file does not tell its payment.`,
      action: "investigate",
      words: known
        ? "Compare the two, then take back or give back the difference."
        : "Add the Payments export, or the columns charge_id and payment_intent_id, to see which payment it belongs to.",
    });
  }

  return { check, takeLoose, judgeLoose };
}
