/**
 * The records that cross from the database to the screen. They keep the field names of the database's
 * functions, so that one word means one thing in SQL, in an API answer and on the screen.
 *
 * Objects are open: a newer backend may add keys, and they pass through unread.
 */
import { z } from "zod";

/** A whole number that JSON carries exactly. */
export const whole = z.number().int();
export const tokens = whole;
/** ISO 8601 instant with offset. */
export const instant = z.string();

export const balance = z.looseObject({
  available: tokens,
  reserved: tokens,
  subscription: tokens,
  purchased: tokens,
  promotional: tokens,
  debt: tokens,
  total: tokens,
});

export const limitWindow = z.looseObject({
  /** null: no limit. */
  limit: tokens.nullable(),
  used: tokens,
  remaining: tokens.nullable(),
  resets_at: instant,
});
export const limits = z.looseObject({ daily: limitWindow, monthly: limitWindow });

export const decision = z.enum(["allow", "warn", "block"]);
export const ruleMode = z.enum(["enforce", "shadow", "off"]);

/** What happened, as the feed shows it: one call gives an `authorized` or `blocked` event, then one ending. */
export const usageEvent = z.looseObject({
  /** Position in the feed; strictly increasing for a reader that pages with cursors. */
  event_id: whole,
  kind: z.enum(["authorized", "blocked", "settled", "released", "expired", "quarantined"]),
  at: instant,
  request_id: z.string(),
  decision_id: whole.nullable(),
  user_id: z.string(),
  display_name: z.string().nullable(),
  plan_id: z.string().nullable(),
  decision: decision.nullable(),
  reason: z.string().nullable(),
  requested_model: z.string().nullable(),
  model: z.string().nullable(),
  task_type: z.string().nullable(),
  /** Held for `authorized`, asked for `blocked`, charged for `settled`, given back for the others. */
  tokens: tokens,
  input_tokens: tokens.nullable(),
  output_tokens: tokens.nullable(),
  cost_micros: whole.nullable(),
  currency: z.string().nullable(),
});
export const usageEventPage = z.looseObject({
  events: z.array(usageEvent),
  next_cursor: z.string().nullable(),
});

export const accountState = z.looseObject({
  user_id: z.string(),
  display_name: z.string().nullable(),
  email: z.string().nullable(),
  plan_id: z.string(),
  timezone: z.string(),
  is_flagged: z.boolean(),
  flag_reason: z.string().nullable(),
  flagged_at: instant.nullable(),
  is_blocked: z.boolean(),
  block_reason: z.string().nullable(),
  /** null while blocked: until someone unblocks. */
  blocked_until: instant.nullable(),
  blocked_by: z.string().nullable(),
  created_at: instant,
  /** Goes up with each operator's change; an intent carries the one it was based on. */
  version: whole,
});

/** A row of the user table. */
export const accountRow = accountState.extend({
  available: tokens,
  debt: tokens,
  tokens_today: tokens,
  tokens_this_month: tokens,
  cost_this_month_micros: whole,
  currency: z.string(),
  /** Higher of day's and month's use in percent; null without a limit or allowance. */
  usage_percent: whole.nullable(),
  last_activity: instant.nullable(),
});

export const accountFilter = z.enum(["all", "flagged", "blocked", "near_limit", "in_debt", "active_today"]);
export const accountSort = z.enum([
  "name",
  "tokens_today",
  "tokens_this_month",
  "available",
  "last_activity",
]);
export const accountPage = z.looseObject({
  accounts: z.array(accountRow),
  next_cursor: z.string().nullable(),
  /** An estimate for large tables. */
  total: whole,
  total_is_exact: z.boolean(),
});

export const lot = z.looseObject({
  grant_id: whole,
  kind: z.enum(["subscription", "purchased", "promotional"]),
  granted: tokens,
  remaining: tokens,
  frozen: tokens,
  expires_at: instant.nullable(),
  created_at: instant,
  description: z.string().nullable(),
});

export const hold = z.looseObject({
  request_id: z.string(),
  model: z.string().nullable(),
  reserved_tokens: tokens,
  created_at: instant,
  expires_at: instant,
});

export const auditEntry = z.looseObject({
  audit_id: whole,
  at: instant,
  operator: z.string().nullable(),
  action: z.string(),
  user_id: z.string().nullable(),
  reason: z.string().nullable(),
  /** The operator's command that did it; null for what rules and upkeep did. */
  command_id: z.string().nullish(),
  details: z.record(z.string(), z.unknown()),
});

export const accountDetail = z.looseObject({
  account: accountState,
  plan: z.looseObject({
    plan_id: z.string(),
    name: z.string(),
    monthly_allowance: tokens,
    daily_limit: tokens.nullable(),
    monthly_limit: tokens.nullable(),
  }),
  balance,
  limits,
  messages_today: whole,
  cost_today_micros: whole,
  cost_this_month_micros: whole,
  currency: z.string(),
  last_activity: instant.nullable(),
  lots: z.array(lot),
  holds: z.array(hold),
  /** What operators and rules did to this account, newest first, at most 50. */
  audit: z.array(auditEntry),
});

export const ledgerEntry = z.looseObject({
  transaction_id: whole,
  transaction_type: z.string(),
  amount: tokens,
  previous_balance: tokens,
  new_balance: tokens,
  description: z.string().nullable(),
  metadata: z.record(z.string(), z.unknown()),
  created_at: instant,
});

export const decisionRow = z.looseObject({
  decision_id: whole,
  request_id: z.string(),
  at: instant,
  decision,
  reason: z.string().nullable(),
  message: z.string().nullable(),
  requested_model: z.string().nullable(),
  model: z.string().nullable(),
  task_type: z.string().nullable(),
  estimated_tokens: tokens,
  reserved_tokens: tokens,
  charged_tokens: tokens.nullable(),
  cost_micros: whole.nullable(),
  status: z.enum(["blocked", "held", "settled", "released", "expired", "quarantined"]),
  warnings: z.array(z.string()),
  rule_name: z.string().nullable(),
  rule_version: whole.nullable(),
});

export const usageByDay = z.looseObject({
  day: z.string(),
  prompt_tokens: tokens,
  completion_tokens: tokens,
  total_tokens: tokens,
  message_count: whole,
  cost_micros: whole,
});
export const accountUsage = z.looseObject({
  prompt_tokens: tokens,
  completion_tokens: tokens,
  total_tokens: tokens,
  message_count: whole,
  conversation_count: whole,
  last_activity: instant.nullable(),
  cost_micros: whole,
  currency: z.string().optional(),
  by_day: z.array(usageByDay),
  by_model: z.array(
    z.looseObject({ model: z.string().nullable(), total_tokens: tokens, cost_micros: whole }),
  ),
  by_task_type: z.array(
    z.looseObject({ task_type: z.string().nullable(), total_tokens: tokens, cost_micros: whole }),
  ),
});

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
  /** Matches in the last 24 hours, enforced or in shadow. */
  matches_24h: whole.nullish(),
});

/** One rule's line in a receipt. */
export const ruleTrace = z.looseObject({
  rule_name: z.string(),
  version: whole,
  mode: ruleMode,
  matched: z.boolean(),
  /** The facts the rule read, as they were. */
  facts: z.record(z.string(), z.unknown()),
  /** The rule itself in that version, for shared/governance's words; absent in answers of older projects. */
  rule: z.unknown().optional(),
});
export const receipt = z.looseObject({
  decision_id: whole,
  request_id: z.string(),
  user_id: z.string(),
  at: instant,
  decision,
  reason: z.string().nullable(),
  message: z.string().nullable(),
  http_status: whole,
  rule_name: z.string().nullable(),
  rule_version: whole.nullable(),
  estimated_tokens: tokens,
  /** What the call needs, what there is for it, the difference; null where tokens were not the matter. */
  shortfall: z.looseObject({ need: tokens, have: tokens, missing: tokens }).nullable(),
  limit: z.looseObject({ window: z.string(), limit: tokens, used: tokens }).nullable(),
  clears_at: instant.nullable(),
  timezone: z.string(),
  currency: z.string().nullish(),
  rules: z.array(ruleTrace),
  /** What would have to change for this call to pass, in plain sentences. */
  remedies: z.array(z.string()),
});

/** Calls and tokens in one minute, for the chart. */
export const minuteBucket = z.looseObject({
  minute: instant,
  calls: whole,
  settled_tokens: tokens,
  allowed_tokens: tokens,
  warned_tokens: tokens,
  blocked_tokens: tokens,
  blocked_calls: whole,
});
export const overview = z.looseObject({
  at: instant,
  calls: whole,
  blocked: whole,
  warned: whole,
  settled_tokens: tokens,
  cost_micros: whole,
  currency: z.string(),
  active_users: whole,
  open_holds: whole,
  held_tokens: tokens,
  stuck_holds: whole,
  flagged_users: whole,
  blocked_users: whole,
  users_in_debt: whole,
  open_alerts: whole,
  /** Oldest first, without gaps. */
  minutes: z.array(minuteBucket),
  /** Most frequent reasons of blocks in the window. */
  reasons: z.array(z.looseObject({ reason: z.string(), calls: whole })),
  top_users: z.array(z.looseObject({ user_id: z.string(), display_name: z.string().nullable(), tokens })),
});

/** A message about an alert, on its way to somebody. */
export const notification = z.looseObject({
  notification_id: whole,
  channel: z.string(),
  audience: z.enum(["operators", "user"]),
  /** Addresses; null for a channel that needs none, and where none is known yet. */
  recipient: z.string().nullable(),
  /** failed: given up, until a person has it sent again. */
  status: z.enum(["queued", "sent", "failed"]),
  attempts: whole,
  created_at: instant,
  /** When it is tried next, while queued. */
  due_at: instant,
  sent_at: instant.nullable(),
  last_error: z.string().nullable(),
});

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
  notifications: z.array(notification),
});

export const alertPage = z.looseObject({
  alerts: z.array(alert),
  next_before_id: whole.nullable(),
  /** How delivery stands in the whole project. */
  delivery: z.looseObject({
    queued: whole,
    /** Since when a message waits that is due: nobody takes it. */
    overdue_since: instant.nullable(),
    /** Given up, and nobody has seen to the alert. */
    failed: whole,
    /** When upkeep last looked for what there is to alert of; null: never. */
    upkeep_at: instant.nullable(),
  }),
});

/** An alert that is set: what to watch, and when to say so. */
export const costAlert = z.looseObject({
  alert_name: z.string(),
  /** cost_micros, tokens, balance, operation_tokens, debt or spike. */
  metric: z.string(),
  /** all, user, plan:x, scope:x or model:x. */
  scope: z.string(),
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

export const projectInfo = z.looseObject({
  /** Version of the newest migration applied, and how many. */
  schema_version: z.string(),
  /** Those applied, in order, as `<14 digits>_<name>`; empty where the project keeps no record. */
  migrations: z.array(z.string()).optional(),
  server_version: z.string(),
  preset: z.string().nullable(),
  currency: z.string(),
  /** True where the project holds our sample data. */
  sample_data: z.boolean(),
  accounts: whole,
  plans: z.array(z.looseObject({ plan_id: z.string(), name: z.string() })),
  server_time: instant,
});

export const searchHit = z.looseObject({
  kind: z.enum(["user", "rule", "request", "payment"]),
  id: z.string(),
  title: z.string(),
  subtitle: z.string().nullable(),
});

export type Balance = z.infer<typeof balance>;
export type Limits = z.infer<typeof limits>;
export type Decision = z.infer<typeof decision>;
export type RuleMode = z.infer<typeof ruleMode>;
export type UsageEvent = z.infer<typeof usageEvent>;
export type UsageEventPage = z.infer<typeof usageEventPage>;
export type AccountState = z.infer<typeof accountState>;
export type AccountRow = z.infer<typeof accountRow>;
export type AccountFilter = z.infer<typeof accountFilter>;
export type AccountSort = z.infer<typeof accountSort>;
export type AccountPage = z.infer<typeof accountPage>;
export type AccountDetail = z.infer<typeof accountDetail>;
export type Lot = z.infer<typeof lot>;
export type Hold = z.infer<typeof hold>;
export type AuditEntry = z.infer<typeof auditEntry>;
export type LedgerEntry = z.infer<typeof ledgerEntry>;
export type DecisionRow = z.infer<typeof decisionRow>;
export type AccountUsage = z.infer<typeof accountUsage>;
export type RuleRecord = z.infer<typeof rule>;
export type Receipt = z.infer<typeof receipt>;
export type Overview = z.infer<typeof overview>;
export type MinuteBucket = z.infer<typeof minuteBucket>;
export type Alert = z.infer<typeof alert>;
export type AlertPage = z.infer<typeof alertPage>;
export type CostAlert = z.infer<typeof costAlert>;
export type Notification = z.infer<typeof notification>;
export type ProjectInfo = z.infer<typeof projectInfo>;
export type SearchHit = z.infer<typeof searchHit>;
