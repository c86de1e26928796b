/**
 * Ways of selling that Stripe allows beside the plain ones: trials that end early, periods begun again, plans and tokens
 * named by a price alone, other prices beside the plan, single invoices, charges without PaymentIntents. Each in the
 * order in which it happens and, where that matters, in another.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Project } from "../../support/project.ts";
import { event, type StripeEvent } from "../../support/stripe/events.ts";
import {
  now,
  day,
  type Extra,
  item,
  subscription,
  line,
  proration,
  alone,
  period,
  invoice,
  created,
  updated,
  paid,
  paymentOf,
  charge,
  row,
  salesOf,
  openShop,
  closeShop,
} from "../../support/stripe/sales.ts";

describe("what is sold through Stripe in other ways", () => {
  let project: Project;
  const { send, join, found, booked, desk } = salesOf(() => project);
  beforeAll(async () => {
    project = await openShop();
  });
  afterAll(() => closeShop(project));

  it("a trial that is paid before its end gives the paid period its own tokens", async () => {
    await join("trial");
    const of = { user_id: "trial", plan_id: "basic" };
    await send(
      created(subscription("trial", of)),
      paid(invoice("trial", of, [line("trial", 0, "p", period(-5, 9))])),
      paid(invoice("trial_2", of, [line("trial_2", 2_000, "p")])),
    );
    expect(await found("trial")).toEqual({
      plan: "basic",
      lots: ["100000 until 9: 0", "100000 until 30: 2000"],
    });
  });

  it("an upgrade adds to the period that it credits, and leaves a trial that was paid before its end its own", async () => {
    await join("tried");
    const of = (plan_id: string): object => ({ user_id: "tried", plan_id });
    await send(
      created(subscription("tried", of("basic"))),
      paid(invoice("tried", of("basic"), [line("tried", 0, "p", period(-13, 1))])),
      paid(invoice("tried_2", of("basic"), [line("tried_2", 2_000, "p", period(-1, 29))])),
      paid(
        invoice("tried_3", of("pro"), [
          line("tried_3", -1_900, "p", { ...period(0, 29), ...proration }),
          line("tried_4", 5_700, "q", { ...period(0, 29), ...proration, metadata: of("pro") }),
        ]),
      ),
    );
    expect(await found("tried")).toEqual({
      plan: "pro",
      lots: ["100000 until 1: 0", "100000 until 29: 2000", "200000 until 29: 3800"],
    });
  });

  it("a period that begins again with a credit takes over what the old one gave, until its own end", async () => {
    await join("anew");
    const of = (plan_id: string): object => ({ user_id: "anew", plan_id });
    await send(
      created(subscription("anew", of("basic"))),
      paid(invoice("anew", of("basic"), [line("anew", 2_000, "p", period(-10, 20))])),
      paid(
        invoice("anew_2", of("pro"), [
          line("anew_2", -1_333, "p", { ...period(0, 20), ...proration }),
          line("anew_3", 6_000, "q"),
        ]),
      ),
    );
    expect(await found("anew")).toEqual({
      plan: "pro",
      lots: ["100000 until 30: 2000", "200000 until 30: 4667"],
    });
  });

  for (const order of ["in order", "invoice first"] as const) {
    const name = order.replace(" ", "-");
    const told = (events: StripeEvent[]): StripeEvent[] => (order === "in order" ? events : events.reverse());

    it(`a plan that its price alone names is changed by the price, ${order}`, async () => {
      const userId = `priced-${name}`;
      const of = { user_id: userId };
      const at = (plan: string): object =>
        subscription(userId, of, [item({ id: `price_${plan}_${name}`, lookup_key: plan })]);
      await join(userId);
      await send(
        created(at("basic")),
        paid(invoice(userId, of, [line(userId, 2_000, `price_basic_${name}`, period(-10, 20))])),
        ...told([
          updated(at("pro")),
          paid(
            invoice(`${userId}_2`, of, [
              line(`${userId}_2`, -1_333, `price_basic_${name}`, { ...period(0, 20), ...proration }),
              line(`${userId}_3`, 4_000, `price_pro_${name}`, { ...period(0, 20), ...proration }),
            ]),
          ),
        ]),
      );
      expect(await found(userId)).toEqual({
        plan: "pro",
        lots: ["100000 until 20: 2000", "200000 until 20: 2667"],
      });
    });

    it(`tokens that the price names on the subscription alone are granted, ${order}`, async () => {
      const userId = `tokens-${name}`;
      await join(userId);
      await send(
        ...told([
          created(
            subscription(userId, { user_id: userId }, [
              item({ id: `price_tokens_${name}`, metadata: { tokens: "1000" } }, { quantity: 3 }),
            ]),
          ),
          paid(
            invoice(userId, { user_id: userId }, [
              line(userId, 6_000, `price_tokens_${name}`, { quantity: 3 }),
            ]),
          ),
        ]),
      );
      expect((await found(userId)).lots).toEqual(["3000 until 30: 6000"]);
    });

    it(`tokens that the Checkout Session alone names are granted, ${order}`, async () => {
      const userId = `session-${name}`;
      await join(userId);
      await send(
        ...told([
          event("checkout.session.completed", {
            id: `cs_${userId}`,
            object: "checkout.session",
            mode: "subscription",
            payment_status: "paid",
            subscription: `sub_${userId}`,
            customer: `cus_${userId}`,
            metadata: { user_id: userId, tokens: "50000" },
          }),
          paid(invoice(userId, {}, [line(userId, 2_000, "price_unnamed")])),
        ]),
      );
      expect((await found(userId)).lots).toEqual(["50000 until 30: 2000"]);
    });

    it(`a Checkout Session that makes an invoice is one sale, ${order}`, async () => {
      const userId = `invoiced-${name}`;
      const metadata = { user_id: userId, pack_id: "pack" };
      await join(userId);
      const answers = await send(
        ...told([
          event("checkout.session.completed", {
            id: `cs_${userId}`,
            object: "checkout.session",
            mode: "payment",
            payment_status: "paid",
            amount_total: 1_000,
            currency: "usd",
            payment_intent: `pi_${userId}`,
            invoice: `in_${userId}`,
            created: now,
            metadata,
          }),
          paid(invoice(userId, {}, [line(userId, 1_000, "p", alone)], { parent: null, metadata })),
        ]),
        paymentOf(userId, userId, 1_000),
      );
      expect(answers).toEqual(["processed", "processed already_granted", "processed"]);
      expect(await found(userId)).toMatchObject({ lots: [expect.stringMatching(/^500000 .*: 1000$/)] });
    });
  }

  for (const isTold of [true, false])
    it(`a price that nobody told of is the subscription's plan ${isTold ? "where its items were told since" : "only once its items are told"}`, async () => {
      const name = isTold ? "told" : "untold";
      await join(name);
      const items = [item({ id: `p_${name}`, lookup_key: "basic", metadata: {} })];
      const told = (at: number): StripeEvent =>
        event("customer.subscription.updated", subscription(name, { user_id: name }, items), { created: at });
      const answer = await project.call(
        "process_stripe_event",
        JSON.stringify(told(isTold ? now + 1 : now - day)),
      );
      expect(answer).toMatchObject({ status: "processed" });
      const first = await project.call(
        "process_stripe_event",
        JSON.stringify(
          paid(invoice(name, { user_id: name }, [line(name, 2_000, `another_${name}`)], { created: now })),
        ),
      );
      expect(first).toMatchObject(isTold ? { status: "processed" } : { reason: "unknown_plan" });
      // Told of again, and still without this price: it was the plan's all the same.
      if (!isTold) await send(told(now + 1));
      expect(await found(name)).toEqual({ plan: "basic", lots: ["100000 until 30: 2000"] });
    });

  it("a change of plan in Stripe's portal, which leaves the metadata as it was, follows the price", async () => {
    await join("portal");
    const of = { user_id: "portal", plan_id: "basic" };
    await send(
      created(subscription("portal", of, [item({ id: "portal_basic", lookup_key: "basic" })])),
      paid(invoice("portal", of, [line("portal", 2_000, "portal_basic", period(-30, 0))])),
      updated(subscription("portal", of, [item({ id: "portal_pro", lookup_key: "pro" })])),
      paid(invoice("portal_2", of, [line("portal_2", 6_000, "portal_pro")])),
    );
    expect(await found("portal")).toMatchObject({
      plan: "pro",
      lots: [expect.stringMatching(/^100000/), "300000 until 30: 6000"],
    });
  });

  it("the plan may be any item of a subscription, and what is sold beside it is not booked for tokens", async () => {
    await join("beside");
    const of = { user_id: "beside" };
    await send(
      created(
        subscription("beside", of, [
          item({ id: "beside_seat", lookup_key: "seat" }),
          item({ id: "beside_basic", lookup_key: "basic" }),
        ]),
      ),
      paid(
        invoice("beside", of, [line("beside", 500, "beside_seat"), line("beside_2", 2_000, "beside_basic")]),
      ),
      paymentOf("beside", "beside", 2_500),
      charge("beside", 2_500),
    );
    expect((await found("beside")).lots).toEqual(["100000 until 30: 2000"]);
    expect(await desk("beside", [row("beside", "25.00", "beside")])).toEqual({
      tied_out: true,
      differences: [],
    });
  });

  it("metadata that older versions copy to each line is the subscription's, once", async () => {
    await join("older");
    const metadata = { user_id: "older", tokens: "50000" };
    const old = { parent: undefined, type: "subscription", subscription: "sub_older", metadata };
    await send(
      paid(
        invoice("older", {}, [line("older", 2_000, "p", old), line("older_2", 500, "q", old)], {
          parent: undefined,
          subscription: "sub_older",
        }),
      ),
    );
    expect((await found("older")).lots).toEqual(["50000 until 30: 2500"]);
  });

  it("a price that a line tells in full names the plan or tokens, wherever its API version has it", async () => {
    await join("full-old", "full-new", "full-tokens");
    const basic = { object: "price", lookup_key: "basic", metadata: {} };
    const inPricing = (price: object): Extra => ({
      pricing: { type: "price_details", price_details: { price, product: "prod" } },
    });
    const of = (user_id: string): object => ({ user_id });
    expect(
      await send(
        paid(
          invoice("full-old", of("full-old"), [
            line("full-old", 2_000, "p", { pricing: null, price: { ...basic, id: "price_old" } }),
          ]),
        ),
        paid(
          invoice("full-new", of("full-new"), [
            line("full-new", 2_000, "p", inPricing({ ...basic, id: "price_new" })),
          ]),
        ),
        paid(
          invoice("full-tokens", of("full-tokens"), [
            line("full-tokens", 2_000, "p", {
              quantity: 2,
              ...inPricing({ id: "price_tokens", metadata: { tokens: "1500" } }),
            }),
          ]),
        ),
      ),
    ).toEqual(["processed", "processed", "processed"]);
    expect(await found("full-old")).toEqual({ plan: "basic", lots: ["100000 until 30: 2000"] });
    expect(await found("full-new")).toEqual({ plan: "basic", lots: ["100000 until 30: 2000"] });
    expect((await found("full-tokens")).lots).toEqual(["3000 until 30: 2000"]);
  });

  it("tokens named by a plan object, as before there were prices, are granted", async () => {
    await join("plan-object");
    const old = {
      parent: undefined,
      pricing: undefined,
      type: "subscription",
      plan: { id: "p", metadata: { tokens: "7000" } },
    };
    await send(
      paid(
        invoice("plan-object", {}, [line("plan-object", 2_000, "p", old)], {
          parent: undefined,
          subscription: "sub_plan-object",
          subscription_details: { metadata: { user_id: "plan-object" } },
        }),
      ),
    );
    expect((await found("plan-object")).lots).toEqual(["7000 until 30: 2000"]);
  });

  it("what was owed from before, a credit note and a credit are no part of the price, and are said", async () => {
    await join("owed", "noted", "lower");
    const of = (user_id: string, plan_id = "basic"): object => ({ user_id, plan_id });
    await send(
      paymentOf("owed", "owed", 2_500),
      paid(invoice("owed", of("owed"), [line("owed", 2_000, "p")], { amount_paid: 2_500 })),
      charge("owed", 2_500),
      paid(
        invoice("noted", of("noted"), [line("noted", 2_000, "p")], {
          amount_paid: 1_500,
          pre_payment_credit_notes_amount: 500,
        }),
      ),
      paid(invoice("lower", of("lower", "pro"), [line("lower", 6_000, "p", period(-10, 20))])),
      paid(
        invoice("lower_2", of("lower"), [
          line("lower_2", -4_000, "p", { ...period(0, 20), ...proration, metadata: { plan_id: "pro" } }),
          line("lower_3", 1_333, "q", { ...period(0, 20), ...proration }),
        ]),
      ),
    );
    expect((await found("owed")).lots).toEqual(["100000 until 30: 2000"]);
    expect(await desk("owed", [row("owed", "25.00", "owed")])).toEqual({ tied_out: true, differences: [] });
    expect(await booked("noted")).toEqual([{ collected: 1_500, covered: 500, by: "credit note" }]);
    expect(await booked("lower")).toEqual([
      { collected: 6_000, covered: null, by: null },
      { collected: 0, covered: 1_333, by: "credit" },
    ]);
  });

  it("what nobody paid through Stripe is covered line by line: all of what is free, billing credits, payments elsewhere", async () => {
    await join("free", "mine", "credited", "elsewhere");
    const off = (amount: number): Extra => ({ discount_amounts: [{ amount, discount: "di" }] });
    const credit = (amount: number): object[] => [
      { amount, type: "credit_balance_transaction", credit_balance_transaction: "cbtxn" },
      { amount: 100, type: "discount", discount: "di" },
    ];
    const setup = (id: string): Extra =>
      line(id, 1_000, "q", { parent: { type: "invoice_item_details", invoice_item_details: {} } });
    await send(
      paid(
        invoice("free", { user_id: "free", plan_id: "basic" }, [line("free", 2_000, "p", off(2_000))], {
          amount_paid: 0,
          total: 0,
          total_discount_amounts: [{ amount: 2_000, discount: "di" }],
        }),
      ),
      paid(
        invoice(
          "mine",
          { user_id: "mine", plan_id: "basic" },
          [line("mine", 2_000, "p", off(500)), setup("mine2")],
          { amount_paid: 2_500, total: 2_500, total_discount_amounts: [{ amount: 500, discount: "di" }] },
        ),
      ),
      // From 2024-10-28 credits lie beside the discounts, which are told there again.
      paid(
        invoice(
          "credited",
          { user_id: "credited", plan_id: "basic" },
          [
            line("credited", 2_000, "p", { ...off(100), pretax_credit_amounts: credit(1_400) }),
            setup("credited2"),
          ],
          {
            amount_paid: 1_500,
            total: 1_500,
            total_discount_amounts: [{ amount: 100, discount: "di" }],
            total_pretax_credit_amounts: credit(1_400),
          },
        ),
      ),
      paid(
        invoice("elsewhere", { user_id: "elsewhere", plan_id: "basic" }, [line("elsewhere", 2_000, "p")], {
          payments: {
            object: "list",
            has_more: false,
            data: [
              { amount_paid: 1_500, status: "paid", payment: { type: "payment_record" } },
              {
                amount_paid: 500,
                status: "paid",
                payment: { type: "payment_intent", payment_intent: "pi_e" },
              },
              { amount_paid: null, status: "canceled", payment: { type: "payment_record" } },
            ],
          },
        }),
      ),
    );
    expect(await booked("free")).toEqual([{ collected: 0, covered: 2_000, by: "discount" }]);
    expect(await booked("mine")).toEqual([{ collected: 1_500, covered: 500, by: "discount" }]);
    expect(await booked("credited")).toEqual([
      { collected: 500, covered: 1_500, by: "discount, billing credits" },
    ]);
    expect((await found("credited")).lots).toEqual(["100000 until 30: 500"]);
    expect(await booked("elsewhere")).toEqual([
      { collected: 500, covered: 1_500, by: "paid outside of Stripe" },
    ]);
    expect((await found("elsewhere")).lots).toEqual(["100000 until 30: 2000"]);
  });

  it("an invoice that arrives before the Checkout Session that sold by it is no other sale", async () => {
    await join("early-invoice");
    const id = "early-invoice";
    await send(
      paymentOf(id, id, 1_000),
      paid(invoice(id, {}, [line(id, 1_000, "p", alone)], { parent: null })),
      event("checkout.session.completed", {
        id: `cs_${id}`,
        object: "checkout.session",
        mode: "payment",
        payment_status: "paid",
        amount_total: 1_000,
        currency: "usd",
        payment_intent: `pi_${id}`,
        invoice: `in_${id}`,
        created: now,
        metadata: { user_id: id, pack_id: "pack" },
      }),
    );
    expect((await found(id)).lots).toHaveLength(1);
    const known = await project.rpc<{ other_sales: string[] }>("console_known_payments", {
      p_from: new Date((now - day) * 1000).toISOString(),
      p_to: new Date((now + day) * 1000).toISOString(),
    });
    expect(known.other_sales).not.toContain(`in_${id}`);
  });

  it("a refund of a customer's cash balance changes no tokens, and waits for no person", async () => {
    const refund = { id: "re_cash", object: "refund", amount: 500, currency: "usd", status: "pending" };
    expect(await send(event("refund.created", { ...refund, charge: null, payment_intent: null }))).toEqual([
      "ignored not_a_token_purchase",
    ]);
  });

  it("a single invoice and a charge of its own sell a pack, and are refunded as others are", async () => {
    await join("single", "charged");
    const metadata = (user_id: string): object => ({ user_id, pack_id: "pack" });
    await send(
      paid(
        invoice("single", {}, [line("single", 1_000, "p", alone)], {
          parent: null,
          metadata: metadata("single"),
        }),
      ),
      charge("charged", 1_000, { payment_intent: null, metadata: metadata("charged") }),
      event("charge.refunded", {
        ...charge("charged", 1_000, {
          payment_intent: null,
          metadata: metadata("charged"),
          amount_refunded: 250,
        }).data.object,
      }),
    );
    expect(await project.call("get_user_token_balance", "single")).toBe(500_000);
    expect(await project.call("get_user_token_balance", "charged")).toBe(375_000);
  });

  it("tokens that an item names which is sold once are kept, on a subscription's invoice and on one of its own", async () => {
    await join("once", "lined", "priced", "packed");
    // Stripe writes the moment of such an item as a period without length.
    const once = { ...alone, ...period(0, 0) };
    const single = (user_id: string): Extra => ({ parent: null, metadata: { user_id } });
    await send(
      paid(
        invoice("once", { user_id: "once", plan_id: "basic" }, [
          line("once1", 2_000, "p", { metadata: { user_id: "once", plan_id: "basic" } }),
          line("once2", 500, "p2", { ...once, metadata: { tokens: "7000" } }),
        ]),
      ),
      paid(
        invoice(
          "lined",
          {},
          [line("lined", 900, "p", { ...once, metadata: { tokens: "9000" } })],
          single("lined"),
        ),
      ),
      paid(
        invoice(
          "priced",
          {},
          [
            line("priced", 900, "p", {
              ...once,
              quantity: 3,
              price: { id: "p9", metadata: { tokens: "1000" } },
            }),
          ],
          single("priced"),
        ),
      ),
      paid(
        invoice(
          "packed",
          {},
          [line("packed", 1_000, "p", { ...once, metadata: { pack_id: "pack" } })],
          single("packed"),
        ),
      ),
    );
    const balances = await project.sql.query<{ user_id: string; subscription: number; purchased: number }>(
      `select user_id, subscription_tokens::int as subscription, purchased_tokens::int as purchased
       from governance.accounts where user_id in ('once', 'lined', 'priced', 'packed') order by user_id`,
    );
    expect(balances.rows).toEqual([
      { user_id: "lined", subscription: 0, purchased: 9_000 },
      { user_id: "once", subscription: 100_000, purchased: 7_000 },
      { user_id: "packed", subscription: 0, purchased: 500_000 },
      { user_id: "priced", subscription: 0, purchased: 3_000 },
    ]);
    expect(await booked("once")).toEqual([
      { collected: 2_000, covered: null, by: null },
      { collected: 500, covered: null, by: null },
    ]);
    expect(await desk("lined", [row("lined", "9.00", "lined")])).toEqual({ tied_out: true, differences: [] });
    // A refund takes its part back, as of a pack.
    await send(
      paymentOf("lined", "lined", 900),
      charge("lined", 900),
      event("charge.refunded", charge("lined", 900, { amount_refunded: 300 }).data.object),
    );
    expect(await project.call("get_user_token_balance", "lined")).toBe(6_000);
  });

  it("an invoice whose metadata names a user that is not known yet waits, though its subscription was another's", async () => {
    await join("known");
    const metadata = { user_id: "known", plan_id: "basic" };
    await send(
      created(subscription("left", metadata)),
      paid(invoice("left_1", metadata, [line("left1", 2_000, "p")])),
    );
    const answer = await project.call(
      "process_stripe_event",
      JSON.stringify(
        event(
          "invoice.paid",
          invoice(
            "left_2",
            { ...metadata, user_id: "not-yet" },
            [line("left2", 2_000, "p", period(30, 60))],
            { created: 1_999_999_999 },
          ),
        ),
      ),
    );
    expect(answer).toMatchObject({ status: "quarantined", reason: "unknown_user" });
    expect(await project.call("get_user_token_balance", "known")).toBe(100_000);
  });

  it("other lines of an invoice, and a seat more that was paid by itself, leave nothing to ask a person", async () => {
    await join("fee", "seat");
    const of = (user_id: string): object => ({ user_id, plan_id: "basic" });
    await send(
      charge("fee", 3_000),
      paid(invoice("fee", of("fee"), [line("fee", 2_000, "p"), line("fee_2", 1_000, "q", alone)])),
      paymentOf("fee", "fee", 3_000),
      charge("seat", 2_000),
      charge("seat_2", 700),
      paid(invoice("seat", of("seat"), [line("seat", 2_000, "p")])),
      paid(invoice("seat_2", of("seat"), [line("seat_2", 700, "p", proration)])),
      paymentOf("seat", "seat", 2_000),
      paymentOf("seat_2", "seat_2", 700),
    );
    expect((await found("fee")).lots).toEqual(["100000 until 30: 2000"]);
    expect(await desk("fee", [row("fee", "30.00", "fee")])).toEqual({ tied_out: true, differences: [] });
    expect((await found("seat")).lots).toEqual(["100000 until 30: 2700"]);
    expect(await desk("seat", [row("seat", "20.00", "seat"), row("seat_2", "7.00", "seat_2")])).toEqual({
      tied_out: true,
      differences: [],
    });
  });

  it("a part of a period is one in every version's words, and a credit, an empty seat or a fee alone asks nobody", async () => {
    await join("parts", "credit", "empty", "fees");
    const of = (user_id: string, plan_id?: string): object => ({ user_id, ...(plan_id ? { plan_id } : {}) });
    const asItem = {
      parent: {
        type: "invoice_item_details",
        invoice_item_details: { proration: true, invoice_item: "ii_1" },
      },
    };
    const asOld = { type: "invoiceitem", parent: null, pricing: null, price: { id: "setup", metadata: {} } };
    const seat = item({ id: "seat_price", metadata: { tokens: "1000" } });
    const answers = await send(
      paid(invoice("parts", of("parts", "basic"), [line("parts", 2_000, "p")])),
      paid(
        invoice("parts_2", of("parts", "pro"), [
          line("parts_2", -1_000, "p", { ...asItem, metadata: { plan_id: "basic" } }),
          line("parts_3", 3_000, "q", { ...asItem, metadata: { plan_id: "pro" } }),
        ]),
      ),
      paid(invoice("credit", of("credit", "basic"), [line("credit", 2_000, "p")])),
      paid(invoice("credit_2", of("credit", "basic"), [line("credit_2", -1_500, "p", asItem)])),
      created(subscription("empty", of("empty"), [seat])),
      paid(invoice("empty", of("empty"), [line("empty", 0, "seat_price", { quantity: 0 })])),
      // As before 2025-03-31; the fee is for a moment, not for a period.
      paid(
        invoice("fees", of("fees", "basic"), [
          line("fees", 500, "setup", { ...asOld, subscription: "sub_fees", ...period(0, 0) }),
          line("fees_2", 2_000, "p"),
        ]),
      ),
      paid(invoice("fees_3", of("fees", "basic"), [line("fees_3", 500, "setup", alone)])),
    );
    expect((await found("parts")).lots).toEqual(["100000 until 30: 2000", "200000 until 30: 2000"]);
    expect((await found("credit")).lots).toEqual(["100000 until 30: 2000"]);
    expect(await found("empty")).toEqual({ plan: "free", lots: [] });
    expect((await found("fees")).lots).toEqual(["100000 until 30: 2000"]);
    const nothing = "processed nothing_sold";
    expect(answers.filter((told) => told !== "processed" && !told.endsWith("noted"))).toEqual(
      Array(3).fill(nothing),
    );
  });

  it("use that is paid afterwards, beside the plan or alone, and the tiers of a price give the coming period its tokens once", async () => {
    await join("meter", "arrears", "tiers", "many");
    const of = (user_id: string): object => ({ user_id, plan_id: "basic" });
    const before = period(-30, 0);
    await send(
      paid(
        invoice("meter", of("meter"), [
          line("meter", 234, "m", before),
          line("meter_2", 2_000, "meter_plan"),
        ]),
      ),
      paid(invoice("arrears", of("arrears"), [line("arrears", 234, "m", before)], { period_end: now })),
      created(
        subscription("tiers", { user_id: "tiers" }, [item({ id: "tier", metadata: { tokens: "1000" } })]),
      ),
      paid(
        invoice("tiers", { user_id: "tiers" }, [
          line("tiers", 500, "tier", { quantity: 5 }),
          line("tiers_2", 140, "tier", { quantity: 2 }),
          line("tiers_3", 1_000, "tier", { quantity: 0 }),
        ]),
      ),
    );
    const answers = [];
    for (const quantity of [1.5, -1, 1e9, "3"])
      answers.push(
        ...(await send(
          paid(
            invoice(`many_${quantity}`, { user_id: "many" }, [
              line(`many_${quantity}`, 500, "tier", {
                quantity,
                price: { id: "tier", metadata: { tokens: "1000" } },
              }),
            ]),
          ),
        )),
      );
    expect(answers).toEqual(Array(4).fill("quarantined invalid_tokens"));
    expect((await found("meter")).lots).toEqual(["100000 until 30: 2234"]);
    expect((await found("arrears")).lots).toEqual(["100000 until 33: 234"]);
    expect((await found("tiers")).lots).toEqual(["7000 until 30: 1640"]);
  });

  it("the plan at its end decides what becomes of a subscription's tokens, though an invoice comes after the end", async () => {
    await join("late");
    const of = (plan_id: string): object => ({ user_id: "late", plan_id });
    await send(
      created(subscription("late", of("pro"))),
      paid(invoice("late", of("pro"), [line("late", 6_000, "p", period(-10, 20))])),
      event(
        "customer.subscription.deleted",
        subscription("late", of("loyal"), [], { status: "canceled", ended_at: now }),
      ),
      paid(invoice("late_2", of("loyal"), [line("late_2", 100, "q", { ...period(-1, 20), ...proration })])),
    );
    expect(await found("late")).toMatchObject({ plan: "free", lots: ["300000 until 20: 6100"] });
    expect(await project.call("get_user_token_balance", "late")).toBe(300_000);
  });

  it("an event that was taken up by itself leaves no alert open", async () => {
    await join("patient");
    const waiting = paid(
      invoice("patient", { user_id: "patient" }, [line("patient", 2_000, "patient_price")]),
    );
    expect(await send(waiting)).toEqual(["quarantined unknown_plan"]);
    const alert = (): Promise<{ by: string | null; resolution: string | null }> =>
      project.one(
        "select acknowledged_by as by, resolution from governance.alert_events where period_key = $1",
        [waiting.id],
      );
    expect(await alert()).toEqual({ by: null, resolution: null });
    await send(
      created(
        subscription("patient", { user_id: "patient" }, [item({ id: "patient_price", lookup_key: "pro" })]),
      ),
    );
    expect(await found("patient")).toMatchObject({ plan: "pro", lots: ["300000 until 30: 2000"] });
    expect(await alert()).toMatchObject({ by: "Stripe", resolution: expect.stringMatching(/waited for/) });
  });

  it("an invoice that a known customer paid for nobody knows which plan waits for a person after a while, and is still taken up by itself", async () => {
    await join("regular");
    await join("stranger");
    const session = { mode: "subscription", client_reference_id: "regular", metadata: {} };
    await send(
      event("checkout.session.completed", {
        ...session,
        id: "cs_regular",
        subscription: "sub_regular",
        customer: "cus_regular",
        payment_status: "paid",
      }),
    );
    const waiting = paid(invoice("regular", {}, [line("regular", 2_000, "regular_price")]));
    // Nobody knows the owner of the second one: it may be for something else that is sold here.
    expect(await send(waiting, paid(invoice("nobodys", {}, [line("nobodys", 100, "other")])))).toEqual([
      "ignored not_known_yet",
      "ignored not_known_yet",
    ]);
    const upkeep = (): Promise<{ alerts_triggered: number }> => project.rpc("run_maintenance");
    const waits = async (): Promise<string[]> =>
      (
        await project.rpc<{ events: { event_id: string; reason: string }[] }>("console_stripe_events")
      ).events.flatMap(({ event_id, reason }) => (event_id === waiting.id ? [reason] : []));
    await upkeep();
    expect(await waits()).toEqual([]);
    await project.sql.query(
      "update governance.webhook_events_processed set received_at = received_at - interval '16 minutes' where status = 'parked'",
    );
    expect((await upkeep()).alerts_triggered).toBe(1);
    expect(await waits()).toEqual(["unknown_plan"]);
    // Delivered again, or let through as it is, it waits on.
    expect(await send(waiting)).toEqual(["quarantined unknown_plan"]);
    const release = { p_command_id: "let", p_event_id: waiting.id, p_operator: "ann", p_reason: "paid" };
    expect(await project.refusal("console_release_stripe_event", release)).toMatchObject({
      hint: "still_quarantined",
    });
    await send(
      updated(subscription("regular", {}, [item({ id: "regular_price", metadata: { plan_id: "pro" } })])),
    );
    expect(await waits()).toEqual([]);
    expect(await found("regular")).toMatchObject({ plan: "pro", lots: ["300000 until 30: 2000"] });
    const alert = await project.one<{ resolution: string }>(
      "select resolution from governance.alert_events where period_key = $1",
      [waiting.id],
    );
    expect(alert.resolution).toMatch(/waited for/);
  });
});
