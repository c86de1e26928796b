/** Composes shell and console, nothing else. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { composeConsoles } from "./compose.ts";
import { openLog } from "./log.ts";
import { runShell } from "./shell/shell.ts";
import { conventionalDataDir } from "./store/data-dir.ts";

// What is written here (the store, the embedded database, its secret) is for this user alone.
process.umask(0o077);

// Chromium's own switches are among the arguments too: unknown ones are left to it.
const { values } = parseArgs({
  // A packaged program has no script among its arguments: the first one is already the person's.
  args: process.argv.slice("defaultApp" in process && process.defaultApp ? 2 : 1),
  options: {
    "data-dir": { type: "string", default: conventionalDataDir() },
    "sample-data": { type: "boolean", default: true },
  },
  allowNegative: true,
  strict: false,
});
const dataDir = String(values["data-dir"]);
const outDir = join(import.meta.dirname, "..");
const { version } = JSON.parse(readFileSync(join(outDir, "../package.json"), "utf8")) as { version: string };
const { log, reportCrash, folder: logFolder } = openLog(dataDir, version);

// What the outbox holds is on the disk already: it is sent by the next start.
process.on("uncaughtException", (error) => {
  reportCrash("the main process", error.stack ?? error.message);
  process.exit(1);
});
process.on("unhandledRejection", (reason) => {
  reportCrash(
    "the main process",
    reason instanceof Error ? (reason.stack ?? reason.message) : String(reason),
  );
});

// Not awaited here: Electron becomes ready only after this module has run.
runShell({
  dataDir,
  outDir,
  log,
  logFolder,
  reportCrash,
  openConsoles: (appDir, updates) =>
    composeConsoles({
      dataDir,
      host: "electron",
      sampleData: values["sample-data"] !== false,
      resourcesDir: appDir,
      workerUrls: {
        localProject: new URL("./local-project-worker.js", import.meta.url),
        reconciliation: new URL("./reconciliation-worker.js", import.meta.url),
        replay: new URL("./replay-worker.js", import.meta.url),
      },
      updates,
      log,
      reportCrash,
    }),
}).catch((error: unknown) => {
  log(`The console could not start: ${(error as Error).stack ?? String(error)}`);
  process.exit(1);
});
