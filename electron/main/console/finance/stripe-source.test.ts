/** The real SDK against a server that answers as Stripe does, on this machine. */
import { mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { STRIPE_RESOURCES, stripeApiFiles } from "../../../../shared/governance/reconciliation/index.ts";
import {
  brokenInside,
  emptyAccount,
  rateLimited,
  type StripeAccount,
  startStripeServer,
  type StripeObject,
} from "../../../../tests/support/stripe/server.ts";
import { openStripeCache, stripeAccountRecords, type StripeCache } from "./stripe-source-cache.ts";
import { stripeEndpoint, stripeKeyMode } from "./stripe-source-client.ts";
import { checkStripeKey, readStripe, stripeCachePath } from "./stripe-source.ts";

const key = `rk_live_${"a1B2".repeat(8)}`;
const lacking = `rk_live_${"c3D4".repeat(8)}`;
const expired = `rk_live_${"e5F6".repeat(8)}`;
const elsewhere = `rk_live_${"g7H8".repeat(8)}`;
const day = 86_400;
const begin = Date.parse("2026-10-01T00:00:00Z") / 1000;

let account: StripeAccount;
let server: Awaited<ReturnType<typeof startStripeServer>>;
let folder: string;
let cache: StripeCache;
/** Seconds since 1970. */
let now: number;
let ticks = 0;

beforeEach(async () => {
  account = emptyAccount("acct_1NuzflB0DBR1HOyc", "Example AI");
  server = await startStripeServer({
    [key]: { account },
    [lacking]: { account, lacks: ["rak_dispute_read", "rak_accounts_kyc_basic_read"] },
    [expired]: { account, isExpired: true },
    [elsewhere]: { account: emptyAccount("acct_1OtherOtherOthe", "Somebody else") },
  });
  folder = mkdtempSync(join(tmpdir(), "stripe-source-"));
  cache = openStripeCache(join(folder, "one.sqlite"));
  now = begin + 40 * day;
  ticks = 0;
  server.setClock(() => now * 1000);
});
afterEach(async () => {
  cache.close();
  await server.stop();
  rmSync(folder, { recursive: true, force: true });
});

const read = (more: Partial<Parameters<typeof readStripe>[0]> = {}) =>
  readStripe({
    key,
    endpoint: server.endpoint,
    cache,
    account_id: account.id,
    from: begin,
    // A clock that goes on, as clocks do.
    now: () => new Date(now * 1000 + ticks++),
    backoffMs: 1,
    ...more,
  });

/** A paid checkout: session, charge and the movement of its money. */
function pay(n: number, created = begin + n * 300): void {
  const id = String(n).padStart(6, "0");
  account.lists["checkout/sessions"].push({
    id: `cs_live_${id}`,
    object: "checkout.session",
    created: created - 60,
    status: "complete",
    payment_status: "paid",
    payment_intent: `pi_${id}`,
    invoice: null,
    client_reference_id: `order_${id}`,
    metadata: { user_id: `u_${id}`, pack_id: "small" },
    livemode: true,
  });
  account.lists.charges.push({
    id: `ch_${id}`,
    object: "charge",
    created,
    amount: 500,
    amount_captured: 500,
    amount_refunded: 0,
    balance_transaction: `txn_${id}`,
    billing_details: { email: "ann@example.com", name: "Ann", address: { line1: "1 High Street" } },
    captured: true,
    currency: "usd",
    customer: `cus_${id}`,
    livemode: true,
    metadata: {},
    payment_intent: `pi_${id}`,
    payment_method_details: { card: { last4: "4242", exp_year: 2030 } },
    refunded: false,
    status: "succeeded",
  });
  move(`txn_${id}`, created, 500, 45, "charge", `ch_${id}`);
}
function move(
  id: string,
  created: number,
  amount: number,
  fee: number,
  category: string,
  source: string | null,
): void {
  account.lists.balance_transactions.push({
    id,
    object: "balance_transaction",
    created,
    available_on: created + 2 * day,
    amount,
    fee,
    net: amount - fee,
    currency: "usd",
    reporting_category: category,
    type: category,
    source,
    status: "available",
  });
}
function change(list: keyof StripeAccount["lists"], id: string, changes: object): void {
  account.lists[list] = account.lists[list].map(
    (one): StripeObject => (one.id === id ? { ...one, ...changes } : one),
  );
}
function refund(charge: string, name: string, created: number, amount: number, status = "succeeded"): void {
  account.lists.refunds.push({
    id: `re_${name}`,
    object: "refund",
    created,
    amount,
    currency: "usd",
    charge,
    payment_intent: charge.replace("ch_", "pi_"),
    balance_transaction: `txn_re_${name}`,
    status,
  });
  move(`txn_re_${name}`, created, -amount, 0, "refund", `re_${name}`);
  change("charges", charge, { amount_refunded: amount });
}
function dispute(charge: string, status: string, created: number): void {
  account.lists.disputes.push({
    id: `du_${charge}`,
    object: "dispute",
    created,
    amount: 500,
    currency: "usd",
    charge,
    payment_intent: charge.replace("ch_", "pi_"),
    balance_transactions: [],
    livemode: true,
    status,
  });
}

/** The rows that the reconciler gets, as one text. */
async function rows(since = begin): Promise<string> {
  let text = "";
  for (const file of stripeApiFiles(
    stripeAccountRecords(cache, { account_id: account.id, livemode: true }, since),
  )) {
    text += `# ${file.name}\n`;
    for await (const chunk of file.chunks) text += Buffer.from(chunk).toString("utf8");
  }
  return text;
}
const lineOf = async (id: string): Promise<string | undefined> =>
  (await rows()).split("\n").find((line) => line.startsWith(`${id},`));
const asked = (): string[] => server.requests.map(({ path }) => path);

describe("reading an account", () => {
  test("reads every object of 12,000 by pages of 100, each once, in one pinned version", async () => {
    for (let n = 0; n < 4_000; n++) pay(n);
    let last = 0;
    const result = await read({ onProgress: ({ fraction }) => (last = fraction) });
    expect(result).toMatchObject({ ok: true, value: { through: now, objects: 12_000 } });
    expect(cache.counts()).toMatchObject({
      balance_transactions: 4_000,
      charges: 4_000,
      checkout_sessions: 4_000,
    });
    // The account, 40 pages of each of the three, one empty page of the others.
    expect(server.requests).toHaveLength(1 + 3 * 40 + 3);
    expect(last).toBeGreaterThan(0.9);
    expect(new Set(server.requests.map(({ version }) => version)).size).toBe(1);
    const text = await rows();
    expect(text.split("\n").filter((line) => line.startsWith("ch_"))).toHaveLength(4_000);
    expect(await lineOf("ch_000007")).toBe(
      "ch_000007,2026-10-01 00:35:00,5.00,5.00,0.00,usd,true,5.00,usd,0.45,succeeded,,cus_000007,,pi_000007,cs_live_000007,order_000007,,,true,acct_1NuzflB0DBR1HOyc,u_000007,small",
    );
  });

  test("goes on after an interruption from where it stopped, and ends with the same rows", async () => {
    for (let n = 0; n < 1_000; n++) pay(n);
    const whole = openStripeCache(join(folder, "whole.sqlite"));
    await read({ cache: whole });
    const needed = server.requests.length;
    server.requests.length = 0;
    // Cut at every kind of moment: between lists, inside one, at the very beginning.
    let ok = false;
    let rounds = 0;
    for (; !ok; rounds++) {
      const stop = new AbortController();
      let left = 7;
      const result = await read({
        signal: stop.signal,
        onRequest: () => {
          if (--left < 0) stop.abort();
        },
      });
      ok = result.ok;
      if (!result.ok) expect(result.error.code).toBe("cancelled");
      // The console may end in between.
      cache.close();
      cache = openStripeCache(join(folder, "one.sqlite"));
      now += 1;
    }
    expect(rounds).toBeGreaterThan(4);
    // No page was read twice but the ones that were cut off, and the newest minutes of each list.
    expect(server.requests.length).toBeLessThan(needed + rounds * 3 + 12);
    expect(await rows()).toBe(await rowsOf(whole));
    whole.close();
  });
  async function rowsOf(other: StripeCache): Promise<string> {
    const mine = cache;
    cache = other;
    try {
      return await rows();
    } finally {
      cache = mine;
    }
  }

  test("fetches only what is new the second time: one request a list, and none of the old pages", async () => {
    for (let n = 0; n < 1_000; n++) pay(n);
    await read();
    server.requests.length = 0;
    now += day;
    pay(1_000, now - 3_600);
    const result = await read();
    expect(result).toMatchObject({ ok: true, value: { objects: 3 } });
    expect(asked().toSorted()).toEqual(
      [
        "account",
        "balance_transactions",
        "charges",
        "refunds",
        "disputes",
        "checkout/sessions",
        "invoices",
      ].toSorted(),
    );
    expect(await lineOf("ch_001000")).toContain("cs_live_001000");
  });

  test("misses nothing on a machine whose clock is an hour ahead", async () => {
    const ahead = { now: () => new Date((now + 3_600) * 1000 + ticks++) };
    pay(0, now - 60);
    expect(await read(ahead)).toMatchObject({ ok: true, value: { through: now } });
    now += 1_800;
    pay(1, now - 600);
    expect(await read(ahead)).toMatchObject({ ok: true });
    expect(await lineOf("ch_000001")).toContain("cs_live_000001");
  });

  test("reads further back when an earlier period is asked for, and not again what is there", async () => {
    for (let n = 0; n < 1_000; n++) pay(n);
    await read({ from: begin + 2 * day });
    const later = cache.counts().charges;
    expect(later).toBeLessThan(1_000);
    server.requests.length = 0;
    await read({ from: begin });
    expect(cache.counts().charges).toBe(1_000);
    const charges = server.requests.filter(({ path }) => path === "charges");
    expect(charges).toHaveLength(Math.ceil((1_000 - later) / 100));
    expect(charges.every(({ query }) => Number(query.get("created[lte]")) <= begin + 2 * day)).toBe(true);
  });
});

describe("what may still change", () => {
  test("an open dispute, a pending refund and a pending charge are read again until they are decided", async () => {
    for (let n = 0; n < 4; n++) pay(n);
    dispute("ch_000001", "needs_response", begin + day);
    refund("ch_000002", "pending", begin + day, 200, "pending");
    change("charges", "ch_000003", { status: "pending", balance_transaction: null });
    await read();
    expect(await lineOf("du_ch_000001")).toContain("needs_response");
    expect(await lineOf("ch_000003")).toContain(",pending,");

    change("disputes", "du_ch_000001", { status: "lost" });
    change("refunds", "re_pending", { status: "failed" });
    change("charges", "ch_000002", { amount_refunded: 0 });
    change("charges", "ch_000003", { status: "succeeded", balance_transaction: "txn_000003" });
    now += day;
    server.requests.length = 0;
    await read();
    expect(
      asked()
        .filter((path) => path.includes("/"))
        .toSorted(),
    ).toEqual(
      [
        // The dispute's and the refund's, and the one that was pending itself.
        "charges/ch_000001",
        "charges/ch_000002",
        "charges/ch_000003",
        "checkout/sessions",
        "disputes/du_ch_000001",
        "refunds/re_pending",
      ].toSorted(),
    );
    expect(await lineOf("du_ch_000001")).toContain(",lost,");
    expect(await lineOf("ch_000002")).toContain(",5.00,0.00,usd");
    expect(await lineOf("ch_000003")).toContain(",succeeded,");
    server.requests.length = 0;
    now += day;
    await read();
    expect(asked()).toHaveLength(7);
  });

  test("a refund of an older payment brings that payment, and a movement of money what it speaks of", async () => {
    pay(1, begin - 20 * day);
    pay(2);
    account.lists.refunds.push({
      id: "re_older",
      object: "refund",
      created: begin - 10 * day,
      amount: 100,
      currency: "usd",
      charge: "ch_000001",
      payment_intent: "pi_000001",
      status: "failed",
    });
    // The refund of before the period fails within it.
    move("txn_failed", begin + day, 100, 0, "refund_failure", "re_older");
    await read();
    expect(await lineOf("txn_failed")).toContain("re_older,1.00,usd,ch_000001,pi_000001,");
    expect(await lineOf("ch_000001")).toBeDefined();
    expect(asked()).toContain("refunds/re_older");
    // A dispute that was lost is won after all: its money comes back, and so it is looked at.
    dispute("ch_000002", "lost", begin + day);
    now += day;
    await read();
    change("disputes", "du_ch_000002", { status: "won" });
    now += day;
    move("txn_back", now - 60, 500, 0, "dispute_reversal", "du_ch_000002");
    await read();
    expect(await lineOf("du_ch_000002")).toContain(",won,");
  });

  test("an earlier period brings the older payments that its refunds speak of, too", async () => {
    pay(1, begin - 40 * day);
    pay(2);
    refund("ch_000001", "earlier", begin - 20 * day, 200);
    await read();
    expect(await lineOf("ch_000001")).toBeUndefined();
    now += day;
    await read({ from: begin - 30 * day });
    const text = await rows(begin - 30 * day);
    expect(text).toMatch(/^ch_000001,.*,5\.00,2\.00,usd/m);
    expect(text).toMatch(/^txn_re_earlier,.*,re_earlier,2\.00,usd,ch_000001,/m);
  });

  test("a payment that failed or is under way has the amount asked for, though nothing was captured", async () => {
    pay(1);
    pay(2);
    change("charges", "ch_000001", { status: "failed", amount_captured: 0, balance_transaction: null });
    change("charges", "ch_000002", { status: "pending", amount_captured: 0, balance_transaction: null });
    await read();
    expect(await lineOf("ch_000001")).toContain(",5.00,0.00,usd,true,,,,failed,");
    expect(await lineOf("ch_000002")).toContain(",5.00,0.00,usd,true,,,,pending,");
  });

  test("what an interruption left unread of the changed ones is read the next time", async () => {
    for (let n = 0; n < 3; n++) pay(n);
    await read();
    now += day;
    refund("ch_000001", "late", now - 60, 300);
    const stop = new AbortController();
    await read({
      signal: stop.signal,
      onRequest: () => {
        if (server.requests.some(({ path }) => path === "invoices" && asked().length > 8)) stop.abort();
      },
    });
    expect(await lineOf("ch_000001")).toContain(",5.00,0.00,usd");
    now += 60;
    await read();
    expect(await lineOf("ch_000001")).toContain(",5.00,3.00,usd");
  });
});

describe("both shapes of the API", () => {
  test("a charge that names its invoice, and an invoice that names its payments, give the same rows", async () => {
    pay(1);
    const invoice = {
      id: "in_1",
      object: "invoice",
      created: begin - day,
      status: "paid",
    };
    change("charges", "ch_000001", { invoice: "in_1" });
    account.lists.invoices.push({ ...invoice, charge: "ch_000001", payment_intent: "pi_000001", paid: true });
    await read();
    const before = await rows();
    expect(await lineOf("ch_000001")).toContain(",in_1,pi_000001,");

    change("charges", "ch_000001", { invoice: undefined });
    account.lists.invoices[0] = {
      ...invoice,
      payments: {
        object: "list",
        data: [{ id: "inpay_1", payment: { type: "payment_intent", payment_intent: "pi_000001" } }],
      },
    };
    cache.close();
    cache = openStripeCache(join(folder, "since-basil.sqlite"));
    await read();
    expect(await rows()).toBe(before);
  });

  test("an object of an unknown form stops the run and names it: nothing is guessed about money", async () => {
    pay(1);
    change("charges", "ch_000001", { amount: "5.00", amount_captured: "5.00" });
    const result = await read();
    expect(result).toMatchObject({
      ok: false,
      error: { code: "unknown_shape", details: "charges: ch_000001" },
    });
  });
});

describe("when it does not go smoothly", () => {
  test("starts a list over where the object that it would go on from was deleted", async () => {
    for (let n = 0; n < 250; n++)
      account.lists.invoices.push({
        id: `in_${n}`,
        object: "invoice",
        created: begin + n * 60,
        status: "draft",
      });
    server.onRequest(({ path, query }) =>
      path === "invoices" && query.has("starting_after") ? rateLimited : null,
    );
    expect(await read()).toMatchObject({ ok: false, error: { code: "rate_limited" } });
    const { after } = cache.reading("invoices").open ?? {};
    account.lists.invoices = account.lists.invoices.filter(({ id }) => id !== after);
    server.onRequest(() => null);
    now += 60;
    expect((await read()).ok).toBe(true);
    expect(cache.reading("invoices")).toMatchObject({ open: null, covered: { through: now } });
    expect(cache.counts().invoices).toBe(250);
  });

  test("waits where Stripe asks for fewer requests, and loses nothing", async () => {
    for (let n = 0; n < 300; n++) pay(n);
    server.onRequest((_request, number) => (number % 3 === 0 ? rateLimited : null));
    expect((await read()).ok).toBe(true);
    expect(cache.counts()).toMatchObject({ charges: 300, balance_transactions: 300, checkout_sessions: 300 });
  });

  test("waits as long as Stripe says, not as it likes itself", async () => {
    let refusedAt = 0;
    let returnedAt = 0;
    server.onRequest((_request, number) => {
      if (number === 2) {
        refusedAt = performance.now();
        return { ...(rateLimited as object), headers: { "retry-after": "1" } } as typeof rateLimited;
      }
      if (number === 3) returnedAt = performance.now();
      return null;
    });
    expect((await read()).ok).toBe(true);
    // A pause is never shorter than asked for, however busy the machine is.
    expect(returnedAt - refusedAt).toBeGreaterThanOrEqual(990);
  });

  test("gives up after many refusals, in words, and goes on from there later", async () => {
    for (let n = 0; n < 250; n++) pay(n);
    server.onRequest(({ path, query }) =>
      path === "charges" && query.has("starting_after") ? rateLimited : null,
    );
    expect(await read()).toMatchObject({ ok: false, error: { code: "rate_limited" } });
    expect(cache.counts().charges).toBe(100);
    server.onRequest(() => null);
    expect((await read()).ok).toBe(true);
    expect(cache.counts().charges).toBe(250);
  });

  test("tries again after errors of Stripe's own and dropped connections", async () => {
    for (let n = 0; n < 50; n++) pay(n);
    server.onRequest((_request, number) => (number === 2 ? brokenInside : number === 4 ? "drop" : null));
    expect((await read()).ok).toBe(true);
    expect(cache.counts().charges).toBe(50);
  });

  test("fails with a timeout when Stripe does not answer in time", async () => {
    server.onRequest(() => "hang");
    expect(await read({ timeoutMs: 50 })).toMatchObject({ ok: false, error: { code: "timeout" } });
  });

  test("ends at once when cancelled, also while an answer is on its way", async () => {
    server.onRequest(() => "hang");
    const stop = new AbortController();
    const reading = read({ signal: stop.signal });
    await expect.poll(() => server.requests.length).toBe(1);
    stop.abort();
    expect(await reading).toMatchObject({ ok: false, error: { code: "cancelled" } });
  });

  test("refuses the key of another account than the one that was connected", async () => {
    expect(await read({ key: elsewhere })).toMatchObject({ ok: false, error: { code: "other_account" } });
    expect(cache.counts().charges).toBe(0);
  });
});

describe("the key", () => {
  test("is refused by its form before anything is sent", () => {
    expect(stripeKeyMode(key)).toEqual({ ok: true, value: "live" });
    expect(stripeKeyMode(key.replace("live", "test"))).toEqual({ ok: true, value: "test" });
    for (const [bad, code] of [
      ["", "missing_key"],
      [`sk_live_${"x".repeat(30)}`, "secret_key"],
      [`pk_live_${"x".repeat(30)}`, "malformed_key"],
      [`whsec_${"x".repeat(30)}`, "malformed_key"],
      ["rk_live_short", "truncated_key"],
      [`${key} `, "malformed_key"],
      ["rk_live_••••••••••••••••••••••••••", "malformed_key"],
      ["hello", "malformed_key"],
    ] as const)
      expect(stripeKeyMode(bad), bad).toMatchObject({ ok: false, error: { code } });
    expect(server.requests).toEqual([]);
  });

  test("says whose it is, its mode, and which permission to tick", async () => {
    expect(await checkStripeKey({ key, endpoint: server.endpoint })).toMatchObject({
      ok: true,
      value: { account_id: account.id, account_name: "Example AI", mode: "live" },
    });
    const checked = await checkStripeKey({ key: lacking, endpoint: server.endpoint });
    if (!checked.ok) throw new Error(checked.error.message);
    // It may not see the account; Stripe's refusal names it all the same.
    expect(checked.value).toMatchObject({ account_id: account.id, account_name: null });
    expect(checked.value.permissions.filter((one) => !one.is_granted)).toEqual([
      { row: "Disputes", name: "rak_dispute_read", is_granted: false },
    ]);
    expect(checked.value.permissions).toHaveLength(5);
    const failed = await read({ key: lacking });
    expect(failed).toMatchObject({
      ok: false,
      error: { code: "missing_permission", advice: expect.stringContaining('"Disputes" to Read') },
    });
  });

  test("wrong and expired keys are distinguished, and no message shows one", async () => {
    const wrong = await checkStripeKey({ key: `rk_live_${"z".repeat(40)}`, endpoint: server.endpoint });
    expect(wrong).toMatchObject({ ok: false, error: { code: "wrong_key" } });
    const old = await checkStripeKey({ key: expired, endpoint: server.endpoint });
    expect(old).toMatchObject({ ok: false, error: { code: "expired_key" } });
    expect(JSON.stringify([wrong, old])).not.toContain("zzzz");
    expect(JSON.stringify([wrong, old])).not.toContain(expired.slice(-4));
  });

  test("goes to Stripe alone, or for tests to this machine", () => {
    expect(stripeEndpoint({ STRIPE_API_BASE: "http://127.0.0.1:8123" })).toEqual({
      endpoint: { host: "127.0.0.1", port: 8123, protocol: "http" },
    });
    for (const address of [
      undefined,
      "",
      "https://evil.example",
      "http://127.0.0.1.evil.example:80",
      "http://10.0.0.1:80",
    ])
      expect(stripeEndpoint({ STRIPE_API_BASE: address })).toEqual({});
  });
});

test("the cache holds no key, card, address or name, and is its owner's alone", async () => {
  pay(1);
  await read();
  const path = join(folder, "one.sqlite");
  cache.close();
  const bytes = readFileSync(path).toString("latin1");
  for (const secret of [key, "4242", "High Street", "ann@example.com", "Ann"])
    expect(bytes.includes(secret), secret).toBe(false);
  expect(bytes).toContain("ch_000001");
  expect(statSync(path).mode & 0o077).toBe(0);
  cache = openStripeCache(path);
  expect(STRIPE_RESOURCES.map((name) => cache.reading(name).covered?.through)).toEqual(
    STRIPE_RESOURCES.map(() => now),
  );
  expect(stripeCachePath("/d", "p", { account_id: "acct_1", mode: "test" })).not.toBe(
    stripeCachePath("/d", "p", { account_id: "acct_1", mode: "live" }),
  );
});
