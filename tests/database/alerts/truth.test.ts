/** Alerts are raised once for each matter, and none is hidden by another; presets say what can be watched. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { alertKinds, alertMetrics } from "../../../shared/governance/alerts/kinds.ts";
import { type Project, installedVersions, openProject, use } from "../../support/project.ts";

const price = (model: string) => ({
  provider: "x",
  model,
  input_micros_per_million: 1_000_000,
  output_micros_per_million: 1_000_000,
  effective_from: "2024-01-01",
});

/** A token of model m costs a micro-unit. */
const preset = (extra: Record<string, unknown> = {}) => ({
  name: "truth",
  currency: "usd",
  default_plan: "p",
  plans: [{ plan_id: "p", name: "P", monthly_allowance: 100_000_000 }],
  prices: [price("gpt-4o-mini")],
  ...extra,
});

/** A row without one of its columns. */
function without(row: object, column: string): Record<string, unknown> {
  return Object.fromEntries(Object.entries(row).filter(([name]) => name !== column));
}

describe.each(installedVersions())("alerts, on PostgreSQL %i", (version) => {
  let project: Project;
  beforeAll(async () => {
    project = await openProject(version, { preset: "default" });
  });
  afterAll(() => project?.close());
  beforeEach(async () => {
    await project.sql.query("delete from governance.notifications");
    await project.sql.query("delete from governance.alert_events");
  });

  const apply = (extra?: Record<string, unknown>) => project.rpc("apply_preset", { p_preset: preset(extra) });
  const upkeep = async (): Promise<number> =>
    (await project.rpc<{ alerts_triggered: number }>("run_maintenance")).alerts_triggered;
  const raised = async (kind: string) =>
    (
      await project.sql.query<{ period: string; threshold: number; value: number; user: string | null }>(
        `select e.period_key as period, e.threshold::float8, e.value::float8, a.user_id as user
         from governance.alert_events e left join governance.accounts a using (account_id)
         where e.kind ~ ('^' || $1 || '(_[0-9]+)?$') order by e.alert_event_id`,
        [kind],
      )
    ).rows;

  it("raise one spike once, and a second one again", async () => {
    await apply({
      alerts: [
        {
          alert_name: "spike",
          metric: "spike",
          scope: "user",
          period: "hour",
          thresholds: [5],
          channels: ["slack"],
        },
      ],
    });
    await project.setClock("2027-01-10 10:50:00Z", true);
    await use(project, "sp", 60_000);
    const counts: number[] = [];
    for (const time of ["10:51", "10:59", "11:01", "11:40"]) {
      await project.setClock(`2027-01-10 ${time}:00Z`, true);
      counts.push(await upkeep());
    }
    expect(counts).toEqual([1, 0, 0, 0]);
    await use(project, "sp", 70_000);
    expect(await upkeep()).toBe(1);
    expect((await raised("usage_spike")).map(({ value }) => value)).toEqual([60_000, 70_000]);
  });

  it("warn again after an upgrade, of the new limit and of the new allowance", async () => {
    await apply({
      plans: [
        { plan_id: "p", name: "P", monthly_limit: 1_000 },
        { plan_id: "b", name: "B", monthly_limit: 100_000 },
        { plan_id: "s", name: "S", monthly_allowance: 1_000 },
        { plan_id: "t", name: "T", monthly_allowance: 100_000 },
      ],
    });
    await project.setClock("2027-02-10 10:00:00Z", true);
    await project.rpc("upsert_account", { p_user_id: "up", p_plan_id: "p" });
    await project.rpc("update_user_token_balance", {
      p_user_id: "up",
      p_amount: 1_000_000,
      p_transaction_type: "bonus",
    });
    await use(project, "up", 960);
    await project.rpc("upsert_account", { p_user_id: "up", p_plan_id: "b" });
    await use(project, "up", 95_000);
    expect((await raised("monthly_limit")).map(({ threshold }) => threshold)).toEqual([95, 95]);

    await project.rpc("upsert_account", { p_user_id: "al", p_plan_id: "s" });
    await use(project, "al", 960);
    await upkeep();
    await project.rpc("upsert_account", { p_user_id: "al", p_plan_id: "t" });
    await use(project, "al", 95_000);
    await upkeep();
    expect((await raised("allowance")).map(({ threshold }) => threshold)).toEqual([95, 95]);
    expect(await upkeep()).toBe(0);
  });

  it("warn nobody who moved to a smaller plan of tokens that the month has given already", async () => {
    await apply({
      plans: [
        { plan_id: "p", name: "P", monthly_allowance: 100_000 },
        { plan_id: "s", name: "S", monthly_allowance: 1_000 },
      ],
    });
    await project.setClock("2027-02-12 10:00:00Z", true);
    await project.rpc("upsert_account", { p_user_id: "down", p_plan_id: "p" });
    await use(project, "down", 50_000);
    await project.rpc("upsert_account", { p_user_id: "down", p_plan_id: "s" });
    await use(project, "down", 100);
    await upkeep();
    const warnings = async () => (await raised("allowance")).filter(({ user }) => user === "down");
    expect(await warnings()).toEqual([]);
    const percents = async () => [
      (await project.rpcAs<{ usage_percent: number }>("authenticated", "down", "my_token_balance"))
        .usage_percent,
      (
        await project.rpc<{ accounts: { usage_percent: number }[] }>("console_search_accounts", {
          p_query: "down",
        })
      ).accounts[0]?.usage_percent,
    ];
    expect(await percents()).toEqual([50, 50]);
    await use(project, "down", 31_000);
    await upkeep();
    expect(await warnings()).toMatchObject([{ threshold: 80, value: 81 }]);
    // The next month gives what the smaller plan does.
    await project.setClock("2027-03-01 10:00:00Z", true);
    await use(project, "down", 900);
    await upkeep();
    expect((await warnings()).map(({ period, threshold }) => [period, threshold])).toEqual([
      ["2027-02", 80],
      ["2027-03", 90],
    ]);
    expect(await percents()).toEqual([90, 90]);
  });

  it("lead to what is behind a budget, however late it was raised", async () => {
    const periods = ["day", "week", "month", "year"];
    await apply({
      alerts: periods.map((period) => ({
        alert_name: `late_${period}`,
        metric: "cost_micros",
        scope: "all",
        period,
        budget: 1_000,
        thresholds: [90],
      })),
    });
    await project.setClock("2028-12-28 09:00:00Z", true);
    await upkeep();
    await project.rpc("upsert_account", { p_user_id: "late", p_timezone: "America/Los_Angeles" });
    await use(project, "late", 5_000);
    // Upkeep was away for weeks, over the end of the week, the month and the year.
    await project.setClock("2029-01-20 12:00:00Z", true);
    await upkeep();
    const { rows } = await project.sql.query<{ id: string; key: string }>(
      "select alert_event_id as id, period_key as key from governance.alert_events where kind = 'budget' order by 2",
    );
    expect(rows.map(({ key }) => key)).toEqual(["2028", "2028-12", "2028-12-28", "2028-W52"]);
    for (const { id, key } of rows) {
      const { users, from, to } = await project.rpc<{
        users: { user_id: string }[];
        from: string;
        to: string;
      }>("console_alert_causes", { p_alert_event_id: id });
      expect([key, users.map(({ user_id: user }) => user)]).toEqual([key, ["late"]]);
      if (key === "2028-12-28")
        expect([from, to].map((at) => new Date(at).toISOString())).toEqual([
          "2028-12-27T10:00:00.000Z",
          "2028-12-29T12:00:00.000Z",
        ]);
    }
  });

  it("let no call with high usage hide a larger one", async () => {
    await apply({ settings: { high_usage_tokens: 5_000 } });
    await project.setClock("2027-03-10 10:00:00Z", true);
    await use(project, "big", 6_000);
    await use(project, "big", 9_000);
    // The largest of the day stands in the alert, until one is twice as large.
    expect((await raised("high_usage")).map(({ value }) => value)).toEqual([9_000]);
    await use(project, "big", 5_500);
    await use(project, "big", 40_000);
    await use(project, "big", 7_000);
    expect((await raised("high_usage")).map(({ value }) => value)).toEqual([9_000, 40_000]);
  });

  it("heed every threshold of a preset, beside the settings", async () => {
    await apply({
      plans: [{ plan_id: "p", name: "P", monthly_allowance: 100_000 }],
      alerts: [
        {
          alert_name: "low",
          metric: "balance",
          scope: "user",
          thresholds: [50_000, 20_000],
          channels: ["slack"],
        },
        {
          alert_name: "large",
          metric: "operation_tokens",
          scope: "user",
          thresholds: [300, 30_000],
          channels: ["slack"],
        },
      ],
    });
    await project.setClock("2027-04-10 10:00:00Z", true);
    await use(project, "heed", 400);
    await use(project, "heed", 49_700);
    await use(project, "heed", 31_000);
    await use(project, "heed", 18_000);
    expect((await raised("low_balance")).map(({ threshold }) => threshold)).toEqual([50_000, 20_000, 1_000]);
    expect((await raised("high_usage")).map(({ threshold }) => threshold)).toEqual([300, 30_000]);
    await upkeep();
    const { rows } = await project.sql.query(
      `select k.alert_name as name from governance.cost_alerts k where k.last_triggered_at is not null and k.retired_at is null order by 1`,
    );
    expect(rows.map((row) => row["name"])).toEqual(["large", "low"]);
  });

  it("name a model without a price once a month, to operators", async () => {
    await apply();
    await project.setClock("2027-05-10 10:00:00Z", true);
    for (const user of ["one", "two"]) await use(project, user, 100, { p_model: "nobody-priced-me" });
    expect(await raised("unknown_price")).toMatchObject([{ period: "2027-05", user: null }]);
    expect(await project.rpcAs("authenticated", "one", "my_token_alerts")).toEqual([]);
    await upkeep();
    expect(
      (await project.sql.query("select audience, body from governance.notifications")).rows,
    ).toMatchObject([{ audience: "operators", body: expect.stringContaining("nobody-priced-me") }]);
    await project.setClock("2027-06-01 00:00:00Z", true);
    await use(project, "one", 100, { p_model: "nobody-priced-me" });
    expect(await raised("unknown_price")).toHaveLength(2);
  });

  it("see the last evening of a month in the west and the first morning in the east", async () => {
    await apply({
      alerts: [
        {
          alert_name: "day",
          metric: "cost_micros",
          scope: "all",
          period: "day",
          budget: 1_000,
          thresholds: [90],
        },
        {
          alert_name: "month",
          metric: "cost_micros",
          scope: "all",
          period: "month",
          budget: 4_000,
          thresholds: [90],
        },
        {
          alert_name: "each",
          metric: "cost_micros",
          scope: "user",
          period: "day",
          budget: 1_000,
          thresholds: [90],
        },
      ],
    });
    await project.setClock("2027-07-31 20:00:00Z", true);
    await project.rpc("upsert_account", { p_user_id: "west", p_timezone: "America/Los_Angeles" });
    await project.rpc("upsert_account", { p_user_id: "east", p_timezone: "Asia/Tokyo" });
    await use(project, "east", 2_800);
    await project.setClock("2027-08-01 01:00:00Z", true);
    await use(project, "west", 4_900);
    // Upkeep was away for a day and a half.
    await project.setClock("2027-08-02 13:00:00Z", true);
    await upkeep();
    expect((await raised("budget")).map(({ period }) => period).toSorted()).toEqual([
      "2027-07",
      "2027-07-31",
      "2027-08-01",
    ]);
    expect(
      (await raised("user_budget"))
        .map(({ period, user }) => [user, period])
        .toSorted(([a], [b]) => String(a).localeCompare(String(b))),
    ).toEqual([
      ["east", "2027-08-01"],
      ["west", "2027-07-31"],
    ]);
    expect(await upkeep()).toBe(0);
  });

  it("raise a budget again when it was made larger", async () => {
    const budget = (amount: number) =>
      apply({
        alerts: [
          {
            alert_name: "cap",
            metric: "tokens",
            scope: "all",
            period: "week",
            budget: amount,
            thresholds: [100],
          },
        ],
      });
    await budget(1_000);
    await project.setClock("2027-09-08 12:00:00Z", true);
    await use(project, "w", 1_500);
    expect(await upkeep()).toBe(1);
    await budget(10_000);
    expect(await upkeep()).toBe(0);
    await use(project, "w", 4_000);
    await use(project, "w", 4_600);
    expect(await upkeep()).toBe(1);
    expect((await raised("budget")).map(({ period }) => period)).toEqual(["2027-W36", "2027-W36"]);
  });

  it("fall back to UTC where the server no longer knows a zone, with one alert for all", async () => {
    await apply();
    await project.setClock("2027-10-10 12:00:00Z", true);
    for (const user of ["gone-1", "gone-2", "here"])
      await project.rpc("upsert_account", { p_user_id: user, p_timezone: "Asia/Kolkata" });
    await project.sql.query(
      "update governance.accounts set timezone = 'Asia/Oldname' where user_id like 'gone-%'; delete from governance.maintenance_state where key = 'checked_zones'",
    );
    await project.setClock("2027-10-12 12:00:00Z", true);
    await use(project, "gone-1", 100);
    expect(await project.rpc("run_maintenance")).toMatchObject({ accounts_failed: 0 });
    expect(
      (
        await project.sql.query(
          "select timezone, local_day::text as day from governance.accounts where user_id like 'gone-%' or user_id = 'here' order by user_id",
        )
      ).rows,
    ).toEqual([
      { timezone: "UTC", day: "2027-10-12" },
      { timezone: "UTC", day: "2027-10-12" },
      { timezone: "Asia/Kolkata", day: "2027-10-10" },
    ]);
    expect(await raised("unknown_zone")).toMatchObject([{ period: "2027-10", user: null }]);
    expect(
      await project.refusal("upsert_account", { p_user_id: "here", p_timezone: "Asia/Oldname" }),
    ).toMatchObject({
      hint: "invalid_argument",
    });
  });

  const refusals: readonly [what: string, alert: Record<string, unknown>, path: string, allowed: string][] = [
    ["a metric", { metric: "cost" }, "metric", `${Object.keys(alertMetrics).join(", ")} are`],
    ["a period", { metric: "cost_micros", period: "quarter" }, "period", "month, day, week, year are"],
    ["an hour of a budget", { metric: "tokens", period: "hour" }, "period", "month, day, week, year are"],
    ["a day of a spike", { metric: "spike", period: "day" }, "period", "hour is"],
    ["a plan", { metric: "tokens", scope: "plan:nosuch" }, "scope", 'there is no plan "nosuch": p'],
    [
      "a scope",
      { metric: "tokens", scope: "everyone" },
      "scope",
      "all, user, plan:<id>, scope:<id>, model:<id> are",
    ],
    ["a scope without its id", { metric: "tokens", scope: "model:" }, "scope", "model:<id>"],
    ["everybody's balance", { metric: "balance", scope: "all" }, "scope", "user is"],
    ["a budget of a spike", { metric: "spike", budget: 5 }, "budget", "times the usual hour"],
    [
      "a budget in another currency",
      { metric: "cost_micros", budget: 5, currency: "eur" },
      "currency",
      "in the preset's currency, usd",
    ],
    ["a threshold of nothing", { metric: "tokens", thresholds: [0] }, "thresholds", "above 0"],
    ["a channel", { metric: "tokens", channels: ["E-mail!"] }, "channels", "email and slack"],
  ];
  it.each(refusals)(
    "refuse %s that nobody knows, with its path and what is allowed",
    async (_, alert, path, allowed) => {
      const refusal = await project.refusal("apply_preset", {
        p_preset: preset({ alerts: [{ alert_name: "odd", thresholds: [90], ...alert }] }),
      });
      expect(refusal).toMatchObject({ code: "PT422", hint: "invalid_preset" });
      expect(refusal.message).toMatch(`alerts[0].${path}: `);
      expect(refusal.message).toContain(allowed);
    },
  );

  it("are of kinds and metrics that SQL and the core list alike", async () => {
    const { rows: kinds } = await project.sql.query("select * from governance.alert_kinds()");
    expect(Object.fromEntries(kinds.map(({ kind, ...rest }) => [kind, rest]))).toEqual(alertKinds);
    const { rows: metrics } = await project.sql.query(
      "select * from governance.alert_metrics() order by place",
    );
    expect(metrics.map(({ metric, ...rest }) => [metric, without(rest, "place")])).toEqual(
      Object.entries(alertMetrics).map(([metric, known]) => [metric, without(known, "words")]),
    );
    await expect(
      project.sql.query(
        "select governance.raise_alert(null, null, 'unheard_of', 'info', 'm', null, null, '', '{}', governance.now())",
      ),
    ).rejects.toThrow("alert_events_kind");
  });

  it("measure each metric: over the days of a period, by settlements, or by the hour", async () => {
    const { rows } = await project.sql.query<{ metric: string; measured: string[] }>(
      `select m.metric, array_remove(array[
        case when governance.measure(m.metric, 2, 3) is not null then 'days' end,
        case when governance.passed_threshold(m.metric, '{5}', 9, 1, 9, 9) is not null then 'settlements' end,
        case when m.periods = '{hour}' then 'hours' end], null) as measured
      from governance.alert_metrics() m`,
    );
    expect(rows.filter(({ measured }) => measured.length !== 1)).toEqual([]);
  });

  it("pass the lowest threshold of a balance or a debt, and the highest of a call", async () => {
    const passed = (metric: string, before: number, after: number, tokens: number, debt: number) =>
      project.one("select governance.passed_threshold($1, '{10,100,1000}', $2, $3, $4, $5) as threshold", [
        metric,
        before,
        after,
        tokens,
        debt,
      ]);
    expect(await passed("balance", 500, 5, 0, 0)).toEqual({ threshold: "10" });
    expect(await passed("balance", 500, 100, 0, 0)).toEqual({ threshold: null });
    expect(await passed("operation_tokens", 0, 0, 101, 0)).toEqual({ threshold: "100" });
    expect(await passed("operation_tokens", 0, 0, 10, 0)).toEqual({ threshold: null });
    expect(await passed("debt", 0, 0, 0, 100)).toEqual({ threshold: "10" });
    expect(await passed("tokens", 500, 5, 5000, 5000)).toEqual({ threshold: null });
  });

  it("speak to users in words of theirs, with separators and money", async () => {
    const { rows } = await project.sql.query<{ sentence: string }>(
      `select governance.alert_user_sentence(jsonb_populate_record(null::governance.alert_events, e), 'en') as sentence
       from jsonb_array_elements('[
         {"kind": "low_balance", "value": 12345, "details": {}},
         {"kind": "negative_balance", "value": -1500, "details": {}},
         {"kind": "daily_limit_80", "threshold": 80, "value": 81, "details": {}},
         {"kind": "usage_spike", "value": 60000, "details": {"usual_tokens": 1200}},
         {"kind": "user_budget", "value": 1234500, "period_key": "2027-07", "details": {"metric": "cost_micros", "currency": "usd"}},
         {"kind": "budget", "value": 3, "message": "As raised", "details": {}}]') e`,
    );
    expect(rows.map(({ sentence }) => sentence)).toEqual([
      "You have 12,345 tokens left.",
      "Your last request used 1,500 tokens more than you had. The next tokens you get pay for them first.",
      "You have used 80 % of today's tokens.",
      "You used 60,000 tokens within an hour; 1,200 is usual for you.",
      "You have used 1.23 USD (July 2027).",
      "As raised",
    ]);
  });
});
