/**
 * What the console keeps on this machine: settings, profiles (never keys), the last answers for offline reading,
 * the feed's tail and cursor, reconciliation runs, and the outbox.
 */
import type { DatabaseSync, SQLInputValue } from "node:sqlite";
import {
  type AccountRow,
  type Failure,
  type Intent,
  type Profile,
  type ReconciliationRun,
  type UsageEvent,
} from "../../../shared/contract/index.ts";
import { ok, type Result } from "../../../shared/governance/result.ts";
import { openDatabase } from "./database.ts";

export interface Snapshot {
  readonly value: unknown;
  /** When the project answered it. */
  readonly at: string;
}

/** An intent with what is needed to send it. */
export interface OutboxEntry extends Intent {
  readonly profile_id: string;
  /** The call's own arguments, by kind. */
  readonly payload: Readonly<Record<string, unknown>>;
}

export interface StoredRun {
  readonly run: ReconciliationRun;
  readonly report: unknown;
}

/** Bounds, so that a desk that runs for years stays small. */
const maxSnapshots = 2_000;
const maxAccountsSeen = 20_000;
export const maxFeedTail = 5_000;
const maxSettledIntents = 500;
const maxRuns = 30;

export type Store = ReturnType<typeof createStore>;

export interface OpenedStore {
  readonly store: Store;
  readonly path: string;
  readonly note: string | null;
}

export function openStore(dataDir: string, now?: () => Date): Result<OpenedStore, Failure> {
  const opened = openDatabase(dataDir, now);
  if (!opened.ok) return opened;
  const { database, path, note } = opened.value;
  return ok({ store: createStore(database), path, note });
}

function createStore(database: DatabaseSync) {
  type Row = Record<string, string | number | null>;
  const statements = new Map<string, ReturnType<DatabaseSync["prepare"]>>();
  const prepared = (sql: string) => {
    let statement = statements.get(sql);
    if (!statement) statements.set(sql, (statement = database.prepare(sql)));
    return statement;
  };
  const run = (sql: string, ...values: SQLInputValue[]): number =>
    Number(prepared(sql).run(...values).changes);
  const all = (sql: string, ...values: SQLInputValue[]): Row[] => prepared(sql).all(...values) as Row[];
  const one = (sql: string, ...values: SQLInputValue[]): Row | undefined =>
    prepared(sql).get(...values) as Row | undefined;

  function inTransaction<T>(work: () => T): T {
    database.exec("begin immediate");
    try {
      const answer = work();
      database.exec("commit");
      return answer;
    } catch (error) {
      database.exec("rollback");
      throw error;
    }
  }

  const parse = (text: string | number | null | undefined): unknown =>
    text === null || text === undefined ? null : JSON.parse(String(text));
  const write = (value: unknown): string | null =>
    value === null || value === undefined ? null : JSON.stringify(value);

  function toEntry(row: Row): OutboxEntry {
    return {
      ...(row as unknown as OutboxEntry),
      failure: parse(row.failure) as Failure | null,
      payload: parse(row.payload) as Record<string, unknown>,
      base: parse(row.base),
      mine: parse(row.mine),
      theirs: parse(row.theirs),
    };
  }

  // A run that was under way when the console ended will not go on.
  for (const row of all("select run from runs")) {
    const interrupted = parse(row.run) as ReconciliationRun;
    if (interrupted.status !== "running") continue;
    const ended: ReconciliationRun = { ...interrupted, status: "cancelled", phase: "interrupted" };
    run("update runs set run = ? where run_id = ?", JSON.stringify(ended), ended.run_id);
  }

  return {
    close: () => database.close(),

    getSetting: (key: string): unknown => parse(one("select value from settings where key = ?", key)?.value),
    setSetting(key: string, value: unknown): void {
      run(
        "insert into settings values (?, ?) on conflict (key) do update set value = excluded.value",
        key,
        write(value),
      );
    },

    removeSetting(key: string): void {
      run("delete from settings where key = ?", key);
    },

    listProfiles: (): Profile[] =>
      all("select * from profiles order by added_at").map(
        (row) => ({ ...row, is_production: row.is_production === 1 }) as unknown as Profile,
      ),
    putProfile(profile: Profile): void {
      run(
        `insert into profiles (profile_id, name, url, read_url, kind, is_production, key_storage, added_at)
         values (?, ?, ?, ?, ?, ?, ?, ?)
         on conflict (profile_id) do update set name = excluded.name, url = excluded.url,
           read_url = excluded.read_url,
           is_production = excluded.is_production, key_storage = excluded.key_storage`,
        profile.profile_id,
        profile.name,
        profile.url,
        profile.read_url,
        profile.kind,
        profile.is_production ? 1 : 0,
        profile.key_storage,
        profile.added_at,
      );
    },
    /** Forgets the profile and everything read through it. */
    removeProfile(profileId: string): void {
      inTransaction(() => {
        run(
          "delete from differences where run_id in (select run_id from runs where profile_id = ?)",
          profileId,
        );
        for (const table of [
          "profiles",
          "snapshots",
          "accounts_seen",
          "feed_tail",
          "cursors",
          "outbox",
          "runs",
        ]) {
          run(`delete from ${table} where profile_id = ?`, profileId);
        }
      });
    },

    getSnapshot(profileId: string, name: string): Snapshot | null {
      const row = one("select value, at from snapshots where profile_id = ? and name = ?", profileId, name);
      return row ? { value: parse(row.value), at: String(row.at) } : null;
    },
    putSnapshot(profileId: string, name: string, value: unknown, at: string): void {
      run(
        "insert into snapshots values (?, ?, ?, ?) on conflict (profile_id, name) do update set value = excluded.value, at = excluded.at",
        profileId,
        name,
        write(value) ?? "null",
        at,
      );
      run(
        `delete from snapshots where profile_id = ?1 and at <
           (select at from snapshots where profile_id = ?1 order by at desc limit 1 offset ${maxSnapshots})`,
        profileId,
      );
    },

    putAccountsSeen(profileId: string, accounts: readonly AccountRow[], at: string): void {
      inTransaction(() => {
        for (const account of accounts) {
          run(
            "insert into accounts_seen values (?, ?, ?, ?) on conflict (profile_id, user_id) do update set row = excluded.row, at = excluded.at",
            profileId,
            account.user_id,
            JSON.stringify(account),
            at,
          );
        }
        run(
          `delete from accounts_seen where profile_id = ?1 and at <
             (select at from accounts_seen where profile_id = ?1 order by at desc limit 1 offset ${maxAccountsSeen})`,
          profileId,
        );
      });
    },
    getAccountSeen(profileId: string, userId: string): AccountRow | null {
      const row = one(
        "select row from accounts_seen where profile_id = ? and user_id = ?",
        profileId,
        userId,
      );
      return parse(row?.row) as AccountRow | null;
    },
    listAccountsSeen: (profileId: string): { account: AccountRow; at: string }[] =>
      all("select row, at from accounts_seen where profile_id = ?", profileId).map((row) => ({
        account: parse(row.row) as AccountRow,
        at: String(row.at),
      })),

    getCursor: (profileId: string): string | null =>
      (one("select cursor from cursors where profile_id = ?", profileId)?.cursor as string | undefined) ??
      null,
    /** The events and the cursor that stands after them, together: a crash between them would show one twice. */
    putEvents(profileId: string, events: readonly UsageEvent[], cursor: string | null): void {
      inTransaction(() => {
        for (const event of events) {
          run(
            "insert or replace into feed_tail values (?, ?, ?)",
            profileId,
            event.event_id,
            JSON.stringify(event),
          );
        }
        run(
          `delete from feed_tail where profile_id = ?1 and event_id <
             (select event_id from feed_tail where profile_id = ?1 order by event_id desc limit 1 offset ${maxFeedTail - 1})`,
          profileId,
        );
        if (cursor !== null) {
          run(
            "insert into cursors values (?, ?) on conflict (profile_id) do update set cursor = excluded.cursor",
            profileId,
            cursor,
          );
        }
      });
    },
    /** Oldest first. */
    listFeedTail: (profileId: string): UsageEvent[] =>
      all("select event from feed_tail where profile_id = ? order by event_id", profileId).map(
        (row) => parse(row.event) as UsageEvent,
      ),
    /** What was seen belongs to a database that is not there any more. */
    forgetFeed(profileId: string): void {
      inTransaction(() => {
        run("delete from feed_tail where profile_id = ?", profileId);
        run("delete from cursors where profile_id = ?", profileId);
      });
    },

    putIntent(entry: OutboxEntry): void {
      // On the disk before it is sent: nobody else has it.
      database.exec("pragma synchronous = full");
      run(
        `insert into outbox (command_id, profile_id, kind, subject, summary, status, created_at, expires_at, attempts, failure, payload, base, mine, theirs)
         values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         on conflict (command_id) do update set status = excluded.status, attempts = excluded.attempts,
           failure = excluded.failure, payload = excluded.payload, base = excluded.base, mine = excluded.mine, theirs = excluded.theirs`,
        entry.command_id,
        entry.profile_id,
        entry.kind,
        entry.subject,
        entry.summary,
        entry.status,
        entry.created_at,
        entry.expires_at,
        entry.attempts,
        write(entry.failure),
        write(entry.payload) ?? "{}",
        write(entry.base),
        write(entry.mine),
        write(entry.theirs),
      );
      database.exec("pragma synchronous = normal");
      run(
        `delete from outbox where status in ('acknowledged', 'expired') and created_at <
           (select created_at from outbox where status in ('acknowledged', 'expired') order by created_at desc limit 1 offset ${maxSettledIntents})`,
      );
    },
    getIntent(commandId: string): OutboxEntry | null {
      const row = one("select * from outbox where command_id = ?", commandId);
      return row ? toEntry(row) : null;
    },
    /** Oldest first, as they are sent. */
    listIntents: (profileId: string): OutboxEntry[] =>
      all("select * from outbox where profile_id = ? order by created_at, rowid", profileId).map(toEntry),
    /** Those still to be sent, oldest first. */
    listPendingIntents: (profileId: string): OutboxEntry[] =>
      all(
        "select * from outbox where profile_id = ? and status = 'pending' order by created_at, rowid",
        profileId,
      ).map(toEntry),
    removeIntent(commandId: string): void {
      run("delete from outbox where command_id = ?", commandId);
    },

    putRun(profileId: string, { run: stored, report }: StoredRun): void {
      run(
        `insert into runs values (?, ?, ?, ?, ?)
         on conflict (run_id) do update set run = excluded.run, report = coalesce(excluded.report, runs.report)`,
        stored.run_id,
        profileId,
        JSON.stringify(stored),
        write(report),
        stored.started_at,
      );
      for (const old of all(
        `select run_id from runs where profile_id = ? order by started_at desc limit -1 offset ${maxRuns}`,
        profileId,
      )) {
        run("delete from differences where run_id = ?", String(old.run_id));
        run("delete from runs where run_id = ?", String(old.run_id));
      }
    },
    getRun(runId: string): StoredRun | null {
      const row = one("select run, report from runs where run_id = ?", runId);
      return row ? { run: parse(row.run) as ReconciliationRun, report: parse(row.report) } : null;
    },
    /** Newest first. */
    listRuns: (profileId: string): ReconciliationRun[] =>
      all("select run from runs where profile_id = ? order by started_at desc", profileId).map(
        (row) => parse(row.run) as ReconciliationRun,
      ),
    putDifferences(
      runId: string,
      from: number,
      differences: readonly { class: string; difference: unknown }[],
    ): void {
      inTransaction(() => {
        differences.forEach(({ class: name, difference }, index) => {
          run(
            "insert or replace into differences values (?, ?, ?, ?)",
            runId,
            from + index,
            name,
            JSON.stringify(difference),
          );
        });
      });
    },
    pageDifferences(
      runId: string,
      differenceClass: string | null,
      offset: number,
      limit: number,
    ): { differences: unknown[]; total: number } {
      const where = "run_id = ?1 and (?2 is null or class = ?2)";
      const rows = all(
        `select difference from differences where ${where} order by position limit ?3 offset ?4`,
        runId,
        differenceClass,
        limit,
        offset,
      );
      const total = Number(
        one(`select count(*) as total from differences where ${where}`, runId, differenceClass)?.total,
      );
      return { differences: rows.map((row) => parse(row.difference)), total };
    },
  };
}
