/**
 * What was read of one Stripe account, in a file of the data folder: a page and how far the reading got are written
 * together, so that an interruption at any moment loses nothing. No key is in it, no card and no address.
 */
import { chmodSync, mkdirSync, rmSync } from "node:fs";
import { dirname } from "node:path";
import { DatabaseSync } from "node:sqlite";
import {
  STRIPE_RESOURCES,
  type StripeAccountRecords,
  type StripeRecords,
  type StripeResource,
} from "../../../../shared/governance/reconciliation/index.ts";

/** Changes with what is kept of an object: then everything is read again. */
const version = 1;

const schema = `
  create table objects (
    resource text not null,
    id text not null,
    created integer not null,
    -- Milliseconds. What is new counts as changed in the second it was made, what was read before when that was seen.
    read_at integer not null,
    changed_at integer not null,
    is_final integer not null,
    -- The object that it moves money for: of a balance transaction its source, of a refund or dispute its charge.
    about text,
    record text not null,
    primary key (resource, id)
  ) strict, without rowid;
  create index objects_created on objects (resource, created, id);
  create index objects_open on objects (resource, created) where is_final = 0;
  create index objects_read on objects (resource, read_at) where about is not null;
  create table readings (
    resource text primary key,
    -- All that was created from here to there is here.
    covered_from integer,
    covered_through integer,
    -- A reading under way, from the newest to the oldest: after which object it goes on.
    open_from integer,
    open_through integer,
    open_after text
  ) strict;
  -- What was read until then (milliseconds) and speaks of another object has led to that being read again.
  create table followed (through integer not null) strict;
  insert into followed values (0);
`;

const putObject = `insert into objects values (:resource, :id, :created, :now, :created * 1000 + 999, :is_final, :about, :record)
   on conflict (resource, id) do update set read_at = :now, is_final = :is_final, about = :about, record = :record,
     changed_at = case when record = :record then changed_at else :now end`;

const objectsSince = `with moved as (select about as id from objects where resource = 'balance_transactions' and created >= :since),
     returned as (select about as id from objects where resource in ('refunds', 'disputes')
       and (created >= :since or id in (select id from moved)))
   select record from objects where resource = :resource and (created >= :since or :resource = 'invoices'
     or (:resource in ('refunds', 'disputes', 'charges') and id in (select id from moved))
     or (:resource = 'charges' and id in (select id from returned)))
   order by created, id`;

function objectsSpokenOf(speakers: readonly StripeResource[], idForms: readonly string[]): string {
  const form = idForms.map((glob) => `s.about glob '${glob}'`).join(" or ");
  return `select distinct s.about as id from objects s left join objects o on o.resource = :resource and o.id = s.about
   where s.resource in (${speakers.map((name) => `'${name}'`).join(", ")}) and s.about is not null
     and s.read_at > (select through from followed) and (${form}) and (o.id is null or o.read_at <= s.changed_at)
   order by 1`;
}

/** From and through, both included, in seconds since 1970. */
export interface Span {
  readonly from: number;
  readonly through: number;
}

interface Reading {
  readonly covered: Span | null;
  readonly open: (Span & { readonly after: string | null }) | null;
}

export type StripeCache = ReturnType<typeof openStripeCache>;

/** Opens the account's file, made if missing. */
export function openStripeCache(path: string) {
  const database = openCurrent(path);
  const put = database.prepare(putObject);
  const setReading = database.prepare("insert or replace into readings values (?, ?, ?, ?, ?, ?)");
  const getRecord = database.prepare("select record from objects where resource = ? and id = ?");
  const getReading = database.prepare("select * from readings where resource = ?");

  return {
    reading(resource: StripeResource): Reading {
      const row = getReading.get(resource) as Readonly<Record<string, number | string | null>> | undefined;
      const span = (from: unknown, through: unknown): Span | null =>
        typeof from === "number" && typeof through === "number" ? { from, through } : null;
      const underWay = span(row?.["open_from"], row?.["open_through"]);
      return {
        covered: span(row?.["covered_from"], row?.["covered_through"]),
        open: underWay && { ...underWay, after: (row?.["open_after"] as string | null) ?? null },
      };
    },

    /** Keeps objects as they were at `now`, in milliseconds; with `reading`, also how far that got. */
    keep<R extends StripeResource>(
      resource: R,
      records: readonly StripeRecords[R][],
      now: number,
      reading?: Reading,
    ): void {
      inTransaction(database, () => {
        for (const record of records)
          put.run({
            resource,
            id: record.id,
            created: record.created,
            now,
            is_final: record.is_final ? 1 : 0,
            about: aboutOf(resource, record),
            record: JSON.stringify(record),
          });
        if (reading)
          setReading.run(
            resource,
            reading.covered?.from ?? null,
            reading.covered?.through ?? null,
            reading.open?.from ?? null,
            reading.open?.through ?? null,
            reading.open?.after ?? null,
          );
      });
    },

    /** Objects that Stripe had not finished with when they were read, before `now`; none older than `from`. */
    unfinished(resource: StripeResource, from: number, now: number): string[] {
      return database
        .prepare(
          "select id from objects where resource = ? and is_final = 0 and created >= ? and read_at < ? order by created, id",
        )
        .all(resource, from, now)
        .map((row) => String(row["id"]));
    },

    /** Objects of a kind that a newer object refers to than the time they were read at, or that were never read. */
    spokenOf(
      resource: StripeResource,
      speakers: readonly StripeResource[],
      idForms: readonly string[],
    ): string[] {
      return database
        .prepare(objectsSpokenOf(speakers, idForms))
        .all({ resource })
        .map((row) => String(row["id"]));
    },
    /** All that was read until then has been followed. */
    setFollowed(through: number): void {
      database.prepare("update followed set through = ?").run(through);
    },

    record<R extends StripeResource>(resource: R, id: string): StripeRecords[R] | null {
      const row = getRecord.get(resource, id);
      return row ? (JSON.parse(String(row["record"])) as StripeRecords[R]) : null;
    },

    /**
     * All that was created from `since` on, and what is older but was referred to since: disputes and refunds that
     * moved money, and the charges that they belong to. In order of `created`, then id.
     */
    *records<R extends StripeResource>(resource: R, since: number): Generator<StripeRecords[R]> {
      const rows = database.prepare(objectsSince).iterate({ resource, since });
      for (const row of rows) yield JSON.parse(String(row["record"])) as StripeRecords[R];
    },

    counts(): Record<StripeResource, number> {
      const counts = Object.fromEntries(STRIPE_RESOURCES.map((name) => [name, 0])) as Record<
        StripeResource,
        number
      >;
      for (const row of database.prepare("select resource, count(*) as n from objects group by 1").all())
        counts[row["resource"] as StripeResource] = Number(row["n"]);
      return counts;
    },

    close: () => database.close(),
  };
}

function aboutOf(resource: StripeResource, record: StripeRecords[StripeResource]): string | null {
  if (resource === "balance_transactions") return (record as StripeRecords["balance_transactions"]).source;
  return resource === "refunds" || resource === "disputes"
    ? (record as StripeRecords["refunds"]).charge
    : null;
}

function inTransaction(database: DatabaseSync, work: () => void): void {
  database.exec("begin immediate");
  try {
    work();
    database.exec("commit");
  } catch (error) {
    database.exec("rollback");
    throw error;
  }
}

/** The file with this version's tables: one of another version is forgotten, as all can be read again. */
function openCurrent(path: string): DatabaseSync {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  let database = open(path);
  const kept = Number(database.prepare("pragma user_version").get()?.["user_version"]);
  if (kept === version) return database;
  if (kept !== 0) {
    database.close();
    forgetStripeCache(path);
    database = open(path);
  }
  database.exec(`begin; ${schema} pragma user_version = ${version}; commit`);
  chmodSync(path, 0o600);
  return database;
}

function open(path: string): DatabaseSync {
  const database = new DatabaseSync(path);
  database.exec("pragma journal_mode = wal; pragma synchronous = normal; pragma busy_timeout = 5000");
  return database;
}

function forgetStripeCache(path: string): void {
  for (const end of ["", "-wal", "-shm"]) rmSync(`${path}${end}`, { force: true });
}

/** What the reconciler reads of it. A checkout begins up to a day before it is paid. */
export function stripeAccountRecords(
  cache: StripeCache,
  account: { readonly account_id: string; readonly livemode: boolean },
  since: number,
): StripeAccountRecords {
  return {
    ...account,
    balance_transactions: () => cache.records("balance_transactions", since),
    charges: () => cache.records("charges", since),
    charge: (id) => cache.record("charges", id),
    refunds: () => cache.records("refunds", since),
    disputes: () => cache.records("disputes", since),
    checkout_sessions: () => cache.records("checkout_sessions", since - 2 * 86_400),
    invoices: () => cache.records("invoices", since),
  };
}
