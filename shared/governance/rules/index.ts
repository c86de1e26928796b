/** Rules: reading them, judging calls by them, and saying both in words. Semantics: docs/RULES.md. */
export * from "./decide.ts";
export * from "./difference.ts";
export * from "./evaluate.ts";
export * from "./facts.ts";
export * from "./parse.ts";
export { describeProblem, type Problem } from "./problems.ts";
export * from "./receipt.ts";
export * from "./status.ts";
export * from "./text.ts";
export * from "./types.ts";
export * from "./warnings.ts";
export * from "./words.ts";
export * from "./user-words.ts";
