/** The ledger, checked without the database. */
export { sha256, toHex, utf8 } from "./sha256.ts";
export * from "./statement.ts";
