/** All rules together have a size, so that a connection which keeps them compiled stays small. */
import { expect, it } from "vitest";
import { installedVersions, openProject } from "../../support/project.ts";

/** Some 95,000 characters: a rule by itself may have 100,000. */
const large = (name: string) => ({
  rule_name: name,
  conditions: {
    all: [
      {
        fact: "message",
        op: "matches_any",
        value: Array.from({ length: 990 }, (_, n) => `${name} ${"word ".repeat(17)}${n}`),
      },
    ],
  },
  action: { warn: { message: "mind your words" } },
});

it.runIf(installedVersions().includes(18))(
  "rules that would be too large together are refused as a whole, and a connection stays below 100 MB",
  async () => {
    const project = await openProject(18, { connections: 1 });
    let refusal: { code?: string; message?: string } = {};
    let taken = 0;
    for (; taken < 10; taken += 1)
      try {
        await project.rpc("save_rule", { p_command_id: `save-${taken}`, p_rule: large(`rule_${taken}`) });
      } catch (error) {
        refusal = error as typeof refusal;
        break;
      }
    expect(taken).toBeGreaterThanOrEqual(4);
    expect(refusal).toMatchObject({ code: "PT422" });
    expect(refusal.message).toMatch(/at most 500,000 characters in all, and would have \d{3},\d{3}/);
    expect(
      await project.one(
        "select count(*)::int as rules from governance.rules where rule_name like 'rule\\_%'",
      ),
    ).toEqual({ rules: taken });

    // One turned off makes room for another.
    await project.rpc("save_rule", { p_command_id: "off", p_rule: { ...large("rule_0"), mode: "off" } });
    await project.rpc("save_rule", { p_command_id: "again", p_rule: large("another") });

    // One that is off for a while keeps its room: the call after the moment puts it back, and is answered.
    await project.rpc("save_rule", {
      p_command_id: "off for an hour",
      p_rule: { ...large("rule_1"), mode: "off" },
      p_until: new Date(Date.now() + 3_600_000).toISOString(),
    });
    await expect(
      project.rpc("save_rule", { p_command_id: "one too many", p_rule: large("one_too_many") }),
    ).rejects.toMatchObject({ code: "PT422" });
    await project.setClock(new Date(Date.now() + 2 * 3_600_000).toISOString());

    // As the pool's one connection has it, whose memory is looked at next.
    const { answer } = await project.one<{ answer: unknown }>(
      "select public.authorize_usage('call', 'user', 'gpt-4o-mini', 10, p_message => $1) as answer",
      [`${"lorem ipsum ".repeat(50)} rule_1 ${"word ".repeat(17)}7`],
    );
    expect(answer).toMatchObject({ decision: "warn" });
    const { bytes } = await project.one<{ bytes: number }>(
      "select sum(total_bytes)::bigint::float as bytes from pg_backend_memory_contexts",
    );
    console.log(`a connection with the largest rules has ${Math.round(bytes / 1e6)} MB`);
    expect(bytes).toBeLessThan(100e6);
    await project.close();
  },
);
