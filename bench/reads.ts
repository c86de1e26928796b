/**
 * What the console reads must not cost more because there is more history: the same calls on a project with much of it
 * and on one with little, side by side on one server, with as many accounts and the same traffic in the last hour.
 *
 * READS_EVENTS (1,000,000) sizes the history, READS_ACCOUNTS (100,000) both projects; the full claim is 5,000,000 and
 * 1,000,000. The small project has 50,000 events. READS_ONLY is a pattern of the reads to measure.
 */
import pg from "pg";
import { createProjectDatabase } from "../tests/support/database.ts";
import { startPostgres } from "../tests/support/postgres.ts";
import { fill, names, type Size } from "./cases/history.ts";
import { alternate, type BenchResult, round } from "./measure.ts";

/** Names with two letters in the wrong order, one left out, one too many. */
const misspelt = ["dmirti", "carlso", "viktro", "xenai", "fatma", "georgee"];

/** When an alert would have been raised, as its editor asks. */
const wouldRaise = (alert: object): string =>
  `governance.alert_effect('${JSON.stringify({ alert_name: "bench", ...alert })}', null, governance.now())`;

/** What a person at the console does, by name, as statements; `n` makes each different. */
const reads: Readonly<Record<string, (n: number, size: Size) => string>> = {
  overview: () => "public.console_overview(60)",
  overview_90_days: () => "public.console_overview(129600)",
  overview_90_days_of_a_reason: () => `public.console_overview(129600, '{"reason": "daily_limit"}')`,
  overview_90_days_of_a_model: () => `public.console_overview(129600, '{"model": "gpt-4o-mini"}')`,
  overview_90_days_of_a_user: (n, { accounts }) =>
    `public.console_overview(129600, '{"user_id": "user_${String(1 + ((n * 7_919) % accounts)).padStart(8, "0")}"}')`,
  calls_page: () => "public.console_calls_before(null, 200)",
  costs_90_days_by_model: () => "public.console_costs(current_date - 89, current_date)",
  costs_90_days_by_plan: () => "public.console_costs(current_date - 89, current_date, 'week', 'plan')",
  costs_90_days_by_provider: () =>
    "public.console_costs(current_date - 89, current_date, 'month', 'provider')",
  costs_90_days_by_task: () => "public.console_costs(current_date - 89, current_date, 'day', 'task_type')",
  costs_90_days_by_scope: () => "public.console_costs(current_date - 89, current_date, 'day', 'scope')",
  costs_90_days_by_session: () => "public.console_costs(current_date - 89, current_date, 'week', 'session')",
  costs_90_days_by_agent: () => "public.console_costs(current_date - 89, current_date, 'week', 'agent')",
  costs_90_days_of_a_user: (n, { accounts }) =>
    `public.console_costs(current_date - 89, current_date, 'day', 'model', '{"user": "user_${String(1 + ((n * 7_919) % accounts)).padStart(8, "0")}"}')`,
  costs_90_days_by_user: () => "public.console_costs(current_date - 89, current_date, 'week', 'user')",
  revenue_90_days: () => "public.console_revenue(current_date - 89, current_date, 'week')",
  alert_preview_of_a_budget: () =>
    wouldRaise({ metric: "cost_micros", scope: "plan:pro", period: "year", thresholds: [10_000] }),
  alert_preview_of_each_user: () =>
    wouldRaise({ metric: "cost_micros", scope: "user", period: "month", thresholds: [3_000] }),
  alert_preview_of_calls: () =>
    wouldRaise({ metric: "operation_tokens", scope: "user", period: "day", thresholds: [400] }),
  alert_preview_of_spikes: () =>
    wouldRaise({ metric: "spike", scope: "user", period: "hour", thresholds: [5] }),
  alerts_set: () => "public.console_cost_alerts()",
  alert_groups: () => "public.console_alert_groups()",
  health: () => "public.console_health()",
  health_details: () => "public.console_health_details()",
  feed_page: () => "public.console_events_before(null, 200)",
  feed_page_of_a_reason: () => `public.console_events_before(null, 50, '{"reason": "daily_limit"}')`,
  first_page: () => "public.console_search_accounts()",
  page_by_tokens: () => "public.console_search_accounts('', 'all', null, 'tokens_this_month', true)",
  search_user_id: (n, { accounts }) =>
    `public.console_search_accounts('user_${String(1 + ((n * 7_919) % accounts)).padStart(8, "0")}')`,
  search_name: (n) => `public.console_search_accounts('${names.split(",")[n % 26]}')`,
  search_misspelt: (n) => `public.console_search_accounts('${misspelt[n % misspelt.length]}')`,
  search_part_of_a_call: (n, { events }) =>
    `public.console_search('req-${1 + ((n * 7_919) % (events / 2))}')`,
  history: (n, { accounts }) =>
    `public.console_account_history('user_${String(1 + ((n * 104_729) % accounts)).padStart(8, "0")}')`,
  account: (n, { accounts }) =>
    `public.console_get_account('user_${String(1 + ((n * 104_729) % accounts)).padStart(8, "0")}')`,
  // Two calls a user is what the short history has.
  account_decisions: (n, { accounts }) =>
    `public.console_account_decisions('user_${String(1 + ((n * 7_919) % accounts)).padStart(8, "0")}', null, 2)`,
  receipt: (n, { events }) => `public.explain_decision(${2 * (1 + ((n * 7_919) % (events / 2)))})`,
};

/** Rows that a read looks at: what grows with the history shows here, however busy the machine is. */
async function rowsRead(sql: pg.Client, read: string): Promise<number> {
  const count = async (): Promise<number> =>
    (
      await sql.query<{ rows: number }>(
        `select coalesce(sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)), 0)::float8 as rows
         from pg_stat_xact_user_tables where schemaname = 'governance'`,
      )
    ).rows[0]?.rows ?? 0;
  await sql.query("begin");
  const before = await count();
  await sql.query(`select ${read}`);
  const after = await count();
  await sql.query("rollback");
  return after - before;
}

export async function run(): Promise<BenchResult[]> {
  const accounts = Number(process.env["READS_ACCOUNTS"] ?? 100_000);
  const large: Size = { accounts, events: Number(process.env["READS_EVENTS"] ?? 1_000_000) };
  const small: Size = { accounts, events: 50_000 };
  const server = await startPostgres({
    version: 18,
    settings: { shared_buffers: "1GB", synchronous_commit: "off", max_wal_size: "8GB" },
  });
  const open = async (size: Size): Promise<pg.Client> => {
    const { url } = await createProjectDatabase(server.url(), { preset: "default" });
    const sql = new pg.Client({ connectionString: url });
    // The server is stopped under it where something fails: that failure is the one to read.
    sql.on("error", () => undefined);
    await sql.connect();
    await fill(sql, size);
    return sql;
  };
  const results: BenchResult[] = [];
  try {
    const [smallSql, largeSql] = [await open(small), await open(large)];
    let n = 0;
    const time = async (
      sql: pg.Client,
      size: Size,
      read: (n: number, size: Size) => string,
    ): Promise<number> => {
      const started = performance.now();
      for (let call = 0; call < 20; call += 1) {
        n += 1;
        await sql.query(`select ${read(n, size)}`);
      }
      return (performance.now() - started) / 20;
    };
    const only = process.env["READS_ONLY"];
    for (const [name, read] of Object.entries(reads)) {
      if (only !== undefined && !new RegExp(only).test(name)) continue;
      const measured = await alternate(
        9,
        () => time(largeSql, large, read),
        () => time(smallSql, small, read),
      );
      const rows = {
        large_rows: await rowsRead(largeSql, read(1, large)),
        small_rows: await rowsRead(smallSql, read(1, small)),
      };
      results.push({
        bench: `reads_${name}_long_vs_short_history`,
        ratio: round(measured.ratio),
        better: "lower",
        required: 1.5,
        figures: {
          large_ms: round(measured.ours),
          small_ms: round(measured.floor),
          ...rows,
          large_events: large.events,
          small_events: small.events,
          accounts,
        },
      });
    }
    await Promise.all([smallSql.end(), largeSql.end()]);
  } finally {
    await server.stop();
  }
  return results;
}
