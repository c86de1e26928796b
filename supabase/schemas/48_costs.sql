-- The costs desk: what was used and what it cost, over any range, from the roll-ups alone. Two of them are its own:
-- usage by session and by agent, and estimates of what was saved.

create table governance.named_usage (
  -- The account's own, as in usage_daily.
  day date not null,
  what text not null check (what in ('session', 'agent')),
  -- 0 for everybody's together.
  account_id bigint not null,
  name text not null,
  -- That the account had when it was counted.
  plan_id text not null,
  model text not null,
  task_type text not null,
  scope_id text not null,
  calls bigint not null,
  tokens bigint not null,
  cost_micros bigint not null,
  primary key (day, what, account_id, name, plan_id, model, task_type, scope_id)
) with (fillfactor = 70);

comment on table governance.named_usage is 'Settled usage by session (conversation_id) and agent (metadata.agent of '
  'the settlement), of everybody and of each account; of days that are ranked, the 200 of each that used and cost '
  'most, and of accounts those that were among the first.';

create table governance.savings_days (
  day date not null,
  kind text not null check (kind in ('routing', 'caching', 'rules')),
  calls bigint not null,
  saved_micros bigint not null,
  primary key (day, kind)
);

comment on table governance.savings_days is
  'Estimates of money that was not spent: by calls that rules sent to another model, at the price of the one asked '
  'for; by cached input, at the price of plain input; by calls that rules stopped, at the mean price of a token of the '
  'model asked for.';

create function governance.named_between(p_after bigint, p_upto bigint, p_account_id bigint default null)
  returns setof governance.named_usage
  language sql stable set search_path = '' as $$
  select r.usage_day, x.what, w.account_id, left(x.name, 200), coalesce(a.plan_id, ''), r.settled_model,
    coalesce(r.task_type, ''), coalesce(r.scope_id, ''), count(*), sum(r.input_tokens + r.output_tokens)::bigint,
    sum(coalesce(r.cost_micros, 0))::bigint
  from governance.token_transactions t
  cross join lateral (select q.* from governance.requests q where q.decision_id = t.decision_id limit 1) r
  left join governance.accounts a on a.account_id = r.account_id
  cross join lateral (values ('session', r.conversation_id), ('agent', r.settle_metadata ->> 'agent')) x(what, name)
  cross join lateral (values (r.account_id), (0)) w(account_id)
  where t.transaction_id > p_after and t.transaction_id <= p_upto and t.transaction_type = 'usage'
    and (p_account_id is null or t.account_id = p_account_id) and r.usage_day is not null and x.name <> ''
  group by 1, 2, 3, 4, 5, 6, 7, 8
$$;
comment on function governance.named_between(bigint, bigint, bigint) is
  'Usage settled between two ids by session and agent, of one account or of all.';

create function governance.add_named_usage(p_after bigint, p_upto bigint, p_account_id bigint default null)
  returns void
  language plpgsql set search_path = '' as $$
declare
  v_named governance.named_usage[] := array(select n from governance.named_between(p_after, p_upto, p_account_id) n);
begin
  insert into governance.named_usage as n select * from unnest(v_named)
  on conflict (day, what, account_id, name, plan_id, model, task_type, scope_id) do update set
    calls = n.calls + excluded.calls, tokens = n.tokens + excluded.tokens,
    cost_micros = n.cost_micros + excluded.cost_micros;
  perform governance.add_to_ranks(array(
    select row(x.day, x.what, x.account_id, x.name, sum(x.tokens), sum(x.cost_micros), 0, false)::governance.day_ranks
    from unnest(v_named) x where x.account_id = 0 group by x.day, x.what, x.account_id, x.name));
end
$$;
comment on function governance.add_named_usage(bigint, bigint, bigint) is
  'Adds the usage settled between two ids to named_usage, of one account or of all.';

create function governance.leading_names(p_what text, p_from date, p_to date, p_account_id bigint)
  returns setof governance.named_usage
  language sql stable set search_path = '' as $$
  with uncounted as materialized (
    -- All usage that is committed and not yet counted: any that is left out would seem to name no session.
    select n.*
    from governance.followed() f
    cross join lateral governance.named_between(f.upto, 9223372036854775807, p_account_id) n
    where n.what = p_what and n.account_id = coalesce(p_account_id, 0) and n.day between p_from and p_to
  )
  select n.* from governance.named_usage n
  where n.day between p_from and p_to and n.what = p_what
    and n.account_id = coalesce(p_account_id, 0)
    and (p_account_id is not null or n.day <= (select governance.ranked_day()))
  union all
  select n.*
  from (
    select k.day, k.name from governance.day_ranks k
    where p_account_id is null and k.what = p_what and k.is_leader and k.day > (select governance.ranked_day())
      and k.day between p_from and p_to
    union
    -- Accounts with calls that are not counted yet, which may bring them to the front.
    select m.day, u.name
    from governance.rank_marks m cross join (select distinct c.name from uncounted c) u
    where p_account_id is null and m.what = p_what and m.day between p_from and p_to) k
  cross join lateral (select x.* from governance.named_usage x where x.day = k.day and x.what = p_what
    and x.account_id = 0 and x.name = k.name offset 0) n
  union all
  select u.* from uncounted u
$$;
comment on function governance.leading_names(text, date, date, bigint) is
  'Everybody''s usage of the sessions or agents that used and cost most on each day, or one account''s of all.';

create function governance.savings_between(p_after bigint, p_upto bigint, p_account_id bigint default null)
  returns setof governance.savings_days
  language sql stable set search_path = '' as $$
  select e.day, e.kind, count(*), sum(e.saved)::bigint
  from (
    select r.usage_day as day, x.kind, x.saved
    from governance.token_transactions t
    cross join lateral (select q.* from governance.requests q where q.decision_id = t.decision_id limit 1) r
    cross join lateral (
      select 'routing' as kind, governance.cost_micros(p, r.created_at, r.input_tokens, r.output_tokens,
        coalesce(r.settle_metadata, '{}')) - r.cost_micros as saved
      from governance.price_at(r.requested_model, r.created_at) p
      where r.model <> r.requested_model and r.settled_model = r.model and p.price_id is not null
      union all
      select 'caching', div(r.cached_input_tokens::numeric * (p.input_micros_per_million
        - coalesce(p.cached_input_micros_per_million, p.input_micros_per_million)), 1000000)
      from governance.price_at(r.settled_model, r.created_at) p where r.cached_input_tokens > 0
        and p.price_id is not null) x
    where t.transaction_id > p_after and t.transaction_id <= p_upto and t.transaction_type = 'usage'
      and (p_account_id is null or t.account_id = p_account_id) and r.usage_day is not null
      and r.cost_micros is not null
    union all
    select (r.created_at at time zone 'UTC')::date, 'rules', div((r.facts).estimated_tokens::numeric
      * (p.input_micros_per_million + p.output_micros_per_million), 2000000)
    from governance.requests r cross join lateral governance.price_at(r.requested_model, r.created_at) p
    where r.decision_id > p_after and r.decision_id <= p_upto and r.decision = 'block'
      and r.rule_version_id is not null and p.price_id is not null
      and (p_account_id is null or r.account_id = p_account_id)) e
  where e.saved <> 0
  group by 1, 2
$$;
comment on function governance.savings_between(bigint, bigint, bigint) is
  'Estimated savings between two ids, of one account or of all.';

create function governance.add_savings(p_after bigint, p_upto bigint, p_account_id bigint default null) returns void
  language sql set search_path = '' as $$
  insert into governance.savings_days as s (day, kind, calls, saved_micros)
  select x.* from governance.savings_between(p_after, p_upto, p_account_id) x
  on conflict (day, kind) do update set calls = s.calls + excluded.calls,
    saved_micros = s.saved_micros + excluded.saved_micros
$$;
comment on function governance.add_savings(bigint, bigint, bigint) is
  'Adds the estimated savings between two ids to savings_days, of one account or of all.';

create function governance.most_read_users() returns bigint
  language sql immutable set search_path = '' as $$ select 50000::bigint $$;
comment on function governance.most_read_users() is 'How many users'' days are read one by one for the costs desk.';

create function governance.named_parts(p_what text, p_before date, p_from date, p_to date, p_filter jsonb,
  p_account_id bigint)
  returns table (name text, cost_micros bigint, before_cost_micros bigint, calls bigint, tokens bigint)
  language sql stable set search_path = '' as $$
  select n.name, coalesce(sum(n.cost_micros) filter (where n.day >= p_from), 0)::bigint,
    coalesce(sum(n.cost_micros) filter (where n.day < p_from), 0)::bigint,
    coalesce(sum(n.calls) filter (where n.day >= p_from), 0)::bigint,
    coalesce(sum(n.tokens) filter (where n.day >= p_from), 0)::bigint
  from governance.leading_names(p_what, p_before, p_to, p_account_id) n
  left join governance.accounts a using (account_id)
  where (p_filter ->> 'model' is null or n.model = p_filter ->> 'model')
    and (p_filter ->> 'provider' is null
      or coalesce(governance.provider_of(n.model, governance.now()), '') = p_filter ->> 'provider')
    and (p_filter ->> 'task_type' is null or n.task_type = p_filter ->> 'task_type')
    and (p_filter ->> 'scope' is null or n.scope_id = p_filter ->> 'scope')
    and (p_filter ->> 'plan' is null or coalesce(a.plan_id, n.plan_id) = p_filter ->> 'plan')
  group by 1
$$;
comment on function governance.named_parts(text, date, date, date, jsonb, bigint) is
  'Cost by session or agent, before a day and from it on.';

create function governance.leading_accounts(p_from date, p_to date, p_metric text, p_model text default null)
  returns setof bigint
  language sql stable set search_path = '' as $$
  with uncounted as materialized (
    select c.account_id, c.kind, c.model, c.tokens, c.cost_micros
    from governance.followed() f cross join lateral governance.count_calls(f.upto, 9223372036854775807) c
  )
  select u.account_id
  from (
    select l.account_id, l.kind, l.model, l.tokens, l.cost_micros
    from governance.leading_users((p_from - 1)::timestamp at time zone 'UTC',
      (p_to + 2)::timestamp at time zone 'UTC', array(select distinct c.account_id from uncounted c),
      null, null, p_model) l
    union all
    select c.* from uncounted c) u
  where u.kind = 'settled' and (p_model is null or u.model = p_model)
  group by 1 order by governance.measure(p_metric, sum(u.tokens), sum(u.cost_micros)) desc, 1 limit 300
$$;
comment on function governance.leading_accounts(date, date, text, text) is
  'Of the accounts that used or cost most on a day, the 300 that used (tokens) or cost (cost_micros) most in all.';

create function governance.dearest_users(p_before date, p_from date, p_to date, p_filter jsonb)
  returns table (user_id text, cost_micros bigint, before_cost_micros bigint, calls bigint, tokens bigint)
  language sql stable set search_path = '' as $$
  select a.user_id, coalesce(sum(d.cost_micros) filter (where d.day >= p_from), 0)::bigint,
    coalesce(sum(d.cost_micros) filter (where d.day < p_from), 0)::bigint,
    coalesce(sum(d.calls) filter (where d.day >= p_from), 0)::bigint,
    coalesce(sum(d.input_tokens + d.output_tokens) filter (where d.day >= p_from), 0)::bigint
  from governance.leading_accounts(p_from, p_to, 'cost_micros', p_filter ->> 'model') c(account_id)
  join governance.accounts a using (account_id)
  join governance.usage_daily d on d.account_id = c.account_id and d.day between p_before and p_to
  where (p_filter ->> 'model' is null or d.model = p_filter ->> 'model')
    and (p_filter ->> 'provider' is null
      or coalesce(governance.provider_of(d.model, governance.now()), '') = p_filter ->> 'provider')
    and (p_filter ->> 'task_type' is null or d.task_type = p_filter ->> 'task_type')
    and (p_filter ->> 'scope' is null or d.scope_id = p_filter ->> 'scope')
    and (p_filter ->> 'plan' is null or coalesce(a.plan_id, '') = p_filter ->> 'plan')
  group by 1
$$;
comment on function governance.dearest_users(date, date, date, jsonb) is
  'Exact costs of the users that were among those who cost most on a day, where there are too many to read all.';

-- The parts of sessions, of agents and of very many users, beside the totals of all.
create function governance.costs_of_named(p_whole jsonb, p_by text, p_before date, p_from date, p_to date,
  p_filter jsonb, p_account_id bigint, p_is_large boolean) returns jsonb
  language sql stable set search_path = '' as $$
  with parts as materialized (
    select n.name as key, n.cost_micros, n.before_cost_micros,
      n.calls, n.tokens
    from governance.named_parts(p_by, p_before, p_from, p_to, p_filter, p_account_id) n
    where not p_is_large
    union all
    select u.user_id, u.cost_micros, u.before_cost_micros, u.calls, u.tokens
    from governance.dearest_users(p_before, p_from, p_to, p_filter) u where p_is_large
  ), first as (
    select p.*, row_number() over (order by p.cost_micros desc, p.tokens desc, p.key) as place from parts p
    where p.calls > 0 or p.before_cost_micros > 0
  ), rest as (
    -- Calls that name none, and whatever is not among those that are read.
    select '' as key, (p_whole ->> 'cost_micros')::bigint - coalesce(sum(p.cost_micros), 0) as cost_micros,
      (p_whole #>> '{before,cost_micros}')::bigint - coalesce(sum(p.before_cost_micros), 0) as before_cost_micros,
      (p_whole ->> 'calls')::bigint - coalesce(sum(p.calls), 0) as calls,
      (p_whole ->> 'tokens')::bigint - coalesce(sum(p.tokens), 0) as tokens
    from parts p
  )
  select p_whole || jsonb_build_object('by', p_by,
    'parts', (select coalesce(jsonb_agg(jsonb_build_object('key', f.key,
        'name', (select a.display_name from governance.accounts a where p_is_large and a.user_id = f.key),
        'cost_micros', f.cost_micros, 'before_cost_micros', f.before_cost_micros, 'calls', f.calls,
        'tokens', f.tokens) order by f.cost_micros desc, f.tokens desc, f.key), '[]')
      from (select x.key, x.cost_micros, x.before_cost_micros, x.calls, x.tokens from first x where x.place <= 100
        union all
        select r.key, r.cost_micros, r.before_cost_micros, r.calls, r.tokens from rest r
        where r.calls > 0 and not p_is_large) f),
    -- Of very many, those that were read are not all.
    'part_count', case when not p_is_large then (select count(*) from first f where f.calls > 0) end,
    'top_ten_cost_micros', (select coalesce(sum(f.cost_micros), 0) from first f where f.place <= 10))
$$;
comment on function governance.costs_of_named(jsonb, text, date, date, date, jsonb, bigint, boolean) is
  'The answer of console_costs by session, agent or the dearest of very many users: p_whole with their parts.';

create function public.console_costs(p_from date, p_to date, p_step text default 'day', p_by text default 'model',
  p_filter jsonb default '{}') returns jsonb
  language plpgsql security definer set search_path = '' set jit = off set plan_cache_mode = 'force_custom_plan' as $$
declare
  v_before date;
  v_account_id bigint;
  v_by_account boolean;
  v_is_large boolean := false;
  -- The parts of the main figures. Sessions, agents and very many users are read separately.
  v_main text := p_by;
  v_answer jsonb;
begin
  perform governance.refuse_others('console_costs');
  perform governance.check_days(p_from, p_to, p_step);
  if p_by is null
    or p_by not in ('model', 'provider', 'plan', 'task_type', 'scope', 'user', 'session', 'agent') then
    perform governance.fail('PT400', 'invalid_argument',
      'p_by is model, provider, plan, task_type, scope, user, session or agent');
  end if;
  if p_filter is null or jsonb_typeof(p_filter) <> 'object' or exists (select from jsonb_each(p_filter) f
    where f.key not in ('model', 'provider', 'plan', 'task_type', 'scope', 'user') or jsonb_typeof(f.value) <> 'string'
      or length(f.value #>> '{}') > 500) then
    perform governance.fail('PT400', 'invalid_argument',
      'p_filter is an object of model, provider, plan, task_type, scope and user, each a text');
  end if;
  if p_filter ? 'user' then
    v_account_id := governance.account_id_of(p_filter ->> 'user');
  end if;
  for v_round in 1..5 loop
    exit when governance.follow_events(2000) = 0;
  end loop;
  v_before := p_from - (p_to - p_from + 1);
  if p_by = 'user' and v_account_id is null then
    -- So many users a day together that reading all of them would take ever longer.
    v_is_large := (select coalesce(sum(u.active_users), 0) from governance.usage_days u
      where u.day between v_before and p_to) > governance.most_read_users();
  end if;
  if v_is_large or p_by in ('session', 'agent') then v_main := 'model'; end if;
  v_by_account := v_main = 'user' or p_filter ? 'user';
  with usage as materialized (
    select u.day, u.plan_id, u.model, u.task_type, u.scope_id, null::bigint as account_id, u.calls,
      u.input_tokens + u.output_tokens as tokens, u.charged_tokens, u.cost_micros
    from governance.usage_between(v_before, p_to) u where not v_by_account
    union all
    select d.day, a.plan_id, d.model, d.task_type, d.scope_id, d.account_id, d.calls,
      d.input_tokens + d.output_tokens, d.charged_tokens, d.cost_micros
    from governance.usage_daily d join governance.accounts a using (account_id)
    where v_by_account and (v_account_id is null or d.account_id = v_account_id) and d.day between v_before and p_to
  ), models as materialized (
    -- Looked up among the prices: only where the answer depends on it.
    select m.model, case when v_main = 'provider' or p_filter ? 'provider'
      then governance.provider_of(m.model, governance.now()) end as provider
    from (select distinct u.model from usage u) m
  ), keyed as materialized (
    select u.day, u.day >= p_from as is_now, u.calls, u.tokens, u.charged_tokens, u.cost_micros,
      case v_main when 'model' then u.model when 'provider' then coalesce(m.provider, '')
        when 'plan' then coalesce(u.plan_id, '') when 'task_type' then u.task_type when 'scope' then u.scope_id
        else u.account_id::text end as key
    from usage u join models m using (model)
    where (p_filter ->> 'model' is null or u.model = p_filter ->> 'model')
      and (p_filter ->> 'provider' is null or coalesce(m.provider, '') = p_filter ->> 'provider')
      and (p_filter ->> 'task_type' is null or u.task_type = p_filter ->> 'task_type')
      and (p_filter ->> 'scope' is null or u.scope_id = p_filter ->> 'scope')
      and (p_filter ->> 'plan' is null or coalesce(u.plan_id, '') = p_filter ->> 'plan')
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
        'tokens', coalesce(x.tokens, 0), 'charged_tokens', coalesce(x.charged_tokens, 0)) order by p.first)
      from (select g::date as first, (g + ('1 ' || p_step)::interval)::date as next
        from generate_series(date_trunc(p_step, p_from::timestamp), p_to::timestamp, ('1 ' || p_step)::interval) g) p
      left join (select date_trunc(p_step, y.day::timestamp)::date as first, sum(y.cost_micros) as cost_micros,
          sum(y.calls) as calls, sum(y.tokens) as tokens, sum(y.charged_tokens) as charged_tokens
        from keyed y where y.is_now group by 1) x using (first)),
    'parts', (select coalesce(jsonb_agg(jsonb_build_object(
        'key', case when v_main = 'user' then a.user_id else x.key end,
        'name', case when v_main = 'user' then a.display_name when v_main = 'plan' then p.name end,
        'cost_micros', x.cost_micros, 'before_cost_micros', x.before_cost_micros, 'calls', x.calls,
        'tokens', x.tokens) order by x.cost_micros desc, x.tokens desc, x.key), '[]')
      from (select * from parts y where y.calls > 0 or y.before_cost_micros > 0
        order by y.cost_micros desc, y.tokens desc, y.key limit 100) x
      left join governance.accounts a on v_main = 'user' and a.account_id = x.key::bigint
      left join governance.plans p on v_main = 'plan' and p.plan_id = x.key),
    'savings', (select coalesce(jsonb_object_agg(v.kind, jsonb_build_object('calls', v.calls, 'saved_micros',
        v.saved_micros)), '{}')
      from (select d.kind, sum(d.calls) as calls, sum(d.saved_micros) as saved_micros from (
          select x.* from governance.savings_days x
          union all
          select x.* from governance.followed() f
          cross join lateral governance.savings_between(f.upto, f.upto + 50000) x) d
        where p_filter = '{}' and d.day between p_from and p_to group by 1) v),
    'part_count', (select count(*) from parts y where y.calls > 0),
    'top_ten_cost_micros', (select coalesce(sum(t.cost_micros), 0) from (select y.cost_micros from parts y
      order by y.cost_micros desc limit 10) t))
  into v_answer
  from keyed k;
  if v_main = p_by then return v_answer; end if;
  return governance.costs_of_named(v_answer, p_by, v_before, p_from, p_to, p_filter, v_account_id, v_is_large);
end
$$;
comment on function public.console_costs(date, date, text, text, jsonb) is
  'Cost in micro-units of the currency, calls and tokens from p_from to p_to, both days included, beside as many '
  'days before: in all, by day, week (from Monday) or month, and by model, provider, plan (that accounts had when '
  'the day was closed), task_type, scope, user, session or agent, the 100 dearest. Days are each account''s own; a '
  'call counts when it settled; models without a price cost nothing. Of very many users the dearest of each day are '
  'read, and part_count is null. Under the key '''' is what names no session or agent, or one that was not among '
  'the 50 that used and cost most on its day. savings are estimates, of everybody. Source: the roll-ups '
  'usage_totals, usage_daily and named_usage. Errors: invalid_argument, unknown_user.';
revoke all on function public.console_costs(date, date, text, text, jsonb) from public, anon, authenticated;
grant execute on function public.console_costs(date, date, text, text, jsonb) to service_role;
