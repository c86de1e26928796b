/**
 * What the console reads must not cost more because there is more history: the same calls on a project with much of it
 * and on one with little, side by side on one server, with as many accounts and the same traffic in the last hour.
 *
 * READS_EVENTS (1,000,000) sizes the history, READS_ACCOUNTS (100,000) both projects; the full claim is 5,000,000 and
 * 1,000,000. The small project has 50,000 events.
 */
import pg from "pg";
import { createProjectDatabase } from "../tests/support/database.ts";
import { startPostgres } from "../tests/support/postgres.ts";
import { alternate, type BenchResult, round } from "./measure.ts";

interface Size {
  readonly accounts: number;
  /** Authorisations and settlements together. */
  readonly events: number;
}

const lastHourCalls = 2_000;
const names =
  "anna,bela,carlos,dmitri,elif,fatima,george,hana,ivan,jun,katya,liam,maria,nour,olga,pavel,quinn,rosa,sven,tariq,uma,viktor,wei,xenia,yusuf,zoe";

/**
 * Fills a migrated database: consistent as far as reading goes (no chain of hashes), in a few statements a million
 * rows. The last hour has the same calls whatever the size; the rest lies evenly over 45 days before.
 */
async function fill(sql: pg.Client, { accounts, events }: Size): Promise<void> {
  const calls = events / 2;
  await sql.query("set session_replication_role = replica");
  await sql.query(`insert into governance.accounts (user_id, plan_id, email, display_name, created_at, local_day, day_ends_at, local_month, month_ends_at,
      last_activity_at, day_calls, day_tokens, month_tokens, month_cost_micros, subscription_tokens, flagged_at, debt_tokens)
    select 'user_' || lpad(i::text, 8, '0'), case when i % 10 = 0 then 'pro' else 'starter' end, lower(n.name) || '.' || substr(md5(i::text), 1, 6) || '@mail.test',
      case when i % 7 > 0 then initcap(n.name || ' ' || substr(md5((i * 3)::text), 1, 8)) end, now() - interval '100 days', current_date, current_date + 1,
      date_trunc('month', now())::date, date_trunc('month', now()) + interval '1 month', now() - (i % 40000) * interval '1 minute', (i % 40000 < 600)::int,
      case when i % 40000 < 600 then i % 9000 else 0 end, i % 40000, i % 30000, 100000, case when i % 2000 = 0 then now() end, case when i % 5000 = 0 then 100 else 0 end
    from generate_series(1, ${accounts}) i cross join lateral (select (string_to_array('${names}', ','))[1 + i * 31 % 26] as name) n`);
  // As the trigger and governance.copy_to_listings would write it, in one go.
  await sql.query(`insert into governance.account_listings (account_id, sort_name, search_text, plan_id, is_flagged, month_ends_at, tokens_today, tokens_this_month,
      cost_this_month_micros, available, debt, usage_percent, last_activity_at, day_ends_at, created_at)
    select a.account_id, governance.sort_name(a.user_id, a.display_name), governance.search_text(a.user_id, a.display_name, a.email), a.plan_id, a.flagged_at is not null,
      a.month_ends_at, a.day_tokens, a.month_tokens, a.month_cost_micros, a.subscription_tokens, a.debt_tokens,
      governance.percent_used(a.day_tokens, a.month_tokens, p.daily_limit, p.monthly_limit, p.monthly_allowance), a.last_activity_at, case when a.day_calls > 0 then a.day_ends_at end, a.created_at
    from governance.accounts a join governance.plans p using (plan_id)`);
  await sql.query(
    "select governance.ensure_request_partitions((now() - interval '46 days')::date, now()::date)",
  );
  const at = `case when i > ${calls - lastHourCalls} then now() - interval '1 hour' + (i - ${calls - lastHourCalls}) * interval '1 hour' / ${lastHourCalls + 1}
    else now() - interval '45 days' + i * (interval '44 days' / ${calls}) end`;
  await sql.query(`insert into governance.requests (xid, decision_id, created_at, account_id, request_id, fingerprint, requested_model, task_type, decision, reason, http_status, model,
      plan_id, rule_set_id, facts, reserved_tokens, day_ends_at, month_ends_at, subscription_tokens, purchased_tokens, promotional_tokens, total_reserved_tokens, debt_tokens,
      status, ended_at, settled_model, input_tokens, output_tokens, charged_tokens, cost_micros, currency, message_hash)
    select '1', 2 * i, t.at, 1 + (i::bigint * 7919) % ${accounts}, 'req-' || i, 0, 'gpt-4o-mini', 'chat', case when i % 50 = 0 then 'block' else 'allow' end,
      case when i % 5000 = 0 then 'spam_identical' when i % 50 = 0 then 'daily_limit' end, case when i % 50 = 0 then 429 else 200 end, 'gpt-4o-mini', 'starter', 0,
      jsonb_populate_record(null::governance.facts, '{"estimated_tokens": 500, "tokens_today": 100, "tokens_this_month": 100, "messages_today": 1, "rapid_messages": 1, "message_words": 12}'),
      case when i % 50 = 0 then 0 else 500 end, t.at + interval '5 hours', t.at + interval '5 days', 1000, 0, 0, 500, 0,
      case when i % 50 = 0 then 'blocked' else 'settled' end, t.at + interval '2 s', 'gpt-4o-mini', 300, 150, case when i % 50 > 0 then 450 end, case when i % 50 > 0 then 120 end, 'usd', i
    from generate_series(1, ${calls}) i cross join lateral (select ${at} as at) t`);
  await sql.query(
    "insert into governance.request_keys (request_id, created_at, decision_id, account_id, lock_key, message_hash) select r.request_id, r.created_at, r.decision_id, r.account_id, 0, r.message_hash from governance.requests r",
  );
  await sql.query(`insert into governance.token_transactions (transaction_id, account_id, created_at, transaction_type, amount, previous_balance, new_balance, debt_after, lot_changes, reference, decision_id, hash, xid)
    select 2 * i + 1, 1 + (i::bigint * 7919) % ${accounts}, ${at} + interval '2 s', 'usage', -450, 1000, 550, 0, array[1 + (i::bigint * 7919) % ${accounts}, -450], 'req-' || i, 2 * i, '\\x00', '1'
    from generate_series(1, ${calls}) i where i % 50 > 0`);
  // A paid lot an account, the roll-up of each settled call, and the totals that follow them.
  await sql.query(`insert into governance.lots (account_id, kind, granted, remaining, spent, amount_minor, currency, created_at)
    select a.account_id, 'purchased', 100000000, 50000000, 50000000, 2000, 'usd', now() - interval '99 days' from governance.accounts a order by 1`);
  await sql.query(
    `update governance.requests set usage_day = (ended_at at time zone 'UTC')::date where status = 'settled'`,
  );
  await sql.query(`insert into governance.usage_daily (account_id, day, model, calls, messages, input_tokens, output_tokens, charged_tokens, cost_micros, first_activity_at, last_activity_at)
    select r.account_id, r.usage_day, r.settled_model, count(*), count(*), sum(r.input_tokens), sum(r.output_tokens), sum(r.charged_tokens), sum(r.cost_micros), min(r.ended_at), max(r.ended_at)
    from governance.requests r where r.status = 'settled' group by 1, 2, 3`);
  for (let from = 0; from < 2 * (calls - lastHourCalls); from += 40_000)
    await sql.query(
      `select governance.add_to_totals(array(select c from governance.count_calls(${from}, ${Math.min(from + 40_000, 2 * (calls - lastHourCalls))}) c), now())`,
    );
  await sql.query(`select setval('governance.event_ids', ${2 * calls + 1})`);
  await sql.query(
    `update governance.maintenance_state set value = jsonb_build_object('consumed', ${2 * (calls - lastHourCalls)}, 'mark', ${2 * calls + 1}, 'mark_xid', '1') where key = 'followed_events'`,
  );
  await sql.query("set session_replication_role = default");
  for (let left = 1; left > 0; )
    left = (await sql.query("select governance.follow_events(5000) as left")).rows[0].left;
  for (let left = 1; left > 0; )
    left = (await sql.query("select governance.count_revenue(50000) as left")).rows[0].left;
  for (let left = 1; left > 0; )
    left = (await sql.query("select governance.aggregate_days(40) as left")).rows[0].left;
  for (let left = 1; left > 0; )
    left = (await sql.query("select governance.rank_days(now()) as left")).rows[0].left;
  await sql.query("vacuum analyze");
}

/** Names with two letters in the wrong order, one left out, one too many. */
const misspelt = ["dmirti", "carlso", "viktro", "xenai", "fatma", "georgee"];

/** What a person at the console does, by name, as statements; `n` makes each different. */
const reads: Readonly<Record<string, (n: number, size: Size) => string>> = {
  overview: () => "public.console_overview(60)",
  overview_90_days: () => "public.console_overview(129600)",
  overview_90_days_of_a_reason: () => `public.console_overview(129600, '{"reason": "daily_limit"}')`,
  calls_page: () => "public.console_calls_before(null, 200)",
  costs_90_days_by_model: () => "public.console_costs(current_date - 89, current_date)",
  costs_90_days_by_plan: () => "public.console_costs(current_date - 89, current_date, 'week', 'plan')",
  costs_90_days_by_user: () => "public.console_costs(current_date - 89, current_date, 'week', 'user')",
  revenue_90_days: () => "public.console_revenue(current_date - 89, current_date, 'week')",
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
    for (const [name, read] of Object.entries(reads)) {
      const measured = await alternate(
        9,
        () => time(largeSql, large, read),
        () => time(smallSql, small, read),
      );
      results.push({
        bench: `reads_${name}_long_vs_short_history`,
        ratio: round(measured.ratio),
        better: "lower",
        required: 1.5,
        figures: {
          large_ms: round(measured.ours),
          small_ms: round(measured.floor),
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
