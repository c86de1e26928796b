/** Stripe's words for statuses and movements of money, and what each means here. */
import type { Interner } from "./interner.ts";
import {
  CHARGE,
  CHARGE_FAILURE,
  DISPUTE,
  DISPUTE_REVERSAL,
  FEE,
  INQUIRY,
  LOST,
  NOT_PAID,
  OPEN,
  OTHER,
  PAID,
  PARTIAL_CAPTURE,
  PAYOUT,
  PENDING,
  REFUND,
  REFUND_FAILURE,
  UNCAPTURED,
  WON,
} from "./stripe-table.ts";

const words = (text: string): string[] => text.split(/\s+/).filter((word) => word !== "");

/** Each word of a group means the same. */
function vocabulary(...groups: readonly (readonly [number, string])[]): Readonly<Record<string, number>> {
  return Object.fromEntries(groups.flatMap(([meaning, text]) => words(text).map((word) => [word, meaning])));
}

/** Statuses of payments: of charges, of PaymentIntents, and what the Dashboard makes of both. */
export const PAYMENT_STATUS = vocabulary(
  [
    PAID,
    `paid succeeded refunded partially_refunded partial_refund refund_pending refund_failed disputed dispute_won
    dispute_lost dispute_needs_response dispute_under_review needs_response under_review inquiry_needs_response
    inquiry_under_review inquiry_closed early_fraud_warning won lost`,
  ],
  [
    NOT_PAID,
    `failed blocked declined canceled cancelled expired incomplete unpaid requires_payment_method requires_confirmation
    requires_action requires_source requires_source_action`,
  ],
  [PENDING, "pending processing"],
  [UNCAPTURED, "uncaptured requires_capture"],
);

export const DISPUTE_STATUS = vocabulary(
  [OPEN, "needs_response under_review"],
  // An appeal is heard after a dispute was lost: until it is won, the money is gone.
  [LOST, "lost appeal_needs_response appeal_under_review"],
  [WON, "won charge_refunded"],
  [INQUIRY, "prevented warning_needs_response warning_under_review warning_closed inquiry"],
);

/**
 * Types of balance transactions, reporting categories, and the categories of money management (Stripe, "Balance
 * transaction types", "Reporting categories", "v2 transactions"). `adjustment` says nothing by itself: see `adjusted`.
 */
export const CATEGORIES = vocabulary(
  [CHARGE, "charge payment"],
  // A bank debit is booked when it is sent, and taken out again when it fails.
  [CHARGE_FAILURE, "charge_failure payment_failure_refund"],
  [PARTIAL_CAPTURE, "partial_capture_reversal"],
  [REFUND, "refund payment_refund payment_reversal"],
  [REFUND_FAILURE, "refund_failure payment_refund_failure"],
  [DISPUTE, "dispute payment_dispute"],
  [DISPUTE_REVERSAL, "dispute_reversal"],
  [
    FEE,
    `fee stripe_fee stripe_fx_fee stripe_fee_tax tax_fee tax network_cost payment_failure_return_fee
    payment_method_passthrough_fee platform_fee fee_credit_funding`,
  ],
  [PAYOUT, "payout payout_reversal payout_cancel payout_failure"],
  [
    OTHER,
    `adjustment other_adjustment advance advance_funding advance_repayment anticipation_repayment application_fee
    application_fee_refund application_fee_reversal climate_order_purchase climate_order_refund
    connect_collection_transfer connect_reserved_funds contribution currency_conversion financing_paydown
    financing_paydown_reversal financing_payout financing_payout_reversal inbound_transfer inbound_transfer_reversal
    inbound_transfer_failure issuing_authorization_hold issuing_authorization_release issuing_disbursement
    issuing_disbursement_reversal issuing_dispute issuing_dispute_fraud_liability_debit
    issuing_dispute_provisional_credit issuing_dispute_provisional_credit_reversal issuing_transaction
    minimum_balance_hold minimum_balance_release obligation obligation_inbound obligation_outbound obligation_payout
    obligation_payout_failure obligation_reversal_inbound outbound_payment outbound_payment_reversal
    outbound_transfer outbound_transfer_reversal payment_network_reserve_hold payment_network_reserve_release
    payment_network_reserved_funds payment_unreconciled payout_minimum_balance_hold payout_minimum_balance_release
    platform_earning platform_earning_refund received_credit received_credit_reversal received_debit
    received_debit_reversal reserve reserve_funding reserve_hold reserve_release reserve_transaction reserved_funds
    return risk_reserved_funds stripe_balance_payment_debit stripe_balance_payment_debit_reversal tax_fund
    tax_withholding topup topup_reversal transfer transfer_cancel transfer_failure transfer_refund transfer_reversal
    unreconciled_customer_funds`,
  ],
);

/**
 * What an `adjustment` is, from the object it belongs to: a dispute, or a refund that failed. Older files name the
 * charge instead; then the description says ("Chargeback withdrawal for ch_…", "REFUND FAILURE (…)").
 */
export function adjusted(source: string, description: string, cash: number): number {
  if (/^(?:dp|du|pdp)_/.test(source)) return cash > 0 ? DISPUTE_REVERSAL : DISPUTE;
  if (/^(?:re|pyr)_/.test(source)) return cash > 0 ? REFUND_FAILURE : OTHER;
  if (/chargeback|dispute/i.test(description)) return cash > 0 ? DISPUTE_REVERSAL : DISPUTE;
  return cash > 0 && /refund.{0,3}fail|fail\w* refund/i.test(description) ? REFUND_FAILURE : OTHER;
}

const lowerSnake = (text: string): string =>
  text
    .trim()
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "_");

/** Reads words of a vocabulary by their number: the text of each is made once. −1 for a word that is not in it. */
export function createReader(
  interner: Interner,
  vocabularyOf: Readonly<Record<string, number>>,
): (id: number) => number {
  const known = new Map<number, number>();
  return (id) => {
    let meaning = known.get(id);
    if (meaning === undefined) {
      const word = lowerSnake(interner.text(id));
      meaning = Object.hasOwn(vocabularyOf, word) ? vocabularyOf[word] : -1;
      known.set(id, meaning);
    }
    return meaning;
  };
}
