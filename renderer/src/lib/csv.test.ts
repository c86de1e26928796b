import { expect, it } from "vitest";
import { toCsv } from "./csv.ts";

it("quotes what needs it and disarms formulas, but not numbers", () => {
  expect(
    toCsv(
      ["name", "tokens", "note"],
      [
        ['O"Neil, Jr.', -5, null],
        ["=HYPERLINK(1)", 12, "a\nb"],
        ["+1", 0, "-2"],
      ],
    ),
  ).toBe('name,tokens,note\r\n"O""Neil, Jr.",-5,\r\n\'=HYPERLINK(1),12,"a\nb"\r\n\'+1,0,\'-2\r\n');
});
