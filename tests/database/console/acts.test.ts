/** What operators do to accounts: one truth of being blocked, and nobody overwrites a colleague unseen. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { z } from "zod";
import * as records from "../../../shared/contract/index.ts";
import { installedVersions, openProject, type Project } from "../../support/project.ts";

type Account = z.infer<typeof records.accountState>;
type Row = z.infer<typeof records.accountRow>;
type Detail = z.infer<typeof records.accountDetail>;

let made = 0;
const fresh = (name: string): string => `${name}-${++made}`;

async function call(
  desk: Project,
  userId: string,
  message: string,
): Promise<{ decision: string; reason: string }> {
  return desk.rpc("authorize_usage", {
    p_request_id: fresh("request"),
    p_user_id: userId,
    p_model: "gpt-4o-mini",
    p_estimated_tokens: 10,
    p_message: message,
  });
}

/** Somebody whom the rule against spam has blocked for a while. */
async function makeSpammer(desk: Project): Promise<string> {
  const user = fresh("spammer");
  await desk.rpc("upsert_account", { p_user_id: user });
  for (let n = 0; n < 11; n++) await call(desk, user, "win money now");
  return user;
}

describe.each(installedVersions())("acts of operators, on PostgreSQL %i", (version) => {
  let desk: Project;
  beforeAll(async () => {
    desk = await openProject(version);
  });
  afterAll(() => desk?.close());

  const detail = (user: string) => desk.rpc<Detail>("console_get_account", { p_user_id: user });
  const listed = async (user: string, filter = "all"): Promise<Row | undefined> =>
    (await desk.rpc<{ accounts: Row[] }>("console_search_accounts", { p_query: user, p_filter: filter }))
      .accounts[0];
  const act = (name: string, user: string, more: Record<string, unknown> = {}) =>
    desk.rpc<Account>(name, {
      p_command_id: fresh("command"),
      p_user_id: user,
      p_reason: "because",
      p_operator: "anna",
      ...more,
    });

  it("a rule's block is the same block in the list, its filter, the page and every act's answer", async () => {
    const user = await makeSpammer(desk);
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
    const user = await makeSpammer(desk);
    expect(await listed(user, "blocked")).toBeDefined();
    expect(await act("unblock_user", user)).toMatchObject({
      is_blocked: false,
      block_source: null,
      rule_blocked_until: null,
    });
    expect(
      await desk.one(
        "select l.blocked_until from governance.account_listings l join governance.accounts a using (account_id) where a.user_id = $1",
        [user],
      ),
    ).toEqual({ blocked_until: null });
    expect(await listed(user, "blocked")).toBeUndefined();
    expect(await call(desk, user, "win money now")).toMatchObject({ decision: "allow" });
    expect((await detail(user)).audit[0]).toMatchObject({
      action: "unblock_user",
      details: { lifted: { block_source: "rule", block_rule: "spam_identical" } },
    });
  });

  it("an operator's block beside a rule's: the operator's is named first, and the last end counts", async () => {
    const user = await makeSpammer(desk);
    const until = new Date(Date.now() + 60_000).toISOString();
    const account = await act("block_user", user, { p_until: until });
    expect(account).toMatchObject({ is_blocked: true, block_source: "operator", blocked_by: "anna" });
    expect(Date.parse(account.blocked_until ?? "")).toBe(Date.parse(account.rule_blocked_until ?? ""));
    await desk.setClock(new Date(Date.now() + 120_000).toISOString());
    expect((await detail(user)).account).toMatchObject({ is_blocked: true, block_source: "rule" });
    await desk.setClock(new Date(Date.now() + 86_400_000).toISOString());
    expect((await detail(user)).account).toMatchObject({
      is_blocked: false,
      block_source: null,
      block_reason: null,
      blocked_until: null,
    });
    expect(await listed(user, "blocked")).toBeUndefined();
    await desk.setClock(null);
  });

  it.each(["flag_user", "unflag_user", "block_user", "unblock_user"])(
    "%s on a version that a colleague has changed is refused with the account as it is, and changes nothing",
    async (name) => {
      const user = fresh("shared");
      await desk.rpc("upsert_account", { p_user_id: user });
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
      const refused = await desk.rpc(name, command).then(
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
      const done = await desk.rpc<Account>(name, { ...command, p_expected_version: seen + 1 });
      expect(done.version).toBe(seen + 2);
      await act("flag_user", user);
      expect(await desk.rpc(name, { ...command, p_expected_version: seen + 1 })).toEqual(done);
    },
  );

  it("a flag is cleared, with who and why in the audit; a block stays", async () => {
    const user = fresh("flagged");
    await desk.rpc("upsert_account", { p_user_id: user });
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
