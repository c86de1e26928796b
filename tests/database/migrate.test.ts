import { execFile, spawn } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { PGlite } from "@electric-sql/pglite";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, inject, it } from "vitest";
import {
  listPresets,
  MigrationError,
  migrate,
  pgConnection,
  publicObjects,
  readMigrations,
} from "../../local-project/migrations.ts";
import { createEmptyDatabase, createProjectDatabase } from "../support/database.ts";
import { makeSupabaseLike } from "../support/postgres.ts";

const FIRST = `
create schema governance;
create table governance.accounts (user_id text primary key);
create function public.count_accounts(p_prefix text default 'a,(b', p_limit int default 10) returns bigint
language sql set search_path = '' as $$ select count(*) from governance.accounts $$;
`;
const SECOND = `
create table governance.presets (content jsonb not null);
create or replace function public.count_accounts(p_prefix text default '', p_limit int default 10) returns bigint
language sql set search_path = '' as $$ select 1 + count(*) from governance.accounts $$;
create function public.apply_preset(p_preset jsonb) returns jsonb
language sql set search_path = '' as $$ insert into governance.presets values (p_preset) returning content $$;
`;

let resourcesDir: string;

function writeResources(migrations: Record<string, string>): string {
  const folder = mkdtempSync(join(tmpdir(), "migrate-test-"));
  mkdirSync(join(folder, "migrations"));
  mkdirSync(join(folder, "presets"));
  for (const [name, sql] of Object.entries(migrations)) writeFileSync(join(folder, "migrations", name), sql);
  writeFileSync(
    join(folder, "presets", "small.yaml"),
    "name: small\nplans:\n  - plan_id: gold\n    daily_limit: 10000\n",
  );
  return folder;
}

beforeAll(() => {
  resourcesDir = writeResources({
    "20260101000000_governance_first.sql": FIRST,
    "20260101000100_governance_second.sql": SECOND,
  });
});
afterAll(() => rmSync(resourcesDir, { recursive: true }));

async function withClient<T>(url: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

const urls = inject("postgresUrls");

const migrateAt = (url: string, options: Parameters<typeof migrate>[1] = {}) =>
  withClient(url, (client) => migrate(pgConnection(client), { resourcesDir, ...options }));

const everything = (url: string) =>
  withClient(url, async (client) => {
    const { rows } = await client.query(
      `select n.nspname, c.relname as name from pg_class c join pg_namespace n on n.oid = c.relnamespace
         where n.nspname !~ '^(pg_|information_schema)'
       union all select n.nspname, p.oid::regprocedure::text from pg_proc p join pg_namespace n on n.oid = p.pronamespace
         where n.nspname !~ '^(pg_|information_schema)'
       union all select nspname, null from pg_namespace order by 1, 2`,
    );
    return rows;
  });

for (const version of [18, 15] as const) {
  const serverUrl = urls[version];
  describe.skipIf(!serverUrl)(`migrate on PostgreSQL ${version}`, () => {
    const server = serverUrl ?? "";

    it("applies everything in order as a non-superuser owner, and says so", async () => {
      const owner = await makeSupabaseLike(await createEmptyDatabase(server));
      const said: string[] = [];
      const outcome = await migrateAt(owner, {
        preset: { name: "small" },
        onProgress: (line) => said.push(line),
      });
      expect(outcome.applied).toEqual([
        "20260101000000_governance_first",
        "20260101000100_governance_second",
      ]);
      expect(outcome.preset?.answer).toEqual({
        name: "small",
        plans: [{ plan_id: "gold", daily_limit: 10_000 }],
      });
      expect(said).toHaveLength(3);
      expect(
        await withClient(owner, async (c) => (await c.query("select public.count_accounts() as n")).rows),
      ).toEqual([{ n: "1" }]);
    });

    it("records what it applied where Supabase's CLI records it", async () => {
      const owner = await makeSupabaseLike(await createEmptyDatabase(server));
      await migrateAt(owner);
      const { rows } = await withClient(owner, (c) =>
        c.query(
          "select version, name, statements from supabase_migrations.schema_migrations order by version",
        ),
      );
      expect(rows).toEqual([
        { version: "20260101000000", name: "governance_first", statements: [FIRST] },
        { version: "20260101000100", name: "governance_second", statements: [SECOND] },
      ]);
    });

    it("applies nothing the second time, and the preset only when asked for", async () => {
      const owner = await makeSupabaseLike(await createEmptyDatabase(server));
      await migrateAt(owner);
      expect(await migrateAt(owner, { preset: { name: "small", ifFresh: true } })).toEqual({
        applied: [],
        present: 2,
        preset: null,
      });
      expect((await migrateAt(owner, { preset: { name: "small" } })).preset?.name).toBe("small");
    });

    it("respects a table that an old Supabase CLI made, and the project's own migrations in it", async () => {
      const owner = await makeSupabaseLike(await createEmptyDatabase(server));
      await withClient(owner, (c) =>
        c.query(`create schema supabase_migrations;
          create table supabase_migrations.schema_migrations (version text primary key);
          insert into supabase_migrations.schema_migrations values ('20990101000000')`),
      );
      expect((await migrateAt(owner)).applied).toHaveLength(2);
    });

    it("lets eight installers start at once and applies each migration once", async () => {
      const owner = await makeSupabaseLike(await createEmptyDatabase(server));
      const outcomes = await Promise.all(Array.from({ length: 8 }, () => migrateAt(owner)));
      expect(outcomes.flatMap(({ applied }) => applied).sort()).toEqual([
        "20260101000000_governance_first",
        "20260101000100_governance_second",
      ]);
    });

    it("refuses, with a list and before it changes anything, a project with objects under our names", async () => {
      const owner = await makeSupabaseLike(await createEmptyDatabase(server));
      await withClient(owner, (c) =>
        c.query(`create schema governance;
          create function public.count_accounts(a text, b integer) returns text language sql as 'select a';
          create function public.apply_preset(a text) returns text language sql as 'select a'`),
      );
      const before = await everything(owner);
      const refusal = await migrateAt(owner).catch((error: unknown) => error);
      expect(refusal).toBeInstanceOf(MigrationError);
      const { message } = refusal as Error;
      expect(message).toContain("schema governance (owner project_owner)");
      expect(message).toContain("function public.count_accounts(text, int)");
      // Another argument type is another function: no collision.
      expect(message).not.toContain("apply_preset");
      expect(await everything(owner)).toEqual(before);
    });

    it("refuses a function of the project's that a later migration of ours would replace", async () => {
      const owner = await makeSupabaseLike(await createEmptyDatabase(server));
      const onlyFirst = writeResources({ "20260101000000_governance_first.sql": FIRST });
      await migrateAt(owner, { resourcesDir: onlyFirst });
      await withClient(owner, (c) =>
        c.query("create function public.apply_preset(x jsonb) returns int language sql as 'select 1'"),
      );
      await expect(migrateAt(owner)).rejects.toThrow("function public.apply_preset(jsonb)");
      rmSync(onlyFirst, { recursive: true });
    });

    it("refuses a database that is newer than the code", async () => {
      const owner = await makeSupabaseLike(await createEmptyDatabase(server));
      const newer = writeResources({
        "20260101000000_governance_first.sql": FIRST,
        "20260101000100_governance_second.sql": SECOND,
        "20270101000000_governance_third.sql": "create table governance.third ()",
      });
      await migrateAt(owner, { resourcesDir: newer });
      await expect(migrateAt(owner)).rejects.toThrow(
        "The database is newer than this program: it has 20270101000000_governance_third, unknown here. Update the program.",
      );
      rmSync(newer, { recursive: true });
    });

    it("keeps nothing of a migration that fails, names it and its line, and goes on after it is mended", async () => {
      const owner = await makeSupabaseLike(await createEmptyDatabase(server));
      const broken = writeResources({
        "20260101000000_governance_first.sql": FIRST,
        "20260101000100_governance_second.sql": "create table governance.half ();\n\nselect * from nowhere;",
      });
      await expect(migrateAt(owner, { resourcesDir: broken })).rejects.toThrow(
        /20260101000100_governance_second failed at line 3: relation "nowhere" does not exist.*Nothing of it was kept\. 1 before it/s,
      );
      await withClient(owner, async (c) => {
        expect((await c.query("select to_regclass('governance.half') as half")).rows).toEqual([
          { half: null },
        ]);
      });
      expect((await migrateAt(owner)).applied).toEqual(["20260101000100_governance_second"]);
      rmSync(broken, { recursive: true });
    });

    it("lets a superuser install on behalf of the owner", async () => {
      const superuser = await createEmptyDatabase(server);
      await makeSupabaseLike(superuser);
      await migrateAt(superuser, { role: "project_owner" });
      const { rows } = await withClient(superuser, (c) =>
        c.query(
          "select distinct tableowner from pg_tables where schemaname in ('governance', 'supabase_migrations')",
        ),
      );
      expect(rows).toEqual([{ tableowner: "project_owner" }]);
    });

    it("refuses an unknown preset before it changes anything, and names those there are", async () => {
      const owner = await makeSupabaseLike(await createEmptyDatabase(server));
      await expect(migrateAt(owner, { preset: { name: "../small" } })).rejects.toThrow(
        'There is no preset "../small". Presets: small.',
      );
      await withClient(owner, async (c) => {
        expect((await c.query("select to_regnamespace('governance') as it")).rows).toEqual([{ it: null }]);
      });
    });
  });
}

describe("migrate elsewhere", () => {
  it("applies to PGlite", async () => {
    const db = await PGlite.create();
    await db.exec("create role anon; create role authenticated; create role service_role");
    expect((await migrate(db, { resourcesDir, preset: { name: "small" } })).applied).toHaveLength(2);
    expect((await db.query("select count(*)::int as n from governance.presets")).rows).toEqual([{ n: 1 }]);
    await db.close();
  });

  it("refuses a server without Supabase's roles and says how to get them", async () => {
    const db = await PGlite.create();
    await expect(migrate(db, { resourcesDir })).rejects.toThrow(
      "This is not a Supabase project: it has no role anon, authenticated, service_role.",
    );
    await db.close();
  });

  it("refuses a server older than PostgreSQL 15", async () => {
    // No such server is installed anywhere we test: the connection answers as one would.
    const old = {
      query: async <Row>() => ({ rows: [{ number: 140_012, version: "14.12" }] as Row[] }),
      exec: async () => {
        throw new Error("nothing may be changed");
      },
    };
    await expect(migrate(old, { resourcesDir })).rejects.toThrow(
      "The server is PostgreSQL 14.12. PostgreSQL 15 or newer is needed.",
    );
  });

  it("reads from a migration's text what it creates in public", () => {
    const sql = `
      -- create table public.commented (x int);
      create table if not exists public.signals (id bigint);
      create or replace view public.v as select 1;
      create function public.none() returns void language sql as '';
      create function public.many(p_a text, in p_b numeric(10, 2) default 1.0, p_c jsonb = '{}', p_d timestamp with time zone default now(),
        out o_e int, p_f text[] default array['a, b)']::text[]) language sql as '';`;
    expect(publicObjects(sql).map(({ kind, identity }) => `${kind} ${identity}`)).toEqual([
      "relation public.signals",
      "relation public.v",
      "function public.none()",
      "function public.many(text, numeric(10, 2), jsonb, timestamp with time zone, text[])",
    ]);
  });
});

describe("the product's own migrations", () => {
  const server = urls[18];

  it("apply as a non-superuser beside a project's own tables, and leave those as they were", async () => {
    const owner = await makeSupabaseLike(await createEmptyDatabase(server));
    const theirs = () =>
      withClient(owner, async (c) => {
        const { rows } = await c.query(
          `select c.oid::regclass::text as name, c.relacl::text, c.relrowsecurity, c.relhastriggers,
             array(select a.attname || ' ' || format_type(a.atttypid, null) from pg_attribute a
               where a.attrelid = c.oid and a.attnum > 0 order by a.attnum) as columns
           from pg_class c where c.oid in ('public.users'::regclass, 'public.profiles'::regclass, 'public.token_usage'::regclass)
           order by 1`,
        );
        return [rows, (await c.query("select * from public.users")).rows];
      });
    await withClient(owner, (c) =>
      c.query(`create table public.users (id uuid primary key default gen_random_uuid(), email text);
        create table public.profiles (id uuid primary key references public.users);
        create table public.token_usage (id bigserial primary key, user_id uuid, tokens int);
        insert into public.users (email) values ('a@example.com')`),
    );
    const before = await theirs();
    await withClient(owner, (c) => migrate(pgConnection(c)));
    expect(await theirs()).toEqual(before);
  });

  it("are refused before anything changes where the project has a function of the same name and arguments", async () => {
    const owner = await makeSupabaseLike(await createEmptyDatabase(server));
    await withClient(owner, (c) =>
      c.query(
        "create function public.get_user_token_balance(uid text) returns int language sql as 'select 1'; create function public.run_maintenance() returns void language sql as ''",
      ),
    );
    const before = await everything(owner);
    const refusal = await withClient(owner, (c) => migrate(pgConnection(c))).catch(
      (error: Error) => error.message,
    );
    expect(refusal).toContain("  - function public.get_user_token_balance(text)\n");
    expect(refusal).toContain("  - function public.run_maintenance()\n");
    expect(await everything(owner)).toEqual(before);
  });

  it("make in public what the runner knows they make, so that no collision goes unseen", async () => {
    const { url } = await createProjectDatabase(server);
    const known = readMigrations().flatMap(({ sql }) => publicObjects(sql));
    await withClient(url, async (c) => {
      const resolved = new Set<string>();
      for (const { kind, identity } of known) {
        const type = { function: "regprocedure", relation: "regclass", type: "regtype" }[kind];
        // A function that a later migration drops again resolves to nothing.
        const { rows } = await c.query<{ name: string | null }>(`select to_${type}($1)::text as name`, [
          identity,
        ]);
        if (rows[0]?.name) resolved.add(rows[0].name);
      }
      const { rows } = await c.query<{ name: string }>(
        `select oid::regprocedure::text as name from pg_proc where pronamespace = 'public'::regnamespace
         union select oid::regclass::text from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'v', 'm', 'S', 'p')`,
      );
      expect([...resolved].sort()).toEqual(rows.map(({ name }) => name).sort());
    });
  });

  it.each(listPresets())("take the preset %s, and take it again", async (preset) => {
    const { ownerUrl } = await createProjectDatabase(server);
    await withClient(ownerUrl, async (c) => {
      expect((await migrate(pgConnection(c), { preset: { name: preset } })).preset?.name).toBe(preset);
      expect((await migrate(pgConnection(c), { preset: { name: preset } })).preset?.name).toBe(preset);
    });
  });

  /** The same folder through Supabase's own CLI. */
  async function supabasePush(ownerUrl: string): Promise<string> {
    const workdir = mkdtempSync(join(tmpdir(), "migrate-push-"));
    cpSync("supabase/migrations", join(workdir, "supabase/migrations"), { recursive: true });
    const args = [
      "supabase",
      "db",
      "push",
      "--db-url",
      `${ownerUrl}?sslmode=disable`,
      "--yes",
      "--workdir",
      workdir,
    ];
    const { stdout, stderr } = await promisify(execFile)("npx", args, { timeout: 100_000 });
    rmSync(workdir, { recursive: true });
    return stdout + stderr;
  }

  it("are all there for `supabase db push` after this runner", async () => {
    const { ownerUrl } = await createProjectDatabase(server);
    expect(await supabasePush(ownerUrl)).toContain("Remote database is up to date");
  });

  it("are all there for this runner after `supabase db push`", async () => {
    const owner = await makeSupabaseLike(await createEmptyDatabase(server));
    expect(await supabasePush(owner)).toContain("Applying migration");
    const outcome = await withClient(owner, (c) => migrate(pgConnection(c), { preset: { name: "default" } }));
    expect(outcome).toMatchObject({
      applied: [],
      present: readMigrations().length,
      preset: { name: "default" },
    });
  });
});

describe("npm run migrate", () => {
  async function run(...args: string[]): Promise<{ code: number | null; out: string; err: string }> {
    const child = spawn(process.execPath, ["cli/migrate.ts", ...args], {
      env: { ...process.env, DATABASE_URL: "" },
    });
    let out = "";
    let err = "";
    child.stdout.on("data", (chunk: Buffer) => {
      out += chunk.toString();
    });
    child.stderr.on("data", (chunk: Buffer) => {
      err += chunk.toString();
    });
    return new Promise((resolve) => child.once("exit", (code) => resolve({ code, out, err })));
  }

  it("explains itself with --help", async () => {
    const { code, out } = await run("--help");
    expect(code).toBe(0);
    expect(out).toContain("--database-url URL");
  });

  it.each([
    [["--nonsense"], "Unknown option '--nonsense'"],
    [[], "--database-url is missing"],
    [["--database-url", "mysql://x"], "--database-url is not an address like"],
  ])("ends with 2 on wrong arguments %j", async (args, sentence) => {
    const { code, out, err } = await run(...args);
    expect(code).toBe(2);
    expect(err).toContain(sentence);
    expect(out).toBe("");
  });

  it("applies everything with a preset, then says that nothing is left", async () => {
    const owner = await makeSupabaseLike(await createEmptyDatabase(urls[18]));
    const first = await run("--database-url", owner, "--preset", "default");
    expect(first).toMatchObject({ code: 0, err: "" });
    expect(first.out).toMatch(/^Applied \d{14}_governance_schema\.\n/);
    expect(first.out).toContain("Applied the preset default.");
    const second = await run("--database-url", owner);
    expect(second).toMatchObject({
      code: 0,
      out: expect.stringMatching(/^Nothing to apply: all \d+ migrations are there\.\n$/) as unknown,
    });
  });

  it("ends with 1 and the list where the project's own objects are in the way", async () => {
    const owner = await makeSupabaseLike(await createEmptyDatabase(urls[18]));
    await withClient(owner, (c) => c.query("create schema governance"));
    const { code, out, err } = await run("--database-url", owner);
    expect(code).toBe(1);
    expect(out).toBe("");
    expect(err).toContain("  - schema governance (owner project_owner)");
    expect(err).not.toMatch(/^\s+at /m);
  });

  it("ends with 1 where it cannot connect, and never shows the password", async () => {
    const { code, err } = await run("--database-url", "postgres://someone:s3cret@127.0.0.1:1/nowhere");
    expect(code).toBe(1);
    expect(err).toContain("Cannot connect to 127.0.0.1:1/nowhere as someone");
    expect(err).not.toContain("s3cret");
  });
});
