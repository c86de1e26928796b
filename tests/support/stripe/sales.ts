/** Sales through Stripe as its events tell them, and what the books and the finance desk then say. */
import { createHash } from "node:crypto";
import { expect } from "vitest";
import { reconcile } from "../../../shared/governance/reconciliation/index.ts";
import { subscriptionPreset } from "../models/subscription-model.ts";
import { openProject, type Project } from "../project.ts";
import { event, type StripeEvent } from "./events.ts";

export const now = Date.parse("2027-03-10T12:00:00Z") / 1000;
export const day = 86_400;
export type Extra = Record<string, unknown>;

export const item = (price: Extra, extra: Extra = {}): object => ({
  id: `si_${String(price["id"])}`,
  price,
  ...extra,
});
export const subscription = (
  id: string,
  metadata: object,
  items: readonly object[] = [],
  extra: Extra = {},
): object => ({
  id: `sub_${id}`,
  object: "subscription",
  status: "active",
  customer: `cus_${id}`,
  metadata,
  items: { object: "list", data: items },
  ...extra,
});
/** A line as written from 2025-03-31 on: its price is an id. */
export const line = (id: string, amount: number, price: string, extra: Extra = {}): Extra => ({
  id: `il_${id}`,
  object: "line_item",
  amount,
  currency: "usd",
  quantity: 1,
  metadata: {},
  period: { start: now, end: now + 30 * day },
  parent: { type: "subscription_item_details", subscription_item_details: { proration: false } },
  pricing: { type: "price_details", price_details: { price, product: `prod_${price}` } },
  ...extra,
});
export const proration = {
  parent: { type: "subscription_item_details", subscription_item_details: { proration: true } },
};
export const alone = { parent: { type: "invoice_item_details", invoice_item_details: { proration: false } } };
export const period = (from: number, to: number): Extra => ({
  period: { start: now + from * day, end: now + to * day },
});
export const invoice = (id: string, metadata: object, lines: readonly Extra[], extra: Extra = {}): object => {
  const sum = lines.reduce((total, one) => total + (one["amount"] as number), 0);
  const of = id.split("_")[0] ?? id;
  return {
    id: `in_${id}`,
    object: "invoice",
    status: "paid",
    customer: `cus_${of}`,
    currency: "usd",
    amount_due: sum,
    amount_paid: Math.max(sum, 0),
    total: sum,
    created: now,
    metadata: {},
    parent: {
      type: "subscription_details",
      subscription_details: { subscription: `sub_${of}`, metadata },
    },
    lines: { object: "list", has_more: false, data: lines },
    ...extra,
  };
};
export const created = (object: object): StripeEvent => event("customer.subscription.created", object);
export const updated = (object: object): StripeEvent => event("customer.subscription.updated", object);
export const paid = (object: object): StripeEvent => event("invoice.paid", object);
export const paymentOf = (invoiceId: string, intent: string, amount: number): StripeEvent =>
  event("invoice_payment.paid", {
    id: `inpay_${intent}`,
    object: "invoice_payment",
    invoice: `in_${invoiceId}`,
    amount_paid: amount,
    status: "paid",
    payment: { type: "payment_intent", payment_intent: `pi_${intent}` },
  });
export const charge = (id: string, amount: number, extra: Extra = {}): StripeEvent =>
  event("charge.succeeded", {
    id: `ch_${id}`,
    object: "charge",
    amount,
    amount_captured: amount,
    amount_refunded: 0,
    captured: true,
    currency: "usd",
    payment_intent: `pi_${id}`,
    status: "succeeded",
    created: now,
    metadata: {},
    ...extra,
  });

/** A row of a Payments export. */
export const row = (id: string, amount: string, invoiceId: string): string =>
  `ch_${id},2027-03-10 12:00:00,${amount},0.00,usd,true,0.50,Paid,pi_${id},in_${invoiceId}`;

/** A project that sells plans and a pack, at a moment that stands still. */
export async function openShop(): Promise<Project> {
  const project = await openProject(18);
  await project.rpc("apply_preset", {
    p_preset: {
      ...subscriptionPreset,
      packs: [{ pack_id: "pack", tokens: 500_000, price_minor: 1_000, currency: "usd" }],
    },
  });
  await project.setClock(new Date(now * 1000).toISOString(), true);
  return project;
}

/** Closes it where its books are sound. */
export async function closeShop(project: Project): Promise<void> {
  expect((await project.call("verify_ledger"))["problems"]).toEqual([]);
  expect((await project.call("verify_purchases"))["problems"]).toEqual([]);
  await project.close();
}

/** Sending events to a project, and looking at what came of them. */
export function salesOf(project: () => Project) {
  async function send(...events: readonly StripeEvent[]): Promise<string[]> {
    const told: string[] = [];
    for (const one of events) {
      const { status, reason } = await project().rpc<{ status: string; reason: string | null }>(
        "process_stripe_event",
        { p_event: JSON.stringify(one) },
      );
      told.push([status, reason].filter(Boolean).join(" "));
    }
    return told;
  }
  const join = (...users: readonly string[]): Promise<unknown> =>
    project().sql.query("select upsert_account(u) from unnest($1::text[]) u", [users]);
  /** Plan, and lots as "granted until day: money". */
  async function found(userId: string): Promise<{ plan: string; lots: string[] }> {
    return project().one(
      `select a.plan_id as plan, coalesce((select array_agg(format('%s until %s: %s', l.granted,
           round(extract(epoch from l.expires_at - governance.now()) / 86400), l.amount_minor) order by l.lot_id)
         from governance.lots l where l.account_id = a.account_id), '{}') as lots
       from governance.accounts a where a.user_id = $1`,
      [userId],
    );
  }
  /** What the books have for each sale, and what covered the rest. */
  async function booked(userId: string): Promise<unknown[]> {
    const { rows } = await project().sql.query(
      `select r.collected_minor::int as collected, r.covered_minor::int as covered, r.covered_by as by
       from governance.purchase_records r join governance.accounts a using (account_id)
       where a.user_id = $1 order by r.transaction_id`,
      [userId],
    );
    return rows;
  }
  async function desk(userId: string, csv: readonly string[]): Promise<unknown> {
    const from = new Date((now - day) * 1000).toISOString();
    const to = new Date((now + day) * 1000).toISOString();
    const { records } = await project().rpc<{ records: { user_id: string }[] }>(
      "console_ledger_purchases_since",
      {
        p_limit: 20_000,
        p_from: from,
        p_to: to,
      },
    );
    const text = [
      "id,Created date (UTC),Amount,Amount Refunded,Currency,Captured,Fee,Status,PaymentIntent ID,Invoice ID",
      ...csv,
    ].join("\n");
    const report = await reconcile({
      stripeFiles: [
        {
          name: "payments.csv",
          size_bytes: null,
          chunks: (async function* () {
            yield new TextEncoder().encode(text);
          })(),
        },
      ],
      ledger: (async function* () {
        yield records.filter((one) => one.user_id === userId);
      })() as never,
      period: { from, to },
      options: {
        create_sha256: () => createHash("sha256"),
        ledger_through: new Date((now + 4 * day) * 1000).toISOString(),
        packs: await project().rpc("console_pack_prices"),
      },
    } as never);
    if (!report.ok) throw new Error(JSON.stringify(report.error));
    const { tied_out, differences } = report.value;
    return { tied_out, differences: differences.map((one) => `${one.class}: ${one.explanation}`) };
  }

  return { send, join, found, booked, desk };
}
