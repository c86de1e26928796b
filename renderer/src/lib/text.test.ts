import { describe, expect, it } from "vitest";
import { setLanguage } from "../../../shared/language/index.ts";
import { cleanText, clip, codeWords, reasonWords, shortenId } from "./text.ts";

describe("cleanText", () => {
  it("keeps names of every script, emoji families and joiners whole", () => {
    for (const name of [
      "Åsa Øst",
      "陳伟",
      "محمد القحطاني",
      "दीपिका श्रेष्ठ",
      "👩‍👩‍👧 Fam",
      "نمی‌خواهم",
      "Nguyễn Thị Ánh",
    ])
      expect(cleanText(name)).toBe(name);
  });
  it("takes out controls, marks of direction, and what is invisible", () => {
    expect(cleanText("safe\u202egnp.exe")).toBe("safegnp.exe");
    expect(cleanText("a\u200bb\u2066c\u2069\ufeff\u0000d\u0007")).toBe("abc d");
    expect(cleanText("line\r\none\ttwo\u2028three")).toBe("line one two three");
  });
  it("mends half a surrogate pair and stacks of marks", () => {
    expect(cleanText("x\ud800y")).toBe("x\ufffdy");
    expect(cleanText(`Z${"\u0300".repeat(50)}`)).toBe(`Z${"\u0300".repeat(4)}`);
  });
  it("is empty where nothing is visible", () => {
    expect(cleanText("\u202e \u200b\n")).toBe("");
  });
  it("leaves markup as the text it is", () => {
    expect(cleanText("<img src=x onerror=alert(1)>")).toBe("<img src=x onerror=alert(1)>");
  });
});

it("clips by visible characters, never inside one", () => {
  expect(clip("👩‍👩‍👧👩‍👩‍👧👩‍👩‍👧", 2)).toBe("👩‍👩‍👧…");
  expect(clip("short", 10)).toBe("short");
  expect(clip("x".repeat(10_000), 80)).toHaveLength(80);
});

it("shortens ids in the middle, and only long ones", () => {
  expect(shortenId("req_1234567890abcdef")).toBe("req_1234…cdef");
  expect(shortenId("sample-0001")).toBe("sample-0001");
});

describe("reasonWords", () => {
  it("names a rule's reason as the rule is named, in each language", () => {
    expect(reasonWords("spam_identical")).toBe("spam identical");
    setLanguage("de", "de-DE", { "spam identical": "gleiche Nachrichten" });
    expect(reasonWords("spam_identical")).toBe(codeWords("spam_identical"));
    expect(reasonWords("spam_identical")).toBe("gleiche Nachrichten");
    // What a person wrote stays as it is.
    expect(reasonWords("Ask Bob first")).toBe("Ask Bob first");
    setLanguage("en", "en-GB", {});
  });
});
