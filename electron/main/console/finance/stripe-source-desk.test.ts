/** The finance desk with Stripe's API as its source: a real console, a real local project, and Stripe on this machine. */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createClient, type SupabaseClient } from "@supabase/supabase-js";
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { type LocalProject, startLocalProject } from "../../../../local-project/index.ts";
import { readMigrations } from "../../../../local-project/migrations.ts";
import type { ReconciliationRun, Reply } from "../../../../shared/contract/index.ts";
import type { PackPrice, Report } from "../../../../shared/governance/reconciliation/index.ts";
import { checkoutSession, event, type Purchase } from "../../../../tests/support/stripe/events.ts";
import { call, endOfRun, value } from "../../../../tests/support/console-calls.ts";
import {
  emptyAccount,
  type StripeAccount,
  startStripeServer,
} from "../../../../tests/support/stripe/server.ts";
import type { Keychain } from "../../keychain/keychain.ts";
import type { Console } from "../console.ts";
import { createConsole } from "../consoles.ts";

const key = `rk_live_${"a1B2".repeat(8)}`;
const lacking = `rk_live_${"c3D4".repeat(8)}`;
const folder = mkdtempSync(join(tmpdir(), "console-stripe-"));
const account: StripeAccount = emptyAccount("acct_1NuzflB0DBR1HOyc", "Example AI");
const today = Math.floor(Date.now() / 86_400_000) * 86_400;
/** Noon, five days ago: past every grace. */
const paidAt = today - 5 * 86_400 + 43_200;
const dayOf = (seconds: number): string => new Date(seconds * 1000).toISOString().slice(0, 10);
const [from, to] = [dayOf(paidAt), dayOf(today - 86_400)];

let project: LocalProject;
let backend: SupabaseClient;
let pack: PackPrice;
let server: Awaited<ReturnType<typeof startStripeServer>>;
const open: Console[] = [];
const logged: string[] = [];

/** Keys as a system's keychain holds them: outside of the data folder. */
const vault = new Map<string, string>();
const keychain: Keychain = {
  kind: "napi-keyring",
  note: null,
  get: async (name) => vault.get(name) ?? null,
  set: async (name, secret) => Boolean(vault.set(name, secret)),
  remove: async (name) => void vault.delete(name),
};
const noKeychain: Keychain = {
  kind: "none",
  note: "none here",
  get: async () => null,
  set: async () => false,
  remove: async () => {},
};

async function start(name: string, kept: Keychain = keychain): Promise<Console> {
  const opened = createConsole({
    dataDir: join(folder, name),
    host: "browser",
    version: "0",
    migrations: readMigrations().map(({ version, name: title }) => `${version}_${title}`),
    startLocalProject: async () => ({ ...project, sampleTraffic: null, stop: async () => {} }),
    openKeychain: async () => kept,
    stripeEndpoint: server.endpoint,
    log: (line) => logged.push(line),
  });
  if (!opened.ok) throw new Error(opened.error.message);
  open.push(opened.value);
  opened.value.start();
  await vi.waitFor(
    async () => expect((await value(opened.value, "connection.state", {})).status).toBe("live"),
    {
      timeout: 60_000,
    },
  );
  return opened.value;
}
async function reconcile(console_: Console): Promise<ReconciliationRun> {
  const { run_id } = await value(console_, "finance.start_run", {
    upload_ids: [],
    stripe_api: true,
    from,
    to,
  });
  return await endOfRun(console_, run_id);
}
/** A purchase as Stripe has it. */
function pay(name: string): Purchase {
  const p: Purchase = {
    name,
    userId: `u_${name}`,
    packId: pack.pack_id,
    tokens: pack.tokens,
    amountMinor: pack.price_minor,
    currency: pack.currency,
    created: paidAt,
  };
  const { lists } = account;
  lists["checkout/sessions"].push(checkoutSession(p) as never);
  lists.charges.push({
    id: `ch_${name}`,
    object: "charge",
    created: paidAt + 30,
    amount: p.amountMinor,
    amount_captured: p.amountMinor,
    amount_refunded: 0,
    balance_transaction: `txn_${name}`,
    captured: true,
    currency: p.currency,
    customer: `cus_${name}`,
    livemode: true,
    metadata: {},
    payment_intent: `pi_${name}`,
    status: "succeeded",
  });
  lists.balance_transactions.push({
    id: `txn_${name}`,
    object: "balance_transaction",
    created: paidAt + 30,
    amount: p.amountMinor,
    fee: 30,
    net: p.amountMinor - 30,
    currency: p.currency,
    reporting_category: "charge",
    source: `ch_${name}`,
  });
  return p;
}

beforeAll(async () => {
  server = await startStripeServer({
    [key]: { account },
    [lacking]: { account, lacks: ["rak_dispute_read"] },
  });
  project = await startLocalProject({ dataDir: join(folder, "project") });
  backend = createClient(project.url, project.serviceRoleKey, { auth: { persistSession: false } });
  const { data } = await backend.rpc("console_pack_prices");
  pack = (data as PackPrice[])[0] as PackPrice;
  await project.run(
    `select governance.set_test_clock('${new Date((paidAt + 60) * 1000).toISOString()}', true)`,
  );
  for (let n = 0; n < 5; n++) {
    const p = pay(`paid${n}`);
    await backend.rpc("upsert_account", { p_user_id: p.userId });
    const { error } = await backend.rpc("process_stripe_event", {
      p_event: event("checkout.session.completed", checkoutSession(p)),
    });
    expect(error).toBeNull();
  }
  await project.run("select governance.set_test_clock(null)");
}, 120_000);
afterEach(async () => {
  server.onRequest(() => null);
  for (const console_ of open.splice(0)) await console_.close();
});
afterAll(async () => {
  await project.stop();
  await server.stop();
  rmSync(folder, { recursive: true, force: true });
}, 60_000);

test("reconciles with Stripe itself, and the second time asks only for what is new", async () => {
  const console_ = await start("one");
  await value(console_, "finance.stripe_connect", { key });
  const first = await reconcile(console_);
  expect(first).toMatchObject({ status: "finished", failure: null, differences: 0, tied_out: true });
  expect(first.file_names).toEqual(["Stripe API (acct_1NuzflB0DBR1HOyc, live mode)"]);
  const { report } = await value(console_, "finance.report", { run_id: first.run_id });
  expect(report).toMatchObject({
    stripe_api: { account_id: account.id, mode: "live", objects_read: 15 },
    stripe_rows: { rows: 10, matched: 5, merged: 5 },
    warnings: [],
  });
  expect((report as Report).inputs.map(({ name, sha256 }) => [name, sha256?.length])).toEqual([
    ["Stripe API: payments", 64],
    ["Stripe API: balance", 64],
  ]);

  const lost = pay("not_credited");
  // Told late: as a payment of the last seconds.
  const now = Math.floor(Date.now() / 1000);
  for (const list of ["charges", "balance_transactions", "checkout/sessions"] as const)
    account.lists[list] = account.lists[list].map((one) =>
      one.id.endsWith(lost.name) ? { ...one, created: now } : one,
    );
  // A second that was read to its end is not asked for again.
  await vi.waitFor(() => expect(Math.floor(Date.now() / 1000)).toBeGreaterThan(now), { timeout: 60_000 });
  server.requests.length = 0;
  const second = await value(console_, "finance.start_run", {
    upload_ids: [],
    stripe_api: true,
    from,
    to: dayOf(today),
  }).then(({ run_id }) => endOfRun(console_, run_id));
  expect(second).toMatchObject({ status: "finished" });
  expect(server.requests).toHaveLength(7);
  const state = await value(console_, "finance.stripe", {});
  expect(state.connection).toMatchObject({ objects: 18, key_storage: "keychain" });
  expect(Date.parse(state.connection?.data_through ?? "")).toBeGreaterThan(Date.now() - 60_000);
  for (const format of ["xlsx", "html"] as const) {
    const file = await value(console_, "finance.export", { run_id: second.run_id, format });
    expect(file.file_name).toBe(`reconciliation-${from}-${dayOf(today)}.${format}`);
    const bytes = Buffer.from(file.text, file.encoding);
    expect(bytes.subarray(0, 2).toString()).toBe(format === "xlsx" ? "PK" : "<!");
    expect(bytes.includes(account.id)).toBe(format === "html");
  }
});

test("keeps the key in the keychain alone: not in a file, a log, or an answer", async () => {
  const console_ = await start("two");
  const answers: Reply<unknown>[] = [
    await call(console_, "finance.stripe_check", { key }),
    await call(console_, "finance.stripe_connect", { key: ` ${key}\n` }),
    await call(console_, "finance.stripe", {}),
  ];
  const run = await reconcile(console_);
  answers.push(await call(console_, "finance.report", { run_id: run.run_id }));
  expect(answers.map(({ ok }) => ok)).toEqual([true, true, true, true]);
  expect([...vault.values()]).toContain(key);
  expect(JSON.stringify(answers) + logged.join("\n")).not.toContain(key);
  // A database that is open takes files of its own away.
  for (const each of open.splice(0)) await each.close();
  for (const path of readdirSync(join(folder, "two"), { recursive: true, encoding: "utf8" })) {
    const full = join(folder, "two", path);
    if (statSync(full).isFile()) expect(readFileSync(full).includes(key), path).toBe(false);
  }
});

test("says which permission is missing, and does not keep such a key", async () => {
  const console_ = await start("three");
  const before = vault.size;
  expect(await call(console_, "finance.stripe_connect", { key: lacking })).toMatchObject({
    ok: false,
    error: { code: "missing_permission", message: expect.stringContaining('"Disputes"') },
  });
  expect(vault.size).toBe(before);
  expect(
    await call(console_, "finance.start_run", { upload_ids: [], stripe_api: true, from, to }),
  ).toMatchObject({ ok: true });
  // Nothing was connected, so the run says so.
  const runs = await vi.waitFor(
    async () => {
      const list = await value(console_, "finance.runs", {});
      expect(list[0]?.status).toBe("failed");
      return list;
    },
    { timeout: 60_000 },
  );
  expect(runs[0]?.failure?.code).toBe("not_connected");
});

test("without a keychain the key lives for the session, and afterwards that is said", async () => {
  const console_ = await start("four", noKeychain);
  expect(await value(console_, "finance.stripe_connect", { key })).toMatchObject({
    key_storage: "session",
  });
  expect((await reconcile(console_)).status).toBe("finished");
  await console_.close();
  const later = await start("four", noKeychain);
  const { connection } = await value(later, "finance.stripe", {});
  expect(connection).toMatchObject({ key_storage: "missing", account_id: account.id });
  expect(connection?.objects).toBeGreaterThan(0);
  expect(await reconcile(later)).toMatchObject({ status: "failed", failure: { code: "missing_key" } });
});

test("a run is cancelled while Stripe is read, and goes on from there the next time", async () => {
  const console_ = await start("five");
  await value(console_, "finance.stripe_connect", { key });
  server.onRequest(({ path, query }) => (path === "charges" && query.get("limit") === "100" ? "hang" : null));
  server.requests.length = 0;
  const { run_id } = await value(console_, "finance.start_run", {
    upload_ids: [],
    stripe_api: true,
    from,
    to,
  });
  await expect
    .poll(() => server.requests.some(({ path }) => path === "charges"), { timeout: 60_000 })
    .toBe(true);
  await value(console_, "finance.cancel_run", { run_id });
  expect(await endOfRun(console_, run_id)).toMatchObject({ status: "cancelled", failure: null });
  server.onRequest(() => null);
  server.requests.length = 0;
  expect((await reconcile(console_)).status).toBe("finished");
  // The balance was read before: at most its newest minutes are asked for again.
  for (const { query } of server.requests.filter(({ path }) => path === "balance_transactions"))
    expect(Number(query.get("created[gte]"))).toBeGreaterThan(Date.now() / 1000 - 900);
});

test("an API run needs both days, and a run needs some source", async () => {
  const console_ = await start("six");
  for (const input of [
    { upload_ids: [], stripe_api: true, from, to: null },
    { upload_ids: [], from, to },
  ])
    expect(await call(console_, "finance.start_run", input)).toMatchObject({
      ok: false,
      error: { code: "invalid_argument" },
    });
});

test("removing the key keeps or forgets what was read, as the person chose", async () => {
  const console_ = await start("seven");
  const stripeFolder = join(folder, "seven", "stripe");
  await value(console_, "finance.stripe_connect", { key });
  await reconcile(console_);
  await value(console_, "finance.stripe_disconnect", { forget_data: false });
  expect((await value(console_, "finance.stripe", {})).connection).toBeNull();
  expect(readdirSync(stripeFolder)).toHaveLength(1);
  expect([...vault.keys()].filter((name) => name === "stripe:local")).toEqual([]);
  await value(console_, "finance.stripe_connect", { key });
  await value(console_, "finance.stripe_disconnect", { forget_data: true });
  expect(existsSync(stripeFolder) ? readdirSync(stripeFolder) : []).toEqual([]);
});
