/**
 * What a call costs in instructions of one backend, which do not depend on what else the machine does: callgrind over
 * PostgreSQL 15 in single-user mode, the difference of a longer and a shorter run. Needs valgrind and PostgreSQL 15; without
 * either it prints why it measures nothing. supabase/CONVENTIONS.md explains the figures.
 */
import { execFile, execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { createProjectDatabase } from "../tests/support/database.ts";
import { findPostgres, startPostgres } from "../tests/support/postgres.ts";
import { type BenchResult, round } from "./measure.ts";

/** Calls of the shorter and the longer run; batches are 64 calls each, and callgrind is slow. */
const runsOf = (name: string): readonly [number, number] => (name.includes("many") ? [2, 6] : [20, 120]);
const BATCH = 64;
const ACCOUNTS = 1000;
/** A pair of single calls before calls could travel together (docs/decisions/0009). */
const FORMER_PAIR = 3_020_000;
const valgrind = ["/usr/bin/valgrind", "/usr/local/bin/valgrind"].find((path) => existsSync(path));

const text = (value: unknown): string => `'${JSON.stringify(value)}'`;
const message = (n: number): string => `A message of a length that a person might send, number ${n}`;
const user = (n: number): string => `user-${1 + (n % ACCOUNTS)}`;
const batch = (n: number): number[] => Array.from({ length: BATCH }, (_, i) => n * BATCH + i);

/** The statements of the n-th piece of work, a line each. */
const works: Readonly<Record<string, (n: number) => readonly string[]>> = {
  nothing: () => ["select public.nothing()"],
  "simple-update": (n) => [
    "begin",
    `update pgbench_accounts set abalance = abalance + 7 where aid = ${n + 1}`,
    `select abalance from pgbench_accounts where aid = ${n + 1}`,
    `insert into pgbench_history (tid, bid, aid, delta, mtime) values (1, 1, ${n + 1}, 7, current_timestamp)`,
    "end",
  ],
  authorize: (n) => [
    `select public.authorize_usage('a-${n}', '${user(n)}', 'gpt-4o-mini', 1000, '${message(n)}')`,
  ],
  pair: (n) => [
    `select public.authorize_usage('p-${n}', '${user(n)}', 'gpt-4o-mini', 1000, '${message(n)}')`,
    `select public.settle_usage('p-${n}', 300, 200)`,
  ],
  "authorize many": (n) => [
    `select public.authorize_usage_many(${text(batch(n).map((i) => ({ request_id: `am-${i}`, user_id: user(i), model: "gpt-4o-mini", estimated_tokens: 1000, message: message(i) })))})`,
  ],
  "pairs many": (n) => [
    `select public.authorize_usage_many(${text(batch(n).map((i) => ({ request_id: `m-${i}`, user_id: user(i), model: "gpt-4o-mini", estimated_tokens: 1000, message: message(i) })))})`,
    `select public.settle_usage_many(${text(batch(n).map((i) => ({ request_id: `m-${i}`, input_tokens: 300, output_tokens: 200 })))})`,
  ],
  "pairs many, one account": (n) => [
    `select public.authorize_usage_many(${text(batch(n).map((i) => ({ request_id: `h-${i}`, user_id: "user-1", model: "gpt-4o-mini", estimated_tokens: 1000 })))})`,
    `select public.settle_usage_many(${text(batch(n).map((i) => ({ request_id: `h-${i}`, input_tokens: 300, output_tokens: 200 })))})`,
  ],
};

async function count(
  bin: string,
  dataDir: string,
  database: string,
  name: string,
  times: number,
  file: string,
): Promise<number> {
  const work = works[name] as (n: number) => readonly string[];
  // Each run uses ids of its own: the data directory is the same.
  const from = times === runsOf(name)[0] ? 0 : 1000;
  // As the service, as the endpoint calls: another role is asked about its rights at each call.
  const lines = ["set role service_role", ...Array.from({ length: times }, (_, n) => work(from + n)).flat()];
  writeFileSync(file, `${lines.join("\n")}\n`, { mode: 0o644 });
  const owner = execFileSync("stat", ["-c", "%u:%g", dataDir]).toString().trim().split(":").map(Number);
  const { stderr, stdout } = await new Promise<{ stderr: string; stdout: string }>((resolve, reject) => {
    const child = execFile(
      valgrind as string,
      [
        "--tool=callgrind",
        "--callgrind-out-file=/dev/null",
        join(bin, "postgres"),
        "--single",
        "-D",
        dataDir,
        "-c",
        "jit=off",
        "-c",
        "shared_buffers=64MB",
        database,
      ],
      {
        ...(process.getuid?.() === 0 ? { uid: owner[0] as number, gid: owner[1] as number } : {}),
        cwd: dataDir,
        maxBuffer: 1 << 28,
      },
      (error, out, err) =>
        error ? reject(new Error(`${err}\n${out}`.slice(-4000))) : resolve({ stdout: out, stderr: err }),
    );
    child.stdin?.end(lines.join("\n") + "\n");
  });
  const failed = /ERROR:.*/.exec(stderr + stdout);
  if (failed) throw new Error(`${name}: ${failed[0]}`);
  return Number(/Collected : (\d+)/.exec(stderr)?.[1] ?? Number.NaN);
}

export async function run(only: readonly string[] = Object.keys(works)): Promise<readonly BenchResult[]> {
  const bin = findPostgres(15);
  if (!valgrind || !bin) {
    console.error("Instructions are not counted: valgrind and PostgreSQL 15 are needed.");
    return [];
  }
  const server = await startPostgres({ version: 15 });
  const folder = mkdtempSync(join(tmpdir(), "bench-instructions-"));
  try {
    const { url } = await createProjectDatabase(server.url(), { preset: "default" });
    const client = new pg.Client({ connectionString: url });
    await client.connect();
    await client.query(`
      create function public.nothing() returns int language plpgsql as 'begin return 1; end';
      -- Wake-ups follow the clock, which callgrind stretches.
      update governance.active_config set signal_interval_ms = 60000;
      create table pgbench_accounts (aid int primary key, bid int, abalance int, filler char(84));
      create table pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));
      insert into pgbench_accounts select i, 1, 0, '' from generate_series(1, 10000) i;
      grant all on pgbench_accounts, pgbench_history to service_role;
      select count(public.upsert_account('user-' || i, 'enterprise')) from generate_series(1, ${ACCOUNTS}) i;
      select count(public.update_user_token_balance('user-' || i, 1000000000, 'bonus')) from generate_series(1, ${ACCOUNTS}) i;`);
    await client.query("vacuum analyze");
    await client.end();
    await server.kill();
    const database = new URL(url).pathname.slice(1);
    const counted = new Map<string, number>();
    await count(bin, server.dataDir, database, "nothing", 1, join(folder, "work.sql"));
    for (const name of only) {
      const file = join(folder, "work.sql");
      const [fewRuns, manyRuns] = runsOf(name);
      const few = await count(bin, server.dataDir, database, name, fewRuns, file);
      const many = await count(bin, server.dataDir, database, name, manyRuns, file);
      counted.set(name, (many - few) / (manyRuns - fewRuns));
      console.error(`${name}: ${Math.round(counted.get(name) as number).toLocaleString("en")} instructions`);
    }
    const of = (name: string): number => counted.get(name) ?? Number.NaN;
    return [
      {
        bench: "one pair of calls alone / such a pair before calls travelled together, instructions",
        ratio: round(of("pair") / FORMER_PAIR),
        better: "lower",
        required: 1.15,
        aim: 0.9,
        figures: Object.fromEntries([...counted].map(([name, value]) => [name, round(value, 0)])),
      },
      {
        bench: `a pair within a batch of ${BATCH} / a pair of calls alone, instructions`,
        ratio: round(of("pairs many") / BATCH / of("pair")),
        better: "lower",
        figures: { instructions_per_pair: round(of("pairs many") / BATCH, 0) },
      },
    ];
  } finally {
    await server.stop();
    rmSync(folder, { recursive: true, force: true });
  }
}
