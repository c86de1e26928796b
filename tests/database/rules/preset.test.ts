import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { parse } from "yaml";
import { presetRecords, stepsBetween } from "../../../shared/governance/configuration/index.ts";
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
