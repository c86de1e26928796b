/**
 * `npm run api`: the pages of the packages' API in docs/api, one for each name that they export, from the doc comments
 * of what `npm run packages` built. They are not committed: the comments are.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { openTool } from "./tools.ts";

const here = dirname(fileURLToPath(import.meta.url));
const { values } = parseArgs({ options: { out: { type: "string", default: join(here, "../docs/api") } } });
const tool = await openTool("api");
if (tool === null) throw new Error("What makes the pages could not be installed: is the registry reachable?");
const bin = (name: string): string => join(tool, "node_modules/@microsoft", name, "bin", name);
const models = mkdtempSync(join(tmpdir(), "api-"));
try {
  for (const name of ["core", "guard"]) {
    const folder = join(here, name);
    const entry = join(folder, `dist/types/packages/${name}/src/index.d.ts`);
    // It looks for the package from where its settings are.
    const settings = join(folder, "dist/api-extractor.json");
    const silent = { logLevel: "none" };
    writeFileSync(
      settings,
      JSON.stringify({
        projectFolder: folder,
        mainEntryPointFilePath: entry,
        compiler: {
          overrideTsconfig: {
            compilerOptions: {
              module: "nodenext",
              target: "es2023",
              lib: ["es2023", "dom"],
              types: [],
              strict: true,
            },
            files: [entry],
          },
        },
        apiReport: { enabled: false },
        dtsRollup: { enabled: false },
        tsdocMetadata: { enabled: false },
        docModel: { enabled: true, apiJsonFilePath: join(models, `${name}.api.json`) },
        messages: {
          compilerMessageReporting: { default: { logLevel: "error" } },
          extractorMessageReporting: {
            default: silent,
            // All of the guard's own types are exported by name; the core's helpers need not be.
            "ae-forgotten-export": name === "guard" ? { logLevel: "error" } : silent,
          },
          tsdocMessageReporting: { default: silent },
        },
      }),
    );
    execFileSync(process.execPath, [bin("api-extractor"), "run", "--local", "--config", settings], {
      stdio: ["ignore", "ignore", "inherit"],
    });
    rmSync(settings);
  }
  rmSync(values.out, { recursive: true, force: true });
  const pages = ["markdown", "--input-folder", models, "--output-folder", values.out];
  execFileSync(process.execPath, [bin("api-documenter"), ...pages], {
    stdio: ["ignore", "ignore", "inherit"],
  });
} finally {
  rmSync(models, { recursive: true, force: true });
}
