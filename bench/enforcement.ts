/**
 * What governing a call costs where each goes by itself (batches.ts: where they travel together): an authorize_usage + settle_usage pair, default rules on, against pgbench's
 * simple-update on the same server, `synchronous_commit` and `fsync` on. Driven by pgbench where it is installed (so
 * that the driver is not the bottleneck), else by as many connections of this process; the figures say which.
 *
 * BENCH_SECONDS is the length of a round (8: each connection compiles its functions first), BENCH_EVENTS the history of the growth bench (300,000; the is
 * 5,000,000), BENCH_ENTRIES that of verify_ledger (200,000; the is 1,000,000).
 */
import { execFile } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import pg from "pg";
import { createProjectDatabase } from "../tests/support/database.ts";
import { findPostgres, type PostgresServer, startPostgres } from "../tests/support/postgres.ts";
import { alternate, type BenchResult, round } from "./measure.ts";

const execute = promisify(execFile);
export const SECONDS = Number(process.env["BENCH_SECONDS"] ?? 8);
const EVENTS = Number(process.env["BENCH_EVENTS"] ?? 300_000);
const ENTRIES = Number(process.env["BENCH_ENTRIES"] ?? 200_000);
export const ACCOUNTS = 10_000;
const pgbench = ["/usr/bin/pgbench", "/usr/lib/postgresql/15/bin/pgbench"].find((path) => existsSync(path));

export const driver = pgbench ? "pgbench" : "pg client loop";

/** Statements of one transaction each (`:a` an account, `:r` a number never used before), with their driver's form. */
interface Script {
  readonly url: string;
  readonly accounts: number;
  readonly statements: readonly string[];
  /** In one explicit transaction, as pgbench's simple-update is. */
  readonly isOneTransaction?: boolean;
}

/** Scripts a second, by so many connections, for so many seconds. */
export async function rate(script: Script, connections: number, folder: string): Promise<number> {
  if (pgbench) {
    const file = join(folder, "script.sql");
    const body = script.isOneTransaction ? ["begin", ...script.statements, "end"] : script.statements;
    writeFileSync(
      file,
      [
        `\\set a random(1, ${script.accounts})`,
        "\\set r random(1, 9000000000000000000)",
        ...body.map((statement) => `${statement};`),
      ].join("\n"),
    );
    const url = new URL(script.url);
    const { stdout } = await execute(
      pgbench,
      // Ours is prepared, as PostgREST's calls are; simple-update is run as pgbench runs it by default.
      [
        "-n",
        "-h",
        url.hostname,
        "-p",
        url.port,
        "-U",
        "postgres",
        "-c",
        String(connections),
        "-j",
        "2",
        "-T",
        String(SECONDS),
      ]
        .concat(script.isOneTransaction ? [] : ["-M", "prepared"])
        .concat(["-f", file, url.pathname.slice(1)]),
    );
    return Number(/tps = ([\d.]+)/.exec(stdout)?.[1] ?? Number.NaN);
  }
  const until = Date.now() + SECONDS * 1000;
  let done = 0;
  await Promise.all(
    Array.from({ length: connections }, async () => {
      const client = new pg.Client({ connectionString: script.url });
      await client.connect();
      while (Date.now() < until) {
        const a = 1 + Math.floor(Math.random() * script.accounts);
        const r = Math.floor(Math.random() * Number.MAX_SAFE_INTEGER);
        if (script.isOneTransaction) await client.query("begin");
        for (const [index, statement] of script.statements.entries()) {
          // Named parameters become $1 and $2, used in this order.
          const values = statement.includes(":a") ? [r, a] : [r];
          const text = statement.replaceAll(":r", "$1::bigint").replaceAll(":a", "$2::int");
          await client.query({
            name: `s${index}`,
            text: statement.includes(":r") ? text : text.replaceAll("$2", "$1"),
            values: statement.includes(":r") ? values : statement.includes(":a") ? [a] : [],
          });
        }
        if (script.isOneTransaction) await client.query("commit");
        done += 1;
      }
      await client.end();
    }),
  );
  return done / SECONDS;
}

export async function query<Row>(url: string, text: string, values: unknown[] = []): Promise<Row> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    // Several statements in one text answer a list: nothing is read of those.
    const result = await client.query(text, values);
    return (Array.isArray(result) ? undefined : result.rows[0]) as Row;
  } finally {
    await client.end();
  }
}

/** On one account without a message: the rules against spam and hogging would stop it, as they should. */
function pair(url: string, accounts = ACCOUNTS): Script {
  const message = accounts === 1 ? "null" : "'A message of a length that a person might send, number ' || :r";
  return {
    url,
    accounts,
    statements: [
      `select public.authorize_usage('req-' || :r, 'user-' || :a, 'gpt-4o-mini', 1000, ${message})`,
      "select public.settle_usage('req-' || :r, 300, 200)",
    ],
  };
}

export async function fill(url: string, accounts: number): Promise<void> {
  await query(
    url,
    "select count(public.upsert_account('user-' || i, 'enterprise')) from generate_series(1, $1::int) i",
    [accounts],
  );
  await query(
    url,
    "select count(public.update_user_token_balance('user-' || i, 1000000000, 'bonus')) from generate_series(1, $1::int) i",
    [accounts],
  );
  await query(url, "vacuum analyze");
}

export async function simpleUpdate(server: PostgresServer): Promise<Script> {
  const url = await server.createDatabase();
  await query(
    url,
    `create table pgbench_accounts (aid int primary key, bid int, abalance int, filler char(84)) with (fillfactor = 100);
     create table pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));
     insert into pgbench_accounts select i, 1, 0, '' from generate_series(1, 1000000) i;`,
  );
  await query(url, "vacuum analyze");
  return {
    url,
    accounts: 1_000_000,
    isOneTransaction: true,
    statements: [
      "update pgbench_accounts set abalance = abalance + 7 where aid = :a",
      "select abalance from pgbench_accounts where aid = :a",
      "insert into pgbench_history (tid, bid, aid, delta, mtime) values (1, 1, :a, 7, current_timestamp)",
    ],
  };
}

/** One row that everybody deducts from, with nothing else to do. */
export async function bareDeducts(server: PostgresServer): Promise<Script> {
  const url = await server.createDatabase();
  await query(
    url,
    "create table bare (id int primary key, tokens bigint); insert into bare values (1, 9000000000000000);",
  );
  return {
    url,
    accounts: 1,
    statements: ["update bare set tokens = tokens - 500 where id = :a and tokens >= 500"],
  };
}

/** Rows of history as settlements leave them, for other accounts than those that the bench calls for. */
async function addHistory(url: string, events: number): Promise<void> {
  for (let from = 0; from < events; from += 50_000) {
    await query(
      url,
      `with calls as (
        select nextval('governance.event_ids') as decision_id, now() - (random() * interval '20 days') as at, a.account_id, 'old-' || ($1::bigint + i) as request_id, i
        from generate_series(1, $2::int) i join governance.accounts a on a.user_id = 'user-' || (1 + i % 10000)),
       keys as (insert into governance.request_keys select request_id, at, decision_id, account_id, 0, hashtextextended(request_id, 0) from calls)
       insert into governance.requests (decision_id, created_at, account_id, request_id, fingerprint, requested_model, message_hash, decision, http_status, model,
         plan_id, rule_set_id, facts, reserved_tokens, day_ends_at, month_ends_at, subscription_tokens, purchased_tokens, promotional_tokens, total_reserved_tokens, debt_tokens, status, charged_tokens)
       select decision_id, at, account_id, request_id, 0, 'gpt-4o-mini', hashtextextended(request_id, 0), 'allow', 200, 'gpt-4o-mini', 'enterprise', 1,
         jsonb_populate_record(null::governance.facts, '{"estimated_tokens": 10, "messages_today": 1, "rapid_messages": 1, "message_words": 5}'), 10, now(), now(),
         0, 0, 0, 0, 0, 'settled', 10 from calls`,
      [from, Math.min(50_000, events - from)],
    );
  }
  await query(url, "vacuum analyze governance.requests");
}

export async function run(): Promise<readonly BenchResult[]> {
  const version = findPostgres(15) ? 15 : 18;
  const server = await startPostgres({
    version,
    settings: { fsync: "on", synchronous_commit: "on", shared_buffers: "256MB", max_wal_size: "4GB" },
  });
  const folder = mkdtempSync(join(tmpdir(), "bench-enforcement-"));
  const results: BenchResult[] = [];
  try {
    const { url } = await createProjectDatabase(server.url(), { preset: "default" });
    await fill(url, ACCOUNTS);
    const simple = await simpleUpdate(server);
    for (const connections of [8, 32]) {
      const walBefore = await query<{ bytes: string; entries: string }>(
        url,
        "select pg_current_wal_lsn() - '0/0' as bytes, (select count(*) from governance.token_transactions) as entries",
      );
      const oursFirst = await rate(pair(url), connections, folder);
      const walAfter = await query<{ bytes: string; entries: string }>(
        url,
        "select pg_current_wal_lsn() - '0/0' as bytes, (select count(*) from governance.token_transactions) as entries",
      );
      const walBytes =
        (Number(walAfter.bytes) - Number(walBefore.bytes)) /
        Math.max(1, Number(walAfter.entries) - Number(walBefore.entries));
      const { ours, floor, ratio } = await alternate(
        3,
        () => rate(pair(url), connections, folder),
        () => rate(simple, connections, folder),
      );
      results.push({
        bench: `authorize+settle pair / pgbench simple-update, ${connections} connections`,
        ratio: round(ratio),
        better: "higher",
        figures: {
          pairs_per_second: round(ours, 0),
          simple_updates_per_second: round(floor, 0),
          first_round_pairs_per_second: round(oursFirst, 0),
          wal_bytes_per_pair: round(walBytes, 0),
          accounts: ACCOUNTS,
          server: `PostgreSQL ${version}`,
          driver,
        },
      });
    }

    const bare = await bareDeducts(server);
    const hot = await alternate(
      3,
      () => rate(pair(url, 1), 32, folder),
      () => rate(bare, 32, folder),
    );
    results.push({
      bench: "one hot account: authorize+settle pair / bare one-row deduct, 32 connections",
      ratio: round(hot.ratio),
      better: "higher",
      figures: { pairs_per_second: round(hot.ours, 0), deducts_per_second: round(hot.floor, 0), driver },
    });

    const grown = (await createProjectDatabase(server.url(), { preset: "default" })).url;
    const young = (await createProjectDatabase(server.url(), { preset: "default" })).url;
    for (const one of [grown, young]) await fill(one, ACCOUNTS);
    await addHistory(young, 50_000);
    await addHistory(grown, EVENTS);
    const growth = await alternate(
      3,
      () => rate(pair(young), 8, folder),
      () => rate(pair(grown), 8, folder),
    );
    results.push({
      bench: `cost of a pair with ${EVENTS.toLocaleString("en")} events / with 50,000`,
      ratio: round(growth.ratio),
      better: "lower",
      required: 1.2,
      figures: {
        pairs_per_second_young: round(growth.ours, 0),
        pairs_per_second_grown: round(growth.floor, 0),
        driver,
      },
    });

    const ledger = (await createProjectDatabase(server.url(), { preset: "default" })).url;
    await query(
      ledger,
      "select count(public.upsert_account('user-' || i, 'enterprise')) from generate_series(1, 100) i",
    );
    for (let made = 0; made < ENTRIES; made += 10_000)
      await query(
        ledger,
        "select count(public.update_user_token_balance('user-' || (1 + (i - 1) % 100), case when (i - 1) / 100 % 2 = 0 then 5 else -5 end, 'adjustment')) from generate_series(1, 10000) i",
      );
    await query(ledger, "vacuum analyze");
    const start = performance.now();
    const { checked } = await query<{ checked: { entries_checked: number; problems: unknown[] } }>(
      ledger,
      "select public.verify_ledger() as checked",
    );
    const perSecond = checked.entries_checked / ((performance.now() - start) / 1000);
    if (checked.problems.length > 0)
      throw new Error(`The ledger of the bench is not sound: ${JSON.stringify(checked.problems[0])}`);
    results.push({
      bench: "verify_ledger: entries a second / 100,000",
      ratio: round(perSecond / 100_000),
      better: "higher",
      required: 1,
      figures: { entries_per_second: round(perSecond, 0), entries: checked.entries_checked },
    });
    return results;
  } finally {
    await server.stop();
    rmSync(folder, { recursive: true, force: true });
  }
}
