import { describe, expect, it } from "vitest";
import { searchable } from "./pasted.ts";

describe("a text that is pasted into a search", () => {
  it("is left as it is where a search takes it whole", () => {
    for (const text of ["", "anna", " pi_3Abc ", "Hello, I paid and nothing came: pi_3Abc"])
      expect(searchable(text)).toBe(text);
  });

  it("is a long e-mail: what may be an id or an address is left, the surest first", () => {
    const prose = "I have tried everything and it still does not work, please help me soon. ".repeat(30);
    expect(
      searchable(
        `From: <anna@example.com>\nDate: 28/11/2026\n${prose}\nThe payment is "pi_3Qf7Kx2LkdIwHu7ix".\n${prose}`,
      ),
    ).toBe("anna@example.com pi_3Qf7Kx2LkdIwHu7ix 28/11/2026");
  });

  it("is a link of the console: what it leads to, with its own signs", () => {
    for (const [link, meant] of [
      ["http://127.0.0.1:7411/#/users/auth0%7C5f7c8ec7", "auth0|5f7c8ec7"],
      [" http://127.0.0.1:7411/#/users/auth0%7C5f7c8ec7/decisions/94 ", "auth0|5f7c8ec7"],
      ["token-governance://users/a%2Fb%3Fc%23d%2520e?project=local", "a/b?c#d%20e"],
      ["token-governance://watch/decisions/94?project=local", "94"],
      ["See http://x/#/users/lena%40example.com, please", "See http://x/#/users/lena@example.com, please"],
      ["http://x/?q=100%", "http://x/?q=100%"],
      ["http://x/#/users/%E0%A4%A", "%E0%A4%A"],
      ["https://dashboard.stripe.com/payments/pi_3Abc", "https://dashboard.stripe.com/payments/pi_3Abc"],
    ])
      expect(searchable(link ?? "")).toBe(meant);
  });

  it("never becomes longer than a search takes, nor endless work", () => {
    for (const text of [
      "x".repeat(5_000),
      "a1".repeat(1_000_000),
      "id-12345 ".repeat(100_000),
      "ä ".repeat(9_000),
    ])
      expect(searchable(text).length).toBeLessThanOrEqual(500);
    expect(
      searchable(Array.from({ length: 1_000 }, (_, n) => `request-${n}`).join("\n")).length,
    ).toBeLessThanOrEqual(500);
  });
});
