import { expect, it } from "vitest";
import { besideBefore, readRange } from "./user-usage.tsx";

const read = (query: string) => readRange(new URLSearchParams(query), "2026-11-28", 30);

it("a range of the address is shown; without one, the last days up to today in the user's zone", () => {
  expect(read("")).toEqual({ from: "2026-10-30", to: "2026-11-28" });
  expect(read("from=2026-01-01&to=2026-01-31")).toEqual({ from: "2026-01-01", to: "2026-01-31" });
  expect(read("to=2026-01-31")).toEqual({ from: "2026-01-02", to: "2026-01-31" });
});

it("nonsense, a range that ends before it begins, and more than ten years are as if nothing was asked", () => {
  for (const query of ["from=x&to=y", "from=2026-05-01&to=2026-04-01", "from=1900-01-01", "from=2026-99-99"])
    expect(read(query)).toEqual({ from: "2026-10-30", to: "2026-11-28" });
});

it("parts of the whole are beside what they were before; what has ended comes last, what is not known is empty", () => {
  const part = (model: string | null, tokens: number) => ({
    model,
    total_tokens: tokens,
    cost_micros: tokens,
  });
  const nameOf = (row: { readonly model: string | null }) => row.model;
  const now = [part("a", 10), part(null, 5)];
  expect(besideBefore(now, [part("a", 4), part("gone", 7), part("never", 0)], nameOf)).toEqual([
    { name: "a", total_tokens: 10, cost_micros: 10, before: 4 },
    { name: null, total_tokens: 5, cost_micros: 5, before: 0 },
    { name: "gone", total_tokens: 0, cost_micros: 0, before: 7 },
  ]);
  expect(besideBefore(now, null, nameOf).map(({ before }) => before)).toEqual([null, null]);
});
