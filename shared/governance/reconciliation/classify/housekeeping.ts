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
import { rowsWith } from "../columns.ts";
import { exclude, IN_DIFFERENCE, MATCHED, PENDING_ROW } from "../places.ts";
import { CHARGE, FEE, NOT_PAID, OTHER, PAYOUT, PENDING, UNCAPTURED, UNKNOWN } from "../stripe-table.ts";
import type { Findings } from "./findings.ts";

/** Rows of Stripe's that are not about tokens. Answers those whose own arithmetic is off, whatever else they are. */
export function setAside(findings: Findings): ReadonlySet<number> {
  const { side, links, currencies, stripe, stripePlace, text, money, eventKey, paymentOf, aboutEvent } =
    findings;
  const { isInPeriod, isJudged } = findings;
  const feeRows = new Set<number>();
  for (const event of new Set(links.conflicts)) {
    if (!isJudged(stripe.created[event])) {
      stripePlace[event] = exclude("outside_period");
      continue;
    }
    aboutEvent(event, {
      class: "ORPHAN",
      key: `${eventKey(event)}-${stripe.amount[event]}-${currencies.code(stripe.currency[event])}`,
      amount: stripe.amount[event],
      occurred: stripe.created[event],
      trail: [`${eventKey(event)} is there twice, with different amounts or currencies`],
      explanation: `Two rows claim the id ${eventKey(event)} and disagree. The other row was used.`,
      action: "investigate",
      words: "Export the file again; if both rows come back, ask Stripe.",
    });
  }
  for (let event = 0; event < side.table.length; event++) {
    if (links.cashCounts[event] === 1) checkRow(event);
    if (stripePlace[event] !== PENDING_ROW) continue;
    if (stripe.foreign[event]) stripePlace[event] = exclude("other_account");
    else if ((stripe.test[event] || stripe.kind[event] === UNKNOWN) && !isJudged(stripe.created[event]))
      stripePlace[event] = exclude("outside_period");
    else if (stripe.test[event]) testMode(event);
    else
      switch (stripe.kind[event]) {
        case FEE:
          stripePlace[event] = exclude("fee");
          break;
        case PAYOUT:
          stripePlace[event] = exclude("payout");
          break;
        case OTHER:
          stripePlace[event] = exclude("other_movement");
          break;
        case UNKNOWN:
          unknownRow(event);
          break;
        case CHARGE:
          if (stripe.state[event] === NOT_PAID) {
            if (links.claims.first[event] < 0) stripePlace[event] = exclude("not_paid");
          } else if (stripe.state[event] === PENDING) stripePlace[event] = exclude("pending");
          else if (stripe.state[event] === UNCAPTURED) stripePlace[event] = exclude("not_captured");
          break;
      }
  }
  return feeRows;

  function checkRow(event: number): void {
    const off = stripe.cash[event] - stripe.fee[event] - stripe.net[event];
    if (off === 0 || !isInPeriod(stripe.created[event])) return;
    const currency = stripe.cashCurrency[event];
    if (stripePlace[event] === PENDING_ROW || stripePlace[event] === MATCHED) feeRows.add(event);
    aboutEvent(event, {
      class: "FEE_VARIANCE",
      key: text(stripe.transaction[event]) ?? eventKey(event),
      amount: off,
      currency,
      trail: [
        `gross ${money(stripe.cash[event], currency)} − fee ${money(stripe.fee[event], currency)} ≠ net ${money(stripe.net[event], currency)}`,
      ],
      explanation: `Gross less fee is not net in this row: ${money(off, currency)} is missing. The tie-out is blocked.`,
      action: "investigate",
      words: "Export the file again; a damaged or edited row is the usual cause.",
    });
  }
  function testMode(event: number): void {
    stripePlace[event] = IN_DIFFERENCE;
    aboutEvent(event, {
      class: "TEST_MODE_LEAK",
      trail: [`${text(stripe.session[event]) ?? eventKey(event)} is of test mode`],
      explanation: `${paymentOf(event)} is a test payment in a live export. It was left out.`,
      action: "exclude",
      words: "Leave it out, and find out why a test row is in a live export.",
      blocks: false,
    });
  }
  function unknownRow(event: number): void {
    stripePlace[event] = IN_DIFFERENCE;
    const category = text(stripe.category[event]) ?? "(empty)";
    const amount = stripe.amount[event];
    aboutEvent(event, {
      class: "UNKNOWN_CATEGORY",
      key: text(stripe.transaction[event]) ?? eventKey(event),
      amount,
      trail: [`status or category "${category}"`],
      explanation: `"${category}" is a status or category that is not known here, so nothing can be said about its tokens.`,
      action: "investigate",
      words: "Find out what it is at Stripe; then treat the row by hand or update this program.",
    });
  }
}

/** The ledger's other records: those that follow a grant are counted where the grant is. */
export function placeFollowers(findings: Findings): void {
  const { side, ledgerTable, links, ledger, ledgerPlace, isInPeriod, grantKey, drafts } = findings;
  const { matchedRefunds, disputedRefunds, refundsInDifference, disputesInDifference } = findings;
  for (const record of rowsWith(ledgerPlace, PENDING_ROW, ledgerTable.length)) {
    const grant = links.grantOf[record];
    const type = ledger.type[record];
    if (matchedRefunds.has(record)) ledgerPlace[record] = MATCHED;
    else if (disputedRefunds.has(record)) ledgerPlace[record] = IN_DIFFERENCE;
    else if (grant < 0) {
      if (isInPeriod(ledger.created[record])) orphanRecord(record);
      else ledgerPlace[record] = exclude("outside_period");
    } else if (type === ADJUSTMENT || type === RELABEL || type === PROMOTIONAL)
      ledgerPlace[record] = exclude("correction");
    else if (links.void[grant]) ledgerPlace[record] = exclude("voided");
    else if (type === REFUND_RECORD || type === RESTORATION)
      ledgerPlace[record] = refundsInDifference.has(grant)
        ? IN_DIFFERENCE
        : placeWith(grant, side.has.refunds);
    else if (type === HOLD || type === RELEASE || type === CLAWBACK)
      ledgerPlace[record] = disputesInDifference.has(grant)
        ? IN_DIFFERENCE
        : placeWith(grant, side.has.disputes);
  }

  /** The place of a record that goes where its grant went; `isCovered`: the files have events of its kind. */
  function placeWith(grant: number, isCovered: boolean): number {
    if (!isCovered) return exclude("not_covered");
    if (links.claim[grant] >= 0) return MATCHED;
    const place = ledgerPlace[grant];
    return place === IN_DIFFERENCE || place === MATCHED ? place : exclude("not_covered");
  }
  function orphanRecord(record: number): void {
    ledgerPlace[record] = IN_DIFFERENCE;
    drafts.push({
      class: "ORPHAN",
      key: grantKey(record),
      event: -1,
      record,
      amount: 0,
      currency: ledger.currency[record],
      tokens: ledger.tokens[record],
      occurred: ledger.created[record],
      trail: ["no grant by lot or charge"],
      explanation: `A ledger entry (${RECORD_TYPES[ledger.type[record]]}) that belongs to no grant of the ledger's.`,
      action: "investigate",
      words: "Look the entry up in the ledger.",
    });
  }
}
