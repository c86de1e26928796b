/** Alerts: their kinds, and what a preset may have watched. */
export * from "./kinds.ts";
