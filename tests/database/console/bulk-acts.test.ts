/** One correction of many accounts: worked out first, done in steps, stopped, gone on with, and undone as a whole. */
import { setTimeout as wait } from "node:timers/promises";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openProject, type Project } from "../../support/project.ts";
import { seeded, sized } from "../../support/size.ts";
import { dice } from "../../support/dice.ts";

interface Plan {
  readonly accounts: number;
  readonly changes: number;
  readonly refused: number;
  readonly missing: number;
  readonly tokens: number;
  readonly debt_paid: number;
  readonly stake: number;
  readonly why: string | null;
  readonly by_refusal: readonly { readonly hint: string; readonly accounts: number }[];
}
interface Bulk {
  readonly bulk_id: number;
  readonly status: string;
  readonly accounts: number;
  readonly done: number;
  readonly refused: number;
  readonly undone: number;
  readonly tokens: number;
  readonly can_undo: boolean;
}

let serial = 0;
const fresh = (what: string): string => `${what}-${++serial}`;

describe("acts on many accounts", () => {
  let project: Project;
  beforeAll(async () => {
    project = await openProject(18, { connections: 8 });
  });
  afterAll(async () => {
    expect(await project.rpc("verify_ledger")).toMatchObject({ problems: [] });
    await project.close();
  });

  const makeUsers = async (count: number, plan = "starter"): Promise<string[]> => {
    const prefix = fresh("many");
    await project.sql.query(
      "select public.upsert_account($1 || '-' || n, $2) from generate_series(1, $3::int) n",
      [prefix, plan, count],
    );
    return Array.from({ length: count }, (_, index) => `${prefix}-${index + 1}`);
  };
  const balances = async (users: readonly string[]): Promise<Record<string, unknown>> => {
    const { rows } = await project.sql.query<{ user_id: string; balance: string }>(
      `select user_id, row(plan_id, subscription_tokens, purchased_tokens, promotional_tokens, debt_tokens,
         reserved_tokens)::text as balance from governance.accounts where user_id = any ($1)`,
      [users],
    );
    return Object.fromEntries(rows.map(({ user_id: id, balance }) => [id, balance]));
  };
  const total = async (users: readonly string[]): Promise<number> =>
    (
      await project.one<{ n: number }>(
        `select sum(subscription_tokens + purchased_tokens + promotional_tokens - debt_tokens)::float8 as n
         from governance.accounts where user_id = any ($1)`,
        [users],
      )
    ).n;
  const preview = (act: object, users: readonly string[], operator = fresh("agent")) =>
    project.rpc<Plan>("console_preview_bulk_act", { p_act: act, p_user_ids: users, p_operator: operator });
  const command = (act: object, users: readonly string[], more: object = {}) => ({
    p_command_id: fresh("bulk"),
    p_act: act,
    p_user_ids: users,
    p_reason: "an outage",
    p_operator: fresh("agent"),
    ...more,
  });
  const start = (act: object, users: readonly string[], more: object = {}) =>
    project.rpc<Bulk>("console_start_bulk_act", command(act, users, more));
  const step = (bulk: Bulk, limit = 50) =>
    project.rpc<Bulk>("console_step_bulk_act", { p_bulk_id: bulk.bulk_id, p_limit: limit });
  const change = (bulk: Bulk, action: string, more: object = {}) =>
    project.rpc<Bulk>("console_change_bulk_act", {
      p_command_id: fresh("change"),
      p_bulk_id: bulk.bulk_id,
      p_action: action,
      p_reason: "a second thought",
      p_operator: "anna",
      ...more,
    });
  const finish = async (bulk: Bulk): Promise<Bulk> => {
    let now = bulk;
    while (now.status === "running" || now.status === "undoing") now = await step(now, 500);
    return now;
  };
  /** What one person may decide alone, for the length of a test. */
  const allowAlone = (tokens: number) =>
    project.sql.query(
      `insert into governance.settings (key, value) values ('approval_above_tokens', to_jsonb($1::bigint))
       on conflict (key) do update set value = excluded.value`,
      [tokens],
    );
  const use = async (user: string, tokens: number): Promise<void> => {
    const request = fresh("used");
    await project.rpc("authorize_usage", {
      p_request_id: request,
      p_user_id: user,
      p_model: "m",
      p_estimated_tokens: 1,
    });
    await project.rpc("settle_usage", { p_request_id: request, p_input_tokens: tokens, p_output_tokens: 0 });
  };

  it("a grant to all of many: the preview is the result, killed steps go on, nobody gets it twice, and the undo returns every balance", async () => {
    const count = sized(1_000, 10_000);
    const users = await makeUsers(count);
    await use(users[3] as string, 50_300);
    await use(users[4] as string, 52_000);
    await allowAlone(count * 2_000);
    const before = await balances(users);
    const beforeTotal = await total(users);
    const act = { kind: "give_tokens", tokens: 1_000 };
    const plan = await preview(act, users);
    expect(plan).toMatchObject({
      accounts: count,
      changes: count,
      refused: 0,
      tokens: count * 1_000,
      debt_paid: 1_300,
      why: null,
    });
    expect(await balances(users)).toEqual(before);
    const bulk = await start(act, users, {
      p_expected_changes: plan.changes,
      p_expected_tokens: plan.tokens,
    });
    expect(bulk).toMatchObject({ status: "running", done: 0 });
    expect(await balances(users)).toEqual(before);

    // Three consoles step; their connections are killed again and again, in the middle of a step.
    const random = dice(seeded(11));
    let kills = 0;
    const steppers = Array.from({ length: 3 }, async (_, number) => {
      for (;;) {
        const client = new pg.Client({
          connectionString: project.ownerUrl,
          application_name: `step ${number}`,
        });
        client.on("error", () => undefined);
        try {
          await client.connect();
          for (;;) {
            const { rows } = await client.query<{ bulk: Bulk }>(
              "select public.console_step_bulk_act($1, 40) as bulk",
              [bulk.bulk_id],
            );
            if (rows[0]?.bulk.status !== "running") return;
          }
        } catch {
          kills += 1;
        } finally {
          await client.end().catch(() => undefined);
        }
      }
    });
    const killing = (async () => {
      for (let n = 0; n < 15; n += 1) {
        await wait(15 + random() * 60);
        await project.sql.query(
          "select pg_terminate_backend(pid) from pg_stat_activity where application_name = $1",
          [`step ${Math.floor(random() * 3)}`],
        );
      }
    })();
    await Promise.all([...steppers, killing]);
    expect(kills).toBeGreaterThan(0);
    const done = await finish(bulk);
    expect(done).toMatchObject({ status: "done", done: count, refused: 0, tokens: plan.tokens });
    expect(await total(users)).toBe(beforeTotal + plan.tokens);
    const { most, acts } = await project.one<{ most: number; acts: number }>(
      `select max(n)::int as most, sum(n)::int as acts from (
         select count(*) as n from governance.account_acts where bulk_id = $1 group by account_id) x`,
      [bulk.bulk_id],
    );
    expect({ most, acts }).toEqual({ most: 1, acts: count });
    expect(await project.rpc("verify_ledger")).toMatchObject({ problems: [] });

    await change(bulk, "undo");
    expect(await finish(await step(bulk))).toMatchObject({ status: "undone", undone: count, tokens: 0 });
    expect(await balances(users)).toEqual(before);
  });

  it("leaves those out that are gone or refuse, says why by user, and does the others", async () => {
    const users = await makeUsers(6);
    await use(users[0] as string, 49_500);
    const act = { kind: "take_tokens", tokens: 1_000 };
    const wanted = [...users, users[1] as string, "nobody-of-this-name", "'; drop table x; --"];
    const plan = await preview(act, wanted);
    expect(plan).toMatchObject({
      accounts: 6,
      changes: 5,
      refused: 1,
      missing: 2,
      missing_ids: ["'; drop table x; --", "nobody-of-this-name"],
      tokens: -5_000,
      by_refusal: [{ hint: "insufficient_tokens", accounts: 1 }],
    });
    const bulk = await start(act, wanted);
    // One spends what it had, and one is gone, before their turn comes.
    await use(users[1] as string, 49_900);
    await project.sql.query(
      "insert into governance.bulk_act_accounts (bulk_id, account_id, lock_key) values ($1, 999999999, 0)",
      [bulk.bulk_id],
    );
    const done = await finish(bulk);
    expect(done).toMatchObject({ status: "done", done: 4, refused: 3, tokens: -4_000 });
    const { rows } = await project.rpc<{
      rows: { user_id: string | null; status: string; hint: string | null }[];
    }>("console_bulk_act", { p_bulk_id: bulk.bulk_id, p_status: "refused" });
    expect(rows.map(({ user_id: id, hint }) => [id, hint])).toEqual([
      [users[0], "insufficient_tokens"],
      [users[1], "insufficient_tokens"],
      [null, "failed"],
    ]);
  });

  it("moves many to a plan, with the allowance that is added, and back", async () => {
    const users = [...(await makeUsers(5)), ...(await makeUsers(3, "pro"))];
    const before = await balances(users);
    await allowAlone(10_000_000);
    const act = { kind: "change_plan", plan_id: "pro" };
    const plan = await preview(act, users);
    expect(plan).toMatchObject({
      changes: 5,
      tokens: 2_250_000,
      by_refusal: [{ hint: "nothing_to_change", accounts: 3 }],
    });
    const done = await finish(await start(act, users));
    expect(done).toMatchObject({ done: 5, refused: 3, tokens: plan.tokens });
    // One of them has moved on since: that one stays, and the list says so.
    await project.rpc("upsert_account", { p_user_id: users[0], p_plan_id: "business" });
    const moved = await balances([users[0] as string]);
    await change(done, "undo");
    expect(await finish(await step(done))).toMatchObject({ status: "undone", undone: 4 });
    expect(await balances(users)).toEqual({ ...before, ...moved });
    expect(
      await project.rpc("console_bulk_act", { p_bulk_id: done.bulk_id, p_status: "kept" }),
    ).toMatchObject({ rows: [{ user_id: users[0], hint: "changed_since" }] });
  });

  /** What an operator sees of where each of them stands. */
  const standings = async (users: readonly string[]): Promise<readonly unknown[]> =>
    (
      await project.sql.query(
        `select user_id, version > 0 as there, flagged_at is not null as flagged, flag_reason, flagged_by,
           blocked_at is not null as blocked, blocked_until, block_reason, rule_blocked_until, rule_block_reason,
           raised_daily_limit, raised_daily_until, raised_monthly_limit, raised_monthly_until, plan_id, next_plan_id
         from governance.accounts where user_id = any ($1) order by account_id`,
        [users],
      )
    ).rows;
  const soon = new Date(Date.now() + 86_400_000).toISOString();
  const soonerThan = new Date(Date.now() + 3_600_000).toISOString();
  const decide = async (user: string): Promise<unknown> =>
    (
      await project.rpc<{ decision: string }>("authorize_usage", {
        p_request_id: fresh("asked"),
        p_user_id: user,
        p_model: "m",
        p_estimated_tokens: 1,
      })
    ).decision;

  it.each([
    [{ kind: "flag_user" }, "flag_user", {}, ["flagged", true]],
    [{ kind: "unflag_user" }, "unflag_user", {}, ["flagged", false]],
    [{ kind: "block_user", until: soon }, "block_user", { p_until: soonerThan }, ["blocked", true]],
    [{ kind: "block_user" }, "block_user", { p_until: soonerThan }, ["blocked", true]],
    [{ kind: "unblock_user" }, "unblock_user", {}, ["blocked", false]],
    [
      { kind: "raise_limit", daily_limit: 5_000_000, until: soon },
      null,
      {},
      ["raised_daily_limit", "5000000"],
    ],
    [{ kind: "change_plan", plan_id: "pro", when: "next_period" }, null, {}, ["next_plan_id", "pro"]],
  ] as const)(
    "%j of many: who has it already is left out, the preview is the result, and the undo puts each back where they stood",
    async (act, single, more, [column, wanted]) => {
      // A plan with limits that can be raised.
      await project.sql.query("update governance.plans set daily_limit = 900000 where plan_id = 'starter'");
      const users = await makeUsers(6);
      const one = (name: string, user: string | undefined, fields: object = {}) =>
        project.rpc(name, {
          p_command_id: fresh("single"),
          p_user_id: user,
          p_reason: "before",
          p_operator: "zoe",
          ...fields,
        });
      // Half of them are flagged and blocked before, so that each act finds some to change.
      for (const user of users.slice(0, 3)) {
        await one("flag_user", user);
        await one("block_user", user, { p_until: soonerThan });
      }
      // The last is where the act leads already, where there is a function of one user for it.
      if (single) await one(single, users[5], { ...more, ...("until" in act ? { p_until: act.until } : {}) });
      const before = await standings(users);
      const operator = fresh("stander");
      const plan = await preview(act, users, operator);
      expect(plan).toMatchObject({ accounts: 6, tokens: 0, missing: 0, why: null });
      expect(plan.changes + plan.refused).toBe(6);
      expect(plan.changes).toBeGreaterThan(0);
      expect(await standings(users)).toEqual(before);

      const bulk = await start(act, [...users, "gone-since"], {
        p_operator: operator,
        p_expected_changes: plan.changes,
        p_expected_tokens: 0,
      });
      const done = await finish(bulk);
      expect(done).toMatchObject({
        status: "done",
        done: plan.changes,
        refused: plan.refused,
        can_undo: true,
      });
      expect(await standings(users)).not.toEqual(before);
      for (const row of (await standings(users)) as Record<string, unknown>[])
        if (column !== "blocked") expect(row[column]).toEqual(wanted);
      if (act.kind === "block_user") expect(await decide(users[4] as string)).toBe("block");
      if (act.kind === "unblock_user") expect(await decide(users[0] as string)).not.toBe("block");
      const { rows } = await project.rpc<{ rows: { hint: string }[] }>("console_bulk_act", {
        p_bulk_id: done.bulk_id,
        p_status: "refused",
      });
      expect(rows.every(({ hint }) => hint === "nothing_to_change")).toBe(true);

      await change(done, "undo");
      expect(await finish(await step(done))).toMatchObject({ status: "undone", undone: done.done });
      expect(await standings(users)).toEqual(before);
    },
  );

  it("an undo leaves alone whom somebody flagged, blocked or unblocked otherwise since", async () => {
    const users = await makeUsers(3);
    const done = await finish(await start({ kind: "block_user" }, users));
    const one = (name: string, user: string | undefined) =>
      project.rpc(name, {
        p_command_id: fresh("since"),
        p_user_id: user,
        p_reason: "since",
        p_operator: "zoe",
      });
    await one("unblock_user", users[0]);
    await one("block_user", users[1]);
    await change(done, "undo");
    expect(await finish(await step(done))).toMatchObject({ status: "undone", undone: 1 });
    expect(
      await project.rpc("console_bulk_act", { p_bulk_id: done.bulk_id, p_status: "kept" }),
    ).toMatchObject({
      rows: [
        { user_id: users[0], hint: "changed_since" },
        { user_id: users[1], hint: "changed_since" },
      ],
    });
    expect(await standings(users)).toMatchObject([{ blocked: false }, { blocked: true }, { blocked: false }]);
  });

  it("a note on many is in each one's audit, and says of whom it is: who pays, who is blocked, what they used", async () => {
    const users = await makeUsers(4);
    await use(users[0] as string, 300);
    await project.rpc("block_user", {
      p_command_id: fresh("b"),
      p_user_id: users[1],
      p_reason: "spam",
      p_operator: "zoe",
    });
    expect(await preview({ kind: "note" }, users)).toMatchObject({
      changes: 4,
      tokens: 0,
      blocked: 1,
      flagged: 0,
      paying: 0,
      used_this_month: 300,
    });
    const done = await finish(
      await start({ kind: "note" }, users, { p_reason: "Told of the outage <b>by mail</b>" }),
    );
    expect(done).toMatchObject({ status: "done", done: 4, can_undo: false });
    for (const user of users)
      expect(
        await project.rpc("console_audit", { p_filter: { user_id: user, action: "note" } }),
      ).toMatchObject({ entries: [{ reason: "Told of the outage <b>by mail</b>" }] });
  });

  it("stops between two accounts, goes on, and the undo of a half-done one touches only what was done", async () => {
    const users = await makeUsers(10);
    const before = await balances(users);
    const bulk = await start({ kind: "give_tokens", tokens: 5 }, users);
    expect(await step(bulk, 4)).toMatchObject({ status: "running", done: 4 });
    expect(await change(bulk, "stop")).toMatchObject({ status: "stopped", can_undo: true });
    expect(await step(bulk, 4)).toMatchObject({ status: "stopped", done: 4 });
    await change(bulk, "go_on");
    expect(await step(bulk, 2)).toMatchObject({ done: 6 });
    await change(bulk, "stop");
    // One of them was undone by itself before.
    const { rows } = await project.rpc<{ rows: { act_id: number }[] }>("console_bulk_act", {
      p_bulk_id: bulk.bulk_id,
      p_status: "done",
    });
    await project.rpc("console_undo_act", {
      p_command_id: fresh("undo"),
      p_act_id: rows[0]?.act_id,
      p_reason: "alone",
      p_operator: "anna",
    });
    await change(bulk, "undo");
    expect(await finish(await step(bulk))).toMatchObject({ status: "undone", done: 6, undone: 6, tokens: 0 });
    expect(await balances(users)).toEqual(before);
    for (const action of ["stop", "go_on", "undo", "approve"])
      expect(
        await project.refusal("console_change_bulk_act", {
          p_command_id: fresh("late"),
          p_bulk_id: bulk.bulk_id,
          p_action: action,
          p_reason: "late",
          p_operator: "bert",
        }),
      ).toMatchObject({ code: "PT409" });
  });

  it("above what one person may decide alone, all of it together waits for a second", async () => {
    await allowAlone(1_000_000);
    const users = await makeUsers(11);
    const before = await balances(users);
    const act = { kind: "give_tokens", tokens: 100_000 };
    expect((await preview(act, users)).why).toContain("second person");
    const bulk = await start(act, users, { p_operator: "Anna B" });
    expect(bulk).toMatchObject({ status: "proposed" });
    expect(await step(bulk)).toMatchObject({ status: "proposed", done: 0 });
    expect(
      await project.refusal("console_change_bulk_act", {
        p_command_id: fresh("own"),
        p_bulk_id: bulk.bulk_id,
        p_action: "approve",
        p_reason: "mine",
        p_operator: "annab",
      }),
    ).toMatchObject({ hint: "same_person" });
    expect(await balances(users)).toEqual(before);
    // Two approve at once: one does, the other sees that it is decided.
    const both = await Promise.allSettled([
      change(bulk, "approve", { p_operator: "bert" }),
      change(bulk, "approve", { p_operator: "carl" }),
    ]);
    expect(both.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
    expect(await finish(await step(bulk))).toMatchObject({ done: 11, tokens: 1_100_000 });

    // A bulk act counts towards what its operator decided alone, until it is undone.
    const by = { p_operator: "splitter" };
    const half = await finish(await start({ kind: "give_tokens", tokens: 60_000 }, users.slice(0, 10), by));
    expect(half).toMatchObject({ status: "done" });
    const more = { kind: "give_tokens", tokens: 50_000 };
    expect(await start(more, users.slice(0, 10), by)).toMatchObject({ status: "proposed" });
    await change(half, "undo");
    await finish(await step(half));
    expect(await start(more, users.slice(0, 10), by)).toMatchObject({ status: "running" });
  });

  it("refuses to start where it would do other than what was looked at, and twice does it once", async () => {
    const users = await makeUsers(3);
    const act = { kind: "take_tokens", tokens: 40_000 };
    const plan = await preview(act, users);
    await use(users[0] as string, 20_000);
    expect(
      await project.refusal(
        "console_start_bulk_act",
        command(act, users, { p_expected_changes: plan.changes, p_expected_tokens: plan.tokens }),
      ),
    ).toMatchObject({ code: "PT409", hint: "changed_since" });
    const one = command({ kind: "give_tokens", tokens: 1 }, users);
    const answers = await Promise.all(
      Array.from({ length: 8 }, () => project.rpc<Bulk>("console_start_bulk_act", one)),
    );
    expect(new Set(answers.map(({ bulk_id: id }) => id)).size).toBe(1);
    expect(await project.refusal("console_start_bulk_act", { ...one, p_reason: "other" })).toMatchObject({
      hint: "idempotency_conflict",
    });
    expect(await project.rpc("console_command_outcome", { p_command_id: one.p_command_id })).toMatchObject({
      is_done: true,
      answer: { bulk_id: answers[0]?.bulk_id },
    });
  });

  it("while it runs, calls of its accounts and acts of its operator do not wait for the whole", async () => {
    const users = await makeUsers(600);
    await allowAlone(10_000_000);
    const bulk = await start({ kind: "give_tokens", tokens: 10 }, users, { p_operator: "busy" });
    let isOver = false;
    const startedAt = performance.now();
    const running = finish(bulk).then((done) => {
      isOver = true;
      return done;
    });
    let during = 0;
    const waits: number[] = [];
    while (!isOver) {
      const began = performance.now();
      await project.call("authorize_usage", fresh("call"), users[during % users.length], "m", 1);
      await project.call(
        "console_act",
        fresh("beside"),
        users[(during * 7) % users.length],
        { kind: "note" },
        "beside it",
        "busy",
      );
      waits.push(performance.now() - began);
      during += 1;
    }
    expect(await running).toMatchObject({ status: "done", done: 600 });
    expect(during).toBeGreaterThan(3);
    // A step holds its accounts for about a tenth of what the whole takes.
    expect(Math.max(...waits)).toBeLessThan((performance.now() - startedAt) / 2);
  });

  it.each([
    [{ kind: "refund_call", request_id: "x" }, ["u"], "invalid_argument"],
    [{ kind: "end_hold", request_id: "x", action: "release" }, ["u"], "invalid_argument"],
    [{ kind: "block_user", until: "2020-01-01T00:00:00Z" }, ["u"], "invalid_argument"],
    [{ kind: "block_user", until: "infinity" }, ["u"], "invalid_argument"],
    [{ kind: "block_user", until: "soon" }, ["u"], "invalid_argument"],
    [{ kind: "flag_user", until: "2020-01-01T00:00:00Z" }, ["u"], "invalid_argument"],
    [{ kind: "flag_user'; drop table x; --" }, ["u"], "invalid_argument"],
    [{ kind: "raise_limit", daily_limit: 1.5, until: "2099-01-01T00:00:00Z" }, ["u"], "invalid_argument"],
    [{ kind: "give_tokens", tokens: 0 }, ["u"], "invalid_argument"],
    [{ kind: "give_tokens", tokens: -5 }, ["u"], "invalid_argument"],
    [{ kind: "give_tokens", tokens: 1.5 }, ["u"], "invalid_argument"],
    [{ kind: "give_tokens", tokens: 9_007_199_254_740_992 }, ["u"], "invalid_argument"],
    [{ kind: "give_tokens", tokens: 1 }, [], "invalid_argument"],
    [{ kind: "give_tokens", tokens: 1 }, null, "invalid_argument"],
    [{ kind: "give_tokens", tokens: 1 }, [1, null, {}], "invalid_argument"],
    [{ kind: "give_tokens", tokens: 1 }, { u: 1 }, "invalid_argument"],
    [{ kind: "give_tokens", tokens: 1 }, '"u"', "invalid_argument"],
    [{ kind: "give_tokens", tokens: 1 }, ["nobody", "no one"], "nothing_to_change"],
    [{ kind: "change_plan", plan_id: "nosuch" }, ["u"], "unknown_plan"],
  ])("refuses %j for %j", async (act, users, hint) => {
    const refused = await project.refusal("console_start_bulk_act", {
      ...command(act, []),
      p_user_ids: users,
    });
    expect(refused).toMatchObject({ hint });
    expect(refused.code).toMatch(/^PT4/);
  });

  it("refuses more users than fit into one act", async () => {
    const users = Array.from({ length: 20_001 }, (_, number) => `u${number}`);
    expect(
      await project.refusal("console_preview_bulk_act", {
        p_act: { kind: "note" },
        p_user_ids: users,
        p_operator: "anna",
      }),
    ).toMatchObject({ hint: "invalid_argument", message: expect.stringContaining("at most 20000") });
  });

  it("the list of acts shows a bulk act once, and each user's list shows their part of it", async () => {
    const users = await makeUsers(3);
    const operator = fresh("lister");
    const done = await finish(
      await start({ kind: "give_tokens", tokens: 5 }, users, { p_operator: operator }),
    );
    expect(await project.rpc("console_list_acts", { p_filter: { operator } })).toMatchObject({ acts: [] });
    expect(await project.rpc("console_list_acts", { p_filter: { user_id: users[0] } })).toMatchObject({
      acts: [{ kind: "give_tokens", operator, bulk_id: done.bulk_id, can_undo: true }],
    });
    expect(await project.rpc("console_list_bulk_acts", { p_limit: 1 })).toMatchObject({
      bulks: [{ bulk_id: done.bulk_id, operator, done: 3 }],
    });
    expect(
      await project.rpc("console_audit", { p_filter: { operator, action: "start_bulk" } }),
    ).toMatchObject({
      entries: [{ reason: "an outage", details: { bulk_id: done.bulk_id, accounts: 3 } }],
    });
  });
});
