/** Changes of published tables: who asked for them, and what each caller may see of one. */
import { type Database, quoteIdentifier, quoteLiteral } from "./database.ts";
import type { Caller } from "./keys.ts";

interface Watching {
  readonly database: Database;
  /** The text of realtime.sql. */
  readonly triggersSql: string | null;
  readonly log: (sentence: string) => void;
}

export interface Subscription {
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

export interface Change {
  readonly schema: string;
  readonly table: string;
  readonly type: string;
  readonly commit_timestamp: string;
  readonly record?: Record<string, unknown>;
  readonly old_record?: Record<string, unknown>;
  readonly too_large?: boolean;
}

const UNWATCHED_TABLES = `
  select case when to_regprocedure('local_realtime.notify_change()') is null then 1 else count(*) end
  from pg_publication_tables p
  where p.pubname = 'supabase_realtime' and not exists (
    select from pg_trigger t where t.tgname = 'local_realtime_notify_change'
      and t.tgrelid = format('%I.%I', p.schemaname, p.tablename)::regclass)`;

/** Puts the triggers of realtime.sql on every published table; tables may have been published since the last time. */
export async function installTriggers({ database, triggersSql, log }: Watching): Promise<void> {
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

/** Why these tables cannot be watched by this role, or null. */
export async function findProblem(
  watching: Watching,
  caller: Caller,
  asked: readonly Record<string, unknown>[],
): Promise<string | null> {
  if (asked.length === 0) return null;
  const unread = asked.find((one) => toSubscription(one, 0) === null);
  if (unread) return unable(unread, "the event or the filter is not known");
  await installTriggers(watching);
  for (const { schema, table } of asked.flatMap((one) => toSubscription(one, 0) ?? [])) {
    if (schema === "*" || table === "*") continue;
    const rows = await watching.database.run(
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

function unable(one: Record<string, unknown>, why: string): string {
  const show = (value: unknown, otherwise: string): string => (typeof value === "string" ? value : otherwise);
  const given = `[schema: ${show(one.schema, "public")}, table: ${show(one.table, "*")}, filters: ${show(one.filter, "[]")}]`;
  return `Unable to subscribe to changes with given parameters (${why}). Please check Realtime is enabled for the given connect parameters: ${given}`;
}

/**
 * The change as this caller may see it, or null where they may not: columns they may select, and for a table with
 * row level security the row itself, selected as them. A deleted row cannot be selected: only its key is sent.
 */
export async function visibleTo(
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

export function matches({ event, schema, table, filter }: Subscription, change: Change): boolean {
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

export function toSubscription(asked: Record<string, unknown>, id: number): Subscription | null {
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
