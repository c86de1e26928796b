/** docs/ARCHITECTURE.md names a file and a function for every step of its walk: each of them is there. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { repository } from "../support/repository.ts";

const page = readFileSync(join(repository, "docs/ARCHITECTURE.md"), "utf8");
const [, walk = ""] = page.split("## A stranger's walk\n");
const journeys = walk
  .split(/^## /m)[0]
  ?.split(/^### /m)
  .slice(1)
  .map((text) => ({
    name: text.split("\n")[0] ?? "",
    steps: [...text.matchAll(/^\| .+ \| `([^`]+)` \| `([^`]+)` \|$/gm)].map(
      ([, file = "", name = ""]) => [file, name] as const,
    ),
  }));

describe("A stranger's walk", () => {
  it("goes with one AI call, one Stripe event and one operator's act", () => {
    expect(journeys?.map(({ name, steps }) => [name, steps.length > 6])).toEqual([
      ["One AI call", true],
      ["One Stripe event", true],
      ["One operator's act", true],
    ]);
  });

  it.each((journeys ?? []).flatMap(({ steps }) => steps))("finds in %s the function %s", (file, name) => {
    expect(existsSync(join(repository, file)), file).toBe(true);
    const text = readFileSync(join(repository, file), "utf8");
    const definition = file.endsWith(".sql")
      ? new RegExp(`create (or replace )?function (public|governance)\\.${name}\\(`)
      : new RegExp(`(function\\*?|const|class) ${name}\\b|^ {2,4}(async )?${name}\\(`, "m");
    expect(text).toMatch(definition);
  });
});
