import { proRata } from "../../money/index.ts";
import { firstOf } from "../columns.ts";
import { REFUND_RECORD } from "../ledger-side.ts";
import { exclude, IN_DIFFERENCE, MATCHED, PENDING_ROW } from "../places.ts";
import { REFUND } from "../stripe-table.ts";
import { count, type Findings } from "./findings.ts";

export type Refunds = ReturnType<typeof refundClasses>;

/** What went back of a payment by the period's end, and at most, where the files do not tell when. */
interface Refunded {
  readonly sure: number;
  readonly atMost: number;
  /** When the last of it went back; NaN where that is not known. */
  readonly at: number;
}

/** Refunds: what went back against the tokens that were taken back. */
export function refundClasses(findings: Findings) {
  const { side, ledgerTable, links, interner, stripe, ledger, stripePlace, ledgerPlace, byPass } = findings;
  const { money, bookedWords, eventKey, granted, grantMoney, linkWords, isInPeriod, isJudged, aboutEvent } =
    findings;
  const { refundsInDifference, matchedRefunds, disputedRefunds } = findings;

  /** The refunds of one payment against its grants. */
  function check(event: number, grants: readonly number[], paid: number): void {
    judge(
      event,
      grants,
      {
        sure: links.refundedOf[event],
        atMost: Math.max(links.refundedOf[event], links.refundedAtMost[event]),
        at: links.refundedAt[event],
      },
      paid,
      null,
    );
  }

  /**
   * True where nothing is off. What is due lies between what was refunded by the period's end and what may have been,
   * what was taken back between what the ledger had then and has now: they agree where the two meet.
   * `byCharge`: the payment is not in the files, so that refunds may be missing in them too.
   */
  function judge(
    event: number,
    grants: readonly number[],
    refunded: Refunded,
    paid: number,
    byCharge: string | null,
  ): boolean {
    let due = 0;
    let dueAtMost = 0;
    let taken = 0;
    let takenAtLeast = 0;
    let left = 0;
    let isLeftKnown = true;
    for (const record of grants) {
      const tokens = Math.max(0, granted(record));
      due += paid > 0 ? proRata(tokens, Math.min(Math.max(0, refunded.sure), paid), paid) : 0;
      dueAtMost += paid > 0 ? proRata(tokens, Math.min(Math.max(0, refunded.atMost), paid), paid) : 0;
      taken += Math.max(links.reversed[record], links.reversedByEnd[record]);
      takenAtLeast += Math.min(links.reversed[record], links.reversedByEnd[record]);
      if (ledger.remaining[record] < 0) isLeftKnown = false;
      else left += ledger.remaining[record];
    }
    const off = due > taken ? due - taken : takenAtLeast > dueAtMost ? dueAtMost - takenAtLeast : 0;
    if (off === 0 || (byCharge !== null && off < 0)) return true;
    // What went back in another period is judged there; without a date, with the payment.
    const isDated = refunded.at === refunded.at;
    if (isDated ? !isInPeriod(refunded.at) : !isJudged(stripe.created[event])) return true;
    stripePlace[event] = IN_DIFFERENCE;
    for (const record of grants) {
      ledgerPlace[record] = IN_DIFFERENCE;
      refundsInDifference.add(record);
    }
    const isSpent = off > 0 && isLeftKnown && left < off;
    const [record] = grants;
    const key = byCharge ?? eventKey(event);
    const currency = stripe.currency[event];
    const actual = off > 0 ? taken : takenAtLeast;
    aboutEvent(event, {
      class: off < 0 ? "REFUND_OVER_REVERSED" : isSpent ? "REFUND_AFTER_SPEND" : "REFUND_NOT_REVERSED",
      key,
      record,
      amount: off > 0 ? -Math.min(refunded.sure, paid) : 0,
      currency,
      tokens: off,
      occurred: isDated ? refunded.at : stripe.created[event],
      trail: [
        links.claim[record] >= 0
          ? linkWords(record, event)
          : `entry ${ledger.transaction[record]} ↔ ${key} by charge id`,
      ],
      explanation:
        off < 0
          ? `${count(actual)} tokens were taken back, ${count(-off)} more than the refund of ${money(refunded.atMost, currency)} calls for.`
          : isSpent
            ? `${money(refunded.sure, currency)} of ${money(paid, currency)} was refunded: ${count(off)} tokens are to be taken back, but only ${count(left)} are left of the lot.`
            : `${money(refunded.sure, currency)} of ${money(paid, currency)} was refunded, but ${count(actual)} of ${count(due)} tokens were taken back.`,
      action: off < 0 ? "restore" : "claw_back",
      words:
        off < 0
          ? `Give ${count(-off)} tokens back.`
          : isSpent
            ? `Take back ${count(left)} tokens; the other ${count(off - left)} become the account's debt, to be recovered or written off.`
            : `Take back ${count(off)} tokens.`,
      correctionTokens: -off,
      refundedMinor: off < 0 ? refunded.atMost : refunded.sure,
    });
    return false;
  }

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
  /** Whether the files tell that the refund of this id failed later: both are then judged together. */
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
      const told = { sure: refunded, atMost: refunded, at };
      const key = interner.text(ledger.charge[grant]) || eventKey(list[0]);
      // A refund that failed must have given its tokens back: then nothing is taken that no refund calls for.
      const byCharge =
        list.some((event) => stripe.kind[event] !== REFUND) && isAllTold(grants, list) ? null : key;
      if (grants.length > 0 && !judge(list[0], grants, told, paid, byCharge))
        for (const event of list) stripePlace[event] = IN_DIFFERENCE;
    }
  }

  /** Whether every refund that the ledger knows of these grants is among the rows. */
  function isAllTold(grants: readonly number[], events: readonly number[]): boolean {
    const told = new Set(events.map((event) => stripe.object[event]));
    for (let record = 0; record < ledgerTable.length; record++)
      if (ledger.type[record] === REFUND_RECORD && grants.includes(links.grantOf[record]))
        if (!told.has(ledger.refund[record])) return false;
    return true;
  }

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
            ? `A ${refund} has no reversal in the ledger; the file does not tell its payment.`
            : `A ${refund} for a payment that neither the files nor the ledger know.`,
        action: "investigate",
        words: isKnown
          ? "Compare the two, then take back or give back the difference."
          : "Add the Payments export, or the columns charge_id and payment_intent_id, to see which payment it belongs to.",
      });
    }
  }

  return { check, takeLoose, judgeLoose };
}
