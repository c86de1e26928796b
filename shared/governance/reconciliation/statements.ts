/** The statements of a report, line by line: the same on the screen, in a workbook and on paper. */
import type { DifferenceClass, RollForwardCheck, TieOut } from "./types.ts";

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

/** The money that unspent tokens stand for, in minor units. */
export const DEFERRED_LINES: readonly StatementLine<RollForwardCheck>[] = [
  { name: "Opening", value: (each) => each.opening_deferred_minor },
  { name: "Sold", value: (each) => each.sold_minor },
  { name: "Recognised", value: (each) => -each.recognised_minor },
  { name: "Refunded", value: (each) => -each.refunded_minor },
  { name: "Closing", value: (each) => each.closing_deferred_minor, kind: "sum" },
  { name: "Unexplained", value: (each) => each.unexplained_deferred_minor, kind: "check" },
];

/** What people call a class of difference, and what it means. */
export const CLASS_WORDS: Readonly<Record<DifferenceClass, readonly [name: string, means: string]>> = {
  PAID_NOT_GRANTED: ["Paid, not granted", "The money came, the tokens did not."],
  GRANTED_NOT_PAID: [
    "Granted, not paid",
    "Tokens were given for a payment that is not there, failed, or is unpaid.",
  ],
  DUPLICATE_GRANT: ["Granted twice", "One payment was credited more than once."],
  DUPLICATE_CHARGE: ["Charged twice", "One order was paid more than once."],
  AMOUNT_MISMATCH: ["Other amount", "What was paid is not the price of the pack at that time."],
  TOKEN_QTY_MISMATCH: ["Other number of tokens", "What was granted is not what the pack holds."],
  CURRENCY_MISMATCH: ["Other currency", "Payment and grant name different currencies."],
  REFUND_NOT_REVERSED: ["Refunded, tokens kept", "Money went back, the tokens stayed."],
  REFUND_OVER_REVERSED: ["Taken back too much", "More tokens were taken back than the refund calls for."],
  REFUND_AFTER_SPEND: ["Refunded after use", "The tokens were used before the refund."],
  DISPUTE_NOT_HELD: ["Disputed, not held", "A dispute is open and its tokens can still be used."],
  DISPUTE_WON_NOT_RESTORED: ["Dispute won, still held", "The tokens were not given back."],
  DISPUTE_LOST_NOT_CHARGED: ["Dispute lost, not taken back", "The money is gone, the tokens are not."],
  SUB_PERIOD_GAP: ["Period not granted", "An invoiced period has no grant."],
  SUB_PERIOD_OVERLAP: ["Period granted twice", "An invoiced period was granted more than once."],
  FEE_VARIANCE: ["Other fee", "Stripe's fee does not add up."],
  FX_ROUNDING: ["Rounding of a conversion", "At most one minor unit."],
  TIMING: ["Timing", "Too young to be missing; carried forward."],
  ORPHAN: ["Belongs to nothing", "A refund, dispute or correction whose payment is not known."],
  UNKNOWN_CATEGORY: ["Unknown kind", "A kind of row that is not known yet."],
  TEST_MODE_LEAK: ["Test mode", "A test payment in live data."],
};
