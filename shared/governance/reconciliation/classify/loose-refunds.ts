import { firstOf } from "../columns.ts";
import { REFUND_RECORD } from "../ledger-side.ts";
import { exclude, IN_DIFFERENCE, MATCHED, PENDING_ROW } from "../places.ts";
import { REFUND } from "../stripe-table.ts";
import type { Findings } from "./findings.ts";
import type { Refunds } from "./refunds.ts";

/** Refunds whose payment is not in the files: by the ledger's own record of them, or by their charge's id. */
export function createLooseRefunds(findings: Findings, { judge }: Refunds) {
  const { side, ledgerTable, links, interner, stripe, ledger, stripePlace, ledgerPlace, byPass } = findings;
  const { eventKey, grantMoney } = findings;
  const { matchedRefunds } = findings;
  const orphan = createOrphans(findings);

  /** Refunds whose charge is not in the files, by the grant that the ledger knows for them. */
  const looseByGrant = new Map<number, number[]>();
  let recordsByRefund: Map<number, number> | null = null;
  const recordOf = (refund: number): number => {
    if (refund === 0) return -1;
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
  const isSameMoney = (event: number, record: number): boolean =>
    ledger.amount[record] < 0 ||
    ledger.currency[record] !== stripe.currency[event] ||
    ledger.amount[record] === stripe.amount[event];

  function takeLoose(event: number): void {
    const record = recordOf(stripe.object[event]);
    const byCharge = stripe.charge[event] === 0 ? -1 : firstOf(links.grantsByCharge(), stripe.charge[event]);
    const grant = byCharge >= 0 ? byCharge : record >= 0 ? links.grantOf[record] : -1;
    const isMatched = record >= 0 && stripe.kind[event] === REFUND && isSameMoney(event, record);
    if (isMatched) matchedRefunds.add(record);
    if (isMatched && (grant < 0 || !hasFailure(event))) {
      stripePlace[event] = MATCHED;
      byPass[1]++;
    } else if (grant >= 0 && (byCharge >= 0 || isMatched || stripe.kind[event] !== REFUND)) {
      const list = looseByGrant.get(grant);
      if (list) list.push(event);
      else looseByGrant.set(grant, [event]);
    } else orphan(event, record);
  }

  let failed: ReadonlySet<number> | null = null;
  /** Whether the refund of this id failed later, by the files: both are then judged together. */
  function hasFailure(event: number): boolean {
    if (failed === null) {
      const found = new Set<number>();
      for (let other = 0; other < side.table.length; other++)
        if (stripe.kind[other] !== REFUND && stripe.object[other] !== 0 && stripePlace[other] === PENDING_ROW)
          found.add(stripe.object[other]);
      failed = found;
    }
    return failed.has(stripe.object[event]);
  }

  /** Once all are taken: several refunds of one charge are judged together. */
  function judgeLoose(): void {
    for (const [grant, list] of looseByGrant) {
      const grants: number[] = ledger.charge[grant] === 0 ? [grant] : [];
      const index = links.grantsByCharge();
      for (let record = firstOf(index, ledger.charge[grant]); record >= 0; record = index.next[record])
        if (!links.void[record]) grants.push(record);
      list.sort((a, b) => stripe.created[a] - stripe.created[b] || (eventKey(a) < eventKey(b) ? -1 : 1));
      let refunded = 0;
      let paid = 0;
      for (const event of list) {
        stripePlace[event] = MATCHED;
        refunded += stripe.kind[event] === REFUND ? stripe.amount[event] : -stripe.amount[event];
      }
      for (const record of grants) paid += grantMoney(record);
      const at = stripe.created[list[list.length - 1]];
      const sum = { sure: refunded, atMost: refunded, at };
      const key = interner.text(ledger.charge[grant]) || eventKey(list[0]);
      // A refund that failed must have given its tokens back: then nothing is taken that no refund calls for.
      const byCharge =
        list.some((event) => stripe.kind[event] !== REFUND) && hasAllRefunds(grants, list) ? null : key;
      if (grants.length > 0 && !judge(list[0], grants, sum, paid, byCharge))
        for (const event of list) stripePlace[event] = IN_DIFFERENCE;
    }
  }

  /** Whether every refund that the ledger knows of these grants is among the rows. */
  function hasAllRefunds(grants: readonly number[], events: readonly number[]): boolean {
    const refunds = new Set(events.map((event) => stripe.object[event]));
    for (let record = 0; record < ledgerTable.length; record++)
      if (ledger.type[record] === REFUND_RECORD && grants.includes(links.grantOf[record]))
        if (!refunds.has(ledger.refund[record])) return false;
    return true;
  }

  return { takeLoose, judgeLoose };
}

/** A refund that no payment and no grant is known for. */
function createOrphans(findings: Findings): (event: number, record: number) => void {
  const { side, stripe, ledger, stripePlace, disputedRefunds } = findings;
  const { money, bookedWords, eventKey, isInPeriod, aboutEvent } = findings;
  return orphan;

  function orphan(event: number, record: number): void {
    const created = stripe.created[event];
    const isNameless = stripe.charge[event] === 0 && stripe.intent[event] === 0;
    if (!isInPeriod(created)) stripePlace[event] = exclude("outside_period");
    // The payments list carries refunds as one figure a charge: there they are judged.
    else if (side.has.payments && isNameless) stripePlace[event] = exclude("covered_by_payments");
    else {
      stripePlace[event] = IN_DIFFERENCE;
      if (record >= 0) disputedRefunds.add(record);
      const isKnown = record >= 0;
      const isReturn = stripe.kind[event] !== REFUND;
      const refund = `${isReturn ? "failed refund" : "refund"} of ${money(stripe.amount[event], stripe.currency[event])}`;
      aboutEvent(event, {
        class: isKnown || isNameless ? "REFUND_NOT_REVERSED" : "ORPHAN",
        record,
        amount: isReturn ? stripe.amount[event] : -stripe.amount[event],
        occurred: created,
        trail: [
          isKnown
            ? `entry ${ledger.transaction[record]} ↔ ${eventKey(event)} by refund id`
            : "no grant and no reversal by refund, charge or payment intent",
        ],
        explanation: isKnown
          ? `The ${refund} at Stripe has ${bookedWords(record)} in the ledger.`
          : isNameless
            ? `A ${refund} has no reversal in the ledger; the file does not name its payment.`
            : `A ${refund} for a payment that neither the files nor the ledger know.`,
        action: "investigate",
        words: isKnown
          ? "Compare the two, then take back or give back the difference."
          : "Add the Payments export, or the columns charge_id and payment_intent_id, to see which payment it belongs to.",
      });
    }
  }
}
