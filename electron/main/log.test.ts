import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { openLog } from "./log.ts";

const folder = mkdtempSync(join(tmpdir(), "console-log-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("neither the log nor a crash report holds a key", () => {
  const { log, reportCrash, folder: logs } = openLog(folder, "1.2.3");
  const key = `sk_live_${"a1".repeat(12)}`;
  log(`a call with ${key}`);
  const report = reportCrash("the page", `while sending bearer ${key}`);
  expect(report).not.toBeNull();
  const written = readdirSync(logs).map((name) => readFileSync(join(logs, name), "utf8"));
  expect(written).toHaveLength(2);
  for (const text of written) expect(text).not.toContain(key);
  expect(readFileSync(report ?? "", "utf8")).toMatch(/^Token Governance 1\.2\.3\n/);
});

test("only the newest twenty reports are kept", () => {
  const dir = join(folder, "many");
  let second = 0;
  const { reportCrash, folder: logs } = openLog(
    dir,
    "1",
    () => new Date(Date.UTC(2026, 0, 1, 0, 0, (second += 1))),
  );
  for (let count = 0; count < 25; count += 1) reportCrash("the page", `number ${count}.`);
  const reports = readdirSync(logs)
    .filter((name) => name.startsWith("crash-"))
    .sort();
  expect(reports).toHaveLength(20);
  expect(readFileSync(join(logs, reports.at(-1) ?? ""), "utf8")).toContain("number 24.");
});

test("a folder that cannot be written ends nothing", () => {
  const { log, reportCrash } = openLog("/dev/null/nowhere", "1");
  expect(() => log("a line")).not.toThrow();
  expect(reportCrash("the page", "x")).toBeNull();
});
