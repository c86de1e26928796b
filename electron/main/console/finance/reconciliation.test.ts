/** The finance desk from a dropped export to its differences, on a real local project. */
import { randomUUID } from "node:crypto";
import { existsSync, mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createClient, type SupabaseClient } from "@supabase/supabase-js";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { type LocalProject, startLocalProject } from "../../../../local-project/index.ts";
import { readMigrations } from "../../../../local-project/migrations.ts";
import type { OperationInput, OperationName, ReconciliationRun } from "../../../../shared/contract/index.ts";
import type { Difference, PackPrice, Report } from "../../../../shared/governance/reconciliation/index.ts";
import { checkoutSession, event, type Purchase } from "../../../../tests/support/stripe/events.ts";
import { call as callConsole, endOfRun, value as valueOf } from "../../../../tests/support/console-calls.ts";
import type { Console } from "../console.ts";
import { createConsole } from "../consoles.ts";

const folder = mkdtempSync(join(tmpdir(), "console-finance-"));
const dataDir = join(folder, "data");
let project: LocalProject;
let backend: SupabaseClient;
let console_: Console;

const call = <N extends OperationName>(name: N, input: OperationInput<N>) =>
  callConsole(console_, name, input);
const value = <N extends OperationName>(name: N, input: OperationInput<N>) => valueOf(console_, name, input);

const chunkBytes = 300_000;

async function upload(name: string, text: string | Buffer): Promise<string> {
  const bytes = Buffer.from(text as string);
  let at = await value("finance.open_upload", { file_name: name, size_bytes: bytes.length });
  for (let offset = 0; offset < bytes.length; offset += chunkBytes) {
    const base64 = bytes.subarray(offset, offset + chunkBytes).toString("base64");
    at = await value("finance.upload_chunk", {
      upload_id: at.upload_id,
      offset_bytes: offset,
      base64,
    });
  }
  expect(at.sha256).toMatch(/^[0-9a-f]{64}$/);
  return at.upload_id;
}

async function reconcileFiles(
  ids: string[],
  from: string | null = null,
  to: string | null = null,
): Promise<ReconciliationRun> {
  const { run_id } = await value("finance.start_run", { upload_ids: ids, from, to });
  return await endOfRun(console_, run_id);
}

const header =
  "id,Created date (UTC),Amount,Amount Refunded,Currency,Captured,Fee,Status,Customer ID,PaymentIntent ID,Checkout Session ID,user_id (metadata)";
function row(p: Purchase): string {
  const at = new Date((p.created + 30) * 1000).toISOString().slice(0, 19).replace("T", " ");
  const amount = (p.amountMinor / 100).toFixed(2);
  return `ch_${p.name},${at},${amount},0.00,${p.currency},true,0.30,Paid,cus_${p.userId},pi_${p.name},cs_live_${p.name},${p.userId}`;
}

let pack: PackPrice;
const today = Math.floor(Date.now() / 86_400_000) * 86_400;
/** Noon, five days ago: past every grace. */
const paidAt = today - 5 * 86_400 + 43_200;
const dayOf = (seconds: number): string => new Date(seconds * 1000).toISOString().slice(0, 10);
const day = dayOf(paidAt);
/** The last day of the period. */
const end = dayOf(today - 86_400);

const purchase = (name: string): Purchase => ({
  name,
  userId: `u_${name}`,
  packId: pack.pack_id,
  tokens: pack.tokens,
  amountMinor: pack.price_minor,
  currency: pack.currency,
  created: paidAt,
});

async function credit(p: Purchase): Promise<void> {
  await backend.rpc("upsert_account", { p_user_id: p.userId });
  const { data, error } = await backend.rpc("process_stripe_event", {
    p_event: event("checkout.session.completed", checkoutSession(p)),
  });
  expect(error).toBeNull();
  expect((data as { status: string }).status, JSON.stringify(data)).toBe("processed");
}

const credited: Purchase[] = [];

beforeAll(async () => {
  project = await startLocalProject({ dataDir: join(folder, "project") });
  backend = createClient(project.url, project.serviceRoleKey, { auth: { persistSession: false } });
  const { data } = await backend.rpc("console_pack_prices");
  pack = (data as PackPrice[])[0] as PackPrice;
  await project.run(
    `select governance.set_test_clock('${new Date((paidAt + 60) * 1000).toISOString()}', true)`,
  );
  for (let n = 0; n < 5; n++) {
    const p = purchase(`paid${n}`);
    await credit(p);
    credited.push(p);
  }
  await project.run("select governance.set_test_clock(null)");
  const opened = createConsole({
    dataDir,
    host: "browser",
    version: "0",
    migrations: readMigrations().map(({ version, name }) => `${version}_${name}`),
    startLocalProject: async () => ({ ...project, sampleTraffic: null, stop: async () => {} }),
    log: () => {},
  });
  if (!opened.ok) throw new Error(opened.error.message);
  console_ = opened.value;
  console_.start();
  await vi.waitFor(async () => expect((await value("connection.state", {})).status).toBe("live"), {
    timeout: 60_000,
  });
}, 120_000);
afterAll(async () => {
  await console_.close();
  await project.stop();
  rmSync(folder, { recursive: true, force: true });
}, 60_000);

test("an export that fits the ledger ties out, with every row in its place", async () => {
  const id = await upload("unified_payments.csv", `${[header, ...credited.map(row)].join("\n")}\n`);
  const run = await reconcileFiles([id], day, end);
  expect(run).toMatchObject({
    status: "finished",
    failure: null,
    stripe_rows: 5,
    differences: 0,
    tied_out: true,
  });
  const { report } = await value("finance.report", { run_id: run.run_id });
  expect((report as Report).inputs[0]).toMatchObject({
    name: "unified_payments.csv",
    kind: "unified_payments",
    rows: 5,
  });
  expect((report as Report).inputs[0]?.sha256).toMatch(/^[0-9a-f]{64}$/);
});

test("a payment without a grant and a grant without a payment are both found, paged, and exported", async () => {
  const lost = { ...purchase("not_credited"), created: paidAt + 2 * 86_400 };
  const text = `${[header, ...credited.slice(1).map(row), row(lost)].join("\r\n")}\r\n`;
  const run = await reconcileFiles([await upload("C:\\exports\\payments.csv", text)], day, end);
  expect(run).toMatchObject({ status: "finished", tied_out: false, file_names: ["payments.csv"] });
  const all = await value("finance.differences", {
    run_id: run.run_id,
    difference_class: null,
    offset: 0,
    limit: 500,
  });
  expect(all.total).toBe(run.differences);
  const classes = (all.differences as Difference[]).map((one) => one.class);
  expect(classes).toContain("PAID_NOT_GRANTED");
  expect(classes).toContain("GRANTED_NOT_PAID");
  const paid = await value("finance.differences", {
    run_id: run.run_id,
    difference_class: "PAID_NOT_GRANTED",
    offset: 0,
    limit: 1,
  });
  expect(paid.total).toBe(1);
  expect((paid.differences[0] as Difference).stripe?.charge_id).toBe("ch_not_credited");
  const csv = await value("finance.export", { run_id: run.run_id, format: "csv" });
  expect(csv.text.trim().split(/\r?\n/)).toHaveLength(all.total + 1);
  const json = await value("finance.export", { run_id: run.run_id, format: "json" });
  expect((JSON.parse(json.text) as Report).differences).toEqual(all.differences);
  expect((await value("finance.runs", {}))[0]?.run_id).toBe(run.run_id);
});

test("with no period given, the days that the files cover are taken", async () => {
  const run = await reconcileFiles([await upload("p.csv", `${[header, ...credited.map(row)].join("\n")}\n`)]);
  expect(run).toMatchObject({ status: "finished", from: day, to: day, tied_out: true });
});

test.each([
  ["binary", Buffer.from([0x50, 0x4b, 3, 4, 0, 0, 0, 0, 255, 254, 0, 1]), /./],
  ["of another kind", "name,age\nAda,36\n", /./],
  [
    "with an amount that is none",
    `${header}\nch_x,2026-11-20 10:00:00,twelve,0.00,usd,true,0.3,Paid,c,p,s,u\n`,
    /row 2.*twelve|twelve/,
  ],
])(
  "a file that is %s is refused in a sentence that names it, and nothing is kept of it",
  async (_what, content, words) => {
    const run = await reconcileFiles([await upload("wrong.csv", content as string)], day, end);
    expect(run.status).toBe("failed");
    expect(run.failure?.message).toContain("wrong.csv");
    expect(run.failure?.message).toMatch(words);
    expect(
      (
        await value("finance.differences", {
          run_id: run.run_id,
          difference_class: null,
          offset: 0,
          limit: 10,
        })
      ).total,
    ).toBe(0);
  },
);

test("an empty file, one that is not whole, and one that is not here are refused before anything runs", async () => {
  expect(await call("finance.open_upload", { file_name: "e.csv", size_bytes: 0 })).toMatchObject({
    ok: false,
    error: { code: "bad_input" },
  });
  const half = await value("finance.open_upload", { file_name: "h.csv", size_bytes: 100 });
  await value("finance.upload_chunk", {
    upload_id: half.upload_id,
    offset_bytes: 0,
    base64: Buffer.alloc(40).toString("base64"),
  });
  expect(
    await call("finance.start_run", { upload_ids: [half.upload_id], from: null, to: null }),
  ).toMatchObject({ ok: false, error: { code: "bad_input" } });
  expect(await call("finance.start_run", { upload_ids: [randomUUID()], from: null, to: null })).toMatchObject(
    { ok: false, error: { code: "not_found" } },
  );
  expect(
    await call("finance.start_run", {
      upload_ids: [half.upload_id],
      from: "2026-11-02",
      to: "2026-11-01",
    }),
  ).toMatchObject({ ok: false, error: { code: "invalid_argument" } });
});

test("pieces out of order, too long, or not base64 are refused; one sent twice is taken once", async () => {
  const { upload_id } = await value("finance.open_upload", { file_name: "x.csv", size_bytes: 10 });
  const piece = (offset_bytes: number, base64: string) =>
    call("finance.upload_chunk", { upload_id, offset_bytes, base64 });
  const five = Buffer.from("12345").toString("base64");
  expect(await piece(5, five)).toMatchObject({ ok: false });
  expect(await piece(0, "not base64!")).toMatchObject({ ok: false });
  expect(await piece(0, five)).toMatchObject({ ok: true, value: { received_bytes: 5 } });
  expect(await piece(0, five)).toMatchObject({ ok: true, value: { received_bytes: 5 } });
  expect(await piece(5, Buffer.alloc(6).toString("base64"))).toMatchObject({ ok: false });
  expect(await piece(5, five)).toMatchObject({ ok: true, value: { received_bytes: 10 } });
});

test("uploads lie in a private folder and are gone when the console ends; a long run can be cancelled", async () => {
  const lines = Array.from({ length: 200_000 }, (_, index) => row(purchase(`big${index}`)));
  const id = await upload("big.csv", `${[header, ...lines].join("\n")}\n`);
  const kept = join(dataDir, "uploads");
  expect(statSync(kept).mode & 0o777).toBe(0o700);
  for (const name of readdirSync(kept)) expect(statSync(join(kept, name)).mode & 0o777).toBe(0o600);

  const { run_id } = await value("finance.start_run", { upload_ids: [id], from: day, to: day });
  expect(await call("finance.start_run", { upload_ids: [id], from: day, to: day })).toMatchObject({
    ok: false,
    error: { code: "busy" },
  });
  // The console answers while the worker reads: it is still at it afterwards.
  await value("settings.get", {});
  expect((await value("finance.runs", {})).find((one) => one.run_id === run_id)?.status).toBe("running");
  await value("finance.cancel_run", { run_id });
  await expect
    .poll(async () => (await value("finance.runs", {})).find((one) => one.run_id === run_id)?.status, {
      timeout: 60_000,
    })
    .toBe("cancelled");
  await console_.close();
  expect(existsSync(kept)).toBe(false);
}, 90_000);
