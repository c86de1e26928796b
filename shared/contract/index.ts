export * from "./operations.ts";
export * from "./records.ts";
