/**
 * Runs supabase/tests/*.test.sql: on PGlite always, and with pg_prove on Debian's PostgreSQL 15 where its pgTAP is
 * installed. Each line of TAP is a test here.
 */
import { execFile } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { promisify } from "node:util";
import { PGlite } from "@electric-sql/pglite";
import { pg_trgm } from "@electric-sql/pglite/contrib/pg_trgm";
import { pgcrypto } from "@electric-sql/pglite/contrib/pgcrypto";
import { pgtap } from "@electric-sql/pglite-pgtap";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { migrate } from "../../../local-project/migrations.ts";
import { createProjectDatabase } from "../../support/database.ts";
import { postgresUrls } from "../../support/project.ts";

const folder = new URL("../../../supabase/tests/", import.meta.url);
const files = readdirSync(folder).filter((file) => file.endsWith(".test.sql"));
const run = promisify(execFile);

describe("pgTAP on PGlite", () => {
  let db: PGlite;
  beforeAll(async () => {
    db = await PGlite.create({ extensions: { pg_trgm, pgcrypto, pgtap } });
    await db.exec(readFileSync(new URL("../../../local-project/bootstrap.sql", import.meta.url), "utf8"));
    await migrate(
      { query: (text, parameters) => db.query(text, parameters), exec: (text) => db.exec(text) },
      { preset: { name: "default" }, role: "project_owner" },
    );
  });
  afterAll(() => db.close());

  it.each(files)("%s passes line by line", async (file) => {
    const results = await db.exec(readFileSync(new URL(file, folder), "utf8"));
    const lines = results.flatMap((result) =>
      result.rows.flatMap((row) => Object.values(row).filter((value) => typeof value === "string")),
    );
    expect(lines.filter((line) => line.startsWith("not ok") || line.startsWith("# Looks like"))).toEqual([]);
    expect(lines.filter((line) => line.startsWith("ok")).length).toBeGreaterThan(10);
  });
});

const server = postgresUrls()[15];
const hasPgTap =
  server !== null &&
  existsSync("/usr/bin/pg_prove") &&
  existsSync("/usr/share/postgresql/15/extension/pgtap.control");

describe.runIf(hasPgTap)("pgTAP with pg_prove on PostgreSQL 15", () => {
  it("passes every file", async () => {
    const { url } = await createProjectDatabase(server ?? "", { preset: "default" });
    const { stdout } = await run("/usr/bin/pg_prove", [
      "-d",
      url,
      ...files.map((file) => new URL(file, folder).pathname),
    ]);
    expect(stdout).toContain("All tests successful.");
  });
});
