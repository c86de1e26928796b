-- What happened in the last minutes and hours.

create table governance.minute_totals (
  minute timestamptz not null,
  -- allow, warn or block of the calls made in it; settled of those that ended in it.
  outcome text not null check (outcome in ('allow', 'warn', 'block', 'settled')),
  -- Why blocked; empty for none.
  reason text not null default '',
  calls bigint not null,
  -- Held for allow and warn, asked for block, charged for settled.
  tokens bigint not null,
  cost_micros bigint not null default 0,
  primary key (minute, outcome, reason)
) with (fillfactor = 70);

comment on table governance.minute_totals is 'Calls and tokens by minute, for the chart; kept two days.';

create table governance.recent_usage (
  -- Start of five minutes.
  slot timestamptz not null,
  account_id bigint not null,
  tokens bigint not null,
  primary key (slot, account_id)
) with (fillfactor = 70);

comment on table governance.recent_usage is 'Tokens charged by account in each five minutes; kept two days.';

create table governance.rule_matches (
  -- Start of five minutes.
  slot timestamptz not null,
  version_id bigint not null,
  matches bigint not null,
  primary key (slot, version_id)
) with (fillfactor = 70);

comment on table governance.rule_matches is 'Calls that each version of a rule matched, enforced or in shadow, in each '
  'five minutes; kept two days.';

create function governance.count_matches(p_after bigint, p_upto bigint)
  returns table (slot timestamptz, version_id bigint, matches bigint)
  language sql stable set search_path = '' as $$
  select date_bin('5 minutes', r.created_at, '2000-01-01'), v.version_id, count(*)
  from governance.requests r cross join unnest(r.matched_version_ids) v(version_id)
  where r.decision_id > p_after and r.decision_id <= p_upto and r.matched_version_ids is not null
  group by 1, 2
$$;
comment on function governance.count_matches(bigint, bigint) is 'Matches of rules among the calls with ids after the '
  'first and up to the second.';

create function governance.matches_by_slot() returns table (slot timestamptz, version_id bigint, matches bigint)
  language sql stable set search_path = '' as $$
  select x.slot, x.version_id, x.matches from governance.rule_matches x
  union all
  -- What is committed and not yet counted.
  select c.slot, c.version_id, c.matches
  from governance.maintenance_state s
  cross join lateral governance.count_matches((s.value ->> 'consumed')::bigint,
    (s.value ->> 'consumed')::bigint + 50000) c
  where s.key = 'followed_events'
$$;
comment on function governance.matches_by_slot() is 'Calls that each version of a rule matched in each five minutes of '
  'the last two days; a slot may come in parts.';

create function governance.matches_since(p_since timestamptz) returns table (rule_name text, matches bigint)
  language sql stable set search_path = '' as $$
  select v.rule_name, sum(m.matches)::bigint
  from governance.matches_by_slot() m
  join governance.rule_versions v using (version_id)
  where m.slot >= date_bin('5 minutes', p_since, '2000-01-01')
  group by 1
$$;
comment on function governance.matches_since(timestamptz) is
  'Calls that each rule matched since a moment, at most two days back, in whole five minutes; all versions together.';

create function governance.count_events(p_after bigint, p_upto bigint)
  returns table (minute timestamptz, outcome text, reason text, calls bigint, tokens bigint, cost_micros bigint)
  language sql stable set search_path = '' as $$
  select date_trunc('minute', r.created_at), r.decision, case r.decision when 'block' then coalesce(r.reason, '')
    else '' end,
    count(*), sum(case r.decision when 'block' then (r.facts).estimated_tokens else r.reserved_tokens end)::bigint,
      0::bigint
  from governance.requests r
  where r.decision_id > p_after and r.decision_id <= p_upto
  group by 1, 2, 3
  union all
  select date_trunc('minute', t.created_at), 'settled', '', count(*),
    sum(coalesce(r.charged_tokens, -t.amount))::bigint, coalesce(sum(r.cost_micros), 0)::bigint
  from governance.token_transactions t
  -- One look into an index each: the entries are few, the calls are not.
  left join lateral (select q.charged_tokens, q.cost_micros from governance.requests q
    where q.decision_id = t.decision_id limit 1) r on true
  where t.transaction_id > p_after and t.transaction_id <= p_upto and t.transaction_type = 'usage'
  group by 1
$$;
comment on function governance.count_events(bigint,
  bigint) is 'Calls and tokens by minute of the events with ids after the first and up to the second.';

create function governance.follow_new_events(p_limit int, p_last_id bigint, p_xid xid8, out followed int,
  out account_ids bigint[])
  language plpgsql set search_path = '' set jit = off set plan_cache_mode = 'force_custom_plan' as $$
declare
  v_now timestamptz := governance.now();
  v_oldest timestamptz := governance.now() - interval '2 days';
  v_state jsonb;
  v_last bigint := p_last_id;
  v_from bigint;
  v_ready bigint;
  v_upto bigint;
  v_snapshot pg_snapshot;
begin
  followed := 0;
  account_ids := '{}';
  if (select (s.value ->> 'consumed')::bigint >= v_last from governance.maintenance_state s
    where s.key = 'followed_events')
    and coalesce((select min(l.day_ends_at) from governance.account_listings l where l.day_ends_at is not null) > v_now,
      true)
    and coalesce((select min(l.month_ends_at) from governance.account_listings l) > v_now, true) then
    return;
  end if;
  select s.value into v_state from governance.maintenance_state s where s.key = 'followed_events'
    for update skip locked;
  if v_state is null then return; end if;
  v_from := (v_state ->> 'consumed')::bigint;
  v_ready := v_from;

  -- Ids are taken in one order and committed in another: an id may be passed once every transaction that can have taken
  -- one before it is over. Writers have their transaction number before their event id, so those transactions are the
  -- ones below p_xid, the number that this one got after it had read the last id; null if it had one before. (A
  -- snapshot's xmax would not do: it is no bound of the numbers that are given out.)
  v_snapshot := pg_current_snapshot();
  if governance.ended_below(p_xid, v_snapshot) then
    v_ready := v_last;
    v_state := v_state || jsonb_build_object('mark', v_last, 'mark_xid', p_xid, 'mark_at', clock_timestamp());
  elsif governance.ended_below((v_state ->> 'mark_xid')::xid8, v_snapshot)
    -- Whoever is under way for two minutes is no call, but a bulk load or a backup: charts and sorting do not wait for
    -- it.
    or (v_state ->> 'mark_at')::timestamptz < clock_timestamp() - interval '2 minutes' then
    v_ready := (v_state ->> 'mark')::bigint;
    if p_xid is not null then
      v_state := v_state || jsonb_build_object('mark', v_last, 'mark_xid', p_xid, 'mark_at', clock_timestamp());
    end if;
  end if;
  v_ready := greatest(v_ready, v_from);

  -- A page of it: up to where the source that has most fills p_limit.
  select least(v_ready, min(p.last)) into v_upto from (
    select max(x.id) as last, count(*) as n from (select r.decision_id as id from governance.requests r
      where r.decision_id > v_from and r.decision_id <= v_ready order by r.decision_id limit p_limit) x
    union all
    select max(x.id), count(*) from (select t.transaction_id as id from governance.token_transactions t
      where t.transaction_id > v_from and t.transaction_id <= v_ready order by t.transaction_id limit p_limit) x
    union all
    select max(x.id), count(*) from (select h.event_id as id from governance.hold_events h
      where h.event_id > v_from and h.event_id <= v_ready order by h.event_id limit p_limit) x
  ) p where p.n = p_limit;

  if v_upto > v_from then
    insert into governance.minute_totals as m (minute, outcome, reason, calls, tokens, cost_micros)
    select c.minute, c.outcome, c.reason, sum(c.calls), sum(c.tokens), sum(c.cost_micros)
    from governance.count_events(v_from, v_upto) c where c.minute > v_oldest group by 1, 2, 3
    on conflict (minute, outcome, reason) do update set
      calls = m.calls + excluded.calls, tokens = m.tokens + excluded.tokens,
        cost_micros = m.cost_micros + excluded.cost_micros;
    insert into governance.recent_usage as u (slot, account_id, tokens)
    select date_bin('5 minutes', t.created_at, '2000-01-01'), t.account_id, sum(coalesce(r.charged_tokens, -t.amount))
    from governance.token_transactions t
    left join lateral (select q.charged_tokens from governance.requests q
      where q.decision_id = t.decision_id limit 1) r on true
    where t.transaction_id > v_from and t.transaction_id <= v_upto and t.transaction_type = 'usage'
      and t.created_at > v_oldest
    group by 1, 2
    on conflict (slot, account_id) do update set tokens = u.tokens + excluded.tokens;
    insert into governance.rule_matches as m (slot, version_id, matches)
    select c.slot, c.version_id, c.matches from governance.count_matches(v_from, v_upto) c where c.slot > v_oldest
    on conflict (slot, version_id) do update set matches = m.matches + excluded.matches;
    v_state := v_state || jsonb_build_object('consumed', v_upto);
  end if;
  update governance.maintenance_state s set value = v_state, updated_at = clock_timestamp()
  where s.key = 'followed_events' and s.value is distinct from v_state;

  -- Whatever can be seen, and not only what may be passed: to copy an account twice does no harm. And what turns by the
  -- clock.
  account_ids := array(select r.account_id from governance.requests r where r.decision_id > v_from
      order by r.decision_id limit p_limit)
    || array(select t.account_id from governance.token_transactions t where t.transaction_id > v_from
      order by t.transaction_id limit p_limit)
    || array(select h.account_id from governance.hold_events h where h.event_id > v_from order by h.event_id
      limit p_limit)
    || array(select l.account_id from governance.account_listings l where l.day_ends_at <= v_now order by l.day_ends_at
      limit p_limit)
    || array(select x.account_id from (
      -- The rest waits for upkeep, which gives the new month's allowance too.
      select l.account_id, l.tokens_this_month, l.reserved, l.cost_this_month_micros from governance.account_listings l
      where l.month_ends_at <= v_now order by l.month_ends_at limit 10 * p_limit) x
      where x.tokens_this_month > x.reserved or x.cost_this_month_micros > 0 limit p_limit);
  followed := case when v_upto > v_from then least(v_upto - v_from, 2147483647)::int else 0 end;
end
$$;
comment on function governance.follow_new_events(int, bigint, xid8) is
  'Carries events into the totals by minute, one page a call; answers how many ids it passed, and the accounts whose '
  'listings are to be copied. p_last_id is the last event id, p_xid the transaction number that was taken after it.';

create function governance.follow_events(p_limit int default 2000) returns int
  language plpgsql set search_path = '' as $$
declare
  v_has_xid boolean := pg_current_xact_id_if_assigned() is not null;
  v_last bigint;
  v_followed int;
  v_account_ids bigint[];
begin
  if current_setting('transaction_read_only') = 'on'
    or current_setting('transaction_isolation') <> 'read committed' then return 0; end if;
  select case when e.is_called then e.last_value else 0 end into v_last from governance.event_ids e;
  select f.followed, f.account_ids into v_followed, v_account_ids
  from governance.follow_new_events(p_limit, v_last, case when not v_has_xid then pg_current_xact_id() end) f;
  if cardinality(v_account_ids) > 0 then
    perform governance.copy_to_listings(v_account_ids);
  end if;
  return v_followed;
end
$$;
comment on function governance.follow_events(int) is
  'Carries events into minute_totals, recent_usage and account_listings, each once; at most so many of each kind. '
  'Answers how far it got, 0 when there is nothing more. Whoever comes while another works leaves at once.';

create function public.console_overview(p_minutes int default 60) returns jsonb
  language plpgsql security definer set search_path = '' set jit = off set plan_cache_mode = 'force_custom_plan' as $$
declare
  v_now timestamptz := governance.now();
  v_from timestamptz;
  v_consumed bigint;
  v_answer jsonb;
begin
  perform governance.refuse_others('console_overview');
  if p_minutes is null or p_minutes not between 1 and 1440 then
    perform governance.fail('PT400', 'invalid_argument', 'p_minutes is a whole number from 1 to 1440');
  end if;
  v_from := date_trunc('minute', v_now) - (p_minutes - 1) * interval '1 minute';
  for v_round in 1..5 loop
    exit when governance.follow_events(2000) = 0;
  end loop;
  select (s.value ->> 'consumed')::bigint into v_consumed from governance.maintenance_state s
    where s.key = 'followed_events';
  with totals as materialized (
    select m.minute, m.outcome, m.reason, m.calls, m.tokens, m.cost_micros from governance.minute_totals m
      where m.minute >= v_from
    union all
    -- What is committed and not yet counted: some seconds' worth, or two minutes' where a long transaction holds the
    -- count up.
    select c.minute, c.outcome, c.reason, c.calls, c.tokens, c.cost_micros
    from governance.count_events(v_consumed, v_consumed + 50000) c where c.minute >= v_from
  ), minutes as (
    select g.minute, coalesce(sum(t.calls) filter (where t.outcome <> 'settled'), 0) as calls,
      coalesce(sum(t.tokens) filter (where t.outcome = 'settled'), 0) as settled_tokens,
      coalesce(sum(t.tokens) filter (where t.outcome = 'allow'), 0) as allowed_tokens,
      coalesce(sum(t.tokens) filter (where t.outcome = 'warn'), 0) as warned_tokens,
      coalesce(sum(t.tokens) filter (where t.outcome = 'block'), 0) as blocked_tokens,
      coalesce(sum(t.calls) filter (where t.outcome = 'block'), 0) as blocked_calls
    from generate_series(v_from, v_now, interval '1 minute') g(minute)
    left join totals t using (minute) group by 1
  )
  select jsonb_build_object(
    'at', v_now,
    'calls', (select coalesce(sum(t.calls), 0) from totals t where t.outcome <> 'settled'),
    'blocked', (select coalesce(sum(t.calls), 0) from totals t where t.outcome = 'block'),
    'warned', (select coalesce(sum(t.calls), 0) from totals t where t.outcome = 'warn'),
    'settled_tokens', (select coalesce(sum(t.tokens), 0) from totals t where t.outcome = 'settled'),
    'cost_micros', (select coalesce(sum(t.cost_micros), 0) from totals t where t.outcome = 'settled'),
    'currency', (select c.currency from governance.active_config c),
    'active_users', (select count(*) from governance.account_listings l where l.last_activity_at >= v_from),
    'open_holds', (
      select count(*) from governance.account_listings l
      join governance.accounts a using (account_id)
      join governance.requests r on r.account_id = a.account_id and r.created_at >= a.holds_from and r.status = 'held'
      where l.reserved > 0),
    'held_tokens', (select coalesce(sum(l.reserved), 0) from governance.account_listings l where l.reserved > 0),
    'stuck_holds', governance.count_stuck_holds(),
    'flagged_users', (select count(*) from governance.account_listings l where l.is_flagged),
    'blocked_users', (select count(*) from governance.account_listings l where l.blocked_until > v_now),
    'users_in_debt', (select count(*) from governance.account_listings l where l.debt > 0),
    'open_alerts', governance.count_operator_alerts(),
    'minutes', (select jsonb_agg(to_jsonb(m) order by m.minute) from minutes m),
    'reasons', (select coalesce(jsonb_agg(jsonb_build_object('reason', r.reason, 'calls', r.calls)
      order by r.calls desc, r.reason), '[]') from (
      select t.reason, sum(t.calls) as calls from totals t where t.outcome = 'block' and t.reason <> '' group by 1
        order by 2 desc, 1 limit 10) r),
    'top_users', (select coalesce(jsonb_agg(jsonb_build_object('user_id', a.user_id, 'display_name', a.display_name,
      'tokens', u.tokens)
      order by u.tokens desc, a.user_id), '[]') from (
        select x.account_id, sum(x.tokens) as tokens from (
          select y.account_id, y.tokens from governance.recent_usage y
            where y.slot >= date_bin('5 minutes', v_from, '2000-01-01')
          union all
          select u.account_id, u.tokens from governance.usage_not_followed() u
          where u.slot >= date_bin('5 minutes', v_from, '2000-01-01')) x
        group by 1 having sum(x.tokens) > 0 order by 2 desc, 1 limit 10) u
      join governance.accounts a using (account_id)))
  into v_answer;
  return v_answer;
end
$$;
comment on function public.console_overview(int) is
  'What is going on, over the last p_minutes (1 to 1440): counters, a bucket a minute, reasons of blocks, whose '
  'tokens. Errors: invalid_argument.';
revoke all on function public.console_overview(int) from public, anon, authenticated;
grant execute on function public.console_overview(int) to service_role;

create function public.console_rail_counts() returns jsonb
  language plpgsql security definer set search_path = '' set jit = off set plan_cache_mode = 'force_custom_plan' as $$
begin
  perform governance.refuse_others('console_rail_counts');
  perform governance.follow_events(500);
  return jsonb_build_object(
    'open_alerts', governance.count_operator_alerts(),
    'flagged', (select count(*) from governance.account_listings l where l.is_flagged),
    'blocked', (select count(*) from governance.account_listings l where l.blocked_until > governance.now()),
    'in_debt', (select count(*) from governance.account_listings l where l.debt > 0),
    'stuck_holds', governance.count_stuck_holds());
end
$$;
comment on function public.console_rail_counts() is
  'The counts beside the desks: alerts that wait for an operator, accounts flagged, '
  'blocked and in debt, holds stuck.';
revoke all on function public.console_rail_counts() from public, anon, authenticated;
grant execute on function public.console_rail_counts() to service_role;

create function public.console_replication() returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
begin
  perform governance.refuse_others('console_replication');
  return jsonb_build_object('is_replica', pg_is_in_recovery(), 'server_time', clock_timestamp(),
    -- Bytes of write-ahead log since the beginning: written on a primary, replayed on a replica.
    'wal_position', pg_wal_lsn_diff(case when pg_is_in_recovery() then pg_last_wal_replay_lsn()
      else pg_current_wal_lsn() end, '0/0'),
    'replayed_at', pg_last_xact_replay_timestamp());
end
$$;
comment on function public.console_replication() is
  'How far this server is: a replica that has replayed what the primary had written is not behind. is_replica, '
  'server_time, wal_position in bytes, replayed_at (the last transaction replayed; null on a primary).';
revoke all on function public.console_replication() from public, anon, authenticated;
grant execute on function public.console_replication() to service_role;

create function public.console_project_info() returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
declare
  v_migrations text[];
  v_accounts bigint;
  v_is_exact boolean := false;
begin
  perform governance.refuse_others('console_project_info');
  -- The record of Supabase's CLI and of ours; a project whose tables were made by hand has none.
  if to_regclass('supabase_migrations.schema_migrations') is not null then
    execute format('select array_agg(m.version || ''_'' || (to_jsonb(m) ->> ''name'') order by m.version)
      from %I.schema_migrations m where to_jsonb(m) ->> ''name'' like ''governance\_%%''',
        'supabase_migrations') into v_migrations;
  end if;
  select c.reltuples::bigint into v_accounts from pg_catalog.pg_class c where c.oid = 'governance.accounts'::regclass;
  if v_accounts < 50000 then
    select count(*) into v_accounts from governance.accounts;
    v_is_exact := true;
  end if;
  return (
    select jsonb_build_object(
      'schema_version', coalesce(split_part(v_migrations[cardinality(v_migrations)], '_', 1), 'unknown'),
      'migrations', coalesce(to_jsonb(v_migrations), '[]'),
      'server_version', current_setting('server_version'),
      'preset', c.preset_name,
      'currency', c.currency,
      'sample_data', c.is_sample_data,
      'accounts', v_accounts,
      'accounts_is_exact', v_is_exact,
      'default_plan', c.default_plan,
      'plans', (select coalesce(jsonb_agg(jsonb_build_object('plan_id', p.plan_id, 'name', p.name, 'retired',
        p.retired_at is not null)
        order by p.retired_at is not null, p.monthly_allowance, p.plan_id), '[]') from governance.plans p),
      'server_time', governance.now())
    from governance.active_config c);
end
$$;
comment on function public.console_project_info() is 'What project this is: migrations applied, server, preset, '
  'currency, plans, how many accounts (an estimate from 50,000).';
revoke all on function public.console_project_info() from public, anon, authenticated;
grant execute on function public.console_project_info() to service_role;
