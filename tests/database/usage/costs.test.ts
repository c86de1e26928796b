/**
 * Random calls of users in many zones, with a price that changes, months that end and late settlements: every figure of
 * the costs desk is a plain sum over the calls, before and after days are aggregated.
 */
import { expect, it } from "vitest";
import { dice } from "../../support/dice.ts";
import { openProject, type Project } from "../../support/project.ts";
import { sized } from "../../support/size.ts";

interface Costs {
  readonly cost_micros: number;
  readonly calls: number;
  readonly tokens: number;
  readonly before: { readonly cost_micros: number; readonly calls: number; readonly tokens: number };
  readonly periods: readonly {
    readonly from: string;
    readonly to: string;
    readonly cost_micros: number;
    readonly charged_tokens: number;
  }[];
  readonly parts: readonly { readonly key: string; readonly cost_micros: number; readonly calls: number }[];
}

/** What the desk groups by, as a plain expression over the calls. */
const dimensions = {
  model: "r.settled_model",
  provider: "coalesce(governance.provider_of(r.settled_model, governance.now()), '')",
  plan: "coalesce(a.plan_id, '')",
  task_type: "coalesce(r.task_type, '')",
  scope: "coalesce(r.scope_id, '')",
  user: "a.user_id",
} as const;
const zones = ["UTC", "Pacific/Kiritimati", "Etc/GMT+12", "Asia/Kathmandu", "America/New_York"];

async function history(project: Project, calls: number, random: () => number): Promise<void> {
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)] as T;
  let at = Date.parse("2027-01-28T20:00:00Z");
  const open: string[] = [];
  const settle = async (id: string): Promise<void> => {
    await project.rpc("settle_usage", {
      p_request_id: id,
      p_input_tokens: Math.floor(random() * 2_000),
      p_output_tokens: Math.floor(random() * 2_000),
    });
  };
  for (let n = 0; n < calls; n++) {
    at += Math.floor(random() * (7 * 86_400_000)) / (calls / 10);
    await project.setClock(new Date(at).toISOString(), true);
    const user = `user-${Math.floor(random() * 8)}`;
    if (random() < 0.1) await project.rpc("upsert_account", { p_user_id: user, p_timezone: pick(zones) });
    const id = `call-${n}`;
    const answer = await project.rpc<{ decision: string }>("authorize_usage", {
      p_request_id: id,
      p_user_id: user,
      p_model: pick(["gpt-4o", "gpt-4o-mini", "claude-unheard-of"]),
      p_estimated_tokens: 10,
      p_task_type: pick([null, "chat", "summary"]),
      p_scope_id: pick([null, "brand-a", "brand-b"]),
    });
    if (answer.decision === "block") continue;
    open.push(id);
    // Most settle at once, some much later.
    if (random() < 0.8) await settle(open.splice(Math.floor(random() * open.length), 1)[0] as string);
    if (n === Math.floor(calls / 2))
      await project.sql.query(
        `insert into governance.prices (provider, model, input_micros_per_million, output_micros_per_million, currency, effective_from)
         select 'openai', 'gpt-4o', 9000000, 9000000, c.currency, governance.now() from governance.active_config c`,
      );
  }
  for (const id of open) await settle(id);
}

it("each figure is a plain sum over the calls, whatever the range, the step and what it is made of", async () => {
  const random = dice(7);
  const project = await openProject(18);
  await history(project, sized(150, 5_000), random);
  const check = async (): Promise<void> => {
    for (const [from, to] of [
      ["2027-01-25", "2027-04-30"],
      ["2027-01-31", "2027-01-31"],
      ["2027-02-01", "2027-02-28"],
    ] as const)
      for (const [by, expression] of Object.entries(dimensions)) {
        const step = (["day", "week", "month"] as const)[Math.floor(random() * 3)] ?? "day";
        const found = await project.rpc<Costs>("console_costs", {
          p_from: from,
          p_to: to,
          p_step: step,
          p_by: by,
        });
        const { rows } = await project.sql.query<{
          key: string;
          cost: number;
          calls: number;
          tokens: number;
          charged: number;
        }>(
          `select ${expression} as key, sum(coalesce(r.cost_micros, 0))::float8 as cost, count(*)::int as calls,
             sum(r.input_tokens + r.output_tokens)::float8 as tokens, sum(r.charged_tokens)::float8 as charged
           from governance.requests r join governance.accounts a using (account_id)
           where r.status = 'settled' and r.usage_day between $1 and $2 group by 1 order by 2 desc, 4 desc, 1`,
          [from, to],
        );
        const total = (key: "cost" | "calls" | "tokens" | "charged"): number =>
          rows.reduce((sum, row) => sum + row[key], 0);
        expect([by, found.cost_micros, found.calls, found.tokens]).toEqual([
          by,
          total("cost"),
          total("calls"),
          total("tokens"),
        ]);
        expect(
          new Map(found.parts.filter(({ calls }) => calls > 0).map(({ key, cost_micros: c }) => [key, c])),
        ).toEqual(new Map(rows.map(({ key, cost }) => [key, cost])));
        expect(found.periods.reduce((sum, each) => sum + each.cost_micros, 0)).toBe(total("cost"));
        expect(found.periods.reduce((sum, each) => sum + each.charged_tokens, 0)).toBe(total("charged"));
        expect([found.periods[0]?.from, found.periods.at(-1)?.to]).toEqual([from, to]);
      }
  };
  await check();
  for (let more = true; more; ) more = (await project.rpc<{ more: boolean }>("run_maintenance")).more;
  await check();

  // Narrowed to one user and one model, it is theirs alone.
  const { rows } = await project.sql.query<{ cost: number }>(
    `select coalesce(sum(r.cost_micros), 0)::float8 as cost from governance.requests r join governance.accounts a using (account_id)
     where r.status = 'settled' and a.user_id = 'user-3' and r.settled_model = 'gpt-4o'`,
  );
  const narrowed = await project.rpc<Costs>("console_costs", {
    p_from: "2027-01-01",
    p_to: "2027-12-31",
    p_filter: { user: "user-3", model: "gpt-4o" },
  });
  expect(narrowed.cost_micros).toBe(rows[0]?.cost);
});

it("a question that is not understood is refused", async () => {
  const project = await openProject(18);
  for (const parameters of [
    { p_from: "2027-02-01", p_to: "2027-01-01" },
    { p_from: "2027-02-01", p_to: "infinity" },
    { p_step: "hour" },
    { p_by: "colour" },
    { p_filter: { colour: "red" } },
    { p_filter: { model: 7 } },
  ])
    expect(
      await project.refusal("console_costs", { p_from: "2027-01-01", p_to: "2027-01-31", ...parameters }),
    ).toMatchObject({ code: "PT400", hint: "invalid_argument" });
});

it("today's figures are exact while they are added up, and so are the first of the day, however many there are", async () => {
  const random = dice(5);
  const project = await openProject(18, { connections: 2 });
  // As with a thousand times as many users.
  await project.sql.query(
    "create or replace function governance.most_ranked() returns int language sql immutable as 'select 3'",
  );
  await project.setClock("2027-03-03T10:00:00Z", true);
  // A transaction that goes on holds the count up, as a slow report does: what is committed since is read for itself.
  const report = await project.sql.connect();
  const call = async (n: number): Promise<void> => {
    const id = `call-${n}`;
    const answer = await project.rpc<{ decision: string }>("authorize_usage", {
      p_request_id: id,
      p_user_id: `user-${Math.floor(random() * 40)}`,
      p_model: "gpt-4o",
      p_estimated_tokens: 10,
      p_conversation_id: `session-${Math.floor(random() * 50)}`,
    });
    if (answer.decision === "block") return;
    await project.rpc("settle_usage", {
      p_request_id: id,
      p_input_tokens: Math.floor(random() ** 3 * 3_000),
      p_output_tokens: Math.floor(random() * 20),
    });
  };
  const check = async (): Promise<void> => {
    for (const [by, key] of [
      ["model", "r.settled_model"],
      ["session", "r.conversation_id"],
    ] as const) {
      const found = await project.rpc<Costs>("console_costs", {
        p_from: "2027-03-03",
        p_to: "2027-03-03",
        p_by: by,
      });
      const { rows } = await project.sql.query<{ key: string; cost: number; calls: number }>(
        `select ${key} as key, sum(r.cost_micros)::float8 as cost, count(*)::int as calls from governance.requests r
         where r.status = 'settled' group by 1 order by 2 desc, sum(r.input_tokens + r.output_tokens) desc, 1`,
      );
      expect([by, found.cost_micros, found.calls]).toEqual([
        by,
        rows.reduce((sum, row) => sum + row.cost, 0),
        rows.reduce((sum, row) => sum + row.calls, 0),
      ]);
      expect(
        found.parts
          .filter((part) => part.key !== "")
          .slice(0, 3)
          .map((part) => [part.key, part.cost_micros]),
      ).toEqual(rows.slice(0, 3).map((row) => [row.key, row.cost]));
    }
    const watched = await project.rpc<{ top_users: { user_id: string; tokens: number }[] }>(
      "console_overview",
      { p_minutes: 10_000 },
    );
    const { rows } = await project.sql.query<{ tokens: number }>(
      "select sum(charged_tokens)::float8 as tokens from governance.requests where status = 'settled' group by account_id order by 1 desc limit 3",
    );
    expect(watched.top_users.slice(0, 3).map((user) => user.tokens)).toEqual(rows.map((row) => row.tokens));
  };
  for (let n = 0; n < 120; n++) {
    await call(n);
    if (n % 30 === 0) await project.rpc("run_maintenance");
    if (n % 40 === 20) await check();
    if (n === 62) await report.query("begin; select pg_current_xact_id()");
  }
  await check();
  await report.query("commit");
  report.release();
  await check();
  // The day was added up and then followed, and few of its users are looked at.
  expect(
    await project.one(
      `select (select not is_over from governance.usage_days where day = '2027-03-03') as is_open,
         (select count(*) filter (where is_leader) < count(*) from governance.day_ranks where what = 'user') as is_trimmed`,
    ),
  ).toEqual({ is_open: true, is_trimmed: true });

  // What came behind the count's back is in once the day is added up again, and when it is over.
  await project.sql.query(
    "update governance.usage_totals set calls = calls - 1, cost_micros = cost_micros - 1; update governance.usage_days set aggregated_at = clock_timestamp() - interval '2 hours'",
  );
  await project.rpc("run_maintenance");
  await check();
  await project.setClock("2027-03-08T10:00:00Z", true);
  for (let n = 120; n < 123; n++) await call(n);
  for (let round = 0; round < 4; round++) await project.rpc("run_maintenance");
  expect(
    await project.one(
      `select (select is_over from governance.usage_days where day = '2027-03-03') as is_over, governance.ranked_day()::text as ranked,
         (select count(distinct account_id)::int <= 9 from governance.ranked_users where start = '2027-03-03 00:00Z') as is_ranked`,
    ),
  ).toEqual({ is_over: true, ranked: "2027-03-03", is_ranked: true });

  // Of a ranked day the first are as they were; what comes of it late is counted once, before and after the next day.
  const first = async (): Promise<number | undefined> =>
    (
      await project.rpc<{ top_users: { tokens: number }[] }>("console_overview", {
        p_from: "2027-03-03T00:00:00Z",
        p_to: "2027-03-04T00:00:00Z",
        p_filter: { model: "gpt-4o" },
      })
    ).top_users[0]?.tokens;
  const { account_id: leader, tokens } = await project.one<{ account_id: string; tokens: number }>(
    `select account_id, sum(charged_tokens)::float8 as tokens from governance.requests
     where status = 'settled' and usage_day = '2027-03-03' group by 1 order by 2 desc limit 1`,
  );
  expect(await first()).toBe(tokens);
  await project.sql.query(
    `select governance.add_to_totals(array[row('2027-03-03 10:00Z', $1::bigint, 'settled', 'allow', '', 'gpt-4o', 'gpt-4o', 1, 7,
       0)::governance.counted_calls], governance.now())`,
    [leader],
  );
  expect(await first()).toBe(tokens + 7);
  await project.setClock("2027-03-13T10:00:00Z", true);
  for (let round = 0; round < 4; round++) await project.rpc("run_maintenance");
  expect(
    await project.one(
      "select governance.ranked_day()::text as ranked, count(*)::int as left from governance.user_totals where step = 'day'",
    ),
  ).toEqual({ ranked: "2027-03-08", left: 0 });
  expect(await first()).toBe(tokens + 7);
});
