/**
 * Applies supabase/migrations to a database, and a preset to its configuration. What is applied is recorded in
 * the table that Supabase's own CLI uses, so `supabase db push` and this runner agree.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type pg from "pg";
import { parse as parseYaml } from "yaml";

/** What the runner needs of a connection; PGlite is one, `pgConnection` makes one of a pg client. */
export interface SqlConnection {
  query<Row>(text: string, parameters?: unknown[]): Promise<{ rows: Row[] }>;
  /** Several statements, no parameters. */
  exec(text: string): Promise<unknown>;
}

interface Migration {
  /** 14 digits; the order in which migrations apply. */
  readonly version: string;
  readonly name: string;
  readonly sql: string;
}

interface MigrateOptions {
  /** Folder that holds `migrations/` and `presets/`; the checkout's `supabase/` unless said. */
  readonly resourcesDir?: string;
  /** Preset to apply afterwards. `ifFresh` applies it only where this run installed the first migration. */
  readonly preset?: { readonly name: string; readonly ifFresh?: boolean };
  /** The role that owns what is created, where the connection's own role should not (it must be a member). */
  readonly role?: string;
  /** Called after each step, with one sentence. */
  readonly onProgress?: (sentence: string) => void;
}

interface MigrateOutcome {
  /** File names, without `.sql`, that this run applied. */
  readonly applied: readonly string[];
  /** How many were there already. */
  readonly present: number;
  /** What `apply_preset` answered, where one was applied. */
  readonly preset: { readonly name: string; readonly answer: unknown } | null;
}

/** The database was refused or a migration failed; the message says why and what to do, in whole sentences. */
export class MigrationError extends Error {
  override readonly name = "MigrationError";
}

/** The `supabase/` folder of the checkout. A packaged app passes its own. */
export const defaultResourcesDir = fileURLToPath(new URL("../supabase", import.meta.url));

const OLDEST_SERVER = 15;
/** One number for every installer of this product, so that they wait for each other. */
const LOCK_KEY = 7254002;

export function pgConnection(client: pg.ClientBase): SqlConnection {
  return {
    query: async <Row>(text: string, parameters?: unknown[]) => {
      const result = await client.query(text, parameters);
      return { rows: result.rows as Row[] };
    },
    exec: (text) => client.query(text),
  };
}

/**
 * The migrations in order. A file is `<14 digits>_governance_<what>.sql`: in a project that has migrations of its
 * own, `governance_` marks ours.
 */
export function readMigrations(resourcesDir = defaultResourcesDir): Migration[] {
  const folder = join(resourcesDir, "migrations");
  const migrations = readdirSync(folder)
    .filter((file) => file.endsWith(".sql"))
    .sort()
    .map((file) => {
      const match = /^(\d{14})_(governance_[a-z0-9_]+)\.sql$/.exec(file);
      if (!match?.[1] || !match[2]) {
        throw new MigrationError(
          `The migration ${file} is not named <14 digits>_governance_<what>.sql, so a project could not distinguish it from its own.`,
        );
      }
      return { version: match[1], name: match[2], sql: readFileSync(join(folder, file), "utf8") };
    });
  const twice = migrations.find((migration, index) => migrations[index - 1]?.version === migration.version);
  if (twice) throw new MigrationError(`Two migrations have the version ${twice.version}.`);
  return migrations;
}

/** Names of the presets that can be applied. */
export function listPresets(resourcesDir = defaultResourcesDir): string[] {
  return readdirSync(join(resourcesDir, "presets"))
    .filter((file) => file.endsWith(".yaml"))
    .map((file) => file.slice(0, -".yaml".length))
    .sort();
}

/** The preset as `apply_preset` takes it. */
export function readPreset(name: string, resourcesDir = defaultResourcesDir): unknown {
  const known = listPresets(resourcesDir);
  if (!known.includes(name)) {
    throw new MigrationError(`There is no preset "${name}". Presets: ${known.join(", ") || "none"}.`);
  }
  return parseYaml(readFileSync(join(resourcesDir, "presets", `${name}.yaml`), "utf8"));
}

/**
 * Applies what is missing, one transaction each. Safe to run twice and from several places at once. Throws
 * MigrationError, having changed nothing, where the database cannot take it.
 */
export async function migrate(
  connection: SqlConnection,
  options: MigrateOptions = {},
): Promise<MigrateOutcome> {
  const migrations = readMigrations(options.resourcesDir);
  const preset = options.preset && {
    ...options.preset,
    content: readPreset(options.preset.name, options.resourcesDir),
  };
  const report = options.onProgress ?? (() => {});

  await refuseOldServer(connection);
  const present = await inLockedTransaction(connection, options.role, async () => {
    const applied = await appliedVersions(connection);
    refuseNewerDatabase(migrations, applied);
    const pending = migrations.filter(({ version }) => !applied.has(version));
    if (pending.length > 0) {
      await refuseMissingRoles(connection);
      await refuseCollisions(connection, migrations, pending);
      await createRecord(connection);
    }
    return migrations.length - pending.length;
  });

  const done: string[] = [];
  for (const migration of migrations) {
    const title = `${migration.version}_${migration.name}`;
    const ranHere = await inLockedTransaction(connection, options.role, async () => {
      // Asked again under the lock: another installer may have been faster.
      if ((await appliedVersions(connection)).has(migration.version)) return false;
      await applyOne(connection, migration, title, done);
      return true;
    });
    if (ranHere) {
      done.push(title);
      report(`Applied ${title}.`);
    }
  }

  const fresh = done[0]?.startsWith(migrations[0]?.version ?? "none") ?? false;
  if (!preset || (preset.ifFresh && !fresh)) return { applied: done, present, preset: null };
  const answer = await inLockedTransaction(connection, options.role, () => applyPreset(connection, preset));
  report(`Applied the preset ${preset.name}.`);
  return { applied: done, present, preset: { name: preset.name, answer } };
}

export interface Look {
  readonly serverVersion: string;
  readonly present: number;
  /** Migrations that are missing, as `<14 digits>_<name>`. */
  readonly missing: readonly string[];
  /** Objects of the project's own under names that ours need. */
  readonly inTheWay: readonly string[];
}

/** What `migrate` would meet, without changing anything. Throws MigrationError where the database cannot take it at all. */
export async function lookAt(connection: SqlConnection, resourcesDir = defaultResourcesDir): Promise<Look> {
  const migrations = readMigrations(resourcesDir);
  await refuseOldServer(connection);
  await connection.exec("begin");
  try {
    const applied = await appliedVersions(connection);
    refuseNewerDatabase(migrations, applied);
    const pending = migrations.filter(({ version }) => !applied.has(version));
    if (pending.length > 0) await refuseMissingRoles(connection);
    const { rows } = await connection.query<{ version: string }>(
      "select current_setting('server_version') as version",
    );
    return {
      serverVersion: rows[0]?.version ?? "",
      present: migrations.length - pending.length,
      missing: pending.map(({ version, name }) => `${version}_${name}`),
      inTheWay: pending.length > 0 ? await findCollisions(connection, migrations, pending) : [],
    };
  } finally {
    await connection.exec("rollback").catch(() => {});
  }
}

/** All migrations as one file for psql, recorded as `migrate` records them; one that was applied already is skipped. */
export function migrationsAsFile(resourcesDir = defaultResourcesDir): string {
  const parts = readMigrations(resourcesDir).map(
    ({
      version,
      name,
      sql,
    }) => `select not exists (select from supabase_migrations.schema_migrations where version = '${version}') as is_missing
\\gset
\\if :is_missing
begin;
${sql}
insert into supabase_migrations.schema_migrations (version, statements, name)
values ('${version}', array[]::text[], '${name}');
commit;
\\echo 'Applied ${version}_${name}.'
\\else
\\echo '${version}_${name} is there already.'
\\endif
`,
  );
  return `-- For psql: psql "postgresql://…" -f FILE
\\set ON_ERROR_STOP on
${recordSql}
${parts.join("\n")}`;
}

const recordSql = `
    create schema if not exists supabase_migrations;
    create table if not exists supabase_migrations.schema_migrations (version text not null primary key);
    alter table supabase_migrations.schema_migrations add column if not exists statements text[];
    alter table supabase_migrations.schema_migrations add column if not exists name text;
  `;

/** Versions recorded in the database, ours and the project's own, with their names. */
async function appliedVersions(connection: SqlConnection): Promise<Map<string, string>> {
  const { rows: exists } = await connection.query<{ found: boolean }>(
    "select to_regclass('supabase_migrations.schema_migrations') is not null as found",
  );
  if (!exists[0]?.found) return new Map();
  // Old projects have the table without a name column: to_jsonb reads the columns that exist.
  const { rows } = await connection.query<{ version: string; name: string | null }>(
    "select m.version, to_jsonb(m) ->> 'name' as name from supabase_migrations.schema_migrations m order by m.version",
  );
  return new Map(rows.map(({ version, name }) => [version, name ?? ""]));
}

async function createRecord(connection: SqlConnection): Promise<void> {
  await connection.exec(recordSql);
}

async function applyOne(
  connection: SqlConnection,
  migration: Migration,
  title: string,
  done: readonly string[],
): Promise<void> {
  try {
    await connection.exec(migration.sql);
  } catch (error) {
    const kept = done.length > 0 ? ` ${done.length} before it were applied and stay.` : "";
    throw new MigrationError(
      `The migration ${title} failed${lineOf(migration.sql, error)}: ${messageOf(error)}. Nothing of it was kept.${kept}`,
      { cause: error },
    );
  }
  await connection.query(
    "insert into supabase_migrations.schema_migrations (version, statements, name) values ($1, array[$2], $3)",
    [migration.version, migration.sql, migration.name],
  );
}

async function applyPreset(
  connection: SqlConnection,
  preset: { readonly name: string; readonly content: unknown },
): Promise<unknown> {
  try {
    const { rows } = await connection.query<{ answer: unknown }>(
      "select public.apply_preset($1::text::jsonb) as answer",
      [JSON.stringify(preset.content)],
    );
    return rows[0]?.answer;
  } catch (error) {
    throw new MigrationError(
      `The preset ${preset.name} was refused: ${messageOf(error)}. Nothing of it was kept.`,
      {
        cause: error,
      },
    );
  }
}

async function inLockedTransaction<T>(
  connection: SqlConnection,
  role: string | undefined,
  work: () => Promise<T>,
): Promise<T> {
  await connection.exec("begin");
  try {
    // A transaction's lock, not a session's: Supabase's pooler may give each transaction another session.
    await connection.query(`select pg_advisory_xact_lock(${LOCK_KEY})`);
    if (role) await connection.query("select set_config('role', $1, true)", [role]);
    const answer = await work();
    await connection.exec("commit");
    return answer;
  } catch (error) {
    await connection.exec("rollback").catch(() => {});
    throw error;
  }
}

async function refuseOldServer(connection: SqlConnection): Promise<void> {
  const { rows } = await connection.query<{ number: number; version: string }>(
    "select current_setting('server_version_num')::int as number, current_setting('server_version') as version",
  );
  const server = rows[0];
  if (server && server.number < OLDEST_SERVER * 10_000) {
    throw new MigrationError(
      `The server is PostgreSQL ${server.version}. PostgreSQL ${OLDEST_SERVER} or newer is needed.`,
    );
  }
}

function refuseNewerDatabase(migrations: readonly Migration[], applied: ReadonlyMap<string, string>): void {
  const known = new Set(migrations.map(({ version }) => version));
  const unknown = [...applied].filter(
    ([version, name]) => name.startsWith("governance_") && !known.has(version),
  );
  if (unknown.length > 0) {
    const names = unknown.map(([version, name]) => `${version}_${name}`).join(", ");
    throw new MigrationError(
      `The database is newer than this program: it has ${names}, unknown here. Update the program.`,
    );
  }
}

async function refuseMissingRoles(connection: SqlConnection): Promise<void> {
  const { rows } = await connection.query<{ role: string }>(
    `select role from unnest(array['anon', 'authenticated', 'service_role']) as role
     where not exists (select from pg_roles where rolname = role) order by role`,
  );
  if (rows.length > 0) {
    throw new MigrationError(
      `This is not a Supabase project: it has no role ${rows.map(({ role }) => role).join(", ")}. ` +
        "To use a plain PostgreSQL, run local-project/bootstrap.sql in the database as superuser first.",
    );
  }
}

interface PublicObject {
  readonly kind: "function" | "relation" | "type";
  /** `public.name`, or `public.name(type, type)` for a function. */
  readonly identity: string;
}

/** Refuses where the project already has something of its own under a name that ours would take. */
async function refuseCollisions(
  connection: SqlConnection,
  migrations: readonly Migration[],
  pending: readonly Migration[],
): Promise<void> {
  const found = await findCollisions(connection, migrations, pending);
  if (found.length > 0) {
    throw new MigrationError(
      `The database already has objects of its own under names this product needs:\n${found.map((one) => `  - ${one}`).join("\n")}\n` +
        "Rename or move them, then run this again. Nothing was changed.",
    );
  }
}

async function findCollisions(
  connection: SqlConnection,
  migrations: readonly Migration[],
  pending: readonly Migration[],
): Promise<string[]> {
  const created = (some: readonly Migration[]): PublicObject[] =>
    some.flatMap(({ sql }) => publicObjects(sql));
  // Objects that an earlier migration created are ours, and may be replaced.
  const ours = new Set(
    created(migrations.filter((one) => !pending.includes(one))).map(({ identity }) => identity),
  );
  const wanted = new Map(
    created(pending)
      .filter(({ identity }) => !ours.has(identity))
      .map((object) => [object.identity, object]),
  );
  const found: string[] = [];
  if (pending.length === migrations.length) {
    const { rows } = await connection.query<{ owner: string }>(
      "select pg_get_userbyid(nspowner) as owner from pg_namespace where nspname = 'governance'",
    );
    if (rows[0]) found.push(`schema governance (owner ${rows[0].owner})`);
  }
  for (const object of wanted.values()) {
    if (await existsInDatabase(connection, object)) found.push(`${object.kind} ${object.identity}`);
  }
  return found;
}

async function existsInDatabase(connection: SqlConnection, object: PublicObject): Promise<boolean> {
  const resolve = {
    function: "to_regprocedure($1) is not null",
    relation: "to_regclass($1) is not null",
    type: "to_regtype($1) is not null",
  }[object.kind];
  await connection.exec("savepoint collision");
  try {
    const { rows } = await connection.query<{ found: boolean }>(`select ${resolve} as found`, [
      object.identity,
    ]);
    return rows[0]?.found ?? false;
  } catch {
    // An argument type that does not exist yet: then no such function can exist either.
    await connection.exec("rollback to savepoint collision");
    return false;
  }
}

/** What a migration's text creates in `public`. Reads our own migrations only: their form is known. */
export function publicObjects(sql: string): PublicObject[] {
  const objects: PublicObject[] = [];
  const code = sql.replace(/--[^\n]*/g, "").replace(/\/\*[\s\S]*?\*\//g, "");
  const pattern =
    /\bcreate\s+(?:or\s+replace\s+)?(?:unlogged\s+)?(function|procedure|table|view|materialized\s+view|sequence|type|domain)\s+(?:if\s+not\s+exists\s+)?public\.("?[a-z_][a-z0-9_]*"?)/gi;
  for (const match of code.matchAll(pattern)) {
    const [whole, what = "", name = ""] = match;
    if (/^(function|procedure)$/i.test(what)) {
      const types = argumentTypes(code, match.index + whole.length);
      if (types) objects.push({ kind: "function", identity: `public.${name}(${types.join(", ")})` });
    } else {
      objects.push({ kind: /^(type|domain)$/i.test(what) ? "type" : "relation", identity: `public.${name}` });
    }
  }
  return objects;
}

/** Input types of the argument list that opens at or after `start`, or null where there is none. */
function argumentTypes(code: string, start: number): string[] | null {
  if (!/^\s*\(/.test(code.slice(start))) return null;
  const opening = code.indexOf("(", start);
  const parts: string[] = [];
  let depth = 0;
  let quoted = false;
  let from = opening + 1;
  for (let index = opening; index < code.length; index++) {
    const character = code[index];
    if (character === "'") quoted = !quoted;
    if (quoted) continue;
    if (character === "(") depth++;
    if (character === ")") depth--;
    if (depth === 0 || (depth === 1 && character === ",")) {
      parts.push(code.slice(from, index).trim());
      from = index + 1;
    }
    if (depth === 0) break;
  }
  return parts
    .filter((part) => part !== "" && !/^out\s/i.test(part))
    .map((part) =>
      part
        .replace(/\s+(default\b|:?=)[\s\S]*$/i, "")
        .replace(/^(inout|in|variadic)\s+/i, "")
        .replace(/^"?[a-z_][a-z0-9_]*"?\s+/i, "")
        .trim(),
    );
}

function lineOf(sql: string, error: unknown): string {
  const position = Number((error as { position?: string }).position);
  return Number.isInteger(position) && position > 0
    ? ` at line ${sql.slice(0, position).split("\n").length}`
    : "";
}

function messageOf(error: unknown): string {
  const { message, detail, hint, where } = error as {
    message?: string;
    detail?: string;
    hint?: string;
    where?: string;
  };
  return [message ?? String(error), detail, hint && `hint: ${hint}`, where && `in: ${where}`]
    .filter(Boolean)
    .join("; ");
}
