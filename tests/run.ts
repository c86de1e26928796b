/**
 * `npm test`: everything. Static checks, then unit, renderer and database tests (vitest), then the built console
 * in a real browser (playwright). Goes on after a failed stage, so that one run tells all, and closes with
 * the time of each stage, the ten slowest tests and `N passed, N failed, N skipped`. Arguments choose stages: check,
 * vitest, build, e2e.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { runtimeInWords } from "./electron/launch.ts";
import { repository, runStaticChecks, runTool, type Tally } from "./stages.ts";

const stages = ["check", "vitest", "build", "e2e"] as const;
type Stage = (typeof stages)[number];

const asked = process.argv.slice(2);
const unknown = asked.filter((name) => !(stages as readonly string[]).includes(name));
if (unknown.length > 0) {
  console.error(`Unknown stage ${unknown.join(", ")}. Stages: ${stages.join(", ")}.`);
  process.exit(2);
}
const chosen = new Set<Stage>(asked.length > 0 ? (asked as Stage[]) : stages);
const scratch = mkdtempSync(join(tmpdir(), "governance-tests-"));
const total: Tally = { passed: 0, failed: 0, skipped: 0 };

interface TimedTest {
  readonly name: string;
  readonly file: string;
  readonly seconds: number;
}
const times: TimedTest[] = [];
const stageSeconds: [Stage, number][] = [];

async function timed(stage: Stage, run: () => Promise<Tally>): Promise<void> {
  if (!chosen.has(stage)) return;
  const startedAt = performance.now();
  add(await run());
  stageSeconds.push([stage, (performance.now() - startedAt) / 1000]);
}

function add(tally: Tally): void {
  total.passed += tally.passed;
  total.failed += tally.failed;
  total.skipped += tally.skipped;
}

/** A runner that ended badly has failed at least once, whatever its report says or if it wrote none. */
function atLeastOneFailure(tally: Tally, exitCode: number): Tally {
  return exitCode !== 0 && tally.failed === 0 ? { ...tally, failed: 1 } : tally;
}

async function runVitest(): Promise<Tally> {
  const report = join(scratch, "vitest.json");
  const { exitCode } = await runTool("vitest", [
    "run",
    "--reporter=default",
    "--reporter=json",
    `--outputFile.json=${report}`,
  ]);
  const tally: Tally = { passed: 0, failed: 0, skipped: 0 };
  if (existsSync(report)) {
    const read = JSON.parse(readFileSync(report, "utf8")) as {
      numPassedTests: number;
      numFailedTests: number;
      numPendingTests: number;
      numTodoTests: number;
      testResults: { name: string; assertionResults: { fullName: string; duration?: number | null }[] }[];
    };
    for (const { name: file, assertionResults } of read.testResults)
      for (const { fullName: name, duration } of assertionResults)
        times.push({ name, file: relative(repository, file), seconds: (duration ?? 0) / 1000 });
    tally.passed = read.numPassedTests;
    tally.failed = read.numFailedTests;
    tally.skipped = read.numPendingTests + read.numTodoTests;
  }
  return atLeastOneFailure(tally, exitCode);
}

async function runPlaywright(): Promise<Tally> {
  const report = join(scratch, "playwright.json");
  const { exitCode } = await runTool("playwright", ["test", "--reporter=list,json"], {
    PLAYWRIGHT_JSON_OUTPUT_NAME: report,
  });
  const tally: Tally = { passed: 0, failed: 0, skipped: 0 };
  if (existsSync(report)) {
    const { stats, suites } = JSON.parse(readFileSync(report, "utf8")) as {
      stats: { expected: number; unexpected: number; flaky: number; skipped: number };
      suites: readonly Suite[];
    };
    for (const suite of suites) addTimes(suite);
    // A flaky test is a failed one: it cannot be trusted.
    tally.passed = stats.expected;
    tally.failed = stats.unexpected + stats.flaky;
    tally.skipped = stats.skipped;
  }
  return atLeastOneFailure(tally, exitCode);
}

/** A file or a describe block in Playwright's report. */
interface Suite {
  readonly suites?: readonly Suite[];
  readonly specs: readonly {
    readonly title: string;
    readonly file: string;
    readonly tests: readonly { readonly results: readonly { readonly duration: number }[] }[];
  }[];
}

function addTimes({ suites, specs }: Suite): void {
  for (const { title: name, file, tests } of specs) {
    const took = tests.flatMap(({ results }) => results.map(({ duration }) => duration));
    times.push({
      name,
      file: `tests/e2e/${file}`,
      seconds: took.reduce((sum, each) => sum + each, 0) / 1000,
    });
  }
  for (const suite of suites ?? []) addTimes(suite);
}

await timed("check", runStaticChecks);
await timed("build", async () => {
  console.log("\n── build");
  const { exitCode } = await runTool("electron-vite", ["build", "--logLevel", "warn"]);
  return exitCode === 0 ? { passed: 1, failed: 0, skipped: 0 } : { passed: 0, failed: 1, skipped: 0 };
});
await timed("vitest", runVitest);
await timed("e2e", async () => {
  console.log("\n── end to end, in a real browser");
  return await runPlaywright();
});

rmSync(scratch, { recursive: true, force: true });
const slowest = times.toSorted((one, other) => other.seconds - one.seconds).slice(0, 10);
if (slowest.length > 0) console.log("\nThe slowest tests:");
for (const { seconds, file, name } of slowest)
  console.log(`${seconds.toFixed(1).padStart(7)} s  ${file}: ${name}`);
console.log("\nTime by stage:");
for (const [stage, seconds] of stageSeconds) console.log(`${seconds.toFixed(1).padStart(7)} s  ${stage}`);
if (chosen.has("e2e")) console.log(`\nThe desktop window: ${runtimeInWords}.`);
console.log(`\n${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`);
process.exitCode = total.failed === 0 ? 0 : 1;
