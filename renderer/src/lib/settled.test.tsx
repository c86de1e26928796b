import { act, renderHook } from "@testing-library/react";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { useSettledText } from "./settled.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

it("a text is taken half a second after the last key, or at once where it is asked for", () => {
  const taken: string[] = [];
  const { result, rerender } = renderHook(({ value }) => useSettledText(value, (text) => taken.push(text)), {
    initialProps: { value: "" },
  });
  act(() => result.current.type("a"));
  act(() => void vi.advanceTimersByTime(400));
  act(() => result.current.type("an"));
  act(() => void vi.advanceTimersByTime(499));
  expect(taken).toEqual([]);
  expect(result.current).toMatchObject({ typed: "an", isWaiting: true });
  act(() => void vi.advanceTimersByTime(1));
  expect(taken).toEqual(["an"]);
  rerender({ value: "an" });
  expect(result.current.isWaiting).toBe(false);
  act(() => result.current.type("ann"));
  act(() => result.current.settleNow());
  act(() => void vi.advanceTimersByTime(1000));
  expect(taken).toEqual(["an", "ann"]);
});

it("what is set from elsewhere shows at once", () => {
  const { result, rerender } = renderHook(({ value }) => useSettledText(value, () => undefined), {
    initialProps: { value: "ann" },
  });
  expect(result.current.typed).toBe("ann");
  rerender({ value: "" });
  expect(result.current.typed).toBe("");
});
