-- Upkeep: what must happen though nobody calls. Everything here may run in several places at once: what one has in hand
-- the others leave alone, and what is done twice is done once.

-- ---------------------------------------------------------------------------------------------------------------
-- Notifications wait here for whoever sends them
-- ---------------------------------------------------------------------------------------------------------------

create table governance.notifications (
  notification_id bigint generated always as identity primary key,
  alert_event_id bigint references governance.alert_events (alert_event_id) on delete set null,
  -- email, slack …
  channel text not null check (channel ~ '^[a-z][a-z0-9_]{0,31}$'),
  -- operators, or user: then recipient is the user's own address.
  audience text not null check (audience in ('operators', 'user')),
  recipient text,
  account_id bigint,
  subject text not null,
  body text not null,
  payload jsonb not null default '{}',
  status text not null default 'queued' check (status in ('queued', 'sent', 'failed')),
  attempts int not null default 0,
  -- Not before this moment; a sender that takes it moves this ahead, so that a crash gives it back.
  due_at timestamptz not null,
  created_at timestamptz not null,
  sent_at timestamptz,
  last_error text
);
create index notifications_due on governance.notifications (due_at) where status = 'queued';
create index notifications_time on governance.notifications (created_at);
comment on table governance.notifications is 'Messages to send, each once: take them with claim_notifications, say how it went with finish_notification.';
alter table governance.notifications enable row level security;
revoke all on governance.notifications from public;

-- Whether it was looked at for notifications; by whoever raises alerts, in whatever transaction.
alter table governance.alert_events add column considered_at timestamptz;
create index alert_events_new on governance.alert_events (alert_event_id) where considered_at is null;

create function governance.raise_alert(
  p_alert_id bigint, p_account_id bigint, p_kind text, p_severity text, p_message text, p_threshold numeric, p_value numeric, p_period text, p_details jsonb, p_now timestamptz
) returns int
  language plpgsql set search_path = '' as $$
begin
  insert into governance.alert_events (alert_id, account_id, kind, severity, message, threshold, value, period_key, details, created_at)
  values (p_alert_id, p_account_id, p_kind, p_severity, p_message, p_threshold, p_value, p_period, coalesce(p_details, '{}'), p_now)
  on conflict do nothing;
  if not found then return 0; end if;
  update governance.cost_alerts a set last_triggered_at = p_now where a.alert_id = p_alert_id;
  return 1;
end
$$;
comment on function governance.raise_alert(bigint, bigint, text, text, text, numeric, numeric, text, jsonb, timestamptz) is
  'Raises an alert unless its matter was said already in this period; answers how many were raised.';

-- ---------------------------------------------------------------------------------------------------------------
-- Alerts that no single settlement can see
-- ---------------------------------------------------------------------------------------------------------------

create function governance.alert_period(p_period text, p_now timestamptz, out from_day date, out to_day date, out key text)
  language sql immutable set search_path = '' as $$
  -- A budget's periods are UTC's; usage counts on its account's own day.
  select
    date_trunc(case p_period when 'week' then 'week' when 'month' then 'month' when 'year' then 'year' else 'day' end, p_now at time zone 'UTC')::date,
    (date_trunc(case p_period when 'week' then 'week' when 'month' then 'month' when 'year' then 'year' else 'day' end, p_now at time zone 'UTC')
      + case p_period when 'week' then interval '1 week' when 'month' then interval '1 month' when 'year' then interval '1 year' else interval '1 day' end)::date - 1,
    to_char(p_now at time zone 'UTC', case p_period when 'week' then 'IYYY-"W"IW' when 'month' then 'YYYY-MM' when 'year' then 'YYYY' when 'hour' then 'YYYY-MM-DD"T"HH24' else 'YYYY-MM-DD' end)
$$;
comment on function governance.alert_period(text, timestamptz) is 'Days and name of the budget period that holds a moment: hour (its day), day, week, month or year.';

create function governance.alert_value(p_alert governance.cost_alerts, p_now timestamptz) returns numeric
  language plpgsql stable set search_path = '' as $$
declare
  v_period record;
  v_kind text := split_part(p_alert.scope, ':', 1);
  v_id text := substr(p_alert.scope, length(split_part(p_alert.scope, ':', 1)) + 2);
  v_value numeric;
begin
  select * into v_period from governance.alert_period(p_alert.period, p_now);
  if v_kind = 'plan' then
    select sum(case p_alert.metric when 'cost_micros' then d.cost_micros else d.charged_tokens end) into v_value
    from governance.usage_daily d join governance.accounts a using (account_id)
    where d.day between v_period.from_day and v_period.to_day and a.plan_id = v_id;
  else
    select sum(u.value) into v_value from (
      select sum(case p_alert.metric when 'cost_micros' then t.cost_micros else t.charged_tokens end) as value
      from governance.usage_totals t join governance.usage_days x using (day)
      where t.day between v_period.from_day and v_period.to_day
        and (v_kind not in ('scope', 'model') or v_id = case v_kind when 'scope' then t.scope_id else t.model end)
      union all
      select sum(case p_alert.metric when 'cost_micros' then d.cost_micros else d.charged_tokens end)
      from governance.usage_daily d
      where d.day in (select g::date from generate_series(v_period.from_day, v_period.to_day, interval '1 day') g
          where not exists (select from governance.usage_days x where x.day = g::date))
        and (v_kind not in ('scope', 'model') or v_id = case v_kind when 'scope' then d.scope_id else d.model end)) u;
  end if;
  return coalesce(v_value, 0);
end
$$;
comment on function governance.alert_value(governance.cost_alerts, timestamptz) is
  'Cost in micro-units, or tokens, of an alert''s scope (all, plan:x, scope:x, model:x) in its current period.';

create function governance.evaluate_alerts(p_now timestamptz) returns int
  language plpgsql set search_path = '' as $$
declare
  v_alert governance.cost_alerts;
  v_period record;
  v_value numeric;
  v_reached numeric;
  v_percent boolean;
  v_row record;
  v_raised int := 0;
  v_since timestamptz;
begin
  if not pg_try_advisory_xact_lock(7254015) then return 0; end if;
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
      -- Of each user: the accounts that were active since the last look can have got there.
      for v_row in
        select a.account_id, a.user_id, case v_alert.metric when 'cost_micros' then u.cost_micros else u.charged_tokens end as value
        from governance.account_listings l
        join governance.accounts a using (account_id)
        cross join lateral (select coalesce(sum(d.cost_micros), 0) as cost_micros, coalesce(sum(d.charged_tokens), 0) as charged_tokens
          from governance.usage_daily d where d.account_id = a.account_id and d.day between v_period.from_day and v_period.to_day) u
        where l.last_activity_at > p_now - interval '10 minutes'
        order by l.last_activity_at desc limit 5000
      loop
        select max(t) into v_reached from unnest(v_alert.thresholds) t
        where case when v_alert.budget is not null then v_row.value * 100 >= t * v_alert.budget else v_row.value >= t end;
        continue when v_reached is null or exists (
          select from governance.alert_events e where e.alert_id = v_alert.alert_id and e.account_id = v_row.account_id
            and e.period_key = v_period.key and e.threshold >= v_reached);
        v_raised := v_raised + governance.raise_alert(v_alert.alert_id, v_row.account_id, 'user_budget', 'warning',
          format('%s: %s has used %s (%s)', v_alert.alert_name, v_row.user_id, v_row.value, v_alert.metric), v_reached, v_row.value, v_period.key,
          jsonb_build_object('alert_name', v_alert.alert_name, 'metric', v_alert.metric), p_now);
      end loop;
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
        order by u.now_tokens desc limit 1000
      loop
        v_raised := v_raised + governance.raise_alert(v_alert.alert_id, v_row.account_id, 'usage_spike', 'info',
          format('%s used %s tokens in an hour; %s is usual', v_row.user_id, v_row.now_tokens, round(v_row.usual)), v_alert.thresholds[1], v_row.now_tokens,
          to_char(p_now at time zone 'UTC', 'YYYY-MM-DD"T"HH24'), jsonb_build_object('alert_name', v_alert.alert_name, 'usual_tokens', round(v_row.usual)), p_now);
      end loop;
    end if;
    -- balance, operation_tokens and debt are noticed by the settlement itself; the alert says whom to tell.
  end loop;

  -- Where no limit warns, the allowance does: percents of the plan, once a month each.
  select coalesce((select (s.value ->> 'at')::timestamptz from governance.maintenance_state s where s.key = 'allowance_warnings'), '-infinity') into v_since;
  for v_row in
    select a.account_id, a.local_month, l.usage_percent, (select max(w) from unnest(p.warn_at) w where w <= l.usage_percent) as reached
    from governance.account_listings l
    join governance.accounts a using (account_id)
    join governance.plans p on p.plan_id = a.plan_id
    where l.last_activity_at > v_since - interval '2 minutes' and l.usage_percent >= p.warn_at[1]
      and p.daily_limit is null and p.monthly_limit is null and a.month_ends_at > p_now
    order by l.last_activity_at limit 5000
  loop
    continue when exists (select from governance.alert_events e where e.account_id = v_row.account_id and e.period_key = to_char(v_row.local_month, 'YYYY-MM')
      and e.kind like 'allowance\_%' and e.threshold >= v_row.reached);
    v_raised := v_raised + governance.raise_alert(null, v_row.account_id, 'allowance_' || v_row.reached, case when v_row.reached >= 95 then 'critical' else 'warning' end,
      format('%s%% of the month''s tokens are used', v_row.reached), v_row.reached, v_row.usage_percent, to_char(v_row.local_month, 'YYYY-MM'), '{}', p_now);
  end loop;
  insert into governance.maintenance_state as s (key, value) values ('allowance_warnings', jsonb_build_object('at', p_now))
  on conflict (key) do update set value = excluded.value, updated_at = clock_timestamp();
  return v_raised;
end
$$;
comment on function governance.evaluate_alerts(timestamptz) is 'Raises the alerts that are due: budgets, spikes, allowances nearly used. Answers how many.';

create function governance.queue_notifications(p_now timestamptz, p_limit int default 1000) returns int
  language plpgsql set search_path = '' as $$
declare
  v_event record;
  v_queued int := 0;
  v_count int;
  v_user_channels text[] := (select case when jsonb_typeof(s.value) = 'array' then array(select jsonb_array_elements_text(s.value)) end
    from governance.settings s where s.key = 'user_warning_channels');
begin
  for v_event in
    update governance.alert_events e set considered_at = p_now
    where e.alert_event_id in (
      select n.alert_event_id from governance.alert_events n where n.considered_at is null order by n.alert_event_id limit p_limit for update skip locked)
    returning e.*
  loop
    -- What is a day old already is history, not news.
    continue when v_event.created_at < p_now - interval '1 day';
    insert into governance.notifications (alert_event_id, channel, audience, recipient, account_id, subject, body, payload, due_at, created_at)
    select v_event.alert_event_id, t.channel, t.audience, case t.audience when 'user' then a.email end, v_event.account_id,
      left(v_event.message, 200), v_event.message,
      jsonb_build_object('kind', v_event.kind, 'severity', v_event.severity, 'threshold', v_event.threshold, 'value', v_event.value,
        'user_id', a.user_id, 'display_name', a.display_name, 'details', v_event.details, 'at', v_event.created_at,
        'upgrade', (select jsonb_build_object('plan_id', u.plan_id, 'name', u.name) from governance.plans p join governance.plans u on u.plan_id = p.upgrade_to
          where p.plan_id = a.plan_id and t.audience = 'user')),
      p_now, p_now
    from (
      -- Operators hear of their alerts, by its channels; a user's own matter goes to the user where the channel is e-mail.
      select c.channel, case when k.scope = 'user' and c.channel = 'email' and v_event.account_id is not null then 'user' else 'operators' end as audience
      from governance.cost_alerts k cross join lateral unnest(k.channels) c(channel)
      where (k.alert_id = v_event.alert_id or (v_event.alert_id is null and k.is_active and k.retired_at is null and k.scope = 'user'
          and k.metric = case v_event.kind when 'low_balance' then 'balance' when 'high_usage' then 'operation_tokens' when 'negative_balance' then 'debt' end))
      union
      -- Users are warned of their own limits.
      select w, 'user' from unnest(coalesce(v_user_channels, '{email}')) w
      where v_event.alert_id is null and v_event.kind ~ '^(daily_limit|monthly_limit|allowance)_\d+$'
      union
      -- Nobody asked for it, but nobody must miss it.
      select 'email', 'operators' where v_event.alert_id is null and v_event.kind in ('settlement_quarantined', 'rollup_mismatch', 'webhook_quarantined', 'event_quarantined')
    ) t
    left join governance.accounts a on a.account_id = v_event.account_id
    where t.channel ~ '^[a-z][a-z0-9_]{0,31}$'
      -- A user without an address, or who wants none of it, is left in peace.
      and (t.audience = 'operators' or (a.email is not null and a.email <> ''
        and coalesce(a.metadata -> 'notifications' -> t.channel, 'true') <> 'false'));
    get diagnostics v_count = row_count;
    v_queued := v_queued + v_count;
    if v_event.alert_id is null and v_event.kind in ('low_balance', 'high_usage', 'negative_balance') then
      update governance.cost_alerts k set last_triggered_at = greatest(k.last_triggered_at, v_event.created_at)
      where k.is_active and k.retired_at is null and k.scope = 'user'
        and k.metric = case v_event.kind when 'low_balance' then 'balance' when 'high_usage' then 'operation_tokens' else 'debt' end;
    end if;
  end loop;
  return v_queued;
end
$$;
comment on function governance.queue_notifications(timestamptz, int) is
  'Queues the messages that new alerts give cause for; answers how many. A user opts out with metadata {"notifications": {"email": false}}.';

create function public.claim_notifications(p_limit int default 50, p_channel text default null, p_lease_seconds int default 300) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_now timestamptz := governance.now();
  v_answer jsonb;
begin
  perform governance.check_limit(p_limit, 500);
  perform governance.check_optional('p_channel', p_channel, 32);
  if p_lease_seconds is null or p_lease_seconds not between 10 and 86400 then
    perform governance.fail('PT400', 'invalid_argument', 'p_lease_seconds is a whole number from 10 to 86400');
  end if;
  with taken as (
    update governance.notifications n set attempts = n.attempts + 1, due_at = v_now + p_lease_seconds * interval '1 second'
    where n.notification_id in (
      select w.notification_id from governance.notifications w
      where w.status = 'queued' and w.due_at <= v_now and (p_channel is null or w.channel = p_channel)
      order by w.due_at, w.notification_id limit p_limit for update skip locked)
    returning n.*)
  select coalesce(jsonb_agg(jsonb_build_object('notification_id', t.notification_id, 'channel', t.channel, 'audience', t.audience, 'recipient', t.recipient,
    'subject', t.subject, 'body', t.body, 'payload', t.payload, 'attempts', t.attempts, 'created_at', t.created_at) order by t.notification_id), '[]')
  into v_answer from taken t;
  return v_answer;
end
$$;
comment on function public.claim_notifications(int, text, int) is
  'Takes messages to send; what is not finished within the lease comes again. Errors: invalid_argument.';
revoke all on function public.claim_notifications(int, text, int) from public, anon, authenticated;
grant execute on function public.claim_notifications(int, text, int) to service_role;

create function public.finish_notification(p_notification_id bigint, p_error text default null) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_now timestamptz := governance.now();
  n governance.notifications;
begin
  -- Each failure waits longer, up to an hour; after eight it is given up, and kept to be seen.
  update governance.notifications x set
    status = case when x.status = 'sent' or p_error is null then 'sent' when x.attempts >= 8 then 'failed' else 'queued' end,
    sent_at = case when x.status = 'sent' then x.sent_at when p_error is null then v_now end,
    last_error = case when x.status = 'sent' then x.last_error else left(p_error, 2000) end,
    due_at = case when x.status = 'sent' or p_error is null then x.due_at else v_now + least(power(2, x.attempts) * 30, 3600) * interval '1 second' end
  where x.notification_id = p_notification_id returning * into n;
  if not found then
    perform governance.fail('PT404', 'not_found', format('There is no notification %s', p_notification_id));
  end if;
  return jsonb_build_object('notification_id', n.notification_id, 'status', n.status, 'attempts', n.attempts, 'due_at', n.due_at, 'sent_at', n.sent_at);
end
$$;
comment on function public.finish_notification(bigint, text) is 'Says how sending went: sent, or with p_error, to be tried again. Errors: not_found.';
revoke all on function public.finish_notification(bigint, text) from public, anon, authenticated;
grant execute on function public.finish_notification(bigint, text) to service_role;

create function public.console_alerts(p_before_id bigint default null, p_limit int default 50, p_open_only boolean default false) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
begin
  perform governance.check_limit(p_limit, 500);
  return (
    with page as (
      select e.*, row_number() over (order by e.alert_event_id desc) as n from (
        select * from governance.alert_events x
        where x.alert_event_id < coalesce(p_before_id, 9223372036854775807) and (p_open_only is not true or x.acknowledged_at is null)
        order by x.alert_event_id desc limit p_limit + 1) e)
    select jsonb_build_object(
      'alerts', coalesce(jsonb_agg(jsonb_build_object('alert_event_id', p.alert_event_id, 'alert_name', k.alert_name, 'kind', p.kind, 'severity', p.severity,
        'message', p.message, 'user_id', a.user_id, 'display_name', a.display_name, 'threshold', p.threshold, 'value', p.value, 'period', p.period_key,
        'details', p.details, 'created_at', p.created_at, 'acknowledged_at', p.acknowledged_at, 'acknowledged_by', p.acknowledged_by,
        'notifications', (select coalesce(jsonb_agg(jsonb_build_object('channel', n.channel, 'audience', n.audience, 'status', n.status, 'sent_at', n.sent_at) order by n.notification_id), '[]')
          from governance.notifications n where n.alert_event_id = p.alert_event_id)) order by p.n) filter (where p.n <= p_limit), '[]'),
      'next_before_id', case when count(*) > p_limit then max(p.alert_event_id) filter (where p.n = p_limit) end)
    from page p
    left join governance.cost_alerts k on k.alert_id = p.alert_id
    left join governance.accounts a on a.account_id = p.account_id);
end
$$;
create index notifications_alert on governance.notifications (alert_event_id);
comment on function public.console_alerts(bigint, int, boolean) is 'Alerts that were raised, newest first. Errors: invalid_argument.';
revoke all on function public.console_alerts(bigint, int, boolean) from public, anon, authenticated;
grant execute on function public.console_alerts(bigint, int, boolean) to service_role;

create function public.console_cost_alerts() returns jsonb
  language sql stable security definer set search_path = '' set jit = off as $$
  select coalesce(jsonb_agg(jsonb_build_object('alert_name', k.alert_name, 'metric', k.metric, 'scope', k.scope, 'period', k.period, 'budget', k.budget,
      'thresholds', k.thresholds, 'channels', k.channels, 'is_active', k.is_active, 'last_triggered_at', k.last_triggered_at,
      'value', v.value, 'percent', case when k.budget is not null then div(v.value * 100, k.budget) end,
      'currency', c.currency) order by k.alert_name), '[]')
  from governance.cost_alerts k
  cross join governance.active_config c
  cross join lateral (select case when k.metric in ('cost_micros', 'tokens') and k.scope <> 'user' then governance.alert_value(k, governance.now()) end as value) v
  where k.retired_at is null
$$;
comment on function public.console_cost_alerts() is 'The alerts of the preset, with how far each has come in its period.';
revoke all on function public.console_cost_alerts() from public, anon, authenticated;
grant execute on function public.console_cost_alerts() to service_role;

create function public.console_acknowledge_alert(p_command_id text, p_alert_event_id bigint, p_operator text default null) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_answer jsonb;
  e governance.alert_events;
begin
  perform governance.check_id('p_command_id', p_command_id);
  perform governance.check_optional('p_operator', p_operator, 255);
  v_answer := governance.begin_command('operator', p_command_id, row('acknowledge_alert', p_alert_event_id, p_operator)::text);
  if v_answer is not null then return v_answer; end if;
  update governance.alert_events x set acknowledged_at = coalesce(x.acknowledged_at, governance.now()),
    acknowledged_by = case when x.acknowledged_at is null then p_operator else x.acknowledged_by end
  where x.alert_event_id = p_alert_event_id returning * into e;
  if not found then
    perform governance.fail('PT404', 'not_found', format('There is no alert %s', p_alert_event_id));
  end if;
  insert into governance.audit_log (created_at, operator, action, account_id, command_id, details)
  values (governance.now(), p_operator, 'acknowledge_alert', e.account_id, p_command_id, jsonb_build_object('alert_event_id', e.alert_event_id, 'kind', e.kind));
  perform governance.ring('alerts', governance.now());
  return governance.end_command('operator', p_command_id, jsonb_build_object('alert_event_id', e.alert_event_id,
    'acknowledged_at', e.acknowledged_at, 'acknowledged_by', e.acknowledged_by));
end
$$;
comment on function public.console_acknowledge_alert(text, bigint, text) is 'Someone has seen to an alert: it is open no more. Errors: invalid_argument, not_found, idempotency_conflict.';
revoke all on function public.console_acknowledge_alert(text, bigint, text) from public, anon, authenticated;
grant execute on function public.console_acknowledge_alert(text, bigint, text) to service_role;

-- ---------------------------------------------------------------------------------------------------------------
-- Stuck holds
-- ---------------------------------------------------------------------------------------------------------------

create function public.console_stuck_holds(p_limit int default 100) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
begin
  perform governance.check_limit(p_limit, 1000);
  return (
    select coalesce(jsonb_agg(jsonb_build_object('request_id', s.request_id, 'decision_id', s.decision_id, 'user_id', a.user_id, 'display_name', a.display_name,
      'status', s.status, 'model', s.model, 'reserved_tokens', s.reserved_tokens, 'created_at', s.created_at, 'expires_at', s.expires_at,
      'input_tokens', r.input_tokens, 'output_tokens', r.output_tokens) order by s.created_at), '[]')
    from (select * from governance.stuck_holds order by created_at limit p_limit) s
    join governance.accounts a using (account_id)
    join governance.requests r on r.decision_id = s.decision_id and r.created_at = s.created_at);
end
$$;
comment on function public.console_stuck_holds(int) is
  'Holds that have outlived their end, and settlements above the ceiling that wait for a person. Errors: invalid_argument.';
revoke all on function public.console_stuck_holds(int) from public, anon, authenticated;
grant execute on function public.console_stuck_holds(int) to service_role;

create function public.console_resolve_hold(
  p_command_id text, p_request_id text, p_action text, p_reason text, p_operator text default null, p_input_tokens bigint default null, p_output_tokens bigint default null
) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  q governance.requests;
  v_now timestamptz;
  v_answer jsonb;
begin
  perform governance.check_operator_command(p_command_id, p_request_id, p_reason, p_operator);
  if p_action is null or p_action not in ('settle', 'release') then
    perform governance.fail('PT400', 'invalid_argument', 'p_action is settle or release');
  end if;
  if p_input_tokens not between 0 and 9007199254740991 or p_output_tokens not between 0 and 9007199254740991 then
    perform governance.fail('PT400', 'invalid_argument', 'p_input_tokens and p_output_tokens are whole numbers from 0 up to 2^53 - 1');
  end if;
  select x.* into q from governance.request_keys k join governance.requests x on x.decision_id = k.decision_id and x.created_at = k.created_at
  where k.request_id = p_request_id;
  if not found then
    perform governance.fail('PT404', 'unknown_request', format('There is no request "%s"', left(p_request_id, 64)));
  end if;
  perform governance.lock_account_id(q.account_id);
  v_answer := governance.begin_command('operator', p_command_id,
    row('resolve_hold', p_request_id, p_action, p_reason, p_operator, p_input_tokens, p_output_tokens)::text);
  if v_answer is not null then return v_answer; end if;
  v_now := governance.now();
  select x.* into strict q from governance.requests x where x.decision_id = q.decision_id and x.created_at = q.created_at;
  if q.status not in ('held', 'expired', 'quarantined') then
    perform governance.fail('PT409', 'already_resolved', format('Request "%s" is %s already', left(p_request_id, 64), q.status));
  end if;

  if p_action = 'settle' and q.status = 'quarantined' then
    -- What the caller reported, let through; the caller's own repeat keeps finding its answer.
    v_answer := governance.settle_request(p_request_id, coalesce(p_input_tokens, q.input_tokens), coalesce(p_output_tokens, q.output_tokens),
      q.settled_model, coalesce(q.settle_metadata, '{}'), true);
    update governance.requests x set settle_fingerprint = q.settle_fingerprint where x.decision_id = q.decision_id and x.created_at = q.created_at;
  elsif p_action = 'settle' then
    if p_input_tokens is null or p_output_tokens is null then
      perform governance.fail('PT400', 'invalid_argument', 'Say what the call used: p_input_tokens and p_output_tokens');
    end if;
    v_answer := governance.settle_request(p_request_id, p_input_tokens, p_output_tokens, null, '{}', true);
  elsif q.status = 'held' then
    v_answer := public.release_usage(p_request_id, p_reason);
  elsif q.status = 'expired' then
    perform governance.fail('PT409', 'already_resolved', format('The hold of request "%s" has expired: its tokens are back already', left(p_request_id, 64)));
  else
    insert into governance.hold_events (created_at, kind, decision_id, account_id, tokens, reason)
    values (v_now, 'released', q.decision_id, q.account_id, 0, left(p_reason, 1000));
    update governance.requests x set status = 'released', ended_at = v_now, end_reason = p_reason, released_tokens = 0
    where x.decision_id = q.decision_id and x.created_at = q.created_at returning * into q;
    v_answer := governance.end_answer(q);
    perform governance.ring('feed', v_now);
  end if;
  insert into governance.audit_log (created_at, operator, action, account_id, reason, command_id, details)
  values (v_now, p_operator, 'resolve_hold', q.account_id, p_reason, p_command_id,
    jsonb_build_object('request_id', p_request_id, 'decision_id', q.decision_id, 'action', p_action, 'status', v_answer -> 'status', 'charged_tokens', v_answer -> 'charged_tokens'));
  return governance.end_command('operator', p_command_id, v_answer);
end
$$;
comment on function public.console_resolve_hold(text, text, text, text, text, bigint, bigint) is
  'A person ends a hold: settle it with the tokens it used (a quarantined one with those it reported, unless others are said), or release it. Answers as settle_usage and release_usage do; audited. Errors: invalid_argument, unknown_request, already_resolved, idempotency_conflict.';
revoke all on function public.console_resolve_hold(text, text, text, text, text, bigint, bigint) from public, anon, authenticated;
grant execute on function public.console_resolve_hold(text, text, text, text, text, bigint, bigint) to service_role;

-- ---------------------------------------------------------------------------------------------------------------
-- The rounds
-- ---------------------------------------------------------------------------------------------------------------

create function governance.check_rollups(p_now timestamptz, p_limit int default 200) returns int
  language plpgsql set search_path = '' as $$
declare
  v_after bigint;
  v_row record;
  v_last bigint;
  v_found int := 0;
begin
  select coalesce((s.value ->> 'after')::bigint, 0) into v_after from governance.maintenance_state s where s.key = 'checked_rollups' for update skip locked;
  if v_after is null then
    insert into governance.maintenance_state (key, value) values ('checked_rollups', '{"after": 0}') on conflict do nothing;
    return 0;
  end if;
  -- Some accounts each round, in turn: what the account counted and what the roll-up has must be one figure.
  for v_row in
    select a.account_id, a.user_id, a.day_tokens, a.month_tokens, a.local_day,
      (select coalesce(sum(d.charged_tokens), 0) from governance.usage_daily d where d.account_id = a.account_id and d.day = a.local_day) as rolled_day,
      (select coalesce(sum(d.charged_tokens), 0) from governance.usage_daily d where d.account_id = a.account_id
        and d.day >= a.local_month and d.day < (a.local_month + interval '1 month')::date) as rolled_month
    from governance.accounts a where a.account_id > v_after order by a.account_id limit p_limit
  loop
    v_last := v_row.account_id;
    if v_row.day_tokens <> v_row.rolled_day or v_row.month_tokens <> v_row.rolled_month then
      v_found := v_found + governance.raise_alert(null, v_row.account_id, 'rollup_mismatch', 'critical',
        format('The counters of %s and its roll-up differ: day %s and %s, month %s and %s', left(v_row.user_id, 100), v_row.day_tokens, v_row.rolled_day, v_row.month_tokens, v_row.rolled_month),
        null, null, v_row.local_day::text, '{}', p_now);
    end if;
  end loop;
  update governance.maintenance_state s set value = jsonb_build_object('after', coalesce(v_last, 0)), updated_at = clock_timestamp() where s.key = 'checked_rollups';
  return v_found;
end
$$;
comment on function governance.check_rollups(timestamptz, int) is 'Compares counters of accounts with their roll-ups, some each round; answers how many differ. Raises an alert, changes nothing.';

create function governance.roll_due_accounts(p_now timestamptz, p_limit int, p_budget interval) returns table (expired_holds int, expired_lots int, allowances int, failed int, is_done boolean)
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
    (select o.account_id from governance.lots o where o.is_open and o.expires_at <= p_now order by o.expires_at limit p_limit)
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
comment on function governance.roll_due_accounts(timestamptz, int, interval) is
  'Brings accounts up to the moment whose holds or lots have expired or whose month is over, for at most so long: their calls wait meanwhile.';

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
    where to_regclass('governance.requests_' || to_char(date_trunc('month', p_now at time zone 'UTC') + g * interval '1 month', 'YYYY_MM')) is null) then
    begin
      created := governance.ensure_request_partitions((p_now - interval '1 month')::date, (p_now + interval '2 months')::date);
    exception when lock_not_available then
      is_done := false;
    end;
  end if;
  for v_partition in
    select c.oid::regclass as name, (regexp_match(pg_catalog.pg_get_expr(c.relpartbound, c.oid), 'TO \(''([^'']+)''\)'))[1]::timestamptz as ends_at
    from pg_catalog.pg_inherits i join pg_catalog.pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'governance.requests'::regclass and pg_catalog.pg_get_expr(c.relpartbound, c.oid) <> 'DEFAULT'
    order by 2
  loop
    continue when v_partition.ends_at is null or v_partition.ends_at > v_before;
    -- A hold that is open, or waits for a person, keeps its month.
    execute format('select exists (select from %s where status in (''held'', ''quarantined''))', v_partition.name) into v_is_waiting;
    continue when v_is_waiting;
    -- First the keys of its calls, a batch a round, then the month itself in a moment.
    select coalesce((s.value ->> 'after')::bigint, -1) into v_after from governance.maintenance_state s
    where s.key = 'dropping' and s.value ->> 'partition' = v_partition.name::text;
    execute format('with batch as (select request_id, decision_id from %s where decision_id > $1 order by decision_id limit 20000),
      gone as (delete from governance.request_keys k using batch b where k.request_id = b.request_id and k.decision_id = b.decision_id)
      select max(decision_id), count(*) from batch', v_partition.name) into v_last, v_count using coalesce(v_after, -1);
    insert into governance.maintenance_state as s (key, value) values ('dropping', jsonb_build_object('partition', v_partition.name::text, 'after', coalesce(v_last, v_after)))
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
  'Makes the months of calls that are to come, and drops those older than the setting decision_retention_days, with the keys of their calls.';

create function governance.purge(p_now timestamptz, p_limit int default 5000, out rows_purged int, out webhook_events_purged int)
  language plpgsql set search_path = '' as $$
declare
  v_calls_before timestamptz := p_now - (select c.decision_retention_days from governance.active_config c) * interval '1 day';
  v_count int;
begin
  rows_purged := 0;
  webhook_events_purged := 0;
  if not pg_try_advisory_xact_lock(7254017) then return; end if;
  with gone as (
    delete from governance.requests_default r where r.decision_id in (
      select d.decision_id from governance.requests_default d where d.created_at < v_calls_before and d.status not in ('held', 'quarantined') limit p_limit)
    returning r.request_id, r.decision_id)
  delete from governance.request_keys k using gone g where k.request_id = g.request_id and k.decision_id = g.decision_id;
  get diagnostics v_count = row_count; rows_purged := rows_purged + v_count;
  delete from governance.hold_events h where h.event_id in (
    select o.event_id from governance.hold_events o
    where o.created_at < v_calls_before and not exists (select from governance.requests r where r.decision_id = o.decision_id) limit p_limit);
  get diagnostics v_count = row_count; rows_purged := rows_purged + v_count;
  delete from governance.minute_totals m where m.minute < p_now - interval '2 days';
  get diagnostics v_count = row_count; rows_purged := rows_purged + v_count;
  delete from governance.recent_usage u where u.slot < p_now - interval '2 days';
  get diagnostics v_count = row_count; rows_purged := rows_purged + v_count;
  -- A command may be repeated for 30 days.
  delete from governance.commands c where (c.kind, c.command_id) in (
    select o.kind, o.command_id from governance.commands o where o.created_at < least(p_now, clock_timestamp()) - interval '35 days' limit p_limit);
  get diagnostics v_count = row_count; rows_purged := rows_purged + v_count;
  -- An alert is kept as long as it is shown, and as long as its period may still run.
  delete from governance.alert_events e where e.alert_event_id in (
    select o.alert_event_id from governance.alert_events o
    where o.created_at < p_now - governance.alert_retention() and (o.period_key = '' or o.created_at < p_now - interval '400 days'
      or (length(o.period_key) > 8 and o.created_at < p_now - interval '40 days')) limit p_limit);
  get diagnostics v_count = row_count; rows_purged := rows_purged + v_count;
  delete from governance.notifications n where n.notification_id in (
    select o.notification_id from governance.notifications o where o.created_at < p_now - interval '30 days' limit p_limit);
  get diagnostics v_count = row_count; rows_purged := rows_purged + v_count;
  if to_regclass('governance.webhook_events_processed') is not null then
    execute 'delete from governance.webhook_events_processed w where w.event_id in (
      select o.event_id from governance.webhook_events_processed o where o.received_at < $1 - interval ''30 days'' and o.status <> ''quarantined'' limit $2)'
      using p_now, p_limit;
    get diagnostics webhook_events_purged = row_count;
  end if;
end
$$;
comment on function governance.purge(timestamptz, int) is 'Clears what has outlived its use, some at a time.';

create function governance.maintenance_answer(p_counts jsonb) returns jsonb
  language sql immutable set search_path = '' as $$
  select '{"expired_reservations": 0, "expired_grants": 0, "allowances_reset": 0, "days_aggregated": 0, "webhook_events_purged": 0, "alerts_triggered": 0,
    "notifications_queued": 0, "partitions_created": 0, "partitions_dropped": 0, "rows_purged": 0, "rollup_problems": 0, "accounts_failed": 0,
    "events_followed": 0, "more": false}'::jsonb || p_counts
$$;
comment on function governance.maintenance_answer(jsonb) is 'What run_maintenance answers: every count, zero where nothing was done.';

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
  -- First, while this transaction has written nothing: see follow_events.
  loop
    v_count := governance.follow_events(2000);
    v_followed := v_followed + v_count;
    exit when v_count = 0 or clock_timestamp() > v_until;
  end loop;
  v_days := governance.aggregate_days();
  select * into v_purged from governance.purge(v_now);
  v_problems := governance.check_rollups(v_now);
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
    'expired_reservations', v_rolled.expired_holds, 'expired_grants', v_rolled.expired_lots, 'allowances_reset', v_rolled.allowances,
    'days_aggregated', v_days, 'webhook_events_purged', v_purged.webhook_events_purged, 'alerts_triggered', v_alerts, 'notifications_queued', v_queued,
    'partitions_created', v_months.created, 'partitions_dropped', v_months.dropped, 'rows_purged', v_purged.rows_purged, 'rollup_problems', v_problems, 'accounts_failed', v_rolled.failed,
    'events_followed', v_followed,
    'more', not v_rolled.is_done or not v_months.is_done or v_count > 0 or v_days >= 40 or v_purged.rows_purged >= 5000 or v_purged.webhook_events_purged >= 5000));
end
$$;
comment on function public.run_maintenance() is
  'One round of upkeep: expired holds and lots given back or taken out, allowances of new months, totals of past days, retention, alerts and their notifications. Short, and safe to run from several places at once; call again while more is true.';
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
comment on procedure governance.maintain() is 'Rounds of upkeep, each its own transaction, until all is done: what pg_cron calls every minute.';

create function governance.schedule_maintenance() returns boolean
  language plpgsql set search_path = '' as $$
begin
  if not exists (select from pg_catalog.pg_extension where extname = 'pg_cron') then return false; end if;
  execute format('select cron.schedule(%L, %L, %L)', 'governance-maintenance', '* * * * *', 'call governance.maintain()');
  return true;
exception when insufficient_privilege or undefined_function or invalid_schema_name or undefined_table then
  raise notice 'pg_cron is there, but its schedule could not be set: %', sqlerrm;
  return false;
end
$$;
comment on function governance.schedule_maintenance() is
  'Has pg_cron run upkeep every minute; false where pg_cron is not installed: then call run_maintenance from anywhere, every minute. Call it again after installing pg_cron.';
do $$
begin
  perform governance.schedule_maintenance();
end
$$;

revoke all on all functions in schema governance from public;
revoke all on all procedures in schema governance from public;
