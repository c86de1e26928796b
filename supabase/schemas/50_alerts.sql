-- Alerts: what is watched, and what was raised.

create table governance.cost_alerts (
  alert_id bigint generated always as identity primary key,
  alert_name text not null unique,
  -- cost_micros, tokens, balance, operation_tokens, spike …
  metric text not null,
  -- all, or user, plan:<id>, scope:<id>, model:<id>
  scope text not null default 'all',
  period text not null default 'month',
  -- Percents of the budget where there is one, else amounts of the metric.
  thresholds numeric[] not null,
  budget bigint check (budget > 0),
  channels text[] not null default '{}',
  is_active boolean not null default true,
  last_triggered_at timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  retired_at timestamptz
);

comment on table governance.cost_alerts is 'What to watch and when to say so.';

create table governance.alert_events (
  alert_event_id bigint generated always as identity primary key,
  -- Null for what the settlement itself noticed (low balance, large operation, limit nearly used).
  alert_id bigint references governance.cost_alerts (alert_id),
  account_id bigint,
  kind text not null,
  severity text not null check (severity in ('info', 'warning', 'critical')),
  message text not null,
  threshold numeric,
  value numeric,
  -- The same matter is raised once a period: a day, a month, or whatever else the kind repeats by.
  period_key text not null default '',
  -- What it is about within the period: the limit or budget in force, a model, a time zone.
  subject text not null default '',
  details jsonb not null default '{}',
  created_at timestamptz not null default now(),
  acknowledged_at timestamptz,
  acknowledged_by text,
  -- When it was considered for notifications; null until then.
  considered_at timestamptz
);

create unique index alert_events_once on governance.alert_events
  (kind, coalesce(alert_id, 0), coalesce(account_id, 0), coalesce(threshold, 0), period_key, subject)
  where period_key <> '';

create index alert_events_time on governance.alert_events (created_at desc);

create index alert_events_account on governance.alert_events (account_id, created_at desc) where account_id is not null;

comment on table governance.alert_events is 'Alerts that were raised.';

create index alert_events_new on governance.alert_events (alert_event_id) where considered_at is null;

create index alert_events_open on governance.alert_events (alert_event_id) include (created_at)
  where acknowledged_at is null;

create function governance.count_open_alerts() returns bigint
  language sql stable set search_path = '' as $$
  select count(*) from (select from governance.alert_events e
    where e.acknowledged_at is null and e.created_at > governance.now() - governance.alert_retention() limit 10000) x
$$;
comment on function governance.count_open_alerts() is 'Alerts that are still shown (24 hours, or the setting '
  'alert_retention_hours) and that nobody has acknowledged.';

create function governance.alert_retention() returns interval
  language sql stable set search_path = '' as $$
  select coalesce((select case
    when jsonb_typeof(s.value) = 'number' then least(greatest((s.value #>> '{}')::numeric, 1), 8784)::int end
    from governance.settings s where s.key = 'alert_retention_hours'), 24) * interval '1 hour'
$$;
comment on function governance.alert_retention() is 'How long an alert is shown: the setting alert_retention_hours, 24 '
  'unless said.';

create function public.my_token_alerts() returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_account governance.accounts := governance.my_account();
begin
  return (
    select coalesce(jsonb_agg(jsonb_build_object('type', e.kind, 'severity', e.severity, 'message', e.message,
      'details', e.details || jsonb_build_object('threshold', e.threshold, case e.kind when 'low_balance' then 'balance'
        else 'value' end, e.value),
      'created_at', e.created_at) order by e.created_at desc, e.alert_event_id desc), '[]')
    from (select * from governance.alert_events x
      where x.account_id = v_account.account_id and not governance.is_for_operators(x.kind)
        and x.created_at > governance.now() - governance.alert_retention()
      order by x.created_at desc limit 100) e);
end
$$;
comment on function public.my_token_alerts() is
  'Alerts about the signed-in user that are still kept (24 hours, or the setting alert_retention_hours), newest first. '
  'Errors: not_signed_in, not_configured.';
revoke all on function public.my_token_alerts() from public, anon, authenticated;
grant execute on function public.my_token_alerts() to authenticated;

create function governance.raise_alert(
  p_alert_id bigint, p_account_id bigint, p_kind text, p_severity text, p_message text, p_threshold numeric,
  p_value numeric, p_period text, p_details jsonb, p_now timestamptz, p_subject text default ''
) returns int
  language plpgsql set search_path = '' as $$
begin
  insert into governance.alert_events (alert_id, account_id, kind, severity, message, threshold, value, period_key,
    subject, details, created_at)
  values (p_alert_id, p_account_id, p_kind, p_severity, p_message, p_threshold, p_value, p_period, p_subject,
    coalesce(p_details, '{}'), p_now)
  on conflict do nothing;
  if not found then return 0; end if;
  update governance.cost_alerts a set last_triggered_at = p_now where a.alert_id = p_alert_id;
  return 1;
end
$$;
comment on function governance.raise_alert(bigint, bigint, text, text, text, numeric, numeric, text, jsonb,
  timestamptz, text) is
  'Raises an alert, unless it was raised in this period about this subject already; answers how many were raised.';

create function governance.budget_period(p_period text, p_day date, out from_day date, out to_day date, out key text)
  language sql immutable set search_path = '' as $$
  select date_trunc(p_period, p_day::timestamp)::date,
    (date_trunc(p_period, p_day::timestamp) + ('1 ' || p_period)::interval)::date - 1,
    to_char(p_day, case p_period when 'week' then 'IYYY-"W"IW' when 'month' then 'YYYY-MM' when 'year' then 'YYYY'
      else 'YYYY-MM-DD' end)
$$;
comment on function governance.budget_period(text, date) is
  'First day, last day and name of the day, week (from Monday), month or year that holds a day.';

create function governance.open_periods(p_period text, p_since timestamptz, p_now timestamptz)
  returns table (from_day date, to_day date, key text)
  language sql stable set search_path = '' as $$
  select distinct p.from_day, p.to_day, p.key
  from generate_series(greatest(governance.first_open_day(p_since), governance.first_open_day(p_now) - 31)::timestamp,
    governance.last_open_day(p_now)::timestamp, interval '1 day') g(day)
  cross join lateral governance.budget_period(p_period, g.day::date) p
  order by p.from_day
$$;
comment on function governance.open_periods(text, timestamptz, timestamptz) is
  'Budget periods that usage may have been added to since a moment (at most a month back): at a change of month, the '
  'old one until it has ended everywhere, and the new one from its first beginning.';

create function governance.alert_value(p_alert governance.cost_alerts, p_from date, p_to date) returns numeric
  language plpgsql stable set search_path = '' as $$
declare
  v_kind text := split_part(p_alert.scope, ':', 1);
  v_id text := substr(p_alert.scope, length(split_part(p_alert.scope, ':', 1)) + 2);
  v_value numeric;
begin
  if v_kind = 'plan' then
    select sum(case p_alert.metric when 'cost_micros' then d.cost_micros else d.charged_tokens end) into v_value
    from governance.usage_daily d join governance.accounts a using (account_id)
    where d.day between p_from and p_to and a.plan_id = v_id;
  else
    select sum(u.value) into v_value from (
      select sum(case p_alert.metric when 'cost_micros' then t.cost_micros else t.charged_tokens end) as value
      from governance.usage_totals t join governance.usage_days x using (day)
      where t.day between p_from and p_to
        and (v_kind not in ('scope', 'model') or v_id = case v_kind when 'scope' then t.scope_id else t.model end)
      union all
      select sum(case p_alert.metric when 'cost_micros' then d.cost_micros else d.charged_tokens end)
      from governance.usage_daily d
      where d.day in (select g::date from generate_series(p_from, p_to, interval '1 day') g
          where not exists (select from governance.usage_days x where x.day = g::date))
        and (v_kind not in ('scope', 'model') or v_id = case v_kind when 'scope' then d.scope_id else d.model end)) u;
  end if;
  return coalesce(v_value, 0);
end
$$;
comment on function governance.alert_value(governance.cost_alerts, date, date) is
  'Cost in micro-units, or tokens, of an alert''s scope (all, plan:x, scope:x, model:x) on these days. A plan''s is '
  'that of the accounts that have it now.';

create function public.console_cost_alerts() returns jsonb
  language sql stable security definer set search_path = '' set jit = off as $$
  select governance.refuse_others('console_cost_alerts');
  select coalesce(jsonb_agg(jsonb_build_object('alert_name', k.alert_name, 'metric', k.metric, 'scope', k.scope,
    'period', k.period, 'budget', k.budget,
      'thresholds', k.thresholds, 'channels', k.channels, 'is_active', k.is_active, 'last_triggered_at',
        k.last_triggered_at,
      'value', v.value, 'percent', case when k.budget is not null then div(v.value * 100, k.budget) end,
      'currency', c.currency) order by k.alert_name), '[]')
  from governance.cost_alerts k
  cross join governance.active_config c
  -- A budget's current period is that of UTC's date.
  cross join lateral (select case when k.metric in ('cost_micros', 'tokens') and k.scope <> 'user' then (
      select governance.alert_value(k, p.from_day, p.to_day)
      from governance.budget_period(k.period, (governance.now() at time zone 'UTC')::date) p)
    end as value) v
  where k.retired_at is null
$$;
comment on function public.console_cost_alerts() is 'The alerts of the preset, with how far each has come in its '
  'period.';
revoke all on function public.console_cost_alerts() from public, anon, authenticated;
grant execute on function public.console_cost_alerts() to service_role;

create function public.console_acknowledge_alert(p_command_id text, p_alert_event_id bigint,
  p_operator text default null) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_answer jsonb;
  e governance.alert_events;
begin
  perform governance.refuse_others('console_acknowledge_alert');
  perform governance.check_id('p_command_id', p_command_id);
  perform governance.check_optional('p_operator', p_operator, 255);
  v_answer := governance.begin_command('operator', p_command_id,
    row('acknowledge_alert', p_alert_event_id, p_operator)::text);
  if v_answer is not null then return v_answer; end if;
  update governance.alert_events x set acknowledged_at = coalesce(x.acknowledged_at, governance.now()),
    acknowledged_by = case when x.acknowledged_at is null then p_operator else x.acknowledged_by end
  where x.alert_event_id = p_alert_event_id returning * into e;
  if not found then
    perform governance.fail('PT404', 'not_found', format('There is no alert %s', p_alert_event_id));
  end if;
  insert into governance.audit_log (created_at, operator, action, account_id, command_id, details)
  values (governance.now(), p_operator, 'acknowledge_alert', e.account_id, p_command_id,
    jsonb_build_object('alert_event_id', e.alert_event_id, 'kind', e.kind));
  perform governance.ring('alerts', governance.now());
  return governance.end_command('operator', p_command_id, jsonb_build_object('alert_event_id', e.alert_event_id,
    'acknowledged_at', e.acknowledged_at, 'acknowledged_by', e.acknowledged_by));
end
$$;
comment on function public.console_acknowledge_alert(text, bigint,
  text) is 'Someone has seen to an alert: it is open no more. Errors: invalid_argument, not_found, '
    'idempotency_conflict.';
revoke all on function public.console_acknowledge_alert(text, bigint, text) from public, anon, authenticated;
grant execute on function public.console_acknowledge_alert(text, bigint, text) to service_role;

create function governance.is_for_operators(p_kind text) returns boolean
  language sql immutable set search_path = '' as $$
  select p_kind in ('settlement_quarantined', 'rollup_mismatch', 'maintenance_failed', 'webhook_quarantined',
    'event_quarantined', 'stripe_dispute', 'doors_open', 'upkeep_late', 'upkeep_failed')
$$;
comment on function governance.is_for_operators(text) is 'Alerts that nobody asked for and no operator must miss; they '
  'are none of the business of the user whom they are about.';

create function public.console_alerts(
  p_before_id bigint default null, p_limit int default 50, p_open_only boolean default false,
    p_undelivered_only boolean default false
) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
declare
  v_now timestamptz := governance.now();
  v_since timestamptz := case when p_open_only then v_now - governance.alert_retention() else '-infinity' end;
begin
  perform governance.refuse_others('console_alerts');
  perform governance.check_limit(p_limit, 500);
  return (
    with page as (
      select e.*, row_number() over (order by e.alert_event_id desc) as n from (
        select * from governance.alert_events x
        where x.alert_event_id < coalesce(p_before_id, 9223372036854775807)
          and (p_open_only is not true or (x.acknowledged_at is null and x.created_at > v_since))
          and (p_undelivered_only is not true
            or x.alert_event_id in (select f.alert_event_id from governance.notifications f where f.status = 'failed'))
        order by x.alert_event_id desc limit p_limit + 1) e)
    select jsonb_build_object(
      'alerts', coalesce(jsonb_agg(jsonb_build_object('alert_event_id', p.alert_event_id, 'alert_name', k.alert_name,
        'kind', p.kind, 'severity', p.severity,
        'message', p.message, 'user_id', a.user_id, 'display_name', a.display_name, 'threshold', p.threshold, 'value',
          p.value, 'period', p.period_key,
        'details', p.details, 'created_at', p.created_at, 'acknowledged_at', p.acknowledged_at, 'acknowledged_by',
          p.acknowledged_by,
        'considered_at', p.considered_at, 'decision_id', case
          when p.details ->> 'decision_id' ~ '^\d{1,18}$' then (p.details ->> 'decision_id')::bigint end,
        'notifications', (select coalesce(jsonb_agg(jsonb_build_object('notification_id', n.notification_id, 'channel',
          n.channel, 'audience', n.audience,
            'recipient', n.recipient, 'status', n.status, 'attempts', n.attempts, 'created_at', n.created_at, 'due_at',
              n.due_at, 'sent_at', n.sent_at,
            'last_error', n.last_error) order by n.notification_id), '[]')
          from governance.notifications n where n.alert_event_id = p.alert_event_id))
            order by p.n) filter (where p.n <= p_limit), '[]'),
      'next_before_id', case when count(*) > p_limit then max(p.alert_event_id) filter (where p.n = p_limit) end,
      -- How delivery stands: what waits although it is due is what nobody takes; what was given up is said until
      -- somebody has
      -- seen to its alert. And when alerts were last looked for at all.
      'delivery', jsonb_build_object(
        'queued', (select count(*)
          from (select from governance.notifications q where q.status = 'queued' limit 10000) x),
        'overdue_since', (select min(q.due_at) from governance.notifications q
          where q.status = 'queued' and q.due_at < v_now - interval '5 minutes'),
        'failed', (select count(*)
          from (select from governance.notifications f join governance.alert_events e using (alert_event_id)
          where f.status = 'failed' and e.acknowledged_at is null limit 10000) x),
        'upkeep_at', (select s.value -> 'at' from governance.maintenance_state s where s.key = 'allowance_warnings')))
    from page p
    left join governance.cost_alerts k on k.alert_id = p.alert_id
    left join governance.accounts a on a.account_id = p.account_id);
end
$$;
comment on function public.console_alerts(bigint, int, boolean, boolean) is
  'Alerts that were raised, newest first, each with its messages; the open ones, or those of which a message was given '
  'up, alone. Errors: invalid_argument.';
revoke all on function public.console_alerts(bigint, int, boolean, boolean) from public, anon, authenticated;
grant execute on function public.console_alerts(bigint, int, boolean, boolean) to service_role;

create function governance.evaluate_budget(p_alert governance.cost_alerts, p_since timestamptz, p_now timestamptz)
  returns int
  language plpgsql set search_path = '' as $$
declare
  v_period record;
  v_value numeric;
  v_reached numeric;
  v_percent bigint;
  v_raised int := 0;
begin
  for v_period in select * from governance.open_periods(p_alert.period, p_since, p_now) loop
    v_value := governance.alert_value(p_alert, v_period.from_day, v_period.to_day);
    v_percent := case when p_alert.budget is not null then div(v_value * 100, p_alert.budget) end;
    select max(t) into v_reached from unnest(p_alert.thresholds) t
    where case when p_alert.budget is not null then v_value * 100 >= t * p_alert.budget else v_value >= t end;
    -- The highest that is reached; those below it were raised before, or go without saying.
    continue when v_reached is null or exists (
      select from governance.alert_events e where e.alert_id = p_alert.alert_id and e.period_key = v_period.key
        and e.subject = coalesce(p_alert.budget::text, '') and e.threshold >= v_reached);
    v_raised := v_raised + governance.raise_alert(p_alert.alert_id, null, 'budget',
      case when p_alert.budget is not null and v_reached >= 90 then 'critical' else 'warning' end,
      case when p_alert.budget is not null
        then format('%s: %s%% of the budget for %s is used', p_alert.alert_name, v_percent, v_period.key)
        else format('%s: %s of %s in %s', p_alert.alert_name, v_value, p_alert.metric, v_period.key) end,
      v_reached, coalesce(v_percent, v_value), v_period.key,
      jsonb_build_object('alert_name', p_alert.alert_name, 'metric', p_alert.metric, 'scope', p_alert.scope,
        'period', p_alert.period, 'amount', v_value, 'budget', p_alert.budget,
        'currency', (select c.currency from governance.active_config c)),
      p_now, coalesce(p_alert.budget::text, ''));
  end loop;
  return v_raised;
end
$$;
comment on function governance.evaluate_budget(governance.cost_alerts, timestamptz, timestamptz) is
  'Raises what is due of a budget over many users, for every period that was open since the last look.';

create function governance.evaluate_user_budget(p_alert governance.cost_alerts, p_since timestamptz,
  p_now timestamptz, p_limit int) returns int
  language plpgsql set search_path = '' as $$
declare
  v_row record;
  v_raised int := 0;
begin
  for v_row in
    select a.account_id, a.user_id, p.key, u.value, r.reached
    from governance.account_listings l
    join governance.accounts a using (account_id)
    cross join governance.open_periods(p_alert.period, p_since, p_now) p
    cross join lateral (select coalesce(sum(case p_alert.metric
        when 'cost_micros' then d.cost_micros else d.charged_tokens end), 0) as value
      from governance.usage_daily d
      where d.account_id = a.account_id and d.day between p.from_day and p.to_day) u
    cross join lateral (select max(t) as reached from unnest(p_alert.thresholds) t
      where case when p_alert.budget is not null then u.value * 100 >= t * p_alert.budget else u.value >= t end) r
    where l.last_activity_at > p_since and r.reached is not null and not exists (
      select from governance.alert_events e where e.alert_id = p_alert.alert_id and e.account_id = a.account_id
        and e.period_key = p.key and e.subject = coalesce(p_alert.budget::text, '') and e.threshold >= r.reached)
    limit p_limit
  loop
    v_raised := v_raised + governance.raise_alert(p_alert.alert_id, v_row.account_id, 'user_budget', 'warning',
      format('%s: %s has used %s (%s) in %s', p_alert.alert_name, v_row.user_id, v_row.value, p_alert.metric,
        v_row.key),
      v_row.reached, v_row.value, v_row.key,
      jsonb_build_object('alert_name', p_alert.alert_name, 'metric', p_alert.metric, 'budget', p_alert.budget,
        'currency', (select c.currency from governance.active_config c)),
      p_now, coalesce(p_alert.budget::text, ''));
  end loop;
  return v_raised;
end
$$;
comment on function governance.evaluate_user_budget(governance.cost_alerts, timestamptz, timestamptz, int) is
  'Raises what is due of a budget that each user has, for users active since the last look; at most p_limit.';

create function governance.evaluate_spikes(p_alert governance.cost_alerts, p_now timestamptz, p_limit int) returns int
  language plpgsql set search_path = '' as $$
declare
  v_row record;
  v_raised int := 0;
begin
  for v_row in
    with recent as (
      -- What a spike was raised for already is no part of another one.
      select r.account_id, r.slot, r.tokens, (select max((e.details ->> 'counted_to')::timestamptz)
        from governance.alert_events e where e.alert_id = p_alert.alert_id and e.account_id = r.account_id
          and e.created_at > p_now - interval '2 hours') as raised_to
      from governance.recent_usage r where r.slot > p_now - interval '25 hours'
    ), hours as (
      select r.account_id, max(r.slot) as counted_to,
        sum(r.tokens) filter (where r.slot > greatest(p_now - interval '1 hour', r.raised_to)) as hour_tokens,
        coalesce(sum(r.tokens) filter (where r.slot <= p_now - interval '1 hour'), 0) / 24 as usual
      from recent r group by 1
    )
    select h.account_id, a.user_id, h.counted_to, h.hour_tokens, h.usual,
      (select max(t) from unnest(p_alert.thresholds) t where h.hour_tokens >= t * greatest(h.usual, 1)) as reached
    from hours h join governance.accounts a using (account_id)
    -- So many times the usual hour of the day before, and enough to matter.
    where h.hour_tokens > (select c.high_usage_tokens from governance.active_config c)
      and h.hour_tokens >= p_alert.thresholds[1] * greatest(h.usual, 1)
    order by h.hour_tokens desc limit p_limit
  loop
    v_raised := v_raised + governance.raise_alert(p_alert.alert_id, v_row.account_id, 'usage_spike', 'info',
      format('%s used %s tokens in an hour; %s is usual', v_row.user_id, v_row.hour_tokens, round(v_row.usual)),
      v_row.reached, v_row.hour_tokens, to_char(v_row.counted_to at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI'),
      jsonb_build_object('alert_name', p_alert.alert_name, 'usual_tokens', round(v_row.usual),
        'counted_to', v_row.counted_to), p_now);
  end loop;
  return v_raised;
end
$$;
comment on function governance.evaluate_spikes(governance.cost_alerts, timestamptz, int) is
  'Raises an alert for users whose last hour is so many times their usual hour; each token counts for one spike only.';

create function governance.warn_of_allowances(p_since timestamptz, p_now timestamptz, p_limit int) returns int
  language plpgsql set search_path = '' as $$
declare
  v_row record;
  v_raised int := 0;
begin
  for v_row in
    select x.* from (
      select a.account_id, a.local_month, l.usage_percent, p.monthly_allowance::text as allowance,
        (select max(w) from unnest(p.warn_at) w where w <= l.usage_percent) as reached
      from governance.account_listings l
      join governance.accounts a using (account_id)
      join governance.plans p on p.plan_id = a.plan_id
      where l.last_activity_at > p_since and l.usage_percent >= p.warn_at[1]
        and p.daily_limit is null and p.monthly_limit is null and a.month_ends_at > p_now) x
    where not exists (select from governance.alert_events e
      where e.account_id = x.account_id and e.period_key = to_char(x.local_month, 'YYYY-MM')
        and e.subject = x.allowance and e.kind like 'allowance\_%' and e.threshold >= x.reached)
    limit p_limit
  loop
    v_raised := v_raised + governance.raise_alert(null, v_row.account_id, 'allowance_' || v_row.reached,
      case when v_row.reached >= 95 then 'critical' else 'warning' end,
      format('%s%% of the month''s tokens are used', v_row.reached), v_row.reached, v_row.usage_percent,
      to_char(v_row.local_month, 'YYYY-MM'), '{}', p_now, v_row.allowance);
  end loop;
  return v_raised;
end
$$;
comment on function governance.warn_of_allowances(timestamptz, timestamptz, int) is
  'Where no limit warns, the allowance does: each percent of a plan once a month and allowance; at most p_limit.';

create function governance.evaluate_alerts(p_now timestamptz, p_limit int default 5000) returns int
  language plpgsql set search_path = '' as $$
declare
  v_alert governance.cost_alerts;
  v_found int;
  v_raised int := 0;
  v_is_all boolean := true;
  v_state jsonb;
  v_since timestamptz;
begin
  if not pg_try_advisory_xact_lock(7254015) then return 0; end if;
  -- Accounts that were active since the last look that saw all can have got there; their copies are a little late.
  select s.value into v_state from governance.maintenance_state s where s.key = 'allowance_warnings';
  v_since := least(coalesce((v_state ->> 'since')::timestamptz, (v_state ->> 'at')::timestamptz,
    '-infinity') - interval '2 minutes', p_now - interval '10 minutes');
  for v_alert in select * from governance.cost_alerts a where a.is_active and a.retired_at is null
    order by a.alert_id loop
    -- balance, operation_tokens and debt are noticed by the settlement itself (governance.settlement_alerts).
    continue when v_alert.metric not in ('cost_micros', 'tokens', 'spike');
    v_found := case
      when v_alert.metric = 'spike' then governance.evaluate_spikes(v_alert, p_now, p_limit)
      when v_alert.scope = 'user' then governance.evaluate_user_budget(v_alert, v_since, p_now, p_limit)
      else governance.evaluate_budget(v_alert, v_since, p_now) end;
    v_is_all := v_is_all and v_found < p_limit;
    v_raised := v_raised + v_found;
  end loop;
  v_found := governance.warn_of_allowances(v_since, p_now, p_limit);
  v_is_all := v_is_all and v_found < p_limit;
  v_raised := v_raised + v_found;
  -- What was raised is not raised again, so the next round finds the rest.
  insert into governance.maintenance_state as s (key, value)
  values ('allowance_warnings',
    jsonb_build_object('at', p_now, 'since', case when v_is_all then p_now else v_since end))
  on conflict (key) do update set value = excluded.value, updated_at = clock_timestamp();
  return v_raised;
end
$$;
comment on function governance.evaluate_alerts(timestamptz, int) is
  'Raises the alerts that are due: budgets, spikes, allowances nearly used; at most so many of a kind in a round, the '
  'rest in the next. Answers how many.';
