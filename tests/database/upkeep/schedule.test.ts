/** Where pg_cron is installed, as on Supabase, upkeep runs by itself; where it is not, nothing is missing but the schedule. */
import { existsSync } from "node:fs";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { migrate, pgConnection } from "../../../local-project/migrations.ts";
import { createProjectDatabase } from "../../support/database.ts";
import { makeSupabaseLike, type PostgresServer, startPostgres } from "../../support/postgres.ts";
import { postgresUrls } from "../../support/project.ts";

describe.runIf(existsSync("/usr/share/postgresql/15/extension/pg_cron.control"))("with pg_cron", () => {
  let server: PostgresServer;
  let superuser: pg.Client;
  let owner: pg.Client;

  beforeAll(async () => {
    server = await startPostgres({
      version: 15,
      settings: {
        shared_preload_libraries: "pg_cron",
        "cron.database_name": "postgres",
        "cron.use_background_workers": "on",
        max_worker_processes: "16",
      },
    });
    const ownerUrl = await makeSupabaseLike(server.url());
    superuser = new pg.Client({ connectionString: server.url() });
    await superuser.connect();
    // As Supabase hands it to the owner of a project, who is no superuser.
    await superuser.query(`create extension pg_cron;
      grant usage on schema cron to project_owner; grant all on all tables in schema cron to project_owner;
      grant execute on all functions in schema cron to project_owner`);
    owner = new pg.Client({ connectionString: ownerUrl });
    await owner.connect();
  });
  afterAll(async () => {
    await owner?.end();
    await superuser?.end();
    await server?.stop();
  });

  it("the migrations schedule upkeep every minute, once, however often it is asked for", async () => {
    await migrate(pgConnection(owner), { preset: { name: "default" } });
    await owner.query("select governance.schedule_maintenance()");
    const { rows } = await superuser.query(
      "select jobname, schedule, command, username, active from cron.job where jobname like 'governance%'",
    );
    expect(rows).toEqual([
      {
        jobname: "governance-maintenance",
        schedule: "* * * * *",
        command: "call governance.maintain()",
        username: "project_owner",
        active: true,
      },
    ]);
  });

  it("a hold that nobody ends is given back by it, as its owner, without being asked", async () => {
    await owner.query("select public.authorize_usage('forgotten', 'user', 'gpt-4o-mini', 100)");
    await owner.query("select governance.set_test_clock(governance.now() + interval '20 minutes')");
    let status = "held";
    // pg_cron looks at each full minute: a minute's wait at most, and what the machine needs.
    for (let waited = 0; status === "held" && waited < 300; waited += 1) {
      await new Promise((resolve) => setTimeout(resolve, 500));
      const { rows } = await superuser.query<{ status: string }>(
        "select status from governance.requests where request_id = 'forgotten'",
      );
      status = rows[0]?.status ?? "";
    }
    expect(status).toBe("expired");
    const { rows } = await superuser.query(
      "select distinct command, username from cron.job_run_details where status in ('running', 'succeeded')",
    );
    expect(rows).toEqual([{ command: "call governance.maintain()", username: "project_owner" }]);
  });
});

it("without pg_cron nothing is scheduled, and upkeep is there to be called", async () => {
  const { ownerUrl } = await createProjectDatabase(postgresUrls()[18], { preset: "default" });
  const client = new pg.Client({ connectionString: ownerUrl });
  await client.connect();
  expect((await client.query("select governance.schedule_maintenance() as is_scheduled")).rows).toEqual([
    { is_scheduled: false },
  ]);
  await client.query("call governance.maintain()");
  await client.end();
});
