/** Finance: a run compares Stripe's files, or what its API returns, with the ledger. */
import { z } from "zod";
import { done, failure, instant, nothing, operation, whole } from "./basics.ts";

const upload = z.object({
  upload_id: z.string(),
  file_name: z.string(),
  size_bytes: whole,
  received_bytes: whole,
  sha256: z.string().nullable(),
});
export type Upload = z.infer<typeof upload>;

/** A file that the system handed to the program. */
const broughtFile = z.object({
  file_name: z.string(),
  /** How far it was copied; null where it was not taken. */
  upload: upload.nullable(),
  failure: failure.nullable(),
});
export type BroughtFile = z.infer<typeof broughtFile>;

const reconciliationRun = z.object({
  run_id: z.string(),
  started_at: instant,
  finished_at: instant.nullable(),
  status: z.enum(["running", "finished", "failed", "cancelled"]),
  phase: z.string(),
  stripe_rows: whole,
  ledger_rows: whole,
  /** 0–1 as far as it can be known. */
  progress: z.number().min(0).max(1).nullable(),
  file_names: z.array(z.string()),
  from: z.string().nullable(),
  to: z.string().nullable(),
  differences: whole.nullable(),
  tied_out: z.boolean().nullable(),
  /** The project's own time as of which the ledger was read. */
  ledger_read_at: instant.nullish(),
  failure: failure.nullable(),
});
export type ReconciliationRun = z.infer<typeof reconciliationRun>;

/** A permission of a restricted key of Stripe's: as the dashboard's form and as the API calls it. */
const stripePermission = z.object({ row: z.string(), name: z.string(), is_granted: z.boolean() });

/** What Stripe reports about a key. */
const stripeKeyCheck = z.object({
  account_id: z.string(),
  account_name: z.string().nullable(),
  mode: z.enum(["live", "test"]),
  permissions: z.array(stripePermission),
});
export type StripeKeyCheck = z.infer<typeof stripeKeyCheck>;

/** The Stripe account that a project is reconciled with by the API. The key itself never comes here. */
const stripeConnection = stripeKeyCheck.omit({ permissions: true }).extend({
  key_storage: z.enum(["keychain", "session", "missing"]),
  connected_at: instant,
  /** Until when everything was read; null before the first time. */
  data_through: instant.nullable(),
  /** Objects kept here. */
  objects: whole,
});
export type StripeConnection = z.infer<typeof stripeConnection>;

export const runOperations = {
  "finance.open_upload": operation(
    z
      .object({
        file_name: z.string().min(1).max(500),
        size_bytes: z.number().int().min(0).max(4_000_000_000),
      })
      .strict(),
    upload,
  ),
  /** Base64 of at most 1 MiB of bytes, in order. */
  "finance.upload_chunk": operation(
    z.object({ upload_id: z.string(), offset_bytes: whole, base64: z.string().max(1_400_000) }).strict(),
    upload,
  ),
  /** How far a file has come that was dropped on the program's icon or given as it was started; the address names it. */
  "finance.brought_file": operation(z.object({ upload_id: z.string().max(100) }).strict(), broughtFile),
  "finance.start_run": operation(
    z
      .object({
        upload_ids: z.array(z.string()).max(50),
        /** Also reads the connected Stripe account; it needs both ends of the period. */
        stripe_api: z.boolean().optional(),
        from: z.iso.date().nullable(),
        to: z.iso.date().nullable(),
      })
      .strict(),
    reconciliationRun,
  ),
  "finance.stripe": operation(
    nothing,
    z.object({
      connection: stripeConnection.nullable(),
      api_version: z.string(),
      /** Which permissions a key needs, each to read. */
      permissions: z.array(stripePermission.omit({ is_granted: true })),
      /** Stripe's form for a restricted key with these permissions ticked. */
      create_key_url: z.string(),
    }),
  ),
  /** Asks Stripe about a key; keeps nothing. */
  "finance.stripe_check": operation(z.object({ key: z.string().max(500) }).strict(), stripeKeyCheck),
  /** Keeps the key in the keychain, or for this session where there is none. */
  "finance.stripe_connect": operation(z.object({ key: z.string().max(500) }).strict(), stripeConnection),
  /** Forgets the key; with `forget_data` also what was read. */
  "finance.stripe_disconnect": operation(z.object({ forget_data: z.boolean() }).strict(), done),
  "finance.cancel_run": operation(z.object({ run_id: z.string() }).strict(), reconciliationRun),
  "finance.runs": operation(nothing, z.array(reconciliationRun)),
  /** The report of shared/governance/reconciliation without its difference rows. */
  "finance.report": operation(
    z.object({ run_id: z.string() }).strict(),
    z.object({ run: reconciliationRun, report: z.unknown() }),
  ),
  "finance.differences": operation(
    z
      .object({
        run_id: z.string(),
        difference_class: z.string().max(100).nullable(),
        offset: z.number().int().min(0),
        limit: z.number().int().min(1).max(500),
      })
      .strict(),
    z.object({ differences: z.array(z.unknown()), total: whole }),
  ),
  "finance.export": operation(
    z.object({ run_id: z.string(), format: z.enum(["csv", "json", "xlsx", "html"]) }).strict(),
    /** A workbook's bytes come as base64. */
    z.object({
      file_name: z.string(),
      media_type: z.string(),
      text: z.string(),
      encoding: z.enum(["utf8", "base64"]),
    }),
  ),
  // Runs that the project keeps, and what people do with their differences until the period is closed.
} as const;

export const runStreams = {
  run: { input: z.object({ run_id: z.string() }).strict(), item: reconciliationRun },
} as const;
