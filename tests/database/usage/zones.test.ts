/**
 * Random histories of accounts whose time zones become known and change, with late settlements, imports and days that
 * are closed at any time: every total of usage is a plain recount, of one account and of all that live together. `TESTS`
 * sets how many (tests/support/size.ts).
 */
import { sized } from "../../support/size.ts";
import pg from "pg";
import { describe, expect, inject, it } from "vitest";
import { createProjectDatabase } from "../../support/database.ts";
import { installedVersions } from "../../support/project.ts";
import { dice } from "../../support/dice.ts";
import { dateIn, firstDay, sumBy, type Use, ZoneModel } from "../../support/models/zone-model.ts";

/** A history is an account's; so many live in one project, under one clock, with one upkeep. */
const together = 24;
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

/** An ISO week as PostgreSQL names it. */
function weekKey(monday: string): string {
  const thursday = new Date(Date.parse(`${monday}T00:00:00Z`) + 3 * dayMs);
  const first = Date.UTC(thursday.getUTCFullYear(), 0, 1);
  const week = 1 + Math.floor((thursday.getTime() - first) / (7 * dayMs));
  return `${thursday.getUTCFullYear()}-W${String(week).padStart(2, "0")}`;
}

/** Steps of a project's histories: some fifteen of each account. */
const steps = 15 * together;

const isoDay = (ms: number): string => new Date(ms).toISOString().slice(0, 10);
const iso = (ms: number): string => new Date(ms).toISOString();
const tokensOf = (use: Use): number => use.tokens;
/** Imports count as usage, and are never charged: budgets of tokens do not have them. */
const charged = (uses: readonly Use[]): Use[] => uses.filter((use) => !use.isImported);

async function tellHistories(sql: pg.Client, seed: number): Promise<void> {
  const random = dice(seed);
  const pick = <T>(items: readonly T[]): T => items[Math.floor(random() * items.length)] as T;
  const model = new ZoneModel(pick(starts) + Math.floor(random() * 12 * hour));
  const story: string[] = [];
  const say = (text: string): void => void story.push(`${iso(model.nowMs)} ${text}`);
  const one = async <T>(text: string, values: unknown[] = []): Promise<T> =>
    (await sql.query(text, values)).rows[0]?.["answer"] as T;
  const setClock = (): Promise<unknown> =>
    one("select governance.set_test_clock($1, true) as answer", [iso(model.nowMs)]);
  const users = Array.from({ length: together }, (_, n) => `user-${n}`);
  const held: { id: string; user: string; model: string; conversation: string }[] = [];
  /** Budget periods that must have been raised, each with its total when upkeep saw it. */
  const due = new Set<string>();
  let touched: Use[] = [];
  let lastUpkeepMs = model.nowMs;
  let calls = 0;
  let rows = 0;

  async function setZone(user: string, zone: string): Promise<void> {
    say(`${user} in ${zone}`);
    model.setZone(user, zone);
    await one("select public.upsert_account($1, p_timezone => $2) as answer", [user, zone]);
  }
  async function authorize(user: string): Promise<(typeof held)[number]> {
    calls += 1;
    const call = { id: `c${calls}`, user, model: pick(["m1", "m2"]), conversation: pick(["k1", "k2", "k3"]) };
    const answer = await one<{ decision: string }>(
      "select public.authorize_usage($1, $2, $3, 10, null, $4) as answer",
      [call.id, user, call.model, call.conversation],
    );
    expect(answer.decision).toBe("allow");
    return call;
  }
  async function settle(call: (typeof held)[number]): Promise<void> {
    const tokens = 1 + Math.floor(random() * 700);
    say(`${call.user} settles ${call.id}: ${tokens}`);
    await one("select public.settle_usage($1, $2, 0) as answer", [call.id, tokens]);
    model.settle(call.user, tokens, call.model, call.conversation);
    touched.push(model.uses.at(-1) as Use);
  }
  async function importRows(): Promise<void> {
    for (let left = 1 + Math.floor(random() * together); left > 0; left -= 1) {
      const user = pick(users);
      const atMs = model.nowMs - Math.floor(random() ** 2 * 20 * dayMs);
      const [tokens, name, conversation] = [
        1 + Math.floor(random() * 500),
        pick(["m1", "old"]),
        pick(["k1", "i1"]),
      ];
      rows += 1;
      say(`${user} has ${tokens} imported of ${iso(atMs)}`);
      await sql.query("insert into public.old_chat values ($1, $2, $3, $4, $5)", [
        rows,
        user,
        iso(atMs),
        { model: name, usage: { prompt_tokens: tokens, completion_tokens: 0 } },
        conversation,
      ]);
      model.import(user, atMs, tokens, name, conversation);
    }
    await one(
      `select public.import_usage_history('public.old_chat', '{"conversation_id":"conversation_id"}') as answer`,
    );
  }
  async function upkeep(): Promise<void> {
    say("upkeep");
    lastUpkeepMs = model.nowMs;
    // The second round sees the listings that the first brought up to the moment.
    for (const _ of [1, 2]) await one("select public.run_maintenance() as answer");
    const all = charged(model.uses);
    for (const use of touched) {
      const isFull = (uses: readonly Use[], budget: number): boolean =>
        uses.reduce((sum, each) => sum + each.tokens, 0) >= budget;
      const within = (period: "day" | "week" | "month"): Use[] =>
        all.filter((each) => firstDay(period, each.day) === firstDay(period, use.day));
      if (isFull(within("day"), budgets.day)) due.add(`day ${use.day}`);
      if (isFull(within("week"), budgets.week)) due.add(`week ${weekKey(firstDay("week", use.day))}`);
      if (isFull(within("month"), budgets.month)) due.add(`month ${use.day.slice(0, 7)}`);
      if (
        isFull(
          within("day").filter(({ user }) => user === use.user),
          budgets.user_day,
        )
      )
        due.add(`user_day ${use.day} ${use.user}`);
    }
    touched = [];
  }
  async function compare(user: string): Promise<void> {
    const own = model.uses.filter((use) => use.user === user);
    // Any period, to the very instant; its edges are often those of days, or of uses.
    const edge = (): number =>
      random() < 0.3 && own.length > 0
        ? pick(own).atMs + (random() < 0.5 ? 1 : 0)
        : model.nowMs - Math.floor(random() ** 2 * 30 * dayMs) + Math.floor(random() * 2 * hour);
    const [from, to] = [edge(), edge()].toSorted((a, b) => a - b) as [number, number];
    if (from < to) {
      say(`compare ${user} from ${iso(from)} to ${iso(to)}`);
      const inside = own.filter((use) => use.atMs >= from && use.atMs < to);
      const usage = await one<{
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
    // Days, weeks and months of one user, up to their own today.
    const period = pick(["day", "week", "month"] as const);
    const { rows: table } = await sql.query<{
      period_start: string;
      total_tokens: string;
      conversation_count: string;
    }>("select period_start::text, total_tokens, conversation_count from public.user_token_usage($1, $2)", [
      user,
      period,
    ]);
    const first = table[0]?.period_start ?? "";
    const today = model.dayOf(user);
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
    // The account's own day and month.
    const account = await one<Record<string, unknown>>(
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
  async function compareAll(): Promise<void> {
    // Everybody, by day: closed days from the totals, open ones from the roll-up.
    const days = 1 + Math.floor(random() * 40);
    const totals = await one<{
      from: string;
      total_tokens: number;
      by_day: { day: string; total_tokens: number }[];
    }>("select public.console_usage_totals($1) as answer", [days]);
    const seen = model.uses.filter((use) => use.day >= isoDay(model.nowMs - (days - 1) * dayMs));
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

  await setClock();
  for (const user of users) await setZone(user, random() < 0.5 ? "UTC" : pick(zones));
  try {
    for (let step = 0; step < steps; step += 1) {
      // What happens to all of them happens as often as it would to one.
      const common = random() * (steps / 15);
      if (common < 0.3) await importRows();
      // Longer than a month back it does not look.
      else if (common < 1.4 || model.nowMs > lastUpkeepMs + 20 * dayMs) await upkeep();
      else if (common < 1.7) await compareAll();
      else if (common < 3.7) {
        model.nowMs += Math.floor(
          pick([
            random() * hour,
            random() * 6 * hour,
            random() * 16 * hour,
            random() * 3 * dayMs,
            9 * dayMs * random(),
          ]),
        );
        await setClock();
      }
      const chance = random();
      if (chance < 0.5) await settle(await authorize(pick(users)));
      else if (chance < 0.58) held.push(await authorize(pick(users)));
      else if (chance < 0.66 && held.length > 0)
        await settle(held.splice(Math.floor(random() * held.length), 1)[0] as (typeof held)[number]);
      else if (chance < 0.86) await setZone(pick(users), pick(zones));
      else if (chance < 0.96) await compare(pick(users));
    }
    for (const call of held.splice(0)) await settle(call);
    await upkeep();
    await compareAll();
    model.nowMs += 2 * dayMs;
    await setClock();
    await upkeep();
    for (const user of users) await compare(user);
    await compareAll();
    const { rows: raised } = await sql.query<{ matter: string; value: number }>(
      `select concat_ws(' ', k.alert_name, e.period_key, a.user_id) as matter from governance.alert_events e
       join governance.cost_alerts k using (alert_id) left join governance.accounts a on a.account_id = e.account_id`,
    );
    const matters = raised.map(({ matter }) => matter);
    expect(matters.toSorted()).toEqual([...due].toSorted());
    expect((await one<{ problems: unknown[] }>("select public.verify_ledger() as answer")).problems).toEqual(
      [],
    );
  } catch (error) {
    throw new Error(`Histories ${seed}:\n${story.join("\n")}`, { cause: error });
  }
}

describe.each(installedVersions())("totals of usage while zones change, on PostgreSQL %i", (version) => {
  it(`are a plain recount in ${historiesOn(version)} histories`, async () => {
    const server = inject("postgresUrls")[version];
    if (server === null) throw new Error(`PostgreSQL ${version} is not installed here.`);
    const { url } = await createProjectDatabase(server);
    const sql = new pg.Client({ connectionString: url });
    await sql.connect();
    try {
      await sql.query("select public.apply_preset($1)", [preset]);
      // Upkeep has no months to make or to drop.
      await sql.query("select governance.ensure_request_partitions('2026-12-01', '2028-07-01')");
      await sql.query("update governance.active_config set decision_retention_days = 100000");
      await sql.query(
        "create table public.old_chat (id int primary key, user_id text, created_at timestamptz, metadata jsonb, conversation_id text); grant select on public.old_chat to project_owner",
      );
      for (let seed = 1; seed <= Math.ceil(historiesOn(version) / together); seed += 1) {
        // They begin from the same database.
        await sql.query("begin");
        await tellHistories(sql, seed);
        await sql.query("rollback");
      }
    } finally {
      await sql.end();
    }
  }, 3_600_000);

  it("agree on what a day is", () => {
    expect(dateIn("Pacific/Kiritimati", Date.parse("2030-05-31T10:00:00Z"))).toBe("2030-06-01");
    expect(dateIn("Etc/GMT+12", Date.parse("2030-05-31T11:59:59Z"))).toBe("2030-05-30");
    expect(weekKey("2027-12-27")).toBe("2027-W52");
    expect(weekKey("2026-12-28")).toBe("2026-W53");
  });
});
