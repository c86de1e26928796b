/**
 * One payment, one grant, and its money where it belongs: whatever names a payment by itself, what never came through
 * Stripe, what was never captured, and what was charged long before it succeeded.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Project } from "../../support/project.ts";
import { event, type StripeEvent } from "../../support/stripe/events.ts";
import {
  now,
  day,
  type Extra,
  line,
  alone,
  invoice,
  paid,
  paymentOf,
  charge,
  row,
  salesOf,
  openShop,
  closeShop,
} from "../../support/stripe/sales.ts";

describe("a payment for a pack", () => {
  let project: Project;
  const { send, join, found, booked, desk } = salesOf(() => project);
  beforeAll(async () => {
    project = await openShop();
  });
  afterAll(() => closeShop(project));

  it("a pack that both an invoice and its PaymentIntent name is one payment: of two grants the first stays", async () => {
    const order = (user_id: string): Extra => ({ user_id, pack_id: "pack" });
    const single = (id: string): StripeEvent =>
      paid(invoice(id, {}, [line(id, 1_000, "p", alone)], { parent: null, metadata: order(id) }));
    const intent = (id: string): StripeEvent =>
      event("payment_intent.succeeded", {
        id: `pi_${id}`,
        object: "payment_intent",
        amount: 1_000,
        amount_received: 1_000,
        currency: "usd",
        status: "succeeded",
        latest_charge: `ch_${id}`,
        customer: `cus_${id}`,
        created: now,
        metadata: order(id),
      });
    const session = (id: string): StripeEvent =>
      event("checkout.session.completed", {
        id: `cs_live_${id}`,
        object: "checkout.session",
        mode: "payment",
        payment_status: "paid",
        amount_total: 1_000,
        currency: "usd",
        payment_intent: `pi_${id}`,
        invoice: `in_${id}`,
        customer: `cus_${id}`,
        created: now,
        metadata: order(id),
      });
    const tied = (id: string): StripeEvent => paymentOf(id, id, 1_000);
    const orders = {
      twice1: [single, intent, session, tied],
      twice2: [intent, single, tied, session],
      twice3: [single, intent, tied],
      // Not once do the two stand apart.
      twice4: [session, intent, single, tied],
      twice5: [tied, single, intent],
    };
    await join(...Object.keys(orders));
    for (const [id, events] of Object.entries(orders)) {
      for (const make of events) await send(make(id));
      expect([id, await project.call("get_user_token_balance", id)]).toEqual([id, 500_000]);
      await send(charge(id, 1_000));
      expect([id, await desk(id, [row(id, "10.00", id)])]).toEqual([id, { tied_out: true, differences: [] }]);
      // What was paid is booked once.
      expect(
        await project.one(
          `select sum(l.amount_minor)::int as paid from governance.lots l join governance.accounts a using (account_id)
           where a.user_id = $1`,
          [id],
        ),
      ).toEqual({ paid: 1_000 });
      await send(event("charge.refunded", { ...charge(id, 1_000, { amount_refunded: 500 }).data.object }));
      expect([id, await project.call("get_user_token_balance", id)]).toEqual([id, 250_000]);
    }
  });

  it("of a pack that was granted twice and spent, what is gone of the second grant is owed", async () => {
    await join("twicespent");
    const metadata = { user_id: "twicespent", pack_id: "pack" };
    await send(
      paid(invoice("twicespent", {}, [line("twicespent", 1_000, "p", alone)], { parent: null, metadata })),
      event("payment_intent.succeeded", {
        id: "pi_twicespent",
        object: "payment_intent",
        amount: 1_000,
        amount_received: 1_000,
        currency: "usd",
        status: "succeeded",
        created: now,
        metadata,
      }),
    );
    await project.sql.query("select update_user_token_balance('twicespent', -700000, 'usage')");
    await send(paymentOf("twicespent", "twicespent", 1_000));
    expect(
      await project.one(
        "select purchased_tokens::int as left, debt_tokens::int as debt from governance.accounts where user_id = 'twicespent'",
      ),
    ).toEqual({ left: 0, debt: 200_000 });
  });

  it("a single invoice for a pack may be paid outside of Stripe or from the customer's balance, with tax", async () => {
    const of = (user: string, extra: Extra, lines = [line(user, 1_000, "p", alone)]): StripeEvent =>
      paid(
        invoice(user, {}, lines, { parent: null, metadata: { user_id: user, pack_id: "pack" }, ...extra }),
      );
    const record = { type: "payment_record", payment_record: "pr_1" };
    await join("bank", "bankpart", "saved", "savedtax", "lowered");
    expect(
      await send(
        of("bank", { paid_out_of_band: true }),
        of("bankpart", { payments: { data: [{ amount_paid: 700, status: "paid", payment: record }] } }),
        of("saved", { amount_paid: 600, amount_due: 600, starting_balance: -400, ending_balance: 0 }),
        of("savedtax", { total: 1_190, total_excluding_tax: 1_000, amount_paid: 595, amount_due: 595 }),
        // The price was lowered: for how many tokens a person says.
        of("lowered", { amount_paid: 700, amount_due: 700, pre_payment_credit_notes_amount: 300 }),
      ),
    ).toEqual(["processed", "processed", "processed", "processed", "quarantined amount_mismatch"]);
    const outside = "paid outside of Stripe";
    const saved = "customer balance";
    expect(await booked("bank")).toEqual([{ collected: 0, covered: 1_000, by: outside }]);
    expect(await booked("bankpart")).toEqual([{ collected: 300, covered: 700, by: outside }]);
    expect(await booked("saved")).toEqual([{ collected: 600, covered: 400, by: saved }]);
    expect(await booked("savedtax")).toEqual([{ collected: 595, covered: 595, by: saved }]);
    expect(await found("bank")).toMatchObject({ lots: ["500000 until : 1000"] });
    expect(await found("bankpart")).toMatchObject({ lots: ["500000 until : 1000"] });
    expect(await found("saved")).toMatchObject({ lots: ["500000 until : 600"] });
    expect(await found("savedtax")).toMatchObject({ lots: ["500000 until : 500"] });
    await send(
      paymentOf("bankpart", "bankpart", 300),
      charge("bankpart", 300),
      paymentOf("savedtax", "savedtax", 595),
      charge("savedtax", 595),
    );
    const fits = { tied_out: true, differences: [] };
    expect(await desk("bank", [row("other", "10.00", "other").replace("Paid", "Failed")])).toEqual(fits);
    expect(await desk("bankpart", [row("bankpart", "3.00", "bankpart")])).toEqual(fits);
    expect(await desk("savedtax", [row("savedtax", "5.95", "savedtax")])).toEqual(fits);
  });

  it("what was authorised and never captured is no refund, in any version's words", async () => {
    await join("part1", "part2", "part3", "part4");
    const intent = (id: string, captured: number): StripeEvent =>
      event("payment_intent.succeeded", {
        id: `pi_${id}`,
        object: "payment_intent",
        amount: 1_400,
        amount_received: captured,
        currency: "usd",
        status: "succeeded",
        latest_charge: `ch_${id}`,
        created: now,
        metadata: { user_id: id, pack_id: "pack" },
      });
    const told = (
      type: string,
      id: string,
      back: number,
      apiVersion: string,
      extra: Extra = {},
    ): StripeEvent =>
      event(
        type,
        charge(id, 1_400, { amount_captured: 1_000, amount_refunded: back, refunded: false, ...extra }).data
          .object,
        { apiVersion },
      );
    const refund = (id: string, amount: number, n = 1): Extra => ({
      id: `re_${id}${n}`,
      object: "refund",
      amount,
      currency: "usd",
      charge: `ch_${id}`,
      payment_intent: `pi_${id}`,
      status: "succeeded",
    });
    const acacia = "2024-12-18.acacia";
    const basil = "2025-03-31.basil";
    const balanceOf = (id: string): Promise<unknown> => project.call("get_user_token_balance", id);
    for (const id of ["part1", "part2", "part3", "part4"]) await send(intent(id, 1_000));
    // Before 2025-03-31 Stripe made a refund of it; before 2022-11-15 the charge lists it.
    await send(
      told("charge.captured", "part1", 400, "2022-08-01", { refunds: { data: [refund("part1", 400)] } }),
    );
    await send(
      told("charge.captured", "part2", 400, acacia),
      event("refund.created", refund("part2", 400), { apiVersion: acacia }),
    );
    expect([await balanceOf("part1"), await balanceOf("part2")]).toEqual([500_000, 500_000]);
    // A real one beside it.
    await send(
      event("refund.created", refund("part2", 250, 2), { apiVersion: acacia }),
      told("charge.refunded", "part2", 650, acacia),
    );
    expect(await balanceOf("part2")).toBe(375_000);
    // Since then it is no refund: what the charge tells is what went back.
    await send(
      told("charge.captured", "part3", 0, basil),
      told("charge.refunded", "part3", 500, basil),
      event("refund.created", refund("part3", 500), { apiVersion: basil }),
    );
    expect(await balanceOf("part3")).toBe(250_000);
    // All that was captured went back.
    await send(told("charge.refunded", "part4", 1_000, basil, { refunded: true }));
    expect(await balanceOf("part4")).toBe(0);
  });

  it("a bank debit belongs to the month of its charge, however long it took to succeed", async () => {
    await join("debit");
    const charged = now - 20 * day;
    const at = (seconds: number): string => new Date(seconds * 1000).toISOString();
    await send(
      event("checkout.session.completed", {
        id: "cs_live_debit",
        object: "checkout.session",
        mode: "payment",
        payment_status: "paid",
        amount_total: 1_000,
        currency: "usd",
        payment_intent: "pi_debit",
        created: charged - 60,
        metadata: { user_id: "debit", pack_id: "pack" },
      }),
      event("charge.succeeded", charge("debit", 1_000, { created: charged }).data.object, { created: now }),
    );
    const records = async (from: number, to: number): Promise<unknown[]> =>
      (
        await project.rpc<{ records: { user_id: string }[] }>("console_ledger_purchases_since", {
          p_limit: 20_000,
          p_from: at(from),
          p_to: at(to),
        })
      ).records.filter((one) => one.user_id === "debit");
    const same = { record_type: "grant", charge_id: "ch_debit" };
    for (const [from, to] of [
      [charged - day, charged + day],
      [now - day, now + day],
    ] as const) {
      const [record, ...others] = await records(from, to);
      expect(record).toMatchObject(same);
      expect(Date.parse((record as { charged_at: string }).charged_at)).toBe(charged * 1_000);
      expect(others).toEqual([]);
    }
    expect(await records(charged + day, now - 5 * day)).toEqual([]);
    // The export of the second month cannot have it: nothing is to be taken back.
    expect(await desk("debit", [row("other", "10.00", "other").replace("Paid", "Failed")])).toEqual({
      tied_out: true,
      differences: ["TIMING: Its payment was made on 18 February 2027, before the Stripe files begin."],
    });
  });
});
