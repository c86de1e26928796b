import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer, request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import WebSocket from "ws";
import {
  closeCodes,
  createWebSocketClient,
  exchange,
  maxMessageBytes,
  type StreamItem,
  sessionProtocolPrefix,
  subprotocol,
  type UsageEvent,
} from "../../shared/contract/index.ts";
import { createDispatcher, type Handlers, type Sources } from "../main/console/dispatch.ts";
import { type BrowserHost, PortError, startBrowserHost } from "./index.ts";

const folder = mkdtempSync(join(tmpdir(), "console-host-"));
const rendererDir = join(folder, "renderer");
const logged: string[] = [];
let host: BrowserHost;

function event(eventId: number): UsageEvent {
  return {
    event_id: eventId,
    kind: "authorized",
    at: "2026-11-22T10:00:00Z",
    request_id: `r${eventId}`,
    decision_id: null,
    user_id: "u",
    display_name: null,
    plan_id: null,
    decision: "allow",
    reason: null,
    requested_model: null,
    model: null,
    task_type: null,
    tokens: 1,
    input_tokens: null,
    output_tokens: null,
    cost_micros: null,
    currency: null,
  };
}

/** A feed that gives one event when the test asks for it, and resumes after the event it is given. */
let feedLength = 3;
const feedFollowers = new Set<() => void>();

// The transports are what is tested here: these handlers answer what the contract allows and no more.
const handlers = {
  "settings.get": () => ({
    ok: true,
    value: { operator: "Ada", theme: "dark", language: "system", notifications: true, time_zone: "UTC" },
  }),
  "connection.profiles": () => {
    throw new Error("broke with sb_secret_abcdefgh12345 inside");
  },
  "sync.intents": () => ({ ok: true, value: [{ wrong: "shape" }] }),
} as unknown as Handlers;
const sources = {
  feed: ({ after_event_id }: { after_event_id: number | null }, emit: (item: StreamItem<"feed">) => void) => {
    let sent = after_event_id ?? 0;
    const push = (): void => {
      if (sent >= feedLength) return;
      emit({
        profile_id: null,
        events: Array.from({ length: feedLength - sent }, (_, index) => event(sent + index + 1)),
        caught_up: true,
      });
      sent = feedLength;
    };
    push();
    feedFollowers.add(push);
    return () => feedFollowers.delete(push);
  },
} as unknown as Sources;

const dispatcher = createDispatcher(handlers, sources, (line) => logged.push(line));

beforeAll(async () => {
  mkdirSync(join(rendererDir, "assets"), { recursive: true });
  writeFileSync(join(rendererDir, "index.html"), "<!doctype html><title>console</title>");
  writeFileSync(join(rendererDir, "assets/a.js"), "1;");
  writeFileSync(join(folder, "secret.json"), "{}");
  symlinkSync(join(folder, "secret.json"), join(rendererDir, "link.json"));
  host = await startBrowserHost({ dispatcher, rendererDir, port: 0, log: (line) => logged.push(line) });
});
afterAll(async () => {
  await host.close();
  rmSync(folder, { recursive: true, force: true });
});

const tokenOf = (link: string): string => new URL(link).hash.replace("#token=", "");

/** fetch() sets Host and Origin itself; this sends the headers it is given. */
function send(
  path: string,
  options: { method?: string; headers?: Record<string, string>; body?: string } = {},
): Promise<{ status: number; headers: Record<string, unknown>; text: string }> {
  return new Promise((resolve, reject) => {
    const outgoing = request(
      { host: "127.0.0.1", port: host.port, path, method: options.method ?? "GET", headers: options.headers },
      (incoming) => {
        let text = "";
        incoming.on("data", (chunk) => (text += chunk));
        incoming.on("end", () =>
          resolve({ status: incoming.statusCode ?? 0, headers: incoming.headers, text }),
        );
      },
    );
    outgoing.once("error", reject);
    outgoing.end(options.body);
  });
}

function trade(token: unknown, headers: Record<string, string> = {}) {
  return send("/session", {
    method: "POST",
    headers: { "content-type": "application/json", origin: host.origin, ...headers },
    body: JSON.stringify({ token }),
  });
}

async function openSession(): Promise<string> {
  const answer = await trade(tokenOf(host.createLink()));
  return (JSON.parse(answer.text) as { session: string }).session;
}

/** Opens a socket as given and answers how it ended, or that it stayed open. */
function socketFate(
  session: string,
  headers: Record<string, string> = {},
  path = "/console",
): Promise<{ status?: number; code?: number; isOpen?: boolean }> {
  return new Promise((resolve) => {
    const socket = new WebSocket(
      `ws://127.0.0.1:${host.port}${path}`,
      [subprotocol, sessionProtocolPrefix + session],
      {
        headers: { origin: host.origin, ...headers },
      },
    );
    socket.once("unexpected-response", (_request, response) => {
      resolve({ status: response.statusCode ?? 0 });
      socket.terminate();
    });
    socket.once("close", (code) => resolve({ code }));
    socket.once("open", () => setTimeout(() => (resolve({ isOpen: true }), socket.terminate()), 500));
    socket.once("error", () => {});
  });
}

const ownWebSocket = globalThis.WebSocket;
afterAll(() => {
  globalThis.WebSocket = ownWebSocket;
});

/** A client as the page has it, with the browser's Origin header, which ws leaves to the caller. */
function connect(session: string) {
  const origin = host.origin;
  class PageWebSocket extends WebSocket {
    constructor(url: string, protocols: string[]) {
      super(url, protocols, { headers: { origin } });
      pageSockets.push(this);
    }
  }
  globalThis.WebSocket = PageWebSocket as unknown as typeof globalThis.WebSocket;
  return createWebSocketClient({ origin, session, connectTimeoutMs: 2_000 });
}
const pageSockets: WebSocket[] = [];

test("a one-time token opens one session, and the second use is refused", async () => {
  const token = tokenOf(host.createLink());
  expect((await trade(token)).status).toBe(200);
  const second = await trade(token);
  expect(second.status).toBe(401);
  expect(second.text).toContain("used before");
});

test("of two requests with one token at the same moment one wins", async () => {
  const token = tokenOf(host.createLink());
  const answers = await Promise.all([trade(token), trade(token), trade(token)]);
  expect(answers.map(({ status }) => status).toSorted((a, b) => a - b)).toEqual([200, 401, 401]);
});

test("guessed, missing, oversized and malformed tokens are refused without a session", async () => {
  expect((await trade("guess")).status).toBe(401);
  expect((await trade(undefined)).status).toBe(400);
  expect((await trade({ $ne: "" })).status).toBe(400);
  expect((await trade("x".repeat(5_000))).status).toBe(400);
  const form = await trade("guess", { "content-type": "text/plain" });
  expect(form.status).toBe(415);
});

test("another site cannot trade a token, even a right one, and does not use it up", async () => {
  const token = tokenOf(host.createLink());
  expect((await trade(token, { origin: "https://evil.example" })).status).toBe(403);
  expect((await trade(token, { origin: "null" })).status).toBe(403);
  expect((await trade(token)).status).toBe(200);
});

test("a name that was rebound to this machine is not answered", async () => {
  expect((await send("/", { headers: { host: "evil.example" } })).status).toBe(421);
  expect((await send("/", { headers: { host: `evil.example:${host.port}` } })).status).toBe(421);
  const session = await openSession();
  expect(await socketFate(session, { host: `evil.example:${host.port}` })).toEqual({ status: 403 });
});

test("a socket needs the page's origin and a known session", async () => {
  const session = await openSession();
  expect(await socketFate(session)).toEqual({ isOpen: true });
  expect(await socketFate(session, { origin: "https://evil.example" })).toEqual({ status: 403 });
  expect(await socketFate(session, { origin: "" })).toEqual({ status: 403 });
  expect(await socketFate(session, {}, "/other")).toEqual({ status: 404 });
  expect(await socketFate("unknown")).toEqual({ code: closeCodes.unauthorized });
});

test("files come with the security headers, screens' addresses give the page, nothing outside the folder is served", async () => {
  const page = await send("/rules/daily_limit?x=1");
  expect(page.status).toBe(200);
  expect(page.text).toContain("<title>console");
  expect(page.headers["content-security-policy"]).toContain("default-src 'none'");
  expect(page.headers["content-security-policy"]).toContain("script-src 'self';");
  expect(page.headers["content-security-policy"]).toContain("frame-ancestors 'none'");
  expect(page.headers["x-content-type-options"]).toBe("nosniff");
  expect(page.headers["cache-control"]).toBe("no-store");
  expect((await send("/assets/a.js")).headers["cache-control"]).toContain("immutable");
  for (const path of [
    "/../secret.json",
    "/%2e%2e/secret.json",
    "/..%2fsecret.json",
    "/link.json",
    "/assets/%00.js",
    "/%",
  ]) {
    expect((await send(path)).status, path).toBe(404);
  }
  expect((await send("/", { method: "DELETE" })).status).toBe(405);
});

test("a port in use is said in one sentence", async () => {
  const taken = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => taken.once("listening", resolve));
  const { port } = taken.address() as { port: number };
  const attempt = startBrowserHost({ dispatcher, rendererDir, port, log: () => {} });
  await expect(attempt).rejects.toThrow(PortError);
  await expect(attempt).rejects.toThrow(`Port ${port} is in use.`);
  taken.close();
});

test("a call over the socket is answered, and two pages may share a session", async () => {
  const session = await openSession();
  for (const client of [connect(session), connect(session)]) {
    const result = await client.call("settings.get", {});
    expect(result).toMatchObject({ ok: true, value: { operator: "Ada" } });
  }
});

test("unknown operations and wrong shapes are failures, exceptions become an id without the secret", async () => {
  const client = connect(await openSession());
  expect(await client.call("nope" as "settings.get", {})).toMatchObject({
    ok: false,
    error: { code: "unknown_operation" },
  });
  expect(await client.call("constructor" as "settings.get", {})).toMatchObject({
    ok: false,
    error: { code: "unknown_operation" },
  });
  expect(await client.call("settings.get", { extra: 1 } as never)).toMatchObject({
    ok: false,
    error: { code: "invalid_argument" },
  });
  const broken = await client.call("connection.profiles", {});
  expect(broken).toMatchObject({ ok: false, error: { code: "internal" } });
  const badOutput = await client.call("sync.intents", {});
  expect(badOutput).toMatchObject({ ok: false, error: { code: "internal" } });
  const id = /Error (\w+) in/.exec(broken.ok ? "" : (broken.error.details ?? ""))?.[1];
  expect(id).toBeTruthy();
  expect(logged.some((line) => line.includes(id as string))).toBe(true);
  expect(JSON.stringify([broken, logged])).not.toContain("abcdefgh12345");
});

test("an oversize message is refused before it is sent, and cut off where it is sent all the same", async () => {
  const session = await openSession();
  const client = connect(session);
  const big = "x".repeat(maxMessageBytes);
  expect(await client.call("users.get", { user_id: big })).toMatchObject({
    ok: false,
    error: { code: "too_large" },
  });
  const code = await new Promise<number>((resolve) => {
    const socket = new WebSocket(
      `ws://127.0.0.1:${host.port}/console`,
      [subprotocol, sessionProtocolPrefix + session],
      { headers: { origin: host.origin } },
    );
    socket.once("open", () => socket.send(big + big));
    socket.once("close", resolve);
    socket.once("error", () => {});
  });
  expect(code).toBe(1009);
});

test("a frame that is none closes the socket with a reason, and the host goes on", async () => {
  const session = await openSession();
  for (const bad of [
    "{",
    "[]",
    '{"type":"call"}',
    '{"type":"call","id":1,"name":"settings.get","input":{},"more":1}',
  ]) {
    const code = await new Promise<number>((resolve) => {
      const socket = new WebSocket(
        `ws://127.0.0.1:${host.port}/console`,
        [subprotocol, sessionProtocolPrefix + session],
        { headers: { origin: host.origin } },
      );
      socket.once("open", () => socket.send(bad));
      socket.once("close", resolve);
    });
    expect(code).toBe(closeCodes.badFrame);
  }
  expect(await connect(session).call("settings.get", {})).toMatchObject({ ok: true });
});

test("after the socket breaks, the feed goes on where it was: nothing twice, nothing lost", async () => {
  feedLength = 3;
  const client = connect(await openSession());
  const seen: number[] = [];
  const statuses: string[] = [];
  client.onStatus((status) => statuses.push(status));
  client.follow("feed", { filter: {}, after_event_id: null }, ({ events }) =>
    seen.push(...events.map(({ event_id }) => event_id)),
  );
  await expect.poll(() => seen).toEqual([1, 2, 3]);
  pageSockets.at(-1)?.terminate();
  feedLength = 6;
  await expect.poll(() => seen, { timeout: 60_000 }).toEqual([1, 2, 3, 4, 5, 6]);
  expect(statuses).toContain("lost");
  expect(statuses.at(-1)).toBe("open");
});

test("a page whose session is unknown is refused as unauthorized and stops asking", async () => {
  const client = connect("not-a-session");
  expect(await client.call("settings.get", {})).toMatchObject({ ok: false, error: { code: "unauthorized" } });
  expect(await exchange(host.origin, "used")).toBeNull();
});

test("sessions and links end: after 12 hours without use, and a session after seven days however much it is used", async () => {
  const [usual, hour] = [host, 3_600_000];
  let clock = Date.now();
  host = await startBrowserHost({
    dispatcher,
    rendererDir,
    port: 0,
    log: () => {},
    now: () => clock,
  });
  try {
    const unused = tokenOf(host.createLink());
    const session = await openSession();
    clock += 11 * hour;
    expect(await socketFate(session)).toEqual({ isOpen: true });
    clock += 11 * hour;
    expect(await socketFate(session)).toEqual({ isOpen: true });
    expect(await trade(unused)).toMatchObject({ status: 401 });
    clock += 12 * hour;
    expect(await socketFate(session)).toEqual({ code: closeCodes.unauthorized });
    // A page that stays open keeps its session for seven days, and is then closed.
    const used = await openSession();
    const page = new WebSocket(
      `ws://127.0.0.1:${host.port}/console`,
      [subprotocol, sessionProtocolPrefix + used],
      { headers: { origin: host.origin } },
    );
    await new Promise((resolve) => page.once("open", resolve));
    const closed = new Promise((resolve) => page.once("close", resolve));
    for (let hours = 0; hours < 7 * 24; hours += 8) {
      clock += 8 * hour;
      host.endOldSessions();
    }
    expect(await closed).toBe(closeCodes.unauthorized);
    expect(await socketFate(used)).toEqual({ code: closeCodes.unauthorized });
  } finally {
    await host.close();
    host = usual;
  }
});
