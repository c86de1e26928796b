/** What a project without calls shows to paste compiles as it stands, and is as short as it is said to be. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { firstPrograms } from "../../renderer/src/features/watch/first-programs.ts";
import { repository } from "../support/repository.ts";

const folder = mkdtempSync(join(tmpdir(), "first-programs-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

it("the first programs compile under strict, in about twenty lines, with the project's own address", () => {
  symlinkSync(join(repository, "node_modules"), join(folder, "node_modules"));
  writeFileSync(join(folder, "package.json"), '{ "type": "module" }');
  const files = firstPrograms.map(({ name, code, install }) => {
    const text = code("https://abc.supabase.co");
    expect(text).toContain('"https://abc.supabase.co"');
    expect(text.split("\n").length).toBeLessThanOrEqual(22);
    for (const [, module = ""] of text.matchAll(/from "([^"]+)"/g))
      if (!module.startsWith("node:")) expect(install).toContain(module);
    // The packages' sources: what is built of them is for packages.test.ts.
    const source = join(repository, "packages/guard/src/index.ts");
    const file = `${name.replaceAll(" ", "-")}.ts`;
    writeFileSync(join(folder, file), text.replace('"@token-governance/guard"', JSON.stringify(source)));
    return file;
  });
  const compilerOptions = {
    strict: true,
    noEmit: true,
    module: "nodenext",
    target: "es2024",
    types: ["node"],
    skipLibCheck: true,
    allowImportingTsExtensions: true,
  };
  writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions, files }));
  const tsc = join(repository, "node_modules/typescript/bin/tsc");
  try {
    execFileSync(process.execPath, [tsc, "-p", folder], { encoding: "utf8", stdio: "pipe" });
  } catch (error) {
    throw new Error((error as { stdout: string }).stdout, { cause: error });
  }
});
