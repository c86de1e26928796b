-- What the proofs found outside the path of a call.

-- Reading the server's own list opens every file of its time zone database (20 to 60 ms): once, here, and afterwards
-- only for a zone that was added since.
create table governance.time_zones (
  lower_name text primary key,
  name text not null
);
alter table governance.time_zones enable row level security;
revoke all on governance.time_zones from public;
comment on table governance.time_zones is 'Time zones as the time zone database spells them, by their name in lower case.';
insert into governance.time_zones (lower_name, name)
  select distinct on (lower(n.name)) lower(n.name), n.name from pg_catalog.pg_timezone_names n
  where n.name !~ '^(posix|right)/' order by lower(n.name), n.name collate "C";

create or replace function governance.check_timezone(p_timezone text) returns text
  language plpgsql stable set search_path = '' as $$
declare
  v_name text;
begin
  if p_timezone = 'UTC' then return p_timezone; end if;
  -- Only names of the time zone database: PostgreSQL would also take POSIX rules such as FOO+3.
  if char_length(p_timezone) <= 64 then
    select z.name into v_name from governance.time_zones z where z.lower_name = lower(p_timezone);
    begin
      if v_name is null and now() at time zone p_timezone is not null then
        select n.name into v_name from pg_catalog.pg_timezone_names n
        where lower(n.name) = lower(p_timezone) and n.name !~ '^(posix|right)/' limit 1;
      end if;
    exception when invalid_parameter_value then
      -- The server does not know it at all.
      null;
    end;
  end if;
  if v_name is null then
    perform governance.fail('PT400', 'invalid_argument', format('p_timezone "%s" is not a time zone', left(p_timezone, 64)));
  end if;
  return v_name;
end
$$;

-- ---------------------------------------------------------------------------------------------------------------
-- Totals of days: by UTC, whatever the time zone of the session, and never of a day that an import is adding to
-- ---------------------------------------------------------------------------------------------------------------

create or replace function governance.aggregate_days(p_limit int default 40) returns int
  language plpgsql set search_path = '' as $$
declare
  -- A day is over everywhere once it is over at UTC-12; a settlement always falls on its account's own today.
  v_open date := ((governance.now() - interval '12 hours') at time zone 'UTC')::date;
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

create or replace function public.import_usage_history(p_table text, p_columns jsonb default '{}', p_batch int default 1000, p_restart boolean default false) returns jsonb
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
  -- And no day is aggregated (aggregate_days takes this alone) between what this batch adds to it and the end of this batch.
  perform pg_advisory_xact_lock_shared(7254013);
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
    -- In one order, so that batches of two tables never wait for each other.
    from new_rows n group by 1, 2, 3, 4 order by 1, 2, 3, 4
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

create or replace function public.console_usage_totals(p_days int default 30) returns jsonb
  language plpgsql security definer set search_path = '' set jit = off as $$
declare
  v_today date := (governance.now() at time zone 'UTC')::date;
  -- The world's latest day may be one ahead of UTC's.
  v_to date := v_today + 1;
  v_from date;
  v_answer jsonb;
begin
  if p_days is null or p_days not between 1 and 366 then
    perform governance.fail('PT400', 'invalid_argument', 'p_days is a whole number from 1 to 366');
  end if;
  v_from := v_today - p_days + 1;
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

-- ---------------------------------------------------------------------------------------------------------------
-- Alerts: after upkeep was away, and to whom they are said
-- ---------------------------------------------------------------------------------------------------------------

drop function governance.evaluate_alerts(timestamptz);
create function governance.evaluate_alerts(p_now timestamptz, p_limit int default 5000) returns int
  language plpgsql set search_path = '' as $$
declare
  v_alert governance.cost_alerts;
  v_period record;
  v_value numeric;
  v_reached numeric;
  v_percent boolean;
  v_row record;
  v_raised int := 0;
  v_found int;
  v_is_all boolean := true;
  v_state jsonb;
  v_since timestamptz;
begin
  if not pg_try_advisory_xact_lock(7254015) then return 0; end if;
  -- Accounts that were active since the last look that saw all can have got there; their copies are a little late.
  select s.value into v_state from governance.maintenance_state s where s.key = 'allowance_warnings';
  v_since := least(coalesce((v_state ->> 'since')::timestamptz, (v_state ->> 'at')::timestamptz, '-infinity') - interval '2 minutes', p_now - interval '10 minutes');
  for v_alert in select * from governance.cost_alerts a where a.is_active and a.retired_at is null order by a.alert_id loop
    select * into v_period from governance.alert_period(v_alert.period, p_now);
    if v_alert.metric in ('cost_micros', 'tokens') and v_alert.scope <> 'user' then
      v_value := governance.alert_value(v_alert, p_now);
      v_percent := v_alert.budget is not null;
      select max(t) into v_reached from unnest(v_alert.thresholds) t
      where case when v_percent then v_value * 100 >= t * v_alert.budget else v_value >= t end;
      -- The highest that is reached; those below it were said before, or go without saying.
      continue when v_reached is null or exists (
        select from governance.alert_events e where e.alert_id = v_alert.alert_id and e.period_key = v_period.key and e.threshold >= v_reached);
      v_raised := v_raised + governance.raise_alert(v_alert.alert_id, null, 'budget', case when v_percent and v_reached >= 90 then 'critical' else 'warning' end,
        case when v_percent then format('%s: %s%% of the budget for %s is used', v_alert.alert_name, div(v_value * 100, v_alert.budget), v_period.key)
          else format('%s: %s of %s in %s', v_alert.alert_name, v_value, v_alert.metric, v_period.key) end,
        v_reached, case when v_percent then div(v_value * 100, v_alert.budget) else v_value end, v_period.key,
        jsonb_build_object('alert_name', v_alert.alert_name, 'metric', v_alert.metric, 'scope', v_alert.scope, 'period', v_alert.period,
          'amount', v_value, 'budget', v_alert.budget, 'currency', (select c.currency from governance.active_config c)), p_now);
    elsif v_alert.metric in ('cost_micros', 'tokens') then
      v_found := 0;
      for v_row in
        select a.account_id, a.user_id, u.value, r.reached
        from governance.account_listings l
        join governance.accounts a using (account_id)
        cross join lateral (select coalesce(sum(case v_alert.metric when 'cost_micros' then d.cost_micros else d.charged_tokens end), 0) as value
          from governance.usage_daily d where d.account_id = a.account_id and d.day between v_period.from_day and v_period.to_day) u
        cross join lateral (select max(t) as reached from unnest(v_alert.thresholds) t
          where case when v_alert.budget is not null then u.value * 100 >= t * v_alert.budget else u.value >= t end) r
        where l.last_activity_at > v_since and r.reached is not null and not exists (
          select from governance.alert_events e where e.alert_id = v_alert.alert_id and e.account_id = a.account_id
            and e.period_key = v_period.key and e.threshold >= r.reached)
        limit p_limit
      loop
        v_found := v_found + 1;
        v_raised := v_raised + governance.raise_alert(v_alert.alert_id, v_row.account_id, 'user_budget', 'warning',
          format('%s: %s has used %s (%s)', v_alert.alert_name, v_row.user_id, v_row.value, v_alert.metric), v_row.reached, v_row.value, v_period.key,
          jsonb_build_object('alert_name', v_alert.alert_name, 'metric', v_alert.metric), p_now);
      end loop;
      v_is_all := v_is_all and v_found < p_limit;
    elsif v_alert.metric = 'spike' then
      -- So many times the usual hour of the day before, and enough to matter.
      for v_row in
        select u.account_id, a.user_id, u.now_tokens, u.usual
        from (
          select r.account_id,
            sum(r.tokens) filter (where r.slot > p_now - interval '1 hour') as now_tokens,
            coalesce(sum(r.tokens) filter (where r.slot <= p_now - interval '1 hour'), 0) / 24 as usual
          from governance.recent_usage r where r.slot > p_now - interval '25 hours' group by 1) u
        join governance.accounts a using (account_id)
        where u.now_tokens > (select c.high_usage_tokens from governance.active_config c)
          and u.now_tokens >= v_alert.thresholds[1] * greatest(u.usual, 1)
          and not exists (select from governance.alert_events e where e.alert_id = v_alert.alert_id and e.account_id = u.account_id
            and e.period_key = to_char(p_now at time zone 'UTC', 'YYYY-MM-DD"T"HH24'))
        order by u.now_tokens desc limit p_limit
      loop
        v_raised := v_raised + governance.raise_alert(v_alert.alert_id, v_row.account_id, 'usage_spike', 'info',
          format('%s used %s tokens in an hour; %s is usual', v_row.user_id, v_row.now_tokens, round(v_row.usual)), v_alert.thresholds[1], v_row.now_tokens,
          to_char(p_now at time zone 'UTC', 'YYYY-MM-DD"T"HH24'), jsonb_build_object('alert_name', v_alert.alert_name, 'usual_tokens', round(v_row.usual)), p_now);
      end loop;
    end if;
    -- balance, operation_tokens and debt are noticed by the settlement itself; the alert says whom to tell.
  end loop;

  -- Where no limit warns, the allowance does: percents of the plan, once a month each.
  v_found := 0;
  for v_row in
    select x.* from (
      select a.account_id, a.local_month, l.usage_percent, (select max(w) from unnest(p.warn_at) w where w <= l.usage_percent) as reached
      from governance.account_listings l
      join governance.accounts a using (account_id)
      join governance.plans p on p.plan_id = a.plan_id
      where l.last_activity_at > v_since and l.usage_percent >= p.warn_at[1]
        and p.daily_limit is null and p.monthly_limit is null and a.month_ends_at > p_now) x
    where not exists (select from governance.alert_events e where e.account_id = x.account_id and e.period_key = to_char(x.local_month, 'YYYY-MM')
      and e.kind like 'allowance\_%' and e.threshold >= x.reached)
    limit p_limit
  loop
    v_found := v_found + 1;
    v_raised := v_raised + governance.raise_alert(null, v_row.account_id, 'allowance_' || v_row.reached, case when v_row.reached >= 95 then 'critical' else 'warning' end,
      format('%s%% of the month''s tokens are used', v_row.reached), v_row.reached, v_row.usage_percent, to_char(v_row.local_month, 'YYYY-MM'), '{}', p_now);
  end loop;
  v_is_all := v_is_all and v_found < p_limit;
  -- What was said is not said again, so the next round finds the rest.
  insert into governance.maintenance_state as s (key, value)
  values ('allowance_warnings', jsonb_build_object('at', p_now, 'since', case when v_is_all then p_now else v_since end))
  on conflict (key) do update set value = excluded.value, updated_at = clock_timestamp();
  return v_raised;
end
$$;
comment on function governance.evaluate_alerts(timestamptz, int) is
  'Raises the alerts that are due: budgets, spikes, allowances nearly used; at most so many of a kind in a round, the rest in the next. Answers how many.';

create or replace function public.my_token_alerts() returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_account governance.accounts := governance.my_account();
begin
  return (
    select coalesce(jsonb_agg(jsonb_build_object('type', e.kind, 'severity', e.severity, 'message', e.message,
      'details', e.details || jsonb_build_object('threshold', e.threshold, case e.kind when 'low_balance' then 'balance' else 'value' end, e.value),
      'created_at', e.created_at) order by e.created_at desc, e.alert_event_id desc), '[]')
    from (select * from governance.alert_events x
      where x.account_id = v_account.account_id and not governance.is_for_operators(x.kind) and x.created_at > governance.now() - governance.alert_retention()
      order by x.created_at desc limit 100) e);
end
$$;

-- ---------------------------------------------------------------------------------------------------------------
-- Upkeep: what cannot be moved on does not stand in the way
-- ---------------------------------------------------------------------------------------------------------------

create or replace function governance.roll_due_accounts(p_now timestamptz, p_limit int, p_budget interval) returns table (expired_holds int, expired_lots int, allowances int, failed int, is_done boolean)
  language plpgsql set search_path = '' as $$
declare
  v_until timestamptz := clock_timestamp() + p_budget;
  v_due bigint[];
  v_id bigint;
  v_account governance.accounts;
  v_rolled governance.rolled;
  v_touched bigint[] := '{}';
begin
  expired_holds := 0; expired_lots := 0; allowances := 0; failed := 0; is_done := true;
  select array_agg(distinct x.account_id) into v_due from (
    (select l.account_id from governance.account_listings l where l.holds_check_at <= p_now limit p_limit)
    union all
    -- A lot that is frozen stays open beyond its end, with nothing to take out of it: were it counted, some old disputes
    -- would keep everybody else waiting.
    (select o.account_id from governance.lots o where o.is_open and o.expires_at <= p_now and o.remaining > 0 order by o.expires_at limit p_limit)
    union all
    (select l.account_id from governance.account_listings l where l.month_ends_at <= p_now order by l.month_ends_at limit p_limit)
  ) x;
  foreach v_id in array coalesce(v_due, '{}') loop
    if clock_timestamp() > v_until then
      is_done := false;
      exit;
    end if;
    -- Whoever has the account in hand brings it up to the moment too.
    if not pg_try_advisory_xact_lock(governance.lock_key((select a.user_id from governance.accounts a where a.account_id = v_id))) then
      continue;
    end if;
    select * into v_account from governance.accounts a where a.account_id = v_id for update skip locked;
    continue when not found;
    v_touched := v_touched || v_id;
    if governance.needs_roll(v_account, p_now) then
      begin
        v_rolled := governance.roll_account(v_id, p_now);
        expired_holds := expired_holds + coalesce(v_rolled.expired_holds, 0);
        expired_lots := expired_lots + coalesce(v_rolled.expired_lots, 0);
        allowances := allowances + coalesce(v_rolled.allowances, 0);
      exception when others then
        -- One account that cannot be rolled must not keep the others from it.
        failed := failed + 1;
        perform governance.raise_alert(null, v_id, 'maintenance_failed', 'critical',
          format('Upkeep of %s failed: %s', left(v_account.user_id, 100), left(sqlerrm, 300)), null, null, (p_now at time zone 'UTC')::date::text,
          jsonb_build_object('sqlstate', sqlstate), p_now);
      end;
    end if;
  end loop;
  -- Never waiting for another round while this one holds accounts: follow_events copies them too, from their entries.
  if cardinality(v_touched) > 0 and pg_try_advisory_xact_lock(7254014) then
    perform governance.copy_to_listings(v_touched);
  end if;
  is_done := is_done and coalesce(cardinality(v_due), 0) < p_limit;
  return next;
end
$$;

revoke all on all functions in schema governance from public;
