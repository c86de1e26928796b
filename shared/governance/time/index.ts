/** Local days and months of named time zones. */
export * from "./zone.ts";
