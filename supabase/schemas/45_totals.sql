-- Calls added up by time, as they happen: what charts and rankings read instead of the calls.

create table governance.call_totals (
  step text not null check (step in ('minute', 'hour', 'day')),
  -- When the step begins; days and hours are UTC's.
  start timestamptz not null,
  -- decided: by when a call was asked for. settled: by when it was charged.
  kind text not null check (kind in ('decided', 'settled')),
  decision text not null,
  -- Why blocked; empty for none.
  reason text not null,
  requested_model text not null,
  model text not null,
  calls bigint not null,
  -- Held for what was allowed, asked for what was blocked, charged for what was settled.
  tokens bigint not null,
  cost_micros bigint not null,
  primary key (step, start, kind, decision, reason, requested_model, model)
) with (fillfactor = 70);

comment on table governance.call_totals is 'Calls and tokens by minute (kept two days), hour (400 days) and day, by '
  'what was decided, why, and with which model.';

create table governance.user_totals (
  step text not null check (step in ('five_minutes', 'day')),
  start timestamptz not null,
  account_id bigint not null,
  kind text not null check (kind in ('decided', 'settled')),
  decision text not null,
  reason text not null,
  requested_model text not null,
  model text not null,
  calls bigint not null,
  tokens bigint not null,
  cost_micros bigint not null,
  primary key (step, start, account_id, kind, decision, reason, requested_model, model)
) with (fillfactor = 70);

comment on table governance.user_totals is 'The same by account, for rankings: five minutes are kept two days; a day '
  'of UTC, with what was settled or blocked, until it is ranked.';

create table governance.ranked_users (
  -- A day of UTC.
  start timestamptz not null,
  account_id bigint not null,
  kind text not null,
  decision text not null,
  reason text not null,
  requested_model text not null,
  model text not null,
  calls bigint not null,
  tokens bigint not null,
  cost_micros bigint not null,
  primary key (start, account_id, kind, decision, reason, requested_model, model)
);

comment on table governance.ranked_users is
  'Rows of user_totals of days that are over, of the 50 accounts each that used, cost and were stopped most. Days lie '
  'one after the other here, so that many are read in a few pages.';

create table governance.day_ranks (
  -- Of UTC for users, of the account for sessions and agents.
  day date not null,
  what text not null check (what in ('user', 'session', 'agent')),
  -- 0 for sessions and agents: they are everybody's.
  account_id bigint not null,
  -- Of the session or agent; empty for users.
  name text not null,
  tokens bigint not null,
  cost_micros bigint not null,
  -- Calls that were blocked.
  stopped bigint not null,
  -- Whether it may be among the first 50 of its day. Rankings read only these rows, however many the day has.
  is_leader boolean not null,
  primary key (day, what, account_id, name)
) with (fillfactor = 70);

create index day_ranks_leaders on governance.day_ranks (day, what) where is_leader;

comment on table governance.day_ranks is
  'Sums of users, sessions and agents on days that are not ranked yet, and which of them lead.';

create table governance.rank_marks (
  day date not null,
  what text not null,
  tokens bigint not null,
  cost_micros bigint not null,
  stopped bigint not null,
  primary key (day, what)
) with (fillfactor = 70);

comment on table governance.rank_marks is
  'The figures that the 50th of a day had when its leaders were last looked through: a user who is above none of the '
  'three is not among the first 50. Sums only grow, so an old mark is a low one, and lets too many in, never too few.';

create table governance.rule_matches (
  -- Start of five minutes.
  slot timestamptz not null,
  version_id bigint not null,
  matches bigint not null,
  primary key (slot, version_id)
) with (fillfactor = 70);

comment on table governance.rule_matches is 'Calls that each version of a rule matched, enforced or in shadow, in each '
  'five minutes; kept two days.';

create function governance.count_matches(p_after bigint, p_upto bigint)
  returns table (slot timestamptz, version_id bigint, matches bigint)
  language sql stable set search_path = '' as $$
  select date_bin('5 minutes', r.created_at, '2000-01-01'), v.version_id, count(*)
  from governance.requests r cross join unnest(r.matched_version_ids) v(version_id)
  where r.decision_id > p_after and r.decision_id <= p_upto and r.matched_version_ids is not null
  group by 1, 2
$$;
comment on function governance.count_matches(bigint, bigint) is 'Matches of rules among the calls with ids after the '
  'first and up to the second.';

create function governance.matches_by_slot() returns table (slot timestamptz, version_id bigint, matches bigint)
  language sql stable set search_path = '' as $$
  select x.slot, x.version_id, x.matches from governance.rule_matches x
  union all
  -- Events that are committed and not yet counted.
  select c.slot, c.version_id, c.matches
  from governance.maintenance_state s
  cross join lateral governance.count_matches((s.value ->> 'consumed')::bigint,
    (s.value ->> 'consumed')::bigint + 50000) c
  where s.key = 'followed_events'
$$;
comment on function governance.matches_by_slot() is 'Calls that each version of a rule matched in each five minutes of '
  'the last two days; a slot may come in parts.';

create function governance.matches_since(p_since timestamptz) returns table (rule_name text, matches bigint)
  language sql stable set search_path = '' as $$
  select v.rule_name, sum(m.matches)::bigint
  from governance.matches_by_slot() m
  join governance.rule_versions v using (version_id)
  where m.slot >= date_bin('5 minutes', p_since, '2000-01-01')
  group by 1
$$;
comment on function governance.matches_since(timestamptz) is
  'Calls that each rule matched since a moment, at most two days back, in whole five minutes; all versions together.';

-- Calls of one minute that are alike.
create type governance.counted_calls as (minute timestamptz, account_id bigint, kind text, decision text, reason text,
  requested_model text, model text, calls bigint, tokens bigint, cost_micros bigint);

create function governance.count_calls(p_after bigint, p_upto bigint) returns setof governance.counted_calls
  language sql stable set search_path = '' as $$
  select date_trunc('minute', r.created_at), r.account_id, 'decided', r.decision,
    case r.decision when 'block' then coalesce(r.reason, '') else '' end, r.requested_model, r.model, count(*),
    sum(case r.decision when 'block' then (r.facts).estimated_tokens else r.reserved_tokens end)::bigint, 0::bigint
  from governance.requests r
  where r.decision_id > p_after and r.decision_id <= p_upto
  group by 1, 2, 4, 5, 6, 7
  union all
  select date_trunc('minute', t.created_at), t.account_id, 'settled', coalesce(r.decision, 'allow'), '',
    coalesce(r.requested_model, ''), coalesce(r.settled_model, ''), count(*),
    sum(coalesce(r.charged_tokens, -t.amount))::bigint, coalesce(sum(r.cost_micros), 0)::bigint
  from governance.token_transactions t
  -- One index look-up for each entry: there are few entries and many calls.
  left join lateral (select q.decision, q.requested_model, q.settled_model, q.charged_tokens, q.cost_micros
    from governance.requests q where q.decision_id = t.decision_id limit 1) r on true
  where t.transaction_id > p_after and t.transaction_id <= p_upto and t.transaction_type = 'usage'
  group by 1, 2, 4, 6, 7
$$;
comment on function governance.count_calls(bigint, bigint) is
  'Calls by minute and account of the events with ids after the first and up to the second.';

create function governance.count_calls_of(p_account_id bigint, p_from timestamptz, p_to timestamptz, p_after bigint)
  returns setof governance.counted_calls
  language sql stable set search_path = '' as $$
  select date_trunc('minute', r.created_at), r.account_id, 'decided', r.decision,
    case r.decision when 'block' then coalesce(r.reason, '') else '' end, r.requested_model, r.model, count(*),
    sum(case r.decision when 'block' then (r.facts).estimated_tokens else r.reserved_tokens end)::bigint, 0::bigint
  from governance.requests r
  where r.account_id = p_account_id and r.created_at >= p_from and r.created_at < p_to
  group by 1, 2, 4, 5, 6, 7
  union all
  select date_trunc('minute', t.created_at), t.account_id, 'settled', coalesce(r.decision, 'allow'), '',
    coalesce(r.requested_model, ''), coalesce(r.settled_model, ''), count(*),
    sum(coalesce(r.charged_tokens, -t.amount))::bigint, coalesce(sum(r.cost_micros), 0)::bigint
  from governance.token_transactions t
  left join lateral (select q.decision, q.requested_model, q.settled_model, q.charged_tokens, q.cost_micros
    from governance.requests q where q.decision_id = t.decision_id limit 1) r on true
  where t.account_id = p_account_id and t.transaction_id > p_after and t.created_at >= p_from and t.created_at < p_to
    and t.transaction_type = 'usage'
  group by 1, 2, 4, 6, 7
$$;
comment on function governance.count_calls_of(bigint, timestamptz, timestamptz, bigint) is
  'Calls of one account by minute, from p_from up to p_to; none of its ledger entries in that time has an id up to '
  'p_after.';

create function governance.most_ranked() returns int
  language sql immutable set search_path = '' as $$ select 50 $$;
comment on function governance.most_ranked() is 'How many a day are known by rank, for each thing they are ranked by: '
  'five times the ten that a ranking shows. Every view over many days reads this many rows a day, so that it costs as '
  'much with few calls as with very many.';

create function governance.ranked_day() returns date
  language sql stable set search_path = '' as $$
  select coalesce((select ((s.value ->> 'day')::timestamptz at time zone 'UTC')::date
    from governance.maintenance_state s where s.key = 'ranked_days'), '-infinity')
$$;
comment on function governance.ranked_day() is 'The last day of which only the first in rank are kept.';

create function governance.trim_ranks(p_day date, p_what text) returns void
  language sql set search_path = '' as $$
  with placed as (
    select k.ctid as place, k.tokens, k.cost_micros, k.stopped,
      row_number() over (order by k.tokens desc, k.account_id, k.name) as by_tokens,
      row_number() over (order by k.cost_micros desc, k.account_id, k.name) as by_cost,
      row_number() over (order by k.stopped desc, k.account_id, k.name) as by_stopped
    from governance.day_ranks k where k.day = p_day and k.what = p_what and k.is_leader
  ), marked as (
    insert into governance.rank_marks (day, what, tokens, cost_micros, stopped)
    select p_day, p_what, min(p.tokens) filter (where p.by_tokens <= governance.most_ranked()),
      min(p.cost_micros) filter (where p.by_cost <= governance.most_ranked()),
      min(p.stopped) filter (where p.by_stopped <= governance.most_ranked())
    from placed p having count(*) >= governance.most_ranked()
    on conflict (day, what) do update set tokens = excluded.tokens, cost_micros = excluded.cost_micros,
      stopped = excluded.stopped
  )
  update governance.day_ranks k set is_leader = false where k.ctid = any (array(
    select p.place from placed p
    where (p.by_tokens > governance.most_ranked() or p.tokens = 0)
      and (p.by_cost > governance.most_ranked() or p.cost_micros = 0)
      and (p.by_stopped > governance.most_ranked() or p.stopped = 0)))
$$;
comment on function governance.trim_ranks(date, text) is
  'Leaves the first 50 by tokens, by cost and by blocked calls as leaders of a day, and marks what the 50th has. Who '
  'calls it keeps others from following.';

create function governance.add_to_ranks(p_rows governance.day_ranks[]) returns void
  language plpgsql set search_path = '' as $$
declare
  v_full record;
begin
  insert into governance.day_ranks as k (day, what, account_id, name, tokens, cost_micros, stopped, is_leader)
  select r.day, r.what, r.account_id, r.name, r.tokens, r.cost_micros, r.stopped,
    m.day is null or r.tokens > m.tokens or r.cost_micros > m.cost_micros or r.stopped > m.stopped
  from unnest(p_rows) r left join governance.rank_marks m using (day, what)
  where r.day > (select governance.ranked_day())
  on conflict (day, what, account_id, name) do update set tokens = k.tokens + excluded.tokens,
    cost_micros = k.cost_micros + excluded.cost_micros, stopped = k.stopped + excluded.stopped,
    is_leader = k.is_leader or not exists (select from governance.rank_marks m
      where m.day = k.day and m.what = k.what and k.tokens + excluded.tokens <= m.tokens
        and k.cost_micros + excluded.cost_micros <= m.cost_micros and k.stopped + excluded.stopped <= m.stopped);
  for v_full in
    select r.day, r.what from (select distinct x.day, x.what from unnest(p_rows) x) r
    where (select count(*) from governance.day_ranks k where k.day = r.day and k.what = r.what and k.is_leader)
      > 5 * governance.most_ranked()
  loop
    perform governance.trim_ranks(v_full.day, v_full.what);
  end loop;
end
$$;
comment on function governance.add_to_ranks(governance.day_ranks[]) is
  'Adds to the sums of users, sessions and agents on days that are not ranked yet; is_leader of the rows is ignored.';

create function governance.leading_users(p_from timestamptz, p_to timestamptz, p_also bigint[],
  p_decision text default null, p_reason text default null, p_model text default null)
  returns setof governance.user_totals
  language sql stable set search_path = '' as $$
  select u.*
  from (
    select 'day', r.* from governance.ranked_users r where r.start >= p_from and r.start < p_to
    union all
    -- Rows of calls that committed after their day was ranked.
    select u.* from governance.user_totals u
    where u.step = 'day' and u.start >= p_from and u.start < p_to
      and u.start <= (select governance.ranked_day())::timestamp at time zone 'UTC'
    union all
    select u.*
    from (
      select k.day, k.account_id from governance.day_ranks k
      where k.what = 'user' and k.is_leader and k.day > (select governance.ranked_day())
        and k.day::timestamp at time zone 'UTC' >= p_from and k.day::timestamp at time zone 'UTC' < p_to
      union
      select d.day, a.account_id
      from (select distinct k.day from governance.rank_marks k where k.what = 'user'
          and k.day::timestamp at time zone 'UTC' >= p_from and k.day::timestamp at time zone 'UTC' < p_to) d
      cross join unnest(p_also) a(account_id)) k
    -- One index look-up for each leader: a day has few leaders and many users.
    cross join lateral (select x.* from governance.user_totals x
      where x.step = 'day' and x.start = k.day::timestamp at time zone 'UTC' and x.account_id = k.account_id offset 0) u
  ) u
  where (p_decision is null or u.decision = p_decision)
    and (p_reason is null or (u.decision = 'block' and u.reason = p_reason))
    and (p_model is null or p_model in (u.requested_model, u.model))
$$;
comment on function governance.leading_users(timestamptz, timestamptz, bigint[], text, text, text) is
  'Totals of days that begin from p_from up to p_to, of the users that used, cost or were stopped most on each, and of '
  'the accounts p_also: those with calls that are not counted yet, which may bring them to the front. Where a '
  'decision, a reason or a model is given, only rows that have it.';

create function governance.add_to_totals(p_calls governance.counted_calls[], p_now timestamptz) returns void
  language sql set search_path = '' as $$
  insert into governance.call_totals as m (step, start, kind, decision, reason, requested_model, model, calls, tokens,
    cost_micros)
  select s.step, date_trunc(s.step, c.minute, 'UTC'), c.kind, c.decision, c.reason, c.requested_model, c.model,
    sum(c.calls), sum(c.tokens), sum(c.cost_micros)
  from unnest(p_calls) c cross join (values ('minute', interval '2 days'), ('hour', interval '400 days'),
    ('day', interval '100 years')) s(step, kept)
  where c.minute > p_now - s.kept
  group by 1, 2, 3, 4, 5, 6, 7
  on conflict (step, start, kind, decision, reason, requested_model, model) do update set
    calls = m.calls + excluded.calls, tokens = m.tokens + excluded.tokens,
    cost_micros = m.cost_micros + excluded.cost_micros;
  insert into governance.user_totals as m (step, start, account_id, kind, decision, reason, requested_model, model,
    calls, tokens, cost_micros)
  select s.step, date_bin(s.length, c.minute, '2000-01-01 00:00Z'), c.account_id, c.kind, c.decision, c.reason,
    c.requested_model, c.model, sum(c.calls), sum(c.tokens), sum(c.cost_micros)
  from unnest(p_calls) c cross join (values ('five_minutes', interval '5 minutes', interval '2 days'),
    ('day', interval '1 day', interval '100 years')) s(step, length, kept)
  -- Days are read for rankings only, and none of them is by calls that were let through.
  where c.minute > p_now - s.kept and (s.step <> 'day' or c.kind = 'settled' or c.decision = 'block')
  group by 1, 2, 3, 4, 5, 6, 7, 8
  on conflict (step, start, account_id, kind, decision, reason, requested_model, model) do update set
    calls = m.calls + excluded.calls, tokens = m.tokens + excluded.tokens,
    cost_micros = m.cost_micros + excluded.cost_micros;
  select governance.add_to_ranks(array(
    select row(x.day, 'user', x.account_id, '', x.tokens, x.cost_micros, x.stopped, false)::governance.day_ranks
    from (select (c.minute at time zone 'UTC')::date as day, c.account_id,
        coalesce(sum(c.tokens) filter (where c.kind = 'settled'), 0) as tokens, sum(c.cost_micros) as cost_micros,
        coalesce(sum(c.calls) filter (where c.decision = 'block' and c.kind = 'decided'), 0) as stopped
      from unnest(p_calls) c where c.minute > p_now - interval '100 years' group by 1, 2) x));
$$;
comment on function governance.add_to_totals(governance.counted_calls[], timestamptz) is
  'Adds calls to call_totals and user_totals, in every step that is still kept for them.';

create function governance.rank_days(p_now timestamptz) returns int
  language plpgsql set search_path = '' as $$
declare
  v_day date;
  v_gone int;
begin
  -- A day that is over for two days gets no more calls but such as commit very late; they are counted all the same.
  select min(k.day) into v_day from governance.day_ranks k
  where k.day > governance.ranked_day() and k.day < ((p_now - interval '3 days') at time zone 'UTC')::date;
  if v_day is null then return 0; end if;
  perform governance.trim_ranks(v_day, x.what) from (values ('user'), ('session'), ('agent')) x(what);
  -- Also rows of earlier days, of calls that committed after those were ranked.
  insert into governance.ranked_users as r (start, account_id, kind, decision, reason, requested_model, model, calls,
    tokens, cost_micros)
  select u.start, u.account_id, u.kind, u.decision, u.reason, u.requested_model, u.model, u.calls, u.tokens,
    u.cost_micros
  from governance.user_totals u
  where u.step = 'day' and u.start <= v_day::timestamp at time zone 'UTC'
    and (u.start < v_day::timestamp at time zone 'UTC' or u.account_id in (select k.account_id
      from governance.day_ranks k where k.day = v_day and k.what = 'user' and k.is_leader))
  on conflict (start, account_id, kind, decision, reason, requested_model, model) do update set
    calls = r.calls + excluded.calls, tokens = r.tokens + excluded.tokens,
    cost_micros = r.cost_micros + excluded.cost_micros;
  delete from governance.user_totals u where u.step = 'day' and u.start <= v_day::timestamp at time zone 'UTC';
  get diagnostics v_gone = row_count;
  -- Lists to look into, read once: one question for each row would take minutes on a day of very many users.
  delete from governance.named_usage n where n.day = v_day and (
    (n.what, n.name) not in (select k.what, k.name from governance.day_ranks k
      where k.day = v_day and k.account_id = 0 and k.is_leader)
    -- Days of users here are UTC's, those of sessions their own.
    or (n.account_id <> 0 and n.account_id not in (
      select r.account_id from governance.ranked_users r
      where r.start >= (v_day - 1)::timestamp at time zone 'UTC' and r.start <= v_day::timestamp at time zone 'UTC'
      union all
      select u.account_id from governance.user_totals u
      where u.step = 'day' and u.start = (v_day + 1)::timestamp at time zone 'UTC')));
  delete from governance.day_ranks k where k.day = v_day;
  delete from governance.rank_marks m where m.day = v_day;
  insert into governance.maintenance_state as s (key, value)
    values ('ranked_days', jsonb_build_object('day', v_day::timestamp at time zone 'UTC'))
  on conflict (key) do update set value = excluded.value, updated_at = clock_timestamp();
  return v_gone;
end
$$;
comment on function governance.rank_days(timestamptz) is
  'Keeps, of the next day that is over, the users that used, cost and were stopped most (in ranked_users), and the '
  'sessions and agents that used and cost most; returns how many rows went.';

create function governance.follow_new_events(p_limit int, p_last_id bigint, p_xid xid8, out followed int,
  out account_ids bigint[])
  language plpgsql set search_path = '' set jit = off set plan_cache_mode = 'force_custom_plan' as $$
declare
  v_now timestamptz := governance.now();
  v_oldest timestamptz := governance.now() - interval '2 days';
  v_state jsonb;
  v_last bigint := p_last_id;
  v_from bigint;
  v_ready bigint;
  v_upto bigint;
  v_snapshot pg_snapshot;
begin
  followed := 0;
  account_ids := '{}';
  if (select (s.value ->> 'consumed')::bigint >= v_last from governance.maintenance_state s
    where s.key = 'followed_events')
    and coalesce((select min(l.day_ends_at) from governance.account_listings l where l.day_ends_at is not null) > v_now,
      true)
    and coalesce((select min(l.month_ends_at) from governance.account_listings l) > v_now, true)
    and not exists (select from governance.listings_due) then
    return;
  end if;
  select s.value into v_state from governance.maintenance_state s where s.key = 'followed_events'
    for update skip locked;
  if v_state is null then return; end if;
  v_from := (v_state ->> 'consumed')::bigint;
  v_ready := v_from;

  -- Ids are taken in one order and committed in another: an id may be passed once every transaction that can have taken
  -- one before it is over. Writers have their transaction number before their event id, so those transactions are the
  -- ones below p_xid, the number that this one got after it had read the last id; null if it had one before. (A
  -- snapshot's xmax would not do: it is no bound of the numbers that are given out.)
  v_snapshot := pg_current_snapshot();
  if governance.ended_below(p_xid, v_snapshot) then
    v_ready := v_last;
    v_state := v_state || jsonb_build_object('mark', v_last, 'mark_xid', p_xid, 'mark_at', clock_timestamp());
  elsif governance.ended_below((v_state ->> 'mark_xid')::xid8, v_snapshot)
    -- A transaction under way for two minutes is no call, but a bulk load or a backup: charts and sorting do not
    -- wait for it.
    or (v_state ->> 'mark_at')::timestamptz < clock_timestamp() - interval '2 minutes' then
    v_ready := (v_state ->> 'mark')::bigint;
    if p_xid is not null then
      v_state := v_state || jsonb_build_object('mark', v_last, 'mark_xid', p_xid, 'mark_at', clock_timestamp());
    end if;
  end if;
  v_ready := greatest(v_ready, v_from);

  -- One page of them: up to the id at which the first source has p_limit rows.
  select least(v_ready, min(p.last)) into v_upto from (
    select max(x.id) as last, count(*) as n from (select r.decision_id as id from governance.requests r
      where r.decision_id > v_from and r.decision_id <= v_ready order by r.decision_id limit p_limit) x
    union all
    select max(x.id), count(*) from (select t.transaction_id as id from governance.token_transactions t
      where t.transaction_id > v_from and t.transaction_id <= v_ready order by t.transaction_id limit p_limit) x
    union all
    select max(x.id), count(*) from (select h.event_id as id from governance.hold_events h
      where h.event_id > v_from and h.event_id <= v_ready order by h.event_id limit p_limit) x
  ) p where p.n = p_limit;

  if v_upto > v_from then
    perform governance.add_to_totals(array(select c from governance.count_calls(v_from, v_upto) c), v_now);
    perform governance.add_named_usage(v_from, v_upto);
    perform governance.add_savings(v_from, v_upto);
    perform governance.add_open_usage(v_from, v_upto);
    insert into governance.rule_matches as m (slot, version_id, matches)
    select c.slot, c.version_id, c.matches from governance.count_matches(v_from, v_upto) c where c.slot > v_oldest
    on conflict (slot, version_id) do update set matches = m.matches + excluded.matches;
    v_state := v_state || jsonb_build_object('consumed', v_upto);
  end if;
  update governance.maintenance_state s set value = v_state, updated_at = clock_timestamp()
  where s.key = 'followed_events' and s.value is distinct from v_state;

  -- Whatever can be seen, and not only what may be passed: to copy an account twice does no harm. And what turns by the
  -- clock.
  account_ids := array(select r.account_id from governance.requests r where r.decision_id > v_from
      order by r.decision_id limit p_limit)
    || array(select t.account_id from governance.token_transactions t where t.transaction_id > v_from
      order by t.transaction_id limit p_limit)
    || array(select h.account_id from governance.hold_events h where h.event_id > v_from order by h.event_id
      limit p_limit)
    || array(select l.account_id from governance.account_listings l where l.day_ends_at <= v_now order by l.day_ends_at
      limit p_limit)
    || array(select x.account_id from (
      -- The rest waits for upkeep, which gives the new month's allowance too.
      select l.account_id, l.tokens_this_month, l.reserved, l.cost_this_month_micros from governance.account_listings l
      where l.month_ends_at <= v_now order by l.month_ends_at limit 10 * p_limit) x
      where x.tokens_this_month > x.reserved or x.cost_this_month_micros > 0 limit p_limit)
    || array(select d.account_id from governance.listings_due d limit p_limit);
  followed := case when v_upto > v_from then least(v_upto - v_from, 2147483647)::int else 0 end;
end
$$;
comment on function governance.follow_new_events(int, bigint, xid8) is
  'Carries events into the totals, one page a call; returns how many ids it passed, and the accounts whose '
  'listings are to be copied. p_last_id is the last event id, p_xid the transaction number that was taken after it.';

create function governance.follow_events(p_limit int default 2000) returns int
  language plpgsql set search_path = '' set lock_timeout = '500ms' as $$
declare
  v_has_xid boolean := pg_current_xact_id_if_assigned() is not null;
  v_last bigint;
  v_followed int;
  v_account_ids bigint[];
begin
  if current_setting('transaction_read_only') = 'on'
    or current_setting('transaction_isolation') <> 'read committed' then return 0; end if;
  select case when e.is_called then e.last_value else 0 end into v_last from governance.event_ids e;
  begin
    select f.followed, f.account_ids into v_followed, v_account_ids
    from governance.follow_new_events(p_limit, v_last, case when not v_has_xid then pg_current_xact_id() end) f;
    if cardinality(v_account_ids) > 0 then perform governance.copy_to_listings(v_account_ids); end if;
  exception when lock_not_available or deadlock_detected then
    -- A reader does not wait longer than the second after which the server looks for deadlocks.
    return 0;
  end;
  return v_followed;
end
$$;
comment on function governance.follow_events(int) is
  'Carries events into call_totals, user_totals and account_listings, each once; at most so many of each kind. '
  'Returns how far it got, 0 when there is nothing more. A second one that runs at the same time ends soon.';
