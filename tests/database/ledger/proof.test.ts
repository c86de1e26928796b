/**
 * The proof: books of random histories of everything that writes to them are sound, and no tampering with them goes
 * unseen or unnamed. `TESTS` sets how many (tests/support/size.ts).
 */
import { sized } from "../../support/size.ts";
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
} from "../../support/stripe/events.ts";
import { dice } from "../../support/dice.ts";
import { installedVersions, openProject, type Project } from "../../support/project.ts";

const histories = sized(6, 100);
const steps = 400;
/** In how many places each tampering is planted. */
const plants = sized(1, 2);

const problemsOf = async (project: Project, user: string | null = null): Promise<unknown[]> =>
  (await project.call("verify_ledger", user))["problems"] as unknown[];

/** Plans that end each in their own way, a rule that multiplies, a ceiling within reach, and a table to import from. */
async function prepare(project: Project): Promise<void> {
  await project.sql.query(`
    insert into governance.plans select p.* from governance.plans q
      cross join lateral jsonb_populate_record(q, jsonb_build_object('plan_id', 'ends_' || q.plan_id, 'on_cancel', case q.plan_id when 'lite' then 'convert' else 'expire' end,
        'rollover_months', case q.plan_id when 'lite' then 2 else 0 end, 'daily_limit', null, 'monthly_limit', null)) p where q.plan_id in ('lite', 'full');
    update governance.active_config set settle_ceiling_tokens = 200000, decision_retention_days = 40;
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
    await this.#project.sql.query("select governance.set_test_clock($1, true)", [
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
    await this.#project.sql
      .query("select governance.apply_correction($1, $2, governance.now())", [this.#fresh(), correction])
      .catch((error: { code?: string; message: string }) =>
        expect([error.code, error.message]).toEqual([expect.stringMatching(/^PT4/), error.message]),
      );
  }

  async #authorize(user: string, tokens: number): Promise<void> {
    const random = this.#random;
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
  }

  /** Any call of this history: held, expired long ago, settled already, set aside. */
  async #settle(tokens: number): Promise<void> {
    const random = this.#random;
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
  }

  /** Tokens in or out, by hand. */
  async #move(user: string, tokens: number): Promise<void> {
    const random = this.#random;
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
  }

  /** The next event of Stripe, or one of those that wait. */
  async #deliver(): Promise<void> {
    const random = this.#random;
    const sent = random() < 0.8 ? (this.#deliveries.shift() as StripeEvent) : this.#pick(this.#deliveries);
    if (sent.type === "customer.subscription.deleted" && random() < 0.6) {
      // All of it is held when the subscription ends.
      const { user_id: owner } = sent.data.object["metadata"] as { user_id: string };
      const all = await this.#project.one<{ tokens: string }>(
        "select public.get_user_token_balance($1) as tokens",
        [owner],
      );
      await this.#call(
        "authorize_usage",
        this.#fresh(),
        owner,
        "gpt-4o-mini",
        Math.max(1, Number(all.tokens)),
      );
    }
    const answer = await this.#call("process_stripe_event", JSON.stringify(sent));
    expect([sent.type, answer["reason"]]).not.toEqual([sent.type, "malformed"]);
  }

  async #payInvoice(user: string): Promise<void> {
    const random = this.#random;
    // The part before an underscore names the subscription: each story has its own.
    const name = `${user}${this.#fresh()}`.replaceAll("_", "");
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
  }

  async #changeAccount(user: string): Promise<void> {
    const zone = this.#pick([null, "America/Los_Angeles", "Asia/Tokyo", "Pacific/Kiritimati", "UTC"]);
    await this.#call(
      "upsert_account",
      user,
      this.#pick([null, "lite", "full", "ends_lite", "ends_full"]),
      null,
      null,
      zone,
    );
  }

  async #import(user: string): Promise<void> {
    await this.#project.sql.query("insert into public.chats values ($1, $2, $3, $4, $5)", [
      Number(this.#name.slice(1)) * 1_000 + ++this.#serial,
      user,
      new Date(this.#now - this.#below(3) * 86_400_000).toISOString(),
      { usage: { input_tokens: 7, output_tokens: 5 } },
      this.#pick(["gpt-4o-mini", "gpt-4o"]),
    ]);
    await this.#call("import_usage_history", "public.chats");
  }

  async #passTime(): Promise<void> {
    const jump = this.#random();
    const minutes = jump < 0.1 ? -60 : this.#below(jump < 0.6 ? 20 : jump < 0.97 ? 2_000 : 60_000);
    await this.setClock(minutes * 60_000);
  }

  async step(): Promise<void> {
    const random = this.#random;
    const user = this.#pick(this.users);
    const chance = random();
    const tokens = 1 + Math.floor(random() ** 3 * 400_000);
    if (chance < 0.25) await this.#authorize(user, tokens);
    else if (chance < 0.45 && this.#calls.length > 0) await this.#settle(tokens);
    else if (chance < 0.5 && this.#calls.length > 0)
      await this.#call("release_usage", this.#pick(this.#calls), "failed");
    else if (chance < 0.53)
      await this.#call("record_token_usage", user, tokens, 0.25, this.#pick(["gpt-4o-mini", "nobody-knows"]));
    else if (chance < 0.63) await this.#move(user, tokens);
    else if (chance < 0.67) this.#deliveries.push(...this.#story(user));
    else if (chance < 0.8 && this.#deliveries.length > 0) await this.#deliver();
    else if (chance < 0.83) await this.#payInvoice(user);
    else if (chance < 0.86) await this.#changeAccount(user);
    else if (chance < 0.88) await this.#correct();
    else if (chance < 0.9) await this.#import(user);
    else if (chance < 0.93) await this.#call("run_maintenance");
    else await this.#passTime();
  }
}

/** Runs histories; after each, and during it, the books are sound. Answers the users there are. */
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
  'imported', (select count(*) from governance.imported_usage), 'frozen', (select count(*) from governance.lots where frozen > 0),
  'clawed back', (select count(*) from governance.lots where clawed_back > 0), 'lots expired', (select count(*) from governance.lots where expired > 0),
  'converted', (select count(*) from governance.token_transactions where description like '%kept as purchased'),
  'ended with all of it held', (select count(*) from governance.token_transactions where description = 'Subscription ended' and amount = 0),
  'reclassified', (select count(*) from governance.token_transactions where description = 'Reclassified as promotional'),
  'taken back while frozen', (select count(*) from governance.token_transactions where transaction_type in ('refund', 'reversal') and lot_changes[2] = 0),
  'given back', (select count(*) from governance.purchase_records where record_type in ('restoration', 'dispute_release')),
  'corrected', (select count(*) from governance.purchase_records where record_type = 'adjustment')) as happened`;

/**
 * What a thief with the superuser's password would do, by name: the word that the proof has for it, and a statement that
 * changes something, for account $1, the entry at place $2 of its ledger (0 the first, never the last) and $3 tokens.
 */
const entry = (place: string): string =>
  `(select transaction_id from governance.token_transactions where account_id = $1 order by 1 offset ${place} limit 1)`;
const at = "where t.transaction_id = " + entry("$2");
const swap = (column: string): string =>
  `update governance.token_transactions t set ${column} = o.${column} from governance.token_transactions o
   where t.account_id = $1 and o.account_id = $1 and t.${column} is distinct from o.${column}
     and (t.transaction_id, o.transaction_id) in ((${entry("$2")}, ${entry("$2 + 1")}), (${entry("$2 + 1")}, ${entry("$2")}))`;
const lot = (change: string): string =>
  `update governance.lots l set ${change} where l.lot_id = (select x.lot_id from governance.lots x where x.account_id = $1 and x.remaining >= $3 order by 1 offset $2 % 2 limit 1)`;
const account = (change: string): string =>
  `update governance.accounts a set ${change} where a.account_id = $1`;
const change = (what: string): string => `update governance.token_transactions t set ${what} ${at}`;

const another = "(select max(o.account_id) from governance.accounts o where o.account_id <> $1)";
const lotWith = (what: string, where: string): string =>
  `update governance.lots l set ${what} where l.lot_id = (select x.lot_id from governance.lots x where x.account_id = $1 and ${where} order by 1 desc offset $2 % 2 limit 1)`;
/** Where calls have been dropped, the roll-up has more than they say, and how much more nobody knows. */
const allKept = `not exists (select from governance.token_transactions t where t.account_id = $1 and t.transaction_type = 'usage' and t.decision_id is not null
  and not exists (select from governance.requests q where q.decision_id = t.decision_id))`;
const oneCall = (status: string): string =>
  `r.decision_id = (select x.decision_id from governance.requests x where x.account_id = $1 and x.status = '${status}' order by 1 desc limit 1) and ${allKept}`;
const call = (status: string, what: string): string =>
  `update governance.requests r set ${what} where ${oneCall(status)}`;
const oneDay = `(d.account_id, d.day, d.model, d.task_type, d.scope_id) = (select x.account_id, x.day, x.model, x.task_type, x.scope_id from governance.usage_daily x
  where x.account_id = $1 and x.charged_tokens > 0 order by x.last_activity_at desc limit 1) and ${allKept}`;
const used = (what: string): string => `update governance.usage_daily d set ${what} where ${oneDay}`;
const firstEnd =
  "(select min(l.expires_at) from governance.lots l where l.account_id = $1 and l.is_open and l.remaining > 0)";
const tamperings: Readonly<Record<string, readonly [problem: string, statement: string]>> = {
  // The ledger, and what it says of lots and account
  "an amount": ["hash_mismatch", change("amount = t.amount + $3")],
  "an amount with its balance": [
    "hash_mismatch",
    change("amount = t.amount + $3, new_balance = t.new_balance + $3"),
  ],
  "an amount and all balances after it": [
    "hash_mismatch",
    `update governance.token_transactions t set
    amount = t.amount + case when t.transaction_id = ${entry("$2")} then $3 else 0 end, new_balance = t.new_balance + $3,
    previous_balance = t.previous_balance + case when t.transaction_id = ${entry("$2")} then 0 else $3 end
    where t.account_id = $1 and t.transaction_id >= ${entry("$2")}`,
  ],
  "a balance": ["hash_mismatch", change("new_balance = t.new_balance + $3")],
  "the balance before": ["hash_mismatch", change("previous_balance = t.previous_balance + $3")],
  "the debt after": ["hash_mismatch", change("debt_after = t.debt_after + $3")],
  "the lot that an entry names": [
    "hash_mismatch",
    change("lot_changes = array[coalesce(t.lot_changes[1], 0) + 1, t.amount]"),
  ],
  "a type": ["hash_mismatch", change("transaction_type = t.transaction_type || 'd'")],
  "a moment": ["hash_mismatch", change("created_at = t.created_at + interval '1 second'")],
  "a description": ["hash_mismatch", change("description = coalesce(t.description, '') || '.'")],
  metadata: [
    "hash_mismatch",
    change(`metadata = coalesce(t.metadata, '{}') || '{"note": "nothing to see"}'`),
  ],
  "a reference": ["hash_mismatch", change("reference = coalesce(t.reference, '') || '.'")],
  "the call that an entry settles": ["hash_mismatch", change("decision_id = coalesce(t.decision_id, 0) + 1")],
  "a hash": ["hash_mismatch", change("hash = sha256(t.hash)")],
  "the hash before": ["hash_mismatch", change("previous_hash = sha256(t.hash)")],
  "an id": [
    "hash_mismatch",
    change("transaction_id = (select max(x.transaction_id) + 1 from governance.token_transactions x)"),
  ],
  "whose entry it is": [
    "chain_broken",
    `update governance.token_transactions t set account_id = (select max(a.account_id) from governance.accounts a where a.account_id <> $1) ${at}`,
  ],
  "the first entry deleted": [
    "chain_broken",
    `delete from governance.token_transactions where transaction_id = ${entry("0")}`,
  ],
  "an entry deleted": ["chain_broken", `delete from governance.token_transactions t ${at}`],
  "the last entry deleted": [
    "entries_missing",
    `delete from governance.token_transactions t where t.transaction_id = (select max(x.transaction_id) from governance.token_transactions x where x.account_id = $1)`,
  ],
  "every entry deleted": [
    "entries_missing",
    "delete from governance.token_transactions t where t.account_id = $1",
  ],
  "an entry that is there twice": [
    "hash_mismatch",
    `insert into governance.token_transactions (account_id, created_at, transaction_type, amount, previous_balance, new_balance, debt_after, lot_changes, reference, previous_hash, hash)
    select t.account_id, t.created_at, t.transaction_type, t.amount, t.previous_balance, t.new_balance, t.debt_after, t.lot_changes, t.reference, t.previous_hash, t.hash from governance.token_transactions t ${at}`,
  ],
  "two amounts swapped": ["hash_mismatch", swap("amount")],
  "two hashes swapped": ["hash_mismatch", swap("hash")],
  "two moments swapped": ["hash_mismatch", swap("created_at")],
  "two references swapped": ["hash_mismatch", swap("reference")],
  "two owners of lots swapped": ["hash_mismatch", swap("lot_changes")],
  "tokens put back into a lot": ["lot_mismatch", lot("remaining = l.remaining + 1, spent = l.spent - 1")],
  "tokens taken out of a lot": ["lot_mismatch", lot("remaining = l.remaining - $3, spent = l.spent + $3")],
  "a lot that was granted more": [
    "lot_mismatch",
    lot("granted = l.granted + $3, remaining = l.remaining + $3"),
  ],
  "a lot of another kind": [
    "seal_mismatch",
    lot("kind = case l.kind when 'purchased' then 'promotional' else 'purchased' end"),
  ],
  "a lot closed with tokens in it": ["lot_mismatch", lot("is_open = false")],
  "a lot of another account": [
    "lot_mismatch",
    lot("account_id = (select max(a.account_id) from governance.accounts a where a.account_id <> $1)"),
  ],
  "a lot deleted": [
    "lot_mismatch",
    `delete from governance.lots l where l.account_id = $1 and l.remaining >= $3`,
  ],
  "a lot nobody granted": [
    "lot_mismatch",
    "insert into governance.lots (account_id, kind, granted, remaining) values ($1, 'purchased', $3, $3)",
  ],
  "an account's subscription": [
    "subscription_mismatch",
    account("subscription_tokens = a.subscription_tokens + $3"),
  ],
  "an account's purchases": ["purchased_mismatch", account("purchased_tokens = a.purchased_tokens + $3")],
  "an account's promotions": [
    "promotional_mismatch",
    account("promotional_tokens = a.promotional_tokens + $3"),
  ],
  "tokens of one kind made another": [
    "subscription_mismatch",
    account("subscription_tokens = a.subscription_tokens + 1, promotional_tokens = a.promotional_tokens - 1"),
  ],
  "an account's holds": ["holds_mismatch", account("reserved_tokens = a.reserved_tokens + 1")],
  "an account's debt": ["debt_mismatch", account("debt_tokens = a.debt_tokens + $3")],
  "the head of the chain": ["head_mismatch", account("last_hash = sha256(a.last_hash)")],
  "the last entry's id": ["entries_missing", account("last_transaction_id = a.last_transaction_id - 1")],
  "whose account it is": ["hash_mismatch", account("user_id = a.user_id || '.'")],
  // Lots: what they are, and what became of their tokens.
  "a lot that ends later": [
    "seal_mismatch",
    lotWith("expires_at = l.expires_at + interval '1 day'", "x.expires_at is not null"),
  ],
  "a lot that never ends": ["seal_mismatch", lotWith("expires_at = null", "x.expires_at is not null")],
  "a lot that ends after all": [
    "seal_mismatch",
    lotWith("expires_at = governance.now() + interval '1 year'", "x.expires_at is null"),
  ],
  "when a lot was granted": [
    "seal_mismatch",
    lotWith("created_at = l.created_at - interval '1 second'", "true"),
  ],
  "spent tokens called expired": [
    "seal_mismatch",
    lotWith("spent = l.spent - 1, expired = l.expired + 1", "x.spent > 0"),
  ],
  "spent tokens called clawed back": [
    "seal_mismatch",
    lotWith("spent = l.spent - 1, clawed_back = l.clawed_back + 1", "x.spent > 0"),
  ],
  "spent tokens called frozen": [
    "seal_mismatch",
    lotWith("spent = l.spent - 1, frozen = l.frozen + 1, is_open = true", "x.spent > 0"),
  ],
  "expired tokens called spent": [
    "seal_mismatch",
    lotWith("expired = l.expired - 1, spent = l.spent + 1", "x.expired > 0"),
  ],
  "clawed back tokens called spent": [
    "seal_mismatch",
    lotWith("clawed_back = l.clawed_back - 1, spent = l.spent + 1", "x.clawed_back > 0"),
  ],
  "frozen tokens called clawed back": [
    "seal_mismatch",
    lotWith("frozen = l.frozen - 1, clawed_back = l.clawed_back + 1", "x.frozen > 0"),
  ],
  "what a lot cost": [
    "source_mismatch",
    lotWith("amount_minor = l.amount_minor + 1", "x.amount_minor is not null"),
  ],
  "the currency of a lot": ["source_mismatch", lotWith("currency = 'usd'", "x.currency is not null")],
  "the pack of a lot": [
    "source_mismatch",
    lotWith("pack_id = 'gold'", "x.pack_id is not null and x.amount_minor = 200"),
  ],
  "the charge of a lot": [
    "source_mismatch",
    lotWith("stripe_charge_id = l.stripe_charge_id || '.'", "x.stripe_charge_id is not null"),
  ],
  "the checkout of a lot": [
    "source_mismatch",
    lotWith(
      "stripe_checkout_session_id = l.stripe_checkout_session_id || '.'",
      "x.stripe_checkout_session_id is not null",
    ),
  ],
  "a frozen lot closed": ["lot_mismatch", lotWith("is_open = false", "x.frozen > 0")],
  // Calls
  "what a call was charged": ["request_mismatch", call("settled", "charged_tokens = r.charged_tokens + $3")],
  "what a call was charged, with what of it is owed": [
    "usage_mismatch",
    call("settled", "charged_tokens = r.charged_tokens + $3, unpaid_tokens = r.unpaid_tokens + $3"),
  ],
  "what a call used": [
    "usage_mismatch",
    call("settled", "input_tokens = r.input_tokens + $3, output_tokens = r.output_tokens + 1"),
  ],
  "what a call cost": ["usage_mismatch", call("settled", "cost_micros = coalesce(r.cost_micros, 0) + $3")],
  "the model of a call": ["usage_mismatch", call("settled", "settled_model = r.settled_model || '.'")],
  "the task of a call": ["usage_mismatch", call("settled", "task_type = coalesce(r.task_type, '') || '.'")],
  "the message of a call": [
    "usage_mismatch",
    call("settled", "message_hash = case when r.message_hash is null then 1 end"),
  ],
  "a settled call called released": ["request_mismatch", call("settled", "status = 'released'")],
  "a settled call called held": ["request_mismatch", call("settled", "status = 'held'")],
  "a released call called settled": [
    "usage_entry_missing",
    call("released", "status = 'settled', settled_model = r.model, charged_tokens = 1, unpaid_tokens = 0"),
  ],
  "an expired call called released": ["hold_event_missing", call("expired", "status = 'released'")],
  "a call set aside called released": ["hold_event_missing", call("quarantined", "status = 'released'")],
  "a held call called released": ["holds_mismatch", call("held", "status = 'released'")],
  "what a call holds": ["holds_mismatch", call("held", "reserved_tokens = r.reserved_tokens + 1")],
  "when a call ended": ["request_mismatch", call("settled", "ended_at = r.ended_at - interval '1 second'")],
  "the id of a call": ["request_mismatch", call("settled", "request_id = r.request_id || '.'")],
  "the entry of a call": ["request_mismatch", call("settled", "transaction_id = r.transaction_id + 1")],
  "whose call it is": ["request_mismatch", call("settled", `account_id = ${another}`)],
  "the messages that the last call saw": [
    "day_messages_mismatch",
    `update governance.requests r set facts.messages_today = (r.facts).messages_today + 2
     where r.decision_id = (select max(x.decision_id) from governance.requests x where x.account_id = $1) and r.day_ends_at = (select a.day_ends_at from governance.accounts a where a.account_id = $1)`,
  ],
  "a settled call deleted": [
    "request_missing",
    `delete from governance.requests r where ${oneCall("settled")}`,
  ],
  "a held call deleted": ["holds_mismatch", `delete from governance.requests r where ${oneCall("held")}`],
  "a call nobody made": [
    "usage_entry_missing",
    `insert into governance.requests select (jsonb_populate_record(r, jsonb_build_object('decision_id', nextval('governance.event_ids')))).* from governance.requests r where ${oneCall("settled")}`,
  ],
  // Counters, and the moments at which something is due
  "the day's tokens": ["day_tokens_mismatch", account("day_tokens = a.day_tokens + $3")],
  "the month's tokens": ["month_tokens_mismatch", account("month_tokens = a.month_tokens + $3")],
  "the day's cost": ["day_cost_mismatch", account("day_cost_micros = a.day_cost_micros + $3")],
  "the month's cost": ["month_cost_mismatch", account("month_cost_micros = a.month_cost_micros + $3")],
  "the day's messages": [
    "day_messages_mismatch",
    `${account("day_messages = a.day_messages + 1")} and exists (select from governance.requests r where r.account_id = $1 and r.day_ends_at = a.day_ends_at)`,
  ],
  "the day's messages forgotten": [
    "day_messages_mismatch",
    `${account("day_messages = 0")} and a.day_messages > 0`,
  ],
  "a lot that is looked at too late": [
    "lots_check_mismatch",
    `${account(`lots_check_at = ${firstEnd} + interval '1 second'`)} and ${firstEnd} is not null`,
  ],
  "a lot that is never looked at": [
    "lots_check_mismatch",
    `${account("lots_check_at = null")} and ${firstEnd} is not null`,
  ],
  "holds that are looked for too late": [
    "holds_from_mismatch",
    `${account("holds_from = a.holds_from + interval '1 year'")} and a.holds_from is not null`,
  ],
  "holds that are not looked for": [
    "holds_from_mismatch",
    `${account("holds_from = null")} and a.holds_from is not null`,
  ],
  "holds that never end": [
    "holds_check_mismatch",
    `${account("holds_check_at = null")} and a.holds_check_at is not null`,
  ],
  "holds that end too late": [
    "holds_check_mismatch",
    `${account("holds_check_at = a.holds_check_at + interval '1 year'")} and a.holds_check_at is not null`,
  ],
  // The roll-up
  ...Object.fromEntries(
    ["calls", "messages", "input_tokens", "output_tokens", "charged_tokens", "cost_micros"].map((column) => [
      `a day's ${column}`,
      ["usage_mismatch", used(`${column} = d.${column} + $3`)] as const,
    ]),
  ),
  "a day of another model": ["usage_mismatch", used("model = d.model || '.'")],
  "a day of another task": ["usage_mismatch", used("task_type = d.task_type || '.'")],
  "a day of another scope": ["usage_mismatch", used("scope_id = d.scope_id || '.'")],
  "today's usage on another day": [
    "day_tokens_mismatch",
    `update governance.usage_daily d set day = d.day - 4000 from governance.accounts a where a.account_id = $1 and d.account_id = $1 and d.day = a.local_day and d.charged_tokens > 0`,
  ],
  "a day deleted": ["usage_mismatch", `delete from governance.usage_daily d where ${oneDay}`],
  "a day nobody had": [
    "usage_mismatch",
    "insert into governance.usage_daily (account_id, day, model, calls, charged_tokens, first_activity_at, last_activity_at) values ($1, '2020-01-01', 'gpt-4o', 1, $3, now(), now())",
  ],
  "whose day it is": ["usage_mismatch", used(`account_id = ${another}, day = d.day - 4000`)],
  // Everything at once
  "a ledger wiped, with its lots and what the account has": [
    "usage_entry_missing",
    `with e as (delete from governance.token_transactions t where t.account_id = $1), l as (delete from governance.lots l where l.account_id = $1)
    update governance.accounts a set subscription_tokens = 0, purchased_tokens = 0, promotional_tokens = 0, debt_tokens = 0, last_transaction_id = null, last_hash = null, lots_check_at = null
    where a.account_id = $1 and exists (select from governance.requests r where r.account_id = $1 and r.status = 'settled')`,
  ],
  "that, and its calls": [
    "usage_mismatch",
    `with e as (delete from governance.token_transactions t where t.account_id = $1), l as (delete from governance.lots l where l.account_id = $1),
    r as (delete from governance.requests r where r.account_id = $1), k as (delete from governance.request_keys k where k.account_id = $1)
    update governance.accounts a set subscription_tokens = 0, purchased_tokens = 0, promotional_tokens = 0, debt_tokens = 0, reserved_tokens = 0, last_transaction_id = null, last_hash = null,
      lots_check_at = null, holds_from = null, holds_check_at = null where a.account_id = $1`,
  ],
  "the last charge undone, in lot and account too": [
    "usage_entry_missing",
    `with e as (delete from governance.token_transactions t where t.transaction_type = 'usage' and t.decision_id is not null and cardinality(t.lot_changes) = 2
      and exists (select from governance.requests q where q.decision_id = t.decision_id)
      and t.transaction_id = (select max(x.transaction_id) from governance.token_transactions x where x.account_id = $1) and t.account_id = $1 returning t.*),
    l as (update governance.lots l set remaining = l.remaining - e.amount, spent = l.spent + e.amount, is_open = true from e where l.lot_id = e.lot_changes[1] returning l.kind)
    update governance.accounts a set last_transaction_id = p.transaction_id, last_hash = p.hash, subscription_tokens = a.subscription_tokens - case l.kind when 'subscription' then e.amount else 0 end,
      purchased_tokens = a.purchased_tokens - case l.kind when 'purchased' then e.amount else 0 end, promotional_tokens = a.promotional_tokens - case l.kind when 'promotional' then e.amount else 0 end
    from e cross join l cross join lateral (select t.transaction_id, t.hash from governance.token_transactions t where t.account_id = $1 and t.transaction_id < e.transaction_id order by 1 desc limit 1) p
    where a.account_id = $1`,
  ],
};

/** Decides what waits for a person, since a call that waits keeps its month, and goes on until months of calls are dropped. */
async function forgetOldCalls(project: Project): Promise<void> {
  const { rows } = await project.sql.query<{ request_id: string }>(
    "select request_id from governance.requests where status = 'quarantined' order by 1",
  );
  for (const { request_id } of rows)
    await project.call(
      "console_resolve_hold",
      `forget-${request_id}`,
      request_id,
      "release",
      "long ago",
      "ann",
    );
  await project.sql.query("select governance.set_test_clock(governance.now() + interval '18 days', true)");
  const maintain = async (): Promise<void> => {
    for (let more: unknown = true, round = 0; more === true && round < 20; round += 1)
      more = (await project.call("run_maintenance"))["more"];
  };
  await maintain();
  const { dropped } = await project.one<{
    dropped: number;
  }>(`select count(*)::int as dropped from governance.token_transactions t
    where t.transaction_type = 'usage' and t.decision_id is not null and not exists (select from governance.requests r where r.decision_id = t.decision_id)`);
  expect(dropped).toBeGreaterThan(0);
  // One who never paid; and days on, until anchors cover everything so far. (Any open
  // transaction on the server puts an anchor off: then the same day is tried again.)
  await project.call("upsert_account", "never-paid", "full");
  const state = async (): Promise<{ anchored: boolean; isDone: boolean }> =>
    await project.one<{ anchored: boolean; isDone: boolean }>(
      `select (s.value ->> 'upto')::bigint >= a.last_transaction_id as anchored,
         coalesce(s.value ->> 'day' = (governance.now() at time zone 'UTC')::date::text, false) as "isDone"
       from governance.maintenance_state s, governance.accounts a where s.key = 'anchored_ledger' and a.user_id = 'never-paid'`,
    );
  for (let tries = 0; tries < 600; tries += 1) {
    const { anchored, isDone } = await state();
    if (anchored) break;
    if (isDone)
      await project.sql.query("select governance.set_test_clock(governance.now() + interval '1 day', true)");
    else if (tries > 0) await new Promise((resolve) => setTimeout(resolve, 200));
    await maintain();
  }
  expect((await state()).anchored).toBe(true);
}

/** Users whose calls of today are in every state there is, so that each can be tampered with. */
async function tellToday(project: Project): Promise<string[]> {
  const users = ["today-1", "today-2", "today-3"];
  for (const user of users) {
    await project.call("upsert_account", user, "full");
    await project.call("update_user_token_balance", user, 500_000, "bonus");
    // Disputed purchases, so that some lots are frozen whatever the histories came to.
    const { created } = await project.one<{ created: number }>(
      "select extract(epoch from governance.now())::int as created",
    );
    for (const name of [`${user}a`, `${user}b`].map((one) => one.replaceAll("-", ""))) {
      const bought: Purchase = {
        name,
        userId: user,
        packId: "top-up",
        tokens: 320_000,
        amountMinor: 200,
        currency: "gbp",
        created,
      };
      for (const [type, object] of [
        ["checkout.session.completed", checkoutSession(bought)],
        ["charge.dispute.created", dispute(bought, "needs_response")],
      ] as const)
        expect(
          await project.call("process_stripe_event", JSON.stringify(event(type, object, { created }))),
        ).toMatchObject({ status: "processed", effects: [{ user_id: user }] });
    }
    const authorize = (name: string, message: string | null = null): Promise<unknown> =>
      project.call(
        "authorize_usage",
        `${user}-${name}`,
        user,
        "gpt-4o-mini",
        100,
        message,
        null,
        "chat",
        "s1",
      );
    for (const name of ["a", "b", "c"]) await authorize(name, `Hello ${name}`);
    await authorize("late");
    await project.sql.query("select governance.set_test_clock(governance.now() + interval '1 hour', true)");
    for (const name of ["a", "b"]) await project.call("settle_usage", `${user}-${name}`, 40, 20);
    await authorize("given-up");
    await project.call("release_usage", `${user}-given-up`);
    await authorize("too-much");
    await project.call("settle_usage", `${user}-too-much`, 300_000, 0);
    await authorize("open", "And one that goes on");
    await authorize("open-too", "And another");
    await authorize("last");
    await project.call("settle_usage", `${user}-last`, 30, 10);
  }
  return users;
}

/** What leaves books in which all agrees: only the anchors, which cover the entries of everybody, tell of it. */
const agreeing: Readonly<Record<string, string>> = {
  "a chain reckoned again after an entry was changed": `do $do$ declare t governance.token_transactions; v_before bytea; begin
    for t in select x.* from governance.token_transactions x where x.account_id = $1 order by x.transaction_id loop
      t.description := coalesce(t.description, '') || '.';
      t.previous_hash := v_before;
      t.hash := governance.entry_hash(v_before, governance.entry_payload(t.transaction_id, t.created_at, t.transaction_type, t.amount, t.previous_balance, t.new_balance, t.debt_after,
        t.lot_changes, t.decision_id, (select a.user_id from governance.accounts a where a.account_id = $1), t.reference, t.description, t.metadata));
      update governance.token_transactions x set description = t.description, previous_hash = t.previous_hash, hash = t.hash where x.transaction_id = t.transaction_id;
      v_before := t.hash;
    end loop;
    update governance.accounts a set last_hash = v_before where a.account_id = $1; end $do$`,
  "an account that never was": [
    "token_transactions",
    "lots",
    "requests",
    "request_keys",
    "usage_daily",
    "imported_usage",
    "hold_events",
    "accounts",
  ]
    .map((table) => `delete from governance.${table} where account_id = $1`)
    .join("; "),
  "the last anchor deleted":
    "delete from governance.audit_log where audit_id = (select max(audit_id) from governance.audit_log where action = 'ledger_anchor')",
  "an anchor changed": `update governance.audit_log set details = details || jsonb_build_object('hash', encode(sha256('x'), 'hex')) where audit_id = (select min(audit_id) from governance.audit_log where action = 'ledger_anchor')`,
  "an anchor that is neither number nor hash": `update governance.audit_log set details = '{"upto": "all of it", "hash": "quite right"}' where audit_id = (select min(audit_id) from governance.audit_log where action = 'ledger_anchor')`,
};

async function tamperInAgreement(client: pg.PoolClient): Promise<void> {
  // Nothing was paid for: payments, their lots and records tell of such an account too.
  const { rows } = await client.query<{ account_id: string }>(
    "select account_id from governance.accounts where user_id = 'never-paid'",
  );
  const account = rows[0]?.account_id ?? "";
  for (const [name, statement] of Object.entries(agreeing)) {
    await client.query("savepoint sound");
    try {
      await client.query(statement.replace(/\$1/g, account));
      const found = await client.query<{ words: string[] }>(
        "select array(select distinct p ->> 'problem' from jsonb_array_elements(public.verify_ledger() -> 'problems') p) as words",
      );
      expect([name, found.rows[0]?.words]).toEqual([name, ["anchor_mismatch"]]);
    } finally {
      await client.query("rollback to savepoint sound");
    }
  }
}

/** Plants one tampering after the other, each where it can be, and checks that the proof finds it, and names it. */
async function tamper(client: pg.PoolClient, users: readonly string[], random: () => number): Promise<void> {
  const { rows: ledgers } = await client.query<{ account_id: string; user_id: string; entries: number }>(
    "select a.account_id, a.user_id, count(*)::int as entries from governance.token_transactions t join governance.accounts a using (account_id) where a.user_id = any ($1) group by 1, 2 having count(*) > 3 order by 1",
    [users],
  );
  for (const [name, [problem, statement]] of Object.entries(tamperings)) {
    let planted = 0;
    const start = Math.floor(random() * ledgers.length);
    for (let n = 0; n < ledgers.length && planted < plants; n += 1) {
      const ledger = ledgers[(start + n) % ledgers.length];
      if (!ledger) throw new Error("There are no books to tamper with.");
      const place = Math.floor(random() * (ledger.entries - 1));
      const tokens = 1 + Math.floor(random() * 50);
      await client.query("savepoint sound");
      try {
        const { rowCount } = await client.query(
          statement
            .replace(/\$1/g, ledger.account_id)
            .replace(/\$2/g, `${place}`)
            .replace(/\$3/g, `${tokens}`),
        );
        if (!rowCount) continue;
        planted += 1;
        const { rows } = await client.query<{ one: string[]; all: string[] }>(
          `select array(select p ->> 'problem' from jsonb_array_elements(public.verify_ledger(a.user_id) -> 'problems') p) as one,
            array(select p ->> 'problem' from jsonb_array_elements(public.verify_ledger() -> 'problems') p) as all
           from governance.accounts a where a.account_id = $1`,
          [ledger.account_id],
        );
        const { one = [], all = [] } = rows[0] ?? {};
        const found = [one.length > 0, all.length > 0, [...one, ...all].includes(problem)];
        expect({ name, ledger, place, tokens, one, all, found }).toEqual({
          name,
          ledger,
          place,
          tokens,
          one,
          all,
          found: [true, true, true],
        });
      } finally {
        await client.query("rollback to savepoint sound");
      }
    }
    expect([name, planted > 0]).toEqual([name, true]);
  }
}

/**
 * Work that tampers as a superuser can: triggers and foreign keys say nothing, and no check stands in the way. In one
 * transaction, undone at its end: after each change of that kind the proof would be planned again.
 */
async function asThief(client: pg.PoolClient, work: () => Promise<void>): Promise<void> {
  await client.query(`begin; set local session_replication_role = replica;
    alter table governance.lots drop constraint lots_add_up;
    alter table governance.accounts drop constraint accounts_never_negative`);
  try {
    await work();
  } finally {
    await client.query("rollback");
  }
}

describe.each(installedVersions())("on PostgreSQL %i", (version) => {
  it("finds nothing in books that nobody tampered with, whatever happened to them; and no tampering goes unseen or unnamed", async () => {
    const project = await openProject(version, { connections: 1, preset: "athro" });
    await prepare(project);
    const users = await tell(project, version, histories);
    const { happened } = await project.one<{ happened: Record<string, number> }>(HAPPENED);
    expect(Object.entries(happened).filter(([, count]) => count === 0)).toEqual([]);
    await forgetOldCalls(project);
    expect(await problemsOf(project)).toEqual([]);
    users.push(...(await tellToday(project)));
    expect(await problemsOf(project)).toEqual([]);

    const client = await project.sql.connect();
    await asThief(client, async () => {
      await tamper(client, users, dice(version));
      await tamperInAgreement(client);
    });
    client.release();
    expect(await problemsOf(project)).toEqual([]);
    await project.close();
  });

  it("holds where a new time zone turns the month before the day", async () => {
    const project = await openProject(version);
    const at = (moment: string): Promise<unknown> =>
      project.sql.query("select governance.set_test_clock($1, true)", [moment]);
    const use = async (id: string): Promise<void> => {
      await project.call("authorize_usage", id, "traveller", "gpt-4o-mini", 50, "Hello");
      await project.call("settle_usage", id, 20, 10);
    };
    // The last evening of November in Los Angeles is December in Tokyo.
    await at("2028-11-30T20:00:00Z");
    await project.call("upsert_account", "traveller", "pro", null, null, "America/Los_Angeles");
    await use("before");
    await project.call("upsert_account", "traveller", null, null, null, "Asia/Tokyo");
    await use("after");
    const counters = await project.one(
      "select local_day::text, day_tokens::int, month_tokens::int, day_messages from governance.accounts",
    );
    expect(counters).toEqual({ local_day: "2028-12-01", day_tokens: 30, month_tokens: 30, day_messages: 1 });
    expect(await problemsOf(project)).toEqual([]);
    expect((await project.call("run_maintenance"))["rollup_problems"]).toBe(0);
    // And back: the day is not had twice.
    await project.call("upsert_account", "traveller", null, null, null, "America/Los_Angeles");
    await use("back");
    await at("2028-12-02T08:00:01Z");
    await use("tomorrow");
    expect(await problemsOf(project)).toEqual([]);
    await project.close();
  });
});
