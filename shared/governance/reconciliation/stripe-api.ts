/**
 * Objects of Stripe's API as the few facts that a reconciliation needs: nothing else of them is kept, no card and no
 * address. Both shapes are read where the API changed one: charges name their invoice until 2025-03-31, invoices their
 * payments since then (Stripe, "Changelog: basil"); any reference may be an id or the expanded object.
 *
 * Money in minor units, times in seconds since 1970, as Stripe has them.
 */
import { isRecord } from "../values.ts";
import { metadataFields } from "./exports.ts";

export const STRIPE_RESOURCES = [
  "balance_transactions",
  "charges",
  "refunds",
  "disputes",
  "checkout_sessions",
  "invoices",
] as const;
export type StripeResource = (typeof STRIPE_RESOURCES)[number];

interface Kept {
  readonly id: string;
  readonly created: number;
  /** False while Stripe may still change what is kept of it, without a movement of money that would show it. */
  readonly is_final: boolean;
}

export interface BalanceTransactionRecord extends Kept {
  readonly category: string;
  readonly amount: number;
  readonly fee: number;
  readonly net: number;
  readonly currency: string;
  /** The charge, refund, dispute, payout … that moved the money. */
  readonly source: string | null;
}

export interface ChargeRecord extends Kept {
  /** What was captured; before that, what was authorised. */
  readonly amount: number;
  /** Of what was captured, given back or on its way back. */
  readonly refunded: number;
  readonly currency: string;
  readonly status: string;
  readonly captured: boolean;
  readonly livemode: boolean;
  readonly intent: string | null;
  readonly invoice: string | null;
  readonly customer: string | null;
  readonly user: string | null;
  readonly order: string | null;
  readonly pack: string | null;
  /** How many tokens its metadata names. */
  readonly tokens: string | null;
  /** What was sold, in the words of its description. */
  readonly product: string | null;
  /** How it moved the balance; null while it did not. */
  readonly settled: { readonly amount: number; readonly fee: number; readonly currency: string } | null;
}

export interface RefundRecord extends Kept {
  readonly amount: number;
  readonly currency: string;
  readonly status: string;
  readonly charge: string | null;
  readonly intent: string | null;
}

/** A dispute or an inquiry. */
export interface DisputeRecord extends RefundRecord {
  readonly livemode: boolean;
}

export interface CheckoutSessionRecord extends Kept {
  readonly intent: string | null;
  readonly invoice: string | null;
  readonly reference: string | null;
  readonly user: string | null;
  readonly order: string | null;
  readonly pack: string | null;
  readonly tokens: string | null;
}

export interface InvoiceRecord extends Kept {
  /** The payment intents and charges that paid it. */
  readonly payments: readonly string[];
}

export interface StripeRecords {
  readonly balance_transactions: BalanceTransactionRecord;
  readonly charges: ChargeRecord;
  readonly refunds: RefundRecord;
  readonly disputes: DisputeRecord;
  readonly checkout_sessions: CheckoutSessionRecord;
  readonly invoices: InvoiceRecord;
}

/** What is kept of an object, or null where it is not of the shape that Stripe documents. */
export function stripeRecord<R extends StripeResource>(
  resource: R,
  object: unknown,
): StripeRecords[R] | null {
  if (!isRecord(object)) return null;
  const id = text(object["id"]);
  const created = whole(object["created"]);
  if (id === null || created === null) return null;
  return readers[resource](object, id, created) as StripeRecords[R] | null;
}

/** A description names what was sold; more of it is not kept. */
const LONGEST_PRODUCT = 100;

type Fields = Readonly<Record<string, unknown>>;
type Reader = (object: Fields, id: string, created: number) => StripeRecords[StripeResource] | null;

const readers: Readonly<Record<StripeResource, Reader>> = {
  balance_transactions(object, id, created) {
    const amount = whole(object["amount"]);
    const fee = whole(object["fee"]);
    const net = whole(object["net"]);
    const currency = text(object["currency"]);
    // Reporting categories are the finer words; versions before 2019 have types alone.
    const category = text(object["reporting_category"]) ?? text(object["type"]);
    if (amount === null || fee === null || net === null || currency === null || category === null)
      return null;
    // It never changes but for becoming available.
    return {
      id,
      created,
      is_final: true,
      category,
      amount,
      fee,
      net,
      currency,
      source: idOf(object["source"]),
    };
  },

  charges(object, id, created) {
    const currency = text(object["currency"]);
    const status = text(object["status"]);
    const captured = object["captured"] !== false;
    const authorised = whole(object["amount"]);
    const refunded = whole(object["amount_refunded"]);
    if (currency === null || status === null || authorised === null || refunded === null) return null;
    const isPaid = captured && status === "succeeded";
    const amount = (isPaid ? whole(object["amount_captured"]) : null) ?? authorised;
    const settled = settlement(object["balance_transaction"]);
    const isExpired = !captured && object["refunded"] === true;
    const billing = isRecord(object["billing_details"]) ? object["billing_details"] : {};
    return {
      id,
      created,
      is_final: status === "failed" || isExpired || (isPaid && settled !== null),
      amount,
      // Stripe counts what a partial capture let go as refunded.
      refunded: Math.max(0, refunded - (authorised - amount)),
      currency,
      status,
      captured,
      livemode: object["livemode"] !== false,
      intent: idOf(object["payment_intent"]),
      invoice: idOf(object["invoice"]),
      customer: idOf(object["customer"]) ?? text(billing["email"]),
      ...metadataFields(object["metadata"]),
      product: text(object["description"])?.slice(0, LONGEST_PRODUCT) ?? null,
      settled,
    };
  },

  refunds(object, id, created) {
    // Before 2020 Stripe reported only what succeeded.
    const status = text(object["status"]) ?? "succeeded";
    const moved = movement(object);
    if (moved === null) return null;
    // One that succeeded can still fail; the money that comes back then shows it.
    return { id, created, is_final: /^(?:succeeded|failed|canceled)$/.test(status), status, ...moved };
  },

  disputes(object, id, created) {
    const status = text(object["status"]);
    const moved = movement(object);
    if (moved === null || status === null) return null;
    const isFinal = !/needs_response|under_review/.test(status);
    return { id, created, is_final: isFinal, status, livemode: object["livemode"] !== false, ...moved };
  },

  checkout_sessions(object, id, created) {
    const intent = idOf(object["payment_intent"]);
    const invoice = idOf(object["invoice"]);
    return {
      id,
      created,
      // The payment belongs to it from its completion on; the charge says what became of that.
      is_final: text(object["status"]) !== "open",
      intent,
      invoice,
      reference: text(object["client_reference_id"]),
      ...metadataFields(object["metadata"]),
    };
  },

  invoices(object, id, created) {
    const status = text(object["status"]);
    const list = isRecord(object["payments"]) ? object["payments"]["data"] : null;
    const payments = [object["payment_intent"], object["charge"]];
    for (const one of Array.isArray(list) ? list : []) {
      const payment: unknown = isRecord(one) ? one["payment"] : null;
      if (isRecord(payment)) payments.push(payment["payment_intent"], payment["charge"]);
    }
    return {
      id,
      created,
      is_final: status !== "draft" && status !== "open",
      payments: [...new Set(payments.map(idOf))].filter((one) => one !== null),
    };
  },
};

/** What refunds and disputes have in common. */
function movement(object: Fields): Pick<RefundRecord, "amount" | "currency" | "charge" | "intent"> | null {
  const amount = whole(object["amount"]);
  const currency = text(object["currency"]);
  if (amount === null || currency === null) return null;
  return { amount, currency, charge: idOf(object["charge"]), intent: idOf(object["payment_intent"]) };
}

function settlement(value: unknown): ChargeRecord["settled"] {
  if (!isRecord(value)) return null;
  const amount = whole(value["amount"]);
  const fee = whole(value["fee"]);
  const currency = text(value["currency"]);
  return amount === null || fee === null || currency === null ? null : { amount, fee, currency };
}

const text = (value: unknown): string | null => (typeof value === "string" && value !== "" ? value : null);
const whole = (value: unknown): number | null =>
  typeof value === "number" && Number.isSafeInteger(value) ? value : null;
const idOf = (value: unknown): string | null => (isRecord(value) ? text(value["id"]) : text(value));
