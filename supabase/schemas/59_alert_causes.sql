-- From an alert to what is behind it: who, with which model, by which rules.

create function governance.alert_calls(e governance.alert_events, p_accounts bigint[], p_from timestamptz,
  p_to timestamptz)
  returns table (account_id bigint, model text, version_ids bigint[], tokens bigint, cost_micros bigint)
  language sql stable set search_path = '' as $$
  select r.account_id, coalesce(r.settled_model, r.model), r.matched_version_ids || r.rule_version_id,
    coalesce(r.charged_tokens, 0), coalesce(r.cost_micros, 0)
  from unnest(p_accounts) a(id) cross join lateral (select q.* from governance.requests q
    where q.account_id = a.id and q.created_at >= p_from and q.created_at <= p_to
    order by q.created_at desc limit 5000) r
  union all
  (select r.account_id, r.requested_model, r.matched_version_ids || r.rule_version_id, 0::bigint, 0::bigint
  from governance.requests r
  where e.kind = 'abuse_burst' and r.decision = 'block' and r.reason <> all (governance.ordinary_blocks())
    and r.created_at >= p_from and r.created_at <= p_to
  order by r.created_at desc limit 20000)
$$;
comment on function governance.alert_calls(governance.alert_events, bigint[], timestamptz, timestamptz) is
  'The newest calls of these accounts in a stretch of time; of a burst, those that rules stopped.';

create function public.console_alert_causes(p_alert_event_id bigint) returns jsonb
  language plpgsql stable security definer set search_path = '' set jit = off as $$
declare
  e governance.alert_events;
  v_from timestamptz;
  v_to timestamptz;
  v_period record;
  v_filter jsonb;
  v_users jsonb;
  v_models jsonb;
  v_accounts bigint[];
begin
  perform governance.refuse_others('console_alert_causes');
  select * into e from governance.alert_events x where x.alert_event_id = p_alert_event_id;
  if not found then
    perform governance.fail('PT404', 'not_found', format('There is no alert %s', p_alert_event_id));
  end if;
  v_to := e.created_at + case when e.kind = 'abuse_burst' then interval '0' else interval '1 minute' end;
  v_from := case when e.kind = 'usage_spike' then e.created_at - interval '1 hour'
    when e.kind = 'abuse_burst' then date_trunc('minute', e.created_at) - interval '9 minutes'
    else e.created_at - interval '1 day' end;
  if e.kind = 'budget' then
    select p.* into v_period
    -- As far back as governance.open_periods looks: where upkeep was away, a budget is raised late.
    from generate_series(-34, 1) n
    cross join lateral governance.budget_period(coalesce(e.details ->> 'period', 'month'),
      (e.created_at at time zone 'UTC')::date + n) p
    where p.key = e.period_key limit 1;
    if (v_period.to_day + 1)::timestamp at time zone 'UTC' < v_from then
      -- The last day of a period that was over, from its beginning in the east to its end in the west.
      v_from := v_period.to_day::timestamp at time zone 'UTC' - interval '14 hours';
      v_to := (v_period.to_day + 1)::timestamp at time zone 'UTC' + interval '12 hours';
    end if;
    select jsonb_build_object(s.kind, s.id) into v_filter from governance.alert_scope(e.details ->> 'scope') s
    where s.id is not null;
    with users as (
      select a.account_id, a.user_id, a.display_name, u.calls, u.tokens, u.cost_micros
      from governance.dearest_users(v_period.from_day, v_period.from_day, v_period.to_day,
        coalesce(v_filter, '{}')) u
      join governance.accounts a using (user_id)
      order by governance.measure(e.details ->> 'metric', u.tokens, u.cost_micros) desc, 1 limit 5)
    select array_agg(u.account_id), jsonb_agg(jsonb_build_object('user_id', u.user_id, 'display_name',
      u.display_name, 'calls', u.calls, 'tokens', u.tokens, 'cost_micros', u.cost_micros))
    into v_accounts, v_users from users u;
    select jsonb_agg(to_jsonb(m) order by m.cost_micros desc, m.tokens desc, m.model) into v_models from (
      select u.model, sum(u.calls)::bigint as calls, sum(u.charged_tokens)::bigint as tokens,
        sum(u.cost_micros)::bigint as cost_micros
      from governance.usage_in_scope(e.details ->> 'scope', v_period.from_day, v_period.to_day) u
      group by 1 order by 4 desc, 3 desc, 1 limit 5) m;
  elsif e.account_id is not null and e.kind <> 'maintenance_failed' then
    v_accounts := array[e.account_id];
  elsif e.kind <> 'abuse_burst' then
    return jsonb_build_object('from', v_from, 'to', v_to, 'users', '[]'::jsonb, 'models', '[]'::jsonb,
      'rules', '[]'::jsonb);
  end if;
  return (
    with calls as materialized (
      select * from governance.alert_calls(e, coalesce(v_accounts, '{}'), v_from, v_to)
    ), users as (
      select a.user_id, a.display_name, x.calls, x.tokens, x.cost_micros from (
        select c.account_id, count(*) as calls, sum(c.tokens)::bigint as tokens,
          sum(c.cost_micros)::bigint as cost_micros
        from calls c group by 1 order by 4 desc, 3 desc, 2 desc, 1 limit 5) x
      join governance.accounts a using (account_id)
    ), models as (
      select c.model, count(*) as calls, sum(c.tokens)::bigint as tokens, sum(c.cost_micros)::bigint as cost_micros
      from calls c group by 1 order by 4 desc, 3 desc, 2 desc, 1 limit 5
    ), rules as (
      select v.rule_name, count(*) as calls, sum(c.tokens)::bigint as tokens,
        sum(c.cost_micros)::bigint as cost_micros
      from calls c
      cross join lateral (select distinct x.id from unnest(c.version_ids) x(id) where x.id is not null) m
      join governance.rule_versions v on v.version_id = m.id
      group by 1 order by 4 desc, 2 desc, 1 limit 5
    )
    select jsonb_build_object('from', v_from, 'to', v_to,
      'users', coalesce(v_users, (select jsonb_agg(to_jsonb(u) order by u.cost_micros desc, u.tokens desc,
        u.calls desc, u.user_id) from users u), '[]'),
      'models', coalesce(v_models, (select jsonb_agg(to_jsonb(m) order by m.cost_micros desc, m.tokens desc,
        m.calls desc, m.model) from models m), '[]'),
      'rules', coalesce((select jsonb_agg(to_jsonb(r) order by r.cost_micros desc, r.calls desc, r.rule_name)
        from rules r), '[]')));
end
$$;
comment on function public.console_alert_causes(bigint) is
  'The causes of an alert: the first five users, models and rules that matched. Of a budget, users and models of its '
  'period and rules of those users'' last day; of a spike, the hour before it; of a burst, the calls that were '
  'stopped; else the day before, of its user. Errors: not_found.';
revoke all on function public.console_alert_causes(bigint) from public, anon, authenticated;
grant execute on function public.console_alert_causes(bigint) to service_role;
