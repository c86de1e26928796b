/** docs/core.md is the map of the core: what is exported stands on it, and what stands on it is exported. */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";

const folders = [
  "abuse",
  "alerts",
  "guard",
  "ledger",
  "plans",
  "pricing",
  "routing",
  "rules",
  "simulation",
  "time",
  "usage",
];
const page = readFileSync(new URL("../../docs/core.md", import.meta.url), "utf8");

describe("docs/core.md", () => {
  it.each(folders)("names every export of %s", async (folder) => {
    const exported = Object.keys((await import(`./${folder}/index.ts`)) as object);
    expect(exported.filter((name) => !page.includes(`\`${name}\``))).toEqual([]);
  });

  it("names nothing in its tables that is not exported", async () => {
    const core = new Set(Object.keys((await import("./index.ts")) as object));
    const named = page
      .split("\n")
      .filter((line) => line.startsWith("| `"))
      .flatMap((line) =>
        [...(line.split("|")[1] ?? "").matchAll(/`([A-Za-z]+)`/g)].map((match) => match[1] as string),
      );
    expect(named.filter((name) => !core.has(name))).toEqual([]);
  });
});
