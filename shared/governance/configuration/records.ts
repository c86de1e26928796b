/** Records of a configuration: checked, made whole, compared, merged, and put in words. */
import { currencyExponent } from "../money/currency.ts";
import { canonicalJson } from "../rules/difference.ts";
import type { Field } from "./field-types.ts";
import { type ConfigKind, type ConfigRecord, fieldsOf, priceDate } from "./fields.ts";
import { settingFields } from "./setting-fields.ts";

/** What is wrong with a field, and how to mend it. */
export interface ConfigProblem {
  readonly path: string;
  readonly message: string;
  readonly fix: string;
}

/** What checks know of the project beside the record. */
export interface ConfigSurroundings {
  readonly currency: string;
  readonly plans: readonly string[];
}

/** What changed of one field, in words. */
export interface ConfigDifference {
  readonly part: string;
  readonly removed: string[];
  readonly added: string[];
}

const isText = (value: unknown): value is string => typeof value === "string";
const isWhole = (value: unknown): value is number => Number.isSafeInteger(value);
const isAbsent = (value: unknown): boolean => value === undefined || value === null;

function checkField(field: Field, value: unknown, { plans }: ConfigSurroundings): [string, string] | null {
  const { type } = field;
  switch (type.is) {
    case "text":
      return isText(value) && value.length >= 1 && Array.from(value).length <= type.max
        ? null
        : ["A text is needed.", `1 to ${type.max} characters.`];
    case "whole":
      return isWhole(value) && value >= type.min && value <= type.max
        ? null
        : ["A whole number is needed.", `From ${grouped(type.min)} to ${grouped(type.max)}.`];
    case "flag":
      return typeof value === "boolean" ? null : ["Yes or no is needed.", "true or false."];
    case "choice":
      return type.of.some(([each]) => each === value)
        ? null
        : ["One of the choices is needed.", type.of.map(([each]) => each).join(", ")];
    case "numbers": {
      const isOne = (each: unknown): boolean =>
        typeof each === "number" &&
        Number.isFinite(each) &&
        each >= type.min &&
        each <= type.max &&
        (!type.whole || Number.isInteger(each)) &&
        (type.min > 0 || each > 0);
      const least = type.whole ? 0 : 1;
      return Array.isArray(value) && value.length >= least && value.length <= 20 && value.every(isOne)
        ? null
        : [
            "A list of numbers is needed.",
            type.whole
              ? `Whole numbers from ${type.min} to ${type.max}, by comma.`
              : "1 to 20 numbers above 0, by comma.",
          ];
    }
    case "texts":
      return Array.isArray(value) &&
        value.length <= type.max &&
        value.every(
          (each) =>
            isText(each) &&
            each.length >= 1 &&
            Array.from(each).length <= type.each &&
            (type.pattern?.test(each) ?? true),
        )
        ? null
        : [`At most ${grouped(type.max)} lines are needed.`, field.hint ?? "One a line."];
    case "choices":
      return Array.isArray(value) && value.every((each) => type.of.some(([choice]) => choice === each))
        ? null
        : ["Some of the choices are needed.", type.of.map(([each]) => each).join(", ")];
    case "plan":
      return isText(value) && plans.includes(value)
        ? null
        : ["A plan of this project is needed.", plans.join(", ")];
    case "plans":
      return Array.isArray(value) && value.every((each) => isText(each) && plans.includes(each))
        ? null
        : ["Plans of this project are needed.", plans.join(", ")];
    case "date":
      return isText(value) &&
        /^\d{4}-\d{2}-\d{2}/.test(value) &&
        !Number.isNaN(Date.parse(value)) &&
        value >= "1900" &&
        value < "3000" &&
        (value.length !== 10 || new Date(Date.parse(value)).toISOString().slice(0, 10) === value)
        ? null
        : ["A date is needed.", "Such as 2026-12-01."];
    case "json":
      return isAbsent(value) ? ["A value is needed.", "As JSON."] : null;
  }
}

const grouped = (value: number): string => value.toLocaleString("en");

/** Everything wrong with a record, by field. The database refuses the same, and what only it can know. */
export function checkConfig(
  kind: ConfigKind,
  key: string,
  record: ConfigRecord,
  around: ConfigSurroundings,
): ConfigProblem[] {
  const problems: ConfigProblem[] = [];
  for (const field of fieldsOf(kind, key)) {
    const value = record[field.name];
    if (isAbsent(value) && "otherwise" in field && (field.otherwise === null || kind !== "setting")) continue;
    const wrong = checkField(field, value, around);
    if (wrong) problems.push({ path: field.name, message: wrong[0], fix: wrong[1] });
  }
  const currency = record["currency"];
  if (kind === "price" && isText(currency) && currency.toLowerCase() !== around.currency)
    problems.push({
      path: "currency",
      message: "Prices are in the project's currency.",
      fix: `Write ${around.currency}.`,
    });
  if ((kind === "pack" || kind === "project") && !/^[a-z]{3}$/i.test(isText(currency) ? currency : ""))
    if (!problems.some(({ path }) => path === "currency"))
      problems.push({ path: "currency", message: "Three letters are needed.", fix: "Such as usd." });
  return problems;
}

/** What is valid but may not be meant: a sentence each. */
export function configWarnings(
  kind: ConfigKind,
  record: ConfigRecord | null,
  before: ConfigRecord | null,
  now: Date,
): string[] {
  if (record === null) return [];
  const warnings: string[] = [];
  if (kind === "price") {
    if (record["input_micros_per_million"] === 0 && record["output_micros_per_million"] === 0)
      warnings.push("At a price of zero no budget in money ever stops this model.");
    const from = Date.parse(isText(record["effective_from"]) ? record["effective_from"] : "1970-01-01");
    if (before === null && from < now.getTime())
      warnings.push(
        "Its first day is past: it counts from now on, and calls that were settled keep their cost.",
      );
  }
  if (kind === "pack" && record["price_minor"] === 0)
    warnings.push("At a price of zero these tokens are given away.");
  if (kind === "plan") {
    if (record["fail_mode"] === "open")
      warnings.push("Where the project cannot be asked, calls of this plan run uncounted.");
    if (record["daily_limit"] === 0 || record["monthly_limit"] === 0)
      warnings.push("A limit of zero stops every call of this plan; leave it empty for no limit.");
  }
  return warnings;
}

/** The record with each field in the form that the database keeps: what is left out filled in, lists in order. */
export function wholeRecord(
  kind: ConfigKind,
  key: string,
  record: ConfigRecord,
  currency: string,
): ConfigRecord {
  const leavesOut = kind === "price" || kind === "alert";
  const entries = fieldsOf(kind, key).flatMap((field): [string, unknown][] => {
    let value = record[field.name];
    if (isAbsent(value))
      value =
        field.name === "currency"
          ? currency
          : field.name === "name" && kind === "plan"
            ? record["plan_id"]
            : field.otherwise;
    if (field.type.is === "numbers" && Array.isArray(value))
      value = [...new Set(value as number[])].toSorted((a, b) => a - b);
    if (field.type.is === "date" && isText(value)) value = priceDate(value);
    if (field.type.is === "plans" && Array.isArray(value)) value = (value as string[]).toSorted();
    if (field.name === "currency" && isText(value)) value = value.toLowerCase();
    return isAbsent(value) && leavesOut ? [] : [[field.name, value ?? null]];
  });
  return { ...(kind === "setting" ? { key } : {}), ...Object.fromEntries(entries) };
}

/** A field's value as a person reads it. */
export function describeField(field: Field, value: unknown, currency: string): string {
  if (isAbsent(value)) return field.empty ?? "not set";
  const { type } = field;
  if (type.is === "whole" && isWhole(value)) {
    if (type.money === "micros") return `${decimal(value, 6)} ${currency.toUpperCase()}`;
    if (type.money === "minor")
      return `${decimal(value, currencyExponent(currency))} ${currency.toUpperCase()}`;
    return `${grouped(value)}${type.unit === undefined ? "" : ` ${type.unit}`}`;
  }
  if (type.is === "flag") return value === true ? "yes" : "no";
  if (type.is === "choice") return type.of.find(([each]) => each === value)?.[1] ?? String(value as string);
  if (type.is === "choices" && Array.isArray(value) && value.length > 0)
    return value.map((each) => type.of.find(([choice]) => choice === each)?.[1] ?? String(each)).join(", ");
  if (Array.isArray(value))
    return value.length === 0
      ? (field.empty ?? "none")
      : value.map((each) => (typeof each === "number" ? grouped(each) : String(each))).join(", ");
  return isText(value) ? value : canonicalJson(value);
}

/** An amount in its major unit, exactly: 1,250,000 of six places is 1.25. */
export function decimal(amount: number, places: number): string {
  const digits = String(Math.abs(amount)).padStart(places + 1, "0");
  const fraction = places === 0 ? "" : digits.slice(-places).replace(/0+$/, "");
  const whole = digits.slice(0, digits.length - places);
  return `${amount < 0 ? "-" : ""}${whole}${fraction === "" ? "" : `.${fraction}`}`;
}

/** The amount that a person wrote in its major unit; null where it is not an amount, or finer than its smallest unit. */
export function readDecimal(written: string, places: number): number | null {
  const match = /^(\d{1,16})(?:\.(\d*))?$/.exec(written.trim().replaceAll(",", ""));
  if (!match) return null;
  const fraction = (match[2] ?? "").replace(/0+$/, "");
  if (fraction.length > places) return null;
  const amount = Number(`${match[1]}${fraction.padEnd(places, "0")}`);
  return Number.isSafeInteger(amount) ? amount : null;
}

/** What changed between two states of a record, field by field; null stands for none. */
export function compareConfig(
  kind: ConfigKind,
  key: string,
  before: ConfigRecord,
  after: ConfigRecord,
  currency: string,
): ConfigDifference[] {
  return fieldsOf(kind, key, after).flatMap((field): ConfigDifference[] => {
    const [was, is] = [before[field.name] ?? null, after[field.name] ?? null];
    if (canonicalJson(was) === canonicalJson(is)) return [];
    const part = kind === "setting" ? (settingFields.get(key)?.label ?? key) : field.label;
    if (field.type.is === "texts" && Array.isArray(was) && Array.isArray(is)) {
      const [old, fresh] = [was.map(String), is.map(String)];
      return [
        {
          part,
          removed: old.filter((each) => !fresh.includes(each)),
          added: fresh.filter((each) => !old.includes(each)),
        },
      ];
    }
    const unit = (record: ConfigRecord): string =>
      kind === "pack" && isText(record["currency"]) ? record["currency"] : currency;
    return [
      {
        part,
        removed: [describeField(field, was, unit(before))],
        added: [describeField(field, is, unit(after))],
      },
    ];
  });
}

/** One person's change of a record laid over another's: each field as that person set it, else as the other left it. */
export function mergeConfig(
  mine: ConfigRecord,
  base: ConfigRecord | null,
  theirs: ConfigRecord,
): ConfigRecord {
  const names = new Set([...Object.keys(mine), ...Object.keys(theirs), ...Object.keys(base ?? {})]);
  const isMine = (name: string): boolean =>
    base === null || canonicalJson(mine[name] ?? null) !== canonicalJson(base[name] ?? null);
  return Object.fromEntries(
    [...names].flatMap((name): [string, unknown][] => {
      const value = isMine(name) ? mine[name] : theirs[name];
      return value === undefined ? [] : [[name, value]];
    }),
  );
}
