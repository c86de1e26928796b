/**
 * Subscriptions against a plain model: whatever order Stripe delivers in, late or twice, a user has the plan and tokens
 * that were paid for, and the ledger the money. `TESTS` and `SEED` give others (tests/support/size.ts).
 */
import { seeded, sized } from "../../support/size.ts";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { dice, shuffle } from "../../support/dice.ts";
import {
  type ExpectedAccount,
  expectedAccounts,
  expectedMoney,
  type History,
  subscriptionHistory,
  subscriptionPreset,
} from "../../support/models/subscription-model.ts";
import {
  event,
  invoiceSinceBasil,
  type StripeEvent,
  subscription,
  type SubscriptionPeriod,
} from "../../support/stripe/events.ts";
import { expectSoundBooks, installedVersions, openProject, type Project } from "../../support/project.ts";

const historiesOn = (version: 15 | 18): number => sized(version === 18 ? 30 : 10, 10_000);
const seed = seeded(20261128);
const start = Date.parse("2027-01-04T10:00:00Z") / 1000;
const lastDay = 130;
const lastDelivery = 140;
/** Days on which the clock stops and what is due by then is delivered. */
const stepDays = 5;

describe.each(installedVersions())("subscriptions on PostgreSQL %i", (version) => {
  const histories = historiesOn(version);
  let project: Project;
  beforeAll(async () => {
    project = await openProject(version);
    await project.rpc("apply_preset", { p_preset: subscriptionPreset });
  });
  afterAll(async () => {
    await project.close();
  });

  it(
    `leave each user what was paid for (${histories} histories, seed ${seed})`,
    async () => {
      const random = dice(seed);
      const batch = 200;
      for (let done = 0; done < histories; done += batch) {
        const users = new Map<string, History>();
        for (let n = done; n < Math.min(done + batch, histories); n++) {
          const userId = `s${n}`;
          users.set(userId, subscriptionHistory({ userId, random, start, lastDay, lastDelivery }));
        }
        await clock(0);
        const everybody = [...users.values()].flatMap((history) => history.users);
        await project.sql.query("select upsert_account(u) from unnest($1::text[]) u", [everybody]);
        const deliveries = [...users.values()].flatMap((history) => history.deliveries);
        for (let day = 0; day <= lastDelivery + stepDays; day += stepDays) {
          const due = shuffle(
            deliveries.filter((one) => one.day > day - stepDays && one.day <= day),
            random,
          );
          await clock(day);
          const { rows } = await project.sql.query(
            `select process_stripe_event(e) ->> 'reason' as reason, e ->> 'id' as id
           from jsonb_array_elements($1) e`,
            [JSON.stringify(due.map((one) => one.event))],
          );
          for (const row of rows as { reason: string | null; id: string }[])
            expect(["malformed", "amount_mismatch"], row.id).not.toContain(row.reason);
        }
        const day = lastDelivery + stepDays;
        const found = await accounts(everybody);
        for (const [userId, history] of users) {
          const own = history.users.map((user) => [user, found.get(user) as FoundAccount] as const);
          const story = describeHistory(userId, history);
          expect(
            Object.fromEntries(
              own.map(([user, { plan, subscription: tokens }]) => [user, { plan, subscription: tokens }]),
            ),
            story,
          ).toEqual(expectedAccounts(history, day));
          expect(
            own.reduce((sum, [, { booked }]) => sum + booked, 0),
            `${story}: booked`,
          ).toBe(expectedMoney(history));
        }
      }
      await expectSoundBooks(project);
      expect((await project.call("verify_purchases"))["problems"]).toEqual([]);
    },
    120_000 + 600 * histories,
  );

  it("the end of an older or never paid subscription leaves the newer, paid one its plan and tokens", async () => {
    const userId = "changed-card";
    await clock(0);
    await project.call("upsert_account", userId);
    await send(
      event("customer.subscription.created", subscription("older", { metadata: of(userId) })),
      event("invoice.paid", invoice("older_1", userId, 0)),
    );
    await clock(31);
    await send(
      event("customer.subscription.created", subscription("newer", { metadata: of(userId) })),
      event("invoice.paid", invoice("newer_1", userId, 31)),
      event(
        "customer.subscription.created",
        subscription("unpaid", { metadata: of(userId), status: "incomplete" }),
      ),
    );
    const paid = (await accounts([userId])).get(userId);
    expect(paid).toMatchObject({ plan: "basic" });
    for (const gone of ["older", "unpaid"]) {
      await send(
        event(
          "customer.subscription.deleted",
          subscription(gone, { metadata: of(userId), status: "canceled", ended_at: start + 31 * 86_400 }),
        ),
      );
      expect((await accounts([userId])).get(userId)).toMatchObject({ plan: "basic", subscription: 100_000 });
    }
  });

  it("a subscription whose renewals fail gives nothing more, month after month, and goes on when it is paid again", async () => {
    const userId = "empty-card";
    await clock(0);
    await project.call("upsert_account", userId);
    await send(
      event("customer.subscription.created", subscription("failing", { metadata: of(userId) })),
      event("invoice.paid", invoice("failing_1", userId, 0)),
    );
    expect((await accounts([userId])).get(userId)).toMatchObject({ subscription: 100_000 });
    for (const month of [1, 2, 3]) {
      await clock(month * 31 + 5);
      await send(
        event(
          "customer.subscription.updated",
          subscription("failing", { metadata: of(userId), status: month === 1 ? "past_due" : "unpaid" }),
          { created: start + (month * 31 + 5) * 86_400 },
        ),
      );
      await project.call("run_maintenance");
      expect(await project.call("get_user_token_balance", userId)).toBe(0);
    }
    await clock(130);
    await send(event("invoice.paid", invoice("failing_2", userId, 130)));
    expect(await project.call("get_user_token_balance", userId)).toBe(100_000);
  });

  it("a subscription that another user's name was written into is theirs: plan, tokens that are left, and its end", async () => {
    const [former, holder] = ["former", "holder"];
    await clock(0);
    for (const user of [former, holder]) await project.call("upsert_account", user);
    await send(
      event("customer.subscription.created", subscription("moved", { metadata: of(former) }), {
        created: start,
      }),
      event("invoice.paid", invoice("moved_1", former, 0)),
    );
    await project.call("update_user_token_balance", former, -40_000, "usage");
    await clock(10);
    const told = { created: start + 10 * 86_400 };
    const named = event(
      "customer.subscription.updated",
      subscription("moved", { metadata: of(holder) }),
      told,
    );
    // What Stripe said before comes late, and changes nothing.
    await send(
      named,
      event("customer.subscription.updated", subscription("moved", { metadata: of(former) }), {
        created: start + 86_400,
      }),
    );
    const both = async () => {
      const found = await accounts([former, holder]);
      return [former, holder].map((user) => [found.get(user)?.plan, found.get(user)?.subscription]);
    };
    expect(await both()).toEqual([
      ["free", 0],
      ["basic", 60_000],
    ]);
    // An upgrade gives what is more than the period has given, to whomever it was.
    await send(
      event(
        "invoice.paid",
        invoice("moved_2", holder, 11, 3_000, { planId: "pro", end: start + 30 * 86_400 }),
      ),
    );
    expect(await both()).toEqual([
      ["free", 0],
      ["pro", 260_000],
    ]);
    // The first invoice is refunded: what was used of it the former user owes, the rest is taken from the holder.
    await send(
      event("refund.created", {
        id: "re_moved",
        object: "refund",
        amount: 2_000,
        currency: "usd",
        charge: "ch_moved_1",
        payment_intent: "pi_moved_1",
        status: "succeeded",
      }),
      event("invoice_payment.paid", {
        id: "inpay_moved_1",
        object: "invoice_payment",
        invoice: "in_moved_1",
        amount_paid: 2_000,
        status: "paid",
        payment: { type: "payment_intent", payment_intent: "pi_moved_1" },
      }),
    );
    expect(await both()).toEqual([
      ["free", 0],
      ["pro", 200_000],
    ]);
    expect(await project.call("get_user_token_balance", former)).toBe(0);
    await send(
      event(
        "customer.subscription.deleted",
        subscription("moved", { metadata: of(holder), status: "canceled", ended_at: start + 12 * 86_400 }),
        { created: start + 12 * 86_400 },
      ),
    );
    expect(await both()).toEqual([
      ["free", 0],
      ["free", 0],
    ]);
    await expectSoundBooks(project);
  });

  it("a moved subscription whose tokens were used gives none again, and what is paid for it is booked", async () => {
    const [former, holder] = ["spent-all", "took-over"];
    await clock(0);
    for (const user of [former, holder]) await project.call("upsert_account", user);
    const told = (day: number): object => ({ created: start + day * 86_400 });
    await send(
      event("customer.subscription.created", subscription("used", { metadata: of(former) }), told(0)),
      event("invoice.paid", invoice("used_1", former, 0), told(0)),
    );
    await project.call("update_user_token_balance", former, -100_000, "usage");
    await clock(10);
    await send(
      event("customer.subscription.updated", subscription("used", { metadata: of(holder) }), told(10)),
      // A seat more, for the rest of the period.
      event("invoice.paid", invoice("used_2", holder, 10, 500, { end: start + 30 * 86_400 }), told(10)),
    );
    const found = await accounts([former, holder]);
    expect([found.get(former)?.subscription, found.get(holder)?.subscription]).toEqual([0, 0]);
    expect(
      await project.one(
        `select sum(l.amount_minor)::int as booked from governance.lots l join governance.accounts a using (account_id)
         where a.user_id = any ($1)`,
        [[former, holder]],
      ),
    ).toEqual({ booked: 2_500 });
    await expectSoundBooks(project);
    expect((await project.call("verify_purchases"))["problems"]).toEqual([]);
  });

  const of = (userId: string): object => ({ user_id: userId, plan_id: "basic" });
  const invoice = (
    name: string,
    userId: string,
    day: number,
    amountMinor = 2_000,
    changes: Partial<SubscriptionPeriod> = {},
  ): object =>
    invoiceSinceBasil({
      name,
      userId,
      planId: "basic",
      amountMinor,
      currency: "usd",
      start: start + day * 86_400,
      end: start + (day + 30) * 86_400,
      ...changes,
    });
  async function send(...events: readonly StripeEvent[]): Promise<void> {
    for (const one of events)
      expect(await project.call("process_stripe_event", JSON.stringify(one))).toMatchObject({
        status: expect.stringMatching(/^(processed|ignored)$/),
      });
  }

  const clock = (day: number): Promise<void> =>
    project.setClock(new Date((start + day * 86_400) * 1000).toISOString(), true);

  type FoundAccount = ExpectedAccount & { readonly booked: number };
  async function accounts(userIds: readonly string[]): Promise<Map<string, FoundAccount>> {
    const { rows } = await project.sql.query(
      `select l.user_id, l.plan_id as plan, l.subscription_tokens::int as subscription,
         coalesce((select sum(x.amount_minor) from governance.lots x where x.account_id = l.account_id), 0)::int as booked
       from unnest($1::text[]) u cross join lateral governance.lock_account(u) l`,
      [userIds],
    );
    return new Map(
      (rows as (FoundAccount & { user_id: string })[]).map(({ user_id, ...rest }) => [user_id, rest]),
    );
  }
});

function describeHistory(userId: string, history: History): string {
  const paid = history.subscriptions.map(
    (one) =>
      `${one.id} of ${one.owner}: ${one.paid.map((p) => `${p.plan} ${p.from.toFixed(2)}-${p.to.toFixed(2)} ${p.net}, back ${p.refunded}`).join("; ")}, ended ${one.endedOn}`,
  );
  const told = [...history.deliveries]
    .sort((a, b) => a.day - b.day)
    .map((one) => `${one.day.toFixed(2)} ${one.event.type} ${one.event.id}`);
  return [userId, ...paid, ...told].join("\n");
}
