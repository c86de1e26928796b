-- Usage by day, model, task and scope.

create function governance.first_open_day(p_now timestamptz) returns date
  language sql immutable set search_path = '' as $$
  -- Days end last at UTC-12. The hour more is for settlements that read the clock before and commit after.
  select ((p_now - interval '13 hours') at time zone 'UTC')::date
$$;
comment on function governance.first_open_day(timestamptz) is 'The earliest day that a settlement may still add to.';

create function governance.last_open_day(p_now timestamptz) returns date
  language sql immutable set search_path = '' as $$
  select ((p_now + interval '14 hours') at time zone 'UTC')::date
$$;
comment on function governance.last_open_day(timestamptz) is 'The latest day that has begun anywhere: days begin first '
  'at UTC+14.';

create function governance.account_calls(p_account_id bigint, p_start timestamptz, p_end timestamptz)
  returns table (day date, at timestamptz, model text, task_type text, scope_id text, conversation_id text,
    messages bigint, input_tokens bigint, output_tokens bigint, charged_tokens bigint, cost_micros bigint)
  language sql stable set search_path = '' as $$
  with calls as (
    select r.* from governance.requests r
    where r.account_id = p_account_id and r.status = 'settled' and r.ended_at >= p_start and r.ended_at < p_end
      -- A hold lasts a week at most, and a server's clock may have been set back.
      and r.created_at >= p_start - interval '8 days' and r.created_at < p_end + interval '1 day'
    union all
    -- A call settled later than that had its hold expired, or was set aside for a person.
    select r.* from governance.requests r
    where r.decision_id in (select h.decision_id from governance.hold_events h
        where h.account_id = p_account_id and h.kind in ('expired', 'quarantined'))
      and r.account_id = p_account_id and r.status = 'settled' and r.ended_at >= p_start and r.ended_at < p_end
      and r.created_at < p_start - interval '8 days'
  )
  select c.usage_day, c.ended_at, c.settled_model, coalesce(c.task_type, ''), coalesce(c.scope_id, ''),
    c.conversation_id, (c.message_hash is not null)::int::bigint, c.input_tokens, c.output_tokens, c.charged_tokens,
    coalesce(c.cost_micros, 0)
  from calls c
  union all
  select u.day, u.at, u.model, u.task_type, '', u.conversation_id, 1, u.input_tokens, u.output_tokens, 0,
    coalesce(u.cost_micros, 0)
  from governance.imported_usage u where u.account_id = p_account_id and u.at >= p_start and u.at < p_end
$$;
comment on function governance.account_calls(bigint, timestamptz, timestamptz) is
  'Settled calls and imported messages of an account whose usage falls into a period, as far back as calls are kept.';

create function governance.account_usage(p_account_id bigint, p_start timestamptz, p_end timestamptz)
  returns table (day date, model text, task_type text, scope_id text, calls bigint, messages bigint,
    input_tokens bigint, output_tokens bigint,
    charged_tokens bigint, cost_micros bigint, last_activity_at timestamptz)
  language plpgsql stable set search_path = '' as $$
declare
  v_first timestamptz;
  v_last timestamptz;
begin
  -- Rows of the roll-up that lie wholly in the period count as they are, whatever zones the account has had.
  return query
    select d.day, d.model, d.task_type, d.scope_id, d.calls::bigint, d.messages::bigint, d.input_tokens,
      d.output_tokens, d.charged_tokens, d.cost_micros, d.last_activity_at
    from governance.usage_daily d
    where d.account_id = p_account_id and d.first_activity_at >= p_start and d.last_activity_at < p_end
      and d.day between (p_start at time zone 'UTC')::date - 2 and (p_end at time zone 'UTC')::date + 2;
  select min(d.first_activity_at), max(d.last_activity_at) into v_first, v_last from governance.usage_daily d
  where d.account_id = p_account_id and d.first_activity_at < p_end and d.last_activity_at >= p_start
    and not (d.first_activity_at >= p_start and d.last_activity_at < p_end)
    and d.day between (p_start at time zone 'UTC')::date - 2 and (p_end at time zone 'UTC')::date + 2;
  if v_first is null then return; end if;
  -- Rows that reach over an edge are read call by call. Where their calls are no longer kept, what is left of a row
  -- counts in the period of its last use: no two periods share it, and none loses it.
  return query
    with calls as materialized (
      select * from governance.account_calls(p_account_id, v_first, v_last + interval '1 microsecond')
    ), parts as (
      select c.day, c.model, c.task_type, c.scope_id, 1::bigint as calls, c.messages, c.input_tokens, c.output_tokens,
        c.charged_tokens, c.cost_micros, c.at, c.at >= p_start and c.at < p_end as is_inside, false as is_row
      from calls c
      union all
      select d.day, d.model, d.task_type, d.scope_id, d.calls, d.messages, d.input_tokens, d.output_tokens,
        d.charged_tokens, d.cost_micros, d.last_activity_at,
        d.last_activity_at >= p_start and d.last_activity_at < p_end, true
      from governance.usage_daily d
      where d.account_id = p_account_id and d.first_activity_at < p_end and d.last_activity_at >= p_start
        and not (d.first_activity_at >= p_start and d.last_activity_at < p_end)
        and d.day between (p_start at time zone 'UTC')::date - 2 and (p_end at time zone 'UTC')::date + 2
    ), signed as (
      -- A row that ends inside: the row less its calls outside. One that ends outside: its calls inside.
      select p.*, case when p.is_row then p.is_inside::int
        when bool_or(p.is_row and p.is_inside) over whole then p.is_inside::int - 1
        else p.is_inside::int end as sign, bool_or(p.is_row) over whole as has_row
      from parts p
      window whole as (partition by p.day, p.model, p.task_type, p.scope_id)
    )
    select s.day, s.model, s.task_type, s.scope_id, sum(s.sign * s.calls)::bigint, sum(s.sign * s.messages)::bigint,
      sum(s.sign * s.input_tokens)::bigint, sum(s.sign * s.output_tokens)::bigint,
      sum(s.sign * s.charged_tokens)::bigint, sum(s.sign * s.cost_micros)::bigint,
      max(s.at) filter (where s.is_inside)
    from signed s where s.has_row
    group by 1, 2, 3, 4 having sum(s.sign * s.calls) > 0;
end
$$;
comment on function governance.account_usage(bigint, timestamptz, timestamptz) is
  'Settled and imported usage of an account from p_start up to p_end, by its own days.';

create function governance.account_days(p_account_id bigint, p_from date, p_to date)
  returns table (day date, conversation_id text)
  language sql stable set search_path = '' as $$
  -- A day is some hours before or after its date in UTC.
  select c.day, c.conversation_id
  from governance.account_calls(p_account_id, (p_from - 2)::timestamp at time zone 'UTC',
    (p_to + 3)::timestamp at time zone 'UTC') c
  where c.day between p_from and p_to
$$;
comment on function governance.account_days(bigint, date, date) is
  'Conversations of an account''s usage by its own days, as far back as calls are kept.';

create function governance.account_usage_json(p_account_id bigint, p_start timestamptz, p_end timestamptz,
  p_from date default null, p_to date default null) returns jsonb
  language sql stable set search_path = '' as $$
  with usage as materialized (
    select * from governance.account_usage(p_account_id, p_start, p_end) where p_from is null
    union all
    select d.day, d.model, d.task_type, d.scope_id, d.calls, d.messages, d.input_tokens, d.output_tokens,
      d.charged_tokens, d.cost_micros, d.last_activity_at
    from governance.usage_daily d where d.account_id = p_account_id and d.day between p_from and p_to
  )
  select jsonb_build_object(
    'prompt_tokens', coalesce(sum(u.input_tokens), 0),
    'completion_tokens', coalesce(sum(u.output_tokens), 0),
    'total_tokens', coalesce(sum(u.input_tokens + u.output_tokens), 0),
    'charged_tokens', coalesce(sum(u.charged_tokens), 0),
    'call_count', coalesce(sum(u.calls), 0),
    'message_count', coalesce(sum(u.messages), 0),
    'conversation_count', case
      when p_from is null then (select count(distinct c.conversation_id)
        from governance.account_calls(p_account_id, p_start, p_end) c)
      else (select count(distinct c.conversation_id) from governance.account_days(p_account_id, p_from, p_to) c) end,
    'last_activity', max(u.last_activity_at),
    'cost_micros', coalesce(sum(u.cost_micros), 0),
    'currency', (select c.currency from governance.active_config c),
    'by_day', (select coalesce(jsonb_agg(to_jsonb(d) order by d.day), '[]') from (
      select x.day, sum(x.input_tokens) as prompt_tokens, sum(x.output_tokens) as completion_tokens,
        sum(x.input_tokens + x.output_tokens) as total_tokens,
        sum(x.messages) as message_count, sum(x.cost_micros) as cost_micros, sum(x.charged_tokens) as charged_tokens,
          sum(x.calls) as call_count
      from usage x group by 1) d),
    'by_model', (select coalesce(jsonb_agg(to_jsonb(m) order by m.total_tokens desc, m.model), '[]') from (
      select x.model, sum(x.input_tokens + x.output_tokens) as total_tokens, sum(x.cost_micros) as cost_micros,
        sum(x.input_tokens) as prompt_tokens, sum(x.output_tokens) as completion_tokens, sum(x.calls) as call_count
      from usage x group by 1) m),
    'by_task_type', (select coalesce(jsonb_agg(to_jsonb(t) order by t.total_tokens desc, t.task_type), '[]') from (
      select nullif(x.task_type, '') as task_type, sum(x.input_tokens + x.output_tokens) as total_tokens,
        sum(x.cost_micros) as cost_micros, sum(x.calls) as call_count
      from usage x group by 1) t),
    'by_scope', (select coalesce(jsonb_agg(to_jsonb(s) order by s.total_tokens desc, s.scope_id), '[]') from (
      select nullif(x.scope_id, '') as scope_id, sum(x.input_tokens + x.output_tokens) as total_tokens,
        sum(x.cost_micros) as cost_micros, sum(x.calls) as call_count
      from usage x group by 1) s))
  from usage u
$$;
comment on function governance.account_usage_json(bigint, timestamptz, timestamptz, date, date) is
  'The answer of calculate_user_token_usage for a period; or for the account''s own days p_from to p_to.';

create function public.calculate_user_token_usage(p_user_id text, p_start timestamptz, p_end timestamptz) returns jsonb
  language plpgsql stable security definer set search_path = '' set jit = off as $$
declare
  v_account_id bigint;
begin
  perform governance.refuse_others('calculate_user_token_usage');
  perform governance.check_id('p_user_id', p_user_id);
  perform governance.check_period(p_start, p_end);
  v_account_id := governance.account_id_of(p_user_id);
  return governance.account_usage_json(v_account_id, p_start, p_end);
end
$$;
comment on function public.calculate_user_token_usage(text, timestamptz, timestamptz) is
  'The usage of a user from p_start up to p_end: tokens, messages, conversations, cost, by local day, model, task type '
  'and scope. A call counts when it settled. Errors: invalid_argument, unknown_user.';
revoke all on function public.calculate_user_token_usage(text, timestamptz, timestamptz)
  from public, anon, authenticated;
grant execute on function public.calculate_user_token_usage(text, timestamptz, timestamptz) to service_role;

create function public.user_token_usage(p_user_id text, p_period text default 'day', p_start date default null,
  p_end date default null)
  returns table (user_id text, period_start date, period_end date, prompt_tokens bigint, completion_tokens bigint,
    total_tokens bigint,
    message_count bigint, conversation_count bigint, cost_micros bigint, currency text, last_activity timestamptz)
  language plpgsql stable security definer set search_path = '' set jit = off as $$
declare
  v_account_id bigint;
  v_zone text;
  v_day date;
  v_today date;
  v_start date;
  v_end date;
  v_currency text := (select c.currency from governance.active_config c);
begin
  perform governance.refuse_others('user_token_usage');
  perform governance.check_id('p_user_id', p_user_id);
  if p_period is null or p_period not in ('day', 'week', 'month') then
    perform governance.fail('PT400', 'invalid_argument', 'p_period is day, week or month');
  end if;
  select a.account_id, a.timezone, a.local_day into v_account_id, v_zone, v_day
  from governance.accounts a where a.user_id = p_user_id;
  if v_account_id is null then
    perform governance.fail('PT404', 'unknown_user', format('There is no account of user "%s"', left(p_user_id, 64)));
  end if;
  -- An account that moved west may be a day ahead of its zone's date.
  v_today := greatest(v_day, (governance.now() at time zone governance.known_zone(v_zone))::date);
  v_end := coalesce(p_end, v_today);
  v_start := coalesce(p_start, v_end - case p_period when 'day' then 29 when 'week' then 83 else 364 end);
  if not isfinite(v_start) or not isfinite(v_end) or v_start > v_end or v_start < '1900-01-01' or v_end > '2199-12-31'
    or v_end - v_start > 3660 then
    perform governance.fail('PT400', 'invalid_argument', 'p_start and p_end are days, at most ten years apart');
  end if;
  v_start := date_trunc(p_period, v_start::timestamp)::date;
  return query
    with conversations as (
      select date_trunc(p_period, c.day::timestamp)::date as first, count(distinct c.conversation_id) as count
      from governance.account_days(v_account_id, v_start, v_end + 31) c group by 1
    )
    select p_user_id, p.first, (p.next - 1), coalesce(sum(d.input_tokens), 0)::bigint,
      coalesce(sum(d.output_tokens), 0)::bigint,
      coalesce(sum(d.input_tokens + d.output_tokens), 0)::bigint, coalesce(sum(d.messages), 0)::bigint,
      coalesce((select c.count from conversations c where c.first = p.first), 0),
      coalesce(sum(d.cost_micros), 0)::bigint, v_currency, max(d.last_activity_at)
    from (select g::date as first, (g + ('1 ' || p_period)::interval)::date as next
      from generate_series(v_start::timestamp, v_end::timestamp, ('1 ' || p_period)::interval) g) p
    left join governance.usage_daily d on d.account_id = v_account_id and d.day >= p.first and d.day < p.next
    group by p.first, p.next order by p.first;
end
$$;
comment on function public.user_token_usage(text, text, date, date) is
  'A user''s usage by day, week (from Monday) or month of their own zone, oldest first, without gaps. Errors: '
    'invalid_argument, unknown_user.';
revoke all on function public.user_token_usage(text, text, date, date) from public, anon, authenticated;
grant execute on function public.user_token_usage(text, text, date, date) to service_role;

create function public.my_token_usage(p_days int default 7) returns jsonb
  language plpgsql security definer set search_path = '' set jit = off as $$
declare
  v_account governance.accounts;
  v_usage jsonb;
begin
  if p_days is null or p_days not between 1 and 366 then
    perform governance.fail('PT400', 'invalid_argument', 'p_days is a whole number from 1 to 366');
  end if;
  v_account := governance.my_account();
  v_usage := governance.account_usage_json(v_account.account_id, null, null, v_account.local_day - p_days + 1,
    v_account.local_day);
  return v_usage || jsonb_build_object(
    'byTaskType', (select coalesce(jsonb_object_agg(coalesce(t ->> 'task_type', 'other'), t -> 'total_tokens'), '{}')
      from jsonb_array_elements(v_usage -> 'by_task_type') t),
    'byDate', (select coalesce(jsonb_agg(jsonb_build_object('date', d -> 'day', 'tokens', d -> 'total_tokens')
      order by d ->> 'day'), '[]') from jsonb_array_elements(v_usage -> 'by_day') d),
    'totalTokens', v_usage -> 'total_tokens',
    'avgPerDay', (v_usage ->> 'total_tokens')::bigint / p_days,
    'cost_today_micros', v_account.day_cost_micros,
    'cost_this_month_micros', v_account.month_cost_micros,
    'days', p_days);
end
$$;
comment on function public.my_token_usage(int) is
  'The signed-in user''s usage of the last p_days (1 to 366) local days, today included, by day, model and task type. '
    'Errors: not_signed_in, invalid_argument, not_configured.';
revoke all on function public.my_token_usage(int) from public, anon, authenticated;
grant execute on function public.my_token_usage(int) to authenticated;

create function public.console_usage_totals(p_days int default 30) returns jsonb
  language plpgsql security definer set search_path = '' set jit = off as $$
declare
  v_today date := (governance.now() at time zone 'UTC')::date;
  -- The world's latest day may be one ahead of UTC's.
  v_to date := v_today + 1;
  v_from date;
  v_answer jsonb;
begin
  perform governance.refuse_others('console_usage_totals');
  if p_days is null or p_days not between 1 and 366 then
    perform governance.fail('PT400', 'invalid_argument', 'p_days is a whole number from 1 to 366');
  end if;
  v_from := v_today - p_days + 1;
  perform governance.follow_events(2000);
  with usage as materialized (
    select * from governance.usage_between(v_from, v_to)
  ), days as (
    select g::date as day from generate_series(v_from, v_to, interval '1 day') g
    where g::date <= v_today or exists (select from usage u where u.day = g::date)
  )
  select jsonb_build_object(
    'from', v_from, 'to', (select max(d.day) from days d),
    'currency', (select c.currency from governance.active_config c),
    'calls', coalesce(sum(u.calls), 0), 'messages', coalesce(sum(u.messages), 0),
    'prompt_tokens', coalesce(sum(u.input_tokens), 0), 'completion_tokens', coalesce(sum(u.output_tokens), 0),
    'total_tokens', coalesce(sum(u.input_tokens + u.output_tokens), 0), 'charged_tokens',
      coalesce(sum(u.charged_tokens), 0),
    'cost_micros', coalesce(sum(u.cost_micros), 0),
    'by_day', (select jsonb_agg(to_jsonb(x) order by x.day) from (
      select d.day, coalesce(sum(y.calls), 0) as calls, coalesce(sum(y.messages), 0) as messages,
        coalesce(sum(y.input_tokens), 0) as prompt_tokens,
        coalesce(sum(y.output_tokens), 0) as completion_tokens,
          coalesce(sum(y.input_tokens + y.output_tokens), 0) as total_tokens,
        coalesce(sum(y.cost_micros), 0) as cost_micros,
        (select a.active_users from governance.usage_days a where a.day = d.day and a.is_over) as active_users
      from days d left join usage y using (day) group by 1) x),
    'by_model', (select coalesce(jsonb_agg(to_jsonb(x) order by x.cost_micros desc, x.total_tokens desc, x.model), '[]')
      from (
      select y.model, sum(y.calls) as calls, sum(y.input_tokens + y.output_tokens) as total_tokens,
        sum(y.cost_micros) as cost_micros from usage y group by 1 order by 4 desc, 3 desc limit 100) x),
    'by_task_type', (select coalesce(jsonb_agg(to_jsonb(x) order by x.total_tokens desc, x.task_type), '[]') from (
      select nullif(y.task_type, '') as task_type, sum(y.calls) as calls,
        sum(y.input_tokens + y.output_tokens) as total_tokens, sum(y.cost_micros) as cost_micros from usage y group by 1
        order by 3 desc limit 100) x),
    'by_scope', (select coalesce(jsonb_agg(to_jsonb(x) order by x.total_tokens desc, x.scope_id), '[]') from (
      select nullif(y.scope_id, '') as scope_id, sum(y.calls) as calls,
        sum(y.input_tokens + y.output_tokens) as total_tokens, sum(y.cost_micros) as cost_micros from usage y group by 1
        order by 3 desc limit 100) x),
    'top_users', (select coalesce(jsonb_agg(jsonb_build_object('user_id', a.user_id, 'display_name', a.display_name,
      'plan_id', a.plan_id,
        'cost_this_month_micros', x.cost_this_month_micros, 'tokens_this_month', x.tokens_this_month)
          order by x.cost_this_month_micros desc, a.user_id), '[]')
      from (select * from governance.account_listings l where l.cost_this_month_micros > 0
        order by l.cost_this_month_micros desc, l.account_id desc limit 20) x
      join governance.accounts a using (account_id)))
  into v_answer
  from usage u;
  return v_answer;
end
$$;
comment on function public.console_usage_totals(int) is
  'Everybody''s usage and cost over the last p_days (1 to 366), by day, model, task type and scope, and whose cost is '
    'highest this month. Errors: invalid_argument.';
revoke all on function public.console_usage_totals(int) from public, anon, authenticated;
grant execute on function public.console_usage_totals(int) to service_role;

create function public.console_token_stats() returns jsonb
  language plpgsql security definer set search_path = '' set jit = off as $$
begin
  perform governance.refuse_others('console_token_stats');
  perform governance.follow_events(2000);
  return (select jsonb_build_object(
    'totalUsersWithTokens', count(*) filter (where l.available > 0),
    'avgBalancePerUser', coalesce(div(sum(l.available) filter (where l.available > 0),
      nullif(count(*) filter (where l.available > 0), 0)), 0),
    'totalTokensUsedToday', (select coalesce(sum(d.input_tokens + d.output_tokens), 0) from governance.usage_daily d
      where d.day = (governance.now() at time zone 'UTC')::date),
    'lowBalanceUsers', count(*) filter (where l.available < (select c.low_balance_tokens
      from governance.active_config c)),
    'activeAlerts', governance.count_open_alerts())
  from governance.account_listings l);
end
$$;
comment on function public.console_token_stats() is 'Users with tokens, their average balance, tokens used today '
  '(local days, by UTC''s date), users whose balance is low, open alerts.';
revoke all on function public.console_token_stats() from public, anon, authenticated;
grant execute on function public.console_token_stats() to service_role;
