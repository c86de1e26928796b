/** The local project keeps itself: what pg_cron does elsewhere happens here though nobody calls. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { type LocalProject, startLocalProject } from "../../../local-project/index.ts";
import { createProjectDatabase } from "../../support/database.ts";
import { postgresUrls } from "../../support/project.ts";

const soon = { timeout: 60_000, interval: 100 };

describe.each(["PGlite", "PostgreSQL"])("upkeep of a local project on %s", (kind) => {
  let dataDir: string;
  let where: { readonly dataDir: string } | { readonly databaseUrl: string };
  let project: LocalProject;
  const said: string[] = [];
  const one = async (sql: string): Promise<string | null> => (await project.run(sql))[0]?.[0] ?? null;

  beforeAll(async () => {
    dataDir = mkdtempSync(join(tmpdir(), "local-upkeep-"));
    const server = postgresUrls()[18];
    where =
      kind === "PGlite"
        ? { dataDir }
        : { databaseUrl: (await createProjectDatabase(server, { preset: "default" })).url };
    project = await startLocalProject({
      ...where,
      upkeepIntervalMs: 200,
      log: (sentence) => said.push(sentence),
    });
  });
  afterAll(async () => {
    await project.stop();
    rmSync(dataDir, { recursive: true, force: true });
  });

  // In the middle of the month, whatever day it is: an hour on is the same month.
  const setClock = (hours: number): Promise<unknown> =>
    project.run(
      `select governance.set_test_clock(date_trunc('month', now()) + interval '14 days ${12 + hours} hours')`,
    );

  it("gives an expired hold back", async () => {
    await setClock(0);
    await project.run("select public.authorize_usage('stuck', 'ann', 'gpt-4o-mini', 100)");
    const status = "select status from governance.requests where request_id = 'stuck'";
    expect(await one(status)).toBe("held");
    await setClock(1);
    await vi.waitFor(async () => expect(await one(status)).toBe("expired"), soon);
  });

  it("raises an alert whose budget is used, and queues its messages", async () => {
    await project.run("update governance.cost_alerts set budget = 1000 where alert_name = 'monthly_budget'");
    await project.run(`select public.authorize_usage('dear', 'ann', 'gpt-4o', 10000);
      select public.settle_usage('dear', 5000, 5000)`);
    const channels = `select string_agg(n.channel, ' ' order by n.channel) from governance.notifications n
      join governance.alert_events e using (alert_event_id) join governance.cost_alerts k using (alert_id)
      where k.alert_name = 'monthly_budget' and e.threshold = 90 and k.last_triggered_at = e.created_at`;
    await vi.waitFor(async () => expect(await one(channels)).toBe("email slack"), soon);
  });

  it("says once that it fails and once that it works again, and never ends the project", async () => {
    const sound = await one("select pg_get_functiondef('public.run_maintenance()'::regprocedure)");
    await project.run(`create or replace function public.run_maintenance() returns jsonb language plpgsql security definer
      set search_path = '' as $$ begin raise exception 'the disk is full'; end $$`);
    await vi.waitFor(() => expect(said.join()).toContain("Upkeep failed"), soon);
    await project.run("select public.authorize_usage('meanwhile', 'ann', 'gpt-4o-mini', 100)");
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    expect(said.filter((sentence) => sentence.startsWith("Upkeep"))).toEqual([
      "Upkeep failed and is tried again: the disk is full.",
    ]);
    await project.run(sound ?? "");
    await vi.waitFor(() => expect(said.at(-1)).toBe("Upkeep works again."), soon);
  });

  it("begins no round once the project closes, and leaves none half done", async () => {
    const round =
      "select updated_at::text from governance.maintenance_state where key = 'allowance_warnings'";
    const before = await one(round);
    await vi.waitFor(async () => expect(await one(round)).not.toBe(before), soon);
    await project.stop();
    // Looked at by a project that keeps nothing up: the last round is whole, and no other followed it.
    project = await startLocalProject({ ...where, upkeepIntervalMs: null });
    const last = await one(round);
    await new Promise((resolve) => setTimeout(resolve, 600));
    expect(await one(round)).toBe(last);
    expect(JSON.parse((await one("select public.verify_ledger()")) ?? "{}")).toMatchObject({ problems: [] });
  });
});
