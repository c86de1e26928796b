import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { expect, test } from "vitest";
import { linkTo } from "../../../shared/contract/links.ts";
import { desks, filesInArguments, placeOfFiles, targetInArguments, targetOfLink } from "./deep-link.ts";

test.each([
  ["token-governance://users/42", "/users/42", null],
  ["TOKEN-GOVERNANCE://Users/Ab%20c/ledger?day=2026-01-01", "/users/Ab%20c/ledger?day=2026-01-01", null],
  ["token-governance://watch/", "/watch", null],
  ["token-governance://users/42?project=acme.supabase.co", "/users/42", "acme.supabase.co"],
  ["token-governance://users/42?a=1&project=127.0.0.1:54321&b=2", "/users/42?a=1&b=2", "127.0.0.1:54321"],
  // Which files are taken in is said by the program alone.
  ["token-governance://finance/new?files=1,2", "/finance/new", null],
])("%s leads to %s of the project %s", (link, place, project) => {
  expect(targetOfLink(link)).toEqual({ place, project });
});

test.each([
  "https://example.com/",
  "token-governance://",
  "token-governance://elsewhere/1",
  "token-governance://users/../settings",
  'token-governance://users/"><script>',
  "token-governance://users/a b",
  `token-governance://users/${"a".repeat(3000)}`,
  "token-governance://users/42?project=",
  "token-governance://users/42?project=a%20b",
  "javascript:alert(1)",
])("%s leads nowhere", (link) => {
  expect(targetOfLink(link)).toBeNull();
});

test("a link that is copied leads back to its screen and project", () => {
  for (const place of ["/users/42", "/users/42?tab=ledger", "/watch"]) {
    for (const url of ["https://acme.supabase.co", "http://127.0.0.1:54321"]) {
      const link = linkTo(place, { kind: "supabase", url });
      expect(targetOfLink(link)).toEqual({ place, project: new URL(url).host });
    }
    expect(targetOfLink(linkTo(place, { kind: "local", url: "" }))).toEqual({ place, project: "local" });
    expect(targetOfLink(linkTo(place, null))).toEqual({ place, project: null });
  }
});

test("links and files are found among the arguments of a start", () => {
  const argv = ["/opt/app", "--data-dir=/x.csv", "token-governance://rules/spam", "a.CSV", "/tmp/b.csv"];
  expect(targetInArguments(argv)).toEqual({ place: "/rules/spam", project: null });
  expect(filesInArguments(argv, "/home/ada")).toEqual([join("/home/ada", "a.CSV"), "/tmp/b.csv"]);
  expect(placeOfFiles(["1", "2"])).toBe("/finance/new?files=1,2");
  expect(targetInArguments(["/opt/app"])).toBeNull();
  const asAddress = pathToFileURL(join("/tmp", "Zahlungen März.csv"));
  expect(filesInArguments([asAddress.href], "/")).toEqual([fileURLToPath(asAddress)]);
  expect(filesInArguments(["/opt/app", "https://evil.example/a.csv"], "/")).toEqual([]);
});

test("the desks of links and of the menu are those of the rail, in its order", () => {
  const rail = readFileSync(new URL("../../../renderer/src/app/rail.tsx", import.meta.url), "utf8");
  expect([...rail.matchAll(/\{ id: "(\w+)", name:/g)].map((found) => found[1])).toEqual([...desks]);
});
