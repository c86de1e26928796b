/**
 * What is exported is documented: in its source (meaning, units, errors) and on the map, docs/core.md. The
 * reconciliation has a page of its own in its source.
 */
import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";

const folders = ["guard", "ledger", "money", "plans", "pricing", "rules", "simulation", "time", "usage"];
const page = readFileSync(new URL("../../docs/core.md", import.meta.url), "utf8");
/** The rows of the page's tables, cell by cell. */
const rows = page
  .split("\n")
  .filter((line) => line.startsWith("| `"))
  .map((line) => line.split("|").map((cell) => cell.trim()));

interface Declaration {
  readonly file: string;
  readonly kind: string;
  readonly name: string;
  /** The comment above it; empty for none. */
  readonly doc: string;
  readonly code: string;
}

/** The exported declarations of a source, which starts each of them at the beginning of a line. */
function declarationsIn(file: string, source: string): Declaration[] {
  const lines = source.split("\n");
  return lines.flatMap((line, start) => {
    const [, kind, name] =
      /^export (?:async )?(function\*?|const|class|interface|type) (\w+)/.exec(line) ?? [];
    if (kind === undefined || name === undefined) return [];
    let from = start;
    if (lines[start - 1]?.trim().endsWith("*/"))
      do from--;
      while (!lines[from]?.startsWith("/**"));
    let end = start;
    while (
      end + 1 < lines.length &&
      !/^(export|\/\*\*|function|const|class|interface) ?/.test(lines[end + 1] ?? "")
    )
      end++;
    return [
      {
        file,
        kind,
        name,
        doc: lines.slice(from, start).join(" "),
        code: lines.slice(start, end + 1).join("\n"),
      },
    ];
  });
}

const declarations = folders.flatMap((folder) =>
  readdirSync(new URL(`./${folder}/`, import.meta.url))
    .filter((file) => file.endsWith(".ts") && !file.endsWith(".test.ts") && file !== "index.ts")
    .flatMap((file) =>
      declarationsIn(
        `${folder}/${file}`,
        readFileSync(new URL(`./${folder}/${file}`, import.meta.url), "utf8"),
      ),
    ),
);
const named = ({ file, name }: Declaration): string => `${file}: ${name}`;

/** Names that say what is counted, or in what. */
const namesUnit =
  /(tokens|_ms|_us|micros|minor|per_million|percent|thousandths|seconds|minutes|months|days|words|characters|calls|messages|accounts|users|length|lot_id|transaction_id|decision_id|version|priority|year|month|day|hour|minute|second|entry|http_status|status)$/i;
const docNamesUnit =
  /token|micro|minor|\bms\b|percent|count|unit|0 to 1|whole|amount|settlements|minutes|instants/i;

describe("the source", () => {
  it("has found what it is to look at", () => {
    expect(declarations.length).toBeGreaterThan(150);
    expect(declarationsIn("x", "/** D. */\nexport const a = 1;\n\nexport type B = 2;\n")).toMatchObject([
      { name: "a", doc: "/** D. */", code: "export const a = 1;\n" },
      { name: "B", doc: "" },
    ]);
  });

  it("says of every export what it means", () => {
    expect(declarations.filter(({ doc }) => doc.split(/\s+/).length < 4).map(named)).toEqual([]);
  });

  it("says of every number what unit it is in", () => {
    const without = declarations
      .filter(({ kind }) => kind === "interface")
      .flatMap((declaration) =>
        [...declaration.code.matchAll(/(\*\/\s*)?readonly (\w+)\??: number\b/g)]
          .filter(
            ([, hasDoc, name = ""]) =>
              !hasDoc && !namesUnit.test(name) && !docNamesUnit.test(declaration.doc),
          )
          .map(([, , name]) => `${named(declaration)}.${name}`),
      );
    expect(without).toEqual([]);
  });

  it("says of every function that throws that it does", () => {
    const silent = declarations.filter(
      ({ kind, code, doc }) =>
        (kind.startsWith("function") || kind === "const") &&
        /throw new (Range|Type)?Error/.test(code) &&
        !/Throws|RangeError|does not compile|rejects/.test(doc),
    );
    expect(silent.map(named)).toEqual([]);
  });
});

describe("docs/core.md", () => {
  it.each(folders)("names every export of %s", async (folder) => {
    const exported = Object.keys((await import(`./${folder}/index.ts`)) as object);
    expect(exported.filter((name) => !page.includes(`\`${name}\``))).toEqual([]);
  });

  it("names nothing in its tables that is not exported", async () => {
    const core = new Set(Object.keys((await import("./index.ts")) as object));
    const onPage = rows.flatMap(([, cell = ""]) =>
      [...cell.matchAll(/`([A-Za-z]+)`/g)].map((match) => match[1] as string),
    );
    expect(onPage.filter((name) => !core.has(name))).toEqual([]);
  });

  it("says how each function that answers a Result fails", () => {
    const answersResult = declarations.filter(
      ({ kind, code }) => kind.startsWith("function") && /\): Result</.test(code),
    );
    expect(answersResult.length).toBeGreaterThan(10);
    const silent = answersResult.filter(({ name, doc }) => {
      const row = rows.find(([, cell = ""]) => cell.includes(`\`${name}\``));
      // Those that are not exported by their folder are no one's to call.
      return row !== undefined && !row[3] && !/fail|refuse|problem/i.test(doc);
    });
    expect(silent.map(named)).toEqual([]);
  });
});
