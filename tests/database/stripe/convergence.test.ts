/**
 * Deliveries as Stripe makes them: duplicated, shuffled, many at once, across restarts of server and clients. The books
 * depend on what happened, never on the order of delivery. `SEED` and `TESTS` give others and more.
 */
import { seeded, sized } from "../../support/size.ts";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  charge,
  checkoutSession,
  dispute,
  event,
  paymentIntent,
  type Purchase,
  refund,
  type StripeEvent,
} from "../../support/stripe/events.ts";
import { createProjectDatabase } from "../../support/database.ts";
import { type PostgresServer, startPostgres } from "../../support/postgres.ts";
import { postgresUrls } from "../../support/project.ts";

const seed = seeded(20261122);
const orders = sized(150, 1_000);
const hostileEvents = sized(1_000, 3_000);

/** mulberry32: small, repeatable. */
function dice(start: number): () => number {
  let state = start >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}
const shuffle = <T>(list: readonly T[], random: () => number): T[] => {
  const copy = [...list];
  for (let i = copy.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [copy[i], copy[j]] = [copy[j] as T, copy[i] as T];
  }
  return copy;
};

const created = Math.floor(Date.now() / 1000) - 86_400;
const purchase = (name: string, userId: string): Purchase => ({
  name,
  userId,
  packId: "top-up",
  tokens: 320_000,
  amountMinor: 200,
  currency: "gbp",
  created,
});

/** One payment's life, as Stripe tells it in order. */
function story(p: Purchase, random: () => number): StripeEvent[] {
  const at = (hours: number, type: string, object: object): StripeEvent =>
    event(type, object, { created: created + hours * 3600 });
  const events = [
    at(0, "checkout.session.completed", checkoutSession(p)),
    at(0, "payment_intent.succeeded", paymentIntent(p)),
    at(0, "charge.succeeded", charge(p)),
  ];
  const fate = random();
  // Some name the charge alone: only charge.succeeded ties them to the payment that was granted.
  const shape = random() < 0.4 ? { payment_intent: null } : {};
  let refunded = 0;
  const giveBack = (number: number, amount: number): void => {
    refunded += amount;
    events.push(at(number, "refund.created", refund(p, number, amount, { ...shape, status: "pending" })));
    events.push(at(number, "charge.refunded", charge(p, { amount_refunded: refunded })));
    events.push(at(number + 1, "refund.updated", refund(p, number, amount, shape)));
    if (random() < 0.3)
      events.push(at(number + 2, "refund.failed", refund(p, number, amount, { ...shape, status: "failed" })));
  };
  if (fate < 0.4) giveBack(1, 1 + Math.floor(random() * 120));
  if (fate < 0.2) giveBack(4, 1 + Math.floor(random() * 80));
  if (fate > 0.3 && fate < 0.8) {
    const amount = random() < 0.5 ? 200 : 1 + Math.floor(random() * 200);
    events.push(
      at(
        10,
        "charge.dispute.created",
        dispute(p, random() < 0.2 ? "warning_needs_response" : "needs_response", { ...shape, amount }),
      ),
    );
    if (random() < 0.6)
      events.push(
        at(11, "charge.dispute.funds_withdrawn", dispute(p, "needs_response", { ...shape, amount })),
      );
    if (random() < 0.6)
      events.push(at(12, "charge.dispute.updated", dispute(p, "under_review", { ...shape, amount })));
    const end = random();
    if (end < 0.35) {
      events.push(at(20, "charge.dispute.closed", dispute(p, "won", { ...shape, amount })));
      events.push(at(20, "charge.dispute.funds_reinstated", dispute(p, "won", { ...shape, amount })));
    } else if (end < 0.7) {
      events.push(at(20, "charge.dispute.closed", dispute(p, "lost", { ...shape, amount })));
      // Some are appealed, and some appeals are won.
      if (end < 0.55)
        events.push(
          at(25, "charge.dispute.updated", dispute(p, "appeal_under_review", { ...shape, amount })),
        );
      if (end < 0.45) {
        events.push(at(30, "charge.dispute.closed", dispute(p, "won", { ...shape, amount })));
        events.push(at(30, "charge.dispute.funds_reinstated", dispute(p, "won", { ...shape, amount })));
      }
    }
  }
  return events;
}

const booksSql = `select coalesce(jsonb_agg(b order by b ->> 'intent'), '[]') as books from (
  select jsonb_build_object('user', a.user_id, 'intent', p.payment_intent_id, 'charge', p.charge_id, 'granted', l.granted, 'remaining', l.remaining,
    'frozen', l.frozen, 'spent', l.spent, 'clawed_back', l.clawed_back, 'reversed', s.reversed, 'clawed', s.clawed, 'owed', s.owed,
    'held', s.dispute_state = 'held', 'purchased', a.purchased_tokens, 'debt', a.debt_tokens) b
  from governance.stripe_lots s join governance.lots l using (lot_id) join governance.stripe_payments p using (payment_id)
  join governance.accounts a on a.account_id = l.account_id where a.user_id like $1) x`;

/** Both proofs at once: the ledger, and the books of payments. */
const SOUND = "select verify_ledger() -> 'problems' || (verify_purchases() -> 'problems') as problems";

const urls = postgresUrls();

describe("any order of deliveries", () => {
  let db: pg.Pool;
  beforeAll(async () => {
    const project = await createProjectDatabase(urls[18], { preset: "athro" });
    db = new pg.Pool({ connectionString: project.ownerUrl, max: 4 });
  });
  afterAll(async () => {
    await db.end();
  });

  it(`leads to the books of the order in which it happened (${orders} random orders, seed ${seed})`, async () => {
    const random = dice(seed);
    // One story is delivered over and over: each time to users of its own, in another order, some events twice.
    const perBatch = 40;
    for (let done = 0; done < orders; done += perBatch) {
      const stories: StripeEvent[][] = [];
      const storySeed = Math.floor(random() * 2 ** 31);
      for (let variant = 0; variant <= perBatch; variant++) {
        const told = dice(storySeed);
        const user = `v${done}_${variant}`;
        const inOrder = [0, 1].flatMap((n) => story(purchase(`${user}_${n}`, user), told));
        if (variant === 0) stories.push(inOrder);
        else {
          const mixed = shuffle(inOrder, random);
          stories.push([...mixed, ...mixed.filter(() => random() < 0.2)]);
        }
      }
      await db.query(
        `do $$ begin for v in 0..${perBatch} loop perform upsert_account('v${done}_' || v, 'full', 'v@example.com'); end loop; end $$`,
      );
      await Promise.all(
        stories.map(async (events) => {
          const { rows } = await db.query(
            "select process_stripe_event(e) ->> 'status' s from jsonb_array_elements($1) e",
            [JSON.stringify(events)],
          );
          for (const row of rows as { s: string }[]) expect(["processed", "duplicate"]).toContain(row.s);
        }),
      );
      const books = async (variant: number): Promise<string> => {
        const { rows } = await db.query(booksSql, [`v${done}\\_${variant}`]);
        return JSON.stringify(rows[0].books).replaceAll(`v${done}_${variant}`, "v");
      };
      const inOrder = await books(0);
      expect(JSON.parse(inOrder), `story ${storySeed}`).toHaveLength(2);
      for (let variant = 1; variant <= perBatch; variant++)
        expect(await books(variant), `story ${storySeed}, variant ${variant} of batch ${done}`).toBe(inOrder);
    }
    const { rows } = await db.query(SOUND);
    expect(rows[0].problems).toEqual([]);
    // Each cause is told once: as many confirmations as grants, and every token that was taken back in one message.
    const told = await db.query(`
      with told as (select n.account_id, n.payload ->> 'word' as word, (n.payload #>> '{values,tokens}')::bigint as tokens
        from governance.notifications n where n.account_id is not null),
      done as (select r.account_id, case r.record_type when 'grant' then 'message.purchase' when 'refund'
          then 'message.refund' else 'message.dispute' end as word, abs(r.tokens) as tokens
        from governance.purchase_records r where r.record_type in ('grant', 'refund', 'dispute_clawback')),
      by_account as (select account_id, word, count(*), sum(tokens) from told group by 1, 2)
      select (select count(*)::int from by_account) as kinds, (select count(*)::int from (
        (table by_account except select account_id, word, count(*), sum(tokens) from done group by 1, 2)
        union all (select account_id, word, count(*), sum(tokens) from done group by 1, 2 except table by_account)) x) as wrong`);
    expect(told.rows[0].kinds).toBeGreaterThan(orders);
    expect(told.rows[0].wrong).toBe(0);
  }, 900_000);

  it(`follows refunds that fail and are made again where only the charge's figure shows them (${orders} histories, seed ${seed})`, async () => {
    const random = dice(seed + 1);
    const version = { apiVersion: "2023-10-16" };
    const stories = Array.from({ length: orders }, (_, n) => {
      const p = purchase(`again_${n}`, `again_${n}`);
      const events = [
        event("checkout.session.completed", checkoutSession(p), { ...version, created }),
        event("charge.succeeded", charge(p), { ...version, created }),
      ];
      const open: { number: number; amount: number }[] = [];
      let refunded = 0;
      let most = 0;
      let hasFailed = false;
      const steps = 2 + Math.floor(random() * 6);
      for (let step = 1; step <= steps; step++) {
        const at = { ...version, created: created + step * 60 };
        // A figure above all before it would not show whether a failed refund is still in it.
        const room = (hasFailed ? most : p.amountMinor) - refunded;
        if (open.length > 0 && (room === 0 || random() < 0.4)) {
          const [failed] = open.splice(Math.floor(random() * open.length), 1);
          if (!failed) continue;
          refunded -= failed.amount;
          hasFailed = true;
          const told = refund(p, failed.number, failed.amount, { status: "failed" });
          events.push(event("charge.refund.updated", told, at));
          if (random() < 0.3)
            events.push(event("charge.refund.updated", told, { ...at, created: at.created + 600 }));
        } else {
          const amount = random() < 0.4 ? room : 1 + Math.floor(random() * room);
          open.push({ number: step, amount });
          refunded += amount;
          most = Math.max(most, refunded);
          events.push(event("charge.refunded", charge(p, { amount_refunded: refunded }), at));
        }
      }
      const kept = p.tokens - Math.floor((p.tokens * refunded) / p.amountMinor);
      return { user: p.userId, events, kept };
    });
    await db.query("select upsert_account(u, 'full') from unnest($1::text[]) u", [
      stories.map(({ user }) => user),
    ]);
    for (const { user, events, kept } of stories) {
      const mixed = shuffle([...events, ...events.filter(() => random() < 0.2)], random);
      await db.query("select process_stripe_event(e) from jsonb_array_elements($1) e", [
        JSON.stringify(mixed),
      ]);
      const { rows } = await db.query(
        "select (purchased_tokens - debt_tokens)::int as kept from governance.accounts where user_id = $1",
        [user],
      );
      expect(
        rows[0],
        `${user}: ${events.map(({ type, data }) => `${type} ${JSON.stringify(data.object["amount_refunded"] ?? data.object["amount"])}`).join(", ")}`,
      ).toEqual({ kept });
    }
    const { rows } = await db.query(SOUND);
    expect(rows[0].problems).toEqual([]);
  }, 300_000);

  it("keeps every token of every lot accounted for, whatever is bought, refunded, disputed and spent", async () => {
    const random = dice(seed + 1);
    const users = Array.from({ length: 12 }, (_, i) => `h${i}`);
    for (const user of users) await db.query("select upsert_account($1, 'full')", [user]);
    const events = shuffle(
      users.flatMap((user) =>
        Array.from({ length: 6 }, (_, n) => story(purchase(`${user}_${n}`, user), random)).flat(),
      ),
      random,
    );
    // Every other user's calls hold their tokens first: what is held is neither frozen nor taken back while it is.
    const holds = new Map<string, string>();
    let held = 0;
    const spend = async (user: string, number: number): Promise<void> => {
      const tokens = 1 + Math.floor(random() * 900_000);
      if (number % 2 === 0) {
        await db
          .query("select update_user_token_balance($1, -$2::bigint, 'usage')", [user, tokens])
          .catch((error: { hint?: string }) => expect(error.hint).toBe("insufficient_tokens"));
        return;
      }
      const call = holds.get(user);
      holds.delete(user);
      if (call === undefined) {
        const { rows } = await db.query("select authorize_usage($1, $2, 'gpt-4o-mini', $3) a", [
          `call${random()}`,
          user,
          tokens,
        ]);
        if (rows[0].a.decision === "block") return;
        held++;
        holds.set(user, rows[0].a.request_id);
      } else if (random() < 0.3) await db.query("select release_usage($1)", [call]);
      else await db.query("select settle_usage($1, $2, 0)", [call, Math.floor(tokens * random() * 1.5)]);
    };
    for (const sent of events) {
      await db.query("select process_stripe_event($1)", [JSON.stringify(sent)]);
      const number = Math.floor(random() * users.length);
      await spend(users[number] as string, number);
    }
    expect(held).toBeGreaterThan(10);
    const { rows } = await db.query(`
      select s.lot_id from governance.stripe_lots s join governance.lots l using (lot_id) join governance.stripe_payments p using (payment_id)
      where l.granted <> l.remaining + l.frozen + l.spent + l.expired + l.clawed_back
        -- What the money took back is what left the lot and what is owed for it.
        or s.reversed + s.clawed <> l.clawed_back + s.owed
        or s.reversed + s.clawed > s.tokens or s.tokens <> 320000`);
    expect(rows).toEqual([]);
    const accounts = await db.query(`
      select a.user_id from governance.accounts a where a.user_id like 'h%' and
        (a.debt_tokens > 0 and a.subscription_tokens + a.purchased_tokens + a.promotional_tokens - a.reserved_tokens > 0
        or a.subscription_tokens + a.purchased_tokens + a.promotional_tokens <> (select coalesce(sum(l.remaining), 0) from governance.lots l where l.account_id = a.account_id))`);
    expect(accounts.rows).toEqual([]);
    const verified = await db.query(SOUND);
    expect(verified.rows[0].problems).toEqual([]);
  });
});

describe("deliveries at once, and across restarts", () => {
  let server: PostgresServer;
  let url: string;
  beforeAll(async () => {
    server = await startPostgres({ version: 18, settings: { fsync: "on" } });
    url = (await createProjectDatabase(server.url(), { preset: "athro" })).ownerUrl;
  });
  afterAll(async () => {
    await server.stop();
  });

  it("gives one event, delivered 1,000 times by 16 at once, one effect", async () => {
    const db = new pg.Pool({ connectionString: url, max: 16 });
    await db.query("select upsert_account('once', 'full')");
    const sent = JSON.stringify(
      event("checkout.session.completed", checkoutSession(purchase("once", "once"))),
    );
    const answers = await Promise.all(
      Array.from({ length: 1_000 }, () => db.query("select process_stripe_event($1) a", [sent])),
    );
    const effects = answers.flatMap(({ rows }) => rows[0].a.effects);
    expect(effects).toMatchObject([{ type: "grant", tokens: 320_000 }]);
    const { rows } = await db.query(
      "select purchased_tokens::int n from governance.accounts where user_id = 'once'",
    );
    expect(rows).toEqual([{ n: 320_000 }]);
    await db.end();
  });

  it("gives 200 events × 5 deliveries, shuffled, 16 at once, with three crashes of the server, 200 effects", async () => {
    const random = dice(seed + 2);
    const setup = new pg.Client({ connectionString: url });
    await setup.connect();
    for (let i = 0; i < 20; i++)
      await setup.query("select upsert_account($1, 'full', 'c@example.com')", [`c${i}`]);
    await setup.end();
    const events = Array.from({ length: 200 }, (_, i) =>
      event("checkout.session.completed", checkoutSession(purchase(`crash${i}`, `c${i % 20}`))),
    );
    const deliveries = shuffle(
      events.flatMap((sent) => [sent, sent, sent, sent, sent]),
      random,
    );
    let next = 0;
    let crashes = 0;
    let restarting: Promise<void> | null = null;
    const worker = async (): Promise<void> => {
      let client: pg.Client | null = null;
      while (next < deliveries.length) {
        const at = next++;
        const sent = deliveries[at] as StripeEvent;
        if ((at === 250 || at === 500 || at === 750) && restarting === null) {
          crashes++;
          restarting = server.kill().then(() => server.restart());
        }
        // As Stripe does: until it is answered.
        for (let attempt = 0; ; attempt++) {
          try {
            if (restarting) {
              await restarting;
              restarting = null;
            }
            if (!client) {
              client = new pg.Client({ connectionString: url });
              client.on("error", () => undefined);
              await client.connect();
            }
            const { rows } = await client.query("select process_stripe_event($1) a", [JSON.stringify(sent)]);
            expect(["processed", "duplicate"]).toContain(rows[0].a.status);
            break;
          } catch (error) {
            if (attempt > 200) throw error;
            await client?.end().catch(() => undefined);
            client = null;
            await new Promise((resolve) => setTimeout(resolve, 50));
          }
        }
      }
      await client?.end();
    };
    await Promise.all(Array.from({ length: 16 }, worker));
    const db = new pg.Client({ connectionString: url });
    await db.connect();
    const { rows } = await db.query(
      "select count(*)::int lots, sum(l.granted)::int tokens from governance.stripe_lots s join governance.lots l using (lot_id) join governance.accounts a using (account_id) where a.user_id like 'c%'",
    );
    expect(crashes).toBe(3);
    expect(rows).toEqual([{ lots: 200, tokens: 200 * 320_000 }]);
    const told = await db.query("select count(*)::int n from governance.notifications");
    expect(told.rows).toEqual([{ n: 200 }]);
    const verified = await db.query(SOUND);
    expect(verified.rows[0].problems).toEqual([]);
    await db.end();
  });
});

describe("hostile events", () => {
  it("are refused or quarantined with a stated reason, never an error of the server, and change nothing", async () => {
    const project = await createProjectDatabase(urls[18], { preset: "athro" });
    const db = new pg.Pool({ connectionString: project.ownerUrl, max: 4 });
    await db.query("select upsert_account('victim', 'full')");
    const before = (await db.query("select md5(a::text) h from governance.accounts a")).rows;
    const random = dice(seed + 3);
    const p = purchase("hostile", "victim");
    const good: [string, object][] = [
      ["checkout.session.completed", checkoutSession(p)],
      ["charge.succeeded", charge(p)],
      ["charge.refunded", charge(p, { amount_refunded: 50, refunds: { data: [refund(p, 1, 50)] } })],
      ["refund.created", refund(p, 1, 50)],
      ["charge.dispute.created", dispute(p, "needs_response")],
      ["payment_intent.succeeded", paymentIntent(p)],
      [
        "invoice.paid",
        {
          id: "in_h",
          customer: "cus_h",
          currency: "gbp",
          amount_paid: 1,
          lines: {
            data: [
              {
                id: "il_h",
                amount: 1,
                period: { start: 1, end: 2 },
                type: "subscription",
                metadata: { tokens: "5" },
              },
            ],
          },
        },
      ],
      ["invoice_payment.paid", { id: "inpay_h", invoice: "in_h", payment: { payment_intent: "pi_h" } }],
      [
        "customer.subscription.deleted",
        { id: "sub_h", customer: "cus_h", items: { data: [{ price: { metadata: {} } }] } },
      ],
    ];
    const poison: unknown[] = [
      null,
      "",
      " ",
      "x".repeat(300),
      "💥",
      "-1",
      "1e9",
      "9".repeat(300),
      "'; drop table x;--",
      -1,
      0,
      0.5,
      1e308,
      2 ** 53 + 2,
      -(2 ** 60),
      true,
      false,
      [],
      [[]],
      {},
      { id: 5 },
      { data: "x" },
      { data: [null, 1, {}] },
      "‮abc",
      "\ud800".toWellFormed(),
    ];
    const paths = (value: unknown, path: (string | number)[] = []): (string | number)[][] =>
      value !== null && typeof value === "object"
        ? [path, ...Object.entries(value).flatMap(([key, inner]) => paths(inner, [...path, key]))]
        : [path];
    const spoil = (value: unknown, path: readonly (string | number)[], by: unknown): unknown => {
      if (path.length === 0) return by;
      const [key = "", ...rest] = path;
      const copy = (Array.isArray(value) ? [...value] : { ...(value as object) }) as Record<string, unknown>;
      copy[key] = spoil(copy[key], rest, by);
      return copy;
    };
    const sent: unknown[] = [];
    for (let i = 0; i < hostileEvents; i++) {
      const [type, object] = good[i % good.length] as [string, object];
      let hostile: unknown = event(type, object);
      for (let n = 0; n <= Math.floor(random() * 3); n++) {
        const all = paths(hostile);
        hostile = spoil(
          hostile,
          all[Math.floor(random() * all.length)] ?? [],
          poison[Math.floor(random() * poison.length)],
        );
      }
      sent.push(hostile);
    }
    const answers = { processed: 0, ignored: 0, quarantined: 0, duplicate: 0, refused: 0 };
    for (const hostile of sent) {
      try {
        const { rows } = await db.query("select process_stripe_event($1) a", [JSON.stringify(hostile)]);
        const status = rows[0].a.status as keyof typeof answers;
        answers[status]++;
      } catch (error) {
        expect((error as { code: string }).code, JSON.stringify(hostile)?.slice(0, 500)).toBe("PT400");
        answers.refused++;
      }
    }
    for (const count of Object.values(answers)) expect(count, JSON.stringify(answers)).toBeGreaterThan(0);
    // The good parts of it may have paid for one pack, once.
    const { rows } = await db.query(
      "select count(*)::int n from governance.stripe_lots s join governance.lots l using (lot_id) where l.kind = 'purchased'",
    );
    expect(rows[0].n).toBeLessThanOrEqual(hostileEvents / good.length);
    const granted = await db.query(
      "select l.granted::int g from governance.stripe_lots s join governance.lots l using (lot_id) where l.kind = 'purchased'",
    );
    for (const lot of granted.rows) expect(lot.g).toBe(320_000);
    expect(before).toHaveLength(1);
    expect((await db.query(SOUND)).rows[0].problems).toEqual([]);
    await db.end();
  });
});
