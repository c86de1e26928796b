/**
 * Upkeep that was away for months comes back under Supabase's statement timeout, in steps that are kept, while calls go
 * on; and a round that fails or is cut off at one step keeps what the others did.
 */
import pg from "pg";
import { describe, expect, it } from "vitest";
import { installedVersions, openProject, type Project } from "../../support/project.ts";

const users = 400;

/** Accounts of four months ago, each with a call that nobody settled, a lot that expires, and usage on many days. */
async function goAway(project: Project): Promise<void> {
  await project.sql.query("select governance.set_test_clock(now() - interval '4 months')");
  await project.sql.query(`
    select public.upsert_account('user-' || i, 'starter') from generate_series(1, ${users}) i`);
  await project.sql.query(`
    select public.update_user_token_balance('user-' || i, 500, 'bonus', p_expires_at => governance.now() + interval '3 days'),
      public.authorize_usage('held-' || i, 'user-' || i, 'gpt-4o-mini', 100)
    from generate_series(1, ${users}) i`);
  await project.sql.query(`
    insert into governance.usage_daily (account_id, day, model, calls, charged_tokens, first_activity_at, last_activity_at)
    select a.account_id, (governance.now() + n * interval '1 day')::date, 'old', 1, 0, governance.now(), governance.now()
    from governance.accounts a cross join generate_series(1, 20) n`);
  await project.sql.query("select governance.set_test_clock(null)");
}

interface Round {
  readonly more: boolean;
  readonly allowances_reset: number;
  readonly expired_reservations: number;
  readonly expired_grants: number;
}

describe.each(installedVersions())("on PostgreSQL %i", (version) => {
  it("goes on in rounds that each end in time, and no call waits long for it", async () => {
    const project = await openProject(version, { connections: 4 });
    await goAway(project);
    const upkeep = new pg.Client({ connectionString: project.ownerUrl });
    const caller = new pg.Client({ connectionString: project.ownerUrl });
    await Promise.all([upkeep.connect(), caller.connect()]);
    await upkeep.query("set statement_timeout = '8s'");
    // A call that waits longer than this for any lock fails. (200 ms is what is promised; the rest is for a slow machine.)
    await caller.query("set lock_timeout = '500ms'");
    let isDone = false;
    let slowest = 0;
    let calls = 0;
    const calling = (async () => {
      for (let n = 0; !isDone; n += 1) {
        const started = performance.now();
        // Half of the users make calls: what a call meets first, it rolls itself.
        const user = `user-${1 + ((n * 7919) % (users / 2))}`;
        await caller.query("select public.authorize_usage($1, $2, 'gpt-4o-mini', 10)", [`call-${n}`, user]);
        await caller.query("select public.settle_usage($1, 5, 5)", [`call-${n}`]);
        if (n % 3 === 0)
          await caller.query("select public.upsert_account($1, p_display_name => $2)", [user, `Name ${n}`]);
        slowest = Math.max(slowest, performance.now() - started);
        calls += 1;
      }
    })();
    const sums = { allowances: 0, holds: 0, lots: 0 };
    let rounds = 0;
    let longest = 0;
    for (let more = true; more; rounds += 1) {
      expect(rounds).toBeLessThan(500);
      const started = performance.now();
      const { rows } = await upkeep.query<{ round: Round }>("select public.run_maintenance() as round");
      longest = Math.max(longest, performance.now() - started);
      const round = rows[0]?.round as Round;
      more = round.more;
      sums.allowances += round.allowances_reset;
      sums.holds += round.expired_reservations;
      sums.lots += round.expired_grants;
    }
    isDone = true;
    await calling;
    console.log(
      `PostgreSQL ${version}: back in ${rounds} rounds of at most ${Math.round(longest)} ms, beside ${calls} calls of at most ${Math.round(slowest)} ms`,
    );
    expect(sums.allowances).toBeGreaterThanOrEqual(users / 2);
    const left = await project.one<{ due: string; held: string }>(`
      select (select count(*) from governance.accounts a where governance.needs_roll(a, governance.now())) as due,
        (select count(*) from governance.requests where status = 'held') as held`);
    expect(left).toEqual({ due: "0", held: "0" });
    await Promise.all([upkeep.end(), caller.end()]);
    await project.close();
  });

  it("keeps what the other steps did when one fails or is stopped by the timeout, and does less of it next time", async () => {
    const project = await openProject(version, { connections: 2 });
    await project.rpc("authorize_usage", {
      p_request_id: "r",
      p_user_id: "u",
      p_model: "m",
      p_estimated_tokens: 10,
    });
    await project.sql.query(`
      create or replace function governance.check_rollups(p_now timestamptz, p_limit int default 200) returns int
        language plpgsql set search_path = '' as $$ begin perform pg_sleep(5); return 0; end $$;
      create or replace function governance.check_doors(p_now timestamptz) returns int
        language plpgsql set search_path = '' as $$ begin raise exception 'broken on purpose'; end $$`);
    const client = await project.sql.connect();
    await client.query("set statement_timeout = '2s'");
    const first = await client.query("select public.run_maintenance() as round");
    expect(first.rows[0].round).toMatchObject({ more: true });
    const state = async () =>
      project.one<{ value: { next: number; shares: Record<string, number> } }>(
        "select value from governance.maintenance_state where key = 'rounds'",
      );
    expect((await state()).value.shares["rollups"]).toBe(0.25);
    // It is repaired; the broken step is an alert, and the rest goes on.
    await project.sql.query(`create or replace function governance.check_rollups(p_now timestamptz, p_limit int default 200) returns int
        language plpgsql set search_path = '' as $$ begin return 0; end $$`);
    await project.setClock(new Date(Date.now() + 3_600_000).toISOString());
    // A round that is short of time leaves the rest to the next one, on a busy machine too.
    await client.query("set statement_timeout = '2min'");
    const round = async () => (await client.query("select public.run_maintenance() as round")).rows[0].round;
    expect(await round()).toMatchObject({ expired_reservations: 1 });
    expect((await state()).value.shares["rollups"]).toBe(0.5);
    // What others have under way on the server, the next rounds wait for.
    await expect.poll(round).toMatchObject({ more: false });
    const { alerts } = await project.rpc<{ alerts: { kind: string; message: string }[] }>("console_alerts");
    expect(alerts).toContainEqual(
      expect.objectContaining({
        kind: "upkeep_failed",
        message: "Upkeep failed at doors: broken on purpose",
      }),
    );
    client.release();
    await project.close();
  });

  it("says once that it was away, also when only deliveries go on", async () => {
    const project = await openProject(version);
    await project.rpc("run_maintenance");
    const late = async () =>
      (await project.rpc<{ alerts: { kind: string }[] }>("console_alerts")).alerts.filter(
        ({ kind }) => kind === "upkeep_late",
      ).length;
    expect(await late()).toBe(0);
    await project.sql.query(
      "update governance.maintenance_state set updated_at = clock_timestamp() - interval '20 minutes' where key = 'rounds'",
    );
    await project.rpc("claim_notifications");
    expect(await late()).toBe(1);
    await project.rpc("run_maintenance");
    await project.rpc("run_maintenance");
    expect(await late()).toBe(1);
    await project.close();
  });
});
