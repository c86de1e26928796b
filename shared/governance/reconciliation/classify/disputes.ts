import { firstOf } from "../columns.ts";
import { FREE } from "../link/index.ts";
import { exclude, IN_DIFFERENCE, MATCHED, PENDING_ROW } from "../places.ts";
import { INQUIRY, WON } from "../stripe-table.ts";
import { createVerdicts, type Verdict } from "./dispute-verdicts.ts";
import { type Findings } from "./findings.ts";

export type Disputes = ReturnType<typeof disputeClasses>;

/** Disputes: whether tokens followed them. */
export function disputeClasses(findings: Findings) {
  const { ledgerTable, links, times, stripe, ledger, stripePlace, ledgerPlace, byPass } = findings;
  const { money, eventKey, grantMoney, linkWords, isInPeriod, isJudged, aboutEvent } = findings;
  const { disputesInDifference } = findings;
  const verdictOn = createVerdicts(findings);

  /** The dispute of a charge. Rows from after the period's end, on either side, may settle it but open no difference. */
  function checkCharge(event: number, grants: readonly number[], paid: number): void {
    const at = links.disputedAt[event];
    if (at > 0 ? at >= times.to : !isJudged(stripe.created[event])) return;
    judge(event, grants, [links.disputeOf[event], links.disputeNow[event]], links.disputedOf[event], paid);
  }

  /** True where nothing is off. */
  function judge(
    event: number,
    grants: readonly number[],
    states: readonly number[],
    disputed: number,
    paid: number,
  ): boolean {
    const strongest = (column: Uint8Array): number =>
      grants.reduce((most, grant) => Math.max(most, column[grant]), FREE);
    const lots = [strongest(links.lotDispute), strongest(links.lotDisputeByEnd)];
    let verdict: Verdict | null = null;
    for (const state of states)
      for (const lot of lots) {
        const found = verdictOn(event, { grants, state, lot, disputed, paid });
        if (found === null) return true;
        verdict ??= found;
      }
    if (verdict === null) return true;
    stripePlace[event] = IN_DIFFERENCE;
    for (const grant of grants) {
      ledgerPlace[grant] = IN_DIFFERENCE;
      disputesInDifference.add(grant);
    }
    const [record] = grants;
    const key = eventKey(event);
    const { tokens } = verdict;
    aboutEvent(event, {
      ...verdict,
      key,
      record,
      amount: verdict.class === "DISPUTE_WON_NOT_RESTORED" ? 0 : -disputed,
      currency: stripe.currency[event],
      trail: [
        links.claim[record] >= 0
          ? linkWords(record, event)
          : `entry ${ledger.transaction[record]} ↔ ${key} by charge id`,
      ],
      // The tokens at stake are those that the correction moves.
      correctionTokens: -tokens,
    });
    return false;
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
    const grants = looseGrants(event, record);
    if (grants.length > 0) {
      stripePlace[event] = MATCHED;
      let paid = 0;
      for (const grant of grants) paid += grantMoney(grant);
      // In another currency than the payment's the part is not known: it counts as the whole.
      const isSameCurrency = ledger.currency[grants[0]] === stripe.currency[event];
      const disputed = isSameCurrency ? stripe.amount[event] : paid;
      if (judge(event, grants, [stripe.dispute[event]], disputed, paid)) byPass[1]++;
      return;
    }
    const created = stripe.created[event];
    if (stripe.dispute[event] === INQUIRY || stripe.dispute[event] === WON)
      stripePlace[event] = exclude("not_covered");
    else if (!isInPeriod(created)) stripePlace[event] = exclude("outside_period");
    else if (record >= 0) stripePlace[event] = MATCHED;
    else {
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
  }

  function looseGrants(event: number, record: number): readonly number[] {
    const byRecord = record >= 0 ? links.grantOf[record] : -1;
    if (byRecord >= 0) return [byRecord];
    const grants: number[] = [];
    if (stripe.charge[event] === 0) return grants;
    const index = links.grantsByCharge();
    for (let grant = firstOf(index, stripe.charge[event]); grant >= 0; grant = index.next[grant])
      if (!links.void[grant]) grants.push(grant);
    return grants;
  }

  return { checkCharge, takeLoose };
}
