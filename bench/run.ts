/**
 * `npm run bench [-- NAME…]`: each benchmark as one JSON line, a ratio against its floor measured in the same
 * run. Ends with 1 where a required ratio is missed, so that a regression is seen.
 */
import { readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import type { BenchResult } from "./measure.ts";

const folder = dirname(fileURLToPath(import.meta.url));
/** Every file here but the harness is a benchmark that exports `run`; what they measure with is in `cases/`. */
const benches = readdirSync(folder)
  .filter(
    (file) => file.endsWith(".ts") && !["run.ts", "measure.ts"].includes(file) && !file.endsWith(".test.ts"),
  )
  .map((file) => file.slice(0, -3))
  .sort();

const asked = process.argv.slice(2);
const unknown = asked.filter((name) => !benches.includes(name));
if (unknown.length > 0) {
  console.error(`Unknown benchmark ${unknown.join(", ")}. There are: ${benches.join(", ")}.`);
  process.exit(2);
}

let missed = 0;
for (const name of asked.length > 0 ? asked : benches) {
  const { run } = (await import(pathToFileURL(join(folder, `${name}.ts`)).href)) as {
    readonly run: () => Promise<readonly BenchResult[]>;
  };
  for (const result of await run()) {
    const ok =
      result.required === undefined ||
      (result.better === "higher" ? result.ratio >= result.required : result.ratio <= result.required);
    if (!ok) missed += 1;
    console.log(JSON.stringify({ ...result, ok }));
  }
}
process.exitCode = missed === 0 ? 0 : 1;
