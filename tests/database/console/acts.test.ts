/** What operators do to accounts: one truth of being blocked, and nobody overwrites a colleague unseen. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { z } from "zod";
import * as records from "../../../shared/contract/index.ts";
import { installedVersions, openProject, type Project } from "../../support/project.ts";
import { checkoutSession, dispute, event, type Purchase } from "../../support/stripe/events.ts";

type Account = z.infer<typeof records.accountState>;
type Row = z.infer<typeof records.accountRow>;
type Detail = z.infer<typeof records.accountDetail>;

let made = 0;
const fresh = (name: string): string => `${name}-${++made}`;

async function call(
  project: Project,
  userId: string,
  message: string,
): Promise<{ decision: string; reason: string }> {
  return project.rpc("authorize_usage", {
    p_request_id: fresh("request"),
    p_user_id: userId,
    p_model: "gpt-4o-mini",
    p_estimated_tokens: 10,
    p_message: message,
  });
}

/** Somebody whom the rule against spam has blocked for a while. */
async function makeSpammer(project: Project): Promise<string> {
  const user = fresh("spammer");
  await project.rpc("upsert_account", { p_user_id: user });
  for (let n = 0; n < 11; n++) await call(project, user, "win money now");
  return user;
}

describe.each(installedVersions())("acts of operators, on PostgreSQL %i", (version) => {
  let project: Project;
  beforeAll(async () => {
    project = await openProject(version);
  });
  afterAll(() => project?.close());

  const detail = (user: string) => project.rpc<Detail>("console_get_account", { p_user_id: user });
  const listed = async (user: string, filter = "all"): Promise<Row | undefined> =>
    (await project.rpc<{ accounts: Row[] }>("console_search_accounts", { p_query: user, p_filter: filter }))
      .accounts[0];
  const act = (name: string, user: string, more: Record<string, unknown> = {}) =>
    project.rpc<Account>(name, {
      p_command_id: fresh("command"),
      p_user_id: user,
      p_reason: "because",
      p_operator: "anna",
      ...more,
    });

  it("flags, blocks and their ends stand among the operator's acts, and are undone from there: a rule's block comes back too", async () => {
    const user = await makeSpammer(project);
    const operator = fresh("undoer");
    const before = (await detail(user)).account;
    for (const [name, more] of [
      ["flag_user", {}],
      ["unblock_user", {}],
      ["block_user", { p_until: null }],
    ] as const)
      await act(name, user, { p_operator: operator, ...more });
    const mine = async () =>
      (
        await project.rpc<{ acts: { act_id: number; kind: string; status: string; can_undo: boolean }[] }>(
          "console_list_acts",
          { p_filter: { operator } },
        )
      ).acts.filter(({ can_undo: can }) => can);
    expect((await mine()).map(({ kind }) => kind)).toEqual(["block_user", "unblock_user", "flag_user"]);
    // Not in any order: what came after would be overwritten.
    const [block, unblock] = await mine();
    expect(
      await project.refusal("console_undo_act", {
        p_command_id: fresh("undo"),
        p_act_id: unblock?.act_id,
        p_reason: "too early",
        p_operator: operator,
      }),
    ).toMatchObject({ hint: "changed_since" });
    expect(
      await project.rpc("console_undo_act", {
        p_command_id: fresh("look"),
        p_act_id: block?.act_id,
        p_reason: "look",
        p_operator: operator,
        p_dry_run: true,
      }),
    ).toMatchObject({ effects: { before: { is_blocked: true }, after: { is_blocked: false } } });
    for (const { act_id: id } of await mine())
      await project.rpc("console_undo_act", {
        p_command_id: fresh("undo"),
        p_act_id: id,
        p_reason: "wrong user",
        p_operator: operator,
      });
    expect(await mine()).toEqual([]);
    const {
      version: _new,
      last_activity: _at,
      ...after
    } = (await detail(user)).account as Account & Record<string, unknown>;
    expect(before).toMatchObject(after);
    // A backend that blocks without naming an operator has no list of acts, and works as before.
    await act("block_user", user, { p_operator: null });
  });

  it("a rule's block is the same block in the list, its filter, the page and every act's answer", async () => {
    const user = await makeSpammer(project);
    const blocked = {
      is_blocked: true,
      block_source: "rule",
      block_rule: "spam_identical",
      block_reason: "spam_identical",
      blocked_by: null,
      blocked_until: expect.any(String),
    };
    expect((await detail(user)).account).toMatchObject(blocked);
    expect(await listed(user)).toMatchObject(blocked);
    expect(await listed(user, "blocked")).toMatchObject(blocked);
    const flagged = await act("flag_user", user);
    expect(flagged).toMatchObject({ ...blocked, is_flagged: true, flagged_by: "anna" });
    expect(records.accountState.parse(flagged).blocked_until).toBe(flagged.rule_blocked_until);
  });

  it("unblocking lifts a rule's block at once, everywhere, and the audit keeps what was lifted", async () => {
    const user = await makeSpammer(project);
    expect(await listed(user, "blocked")).toBeDefined();
    expect(await act("unblock_user", user)).toMatchObject({
      is_blocked: false,
      block_source: null,
      rule_blocked_until: null,
    });
    expect(
      await project.one(
        "select l.blocked_until from governance.account_listings l join governance.accounts a using (account_id) where a.user_id = $1",
        [user],
      ),
    ).toEqual({ blocked_until: null });
    expect(await listed(user, "blocked")).toBeUndefined();
    expect(await call(project, user, "win money now")).toMatchObject({ decision: "allow" });
    expect((await detail(user)).audit[0]).toMatchObject({
      action: "unblock_user",
      details: { lifted: { block_source: "rule", block_rule: "spam_identical" } },
    });
  });

  it("an operator's block beside a rule's: the operator's is named first, and the last end counts", async () => {
    const user = await makeSpammer(project);
    const until = new Date(Date.now() + 60_000).toISOString();
    const account = await act("block_user", user, { p_until: until });
    expect(account).toMatchObject({ is_blocked: true, block_source: "operator", blocked_by: "anna" });
    expect(Date.parse(account.blocked_until ?? "")).toBe(Date.parse(account.rule_blocked_until ?? ""));
    await project.setClock(new Date(Date.now() + 120_000).toISOString());
    expect((await detail(user)).account).toMatchObject({ is_blocked: true, block_source: "rule" });
    await project.setClock(new Date(Date.now() + 86_400_000).toISOString());
    expect((await detail(user)).account).toMatchObject({
      is_blocked: false,
      block_source: null,
      block_reason: null,
      blocked_until: null,
    });
    expect(await listed(user, "blocked")).toBeUndefined();
    await project.setClock(null);
  });

  it.each(["flag_user", "unflag_user", "block_user", "unblock_user"])(
    "%s on a version that a colleague has changed is refused with the account as it is, and changes nothing",
    async (name) => {
      const user = fresh("shared");
      await project.rpc("upsert_account", { p_user_id: user });
      const { version: seen } = (await detail(user)).account;
      const theirs = await act("block_user", user, { p_reason: "theirs", p_operator: "bert" });
      expect(theirs.version).toBe(seen + 1);
      const command = {
        p_command_id: fresh("command"),
        p_user_id: user,
        p_reason: "mine",
        p_operator: "anna",
        p_expected_version: seen,
      };
      const refused = await project.rpc(name, command).then(
        () => null,
        (error: { code: string; hint: string; detail: string }) => error,
      );
      expect(refused).toMatchObject({ code: "PT409", hint: "version_conflict" });
      expect(JSON.parse(refused?.detail ?? "")).toMatchObject({
        version: seen + 1,
        is_blocked: true,
        block_reason: "theirs",
        blocked_by: "bert",
      });
      expect((await detail(user)).account).toMatchObject({ block_reason: "theirs", version: seen + 1 });
      // The refusal used nothing up: the same command goes through on the newer version, and answers again as it did.
      const done = await project.rpc<Account>(name, { ...command, p_expected_version: seen + 1 });
      expect(done.version).toBe(seen + 2);
      await act("flag_user", user);
      expect(await project.rpc(name, { ...command, p_expected_version: seen + 1 })).toEqual(done);
    },
  );

  it("a flag is cleared, with who and why in the audit; a block stays", async () => {
    const user = fresh("flagged");
    await project.rpc("upsert_account", { p_user_id: user });
    await act("block_user", user);
    await act("flag_user", user, { p_reason: "odd" });
    expect(await listed(user, "flagged")).toMatchObject({ is_flagged: true });
    expect(await act("unflag_user", user, { p_reason: "<b>reviewed</b> \u202e" })).toMatchObject({
      is_flagged: false,
      flag_reason: null,
      flagged_at: null,
      flagged_by: null,
      is_blocked: true,
    });
    expect(await listed(user, "flagged")).toBeUndefined();
    expect((await detail(user)).audit[0]).toMatchObject({
      action: "unflag_user",
      reason: "<b>reviewed</b> \u202e",
      operator: "anna",
    });
  });
});

interface Effects {
  before: { balance: Record<string, number>; plan_id: string };
  after: { balance: Record<string, number>; plan_id: string };
  entries: { type: string; amount: number; description: string | null }[];
  user_messages: string[];
  lots: { lot_id: number; before: Record<string, number> | null; after: Record<string, number> }[];
}
interface Act {
  act_id: number;
  status: string;
  kind: string;
  why: string | null;
  effects: Effects;
  undone_by: number | null;
}

describe.each(installedVersions())("corrections of an account, on PostgreSQL %i", (version) => {
  let project: Project;
  beforeAll(async () => {
    project = await openProject(version);
  });
  afterAll(async () => {
    expect(await project.rpc("verify_ledger")).toMatchObject({ problems: [] });
    expect(await project.rpc("verify_purchases")).toMatchObject({ problems: [] });
    await project.close();
  });

  const makeUser = async (plan = "starter"): Promise<string> => {
    const user = fresh("corrected");
    await project.rpc("upsert_account", {
      p_user_id: user,
      p_plan_id: plan,
      p_email: `${user}@example.com`,
      p_metadata: { language: "de" },
    });
    return user;
  };
  const mails = async (user: string): Promise<string[]> =>
    (
      await project.sql.query<{ body: string }>(
        "select body from governance.notifications join governance.accounts a using (account_id) where a.user_id = $1 and audience = 'user' order by notification_id",
        [user],
      )
    ).rows.map(({ body }) => body);
  const balance = async (user: string) =>
    (await project.rpc<Detail>("console_get_account", { p_user_id: user })).balance;
  const command = (user: string, act: object, more: object = {}) => ({
    p_command_id: fresh("correction"),
    p_user_id: user,
    p_act: act,
    p_reason: "a ticket",
    p_operator: fresh("agent"),
    ...more,
  });
  const act = async (user: string, wanted: object, more: object = {}): Promise<Act> =>
    (await project.rpc<{ act: Act }>("console_act", command(user, wanted, more))).act;
  const undo = async (done: Act, more: object = {}): Promise<Act> =>
    (
      await project.rpc<{ act: Act }>("console_undo_act", {
        p_command_id: fresh("undo"),
        p_act_id: done.act_id,
        p_reason: "wrong user",
        p_operator: "anna",
        ...more,
      })
    ).act;
  const use = async (user: string, tokens: number): Promise<string> => {
    const request = fresh("used");
    await project.rpc("authorize_usage", {
      p_request_id: request,
      p_user_id: user,
      p_model: "m",
      p_estimated_tokens: 1,
    });
    await project.rpc("settle_usage", { p_request_id: request, p_input_tokens: tokens, p_output_tokens: 0 });
    return request;
  };

  it.each([
    [{ kind: "give_tokens", tokens: 700 }, 700],
    [{ kind: "give_tokens", tokens: 700, lot_kind: "purchased" }, 700],
    [{ kind: "give_tokens", tokens: 700, lot_kind: "subscription", expires_at: "2199-01-01T00:00:00Z" }, 700],
    [{ kind: "take_tokens", tokens: 700 }, -700],
    [{ kind: "take_tokens", tokens: 50_000 }, -50_000],
    [{ kind: "change_plan", plan_id: "pro" }, 450_000],
    [{ kind: "note" }, 0],
  ])(
    "the preview of %j is what happens, and undoing it brings every balance back",
    async (wanted, tokens) => {
      const user = await makeUser();
      const before = await balance(user);
      const preview = await project.rpc<{ effects: Effects; why: string | null }>(
        "console_act",
        command(user, wanted, { p_dry_run: true }),
      );
      expect(await balance(user)).toEqual(before);
      expect(preview.why).toBeNull();
      expect(await mails(user)).toEqual([]);
      const done = await act(user, wanted);
      expect(done).toMatchObject({ status: "done", effects: { after: preview.effects.after } });
      // The mails too, word for word, in the user's language.
      expect(await mails(user)).toEqual(preview.effects.user_messages);
      expect(preview.effects.user_messages).toEqual(
        wanted.kind === "take_tokens" ? [expect.stringContaining("von unserem Support zurückgenommen")] : [],
      );
      expect(done.effects.entries.map(({ type, amount }) => [type, amount])).toEqual(
        preview.effects.entries.map(({ type, amount }) => [type, amount]),
      );
      expect(await balance(user)).toEqual(preview.effects.after.balance);
      expect((await balance(user)).total).toBe(before.total + tokens);
      if (wanted.kind === "note") return;
      const back = await undo(done);
      expect(back.effects.after.balance).toEqual(before);
      expect(await balance(user)).toEqual(before);
      const again = await project.refusal("console_undo_act", {
        p_command_id: fresh("undo"),
        p_act_id: done.act_id,
        p_reason: "again",
        p_operator: "bert",
      });
      expect(again).toMatchObject({ code: "PT409", hint: "not_undoable" });
      const { audit } = await project.rpc<Detail>("console_get_account", { p_user_id: user });
      expect(audit.map(({ action }) => action)).toEqual([`undo_${wanted.kind}`, wanted.kind]);
    },
  );

  it("tokens given to a debtor pay the debt, and the undo owes it again; spent ones become debt", async () => {
    const user = await makeUser();
    await use(user, 50_300);
    expect(await balance(user)).toMatchObject({ total: 0, debt: 300 });
    const done = await act(user, { kind: "give_tokens", tokens: 1_000 });
    expect(await balance(user)).toMatchObject({ total: 700, debt: 0 });
    await use(user, 200);
    const back = await undo(done);
    expect(back.effects.after.balance).toMatchObject({ total: 0, debt: 500 });
  });

  it("a refunded call gives back what it was charged, to the lots it came from, once", async () => {
    const user = await makeUser();
    const before = await balance(user);
    const request = await use(user, 50_300);
    const refund = { kind: "refund_call", request_id: request };
    const done = await act(user, refund);
    expect(await balance(user)).toEqual(before);
    expect(done.effects.lots).toMatchObject([
      { before: { remaining: 0 }, after: { remaining: 50_000, spent: 0 } },
    ]);
    expect(await project.refusal("console_act", command(user, refund))).toMatchObject({
      hint: "already_refunded",
    });
    await undo(done);
    expect(await balance(user)).toMatchObject({ total: 0, debt: 300 });
    // Wrongly undone: it may be refunded again.
    await act(user, refund);
    expect(await balance(user)).toEqual(before);
    const stranger = await makeUser();
    expect(await project.refusal("console_act", command(stranger, refund))).toMatchObject({
      hint: "unknown_request",
    });
  });

  it("a refund of tokens whose lot has expired comes back as promotional tokens for 30 days", async () => {
    const user = await makeUser();
    const request = await use(user, 400);
    await project.setClock(new Date(Date.now() + 40 * 86_400_000).toISOString());
    const before = await balance(user);
    await act(user, { kind: "refund_call", request_id: request });
    expect(await balance(user)).toMatchObject({ total: before.total + 400, promotional: 400 });
    await project.setClock(null);
  });

  it("a hold that is open, and a settlement that waits for a person, are settled or released", async () => {
    const user = await makeUser("pro");
    const hold = fresh("hold");
    await project.rpc("authorize_usage", {
      p_request_id: hold,
      p_user_id: user,
      p_model: "m",
      p_estimated_tokens: 900,
    });
    expect(await balance(user)).toMatchObject({ reserved: 900 });
    const released = await act(user, { kind: "end_hold", request_id: hold, action: "release" });
    expect(released).toMatchObject({ status: "done", effects: { after: { balance: { reserved: 0 } } } });
    const parked = fresh("parked");
    await project.rpc("authorize_usage", {
      p_request_id: parked,
      p_user_id: user,
      p_model: "m",
      p_estimated_tokens: 9,
    });
    await project.rpc("settle_usage", {
      p_request_id: parked,
      p_input_tokens: 10_000_001,
      p_output_tokens: 0,
    });
    const settle = { kind: "end_hold", request_id: parked, action: "settle" };
    // Ten million tokens: a second person decides.
    const proposed = await act(user, settle);
    expect(proposed).toMatchObject({ status: "proposed", why: expect.stringContaining("1,000,000 tokens") });
    const some = { ...settle, input_tokens: 1_000, output_tokens: 0 };
    expect(await act(user, some)).toMatchObject({ status: "done" });
    expect(await project.refusal("console_act", command(user, some))).toMatchObject({
      hint: "already_resolved",
    });
  });

  it("a limit that was raised lets calls pass until its moment, and is the plan's again by itself", async () => {
    const user = await makeUser();
    const plan = await project.one<{ monthly_limit: number | null }>(
      "update governance.plans set daily_limit = 1000 where plan_id = 'starter' returning monthly_limit",
    );
    expect(plan).toBeDefined();
    const tries = async (): Promise<string | null> =>
      (
        await project.rpc<{ reason: string | null }>("authorize_usage", {
          p_request_id: fresh("limit"),
          p_user_id: user,
          p_model: "m",
          p_estimated_tokens: 3_000,
        })
      ).reason;
    const daily = async () =>
      (
        await project.rpc<{ limits: { daily: { limit: number } } }>("console_get_account", {
          p_user_id: user,
        })
      ).limits.daily.limit;
    expect(await tries()).toBe("daily_limit");
    const until = new Date(Date.now() + 3_600_000).toISOString();
    const done = await act(user, { kind: "raise_limit", daily_limit: 10_000, until });
    expect(done).toMatchObject({ status: "done", can_undo: true });
    expect(await daily()).toBe(10_000);
    expect(await tries()).toBeNull();
    await project.setClock(new Date(Date.now() + 3_700_000).toISOString());
    expect(await daily()).toBe(1_000);
    expect(await tries()).toBe("daily_limit");
    await project.setClock(null);
    expect(await daily()).toBe(10_000);
    await undo(done);
    expect(await daily()).toBe(1_000);
    await project.sql.query("update governance.plans set daily_limit = null where plan_id = 'starter'");
  });

  it("a move at the next period waits until the month turns, can be taken back, and gives the new allowance", async () => {
    const user = await makeUser();
    const state = async () => {
      const { account } = await project.rpc<{
        account: { plan_id: string; next_plan: { plan_id: string } | null };
      }>("console_get_account", { p_user_id: user });
      return [account.plan_id, account.next_plan?.plan_id ?? null];
    };
    const move = { kind: "change_plan", plan_id: "pro", when: "next_period" };
    const first = await act(user, move);
    expect(await state()).toEqual(["starter", "pro"]);
    expect((await balance(user)).total).toBe(50_000);
    expect(await project.refusal("console_act", command(user, move))).toMatchObject({
      hint: "nothing_to_change",
    });
    await undo(first);
    expect(await state()).toEqual(["starter", null]);
    await act(user, move);
    await project.setClock(new Date(Date.now() + 32 * 86_400_000).toISOString());
    await project.rpc("get_or_create_token_record", { p_user_id: user });
    expect(await state()).toEqual(["pro", null]);
    expect((await balance(user)).subscription).toBe(500_000);
    await project.setClock(null);
  });

  it("above what finance lets one person decide, a second person approves, and it is done then", async () => {
    const user = await makeUser();
    const before = await balance(user);
    const proposed = await act(user, { kind: "give_tokens", tokens: 1_000_001 }, { p_operator: "Anna  B" });
    expect(proposed).toMatchObject({ status: "proposed", undone_by: null });
    expect(await balance(user)).toEqual(before);
    const decide = { p_act_id: proposed.act_id, p_decision: "approve", p_reason: "checked" };
    expect(
      await project.refusal("console_decide_act", {
        ...decide,
        p_command_id: fresh("decide"),
        p_operator: "annaB",
      }),
    ).toMatchObject({ code: "PT403", hint: "same_person" });
    const once = { ...decide, p_command_id: fresh("decide"), p_operator: "bert" };
    const { act: done } = await project.rpc<{ act: Act }>("console_decide_act", once);
    expect(done).toMatchObject({ status: "done", decided_by: "bert" });
    expect(await project.rpc("console_decide_act", once)).toMatchObject({ act: { act_id: proposed.act_id } });
    expect((await balance(user)).total).toBe(before.total + 1_000_001);
    expect(
      await project.refusal("console_decide_act", {
        ...decide,
        p_command_id: fresh("decide"),
        p_operator: "carl",
      }),
    ).toMatchObject({ hint: "already_decided" });
    const rejected = await act(user, { kind: "give_tokens", tokens: 2_000_000 });
    await project.rpc("console_decide_act", {
      ...decide,
      p_act_id: rejected.act_id,
      p_decision: "reject",
      p_command_id: fresh("decide"),
      p_operator: "bert",
    });
    expect((await balance(user)).total).toBe(before.total + 1_000_001);
  });

  it.each([
    ["taking", (): object => ({ kind: "take_tokens", tokens: 101 })],
    ["refunding a call", (request: string): object => ({ kind: "refund_call", request_id: request })],
    ["a plan with a larger allowance", (): object => ({ kind: "change_plan", plan_id: "pro" })],
  ])(
    "the same limit holds for %s: it is proposed, and nothing moves before a second person",
    async (_what, wanted) => {
      const user = await makeUser();
      const request = await use(user, 150);
      await project.sql.query(
        `insert into governance.settings (key, value) values ('approval_above_tokens', '100')
       on conflict (key) do update set value = excluded.value`,
      );
      try {
        const before = await balance(user);
        const proposed = await act(user, wanted(request), { p_operator: "anna" });
        expect(proposed).toMatchObject({ status: "proposed", why: expect.stringContaining("second person") });
        expect(await balance(user)).toEqual(before);
        const decide = { p_act_id: proposed.act_id, p_decision: "approve", p_reason: "checked" };
        expect(
          await project.refusal("console_decide_act", {
            ...decide,
            p_command_id: fresh("own"),
            p_operator: "Anna",
          }),
        ).toMatchObject({ hint: "same_person" });
        await project.rpc("console_decide_act", {
          ...decide,
          p_command_id: fresh("second"),
          p_operator: "bert",
        });
        expect(await balance(user)).not.toEqual(before);
      } finally {
        await project.sql.query("delete from governance.settings where key = 'approval_above_tokens'");
      }
    },
  );

  it("two people who do the same do it once where it can be done once, and the later one sees what changed", async () => {
    const user = await makeUser();
    const request = await use(user, 300);
    const { version } = (await project.rpc<Detail>("console_get_account", { p_user_id: user })).account;
    const wanted = { kind: "refund_call", request_id: request };
    const both = await Promise.allSettled(
      ["anna", "bert"].map((who) => act(user, wanted, { p_operator: who, p_expected_version: version })),
    );
    expect(both.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
    const late = await project.refusal(
      "console_act",
      command(user, { kind: "give_tokens", tokens: 5 }, { p_operator: "carl", p_expected_version: version }),
    );
    expect(late).toMatchObject({ hint: "version_conflict" });
    // Without a version in mind the second refund is refused for what it is.
    expect(await project.refusal("console_act", command(user, wanted))).toMatchObject({
      hint: "already_refunded",
    });
  });

  it("nobody is moved to a plan that was retired, now or later", async () => {
    const user = await makeUser();
    await project.sql.query("update governance.plans set retired_at = now() where plan_id = 'business'");
    try {
      for (const when of ["now", "next_period"])
        expect(
          await project.refusal(
            "console_act",
            command(user, { kind: "change_plan", plan_id: "business", when }),
          ),
        ).toMatchObject({ hint: "unknown_plan" });
    } finally {
      await project.sql.query("update governance.plans set retired_at = null where plan_id = 'business'");
    }
  });

  it("splitting a sum does not get round the limit; what was undone no longer counts", async () => {
    const user = await makeUser();
    const by = { p_operator: "splitter" };
    const first = await act(user, { kind: "give_tokens", tokens: 600_000 }, by);
    expect(await act(user, { kind: "give_tokens", tokens: 600_000 }, by)).toMatchObject({
      status: "proposed",
      why: expect.stringContaining("1,200,000 tokens alone within 24 hours"),
    });
    await undo(first);
    expect(await act(user, { kind: "give_tokens", tokens: 600_000 }, by)).toMatchObject({ status: "done" });
  });

  it("twenty agents at once with the same command give once; with their own, each once", async () => {
    const user = await makeUser();
    const before = await balance(user);
    const one = command(user, { kind: "give_tokens", tokens: 10 });
    const answers = await Promise.all(
      Array.from({ length: 20 }, () => project.rpc<{ act: Act }>("console_act", one)),
    );
    expect(new Set(answers.map((answer) => answer.act.act_id)).size).toBe(1);
    expect((await balance(user)).total).toBe(before.total + 10);
  });

  it("a command whose answer was lost is found by its id; one that never arrived is void", async () => {
    const user = await makeUser();
    const arrived = command(user, { kind: "give_tokens", tokens: 10 });
    const answer = await project.rpc("console_act", arrived);
    expect(await project.rpc("console_command_outcome", { p_command_id: arrived.p_command_id })).toEqual({
      is_done: true,
      answer,
    });
    const before = await balance(user);
    const late = command(user, { kind: "give_tokens", tokens: 10 });
    const outcome = { p_command_id: late.p_command_id };
    expect(await project.rpc("console_command_outcome", outcome)).toEqual({ is_done: false, answer: null });
    expect(await project.refusal("console_act", late)).toMatchObject({ hint: "idempotency_conflict" });
    expect(await project.rpc("console_command_outcome", outcome)).toEqual({ is_done: false, answer: null });
    expect(await balance(user)).toEqual(before);
  });

  it.each([
    [null],
    [[]],
    [{}],
    [{ kind: "give_everything" }],
    [{ kind: ["give_tokens"], tokens: 1 }],
    [{ kind: "give_tokens" }],
    [{ kind: "give_tokens", tokens: 0 }],
    [{ kind: "give_tokens", tokens: -1 }],
    [{ kind: "give_tokens", tokens: 1.5 }],
    [{ kind: "give_tokens", tokens: 9_007_199_254_740_992 }],
    [{ kind: "give_tokens", tokens: "100" }],
    [{ kind: "give_tokens", tokens: 1, lot_kind: "golden" }],
    [{ kind: "give_tokens", tokens: 1, expires_at: "2001-01-01T00:00:00Z" }],
    [{ kind: "give_tokens", tokens: 1, expires_at: "infinity" }],
    [{ kind: "give_tokens", tokens: 1, expires_at: "soon" }],
    [{ kind: "give_tokens", tokens: 1, expires_at: "tomorrow" }],
    [{ kind: "give_tokens", tokens: 1, expires_at: "2199-01-01T00:00:00" }],
    [{ kind: "give_tokens", tokens: 1, user_id: "somebody" }],
    [{ kind: "give_tokens", tokens: 9_007_199_254_740_991 }],
    [{ kind: "take_tokens", tokens: 9_007_199_254_740_991 }],
    [{ kind: "end_hold", request_id: "x", action: "burn" }],
    [{ kind: "refund_call", request_id: "" }],
    [{ kind: "change_plan", plan_id: "nosuch" }],
    [{ kind: "change_plan", plan_id: "nosuch", when: "next_period" }],
    [{ kind: "change_plan", plan_id: "pro", when: "some day" }],
    [{ kind: "raise_limit", until: "2199-01-01T00:00:00Z", daily_limit: 5 }],
    [{ kind: "raise_limit", until: "infinity", daily_limit: 5 }],
    [{ kind: "raise_limit", until: "tomorrow", daily_limit: 5 }],
    [{ kind: "block_user", until: "2199-01-01 08:00" }],
    [{ kind: "raise_limit", until: "2001-01-01T00:00:00Z", daily_limit: 5 }],
    [{ kind: "raise_limit", until: new Date(Date.now() + 86_400_000).toISOString() }],
    [{ kind: "raise_limit", until: new Date(Date.now() + 86_400_000).toISOString(), daily_limit: -5 }],
    [{ kind: "raise_limit", until: new Date(Date.now() + 86_400_000).toISOString(), daily_limit: 5 }],
    [{ kind: "change_plan", plan_id: "starter" }],
  ])("refuses %j with what to do, and changes nothing", async (wanted) => {
    const user = await makeUser();
    const before = await project.rpc("console_get_account", { p_user_id: user });
    const refused = await project.refusal("console_act", command(user, wanted as object));
    expect(refused.code).toMatch(/^PT4/);
    expect(refused.message.length).toBeGreaterThan(10);
    expect(await project.rpc("console_get_account", { p_user_id: user })).toEqual(before);
  });

  it("says with separators how many tokens are free where more are to be taken", async () => {
    const user = await makeUser();
    const refused = await project.refusal(
      "console_act",
      command(user, { kind: "take_tokens", tokens: 987_654_321 }),
    );
    expect(refused.message).toMatch(/^[\d,]+ tokens are free, 987,654,321 are to be taken$/);
  });

  it("keeps hostile reasons and names as they are, and lists acts by operator and user", async () => {
    const user = await makeUser();
    const reason = "<script>alert(1)</script> '; drop table x; -- \u202e";
    const operator = "Zoë <b>\u202e";
    await act(user, { kind: "note" }, { p_reason: reason, p_operator: operator });
    const mine = await project.rpc<{ acts: Act[]; next_before_id: null }>("console_list_acts", {
      p_filter: { operator },
    });
    expect(mine.acts).toMatchObject([{ kind: "note", reason, operator, user_id: user }]);
    expect(await project.rpc("console_list_acts", { p_filter: { user_id: user } })).toMatchObject({
      acts: [{ kind: "note" }],
    });
  });

  it("a debt says what it is from, the oldest cause paid first; payments say how they stand", async () => {
    const user = await makeUser();
    const bought: Purchase = {
      name: fresh("debt").replace("-", ""),
      userId: user,
      packId: "tokens-500k",
      tokens: 500_000,
      amountMinor: 500,
      currency: "usd",
      created: Math.floor(Date.now() / 1000) + 5,
    };
    const paid = event("checkout.session.completed", checkoutSession(bought));
    expect(await project.rpc("process_stripe_event", { p_event: paid })).toMatchObject({
      status: "processed",
    });
    const page = () => project.rpc<Detail>("console_get_account", { p_user_id: user });
    expect(await page()).toMatchObject({
      debt_causes: [],
      payments: [
        { amount_minor: 500, refunded_minor: 0, lots: [{ tokens: 500_000, dispute_state: "none" }] },
      ],
    });
    await use(user, 550_300);
    expect((await page()).debt_causes).toMatchObject([{ cause: "usage", tokens: 300, dispute_id: null }]);
    const lost = dispute(bought, "lost");
    for (const type of ["charge.dispute.created", "charge.dispute.closed"])
      await project.rpc("process_stripe_event", { p_event: event(type, lost) });
    const owing = await page();
    expect(records.accountDetail.safeParse(owing).error).toBeUndefined();
    expect(owing.balance.debt).toBe(500_300);
    expect(owing.debt_causes).toMatchObject([
      { cause: "dispute_clawback", tokens: 500_000, dispute_id: `du_${bought.name}` },
      { cause: "usage", tokens: 300 },
    ]);
    expect(owing.payments[0]).toMatchObject({
      disputes: [{ status: "lost" }],
      lots: [{ dispute_state: "clawed", taken_back: 500_000 }],
    });
    await act(user, { kind: "give_tokens", tokens: 400 });
    expect((await page()).debt_causes).toMatchObject([{ cause: "dispute_clawback", tokens: 499_900 }]);
    await act(user, { kind: "give_tokens", tokens: 499_901 });
    expect((await page()).debt_causes).toEqual([]);
    await use(user, 51);
    expect((await page()).debt_causes).toMatchObject([{ cause: "usage", tokens: 50 }]);
  });

  it("whatever a ticket contains leads to its user or to what was never credited", async () => {
    const user = await makeUser();
    await project.rpc("upsert_account", { p_user_id: user, p_display_name: "Ada  Byron Lovelace" });
    const name = fresh("ticket").replace("-", "");
    const bought: Purchase = {
      name,
      userId: user,
      packId: "tokens-500k",
      tokens: 500_000,
      amountMinor: 500,
      currency: "usd",
      created: Math.floor(Date.now() / 1000) + 5,
    };
    const session = checkoutSession(bought, { customer: `cus_${name}` });
    const paid = event("checkout.session.completed", session);
    await project.rpc("process_stripe_event", { p_event: paid });
    const disputed = event("charge.dispute.created", dispute(bought, "needs_response"));
    await project.rpc("process_stripe_event", { p_event: disputed });
    const find = async (query: string) =>
      (
        await project.rpc<{ kind: string; user_id: string | null; subtitle: string; id: string }[]>(
          "console_search",
          { p_query: query },
        )
      )[0];
    for (const id of [`pi_${name}`, `ch_${name}`, `cs_live_${name}`, `du_${name}`, `pi_${name.slice(0, -1)}`])
      expect(await find(id), id).toMatchObject({ kind: "payment", user_id: user });
    expect(await find(`cus_${name}`)).toMatchObject({ kind: "user", id: user });
    expect(await find("lovelace ada")).toMatchObject({ kind: "user", id: user });
    // Paid, but the pack is unknown: it was never credited, and the id leads to the event that waits.
    const lost = { ...bought, name: `${name}lost`, packId: "no-such-pack" };
    const waits = event("checkout.session.completed", checkoutSession(lost));
    expect(await project.rpc("process_stripe_event", { p_event: waits })).toMatchObject({
      status: "quarantined",
    });
    for (const id of [`pi_${name}lost`, waits.id])
      expect(await find(id), id).toMatchObject({
        kind: "event",
        id: waits.id,
        subtitle: expect.stringContaining("not credited"),
      });
  });

  it("the audit answers who did what to whom, filtered and page by page", async () => {
    const user = await makeUser();
    const operator = fresh("auditor");
    for (let n = 0; n < 5; n++)
      await act(user, { kind: "note" }, { p_operator: operator, p_reason: `note ${n}` });
    type Page = { entries: { reason: string; audit_id: number }[]; next_before_id: number | null };
    const read = (filter: object, before: number | null = null) =>
      project.rpc<Page>("console_audit", { p_filter: filter, p_before_id: before, p_limit: 2 });
    const seen: string[] = [];
    let before: number | null = null;
    do {
      const page: Page = await read({ operator, user_id: user, action: "note", by: "people" }, before);
      for (const row of page.entries) expect(records.auditRow.safeParse(row).error).toBeUndefined();
      seen.push(...page.entries.map(({ reason }) => reason));
      before = page.next_before_id;
    } while (before !== null);
    expect(seen).toEqual(["note 4", "note 3", "note 2", "note 1", "note 0"]);
    expect(await read({ operator, by: "rules" })).toEqual({ entries: [], next_before_id: null });
    expect(await read({ operator, from: "2199-01-01T00:00:00Z" })).toEqual({
      entries: [],
      next_before_id: null,
    });
    expect(await project.refusal("console_audit", { p_filter: { from: "sometime" } })).toMatchObject({
      hint: "invalid_argument",
    });
    expect(await project.refusal("console_audit", { p_filter: { user_id: "nobody" } })).toMatchObject({
      hint: "unknown_user",
    });
  });

  it("a receipt says what the same call would be answered now, and asking changes nothing", async () => {
    const user = await makeUser();
    await use(user, 50_000);
    const stopped = await project.rpc<{ decision_id: number; reason: string }>("authorize_usage", {
      p_request_id: fresh("stopped"),
      p_user_id: user,
      p_model: "m",
      p_estimated_tokens: 800,
    });
    expect(stopped.reason).toBe("insufficient_tokens");
    const tried = () =>
      project.rpc<{ decision: string }>("console_try_decision", { p_decision_id: stopped.decision_id });
    expect(await tried()).toMatchObject({
      decision: "block",
      reason: "insufficient_tokens",
      had_message: false,
    });
    await act(user, { kind: "give_tokens", tokens: 5_000 });
    const before = await project.rpc<Detail>("console_get_account", { p_user_id: user });
    const now = await tried();
    expect(["allow", "warn"]).toContain(now.decision);
    expect(records.tried.safeParse(now).error).toBeUndefined();
    expect(await project.rpc("console_get_account", { p_user_id: user })).toEqual(before);
    expect(await project.refusal("console_try_decision", { p_decision_id: 0 })).toMatchObject({
      hint: "not_found",
    });
  });
});
