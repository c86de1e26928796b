/** Messages between the reconciliation's worker and the console. */
import type {
  Difference,
  InputProblem,
  KnownPayments,
  LedgerRecord,
  PackPrice,
  Period,
  ReconcileProgress,
  Report,
  RollForwardLine,
} from "../../../../shared/governance/reconciliation/index.ts";
import type { StripeInput } from "./stripe-source-desk.ts";
import type { UploadedFile } from "./uploads.ts";

export interface Job {
  readonly files: readonly UploadedFile[];
  /** What was read from Stripe's API, and until when; null where the files are all. */
  readonly stripe: (StripeInput & { readonly data_through: string }) | null;
  /** Null ends mean: as far as the files go. */
  readonly from: string | null;
  readonly to: string | null;
}

export type ReportHead = Omit<Report, "differences"> & {
  readonly differences_total: number;
  /** How Stripe was read, where its API was a source. */
  readonly stripe_api?: {
    readonly account_id: string;
    readonly mode: "live" | "test";
    readonly api_version: string;
    readonly data_through: string;
    readonly objects_read: number;
    readonly requests: number;
  };
};

export type FromWorker =
  | { readonly type: "progress"; readonly progress: ReconcileProgress }
  /** The period is known: the console reads the ledger for it and answers with `ledger` messages. */
  | { readonly type: "period"; readonly period: Period }
  | { readonly type: "next_page" }
  | { readonly type: "differences"; readonly from: number; readonly differences: readonly Difference[] }
  | { readonly type: "done"; readonly report: ReportHead; readonly period: Period }
  | { readonly type: "bad_input"; readonly problems: readonly InputProblem[] }
  | { readonly type: "cancelled" };

/** Facts that complete the report; null for what could not be read. */
export interface ProjectFacts {
  readonly packs: readonly PackPrice[] | null;
  readonly known_payments: KnownPayments | null;
  readonly roll_forward: readonly RollForwardLine[] | null;
}

export type ToWorker =
  | ({ readonly type: "facts" } & ProjectFacts)
  | { readonly type: "page"; readonly records: readonly LedgerRecord[]; readonly is_last: boolean }
  | { readonly type: "cancel" };
