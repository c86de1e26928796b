/**
 * Stripe against the ledger, to zero unexplained. `reconcile` takes Stripe's CSV exports as byte streams and the
 * ledger's purchase records, and answers a `Report` (report.json). Pure and streaming: run it in a worker.
 *
 *     const result = await reconcile({ stripeFiles, ledger, period: { from: "2026-10-01", to: "2026-11-01" } });
 *     if (!result.ok) show(result.error.problems);          // file, row, column, what to do
 *     else if (!result.value.tied_out) list(result.value.differences);
 *
 * Types of input and output, field by field: types.ts.
 */
export * from "./classes.ts";
export { csvCell, csvLine, differencesCsv } from "./csv-writer.ts";
export { inspectExports, reconcile } from "./reconcile.ts";
export * from "./statements.ts";
export * from "./stripe-api.ts";
export * from "./stripe-api-rows.ts";
export * from "./types.ts";
