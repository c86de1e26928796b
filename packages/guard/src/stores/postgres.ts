import type { QueuedSettlement, SettlementStore } from "../../../../shared/governance/guard/index.ts";

/** What the store needs of a PostgreSQL client: `pg`'s Pool and Client have it. */
export interface PostgresClient {
  query(text: string, values: unknown[]): PromiseLike<{ readonly rows: readonly unknown[] }>;
}

/**
 * Settlements in a table of your PostgreSQL, made at the first use: for several machines. Not in the governed project's
 * own database: it must be reachable while that one is not. Throws a RangeError for a table that is no plain name.
 */
export function postgresStore(client: PostgresClient, table = "guard_settlements"): SettlementStore {
  if (!/^[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)?$/.test(table))
    throw new RangeError(`The table ${JSON.stringify(table)} is not a plain name in lower case.`);
  let made: Promise<unknown> | null = null;
  async function query(text: string, values: unknown[]): Promise<readonly unknown[]> {
    made ??= Promise.resolve(
      client.query(
        `create table if not exists ${table} (id text primary key, queued_at_ms bigint not null, entry text not null)`,
        [],
      ),
    );
    try {
      await made;
    } catch (error) {
      // Two processes that make the table at once: one of them gets the error that it exists.
      made = null;
      if ((error as { code?: unknown }).code !== "23505") throw error;
    }
    return (await client.query(text, values)).rows;
  }
  return {
    async put(entry) {
      await query(
        `insert into ${table} (id, queued_at_ms, entry) values ($1, $2, $3)
         on conflict (id) do update set entry = excluded.entry`,
        [entry.id, entry.queued_at_ms, JSON.stringify(entry)],
      );
    },
    async remove(id) {
      await query(`delete from ${table} where id = $1`, [id]);
    },
    async list() {
      const rows = await query(`select entry from ${table} order by queued_at_ms, id`, []);
      return rows.map((row) => JSON.parse((row as { entry: string }).entry) as QueuedSettlement);
    },
  };
}
