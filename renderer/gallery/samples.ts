/** A console that answers from samples, for the gallery alone. */
import type { ReactNode } from "react";
import type { Failure } from "../../shared/contract/basics.ts";
import type { ConsoleClient } from "../../shared/contract/client.ts";
import type { AccountAct, Effects } from "../../shared/contract/corrections.ts";
import type { OperationName } from "../../shared/contract/operations.ts";
import type { OverviewStep, Receipt } from "../../shared/contract/watch.ts";

export interface Sample {
  /** The part, and its state. */
  readonly name: string;
  readonly children: ReactNode;
  /** For parts that fill what they are put in. */
  readonly height?: number;
}
export interface SampleSection {
  readonly title: string;
  readonly wide?: boolean;
  readonly samples: readonly Sample[];
}

export const sample = (name: string, children: ReactNode, height?: number): Sample => ({
  name,
  children,
  ...(height === undefined ? {} : { height }),
});

export const failure: Failure = {
  code: "project_unreachable",
  message: "The project cannot be reached.",
  advice: "Look whether this machine is online, then try again.",
  details: "GET https://project.example/rest/v1/rpc/console_project_info\nfetch failed: ECONNREFUSED",
};

export const at = "2026-11-22T12:00:00Z";

export const account = {
  user_id: "user-0001",
  display_name: "Una Example",
  timezone: "Europe/London",
  is_flagged: false,
  is_blocked: false,
  version: 3,
};

const receipt: Receipt = {
  decision_id: 1,
  request_id: "request-0001",
  user_id: account.user_id,
  at,
  decision: "block",
  reason: "daily_limit",
  message: "You have reached today's limit.",
  http_status: 429,
  rule_name: "daily_limit",
  rule_version: 3,
  estimated_tokens: 1_240,
  shortfall: { need: 1_240, have: 0, missing: 1_240 },
  limit: { window: "day", limit: 10_000, used: 10_240 },
  clears_at: "2026-11-23T00:00:00Z",
  timezone: account.timezone,
  currency: "gbp",
  rules: [
    {
      rule_name: "daily_limit",
      version: 3,
      mode: "enforce",
      matched: true,
      facts: { tokens_today: 10_240 },
      rule: {
        rule_name: "daily_limit",
        rule_type: "usage",
        conditions: { all: [{ fact: "tokens_today", op: ">", value: 10_000 }] },
        action: { block: { reason: "daily_limit" } },
        priority: 10,
        mode: "enforce",
        is_active: true,
        applies_to: {},
        version: 3,
      },
    },
    { rule_name: "night_shadow", version: 1, mode: "shadow", matched: true, facts: { local_hour: 3 } },
    { rule_name: "spam", version: 2, mode: "enforce", matched: false, facts: { messages_today: 4 } },
  ],
  remedies: ["Wait until midnight, or raise the daily limit of the plan."],
};
const passed: Receipt = {
  ...receipt,
  decision_id: 2,
  decision: "allow",
  reason: null,
  message: null,
  http_status: 200,
  rule_name: null,
  rule_version: null,
  shortfall: null,
  limit: null,
  clears_at: null,
  rules: receipt.rules.map((rule) => ({ ...rule, matched: false })),
  remedies: [],
};

const balance = {
  available: 12_000,
  reserved: 240,
  subscription: 12_000,
  purchased: 0,
  promotional: 0,
  debt: 0,
  total: 12_240,
};
const limits = {
  daily: { limit: 10_000, used: 4_000, remaining: 6_000, resets_at: "2026-11-23T00:00:00Z" },
  monthly: { limit: null, used: 40_000, remaining: null, resets_at: "2026-12-01T00:00:00Z" },
};
const before = { plan_id: "pro", plan_name: "Pro", balance, limits };

/** 1,000 promotional tokens more, and another plan. */
export const changed: Effects = {
  before,
  after: {
    ...before,
    plan_id: "gold",
    plan_name: "Gold",
    balance: { ...balance, available: 13_000, promotional: 1_000, total: 13_240 },
  },
  entries: [],
  lots: [],
};
export const unchanged: Effects = { ...changed, after: before };

export const act: AccountAct = {
  act_id: 1,
  command_id: "00000000-0000-4000-8000-000000000001",
  user_id: account.user_id,
  display_name: account.display_name,
  kind: "give_tokens",
  fields: { tokens: 1_000, lot_kind: "promotional", expires_at: null },
  reason: "Goodwill for the outage",
  operator: "Ada Operator",
  status: "done",
  why: null,
  effects: changed,
  created_at: at,
  done_at: at,
  decided_by: null,
  undoes: null,
  undone_by: null,
  can_undo: true,
};
export const proposed: AccountAct = {
  ...act,
  act_id: 2,
  status: "proposed",
  done_at: null,
  why: "More than 100,000 tokens need a second person.",
  operator: "Bob Operator",
  can_undo: false,
};
const acts: readonly AccountAct[] = [
  act,
  proposed,
  { ...act, act_id: 3, status: "undone", undone_by: 4, can_undo: false },
  { ...proposed, act_id: 5, status: "rejected", decided_by: "Ada Operator" },
];

const never = (): Promise<never> => new Promise(() => undefined);
/** By decision: 1 is blocked, 2 allowed, 3 unknown, 4 never answers. */
const explained: Readonly<Record<number, () => unknown>> = {
  1: () => ({ ok: true, value: receipt }),
  2: () => ({ ok: true, value: passed }),
  3: () => ({ ok: false, error: { ...failure, code: "not_found", message: "There is no such decision." } }),
  4: never,
};

const answers: Partial<Record<OperationName, (input: never) => unknown>> = {
  "watch.explain": ({ decision_id: id }: { decision_id: number }) => explained[id]?.(),
  "users.acts": ({ mine }: { mine: boolean }) => ({
    ok: true,
    value: { acts: mine ? [] : acts, next_before_id: null, operator: "Ada Operator" },
  }),
  "users.search": () => ({
    ok: true,
    value: { accounts: [], next_cursor: null, total: 0, total_is_exact: true },
  }),
};

export const consoleOfSamples: ConsoleClient = {
  call: async (name, input) =>
    ((await answers[name]?.(input as never)) ?? { ok: false, error: failure }) as never,
  follow: () => () => undefined,
  onStatus(listener) {
    listener("open");
    return () => undefined;
  },
};

export const minutes: readonly OverviewStep[] = Array.from({ length: 30 }, (_, index) => ({
  start: new Date(Date.parse(at) + index * 60_000).toISOString(),
  calls: 20 + (index % 7),
  settled_tokens: 900 * (index % 5),
  allowed_tokens: 1_000 * (1 + (index % 6)),
  warned_tokens: 300 * (index % 3),
  blocked_tokens: index % 9 === 0 ? 1_500 : 0,
  blocked_calls: index % 9 === 0 ? 2 : 0,
  cost_micros: 40 * (index % 5),
}));
