import { rowsWith } from "../columns.ts";
import { exclude, IN_DIFFERENCE, PENDING_ROW } from "../places.ts";
import {
  CHARGE_FAILURE,
  DISPUTE,
  DISPUTE_REVERSAL,
  PARTIAL_CAPTURE,
  REFUND,
  REFUND_FAILURE,
} from "../stripe-table.ts";
import type { Difference } from "../types.ts";
import type { Sums } from "./bridge.ts";
import { writeDifferences } from "./differences.ts";
import { disputeClasses } from "./disputes.ts";
import { createFindings } from "./findings.ts";
import { grantClasses } from "./grants.ts";
import { placeFollowers, setAside } from "./housekeeping.ts";
import { classifyPayments } from "./payments.ts";
import { createLooseRefunds } from "./loose-refunds.ts";
import { createRefunds } from "./refunds.ts";
import { suggest } from "./suggest.ts";

export interface Classified {
  readonly differences: Difference[];
  readonly sums: Sums;
  /** Matches by pass. */
  readonly byPass: readonly number[];
}

/** Gives every row of both sides its place: matched, in a difference of one class, or excluded with a reason. */
export function classify(...sides: Parameters<typeof createFindings>): Classified {
  const findings = createFindings(...sides);
  const { side, links, stripe, stripePlace } = findings;
  const refunds = createRefunds(findings);
  const looseRefunds = createLooseRefunds(findings, refunds);
  const disputes = disputeClasses(findings);
  const grants = grantClasses(findings);

  const feeRows = setAside(findings);
  classifyPayments(findings, refunds, disputes, grants);
  for (const event of rowsWith(stripePlace, PENDING_ROW, side.table.length)) {
    const kind = stripe.kind[event];
    const charge = links.chargeOf[event];
    // Judged with its charge, and goes where the charge went.
    if (charge >= 0) stripePlace[event] = stripePlace[charge];
    else if (kind === REFUND || kind === REFUND_FAILURE) looseRefunds.takeLoose(event);
    else if (kind === DISPUTE || kind === DISPUTE_REVERSAL) disputes.takeLoose(event);
    else if (kind === CHARGE_FAILURE) grants.takeLooseFailure(event);
    else if (kind === PARTIAL_CAPTURE) stripePlace[event] = exclude("other_movement");
  }
  looseRefunds.judgeLoose();
  grants.judgeUnclaimed();
  placeFollowers(findings);
  for (const event of feeRows) if (stripePlace[event] !== PENDING_ROW) stripePlace[event] = IN_DIFFERENCE;
  suggest(findings);
  return { differences: writeDifferences(findings), sums: findings.bridge.finish(), byPass: findings.byPass };
}
