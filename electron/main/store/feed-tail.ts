/** The newest events of each project's feed, and the cursor after them. */
import type { UsageEvent } from "../../../shared/contract/index.ts";
import { parse, type Sql } from "./sql.ts";

export const maxFeedTail = 5_000;

export function storeFeedTail({ run, all, one, inTransaction }: Sql) {
  return {
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
  };
}
