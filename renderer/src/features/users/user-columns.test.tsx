import { render } from "@testing-library/react";
import { expect, it } from "vitest";
import type { AccountRow } from "../../../../shared/contract/users.ts";
import { columns } from "./user-columns.tsx";

/** What a window leaves to a table: without the rail of icons, and the box that picks a row. */
const room = 1024 - 52 - 30;

it("the columns that are shown at first fit a window of 1024", () => {
  const shown = columns.filter(({ hidden }) => !hidden);
  expect(shown.length).toBeGreaterThan(8);
  expect(shown.reduce((sum, { width }) => sum + width, 0)).toBeLessThanOrEqual(room);
});

it("a figure of more digits than its column holds is written short, with all of them on hover", () => {
  for (const id of ["tokens_today", "tokens_this_month", "available", "debt"])
    for (const [value, shown, title] of [
      [99_999_999, "99,999,999", ""],
      [900_000_000_000, "900B", "900,000,000,000 tokens"],
    ] as const) {
      const cell = columns.find((column) => column.id === id)?.cell;
      const { container } = render(<>{cell?.({ [id]: value } as unknown as AccountRow)}</>);
      const span = container.querySelector("span");
      expect([id, span?.textContent, span?.title]).toEqual([id, shown, title]);
    }
});
