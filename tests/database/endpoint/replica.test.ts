/**
 * The console beside a real streaming replica: lists, search and the feed are read there, acts go to the primary,
 * the lag is shown, and a replica that is gone is done without.
 */
import { randomUUID } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { afterAll, beforeAll, expect, it } from "vitest";
import type { Console } from "../../../electron/main/console/console.ts";
import { createConsole } from "../../../electron/main/console/consoles.ts";
import { type LocalProject, startLocalProject } from "../../../local-project/index.ts";
import { readMigrations } from "../../../local-project/migrations.ts";
import type { OperationInput, OperationName, OperationOutput } from "../../../shared/contract/index.ts";
import { makeSupabaseLike, type PostgresServer, startPostgres } from "../../support/postgres.ts";

const jwtSecret = "a secret that the primary and its replica share";
const folder = mkdtempSync(join(tmpdir(), "replica-"));
let server: PostgresServer;
let replica: Awaited<ReturnType<PostgresServer["startReplica"]>>;
let primaryProject: LocalProject;
let replicaProject: LocalProject;
let primary: pg.Client;
let standby: pg.Client;
let opened: Console;

async function call<N extends OperationName>(name: N, input: OperationInput<N>): Promise<OperationOutput<N>> {
  const answer = await opened.dispatcher.call(name, input);
  if (!answer.ok) throw new Error(`${name}: ${answer.error.code}: ${answer.error.message}`);
  return answer.value as OperationOutput<N>;
}

const search = (query: string): Promise<OperationOutput<"users.search">> =>
  call("users.search", {
    query,
    filter: "all",
    plan_id: null,
    sort: "name",
    descending: false,
    cursor: null,
    limit: 20,
  });
const found = async (query: string): Promise<string[]> =>
  (await search(query)).accounts.map(({ user_id: userId }) => userId);
const replay = (): Promise<unknown> => expect.poll(async () => found("late")).toEqual(["late"]);

beforeAll(async () => {
  server = await startPostgres({ version: 18, settings: { wal_level: "logical" } });
  const superuser = await server.createDatabase();
  const database = new URL(superuser).pathname.slice(1);
  primaryProject = await startLocalProject({
    databaseUrl: await makeSupabaseLike(superuser),
    jwtSecret,
    upkeepIntervalMs: null,
  });
  primary = new pg.Client({ connectionString: superuser });
  await primary.connect();
  await primary.query("select upsert_account('early', null, 'early@example.com')");
  replica = await server.startReplica();
  replicaProject = await startLocalProject({ databaseUrl: replica.url(database), jwtSecret });
  standby = new pg.Client({ connectionString: replica.url(database) });
  await standby.connect();
  const made = createConsole({
    dataDir: folder,
    host: "browser",
    version: "0.0.0",
    migrations: readMigrations().map(({ version, name }) => `${version}_${name}`),
    startLocalProject: null,
    log: () => {},
    openKeychain: async () => ({
      kind: "none",
      note: "none here",
      get: async () => null,
      set: async () => false,
      remove: async () => {},
    }),
  });
  if (!made.ok) throw new Error(made.error.message);
  opened = made.value;
  opened.start();
});

afterAll(async () => {
  await opened?.close();
  await standby?.end().catch(() => {});
  await primary?.end();
  await replicaProject?.stop();
  await primaryProject?.stop();
  await server?.stop();
  rmSync(folder, { recursive: true, force: true });
});

it("refuses an address that is no replica, before it keeps anything", async () => {
  const answer = await opened.dispatcher.call("connection.check", {
    url: primaryProject.url,
    key: primaryProject.serviceRoleKey,
    read_url: primaryProject.url,
  });
  expect(answer).toMatchObject({ ok: false, error: { code: "not_a_replica" } });
});

it("reads lists, search and the feed from the replica, and shows how far it is behind", async () => {
  await call("connection.add", {
    name: "Replicated",
    url: primaryProject.url,
    read_url: replicaProject.url,
    key: primaryProject.serviceRoleKey,
    is_production: false,
  });
  await expect.poll(async () => (await call("connection.state", {})).status).toBe("live");
  await expect.poll(() => found("early")).toEqual(["early"]);
  await expect.poll(async () => (await call("connection.state", {})).replica?.lag_seconds).toBe(0);

  // A replica knows its age only once it has replayed a transaction.
  await primary.query("select upsert_account('between')");
  await expect.poll(() => found("between")).toEqual(["between"]);
  await standby.query("select pg_wal_replay_pause()");
  await primary.query("select upsert_account('late', null, 'late@example.com')");
  await primary.query("select authorize_usage('call-1', 'late', 'gpt-4o', 100)");
  // The primary has it; what the console shows is the replica's.
  expect(await found("late")).toEqual([]);
  await expect.poll(async () => (await call("connection.state", {})).replica?.lag_seconds).toBeGreaterThan(0);
  await standby.query("select pg_wal_replay_resume()");
  await replay();
  await expect.poll(async () => (await call("connection.state", {})).replica?.lag_seconds).toBe(0);
});

it("acts on the primary and reads its effect there at once, however far the replica is behind", async () => {
  await standby.query("select pg_wal_replay_pause()");
  await call("users.block", {
    command_id: randomUUID(),
    user_id: "late",
    reason: "tried",
    until: null,
  });
  await expect
    .poll(
      async () =>
        (await primary.query("select block_reason from governance.accounts where user_id = 'late'")).rows,
    )
    .toEqual([{ block_reason: "tried" }]);
  const { accounts } = await search("late");
  expect(accounts[0]).toMatchObject({ user_id: "late", is_blocked: true });
  await standby.query("select pg_wal_replay_resume()");
});

it("does without a replica that is gone, and says why", async () => {
  await standby.end();
  await replicaProject.stop();
  await replica.stop();
  expect(await found("early")).toEqual(["early"]);
  await expect.poll(async () => (await call("connection.state", {})).replica?.failure?.code).toBe("offline");
  expect((await call("connection.state", {})).status).toBe("live");
});
