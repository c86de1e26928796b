/**
 * The contract under attack: what a hostile or careless backend may send, over plain HTTP and supabase-js, against
 * the local project in front of a real PostgreSQL and on PGlite. No input gives a 5xx or an XX error, a refused
 * call changes nothing, and the ledger verifies at the end, whatever happened.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startLocalProject } from "../../../local-project/index.ts";
import { hostile, Target } from "../../support/attack-target.ts";
import { createProjectDatabase } from "../../support/database.ts";
import { postgresUrls } from "../../support/project.ts";

interface Authorized {
  readonly request_id: string;
  readonly decision: string;
  readonly reason: string | null;
  readonly http_status: number;
  readonly reserved_tokens: number;
  readonly model: string;
  readonly balance: { available: number; reserved: number; total: number; debt: number };
  readonly decision_id: number;
}
interface Settled {
  readonly charged_tokens: number;
  readonly released_tokens: number;
  readonly debt_tokens: number;
  readonly balance: { available: number; reserved: number; total: number; debt: number };
}

/** The functions are the same everywhere: on PGlite a few of each kind, with what strains an embedded database. */
const embedded = new Set([
  "authorize_usage",
  "upsert_account",
  "save_rule",
  "process_stripe_event",
  "usage_events_since",
]);
const hardForPglite = new Set([
  "null",
  "a megabyte",
  "NUL",
  "half a surrogate pair",
  "emoji",
  "deep nesting",
  "2^63",
]);

/** Each function with a call that works, as JSON text by parameter. */
const calls: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  authorize_usage: {
    p_request_id: '"attack-1"',
    p_user_id: '"victim"',
    p_model: '"gpt-4o-mini"',
    p_estimated_tokens: "10",
    p_message: '"Hello"',
    p_conversation_id: '"c"',
    p_task_type: '"chat"',
    p_scope_id: '"s"',
    p_complexity: "0.5",
  },
  settle_usage: {
    p_request_id: '"held"',
    p_input_tokens: "3",
    p_output_tokens: "4",
    p_model: '"gpt-4o-mini"',
    p_metadata: "{}",
  },
  release_usage: { p_request_id: '"held-too"', p_reason: '"why"' },
  record_token_usage: {
    p_user_id: '"victim"',
    p_tokens_used: "5",
    p_cost_gbp: "0.01",
    p_model: '"gpt-4o-mini"',
  },
  explain_decision: { p_decision_id: "1" },
  upsert_account: {
    p_user_id: '"victim"',
    p_plan_id: "null",
    p_email: '"v@example.com"',
    p_display_name: '"V"',
    p_timezone: '"UTC"',
    p_metadata: "{}",
  },
  update_user_token_balance: {
    p_user_id: '"victim"',
    p_amount: "7",
    p_transaction_type: '"bonus"',
    p_description: '"d"',
    p_metadata: "{}",
    p_idempotency_key: '"key-1"',
    p_expires_at: "null",
  },
  get_user_token_balance: { p_user_id: '"victim"' },
  get_user_transaction_history: { p_user_id: '"victim"', p_limit: "5", p_before_id: "null" },
  get_or_create_token_record: { p_user_id: '"victim"' },
  calculate_user_token_usage: {
    p_user_id: '"victim"',
    p_start: '"2026-01-01T00:00:00Z"',
    p_end: '"2026-12-01T00:00:00Z"',
  },
  verify_ledger: { p_user_id: '"victim"' },
  begin_checkout: { p_user_id: '"victim"', p_pack_id: '"nope"' },
  process_stripe_event: { p_event: '{"id":"evt_x","type":"x.y","data":{"object":{}}}' },
  apply_preset: { p_preset: "{}" },
  save_rule: { p_command_id: '"cmd-1"', p_rule: "{}", p_expected_version: "null", p_operator: '"op"' },
  list_rules: {},
  flag_user: { p_command_id: '"cmd-2"', p_user_id: '"victim"', p_reason: '"r"', p_operator: '"op"' },
  unflag_user: { p_command_id: '"cmd-2b"', p_user_id: '"victim"', p_reason: '"r"', p_operator: '"op"' },
  block_user: {
    p_command_id: '"cmd-3"',
    p_user_id: '"other"',
    p_reason: '"r"',
    p_until: "null",
    p_operator: '"op"',
  },
  unblock_user: { p_command_id: '"cmd-4"', p_user_id: '"other"', p_reason: '"r"', p_operator: '"op"' },
  usage_events_since: { p_cursor: "null", p_limit: "5", p_filter: "{}" },
};

async function prepare(target: Target): Promise<void> {
  for (const user of ["victim", "other"]) {
    await target.ask("upsert_account", { p_user_id: user });
    await target.ask("update_user_token_balance", {
      p_user_id: user,
      p_amount: 100_000,
      p_transaction_type: "bonus",
    });
  }
  for (const request of ["held", "held-too"]) {
    await target.ask("authorize_usage", {
      p_request_id: request,
      p_user_id: "victim",
      p_model: "gpt-4o-mini",
      p_estimated_tokens: 50,
    });
  }
}

describe.each(["PostgreSQL 18", "PGlite"] as const)("hostile input on %s", (kind) => {
  let target: Target;
  let folder = "";
  beforeAll(async () => {
    if (kind === "PGlite") {
      folder = mkdtempSync(join(tmpdir(), "attack-"));
      target = new Target(await startLocalProject({ dataDir: join(folder, "data"), upkeepIntervalMs: null }));
    } else {
      const { ownerUrl } = await createProjectDatabase(postgresUrls()[18], { preset: "default" });
      target = new Target(await startLocalProject({ databaseUrl: ownerUrl, upkeepIntervalMs: null }));
    }
    await prepare(target);
  });
  afterAll(async () => {
    await target?.project.stop();
    if (folder) rmSync(folder, { recursive: true, force: true });
  });

  const names = Object.keys(calls).filter((name) => kind !== "PGlite" || embedded.has(name));
  it.each(names)("%s refuses in words or copes, and a refusal changes nothing", async (name) => {
    const valid = calls[name] ?? {};
    const faults: string[] = [];
    const refused: [what: string, parameters: Readonly<Record<string, string>>][] = [];
    for (const parameter of Object.keys(valid)) {
      for (const [what, json] of Object.entries(hostile)) {
        if (kind === "PGlite" && !hardForPglite.has(what)) continue;
        const parameters = { ...valid, [parameter]: json };
        const { status, body } = await target.send(name, parameters);
        const told = `${parameter} = ${what}: ${status} ${JSON.stringify(body).slice(0, 200)}`;
        if (body?.code === "PGRST202") faults.push(`not there: ${name}`);
        if (status >= 500 || body?.code?.startsWith("XX")) faults.push(`5xx: ${told}`);
        else if (status >= 400 && !body?.message) faults.push(`no words: ${told}`);
        else if (status >= 400 && body.code?.startsWith("PT") && !body.hint) faults.push(`no hint: ${told}`);
        if (status >= 400) refused.push([`${parameter} = ${what}`, parameters]);
      }
    }
    // What was refused is refused again, and all of it together leaves no trace.
    const before = await target.digest();
    for (const [what, parameters] of refused) {
      if ((await target.send(name, parameters)).status < 400) faults.push(`taken the second time: ${what}`);
    }
    if ((await target.digest()) !== before)
      faults.push(`changed by what it refused: ${refused.map(([what]) => what).join(", ")}`);
    expect(faults).toEqual([]);
  });

  it("leaves a sound ledger", async () => {
    await target.expectSoundLedger();
  });
});

describe.each([18, 15] as const)("concurrency on PostgreSQL %i", (version) => {
  const server = postgresUrls()[version];
  let target: Target;
  let sql: pg.Pool;
  beforeAll(async () => {
    if (!server) return;
    const { url, ownerUrl } = await createProjectDatabase(server, { preset: "default" });
    target = new Target(await startLocalProject({ databaseUrl: ownerUrl, poolSize: 32 }));
    sql = new pg.Pool({ connectionString: url, max: 40 });
  });
  afterAll(async () => {
    await target?.project.stop();
    await sql?.end();
  });

  it.skipIf(!server)(
    "32 connections × 200 calls on 8 accounts: nothing below zero, books agree, no 5xx",
    async () => {
      const users = Array.from({ length: 8 }, (_, index) => `crowd-${index}`);
      for (const user of users) {
        await target.ask("upsert_account", { p_user_id: user });
        await target.ask("update_user_token_balance", {
          p_user_id: user,
          p_amount: 6_000,
          p_transaction_type: "bonus",
        });
      }
      const statuses = new Map<number, number>();
      const negative: string[] = [];
      const tally = (status: number): void => void statuses.set(status, (statuses.get(status) ?? 0) + 1);
      await Promise.all(
        Array.from({ length: 32 }, async (_, worker) => {
          // Once in full; on the older server enough to see that it locks alike.
          for (let call = 0; call < (version === 18 ? 200 : 40); call++) {
            const request = JSON.stringify(`crowd-${worker}-${call}`);
            const user = JSON.stringify(users[(worker * 7 + call) % 8]);
            const asked = await target.send("authorize_usage", {
              p_request_id: request,
              p_user_id: user,
              p_model: '"gpt-4o-mini"',
              p_estimated_tokens: String(50 + (call % 5) * 40),
            });
            tally(asked.status);
            const { decision, balance } = asked.body as unknown as Authorized;
            if (balance.available < 0 || balance.reserved < 0) negative.push(JSON.stringify(asked.body));
            if (decision === "block") continue;
            const fate = (worker + call) % 10;
            if (fate === 0) continue;
            const ended =
              fate === 1
                ? await target.send("release_usage", { p_request_id: request })
                : await target.send("settle_usage", {
                    p_request_id: request,
                    p_input_tokens: "30",
                    p_output_tokens: String(call % 120),
                  });
            tally(ended.status);
          }
        }),
      );
      expect(negative).toEqual([]);
      expect([...statuses.keys()]).toEqual([200]);
      const { rows } = await sql.query(`select
      (select count(*)::int from governance.accounts a where subscription_tokens + purchased_tokens + promotional_tokens - reserved_tokens < 0) as below_zero,
      (select count(*)::int from governance.accounts a where
        (select coalesce(sum(amount), 0) from governance.token_transactions t where t.account_id = a.account_id)
        <> (select coalesce(sum(remaining), 0) from governance.lots l where l.account_id = a.account_id)) as books_differ`);
      expect(rows).toEqual([{ below_zero: 0, books_differ: 0 }]);
      await target.expectSoundLedger();
    },
  );

  it.skipIf(!server)(
    "one key sent 64 times at once holds once; one settlement sent 64 times charges once",
    async () => {
      await target.ask("upsert_account", { p_user_id: "repeater" });
      const before = await target.ask<number>("get_user_token_balance", { p_user_id: "repeater" });
      const request = {
        p_request_id: "again",
        p_user_id: "repeater",
        p_model: "gpt-4o-mini",
        p_estimated_tokens: 100,
      };
      const held = await Promise.all(
        Array.from({ length: 64 }, () => target.ask<Authorized>("authorize_usage", request)),
      );
      expect(new Set(held.map((one) => JSON.stringify(one))).size).toBe(1);
      expect(await target.ask("get_user_token_balance", { p_user_id: "repeater" })).toBe(before - 100);
      const settlement = { p_request_id: "again", p_input_tokens: 30, p_output_tokens: 40 };
      const settled = await Promise.all(
        Array.from({ length: 64 }, () => target.ask<Settled>("settle_usage", settlement)),
      );
      expect(new Set(settled.map((one) => JSON.stringify(one))).size).toBe(1);
      expect(await target.ask("get_user_token_balance", { p_user_id: "repeater" })).toBe(before - 70);
    },
  );

  it.skipIf(!server)("settle and release racing for one hold: one of them wins, once", async () => {
    for (let round = 0; round < 12; round++) {
      const p_request_id = `race-${round}`;
      const p_user_id = "racer";
      const { balance } = await target.ask<Authorized>("authorize_usage", {
        p_request_id,
        p_user_id,
        p_model: "gpt-4o-mini",
        p_estimated_tokens: 90,
      });
      const ends = await Promise.all([
        target.client.rpc("settle_usage", { p_request_id, p_input_tokens: 45, p_output_tokens: 45 }),
        target.client.rpc("release_usage", { p_request_id }),
      ]);
      expect(ends.filter(({ error }) => error === null)).toHaveLength(1);
      const charged = ends[0]?.error === null ? 90 : 0;
      expect(await target.ask("get_user_token_balance", { p_user_id })).toBe(balance.total - charged);
    }
  });

  it.skipIf(!server)("one request id used by two users at once belongs to one of them", async () => {
    for (let round = 0; round < 10; round++) {
      const replies = await Promise.all(
        ["left", "right", "third"].map((p_user_id) =>
          target.client.rpc("authorize_usage", {
            p_request_id: `shared-${round}`,
            p_user_id,
            p_model: "m",
            p_estimated_tokens: 10,
          }),
        ),
      );
      expect(replies.filter(({ error }) => error === null)).toHaveLength(1);
      for (const { error, status } of replies)
        if (error) expect([status, error.hint]).toEqual([409, "idempotency_conflict"]);
    }
    await target.expectSoundLedger();
  });

  it.skipIf(!server)(
    "a feed reader sees every event exactly once, also late commits, while writers run",
    async () => {
      const { next_cursor: start } = await drain(target, null);
      const written = new Set<string>();
      let isDone = false;
      // Slow transactions: their ids are taken early and committed late.
      const slow = Promise.all(
        Array.from({ length: 4 }, async (_, worker) => {
          for (let round = 0; round < 4; round++) {
            const client = await sql.connect();
            const id = `slow-${worker}-${round}`;
            await client.query("begin");
            await client.query("select public.authorize_usage($1, $2, 'm', 10)", [id, `slow-user-${worker}`]);
            await new Promise((resolve) => setTimeout(resolve, 150 + 100 * worker));
            // Some never happened at all.
            await client.query(round === 2 ? "rollback" : "commit");
            client.release();
            if (round !== 2) written.add(`authorized ${id}`);
          }
        }),
      );
      const fast = Promise.all(
        Array.from({ length: 8 }, async (_, worker) => {
          for (let call = 0; call < 40; call++) {
            const p_request_id = `fast-${worker}-${call}`;
            await target.ask("authorize_usage", {
              p_request_id,
              p_user_id: `fast-user-${worker}`,
              p_model: "m",
              p_estimated_tokens: 10,
            });
            written.add(`authorized ${p_request_id}`);
            await target.ask("settle_usage", { p_request_id, p_input_tokens: 5, p_output_tokens: 5 });
            written.add(`settled ${p_request_id}`);
          }
        }),
      );
      const writers = Promise.all([slow, fast]).then(() => {
        isDone = true;
      });
      const seen: string[] = [];
      let cursor = start;
      while (true) {
        const wasDone = isDone;
        const page = await drain(target, cursor);
        seen.push(...page.keys);
        cursor = page.next_cursor;
        if (wasDone && page.keys.length === 0) break;
      }
      await writers;
      expect(seen.filter((key, index) => seen.indexOf(key) !== index)).toEqual([]);
      expect(new Set(seen)).toEqual(written);
    },
  );
});

/** Reads the feed from a cursor until there is nothing more. */
async function drain(
  target: Target,
  from: string | null,
): Promise<{ keys: string[]; next_cursor: string | null }> {
  const keys: string[] = [];
  let cursor = from;
  while (true) {
    const page = await target.ask<{
      events: { kind: string; request_id: string }[];
      next_cursor: string | null;
    }>("usage_events_since", { p_cursor: cursor, p_limit: 50 });
    keys.push(...page.events.map((event) => `${event.kind} ${event.request_id}`));
    cursor = page.next_cursor;
    if (page.events.length === 0) return { keys, next_cursor: cursor };
  }
}

describe("what an operator and a backend rely on", () => {
  let target: Target;
  let sql: pg.Pool;
  beforeAll(async () => {
    const { url, ownerUrl } = await createProjectDatabase(postgresUrls()[18], { preset: "default" });
    target = new Target(await startLocalProject({ databaseUrl: ownerUrl, upkeepIntervalMs: null }));
    sql = new pg.Pool({ connectionString: url, max: 4 });
  });
  afterAll(async () => {
    await target?.project.stop();
    await sql?.end();
  });
  const authorize = (
    p_request_id: string,
    p_user_id: string,
    more: Record<string, unknown> = {},
  ): Promise<Authorized> =>
    target.ask("authorize_usage", {
      p_request_id,
      p_user_id,
      p_model: "gpt-4o-mini",
      p_estimated_tokens: 20,
      ...more,
    });

  it("fifteen identical messages are spam; block refuses with 403; unblock lets in again", async () => {
    const reasons: (string | null)[] = [];
    for (let count = 1; count <= 15; count++) {
      const answer = await authorize(`spam-${count}`, "spammer", {
        p_message: count % 2 ? "Buy  NOW!" : " buy now! ",
      });
      reasons.push(answer.reason);
      // Slower than a bot, in the database's own eyes.
      await sql.query(
        "update governance.accounts set last_message_at = last_message_at - interval '3 seconds' where user_id = 'spammer'",
      );
    }
    expect(reasons.slice(0, 9)).toEqual(Array.from({ length: 9 }, () => null));
    expect(reasons.slice(9)).toEqual(Array.from({ length: 6 }, () => "spam_identical"));
    await target.ask("block_user", {
      p_command_id: "b1",
      p_user_id: "spammer",
      p_reason: "spam",
      p_until: null,
      p_operator: "op",
    });
    expect(await authorize("spam-blocked", "spammer")).toMatchObject({
      decision: "block",
      reason: "user_blocked",
      http_status: 403,
    });
    await target.ask("unblock_user", {
      p_command_id: "u1",
      p_user_id: "spammer",
      p_reason: "sorry",
      p_operator: "op",
    });
    expect(await authorize("spam-free", "spammer", { p_message: "Buy now!" })).toMatchObject({
      decision: "allow",
    });
  });

  it("keeps no message, wherever one looks", async () => {
    const secret = "xylophone-quokka-4711";
    await authorize("secret", "discreet", { p_message: `My password is ${secret}` });
    const tables = await sql.query(`select c.oid::regclass::text as name from pg_class c
      where c.relnamespace = 'governance'::regnamespace and c.relkind = 'r'`);
    for (const { name } of tables.rows as { name: string }[]) {
      const { rows } = await sql.query(`select count(*)::int as hits from ${name} t where t::text ilike $1`, [
        `%${secret}%`,
      ]);
      expect({ name, hits: rows[0].hits }).toEqual({ name, hits: 0 });
    }
  });

  it("a repeat with other parameters is a conflict in each of them, and changes nothing", async () => {
    const first = {
      p_request_id: "same",
      p_user_id: "strict",
      p_model: "a",
      p_estimated_tokens: 20,
      p_message: "hi",
      p_conversation_id: "c",
      p_task_type: "chat",
      p_scope_id: "s",
      p_complexity: 0.5,
    };
    await target.ask("authorize_usage", first);
    const before = await target.digest();
    const changes = {
      p_user_id: "other",
      p_model: "b",
      p_estimated_tokens: 21,
      p_message: "hi!",
      p_conversation_id: "d",
      p_task_type: "code",
      p_scope_id: "t",
      p_complexity: 0.6,
    };
    for (const [name, value] of Object.entries(changes)) {
      expect([name, await target.refusal("authorize_usage", { ...first, [name]: value })]).toEqual([
        name,
        expect.objectContaining({ status: 409, hint: "idempotency_conflict" }),
      ]);
    }
    await target.refusal("authorize_usage", { ...first, p_message: null });
    expect(await target.digest()).toBe(before);
  });

  it("a settlement beyond hold and balance becomes debt, and the next grant pays it", async () => {
    await target.ask("upsert_account", { p_user_id: "debtor" });
    const { balance } = await authorize("owe", "debtor", { p_estimated_tokens: 10 });
    const over = balance.total + 500;
    const settled = await target.ask<Settled>("settle_usage", {
      p_request_id: "owe",
      p_input_tokens: over,
      p_output_tokens: 0,
    });
    expect(settled).toMatchObject({
      charged_tokens: over,
      debt_tokens: 500,
      balance: { available: 0, reserved: 0, total: 0, debt: 500 },
    });
    await target.ask("update_user_token_balance", {
      p_user_id: "debtor",
      p_amount: 800,
      p_transaction_type: "bonus",
    });
    expect(await target.ask("get_user_token_balance", { p_user_id: "debtor" })).toBe(300);
    await target.expectSoundLedger();
  });

  it("an expired hold gives its tokens back, and a late settlement still charges", async () => {
    const { balance } = await authorize("late", "sleeper", { p_estimated_tokens: 300 });
    await sql.query("select governance.set_test_clock(now() + interval '3 hours')");
    try {
      expect(await target.ask("get_user_token_balance", { p_user_id: "sleeper" })).toBe(balance.total);
      const settled = await target.ask<Settled>("settle_usage", {
        p_request_id: "late",
        p_input_tokens: 100,
        p_output_tokens: 50,
      });
      expect(settled.charged_tokens).toBe(150);
      expect(settled.balance.total).toBe(balance.total - 150);
      await target.refusal("release_usage", { p_request_id: "late" });
    } finally {
      await sql.query("select governance.set_test_clock(null)");
    }
    await target.expectSoundLedger();
  });

  it.each([
    ["Pacific/Chatham", "2026-03-31T10:14:59Z", "2026-03-31T10:15:00Z"],
    ["America/St_Johns", "2026-03-01T03:29:59Z", "2026-03-01T03:30:00Z"],
    ["Europe/London", "2026-03-31T22:59:59Z", "2026-03-31T23:00:00Z"],
    ["Asia/Kathmandu", "2026-02-28T18:14:59Z", "2026-02-28T18:15:00Z"],
  ])(
    "the month turns at local midnight in %s, with one allowance, whatever happens at once",
    async (zone, before, after) => {
      const user = `month-${zone}`;
      try {
        await sql.query("select governance.set_test_clock($1, true)", [before]);
        await target.ask("upsert_account", { p_user_id: user, p_timezone: zone });
        const grants = async (): Promise<number> => {
          const history = await target.ask<{ transaction_type: string }[]>("get_user_transaction_history", {
            p_user_id: user,
          });
          return history.filter((entry) => entry.transaction_type === "subscription_grant").length;
        };
        await authorize(`${user}-1`, user);
        expect(await grants()).toBe(1);
        await sql.query("select governance.set_test_clock($1, true)", [after]);
        await Promise.all([
          ...Array.from({ length: 10 }, (_, index) => authorize(`${user}-roll-${index}`, user)),
          target.ask("run_maintenance"),
          target.ask("run_maintenance"),
        ]);
        expect(await grants()).toBe(2);
      } finally {
        await sql.query("select governance.set_test_clock(null)");
      }
      const { problems } = await target.ask<{ problems: unknown[] }>("verify_ledger", { p_user_id: user });
      expect(problems).toEqual([]);
    },
  );

  it("forty days of upkeep from four places at once, in the midst of calls, refuse nobody and lose nothing", async () => {
    const refused: string[] = [];
    const start = Date.now();
    let number = 0;
    try {
      for (let step = 1; step <= 20; step++) {
        await sql.query("select governance.set_test_clock($1, true)", [
          new Date(start + step * 48 * 3_600_000).toISOString(),
        ]);
        const works = [
          ...Array.from({ length: 4 }, () => target.client.rpc("run_maintenance")),
          ...Array.from({ length: 4 }, () => target.client.rpc("console_overview")),
          ...Array.from({ length: 24 }, async (_, index) => {
            const p_request_id = `storm-${++number}`;
            const asked = await target.client.rpc("authorize_usage", {
              p_request_id,
              p_user_id: `storm-user-${index % 6}`,
              p_model: "gpt-4o-mini",
              p_estimated_tokens: 40,
            });
            // A third are left to expire.
            if (asked.error || index % 3 === 0) return asked;
            return target.client.rpc("settle_usage", {
              p_request_id,
              p_input_tokens: 10,
              p_output_tokens: 20,
            });
          }),
        ];
        for (const { error, status } of await Promise.all(works)) {
          if (error) refused.push(`step ${step}: ${status} ${error.code} ${error.message} ${error.details}`);
        }
      }
      expect(refused).toEqual([]);
      for (let round = 0; round < 20; round++) {
        const { more } = await target.ask<{ more: boolean }>("run_maintenance");
        if (!more) break;
      }
    } finally {
      await sql.query("select governance.set_test_clock(null)");
    }
    await target.expectSoundLedger();
  });

  it("nobody but the service may call what only the service may, and users see only themselves", async () => {
    for (const [name, parameters] of Object.entries(calls)) {
      const reply = await target.send(name, parameters, target.project.anonKey);
      expect([name, reply.status, reply.body.code]).toEqual([name, 401, "42501"]);
    }
  });
});
