import { screen } from "@testing-library/react";
import { expect, it } from "vitest";
import { answering, show } from "../../test-render.tsx";
import { placeWords, ProblemLine } from "./problem.tsx";

it.each([
  ["conditions.all[0].value", "When › condition 1 › the value"],
  ["conditions.any[1].all[0].fact", "When › condition 2.1 › what is compared"],
  ["conditions", "When"],
  ["conditions.not.op", "When › the comparison"],
  ["action.block.reason", "Then › Block the call › reason"],
  ["action.blok", "Then › blok"],
  ["rule_name", "Name"],
  ["plans[2].monthly_allowance", "Plans › 3 › monthly allowance"],
  ["", "The rule"],
])("the place %s of a problem reads %s", (path, words) => {
  expect(placeWords(path)).toBe(words);
});

it("says where and what, and keeps the path for whoever mends a file", () => {
  const problem = { path: "conditions.all[0].value", message: '"lots" is not a number.', fix: "Write one." };
  show(
    answering({}),
    <p data-testid="line">
      <ProblemLine problem={problem} />
    </p>,
  );
  expect(screen.getByTestId("line").textContent).toBe(
    'When › condition 1 › the value: "lots" is not a number. Write one.',
  );
  expect(screen.getByTitle("conditions.all[0].value")).toBeTruthy();
});
