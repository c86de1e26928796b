/** Figures of the screens, each against a plain count. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Project, installedVersions, openProject, use } from "../../support/project.ts";

const preset = {
  name: "figures",
  currency: "usd",
  default_plan: "allowance",
  plans: [
    { plan_id: "allowance", name: "A", monthly_allowance: 10_000 },
    { plan_id: "day", name: "D", monthly_allowance: 1_000_000, daily_limit: 1_000 },
    { plan_id: "month", name: "M", monthly_allowance: 1_000_000, monthly_limit: 2_000 },
    { plan_id: "both", name: "B", monthly_allowance: 1_000_000, daily_limit: 1_000, monthly_limit: 2_000 },
    { plan_id: "none", name: "N" },
  ],
  rules: [
    {
      rule_name: "large",
      rule_type: "cost",
      priority: 1,
      conditions: { all: [{ fact: "estimated_tokens", op: ">", value: 500 }] },
      action: { warn: { message: "Large" } },
    },
    {
      rule_name: "shadow",
      rule_type: "cost",
      priority: 2,
      mode: "shadow",
      conditions: { all: [{ fact: "estimated_tokens", op: ">", value: 100 }] },
      action: { block: { reason: "token_hogging", message: "No" } },
    },
    {
      rule_name: "never",
      rule_type: "cost",
      priority: 3,
      conditions: { all: [{ fact: "estimated_tokens", op: ">", value: 1_000_000 }] },
      action: { warn: { message: "Never" } },
    },
  ],
};

describe.each(installedVersions())("figures, on PostgreSQL %i", (version) => {
  let project: Project;
  beforeAll(async () => {
    project = await openProject(version);
    await project.rpc("apply_preset", { p_preset: preset });
    await project.setClock("2027-01-10 10:00:00Z", true);
  });
  afterAll(() => project?.close());

  const matches = async () =>
    Object.fromEntries(
      (await project.rpc<{ rule_name: string; matches_24h: number }[]>("list_rules")).map((rule) => [
        rule.rule_name,
        rule.matches_24h,
      ]),
    );

  it("count the calls that each rule matched in 24 hours, before and after they are followed", async () => {
    for (const tokens of [50, 200, 600, 700]) await use(project, "ada", tokens);
    expect(await matches()).toEqual({ large: 2, shadow: 3, never: 0 });
    await project.rpc("run_maintenance");
    expect(await matches()).toEqual({ large: 2, shadow: 3, never: 0 });
    // A new version of the rule is the same rule.
    const rules = await project.rpc<{ rule_name: string; version: number }[]>("list_rules");
    const { matches_24h: _, ...large } = rules.find(
      (rule) => rule.rule_name === "large",
    ) as unknown as Record<string, unknown>;
    await project.rpc("save_rule", {
      p_command_id: "c1",
      p_rule: { ...large, conditions: { all: [{ fact: "estimated_tokens", op: ">", value: 550 }] } },
    });
    await project.setClock("2027-01-10 20:00:00Z", true);
    await use(project, "ada", 800);
    expect(await matches()).toEqual({ large: 3, shadow: 4, never: 0 });
    await project.setClock("2027-01-11 11:00:00Z", true);
    expect(await matches()).toEqual({ large: 1, shadow: 1, never: 0 });
    await project.rpc("run_maintenance");
    expect(await matches()).toEqual({ large: 1, shadow: 1, never: 0 });
  });

  it("say of what a user has used so many percent", async () => {
    for (const [user, plan, tokens] of [
      ["a", "allowance", 9_000],
      ["d", "day", 900],
      ["m", "month", 900],
      ["b", "both", 900],
      ["n", "none", 0],
    ] as const) {
      await project.rpc("upsert_account", { p_user_id: user, p_plan_id: plan });
      if (tokens > 0) await use(project, user, tokens);
    }
    await project.rpc("update_user_token_balance", {
      p_user_id: "a",
      p_amount: 2_000_000,
      p_transaction_type: "purchase",
    });
    await use(project, "a", 7_300);
    await project.rpc("run_maintenance");
    const page = await project.rpc<{
      accounts: { user_id: string; usage_percent: number | null; usage_of: string | null }[];
    }>("console_search_accounts", { p_limit: 20 });
    expect(
      Object.fromEntries(
        page.accounts
          .filter(({ user_id }) => user_id.length === 1)
          .map(({ user_id, usage_percent, usage_of }) => [user_id, [usage_percent, usage_of]]),
      ),
    ).toEqual({
      a: [163, "allowance"],
      d: [90, "daily_limit"],
      m: [45, "monthly_limit"],
      b: [90, "daily_limit"],
      n: [null, null],
    });
  });

  it("show what users used as it was charged, debt too, before and after it is followed", async () => {
    await project.setClock("2027-01-12 10:00:00Z", true);
    await project.rpc("upsert_account", { p_user_id: "owes", p_plan_id: "none" });
    await project.rpc("update_user_token_balance", {
      p_user_id: "owes",
      p_amount: 100,
      p_transaction_type: "bonus",
    });
    await project.rpc("authorize_usage", {
      p_request_id: "owes-1",
      p_user_id: "owes",
      p_model: "m",
      p_estimated_tokens: 100,
    });
    await project.rpc("settle_usage", { p_request_id: "owes-1", p_input_tokens: 900, p_output_tokens: 0 });
    type Overview = {
      settled_tokens: number;
      top_users: { user_id: string; tokens: number }[];
      steps: { settled_tokens: number; allowed_tokens: number }[];
    };
    for (const round of [1, 2]) {
      const overview = await project.rpc<Overview>("console_overview", { p_minutes: 10 });
      expect(overview.settled_tokens, `round ${round}`).toBe(900);
      expect(overview.top_users).toMatchObject([{ user_id: "owes", tokens: 900 }]);
      expect(overview.steps.at(-1)).toMatchObject({ settled_tokens: 900, allowed_tokens: 100 });
      await project.rpc("run_maintenance");
    }
  });
});
