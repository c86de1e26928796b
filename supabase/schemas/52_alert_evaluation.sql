-- When alerts are due: at a settlement, and at each round of upkeep.

create function governance.settlement_alerts(
  p_account_id bigint, p_now timestamptz, p_charged bigint, p_debt bigint, p_free_before bigint, p_free_after bigint,
  p_low bigint, p_high bigint, p_daily_limit bigint, p_day_before bigint, p_monthly_limit bigint,
  p_month_before bigint, p_warn_at int[], p_day date, p_details jsonb
) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_alerts jsonb := '[]';
  v_threshold numeric;
  v_percent int;
  v_limit record;
begin
  if p_debt > 0 then
    v_alerts := v_alerts || jsonb_build_object('type', 'negative_balance', 'severity', 'critical',
      'message', format('%s tokens were used beyond the balance', governance.with_separators(p_debt)),
      'threshold', 0, 'value', -p_debt, 'period', '', 'subject', '');
  end if;
  -- Thresholds are the setting and those of the preset's alerts.
  v_threshold := governance.passed_threshold('balance', array(select p_low union select unnest(k.thresholds)
    from governance.cost_alerts k where k.metric = 'balance' and k.is_active), p_free_before, p_free_after, null, null);
  if v_threshold is not null then
    v_alerts := v_alerts || jsonb_build_object('type', 'low_balance', 'severity', 'warning',
      'message', 'User token balance is low', 'threshold', v_threshold, 'value', p_free_after, 'period', '',
      'subject', '');
  end if;
  v_threshold := governance.passed_threshold('operation_tokens', array(select p_high union select unnest(k.thresholds)
    from governance.cost_alerts k where k.metric = 'operation_tokens' and k.is_active), null, null, p_charged, null);
  if v_threshold is not null then
    v_alerts := v_alerts || jsonb_build_object('type', 'high_usage', 'severity', 'warning',
      'message', format('One operation used %s tokens', governance.with_separators(p_charged)),
      'threshold', v_threshold, 'value', p_charged, 'period', p_day::text, 'subject', '');
  end if;
  for v_limit in
    select * from (values ('daily_limit', p_daily_limit, p_day_before, p_day::text),
      ('monthly_limit', p_monthly_limit, p_month_before, to_char(p_day, 'YYYY-MM'))) x(kind, most, before, period)
    where most > 0
  loop
    select max(w) into v_percent from unnest(p_warn_at) w
    where (v_limit.before + p_charged)::numeric * 100 >= v_limit.most::numeric * w
      and v_limit.before::numeric * 100 < v_limit.most::numeric * w;
    if v_percent is not null then
      -- Another limit, as after an upgrade, warns again.
      v_alerts := v_alerts || jsonb_build_object('type', v_limit.kind || '_' || v_percent,
        'severity', case when v_percent >= 95 then 'critical' else 'warning' end,
        'message', format('%s%% of the %s limit is used', v_percent, replace(v_limit.kind, '_limit', '')),
        'threshold', v_percent, 'value', div((v_limit.before + p_charged)::numeric * 100, v_limit.most),
        'period', v_limit.period, 'subject', v_limit.most::text);
    end if;
  end loop;
  insert into governance.alert_events (account_id, kind, severity, message, threshold, value, period_key, subject,
    details, created_at)
  select p_account_id, x ->> 'type', x ->> 'severity', x ->> 'message', (x ->> 'threshold')::numeric,
    (x ->> 'value')::numeric, x ->> 'period', x ->> 'subject', p_details, p_now
  from jsonb_array_elements(v_alerts) x
  where x ->> 'type' <> 'high_usage'
  on conflict do nothing;
  if v_alerts <> '[]' then
    perform governance.ring('alerts', p_now);
  end if;
  perform governance.raise_high_usage(p_account_id, (x ->> 'threshold')::numeric, p_charged, x ->> 'message', p_day,
    p_details, p_now)
  from jsonb_array_elements(v_alerts) x where x ->> 'type' = 'high_usage';
  return (select coalesce(jsonb_agg(jsonb_build_object('type', x -> 'type', 'severity', x -> 'severity', 'message',
    x -> 'message',
    'details', jsonb_build_object(case when x ->> 'type' = 'low_balance' then 'balance'
      else 'value' end, x -> 'value', 'threshold', x -> 'threshold'))), '[]')
    from jsonb_array_elements(v_alerts) x);
end
$$;
comment on function governance.settlement_alerts(bigint, timestamptz, bigint, bigint, bigint, bigint, bigint, bigint,
  bigint, bigint, bigint, bigint, int[], date, jsonb) is
  'Raises the alerts that a settlement causes, and returns them.';

create function governance.raise_high_usage(p_account_id bigint, p_threshold numeric, p_tokens bigint, p_message text,
  p_day date, p_details jsonb, p_now timestamptz) returns void
  language plpgsql set search_path = '' as $$
declare
  v_largest governance.alert_events;
begin
  select * into v_largest from governance.alert_events e
  where e.account_id = p_account_id and e.kind = 'high_usage' and e.period_key = p_day::text
  order by e.value desc limit 1;
  if v_largest.alert_event_id is null or v_largest.threshold < p_threshold or v_largest.value * 2 <= p_tokens then
    perform governance.raise_alert(null, p_account_id, 'high_usage', 'warning', p_message, p_threshold, p_tokens,
      p_day::text, p_details, p_now, case when v_largest.threshold = p_threshold then p_tokens::text else '' end);
  elsif v_largest.value < p_tokens then
    -- The day's largest call is the one to look at.
    update governance.alert_events e set message = p_message, value = p_tokens, details = p_details
    where e.alert_event_id = v_largest.alert_event_id;
  end if;
end
$$;
comment on function governance.raise_high_usage(bigint, numeric, bigint, text, date, jsonb, timestamptz) is
  'High usage is raised once a day and threshold, and again when a call is at least twice as large; a larger one in '
  'between takes the place of the last in its alert.';

create function governance.budget_subject(p_alert governance.cost_alerts) returns text
  language sql stable set search_path = '' as $$
  select concat_ws(' ', p_alert.metric, p_alert.scope, p_alert.budget,
    case when p_alert.metric = 'cost_micros' then (select c.currency from governance.active_config c) end)
$$;
comment on function governance.budget_subject(governance.cost_alerts) is
  'The subject of a budget: a budget that was edited to measure something else has another one, and is raised again.';

create function governance.evaluate_budget(p_alert governance.cost_alerts, p_since timestamptz, p_now timestamptz)
  returns int
  language plpgsql set search_path = '' as $$
declare
  v_period record;
  v_subject text := governance.budget_subject(p_alert);
  v_value numeric;
  v_reached numeric;
  v_percent bigint;
  v_currency text := (select c.currency from governance.active_config c);
  v_said text;
  v_raised int := 0;
begin
  for v_period in select * from governance.open_periods(p_alert.period, p_since, p_now) loop
    v_value := governance.alert_value(p_alert, v_period.from_day, v_period.to_day);
    v_percent := case when p_alert.budget is not null then div(v_value * 100, p_alert.budget) end;
    select max(t) into v_reached from unnest(p_alert.thresholds) t
    where case when p_alert.budget is not null then v_value * 100 >= t * p_alert.budget else v_value >= t end;
    -- Only the highest threshold reached is raised.
    continue when v_reached is null or exists (
      select from governance.alert_events e where e.alert_id = p_alert.alert_id and e.period_key = v_period.key
        and e.subject = v_subject and e.threshold >= v_reached);
    v_said := governance.say_period(v_period.key, 'en');
    v_raised := v_raised + governance.raise_alert(p_alert.alert_id, null, 'budget',
      case when p_alert.budget is not null and v_reached >= 90 then 'critical' else 'warning' end,
      case when p_alert.budget is not null
        then format('%s: %s%% of the budget for %s is used', replace(p_alert.alert_name, '_', ' '), v_percent, v_said)
        else format('%s: %s used (%s)', replace(p_alert.alert_name, '_', ' '),
          governance.say_amount(p_alert.metric, v_value, v_currency, 'en'), v_said) end,
      v_reached, coalesce(v_percent, v_value), v_period.key,
      jsonb_build_object('alert_name', p_alert.alert_name, 'metric', p_alert.metric, 'scope', p_alert.scope,
        'period', p_alert.period, 'amount', v_value, 'budget', p_alert.budget,
        'currency', v_currency),
      p_now, v_subject);
  end loop;
  return v_raised;
end
$$;
comment on function governance.evaluate_budget(governance.cost_alerts, timestamptz, timestamptz) is
  'Raises the alerts that are due for a budget over many users, for every period that was open since the last look.';

create function governance.usage_not_followed() returns table (account_id bigint, slot timestamptz, tokens bigint)
  language sql stable set search_path = '' as $$
  select t.account_id, date_bin('5 minutes', t.created_at, '2000-01-01'), coalesce(r.charged_tokens, -t.amount)
  from governance.token_transactions t
  left join lateral (select q.charged_tokens from governance.requests q
    where q.decision_id = t.decision_id limit 1) r on true
  where t.transaction_type = 'usage'
    and t.transaction_id > (select (s.value ->> 'consumed')::bigint from governance.maintenance_state s
      where s.key = 'followed_events')
  order by t.transaction_id limit 20000
$$;
comment on function governance.usage_not_followed() is
  'Usage that is committed and that listings and user_totals do not have yet.';

create function governance.active_accounts(p_since timestamptz) returns setof bigint
  language sql stable set search_path = '' as $$
  select l.account_id from governance.account_listings l where l.last_activity_at > p_since
  union
  select u.account_id from governance.usage_not_followed() u
$$;
comment on function governance.active_accounts(timestamptz) is 'Accounts that were active after a moment, or just now.';

create function governance.accounts_over_budget(p_alert governance.cost_alerts, p_since timestamptz,
  p_now timestamptz) returns setof bigint
  language sql stable set search_path = '' as $$
  select d.account_id
  from governance.open_periods(p_alert.period, p_since, p_now) p
  join governance.usage_daily d on d.day between p.from_day and p.to_day
  group by d.account_id, p.key
  having governance.measure(p_alert.metric, sum(d.charged_tokens), sum(d.cost_micros))
    >= (select min(t) from unnest(p_alert.thresholds) t) * coalesce(p_alert.budget / 100.0, 1)
$$;
comment on function governance.accounts_over_budget(governance.cost_alerts, timestamptz, timestamptz) is
  'Accounts that have reached the lowest threshold of a budget that each user has, however long ago they did. Reads '
  'all usage of the period.';

create function governance.evaluate_user_budget(p_alert governance.cost_alerts, p_since timestamptz,
  p_now timestamptz, p_limit int, p_is_changed boolean default false) returns int
  language plpgsql set search_path = '' as $$
declare
  v_row record;
  v_subject text := governance.budget_subject(p_alert);
  v_currency text := (select c.currency from governance.active_config c);
  v_raised int := 0;
begin
  for v_row in
    select a.account_id, a.user_id, p.key, u.value, r.reached
    from (select x from governance.active_accounts(p_since) x where not p_is_changed
      union all
      select distinct x from governance.accounts_over_budget(p_alert, p_since, p_now) x
      where p_is_changed) l(account_id)
    join governance.accounts a using (account_id)
    cross join governance.open_periods(p_alert.period, p_since, p_now) p
    cross join lateral (
      select governance.alert_value(p_alert, p.from_day, p.to_day, a.account_id) as value) u
    cross join lateral (select max(t) as reached from unnest(p_alert.thresholds) t
      where case when p_alert.budget is not null then u.value * 100 >= t * p_alert.budget else u.value >= t end) r
    where r.reached is not null and not exists (
      select from governance.alert_events e where e.alert_id = p_alert.alert_id and e.account_id = a.account_id
        and e.period_key = p.key and e.subject = v_subject and e.threshold >= r.reached)
    limit p_limit
  loop
    v_raised := v_raised + governance.raise_alert(p_alert.alert_id, v_row.account_id, 'user_budget', 'warning',
      format('%s: %s has used %s (%s)', replace(p_alert.alert_name, '_', ' '), v_row.user_id,
        governance.say_amount(p_alert.metric, v_row.value, v_currency, 'en'), governance.say_period(v_row.key, 'en')),
      v_row.reached, v_row.value, v_row.key,
      jsonb_build_object('alert_name', p_alert.alert_name, 'metric', p_alert.metric, 'budget', p_alert.budget,
        'currency', v_currency),
      p_now, v_subject);
  end loop;
  return v_raised;
end
$$;
comment on function governance.evaluate_user_budget(governance.cost_alerts, timestamptz, timestamptz, int, boolean) is
  'Raises the alerts that are due for a budget that each user has: for users active since the last look, or for all '
  'where the budget was changed since; at most p_limit.';

create function governance.evaluate_spikes(p_alert governance.cost_alerts, p_now timestamptz, p_limit int) returns int
  language plpgsql set search_path = '' as $$
declare
  v_row record;
  v_raised int := 0;
begin
  for v_row in
    with recent as (
      -- Tokens that a spike was raised for do not count for another.
      select r.account_id, r.slot, r.tokens, (select max((e.details ->> 'counted_to')::timestamptz)
        from governance.alert_events e where e.alert_id = p_alert.alert_id and e.account_id = r.account_id
          and e.created_at > p_now - interval '2 hours') as raised_to
      from (select u.account_id, u.start as slot, u.tokens from governance.user_totals u
        where u.step = 'five_minutes' and u.start > p_now - interval '25 hours' and u.kind = 'settled'
        union all select * from governance.usage_not_followed()) r
      where r.slot > p_now - interval '25 hours'
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
      format('%s used %s tokens in an hour; %s is usual', v_row.user_id,
        governance.with_separators(v_row.hour_tokens::bigint), governance.with_separators(round(v_row.usual)::bigint)),
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
      select a.account_id, a.local_month, u.percent as usage_percent, g.allowance::text as allowance,
        (select max(w) from unnest(p.warn_at) w where w <= u.percent) as reached
      from governance.active_accounts(p_since) l(account_id)
      join governance.accounts a using (account_id)
      join governance.plans p on p.plan_id = a.plan_id
      -- A user who moves to a smaller plan keeps what the month has given.
      cross join lateral (select greatest(p.monthly_allowance, a.month_allowance) as allowance) g
      cross join lateral governance.percent_used(a.day_tokens + a.reserved_tokens, a.month_tokens + a.reserved_tokens,
        null, null, g.allowance) u(percent)
      where p.daily_limit is null and p.monthly_limit is null and a.month_ends_at > p_now) x
    where x.reached is not null and not exists (select from governance.alert_events e
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

create function governance.ordinary_blocks() returns text[]
  language sql immutable set search_path = '' as $$
  select '{insufficient_tokens,daily_limit,monthly_limit,budget_exhausted,user_blocked,unknown_user,
    plan_required}'::text[]
$$;
comment on function governance.ordinary_blocks() is
  'Reasons of blocks that are no abuse, however many calls they stop: missing tokens, limits, and blocks by operators.';

create function governance.evaluate_abuse_burst(p_now timestamptz) returns int
  language plpgsql set search_path = '' as $$
declare
  c_ordinary constant text[] := governance.ordinary_blocks();
  -- As call_totals has them: whole minutes.
  v_since timestamptz := date_trunc('minute', p_now) - interval '9 minutes';
  v_now bigint;
  v_usual numeric;
  v_reason text;
  v_least bigint := coalesce((select (s.value #>> '{}')::numeric::bigint from governance.settings s
    where s.key = 'abuse_burst_calls' and jsonb_typeof(s.value) = 'number'), 100);
  v_users bigint;
begin
  select coalesce(sum(m.calls) filter (where m.start >= v_since), 0),
    coalesce(sum(m.calls) filter (where m.start < v_since), 0) / 144.0
  into v_now, v_usual from governance.call_totals m
  where m.step = 'minute' and m.start > p_now - interval '1 day' and m.decision = 'block'
    and m.reason <> all (c_ordinary);
  if v_now < v_least or v_now < 5 * v_usual then return 0; end if;
  select m.reason into v_reason from governance.call_totals m
  where m.step = 'minute' and m.start >= v_since and m.decision = 'block'
    and m.reason <> all (c_ordinary)
  group by 1 order by sum(m.calls) desc, 1 limit 1;
  select count(distinct x.account_id) into v_users from (select r.account_id from governance.requests r
    where r.decision = 'block' and r.created_at >= v_since
      and r.reason <> all (c_ordinary) limit 10000) x;
  return governance.raise_alert(null, null, 'abuse_burst', 'critical',
    format('Rules stopped %s calls of %s users within ten minutes, mostly for %s; %s is usual',
      governance.with_separators(v_now), governance.with_separators(v_users), replace(v_reason, '_', ' '),
      governance.with_separators(round(v_usual)::bigint)), v_least, v_now,
    to_char(p_now at time zone 'UTC', 'YYYY-MM-DD"T"HH24'),
    jsonb_build_object('reason', v_reason, 'users', v_users, 'usual_calls', round(v_usual)), p_now);
end
$$;
comment on function governance.evaluate_abuse_burst(timestamptz) is
  'Raises abuse_burst, once an hour, when rules stop at least so many calls within ten minutes (the setting '
  'abuse_burst_calls, 100 by default) and five times the usual of the day before.';

create function governance.evaluate_alerts(p_now timestamptz, p_limit int default 5000) returns int
  language plpgsql set search_path = '' as $$
declare
  v_alert governance.cost_alerts;
  v_found int;
  v_raised int := 0;
  v_is_all boolean := true;
  v_state jsonb;
  v_since timestamptz;
  v_looked_at timestamptz;
begin
  if not pg_try_advisory_xact_lock(7254015) then return 0; end if;
  -- Only accounts active since the last complete look can have reached a threshold; listings lag a little behind.
  select s.value into v_state from governance.maintenance_state s where s.key = 'allowance_warnings';
  v_looked_at := coalesce((v_state ->> 'since')::timestamptz, (v_state ->> 'at')::timestamptz, '-infinity')
    - interval '2 minutes';
  v_since := least(v_looked_at, p_now - interval '10 minutes');
  for v_alert in select * from governance.cost_alerts a where a.is_active and a.retired_at is null
    order by a.alert_id loop
    -- The others are noticed by the settlement itself (governance.settlement_alerts).
    continue when v_alert.metric <> 'spike' and not governance.has_budget(v_alert.metric);
    v_found := case
      when v_alert.metric = 'spike' then governance.evaluate_spikes(v_alert, p_now, p_limit)
      when v_alert.scope = 'user' then governance.evaluate_user_budget(v_alert, v_since, p_now, p_limit,
        v_alert.updated_at > v_looked_at)
      else governance.evaluate_budget(v_alert, v_since, p_now) end;
    v_is_all := v_is_all and v_found < p_limit;
    v_raised := v_raised + v_found;
  end loop;
  v_raised := v_raised + governance.evaluate_abuse_burst(p_now);
  v_found := governance.warn_of_allowances(v_since, p_now, p_limit);
  v_is_all := v_is_all and v_found < p_limit;
  v_raised := v_raised + v_found;
  -- An alert that was raised is not raised again, so the next round finds the rest.
  insert into governance.maintenance_state as s (key, value)
  values ('allowance_warnings',
    jsonb_build_object('at', p_now, 'since', case when v_is_all then p_now else v_since end))
  on conflict (key) do update set value = excluded.value, updated_at = clock_timestamp();
  return v_raised;
end
$$;
comment on function governance.evaluate_alerts(timestamptz, int) is
  'Raises the alerts that are due: budgets, spikes, allowances nearly used; at most so many of a kind in a round, the '
  'rest in the next. Returns how many.';
