import { expect, it } from "vitest";
import { standardMessage, userLanguages, userText, type UserTextFacts } from "./user-words.ts";

const facts: UserTextFacts = {
  decision_id: 4711,
  reason: "insufficient_tokens",
  message: "No tokens left, dear friend.",
  clears_at: "2026-11-29T00:00:00Z",
  timezone: "Europe/Berlin",
  shortfall: { need: 12_400, have: 300, missing: 12_100 },
};
const moment = (at: string, locale: string): string => `${at} ${locale}`;

it("the text for a user says in each language what happened, what to do next and what to answer with", () => {
  expect(userText(facts, "en", false, moment)).toBe(
    [
      "No tokens left, dear friend.",
      "It needed 12,400 tokens; you had 300.",
      "It will work again from 2026-11-29T00:00:00Z en-GB.",
      "If this looks wrong, answer with this number: 4711.",
    ].join("\n"),
  );
  expect(userText(facts, "de", true, moment)).toBe(
    [
      "Dafür reichen Ihre Tokens nicht mehr.",
      "Nötig waren 12.400 Tokens, vorhanden waren 300.",
      "Das ist behoben: Bitte versuchen Sie es noch einmal.",
      "Falls das nicht stimmen kann, antworten Sie bitte mit dieser Nummer: 4711.",
    ].join("\n"),
  );
});

it("every reason has words of its own in every language; an unknown one has those of any refusal", () => {
  const reasons = [
    "insufficient_tokens",
    "daily_limit",
    "monthly_limit",
    "budget_exhausted",
    "user_blocked",
    "spam_identical",
    "bot_behavior",
    "token_hogging",
    "rate_limited",
    "off_topic",
  ];
  for (const language of userLanguages) {
    const said = reasons.map((reason) => standardMessage(reason, language));
    expect(new Set(said).size).toBe(reasons.length);
    expect(said).not.toContain(standardMessage("", language));
    expect(standardMessage("constructor", language)).toBe(standardMessage("nothing_known", language));
  }
});
