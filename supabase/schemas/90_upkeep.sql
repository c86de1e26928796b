-- Upkeep: what happens without anybody asking.

create table governance.maintenance_state (
  key text primary key,
  value jsonb not null,
  updated_at timestamptz not null default now()
);

comment on table governance.maintenance_state is 'Where upkeep left off.';

create table governance.maintenance_runs (
  run_id bigint generated always as identity primary key,
  started_at timestamptz not null,
  milliseconds int not null,
  -- Its counts, by the names of run_maintenance's answer; those that are zero are left out.
  counts jsonb not null
);

comment on table governance.maintenance_runs is 'The last thousand rounds of upkeep and what each did.';

create function governance.months_ahead() returns int
  language sql immutable set search_path = '' as $$ select 6 $$;
comment on function governance.months_ahead() is 'How many months of calls are made ahead: so long may upkeep be away '
  'before calls go into the default partition.';

create function governance.keep_partitions(p_now timestamptz, out created int, out dropped int, out is_done boolean)
  language plpgsql set search_path = '' as $$
declare
  v_before timestamptz := p_now - (select c.decision_retention_days from governance.active_config c) * interval '1 day';
  v_timeout text := current_setting('lock_timeout');
  v_partition record;
  v_is_waiting boolean;
  v_after bigint;
  v_last bigint;
  v_count int;
begin
  created := 0;
  dropped := 0;
  is_done := true;
  if not pg_try_advisory_xact_lock(7254016) then return; end if;
  -- Making or dropping a month needs the table of calls alone for a moment, and calls queue behind a wait for
  -- it: so it waits only briefly, and makes four months a round. A month is made only while the default partition is
  -- small, because PostgreSQL reads all of it meanwhile.
  perform set_config('lock_timeout', '80ms', true);
  if pg_relation_size('governance.requests_default') > 16 * 1024 * 1024 then
    perform governance.raise_alert(null, null, 'upkeep_failed', 'warning',
      'Upkeep was away so long that many calls are in the default partition: new months are not made until retention '
        'has cleared it. Calls go on; to make the months at once, stop the calls and run '
        'governance.ensure_request_partitions', null, null, (p_now at time zone 'UTC')::date::text,
      '{"step": "partitions"}', p_now);
  elsif exists (select from generate_series(-1, governance.months_ahead()) g
    where to_regclass('governance.requests_'
      || to_char(date_trunc('month', p_now at time zone 'UTC') + g * interval '1 month', 'YYYY_MM')) is null) then
    begin
      created := governance.ensure_request_partitions((p_now - interval '1 month')::date,
        (p_now + governance.months_ahead() * interval '1 month')::date, 4);
      is_done := created < 4;
    exception when lock_not_available then
      is_done := false;
    end;
  end if;
  for v_partition in
    select c.oid::regclass as name,
      (regexp_match(pg_catalog.pg_get_expr(c.relpartbound, c.oid), 'TO \(''([^'']+)''\)'))[1]::timestamptz as ends_at
    from pg_catalog.pg_inherits i join pg_catalog.pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'governance.requests'::regclass and pg_catalog.pg_get_expr(c.relpartbound, c.oid) <> 'DEFAULT'
    order by 2
  loop
    continue when v_partition.ends_at is null or v_partition.ends_at > v_before;
    -- A hold that is open, or waits for a person, keeps its month.
    execute format('select exists (select from %s where status in (''held'', ''quarantined''))', v_partition.name)
      into v_is_waiting;
    continue when v_is_waiting;
    -- First the keys of its calls, a batch a round, then the month itself in a moment, and one a round.
    select coalesce((s.value ->> 'after')::bigint, -1) into v_after from governance.maintenance_state s
    where s.key = 'dropping' and s.value ->> 'partition' = v_partition.name::text;
    execute format('with batch as (select request_id,
      decision_id from %s where decision_id > $1 order by decision_id limit 5000),
      gone as (delete from governance.request_keys k using batch b where k.request_id = b.request_id
        and k.decision_id = b.decision_id)
      select max(decision_id), count(*) from batch', v_partition.name) into v_last, v_count using coalesce(v_after, -1);
    insert into governance.maintenance_state as s (key, value)
      values ('dropping', jsonb_build_object('partition', v_partition.name::text, 'after', coalesce(v_last, v_after)))
    on conflict (key) do update set value = excluded.value, updated_at = clock_timestamp();
    if v_count = 5000 then
      is_done := false;
      exit;
    end if;
    begin
      execute format('drop table %s', v_partition.name);
      dropped := dropped + 1;
    exception when lock_not_available then
      null;
    end;
    is_done := false;
    exit;
  end loop;
  perform set_config('lock_timeout', v_timeout, true);
end
$$;
comment on function governance.keep_partitions(timestamptz) is
  'Makes the months of calls that are to come, and drops those older than the setting decision_retention_days, with '
  'the keys of their calls.';

create function governance.purge(p_now timestamptz, p_limit int default 5000, out rows_purged int,
  out webhook_events_purged int)
  language plpgsql set search_path = '' as $$
declare
  v_calls_before timestamptz := p_now - (select c.decision_retention_days
    from governance.active_config c) * interval '1 day';
  v_count int;
begin
  rows_purged := 0;
  webhook_events_purged := 0;
  if not pg_try_advisory_xact_lock(7254017) then return; end if;
  with gone as (
    delete from governance.requests_default r where r.decision_id in (
      select d.decision_id from governance.requests_default d
        where d.created_at < v_calls_before and d.status not in ('held', 'quarantined') limit p_limit)
    returning r.request_id, r.decision_id)
  delete from governance.request_keys k using gone g
    where k.request_id = g.request_id and k.decision_id = g.decision_id;
  get diagnostics v_count = row_count; rows_purged := rows_purged + v_count;
  delete from governance.hold_events h where h.event_id in (
    select o.event_id from governance.hold_events o
    where o.created_at < v_calls_before
      and not exists (select from governance.requests r where r.decision_id = o.decision_id) limit p_limit);
  get diagnostics v_count = row_count; rows_purged := rows_purged + v_count;
  -- Those who follow events add to these, and would wait for this round to end: not while some of them are cleared.
  perform from governance.maintenance_state s where s.key = 'followed_events'
    and current_setting('transaction_isolation') = 'read committed' for update skip locked;
  if found then
    delete from governance.call_totals m where m.ctid = any (array(
      select o.ctid from governance.call_totals o
      where (o.step = 'minute' and o.start < p_now - interval '2 days')
        or (o.step = 'hour' and o.start < p_now - interval '400 days') limit p_limit));
    get diagnostics v_count = row_count; rows_purged := rows_purged + v_count;
    delete from governance.user_totals u where u.ctid = any (array(
      select o.ctid from governance.user_totals o where o.step = 'five_minutes'
        and o.start < p_now - interval '2 days' limit p_limit));
    get diagnostics v_count = row_count; rows_purged := rows_purged + v_count;
    v_count := governance.rank_days(p_now); rows_purged := rows_purged + v_count;
    delete from governance.rule_matches m where m.ctid = any (array(
      select o.ctid from governance.rule_matches o where o.slot < p_now - interval '2 days' limit p_limit));
    get diagnostics v_count = row_count; rows_purged := rows_purged + v_count;
  end if;
  -- A command may be repeated for 30 days.
  delete from governance.commands c where (c.kind, c.command_id) in (
    select o.kind, o.command_id from governance.commands o
      where o.created_at < least(p_now, clock_timestamp()) - interval '35 days' limit p_limit);
  get diagnostics v_count = row_count; rows_purged := rows_purged + v_count;
  -- An alert is kept as long as it is shown, and as long as its period may still run.
  delete from governance.alert_events e where e.alert_event_id in (
    select o.alert_event_id from governance.alert_events o
    where o.created_at < p_now - governance.alert_retention()
      -- An alert that waits for an operator is not cleared away unseen.
      and (o.acknowledged_at is not null or not o.needs_operator or o.created_at < p_now - interval '400 days')
      and (o.period_key = '' or o.created_at < p_now - interval '400 days'
      or (length(o.period_key) > 8 and o.created_at < p_now - interval '40 days')) limit p_limit);
  get diagnostics v_count = row_count; rows_purged := rows_purged + v_count;
  delete from governance.notifications n where n.notification_id in (
    select o.notification_id from governance.notifications o where o.created_at < p_now - interval '30 days'
      limit p_limit);
  get diagnostics v_count = row_count; rows_purged := rows_purged + v_count;
  if to_regclass('governance.webhook_events_processed') is not null then
    execute 'delete from governance.webhook_events_processed w where w.event_id in (
      select o.event_id from governance.webhook_events_processed o
        where o.received_at < $1 - interval ''30 days'' and o.status <> ''quarantined'' limit $2)'
      using p_now, p_limit;
    get diagnostics webhook_events_purged = row_count;
  end if;
end
$$;
comment on function governance.purge(timestamptz, int) is 'Clears what has outlived its use, some at a time.';

create function governance.end_round(p_started timestamptz, p_state jsonb, p_counts jsonb) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_run_id bigint;
begin
  update governance.maintenance_state s set value = p_state, updated_at = clock_timestamp()
    where s.key = 'rounds' and p_state is not null;
  insert into governance.maintenance_runs (started_at, milliseconds, counts)
  values (p_started, least(extract(epoch from clock_timestamp() - p_started) * 1000, 2147483647)::int,
    coalesce((select jsonb_object_agg(c.key, c.value) from jsonb_each(p_counts) c
      where c.value not in ('0', 'false', 'null')), '{}'))
  returning run_id into v_run_id;
  delete from governance.maintenance_runs m where m.run_id <= v_run_id - 1000;
  return '{"expired_reservations": 0, "expired_grants": 0, "allowances_reset": 0, "days_aggregated": 0,
    "webhook_events_purged": 0, "alerts_triggered": 0,
    "notifications_queued": 0, "partitions_created": 0, "partitions_dropped": 0, "rows_purged": 0,
      "rollup_problems": 0, "accounts_failed": 0,
    "events_followed": 0, "more": false}'::jsonb || p_counts;
end
$$;
comment on function governance.end_round(timestamptz, jsonb, jsonb) is
  'Keeps what a round of upkeep did, and answers what '
  'run_maintenance answers: every count, zero where nothing was done.';

create function governance.note_late_upkeep(p_now timestamptz) returns int
  language sql set search_path = '' as $$
  select coalesce(sum(governance.raise_alert(null, null, 'upkeep_late', 'critical',
    format('Upkeep last ran at %s: until then nothing expired, no allowance was given and no alert was raised. Have '
      'run_maintenance called every minute', governance.say_moment(s.updated_at, 'UTC', 'en') || ' UTC'),
    null, null, s.updated_at::text, '{}', p_now)), 0)::int
  from governance.maintenance_state s
  where s.key = 'rounds' and s.updated_at < clock_timestamp() - interval '15 minutes'
$$;
comment on function governance.note_late_upkeep(timestamptz) is
  'Raises upkeep_late, once for each time that upkeep stopped, if its last round is more than 15 minutes old by the '
  'server''s clock. Called by the next round and by the deliverer of messages.';

create function governance.upkeep_step(p_step text, p_now timestamptz, p_share numeric) returns jsonb
  language plpgsql set search_path = '' set jit = off as $$
declare
  v_days int := greatest(40 * p_share, 1);
  v_rows int := greatest(5000 * p_share, 50);
  v_purged record;
  v_count int;
  v_answer jsonb := '{}';
begin
  case p_step
    when 'rules' then
      v_answer := jsonb_build_object('rules_put_back', governance.end_timed_rules(p_now));
    when 'days' then
      v_count := governance.aggregate_days(v_days);
      v_answer := jsonb_build_object('days_aggregated', v_count, 'more', v_count >= v_days);
    when 'revenue' then
      v_count := governance.count_revenue((4 * v_rows)::int);
      v_answer := jsonb_build_object('entries_counted', v_count, 'more', v_count >= 4 * v_rows);
    when 'purge' then
      v_purged := governance.purge(p_now, v_rows);
      v_answer := jsonb_build_object('rows_purged', v_purged.rows_purged,
        'webhook_events_purged', v_purged.webhook_events_purged,
        'more', greatest(v_purged.rows_purged, v_purged.webhook_events_purged) >= v_rows);
    when 'rollups' then
      v_count := governance.check_rollups(p_now, greatest(200 * p_share, 5)::int);
      v_answer := jsonb_build_object('rollup_problems', v_count, 'alerts_triggered', v_count);
    when 'anchor' then
      v_answer := jsonb_build_object('more',
        not governance.anchor_ledger(p_now, greatest(100000 * p_share, 1000)::int)
        or not governance.seal_audit(p_now, greatest(20000 * p_share, 1000)::int));
    when 'doors' then
      v_answer := jsonb_build_object('alerts_triggered', governance.check_doors(p_now));
    when 'alerts' then
      v_answer := jsonb_build_object('alerts_triggered', governance.evaluate_alerts(p_now, v_rows)
        + governance.show_waiting_invoices(p_now, v_rows));
    when 'notifications' then
      v_answer := jsonb_build_object('notifications_queued',
        governance.queue_notifications(p_now, greatest(1000 * p_share, 20)::int));
  end case;
  return v_answer;
end
$$;
comment on function governance.upkeep_step(text, timestamptz, numeric) is
  'One of the steps of upkeep for which no call waits, of the size p_share (1: the usual); returns its counts.';

create function governance.add_counts(p_counts jsonb, p_more jsonb) returns jsonb
  language sql immutable set search_path = '' as $$
  select p_counts || coalesce((select jsonb_object_agg(m.key, case jsonb_typeof(m.value)
    when 'number' then to_jsonb(coalesce((p_counts ->> m.key)::bigint, 0) + (m.value #>> '{}')::bigint)
    else to_jsonb(coalesce((p_counts ->> m.key)::boolean, false) or (m.value #>> '{}')::boolean) end)
    from jsonb_each(p_more) m where jsonb_typeof(m.value) in ('number', 'boolean')), '{}')
$$;
comment on function governance.add_counts(jsonb, jsonb) is 'Adds up the counts of two steps; more if either has more.';

create function governance.try_upkeep_step(p_step text, p_now timestamptz, inout state jsonb, inout counts jsonb,
  out is_cancelled boolean)
  language plpgsql set search_path = '' as $$
declare
  v_share numeric := coalesce((state -> 'shares' ->> p_step)::numeric, 1);
  v_started timestamptz := clock_timestamp();
begin
  is_cancelled := false;
  counts := governance.add_counts(counts, governance.upkeep_step(p_step, p_now, v_share));
  v_share := case when clock_timestamp() > v_started + interval '1 second' then greatest(v_share / 2, 0.001)
    else least(v_share * 2, 1) end;
  state := jsonb_set(state, array['shares', p_step], to_jsonb(round(v_share, 6)));
exception
  when query_canceled then
    state := jsonb_set(state, array['shares', p_step], to_jsonb(greatest(round(v_share / 4, 6), 0.001)));
    is_cancelled := true;
  when lock_not_available or deadlock_detected then
    counts := counts || '{"more": true}';
  when others then
    counts := governance.add_counts(counts, jsonb_build_object('alerts_triggered',
      governance.raise_alert(null, null, 'upkeep_failed', 'critical',
        format('Upkeep failed at %s: %s', p_step, left(sqlerrm, 300)), null, null,
        p_step || ' ' || (p_now at time zone 'UTC')::date, jsonb_build_object('step', p_step, 'sqlstate', sqlstate),
        p_now)));
end
$$;
comment on function governance.try_upkeep_step(text, timestamptz, jsonb, jsonb) is
  'A step of upkeep that fails, or is stopped by the statement timeout, undoes itself alone. Its share of the work '
  'follows how long it took.';

create function governance.follow_for_upkeep(p_started timestamptz, p_last_id bigint, p_xid xid8,
  inout account_ids bigint[], inout counts jsonb)
  language plpgsql set search_path = '' as $$
declare
  v_page record;
begin
  while cardinality(account_ids) < 1000 loop
    v_page := governance.follow_new_events(2000, p_last_id, p_xid);
    counts := governance.add_counts(counts, jsonb_build_object('events_followed', v_page.followed));
    account_ids := account_ids || array(select distinct x from unnest(v_page.account_ids) x
      where x <> all (account_ids));
    exit when v_page.followed = 0;
    if clock_timestamp() > p_started + interval '3 seconds' then
      counts := counts || '{"more": true}';
      exit;
    end if;
  end loop;
end
$$;
comment on function governance.follow_for_upkeep(timestamptz, bigint, xid8, bigint[], jsonb) is
  'Follows new events until a thousand listings are to be copied, or three seconds of the round have passed; adds to '
  'the accounts to copy and to the counts.';

create function public.run_maintenance() returns jsonb
  language plpgsql security definer set search_path = '' set jit = off as $$
declare
  c_steps constant text[] := '{rules,days,revenue,purge,rollups,anchor,doors,alerts,notifications}';
  v_started timestamptz := clock_timestamp();
  v_now timestamptz := governance.now();
  v_is_first boolean := pg_current_xact_id_if_assigned() is null;
  v_last_id bigint;
  v_xid xid8;
  v_state jsonb;
  v_next int;
  v_step text;
  v_is_cancelled boolean;
  v_counts jsonb;
  v_account_ids bigint[] := '{}';
  v_is_copier boolean;
  v_rolled record;
  v_months_first boolean;
  v_has_months boolean := false;
  v_months record;
  v_locked_at timestamptz;
begin
  perform governance.refuse_others('run_maintenance');
  -- Before this transaction writes anything: see follow_new_events.
  select case when e.is_called then e.last_value else 0 end into v_last_id from governance.event_ids e;
  v_xid := case when v_is_first then pg_current_xact_id() end;
  v_counts := jsonb_build_object('alerts_triggered', governance.note_late_upkeep(v_now));

  -- Steps that no call waits for, for at most two seconds. A step that fails, or is stopped by the statement timeout,
  -- undoes itself alone: what the others did is kept, and it does half as much next time. The next round starts where
  -- this one ended.
  select s.value into v_state from governance.maintenance_state s where s.key = 'rounds' for update skip locked;
  v_next := coalesce((v_state ->> 'next')::int, 0);
  for v_turn in 0 .. cardinality(c_steps) - 1 loop
    v_step := c_steps[1 + (v_next + v_turn) % cardinality(c_steps)];
    if clock_timestamp() > v_started + interval '2 seconds' then
      v_counts := v_counts || '{"more": true}';
      v_state := v_state || jsonb_build_object('next', (v_next + v_turn) % cardinality(c_steps));
      exit;
    end if;
    select x.state, x.counts, x.is_cancelled into v_state, v_counts, v_is_cancelled
    from governance.try_upkeep_step(v_step, v_now, v_state, v_counts) x;
    if v_is_cancelled then
      v_state := v_state || jsonb_build_object('next', (v_next + v_turn) % cardinality(c_steps));
      return governance.end_round(v_started, v_state, v_counts || '{"more": true}');
    end if;
  end loop;

  if clock_timestamp() > v_started + interval '4 seconds' then
    -- A long step: keep what it did before the statement timeout comes.
    return governance.end_round(v_started, v_state, v_counts || '{"more": true}');
  end if;

  -- Last what calls and operators wait for until this transaction ends: listings, accounts, months; together for less
  -- than 100 ms, which a busy server stretches. Listings come before accounts, which are only tried: see Locks in
  -- supabase/CONVENTIONS.md. What the round before had no time to copy comes first. Who copies also follows events,
  -- so that no other transaction waits to do the same: having read the calls, it would block the making of a month of
  -- calls until it ends.
  v_account_ids := array(select x::bigint from jsonb_array_elements_text(coalesce(v_state -> 'to_copy', '[]')) x);
  v_is_copier := pg_try_advisory_xact_lock(7254014);
  if not v_is_copier then
    v_counts := v_counts || '{"more": true}';
  elsif current_setting('transaction_isolation') = 'read committed' then
    select x.account_ids, x.counts into v_account_ids, v_counts
    from governance.follow_for_upkeep(v_started, v_last_id, v_xid, v_account_ids, v_counts) x;
  end if;
  v_locked_at := clock_timestamp();
  -- A row of a listing has many indexes: some at a time, and what is left is kept for the next round.
  while v_is_copier and cardinality(v_account_ids) > 0
    and (v_state is null or clock_timestamp() < v_locked_at + interval '25 milliseconds') loop
    perform governance.copy_to_listings(v_account_ids[1:50]);
    v_account_ids := v_account_ids[51:];
  end loop;
  if cardinality(v_account_ids) > 0 then
    v_counts := v_counts || '{"more": true}';
  end if;
  v_state := v_state || jsonb_build_object('to_copy', to_jsonb(v_account_ids));
  -- Months that found no time in the round before go first.
  v_months_first := coalesce(v_state ? 'months_wait', false);
  if v_months_first then
    v_months := governance.keep_partitions(v_now);
    v_has_months := true;
  end if;
  v_rolled := governance.roll_due_accounts(v_now, 500,
    greatest(interval '20 milliseconds', v_locked_at + interval '70 milliseconds' - clock_timestamp()));
  v_counts := governance.add_counts(v_counts, jsonb_build_object('expired_reservations', v_rolled.expired_holds,
    'expired_grants', v_rolled.expired_lots, 'allowances_reset', v_rolled.allowances,
    'accounts_failed', v_rolled.failed, 'more', not v_rolled.is_done));
  if v_rolled.expired_holds > 0 then
    perform governance.ring('feed', v_now);
  end if;
  v_counts := governance.add_counts(v_counts, jsonb_build_object('more',
    not governance.leave_unknown_zones(v_now, interval '10 milliseconds')));
  if not v_months_first and clock_timestamp() < v_locked_at + interval '60 milliseconds' then
    v_months := governance.keep_partitions(v_now);
    v_has_months := true;
  end if;
  if not v_has_months then
    v_state := v_state || '{"months_wait": true}';
    v_counts := v_counts || '{"more": true}';
  else
    v_state := v_state - 'months_wait';
    v_counts := governance.add_counts(v_counts, jsonb_build_object('partitions_created', v_months.created,
      'partitions_dropped', v_months.dropped, 'more', not v_months.is_done));
  end if;
  if (v_counts ->> 'alerts_triggered')::int > 0 or (v_counts ->> 'notifications_queued')::int > 0 then
    perform governance.ring('alerts', v_now);
  end if;
  return governance.end_round(v_started, v_state, v_counts);
end
$$;
comment on function public.run_maintenance() is
  'One round of upkeep: expired holds and lots given back or taken out, allowances of new months, totals of past days, '
  'retention, alerts and their notifications. No call waits longer than 200 ms for it. Safe to run from several places '
  'at once; call again while more is true.';
revoke all on function public.run_maintenance() from public, anon, authenticated;
grant execute on function public.run_maintenance() to service_role;

-- No search_path here: a procedure with one may not commit. Every name is written in full.
create procedure governance.maintain()
  language plpgsql as $$
declare
  v_until timestamptz := pg_catalog.clock_timestamp() + interval '50 seconds';
  v_answer jsonb;
begin
  loop
    v_answer := public.run_maintenance();
    commit;
    exit when not (v_answer ->> 'more')::boolean or pg_catalog.clock_timestamp() > v_until;
  end loop;
end
$$;
comment on procedure governance.maintain() is 'Rounds of upkeep, each its own transaction, until all is done: what '
  'pg_cron calls every minute.';

create function governance.schedule_maintenance() returns boolean
  language plpgsql set search_path = '' as $$
begin
  if not exists (select from pg_catalog.pg_extension where extname = 'pg_cron') then return false; end if;
  execute format('select cron.schedule(%L, %L, %L)', 'governance-maintenance', '* * * * *',
    'call governance.maintain()');
  return true;
exception when insufficient_privilege or undefined_function or invalid_schema_name or undefined_table then
  raise notice 'pg_cron is there, but its schedule could not be set: %', sqlerrm;
  return false;
end
$$;
comment on function governance.schedule_maintenance() is
  'Has pg_cron run upkeep every minute; false where pg_cron is not installed: then call run_maintenance from anywhere, '
  'every minute. Call it again after installing pg_cron.';

insert into governance.maintenance_state (key, value)
values ('followed_events', '{"consumed": 0, "mark": 0, "mark_xid": "1"}'), ('counted_revenue', '{"consumed": 0}');

insert into governance.maintenance_state (key, value)
  values ('anchored_ledger', '{"upto": 0, "hash": "", "mark": 0, "mark_xid": "0"}'),
    ('sealed_audit', '{"upto": 0, "hash": "", "mark": 0, "mark_xid": "0"}');

insert into governance.maintenance_state (key, value, updated_at)
  values ('rounds', '{"next": 0, "shares": {}}', 'infinity');
