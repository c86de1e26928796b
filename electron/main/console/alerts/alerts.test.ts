/** The alerts' desk against a real local project that goes away and comes back. */
import { randomUUID } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { type LocalProject, startLocalProject } from "../../../../local-project/index.ts";
import { readMigrations } from "../../../../local-project/migrations.ts";
import type {
  Notice,
  OperationInput,
  OperationName,
  OperationOutput,
  Reply,
} from "../../../../shared/contract/index.ts";
import type { Console } from "../console.ts";
import { createConsole } from "../consoles.ts";

const folder = mkdtempSync(join(tmpdir(), "console-alerts-"));
let project: LocalProject;
let console_: Console;

async function value<N extends OperationName>(
  name: N,
  input: OperationInput<N>,
): Promise<OperationOutput<N>> {
  const result = (await console_.dispatcher.call(name, input)) as Reply<OperationOutput<N>>;
  if (!result.ok) throw new Error(`${name}: ${result.error.code}: ${result.error.message}`);
  return result.value;
}

const list = (show: "open" | "all" | "undelivered" = "open", limit = 50, beforeId: number | null = null) =>
  value("alerts.list", { show, before_id: beforeId, limit });
const acknowledge = (id: number, commandId: string = randomUUID()) =>
  value("alerts.acknowledge", { command_id: commandId, alert_event_id: id });
const untilStatus = (status: string) =>
  vi.waitFor(async () => expect((await value("connection.state", {})).status).toBe(status), {
    timeout: 60_000,
    interval: 50,
  });

const startProject = (port = 0) =>
  startLocalProject({ dataDir: join(folder, "project"), port, upkeepIntervalMs: null });

beforeAll(async () => {
  project = await startProject();
  const opened = createConsole({
    dataDir: join(folder, "console"),
    host: "browser",
    version: "0.0.0",
    migrations: readMigrations().map(({ version, name }) => `${version}_${name}`),
    startLocalProject: null,
    log: () => {},
    openKeychain: async () => ({
      kind: "none",
      note: null,
      get: async () => null,
      set: async () => false,
      remove: async () => {},
    }),
  });
  if (!opened.ok) throw new Error(opened.error.message);
  console_ = opened.value;
  console_.start();
  await value("settings.set", { operator: "Ada" });
  await value("connection.add", {
    name: "Test",
    url: project.url,
    key: project.serviceRoleKey,
    is_production: false,
  });
  await untilStatus("live");
  // Three calls that each use more than the setting high_usage_tokens, and one whose message cannot be delivered.
  await project.run(`select public.upsert_account('ann', 'business', 'ann@example.com', 'Ann');
    select public.authorize_usage('big-' || i, case i when 3 then 'bob' else 'ann' end, 'gpt-4o', 1000) from generate_series(1, 3) i`);
  await project.run("select public.upsert_account('bob', 'business')");
  for (const call of [1, 2, 3]) await project.run(`select public.settle_usage('big-${call}', 40000, 20000)`);
}, 120_000);
afterAll(async () => {
  await console_?.close();
  await project?.stop();
  rmSync(folder, { recursive: true, force: true });
}, 60_000);

test("open alerts are listed newest first, page by page, with the call that raised them", async () => {
  const { alerts, as_of: asOf } = await list();
  expect(asOf).toBeNull();
  const large = alerts.filter(({ kind }) => kind === "high_usage");
  expect(large.map(({ user_id: user, value: used, threshold }) => [user, used, threshold])).toEqual([
    ["bob", 60_000, 50_000],
    ["ann", 60_000, 50_000],
  ]);
  const [row] = await project.run("select decision_id from governance.requests where request_id = 'big-3'");
  expect(large[0]?.decision_id).toBe(Number(row?.[0]));
  // Users' own limits are one line each kind, and none of them is counted beside the desk.
  const { groups, open, users_own: own } = await value("alerts.groups", { filter: {} });
  expect(own).toBe(alerts.filter(({ needs_operator: needs }) => !needs).length);
  expect(groups.find(({ kind }) => kind === "high_usage")).toMatchObject({ count: 2, users: 2 });
  const rail = await project.run("select public.console_rail_counts() ->> 'open_alerts'");
  expect(open).toBe(Number(rail[0]?.[0]));

  const seen: number[] = [];
  let next: number | null = null;
  do {
    const page: OperationOutput<"alerts.list"> = await list("open", 1, next);
    seen.push(...page.alerts.map(({ alert_event_id: id }) => id));
    next = page.next_before_id;
  } while (next !== null);
  expect(seen).toEqual(alerts.map(({ alert_event_id: id }) => id));
});

test("an acknowledged alert is open no more, stays in the record with a name, and the act is audited once", async () => {
  const [first] = (await list()).alerts;
  const id = first?.alert_event_id ?? 0;
  const command = randomUUID();
  expect((await acknowledge(id, command)).intent.status).toBe("acknowledged");
  expect((await acknowledge(id, command)).intent.status).toBe("acknowledged");
  expect((await list()).alerts.map((alert) => alert.alert_event_id)).not.toContain(id);
  expect((await list("all")).alerts.find((alert) => alert.alert_event_id === id)).toMatchObject({
    acknowledged_by: "Ada",
  });
  const audit = await project.run(
    `select count(*) from governance.audit_log where action = 'acknowledge_alert' and operator = 'Ada'`,
  );
  expect(audit[0]?.[0]).toBe("1");
  const unknown = await console_.dispatcher.call("alerts.acknowledge", {
    command_id: randomUUID(),
    alert_event_id: 999_999,
  });
  expect(unknown).toMatchObject({ ok: false, error: { code: "not_found" } });
});

test("the alerts that are set say how far they have come", async () => {
  const { alerts } = await value("alerts.set", {});
  expect(alerts.map(({ alert_name: name }) => name)).toEqual([
    "daily_budget",
    "monthly_budget",
    "usage_spike",
  ]);
  expect(alerts.find(({ alert_name: name }) => name === "monthly_budget")).toMatchObject({
    metric: "cost_micros",
    thresholds: [50, 75, 90],
    budget: 500_000_000,
    value: expect.any(Number),
    currency: "usd",
    last_triggered_at: null,
  });
});

test("a message that was given up is listed with its error, and sent again when a person asks", async () => {
  await project.run(`insert into governance.notifications (alert_event_id, channel, audience, recipient, subject, body, status, attempts, due_at, created_at, last_error)
    select min(alert_event_id), 'email', 'operators', 'ops@example.com', 's', 'b', 'failed', 3, now(), now(), '550 no such user' from governance.alert_events where acknowledged_at is null`);
  const page = await list("undelivered");
  expect(page.delivery).toMatchObject({ failed: 1 });
  expect(page.alerts).toMatchObject([
    { notifications: [{ status: "failed", recipient: "ops@example.com", last_error: "550 no such user" }] },
  ]);
  const id = page.alerts[0]?.notifications[0]?.notification_id ?? 0;
  await value("alerts.send_again", { command_id: randomUUID(), notification_id: id });
  expect(await list("undelivered")).toMatchObject({ alerts: [], delivery: { failed: 0, queued: 1 } });
  expect(page.delivery.upkeep_at).toBeNull();
  await project.run("select public.run_maintenance()");
  expect(Date.parse((await list()).delivery.upkeep_at ?? "")).toBeGreaterThan(Date.now() - 60_000);
  expect(
    await console_.dispatcher.call("alerts.send_again", { command_id: randomUUID(), notification_id: id }),
  ).toMatchObject({
    ok: false,
    error: { code: "already_resolved" },
  });
});

test("an alert reaches screens and notices where Realtime confirms and delivers nothing", async () => {
  await project.run("drop trigger local_realtime_notify_change on governance.signals");
  const changes: unknown[] = [];
  const notices: Notice[] = [];
  const follows = [
    console_.dispatcher.follow("alerts", {}, (item) => changes.push(item)),
    console_.dispatcher.follow("notices", {}, (notice) => notices.push(notice as Notice)),
  ];
  const [first, second] = (await list()).alerts;
  // The console notices that Realtime does not deliver.
  await acknowledge(first?.alert_event_id ?? 0);
  await vi.waitFor(() => expect(changes.length).toBeGreaterThan(1), { timeout: 10_000 });
  // Shown in words of its own, though another is acknowledged as it comes.
  await project.run(`select public.authorize_usage('stuck', 'cleo', 'gpt-4o', 10)`);
  await project.run(`select public.settle_usage('stuck', 900000000, 0)`);
  await acknowledge(second?.alert_event_id ?? 0);
  await vi.waitFor(
    () =>
      expect(notices).toContainEqual(
        expect.objectContaining({ title: "Settlement waits for a decision", about: "cleo" }),
      ),
    { timeout: 10_000 },
  );
  for (const stop of follows) if (stop.ok) stop.value();
});

test("without a connection the list is as it was last seen, and an acknowledgement waits and is sent later", async () => {
  const before = (await list()).alerts;
  const id = before[0]?.alert_event_id ?? 0;
  const port = Number(new URL(project.url).port);
  await project.stop();
  await untilStatus("offline");
  const kept = await list();
  expect(kept.alerts).toEqual(before);
  expect(kept.as_of).not.toBeNull();
  expect((await acknowledge(id)).intent).toMatchObject({
    status: "pending",
    kind: "acknowledge_alert",
    subject: String(id),
  });

  project = await startProject(port);
  await untilStatus("live");
  await expect
    .poll(
      async () => (await list("all")).alerts.find((alert) => alert.alert_event_id === id)?.acknowledged_by,
      { timeout: 60_000 },
    )
    .toBe("Ada");
}, 120_000);
