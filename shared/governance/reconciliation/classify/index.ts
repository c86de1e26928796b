import { IN_DIFFERENCE, PENDING_ROW } from "../match.ts";
import { DISPUTE, DISPUTE_REVERSAL, REFUND, REFUND_FAILURE } from "../stripe-side.ts";
import type { Difference } from "../types.ts";
import { writeDifferences } from "./differences.ts";
import { disputeClasses } from "./disputes.ts";
import { createFindings, type Sums } from "./findings.ts";
import { grantClasses } from "./grants.ts";
import { placeFollowers, setAside } from "./housekeeping.ts";
import { classifyPayments } from "./payments.ts";
import { refundClasses } from "./refunds.ts";
import { suggest } from "./suggest.ts";

export type { Frame, Sums } from "./findings.ts";

export interface Classified {
  readonly differences: Difference[];
  readonly sums: Sums;
}

/** Gives every row of both sides its place: matched, in a difference of one class, or excluded with a reason. */
export function classify(...sides: Parameters<typeof createFindings>): Classified {
  const findings = createFindings(...sides);
  const { side, links, stripe, stripePlace } = findings;
  const refunds = refundClasses(findings);
  const disputes = disputeClasses(findings);
  const grants = grantClasses(findings);

  const feeRows = setAside(findings);
  classifyPayments(findings, refunds, disputes, grants);
  for (let event = 0; event < side.table.length; event++) {
    if (stripePlace[event] !== PENDING_ROW) continue;
    const kind = stripe.kind[event];
    const isRefund = kind === REFUND || kind === REFUND_FAILURE;
    if (!isRefund && kind !== DISPUTE && kind !== DISPUTE_REVERSAL) continue;
    const charge = links.chargeOf[event];
    // Judged with its charge, and goes where the charge went.
    if (charge >= 0) stripePlace[event] = stripePlace[charge];
    else if (isRefund) refunds.takeLoose(event);
    else disputes.takeLoose(event);
  }
  refunds.judgeLoose();
  grants.judgeUnclaimed();
  placeFollowers(findings);
  for (const event of feeRows) if (stripePlace[event] !== PENDING_ROW) stripePlace[event] = IN_DIFFERENCE;
  suggest(findings);
  return { differences: writeDifferences(findings), sums: findings.sums };
}
