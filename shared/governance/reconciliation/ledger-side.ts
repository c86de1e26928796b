import { type Currencies, parseTime } from "./cells.ts";
import { createTable, type Table } from "./columns.ts";
import type { Interner } from "./interner.ts";
import { BadInput } from "./problem.ts";
import type { LedgerRecord, LedgerRecordType } from "./types.ts";

export const RECORD_TYPES: readonly LedgerRecordType[] = [
  "grant",
  "refund",
  "restoration",
  "dispute_hold",
  "dispute_release",
  "dispute_clawback",
  "adjustment",
  "promotional",
  "relabel",
];
export const GRANT = 0;
export const REFUND_RECORD = 1;
export const RESTORATION = 2;
export const HOLD = 3;
export const RELEASE = 4;
export const CLAWBACK = 5;
export const ADJUSTMENT = 6;
export const PROMOTIONAL = 7;
export const RELABEL = 8;

export const GRANT_KINDS = ["", "purchase", "subscription", "promotional"];
export const SUBSCRIPTION_GRANT = 2;
export const PROMOTIONAL_GRANT = 3;

const spec = {
  type: "u8",
  kind: "u8",
  currency: "u8",
  /** While reading: 1 test mode, 2 live, 0 unknown. Then 1 for what does not belong here, else 0. */
  test: "u8",
  row: "u32",
  transaction: "f64",
  lot: "f64",
  tokens: "f64",
  debt: "f64",
  /** −1 where it is unknown. */
  remaining: "f64",
  /** −1 where it is unknown. */
  amount: "f64",
  /** The money booked for the tokens, plus 1; 0 where it is `amount`. */
  booked: "f64",
  /** Deferred revenue, plus 1; 0 where it follows from the tokens that remain. */
  deferred: "f64",
  /** The whole amount of the payment; 0 where it is `amount`. */
  paid: "f64",
  created: "f64",
  /** When its charge was made, where that was long before; 0 where it was not. */
  charged: "f64",
  user: "u32",
  pack: "u32",
  charge: "u32",
  intent: "u32",
  session: "u32",
  order: "u32",
  invoice: "u32",
  line: "u32",
  periodStart: "u32",
  periodEnd: "u32",
  customer: "u32",
  balance: "u32",
  refund: "u32",
  dispute: "u32",
} as const;
export type LedgerTable = Table<typeof spec>;
export const createLedgerTable = (): LedgerTable => createTable(spec);

export const TEXT_FIELDS = [
  ["user", "user_id"],
  ["pack", "pack_id"],
  ["charge", "charge_id"],
  ["intent", "payment_intent_id"],
  ["session", "checkout_session_id"],
  ["order", "order_id"],
  ["invoice", "invoice_id"],
  ["line", "invoice_line_id"],
  ["periodStart", "period_start"],
  ["periodEnd", "period_end"],
  ["customer", "customer_id"],
  ["balance", "balance_transaction_id"],
  ["refund", "refund_id"],
  ["dispute", "dispute_id"],
] as const;

/** Texts that are only shown, or compared by their text where few are left. */
export const SHOWN: ReadonlySet<string> = new Set(["user", "customer", "periodStart", "periodEnd"]);
/** Ids of which nearly every record has its own. */
export const DISTINCT: ReadonlySet<string> = new Set([
  "charge",
  "intent",
  "session",
  "order",
  "balance",
  "line",
]);

/** Adds a record from the database. Throws BadInput naming record and field. */
export function addLedgerRecord(
  record: LedgerRecord,
  table: LedgerTable,
  interner: Interner,
  currencies: Currencies,
): void {
  const fail = (field: keyof LedgerRecord, message: string): never => {
    throw new BadInput({
      code: "bad_ledger_record",
      file: "ledger",
      row: table.length + 1,
      column: field,
      message: `Ledger record ${String(record?.transaction_id)}: ${message}`,
    });
  };
  if (record === null || typeof record !== "object") return fail("transaction_id", "is not an object.");
  const type = RECORD_TYPES.indexOf(record.record_type);
  if (type < 0) fail("record_type", `"${String(record.record_type)}" is not a record type.`);
  if (!Number.isSafeInteger(record.transaction_id))
    fail("transaction_id", "transaction_id is not a whole number.");
  if (!Number.isSafeInteger(record.tokens)) fail("tokens", "tokens is not a whole number.");
  for (const field of [
    "amount_minor",
    "booked_minor",
    "deferred_minor",
    "payment_minor",
    "debt_tokens",
    "tokens_remaining",
    "lot_id",
  ] as const) {
    const value = record[field];
    if (value !== null && value !== undefined && !Number.isSafeInteger(value))
      fail(field, `${field} is not a whole number.`);
  }
  const created = parseTime(String(record.created_at));
  if (Number.isNaN(created)) fail("created_at", `"${String(record.created_at)}" is not a time.`);
  const charged = record.charged_at ? parseTime(record.charged_at) : 0;
  if (Number.isNaN(charged)) fail("charged_at", `"${String(record.charged_at)}" is not a time.`);
  const currency = currencies.readText(record.currency);
  if (currency < 0) fail("currency", `"${String(record.currency)}" is not a currency code.`);
  if (record.amount_minor !== null && record.amount_minor !== undefined && currency === 0)
    fail("currency", "has an amount without a currency.");
  const at = table.add();
  const columns = table.columns;
  columns.type[at] = type;
  columns.kind[at] = Math.max(0, GRANT_KINDS.indexOf(record.grant_kind ?? ""));
  columns.currency[at] = currency;
  columns.row[at] = at + 1;
  columns.transaction[at] = record.transaction_id;
  columns.lot[at] = record.lot_id ?? 0;
  columns.tokens[at] = record.tokens;
  columns.debt[at] = record.debt_tokens ?? 0;
  columns.remaining[at] = record.tokens_remaining ?? -1;
  columns.amount[at] = record.amount_minor ?? -1;
  if (record.booked_minor !== null && record.booked_minor !== undefined)
    columns.booked[at] = record.booked_minor + 1;
  if (record.deferred_minor !== null && record.deferred_minor !== undefined)
    columns.deferred[at] = record.deferred_minor + 1;
  if (record.payment_minor) columns.paid[at] = record.payment_minor;
  columns.created[at] = created;
  if (charged !== 0) columns.charged[at] = charged;
  for (const [column, field] of TEXT_FIELDS) columns[column][at] = interner.internText(record[field]);
  columns.test[at] =
    record.livemode === false
      ? 1
      : record.livemode === true
        ? 2
        : modeOfSession(interner, columns.session[at]);
}

export function modeOfSession(interner: Interner, session: number): number {
  if (session === 0) return 0;
  return interner.startsWith(session, "cs_test_") ? 1 : interner.startsWith(session, "cs_live_") ? 2 : 0;
}
