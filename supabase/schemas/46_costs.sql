-- The costs desk: what was used and what it cost, over any range, from the roll-ups alone.

create function public.console_costs(p_from date, p_to date, p_step text default 'day', p_by text default 'model',
  p_filter jsonb default '{}') returns jsonb
  language plpgsql security definer set search_path = '' set jit = off set plan_cache_mode = 'force_custom_plan' as $$
declare
  v_before date;
  v_account_id bigint;
  v_by_account boolean;
  v_answer jsonb;
begin
  perform governance.refuse_others('console_costs');
  if p_from is null or p_to is null or not isfinite(p_from) or not isfinite(p_to) or p_from > p_to
    or p_from < '1900-01-01' or p_to > '2199-12-31' or p_to - p_from > 3660 then
    perform governance.fail('PT400', 'invalid_argument', 'p_from and p_to are days, at most ten years apart');
  end if;
  if p_step is null or p_step not in ('day', 'week', 'month') then
    perform governance.fail('PT400', 'invalid_argument', 'p_step is day, week or month');
  end if;
  if p_by is null or p_by not in ('model', 'provider', 'plan', 'task_type', 'scope', 'user') then
    perform governance.fail('PT400', 'invalid_argument', 'p_by is model, provider, plan, task_type, scope or user');
  end if;
  if p_filter is null or jsonb_typeof(p_filter) <> 'object' or exists (select from jsonb_each(p_filter) f
    where f.key not in ('model', 'provider', 'plan', 'task_type', 'scope', 'user') or jsonb_typeof(f.value) <> 'string'
      or length(f.value #>> '{}') > 500) then
    perform governance.fail('PT400', 'invalid_argument',
      'p_filter is an object of model, provider, plan, task_type, scope and user, each a text');
  end if;
  if p_filter ? 'user' then
    select a.account_id into v_account_id from governance.accounts a where a.user_id = p_filter ->> 'user';
    if v_account_id is null then
      perform governance.fail('PT404', 'unknown_user', format('There is no account of user "%s"',
        left(p_filter ->> 'user', 64)));
    end if;
  end if;
  v_before := p_from - (p_to - p_from + 1);
  v_by_account := p_by in ('plan', 'user') or p_filter ?| array['plan', 'user'];
  with usage as materialized (
    select u.day, u.model, u.task_type, u.scope_id, null::bigint as account_id, u.calls,
      u.input_tokens + u.output_tokens as tokens, u.cost_micros
    from governance.usage_between(v_before, p_to) u where not v_by_account
    union all
    select d.day, d.model, d.task_type, d.scope_id, d.account_id, d.calls, d.input_tokens + d.output_tokens,
      d.cost_micros
    from governance.usage_daily d where v_by_account and v_account_id is null and d.day between v_before and p_to
    union all
    select d.day, d.model, d.task_type, d.scope_id, d.account_id, d.calls, d.input_tokens + d.output_tokens,
      d.cost_micros
    from governance.usage_daily d where d.account_id = v_account_id and d.day between v_before and p_to
  ), models as materialized (
    select m.model, governance.provider_of(m.model, governance.now()) as provider
    from (select distinct u.model from usage u) m
  ), keyed as materialized (
    select u.day, u.day >= p_from as is_now, u.calls, u.tokens, u.cost_micros,
      case p_by when 'model' then u.model when 'provider' then coalesce(m.provider, '')
        when 'plan' then coalesce(a.plan_id, '') when 'task_type' then u.task_type when 'scope' then u.scope_id
        else u.account_id::text end as key
    from usage u join models m using (model)
    left join governance.accounts a on a.account_id = u.account_id and v_by_account
    where (p_filter ->> 'model' is null or u.model = p_filter ->> 'model')
      and (p_filter ->> 'provider' is null or coalesce(m.provider, '') = p_filter ->> 'provider')
      and (p_filter ->> 'task_type' is null or u.task_type = p_filter ->> 'task_type')
      and (p_filter ->> 'scope' is null or u.scope_id = p_filter ->> 'scope')
      and (p_filter ->> 'plan' is null or coalesce(a.plan_id, '') = p_filter ->> 'plan')
  ), parts as materialized (
    select k.key, coalesce(sum(k.cost_micros) filter (where k.is_now), 0) as cost_micros,
      coalesce(sum(k.cost_micros) filter (where not k.is_now), 0) as before_cost_micros,
      coalesce(sum(k.calls) filter (where k.is_now), 0) as calls,
      coalesce(sum(k.tokens) filter (where k.is_now), 0) as tokens
    from keyed k group by 1
  )
  select jsonb_build_object('from', p_from, 'to', p_to, 'before_from', v_before, 'step', p_step, 'by', p_by,
    'currency', (select c.currency from governance.active_config c),
    'cost_micros', coalesce(sum(k.cost_micros) filter (where k.is_now), 0),
    'calls', coalesce(sum(k.calls) filter (where k.is_now), 0),
    'tokens', coalesce(sum(k.tokens) filter (where k.is_now), 0),
    'before', jsonb_build_object('cost_micros', coalesce(sum(k.cost_micros) filter (where not k.is_now), 0),
      'calls', coalesce(sum(k.calls) filter (where not k.is_now), 0),
      'tokens', coalesce(sum(k.tokens) filter (where not k.is_now), 0)),
    'periods', (select jsonb_agg(jsonb_build_object('from', greatest(p.first, p_from),
        'to', least(p.next - 1, p_to), 'cost_micros', coalesce(x.cost_micros, 0), 'calls', coalesce(x.calls, 0),
        'tokens', coalesce(x.tokens, 0)) order by p.first)
      from (select g::date as first, (g + ('1 ' || p_step)::interval)::date as next
        from generate_series(date_trunc(p_step, p_from::timestamp), p_to::timestamp, ('1 ' || p_step)::interval) g) p
      left join (select date_trunc(p_step, y.day::timestamp)::date as first, sum(y.cost_micros) as cost_micros,
          sum(y.calls) as calls, sum(y.tokens) as tokens
        from keyed y where y.is_now group by 1) x using (first)),
    'parts', (select coalesce(jsonb_agg(jsonb_build_object(
        'key', case when p_by = 'user' then a.user_id else x.key end,
        'name', case when p_by = 'user' then a.display_name when p_by = 'plan' then p.name end,
        'cost_micros', x.cost_micros, 'before_cost_micros', x.before_cost_micros, 'calls', x.calls,
        'tokens', x.tokens) order by x.cost_micros desc, x.tokens desc, x.key), '[]')
      from (select * from parts y where y.calls > 0 or y.before_cost_micros > 0
        order by y.cost_micros desc, y.tokens desc, y.key limit 100) x
      left join governance.accounts a on p_by = 'user' and a.account_id = x.key::bigint
      left join governance.plans p on p_by = 'plan' and p.plan_id = x.key),
    'part_count', (select count(*) from parts y where y.calls > 0),
    'top_ten_cost_micros', (select coalesce(sum(t.cost_micros), 0) from (select y.cost_micros from parts y
      order by y.cost_micros desc limit 10) t))
  into v_answer
  from keyed k;
  return v_answer;
end
$$;
comment on function public.console_costs(date, date, text, text, jsonb) is
  'Cost in micro-units of the currency, calls and tokens from p_from to p_to, both days included, beside as many days '
  'before: in all, by day, week (from Monday) or month, and by model, provider, plan (the one that accounts have '
  'now), task_type, scope or user, the 100 dearest. Days are each account''s own; a call counts when it settled; '
  'models without a price cost nothing. Source: the roll-ups usage_totals and usage_daily. Errors: '
  'invalid_argument, unknown_user.';
revoke all on function public.console_costs(date, date, text, text, jsonb) from public, anon, authenticated;
grant execute on function public.console_costs(date, date, text, text, jsonb) to service_role;
