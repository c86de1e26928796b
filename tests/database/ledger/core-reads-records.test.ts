/** What the database writes, the core reads: prices, receipts, statements and events, on a real PostgreSQL. */
import { seeded, sized } from "../../support/size.ts";
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startLocalProject } from "../../../local-project/index.ts";
import { listPresets, readPreset } from "../../../local-project/migrations.ts";
import {
  compileRules,
  costOfCall,
  describeReceipt,
  makeCounts,
  parseRule,
  parsePrices,
  parseRules,
  type ReceiptFacts,
  type ReplayEvent,
  startBacktest,
  verifyStatement,
} from "../../../shared/governance/index.ts";
import { createProjectDatabase } from "../../support/database.ts";
import { Dice, ruleSet } from "../../support/models/core-cases.ts";
import { postgresUrls } from "../../support/project.ts";

interface PresetFile {
  readonly currency: string;
  readonly prices?: readonly Record<string, unknown>[];
  readonly rules?: readonly unknown[];
}

let client: pg.Client;
let ownerUrl: string;

beforeAll(async () => {
  const database = await createProjectDatabase(postgresUrls()[18], { preset: "default" });
  ownerUrl = database.ownerUrl;
  client = new pg.Client({ connectionString: database.url });
  await client.connect();
});
afterAll(() => client?.end());

async function call<T>(sql: string, parameters: readonly unknown[] = []): Promise<T> {
  const { rows } = await client.query<{ answer: T }>(`select to_jsonb(x) as answer from ${sql} x`, [
    ...parameters,
  ]);
  return rows[0]?.answer as T;
}

const authorize = (
  id: string,
  user: string,
  extra: Record<string, unknown> = {},
): Promise<Record<string, unknown>> => {
  const given: Record<string, unknown> = {
    p_request_id: id,
    p_user_id: user,
    p_model: "gpt-4o-mini",
    ...extra,
  };
  const names = Object.keys(given);
  return call(
    `authorize_usage(${names.map((name, index) => `${name} => $${index + 1}`).join(", ")})`,
    names.map((name) => given[name]),
  );
};
const settle = (
  id: string,
  input: number,
  output: number,
  metadata: unknown = {},
): Promise<Record<string, unknown>> =>
  call("settle_usage($1, $2, $3, null, $4)", [id, input, output, JSON.stringify(metadata)]);

describe("prices", () => {
  it.each(listPresets())("of %s are charged to the micro-unit as the core computes them", async (name) => {
    const preset = readPreset(name) as PresetFile;
    await client.query("select apply_preset($1)", [
      JSON.stringify({
        ...preset,
        rules: [],
        plans: [{ plan_id: "all", name: "All" }],
        default_plan: "all",
        packs: [],
      }),
    ]);
    const book = parsePrices(
      (preset.prices ?? []).map((price) => ({
        currency: preset.currency,
        effective_from: "1970-01-01",
        ...price,
      })),
    );
    if (!book.ok) throw new Error(JSON.stringify(book.error));
    const user = `payer-${name}`;
    await client.query(
      "select upsert_account($1, 'all'), update_user_token_balance($1, 1000000000, 'bonus')",
      [user],
    );
    let models = 0;
    for (const model of book.value.byModel.keys()) {
      const id = `${name}-${models++}`;
      const counts = makeCounts({
        input: 12_345,
        output: 6_789,
        cached: 1_111,
        cacheWrite: 222,
        reasoning: 333,
      });
      if (!counts.ok) throw new Error("counts");
      await authorize(id, user, { p_model: model, p_estimated_tokens: 20_000 });
      const answer = await settle(id, 12_345, 6_789, {
        cached_input_tokens: 1_111,
        cache_write_tokens: 222,
        reasoning_tokens: 333,
      });
      const cost = costOfCall(book.value, model, counts.value, Date.now());
      expect([model, answer["cost_micros"], answer["currency"]]).toEqual([
        model,
        cost.ok && cost.value.cost_micros,
        cost.ok && cost.value.currency,
      ]);
    }
    expect(models).toBeGreaterThan(0);
  });

  it("in a list are taken by the core as by the database, whatever the list holds, and read as stored", async () => {
    const dice = new Dice(seeded(20261201));
    const amounts = [0, 150_000, 10 ** 15, 10 ** 15 + 1, -1, 1.5, "5", null, undefined] as const;
    const sound = [0, 1, 150_000, 10 ** 15] as const;
    const rarely = <T>(usual: readonly T[], odd: readonly T[]): T =>
      dice.pick(dice.chance(0.05) ? odd : usual);
    const price = (): Record<string, unknown> => ({
      provider: rarely<unknown>(["a", "b", "é".repeat(255)], ["", "é".repeat(256), 5, undefined]),
      model: rarely<unknown>(["m", "n", "😀".repeat(200)], ["", "n".repeat(201), "😀".repeat(201), null]),
      input_micros_per_million: rarely<unknown>(sound, amounts),
      output_micros_per_million: rarely<unknown>(sound, amounts),
      cached_input_micros_per_million: rarely<unknown>([undefined, null, 7], amounts),
      batch_input_micros_per_million: rarely<unknown>([undefined, null, 7], amounts),
      long_context_above_tokens: rarely<unknown>([undefined, null, 200_000], [0, 1, 2 ** 53, "5"]),
      ...rarely<object>(
        [{}, { currency: "usd" }, { currency: "USD" }],
        [{ currency: "usd " }, { currency: " us" }, { currency: "us" }, { currency: 7 }],
      ),
      ...rarely<object>(
        [
          {},
          { effective_from: "2026-11-22" },
          { effective_from: "2026-11-22T00:00:00Z" },
          { effective_from: "2026-11-22 02:00:00.25+02" },
          { effective_from: "2024-02-29" },
        ],
        [
          { effective_from: "2026-02-29" },
          { effective_from: "2026-11-22T08:00" },
          { effective_from: "soon" },
        ],
      ),
    });
    const seen = { taken: 0, refused: 0 };
    for (let list = 0; list < sized(150, 2_000); list++) {
      const prices = Array.from({ length: dice.whole(1, 4) }, price);
      const inCore = parsePrices(
        prices.map((each) => ({ currency: "usd", effective_from: "1970-01-01", ...each })),
      );
      const refusal = await client
        .query("select apply_preset($1)", [
          JSON.stringify({
            name: "prices",
            currency: "usd",
            plans: [{ plan_id: "all", name: "All" }],
            prices,
          }),
        ])
        .then(
          () => null,
          (error: Error) => error.message,
        );
      expect([JSON.stringify(prices), refusal === null]).toEqual([JSON.stringify(prices), inCore.ok]);
      seen[refusal === null ? "taken" : "refused"]++;
      if (!inCore.ok) continue;
      const stored = parsePrices((await call<{ prices: unknown }>("console_prices()")).prices);
      const told = (book: typeof stored): unknown =>
        book.ok &&
        [...book.value.byModel.values()]
          .flat()
          .map((each) => JSON.stringify([each.provider, each.model, each.effectiveFromMs]))
          .toSorted((one, other) => (one < other ? -1 : 1));
      expect(told(stored)).toEqual(told(inCore));
    }
    expect(Math.min(seen.taken, seen.refused)).toBeGreaterThan(10);
  });
});

describe("a receipt", () => {
  it("reads as a person would tell it", async () => {
    await client.query("select apply_preset($1)", [
      JSON.stringify({
        name: "receipt",
        default_plan: "small",
        plans: [{ plan_id: "small", name: "Small", monthly_allowance: 1_000_000, daily_limit: 10_000 }],
        rules: [
          {
            rule_name: "daily_limit",
            priority: 10,
            conditions: { fact: "tokens_today", op: ">=", value: { plan: "daily_limit" } },
            action: { block: { reason: "daily_limit" } },
          },
        ],
      }),
    ]);
    await client.query("select governance.set_test_clock('2026-11-22T20:48:00Z', true)");
    await client.query("select upsert_account('ann', 'small', null, null, 'Europe/London')");
    const explain = async (id: string, estimate = 1_000): Promise<string> => {
      const answer = await authorize(id, "ann", { p_estimated_tokens: estimate });
      const receipt = await call<ReceiptFacts>("explain_decision($1)", [answer["decision_id"]]);
      return describeReceipt(receipt, Date.parse("2026-11-22T20:48:00Z"));
    };
    expect(await explain("r1")).toBe("Allowed: 1,000 tokens held.");
    await settle("r1", 9_500, 0);
    expect(await explain("r2")).toBe(
      "Stopped by *daily limit*: 9,500 of 10,000 tokens used today; needs 1,000 more, has 500. Clears at 00:00 Europe/London, in 3 h 12 m.",
    );
    await authorize("r3", "ann", { p_estimated_tokens: 400 });
    await settle("r3", 740, 0);
    expect(await explain("r4", 1_240)).toBe(
      "Stopped by *daily limit* (v3): 10,240 of 10,000 tokens used today; needs 1,240 more, has 0. Clears at 00:00 Europe/London, in 3 h 12 m.",
    );
    await client.query("select block_user('b1', 'ann', 'spam', null, 'op')");
    expect(await explain("r5")).toBe("Stopped by *an operator's block*. Clears when an operator lifts it.");
    await client.query("select governance.set_test_clock(null)");
  });
});

describe("a statement", () => {
  it("is sound offline as it left the database, and a planted change is found", async () => {
    await client.query("select apply_preset($1)", [JSON.stringify(readPreset("default"))]);
    await client.query("select upsert_account('statement')");
    await client.query(
      "select update_user_token_balance('statement', 5000, 'purchase', 'Größe 😀 | 3:x', '{\"a\": 1.50, \"ключ\": [\"é\", null]}', 'k1'), update_user_token_balance('statement', 300, 'bonus', null, '{}', 'k2', governance.now() + interval '1 hour')",
    );
    for (let index = 0; index < 12; index++) {
      await authorize(`st-${index}`, "statement", { p_estimated_tokens: 50 });
      // The last one uses more than there is: debt, which the next grant pays first.
      await settle(`st-${index}`, index < 11 ? 37 : 200_000, index);
    }
    await client.query(
      "select update_user_token_balance('statement', 1000000, 'purchase', 'pays the debt', '{}', 'k3')",
    );
    const { rows } = await client.query<{ row: Record<string, unknown> }>(
      "select to_jsonb(h) as row from get_user_transaction_history('statement', 1000) h",
    );
    const lines = rows.map(({ row }) => row).toReversed();
    const text = (records: readonly unknown[]): string =>
      records.map((record) => JSON.stringify(record)).join("\n");
    const head = await client.query<{ hash: string; total: string }>(
      "select encode(last_hash, 'hex') as hash, subscription_tokens + purchased_tokens + promotional_tokens as total from governance.accounts where user_id = 'statement'",
    );
    expect(lines.length).toBeGreaterThan(14);
    expect(verifyStatement(text(lines))).toMatchObject({
      user_id: "statement",
      entries_checked: lines.length,
      problems: [],
      last_hash: head.rows[0]?.hash,
      closing_balance: Number(head.rows[0]?.total),
      closing_debt: 0,
    });
    const planted: [string, readonly unknown[]][] = [
      ["an amount", lines.with(3, { ...lines[3], amount: 1 })],
      ["a deleted row", lines.toSpliced(4, 1)],
      ["a swapped pair", lines.with(4, lines[5] as never).with(5, lines[4] as never)],
      [
        "a payload",
        lines.with(2, { ...lines[2], payload: String(lines[2]?.["payload"]).replace("|", "|1") }),
      ],
      ["a missing end", lines.slice(0, -1)],
    ];
    for (const [what, records] of planted) {
      const report = verifyStatement(text(records));
      expect(report.problems.length > 0 || report.last_hash !== head.rows[0]?.hash, what).toBe(true);
    }

    // The same from the command line: exported over the project's API, checked with neither network nor key.
    const project = await startLocalProject({ databaseUrl: ownerUrl, port: 0, log: () => {} });
    const folder = mkdtempSync(join(tmpdir(), "statement-"));
    const run = (args: readonly string[], env: Record<string, string> = {}) =>
      new Promise<{ code: number; stdout: string }>((resolve) => {
        execFile(
          process.execPath,
          [fileURLToPath(new URL("../../../cli/statement.ts", import.meta.url)), ...args],
          { env: { ...process.env, GOVERNANCE_SERVICE_ROLE_KEY: "", ...env } },
          (error, stdout, stderr) =>
            resolve({ code: error ? Number(error.code) : 0, stdout: stdout + stderr }),
        );
      });
    try {
      const exported = await run(["--user", "statement", "--url", project.url], {
        GOVERNANCE_SERVICE_ROLE_KEY: project.serviceRoleKey,
      });
      expect(
        exported.stdout
          .trim()
          .split("\n")
          .map((line) => JSON.parse(line) as unknown),
      ).toEqual(lines);
      const file = join(folder, "statement.ndjson");
      const check = (records: readonly unknown[]) => {
        writeFileSync(file, text(records));
        return run(["--check", file, "--last-hash", head.rows[0]?.hash ?? ""]);
      };
      expect(await check(lines)).toMatchObject({
        code: 0,
        stdout: expect.stringMatching(
          /^Sound: \d+ entries of "statement", from 0 to [\d,]+ tokens/,
        ) as string,
      });
      expect((await check(planted[0]?.[1] ?? [])).stdout).toMatch(/^Entry 4 .*amount is shown as 1/);
      expect(await check(lines.slice(0, -1))).toMatchObject({ code: 1 });
      expect((await run(["--check", join(folder, "nowhere")])).code).toBe(2);
      const unchecked = await run([
        "--user",
        "statement",
        "--url",
        project.url,
        "--last-hash",
        "0".repeat(64),
      ]);
      expect([unchecked.code, unchecked.stdout]).toEqual([2, expect.stringContaining("go with --check")]);
    } finally {
      await project.stop();
      rmSync(folder, { recursive: true, force: true });
    }
  });
});

describe("a rule", () => {
  /** Values that belong nowhere, or only in some places. */
  const odd: readonly unknown[] = [
    null,
    "",
    " ",
    "daily_limit",
    "messages_today",
    "Größe 😀",
    "x".repeat(1_001),
    0,
    -1,
    1.5,
    0.1234,
    500,
    2 ** 53,
    -(2 ** 31) - 1,
    1e300,
    true,
    false,
    [],
    ["a"],
    [1, 2],
    [1, "a"],
    [null],
    {},
    { plan: "daily_limit" },
    { plan: "x" },
    { all: [] },
    { fact: "plan", op: "=", value: "gold" },
    { message: "m" },
    { reason: "r" },
    { reason: "Not a code" },
    { words: 0 },
    { model: "" },
    { by: 1.5 },
    "!!!",
  ];

  /** A valid rule with one thing changed, removed or added somewhere. */
  function spoil(dice: Dice, value: unknown, depth = 0): unknown {
    const isList = Array.isArray(value);
    const entries = typeof value === "object" && value !== null ? Object.entries(value) : [];
    if (entries.length === 0 || (depth > 0 && dice.chance(0.25))) return dice.pick(odd);
    const change = dice.next();
    if (!isList && change < 0.05)
      return {
        ...(value as object),
        [dice.pick(["fact", "all", "not", "extra", "minutes"])]: dice.pick(odd),
      };
    const at = dice.whole(0, entries.length - 1);
    const changed = entries.flatMap(([key, child], index) =>
      index !== at ? [[key, child]] : change < 0.15 ? [] : [[key, spoil(dice, child, depth + 1)]],
    );
    return isList ? changed.map(([, child]) => child) : Object.fromEntries(changed as [string, unknown][]);
  }

  it("is taken or refused by the core as by the database, whatever is wrong with it", async () => {
    const dice = new Dice(seeded(20261122));
    const rules: unknown[] = [];
    while (rules.length < 4_000) {
      // The version is the database's own to give.
      const set = ruleSet(dice).map((rule) => {
        const { version: _, ...rest } = rule;
        return rest;
      });
      rules.push(...set.slice(0, 1), ...set.flatMap((rule) => [spoil(dice, rule), spoil(dice, rule)]));
    }
    await client.query(`create function pg_temp.takes(p_rule jsonb) returns text language plpgsql as $$
      begin
        perform governance.check_rule(p_rule);
        return null;
      exception when others then
        if sqlstate !~ '^PT4' then raise; end if;
        return sqlerrm;
      end $$`);
    const { rows } = await client.query<{ refused: string | null }>(
      "select pg_temp.takes(r) as refused from jsonb_array_elements($1::jsonb) with ordinality x(r, n) order by n",
      [JSON.stringify(rules)],
    );
    const differing = rules.flatMap((rule, index) => {
      const parsed = parseRule(JSON.parse(JSON.stringify(rule)));
      const refused = rows[index]?.refused ?? null;
      return parsed.ok === (refused === null)
        ? []
        : [{ rule: JSON.stringify(rule).slice(0, 600), refused, core: parsed.ok ? null : parsed.error }];
    });
    expect(differing.slice(0, 5), `${differing.length} of ${rules.length}`).toEqual([]);
    const taken = rows.filter(({ refused }) => refused === null).length;
    expect(taken).toBeGreaterThan(500);
    expect(rows.length - taken).toBeGreaterThan(500);
  });
});

describe("a backtest over real events", () => {
  it("of the very rules that were in force changes nothing", async () => {
    const preset = readPreset("default") as PresetFile;
    const rules = parseRules(preset.rules);
    if (!rules.ok) throw new Error(JSON.stringify(rules.error));
    const since = (await client.query<{ at: string }>("select to_jsonb(clock_timestamp()) #>> '{}' as at"))
      .rows[0]?.at;
    let serial = 0;
    const users = ["calm", "spammer", "bot", "writer"];
    for (const user of users) {
      await client.query("select upsert_account($1), update_user_token_balance($1, 50000, 'bonus')", [user]);
      for (let index = 0; index < 30; index++) {
        const id = `bt-${serial++}`;
        const message =
          user === "spammer" ? "buy now" : user === "writer" ? "word ".repeat(600) : `message ${index}`;
        const answer = await authorize(id, user, {
          p_message: message,
          p_conversation_id: user,
          p_estimated_tokens: 300,
        });
        if (answer["decision"] !== "block") await settle(id, 200 + index, 90);
      }
    }
    const events: ReplayEvent[] = [];
    for (let cursor: string | null = null; ; ) {
      const page: { events: ReplayEvent[]; next_cursor: string } = await call(
        "usage_events_since($1, 50, $2)",
        [cursor, JSON.stringify({ facts: true, since })],
      );
      events.push(...page.events.filter((event) => users.includes(event.user_id)));
      if (page.events.length === 0) break;
      cursor = page.next_cursor;
    }
    const replay = (draft: typeof rules.value) => {
      const backtest = startBacktest({ draft: compileRules(draft) });
      for (const event of events) backtest.push(event);
      return backtest.report();
    };
    const same = replay(rules.value);
    expect(same).toMatchObject({
      calls: 120,
      judged: 120,
      malformed: 0,
      newly_stopped: 0,
      newly_allowed: 0,
      newly_warned: 0,
      rerouted: 0,
      tokens_saved: 0,
    });
    expect(same.was.block).toBeGreaterThan(10);
    expect(same.would_be).toEqual(same.was);

    const strict = parseRules([
      ...(preset.rules ?? []),
      {
        rule_name: "short_only",
        priority: 0,
        conditions: { fact: "message_words", op: ">", value: 100 },
        action: { block: { reason: "too_long" } },
      },
    ]);
    if (!strict.ok) throw new Error("strict");
    const stricter = replay(strict.value);
    const settled = events.filter((event) => event.kind === "settled" && event.user_id === "writer");
    expect(stricter).toMatchObject({
      newly_stopped: settled.length,
      users_newly_stopped: 1,
      tokens_saved: settled.reduce((sum, event) => sum + event.tokens, 0),
    });
  });
});
