/** A project that has nothing of ours is led to its first call from the console; then it is marked, guarded and forgotten. */
import { execFile } from "node:child_process";
import { randomUUID } from "node:crypto";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { createClient } from "@supabase/supabase-js";
import pg from "pg";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { readingFunctions } from "../../../electron/main/backend/reading.ts";
import type { Console } from "../../../electron/main/console/console.ts";
import { createConsole } from "../../../electron/main/console/consoles.ts";
import { type LocalProject, startLocalProject } from "../../../local-project/index.ts";
import { createInstaller, settingsOf } from "../../../local-project/installer.ts";
import { defaultResourcesDir, readMigrations } from "../../../local-project/migrations.ts";
import { call, value } from "../../support/console-calls.ts";
import { createEmptyDatabase } from "../../support/database.ts";
import { findPostgres, makeSupabaseLike, withClient } from "../../support/postgres.ts";
import { postgresUrls } from "../../support/project.ts";

const folder = mkdtempSync(join(tmpdir(), "first-connection-"));
const dataDir = join(folder, "data");
const migrations = readMigrations().map(({ version, name }) => `${version}_${name}`);
const password = `database-password-${randomUUID()}`;
const logged: string[] = [];
const answers: string[] = [];
let ownerUrl: string;
let project: LocalProject;
let console_: Console;

/** Keeps keys as a keychain does, where a test can look at them. */
const keychain = new Map<string, string>();

const database = () => ({ address: ownerUrl, password, certificate: "", skips_certificate: false });
const address = () => ({ url: project.url, key: project.serviceRoleKey });

beforeAll(async () => {
  ownerUrl = await makeSupabaseLike(await createEmptyDatabase(postgresUrls()[18]));
  // Served as it is: no migration of ours, no preset.
  const nothing = join(folder, "nothing");
  mkdirSync(join(nothing, "migrations"), { recursive: true });
  mkdirSync(join(nothing, "presets"));
  writeFileSync(join(nothing, "presets/default.yaml"), "name: default\n");
  project = await startLocalProject({ databaseUrl: ownerUrl, resourcesDir: nothing, upkeepIntervalMs: null });
  const opened = createConsole({
    dataDir,
    host: "browser",
    version: "0",
    migrations,
    installer: createInstaller(defaultResourcesDir),
    startLocalProject: null,
    log: (line) => logged.push(line),
    openKeychain: async () => ({
      kind: "napi-keyring",
      note: null,
      get: async (id) => keychain.get(id) ?? null,
      set: async (id, key) => {
        keychain.set(id, key);
        return true;
      },
      remove: async (id) => void keychain.delete(id),
    }),
  });
  if (!opened.ok) throw new Error(opened.error.message);
  const { dispatcher } = opened.value;
  console_ = {
    ...opened.value,
    dispatcher: {
      ...dispatcher,
      call: async (name, input) => {
        const answer = await dispatcher.call(name, input);
        answers.push(JSON.stringify(answer));
        return answer;
      },
    },
  };
  console_.start();
});
afterAll(async () => {
  await console_?.close();
  await project?.stop();
  rmSync(folder, { recursive: true, force: true });
});

const live = () =>
  vi.waitFor(async () => expect((await value(console_, "connection.state", {})).status).toBe("live"), {
    timeout: 30_000,
  });
const profileId = async (): Promise<string> =>
  (await value(console_, "connection.profiles", {}))[0]?.profile_id as string;

test("a project without migrations is known as one, and what would be made is said", async () => {
  const checked = await value(console_, "connection.check", address());
  expect(checked).toEqual({ role: "service_role", project: null, missing_migrations: migrations });
  expect(
    await call(console_, "connection.add", { ...address(), name: "New", is_production: false }),
  ).toMatchObject({
    ok: false,
    error: { code: "migrations_missing" },
  });
  const plan = await value(console_, "setup.plan", { url: "https://abcdefghijkl.supabase.co" });
  expect(plan.migrations).toEqual(migrations);
  expect(plan.makes.functions).toBeGreaterThan(100);
  expect(plan.makes.tables).toBeGreaterThan(20);
  expect(plan.address).toBe("postgresql://postgres@db.abcdefghijkl.supabase.co:5432/postgres");
  expect((await value(console_, "setup.plan", { url: project.url })).address).toBeNull();
});

test("what is in the way is named, and nothing is made until it is gone", async () => {
  await withClient(ownerUrl, (client) =>
    client.query("create function public.list_rules() returns int language sql as 'select 1'"),
  );
  const look = await value(console_, "setup.look", database());
  expect(look).toMatchObject({ present: 0, missing: migrations });
  expect(look.in_the_way).toEqual(["function public.list_rules()"]);
  expect(await call(console_, "setup.apply", database())).toMatchObject({
    ok: false,
    error: { code: "migration_refused", message: expect.stringContaining("public.list_rules()") },
  });
  await withClient(ownerUrl, async (client) => {
    const { rows } = await client.query("select to_regnamespace('governance') as made");
    expect(rows).toEqual([{ made: null }]);
    await client.query("drop function public.list_rules()");
  });
  expect((await value(console_, "setup.look", database())).in_the_way).toEqual([]);
});

test("applied from the console, configured by a preset, and the first call is let through", async () => {
  expect((await value(console_, "setup.apply", database())).applied).toEqual(migrations);
  expect((await value(console_, "setup.apply", database())).applied).toEqual([]);
  expect(await value(console_, "setup.look", database())).toMatchObject({ missing: [], in_the_way: [] });
  await vi.waitFor(
    async () =>
      expect(await value(console_, "connection.check", address())).toMatchObject({ missing_migrations: [] }),
    { timeout: 20_000 },
  );
  await value(console_, "connection.add", { ...address(), name: "New", is_production: false });
  await live();
  expect((await value(console_, "connection.state", {})).project).toMatchObject({ plans: [], preset: null });

  const presets = await value(console_, "setup.presets", {});
  expect(presets.find(({ name }) => name === "default")).toMatchObject({
    currency: "usd",
    description: expect.stringContaining("five systems"),
    plans: expect.arrayContaining([expect.objectContaining({ name: "Starter" })]),
  });
  await value(console_, "setup.apply_preset", { name: "default" });
  const { project: configured } = await value(console_, "connection.state", {});
  expect(configured).toMatchObject({ preset: "default" });
  expect(configured?.plans.length).toBeGreaterThan(0);
  expect(await call(console_, "setup.apply_preset", { name: "mmagent" })).toMatchObject({
    ok: false,
    error: { code: "configured" },
  });

  const backend = createClient(project.url, project.serviceRoleKey, { auth: { persistSession: false } });
  const { data } = await backend.rpc("authorize_usage", {
    p_request_id: randomUUID(),
    p_user_id: "first-user",
    p_model: "gpt-4o-mini",
    p_estimated_tokens: 10,
  });
  expect(data).toMatchObject({ decision: "allow" });
});

test("the same migrations as one file for psql", { skip: findPostgres(15) === null }, async () => {
  const url = await makeSupabaseLike(await createEmptyDatabase(postgresUrls()[18]));
  const { name, text } = await value(console_, "setup.sql", {});
  const file = join(folder, name);
  writeFileSync(file, text);
  for (const said of ["Applied", "is there already"]) {
    const { stdout } = await promisify(execFile)("psql", [url, "-q", "-f", file]);
    expect(stdout).toContain(said);
  }
  expect(await value(console_, "setup.look", { ...database(), address: url })).toMatchObject({ missing: [] });
});

test("off this machine the connection is encrypted and the server proves itself, whatever the address asks", () => {
  const of = (change: object) =>
    settingsOf({
      ...database(),
      address: "postgresql://postgres@db.example.com/postgres?sslmode=disable",
      ...change,
    });
  expect(of({}).ssl).toEqual({ rejectUnauthorized: true });
  expect(of({ certificate: "PEM" }).ssl).toEqual({ rejectUnauthorized: true, ca: "PEM" });
  expect(of({ skips_certificate: true }).ssl).toEqual({ rejectUnauthorized: false });
  expect(
    settingsOf({ ...database(), address: "postgresql://a:p%40ss@db.example.com/x", password: "" }),
  ).toMatchObject({ user: "a", password: "p@ss", database: "x", port: 5432 });
  for (const [wrong, code] of [
    ["https://db.example.com", "wrong_address"],
    ["postgresql://", "wrong_address"],
    ["postgresql://postgres:[YOUR-PASSWORD]@db.example.com/postgres", "missing_password"],
  ] as const)
    expect(() => settingsOf({ ...database(), address: wrong, password: "" })).toThrow(
      expect.objectContaining({ code }),
    );
});

test("a read-only profile reads everything and changes nothing, whatever is asked", async () => {
  const id = await profileId();
  expect(
    await value(console_, "connection.edit", { profile_id: id, is_read_only: true, color: "green" }),
  ).toMatchObject({
    is_read_only: true,
    color: "green",
    name: "New",
  });
  await live();
  const before = await everything();
  const acts: [string, object][] = [
    ["users.block", { command_id: randomUUID(), user_id: "first-user", reason: "a test", until: null }],
    ["users.flag", { command_id: randomUUID(), user_id: "first-user", reason: "a test" }],
    ["rules.set_mode", { command_id: randomUUID(), rule_name: "spam_identical", mode: "off" }],
    ["health.verify_ledger", { command_id: randomUUID() }],
    ["setup.apply_preset", { name: "default" }],
  ];
  for (const [name, input] of acts) {
    const answer = await console_.dispatcher.call(name, input);
    expect([name, answer.ok ? "done" : answer.error.code]).toEqual([
      name,
      name === "setup.apply_preset" ? "configured" : "read_only",
    ]);
  }
  expect(await everything()).toEqual(before);
  for (const name of ["rules.list", "health.get", "settings.about"] as const)
    expect([name, (await call(console_, name, {} as never)).ok]).toEqual([name, true]);
  expect((await call(console_, "watch.overview", { minutes: 60, filter: {}, stretch: null })).ok).toBe(true);
  expect((await call(console_, "users.get", { user_id: "first-user" })).ok).toBe(true);
  expect((await value(console_, "connection.state", {})).status).toBe("live");
  await value(console_, "connection.edit", { profile_id: id, is_read_only: false });
  await live();
  expect(
    (
      await call(console_, "users.flag", {
        command_id: randomUUID(),
        user_id: "first-user",
        reason: "a test",
      })
    ).ok,
  ).toBe(true);
});

test("each function that a read-only profile may call writes nothing", async () => {
  await withClient(ownerUrl, async (client) => {
    const { rows } = await client.query<{
      name: string;
      volatility: string;
      arguments: number;
      defaults: number;
    }>(
      `select proname as name, provolatile as volatility, pronargs as arguments, pronargdefaults as defaults
         from pg_proc where pronamespace = 'public'::regnamespace and proname = any($1)`,
      [[...readingFunctions]],
    );
    expect(new Set(rows.map(({ name }) => name))).toEqual(new Set(readingFunctions));
    const { rows: stable } = await client.query<{ name: string }>(
      "select distinct proname as name from pg_proc where pronamespace = 'public'::regnamespace and provolatile = 's'",
    );
    const sources = readdirSync("electron/main", { recursive: true, encoding: "utf8" })
      .filter((file) => file.endsWith(".ts") && !file.endsWith(".test.ts") && !file.endsWith("reading.ts"))
      .map((file) => readFileSync(join("electron/main", file), "utf8"))
      .join();
    const asked = stable.filter(({ name }) => sources.includes(`"${name}"`)).map(({ name }) => name);
    expect(asked.filter((name) => !readingFunctions.has(name))).toEqual([]);
    // PostgreSQL itself keeps a stable function from writing. The others must get through where nothing may be written.
    for (const { name, arguments: all, defaults } of rows.filter(({ volatility }) => volatility === "v")) {
      await client.query("begin read only");
      await client.query("set local role service_role");
      await client.query("select set_config('request.jwt.claims', '{\"role\":\"service_role\"}', true)");
      const failure = await client
        .query(`select public.${name}(${Array.from({ length: all - defaults }, () => "null").join(", ")})`)
        .then(
          () => null,
          (error: pg.DatabaseError) => error.code,
        );
      await client.query("rollback");
      // read_only_sql_transaction
      expect([name, failure]).not.toEqual([name, "25006"]);
    }
  });
});

test("a key is replaced by one that works, and by no other", async () => {
  const id = await profileId();
  const kept = keychain.get(id);
  const damaged = `${project.serviceRoleKey.slice(0, -6)}AAAAAA`;
  expect((await call(console_, "connection.edit", { profile_id: id, key: damaged })).ok).toBe(false);
  expect(keychain.get(id)).toBe(kept);
  await value(console_, "connection.edit", { profile_id: id, key: project.secretKey, name: "Renamed" });
  expect(keychain.get(id)).toBe(project.secretKey);
  await live();
  expect((await value(console_, "connection.state", {})).profile).toMatchObject({ name: "Renamed" });
});

test("forgetting a project leaves nothing of it on this machine", async () => {
  const id = await profileId();
  await value(console_, "connection.remove", { profile_id: id });
  expect(keychain.size).toBe(0);
  await console_.close();
  const left = readdirSync(dataDir, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .filter((file) => [id, project.url, "first-user"].some((word) => readFileSync(file).includes(word)));
  expect(left).toEqual([]);
});

test("the database's password is in no answer, no log and no file", () => {
  const files = readdirSync(dataDir, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => readFileSync(join(entry.parentPath, entry.name)).toString("latin1"));
  for (const text of [...answers, ...logged, ...files]) expect(text.includes(password)).toBe(false);
});

/** What the project holds, as far as an act would change it. */
async function everything(): Promise<unknown> {
  return withClient(ownerUrl, async (client) => {
    const { rows } = await client.query(
      `select (select count(*) from governance.audit_log) as audited,
         (select json_agg(r order by rule_name) from governance.rules r) as rules,
         (select json_agg(a order by user_id) from governance.accounts a) as accounts`,
    );
    return rows;
  });
}
