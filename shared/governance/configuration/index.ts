export * from "./fields.ts";
export * from "./presets.ts";
export * from "./records.ts";
