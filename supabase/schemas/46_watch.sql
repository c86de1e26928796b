-- What happened, over any stretch of time, and what it is now.

create type governance.stretch as (from_at timestamptz, to_at timestamptz, step interval, source text, after_id bigint,
  upto_id bigint);

create function governance.stretch(p_minutes int, p_from timestamptz, p_to timestamptz, p_now timestamptz,
  p_account_id bigint) returns governance.stretch
  language plpgsql stable set search_path = '' as $$
declare
  -- So many events are counted one by one where no totals fit; more are taken as whole days.
  c_most constant bigint := 400000;
  c_day constant interval := '1 day';
  -- A Monday: weeks begin there.
  c_origin constant timestamptz := '2000-01-03 00:00Z';
  s governance.stretch;
  v_minutes numeric;
begin
  s.from_at := p_from;
  s.to_at := p_to;
  if p_from is null then
    s.to_at := date_trunc('minute', p_now) + interval '1 minute';
    -- From whole five minutes, as rankings are kept; more than two days are today and whole days before it.
    s.from_at := case when p_minutes <= 2880 then
        date_bin('5 minutes', s.to_at - p_minutes * interval '1 minute', c_origin)
      else date_trunc('day', p_now - (p_minutes - 1440) * interval '1 minute', 'UTC') end;
  end if;
  v_minutes := coalesce(case when p_from is null then p_minutes end, extract(epoch from s.to_at - s.from_at) / 60);
  s.step := case when v_minutes <= 90 then interval '1 minute' when v_minutes <= 360 then interval '5 minutes'
    when v_minutes <= 1440 then interval '15 minutes' when v_minutes <= 2880 then interval '30 minutes'
    when v_minutes <= 8 * 1440 then interval '2 hours' when v_minutes <= 124 * 1440 then c_day
    else interval '7 days' end;
  s.from_at := date_bin(s.step, s.from_at, c_origin);
  s.source := 'minute';
  if p_account_id is not null then
    s.source := 'user';
  elsif p_from is not null and s.from_at >= p_now - interval '47 hours' then
    if (date_bin('5 minutes', s.from_at, c_origin), date_bin('5 minutes', s.to_at, c_origin))
      is distinct from (s.from_at, s.to_at) then
      s.source := 'calls';
    end if;
  elsif s.from_at < p_now - interval '47 hours' then
    if date_trunc('day', s.from_at, 'UTC') <> s.from_at
      or (p_to is not null and date_trunc('day', s.to_at, 'UTC') <> s.to_at and s.to_at < p_now) then
      s.source := 'calls';
    else
      s.step := greatest(s.step, interval '1 hour');
      s.source := case when s.step >= c_day then 'day' else 'hour' end;
    end if;
  end if;
  if s.source in ('user', 'calls') then
    s.after_id := governance.feed_low_id(s.from_at - interval '1 hour');
    s.upto_id := governance.feed_low_id(s.to_at + interval '1 hour');
    if not exists (select from governance.requests r where r.decision_id > s.upto_id) then
      -- No call came after: what was settled since has higher ids than any call.
      select e.last_value into s.upto_id from governance.event_ids e;
    end if;
    if s.source = 'calls' and s.upto_id - s.after_id > c_most then
      if s.from_at >= p_now - interval '47 hours' then
        s.source := 'minute';
        return s;
      end if;
      s.from_at := date_trunc('day', s.from_at, 'UTC');
      s.to_at := date_trunc('day', s.to_at - interval '1 microsecond', 'UTC') + c_day;
      s.step := greatest(s.step, interval '1 hour');
      s.source := case when s.step >= c_day then 'day' else 'hour' end;
    end if;
  end if;
  if s.source = 'hour' and s.from_at < p_now - interval '400 days' then
    s.step := c_day;
    s.source := 'day';
  end if;
  return s;
end
$$;
comment on function governance.stretch(int, timestamptz, timestamptz, timestamptz, bigint) is
  'A stretch of time with the step that fits it, and the source of its figures: call_totals by minute, hour or day, '
  'the calls of one user, or calls by their ids.';

create function governance.check_event_filter(p_filter jsonb) returns void
  language plpgsql immutable set search_path = '' as $$
begin
  if p_filter is null or p_filter = '{}' then return; end if;
  if jsonb_typeof(p_filter) <> 'object' or exists (
    select from jsonb_each(p_filter) f where f.value <> 'null' and not (case f.key
      when 'kinds' then jsonb_typeof(f.value) = 'array' and jsonb_array_length(f.value) <= 20
      when 'user_id' then jsonb_typeof(f.value) = 'string' when 'decision' then jsonb_typeof(f.value) = 'string'
      when 'reason' then jsonb_typeof(f.value) = 'string' when 'model' then jsonb_typeof(f.value) = 'string'
        else false end)) then
    perform governance.fail('PT400', 'invalid_argument',
      'p_filter takes only user_id, decision, reason, model (texts) and kinds (a list)');
  end if;
end
$$;
comment on function governance.check_event_filter(jsonb) is
  'Refuses a filter of events that has an unknown key or value: ignoring it would show everything.';

create function governance.check_overview(p_minutes int, p_from timestamptz, p_to timestamptz, p_filter jsonb)
  returns void
  language plpgsql stable set search_path = '' as $$
begin
  if p_minutes is null or p_minutes not between 1 and 527040 then
    perform governance.fail('PT400', 'invalid_argument', 'p_minutes is a whole number from 1 to 527040, a year');
  end if;
  if (p_from is null) <> (p_to is null) or not isfinite(p_from) or not isfinite(p_to) or p_from >= p_to
    or p_to - p_from > interval '367 days' or p_from < '2000-01-01' or p_to > '2199-12-31' then
    perform governance.fail('PT400', 'invalid_argument',
      'p_from and p_to are moments in this order, at most a year apart, or both null');
  end if;
  perform governance.check_event_filter(p_filter);
  if p_filter ? 'kinds' then
    perform governance.fail('PT400', 'invalid_argument', 'p_filter takes only user_id, decision, reason and model');
  end if;
end
$$;
comment on function governance.check_overview(int, timestamptz, timestamptz, jsonb) is
  'Refuses a period or a filter that console_overview does not understand. Errors: invalid_argument.';

create function governance.watched_now(p_now timestamptz) returns jsonb
  language sql stable set search_path = '' as $$
  select jsonb_build_object(
    'open_holds', (
      select count(*) from governance.account_listings l
      join governance.accounts a using (account_id)
      join governance.requests r on r.account_id = a.account_id and r.created_at >= a.holds_from and r.status = 'held'
      where l.reserved > 0),
    'held_tokens', (select coalesce(sum(l.reserved), 0) from governance.account_listings l where l.reserved > 0),
    'stuck_holds', governance.count_stuck_holds(),
    'flagged_users', (select count(*) from governance.account_listings l where l.is_flagged),
    'blocked_users', (select count(*) from governance.account_listings l where l.blocked_until > p_now),
    'users_in_debt', (select count(*) from governance.account_listings l where l.debt > 0),
    'open_alerts', governance.count_operator_alerts())
$$;
comment on function governance.watched_now(timestamptz) is
  'Open holds and the states of users and alerts, as they are now.';

create function public.console_overview(p_minutes int default 60, p_filter jsonb default '{}',
  p_from timestamptz default null, p_to timestamptz default null) returns jsonb
  language plpgsql security definer set search_path = '' set jit = off set plan_cache_mode = 'force_custom_plan' as $$
declare
  v_now timestamptz := governance.now();
  v_decision text := p_filter ->> 'decision';
  v_reason text := p_filter ->> 'reason';
  v_model text := p_filter ->> 'model';
  v_account_id bigint := governance.filtered_account(p_filter);
  v_is_whole boolean := coalesce(p_filter, '{}') = '{}';
  s governance.stretch;
  v_consumed bigint;
  v_answer jsonb;
begin
  perform governance.refuse_others('console_overview');
  perform governance.check_overview(p_minutes, p_from, p_to, p_filter);
  s := governance.stretch(p_minutes, p_from, p_to, v_now, v_account_id);
  for v_round in 1..5 loop
    exit when governance.follow_events(2000) = 0;
  end loop;
  select (m.value ->> 'consumed')::bigint into v_consumed from governance.maintenance_state m
    where m.key = 'followed_events';
  with counted as materialized (
    select x.* from (
      -- Calls that are committed and not yet counted: of some seconds, or of two minutes where a long transaction holds
      -- the count up.
      select c.* from governance.count_calls(v_consumed, v_consumed + 50000) c
        where s.source in ('minute', 'hour', 'day')
      union all
      select c.* from governance.count_calls(s.after_id, s.upto_id) c where s.source = 'calls'
      union all
      select c.* from governance.count_calls_of(v_account_id, s.from_at, s.to_at, s.after_id) c
        where s.source = 'user') x
    where x.minute >= s.from_at and x.minute < s.to_at
  ), totals as materialized (
    select x.* from (
      select m.start, m.kind, m.decision, m.reason, m.requested_model, m.model, m.calls, m.tokens, m.cost_micros
      from governance.call_totals m where m.step = s.source and m.start >= s.from_at and m.start < s.to_at
      union all
      select c.minute, c.kind, c.decision, c.reason, c.requested_model, c.model, c.calls, c.tokens, c.cost_micros
      from counted c) x
    where (v_decision is null or x.decision = v_decision)
      and (v_reason is null or (x.decision = 'block' and x.reason = v_reason))
      and (v_model is null or v_model in (x.requested_model, x.model))
  ), users as materialized (
    select x.* from (
      select u.account_id, u.kind, u.decision, u.reason, u.requested_model, u.model, u.calls, u.tokens
      from governance.user_totals u
      where s.source = 'minute' and u.step = 'five_minutes' and u.start < s.to_at
        and u.start >= date_bin('5 minutes', s.from_at, '2000-01-01 00:00Z')
      union all
      select u.account_id, u.kind, u.decision, u.reason, u.requested_model, u.model, u.calls, u.tokens
      from governance.leading_users(s.from_at, s.to_at, array(select distinct c.account_id from counted c),
        v_decision, v_reason, v_model) u
      where s.source in ('hour', 'day')
      union all
      select c.account_id, c.kind, c.decision, c.reason, c.requested_model, c.model, c.calls, c.tokens
      from counted c) x
    where (v_decision is null or x.decision = v_decision)
      and (v_reason is null or (x.decision = 'block' and x.reason = v_reason))
      and (v_model is null or v_model in (x.requested_model, x.model))
  ), steps as (
    select g.start, coalesce(sum(t.calls) filter (where t.kind = 'decided'), 0) as calls,
      coalesce(sum(t.tokens) filter (where t.kind = 'settled'), 0) as settled_tokens,
      coalesce(sum(t.tokens) filter (where t.kind = 'decided' and t.decision = 'allow'), 0) as allowed_tokens,
      coalesce(sum(t.tokens) filter (where t.kind = 'decided' and t.decision = 'warn'), 0) as warned_tokens,
      coalesce(sum(t.tokens) filter (where t.kind = 'decided' and t.decision = 'block'), 0) as blocked_tokens,
      coalesce(sum(t.calls) filter (where t.kind = 'decided' and t.decision = 'block'), 0) as blocked_calls,
      coalesce(sum(t.cost_micros), 0) as cost_micros
    from generate_series(s.from_at, s.to_at - interval '1 microsecond', s.step) g(start)
    left join (select date_bin(s.step, y.start, '2000-01-03 00:00Z') as start, y.kind, y.decision,
      y.calls, y.tokens, y.cost_micros from totals y) t using (start) group by 1
  )
  select jsonb_build_object(
    'at', v_now, 'from', s.from_at, 'to', s.to_at, 'step_minutes', (extract(epoch from s.step) / 60)::int,
    'calls', (select coalesce(sum(t.calls), 0) from totals t where t.kind = 'decided'),
    'blocked', (select coalesce(sum(t.calls), 0) from totals t where t.kind = 'decided' and t.decision = 'block'),
    'warned', (select coalesce(sum(t.calls), 0) from totals t where t.kind = 'decided' and t.decision = 'warn'),
    'settled_tokens', (select coalesce(sum(t.tokens), 0) from totals t where t.kind = 'settled'),
    'cost_micros', (select coalesce(sum(t.cost_micros), 0) from totals t where t.kind = 'settled'),
    'currency', (select c.currency from governance.active_config c),
    'active_users', case
      when s.source not in ('hour', 'day') then (select count(distinct u.account_id) from users u)
      when v_is_whole and s.to_at >= v_now then
        (select count(*) from governance.account_listings l where l.last_activity_at >= s.from_at) end,
    'steps', (select jsonb_agg(to_jsonb(m) order by m.start) from steps m),
    'reasons', (select coalesce(jsonb_agg(jsonb_build_object('reason', r.reason, 'calls', r.calls)
      order by r.calls desc, r.reason), '[]') from (
      select t.reason, sum(t.calls) as calls from totals t where t.decision = 'block' and t.reason <> '' group by 1
        order by 2 desc, 1 limit 10) r),
    'models', (select coalesce(jsonb_agg(jsonb_build_object('model', r.model, 'calls', r.calls)
      order by r.calls desc, r.model), '[]') from (
      select t.model, sum(t.calls) as calls from totals t where t.kind = 'decided' group by 1
        order by 2 desc, 1 limit 20) r),
    'top_users', (select coalesce(jsonb_agg(jsonb_build_object('user_id', a.user_id, 'display_name', a.display_name,
      'tokens', u.tokens)
      order by u.tokens desc, a.user_id), '[]') from (
        select x.account_id, sum(x.tokens) as tokens from users x where x.kind = 'settled'
        group by 1 having sum(x.tokens) > 0 order by 2 desc, 1 limit 10) u
      join governance.accounts a using (account_id)),
    'most_stopped', (select coalesce(jsonb_agg(jsonb_build_object('user_id', a.user_id, 'display_name', a.display_name,
        'calls', u.calls, 'reason', u.reason, 'is_flagged', a.flagged_at is not null,
        'is_blocked', coalesce(l.blocked_until > v_now, false))
      order by u.calls desc, a.user_id), '[]') from (
        select x.account_id, sum(x.calls) as calls, (array_agg(x.reason order by x.calls desc, x.reason))[1] as reason
        from (select y.account_id, y.reason, sum(y.calls) as calls from users y where y.decision = 'block'
          group by 1, 2) x
        group by 1 order by 2 desc, 1 limit 10) u
      join governance.accounts a using (account_id)
      left join governance.account_listings l using (account_id)))
    || governance.watched_now(v_now)
  into v_answer;
  return v_answer;
end
$$;
comment on function public.console_overview(int, jsonb, timestamptz, timestamptz) is
  'Figures of calls over the last p_minutes (1 to 527040, a year) or from p_from up to p_to: counters, steps that fit, '
  'reasons of blocks, models, whose tokens, who was stopped most; p_filter may have user_id, decision, reason, model. '
  'Up to two days begin at whole five minutes, more are whole days of UTC; rankings of more than two days know the 50 '
  'first of each day. active_users is null where it is not known. Open holds and the states of users and alerts are of '
  'now, whatever the filter. Errors: invalid_argument.';
revoke all on function public.console_overview(int, jsonb, timestamptz, timestamptz) from public, anon, authenticated;
grant execute on function public.console_overview(int, jsonb, timestamptz, timestamptz) to service_role;

create function public.console_calls_before(p_before_decision_id bigint default null, p_limit int default 200,
  p_filter jsonb default '{}', p_from timestamptz default null, p_to timestamptz default null) returns jsonb
  language plpgsql stable security definer set search_path = '' set jit = off as $$
declare
  -- A rare filter ends the page here, with what was found and where to go on: the cost of a page has a bound.
  c_most constant int := 10000;
  v_filter jsonb := coalesce(p_filter, '{}');
  v_high bigint := coalesce(p_before_decision_id, 9223372036854775807);
  v_low bigint := 0;
  v_from timestamptz := coalesce(p_from, '-infinity');
  v_to timestamptz := coalesce(p_to, 'infinity');
  v_page int := greatest(p_limit + 1, 50);
  v_where text := 'true';
  v_order text := 'r.decision_id desc';
  v_looked int := 0;
  v_account_id bigint;
  v_seen int;
  v_floor bigint;
  v_at timestamptz;
  v_rows jsonb;
  v_calls jsonb := '[]';
begin
  perform governance.refuse_others('console_calls_before');
  perform governance.check_limit(p_limit, 1000);
  perform governance.check_event_filter(p_filter);
  if v_filter ? 'kinds' then
    perform governance.fail('PT400', 'invalid_argument', 'p_filter takes only user_id, decision, reason and model');
  end if;
  if p_from > p_to then
    perform governance.fail('PT400', 'invalid_argument', 'p_from must not be after p_to');
  end if;
  if isfinite(v_from) then v_low := governance.feed_low_id(v_from - interval '1 hour'); end if;
  if isfinite(v_to) then v_high := least(v_high, governance.feed_low_id(v_to + interval '1 hour') + 1); end if;
  if v_filter ->> 'user_id' is not null then
    select a.account_id into v_account_id from governance.accounts a where a.user_id = v_filter ->> 'user_id';
    if v_account_id is null then
      return jsonb_build_object('calls', '[]'::jsonb, 'next_before_decision_id', null);
    end if;
    -- Calls of one account have the same order by time as by id, and there is an index by time.
    select least(v_to, r.created_at + interval '1 microsecond') into v_at from governance.requests r
      where r.decision_id = v_high;
    v_to := coalesce(v_at, v_to);
    v_where := format('r.account_id = %s', v_account_id);
    v_order := 'r.created_at desc, r.decision_id desc';
  end if;
  if v_filter ->> 'reason' is not null then
    v_where := v_where || format(' and r.decision = ''block'' and r.reason = %L', v_filter ->> 'reason');
    -- In order of the reason first: so the index by reason is read, and not every call.
    if v_account_id is null then v_order := 'r.reason desc, r.decision_id desc'; end if;
  elsif v_filter ->> 'decision' = 'block' then
    v_where := v_where || ' and r.decision = ''block''';
  end if;
  loop
    execute format($q$
      with looked as materialized (
        select r.* from governance.requests r
        where r.decision_id < $1 and r.decision_id > $2 and r.created_at >= $3 and r.created_at < $4 and %1$s
        order by %2$s limit $5
      )
      select (select count(*) from looked), (select min(l.decision_id) from looked l), (
        select coalesce(jsonb_agg(jsonb_build_object('event_id', p.decision_id, 'kind', case p.status
            when 'held' then 'authorized' else p.status end, 'at', p.created_at, 'request_id', p.request_id,
            'decision_id', p.decision_id, 'user_id', a.user_id, 'display_name', a.display_name, 'plan_id', p.plan_id,
            'decision', p.decision, 'reason', coalesce(p.reason, p.end_reason), 'http_status', p.http_status,
            'requested_model', p.requested_model, 'model', coalesce(p.settled_model, p.model),
            'task_type', p.task_type, 'scope_id', p.scope_id, 'conversation_id', p.conversation_id,
            'tokens', case p.status when 'blocked' then (p.facts).estimated_tokens when 'settled' then p.charged_tokens
              else p.reserved_tokens end,
            'input_tokens', p.input_tokens, 'output_tokens', p.output_tokens, 'cost_micros', p.cost_micros,
            'currency', p.currency, 'ended_at', p.ended_at, 'warnings', coalesce(to_jsonb(p.warnings), '[]'),
            'rule_name', case when p.rule_version_id is not null then
              (select v.rule_name from governance.rule_versions v where v.version_id = p.rule_version_id) end)
          order by p.decision_id desc), '[]')
        from (select * from looked l
          where ($6 is null or l.decision = $6) and ($7 is null or $7 in (l.model, l.requested_model, l.settled_model))
          order by l.decision_id desc limit $8) p
        join governance.accounts a on a.account_id = p.account_id)
      $q$, v_where, v_order)
    into v_seen, v_floor, v_rows
    using v_high, v_low, v_from, v_to, v_page, v_filter ->> 'decision', v_filter ->> 'model',
      p_limit + 1 - jsonb_array_length(v_calls);
    v_calls := v_calls || v_rows;
    v_looked := v_looked + v_page;
    exit when jsonb_array_length(v_calls) > p_limit or v_seen < v_page or v_looked >= c_most;
    v_high := v_floor;
    v_page := least(v_page * 4, c_most);
  end loop;
  return jsonb_build_object(
    'calls', case when jsonb_array_length(v_calls) > p_limit then v_calls - p_limit else v_calls end,
    'next_before_decision_id', case
      when jsonb_array_length(v_calls) > p_limit then (v_calls -> (p_limit - 1) ->> 'decision_id')::bigint
      when v_seen = v_page then v_floor end);
end
$$;
comment on function public.console_calls_before(bigint, int, jsonb, timestamptz, timestamptz) is
  'Calls, newest first, one row each with how it ended: as an event of the feed whose kind is where the call is now '
  'and whose event_id and at are the decision''s. p_filter may have user_id, decision, reason, model; p_from and p_to '
  'bound when it was decided. next_before_decision_id goes on from here, null at the end; where the filter is rare a '
  'page may hold fewer calls than asked, and there are more. Errors: invalid_argument.';
revoke all on function public.console_calls_before(bigint, int, jsonb, timestamptz, timestamptz)
  from public, anon, authenticated;
grant execute on function public.console_calls_before(bigint, int, jsonb, timestamptz, timestamptz) to service_role;

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
  'How far this server has come: a replica that has replayed all that the primary had written is not behind. '
  'is_replica, server_time, wal_position in bytes, replayed_at (the last transaction replayed; null on a primary).';
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
