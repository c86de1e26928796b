/** What the enforcement functions promise, one call at a time; and the numbers of the presets. */
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readPreset } from "../../../local-project/migrations.ts";
import { installedVersions, openProject, type Project } from "../../support/project.ts";
import { repository } from "../../support/repository.ts";

interface Decision {
  readonly decision: string;
  readonly reason: string | null;
  readonly http_status: number;
  readonly model: string;
  readonly message: string | null;
  readonly reserved_tokens: number;
  readonly estimated_tokens: number;
  readonly truncate_to_words: number | null;
  readonly retry_after_seconds: number | null;
  readonly warnings: readonly string[];
  readonly upgrade: { plan_id: string; name: string } | null;
  readonly shortfall: { need: number; have: number; missing: number } | null;
  readonly balance: Readonly<Record<string, number>>;
  readonly limits: Readonly<
    Record<"daily" | "monthly", { used: number; limit: number | null; resets_at: string }>
  >;
}
interface Settlement {
  readonly status: string;
  readonly charged_tokens: number;
  readonly released_tokens: number;
  readonly debt_tokens: number;
  readonly cost_micros: number | null;
  readonly balance: Readonly<Record<string, number>>;
  readonly alerts: readonly { type: string }[];
}

let ids = 0;
const fresh = (name: string): string => `${name}-${(ids += 1)}`;

function authorize(desk: Project, userId: string, extra: Record<string, unknown> = {}): Promise<Decision> {
  return desk.rpc("authorize_usage", {
    p_request_id: fresh("request"),
    p_user_id: userId,
    p_model: "gpt-4o-mini",
    ...extra,
  });
}
function settle(
  desk: Project,
  requestId: string,
  input: number,
  output: number,
  extra: Record<string, unknown> = {},
): Promise<Settlement> {
  return desk.rpc("settle_usage", {
    p_request_id: requestId,
    p_input_tokens: input,
    p_output_tokens: output,
    ...extra,
  });
}
async function expectClean(desk: Project): Promise<void> {
  expect(await desk.rpc("verify_ledger")).toMatchObject({ problems: [] });
}

describe.each(installedVersions())("on PostgreSQL %i", (version) => {
  let desk: Project;
  beforeAll(async () => {
    desk = await openProject(version);
  });
  afterAll(() => desk.close());

  it("answers the keys that the guard's type names, and no other", async () => {
    const types = readFileSync(join(repository, "shared/governance/guard/types.ts"), "utf8");
    const [, answer = ""] = /^export interface AuthorizeAnswer \{\n(.*?)^\}/ms.exec(types) ?? [];
    const named = [...answer.matchAll(/^ {2}readonly (\w+)\??:/gm)].map(([, name = ""]) => name);
    expect(Object.keys(await authorize(desk, fresh("user"))).toSorted()).toEqual(named.toSorted());
  });

  it("holds, charges what was used, gives back the rest, and answers a repeat the same", async () => {
    const user = fresh("user");
    const call = {
      p_request_id: fresh("call"),
      p_user_id: user,
      p_model: "gpt-4o",
      p_estimated_tokens: 1000,
      p_message: "hello there",
      p_task_type: "chat",
    };
    const first = await desk.rpc<Decision>("authorize_usage", call);
    expect(first).toMatchObject({ decision: "allow", http_status: 200, reserved_tokens: 1000 });
    expect(first.balance).toEqual({
      available: 49_000,
      reserved: 1000,
      subscription: 50_000,
      purchased: 0,
      promotional: 0,
      debt: 0,
      total: 50_000,
    });
    expect(await desk.rpc("authorize_usage", call)).toEqual(first);
    expect(await desk.refusal("authorize_usage", { ...call, p_estimated_tokens: 1001 })).toMatchObject({
      code: "PT409",
      hint: "idempotency_conflict",
    });
    expect(await desk.refusal("authorize_usage", { ...call, p_user_id: "another" })).toMatchObject({
      hint: "idempotency_conflict",
    });
    const settled = await settle(desk, call.p_request_id, 300, 200, {
      p_metadata: { cached_input_tokens: 100 },
    });
    // 200 × 2.50 + 100 × 1.25 + 200 × 10 dollars a million
    expect(settled).toMatchObject({
      status: "settled",
      charged_tokens: 500,
      released_tokens: 500,
      debt_tokens: 0,
      cost_micros: 2625,
    });
    expect(settled.balance).toMatchObject({ available: 49_500, reserved: 0 });
    expect(
      await settle(desk, call.p_request_id, 300, 200, { p_metadata: { cached_input_tokens: 100 } }),
    ).toEqual(settled);
    expect(await desk.rpc("authorize_usage", call)).toEqual(first);
    expect(
      await desk.refusal("settle_usage", {
        p_request_id: call.p_request_id,
        p_input_tokens: 300,
        p_output_tokens: 201,
      }),
    ).toMatchObject({ hint: "idempotency_conflict" });
    expect(await desk.refusal("release_usage", { p_request_id: call.p_request_id })).toMatchObject({
      code: "PT409",
      hint: "already_settled",
    });
  });

  it("answers a blocked, a warned and a short call the same when repeated", async () => {
    const user = fresh("user");
    await desk.rpc("upsert_account", { p_user_id: user, p_plan_id: "pro" });
    for (const tokens of [85_000, 200_000, 90_000_000]) {
      const call = {
        p_request_id: fresh("call"),
        p_user_id: user,
        p_model: "gpt-4o-mini",
        p_estimated_tokens: tokens,
        p_message: "word ".repeat(600),
        p_conversation_id: "c",
      };
      const first = await desk.rpc<Decision>("authorize_usage", call);
      expect(first.decision).not.toBe("allow");
      expect(await desk.rpc("authorize_usage", call)).toEqual(first);
    }
    const poor = {
      p_request_id: fresh("call"),
      p_user_id: fresh("user"),
      p_model: "m",
      p_estimated_tokens: 60_000,
    };
    const short = await desk.rpc<Decision>("authorize_usage", poor);
    expect(short).toMatchObject({
      decision: "block",
      reason: "insufficient_tokens",
      http_status: 402,
      shortfall: { need: 60_000, have: 50_000, missing: 10_000 },
      upgrade: { plan_id: "pro", name: "Pro" },
    });
    expect(await desk.rpc("authorize_usage", poor)).toEqual(short);
    expect(
      await desk.refusal("settle_usage", {
        p_request_id: poor.p_request_id,
        p_input_tokens: 1,
        p_output_tokens: 1,
      }),
    ).toMatchObject({ hint: "not_authorized" });
    expect(await desk.refusal("release_usage", { p_request_id: poor.p_request_id })).toMatchObject({
      hint: "not_authorized",
    });
  });

  it("makes what is used beyond the balance a debt, which the next grant pays first", async () => {
    const user = fresh("user");
    const request = fresh("call");
    await authorize(desk, user, { p_request_id: request, p_estimated_tokens: 100 });
    const settled = await settle(desk, request, 60_000, 1);
    expect(settled).toMatchObject({ charged_tokens: 60_001, debt_tokens: 10_001 });
    expect(settled.balance).toMatchObject({ available: 0, debt: 10_001, total: 0 });
    expect(settled.alerts.map((alert) => alert.type)).toEqual(
      expect.arrayContaining(["negative_balance", "low_balance"]),
    );
    expect(
      await desk.rpc("update_user_token_balance", {
        p_user_id: user,
        p_amount: 15_000,
        p_transaction_type: "purchase",
      }),
    ).toMatchObject({ debt_recovered: 10_001 });
    expect(Number(await desk.rpc("get_user_token_balance", { p_user_id: user }))).toBe(4999);
    const entries = await desk.rpc<{ transaction_type: string; amount: number }[]>(
      "get_user_transaction_history",
      { p_user_id: user },
    );
    expect(entries.map((entry) => `${entry.transaction_type} ${entry.amount}`)).toEqual([
      "debt_recovery -10001",
      "purchase 15000",
      "usage -50000",
      "subscription_grant 50000",
    ]);
    await expectClean(desk);
  });

  it("spends the soonest expiry first, then subscription, promotional, purchased, then the oldest", async () => {
    const user = fresh("user");
    await desk.rpc("upsert_account", { p_user_id: user, p_plan_id: "enterprise" });
    const soon = new Date(Date.now() + 86_400_000).toISOString();
    for (const [type, expires] of [
      ["purchase", null],
      ["bonus", null],
      ["subscription_grant", null],
      ["purchase", null],
      ["purchase", soon],
    ])
      await desk.rpc("update_user_token_balance", {
        p_user_id: user,
        p_amount: 100,
        p_transaction_type: type,
        p_expires_at: expires,
      });
    await desk.rpc("update_user_token_balance", {
      p_user_id: user,
      p_amount: -450,
      p_transaction_type: "usage",
    });
    const { rows } = await desk.sql.query<{ kind: string; spent: string }>(
      "select l.kind, l.spent from governance.lots l join governance.accounts a using (account_id) where a.user_id = $1 order by l.lot_id",
      [user],
    );
    expect(rows.map((lot) => `${lot.kind} ${lot.spent}`)).toEqual([
      "purchased 100",
      "promotional 100",
      "subscription 100",
      "purchased 50",
      "purchased 100",
    ]);
    expect(
      await desk.refusal("update_user_token_balance", {
        p_user_id: user,
        p_amount: -51,
        p_transaction_type: "usage",
      }),
    ).toMatchObject({ code: "PT402", hint: "insufficient_tokens" });
    await expectClean(desk);
  });

  it("gives an expired hold back, and still charges a settlement that comes after", async () => {
    const user = fresh("user");
    const request = fresh("call");
    await authorize(desk, user, { p_request_id: request, p_estimated_tokens: 40_000 });
    const at = new Date(Date.now() + 20 * 60_000).toISOString();
    await desk.setClock(at);
    expect(await authorize(desk, user, { p_estimated_tokens: 40_000 })).toMatchObject({ decision: "allow" });
    expect(await desk.rpc("release_usage", { p_request_id: request, p_reason: "gave up" })).toMatchObject({
      status: "expired",
      released_tokens: 0,
    });
    expect(await settle(desk, request, 1000, 0)).toMatchObject({
      status: "settled",
      charged_tokens: 1000,
      released_tokens: 0,
      balance: { available: 9000 },
    });
    await desk.setClock(null);
    await expectClean(desk);
  });

  it("refuses a settlement after a release, and sets one above the ceiling aside", async () => {
    const user = fresh("user");
    const released = fresh("call");
    await authorize(desk, user, { p_request_id: released });
    const answer = await desk.rpc("release_usage", { p_request_id: released, p_reason: "failed" });
    expect(answer).toMatchObject({ status: "released" });
    expect(await desk.rpc("release_usage", { p_request_id: released, p_reason: "failed" })).toEqual(answer);
    expect(await desk.refusal("release_usage", { p_request_id: released, p_reason: "other" })).toMatchObject({
      hint: "idempotency_conflict",
    });
    expect(
      await desk.refusal("settle_usage", { p_request_id: released, p_input_tokens: 1, p_output_tokens: 1 }),
    ).toMatchObject({ code: "PT409", hint: "already_released" });
    const huge = fresh("call");
    await authorize(desk, user, { p_request_id: huge, p_estimated_tokens: 500 });
    const aside = await settle(desk, huge, 9_007_199_254_740_991, 9_007_199_254_740_991);
    expect(aside).toMatchObject({
      status: "quarantined",
      charged_tokens: 0,
      released_tokens: 500,
      balance: { available: 50_000 },
    });
    expect(await settle(desk, huge, 9_007_199_254_740_991, 9_007_199_254_740_991)).toEqual(aside);
    await expectClean(desk);
  });

  it("blocks the tenth identical message with spam_identical, flags the user, and forgives on unblocking", async () => {
    const user = fresh("user");
    const answers: Decision[] = [];
    for (let n = 0; n < 15; n += 1)
      answers.push(await authorize(desk, user, { p_message: n % 2 ? "Buy   NOW" : "buy now" }));
    expect(answers.slice(0, 9).map((answer) => answer.decision)).toEqual(Array(9).fill("allow"));
    for (const answer of answers.slice(9))
      expect(answer).toMatchObject({ decision: "block", reason: "spam_identical", http_status: 429 });
    expect(answers[14]?.retry_after_seconds).toBeGreaterThan(800);
    const account = await desk.rpc<Record<string, unknown>>("unblock_user", {
      p_command_id: fresh("command"),
      p_user_id: user,
      p_reason: "sorry",
    });
    expect(account).toMatchObject({ is_blocked: false, is_flagged: true, flag_reason: "spam_identical" });
    expect(await authorize(desk, user, { p_message: "buy now" })).toMatchObject({ decision: "allow" });
  });

  it("stops a blocked user with user_blocked, 403, until unblocked or until the moment comes", async () => {
    const user = fresh("user");
    await authorize(desk, user);
    const command = {
      p_command_id: fresh("command"),
      p_user_id: user,
      p_reason: "abuse",
      p_until: new Date(Date.now() + 3_600_000).toISOString(),
      p_operator: "op",
    };
    const blocked = await desk.rpc("block_user", command);
    expect(blocked).toMatchObject({ is_blocked: true, block_reason: "abuse", blocked_by: "op" });
    expect(await desk.rpc("block_user", command)).toEqual(blocked);
    expect(await desk.refusal("block_user", { ...command, p_reason: "else" })).toMatchObject({
      hint: "idempotency_conflict",
    });
    expect(await authorize(desk, user)).toMatchObject({
      decision: "block",
      reason: "user_blocked",
      http_status: 403,
    });
    await desk.setClock(new Date(Date.now() + 3_700_000).toISOString());
    expect(await authorize(desk, user)).toMatchObject({ decision: "allow" });
    await desk.setClock(null);
    expect(
      await desk.refusal("block_user", {
        p_command_id: fresh("command"),
        p_user_id: "nobody",
        p_reason: "x",
      }),
    ).toMatchObject({ code: "PT404", hint: "unknown_user" });
  });

  it("slows a bot, stops a hog after a hundred messages, and truncates a long message", async () => {
    const bot = fresh("user");
    let last: Decision | null = null;
    for (let n = 0; n < 20; n += 1)
      last = await authorize(desk, bot, { p_message: `message ${n}`, p_estimated_tokens: 1 });
    expect(last).toMatchObject({ decision: "block", reason: "bot_behavior", http_status: 429 });
    const hog = fresh("user");
    await authorize(desk, hog);
    await desk.sql.query("update governance.accounts set day_messages = 100 where user_id = $1", [hog]);
    expect(await authorize(desk, hog, { p_message: "one more" })).toMatchObject({
      reason: "token_hogging",
      http_status: 429,
    });
    const writer = await authorize(desk, fresh("user"), { p_message: "word ".repeat(501) });
    expect(writer).toMatchObject({ decision: "warn", truncate_to_words: 500 });
  });

  it("keeps only a hash and a count of a message", async () => {
    const secret = `secret-${ids}-phrase`;
    await authorize(desk, fresh("user"), { p_message: secret });
    const { rows } = await desk.sql.query<{ name: string }>(
      "select c.oid::regclass::text as name from pg_class c where c.relnamespace = 'governance'::regnamespace and c.relkind = 'r'",
    );
    for (const { name } of rows) {
      const found = await desk.one<{ n: number }>(
        `select count(*)::int as n from ${name} t where t::text like $1`,
        [`%${secret}%`],
      );
      expect([name, found.n]).toEqual([name, 0]);
    }
  });

  it("saves rules by version, refuses a stale save with the current rule, and a rule in shadow changes nothing", async () => {
    const rule = {
      rule_name: fresh("rule"),
      conditions: { all: [{ fact: "task_type", op: "=", value: "odd" }] },
      action: { block: { reason: "odd_task" } },
      priority: 1,
    };
    expect(
      await desk.rpc("save_rule", { p_command_id: fresh("command"), p_rule: rule, p_expected_version: 0 }),
    ).toMatchObject({ version: 1, mode: "enforce" });
    expect(await authorize(desk, fresh("user"), { p_task_type: "odd" })).toMatchObject({
      reason: "odd_task",
      http_status: 403,
    });
    await desk.rpc("save_rule", {
      p_command_id: fresh("command"),
      p_rule: { ...rule, mode: "shadow" },
      p_expected_version: 1,
    });
    const shadowed = await authorize(desk, fresh("user"), { p_task_type: "odd" });
    expect(shadowed).toMatchObject({ decision: "allow", warnings: [] });
    expect(
      await desk.refusal("save_rule", {
        p_command_id: fresh("command"),
        p_rule: rule,
        p_expected_version: 1,
      }),
    ).toMatchObject({ code: "PT409", hint: "version_conflict" });
    expect(
      await desk.refusal("save_rule", {
        p_command_id: fresh("command"),
        p_rule: { ...rule, conditions: { any: [{ fact: "moon", op: "=", value: 1 }] } },
      }),
    ).toMatchObject({
      code: "PT422",
      hint: "invalid_rule",
      message: expect.stringContaining("conditions.any[0].fact"),
    });
    await desk.rpc("save_rule", { p_command_id: fresh("command"), p_rule: { ...rule, mode: "off" } });
    expect(
      await desk.one("select count(*)::int as versions from governance.rule_versions where rule_name = $1", [
        rule.rule_name,
      ]),
    ).toEqual({ versions: 3 });
  });

  it("rolls allowances at the account's own month, once, and never backwards", async () => {
    const user = fresh("user");
    await desk.setClock("2028-02-28T20:00:00Z", true);
    await desk.rpc("upsert_account", { p_user_id: user, p_timezone: "Pacific/Auckland" });
    await desk.rpc("update_user_token_balance", {
      p_user_id: user,
      p_amount: -20_000,
      p_transaction_type: "usage",
    });
    // In Auckland it is 29 February, until 11:00 UTC of the 29th.
    await desk.setClock("2028-02-29T10:59:59Z", true);
    expect(Number(await desk.rpc("get_user_token_balance", { p_user_id: user }))).toBe(30_000);
    await desk.setClock("2028-02-29T11:00:00Z", true);
    expect(Number(await desk.rpc("get_user_token_balance", { p_user_id: user }))).toBe(50_000);
    await desk.setClock("2028-02-10T00:00:00Z", true);
    expect((await authorize(desk, user, { p_estimated_tokens: 1 })).limits.monthly.resets_at).toContain(
      "2028-03-31",
    );
    await desk.setClock("2028-02-29T12:00:00Z", true);
    expect(Number(await desk.rpc("get_user_token_balance", { p_user_id: user }))).toBe(50_000);
    await desk.setClock("2028-07-15T00:00:00Z", true);
    expect(Number(await desk.rpc("get_user_token_balance", { p_user_id: user }))).toBe(50_000);
    expect(
      await desk.one(
        "select count(*)::int as grants from governance.lots l join governance.accounts a using (account_id) where a.user_id = $1",
        [user],
      ),
    ).toEqual({ grants: 3 });
    await desk.setClock(null);
    await expectClean(desk);
  });

  it.each([
    [
      "Europe/London",
      "2027-03-28T12:00:00Z",
      "2027-03-28T23:00:00",
      "2027-10-31T12:00:00Z",
      "2027-11-01T00:00:00",
    ],
    [
      "America/New_York",
      "2027-03-14T16:00:00Z",
      "2027-03-15T04:00:00",
      "2027-11-07T16:00:00Z",
      "2027-11-08T05:00:00",
    ],
    [
      "Australia/Lord_Howe",
      "2027-10-02T16:00:00Z",
      "2027-10-03T13:00:00",
      "2027-04-03T16:00:00Z",
      "2027-04-04T13:30:00",
    ],
    // A zone whose name is an abbreviation too, in any letters.
    ["cet", "2027-03-28T12:00:00Z", "2027-03-28T22:00:00", "2027-10-31T12:00:00Z", "2027-10-31T23:00:00"],
  ])(
    "ends the day where %s ends it, on both days when the clocks change",
    async (zone, spring, springEnd, autumn, autumnEnd) => {
      for (const [at, end] of [
        [spring, springEnd],
        [autumn, autumnEnd],
      ] as const) {
        await desk.setClock(at, true);
        const user = fresh("user");
        await desk.rpc("upsert_account", { p_user_id: user, p_timezone: zone });
        expect((await authorize(desk, user)).limits.daily.resets_at).toContain(end);
      }
      await desk.setClock(null);
    },
  );

  it("knows no zone that is only a file of the server's, and no moment that JavaScript cannot read", async () => {
    const { names } = await desk.one<{ names: string[] }>(
      "select array_agg(name) as names from governance.time_zones where name !~ '/'",
    );
    const isKnown = (timeZone: string): boolean => {
      try {
        return new Intl.DateTimeFormat("en", { timeZone }).resolvedOptions().timeZone !== "";
      } catch {
        return false;
      }
    };
    expect(names.filter((name) => !isKnown(name))).toEqual([]);
    const user = fresh("user");
    await desk.rpc("upsert_account", { p_user_id: user });
    for (const zone of ["localtime", "Factory", "posixrules", "posix/Europe/Paris", "right/UTC"])
      expect((await desk.refusal("upsert_account", { p_user_id: user, p_timezone: zone })).hint).toBe(
        "invalid_argument",
      );
    const bonus = { p_user_id: user, p_amount: 5, p_transaction_type: "bonus" };
    const block = { p_command_id: fresh("block"), p_user_id: user, p_reason: "r", p_operator: "o" };
    for (const at of ["10000-01-01Z", "294000-01-01Z", "infinity", "-infinity", "4000-01-01Z BC"]) {
      expect((await desk.refusal("update_user_token_balance", { ...bonus, p_expires_at: at })).hint).toBe(
        "invalid_argument",
      );
      expect((await desk.refusal("block_user", { ...block, p_until: at })).hint).toBe("invalid_argument");
    }
    await desk.rpc("update_user_token_balance", { ...bonus, p_expires_at: "9999-12-31T23:59:59Z" });
    await desk.rpc("block_user", { ...block, p_until: "9999-12-31T23:59:59Z" });
    await expectClean(desk);
  });

  it("finds what is tampered with: an amount, a missing row, a swapped pair, a changed lot, a debt, a balance", async () => {
    const user = fresh("user");
    for (let n = 0; n < 4; n += 1) {
      const request = fresh("call");
      await authorize(desk, user, { p_request_id: request, p_estimated_tokens: 50 });
      await settle(desk, request, 10 + n, 5);
    }
    const account = "(select account_id from governance.accounts where user_id = $1)";
    const entry = (place: number) =>
      `(select transaction_id from governance.token_transactions where account_id = ${account} order by 1 offset ${place} limit 1)`;
    const swap = (column: string) =>
      `update governance.token_transactions t set ${column} = o.${column} from governance.token_transactions o where t.transaction_id in (${entry(1)}, ${entry(2)}) and o.transaction_id in (${entry(1)}, ${entry(2)}) and o.transaction_id <> t.transaction_id`;
    for (const tampering of [
      `update governance.token_transactions set amount = amount - 1, new_balance = new_balance - 1 where transaction_id = ${entry(2)}`,
      `update governance.token_transactions set description = 'nothing to see' where transaction_id = ${entry(2)}`,
      `delete from governance.token_transactions where transaction_id = ${entry(2)}`,
      `delete from governance.token_transactions where transaction_id = ${entry(4)}`,
      swap("hash"),
      swap("created_at"),
      `update governance.lots set remaining = remaining + 5, spent = spent - 5 where account_id = ${account}`,
      `update governance.accounts set subscription_tokens = subscription_tokens + 5 where user_id = $1`,
      `update governance.accounts set debt_tokens = 7 where user_id = $1`,
      `update governance.accounts set reserved_tokens = 7 where user_id = $1`,
    ]) {
      await desk.sql.query("begin");
      await desk.sql.query("set local session_replication_role = replica");
      const { rowCount } = await desk.sql.query(tampering, [user]);
      const { problems } = (
        await desk.one<{ answer: { problems: unknown[] } }>("select public.verify_ledger($1) as answer", [
          user,
        ])
      ).answer;
      await desk.sql.query("rollback");
      expect([tampering, rowCount === 0, problems.length > 0]).toEqual([tampering, false, true]);
    }
    await expectClean(desk);
  });

  it("finds books whose account was deleted", async () => {
    const user = fresh("user");
    await authorize(desk, user, { p_request_id: fresh("call"), p_estimated_tokens: 50 });
    await desk.sql.query("begin");
    await desk.sql.query("set local session_replication_role = replica");
    await desk.sql.query("delete from governance.accounts where user_id = $1", [user]);
    const { problems } = (
      await desk.one<{ answer: { problems: { problem: string }[] } }>(
        "select public.verify_ledger() as answer",
      )
    ).answer;
    await desk.sql.query("rollback");
    expect(problems.map(({ problem }) => problem)).toContain("account_missing");
    await expectClean(desk);
  });

  it("leaves other people's tables alone and takes no permission from an error", async () => {
    expect(
      await desk.rpc("record_token_usage", {
        p_user_id: fresh("user"),
        p_tokens_used: 60_000,
        p_model: "gpt-4o-mini",
      }),
    ).toMatchObject({ success: false, reason: "insufficient_tokens", tokens_remaining: 50_000 });
    expect(
      await desk.rpc("record_token_usage", {
        p_user_id: fresh("user"),
        p_tokens_used: 1000,
        p_cost_gbp: 0.0006,
        p_model: "gpt-4o-mini",
      }),
    ).toMatchObject({ success: true, tokens_remaining: 49_000 });
  });
});

describe("presets", () => {
  it.each([
    ["mmagent", "gold", "daily_limit", 10_000],
    ["mmagent", "gold_plus", "daily_limit", 25_000],
    ["agiagent", "starter", "monthly_allowance", 50_000],
    ["agiagent", "pro", "monthly_allowance", 500_000],
    ["agiagent", "business", "monthly_allowance", 5_000_000],
    ["athro", "free", "monthly_allowance", 100_000],
    ["athro", "lite", "monthly_allowance", 1_000_000],
    ["athro", "full", "monthly_allowance", 1_602_000],
    ["andora", "free", "monthly_allowance", 10_000],
  ] as const)("%s gives %s a %s of %i tokens", async (preset, plan, key, tokens) => {
    const desk = await openProject(18, { preset });
    expect(
      await desk.one(`select ${key}::int as tokens from governance.plans where plan_id = $1`, [plan]),
    ).toEqual({ tokens });
    await desk.close();
  });

  it("mmagent routes by rules alone: Gold never gets Claude, a complex message of Gold+ does, off-peak nobody", async () => {
    const desk = await openProject(18, { preset: "mmagent" });
    const complex = "Compare these in depth and explain why, step by step: ".padEnd(220, "x");
    await desk.setClock("2026-11-20T12:00:00Z", true);
    for (const plan of ["gold", "gold_plus"])
      await desk.rpc("upsert_account", { p_user_id: plan, p_plan_id: plan });
    expect(
      (await authorize(desk, "gold", { p_model: "claude-3-5-sonnet-20241022", p_message: complex })).model,
    ).toBe("gpt-4o-mini");
    expect((await authorize(desk, "gold_plus", { p_message: complex })).model).toBe(
      "claude-3-5-sonnet-20241022",
    );
    await desk.setClock("2026-11-20T12:01:00Z", true);
    expect((await authorize(desk, "gold_plus", { p_message: "hello" })).model).toBe("gpt-4o-mini");
    await desk.setClock("2026-11-20T12:00:30Z", true);
    // Below the threshold too: a plain message of Gold+ does not stay on the large model that was asked for.
    for (const model of ["claude-3-5-sonnet-20241022", "gpt-4o"])
      expect(
        (await authorize(desk, "gold_plus", { p_model: model, p_complexity: 0.699, p_message: null })).model,
      ).toBe("gpt-4o-mini");
    await desk.setClock("2026-11-20T12:01:01Z", true);
    expect(await authorize(desk, "gold_plus", { p_message: "hello again" })).toMatchObject({
      reason: "bot_behavior",
    });
    await desk.setClock("2026-11-21T03:00:00Z", true);
    expect((await authorize(desk, "gold_plus", { p_message: `${complex} again` })).model).toBe("gpt-4o-mini");
    await desk.setClock("2026-11-21T09:00:00Z", true);
    expect(await authorize(desk, "gold", { p_message: "Please debug my Python" })).toMatchObject({
      decision: "block",
      reason: "off_topic",
      http_status: 403,
    });
    expect(await authorize(desk, "gold", { p_estimated_tokens: 8000 })).toMatchObject({
      decision: "warn",
      warnings: ["80% of the daily limit is used."],
    });
    expect(await authorize(desk, "gold", { p_estimated_tokens: 3000 })).toMatchObject({
      reason: "daily_limit",
      http_status: 429,
      upgrade: { plan_id: "gold_plus" },
    });
    await desk.close();
  });

  it("athro sells its top-up to Full alone, andora estimates by operation, agiagent has four packs", async () => {
    const athro = readPreset("athro") as {
      packs: { tokens: number; price_minor: number; currency: string; plans: string[] }[];
    };
    expect(athro.packs).toEqual([
      { pack_id: "top-up", tokens: 320_000, price_minor: 200, currency: "gbp", plans: ["full"] },
    ]);
    const agiagent = readPreset("agiagent") as { packs: { tokens: number }[] };
    expect(agiagent.packs.map((pack) => pack.tokens)).toEqual([500_000, 1_500_000, 5_000_000, 10_000_000]);
    const desk = await openProject(18, { preset: "andora" });
    for (const [task, tokens] of [
      ["generate-characters", 2500],
      ["resolve-cast", 2000],
      ["generate-monthly-plot", 1500],
      ["generate-weekly-subplot", 2000],
      ["generate-calendar", 3000],
      ["expand-brief", 1500],
      ["never-heard-of", 300],
    ])
      expect([task, (await authorize(desk, fresh("user"), { p_task_type: task })).estimated_tokens]).toEqual([
        task,
        tokens,
      ]);
    await desk.close();
  });

  it.each(["default", "mmagent", "agiagent", "athro", "andora", "chat-v2"])(
    "%s applied twice changes nothing the second time",
    async (name) => {
      const desk = await openProject(18, { preset: name });
      const { changed } = await desk.rpc<{ changed: Record<string, number> }>("apply_preset", {
        p_preset: readPreset(name),
      });
      expect(Object.values(changed).every((count) => count === 0)).toBe(true);
      await desk.close();
    },
  );

  it("one after the other leaves the last, with what it does not name retired and kept in history", async () => {
    const desk = await openProject(18, { preset: "mmagent" });
    for (const name of ["athro", "andora", "default"])
      await desk.rpc("apply_preset", { p_preset: readPreset(name) });
    const rules = await desk.rpc<{ rule_name: string }[]>("list_rules");
    expect(rules.map((rule) => rule.rule_name)).toEqual([
      "daily_limit",
      "spam_identical",
      "bot_behavior",
      "token_hogging",
      "long_conversation",
      "large_message",
      "offpeak_routing",
    ]);
    expect(
      await desk.one("select count(*)::int as retired from governance.plans where retired_at is not null"),
    ).toEqual({ retired: 5 });
    expect(
      await desk.one(
        "select count(*)::int as versions, bool_or(is_retired) as is_retired from governance.rule_versions where rule_name = 'off_topic'",
      ),
    ).toEqual({ versions: 2, is_retired: true });
    expect(
      await desk.refusal("apply_preset", {
        p_preset: { name: "x", plans: [{ plan_id: "a", monthly_allowance: -1 }] },
      }),
    ).toMatchObject({
      code: "PT422",
      hint: "invalid_preset",
      message: expect.stringContaining("plans[0].monthly_allowance"),
    });
    await desk.close();
  });
});

it("every error that the SQL raises is written down", () => {
  const folder = new URL("../../../supabase/", import.meta.url);
  const written = readFileSync(new URL("ERROR_CODES.md", folder), "utf8");
  const missing = readdirSync(new URL("migrations/", folder))
    .flatMap((file) => [
      ...readFileSync(new URL(`migrations/${file}`, folder), "utf8").matchAll(
        /governance\.fail\('(PT\d+)',\s*'(\w+)'/g,
      ),
    ])
    .filter(
      ([, code, hint]) =>
        !written.split("\n").some((line) => line.includes(`| ${code} |`) && line.includes(`\`${hint}\``)),
    )
    .map(([, code, hint]) => `${code} ${hint}`);
  expect(missing).toEqual([]);
});
