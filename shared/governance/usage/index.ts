/** Tokens of calls: expected before, exact after. */
export * from "./counts.ts";
export * from "./estimate.ts";
export { type ReadUsage, readUsage, type UsageShape } from "./response.ts";
export * from "./stream.ts";
