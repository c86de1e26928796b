import { type ExportForm, type Field, FIELDS, FORMS, METADATA, NO_COLUMNS, OFFERED } from "./export-forms.ts";
import { BadInput } from "./problem.ts";
import type { InputManifest, StripeExportKind } from "./types.ts";

const REQUIRED_NAMES: Partial<Record<Field, string>> = {
  created: "Created (UTC)",
  refunded: "Amount Refunded",
  status: "Status",
  type: "Type / reporting_category",
};

/** Stripe's lists that hold too little to reconcile with, by columns (normalised) that they have and no other has. */
const OTHER_EXPORTS: readonly { readonly title: string; readonly signature: readonly string[] }[] = [
  { title: "Refunds", signature: ["charge_id", "reason", "failure_reason"] },
  { title: "Payouts, itemized", signature: ["payout_id", "effective_at"] },
  { title: "Payouts, itemized", signature: ["payout_id", "effective_at_utc"] },
  { title: "Payouts", signature: ["arrival_date_utc", "method"] },
  { title: "Payouts", signature: ["arrival_date", "method"] },
  { title: "Transactions of a payout", signature: ["type", "fees", "net", "details"] },
  { title: "Application fees", signature: ["application_id", "transaction_id"] },
  { title: "Invoices", signature: ["amount_due", "amount_paid"] },
  { title: "Subscriptions", signature: ["current_period_start_utc"] },
  { title: "Customers", signature: ["email", "delinquent"] },
  { title: "Transfers", signature: ["destination", "amount_reversed"] },
  { title: "Balance summary", signature: ["category", "net_amount"] },
  {
    title: "Summary of a balance change or a payout reconciliation",
    signature: ["reporting_category", "count", "gross"],
  },
];

export interface ExportLayout {
  readonly kind: StripeExportKind;
  /** Column index by field; −1 where the file has none. */
  readonly at: Readonly<Record<Field, number>>;
  /** By column: further columns of the same meaning, in the order in which they are asked where it is empty. */
  readonly others: readonly (readonly number[] | undefined)[];
  readonly createdIsUtc: boolean;
  readonly missing: InputManifest["missing_columns"];
  readonly unknown: readonly string[];
}

const normalise = (name: string): string =>
  name
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "_")
    .replace(/^_+|_+$/g, "");

/** `x (metadata)` of the Dashboard, `payment_metadata[x]` of the reports: whose metadata it is, and its key. */
function metadataKey(cell: string): { readonly of: string; readonly key: string } | null {
  const found = /^()(.*) \(metadata\)$/i.exec(cell) ?? /^(?:(\w+)_)?metadata\[(.*)\]$/i.exec(cell);
  return found ? { of: (found[1] ?? "").toLowerCase(), key: normalise(found[2] ?? "") } : null;
}

/** Whose metadata describes a sale first: the payment's own, then what it was made from, last what came after it. */
const METADATA_OF = [
  "",
  "payment",
  "payment_intent",
  "charge",
  "checkout_session",
  "invoice",
  "subscription",
];
const rankOf = (of: string): number =>
  METADATA_OF.includes(of) ? METADATA_OF.indexOf(of) : METADATA_OF.length;

/** The metadata that means something to us, from an object of the API: its keys are spelt as freely as a column's. */
export function metadataFields(
  metadata: unknown,
): Readonly<Record<"user" | "order" | "pack" | "tokens", string | null>> {
  const entries = Object.entries((metadata ?? {}) as Readonly<Record<string, unknown>>);
  const find = (field: Field): string | null => {
    for (const name of METADATA[field] ?? []) {
      for (const [key, value] of entries)
        if (normalise(key) === name && typeof value === "string" && value !== "") return value;
    }
    return null;
  };
  return { user: find("user"), order: find("order"), pack: find("pack"), tokens: find("tokens") };
}

/** Which export a header belongs to and where its columns are. Throws BadInput, naming what is missing and where it is offered. */
export function recogniseExport(file: string, cells: readonly string[]): ExportLayout {
  const names = cells.map(normalise);
  const metadata = cells.map(metadataKey);
  const plain = names.map((name, i) => (metadata[i] === null ? name : ""));
  const duplicated = plain.find((name, i) => name !== "" && plain.indexOf(name) !== i);
  if (duplicated)
    throw new BadInput({
      code: "duplicate_column",
      file,
      row: 1,
      column: cells[plain.lastIndexOf(duplicated)] ?? null,
      message: `The column "${cells[plain.indexOf(duplicated)]}" is there twice: remove one, or use the file as it was downloaded.`,
    });
  const form = FORMS.find((candidate) => candidate.signature.every((name) => plain.includes(name)));
  if (!form) throw unknownExport(file, cells, plain);
  const columns = findColumns(form, plain, metadata);
  const at = { ...NO_COLUMNS };
  const others: number[][] = [];
  for (const field of FIELDS) {
    const [first = -1, ...more] = columns[field];
    at[field] = first;
    if (more.length > 0) others[first] = more;
  }
  const absent = form.required.filter((field) => at[field] < 0);
  if (absent.length > 0) {
    // A list of payouts has most columns of a balance, and not when the money moved.
    if (otherExport(plain)) throw unknownExport(file, cells, plain);
    const named = absent.map((field) => columnName(form, field));
    const zone = cells
      .map((cell) => /^created.*\((?!utc\b)([^)]+)\)/i.exec(cell))
      .find((found) => found !== null);
    if (absent.includes("created") && zone)
      throw new BadInput({
        code: "other_time_zone",
        file,
        row: 1,
        column: zone.input,
        message: `The times are of ${zone[1]}, and days are counted in UTC: export it again with UTC as time zone.`,
      });
    throw new BadInput({
      code: "missing_column",
      file,
      row: 1,
      column: named[0] ?? null,
      message: `"${form.title}" needs the column${named.length > 1 ? "s" : ""} ${named.join(", ")}: export it again with all columns.`,
    });
  }
  const missing = Object.entries(OFFERED[form.kind] ?? {})
    .filter(([field]) => at[field as Field] < 0)
    .map(([, [column, use, where]]) => ({ column, use, where }));
  const used = new Set(Object.values(columns).flat());
  const unknown = cells.filter(
    (cell, i) => cell !== "" && !used.has(i) && metadata[i] === null && !form.ignored.includes(plain[i]),
  );
  return {
    kind: form.kind,
    at,
    others,
    createdIsUtc: /utc/i.test(cells[at.created] ?? "") || form.kind === "unified_payments",
    missing,
    unknown,
  };
}

const unknownExport = (file: string, cells: readonly string[], plain: readonly string[]): BadInput =>
  new BadInput({
    code: "unknown_export",
    file,
    row: 1,
    column: null,
    message: `${titleAbove(cells) ?? otherExport(plain) ?? "This header belongs to none of Stripe's exports that we read"} (payments, balance history, balance change itemized, payout reconciliation itemized, disputes).${nearestForm(plain)}`,
  });

/** All columns of each meaning, in the order in which they are asked. */
function findColumns(
  form: ExportForm,
  plain: readonly string[],
  metadata: readonly ReturnType<typeof metadataKey>[],
): Readonly<Record<Field, readonly number[]>> {
  const columns = {} as Record<Field, number[]>;
  for (const field of FIELDS) {
    const named = (form.columns[field] ?? []).map((name) => plain.indexOf(name)).filter((i) => i >= 0);
    const keys = METADATA[field] ?? [];
    const fromMetadata = metadata
      .flatMap((one, i) => (one !== null && keys.includes(one.key) ? [{ ...one, i }] : []))
      .sort((a, b) => rankOf(a.of) - rankOf(b.of) || keys.indexOf(a.key) - keys.indexOf(b.key) || a.i - b.i);
    columns[field] = [...named, ...fromMetadata.map(({ i }) => i)];
  }
  return columns;
}

const columnName = (form: ExportForm, field: Field): string =>
  REQUIRED_NAMES[field] ?? form.columns[field]?.[0] ?? field;

/** A line above the header, as people and spreadsheets add it. */
const titleAbove = (cells: readonly string[]): string | null =>
  cells.filter((cell) => cell !== "").length === 1
    ? "The first line has one cell and is no header: remove what is above the header; commas, semicolons or tabs separate cells. These exports of Stripe are read"
    : null;

function otherExport(plain: readonly string[]): string | null {
  const other = OTHER_EXPORTS.find(({ signature }) => signature.every((name) => plain.includes(name)));
  return other
    ? `This is Stripe's list "${other.title}", which has too little to reconcile with: bring one of the exports that we read`
    : null;
}

/** The form that has most of these columns, and what is lacking; null where that would be a guess. */
function nearestForm(plain: readonly string[]): string {
  if (otherExport(plain) !== null) return "";
  const known = (form: ExportForm): number => {
    const names = new Set([...Object.values(form.columns).flat(), ...form.ignored]);
    return plain.filter((name) => names.has(name)).length;
  };
  const [nearest] = FORMS.map((form) => ({ form, has: known(form) })).sort((a, b) => b.has - a.has);
  if (!nearest || nearest.has < 3 || nearest.has * 2 < plain.filter((name) => name !== "").length) return "";
  const { form } = nearest;
  const lacking = form.required.filter((field) => !form.columns[field]?.some((name) => plain.includes(name)));
  return ` It comes nearest to "${form.title}", but lacks: ${lacking.map((field) => columnName(form, field)).join(", ")}. Export it again with all columns.`;
}
