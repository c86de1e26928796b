/**
 * Exports that no other file imports: they look like an interface and are none. A scan of the lines of import and
 * export, which the formatter keeps in one shape; a name goes through `export *` and `export { … } from`.
 */
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { repository } from "./support/repository.ts";

/** Files that are read from outside: every name of theirs is used. */
const entries = [
  // Published, or named in docs/core.md.
  "shared/governance/index.ts",
  "packages/core/src/index.ts",
  "packages/guard/src/index.ts",
  "packages/guard/src/sqlite.ts",
  // Imported by what the build makes of each screen (cli/language/plugin.ts).
  "renderer/src/lib/language.ts",
  // Named in vitest's configuration, and in the place of the module `electron`.
  "tests/support/database-setup.ts",
  "tests/electron/runtime/electron.ts",
];
/** Names that are no import of a file's: a tool takes its `default`, bench/run.ts calls `run`. */
const isCalledByName = (file: string, name: string): boolean =>
  (name === "default" && !file.includes("/")) ||
  (file.startsWith("bench/") && name === "run") ||
  // In a program that is shown on the screen, or written by a test.
  (file === "renderer/src/features/watch/first-programs.ts" && name === "chat") ||
  file.endsWith(".test.ts");

/** Types that stay exported: of the compiler's declarations, which name them where a function of another file returns one. */
const namedByCompiler = [
  "electron/main/backend/backend.ts RpcOptions",
  "electron/main/console/connection/project.ts CheckedProject",
  "electron/main/store/runs.ts StoredRun",
  "electron/main/store/snapshots.ts Snapshot",
];

interface Source {
  /** Names that are declared here and exported. */
  readonly declared: Set<string>;
  /** Names that are handed on: the file and the name there. */
  readonly passed: Map<string, { readonly from: string; readonly name: string }>;
  /** Files of which every name is handed on. */
  readonly passedWhole: string[];
  /** What is imported, by file; `*` for everything. */
  readonly imported: { readonly from: string; readonly name: string }[];
}

/** `a, type B as C` as pairs of the name there and the name here. */
const namesIn = (list: string): (readonly [there: string, here: string])[] =>
  list
    .split(",")
    .map((entry) => entry.replace(/^\s*type /, "").trim())
    .filter((entry) => entry !== "")
    .map((entry) => {
      const [there = "", here = there] = entry.split(/\s+as\s+|:\s*/);
      return [there, here];
    });

function readSource(file: string): Source {
  const text = readFileSync(join(repository, file), "utf8");
  const source: Source = { declared: new Set(), passed: new Map(), passedWhole: [], imported: [] };
  const at = (specifier: string): string => join(dirname(file), specifier);
  const take = (specifier: string, names: readonly string[]): void => {
    for (const name of names) source.imported.push({ from: at(specifier), name });
  };

  for (const [, name = ""] of text.matchAll(
    /^export (?:declare |abstract |async )*(?:const|let|function\*?|class|interface|type|enum) (\w+)/gm,
  ))
    source.declared.add(name);
  if (/^export default /m.test(text)) source.declared.add("default");
  for (const [, list = "", specifier] of text.matchAll(
    /^export (?:type )?\{([^}]*)\}(?: from "([^"]+)")?;/gm,
  ))
    for (const [there, here] of namesIn(list))
      if (specifier === undefined) source.declared.add(here);
      else source.passed.set(here, { from: at(specifier), name: there });
  for (const [, specifier = ""] of text.matchAll(/^export \* from "(\.[^"]+)";/gm))
    source.passedWhole.push(at(specifier));

  for (const [, whole, byDefault, list = "", specifier = ""] of text.matchAll(
    /^import (?:type )?(?:\* as (\w+)|(\w+))?(?:, )?(?:\{([^}]*)\})? from "(\.[^"]+)"/gm,
  )) {
    if (byDefault !== undefined) take(specifier, ["default"]);
    take(
      specifier,
      namesIn(list).map(([there]) => there),
    );
    if (whole === undefined) continue;
    const named = text.matchAll(new RegExp(`\\b${whole}\\.(\\w+)`, "g"));
    take(
      specifier,
      [...named].map(([, name = ""]) => name),
    );
    if (new RegExp(`(?:[(,:] ?|\\.{3}|typeof )${whole}[,);\\[]`).test(text)) take(specifier, ["*"]);
  }
  for (const [, list, specifier = "", name] of text.matchAll(
    /(?:\{([^{}]*)\} = (?:\()?await )?(?<!typeof )import\("(\.[^"]+)"\)(?:\)\.(\w+))?/g,
  ))
    take(specifier, list === undefined ? [name ?? "*"] : namesIn(list).map(([there]) => there));
  return source;
}

/** Sentences: each export that no other file imports, and each exception that is none any more. */
export function exportProblems(): string[] {
  const unused = unusedExports();
  return [
    ...unused
      .filter((what) => !namedByCompiler.includes(what))
      .map((what) => `${what} is imported by no other file: take the word "export" away.`),
    ...namedByCompiler
      .filter((what) => !unused.includes(what))
      .map((what) => `${what} needs no exception any more: take it out of tests/unused-exports.ts.`),
  ];
}

/** Each as `path name`. */
function unusedExports(): string[] {
  const files = execFileSync("git", ["ls-files", "*.ts", "*.tsx"], { cwd: repository, encoding: "utf8" })
    .split("\n")
    .filter((file) => file !== "" && !file.endsWith(".d.ts") && existsSync(join(repository, file)));
  const sources = new Map(files.map((file) => [file, readSource(file)]));
  const used = new Set<string>();

  const use = (file: string, name: string): void => {
    const source = sources.get(file);
    const key = `${file} ${name}`;
    if (source === undefined || used.has(key)) return;
    used.add(key);
    if (name === "*") for (const each of [...source.declared, ...source.passed.keys()]) use(file, each);
    const passed = source.passed.get(name);
    if (passed !== undefined) use(passed.from, passed.name);
    else if (!source.declared.has(name)) for (const from of source.passedWhole) use(from, name);
  };
  for (const { imported } of sources.values()) for (const { from, name } of imported) use(from, name);
  for (const file of entries) use(file, "*");

  return [...sources].flatMap(([file, { declared, passed }]) =>
    [...declared, ...passed.keys()]
      .filter((name) => !used.has(`${file} ${name}`) && !isCalledByName(file, name))
      .map((name) => `${file} ${name}`),
  );
}
