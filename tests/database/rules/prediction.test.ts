/**
 * What a replay predicts is what enforcement then does: the same traffic, once under the rules in force, from whose
 * events a draft is judged, and once under the draft; every decision is compared.
 */
import { expect, it } from "vitest";
import {
  compileRules,
  parseRule,
  parseRules,
  type ReplayEvent,
  type Rule,
  startBacktest,
} from "../../../shared/governance/index.ts";
import { openProject, type Project } from "../../support/project.ts";
import { sized } from "../../support/size.ts";

interface Step {
  readonly at: string;
  readonly request_id: string;
  readonly user: string;
  readonly message: string | null;
  readonly estimate: number;
  readonly input: number;
  readonly output: number;
  readonly isReleased: boolean;
}

function traffic(calls: number, seed: number, usesEstimate: boolean): Step[] {
  let state = seed;
  const draw = (below: number): number => {
    state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
    return Math.floor((state / 2_147_483_648) * below);
  };
  let at = Date.parse("2027-05-03T08:00:00Z");
  return Array.from({ length: calls }, (_, index) => {
    at += [400, 1_500, 20_000, 90_000, 400_000][draw(5)] ?? 0;
    const estimate = 100 + draw(4_000);
    const input = draw(5_000);
    return {
      at: new Date(at).toISOString(),
      request_id: `call-${index}`,
      user: `user-${draw(6)}`,
      message:
        draw(6) === 0 ? null : (["again", "hello there", `word ${"more ".repeat(draw(60))}`][draw(3)] ?? ""),
      estimate,
      // What a stopped call would have used nobody knows: a replay takes its estimate. So where a draft lets stopped
      // calls through, the calls here use what was expected of them.
      input: usesEstimate ? estimate : input,
      output: usesEstimate ? 0 : draw(2_500),
      isReleased: !usesEstimate && draw(12) === 0,
    };
  });
}

/** Calls one after the other, each settled or given back before the next. */
async function run(project: Project, steps: readonly Step[]): Promise<Map<string, string>> {
  const decided = new Map<string, string>();
  for (const user of new Set(steps.map((step) => step.user))) {
    await project.setClock("2027-05-03T07:00:00Z", true);
    await project.call("upsert_account", user, ["starter", "pro"][Number(user.slice(-1)) % 2]);
  }
  for (const step of steps) {
    await project.setClock(step.at, true);
    const answer = await project.call(
      "authorize_usage",
      step.request_id,
      step.user,
      "gpt-4o-mini",
      step.estimate,
      step.message,
      `conversation-${step.user}`,
    );
    decided.set(step.request_id, `${String(answer["decision"])} ${String(answer["reason"])}`);
    if (answer["decision"] === "block") continue;
    if (step.isReleased) await project.call("release_usage", step.request_id);
    else await project.call("settle_usage", step.request_id, step.input, step.output);
  }
  return decided;
}

async function eventsOf(project: Project): Promise<ReplayEvent[]> {
  const all: ReplayEvent[] = [];
  let cursor: string | null = null;
  for (;;) {
    const page: { events: ReplayEvent[]; next_cursor: string } = await project.rpc("usage_events_since", {
      p_cursor: cursor,
      p_limit: 1_000,
      p_filter: { facts: true },
    });
    all.push(...page.events);
    if (page.events.length < 1_000) return all;
    cursor = page.next_cursor;
  }
}

const drafts: readonly (readonly [string, Record<string, unknown>])[] = [
  [
    "stops on a count of the day",
    {
      conditions: { all: [{ fact: "messages_today", op: ">", value: 25 }] },
      action: { block: { reason: "custom" } },
    },
  ],
  [
    "stops on tokens of the day, which it lowers itself",
    {
      conditions: {
        all: [
          { fact: "tokens_today", op: ">=", value: 30_000 },
          { fact: "plan", op: "=", value: "pro" },
        ],
      },
      action: { block: { reason: "daily_limit" } },
    },
  ],
  [
    "blocks for a while and flags",
    {
      conditions: {
        any: [
          { fact: "identical_messages", op: ">=", value: 5 },
          { fact: "message_words", op: ">", value: 50 },
        ],
      },
      action: { block: { reason: "spam_identical", minutes: 20 }, flag: { reason: "spam" } },
    },
  ],
  [
    "counts tokens twice, so that limits come sooner",
    {
      conditions: { all: [{ fact: "usage_percent", op: ">=", value: 10 }] },
      action: { multiply_cost: { by: 2 } },
    },
  ],
];

it.each(drafts)(
  "a draft that %s decides as its replay said, call by call",
  async (_name, part) => {
    const steps = traffic(sized(350, 2_000), 20270503, /"flag"|"multiply_cost"/.test(JSON.stringify(part)));
    const before = await openProject(18);
    const draft = parseRule({ rule_name: "draft", priority: 5, ...part });
    if (!draft.ok) throw new Error(JSON.stringify(draft.error));
    // Facts that cost are kept only where a rule reads them: the draft stood in shadow, as it should before it acts.
    await before.rpc("save_rule", { p_command_id: "shadow", p_rule: { ...draft.value, mode: "shadow" } });
    const was = await run(before, steps);
    const events = await eventsOf(before);
    const rules = parseRules(await before.rpc("list_rules"));
    if (!rules.ok) throw new Error(JSON.stringify(rules.error));
    const inForce: Rule[] = rules.value.map((rule) =>
      rule.rule_name === "draft" ? { ...rule, mode: "enforce" } : rule,
    );
    const backtest = startBacktest({ draft: compileRules(inForce), examples: 1_000_000 });
    for (const event of events) backtest.push(event);
    const report = backtest.report();
    await before.close();

    const after = await openProject(18);
    await after.rpc("save_rule", { p_command_id: "enforce", p_rule: draft.value });
    const is = await run(after, steps);
    await after.close();

    const stops = (decision: string | undefined): boolean => decision?.startsWith("block") === true;
    // Warnings of a plan are no matter of rules: whether a call is made, and else why not.
    const predicted = new Map(
      report.changed
        .filter((each) => (each.was.decision === "block") !== (each.would_be.decision === "block"))
        .map((each) => [
          each.request_id,
          each.would_be.decision === "block" ? `block ${String(each.would_be.reason)}` : "made",
        ]),
    );
    const really = new Map(
      [...is]
        .filter(([id, decision]) => stops(decision) !== stops(was.get(id)))
        .map(([id, decision]) => [id, stops(decision) ? decision : "made"]),
    );
    expect(report.without_facts).toBe(0);
    expect(really.size).toBeGreaterThan(3);
    expect(predicted).toEqual(really);
  },
  240_000,
);
