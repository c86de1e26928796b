import { expect, it } from "vitest";
import { readRange } from "./user-usage.tsx";

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
