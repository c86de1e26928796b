/** Rules: what is set, and which mode each is in. */
import { z } from "zod";
import type { BacktestReport } from "../governance/simulation/index.ts";
import { actOperations } from "./acts.ts";
import { commandId, failure, instant, nothing, operation, reason, ruleMode, whole } from "./basics.ts";
import { intent } from "./sync.ts";

export const rule = z.looseObject({
  rule_name: z.string(),
  rule_type: z.string(),
  /** Checked by shared/governance's rule parser, not here. */
  conditions: z.unknown(),
  action: z.unknown(),
  priority: whole,
  mode: ruleMode,
  is_active: z.boolean(),
  applies_to: z.looseObject({ plans: z.array(z.string()).nullish(), scopes: z.array(z.string()).nullish() }),
  version: whole,
  description: z.string().nullish(),
  updated_at: instant,
  updated_by: z.string().nullable(),
  /** Calls that any version of it matched in the last 24 hours, enforced or in shadow. */
  matches_24h: whole.nullish(),
  /** When it goes back by itself, where it was changed for a while. */
  back_at: instant.nullish(),
  /** Only in the answer of the act that retires it: a list has no retired rules. */
  is_retired: z.boolean().nullish(),
});
export type RuleRecord = z.infer<typeof rule>;

const actedOnRule = z.object({ intent, rule: rule.nullable() });

/** What is wrong with a draft, where, and how to mend it. */
export const ruleProblem = z.object({ path: z.string(), message: z.string(), fix: z.string() });
export type RuleProblem = z.infer<typeof ruleProblem>;

/** What changed of a part of a rule, in words. */
export const ruleDifference = z.object({
  part: z.string(),
  removed: z.array(z.string()),
  added: z.array(z.string()),
});

/** A rule as a version keeps it; checked by shared/governance's rule parser, not here. */
const definition = z.looseObject({ rule_name: z.string() });

/** One change of one rule: a version, with what it changed of the one before. */
const ruleChange = z.object({
  version_id: whole,
  rule_name: z.string(),
  version: whole,
  rule: definition,
  at: instant,
  by: z.string().nullable(),
  reason: z.string().nullable(),
  is_retired: z.boolean(),
  /** Null for a new rule. */
  difference: z.array(ruleDifference).nullable(),
});
export type RuleChange = z.infer<typeof ruleChange>;

/** What would change of one rule by an import or a return. */
export const ruleStep = z.object({
  rule_name: z.string(),
  kind: z.enum(["new", "changed", "same", "retired", "wrong"]),
  rule: definition.nullable(),
  sentence: z.string().nullable(),
  difference: z.array(ruleDifference),
  problems: z.array(ruleProblem),
});
export type RuleStep = z.infer<typeof ruleStep>;

const ruleCall = z.looseObject({
  decision_id: whole,
  request_id: z.string(),
  at: instant,
  user_id: z.string(),
  display_name: z.string().nullable(),
  plan_id: z.string().nullable(),
  decision: z.string(),
  reason: z.string().nullable(),
  model: z.string().nullable(),
  tokens: whole.nullable(),
  mode: ruleMode,
});
export type RuleCall = z.infer<typeof ruleCall>;

export const ruleHits = z.looseObject({
  now: instant,
  hours: z.array(z.object({ hour: instant, enforced: whole, shadow: whole })),
  unblocked: z.array(
    z.looseObject({
      at: instant,
      user_id: z.string(),
      by: z.string().nullable(),
      reason: z.string().nullable(),
    }),
  ),
});
export type RuleHits = z.infer<typeof ruleHits>;

const replayThreshold = z.object({
  path: z.string(),
  fact: z.string(),
  op: z.string(),
  value: z.number(),
});
const thresholdCurve = replayThreshold.extend({
  points: z
    .array(
      z.object({
        value: z.number(),
        calls: whole,
        newly: whole,
        users: whole,
        paying_users: whole,
        tokens: whole,
        cost_micros: whole,
      }),
    )
    .readonly(),
});
export type ThresholdCurveRecord = z.infer<typeof thresholdCurve>;

/** A draft replayed over past calls; followed by the stream `replay` while it runs. */
const replayRun = z.object({
  run_id: z.string(),
  rule_name: z.string(),
  since: instant,
  until: instant,
  status: z.enum(["running", "finished", "failed", "cancelled"]),
  /** Events judged so far. */
  events: whole,
  /** 0–1 of the time that is replayed. */
  progress: z.number().min(0).max(1).nullable(),
  /** The numbers of the draft that can be dragged. */
  thresholds: z.array(replayThreshold),
  /** The report of shared/governance/simulation; null until it is finished. */
  report: z.custom<BacktestReport>().nullable(),
  curve: thresholdCurve.nullable(),
  failure: failure.nullable(),
});
export type ReplayRun = z.infer<typeof replayRun>;

/** What a change that waits to be sent does to the calls that the last sync kept here. Counts are calls or users. */
const rulePrediction = z.object({
  /** Calls that were judged, and when the first of them was. */
  calls: whole,
  since: instant.nullable(),
  /** What the rule matches, with the change or without. */
  matched: whole,
  users: whole,
  /** With the change against without it; negative where it is fewer. */
  more_stopped: z.int(),
  more_warned: z.int(),
  more_rerouted: z.int(),
});
export type RulePrediction = z.infer<typeof rulePrediction>;

const ruleName = z.string().min(1).max(200);

export const rulesOperations = {
  "rules.list": operation(nothing, z.object({ rules: z.array(rule), as_of: instant })),
  ...actOperations("rule", actedOnRule),
  /** What the changes of rules that wait to be sent will do, as far as this machine knows: needs no connection. */
  "rules.predict": operation(z.object({ rule_name: ruleName }).strict(), rulePrediction),
  /** Changes newest first, of one rule or all. */
  "rules.changes": operation(
    z.object({ rule_name: ruleName.nullable(), before: whole.nullable() }).strict(),
    z.object({
      changes: z.array(ruleChange),
      has_more: z.boolean(),
      latest_version_id: whole.nullable(),
      as_of: instant,
    }),
  ),
  /** What returning the whole rule set to the moment after a change would do. */
  "rules.as_of": operation(
    z.object({ version_id: whole }).strict(),
    z.object({ steps: z.array(ruleStep), latest_version_id: whole }),
  ),
  /** Returns the whole rule set; needs a connection. */
  "rules.restore": operation(
    z.object({ command_id: commandId, version_id: whole, expected_version_id: whole, reason }).strict(),
    z.object({ changed: z.array(z.string()) }),
  ),
  /** Reads a file of rules, YAML or JSON, and compares it with the rules in force. */
  "rules.read_file": operation(z.object({ text: z.string().max(2_000_000) }).strict(), z.array(ruleStep)),
  /** Rules as a file that `rules.read_file` reads; null: all. */
  "rules.export": operation(
    z.object({ rule_name: ruleName.nullable() }).strict(),
    z.object({ file_name: z.string(), text: z.string() }),
  ),
  /** Replays a draft, laid over the rules in force, over the calls of a time; one at a time. Needs a connection. */
  "rules.replay_start": operation(
    z
      .object({
        rule: z.unknown(),
        since: z.iso.datetime(),
        until: z.iso.datetime(),
        paying_plans: z.array(z.string().max(255)).max(500),
        /** The number to drag; null: the first. */
        path: z.string().max(500).nullable(),
      })
      .strict(),
    replayRun,
  ),
  "rules.replay_cancel": operation(z.object({ run_id: z.string() }).strict(), replayRun),
  /** The whole configuration in force as a preset file: plans, packs, rules, prices, estimates, alerts, settings. */
  "rules.export_preset": operation(nothing, z.object({ file_name: z.string(), text: z.string() })),
  "rules.hits": operation(z.object({ rule_name: ruleName }).strict(), ruleHits),
  "rules.calls": operation(
    z.object({ rule_name: ruleName, from: instant, to: instant, before: whole.nullable() }).strict(),
    z.object({ calls: z.array(ruleCall), has_more: z.boolean() }),
  ),
} as const;

export const rulesStreams = {
  replay: { input: z.object({ run_id: z.string() }).strict(), item: replayRun },
} as const;
