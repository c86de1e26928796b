/** Routing, which is rules alone: makers of the usual ones. */
export * from "./rules.ts";
