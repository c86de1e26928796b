import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  type Action,
  type Condition,
  compileRules,
  type Facts,
  localDay,
  makeCounts,
  minorUnits,
  type Plan,
  parsePrices,
  type ReplayEvent,
  type Rule,
  type Scenario,
  simulatePlans,
  startBacktest,
} from "../index.ts";
import { AccountModel, type Policy } from "../../../tests/support/models/account-model.ts";

/** Replays events and answers the report. */
async function runBacktest(
  events: Iterable<ReplayEvent> | AsyncIterable<ReplayEvent>,
  options: Parameters<typeof startBacktest>[0],
) {
  const backtest = startBacktest(options);
  for await (const event of events) backtest.push(event);
  return backtest.report();
}

const rule = (
  rule_name: string,
  conditions: Condition,
  action: Action,
  mode: Rule["mode"] = "enforce",
): Rule => ({
  rule_name,
  rule_type: "custom",
  conditions,
  action,
  priority: 100,
  mode,
  is_active: true,
  applies_to: {},
  version: 1,
});

const at = (minute: number, day = 1): string => new Date(Date.UTC(2026, 5, day, 12, minute)).toISOString();

/** One call as the feed tells it: its decision, and its settlement where it was let through. */
function call(
  id: string,
  minute: number,
  tokens: number,
  facts: Facts,
  changes: Partial<ReplayEvent> = {},
): ReplayEvent[] {
  const base = {
    request_id: id,
    user_id: "ann",
    plan_id: "gold",
    requested_model: "gpt-4o",
    model: "gpt-4o",
    reason: null,
    decision: "allow" as const,
    at: at(minute),
    local_day: "2026-06-01",
    currency: "usd",
  };
  const full: Facts = {
    available_tokens: 1_000_000,
    tokens_today: 0,
    tokens_this_month: 0,
    estimated_tokens: 100,
    ...facts,
  };
  if (changes.kind === "blocked")
    return [
      {
        ...base,
        kind: "blocked",
        decision: "block",
        tokens: 100,
        facts: full,
        plan: { monthly_allowance: 0, daily_limit: null, monthly_limit: null },
        ...changes,
      },
    ];
  return [
    {
      ...base,
      kind: "authorized",
      tokens: 100,
      facts: full,
      plan: { monthly_allowance: 0, daily_limit: null, monthly_limit: null },
      ...changes,
    },
    {
      ...base,
      kind: "settled",
      tokens,
      input_tokens: tokens,
      output_tokens: 0,
      cost_micros: tokens * 2,
      at: at(minute + 1),
      ...changes,
      facts: null,
    },
  ] as ReplayEvent[];
}

const draftOf = (...rules: Rule[]) => compileRules(rules);

describe("a backtest", () => {
  it("shows who would be stopped, and what that would have saved", async () => {
    const report = await runBacktest(
      [
        ...call("1", 0, 500, { messages_today: 1 }, { matched: ["old_rule"] }),
        ...call("2", 2, 700, { messages_today: 5 }, { matched: ["old_rule"] }),
        ...call("3", 4, 900, { messages_today: 6 }, { user_id: "bob", plan_id: "free" }),
        ...call("4", 6, 0, {}, { kind: "blocked", reason: "user_blocked" }),
      ],
      {
        draft: draftOf(
          rule("hog", { fact: "messages_today", op: ">=", value: 5 }, { block: { reason: "token_hogging" } }),
        ),
        paying_plans: new Set(["gold"]),
      },
    );
    expect(report).toMatchObject({
      calls: 4,
      judged: 3,
      stopped_by_operator: 1,
      was: { allow: 3, warn: 0, block: 0 },
      would_be: { allow: 1, warn: 0, block: 2 },
      newly_stopped: 2,
      tokens_saved: 1_600,
      cost_saved_micros: 3_200,
      currency: "usd",
      users: 2,
      users_newly_stopped: 2,
      paying_users_newly_stopped: 1,
      changed_total: 2,
      rules: [
        {
          rule_name: "hog",
          matched: 2,
          stopped: 2,
          newly_stopped: 2,
          users: 2,
          tokens_saved: 1_600,
          overlap: { old_rule: 1 },
        },
      ],
      days: [{ day: "2026-06-01", calls: 3, stopped: 2, newly_stopped: 2, tokens_saved: 1_600 }],
    });
    expect(report.changed[0]).toMatchObject({
      request_id: "2",
      would_be: { decision: "block", rule_name: "hog" },
    });
  });

  it("has examples from all of the time, and all of them where they are few", async () => {
    const draft = draftOf(
      rule("hog", { fact: "messages_today", op: ">=", value: 5 }, { block: { reason: "token_hogging" } }),
    );
    const events = Array.from({ length: 1000 }, (_, n) =>
      call(String(n), n, 10, { messages_today: 6 }),
    ).flat();
    const examplesOf = async (few: number, examples: number): Promise<number[]> =>
      (await runBacktest(events.slice(0, 2 * few), { draft, examples })).changed.map((each) =>
        Number(each.request_id),
      );
    expect(await examplesOf(20, 20)).toEqual(Array.from({ length: 20 }, (_, n) => n));
    const spread = await examplesOf(1000, 20);
    expect(spread).toEqual(spread.map((_, n) => n * 64));
    expect(spread.length).toBe(16);
    expect(await examplesOf(1000, 0)).toEqual([]);
  });

  it("counts what the draft saved before: who was stopped in the morning has tokens in the evening", async () => {
    const limit = rule(
      "limit",
      { fact: "tokens_today", op: ">", value: 1_000 },
      { block: { reason: "daily_limit" } },
    );
    const long = rule(
      "long",
      { fact: "message_words", op: ">", value: 100 },
      { block: { reason: "too_long" } },
    );
    const events = [
      ...call("1", 0, 900, { tokens_today: 0, message_words: 500 }),
      ...call("2", 2, 200, { tokens_today: 900, message_words: 5 }),
      // In fact 1,100 were used by now, and this call was stopped; under the draft 200 were.
      ...call(
        "3",
        4,
        0,
        { tokens_today: 1_100, message_words: 5 },
        { kind: "blocked", reason: "daily_limit", rule_name: "limit" },
      ),
    ];
    const report = await runBacktest(events, { draft: draftOf(limit, long) });
    expect(report).toMatchObject({
      newly_stopped: 1,
      newly_allowed: 1,
      tokens_saved: 900,
      tokens_newly_expected: 100,
    });
    expect(await runBacktest(events, { draft: draftOf(limit) })).toMatchObject({
      newly_stopped: 0,
      newly_allowed: 0,
      tokens_saved: 0,
    });
  });

  it("forgets yesterday's savings at the account's own midnight", async () => {
    const limit = rule(
      "limit",
      { fact: "tokens_today", op: ">=", value: 500 },
      { block: { reason: "daily_limit" } },
    );
    const long = rule(
      "long",
      { fact: "message_words", op: ">", value: 100 },
      { block: { reason: "too_long" } },
    );
    const report = await runBacktest(
      [
        ...call("1", 0, 900, { message_words: 500 }),
        ...call("2", 2, 10, { tokens_today: 600 }, { local_day: "2026-06-02", at: at(0, 2) }),
      ],
      { draft: draftOf(limit, long) },
    );
    expect(report.newly_stopped).toBe(2);
  });

  it("prices reroutes, counts warnings by rules alone, and changes nothing for shadow rules", async () => {
    const prices = parsePrices([
      {
        provider: "openai",
        model: "gpt-4o",
        input_micros_per_million: 2_000_000,
        output_micros_per_million: 0,
        currency: "usd",
        effective_from: "2024-01-01",
      },
      {
        provider: "openai",
        model: "mini",
        input_micros_per_million: 500_000,
        output_micros_per_million: 0,
        currency: "usd",
        effective_from: "2024-01-01",
      },
    ]);
    if (!prices.ok) throw new Error("prices");
    const report = await runBacktest(
      call(
        "1",
        0,
        1_000,
        { message_words: 900 },
        { decision: "warn", warnings: ["80% of the daily limit is used."] },
      ),
      {
        draft: draftOf(
          rule("cheap", { all: [] }, { route: { model: "mini" }, truncate: { words: 500 } }),
          rule("shadow", { all: [] }, { block: { reason: "never" } }, "shadow"),
        ),
        prices: prices.value,
      },
    );
    expect(report).toMatchObject({
      was: { allow: 1, warn: 0 },
      rerouted: 1,
      truncated: 1,
      newly_stopped: 0,
      tokens_saved: 0,
      cost_saved_micros: 1_500,
    });
    expect(report.rules[0]).toMatchObject({ rule_name: "cheap", cost_saved_micros: 1_500 });
    expect(report.rules[1]).toMatchObject({ rule_name: "shadow", mode: "shadow", matched: 1, stopped: 0 });

    // Most of the input came from a cache: a quarter of the price is a quarter of what was paid.
    const cached = call("2", 0, 1_000, {}).map((event) =>
      event.kind === "settled" ? { ...event, cost_micros: 400 } : event,
    );
    const cheap = { draft: draftOf(rule("cheap", { all: [] }, { route: { model: "mini" } })) };
    expect((await runBacktest(cached, { ...cheap, prices: prices.value })).cost_saved_micros).toBe(300);

    // Prices in another currency than the cost's say how much less, not how much.
    const pounds = parsePrices(
      [...prices.value.byModel.values()].flat().map((price) => ({ ...price, currency: "gbp" })),
    );
    if (!pounds.ok) throw new Error("prices");
    expect((await runBacktest(cached, { ...cheap, prices: pounds.value })).cost_saved_micros).toBe(300);

    // A model without a price: its saving is not known, and said to be.
    const dear = { draft: draftOf(rule("dear", { all: [] }, { route: { model: "unheard-of" } })) };
    expect(await runBacktest(cached, { ...dear, prices: prices.value })).toMatchObject({
      rerouted: 1,
      rerouted_without_cost: 1,
      cost_saved_micros: 0,
    });
  });

  it("counts as malformed what has no time, or tokens or a cost that are not whole", async () => {
    const [good] = call("1", 0, 10, {});
    const bad = [
      { ...good, at: "some day" },
      { ...good, tokens: 1.5 },
      { ...good, tokens: -1 },
      { ...good, cost_micros: 0.5 },
      { ...good, cost_micros: "5" },
    ] as ReplayEvent[];
    const report = await runBacktest(bad, { draft: draftOf() });
    expect(report).toMatchObject({ malformed: 5, calls: 0 });
    const plans = simulatePlans({});
    for (const event of bad) plans.push(event);
    expect(plans.report().plans).toEqual([]);
  });

  it("takes names of plans and models for names, also those that every object has", () => {
    const plans = simulatePlans({ plans: {}, revenue_now: {}, revenue: {}, routes: {} });
    const odd = { plan_id: "constructor", model: "toString", requested_model: "toString" };
    for (const event of call("1", 0, 10, {}, odd)) plans.push({ ...event, ...odd });
    expect(plans.report().plans).toMatchObject([
      { plan_id: "constructor", now: { revenue_micros: null }, would_be: { tokens_used: 10 } },
    ]);
  });

  it("stops the calls after one that a rule blocked for minutes", async () => {
    const spam = rule(
      "spam",
      { fact: "identical_messages", op: ">=", value: 3 },
      { block: { reason: "spam_identical", minutes: 30 } },
    );
    const report = await runBacktest(
      [...call("1", 0, 10, { identical_messages: 3 }), ...call("2", 10, 10, {}), ...call("3", 40, 10, {})],
      { draft: draftOf(spam) },
    );
    expect(report.newly_stopped).toBe(2);
  });

  it("says which facts of the draft were never recorded, so that no hits are not taken for none", () => {
    const draft = draftOf(
      rule("spam", { fact: "identical_messages", op: ">=", value: 3 }, { warn: { message: "w" } }),
      rule("off", { fact: "topic", op: "=", value: "x" }, { warn: { message: "w" } }),
      rule("text", { fact: "message", op: "contains", value: "x" }, { warn: { message: "w" } }),
      rule("many", { fact: "messages_today", op: ">", value: 3 }, { warn: { message: "w" } }),
    );
    const missing = (...facts: Facts[]) => {
      const backtest = startBacktest({ draft });
      for (const [index, each] of facts.entries())
        for (const event of call(String(index), index, 1, { messages_today: 1, ...each }))
          backtest.push(event);
      return backtest.report().facts_missing;
    };
    const message = { message_words: 3, topic: null };
    expect(missing({ ...message, identical_messages: null }, { ...message, identical_messages: 2 })).toEqual({
      identical_messages: 1,
      topic: 2,
      message: 2,
    });
    expect(missing({ ...message, identical_messages: 1, topic: "y" })).toEqual({ message: 1 });
    // A call without a message has none of these facts, and lacks none.
    expect(missing({ message_words: null, topic: null, identical_messages: 0 })).toEqual({});
  });

  it("says how many rows were no events or had no facts, and never throws on them", () => {
    const backtest = startBacktest({ draft: draftOf() });
    for (const row of [null, 3, {}, { kind: "settled" }, { ...call("1", 0, 1, {})[0], tokens: "1" }])
      backtest.push(row as ReplayEvent);
    backtest.push({ ...(call("1", 0, 1, {})[0] as ReplayEvent), facts: null });
    expect(backtest.report()).toMatchObject({ malformed: 5, without_facts: 1, judged: 0 });
  });
});

const goldPlan = (changes: Partial<Plan>): Plan => ({
  plan_id: "gold",
  name: "Gold",
  monthly_allowance: 0,
  daily_limit: null,
  monthly_limit: null,
  allows_top_up: true,
  warn_at: [80],
  fail_mode: "closed",
  on_cancel: "expire",
  upgrade_to: null,
  ...changes,
});

describe("a plan simulation", () => {
  const numbers = (monthly_allowance: number, daily_limit: number | null = null) => ({
    monthly_allowance,
    daily_limit,
    monthly_limit: null,
  });
  const priceList = (input: number) => {
    const book = parsePrices(
      ["gpt-4o", "mini"].map((model) => ({
        provider: "openai",
        model,
        input_micros_per_million: model === "mini" ? input / 4 : input,
        output_micros_per_million: 0,
        currency: "usd",
        effective_from: "2024-01-01",
      })),
    );
    if (!book.ok) throw new Error("prices");
    return book.value;
  };
  /** Two calls of ann's, 600 tokens each out of an allowance of 2,000; one of bob's; one that fell short. */
  const events = [
    ...call("1", 0, 600, { available_tokens: 2_000 }, { plan: numbers(2_000) }),
    ...call("2", 2, 600, { available_tokens: 1_400, tokens_this_month: 600 }, { plan: numbers(2_000) }),
    ...call("3", 4, 100, { available_tokens: 2_000 }, { user_id: "bob", plan: numbers(2_000) }),
    ...call(
      "4",
      6,
      0,
      { available_tokens: 50, tokens_this_month: 1_950, estimated_tokens: 100 },
      { user_id: "cid", kind: "blocked", reason: "insufficient_tokens", plan: numbers(2_000) },
    ),
    ...call("5", 8, 9, {}, { plan_id: null }),
  ];
  const simulate = (scenario: Scenario, given = events) => {
    const simulator = simulatePlans(scenario);
    for (const event of given) simulator.push(event);
    return simulator.report();
  };

  it("shows margin now and then, who is refused, and who runs out and when", () => {
    const paid = (monthly_price_minor: number) => ({
      gold: { monthly_price_minor: minorUnits(monthly_price_minor), currency: "usd" },
    });
    expect(
      simulate({
        plans: { gold: { monthly_allowance: 600 } },
        revenue_now: paid(10),
        revenue: paid(20),
      }),
    ).toEqual({
      plans: [
        {
          plan_id: "gold",
          accounts: 3,
          active_months: 3,
          // Three customers at 10 cents are 300,000 micro-units.
          now: { tokens_used: 1_300, cost_micros: 2_600, revenue_micros: 300_000, margin_micros: 297_400 },
          would_be: {
            tokens_used: 700,
            cost_micros: 1_400,
            revenue_micros: 600_000,
            margin_micros: 598_600,
          },
          calls_refused: 1,
          tokens_refused: 600,
          calls_gained: 0,
          tokens_gained: 0,
          accounts_running_out: 1,
        },
      ],
      runs_out: [{ user_id: "ann", plan_id: "gold", at: at(2), why: "insufficient_tokens" }],
      runs_out_total: 1,
      currency: "usd",
      calls_not_judged: 1,
      calls_without_cost: 0,
    });
  });

  it("counts what a more generous plan would cost: calls that fell short are made at the plan's mean cost", () => {
    expect(simulate({ plans: { gold: { monthly_allowance: 5_000 } } }).plans[0]).toMatchObject({
      calls_gained: 1,
      tokens_gained: 100,
      calls_refused: 0,
      would_be: { tokens_used: 1_400, cost_micros: 2_800, revenue_micros: null, margin_micros: null },
    });
  });

  it("bounds the day and the month by new limits, and says which", () => {
    expect(simulate({ plans: { gold: { daily_limit: 150 } } })).toMatchObject({ runs_out_total: 0 });
    const used = [
      ...call("1", 0, 100, { tokens_today: 0 }),
      ...call("2", 2, 100, { tokens_today: 100 }),
      ...call("3", 4, 100, { tokens_today: 200, tokens_this_month: 900 }),
    ];
    expect(simulate({ plans: { gold: { daily_limit: 150 } } }, used)).toMatchObject({
      // The second call is refused; by the third, 100 of the day's 200 were never used.
      plans: [{ calls_refused: 2 }],
      runs_out: [{ why: "daily_limit", at: at(2) }],
    });
    expect(simulate({ plans: { gold: { monthly_limit: 950 } } }, used)).toMatchObject({
      runs_out: [{ why: "monthly_limit", at: at(4) }],
    });
  });

  it("prices the same usage by other prices and on other routes, in proportion to what it cost", () => {
    const scenario = { prices_now: priceList(4_000_000) };
    const costOf = (changes: Scenario) =>
      simulate({ ...scenario, ...changes }).plans[0]?.would_be.cost_micros;
    expect(costOf({})).toBe(2_600);
    expect(costOf({ routes: { "gpt-4o": "mini" } })).toBe(650);
    expect(costOf({ prices: priceList(8_000_000) })).toBe(5_200);
    expect(costOf({ prices: priceList(8_000_000), routes: { "gpt-4o": "mini" } })).toBe(1_300);
  });

  it("does not take a price in another currency for a margin", () => {
    const revenue_now = { gold: { monthly_price_minor: minorUnits(500), currency: "gbp" } };
    expect(simulate({ revenue_now }).plans[0]?.now).toMatchObject({
      revenue_micros: 15_000_000,
      margin_micros: null,
    });
  });

  it("refuses and gains just the calls that the account itself would, over days and months, with bought tokens", () => {
    const policy: Policy = { rules: compileRules([]), settings: {}, estimates: [], prices: priceList(4) };
    const arbitraryPlan = fc.record({
      monthly_allowance: fc.integer({ min: 0, max: 3_000 }),
      daily_limit: fc.option(fc.integer({ min: 100, max: 2_000 })),
      monthly_limit: fc.option(fc.integer({ min: 500, max: 5_000 })),
    });
    const arbitraryStep = fc.record({
      hours: fc.constantFrom(1, 5, 30, 400),
      tokens: fc.integer({ min: 1, max: 900 }),
      bought: fc.option(fc.integer({ min: 1, max: 2_000 }), { freq: 6 }),
    });
    const seen = { refused: 0, gained: 0, same: 0 };
    fc.assert(
      fc.property(
        arbitraryPlan,
        arbitraryPlan,
        fc.array(arbitraryStep, { maxLength: 40 }),
        (now, then, steps) => {
          const start = Date.UTC(2026, 0, 10);
          const [fact, scenario] = [now, then].map(
            (plan) => new AccountModel(policy, goldPlan(plan), "Asia/Kolkata", start),
          ) as [AccountModel, AccountModel];
          const simulator = simulatePlans({ plans: { gold: then } });
          let atMs = start;
          const expected = { calls_refused: 0, tokens_refused: 0, calls_gained: 0, tokens_gained: 0 };
          for (const [index, { hours, tokens, bought }] of steps.entries()) {
            atMs += hours * 3_600_000;
            const id = String(index);
            const request = { request_id: id, at_ms: atMs, model: "gpt-4o", estimated_tokens: tokens };
            const used = makeCounts({ input: tokens, output: 0 });
            if (!used.ok) throw new Error("counts");
            for (const account of [fact, scenario]) {
              account.roll(atMs);
              if (bought !== null) account.grant(bought, "purchased", atMs);
            }
            const facts = fact.facts(request);
            const [was, would] = [fact, scenario].map((account) => {
              const isMade = account.authorize(request).decision !== "block";
              if (isMade) account.settle(id, used.value, atMs);
              return isMade;
            });
            const event = {
              ...(call(id, 0, tokens, facts)[0] as ReplayEvent),
              at: new Date(atMs).toISOString(),
              local_day: localDay(atMs, "Asia/Kolkata"),
              plan: now,
              tokens,
              facts,
            };
            if (was) {
              simulator.push(event);
              simulator.push({ ...event, kind: "settled", facts: null });
            } else
              simulator.push({
                ...event,
                kind: "blocked",
                reason: facts.available_tokens === 0 ? "insufficient_tokens" : "daily_limit",
              });
            if (was && !would) {
              expected.calls_refused++;
              expected.tokens_refused += tokens;
              seen.refused++;
            } else if (!was && would) {
              expected.calls_gained++;
              expected.tokens_gained += tokens;
              seen.gained++;
            } else seen.same++;
          }
          if (steps.length > 0) expect(simulator.report().plans[0]).toMatchObject(expected);
        },
      ),
      { numRuns: 500 },
    );
    for (const [kind, count] of Object.entries(seen)) expect(count, kind).toBeGreaterThan(100);
  });
});

describe("an account without a database", () => {
  const book = parsePrices([]);
  if (!book.ok) throw new Error("prices");
  const policy: Policy = { rules: compileRules([]), settings: {}, estimates: [], prices: book.value };
  const ms = (text: string): number => Date.parse(text);
  const counts = (input: number) => {
    const made = makeCounts({ input, output: 0 });
    if (!made.ok) throw new Error(made.error.message);
    return made.value;
  };

  it("renews its daily limit at its own midnight, also where the day has 23 hours", () => {
    const account = new AccountModel(
      policy,
      goldPlan({ daily_limit: 1_000 }),
      "Europe/London",
      ms("2026-03-28T12:00:00Z"),
    );
    account.grant(100_000, "purchased", account.created_ms);
    const ask = (id: string, time: string) =>
      account.authorize({ request_id: id, at_ms: ms(time), model: "m", estimated_tokens: 900 }).decision;
    expect(ask("1", "2026-03-29T00:30:00Z")).toBe("warn");
    account.settle("1", counts(900), ms("2026-03-29T00:31:00Z"));
    expect(ask("2", "2026-03-29T22:59:59Z")).toBe("block");
    // British summer time began that night: midnight is 23:00 UTC.
    expect(ask("3", "2026-03-29T23:00:00Z")).toBe("warn");
  });

  it("pays debt out of the next grant, and charges a settlement that comes after its hold expired", () => {
    const account = new AccountModel(policy, goldPlan({}), "UTC", ms("2026-06-01T00:00:00Z"));
    account.grant(100, "purchased", account.created_ms);
    account.authorize({ request_id: "1", at_ms: account.created_ms, model: "m", estimated_tokens: 100 });
    expect(account.available).toBe(0);
    account.roll(account.created_ms + 15 * 60_000);
    expect([account.available, account.reserved]).toEqual([100, 0]);
    expect(account.settle("1", counts(150), account.created_ms + 16 * 60_000)).toMatchObject({
      charged: 150,
      debt: 50,
    });
    account.grant(80, "promotional", account.created_ms + 17 * 60_000);
    expect([account.debt, account.total]).toEqual([0, 30]);
  });
});
