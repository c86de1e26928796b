/**
 * Realtime's `postgres_changes` over a WebSocket, as supabase-js speaks it (Phoenix channels, vsn 2.0.0 and 1.0.0;
 * https://supabase.com/docs/guides/realtime/protocol). Changes come from triggers and LISTEN, see realtime.sql.
 * A caller gets a row only where their role may select it. Broadcast and presence are not supported.
 */
import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import { type WebSocket, WebSocketServer } from "ws";
import type { Database } from "./database.ts";
import { HttpError } from "./errors.ts";
import type { Caller, Gate } from "./keys.ts";
import {
  type Change,
  findProblem,
  installTriggers,
  matches,
  toSubscription,
  visibleTo,
} from "./realtime-changes.ts";
import {
  announce,
  type Channel,
  type Client,
  closeChannel,
  pushTo,
  reply,
  shutDown,
  watchExpiry,
} from "./realtime-channels.ts";
import { asObject, type Message, readMessage } from "./realtime-messages.ts";

interface RealtimeOptions {
  readonly database: Database;
  readonly gate: Gate;
  readonly log: (sentence: string) => void;
  /** The text of realtime.sql. */
  readonly triggersSql: string | null;
}

interface Realtime {
  accept(request: IncomingMessage, socket: Duplex, head: Buffer, url: URL): void;
  /** A notification of the channel `local_realtime`. */
  onNotification(payload: string): void;
  /** Notifications may have been missed: clients get a new "subscribed" and catch up. */
  onReconnect(): void;
  close(): void;
}

export const REALTIME_CHANNEL = "local_realtime";

const CHANNELS_PER_SOCKET = 100;
const SILENCE_MS = 75_000;
const LARGEST_FRAME_BYTES = 100_000;

interface State extends RealtimeOptions {
  readonly server: WebSocketServer;
  readonly clients: Set<Client>;
  /** Of the next subscription. */
  nextId: number;
  /** Changes are sent in the order of their commits, though who may see them is asked of the database. */
  delivering: Promise<void>;
}

export async function createRealtime(options: RealtimeOptions): Promise<Realtime> {
  const server = new WebSocketServer({ noServer: true, maxPayload: LARGEST_FRAME_BYTES });
  const clients = new Set<Client>();
  const realtime: State = { ...options, server, clients, nextId: 1, delivering: Promise.resolve() };
  const watch = setInterval(() => dropSilentClients(clients), 15_000);
  watch.unref();
  await installTriggers(realtime);
  return {
    accept: (request, socket, head, url) => accept(realtime, request, socket, head, url),
    onNotification(payload) {
      realtime.delivering = realtime.delivering
        .then(() => deliver(realtime, JSON.parse(payload) as Change))
        .catch((error: unknown) =>
          realtime.log(`A change could not be delivered: ${(error as Error).message}`),
        );
    },
    onReconnect() {
      for (const client of clients) {
        for (const channel of client.channels.values()) {
          if (channel.subscriptions.length > 0) announce(channel, null);
        }
      }
    },
    close() {
      clearInterval(watch);
      for (const { socket } of clients) socket.close(1001, "the local project stops");
      server.close();
      setTimeout(() => {
        for (const { socket } of clients) socket.terminate();
      }, 500).unref();
    },
  };
}

function dropSilentClients(clients: ReadonlySet<Client>): void {
  for (const { socket, lastHeardMs } of clients)
    if (Date.now() - lastHeardMs > SILENCE_MS) socket.terminate();
}

function accept(realtime: State, request: IncomingMessage, socket: Duplex, head: Buffer, url: URL): void {
  realtime.gate
    .admit(url.searchParams.get("apikey") ?? undefined, undefined)
    .then((caller) => {
      realtime.server.handleUpgrade(request, socket, head, (opened) => {
        start(realtime, opened, caller, url.searchParams.get("vsn") !== "2.0.0");
      });
    })
    .catch(() => socket.end("HTTP/1.1 401 Unauthorized\r\nconnection: close\r\n\r\n"));
}

function start(realtime: State, socket: WebSocket, caller: Caller, asObjects: boolean): void {
  const client: Client = { socket, asObjects, caller, channels: new Map(), lastHeardMs: Date.now() };
  realtime.clients.add(client);
  // One at a time and in order: a leave must not overtake the join before it.
  let handling: Promise<void> = Promise.resolve();
  socket.on("message", (data: Buffer, isBinary: boolean) => {
    client.lastHeardMs = Date.now();
    if (isBinary) return;
    const message = readMessage(data.toString("utf8"), asObjects);
    if (message === null) {
      socket.close(1003, "not understood");
      return;
    }
    handling = handling
      .then(() => handle(realtime, client, message))
      .catch((error: unknown) => {
        realtime.log(`A realtime message failed: ${error instanceof Error ? error.message : String(error)}`);
        if (message.ref !== null) reply(client, message, "error", { reason: "UnableToConnectToProject" });
      });
  });
  socket.on("error", () => socket.terminate());
  socket.on("close", () => {
    realtime.clients.delete(client);
    for (const channel of client.channels.values()) clearTimeout(channel.expiry);
  });
}

async function handle(realtime: State, client: Client, message: Message): Promise<void> {
  const { topic, event, payload } = message;
  if (topic === "phoenix" && event === "heartbeat") {
    reply(client, message, "ok");
    return;
  }
  if (event === "phx_join") {
    await join(realtime, client, message);
    return;
  }
  const channel = client.channels.get(topic);
  if (!channel) {
    if (message.ref !== null) reply(client, message, "error", { reason: "unmatched topic" });
    return;
  }
  if (event === "phx_leave") {
    reply(client, message, "ok");
    closeChannel(channel);
  } else if (event === "access_token") {
    await changeToken(realtime, channel, payload.access_token);
  } else if (message.ref !== null) {
    reply(client, message, "error", { reason: `The local project does not speak "${event}"` });
  }
}

async function join(realtime: State, client: Client, message: Message): Promise<void> {
  const { topic, payload, joinRef } = message;
  if (!topic.startsWith("realtime:") || topic === "realtime:") {
    reply(client, message, "error", { reason: "TopicNameRequired: You must provide a topic name" });
    return;
  }
  if (client.channels.size >= CHANNELS_PER_SOCKET && !client.channels.has(topic)) {
    reply(client, message, "error", { reason: "ChannelRateLimitReached: Too many channels" });
    return;
  }
  const caller =
    payload.access_token === undefined ? client.caller : await verify(realtime.gate, payload.access_token);
  if (typeof caller === "string") {
    reply(client, message, "error", { reason: caller });
    return;
  }
  const config = asObject(payload.config);
  const asked = Array.isArray(config.postgres_changes) ? config.postgres_changes.map(asObject) : [];
  const read = asked.map((one) => ({ asked: one, subscription: toSubscription(one, realtime.nextId++) }));
  const subscriptions = read.flatMap(({ subscription }) => (subscription ? [subscription] : []));
  const problem = await findProblem(realtime, caller, asked);
  if (problem !== null && asObject(config.postgres_changes_options).wait === true) {
    reply(client, message, "error", { reason: problem });
    return;
  }
  const earlier = client.channels.get(topic);
  if (earlier) closeChannel(earlier);
  const channel: Channel = { client, topic, joinRef, asked, subscriptions, caller, expiry: undefined };
  client.channels.set(topic, channel);
  watchExpiry(channel);
  reply(client, message, "ok", {
    postgres_changes: read.map(({ asked, subscription }) => ({ id: subscription?.id ?? 0, ...asked })),
  });
  announce(channel, problem);
}

async function changeToken(realtime: State, channel: Channel, token: unknown): Promise<void> {
  if (token === null || token === undefined) return;
  const caller = await verify(realtime.gate, token);
  if (typeof caller === "string") return shutDown(channel, caller);
  if (caller === channel.caller) return;
  channel.caller = caller;
  watchExpiry(channel);
  announce(channel, await findProblem(realtime, caller, channel.asked));
}

async function verify(gate: Gate, token: unknown): Promise<Caller | string> {
  try {
    return await gate.verify(String(token));
  } catch (error) {
    return `InvalidJWTToken: ${error instanceof HttpError ? error.message : "Token cannot be read"}`;
  }
}

async function deliver({ database, clients }: State, change: Change): Promise<void> {
  const groups = new Map<Caller, { channel: Channel; ids: number[] }[]>();
  for (const client of clients) {
    for (const channel of client.channels.values()) {
      const ids = channel.subscriptions.filter((one) => matches(one, change)).map(({ id }) => id);
      if (ids.length === 0) continue;
      const group = groups.get(channel.caller) ?? [];
      group.push({ channel, ids });
      groups.set(channel.caller, group);
    }
  }
  for (const [caller, group] of groups) {
    const data = await visibleTo(database, caller, change);
    if (data === null) continue;
    for (const { channel, ids } of group) pushTo(channel, "postgres_changes", { ids, data });
  }
}
