/** From a finished run to a closed period, through the console, on a real local project; two people, and a network that loses replies. */
import { createHash, randomUUID } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createClient, type SupabaseClient } from "@supabase/supabase-js";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { type LocalProject, startLocalProject } from "../../../../local-project/index.ts";
import { readMigrations } from "../../../../local-project/migrations.ts";
import type {
  CaseAction,
  CaseFilter,
  FinanceCase,
  OperationInput,
  OperationName,
  OperationOutput,
  RailCounts,
  Reply,
} from "../../../../shared/contract/index.ts";
import type { PackPrice } from "../../../../shared/governance/reconciliation/index.ts";
import { event, checkoutSession } from "../../../../tests/support/stripe/events.ts";
import { type FaultyProxy, startFaultyProxy } from "../../../../tests/support/faulty-proxy.ts";
import type { Console } from "../console.ts";
import { createConsole } from "../consoles.ts";

const folder = mkdtempSync(join(tmpdir(), "console-cases-"));
let project: LocalProject;
let proxy: FaultyProxy;
let backend: SupabaseClient;
let pack: PackPrice;

class Desk {
  readonly console: Console;
  constructor(console_: Console) {
    this.console = console_;
  }
  async call<N extends OperationName>(name: N, input: OperationInput<N>): Promise<Reply<OperationOutput<N>>> {
    return (await this.console.dispatcher.call(name, input)) as Reply<OperationOutput<N>>;
  }
  async value<N extends OperationName>(name: N, input: OperationInput<N>): Promise<OperationOutput<N>> {
    const result = await this.call(name, input);
    if (!result.ok) throw new Error(`${name}: ${result.error.message} ${result.error.details}`);
    return result.value;
  }
  /** Reconciles one export; answers the run's id. */
  async reconcile(csv: string): Promise<string> {
    const bytes = Buffer.from(csv);
    const upload = await this.value("finance.open_upload", {
      file_name: "payments.csv",
      size_bytes: bytes.length,
    });
    await this.value("finance.upload_chunk", {
      upload_id: upload.upload_id,
      offset_bytes: 0,
      base64: bytes.toString("base64"),
    });
    const { run_id: id } = await this.value("finance.start_run", {
      upload_ids: [upload.upload_id],
      from: day,
      to: day,
    });
    await vi.waitFor(
      async () => {
        const { run } = await this.value("finance.report", { run_id: id });
        expect(run).toMatchObject({ status: "finished", failure: null });
      },
      { timeout: 60_000 },
    );
    return id;
  }
  page(filter: Partial<CaseFilter> = {}): Promise<OperationOutput<"finance.cases">> {
    const everything = {
      run_id: null,
      undecided: null,
      status: null,
      class: null,
      assigned_to: null,
      older_than_days: null,
      text: null,
      sort: null,
      descending: false,
    };
    return this.value("finance.cases", { filter: { ...everything, ...filter }, after: null, limit: 500 });
  }
  async cases(filter: Partial<CaseFilter> = {}): Promise<readonly FinanceCase[]> {
    return (await this.page(filter)).cases;
  }
  async case(id: string): Promise<FinanceCase> {
    return (await this.value("finance.case", { difference_id: id })).case;
  }
  act(
    action: CaseAction,
    cases: readonly FinanceCase[],
    reason: string | null = null,
    commandId = randomUUID(),
  ) {
    return this.call("finance.act", {
      command_id: commandId,
      difference_ids: cases.map((each) => each.difference_id),
      versions: versionsOf(cases),
      action,
      reason,
    });
  }
}
const versionsOf = (cases: readonly FinanceCase[]): Record<string, number> =>
  Object.fromEntries(cases.map((each) => [each.difference_id, each.version]));

async function openDesk(name: string): Promise<Desk> {
  const opened = createConsole({
    dataDir: join(folder, name),
    host: "browser",
    version: "0",
    migrations: readMigrations().map(({ version, name: title }) => `${version}_${title}`),
    startLocalProject: async () => ({
      ...project,
      url: proxy.url,
      sampleTraffic: null,
      stop: async () => {},
    }),
    log: () => {},
  });
  if (!opened.ok) throw new Error(opened.error.message);
  const desk = new Desk(opened.value);
  opened.value.start();
  await vi.waitFor(async () => expect((await desk.value("connection.state", {})).status).toBe("live"), {
    timeout: 60_000,
  });
  await desk.value("settings.set", { operator: name });
  return desk;
}

/** Noon, five days ago: past every grace. */
const paidAt = Math.floor(Date.now() / 86_400_000) * 86_400 - 5 * 86_400 + 43_200;
const day = new Date(paidAt * 1000).toISOString().slice(0, 10);
const header =
  "id,Created date (UTC),Amount,Amount Refunded,Currency,Captured,Fee,Status,Customer ID,PaymentIntent ID,Checkout Session ID,user_id (metadata),pack_id (metadata)";
const line = (name: string): string => {
  const at = new Date((paidAt + 30) * 1000).toISOString().slice(0, 19).replace("T", " ");
  const amount = (pack.price_minor / 100).toFixed(2);
  return `ch_${name},${at},${amount},0.00,${pack.currency},true,0.30,Paid,cus_${name},pi_${name},cs_live_${name},u_${name},${pack.pack_id}`;
};
/** Paid at Stripe; the product's webhook never told the ledger. */
const lost = ["ada", "bob", "cyd", "dee", "eve"];
const csv = (): string => `${[header, ...lost.map(line)].join("\n")}\n`;

let fay: Desk;
let moe: Desk;
let firstRun: string;

beforeAll(async () => {
  project = await startLocalProject({ dataDir: join(folder, "project") });
  proxy = await startFaultyProxy(project.url);
  backend = createClient(project.url, project.serviceRoleKey, { auth: { persistSession: false } });
  const { data } = await backend.rpc("console_pack_prices");
  // The smallest: one of it is within what a person may book alone.
  pack = (data as PackPrice[]).toSorted((a, b) => a.tokens - b.tokens)[0] as PackPrice;
  for (const name of lost) await backend.rpc("upsert_account", { p_user_id: `u_${name}` });
  [fay, moe] = [await openDesk("Fay"), await openDesk("Moe")];
}, 120_000);
afterAll(async () => {
  await fay.console.close();
  await moe.console.close();
  await proxy.stop();
  await project.stop();
  rmSync(folder, { recursive: true, force: true });
}, 60_000);

const balanceOf = async (name: string): Promise<number> =>
  (await backend.rpc("get_user_token_balance", { p_user_id: `u_${name}` })).data as number;
const caseOf = (name: string): string => `PAID_NOT_GRANTED/ch_${name}`;

test("a run is kept once, whatever reply is lost, and then both desks see its cases with both sides", async () => {
  firstRun = await fay.reconcile(csv());
  expect(await fay.call("finance.kept_run", { run_id: firstRun })).toMatchObject({
    ok: false,
    error: { code: "not_found" },
  });
  proxy.loseReplies("console_keep_reconciliation", 2);
  const kept = await fay.value("finance.keep_run", { run_id: firstRun });
  expect(kept).toMatchObject({ kept: lost.length, total: lost.length, is_complete: true, reopened: 0 });
  expect(await fay.value("finance.keep_run", { run_id: firstRun })).toEqual(kept);
  const cases = await moe.cases({ run_id: firstRun });
  expect(cases.map((each) => each.difference_id)).toEqual(lost.map(caseOf));
  const shown = await moe.value("finance.case", { difference_id: caseOf("ada") });
  expect(shown.difference).toMatchObject({
    stripe: { charge_id: "ch_ada" },
    ledger: null,
    correction: { action: "grant", user_id: "u_ada" },
  });
  expect(await moe.value("finance.kept_runs", {})).toMatchObject({
    runs: [{ run_id: firstRun, created_by: "Fay", undecided: lost.length, file_names: ["payments.csv"] }],
  });
}, 90_000);

test("the count beside the desk's name is that of open cases, on every console", async () => {
  const rail = (desk: Desk): RailCounts | undefined => {
    const seen: RailCounts[] = [];
    const stop = desk.console.dispatcher.follow("rail", {}, (item) => seen.push(item as RailCounts));
    if (stop.ok) stop.value();
    return seen.at(-1);
  };
  for (const desk of [fay, moe])
    await vi.waitFor(() => expect(rail(desk)?.differences).toBe(lost.length), { timeout: 60_000 });
}, 150_000);

test("an act whose replies are all lost fails as unknown; repeated with its command it is done once", async () => {
  const id = caseOf("ada");
  const seen = await fay.case(id);
  const command = randomUUID();
  proxy.loseReplies("console_case_action", 3);
  expect(await fay.act("note", [seen], "Asked the customer", command)).toMatchObject({
    ok: false,
    error: { code: "needs_connection" },
  });
  await vi.waitFor(
    async () => {
      await fay.value("connection.retry", {});
      expect((await fay.value("connection.state", {})).status).toBe("live");
    },
    { timeout: 60_000 },
  );
  expect(await fay.act("note", [seen], "Asked the customer", command)).toMatchObject({ ok: true });
  expect((await fay.case(id)).history).toHaveLength(1);
}, 60_000);

test("a case that another person changed is refused in one sentence that says who and what", async () => {
  const id = caseOf("bob");
  const seen = await fay.case(id);
  expect(await moe.act("investigate", [seen])).toMatchObject({ ok: true });
  const refused = await fay.act("carry_forward", [seen], "Next month");
  expect(refused).toMatchObject({
    ok: false,
    error: {
      code: "version_conflict",
      message: `${id} was changed by Moe in the meantime: it is investigating now.`,
    },
  });
  expect((await fay.case(id)).status).toBe("investigating");
});

test("a posting whose reply is lost, and two people who post at once, book once", async () => {
  const cases = await fay.cases({ class: "PAID_NOT_GRANTED" });
  const [ada, bob] = [caseOf("ada"), caseOf("bob")].map((id) =>
    cases.find((each) => each.difference_id === id),
  ) as [FinanceCase, FinanceCase];
  expect(await fay.act("propose", [ada, bob])).toMatchObject({ ok: true });
  const preview = await fay.value("finance.preview_post", { difference_id: ada.difference_id });
  const before = preview.accounts?.[0]?.before.total ?? 0;
  expect(preview.accounts).toMatchObject([{ user_id: "u_ada", after: { total: before + pack.tokens } }]);
  // Done and undone: nothing has changed.
  expect(await balanceOf("ada")).toBe(before);

  proxy.loseReplies("console_post_correction", 1);
  const posted = await fay.value("finance.post", { difference_ids: [ada.difference_id], versions: {} });
  expect(posted).toMatchObject({ posted: [{ status: "posted" }], refused: [], unsent: 0 });
  expect(await balanceOf("ada")).toBe(before + pack.tokens);

  const bobBefore = await balanceOf("bob");
  const both = await Promise.all(
    [fay, moe].map((desk) =>
      desk.value("finance.post", { difference_ids: [bob.difference_id], versions: {} }),
    ),
  );
  expect(both.map((each) => each.posted[0]?.effects)).toEqual([
    both[0]?.posted[0]?.effects,
    both[0]?.posted[0]?.effects,
  ]);
  expect(await balanceOf("bob")).toBe(bobBefore + pack.tokens);
}, 60_000);

test("above the limit one person proposes and another approves: the project holds to it, also for many at once", async () => {
  await project.run(
    `insert into governance.settings (key, value) values ('approval_above_tokens', '${Math.floor(pack.tokens * 1.5)}')
     on conflict (key) do update set value = excluded.value`,
  );
  const ids = [caseOf("cyd"), caseOf("dee")];
  const cases = await Promise.all(ids.map((id) => fay.case(id)));
  expect(await fay.act("propose", cases)).toMatchObject({ ok: true });
  const alone = await fay.value("finance.preview_act", { difference_ids: ids, action: "post" });
  expect(alone.included).toEqual([]);
  expect(alone.excluded.map((each) => each.code)).toEqual(["approval_needed", "approval_needed"]);
  const tried = await fay.value("finance.post", { difference_ids: ids, versions: {} });
  expect(tried.refused.map((each) => each.failure.code)).toEqual(["approval_needed", "approval_needed"]);
  const proposed = await Promise.all(ids.map((id) => fay.case(id)));
  expect(await fay.act("approve", proposed)).toMatchObject({ ok: false, error: { code: "same_person" } });
  expect(await moe.act("approve", proposed)).toMatchObject({ ok: true });
  const done = await fay.value("finance.post", { difference_ids: ids, versions: {} });
  expect(done).toMatchObject({ posted: [{ status: "posted" }, { status: "posted" }], refused: [] });
});

test("the same files again verify what was posted; the period closes once, and its seal is that of its text", async () => {
  const [eve] = await fay.cases({ undecided: true, status: ["open"] });
  expect(eve?.difference_id).toBe(caseOf("eve"));
  expect(await moe.act("carry_forward", [eve as FinanceCase], "The bank has not answered")).toMatchObject({
    ok: true,
  });
  const blocked = await fay.value("finance.closing", { run_id: firstRun });
  expect(blocked.can_close).toBe(false);
  expect(blocked.checks.filter((each) => !each.ok).map((each) => each.check)).toEqual(["verified"]);
  expect(
    await fay.call("finance.close_period", {
      command_id: randomUUID(),
      run_id: firstRun,
      sign_off: "All well",
    }),
  ).toMatchObject({ ok: false, error: { code: "still_open" } });

  const second = await moe.reconcile(csv());
  expect(await moe.value("finance.keep_run", { run_id: second })).toMatchObject({
    kept: 1,
    verified: 4,
    gone: 0,
  });
  expect(
    (await fay.value("finance.compare_runs", { run_id: second, other_run_id: firstRun })).counts,
  ).toEqual({ new: 0, gone: 4, changed: 0, same: 1 });
  const command = randomUUID();
  proxy.loseReplies("console_close_period", 1);
  const closing = { command_id: command, run_id: second, sign_off: "All well" };
  const closed = await moe.value("finance.close_period", closing);
  expect(await moe.value("finance.close_period", closing)).toEqual(closed);
  expect(
    await fay.call("finance.close_period", { command_id: randomUUID(), run_id: second, sign_off: "Again" }),
  ).toMatchObject({ ok: false, error: { code: "already_closed" } });

  const sealed = await fay.value("finance.sealed_period", { run_id: second });
  expect(sealed).toMatchObject({ seal: closed.seal, is_right: true });
  expect(createHash("sha256").update(sealed.text).digest("hex")).toBe(closed.seal);
  expect((await fay.value("finance.closed_periods", {})).periods).toMatchObject([
    { run_id: second, is_intact: true, closed_by: "Moe", sign_off: "All well" },
  ]);
  expect(await fay.case(caseOf("eve"))).toMatchObject({ status: "open", times_carried: 1 });
  const { data } = await backend.rpc("verify_ledger");
  expect((data as { problems: unknown[] }).problems).toEqual([]);
}, 120_000);

test("an event that names nobody waits, is released for the user a person names, and only once", async () => {
  const session = checkoutSession({
    name: "stray",
    userId: "nobody-known",
    packId: pack.pack_id,
    tokens: pack.tokens,
    amountMinor: pack.price_minor,
    currency: pack.currency,
    created: Math.floor(Date.now() / 1000),
  });
  const sent = event("checkout.session.completed", session);
  const { data } = await backend.rpc("process_stripe_event", { p_event: sent });
  expect((data as { status: string }).status).toBe("quarantined");
  const { waiting, events, packs } = await fay.value("finance.stripe_events", {});
  expect(waiting).toBe(1);
  expect(packs.map((each) => each.pack_id)).toContain(pack.pack_id);
  const before = await balanceOf("eve");
  const release = {
    command_id: randomUUID(),
    event_id: events[0]?.event_id ?? "",
    reason: "The customer wrote from this address",
    user_id: "u_eve",
    pack_id: null,
    tokens: null,
  };
  proxy.loseReplies("console_release_stripe_event", 1);
  const released = await fay.value("finance.release_event", release);
  expect(released.effects).toMatchObject([{ tokens: pack.tokens, user_id: "u_eve" }]);
  expect(await balanceOf("eve")).toBe(before + pack.tokens);
  expect(
    await moe.call("finance.dismiss_event", {
      command_id: randomUUID(),
      event_id: release.event_id,
      reason: "Nobody knows",
    }),
  ).toMatchObject({ ok: false, error: { code: "not_found" } });
});

test.each([
  ["no reason to close", "finance.close_period", { command_id: randomUUID(), run_id: "x", sign_off: " " }],
  [
    "too many at once",
    "finance.post",
    { difference_ids: Array.from({ length: 1001 }, (_, n) => `X/${n}`), versions: {} },
  ],
  [
    "an act that is none",
    "finance.act",
    { command_id: randomUUID(), difference_ids: ["x"], versions: {}, action: "delete", reason: null },
  ],
  [
    "a correction with a foreign key",
    "finance.act",
    {
      command_id: randomUUID(),
      difference_ids: ["x"],
      versions: {},
      action: "propose",
      reason: null,
      correction: { lot_id: 1 },
    },
  ],
  [
    "half a token",
    "finance.act",
    {
      command_id: randomUUID(),
      difference_ids: ["x"],
      versions: {},
      action: "propose",
      reason: null,
      correction: { tokens: 0.5 },
    },
  ],
] as const)("input that is %s is refused before the project is asked", async (_what, name, input) => {
  expect(await fay.call(name, input as never)).toMatchObject({
    ok: false,
    error: { code: "invalid_argument" },
  });
});

test("offline the desk reads what it read before, and nothing waits to be sent", async () => {
  const before = await fay.cases();
  await proxy.stop();
  const read = await fay.page();
  expect(read.cases).toEqual(before);
  expect(read.as_of).not.toBeNull();
  const [first] = before;
  const refused = await fay.act("note", [first as FinanceCase], "While nobody hears");
  expect(refused).toMatchObject({ ok: false, error: { code: "needs_connection" } });
  expect(await fay.value("sync.intents", {})).toEqual([]);
}, 60_000);
