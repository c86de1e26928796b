/**
 * The objects of Stripe's API behind a set of its exports: the same payments, told the other way. Made from the files
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
  const ofSource = new Map(movements.map((row) => [row["source_id"], row]));

  for (const row of movements) {
    const currency = cell(row, "currency");
    lists.balance_transactions.push({
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
    });
    if (row["reporting_category"] === "refund")
      lists.refunds.push({
        id: cell(row, "source_id"),
        object: "refund",
        created: seconds(cell(row, "created_utc")),
        amount: Math.abs(
          minor(
            cell(row, "customer_facing_amount") || cell(row, "gross"),
            cell(row, "customer_facing_currency") || currency,
          ),
        ),
        currency: cell(row, "customer_facing_currency") || currency,
        charge: cell(row, "charge_id") || null,
        payment_intent: cell(row, "payment_intent_id") || null,
        balance_transaction: cell(row, "balance_transaction_id"),
        status: "succeeded",
      });
  }

  for (const row of read("unified_payments.csv")) {
    const currency = cell(row, "Currency");
    const movement = ofSource.get(cell(row, "id"));
    const invoice = cell(row, "Invoice ID");
    const intent = movement?.["payment_intent_id"] || null;
    const session = movement?.["checkout_session_id"] || null;
    const created = seconds(cell(row, "Created date (UTC)"));
    const isLive = !session?.startsWith("cs_test_");
    const isPaid = cell(row, "Status") !== "Failed";
    const amount = minor(cell(row, "Amount"), currency);
    lists.charges.push({
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
      ...(shape === "before_basil" ? { invoice: invoice || null } : {}),
    });
    if (session)
      lists["checkout/sessions"].push({
        id: session,
        object: "checkout.session",
        created: created - 60,
        client_reference_id: null,
        invoice: null,
        livemode: isLive,
        metadata: {},
        payment_intent: intent,
        payment_status: "paid",
        status: "complete",
      });
    if (invoice)
      lists.invoices.push({
        id: invoice,
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
      });
  }

  for (const row of read("disputes.csv"))
    lists.disputes.push({
      id: cell(row, "id"),
      object: "dispute",
      created: seconds(cell(row, "Dispute Created (UTC)")),
      amount: minor(cell(row, "Dispute Amount"), cell(row, "Dispute Currency")),
      currency: cell(row, "Dispute Currency"),
      charge: cell(row, "Charge ID"),
      payment_intent: cell(row, "Payment Intent") || null,
      livemode: true,
      status: cell(row, "Status"),
    });
  return account;
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
