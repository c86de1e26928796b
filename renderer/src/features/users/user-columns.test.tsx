import { expect, it } from "vitest";
import { columns } from "./user-columns.tsx";

/** What a window leaves to a table: without the rail of icons, and the box that picks a row. */
const room = 1024 - 52 - 30;

it("the columns that are shown at first fit a window of 1024", () => {
  const shown = columns.filter(({ hidden }) => !hidden);
  expect(shown.length).toBeGreaterThan(8);
  expect(shown.reduce((sum, { width }) => sum + width, 0)).toBeLessThanOrEqual(room);
});
