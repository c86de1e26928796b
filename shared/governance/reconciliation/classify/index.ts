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
  const { side, links, s, stripe } = findings;
  const refunds = refundClasses(findings);
  const disputes = disputeClasses(findings);
  const grants = grantClasses(findings);

  const feeRows = setAside(findings);
  classifyPayments(findings, refunds, disputes, grants);
  for (let e = 0; e < side.table.length; e++) {
    if (stripe[e] !== PENDING_ROW) continue;
    const kind = s.kind[e];
    const isRefund = kind === REFUND || kind === REFUND_FAILURE;
    if (!isRefund && kind !== DISPUTE && kind !== DISPUTE_REVERSAL) continue;
    const charge = links.chargeOf[e];
    // Judged with its charge, and goes where the charge went.
    if (charge >= 0) stripe[e] = stripe[charge];
    else if (isRefund) refunds.takeLoose(e);
    else disputes.takeLoose(e);
  }
  refunds.judgeLoose();
  grants.judgeUnclaimed();
  placeFollowers(findings);
  for (const e of feeRows) if (stripe[e] !== PENDING_ROW) stripe[e] = IN_DIFFERENCE;
  suggest(findings);
  return { differences: writeDifferences(findings), sums: findings.sums };
}
