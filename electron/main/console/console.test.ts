/** The console against a real local project, through a line that can be cut. */
import { spawn } from "node:child_process";
import { createHash, randomUUID } from "node:crypto";
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { createServer as createHttpServer, type RequestListener } from "node:http";
import { createServer, connect, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createClient, type SupabaseClient } from "@supabase/supabase-js";
import { SignJWT } from "jose";
import { afterAll, afterEach, beforeAll, expect, onTestFinished, test } from "vitest";
import type {
  ConnectionState,
  Intent,
  OperationInput,
  OperationName,
  OperationOutput,
  Reply,
  UsageEvent,
} from "../../../shared/contract/index.ts";
import { type LocalProject, startLocalProject } from "../../../local-project/index.ts";
import { defaultResourcesDir, readMigrations } from "../../../local-project/migrations.ts";
import { shortestOfFive } from "../../../tests/support/console-calls.ts";
import { freePort } from "../../../tests/support/free-port.ts";
import type { Console, ConsoleOptions } from "./console.ts";
import { createConsole, openConsoles } from "./consoles.ts";

const folder = mkdtempSync(join(tmpdir(), "console-core-"));
const migrations = readMigrations().map(({ version, name }) => `${version}_${name}`);
const logged: string[] = [];
const answered: string[] = [];
const consoles: Console[] = [];
let project: LocalProject;
let backend: SupabaseClient;

/** A line to the project that can be cut, or left open without an answer. */
interface Line {
  readonly port: number;
  cut(): Promise<void>;
  mend(): Promise<void>;
  /** Takes connections and says nothing. */
  silence(): void;
  close(): Promise<void>;
}

async function openLine(targetPort: number): Promise<Line> {
  const sockets = new Set<Socket>();
  let isSilent = false;
  let server: Server;
  const port = await freePort();
  const listen = (): Promise<void> => {
    server = createServer((socket) => {
      sockets.add(socket);
      socket.on("error", () => {});
      socket.once("close", () => sockets.delete(socket));
      if (isSilent) return;
      const far = connect(targetPort, "127.0.0.1");
      far.on("error", () => socket.destroy());
      socket.once("close", () => far.destroy());
      far.once("close", () => socket.destroy());
      socket.pipe(far).pipe(socket);
    });
    return new Promise((resolve) => {
      server.listen(port, "127.0.0.1", resolve);
    });
  };
  const cut = (): Promise<void> =>
    new Promise((resolve) => {
      server.close(() => resolve());
      for (const socket of sockets) socket.destroy();
    });
  await listen();
  return {
    port,
    cut,
    mend: () => {
      isSilent = false;
      return listen();
    },
    silence: () => {
      isSilent = true;
      for (const socket of sockets) socket.destroy();
    },
    close: cut,
  };
}

const optionsOf = (change: Partial<ConsoleOptions>): ConsoleOptions => ({
  dataDir: mkdtempSync(join(folder, "data-")),
  host: "browser",
  version: "0.0.0",
  migrations,
  startLocalProject: null,
  log: (line) => logged.push(line),
  openKeychain: async () => ({
    kind: "none",
    note: "none here",
    get: async () => null,
    set: async () => false,
    remove: async () => {},
  }),
  ...change,
});

function open(change: Partial<ConsoleOptions> = {}): Console {
  const opened = createConsole(optionsOf(change));
  if (!opened.ok) throw new Error(opened.error.message);
  consoles.push(opened.value);
  opened.value.start();
  return opened.value;
}

async function call<N extends OperationName>(
  console_: Console,
  name: N,
  input: OperationInput<N>,
): Promise<Reply<OperationOutput<N>>> {
  const result = await console_.dispatcher.call(name, input);
  answered.push(JSON.stringify(result));
  return result as Reply<OperationOutput<N>>;
}

async function value<N extends OperationName>(console_: Console, name: N, input: OperationInput<N>) {
  const result = await call(console_, name, input);
  if (!result.ok)
    throw new Error(`${name}: ${result.error.code}: ${result.error.message} ${result.error.details}`);
  return result.value;
}

const addInput = (port: number, key = project.serviceRoleKey) => ({
  name: "Test",
  url: `http://127.0.0.1:${port}`,
  key,
  is_production: false,
});
const projectPort = (): number => Number(new URL(project.url).port);

async function untilStatus(
  console_: Console,
  status: ConnectionState["status"],
  timeout = 20_000,
): Promise<void> {
  await expect
    .poll(async () => (await value(console_, "connection.state", {})).status, { timeout })
    .toBe(status);
}

async function connected(port = projectPort(), change: Partial<ConsoleOptions> = {}): Promise<Console> {
  const console_ = open(change);
  await value(console_, "connection.add", addInput(port));
  await untilStatus(console_, "live");
  return console_;
}

function followFeed(console_: Console): UsageEvent[] {
  const seen: UsageEvent[] = [];
  console_.dispatcher.follow("feed", { filter: {}, after_event_id: null }, (item) => {
    seen.push(...(item as { events: UsageEvent[] }).events);
  });
  return seen;
}

async function makeUser(tokens = 100_000): Promise<string> {
  const userId = `user-${randomUUID()}`;
  const made = await backend.rpc("upsert_account", {
    p_user_id: userId,
    p_display_name: `Name of ${userId}`,
  });
  if (made.error) throw new Error(made.error.message);
  await backend.rpc("update_user_token_balance", {
    p_user_id: userId,
    p_amount: tokens,
    p_transaction_type: "bonus",
  });
  return userId;
}

const authorize = async (userId: string, message: string) => {
  const { data, error } = await backend.rpc("authorize_usage", {
    p_request_id: randomUUID(),
    p_user_id: userId,
    p_model: "gpt-4o-mini",
    p_estimated_tokens: 10,
    p_message: message,
  });
  if (error) throw new Error(error.message);
  return data as { decision: string; reason: string | null; http_status: number };
};

beforeAll(async () => {
  project = await startLocalProject({ dataDir: join(folder, "project") });
  backend = createClient(project.url, project.serviceRoleKey, { auth: { persistSession: false } });
}, 120_000);
afterEach(async () => {
  await Promise.all(consoles.splice(0).map((console_) => console_.close()));
});
afterAll(async () => {
  await project.stop();
  rmSync(folder, { recursive: true, force: true });
}, 120_000);

test("a spammer shows in the feed within a second, is blocked by the operator, and let go again", async () => {
  const console_ = await connected();
  const seen = followFeed(console_);
  let user = "";
  const seenAfterMs = await shortestOfFive(1_500, async () => {
    user = await makeUser();
    let last = await authorize(user, "buy now");
    for (let n = 1; n < 15; n++) last = await authorize(user, "buy now");
    const stoppedAt = Date.now();
    expect(last).toMatchObject({ decision: "block", reason: "spam_identical" });
    const isSeen = () => seen.some((event) => event.user_id === user && event.reason === "spam_identical");
    await expect.poll(isSeen, { interval: 20 }).toBe(true);
    return Date.now() - stoppedAt;
  });
  expect(seenAfterMs).toBeLessThan(1_500);

  const command = randomUUID();
  const block = { command_id: command, user_id: user, reason: "spamming", until: null };
  const blocked = await value(console_, "users.block", block);
  expect(blocked.intent.status).toBe("acknowledged");
  expect(blocked.account).toMatchObject({ user_id: user, is_blocked: true, block_reason: "spamming" });
  expect(await authorize(user, "hello")).toMatchObject({ reason: "user_blocked", http_status: 403 });
  // The same command again does nothing and answers the same.
  expect((await value(console_, "users.block", block)).account).toMatchObject({ is_blocked: true });
  expect(await call(console_, "users.block", { ...block, reason: "something else" })).toMatchObject({
    ok: false,
    error: { code: "idempotency_conflict" },
  });

  await value(console_, "users.unblock", { command_id: randomUUID(), user_id: user, reason: "forgiven" });
  expect(await authorize(user, "hello again")).toMatchObject({ decision: "allow" });
  const { audit } = await value(console_, "users.get", { user_id: user });
  expect(audit.filter(({ command_id }) => command_id === command)).toHaveLength(1);
});

test("every desk's reading answers records of the contract", async () => {
  const console_ = await connected();
  const user = await makeUser();
  await authorize(user, "a first message");
  const search = {
    query: user,
    filter: "all",
    plan_id: null,
    sort: "name",
    descending: false,
    cursor: null,
    limit: 10,
  } as const;
  await expect
    .poll(
      async () => (await value(console_, "users.search", search)).accounts.map(({ user_id }) => user_id),
      { timeout: 60_000 },
    )
    .toEqual([user]);
  const { steps } = await value(console_, "watch.overview", { minutes: 30, filter: {}, stretch: null });
  // From the whole five minutes before.
  expect(steps.length).toBeGreaterThanOrEqual(30);
  expect(steps.length).toBeLessThan(35);
  const { calls } = await value(console_, "watch.calls", {
    filter: { user_id: user },
    stretch: null,
    before_decision_id: null,
    limit: 10,
  });
  expect(calls[0]).toMatchObject({ user_id: user, kind: "authorized" });
  const { decisions } = await value(console_, "users.decisions", {
    user_id: user,
    before_id: null,
    limit: 10,
  });
  const decisionId = decisions[0]?.decision_id ?? 0;
  expect(await value(console_, "watch.explain", { decision_id: decisionId })).toMatchObject({
    user_id: user,
  });
  const { entries } = await value(console_, "users.ledger", {
    user_id: user,
    filter: { type: null, text: null, from: null, to: null },
    before_id: null,
    limit: 10,
  });
  expect(entries[0]).toMatchObject({ transaction_type: "bonus", amount: 100_000 });
  await value(console_, "users.usage", { user_id: user, from: "2026-01-01", to: "2026-12-31" });
  expect((await value(console_, "rules.list", {})).rules.length).toBeGreaterThan(3);
  expect((await value(console_, "search.everything", { query: user }))[0]).toMatchObject({
    kind: "user",
    id: user,
  });
  const about = await value(console_, "settings.about", {});
  expect(about.migrations).toEqual(migrations);
});

test("reading what does not exist answers not_found in words", async () => {
  const console_ = await connected();
  expect(await call(console_, "users.get", { user_id: "nobody" })).toMatchObject({
    ok: false,
    error: { code: "unknown_user" },
  });
  expect(await call(console_, "watch.explain", { decision_id: 9_999_999 })).toMatchObject({
    ok: false,
    error: { code: "not_found" },
  });
  const odd = await call(console_, "users.get", { user_id: "\u202e<script>alert(1)</script>" });
  expect(odd).toMatchObject({ ok: false, error: { code: "unknown_user" } });
});

async function otherKey(claims: Record<string, unknown>): Promise<string> {
  return new SignJWT(claims)
    .setProtectedHeader({ alg: "HS256" })
    .sign(new TextEncoder().encode("another secret of at least 32 bytes"));
}

test("each wrong key and address is refused with its own reason, and nothing is kept of it", async () => {
  const console_ = open();
  const url = project.url;
  const refused = async (input: OperationInput<"connection.check">): Promise<string> => {
    const answer = await call(console_, "connection.check", input);
    return answer.ok ? "accepted" : answer.error.code;
  };
  expect(await refused({ url, key: project.serviceRoleKey })).toBe("accepted");
  expect(await refused({ url, key: project.secretKey })).toBe("accepted");
  expect(await refused({ url, key: project.publishableKey })).toBe("publishable_key");
  expect(await refused({ url, key: project.anonKey })).toBe("wrong_role");
  expect(await refused({ url, key: await otherKey({ role: "service_role", exp: 2_000_000_000 }) })).toBe(
    "wrong_key",
  );
  expect(await refused({ url, key: "sb_secret_of_another_project_0123456789" })).toBe("wrong_key");
  expect(await refused({ url: "http://127.0.0.1:1", key: project.serviceRoleKey })).toBe("offline");
  expect(await refused({ url: "https://no-such-host.invalid", key: project.serviceRoleKey })).toMatch(
    /unknown_host|offline/,
  );
  expect(await refused({ url: url.replace("http:", "https:"), key: project.serviceRoleKey })).toBe("tls");
  expect(await call(console_, "connection.add", addInput(projectPort(), project.anonKey))).toMatchObject({
    ok: false,
  });
  expect(await value(console_, "connection.profiles", {})).toEqual([]);
});

async function serving(listener: RequestListener, work: (url: string) => Promise<void>): Promise<void> {
  const server = createHttpServer(listener);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    await work(`http://127.0.0.1:${(server.address() as { port: number }).port}`);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

test("an address that answers but is no project is recognised, and a redirect never carries the key on", async () => {
  const console_ = open();
  const key = project.serviceRoleKey;
  const page: RequestListener = (_request, response) =>
    response.writeHead(200, { "content-type": "text/html" }).end("<html>");
  await serving(page, async (url) => {
    expect(await call(console_, "connection.check", { url, key })).toMatchObject({
      ok: false,
      error: { code: "not_a_project" },
    });
  });
  const missing: RequestListener = (_request, response) => response.writeHead(404).end("<html>no</html>");
  await serving(missing, async (url) => {
    expect(await call(console_, "connection.check", { url, key })).toMatchObject({
      ok: false,
      error: { code: "not_a_project" },
    });
  });
  const headersSeen: unknown[] = [];
  const target: RequestListener = (request, response) => {
    headersSeen.push(request.headers);
    response.end("{}");
  };
  await serving(target, async (targetUrl) => {
    const redirect: RequestListener = (_request, response) =>
      response.writeHead(307, { location: targetUrl }).end();
    await serving(redirect, async (url) => {
      expect(await call(console_, "connection.check", { url, key })).toMatchObject({
        ok: false,
        error: { code: "not_a_project" },
      });
    });
  });
  expect(headersSeen).toEqual([]);
  const paused: RequestListener = (_request, response) => response.writeHead(540).end("project paused");
  await serving(paused, async (url) => {
    expect(await call(console_, "connection.check", { url, key })).toMatchObject({
      ok: false,
      error: { code: "unavailable" },
    });
  });
});

test("a project that does not answer is given up after a time", async () => {
  const line = await openLine(projectPort());
  line.silence();
  const answer = await call(open(), "connection.check", {
    url: `http://127.0.0.1:${line.port}`,
    key: project.serviceRoleKey,
  });
  expect(answer).toMatchObject({ ok: false, error: { code: "timeout" } });
  await line.close();
});

test("a project with older migrations is refused naming them, one with newer asks for a newer console", async () => {
  const older = open({ migrations: [...migrations, "29990101000000_governance_future"] });
  const refused = await call(older, "connection.add", addInput(projectPort()));
  expect(refused).toMatchObject({ ok: false, error: { code: "migrations_missing" } });
  expect(refused.ok ? "" : refused.error.details).toContain("29990101000000_governance_future");
  const newer = open({ migrations: migrations.slice(0, -1) });
  expect(await call(newer, "connection.add", addInput(projectPort()))).toMatchObject({
    ok: false,
    error: { code: "project_newer" },
  });
});

test("a project without the console's functions is one without migrations", async () => {
  // A project that has the schema and the calls, but not the console's functions: as one of another product would.
  const resourcesDir = join(folder, "older");
  mkdirSync(join(resourcesDir, "migrations"), { recursive: true });
  cpSync(join(defaultResourcesDir, "presets"), join(resourcesDir, "presets"), { recursive: true });
  for (const file of readdirSync(join(defaultResourcesDir, "migrations"))) {
    const sql = readFileSync(join(defaultResourcesDir, "migrations", file), "utf8");
    writeFileSync(
      join(resourcesDir, "migrations", file),
      `${sql}\ndo $$ declare f record; begin for f in select oid::regprocedure as name from pg_catalog.pg_proc
         where pronamespace = 'public'::regnamespace and proname like 'console\\_%' loop
         execute format('drop function %s', f.name); end loop; end $$;`,
    );
  }
  const old = await startLocalProject({
    dataDir: join(folder, "old-project"),
    resourcesDir,
    cacheDir: join(folder, "cache"),
  });
  try {
    const answer = await call(open(), "connection.check", { url: old.url, key: old.serviceRoleKey });
    expect(answer).toMatchObject({ ok: true, value: { project: null, missing_migrations: migrations } });
    const added = await call(open(), "connection.add", {
      ...addInput(0, old.serviceRoleKey),
      url: old.url,
    });
    expect(added).toMatchObject({ ok: false, error: { code: "migrations_missing" } });
    expect(added.ok ? "" : added.error.advice).toContain("npm run migrate");
  } finally {
    await old.stop();
  }
}, 120_000);

test("no event is lost or shown twice when the line is cut in the middle of traffic", async () => {
  const line = await openLine(projectPort());
  const console_ = await connected(line.port);
  const seen = followFeed(console_);
  const user = await makeUser();
  const mine = (): number[] => seen.filter(({ user_id }) => user_id === user).map(({ event_id }) => event_id);
  for (let n = 0; n < 10; n++) await authorize(user, `before ${n}`);
  await expect.poll(() => mine().length, { timeout: 60_000 }).toBe(10);
  await line.cut();
  for (let n = 0; n < 10; n++) await authorize(user, `meanwhile ${n}`);
  await untilStatus(console_, "offline");
  await line.mend();
  for (let n = 0; n < 10; n++) await authorize(user, `after ${n}`);
  await untilStatus(console_, "live");
  await expect.poll(() => mine().length, { timeout: 60_000 }).toBe(30);
  await new Promise((resolve) => setTimeout(resolve, 500));
  expect(new Set(mine()).size).toBe(30);
  await line.close();
}, 90_000);

test("a console that starts again goes on where it stopped, and shows what happened while it was closed", async () => {
  const dataDir = mkdtempSync(join(folder, "data-"));
  const first = await connected(projectPort(), { dataDir });
  const before = followFeed(first);
  const user = await makeUser();
  await authorize(user, "seen by the first");
  await expect
    .poll(() => before.filter(({ user_id }) => user_id === user).length, { timeout: 60_000 })
    .toBe(1);
  await Promise.all(consoles.splice(0).map((one) => one.close()));
  await authorize(user, "while it was closed");
  const second = open({ dataDir });
  const after = followFeed(second);
  expect(after.filter(({ user_id }) => user_id === user)).toHaveLength(1);
  // No keychain here: the key was kept for the first session alone, and that is said.
  await untilStatus(second, "refused");
  expect((await value(second, "connection.state", {})).failure).toMatchObject({ code: "missing_key" });
  await value(second, "connection.add", addInput(projectPort()));
  await expect
    .poll(() => new Set(after.filter(({ user_id }) => user_id === user).map((e) => e.event_id)).size, {
      timeout: 60_000,
    })
    .toBe(2);
});

test("offline, what was seen stays readable with its age, and acts wait and are sent once", async () => {
  const line = await openLine(projectPort());
  const console_ = await connected(line.port);
  const user = await makeUser();
  const seen = followFeed(console_);
  await authorize(user, "long ".repeat(600));
  await authorize(user, "before the cut");
  await expect.poll(() => seen.filter(({ user_id }) => user_id === user).length, { timeout: 60_000 }).toBe(2);
  // What only a replay reads is kept, and goes to no screen.
  expect(seen.some((event) => "facts" in event)).toBe(false);
  await value(console_, "users.get", { user_id: user });
  await value(console_, "rules.list", {});
  await line.cut();
  await untilStatus(console_, "offline");

  const kept = await value(console_, "users.get", { user_id: user });
  expect(kept.account.user_id).toBe(user);
  expect(Date.parse(kept.as_of ?? "")).toBeGreaterThan(Date.now() - 60_000);
  expect((await value(console_, "rules.list", {})).rules.length).toBeGreaterThan(3);
  expect(await call(console_, "users.get", { user_id: "never seen" })).toMatchObject({
    ok: false,
    error: { code: "offline" },
  });

  const past = await value(console_, "watch.calls", {
    filter: { user_id: user },
    stretch: null,
    before_decision_id: null,
    limit: 10,
  });
  expect(past.calls.map(({ user_id }) => user_id)).toEqual([user, user]);
  expect(await value(console_, "search.everything", { query: "large_mess" })).toMatchObject([
    { kind: "rule", id: "large_message" },
  ]);

  const command = randomUUID();
  const acted = await value(console_, "users.block", {
    command_id: command,
    user_id: user,
    reason: "offline case",
    until: null,
  });
  expect(acted).toMatchObject({ intent: { status: "pending" }, account: null });
  const { rules } = await value(console_, "rules.list", {});
  const large = rules.find(({ rule_name }) => rule_name === "large_message");
  await value(console_, "rules.set_mode", {
    command_id: randomUUID(),
    rule_name: "large_message",
    mode: "shadow",
    expected_version: large?.version ?? null,
  });
  // What waits to be sent shows as done, however often it is read.
  expect((await value(console_, "users.get", { user_id: user })).account).toMatchObject({
    is_blocked: true,
    block_reason: "offline case",
  });
  expect((await value(console_, "rules.list", {})).rules).toContainEqual(
    expect.objectContaining({ rule_name: "large_message", mode: "shadow" }),
  );
  // What the change will do, by the calls that the last sync kept: the long message passes without its warning.
  const predicted = await value(console_, "rules.predict", { rule_name: "large_message" });
  expect(predicted).toMatchObject({ more_stopped: 0 });
  expect(predicted.calls).toBeGreaterThanOrEqual(2);
  expect(predicted.more_warned).toBe(-predicted.matched);
  expect(predicted.matched).toBeGreaterThan(0);
  await line.mend();
  await expect
    .poll(
      async () =>
        (await value(console_, "sync.intents", {})).find((one) => one.command_id === command)?.status,
      { timeout: 60_000 },
    )
    .toBe("acknowledged");
  const { account, audit } = await value(console_, "users.get", { user_id: user });
  expect(account.is_blocked).toBe(true);
  expect(audit.filter(({ command_id }) => command_id === command)).toHaveLength(1);
  await line.close();
}, 120_000);

test("what somebody else decided meanwhile becomes a conflict, and the person's choice settles it", async () => {
  const line = await openLine(projectPort());
  let clock = 0;
  const console_ = await connected(line.port, { now: () => new Date(Date.now() + clock) });
  const [wantsMine, wantsTheirs] = [await makeUser(), await makeUser()];
  for (const user of [wantsMine, wantsTheirs]) await value(console_, "users.get", { user_id: user });
  await line.cut();
  await untilStatus(console_, "offline");
  for (const user of [wantsMine, wantsTheirs]) {
    await value(console_, "users.block", {
      command_id: randomUUID(),
      user_id: user,
      reason: "my reason",
      until: null,
    });
    const theirs = {
      p_command_id: randomUUID(),
      p_user_id: user,
      p_reason: "their reason",
      p_operator: "somebody else",
      p_until: null,
    };
    expect((await backend.rpc("block_user", theirs)).error).toBeNull();
  }
  clock = 60_000;
  await line.mend();
  const conflicts = async (): Promise<Intent[]> =>
    (await value(console_, "sync.intents", {})).filter(({ status }) => status === "conflict");
  await expect.poll(async () => (await conflicts()).length, { timeout: 60_000 }).toBe(2);
  const [conflict] = await conflicts();
  expect(conflict).toMatchObject({
    base: { is_blocked: false },
    mine: { is_blocked: true, block_reason: "my reason" },
    theirs: { is_blocked: true, block_reason: "their reason" },
    failure: { code: "version_conflict" },
  });
  for (const { command_id, subject } of await conflicts()) {
    await value(console_, "sync.resolve", { command_id, choice: subject === wantsMine ? "mine" : "theirs" });
  }
  await expect
    .poll(async () => (await value(console_, "users.get", { user_id: wantsMine })).account.block_reason, {
      timeout: 60_000,
    })
    .toBe("my reason");
  expect((await value(console_, "users.get", { user_id: wantsTheirs })).account.block_reason).toBe(
    "their reason",
  );
  expect(await conflicts()).toEqual([]);
  await line.close();
}, 120_000);

test("acts queued offline follow each other, and what a colleague changed of something else is no conflict", async () => {
  const line = await openLine(projectPort());
  const console_ = await connected(line.port);
  const user = await makeUser();
  await value(console_, "users.get", { user_id: user });
  await line.cut();
  await untilStatus(console_, "offline");
  for (const operation of ["users.flag", "users.unflag", "users.flag"] as const)
    await value(console_, operation, {
      command_id: randomUUID(),
      user_id: user,
      reason: `${operation} offline`,
    });
  const theirs = {
    p_command_id: randomUUID(),
    p_user_id: user,
    p_reason: "theirs",
    p_operator: "somebody else",
  };
  expect((await backend.rpc("block_user", { ...theirs, p_until: null })).error).toBeNull();
  await line.mend();
  const unsettled = async (): Promise<Intent[]> =>
    (await value(console_, "sync.intents", {})).filter(
      ({ subject, status }) => subject === user && status !== "acknowledged",
    );
  await expect.poll(unsettled, { timeout: 60_000 }).toEqual([]);
  const { account, audit } = await value(console_, "users.get", { user_id: user });
  expect(account).toMatchObject({ is_flagged: true, is_blocked: true, block_reason: "theirs" });
  expect(audit.map(({ action }) => action)).toEqual(["flag_user", "unflag_user", "flag_user", "block_user"]);
  await line.close();
}, 120_000);

test("a rule switched on an old version is a conflict with their rule, and mine goes on top of it when chosen", async () => {
  const console_ = await connected();
  const { rules } = await value(console_, "rules.list", {});
  const rule = rules.find(({ rule_name }) => rule_name === "large_message") ?? rules[0];
  if (!rule) throw new Error("The preset has no rules.");
  const { rule_name, rule_type, conditions, action, priority, applies_to } = rule;
  const theirs = await backend.rpc("save_rule", {
    p_command_id: randomUUID(),
    p_rule: {
      rule_name,
      rule_type,
      conditions,
      action,
      priority: priority + 1,
      applies_to,
      mode: rule.mode,
      is_active: true,
    },
    p_operator: "somebody else",
  });
  expect(theirs.error).toBeNull();
  const acted = await value(console_, "rules.set_mode", {
    command_id: randomUUID(),
    rule_name,
    mode: "shadow",
    expected_version: rule.version,
  });
  expect(acted.intent).toMatchObject({
    status: "conflict",
    theirs: { priority: priority + 1, version: rule.version + 1 },
  });
  await value(console_, "sync.resolve", { command_id: acted.intent.command_id, choice: "mine" });
  const now = (await value(console_, "rules.list", {})).rules.find((one) => one.rule_name === rule_name);
  expect(now).toMatchObject({ mode: "shadow", priority: priority + 1, version: rule.version + 2 });
});

test.each([
  ["the first comes back first", 0],
  ["the second comes back first", 1],
])(
  "two consoles change one rule offline, and %s: whoever comes later is shown it, and nothing is overwritten",
  async (_name, winner) => {
    const rule_name = `shared_${randomUUID().slice(0, 8)}`;
    const rule = {
      rule_name,
      conditions: { all: [{ fact: "messages_today", op: ">", value: 500 }] },
      action: { warn: { message: "Many messages." } },
      priority: 300,
      mode: "shadow",
    };
    const made = await backend.rpc("save_rule", { p_command_id: randomUUID(), p_rule: rule });
    expect(made.error).toBeNull();
    const lines = [await openLine(projectPort()), await openLine(projectPort())];
    const desks = await Promise.all(lines.map((line) => connected(line.port)));
    await Promise.all(desks.map((desk) => value(desk, "rules.list", {})));
    await Promise.all(lines.map((line) => line.cut()));
    await Promise.all(desks.map((desk) => untilStatus(desk, "offline")));
    const drafts = [
      { ...rule, conditions: { all: [{ fact: "messages_today", op: ">", value: 400 }] }, priority: 310 },
      { ...rule, conditions: { all: [{ fact: "messages_today", op: ">", value: 700 }] }, mode: "enforce" },
    ];
    for (const [at, desk] of desks.entries()) {
      const saved = await value(desk, "rules.save", {
        command_id: randomUUID(),
        rule_name,
        expected_version: 1,
        rule: drafts[at] ?? rule,
        reason: `By desk ${at}`,
      });
      expect(saved.intent.status).toBe("pending");
    }
    const intentOf = async (at: number): Promise<Intent | undefined> =>
      (await value(desks[at] as Console, "sync.intents", {})).find(({ subject }) => subject === rule_name);
    const loser = 1 - winner;
    await lines[winner]?.mend();
    await expect.poll(async () => (await intentOf(winner))?.status, { timeout: 60_000 }).toBe("acknowledged");
    await lines[loser]?.mend();
    await expect.poll(async () => (await intentOf(loser))?.status, { timeout: 60_000 }).toBe("conflict");
    const conflict = await intentOf(loser);
    expect(conflict).toMatchObject({
      base: { conditions: rule.conditions, version: 1 },
      mine: { conditions: drafts[loser]?.conditions },
      theirs: { conditions: drafts[winner]?.conditions, version: 2 },
    });
    // Mine on top of theirs: what only they changed stays as they left it.
    await value(desks[loser] as Console, "sync.resolve", {
      command_id: conflict?.command_id ?? "",
      choice: "mine",
    });
    const listed = async () =>
      (await value(desks[0] as Console, "rules.list", {})).rules.find((each) => each.rule_name === rule_name);
    await expect.poll(async () => (await listed())?.version, { timeout: 60_000 }).toBe(3);
    expect(await listed()).toMatchObject({
      conditions: drafts[loser]?.conditions,
      priority: 310,
      mode: "enforce",
    });
    const { changes } = await value(desks[0] as Console, "rules.changes", { rule_name, before: null });
    expect(changes.map(({ reason }) => reason)).toEqual([`By desk ${loser}`, `By desk ${winner}`, null]);
    await Promise.all(lines.map((line) => line.close()));
  },
  180_000,
);

test("rules go out as a file and come back as they are; a draft is read, replayed and cancelled", async () => {
  const console_ = await connected();
  const { text } = await value(console_, "rules.export", { rule_name: null });
  const steps = await value(console_, "rules.read_file", { text });
  expect(steps.length).toBeGreaterThan(5);
  expect(new Set(steps.map((step) => step.kind))).toEqual(new Set(["same"]));
  for (const hostile of ["", "a: &x [*x]", "[1, 2", "rules: 5", `- ${"[".repeat(2000)}`]) {
    const read = await call(console_, "rules.read_file", { text: hostile });
    const isRefused = !read.ok || read.value.every((step) => step.kind === "wrong");
    expect(isRefused, hostile.slice(0, 20)).toBe(true);
  }
  const leaf = { fact: "messages_today", op: ">", value: 1 };
  const rule = { rule_name: "draft", conditions: { all: [leaf] }, action: { block: { reason: "draft" } } };

  const user = await makeUser();
  for (const message of ["one", "two", "three"]) await authorize(user, message);
  const input = {
    rule,
    since: new Date(Date.now() - 3_600_000).toISOString(),
    until: new Date(Date.now() + 60_000).toISOString(),
    paying_plans: [],
    path: null,
  };
  const started = await value(console_, "rules.replay_start", input);
  const last = { status: "running", newly: 0, points: 0 };
  console_.dispatcher.follow("replay", { run_id: started.run_id }, (item) => {
    const run = item as OperationOutput<"rules.replay_start">;
    last.status = run.status;
    last.newly = run.report?.newly_stopped ?? 0;
    last.points = run.curve?.points.length ?? 0;
  });
  await expect.poll(() => last.status, { timeout: 60_000 }).toBe("finished");
  expect(last.newly).toBeGreaterThanOrEqual(2);
  expect(last.points).toBeGreaterThanOrEqual(2);
  // Another past has to be read; a cancelled replay ends, and the next one is not hindered.
  const second = await value(console_, "rules.replay_start", { ...input, until: new Date().toISOString() });
  const cancelled = await value(console_, "rules.replay_cancel", { run_id: second.run_id });
  expect(["cancelled", "finished"]).toContain(cancelled.status);
  const third = await value(console_, "rules.replay_start", input);
  console_.dispatcher.follow("replay", { run_id: third.run_id }, (item) => {
    last.status = `third ${(item as OperationOutput<"rules.replay_start">).status}`;
  });
  await expect.poll(() => last.status, { timeout: 60_000 }).toBe("third finished");
}, 180_000);

test("a project that does not answer is not shown as live, and its loss is reported", async () => {
  const line = await openLine(projectPort());
  const console_ = await connected(line.port);
  const status = async (): Promise<string> => (await value(console_, "connection.state", {})).status;
  const notices: string[] = [];
  console_.dispatcher.follow("notices", {}, (item) => {
    notices.push((item as { readonly title: string }).title);
  });
  expect(await status()).toBe("live");
  line.silence();
  await value(console_, "connection.retry", {});
  await expect.poll(status, { timeout: 10_000 }).toBe("catching_up");
  await line.cut();
  await expect.poll(status, { timeout: 30_000 }).toBe("offline");
  expect(notices).toContain("Connection lost");
  await line.mend();
  await expect.poll(status, { timeout: 60_000 }).toBe("live");
  await line.close();
}, 120_000);

test("killed between writing an act and its answer, the next start sends it, and it is done once", async () => {
  const dataDir = mkdtempSync(join(folder, "data-"));
  const line = await openLine(projectPort());
  const first = await connected(line.port, { dataDir });
  const user = await makeUser();
  await value(first, "users.get", { user_id: user });
  await Promise.all(consoles.splice(0).map((one) => one.close()));

  const command = randomUUID();
  line.silence();
  // A console of its own process, whose send hangs on the silent line, killed as by a power cut.
  const script = `
    import { createConsole } from ${JSON.stringify(join(import.meta.dirname, "consoles.ts"))};
    const opened = createConsole({ dataDir: ${JSON.stringify(dataDir)}, host: "browser", version: "0", migrations: ${JSON.stringify(migrations)},
      startLocalProject: null, log: () => {},
      openKeychain: async () => ({ kind: "keytar", note: null, get: async () => process.env.TEST_KEY, set: async () => true, remove: async () => {} }) });
    const { dispatcher } = opened.value;
    opened.value.start();
    dispatcher.follow("intents", {}, (intents) => intents.some((one) => one.command_id === ${JSON.stringify(command)}) && console.log("written"));
    void dispatcher.call("users.block", { command_id: ${JSON.stringify(command)}, user_id: ${JSON.stringify(user)}, reason: "before the crash", until: null });
    setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ["--input-type=module-typescript", "-e", script], {
    stdio: ["ignore", "pipe", "inherit"],
    env: { ...process.env, TEST_KEY: project.serviceRoleKey },
  });
  onTestFinished(() => void child.kill("SIGKILL"));
  await new Promise((resolve) => child.stdout.once("data", resolve));
  const gone = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGKILL");
  await gone;

  await line.cut();
  await line.mend();
  const second = open({ dataDir });
  expect((await value(second, "sync.intents", {}))[0]).toMatchObject({
    command_id: command,
    status: "pending",
  });
  await value(second, "connection.add", addInput(line.port));
  await expect
    .poll(
      async () => (await value(second, "sync.intents", {})).find((one) => one.command_id === command)?.status,
      { timeout: 60_000 },
    )
    .toBe("acknowledged");
  const { account, audit } = await value(second, "users.get", { user_id: user });
  expect(account.block_reason).toBe("before the crash");
  expect(audit.filter(({ command_id }) => command_id === command)).toHaveLength(1);
  await line.close();
}, 120_000);

test("an act that waited too long is marked expired and not sent", async () => {
  const line = await openLine(projectPort());
  let clock = 0;
  const console_ = await connected(line.port, { now: () => new Date(Date.now() + clock) });
  const user = await makeUser();
  await line.cut();
  await untilStatus(console_, "offline");
  const command = randomUUID();
  await value(console_, "users.flag", { command_id: command, user_id: user, reason: "look at this" });
  clock = 25 * 3_600_000;
  await line.mend();
  await expect
    .poll(async () => (await value(console_, "sync.intents", {})).find((one) => one.command_id === command), {
      timeout: 60_000,
    })
    .toMatchObject({ status: "expired", failure: { code: "expired" } });
  expect((await value(console_, "users.get", { user_id: user })).account.is_flagged).toBe(false);
  await line.close();
}, 120_000);

test("an act the project refuses is a failure with its reason, and leaves nothing waiting", async () => {
  const console_ = await connected();
  const refused = await call(console_, "users.flag", {
    command_id: randomUUID(),
    user_id: "nobody",
    reason: "looks odd",
  });
  expect(refused).toMatchObject({ ok: false, error: { code: "unknown_user" } });
  const past = {
    command_id: randomUUID(),
    user_id: "nobody",
    reason: "looks odd",
    until: "2020-01-01T00:00:00Z",
  };
  expect(await call(console_, "users.block", past)).toMatchObject({
    ok: false,
    error: { code: "invalid_argument" },
  });
  expect((await value(console_, "sync.intents", {})).filter(({ status }) => status === "pending")).toEqual(
    [],
  );
});

test("sample traffic never starts on a project that a person connected", async () => {
  let started = 0;
  const console_ = await connected(projectPort(), {
    startLocalProject: async () => ({
      url: project.url,
      serviceRoleKey: project.serviceRoleKey,
      ended: new Promise(() => {}),
      stop: async () => {},
      sampleTraffic: {
        start: () => void started++,
        stop: () => {},
        status: () => ({ running: true, calls: 0, filling: null }),
      },
    }),
  });
  const startedForLocal = started;
  expect(await call(console_, "connection.sample_traffic", { running: true })).toMatchObject({
    ok: false,
    error: { code: "not_local" },
  });
  const state = await value(console_, "connection.state", {});
  expect(state.profile?.kind).toBe("supabase");
  expect(state.sample_traffic).toBeNull();
  expect(started).toBe(startedForLocal);
});

test("a local project that cannot start is said, and another try starts it", async () => {
  let attempts = 0;
  const console_ = open({
    startLocalProject: async () => {
      if (attempts++ === 0) throw new Error("The data folder is in use.");
      return {
        url: project.url,
        serviceRoleKey: project.serviceRoleKey,
        ended: new Promise(() => {}),
        stop: async () => {},
        sampleTraffic: null,
      };
    },
  });
  await untilStatus(console_, "refused");
  expect((await value(console_, "connection.state", {})).failure?.message).toContain(
    "The data folder is in use.",
  );
  await value(console_, "connection.retry", {});
  await untilStatus(console_, "live");
});

test("a local project that ends by itself is started again; one that keeps ending waits for a person", async () => {
  let starts = 0;
  let isWell = false;
  const console_ = open({
    startLocalProject: async () => {
      starts += 1;
      return {
        url: project.url,
        serviceRoleKey: project.serviceRoleKey,
        ended: isWell ? new Promise<null>(() => {}) : Promise.resolve(new Error("It ended with 7.")),
        stop: async () => {},
        sampleTraffic: null,
      };
    },
  });
  await untilStatus(console_, "refused");
  expect(starts).toBe(4);
  expect((await value(console_, "connection.state", {})).failure).toMatchObject({
    code: "local_project_failed",
    details: "It ended with 7.",
  });
  isWell = true;
  await value(console_, "connection.retry", {});
  await untilStatus(console_, "live");
  expect(starts).toBe(5);
});

test("a local project that was deleted and created again is read from its own beginning", async () => {
  const dataDir = mkdtempSync(join(folder, "data-"));
  const local = (serviceRoleKey: string, url: string) => async () => ({
    url,
    serviceRoleKey,
    ended: new Promise<null>(() => {}),
    stop: async () => {},
    sampleTraffic: null,
  });
  const first = open({ dataDir, startLocalProject: local(project.serviceRoleKey, project.url) });
  const before = followFeed(first);
  await untilStatus(first, "live");
  await authorize(await makeUser(), "in the first project");
  await expect.poll(() => before.length, { timeout: 60_000 }).toBeGreaterThan(0);
  await Promise.all(consoles.splice(0).map((one) => one.close()));

  const anew = await startLocalProject({ dataDir: join(folder, "anew") });
  try {
    const second = open({ dataDir, startLocalProject: local(anew.serviceRoleKey, anew.url) });
    const after: UsageEvent[] = [];
    await untilStatus(second, "live");
    second.dispatcher.follow("feed", { filter: {}, after_event_id: null }, (item) => {
      after.push(...(item as { events: UsageEvent[] }).events);
    });
    expect(after).toEqual([]);
    const client = createClient(anew.url, anew.serviceRoleKey, { auth: { persistSession: false } });
    await client.rpc("upsert_account", { p_user_id: "new" });
    await client.rpc("authorize_usage", { p_request_id: "r1", p_user_id: "new", p_model: "gpt-4o-mini" });
    await expect.poll(() => after.map(({ user_id }) => user_id), { timeout: 60_000 }).toEqual(["new"]);
    await Promise.all(consoles.splice(0).map((one) => one.close()));
  } finally {
    await anew.stop();
  }
}, 120_000);

test("with a keychain the key outlives the console, the project is chosen again by itself, and removing it forgets the key", async () => {
  const entries = new Map<string, string>();
  const withKeychain: Partial<ConsoleOptions> = {
    dataDir: mkdtempSync(join(folder, "data-")),
    openKeychain: async () => ({
      kind: "keytar",
      note: null,
      get: async (account) => entries.get(account) ?? null,
      set: async (account, secret) => entries.set(account, secret).has(account),
      remove: async (account) => void entries.delete(account),
    }),
  };
  const first = await connected(projectPort(), withKeychain);
  expect((await value(first, "connection.profiles", {}))[0]).toMatchObject({
    kind: "supabase",
    key_storage: "keychain",
  });
  await Promise.all(consoles.splice(0).map((one) => one.close()));

  const second = open(withKeychain);
  await untilStatus(second, "live");
  const [profile] = await value(second, "connection.profiles", {});
  await value(second, "connection.remove", { profile_id: profile?.profile_id ?? "" });
  expect(entries.size).toBe(0);
  expect(await value(second, "connection.profiles", {})).toEqual([]);
  expect(await call(second, "users.get", { user_id: "anyone" })).toMatchObject({ ok: false });
});

test("choosing another project shows nothing of the one before", async () => {
  const other = await startLocalProject({ dataDir: join(folder, "other") });
  try {
    const console_ = await connected();
    const [first] = await value(console_, "connection.profiles", {});
    await authorize(await makeUser(), "in the first");
    await value(console_, "connection.add", addInput(Number(new URL(other.url).port), other.serviceRoleKey));
    await untilStatus(console_, "live");
    const batches: { profile_id: string | null; events: UsageEvent[] }[] = [];
    console_.dispatcher.follow("feed", { filter: {}, after_event_id: null }, (item) =>
      batches.push(item as never),
    );
    expect(batches.flatMap(({ events }) => events)).toEqual([]);
    await value(console_, "connection.select", { profile_id: first?.profile_id ?? "" });
    await untilStatus(console_, "live");
    expect(batches.at(-1)?.profile_id).toBe(first?.profile_id);
    expect(await call(console_, "connection.select", { profile_id: "none" })).toMatchObject({
      ok: false,
      error: { code: "not_found" },
    });
    await Promise.all(consoles.splice(0).map((one) => one.close()));
  } finally {
    await other.stop();
  }
}, 120_000);

test("two projects are open at once, each in a console of its own, over one store", async () => {
  const lines = [await openLine(projectPort()), await openLine(projectPort())] as const;
  const dataDir = mkdtempSync(join(folder, "data-"));
  const opened = openConsoles(optionsOf({ dataDir }));
  if (!opened.ok) throw new Error(opened.error.message);
  const all = opened.value;
  const shown: string[] = [];
  all.onShow((profileId) => shown.push(profileId));
  try {
    const one = all.open();
    if (!one) throw new Error("no console");
    const first = await value(one, "connection.add", { ...addInput(lines[0].port), name: "First" });
    await untilStatus(one, "live");
    // Added while another console looks: it is opened there.
    const second = await value(one, "connection.add", { ...addInput(lines[1].port), name: "Second" });
    await value(one, "connection.select", { profile_id: first.profile_id });
    const two = all.open(second.profile_id);
    if (!two) throw new Error("no console");
    expect(all.open(second.profile_id)).toBe(two);
    expect(all.open("nobody")).toBeNull();
    expect(all.projectAt(`127.0.0.1:${lines[1].port}`)?.profile_id).toBe(second.profile_id);
    await untilStatus(one, "live");
    await untilStatus(two, "live");

    // What is done in one stays in one.
    const user = await makeUser();
    await lines[0].cut();
    await untilStatus(one, "offline");
    await value(one, "users.flag", { command_id: randomUUID(), user_id: user, reason: "In the first" });
    expect(await value(one, "sync.intents", {})).toHaveLength(1);
    expect(await value(two, "sync.intents", {})).toEqual([]);
    expect((await value(two, "connection.state", {})).status).toBe("live");
    await lines[0].mend();
    await untilStatus(one, "live");

    // One project is in one console alone.
    await value(one, "connection.select", { profile_id: second.profile_id });
    await value(one, "connection.open_window", { profile_id: second.profile_id });
    expect(shown).toEqual([second.profile_id, second.profile_id]);
    expect(one.project()?.profile_id).toBe(first.profile_id);
    expect(await call(one, "connection.open_window", { profile_id: "nobody" })).toMatchObject({ ok: false });

    // What is changed in one is seen in the other: settings, a name, a key, and that a project is forgotten.
    const heard: unknown[] = [];
    two.dispatcher.follow("settings", {}, (item) => heard.push(item));
    await value(one, "settings.set", { theme: "dark" });
    expect(heard.at(-1)).toMatchObject({ theme: "dark" });
    await value(one, "connection.edit", { profile_id: second.profile_id, name: "Renamed", color: "red" });
    expect(two.project()).toMatchObject({ name: "Renamed", color: "red" });
    await value(one, "connection.edit", { profile_id: second.profile_id, is_read_only: true });
    await untilStatus(two, "live");
    expect(
      await call(two, "users.flag", { command_id: randomUUID(), user_id: user, reason: "Not from here" }),
    ).toMatchObject({
      ok: false,
      error: { code: "read_only" },
    });
    await value(one, "connection.remove", { profile_id: second.profile_id });
    expect(two.project()).toBeNull();
    expect(await value(two, "connection.profiles", {})).toHaveLength(1);

    await all.release(two);
    expect(all.list()).toEqual([one]);
    await all.release(one);
    expect(all.list()).toEqual([one]);
  } finally {
    await Promise.all([all.close(), all.close()]);
    await Promise.all(lines.map((line) => line.close()));
  }
}, 60_000);

test("a file of this machine is taken in whole; what is none of Stripe's exports says why", async () => {
  const dataDir = mkdtempSync(join(folder, "data-"));
  const opened = openConsoles(optionsOf({ dataDir }));
  if (!opened.ok) throw new Error(opened.error.message);
  const all = opened.value;
  try {
    const console_ = all.open();
    if (!console_) throw new Error("no console");
    const brought = (path: string): Promise<OperationOutput<"finance.brought_file">> =>
      value(console_, "finance.brought_file", { upload_id: all.bring(path) });
    const path = join(folder, "Pay ments.CSV");
    const text = "id,Amount\n".repeat(40_000);
    writeFileSync(path, text);
    const id = all.bring(path);
    await expect
      .poll(() => value(console_, "finance.brought_file", { upload_id: id }))
      .toMatchObject({
        file_name: "Pay ments.CSV",
        failure: null,
        upload: { received_bytes: text.length, sha256: createHash("sha256").update(text).digest("hex") },
      });
    writeFileSync(join(folder, "notes.txt"), "x");
    writeFileSync(join(folder, "empty.csv"), "");
    mkdirSync(join(folder, "folder.csv"));
    for (const [name, code] of [
      ["notes.txt", "bad_input"],
      ["empty.csv", "bad_input"],
      ["folder.csv", "bad_input"],
      ["nowhere.csv", "unreadable"],
    ] as const)
      expect(await brought(join(folder, name)), name).toMatchObject({
        file_name: name,
        upload: null,
        failure: { code, message: expect.stringContaining(name) },
      });
    expect(await call(console_, "finance.brought_file", { upload_id: "1" })).toMatchObject({
      ok: false,
      error: { code: "not_found" },
    });
  } finally {
    await all.close();
  }
});

test("settings are kept, and a zone that does not exist is refused", async () => {
  const dataDir = mkdtempSync(join(folder, "data-"));
  const console_ = open({ dataDir });
  await value(console_, "settings.set", { operator: "Ada", theme: "dark" });
  expect(await call(console_, "settings.set", { time_zone: "Mars/Olympus" })).toMatchObject({ ok: false });
  await Promise.all(consoles.splice(0).map((one) => one.close()));
  expect(await value(open({ dataDir }), "settings.get", {})).toMatchObject({
    operator: "Ada",
    theme: "dark",
  });
});

// Last: looks at everything the tests above wrote, said and answered.
test("the key is in no answer, no log line and no file", () => {
  const signature = project.serviceRoleKey.split(".")[2] ?? "";
  expect(signature.length).toBeGreaterThan(20);
  expect(logged.join("\n")).not.toContain(signature);
  expect(answered.join("\n")).not.toContain(signature);
  const search = (path: string): void => {
    for (const name of readdirSync(path)) {
      const full = join(path, name);
      if (statSync(full).isDirectory()) search(full);
      else expect(readFileSync(full).includes(signature), full).toBe(false);
    }
  };
  for (const name of readdirSync(folder).filter((one) => one.startsWith("data-"))) search(join(folder, name));
});
