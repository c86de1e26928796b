/** Every function of `public` is reached from a screen, or docs/functions.md says who calls it instead. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { acts } from "../../shared/contract/acts.ts";
import { operations, streams } from "../../shared/contract/index.ts";
import { repository } from "../support/repository.ts";

const sources = (folder: string): { readonly file: string; readonly text: string }[] =>
  readdirSync(join(repository, folder), { recursive: true, encoding: "utf8" })
    .filter((file) => /\.(ts|tsx|sql)$/.test(file) && !/\.test\.tsx?$/.test(file))
    .map((file) => ({
      file: `${folder}/${file}`,
      text: readFileSync(join(repository, folder, file), "utf8"),
    }));

const functions = [
  ...new Set(
    sources("supabase/schemas").flatMap(({ text }) =>
      [...text.matchAll(/^create (?:or replace )?function public\.(\w+)/gm)].map(([, name = ""]) => name),
    ),
  ),
].sort();
/** What the console calls for its screens. */
const callers = [...sources("electron/main/console"), ...sources("shared/contract")];
const isReached = (name: string): boolean => callers.some(({ text }) => text.includes(`"${name}"`));
const page = readFileSync(join(repository, "docs/functions.md"), "utf8");
const listed = [...page.matchAll(/^\| `(\w+)` \| (.+) \| `([^`]+)` \|$/gm)].map(
  ([, name = "", who = "", where = ""]) => ({ name, who, where }),
);

describe("The functions of public", () => {
  it("are each reached from a screen, or listed with who calls them; none is both", () => {
    expect(functions.length).toBeGreaterThan(70);
    expect(listed.map(({ name }) => name).sort()).toEqual(functions.filter((name) => !isReached(name)));
  });

  it.each(listed)("$name is called where the page says", ({ name, who, where }) => {
    expect(who.length).toBeGreaterThan(10);
    expect(existsSync(join(repository, where)), where).toBe(true);
    expect(readFileSync(join(repository, where), "utf8")).toMatch(new RegExp(`\\b${name}\\b`));
  });

  it("have no operation of the contract that no screen uses", () => {
    const screens = sources("renderer/src")
      .map(({ text }) => text)
      .join("\n");
    // Acts are called by their name in the table of acts; two are read as streams of the same, and the list of
    // prices comes to the screen within its review.
    const known = new Set([
      ...Object.values(acts).map(({ operation }) => operation as string),
      "connection.state",
      "sync.intents",
      "prices.list",
    ]);
    const unused = [...Object.keys(operations), ...Object.keys(streams)].filter(
      (name) => !known.has(name) && !screens.includes(`"${name}"`),
    );
    expect(unused).toEqual([]);
  });
});
