import { rmSync } from "node:fs";
import { connect } from "node:net";
import { createClient, type RealtimeChannel, type SupabaseClient } from "@supabase/supabase-js";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { WebSocket } from "ws";
import { createEmptyDatabase } from "../../support/database.ts";
import { startFixtureProject, type TestProject, writeFixtureResources } from "../../support/endpoint.ts";
import { freePort } from "../../support/free-port.ts";
import { postgresUrls } from "../../support/project.ts";

const urls = postgresUrls();
const resourcesDir = writeFixtureResources();
afterAll(() => rmSync(resourcesDir, { recursive: true }));

type Payload = {
  eventType: string;
  table: string;
  new: Record<string, unknown>;
  old: Record<string, unknown>;
};

interface Heard {
  readonly channel: RealtimeChannel;
  readonly changes: Payload[];
  readonly statuses: string[];
  readonly systems: { status: string; message: string; extension: string }[];
}

const clients: SupabaseClient[] = [];

async function clientOf(project: TestProject, key: string, token?: string): Promise<SupabaseClient> {
  const client = createClient(project.url, key, {
    auth: { persistSession: false, autoRefreshToken: false },
    // Node has no window to take it from in every version.
    realtime: { transport: WebSocket as never, heartbeatIntervalMs: 1000, reconnectAfterMs: () => 100 },
  });
  clients.push(client);
  if (token !== undefined) await client.realtime.setAuth(token);
  return client;
}

/** supabase-js types each filter by its event; these tests send any. */
interface AnyFilterChannel {
  on(type: string, filter: object, callback: (payload: unknown) => void): AnyFilterChannel;
  subscribe(callback: (status: string) => void): RealtimeChannel;
}

/** Subscribes and waits until the server says that changes are being watched. */
async function subscribe(
  client: SupabaseClient,
  filter: { event?: string; schema?: string; table?: string; filter?: string },
  until: "ok" | "error" | null = "ok",
): Promise<Heard> {
  const changes: Payload[] = [];
  const statuses: string[] = [];
  const systems: Heard["systems"] = [];
  const channel = (client.channel(`test-${crypto.randomUUID()}`) as unknown as AnyFilterChannel)
    .on("postgres_changes", { event: "*", schema: "public", ...filter }, (payload) =>
      changes.push(payload as Payload),
    )
    .on("system", {}, (payload) => systems.push(payload as Heard["systems"][number]))
    .subscribe((status) => statuses.push(status));
  if (until) await vi.waitFor(() => expect(systems.at(-1)?.status).toBe(until), 60_000);
  return { channel, changes, statuses, systems };
}

const databases = [
  { name: "PGlite", server: null },
  { name: "PostgreSQL 18", server: urls[18] },
  ...(urls[15] ? [{ name: "PostgreSQL 15", server: urls[15] }] : []),
];

describe.each(databases)("realtime on $name", ({ server }) => {
  let project: TestProject;
  let databaseUrl: string | undefined;
  let service: SupabaseClient;

  beforeAll(async () => {
    databaseUrl = server === null ? undefined : await createEmptyDatabase(server);
    project = await startFixtureProject({
      resourcesDir,
      ...(databaseUrl === undefined ? {} : { databaseUrl }),
    });
    service = await clientOf(project, project.serviceRoleKey);
  });
  afterAll(async () => {
    await Promise.all(clients.splice(0).map((client) => client.removeAllChannels()));
    await project.remove();
  });

  it("sends unmodified supabase-js an insert and an update, with the columns its role may select", async () => {
    const { changes, statuses, channel } = await subscribe(service, { table: "wake_ups" });
    expect(statuses).toEqual(["SUBSCRIBED"]);
    await service.rpc("wake", { p_topic: "feed", p_secret: "hidden" });
    await service.rpc("wake", { p_topic: "feed" });
    await vi.waitFor(() => expect(changes).toHaveLength(2), 60_000);
    expect(
      changes.map(({ eventType, table, new: row, old }) => ({
        eventType,
        table,
        keys: Object.keys(row),
        topic: row.topic,
        old,
      })),
    ).toEqual([
      { eventType: "INSERT", table: "wake_ups", keys: ["topic", "at"], topic: "feed", old: {} },
      {
        eventType: "UPDATE",
        table: "wake_ups",
        keys: ["topic", "at"],
        topic: "feed",
        old: { topic: "feed" },
      },
    ]);
    expect(JSON.stringify(changes)).not.toContain("hidden");
    expect(await channel.unsubscribe()).toBe("ok");
  });

  it("sends nothing of a change that was rolled back", async () => {
    const { changes } = await subscribe(service, { schema: "*", table: "*" });
    await service.rpc("fail_after_waking", { p_topic: "never" });
    await service.rpc("wake", { p_topic: "after" });
    await vi.waitFor(() => expect(changes.map((change) => change.new.topic)).toEqual(["after"]), 60_000);
  });

  it("lets a role see only the rows that row level security lets it select", async () => {
    const ada = await clientOf(
      project,
      project.anonKey,
      await project.sign({ role: "authenticated", sub: "ada" }),
    );
    const bob = await clientOf(
      project,
      project.anonKey,
      await project.sign({ role: "authenticated", sub: "bob" }),
    );
    const anon = await clientOf(project, project.anonKey);
    const heard = await Promise.all([ada, bob, anon].map((client) => subscribe(client, { table: "notes" })));
    await service.rpc("write_note", { p_id: 1, p_owner: "ada", p_body: "a" });
    await service.rpc("write_note", { p_id: 2, p_owner: "bob", p_body: "b" });
    // The row is read when its change is sent: if it is deleted before that, nobody sees the insert, as in Supabase.
    await vi.waitFor(
      () => expect([heard[0]?.changes, heard[1]?.changes]).toMatchObject([[{}], [{}]]),
      60_000,
    );
    await service.rpc("delete_note", { p_id: 1 });
    const seen = (index: number) =>
      heard[index]?.changes.map(({ eventType, new: row, old }) => [eventType, row, old]);
    // A deleted row cannot be checked: only its key is sent, as in Supabase.
    await vi.waitFor(() => {
      expect(seen(0)).toEqual([
        ["INSERT", { id: 1, owner: "ada", body: "a" }, {}],
        ["DELETE", {}, { id: 1 }],
      ]);
      expect(seen(1)).toEqual([
        ["INSERT", { id: 2, owner: "bob", body: "b" }, {}],
        ["DELETE", {}, { id: 1 }],
      ]);
      expect(seen(2)).toEqual([["DELETE", {}, { id: 1 }]]);
    });
  });

  it("filters by event and by column", async () => {
    const inserts = await subscribe(service, { event: "INSERT", table: "notes", filter: "owner=eq.cyd" });
    const large = await subscribe(service, { event: "*", table: "notes", filter: "id=gte.11" });
    await service.rpc("write_note", { p_id: 10, p_owner: "cyd", p_body: "x" });
    await service.rpc("write_note", { p_id: 11, p_owner: "dee", p_body: "x" });
    await service.rpc("write_note", { p_id: 10, p_owner: "cyd", p_body: "y" });
    await service.rpc("write_note", { p_id: 12, p_owner: "cyd", p_body: "z" });
    await vi.waitFor(() => {
      expect(inserts.changes.map((change) => change.new.id)).toEqual([10, 12]);
      expect(large.changes.map((change) => change.new.id)).toEqual([11, 12]);
    });
  });

  it("says that a row is too large for a notification, rather than hiding the change", async () => {
    const { changes } = await subscribe(service, { table: "notes", event: "INSERT" });
    await service.rpc("write_note", { p_id: 99, p_owner: "ada", p_body: "x".repeat(20_000) });
    await vi.waitFor(() => {
      expect(changes).toHaveLength(1);
      expect(changes[0]).toMatchObject({ errors: ["Error 413: Payload Too Large"] });
    });
  });

  it.each([
    ["a table that is not published", { table: "unpublished" }],
    ["a table that does not exist", { table: "nowhere" }],
    ["a filter that is not understood", { table: "notes", filter: "id=near.3" }],
  ])("tells by a system message that %s cannot be watched", async (_, filter) => {
    const { systems } = await subscribe(service, filter, "error");
    expect(systems[0]).toMatchObject({ extension: "postgres_changes", status: "error" });
    expect(systems[0]?.message).toContain("Unable to subscribe to changes with given parameters");
  });

  it("refuses a role that may not select a table", async () => {
    const { systems } = await subscribe(
      await clientOf(project, project.anonKey),
      { table: "wake_ups" },
      "error",
    );
    expect(systems[0]?.message).toContain("the role anon may not read it");
  });

  it("refuses a bad token when joining", async () => {
    const bad = await clientOf(
      project,
      project.anonKey,
      await project.sign({ role: "service_role" }, "x".repeat(40)),
    );
    const { statuses, channel } = await subscribe(bad, { table: "wake_ups" }, null);
    await vi.waitFor(() => expect(statuses).toContain("CHANNEL_ERROR"), 60_000);
    await channel.unsubscribe();
  });

  it("takes a token that comes after the join, as supabase-js sends one of a signed-in user", async () => {
    const client = await clientOf(project, project.anonKey);
    const { changes, systems } = await subscribe(client, { table: "notes" });
    await client.realtime.setAuth(await project.sign({ role: "authenticated", sub: "late" }));
    await vi.waitFor(() => expect(systems.filter(({ status }) => status === "ok")).toHaveLength(2), 60_000);
    await service.rpc("write_note", { p_id: 50, p_owner: "late", p_body: "a" });
    await vi.waitFor(() => expect(changes.map((change) => change.new.id)).toEqual([50]), 60_000);
  });

  it("closes a channel when its token expires, and says why", async () => {
    const soon = await project.sign({ role: "service_role", exp: Math.floor(Date.now() / 1000) + 6 });
    const { systems, statuses } = await subscribe(await clientOf(project, project.anonKey, soon), {
      table: "wake_ups",
    });
    await vi.waitFor(() => expect(systems.at(-1)?.message).toContain("Token has expired"), 60_000);
    await vi.waitFor(() => expect(statuses).toContain("CLOSED"), 60_000);
  });

  describe("frames", () => {
    /** A bare socket, to say what no client would. */
    async function open(query: string): Promise<{ socket: WebSocket; next: () => Promise<unknown> }> {
      const socket = new WebSocket(`${project.url.replace("http", "ws")}/realtime/v1/websocket?${query}`);
      const received: unknown[] = [];
      const waiting: ((value: unknown) => void)[] = [];
      socket.on("message", (data: Buffer) => {
        const value: unknown = JSON.parse(data.toString());
        const waiter = waiting.shift();
        if (waiter) waiter(value);
        else received.push(value);
      });
      await new Promise((resolve, reject) => {
        socket.once("open", resolve);
        socket.once("error", reject);
      });
      const next = (): Promise<unknown> =>
        received.length > 0
          ? Promise.resolve(received.shift())
          : new Promise((resolve) => waiting.push(resolve));
      return { socket, next };
    }

    it("answers heartbeat, join and leave in the frames of vsn 2.0.0", async () => {
      const { socket, next } = await open(`apikey=${project.serviceRoleKey}&vsn=2.0.0`);
      socket.send(JSON.stringify([null, "1", "phoenix", "heartbeat", {}]));
      expect(await next()).toEqual([null, "1", "phoenix", "phx_reply", { status: "ok", response: {} }]);
      const asked = { event: "*", schema: "public", table: "wake_ups" };
      socket.send(
        JSON.stringify(["2", "2", "realtime:a", "phx_join", { config: { postgres_changes: [asked] } }]),
      );
      expect(await next()).toEqual([
        "2",
        "2",
        "realtime:a",
        "phx_reply",
        { status: "ok", response: { postgres_changes: [{ id: expect.any(Number), ...asked }] } },
      ]);
      expect(await next()).toEqual([
        "2",
        null,
        "realtime:a",
        "system",
        { status: "ok", extension: "postgres_changes", message: "Subscribed to PostgreSQL", channel: "a" },
      ]);
      socket.send(JSON.stringify(["2", "3", "realtime:a", "phx_leave", {}]));
      expect(await next()).toEqual(["2", "3", "realtime:a", "phx_reply", { status: "ok", response: {} }]);
      expect(await next()).toEqual(["2", "2", "realtime:a", "phx_close", {}]);
      socket.send(JSON.stringify(["2", "4", "realtime:a", "presence", {}]));
      expect(await next()).toEqual([
        "2",
        "4",
        "realtime:a",
        "phx_reply",
        { status: "error", response: { reason: "unmatched topic" } },
      ]);
      socket.close();
    });

    it("speaks vsn 1.0.0 too", async () => {
      const { socket, next } = await open(`apikey=${project.anonKey}`);
      socket.send(
        JSON.stringify({ topic: "phoenix", event: "heartbeat", payload: {}, ref: "7", join_ref: null }),
      );
      expect(await next()).toEqual({
        topic: "phoenix",
        event: "phx_reply",
        payload: { status: "ok", response: {} },
        ref: "7",
        join_ref: null,
      });
      socket.close();
    });

    it("joining a topic again closes the join before", async () => {
      const { socket, next } = await open(`apikey=${project.anonKey}&vsn=2.0.0`);
      socket.send(JSON.stringify(["1", "1", "realtime:a", "phx_join", {}]));
      await next();
      socket.send(JSON.stringify(["5", "5", "realtime:a", "phx_join", {}]));
      expect(await next()).toEqual(["1", "1", "realtime:a", "phx_close", {}]);
      expect(await next()).toMatchObject(["5", "5", "realtime:a", "phx_reply", { status: "ok" }]);
      socket.close();
    });

    it.each(["", "apikey=x", "apikey=x.y.z"])("refuses the handshake with the key %j", async (query) => {
      await expect(open(`${query}&vsn=2.0.0`)).rejects.toThrow("401");
    });

    it("refuses a handshake from a foreign page", async () => {
      const socket = new WebSocket(
        `${project.url.replace("http", "ws")}/realtime/v1/websocket?apikey=${project.anonKey}`,
        { origin: "https://evil.example" },
      );
      await expect(new Promise((_, reject) => socket.once("error", reject))).rejects.toThrow("403");
    });

    it.each(["not json", "[]", "7", '["1","1",3,4,5]', "x".repeat(200_000)])(
      "closes on nonsense: %.20s",
      async (text) => {
        const { socket } = await open(`apikey=${project.anonKey}&vsn=2.0.0`);
        socket.send(text);
        const code = await new Promise((resolve) => socket.once("close", resolve));
        expect([1003, 1009]).toContain(code);
      },
    );

    it("lives on when a handshake is cut off", async () => {
      const port = Number(new URL(project.url).port);
      for (const path of [
        "/realtime/v1/websocket?apikey=x",
        `/realtime/v1/websocket?apikey=${project.anonKey}`,
        "/x",
      ]) {
        const raw = connect(port, "127.0.0.1");
        await new Promise((resolve) => raw.once("connect", resolve));
        raw.write(
          `GET ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n`,
        );
        raw.resetAndDestroy();
      }
      const { socket, next } = await open(`apikey=${project.anonKey}&vsn=2.0.0`);
      socket.send(JSON.stringify([null, "1", "phoenix", "heartbeat", {}]));
      expect(await next()).toMatchObject([null, "1", "phoenix", "phx_reply", { status: "ok" }]);
      socket.close();
    });

    it("never writes a key to its log", () => {
      expect(project.said.join("\n")).not.toContain(project.serviceRoleKey.slice(-20));
    });
  });

  it.skipIf(server === null)("lives on when somebody else notifies its channel", async () => {
    const { changes } = await subscribe(service, { table: "wake_ups" });
    const stranger = new pg.Client({ connectionString: databaseUrl });
    await stranger.connect();
    for (const payload of ["", "not json", "{}", "null"]) {
      await stranger.query("select pg_notify('local_realtime', $1)", [payload]);
    }
    await stranger.end();
    await service.rpc("wake", { p_topic: "sound" });
    await vi.waitFor(() => expect(changes.map((change) => change.new.topic)).toEqual(["sound"]), 60_000);
  });

  it.skipIf(server === null)(
    "tells clients to catch up after its connection to the server was lost",
    async () => {
      const { systems, changes } = await subscribe(service, { table: "wake_ups" });
      const admin = new pg.Client({ connectionString: databaseUrl });
      await admin.connect();
      await admin.query(
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'local-project realtime' and datname = current_database()",
      );
      await vi.waitFor(() => expect(systems.filter(({ status }) => status === "ok")).toHaveLength(2), 60_000);
      await service.rpc("wake", { p_topic: "again" });
      await vi.waitFor(() => expect(changes.map((change) => change.new.topic)).toEqual(["again"]), 60_000);
      await admin.end();
    },
  );
});

describe("realtime across a restart of the local project", () => {
  it("lets supabase-js join again by itself, and delivers what comes then", async () => {
    const port = await freePort();
    const first = await startFixtureProject({ resourcesDir, port });
    const client = await clientOf(first, first.serviceRoleKey);
    const { changes, systems } = await subscribe(client, { table: "wake_ups" });
    await client.rpc("wake", { p_topic: "before" });
    await vi.waitFor(() => expect(changes).toHaveLength(1), 60_000);
    await first.stop();
    const second = await startFixtureProject({ resourcesDir, dataDir: first.dataDir, port });
    expect(second.serviceRoleKey).toBe(first.serviceRoleKey);
    await vi.waitFor(() => expect(systems.filter(({ status }) => status === "ok")).toHaveLength(2), 60_000);
    await client.rpc("wake", { p_topic: "after" });
    await vi.waitFor(
      () => expect(changes.map((change) => change.new.topic)).toEqual(["before", "after"]),
      60_000,
    );
    await client.removeAllChannels();
    await second.remove();
  });
});
