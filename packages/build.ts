/**
 * `npm run packages`: builds packages/*, each into its dist/, from the sources where they are: ES modules with source
 * maps by Vite, and their types by the compiler, file by file.
 */
import { execFileSync } from "node:child_process";
import { globSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "vite";

const here = dirname(fileURLToPath(import.meta.url));
/** `from "./other.ts"`, `import("./other.ts")`. */
const namesFile = /((?:from|import)\s*\(?\s*")(\.[^"]*)\.ts"/g;

/** Adds a file of types, and all that it names. */
function reachTypes(file: string, reached: Set<string>): void {
  if (reached.has(file)) return;
  reached.add(file);
  for (const [, , other = ""] of readFileSync(file, "utf8").matchAll(namesFile))
    reachTypes(join(dirname(file), `${other}.d.ts`), reached);
}

const packages = { core: ["index"], guard: ["index", "sqlite", "cli"] } as const;

for (const [name, entries] of Object.entries(packages)) {
  const folder = join(here, name);
  const dist = join(folder, "dist");
  rmSync(dist, { recursive: true, force: true });
  await build({
    root: folder,
    configFile: false,
    logLevel: "error",
    build: {
      outDir: dist,
      target: "es2023",
      minify: false,
      sourcemap: true,
      lib: {
        entry: Object.fromEntries(entries.map((entry) => [entry, join(folder, `src/${entry}.ts`)])),
        formats: ["es"],
      },
      rolldownOptions: {
        external: [/^node:/],
        // The source maps hold the sources with their comments: once is enough.
        output: { comments: { jsdoc: false, annotation: true, legal: true } },
      },
    },
  });
  const compiler = join(here, "../node_modules/typescript/bin/tsc");
  const files = entries.map((entry) => `${name}/src/${entry}.ts`);
  const settings = join(dist, "tsconfig.json");
  // One program without the references that the check works by.
  writeFileSync(
    settings,
    JSON.stringify({
      extends: "../../../tsconfig.base.json",
      compilerOptions: {
        lib: ["es2024", "dom"],
        types: ["node"],
        composite: false,
        declaration: true,
        rootDir: "../../..",
        outDir: "types",
        noUncheckedIndexedAccess: false,
      },
      files: files.map((file) => `../../${file}`),
    }),
  );
  execFileSync(process.execPath, [compiler, "-p", settings], { stdio: "inherit" });
  rmSync(settings);
  const types = globSync("types/**/*.d.ts", { cwd: dist }).map((file) => join(dist, file));
  const reached = new Set<string>();
  for (const entry of entries) reachTypes(join(dist, `types/packages/${name}/src/${entry}.d.ts`), reached);
  for (const file of types) {
    // Only what the package's own types name can be imported.
    if (!reached.has(file)) rmSync(file);
    // The compiler leaves the sources' endings in types.
    else writeFileSync(file, readFileSync(file, "utf8").replaceAll(namesFile, '$1$2.js"'));
  }
}
