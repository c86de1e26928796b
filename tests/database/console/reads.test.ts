import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import * as records from "../../../shared/contract/index.ts";
import { installedVersions, openProject, type Project, use } from "../../support/project.ts";

type Account = z.infer<typeof records.accountRow>;
type Page = z.infer<typeof records.accountPage>;
type Event = z.infer<typeof records.usageEvent>;

const eventsPage = z.looseObject({
  events: z.array(records.usageEvent),
  next_before_event_id: z.number().int().nullable(),
});
const decisionsPage = z.looseObject({
  decisions: z.array(records.decisionRow),
  next_before_id: z.number().int().nullable(),
});

/** Every key of the record is there, null or not, and the record reads. */
function expectRecord(schema: z.ZodObject, value: unknown): void {
  expect(schema.safeParse(value).error).toBeUndefined();
  const required = Object.entries(schema.shape)
    .filter(([, field]) => !(field as z.ZodType).safeParse(undefined).success)
    .map(([key]) => key);
  expect(Object.keys(value as object)).toEqual(expect.arrayContaining(required));
}

async function everyAccount(desk: Project, parameters: Record<string, unknown>): Promise<Account[]> {
  const accounts: Account[] = [];
  let cursor: string | null = null;
  do {
    const page: Page = await desk.rpc("console_search_accounts", { ...parameters, p_cursor: cursor });
    accounts.push(...page.accounts);
    cursor = page.next_cursor;
  } while (cursor !== null);
  return accounts;
}

async function everyEvent(desk: Project, filter: object, limit: number): Promise<Event[]> {
  const events: Event[] = [];
  let before: number | null = null;
  do {
    const page: z.infer<typeof eventsPage> = await desk.rpc("console_events_before", {
      p_before_event_id: before,
      p_limit: limit,
      p_filter: filter,
    });
    events.push(...page.events);
    before = page.next_before_event_id;
  } while (before !== null);
  return events;
}

async function authorize(
  desk: Project,
  requestId: string,
  userId: string,
  extra: Record<string, unknown> = {},
) {
  return desk.rpc<{ decision: string; decision_id: number; reason: string | null }>("authorize_usage", {
    p_request_id: requestId,
    p_user_id: userId,
    p_model: "gpt-4o-mini",
    ...extra,
  });
}

describe.each(installedVersions())("what the console reads, on PostgreSQL %i", (version) => {
  let desk: Project;
  beforeAll(async () => {
    desk = await openProject(version);
    const people = [
      ["anna", "Anna Müller", "anna@example.com", "pro"],
      ["bob", "Bob O'Brien", "bob@corp.example", "starter"],
      ["carla", "Carla 100%", "c_arla@example.com", "starter"],
      ["dmitri", "Дмитрий Анна", "dm@example.com", "business"],
      ["emma", null, "emma@example.com", "enterprise"],
      ["hanna", "Hanna Zoe", "hz@example.com", "starter"],
    ] as const;
    for (const [userId, name, email, plan] of people) {
      await desk.rpc("upsert_account", {
        p_user_id: userId,
        p_plan_id: plan,
        p_email: email,
        p_display_name: name,
      });
    }
    await use(desk, "anna", 900, { p_task_type: "chat", p_conversation_id: "c1", p_message: "hello" });
    await use(desk, "anna", 600, { p_message: "and again", p_conversation_id: "c1" });
    await use(desk, "bob", 45_000);
    await authorize(desk, "held-1", "carla", { p_estimated_tokens: 1_000 });
    await authorize(desk, "released-1", "carla", { p_estimated_tokens: 2_000 });
    await desk.rpc("release_usage", { p_request_id: "released-1", p_reason: "model was down" });
    await authorize(desk, "short-1", "bob", { p_estimated_tokens: 9_000 });
    await desk.rpc("flag_user", {
      p_command_id: "f1",
      p_user_id: "bob",
      p_reason: "looks odd",
      p_operator: "op",
    });
    await desk.rpc("block_user", {
      p_command_id: "b1",
      p_user_id: "hanna",
      p_reason: "spam",
      p_operator: "op",
    });
    await authorize(desk, "blocked-1", "hanna", { p_message: "hi" });
  });
  afterAll(() => desk?.close());

  const find = async (parameters: Record<string, unknown>): Promise<string[]> =>
    (await desk.rpc<Page>("console_search_accounts", parameters)).accounts.map(({ user_id }) => user_id);

  describe("records", () => {
    it("has every key of each record, always", async () => {
      expectRecord(records.overview, await desk.rpc("console_overview"));
      expectRecord(records.projectInfo, await desk.rpc("console_project_info"));
      const page = await desk.rpc<Page>("console_search_accounts");
      expectRecord(records.accountPage, page);
      for (const account of page.accounts) expectRecord(records.accountRow, account);
      for (const { user_id } of page.accounts) {
        const detail = await desk.rpc<{ account: object; lots: object[]; holds: object[]; audit: object[] }>(
          "console_get_account",
          { p_user_id: user_id },
        );
        expectRecord(records.accountDetail, detail);
        expectRecord(records.accountState, detail.account);
        for (const lot of detail.lots) expectRecord(records.lot, lot);
        for (const hold of detail.holds) expectRecord(records.hold, hold);
        for (const entry of detail.audit) expectRecord(records.auditEntry, entry);
        const { decisions } = await desk.rpc<z.infer<typeof decisionsPage>>("console_account_decisions", {
          p_user_id: user_id,
        });
        for (const decision of decisions) {
          expectRecord(records.decisionRow, decision);
          const receipt = await desk.rpc<{ rules: object[] }>("explain_decision", {
            p_decision_id: decision.decision_id,
          });
          expectRecord(records.receipt, receipt);
          for (const trace of receipt.rules) expectRecord(records.ruleTrace, trace);
        }
      }
      for (const event of await everyEvent(desk, {}, 100)) expectRecord(records.usageEvent, event);
      for (const hit of await desk.rpc<object[]>("console_search", { p_query: "an" }))
        expectRecord(records.searchHit, hit);
    });

    it("shows who an account is, what it has and what was done to it", async () => {
      const bob = await desk.rpc<z.infer<typeof records.accountDetail>>("console_get_account", {
        p_user_id: "bob",
      });
      expect(bob.account).toMatchObject({ is_flagged: true, flag_reason: "looks odd", is_blocked: false });
      expect(bob.balance).toMatchObject({ available: 5_000, subscription: 5_000, total: 5_000, debt: 0 });
      expect(bob.lots).toMatchObject([{ kind: "subscription", granted: 50_000, remaining: 5_000 }]);
      expect(bob.audit).toMatchObject([{ action: "flag_user", operator: "op", command_id: "f1" }]);
      const carla = await desk.rpc<z.infer<typeof records.accountDetail>>("console_get_account", {
        p_user_id: "carla",
      });
      expect(carla.holds).toMatchObject([{ request_id: "held-1", reserved_tokens: 1_000 }]);
      const hanna = await desk.rpc<z.infer<typeof records.accountDetail>>("console_get_account", {
        p_user_id: "hanna",
      });
      expect(hanna.account).toMatchObject({
        is_blocked: true,
        block_reason: "spam",
        blocked_until: null,
        blocked_by: "op",
      });
    });

    it("says what the connected project is", async () => {
      const info = await desk.rpc<z.infer<typeof records.projectInfo>>("console_project_info");
      expect(info).toMatchObject({
        preset: "default",
        currency: "usd",
        sample_data: false,
        accounts: 6,
        server_version: expect.stringMatching(`^${version}`),
      });
      expect(info.schema_version).toMatch(/^\d{14}$/);
      expect(info["migrations"]).toContainEqual(expect.stringContaining("governance_baseline"));
      expect(info.plans.map(({ plan_id }) => plan_id).sort()).toEqual([
        "business",
        "enterprise",
        "pro",
        "starter",
      ]);
    });
  });

  describe("search", () => {
    it.each([
      ["müll", ["anna"]],
      ["ANNA", ["anna", "hanna"]],
      ["o'brien", ["bob"]],
      ["@CORP", ["bob"]],
      ["дмитрий", ["dmitri"]],
      ["  anna   müller ", ["anna"]],
      ["00%", ["carla"]],
      ["c_a", ["carla"]],
      ["%%%", []],
      ["___", []],
      ["nobody", []],
      ["\\", []],
    ])("finds %j anywhere in id, name and e-mail", async (query, expected) => {
      expect((await find({ p_query: query })).sort()).toEqual(expected);
    });

    it("looks at beginnings alone where fewer than three characters are typed", async () => {
      expect(await find({ p_query: "an" })).toEqual(["anna"]);
      expect((await find({ p_query: "h" })).sort()).toEqual(["hanna"]);
      expect(await find({ p_query: "d" })).toEqual(["dmitri"]);
    });

    it("puts names that begin with the text first, in either direction", async () => {
      expect(await find({ p_query: "anna" })).toEqual(["anna", "hanna"]);
      expect(await find({ p_query: "anna", p_descending: true })).toEqual(["anna", "hanna"]);
      expect(await find({ p_query: "zoe" })).toEqual(["hanna"]);
    });

    it("follows a change of name, e-mail and plan at once", async () => {
      await desk.rpc("upsert_account", {
        p_user_id: "moved",
        p_display_name: "Before Now",
        p_plan_id: "starter",
      });
      await desk.rpc("upsert_account", {
        p_user_id: "moved",
        p_display_name: "After Wards",
        p_email: "aw@example.com",
        p_plan_id: "pro",
      });
      expect(await find({ p_query: "before now" })).toEqual([]);
      expect(await find({ p_query: "after w" })).toEqual(["moved"]);
      expect(await find({ p_query: "aw@ex" })).toEqual(["moved"]);
      expect(await find({ p_plan_id: "pro" })).toEqual(["moved", "anna"]);
    });

    it("filters by what operators decided and by what was used", async () => {
      expect(await find({ p_filter: "flagged" })).toEqual(["bob"]);
      expect(await find({ p_filter: "blocked" })).toEqual(["hanna"]);
      expect(await find({ p_filter: "near_limit" })).toEqual(["bob"]);
      expect(await find({ p_filter: "in_debt" })).toEqual([]);
      expect((await find({ p_filter: "active_today" })).sort()).toEqual(["anna", "bob", "carla", "hanna"]);
      expect(await find({ p_filter: "near_limit", p_query: "anna" })).toEqual([]);
    });

    it("answers the palette with the request, the user and the rule that were meant", async () => {
      const hits = async (query: string) =>
        (await desk.rpc<z.infer<typeof records.searchHit>[]>("console_search", { p_query: query })).map(
          ({ kind, id }) => `${kind} ${id}`,
        );
      expect(await hits("short-1")).toEqual(["request short-1"]);
      expect((await hits("anna")).slice(0, 2)).toEqual(["user anna", "user hanna"]);
      expect(await hits("spam_ident")).toEqual(["rule spam_identical"]);
      expect(await hits("   ")).toEqual([]);
    });
  });

  describe("events and decisions read back", () => {
    it("are the very records of the feed, newest first, whatever the page size", async () => {
      const feed = await desk.rpc<{ events: Event[] }>("usage_events_since", { p_limit: 5_000 });
      expect(feed.events.length).toBeGreaterThan(8);
      for (const limit of [1, 3, 1000]) {
        expect(await everyEvent(desk, {}, limit)).toEqual(feed.events.toReversed());
      }
    });

    it.each([
      { user_id: "carla" },
      { decision: "block" },
      { decision: "allow" },
      { reason: "user_blocked" },
      { reason: "never heard of" },
      { model: "gpt-4o-mini" },
      { model: "other" },
      { kinds: ["released", "settled"] },
      { kinds: ["blocked"], user_id: "hanna" },
      { user_id: "bob", reason: "insufficient_tokens" },
      { user_id: "no such user" },
      { kinds: [] },
    ])("are filtered as the feed filters them: %j", async (filter) => {
      const feed = await desk.rpc<{ events: Event[] }>("usage_events_since", {
        p_limit: 5_000,
        p_filter: filter,
      });
      for (const limit of [2, 500])
        expect(await everyEvent(desk, filter, limit)).toEqual(feed.events.toReversed());
    });

    it("refuse a filter that is not understood", async () => {
      for (const filter of [{ user: "x" }, { user_id: 7 }, [], "x", { kinds: "blocked" }]) {
        expect(
          await desk.refusal("console_events_before", { p_filter: JSON.stringify(filter) }),
        ).toMatchObject({ code: "PT400", hint: "invalid_argument" });
      }
    });

    it("page through a user's decisions without gap or twin", async () => {
      const all = (
        await desk.rpc<z.infer<typeof decisionsPage>>("console_account_decisions", { p_user_id: "anna" })
      ).decisions;
      expect(all.map(({ status }) => status)).toEqual(["settled", "settled"]);
      const first = await desk.rpc<z.infer<typeof decisionsPage>>("console_account_decisions", {
        p_user_id: "anna",
        p_limit: 1,
      });
      const second = await desk.rpc<z.infer<typeof decisionsPage>>("console_account_decisions", {
        p_user_id: "anna",
        p_limit: 1,
        p_before_id: first.next_before_id,
      });
      expect([...first.decisions, ...second.decisions]).toEqual(all);
      expect(second.next_before_id).toBeNull();
      expect(
        await desk.refusal("console_account_decisions", { p_user_id: "anna", p_before_id: 1 }),
      ).toMatchObject({ code: "PT404", hint: "not_found" });
    });
  });

  describe("receipts", () => {
    type Receipt = z.infer<typeof records.receipt>;
    const explain = async (requestId: string): Promise<Receipt> => {
      const { decision_id } = await desk.one<{ decision_id: string }>(
        "select decision_id from governance.requests where request_id = $1",
        [requestId],
      );
      return desk.rpc<Receipt>("explain_decision", { p_decision_id: decision_id });
    };

    it("say how many tokens were missing, and what would help", async () => {
      const receipt = await explain("short-1");
      expect(receipt).toMatchObject({
        decision: "block",
        reason: "insufficient_tokens",
        http_status: 402,
        rule_name: null,
        limit: null,
        shortfall: { need: 9_000, have: 5_000, missing: 4_000 },
      });
      expect(receipt.clears_at).not.toBeNull();
      expect(receipt.remedies.slice(0, 3)).toEqual([
        "Add at least 4,000 tokens.",
        "Ask for less: at most 5,000 tokens are free.",
        "Move the user to the plan Pro.",
      ]);
      expect(receipt.rules.map(({ rule_name }) => rule_name)).toEqual([
        "daily_limit",
        "spam_identical",
        "bot_behavior",
        "token_hogging",
        "long_conversation",
        "large_message",
        "offpeak_routing",
      ]);
      expect(receipt.rules.every(({ matched }) => !matched)).toBe(true);
    });

    it("promise no clearing where the next allowance would not be enough", async () => {
      await authorize(desk, "short-2", "bob", { p_estimated_tokens: 60_000 });
      expect((await explain("short-2")).clears_at).toBeNull();
    });

    it("name the limit, what was used of it and when it resets", async () => {
      await desk.rpc("upsert_account", {
        p_user_id: "limited",
        p_plan_id: "pro",
        p_timezone: "Asia/Kathmandu",
      });
      await use(desk, "limited", 98_760);
      await authorize(desk, "limit-1", "limited", { p_estimated_tokens: 2_480 });
      const receipt = await explain("limit-1");
      expect(receipt).toMatchObject({
        reason: "daily_limit",
        http_status: 429,
        timezone: "Asia/Kathmandu",
        limit: { window: "daily", limit: 100_000, used: 98_760 },
        shortfall: { need: 2_480, have: 1_240, missing: 1_240 },
      });
      const midnight = await desk.one<{ at: string }>(
        "select to_char(((now() at time zone 'Asia/Kathmandu')::date + 1)::timestamp at time zone 'Asia/Kathmandu' at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI') as at",
      );
      expect(receipt.clears_at).toContain(midnight.at);
      await authorize(desk, "limit-2", "limited", { p_estimated_tokens: 200_000 });
      expect((await explain("limit-2")).clears_at).toBeNull();
    });

    it("add up where a limit is overrun already: the call lacks what it needs, not what others used", async () => {
      await desk.rpc("upsert_account", { p_user_id: "overrun", p_plan_id: "pro" });
      await authorize(desk, "overrun-1", "overrun", { p_estimated_tokens: 90_000 });
      await desk.rpc("settle_usage", {
        p_request_id: "overrun-1",
        p_input_tokens: 103_819,
        p_output_tokens: 0,
      });
      await authorize(desk, "overrun-2", "overrun", { p_estimated_tokens: 2_000 });
      const receipt = await explain("overrun-2");
      expect(receipt).toMatchObject({
        limit: { window: "daily", limit: 100_000, used: 103_819 },
        shortfall: { need: 2_000, have: 0, missing: 2_000 },
      });
      expect(receipt.remedies[0]).toBe("Raise the daily limit to at least 105,819 tokens.");
    });

    it("name the rule and version that stopped a call, with what it saw, and none after it", async () => {
      for (let n = 1; n <= 10; n += 1) {
        await authorize(desk, `spam-${n}`, "spammer", { p_message: "Buy  NOW", p_estimated_tokens: 10 });
        await desk.sql.query(
          "update governance.accounts set last_message_at = last_message_at - interval '10 s' where user_id = 'spammer'",
        );
      }
      const receipt = await explain("spam-10");
      expect(receipt).toMatchObject({
        reason: "spam_identical",
        rule_name: "spam_identical",
        rule_version: 1,
        http_status: 429,
        shortfall: null,
        limit: null,
      });
      expect(receipt.rules.map(({ rule_name, matched }) => [rule_name, matched])).toEqual([
        ["daily_limit", false],
        ["spam_identical", true],
      ]);
      expect(receipt.rules[1]?.facts).toEqual({ identical_messages: 10 });
      expect(receipt.rules[1]?.rule).toMatchObject({
        conditions: { all: [{ fact: "identical_messages", op: ">=", value: 10 }] },
        action: { block: { reason: "spam_identical", minutes: 15 } },
      });
      expect(receipt.clears_at).not.toBeNull();

      // The block that followed is the same rule's, and no rule was asked again.
      await authorize(desk, "spam-11", "spammer", { p_message: "something else", p_estimated_tokens: 10 });
      const later = await explain("spam-11");
      expect(later).toMatchObject({ reason: "spam_identical", rule_name: "spam_identical", rules: [] });
      expect(later.remedies[0]).toContain("unblock the user");
    });

    it("keep the version that decided when the rule is changed later", async () => {
      const rules = await desk.rpc<{ rule_name: string }[]>("list_rules");
      const spam = rules.find(({ rule_name }) => rule_name === "spam_identical");
      await desk.rpc("save_rule", { p_command_id: "c-spam", p_rule: { ...spam, mode: "shadow" } });
      expect(await explain("spam-10")).toMatchObject({
        rule_version: 1,
        rules: [{}, { mode: "enforce", version: 1 }],
      });
      for (let n = 1; n <= 10; n += 1)
        await authorize(desk, `shadow-${n}`, "shadowed", { p_message: "Buy  NOW", p_estimated_tokens: 10 });
      const shadow = await explain("shadow-10");
      expect(shadow.decision).toBe("allow");
      expect(shadow.rules.find(({ rule_name }) => rule_name === "spam_identical")).toMatchObject({
        mode: "shadow",
        version: 2,
        matched: true,
        facts: { identical_messages: 10 },
      });
    });

    it("say that an operator's block came before any rule", async () => {
      expect(await explain("blocked-1")).toMatchObject({
        reason: "user_blocked",
        http_status: 403,
        rules: [],
        clears_at: null,
        remedies: ["An operator can unblock this user."],
      });
    });

    it("answer not_found for what is no decision", async () => {
      expect(await desk.refusal("explain_decision", { p_decision_id: 999_999_999 })).toMatchObject({
        code: "PT404",
        hint: "not_found",
      });
    });
  });
});

describe("the user table over many accounts", () => {
  let desk: Project;
  beforeAll(async () => {
    desk = await openProject(18);
    await desk.sql.query(`
      insert into governance.accounts (user_id, plan_id, display_name, email, local_day, day_ends_at, local_month, month_ends_at, last_activity_at, day_calls, day_tokens, month_tokens, subscription_tokens, month_cost_micros)
      select 'u' || lpad(i::text, 5, '0'), (array['starter','pro'])[1 + (i % 10 = 0)::int], case when i % 5 > 0 then (array['Zoe','Liam','Ann'])[1 + i % 3] || ' ' || i % 50 end,
        'mail' || i || '@example.com', current_date, current_date + 1, date_trunc('month', now())::date, now() + interval '40 days',
        now() - (i % 7) * interval '1 minute', 1, i % 13, i % 17, 100 + i % 11, i % 19
      from generate_series(1, 6500) i`);
    await desk.sql.query(
      "select governance.copy_to_listings(array(select account_id from governance.accounts))",
    );
    await desk.sql.query("analyze");
  });
  afterAll(() => desk?.close());

  const sorts = [
    "name",
    "tokens_today",
    "tokens_this_month",
    "available",
    "last_activity",
    "cost_this_month_micros",
    "usage_percent",
    "created_at",
  ] as const;
  it.each(
    sorts.flatMap(
      (sort) =>
        [
          [sort, false],
          [sort, true],
        ] as const,
    ),
  )("pages through everybody once by %s, descending %s", async (sort, isDescending) => {
    const accounts = await everyAccount(desk, { p_sort: sort, p_descending: isDescending, p_limit: 100 });
    expect(new Set(accounts.map(({ user_id }) => user_id)).size).toBe(6_500);
    expect(accounts).toHaveLength(6_500);
    const key = (account: Account): string | number =>
      sort === "name"
        ? (account.display_name ?? account.user_id).toLowerCase()
        : sort === "available"
          ? account.available
          : sort === "last_activity"
            ? Date.parse(account.last_activity ?? "")
            : sort === "usage_percent"
              ? (account.usage_percent ?? -1)
              : sort === "created_at"
                ? Date.parse(account.created_at)
                : account[sort];
    const keys = accounts.map(key);
    const ordered = keys.toSorted((a, b) => (a < b ? -1 : a > b ? 1 : 0));
    expect(keys).toEqual(isDescending ? ordered.toReversed() : ordered);
  });

  it("finds everybody once where very many match, those whose name begins with it first", async () => {
    const accounts = await everyAccount(desk, { p_query: "zoe", p_limit: 100 });
    const { n } = await desk.one<{ n: number }>(
      "select count(*)::int as n from governance.accounts where display_name ilike '%zoe%'",
    );
    expect(accounts).toHaveLength(n);
    // "example" is in everybody's e-mail and in no name.
    const first = await desk.rpc<Page>("console_search_accounts", { p_query: "example", p_limit: 100 });
    expect(first.accounts).toHaveLength(100);
    expect(first.total_is_exact).toBe(false);
    expect(first.total).toBeGreaterThan(5_000);
    expect(first.total).toBeLessThan(8_000);
    expect(await everyAccount(desk, { p_query: "mail", p_plan_id: "pro", p_limit: 100 })).toHaveLength(650);
  });

  it("counts exactly what is few, and the whole table while it is not huge", async () => {
    expect(await desk.rpc("console_search_accounts", { p_plan_id: "pro" })).toMatchObject({
      total: 650,
      total_is_exact: true,
    });
    expect(await desk.rpc("console_search_accounts")).toMatchObject({ total: 6_500, total_is_exact: true });
    expect(await desk.rpc("console_search_accounts", { p_query: "u00042" })).toMatchObject({
      total: 1,
      total_is_exact: true,
    });
  });

  it("refuses a cursor of another search, or none at all", async () => {
    const { next_cursor } = await desk.rpc<Page>("console_search_accounts", { p_sort: "available" });
    for (const cursor of [
      next_cursor,
      "",
      "x",
      "e30=",
      btoa('{"s":"sort_nameasc","t":0,"k":null,"i":1}'),
      btoa('{"s":"sort_nameasc","t":9,"k":"a","i":1}'),
      btoa("[1]"),
    ]) {
      expect(
        await desk.refusal("console_search_accounts", { p_sort: "name", p_cursor: cursor }),
      ).toMatchObject({ code: "PT400", hint: "invalid_argument" });
    }
  });
});

describe("what is going on", () => {
  it("counts every call once, while many are made at once", async () => {
    const desk = await openProject(18);
    const pool = new pg.Pool({ connectionString: desk.ownerUrl, max: 8 });
    const call = (text: string, values: unknown[]) => pool.query(text, values);
    let isDone = false;
    const watcher = (async () => {
      while (!isDone) await desk.rpc("console_overview", { p_minutes: 30 });
    })();
    await Promise.all(
      Array.from({ length: 8 }, async (_, worker) => {
        for (let n = 0; n < 40; n += 1) {
          const requestId = `${worker}-${n}`;
          await call("select public.authorize_usage($1, $2, 'gpt-4o-mini', $3)", [
            requestId,
            `user-${n % 5}`,
            n % 10 === 9 ? 10_000_000 : 100,
          ]);
          if (n % 10 === 9) continue;
          if (n % 10 === 8) await call("select public.release_usage($1)", [requestId]);
          else await call("select public.settle_usage($1, 40, 30)", [requestId]);
        }
      }),
    );
    isDone = true;
    await watcher;
    const overview = await desk.rpc<z.infer<typeof records.overview>>("console_overview", { p_minutes: 30 });
    expect(overview).toMatchObject({
      calls: 320,
      blocked: 32,
      settled_tokens: 8 * 32 * 70,
      active_users: 5,
      open_holds: 0,
      held_tokens: 0,
    });
    expect(overview.steps.length).toBeGreaterThanOrEqual(30);
    expect(overview.steps.reduce((sum, step) => sum + step.calls, 0)).toBe(320);
    expect(overview.reasons).toEqual([{ reason: "insufficient_tokens", calls: 32 }]);
    expect(overview.top_users.reduce((sum, user) => sum + user.tokens, 0)).toBe(8 * 32 * 70);
    // Counted for good once no other transaction on the server, anybody's, was under way for a moment.
    await expect
      .poll(
        async () => {
          await desk.rpc("console_rail_counts");
          return desk.one(
            "select sum(calls)::int as followed from governance.call_totals where step = 'minute' and kind = 'decided'",
          );
        },
        { timeout: 60_000 },
      )
      .toEqual({ followed: 320 });
    expect(await desk.rpc("console_overview", { p_minutes: 30 })).toMatchObject({
      calls: 320,
      settled_tokens: 8 * 32 * 70,
      top_users: overview.top_users,
    });
    await pool.end();
    await desk.close();
  });

  it("sees a call that is not yet counted because another transaction is still open", async () => {
    const desk = await openProject(18);
    await use(desk, "before", 10);
    const slow = new pg.Client({ connectionString: desk.ownerUrl });
    await slow.connect();
    await slow.query("begin");
    await slow.query("select public.authorize_usage('slow', 'slow', 'gpt-4o-mini', 50)");
    await use(desk, "after", 10);
    expect(await desk.rpc("console_overview")).toMatchObject({ calls: 2, settled_tokens: 20 });
    expect(await desk.rpc("console_overview")).toMatchObject({ calls: 2, settled_tokens: 20 });
    await slow.query("commit");
    await slow.end();
    expect(await desk.rpc("console_overview")).toMatchObject({ calls: 3, open_holds: 1, held_tokens: 50 });
    expect(await desk.rpc("console_overview")).toMatchObject({ calls: 3 });
    await desk.close();
  });

  it("does not wait for ever for a transaction that is no call", async () => {
    const desk = await openProject(18);
    const long = new pg.Client({ connectionString: desk.ownerUrl });
    await long.connect();
    await long.query("begin");
    await long.query("select pg_current_xact_id()");
    await use(desk, "ann", 10);
    await desk.rpc("console_overview");
    const counted = () =>
      desk.one(
        "select coalesce(sum(calls), 0)::int as n from governance.call_totals where step = 'minute' and kind = 'decided'",
      );
    expect(await counted()).toEqual({ n: 0 });
    await desk.sql.query(
      "update governance.maintenance_state set value = value || jsonb_build_object('mark_at', now() - interval '3 minutes') where key = 'followed_events'",
    );
    await desk.rpc("console_overview");
    await desk.rpc("console_overview");
    expect(await counted()).toEqual({ n: 1 });
    expect(await desk.rpc("console_overview")).toMatchObject({ calls: 1, settled_tokens: 10 });
    await long.query("rollback");
    await long.end();
    await desk.close();
  });

  it("forgets the day at its local end, and a block when its time is over", async () => {
    const desk = await openProject(18);
    await desk.setClock("2026-03-28 22:30:00Z", true);
    await desk.rpc("upsert_account", { p_user_id: "berlin", p_timezone: "Europe/Berlin" });
    await use(desk, "berlin", 500);
    await desk.rpc("block_user", {
      p_command_id: "b",
      p_user_id: "berlin",
      p_reason: "calm down",
      p_until: "2026-03-28T22:45:00Z",
    });
    expect(await desk.rpc("console_search_accounts", { p_filter: "active_today" })).toMatchObject({
      total: 1,
      accounts: [{ tokens_today: 500 }],
    });
    expect(await desk.rpc("console_rail_counts")).toMatchObject({ blocked: 1 });
    await desk.setClock("2026-03-28 23:00:00Z", true);
    expect(await desk.rpc("console_search_accounts", { p_filter: "active_today" })).toMatchObject({
      total: 0,
    });
    expect(await desk.rpc("console_search_accounts", { p_filter: "blocked" })).toMatchObject({ total: 0 });
    expect(await desk.rpc("console_search_accounts", { p_sort: "tokens_today" })).toMatchObject({
      accounts: [{ tokens_today: 0, tokens_this_month: 500, is_blocked: false }],
    });
    await desk.setClock("2026-03-31 22:00:00Z", true);
    expect(await desk.rpc("console_search_accounts")).toMatchObject({
      accounts: [{ tokens_this_month: 0, cost_this_month_micros: 0 }],
    });
    await desk.close();
  });

  it("reads without writing where the transaction may only read", async () => {
    const desk = await openProject(18);
    await use(desk, "reader", 10);
    const client = new pg.Client({ connectionString: desk.ownerUrl });
    await client.connect();
    await client.query("set default_transaction_read_only = on");
    for (const call of [
      "console_overview()",
      "console_rail_counts()",
      "console_search_accounts('reader')",
      "console_get_account('reader')",
      "console_events_before()",
      "get_or_create_token_record('reader')",
    ]) {
      expect((await client.query(`select public.${call} as answer`)).rows[0].answer).toBeTypeOf("object");
    }
    expect((await client.query("select public.console_overview() as answer")).rows[0].answer).toMatchObject({
      calls: 1,
      settled_tokens: 10,
    });
    await client.end();
    await desk.close();
  });
});
