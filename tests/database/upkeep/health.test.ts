/** Twenty troubles, planted one at a time, are each found by name; and none on a sound project. `npm run doctor` shows it. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { expect, it } from "vitest";
import { startLocalProject } from "../../../local-project/index.ts";
import { installedVersions, openProject, type Project } from "../../support/project.ts";

interface Health {
  readonly is_well: boolean;
  readonly checks: readonly {
    readonly check: string;
    readonly ok: boolean;
    readonly advice: string | null;
  }[];
}

/** What is wrong, by the name of the check that must say it; undone after each. */
const troubles: readonly (readonly [check: string, sql: string])[] = [
  [
    "upkeep",
    "update governance.maintenance_state set updated_at = clock_timestamp() - interval '1 hour' where key = 'rounds'",
  ],
  ["upkeep", "update governance.maintenance_state set updated_at = 'infinity' where key = 'rounds'"],
  [
    "upkeep_failures",
    "select governance.raise_alert(null, null, 'upkeep_failed', 'critical', 'x', null, null, 'x', '{\"step\": \"purge\"}', governance.now())",
  ],
  ["doors", "grant execute on function public.run_maintenance() to anon"],
  ["doors", "grant select on governance.accounts to authenticated"],
  ["service_grants", "revoke execute on function public.settle_usage from service_role"],
  ["row_level_security", "alter table governance.lots disable row level security"],
  ["triggers", "alter table governance.token_transactions disable trigger token_transactions_append_only"],
  [
    "indexes",
    "update pg_index set indisvalid = false where indexrelid = 'governance.lots_account'::regclass",
  ],
  ["realtime", "alter publication supabase_realtime drop table governance.signals"],
  [
    "months_ahead",
    "do $$ begin execute format('drop table governance.requests_%s', to_char(now() at time zone 'UTC' + interval '1 month', 'YYYY_MM')); end $$",
  ],
  [
    "default_partition",
    "do $$ begin execute format('alter table governance.requests detach partition governance.requests_%s', to_char(now() at time zone 'UTC', 'YYYY_MM')); end $$; select public.authorize_usage('astray', 'user', 'm', 1)",
  ],
  [
    "deliveries",
    "insert into governance.notifications (channel, audience, subject, body, due_at, created_at) values ('email', 'operators', 'x', 'x', now() - interval '1 hour', now())",
  ],
  [
    "failed_deliveries",
    "with e as (insert into governance.alert_events (kind, severity, message) values ('usage_spike', 'info', 'x') returning alert_event_id) insert into governance.notifications (alert_event_id, channel, audience, subject, body, status, due_at, created_at) select alert_event_id, 'email', 'operators', 'x', 'x', 'failed', now(), now() from e",
  ],
  ["holds", "update governance.account_listings set holds_check_at = now() - interval '1 hour'"],
  ["settlements", "select public.settle_usage('held', 9000000000, 0)"],
  [
    "stripe_events",
    "insert into governance.webhook_events_processed (event_id, event_type, received_at, status) values ('evt_1', 'x', now(), 'quarantined')",
  ],
  [
    "rollups",
    "select governance.raise_alert(null, null, 'rollup_mismatch', 'critical', 'x', null, null, 'x', '{}', governance.now())",
  ],
  [
    "ledger_anchor",
    "alter table governance.token_transactions disable trigger all; update governance.token_transactions set created_at = now() - interval '9 days'; alter table governance.token_transactions enable trigger all; update governance.maintenance_state set value = value || jsonb_build_object('day', (now() - interval '5 days')::date) where key = 'anchored_ledger'",
  ],
  [
    "rules",
    "update governance.active_config set rule_set_id = (select min(rule_set_id) from governance.rule_sets)",
  ],
  ["configuration", "update governance.plans set retired_at = now()"],
  [
    "lists",
    "update governance.maintenance_state set value = value || jsonb_build_object('consumed', 0, 'mark_at', clock_timestamp() - interval '1 hour') where key = 'followed_events'",
  ],
  ["guard_queues", "select public.report_guard_queue('backend-2', 0, 3)"],
  ["guard_queues", "select public.report_guard_queue('backend-3', 12, 0, 600)"],
  ["clock", "select governance.set_test_clock('2030-01-01')"],
];

async function ready(version: 15 | 18): Promise<Project> {
  const project = await openProject(version);
  await project.rpc("authorize_usage", {
    p_request_id: "held",
    p_user_id: "user",
    p_model: "gpt-4o-mini",
    p_estimated_tokens: 10,
  });
  await project.rpc("authorize_usage", {
    p_request_id: "used",
    p_user_id: "user",
    p_model: "gpt-4o-mini",
    p_estimated_tokens: 10,
  });
  await project.rpc("settle_usage", { p_request_id: "used", p_input_tokens: 5, p_output_tokens: 5 });
  await project.rpc("run_maintenance");
  return project;
}

const failing = ({ checks }: Health): string[] => checks.filter(({ ok }) => !ok).map(({ check }) => check);

it.each(installedVersions())(
  "each planted trouble is found by its name, and none on a sound project, on PostgreSQL %i",
  async (version) => {
    const project = await ready(version);
    expect(failing(await project.rpc<Health>("console_health"))).toEqual([]);
    expect(new Set(troubles.map(([check]) => check)).size).toBeGreaterThanOrEqual(20);
    const client = await project.sql.connect();
    for (const [check, sql] of troubles) {
      await client.query("begin");
      await client.query(sql);
      const { rows } = await client.query<{ health: Health }>("select public.console_health() as health");
      await client.query("rollback");
      const found = rows[0]?.health;
      expect({ sql, found: found ? failing(found) : [] }).toEqual({
        sql,
        // Nothing else; but by a clock years ahead other things are late as well.
        found: check === "clock" ? expect.arrayContaining([check]) : [check],
      });
      expect(found?.is_well).toBe(false);
      expect(found?.checks.filter(({ ok }) => !ok).every(({ advice }) => advice !== null)).toBe(true);
    }
    client.release();
    expect(failing(await project.rpc<Health>("console_health"))).toEqual([]);
    await project.close();
  },
);

it("npm run doctor says it in lines and in JSON, mends what it can, and ends with 0, 1 or 2", async () => {
  const project = await ready(18);
  const served = await startLocalProject({ databaseUrl: project.ownerUrl, port: 0 });
  const doctor = (args: readonly string[], key = served.serviceRoleKey) =>
    promisify(execFile)(process.execPath, ["cli/doctor.ts", ...args], {
      env: { ...process.env, GOVERNANCE_SERVICE_ROLE_KEY: key, SUPABASE_SERVICE_ROLE_KEY: "" },
    }).then(
      ({ stdout }) => ({ code: 0, stdout, stderr: "" }),
      ({ code, stdout, stderr }: { code: number; stdout: string; stderr: string }) => ({
        code,
        stdout,
        stderr,
      }),
    );
  try {
    const sound = await doctor(["--url", served.url]);
    expect(sound).toMatchObject({ code: 0 });
    expect(sound.stdout.split("\n").filter((line) => line !== "" && !line.startsWith("well "))).toEqual([]);
    await project.sql.query("grant execute on function public.run_maintenance() to anon");
    const unwell = await doctor(["--url", served.url]);
    expect(unwell.code).toBe(1);
    expect(unwell.stdout).toMatch(
      /^NOT {3}doors: .*run_maintenance\(\) by anon\. Close them: npm run doctor/m,
    );
    const mended = await doctor(["--url", served.url, "--fix", "--json"]);
    expect(mended.code).toBe(0);
    const answer = JSON.parse(mended.stdout) as { readonly checks: readonly { readonly check: string }[] };
    expect(answer).toMatchObject({ well: true, fixed: [expect.stringContaining("Closed 1 rights")] });
    // A line for each trouble there is, by its name.
    expect(answer.checks.map(({ check }) => check)).toEqual(
      expect.arrayContaining(troubles.map(([check]) => check)),
    );
    expect(await doctor([])).toMatchObject({ code: 2, stderr: expect.stringContaining("--url is missing") });
    expect(await doctor(["--url", "nowhere"])).toMatchObject({ code: 2 });
    expect(await doctor(["--url", served.url], "")).toMatchObject({ code: 2 });
    const closed = await doctor(["--url", "http://127.0.0.1:9"]);
    expect(closed.code).toBe(1);
    expect(closed.stdout).toMatch(/^NOT {3}reached: /);
  } finally {
    await served.stop();
    await project.close();
  }
});

it("the desk shows what upkeep did, holds by age, and who verified the ledger with what was found", async () => {
  const project = await ready(18);
  interface Details {
    readonly runs: readonly { readonly counts: Record<string, unknown> }[];
    readonly guards: readonly object[];
    readonly holds: readonly {
      readonly from_seconds: number;
      readonly holds: number;
      readonly tokens: number;
    }[];
    readonly verified: { readonly operator: string; readonly problem_count: number } | null;
    readonly partitions: readonly unknown[];
    readonly slow_functions: readonly unknown[] | null;
    readonly slow_functions_reason: string | null;
  }
  const details = async (): Promise<Details> => await project.rpc<Details>("console_health_details");
  await project.rpc("report_guard_queue", { p_backend: "shop", p_waiting: 4, p_oldest_seconds: 30 });
  await project.rpc("report_guard_queue", { p_backend: "chat", p_waiting: 0 });
  await project.rpc("report_guard_queue", { p_backend: "shop", p_waiting: 2, p_oldest_seconds: 60 });
  // Events are followed once whatever was under way on the server is over.
  await expect
    .poll(async () => {
      await project.rpc("run_maintenance");
      return (await details()).runs.map(({ counts }) => counts);
    })
    .toContainEqual(expect.objectContaining({ events_followed: expect.any(Number) }));
  const before = await details();
  // What each told last; a little that waits is no trouble.
  expect(before.guards).toMatchObject([
    { backend: "shop", waiting: 2, parked: 0, oldest_at: expect.any(String) },
    { backend: "chat", waiting: 0, oldest_at: null },
  ]);
  expect(failing(await project.rpc<Health>("console_health"))).toEqual([]);
  for (const bad of [{ p_backend: "" }, { p_waiting: -1 }, { p_oldest_seconds: -1 }])
    expect(
      await project.refusal("report_guard_queue", { p_backend: "shop", p_waiting: 1, ...bad }),
    ).toMatchObject({ hint: "invalid_argument" });
  expect(before.holds[0]).toMatchObject({ from_seconds: 0, holds: 1, tokens: 10 });
  expect(before.verified).toBeNull();
  expect(before.partitions.length).toBeGreaterThan(6);
  // Where they are not measured, the desk says why.
  expect(before.slow_functions === null).toBe(before.slow_functions_reason !== null);

  const verify = async (id: string): Promise<{ problem_count: number }> =>
    await project.rpc("console_verify_ledger", { p_command_id: id, p_operator: "dana" });
  expect(await verify("first")).toMatchObject({ problem_count: 0, accounts_checked: 1 });
  await project.sql.query("update governance.accounts set purchased_tokens = purchased_tokens + 1");
  expect((await verify("second")).problem_count).toBeGreaterThan(0);
  // A repeat answers what its first one found.
  expect((await verify("first")).problem_count).toBe(0);
  expect((await details()).verified).toMatchObject({ operator: "dana", problem_count: expect.any(Number) });
  expect((await details()).verified?.problem_count).toBeGreaterThan(0);

  // Rounds do not pile up.
  await project.sql.query(
    "insert into governance.maintenance_runs (started_at, milliseconds, counts) select now(), 1, '{}' from generate_series(1, 1500)",
  );
  await project.rpc("run_maintenance");
  const { rows } = await project.sql.query<{ n: number }>(
    "select count(*)::int as n from governance.maintenance_runs",
  );
  expect(rows[0]?.n).toBe(1000);
});
