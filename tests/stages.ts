/** Running a check or a test runner as one stage, and adding up what the stages say. */
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { repository } from "./support/repository.ts";

export interface Tally {
  passed: number;
  failed: number;
  skipped: number;
}

interface Finished {
  readonly exitCode: number;
  readonly seconds: number;
}

/** More than any takes on a busy machine, and so little that both runners end before a forge gives the run up. */
const longestMinutes = 40;

/** What a runner may take to end once it has written its report. */
const endingMinutes = 5;

/**
 * Runs a program of node_modules/.bin (or node itself) in the repository with its output on ours. One that hangs is
 * ended: the run goes on and tells what else failed. So is one that does not end after it has written its report, as
 * a runner whose output is held open by a process that a test left behind.
 */
export async function runTool(
  tool: string,
  args: readonly string[],
  { env = {}, report }: { readonly env?: Readonly<Record<string, string>>; readonly report?: string } = {},
): Promise<Finished> {
  const startedAt = performance.now();
  const bin = join(repository, "node_modules/.bin");
  let hung = false;
  const exitCode = await new Promise<number>((resolve, reject) => {
    const child = spawn(tool === "node" ? process.execPath : join(bin, tool), args, {
      cwd: repository,
      stdio: ["ignore", "inherit", "inherit"],
      shell: process.platform === "win32",
      env: {
        // What Node has compiled is kept for the hundreds of processes of a run, at Node's own place for it.
        NODE_COMPILE_CACHE: join(tmpdir(), "node-compile-cache"),
        ...process.env,
        ...env,
        // The bins' own `#!/usr/bin/env node` must find this Node, not an older one of the machine.
        PATH: `${dirname(process.execPath)}:${bin}:${process.env.PATH ?? ""}`,
      },
    });
    const endIt = (why: string): void => {
      clearInterval(watch);
      hung = true;
      console.error(`${tool} ${why}, and is ended.`);
      child.kill("SIGTERM");
      setTimeout(() => child.kill("SIGKILL"), 10_000).unref();
    };
    let reportedAt = Number.POSITIVE_INFINITY;
    const watch = setInterval(() => {
      const now = performance.now();
      if (report && existsSync(report)) reportedAt = Math.min(reportedAt, now);
      if (now - startedAt > longestMinutes * 60_000) endIt(`is not done after ${longestMinutes} minutes`);
      else if (now - reportedAt > endingMinutes * 60_000)
        endIt(`has not ended ${endingMinutes} minutes after its report`);
    }, 1_000);
    child.once("error", reject);
    child.once("exit", (code, signal) => {
      clearInterval(watch);
      resolve(hung || signal ? 1 : (code ?? 1));
    });
  });
  return { exitCode, seconds: (performance.now() - startedAt) / 1000 };
}

/** The static checks: types and zone boundaries, lint, SQL lint, format. */
const staticChecks: readonly { name: string; tool: string; args: readonly string[] }[] = [
  { name: "types and zone boundaries (tsc -b)", tool: "tsc", args: ["-b"] },
  { name: "lint and import rules (oxlint)", tool: "oxlint", args: ["--type-aware", "--deny-warnings"] },
  { name: "lint of the migrations (squawk)", tool: "squawk", args: ["supabase/migrations/*.sql"] },
  { name: "format (biome)", tool: "biome", args: ["format"] },
  {
    name: "length of files, functions and lines of SQL, exports, workflows, notices (tests/house.ts)",
    tool: "node",
    args: ["tests/house.ts"],
  },
];

export async function runStaticChecks(onFailure: (name: string) => void = () => {}): Promise<Tally> {
  const tally: Tally = { passed: 0, failed: 0, skipped: 0 };
  for (const { name, tool, args } of staticChecks) {
    console.log(`\n── ${name}`);
    const { exitCode, seconds } = await runTool(tool, args);
    console.log(`${exitCode === 0 ? "ok" : "FAILED"}: ${name} (${seconds.toFixed(1)} s)`);
    if (exitCode === 0) tally.passed += 1;
    else {
      tally.failed += 1;
      onFailure(name);
    }
  }
  return tally;
}
