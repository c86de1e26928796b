/** Stripe's side as one table: a row for each row of the exports, columns in typed arrays. */
import { createTable, type Table } from "./columns.ts";
import type { InputManifest, StripeExportKind } from "./types.ts";

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
/** A payment that was booked and failed later: all of its money went back. */
export const CHARGE_FAILURE = 10;
/** The part of an authorised amount that was never captured. */
export const PARTIAL_CAPTURE = 11;
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
  "payment failure",
  "partial capture",
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

/** Which exports are about money at Stripe (cash) rather than about payments. */
export const isCash = (kind: StripeExportKind): boolean =>
  kind === "balance_history" ||
  kind === "balance_change_itemized" ||
  kind === "payout_reconciliation_itemized";

const spec = {
  kind: "u8",
  state: "u8",
  dispute: "u8",
  file: "u8",
  /** While reading: 1 test mode, 2 live, 0 unknown. Then 1 for what does not belong here, else 0. */
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
  /** How many tokens the metadata names, as text. */
  tokens: "u32",
  /** What was sold, in the export's words: line items, else the description. */
  product: "u32",
  category: "u32",
  created: "f64",
  /** What the customer paid, got back or disputes; ≥ 0 but for odd rows. */
  amount: "f64",
  refunded: "f64",
  /** When the last refund of the cumulative figure was made; 0 where the export does not say. */
  refundedAt: "f64",
  disputed: "f64",
  /** When a dispute in the payments list was opened; 0 where it does not say. */
  disputedAt: "f64",
  /** As it moved Stripe's balance, signed. */
  cash: "f64",
  /** Of `cash`, what the payments list says was refunded, at the rates of those days; 0 where it does not say. */
  cashRefunded: "f64",
  fee: "f64",
  net: "f64",
  currency: "u8",
  cashCurrency: "u8",
  /** 1 where `amount` is in the settlement currency because the export lacks the customer's. */
  settledOnly: "u8",
  /** What was authorised and never captured, where the payments list says: other exports may call it a refund. */
  uncaptured: "f64",
  /** 1 where `amount` is what was captured, not what was authorised. */
  isCaptured: "u8",
} as const;
export type StripeTable = Table<typeof spec>;

/** Ids that a payment may have beside its own. */
type LinkId = "intent" | "session" | "order" | "reference" | "invoice";

export interface StripeSide {
  readonly table: StripeTable;
  readonly files: InputManifest[];
  readonly kinds: StripeExportKind[];
  /** What the files contain at all. */
  readonly has: {
    refunds: boolean;
    disputes: boolean;
    cash: boolean;
    payments: boolean;
  };
  /** Ids that some file has a column of: no row has any other. */
  readonly ids: Set<LinkId>;
  /** By file: whether it has columns that name a sale of tokens (metadata pack_id, tokens). */
  readonly namesTokens: boolean[];
}

export function createStripeSide(): StripeSide {
  return {
    table: createTable(spec),
    files: [],
    kinds: [],
    has: { refunds: false, disputes: false, cash: false, payments: false },
    ids: new Set(),
    namesTokens: [],
  };
}
