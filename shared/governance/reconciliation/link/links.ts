import type { Currencies } from "../cells.ts";
import type { KeyIndex } from "../columns.ts";
import type { Interner } from "../interner.ts";
import type { LedgerTable } from "../ledger-side.ts";
import type { RunTimes } from "../run-times.ts";
import type { StripeSide } from "../stripe-table.ts";

/** States of a lot in a dispute, as the ledger has them. */
export const FREE = 0;
export const HELD = 1;
export const RELEASED = 2;
export const CLAWED = 3;

export const PASSES = [
  "",
  "balance transaction, refund or dispute id",
  "charge id",
  "payment intent",
  "checkout session, order or client reference",
  "invoice line and period",
  "exact sum inside one charge",
] as const;

/** Columns of the Stripe side that charges are found by. */
export type ChargeKey = "object" | "intent" | "session" | "order" | "reference" | "invoice" | "transaction";

/** Lists of ledger rows by stripe row. */
interface RowLists {
  readonly first: Int32Array;
  readonly next: Int32Array;
}

/** Both sides before they are linked. */
export interface Sides {
  readonly side: StripeSide;
  readonly ledgerTable: LedgerTable;
  readonly interner: Interner;
  readonly currencies: Currencies;
  /** Numbers of texts that the Stripe side knows are below. */
  readonly stripeKeys: number;
  readonly times: RunTimes;
}

/** Rows of Stripe's that are one event, however many files contain it. */
export interface Merged {
  readonly stripePlace: Uint8Array;
  /** The event that a merged row went into, else −1. */
  readonly mergedInto: Int32Array;
  /** 1 where the row's cash counts in the tie-out: once a balance transaction. */
  readonly cashCounts: Uint8Array;
  /** Rows that claim the same id and disagree. */
  readonly conflicts: number[];
  /** Refunds, failures and disputes after the period's end: not judged in it, but known. */
  readonly later: readonly number[];
}

/** What became of each grant of the ledger's. */
export interface Lots {
  readonly ledgerPlace: Uint8Array;
  /** Per later record: its grant, else −1. */
  readonly grantOf: Int32Array;
  /** Per grant: tokens taken back for refunds (≥ 0), all told and by the end of the period. */
  readonly reversed: Float64Array;
  readonly reversedByEnd: Float64Array;
  /** Per grant: quantity corrections, and tokens taken for disputes (≥ 0). */
  readonly adjusted: Float64Array;
  readonly clawed: Float64Array;
  /** Per grant: tokens frozen for a dispute (≥ 0). */
  readonly held: Float64Array;
  /** Per grant: its state in a dispute, now and at the end of the period, and since when. */
  readonly lotDispute: Uint8Array;
  readonly lotDisputeByEnd: Uint8Array;
  readonly lotDisputeAt: Float64Array;
  /** 1 where nothing of the grant is left to match: reclassified or corrected to zero. */
  readonly void: Uint8Array;
  /** 1 where a person posted the grant's amount as checked (relabel). */
  readonly relabelled: Uint8Array;
  readonly isGrant: (record: number) => boolean;
  readonly grantsByCharge: () => KeyIndex;
}

/** Which grant claims which charge. */
export interface Claims {
  /** Per grant: the charge it claims, else −1, and by which pass. */
  readonly claim: Int32Array;
  readonly claimPass: Uint8Array;
  /** Per charge: the grants that claim it. */
  readonly claims: RowLists;
  /** Per charge that pays an invoice together with others: the one that represents all of them, else −1. */
  readonly partOf: Int32Array;
  /** The charges of each that represents several, itself included. */
  readonly partsOf: ReadonlyMap<number, readonly number[]>;
}

/** The refunds of each charge. */
export interface Returns {
  /** The charge a refund, failure or dispute belongs to, else −1. */
  readonly chargeOf: Int32Array;
  /**
   * Refunded by the end of the period, per charge: the cumulative figure or the sum of refunds, whichever is more. And
   * what may have been refunded then, where an export does not say when.
   */
  readonly refundedOf: Float64Array;
  readonly refundedAtMost: Float64Array;
  /** When the last refund was made; 0 where no file says. */
  readonly refundedAt: Float64Array;
  readonly disputedOf: Float64Array;
  /** The dispute's state by the end of the period, and as the files know it now. */
  readonly disputeOf: Uint8Array;
  readonly disputeNow: Uint8Array;
  readonly disputedAt: Float64Array;
  /** When a payment failed after it was booked; 0 where it did not. */
  readonly failedAt: Float64Array;
}

/** Both sides linked: everything the classes are decided from. Indexes are rows of the two tables. */
export interface Links extends Merged, Lots, Claims, Returns {
  /** Charges by one of their keys, made when first asked for; null where no row has any. */
  readonly chargesBy: (name: ChargeKey) => KeyIndex | null;
}
