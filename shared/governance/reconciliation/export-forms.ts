/** Stripe's exports that are read: how each is recognised, and what its columns mean. */
import type { StripeExportKind } from "./types.ts";

/** The meanings that columns have, whatever an export calls them, each with its index in the file: −1 for none. */
export const NO_COLUMNS = {
  id: -1,
  source: -1,
  type: -1,
  created: -1,
  amount: -1,
  amount_captured: -1,
  refunded: -1,
  refunded_at: -1,
  fee: -1,
  fee_tax: -1,
  net: -1,
  currency: -1,
  captured: -1,
  status: -1,
  converted_amount: -1,
  converted_refunded: -1,
  converted_currency: -1,
  facing_amount: -1,
  facing_currency: -1,
  charge: -1,
  intent: -1,
  session: -1,
  client_reference: -1,
  order: -1,
  invoice: -1,
  customer: -1,
  email: -1,
  user: -1,
  pack: -1,
  tokens: -1,
  product: -1,
  description: -1,
  disputed: -1,
  disputed_at: -1,
  dispute_status: -1,
  livemode: -1,
  account: -1,
};
export type Field = keyof typeof NO_COLUMNS;
export const FIELDS = Object.keys(NO_COLUMNS) as readonly Field[];

export interface ExportForm {
  readonly kind: StripeExportKind;
  readonly title: string;
  /** Columns (normalised) that only this export has, all of them. */
  readonly signature: readonly string[];
  /** Column (normalised) → field; the first name that the file has wins. */
  readonly columns: Partial<Record<Field, readonly string[]>>;
  readonly required: readonly Field[];
  /** Columns that Stripe writes and that we have no use for: known, so not reported as unknown. */
  readonly ignored: readonly string[];
}

export const METADATA: Partial<Record<Field, readonly string[]>> = {
  user: ["user_id", "userid"],
  order: ["order_id", "orderid", "order"],
  pack: ["pack_id", "packid"],
  tokens: ["tokens", "token_amount"],
};

/** Both itemized reports name their columns alike; a payout report adds the payout. */
const ITEMIZED_COLUMNS: ExportForm["columns"] = {
  id: ["balance_transaction_id"],
  source: ["source_id"],
  type: ["reporting_category"],
  created: ["created_utc", "created"],
  amount: ["gross"],
  fee: ["fee"],
  net: ["net"],
  currency: ["currency"],
  facing_amount: ["customer_facing_amount"],
  facing_currency: ["customer_facing_currency"],
  charge: ["charge_id"],
  intent: ["payment_intent_id"],
  session: ["checkout_session_id"],
  client_reference: ["client_reference_id"],
  invoice: ["invoice_id"],
  customer: ["customer_id"],
  email: ["customer_email"],
  livemode: ["livemode", "mode"],
  account: ["connected_account_id", "connected_account"],
  product: ["description"],
  description: ["description"],
};

export const FORMS: readonly ExportForm[] = [
  {
    kind: "payout_reconciliation_itemized",
    title: "Payout reconciliation, itemized",
    signature: ["automatic_payout_effective_at", "reporting_category"],
    columns: ITEMIZED_COLUMNS,
    required: ["id", "type", "created", "amount", "fee", "net", "currency"],
    ignored:
      "automatic_payout_id automatic_payout_effective_at automatic_payout_effective_at_utc available_on available_on_utc created created_utc description subscription_id dispute_reason trace_id trace_id_status".split(
        " ",
      ),
  },
  {
    kind: "balance_change_itemized",
    title: "Balance change from activity, itemized",
    signature: ["balance_transaction_id", "reporting_category"],
    columns: ITEMIZED_COLUMNS,
    required: ["id", "type", "created", "amount", "fee", "net", "currency"],
    ignored:
      "available_on available_on_utc created created_utc description subscription_id dispute_reason automatic_payout_id automatic_payout_effective_at trace_id trace_id_status".split(
        " ",
      ),
  },
  {
    kind: "disputes",
    title: "Disputes",
    signature: ["dispute_amount", "charge_id"],
    columns: {
      id: ["id", "dispute_id"],
      created: ["dispute_created_utc", "dispute_created"],
      amount: ["dispute_amount"],
      currency: ["dispute_currency"],
      charge: ["charge_id"],
      intent: ["payment_intent", "payment_intent_id", "paymentintent_id"],
      status: ["status"],
      customer: ["customer_id"],
      email: ["customer_email"],
      livemode: ["livemode", "mode"],
      account: ["account_id", "connected_account_id"],
    },
    required: ["amount", "currency", "charge", "status"],
    ignored:
      "description charge_created_utc charge_amount charge_currency reason is_charge_refundable due_by_utc evidence_due_by_utc submission_count has_evidence past_due network_reason_code win_likelihood card_brand".split(
        " ",
      ),
  },
  {
    kind: "balance_history",
    title: "Balance history",
    signature: ["type", "source", "net"],
    columns: {
      id: ["id"],
      source: ["source"],
      type: ["type"],
      created: ["created_utc", "created"],
      amount: ["amount"],
      fee: ["fee", "fees"],
      net: ["net"],
      currency: ["currency"],
      facing_amount: ["customer_facing_amount"],
      facing_currency: ["customer_facing_currency"],
      product: ["description"],
      description: ["description"],
    },
    required: ["id", "type", "source", "created", "amount", "fee", "net", "currency"],
    ignored: "available_on_utc description transfer transfer_date_utc transfer_group".split(" "),
  },
  {
    kind: "unified_payments",
    title: "Payments (Dashboard)",
    signature: ["amount", "amount_refunded", "status"],
    columns: {
      id: ["id"],
      created: ["created_date_utc", "created_utc", "created", "created_date"],
      amount: ["amount"],
      amount_captured: ["amount_captured"],
      refunded: ["amount_refunded"],
      refunded_at: ["refunded_date_utc", "refunded_date"],
      fee: ["fee"],
      fee_tax: ["taxes_on_fee"],
      currency: ["currency"],
      captured: ["captured"],
      status: ["status"],
      converted_amount: ["converted_amount"],
      converted_refunded: ["converted_amount_refunded"],
      converted_currency: ["converted_currency"],
      charge: ["charge_id"],
      intent: ["paymentintent_id", "payment_intent_id"],
      session: ["checkout_session_id"],
      client_reference: ["client_reference_id"],
      invoice: ["invoice_id"],
      customer: ["customer_id"],
      email: ["customer_email"],
      product: ["checkout_line_item_summary", "description"],
      disputed: ["disputed_amount"],
      disputed_at: ["disputed_date_utc"],
      dispute_status: ["dispute_status"],
      livemode: ["livemode", "mode"],
      account: ["account_id", "connected_account_id"],
    },
    required: ["created", "amount", "refunded", "currency", "status"],
    ignored:
      "description seller_message decline_reason statement_descriptor card_id customer_description customer_phone transfer card_last4 card_brand card_funding card_exp_month card_exp_year card_name card_address_line1 card_address_line2 card_address_city card_address_state card_address_country card_address_zip card_issue_country card_fingerprint card_cvc_status card_avs_zip_status card_avs_line1_status card_tokenization_method shipping_name shipping_address_line1 shipping_address_line2 shipping_address_city shipping_address_state shipping_address_country shipping_address_postal_code dispute_reason dispute_evidence_due_utc invoice_number payment_source_type destination transfer_group application_fee application_id checkout_custom_field_1_key checkout_custom_field_1_value checkout_promotional_consent checkout_terms_of_service_consent utm_campaign utm_content utm_medium utm_source utm_term is_link card_hash terminal_location_id terminal_reader_id application_fee_amount tax_amount".split(
        " ",
      ),
  },
];

/** Where Stripe offers a column that a file lacks, and what it would add. */
export const OFFERED: Partial<
  Record<StripeExportKind, Partial<Record<Field, readonly [string, string, string]>>>
> = {
  unified_payments: {
    id: [
      "id",
      "ties a payment to its grant; without it payments can only be suggested",
      "the file as downloaded: Dashboard › Payments › Export (a spreadsheet dropped it)",
    ],
    intent: [
      "PaymentIntent ID",
      "a second way to find the grant",
      "Dashboard › Payments › Export › All columns",
    ],
    session: ["Checkout Session ID", "finds the order", "Dashboard › Payments › Export › All columns"],
    dispute_status: [
      "Dispute Status",
      "whether a dispute is open, won or lost",
      "Dashboard › Payments › Export › All columns, or Disputes › Export",
    ],
    captured: ["Captured", "leaves out payments that were only authorised", "Dashboard › Payments › Export"],
    fee: ["Fee", "the fees of the tie-out", "Dashboard › Payments › Export"],
  },
  balance_history: {
    facing_amount: [
      "Customer Facing Amount",
      "what the customer paid where Stripe converted it",
      "Dashboard › Balance › All activity › Export",
    ],
  },
  balance_change_itemized: {
    source: [
      "source_id",
      "the charge, refund or dispute behind the row",
      "Dashboard › Reports › Balance › Download › Columns",
    ],
    charge: [
      "charge_id",
      "ties refunds to their payment",
      "Dashboard › Reports › Balance › Download › Columns",
    ],
    intent: [
      "payment_intent_id",
      "a second way to find the grant",
      "Dashboard › Reports › Balance › Download › Columns",
    ],
    facing_amount: [
      "customer_facing_amount",
      "what the customer paid where Stripe converted it",
      "Dashboard › Reports › Balance › Download › Columns",
    ],
  },
  payout_reconciliation_itemized: {
    source: [
      "source_id",
      "the charge, refund or dispute behind the row",
      "Dashboard › Reports › Payout reconciliation › Download › Columns",
    ],
    charge: [
      "charge_id",
      "ties refunds to their payment",
      "Dashboard › Reports › Payout reconciliation › Download › Columns",
    ],
    intent: [
      "payment_intent_id",
      "a second way to find the grant",
      "Dashboard › Reports › Payout reconciliation › Download › Columns",
    ],
  },
  disputes: { id: ["id", "distinguishes two disputes of one charge", "Dashboard › Disputes › Export"] },
};
