/**
 * The console in a browser: trades the one-time token of the link for a session, keeps a socket open, and goes on
 * after a loss: followed streams are followed again, the feed from the last event seen.
 *
 * The session lies in localStorage, not in a cookie: cookies go to every port of 127.0.0.1, also to other people's
 * servers; storage belongs to this port alone.
 */
import type { ConsoleClient, TransportStatus } from "./client.ts";
import type { Failure, Reply } from "./basics.ts";
import type { StreamItem } from "./operations.ts";
import {
  type ClientFrame,
  closeCodes,
  maxMessageBytes,
  type ServerFrame,
  sessionProtocolPrefix,
  subprotocol,
} from "./wire.ts";

interface WebSocketClientOptions {
  /** By default the page's own address. */
  readonly origin?: string;
  /** By default it is read from storage, or traded for the one-time token in the address. */
  readonly session?: string;
  /** How long a call waits for the console, e.g. while it is being restarted. */
  readonly connectTimeoutMs?: number;
}

const storageKey = "console-session";
const firstRetryMs = 200;
const longestRetryMs = 5_000;

const unreachable: Failure = {
  code: "console_unreachable",
  message: "The console does not answer.",
  advice: "See that it is still running, then try again.",
  details: null,
};
const connectionLost: Failure = {
  code: "connection_lost",
  message: "The connection to the console broke before it answered; it may have been done.",
  advice: "Look at the result, then try again if it was not.",
  details: null,
};
const unauthorized: Failure = {
  code: "unauthorized",
  message: "This page's session has ended, or its link was used before.",
  advice: "Start the console again and open the link it prints.",
  details: null,
};
const tooLarge: Failure = {
  code: "too_large",
  message: "This is too large to send in one piece.",
  advice: "Send less at once.",
  details: null,
};

interface Followed {
  readonly name: string;
  readonly input: unknown;
  readonly onItem: (item: unknown) => void;
  lastEventId: number | null;
}

interface Client {
  readonly origin: string;
  readonly connectTimeoutMs: number;
  readonly listeners: Set<(status: TransportStatus) => void>;
  readonly answers: Map<number, (result: Reply<unknown>) => void>;
  readonly followed: Map<number, Followed>;
  /** Calls that wait for the socket. */
  readonly waiting: Set<() => void>;
  status: TransportStatus;
  socket: WebSocket | null;
  session: string | null;
  retryMs: number;
  lastId: number;
}

export function createWebSocketClient(options: WebSocketClientOptions = {}): ConsoleClient {
  const client: Client = {
    origin: options.origin ?? location.origin,
    connectTimeoutMs: options.connectTimeoutMs ?? 10_000,
    listeners: new Set(),
    answers: new Map(),
    followed: new Map(),
    waiting: new Set(),
    status: "connecting",
    socket: null,
    session: null,
    retryMs: firstRetryMs,
    lastId: 0,
  };
  void start(client, options.session);

  return {
    call: (name, input) => call(client, name, input) as Promise<Reply<never>>,
    follow(name, input, onItem) {
      const id = ++client.lastId;
      const stream: Followed = { name, input, onItem: onItem as (item: unknown) => void, lastEventId: null };
      client.followed.set(id, stream);
      if (client.status === "open") sendFollow(client, id, stream);
      return () => {
        if (client.followed.delete(id)) send(client, { type: "unfollow", id });
      };
    },
    onStatus(listener) {
      client.listeners.add(listener);
      listener(client.status);
      return () => void client.listeners.delete(listener);
    },
  };
}

async function start(client: Client, session: string | undefined): Promise<void> {
  client.session = session ?? (await findSession(client.origin));
  open(client);
}

function open(client: Client): void {
  if (client.session === null) return become(client, "unauthorized");
  const next = new WebSocket(`${client.origin.replace(/^http/, "ws")}/console`, [
    subprotocol,
    sessionProtocolPrefix + client.session,
  ]);
  client.socket = next;
  next.onmessage = ({ data }) => receive(client, String(data));
  next.onclose = ({ code }) => {
    if (client.socket === next) onClose(client, code);
  };
}

function onClose(client: Client, code: number): void {
  client.socket = null;
  for (const answer of client.answers.values()) answer({ ok: false, error: connectionLost });
  client.answers.clear();
  if (code === closeCodes.unauthorized) {
    forgetSession();
    return become(client, "unauthorized");
  }
  become(client, "lost");
  setTimeout(() => open(client), client.retryMs);
  client.retryMs = Math.min(client.retryMs * 2, longestRetryMs);
}

function become(client: Client, next: TransportStatus): void {
  if (next === client.status) return;
  client.status = next;
  for (const listener of client.listeners) listener(next);
  if (next === "open" || next === "unauthorized") {
    for (const go of client.waiting) go();
  }
}

function receive(client: Client, text: string): void {
  const frame = JSON.parse(text) as ServerFrame;
  switch (frame.type) {
    case "ready":
      client.retryMs = firstRetryMs;
      become(client, "open");
      for (const [id, stream] of client.followed) sendFollow(client, id, stream);
      return;
    case "result":
      client.answers.get(frame.id)?.(frame.result);
      client.answers.delete(frame.id);
      return;
    case "item": {
      const stream = client.followed.get(frame.id);
      if (stream) receiveItem(stream, frame.item);
      return;
    }
    default:
      client.followed.delete(frame.id);
      console.error(`The console refused to follow a stream: ${frame.error.message}`, frame.error.details);
  }
}

function receiveItem(stream: Followed, item: unknown): void {
  if (stream.name === "feed") {
    stream.lastEventId = (item as StreamItem<"feed">).events.at(-1)?.event_id ?? stream.lastEventId;
  }
  stream.onItem(item);
}

function send({ socket }: Client, frame: ClientFrame): boolean {
  if (socket?.readyState !== WebSocket.OPEN) return false;
  socket.send(JSON.stringify(frame));
  return true;
}

function sendFollow(client: Client, id: number, { name, input, lastEventId }: Followed): void {
  const resumed =
    lastEventId === null ? input : { ...(input as Record<string, unknown>), after_event_id: lastEventId };
  send(client, { type: "follow", id, name, input: resumed });
}

async function call(client: Client, name: string, input: unknown): Promise<Reply<unknown>> {
  const id = ++client.lastId;
  const frame: ClientFrame = { type: "call", id, name, input };
  // Every character is at least one byte and at most three.
  if (JSON.stringify(frame).length * 3 > maxMessageBytes && byteLength(frame) > maxMessageBytes) {
    return { ok: false, error: tooLarge };
  }
  if (!(await isOpened(client))) {
    return { ok: false, error: client.status === "unauthorized" ? unauthorized : unreachable };
  }
  return new Promise((resolve) => {
    client.answers.set(id, resolve);
    if (!send(client, frame)) {
      client.answers.delete(id);
      resolve({ ok: false, error: unreachable });
    }
  });
}

/** Waits for the socket as long as a call may wait for it; false where it did not open. */
function isOpened(client: Client): Promise<boolean> {
  if (client.status === "open") return Promise.resolve(true);
  if (client.status === "unauthorized") return Promise.resolve(false);
  return new Promise((resolve) => {
    const finish = (): void => {
      client.waiting.delete(finish);
      clearTimeout(timer);
      resolve(client.status === "open");
    };
    const timer = setTimeout(finish, client.connectTimeoutMs);
    client.waiting.add(finish);
  });
}

function byteLength(frame: ClientFrame): number {
  return new TextEncoder().encode(JSON.stringify(frame)).length;
}

/** The session of the link's one-time token, else the one this browser has. Null where there is neither. */
async function findSession(origin: string): Promise<string | null> {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token) {
    // Out of the address and the history before anything else.
    history.replaceState(null, "", location.pathname + location.search);
    const session = await exchange(origin, token);
    if (session) localStorage.setItem(storageKey, session);
  }
  return localStorage.getItem(storageKey);
}

function forgetSession(): void {
  if (typeof localStorage !== "undefined") localStorage.removeItem(storageKey);
}

/** Trades the one-time token for a session; null where it was used before or is unknown. */
export async function exchange(origin: string, token: string): Promise<string | null> {
  try {
    const response = await fetch(`${origin}/session`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ token }),
    });
    if (!response.ok) return null;
    return ((await response.json()) as { session: string }).session;
  } catch {
    return null;
  }
}
