import { indexCharges, settleCharges } from "./charges.ts";
import { claimCharges } from "./passes.ts";
import { collectReturns, readPartialCaptures } from "./returns.ts";
import { followLots } from "./lots.ts";
import type { Links, Sides } from "./links.ts";
import { mergeRows } from "./merge-rows.ts";

export * from "./links.ts";

/** Links both sides. Nothing depends on the order of rows or files. */
export function link(sides: Sides): Links {
  const { before, ...merged } = mergeRows(sides);
  const charges = indexCharges(sides, merged, before);
  const chargeOf = new Int32Array(sides.side.table.length).fill(-1);
  const failedAt = settleCharges(sides, merged, charges, chargeOf);
  const lots = followLots(sides);
  const claims = claimCharges(sides, lots, charges, before);
  const returns = collectReturns(sides, merged, lots, claims, charges, chargeOf, failedAt);
  readPartialCaptures(sides, lots, claims, returns);
  return { ...merged, ...lots, ...claims, ...returns, chargesBy: charges.chargesBy };
}
