/** Every number that a screen can show is described once, with its unit and where it comes from: docs/figures.md. */
import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import type { z } from "zod";
import { operations } from "../../shared/contract/index.ts";

const units = [
  "tokens",
  "minor units",
  "micro-units",
  "percent",
  "share",
  "count",
  "seconds",
  "milliseconds",
  "minutes",
  "days",
  "bytes",
  "id",
  "version",
];

/** Names of the numeric fields of an answer; those of a record whose keys are data end in {}. */
function numericFields(answer: z.core.$ZodType): Set<string> {
  const found = new Set<string>();
  const seen = new Set<unknown>();
  const walk = (schema: unknown, name: string): void => {
    if (seen.has(schema)) return;
    const { def } = (schema as { readonly _zod: { readonly def: Record<string, unknown> } })._zod;
    switch (def["type"]) {
      case "number":
        found.add(name);
        return;
      case "object":
        for (const [key, field] of Object.entries(def["shape"] as object)) walk(field, key);
        return;
      case "record":
        walk(def["valueType"], `${name}{}`);
        return;
      case "lazy":
        seen.add(schema);
        walk((def["getter"] as () => unknown)(), name);
        return;
      default:
        for (const key of ["innerType", "element", "left", "right", "out"])
          if (def[key] !== undefined) walk(def[key], name);
        for (const each of [def["options"], def["items"]])
          if (Array.isArray(each)) for (const one of each) walk(one, name);
    }
  };
  walk(answer, "");
  return found;
}

it("every number of the contract has its meaning and unit in docs/figures.md, once, and nothing there is gone", () => {
  const rows = readFileSync(new URL("../../docs/figures.md", import.meta.url), "utf8")
    .split("\n")
    .filter((line) => line.startsWith("| `"))
    .map((line) => line.split("|").map((cell) => cell.trim()));
  const described = rows.flatMap(([, names = ""]) =>
    [...names.matchAll(/`([^`]+)`/g)].map(([, name = ""]) => name),
  );
  const fields = new Set<string>();
  for (const { output } of Object.values(operations))
    for (const name of numericFields(output)) fields.add(name);
  fields.delete("");
  expect(described.toSorted()).toEqual([...fields].toSorted());
  for (const [, names, unit, meaning] of rows) {
    expect(units, names).toContain(unit);
    expect(meaning?.length, names).toBeGreaterThan(10);
  }
  // A name that carries its unit has that unit.
  const told = {
    _minor: "minor units",
    _micros: "micro-units",
    _tokens: "tokens",
    _seconds: "seconds",
    _bytes: "bytes",
  };
  for (const [, names = "", unit] of rows)
    for (const [, name = ""] of names.matchAll(/`([^`]+)`/g))
      for (const [suffix, means] of Object.entries(told))
        if (name.endsWith(suffix)) expect([name, unit]).toEqual([name, means]);
});
