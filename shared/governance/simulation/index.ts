/** Simulation: accounts without a database, draft rules over past events, plans over real usage. */
export * from "./backtest.ts";
export type { BacktestReport, ChangedDecision, RuleImpact } from "./backtest-report.ts";
export * from "./events.ts";
export * from "./plans.ts";
export * from "./threshold.ts";
