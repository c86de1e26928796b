/**
 * A person chooses another project while work of more than one call is under way: what is left of it never goes to the
 * other project, and goes on when the first one is chosen again. Both projects here are one real project behind two
 * gates, so that the other would take whatever came to it.
 */
import { randomUUID } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { request } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { createClient, type SupabaseClient } from "@supabase/supabase-js";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import type {
  OperationInput,
  OperationName,
  OperationOutput,
  Reply,
} from "../../../shared/contract/index.ts";
import { type LocalProject, startLocalProject } from "../../../local-project/index.ts";
import { readMigrations } from "../../../local-project/migrations.ts";
import { createTestServer } from "../../../tests/support/server.ts";
import type { Console } from "./console.ts";
import { createConsole } from "./consoles.ts";

/** A way to the project that notes each call, and keeps the answers of one function back. */
interface Gate {
  readonly port: number;
  readonly calls: { readonly name: string; readonly body: string }[];
  /** Keeps the answers of a function back, or loses them. */
  hold(name: string, isLost?: boolean): void;
  release(): void;
  close(): Promise<void>;
}

async function openGate(target: string): Promise<Gate> {
  const calls: { name: string; body: string }[] = [];
  let held: { name: string; isLost: boolean } | null = null;
  let waiting: (() => void)[] = [];
  const server = createTestServer(async (incoming, answer) => {
    const name = incoming.url?.split("/").at(-1)?.split("?")[0] ?? "";
    const body = await text(incoming);
    calls.push({ name, body });
    const { method, headers } = incoming;
    const onward = request(`${target}${incoming.url}`, { method, headers }, (response) => {
      const pass = (): void => {
        answer.writeHead(response.statusCode ?? 500, response.headers);
        response.pipe(answer);
      };
      if (held?.name !== name) pass();
      else if (held.isLost) answer.destroy();
      else waiting.push(pass);
    });
    onward.on("error", () => answer.destroy());
    onward.end(body);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    port: (server.address() as AddressInfo).port,
    calls,
    hold: (name, isLost = false) => void (held = { name, isLost }),
    release() {
      held = null;
      for (const pass of waiting) pass();
      waiting = [];
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

const folder = mkdtempSync(join(tmpdir(), "another-project-"));
let project: LocalProject;
let backend: SupabaseClient;
let gates: readonly [Gate, Gate];
let console_: Console;
let profiles: readonly [string, string];

const call = async <N extends OperationName>(name: N, input: OperationInput<N>) =>
  (await console_.dispatcher.call(name, input)) as Reply<OperationOutput<N>>;

async function value<N extends OperationName>(name: N, input: OperationInput<N>) {
  const result = await call(name, input);
  if (!result.ok) throw new Error(`${name}: ${JSON.stringify(result.error)}`);
  return result.value;
}

async function choose(index: 0 | 1): Promise<void> {
  await value("connection.select", { profile_id: profiles[index] });
  await expect.poll(async () => (await value("connection.state", {})).status).toBe("live");
}

/** Begins in the first project, and chooses the other one while the answer of a function is awaited. */
async function leaveDuring<T>(held: string, begin: () => Promise<T>, isLost = false): Promise<T> {
  const [first] = gates;
  first.hold(held, isLost);
  const before = first.calls.filter(({ name }) => name === held).length;
  const begun = begin();
  await expect.poll(() => first.calls.filter(({ name }) => name === held).length).toBeGreaterThan(before);
  await choose(1);
  first.release();
  return begun;
}

const cameToTheOther = (mark: RegExp): string[] =>
  gates[1].calls.map(({ name, body }) => `${name} ${body}`).filter((each) => mark.test(each));

async function makeUser(tokens = 1_000): Promise<string> {
  const id = `user-${randomUUID()}`;
  await backend.rpc("upsert_account", { p_user_id: id, p_display_name: id });
  const { error } = await backend.rpc("update_user_token_balance", {
    p_user_id: id,
    p_amount: tokens,
    p_transaction_type: "bonus",
  });
  expect(error).toBeNull();
  return id;
}

beforeAll(async () => {
  project = await startLocalProject({ dataDir: join(folder, "project") });
  backend = createClient(project.url, project.serviceRoleKey, { auth: { persistSession: false } });
  gates = [await openGate(project.url), await openGate(project.url)];
  const opened = createConsole({
    dataDir: mkdtempSync(join(folder, "data-")),
    host: "browser",
    version: "0.0.0",
    migrations: readMigrations().map(({ version, name }) => `${version}_${name}`),
    startLocalProject: null,
    log: () => undefined,
    openKeychain: async () => ({
      kind: "none",
      note: null,
      get: async () => null,
      set: async () => false,
      remove: async () => undefined,
    }),
  });
  if (!opened.ok) throw new Error(opened.error.message);
  console_ = opened.value;
  console_.start();
  const add = async (gate: Gate, name: string): Promise<string> => {
    const { port } = gate;
    const input = {
      name,
      url: `http://127.0.0.1:${port}`,
      key: project.serviceRoleKey,
      is_production: false,
    };
    return (await value("connection.add", input)).profile_id;
  };
  profiles = [await add(gates[0], "First"), await add(gates[1], "Other")];
  await makeUser();
}, 120_000);
beforeEach(() => choose(0));
afterAll(async () => {
  await console_.close();
  await Promise.all(gates.map((gate) => gate.close()));
  await project.stop();
  rmSync(folder, { recursive: true, force: true });
}, 120_000);

test("a reconciliation reads one project's ledger, or fails", async () => {
  const csv =
    "id,Created date (UTC),Amount,Amount Refunded,Currency,Captured,Fee,Status,PaymentIntent ID\n" +
    "ch_1,2026-10-05 12:00:00,9.00,0.00,gbp,true,0.30,Paid,pi_1\n";
  const { upload_id: id } = await value("finance.open_upload", {
    file_name: "p.csv",
    size_bytes: csv.length,
  });
  const base64 = Buffer.from(csv).toString("base64");
  await value("finance.upload_chunk", { upload_id: id, offset_bytes: 0, base64 });
  const { run_id: runId } = await leaveDuring("console_project_info", () =>
    value("finance.start_run", { upload_ids: [id], from: "2026-10-01", to: "2026-10-31" }),
  );
  const ended = async () => (await value("finance.report", { run_id: runId })).run;
  await expect.poll(async () => (await ended()).status).not.toBe("running");
  expect(cameToTheOther(/console_ledger_purchases_since|console_known_payments/)).toEqual([]);
  // A run that is kept here belongs to its own project.
  expect(await call("finance.keep_run", { run_id: runId })).toMatchObject({
    ok: false,
    error: { code: "other_project" },
  });
});

test("a replay judges one project's calls", async () => {
  const since = "2026-11-02T03:04:05.678Z";
  const rule = {
    rule_name: "replayed",
    rule_type: "custom",
    conditions: { all: [{ fact: "messages_today", op: ">", value: 5 }] },
    action: { block: { reason: "too_many" } },
    priority: 80,
    mode: "enforce",
    applies_to: {},
  };
  const asked = { rule, since, until: new Date().toISOString(), paying_plans: [], path: null };
  const run = await leaveDuring("console_prices", () => value("rules.replay_start", asked));
  const states: string[] = [];
  console_.dispatcher.follow("replay", { run_id: run.run_id }, (item) =>
    states.push((item as { status: string }).status),
  );
  await expect.poll(() => states.at(-1)).toBe("failed");
  expect(cameToTheOther(new RegExp(`"since":"${since}"`))).toEqual([]);
});

test("an act whose record is looked up waits in its own project's outbox", async () => {
  const [rule] = (await value("rules.list", {})).rules;
  if (!rule) throw new Error("The preset has no rule.");
  const command = randomUUID();
  const mode = rule.mode === "shadow" ? ("enforce" as const) : ("shadow" as const);
  // Another version than the one that is kept here.
  const input = { command_id: command, rule_name: rule.rule_name, expected_version: rule.version + 1, mode };
  await backend.rpc("save_rule", {
    p_command_id: randomUUID(),
    p_rule: { ...rule, priority: rule.priority + 1 },
    p_expected_version: rule.version,
    p_operator: "a colleague",
  });
  const acted = await leaveDuring("list_rules", () => value("rules.set_mode", { ...input, until: null }));
  expect(acted.intent.status).toBe("pending");
  expect(cameToTheOther(new RegExp(command))).toEqual([]);
  expect(await value("sync.intents", {})).toEqual([]);
  await choose(0);
  await expect
    .poll(async () => (await value("sync.intents", {})).find(({ command_id: id }) => id === command)?.status)
    .toBe("acknowledged");
});

test("a command whose answer was lost is looked up in its own project", async () => {
  const user = await makeUser();
  const command = randomUUID();
  const given = await leaveDuring(
    "console_act",
    () =>
      call("users.correct", {
        command_id: command,
        user_id: user,
        correction: { kind: "give_tokens", tokens: 500, lot_kind: "promotional", expires_at: null },
        reason: "Goodwill",
        expected_version: null,
      } as OperationInput<"users.correct">),
    true,
  );
  expect(given).toMatchObject({ ok: false, error: { code: "in_doubt" } });
  expect(cameToTheOther(new RegExp(command))).toEqual([]);
  const notices: string[] = [];
  console_.dispatcher.follow("notices", {}, (item) => notices.push((item as { title: string }).title));
  await choose(0);
  await expect.poll(() => notices).toContain("Done");
});

test("an act on many users goes on when its project is chosen again", async () => {
  const users = [await makeUser(), await makeUser()];
  const started = await leaveDuring("console_start_bulk_act", () =>
    value("bulk.start", {
      command_id: randomUUID(),
      user_ids: users,
      correction: { kind: "flag_user" },
      reason: "Looked at",
      expected_changes: 2,
      expected_tokens: 0,
    }),
  );
  await choose(0);
  const status = async () =>
    (await value("bulk.get", { bulk_id: started.bulk_id, status: null, after_id: null, limit: 10 })).bulk
      .status;
  await expect.poll(status).toBe("done");
  expect(cameToTheOther(/console_step_bulk_act/)).toEqual([]);
});

test("a project that is removed while it answers slowly leaves the one that was chosen meanwhile", async () => {
  const [first] = gates;
  first.hold("usage_events_since");
  const seen = first.calls.length;
  await backend.rpc("authorize_usage", {
    p_request_id: randomUUID(),
    p_user_id: "u",
    p_model: "gpt-4o-mini",
  });
  await expect
    .poll(() => first.calls.slice(seen).some(({ name }) => name === "usage_events_since"))
    .toBe(true);
  const removed = value("connection.remove", { profile_id: profiles[0] });
  await expect.poll(async () => (await value("connection.state", {})).profile).toBeNull();
  await choose(1);
  first.release();
  await removed;
  const state = await value("connection.state", {});
  expect(state).toMatchObject({ status: "live", profile: { profile_id: profiles[1] } });
});
