/**
 * The import rules are held by tools, so the tools are tested: a planted forbidden import must fail the check.
 * Each plant is written into a copy of the zone, never into the working tree.
 */
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { spawnSync } from "node:child_process";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { repository } from "../support/repository.ts";

let copy: string;

beforeAll(() => {
  copy = mkdtempSync(join(tmpdir(), "governance-boundaries-"));
  for (const entry of [
    "shared",
    "electron",
    "renderer",
    "local-project",
    "packages",
    "cli",
    "bench",
    "tsconfig.json",
    "tsconfig.base.json",
    ".oxlintrc.json",
    "package.json",
  ])
    cpSync(join(repository, entry), join(copy, entry), { recursive: true });
  symlinkSync(join(repository, "node_modules"), join(copy, "node_modules"));
});
afterAll(() => rmSync(copy, { recursive: true, force: true }));

function tool(name: string, args: string[]): { status: number | null; output: string } {
  const { status, stdout, stderr } = spawnSync(join(repository, "node_modules/.bin", name), args, {
    cwd: copy,
    encoding: "utf8",
    env: { ...process.env, PATH: `${dirname(process.execPath)}:${process.env.PATH ?? ""}` },
  });
  return { status, output: stdout + stderr };
}

function lint(file: string): { status: number | null; output: string } {
  return tool("oxlint", [file]);
}

function plant(path: string, source: string): string {
  const file = join(copy, path);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, source);
  return file;
}

describe("a forbidden import fails the lint", () => {
  const plants: readonly [where: string, file: string, source: string][] = [
    [
      "an npm package in the core",
      "shared/governance/plant.ts",
      'import { z } from "zod";\nexport const plant = z;\n',
    ],
    [
      "Node in the core",
      "shared/governance/plant.ts",
      'import { readFileSync } from "node:fs";\nexport const plant = readFileSync;\n',
    ],
    [
      "the contract in the core",
      "shared/governance/plant.ts",
      'import { whole } from "../contract/basics.ts";\nexport const plant = whole;\n',
    ],
    [
      "React in the contract",
      "shared/contract/plant.ts",
      'import { useState } from "react";\nexport const plant = useState;\n',
    ],
    [
      "an npm package in the guard's package",
      "packages/guard/src/plant.ts",
      'import { z } from "zod";\nexport const plant = z;\n',
    ],
    [
      "Node in the guard's package, outside the store that is a file",
      "packages/guard/src/plant.ts",
      'import { readFileSync } from "node:fs";\nexport const plant = readFileSync;\n',
    ],
    [
      "electron in the console",
      "electron/main/console/plant.ts",
      'import { app } from "electron";\nexport const plant = app;\n',
    ],
    [
      "supabase-js in the console outside backend",
      "electron/main/console/plant.ts",
      'import { createClient } from "@supabase/supabase-js";\nexport const plant = createClient;\n',
    ],
    [
      "the renderer in the main process",
      "electron/main/console/plant.ts",
      'import { plant as other } from "../../../renderer/src/plant.ts";\nexport const plant = other;\n',
    ],
    [
      "electron in the renderer",
      "renderer/src/plant.ts",
      'import { ipcRenderer } from "electron";\nexport const plant = ipcRenderer;\n',
    ],
    [
      "Node in the renderer",
      "renderer/src/plant.ts",
      'import { join } from "node:path";\nexport const plant = join;\n',
    ],
    [
      "supabase-js in the renderer",
      "renderer/src/plant.ts",
      'import { createClient } from "@supabase/supabase-js";\nexport const plant = createClient;\n',
    ],
    [
      "the main process in the renderer",
      "renderer/src/plant.ts",
      'import { plant as other } from "../../electron/main/console/plant.ts";\nexport const plant = other;\n',
    ],
    [
      "the console in the preload",
      "electron/preload/plant.ts",
      'import { plant as other } from "../main/console/plant.ts";\nexport const plant = other;\n',
    ],
  ];
  it.each(plants)("%s", (_where, path, source) => {
    const file = plant(path, source);
    const { status, output } = lint(file);
    rmSync(file);
    expect(output).toContain("no-restricted-imports");
    expect(status).not.toBe(0);
  });

  it("one feature importing another fails", () => {
    const file = plant(
      "renderer/src/features/rules/plant.ts",
      'import { other } from "../finance/other.ts";\nexport const plant = other;\n',
    );
    const { status, output } = lint(file);
    rmSync(file);
    expect(output).toContain("no-restricted-imports");
    expect(status).not.toBe(0);
  });

  it("the same folders without a plant pass", () => {
    const { status, output } = tool("oxlint", ["shared"]);
    expect(output).not.toContain("no-restricted-imports");
    expect(status).toBe(0);
  });
});

describe("a forbidden reference fails the type check", () => {
  it("a DOM global in the core is unknown to its compiler", () => {
    const file = plant("shared/governance/plant.ts", "export const plant = document.title;\n");
    const { status, output } = tool("tsc", ["-b", "shared/governance"]);
    rmSync(file);
    expect(output).toContain("Cannot find name 'document'");
    expect(status).not.toBe(0);
  });

  it("a file of a zone that is not referenced is refused", () => {
    plant("local-project/planted-target.ts", "export const target = 1;\n");
    const file = plant(
      "shared/contract/plant.ts",
      'import { target } from "../../local-project/planted-target.ts";\nexport const plant = target;\n',
    );
    const { status, output } = tool("tsc", ["-b", "shared/contract"]);
    rmSync(file);
    expect(output).toMatch(/TS6307|TS6059/);
    expect(status).not.toBe(0);
  });
});
