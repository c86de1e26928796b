/**
 * Random histories of accounts whose time zones become known and change, with late settlements, imports and days that
 * are closed at any time: every total of usage is a plain recount, of one account and of all that live together. `TESTS`
 * sets how many, and `SEED` others (tests/support/size.ts).
 */
import { seeded, sized } from "../../support/size.ts";
import type pg from "pg";
import { describe, expect, it } from "vitest";
import { createProjectDatabase } from "../../support/database.ts";
import { withClient } from "../../support/postgres.ts";
import { installedVersions, postgresUrls } from "../../support/project.ts";
import { dice } from "../../support/dice.ts";
import { dateIn, firstDay, sumBy, type Use, ZoneModel } from "../../support/models/zone-model.ts";

/** A history is an account's; so many live in one project, under one clock, with one upkeep. */
const together = sized(24, 24) < 1_000 ? 24 : 150;
const historiesOn = (version: 15 | 18): number => sized(version === 18 ? 48 : 24, 10_000);

const hour = 3_600_000;
const dayMs = 24 * hour;

/** West and east to the last, half and quarter hours, and both switches of the clocks. */
const zones = [
  "UTC",
  "Etc/GMT+12",
  "Pacific/Pago_Pago",
  "America/Los_Angeles",
  "America/New_York",
  "America/St_Johns",
  "Europe/London",
  "Asia/Kathmandu",
  "Asia/Tokyo",
  "Australia/Lord_Howe",
  "Pacific/Chatham",
  "Pacific/Kiritimati",
];

/** Before ends of months and years, leap days and switches of the clocks in one zone or another. */
const starts = [
  "2027-01-30T20:00:00Z",
  "2027-02-27T06:00:00Z",
  "2027-03-13T22:00:00Z",
  "2027-03-27T12:00:00Z",
  "2027-04-03T02:00:00Z",
  "2027-10-30T05:00:00Z",
  "2027-12-30T11:00:00Z",
  "2028-02-28T01:00:00Z",
].map((each) => Date.parse(each));

const budgets = {
  day: 100 * together,
  week: 450 * together,
  month: 1_600 * together,
  user_day: 1_200,
} as const;

const preset = {
  name: "zones",
  currency: "usd",
  default_plan: "p",
  plans: [{ plan_id: "p", name: "P", monthly_allowance: 100_000_000 }],
  // A token costs a micro-unit: one figure for tokens and cost.
  prices: ["m1", "m2"].map((model) => ({
    provider: "x",
    model,
    input_micros_per_million: 1_000_000,
    output_micros_per_million: 1_000_000,
    effective_from: "2024-01-01",
  })),
  alerts: [
    {
      alert_name: "day",
      metric: "tokens",
      scope: "all",
      period: "day",
      budget: budgets.day,
      thresholds: [100],
    },
    {
      alert_name: "week",
      metric: "tokens",
      scope: "all",
      period: "week",
      budget: budgets.week,
      thresholds: [100],
    },
    {
      alert_name: "month",
      metric: "tokens",
      scope: "plan:p",
      period: "month",
      budget: budgets.month,
      thresholds: [100],
    },
    {
      alert_name: "user_day",
      metric: "tokens",
      scope: "user",
      period: "day",
      budget: budgets.user_day,
      thresholds: [100],
    },
  ],
};

const weekKeys = new Map<string, string>();
/** An ISO week as PostgreSQL names it. */
function weekKey(monday: string): string {
  const known = weekKeys.get(monday);
  if (known !== undefined) return known;
  const thursday = new Date(Date.parse(`${monday}T00:00:00Z`) + 3 * dayMs);
  const first = Date.UTC(thursday.getUTCFullYear(), 0, 1);
  const week = 1 + Math.floor((thursday.getTime() - first) / (7 * dayMs));
  const key = `${thursday.getUTCFullYear()}-W${String(week).padStart(2, "0")}`;
  weekKeys.set(monday, key);
  return key;
}

/** Steps of a project's histories: some fifteen of each account. */
const steps = 15 * together;

const isoDay = (ms: number): string => new Date(ms).toISOString().slice(0, 10);
const iso = (ms: number): string => new Date(ms).toISOString();
const tokensOf = (use: Use): number => use.tokens;
/** Imports count as usage, and are never charged: budgets of tokens do not have them. */
const charged = (uses: readonly Use[]): Use[] => uses.filter((use) => !use.isImported);

interface Call {
  readonly id: string;
  readonly user: string;
  readonly model: string;
  readonly conversation: string;
}

/** The histories of all that live together in one project, beside a model of what they used. */
class Histories {
  readonly story: string[] = [];
  private readonly sql: pg.Client;
  private readonly random: () => number;
  private readonly model: ZoneModel;
  private readonly users = Array.from({ length: together }, (_, n) => `user-${n}`);
  private readonly held: Call[] = [];
  /** Budget periods that must have been raised, each with its total when upkeep saw it. */
  private readonly due = new Set<string>();
  private touched: Use[] = [];
  private lastUpkeepMs: number;
  private calls = 0;
  private rows = 0;

  constructor(sql: pg.Client, seed: number) {
    this.sql = sql;
    this.random = dice(seed);
    this.model = new ZoneModel(this.pick(starts) + Math.floor(this.random() * 12 * hour));
    this.lastUpkeepMs = this.model.nowMs;
  }

  private pick<T>(items: readonly T[]): T {
    return items[Math.floor(this.random() * items.length)] as T;
  }
  private say(text: string): void {
    this.story.push(`${iso(this.model.nowMs)} ${text}`);
  }
  private async one<T>(text: string, values: unknown[] = []): Promise<T> {
    return (await this.sql.query(text, values)).rows[0]?.["answer"] as T;
  }
  private async setClock(): Promise<void> {
    await this.one("select governance.set_test_clock($1, true) as answer", [iso(this.model.nowMs)]);
  }

  async tell(): Promise<void> {
    await this.setClock();
    for (const user of this.users) await this.setZone(user, this.random() < 0.5 ? "UTC" : this.pick(zones));
    for (let done = 0; done < steps; done += 1) await this.step();
    for (const call of this.held.splice(0)) await this.settle(call);
    await this.upkeep();
    await this.compareAll();
    this.model.nowMs += 2 * dayMs;
    await this.setClock();
    await this.upkeep();
    for (const user of this.users) await this.compare(user);
    await this.compareAll();
    await this.expectAlerts();
  }

  async setZone(user: string, zone: string): Promise<void> {
    this.say(`${user} in ${zone}`);
    this.model.setZone(user, zone);
    await this.one("select public.upsert_account($1, p_timezone => $2) as answer", [user, zone]);
  }
  /** The server forgets a zone's name in mid-day, as an update of its time zone database may. */
  async loseZone(user: string): Promise<void> {
    this.say(`the zone of ${user} is gone`);
    this.model.loseZone(user);
    await this.one("select governance.lock_account($1) as answer", [user]);
    await this.sql.query("update governance.accounts set timezone = 'Asia/Gone' where user_id = $1", [user]);
  }
  call(user: string): Call {
    this.calls += 1;
    return {
      id: `c${this.calls}`,
      user,
      model: this.pick(["m1", "m2"]),
      conversation: this.pick(["k1", "k2", "k3"]),
    };
  }
  async hold(call: Call): Promise<void> {
    const decision = await this.one(
      "select public.authorize_usage($1, $2, $3, 10, null, $4) ->> 'decision' as answer",
      [call.id, call.user, call.model, call.conversation],
    );
    expect(decision).toBe("allow");
    this.held.push(call);
  }
  async settle(call: Call): Promise<void> {
    const tokens = this.used(call);
    await this.one("select public.settle_usage($1, $2, 0) as answer", [call.id, tokens]);
  }
  async holdAndSettle(call: Call): Promise<void> {
    const answer = await this.one(
      `select array[a.answer ->> 'decision', public.settle_usage($1, $5, 0) ->> 'status'] as answer
       from (select public.authorize_usage($1, $2, $3, 10, null, $4) as answer offset 0) a`,
      [call.id, call.user, call.model, call.conversation, this.used(call)],
    );
    expect(answer).toEqual(["allow", "settled"]);
  }
  used(call: Call): number {
    const tokens = 1 + Math.floor(this.random() * 700);
    this.say(`${call.user} settles ${call.id}: ${tokens}`);
    this.model.settle(call.user, tokens, call.model, call.conversation);
    this.touched.push(this.model.uses.at(-1) as Use);
    return tokens;
  }
  async importRows(): Promise<void> {
    const rows: object[] = [];
    for (let left = 1 + Math.floor(this.random() * together); left > 0; left -= 1) {
      const user = this.pick(this.users);
      const atMs = this.model.nowMs - Math.floor(this.random() ** 2 * 20 * dayMs);
      const [tokens, name, conversation] = [
        1 + Math.floor(this.random() * 500),
        this.pick(["m1", "old"]),
        this.pick(["k1", "i1"]),
      ];
      this.rows += 1;
      this.say(`${user} has ${tokens} imported of ${iso(atMs)}`);
      rows.push({
        id: this.rows,
        user_id: user,
        created_at: iso(atMs),
        metadata: { model: name, usage: { prompt_tokens: tokens, completion_tokens: 0 } },
        conversation_id: conversation,
      });
      this.model.import(user, atMs, tokens, name, conversation);
    }
    await this.sql.query(
      "insert into public.old_chat select * from jsonb_populate_recordset(null::public.old_chat, $1)",
      [JSON.stringify(rows)],
    );
    await this.one(
      `select public.import_usage_history('public.old_chat', '{"conversation_id":"conversation_id"}') as answer`,
    );
  }
  async upkeep(): Promise<void> {
    this.say("upkeep");
    this.lastUpkeepMs = this.model.nowMs;
    // The second round sees the listings that the first brought up to the moment.
    for (const _ of [1, 2]) await this.one("select public.run_maintenance() as answer");
    const all = charged(this.model.uses);
    const matters = [
      ["day", (use: Use) => use.day],
      ["week", (use: Use) => weekKey(firstDay("week", use.day))],
      ["month", (use: Use) => use.day.slice(0, 7)],
      ["user_day", (use: Use) => `${use.day} ${use.user}`],
    ] as const;
    for (const [budget, keyOf] of matters) {
      const sums = sumBy(all, keyOf, tokensOf);
      for (const use of this.touched)
        if ((sums[keyOf(use)] ?? 0) >= budgets[budget]) this.due.add(`${budget} ${keyOf(use)}`);
    }
    this.touched = [];
  }
  async compare(user: string): Promise<void> {
    const own = this.model.uses.filter((use) => use.user === user);
    await this.comparePeriod(user, own);
    await this.compareTable(user, own);
    await this.compareAccount(user, own);
  }

  /** Any period, to the very instant; its edges are often those of days, or of uses. */
  async comparePeriod(user: string, own: readonly Use[]): Promise<void> {
    const edge = (): number =>
      this.random() < 0.3 && own.length > 0
        ? this.pick(own).atMs + (this.random() < 0.5 ? 1 : 0)
        : this.model.nowMs -
          Math.floor(this.random() ** 2 * 30 * dayMs) +
          Math.floor(this.random() * 2 * hour);
    const [from, to] = [edge(), edge()].toSorted((a, b) => a - b) as [number, number];
    if (from < to) {
      this.say(`compare ${user} from ${iso(from)} to ${iso(to)}`);
      const inside = own.filter((use) => use.atMs >= from && use.atMs < to);
      const usage = await this.one<{
        total_tokens: number;
        cost_micros: number;
        call_count: number;
        conversation_count: number;
        charged_tokens: number;
        by_day: { day: string; total_tokens: number }[];
        by_model: { model: string; total_tokens: number }[];
      }>("select public.calculate_user_token_usage($1, $2, $3) as answer", [user, iso(from), iso(to)]);
      const sum = inside.reduce((total, use) => total + use.tokens, 0);
      expect({
        total: usage.total_tokens,
        charged: usage.charged_tokens,
        calls: usage.call_count,
        conversations: usage.conversation_count,
        days: sumBy(
          usage.by_day,
          (row) => row.day,
          (row) => row.total_tokens,
        ),
        models: sumBy(
          usage.by_model,
          (row) => row.model,
          (row) => row.total_tokens,
        ),
      }).toEqual({
        total: sum,
        charged: charged(inside).reduce((total, use) => total + use.tokens, 0),
        calls: inside.length,
        conversations: new Set(inside.map((use) => use.conversation)).size,
        days: sumBy(inside, (use) => use.day, tokensOf),
        models: sumBy(inside, (use) => use.model, tokensOf),
      });
    }
  }

  /** Days, weeks and months of one user, up to their own today. */
  async compareTable(user: string, own: readonly Use[]): Promise<void> {
    const period = this.pick(["day", "week", "month"] as const);
    const { rows: table } = await this.sql.query<{
      period_start: string;
      total_tokens: string;
      conversation_count: string;
    }>("select period_start::text, total_tokens, conversation_count from public.user_token_usage($1, $2)", [
      user,
      period,
    ]);
    const first = table[0]?.period_start ?? "";
    const today = this.model.dayOf(user);
    const shown = own.filter((use) => use.day >= first && firstDay(period, use.day) <= today);
    expect(
      sumBy(
        table.filter((row) => Number(row.total_tokens) > 0),
        (row) => row.period_start,
        (row) => Number(row.total_tokens),
      ),
    ).toEqual(sumBy(shown, (use) => firstDay(period, use.day), tokensOf));
    for (const row of table)
      expect(Number(row.conversation_count)).toBe(
        new Set(
          shown
            .filter((use) => firstDay(period, use.day) === row.period_start)
            .map((use) => use.conversation),
        ).size,
      );
  }

  /** The account's own day and month. */
  async compareAccount(user: string, own: readonly Use[]): Promise<void> {
    const today = this.model.dayOf(user);
    const account = await this.one<Record<string, unknown>>(
      "select to_jsonb(x) as answer from governance.current_account($1) x",
      [user],
    );
    const counted = charged(own);
    expect({
      day: account["local_day"],
      tokens: account["day_tokens"],
      cost: account["day_cost_micros"],
      month: account["month_tokens"],
    }).toEqual({
      day: today,
      tokens: counted.filter((use) => use.day === today).reduce((sum, use) => sum + use.tokens, 0),
      cost: counted.filter((use) => use.day === today).reduce((sum, use) => sum + use.tokens, 0),
      month: counted
        .filter((use) => use.day.slice(0, 7) === today.slice(0, 7))
        .reduce((sum, use) => sum + use.tokens, 0),
    });
  }

  async compareAll(): Promise<void> {
    // Everybody, by day: closed days from the totals, open ones from the roll-up.
    const days = 1 + Math.floor(this.random() * 40);
    const totals = await this.one<{
      from: string;
      total_tokens: number;
      by_day: { day: string; total_tokens: number }[];
    }>("select public.console_usage_totals($1) as answer", [days]);
    const seen = this.model.uses.filter((use) => use.day >= isoDay(this.model.nowMs - (days - 1) * dayMs));
    expect({
      total: totals.total_tokens,
      days: sumBy(
        totals.by_day.filter((row) => row.total_tokens > 0),
        (row) => row.day,
        (row) => row.total_tokens,
      ),
    }).toEqual({
      total: seen.reduce((sum, use) => sum + use.tokens, 0),
      days: sumBy(seen, (use) => use.day, tokensOf),
    });
  }

  /** What happens next, to one of them or to all. */
  async step(): Promise<void> {
    // What happens to all of them happens as often as it would to one.
    const common = this.random() * (steps / 15);
    if (common < 0.3) await this.importRows();
    // Longer than a month back it does not look.
    else if (common < 1.4 || this.model.nowMs > this.lastUpkeepMs + 20 * dayMs) await this.upkeep();
    else if (common < 1.7) await this.compareAll();
    else if (common < 3.7) {
      this.model.nowMs += Math.floor(
        this.pick([
          this.random() * hour,
          this.random() * 6 * hour,
          this.random() * 16 * hour,
          this.random() * 3 * dayMs,
          9 * dayMs * this.random(),
        ]),
      );
      await this.setClock();
    }
    const chance = this.random();
    const user = this.pick(this.users);
    if (chance < 0.5) await this.holdAndSettle(this.call(user));
    else if (chance < 0.58) await this.hold(this.call(user));
    else if (chance < 0.66 && this.held.length > 0)
      await this.settle(this.held.splice(Math.floor(this.random() * this.held.length), 1)[0] as Call);
    else if (chance < 0.83) await this.setZone(user, this.pick(zones));
    else if (chance < 0.86 && this.model.zoneOf(user) !== "UTC") await this.loseZone(user);
    else if (chance < 0.96) await this.compare(user);
  }

  /** Each budget that was full when upkeep saw it was raised, once, and nothing else. */
  async expectAlerts(): Promise<void> {
    const { rows: raised } = await this.sql.query<{ matter: string; value: number }>(
      `select concat_ws(' ', k.alert_name, e.period_key, a.user_id) as matter from governance.alert_events e
       join governance.cost_alerts k using (alert_id) left join governance.accounts a on a.account_id = e.account_id`,
    );
    const matters = raised.map(({ matter }) => matter);
    expect(matters.toSorted()).toEqual([...this.due].toSorted());
    expect(
      (await this.one<{ problems: unknown[] }>("select public.verify_ledger() as answer")).problems,
    ).toEqual([]);
  }
}

async function prepare(sql: pg.Client): Promise<void> {
  await sql.query("select public.apply_preset($1)", [preset]);
  // Upkeep has no months to make or to drop.
  await sql.query("select governance.ensure_request_partitions('2026-12-01', '2028-07-01')");
  await sql.query("update governance.active_config set decision_retention_days = 100000");
  // As after a round of upkeep: a zone that is gone is met when the day of its user ends.
  await sql.query(
    `insert into governance.maintenance_state (key, value)
     values ('checked_zones', jsonb_build_object('server_started', pg_postmaster_start_time()::text))`,
  );
  await sql.query(
    "create table public.old_chat (id int primary key, user_id text, created_at timestamptz, metadata jsonb, conversation_id text); grant select on public.old_chat to project_owner",
  );
}

/** Works with a copy of a database: each group of histories begins from the same one. */
async function withCopy(
  server: string,
  url: string,
  name: string,
  work: (sql: pg.Client) => Promise<void>,
): Promise<void> {
  const copy = new URL(url);
  const template = copy.pathname.slice(1);
  copy.pathname = `/${name}`;
  await withClient(server, (sql) => sql.query(`create database ${name} template ${template}`));
  await withClient(copy.href, work);
  await withClient(server, (sql) => sql.query(`drop database ${name}`));
}

describe.each(installedVersions())("totals of usage while zones change, on PostgreSQL %i", (version) => {
  it(
    `are a plain recount in ${historiesOn(version)} histories`,
    async () => {
      const server = postgresUrls()[version];
      if (server === null) throw new Error(`PostgreSQL ${version} is not installed here.`);
      const { url } = await createProjectDatabase(server);
      await withClient(url, prepare);
      const first = seeded(1);
      for (let seed = first; seed < first + Math.ceil(historiesOn(version) / together); seed += 1)
        await withCopy(server, url, `zones_${seed}`, async (sql) => {
          const histories = new Histories(sql, seed);
          try {
            await histories.tell();
          } catch (error) {
            throw new Error(`Histories ${seed}:\n${histories.story.join("\n")}`, { cause: error });
          }
        });
    },
    300_000 + 600 * historiesOn(version),
  );

  it("agree on what a day is", () => {
    expect(dateIn("Pacific/Kiritimati", Date.parse("2030-05-31T10:00:00Z"))).toBe("2030-06-01");
    expect(dateIn("Etc/GMT+12", Date.parse("2030-05-31T11:59:59Z"))).toBe("2030-05-30");
    expect(weekKey("2027-12-27")).toBe("2027-W52");
    expect(weekKey("2026-12-28")).toBe("2026-W53");
  });
});
