import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { z } from "zod";
import { accountUsage } from "../../../shared/contract/users.ts";
import { installedVersions, openProject, type Project, use } from "../../support/project.ts";

type Usage = z.infer<typeof accountUsage>;

describe.each(installedVersions())("usage, on PostgreSQL %i", (version) => {
  let desk: Project;
  beforeAll(async () => {
    desk = await openProject(version);
    // Three days of a user in New York, across the night in which clocks go forward.
    await desk.setClock("2026-03-07 20:00:00Z", true);
    await desk.rpc("upsert_account", {
      p_user_id: "ny",
      p_plan_id: "business",
      p_timezone: "America/New_York",
    });
    await use(desk, "ny", 300, { p_task_type: "chat", p_conversation_id: "c1", p_message: "one" });
    await desk.setClock("2026-03-08 05:30:00Z", true); // 00:30 on the 8th, there
    await use(desk, "ny", 600, {
      p_task_type: "chat",
      p_conversation_id: "c1",
      p_message: "two",
      p_scope_id: "brand-a",
    });
    await desk.setClock("2026-03-09 03:59:00Z", true); // 23:59 on the 8th, in summer time
    await use(desk, "ny", 900, { p_conversation_id: "c2", p_message: "three", p_model: "gpt-4o" });
    await desk.setClock("2026-03-09 04:00:00Z", true); // midnight
    await use(desk, "ny", 1200, { p_task_type: "summary", p_scope_id: "brand-b" });
    await desk.rpc("authorize_usage", {
      p_request_id: "open",
      p_user_id: "ny",
      p_model: "gpt-4o",
      p_estimated_tokens: 50,
    });
  });
  afterAll(() => desk?.close());

  const usage = (start: string, end: string): Promise<Usage> =>
    desk.rpc("calculate_user_token_usage", { p_user_id: "ny", p_start: start, p_end: end });

  it("adds up by local day, model, task type and scope", async () => {
    const all = await usage("2026-03-01", "2026-04-01");
    expect(accountUsage.safeParse(all).error).toBeUndefined();
    expect(all).toMatchObject({
      total_tokens: 3_000,
      prompt_tokens: 2_000,
      completion_tokens: 1_000,
      message_count: 3,
      conversation_count: 2,
      call_count: 4,
    });
    expect(all.by_day.map(({ day, total_tokens }) => [day, total_tokens])).toEqual([
      ["2026-03-07", 300],
      ["2026-03-08", 1_500],
      ["2026-03-09", 1_200],
    ]);
    expect(all.by_model.map(({ model, total_tokens }) => [model, total_tokens])).toEqual([
      ["gpt-4o-mini", 2_100],
      ["gpt-4o", 900],
    ]);
    expect(all.by_task_type.map(({ task_type, total_tokens }) => [task_type, total_tokens])).toEqual([
      ["summary", 1_200],
      ["chat", 900],
      [null, 900],
    ]);
    expect(all["by_scope"]).toMatchObject([
      { scope_id: "brand-b", total_tokens: 1_200 },
      { scope_id: null, total_tokens: 1_200 },
      { scope_id: "brand-a", total_tokens: 600 },
    ]);
    // 900 of gpt-4o: 600 in, 300 out; 2,100 of gpt-4o-mini: 1,400 in, 700 out. Each call rounds for itself.
    expect(all.cost_micros).toBe(1_500 + 3_000 + 90 + 180 + 360);
  });

  it("takes a period to the very instant", async () => {
    expect((await usage("2026-03-08 05:30:00Z", "2026-03-09 03:59:00Z")).total_tokens).toBe(600);
    expect((await usage("2026-03-08 05:30:00.000001Z", "2026-03-09 04:00:00Z")).total_tokens).toBe(900);
    expect((await usage("2026-03-08 05:00:00Z", "2026-03-09 04:00:00Z")).by_day).toMatchObject([
      { day: "2026-03-08", total_tokens: 1_500 },
    ]);
    expect((await usage("2026-03-07 19:00:00Z", "2026-03-09 04:00:00.000001Z")).total_tokens).toBe(3_000);
    expect(await usage("2026-03-09 05:00:00Z", "2026-03-10")).toMatchObject({
      total_tokens: 0,
      by_day: [],
      last_activity: null,
    });
  });

  it("gives days, weeks and months without gaps", async () => {
    const rows = (period: string, start: string, end: string) =>
      desk.rpc<{ total_tokens: string; conversation_count: string }[]>("user_token_usage", {
        p_user_id: "ny",
        p_period: period,
        p_start: start,
        p_end: end,
      });
    expect(
      (await rows("day", "2026-03-06", "2026-03-10")).map((row) => [
        Number(row.total_tokens),
        Number(row.conversation_count),
      ]),
    ).toEqual([
      [0, 0],
      [300, 1],
      [1_500, 2],
      [1_200, 0],
      [0, 0],
    ]);
    expect((await rows("week", "2026-03-04", "2026-03-09")).map((row) => Number(row.total_tokens))).toEqual([
      1_800, 1_200,
    ]);
    expect((await rows("month", "2026-02-10", "2026-03-10")).map((row) => Number(row.total_tokens))).toEqual([
      0, 3_000,
    ]);
  });

  it("shows users their day, with what is held", async () => {
    expect(await desk.rpc("get_or_create_token_record", { p_user_id: "ny" })).toMatchObject({
      tokens_used: 1_250,
      tokens_limit: 1_000_000,
      tokens_remaining: 998_750,
      date: "2026-03-09",
      resets_at: "2026-03-10T04:00:00+00:00",
    });
    expect(await desk.rpc("get_or_create_token_record", { p_user_id: "newcomer" })).toMatchObject({
      tokens_used: 0,
      tokens_limit: null,
      tokens_remaining: null,
      plan_id: "starter",
      available: 50_000,
    });
  });

  it("answers signed-in users about themselves, and nobody else", async () => {
    expect(await desk.rpcAs("authenticated", "ny", "my_token_balance")).toMatchObject({
      tokens: 4_996_950,
      plan: "business",
      balance: { reserved: 50 },
      warning: null,
    });
    expect(await desk.rpcAs("authenticated", "ny", "my_token_usage", { p_days: 2 })).toMatchObject({
      totalTokens: 2_700,
      avgPerDay: 1_350,
      byTaskType: { summary: 1_200, chat: 600, other: 900 },
      byDate: [
        { date: "2026-03-08", tokens: 1_500 },
        { date: "2026-03-09", tokens: 1_200 },
      ],
    });
    expect(await desk.rpcAs("authenticated", "ny", "my_token_alerts")).toEqual([]);
    expect(await desk.rpcAs("authenticated", "first-timer", "my_token_balance")).toMatchObject({
      tokens: 50_000,
      plan: "starter",
      packs: [{ pack_id: "tokens-500k" }, {}, {}, {}],
    });
    for (const name of ["my_token_balance", "my_token_usage", "my_token_alerts"]) {
      expect(await desk.refusal(name, {}, "authenticated")).toMatchObject({
        code: "PT401",
        hint: "not_signed_in",
      });
      expect((await desk.refusal(name, {}, "anon")).code).toBe("42501");
      expect((await desk.refusal(name, {}, "service_role")).code).toBe("PT401");
    }
  });

  it("warns where tokens run low", async () => {
    await use(desk, "low", 49_500);
    expect(await desk.rpcAs("authenticated", "low", "my_token_balance")).toMatchObject({
      tokens: 500,
      usage_percent: 99,
      warning: { type: "low_balance" },
    });
    expect(await desk.rpcAs("authenticated", "low", "my_token_alerts")).toMatchObject([
      { type: "low_balance", severity: "warning", details: { balance: 500, threshold: 1_000 } },
    ]);
    await use(desk, "eighty", 42_000);
    expect(await desk.rpcAs("authenticated", "eighty", "my_token_balance")).toMatchObject({
      warning: { type: "usage", percent: 80 },
    });
  });

  it("shows users nothing that is for operators", async () => {
    await desk.sql.query(`insert into governance.alert_events (account_id, kind, severity, message, created_at)
      select a.account_id, k, 'critical', 'Upkeep failed: duplicate key (user_id)=(somebody else)', governance.now()
      from governance.accounts a cross join unnest('{maintenance_failed,rollup_mismatch,settlement_quarantined,stripe_dispute}'::text[]) k where a.user_id = 'low'`);
    expect(
      (await desk.rpcAs<{ type: string }[]>("authenticated", "low", "my_token_alerts")).map(
        ({ type }) => type,
      ),
    ).toEqual(["low_balance"]);
    await desk.sql.query("delete from governance.alert_events where message like 'Upkeep failed%'");
  });

  it("totals everybody the same before and after days are aggregated", async () => {
    await desk.setClock("2026-03-12 13:00:00Z", true);
    await desk.rpc("release_usage", { p_request_id: "open" });
    const before = await desk.rpc<{ total_tokens: number; by_day: { day: string; total_tokens: number }[] }>(
      "console_usage_totals",
      { p_days: 7 },
    );
    expect(before.total_tokens).toBe(3_000 + 49_500 + 42_000);
    expect(before.by_day.map(({ day }) => day)).toEqual(
      ["06", "07", "08", "09", "10", "11", "12"].map((day) => `2026-03-${day}`),
    );
    expect(await desk.rpc("run_maintenance")).toMatchObject({ days_aggregated: 5 });
    const after = await desk.rpc<typeof before>("console_usage_totals", { p_days: 7 });
    const plain = ({ by_day, ...rest }: typeof before) => ({
      ...rest,
      by_day: by_day.map(({ day, total_tokens }) => ({ day, total_tokens })),
    });
    expect(plain(after)).toEqual(plain(before));
    expect(after.by_day[2]).toMatchObject({ active_users: 1 });
    expect(await desk.rpc("run_maintenance")).toMatchObject({ days_aggregated: 0 });
    expect(await desk.rpc("console_token_stats")).toMatchObject({
      totalUsersWithTokens: 5,
      lowBalanceUsers: 1,
    });
  });
});

describe("a time zone whose name the server no longer knows", () => {
  it("stops no call and no import, and the month's allowance lasts until the month of UTC ends", async () => {
    const project = await openProject(18);
    try {
      await project.setClock("2027-11-30T10:00:00Z", true);
      await project.call("upsert_account", "gone", "starter", null, null, "Asia/Tokyo");
      const before = await project.call("get_user_token_balance", "gone");
      await project.sql.query("update governance.accounts set timezone = 'Asia/Gone'");
      await use(project, "gone", 300);
      await project.sql.query(
        `create table public.old_chat (id int primary key, user_id text, created_at timestamptz, metadata jsonb);
         grant select on public.old_chat to project_owner;
         insert into public.old_chat values (1, 'gone', '2027-11-28T23:00:00Z',
           '{"model": "gpt-4o-mini", "usage": {"prompt_tokens": 7, "completion_tokens": 0}}')`,
      );
      expect(await project.call("import_usage_history", "public.old_chat")).toMatchObject({
        rows_imported: 1,
      });
      // December has begun in Tokyo, and not yet at UTC.
      await project.setClock("2027-11-30T18:00:00Z", true);
      expect(await project.call("get_user_token_balance", "gone")).toBe(Number(before) - 300);
      await use(project, "gone", 200);
      await project.setClock("2027-12-01T00:30:00Z", true);
      expect(await project.call("get_user_token_balance", "gone")).toBe(before);
      expect((await project.call("verify_ledger"))["problems"]).toEqual([]);
    } finally {
      await project.close();
    }
  });
});

describe("totals of days", () => {
  let desk: Project;
  beforeAll(async () => {
    desk = await openProject(18);
  });
  afterAll(() => desk?.close());
  const total = async () =>
    (await desk.rpc<{ total_tokens: number }>("console_usage_totals", { p_days: 20 })).total_tokens;

  it("wait until a day is over everywhere, whatever the time zone of who runs upkeep", async () => {
    await desk.setClock("2026-05-05 11:00:00Z", true);
    await desk.rpc("upsert_account", { p_user_id: "last", p_timezone: "Etc/GMT+12" });
    await use(desk, "last", 300);
    await desk.sql.query("set timezone = 'Pacific/Kiritimati'");
    await desk.sql.query("select public.run_maintenance()");
    await desk.sql.query("reset timezone");
    // It is still 4 May there.
    await use(desk, "last", 600);
    await desk.setClock("2026-05-06 12:00:00Z", true);
    await desk.rpc("run_maintenance");
    expect(await total()).toBe(900);
  });

  it("have what an import added while they were made", async () => {
    await desk.setClock("2026-05-12 12:00:00Z", true);
    await desk.sql.query(`
      set role project_owner; create table public.old_chat (id int primary key, user_id text, created_at timestamptz, metadata jsonb);
      insert into public.old_chat values (1, 'last', '2026-05-10 12:00:00Z', '{"total_tokens": 70}'); reset role`);
    const other = new pg.Client({ connectionString: desk.ownerUrl });
    await other.connect();
    await other.query("begin");
    await other.query("select public.import_usage_history('public.old_chat')");
    await desk.rpc("run_maintenance");
    await other.query("commit");
    await other.end();
    await desk.rpc("run_maintenance");
    expect(await total()).toBe(970);
  });

  it.each([2_147_483_647, -2_147_483_648, 0, 367])("refuse %i days in words", async (days) => {
    expect(await desk.refusal("console_usage_totals", { p_days: days })).toMatchObject({
      code: "PT400",
      hint: "invalid_argument",
    });
  });
});

describe("usage from before", () => {
  let desk: Project;
  beforeAll(async () => {
    desk = await openProject(18);
    await desk.sql.query(`
      set role project_owner;
      create table public.chat_messages_v2 (id uuid primary key default gen_random_uuid(), owner text, sent timestamp, metadata json, "session ""x" text);
      insert into public.chat_messages_v2 (owner, sent, metadata, "session ""x")
      select 'user-' || i % 3, '2026-01-31 23:30:00'::timestamp + i * interval '1 minute',
        (array[json_build_object('prompt_tokens', 10, 'completion_tokens', 5, 'total_tokens', 15, 'model', 'gpt-4o'),
          json_build_object('usage', json_build_object('input_tokens', '10', 'output_tokens', 5)), json_build_object('tokensUsed', 15)])[1 + i % 3], 's' || i % 7
      from generate_series(1, 60) i;
      insert into public.chat_messages_v2 (owner, sent, metadata) values
        (null, '2026-01-01', '{"total_tokens": 5}'), ('', '2026-01-01', '{"total_tokens": 5}'), ('x', null, '{"total_tokens": 5}'), ('x', 'infinity', '{"total_tokens": 5}'),
        ('x', '2026-01-01', '{"total_tokens": -5}'), ('x', '2026-01-01', '{"total_tokens": 1.5}'), ('x', '2026-01-01', '{"total_tokens": 99999999999999999999}'),
        ('x', '2026-01-01', '[]'), ('x', '2026-01-01', null), ('x', '2026-01-01', '"text"'), ('x', '2026-01-01', '{"total_tokens": "many", "a": "\\u0000"}'), (repeat('x', 300), '2026-01-01', '{"total_tokens": 5}');
      reset role;`);
    await desk.rpc("upsert_account", { p_user_id: "user-0", p_timezone: "Asia/Tokyo" });
  });
  afterAll(() => desk?.close());
  const columns = { user_id: "owner", created_at: "sent", conversation_id: 'session "x' };
  const batch = (size: number, isRestart = false) =>
    desk.rpc<{ finished: boolean; rows_imported: number; batch_read: number }>("import_usage_history", {
      p_table: "public.chat_messages_v2",
      p_columns: columns,
      p_batch: size,
      p_restart: isRestart,
    });

  it("is brought in batch by batch, each message once, and charges nothing", async () => {
    const theirs = () =>
      desk.one("select md5(string_agg(m::text, '' order by id)) from public.chat_messages_v2 m");
    const before = await theirs();
    let rounds = 0;
    while (!(await batch(7)).finished) rounds += 1;
    expect(rounds).toBe(10);
    expect(await batch(7)).toMatchObject({
      finished: true,
      batch_read: 0,
      rows_imported: 60,
      rows_skipped: 12,
    });
    expect(await batch(1_000, true)).toMatchObject({
      finished: true,
      batch_read: 72,
      batch_imported: 0,
      rows_imported: 60,
    });
    expect(await theirs()).toEqual(before);
    const usage = await desk.rpc<Usage>("calculate_user_token_usage", {
      p_user_id: "user-1",
      p_start: "2026-01-01",
      p_end: "2026-03-01",
    });
    expect(usage).toMatchObject({
      total_tokens: 300,
      prompt_tokens: 200,
      completion_tokens: 100,
      message_count: 20,
      conversation_count: 7,
      charged_tokens: 0,
    });
    expect(usage.by_day.map(({ day, total_tokens }) => [day, total_tokens])).toEqual([
      ["2026-01-31", 150],
      ["2026-02-01", 150],
    ]);
    // Tokyo's day had begun long before.
    expect(
      (
        await desk.rpc<Usage>("calculate_user_token_usage", {
          p_user_id: "user-0",
          p_start: "2026-01-01",
          p_end: "2026-03-01",
        })
      ).by_day,
    ).toMatchObject([{ day: "2026-02-01", total_tokens: 300 }]);
    expect(await desk.rpc("verify_ledger")).toMatchObject({ problems: [] });
    expect(await desk.rpc("get_user_token_balance", { p_user_id: "user-1" })).toBe("50000");
  });

  it("goes on with what was written since, from several places at once", async () => {
    await desk.sql.query(
      `insert into public.chat_messages_v2 (owner, sent, metadata) select 'late', now() - interval '3 days', '{"total_tokens": 2}' from generate_series(1, 50)`,
    );
    await desk.rpc("run_maintenance");
    const others = await Promise.all([1, 2, 3].map(() => openSecond()));
    await Promise.all(
      others.map(async (other) => {
        for (let n = 0; n < 30; n += 1) await other.rpc();
      }),
    );
    for (const other of others) await other.close();
    await batch(1_000, true);
    expect(
      await desk.rpc("calculate_user_token_usage", {
        p_user_id: "late",
        p_start: "2026-01-01",
        p_end: "2100-01-01",
      }),
    ).toMatchObject({ total_tokens: 100, message_count: 50 });
    // The day was aggregated already: it is again.
    expect(await desk.rpc("run_maintenance")).toMatchObject({
      days_aggregated: expect.toSatisfy((days: number) => days >= 1),
    });
    expect(await desk.rpc("console_usage_totals", { p_days: 10 })).toMatchObject({
      messages: 50,
      total_tokens: 100,
    });
  });

  async function openSecond() {
    const { default: pg } = await import("pg");
    const client = new pg.Client({ connectionString: desk.ownerUrl });
    await client.connect();
    return {
      rpc: () =>
        client.query("select public.import_usage_history('public.chat_messages_v2', $1, 5)", [
          JSON.stringify(columns),
        ]),
      close: () => client.end(),
    };
  }

  it("refuses what it cannot read safely, naming it", async () => {
    await desk.sql.query(`
      create table public.secret (id int primary key, user_id text, created_at timestamptz, metadata jsonb);
      set role project_owner; create table public.no_key (id int, user_id text, created_at timestamptz, metadata jsonb);
      create table public.dated (id int primary key, user_id text, created_at date, metadata jsonb); reset role`);
    const refusals: [string, Record<string, unknown>, string][] = [
      ["public.nothing", {}, "not_found"],
      ["governance.accounts", {}, "not_found"],
      ["pg_catalog.pg_authid", {}, "not_found"],
      ["public.chat_messages_v2; drop table public.chat_messages_v2", {}, "not_found"],
      ["'", {}, "not_found"],
      ["public.chat_messages_v2", { user_id: "owner; --" }, "invalid_argument"],
      ["public.chat_messages_v2", { id: null }, "invalid_argument"],
      ["public.chat_messages_v2", { password: "x" }, "invalid_argument"],
      ["public.chat_messages_v2", {}, "invalid_argument"],
      ["public.no_key", {}, "invalid_argument"],
      ["public.dated", {}, "invalid_argument"],
      ["public.secret", {}, "not_readable"],
    ];
    for (const [table, names, hint] of refusals) {
      expect(
        await desk.refusal("import_usage_history", { p_table: table, p_columns: names }),
        table,
      ).toMatchObject({ hint, code: expect.stringMatching(/^PT4/) });
    }
    expect((await desk.one<{ n: number }>("select count(*)::int as n from public.chat_messages_v2")).n).toBe(
      122,
    );
  });
});
