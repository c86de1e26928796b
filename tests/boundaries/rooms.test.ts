/** docs/ARCHITECTURE.md says where the tests of each room of SQL are: no room and no folder is missing. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { repository } from "../support/repository.ts";

const page = readFileSync(join(repository, "docs/ARCHITECTURE.md"), "utf8");
const [, table = ""] = page.split("| folder of `tests/database` | rooms |");
const rows = (table.split("\n\n")[0] ?? "").split("\n").map((line) => line.split("|"));
const inRows = (column: number, words: RegExp): string[] =>
  rows.flatMap((cells) => [...(cells[column] ?? "").matchAll(words)].map(([, word = ""]) => word)).sort();

it("names each folder of tests/database once", () => {
  expect(inRows(1, /`([\w-]+)`/g)).toEqual(readdirSync(join(repository, "tests/database")).sort());
});

it("names each room of supabase/schemas once", () => {
  const rooms = readdirSync(join(repository, "supabase/schemas")).map((file) => file.slice(0, 2));
  expect(inRows(2, /\b(\d\d)\b/g)).toEqual(rooms.sort());
});
