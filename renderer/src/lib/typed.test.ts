import { afterEach, describe, expect, it } from "vitest";
import { setLanguage } from "../../../shared/language/index.ts";
import { formatCost, formatDay, formatShortInstant, formatTokens } from "./format.ts";
import { joinNumbers, plainNumber, splitNumbers, typedNumber } from "./typed.ts";

const speak = (locale: string): void => setLanguage(locale.startsWith("de") ? "de" : "en", locale, {});
afterEach(() => speak("en-GB"));

describe("typed numbers", () => {
  it("are read with the signs of the language", () => {
    expect([plainNumber("1,234.5"), plainNumber("1234"), plainNumber("-0.80")]).toEqual([
      "1234.5",
      "1234",
      "-0.80",
    ]);
    speak("de-DE");
    expect([plainNumber("1.234,5"), plainNumber("1234"), plainNumber("0,80")]).toEqual([
      "1234.5",
      "1234",
      "0.80",
    ]);
    expect(plainNumber("1 234 567")).toBe("1234567");
  });

  it("are refused where the signs are those of another language", () => {
    expect([plainNumber("0,80"), plainNumber("1.234.5"), plainNumber("12,34"), plainNumber("a")]).toEqual([
      null,
      null,
      null,
      null,
    ]);
    speak("de-DE");
    expect([plainNumber("0.80"), plainNumber("1,234.5"), plainNumber("12.34"), plainNumber("")]).toEqual([
      null,
      null,
      null,
      null,
    ]);
  });

  it("are read without the invisible marks that a paste brings", () => {
    expect([
      plainNumber("\u200e5,000\u200f"),
      plainNumber("\u2066 12 000\u2069"),
      plainNumber("5\u200b000"),
    ]).toEqual(["5000", "12000", "5000"]);
  });

  it("come back as they were written", () => {
    for (const locale of ["en-GB", "en-US", "de-DE", "de-AT", "de-CH"]) {
      speak(locale);
      for (const plain of ["0.5", "1234567", "0.000001"]) expect(plainNumber(typedNumber(plain))).toBe(plain);
      expect(splitNumbers(joinNumbers(["50", "0.75", "90"])).map(plainNumber)).toEqual(["50", "0.75", "90"]);
    }
  });
});

describe("numbers and dates", () => {
  it("are written as the person's locale has them", () => {
    // The build step puts the person's locale where the sources say "en"; here they say it as they are.
    expect(formatTokens(1_234_567)).toBe("1,234,567");
    expect(formatCost(12_350_000, "gbp")).toBe("£12.35");
    expect(formatDay("2026-11-22T12:00:00Z", "UTC")).toBe("22 Nov 2026");
    expect(formatShortInstant("2026-11-22T12:00:00Z", "UTC", Date.parse("2026-12-01T00:00:00Z"))).toBe(
      "22 Nov, 12:00",
    );
    expect(formatShortInstant("2025-11-22T12:00:00Z", "UTC", Date.parse("2026-12-01T00:00:00Z"))).toBe(
      "22 Nov 2025, 12:00",
    );
  });
});
