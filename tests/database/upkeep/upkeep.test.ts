import pg from "pg";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { installedVersions, openProject, type Project, use } from "../../support/project.ts";

interface Round {
  readonly expired_reservations: number;
  readonly expired_grants: number;
  readonly allowances_reset: number;
  readonly days_aggregated: number;
  readonly webhook_events_purged: number;
  readonly alerts_triggered: number;
  readonly notifications_queued: number;
  readonly partitions_dropped: number;
  readonly rollup_problems: number;
  readonly accounts_failed: number;
  readonly more: boolean;
}

/** Rounds until there is nothing more to do; answers their sums. */
async function maintain(desk: Project): Promise<Record<string, number>> {
  const sums: Record<string, number> = {};
  for (let n = 0; n < 100; n += 1) {
    const round = await desk.rpc<Round & Record<string, number | boolean>>("run_maintenance");
    for (const [key, value] of Object.entries(round))
      if (typeof value === "number") sums[key] = (sums[key] ?? 0) + value;
    if (!round.more) return sums;
  }
  throw new Error("Upkeep has no end.");
}

const authorize = (desk: Project, requestId: string, userId: string, tokens = 100) =>
  desk.rpc<{ decision: string; expires_at: string }>("authorize_usage", {
    p_request_id: requestId,
    p_user_id: userId,
    p_model: "gpt-4o-mini",
    p_estimated_tokens: tokens,
  });

async function withPool<T>(desk: Project, size: number, work: (pool: pg.Pool) => Promise<T>): Promise<T> {
  const pool = new pg.Pool({ connectionString: desk.ownerUrl, max: size });
  try {
    return await work(pool);
  } finally {
    await pool.end();
  }
}

describe.each(installedVersions())("run_maintenance, on PostgreSQL %i", (version) => {
  it("and who reads do not wait for each other: a reader comes while it clears, and it comes while a reader copies", async () => {
    const desk = await openProject(version);
    const counted = (): Promise<{ calls: number }> =>
      desk.one("select coalesce(sum(calls), 0)::int as calls from governance.call_totals where step = 'day'");
    await desk.setClock("2026-11-10T10:04:30Z", true);
    await authorize(desk, "counted", "ann");
    await desk.rpc("console_overview");
    await authorize(desk, "late", "ann");
    // The five minutes in which both were made are cleared from now on, and the minute of the late one is still added.
    await desk.setClock("2026-11-12T10:03:30Z", true);
    const [one, other] = [new pg.Client(desk.ownerUrl), new pg.Client(desk.ownerUrl)];
    onTestFinished(async () => {
      await one.end();
      await other.end();
    });
    await one.connect();
    await other.connect();
    await other.query("set statement_timeout = '15s'");
    await one.query("begin; select governance.purge(governance.now())");
    await other.query("select public.console_overview()");
    await one.query("commit");
    await other.query("select public.console_overview()");
    expect(await counted()).toEqual({ calls: 2 });

    await one.query("begin; select pg_advisory_xact_lock(7254014)");
    const { rows } = await other.query<{ round: Round }>("select public.run_maintenance() as round");
    expect(rows[0]?.round.more).toBe(true);
    await authorize(desk, "while it is copied", "ann");
    await other.query("select public.console_overview()");
    await one.query("commit");
    await maintain(desk);
    expect(await counted()).toEqual({ calls: 3 });
  });

  it("answers every count, zero where nothing was done", async () => {
    const desk = await openProject(version);
    const round = await desk.rpc<Round>("run_maintenance");
    for (const key of [
      "expired_reservations",
      "expired_grants",
      "allowances_reset",
      "days_aggregated",
      "webhook_events_purged",
      "alerts_triggered",
      "notifications_queued",
    ] as const) {
      expect(round[key]).toBe(0);
    }
    await desk.close();
  });

  it("gives expired holds back and leaves fresh ones alone", async () => {
    const desk = await openProject(version);
    await desk.setClock("2026-05-05 12:00:00Z", true);
    for (let n = 0; n < 5; n += 1) await authorize(desk, `old-${n}`, `user-${n % 2}`);
    await desk.setClock("2026-05-05 12:14:59Z", true);
    await authorize(desk, "fresh", "user-0");
    expect(await maintain(desk)).toMatchObject({ expired_reservations: 0 });
    await desk.setClock("2026-05-05 12:15:00Z", true);
    expect(await maintain(desk)).toMatchObject({ expired_reservations: 5 });
    expect(await maintain(desk)).toMatchObject({ expired_reservations: 0 });
    const { held } = await desk.one<{ held: string[] }>(
      "select array_agg(request_id) as held from governance.requests where status = 'held'",
    );
    expect(held).toEqual(["fresh"]);
    expect(await desk.rpc("console_overview")).toMatchObject({ open_holds: 1, held_tokens: 100 });
    // A settlement that comes too late still charges.
    expect(
      await desk.rpc("settle_usage", { p_request_id: "old-1", p_input_tokens: 40, p_output_tokens: 20 }),
    ).toMatchObject({ status: "settled", charged_tokens: 60 });
    expect(await desk.rpc("verify_ledger")).toMatchObject({ problems: [] });
    await desk.close();
  });

  it("takes expired lots out through the ledger and resets allowances once, at each account's own month end", async () => {
    const desk = await openProject(version);
    await desk.setClock("2028-02-20 12:00:00Z", true);
    const zones = {
      utc: "UTC",
      kiritimati: "Pacific/Kiritimati",
      la: "America/Los_Angeles",
      lordhowe: "Australia/Lord_Howe",
    };
    for (const [user, zone] of Object.entries(zones))
      await desk.rpc("upsert_account", { p_user_id: user, p_plan_id: "starter", p_timezone: zone });
    await desk.rpc("update_user_token_balance", {
      p_user_id: "utc",
      p_amount: 1_700,
      p_transaction_type: "bonus",
      p_expires_at: "2028-02-29T10:00:00Z",
    });
    for (const user of Object.keys(zones)) await use(desk, user, 1_000);
    // 29 February: midnight of 1 March comes to Kiritimati at 10:00Z of the 29th, to Los Angeles at 08:00Z of the 1st.
    await desk.setClock("2028-02-29 09:59:59Z", true);
    expect(await maintain(desk)).toMatchObject({ allowances_reset: 0, expired_grants: 0 });
    await desk.setClock("2028-02-29 10:00:00Z", true);
    expect(await maintain(desk)).toMatchObject({ allowances_reset: 1, expired_grants: 2 });
    expect(await desk.rpc("get_user_token_balance", { p_user_id: "kiritimati" })).toBe("50000");
    expect(await desk.rpc("get_user_token_balance", { p_user_id: "utc" })).toBe("50000");
    await desk.setClock("2028-03-01 07:59:59Z", true);
    expect(await maintain(desk)).toMatchObject({ allowances_reset: 2 });
    await desk.setClock("2028-03-01 08:00:00Z", true);
    expect(await maintain(desk)).toMatchObject({ allowances_reset: 1 });
    await desk.setClock("2028-02-29 12:00:00Z", true); // the clock goes back
    expect(await maintain(desk)).toMatchObject({ allowances_reset: 0, expired_grants: 0 });
    await desk.setClock("2028-06-15 12:00:00Z", true); // nobody came for months
    expect(await maintain(desk)).toMatchObject({ allowances_reset: 4, expired_grants: 4 });
    for (const user of Object.keys(zones))
      expect(await desk.rpc("get_user_token_balance", { p_user_id: user })).toBe("50000");
    expect(await desk.rpc("verify_ledger")).toMatchObject({ problems: [] });
    await desk.close();
  });

  it("resets an allowance on the right local day on both sides of the switches of clocks", async () => {
    const desk = await openProject(version);
    const days: [string, string, string][] = [
      // The month's last day holds a switch, or the first day of the next does not exist at its usual hour.
      ["Europe/London", "2029-03-31 22:59:59Z", "2029-03-31 23:00:00Z"],
      ["America/Asuncion", "2027-03-31 02:59:59Z", "2027-04-01 03:00:00Z"],
      ["Africa/Cairo", "2026-10-31 21:59:59Z", "2026-10-31 22:00:00Z"],
      ["Australia/Sydney", "2028-09-30 13:59:59Z", "2028-09-30 14:00:00Z"],
    ];
    for (const [zone, before, after] of days) {
      await desk.setClock(new Date(Date.parse(before) - 10 * 86_400_000).toISOString(), true);
      const user = `in ${zone}`;
      await desk.rpc("upsert_account", { p_user_id: user, p_plan_id: "starter", p_timezone: zone });
      const local = await desk.one<{ at: string }>(
        "select to_char($1::timestamptz at time zone $2, 'DD HH24:MI:SS') as at",
        [after, zone],
      );
      expect(local.at).toBe("01 00:00:00");
      await desk.setClock(before, true);
      await maintain(desk);
      const month = () =>
        desk.one("select local_month::text as month from governance.accounts where user_id = $1", [user]);
      const was = await month();
      await desk.setClock(after, true);
      await maintain(desk);
      expect(await month()).not.toEqual(was);
    }
    expect(await desk.rpc("verify_ledger")).toMatchObject({ problems: [] });
    await desk.close();
  });

  it("does each thing once, however many run it at once, while calls go on", async () => {
    const desk = await openProject(version);
    await desk.setClock("2026-06-30 23:00:00Z");
    for (let n = 0; n < 60; n += 1) await authorize(desk, `hold-${n}`, `user-${n}`, 10);
    await desk.setClock("2026-07-01 00:05:00Z");
    const rounds: Round[] = await withPool(desk, 16, async (pool) => {
      const round = async () =>
        (await pool.query("select public.run_maintenance() as answer")).rows[0].answer as Round;
      const calling = Array.from({ length: 60 }, (_, n) =>
        pool.query("select public.authorize_usage($1, $2, 'gpt-4o-mini', 10)", [`new-${n}`, `user-${n % 7}`]),
      );
      const all = await Promise.all(Array.from({ length: 24 }, round));
      await Promise.all(calling);
      return all;
    });
    await maintain(desk);
    expect(rounds.every(({ accounts_failed }) => accounts_failed === 0)).toBe(true);
    const { expired, granted } = await desk.one<{ expired: number; granted: number }>(
      `select (select count(*)::int from governance.hold_events where kind = 'expired') as expired,
        (select count(*)::int from governance.token_transactions where transaction_type = 'subscription_grant') as granted`,
    );
    expect(expired).toBe(60);
    expect(granted).toBe(120);
    expect(await desk.rpc("verify_ledger")).toMatchObject({ problems: [] });
    await desk.close();
  });

  it("does not wait for an account that is in hand elsewhere", async () => {
    const desk = await openProject(version);
    await desk.setClock("2026-05-05 12:00:00Z", true);
    await authorize(desk, "a", "busy");
    await authorize(desk, "b", "idle");
    await desk.setClock("2026-05-05 13:00:00Z", true);
    const other = new pg.Client({ connectionString: desk.ownerUrl });
    await other.connect();
    await other.query("begin");
    await other.query("select pg_advisory_xact_lock(governance.lock_key('busy'))");
    expect(await desk.rpc("run_maintenance")).toMatchObject({ expired_reservations: 1 });
    await other.query("rollback");
    await other.end();
    expect(await maintain(desk)).toMatchObject({ expired_reservations: 1 });
    await desk.close();
  });

  it("drops months of calls that are no longer kept, with their keys, and no ledger entry", async () => {
    const desk = await openProject(version);
    await desk.setClock("2026-12-15 12:00:00Z", true);
    await use(desk, "long", 30);
    await authorize(desk, "forgotten", "long");
    const partitions = () =>
      desk.one<{ names: string[] }>(
        "select array_agg(inhrelid::regclass::text order by 1) as names from pg_inherits where inhparent = 'governance.requests'::regclass",
      );
    await desk.setClock("2027-04-10 12:00:00Z", true);
    const sums = await maintain(desk);
    expect(sums["expired_reservations"]).toBe(1);
    await desk.setClock("2027-04-10 14:00:00Z", true);
    await maintain(desk);
    const { names } = await partitions();
    expect(names).not.toContain("governance.requests_2026_12");
    expect(names).toContain("governance.requests_2027_06");
    expect(await desk.one("select count(*)::int as n from governance.request_keys")).toEqual({ n: 0 });
    expect(await desk.rpc("verify_ledger")).toMatchObject({
      problems: [],
      entries_checked: expect.toSatisfy((n: number) => n > 1),
    });
    expect(await desk.rpc("console_events_before")).toMatchObject({ next_before_event_id: null });
    expect(await desk.rpc("console_account_decisions", { p_user_id: "long" })).toEqual({
      decisions: [],
      next_before_id: null,
    });
    await desk.close();
  });

  it("does not let expired lots that a dispute has frozen stand before those that can be taken out", async () => {
    const desk = await openProject(version);
    await desk.setClock("2026-05-05 12:00:00Z", true);
    for (const [user, expires] of [
      ["disputed", "2026-05-06T00:00:00Z"],
      ["plain", "2026-05-07T00:00:00Z"],
    ] as const) {
      await desk.rpc("upsert_account", { p_user_id: user });
      await desk.rpc("update_user_token_balance", {
        p_user_id: user,
        p_amount: 700,
        p_transaction_type: "bonus",
        p_expires_at: expires,
      });
    }
    await desk.sql.query(
      "select governance.freeze_lot(l.lot_id, 700, governance.now(), 'dp_1') from governance.lots l join governance.accounts a using (account_id) where a.user_id = 'disputed' and l.granted = 700",
    );
    await desk.setClock("2026-05-08 12:00:00Z", true);
    const { expired_lots: expired } = await desk.one<{ expired_lots: number }>(
      "select * from governance.roll_due_accounts(governance.now(), 1, '1 minute')",
    );
    expect(expired).toBe(1);
    // It has an end: a lot that cannot be taken out does not count as work to do.
    expect(await maintain(desk)).toMatchObject({ expired_grants: 0 });
    expect(await desk.rpc("verify_ledger")).toMatchObject({ problems: [] });
    await desk.close();
  });

  it("clears Stripe events after 30 days and keeps quarantined ones", async () => {
    const desk = await openProject(version);
    await desk.sql.query(`insert into governance.webhook_events_processed (event_id, event_type, received_at, status)
      select 'evt_' || i, 'x', now() - i * interval '10 days', case when i = 5 then 'quarantined' else 'processed' end from generate_series(1, 6) i`);
    expect(await maintain(desk)).toMatchObject({ webhook_events_purged: 3 });
    expect(
      await desk.one(
        "select array_agg(event_id order by 1) as left from governance.webhook_events_processed",
      ),
    ).toEqual({ left: ["evt_1", "evt_2", "evt_5"] });
    await desk.close();
  });

  it("finds a roll-up that somebody changed, says so once and changes nothing", async () => {
    const desk = await openProject(version);
    await use(desk, "sound", 100);
    await use(desk, "forged", 100);
    expect(await maintain(desk)).toMatchObject({ rollup_problems: 0 });
    await desk.sql.query(
      "update governance.usage_daily set charged_tokens = 1 where account_id = (select account_id from governance.accounts where user_id = 'forged')",
    );
    await desk.rpc("run_maintenance");
    await desk.rpc("run_maintenance");
    const { alerts } = await desk.rpc<{ alerts: { kind: string; user_id: string }[] }>("console_alerts");
    expect(alerts.filter(({ kind }) => kind === "rollup_mismatch")).toMatchObject([{ user_id: "forged" }]);
    await desk.close();
  });
});

describe("alerts", () => {
  let desk: Project;
  beforeAll(async () => {
    desk = await openProject(18, { preset: "mmagent" });
    await desk.setClock("2026-09-10 10:00:00Z", true);
    // 1,000,000 micros (a pound) per million tokens, and budgets of a thousandth of that.
    await desk.sql.query(`insert into governance.prices (provider, model, input_micros_per_million, output_micros_per_million, currency, effective_from) values ('x', 'm', 1000000, 1000000, 'gbp', '2020-01-01');
      update governance.cost_alerts set budget = 10000 where alert_name = 'daily_cost'; update governance.cost_alerts set budget = 100000 where alert_name = 'monthly_cost'`);
  });
  afterAll(() => desk.close());
  const spend = async (tokens: number) => {
    const user = `spender-${Math.random()}`;
    await desk.rpc("update_user_token_balance", {
      p_user_id: (
        await desk.rpc<{ user_id: string }>("upsert_account", { p_user_id: user, p_plan_id: "gold_plus" })
      ).user_id,
      p_amount: 100_000,
      p_transaction_type: "bonus",
    });
    await use(desk, user, tokens, { p_model: "m" });
  };
  const raised = async () =>
    (
      await desk.rpc<{ alerts: { alert_name: string | null; threshold: number; period: string }[] }>(
        "console_alerts",
      )
    ).alerts
      .filter(({ alert_name }) => alert_name !== null)
      .map(({ alert_name, threshold, period }) => `${alert_name} ${threshold} ${period}`);

  it("are raised at 50, 75 and 90 % of a budget, each once a period", async () => {
    await spend(4_999);
    await maintain(desk);
    expect(await raised()).toEqual([]);
    await spend(1);
    expect(await desk.rpc("run_maintenance")).toMatchObject({ alerts_triggered: 1, notifications_queued: 2 });
    expect(await desk.rpc("run_maintenance")).toMatchObject({ alerts_triggered: 0, notifications_queued: 0 });
    await spend(2_500);
    await maintain(desk);
    await spend(5_000);
    await maintain(desk);
    expect(await raised()).toEqual([
      "daily_cost 90 2026-09-10",
      "daily_cost 75 2026-09-10",
      "daily_cost 50 2026-09-10",
    ]);
    const configured =
      await desk.rpc<{ alert_name: string; last_triggered_at: string | null; percent: number }[]>(
        "console_cost_alerts",
      );
    expect(configured).toMatchObject([
      { alert_name: "daily_cost", percent: 125, last_triggered_at: "2026-09-10T10:00:00+00:00" },
      { alert_name: "monthly_cost", percent: 12, last_triggered_at: null },
    ]);
  });

  it("say the highest alone where several are passed at once, and start again with the period", async () => {
    await desk.setClock("2026-09-11 00:00:00Z", true);
    await maintain(desk);
    expect(await raised()).toHaveLength(3);
    await spend(8_000);
    await maintain(desk);
    expect((await raised())[0]).toBe("daily_cost 75 2026-09-11");
    expect(await raised()).toHaveLength(4);
  });

  it("are raised once by many rounds at once", async () => {
    await desk.setClock("2026-09-12 00:00:00Z", true);
    await spend(9_500);
    await withPool(desk, 8, (pool) =>
      Promise.all(Array.from({ length: 16 }, () => pool.query("select public.run_maintenance()"))),
    );
    await maintain(desk);
    expect((await raised()).filter((alert) => alert.includes("2026-09-12"))).toEqual([
      "daily_cost 90 2026-09-12",
    ]);
  });

  it("queue one message a channel, that a sender takes, loses and delivers", async () => {
    const claim = () =>
      desk.rpc<
        {
          notification_id: number;
          channel: string;
          attempts: number;
          audience: string;
          recipient: string | null;
        }[]
      >("claim_notifications", { p_limit: 500, p_channel: "slack", p_lease_seconds: 60 });
    const [one, two] = await withPool(desk, 2, (pool) =>
      Promise.all(
        [1, 2].map(
          async () =>
            (await pool.query("select public.claim_notifications(500, 'slack', 60) as answer")).rows[0]
              .answer as { notification_id: number }[],
        ),
      ),
    );
    const taken = [...(one ?? []), ...(two ?? [])];
    expect(new Set(taken.map(({ notification_id }) => notification_id)).size).toBe(taken.length);
    expect(taken).toHaveLength(5);
    expect(await claim()).toEqual([]);
    const [first, second] = taken as [{ notification_id: number }, { notification_id: number }];
    expect(await desk.rpc("finish_notification", { p_notification_id: first.notification_id })).toMatchObject(
      { status: "sent" },
    );
    expect(
      await desk.rpc("finish_notification", { p_notification_id: first.notification_id, p_error: "late" }),
    ).toMatchObject({ status: "sent" });
    for (let n = 0; n < 7; n += 1) {
      expect(
        await desk.rpc("finish_notification", { p_notification_id: second.notification_id, p_error: "503" }),
      ).toMatchObject({ status: "queued" });
      await desk.setClock(new Date(Date.parse("2026-09-12") + (n + 1) * 2 * 3_600_000).toISOString(), true);
      expect((await claim()).map(({ notification_id }) => notification_id)).toContain(second.notification_id);
    }
    expect(
      await desk.rpc("finish_notification", { p_notification_id: second.notification_id, p_error: "503" }),
    ).toMatchObject({ status: "failed", attempts: 8 });
  });

  it("queue no message again that was given up, whatever another sender says late", async () => {
    const [message] = await desk.rpc<{ notification_id: number }[]>("claim_notifications", { p_limit: 1 });
    const finish = (more: Record<string, unknown>) =>
      desk.rpc("finish_notification", { p_notification_id: message?.notification_id, ...more });
    expect(await finish({ p_error: "550 no such user", p_is_final: true })).toMatchObject({
      status: "failed",
    });
    expect(await finish({ p_error: "timed out" })).toMatchObject({ status: "failed" });
    // It did arrive, then.
    expect(await finish({})).toMatchObject({ status: "sent" });
  });

  it("are acknowledged by a person, once, and open no more", async () => {
    await desk.setClock("2026-09-12 01:00:00Z", true);
    const { open_alerts } = await desk.rpc<{ open_alerts: number }>("console_rail_counts");
    const { alerts } = await desk.rpc<{ alerts: { alert_event_id: number }[] }>("console_alerts", {
      p_limit: 1,
    });
    const command = { p_command_id: "ack", p_alert_event_id: alerts[0]?.alert_event_id, p_operator: "ann" };
    const answer = await desk.rpc("console_acknowledge_alert", command);
    expect(await desk.rpc("console_acknowledge_alert", command)).toEqual(answer);
    expect(await desk.rpc("console_rail_counts")).toMatchObject({ open_alerts: open_alerts - 1 });
    expect(await desk.refusal("console_acknowledge_alert", { ...command, p_operator: "bob" })).toMatchObject({
      hint: "idempotency_conflict",
    });
    expect(
      await desk.refusal("console_acknowledge_alert", { p_command_id: "x", p_alert_event_id: 0 }),
    ).toMatchObject({ hint: "not_found" });
  });

  it("warn users of their own limits by e-mail, unless they want none", async () => {
    await desk.setClock("2026-09-20 10:00:00Z", true);
    for (const [user, metadata] of [
      ["reads-mail", {}],
      ["wants-none", { notifications: { email: false } }],
    ] as const) {
      await desk.rpc("upsert_account", {
        p_user_id: user,
        p_plan_id: "gold",
        p_email: `${user}@example.com`,
        p_metadata: metadata,
      });
      await use(desk, user, 8_100);
    }
    await maintain(desk);
    const messages = await desk.rpc<
      { recipient: string | null; audience: string; subject: string; payload: { upgrade: object | null } }[]
    >("claim_notifications", { p_channel: "email", p_limit: 500 });
    expect(messages.filter(({ audience }) => audience === "user")).toMatchObject([
      {
        recipient: "reads-mail@example.com",
        subject: "You have used 80 % of today's tokens.",
        payload: { upgrade: { plan_id: "gold_plus" } },
      },
    ]);
  });

  describe("about single users", () => {
    let many: Project;
    const users = ["a", "b", "c", "d", "e"];
    const told = async (kind: string) => {
      const { rows } = await many.sql.query<{ user_id: string }>(
        "select a.user_id from governance.alert_events e join governance.accounts a using (account_id) where e.kind = $1 order by 1",
        [kind],
      );
      return rows.map(({ user_id }) => user_id);
    };
    const look = () => many.sql.query("select governance.evaluate_alerts(governance.now(), 2)");
    beforeAll(async () => {
      many = await openProject(18);
      await many.setClock("2026-09-20 10:00:00Z", true);
      await many.sql.query(
        "insert into governance.cost_alerts (alert_name, metric, scope, period, thresholds) values ('much', 'tokens', 'user', 'day', '{1000}')",
      );
      await maintain(many);
      for (const user of users) await use(many, user, 41_000);
      await many.rpc("console_rail_counts");
    });
    afterAll(() => many.close());

    it("are raised for what happened while upkeep was away", async () => {
      await many.setClock("2026-09-20 11:00:00Z", true);
      await look();
      expect(await told("user_budget")).toHaveLength(2);
      expect(await told("allowance_80")).toHaveLength(2);
    });

    it("are raised for all in the end, however many a round takes", async () => {
      for (let round = 0; round < 3; round += 1) {
        await many.setClock(`2026-09-20 11:2${round}:00Z`, true);
        await look();
      }
      expect(await told("user_budget")).toEqual(users);
      expect(await told("allowance_80")).toEqual(users);
    });
  });

  it("see a user who suddenly uses many times the usual", async () => {
    const other = await openProject(18);
    await other.sql.query("update governance.active_config set high_usage_tokens = 1000");
    for (const [user, plan] of [
      ["calm", "business"],
      ["wild", "business"],
    ] as const)
      await other.rpc("upsert_account", { p_user_id: user, p_plan_id: plan });
    await other.setClock("2026-09-20 10:00:00Z", true);
    for (const user of ["calm", "wild"]) await use(other, user, 48_000); // 2,000 an hour, over the day that follows
    await maintain(other);
    await other.setClock("2026-09-21 09:30:00Z", true);
    await use(other, "calm", 9_000);
    await use(other, "wild", 11_000);
    await maintain(other);
    const { alerts } = await other.rpc<{ alerts: { kind: string; user_id: string }[] }>("console_alerts");
    expect(
      alerts
        .filter(({ kind, user_id }) => kind === "usage_spike" && user_id !== null)
        .map(({ user_id }) => user_id),
    ).toContain("wild");
    expect(
      alerts
        .filter(({ kind }) => kind === "usage_spike")
        .map(({ user_id }) => user_id)
        .filter((user) => user === "calm").length,
    ).toBeLessThanOrEqual(1);
    await other.close();
  });
});

describe("stuck holds", () => {
  let desk: Project;
  beforeAll(async () => {
    desk = await openProject(18);
    await desk.sql.query("update governance.active_config set settle_ceiling_tokens = 5000");
  });
  afterAll(() => desk.close());

  it("are seen once nobody gave them back, and released by a person", async () => {
    await desk.setClock("2026-05-05 12:00:00Z", true);
    await authorize(desk, "stuck", "u1", 400);
    await desk.rpc("console_rail_counts");
    await desk.setClock("2026-05-05 12:19:00Z", true);
    expect(await desk.rpc("console_stuck_holds")).toEqual([]);
    await desk.setClock("2026-05-05 12:21:00Z", true);
    expect(await desk.rpc("console_stuck_holds")).toMatchObject([
      { request_id: "stuck", status: "held", reserved_tokens: 400 },
    ]);
    expect(await desk.rpc("console_rail_counts")).toMatchObject({ stuck_holds: 1 });
    // Whoever looks at the account gives it back.
    expect(
      await desk.refusal("console_resolve_hold", {
        p_command_id: "r",
        p_request_id: "stuck",
        p_action: "release",
        p_reason: "lost",
      }),
    ).toMatchObject({ hint: "already_resolved" });
    expect(await maintain(desk)).toMatchObject({ expired_reservations: 1 });
    expect(await desk.rpc("console_stuck_holds")).toEqual([]);
    expect(
      await desk.rpc("console_resolve_hold", {
        p_command_id: "r2",
        p_request_id: "stuck",
        p_action: "settle",
        p_reason: "the log says 120",
        p_input_tokens: 100,
        p_output_tokens: 20,
      }),
    ).toMatchObject({ status: "settled", charged_tokens: 120 });
  });

  it("that are open are released or settled by a person, once, audited", async () => {
    await authorize(desk, "open-1", "u2", 300);
    const release = {
      p_command_id: "c1",
      p_request_id: "open-1",
      p_action: "release",
      p_reason: "worker died",
      p_operator: "ann",
    };
    const answer = await desk.rpc("console_resolve_hold", release);
    expect(answer).toMatchObject({ status: "released", released_tokens: 300 });
    expect(await desk.rpc("console_resolve_hold", release)).toEqual(answer);
    expect(await desk.refusal("console_resolve_hold", { ...release, p_command_id: "c2" })).toMatchObject({
      hint: "already_resolved",
    });
    expect(await desk.refusal("console_resolve_hold", { ...release, p_action: "settle" })).toMatchObject({
      hint: "idempotency_conflict",
    });
    expect(await desk.rpc("console_get_account", { p_user_id: "u2" })).toMatchObject({
      audit: [{ action: "resolve_hold", operator: "ann", reason: "worker died" }],
    });
  });

  it.each(["settle", "release"])("above the ceiling wait for a person, who may %s them", async (action) => {
    const requestId = `huge-${action}`;
    await authorize(desk, requestId, "u3", 6_000);
    const settle = { p_request_id: requestId, p_input_tokens: 4_000, p_output_tokens: 2_000 };
    expect(await desk.rpc("settle_usage", settle)).toMatchObject({
      status: "quarantined",
      charged_tokens: 0,
    });
    expect(await desk.rpc("console_stuck_holds")).toMatchObject([
      { request_id: requestId, status: "quarantined", input_tokens: 4_000, output_tokens: 2_000 },
    ]);
    const answer = await desk.rpc<{ status: string }>("console_resolve_hold", {
      p_command_id: `q-${action}`,
      p_request_id: requestId,
      p_action: action,
      p_reason: "looked into it",
    });
    expect(answer).toMatchObject(
      action === "settle" ? { status: "settled", charged_tokens: 6_000 } : { status: "released" },
    );
    expect(await desk.rpc("console_stuck_holds")).toEqual([]);
    if (action === "settle")
      expect(await desk.rpc("settle_usage", settle)).toMatchObject({
        status: "settled",
        charged_tokens: 6_000,
      });
    expect(await desk.rpc("verify_ledger")).toMatchObject({ problems: [] });
  });
});
