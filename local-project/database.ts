/** The one thing the endpoint needs of a database, on PGlite or on a PostgreSQL server. */
import type { PGlite } from "@electric-sql/pglite";
import pg from "pg";
import { isPostgresError } from "./errors.ts";
import { pgConnection, type SqlConnection } from "./migrations.ts";

/** A row, each value as PostgreSQL's text. */
export type Row = readonly (string | null)[];

/** Runs statements and returns the rows of the last one. */
export type RunSql = (sql: string) => Promise<Row[]>;

/** A caller's settings, then the one statement whose rows are the answer. */
export type Statements = readonly [settings: string, answer: string];

export interface Database {
  /**
   * Runs statements as one transaction in one round trip: without `begin`, PostgreSQL takes a query of several
   * statements as one, and what `set_config(…, true)` sets ends with it.
   */
  readonly run: RunSql;
  /**
   * One call that may write: a transaction of its own, or one it shares with calls that wait at the same time. It
   * fails alone, and is answered once committed, in either.
   */
  runShared(statements: Statements): Promise<Row[]>;
  /** Several round trips in one transaction; rolled back where `work` throws. */
  transaction<T>(work: (run: RunSql) => Promise<T>): Promise<T>;
  /** Receives notifications until closed. `onReconnect`: some may have been missed. */
  listen(
    channels: readonly string[],
    onNotification: (channel: string, payload: string) => void,
    onReconnect: () => void,
  ): Promise<void>;
  /** A connection of its own, for migrations. */
  withConnection<T>(work: (connection: SqlConnection) => Promise<T>): Promise<T>;
  close(): Promise<void>;
}

const asText = (value: string): string => value;
/** bool, int8, int2, int4, json, jsonb: what PGlite would parse of the types that the endpoint selects. */
const PARSED_TYPES = [16, 20, 21, 23, 114, 3802];

/** Calls that share a transaction at most. */
const LARGEST_SHARE = 64;

interface Waiting {
  readonly statements: Statements;
  readonly resolve: (rows: Row[]) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * PGlite runs one statement at a time, and a commit is most of what a small call costs: the calls that came while it
 * was busy go into one transaction, as many as wait.
 */
export function pgliteDatabase(db: PGlite): Database {
  const parsers = Object.fromEntries(PARSED_TYPES.map((type) => [type, asText]));
  const options = { rowMode: "array", parsers } as const;
  const rowsOf = (results: { rows: unknown[] }[]): Row[] => (results.at(-1)?.rows ?? []) as Row[];
  const run: RunSql = async (sql) => rowsOf(await db.exec(sql, options));
  let waiting: Waiting[] = [];
  let draining = false;

  async function drain(): Promise<void> {
    if (draining) return;
    draining = true;
    while (waiting.length > 0) {
      const share = waiting.slice(0, LARGEST_SHARE);
      waiting = waiting.slice(LARGEST_SHARE);
      if (share.length === 1 || !(await runTogether(share))) await runAlone(share);
    }
    draining = false;
  }

  /** False where one of them failed and took the others with it: nothing was kept, and none is answered. */
  async function runTogether(share: readonly Waiting[]): Promise<boolean> {
    try {
      const results = await db.exec(share.flatMap(({ statements }) => statements).join(";"), options);
      share.forEach(({ resolve }, index) => resolve((results[2 * index + 1]?.rows ?? []) as Row[]));
      return true;
    } catch {
      return false;
    }
  }

  async function runAlone(share: readonly Waiting[]): Promise<void> {
    for (const { statements, resolve, reject } of share)
      await run(statements.join(";")).then(resolve, reject);
  }

  return {
    run,
    runShared: (statements) =>
      new Promise((resolve, reject) => {
        waiting.push({ statements, resolve, reject });
        void drain();
      }),
    transaction: (work) =>
      db.transaction((transaction) => work(async (sql) => rowsOf(await transaction.exec(sql, options)))),
    async listen(channels, onNotification) {
      for (const channel of channels) await db.listen(channel, (payload) => onNotification(channel, payload));
    },
    withConnection: (work) => work(db),
    close: () => db.close(),
  };
}

interface PostgresDatabaseOptions {
  /** Connections at most, beside the one that listens. */
  readonly poolSize?: number;
  /** Called when the listening connection is lost or regained. */
  readonly log?: (sentence: string) => void;
}

const LISTEN_RETRY_MS = 1000;

export function postgresDatabase(
  connectionString: string,
  { poolSize = 20, log = () => {} }: PostgresDatabaseOptions = {},
): Database {
  const pool = new pg.Pool({
    connectionString,
    max: poolSize,
    connectionTimeoutMillis: 10_000,
    application_name: "local-project",
  });
  // An idle connection that breaks is replaced by the pool; without a listener it would end the process.
  pool.on("error", () => {});
  const types = { getTypeParser: () => asText } as unknown as pg.CustomTypesConfig;
  let closed = false;
  let listener: pg.Client | null = null;

  async function runOn(client: pg.ClientBase, sql: string): Promise<Row[]> {
    const result = (await client.query({ text: sql, rowMode: "array", types })) as unknown;
    const last = (Array.isArray(result) ? result.at(-1) : result) as { rows: Row[] };
    return last.rows;
  }

  /** pool.query would drop the connection after any error; only a broken one needs dropping. */
  async function withClient<T>(work: (client: pg.PoolClient) => Promise<T>): Promise<T> {
    const client = await pool.connect();
    let broken = false;
    // The pool listens to idle connections alone: one that breaks between two statements would end the process.
    const onError = (): void => {
      broken = true;
    };
    client.on("error", onError);
    try {
      return await work(client);
    } catch (error) {
      broken ||= !isPostgresError(error) || error.code.startsWith("57P");
      throw error;
    } finally {
      client.off("error", onError);
      client.release(broken);
    }
  }

  async function connectListener(
    channels: readonly string[],
    onNotification: (channel: string, payload: string) => void,
    onLost: () => void,
  ): Promise<void> {
    const client = new pg.Client({
      connectionString,
      keepAlive: true,
      application_name: "local-project realtime",
    });
    let lost = false;
    client.on("error", () => {});
    client.once("end", () => {
      if (!lost && !closed) onLost();
      lost = true;
    });
    client.on("notification", ({ channel, payload }) => onNotification(channel, payload ?? ""));
    await client.connect();
    for (const channel of channels) await client.query(`listen ${pg.escapeIdentifier(channel)}`);
    listener = client;
  }

  return {
    run: (sql) => withClient((client) => runOn(client, sql)),
    // Many connections commit together by themselves; sharing would let two transactions wait for each other.
    runShared: (statements) => withClient((client) => runOn(client, statements.join(";"))),
    transaction: (work) =>
      withClient(async (client) => {
        await client.query("begin");
        try {
          const answer = await work((sql) => runOn(client, sql));
          await client.query("commit");
          return answer;
        } catch (error) {
          await client.query("rollback").catch(() => {});
          throw error;
        }
      }),
    async listen(channels, onNotification, onReconnect) {
      const onLost = (): void => {
        log("The listening connection was lost; connecting again.");
        const retry = (): void => {
          if (closed) return;
          connectListener(channels, onNotification, onLost).then(
            () => {
              log("Listening again.");
              onReconnect();
            },
            () => setTimeout(retry, LISTEN_RETRY_MS).unref(),
          );
        };
        setTimeout(retry, LISTEN_RETRY_MS).unref();
      };
      await connectListener(channels, onNotification, onLost);
    },
    withConnection: (work) => withClient((client) => work(pgConnection(client))),
    async close() {
      closed = true;
      await listener?.end().catch(() => {});
      await pool.end();
    },
  };
}

/** A string as SQL writes it. NUL cannot be in one: callers refuse it before. */
export function quoteLiteral(value: string): string {
  // standard_conforming_strings is on since PostgreSQL 9.1: only the quote needs doubling.
  return `'${value.replaceAll("'", "''")}'`;
}

export function quoteIdentifier(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}
