/** A rule as it is being written: its JSON, changed place by place, and the texts of its values. */
import {
  type FactName,
  facts,
  type FactType,
  factType,
  type Operator,
} from "../../../../shared/governance/rules/index.ts";
import { isRecord } from "../../../../shared/governance/values.ts";
import { numberSigns, plainNumber, splitNumbers, typedNumber } from "../../lib/typed.ts";

export type Definition = Readonly<Record<string, unknown>>;
export type Path = readonly (string | number)[];

export const isObject: (value: unknown) => value is Definition = isRecord;

/** What a field holds: text or a figure as it was typed; nothing for anything else. */
export const textOf = (value: unknown): string =>
  typeof value === "string" || typeof value === "number" ? String(value) : "";

/** The same with another value at a place; undefined takes the place out. */
export function setAt(root: unknown, path: Path, next: unknown): unknown {
  const [key, ...rest] = path;
  if (key === undefined) return next;
  if (Array.isArray(root)) {
    const copy = [...(root as unknown[])];
    const inner = setAt(copy[key as number], rest, next);
    if (inner === undefined) copy.splice(key as number, 1);
    else copy[key as number] = inner;
    return copy;
  }
  const record = isObject(root) ? root : {};
  const inner = setAt(record[key], rest, next);
  if (inner !== undefined) return { ...record, [key]: inner };
  const { [key as string]: _gone, ...others } = record;
  return others;
}

/** The same with a value put into a list, before the place `at`. */
export function insertAt(root: unknown, list: Path, at: number, value: unknown): unknown {
  const before = list.reduce<unknown>(
    (inner, key) => (inner as Readonly<Record<string | number, unknown>> | undefined)?.[key],
    root,
  );
  const items: readonly unknown[] = Array.isArray(before) ? before : [];
  return setAt(root, list, [...items.slice(0, at), value, ...items.slice(at)]);
}

/** The place as the rule parser names it: `conditions.all[0].value`. */
export function pathText(path: Path): string {
  return path
    .map((part, at) => (typeof part === "number" ? `[${part}]` : at === 0 ? part : `.${part}`))
    .join("");
}

/** The place from the parser's text of it. */
export function pathFrom(text: string): Path {
  return [...text.matchAll(/\[(\d+)\]|[^.[\]]+/g)].map(([part, index]) =>
    index === undefined ? part : Number(index),
  );
}

const isMoney = (fact: string): boolean =>
  factType(fact) === "number" && "money" in (facts[fact as FactName].words as object);
export const isWeekday = (fact: string): boolean =>
  factType(fact) === "number" && "weekday" in (facts[fact as FactName].words as object);

/** What a fact's figure is in, beside the field. */
export function unitOf(fact: string, currency: string | undefined): string {
  if (isMoney(fact)) return currency?.toUpperCase() ?? "";
  if (fact === "complexity") return "0 to 1";
  if (fact === "usage_percent") return "%";
  if (fact.startsWith("hour_")) return "0 to 23";
  return "";
}

const microsPerUnit = 1_000_000;

/** One number as it was typed; a text that is not a number stays text, so that the parser reports it in its place. */
function readNumber(fact: string, text: string): number | string {
  const typed = plainNumber(text);
  if (typed === null) return text.trim();
  return isMoney(fact) ? Math.round(Number(typed) * microsPerUnit) : Number(typed);
}

function writeNumber(fact: string, value: unknown): string {
  if (typeof value !== "number") return textOf(value);
  return typedNumber(String(isMoney(fact) ? value / microsPerUnit : value));
}

const takesList = (op: string): boolean =>
  op === "in" || op === "not_in" || op === "contains" || op === "matches_any" || op === "between";

/** The value of a leaf as text for its field. */
export function writeValue(fact: string, op: string, value: unknown): string {
  const one = (each: unknown): string =>
    factType(fact) === "number"
      ? writeNumber(fact, each)
      : typeof each === "string"
        ? each
        : JSON.stringify(each);
  if (Array.isArray(value)) {
    const between = op === "between" ? " to " : null;
    const parting = factType(fact) === "number" && numberSigns().decimal === "," ? "; " : ", ";
    return (value as unknown[]).map(one).join(between ?? parting);
  }
  return value === undefined || value === null ? "" : one(value);
}

/** The value of a leaf from the text of its field. */
export function readValue(fact: string, op: string, text: string): unknown {
  const one = (each: string): unknown => (factType(fact) === "number" ? readNumber(fact, each) : each.trim());
  if (op === "between")
    return text
      .split(
        numberSigns().decimal === ","
          ? /\s*(?:\bto\b|\bbis\b|–|;|\.\.)\s*|,\s+/
          : /\s*(?:\bto\b|–|,|;|\.\.)\s*/,
      )
      .filter((part) => part.trim() !== "")
      .map(one);
  if (takesList(op))
    return (factType(fact) === "number" ? splitNumbers(text) : text.split(","))
      .filter((part) => part.trim() !== "")
      .map(one);
  return factType(fact) === "text" ? text : one(text);
}

/** How operators read in a list of choices. */
export const operatorWords: Readonly<Record<Operator, string>> = {
  "=": "is",
  "!=": "is not",
  ">": "more than",
  ">=": "at least",
  "<": "less than",
  "<=": "at most",
  in: "one of",
  not_in: "none of",
  between: "from … to",
  contains: "contains all of",
  matches_any: "contains one of",
};

/** An example of what goes into the field. */
export function exampleOf(fact: string, op: string): string {
  if (op === "between") return fact.startsWith("hour_") ? "2 to 5" : "10 to 20";
  if (factType(fact) === "number") return takesList(op) ? "1, 2, 3" : fact === "complexity" ? "0.7" : "100";
  if (op === "contains" || op === "matches_any") return "homework, my essay";
  return takesList(op) ? "one, another" : "";
}

/** The leaf with another fact: operator and value stay where they still fit. */
export function withFact(leaf: Definition, fact: string): Definition {
  const [before, after] = [factType(textOf(leaf["fact"])), factType(fact)];
  if (before === after && after !== null) return { ...leaf, fact };
  const fresh: Readonly<Record<FactType, Definition>> = {
    number: { fact, op: ">", value: "" },
    text: { fact, op: fact === "message" ? "matches_any" : "=", value: fact === "message" ? [] : "" },
    boolean: { fact, op: "=", value: true },
  };
  return fresh[after ?? "number"];
}

/** The leaf with another operator: the value is read again for it. */
export function withOperator(leaf: Definition, op: string): Definition {
  const fact = textOf(leaf["fact"]);
  const value = leaf["value"];
  if (isObject(value) && !takesList(op)) return { ...leaf, op };
  const text = isObject(value) ? "" : writeValue(fact, textOf(leaf["op"]), value);
  return { ...leaf, op, value: factType(fact) === "boolean" ? value : readValue(fact, op, text) };
}

/** "Too many messages" as a rule's name. */
export const nameFrom = (typed: string): string =>
  typed
    .toLowerCase()
    .replace(/[\s-]+/g, "_")
    .slice(0, 100);
