/**
 * The governance core: pure functions on records. No I/O, no clock, no dependency, so that it gives the same answers
 * in a backend, in an Edge Function and in the console.
 */
export * from "../../../shared/governance/alerts/index.ts";
export * from "../../../shared/governance/ledger/index.ts";
export * from "../../../shared/governance/money/index.ts";
export * from "../../../shared/governance/plans/index.ts";
export * from "../../../shared/governance/pricing/index.ts";
export * from "../../../shared/governance/reconciliation/index.ts";
export * from "../../../shared/governance/result.ts";
export * from "../../../shared/governance/rules/index.ts";
export * from "../../../shared/governance/simulation/index.ts";
export * from "../../../shared/governance/time/index.ts";
export * from "../../../shared/governance/usage/index.ts";
