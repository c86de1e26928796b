/**
 * The governance core: pure functions on records. No I/O, no clock, no dependency, so that it gives the same
 * answers in the console, in an Edge Function and in any backend.
 */
export * from "./alerts/index.ts";
export * from "./configuration/index.ts";
export * from "./guard/index.ts";
export * from "./ledger/index.ts";
export * from "./money/index.ts";
export * from "./plans/index.ts";
export * from "./pricing/index.ts";
export * from "./reconciliation/index.ts";
export * from "./result.ts";
export * from "./rules/index.ts";
export * from "./simulation/index.ts";
export * from "./time/index.ts";
export * from "./usage/index.ts";
