import { expect, it } from "vitest";
import { auditDetails, auditReason } from "./audit-words.ts";

it("an entry of the audit reads in words: a rule's reason, codes, decisions", () => {
  const byRule = {
    operator: null,
    reason: "spam_identical",
    details: {
      until: "2026-11-29",
      decision_id: 7,
      act_id: 3,
      note: "",
      topic: "low_balance",
      effects: { a: 1 },
    },
  };
  expect(auditReason(byRule)).toBe("Spam identical");
  expect(auditDetails(byRule)).toBe("until 2026-11-29, decision 7, topic low balance, effects");
  expect(auditReason({ ...byRule, operator: "anna", reason: "He asked me" })).toBe("He asked me");
});
