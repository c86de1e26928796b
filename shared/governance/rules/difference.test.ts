import { describe, expect, it } from "vitest";
import { compareRules, mergeDefinitions, orderRules, parseRule, placeRule } from "./index.ts";

const rule = (changes: Record<string, unknown> = {}) => {
  const parsed = parseRule({
    rule_name: "token_hogging",
    conditions: {
      all: [
        { fact: "messages_today", op: ">", value: 100 },
        { fact: "plan", op: "!=", value: "business" },
      ],
    },
    action: { block: { reason: "token_hogging" } },
    ...changes,
  });
  if (!parsed.ok) throw new Error(JSON.stringify(parsed.error));
  return parsed.value;
};

describe("a difference of two versions", () => {
  it("names what changed and nothing else, in words", () => {
    const after = rule({
      mode: "shadow",
      conditions: {
        all: [
          { value: 150, op: ">", fact: "messages_today" },
          { fact: "plan", op: "!=", value: "business" },
        ],
      },
    });
    expect(compareRules(rule(), after)).toEqual([
      { part: "mode", removed: ["enforce"], added: ["shadow"] },
      { part: "when", removed: ["more than 100 messages a day"], added: ["more than 150 messages a day"] },
    ]);
    expect(compareRules(rule(), rule())).toEqual([]);
  });

  it("shows what users read", () => {
    const after = rule({ action: { block: { reason: "token_hogging", message: "Enough" } } });
    expect(compareRules(rule(), after)).toEqual([
      { part: "then", removed: ["block (token_hogging)"], added: ["block (token_hogging, “Enough”)"] },
    ]);
  });

  it("is never silent where the conditions differ", () => {
    const after = rule({
      conditions: { all: [{ fact: "plan", op: "!=", value: "business" }, rule().conditions] },
    });
    expect(compareRules(rule(), after)).not.toEqual([]);
    const nested = rule({ conditions: { any: [rule().conditions] } });
    expect(compareRules(rule(), nested).map((each) => each.part)).toEqual(["when"]);
  });
});

it("lays one person's change over another's: what only the other changed stays", () => {
  const base = { conditions: { all: [] }, mode: "enforce", priority: 10, action: { warn: { message: "a" } } };
  const mine = { ...base, conditions: { all: [{ fact: "complexity", op: ">", value: 1 }] } };
  const theirs = { ...base, mode: "off", action: { warn: { message: "b" } } };
  expect(mergeDefinitions(mine, base, theirs)).toEqual({
    ...base,
    conditions: mine.conditions,
    mode: "off",
    action: { warn: { message: "b" } },
  });
});

describe("a place in the order", () => {
  const list = [
    { rule_name: "a", priority: 10 },
    { rule_name: "b", priority: 20 },
    { rule_name: "c", priority: 21 },
    { rule_name: "d", priority: 90 },
  ];
  const after = (name: string, previous: string | null): string => {
    const moved = new Map(placeRule(list, name, previous).map((each) => [each.rule_name, each.priority]));
    return orderRules(list.map((each) => ({ ...each, priority: moved.get(each.rule_name) ?? each.priority })))
      .map((each) => each.rule_name)
      .join("");
  };
  it.each([
    ["d", null, "dabc"],
    ["d", "a", "adbc"],
    ["d", "b", "abdc"],
    ["a", "b", "bacd"],
    ["a", "d", "bcda"],
    ["b", "c", "acbd"],
  ])("%s after %s gives %s", (name, previous, wanted) => expect(after(name, previous)).toBe(wanted));
  it("touches no other rule where there is room", () => {
    expect(placeRule(list, "d", "a")).toEqual([{ rule_name: "d", priority: 15 }]);
  });
});
