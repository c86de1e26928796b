/**
 * `npm run schema`: writes the baseline migration of 0.1.0 from supabase/schemas, where every object is defined once.
 * `--check` writes nothing and fails when the migration is out of date. From the first release on the baseline is
 * history: edit the schema file, write the next migration by hand; a test keeps both ways equal.
 */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const schemasDir = fileURLToPath(new URL("../supabase/schemas", import.meta.url));
const baseline = fileURLToPath(
  new URL("../supabase/migrations/20261128000000_governance_baseline.sql", import.meta.url),
);

/**
 * The whole schema as one script, the rooms in the order of their file names. Bodies are not checked while they are
 * created: a function may call one that a later room defines. A test checks each body afterwards.
 */
export function readSchema(folder = schemasDir): string {
  const rooms = readdirSync(folder)
    .filter((file) => file.endsWith(".sql"))
    .sort();
  return [
    "-- Written by `npm run schema` from supabase/schemas: edit there.",
    "select set_config('check_function_bodies', 'off', true);",
    ...rooms.map((room) => `\n-- schemas/${room}\n${readFileSync(`${folder}/${room}`, "utf8").trimEnd()}`),
    "",
  ].join("\n");
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values } = parseArgs({ options: { check: { type: "boolean", default: false } } });
  const schema = readSchema();
  if (!values.check) {
    writeFileSync(baseline, schema);
    console.log("Wrote supabase/migrations/20261128000000_governance_baseline.sql.");
  } else if (readFileSync(baseline, "utf8") !== schema) {
    console.error("The baseline migration is out of date. Run: npm run schema");
    process.exitCode = 1;
  }
}
