import { expect, it } from "vitest";
import { readDraft } from "./draft.ts";

const leaf = { fact: "messages_today", op: ">", value: 5 };
const block = { block: { reason: "too_many" } };
const draft = (conditions: unknown, action: unknown = block) => ({
  rule_name: "",
  rule_type: "custom",
  conditions,
  action,
  priority: 80,
  mode: "shadow",
  applies_to: {},
});

it.each([
  ["nothing yet", { all: [{ ...leaf, value: "" }] }, {}, "…"],
  ["no action yet", { all: [leaf] }, {}, "… when more than 5 messages a day"],
  ["no value yet", { all: [{ ...leaf, value: "" }] }, block, "Block …"],
  [
    "a fact that nobody knows",
    { all: [leaf, { fact: "phase_of_the_moon", op: "=", value: 1 }] },
    block,
    "Block when more than 5 messages a day …",
  ],
])("says of a draft with %s what is there already", (_name, conditions, action, sentence) => {
  expect(readDraft(draft(conditions, action), {}).sentence).toBe(sentence);
});

it("says whom a draft is for before it is whole", () => {
  const conditions = { all: [leaf, { ...leaf, value: "" }, { fact: "plan", op: "!=", value: "business" }] };
  const names = { plans: { pro: "Pro", business: "Business" } };
  expect(readDraft({ ...draft(conditions), applies_to: { plans: ["pro"] } }, names).sentence).toBe(
    "Block when more than 5 messages a day …, for Pro, except Business",
  );
  expect(readDraft({ ...draft({ all: [leaf] }), applies_to: { plans: [""] } }, names).sentence).toBe("…");
});

it("says each problem with its place, and that a value is missing", () => {
  const { problems, rule } = readDraft(draft({ all: [leaf, { ...leaf, value: "" }] }), {});
  expect(rule).toBeNull();
  expect(problems).toMatchObject([
    { path: "rule_name" },
    { path: "conditions.all[1].value", message: "A value is missing.", fix: "Write one." },
  ]);
});

it("reads a whole rule as enforcement does, with its mode", () => {
  const { problems, rule, sentence } = readDraft({ ...draft({ all: [leaf] }), rule_name: "too_many" }, {});
  expect(problems).toEqual([]);
  expect(rule).toMatchObject({ rule_name: "too_many", mode: "shadow" });
  expect(sentence).toBe("Block when more than 5 messages a day (shadow: recorded only)");
});

it("refuses a draft of a thousand conditions in words", () => {
  const many = draft({ any: Array.from({ length: 1_000 }, () => leaf) });
  expect(readDraft(many, {}).problems.length).toBeGreaterThan(0);
});
