/**
 * `npm test`: everything. Static checks, then unit, renderer and database tests (vitest), then the built console
 * in a real browser (playwright). Goes on after a failed stage, so that one run tells all, and closes with
 * `N passed, N failed, N skipped`. Arguments choose stages: check, vitest, build, e2e.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { runStaticChecks, runTool, type Tally } from "./stages.ts";

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
    };
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
    const { stats } = JSON.parse(readFileSync(report, "utf8")) as {
      stats: { expected: number; unexpected: number; flaky: number; skipped: number };
    };
    // A flaky test is a failed one: it cannot be trusted.
    tally.passed = stats.expected;
    tally.failed = stats.unexpected + stats.flaky;
    tally.skipped = stats.skipped;
  }
  return atLeastOneFailure(tally, exitCode);
}

if (chosen.has("check")) add(await runStaticChecks());
if (chosen.has("build")) {
  console.log("\n── build");
  const { exitCode } = await runTool("electron-vite", ["build", "--logLevel", "warn"]);
  add(exitCode === 0 ? { passed: 1, failed: 0, skipped: 0 } : { passed: 0, failed: 1, skipped: 0 });
}
if (chosen.has("vitest")) add(await runVitest());
if (chosen.has("e2e")) {
  console.log("\n── end to end, in a real browser");
  add(await runPlaywright());
}

rmSync(scratch, { recursive: true, force: true });
console.log(`\n${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`);
process.exitCode = total.failed === 0 ? 0 : 1;
