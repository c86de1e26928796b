/** A preset as records, and where a project differs from one. */
import { canonicalJson } from "../rules/difference.ts";
import { isRecord } from "../values.ts";
import { type ConfigKind, configKey, type ConfigRecord } from "./fields.ts";
import { wholeRecord } from "./records.ts";

/** A record with its kind and name. */
export interface ConfigItem {
  readonly kind: ConfigKind;
  readonly key: string;
  readonly record: ConfigRecord;
}

const lists = [
  ["plan", "plans"],
  ["pack", "packs"],
  ["price", "prices"],
  ["estimate", "estimates"],
  ["alert", "alerts"],
] as const;

const objects = (value: unknown): readonly ConfigRecord[] =>
  Array.isArray(value) ? value.filter((each): each is ConfigRecord => isRecord(each)) : [];

/** Settings that are lists of records. */
const settingLists = [
  ["topic", "topics"],
  ["route", "alert_routes"],
] as const;

/** The records of a preset, its rules left out. `preset` is what a file holds: nothing about its shape is assumed. */
export function presetRecords(preset: ConfigRecord): ConfigItem[] {
  const currency = typeof preset["currency"] === "string" ? preset["currency"].toLowerCase() : "usd";
  const settings = (preset["settings"] ?? {}) as ConfigRecord;
  const plans = objects(preset["plans"]);
  const items: { readonly kind: ConfigKind; readonly record: ConfigRecord }[] = [
    {
      kind: "project",
      record: { ...preset, default_plan: preset["default_plan"] ?? plans[0]?.["plan_id"] },
    },
    ...lists.flatMap(([kind, list]) => objects(preset[list]).map((record) => ({ kind, record }))),
    ...settingLists.flatMap(([kind, list]) => objects(settings[list]).map((record) => ({ kind, record }))),
    ...Object.entries(settings)
      .filter(([key, value]) => !settingLists.some(([, list]) => list === key) && value !== null)
      .map(([key, value]) => ({ kind: "setting" as const, record: { key, value } })),
  ];
  return items.map(({ kind, record }) => {
    const key = configKey(kind, record);
    return { kind, key, record: wholeRecord(kind, key, record, currency) };
  });
}

/** What would become of one record. `record` is null where it would be retired. */
export interface ConfigStep {
  readonly kind: ConfigKind;
  readonly key: string;
  readonly step: "new" | "changed" | "retired" | "same";
  readonly before: ConfigRecord | null;
  readonly record: ConfigRecord | null;
}

/** What it takes from one configuration to another, record by record. */
export function stepsBetween(now: readonly ConfigItem[], wanted: readonly ConfigItem[]): ConfigStep[] {
  const name = ({ kind, key }: { readonly kind: string; readonly key: string }): string => `${kind} ${key}`;
  const there = new Map(now.map((each) => [name(each), each]));
  const asked = new Set(wanted.map(name));
  return [
    ...wanted.map((each): ConfigStep => {
      const before = there.get(name(each))?.record ?? null;
      const isSame = before !== null && canonicalJson(before) === canonicalJson(each.record);
      return { ...each, before, step: before === null ? "new" : isSame ? "same" : "changed" };
    }),
    ...now
      .filter((each) => !asked.has(name(each)))
      .map(
        ({ kind, key, record }): ConfigStep => ({
          kind,
          key,
          step: "retired",
          before: record,
          record: null,
        }),
      ),
  ];
}
