-- Usage by what a call names beside model, task and scope: its session and its agent; and what was saved. Estimates are
-- called estimates.

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

comment on table governance.savings_days is 'Estimates of what was not spent: by calls that rules sent to another '
  'model, '
  'at the price of the one asked for; by cached input, at the price of plain input; by calls that rules stopped, at '
  'the mean price of a token of the model asked for.';

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
  'What settled between two ids by session and agent, of one account or of all.';

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
  'Adds what settled between two ids to named_usage, of one account or of all.';

create function governance.leading_names(p_what text, p_from date, p_to date, p_account_id bigint)
  returns setof governance.named_usage
  language sql stable set search_path = '' as $$
  with uncounted as materialized (
    -- What is committed and not yet counted, all of it: what is left out would seem to name no session.
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
    -- Calls that are not counted yet may bring them to the front.
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
  'What was saved between two ids, of one account or of all.';

create function governance.add_savings(p_after bigint, p_upto bigint, p_account_id bigint default null) returns void
  language sql set search_path = '' as $$
  insert into governance.savings_days as s (day, kind, calls, saved_micros)
  select x.* from governance.savings_between(p_after, p_upto, p_account_id) x
  on conflict (day, kind) do update set calls = s.calls + excluded.calls,
    saved_micros = s.saved_micros + excluded.saved_micros
$$;
comment on function governance.add_savings(bigint, bigint, bigint) is
  'Adds what was saved between two ids to savings_days, of one account or of all.';
