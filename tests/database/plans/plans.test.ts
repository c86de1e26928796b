/** Plans, prices and the rest on the screen: versions, changes on the version seen, a look ahead, and the way back. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { installedVersions, openProject, type Project } from "../../support/project.ts";

interface Version {
  readonly version_id: number;
  readonly kind: string;
  readonly key: string;
  readonly version: number;
  readonly record: Readonly<Record<string, unknown>>;
  readonly by: string | null;
  readonly reason: string | null;
  readonly is_retired: boolean;
}
interface Preview {
  readonly problem: { readonly code: string; readonly message: string; readonly path: string | null } | null;
  readonly changed: readonly { readonly kind: string; readonly key: string }[];
  readonly effects: readonly Readonly<Record<string, unknown>>[];
}

describe.each(installedVersions())("the configuration on the desk, PostgreSQL %i", (version) => {
  let project: Project;
  let commands = 0;
  const next = (): string => {
    commands += 1;
    return `configuration-${commands}`;
  };
  const records = async (): Promise<readonly Version[]> =>
    (await project.rpc<{ records: Version[] }>("console_config")).records;
  const record = async (kind: string, key: string): Promise<Version> => {
    const found = (await records()).find((each) => each.kind === kind && each.key === key);
    if (!found) throw new Error(`There is no ${kind} ${key}.`);
    return found;
  };
  const save = (kind: string, key: string, value: unknown, more: Record<string, unknown> = {}) => ({
    p_command_id: next(),
    p_kind: kind,
    p_key: key,
    p_record: value,
    p_reason: "For a test",
    p_operator: "ann",
    ...more,
  });
  const preview = (changes: unknown): Promise<Preview> =>
    project.rpc("console_preview_config", { p_changes: changes });

  /** The project with all its prices and packs in another currency. */
  const inEuros = async (): Promise<unknown> =>
    (await records())
      .filter(({ kind }) => ["project", "price", "pack"].includes(kind))
      .map(({ kind, key, record: now }) => ({ kind, key, record: { ...now, currency: "eur" } }));

  beforeAll(async () => {
    project = await openProject(version);
  });
  afterAll(async () => {
    await project?.close();
  });

  it("has every record of the preset in force, in its first version", async () => {
    const all = await records();
    expect(new Set(all.map((each) => each.kind))).toEqual(
      new Set(["project", "plan", "pack", "price", "estimate", "alert", "setting"]),
    );
    expect(all.every((each) => each.version === 1 && each.by === "preset default")).toBe(true);
  });

  it("takes another currency while nothing has cost anything", async () => {
    expect((await preview(await inEuros())).problem).toBeNull();
  });

  it("changes a plan on the version seen, keeps who and why, and refuses a change over somebody else's", async () => {
    const pro = await record("plan", "pro");
    const wanted = { ...pro.record, monthly_allowance: 600_000 };
    const saved = await project.rpc<Version>(
      "console_save_config",
      save("plan", "pro", wanted, { p_expected_version: 1 }),
    );
    expect(saved).toMatchObject({ version: 2, by: "ann", reason: "For a test", record: wanted });
    const refused = await project.refusal(
      "console_save_config",
      save("plan", "pro", { ...pro.record, daily_limit: 1 }, { p_expected_version: 1, p_operator: "bob" }),
    );
    expect(refused).toMatchObject({ code: "PT409", hint: "version_conflict" });
    expect(JSON.parse(refused.details ?? "null")).toMatchObject({ version: 2, by: "ann", record: wanted });
    const { changes } = await project.rpc<{ changes: (Version & { before: Version | null })[] }>(
      "console_config_changes",
      { p_kind: "plan", p_key: "pro" },
    );
    expect(changes.map((each) => [each.version, each.before?.version ?? null])).toEqual([
      [2, 1],
      [1, null],
    ]);
    // The way back is another version; everything is as it was.
    await project.rpc("console_save_config", save("plan", "pro", pro.record, { p_expected_version: 2 }));
    expect(await record("plan", "pro")).toMatchObject({ version: 3, record: pro.record });
  });

  it("says the same answer to a repeated command, and refuses the command for something else", async () => {
    const pack = await record("pack", "tokens-500k");
    const wanted = save("pack", "tokens-500k", { ...pack.record, price_minor: 450 });
    const first = await project.rpc("console_save_config", wanted);
    expect(await project.rpc("console_save_config", wanted)).toEqual(first);
    expect(await project.refusal("console_save_config", { ...wanted, p_reason: "Other" })).toMatchObject({
      hint: "idempotency_conflict",
    });
  });

  it("takes each kind of record: new, changed, retired, and new again", async () => {
    const cases: readonly (readonly [string, string, Record<string, unknown>])[] = [
      ["plan", "trial", { plan_id: "trial", name: "Trial", monthly_allowance: 1000 }],
      ["pack", "small", { pack_id: "small", tokens: 1000, price_minor: 100, currency: "usd" }],
      [
        "price",
        "acme/m1@2026-01-01",
        {
          provider: "acme",
          model: "m1",
          input_micros_per_million: 1,
          output_micros_per_million: 2,
          effective_from: "2026-01-01",
        },
      ],
      ["estimate", "draw", { task_type: "draw", tokens: 700 }],
      ["topic", "sport", { topic: "sport", words: ["football"] }],
      ["alert", "much", { alert_name: "much", metric: "tokens", thresholds: [1000] }],
      ["setting", "reply_tokens", { key: "reply_tokens", value: 400 }],
    ];
    for (const [kind, key, value] of cases) {
      const before = (await records()).find((each) => each.kind === kind && each.key === key);
      const made = await project.rpc<Version>(
        "console_save_config",
        save(kind, key, value, { p_expected_version: before?.version ?? 0 }),
      );
      expect(made.record, kind).toMatchObject(value);
      const gone = await project.rpc<Version>(
        "console_save_config",
        save(kind, key, null, { p_expected_version: made.version }),
      );
      expect(gone, kind).toMatchObject({ version: made.version + 1, is_retired: true });
      const again = await project.rpc<Version>(
        "console_save_config",
        save(kind, key, value, { p_expected_version: 0 }),
      );
      expect(again, kind).toMatchObject({ version: made.version + 2, is_retired: false });
    }
  });

  it("applies many changes or none", async () => {
    const [pro, starter] = [await record("plan", "pro"), await record("plan", "starter")];
    const changes = [
      {
        kind: "plan",
        key: "pro",
        record: { ...pro.record, daily_limit: 90_000 },
        expected_version: pro.version,
      },
      {
        kind: "plan",
        key: "starter",
        record: { ...starter.record, warn_at: [101] },
        expected_version: starter.version,
      },
    ];
    const apply = (list: unknown) => ({
      p_command_id: next(),
      p_changes: list,
      p_reason: "Both",
      p_operator: "ann",
    });
    expect(await project.refusal("console_apply_config", apply(changes))).toMatchObject({
      code: "PT422",
      hint: "invalid_preset",
      details: expect.stringContaining("warn_at"),
    });
    expect((await record("plan", "pro")).version).toBe(pro.version);
    const { changed } = await project.rpc<{ changed: unknown[] }>(
      "console_apply_config",
      apply([
        changes[0],
        { ...changes[1], record: { ...starter.record, warn_at: [70] } },
        {
          kind: "rule",
          key: "large_message",
          expected_version: 1,
          record: null,
        },
      ]),
    );
    expect(changed).toHaveLength(3);
    const rules = await project.rpc<{ rule_name: string }[]>("list_rules");
    expect(rules.some((each) => each.rule_name === "large_message")).toBe(false);
  });

  it("looks ahead: whom it touches, what it costs, and what the project would refuse; nothing changes", async () => {
    for (const user of ["u1", "u2"]) {
      await project.rpc("upsert_account", { p_user_id: user, p_plan_id: "starter" });
      await project.rpc("authorize_usage", {
        p_request_id: `look-${user}`,
        p_user_id: user,
        p_model: "gpt-4o",
        p_estimated_tokens: 3000,
      });
      await project.rpc("settle_usage", {
        p_request_id: `look-${user}`,
        p_input_tokens: 1000,
        p_output_tokens: user === "u1" ? 1000 : 0,
      });
    }
    const before = await records();
    const starter = await record("plan", "starter");
    const ahead = await preview([
      { kind: "plan", key: "starter", record: { ...starter.record, daily_limit: 1500 } },
      {
        kind: "price",
        key: "openai/gpt-4o@2024-10-01",
        record: {
          ...(await record("price", "openai/gpt-4o@2024-10-01")).record,
          input_micros_per_million: 0,
        },
      },
    ]);
    expect(ahead.problem).toBeNull();
    expect(ahead.effects[0]).toMatchObject({ key: "starter", users: 2, above_daily: 1 });
    // 2,000 in at 2.50, 1,000 out at 10.00 a million; then only what goes out costs.
    expect(ahead.effects[1]).toMatchObject({ calls: 2, cost_micros: 15_000, would_cost_micros: 10_000 });
    // A price from another day is compared with the one in force: what was charged of cached tokens keeps its share.
    const gpt = (await record("price", "openai/gpt-4o@2024-10-01")).record;
    await project.rpc("authorize_usage", { p_request_id: "cached", p_user_id: "u2", p_model: "gpt-4o" });
    const settled = await project.rpc<{ cost_micros: number }>("settle_usage", {
      p_request_id: "cached",
      p_input_tokens: 1000,
      p_metadata: { cached_input_tokens: 1000 },
      p_output_tokens: 0,
    });
    const dated = await preview([
      {
        kind: "price",
        key: "openai/gpt-4o@2030-01-01",
        record: { ...gpt, effective_from: "2030-01-01" },
      },
    ]);
    const cost = 15_000 + settled.cost_micros;
    expect(dated.effects[0]).toMatchObject({ calls: 3, cost_micros: cost, would_cost_micros: cost });
    // A price of a day before the one in force changes no call to come, also at zero.
    const past = await preview([
      {
        kind: "price",
        key: "openai/gpt-4o@1999-01-01",
        record: { ...gpt, effective_from: "1999-01-01", input_micros_per_million: 0 },
      },
    ]);
    expect(past.effects[0]).toMatchObject({ is_superseded: true, would_cost_micros: cost });
    // A default plan cannot be retired, and the place is named.
    const refused = await preview([{ kind: "plan", key: "starter", record: null }]);
    expect(refused.problem).toMatchObject({ code: "invalid_preset" });
    expect(refused.effects[0]).toMatchObject({ users: 2 });
    expect(await records()).toEqual(before);
  });

  it("keeps users of a retired plan where they are, and lets nobody new onto it", async () => {
    await project.rpc("console_save_config", save("plan", "trial", null));
    await project.rpc("upsert_account", { p_user_id: "u3", p_plan_id: "business" });
    const enterprise = await record("plan", "business");
    const refused = await preview([{ kind: "plan", key: "business", record: null }]);
    // Another plan's upgrade leads to it.
    expect(refused.problem?.message).toContain("business");
    expect(enterprise.is_retired).toBe(false);
    expect(await project.refusal("upsert_account", { p_user_id: "u4", p_plan_id: "trial" })).toMatchObject({
      hint: "unknown_plan",
    });
  });

  it("answers the configuration as it was right after any change", async () => {
    const wanted = await records();
    const { latest_version_id: last } = await project.rpc<{ latest_version_id: number }>("console_config");
    const pro = await record("plan", "pro");
    await project.rpc("console_save_config", save("plan", "pro", { ...pro.record, name: "Professional" }));
    const then = await project.rpc<Version[]>("console_config_as_of", { p_version_id: last });
    expect(then).toEqual(wanted);
    await project.rpc("console_save_config", save("plan", "pro", pro.record));
  });

  it("keeps its currency once a call has cost something: no sum holds two", async () => {
    expect((await preview(await inEuros())).problem).toMatchObject({
      code: "invalid_preset",
      path: "currency",
      message: expect.stringContaining("costs are counted in usd already"),
    });
  });

  it("refuses hostile changes with a word, a place, and no effect", async () => {
    const before = await records();
    const wrong: readonly (readonly [unknown, string])[] = [
      [{}, "invalid_argument"],
      [[], "invalid_argument"],
      [[{ kind: "spell", key: "x", record: {} }], "invalid_argument"],
      [[{ kind: "plan", key: "x", record: { plan_id: "y" } }], "invalid_argument"],
      [[{ kind: "plan", key: "x", record: { plan_id: "x", monthly_allowance: -1 } }], "invalid_preset"],
      [[{ kind: "setting", key: "topics", record: { key: "topics", value: [] } }], "invalid_preset"],
      [[{ kind: "project", key: "project", record: null }], "invalid_argument"],
      [
        [
          {
            kind: "price",
            key: "a/b@x",
            record: { provider: "a", model: "b", effective_from: "infinity" },
          },
        ],
        "invalid_preset",
      ],
      [
        [{ kind: "setting", key: "second_person_for", record: { key: "second_person_for", value: ["all"] } }],
        "invalid_preset",
      ],
    ];
    for (const [changes, hint] of wrong)
      expect(
        await project.refusal("console_apply_config", {
          p_command_id: next(),
          p_changes: changes,
          p_reason: "Hostile",
        }),
        JSON.stringify(changes),
      ).toMatchObject({ hint });
    expect(await records()).toEqual(before);
  });

  it("asks a second person where the setting says so, for rules too, and not the proposer", async () => {
    await project.rpc(
      "console_save_config",
      save("setting", "second_person_for", { key: "second_person_for", value: ["rule", "plan"] }),
    );
    const pro = await record("plan", "pro");
    const alone = save("plan", "pro", { ...pro.record, daily_limit: 1 });
    expect(await project.refusal("console_save_config", alone)).toMatchObject({ hint: "approval_needed" });
    const rule = {
      rule_name: "spam_identical",
      conditions: { all: [{ fact: "identical_messages", op: ">=", value: 3 }] },
      action: { flag: { reason: "spam" } },
      mode: "shadow",
    };
    expect(
      await project.refusal("save_rule", { p_command_id: next(), p_rule: rule, p_operator: "ann" }),
    ).toMatchObject({ code: "PT403", hint: "approval_needed" });
    // Nor may one person lift the rule of two.
    expect(
      await project.refusal("console_save_config", save("setting", "second_person_for", null)),
    ).toMatchObject({ hint: "approval_needed" });
    const proposal = await project.rpc<{ proposal_id: number; status: string }>("console_propose_config", {
      p_command_id: next(),
      p_changes: [
        { kind: "rule", key: "spam_identical", record: rule, expected_version: 1 },
        { kind: "plan", key: "pro", record: alone.p_record, expected_version: pro.version },
      ],
      p_reason: "Both together",
      p_operator: "ann",
    });
    expect(proposal.status).toBe("proposed");
    const decide = (operator: string, approve = true) => ({
      p_command_id: next(),
      p_proposal_id: proposal.proposal_id,
      p_approve: approve,
      p_reason: "Looked at it",
      p_operator: operator,
    });
    expect(await project.refusal("console_decide_config", decide(" Ann "))).toMatchObject({
      hint: "same_person",
    });
    const approved = await project.rpc<{ status: string; changed: unknown[] }>(
      "console_decide_config",
      decide("bob"),
    );
    expect(approved).toMatchObject({ status: "approved" });
    expect(approved.changed).toHaveLength(2);
    expect(await record("plan", "pro")).toMatchObject({ by: "ann", record: { daily_limit: 1 } });
    expect(await project.refusal("console_decide_config", decide("eve"))).toMatchObject({
      hint: "already_decided",
    });
    // A proposal on a version that is gone is not applied over what came since.
    const late = await project.refusal("console_propose_config", {
      p_command_id: next(),
      p_changes: [{ kind: "plan", key: "pro", record: alone.p_record, expected_version: pro.version }],
      p_reason: "Late",
      p_operator: "ann",
    });
    expect(late).toMatchObject({ hint: "version_conflict" });
  });
});
