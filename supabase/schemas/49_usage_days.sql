-- Usage of everybody by day, added up: what views over many days read.

create table governance.usage_totals (
  day date not null,
  -- That the account had when the day was closed, or, of an open one, when its usage was last added up.
  plan_id text not null,
  model text not null,
  task_type text not null,
  scope_id text not null,
  calls bigint not null,
  messages bigint not null,
  input_tokens bigint not null,
  output_tokens bigint not null,
  charged_tokens bigint not null,
  cost_micros bigint not null,
  primary key (day, plan_id, model, task_type, scope_id)
);

comment on table governance.usage_totals is
  'Usage of everybody by day: all of it for a day that is over; for an open day, the usage that was followed so far. '
  'usage_days lists the days; rows of any other day are ignored.';

create table governance.usage_days (
  day date primary key,
  -- At the time of aggregated_at.
  active_users bigint not null,
  aggregated_at timestamptz not null,
  -- No settlement can add to it any more.
  is_over boolean not null
);

comment on table governance.usage_days is 'Days that governance.usage_totals has. A day that an import adds to is '
  'taken out, and aggregated again. An open day has what follow_events has followed, and is added up again every hour: '
  'for plans that changed, and for what was committed very late.';

create function governance.settled_between(p_after bigint, p_upto bigint)
  returns table (day date, plan_id text, model text, task_type text, scope_id text, calls bigint, messages bigint,
    input_tokens bigint, output_tokens bigint, charged_tokens bigint, cost_micros bigint)
  language sql stable set search_path = '' as $$
  select r.usage_day, coalesce(a.plan_id, ''), r.settled_model, coalesce(r.task_type, ''), coalesce(r.scope_id, ''),
    count(*), count(r.message_hash), sum(r.input_tokens)::bigint, sum(r.output_tokens)::bigint,
    sum(r.charged_tokens)::bigint, coalesce(sum(r.cost_micros), 0)::bigint
  from governance.token_transactions t
  cross join lateral (select q.* from governance.requests q where q.decision_id = t.decision_id limit 1) r
  left join governance.accounts a on a.account_id = t.account_id
  where t.transaction_id > p_after and t.transaction_id <= p_upto and t.transaction_type = 'usage'
    and r.usage_day is not null
  group by 1, 2, 3, 4, 5
$$;
comment on function governance.settled_between(bigint, bigint) is
  'Usage that was settled by entries with ids after the first and up to the second, as usage_totals has it.';

create function governance.followed(out upto bigint, out is_near boolean)
  language sql stable set search_path = '' as $$
  -- Where following is further behind, it is quicker to read the accounts' own days than the events not followed.
  select (s.value ->> 'consumed')::bigint, e.last_value - (s.value ->> 'consumed')::bigint <= 50000
  from governance.maintenance_state s cross join governance.event_ids e where s.key = 'followed_events'
$$;
comment on function governance.followed() is
  'The last event that is in all totals, and whether it is near the last event there is.';

create function governance.add_open_usage(p_after bigint, p_upto bigint) returns void
  language sql set search_path = '' as $$
  insert into governance.usage_totals as t (day, plan_id, model, task_type, scope_id, calls, messages, input_tokens,
    output_tokens, charged_tokens, cost_micros)
  select s.* from governance.settled_between(p_after, p_upto) s join governance.usage_days u using (day)
  where not u.is_over
  on conflict (day, plan_id, model, task_type, scope_id) do update set calls = t.calls + excluded.calls,
    messages = t.messages + excluded.messages, input_tokens = t.input_tokens + excluded.input_tokens,
    output_tokens = t.output_tokens + excluded.output_tokens,
    charged_tokens = t.charged_tokens + excluded.charged_tokens, cost_micros = t.cost_micros + excluded.cost_micros
$$;
comment on function governance.add_open_usage(bigint, bigint) is
  'Adds the usage settled between two ids to the totals of open days.';

create function governance.aggregate_day(p_day date, p_is_over boolean) returns void
  language plpgsql set search_path = '' as $$
begin
  delete from governance.usage_totals t where t.day = p_day;
  insert into governance.usage_totals (day, plan_id, model, task_type, scope_id, calls, messages, input_tokens,
    output_tokens, charged_tokens, cost_micros)
  select p_day, x.plan_id, x.model, x.task_type, x.scope_id, sum(x.calls), sum(x.messages), sum(x.input_tokens),
    sum(x.output_tokens), sum(x.charged_tokens), sum(x.cost_micros)
  from (
    select coalesce(a.plan_id, '') as plan_id, d.model, d.task_type, d.scope_id, d.calls, d.messages, d.input_tokens,
      d.output_tokens, d.charged_tokens, d.cost_micros
    from governance.usage_daily d left join governance.accounts a using (account_id) where d.day = p_day
    union all
    -- Usage that is not followed yet is added when it is.
    select s.plan_id, s.model, s.task_type, s.scope_id, -s.calls, -s.messages, -s.input_tokens, -s.output_tokens,
      -s.charged_tokens, -s.cost_micros
    from governance.followed() f
    cross join lateral governance.settled_between(f.upto, 9223372036854775807) s
    where not p_is_over and s.day = p_day) x
  group by 2, 3, 4, 5 having sum(x.calls) <> 0;
  insert into governance.usage_days as u (day, active_users, aggregated_at, is_over)
  select p_day, count(distinct d.account_id), clock_timestamp(), p_is_over from governance.usage_daily d
    where d.day = p_day
  on conflict (day) do update set active_users = excluded.active_users, aggregated_at = excluded.aggregated_at,
    is_over = excluded.is_over;
end
$$;
comment on function governance.aggregate_day(date, boolean) is
  'Adds up the usage of one day again. The caller keeps out what would change it meanwhile: imports, by the lock '
  '7254013, and whoever follows events, by the row followed_events of maintenance_state.';

create function governance.aggregate_days(p_limit int default 40) returns int
  language plpgsql set search_path = '' as $$
declare
  v_open date := governance.first_open_day(governance.now());
  v_over date[];
  v_still_open date[] := '{}';
begin
  if not pg_try_advisory_xact_lock(7254013) then return 0; end if;
  v_over := array(
    select g::date
    from generate_series((select min(d.day) from governance.usage_daily d), v_open - 1, interval '1 day') g
    where not exists (select from governance.usage_days u where u.day = g::date and u.is_over)
    order by g desc limit p_limit);
  if (select f.is_near from governance.followed() f)
    and current_setting('transaction_isolation') = 'read committed' then
    v_still_open := array(
      select g::date from generate_series(v_open, governance.last_open_day(governance.now()), interval '1 day') g
      where exists (select from governance.usage_daily d where d.day = g::date)
        and not exists (select from governance.usage_days u where u.day = g::date
          and u.aggregated_at > clock_timestamp() - interval '1 hour'));
  end if;
  if cardinality(v_over || v_still_open) = 0 then return 0; end if;
  -- Those who follow events add to open days: not while one of them is added up, or closed.
  perform from governance.maintenance_state s where s.key = 'followed_events' for update skip locked;
  if not found then return 0; end if;
  perform governance.aggregate_day(d, true) from unnest(v_over) d;
  perform governance.aggregate_day(d, false) from unnest(v_still_open) d;
  return cardinality(v_over);
end
$$;
comment on function governance.aggregate_days(int) is 'Aggregates days that are over and not yet in usage_totals, the '
  'latest first, and open ones; returns how many are over.';

create function governance.usage_between(p_from date, p_to date)
  returns table (day date, plan_id text, model text, task_type text, scope_id text, calls bigint, messages bigint,
    input_tokens bigint, output_tokens bigint, charged_tokens bigint, cost_micros bigint)
  language sql stable set search_path = '' as $$
  with known as materialized (
    select u.day, u.is_over, f.upto from governance.usage_days u cross join governance.followed() f
    where u.day between p_from and p_to and (u.is_over or f.is_near)
  )
  select t.day, t.plan_id, t.model, t.task_type, t.scope_id, t.calls, t.messages, t.input_tokens, t.output_tokens,
    t.charged_tokens, t.cost_micros
  from governance.usage_totals t join known k using (day) where t.day between p_from and p_to
  union all
  -- Of open days, what was settled since the last event that is followed.
  select s.*
  from (select min(k.upto) as upto from known k where not k.is_over) f
  cross join lateral governance.settled_between(f.upto, 9223372036854775807) s
  where f.upto is not null and exists (select from known k where k.day = s.day and not k.is_over)
  union all
  select d.day, coalesce(a.plan_id, ''), d.model, d.task_type, d.scope_id, sum(d.calls)::bigint,
    sum(d.messages)::bigint, sum(d.input_tokens)::bigint, sum(d.output_tokens)::bigint,
    sum(d.charged_tokens)::bigint, sum(d.cost_micros)::bigint
  from generate_series(p_from, p_to, interval '1 day') g
  -- One index look-up for each day: most of them have no usage, and a join would read every day of the table.
  cross join lateral (select x.* from governance.usage_daily x where x.day = g::date offset 0) d
  left join governance.accounts a using (account_id)
  where not exists (select from known k where k.day = g::date)
  group by 1, 2, 3, 4, 5
$$;
comment on function governance.usage_between(date, date) is
  'Everybody''s usage by day, plan, model, task type and scope, to be added up: from the totals of days, with what was '
  'settled since they were followed; of days that have none, from the accounts'' own roll-up.';
