/**
 * The server's own clock moves, by libfaketime, under a running PostgreSQL: days and months end where each zone ends
 * them, on both switches of the clocks, in leap years, forward and back. No test clock is set here.
 */
import { chmodSync, existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createProjectDatabase } from "../../support/database.ts";
import { type PostgresServer, startPostgres } from "../../support/postgres.ts";
import { expectSoundBooks, installedVersions, type Project, projectAt } from "../../support/project.ts";

const library = `/usr/lib/${process.arch === "arm64" ? "aarch64" : "x86_64"}-linux-gnu/faketime/libfaketime.so.1`;

/** When a local day ends, by zone and by day: written down from the time zone database, not worked out here. */
const days: readonly [zone: string, at: string, endsAt: string, hours: number][] = [
  ["Europe/London", "2027-03-28 00:00:00", "2027-03-28T23:00:00+00:00", 23],
  ["Europe/London", "2027-10-30 23:00:00", "2027-11-01T00:00:00+00:00", 25],
  ["America/New_York", "2027-03-14 05:00:00", "2027-03-15T04:00:00+00:00", 23],
  ["America/New_York", "2027-11-07 04:00:00", "2027-11-08T05:00:00+00:00", 25],
  ["Australia/Lord_Howe", "2027-10-02 13:30:00", "2027-10-03T13:00:00+00:00", 23.5],
  ["Australia/Lord_Howe", "2027-04-03 13:00:00", "2027-04-04T13:30:00+00:00", 24.5],
];

/** When a local month ends: after 28, 29, 30 and 31 days, and in a month whose last day is a switch of the clocks. */
const months: readonly [zone: string, at: string, endsAt: string][] = [
  ["UTC", "2027-02-28 23:59:50", "2027-03-01T00:00:00+00:00"],
  ["UTC", "2028-02-28 23:59:50", "2028-03-01T00:00:00+00:00"],
  ["America/New_York", "2028-02-29 12:00:00", "2028-03-01T05:00:00+00:00"],
  ["Australia/Lord_Howe", "2028-02-29 12:59:50", "2028-02-29T13:00:00+00:00"],
  ["Europe/London", "2029-03-31 12:00:00", "2029-03-31T23:00:00+00:00"],
  ["America/New_York", "2027-11-30 12:00:00", "2027-12-01T05:00:00+00:00"],
];

describe.runIf(existsSync(library)).each(installedVersions())(
  "on PostgreSQL %i under libfaketime",
  (version) => {
    let server: PostgresServer;
    let project: Project;
    let folder: string;
    let users = 0;

    /** Sets the machine's clock as the server sees it; it runs on from there. */
    function setClock(at: string): void {
      writeFileSync(join(folder, "clock"), `@${at}\n`);
    }
    async function openAccount(zone: string): Promise<string> {
      users += 1;
      await project.call("upsert_account", `user-${users}`, "pro", null, null, zone);
      return `user-${users}`;
    }
    let calls = 0;
    async function use(
      user: string,
      tokens: number,
    ): Promise<{ daily: string; monthly: string; used: number }> {
      calls += 1;
      const answer = (await project.call(
        "authorize_usage",
        `call-${calls}`,
        user,
        "gpt-4o-mini",
        tokens,
      )) as {
        decision: string;
        limits: Record<"daily" | "monthly", { resets_at: string; used: number }>;
      };
      expect(answer.decision).toBe("allow");
      await project.call("settle_usage", `call-${calls}`, tokens, 0);
      const utc = (moment: string): string => new Date(moment).toISOString().replace(".000Z", "+00:00");
      return {
        daily: utc(answer.limits.daily.resets_at),
        monthly: utc(answer.limits.monthly.resets_at),
        used: answer.limits.daily.used,
      };
    }
    const balance = async (user: string): Promise<number> =>
      Number(await project.call("get_user_token_balance", user));

    beforeAll(async () => {
      folder = mkdtempSync(join(tmpdir(), "clock-"));
      chmodSync(folder, 0o755);
      setClock("2027-01-10 12:00:00");
      server = await startPostgres({
        version,
        env: {
          LD_PRELOAD: library,
          FAKETIME_TIMESTAMP_FILE: join(folder, "clock"),
          FAKETIME_NO_CACHE: "1",
          // Latches wait by the monotonic clock: that one stays the machine's.
          DONT_FAKE_MONOTONIC: "1",
          TZ: "UTC",
        },
      });
      project = projectAt((await createProjectDatabase(server.url(), { preset: "default" })).url);
      // Calls are kept however far the clock goes, so that the books can be checked against them.
      await project.sql.query("update governance.active_config set decision_retention_days = 100000");
    });
    afterAll(async () => {
      await project?.close();
      await server?.stop();
      rmSync(folder, { recursive: true, force: true });
    });

    it("the server takes the test clock for the time", async () => {
      setClock("2031-05-05 05:05:05");
      const { now } = await project.one<{ now: Date }>("select clock_timestamp() as now");
      expect(now.toISOString().slice(0, 16)).toBe("2031-05-05T05:05");
      setClock("2027-01-10 12:00:00");
      expect(await project.one("select governance.now()::date::text as today")).toEqual({
        today: "2027-01-10",
      });
    });

    it.each(days)(
      "a day in %s that begins at %s ends at %s, after %d hours",
      async (zone, begins, ends, hours) => {
        const start = Date.parse(`${begins.replace(" ", "T")}Z`);
        expect((Date.parse(ends) - start) / 3_600_000).toBe(hours);
        const clock = (moment: number): string =>
          new Date(moment).toISOString().slice(0, 19).replace("T", " ");
        // A minute before it begins is yesterday; then the whole day is one; at its end it is tomorrow.
        setClock(clock(start - 60_000));
        const user = await openAccount(zone);
        expect(await use(user, 10)).toMatchObject({
          used: 10,
          daily: new Date(start).toISOString().replace(".000Z", "+00:00"),
        });
        setClock(clock(start));
        expect(await use(user, 20)).toMatchObject({ used: 20, daily: ends });
        setClock(clock(Date.parse(ends) - 60_000));
        expect(await use(user, 30)).toMatchObject({ used: 50, daily: ends });
        setClock(clock(Date.parse(ends)));
        const tomorrow = await use(user, 40);
        expect(tomorrow.used).toBe(40);
        expect(Date.parse(tomorrow.daily)).toBeGreaterThan(Date.parse(ends));
        const { days: kept } = await project.one<{ days: string[] }>(
          "select array_agg(charged_tokens::text order by d.day) as days from governance.usage_daily d join governance.accounts a using (account_id) where a.user_id = $1",
          [user],
        );
        expect(kept).toEqual(["10", "50", "40"]);
      },
    );

    it.each(months)("a month in %s at %s ends at %s, with a new allowance, once", async (zone, at, ends) => {
      setClock(at);
      const user = await openAccount(zone);
      expect((await use(user, 1_000)).monthly).toBe(ends);
      expect(await balance(user)).toBe(499_000);
      setClock(new Date(Date.parse(ends) - 2_000).toISOString().slice(0, 19).replace("T", " "));
      expect(await balance(user)).toBe(499_000);
      setClock(ends.slice(0, 19).replace("T", " "));
      expect(await balance(user)).toBe(500_000);
      await project.call("run_maintenance");
      expect(await balance(user)).toBe(500_000);
      expect(
        await project.one(
          "select array_agg(t.transaction_type || ' ' || t.amount order by t.transaction_id) as entries from governance.token_transactions t join governance.accounts a using (account_id) where a.user_id = $1",
          [user],
        ),
      ).toEqual({
        entries: ["subscription_grant 500000", "usage -1000", "expiry -499000", "subscription_grant 500000"],
      });
    });

    it("a clock that is set forward and back grants nothing twice and frees no hold early or never", async () => {
      setClock("2027-06-30 23:50:00");
      const user = await openAccount("UTC");
      await use(user, 1_000);
      await project.call("authorize_usage", "across", user, "gpt-4o-mini", 5_000);
      // An hour and a month too far: the hold is given back, and the new month's allowance is there.
      setClock("2027-07-01 00:50:00");
      expect(await balance(user)).toBe(500_000);
      await project.call("authorize_usage", "early", user, "gpt-4o-mini", 7_000);
      // Back to before both: the day and the month that have begun stay.
      setClock("2027-06-30 23:55:00");
      const back = (await project.call("authorize_usage", "back", user, "gpt-4o-mini", 2_000)) as {
        decision: string;
        limits: { daily: { used: number; resets_at: string } };
      };
      expect(back.decision).toBe("allow");
      expect(back.limits.daily.used).toBe(9_000);
      expect(Date.parse(back.limits.daily.resets_at)).toBe(Date.parse("2027-07-02T00:00:00Z"));
      await project.call("run_maintenance");
      expect(await balance(user)).toBe(491_000);
      // The settlement of the hold that expired in the future still charges; a repeat answers the same.
      const settled = await project.call("settle_usage", "across", 100, 0);
      expect(settled).toMatchObject({ status: "settled", charged_tokens: 100 });
      expect(await project.call("settle_usage", "across", 100, 0)).toEqual(settled);
      // Time passes the true moment again: nothing is granted again, and the hold made in the future ends in its own time.
      setClock("2027-07-01 00:30:00");
      await project.call("run_maintenance");
      expect(await balance(user)).toBe(499_900 - 7_000);
      setClock("2027-07-01 01:06:00");
      await project.call("run_maintenance");
      expect(await balance(user)).toBe(499_900);
      expect(
        await project.one(
          "select count(*)::int as grants from governance.lots l join governance.accounts a using (account_id) where a.user_id = $1",
          [user],
        ),
      ).toEqual({ grants: 2 });
      await expectSoundBooks(project);
    });

    it("years that nobody looked give the present month's allowance alone", async () => {
      setClock("2027-08-15 12:00:00");
      const user = await openAccount("Australia/Lord_Howe");
      setClock("2033-08-15 12:00:00");
      await project.call("run_maintenance");
      expect(await balance(user)).toBe(500_000);
      setClock("2027-08-15 12:00:00");
      expect(await balance(user)).toBe(500_000);
      await expectSoundBooks(project);
    });
  },
);
