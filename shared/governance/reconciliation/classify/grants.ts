import { GRANT, SUBSCRIPTION_GRANT } from "../ledger-side.ts";
import { DUPLICATE, exclude, PENDING_ROW } from "../match.ts";
import { count, type Findings } from "./findings.ts";

export type Grants = ReturnType<typeof grantClasses>;

/** Grants that no payment stands behind. */
export function grantClasses(findings: Findings) {
  const { side, ledger, links, frame, l, s, books, text, granted, linkWords, isInPeriod } = findings;
  const { aboutGrant, reverseGrant } = findings;
  const isAnyPaymentTold = side.has.payments || side.has.cash;

  /** `e`: a payment that failed; −1 where there is none at all. */
  function grantedNotPaid(r: number, e: number): void {
    reverseGrant(
      r,
      e,
      {
        class: "GRANTED_NOT_PAID",
        trail: [
          e >= 0
            ? linkWords(r, e)
            : "no payment by charge, payment intent, checkout session, order or invoice",
        ],
        explanation:
          e >= 0
            ? `${count(granted(r))} tokens were granted, but the payment failed or was never made (${text(s.category[e]) ?? "not paid"}).`
            : `${count(granted(r))} tokens were granted, but Stripe's files have no payment for them${l.created[r] > frame.watermark ? "; their last row is older, so they may have been made before it" : ""}.`,
      },
      (back) => `Take back ${back} tokens, or reclassify the lot as promotional.`,
    );
  }

  /** Of each invoice line the grant that stands: the one tied to a payment, else the oldest. */
  function standingByLine(): ReadonlyMap<number, number> {
    const lines = new Map<number, number>();
    const isUnclaimed = (r: number): number => (links.claim[r] >= 0 ? 0 : 1);
    for (let r = 0; r < ledger.length; r++) {
      const line = l.line[r];
      if (line === 0 || l.type[r] !== GRANT || l.kind[r] !== SUBSCRIPTION_GRANT) continue;
      if (links.void[r] || books[r] === DUPLICATE) continue;
      const known = lines.get(line);
      if (
        known === undefined ||
        (isUnclaimed(r) - isUnclaimed(known) || l.transaction[r] - l.transaction[known]) < 0
      )
        lines.set(line, r);
    }
    return lines;
  }

  /** Every grant that no charge was claimed by. */
  function judgeUnclaimed(): void {
    const lines = standingByLine();
    for (let r = 0; r < ledger.length; r++) {
      if (books[r] !== PENDING_ROW || l.type[r] !== GRANT) continue;
      const twin = l.line[r] === 0 ? undefined : lines.get(l.line[r]);
      if (links.void[r]) books[r] = exclude(granted(r) === 0 ? "voided" : "promotional");
      else if (l.test[r])
        reverseGrant(
          r,
          -1,
          {
            class: "TEST_MODE_LEAK",
            trail: [`entry ${l.transaction[r]} comes from test mode`],
            explanation: "Tokens were granted for a payment in Stripe's test mode: no money was paid.",
          },
          (back) => `Take back ${back} tokens, and find out why the live ledger takes test events.`,
        );
      else if (twin !== undefined && twin !== r)
        reverseGrant(
          r,
          -1,
          {
            class: "SUB_PERIOD_OVERLAP",
            trail: [`invoice line ${text(l.line[r])} was granted already by entry ${l.transaction[twin]}`],
            explanation: `One invoiced period was granted twice: entries ${l.transaction[twin]} and ${l.transaction[r]}.`,
          },
          (back) => `Take back ${back} tokens of entry ${l.transaction[r]}.`,
        );
      else if (!isAnyPaymentTold) books[r] = exclude("not_covered");
      else if (!isInPeriod(l.created[r])) books[r] = exclude("outside_period");
      else if (l.created[r] > frame.coveredTo)
        aboutGrant(r, -1, {
          class: "TIMING",
          trail: ["the Stripe files do not reach this time"],
          explanation:
            "Granted after the Stripe files end, or within the lag of Stripe's reports; nothing can be said about its payment yet.",
          action: "carry_forward",
          words: "Carry forward, or bring an export that covers it.",
          blocks: false,
        });
      else grantedNotPaid(r, -1);
    }
  }

  return { grantedNotPaid, judgeUnclaimed };
}
