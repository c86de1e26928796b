import { proRata } from "../../money/index.ts";
import { firstOf } from "../columns.ts";
import { CLAWED, exclude, FREE, HELD, IN_DIFFERENCE, MATCHED, PENDING_ROW } from "../match.ts";
import { INQUIRY, LOST, NO_DISPUTE, OPEN, WITHDRAWN, WON } from "../stripe-side.ts";
import type { CorrectionAction, DifferenceClass } from "../types.ts";
import { count, type Findings } from "./findings.ts";

export type Disputes = ReturnType<typeof disputeClasses>;

/** Disputes: whether tokens followed them. */
export function disputeClasses(findings: Findings) {
  const { ledgerTable, links, frame, stripe, ledger, stripePlace, ledgerPlace, sums, disputesInDifference } =
    findings;
  const { money, eventKey, granted, grantMoney, linkWords, isInPeriod, aboutEvent } = findings;

  /** The dispute of one payment against its grants; true where nothing is off. */
  function check(
    event: number,
    grants: readonly number[],
    state: number,
    disputed: number,
    paid: number,
  ): boolean {
    const record = grants[0];
    const lot = grants.reduce((most, grant) => Math.max(most, links.lotDispute[grant]), FREE);
    if (state === NO_DISPUTE && lot === FREE) return true;
    let total = 0;
    let reversed = 0;
    let clawed = 0;
    let left = 0;
    for (const grant of grants) {
      total += Math.max(0, granted(grant));
      reversed += links.reversed[grant];
      clawed += links.clawed[grant];
      left += ledger.remaining[grant] < 0 ? 1 : ledger.remaining[grant];
    }
    const currency = stripe.currency[event];
    const key = eventKey(event);
    const draft = (
      name: DifferenceClass,
      tokens: number,
      explanation: string,
      action: CorrectionAction,
      words: string,
      correctionTokens: number | null,
    ): false => {
      stripePlace[event] = IN_DIFFERENCE;
      for (const grant of grants) {
        ledgerPlace[grant] = IN_DIFFERENCE;
        disputesInDifference.add(grant);
      }
      aboutEvent(event, {
        class: name,
        key,
        record,
        amount: name === "DISPUTE_WON_NOT_RESTORED" ? 0 : -disputed,
        currency,
        tokens,
        trail: [
          links.claim[record] >= 0
            ? linkWords(record, event)
            : `entry ${ledger.transaction[record]} ↔ ${key} by charge id`,
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
        if (links.lotDisputeAt[record] < frame.from || links.lotDisputeAt[record] > frame.coveredTo)
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

  let recordsByDispute: Map<number, number> | null = null;
  /** The latest ledger record of a dispute, −1 for none. */
  const recordOf = (dispute: number): number => {
    if (recordsByDispute === null) {
      recordsByDispute = new Map();
      for (let record = 0; record < ledgerTable.length; record++) {
        if (ledgerPlace[record] !== PENDING_ROW || ledger.dispute[record] === 0) continue;
        const known = recordsByDispute.get(ledger.dispute[record]);
        if (known === undefined || ledger.transaction[record] > ledger.transaction[known])
          recordsByDispute.set(ledger.dispute[record], record);
      }
    }
    return recordsByDispute.get(dispute) ?? -1;
  };

  /** A dispute whose charge is not in the files. */
  function takeLoose(event: number): void {
    const record = recordOf(stripe.object[event]);
    const byRecord = record >= 0 ? links.grantOf[record] : -1;
    const grants: number[] = [];
    if (byRecord >= 0) grants.push(byRecord);
    else if (stripe.charge[event] !== 0)
      for (
        let record = firstOf(links.grantsByCharge(), stripe.charge[event]);
        record >= 0;
        record = links.grantsByCharge().next[record]
      )
        if (!links.void[record]) grants.push(record);
    if (grants.length > 0) {
      stripePlace[event] = MATCHED;
      let paid = 0;
      for (const record of grants) paid += grantMoney(record);
      if (check(event, grants, stripe.dispute[event], stripe.amount[event], paid))
        sums.byPass[1] = sums.byPass[1] + 1;
      return;
    }
    const created = stripe.created[event];
    if (stripe.dispute[event] === INQUIRY || stripe.dispute[event] === WON) {
      stripePlace[event] = exclude("not_covered");
      return;
    }
    if (!isInPeriod(created)) {
      stripePlace[event] = exclude("outside_period");
      return;
    }
    if (record >= 0) {
      stripePlace[event] = MATCHED;
      return;
    }
    stripePlace[event] = IN_DIFFERENCE;
    aboutEvent(event, {
      class: "ORPHAN",
      amount: -stripe.amount[event],
      occurred: created,
      trail: ["no grant by dispute or charge id"],
      explanation: `A dispute over ${money(stripe.amount[event], stripe.currency[event])} for a payment that neither the files nor the ledger know.`,
      action: "investigate",
      words: "Add the Payments export, or find the payment in Stripe by hand.",
    });
  }

  return { check, takeLoose };
}
