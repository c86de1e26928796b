/** What the rules desk does in the project: history, return, changes for a while, and what a rule hit. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { installedVersions, openProject, type Project } from "../../support/project.ts";

interface Rule {
  readonly rule_name: string;
  readonly version: number;
  readonly mode: string;
  readonly priority: number;
  readonly back_at?: string;
}
interface Change {
  readonly version_id: number;
  readonly rule_name: string;
  readonly version: number;
  readonly reason: string | null;
  readonly by: string | null;
  readonly is_retired: boolean;
  readonly rule: { readonly mode: string };
  readonly before: { readonly rule: { readonly mode: string } } | null;
}

const many = (priority = 5) => ({
  rule_name: "too_many",
  conditions: { all: [{ fact: "messages_today", op: ">", value: 2 }] },
  action: { block: { reason: "too_many", minutes: 30 } },
  priority,
});

describe.each(installedVersions())("the rules desk on PostgreSQL %i", (version) => {
  let project: Project;
  let commands = 0;
  const save = (rule: unknown, more: Record<string, unknown> = {}): Promise<Rule> => {
    commands += 1;
    return project.rpc("save_rule", {
      p_command_id: `desk-${commands}`,
      p_rule: rule,
      p_operator: "ann",
      ...more,
    });
  };
  const rules = async (): Promise<Rule[]> => await project.rpc("list_rules");
  const rule = async (name: string): Promise<Rule | undefined> =>
    (await rules()).find((each) => each.rule_name === name);
  const changes = async (name: string | null = null): Promise<Change[]> =>
    (await project.rpc<{ changes: Change[] }>("console_rule_changes", { p_rule_name: name })).changes;
  let calls = 0;
  const decide = async (user: string): Promise<{ decision: string; reason: string | null }> => {
    calls += 1;
    return await project.rpc("authorize_usage", {
      p_request_id: `call-${calls}`,
      p_user_id: user,
      p_model: "gpt-4o-mini",
      p_estimated_tokens: 10,
      p_message: `message ${calls}`,
    });
  };

  beforeAll(async () => {
    project = await openProject(version);
  });
  afterAll(async () => {
    await project?.close();
  });

  it("keeps who changed a rule, why, and what it was before; a retired one too", async () => {
    await save(many(), { p_expected_version: 0, p_reason: "Bots at night" });
    await save({ ...many(), mode: "shadow" }, { p_expected_version: 1, p_reason: "Hits customers" });
    const retire = {
      p_command_id: "retire-1",
      p_rule_name: "too_many",
      p_reason: "Not needed",
      p_expected_version: 2,
      p_operator: "bob",
    };
    expect(await project.refusal("console_retire_rule", { ...retire, p_expected_version: 1 })).toMatchObject({
      code: "PT409",
      hint: "version_conflict",
    });
    const retired = await project.rpc("console_retire_rule", retire);
    expect(await project.rpc("console_retire_rule", retire)).toEqual(retired);
    expect(await rule("too_many")).toBeUndefined();
    expect(
      (await changes("too_many")).map((each) => [each.version, each.by, each.reason, each.is_retired]),
    ).toEqual([
      [3, "bob", "Not needed", true],
      [2, "ann", "Hits customers", false],
      [1, "ann", "Bots at night", false],
    ]);
    expect((await changes("too_many"))[1]).toMatchObject({
      rule: { mode: "shadow" },
      before: { rule: { mode: "enforce" } },
    });
    // It comes back as its next version.
    expect(await save(many(), { p_expected_version: 0, p_reason: "Again" })).toMatchObject({ version: 4 });
  });

  it("puts a rule back by itself at the first call after its time, and says so in the history", async () => {
    const before = await rule("too_many");
    await project.setClock("2027-03-01T10:00:00Z", true);
    const off = await save(
      { ...many(), mode: "off" },
      { p_expected_version: before?.version, p_until: "2027-03-01T12:00:00Z", p_reason: "Load test" },
    );
    expect(off).toMatchObject({ mode: "off" });
    expect(Date.parse(off.back_at ?? "")).toBe(Date.parse("2027-03-01T12:00:00Z"));
    for (let at = 0; at < 4; at += 1) expect((await decide("eve")).decision).toBe("allow");
    await project.setClock("2027-03-01T11:59:59Z", true);
    expect((await decide("eve")).decision).toBe("allow");
    await project.setClock("2027-03-01T12:00:00Z", true);
    expect(await decide("eve")).toMatchObject({ decision: "block", reason: "too_many" });
    const after = await rule("too_many");
    expect(after).toMatchObject({ mode: "enforce", version: off.version + 1 });
    expect(after).not.toHaveProperty("back_at");
    expect((await changes("too_many"))[0]?.reason).toMatch(/back by itself/);
  });

  it("goes back to what was before the first of two changes for a while, and not over a later change", async () => {
    await project.setClock("2027-03-02T10:00:00Z", true);
    await save({ ...many(), mode: "off" }, { p_until: "2027-03-02T11:00:00Z" });
    await save({ ...many(), mode: "off" }, { p_until: "2027-03-02T13:00:00Z" });
    await project.setClock("2027-03-02T13:30:00Z", true);
    expect(await project.rpc("run_maintenance")).toMatchObject({ rules_put_back: 1 });
    expect(await rule("too_many")).toMatchObject({ mode: "enforce" });
    await save({ ...many(), mode: "off" }, { p_until: "2027-03-02T14:00:00Z" });
    await save({ ...many(), mode: "shadow" });
    await project.setClock("2027-03-02T14:30:00Z", true);
    await decide("eve");
    expect(await rule("too_many")).toMatchObject({ mode: "shadow" });
    // A new rule for a while is gone after it.
    await save({ ...many(), rule_name: "short_lived" }, { p_until: "2027-03-02T15:00:00Z" });
    await project.setClock("2027-03-02T15:00:00Z", true);
    await decide("zoe");
    expect(await rule("short_lived")).toBeUndefined();
    expect(
      await project.refusal("save_rule", {
        p_command_id: "late",
        p_rule: many(),
        p_until: "2027-03-02T15:00:00Z",
      }),
    ).toMatchObject({ hint: "invalid_argument" });
  });

  it("returns the whole rule set to any change, in one step, unless somebody changed a rule meanwhile", async () => {
    const [latest] = await changes();
    const good = await project.rpc<Rule[]>("console_rules_as_of", { p_version_id: latest?.version_id });
    expect(good.map((each) => each.rule_name)).toEqual((await rules()).map((each) => each.rule_name));
    await save({ ...many(1), mode: "enforce" });
    await save({ ...many(), rule_name: "made_since" });
    await project.rpc("console_retire_rule", {
      p_command_id: "r-2",
      p_rule_name: "bot_behavior",
      p_reason: "No",
    });
    const [now] = await changes();
    const restore = {
      p_command_id: "restore-1",
      p_version_id: latest?.version_id,
      p_expected_version_id: now?.version_id,
      p_reason: "Back to Monday",
      p_operator: "ann",
    };
    expect(
      await project.refusal("console_restore_rules", {
        ...restore,
        p_expected_version_id: latest?.version_id,
      }),
    ).toMatchObject({ hint: "version_conflict" });
    const restored = await project.rpc("console_restore_rules", restore);
    expect(restored).toEqual({ changed: ["bot_behavior", "too_many", "made_since"] });
    expect(await project.rpc("console_restore_rules", restore)).toEqual(restored);
    const definition = ({ rule_name, mode, priority }: Rule) => ({ rule_name, mode, priority });
    expect((await rules()).map(definition)).toEqual(good.map(definition));
    // What is in force is what is listed.
    expect(
      await project.one(
        "select cardinality(version_ids) as rules from governance.rule_sets order by rule_set_id desc limit 1",
      ),
    ).toEqual({ rules: good.filter((each) => each.mode !== "off").length });
  });

  it("a preset that leaves a rule out retires it in the history too", async () => {
    await save({ ...many(), rule_name: "not_in_preset" });
    const { preset } = await project.one<{ preset: unknown }>(
      "select details -> 'preset' as preset from governance.audit_log where action = 'apply_preset' order by audit_id limit 1",
    );
    await project.rpc("apply_preset", { p_preset: preset });
    expect((await changes("not_in_preset"))[0]).toMatchObject({ is_retired: true, by: "preset default" });
  });

  it("counts what a rule hit by hour, with the calls behind it, and who was unblocked after it", async () => {
    await project.setClock("2027-04-01T10:20:00Z", true);
    await save({ ...many(), mode: "enforce" });
    for (let at = 0; at < 4; at += 1) await decide("kim");
    await project.setClock("2027-04-01T11:40:00Z", true);
    await save({ ...many(), mode: "shadow" });
    for (let at = 0; at < 2; at += 1) await decide("kim");
    await project.rpc("unblock_user", {
      p_command_id: "sorry",
      p_user_id: "kim",
      p_reason: "Was a workshop",
      p_operator: "bob",
    });
    const hits = await project.rpc<{
      hours: { hour: string; enforced: number; shadow: number }[];
      unblocked: { user_id: string; reason: string }[];
    }>("console_rule_hits", { p_rule_name: "too_many" });
    // The fourth call met the block itself, which is no match.
    expect(hits.hours.map(({ enforced, shadow }) => [enforced, shadow])).toEqual([
      [1, 0],
      [0, 2],
    ]);
    expect(hits.unblocked).toMatchObject([{ user_id: "kim", reason: "Was a workshop" }]);
    const behind = await project.rpc<{ calls: { user_id: string; decision: string; mode: string }[] }>(
      "console_rule_calls",
      { p_rule_name: "too_many", p_from: "2027-04-01T10:00:00Z", p_to: "2027-04-01T12:00:00Z" },
    );
    expect(behind.calls.map(({ user_id, decision, mode }) => [user_id, decision, mode])).toEqual([
      ["kim", "allow", "shadow"],
      ["kim", "allow", "shadow"],
      ["kim", "block", "enforce"],
    ]);
  });

  it("names a model that is used without a price, and charges by a price from when it is set", async () => {
    const settle = async (id: string): Promise<number | null> => {
      await project.rpc("authorize_usage", {
        p_request_id: id,
        p_user_id: "buyer",
        p_model: "brand-new",
        p_estimated_tokens: 10,
      });
      const settled = await project.rpc<{ cost_micros: number | null }>("settle_usage", {
        p_request_id: id,
        p_input_tokens: 1_000_000,
        p_output_tokens: 0,
      });
      return settled.cost_micros;
    };
    await project.setClock("2027-05-01T10:00:00Z", true);
    await project.rpc("upsert_account", { p_user_id: "buyer" });
    await project.rpc("update_user_token_balance", {
      p_user_id: "buyer",
      p_amount: 5_000_000,
      p_transaction_type: "bonus",
    });
    expect(await settle("unpriced")).toBeNull();
    const prices = () =>
      project.rpc<{ prices: { model: string }[]; unpriced: { model: string }[] }>("console_prices");
    expect((await prices()).unpriced).toMatchObject([{ model: "brand-new" }]);
    const price = {
      provider: "openai",
      model: "brand-new",
      input_micros_per_million: 1_250_000,
      output_micros_per_million: 10_000_000,
      effective_from: "2027-05-01",
    };
    const change = (from: string, input: number, version: number) => ({
      kind: "price",
      key: `openai/brand-new@${from}`,
      record: { ...price, effective_from: from, input_micros_per_million: input },
      expected_version: version,
    });
    const wanted = {
      p_command_id: "prices-1",
      p_reason: "As the provider lists it",
      p_changes: [change("2027-05-01", 1_250_000, 0), change("2027-06-01", 1_000_000, 0)],
    };
    expect(
      await project.refusal("console_apply_config", {
        ...wanted,
        p_changes: [...wanted.p_changes, change("2027-07-01", -1, 0)],
      }),
    ).toMatchObject({ hint: "invalid_preset" });
    const before = (await prices()).prices.length;
    const saved = await project.rpc("console_apply_config", wanted);
    expect(saved).toMatchObject({ changed: [{ kind: "price" }, { kind: "price" }] });
    expect(await project.rpc("console_apply_config", wanted)).toEqual(saved);
    // A colleague who saw no price does not overwrite this one.
    expect(
      await project.refusal("console_apply_config", { ...wanted, p_command_id: "prices-2" }),
    ).toMatchObject({ hint: "version_conflict" });
    const after = await prices();
    expect([after.prices.length, after.unpriced]).toEqual([before + 2, []]);
    await project.setClock("2027-05-01T11:00:00Z", true);
    expect(await settle("priced")).toBe(1_250_000);
    // The price to come is in force from its own day.
    await project.setClock("2027-06-01T00:00:01Z", true);
    expect(await settle("priced-later")).toBe(1_000_000);
  });
});
