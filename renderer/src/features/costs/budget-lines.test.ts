import { expect, it } from "vitest";
import type { CostAlert } from "../../../../shared/contract/alerts.ts";
import { addDays } from "../../lib/format.ts";
import { budgetsOf, budgetWords, byUrgency, filterOf, lookBackFrom } from "./budget-lines.tsx";

const today = "2026-11-10";
const budget = (more: Partial<CostAlert>): CostAlert => ({
  alert_name: "spend",
  metric: "cost_micros",
  scope_kind: "all",
  scope_id: null,
  period: "month",
  budget: 2_000_000,
  value: 1_000_000,
  thresholds: [100],
  channels: [],
  is_active: true,
  last_triggered_at: null,
  percent: 50,
  currency: "usd",
  ...more,
});
/** The days that the desk asks for, each with as much, and half of it today. */
const days = (costMicros: number, chargedTokens: number, since = lookBackFrom(today)) =>
  Array.from({ length: 40 }, (_, n) => addDays(since, n))
    .filter((day) => day <= today)
    .map((day) => ({
      from: day,
      to: day,
      calls: 1,
      tokens: 7,
      cost_micros: day === today ? costMicros / 2 : costMicros,
      charged_tokens: day === today ? chargedTokens / 2 : chargedTokens,
    }));

it("a budget of money or tokens, of all, a plan, a scope or a model, has its own day, and is called an estimate", () => {
  // 1,000,000 is left, and 50,000 of today is used already: the eleventh such day, today the first.
  expect(budgetWords(budget({}), days(100_000, 0), today)).toMatchObject({
    tone: "amber",
    words: expect.stringMatching(/^Estimate: spend of US\$2\.00 runs out on .*20.*, 80 % likely between/),
  });
  expect(
    budgetWords(
      budget({ metric: "tokens", scope_kind: "scope", scope_id: "brand-a", budget: 20_000, value: 15_000 }),
      days(0, 1_000),
      today,
    ),
  ).toMatchObject({
    tone: "amber",
    words: expect.stringMatching(/^Estimate: spend \(scope brand-a\) of 20,000 tokens runs out on .*15/),
  });
});

it("a budget lasts until its own period ends: a week on Sunday, a month, a year", () => {
  // Ten days' worth is left on Tuesday the 10th.
  const words = (period: string): string | undefined =>
    budgetWords(budget({ period }), days(100_000, 0), today)?.words;
  expect(words("week")).toMatch(/lasts until its period ends on .*15/);
  expect(words("year")).toMatch(/runs out on .*20/);
  expect(budgetWords(budget({}), days(10_000, 0), today)?.words).toMatch(/period ends on .*30/);
  expect(words("day")).toBeUndefined();
});

it("says that all is used, however few days there are, and nothing else of less than a week", () => {
  const few = days(100_000, 0, addDays(today, -6));
  expect(budgetWords(budget({}), few, today)).toBeNull();
  expect(budgetWords(budget({ value: 2_000_000 }), few, today)).toEqual({
    tone: "red",
    words: "Spend: all of US$2.00 is used.",
    inDays: 0,
  });
});

it("the desk has the budgets of what it shows", () => {
  const all = [
    budget({}),
    budget({ scope_kind: "model", scope_id: "gpt:4", metric: "tokens" }),
    budget({ scope_kind: "plan", scope_id: "pro" }),
    budget({ scope_kind: "user", value: null }),
    budget({ period: "day" }),
    budget({ is_active: false }),
    budget({ budget: null }),
  ];
  expect(budgetsOf(all, {})).toEqual(all.slice(0, 3));
  expect(budgetsOf(all, { model: "gpt:4" })).toEqual([all[1]]);
  expect(budgetsOf(all, { model: "gpt:4", plan: "pro" })).toEqual([]);
  expect(budgetsOf(all, { user: "ann" })).toEqual([]);
  expect([
    filterOf({ scope_kind: "all", scope_id: null }),
    filterOf({ scope_kind: "model", scope_id: "gpt:4" }),
  ]).toEqual([{}, { model: "gpt:4" }]);
});

it("the most urgent budget is said first: one that is used up, then the one that runs out soonest", () => {
  const found = [
    budgetWords(budget({ alert_name: "lasting" }), days(10_000, 0), today),
    budgetWords(budget({ alert_name: "later" }), days(100_000, 0), today),
    budgetWords(budget({ alert_name: "used", value: 2_000_000 }), days(10_000, 0), today),
    budgetWords(budget({ alert_name: "sooner" }), days(200_000, 0), today),
  ].flatMap((each) => each ?? []);
  expect(
    found.toSorted(byUrgency).map(({ words }) => /used|lasting|later|sooner/.exec(words.toLowerCase())?.[0]),
  ).toEqual(["used", "sooner", "later", "lasting"]);
});
