/**
 * Many callers at once through the queue that lets their calls travel together (`batchCalls`), against what a bare
 * PostgreSQL does with as many connections, and against calls that go one by one. Each ratio is of one run, its sides in
 * alternating rounds; `synchronous_commit` and `fsync` are on. BENCH_SECONDS is the length of a round (8).
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createClient } from "@supabase/supabase-js";
import pg from "pg";
import { startLocalProject } from "../local-project/index.ts";
import { batchCalls, createGuard, memoryStore, type RpcClient } from "../shared/governance/index.ts";
import { createProjectDatabase } from "../tests/support/database.ts";
import { findPostgres, type PostgresServer, startPostgres } from "../tests/support/postgres.ts";
import { ACCOUNTS, bareDeducts, driver, fill, query, rate, SECONDS, simpleUpdate } from "./enforcement.ts";
import { alternate, type BenchResult, median, round } from "./measure.ts";

const timer = (run: () => void, ms: number): (() => void) => {
  const timeout = setTimeout(run, ms);
  return () => clearTimeout(timeout);
};
let made = 0;
const newId = (): string => `batch-${process.pid}-${++made}`;
/** Accounts in turn, far from each other: at random, some would write as often as a bot, and be stopped for it. */
let turn = 0;
const nextAccount = (accounts: number): number => 1 + ((++turn * 7_919) % accounts);

/** One pair of calls, however it is made. */
type Pair = (requestId: string, account: number) => Promise<unknown>;
interface Traffic {
  readonly pairsPerSecond: number;
  /** Of a whole pair, in milliseconds. */
  readonly p50: number;
  readonly p99: number;
}

/** So many callers who ask again as soon as they are answered. */
async function traffic(pair: Pair, callers: number, accounts: number): Promise<Traffic> {
  const took: number[] = [];
  const start = performance.now();
  const until = start + SECONDS * 1000;
  await Promise.all(
    Array.from({ length: callers }, async () => {
      while (performance.now() < until) {
        const before = performance.now();
        await pair(newId(), nextAccount(accounts));
        took.push(performance.now() - before);
      }
    }),
  );
  took.sort((a, b) => a - b);
  return {
    pairsPerSecond: took.length / ((performance.now() - start) / 1000),
    p50: median(took),
    p99: took[Math.floor(took.length * 0.99)] ?? Number.NaN,
  };
}

/** The role that a backend's calls have, as PostgREST sets it. */
const asBackend = "-c role=service_role";

/** The functions over connections of this process, as PostgREST calls them: prepared, by name. */
function overPool(pool: pg.Pool): RpcClient {
  return {
    async rpc(name, args) {
      const names = Object.keys(args);
      const { rows } = await pool.query<{ answer: unknown }>({
        name: `${name} ${names.length}`,
        text: `select public.${name}(${names.map((key, at) => `${key} => $${at + 1}`).join(", ")}) as answer`,
        values: Object.values(args).map((value) =>
          typeof value === "object" ? JSON.stringify(value) : value,
        ),
      });
      return { data: rows[0]?.answer, error: null, status: 200 };
    },
  };
}

/** On one account without a message: the rules against spam and hogging would stop it, as they should. */
const pairOver =
  (client: RpcClient, hasMessage = true): Pair =>
  async (id, account) => {
    const asked = await client.rpc("authorize_usage", {
      p_request_id: id,
      p_user_id: `user-${account}`,
      p_model: "gpt-4o-mini",
      p_estimated_tokens: 1000,
      ...(hasMessage ? { p_message: `A message of a length that a person might send, number ${id}` } : {}),
    });
    const decision = (asked.data as { decision?: string } | null)?.decision;
    if (asked.error || decision === "block") throw new Error(JSON.stringify(asked));
    const settled = await client.rpc("settle_usage", {
      p_request_id: id,
      p_input_tokens: 300,
      p_output_tokens: 200,
    });
    if (settled.error) throw new Error(JSON.stringify(settled));
  };

/** A project with its accounts; each bench below has one of its own where together they would pass 100 messages a day. */
async function filled(server: PostgresServer): Promise<string> {
  const { url } = await createProjectDatabase(server.url(), { preset: "default" });
  await fill(url, ACCOUNTS);
  return url;
}

async function walOf(url: string): Promise<{ bytes: number; entries: number }> {
  const { bytes, entries } = await query<{ bytes: string; entries: string }>(
    url,
    "select pg_current_wal_lsn() - '0/0' as bytes, (select count(*) from governance.token_transactions) as entries",
  );
  return { bytes: Number(bytes), entries: Number(entries) };
}

async function overHttp(url: string): Promise<BenchResult> {
  const callers = 64;
  const guardedCallers = 1_000;
  // As Supabase's own endpoint answers: one call at a time.
  const project = await startLocalProject({ databaseUrl: url, poolSize: 16, batchesCalls: false });
  const supabase = createClient(project.url, project.serviceRoleKey, { auth: { persistSession: false } });
  const guard = createGuard({ client: supabase, store: memoryStore(), now: Date.now, timer, newId });
  const guarded: Pair = async (id, account) => {
    const result = await guard.run(
      {
        user: `user-${account}`,
        model: "gpt-4o-mini",
        estimated_tokens: 1000,
        message: `A message of a length that a person might send, number ${id}`,
      },
      async () => ({ usage: { prompt_tokens: 300, completion_tokens: 200, total_tokens: 500 } }),
    );
    if (!result.ok) throw new Error(JSON.stringify(result.error));
    await result.value.settlement;
  };
  try {
    const seen = { guarded: [] as Traffic[], plain: [] as Traffic[] };
    const { ours, floor, ratio } = await alternate(
      3,
      async () => {
        seen.guarded.push(await traffic(guarded, guardedCallers, ACCOUNTS));
        return seen.guarded.at(-1)?.pairsPerSecond ?? 0;
      },
      async () => {
        seen.plain.push(await traffic(pairOver(supabase), callers, ACCOUNTS));
        return seen.plain.at(-1)?.pairsPerSecond ?? 0;
      },
    );
    await guard.idle();
    const books = await query<{ problems: unknown[]; held: string }>(
      url,
      `select public.verify_ledger() -> 'problems' as problems,
        (select sum(reserved_tokens) from governance.accounts) as held`,
    );
    if (books.problems.length > 0 || Number(books.held) !== 0)
      throw new Error(`The books are not exact: ${JSON.stringify(books)}`);
    return {
      bench: `supabase-js over loopback: ${guardedCallers} callers with the guard, books exact / ${callers} callers one call at a time`,
      ratio: round(ratio),
      better: "higher",
      required: 4,
      figures: {
        guarded_pairs_per_second: round(ours, 0),
        plain_pairs_per_second: round(floor, 0),
        guarded_p50_ms: round(median(seen.guarded.map(({ p50 }) => p50)), 1),
        plain_p50_ms: round(median(seen.plain.map(({ p50 }) => p50)), 1),
      },
    };
  } finally {
    await guard.idle();
    await project.stop();
  }
}

export async function run(): Promise<readonly BenchResult[]> {
  const version = findPostgres(15) ? 15 : 18;
  const server = await startPostgres({
    version,
    settings: { fsync: "on", synchronous_commit: "on", shared_buffers: "256MB", max_wal_size: "4GB" },
  });
  const folder = mkdtempSync(join(tmpdir(), "bench-batches-"));
  const results: BenchResult[] = [];
  try {
    const url = await filled(server);
    const pool = new pg.Pool({ connectionString: url, max: 2, options: asBackend });
    const queue = batchCalls(overPool(pool), { timer });
    const simple = await simpleUpdate(server);
    for (const [callers, connections, required, aim] of [
      [8, 8, 0.6, 0.8],
      [32, 32, 1.1, 1.6],
      [64, 32, 1.4, 2.2],
    ] as const) {
      const seen: Traffic[] = [];
      const { ours, floor, ratio } = await alternate(
        3,
        async () => {
          seen.push(await traffic(pairOver(queue), callers, ACCOUNTS));
          return seen.at(-1)?.pairsPerSecond ?? 0;
        },
        () => rate(simple, connections, folder),
      );
      results.push({
        bench: `${callers} callers through the queue, authorize+settle pairs / pgbench simple-update at ${connections}`,
        ratio: round(ratio),
        better: "higher",
        required,
        aim,
        figures: {
          pairs_per_second: round(ours, 0),
          simple_updates_per_second: round(floor, 0),
          p50_ms: round(median(seen.map(({ p50 }) => p50)), 1),
          p99_ms: round(median(seen.map(({ p99 }) => p99)), 1),
          server: `PostgreSQL ${version}`,
          driver,
        },
      });
    }

    const walBefore = await walOf(url);
    await traffic(pairOver(queue), 32, ACCOUNTS);
    const walAfter = await walOf(url);
    const walBytes = (walAfter.bytes - walBefore.bytes) / Math.max(1, walAfter.entries - walBefore.entries);
    results.push({
      bench: "WAL bytes a pair, 32 callers through the queue / 2,000",
      ratio: round(walBytes / 2_000),
      better: "lower",
      figures: { wal_bytes_per_pair: round(walBytes, 0) },
    });

    const bare = await bareDeducts(server);
    const hot = await alternate(
      3,
      async () => (await traffic(pairOver(queue, false), 32, 1)).pairsPerSecond,
      () => rate(bare, 32, folder),
    );
    results.push({
      bench: "one hot account: pairs of 32 callers through the queue / bare one-row deducts at 32",
      ratio: round(hot.ratio),
      better: "higher",
      required: 2,
      aim: 4,
      figures: { pairs_per_second: round(hot.ours, 0), deducts_per_second: round(hot.floor, 0), driver },
    });

    await pool.end();
    const next = await filled(server);
    const batched = new pg.Pool({ connectionString: next, max: 2, options: asBackend });
    const nextQueue = batchCalls(overPool(batched), { timer });
    const single = new pg.Pool({ connectionString: next, max: 32, options: asBackend });
    const p99 = await alternate(
      3,
      async () => (await traffic(pairOver(nextQueue), 32, ACCOUNTS)).p99,
      async () => (await traffic(pairOver(overPool(single)), 32, ACCOUNTS)).p99,
    );
    await Promise.all([single.end(), batched.end()]);
    results.push({
      bench: "p99 of a pair at 32 callers: through the queue / each call by itself on 32 connections",
      ratio: round(p99.ratio),
      better: "lower",
      required: 1,
      figures: { queue_p99_ms: round(p99.ours, 1), single_p99_ms: round(p99.floor, 1) },
    });
    results.push(await overHttp(next));
    return results;
  } finally {
    await server.stop();
    rmSync(folder, { recursive: true, force: true });
  }
}
