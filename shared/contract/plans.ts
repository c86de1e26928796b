/** Plans, packs, prices, estimates, topics, alerts and settings: records with versions, looked at before they change. */
import { z } from "zod";
import { type ConfigKind, configKinds } from "../governance/configuration/index.ts";
import type { PlanSimulation } from "../governance/simulation/index.ts";
import { actOperations } from "./acts.ts";
import { commandId, failure, instant, nothing, operation, reason, whole } from "./basics.ts";
import { ruleDifference, ruleProblem, ruleStep } from "./rules.ts";
import { intent } from "./sync.ts";

export const configKind = z.enum(configKinds as unknown as [ConfigKind, ...ConfigKind[]]);
const record = z.record(z.string(), z.unknown());
const key = z.string().min(1).max(500);

/** A record as it is now: `id` is its kind and key, `plan:gold`. Its fields: shared/governance/configuration. */
export const configRecord = z.looseObject({
  id: z.string(),
  kind: configKind,
  key: z.string(),
  version: whole,
  record,
  at: instant,
  by: z.string().nullable(),
  reason: z.string().nullable(),
  is_retired: z.boolean().nullish(),
});
export type ConfigItemRecord = z.infer<typeof configRecord>;

/** One version, with what it changed of the one before; null: the record was new. */
const configChange = configRecord.extend({
  version_id: whole,
  is_retired: z.boolean(),
  difference: z.array(ruleDifference).nullable(),
});
export type ConfigChange = z.infer<typeof configChange>;

/** A change that is wanted; a record of null retires. */
const wantedChange = z
  .object({
    kind: z.enum([...configKinds, "rule"] as unknown as [ConfigKind | "rule", ...(ConfigKind | "rule")[]]),
    key,
    record: record.nullable(),
    expected_version: whole.nullable(),
  })
  .strict();
export type WantedChange = z.infer<typeof wantedChange>;

/** When an alert would have been raised. */
const raisedAlerts = z.looseObject({
  /** The first day that was looked at. */
  since: z.string(),
  /** Of calls: since when, where there are too many to look back further; null: since the day began. */
  since_at: instant.nullish(),
  /** There are so many users that only those that used most were looked at. */
  is_part: z.boolean().nullish(),
  /** How often, from then on. */
  times: whole,
  /** Where several thresholds were passed on one day, each may have been raised; `times` counts the day once. */
  times_at_most: whole.nullish(),
  /** Of how many users; null where it is about all. */
  users: whole.nullable(),
  /** The latest ten. */
  latest: z.array(
    z.looseObject({
      day: z.string(),
      /** The period, or the hour. */
      key: z.string(),
      threshold: z.number(),
      user_id: z.string().nullable(),
    }),
  ),
});
export type RaisedAlerts = z.infer<typeof raisedAlerts>;

/** Whom a change touches, and what it costs by the last 30 days; which figures there are depends on the kind. */
const configEffect = z.looseObject({
  kind: z.string(),
  key: z.string(),
  users: whole.nullish(),
  above_daily: whole.nullish(),
  above_monthly: whole.nullish(),
  allowance_tokens: z.number().nullish(),
  would_allowance_tokens: z.number().nullish(),
  calls: whole.nullish(),
  tokens: whole.nullish(),
  cost_micros: whole.nullish(),
  would_cost_micros: whole.nullish(),
  /** Of a price: a later one is in force. */
  is_superseded: z.boolean().nullish(),
  mean_tokens: z.number().nullish(),
  checkouts: whole.nullish(),
  open_checkouts: whole.nullish(),
  buyers: whole.nullish(),
  rules: whole.nullish(),
  /** Of a route: the alerts that it would have sent, by kind. */
  alerts: whole.nullish(),
  alert_kinds: z.record(z.string(), whole).nullish(),
  /** Of an alert: when it would have been raised. */
  raised: raisedAlerts.nullish(),
  /** The same of the alert as it is now; null for a new one. */
  raised_now: raisedAlerts.nullish(),
});
export type ConfigEffect = z.infer<typeof configEffect>;

export const configPreview = z.object({
  problem: z.object({ code: z.string(), message: z.string(), path: z.string().nullish() }).nullable(),
  effects: z.array(configEffect),
});

/** What would become of one record by a preset or a return. */
const configStep = z.object({
  kind: configKind,
  key: z.string(),
  step: z.enum(["new", "changed", "retired", "same"]),
  record: record.nullable(),
  expected_version: whole,
  difference: z.array(ruleDifference),
  problems: z.array(ruleProblem),
});
export type ConfigStepRecord = z.infer<typeof configStep>;

export const configProposal = z.looseObject({
  proposal_id: whole,
  changes: z.array(wantedChange.loose()),
  reason: z.string(),
  by: z.string(),
  at: instant,
  status: z.enum(["proposed", "approved", "rejected"]),
  decided_by: z.string().nullable(),
  decided_at: instant.nullable(),
  decision_reason: z.string().nullable(),
});
export type ConfigProposal = z.infer<typeof configProposal>;

/** A simulation under way; followed by the stream `simulation`. */
const simulationRun = z.object({
  run_id: z.string(),
  since: instant,
  until: instant,
  status: z.enum(["running", "finished", "failed", "cancelled"]),
  events: whole,
  progress: z.number().min(0).max(1).nullable(),
  /** The report of shared/governance/simulation; null until it is finished. */
  report: z.custom<PlanSimulation>().nullable(),
  failure: failure.nullable(),
});
export type SimulationRun = z.infer<typeof simulationRun>;

/** A message to users as the mail that would be sent to an invented user. */
const userMessage = z.looseObject({
  /** Of the catalogue of words: message.purchase. */
  word: z.string(),
  topic: z.string(),
  /** Whether the project sends it to users who have not turned it off. */
  is_sent: z.boolean(),
  /** Users who want none. */
  turned_off_by: whole,
  subject: z.string(),
  text: z.string(),
  html: z.string(),
});
export type UserMessage = z.infer<typeof userMessage>;

export const userMessages = z.looseObject({
  language: z.string(),
  languages: z.array(z.object({ language: z.string(), name: z.string() })),
  /** The sender that the project names; null: the deliverer's own. */
  from: z.string().nullable(),
  /** Settings without a value that would add a link or a sender. */
  missing: z.array(z.string()),
  /** Whether users are written to by mail at all. */
  is_mail_on: z.boolean(),
  messages: z.array(userMessage),
});

export const configOperations = {
  /** Every record in force. Rules are listed by `rules.list`. */
  "plans.list": operation(
    nothing,
    z.object({
      records: z.array(configRecord),
      latest_version_id: whole,
      /** Kinds whose changes one person may not make alone; `rule` is one too. */
      second_person_for: z.array(z.string()),
      as_of: instant,
    }),
  ),
  ...actOperations("config", z.object({ intent, config: configRecord.nullable() })),
  "plans.changes": operation(
    z
      .object({ kind: configKind.nullable(), key: z.string().max(500).nullable(), before: whole.nullable() })
      .strict(),
    z.object({ changes: z.array(configChange), has_more: z.boolean(), as_of: instant }),
  ),
  /** Whom changes touch, what they cost, and what the project would refuse. Changes nothing; needs a connection. */
  "plans.preview": operation(
    z.object({ changes: z.array(wantedChange).min(1).max(2000) }).strict(),
    configPreview,
  ),
  /** Many changes, all or none. Needs a connection. */
  "plans.apply": operation(
    z.object({ command_id: commandId, changes: z.array(wantedChange).min(1).max(2000), reason }).strict(),
    z.object({ changed: z.array(z.looseObject({ kind: z.string(), key: z.string() })) }),
  ),
  /** What returning everything to the moment after a change would do. */
  "plans.as_of": operation(
    z.object({ version_id: whole }).strict(),
    z.object({ steps: z.array(configStep) }),
  ),
  /** The presets that this console came with. */
  "plans.presets": operation(nothing, z.array(z.object({ name: z.string() }))),
  /** Where the project differs from a preset: one of ours by its name, or a file's text. */
  "plans.compare": operation(
    z.object({ preset: z.string().max(100).nullable(), text: z.string().max(5_000_000).nullable() }).strict(),
    z.object({ name: z.string(), steps: z.array(configStep), rules: z.array(ruleStep) }),
  ),
  /** Proposes changes to a second person; `rule` changes too. */
  "plans.propose": operation(
    z.object({ command_id: commandId, changes: z.array(wantedChange).min(1).max(2000), reason }).strict(),
    configProposal,
  ),
  "plans.decide": operation(
    z
      .object({
        command_id: commandId,
        proposal_id: whole,
        approve: z.boolean(),
        reason: z.string().trim().max(1000).nullable(),
      })
      .strict(),
    configProposal,
  ),
  "plans.proposals": operation(nothing, z.object({ proposals: z.array(configProposal) })),
  /** Every mail that users can get, as it would be sent; a language of null is the project's. */
  "plans.messages": operation(
    z.object({ language: z.string().max(2).nullable() }).strict(),
    userMessages.extend({ as_of: instant }),
  ),
  /** Replays past usage under plans and prices as they would be. One at a time; needs a connection. */
  "plans.simulate": operation(
    z
      .object({
        changes: z.array(wantedChange).min(1).max(2000),
        since: z.iso.datetime(),
        until: z.iso.datetime(),
        /** What plans bring in a month, in minor units of the project's currency, now and then. */
        revenue_now: z.record(z.string(), z.number().int().min(0).max(Number.MAX_SAFE_INTEGER)),
        revenue: z.record(z.string(), z.number().int().min(0).max(Number.MAX_SAFE_INTEGER)),
      })
      .strict(),
    simulationRun,
  ),
  "plans.simulate_cancel": operation(z.object({ run_id: z.string() }).strict(), simulationRun),
} as const;

export const configStreams = {
  simulation: { input: z.object({ run_id: z.string() }).strict(), item: simulationRun },
} as const;
