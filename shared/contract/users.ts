/** Users: the account of each, its tokens and its history, and what an operator may do to it. */
import { z } from "zod";
import { actOperations } from "./acts.ts";
import { decision, instant, operation, tokens, userId, whole } from "./basics.ts";
import { intent } from "./sync.ts";

export const balance = z.looseObject({
  available: tokens,
  reserved: tokens,
  subscription: tokens,
  purchased: tokens,
  promotional: tokens,
  debt: tokens,
  total: tokens,
});
export type Balance = z.infer<typeof balance>;

const limitWindow = z.looseObject({
  /** null: no limit. */
  limit: tokens.nullable(),
  used: tokens,
  remaining: tokens.nullable(),
  resets_at: instant,
});

export const limits = z.looseObject({ daily: limitWindow, monthly: limitWindow });

export const accountState = z.looseObject({
  user_id: z.string(),
  display_name: z.string().nullable(),
  email: z.string().nullable(),
  plan_id: z.string(),
  timezone: z.string(),
  is_flagged: z.boolean(),
  flag_reason: z.string().nullable(),
  flagged_at: instant.nullable(),
  flagged_by: z.string().nullish(),
  /** Whether calls are stopped now, by an operator or by a rule. */
  is_blocked: z.boolean(),
  /** Who stops them; `operator` where both do. null: nobody. */
  block_source: z.enum(["operator", "rule"]).nullable(),
  block_reason: z.string().nullable(),
  /** When the last block ends; null while blocked: until someone unblocks. */
  blocked_until: instant.nullable(),
  /** The operator; null for a rule. */
  blocked_by: z.string().nullable(),
  /** The rule whose block is in force, alone or beside an operator's, until when, and why. */
  block_rule: z.string().nullable(),
  rule_blocked_until: instant.nullable(),
  rule_block_reason: z.string().nullable(),
  /** Limits that an operator raised, each until its own moment (null: as the plan has it); `until`: the last of them. */
  raised: z
    .looseObject({
      daily_limit: tokens.nullable(),
      daily_until: instant.nullish(),
      monthly_limit: tokens.nullable(),
      monthly_until: instant.nullish(),
      until: instant,
    })
    .nullish(),
  /** The plan that it moves to when its next month begins. */
  next_plan: z.looseObject({ plan_id: z.string(), name: z.string(), at: instant }).nullish(),
  created_at: instant,
  /** Goes up with each operator's change; an intent carries the one it was based on. */
  version: whole,
});
export type AccountState = z.infer<typeof accountState>;

/** A kept account as it is at a later moment: a block that has ended since no longer counts. */
export function accountAt<Account extends Pick<AccountState, "is_blocked" | "blocked_until">>(
  account: Account,
  at: Date,
): Account {
  const isOver =
    account.is_blocked && account.blocked_until !== null && Date.parse(account.blocked_until) <= at.getTime();
  return isOver
    ? {
        ...account,
        is_blocked: false,
        block_source: null,
        block_reason: null,
        blocked_until: null,
        blocked_by: null,
        block_rule: null,
        rule_blocked_until: null,
        rule_block_reason: null,
      }
    : account;
}

/** The figures of the user table, as `governance.account_figures` has them. It can be sorted by each. */
export const accountFigures = {
  tokens_today: tokens,
  tokens_this_month: tokens,
  cost_this_month_micros: whole,
  available: tokens,
  debt: tokens,
};
export type AccountFigure = keyof typeof accountFigures;

/** A row of the user table. */
export const accountRow = accountState.extend({
  ...accountFigures,
  currency: z.string(),
  /** Used and held tokens in percent of what `usage_of` names; of two limits the higher. null without any. */
  usage_percent: whole.nullable(),
  /** A limit stops calls at 100 %. An allowance does not: other tokens are spent beside it and after it. */
  usage_of: z.enum(["daily_limit", "monthly_limit", "allowance"]).nullish(),
  last_activity: instant.nullable(),
});
export type AccountRow = z.infer<typeof accountRow>;

export const accountFilter = z.enum([
  "all",
  "flagged",
  "blocked",
  "near_limit",
  "low_balance",
  "in_debt",
  "disputed",
  "active_today",
]);
export type AccountFilter = z.infer<typeof accountFilter>;

export const accountSort = z.enum([
  "name",
  "last_activity",
  "created_at",
  "usage_percent",
  ...(Object.keys(accountFigures) as AccountFigure[]),
]);
export type AccountSort = z.infer<typeof accountSort>;

export const accountPage = z.looseObject({
  accounts: z.array(accountRow),
  next_cursor: z.string().nullable(),
  /** An estimate for large tables. */
  total: whole,
  total_is_exact: z.boolean(),
  /** No user has the text that was asked for: these are the closest. */
  is_close: z.boolean().optional(),
  /** No user has that text; these have a payment, a call or a customer with such an id. */
  is_by_id: z.boolean().optional(),
});
export type AccountPage = z.infer<typeof accountPage>;

export const lot = z.looseObject({
  lot_id: whole,
  kind: z.enum(["subscription", "purchased", "promotional"]),
  granted: tokens,
  remaining: tokens,
  frozen: tokens,
  expires_at: instant.nullable(),
  created_at: instant,
  description: z.string().nullable(),
});
export type Lot = z.infer<typeof lot>;

export const hold = z.looseObject({
  request_id: z.string(),
  model: z.string().nullable(),
  reserved_tokens: tokens,
  created_at: instant,
  expires_at: instant,
});
export type Hold = z.infer<typeof hold>;

const debtCause = z.looseObject({
  transaction_id: whole,
  at: instant,
  /** `usage`: a call used more than was there; else the record or entry that took back what was spent. */
  cause: z.string(),
  /** Still owed of it. */
  tokens,
  description: z.string().nullable(),
  charge_id: z.string().nullable(),
  dispute_id: z.string().nullable(),
  refund_id: z.string().nullable(),
});
export type DebtCause = z.infer<typeof debtCause>;

export const payment = z.looseObject({
  payment_id: whole,
  paid_at: instant,
  /** null until tokens were granted for it. */
  amount_minor: whole.nullable(),
  currency: z.string().nullable(),
  charge_id: z.string().nullable(),
  payment_intent_id: z.string().nullable(),
  invoice_id: z.string().nullable(),
  order_id: z.string().nullable(),
  livemode: z.boolean().nullable(),
  refunded_minor: whole,
  lots: z.array(
    z.looseObject({
      lot_id: whole,
      pack_id: z.string().nullable(),
      tokens,
      remaining: tokens,
      frozen: tokens,
      taken_back: tokens,
      dispute_state: z.enum(["none", "held", "released", "clawed"]),
    }),
  ),
  disputes: z.array(z.looseObject({ dispute_id: z.string(), status: z.string(), amount_minor: whole })),
});
export type Payment = z.infer<typeof payment>;

export const auditEntry = z.looseObject({
  audit_id: whole,
  at: instant,
  operator: z.string().nullable(),
  action: z.string(),
  user_id: z.string().nullable(),
  reason: z.string().nullable(),
  /** The operator's command that did it; null for what rules and upkeep did. */
  command_id: z.string().nullish(),
  /** The machine that the console named. */
  device: z.string().nullish(),
  details: z.record(z.string(), z.unknown()),
});
export type AuditEntry = z.infer<typeof auditEntry>;

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
  /** The language they are written to in, and by topic whether they want messages; absent in older projects. */
  preferences: z.looseObject({ language: z.string(), messages: z.record(z.string(), z.boolean()) }).nullish(),
  /** Other accounts with this e-mail, at most five. */
  same_email: z
    .array(
      z.looseObject({
        user_id: z.string(),
        display_name: z.string().nullable(),
        plan_id: z.string(),
        last_activity: instant.nullable(),
      }),
    )
    .optional(),
  messages_today: whole,
  cost_today_micros: whole,
  cost_this_month_micros: whole,
  currency: z.string(),
  last_activity: instant.nullable(),
  /** Below this a balance counts as low (a setting). */
  low_balance_tokens: tokens,
  /** What is owed, by cause, newest first; empty without debt. */
  debt_causes: z.array(debtCause),
  /** The newest 50. */
  payments: z.array(payment),
  /** Settlements above the ceiling: nothing is charged until a person decides. */
  waiting: z.array(
    z.looseObject({
      request_id: z.string(),
      decision_id: whole,
      model: z.string().nullable(),
      input_tokens: tokens.nullable(),
      output_tokens: tokens.nullable(),
      created_at: instant,
    }),
  ),
  lots: z.array(lot),
  holds: z.array(hold),
  /** What operators and rules did to this account, newest first, at most 50. */
  audit: z.array(auditEntry),
});
export type AccountDetail = z.infer<typeof accountDetail>;

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
export type DecisionRow = z.infer<typeof decisionRow>;

const usageByDay = z.looseObject({
  day: z.string(),
  prompt_tokens: tokens,
  completion_tokens: tokens,
  total_tokens: tokens,
  message_count: whole,
  cost_micros: whole,
  charged_tokens: tokens.optional(),
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
  by_scope: z.array(
    z.looseObject({ scope_id: z.string().nullable(), total_tokens: tokens, cost_micros: whole }),
  ),
});
export type AccountUsage = z.infer<typeof accountUsage>;

/** After an act: the intent, and the account as the project now has it (null while it waits in the outbox). */
const acted = z.object({ intent, account: accountState.nullable() });

export const usersOperations = {
  "users.search": operation(
    z
      .object({
        query: z.string().max(500),
        filter: accountFilter,
        plan_id: z.string().max(200).nullable(),
        sort: accountSort,
        descending: z.boolean(),
        cursor: z.string().max(2000).nullable(),
        limit: z.number().int().min(1).max(100),
        /** Only who was active since. */
        active_since: instant.nullable().default(null),
      })
      .strict(),
    accountPage.extend({
      /** From the local store while offline: what was seen, and when. */
      as_of: instant.nullable(),
    }),
  ),
  "users.get": operation(
    z.object({ user_id: userId }).strict(),
    accountDetail.extend({ as_of: instant.nullable() }),
  ),
  "users.usage": operation(
    z.object({ user_id: userId, from: z.iso.date(), to: z.iso.date() }).strict(),
    accountUsage,
  ),
  "users.decisions": operation(
    z
      .object({
        user_id: userId,
        before_id: whole.nullable(),
        limit: z.number().int().min(1).max(200),
      })
      .strict(),
    z.object({ decisions: z.array(decisionRow), next_before_id: whole.nullable() }),
  ),
  ...actOperations("user", acted),
} as const;
