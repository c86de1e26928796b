import { expect, it } from "vitest";
import { asText, readShown } from "./copy-as.tsx";

it("copies what a list shows as CSV, JSON and Markdown, without what would be run or read as markup", () => {
  const list = document.createElement("div");
  list.innerHTML = `
    <div role="row"><div role="columnheader"></div><div role="columnheader">Name</div><div role="columnheader">Tokens</div></div>
    <div role="row" aria-rowindex="2"><div role="gridcell">x</div><div role="gridcell">=cmd|1</div><div role="gridcell">7</div></div>
    <div role="row" aria-rowindex="1"><div role="gridcell">x</div><div role="gridcell"><b>Una</b><i>una@example.com</i></div>
      <div role="gridcell">1,234</div></div>`;
  const shown = readShown(list);
  expect(asText("CSV", shown)).toBe('Name,Tokens\r\nUna una@example.com,"1,234"\r\n\'=cmd|1,7\r\n');
  expect(JSON.parse(asText("JSON", shown))).toEqual([
    { Name: "Una una@example.com", Tokens: "1,234" },
    { Name: "=cmd|1", Tokens: "7" },
  ]);
  expect(asText("Markdown", shown)).toBe(
    "| Name | Tokens |\n| --- | --- |\n| Una una@example.com | 1,234 |\n| =cmd\\|1 | 7 |",
  );
});
