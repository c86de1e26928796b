/** Plans, packs, prices: the types of a configuration. */
export * from "./plan.ts";
export * from "./warn.ts";
