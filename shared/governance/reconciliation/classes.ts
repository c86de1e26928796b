/**
 * Every class of difference, in the order of the report: what people call it, what it means, and whether it keeps its
 * period open. The database has the same table (`governance.difference_classes`); a test keeps the two equal.
 */
export const CLASSES = {
  PAID_NOT_GRANTED: {
    name: "Paid, not granted",
    means: "The money came, the tokens did not.",
    blocks: true,
  },
  GRANTED_NOT_PAID: {
    name: "Granted, not paid",
    means: "Tokens were given for a payment that does not exist, failed, or is unpaid.",
    blocks: true,
  },
  DUPLICATE_GRANT: {
    name: "Granted twice",
    means: "One payment was credited more than once.",
    blocks: true,
  },
  DUPLICATE_CHARGE: {
    name: "Charged twice",
    means: "One order was paid more than once.",
    blocks: true,
  },
  AMOUNT_MISMATCH: {
    name: "Amount differs",
    means: "The amount paid is not the price of the pack at that time.",
    blocks: true,
  },
  TOKEN_QTY_MISMATCH: {
    name: "Token count differs",
    means: "The tokens granted are not as many as the pack holds.",
    blocks: true,
  },
  CURRENCY_MISMATCH: {
    name: "Currency differs",
    means: "Payment and grant name different currencies.",
    blocks: true,
  },
  REFUND_NOT_REVERSED: {
    name: "Refunded, tokens kept",
    means: "Money went back, the tokens stayed.",
    blocks: true,
  },
  REFUND_OVER_REVERSED: {
    name: "Too much taken back",
    means: "More tokens were taken back than the refund calls for.",
    blocks: true,
  },
  REFUND_AFTER_SPEND: {
    name: "Refunded after use",
    means: "The tokens were used before the refund.",
    blocks: true,
  },
  DISPUTE_NOT_HELD: {
    name: "Disputed, not held",
    means: "A dispute is open and its tokens can still be used.",
    blocks: true,
  },
  DISPUTE_WON_NOT_RESTORED: {
    name: "Dispute won, still held",
    means: "The tokens were not given back.",
    blocks: true,
  },
  DISPUTE_LOST_NOT_CHARGED: {
    name: "Dispute lost, not taken back",
    means: "The money is gone, the tokens are not.",
    blocks: true,
  },
  SUB_PERIOD_GAP: {
    name: "Period not granted",
    means: "An invoiced period has no grant.",
    blocks: true,
  },
  SUB_PERIOD_OVERLAP: {
    name: "Period granted twice",
    means: "An invoiced period was granted more than once.",
    blocks: true,
  },
  FEE_VARIANCE: {
    name: "Fee differs",
    means: "Stripe's fee does not add up.",
    blocks: true,
  },
  FX_ROUNDING: {
    name: "Rounding of a conversion",
    means: "At most one minor unit.",
    blocks: false,
  },
  TIMING: {
    name: "Timing",
    means: "Too young to be missing; carried forward.",
    blocks: false,
  },
  ORPHAN: {
    name: "Payment unknown",
    means: "A refund, dispute or correction whose payment is not known.",
    blocks: true,
  },
  UNKNOWN_CATEGORY: {
    name: "Unknown kind",
    means: "A kind of row that is not known yet.",
    blocks: true,
  },
  TEST_MODE_LEAK: {
    name: "Test mode",
    means: "A test payment in live data.",
    blocks: true,
  },
} as const satisfies Record<string, ClassFacts>;

interface ClassFacts {
  readonly name: string;
  readonly means: string;
  /** False for what is only listed, carried forward or left out. */
  readonly blocks: boolean;
}

export type DifferenceClass = keyof typeof CLASSES;
export const DIFFERENCE_CLASSES = Object.keys(CLASSES) as readonly DifferenceClass[];
