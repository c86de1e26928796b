export type { Field, FieldType } from "./field-types.ts";
export * from "./fields.ts";
export * from "./presets.ts";
export * from "./records.ts";
export * from "./setting-fields.ts";
