/** Finance: payments as a list, who may have paid, and revenue of any range. */
import { z } from "zod";
import { instant, operation, userId, whole } from "./basics.ts";
import { payment } from "./users.ts";

const signed = z.number().int();
/** A calendar day of UTC, YYYY-MM-DD. */
const day = z.iso.date();

export const paymentState = z.enum(["no_user", "not_credited", "refunded", "disputed", "difference"]);

export const listedPayment = payment.extend({
  /** Null where nobody is known to have paid it. */
  user_id: z.string().nullable(),
  display_name: z.string().nullable(),
  email: z.string().nullable(),
  customer_id: z.string().nullable(),
  /** What reconciliation found about it, decided or not. */
  differences: z.array(
    z.looseObject({
      difference_id: z.string(),
      class: z.string(),
      status: z.string(),
      blocks: z.boolean(),
      amount_minor: signed,
      currency: z.string().nullable(),
      tokens: signed,
    }),
  ),
});
export type ListedPayment = z.infer<typeof listedPayment>;

/** A suggestion: nothing is booked by it. `value` is what was equal. */
export const payer = z.looseObject({
  user_id: z.string(),
  display_name: z.string().nullable(),
  email: z.string().nullable(),
  plan_id: z.string(),
  why: z.enum(["customer", "order", "reference", "email"]),
  value: z.string(),
});
export type Payer = z.infer<typeof payer>;

/** Minor units of the currency. Opening + sold = given back + recognised + closing. */
const revenueLine = z.looseObject({
  currency: z.string(),
  kind: z.string(),
  opening_deferred_minor: signed,
  sold_minor: signed,
  given_back_minor: signed,
  recognised_minor: signed,
  closing_deferred_minor: signed,
});
export const revenue = z.looseObject({
  from: day,
  to: day,
  lines: z.array(revenueLine),
  /** Where something was sold, given back or recognised; oldest first. */
  periods: z.array(
    z.looseObject({
      from: day,
      to: day,
      currency: z.string(),
      sold_minor: signed,
      given_back_minor: signed,
      recognised_minor: signed,
    }),
  ),
});
export type Revenue = z.infer<typeof revenue>;

export const paymentOperations = {
  "finance.payments": operation(
    z
      .object({
        text: z.string().max(255).nullable(),
        state: paymentState.nullable(),
        /** Only this user's. */
        user_id: userId.optional(),
        before_id: whole.nullable(),
        limit: z.number().int().min(1).max(200),
      })
      .strict(),
    z.object({ payments: z.array(listedPayment), next_before_id: whole.nullable() }),
  ),
  /** Who may have paid: of a difference, or of a Stripe event that waits. */
  "finance.suggest_payers": operation(
    z
      .object({
        difference_id: z.string().max(512).nullable(),
        event_id: z.string().max(255).nullable(),
      })
      .strict(),
    z.object({ payers: z.array(payer) }),
  ),
  /** Days of UTC, both included. Source: console_revenue, counted from the ledger as it grows. */
  "finance.revenue": operation(
    z.object({ from: day, to: day, step: z.enum(["day", "week", "month"]) }).strict(),
    revenue.extend({ as_of: instant.nullable() }),
  ),
} as const;
