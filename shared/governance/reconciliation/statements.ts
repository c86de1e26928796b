/** The statements of a report, line by line: the same on the screen, in a workbook and on paper. */
import type { RollForwardCheck, TieOut } from "./types.ts";

export interface StatementLine<T> {
  readonly name: string;
  /** Null where it is not known. */
  readonly value: (of: T) => number | null;
  /** A check must be 0. */
  readonly kind?: "sum" | "check";
}

/** Cash at Stripe, in minor units of one currency. */
export const TIE_OUT_LINES: readonly StatementLine<TieOut>[] = [
  { name: "Opening balance", value: (each) => each.opening_minor },
  { name: "Payments, gross", value: (each) => each.gross_minor },
  { name: "Refunds", value: (each) => each.refunds_minor },
  { name: "Disputes", value: (each) => each.disputes_minor },
  { name: "Reversals", value: (each) => each.reversals_minor },
  { name: "Stripe's fees", value: (each) => each.fees_minor },
  { name: "Payouts", value: (each) => each.payouts_minor },
  { name: "Other", value: (each) => each.other_minor },
  { name: "Movement", value: (each) => each.net_minor, kind: "sum" },
  { name: "Closing balance", value: (each) => each.closing_minor },
  { name: "Unexplained", value: (each) => each.unexplained_minor, kind: "check" },
];

/** Tokens of one kind. */
export const ROLL_FORWARD_LINES: readonly StatementLine<RollForwardCheck>[] = [
  { name: "Opening", value: (each) => each.opening_tokens },
  { name: "Purchased", value: (each) => each.purchased_tokens },
  { name: "Promotional", value: (each) => each.promotional_tokens },
  { name: "Restored", value: (each) => each.restored_tokens },
  { name: "Consumed", value: (each) => -each.consumed_tokens },
  { name: "Refunded", value: (each) => -each.refunded_tokens },
  { name: "Disputed", value: (each) => -each.disputed_tokens },
  { name: "Expired", value: (each) => -each.expired_tokens },
  { name: "Adjusted", value: (each) => each.adjusted_tokens },
  { name: "Closing", value: (each) => each.closing_tokens, kind: "sum" },
  { name: "The ledger's own sum", value: (each) => each.ledger_tokens },
  { name: "Unexplained", value: (each) => each.unexplained_tokens, kind: "check" },
  { name: "Drift", value: (each) => each.drift_tokens, kind: "check" },
];

/** The money that corresponds to unspent tokens, in minor units. */
export const DEFERRED_LINES: readonly StatementLine<RollForwardCheck>[] = [
  { name: "Opening", value: (each) => each.opening_deferred_minor },
  { name: "Sold", value: (each) => each.sold_minor },
  { name: "Recognised", value: (each) => -each.recognised_minor },
  { name: "Given back", value: (each) => -each.refunded_minor },
  { name: "Closing", value: (each) => each.closing_deferred_minor, kind: "sum" },
  { name: "Unexplained", value: (each) => each.unexplained_deferred_minor, kind: "check" },
];
