import type { DifferenceClass, Difference } from "../../../../shared/governance/reconciliation/types.ts";
import { currencyExponent } from "../../../../shared/governance/money/currency.ts";
import { formatMinorMoney } from "../../lib/format.ts";
import { codeWords, capitalise } from "../../lib/text.ts";

const words: Readonly<Record<DifferenceClass, readonly [name: string, means: string]>> = {
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

export function className(code: string): string {
  return words[code as DifferenceClass]?.[0] ?? capitalise(codeWords(code.toLowerCase()));
}
export function classMeans(code: string): string {
  return words[code as DifferenceClass]?.[1] ?? "";
}

/** Minor units for people; a dash where there is no amount. */
export function minorMoney(
  amountMinor: number | null | undefined,
  currency: string | null | undefined,
): string {
  if (amountMinor === null || amountMinor === undefined) return "—";
  if (!currency) return amountMinor === 0 ? "—" : String(amountMinor);
  return formatMinorMoney(amountMinor, currency, currencyExponent(currency));
}

/** What a ticket needs to know about one difference. */
export function differenceText(difference: Difference): string {
  return [
    `${className(difference.class)} (${difference.class})`,
    difference.explanation,
    `Proposed: ${difference.correction.words}`,
    `At stake: ${minorMoney(difference.amount_minor, difference.currency)}, ${difference.tokens} tokens`,
    difference.user_id ? `User: ${difference.user_id}` : null,
    difference.stripe?.charge_id ? `Charge: ${difference.stripe.charge_id}` : null,
    difference.stripe?.payment_intent_id ? `Payment intent: ${difference.stripe.payment_intent_id}` : null,
    difference.ledger ? `Ledger entry: ${difference.ledger.transaction_id}` : null,
    `Difference: ${difference.difference_id}`,
  ]
    .filter((line) => line !== null)
    .join("\n");
}
