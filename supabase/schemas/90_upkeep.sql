-- Upkeep: what happens without anybody asking.

create table governance.maintenance_state (
  key text primary key,
  value jsonb not null,
  updated_at timestamptz not null default now()
);

comment on table governance.maintenance_state is 'Where upkeep left off.';

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
  -- Making or dropping a month needs the table of calls alone for a moment: not now, if someone stays in it.
  perform set_config('lock_timeout', '300ms', true);
  if exists (select from generate_series(-1, 2) g
    where to_regclass('governance.requests_'
      || to_char(date_trunc('month', p_now at time zone 'UTC') + g * interval '1 month', 'YYYY_MM')) is null) then
    begin
      created := governance.ensure_request_partitions((p_now - interval '1 month')::date,
        (p_now + interval '2 months')::date);
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
    -- First the keys of its calls, a batch a round, then the month itself in a moment.
    select coalesce((s.value ->> 'after')::bigint, -1) into v_after from governance.maintenance_state s
    where s.key = 'dropping' and s.value ->> 'partition' = v_partition.name::text;
    execute format('with batch as (select request_id,
      decision_id from %s where decision_id > $1 order by decision_id limit 20000),
      gone as (delete from governance.request_keys k using batch b where k.request_id = b.request_id
        and k.decision_id = b.decision_id)
      select max(decision_id), count(*) from batch', v_partition.name) into v_last, v_count using coalesce(v_after, -1);
    insert into governance.maintenance_state as s (key, value)
      values ('dropping', jsonb_build_object('partition', v_partition.name::text, 'after', coalesce(v_last, v_after)))
    on conflict (key) do update set value = excluded.value, updated_at = clock_timestamp();
    if v_count = 20000 then
      is_done := false;
      exit;
    end if;
    begin
      execute format('drop table %s', v_partition.name);
      dropped := dropped + 1;
    exception when lock_not_available then
      is_done := false;
      exit;
    end;
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
  delete from governance.minute_totals m where m.minute < p_now - interval '2 days';
  get diagnostics v_count = row_count; rows_purged := rows_purged + v_count;
  delete from governance.recent_usage u where u.slot < p_now - interval '2 days';
  get diagnostics v_count = row_count; rows_purged := rows_purged + v_count;
  -- A command may be repeated for 30 days.
  delete from governance.commands c where (c.kind, c.command_id) in (
    select o.kind, o.command_id from governance.commands o
      where o.created_at < least(p_now, clock_timestamp()) - interval '35 days' limit p_limit);
  get diagnostics v_count = row_count; rows_purged := rows_purged + v_count;
  -- An alert is kept as long as it is shown, and as long as its period may still run.
  delete from governance.alert_events e where e.alert_event_id in (
    select o.alert_event_id from governance.alert_events o
    where o.created_at < p_now - governance.alert_retention()
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

create function governance.maintenance_answer(p_counts jsonb) returns jsonb
  language sql immutable set search_path = '' as $$
  select '{"expired_reservations": 0, "expired_grants": 0, "allowances_reset": 0, "days_aggregated": 0,
    "webhook_events_purged": 0, "alerts_triggered": 0,
    "notifications_queued": 0, "partitions_created": 0, "partitions_dropped": 0, "rows_purged": 0,
      "rollup_problems": 0, "accounts_failed": 0,
    "events_followed": 0, "more": false}'::jsonb || p_counts
$$;
comment on function governance.maintenance_answer(jsonb) is 'What run_maintenance answers: every count, zero where '
  'nothing was done.';

create function public.run_maintenance() returns jsonb
  language plpgsql security definer set search_path = '' set jit = off as $$
declare
  v_now timestamptz := governance.now();
  v_until timestamptz := clock_timestamp() + interval '2 seconds';
  v_followed bigint := 0;
  v_count int := 0;
  v_months record;
  v_days int;
  v_alerts int;
  v_queued int;
  v_purged record;
  v_rolled record;
  v_problems int;
begin
  perform governance.refuse_others('run_maintenance');
  -- First, while this transaction has written nothing: see follow_events.
  loop
    v_count := governance.follow_events(2000);
    v_followed := v_followed + v_count;
    exit when v_count = 0 or clock_timestamp() > v_until;
  end loop;
  v_days := governance.aggregate_days();
  select * into v_purged from governance.purge(v_now);
  v_problems := governance.check_rollups(v_now);
  perform governance.anchor_ledger(v_now);
  v_alerts := v_problems + governance.evaluate_alerts(v_now);
  v_queued := governance.queue_notifications(v_now);
  if v_alerts > 0 or v_queued > 0 then
    perform governance.ring('alerts', v_now);
  end if;
  -- Last, because the calls of these accounts wait until this round is over.
  select * into v_rolled from governance.roll_due_accounts(v_now, 1000, interval '500 milliseconds');
  if v_rolled.expired_holds > 0 then
    perform governance.ring('feed', v_now);
  end if;
  select * into v_months from governance.keep_partitions(v_now);
  return governance.maintenance_answer(jsonb_build_object(
    'expired_reservations', v_rolled.expired_holds, 'expired_grants', v_rolled.expired_lots, 'allowances_reset',
      v_rolled.allowances,
    'days_aggregated', v_days, 'webhook_events_purged', v_purged.webhook_events_purged, 'alerts_triggered', v_alerts,
      'notifications_queued', v_queued,
    'partitions_created', v_months.created, 'partitions_dropped', v_months.dropped, 'rows_purged', v_purged.rows_purged,
      'rollup_problems', v_problems, 'accounts_failed', v_rolled.failed,
    'events_followed', v_followed,
    'more', not v_rolled.is_done or not v_months.is_done or v_count > 0 or v_days >= 40 or v_purged.rows_purged >= 5000
      or v_purged.webhook_events_purged >= 5000));
end
$$;
comment on function public.run_maintenance() is
  'One round of upkeep: expired holds and lots given back or taken out, allowances of new months, totals of past days, '
  'retention, alerts and their notifications. Short, and safe to run from several places at once; call again while '
  'more is true.';
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
values ('followed_events', '{"consumed": 0, "mark": 0, "mark_xid": "1"}');

insert into governance.maintenance_state (key, value)
  values ('anchored_ledger', '{"upto": 0, "hash": "", "mark": 0, "mark_xid": "0"}');
