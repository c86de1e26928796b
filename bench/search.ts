/**
 * How long a search of the console takes in the database, over many accounts with payments and calls: what a person may
 * type and order, each kind against 100 ms. Counted is the time on a core, which does not depend on
 * what else the machine does.
 *
 * SEARCH_ACCOUNTS (1,000,000), SEARCH_EVENTS (4,000,000, half of them calls) and SEARCH_POSTGRES (18; 15 where it is
 * installed) size it; SEARCH_URL names a database that is filled already.
 */
import { readFileSync } from "node:fs";
import pg from "pg";
import { createProjectDatabase } from "../tests/support/database.ts";
import { startPostgres } from "../tests/support/postgres.ts";
import { fill, fillPayments, names, type Size } from "./cases/history.ts";
import { type BenchResult, median, round } from "./measure.ts";

const requiredMs = 100;
const md5 = (text: string): string => `md5('${text}')`;
const misspelt = ["dmirti", "carlso", "viktro", "xenai", "fatma", "georgee"];
const some = (n: number, of: number): number => 1 + ((n * 7_919) % of);
const name = (n: number): string => names.split(",")[n % 26] as string;

/** The nth search of a kind, as SQL. */
type Search = (n: number, size: Size) => string;
const desk = (query: string, more = ""): string => `public.console_search_accounts(${query}${more})`;
const all = (query: string): string => `public.console_search(${query})`;

const accounts: Readonly<Record<string, Search>> = {
  "users: no words": () => desk("''"),
  "users: a user id": (n, { accounts: of }) => desk(`'user_${String(some(n, of)).padStart(8, "0")}'`),
  "users: part of a user id": (n, { accounts: of }) =>
    desk(`'${String(some(n, of)).padStart(8, "0").slice(2)}'`),
  "users: a first name that 38,000 have": (n) => desk(`'${name(n)}'`),
  "users: first and last name": (n) => desk(`'${name(n)} vogelmann'`),
  "users: last name, then first name": (n) => desk(`'meyerson ${name(n)}'`),
  "users: two letters": (n) => desk(`'${name(n).slice(0, 2)}'`),
  "users: three letters": (n) => desk(`'${name(n).slice(0, 3)}'`),
  "users: part of an e-mail": (n) => desk(`substr(${md5(String(some(n, 900_000)))}, 1, 6) || '@mail'`),
  "users: misspelt": (n) => desk(`'${misspelt[n % misspelt.length]}'`),
  "users: misspelt first and last name": (n) => desk(`'${misspelt[n % misspelt.length]} meyersno'`),
  "users: nobody has it": (n) => desk(`'zzqx${n}'`),
  "users: part of a payment's id": (n) => desk(`substr(${md5(`pi${some(n, 900_000)}`)}, 3, 10)`),
  "users: sorted by tokens": () => desk("''", ", 'all', null, 'tokens_this_month', true"),
  "users: a name, sorted by tokens": (n) => desk(`'${name(n)}'`, ", 'all', null, 'tokens_this_month', true"),
  "users: a name, sorted by cost, one plan": (n) =>
    desk(`'${name(n)}'`, ", 'all', 'pro', 'cost_this_month_micros', true"),
  "users: a name, near a limit": (n) => desk(`'${name(n)}'`, ", 'near_limit'"),
  "users: flagged": () => desk("''", ", 'flagged'"),
  "users: in debt, by debt": () => desk("''", ", 'in_debt', null, 'debt', true"),
  "users: disputed, by what is left": () => desk("''", ", 'disputed', null, 'available'"),
  "users: low balance": () => desk("''", ", 'low_balance'"),
  "users: near a limit, by use": () => desk("''", ", 'near_limit', null, 'usage_percent', true"),
  "users: one plan, by what is left": () => desk("''", ", 'all', 'pro', 'available'"),
  "users: active since a week, by cost": () =>
    desk("''", ", 'all', null, 'cost_this_month_micros', true, null, 20, now() - interval '7 days'"),
  "users: active since an hour, by name": () =>
    desk("''", ", 'all', null, 'name', false, null, 20, now() - interval '1 hour'"),
};

const everything: Readonly<Record<string, Search>> = {
  "all: a name": (n) => all(`'${name(n)}'`),
  "all: first and last name": (n) => all(`'${name(n)} vogelmann'`),
  "all: misspelt": (n) => all(`'${misspelt[n % misspelt.length]}'`),
  "all: nobody has it": (n) => all(`'zzqx${n}'`),
  "all: a payment": (n) => all(`'pi_' || substr(${md5(`pi${some(n, 900_000)}`)}, 1, 24)`),
  "all: the beginning of a payment": (n) => all(`'pi_' || substr(${md5(`pi${some(n, 900_000)}`)}, 1, 8)`),
  "all: part of a payment": (n) => all(`substr(${md5(`pi${some(n, 900_000)}`)}, 5, 8)`),
  "all: the end of an invoice's id": (n) => all(`substr(${md5(`in${3 * some(n, 300_000)}`)}, 17, 8)`),
  "all: a customer": (n) => all(`'cus_' || substr(${md5(`cus${some(n, 900_000)}`)}, 1, 24)`),
  "all: an order": (n) => all(`'order-${some(n, 900_000)}'`),
  "all: a call": (n, { events }) => all(`'req_' || ${md5(String(some(n, events / 2)))}`),
  "all: the beginning of a call's id": (n, { events }) =>
    all(`'req_' || substr(${md5(String(some(n, events / 2)))}, 1, 10)`),
  "all: the end of a call's id": (n, { events }) => all(`substr(${md5(String(some(n, events / 2)))}, 25, 8)`),
  "all: the middle of a call's id": (n, { events }) =>
    all(`substr(${md5(String(some(n, events / 2)))}, 12, 10)`),
  "all: a decision's number": (n, { events }) => all(`'${2 * some(n, events / 2)}'`),
  "all: a pasted e-mail": (n) =>
    all(
      `'Hello, I paid yesterday and nothing came, what is going on? The payment is pi_' || substr(${md5(`pi${some(n, 900_000)}`)}, 1, 24) || ', my name is ${name(n)}. Please help, thank you.'`,
    ),
};

/** Time of the server's process on a core, in ms: on a busy machine, what a search itself takes. Linux only. */
function coreMs(pid: number): number {
  try {
    return Number(readFileSync(`/proc/${pid}/schedstat`, "utf8").split(" ")[0]) / 1e6;
  } catch {
    return performance.now();
  }
}

/** Each kind with the median and the slowest of ten different searches, after one that does not count. */
async function measure(sql: pg.Client, size: Size): Promise<BenchResult[]> {
  const pid = (await sql.query("select pg_backend_pid() as pid")).rows[0].pid as number;
  const results: BenchResult[] = [];
  let n = 0;
  for (const [kind, search] of Object.entries({ ...accounts, ...everything })) {
    const times: number[] = [];
    const onCore: number[] = [];
    for (let turn = 0; turn <= 10; turn += 1) {
      n += 1;
      const statement = `select ${search(n, size)}`;
      const [started, core] = [performance.now(), coreMs(pid)];
      await sql.query(statement);
      if (turn === 0) continue;
      times.push(performance.now() - started);
      onCore.push(coreMs(pid) - core);
    }
    results.push({
      bench: `search, ${kind} / ${requiredMs} ms`,
      ratio: round(median(onCore) / requiredMs),
      better: "lower",
      required: 1,
      figures: {
        core_ms: round(median(onCore)),
        slowest_core_ms: round(Math.max(...onCore)),
        median_ms: round(median(times)),
      },
    });
    console.error(JSON.stringify(results.at(-1)));
  }
  return results;
}

const size: Size = {
  accounts: Number(process.env["SEARCH_ACCOUNTS"] ?? 1_000_000),
  events: Number(process.env["SEARCH_EVENTS"] ?? 4_000_000),
  requestId: "'req_' || md5(i::text)",
};

async function connect(url: string): Promise<pg.Client> {
  const sql = new pg.Client({ connectionString: url });
  sql.on("error", () => undefined);
  await sql.connect();
  return sql;
}

/** Fills a new database of a server for the searches; answers its address. */
async function prepare(serverUrl: string): Promise<string> {
  const { url } = await createProjectDatabase(serverUrl, { preset: "default" });
  const sql = await connect(url);
  await fill(sql, size);
  await fillPayments(sql);
  await sql.end();
  return url;
}

export async function run(): Promise<readonly BenchResult[]> {
  const kept = process.env["SEARCH_URL"];
  const server = kept
    ? undefined
    : await startPostgres({
        version: process.env["SEARCH_POSTGRES"] === "15" ? 15 : 18,
        settings: { shared_buffers: "1GB", synchronous_commit: "off", max_wal_size: "8GB" },
      });
  try {
    const sql = await connect(kept ?? (await prepare((server as NonNullable<typeof server>).url())));
    const results = await measure(sql, size);
    await sql.end();
    return results;
  } finally {
    await server?.stop();
  }
}
