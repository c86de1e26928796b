/**
 * What was read from Stripe's API as the rows that Stripe's own exports have: one reader for both, so that the same
 * payments give the same report whichever way they came.
 */
import { formatMinor } from "../money/index.ts";
import type {
  BalanceTransactionRecord,
  ChargeRecord,
  CheckoutSessionRecord,
  DisputeRecord,
  InvoiceRecord,
  RefundRecord,
} from "./stripe-api.ts";
import { encodeUtf8 } from "./text.ts";
import type { InputFile } from "./types.ts";

/** What is kept of an account, each list in order of `created`, then id; asked again for each file. */
export interface StripeAccountRecords {
  readonly account_id: string;
  readonly livemode: boolean;
  readonly balance_transactions: () => Iterable<BalanceTransactionRecord>;
  readonly charges: () => Iterable<ChargeRecord>;
  readonly charge: (id: string) => ChargeRecord | null;
  readonly refunds: () => Iterable<RefundRecord>;
  readonly disputes: () => Iterable<DisputeRecord>;
  readonly checkout_sessions: () => Iterable<CheckoutSessionRecord>;
  readonly invoices: () => Iterable<InvoiceRecord>;
}

type Cell = string | number | boolean | null | undefined;

/** Inputs in the form of the exports "payments" (all columns), "balance change itemized" and "disputes". */
export function stripeApiFiles(records: StripeAccountRecords): InputFile[] {
  const file = (name: string, rows: () => Iterable<readonly Cell[]>): InputFile => ({
    name: `Stripe API: ${name}`,
    size_bytes: null,
    chunks: encodeRows(rows),
  });
  const hasDisputes = !records.disputes()[Symbol.iterator]().next().done;
  return [
    file("payments", () => paymentRows(records)),
    file("balance", () => balanceRows(records)),
    // An export without rows is worth a warning; an account without disputes is not.
    ...(hasDisputes ? [file("disputes", () => disputeRows(records))] : []),
  ];
}

/** What a payment is marked with. Stripe's exports have a column for each key that some payment has, and so have these. */
const MARKS = ["user", "order", "pack", "tokens"] as const;
type Mark = (typeof MARKS)[number];
const MARK_COLUMNS: Readonly<Record<Mark, string>> = {
  user: "user_id (metadata)",
  order: "order_id (metadata)",
  pack: "pack_id (metadata)",
  tokens: "tokens (metadata)",
};

function usedMarks(records: StripeAccountRecords): readonly Mark[] {
  const used = new Set<Mark>();
  for (const list of [records.charges(), records.checkout_sessions()])
    for (const record of list) {
      for (const mark of MARKS) if (record[mark]) used.add(mark);
      if (used.size === MARKS.length) return MARKS;
    }
  return MARKS.filter((mark) => used.has(mark));
}

function* paymentRows(records: StripeAccountRecords): Generator<readonly Cell[]> {
  const marks = usedMarks(records);
  yield [
    ..."id,Created date (UTC),Amount,Amount Captured,Amount Refunded,Currency,Captured,Converted Amount,Converted Currency,Fee,Status,Description,Customer ID,Invoice ID,PaymentIntent ID,Checkout Session ID,Client Reference ID,Disputed Amount,Dispute Status,livemode,account_id".split(
      ",",
    ),
    ...marks.map((mark) => MARK_COLUMNS[mark]),
  ];
  const linksOf = createLinks(records);
  const disputes = new Map<string, DisputeRecord>();
  for (const dispute of records.disputes())
    if (dispute.charge !== null) disputes.set(dispute.charge, dispute);

  for (const charge of records.charges()) {
    const { id, currency, settled } = charge;
    const links = linksOf(charge);
    const dispute = disputes.get(id);
    yield [
      id,
      utc(charge.created),
      formatMinor(charge.amount, currency),
      formatMinor(charge.amount, currency),
      formatMinor(charge.refunded, currency),
      currency,
      charge.captured,
      settled && formatMinor(settled.amount, settled.currency),
      settled?.currency,
      settled && formatMinor(settled.fee, settled.currency),
      charge.status,
      charge.product,
      charge.customer,
      links.invoice,
      charge.intent,
      links.session,
      links.reference,
      // In another currency than the payment's the part is not known: without an amount it is the whole.
      dispute?.currency === currency ? formatMinor(dispute.amount, currency) : null,
      dispute?.status,
      charge.livemode,
      records.account_id,
      ...marks.map((mark) => links[mark]),
    ];
  }
}

/** What else is known of a payment: its checkout, its invoice, and the metadata of either. */
function createLinks(records: StripeAccountRecords) {
  const invoices = new Map<string, string>();
  for (const { id, payments } of records.invoices())
    for (const payment of payments) invoices.set(payment, id);
  const sessions = new Map<string, CheckoutSessionRecord>();
  for (const session of records.checkout_sessions()) {
    if (session.intent !== null) sessions.set(session.intent, session);
    // A subscription's first payment belongs to the invoice, and the invoice to the session.
    if (session.invoice !== null) sessions.set(session.invoice, session);
  }
  return (charge: ChargeRecord) => {
    const { id, intent } = charge;
    const invoice = charge.invoice ?? invoices.get(intent ?? "") ?? invoices.get(id) ?? null;
    const session = sessions.get(intent ?? "") ?? sessions.get(invoice ?? "");
    return {
      invoice,
      session: session?.id,
      reference: session?.reference,
      user: charge.user ?? session?.user,
      order: charge.order ?? session?.order,
      pack: charge.pack ?? session?.pack,
      // Records kept by an older version of the console have none.
      tokens: charge.tokens ?? session?.tokens ?? null,
    };
  };
}

function* balanceRows(records: StripeAccountRecords): Generator<readonly Cell[]> {
  const marks = usedMarks(records);
  yield [
    ..."balance_transaction_id,created_utc,currency,gross,fee,net,reporting_category,source_id,customer_facing_amount,customer_facing_currency,charge_id,payment_intent_id,checkout_session_id,client_reference_id,invoice_id,customer_id,livemode,connected_account_id".split(
      ",",
    ),
    ...marks.map((mark) => MARK_COLUMNS[mark]),
  ];
  const linksOf = createLinks(records);
  const returns = new Map<string, RefundRecord>();
  for (const refund of records.refunds()) returns.set(refund.id, refund);
  for (const dispute of records.disputes()) returns.set(dispute.id, dispute);
  for (const moved of records.balance_transactions()) {
    const { currency, source } = moved;
    const returned = returns.get(source ?? "");
    const charge = records.charge(returned?.charge ?? source ?? "");
    const facing = returned ?? charge;
    const links = charge && linksOf(charge);
    yield [
      moved.id,
      utc(moved.created),
      currency,
      formatMinor(moved.amount, currency),
      formatMinor(moved.fee, currency),
      formatMinor(moved.net, currency),
      moved.category,
      source,
      facing && formatMinor(facing.amount, facing.currency),
      facing?.currency,
      returned?.charge ?? charge?.id,
      returned?.intent ?? charge?.intent,
      links?.session,
      links?.reference,
      links?.invoice,
      charge?.customer,
      charge?.livemode ?? records.livemode,
      records.account_id,
      ...marks.map((mark) => links?.[mark]),
    ];
  }
}

function* disputeRows(records: StripeAccountRecords): Generator<readonly Cell[]> {
  yield "id,Dispute Created (UTC),Dispute Amount,Dispute Currency,Charge ID,Status,Payment Intent,livemode,account_id".split(
    ",",
  );
  for (const dispute of records.disputes())
    yield [
      dispute.id,
      utc(dispute.created),
      formatMinor(dispute.amount, dispute.currency),
      dispute.currency,
      dispute.charge,
      dispute.status,
      dispute.intent,
      dispute.livemode,
      records.account_id,
    ];
}

const utc = (seconds: number): string =>
  new Date(seconds * 1000).toISOString().slice(0, 19).replace("T", " ");

const CHUNK_CHARACTERS = 1 << 16;

/** As Stripe writes CSV. For our own reader, so nothing is put before a formula: an id must stay what it is. */
async function* encodeRows(rows: () => Iterable<readonly Cell[]>): AsyncGenerator<Uint8Array> {
  let waiting = "";
  for (const row of rows()) {
    waiting += `${row.map(cell).join(",")}\n`;
    if (waiting.length < CHUNK_CHARACTERS) continue;
    yield encodeUtf8(waiting);
    waiting = "";
  }
  if (waiting !== "") yield encodeUtf8(waiting);
}

function cell(value: Cell): string {
  const text = value === null || value === undefined ? "" : String(value);
  return /[",;\t\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
