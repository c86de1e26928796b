/** What calls cost: effective-dated prices in whole micro-units. */
export * from "./prices.ts";
