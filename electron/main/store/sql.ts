/** The store's statements, each prepared once, and its JSON columns. */
import type { DatabaseSync, SQLInputValue } from "node:sqlite";

export type Row = Record<string, string | number | null>;

export interface Sql {
  /** Answers how many rows it changed. */
  readonly run: (sql: string, ...values: SQLInputValue[]) => number;
  readonly all: (sql: string, ...values: SQLInputValue[]) => Row[];
  readonly one: (sql: string, ...values: SQLInputValue[]) => Row | undefined;
  /** Several statements, or a setting of the connection. */
  readonly exec: (sql: string) => void;
  readonly inTransaction: <T>(work: () => T) => T;
}

export function prepareSql(database: DatabaseSync): Sql {
  const statements = new Map<string, ReturnType<DatabaseSync["prepare"]>>();
  const prepared = (sql: string) => {
    let statement = statements.get(sql);
    if (!statement) statements.set(sql, (statement = database.prepare(sql)));
    return statement;
  };
  return {
    run: (sql, ...values) => Number(prepared(sql).run(...values).changes),
    all: (sql, ...values) => prepared(sql).all(...values) as Row[],
    one: (sql, ...values) => prepared(sql).get(...values) as Row | undefined,
    exec: (sql) => database.exec(sql),
    inTransaction(work) {
      database.exec("begin immediate");
      try {
        const answer = work();
        database.exec("commit");
        return answer;
      } catch (error) {
        database.exec("rollback");
        throw error;
      }
    },
  };
}

export const parse = (text: string | number | null | undefined): unknown =>
  text === null || text === undefined ? null : JSON.parse(String(text));

export const write = (value: unknown): string | null =>
  value === null || value === undefined ? null : JSON.stringify(value);
