import {
  ADJUSTMENT,
  CLAWBACK,
  HOLD,
  PROMOTIONAL,
  RECORD_TYPES,
  REFUND_RECORD,
  RELABEL,
  RELEASE,
  RESTORATION,
} from "../ledger-side.ts";
import { exclude, IN_DIFFERENCE, MATCHED, PENDING_ROW } from "../match.ts";
import { CHARGE, FEE, NOT_PAID, OTHER, PAYOUT, PENDING, UNCAPTURED, UNKNOWN } from "../stripe-side.ts";
import type { Findings } from "./findings.ts";

/** Rows of Stripe's that say nothing about tokens. Answers those whose own arithmetic is off, whatever else they are. */
export function setAside(findings: Findings): ReadonlySet<number> {
  const { side, links, currencies, s, stripe, text, money, eventKey, paymentOf, aboutEvent } = findings;
  const feeRows = new Set<number>();
  for (const e of new Set(links.conflicts))
    aboutEvent(e, {
      class: "ORPHAN",
      key: `${eventKey(e)}-${s.amount[e]}-${currencies.code(s.currency[e])}`,
      amount: s.amount[e],
      occurred: s.created[e],
      trail: [`${eventKey(e)} stands twice in one file, with different amounts`],
      explanation: `Two rows of one file claim the id ${eventKey(e)} and disagree. The other row was used.`,
      action: "investigate",
      words: "Export the file again; if both rows come back, ask Stripe.",
    });
  for (let e = 0; e < side.table.length; e++) {
    if (links.cashCounts[e] === 1) checkRow(e);
    if (stripe[e] !== PENDING_ROW) continue;
    if (s.foreign[e]) stripe[e] = exclude("other_account");
    else if (s.test[e]) testMode(e);
    else
      switch (s.kind[e]) {
        case FEE:
          stripe[e] = exclude("fee");
          break;
        case PAYOUT:
          stripe[e] = exclude("payout");
          break;
        case OTHER:
          stripe[e] = exclude("other_movement");
          break;
        case UNKNOWN:
          unknownRow(e);
          break;
        case CHARGE:
          if (s.state[e] === NOT_PAID) {
            if (links.claims.first[e] < 0) stripe[e] = exclude("not_paid");
          } else if (s.state[e] === PENDING) stripe[e] = exclude("pending");
          else if (s.state[e] === UNCAPTURED) stripe[e] = exclude("not_captured");
          break;
      }
  }
  return feeRows;

  function checkRow(e: number): void {
    const off = s.cash[e] - s.fee[e] - s.net[e];
    if (off === 0) return;
    const currency = s.cashCurrency[e];
    if (stripe[e] === PENDING_ROW || stripe[e] === MATCHED) feeRows.add(e);
    aboutEvent(e, {
      class: "FEE_VARIANCE",
      key: text(s.transaction[e]) ?? eventKey(e),
      amount: off,
      currency,
      trail: [
        `gross ${money(s.cash[e], currency)} − fee ${money(s.fee[e], currency)} ≠ net ${money(s.net[e], currency)}`,
      ],
      explanation: `Gross less fee is not net in this row: ${money(off, currency)} is missing. The tie-out is blocked.`,
      action: "investigate",
      words: "Export the file again; a damaged or edited row is the usual cause.",
    });
  }
  function testMode(e: number): void {
    stripe[e] = IN_DIFFERENCE;
    aboutEvent(e, {
      class: "TEST_MODE_LEAK",
      trail: [`${text(s.session[e]) ?? eventKey(e)} is of test mode`],
      explanation: `${paymentOf(e)} is a test payment in a live export. It was left out.`,
      action: "exclude",
      words: "Leave it out, and find out why a test row is in a live export.",
      blocks: false,
    });
  }
  function unknownRow(e: number): void {
    stripe[e] = IN_DIFFERENCE;
    const category = text(s.category[e]) ?? "(empty)";
    const amount = s.amount[e];
    aboutEvent(e, {
      class: "UNKNOWN_CATEGORY",
      key: text(s.transaction[e]) ?? eventKey(e),
      amount,
      trail: [`status or category "${category}"`],
      explanation: `"${category}" is a status or category that is not known here, so nothing can be said about its tokens.`,
      action: "investigate",
      words: "Find out what it is at Stripe; then treat the row by hand or update this program.",
    });
  }
}

/** What is left of the ledger: records that follow a grant go where it went. */
export function placeFollowers(findings: Findings): void {
  const { side, ledger, links, l, books, isInPeriod, grantKey, drafts } = findings;
  const { matchedRefunds, disputedRefunds, refundsInDifference, disputesInDifference } = findings;
  for (let r = 0; r < ledger.length; r++) {
    if (books[r] !== PENDING_ROW) continue;
    const grant = links.grantOf[r];
    const type = l.type[r];
    if (matchedRefunds.has(r)) books[r] = MATCHED;
    else if (disputedRefunds.has(r)) books[r] = IN_DIFFERENCE;
    else if (grant < 0) {
      if (isInPeriod(l.created[r])) orphanRecord(r);
      else books[r] = exclude("outside_period");
    } else if (type === ADJUSTMENT || type === RELABEL || type === PROMOTIONAL)
      books[r] = exclude("correction");
    else if (links.void[grant]) books[r] = exclude("voided");
    else if (type === REFUND_RECORD || type === RESTORATION)
      books[r] = refundsInDifference.has(grant) ? IN_DIFFERENCE : settledWith(grant, side.has.refunds);
    else if (type === HOLD || type === RELEASE || type === CLAWBACK)
      books[r] = disputesInDifference.has(grant) ? IN_DIFFERENCE : settledWith(grant, side.has.disputes);
  }

  function settledWith(grant: number, told: boolean): number {
    if (links.claim[grant] >= 0 && told) return MATCHED;
    return books[grant] === IN_DIFFERENCE || books[grant] === MATCHED
      ? told
        ? books[grant]
        : exclude("not_covered")
      : exclude("not_covered");
  }
  function orphanRecord(r: number): void {
    books[r] = IN_DIFFERENCE;
    drafts.push({
      class: "ORPHAN",
      key: grantKey(r),
      event: -1,
      record: r,
      amount: 0,
      currency: l.currency[r],
      tokens: l.tokens[r],
      occurred: l.created[r],
      trail: ["no grant by lot or charge"],
      explanation: `A ledger entry (${RECORD_TYPES[l.type[r]]}) that belongs to no grant the ledger gave.`,
      action: "investigate",
      words: "Look the entry up in the ledger.",
    });
  }
}
