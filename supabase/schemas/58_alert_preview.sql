-- When an alert would have been raised: for its editor, before it is saved.

create function governance.budget_moments(p_alert governance.cost_alerts, p_from date, p_to date,
  p_account_ids bigint[])
  returns table (account_id bigint, day date, key text, threshold numeric, passed bigint)
  language sql stable set search_path = '' as $$
  with days as (
    select null::bigint as account_id, u.day,
      governance.measure(p_alert.metric, sum(u.charged_tokens), sum(u.cost_micros)) as value
    from governance.usage_in_scope(p_alert.scope,
      (governance.budget_period(p_alert.period, p_from)).from_day, p_to) u
    where p_alert.scope <> 'user'
    group by u.day
    union all
    select d.account_id, d.day,
      governance.measure(p_alert.metric, sum(d.charged_tokens), sum(d.cost_micros))
    from (
      select x.* from governance.usage_daily x where p_account_ids is null
        and x.day between (governance.budget_period(p_alert.period, p_from)).from_day and p_to
      union all
      select x.* from unnest(p_account_ids) a(id)
      cross join lateral (select y.* from governance.usage_daily y where y.account_id = a.id
        and y.day between (governance.budget_period(p_alert.period, p_from)).from_day and p_to offset 0) x) d
    where p_alert.scope = 'user'
    group by d.account_id, d.day
  ), sums as (
    select d.account_id, d.day, p.key, d.value,
      sum(d.value) over (partition by d.account_id, p.key order by d.day) as upto
    from days d cross join lateral governance.budget_period(p_alert.period, d.day) p
  )
  -- Of several that are passed on one day, the highest is raised for sure; each, if the calls between them took time.
  select s.account_id, s.day, s.key, max(t), count(*)
  from sums s cross join unnest(p_alert.thresholds) t
  cross join lateral (select case when p_alert.budget is null then t else t * p_alert.budget / 100 end as amount) x
  where s.day >= p_from and s.upto >= x.amount and s.upto - s.value < x.amount
  group by 1, 2, 3
$$;
comment on function governance.budget_moments(governance.cost_alerts, date, date, bigint[]) is
  'The days on which a budget reached a threshold (the highest, and how many), of all, or of each user: of these '
  'accounts, or, null, of all.';

create function governance.most_looked_back() returns int
  language sql immutable set search_path = '' as $$ select 20000 $$;
comment on function governance.most_looked_back() is
  'How many entries of the ledger are read, the newest, to say when an alert about calls would have been raised.';

create function governance.newest_usage(p_from timestamptz)
  returns table (account_id bigint, at timestamptz, tokens bigint, balance_before bigint, balance_after bigint,
    debt_after bigint)
  language sql stable set search_path = '' as $$
  select t.account_id, t.created_at, -t.amount, t.previous_balance, t.new_balance, t.debt_after
  from (select y.* from governance.token_transactions y order by y.transaction_id desc
    limit governance.most_looked_back()) t
  where t.transaction_type = 'usage' and t.created_at >= p_from
$$;
comment on function governance.newest_usage(timestamptz) is
  'Usage since a moment, as far back as the newest entries of the ledger go.';

create function governance.call_moments(p_alert governance.cost_alerts, p_from timestamptz)
  returns table (account_id bigint, day date, key text, threshold numeric)
  language sql stable set search_path = '' as $$
  select distinct e.account_id, d.day, d.day::text, x.threshold
  from governance.newest_usage(p_from) e
  cross join lateral (select (e.at at time zone 'UTC')::date as day) d
  cross join lateral (select governance.passed_threshold(p_alert.metric, p_alert.thresholds, e.balance_before,
    e.balance_after, e.tokens, e.debt_after) as threshold offset 0) x
  where x.threshold is not null
$$;
comment on function governance.call_moments(governance.cost_alerts, timestamptz) is
  'The days on which calls reached a threshold of a balance, a debt or one call, by the ledger.';

create function governance.spike_moments(p_alert governance.cost_alerts, p_from timestamptz, p_account_ids bigint[])
  returns table (account_id bigint, day date, key text, threshold numeric)
  language sql stable set search_path = '' as $$
  with used as (
    select e.account_id, date_trunc('hour', e.at, 'UTC') as hour, sum(e.tokens) as tokens
    from governance.newest_usage(p_from - interval '1 day') e where p_account_ids is null group by 1, 2
    union all
    select u.account_id, date_trunc('hour', u.at, 'UTC'), sum(u.tokens)
    from (select x.account_id, x.start as at, x.tokens from governance.user_totals x
      where x.step = 'five_minutes' and x.start >= p_from - interval '1 day' and x.start < p_from + interval '2 days'
        and x.account_id = any (p_account_ids) and x.kind = 'settled'
      union all
      select n.account_id, n.slot, n.tokens from governance.usage_not_followed() n
      where n.account_id = any (p_account_ids)) u
    group by 1, 2
  ), hours as (
    select h.*, coalesce(sum(h.tokens) over (partition by h.account_id order by h.hour
      range between interval '24 hours' preceding and interval '1 hour' preceding), 0) / 24 as usual
    from used h
  )
  select h.account_id, (h.hour at time zone 'UTC')::date, to_char(h.hour at time zone 'UTC', 'YYYY-MM-DD"T"HH24'),
    max(t)
  from hours h cross join unnest(p_alert.thresholds) t
  where h.hour >= p_from and h.tokens >= t * greatest(h.usual, 1)
    and h.tokens > (select c.high_usage_tokens from governance.active_config c)
  group by 1, 2, 3
$$;
comment on function governance.spike_moments(governance.cost_alerts, timestamptz, bigint[]) is
  'The hours of the clock in which users used so many times their usual: by the ledger, or, of these accounts, by what '
  'is kept of the last two days in five minutes.';

create function governance.raised_alerts(p_alert governance.cost_alerts, p_now timestamptz) returns jsonb
  language plpgsql stable set search_path = '' set jit = off as $$
declare
  v_has_budget boolean := governance.has_budget(p_alert.metric);
  v_today date := (p_now at time zone 'UTC')::date;
  v_since date := v_today - case when p_alert.scope = 'user' then 29 else 89 end;
  v_since_at timestamptz;
  -- Of very many users those are looked at that used most; null: all.
  v_account_ids bigint[];
  v_answer jsonb;
begin
  if not v_has_budget then
    select y.created_at into v_since_at from governance.token_transactions y order by y.transaction_id desc
      offset governance.most_looked_back() - 1 limit 1;
    if v_since_at < v_since::timestamp at time zone 'UTC' then v_since_at := null; end if;
    if v_since_at is not null and p_alert.metric = 'spike' then
      v_since_at := date_trunc('hour', p_now, 'UTC') - interval '23 hours';
      v_account_ids := array(select x from governance.leading_accounts(v_today - 1, v_today, 'tokens') x limit 50);
    end if;
    v_since := coalesce((v_since_at at time zone 'UTC')::date, v_since);
  elsif p_alert.scope = 'user' and (select coalesce(sum(u.active_users), 0) from governance.usage_days u
    where u.day >= (governance.budget_period(p_alert.period, v_since)).from_day) > governance.most_read_users() then
    v_account_ids := array(select x from governance.leading_accounts(
      (governance.budget_period(p_alert.period, v_since)).from_day, v_today, p_alert.metric) x);
  end if;
  with moments as materialized (
    select m.* from governance.budget_moments(p_alert, v_since, governance.last_open_day(p_now), v_account_ids) m
    where v_has_budget
    union all
    select m.*, 1 from governance.spike_moments(p_alert,
      coalesce(v_since_at, v_since::timestamp at time zone 'UTC'), v_account_ids) m
    where p_alert.metric = 'spike'
    union all
    select m.*, 1
    from governance.call_moments(p_alert, coalesce(v_since_at, v_since::timestamp at time zone 'UTC')) m
    where not v_has_budget and p_alert.metric <> 'spike'
  )
  select jsonb_build_object('since', v_since, 'since_at', v_since_at, 'is_part', v_account_ids is not null,
    'times', count(*), 'times_at_most', coalesce(sum(m.passed), 0),
    'users', case when p_alert.scope = 'user' then count(distinct m.account_id) end,
    'latest', (select coalesce(jsonb_agg(jsonb_build_object('day', x.day, 'key', x.key, 'threshold', x.threshold,
        'user_id', (select a.user_id from governance.accounts a where a.account_id = x.account_id))
      order by x.day desc, x.threshold desc, x.account_id), '[]')
      from (select y.* from moments y order by y.day desc, y.threshold desc, y.account_id limit 10) x))
  into v_answer from moments m;
  return v_answer;
end
$$;
comment on function governance.raised_alerts(governance.cost_alerts, timestamptz) is
  'When an alert would have been raised in the last 90 days, of users in the last 30; of calls as far back as the '
  'newest entries go, from since_at. times_at_most: where several thresholds are passed on one day, all of them may '
  'have been raised, one after the other. is_part: there are so many users that only those that used most were '
  'looked at. Reads as much of a long history as of a short one.';

create function governance.alert_effect(p_record jsonb, p_old jsonb, p_now timestamptz) returns jsonb
  language plpgsql stable set search_path = '' as $$
declare
  v_plans jsonb := (select jsonb_agg(jsonb_build_object('plan_id', p.plan_id)) from governance.plans p);
  v_currency text := (select c.currency from governance.active_config c);
begin
  return jsonb_build_object(
    'raised', case when p_record is not null then
      governance.raised_alerts(governance.check_alert(p_record, 'alerts', v_plans, v_currency), p_now) end,
    'raised_now', case when p_old is not null then
      governance.raised_alerts(governance.check_alert(p_old, 'alerts', v_plans, v_currency), p_now) end);
exception when sqlstate 'PT422' then
  -- Its mistakes are reported already.
  return '{}';
end
$$;
comment on function governance.alert_effect(jsonb, jsonb, timestamptz) is
  'When an alert would have been raised as it is wanted, and as it is.';
