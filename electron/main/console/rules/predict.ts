/** What a change that waits to be sent will do: the rules with it and without, over the calls that the last sync kept. */
import { z } from "zod";
import {
  type Failure,
  rule as ruleRecord,
  type RulePrediction,
  type UsageEvent,
} from "../../../../shared/contract/index.ts";
import {
  type BacktestReport,
  compileRules,
  isReplayEvent,
  parseRules,
  type ReplayEvent,
  type Rule,
  startBacktest,
} from "../../../../shared/governance/index.ts";
import { fail, ok, type Result } from "../../../../shared/governance/result.ts";
import { notConnected } from "../connection/link.ts";
import { type DeskContext, withWaiting } from "../desk-context.ts";

/** Reads nothing but this machine, so it answers without a connection; at most 5,000 events, so it takes no thread. */
export function predictWaiting(desk: DeskContext, ruleName: string): Result<RulePrediction, Failure> {
  const { store, connection } = desk;
  const profileId = connection.profileId();
  if (profileId === null) return fail(notConnected);
  const kept = z.array(ruleRecord).safeParse(store.getSnapshot(profileId, "rules")?.value);
  if (!kept.success) return fail(notKept);
  const done = withWaiting(desk, "rule");
  const wanted = kept.data
    .map((each) => done(each.rule_name, each))
    .filter((each) => each.is_retired !== true);
  const [before, after] = [parseRules(kept.data), parseRules(wanted)];
  if (!before.ok || !after.ok) return fail(unreadable);
  const past = store.listFeedTail(profileId).filter<ReplayEvent & UsageEvent>(isReplayed);
  return ok(compare(ruleName, replay(before.value, past), replay(after.value, past)));
}

const isReplayed = (event: UsageEvent): event is ReplayEvent & UsageEvent => isReplayEvent(event);

function replay(rules: readonly Rule[], past: readonly ReplayEvent[]): BacktestReport {
  const backtest = startBacktest({ draft: compileRules(rules), examples: 0 });
  for (const event of past) backtest.push(event);
  return backtest.report();
}

function compare(ruleName: string, before: BacktestReport, after: BacktestReport): RulePrediction {
  const impacts = [before, after].flatMap(({ rules }) => rules.filter((each) => each.rule_name === ruleName));
  return {
    calls: after.judged,
    since: after.from,
    matched: Math.max(0, ...impacts.map((each) => each.matched)),
    users: Math.max(0, ...impacts.map((each) => each.users)),
    more_stopped: after.would_be.block - before.would_be.block,
    more_warned: after.would_be.warn - before.would_be.warn,
    more_rerouted: after.rerouted - before.rerouted,
  };
}

const notKept: Failure = {
  code: "not_found",
  message: "The rules were not read before, so the effect of this change is not known.",
  advice: null,
  details: null,
};
const unreadable: Failure = {
  code: "unreadable_rules",
  message: "This console cannot read the rules in force; the project may be newer.",
  advice: "Update the console.",
  details: null,
};
