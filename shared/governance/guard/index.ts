/** The guard: a backend's one door to its AI provider. */
export { batchCalls } from "./batching.ts";
export * from "./guard.ts";
export * from "./to-http.ts";
export { memoryStore } from "./settlements.ts";
export * from "./types.ts";
