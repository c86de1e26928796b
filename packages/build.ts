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
  // The compiler leaves the sources' endings in types.
  for (const file of globSync("types/**/*.d.ts", { cwd: dist })) {
    const text = readFileSync(join(dist, file), "utf8");
    writeFileSync(join(dist, file), text.replaceAll(/((?:from|import)\s*\(?\s*"\.[^"]*)\.ts"/g, '$1.js"'));
  }
}
