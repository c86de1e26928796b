/**
 * Everything at once: calls alone and in batches, sign-ins, operators' acts on one account and on many, Stripe's events
 * of sales and subscriptions, presets and upkeep without a pause, on few accounts. No deadlock and no error but stated ones. LOAD_SECONDS=60 for the whole load.
 */
import { readFileSync } from "node:fs";
import { setTimeout } from "node:timers/promises";
import pg from "pg";
import { describe, expect, it } from "vitest";
import { defaultResourcesDir, readPreset } from "../../../local-project/migrations.ts";
import { dice, shuffle } from "../../support/dice.ts";
import { waitedForProcessor } from "../../support/processor.ts";
import {
  expectSoundBooks,
  installedVersions,
  openProject,
  type Project,
  projectAt,
} from "../../support/project.ts";
import {
  charge,
  checkoutSession,
  event,
  invoiceSinceBasil,
  type Purchase,
  subscription,
} from "../../support/stripe/events.ts";

const seconds = Number(process.env["LOAD_SECONDS"] ?? 10);
const connections = 16;
const users = 40;

const errorCodes = readFileSync(new URL("../../../supabase/ERROR_CODES.md", import.meta.url), "utf8");

type Call = readonly [name: string, ...parameters: readonly unknown[]];

/** A subscription with two prices, in any order, paid and ended, whose invoice may come before anybody knows whose it is. */
function* subscriptionLife(random: () => number, id: string, user: string): Generator<Call> {
  const items = ["starter", "seats"].map((key) => ({
    id: `si_${key}`,
    price: { id: `price_${key}`, lookup_key: key },
  }));
  const about = (status: string): object => ({
    ...subscription(id, { status, metadata: { user_id: user } }),
    items: { object: "list", data: random() < 0.5 ? items : items.toReversed() },
  });
  const start = Math.floor(Date.now() / 1000);
  const period = { name: id, userId: null, planId: null, amountMinor: 900, currency: "usd", start };
  const events = [
    event("customer.subscription.created", about("active")),
    event("invoice.paid", invoiceSinceBasil({ ...period, end: start + 2_592_000 })),
    event("customer.subscription.deleted", about("canceled")),
  ];
  for (const one of random() < 0.5 ? events : shuffle(events, random)) yield ["process_stripe_event", one];
}

/** Writers that take several accounts, or several rows, in an order of their own. */
function* manyAtOnce(random: () => number, id: string, someone: () => string): Generator<Call> {
  const calls = Array.from({ length: 12 }, (_, n) => ({
    request_id: `m-${id}-${n}`,
    user_id: someone(),
    model: "gpt-4o",
  }));
  const some = [...new Set(Array.from({ length: 15 }, someone))];
  yield ["authorize_usage_many", JSON.stringify(calls)];
  yield [
    "settle_usage_many",
    JSON.stringify(calls.map((one) => ({ ...one, input_tokens: 20, output_tokens: 5 }))),
  ];
  yield ["update_user_token_balance", someone(), 500, "bonus", null, {}, `k-${id}`, null];
  yield ["console_act", `a-${id}`, someone(), { kind: "take_tokens", tokens: 5 }, "load", `agent-${id}`];
  const act = JSON.stringify({ kind: "give_tokens", tokens: 5 });
  yield ["console_start_bulk_act", `bulk-${id}`, act, JSON.stringify(some), "load", `agent-${id}`];
  // Steps of whichever act, also of another worker's.
  for (let n = 0; n < 3; n += 1) yield ["console_step_bulk_act", 1 + Math.floor(random() * 20), 10];
  const alerts = Array.from({ length: 20 }, () => 1 + Math.floor(random() * 300));
  yield ["console_decide_alerts", `d-${id}`, alerts, "acknowledge", null, null, "ann"];
  yield ["claim_notifications", 20];
}

/** The calls of one worker, in turn. */
function* traffic(worker: number): Generator<Call> {
  const random = dice(worker + 1);
  const someone = (): string => `user-${Math.floor(random() * users)}`;
  const preset = JSON.stringify(readPreset("default", defaultResourcesDir));
  for (let n = 0; ; n += 1) {
    const [chance, id, user] = [random(), `${worker}-${n}`, someone()];
    if (chance < 0.5) {
      yield ["authorize_usage", id, user, "gpt-4o-mini", 1 + Math.floor(random() * 900), `message ${n}`];
      if (random() < 0.9) yield ["settle_usage", id, Math.floor(random() * 900), Math.floor(random() * 300)];
      else yield ["release_usage", id, "gone"];
    } else if (chance < 0.7)
      yield ["upsert_account", user, random() < 0.5 ? "starter" : "pro", null, `Name ${n}`, null];
    else if (chance < 0.78) yield ["block_user", `b-${id}`, user, "load", null, "ann"];
    else if (chance < 0.9) yield ["unblock_user", `u-${id}`, user, "load", "ann"];
    else if (chance < 0.92) yield ["flag_user", `f-${id}`, user, "load", "ann"];
    else if (chance < 0.97) {
      const bought: Purchase = {
        name: `l${worker}x${n}`,
        userId: user,
        packId: "tokens-500k",
        tokens: 500_000,
        amountMinor: 500,
        currency: "usd",
        created: Math.floor(Date.now() / 1000),
      };
      yield ["process_stripe_event", event("checkout.session.completed", checkoutSession(bought))];
      yield ["process_stripe_event", event("charge.succeeded", charge(bought))];
      if (random() < 0.5)
        yield ["process_stripe_event", event("charge.refunded", charge(bought, { amount_refunded: 250 }))];
    } else if (chance < 0.975) yield* subscriptionLife(random, id, user);
    else if (chance < 0.985) yield* manyAtOnce(random, id, someone);
    else if (chance < 0.99) yield ["console_search_accounts", "user"];
    else if (chance < 0.996) yield ["console_overview"];
    else yield ["apply_preset", preset];
  }
}

/** The longest wait of a kind, in milliseconds without the time that its holders waited for a processor or the disk. */
interface Longest {
  ms: number;
  /** Who waited for what, and what they who held it did. */
  about: string;
}

/** The longest wait for a lock of upkeep's, for one of a screen's read, and for any. */
type Waits = Record<"upkeep" | "reads" | "any", Longest>;

/** Looks at who waits for which lock, some hundred times a second, until told to stop. */
async function watchWaits(project: Project, upkeepPid: number, isOver: () => boolean): Promise<Waits> {
  const client = new pg.Client({ connectionString: project.url });
  await client.connect();
  const none = (): Longest => ({ ms: 0, about: "nobody" });
  const waits: Waits = { upkeep: none(), reads: none(), any: none() };
  const measure = async (): Promise<Map<number, number>> => {
    const { rows } = await client.query<{ pid: number }>(
      "select pid from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()",
    );
    return new Map(rows.map(({ pid }) => [pid, waitedForProcessor(pid)]));
  };
  let last = await measure();
  let lookedAt = performance.now();
  /** By wait: how long its holders waited for the machine so far. */
  let excused = new Map<string, number>();
  while (!isOver()) {
    const { rows } = await client.query<{
      ms: number;
      key: string;
      holders: number[];
      is_read: boolean;
      is_disk: boolean;
      about: string;
    }>(
      `select extract(epoch from clock_timestamp() - l.waitstart)::float8 * 1000 as ms,
         l.pid || ' ' || l.waitstart as key, k.holders,
         -- Screens copy listings as they read: one may wait for another, and nobody else for them.
         l.locktype = 'transactionid' and h.is_read as is_read, h.is_disk,
         format('%s for %s of %s, held by %s', left(w.query, 50), l.mode,
           coalesce(l.relation::regclass::text, l.locktype), h.queries) as about
       from pg_locks l join pg_stat_activity w using (pid)
       -- Asked once: it stops all locking for a moment.
       cross join lateral (select pg_blocking_pids(l.pid) as holders offset 0) k
       cross join lateral (
         select coalesce(bool_or(b.query ~ 'console_(overview|search)'), false) as is_read,
           coalesce(bool_or(b.wait_event_type = 'IO' or b.wait_event ilike 'walwrite'), false) as is_disk,
           string_agg(format('%s (%s)', left(b.query, 50), coalesce(b.wait_event, 'works')), ' and ') as queries
         from pg_stat_activity b where b.pid = any (k.holders)) h
       where not l.granted and l.waitstart is not null`,
    );
    const now = await measure();
    const sinceLook = performance.now() - lookedAt;
    lookedAt += sinceLook;
    const still = new Map<string, number>();
    for (const { ms, key, holders, is_read, is_disk, about } of rows) {
      const without = Math.max(
        is_disk ? sinceLook : 0,
        ...holders.map((pid) => (now.get(pid) ?? 0) - (last.get(pid) ?? 0)),
      );
      const excuse = (excused.get(key) ?? 0) + without;
      still.set(key, excuse);
      const wait = { ms: ms - excuse, about };
      const kinds: (keyof Waits)[] = ["any"];
      if (holders.includes(upkeepPid)) kinds.push("upkeep");
      if (is_read) kinds.push("reads");
      for (const kind of kinds) if (wait.ms > waits[kind].ms) waits[kind] = wait;
    }
    excused = still;
    last = now;
    await setTimeout(5);
  }
  await client.end();
  return waits;
}

async function runLoad(project: Project, forMs: number) {
  const until = Date.now() + forMs;
  const slowest = new Map<string, number>();
  const errors = new Map<string, number>();
  let calls = 0;
  let rounds = 0;
  // Upkeep has a connection of its own, so that who waits for it can be told.
  const keeper = projectAt(project.url, { connections: 1 });
  const { pid } = await keeper.one<{ pid: number }>("select pg_backend_pid() as pid");
  const timed = async (call: Call, on: Project = project): Promise<void> => {
    const started = performance.now();
    const [name, ...parameters] = call;
    try {
      const answer = await on.call(name, ...parameters);
      if (typeof answer["hint"] === "string" && !errorCodes.includes(`\`${answer["hint"]}\``))
        throw new Error(`${name} refused with a hint that is not stated: ${answer["hint"]}`);
    } catch (error) {
      const { code, message } = error as { code?: string; message: string };
      const key = `${name}: ${code ?? ""} ${message}`;
      errors.set(key, (errors.get(key) ?? 0) + 1);
    }
    calls += 1;
    slowest.set(name, Math.max(slowest.get(name) ?? 0, performance.now() - started));
  };
  const upkeep = async (): Promise<void> => {
    while (Date.now() < until) {
      await timed(["run_maintenance"], keeper);
      rounds += 1;
    }
  };
  const [waits] = await Promise.all([
    watchWaits(project, pid, () => Date.now() > until),
    upkeep(),
    ...Array.from({ length: connections - 1 }, async (_, worker) => {
      for (const call of traffic(worker)) {
        if (Date.now() > until) return;
        await timed(call);
      }
    }),
  ]);
  await keeper.close();
  return { calls, rounds, errors: Object.fromEntries(errors), slowest, waits };
}

describe.each(installedVersions())("on PostgreSQL %i", (version) => {
  it(
    `${seconds} s of everything at ${connections} connections: no error but stated ones, and sound books`,
    async () => {
      const project = await openProject(version, { connections });
      for (let user = 0; user < users; user += 1) await project.call("upsert_account", `user-${user}`);
      const { calls, rounds, errors, slowest, waits } = await runLoad(project, seconds * 1_000);
      const slow = [...slowest]
        .sort((a, b) => b[1] - a[1])
        .map(([name, ms]) => `${name} ${Math.round(ms)} ms`);
      console.log(
        `PostgreSQL ${version}: ${calls} calls beside ${rounds} rounds of upkeep in ${seconds} s; slowest: ${slow.join(", ")}`,
      );
      for (const [kind, { ms, about }] of Object.entries(waits))
        console.log(`longest wait (${kind}): ${Math.round(ms)} ms: ${about}`);
      expect(errors).toEqual({});
      expect(calls).toBeGreaterThan(500);
      expect(rounds).toBeGreaterThan(5);
      expect(waits.upkeep.ms, waits.upkeep.about).toBeLessThan(200);
      expect(waits.reads.ms, waits.reads.about).toBeLessThan(200);
      await expectSoundBooks(project);
      await project.close();
    },
    seconds * 1_000 + 200_000,
  );
});
