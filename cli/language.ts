/**
 * `npm run language`: the catalogue beside the sources. Lists texts that have no German yet and texts that are no
 * longer in the sources; `--write` puts the first into their file, with an empty German text to fill in, and takes the
 * others out.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { catalogueDir } from "./language/files.ts";
import { compareCatalogue } from "./language/compare.ts";

function readArguments(): { readonly write: boolean } {
  try {
    return parseArgs({ options: { write: { type: "boolean", default: false } } }).values;
  } catch (error) {
    console.error(`${(error as Error).message}\nnpm run language [-- --write]`);
    process.exit(2);
  }
}

const { write } = readArguments();
const { catalogues, missing, unused, empty } = compareCatalogue();

for (const { text, file, line } of missing) console.log(`no German yet   ${file}:${line}  ${text}`);
for (const { text, catalogue } of empty)
  console.log(`empty           shared/language/de/${catalogue}  ${text}`);
for (const { text, catalogue } of unused)
  console.log(`not used        shared/language/de/${catalogue}  ${text}`);
console.log(`${missing.length + empty.length} without German, ${unused.length} not used.`);

if (write) {
  const next = new Map([...catalogues].map(([name, entries]) => [name, { ...entries }]));
  for (const { text, catalogue } of unused) delete next.get(catalogue)?.[text];
  for (const { text, catalogue } of missing) next.set(catalogue, { ...next.get(catalogue), [text]: "" });
  for (const [name, entries] of next)
    writeFileSync(join(catalogueDir, name), `${JSON.stringify(entries, null, 2)}\n`);
} else if (missing.length + empty.length + unused.length > 0) process.exitCode = 1;
