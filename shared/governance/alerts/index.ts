/** Alerts: thresholds reached, once a period. */
export * from "./evaluate.ts";
