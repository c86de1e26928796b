import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { parse } from "yaml";
import { presetRecords, stepsBetween } from "../../../shared/governance/configuration/index.ts";
import { parsePrices } from "../../../shared/governance/index.ts";
import { openProject } from "../../support/project.ts";

it.each(["default", "mmagent", "agiagent", "athro", "andora", "chat-v2"])(
  "the configuration of %s, read back and applied, changes nothing",
  async (preset) => {
    const project = await openProject(18, { preset });
    const read = await project.rpc<{ name: string; rules: unknown[] }>("console_preset");
    expect(read.name).toBe(preset);
    const { changed } = await project.rpc<{ changed: Record<string, number> }>("apply_preset", {
      p_preset: read,
    });
    expect(Object.entries(changed).filter(([, count]) => count !== 0)).toEqual([]);
    // The core reads the file as the database keeps it: the console tells where a project differs from a preset.
    const file = parse(
      readFileSync(new URL(`../../../supabase/presets/${preset}.yaml`, import.meta.url), "utf8"),
    ) as Record<string, unknown>;
    const { records } = await project.rpc<{ records: ReturnType<typeof presetRecords> }>("console_config");
    expect(stepsBetween(records, presetRecords(file)).filter(({ step }) => step !== "same")).toEqual([]);
    await project.close();
  },
);

it("takes a price's start as the core does: a date, or a moment whose offset says when it is", async () => {
  const project = await openProject(18);
  const price = { provider: "x", model: "m", input_micros_per_million: 1, output_micros_per_million: 1 };
  const starts = [
    ["2026-01-01", "2026-01-01T00:00:00+00:00"],
    ["2026-01-01T00:00:00-08:00", "2026-01-01T08:00:00+00:00"],
    ["2026-01-01 00:00:00+00", "2026-01-01T00:00:00+00:00"],
    ["2026-01-01T00:00", null],
    ["2026-01-01T00:00:60Z", null],
    ["2026-02-29", null],
    ["tomorrow", null],
    ["now", null],
    ["infinity", null],
  ] as const;
  for (const [effective_from, moment] of starts) {
    const prices = [{ ...price, currency: "usd", effective_from }];
    expect([effective_from, parsePrices(prices).ok]).toEqual([effective_from, moment !== null]);
    const p_preset = {
      name: "p",
      currency: "usd",
      default_plan: "p",
      plans: [{ plan_id: "p", name: "P" }],
      prices,
    };
    if (moment === null)
      expect(await project.refusal("apply_preset", { p_preset })).toMatchObject({
        hint: "invalid_preset",
        message: expect.stringContaining("prices[0].effective_from"),
      });
    else {
      await project.rpc("apply_preset", { p_preset });
      const { at } = await project.one<{ at: string }>(
        "select to_jsonb(effective_from at time zone 'UTC') #>> '{}' || '+00:00' as at from governance.prices where retired_at is null",
      );
      expect(at).toBe(moment);
    }
  }
  await project.close();
});
