/** Channels of connected clients: what is sent on them, and how they end. */
import type { WebSocket } from "ws";
import type { Caller } from "./keys.ts";
import type { Subscription } from "./realtime-changes.ts";
import { type Message, writeMessage } from "./realtime-messages.ts";

/** A client that does not read is cut off: it reconnects, and catches up by its cursor. */
const LARGEST_BACKLOG_BYTES = 4 * 1024 * 1024;
const LONGEST_TIMER_MS = 2_147_483_647;

export interface Channel {
  readonly client: Client;
  readonly topic: string;
  readonly joinRef: string | null;
  /** As the client asked, and as understood. */
  readonly asked: readonly Record<string, unknown>[];
  readonly subscriptions: readonly Subscription[];
  caller: Caller;
  expiry: NodeJS.Timeout | undefined;
}

export interface Client {
  readonly socket: WebSocket;
  readonly asObjects: boolean;
  readonly caller: Caller;
  readonly channels: Map<string, Channel>;
  lastHeardMs: number;
}

function push(client: Client, message: Message): void {
  const { socket, asObjects } = client;
  if (socket.readyState !== socket.OPEN) return;
  if (socket.bufferedAmount > LARGEST_BACKLOG_BYTES) {
    socket.terminate();
    return;
  }
  socket.send(writeMessage(message, asObjects));
}

export function reply(
  client: Client,
  to: Message,
  status: "ok" | "error",
  response: Record<string, unknown> = {},
): void {
  push(client, { ...to, event: "phx_reply", payload: { status, response } });
}

export function pushTo(channel: Channel, event: string, payload: Record<string, unknown>): void {
  push(channel.client, { joinRef: channel.joinRef, ref: null, topic: channel.topic, event, payload });
}

function pushSystem(channel: Channel, extension: string, status: "ok" | "error", message: string): void {
  pushTo(channel, "system", { status, extension, message, channel: channel.topic.slice("realtime:".length) });
}

export function closeChannel(channel: Channel): void {
  clearTimeout(channel.expiry);
  if (channel.client.channels.get(channel.topic) === channel) channel.client.channels.delete(channel.topic);
  push(channel.client, {
    joinRef: channel.joinRef,
    ref: channel.joinRef,
    topic: channel.topic,
    event: "phx_close",
    payload: {},
  });
}

export function shutDown(channel: Channel, reason: string): void {
  pushSystem(channel, "system", "error", reason);
  closeChannel(channel);
}

/** Closes the channel when its caller's token expires. */
export function watchExpiry(channel: Channel): void {
  clearTimeout(channel.expiry);
  const { expiresAt } = channel.caller;
  if (expiresAt === null) return;
  const leftMs = expiresAt * 1000 - Date.now();
  if (leftMs > LONGEST_TIMER_MS) return;
  channel.expiry = setTimeout(
    () => shutDown(channel, "InvalidJWTToken: Token has expired"),
    Math.max(leftMs, 0),
  );
  channel.expiry.unref();
}

/** Answers whether the tables asked for are watched. */
export function announce(channel: Channel, problem: string | null): void {
  if (channel.asked.length === 0) return;
  if (problem === null) pushSystem(channel, "postgres_changes", "ok", "Subscribed to PostgreSQL");
  else pushSystem(channel, "postgres_changes", "error", problem);
}
