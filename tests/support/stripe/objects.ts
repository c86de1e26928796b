/**
 * The objects of Stripe's API behind a set of its exports: the same payments in the API's form. Made from the files
 * alone, so that a reconciliation by the API can be compared with one by the files, to the minor unit.
 */
import Papa from "papaparse";
import { parseMajor } from "../../../shared/governance/money/index.ts";
import { emptyAccount, type StripeAccount } from "./server.ts";

type Row = Readonly<Record<string, string>>;

/** Shapes before and since 2025-03-31: which of charge and invoice names the other. */
export type StripeShape = "before_basil" | "since_basil";

export function accountOfExports(
  files: Readonly<Record<string, string>>,
  shape: StripeShape,
  id = "acct_1SampleSampleSam",
): StripeAccount {
  const account = emptyAccount(id, "Sample");
  const { lists } = account;
  const read = (name: string): Row[] =>
    Papa.parse<Row>(files[name] ?? "", { header: true, skipEmptyLines: true }).data;
  const movements = read("itemized_balance_change.csv");
  const bySource = new Map(movements.map((row) => [row["source_id"], row]));
  const payments = read("unified_payments.csv").map((row) => paymentOf(row, bySource.get(row["id"])));

  lists.balance_transactions = movements.map(balanceTransaction);
  lists.refunds = movements.filter((row) => row["reporting_category"] === "refund").map(refund);
  lists.charges = payments.map((payment) => charge(payment, shape));
  for (const payment of payments) {
    if (payment.session) lists["checkout/sessions"].push(checkoutSession(payment, payment.session));
    if (payment.invoice) lists.invoices.push(invoiceOf(payment, payment.invoice, shape));
  }
  lists.disputes = read("disputes.csv").map(dispute);
  return account;
}

/** A row of the payments with the movement of money that it made; several objects come of it. */
interface Payment {
  readonly row: Row;
  readonly movement: Row | undefined;
  readonly created: number;
  readonly intent: string | null;
  readonly session: string | null;
  readonly invoice: string | null;
  readonly isLive: boolean;
}

function paymentOf(row: Row, movement: Row | undefined): Payment {
  const session = movement?.["checkout_session_id"] || null;
  return {
    row,
    movement,
    created: seconds(cell(row, "Created date (UTC)")),
    intent: movement?.["payment_intent_id"] || null,
    session,
    invoice: cell(row, "Invoice ID") || null,
    isLive: !session?.startsWith("cs_test_"),
  };
}

function balanceTransaction(row: Row) {
  const currency = cell(row, "currency");
  return {
    id: cell(row, "balance_transaction_id"),
    object: "balance_transaction",
    created: seconds(cell(row, "created_utc")),
    amount: minor(cell(row, "gross"), currency),
    fee: minor(cell(row, "fee"), currency),
    net: minor(cell(row, "net"), currency),
    currency,
    reporting_category: cell(row, "reporting_category"),
    type: cell(row, "reporting_category"),
    source: cell(row, "source_id") || null,
  };
}

function refund(row: Row) {
  const currency = cell(row, "customer_facing_currency") || cell(row, "currency");
  const amount = cell(row, "customer_facing_amount") || cell(row, "gross");
  return {
    id: cell(row, "source_id"),
    object: "refund",
    created: seconds(cell(row, "created_utc")),
    amount: Math.abs(minor(amount, currency)),
    currency,
    charge: cell(row, "charge_id") || null,
    payment_intent: cell(row, "payment_intent_id") || null,
    balance_transaction: cell(row, "balance_transaction_id"),
    status: "succeeded",
  };
}

function charge({ row, movement, created, intent, invoice, isLive }: Payment, shape: StripeShape) {
  const currency = cell(row, "Currency");
  const isPaid = cell(row, "Status") !== "Failed";
  const amount = minor(cell(row, "Amount"), currency);
  return {
    id: cell(row, "id"),
    object: "charge",
    created,
    amount,
    amount_captured: isPaid ? amount : 0,
    amount_refunded: minor(cell(row, "Amount Refunded"), currency),
    balance_transaction: movement?.["balance_transaction_id"] ?? null,
    billing_details: { email: cell(row, "Customer Email") },
    captured: cell(row, "Captured") === "true",
    currency,
    customer: cell(row, "Customer ID") || null,
    description: movement?.["description"] ?? (cell(row, "Description") || null),
    livemode: isLive,
    metadata: movement?.["payment_metadata[order_id]"]
      ? { order_id: movement["payment_metadata[order_id]"] }
      : {},
    payment_intent: intent,
    status: isPaid ? "succeeded" : "failed",
    ...(shape === "before_basil" ? { invoice } : {}),
  };
}

function checkoutSession({ created, intent, isLive }: Payment, id: string) {
  return {
    id,
    object: "checkout.session",
    created: created - 60,
    client_reference_id: null,
    invoice: null,
    livemode: isLive,
    metadata: {},
    payment_intent: intent,
    payment_status: "paid",
    status: "complete",
  };
}

function invoiceOf({ row, created, intent }: Payment, id: string, shape: StripeShape) {
  return {
    id,
    object: "invoice",
    created: created - 3_600,
    status: "paid",
    ...(shape === "before_basil"
      ? { charge: cell(row, "id"), payment_intent: intent, paid: true }
      : {
          payments: {
            object: "list",
            has_more: false,
            data: [
              { object: "invoice_payment", payment: { type: "payment_intent", payment_intent: intent } },
            ],
          },
        }),
  };
}

function dispute(row: Row) {
  return {
    id: cell(row, "id"),
    object: "dispute",
    created: seconds(cell(row, "Dispute Created (UTC)")),
    amount: minor(cell(row, "Dispute Amount"), cell(row, "Dispute Currency")),
    currency: cell(row, "Dispute Currency"),
    charge: cell(row, "Charge ID"),
    payment_intent: cell(row, "Payment Intent") || null,
    livemode: true,
    status: cell(row, "Status"),
  };
}

function cell(row: Row, name: string): string {
  const value = row[name];
  if (value === undefined) throw new Error(`The export has no column ${name}`);
  return value;
}
function minor(text: string, currency: string): number {
  const amount = parseMajor(text, currency);
  if (!amount.ok) throw new Error(`${text} ${currency}: ${amount.error.message}`);
  return amount.value;
}
const seconds = (utc: string): number => Date.parse(`${utc.replace(" ", "T")}Z`) / 1000;
