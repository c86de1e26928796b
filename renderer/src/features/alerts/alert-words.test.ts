import { describe, expect, it } from "vitest";
import type { Alert, CostAlert, Notification } from "../../../../shared/contract/alerts.ts";
import { alertThreshold } from "../../../../shared/governance/alerts/words.ts";
import { alertSentence, alertTitle } from "../../lib/alert-sentences.ts";
import { deliverySign, listSign, notificationTarget, thresholdWords, watchedWords } from "./alert-words.ts";

const alert = (change: Partial<Alert>): Alert => ({
  alert_event_id: 1,
  alert_name: null,
  kind: "low_balance",
  severity: "warning",
  message: "as the database says it",
  user_id: "ann",
  display_name: "Ann",
  threshold: null,
  value: null,
  period: "",
  details: {},
  decision_id: null,
  created_at: "2026-11-25T12:00:00Z",
  acknowledged_at: null,
  acknowledged_by: null,
  considered_at: "2026-11-25T12:01:00Z",
  notifications: [],
  ...change,
});

describe("an alert reads", () => {
  it.each<[string, string, string, Partial<Alert>]>([
    [
      "Daily limit at 80 %",
      "82 % of the day's tokens are used.",
      "80 %",
      { kind: "daily_limit_80", threshold: 80, value: 82 },
    ],
    [
      "Allowance at 95 %",
      "104 % of the month's tokens are used.",
      "95 %",
      { kind: "allowance_95", threshold: 95, value: 104 },
    ],
    [
      "Balance is low",
      "420 tokens are left, less than 1,000.",
      "1,000",
      { kind: "low_balance", threshold: 1_000, value: 420 },
    ],
    [
      "High usage",
      "One call used 61,000 tokens, more than 50,000.",
      "50,000",
      { kind: "high_usage", threshold: 50_000, value: 61_000 },
    ],
    [
      "Used beyond the balance",
      "1,234 tokens were used beyond the balance; the next grant pays them first.",
      "0",
      { kind: "negative_balance", threshold: 0, value: -1_234 },
    ],
    [
      "Sudden use",
      "335,392 tokens in an hour; 2,000 is usual.",
      "5 times",
      { kind: "usage_spike", threshold: 5, value: 335_392, details: { usual_tokens: 2_000 } },
    ],
    [
      "Monthly budget",
      "$455.10 of $500.00 used (November 2026): 91 %.",
      "90 %",
      {
        kind: "budget",
        alert_name: "monthly_budget",
        threshold: 90,
        value: 91,
        period: "2026-11",
        user_id: null,
        details: { metric: "cost_micros", amount: 455_100_000, budget: 500_000_000, currency: "usd" },
      },
    ],
    [
      "Dear user",
      "$12.50 used so far (25 November 2026).",
      "$10.00",
      {
        kind: "user_budget",
        alert_name: "dear_user",
        threshold: 10_000_000,
        value: 12_500_000,
        period: "2026-11-25",
        details: { metric: "cost_micros" },
      },
    ],
    [
      "Many tokens",
      "60,000 used so far (the week from 4 January 2027).",
      "50,000",
      {
        kind: "user_budget",
        alert_name: "many_tokens",
        threshold: 50_000,
        value: 60_000,
        period: "2027-W01",
        details: { metric: "tokens" },
      },
    ],
    [
      "Year",
      "60,000 used so far (2027).",
      "50,000",
      {
        kind: "budget",
        alert_name: "year",
        threshold: 50_000,
        value: 60_000,
        period: "2027",
        details: { metric: "tokens", amount: 60_000, budget: null },
      },
    ],
    ["Upkeep of one user failed", "as the database says it", "—", { kind: "maintenance_failed" }],
    ["Something new", "as the database says it", "—", { kind: "something_new" }],
  ])("%s: %s", (title, sentence, threshold, change) => {
    const one = alert(change);
    const plain = (text: string): string => text.replaceAll("US$", "$");
    expect([alertTitle(one), plain(alertSentence(one, "usd")), plain(alertThreshold(one, "usd"))]).toEqual([
      title,
      sentence,
      threshold,
    ]);
  });
});

it("a list has what needs an operator by its severity, and users' own limits as such", () => {
  expect(
    [{ needs_operator: true }, { needs_operator: false }, {}].map(
      (more) => listSign({ severity: "critical", ...more }).word,
    ),
  ).toEqual(["critical", "users' own", "critical"]);
});

const message = (change: Partial<Notification>): Notification => ({
  notification_id: 1,
  channel: "email",
  audience: "user",
  recipient: "ann@example.com",
  status: "sent",
  attempts: 1,
  created_at: "2026-11-25T12:00:00Z",
  due_at: "2026-11-25T12:00:00Z",
  sent_at: null,
  last_error: null,
  ...change,
});

describe("the messages of an alert", () => {
  it.each<[string, Partial<Notification>[]]>([
    ["nobody to notify", []],
    ["sent", [{}, {}]],
    ["queued", [{}, { status: "queued" }]],
    ["trying again", [{ status: "queued" }, { status: "queued", last_error: "450" }]],
    ["not delivered", [{}, { status: "queued", last_error: "450" }, { status: "failed" }]],
  ])("are together: %s", (word, changes) => {
    expect(deliverySign(alert({ notifications: changes.map(message) })).word).toBe(word);
  });

  it("are not there yet while upkeep has not seen the alert", () => {
    expect(deliverySign(alert({ considered_at: null })).word).toBe("not yet");
  });

  it("say where they go", () => {
    expect(notificationTarget(message({}))).toBe("ann@example.com");
    expect(notificationTarget(message({ channel: "slack", audience: "operators", recipient: null }))).toBe(
      "Slack channel",
    );
    expect(notificationTarget(message({ audience: "operators", recipient: null }))).toBe(
      "operators (no address is set)",
    );
  });
});

describe("an alert that is set", () => {
  const set = (change: Partial<CostAlert>): CostAlert => ({
    alert_name: "x",
    metric: "cost_micros",
    scope_kind: "all",
    scope_id: null,
    period: "month",
    budget: 500_000_000,
    thresholds: [50, 75, 90],
    channels: [],
    is_active: true,
    last_triggered_at: null,
    value: null,
    percent: null,
    currency: "gbp",
    ...change,
  });

  it.each<[string, string, Partial<CostAlert>]>([
    ["cost of all, a month", "50, 75, 90 % of £500.00", {}],
    [
      "tokens of plan gold_plus, a day",
      "1,000, 20,000",
      {
        metric: "tokens",
        scope_kind: "plan",
        scope_id: "gold_plus",
        period: "day",
        budget: null,
        thresholds: [1_000, 20_000],
      },
    ],
    [
      "sudden use of each user, an hour",
      "5 times the usual",
      { metric: "spike", scope_kind: "user", period: "hour", budget: null, thresholds: [5] },
    ],
    [
      "cost of each user, a day",
      "£0.50",
      { scope_kind: "user", period: "day", budget: null, thresholds: [500_000] },
    ],
  ])("watches %s, and says so at %s", (watches, at, change) => {
    expect([watchedWords(set(change)), thresholdWords(set(change))]).toEqual([watches, at]);
  });
});
