/**
 * One rule for the ledger and the finance desk: each kind of sale that Stripe makes is taken from its events, and a
 * Payments export of the same sales is then reconciled against the ledger. What was sold correctly ties out.
 */
import { createHash } from "node:crypto";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import {
  type KnownPayments,
  type LedgerRecord,
  type PackPrice,
  type Report,
  reconcile,
} from "../../../shared/governance/reconciliation/index.ts";
import { subscriptionPreset } from "../../support/models/subscription-model.ts";
import { openProject, type Project } from "../../support/project.ts";
import { event } from "../../support/stripe/events.ts";

const now = Math.floor(Date.parse("2027-03-10T12:00:00Z") / 1000);
const iso = (seconds: number): string => new Date(seconds * 1000).toISOString();
const period = { from: iso(now - 86_400), to: iso(now + 86_400) };
const month = { start: now, end: now + 30 * 86_400 };

interface Row {
  readonly name: string;
  readonly amount: number;
  readonly currency?: string;
  readonly invoice?: string;
}
interface Balance {
  readonly plan: string;
  readonly subscription: number;
  readonly purchased: number;
  readonly debt: number;
}

let project: Project;
let rows: Row[] = [];
let disputes: string[] = [];
/** Rows of a balance history, which then stands instead of the payments. */
let balanceRows: string[] = [];
const users = new Set<string>();

beforeAll(async () => {
  project = await openProject(18);
  const pack = { tokens: 500_000, price_minor: 1_000 };
  const noTopUp = { ...subscriptionPreset.plans[0], plan_id: "fixed", name: "fixed", allows_top_up: false };
  await project.rpc("apply_preset", {
    p_preset: {
      ...subscriptionPreset,
      plans: [...subscriptionPreset.plans, noTopUp],
      packs: [
        { ...pack, pack_id: "pack", currency: "usd" },
        { ...pack, pack_id: "pack-eur", currency: "eur" },
        { ...pack, pack_id: "pack-basic", currency: "usd", plans: ["basic"] },
      ],
    },
  });
  await project.setClock(iso(now), true);
});
afterAll(() => project.close());
beforeEach(() => {
  rows = [];
  disputes = [];
  balanceRows = [];
  users.clear();
});

async function user(name: string, plan = "free"): Promise<void> {
  users.add(name);
  await project.rpc("upsert_account", { p_user_id: name, p_plan_id: plan });
}
interface Said {
  readonly status: string;
  readonly reason: string | null;
}
const tell = (type: string, object: object, changes: object = {}): Promise<Said> =>
  project.rpc("process_stripe_event", { p_event: { ...event(type, object, { created: now }), ...changes } });
const balance = (name: string): Promise<Balance> =>
  project.one(
    `select plan_id as plan, subscription_tokens::int as subscription, purchased_tokens::int as purchased,
       debt_tokens::int as debt from governance.accounts where user_id = $1`,
    [name],
  );

const balanceHeader =
  "id,Type,Source,Amount,Fee,Net,Currency,Created (UTC),Available On (UTC),Description,Customer Facing Amount,Customer Facing Currency";
const inBalance = (type: string, source: string, settled: number, paid: number): string => {
  const [amount, facing] = [settled, paid].map((minor) => (minor / 100).toFixed(2));
  const at = iso(now).slice(0, 16).replace("T", " ");
  return `txn_${type}_${source},${type},${source},${amount},0.00,${amount},eur,${at},${at},x,${facing},usd`;
};

/** The reconciliation of the test's users with an export that shows what was charged. */
async function desk(): Promise<Report> {
  const { records } = await project.rpc<{ records: LedgerRecord[] }>("console_ledger_purchases_since", {
    p_limit: 20_000,
  });
  const header =
    "id,Created date (UTC),Amount,Amount Refunded,Currency,Captured,Fee,Status,PaymentIntent ID,Invoice ID";
  const lines = rows.map(
    ({ name, amount, currency = "usd", invoice = "" }) =>
      `ch_${name},${iso(now).slice(0, 19).replace("T", " ")},${(amount / 100).toFixed(2)},0.00,${currency},true,0.50,Paid,pi_${name},${invoice}`,
  );
  const file = (name: string, body: string): object => ({
    name,
    size_bytes: null,
    chunks: (async function* () {
      yield new TextEncoder().encode(body);
    })(),
  });
  const answer = await reconcile({
    stripeFiles: [
      balanceRows.length > 0
        ? file("balance.csv", [balanceHeader, ...balanceRows].join("\n"))
        : file("payments.csv", [header, ...lines].join("\n")),
      ...(disputes.length > 0 ? [file("disputes.csv", disputes.join("\n"))] : []),
    ] as Parameters<typeof reconcile>[0]["stripeFiles"],
    ledger: (async function* () {
      yield records.filter((record) => users.has(record.user_id));
    })(),
    period,
    options: {
      create_sha256: () => createHash("sha256"),
      ledger_through: iso(now + 4 * 86_400),
      packs: await project.rpc<PackPrice[]>("console_pack_prices"),
      known_payments: await project.rpc<KnownPayments>("console_known_payments", {
        p_from: period.from,
        p_to: period.to,
      }),
    },
  });
  if (!answer.ok) throw new Error(JSON.stringify(answer.error));
  return answer.value;
}
async function expectTiedOut(): Promise<void> {
  const report = await desk();
  expect(report.differences).toEqual([]);
  expect(report.tied_out).toBe(true);
}

/** Stripe says that a payment came in, and the export shows it. */
async function charged(name: string, amount: number, changes: Partial<Row> = {}): Promise<void> {
  rows.push({ name, amount, ...changes });
  await tell("charge.succeeded", {
    id: `ch_${name}`,
    object: "charge",
    amount,
    amount_captured: amount,
    amount_refunded: 0,
    captured: true,
    status: "succeeded",
    currency: changes.currency ?? "usd",
    payment_intent: `pi_${name}`,
  });
}

describe("packs sold by Checkout", () => {
  const sold = (name: string, changes: object): Promise<Said> =>
    tell("checkout.session.completed", {
      id: `cs_${name}`,
      object: "checkout.session",
      mode: "payment",
      status: "complete",
      payment_status: "paid",
      amount_subtotal: 1_000,
      amount_total: 1_000,
      currency: "usd",
      payment_intent: `pi_${name}`,
      created: now,
      metadata: { user_id: name, pack_id: "pack" },
      ...changes,
    });

  it("with tax on top, with tax within, at a discount of 100 % or converted are granted at once and tie out", async () => {
    const ways: [string, number, string, object][] = [
      ["tax-on-top", 1_190, "usd", { amount_total: 1_190, total_details: { amount_tax: 190 } }],
      ["tax-within", 1_000, "usd", { total_details: { amount_tax: 160 } }],
      [
        "promotion",
        0,
        "usd",
        {
          amount_total: 0,
          payment_status: "no_payment_required",
          payment_intent: null,
          total_details: { amount_discount: 1_000 },
        },
      ],
      [
        "converted",
        920,
        "eur",
        {
          amount_total: 920,
          currency: "eur",
          currency_conversion: {
            amount_total: 1_000,
            amount_subtotal: 1_000,
            fx_rate: "0.92",
            source_currency: "usd",
          },
        },
      ],
    ];
    for (const [name, amount, currency, changes] of ways) {
      await user(name);
      expect(await sold(name, changes), name).toMatchObject({ status: "processed" });
      expect(await balance(name), name).toMatchObject({ purchased: 500_000 });
      if (amount > 0) await charged(name, amount, { currency });
    }
    await expectTiedOut();
  });

  it("for another amount than the pack's price, without a reason of Stripe's, wait for a person", async () => {
    await user("cheap");
    expect(await sold("cheap", { amount_total: 900 })).toMatchObject({
      status: "quarantined",
      reason: "amount_mismatch",
    });
    expect(await balance("cheap")).toMatchObject({ purchased: 0 });
  });

  it("to a plan that may not buy them wait for a person, with an alert", async () => {
    await user("fixed-1", "fixed");
    await user("free-1");
    expect(await sold("fixed-1", {})).toMatchObject({ status: "quarantined", reason: "plan_not_allowed" });
    expect(await sold("free-1", { metadata: { user_id: "free-1", pack_id: "pack-basic" } })).toMatchObject({
      status: "quarantined",
      reason: "plan_not_allowed",
    });
    expect(await balance("fixed-1")).toMatchObject({ purchased: 0 });
    const { alerts } = await project.one<{ alerts: number }>(
      `select count(*)::int as alerts from governance.alert_events
       where kind = 'webhook_quarantined' and details ->> 'reason' = 'plan_not_allowed'`,
    );
    expect(alerts).toBe(2);
  });

  it("by a connected account are not ours", async () => {
    await user("connected");
    const sale = { id: "cs_c", mode: "payment", metadata: { user_id: "connected", pack_id: "pack" } };
    expect(await tell("checkout.session.completed", sale, { account: "acct_1Connected" })).toMatchObject({
      status: "quarantined",
      reason: "connected_account",
    });
  });

  it.each([600, 800])("and disputed in another currency (%i) are disputed whole", async (amount) => {
    const name = `disputed-${amount}`;
    await user(name);
    await sold(name, { currency: "eur", metadata: { user_id: name, pack_id: "pack-eur" } });
    await charged(name, 1_000, { currency: "eur" });
    await tell("charge.dispute.closed", {
      id: `dp_${name}`,
      object: "dispute",
      amount,
      currency: "usd",
      charge: `ch_${name}`,
      payment_intent: `pi_${name}`,
      status: "lost",
    });
    expect(await balance(name)).toMatchObject({ purchased: 0, debt: 0 });
    disputes = [
      "id,Dispute Created (UTC),Dispute Amount,Dispute Currency,Charge Amount,Charge Currency,Charge ID,Status",
      `dp_${name},${iso(now).slice(0, 19).replace("T", " ")},${(amount / 100).toFixed(2)},usd,10.00,eur,ch_${name},lost`,
    ];
    await expectTiedOut();
  });
});

describe("a balance history, which names no payment of a refund", () => {
  async function bought(name: string): Promise<void> {
    await user(name);
    await tell("checkout.session.completed", {
      id: `cs_${name}`,
      object: "checkout.session",
      mode: "payment",
      payment_status: "paid",
      amount_total: 1_000,
      currency: "usd",
      payment_intent: `pi_${name}`,
      metadata: { user_id: name, pack_id: "pack" },
    });
    await charged(name, 1_000);
  }
  /** Stripe tells a refund twice, and the charge, which does not name it, may come first. */
  async function refunded(name: string, parts: readonly number[]): Promise<void> {
    const charge = { id: `ch_${name}`, object: "charge", amount: 1_000, amount_captured: 1_000 };
    const names = { payment_intent: `pi_${name}`, status: "succeeded", currency: "usd" };
    let sum = 0;
    for (const [n, amount] of parts.entries()) {
      sum += amount;
      await tell("charge.refunded", { ...charge, ...names, amount_refunded: sum });
      await tell("refund.created", {
        id: `re_${name}_${n}`,
        object: "refund",
        charge: charge.id,
        amount,
        ...names,
      });
    }
  }

  it("ties out with refunds at rates of their own days, in one part or more", async () => {
    await bought("whole");
    await refunded("whole", [1_000]);
    await bought("parts");
    await refunded("parts", [200, 300]);
    balanceRows = [
      inBalance("charge", "ch_whole", 920, 1_000),
      inBalance("refund", "re_whole_0", -930, -1_000),
      inBalance("charge", "ch_parts", 920, 1_000),
      inBalance("refund", "re_parts_0", -185, -200),
      inBalance("refund", "re_parts_1", -279, -300),
    ];
    await expectTiedOut();
  });

  it("ties out where the payment was before the period, and finds what was not taken back", async () => {
    await project.setClock(iso(now - 60 * 86_400), true);
    await bought("earlier");
    await project.setClock(iso(now), true);
    await refunded("earlier", [200, 300]);
    balanceRows = [
      inBalance("refund", "re_earlier_0", -184, -200),
      inBalance("refund", "re_earlier_1", -276, -300),
    ];
    await expectTiedOut();
    balanceRows.push(inBalance("refund", "re_untold", -92, -100));
    expect((await desk()).differences.map((one) => one.class)).toEqual(["REFUND_NOT_REVERSED"]);
  });
});

describe("invoices of subscriptions", () => {
  const line = (id: string, amount: number, changes: object = {}): object => ({
    id: `il_${id}`,
    object: "line_item",
    amount,
    currency: "usd",
    quantity: 1,
    metadata: {},
    period: month,
    parent: { type: "subscription_item_details", subscription_item_details: { proration: false } },
    ...changes,
  });
  const proration = (id: string, amount: number, plan: string): object =>
    line(id, amount, {
      metadata: { plan_id: plan },
      parent: { type: "subscription_item_details", subscription_item_details: { proration: true } },
    });
  async function invoiced(
    name: string,
    metadata: object,
    lines: readonly object[],
    paid: number,
    changes: object = {},
    payments: readonly number[] = paid > 0 ? [paid] : [],
  ): Promise<Said> {
    const total = lines.reduce<number>((sum, one) => sum + (one as { amount: number }).amount, 0);
    const said = await tell("invoice.paid", {
      id: `in_${name}`,
      object: "invoice",
      status: "paid",
      customer: `cus_${name}`,
      currency: "usd",
      amount_due: paid,
      amount_paid: paid,
      total,
      subtotal: total,
      metadata: {},
      parent: {
        type: "subscription_details",
        subscription_details: { subscription: `sub_${name}`, metadata },
      },
      lines: { object: "list", has_more: false, data: lines },
      ...changes,
    });
    for (const [n, amount] of payments.entries()) {
      const part = payments.length > 1 ? `${name}-${n}` : name;
      await tell("invoice_payment.paid", {
        id: `inpay_${part}`,
        object: "invoice_payment",
        invoice: `in_${name}`,
        amount_paid: amount,
        status: "paid",
        payment: { type: "payment_intent", payment_intent: `pi_${part}` },
      });
      await charged(part, amount, { invoice: `in_${name}` });
    }
    return said;
  }
  const booked = async (name: string): Promise<number> =>
    (
      await project.one<{ sum: number }>(
        `select coalesce(sum(l.amount_minor), 0)::int as sum from governance.lots l
         join governance.accounts a using (account_id) where a.user_id = $1`,
        [name],
      )
    ).sum;
  const basic = (name: string): object => ({ user_id: name, plan_id: "basic" });

  it("are booked at what was paid: at a discount, from a balance, on trial, outside of Stripe, with tax", async () => {
    const ways: [string, number, number, object][] = [
      ["plain", 2_000, 2_000, {}],
      ["coupon", 1_000, 1_000, { total: 1_000, total_discount_amounts: [{ amount: 1_000 }] }],
      ["balance", 1_500, 1_500, { starting_balance: -500, ending_balance: 0 }],
      ["taxed", 2_380, 2_000, { total: 2_380, total_excluding_tax: 2_000, total_taxes: [{ amount: 380 }] }],
      ["outside", 0, 2_000, { amount_paid: 2_000, amount_due: 2_000, paid_out_of_band: true }],
    ];
    for (const [name, collected, net, changes] of ways) {
      await user(name);
      await invoiced(name, basic(name), [line(name, 2_000)], collected, changes);
      expect(await balance(name), name).toMatchObject({ plan: "basic", subscription: 100_000 });
      expect(await booked(name), name).toBe(net);
    }
    await user("trial");
    await invoiced("trial", basic("trial"), [line("trial", 0)], 0);
    expect(await balance("trial")).toMatchObject({ subscription: 100_000 });
    expect(await booked("trial")).toBe(0);
    await expectTiedOut();
  });

  it("with several token lines and a coupon share what was paid, and tie out", async () => {
    await user("lines");
    const tokens = (id: string, amount: number, count: string): object =>
      line(id, amount, { metadata: { tokens: count } });
    await invoiced(
      "lines",
      { user_id: "lines" },
      [tokens("lines-a", 2_000, "20000"), tokens("lines-b", 1_000, "10000")],
      2_700,
      { total: 2_700 },
    );
    expect(await balance("lines")).toMatchObject({ subscription: 30_000 });
    expect(await booked("lines")).toBe(2_700);
    await expectTiedOut();
  });

  it("paid by two payments lose half of their tokens when one is refunded, and all with both", async () => {
    await user("halves");
    await invoiced("halves", basic("halves"), [line("halves", 2_000)], 2_000, {}, [1_000, 1_000]);
    await expectTiedOut();
    const refund = (part: string): Promise<Said> =>
      tell("charge.refunded", {
        id: `ch_${part}`,
        object: "charge",
        amount: 1_000,
        amount_captured: 1_000,
        amount_refunded: 1_000,
        status: "succeeded",
        currency: "usd",
        payment_intent: `pi_${part}`,
      });
    await refund("halves-1");
    expect(await balance("halves")).toMatchObject({ subscription: 50_000 });
    // A balance history names neither the invoice of a charge nor the charge of a refund: the project knows both.
    await tell("refund.created", {
      id: "re_halves",
      object: "refund",
      amount: 1_000,
      currency: "usd",
      charge: "ch_halves-1",
      payment_intent: "pi_halves-1",
      status: "succeeded",
    });
    balanceRows = [
      inBalance("charge", "ch_halves-0", 920, 1_000),
      inBalance("charge", "ch_halves-1", 920, 1_000),
      inBalance("refund", "re_halves", -920, -1_000),
    ];
    await expectTiedOut();
    balanceRows = [];
    await refund("halves-0");
    expect(await balance("halves")).toMatchObject({ subscription: 0 });
  });

  it("paid by two payments, one of them disputed in another currency, lose what that one paid", async () => {
    await user("quarter");
    await invoiced("quarter", basic("quarter"), [line("quarter", 2_000)], 2_000, {}, [500, 1_500]);
    await tell("charge.dispute.closed", {
      id: "dp_quarter",
      object: "dispute",
      amount: 460,
      currency: "eur",
      charge: "ch_quarter-0",
      payment_intent: "pi_quarter-0",
      status: "lost",
    });
    expect(await balance("quarter")).toMatchObject({ subscription: 75_000, debt: 0 });
    disputes = [
      "id,Dispute Created (UTC),Dispute Amount,Dispute Currency,Charge Amount,Charge Currency,Charge ID,Status",
      `dp_quarter,${iso(now).slice(0, 19).replace("T", " ")},4.60,eur,5.00,usd,ch_quarter-0,lost`,
    ];
    await expectTiedOut();
  });

  it("for a plan without an allowance, a fee or something else book nothing, and no grant of theirs is missing", async () => {
    await user("limited");
    const once = { parent: { type: "invoice_item_details", invoice_item_details: { proration: false } } };
    const fixed = { user_id: "limited", plan_id: "fixed" };
    await invoiced("limited", fixed, [line("limited", 2_000)], 2_000);
    expect(await balance("limited")).toMatchObject({ plan: "fixed", subscription: 0 });
    await invoiced("limited-fee", fixed, [line("limited-fee", 700, once)], 700);
    await invoiced("limited-work", {}, [line("limited-work", 900, once)], 900, { parent: null });
    expect(await booked("limited")).toBe(0);
    await expectTiedOut();
    expect((await desk()).stripe_rows.excluded).toEqual({ other_sale: 3 });
    // Whatever else is sold, an invoice that nobody has told of is still missing its grant.
    await charged("nobody-told", 2_000, { invoice: "in_nobody-told" });
    expect((await desk()).differences.map((one) => one.class)).toEqual(["SUB_PERIOD_GAP"]);
  });

  it("multiply a price's tokens by the quantity, and give a subscription's own tokens or plan once", async () => {
    await user("pieces");
    const price = { id: "price_1", metadata: { tokens: "1000" } };
    await invoiced("pieces", basic("pieces"), [line("pieces", 6_000, { quantity: 3, price })], 6_000);
    expect(await balance("pieces")).toMatchObject({ subscription: 3_000 });
    await user("copied");
    const own = { user_id: "copied", tokens: "50000" };
    // Stripe copies the subscription's metadata to each of its lines.
    const copies = [line("copied-a", 2_000, { metadata: own }), line("copied-b", 500, { metadata: own })];
    await invoiced("copied", own, copies, 2_500);
    expect(await balance("copied")).toMatchObject({ subscription: 50_000 });
    await user("seats");
    await invoiced("seats", basic("seats"), [line("seats-a", 2_000), line("seats-b", 500)], 2_500);
    expect(await balance("seats")).toMatchObject({ subscription: 100_000 });
    await expectTiedOut();
  });

  it("of an upgrade give the plan that was paid for and the rest of its tokens", async () => {
    await user("riser");
    await invoiced("riser", basic("riser"), [line("riser", 2_000)], 2_000);
    await invoiced(
      "riser-up",
      { user_id: "riser", plan_id: "pro" },
      [proration("riser-back", -1_000, "basic"), proration("riser-more", 3_000, "pro")],
      2_000,
      {
        parent: {
          type: "subscription_details",
          subscription_details: {
            subscription: "sub_riser",
            metadata: { user_id: "riser", plan_id: "pro" },
          },
        },
      },
    );
    expect(await balance("riser")).toMatchObject({ plan: "pro", subscription: 300_000 });
    expect(await booked("riser")).toBe(4_000);
    await expectTiedOut();
  });

  it("wait for a person where the event leaves lines out", async () => {
    await user("many");
    const ten = Array.from({ length: 10 }, (_, n) =>
      line(`many-${n}`, 100, { metadata: { tokens: "1000" } }),
    );
    const lines = { object: "list", has_more: true, data: ten };
    expect(await invoiced("many", basic("many"), ten, 1_200, { total: 1_200, lines })).toMatchObject({
      status: "quarantined",
      reason: "lines_missing",
    });
    expect(await balance("many")).toMatchObject({ subscription: 0 });
  });

  it("that several of a customer's waited are taken up once it is known whose they are", async () => {
    await user("late");
    for (const n of [1, 2, 3]) {
      const changes = {
        id: `in_late_${n}`,
        customer: "cus_late",
        parent: {
          type: "subscription_details",
          subscription_details: { subscription: "sub_late", metadata: {} },
        },
      };
      const unknown = line(`late-${n}`, 2_000, {
        period: { start: now - (3 - n) * 100, end: now + 30 * 86_400 },
      });
      expect(await invoiced(`late-${n}`, {}, [unknown], 0, changes)).toMatchObject({
        reason: "not_known_yet",
      });
    }
    await tell("checkout.session.completed", {
      id: "cs_late",
      mode: "subscription",
      subscription: "sub_late",
      customer: "cus_late",
      metadata: { user_id: "late", plan_id: "basic" },
    });
    expect(await balance("late")).toMatchObject({ plan: "basic", subscription: 100_000 });
  });
});
