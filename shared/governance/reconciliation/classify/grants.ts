import { sayPeriod } from "../../rules/user-words.ts";
import { isoTime } from "../cells.ts";
import { firstOf, rowsWith } from "../columns.ts";
import { GRANT, SUBSCRIPTION_GRANT } from "../ledger-side.ts";
import { DUPLICATE, exclude, IN_DIFFERENCE, PENDING_ROW } from "../places.ts";
import { count, type Findings } from "./findings.ts";

export type Grants = ReturnType<typeof grantClasses>;

/** Grants without a payment behind them. */
export function grantClasses(findings: Findings) {
  const {
    side,
    ledgerTable,
    links,
    times,
    ledger,
    stripe,
    ledgerPlace,
    text,
    granted,
    linkWords,
    isInPeriod,
  } = findings;
  const { aboutGrant, reverseGrant, stillGranted, stripePlace } = findings;
  const hasPayments = side.has.payments || side.has.cash;

  /** `event`: a payment that failed; −1 where there is none at all. */
  function grantedNotPaid(record: number, event: number): void {
    reverseGrant(
      record,
      event,
      {
        class: "GRANTED_NOT_PAID",
        trail: [
          event >= 0 && links.claim[record] === event
            ? linkWords(record, event)
            : event >= 0
              ? `entry ${ledger.transaction[record]} by charge id`
              : "no payment by charge, payment intent, checkout session, order or invoice",
        ],
        explanation:
          event >= 0
            ? `${count(granted(record))} tokens were granted, but ${failureWords(event)}.`
            : `${count(granted(record))} tokens were granted, but Stripe's files have no payment for them${ledger.created[record] > times.watermark ? "; their last row is older, so they may have been made before it" : ""}.`,
      },
      (back) => `Take back ${back} tokens, or reclassify the lot as promotional.`,
    );
  }

  /** A payment that failed after it was booked, and is not in the files itself: its grants are to be gone. */
  function takeLooseFailure(event: number): void {
    stripePlace[event] = exclude(isInPeriod(stripe.created[event]) ? "not_paid" : "outside_period");
    if (!isInPeriod(stripe.created[event]) || stripe.charge[event] === 0) return;
    const index = links.grantsByCharge();
    for (let record = firstOf(index, stripe.charge[event]); record >= 0; record = index.next[record]) {
      if (links.void[record] || ledgerPlace[record] !== PENDING_ROW || stillGranted(record) === 0) continue;
      stripePlace[event] = IN_DIFFERENCE;
      links.failedAt[event] = stripe.created[event];
      grantedNotPaid(record, event);
    }
  }

  function failureWords(event: number): string {
    const day = links.failedAt[event] > 0 ? isoTime(links.failedAt[event])?.slice(0, 10) : undefined;
    return day
      ? `the payment failed after it was booked, on ${sayPeriod(day, "en")}`
      : `the payment failed or was never made (${text(stripe.category[event]) ?? "not paid"})`;
  }

  /** A trial, a promotion code of 100 %, an invoice paid outside of Stripe: nothing was collected, and none is missing. */
  function isFree(record: number): boolean {
    return (
      ledger.amount[record] === 0 &&
      ledger.charge[record] === 0 &&
      ledger.intent[record] === 0 &&
      (ledger.invoice[record] !== 0 || ledger.session[record] !== 0)
    );
  }

  /** Every grant that no charge was claimed by. */
  function judgeUnclaimed(): void {
    const lines = standingByLine(findings);
    for (const record of rowsWith(ledgerPlace, PENDING_ROW, ledgerTable.length)) {
      if (ledger.type[record] !== GRANT) continue;
      const twin = ledger.line[record] === 0 ? undefined : lines.get(ledger.line[record]);
      if (links.void[record]) ledgerPlace[record] = exclude(granted(record) === 0 ? "voided" : "promotional");
      else if (ledger.test[record])
        reverseGrant(
          record,
          -1,
          {
            class: "TEST_MODE_LEAK",
            trail: [`entry ${ledger.transaction[record]} comes from test mode`],
            explanation: "Tokens were granted for a payment in Stripe's test mode: no money was paid.",
          },
          (back) => `Take back ${back} tokens, and find out why the live ledger takes test events.`,
        );
      else if (twin !== undefined && twin !== record)
        reverseGrant(
          record,
          -1,
          {
            class: "SUB_PERIOD_OVERLAP",
            trail: [
              `invoice line ${text(ledger.line[record])} was granted already by entry ${ledger.transaction[twin]}`,
            ],
            explanation: `One invoiced period was granted twice: entries ${ledger.transaction[twin]} and ${ledger.transaction[record]}.`,
          },
          (back) => `Take back ${back} tokens of entry ${ledger.transaction[record]}.`,
        );
      else if (isFree(record)) ledgerPlace[record] = exclude("nothing_to_pay");
      else if (!hasPayments) ledgerPlace[record] = exclude("not_covered");
      else if (!isInPeriod(ledger.created[record])) ledgerPlace[record] = exclude("outside_period");
      else if (ledger.created[record] > times.coveredTo)
        aboutGrant(record, -1, {
          class: "TIMING",
          trail: ["the Stripe files do not reach this time"],
          explanation:
            "Granted after the Stripe files end, or within the lag of Stripe's reports; nothing can be said about its payment yet.",
          action: "carry_forward",
          words: "Carry forward, or bring an export that covers it.",
        });
      else if (isPaidBefore(findings, record)) aboutEarlier(findings, record);
      else grantedNotPaid(record, -1);
    }
  }

  return { grantedNotPaid, takeLooseFailure, judgeUnclaimed };
}

/** Whether its payment may lie before what the files cover: made just before midnight, or a debit that took days. */
function isPaidBefore({ ledger, times }: Findings, record: number): boolean {
  const charged = ledger.charged[record];
  return charged > 0 ? charged < times.coveredFrom : ledger.created[record] < times.paidSince;
}

function aboutEarlier({ ledger, aboutGrant }: Findings, record: number): void {
  const charged = isoTime(ledger.charged[record] || Number.NaN)?.slice(0, 10);
  aboutGrant(record, -1, {
    class: "TIMING",
    trail: ["the Stripe files do not reach back to its payment"],
    explanation: charged
      ? `Its payment was made on ${sayPeriod(charged, "en")}, before the Stripe files begin.`
      : "Granted just after the Stripe files begin: its payment may have been made before.",
    action: "carry_forward",
    words: "Carry forward, or bring an export that begins earlier.",
  });
}

/** Of each invoice line the grant that counts: the one tied to a payment, else the oldest. */
function standingByLine({ ledgerTable, ledger, links, ledgerPlace }: Findings): ReadonlyMap<number, number> {
  const lines = new Map<number, number>();
  const isUnclaimed = (record: number): number => (links.claim[record] >= 0 ? 0 : 1);
  for (const record of rowsWith(ledger.kind, SUBSCRIPTION_GRANT, ledgerTable.length)) {
    const line = ledger.line[record];
    if (line === 0 || ledger.type[record] !== GRANT) continue;
    if (links.void[record] || ledgerPlace[record] === DUPLICATE) continue;
    const known = lines.get(line);
    if (
      known === undefined ||
      (isUnclaimed(record) - isUnclaimed(known) || ledger.transaction[record] - ledger.transaction[known]) < 0
    )
      lines.set(line, record);
  }
  return lines;
}
