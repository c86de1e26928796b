/**
 * `npm test`: everything. Static checks, then unit, renderer and database tests (vitest), then the built console
 * in a real browser (playwright). Goes on after a failed stage, so that one run shows every failure, and closes with
 * the time of each stage, the ten slowest tests, what failed and `N passed, N failed, N skipped`. Arguments choose
 * stages: check, vitest, build, e2e.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { stripVTControlCharacters } from "node:util";
import { runtimeInWords } from "./electron/launch.ts";
import { runStaticChecks, runTool, type Tally } from "./stages.ts";
import { repository } from "./support/repository.ts";

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
/** What failed and why, for the end of the output: often that is all that is kept of it. */
const failures: string[] = [];
const stageSeconds: [Stage, number][] = [];
const startedAt = performance.now();

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

function addFailure(file: string, name: string, reasons: readonly (string | undefined)[]): void {
  const first = stripVTControlCharacters(reasons.find((reason) => reason) ?? "no reason was reported");
  failures.push(`${file}: ${name}\n${first.split("\n").slice(0, 12).join("\n")}`);
}

/** A runner that ended badly has failed at least once, whatever its report says or if it wrote none. */
function atLeastOneFailure(runner: string, tally: Tally, exitCode: number): Tally {
  if (exitCode === 0 || tally.failed > 0) return tally;
  addFailure(runner, "the runner itself", [`ended with exit code ${exitCode} and reports no failed test`]);
  return { ...tally, failed: 1 };
}

async function runVitest(): Promise<Tally> {
  const report = join(scratch, "vitest.json");
  const { exitCode } = await runTool(
    "vitest",
    ["run", "--reporter=default", "--reporter=json", `--outputFile.json=${report}`],
    { report },
  );
  const tally: Tally = { passed: 0, failed: 0, skipped: 0 };
  if (existsSync(report)) {
    const read = JSON.parse(readFileSync(report, "utf8")) as {
      numPassedTests: number;
      numFailedTests: number;
      numPendingTests: number;
      numTodoTests: number;
      testResults: readonly VitestFile[];
    };
    for (const result of read.testResults) addVitestFile(result);
    tally.passed = read.numPassedTests;
    tally.failed = read.numFailedTests;
    tally.skipped = read.numPendingTests + read.numTodoTests;
  }
  return atLeastOneFailure("vitest", tally, exitCode);
}

/** A test file in Vitest's report; its message is about the file as a whole, such as an import that failed. */
interface VitestFile {
  readonly name: string;
  readonly status: string;
  readonly message?: string;
  readonly assertionResults: readonly {
    readonly fullName: string;
    readonly status: string;
    readonly duration?: number | null;
    readonly failureMessages?: readonly string[] | null;
  }[];
}

function addVitestFile({ name, status, message, assertionResults }: VitestFile): void {
  const file = relative(repository, name);
  for (const { fullName, duration } of assertionResults)
    times.push({ name: fullName, file, seconds: (duration ?? 0) / 1000 });
  const failed = assertionResults.filter((result) => result.status === "failed");
  for (const { fullName, failureMessages } of failed) addFailure(file, fullName, failureMessages ?? []);
  if (status === "failed" && failed.length === 0) addFailure(file, "the file as a whole", [message]);
}

async function runPlaywright(): Promise<Tally> {
  const report = join(scratch, "playwright.json");
  const { exitCode } = await runTool("playwright", ["test", "--reporter=list,json"], {
    env: { PLAYWRIGHT_JSON_OUTPUT_NAME: report },
    report,
  });
  const tally: Tally = { passed: 0, failed: 0, skipped: 0 };
  if (existsSync(report)) {
    const { stats, suites } = JSON.parse(readFileSync(report, "utf8")) as {
      stats: { expected: number; unexpected: number; flaky: number; skipped: number };
      suites: readonly Suite[];
    };
    for (const suite of suites) addSuite(suite);
    // A flaky test is a failed one: it cannot be trusted.
    tally.passed = stats.expected;
    tally.failed = stats.unexpected + stats.flaky;
    tally.skipped = stats.skipped;
  }
  return atLeastOneFailure("playwright", tally, exitCode);
}

/** A file or a describe block in Playwright's report. */
interface Suite {
  readonly suites?: readonly Suite[];
  readonly specs: readonly {
    readonly title: string;
    readonly file: string;
    readonly tests: readonly {
      readonly status: string;
      readonly results: readonly {
        readonly duration: number;
        readonly error?: { readonly message?: string };
      }[];
    }[];
  }[];
}

function addSuite({ suites, specs }: Suite): void {
  for (const { title: name, file: inFolder, tests } of specs) {
    const file = `tests/e2e/${inFolder}`;
    const results = tests.flatMap((test) => test.results);
    times.push({ name, file, seconds: results.reduce((sum, { duration }) => sum + duration, 0) / 1000 });
    if (tests.some(({ status }) => status === "unexpected" || status === "flaky"))
      addFailure(
        file,
        name,
        results.map(({ error }) => error?.message),
      );
  }
  for (const suite of suites ?? []) addSuite(suite);
}

await timed("check", () =>
  runStaticChecks((name) => addFailure("check", name, ["see its output above: `npm run check`"])),
);
await timed("build", async () => {
  console.log("\n── build");
  const { exitCode } = await runTool("electron-vite", ["build", "--logLevel", "warn"]);
  return atLeastOneFailure("build", { passed: exitCode === 0 ? 1 : 0, failed: 0, skipped: 0 }, exitCode);
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
const whole = (performance.now() - startedAt) / 1000;
for (const [stage, seconds] of [...stageSeconds, ["all", whole]] as const)
  console.log(`${seconds.toFixed(1).padStart(7)} s  ${stage}`);
if (failures.length > 0) console.log("\nWhat failed:");
for (const failure of failures) console.log(`\n${failure}`);
if (chosen.has("e2e")) console.log(`\nThe desktop window: ${runtimeInWords}.`);
console.log(`\n${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`);
process.exitCode = total.failed === 0 ? 0 : 1;
