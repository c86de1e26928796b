/** The log that a person can open, and a report of each crash. Neither holds a secret, and neither leaves this machine. */
import { appendFileSync, mkdirSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { redact } from "./backend/redact.ts";

const maxLogBytes = 1_000_000;
const maxReports = 20;

interface LocalLog {
  readonly folder: string;
  readonly log: (line: string) => void;
  /** Answers the report's path, null where it could not be written. */
  readonly reportCrash: (what: string, details: string) => string | null;
}

export function openLog(dataDir: string, version: string, now: () => Date = () => new Date()): LocalLog {
  const folder = join(dataDir, "logs");
  const file = join(folder, "console.log");

  function log(line: string): void {
    const clean = redact(line);
    process.stderr.write(`${clean}\n`);
    try {
      mkdirSync(folder, { recursive: true });
      if ((statSync(file, { throwIfNoEntry: false })?.size ?? 0) > maxLogBytes)
        renameSync(file, join(folder, "console.old.log"));
      appendFileSync(file, `${now().toISOString()} ${clean}\n`);
    } catch {
      // A full disk must not end the console.
    }
  }

  return {
    folder,
    log,
    reportCrash(what, details) {
      const at = now().toISOString();
      const name = `crash-${at.replaceAll(/[:.]/g, "-")}-${what.replaceAll(/[^a-z]+/gi, "-")}.txt`;
      const system = `${process.platform} ${process.arch}, Node ${process.versions.node}`;
      log(`Crash of ${what}: ${details}`);
      try {
        writeFileSync(
          join(folder, name),
          redact(`Token Governance ${version}\n${at}\n${system}\n\nCrash of ${what}\n${details}\n`),
        );
        const reports = readdirSync(folder)
          .filter((each) => each.startsWith("crash-"))
          .sort();
        for (const old of reports.slice(0, -maxReports)) rmSync(join(folder, old), { force: true });
        return join(folder, name);
      } catch {
        return null;
      }
    },
  };
}
