/** `npm run reconcile` as a nightly job calls it: a project over HTTP, files in, exit code and two files out. */
import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type LocalProject, startLocalProject } from "../../../local-project/index.ts";
import type { Report } from "../../../shared/governance/reconciliation/index.ts";
import { checkoutSession, event } from "../../support/stripe/events.ts";
import { createProjectDatabase } from "../../support/database.ts";
import { postgresUrls } from "../../support/project.ts";
import { repository } from "../../support/repository.ts";

describe("npm run reconcile", () => {
  const folder = mkdtempSync(join(tmpdir(), "reconcile-command-"));
  let project: LocalProject;
  let db: pg.Pool;
  const created = Math.floor(Date.now() / 1000) - 2 * 3600;
  const day = new Date(created * 1000).toISOString().slice(0, 10);
  const at = new Date((created + 30) * 1000).toISOString().slice(0, 19).replace("T", " ");
  const header =
    "id,Created date (UTC),Amount,Amount Refunded,Currency,Captured,Fee,Status,Customer ID,PaymentIntent ID\n";

  beforeAll(async () => {
    const { ownerUrl } = await createProjectDatabase(postgresUrls()[18], { preset: "athro" });
    db = new pg.Pool({ connectionString: ownerUrl, max: 2 });
    project = await startLocalProject({ dataDir: join(folder, "data"), databaseUrl: ownerUrl, port: 0 });
    await db.query("select upsert_account('ann', 'full')");
    const purchase = {
      name: "cli",
      userId: "ann",
      packId: "top-up",
      tokens: 320_000,
      amountMinor: 200,
      currency: "gbp",
      created,
    };
    await db.query("select process_stripe_event($1)", [
      JSON.stringify(event("checkout.session.completed", checkoutSession(purchase))),
    ]);
    writeFileSync(
      join(folder, "good.csv"),
      `${header}ch_cli,${at},2.00,0.00,gbp,true,0.23,Paid,cus_ann,pi_cli\n`,
    );
    writeFileSync(
      join(folder, "more.csv"),
      `${header}ch_more,${at},2.00,0.00,gbp,true,0.23,Paid,"=cmd|' /C calc'!A0",pi_more\n`,
    );
    writeFileSync(join(folder, "cut.csv"), `${header}ch_cli,${at},2.00,0.0`);
  });
  afterAll(async () => {
    await project.stop();
    await db.end();
    rmSync(folder, { recursive: true, force: true });
  });

  const run = async (
    args: readonly string[],
    key: string | null = project.serviceRoleKey,
  ): Promise<{ code: number; out: string; err: string }> => {
    const { GOVERNANCE_SERVICE_ROLE_KEY: _a, SUPABASE_SERVICE_ROLE_KEY: _b, ...env } = process.env;
    return new Promise((resolve) => {
      execFile(
        process.execPath,
        [join(repository, "cli/reconcile.ts"), ...args],
        { cwd: folder, env: { ...env, ...(key === null ? {} : { GOVERNANCE_SERVICE_ROLE_KEY: key }) } },
        (error, out, err) => resolve({ code: error ? Number(error.code) : 0, out, err }),
      );
    });
  };
  const period = ["--from", day, "--to", day];

  it("ends with 0 and writes a report when all is tied out", async () => {
    const { code, out, err } = await run([
      "--stripe",
      "good.csv",
      "--url",
      project.url,
      ...period,
      "--out",
      "out",
      "--data-through",
      day,
    ]);
    expect(code, err + out).toBe(0);
    expect(out).toContain("tied out");
    const report = JSON.parse(readFileSync(join(folder, "out/report.json"), "utf8")) as Report;
    expect(report).toMatchObject({
      report_version: 1,
      tied_out: true,
      stripe_rows: { matched: 1 },
      differences: [],
    });
    expect(report.inputs[0]?.sha256).toMatch(/^[0-9a-f]{64}$/);
    expect(readFileSync(join(folder, "out/differences.csv"), "utf8").trim().split("\r\n")).toHaveLength(1);
  });

  it("ends with 1 and lists the differences, safe for a spreadsheet, and finds the period by itself", async () => {
    const { code, out } = await run([
      "--stripe",
      "good.csv",
      "more.csv",
      "--url",
      project.url,
      "--out",
      "found",
      "--data-through",
      day,
    ]);
    expect(code).toBe(1);
    const report = JSON.parse(readFileSync(join(folder, "found/report.json"), "utf8")) as Report;
    expect(report.period).toEqual({
      from: `${day}T00:00:00Z`,
      to: new Date(Date.parse(`${day}T00:00:00Z`) + 86_400_000).toISOString().replace(".000Z", "Z"),
    });
    expect(report.differences.map((d) => [d.class, d.correction.charge_id])).toEqual([
      ["PAID_NOT_GRANTED", "ch_more"],
    ]);
    expect(out).toContain("PAID_NOT_GRANTED");
    expect(readFileSync(join(folder, "found/differences.csv"), "utf8")).not.toMatch(/(^|,)=/m);
  });

  it.each([
    [
      "a cut file, naming row and column",
      () => ["--stripe", "cut.csv", "--url", project.url, ...period],
      /cut\.csv, row 2, column Amount Refunded: .*cut off/,
    ],
    ["a missing file", () => ["--stripe", "none.csv", "--url", project.url], /There is no file none\.csv/],
    ["no file", () => ["--url", project.url], /--stripe is missing/],
    ["no address", () => ["--stripe", "good.csv"], /--url is missing/],
    ["a bad address", () => ["--stripe", "good.csv", "--url", "project"], /not an address/],
    [
      "a day that does not exist",
      () => ["--stripe", "good.csv", "--url", project.url, "--from", "2026-02-30", "--to", "2026-03-01"],
      /is not a day/,
    ],
    [
      "a period that ends before it begins",
      () => ["--stripe", "good.csv", "--url", project.url, "--from", "2026-03-05", "--to", "2026-03-01"],
      /--from "2026-03-05" is not before --to "2026-03-01"/,
    ],
    ["an unknown option", () => ["--stripe", "good.csv", "--url", project.url, "--fast"], /--fast/],
  ])("ends with 2 for %s", async (_name, args, message) => {
    const { code, err } = await run(args());
    expect(err).toMatch(message);
    expect(code).toBe(2);
  });

  it("ends with 2 without a key, or with a wrong one, and never shows it", async () => {
    const args = ["--stripe", "good.csv", "--url", project.url, ...period];
    expect(await run(args, null)).toMatchObject({
      code: 2,
      err: expect.stringContaining("GOVERNANCE_SERVICE_ROLE_KEY"),
    });
    const wrong = await run(args, project.anonKey);
    expect(wrong.code).toBe(2);
    expect(wrong.out + wrong.err).not.toContain(project.anonKey);
  });
});
