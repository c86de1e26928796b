/**
 * What goes into a reconciliation and what comes out. Field names are those of the database and of report.json
 * (snake_case, no mapping layer). Money is in minor units with its currency beside it, tokens in tokens, times are
 * ISO 8601 in UTC; never one column for two units.
 */

import type { Result } from "../result.ts";
import type { DifferenceClass } from "./classes.ts";

/** A named stream of bytes: a dropped file, a path read in chunks. Read once, in order. */
export interface InputFile {
  readonly name: string;
  /** For progress, and whether a thread is worth its start; null where it is not known. */
  readonly size_bytes: number | null;
  readonly chunks: AsyncIterable<Uint8Array>;
  /**
   * Where the caller has threads: starts one that reads the file by itself, with `readPart`. Large files are then read
   * side by side. `onChunk` is called with each chunk, and at the end: rows so far, and the bytes that are new; what it
   * throws is what `done` rejects with.
   */
  readonly read_apart?: (job: PartJob, onChunk: (rows: number, bytes: number) => void) => PartReading;
}

/** What a thread needs to know to read a file by itself. Data only, as all that threads send each other. */
export interface PartJob {
  readonly of: "stripe" | "ledger";
  readonly options: Omit<ReconcileOptions, "create_sha256">;
  /** Whether the file's SHA-256 is wanted. */
  readonly is_hashed: boolean;
}

/** What a thread read of a file: made by `readPart`, handed over as it is. */
export interface Part {
  readonly of: PartJob["of"];
}

/** A thread that reads a file. */
export interface PartReading {
  /** What was read, or what is wrong with the file. Rejects where the thread fails. */
  readonly done: Promise<Result<Part, InputProblem>>;
  /** Ends the thread, whatever it does; nothing where it has ended. */
  stop(): Promise<void>;
}

/** What a ledger record did to the tokens of a purchase or subscription lot. */
export type LedgerRecordType =
  /** Tokens granted for a payment. */
  | "grant"
  /** Tokens taken back for a refund (negative; what was spent already is in `debt_tokens`). */
  | "refund"
  /** Tokens given back: a refund that failed, or one reversed too far (positive). */
  | "restoration"
  /** A dispute was opened: what was left of the lot is frozen. */
  | "dispute_hold"
  /** The dispute was won or withdrawn by the customer: thawed, or given back. */
  | "dispute_release"
  /** The dispute was lost: taken for good (negative, debt included). */
  | "dispute_clawback"
  /** A posted correction of the quantity granted, positive or negative; −granted voids the grant. */
  | "adjustment"
  /** The lot was reclassified as promotional: no payment belongs to it any more. */
  | "promotional"
  /** A posted correction of amount or currency: the grant's are those of this record from now on. */
  | "relabel";

/**
 * One ledger entry that has to do with money, as `console_ledger_purchases_since` answers it. Only
 * `transaction_id`, `record_type`, `user_id`, `tokens` and `created_at` are always there; every Stripe id that is
 * known helps the match.
 */
export interface LedgerRecord {
  /** The ledger entry's own id: unique. */
  readonly transaction_id: number;
  readonly record_type: LedgerRecordType;
  readonly user_id: string;
  /** Signed effect in tokens, debt included. 0 for a hold on a lot that was all spent. */
  readonly tokens: number;
  readonly created_at: string;
  /** The lot it belongs to; ties what happened later to its grant. */
  readonly lot_id?: number | null;
  readonly grant_kind?: "purchase" | "subscription" | "promotional" | null;
  /** Tokens of this record that were spent already and became the account's debt (≥ 0). */
  readonly debt_tokens?: number | null;
  /** On a grant: tokens of the lot neither spent, expired nor taken back at the end of the period. */
  readonly tokens_remaining?: number | null;
  /**
   * What Stripe's files show for it, in minor units of `currency`: collected for a grant, tax included; refunded or
   * disputed. 0 where nothing was collected: a trial, a discount of 100 %, an invoice that was paid outside of Stripe.
   */
  readonly amount_minor?: number | null;
  /** On a grant: what is booked for the tokens, net of tax, where that is not what was collected. */
  readonly booked_minor?: number | null;
  /**
   * On a grant whose money is for longer than its tokens (a year paid in advance, given month by month): what of it is
   * deferred revenue at the end of the period. Of other grants it goes by `tokens_remaining`.
   */
  readonly deferred_minor?: number | null;
  /** On a grant: what its payment took in all, where other things were sold with the tokens. */
  readonly payment_minor?: number | null;
  /** On a grant: what was not paid by its payment, and what covered it in words (a discount, the customer's balance). */
  readonly covered_minor?: number | null;
  readonly covered_by?: string | null;
  readonly currency?: string | null;
  readonly pack_id?: string | null;
  readonly charge_id?: string | null;
  /** On a grant: when its charge was made, where that was long before: a bank debit succeeds days later. */
  readonly charged_at?: string | null;
  readonly payment_intent_id?: string | null;
  readonly checkout_session_id?: string | null;
  /** The shop's own order id: client_reference_id or metadata `order_id`, never a user's id. */
  readonly order_id?: string | null;
  readonly invoice_id?: string | null;
  readonly invoice_line_id?: string | null;
  readonly period_start?: string | null;
  readonly period_end?: string | null;
  readonly customer_id?: string | null;
  readonly balance_transaction_id?: string | null;
  readonly refund_id?: string | null;
  readonly dispute_id?: string | null;
  /** False where the event came from Stripe's test mode. */
  readonly livemode?: boolean | null;
  /** The difference that a posted correction answers. */
  readonly difference_id?: string | null;
}

/** Price and size of a pack from one moment on; the latest not after a payment is the one that counts. */
export interface PackPrice {
  readonly pack_id: string;
  readonly tokens: number;
  readonly price_minor: number;
  readonly currency: string;
  readonly valid_from: string;
}

/** The ledger's own totals for the period, as `console_token_roll_forward` answers them; checked here, line by line. */
export interface RollForwardLine {
  readonly kind: "subscription" | "purchased" | "promotional";
  /** Of the lots' money; null where tokens were not sold. */
  readonly currency: string | null;
  readonly opening_tokens: number;
  readonly purchased_tokens: number;
  readonly promotional_tokens: number;
  readonly restored_tokens: number;
  readonly consumed_tokens: number;
  readonly refunded_tokens: number;
  readonly disputed_tokens: number;
  readonly expired_tokens: number;
  /** Signed. */
  readonly adjusted_tokens: number;
  readonly closing_tokens: number;
  /** The ledger's own sum at the end of the period, taken from balances, not from movements. */
  readonly ledger_tokens: number;
  /** Deferred revenue: the money that corresponds to unspent tokens, in minor units. */
  readonly opening_deferred_minor: number;
  readonly sold_minor: number;
  readonly recognised_minor: number;
  readonly refunded_minor: number;
  readonly closing_deferred_minor: number;
}

/** From (included) to (excluded), ISO 8601. */
export interface Period {
  readonly from: string;
  readonly to: string;
}

/** What the project knows of payments and the files may not show. */
export interface KnownPayments {
  /** Ids (invoices, PaymentIntents, charges) of payments that are known to have sold no tokens. */
  readonly other_sales: readonly string[];
  /** The charge of refunds and disputes by their id: a balance history names neither charge nor payment intent. */
  readonly returns: Readonly<Record<string, string>>;
  /** The invoice of charges that paid one together, by the charge: a balance history does not name it. */
  readonly invoices: Readonly<Record<string, string>>;
}

export interface ReconcileOptions {
  /** Hours that a grant may come after its payment before it is missing. Default 1. */
  readonly grace_hours?: number;
  /** How far behind Stripe's reports (the itemized exports) are, in hours: a grant younger than their last row less this is TIMING. Default 12. */
  readonly report_lag_hours?: number;
  /** Until when the ledger's records are complete. Default: the end of the period. Later is better: late grants are found. */
  readonly ledger_through?: string;
  /** Until when the Stripe files are complete, where the person knows: what was granted later is TIMING. */
  readonly data_through?: string;
  /** From when they are complete, where that is known. */
  readonly data_from?: string;
  /** Prices of packs over time; without them amounts and tokens are compared with the ledger alone. */
  readonly packs?: readonly PackPrice[];
  readonly known_payments?: KnownPayments;
  /** Decimal sign of the files, where a spreadsheet made it ambiguous. */
  readonly decimal?: "." | ",";
  /** Order of day and month in dates with slashes, as spreadsheets write them. */
  readonly date_order?: "dmy" | "mdy";
  /** `acct_…` of the account that is reconciled: rows of other accounts are set aside. */
  readonly account_id?: string;
  /**
   * Whether the project takes live payments, so that rows of Stripe's test mode are leaks. Default: yes, unless test
   * mode is all that the rows show.
   */
  readonly livemode?: boolean;
  /** Cash at Stripe at the start of the period by currency, minor units; lets the tie-out say the closing balance. */
  readonly opening_balances?: Readonly<Record<string, number>>;
  readonly roll_forward?: readonly RollForwardLine[];
  /** Makes a SHA-256 (Node: `() => createHash("sha256")`); the core has none of its own. Without it hashes are null. */
  readonly create_sha256?: () => { update(bytes: Uint8Array): unknown; digest(encoding: "hex"): string };
}

export interface ReconcileProgress {
  readonly stage: "reading_stripe" | "reading_ledger" | "matching" | "reporting";
  /** File being read, else null. */
  readonly file: string | null;
  readonly stripe_rows: number;
  readonly ledger_records: number;
  readonly bytes_read: number;
  /** Sum of known sizes; null when any is unknown. */
  readonly bytes_total: number | null;
}

export interface ReconcileInput {
  readonly stripeFiles: readonly InputFile[];
  /** Pages or single records from the database, or a ledger export (CSV with the field names of LedgerRecord). */
  readonly ledger: AsyncIterable<LedgerRecord | readonly LedgerRecord[]> | InputFile;
  readonly period: Period;
  readonly options?: ReconcileOptions;
  /** Called about once a chunk or page; keep it cheap. */
  readonly onProgress?: (progress: ReconcileProgress) => void;
  /** An AbortSignal fits. Looked at once a chunk. */
  readonly signal?: { readonly aborted: boolean };
}

/** What is wrong with an input, where, and what to do. Row 1 is the header, as a spreadsheet counts. */
export interface InputProblem {
  readonly code: string;
  readonly file: string;
  readonly row: number | null;
  readonly column: string | null;
  readonly message: string;
}

/** Nothing was reconciled. `problems` is empty for `cancelled`. */
export interface ReconcileFailure {
  readonly code: "bad_input" | "cancelled";
  readonly problems: readonly InputProblem[];
}

export type StripeExportKind =
  | "unified_payments"
  | "balance_history"
  | "balance_change_itemized"
  | "payout_reconciliation_itemized"
  | "disputes";

export interface InputManifest {
  readonly name: string;
  readonly kind: StripeExportKind;
  readonly sha256: string | null;
  readonly bytes: number;
  readonly rows: number;
  /** Time of the first and last row; what is outside is not known from this file. */
  readonly window: { readonly from: string; readonly to: string } | null;
  /** "UTC" where a column names it, else "assumed UTC". */
  readonly time_zone: "UTC" | "assumed UTC";
  readonly delimiter: "," | ";" | "tab";
  /** Columns that would have shown more, each with where Stripe offers it. */
  readonly missing_columns: readonly {
    readonly column: string;
    readonly use: string;
    readonly where: string;
  }[];
  readonly unknown_columns: readonly string[];
}

/** What a correction does when posted; the last five book nothing. */
export type CorrectionAction =
  | "grant"
  | "reverse"
  | "adjust"
  | "claw_back"
  | "restore"
  | "hold"
  | "release"
  | "finalise_dispute"
  | "relabel"
  | "propose_refund"
  | "investigate"
  | "carry_forward"
  | "exclude"
  | "list";

/** A proposal, never booked by itself. As data it is the argument of `console_post_correction`. */
export interface Correction {
  readonly action: CorrectionAction;
  /** True where posting it makes a ledger entry. */
  readonly books: boolean;
  readonly words: string;
  /**
   * Signed tokens that it would add to the account; null where that is for a person to find out. A grant names the
   * whole pack: what `refunded_minor` takes back of it is booked beside it.
   */
  readonly tokens: number | null;
  readonly user_id: string | null;
  readonly customer_id: string | null;
  readonly lot_id: number | null;
  readonly pack_id: string | null;
  /** Of a grant: a pack that was bought, or a subscription's period. */
  readonly grant_kind: "purchase" | "subscription" | null;
  readonly charge_id: string | null;
  readonly payment_intent_id: string | null;
  readonly checkout_session_id: string | null;
  readonly invoice_id: string | null;
  readonly dispute_id: string | null;
  /** What was paid. */
  readonly amount_minor: number | null;
  readonly currency: string | null;
  /** What Stripe says was refunded and disputed in all. */
  readonly refunded_minor: number | null;
  readonly disputed_minor: number | null;
}

export interface StripeSide {
  /** The row's event: charge, refund, dispute, … */
  readonly event: string;
  readonly object_id: string | null;
  readonly charge_id: string | null;
  readonly payment_intent_id: string | null;
  readonly checkout_session_id: string | null;
  readonly order_id: string | null;
  readonly invoice_id: string | null;
  readonly customer_id: string | null;
  readonly amount_minor: number | null;
  readonly currency: string | null;
  readonly refunded_minor: number | null;
  readonly disputed_minor: number | null;
  readonly dispute_status: string | null;
  readonly status: string | null;
  readonly created: string | null;
  readonly rows: readonly { readonly file: string; readonly row: number }[];
}

export interface LedgerSide {
  readonly record_type: LedgerRecordType;
  readonly transaction_id: number;
  readonly lot_id: number | null;
  readonly user_id: string;
  readonly tokens: number;
  readonly tokens_reversed: number;
  readonly tokens_remaining: number | null;
  readonly amount_minor: number | null;
  readonly currency: string | null;
  readonly pack_id: string | null;
  readonly charge_id: string | null;
  readonly payment_intent_id: string | null;
  readonly created: string;
}

export interface Difference {
  /** Stable over runs and row orders: `CLASS/key`. The key of its posted correction. */
  readonly difference_id: string;
  readonly class: DifferenceClass;
  /** False for what is only listed or carried forward (FX_ROUNDING, TIMING). */
  readonly blocks: boolean;
  /** Money at stake, Stripe's side less the ledger's. */
  readonly amount_minor: number;
  readonly currency: string | null;
  /** Tokens at stake: what the ledger has too many (+) or too few (−). */
  readonly tokens: number;
  readonly occurred_at: string | null;
  /** Whole days from `occurred_at` to the end of the period. */
  readonly age_days: number | null;
  readonly user_id: string | null;
  readonly stripe: StripeSide | null;
  readonly ledger: LedgerSide | null;
  /** The steps that tie the two sides together, or that were tried. */
  readonly trail: readonly string[];
  readonly explanation: string;
  readonly correction: Correction;
  /** Pass 7: the one candidate on the other side, never booked by itself. Its difference's id. */
  readonly suggestion: { readonly difference_id: string; readonly words: string } | null;
}

/** Where every row went: the parts add up to `rows`. */
export interface RowCounts {
  readonly rows: number;
  readonly matched: number;
  readonly in_differences: number;
  /** An event that another file has too. */
  readonly merged: number;
  /** The same id again in one file. */
  readonly duplicates: number;
  /** Not a matter of tokens, by reason (payout, fee, not_paid, outside_period, …). */
  readonly excluded: Readonly<Record<string, number>>;
}

export interface TieOut {
  readonly currency: string;
  /** Where the figures come from: balance transactions (cash), or the payments list alone (no payouts in it). */
  readonly source: "balance" | "payments";
  readonly opening_minor: number | null;
  readonly gross_minor: number;
  readonly refunds_minor: number;
  readonly disputes_minor: number;
  readonly reversals_minor: number;
  readonly fees_minor: number;
  readonly payouts_minor: number;
  readonly other_minor: number;
  /** Sum of the above; the movement of the period. */
  readonly net_minor: number;
  readonly closing_minor: number | null;
  /** Σ of the rows' own net column less `net_minor`; must be 0. Null where the export has no net. */
  readonly unexplained_minor: number | null;
  readonly rows: number;
}

/** From Stripe's gross to the ledger's purchases, line by line; `unexplained_minor` must be 0. */
export interface Bridge {
  readonly currency: string;
  readonly stripe_gross_minor: number;
  readonly stripe_count: number;
  readonly lines: readonly {
    readonly class: DifferenceClass;
    readonly count: number;
    /** Stripe's side less the ledger's. */
    readonly amount_minor: number;
  }[];
  /** The part of payments that was not for tokens: tax, other things sold with them. */
  readonly besides_minor: number;
  readonly ledger_minor: number;
  readonly ledger_count: number;
  readonly matched_minor: number;
  readonly matched_count: number;
  readonly unexplained_minor: number;
}

export interface RollForwardCheck extends RollForwardLine {
  /** opening + purchased + promotional + restored − consumed − refunded − disputed − expired + adjusted − closing. */
  readonly unexplained_tokens: number;
  /** closing − ledger_tokens. */
  readonly drift_tokens: number;
  /** opening + sold − recognised − refunded − closing deferred. */
  readonly unexplained_deferred_minor: number;
}

export interface ClassSummary {
  readonly class: DifferenceClass;
  readonly count: number;
  readonly blocks: boolean;
  readonly oldest_at: string | null;
  /** Money at stake by currency, sizes added up. */
  readonly at_stake: readonly { readonly currency: string; readonly amount_minor: number }[];
  readonly tokens_at_stake: number;
}

/** report.json. */
export interface Report {
  readonly report_version: 1;
  readonly period: Period;
  /** Nothing blocks: every line matched, listed or carried forward, and every identity holds. */
  readonly tied_out: boolean;
  readonly inputs: readonly InputManifest[];
  readonly ledger_input: {
    readonly sha256: string | null;
    readonly records: number;
    readonly window: { readonly from: string; readonly to: string } | null;
  };
  /** Until when the Stripe side is taken as complete. A file can never prove its own completeness. */
  readonly watermark: string | null;
  readonly stripe_rows: RowCounts;
  readonly ledger_rows: RowCounts;
  /** Matches by pass, 1 to 6. */
  readonly matched_by_pass: readonly { readonly pass: number; readonly by: string; readonly count: number }[];
  readonly tie_out: readonly TieOut[];
  readonly bridge: readonly Bridge[];
  readonly roll_forward: readonly RollForwardCheck[];
  /** The money that corresponds to unspent tokens of matched and unmatched lots, from the lots themselves. */
  readonly deferred_revenue: readonly {
    readonly currency: string;
    readonly lots: number;
    readonly tokens_remaining: number;
    readonly deferred_minor: number;
  }[];
  readonly classes: readonly ClassSummary[];
  /** Sorted by class, then id: the same whatever the order of the rows. */
  readonly differences: readonly Difference[];
  /** Things to know that stopped nothing. */
  readonly warnings: readonly InputProblem[];
}
