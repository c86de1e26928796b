/**
 * Starts the packaged program of `npm run package` on this system: it must make its data folder and go on running. Its
 * window cannot be driven, since its fuses refuse a debugger; tests/e2e/electron.spec.ts drives the same code unpackaged.
 */
import { spawn } from "node:child_process";
import { existsSync, globSync, mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { repository } from "./support/repository.ts";

const patterns: Partial<Record<NodeJS.Platform, string>> = {
  linux: "dist/linux*-unpacked/token-governance",
  darwin: "dist/mac*/Token Governance.app/Contents/MacOS/Token Governance",
  win32: "dist/win*-unpacked/Token Governance.exe",
};
const [program] = globSync(patterns[process.platform] ?? "", { cwd: repository });
if (!program) throw new Error("There is no packaged program in dist/. Run `npm run package` first.");

const dataDir = mkdtempSync(join(tmpdir(), "packaged-"));
const child = spawn(join(repository, program), [`--data-dir=${dataDir}`, "--no-sample-data"], {
  stdio: "inherit",
});
const store = join(dataDir, "console.sqlite");
const endsAt = Date.now() + 120_000;
while (!existsSync(store) && child.exitCode === null && Date.now() < endsAt) await sleep(250);
await sleep(5_000);
const isRunning = child.exitCode === null && existsSync(store);
child.kill();
if (!isRunning) throw new Error(`The packaged program did not start (exit code ${child.exitCode}).`);
console.log("The packaged program started and kept running.");
