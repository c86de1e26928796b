import { amountProblem, Currencies, isoTime, readAmount, readTime } from "./cells.ts";
import { createKeyQueue, createTable, type QueuedColumn, type Table } from "./columns.ts";
import { type CsvRow, CsvScanner } from "./csv-scanner.ts";
import { type ExportLayout, type Field, recogniseExport } from "./exports.ts";
import type { Interner } from "./interner.ts";
import { BadInput } from "./problem.ts";
import { decodeUtf8 } from "./text.ts";
import type { InputManifest, InputProblem, ReconcileOptions, StripeExportKind } from "./types.ts";

/** Kinds of economic event. */
export const CHARGE = 1;
export const REFUND = 2;
export const DISPUTE = 3;
export const DISPUTE_REVERSAL = 4;
export const REFUND_FAILURE = 5;
export const FEE = 6;
export const PAYOUT = 7;
export const OTHER = 8;
export const UNKNOWN = 9;
export const EVENT_NAMES = [
  "",
  "charge",
  "refund",
  "dispute",
  "dispute reversal",
  "refund failure",
  "fee",
  "payout",
  "other movement",
  "unknown category",
] as const;

/** States of a payment. */
export const PAID = 1;
export const NOT_PAID = 2;
export const PENDING = 3;
export const UNCAPTURED = 4;
export const PAYMENT_STATES = ["unknown", "paid", "not paid", "pending", "not captured"] as const;

/** States of a dispute, by how much is known; the higher number is the more final. */
export const NO_DISPUTE = 0;
export const INQUIRY = 1;
/** Funds have left; whether it is open or lost this file does not say. */
export const WITHDRAWN = 2;
export const OPEN = 3;
export const LOST = 4;
export const WON = 5;
export const DISPUTE_STATES = ["", "inquiry", "funds withdrawn", "open", "lost", "won"] as const;

/** Which exports tell about money at Stripe (cash) rather than about payments. */
export const isCash = (kind: StripeExportKind): boolean =>
  kind === "balance_history" ||
  kind === "balance_change_itemized" ||
  kind === "payout_reconciliation_itemized";

const spec = {
  kind: "u8",
  state: "u8",
  dispute: "u8",
  file: "u8",
  /** While reading: 1 test mode, 2 live, 0 not told. Then 1 for what does not belong here, else 0. */
  test: "u8",
  foreign: "u8",
  row: "u32",
  /** The event's own id: charge, refund or dispute. */
  object: "u32",
  transaction: "u32",
  charge: "u32",
  intent: "u32",
  session: "u32",
  order: "u32",
  reference: "u32",
  invoice: "u32",
  customer: "u32",
  user: "u32",
  pack: "u32",
  category: "u32",
  created: "f64",
  /** What the customer paid, got back or disputes; ≥ 0 but for odd rows. */
  amount: "f64",
  refunded: "f64",
  disputed: "f64",
  /** As it moved Stripe's balance, signed. */
  cash: "f64",
  fee: "f64",
  net: "f64",
  currency: "u8",
  cashCurrency: "u8",
  /** 1 where `amount` is in the settlement currency because the export does not tell the customer's. */
  settledOnly: "u8",
} as const;
export type StripeTable = Table<typeof spec>;

export interface StripeSide {
  readonly table: StripeTable;
  readonly files: InputManifest[];
  readonly kinds: StripeExportKind[];
  readonly has: {
    refunds: boolean;
    disputes: boolean;
    disputeStatus: boolean;
    cash: boolean;
    payments: boolean;
  };
}

export function createStripeSide(): StripeSide {
  return {
    table: createTable(spec),
    files: [],
    kinds: [],
    has: { refunds: false, disputes: false, disputeStatus: false, cash: false, payments: false },
  };
}

const PAYMENT_STATUS: Readonly<Record<string, number>> = {
  paid: PAID,
  succeeded: PAID,
  refunded: PAID,
  partially_refunded: PAID,
  partial_refund: PAID,
  refund_pending: PAID,
  refund_failed: PAID,
  disputed: PAID,
  dispute_won: PAID,
  dispute_lost: PAID,
  dispute_needs_response: PAID,
  dispute_under_review: PAID,
  needs_response: PAID,
  under_review: PAID,
  inquiry_needs_response: PAID,
  inquiry_under_review: PAID,
  inquiry_closed: PAID,
  early_fraud_warning: PAID,
  won: PAID,
  lost: PAID,
  failed: NOT_PAID,
  blocked: NOT_PAID,
  declined: NOT_PAID,
  canceled: NOT_PAID,
  cancelled: NOT_PAID,
  expired: NOT_PAID,
  incomplete: NOT_PAID,
  unpaid: NOT_PAID,
  requires_payment_method: NOT_PAID,
  requires_confirmation: NOT_PAID,
  requires_action: NOT_PAID,
  requires_source: NOT_PAID,
  requires_source_action: NOT_PAID,
  pending: PENDING,
  processing: PENDING,
  uncaptured: UNCAPTURED,
  requires_capture: UNCAPTURED,
};

const DISPUTE_STATUS: Readonly<Record<string, number>> = {
  needs_response: OPEN,
  under_review: OPEN,
  lost: LOST,
  won: WON,
  charge_refunded: WON,
  prevented: INQUIRY,
  warning_needs_response: INQUIRY,
  warning_under_review: INQUIRY,
  warning_closed: INQUIRY,
  inquiry: INQUIRY,
};

/** Balance transaction types and reporting categories (Stripe, "Balance transaction types"). */
const CATEGORIES: Readonly<Record<string, number>> = {
  charge: CHARGE,
  payment: CHARGE,
  partial_capture_reversal: OTHER,
  refund: REFUND,
  payment_refund: REFUND,
  payment_reversal: REFUND,
  dispute: DISPUTE,
  payment_dispute: DISPUTE,
  dispute_reversal: DISPUTE_REVERSAL,
  refund_failure: REFUND_FAILURE,
  payment_failure_refund: REFUND_FAILURE,
  fee: FEE,
  stripe_fee: FEE,
  stripe_fx_fee: FEE,
  tax_fee: FEE,
  tax: FEE,
  network_cost: FEE,
  application_fee: OTHER,
  platform_earning: OTHER,
  payout: PAYOUT,
  payout_reversal: PAYOUT,
  payout_cancel: PAYOUT,
  payout_failure: PAYOUT,
  payout_minimum_balance_hold: OTHER,
  payout_minimum_balance_release: OTHER,
};
for (const name of `transfer transfer_reversal transfer_cancel transfer_failure transfer_refund topup topup_reversal adjustment
  other_adjustment advance advance_funding advance_repayment anticipation_repayment climate_order_purchase climate_order_refund
  connect_collection_transfer connect_reserved_funds contribution financing_payout financing_payout_reversal financing_paydown
  financing_paydown_reversal inbound_transfer issuing_authorization_hold issuing_authorization_release issuing_dispute
  issuing_dispute_fraud_liability_debit issuing_transaction issuing_disbursement issuing_disbursement_reversal obligation_inbound
  obligation_outbound obligation_payout obligation_payout_failure payment_network_reserve_hold payment_network_reserve_release
  payment_unreconciled payment_failure_return_fee platform_earning_refund application_fee_refund reserve_transaction reserved_funds
  reserve_hold reserve_release reserve_funding risk_reserved_funds unreconciled_customer_funds currency_conversion
  application_fee_reversal reserve`.split(/\s+/)) {
  if (name !== "") (CATEGORIES as Record<string, number>)[name] ??= OTHER;
}

const lowerSnake = (text: string): string =>
  text
    .trim()
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "_");

/** A small vocabulary read from bytes over and over (statuses, types): the text is made once. */
function vocabulary(interner: Interner, map: Readonly<Record<string, number>>): (id: number) => number {
  const known = new Map<number, number>();
  return (id) => {
    let value = known.get(id);
    if (value === undefined) {
      const text = lowerSnake(interner.text(id));
      value = Object.hasOwn(map, text) ? map[text] : -1;
      known.set(id, value);
    }
    return value;
  };
}

/** Columns that are looked up many at a time, as the queue numbers them. */
const OBJECT: QueuedColumn = 0;
const INTENT: QueuedColumn = 1;
const SESSION: QueuedColumn = 2;
const TRANSACTION: QueuedColumn = 3;

/** Zero is there already, and memory that nobody wrote to costs nothing. */
function set(column: Uint8Array | Uint32Array | Float64Array, row: number, value: number): void {
  if (value !== 0) column[row] = value;
}

export interface StripeFileReader {
  push(chunk: Uint8Array): void;
  /** The manifest; its hash is filled in by the caller. */
  finish(bytes: number): InputManifest;
  readonly rows: number;
}

/** Reads one export into the table, row by row. Throws BadInput with file, row and column. */
export function readStripeFile(
  name: string,
  side: StripeSide,
  interner: Interner,
  currencies: Currencies,
  options: ReconcileOptions,
  warn: (problem: InputProblem) => void,
): StripeFileReader {
  const { table } = side;
  const fileIndex = side.files.length;
  const queue = createKeyQueue(interner, table, ["object", "intent", "session", "transaction"]);
  const { decimal, date_order: dateOrder } = options;
  const accountPart = options.account_id ? options.account_id.slice(-10) : null;
  const paymentStatus = vocabulary(interner, PAYMENT_STATUS);
  const disputeStatus = vocabulary(interner, DISPUTE_STATUS);
  const category = vocabulary(interner, CATEGORIES);
  let layout: ExportLayout | null = null;
  let delimiter: InputManifest["delimiter"] = ",";
  let from = Number.POSITIVE_INFINITY;
  let to = Number.NEGATIVE_INFINITY;
  const warned = new Map<string, number>();

  const scanner = new CsvScanner(name, {
    onHeader(cells, found) {
      delimiter = found;
      const recognised = recogniseExport(name, cells);
      layout = recognised;
      const { has } = side;
      if (isCash(recognised.kind)) {
        has.cash = true;
        has.refunds = true;
        has.disputes = true;
      } else if (recognised.kind === "disputes") {
        has.disputes = true;
        has.disputeStatus = true;
      } else {
        has.payments = true;
        has.refunds = true;
        if (recognised.at.dispute_status >= 0) {
          has.disputes = true;
          has.disputeStatus = true;
        }
      }
      reader = isCash(recognised.kind)
        ? readCash
        : recognised.kind === "disputes"
          ? readDispute
          : readPayment;
      at = recognised.at;
    },
    onRow: (row) => reader(row),
    onWarning(code, row, column, message) {
      warn({ code, file: name, row, column: scanner.columnName(column), message });
    },
  });

  let reader: (row: CsvRow) => void = () => undefined;
  let at = {} as Readonly<Record<Field, number>>;

  const fail = (row: CsvRow, column: number, code: string, message: string): never => {
    throw new BadInput({ code, file: name, row: row.row, column: scanner.columnName(column), message });
  };
  /** A warning that repeats is given once, with its first row. */
  const warnOnce = (code: string, row: CsvRow, column: number, message: string): void => {
    const times = warned.get(code) ?? 0;
    warned.set(code, times + 1);
    if (times === 0) warn({ code, file: name, row: row.row, column: scanner.columnName(column), message });
  };

  const id = (row: CsvRow, column: number): number => {
    if (column < 0) return 0;
    let start = row.starts[column];
    let end = row.ends[column];
    const { bytes } = row;
    while (start < end && bytes[start] <= 0x20) start++;
    while (end > start && bytes[end - 1] <= 0x20) end--;
    return start === end ? 0 : interner.intern(row, start, end);
  };
  /** The number of a text that is only shown, or compared by its text: kept, not looked up. */
  const shown = (row: CsvRow, column: number): number => {
    if (column < 0) return 0;
    let start = row.starts[column];
    let end = row.ends[column];
    while (start < end && row.bytes[start] <= 0x20) start++;
    while (end > start && row.bytes[end - 1] <= 0x20) end--;
    return interner.keep(row, start, end);
  };
  /** As id, for ids of which nearly every row has its own: looked up many at a time. */
  const ownId = (row: CsvRow, column: number, event: number, into: QueuedColumn): number => {
    if (column < 0) return 0;
    let start = row.starts[column];
    let end = row.ends[column];
    while (start < end && row.bytes[start] <= 0x20) start++;
    while (end > start && row.bytes[end - 1] <= 0x20) end--;
    return queue.push(into, event, row, start, end);
  };
  /** Whether a cell begins so. */
  const begins = (row: CsvRow, column: number, prefix: string): boolean => {
    if (column < 0) return false;
    const start = row.starts[column];
    if (row.ends[column] - start < prefix.length) return false;
    for (let i = 0; i < prefix.length; i++) if (row.bytes[start + i] !== prefix.charCodeAt(i)) return false;
    return true;
  };
  const lastWord = { status: 0, type: 0 };
  /** As id, for columns of few words: mostly the same as in the row before. */
  const word = (row: CsvRow, field: "status" | "type"): number => {
    const column = field === "status" ? at.status : at.type;
    const last = lastWord[field];
    const start = row.starts[column];
    if (last !== 0 && interner.is(last, row, start, row.ends[column] - start)) return last;
    return (lastWord[field] = id(row, column));
  };
  const cell = (row: CsvRow, column: number): string => {
    return column < 0 ? "" : decodeUtf8(row.bytes, row.starts[column], row.ends[column]).trim();
  };
  const money = (row: CsvRow, column: number, currency: number): number => {
    if (column < 0) return 0;
    const start = row.starts[column];
    const end = row.ends[column];
    const code = currencies.code(currency) || "usd";
    const value = readAmount(row.bytes, start, end, code, currencies.exponent(currency), decimal);
    if (value !== value) fail(row, column, "bad_amount", amountProblem(row.bytes, start, end, code, decimal));
    return value;
  };
  const currency = (row: CsvRow, column: number, required: boolean): number => {
    if (column < 0) return 0;
    const found = currencies.read(row.bytes, row.starts[column], row.ends[column]);
    if (found < 0 || (found === 0 && required))
      fail(
        row,
        column,
        "bad_currency",
        `"${cell(row, column).slice(0, 20)}" is not a currency code such as usd: use the file as it was downloaded.`,
      );
    return found;
  };
  const time = (row: CsvRow): number => {
    const column = at.created;
    if (column < 0) return Number.NaN;
    const start = row.starts[column];
    const end = row.ends[column];
    const seconds = readTime(row.bytes, start, end, dateOrder);
    if (seconds !== seconds)
      fail(
        row,
        at.created,
        "bad_time",
        start === end
          ? "The time is empty: use the file as it was downloaded."
          : `"${cell(row, at.created).slice(0, 40)}" cannot be read as one time: expected YYYY-MM-DD HH:MM. If a spreadsheet changed it, say whether day or month comes first, or use the file as it was downloaded.`,
      );
    if (seconds < from) from = seconds;
    if (seconds > to) to = seconds;
    return seconds;
  };
  /** Stripe's newer ids carry the account's: `ch_3` + 5 + account's last 10 + 8. Undocumented, so used only when asked to. */
  const isForeign = (key: number, account: string): boolean => {
    if (account !== "" && options.account_id) return account !== options.account_id;
    if (accountPart === null || key === 0) return false;
    const text = interner.text(key);
    return /^(?:ch|py|pi)_3[A-Za-z0-9]{23}$/.test(text) && text.slice(9, 19) !== accountPart;
  };
  const add = (row: CsvRow, kind: number): number => {
    const event = table.add();
    const columns = table.columns;
    columns.kind[event] = kind;
    columns.file[event] = fileIndex;
    columns.row[event] = row.row;
    return event;
  };
  /** 1 test mode, 2 live, 0 not told. */
  const modeOf = (row: CsvRow, session: number): number => {
    if (at.livemode >= 0) {
      const told = cell(row, at.livemode);
      if (/^(false|no|0|test)$/i.test(told)) return 1;
      if (/^(true|yes|1|live)$/i.test(told)) return 2;
    }
    if (session === 0) return 0;
    return interner.startsWith(session, "cs_test_") ? 1 : interner.startsWith(session, "cs_live_") ? 2 : 0;
  };

  function readPayment(row: CsvRow): void {
    const code = currency(row, at.currency, true);
    const statusKey = word(row, "status");
    const created = time(row);
    const amount = money(row, at.amount, code);
    const refunded = money(row, at.refunded, code);
    let state = paymentStatus(statusKey);
    const captured = at.captured >= 0 ? row.ends[at.captured] !== row.starts[at.captured] : false;
    if (state === PAID && captured) {
      const first = row.bytes[row.starts[at.captured]] | 0x20;
      if (first === 0x66 || first === 0x30 || first === 0x6e) state = UNCAPTURED; // false, 0, no
    }
    if (amount < 0 || refunded < 0)
      fail(
        row,
        amount < 0 ? at.amount : at.refunded,
        "negative_amount",
        "A payment cannot be negative: use the file as it was downloaded.",
      );
    if (refunded > amount && state === PAID)
      warnOnce(
        "refund_above_amount",
        row,
        at.refunded,
        "More was refunded than was paid: shown as a full refund.",
      );
    const settled = currency(row, at.converted_currency, false);
    const settledAmount = settled > 0 ? money(row, at.converted_amount, settled) : 0;
    const fee = money(row, at.fee, settled > 0 ? settled : code);
    const event = add(row, state < 0 ? UNKNOWN : CHARGE);
    const columns = table.columns;
    columns.state[event] = state < 0 ? 0 : state;
    columns.category[event] = statusKey;
    columns.created[event] = created;
    columns.amount[event] = amount;
    set(columns.refunded, event, refunded);
    columns.fee[event] = fee;
    columns.currency[event] = code;
    columns.cash[event] = settled > 0 ? settledAmount : amount;
    columns.cashCurrency[event] = settled > 0 ? settled : code;
    // A blank or pi_ id is a PaymentIntent without a charge.
    const isIntent = begins(row, at.id, "pi_");
    const object = isIntent ? 0 : ownId(row, at.id, event, OBJECT);
    const intent = ownId(row, at.intent, event, INTENT);
    if (intent === 0 && isIntent) columns.intent[event] = id(row, at.id);
    const session = ownId(row, at.session, event, SESSION);
    set(columns.order, event, id(row, at.order));
    set(columns.reference, event, id(row, at.client_reference));
    set(columns.invoice, event, id(row, at.invoice));
    set(columns.customer, event, shown(row, at.customer) || shown(row, at.email));
    set(columns.user, event, shown(row, at.user));
    set(columns.pack, event, id(row, at.pack));
    set(columns.test, event, modeOf(row, session));
    set(columns.foreign, event, isForeign(object, at.account >= 0 ? cell(row, at.account) : "") ? 1 : 0);
    if (at.dispute_status >= 0) {
      const dispute = id(row, at.dispute_status);
      if (dispute !== 0) {
        const known = disputeStatus(dispute);
        if (known < 0)
          warnOnce(
            "unknown_dispute_status",
            row,
            at.dispute_status,
            `"${interner.text(dispute)}" is not a dispute status we know: taken as open.`,
          );
        columns.dispute[event] = known < 0 ? OPEN : known;
        const disputed = money(row, at.disputed, code);
        columns.disputed[event] = disputed > 0 ? disputed : amount;
      }
    }
    if (object === 0 && state === PAID && columns.intent[event] === 0)
      warnOnce(
        "no_id",
        row,
        at.id,
        "A paid row without any id: it can only be suggested, never matched. Use the file as it was downloaded.",
      );
  }

  function readCash(row: CsvRow): void {
    const code = currency(row, at.currency, true);
    const type = word(row, "type");
    const created = time(row);
    const cash = money(row, at.amount, code);
    const fee = money(row, at.fee, code);
    const net = money(row, at.net, code);
    const source = id(row, at.source);
    let kind = category(type);
    if (kind === OTHER && (interner.startsWith(source, "dp_") || interner.startsWith(source, "du_")))
      kind = cash > 0 ? DISPUTE_REVERSAL : DISPUTE; // balance history calls both "adjustment"
    if (kind === DISPUTE && cash > 0) kind = DISPUTE_REVERSAL;
    const event = add(row, kind < 0 ? UNKNOWN : kind);
    const columns = table.columns;
    columns.category[event] = type;
    columns.created[event] = created;
    ownId(row, at.id, event, TRANSACTION);
    const charge =
      id(row, at.charge) ||
      (interner.startsWith(source, "ch_") || interner.startsWith(source, "py_") ? source : 0);
    // An export may name the charge without the column of sources.
    set(columns.object, event, source || (kind === CHARGE ? charge : 0));
    set(columns.charge, event, charge);
    ownId(row, at.intent, event, INTENT);
    const session = ownId(row, at.session, event, SESSION);
    set(columns.order, event, id(row, at.order));
    set(columns.reference, event, id(row, at.client_reference));
    set(columns.invoice, event, id(row, at.invoice));
    set(columns.customer, event, shown(row, at.customer) || shown(row, at.email));
    set(columns.user, event, shown(row, at.user));
    set(columns.pack, event, id(row, at.pack));
    columns.cash[event] = cash;
    columns.fee[event] = fee;
    columns.net[event] = net;
    columns.cashCurrency[event] = code;
    const facing = currency(row, at.facing_currency, false);
    if (facing > 0) {
      columns.currency[event] = facing;
      columns.amount[event] = Math.abs(money(row, at.facing_amount, facing));
    } else {
      columns.currency[event] = code;
      columns.amount[event] = Math.abs(cash);
      columns.settledOnly[event] = 1;
    }
    if (kind === CHARGE) columns.state[event] = PAID;
    if (kind === DISPUTE) columns.dispute[event] = WITHDRAWN;
    if (kind === DISPUTE_REVERSAL) columns.dispute[event] = WON;
    set(columns.test, event, modeOf(row, session));
    set(columns.foreign, event, isForeign(source, at.account >= 0 ? cell(row, at.account) : "") ? 1 : 0);
  }

  function readDispute(row: CsvRow): void {
    const code = currency(row, at.currency, true);
    const status = word(row, "status");
    const known = disputeStatus(status);
    const created = time(row);
    if (known < 0)
      warnOnce(
        "unknown_dispute_status",
        row,
        at.status,
        `"${interner.text(status)}" is not a dispute status we know: taken as open.`,
      );
    const amount = money(row, at.amount, code);
    const event = add(row, DISPUTE);
    const columns = table.columns;
    columns.category[event] = status;
    columns.created[event] = created;
    columns.object[event] = id(row, at.id);
    columns.charge[event] = id(row, at.charge);
    columns.intent[event] = id(row, at.intent);
    columns.customer[event] = shown(row, at.customer) || shown(row, at.email);
    columns.amount[event] = amount;
    columns.disputed[event] = amount;
    columns.currency[event] = code;
    columns.dispute[event] = known < 0 ? OPEN : known;
    set(columns.test, event, modeOf(row, 0));
    set(
      columns.foreign,
      event,
      isForeign(columns.charge[event], at.account >= 0 ? cell(row, at.account) : "") ? 1 : 0,
    );
  }

  return {
    push: (chunk) => scanner.push(chunk),
    get rows() {
      return scanner.rows;
    },
    finish(bytes) {
      scanner.finish();
      queue.flush();
      const found = layout as ExportLayout | null;
      if (found === null)
        throw new BadInput({
          code: "empty",
          file: name,
          row: null,
          column: null,
          message: "The file is empty.",
        });
      if (scanner.rows === 0)
        warn({
          code: "no_rows",
          file: name,
          row: null,
          column: null,
          message: "The file has a header and no rows: check the export's dates and filters.",
        });
      for (const [code, times] of warned)
        if (times > 1)
          warn({
            code: `${code}_repeated`,
            file: name,
            row: null,
            column: null,
            message: `… and ${times - 1} more such rows.`,
          });
      const manifest: InputManifest = {
        name,
        kind: found.kind,
        sha256: null,
        bytes,
        rows: scanner.rows,
        window: from <= to ? { from: isoTime(from) as string, to: isoTime(to) as string } : null,
        time_zone: found.createdIsUtc ? "UTC" : "assumed UTC",
        delimiter,
        missing_columns: found.missing,
        unknown_columns: found.unknown,
      };
      side.files.push(manifest);
      side.kinds.push(found.kind);
      return manifest;
    },
  };
}
