import { expect, it } from "vitest";
import { findRanges } from "./find.ts";

it("finds a text wherever it is, in whatever case, and not in its own bar", () => {
  const root = document.createElement("div");
  root.innerHTML = `<p>Una Example</p><p>the example of an <b>EXAMPLE</b></p><p data-find-bar>example</p>`;
  document.body.append(root);
  expect(findRanges(root, "example").map(String)).toEqual(["Example", "example", "EXAMPLE"]);
  expect(findRanges(root, " ")).toEqual([]);
  expect(findRanges(root, "nobody")).toEqual([]);
});
