import { describe, expect, it } from "vitest";
import {
  compileRules,
  parseRule,
  readThreshold,
  type ReplayEvent,
  thresholdsOf,
  withThreshold,
} from "../index.ts";

const plan = { monthly_allowance: null, daily_limit: null, monthly_limit: null };
const rule = (conditions: unknown) => {
  const parsed = parseRule({ rule_name: "r", conditions, action: { block: { reason: "r" } } });
  if (!parsed.ok) throw new Error(JSON.stringify(parsed.error));
  return parsed.value;
};
/** Calls with random figures, half of them settled. */
function events(count: number, seed: number): ReplayEvent[] {
  let state = seed;
  const draw = (below: number): number => {
    state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
    return state % below;
  };
  return Array.from({ length: count }, (_, at) => {
    const isBlocked = draw(5) === 0;
    const call: ReplayEvent = {
      kind: isBlocked ? "blocked" : "authorized",
      at: new Date(1_790_000_000_000 + at * 1000).toISOString(),
      request_id: `q${at}`,
      user_id: `u${draw(20)}`,
      plan_id: draw(2) === 0 ? "pro" : "free",
      decision: isBlocked ? "block" : "allow",
      reason: null,
      requested_model: "m",
      model: "m",
      tokens: 10,
      facts: { messages_today: draw(40), message_words: draw(8) === 0 ? null : draw(600), plan: "pro" },
      plan,
    };
    const settled: ReplayEvent = { ...call, kind: "settled", tokens: draw(900), cost_micros: draw(50) };
    return isBlocked || draw(2) === 0 ? [call] : [call, settled];
  }).flat();
}

describe("a threshold curve", () => {
  it.each([
    { all: [{ fact: "messages_today", op: ">", value: 20 }] },
    {
      all: [
        { fact: "messages_today", op: ">=", value: 20 },
        { fact: "message_words", op: "<", value: 300 },
      ],
    },
    {
      any: [
        { fact: "message_words", op: "<=", value: 100 },
        { fact: "messages_today", op: ">", value: 30 },
      ],
    },
    {
      all: [
        { not: { fact: "messages_today", op: ">", value: 5 } },
        { fact: "message_words", op: "<", value: 90 },
      ],
    },
  ])("says at every value what the rule with that value matches: %j", (conditions) => {
    const draft = rule(conditions);
    const past = events(400, 7);
    for (const threshold of thresholdsOf(draft)) {
      const reader = readThreshold(draft, threshold, new Set(["pro"]));
      for (const event of past) reader.push(event);
      const { points } = reader.curve();
      expect(points.map((point) => point.value)).toContain(threshold.value);
      for (const point of points) {
        const compiled = compileRules([withThreshold(draft, threshold, point.value)]);
        const matched = past.filter(
          (event) =>
            event.kind !== "settled" &&
            event.facts &&
            compiled.evaluate(event.facts, { plan }).matched.length > 0,
        );
        const fresh = matched.filter((event) => event.kind === "authorized");
        const ids = new Set(fresh.map((event) => event.request_id));
        const settled = past.filter((event) => event.kind === "settled" && ids.has(event.request_id));
        expect(point).toEqual({
          value: point.value,
          calls: matched.length,
          newly: fresh.length,
          users: new Set(fresh.map((event) => event.user_id)).size,
          paying_users: new Set(fresh.filter((e) => e.plan_id === "pro").map((e) => e.user_id)).size,
          tokens: settled.reduce((all, event) => all + event.tokens, 0),
          cost_micros: settled.reduce((all, event) => all + (event.cost_micros ?? 0), 0),
        });
      }
    }
  });

  it("offers no number that is under a not", () => {
    const draft = rule({ all: [{ not: { fact: "messages_today", op: ">", value: 5 } }] });
    expect(thresholdsOf(draft)).toEqual([]);
  });
});
