/** A ledger entry that has to do with money, as the database gives it to a reconciliation. */
import { z } from "zod";
import type { LedgerRecord } from "../governance/reconciliation/types.ts";
import { whole } from "./basics.ts";

const wholeOrNone = whole.nullish();
const text = z.string().nullish();

/** Strict about what a reconciliation reads; other keys, of newer projects, pass. */
export const ledgerRecord = z.looseObject({
  transaction_id: whole,
  record_type: z.enum([
    "grant",
    "refund",
    "restoration",
    "dispute_hold",
    "dispute_release",
    "dispute_clawback",
    "adjustment",
    "promotional",
    "relabel",
  ]),
  user_id: z.string(),
  tokens: whole,
  created_at: z.string(),
  lot_id: wholeOrNone,
  grant_kind: z.enum(["purchase", "subscription", "promotional"]).nullish(),
  debt_tokens: wholeOrNone,
  tokens_remaining: wholeOrNone,
  amount_minor: wholeOrNone,
  booked_minor: wholeOrNone,
  deferred_minor: wholeOrNone,
  payment_minor: wholeOrNone,
  covered_minor: wholeOrNone,
  covered_by: text,
  currency: text,
  pack_id: text,
  charge_id: text,
  charged_at: text,
  payment_intent_id: text,
  checkout_session_id: text,
  order_id: text,
  invoice_id: text,
  invoice_line_id: text,
  period_start: text,
  period_end: text,
  customer_id: text,
  balance_transaction_id: text,
  refund_id: text,
  dispute_id: text,
  livemode: z.boolean().nullish(),
  difference_id: text,
} satisfies Record<keyof LedgerRecord, z.ZodType>);
