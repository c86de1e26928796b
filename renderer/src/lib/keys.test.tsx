import { render, screen } from "@testing-library/react";
import { describe, expect, it } from "vitest";
import { leaveForRows } from "./keys.ts";

describe("from a search box to what it finds", () => {
  it("goes to the rows; while none are read yet, out of the box, so that the next key is not typed into it", () => {
    const { rerender } = render(<input aria-label="Search" />);
    const box = screen.getByRole("textbox");
    box.focus();
    leaveForRows(box);
    expect(document.activeElement).toBe(document.body);
    rerender(
      <>
        <input aria-label="Search" />
        <div role="grid" tabIndex={0} />
      </>,
    );
    box.focus();
    leaveForRows(box);
    expect(document.activeElement).toBe(screen.getByRole("grid"));
  });
});
