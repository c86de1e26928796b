/** The last answers of each project and the users seen, for reading offline. */
import type { AccountRow } from "../../../shared/contract/index.ts";
import { parse, type Sql, write } from "./sql.ts";

/** Bounds, so that a desk that runs for years stays small. */
const maxSnapshots = 2_000;
const maxAccountsSeen = 20_000;

export interface Snapshot {
  readonly value: unknown;
  /** When the project answered it. */
  readonly at: string;
}

export function storeSnapshots({ run, all, one, inTransaction }: Sql) {
  return {
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
  };
}
