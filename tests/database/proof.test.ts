/**
 * The proof: books of random histories of everything that writes to them are sound, and no tampering with them goes
 * unseen or unnamed. HISTORIES sets how many histories are told.
 */
import type pg from "pg";
import { describe, expect, it } from "vitest";
import {
  charge,
  checkoutSession,
  dispute,
  event,
  invoiceSinceBasil,
  type Purchase,
  refund,
  type StripeEvent,
  subscription,
} from "../fixtures/stripe/events.ts";
import { installedVersions } from "./desk.ts";
import { dice, openProject, type Project } from "./enforcement-support.ts";

const histories = Number(process.env["HISTORIES"] ?? 8);
const steps = 400;

const problemsOf = async (project: Project, user: string | null = null): Promise<unknown[]> =>
  (await project.call("verify_ledger", user))["problems"] as unknown[];

/** Plans that end each in their own way, a rule that multiplies, a ceiling within reach, and a table to import from. */
async function prepare(project: Project): Promise<void> {
  await project.pool.query(`
    insert into governance.plans select p.* from governance.plans q
      cross join lateral jsonb_populate_record(q, jsonb_build_object('plan_id', 'ends_' || q.plan_id, 'on_cancel', case q.plan_id when 'lite' then 'convert' else 'expire' end,
        'rollover_months', case q.plan_id when 'lite' then 2 else 0 end, 'daily_limit', null, 'monthly_limit', null)) p where q.plan_id in ('lite', 'full');
    update governance.active_config set settle_ceiling_tokens = 200000;
    create table public.chats (id int primary key, user_id text, created_at timestamptz, metadata jsonb, model text);
    alter table public.chats owner to project_owner`);
  const saved = await project.call("save_rule", "dear", {
    rule_name: "dear-model",
    rule_type: "x",
    priority: 900,
    mode: "enforce",
    conditions: { fact: "model", op: "=", value: "gpt-4o" },
    action: { multiply_cost: { by: 1.5 } },
  });
  expect(saved["message"] ?? null).toBeNull();
}

/** One history of a few users: calls, grants, purchases, subscriptions, corrections, imports, upkeep, and time. */
class History {
  readonly told: string[] = [];
  readonly users: string[];
  readonly #project: Project;
  readonly #random: () => number;
  readonly #name: string;
  #now: number;
  #serial = 0;
  readonly #deliveries: StripeEvent[] = [];
  readonly #calls: string[] = [];

  constructor(project: Project, seed: number, now: number) {
    this.#project = project;
    this.#random = dice(seed);
    this.#name = `h${seed}`;
    this.#now = now;
    this.users = [0, 1, 2].map((n) => `${this.#name}u${n}`);
  }

  #below = (most: number): number => Math.floor(this.#random() * most);
  #pick<Item>(items: readonly Item[]): Item {
    return items[this.#below(items.length)] as Item;
  }
  #fresh = (): string => `${this.#name}x${++this.#serial}`;

  async #call(name: string, ...parameters: readonly unknown[]): Promise<Record<string, unknown>> {
    this.told.push(`${name} ${JSON.stringify(parameters).slice(0, 200)}`);
    return this.#project.call(name, ...parameters);
  }

  async setClock(ms: number): Promise<void> {
    this.#now += ms;
    this.told.push(`clock ${new Date(this.#now).toISOString()}`);
    await this.#project.pool.query("select governance.set_test_clock($1, true)", [
      new Date(this.#now).toISOString(),
    ]);
  }

  #story(user: string): StripeEvent[] {
    const created = Math.floor(this.#now / 1000);
    const p: Purchase = {
      name: this.#fresh(),
      userId: user,
      packId: "top-up",
      tokens: 320_000,
      amountMinor: 200,
      currency: "gbp",
      created,
    };
    const at = (hours: number, type: string, object: object): StripeEvent =>
      event(type, object, { created: created + hours * 3600 });
    const events = [
      at(0, "checkout.session.completed", checkoutSession(p)),
      at(0, "charge.succeeded", charge(p)),
    ];
    for (let n = this.#below(3); n > 0; n -= 1) {
      const amount = 1 + this.#below(100);
      events.push(at(n, "refund.updated", refund(p, n, amount)));
      if (this.#random() < 0.3)
        events.push(at(n + 4, "refund.failed", refund(p, n, amount, { status: "failed" })));
    }
    if (this.#random() < 0.6) {
      const amount = this.#pick([200, 120, 40]);
      events.push(at(10, "charge.dispute.created", dispute(p, "needs_response", { amount })));
      if (this.#random() < 0.7)
        events.push(at(20, "charge.dispute.closed", dispute(p, this.#pick(["won", "lost"]), { amount })));
    }
    return events;
  }

  async #correct(): Promise<void> {
    const { lot } = await this.#project.one<{ lot: string | null }>(
      "select max(lot_id) filter (where random_place = $1) as lot from (select lot_id, lot_id % 5 as random_place from governance.stripe_lots) x",
      [this.#below(5)],
    );
    if (lot === null) return;
    const correction = {
      lot_id: Number(lot),
      ...this.#pick([
        { action: "adjust", tokens: 1 + this.#below(50_000) },
        { action: "adjust", tokens: -1 - this.#below(50_000) },
        { action: "relabel", amount_minor: 150, currency: "gbp" },
        { action: "promotional" },
        { action: "claw_back", refunded_minor: this.#below(200) },
        { action: "finalise_dispute", disputed_minor: 100 },
        { action: "release" },
      ]),
    };
    this.told.push(`correction ${JSON.stringify(correction)}`);
    await this.#project.pool
      .query("select governance.apply_correction($1, $2, governance.now())", [this.#fresh(), correction])
      .catch((error: { code?: string; message: string; where?: string }) => expect([error.code, error.message, error.where, this.told.slice(-30)]).toEqual([expect.stringMatching(/^PT4/), error.message, error.where, expect.anything()]));
  }

  async step(): Promise<void> {
    const random = this.#random;
    const user = this.#pick(this.users);
    const chance = random();
    const tokens = 1 + Math.floor(random() ** 3 * 400_000);
    if (chance < 0.25) {
      const id = this.#fresh();
      this.#calls.push(id);
      const message = random() < 0.6 ? `Message ${this.#fresh()}` : null;
      const model = this.#pick(["gpt-4o-mini", "gpt-4o", "nobody-knows"]);
      await this.#call(
        "authorize_usage",
        id,
        user,
        model,
        tokens,
        message,
        null,
        this.#pick([null, "chat"]),
        this.#pick([null, "s1"]),
      );
    } else if (chance < 0.45 && this.#calls.length > 0) {
      // Any call of this history: held, expired long ago, settled already, set aside.
      const id = random() < 0.7 ? (this.#calls.at(-1) as string) : this.#pick(this.#calls);
      const model = random() < 0.2 ? "gpt-4o" : null;
      const settled = await this.#call("settle_usage", id, tokens, this.#below(500), model);
      if (settled["status"] === "quarantined" && random() < 0.7)
        await this.#call(
          "console_resolve_hold",
          this.#fresh(),
          id,
          this.#pick(["settle", "release"]),
          "looked at",
          "ann",
        );
    } else if (chance < 0.5 && this.#calls.length > 0) {
      await this.#call("release_usage", this.#pick(this.#calls), "failed");
    } else if (chance < 0.53) {
      await this.#call("record_token_usage", user, tokens, 0.25, this.#pick(["gpt-4o-mini", "nobody-knows"]));
    } else if (chance < 0.63) {
      const isIn = random() < 0.6;
      const type = this.#pick(
        isIn
          ? ["purchase", "bonus", "subscription_grant", "adjustment", "refund"]
          : ["adjustment", "usage", "reversal", "refund", "expiry"],
      );
      const expires =
        isIn && random() < 0.5
          ? new Date(this.#now + this.#below(60) * 86_400_000 + 60_000).toISOString()
          : null;
      await this.#call(
        "update_user_token_balance",
        user,
        isIn ? tokens : -tokens,
        type,
        "By hand",
        { note: "n" },
        this.#fresh(),
        expires,
      );
    } else if (chance < 0.67) {
      this.#deliveries.push(...this.#story(user));
    } else if (chance < 0.8 && this.#deliveries.length > 0) {
      const sent = random() < 0.8 ? (this.#deliveries.shift() as StripeEvent) : this.#pick(this.#deliveries);
      if (sent.type === "customer.subscription.deleted" && random() < 0.6) {
        // All of it is held when the subscription ends.
        const all = await this.#project.one<{ tokens: string }>("select public.get_user_token_balance($1) as tokens", [user]);
        await this.#call("authorize_usage", this.#fresh(), user, "gpt-4o-mini", Math.max(1, Number(all.tokens)));
      }
      const answer = await this.#call("process_stripe_event", JSON.stringify(sent));
      expect([sent.type, answer["reason"]]).not.toEqual([sent.type, "malformed"]);
    } else if (chance < 0.83) {
      const name = `${user}_${this.#fresh()}`;
      const planId = this.#pick(["ends_lite", "ends_full", "lite"]);
      const start = Math.floor(this.#now / 1000);
      const period = {
        name,
        userId: user,
        amountMinor: 2_000,
        currency: "gbp",
        start,
        end: start + 30 * 86_400,
      };
      const bought =
        random() < 0.6 ? { ...period, planId } : { ...period, planId: null, tokens: 1 + this.#below(90_000) };
      await this.#call(
        "process_stripe_event",
        JSON.stringify(event("invoice.paid", invoiceSinceBasil(bought))),
      );
      if (random() < 0.4)
        this.#deliveries.push(
          event(
            "customer.subscription.deleted",
            subscription(name, { status: "canceled", metadata: { user_id: user, plan_id: planId } }),
          ),
        );
    } else if (chance < 0.86) {
      const zone = this.#pick([null, "America/Los_Angeles", "Asia/Tokyo", "Pacific/Kiritimati", "UTC"]);
      await this.#call(
        "upsert_account",
        user,
        this.#pick([null, "lite", "full", "ends_lite", "ends_full"]),
        null,
        null,
        zone,
      );
    } else if (chance < 0.88) {
      await this.#correct();
    } else if (chance < 0.9) {
      await this.#project.pool.query("insert into public.chats values ($1, $2, $3, $4, $5)", [
        Number(this.#name.slice(1)) * 1_000 + ++this.#serial,
        user,
        new Date(this.#now - this.#below(3) * 86_400_000).toISOString(),
        { usage: { input_tokens: 7, output_tokens: 5 } },
        this.#pick(["gpt-4o-mini", "gpt-4o"]),
      ]);
      await this.#call("import_usage_history", "public.chats");
    } else if (chance < 0.93) {
      await this.#call("run_maintenance");
    } else {
      const jump = random();
      const minutes = jump < 0.1 ? -60 : this.#below(jump < 0.6 ? 20 : jump < 0.97 ? 2_000 : 60_000);
      await this.setClock(minutes * 60_000);
    }
  }
}

/** Tells histories; after each, and while it is told, the books are sound. Answers the users there are. */
async function tell(project: Project, seed: number, count: number): Promise<string[]> {
  const users: string[] = [];
  for (let number = 0; number < count; number += 1) {
    // From the end of a February with 29 days on; each goes on where the calls of the one before are already too old to be kept, or not.
    const history = new History(
      project,
      seed * 100 + number,
      Date.parse("2028-02-20T12:00:00Z") + number * 40 * 86_400_000,
    );
    await history.setClock(0);
    for (const user of history.users) await project.call("upsert_account", user, "full");
    for (let n = 1; n <= steps; n += 1) {
      await history.step();
      if (n % 50 > 0) continue;
      const found = await project.one<{ ledger: unknown; purchases: unknown }>(
        "select verify_ledger() -> 'problems' as ledger, verify_purchases() -> 'problems' as purchases",
      );
      expect({ seed, number, n, told: history.told.slice(-60), ...found }).toEqual({
        seed,
        number,
        n,
        told: history.told.slice(-60),
        ledger: [],
        purchases: [],
      });
    }
    users.push(...history.users);
  }
  return users;
}

/** What a history must have had in it to prove anything: none of these may be zero. */
const HAPPENED = `select jsonb_build_object(
  'settled', (select count(*) from governance.requests where status = 'settled'), 'released', (select count(*) from governance.requests where status = 'released'),
  'expired', (select count(*) from governance.requests where status = 'expired'), 'quarantined', (select count(*) from governance.requests where status = 'quarantined'),
  'dearer', (select count(*) from governance.requests where status = 'settled' and cost_factor > 1), 'unpaid', (select count(*) from governance.requests where unpaid_tokens > 0),
  'settled late', (select count(*) from governance.requests where status = 'settled' and ended_at > expires_at),
  'dropped', (select count(*) from governance.token_transactions t where t.transaction_type = 'usage' and t.decision_id is not null
    and not exists (select from governance.requests r where r.decision_id = t.decision_id)),
  'imported', (select count(*) from governance.imported_usage), 'frozen', (select count(*) from governance.lots where frozen > 0),
  'clawed back', (select count(*) from governance.lots where clawed_back > 0), 'lots expired', (select count(*) from governance.lots where expired > 0),
  'converted', (select count(*) from governance.token_transactions where description like '%kept as purchased'),
  'ended with all of it held', (select count(*) from governance.token_transactions where description = 'Subscription ended' and amount = 0),
  'reclassified', (select count(*) from governance.token_transactions where description = 'Reclassified as promotional'),
  'taken back while frozen', (select count(*) from governance.token_transactions where transaction_type in ('refund', 'reversal') and lot_changes[2] = 0),
  'given back', (select count(*) from governance.purchase_records where record_type in ('restoration', 'dispute_release')),
  'corrected', (select count(*) from governance.purchase_records where record_type = 'adjustment')) as happened`;

describe.each(installedVersions())("on PostgreSQL %i", (version) => {
  it("finds nothing in books that nobody tampered with, whatever happened to them", async () => {
    const project = await openProject(version, 1, "athro");
    await prepare(project);
    await tell(project, version, histories);
    const { happened } = await project.one<{ happened: Record<string, number> }>(HAPPENED);
    expect(Object.entries(happened).filter(([, count]) => count === 0)).toEqual([]);
    await project.close();
  });
});
