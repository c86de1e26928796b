-- What was used, by whom, when and at what cost: roll-ups that the settlement writes, totals of days that are over, and
-- usage brought in from before.

-- ---------------------------------------------------------------------------------------------------------------
-- Usage from before, and totals of days that are over
-- ---------------------------------------------------------------------------------------------------------------

create table governance.imported_usage (
  -- Whose key message_key is: the table it came from, as schema.name.
  source text not null,
  message_key text not null,
  account_id bigint not null,
  at timestamptz not null,
  -- The account's local day then, as usage_daily has it.
  day date not null,
  model text not null,
  conversation_id text,
  task_type text not null default '',
  input_tokens bigint not null check (input_tokens >= 0),
  output_tokens bigint not null check (output_tokens >= 0),
  cost_micros bigint,
  primary key (source, message_key)
);
create index imported_usage_account on governance.imported_usage (account_id, at);
comment on table governance.imported_usage is
  'Messages whose usage was brought in from a chat table (import_usage_history). They count as usage, and were never charged.';

create table governance.usage_imports (
  source text primary key,
  columns jsonb not null,
  -- Where the next batch begins: the last row read, in the order of time and key.
  last_at timestamptz,
  last_key text,
  rows_read bigint not null default 0,
  rows_imported bigint not null default 0,
  -- Rows without a user, a time or tokens.
  rows_skipped bigint not null default 0,
  started_at timestamptz not null,
  updated_at timestamptz not null,
  finished_at timestamptz
);
comment on table governance.usage_imports is 'How far each import has come.';

create table governance.usage_totals (
  day date not null,
  model text not null,
  task_type text not null,
  scope_id text not null,
  calls bigint not null,
  messages bigint not null,
  input_tokens bigint not null,
  output_tokens bigint not null,
  charged_tokens bigint not null,
  cost_micros bigint not null,
  primary key (day, model, task_type, scope_id)
);
comment on table governance.usage_totals is 'Usage of everybody on days that are over everywhere.';

create table governance.usage_days (
  day date primary key,
  active_users bigint not null,
  aggregated_at timestamptz not null
);
comment on table governance.usage_days is 'Days that governance.usage_totals has. A day that an import adds to is taken out, and aggregated again.';

alter table governance.imported_usage enable row level security;
alter table governance.usage_imports enable row level security;
alter table governance.usage_totals enable row level security;
alter table governance.usage_days enable row level security;
revoke all on governance.imported_usage, governance.usage_imports, governance.usage_totals, governance.usage_days from public;

create function governance.aggregate_days(p_limit int default 40) returns int
  language plpgsql set search_path = '' as $$
declare
  -- A day is over everywhere once it is over at UTC-12; a settlement always falls on its account's own today.
  v_open date := (governance.now() - interval '12 hours')::date;
  v_from date;
  v_day date;
  v_days int := 0;
begin
  if not pg_try_advisory_xact_lock(7254013) then return 0; end if;
  select min(d.day) into v_from from governance.usage_daily d;
  for v_day in
    select g::date from generate_series(v_from, v_open - 1, interval '1 day') g
    where not exists (select from governance.usage_days u where u.day = g::date)
    order by g desc limit p_limit
  loop
    delete from governance.usage_totals t where t.day = v_day;
    insert into governance.usage_totals (day, model, task_type, scope_id, calls, messages, input_tokens, output_tokens, charged_tokens, cost_micros)
    select d.day, d.model, d.task_type, d.scope_id, sum(d.calls), sum(d.messages), sum(d.input_tokens), sum(d.output_tokens), sum(d.charged_tokens), sum(d.cost_micros)
    from governance.usage_daily d where d.day = v_day group by 1, 2, 3, 4;
    insert into governance.usage_days (day, active_users, aggregated_at)
    select v_day, count(distinct d.account_id), clock_timestamp() from governance.usage_daily d where d.day = v_day;
    v_days := v_days + 1;
  end loop;
  return v_days;
end
$$;
comment on function governance.aggregate_days(int) is 'Aggregates days that are over and not yet in usage_totals, the latest first; answers how many.';

-- ---------------------------------------------------------------------------------------------------------------
-- Usage of one account
-- ---------------------------------------------------------------------------------------------------------------

create function governance.check_period(p_start timestamptz, p_end timestamptz) returns void
  language plpgsql immutable set search_path = '' as $$
begin
  if p_start is null or p_end is null or not isfinite(p_start) or not isfinite(p_end) or p_start >= p_end
    or p_start < '1900-01-01 00:00:00Z' or p_end > '2200-01-01 00:00:00Z' then
    perform governance.fail('PT400', 'invalid_argument', 'A period is needed: p_start before p_end, between the years 1900 and 2200');
  end if;
end
$$;
comment on function governance.check_period(timestamptz, timestamptz) is 'Refuses a period that is none.';

create function governance.account_usage(p_account_id bigint, p_start timestamptz, p_end timestamptz)
  returns table (day date, model text, task_type text, scope_id text, calls bigint, messages bigint, input_tokens bigint, output_tokens bigint,
    charged_tokens bigint, cost_micros bigint, last_activity_at timestamptz)
  language plpgsql stable set search_path = '' as $$
declare
  v_zone text;
  v_first date;
  v_last date;
  v_edges tstzrange[] := '{}';
  v_edge tstzrange;
begin
  select a.timezone into v_zone from governance.accounts a where a.account_id = p_account_id;
  -- Whole local days are in the roll-up; what the period has of other days is read call by call.
  v_first := (p_start at time zone v_zone)::date;
  if v_first::timestamp at time zone v_zone < p_start then v_first := v_first + 1; end if;
  v_last := (p_end at time zone v_zone)::date - 1;
  if v_first > v_last then
    -- No whole day in it: one stretch, or two on both sides of midnight.
    v_edges := array[tstzrange(p_start, p_end)];
  else
    if p_start < v_first::timestamp at time zone v_zone then
      v_edges := v_edges || tstzrange(p_start, v_first::timestamp at time zone v_zone);
    end if;
    if (v_last + 1)::timestamp at time zone v_zone < p_end then
      v_edges := v_edges || tstzrange((v_last + 1)::timestamp at time zone v_zone, p_end);
    end if;
    return query
      select d.day, d.model, d.task_type, d.scope_id, d.calls::bigint, d.messages::bigint, d.input_tokens, d.output_tokens, d.charged_tokens, d.cost_micros, d.last_activity_at
      from governance.usage_daily d where d.account_id = p_account_id and d.day between v_first and v_last;
  end if;
  foreach v_edge in array v_edges loop
    return query
      -- A call counts when it settles, which is within its hold, or later where its settlement came late.
      select (r.ended_at at time zone v_zone)::date, coalesce(r.settled_model, r.model), coalesce(r.task_type, ''), coalesce(r.scope_id, ''),
        1::bigint, (r.message_hash is not null)::int::bigint, r.input_tokens, r.output_tokens, r.charged_tokens, coalesce(r.cost_micros, 0), r.ended_at
      from governance.requests r
      where r.account_id = p_account_id and r.created_at < upper(v_edge) and r.created_at >= lower(v_edge) - interval '8 days'
        and r.status = 'settled' and r.ended_at <@ v_edge;
    return query
      select (u.at at time zone v_zone)::date, u.model, u.task_type, ''::text, 1::bigint, 1::bigint, u.input_tokens, u.output_tokens, 0::bigint, coalesce(u.cost_micros, 0), u.at
      from governance.imported_usage u
      where u.account_id = p_account_id and u.at >= lower(v_edge) and u.at < upper(v_edge);
  end loop;
end
$$;
comment on function governance.account_usage(bigint, timestamptz, timestamptz) is
  'Settled and imported usage of an account in a period: whole local days from the roll-up, the rest call by call.';

create function governance.count_conversations(p_account_id bigint, p_start timestamptz, p_end timestamptz) returns bigint
  language sql stable set search_path = '' as $$
  select count(*) from (
    select r.conversation_id from governance.requests r
    where r.account_id = p_account_id and r.created_at >= p_start and r.created_at < p_end and r.conversation_id is not null and r.decision <> 'block'
    union
    select u.conversation_id from governance.imported_usage u
    where u.account_id = p_account_id and u.at >= p_start and u.at < p_end and u.conversation_id is not null) c
$$;
comment on function governance.count_conversations(bigint, timestamptz, timestamptz) is 'Conversations in which an account made calls in a period, as far back as calls are kept.';

create function governance.account_usage_json(p_account_id bigint, p_start timestamptz, p_end timestamptz) returns jsonb
  language sql stable set search_path = '' as $$
  with usage as materialized (select * from governance.account_usage(p_account_id, p_start, p_end))
  select jsonb_build_object(
    'prompt_tokens', coalesce(sum(u.input_tokens), 0),
    'completion_tokens', coalesce(sum(u.output_tokens), 0),
    'total_tokens', coalesce(sum(u.input_tokens + u.output_tokens), 0),
    'charged_tokens', coalesce(sum(u.charged_tokens), 0),
    'call_count', coalesce(sum(u.calls), 0),
    'message_count', coalesce(sum(u.messages), 0),
    'conversation_count', governance.count_conversations(p_account_id, p_start, p_end),
    'last_activity', max(u.last_activity_at),
    'cost_micros', coalesce(sum(u.cost_micros), 0),
    'currency', (select c.currency from governance.active_config c),
    'by_day', (select coalesce(jsonb_agg(to_jsonb(d) order by d.day), '[]') from (
      select x.day, sum(x.input_tokens) as prompt_tokens, sum(x.output_tokens) as completion_tokens, sum(x.input_tokens + x.output_tokens) as total_tokens,
        sum(x.messages) as message_count, sum(x.cost_micros) as cost_micros, sum(x.charged_tokens) as charged_tokens, sum(x.calls) as call_count
      from usage x group by 1) d),
    'by_model', (select coalesce(jsonb_agg(to_jsonb(m) order by m.total_tokens desc, m.model), '[]') from (
      select x.model, sum(x.input_tokens + x.output_tokens) as total_tokens, sum(x.cost_micros) as cost_micros,
        sum(x.input_tokens) as prompt_tokens, sum(x.output_tokens) as completion_tokens, sum(x.calls) as call_count
      from usage x group by 1) m),
    'by_task_type', (select coalesce(jsonb_agg(to_jsonb(t) order by t.total_tokens desc, t.task_type), '[]') from (
      select nullif(x.task_type, '') as task_type, sum(x.input_tokens + x.output_tokens) as total_tokens, sum(x.cost_micros) as cost_micros, sum(x.calls) as call_count
      from usage x group by 1) t),
    'by_scope', (select coalesce(jsonb_agg(to_jsonb(s) order by s.total_tokens desc, s.scope_id), '[]') from (
      select nullif(x.scope_id, '') as scope_id, sum(x.input_tokens + x.output_tokens) as total_tokens, sum(x.cost_micros) as cost_micros, sum(x.calls) as call_count
      from usage x group by 1) s))
  from usage u
$$;
comment on function governance.account_usage_json(bigint, timestamptz, timestamptz) is 'What calculate_user_token_usage answers.';

create function public.calculate_user_token_usage(p_user_id text, p_start timestamptz, p_end timestamptz) returns jsonb
  language plpgsql stable security definer set search_path = '' set jit = off as $$
declare
  v_account_id bigint;
begin
  perform governance.check_id('p_user_id', p_user_id);
  perform governance.check_period(p_start, p_end);
  select a.account_id into v_account_id from governance.accounts a where a.user_id = p_user_id;
  if v_account_id is null then
    perform governance.fail('PT404', 'unknown_user', format('There is no account of user "%s"', left(p_user_id, 64)));
  end if;
  return governance.account_usage_json(v_account_id, p_start, p_end);
end
$$;
comment on function public.calculate_user_token_usage(text, timestamptz, timestamptz) is
  'What a user used from p_start up to p_end: tokens, messages, conversations, cost, by local day, model, task type and scope. A call counts when it settled. Errors: invalid_argument, unknown_user.';
revoke all on function public.calculate_user_token_usage(text, timestamptz, timestamptz) from public, anon, authenticated;
grant execute on function public.calculate_user_token_usage(text, timestamptz, timestamptz) to service_role;

create function public.user_token_usage(p_user_id text, p_period text default 'day', p_start date default null, p_end date default null)
  returns table (user_id text, period_start date, period_end date, prompt_tokens bigint, completion_tokens bigint, total_tokens bigint,
    message_count bigint, conversation_count bigint, cost_micros bigint, currency text, last_activity timestamptz)
  language plpgsql stable security definer set search_path = '' set jit = off as $$
declare
  v_account_id bigint;
  v_zone text;
  v_today date;
  v_start date;
  v_end date;
  v_currency text := (select c.currency from governance.active_config c);
begin
  perform governance.check_id('p_user_id', p_user_id);
  if p_period is null or p_period not in ('day', 'week', 'month') then
    perform governance.fail('PT400', 'invalid_argument', 'p_period is day, week or month');
  end if;
  select a.account_id, a.timezone into v_account_id, v_zone from governance.accounts a where a.user_id = p_user_id;
  if v_account_id is null then
    perform governance.fail('PT404', 'unknown_user', format('There is no account of user "%s"', left(p_user_id, 64)));
  end if;
  v_today := (governance.now() at time zone v_zone)::date;
  v_end := coalesce(p_end, v_today);
  v_start := coalesce(p_start, v_end - case p_period when 'day' then 29 when 'week' then 83 else 364 end);
  if not isfinite(v_start) or not isfinite(v_end) or v_start > v_end or v_start < '1900-01-01' or v_end > '2199-12-31'
    or v_end - v_start > 3660 then
    perform governance.fail('PT400', 'invalid_argument', 'p_start and p_end are days, at most ten years apart');
  end if;
  v_start := date_trunc(p_period, v_start::timestamp)::date;
  return query
    select p_user_id, p.first, (p.next - 1), coalesce(sum(d.input_tokens), 0)::bigint, coalesce(sum(d.output_tokens), 0)::bigint,
      coalesce(sum(d.input_tokens + d.output_tokens), 0)::bigint, coalesce(sum(d.messages), 0)::bigint,
      governance.count_conversations(v_account_id, p.first::timestamp at time zone v_zone, p.next::timestamp at time zone v_zone),
      coalesce(sum(d.cost_micros), 0)::bigint, v_currency, max(d.last_activity_at)
    from (select g::date as first, (g + ('1 ' || p_period)::interval)::date as next
      from generate_series(v_start::timestamp, v_end::timestamp, ('1 ' || p_period)::interval) g) p
    left join governance.usage_daily d on d.account_id = v_account_id and d.day >= p.first and d.day < p.next
    group by p.first, p.next order by p.first;
end
$$;
comment on function public.user_token_usage(text, text, date, date) is
  'A user''s usage by day, week (from Monday) or month of their own zone, oldest first, without gaps. Errors: invalid_argument, unknown_user.';
revoke all on function public.user_token_usage(text, text, date, date) from public, anon, authenticated;
grant execute on function public.user_token_usage(text, text, date, date) to service_role;

create function public.get_or_create_token_record(p_user_id text) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_account governance.accounts;
  v_limit bigint;
begin
  perform governance.check_id('p_user_id', p_user_id);
  v_account := governance.current_account(p_user_id, true);
  select p.daily_limit into v_limit from governance.plans p where p.plan_id = v_account.plan_id;
  return jsonb_build_object(
    'tokens_used', v_account.day_tokens + v_account.reserved_tokens,
    'tokens_limit', v_limit,
    'tokens_remaining', case when v_limit is not null then greatest(v_limit - v_account.day_tokens - v_account.reserved_tokens, 0) end,
    'resets_at', v_account.day_ends_at,
    'user_id', v_account.user_id, 'plan_id', v_account.plan_id, 'date', v_account.local_day, 'timezone', v_account.timezone,
    'messages_sent', v_account.day_messages, 'cost_micros', v_account.day_cost_micros,
    'available', v_account.subscription_tokens + v_account.purchased_tokens + v_account.promotional_tokens - v_account.reserved_tokens);
end
$$;
comment on function public.get_or_create_token_record(text) is
  'The user''s day: tokens used (held ones included), limit and remaining (null without a limit), when it starts anew. A new user gets an account. Errors: invalid_argument, not_configured.';
revoke all on function public.get_or_create_token_record(text) from public, anon, authenticated;
grant execute on function public.get_or_create_token_record(text) to service_role;

-- ---------------------------------------------------------------------------------------------------------------
-- Users about themselves
-- ---------------------------------------------------------------------------------------------------------------

create function governance.alert_retention() returns interval
  language sql stable set search_path = '' as $$
  select coalesce((select case when jsonb_typeof(s.value) = 'number' then least(greatest((s.value #>> '{}')::numeric, 1), 8784)::int end
    from governance.settings s where s.key = 'alert_retention_hours'), 24) * interval '1 hour'
$$;
comment on function governance.alert_retention() is 'How long an alert is shown: the setting alert_retention_hours, 24 unless said.';

create function governance.my_account() returns governance.accounts
  language plpgsql set search_path = '' as $$
declare
  v_claims jsonb;
  v_user_id text;
begin
  begin
    v_claims := nullif(current_setting('request.jwt.claims', true), '')::jsonb;
    v_user_id := case when jsonb_typeof(v_claims -> 'sub') = 'string' then v_claims ->> 'sub' end;
  exception when data_exception then
    v_user_id := null;
  end;
  if v_user_id is null or btrim(v_user_id) = '' or char_length(v_user_id) > 255 then
    perform governance.fail('PT401', 'not_signed_in', 'Sign in first: the token names no user');
  end if;
  return governance.current_account(v_user_id, true);
end
$$;
comment on function governance.my_account() is 'The account of whom the request''s token names (sub). One who is new gets an account, as at a first call.';

create function public.my_token_balance() returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_account governance.accounts := governance.my_account();
  v_plan governance.plans;
  v_percent int;
  v_reached int;
  v_available bigint;
begin
  select * into strict v_plan from governance.plans p where p.plan_id = v_account.plan_id;
  v_available := v_account.subscription_tokens + v_account.purchased_tokens + v_account.promotional_tokens - v_account.reserved_tokens;
  v_percent := governance.percent_used(v_account.day_tokens + v_account.reserved_tokens, v_account.month_tokens + v_account.reserved_tokens,
    v_plan.daily_limit, v_plan.monthly_limit, v_plan.monthly_allowance);
  select max(w) into v_reached from unnest(v_plan.warn_at) w where w <= v_percent;
  return jsonb_build_object(
    'tokens', v_available,
    'plan', v_account.plan_id,
    'plan_name', v_plan.name,
    'balance', governance.account_json(v_account) -> 'balance',
    'limits', governance.account_json(v_account) -> 'limits',
    'usage_percent', v_percent,
    'warning', case
      when v_available < (select c.low_balance_tokens from governance.active_config c) then
        jsonb_build_object('type', 'low_balance', 'message', format('You have %s tokens left.', v_available))
      when v_reached is not null then
        jsonb_build_object('type', 'usage', 'percent', v_reached, 'message', format('You have used %s%% of your tokens.', v_reached)) end,
    'packs', case when v_plan.allows_top_up then (
      select coalesce(jsonb_agg(jsonb_build_object('pack_id', k.pack_id, 'tokens', k.tokens, 'price_minor', k.price_minor, 'currency', k.currency) order by k.tokens, k.pack_id), '[]')
      from governance.packs k where k.retired_at is null and (k.plans is null or v_account.plan_id = any (k.plans))) else '[]' end,
    'upgrade', (select jsonb_build_object('plan_id', u.plan_id, 'name', u.name) from governance.plans u where u.plan_id = v_plan.upgrade_to and u.retired_at is null),
    'is_blocked', governance.account_json(v_account) -> 'is_blocked');
end
$$;
comment on function public.my_token_balance() is
  'The signed-in user''s tokens, plan, limits, a warning where there is one, and the packs they may buy. Errors: not_signed_in, not_configured.';
revoke all on function public.my_token_balance() from public, anon, authenticated;
grant execute on function public.my_token_balance() to authenticated;

create function public.my_token_usage(p_days int default 7) returns jsonb
  language plpgsql security definer set search_path = '' set jit = off as $$
declare
  v_account governance.accounts;
  v_today date;
  v_usage jsonb;
begin
  if p_days is null or p_days not between 1 and 366 then
    perform governance.fail('PT400', 'invalid_argument', 'p_days is a whole number from 1 to 366');
  end if;
  v_account := governance.my_account();
  v_today := (governance.now() at time zone v_account.timezone)::date;
  v_usage := governance.account_usage_json(v_account.account_id, (v_today - p_days + 1)::timestamp at time zone v_account.timezone,
    (v_today + 1)::timestamp at time zone v_account.timezone);
  return v_usage || jsonb_build_object(
    'byTaskType', (select coalesce(jsonb_object_agg(coalesce(t ->> 'task_type', 'other'), t -> 'total_tokens'), '{}') from jsonb_array_elements(v_usage -> 'by_task_type') t),
    'byDate', (select coalesce(jsonb_agg(jsonb_build_object('date', d -> 'day', 'tokens', d -> 'total_tokens') order by d ->> 'day'), '[]') from jsonb_array_elements(v_usage -> 'by_day') d),
    'totalTokens', v_usage -> 'total_tokens',
    'avgPerDay', (v_usage ->> 'total_tokens')::bigint / p_days,
    'cost_today_micros', v_account.day_cost_micros,
    'cost_this_month_micros', v_account.month_cost_micros,
    'days', p_days);
end
$$;
comment on function public.my_token_usage(int) is
  'The signed-in user''s usage of the last p_days (1 to 366) local days, today included, by day, model and task type. Errors: not_signed_in, invalid_argument, not_configured.';
revoke all on function public.my_token_usage(int) from public, anon, authenticated;
grant execute on function public.my_token_usage(int) to authenticated;

create function public.my_token_alerts() returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_account governance.accounts := governance.my_account();
begin
  return (
    select coalesce(jsonb_agg(jsonb_build_object('type', e.kind, 'severity', e.severity, 'message', e.message,
      'details', e.details || jsonb_build_object('threshold', e.threshold, case e.kind when 'low_balance' then 'balance' else 'value' end, e.value),
      'created_at', e.created_at) order by e.created_at desc, e.alert_event_id desc), '[]')
    from (select * from governance.alert_events x
      where x.account_id = v_account.account_id and x.created_at > governance.now() - governance.alert_retention()
      order by x.created_at desc limit 100) e);
end
$$;
comment on function public.my_token_alerts() is
  'Alerts about the signed-in user that are still kept (24 hours, or the setting alert_retention_hours), newest first. Errors: not_signed_in, not_configured.';
revoke all on function public.my_token_alerts() from public, anon, authenticated;
grant execute on function public.my_token_alerts() to authenticated;

-- ---------------------------------------------------------------------------------------------------------------
-- Everybody's usage
-- ---------------------------------------------------------------------------------------------------------------

create function public.console_usage_totals(p_days int default 30) returns jsonb
  language plpgsql security definer set search_path = '' set jit = off as $$
declare
  v_today date := (governance.now() at time zone 'UTC')::date;
  -- The world's latest day may be one ahead of UTC's.
  v_to date := v_today + 1;
  v_from date := v_today - p_days + 1;
  v_answer jsonb;
begin
  if p_days is null or p_days not between 1 and 366 then
    perform governance.fail('PT400', 'invalid_argument', 'p_days is a whole number from 1 to 366');
  end if;
  perform governance.follow_events(2000);
  with usage as materialized (
    select t.day, t.model, t.task_type, t.scope_id, t.calls, t.messages, t.input_tokens, t.output_tokens, t.charged_tokens, t.cost_micros
    from governance.usage_totals t join governance.usage_days u using (day) where t.day between v_from and v_to
    union all
    select d.day, d.model, d.task_type, d.scope_id, sum(d.calls), sum(d.messages), sum(d.input_tokens), sum(d.output_tokens), sum(d.charged_tokens), sum(d.cost_micros)
    from governance.usage_daily d
    where d.day in (select g::date from generate_series(v_from, v_to, interval '1 day') g where not exists (select from governance.usage_days u where u.day = g::date))
    group by 1, 2, 3, 4
  ), days as (
    select g::date as day from generate_series(v_from, v_to, interval '1 day') g
    where g::date <= v_today or exists (select from usage u where u.day = g::date)
  )
  select jsonb_build_object(
    'from', v_from, 'to', (select max(d.day) from days d),
    'currency', (select c.currency from governance.active_config c),
    'calls', coalesce(sum(u.calls), 0), 'messages', coalesce(sum(u.messages), 0),
    'prompt_tokens', coalesce(sum(u.input_tokens), 0), 'completion_tokens', coalesce(sum(u.output_tokens), 0),
    'total_tokens', coalesce(sum(u.input_tokens + u.output_tokens), 0), 'charged_tokens', coalesce(sum(u.charged_tokens), 0),
    'cost_micros', coalesce(sum(u.cost_micros), 0),
    'by_day', (select jsonb_agg(to_jsonb(x) order by x.day) from (
      select d.day, coalesce(sum(y.calls), 0) as calls, coalesce(sum(y.messages), 0) as messages, coalesce(sum(y.input_tokens), 0) as prompt_tokens,
        coalesce(sum(y.output_tokens), 0) as completion_tokens, coalesce(sum(y.input_tokens + y.output_tokens), 0) as total_tokens,
        coalesce(sum(y.cost_micros), 0) as cost_micros,
        (select a.active_users from governance.usage_days a where a.day = d.day) as active_users
      from days d left join usage y using (day) group by 1) x),
    'by_model', (select coalesce(jsonb_agg(to_jsonb(x) order by x.cost_micros desc, x.total_tokens desc, x.model), '[]') from (
      select y.model, sum(y.calls) as calls, sum(y.input_tokens + y.output_tokens) as total_tokens, sum(y.cost_micros) as cost_micros from usage y group by 1 order by 4 desc, 3 desc limit 100) x),
    'by_task_type', (select coalesce(jsonb_agg(to_jsonb(x) order by x.total_tokens desc, x.task_type), '[]') from (
      select nullif(y.task_type, '') as task_type, sum(y.calls) as calls, sum(y.input_tokens + y.output_tokens) as total_tokens, sum(y.cost_micros) as cost_micros from usage y group by 1 order by 3 desc limit 100) x),
    'by_scope', (select coalesce(jsonb_agg(to_jsonb(x) order by x.total_tokens desc, x.scope_id), '[]') from (
      select nullif(y.scope_id, '') as scope_id, sum(y.calls) as calls, sum(y.input_tokens + y.output_tokens) as total_tokens, sum(y.cost_micros) as cost_micros from usage y group by 1 order by 3 desc limit 100) x),
    'top_users', (select coalesce(jsonb_agg(jsonb_build_object('user_id', a.user_id, 'display_name', a.display_name, 'plan_id', a.plan_id,
        'cost_this_month_micros', x.cost_this_month, 'tokens_this_month', x.tokens_this_month) order by x.cost_this_month desc, a.user_id), '[]')
      from (select * from governance.account_listings l where l.cost_this_month > 0 order by l.cost_this_month desc, l.account_id desc limit 20) x
      join governance.accounts a using (account_id)))
  into v_answer
  from usage u;
  return v_answer;
end
$$;
comment on function public.console_usage_totals(int) is
  'Everybody''s usage and cost over the last p_days (1 to 366), by day, model, task type and scope, and whose cost is highest this month. Errors: invalid_argument.';
revoke all on function public.console_usage_totals(int) from public, anon, authenticated;
grant execute on function public.console_usage_totals(int) to service_role;

create function public.console_token_stats() returns jsonb
  language plpgsql security definer set search_path = '' set jit = off as $$
begin
  perform governance.follow_events(2000);
  return (select jsonb_build_object(
    'totalUsersWithTokens', count(*) filter (where l.available > 0),
    'avgBalancePerUser', coalesce(div(sum(l.available) filter (where l.available > 0), nullif(count(*) filter (where l.available > 0), 0)), 0),
    'totalTokensUsedToday', (select coalesce(sum(d.input_tokens + d.output_tokens), 0) from governance.usage_daily d
      where d.day = (governance.now() at time zone 'UTC')::date),
    'lowBalanceUsers', count(*) filter (where l.available < (select c.low_balance_tokens from governance.active_config c)),
    'activeAlerts', governance.count_open_alerts())
  from governance.account_listings l);
end
$$;
comment on function public.console_token_stats() is 'Users with tokens, their average balance, tokens used today (local days, by UTC''s date), users whose balance is low, open alerts.';
revoke all on function public.console_token_stats() from public, anon, authenticated;
grant execute on function public.console_token_stats() to service_role;

-- ---------------------------------------------------------------------------------------------------------------
-- Usage from before: a chat table of the project's own, read and never written
-- ---------------------------------------------------------------------------------------------------------------

create function governance.try_jsonb(p_text text) returns jsonb
  language plpgsql immutable set search_path = '' as $$
begin
  return p_text::jsonb;
exception when data_exception or program_limit_exceeded or statement_too_complex then
  return null;
end
$$;
comment on function governance.try_jsonb(text) is 'The JSON of a text; null if it is none.';

create function governance.token_count(p_value jsonb) returns bigint
  language sql immutable set search_path = '' as $$
  select case when (p_value #>> '{}') ~ '^\d{1,15}(\.0+)?$' then (p_value #>> '{}')::numeric::bigint end
$$;
comment on function governance.token_count(jsonb) is 'A whole number of tokens, from a number or a text; null if it is none.';

create function governance.read_usage(p_metadata jsonb, out input_tokens bigint, out output_tokens bigint, out model text)
  language plpgsql immutable set search_path = '' as $$
declare
  v_at jsonb;
  v_total bigint;
begin
  -- Where the counts lie: in the metadata itself, or in one of the objects that frameworks put them into.
  for v_at in
    select x.v from (values (1, p_metadata), (2, p_metadata -> 'usage'), (3, p_metadata -> 'token_usage'), (4, p_metadata -> 'tokenUsage'),
      (5, p_metadata -> 'metrics'), (6, p_metadata -> 'metadata'), (7, p_metadata -> 'response' -> 'usage')) x(n, v)
    where jsonb_typeof(x.v) = 'object' order by x.n
  loop
    input_tokens := coalesce(governance.token_count(v_at -> 'prompt_tokens'), governance.token_count(v_at -> 'input_tokens'),
      governance.token_count(v_at -> 'promptTokens'), governance.token_count(v_at -> 'inputTokens'));
    output_tokens := coalesce(governance.token_count(v_at -> 'completion_tokens'), governance.token_count(v_at -> 'output_tokens'),
      governance.token_count(v_at -> 'completionTokens'), governance.token_count(v_at -> 'outputTokens'));
    v_total := coalesce(governance.token_count(v_at -> 'total_tokens'), governance.token_count(v_at -> 'totalTokens'),
      governance.token_count(v_at -> 'tokensUsed'), governance.token_count(v_at -> 'tokens_used'));
    if coalesce(input_tokens, output_tokens, v_total) is not null then
      -- A total alone says nothing of its parts: it counts as input, which costs least.
      input_tokens := coalesce(input_tokens, greatest(v_total - coalesce(output_tokens, 0), 0), 0);
      output_tokens := coalesce(output_tokens, greatest(v_total - input_tokens, 0), 0);
      model := coalesce(nullif(v_at ->> 'model', ''), nullif(p_metadata ->> 'model', ''), nullif(p_metadata ->> 'model_used', ''), nullif(p_metadata ->> 'modelUsed', ''));
      return;
    end if;
  end loop;
  input_tokens := null;
  output_tokens := null;
end
$$;
comment on function governance.read_usage(jsonb) is 'Tokens and model of a chat message''s metadata; null where it has none.';

create function governance.cost_of(p_model text, p_at timestamptz, p_input bigint, p_output bigint) returns bigint
  language sql stable set search_path = '' as $$
  select div(p_input::numeric * p.input_micros_per_million + p_output::numeric * p.output_micros_per_million + 500000, 1000000)::bigint
  from governance.prices p
  where p.model = p_model and p.effective_from <= p_at and (p.retired_at is null or p.retired_at > p_at)
  order by p.effective_from desc, p.provider collate "C" limit 1
$$;
comment on function governance.cost_of(text, timestamptz, bigint, bigint) is 'Cost of plain input and output tokens at a moment''s price, in micro-units; null if none is known.';

create function public.import_usage_history(p_table text, p_columns jsonb default '{}', p_batch int default 1000, p_restart boolean default false) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_table regclass;
  v_kind "char";
  v_schema text;
  v_source text;
  v_columns jsonb := '{"id":"id","user_id":"user_id","created_at":"created_at","metadata":"metadata"}';
  v_key text;
  v_name text;
  v_types jsonb := '{}';
  v_import governance.usage_imports;
  v_user text;
  v_rows jsonb;
  v_read int;
  v_done int;
  v_last text;
  v_now timestamptz := governance.now();
begin
  perform governance.check_id('p_table', p_table, 255);
  if p_batch is null or p_batch not between 1 and 10000 then
    perform governance.fail('PT400', 'invalid_argument', 'p_batch is a whole number from 1 to 10000');
  end if;
  begin
    v_table := to_regclass(p_table);
  exception when others then
    v_table := null;
  end;
  select c.relkind, n.nspname, format('%I.%I', n.nspname, c.relname) into v_kind, v_schema, v_source
  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = v_table;
  if v_table is null or v_kind not in ('r', 'p', 'v', 'm', 'f') or v_schema in ('governance', 'pg_catalog', 'information_schema') or v_schema like 'pg\_%' then
    perform governance.fail('PT404', 'not_found', format('There is no table or view "%s" to read: name it as schema.table', left(p_table, 64)));
  end if;
  if p_columns is null or jsonb_typeof(p_columns) <> 'object' then
    perform governance.fail('PT400', 'invalid_argument', 'p_columns is a JSON object');
  end if;
  v_columns := v_columns || p_columns;
  for v_key, v_name in select * from jsonb_each_text(v_columns) loop
    if v_key not in ('id', 'user_id', 'created_at', 'metadata', 'conversation_id', 'model', 'task_type') then
      perform governance.fail('PT400', 'invalid_argument', format('p_columns.%s is unknown: id, user_id, created_at, metadata, conversation_id, model, task_type are', left(v_key, 64)));
    end if;
    continue when v_name is null and v_key in ('conversation_id', 'model', 'task_type');
    v_types := v_types || coalesce((
      select jsonb_build_object(v_key, pg_catalog.format_type(a.atttypid, null)) from pg_catalog.pg_attribute a
      where a.attrelid = v_table and a.attname = v_name and a.attnum > 0 and not a.attisdropped), '{}');
    if v_types -> v_key is null then
      perform governance.fail('PT400', 'invalid_argument', format('p_columns.%s: %s has no column "%s"', v_key, v_source, left(v_name, 64)));
    end if;
  end loop;
  if v_types ->> 'created_at' not in ('timestamp with time zone', 'timestamp without time zone') then
    perform governance.fail('PT400', 'invalid_argument', 'p_columns.created_at names no timestamp');
  end if;
  -- Batches go by the key: without order or with twins a row would be lost between two of them.
  if v_types ->> 'id' not in ('bigint', 'integer', 'smallint', 'uuid', 'text', 'character varying', 'timestamp with time zone') then
    perform governance.fail('PT400', 'invalid_argument', 'p_columns.id names no whole number, uuid or text');
  end if;
  if v_kind in ('r', 'p') and not exists (
    select from pg_catalog.pg_index i join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
    where i.indrelid = v_table and i.indisunique and i.indisvalid and i.indpred is null and i.indnkeyatts = 1 and a.attname = v_columns ->> 'id') then
    perform governance.fail('PT400', 'invalid_argument', format('p_columns.id: "%s" is not unique in %s', left(v_columns ->> 'id', 64), v_source));
  end if;

  -- One batch at a time of one source.
  perform pg_advisory_xact_lock(hashtextextended('import ' || v_source, 7254));
  insert into governance.usage_imports as u (source, columns, started_at, updated_at) values (v_source, v_columns, v_now, v_now)
  on conflict (source) do update set updated_at = v_now,
    last_key = case when p_restart or u.columns <> v_columns then null else u.last_key end,
    rows_read = case when p_restart or u.columns <> v_columns then 0 else u.rows_read end,
    rows_skipped = case when p_restart or u.columns <> v_columns then 0 else u.rows_skipped end,
    finished_at = null, columns = v_columns
  returning * into v_import;

  begin
    execute format($q$
    select coalesce(jsonb_agg(to_jsonb(x) order by x.n), '[]'), count(*), (array_agg(x.key order by x.n desc))[1]
    from (
      select row_number() over (order by t.%1$I) as n, t.%1$I::text as key, left(t.%2$I::text, 300) as user_id, %3$s as at,
        governance.read_usage(governance.try_jsonb(t.%4$I::text)) as usage, %5$s as conversation_id, %6$s as model, %7$s as task_type
      from %8$s t
      where %9$s
      order by t.%1$I limit %10$s) x
    $q$,
    v_columns ->> 'id', v_columns ->> 'user_id',
    case v_types ->> 'created_at' when 'timestamp without time zone' then format('t.%I at time zone ''UTC''', v_columns ->> 'created_at') else format('t.%I', v_columns ->> 'created_at') end,
    v_columns ->> 'metadata',
    case when v_types ? 'conversation_id' then format('left(t.%I::text, 255)', v_columns ->> 'conversation_id') else 'null::text' end,
    case when v_types ? 'model' then format('left(t.%I::text, 200)', v_columns ->> 'model') else 'null::text' end,
    case when v_types ? 'task_type' then format('left(t.%I::text, 255)', v_columns ->> 'task_type') else 'null::text' end,
    v_source,
    case when v_import.last_key is not null then format('t.%I > %L::%s', v_columns ->> 'id', v_import.last_key, v_types ->> 'id') else 'true' end,
    p_batch)
  into v_rows, v_read, v_last;
  exception when insufficient_privilege then
    perform governance.fail('PT403', 'not_readable', format('The owner of the governance schema may not read %s: grant it select', v_source));
  end;

  -- Whose usage it is: a user of before who made no call yet gets an account, as at a first call.
  for v_user in
    select distinct x ->> 'user_id' from jsonb_array_elements(v_rows) x
    where x -> 'usage' ->> 'input_tokens' is not null and btrim(coalesce(x ->> 'user_id', '')) <> '' and char_length(x ->> 'user_id') <= 255
      and x ->> 'at' is not null and isfinite((x ->> 'at')::timestamptz)
      and not exists (select from governance.accounts a where a.user_id = x ->> 'user_id')
    order by 1
  loop
    perform governance.lock_account(v_user, true);
  end loop;
  with new_rows as (
    insert into governance.imported_usage (source, message_key, account_id, at, day, model, conversation_id, task_type, input_tokens, output_tokens, cost_micros)
    select v_source, x.key, a.account_id, x.at, (x.at at time zone a.timezone)::date, m.model, nullif(x.conversation_id, ''), coalesce(x.task_type, ''),
      (x.usage ->> 'input_tokens')::bigint, (x.usage ->> 'output_tokens')::bigint,
      governance.cost_of(m.model, x.at, (x.usage ->> 'input_tokens')::bigint, (x.usage ->> 'output_tokens')::bigint)
    from jsonb_to_recordset(v_rows) x(key text, user_id text, at timestamptz, usage jsonb, conversation_id text, model text, task_type text)
    join governance.accounts a on a.user_id = x.user_id
    cross join lateral (select left(coalesce(nullif(x.model, ''), x.usage ->> 'model', 'unknown'), 200) as model) m
    where x.usage ->> 'input_tokens' is not null and x.at between '1900-01-01' and '2200-01-01'
    on conflict do nothing
    returning *
  ), counted as (
    insert into governance.usage_daily as d (account_id, day, model, task_type, scope_id, calls, messages, input_tokens, output_tokens, charged_tokens, cost_micros, last_activity_at)
    select n.account_id, n.day, n.model, n.task_type, '', count(*), count(*), sum(n.input_tokens), sum(n.output_tokens), 0, coalesce(sum(n.cost_micros), 0), max(n.at)
    from new_rows n group by 1, 2, 3, 4
    on conflict (account_id, day, model, task_type, scope_id) do update set
      calls = d.calls + excluded.calls, messages = d.messages + excluded.messages, input_tokens = d.input_tokens + excluded.input_tokens,
      output_tokens = d.output_tokens + excluded.output_tokens, cost_micros = d.cost_micros + excluded.cost_micros,
      last_activity_at = greatest(d.last_activity_at, excluded.last_activity_at)
  ), reopened as (
    delete from governance.usage_days u where u.day in (select n.day from new_rows n)
  )
  select count(*) into v_done from new_rows;

  update governance.usage_imports u set
    last_key = coalesce(v_last, u.last_key), rows_read = u.rows_read + v_read, rows_imported = u.rows_imported + v_done,
    rows_skipped = u.rows_skipped + (select count(*) from jsonb_array_elements(v_rows) x where not exists (
      select from governance.imported_usage i where i.source = v_source and i.message_key = x ->> 'key')),
    finished_at = case when v_read < p_batch then v_now end
  where u.source = v_source returning * into v_import;
  return jsonb_build_object('source', v_source, 'batch_read', v_read, 'batch_imported', v_done, 'rows_read', v_import.rows_read,
    'rows_imported', v_import.rows_imported, 'rows_skipped', v_import.rows_skipped, 'finished', v_import.finished_at is not null);
end
$$;
comment on function public.import_usage_history(text, jsonb, int, boolean) is
  'Reads one batch of a chat table or view (schema.name) whose metadata holds token counts, and counts it as usage; nothing is charged, and the table is only read. p_columns names its columns where they are not id, user_id, created_at, metadata (and conversation_id, model, task_type if it has them). Call it until finished; a message counts once, however often. p_restart reads from the beginning again. Errors: invalid_argument, not_found, not_configured.';
revoke all on function public.import_usage_history(text, jsonb, int, boolean) from public, anon, authenticated;
grant execute on function public.import_usage_history(text, jsonb, int, boolean) to service_role;

revoke all on all functions in schema governance from public;
