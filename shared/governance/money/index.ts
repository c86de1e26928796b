/** Money and tokens as whole numbers with their units: currencies, exact reading and writing of decimal amounts. */
export * from "./currency.ts";
export * from "./major.ts";
export * from "./units.ts";
