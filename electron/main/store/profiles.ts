/** The projects this console knows (never their keys), and what a person set. */
import type { Profile } from "../../../shared/contract/index.ts";
import { parse, type Sql, write } from "./sql.ts";

export function storeProfiles({ run, all, one, exec, inTransaction }: Sql) {
  return {
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
        (row) =>
          ({
            ...row,
            is_production: row.is_production === 1,
            is_read_only: row.is_read_only === 1,
          }) as unknown as Profile,
      ),
    putProfile(profile: Profile): void {
      run(
        `insert into profiles (profile_id, name, url, read_url, kind, is_production, key_storage, added_at,
           is_read_only, color)
         values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         on conflict (profile_id) do update set name = excluded.name, url = excluded.url,
           read_url = excluded.read_url,
           is_production = excluded.is_production, key_storage = excluded.key_storage,
           is_read_only = excluded.is_read_only, color = excluded.color`,
        profile.profile_id,
        profile.name,
        profile.url,
        profile.read_url,
        profile.kind,
        profile.is_production ? 1 : 0,
        profile.key_storage,
        profile.added_at,
        profile.is_read_only ? 1 : 0,
        profile.color,
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
        run("delete from settings where key = 'selected_profile' and value = ?", JSON.stringify(profileId));
      });
      // Deleted rows stay readable in the file until it is written again.
      exec("vacuum; pragma wal_checkpoint(truncate)");
    },
  };
}
