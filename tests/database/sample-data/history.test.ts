import pg from "pg";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { type Database, postgresDatabase } from "../../../local-project/database.ts";
import { type LocalProject, startLocalProject } from "../../../local-project/index.ts";
import { type SampleData, startSampleData } from "../../../local-project/sample-data/index.ts";
import { createProjectDatabase } from "../../support/database.ts";
import { postgresUrls } from "../../support/project.ts";

const small = { users: 60, days: 20, callsPerSecond: 0 };
const nowhere = { url: "http://127.0.0.1:1", serviceRoleKey: "none" };

interface Books {
  readonly sql: pg.Client;
  readonly database: Database;
  readonly url: string;
  one<Row>(text: string): Promise<Row>;
}
const open: Books[] = [];
async function newBooks(): Promise<Books> {
  const { url, ownerUrl } = await createProjectDatabase(postgresUrls()[18], { preset: "default" });
  const sql = new pg.Client({ connectionString: url });
  await sql.connect();
  const books: Books = {
    sql,
    database: postgresDatabase(ownerUrl, { poolSize: 4 }),
    url: ownerUrl,
    one: async <Row>(text: string) => (await sql.query(text)).rows[0] as Row,
  };
  open.push(books);
  return books;
}
afterAll(async () => {
  for (const { sql, database } of open) {
    await database.close();
    await sql.end();
  }
});

/** Everything about the sample but when it was written. */
const content = `select md5(string_agg(x, '|' order by x)) as md5 from (
  select t.hash::text from governance.token_transactions t
  union all select to_jsonb(r)::text from (select * from governance.usage_daily) r
  union all select (to_jsonb(r) - 'xid' - 'account_id')::text from governance.requests r) s(x)`;

/** A call that comes while the history is being written, and upkeep after it. */
const liveCall = [
  "select upsert_account('live'), update_user_token_balance('live', 1000, 'bonus')",
  "select authorize_usage('live-1', 'live', 'gpt-4o-mini', 10)",
  "select settle_usage('live-1', 10, 0)",
  "select governance.follow_events()",
  "select governance.follow_events()",
  "select governance.count_revenue()",
];

describe("the sample's revenue", () => {
  it("is counted wholly, though calls and upkeep ran while the history was being written", async () => {
    const books = await newBooks();
    let loaded = 0;
    const run: Database["run"] = async (text) => {
      const rows = await books.database.run(text);
      if (text.includes("governance.sample_account") && ++loaded === 5)
        for (const statement of liveCall) await books.sql.query(statement);
      return rows;
    };
    await startSampleData({ ...nowhere, run }, small).filled;
    expect(loaded).toBeGreaterThan(5);
    const deferred = (lines: string): string =>
      `select coalesce(sum((l ->> 'closing_deferred_minor')::bigint), 0)::int as minor from jsonb_array_elements(${lines}) l`;
    await books.sql.query("select governance.follow_events(); select governance.count_revenue()");
    const booked = await books.one<{ minor: number }>(
      deferred("console_token_roll_forward('2000-01-01', now() + interval '1 day')"),
    );
    expect(booked.minor).toBeGreaterThan(0);
    expect(
      await books.one(deferred("console_revenue('2020-01-01', current_date + 1, 'month') -> 'lines'")),
    ).toEqual(booked);
  });
});

describe("the sample's history", () => {
  let books: Books;
  beforeAll(async () => {
    books = await newBooks();
    const sample = startSampleData({ ...nowhere, run: books.database.run }, small);
    await sample.filled;
    expect(sample.status()).toMatchObject({ running: false, calls: 0, filling: null, problem: null });
  });

  it("leaves a ledger without problems", async () => {
    const { answer } = await books.one<{
      answer: { accounts_checked: number; entries_checked: number; problems: unknown[] };
    }>("select public.verify_ledger() as answer");
    expect(answer.problems).toEqual([]);
    expect(answer.accounts_checked).toBe(60);
    expect(answer.entries_checked).toBeGreaterThan(1_000);
  });

  it("is marked as sample data, in the project and in each account", async () => {
    const found = await books.one(`select
      (select is_sample_data from governance.active_config) as project,
      bool_and(email like '%@example.com' and (metadata ->> 'sample_data')::boolean) as accounts from governance.accounts`);
    expect(found).toEqual({ project: true, accounts: true });
  });

  it("has daily usage and counters that are the sums of its calls", async () => {
    const found = await books.one(`
      with settled as (
        select r.*, a.timezone, a.local_day, a.local_month, (r.ended_at at time zone a.timezone)::date as day
        from governance.requests r join governance.accounts a using (account_id) where r.status = 'settled'),
      sums as (
        select account_id, day, model, task_type, scope_id, count(*) as calls, sum(charged_tokens) as tokens, sum(cost_micros) as cost
        from settled group by 1, 2, 3, 4, 5)
      select
        (select count(*)::int from sums s full join governance.usage_daily u using (account_id, day, model, task_type, scope_id)
          where (u.calls, u.charged_tokens, u.cost_micros) is distinct from (s.calls, s.tokens, s.cost)) as days_off,
        (select count(*)::int from governance.accounts a
          where a.day_tokens <> (select coalesce(sum(s.charged_tokens), 0) from settled s where s.account_id = a.account_id and s.day = a.local_day)
            or a.month_tokens <> (select coalesce(sum(s.charged_tokens), 0) from settled s where s.account_id = a.account_id and s.day >= a.local_month)
            or a.day_ends_at <> (a.local_day + 1)::timestamp at time zone a.timezone
            or a.month_ends_at <> (a.local_month + interval '1 month')::timestamp at time zone a.timezone
            or a.day_messages <> (select count(*) from governance.requests r
              where r.account_id = a.account_id and (r.created_at at time zone a.timezone)::date = a.local_day)) as accounts_off,
        (select count(*)::int from governance.requests r
          where r.status = 'settled' and not exists (select from governance.token_transactions t
            where t.transaction_id = r.transaction_id and t.decision_id = r.decision_id and t.amount = -r.charged_tokens)) as calls_off`);
    expect(found).toEqual({ days_off: 0, accounts_off: 0, calls_off: 0 });
  });

  it("is in the figures of the desks: minutes of the last two days, and each account's listing", async () => {
    const found = await books.one(`
      with since as (select date_trunc('minute', now() - interval '47 hours') as at)
      select
        (select coalesce(sum(calls), 0)::int from governance.call_totals, since where step = 'minute' and start >= since.at and kind = 'decided') as counted,
        (select count(*)::int from governance.requests, since where created_at >= since.at) as calls,
        (select coalesce(sum(tokens), 0)::int from governance.call_totals, since where step = 'minute' and start >= since.at and kind = 'settled') as tokens_counted,
        (select coalesce(sum(charged_tokens), 0)::int from governance.requests, since where ended_at >= since.at and status = 'settled') as tokens,
        (select count(*)::int from governance.account_listings l join governance.accounts a using (account_id)
          -- Of a month that ended while the history was being written, a listing says nothing any more.
          where (l.tokens_this_month = a.month_tokens or (l.tokens_this_month = 0 and a.month_ends_at <= now()))
            and l.available = a.subscription_tokens + a.purchased_tokens + a.promotional_tokens) as listed`);
    expect(found).toMatchObject({ listed: 60 });
    const { counted, calls, tokens_counted, tokens } = found as Record<string, number>;
    expect([counted, tokens_counted]).toEqual([calls, tokens]);
    expect(calls).toBeGreaterThan(50);
  });

  it("is in the feed in order of time, before anything live", async () => {
    const found = await books.one(`
      with events as (
        select decision_id as id, created_at from governance.requests
        union all select transaction_id, created_at from governance.token_transactions
        union all select event_id, created_at from governance.hold_events),
      ordered as (select id, created_at, lag(created_at) over (order by id) as before from events)
      select count(*) filter (where created_at < before)::int as out_of_order, count(*) - count(distinct id) as twice,
        max(id) < nextval('governance.event_ids') as before_live, max(created_at) <= now() as past from ordered`);
    expect(found).toMatchObject({ out_of_order: 0, twice: "0", before_live: true, past: true });
  });

  it("is a state that the real functions go on from", async () => {
    for (const { user_id } of (await books.sql.query("select user_id from governance.accounts")).rows) {
      const request = `after-${user_id}`;
      const { answer } = (
        await books.sql.query(
          "select public.authorize_usage($1, $2, 'gpt-4o-mini', 50, 'What next?') as answer",
          [request, user_id],
        )
      ).rows[0] as { answer: { decision: string } };
      if (answer.decision !== "block")
        await books.sql.query("select public.settle_usage($1, 20, 30)", [request]);
    }
    const { upkeep } = await books.one<{ upkeep: object }>("select public.run_maintenance() as upkeep");
    expect(upkeep).toMatchObject({ rollup_problems: 0, accounts_failed: 0 });
    const { answer } = await books.one<{ answer: { problems: unknown[] } }>(
      "select public.verify_ledger() as answer",
    );
    expect(answer.problems).toEqual([]);
  });
});

describe("starting again", () => {
  it("goes on where it was stopped, to the very same history", async () => {
    const [whole, broken] = [await newBooks(), await newBooks()];
    // Both must invent up to the same moment, so the marker of one is copied to the other.
    let samples = startSampleData({ ...nowhere, run: whole.database.run }, small);
    await samples.filled;
    const { value } = await whole.one<{ value: object }>(
      "select value from governance.maintenance_state where key = 'sample_data'",
    );
    await broken.sql.query(
      "insert into governance.maintenance_state (key, value) values ('sample_data', $1)",
      [{ ...value, filled: false }],
    );
    await broken.sql.query(
      "select governance.ensure_request_partitions((now() - interval '30 days')::date, now()::date)",
    );

    samples = startSampleData(
      { ...nowhere, run: broken.database.run },
      {
        ...small,
        onProgress: (fraction) => void (fraction > 0.4 && samples.stop()),
      },
    );
    await samples.filled;
    const { count } = await broken.one<{ count: number }>("select count(*)::int from governance.accounts");
    expect(count).toBeGreaterThan(10);
    expect(count).toBeLessThan(60);
    // Upkeep closes the days that there are so far.
    await broken.sql.query("select public.run_maintenance()");
    expect(
      await broken.one("select count(*) filter (where is_over) > 5 as closed from governance.usage_days"),
    ).toEqual({ closed: true });

    await startSampleData({ ...nowhere, run: broken.database.run }, small).filled;
    expect(await broken.one(content)).toEqual(await whole.one(content));
    await startSampleData({ ...nowhere, run: broken.database.run }, small).filled;
    expect(await broken.one(content)).toEqual(await whole.one(content));

    // The costs desk has one figure, whatever it is broken down by and whichever roll-up that is read from.
    const { cost } = await broken.one<{ cost: number }>(
      "select sum(cost_micros)::float8 as cost from governance.requests where status = 'settled'",
    );
    const range = "(now() - interval '40 days')::date, (now() + interval '2 days')::date";
    for (const upkeep of ["before", "after"]) {
      for (const by of ["model", "provider", "plan", "task_type", "scope", "user", "session"])
        expect([
          upkeep,
          by,
          await broken.one(
            `select (public.console_costs(${range}, 'day', '${by}') ->> 'cost_micros')::float8 as cost`,
          ),
        ]).toEqual([upkeep, by, { cost }]);
      await broken.sql.query("select public.run_maintenance()");
    }
  });

  it("never touches a project that has accounts of its own", async () => {
    const books = await newBooks();
    await books.sql.query("select public.upsert_account('a-real-customer')");
    const sample = startSampleData({ ...nowhere, run: books.database.run }, small);
    await sample.filled;
    expect(sample.status().problem).toMatch(/not sample data/);
    expect(
      await books.one(
        "select count(*)::int as accounts, (select is_sample_data from governance.active_config) as marked from governance.accounts",
      ),
    ).toEqual({
      accounts: 1,
      marked: false,
    });
    await sample.stop();
  });
});

describe("live traffic", () => {
  let project: LocalProject | null = null;
  let sample: SampleData | null = null;
  afterEach(async () => {
    await sample?.stop();
    await project?.stop();
  });

  it("shows every kind of event, obeys each answer, and stops when asked to", async () => {
    const books = await newBooks();
    project = await startLocalProject({ databaseUrl: books.url });
    sample = startSampleData(project, { users: 120, days: 5, callsPerSecond: 6 });
    await sample.filled;
    const seen = async (): Promise<Record<string, number>> =>
      books.one(`select
        count(*) filter (where decision = 'allow')::int as allowed,
        count(*) filter (where status = 'settled')::int as settled,
        count(*) filter (where reason = 'spam_identical')::int as spam_identical,
        count(*) filter (where reason = 'bot_behavior')::int as bot_behavior,
        count(*) filter (where reason = 'insufficient_tokens')::int as insufficient_tokens,
        count(*) filter (where decision = 'block' and status <> 'blocked')::int as blocked_yet_settled
        from governance.requests where request_id like 'sample-%'`);
    await expect.poll(seen, { timeout: 90_000, interval: 1_000 }).toMatchObject({
      allowed: expect.toSatisfy((count: number) => count > 40),
      settled: expect.toSatisfy((count: number) => count > 40),
      spam_identical: expect.toSatisfy((count: number) => count > 0),
      bot_behavior: expect.toSatisfy((count: number) => count > 0),
      insufficient_tokens: expect.toSatisfy((count: number) => count > 0),
      blocked_yet_settled: 0,
    });

    const spammer = "sample-0001";
    await books.sql.query(
      "select public.block_user('block-spammer', $1, 'Advertises prizes', null, 'tester')",
      [spammer],
    );
    await expect
      .poll(
        () =>
          books.one(`select count(*)::int > 0 as refused from governance.requests
          where reason = 'user_blocked' and account_id = (select account_id from governance.accounts where user_id = '${spammer}')`),
        { timeout: 150_000, interval: 1_000 },
      )
      .toEqual({ refused: true });

    sample.pause();
    // Calls under way come to their end; then none is added for as long as a dozen would have been made.
    let calls = -1;
    await expect
      .poll(
        async () => {
          calls = sample?.status().calls ?? -1;
          await new Promise((resolve) => setTimeout(resolve, 2_000));
          return sample?.status();
        },
        { timeout: 60_000 },
      )
      .toMatchObject({ running: false, calls: expect.toSatisfy((count: number) => count === calls) });
    sample.resume();
    await expect
      .poll(() => (sample as SampleData).status().calls, { timeout: 60_000 })
      .toBeGreaterThan(calls);
    await sample.stop();
    const { answer } = await books.one<{ answer: { problems: unknown[] } }>(
      "select public.verify_ledger() as answer",
    );
    expect(answer.problems).toEqual([]);
  });
});
