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

export interface WebSocketClientOptions {
  /** The page's own address unless said. */
  readonly origin?: string;
  /** A session already known; read from storage or the address's one-time token unless said. */
  readonly session?: string;
  /** How long a call waits for the console, e.g. while it is being restarted. */
  readonly connectTimeoutMs?: number;
}

const storageKey = "console-session";
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

export function createWebSocketClient(options: WebSocketClientOptions = {}): ConsoleClient {
  const origin = options.origin ?? location.origin;
  const connectTimeoutMs = options.connectTimeoutMs ?? 10_000;
  const listeners = new Set<(status: TransportStatus) => void>();
  const answers = new Map<number, (result: Reply<unknown>) => void>();
  const followed = new Map<number, Followed>();
  /** Calls that wait for the socket. */
  const waiting = new Set<() => void>();
  let status: TransportStatus = "connecting";
  let socket: WebSocket | null = null;
  let session: string | null = null;
  let retryMs = 200;
  let lastId = 0;

  function become(next: TransportStatus): void {
    if (next === status) return;
    status = next;
    for (const listener of listeners) listener(status);
    if (status === "open" || status === "unauthorized") {
      for (const go of waiting) go();
    }
  }

  function send(frame: ClientFrame): boolean {
    if (socket?.readyState !== WebSocket.OPEN) return false;
    socket.send(JSON.stringify(frame));
    return true;
  }

  function sendFollow(id: number, { name, input, lastEventId }: Followed): void {
    const resumed =
      lastEventId === null ? input : { ...(input as Record<string, unknown>), after_event_id: lastEventId };
    send({ type: "follow", id, name, input: resumed });
  }

  function receiveItem(stream: Followed, item: unknown): void {
    if (stream.name === "feed") {
      stream.lastEventId = (item as StreamItem<"feed">).events.at(-1)?.event_id ?? stream.lastEventId;
    }
    stream.onItem(item);
  }

  function receive(text: string): void {
    const frame = JSON.parse(text) as ServerFrame;
    if (frame.type === "ready") {
      retryMs = 200;
      become("open");
      for (const [id, stream] of followed) sendFollow(id, stream);
    } else if (frame.type === "result") {
      answers.get(frame.id)?.(frame.result);
      answers.delete(frame.id);
    } else if (frame.type === "item") {
      const stream = followed.get(frame.id);
      if (stream) receiveItem(stream, frame.item);
    } else {
      followed.delete(frame.id);
      console.error(`The console refused to follow a stream: ${frame.error.message}`, frame.error.details);
    }
  }

  function dropPending(): void {
    for (const answer of answers.values()) answer({ ok: false, error: connectionLost });
    answers.clear();
  }

  function open(): void {
    if (session === null) return become("unauthorized");
    const next = new WebSocket(`${origin.replace(/^http/, "ws")}/console`, [
      subprotocol,
      sessionProtocolPrefix + session,
    ]);
    socket = next;
    next.onmessage = ({ data }) => receive(String(data));
    next.onclose = ({ code }) => {
      if (socket !== next) return;
      socket = null;
      dropPending();
      if (code === closeCodes.unauthorized) {
        forgetSession();
        return become("unauthorized");
      }
      become("lost");
      setTimeout(open, retryMs);
      retryMs = Math.min(retryMs * 2, longestRetryMs);
    };
  }

  function whenOpen(): Promise<boolean> {
    if (status === "open") return Promise.resolve(true);
    if (status === "unauthorized") return Promise.resolve(false);
    return new Promise((resolve) => {
      const finish = (): void => {
        waiting.delete(finish);
        clearTimeout(timer);
        resolve(status === "open");
      };
      const timer = setTimeout(finish, connectTimeoutMs);
      waiting.add(finish);
    });
  }

  async function start(): Promise<void> {
    session = options.session ?? (await findSession(origin));
    open();
  }
  void start();

  return {
    async call(name, input) {
      const id = ++lastId;
      const frame: ClientFrame = { type: "call", id, name, input };
      // Every character is at least one byte and at most three.
      if (JSON.stringify(frame).length * 3 > maxMessageBytes && byteLength(frame) > maxMessageBytes) {
        return { ok: false, error: tooLarge };
      }
      if (!(await whenOpen())) {
        return { ok: false, error: status === "unauthorized" ? unauthorized : unreachable };
      }
      return new Promise<Reply<never>>((resolve) => {
        answers.set(id, resolve as (result: Reply<unknown>) => void);
        if (!send(frame)) {
          answers.delete(id);
          resolve({ ok: false, error: unreachable });
        }
      });
    },
    follow(name, input, onItem) {
      const id = ++lastId;
      const stream: Followed = { name, input, onItem: onItem as (item: unknown) => void, lastEventId: null };
      followed.set(id, stream);
      if (status === "open") sendFollow(id, stream);
      return () => {
        if (followed.delete(id)) send({ type: "unfollow", id });
      };
    },
    onStatus(listener) {
      listeners.add(listener);
      listener(status);
      return () => void listeners.delete(listener);
    },
  };
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
