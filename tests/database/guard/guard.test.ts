/**
 * The guard against a real local project: a scripted provider with failures, broken and silent streams and answers
 * that come late, replies that get lost, a process that dies with settlements owed, a database that goes away for a
 * while. In the end every token that was used is charged, once, and no hold is left.
 */
import { seeded } from "../../support/size.ts";
import { DatabaseSync } from "node:sqlite";
import { setTimeout as pause } from "node:timers/promises";
import { createClient } from "@supabase/supabase-js";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type LocalProject, startLocalProject } from "../../../local-project/index.ts";
import {
  type CallContext,
  createGuard,
  type Guard,
  type GuardOptions,
  type GuardProblem,
  type QueuedSettlement,
  type RpcClient,
  type SettlementStore,
} from "../../../shared/governance/index.ts";
import { createProjectDatabase } from "../../support/database.ts";
import { Dice } from "../../support/models/core-cases.ts";
import { postgresUrls } from "../../support/project.ts";

const callsWanted = 1_000;
const users = Array.from({ length: 40 }, (_, index) =>
  index % 4 === 0 ? `open-${index}` : `closed-${index}`,
);

/** Settlements on disk, in the runtime's own SQLite: what a backend on one machine would use (docs/guides). */
function sqliteStore(database: DatabaseSync): SettlementStore {
  database.exec(
    "create table if not exists settlements (id text primary key, queued_at integer, entry text)",
  );
  return {
    async put(entry) {
      database
        .prepare("insert or replace into settlements values (?, ?, ?)")
        .run(entry.id, entry.queued_at_ms, JSON.stringify(entry));
    },
    async remove(id) {
      database.prepare("delete from settlements where id = ?").run(id);
    },
    async list() {
      return database
        .prepare("select entry from settlements order by queued_at, rowid")
        .all()
        .map((row) => JSON.parse(String(row["entry"])) as QueuedSettlement);
    },
  };
}

let project: LocalProject;
let ownerUrl: string;
let adminUrl: string;
let admin: pg.Client;
let server: pg.Client;
/** What may happen to a request on its way, besides getting there. */
let network: (() => "lost" | "refused" | null) | null = null;

/** supabase-js as a backend has it, over a network that loses requests and replies. */
function client(): RpcClient {
  return createClient(project.url, project.serviceRoleKey, {
    auth: { persistSession: false, autoRefreshToken: false },
    global: {
      fetch: async (input, init) => {
        const fate = network?.() ?? null;
        if (fate === "refused") throw new TypeError("fetch failed: connection refused");
        const response = await fetch(input, init);
        if (fate !== "lost") return response;
        await response.text();
        throw new TypeError("fetch failed: socket hang up");
      },
    },
  });
}

function makeGuard(
  store: SettlementStore,
  problems: GuardProblem[],
  changes: Partial<GuardOptions> = {},
): Guard {
  // The address stays the same when the project comes back.
  const rpc = client();
  return createGuard({
    // The model of these tests knows what every call used: nothing is estimated.
    unsure: "release",
    client: rpc,
    store,
    now: Date.now,
    timer: (run, ms) => {
      const timer = setTimeout(run, ms);
      return () => clearTimeout(timer);
    },
    newId: () => crypto.randomUUID(),
    rpcTimeoutMs: 20_000,
    rpcRetries: 4,
    retryDelayMs: 20,
    callTimeoutMs: 1_500,
    chunkTimeoutMs: 1_500,
    failMode: (user) => (user.startsWith("open-") ? "open" : "closed"),
    onProblem: (problem) => void problems.push(problem),
    ...changes,
  });
}

/** What the provider says it used, by request: the truth that the ledger must agree with. */
const used = new Map<string, number>();

type Kind = "openai" | "responses" | "anthropic" | "google" | "perplexity";

/** A whole answer in the provider's own shape. */
function answerOf(kind: Kind, input: number, output: number): unknown {
  switch (kind) {
    case "openai":
      return {
        usage: {
          prompt_tokens: input,
          completion_tokens: output,
          total_tokens: input + output,
          prompt_tokens_details: { cached_tokens: Math.floor(input / 2) },
        },
      };
    case "responses":
      return {
        object: "response",
        usage: {
          input_tokens: input,
          output_tokens: output,
          total_tokens: input + output,
          output_tokens_details: { reasoning_tokens: Math.floor(output / 2) },
        },
      };
    case "anthropic":
      return {
        type: "message",
        usage: {
          input_tokens: input - 2,
          cache_read_input_tokens: 1,
          cache_creation_input_tokens: 1,
          output_tokens: output,
        },
      };
    case "google":
      return {
        usageMetadata: {
          promptTokenCount: input,
          candidatesTokenCount: output - 1,
          thoughtsTokenCount: 1,
          totalTokenCount: input + output,
        },
      };
    case "perplexity":
      return {
        model: "sonar",
        usage: {
          prompt_tokens: input,
          completion_tokens: output,
          total_tokens: input + output,
          search_context_size: "low",
        },
      };
  }
}

/** A stream of so many tokens, four characters each, that may break after some of them. Counts what it gave. */
async function* streamOf(
  id: string,
  kind: Kind,
  input: number,
  output: number,
  breakAfter: number | null,
): AsyncGenerator<unknown> {
  for (let token = 1; token <= output; token++) {
    if (breakAfter !== null && token > breakAfter) throw new Error("connection reset by provider");
    if (kind === "anthropic" && token === 1) {
      used.set(id, input);
      yield { type: "message_start", message: { usage: { input_tokens: input, output_tokens: 0 } } };
    }
    used.set(id, input + token);
    if (kind === "google")
      yield {
        candidates: [{ content: { parts: [{ text: "abcd" }] } }],
        usageMetadata: {
          promptTokenCount: input,
          candidatesTokenCount: token,
          totalTokenCount: input + token,
        },
      };
    else if (kind === "anthropic")
      yield { type: "content_block_delta", delta: { type: "text_delta", text: "abcd" } };
    else yield { choices: [{ delta: { content: "abcd" } }], usage: null };
    if (token % 7 === 0) await pause(1);
  }
  if (kind === "anthropic")
    yield { type: "message_delta", delta: { stop_reason: "end_turn" }, usage: { output_tokens: output } };
  else if (kind !== "google")
    yield {
      choices: [],
      usage: { prompt_tokens: input, completion_tokens: output, total_tokens: input + output },
    };
}

const tally = {
  ok: 0,
  failed: 0,
  timedOut: 0,
  unavailable: 0,
  broken: 0,
  left: 0,
  unauthorized: 0,
  repeated: 0,
};

async function oneCall(guard: Guard, dice: Dice, id: string): Promise<void> {
  const user = dice.pick(users);
  const input = dice.whole(4, 900);
  const output = dice.whole(2, 60);
  const kind = dice.pick(["openai", "responses", "anthropic", "google", "perplexity"] as const);
  const request = {
    request_id: id,
    user,
    model: dice.pick(["gpt-4o-mini", "gpt-4o"]),
    estimated_tokens: dice.whole(1, 1_500),
    input_tokens: input,
    task: "chat",
  };
  const fate = dice.next();
  if (fate < 0.55) {
    const late = fate < 0.02;
    let attempts = 0;
    const attempt = () =>
      guard.run(request, async () => {
        if (fate > 0.5 && ++attempts === 1) throw new Error("the provider answers 500");
        await pause(late ? 2_500 : dice.whole(0, 5));
        used.set(id, (used.get(id) ?? 0) + input + output);
        return answerOf(kind, input, output);
      });
    let result = await attempt();
    // What people do on an error: the same request once more, under the same key: it uses what the key holds, or that is given back by then or soon.
    if (!result.ok && result.error.kind !== "call_timed_out" && dice.chance(0.6)) {
      tally.repeated++;
      result = await attempt();
    }
    if (result.ok) {
      tally.ok++;
      if (result.value.answer === null) tally.unauthorized++;
    } else if (result.error.kind === "call_failed") tally.failed++;
    else if (result.error.kind === "call_timed_out") tally.timedOut++;
    else if (result.error.kind === "unavailable") tally.unavailable++;
    else throw new Error(`${id}: ${JSON.stringify(result.error)}`);
    return;
  }
  const breakAfter = fate < 0.7 ? dice.whole(0, output - 1) : null;
  const leaveAfter = fate > 0.9 ? dice.whole(1, output) : null;
  const shape = kind === "responses" || kind === "perplexity" ? "openai" : kind;
  const result = await guard.stream(request, async (_context: CallContext) =>
    streamOf(id, shape, input, output, breakAfter),
  );
  if (!result.ok) {
    if (result.error.kind !== "unavailable") throw new Error(`${id}: ${JSON.stringify(result.error)}`);
    tally.unavailable++;
    return;
  }
  if (result.value.answer === null) tally.unauthorized++;
  let chunks = 0;
  try {
    for await (const _ of result.value.value) if (leaveAfter !== null && ++chunks >= leaveAfter) break;
    if (leaveAfter === null) tally.ok++;
    else tally.left++;
  } catch {
    tally.broken++;
  }
}

async function many(guard: Guard, dice: Dice, prefix: string, count: number, atOnce: number): Promise<void> {
  let next = 0;
  await Promise.all(
    Array.from({ length: atOnce }, async () => {
      while (next < count) await oneCall(guard, dice, `${prefix}-${next++}`);
    }),
  );
}

async function startProject(port: number): Promise<LocalProject> {
  return startLocalProject({
    databaseUrl: ownerUrl,
    port,
    jwtSecret: "guard-test-secret-guard-test-secret",
    preset: "default",
  });
}

async function connectAdmin(): Promise<void> {
  admin = new pg.Client({ connectionString: adminUrl });
  // Its connection is cut with the others.
  admin.on("error", () => undefined);
  await admin.connect();
}

beforeAll(async () => {
  const database = await createProjectDatabase(postgresUrls()[18], { preset: "default" });
  ownerUrl = database.ownerUrl;
  adminUrl = database.url;
  await connectAdmin();
  server = new pg.Client({ connectionString: postgresUrls()[18] });
  server.on("error", () => undefined);
  await server.connect();
  project = await startProject(0);
  await admin.query("select apply_preset($1)", [
    JSON.stringify({
      name: "guard-test",
      currency: "usd",
      default_plan: "plain",
      settings: { low_balance_tokens: 0, high_usage_tokens: 1_000_000 },
      plans: [{ plan_id: "plain", name: "Plain" }],
      rules: [],
      prices: [
        {
          provider: "openai",
          model: "gpt-4o-mini",
          input_micros_per_million: 150_000,
          output_micros_per_million: 600_000,
          effective_from: "2024-01-01",
        },
      ],
    }),
  ]);
  for (const user of users)
    await admin.query("select upsert_account($1), update_user_token_balance($1, 50000000, 'bonus')", [user]);
});
afterAll(async () => {
  network = null;
  await project?.stop();
  await admin?.end();
  await server?.end();
});

describe("the guard in front of a real project", () => {
  it(`charges what was used, once, and leaves no hold, over ${callsWanted} calls in which everything goes wrong`, async () => {
    const dice = new Dice(seeded(7));
    const disk = new DatabaseSync(":memory:");
    const store = sqliteStore(disk);
    const problems: GuardProblem[] = [];
    const port = Number(new URL(project.url).port);

    // 1. A network that loses requests and replies.
    network = () => (dice.chance(0.08) ? "lost" : dice.chance(0.05) ? "refused" : null);
    const first = makeGuard(store, problems);
    await many(first, dice, "lossy", 450, 12);
    await first.idle();

    // 2. The project goes away in the middle of calls, and comes back.
    network = null;
    const second = makeGuard(store, problems);
    const during = many(second, dice, "away", 250, 12);
    await pause(150);
    await project.stop();
    await pause(1_200);
    project = await startProject(port);
    await during;
    await second.idle();
    expect(second.queueLength).toBe(0);

    // 3. The server behind it cuts every connection and takes none, while the project goes on answering.
    const cutOff = makeGuard(store, problems);
    const meanwhile = many(cutOff, dice, "cut", 150, 12);
    await pause(100);
    const name = new URL(ownerUrl).pathname.slice(1);
    await server.query(`alter database ${name} with allow_connections false`);
    await server.query("select pg_terminate_backend(pid) from pg_stat_activity where datname = $1", [name]);
    await pause(1_200);
    await server.query(`alter database ${name} with allow_connections true`);
    await meanwhile;
    await cutOff.idle();
    await connectAdmin();

    // 4. A process that dies with settlements owed: nothing of it is left but its store.
    let isDead = false;
    const living = client();
    const third = makeGuard(store, problems, {
      client: {
        rpc: (name, args) =>
          name === "authorize_usage" ? living.rpc(name, args) : Promise.reject(new TypeError("fetch failed")),
      },
      timer: (run, ms) => {
        const timer = setTimeout(() => isDead || run(), ms);
        return () => clearTimeout(timer);
      },
    });
    await many(third, dice, "dying", 25, 4);
    isDead = true;
    const owed = (await store.list()).length;
    expect(owed).toBeGreaterThan(15);
    const fourth = makeGuard(store, problems);
    expect(await fourth.drain()).toMatchObject({ waiting: 0, parked: 0 });
    await many(fourth, dice, "calm", callsWanted - 875, 12);
    // Answers that come after their time-out are charged when they come.
    await pause(2_000);
    await fourth.drain();
    await fourth.idle();
    expect(await store.list()).toEqual([]);

    // Calls that never came to an end leave their holds to expire.
    await admin.query("select governance.set_test_clock(clock_timestamp() + interval '1 hour')");
    await admin.query("select run_maintenance()");

    const { rows } = await admin.query<{
      request_id: string;
      status: string;
      charged: string | null;
      entries: string;
      debt: string;
    }>(
      // A repeat of a key that had ended is charged under a key of its own, which names it.
      `select coalesce(r.settle_metadata ->> 'repeat_of', r.request_id) as request_id, r.status, r.charged_tokens as charged, coalesce(r.unpaid_tokens, 0) as debt,
         (select count(*) from governance.token_transactions t where t.transaction_type = 'usage' and t.decision_id = r.decision_id) as entries
       from governance.requests r`,
    );
    const charged = new Map<string, number>();
    for (const row of rows)
      if (row.charged !== null)
        charged.set(row.request_id, (charged.get(row.request_id) ?? 0) + Number(row.charged));
    expect(rows.length).toBeGreaterThan(new Set(rows.map((row) => row.request_id)).size);
    const differing = [...new Set([...used.keys(), ...charged.keys()])].filter(
      (id) => (used.get(id) ?? 0) !== (charged.get(id) ?? 0),
    );
    expect(
      differing.map((id) => ({
        id,
        used: used.get(id),
        charged: charged.get(id),
        row: rows.find((row) => row.request_id === id),
      })),
    ).toEqual([]);
    const sum = (values: Iterable<number>): number => [...values].reduce((total, value) => total + value, 0);
    expect(sum(charged.values())).toBe(sum(used.values()));
    expect(rows.filter((row) => row.status === "held")).toEqual([]);
    expect(rows.filter((row) => Number(row.entries) > 1 || Number(row.debt) > 0)).toEqual([]);
    const ledger = await admin.query<{ spent: string; reserved: string }>(
      "select (select -sum(amount) from governance.token_transactions where transaction_type = 'usage') as spent, (select sum(reserved_tokens) from governance.accounts) as reserved",
    );
    expect(ledger.rows).toEqual([{ spent: String(sum(used.values())), reserved: "0" }]);
    const verified = await admin.query<{ report: { problems: unknown[] } }>(
      "select to_jsonb(verify_ledger()) as report",
    );
    expect(verified.rows[0]?.report.problems).toEqual([]);

    // A provider that failed may have worked all the same: the guard reports each.
    const expected = ["ran_unauthorized", "released_unsure"];
    expect(problems.filter((problem) => !expected.includes(problem.kind))).toEqual([]);
    for (const [kind, count] of Object.entries(tally)) expect(count, kind).toBeGreaterThan(0);
    console.info(
      `guard: ${JSON.stringify(tally)}, ${owed} settlements owed by the dead process, Σ used = Σ charged = ${sum(used.values())} tokens in ${charged.size} settlements`,
    );
  }, 600_000);
});
