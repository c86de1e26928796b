/** Stripe's events become lots, and tokens follow the money, on real PostgreSQL servers. */
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  charge,
  checkoutSession,
  dispute,
  event,
  invoiceBeforeBasil,
  invoicePayment,
  invoiceSinceBasil,
  paymentIntent,
  type Purchase,
  refund,
  type StripeEvent,
  subscription,
} from "../../support/stripe/events.ts";
import { createProjectDatabase } from "../../support/database.ts";
import { postgresUrls } from "../../support/project.ts";

interface Answer {
  event_id: string;
  status: string;
  reason: string | null;
  effects: { type: string; user_id: string; tokens: number; transaction_id: number | null }[];
}

const urls = postgresUrls();
const servers = [18, 15].flatMap((version) => {
  const url = urls[version as 15 | 18];
  return url === null ? [] : [[version, url] as const];
});

describe.each(servers)("on PostgreSQL %s", (_version, url) => {
  let db: pg.Pool;
  let names = 0;

  beforeAll(async () => {
    const project = await createProjectDatabase(url, { preset: "athro" });
    db = new pg.Pool({ connectionString: project.ownerUrl, max: 16 });
  });
  afterAll(async () => {
    await db.end();
  });

  const one = async <T>(sql: string, values: unknown[] = []): Promise<T> =>
    (await db.query(sql, values)).rows[0] as T;
  const send = async (sent: object | string): Promise<Answer> =>
    (
      await one<{ a: Answer }>("select process_stripe_event($1::jsonb) a", [
        typeof sent === "string" ? sent : JSON.stringify(sent),
      ])
    ).a;
  const sendAll = async (events: readonly object[]): Promise<Answer[]> => {
    const answers: Answer[] = [];
    for (const sent of events) answers.push(await send(sent));
    return answers;
  };
  const balance = async (userId: string): Promise<Record<string, number>> =>
    (
      await one<{ b: Record<string, number> }>(
        `select jsonb_build_object('purchased', a.purchased_tokens, 'subscription', a.subscription_tokens, 'debt', a.debt_tokens,
          'frozen', (select coalesce(sum(l.frozen), 0) from governance.lots l where l.account_id = a.account_id)) b
        from governance.accounts a where a.user_id = $1`,
        [userId],
      )
    ).b;
  const newUser = async (planId = "full"): Promise<string> => {
    const userId = `u${++names}`;
    await db.query("select upsert_account($1, $2)", [userId, planId]);
    return userId;
  };
  const topUp = async (changes: Partial<Purchase> = {}): Promise<Purchase> => ({
    name: `p${++names}`,
    userId: changes.userId ?? (await newUser()),
    packId: "top-up",
    tokens: 320_000,
    amountMinor: 200,
    currency: "gbp",
    created: Math.floor(Date.now() / 1000),
    ...changes,
  });
  const paid = (p: Purchase): StripeEvent => event("checkout.session.completed", checkoutSession(p));
  const sound = async (): Promise<void> => {
    const { ledger, purchases } = await one<Record<string, { problems: unknown[] }>>(
      "select verify_ledger() ledger, verify_purchases() purchases",
    );
    expect(ledger?.problems).toEqual([]);
    expect(purchases?.problems).toEqual([]);
  };

  describe("a paid checkout", () => {
    it("grants its pack once, whatever reports it and how often", async () => {
      const p = await topUp();
      const first = await send(paid(p));
      expect(first).toMatchObject({
        status: "processed",
        reason: null,
        effects: [{ type: "grant", user_id: p.userId, tokens: 320_000 }],
      });
      const again = await sendAll([
        paid(p),
        event("checkout.session.async_payment_succeeded", checkoutSession(p)),
        event("payment_intent.succeeded", paymentIntent(p)),
        event("charge.succeeded", charge(p)),
        event("charge.updated", charge(p)),
      ]);
      expect(again.flatMap((answer) => answer.effects)).toEqual([]);
      expect(again.map((answer) => answer.status)).toEqual(again.map(() => "processed"));
      expect(await balance(p.userId)).toMatchObject({ purchased: 320_000, debt: 0 });
      const lot = await one(
        "select stripe_charge_id, stripe_payment_intent_id, amount_minor::int, currency from governance.lots where stripe_checkout_session_id = $1",
        [`cs_live_${p.name}`],
      );
      expect(lot).toEqual({
        stripe_charge_id: `ch_${p.name}`,
        stripe_payment_intent_id: `pi_${p.name}`,
        amount_minor: 200,
        currency: "gbp",
      });
    });

    it("is found by each id that Stripe gives it", async () => {
      const p = await topUp();
      await sendAll([paid(p), event("charge.succeeded", charge(p))]);
      for (const id of [`ch_${p.name}`, `pi_${p.name}`, `cs_live_${p.name}`]) {
        const { hits } = await one<{ hits: object[] }>("select console_search($1) hits", [id]);
        expect(hits, id).toEqual([expect.objectContaining({ kind: "payment", id, user_id: p.userId })]);
      }
      expect(await one("select console_search('ch_nobody') hits")).toEqual({ hits: [] });
    });

    it("is checked against the price of its day, whichever prices came since", async () => {
      const packId = `priced${++names}`;
      const now = Math.floor(Date.now() / 1000);
      await db.query(
        `insert into governance.packs (pack_id, tokens, price_minor, currency, effective_from, retired_at) values
          ($1, 1000, 100, 'gbp', to_timestamp($2::bigint - 20000), to_timestamp($2::bigint - 10000)),
          ($1, 2000, 150, 'gbp', to_timestamp($2::bigint - 10000), null)`,
        [packId, now],
      );
      const buy = async (ago: number, amountMinor: number): Promise<number | string | null | undefined> => {
        const p = await topUp({ packId, tokens: 0, amountMinor, created: now - ago });
        const metadata = { user_id: p.userId, pack_id: packId };
        const answer = await send(event("checkout.session.completed", checkoutSession(p, { metadata })));
        return answer.effects[0]?.tokens ?? answer.reason;
      };
      expect(await buy(15_000, 100)).toBe(1_000);
      expect(await buy(15_000, 150)).toBe("amount_mismatch");
      expect(await buy(5_000, 150)).toBe(2_000);
      expect(await buy(5_000, 100)).toBe("amount_mismatch");
      // From before its first price: against the first.
      expect(await buy(50_000, 100)).toBe(1_000);
      await db.query(
        "update governance.packs set retired_at = now() where pack_id = $1 and retired_at is null",
        [packId],
      );
      expect(await buy(5_000, 150)).toBe(2_000);
    });

    it("answers duplicate to the same event", async () => {
      const sent = paid(await topUp());
      expect((await send(sent)).status).toBe("processed");
      expect(await send(sent)).toEqual({ event_id: sent.id, status: "duplicate", reason: null, effects: [] });
    });

    it("waits for a delayed payment, and grants nothing where it fails", async () => {
      const p = await topUp();
      const answers = await sendAll([
        event("checkout.session.completed", checkoutSession(p, { payment_status: "unpaid" })),
        event("checkout.session.async_payment_failed", checkoutSession(p, { payment_status: "unpaid" })),
        event("charge.failed", charge(p, { id: `ch_try_${p.name}`, status: "failed", paid: false })),
      ]);
      expect(answers.map((answer) => answer.reason)).toEqual([
        "awaiting_payment",
        "payment_failed",
        "payment_failed",
      ]);
      expect(await balance(p.userId)).toMatchObject({ purchased: 0 });
      expect(
        (await send(event("checkout.session.async_payment_succeeded", checkoutSession(p)))).effects,
      ).toHaveLength(1);
    });

    it.each([
      ["unknown_pack", { metadata: { user_id: "$", pack_id: "gold" } }],
      ["unknown_pack", { metadata: { user_id: "$", tokens: "320000" } }],
      ["unknown_user", { metadata: { user_id: "nobody", pack_id: "top-up" } }],
      ["unknown_user", { metadata: { pack_id: "top-up" }, client_reference_id: null }],
      ["tokens_mismatch", { metadata: { user_id: "$", pack_id: "top-up", tokens: "1000000" } }],
      ["invalid_tokens", { metadata: { user_id: "$", pack_id: "top-up", tokens: "-5" } }],
      ["invalid_tokens", { metadata: { user_id: "$", pack_id: "top-up", tokens: "1.5" } }],
      ["invalid_tokens", { metadata: { user_id: "$", pack_id: "top-up", tokens: "0" } }],
      ["invalid_tokens", { metadata: { user_id: "$", pack_id: "top-up", tokens: "9".repeat(400) } }],
      ["tokens_above_ceiling", { metadata: { user_id: "$", pack_id: "top-up", tokens: "100000001" } }],
      ["amount_mismatch", { amount_total: 1 }],
      ["amount_mismatch", { amount_total: 200.5 }],
      ["amount_mismatch", { amount_total: null }],
      ["currency_mismatch", { currency: "jpy" }],
      ["currency_mismatch", { currency: null }],
      ["payment_status_unknown", { payment_status: "perhaps" }],
    ])("is quarantined with an alert, credits nothing: %s %j", async (reason, changes) => {
      const p = await topUp();
      const session = JSON.parse(
        JSON.stringify(checkoutSession(p, changes as never)).replaceAll('"$"', JSON.stringify(p.userId)),
      );
      const sent = event("checkout.session.completed", session);
      expect(await send(sent)).toEqual({ event_id: sent.id, status: "quarantined", reason, effects: [] });
      expect(await balance(p.userId)).toMatchObject({ purchased: 0 });
      const alerts = await one<{ n: number }>(
        "select count(*)::int n from governance.alert_events where details ->> 'event_id' = $1",
        [sent.id],
      );
      expect(alerts.n).toBe(1);
      // Delivered again, it is looked at again.
      expect((await send(sent)).status).toBe("quarantined");
    });

    it("takes no harm from metadata: 50 keys, long values, names of prototypes, huge texts", async () => {
      const p = await topUp();
      const full = Object.fromEntries(Array.from({ length: 46 }, (_, i) => [`key${i}`, "x".repeat(500)]));
      const good = { ...full, user_id: p.userId, pack_id: "top-up", tokens: " 320000 ", toString: "top-up" };
      const metadata = JSON.parse(
        `{"__proto__": {"user_id": "eve"}, "constructor": "eve", ${JSON.stringify(good).slice(1)}`,
      );
      expect(
        (await send(event("checkout.session.completed", checkoutSession(p, { metadata })))).effects,
      ).toMatchObject([{ type: "grant", user_id: p.userId, tokens: 320_000 }]);
      for (const [reason, hostile] of [
        ["unknown_user", { user_id: "__proto__", pack_id: "top-up" }],
        ["unknown_user", { user_id: "u".repeat(500), pack_id: "top-up" }],
        ["unknown_user", { user_id: { id: p.userId }, pack_id: "top-up" }],
        ["unknown_pack", { user_id: p.userId, pack_id: "constructor" }],
        ["unknown_pack", { user_id: p.userId, pack_id: "p".repeat(500), tokens: "320000" }],
        ["invalid_tokens", { user_id: p.userId, pack_id: "top-up", tokens: "３２００００" }],
        ["invalid_tokens", { user_id: p.userId, pack_id: "top-up", tokens: "1e5" }],
        ["invalid_tokens", { user_id: p.userId, pack_id: "top-up", tokens: "0".repeat(500) }],
      ] as const) {
        const session = checkoutSession(await topUp({ userId: p.userId }), { metadata: hostile as never });
        expect(
          await send(event("checkout.session.completed", session)),
          JSON.stringify(hostile),
        ).toMatchObject({
          status: "quarantined",
          reason,
          effects: [],
        });
      }
      expect(await balance(p.userId)).toMatchObject({ purchased: 320_000 });
    });

    it("is known by its metadata however the keys are spelt", async () => {
      const p = await topUp();
      const metadata = { "User-Id": ` ${p.userId} `, PACK_ID: p.packId };
      await send(event("checkout.session.completed", checkoutSession(p, { metadata })));
      expect(await balance(p.userId)).toMatchObject({ purchased: 320_000 });
    });

    it("is ignored where it sells something else", async () => {
      const p = await topUp();
      const answer = await send(
        event("checkout.session.completed", checkoutSession(p, { metadata: { sku: "mug" } })),
      );
      expect(answer).toMatchObject({ status: "ignored", reason: "not_a_token_purchase" });
    });

    it("is granted on redelivery once its user is known", async () => {
      const p = await topUp({ userId: `late${++names}` });
      const sent = paid(p);
      expect((await send(sent)).reason).toBe("unknown_user");
      await db.query("select upsert_account($1, 'full')", [p.userId]);
      expect((await send(sent)).effects).toMatchObject([{ type: "grant", tokens: 320_000 }]);
      expect((await send(sent)).status).toBe("duplicate");
    });
  });

  describe("a quarantined event", () => {
    const release = (
      command: string,
      eventId: string,
      more: Record<string, unknown> = {},
    ): Promise<Answer> => {
      const { user_id: userId = null, pack_id: packId = null, tokens = null } = more;
      return one<{ a: Answer }>(
        "select console_release_stripe_event($1, $2, 'fay', 'Checked with Stripe', $3, $4, $5) a",
        [command, eventId, userId, packId, tokens],
      ).then(({ a }) => a);
    };
    const waiting = async (): Promise<{ event_id: string; reason: string }[]> =>
      (
        await one<{ w: { events: { event_id: string; reason: string }[] } }>(
          "select console_stripe_events() w",
        )
      ).w.events;

    it("is let through by a person as it is, once what was missing is there", async () => {
      const p = await topUp({ userId: `released${++names}` });
      const sent = paid(p);
      expect((await send(sent)).reason).toBe("unknown_user");
      expect(await waiting()).toContainEqual(
        expect.objectContaining({ event_id: sent.id, reason: "unknown_user" }),
      );
      await expect(release(`r${++names}`, sent.id)).rejects.toMatchObject({ hint: "unknown_user" });
      await db.query("select upsert_account($1, 'full')", [p.userId]);
      const command = `r${++names}`;
      const released = await release(command, sent.id);
      expect(released.effects).toMatchObject([{ type: "grant", user_id: p.userId, tokens: 320_000 }]);
      expect(await release(command, sent.id)).toEqual(released);
      await expect(release(`r${++names}`, sent.id)).rejects.toMatchObject({ hint: "already_decided" });
      expect((await send(sent)).status).toBe("duplicate");
      expect(await balance(p.userId)).toMatchObject({ purchased: 320_000 });
      expect(await waiting()).not.toContainEqual(expect.objectContaining({ event_id: sent.id }));
      const audited = await one<{ n: number }>(
        "select count(*)::int n from governance.audit_log where action = 'release_stripe_event' and details ->> 'event_id' = $1",
        [sent.id],
      );
      expect(audited.n).toBe(1);
    });

    it("is let through with the user and tokens that a person gives, once for the payment", async () => {
      const userId = await newUser();
      const p = await topUp({ userId });
      const sent = event("checkout.session.completed", checkoutSession(p, { amount_total: 150 }));
      expect((await send(sent)).reason).toBe("amount_mismatch");
      const released = await release(`r${++names}`, sent.id, {
        user_id: userId,
        pack_id: "top-up",
        tokens: 240_000,
      });
      expect(released.effects).toMatchObject([{ type: "grant", user_id: userId, tokens: 240_000 }]);
      // A refund of it is in proportion to what was really paid and granted.
      expect((await send(event("refund.created", refund(p, 1, 75)))).effects).toMatchObject([
        { tokens: -120_000 },
      ]);
      expect((await send(event("checkout.session.async_payment_succeeded", checkoutSession(p)))).reason).toBe(
        "already_granted",
      );
      expect(await balance(userId)).toMatchObject({ purchased: 120_000 });
    });

    it("is not let through where Stripe has not said that it was paid, and changes nothing", async () => {
      const p = await topUp();
      const sent = event(
        "checkout.session.completed",
        checkoutSession(p, { payment_status: "perhaps" as never }),
      );
      await send(sent);
      await expect(release(`r${++names}`, sent.id)).rejects.toMatchObject({
        code: "PT409",
        hint: "not_paid",
      });
      const refundless = event("refund.created", {
        ...refund(p, 1, 50),
        charge: undefined,
        payment_intent: undefined,
      });
      expect((await send(refundless)).reason).toBe("malformed");
      await expect(release(`r${++names}`, refundless.id)).rejects.toMatchObject({
        hint: "still_quarantined",
      });
      expect(await balance(p.userId)).toMatchObject({ purchased: 0 });
    });

    it("set aside credits nothing, also when it is delivered again", async () => {
      const p = await topUp();
      const sent = event("checkout.session.completed", checkoutSession(p, { amount_total: 1 }));
      await send(sent);
      const { d } = await one<{ d: { status: string } }>(
        "select console_dismiss_stripe_event($1, $2, 'fay', 'A test of ours') d",
        [`d${++names}`, sent.id],
      );
      expect(d.status).toBe("dismissed");
      expect((await send(sent)).status).toBe("duplicate");
      await expect(release(`r${++names}`, sent.id)).rejects.toMatchObject({ hint: "already_decided" });
      expect(await balance(p.userId)).toMatchObject({ purchased: 0 });
    });
  });

  describe("a refund", () => {
    it("takes back in proportion, in the shapes of before and after 2022-11-15", async () => {
      const old = await topUp();
      await send(paid(old));
      const [answer] = await sendAll([
        event(
          "charge.refunded",
          charge(old, {
            amount_refunded: 50,
            refunds: { object: "list", data: [refund(old, 1, 50)], has_more: false },
          }),
          { apiVersion: "2020-08-27" },
        ),
      ]);
      expect(answer?.effects).toMatchObject([{ type: "refund", tokens: -80_000 }]);
      const fresh = await topUp();
      await send(paid(fresh));
      const answers = await sendAll([
        event("refund.created", refund(fresh, 1, 50)),
        event("charge.refunded", charge(fresh, { amount_refunded: 50 })),
        event("refund.updated", refund(fresh, 1, 50)),
      ]);
      expect(answers.flatMap((a) => a.effects.map((e) => e.tokens))).toEqual([-80_000]);
      expect(await balance(old.userId)).toEqual(await balance(fresh.userId));
    });

    it("is capped at what was bought, and what was spent becomes debt that the next purchase pays", async () => {
      const p = await topUp({ userId: await newUser() });
      await send(paid(p));
      await db.query("select update_user_token_balance($1, -1602000 - 300000, 'usage')", [p.userId]);
      await sendAll([event("refund.created", refund(p, 1, 150)), event("refund.created", refund(p, 2, 150))]);
      expect(await balance(p.userId)).toMatchObject({ purchased: 0, debt: 300_000 });
      await send(paid(await topUp({ userId: p.userId })));
      expect(await balance(p.userId)).toMatchObject({ purchased: 20_000, debt: 0 });
    });

    it("that fails gives back what it took", async () => {
      const p = await topUp();
      await send(paid(p));
      await send(event("refund.created", refund(p, 1, 200)));
      expect(await balance(p.userId)).toMatchObject({ purchased: 0 });
      const answer = await send(event("refund.failed", refund(p, 1, 200, { status: "failed" })));
      expect(answer.effects).toMatchObject([{ type: "restoration", tokens: 320_000 }]);
      expect(await balance(p.userId)).toMatchObject({ purchased: 320_000, debt: 0 });
      await send(event("refund.created", refund(p, 1, 200)));
      expect(await balance(p.userId)).toMatchObject({ purchased: 320_000 });
    });

    it.each([
      ["refund", "refund.created", "refund.failed"],
      ["dispute", "charge.dispute.closed", "charge.dispute.closed"],
    ])(
      "or dispute (%s) that comes to nothing once the tokens were spent strikes the debt",
      async (what, taken, undone) => {
        const p = await topUp();
        await send(paid(p));
        await db.query("select update_user_token_balance($1, -1602000 - 320000, 'usage')", [p.userId]);
        const told = (type: string, status: string) =>
          send(
            event(type, what === "refund" ? refund(p, 1, 200, { status }) : dispute(p, status), {
              created: p.created + (type === undone && status === "won" ? 9 : 5),
            }),
          );
        await told(taken, what === "refund" ? "succeeded" : "lost");
        expect(await balance(p.userId)).toMatchObject({ purchased: 0, debt: 320_000 });
        const answer = await told(undone, what === "refund" ? "failed" : "won");
        expect(answer).toMatchObject({ status: "processed", reason: null });
        expect(await balance(p.userId)).toMatchObject({ purchased: 0, debt: 0 });
      },
    );

    it("before its payment takes effect with it", async () => {
      const p = await topUp();
      expect((await send(event("refund.created", refund(p, 1, 100)))).effects).toEqual([]);
      const answer = await send(paid(p));
      expect(answer.effects.map((e) => [e.type, e.tokens])).toEqual([
        ["grant", 320_000],
        ["refund", -160_000],
      ]);
    });
  });

  describe("a dispute", () => {
    it("freezes what is left, and won gives it back", async () => {
      const p = await topUp();
      await send(paid(p));
      expect(
        (await send(event("charge.dispute.created", dispute(p, "needs_response")))).effects,
      ).toMatchObject([{ type: "dispute_hold", tokens: -320_000 }]);
      expect(await balance(p.userId)).toMatchObject({ purchased: 0, frozen: 320_000 });
      await sendAll([
        event("charge.dispute.funds_withdrawn", dispute(p, "needs_response")),
        event("charge.dispute.updated", dispute(p, "under_review")),
        event("charge.dispute.closed", dispute(p, "won")),
        event("charge.dispute.funds_reinstated", dispute(p, "won")),
      ]);
      expect(await balance(p.userId)).toMatchObject({ purchased: 320_000, frozen: 0, debt: 0 });
    });

    it("lost takes it for good, with debt for what was spent", async () => {
      const p = await topUp();
      await send(paid(p));
      await db.query("select update_user_token_balance($1, -1602000 - 20000, 'usage')", [p.userId]);
      await sendAll([
        event("charge.dispute.created", dispute(p, "needs_response")),
        event("charge.dispute.closed", dispute(p, "lost")),
      ]);
      expect(await balance(p.userId)).toMatchObject({ purchased: 0, frozen: 0, debt: 20_000 });
    });

    it("that was lost stays lost while an appeal is heard, and gives all back when the appeal is won", async () => {
      const p = await topUp();
      await send(paid(p));
      await sendAll([
        event("charge.dispute.created", dispute(p, "needs_response")),
        event("charge.dispute.closed", dispute(p, "lost")),
        event("charge.dispute.updated", dispute(p, "appeal_under_review")),
      ]);
      expect(await balance(p.userId)).toMatchObject({ purchased: 0, frozen: 0, debt: 0 });
      const created = p.created + 30 * 86_400;
      await sendAll([
        event("charge.dispute.closed", dispute(p, "won"), { created }),
        event("charge.dispute.funds_reinstated", dispute(p, "won"), { created }),
      ]);
      expect(await balance(p.userId)).toMatchObject({ purchased: 320_000, frozen: 0, debt: 0 });
    });

    it("that is only an inquiry takes nothing", async () => {
      const p = await topUp();
      await send(paid(p));
      await sendAll([
        event("charge.dispute.created", dispute(p, "warning_needs_response")),
        event("charge.dispute.closed", dispute(p, "warning_closed")),
      ]);
      expect(await balance(p.userId)).toMatchObject({ purchased: 320_000, frozen: 0 });
    });

    it("beside another of the same payment takes its own part, and frees the rest once both are decided", async () => {
      for (const verdicts of [
        ["lost", "won"],
        ["won", "lost"],
      ]) {
        const p = await topUp();
        await send(paid(p));
        const parts = verdicts.map((_, n) => ({
          ...dispute(p, "needs_response"),
          id: `dp_${p.name}_${n}`,
          amount: 50,
        }));
        await sendAll(parts.map((part) => event("charge.dispute.created", part)));
        await sendAll(
          parts.map((part, n) => event("charge.dispute.closed", { ...part, status: verdicts[n] })),
        );
        expect(await balance(p.userId)).toMatchObject({ purchased: 240_000, frozen: 0, debt: 0 });
        const { state, last } = await one<Record<string, string>>(
          `select s.dispute_state as state, (array_agg(r.record_type order by r.transaction_id desc))[1] as last
          from governance.stripe_lots s join governance.purchase_records r using (lot_id)
          join governance.accounts a using (account_id) where a.user_id = $1 group by s.lot_id, s.dispute_state`,
          [p.userId],
        );
        expect([state, last]).toEqual(["clawed", "dispute_clawback"]);
      }
    });

    it("and a refund of the same payment never take more than was bought", async () => {
      const p = await topUp();
      await send(paid(p));
      await sendAll([
        event("refund.created", refund(p, 1, 120)),
        event("charge.dispute.created", dispute(p, "needs_response")),
        event("charge.dispute.closed", dispute(p, "lost")),
      ]);
      expect(await balance(p.userId)).toMatchObject({ purchased: 0, frozen: 0, debt: 0 });
    });
  });

  describe("a subscription", () => {
    const month = { amountMinor: 2000, currency: "gbp", start: 1_790_000_000, end: 1_792_592_000 };

    it("puts the account on its plan, and grants once per line and period, in both shapes", async () => {
      for (const [shape, make] of [
        ["before", invoiceBeforeBasil],
        ["since", invoiceSinceBasil],
      ] as const) {
        const userId = await newUser("lite");
        const period = { ...month, name: `${userId}${shape}`, userId, planId: "full" };
        const first = await send(event("invoice.paid", make(period)));
        // Lite's million of this month was there: the difference comes.
        expect(first.effects).toMatchObject([{ type: "grant", user_id: userId, tokens: 602_000 }]);
        const again = await sendAll([
          event("invoice.paid", make(period)),
          event("invoice.payment_succeeded", make(period)),
          event("invoice_payment.paid", invoicePayment(period)),
        ]);
        expect(again.flatMap((a) => a.effects)).toEqual([]);
        expect(await balance(userId)).toMatchObject({ subscription: 1_602_000 });
        const { plan_id } = await one<{ plan_id: string }>(
          "select plan_id from governance.accounts where user_id = $1",
          [userId],
        );
        expect(plan_id).toBe("full");
      }
    });

    it("finds its user by the customer, also when the checkout arrives later", async () => {
      const userId = await newUser("free");
      const period = { ...month, name: `${userId}_x`, userId: null, planId: null, tokens: 50_000 };
      const waiting = event("invoice.paid", invoiceSinceBasil(period));
      expect(await send(waiting)).toMatchObject({ status: "quarantined", reason: "unknown_user" });
      const answer = await send(
        event("checkout.session.completed", {
          id: `cs_live_${userId}`,
          object: "checkout.session",
          mode: "subscription",
          subscription: `sub_${userId}`,
          customer: `cus_sub_${userId}`,
          payment_status: "paid",
          metadata: { user_id: userId },
          created: month.start,
        }),
      );
      expect(answer.effects).toMatchObject([{ type: "grant", user_id: userId, tokens: 50_000 }]);
      expect((await send(waiting)).status).toBe("duplicate");
    });

    it("refunded, also by a charge that only invoice_payment ties to it, gives its tokens back", async () => {
      const userId = await newUser("free");
      const period = {
        ...month,
        name: `${userId}_r`,
        userId,
        planId: null,
        tokens: 90_000,
        end: Math.floor(Date.now() / 1000) + 86_400,
      };
      await sendAll([
        event(
          "charge.refunded",
          charge(
            {
              name: period.name,
              userId,
              packId: "",
              tokens: 0,
              amountMinor: 2000,
              currency: "gbp",
              created: month.start,
            },
            { amount_refunded: 1000 },
          ),
        ),
        event("invoice.paid", invoiceSinceBasil(period)),
      ]);
      const before = await balance(userId);
      await send(event("invoice_payment.paid", invoicePayment(period)));
      const after = await balance(userId);
      expect((after["subscription"] ?? 0) - (before["subscription"] ?? 0)).toBe(-45_000);
    });

    it("grants all lines of an invoice or none", async () => {
      const userId = await newUser("free");
      const period = { ...month, name: `${userId}_lines`, userId, planId: null, tokens: 10_000 };
      const invoice = invoiceSinceBasil(period) as { lines: { data: Record<string, unknown>[] } };
      const [line = {}] = invoice.lines.data;
      const second = (tokens: string) => ({ ...line, id: `il_${userId}_second`, metadata: { tokens } });
      const before = await balance(userId);
      const sent = event("invoice.paid", {
        ...invoice,
        lines: { ...invoice.lines, data: [line, second("many")] },
      });
      expect(await send(sent)).toMatchObject({
        status: "quarantined",
        reason: "invalid_tokens",
        effects: [],
      });
      expect(await balance(userId)).toEqual(before);
      const mended = event("invoice.paid", {
        ...invoice,
        lines: { ...invoice.lines, data: [line, second("5000")] },
      });
      expect((await send(mended)).effects.map((effect) => effect.tokens)).toEqual([10_000, 5_000]);
      expect((await send({ ...mended, id: `${mended.id}_again` })).effects).toEqual([]);
    });

    it.each([
      ["keep", { subscription: 1_000_000, purchased: 0 }],
      ["convert", { subscription: 0, purchased: 1_000_000 }],
      ["expire", { subscription: 0, purchased: 0 }],
    ])("that ends does with its tokens what the plan says: %s", async (onCancel, left) => {
      const userId = await newUser("lite");
      const planId = `ends_${onCancel}`;
      await db.query(
        "insert into governance.plans select p.* from governance.plans q cross join lateral jsonb_populate_record(q, jsonb_build_object('plan_id', $1::text, 'on_cancel', $2::text)) p where q.plan_id = 'lite' on conflict do nothing",
        [planId, onCancel],
      );
      await db.query("select upsert_account($1, $2)", [userId, planId]);
      await send(event("invoice.paid", invoiceSinceBasil({ ...month, name: `${userId}e`, userId, planId })));
      const answer = await send(
        event(
          "customer.subscription.deleted",
          subscription(`${userId}e`, { status: "canceled", metadata: { user_id: userId, plan_id: planId } }),
        ),
      );
      expect(answer.effects).toMatchObject([{ type: `subscription_${onCancel}` }]);
      expect(await balance(userId)).toMatchObject({ ...left, debt: 0 });
    });

    it("that ends expires its tokens and puts the account back, where the plan says so", async () => {
      const userId = await newUser("lite");
      await send(
        event("invoice.paid", invoiceSinceBasil({ ...month, name: userId, userId, planId: "lite" })),
      );
      const answer = await send(
        event(
          "customer.subscription.deleted",
          subscription(userId, { status: "canceled", metadata: { user_id: userId, plan_id: "lite" } }),
        ),
      );
      expect(answer.effects).toMatchObject([{ type: "subscription_expire", tokens: -1_000_000 }]);
      expect(await balance(userId)).toMatchObject({ subscription: 0 });
      expect(await one("select plan_id from governance.accounts where user_id = $1", [userId])).toEqual({
        plan_id: "free",
      });
    });
  });

  describe("begin_checkout", () => {
    const begin = async (userId: string, packId = "top-up"): Promise<Record<string, unknown>> =>
      (await one<{ b: Record<string, unknown> }>("select begin_checkout($1, $2) b", [userId, packId])).b;

    it("allows the plan's packs alone, with a cooldown and a limit of open checkouts", async () => {
      const pack = { pack_id: "top-up", tokens: 320_000, price_minor: 200, currency: "gbp" };
      expect(await begin(await newUser("lite"))).toMatchObject({
        allowed: false,
        reason: "plan_not_allowed",
        pack,
      });
      const userId = await newUser();
      expect(await begin(userId)).toEqual({
        allowed: true,
        reason: null,
        retry_after_seconds: null,
        message: null,
        pack,
        checkout_id: expect.any(Number),
      });
      const second = await begin(userId);
      expect(second).toMatchObject({
        allowed: false,
        reason: "cooldown",
        message: "You have just begun a purchase. Please wait a moment.",
      });
      expect(second["retry_after_seconds"]).toBeGreaterThan(0);
      const backdate = () =>
        db.query(
          "update governance.checkouts set opened_at = opened_at - interval '20 seconds' where account_id = (select account_id from governance.accounts where user_id = $1)",
          [userId],
        );
      await backdate();
      expect((await begin(userId))["allowed"]).toBe(true);
      await backdate();
      expect((await begin(userId))["allowed"]).toBe(true);
      await backdate();
      expect(await begin(userId)).toMatchObject({ allowed: false, reason: "too_many_open_checkouts" });
      await send(paid(await topUp({ userId })));
      expect((await begin(userId))["allowed"]).toBe(true);
    });

    it("counts no checkout that was taken back, and takes back none that was paid", async () => {
      const cancel = async (checkoutId: unknown): Promise<unknown> =>
        (await one<{ c: unknown }>("select cancel_checkout($1) c", [checkoutId])).c;
      const userId = await newUser();
      for (let attempt = 0; attempt < 5; attempt++) {
        const { allowed, checkout_id: id } = await begin(userId);
        expect(allowed).toBe(true);
        expect(await cancel(id)).toEqual({ cancelled: true });
        expect(await cancel(id)).toEqual({ cancelled: false });
      }
      const { checkout_id: paidFor } = await begin(userId);
      await send(paid(await topUp({ userId })));
      expect(await cancel(paidFor)).toEqual({ cancelled: false });
    });

    it("refuses what it does not know", async () => {
      await expect(begin(await newUser(), "gold")).rejects.toMatchObject({
        code: "PT404",
        hint: "unknown_pack",
      });
      await expect(begin("nobody")).rejects.toMatchObject({ code: "PT404", hint: "unknown_user" });
    });

    it("lets one of many that come at once through", async () => {
      const userId = await newUser();
      const answers = await Promise.all(Array.from({ length: 16 }, () => begin(userId)));
      expect(answers.filter((answer) => answer["allowed"])).toHaveLength(1);
    });
  });

  it("keeps the account of every lot, for the owner of the database too", async () => {
    const remove = db.query("delete from governance.accounts where user_id = $1", [(await topUp()).userId]);
    await expect(remove).rejects.toMatchObject({
      code: "23503",
      message: expect.stringMatching(/has lots: it is never deleted/),
    });
  });

  it("leaves books that verify", sound);

  // The table of records is append-only, for its owner too: the tamperer takes that away first.
  const record = (change: string): string =>
    `alter table governance.purchase_records disable trigger purchase_records_append_only; ${change}`;
  it.each([
    ["lot_mismatch", "update governance.stripe_lots set reversed = reversed + 1 where lot_id = $1"],
    ["lot_mismatch", "update governance.stripe_lots set clawed = clawed + 1 where lot_id = $1"],
    ["lot_mismatch", "update governance.stripe_lots set tokens = tokens + 1 where lot_id = $1"],
    ["lot_mismatch", "update governance.stripe_lots set dispute_state = 'lost' where lot_id = $1"],
    [
      "lot_mismatch",
      "update governance.lots set clawed_back = 1, remaining = remaining - 1 where lot_id = $1",
    ],
    ["lot_mismatch", "update governance.lots set frozen = 1, remaining = remaining - 1 where lot_id = $1"],
    ["lot_mismatch", "delete from governance.lots where lot_id = $1"],
    ["payment_mismatch", "update governance.stripe_payments set currency = 'GBP' where payment_id = $2"],
    ["payment_mismatch", "update governance.stripe_payments set amount_minor = -1 where payment_id = $2"],
    ["payment_mismatch", "update governance.stripe_payments set refunded_minor = -1 where payment_id = $2"],
    [
      "payment_mismatch",
      "update governance.stripe_payments set refunded_override_minor = -1 where payment_id = $2",
    ],
    [
      "payment_mismatch",
      "update governance.stripe_payments set payment_intent_id = null, charge_id = null, checkout_session_id = null where payment_id = $2",
    ],
    [
      "account_mismatch",
      "update governance.stripe_payments set account_id = account_id + 1 where payment_id = $2",
    ],
    ["account_mismatch", "delete from governance.stripe_payments where payment_id = $2"],
    [
      "record_mismatch",
      record("update governance.purchase_records set account_id = account_id + 1 where lot_id = $1"),
    ],
    [
      "record_mismatch",
      record(
        "update governance.purchase_records set created_at = created_at + interval '1 second' where lot_id = $1",
      ),
    ],
    [
      "record_mismatch",
      record("update governance.purchase_records set transaction_id = -transaction_id where lot_id = $1"),
    ],
    [
      "record_mismatch",
      record("update governance.purchase_records set record_type = 'gift' where lot_id = $1"),
    ],
    ["record_missing", record("delete from governance.purchase_records where lot_id = $1")],
    [
      "record_missing",
      record("update governance.purchase_records set record_type = 'refund' where lot_id = $1"),
    ],
    [
      "record_missing",
      "insert into governance.stripe_lots (lot_id, payment_id, tokens) values (-$1::bigint, $2, 1)",
    ],
    [
      "event_mismatch",
      "update governance.webhook_events_processed set status = 'lost' where payment_id = $2",
    ],
    [
      "event_mismatch",
      "update governance.webhook_events_processed set status = 'quarantined' where payment_id = $2",
    ],
    ["event_mismatch", "update governance.webhook_events_processed set payload = '{}' where payment_id = $2"],
  ])("proves that nobody touched the books of payments: %s after %s", async (problem, tamper) => {
    const p = await topUp();
    await send(paid(p));
    const client = await db.connect();
    try {
      await client.query("begin");
      const { rows } = await client.query(
        "select s.lot_id, s.payment_id from governance.stripe_lots s join governance.stripe_payments p using (payment_id) where p.checkout_session_id = $1",
        [`cs_live_${p.name}`],
      );
      const values = [rows[0].lot_id, rows[0].payment_id];
      await client.query(tamper.replaceAll(/\$([12])/g, (_, n) => String(values[Number(n) - 1])));
      const found = await client.query("select verify_purchases() -> 'problems' as problems");
      expect(found.rows[0].problems).toContainEqual(
        expect.objectContaining({ problem, payment_id: Number(rows[0].payment_id) }),
      );
    } finally {
      await client.query("rollback");
      client.release();
    }
    await sound();
  });
});
