/**
 * Calls through PgBouncer in transaction mode, as Supabase's pooler works: a call is one statement and keeps nothing
 * in its session, so 64 clients share four connections and the books are as exact as without it.
 */
import { describe, expect, it } from "vitest";
import { expectSoundBooks, installedVersions, openProject, projectAt } from "../../support/project.ts";
import { hasPgbouncer, startPgbouncer } from "../../support/pgbouncer.ts";

const CLIENTS = 64;
const CALLS_EACH = 12;

if (!hasPgbouncer) console.log("Skipped: PgBouncer is not installed (Debian's package pgbouncer).");

describe.runIf(hasPgbouncer).each(installedVersions())("through PgBouncer on PostgreSQL %i", (version) => {
  it("64 clients over four connections hold, settle, release and repeat exactly once", async () => {
    const project = await openProject(version, { connections: 2 });
    const pooler = await startPgbouncer(project.url, 4);
    const clients = projectAt(pooler.url, { connections: CLIENTS });
    try {
      const users = ["ann", "bob", "cem", "dia"];
      for (const user of users) {
        await project.call("upsert_account", user, "business");
      }
      await Promise.all(
        Array.from({ length: CLIENTS }, async (_, client) => {
          for (let n = 0; n < CALLS_EACH; n++) {
            const id = `${client}-${n}`;
            const user = users[(client + n) % users.length];
            const first = await clients.call("authorize_usage", id, user, "gpt-4o", 100);
            expect(first["decision"], JSON.stringify(first)).not.toBe("block");
            expect((await clients.call("authorize_usage", id, user, "gpt-4o", 100))["decision_id"]).toBe(
              first["decision_id"],
            );
            if (n % 3 === 0) await clients.call("release_usage", id, "not needed");
            else await clients.call("settle_usage", id, 30, 20);
          }
        }),
      );
      const settled = CLIENTS * CALLS_EACH - CLIENTS * Math.ceil(CALLS_EACH / 3);
      expect(
        await project.one(
          "select count(*)::int as entries, -sum(amount)::int as tokens from governance.token_transactions where transaction_type = 'usage'",
        ),
      ).toEqual({ entries: settled, tokens: settled * 50 });
      await expectSoundBooks(project);
    } finally {
      await clients.close();
      await pooler.stop();
      await project.close();
    }
  });
});
