/**
 * `npm run test:one -- PATH or NAME`: one test file, the tests of one folder, or the tests whose name holds these words.
 * End-to-end tests (`*.spec.ts`) run in the browser on a fresh build, all others in vitest.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { ensureBuilt } from "../cli/build.ts";
import { runTool } from "./stages.ts";
import { repository } from "./support/repository.ts";

const [wanted, ...more] = process.argv.slice(2);
if (!wanted) {
  console.error(`npm run test:one -- PATH or NAME

  tests/database/feed/feed.test.ts      one file
  tests/database/feed                   the files of one folder
  feed.test                             the files whose path holds this
  "refuses a token that names nobody"   the tests whose name holds this

What follows goes to the runner as it is, for example --update.`);
  process.exit(2);
}

const testFiles = listTestFiles();
const path = relative(repository, join(process.cwd(), wanted)).replaceAll("\\", "/");
const byPath = testFiles.filter(
  (file) => file === path || file.startsWith(`${path}/`) || file.includes(wanted),
);
const files = byPath.length > 0 ? byPath : withName(wanted);
if (files.length === 0) {
  console.error(
    existsSync(wanted)
      ? `There are no tests in ${wanted}.`
      : `No test file has "${wanted}" in its path, and no test in its name.`,
  );
  process.exit(2);
}

const name = byPath.length > 0 ? [] : ["-t", wanted.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&")];
const inBrowser = files.filter((file) => file.endsWith(".spec.ts"));
const others = files.filter((file) => !file.endsWith(".spec.ts"));
let exitCode = 0;
if (others.length > 0) exitCode ||= (await runTool("vitest", ["run", ...others, ...name, ...more])).exitCode;
if (inBrowser.length > 0) {
  await ensureBuilt((sentence) => console.log(sentence));
  const grep = name.length > 0 ? ["-g", name[1] ?? ""] : [];
  exitCode ||= (await runTool("playwright", ["test", ...inBrowser, ...grep, ...more])).exitCode;
}
process.exitCode = exitCode;

function listTestFiles(): string[] {
  const roots = ["shared", "electron", "renderer", "local-project", "cli", "bench", "tests"];
  return roots
    .flatMap((root) =>
      readdirSync(join(repository, root), { recursive: true }).map((file) => `${root}/${String(file)}`),
    )
    .map((file) => file.replaceAll("\\", "/"))
    .filter((file) => /\.(test\.tsx?|spec\.ts)$/.test(file))
    .sort();
}

/**
 * The files with a test of this name. A run prints names with those of the blocks around them in front, and rows of a
 * table with values in them: where no file has the whole name, the longest end of it that one has, of three words at least.
 */
function withName(name: string): string[] {
  const texts = testFiles.map((file) => ({ file, text: readFileSync(join(repository, file), "utf8") }));
  const words = name.split(" ");
  for (let first = 0; first === 0 || first + 3 <= words.length; first += 1) {
    const end = words.slice(first).join(" ");
    const found = texts.filter(({ text }) => text.includes(end) || text.includes(end.replaceAll('"', '\\"')));
    if (found.length > 0) return found.map(({ file }) => file);
  }
  return [];
}
