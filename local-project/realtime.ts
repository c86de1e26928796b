/**
 * Realtime's `postgres_changes` over a WebSocket, as supabase-js speaks it (Phoenix channels, vsn 2.0.0 and 1.0.0;
 * https://supabase.com/docs/guides/realtime/protocol). Changes come from triggers and LISTEN, see realtime.sql.
 * A caller gets a row only where their role may select it. Broadcast and presence are not spoken.
 */
import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import { type WebSocket, WebSocketServer } from "ws";
import { type Database, quoteIdentifier, quoteLiteral } from "./database.ts";
import { HttpError } from "./errors.ts";
import type { Caller, Gate } from "./keys.ts";

export interface RealtimeOptions {
  readonly database: Database;
  readonly gate: Gate;
  readonly log: (sentence: string) => void;
  /** The text of realtime.sql. */
  readonly triggersSql: string | null;
}

export interface Realtime {
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
/** A client that does not read is cut off: it reconnects, and catches up by its cursor. */
const LARGEST_BACKLOG_BYTES = 4 * 1024 * 1024;
const LONGEST_TIMER_MS = 2_147_483_647;

const UNWATCHED_TABLES = `
  select case when to_regprocedure('local_realtime.notify_change()') is null then 1 else count(*) end
  from pg_publication_tables p
  where p.pubname = 'supabase_realtime' and not exists (
    select from pg_trigger t where t.tgname = 'local_realtime_notify_change'
      and t.tgrelid = format('%I.%I', p.schemaname, p.tablename)::regclass)`;

interface Subscription {
  readonly id: number;
  readonly event: string;
  readonly schema: string;
  readonly table: string;
  readonly filter: Filter | null;
}

interface Filter {
  readonly column: string;
  readonly operator: string;
  readonly value: string;
}

interface Channel {
  readonly client: Client;
  readonly topic: string;
  readonly joinRef: string | null;
  /** As the client asked, and as understood. */
  readonly asked: readonly Record<string, unknown>[];
  readonly subscriptions: readonly Subscription[];
  caller: Caller;
  expiry: NodeJS.Timeout | undefined;
}

interface Client {
  readonly socket: WebSocket;
  readonly asObjects: boolean;
  readonly caller: Caller;
  readonly channels: Map<string, Channel>;
  lastHeardMs: number;
}

interface Change {
  readonly schema: string;
  readonly table: string;
  readonly type: string;
  readonly commit_timestamp: string;
  readonly record?: Record<string, unknown>;
  readonly old_record?: Record<string, unknown>;
  readonly too_large?: boolean;
}

interface Message {
  readonly joinRef: string | null;
  readonly ref: string | null;
  readonly topic: string;
  readonly event: string;
  readonly payload: Record<string, unknown>;
}

export async function createRealtime({
  database,
  gate,
  log,
  triggersSql,
}: RealtimeOptions): Promise<Realtime> {
  const server = new WebSocketServer({ noServer: true, maxPayload: LARGEST_FRAME_BYTES });
  const clients = new Set<Client>();
  let nextId = 1;
  // Changes are sent in the order of their commits, though who may see them is asked of the database.
  let delivering: Promise<void> = Promise.resolve();

  /** Tables may have been published since the last look. */
  async function installTriggers(): Promise<void> {
    if (triggersSql === null) return;
    try {
      const [missing] = await database.run(UNWATCHED_TABLES);
      if (missing?.[0] === "0") return;
      await database.transaction(async (run) => {
        await run("select pg_advisory_xact_lock(7254004)");
        await run(triggersSql);
      });
    } catch (error) {
      log(
        `Realtime cannot watch the tables of the publication supabase_realtime: ${(error as Error).message}.`,
      );
    }
  }

  function push(client: Client, message: Message): void {
    const { socket, asObjects } = client;
    if (socket.readyState !== socket.OPEN) return;
    if (socket.bufferedAmount > LARGEST_BACKLOG_BYTES) {
      socket.terminate();
      return;
    }
    const { joinRef, ref, topic, event, payload } = message;
    socket.send(
      JSON.stringify(
        asObjects ? { join_ref: joinRef, ref, topic, event, payload } : [joinRef, ref, topic, event, payload],
      ),
    );
  }

  function reply(
    client: Client,
    to: Message,
    status: "ok" | "error",
    response: Record<string, unknown> = {},
  ): void {
    push(client, { ...to, event: "phx_reply", payload: { status, response } });
  }

  function pushTo(channel: Channel, event: string, payload: Record<string, unknown>): void {
    push(channel.client, { joinRef: channel.joinRef, ref: null, topic: channel.topic, event, payload });
  }

  function pushSystem(channel: Channel, extension: string, status: "ok" | "error", message: string): void {
    pushTo(channel, "system", { status, extension, message, channel: subTopic(channel.topic) });
  }

  function closeChannel(channel: Channel): void {
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

  function shutDown(channel: Channel, reason: string): void {
    pushSystem(channel, "system", "error", reason);
    closeChannel(channel);
  }

  function watchExpiry(channel: Channel): void {
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

  async function verify(token: unknown): Promise<Caller | string> {
    try {
      return await gate.verify(String(token));
    } catch (error) {
      return `InvalidJWTToken: ${error instanceof HttpError ? error.message : "Token cannot be read"}`;
    }
  }

  async function join(client: Client, message: Message): Promise<void> {
    const { topic, payload, joinRef } = message;
    if (!topic.startsWith("realtime:") || topic === "realtime:") {
      reply(client, message, "error", { reason: "TopicNameRequired: You must provide a topic name" });
      return;
    }
    if (client.channels.size >= CHANNELS_PER_SOCKET && !client.channels.has(topic)) {
      reply(client, message, "error", { reason: "ChannelRateLimitReached: Too many channels" });
      return;
    }
    const caller = payload.access_token === undefined ? client.caller : await verify(payload.access_token);
    if (typeof caller === "string") {
      reply(client, message, "error", { reason: caller });
      return;
    }
    const config = asObject(payload.config);
    const asked = Array.isArray(config.postgres_changes) ? config.postgres_changes.map(asObject) : [];
    const read = asked.map((one) => ({ asked: one, subscription: toSubscription(one, nextId++) }));
    const subscriptions = read.flatMap(({ subscription }) => (subscription ? [subscription] : []));
    const problem = await findProblem(caller, asked);
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

  function announce(channel: Channel, problem: string | null): void {
    if (channel.asked.length === 0) return;
    if (problem === null) pushSystem(channel, "postgres_changes", "ok", "Subscribed to PostgreSQL");
    else pushSystem(channel, "postgres_changes", "error", problem);
  }

  /** Why these tables cannot be watched by this role, or null. */
  async function findProblem(
    caller: Caller,
    asked: readonly Record<string, unknown>[],
  ): Promise<string | null> {
    if (asked.length === 0) return null;
    const unable = (one: Record<string, unknown>, why: string): string => {
      const show = (value: unknown, otherwise: string): string =>
        typeof value === "string" ? value : otherwise;
      const given = `[schema: ${show(one.schema, "public")}, table: ${show(one.table, "*")}, filters: ${show(one.filter, "[]")}]`;
      return `Unable to subscribe to changes with given parameters (${why}). Please check Realtime is enabled for the given connect parameters: ${given}`;
    };
    const unread = asked.find((one) => toSubscription(one, 0) === null);
    if (unread) return unable(unread, "the event or the filter is not understood");
    await installTriggers();
    for (const { schema, table } of asked.flatMap((one) => toSubscription(one, 0) ?? [])) {
      if (schema === "*" || table === "*") continue;
      const rows = await database.run(
        `select has_schema_privilege(${quoteLiteral(caller.role)}, n.oid, 'usage')
           and has_any_column_privilege(${quoteLiteral(caller.role)}, c.oid, 'select')
         from pg_publication_tables p
         join pg_namespace n on n.nspname = p.schemaname
         join pg_class c on c.relnamespace = n.oid and c.relname = p.tablename
         where p.pubname = 'supabase_realtime' and p.schemaname = ${quoteLiteral(schema)}
           and p.tablename = ${quoteLiteral(table)}`,
      );
      if (!rows[0]) return unable({ schema, table }, "the table is not published");
      if (rows[0][0] !== "t") return unable({ schema, table }, `the role ${caller.role} may not read it`);
    }
    return null;
  }

  async function handle(client: Client, message: Message): Promise<void> {
    const { topic, event, payload } = message;
    if (topic === "phoenix" && event === "heartbeat") {
      reply(client, message, "ok");
      return;
    }
    if (event === "phx_join") {
      await join(client, message);
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
      if (payload.access_token === null || payload.access_token === undefined) return;
      const caller = await verify(payload.access_token);
      if (typeof caller === "string") shutDown(channel, caller);
      else if (caller !== channel.caller) {
        channel.caller = caller;
        watchExpiry(channel);
        announce(channel, await findProblem(channel.caller, channel.asked));
      }
    } else if (message.ref !== null) {
      reply(client, message, "error", { reason: `The local project does not speak "${event}"` });
    }
  }

  function accept(request: IncomingMessage, socket: Duplex, head: Buffer, url: URL): void {
    gate
      .admit(url.searchParams.get("apikey") ?? undefined, undefined)
      .then((caller) => {
        server.handleUpgrade(request, socket, head, (opened) => {
          start(opened, caller, url.searchParams.get("vsn") !== "2.0.0");
        });
      })
      .catch(() => socket.end("HTTP/1.1 401 Unauthorized\r\nconnection: close\r\n\r\n"));
  }

  function start(socket: WebSocket, caller: Caller, asObjects: boolean): void {
    const client: Client = { socket, asObjects, caller, channels: new Map(), lastHeardMs: Date.now() };
    clients.add(client);
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
        .then(() => handle(client, message))
        .catch((error: unknown) => {
          log(`A realtime message failed: ${error instanceof Error ? error.message : String(error)}`);
          if (message.ref !== null) reply(client, message, "error", { reason: "UnableToConnectToProject" });
        });
    });
    socket.on("error", () => socket.terminate());
    socket.on("close", () => {
      clients.delete(client);
      for (const channel of client.channels.values()) clearTimeout(channel.expiry);
    });
  }

  async function deliver(change: Change): Promise<void> {
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

  const watch = setInterval(() => {
    for (const { socket, lastHeardMs } of clients)
      if (Date.now() - lastHeardMs > SILENCE_MS) socket.terminate();
  }, 15_000);
  watch.unref();

  await installTriggers();
  return {
    accept,
    onNotification(payload) {
      delivering = delivering
        .then(() => deliver(JSON.parse(payload) as Change))
        .catch((error: unknown) => log(`A change could not be delivered: ${(error as Error).message}`));
    },
    onReconnect() {
      for (const client of clients) {
        for (const channel of client.channels.values()) {
          if (channel.subscriptions.length > 0) {
            pushSystem(channel, "postgres_changes", "ok", "Subscribed to PostgreSQL");
          }
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

/**
 * The change as this caller may see it, or null where they may not: columns they may select, and for a table with
 * row level security the row itself, selected as them. A deleted row cannot be asked for: only its key is told.
 */
async function visibleTo(
  database: Database,
  caller: Caller,
  change: Change,
): Promise<Record<string, unknown> | null> {
  const role = quoteLiteral(caller.role);
  const [table] = await database.run(
    `select c.relrowsecurity and not r.rolbypassrls and not r.rolsuper,
       coalesce((select json_agg(json_build_object('name', a.attname, 'type', format_type(a.atttypid, null),
           'key', coalesce(a.attnum = any (i.indkey), false)) order by a.attnum)
         from pg_attribute a left join pg_index i on i.indrelid = c.oid and i.indisprimary
         where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
           and has_column_privilege(r.oid, c.oid, a.attnum, 'select')), '[]'),
       c.relreplident = 'f'
     from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_roles r on r.rolname = ${role}
     where n.nspname = ${quoteLiteral(change.schema)} and c.relname = ${quoteLiteral(change.table)}
       and has_schema_privilege(r.oid, n.oid, 'usage')`,
  );
  if (!table) return null;
  const [rowSecurity, columnsJson, tellsOldRow] = table;
  const columns = JSON.parse(columnsJson ?? "[]") as { name: string; type: string; key: boolean }[];
  if (columns.length === 0) return null;
  const keys = columns.filter(({ key }) => key);
  const base = {
    schema: change.schema,
    table: change.table,
    type: change.type,
    commit_timestamp: change.commit_timestamp,
    columns: columns.map(({ name, type }) => ({ name, type })),
  };
  if (change.too_large) return { ...base, record: {}, errors: ["Error 413: Payload Too Large"] };
  if (
    change.record &&
    rowSecurity === "t" &&
    !(await maySelect(database, caller, change, change.record, keys))
  ) {
    return null;
  }
  const pick = (row: Record<string, unknown>, some: readonly { name: string }[]): Record<string, unknown> =>
    Object.fromEntries(some.map(({ name }) => [name, row[name]]));
  const old = change.old_record;
  return {
    ...base,
    ...(change.record ? { record: pick(change.record, columns) } : {}),
    ...(old ? { old_record: pick(old, tellsOldRow === "t" && rowSecurity !== "t" ? columns : keys) } : {}),
    errors: null,
  };
}

async function maySelect(
  database: Database,
  caller: Caller,
  change: Change,
  record: Record<string, unknown>,
  keys: readonly { name: string; type: string }[],
): Promise<boolean> {
  if (keys.length === 0) return false;
  const condition = keys
    .map(({ name, type }) => `t.${quoteIdentifier(name)} = ${quoteLiteral(String(record[name]))}::${type}`)
    .join(" and ");
  const rows = await database.run(
    `select set_config('role', ${quoteLiteral(caller.role)}, true),
       set_config('request.jwt.claims', ${quoteLiteral(JSON.stringify(caller.claims))}, true),
       set_config('transaction_read_only', 'on', true);
     select 1 from ${quoteIdentifier(change.schema)}.${quoteIdentifier(change.table)} as t where ${condition} limit 1`,
  );
  return rows.length > 0;
}

function matches({ event, schema, table, filter }: Subscription, change: Change): boolean {
  if (event !== "*" && event !== change.type) return false;
  if (schema !== "*" && schema !== change.schema) return false;
  if (table !== "*" && table !== change.table) return false;
  if (filter === null) return true;
  const value = (change.record ?? change.old_record)?.[filter.column];
  return value !== undefined && value !== null && holds(value, filter);
}

function holds(value: unknown, { operator, value: wanted }: Filter): boolean {
  if (operator === "in") {
    const list = wanted.replace(/^\(|\)$/g, "").split(",");
    return list.some((one) => String(value) === one.trim().replace(/^"|"$/g, ""));
  }
  const numeric = typeof value === "number";
  const left = numeric ? value : String(value);
  const right = numeric ? Number(wanted) : wanted;
  if (operator === "eq") return left === right;
  if (operator === "neq") return left !== right;
  if (operator === "lt") return left < right;
  if (operator === "lte") return left <= right;
  if (operator === "gt") return left > right;
  return left >= right;
}

function toSubscription(asked: Record<string, unknown>, id: number): Subscription | null {
  const { event = "*", schema = "public", table = "*", filter } = asked;
  if (typeof event !== "string" || typeof schema !== "string" || typeof table !== "string") return null;
  if ([event, schema, table].some((one) => one.includes("\0"))) return null;
  const kind = event.toUpperCase();
  if (!["*", "INSERT", "UPDATE", "DELETE"].includes(kind)) return null;
  let read: Filter | null = null;
  if (filter !== undefined && filter !== null && filter !== "") {
    const text = typeof filter === "string" ? filter : "";
    const match = /^([^=]+)=(eq|neq|lt|lte|gt|gte|in)\.([\s\S]*)$/.exec(text);
    if (!match?.[1] || !match[2] || match[3] === undefined) return null;
    read = { column: match[1], operator: match[2], value: match[3] };
  }
  return { id, event: kind, schema, table, filter: read };
}

function readMessage(text: string, asObjects: boolean): Message | null {
  try {
    const value: unknown = JSON.parse(text);
    const fields = asObjects
      ? ["join_ref", "ref", "topic", "event", "payload"].map((name) => asObject(value)[name])
      : (value as unknown[]);
    if (!Array.isArray(fields)) return null;
    const [joinRef, ref, topic, event, payload] = fields as unknown[];
    if (typeof topic !== "string" || typeof event !== "string") return null;
    const asRef = (one: unknown): string | null =>
      typeof one === "string" || typeof one === "number" ? String(one) : null;
    return { joinRef: asRef(joinRef), ref: asRef(ref), topic, event, payload: asObject(payload) };
  } catch {
    return null;
  }
}

function asObject(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : {};
}

const subTopic = (topic: string): string => topic.slice("realtime:".length);
