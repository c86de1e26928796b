/** What happened to one account: a line of time, its ledger with where each entry came from, and the proof of both. */
import { z } from "zod";
import { alertFacts } from "./alerts.ts";
import { instant, operation, tokens, userId, whole } from "./basics.ts";

export const historyKinds = [
  "stopped",
  "purchase",
  "refund",
  "dispute",
  "grant",
  "act",
  "alert",
  "message",
] as const;
const historyKind = z.enum(historyKinds);
export type HistoryKind = z.infer<typeof historyKind>;

/** Whole, of either sign. */
const signed = z.number().int();

const base = { at: instant, key: z.string() };
const atStripe = {
  payment_id: whole,
  currency: z.string().nullable(),
  charge_id: z.string().nullable(),
  payment_intent_id: z.string().nullable(),
  invoice_id: z.string().nullable(),
  livemode: z.boolean().nullable(),
};

const historyItem = z.discriminatedUnion("kind", [
  z.looseObject({
    kind: z.literal("stopped"),
    ...base,
    decision_id: whole,
    request_id: z.string(),
    reason: z.string().nullable(),
    message: z.string().nullable(),
    model: z.string(),
    rule_name: z.string().nullable(),
  }),
  z.looseObject({
    kind: z.literal("purchase"),
    ...base,
    ...atStripe,
    amount_minor: whole.nullable(),
    /** null: nothing was credited for it. */
    tokens: tokens.nullable(),
    pack_id: z.string().nullable(),
  }),
  z.looseObject({
    kind: z.literal("refund"),
    ...base,
    ...atStripe,
    refund_id: z.string().nullable(),
    amount_minor: whole,
    state: z.enum(["pending", "succeeded", "failed"]),
  }),
  z.looseObject({
    kind: z.literal("dispute"),
    ...base,
    ...atStripe,
    dispute_id: z.string(),
    amount_minor: whole,
    status: z.string(),
    is_lost: z.boolean(),
  }),
  z.looseObject({
    kind: z.literal("grant"),
    ...base,
    transaction_id: whole,
    transaction_type: z.string(),
    amount: tokens,
    new_balance: tokens,
    debt: tokens,
    description: z.string().nullable(),
  }),
  z.looseObject({
    kind: z.literal("act"),
    ...base,
    audit_id: whole,
    operator: z.string().nullable(),
    action: z.string(),
    rule_name: z.string().nullable(),
    reason: z.string().nullable(),
  }),
  z.looseObject({
    kind: z.literal("alert"),
    ...base,
    alert_event_id: whole,
    alert_kind: z.string(),
    severity: z.enum(["info", "warning", "critical"]),
    ...alertFacts.shape,
    acknowledged_by: z.string().nullable(),
  }),
  z.looseObject({
    kind: z.literal("message"),
    ...base,
    notification_id: whole,
    channel: z.string(),
    recipient: z.string().nullable(),
    subject: z.string(),
    status: z.enum(["queued", "sent", "failed", "withdrawn"]),
  }),
]);
export type HistoryItem = z.infer<typeof historyItem>;

const ledgerEntry = z.looseObject({
  transaction_id: whole,
  transaction_type: z.string(),
  amount: tokens,
  previous_balance: tokens,
  new_balance: tokens,
  debt_after: tokens,
  description: z.string().nullable(),
  metadata: z.record(z.string(), z.unknown()),
  created_at: instant,
  /** What it came from. `id` names that, where it has a name. */
  origin: z.looseObject({
    kind: z.enum(["call", "payment", "refund", "dispute", "act", "allowance", "expiry", "debt", "backend"]),
    id: z.union([z.string(), whole]).nullable(),
  }),
  lots: z.array(z.looseObject({ lot_id: whole, tokens, kind: z.string().nullable() })),
});
export type LedgerEntry = z.infer<typeof ledgerEntry>;

const ledgerFilter = z
  .object({
    type: z.string().max(100).nullable(),
    text: z.string().max(200).nullable(),
    from: instant.nullable(),
    to: instant.nullable(),
  })
  .strict();
export type LedgerFilter = z.infer<typeof ledgerFilter>;

const ledgerProof = z.looseObject({
  entries_checked: whole,
  /** Empty when everything is sound. */
  problems: z.array(z.looseObject({ problem: z.string() })),
});
export type LedgerProof = z.infer<typeof ledgerProof>;

const balanceExplained = z.looseObject({
  /** The sum of `lines`. */
  total: tokens,
  subscription: tokens,
  purchased: tokens,
  promotional: tokens,
  reserved: tokens,
  debt: tokens,
  frozen: tokens,
  next_expiry: z.object({ at: instant, tokens }).nullable(),
  since: instant.nullable(),
  lines: z.array(
    z.looseObject({ transaction_type: z.string(), entries: whole, tokens: signed, last_at: instant }),
  ),
});
export type BalanceExplained = z.infer<typeof balanceExplained>;

export const historyOperations = {
  "users.history": operation(
    z
      .object({
        user_id: userId,
        /** null: all. */
        kinds: z.array(historyKind).min(1).nullable(),
        cursor: z.string().max(100).nullable(),
        limit: z.number().int().min(1).max(200),
      })
      .strict(),
    z.object({ items: z.array(historyItem), next_cursor: z.string().nullable() }),
  ),
  "users.ledger": operation(
    z
      .object({
        user_id: userId,
        filter: ledgerFilter,
        before_id: whole.nullable(),
        limit: z.number().int().min(1).max(200),
      })
      .strict(),
    z.object({ entries: z.array(ledgerEntry), next_before_id: whole.nullable() }),
  ),
  /** Checks hashes, balances, lots and counters of this account. */
  "users.verify": operation(z.object({ user_id: userId }).strict(), ledgerProof),
  "users.explain_balance": operation(z.object({ user_id: userId }).strict(), balanceExplained),
  /** The whole ledger of an account as `npm run statement` writes and checks it: one entry a line, the oldest first. */
  "users.statement": operation(
    z.object({ user_id: userId }).strict(),
    z.object({ file_name: z.string(), text: z.string(), entries: whole, last_hash: z.string().nullable() }),
  ),
} as const;
