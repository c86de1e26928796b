/**
 * supabase/schemas defines every object once; supabase/migrations is how a database gets there. Both ways must end in
 * the same catalogue, to the last comment and grant, on every server that we support.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { PGlite } from "@electric-sql/pglite";
import { pg_trgm } from "@electric-sql/pglite/contrib/pg_trgm";
import { pgcrypto } from "@electric-sql/pglite/contrib/pgcrypto";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readSchema } from "../../../cli/schema.ts";
import { pgConnection, readMigrations } from "../../../local-project/migrations.ts";
import { createEmptyDatabase, createProjectDatabase } from "../../support/database.ts";
import { makeSupabaseLike } from "../../support/postgres.ts";
import { postgresUrls } from "../../support/project.ts";

/** Everything that the catalogue knows of our two schemas, a line a fact. */
const CATALOGUE = `
with ours as (select nspowner as owner from pg_namespace where nspname = 'governance'),
relations as (
  select c.* from pg_class c where c.relnamespace = 'governance'::regnamespace and c.relkind in ('r', 'p', 'v', 'S', 'm', 'i', 'I')
)
select format('schema %s %s', n.nspname, n.nspacl) as line from pg_namespace n where n.nspname = 'governance'
union all
select format('relation %s %s %s %s %s %s %s', c.relname, c.relkind, c.relrowsecurity, c.relforcerowsecurity, c.reloptions, c.relacl,
    coalesce(pg_get_partkeydef(c.oid), '') || coalesce(pg_get_expr(c.relpartbound, c.oid), ''))
  from relations c
union all
select format('view %s %s', c.relname, pg_get_viewdef(c.oid)) from relations c where c.relkind = 'v'
union all
select format('index %s', pg_get_indexdef(c.oid)) from relations c where c.relkind in ('i', 'I')
union all
select format('sequence %s %s', s.seqrelid::regclass, s) from pg_sequence s join relations c on c.oid = s.seqrelid
union all
select format('column %s.%s %s %s %s %s %s %s %s %s', a.attrelid::regclass, a.attname, row_number() over (partition by a.attrelid order by a.attnum),
    format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attgenerated, coalesce(pg_get_expr(d.adbin, d.adrelid), ''), a.attacl,
    to_jsonb(a) ->> 'attstattarget')
  from pg_attribute a join pg_class c on c.oid = a.attrelid left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
  where c.relnamespace = 'governance'::regnamespace and c.relkind in ('r', 'p', 'v', 'c') and a.attnum > 0 and not a.attisdropped
union all
select format('constraint %s %s %s %s', k.conrelid::regclass, k.conname, pg_get_constraintdef(k.oid), k.convalidated) from pg_constraint k
  where k.connamespace = 'governance'::regnamespace and k.contype <> 'n'
union all
select format('trigger %s %s', pg_get_triggerdef(t.oid), t.tgenabled) from pg_trigger t join relations c on c.oid = t.tgrelid where not t.tgisinternal
union all
select format('policy %s', to_jsonb(p)) from pg_policies p where p.schemaname = 'governance'
union all
select format('publication %s %s', p.pubname, p.tablename) from pg_publication_tables p where p.schemaname = 'governance'
union all
select format('routine %s %s', pg_get_functiondef(p.oid), p.proacl) from pg_proc p, ours
  where p.pronamespace in ('governance'::regnamespace, 'public'::regnamespace) and p.proowner = ours.owner
union all
select format('type %s %s %s', t.oid::regtype, t.typtype, t.typacl) from pg_type t where t.typnamespace = 'governance'::regnamespace
union all
select format('comment %s %s: %s', d.classoid::regclass, pg_describe_object(d.classoid, d.objoid, d.objsubid), d.description)
  from pg_description d cross join lateral pg_identify_object(d.classoid, d.objoid, d.objsubid) i
  where coalesce(i.schema, i.name) = 'governance' or (i.schema = 'public' and d.classoid = 'pg_proc'::regclass
    and exists (select from pg_proc p, ours where p.oid = d.objoid and p.proowner = ours.owner))
union all
select format('default rights %s %s %s', a.defaclnamespace::regnamespace, a.defaclobjtype, a.defaclacl) from pg_default_acl a
  where a.defaclnamespace = 'governance'::regnamespace
order by 1`;

type Ask = <T>(sql: string) => Promise<T[]>;
interface Database {
  readonly ask: Ask;
  readonly exec: (sql: string) => Promise<unknown>;
  readonly close: () => Promise<void>;
}

async function lines({ ask }: Database): Promise<string[]> {
  // Oids differ between installs, and nothing else may.
  return (await ask<{ line: string }>(CATALOGUE)).map(({ line }) => line.replace(/\(\d{5},/g, "(oid,"));
}

async function onServer(server: string): Promise<Database> {
  const client = new pg.Client({
    connectionString: await makeSupabaseLike(await createEmptyDatabase(server)),
  });
  await client.connect();
  return {
    ask: async <T>(sql: string) => (await pgConnection(client).query<T>(sql)).rows,
    exec: (sql) => client.query(sql),
    close: () => client.end(),
  };
}

async function onPglite(): Promise<Database> {
  const db = new PGlite({ extensions: { pg_trgm, pgcrypto } });
  await db.exec(readFileSync(new URL("../../../local-project/bootstrap.sql", import.meta.url), "utf8"));
  await db.exec("set role project_owner");
  return {
    ask: async <T>(sql: string) => (await db.query<T>(sql)).rows,
    exec: (sql) => db.exec(sql),
    close: () => db.close(),
  };
}

async function build(make: () => Promise<Database>, scripts: readonly string[]): Promise<Database> {
  const database = await make();
  for (const script of scripts) await database.exec(`begin;\n${script}\n;commit`);
  return database;
}

const urls = postgresUrls();
const places: [string, () => Promise<Database>][] = [["PGlite", onPglite]];
for (const version of [18, 15] as const) {
  const server = urls[version];
  if (server !== null) places.push([`PostgreSQL ${version}`, () => onServer(server)]);
}

describe.each(places)("on %s", (_place, make) => {
  let schema: Database;
  let defined: string[] = [];
  beforeAll(async () => {
    schema = await build(make, [readSchema()]);
    defined = await lines(schema);
  });
  afterAll(() => schema?.close());

  it("the migrations make what supabase/schemas defines", async () => {
    const database = await build(
      make,
      readMigrations().map(({ sql }) => sql),
    );
    const migrated = await lines(database);
    await database.close();
    expect(migrated.length).toBeGreaterThan(1_000);
    expect(migrated).toEqual(defined);
  });

  it.each([
    ["a comment", "comment on function public.run_maintenance() is 'other'"],
    ["a grant", "grant execute on function public.run_maintenance() to anon"],
    ["a column", "alter table governance.plans add column other int"],
    ["a setting", "alter function public.run_maintenance() set work_mem = '8MB'"],
    ["an index", "create index other on governance.plans (name)"],
    ["a check", "alter table governance.plans add constraint other check (name <> 'other')"],
    ["a policy", "create policy other on governance.plans for select to anon using (true)"],
    ["a trigger", "alter table governance.audit_log disable trigger audit_log_append_only"],
  ])("a difference in %s is seen", async (_what, planted) => {
    await schema.exec(`begin;\n${planted}`);
    expect(await lines(schema)).not.toEqual(defined);
    await schema.exec("rollback");
    expect(await lines(schema)).toEqual(defined);
  });
});

describe("supabase/schemas", () => {
  const folder = new URL("../../../supabase/schemas/", import.meta.url);
  const rooms = readdirSync(folder).filter((file) => file.endsWith(".sql"));
  const text = (room: string): string => readFileSync(new URL(room, folder), "utf8");

  it("defines each object once", () => {
    const made = rooms.flatMap((room) =>
      [
        ...text(room).matchAll(
          /^create (?:or replace )?(?:unique )?(function|procedure|table|view|type|index|trigger) ([\w.]+)/gm,
        ),
      ].map(([, kind, name]) => `${kind} ${name}`),
    );
    expect(made.length).toBeGreaterThan(300);
    expect(made.filter((one, index) => made.indexOf(one) !== index)).toEqual([]);
  });

  it("gives each room a number of its own", () => {
    const numbers = rooms.map((room) => room.slice(0, 2));
    expect(numbers.filter((one, index) => numbers.indexOf(one) !== index)).toEqual([]);
  });

  it("has each function's comment right below its body", () => {
    const without = rooms.flatMap((room) =>
      [...text(room).matchAll(/^create (?:function|procedure) ([\w.]+)[\s\S]*?\$\$;\n(.*)/gm)]
        .filter(([, , next]) => !/^comment on (function|procedure) /.test(next ?? ""))
        .map(([, name]) => `${room}: ${name}`),
    );
    expect(without).toEqual([]);
  });
});

describe.each(([18, 15] as const).filter((version) => urls[version] !== null))(
  "function bodies on PostgreSQL %i",
  (version) => {
    it("are each accepted when they are checked: the schema is created with checks off", async () => {
      const { url } = await createProjectDatabase(urls[version] ?? "", { preset: "default" });
      const client = new pg.Client({ connectionString: url });
      await client.connect();
      const { rows } = await client.query<{ name: string; definition: string }>(
        `select p.oid::regprocedure::text as name, pg_get_functiondef(p.oid) as definition from pg_proc p
         where p.pronamespace in ('governance'::regnamespace, 'public'::regnamespace)
           and p.proowner = (select nspowner from pg_namespace where nspname = 'governance') and p.prokind in ('f', 'p')`,
      );
      expect(rows.length).toBeGreaterThan(200);
      await client.query("begin; set local check_function_bodies = on");
      const refused: string[] = [];
      for (const { name, definition } of rows) {
        await client.query("savepoint one");
        await client.query(definition).catch(async (error: Error) => {
          refused.push(`${name}: ${error.message}`);
          await client.query("rollback to savepoint one");
        });
      }
      await client.query("rollback");
      await client.end();
      expect(refused).toEqual([]);
    });
  },
);

const server = urls[15];
describe.runIf(server !== null && existsSync("/usr/share/postgresql/15/extension/plpgsql_check.control"))(
  "plpgsql_check",
  () => {
    it("finds nothing wrong in any function", async () => {
      const { url } = await createProjectDatabase(server ?? "", { preset: "default" });
      const client = new pg.Client({ connectionString: url });
      await client.connect();
      await client.query("create extension plpgsql_check");
      const { rows } = await client.query<{ found: string }>(`
      select format('%s: %s %s %s', p.proname, c.lineno, c.level, c.message) as found
      from pg_proc p join pg_namespace n on n.oid = p.pronamespace join pg_language l on l.oid = p.prolang
      cross join lateral plpgsql_check_function_tb(p.oid, fatal_errors => false, other_warnings => true, performance_warnings => false, extra_warnings => false) c
      where n.nspname in ('governance', 'public') and l.lanname = 'plpgsql' and p.prorettype <> 'trigger'::regtype
        and p.proowner = (select nspowner from pg_namespace where nspname = 'governance')
      order by 1`);
      await client.end();
      // What it cannot see: the result of dynamic SQL, the variables of a generated body, and a
      // constant that a declaration casts.
      const blind =
        /^console_search_accounts: \d+ warning cannot determinate|^evaluate_rules: \d+ warning unused variable|: \d+ warning target type is different type than source type$/;
      expect(rows.map((row) => row.found).filter((found) => !blind.test(found))).toEqual([]);
    });
  },
);
