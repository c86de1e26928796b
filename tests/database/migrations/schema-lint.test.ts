/**
 * The schema as linters see it: Supabase's own two (`db lint`, which is plpgsql_check, and `db advisors`, which is
 * Splinter), and our conventions, asked of the catalogue. Each finding that stays has a reason here; a faulty schema is
 * planted to prove that our own lints speak.
 */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { promisify } from "node:util";
import pg from "pg";
import { describe, expect, it } from "vitest";
import { createProjectDatabase } from "../../support/database.ts";
import { postgresUrls } from "../../support/project.ts";

/** What Supabase's command answers as JSON among the lines for people. */
async function supabase<Finding>(...args: readonly string[]): Promise<Finding[]> {
  const { stdout } = await promisify(execFile)("npx", ["supabase", ...args], {
    timeout: 100_000,
    maxBuffer: 64 * 1024 * 1024,
  });
  const at = stdout.search(/^\[/m);
  return at === -1 ? [] : (JSON.parse(stdout.slice(at)) as Finding[]);
}

async function project(version: 15 | 18): Promise<{ url: string; client: pg.Client }> {
  const server = postgresUrls()[version];
  if (server === null) throw new Error(`PostgreSQL ${version} is not installed here.`);
  const { url } = await createProjectDatabase(server, { preset: "default" });
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  return { url: `${url}?sslmode=disable`, client };
}

const ours = "(select n.nspowner from pg_namespace n where n.nspname = 'governance')";

/** Functions without a search path, and why: Supabase's Security Advisor warns of each. */
const withoutSearchPath: Readonly<Record<string, string>> = {
  rules_match: "written into the expression of every call, which a setting would forbid",
  decision_answer: "written into the expression that answers every call; built-in functions alone",
  read_call: "inlined where a settlement reads one call, and many; every name in it is written in full",
  entry_payload: "inlined where each ledger entry is written and checked; built-in functions alone",
  entry_hash: "inlined where each ledger entry is written and checked; built-in functions alone",
  is_sound: "a check of accounts, asked by every call; built-in operators alone",
  measure: "inlined where usage is added up for alerts; built-in operators alone",
  maintain: "a procedure with a setting may not commit; every name in it is written in full",
};

/** Our conventions (supabase/CONVENTIONS.md), each a question to the catalogue that must have no answer. */
const lints: Readonly<Record<string, string>> = {
  "a function that anybody may execute": `
    select p.oid::regprocedure::text from pg_proc p where p.pronamespace in ('governance'::regnamespace, 'public'::regnamespace) and p.proowner = ${ours}
      and (p.proacl is null or exists (select from aclexplode(p.proacl) x where x.grantee = 0))`,
  "a function with its owner's rights and a search path of its caller's": `
    select p.oid::regprocedure::text from pg_proc p where p.pronamespace in ('governance'::regnamespace, 'public'::regnamespace) and p.proowner = ${ours}
      and p.prosecdef and not coalesce(p.proconfig, '{}') @> array['search_path=""']`,
  "a function without a search path that is not one of the seven": `
    select p.oid::regprocedure::text from pg_proc p
    where p.pronamespace in ('governance'::regnamespace, 'public'::regnamespace) and p.proowner = ${ours} and not coalesce(p.proconfig, '{}') @> array['search_path=""']
      and p.proname not in (${Object.keys(withoutSearchPath)
        .map((name) => `'${name}'`)
        .join(", ")})`,
  "a function for the service that does not refuse others itself": `
    select p.oid::regprocedure::text from pg_proc p
    where p.pronamespace = 'public'::regnamespace and p.proowner = ${ours} and p.proname not like 'my\\_%'
      -- Its own name, as the first statement.
      and p.prosrc !~ ('^\\s*(declare.*)?(begin\\s+(if current_setting\\(''role''\\) <> ''service_role'' then )?perform|select) governance\\.refuse_others\\(''' || p.proname || '''\\)')`,
  "something without a comment": `
    select p.oid::regprocedure::text from pg_proc p where p.pronamespace in ('governance'::regnamespace, 'public'::regnamespace) and p.proowner = ${ours} and obj_description(p.oid, 'pg_proc') is null
    union all select c.oid::regclass::text from pg_class c where c.relnamespace = 'governance'::regnamespace and c.relkind in ('r', 'p', 'v', 'm') and not c.relispartition and obj_description(c.oid, 'pg_class') is null`,
  "a table without a primary key": `
    select c.oid::regclass::text from pg_class c where c.relnamespace = 'governance'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
      and not exists (select from pg_index i where i.indrelid = c.oid and i.indisprimary)`,
  "a table without row level security": `
    select c.oid::regclass::text from pg_class c where c.relnamespace = 'governance'::regnamespace and c.relkind in ('r', 'p') and not c.relrowsecurity`,
  "a table or sequence that a role of the API may use": `
    select c.oid::regclass || ' ' || x.grantee::regrole || ' ' || x.privilege_type from pg_class c cross join lateral aclexplode(c.relacl) x
    where c.relnamespace = 'governance'::regnamespace and x.grantee <> c.relowner and (c.relname, x.privilege_type) <> ('signals', 'SELECT')`,
  "a view that reads with its owner's rights": `
    select c.oid::regclass::text from pg_class c where c.relnamespace = 'governance'::regnamespace and c.relkind = 'v' and not coalesce(c.reloptions, '{}') @> array['security_invoker=true']`,
  "an amount or a time that is not exact": `
    select c.oid::regclass || '.' || a.attname || ' ' || format_type(a.atttypid, null) from pg_attribute a join pg_class c on c.oid = a.attrelid
    where c.relnamespace = 'governance'::regnamespace and c.relkind in ('r', 'p') and a.attnum > 0 and not a.attisdropped
      and a.atttypid in ('real'::regtype, 'double precision'::regtype, 'money'::regtype, 'timestamp'::regtype, 'time'::regtype, 'json'::regtype, 'varchar'::regtype, 'bpchar'::regtype)`,
  "an index that another one makes superfluous": `
    select a.indexrelid::regclass || ' beside ' || b.indexrelid::regclass from pg_index a join pg_index b on b.indrelid = a.indrelid and b.indexrelid <> a.indexrelid
    join pg_class c on c.oid = a.indrelid join pg_class x on x.oid = a.indexrelid join pg_class y on y.oid = b.indexrelid and y.relam = x.relam
    where c.relnamespace = 'governance'::regnamespace and not c.relispartition and not a.indisunique and a.indexprs is null and b.indexprs is null
      and a.indpred is not distinct from b.indpred and (b.indkey::int2[])[0:a.indnatts - 1] = (a.indkey::int2[])[0:a.indnatts - 1] and (b.indoption::int2[])[0:a.indnatts - 1] = (a.indoption::int2[])[0:a.indnatts - 1]`,
  "a name that is not in lower case with underscores": `
    select c.relname::text from pg_class c where c.relnamespace = 'governance'::regnamespace and c.relkind in ('r', 'p', 'v', 'S', 'i') and c.relname !~ '^[a-z][a-z0-9_]*$'
    union all select a.attname::text from pg_attribute a join pg_class c on c.oid = a.attrelid where c.relnamespace = 'governance'::regnamespace and c.relkind in ('r', 'p', 'v') and a.attnum > 0 and not a.attisdropped and a.attname !~ '^[a-z][a-z0-9_]*$'
    union all select p.proname::text from pg_proc p where p.pronamespace in ('governance'::regnamespace, 'public'::regnamespace) and p.proowner = ${ours} and p.proname !~ '^[a-z][a-z0-9_]*$'`,
};

async function findings(client: pg.Client): Promise<Record<string, string[]>> {
  const found: Record<string, string[]> = {};
  for (const [name, question] of Object.entries(lints)) {
    const { rows } = await client.query<{ what: string }>(
      `select x.what from (${question}) x(what) order by 1`,
    );
    if (rows.length > 0) found[name] = rows.map(({ what }) => what);
  }
  return found;
}

describe("our conventions", () => {
  it("hold for every table, index and function", async () => {
    const { client } = await project(18);
    expect(await findings(client)).toEqual({});
    await client.end();
  });

  it("are noticed where they do not", async () => {
    const { client } = await project(18);
    await client.query(`
      create table governance."Faulty" (amount double precision, at timestamp);
      grant select on governance."Faulty" to authenticated;
      create view governance.leaky as select 1 as x;
      create index first on governance.lots (lot_id);
      create function public.faulty() returns int language plpgsql security definer as 'begin return 1; end';
      alter table governance."Faulty" owner to project_owner;
      alter view governance.leaky owner to project_owner;
      alter function public.faulty() owner to project_owner`);
    expect(Object.keys(await findings(client)).sort()).toEqual(Object.keys(lints).sort());
    await client.end();
  });
});

const hasCheck = existsSync("/usr/share/postgresql/15/extension/plpgsql_check.control");
describe.runIf(postgresUrls()[15] !== null && hasCheck)("Supabase's linters on PostgreSQL 15", () => {
  it("`supabase db lint` finds no error, and no warning but two kinds", async () => {
    const { url, client } = await project(15);
    await client.end();
    interface Linted {
      readonly function: string;
      readonly issues: readonly { readonly level: string; readonly message: string }[];
    }
    const found = (
      await supabase<Linted>(
        "db",
        "lint",
        "--db-url",
        url,
        "--schema",
        "public,governance",
        "--level",
        "warning",
      )
    ).flatMap(({ function: name, issues }) =>
      issues.map(({ level, message }) => `${name}: ${level}: ${message}`),
    );
    // The rules' functions have a parameter a fact, whether a rule reads it or not; and a variable may be set to a constant
    // of another type.
    const expected =
      /^governance\.(evaluate_rules|rules_topic|rules_complexity): warning( extra)?: (unused (parameter|variable) |parameter "f_provider" is never read)|: warning: target type is different type than source type$/;
    expect(found.filter((line) => !expected.test(line))).toEqual([]);
  });

  it("plpgsql_check finds nothing in a trigger's function", async () => {
    const { client } = await project(15);
    await client.query("create extension plpgsql_check");
    const { rows } = await client.query<{ checked: number; found: string[] | null }>(`
      select count(distinct t.tgfoid)::int as checked, array_agg(p.proname || ': ' || c.message) filter (where c.message is not null) as found
      from pg_trigger t join pg_class r on r.oid = t.tgrelid and r.relnamespace = 'governance'::regnamespace and not t.tgisinternal
      join pg_proc p on p.oid = t.tgfoid join pg_language l on l.oid = p.prolang and l.lanname = 'plpgsql'
      left join lateral plpgsql_check_function_tb(t.tgfoid, t.tgrelid, fatal_errors => false) c on true`);
    await client.end();
    expect(rows[0]?.checked).toBeGreaterThan(0);
    expect(rows[0]?.found).toBeNull();
  });

  it("`supabase db advisors` finds nothing that is not as it should be", async () => {
    const { url, client } = await project(15);
    await client.end();
    interface Advice {
      readonly name: string;
      readonly level: string;
      readonly detail: string;
      readonly metadata: { readonly name: string; readonly schema: string; readonly fkey_name?: string };
    }
    const found = await supabase<Advice>(
      "db",
      "advisors",
      "--db-url",
      url,
      "--type",
      "all",
      "--level",
      "info",
      "--fail-on",
      "none",
    );
    expect(found.length).toBeGreaterThan(0);
    expect(found.filter(({ level }) => level !== "INFO").length).toBe(Object.keys(withoutSearchPath).length);
    const unexplained = found.filter(({ name, metadata }) => {
      // On purpose: no role of the API has a row of any table.
      if (name === "rls_enabled_no_policy") return metadata.schema !== "governance";
      if (name === "function_search_path_mutable")
        return metadata.schema !== "governance" || !(metadata.name in withoutSearchPath);
      // Nothing is ever deleted from the tables that these point to, so nothing looks along them.
      if (name === "unindexed_foreign_keys")
        return ![
          "accounts_plan_id_fkey",
          "alert_events_alert_id_fkey",
          "stripe_customers_account_id_fkey",
          "stripe_subscriptions_account_id_fkey",
          "reconciliation_periods_run_id_fkey",
        ].includes(metadata.fkey_name ?? "");
      // A database that is a minute old has used few of its indexes.
      return name !== "unused_index";
    });
    expect(unexplained.map(({ name, detail }) => `${name}: ${detail}`)).toEqual([]);
  });
});
