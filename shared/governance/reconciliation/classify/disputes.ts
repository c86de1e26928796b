import { proRata } from "../../money/index.ts";
import { firstOf } from "../columns.ts";
import { CLAWED, FREE, HELD } from "../link/index.ts";
import { exclude, IN_DIFFERENCE, MATCHED, PENDING_ROW } from "../places.ts";
import { INQUIRY, LOST, NO_DISPUTE, OPEN, WITHDRAWN, WON } from "../stripe-table.ts";
import type { DifferenceClass } from "../classes.ts";
import type { CorrectionAction } from "../types.ts";
import { count, type Findings } from "./findings.ts";

export type Disputes = ReturnType<typeof disputeClasses>;

/** A dispute of one payment beside the lots that it is about. */
interface Disputed {
  readonly grants: readonly number[];
  /** Of Stripe's, and of the lots as the ledger has them. */
  readonly state: number;
  readonly lot: number;
  readonly disputed: number;
  readonly paid: number;
}

/** What is off, and what mends it. `tokens`: what the ledger has too many (+) or too few (−). */
interface Verdict {
  readonly class: DifferenceClass;
  readonly tokens: number;
  readonly explanation: string;
  readonly action: CorrectionAction;
  readonly words: string;
}

/** Disputes: whether tokens followed them. */
export function disputeClasses(findings: Findings) {
  const { ledgerTable, links, frame, stripe, ledger, stripePlace, ledgerPlace, byPass } = findings;
  const { money, eventKey, granted, grantMoney, linkWords, isInPeriod, isJudged, aboutEvent } = findings;
  const { disputesInDifference } = findings;

  /** The dispute of a charge. What came after the period's end, on either side, may settle it and opens nothing. */
  function checkCharge(event: number, grants: readonly number[], paid: number): void {
    const at = links.disputedAt[event];
    if (at === at ? at >= frame.to : !isJudged(stripe.created[event])) return;
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
      // What is at stake is what the correction moves.
      correctionTokens: -tokens,
    });
    return false;
  }

  function verdictOn(event: number, dispute: Disputed): Verdict | null {
    const { grants, state, lot } = dispute;
    if (state === NO_DISPUTE && lot === FREE) return null;
    if (state === WITHDRAWN || state === OPEN) return openVerdict(event, dispute);
    if (state === LOST) return lostVerdict(event, dispute);
    if (lot !== HELD && lot !== CLAWED) return null;
    // Stripe's files tell of no dispute. They may begin after it was opened, or end before: then nothing is said.
    const since = links.lotDisputeAt[grants[0]];
    if (state === NO_DISPUTE && (since < frame.from || since >= Math.min(frame.to, frame.coveredTo)))
      return null;
    return stillHeldVerdict(dispute);
  }

  function sumOf(grants: readonly number[], column: Float64Array): number {
    return grants.reduce((sum, grant) => sum + column[grant], 0);
  }

  function openVerdict(event: number, { grants, state, lot, disputed }: Disputed): Verdict | null {
    if (lot === HELD || (state === WITHDRAWN && lot === CLAWED)) return null;
    if (lot === CLAWED) {
      const clawed = sumOf(grants, links.clawed);
      return {
        class: "DISPUTE_NOT_HELD",
        tokens: -clawed,
        explanation: "The dispute is still open, but its tokens were taken for good.",
        action: "hold",
        words: `Give ${count(clawed)} tokens back and freeze them until the dispute is decided.`,
      };
    }
    let left = 0;
    // Where the ledger does not tell what is left, all may be.
    for (const grant of grants)
      left += ledger.remaining[grant] < 0 ? Math.max(0, granted(grant)) : ledger.remaining[grant];
    if (left === 0) return null; // nothing to freeze
    return {
      class: "DISPUTE_NOT_HELD",
      tokens: left,
      explanation: `A dispute over ${money(disputed, stripe.currency[event])} is ${state === OPEN ? "open" : "on record: its money has left"}, and the lot's tokens can still be spent.`,
      action: "hold",
      words: `Freeze the ${count(left)} tokens that are left of the lot until the dispute is decided.`,
    };
  }

  function lostVerdict(event: number, { grants, lot, disputed, paid }: Disputed): Verdict | null {
    let total = 0;
    for (const grant of grants) total += Math.max(0, granted(grant));
    const clawed = sumOf(grants, links.clawed);
    const share = paid > 0 ? proRata(total, Math.min(disputed, paid), paid) : total;
    const due = Math.min(share, Math.max(0, total - sumOf(grants, links.reversed)));
    if (lot === CLAWED ? clawed === due : due === 0) return null;
    return {
      class: "DISPUTE_LOST_NOT_CHARGED",
      tokens: due - clawed,
      explanation: `The dispute over ${money(disputed, stripe.currency[event])} was lost: ${count(due)} tokens are to be taken for good, ${count(clawed)} were.`,
      action: "finalise_dispute",
      words:
        due >= clawed
          ? `Take ${count(due - clawed)} more tokens for good, as debt where they are spent.`
          : `Give ${count(clawed - due)} tokens back.`,
    };
  }

  function stillHeldVerdict({ grants, state, lot }: Disputed): Verdict {
    const kept = sumOf(grants, lot === CLAWED ? links.clawed : links.held);
    return {
      class: "DISPUTE_WON_NOT_RESTORED",
      tokens: -kept,
      explanation:
        state === NO_DISPUTE
          ? "The ledger holds this lot for a dispute, but Stripe's files have none for it."
          : state === INQUIRY
            ? "Stripe only asks (an inquiry): no money has left, but the tokens are held."
            : "The dispute was won, but its tokens were not given back.",
      action: "release",
      words: lot === CLAWED ? `Give ${count(kept)} tokens back.` : `Release the ${count(kept)} held tokens.`,
    };
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
      // In another currency than the payment's it says nothing of the part: it counts as the whole.
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
