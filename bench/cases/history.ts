/** A project with much history, for benchmarks of what the console reads. */
import type pg from "pg";

export interface Size {
  readonly accounts: number;
  /** Authorisations and settlements together. */
  readonly events: number;
  /** SQL of the id of call `i`. */
  readonly requestId?: string;
  /** SQL of facts of call `i` that are not the same for all, as jsonb. */
  readonly facts?: string;
}

/** Of any history, whatever its size. */
const lastHourCalls = 2_000;
export const names =
  "anna,bela,carlos,dmitri,elif,fatima,george,hana,ivan,jun,katya,liam,maria,nour,olga,pavel,quinn,rosa,sven,tariq,uma,viktor,wei,xenia,yusuf,zoe";

/** With the endings, a thousand surnames. */
const surnames =
  "ahlers,baum,chen,dias,eken,fuchs,gomes,haas,ilic,jans,kraus,lang,mohr,nagy,otto,petro,quist,rossi,silva,toth,ungar,vogel,wagner,xu,yilmaz,zeman,adler,berg,costa,dufour,ernst,faber,grube,hoff,ivano,jung,klein,lopez,meyer,novak,oliva,pohl,reis,stein,thoma,ulrich,valent,weiss,yama,zorn";
const endings = "a,ova,ski,son,er,mann,sen,ez,i,us,ko,ini,berg,dal,feld,hof,lund,rud,stad,wick";

/**
 * Fills a migrated database: consistent as far as reading goes (no chain of hashes), in a few statements a million
 * rows. The last hour has the same calls whatever the size; the rest lies evenly over 45 days before.
 */
export async function fill(sql: pg.Client, size: Size): Promise<void> {
  await fillCalls(sql, size);
  await fillTotals(sql, size);
}

/** Accounts, their calls and ledger, without the sums that views over days read: enough for a replay. */
export async function fillCalls(
  sql: pg.Client,
  { accounts, events, requestId = "'req-' || i", facts = "'{}'::jsonb" }: Size,
): Promise<void> {
  const calls = events / 2;
  await sql.query("set session_replication_role = replica");
  await sql.query(`insert into governance.accounts (user_id, plan_id, email, display_name, created_at, local_day, day_ends_at, local_month, month_ends_at,
      last_activity_at, day_calls, day_tokens, month_tokens, month_cost_micros, subscription_tokens, flagged_at, debt_tokens)
    select 'user_' || lpad(i::text, 8, '0'), case when i % 10 = 0 then 'pro' else 'starter' end, n.name || '.' || substr(md5(i::text), 1, 6) || '@mail.test',
      case when i % 7 > 0 then initcap(n.name || ' ' || n.surname) end, now() - interval '100 days', current_date, current_date + 1,
      date_trunc('month', now())::date, date_trunc('month', now()) + interval '1 month', now() - (i % 40000) * interval '1 minute', (i % 40000 < 600)::int,
      case when i % 40000 < 600 then i % 9000 else 0 end, i % 40000, i % 30000, 100000, case when i % 2000 = 0 then now() end, case when i % 5000 = 0 then 100 else 0 end
    from generate_series(1, ${accounts}) i cross join lateral (select (string_to_array('${names}', ','))[1 + i * 31 % 26] as name,
        (string_to_array('${surnames}', ','))[1 + i * 37 % 50] || (string_to_array('${endings}', ','))[1 + i * 41 % 20] as surname) n`);
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
      status, ended_at, settled_model, input_tokens, output_tokens, charged_tokens, cost_micros, currency, message_hash, conversation_id, settle_metadata)
    select '1', 2 * i, t.at, 1 + (i::bigint * 7919) % ${accounts}, ${requestId}, 0, 'gpt-4o-mini', 'chat', case when i % 50 = 0 then 'block' else 'allow' end,
      case when i % 5000 = 0 then 'spam_identical' when i % 50 = 0 then 'daily_limit' end, case when i % 50 = 0 then 429 else 200 end, 'gpt-4o-mini', 'starter', 0,
      jsonb_populate_record(null::governance.facts, '{"estimated_tokens": 500, "tokens_today": 100, "tokens_this_month": 100, "messages_today": 1, "rapid_messages": 1, "message_words": 12}'::jsonb || ${facts}),
      case when i % 50 = 0 then 0 else 500 end, t.at + interval '5 hours', t.at + interval '5 days', 1000, 0, 0, 500, 0,
      case when i % 50 = 0 then 'blocked' else 'settled' end, t.at + interval '2 s', 'gpt-4o-mini', 300, 150, case when i % 50 > 0 then 450 end, case when i % 50 > 0 then 120 end, 'usd', i,
      'conversation-' || i / 10, jsonb_build_object('agent', 'agent-' || i % 12)
    from generate_series(1, ${calls}) i cross join lateral (select ${at} as at) t`);
  await sql.query(
    "insert into governance.request_keys (request_id, created_at, decision_id, account_id, lock_key, message_hash) select r.request_id, r.created_at, r.decision_id, r.account_id, 0, r.message_hash from governance.requests r",
  );
  await sql.query(`insert into governance.token_transactions (transaction_id, account_id, created_at, transaction_type, amount, previous_balance, new_balance, debt_after, lot_changes, reference, decision_id, hash, xid)
    select 2 * i + 1, 1 + (i::bigint * 7919) % ${accounts}, ${at} + interval '2 s', 'usage', -450, 1000, 550, 0, array[1 + (i::bigint * 7919) % ${accounts}, -450], ${requestId}, 2 * i, '\\x00', '1'
    from generate_series(1, ${calls}) i where i % 50 > 0`);
  await sql.query(`select setval('governance.event_ids', ${2 * calls + 1})`);
  await followedUntil(sql, 2 * calls + 1);
  await sql.query("set session_replication_role = default");
  await sql.query("vacuum analyze");
}

/** What follows calls goes on after this event, as if it had counted all before it. */
async function followedUntil(sql: pg.Client, consumed: number): Promise<void> {
  await sql.query(
    `update governance.maintenance_state set value = jsonb_build_object('consumed', ${consumed}::bigint,
       'mark', (select last_value from governance.event_ids), 'mark_xid', '1') where key = 'followed_events'`,
  );
}

async function fillTotals(sql: pg.Client, { events }: Size): Promise<void> {
  const calls = events / 2;
  await sql.query("set session_replication_role = replica");
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
  for (let from = 0; from < 2 * (calls - lastHourCalls); from += 40_000)
    await sql.query(
      `select governance.add_named_usage(${from}, ${Math.min(from + 40_000, 2 * (calls - lastHourCalls))})`,
    );
  await followedUntil(sql, 2 * (calls - lastHourCalls));
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

/** A payment of every account, with what Stripe calls it; a refund of each fiftieth, a dispute of each five hundredth. */
export async function fillPayments(sql: pg.Client): Promise<void> {
  const id = (prefix: string, of: string): string =>
    `'${prefix}_' || substr(md5('${prefix}' || ${of}), 1, 24)`;
  // Row by row, the indexes of every part of an id take most of the time.
  const parts = await sql.query<{ indexname: string; indexdef: string }>(
    "select indexname, indexdef from pg_indexes where schemaname = 'governance' and indexname like 'stripe%parts'",
  );
  for (const { indexname } of parts.rows) await sql.query(`drop index governance.${indexname}`);
  await sql.query(`set session_replication_role = replica;
    insert into governance.stripe_payments (account_id, payment_intent_id, charge_id, checkout_session_id, invoice_id, customer_id, order_id, livemode, amount_minor, currency, paid_at, refunded_minor, created_at)
    select a.account_id, ${id("pi", "a.account_id")}, ${id("ch", "a.account_id")}, case when a.account_id % 3 > 0 then ${id("cs_live", "a.account_id")} end,
      case when a.account_id % 3 = 0 then ${id("in", "a.account_id")} end, ${id("cus", "a.account_id")}, case when a.account_id % 3 > 0 then 'order-' || a.account_id end, true, 2000, 'usd',
      now() - (a.account_id % 90) * interval '1 day', (a.account_id % 50 = 0)::int * 2000, now() - (a.account_id % 90) * interval '1 day'
    from governance.accounts a;
    insert into governance.stripe_lots (lot_id, payment_id, tokens)
      select l.lot_id, p.payment_id, l.granted from governance.stripe_payments p join governance.lots l using (account_id);
    insert into governance.stripe_refunds (refund_id, payment_id, amount_minor, state, reported_at)
      select ${id("re", "p.payment_id")}, p.payment_id, 2000, 2, now() from governance.stripe_payments p where p.payment_id % 50 = 0;
    insert into governance.stripe_disputes (dispute_id, payment_id, amount_minor, status, stage, reported_at)
      select ${id("dp", "p.payment_id")}, p.payment_id, 2000, 'needs_response', 2, now() from governance.stripe_payments p where p.payment_id % 500 = 0;
    insert into governance.stripe_customers (customer_id, account_id)
      select p.customer_id, p.account_id from governance.stripe_payments p;
    insert into governance.stripe_subscriptions (subscription_id, account_id, customer_id, plan_id, updated_at)
      select ${id("sub", "p.account_id")}, p.account_id, p.customer_id, 'starter', now() from governance.stripe_payments p where p.account_id % 3 = 0;
    insert into governance.stripe_invoice_numbers (invoice_id, number)
      select p.invoice_id, upper(substr(md5(p.invoice_id), 1, 8)) || '-' || lpad((p.account_id % 10000)::text, 4, '0') from governance.stripe_payments p where p.invoice_id is not null;
    insert into governance.webhook_events_processed (event_id, event_type, received_at, status, reason, payload)
      select ${id("evt", "i")}, 'checkout.session.completed', now() - i * interval '1 minute', 'quarantined', 'unknown_user',
        jsonb_build_object('id', ${id("evt", "i")}, 'data', jsonb_build_object('object', jsonb_build_object('id', ${id("cs_live", "'q' || i")}, 'payment_intent', ${id("pi", "'q' || i")},
          'metadata', jsonb_build_object('user_id', 'ghost-' || i), 'more', repeat(md5(i::text), 40))))
      from generate_series(1, 2000) i;
    set session_replication_role = default`);
  for (const { indexdef } of parts.rows) await sql.query(indexdef);
  await sql.query("vacuum analyze");
}
