/** Alerts: what was raised, who was notified, and what is set. */
import { z } from "zod";
import { actOperations } from "./acts.ts";
import { commandId, done, instant, nothing, operation, whole } from "./basics.ts";
import { intent } from "./sync.ts";

/** A message about an alert, on its way to somebody. */
const notification = z.looseObject({
  notification_id: whole,
  channel: z.string(),
  audience: z.enum(["operators", "user"]),
  /** Addresses; null for a channel that needs none, and where none is known yet. */
  recipient: z.string().nullable(),
  /** failed: given up, until a person has it sent again. */
  status: z.enum(["queued", "sent", "failed", "withdrawn"]),
  attempts: whole,
  created_at: instant,
  /** When it is tried next, while queued. */
  due_at: instant,
  sent_at: instant.nullable(),
  last_error: z.string().nullable(),
});
export type Notification = z.infer<typeof notification>;

/** An alert that was raised. */
export const alert = z.looseObject({
  alert_event_id: whole,
  /** The alert that is set; null for what the database notices by itself. */
  alert_name: z.string().nullable(),
  kind: z.string(),
  severity: z.enum(["info", "warning", "critical"]),
  message: z.string(),
  user_id: z.string().nullable(),
  display_name: z.string().nullable(),
  threshold: z.number().nullable(),
  value: z.number().nullable(),
  period: z.string(),
  details: z.record(z.string(), z.unknown()),
  /** The call that raised it. */
  decision_id: whole.nullable(),
  created_at: instant,
  acknowledged_at: instant.nullable(),
  acknowledged_by: z.string().nullable(),
  /** When upkeep queued its messages; null: not yet. */
  considered_at: instant.nullable(),
  /** What became of it, in the words of who resolved it. */
  resolution: z.string().nullish(),
  /** Who sees to it. */
  owner: z.string().nullish(),
  /** Off the list until then. */
  snoozed_until: instant.nullish(),
  /** False: a user's own limit. */
  needs_operator: z.boolean().optional(),
  notifications: z.array(notification),
});
export type Alert = z.infer<typeof alert>;

export const alertPage = z.looseObject({
  alerts: z.array(alert),
  next_before_id: whole.nullable(),
  /** The state of delivery in the whole project, now. Only with queued and failed at 0 is everything delivered. */
  delivery: z.looseObject({
    queued: whole,
    /** Since when a message is due and unclaimed; null: none for more than five minutes. */
    overdue_since: instant.nullable(),
    /** Given up, with the alert not acknowledged. */
    failed: whole,
    /** When upkeep last looked for what there is to alert of; null: never. */
    upkeep_at: instant.nullable(),
  }),
});
export type AlertPage = z.infer<typeof alertPage>;

/** An alert of the preset: what to watch, and when to raise it. */
export const costAlert = z.looseObject({
  alert_name: z.string(),
  /** Of `alertMetrics`. */
  metric: z.string(),
  /** Whose: of everybody, of each user, or of the plan, scope or model with this id. */
  scope_kind: z.enum(["all", "user", "plan", "scope", "model"]),
  scope_id: z.string().nullable(),
  period: z.string(),
  /** In the metric's unit; null: thresholds are amounts, else percents. */
  budget: whole.nullable(),
  thresholds: z.array(z.number()),
  channels: z.array(z.string()),
  is_active: z.boolean(),
  last_triggered_at: instant.nullable(),
  value: z.number().nullable(),
  percent: z.number().nullable(),
  currency: z.string(),
});
export type CostAlert = z.infer<typeof costAlert>;

/** What the sentence of an alert is made of, beside its kind. */
export const alertFacts = alert.pick({
  alert_name: true,
  message: true,
  threshold: true,
  value: true,
  period: true,
  details: true,
});

/** Open alerts that are alike: one line, however many they are. */
const alertGroup = z.looseObject({
  group_id: z.string(),
  kind: z.string(),
  alert_name: z.string().nullable(),
  /** The highest of them. */
  severity: z.enum(["info", "warning", "critical"]),
  /** It waits for an operator; false: users' own limits. */
  needs_operator: z.boolean(),
  count: whole,
  /** How many users they are about. */
  users: whole,
  first_at: instant,
  last_at: instant,
  snoozed_until: instant.nullable(),
  owners: z.array(z.string()),
  /** Newest first, at most 2,000. */
  alert_event_ids: z.array(whole),
  newest_id: whole,
  newest: alertFacts.extend({ kind: alert.shape.kind }),
  /** The first ten users. */
  who: z.array(z.looseObject({ user_id: z.string(), display_name: z.string().nullable() })),
});
export type AlertGroup = z.infer<typeof alertGroup>;

export const alertGroups = z.looseObject({
  groups: z.array(alertGroup),
  /** Alerts that wait for an operator, snoozed ones left out. */
  open: whole,
  /** Alerts about users' own limits. */
  users_own: whole,
});

/** Whose calls, with which model or by which rule: what is behind an alert. */
const alertCause = { calls: whole, tokens: whole, cost_micros: whole };

/** The first five each, the dearest first. */
export const alertCauses = z.looseObject({
  from: instant,
  to: instant,
  users: z.array(z.looseObject({ user_id: z.string(), display_name: z.string().nullable(), ...alertCause })),
  models: z.array(z.looseObject({ model: z.string(), ...alertCause })),
  /** Rules that matched, enforced or in shadow. */
  rules: z.array(z.looseObject({ rule_name: z.string(), ...alertCause })),
});
export type AlertCauses = z.infer<typeof alertCauses>;

/** An absent key means all; but a severity alone is of what needs an operator. */
const alertFilter = z
  .object({
    kind: z.string().max(100).optional(),
    severity: z.enum(["info", "warning", "critical"]).optional(),
    needs_operator: z.boolean().optional(),
  })
  .strict();
export type AskedAlerts = z.infer<typeof alertFilter>;

const alertAction = z.enum(["acknowledge", "resolve", "snooze", "take", "give_up"]);
export type AlertAction = z.infer<typeof alertAction>;

export const alertsOperations = {
  /** What is open, alike alerts as one line: what waits for an operator first, then users' own limits. */
  "alerts.groups": operation(
    z.object({ filter: alertFilter }).strict(),
    alertGroups.extend({ as_of: instant.nullable() }),
  ),
  /** Many at once. Resolving needs a reason, snoozing a moment within 30 days. */
  "alerts.decide": operation(
    z
      .object({
        command_id: commandId,
        alert_event_ids: z.array(whole).min(1).max(2000),
        action: alertAction,
        reason: z.string().trim().min(3).max(1000).nullable(),
        until: instant.nullable(),
      })
      .strict(),
    z.looseObject({ changed: whole }),
  ),
  /** A page of alerts that were raised, newest first. */
  "alerts.list": operation(
    z
      .object({
        /** open: not acknowledged. undelivered: a message about them was given up. */
        show: z.enum(["open", "all", "undelivered"]),
        before_id: whole.nullable(),
        limit: z.number().int().min(1).max(200),
        filter: alertFilter.optional(),
      })
      .strict(),
    alertPage.extend({ as_of: instant.nullable() }),
  ),
  /** From an alert to the users, models and rules behind it. */
  "alerts.causes": operation(z.object({ alert_event_id: whole }).strict(), alertCauses),
  /** The alerts that are set, with how far each has come. */
  "alerts.set": operation(nothing, z.object({ alerts: z.array(costAlert), as_of: instant.nullable() })),
  ...actOperations("alert", z.object({ intent })),
  /** Has a message that was given up sent again. */
  "alerts.send_again": operation(z.object({ command_id: commandId, notification_id: whole }).strict(), done),
} as const;

export const alertsStreams = {
  /** Something about alerts changed: read them again. The first item comes at once. */
  alerts: { input: nothing, item: z.object({ at: instant }) },
} as const;
