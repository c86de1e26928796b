import { execFile, spawn } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { PGlite } from "@electric-sql/pglite";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  listPresets,
  MigrationError,
  migrate,
  pgConnection,
  publicObjects,
  readMigrations,
} from "../../../local-project/migrations.ts";
import * as stripe from "../../support/stripe/events.ts";
import { createEmptyDatabase, createProjectDatabase } from "../../support/database.ts";
import { makeSupabaseLike, withClient } from "../../support/postgres.ts";
import { expectSoundBooks, postgresUrls, type Project, projectAt } from "../../support/project.ts";

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

const urls = postgresUrls();

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

    it("applies everything in order as a non-superuser owner, and lists it", async () => {
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

/** What a later release may add: a column, a changed function, a table. Databases in use take it over. */
const LATER = {
  version: "20991231000000",
  name: "governance_later",
  sql: `
alter table governance.accounts add column planted text;
create table governance.planted (planted_id bigint primary key);
alter table governance.planted enable row level security;
create or replace function public.get_user_token_balance(p_user_id text) returns bigint
  language plpgsql security definer set search_path = '' as $$
begin
  perform governance.check_id('p_user_id', p_user_id);
  return (select subscription_tokens + purchased_tokens + promotional_tokens - reserved_tokens
    from governance.accounts where user_id = p_user_id);
end
$$;`,
} as const;

/** A folder of the product's migrations and presets with one migration more: the release after this one. */
function laterRelease(): string {
  const folder = mkdtempSync(join(tmpdir(), "migrate-later-"));
  cpSync("supabase/migrations", join(folder, "migrations"), { recursive: true });
  cpSync("supabase/presets", join(folder, "presets"), { recursive: true });
  writeFileSync(join(folder, "migrations", `${LATER.version}_${LATER.name}.sql`), LATER.sql);
  return folder;
}

/** A project of its own, as many have: tables of the names that we would like too, with data, rights and triggers. */
const THEIRS = `
create table public.users (id uuid primary key default gen_random_uuid(), email text unique);
create table public.profiles (id uuid primary key references public.users on delete cascade, name text);
create table public.token_usage (id bigserial primary key, user_id uuid references public.users, tokens int check (tokens >= 0), at timestamptz default now());
create index token_usage_user on public.token_usage (user_id, at);
alter table public.profiles enable row level security;
create policy own_profile on public.profiles for select to authenticated using (id = auth.uid());
revoke delete on public.token_usage from anon, authenticated;
create function public.record_usage() returns trigger language plpgsql as 'begin new.at := now(); return new; end';
create trigger stamp before insert on public.token_usage for each row execute function public.record_usage();
create function public.authorize_usage(p_user uuid) returns boolean language sql as 'select true';
create view public.usage_by_user as select user_id, sum(tokens) as tokens from public.token_usage group by 1;
alter publication supabase_realtime add table public.token_usage;
insert into public.users (email) select 'user' || n || '@example.com' from generate_series(1, 50) n;
insert into public.profiles select id, email from public.users;
insert into public.token_usage (user_id, tokens) select id, 7 from public.users;`;

describe.each(([18, 15] as const).filter((version) => urls[version] !== null))(
  "the product's own migrations on PostgreSQL %i",
  (version) => {
    const server = urls[version] ?? "";

    /** All that is the project's own, to the last row, right and trigger. */
    const theirs = (owner: string) =>
      withClient(owner, async (c) => {
        const { rows } = await c.query(
          `select c.relname, c.relkind, c.relacl::text, c.relrowsecurity, c.relhastriggers, c.relhasindex, c.reltuples >= -1 as is_there,
             array(select a.attname || ' ' || format_type(a.atttypid, null) || coalesce(' ' || pg_get_expr(d.adbin, d.adrelid), '') from pg_attribute a
               left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum where a.attrelid = c.oid and a.attnum > 0 order by a.attnum) as columns,
             array(select pg_get_constraintdef(k.oid) from pg_constraint k where k.conrelid = c.oid order by k.conname) as constraints,
             array(select pg_get_triggerdef(t.oid) from pg_trigger t where t.tgrelid = c.oid and not t.tgisinternal order by t.tgname) as triggers,
             array(select p.policyname || ' ' || coalesce(p.qual, '') from pg_policies p where p.schemaname = 'public' and p.tablename = c.relname order by 1) as policies,
             exists (select from pg_publication_rel r where r.prrelid = c.oid) as is_published
           from pg_class c where c.oid in ('public.users'::regclass, 'public.profiles'::regclass, 'public.token_usage'::regclass, 'public.usage_by_user'::regclass, 'public.token_usage_user'::regclass)
           order by 1`,
        );
        const { rows: functions } = await c.query(
          "select oid::regprocedure::text as name, prosrc, proacl::text from pg_proc where oid in ('public.record_usage()'::regprocedure, 'public.authorize_usage(uuid)'::regprocedure) order by 1",
        );
        const data = await c.query(
          "select (select json_agg(u order by u.id) from public.users u) as users, (select json_agg(p order by p.id) from public.profiles p) as profiles, (select json_agg(t order by t.id) from public.token_usage t) as usage",
        );
        return [rows, functions, data.rows];
      });

    it("apply as a non-superuser beside a project's own tables and functions, and leave those as they were", async () => {
      const owner = await makeSupabaseLike(await createEmptyDatabase(server));
      await withClient(owner, (c) => c.query(THEIRS));
      const before = await theirs(owner);
      await withClient(owner, (c) => migrate(pgConnection(c), { preset: { name: "default" } }));
      expect(await theirs(owner)).toEqual(before);
      // Both live on: theirs by its argument, ours by ours.
      await withClient(owner, async (c) => {
        await c.query(
          "insert into public.token_usage (user_id, tokens) select id, 1 from public.users limit 1",
        );
        const { rows } = await c.query(
          "select public.authorize_usage(gen_random_uuid()) as theirs, public.authorize_usage('r', 'u', 'm') ->> 'decision' as ours",
        );
        expect(rows).toEqual([{ theirs: true, ours: "allow" }]);
      });
    });

    it("are refused before anything changes where the project has a function of the same name and arguments, or the schema", async () => {
      const owner = await makeSupabaseLike(await createEmptyDatabase(server));
      await withClient(owner, (c) =>
        c.query(
          `create function public.authorize_usage(a text, b text, c text, d bigint, e text, f text, g text, h text, i numeric) returns int language sql as 'select 1';
           create function public.run_maintenance() returns void language sql as ''`,
        ),
      );
      const before = await everything(owner);
      const attempt = () =>
        withClient(owner, (c) => migrate(pgConnection(c))).catch((error: Error) => error.message);
      const refusal = await attempt();
      expect(refusal).toContain(
        "  - function public.authorize_usage(text, text, text, bigint, text, text, text, text, numeric)\n",
      );
      expect(refusal).toContain("  - function public.run_maintenance()\n");
      expect(await everything(owner)).toEqual(before);
      await withClient(owner, (c) => c.query("create schema governance"));
      expect(await attempt()).toContain("  - schema governance (owner project_owner)");
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

    /** A folder of migrations through Supabase's own CLI. */
    async function supabasePush(ownerUrl: string, migrations = "supabase/migrations"): Promise<string> {
      const workdir = mkdtempSync(join(tmpdir(), "migrate-push-"));
      cpSync(migrations, join(workdir, "supabase/migrations"), { recursive: true });
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

    it("are all there for this runner after `supabase db push`, of this release and then of a later one, beside a project's own", async () => {
      const owner = await makeSupabaseLike(await createEmptyDatabase(server));
      await withClient(owner, (c) => c.query(THEIRS));
      const before = await theirs(owner);
      expect(await supabasePush(owner)).toContain("Applying migration");
      const later = laterRelease();
      const pushed = await supabasePush(owner, join(later, "migrations"));
      for (const { version: of } of readMigrations()) expect(pushed).not.toContain(of);
      expect(pushed).toContain(`${LATER.version}_${LATER.name}`);
      const outcome = await withClient(owner, (c) =>
        migrate(pgConnection(c), { resourcesDir: later, preset: { name: "default" } }),
      );
      expect(outcome).toMatchObject({
        applied: [],
        present: readMigrations(later).length,
        preset: { name: "default" },
      });
      rmSync(later, { recursive: true });
      expect(await theirs(owner)).toEqual(before);
    });

    it("stop whole in `supabase db push` where a function of the project's is in the way, leave it as it is, and go on once it is not", async () => {
      const owner = await makeSupabaseLike(await createEmptyDatabase(server));
      await withClient(owner, (c) =>
        c.query(
          "create function public.run_maintenance() returns text language sql as $$ select 'theirs' $$",
        ),
      );
      await expect(supabasePush(owner)).rejects.toThrow('function "run_maintenance" already exists');
      await withClient(owner, async (c) => {
        const { rows } = await c.query(
          "select public.run_maintenance() as answer, to_regproc('governance.schedule_maintenance') as of_the_same_file",
        );
        expect(rows).toEqual([{ answer: "theirs", of_the_same_file: null }]);
        await c.query("alter function public.run_maintenance() rename to run_their_maintenance");
      });
      expect(await supabasePush(owner)).toContain("Applying migration");
      await withClient(owner, async (c) => {
        const { rows } = await c.query(
          "select public.run_their_maintenance() as theirs, public.run_maintenance() ? 'expired_reservations' as ours",
        );
        expect(rows).toEqual([{ theirs: "theirs", ours: true }]);
      });
    });

    it("bring a living database up to date with a later release: nothing is lost, open holds still settle, the proof is whole", async () => {
      const superuser = await createEmptyDatabase(server);
      const owner = await makeSupabaseLike(superuser);
      const later = laterRelease();
      await withClient(owner, (c) => migrate(pgConnection(c), { preset: { name: "default" } }));
      const project = projectAt(owner);
      const answers = await live(project);
      const before = await rowsOf(project);
      const events = (await project.call("usage_events_since", null, 20)) as unknown as Events;

      expect(
        (await withClient(owner, (c) => migrate(pgConnection(c), { resourcesDir: later }))).applied,
      ).toEqual([`${LATER.version}_${LATER.name}`]);

      // Every row of before is there with everything that it held, in its table.
      const after = await rowsOf(project);
      const lost = Object.entries(before).flatMap(([table, rows]) =>
        rows
          .filter((row) => !isKept(row, after[table] ?? []))
          .map((row) => `${table}: ${JSON.stringify(row)}`),
      );
      expect(lost).toEqual([]);
      expect((await project.call("verify_ledger"))["problems"]).toEqual([]);

      // What was asked before the upgrade is answered the same after it.
      for (const [name, parameters, answer] of answers)
        expect([name, parameters, await project.call(name, ...parameters)]).toEqual([
          name,
          parameters,
          typeof answer === "object" ? expect.objectContaining(answer) : answer,
        ]);
      // The feed goes on where its reader was.
      const rest = (await project.call("usage_events_since", events.next_cursor, 5_000)) as unknown as Events;
      const all = (await project.call("usage_events_since", null, 5_000)) as unknown as Events;
      expect([...events.events, ...rest.events].map(({ event_id }) => event_id)).toEqual(
        all.events.map(({ event_id }) => event_id),
      );

      // Holds of before: one settles, one is released, one expires and settles late.
      expect(await project.call("settle_usage", "open-1", 60, 30)).toMatchObject({
        status: "settled",
        charged_tokens: 90,
      });
      expect(await project.call("release_usage", "open-2", "failed")).toMatchObject({
        status: "released",
        released_tokens: 200,
      });
      await withClient(superuser, (c) =>
        c.query("select governance.set_test_clock(governance.now() + interval '1 hour')"),
      );
      expect(await project.call("run_maintenance")).toMatchObject({ expired_reservations: 1 });
      expect(await project.call("settle_usage", "open-3", 60, 30)).toMatchObject({ charged_tokens: 90 });
      // The dispute of before is won, and its purchase refunded in part: tokens follow the money across the upgrade.
      for (const event of laterEvents())
        expect(await project.call("process_stripe_event", event)).toMatchObject({ status: "processed" });
      expect(
        (
          await withClient(owner, (c) =>
            migrate(pgConnection(c), { resourcesDir: later, preset: { name: "default" } }),
          )
        ).preset?.name,
      ).toBe("default");
      rmSync(later, { recursive: true });
      await expectSoundBooks(project);
      await project.close();
    });
  },
);

it("no migration replaces a function in public that none before it has made: it could be the project's", () => {
  const made = new Set<string>();
  for (const { version, sql } of readMigrations()) {
    for (const [, name] of sql.matchAll(/create or replace (?:function|view) public\.(\w+)/g))
      expect([version, name, made.has(name ?? "")]).toEqual([version, name, true]);
    for (const [, name] of sql.matchAll(/create (?:function|view) public\.(\w+)/g)) made.add(name ?? "");
  }
  expect(made.size).toBeGreaterThan(40);
});

interface Events {
  readonly events: readonly { readonly event_id: number }[];
  readonly next_cursor: string;
}
type Row = Readonly<Record<string, unknown>>;

const paid = {
  name: "before",
  userId: "alice",
  packId: "tokens-500k",
  tokens: 500_000,
  amountMinor: 500,
  currency: "usd",
  created: Math.floor(Date.now() / 1_000) - 3_600,
};
const laterEvents = () => [
  stripe.event("charge.dispute.closed", stripe.dispute(paid, "won")),
  stripe.event("charge.refunded", stripe.charge(paid, { amount_refunded: 100 })),
];

/** A project in use: answers what must be answered the same for ever. */
async function live(project: Project): Promise<[name: string, parameters: unknown[], answer: unknown][]> {
  const repeatable: [string, unknown[], unknown][] = [];
  const call = async (isRepeatable: boolean, name: string, ...parameters: unknown[]): Promise<void> => {
    const answer = await project.call(name, ...parameters);
    if (isRepeatable) repeatable.push([name, parameters, answer]);
  };
  await call(false, "upsert_account", "alice", "pro", "alice@example.com", "Alice", "Australia/Lord_Howe", {
    team: 1,
  });
  await call(false, "upsert_account", "bob", "starter");
  await call(false, "upsert_account", "carol", "business", null, null, "America/New_York");
  for (const sent of [
    stripe.event("checkout.session.completed", stripe.checkoutSession(paid)),
    stripe.event("charge.succeeded", stripe.charge(paid)),
    stripe.event("charge.dispute.created", stripe.dispute(paid, "needs_response")),
  ])
    await call(false, "process_stripe_event", sent);
  for (const [n, user] of ["alice", "bob", "carol", "alice", "bob", "alice", "dora"].entries()) {
    await call(
      true,
      "authorize_usage",
      `done-${n}`,
      user,
      "gpt-4o",
      500,
      `message ${n}`,
      "c-1",
      "chat",
      "brand",
    );
    await call(true, "settle_usage", `done-${n}`, 300 + n, 100, null, { cached_input_tokens: 50 });
  }
  for (const [n, user] of ["bob", "carol", "alice", "bob"].entries())
    await call(
      n !== 0,
      "authorize_usage",
      n === 0 ? "given-back" : `open-${n}`,
      user,
      "gpt-4o-mini",
      100 * n || 10,
    );
  await call(true, "release_usage", "given-back", "failed");
  await call(true, "authorize_usage", "refused", "bob", "gpt-4o", 9_000_000);
  await call(true, "authorize_usage", "aside", "carol", "gpt-4o", 500);
  await call(true, "settle_usage", "aside", 9_000_000, 9_000_000);
  await call(true, "update_user_token_balance", "bob", 5_000, "bonus", "a gift", {}, "gift-1", "2030-01-01");
  await call(true, "update_user_token_balance", "bob", -700, "adjustment", null, {}, "taken-1");
  await call(true, "flag_user", "flag-1", "carol", "looked at", "ann");
  await call(true, "block_user", "block-1", "dora", "abuse", null, "ann");
  await call(
    true,
    "save_rule",
    "rule-1",
    {
      rule_name: "no_images",
      conditions: { all: [{ fact: "task_type", op: "=", value: "image" }] },
      action: { block: { reason: "no_images" } },
    },
    null,
    "ann",
  );
  await call(false, "begin_checkout", "carol", "tokens-5m");
  const difference = {
    difference_id: "d-1",
    class: "PAID_NOT_GRANTED",
    tokens: 5_000,
    correction: { action: "grant" },
  };
  await call(
    false,
    "console_keep_reconciliation",
    "run-1",
    "ann",
    { tied_out: false, period: { from: "2026-01-01", to: "2026-02-01" } },
    JSON.stringify([difference]),
  );
  await call(false, "run_maintenance");
  for (const user of ["alice", "bob", "carol"]) {
    const { rows } = await project.sql.query("select * from public.get_user_transaction_history($1, 100)", [
      user,
    ]);
    expect(rows.length).toBeGreaterThan(1);
    await call(true, "get_user_token_balance", user);
  }
  return repeatable;
}

/** Whether a row is still there: the same values in each of its columns that the table still has. */
function isKept(row: Row, now: readonly Row[]): boolean {
  const columns = Object.keys(row).filter((column) => column in (now[0] ?? row));
  return now.some((other) =>
    columns.every((column) => JSON.stringify(other[column]) === JSON.stringify(row[column])),
  );
}

/** Every row of every table of ours, as JSON; but for the name of the compiled rules, which a migration may make again. */
async function rowsOf(project: Project): Promise<Record<string, Row[]>> {
  const { rows: tables } = await project.sql.query<{ name: string }>(
    "select relname as name from pg_class where relnamespace = 'governance'::regnamespace and relkind in ('r', 'p') and not relispartition",
  );
  const found: Record<string, Row[]> = {};
  for (const { name } of tables) {
    const { rows } = await project.sql.query<{ row: Row }>(
      `select to_jsonb(t) as row from governance.${name} t`,
    );
    found[name] = rows.map(({ row: { rule_set_id, updated_at, ...row } }) =>
      name === "active_config" ? row : { ...row, rule_set_id, updated_at },
    );
  }
  return found;
}

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
    [["--database-url", "postgres://127.0.0.1:1/x", "--preset", "nobody"], 'There is no preset "nobody"'],
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
    expect(first.out).toMatch(/^Applied \d{14}_governance_baseline\.\n/);
    expect(first.out).toContain("Applied the preset default.");
    const second = await run("--database-url", owner);
    expect(second).toMatchObject({
      code: 0,
      out: expect.stringMatching(/^Nothing to apply: the migration is there\.\n$/) as unknown,
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
