/** The projects this console knows (never their keys), and what a person set. */
import type { Profile } from "../../../shared/contract/index.ts";
import { parse, type Sql, write } from "./sql.ts";

/** What is read through a profile, or done in its project. */
const tablesOfProfiles = ["snapshots", "accounts_seen", "feed_tail", "cursors", "outbox", "runs"] as const;

/** What was under way while a profile was removed writes nothing of it again. */
function keepOutRemoved(exec: Sql["exec"]): void {
  const keepOut = (table: string, condition: string): string =>
    `create temp trigger keep_out_${table} before insert on main.${table} when ${condition}
     begin select raise(ignore); end;`;
  exec(`
    create temp table removed_profiles (profile_id text primary key);
    ${tablesOfProfiles.map((table) => keepOut(table, "new.profile_id in (select profile_id from removed_profiles)")).join("\n")}
    ${keepOut("differences", "not exists (select 1 from runs where run_id = new.run_id)")}
    ${keepOut("settings", "exists (select 1 from removed_profiles where new.key like '%.' || profile_id)")}
  `);
}

export function storeProfiles({ run, all, one, exec, inTransaction }: Sql) {
  keepOutRemoved(exec);
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
        // The local project has no profile of its own in the table: where it is replaced, another is kept under its name.
        run(
          "insert or ignore into removed_profiles select profile_id from profiles where profile_id = ?",
          profileId,
        );
        run(
          "delete from differences where run_id in (select run_id from runs where profile_id = ?)",
          profileId,
        );
        for (const table of ["profiles", ...tablesOfProfiles])
          run(`delete from ${table} where profile_id = ?`, profileId);
        run("delete from settings where key = 'selected_profile' and value = ?", JSON.stringify(profileId));
        run("delete from settings where key like '%.' || ?", profileId);
      });
      // Deleted rows stay readable in the file until it is written again.
      exec("vacuum; pragma wal_checkpoint(truncate)");
    },
  };
}
