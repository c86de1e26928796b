import { act, fireEvent, screen } from "@testing-library/react";
import { useState } from "react";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { answering, show } from "../../test-render.tsx";
import { DayRange, rangeProblem } from "./day-range.tsx";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const taken: string[] = [];
function Desk() {
  const [days, setDays] = useState({ from: "2026-11-01", to: "2026-11-30" });
  return (
    <DayRange
      {...days}
      longestDays={400}
      onChange={(next) => {
        taken.push(`${next.from} ${next.to}`);
        setDays(next);
      }}
    />
  );
}
const box = (name: string) => screen.getByLabelText<HTMLInputElement>(name);
/** As the browser reports it: a whole date at each key. */
const type = (name: string, values: readonly string[]): void => {
  for (const value of values) fireEvent.change(box(name), { target: { value } });
};
const rest = (): void => act(() => void vi.advanceTimersByTime(1_000));

it("ten years are the most, where a desk names no other bound: the project refuses more", () => {
  expect(rangeProblem({ from: "1970-01-01", to: "2026-11-30" })).toBe("At most 3,660 days.");
  expect(rangeProblem({ from: "2017-01-01", to: "2026-11-30" })).toBeNull();
});

it("takes a date once it is typed: no day on the way is shown, and the other end stays", () => {
  taken.length = 0;
  show(answering({}), <Desk />);
  // The end first, before the start: nothing is lost while the start is still to come.
  type("To", [
    "2026-01-30",
    "2026-10-30",
    "2026-10-01",
    "2026-10-15",
    "0002-10-15",
    "0020-10-15",
    "2026-10-15",
  ]);
  rest();
  expect(taken).toEqual([]);
  expect(screen.getByRole("alert").textContent).toBe("The end is before the start.");
  expect([box("From").value, box("To").value]).toEqual(["2026-11-01", "2026-10-15"]);

  type("From", ["2026-01-01", "2026-10-01"]);
  fireEvent.keyDown(box("From"), { key: "Enter" });
  expect(taken).toEqual(["2026-10-01 2026-10-15"]);
  expect(screen.queryByRole("alert")).toBeNull();
  expect([box("From").value, box("To").value]).toEqual(["2026-10-01", "2026-10-15"]);
});

it("says what is wrong with a range that cannot be shown", () => {
  taken.length = 0;
  show(answering({}), <Desk />);
  type("From", ["2020-01-01"]);
  fireEvent.blur(box("From"));
  expect(screen.getByRole("alert").textContent).toBe("At most 400 days.");
  type("From", [""]);
  fireEvent.blur(box("From"));
  expect(screen.getByRole("alert").textContent).toBe("Choose a day.");
  expect(taken).toEqual([]);
});
