import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { desks, placeInArguments, placeOfLink } from "./deep-link.ts";

test.each([
  ["token-governance://users/42", "/users/42"],
  ["TOKEN-GOVERNANCE://Users/Ab%20c/ledger?day=2026-01-01", "/users/Ab%20c/ledger?day=2026-01-01"],
  ["token-governance://watch/", "/watch"],
])("%s leads to %s", (link, place) => {
  expect(placeOfLink(link)).toBe(place);
});

test.each([
  "https://example.com/",
  "token-governance://",
  "token-governance://elsewhere/1",
  "token-governance://users/../settings",
  'token-governance://users/"><script>',
  "token-governance://users/a b",
  `token-governance://users/${"a".repeat(3000)}`,
  "javascript:alert(1)",
])("%s leads nowhere", (link) => {
  expect(placeOfLink(link)).toBeNull();
});

test("the link is found among the arguments of a start", () => {
  expect(placeInArguments(["/opt/app", "--data-dir=/x", "token-governance://rules/spam"])).toBe(
    "/rules/spam",
  );
  expect(placeInArguments(["/opt/app"])).toBeNull();
});

test("the desks of links and of the menu are those of the rail, in its order", () => {
  const rail = readFileSync(new URL("../../../renderer/src/app/rail.tsx", import.meta.url), "utf8");
  expect([...rail.matchAll(/\{ id: "(\w+)", name:/g)].map((found) => found[1])).toEqual([...desks]);
});
