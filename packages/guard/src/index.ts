/** The guard for backends, between an app and its AI provider, and one line for each SDK that puts it there. */
export * from "../../../shared/governance/guard/index.ts";
export type { Tokens } from "../../../shared/governance/money/index.ts";
export { fail, ok, type Result } from "../../../shared/governance/result.ts";
export {
  type Estimate,
  type EstimateError,
  type EstimateLearner,
  type EstimateSource,
  learnEstimates,
  type LearnerOptions,
  lengthOfOutput,
  type PartialUsage,
  type ReadUsage,
  readServerSentEvents,
  readUsage,
  readUsageStream,
  type UsageCounts,
  type UsageProblem,
  type UsageShape,
  usageShapes,
  type UsageStream,
} from "../../../shared/governance/usage/index.ts";
export * from "./ai-sdk.ts";
export type { Caller } from "./caller.ts";
export * from "./check.ts";
export * from "./client.ts";
export * from "./connect.ts";
export { createGuard, type GuardSettings } from "./create.ts";
export * from "./fetch.ts";
export * from "./langchain.ts";
export * from "./refusal.ts";
export * from "./servers.ts";
export * from "./stores/postgres.ts";
export * from "./stores/redis.ts";
