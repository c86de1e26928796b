import { proRata } from "../../money/index.ts";
import { IN_DIFFERENCE } from "../places.ts";
import { count, type Findings } from "./findings.ts";

export type Refunds = ReturnType<typeof createRefunds>;

/** How much of a payment was refunded by the period's end: surely, and at most where the files do not date a refund. */
interface Refunded {
  readonly sure: number;
  readonly atMost: number;
  /** When the last refund was made; NaN where that is not known. */
  readonly at: number;
}

/** Refunds: what went back against the tokens that were taken back. */
export function createRefunds(findings: Findings) {
  const { links, stripe, ledger, stripePlace, ledgerPlace } = findings;
  const { money, eventKey, granted, linkWords, isInPeriod, isJudged, aboutEvent } = findings;
  const { refundsInDifference } = findings;

  /** The refunds of one payment against its grants. */
  function check(event: number, grants: readonly number[], paid: number): void {
    judge(
      event,
      grants,
      {
        sure: links.refundedOf[event],
        atMost: Math.max(links.refundedOf[event], links.refundedAtMost[event]),
        at: links.refundedAt[event] || Number.NaN,
      },
      paid,
      null,
    );
  }

  /**
   * True where nothing is off. How many tokens are due back lies between the refunds that were surely made by the
   * period's end and those that may have been; how many were taken back, between the ledger's figure of then and of now.
   * The two agree where these ranges overlap.
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
    // A refund of another period is judged there; one without a date, with its payment.
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

  return { check, judge };
}
