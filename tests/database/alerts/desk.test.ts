/** The alerts desk: what waits for an operator stands out from users' own limits, however many those are. */
import { randomUUID } from "node:crypto";
import { beforeAll, expect, it } from "vitest";
import { openProject, type Project } from "../../support/project.ts";
import { sized } from "../../support/size.ts";

interface Groups {
  readonly groups: readonly {
    readonly kind: string;
    readonly count: number;
    readonly users: number;
    readonly needs_operator: boolean;
    readonly severity: string;
    readonly alert_event_ids: readonly number[];
    readonly who: readonly { readonly user_id: string }[];
    readonly owners: readonly string[];
    readonly snoozed_until: string | null;
  }[];
  readonly open: number;
  readonly users_own: number;
}

const users = sized(200, 200);
let project: Project;
const groups = async (filter: Record<string, unknown> = {}): Promise<Groups> =>
  await project.rpc<Groups>("console_alert_groups", { p_filter: filter });
const decide = async (
  ids: readonly number[],
  action: string,
  more: Record<string, unknown> = {},
): Promise<{ changed: number }> =>
  await project.rpc("console_decide_alerts", {
    p_command_id: randomUUID(),
    p_alert_event_ids: `{${ids.join()}}`,
    p_action: action,
    p_operator: "dana",
    ...more,
  });

beforeAll(async () => {
  project = await openProject(18);
  await project.sql.query(
    `select public.upsert_account('user-' || i, null, null, 'User ' || i) from generate_series(1, $1) i`,
    [users],
  );
  await project.sql.query(
    "select governance.raise_alert(null, null, 'upkeep_failed', 'critical', 'Upkeep failed at purge: x', null, null, 'x', '{}', governance.now())",
  );
  await project.sql.query(
    `select governance.raise_alert(null, a.account_id, 'daily_limit_95', 'critical', '95% of the daily limit is used', 95, 96,
       'x', '{}', governance.now()) from governance.accounts a where a.user_id like 'user-%'`,
  );
});

it("users at their limits are one line with how many and who, below what waits for an operator", async () => {
  const { groups: lines, open, users_own: own } = await groups();
  expect(lines.map(({ kind, count, users: who }) => [kind, count, who])).toEqual([
    ["upkeep_failed", 1, 0],
    ["daily_limit", users, users],
  ]);
  expect([open, own]).toEqual([1, users]);
  expect(lines[1]?.who).toHaveLength(10);
  expect(lines[1]?.alert_event_ids).toHaveLength(users);
  // The count beside the desk is of what somebody must do something about.
  expect(await project.rpc("console_rail_counts")).toMatchObject({ open_alerts: 1 });
  expect((await groups({ needs_operator: false, severity: "critical" })).groups).toHaveLength(1);
  expect((await groups({ kind: "budget" })).groups).toEqual([]);
});

it("a severity finds what needs an operator; users' own limits are found by asking for them", async () => {
  const found = async (filter: Record<string, unknown>): Promise<string[][]> => {
    const { alerts } = await project.rpc<{ alerts: { kind: string }[] }>("console_alerts", {
      p_open_only: true,
      p_filter: filter,
    });
    const grouped = (await groups(filter)).groups.map(({ kind }) => kind);
    return [grouped, [...new Set(alerts.map(({ kind }) => kind.replace(/_\d+$/, "")))]];
  };
  expect(await found({ severity: "critical" })).toEqual([["upkeep_failed"], ["upkeep_failed"]]);
  expect(await found({ severity: "warning" })).toEqual([[], []]);
  for (const asked of [{ needs_operator: false }, { kind: "daily_limit" }])
    expect(await found({ severity: "critical", ...asked })).toEqual([["daily_limit"], ["daily_limit"]]);
  // How many there are is said of all, whatever is filtered.
  expect(await groups({ severity: "warning" })).toMatchObject({ open: 1, users_own: users });
});

it("what waits for an operator stays until somebody has seen it; users' own go after a day", async () => {
  await project.sql.query("update governance.alert_events set created_at = created_at - interval '2 days'");
  const { groups: lines } = await groups();
  expect(lines.map(({ kind }) => kind)).toEqual(["upkeep_failed"]);
  await project.rpc("run_maintenance");
  expect((await groups()).groups.map(({ kind }) => kind)).toContain("upkeep_failed");
  await project.sql.query("update governance.alert_events set created_at = governance.now()");
});

it("alerts are taken, snoozed, resolved with a reason and acknowledged, many at once and each in the audit", async () => {
  const ids = (await groups({ needs_operator: true })).groups[0]?.alert_event_ids ?? [];
  await decide(ids, "take");
  expect((await groups({ needs_operator: true })).groups[0]?.owners).toEqual(["dana"]);
  await decide(ids, "snooze", { p_until: new Date(Date.now() + 3_600_000).toISOString() });
  expect(await project.rpc("console_rail_counts")).toMatchObject({ open_alerts: 0 });
  expect((await groups({ needs_operator: true })).groups[0]?.snoozed_until).not.toBeNull();
  // Its time comes by itself.
  await project.sql.query(
    "update governance.alert_events set snoozed_until = governance.now() - interval '1 second'",
  );
  expect(await project.rpc("console_rail_counts")).toMatchObject({ open_alerts: 1 });
  await decide(ids, "resolve", { p_reason: "  the disk was full  " });
  expect((await groups({ needs_operator: true })).groups).toEqual([]);

  const own = (await groups()).groups[0]?.alert_event_ids ?? [];
  expect(await decide(own, "acknowledge")).toEqual({ changed: users });
  expect((await groups()).groups).toEqual([]);
  // Closed ones stay as they are.
  expect(await decide(own, "snooze", { p_until: new Date(Date.now() + 60_000).toISOString() })).toEqual({
    changed: 0,
  });
  const { alerts } = await project.rpc<{ alerts: { resolution: string | null; acknowledged_by: string }[] }>(
    "console_alerts",
    { p_filter: { needs_operator: true } },
  );
  expect(alerts[0]).toMatchObject({ resolution: "the disk was full", acknowledged_by: "dana" });
  const { rows } = await project.sql.query<{ action: string }>(
    "select action from governance.audit_log where action like '%_alerts' order by audit_id",
  );
  expect(rows.map(({ action }) => action)).toEqual([
    "take_alerts",
    "snooze_alerts",
    "resolve_alerts",
    "acknowledge_alerts",
  ]);
});

it.each<[string, Record<string, unknown>]>([
  ["resolving without a reason", { p_action: "resolve" }],
  ["snoozing into the past", { p_action: "snooze", p_until: "2020-01-01T00:00:00Z" }],
  ["snoozing for ever", { p_action: "snooze", p_until: "infinity" }],
  ["an act that nobody knows", { p_action: "burn" }],
  ["no alerts", { p_action: "take", p_alert_event_ids: "{}" }],
])("%s is refused", async (_, parameters) => {
  expect(
    await project.refusal("console_decide_alerts", {
      p_command_id: randomUUID(),
      p_alert_event_ids: "{1}",
      p_operator: "dana",
      ...parameters,
    }),
  ).toMatchObject({ code: "PT400", hint: "invalid_argument" });
});

it("a burst of calls that rules stop raises one alert an hour, with the reason and how many users", async () => {
  const raised = async (): Promise<unknown[]> =>
    (
      await project.sql.query(
        "select value::int, details ->> 'reason' as reason from governance.alert_events where kind = 'abuse_burst'",
      )
    ).rows;
  const blocked = async (reason: string, calls: number): Promise<void> => {
    await project.sql.query(
      `insert into governance.call_totals values ('minute', date_trunc('minute', governance.now()), 'decided', 'block', $1, 'm', 'm', $2, 0, 0)`,
      [reason, calls],
    );
    await project.sql.query("select governance.evaluate_alerts(governance.now())");
  };
  // Users without tokens are no abuse.
  await blocked("daily_limit", 5_000);
  expect(await raised()).toEqual([]);
  await blocked("spam_identical", 150);
  await blocked("bot_behavior", 30);
  expect(await raised()).toEqual([{ value: 150, reason: "spam_identical" }]);
});
