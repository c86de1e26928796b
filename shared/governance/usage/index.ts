/** Tokens of calls: expected before, exact after. */
export { makeCounts, totalTokens, type UsageCounts, type UsageProblem } from "./counts.ts";
export * from "./estimate.ts";
export { lengthOfOutput } from "./output.ts";
export { type ReadUsage, readUsage, type UsageShape } from "./response.ts";
export { modelNames, moreModelNames, usagePlaces } from "./places.ts";
export { type ShapeOfUsage, usageShapes } from "./shapes.ts";
export { readServerSentEvents } from "./server-sent-events.ts";
export * from "./stream.ts";
