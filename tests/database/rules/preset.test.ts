import { expect, it } from "vitest";
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
    await project.close();
  },
);
