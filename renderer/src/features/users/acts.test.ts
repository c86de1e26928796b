import { expect, it } from "vitest";
import { blockEnd } from "./acts.tsx";

const now = Date.parse("2026-11-22T12:00:00Z");

it("ends a block when it was said, or never", () => {
  expect(blockEnd("1h", "", now)).toEqual({ ok: true, until: "2026-11-22T13:00:00.000Z" });
  expect(blockEnd("7d", "", now)).toEqual({ ok: true, until: "2026-11-29T12:00:00.000Z" });
  expect(blockEnd("forever", "", now)).toEqual({ ok: true, until: null });
});

it("refuses a custom end that is missing or past", () => {
  expect(blockEnd("custom", "", now)).toEqual({ ok: false, says: "Choose a day and time." });
  expect(blockEnd("custom", "2020-01-01T00:00", now)).toEqual({ ok: false, says: "This time has passed." });
  expect(blockEnd("custom", "2999-01-01T00:00", now).ok).toBe(true);
});
