/** The outbox: acts that wait to be sent, and the last that were. */
import type { Failure, Intent } from "../../../shared/contract/index.ts";
import { parse, type Row, type Sql, write } from "./sql.ts";

const maxSettledIntents = 500;

/** An intent with what is needed to send it. */
export interface OutboxEntry extends Intent {
  readonly profile_id: string;
  /** The call's own arguments, by kind. */
  readonly payload: Readonly<Record<string, unknown>>;
}

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

export function storeIntents({ run, all, one, exec }: Sql) {
  return {
    putIntent(entry: OutboxEntry): void {
      // On the disk before it is sent: nobody else has it.
      exec("pragma synchronous = full");
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
      exec("pragma synchronous = normal");
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
  };
}
