-- What the operators' console reads. Every function here is for the service role alone, and its cost is bounded: by a
-- page, by the minutes asked for, or by what happens at this moment, never by the length of history.

-- ---------------------------------------------------------------------------------------------------------------
-- Copies to read from, seconds old, kept off the path of a call
-- ---------------------------------------------------------------------------------------------------------------

create table governance.account_listings (
  account_id bigint primary key references governance.accounts (account_id) on delete cascade,
  -- Written with the account (see account_listings_follow)
  sort_name text collate "C" not null,
  search_text text not null,
  plan_id text not null,
  is_flagged boolean not null,
  -- Written by governance.follow_events
  blocked_until timestamptz,
  tokens_today bigint not null default 0,
  tokens_this_month bigint not null default 0,
  cost_this_month bigint not null default 0,
  available bigint not null default 0,
  reserved bigint not null default 0,
  debt bigint not null default 0,
  usage_percent int,
  last_activity_at timestamptz not null default '-infinity',
  -- End of the local day on which the account was last active, and of the month that its counters are of.
  day_ends_at timestamptz,
  month_ends_at timestamptz not null,
  holds_check_at timestamptz
) with (fillfactor = 80);
comment on table governance.account_listings is
  'What the console searches, filters and sorts accounts by. A copy, so that no index covers the counters that every call changes.';
-- A guess at how many accounts hold a text is only as good as the sample.
alter table governance.account_listings alter column search_text set statistics 500;
create index account_listings_name on governance.account_listings (sort_name, account_id);
create index account_listings_plan on governance.account_listings (plan_id, sort_name, account_id);
create index account_listings_today on governance.account_listings (tokens_today, account_id);
create index account_listings_month on governance.account_listings (tokens_this_month, account_id);
create index account_listings_cost on governance.account_listings (cost_this_month, account_id);
create index account_listings_available on governance.account_listings (available, account_id);
create index account_listings_activity on governance.account_listings (last_activity_at, account_id);
create index account_listings_flagged on governance.account_listings (account_id) where is_flagged;
create index account_listings_blocked on governance.account_listings (blocked_until) where blocked_until is not null;
create index account_listings_near_limit on governance.account_listings (usage_percent) where usage_percent >= 80;
create index account_listings_in_debt on governance.account_listings (account_id) where debt > 0;
create index account_listings_day on governance.account_listings (day_ends_at) where day_ends_at is not null;
create index account_listings_month_end on governance.account_listings (month_ends_at);
create index account_listings_holding on governance.account_listings (account_id) include (reserved) where reserved > 0;
create index account_listings_holds_check on governance.account_listings (holds_check_at) where holds_check_at is not null;

-- Search among many needs pg_trgm, in whichever schema this project keeps its extensions. Without it, search reads every listing.
do $$
declare
  v_schema text := (select n.nspname from pg_catalog.pg_namespace n where n.nspname in ('extensions', 'public') order by 1 limit 1);
begin
  if not exists (select from pg_catalog.pg_extension where extname = 'pg_trgm') then
    if not exists (select from pg_catalog.pg_available_extensions where name = 'pg_trgm') then return; end if;
    begin
      execute format('create extension pg_trgm schema %I', v_schema);
    exception when insufficient_privilege then
      raise notice 'pg_trgm is there but may not be installed by this role: search among many accounts will be slow';
      return;
    end;
  end if;
  select n.nspname into strict v_schema from pg_catalog.pg_extension e join pg_catalog.pg_namespace n on n.oid = e.extnamespace
    where e.extname = 'pg_trgm';
  execute format('create index account_listings_search on governance.account_listings using gin (search_text %I.gin_trgm_ops) with (gin_pending_list_limit = 256)', v_schema);
end
$$;

create table governance.minute_totals (
  minute timestamptz not null,
  -- allow, warn or block of the calls made in it; settled of those that ended in it.
  outcome text not null check (outcome in ('allow', 'warn', 'block', 'settled')),
  -- Why blocked; empty for none.
  reason text not null default '',
  calls bigint not null,
  -- Held for allow and warn, asked for block, charged for settled.
  tokens bigint not null,
  cost_micros bigint not null default 0,
  primary key (minute, outcome, reason)
) with (fillfactor = 70);
comment on table governance.minute_totals is 'Calls and tokens by minute, for the chart; kept two days.';

create table governance.recent_usage (
  -- Start of five minutes.
  slot timestamptz not null,
  account_id bigint not null,
  tokens bigint not null,
  primary key (slot, account_id)
) with (fillfactor = 70);
comment on table governance.recent_usage is 'Tokens charged by account in each five minutes; kept two days.';

alter table governance.account_listings enable row level security;
alter table governance.minute_totals enable row level security;
alter table governance.recent_usage enable row level security;
revoke all on governance.account_listings, governance.minute_totals, governance.recent_usage from public;

insert into governance.maintenance_state (key, value)
values ('followed_events', '{"consumed": 0, "mark": 0, "mark_xid": "1"}');

create function governance.current_account(p_user_id text, p_create boolean default false) returns governance.accounts
  language plpgsql set search_path = '' as $$
declare
  v_account governance.accounts;
begin
  select * into v_account from governance.accounts a where a.user_id = p_user_id;
  if v_account.account_id is null and not p_create then
    perform governance.fail('PT404', 'unknown_user', format('There is no account of user "%s"', left(p_user_id, 64)));
  end if;
  -- A read waits for no call: only where time has passed something by is the account locked and brought up to now.
  if v_account.account_id is null or (governance.needs_roll(v_account, governance.now()) and current_setting('transaction_read_only') = 'off') then
    v_account := governance.lock_account(p_user_id, p_create);
  end if;
  return v_account;
end
$$;
comment on function governance.current_account(text, boolean) is 'An account as it is at this moment, read without waiting where that is possible; unknown_user unless it may be made.';

create function governance.sort_name(p_user_id text, p_display_name text) returns text
  language sql immutable parallel safe set search_path = '' as $$
  select lower(left(coalesce(nullif(btrim(p_display_name), ''), p_user_id), 200))
$$;
comment on function governance.sort_name(text, text) is 'What an account is sorted by: its name, else its user id, in small letters.';

create function governance.search_text(p_user_id text, p_display_name text, p_email text) returns text
  language sql immutable parallel safe set search_path = '' as $$
  select E'\n' || lower(p_user_id || E'\n' || regexp_replace(left(coalesce(p_display_name, ''), 300), '\s+', ' ', 'g') || E'\n' || left(coalesce(p_email, ''), 300))
$$;
comment on function governance.search_text(text, text, text) is 'What an account is found by: user id, name and e-mail in small letters, each on a line of its own.';

create function governance.percent_used(p_today bigint, p_month bigint, p_daily_limit bigint, p_monthly_limit bigint, p_monthly_allowance bigint) returns int
  language sql immutable as $$
  -- Not least(): it passes over nulls, and nobody without a limit has used 2,147,483,647 percent.
  select case when v.percent > 2147483647 then 2147483647 else floor(v.percent)::int end
  from (select case
    when p_daily_limit is null and p_monthly_limit is null then p_month * 100.0 / nullif(p_monthly_allowance, 0)
    else greatest(
      case when p_daily_limit = 0 then 100 else p_today * 100.0 / p_daily_limit end,
      case when p_monthly_limit = 0 then 100 else p_month * 100.0 / p_monthly_limit end)
    end as percent) v
$$;
comment on function governance.percent_used(bigint, bigint, bigint, bigint, bigint) is
  'usage_percent of docs/RULES.md: the higher of day''s and month''s use; by the allowance where there is no limit; null without either.';

create function governance.copy_to_listings(p_account_ids bigint[]) returns void
  language sql set search_path = '' as $$
  -- One writer of many rows at a time, so that two never wait for each other.
  select pg_advisory_xact_lock(7254014);
  update governance.account_listings l set
    blocked_until = n.blocked_until, tokens_today = n.tokens_today, tokens_this_month = n.tokens_this_month,
    cost_this_month = n.cost_this_month,
    available = n.available, reserved = n.reserved, debt = n.debt, usage_percent = n.usage_percent,
    last_activity_at = n.last_activity_at, day_ends_at = n.day_ends_at, month_ends_at = n.month_ends_at,
    holds_check_at = n.holds_check_at
  from (
    select a.account_id,
      greatest(case when a.blocked_at is not null then coalesce(a.blocked_until, 'infinity') end, a.rule_blocked_until) as blocked_until,
      c.tokens_today, c.tokens_this_month,
      case when a.month_ends_at > t.at then a.month_cost_micros else 0 end as cost_this_month,
      a.subscription_tokens + a.purchased_tokens + a.promotional_tokens - a.reserved_tokens as available,
      a.reserved_tokens as reserved, a.debt_tokens as debt,
      governance.percent_used(c.tokens_today, c.tokens_this_month, p.daily_limit, p.monthly_limit, p.monthly_allowance) as usage_percent,
      coalesce(a.last_activity_at, '-infinity') as last_activity_at,
      case when a.day_ends_at > t.at and a.day_calls > 0 then a.day_ends_at end as day_ends_at,
      a.month_ends_at,
      a.holds_check_at
    from governance.accounts a
    join governance.plans p on p.plan_id = a.plan_id
    cross join (select governance.now() as at) t
    cross join lateral (select
      case when a.day_ends_at > t.at then a.day_tokens else 0 end + a.reserved_tokens as tokens_today,
      case when a.month_ends_at > t.at then a.month_tokens else 0 end + a.reserved_tokens as tokens_this_month) c
    where a.account_id = any (p_account_ids)
  ) n
  where l.account_id = n.account_id
    and (l.blocked_until, l.tokens_today, l.tokens_this_month, l.cost_this_month, l.available, l.reserved, l.debt, l.usage_percent, l.last_activity_at,
      l.day_ends_at, l.month_ends_at, l.holds_check_at)
    is distinct from (n.blocked_until, n.tokens_today, n.tokens_this_month, n.cost_this_month, n.available, n.reserved, n.debt, n.usage_percent,
      n.last_activity_at, n.day_ends_at, n.month_ends_at, n.holds_check_at)
$$;
comment on function governance.copy_to_listings(bigint[]) is 'Brings the listings of these accounts up to the moment.';

create function governance.follow_account() returns trigger
  language plpgsql set search_path = '' as $$
begin
  if tg_op = 'INSERT' then
    insert into governance.account_listings (account_id, sort_name, search_text, plan_id, is_flagged, month_ends_at)
    values (new.account_id, governance.sort_name(new.user_id, new.display_name),
      governance.search_text(new.user_id, new.display_name, new.email), new.plan_id, new.flagged_at is not null, new.month_ends_at);
  else
    update governance.account_listings set
      sort_name = governance.sort_name(new.user_id, new.display_name),
      search_text = governance.search_text(new.user_id, new.display_name, new.email),
      plan_id = new.plan_id, is_flagged = new.flagged_at is not null,
      blocked_until = greatest(case when new.blocked_at is not null then coalesce(new.blocked_until, 'infinity') end, new.rule_blocked_until)
    where account_id = new.account_id;
  end if;
  return null;
end
$$;
comment on function governance.follow_account() is 'Carries who an account is, and what operators decided, into its listing.';
create trigger account_listings_made after insert on governance.accounts for each row execute function governance.follow_account();
-- Calls set none of these columns, or to what they are: the listing is not on their path.
create trigger account_listings_changed after update of display_name, email, plan_id, flagged_at, blocked_at, blocked_until
  on governance.accounts for each row
  when ((old.display_name, old.email, old.plan_id, old.flagged_at, old.blocked_at, old.blocked_until)
    is distinct from (new.display_name, new.email, new.plan_id, new.flagged_at, new.blocked_at, new.blocked_until))
  execute function governance.follow_account();
insert into governance.account_listings (account_id, sort_name, search_text, plan_id, is_flagged, month_ends_at)
select a.account_id, governance.sort_name(a.user_id, a.display_name), governance.search_text(a.user_id, a.display_name, a.email),
  a.plan_id, a.flagged_at is not null, a.month_ends_at
from governance.accounts a;

-- ---------------------------------------------------------------------------------------------------------------
-- Following what happens
-- ---------------------------------------------------------------------------------------------------------------

create function governance.count_events(p_after bigint, p_upto bigint)
  returns table (minute timestamptz, outcome text, reason text, calls bigint, tokens bigint, cost_micros bigint)
  language sql stable set search_path = '' as $$
  select date_trunc('minute', r.created_at), r.decision, case r.decision when 'block' then coalesce(r.reason, '') else '' end,
    count(*), sum(case r.decision when 'block' then r.estimated_tokens else r.reserved_tokens end)::bigint, 0::bigint
  from governance.requests r
  where r.decision_id > p_after and r.decision_id <= p_upto
  group by 1, 2, 3
  union all
  select date_trunc('minute', t.created_at), 'settled', '', count(*), sum(coalesce(r.charged_tokens, -t.amount))::bigint, coalesce(sum(r.cost_micros), 0)::bigint
  from governance.token_transactions t
  -- One look into an index each: the entries are few, the calls are not.
  left join lateral (select q.charged_tokens, q.cost_micros from governance.requests q where q.decision_id = t.decision_id limit 1) r on true
  where t.transaction_id > p_after and t.transaction_id <= p_upto and t.transaction_type = 'usage'
  group by 1
$$;
comment on function governance.count_events(bigint, bigint) is 'Calls and tokens by minute of the events with ids after the first and up to the second.';

create function governance.follow_events(p_limit int default 2000) returns int
  language plpgsql set search_path = '' set jit = off set plan_cache_mode = 'force_custom_plan' as $$
declare
  v_has_xid boolean := pg_current_xact_id_if_assigned() is not null;
  v_now timestamptz := governance.now();
  v_oldest timestamptz := governance.now() - interval '2 days';
  v_state jsonb;
  v_last bigint;
  v_from bigint;
  v_ready bigint;
  v_upto bigint;
  v_xid xid8;
  v_snapshot pg_snapshot;
  v_accounts bigint[];
begin
  if current_setting('transaction_read_only') = 'on' or current_setting('transaction_isolation') <> 'read committed' then return 0; end if;
  select case when e.is_called then e.last_value else 0 end into v_last from governance.event_ids e;
  if (select (s.value ->> 'consumed')::bigint >= v_last from governance.maintenance_state s where s.key = 'followed_events')
    and coalesce((select min(l.day_ends_at) from governance.account_listings l where l.day_ends_at is not null) > v_now, true)
    and coalesce((select min(l.month_ends_at) from governance.account_listings l) > v_now, true) then
    return 0;
  end if;
  select s.value into v_state from governance.maintenance_state s where s.key = 'followed_events' for update skip locked;
  if v_state is null then return 0; end if;
  v_from := (v_state ->> 'consumed')::bigint;
  v_ready := v_from;

  -- Ids are taken in one order and committed in another: an id may be passed once every transaction that can have taken
  -- one before it is over. Writers have their transaction number before their event id, so those transactions are the
  -- ones below the number that this one got after it had read the last id, if it got it only then. (A snapshot's xmax
  -- would not do: it is no bound of the numbers that are given out.)
  v_xid := pg_current_xact_id();
  v_snapshot := pg_current_snapshot();
  if not v_has_xid and governance.ended_below(v_xid, v_snapshot) then
    v_ready := v_last;
    v_state := v_state || jsonb_build_object('mark', v_last, 'mark_xid', v_xid, 'mark_at', clock_timestamp());
  elsif governance.ended_below((v_state ->> 'mark_xid')::xid8, v_snapshot)
    -- Whoever is under way for two minutes is no call, but a bulk load or a backup: charts and sorting do not wait for it.
    or (v_state ->> 'mark_at')::timestamptz < clock_timestamp() - interval '2 minutes' then
    v_ready := (v_state ->> 'mark')::bigint;
    if not v_has_xid then
      v_state := v_state || jsonb_build_object('mark', v_last, 'mark_xid', v_xid, 'mark_at', clock_timestamp());
    end if;
  end if;
  v_ready := greatest(v_ready, v_from);

  -- A page of it: up to where the source that has most fills p_limit.
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
    insert into governance.minute_totals as m (minute, outcome, reason, calls, tokens, cost_micros)
    select c.minute, c.outcome, c.reason, sum(c.calls), sum(c.tokens), sum(c.cost_micros)
    from governance.count_events(v_from, v_upto) c where c.minute > v_oldest group by 1, 2, 3
    on conflict (minute, outcome, reason) do update set
      calls = m.calls + excluded.calls, tokens = m.tokens + excluded.tokens, cost_micros = m.cost_micros + excluded.cost_micros;
    insert into governance.recent_usage as u (slot, account_id, tokens)
    select date_bin('5 minutes', t.created_at, '2000-01-01'), t.account_id, sum(-t.amount)
    from governance.token_transactions t
    where t.transaction_id > v_from and t.transaction_id <= v_upto and t.transaction_type = 'usage' and t.created_at > v_oldest
    group by 1, 2
    on conflict (slot, account_id) do update set tokens = u.tokens + excluded.tokens;
    v_state := v_state || jsonb_build_object('consumed', v_upto);
  end if;
  update governance.maintenance_state s set value = v_state, updated_at = clock_timestamp()
  where s.key = 'followed_events' and s.value is distinct from v_state;

  -- Whatever can be seen, and not only what may be passed: to copy an account twice does no harm. And what turns by the clock.
  v_accounts := array(select r.account_id from governance.requests r where r.decision_id > v_from order by r.decision_id limit p_limit)
    || array(select t.account_id from governance.token_transactions t where t.transaction_id > v_from order by t.transaction_id limit p_limit)
    || array(select h.account_id from governance.hold_events h where h.event_id > v_from order by h.event_id limit p_limit)
    || array(select l.account_id from governance.account_listings l where l.day_ends_at <= v_now order by l.day_ends_at limit p_limit)
    || array(select x.account_id from (
      -- The rest waits for upkeep, which gives the new month's allowance too.
      select l.account_id, l.tokens_this_month, l.reserved, l.cost_this_month from governance.account_listings l
      where l.month_ends_at <= v_now order by l.month_ends_at limit 10 * p_limit) x
      where x.tokens_this_month > x.reserved or x.cost_this_month > 0 limit p_limit);
  if cardinality(v_accounts) > 0 then
    perform governance.copy_to_listings(v_accounts);
  end if;
  return case when v_upto > v_from then least(v_upto - v_from, 2147483647)::int else 0 end;
end
$$;
comment on function governance.follow_events(int) is
  'Carries events into minute_totals, recent_usage and account_listings, each once; at most so many of each kind. Answers how far it got, 0 when there is nothing more. Whoever comes while another works leaves at once.';

-- ---------------------------------------------------------------------------------------------------------------
-- Finding accounts
-- ---------------------------------------------------------------------------------------------------------------

create function governance.check_limit(p_limit int, p_max int) returns void
  language plpgsql immutable set search_path = '' as $$
begin
  if p_limit is null or p_limit not between 1 and p_max then
    perform governance.fail('PT400', 'invalid_argument', format('p_limit is a whole number from 1 to %s', p_max));
  end if;
end
$$;
comment on function governance.check_limit(int, int) is 'Refuses a page size that is out of bounds.';

create function governance.like_pattern(p_text text) returns text
  language sql immutable as $$
  select replace(replace(replace(p_text, '\', '\\'), '%', '\%'), '_', '\_')
$$;
comment on function governance.like_pattern(text) is 'A text that LIKE takes as it is.';

create function governance.estimate_rows(p_query text) returns bigint
  language plpgsql set search_path = '' as $$
declare
  v_plan json;
begin
  execute 'explain (format json) ' || p_query into v_plan;
  return (v_plan -> 0 -> 'Plan' ->> 'Plan Rows')::numeric::bigint;
end
$$;
comment on function governance.estimate_rows(text) is 'How many rows the planner expects of a query.';

create function governance.find_accounts_condition(p_query text) returns text
  language sql immutable set search_path = '' as $$
  select case when p_query <> '' then format('l.search_text like %L',
    case when char_length(p_query) < 3 then E'%\n' else '%' end || governance.like_pattern(p_query) || '%') end
$$;
comment on function governance.find_accounts_condition(text) is
  'SQL that an account listing l matches a search: anywhere in user id, name or e-mail; with fewer than three characters, at the beginning of one.';

create function governance.account_rows(p_account_ids bigint[]) returns jsonb
  language sql stable set search_path = '' as $$
  -- As governance.account_json says it, written out: a page asks for it twenty times.
  select coalesce(jsonb_agg(jsonb_build_object(
      'user_id', a.user_id, 'display_name', a.display_name, 'email', a.email, 'plan_id', a.plan_id, 'timezone', a.timezone,
      'created_at', a.created_at, 'version', a.version,
      'is_flagged', a.flagged_at is not null, 'flag_reason', a.flag_reason, 'flagged_at', a.flagged_at, 'flagged_by', a.flagged_by,
      'is_blocked', a.blocked_at is not null and (a.blocked_until is null or a.blocked_until > t.at),
      'block_reason', a.block_reason, 'blocked_at', a.blocked_at, 'blocked_until', a.blocked_until, 'blocked_by', a.blocked_by,
      'rule_blocked_until', case when a.rule_blocked_until > t.at then a.rule_blocked_until end,
      'rule_block_reason', case when a.rule_blocked_until > t.at then a.rule_block_reason end,
      'last_activity', a.last_activity_at,
      'available', a.subscription_tokens + a.purchased_tokens + a.promotional_tokens - a.reserved_tokens,
      'debt', a.debt_tokens,
      'tokens_today', c.tokens_today,
      'tokens_this_month', c.tokens_this_month,
      'cost_this_month_micros', case when a.month_ends_at > t.at then a.month_cost_micros else 0 end,
      'currency', t.currency,
      'usage_percent', governance.percent_used(c.tokens_today, c.tokens_this_month, p.daily_limit, p.monthly_limit, p.monthly_allowance)
    ) order by x.n), '[]')
  from unnest(p_account_ids) with ordinality x(account_id, n)
  join governance.accounts a using (account_id)
  join governance.plans p using (plan_id)
  cross join (select governance.now() as at, k.currency from governance.active_config k offset 0) t
  cross join lateral (select
    case when a.day_ends_at > t.at then a.day_tokens else 0 end + a.reserved_tokens as tokens_today,
    case when a.month_ends_at > t.at then a.month_tokens else 0 end + a.reserved_tokens as tokens_this_month) c
$$;
comment on function governance.account_rows(bigint[]) is 'Rows of the user table, in the order given.';

create function public.console_search_accounts(
  p_query text default '', p_filter text default 'all', p_plan_id text default null, p_sort text default 'name',
  p_descending boolean default false, p_cursor text default null, p_limit int default 20
) returns jsonb
  language plpgsql security definer set search_path = '' set jit = off as $$
declare
  -- Up to so many accounts are gathered and sorted; where more match, the index of the sort is walked instead.
  c_few constant int := 2000;
  v_query text := lower(btrim(regexp_replace(coalesce(p_query, ''), '\s+', ' ', 'g')));
  v_column text;
  v_type text := 'bigint';
  v_direction text := case when coalesce(p_descending, false) then 'desc' else 'asc' end;
  v_conditions text[] := '{}';
  v_condition text;
  v_where text;
  v_source text := 'governance.account_listings l';
  v_found bigint[];
  v_total bigint;
  v_is_exact boolean := false;
  v_cursor jsonb;
  v_tier int := 0;
  v_last_tier int := 0;
  v_tier_condition text;
  v_tier_where text;
  v_key text;
  v_id bigint;
  v_ids bigint[] := '{}';
  v_keys text[] := '{}';
  v_tiers int[] := '{}';
  v_found_id bigint;
  v_found_key text;
begin
  perform governance.check_optional('p_query', p_query, 500);
  perform governance.check_limit(p_limit, 100);
  v_column := case coalesce(p_sort, 'name') when 'name' then 'sort_name' when 'last_activity' then 'last_activity_at'
    when 'tokens_today' then 'tokens_today' when 'tokens_this_month' then 'tokens_this_month' when 'available' then 'available'
    when 'cost_this_month' then 'cost_this_month' end;
  if v_column is null then
    perform governance.fail('PT400', 'invalid_argument', 'p_sort is one of name, tokens_today, tokens_this_month, cost_this_month, available, last_activity');
  elsif v_column = 'sort_name' then
    v_type := 'text';
  elsif v_column = 'last_activity_at' then
    v_type := 'timestamptz';
  end if;
  v_condition := case coalesce(p_filter, 'all') when 'all' then '' when 'flagged' then 'l.is_flagged'
    when 'blocked' then format('l.blocked_until > %L', governance.now()) when 'near_limit' then 'l.usage_percent >= 80'
    when 'in_debt' then 'l.debt > 0' when 'active_today' then format('l.day_ends_at > %L', governance.now()) end;
  if v_condition is null then
    perform governance.fail('PT400', 'invalid_argument', 'p_filter is one of all, flagged, blocked, near_limit, in_debt, active_today');
  elsif v_condition <> '' then
    v_conditions := v_conditions || v_condition;
  end if;
  if p_plan_id is not null then
    v_conditions := v_conditions || format('l.plan_id = %L', p_plan_id);
  end if;
  if v_query <> '' then
    v_conditions := v_conditions || governance.find_accounts_condition(v_query);
    -- Names that begin with what was typed come first.
    v_last_tier := (v_column = 'sort_name')::int;
  end if;
  if p_cursor is not null then
    begin
      v_cursor := convert_from(decode(p_cursor, 'base64'), 'UTF8')::jsonb;
      v_tier := (v_cursor ->> 't')::int;
      v_key := v_cursor ->> 'k';
      v_id := (v_cursor ->> 'i')::bigint;
      if v_type = 'bigint' then v_key := v_key::bigint; elsif v_type = 'timestamptz' then v_key := v_key::timestamptz; end if;
    exception when others then
      v_key := null;
    end;
    if v_key is null or v_id is null or v_tier is null or v_tier not between 0 and v_last_tier
      or v_cursor ->> 's' is distinct from v_column || v_direction then
      perform governance.fail('PT400', 'invalid_argument', 'p_cursor is not one that this search gave');
    end if;
  end if;
  perform governance.follow_events(200);

  v_where := coalesce(nullif(array_to_string(v_conditions, ' and '), ''), 'true');
  -- Is there a condition, or the table itself, that leaves few? Then gather those: the total is exact, and any order cheap.
  foreach v_condition in array case when cardinality(v_conditions) > 0 then v_conditions else '{true}' end loop
    continue when governance.estimate_rows('select from governance.account_listings l where ' || v_condition) > 4 * c_few;
    execute format('select array_agg(x.account_id) from (select l.account_id from governance.account_listings l where %s limit %s) x', v_condition, c_few + 1)
      into v_found;
    if coalesce(cardinality(v_found), 0) <= c_few then
      v_source := format('(select * from governance.account_listings where account_id = any (%L::bigint[])) l', coalesce(v_found, '{}'));
      v_is_exact := true;
      if cardinality(v_conditions) <= 1 then
        v_total := coalesce(cardinality(v_found), 0);
        v_where := 'true';
      else
        execute format('select count(*) from %s where %s', v_source, v_where) into v_total;
      end if;
      exit;
    end if;
  end loop;
  if v_total is null then
    v_total := governance.estimate_rows('select from governance.account_listings l where ' || v_where);
    if v_where = 'true' and v_total < 10 * c_few then
      select count(*) into v_total from governance.account_listings;
      v_is_exact := true;
    end if;
  end if;

  while v_tier <= v_last_tier and cardinality(v_ids) <= p_limit loop
    v_tier_condition := case when v_last_tier = 1 then format('l.sort_name %s like %L', case v_tier when 1 then 'not' else '' end,
      governance.like_pattern(v_query) || '%') else 'true' end;
    -- A name that begins with the text holds it: no need to look for it again.
    v_tier_where := case when v_last_tier = 1 and v_tier = 0
      then coalesce(nullif(array_to_string(array_remove(v_conditions, governance.find_accounts_condition(v_query)), ' and '), ''), 'true') else v_where end;
    for v_found_id, v_found_key in execute format(
      'select l.account_id, l.%1$I::text as key from %2$s where %3$s and %4$s %5$s order by l.%1$I %6$s, l.account_id %6$s limit %7$s',
      v_column, v_source, v_tier_where, v_tier_condition,
      case when v_key is not null then format('and (l.%I, l.account_id) %s (%L::%s, %s)', v_column,
        case v_direction when 'asc' then '>' else '<' end, v_key, v_type || case v_type when 'text' then ' collate "C"' else '' end, v_id) else '' end,
      v_direction, p_limit + 1 - cardinality(v_ids))
    loop
      v_ids := v_ids || v_found_id;
      v_keys := v_keys || v_found_key;
      v_tiers := v_tiers || v_tier;
    end loop;
    v_tier := v_tier + 1;
    v_key := null;
  end loop;

  return jsonb_build_object(
    'accounts', governance.account_rows(v_ids[1:p_limit]),
    'next_cursor', case when cardinality(v_ids) > p_limit then translate(encode(convert_to(jsonb_build_object('s', v_column || v_direction,
      't', v_tiers[p_limit], 'k', v_keys[p_limit], 'i', v_ids[p_limit])::text, 'UTF8'), 'base64'), E'\n', '') end,
    'total', v_total,
    'total_is_exact', v_is_exact);
end
$$;
comment on function public.console_search_accounts(text, text, text, text, boolean, text, int) is
  'A page of the user table. The text is looked for anywhere in user id, name and e-mail, with fewer than three characters at their beginning; in order of name, names that begin with it come first. Filters: all, flagged, blocked, near_limit (80 % or more used), in_debt, active_today. next_cursor is null on the last page. Errors: invalid_argument.';
revoke all on function public.console_search_accounts(text, text, text, text, boolean, text, int) from public, anon, authenticated;
grant execute on function public.console_search_accounts(text, text, text, text, boolean, text, int) to service_role;

create function public.console_get_account(p_user_id text) returns jsonb
  language plpgsql security definer set search_path = '' set jit = off as $$
declare
  v_account governance.accounts;
  v_plan governance.plans;
begin
  perform governance.check_id('p_user_id', p_user_id);
  v_account := governance.current_account(p_user_id);
  select * into strict v_plan from governance.plans p where p.plan_id = v_account.plan_id;
  return jsonb_build_object(
    'account', governance.account_json(v_account) - '{balance,limits,plan_name,fail_mode,allows_top_up}'::text[],
    'plan', jsonb_build_object('plan_id', v_plan.plan_id, 'name', v_plan.name, 'monthly_allowance', v_plan.monthly_allowance,
      'daily_limit', v_plan.daily_limit, 'monthly_limit', v_plan.monthly_limit, 'allows_top_up', v_plan.allows_top_up,
      'fail_mode', v_plan.fail_mode, 'on_cancel', v_plan.on_cancel, 'warn_at', v_plan.warn_at, 'upgrade_to', v_plan.upgrade_to),
    'balance', governance.account_json(v_account) -> 'balance',
    'limits', governance.account_json(v_account) -> 'limits',
    'messages_today', v_account.day_messages,
    'cost_today_micros', v_account.day_cost_micros,
    'cost_this_month_micros', v_account.month_cost_micros,
    'currency', (select c.currency from governance.active_config c),
    'last_activity', v_account.last_activity_at,
    'lots', (
      select coalesce(jsonb_agg(jsonb_build_object('grant_id', l.lot_id, 'kind', l.kind, 'granted', l.granted, 'remaining', l.remaining,
        'frozen', l.frozen, 'spent', l.spent, 'expired', l.expired, 'clawed_back', l.clawed_back, 'expires_at', l.expires_at,
        'created_at', l.created_at, 'description', l.description, 'pack_id', l.pack_id, 'charge_id', l.stripe_charge_id)
        order by l.is_open desc, l.expires_at nulls last, case l.kind when 'subscription' then 0 when 'promotional' then 1 else 2 end, l.created_at, l.lot_id), '[]')
      from ((select * from governance.lots o where o.account_id = v_account.account_id and o.is_open limit 200)
        union all
        -- Used-up ones, the newest few.
        (select * from governance.lots u where u.account_id = v_account.account_id and not u.is_open order by u.lot_id desc limit 20)) l),
    'holds', case when v_account.holds_from is null then '[]' else (
      select coalesce(jsonb_agg(jsonb_build_object('request_id', r.request_id, 'decision_id', r.decision_id, 'model', r.model, 'status', r.status,
        'reserved_tokens', r.reserved_tokens, 'created_at', r.created_at, 'expires_at', r.expires_at) order by r.created_at desc), '[]')
      from (select * from governance.requests q where q.account_id = v_account.account_id and q.status = 'held'
        and q.created_at >= v_account.holds_from order by q.created_at desc limit 200) r) end,
    'audit', (
      select coalesce(jsonb_agg(jsonb_build_object('audit_id', g.audit_id, 'at', g.created_at, 'operator', g.operator, 'action', g.action,
        'user_id', p_user_id, 'reason', g.reason, 'command_id', g.command_id, 'details', g.details) order by g.audit_id desc), '[]')
      from (select * from governance.audit_log x where x.account_id = v_account.account_id order by x.audit_id desc limit 50) g));
end
$$;
comment on function public.console_get_account(text) is
  'Everything the user''s page shows: account, plan, balance, limits, lots (open ones, and the newest used-up), open holds, the last 50 audit entries. Errors: invalid_argument, unknown_user.';
revoke all on function public.console_get_account(text) from public, anon, authenticated;
grant execute on function public.console_get_account(text) to service_role;


-- ---------------------------------------------------------------------------------------------------------------
-- What is going on
-- ---------------------------------------------------------------------------------------------------------------

create function governance.count_open_alerts() returns bigint
  language sql stable set search_path = '' as $$
  select count(*) from (select from governance.alert_events e
    where e.acknowledged_at is null and e.created_at > governance.now() - interval '24 hours' limit 10000) x
$$;
comment on function governance.count_open_alerts() is 'Alerts of the last 24 hours that nobody has acknowledged.';

create view governance.stuck_holds with (security_invoker = true) as
  -- Held past its end, and nobody has given it back for five minutes; or settled beyond a sane ceiling, and waiting for a person.
  select r.decision_id, r.created_at, r.account_id, r.request_id, r.status, r.model, r.reserved_tokens, r.expires_at
  from governance.account_listings l
  join governance.accounts a using (account_id)
  join governance.requests r on r.account_id = a.account_id and r.created_at >= a.holds_from
  where l.holds_check_at < governance.now() - interval '5 minutes' and r.status = 'held' and r.expires_at < governance.now() - interval '5 minutes'
  union all
  select r.decision_id, r.created_at, r.account_id, r.request_id, r.status, r.model, r.reserved_tokens, r.expires_at
  from governance.hold_events h
  join governance.requests r on r.decision_id = h.decision_id and r.status = 'quarantined'
  where h.kind = 'quarantined';
comment on view governance.stuck_holds is 'Holds that need a person or have outlived their end: see console_stuck_holds and console_resolve_hold.';

create function governance.count_stuck_holds() returns bigint
  language sql stable set search_path = '' as $$
  select count(*) from governance.stuck_holds
$$;
comment on function governance.count_stuck_holds() is 'Holds that need a person or have outlived their end.';

create function public.console_overview(p_minutes int default 60) returns jsonb
  language plpgsql security definer set search_path = '' set jit = off set plan_cache_mode = 'force_custom_plan' as $$
declare
  v_now timestamptz := governance.now();
  v_from timestamptz;
  v_consumed bigint;
  v_answer jsonb;
begin
  if p_minutes is null or p_minutes not between 1 and 1440 then
    perform governance.fail('PT400', 'invalid_argument', 'p_minutes is a whole number from 1 to 1440');
  end if;
  v_from := date_trunc('minute', v_now) - (p_minutes - 1) * interval '1 minute';
  for v_round in 1..5 loop
    exit when governance.follow_events(2000) = 0;
  end loop;
  select (s.value ->> 'consumed')::bigint into v_consumed from governance.maintenance_state s where s.key = 'followed_events';
  with totals as materialized (
    select m.minute, m.outcome, m.reason, m.calls, m.tokens, m.cost_micros from governance.minute_totals m where m.minute >= v_from
    union all
    -- What is committed and not yet counted: some seconds' worth, or two minutes' where a long transaction holds the count up.
    select c.minute, c.outcome, c.reason, c.calls, c.tokens, c.cost_micros
    from governance.count_events(v_consumed, v_consumed + 50000) c where c.minute >= v_from
  ), minutes as (
    select g.minute, coalesce(sum(t.calls) filter (where t.outcome <> 'settled'), 0) as calls,
      coalesce(sum(t.tokens) filter (where t.outcome = 'settled'), 0) as settled_tokens,
      coalesce(sum(t.tokens) filter (where t.outcome = 'allow'), 0) as allowed_tokens,
      coalesce(sum(t.tokens) filter (where t.outcome = 'warn'), 0) as warned_tokens,
      coalesce(sum(t.tokens) filter (where t.outcome = 'block'), 0) as blocked_tokens,
      coalesce(sum(t.calls) filter (where t.outcome = 'block'), 0) as blocked_calls
    from generate_series(v_from, v_now, interval '1 minute') g(minute)
    left join totals t using (minute) group by 1
  )
  select jsonb_build_object(
    'at', v_now,
    'calls', (select coalesce(sum(t.calls), 0) from totals t where t.outcome <> 'settled'),
    'blocked', (select coalesce(sum(t.calls), 0) from totals t where t.outcome = 'block'),
    'warned', (select coalesce(sum(t.calls), 0) from totals t where t.outcome = 'warn'),
    'settled_tokens', (select coalesce(sum(t.tokens), 0) from totals t where t.outcome = 'settled'),
    'cost_micros', (select coalesce(sum(t.cost_micros), 0) from totals t where t.outcome = 'settled'),
    'currency', (select c.currency from governance.active_config c),
    'active_users', (select count(*) from governance.account_listings l where l.last_activity_at >= v_from),
    'open_holds', (
      select count(*) from governance.account_listings l
      join governance.accounts a using (account_id)
      join governance.requests r on r.account_id = a.account_id and r.created_at >= a.holds_from and r.status = 'held'
      where l.reserved > 0),
    'held_tokens', (select coalesce(sum(l.reserved), 0) from governance.account_listings l where l.reserved > 0),
    'stuck_holds', governance.count_stuck_holds(),
    'flagged_users', (select count(*) from governance.account_listings l where l.is_flagged),
    'blocked_users', (select count(*) from governance.account_listings l where l.blocked_until > v_now),
    'users_in_debt', (select count(*) from governance.account_listings l where l.debt > 0),
    'open_alerts', governance.count_open_alerts(),
    'minutes', (select jsonb_agg(to_jsonb(m) order by m.minute) from minutes m),
    'reasons', (select coalesce(jsonb_agg(jsonb_build_object('reason', r.reason, 'calls', r.calls) order by r.calls desc, r.reason), '[]') from (
      select t.reason, sum(t.calls) as calls from totals t where t.outcome = 'block' and t.reason <> '' group by 1 order by 2 desc, 1 limit 10) r),
    'top_users', (select coalesce(jsonb_agg(jsonb_build_object('user_id', a.user_id, 'display_name', a.display_name, 'tokens', u.tokens)
      order by u.tokens desc, a.user_id), '[]') from (
        select x.account_id, sum(x.tokens) as tokens from (
          select y.account_id, y.tokens from governance.recent_usage y where y.slot >= date_bin('5 minutes', v_from, '2000-01-01')
          union all
          select t.account_id, -t.amount from governance.token_transactions t
          where t.transaction_id > v_consumed and t.transaction_id <= v_consumed + 50000 and t.transaction_type = 'usage' and t.created_at >= v_from) x
        group by 1 having sum(x.tokens) > 0 order by 2 desc, 1 limit 10) u
      join governance.accounts a using (account_id)))
  into v_answer;
  return v_answer;
end
$$;
comment on function public.console_overview(int) is
  'What is going on, over the last p_minutes (1 to 1440): counters, a bucket a minute, reasons of blocks, whose tokens. Errors: invalid_argument.';
revoke all on function public.console_overview(int) from public, anon, authenticated;
grant execute on function public.console_overview(int) to service_role;

create function public.console_rail_counts() returns jsonb
  language plpgsql security definer set search_path = '' set jit = off set plan_cache_mode = 'force_custom_plan' as $$
begin
  perform governance.follow_events(500);
  return jsonb_build_object(
    'open_alerts', governance.count_open_alerts(),
    'flagged', (select count(*) from governance.account_listings l where l.is_flagged),
    'blocked', (select count(*) from governance.account_listings l where l.blocked_until > governance.now()),
    'in_debt', (select count(*) from governance.account_listings l where l.debt > 0),
    'stuck_holds', governance.count_stuck_holds());
end
$$;
comment on function public.console_rail_counts() is 'The counts beside the desks: alerts open, accounts flagged, blocked and in debt, holds stuck.';
revoke all on function public.console_rail_counts() from public, anon, authenticated;
grant execute on function public.console_rail_counts() to service_role;

create function public.console_project_info() returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
declare
  v_migrations text[];
  v_accounts bigint;
  v_is_exact boolean := false;
begin
  -- The record of Supabase's CLI and of ours; a project whose tables were made by hand has none.
  if to_regclass('supabase_migrations.schema_migrations') is not null then
    execute format('select array_agg(m.version || ''_'' || (to_jsonb(m) ->> ''name'') order by m.version)
      from %I.schema_migrations m where to_jsonb(m) ->> ''name'' like ''governance\_%%''', 'supabase_migrations') into v_migrations;
  end if;
  select c.reltuples::bigint into v_accounts from pg_catalog.pg_class c where c.oid = 'governance.accounts'::regclass;
  if v_accounts < 50000 then
    select count(*) into v_accounts from governance.accounts;
    v_is_exact := true;
  end if;
  return (
    select jsonb_build_object(
      'schema_version', coalesce(split_part(v_migrations[cardinality(v_migrations)], '_', 1), 'unknown'),
      'migrations', coalesce(to_jsonb(v_migrations), '[]'),
      'server_version', current_setting('server_version'),
      'preset', c.preset_name,
      'currency', c.currency,
      'sample_data', c.is_sample_data,
      'accounts', v_accounts,
      'accounts_is_exact', v_is_exact,
      'plans', (select coalesce(jsonb_agg(jsonb_build_object('plan_id', p.plan_id, 'name', p.name, 'retired', p.retired_at is not null)
        order by p.retired_at is not null, p.monthly_allowance, p.plan_id), '[]') from governance.plans p),
      'server_time', governance.now())
    from governance.active_config c);
end
$$;
comment on function public.console_project_info() is 'What project this is: migrations applied, server, preset, currency, plans, how many accounts (an estimate from 50,000).';
revoke all on function public.console_project_info() from public, anon, authenticated;
grant execute on function public.console_project_info() to service_role;

create function public.console_search(p_query text, p_limit int default 20) returns jsonb
  language plpgsql volatile security definer set search_path = '' set jit = off as $$
declare
  v_query text := btrim(coalesce(p_query, ''));
  v_lower text := lower(regexp_replace(btrim(coalesce(p_query, '')), '\s+', ' ', 'g'));
  v_id bigint := case when btrim(coalesce(p_query, '')) ~ '^\d{1,18}$' then btrim(p_query)::bigint end;
  v_ids bigint[];
  v_more bigint[];
begin
  perform governance.check_optional('p_query', p_query, 500);
  perform governance.check_limit(p_limit, 100);
  if v_lower = '' then return '[]'; end if;
  -- The user with this very id, then names that begin so, then whoever else matches: each from an index, none sorted.
  select array_agg(a.account_id) into v_ids from governance.accounts a where a.user_id = v_query;
  execute format('select array_agg(x.account_id) from (select l.account_id from governance.account_listings l
    where l.sort_name like %L order by l.sort_name, l.account_id limit %s) x', governance.like_pattern(v_lower) || '%', p_limit) into v_more;
  v_ids := v_ids || v_more;
  if coalesce(cardinality(v_ids), 0) < p_limit then
    execute format('select array_agg(x.account_id) from (select l.account_id from governance.account_listings l where %s limit %s) x',
      governance.find_accounts_condition(v_lower), 2 * p_limit) into v_more;
    v_ids := v_ids || v_more;
  end if;
  return (
    select coalesce(jsonb_agg(to_jsonb(h) - 'rank' - 'n' order by h.rank, h.n), '[]') from (
      select * from (
        -- A whole id of a request, decision or payment is meant exactly.
        (select 1 as rank, 1::bigint as n, 'request' as kind, r.request_id as id, r.request_id as title,
          concat_ws(' · ', a.user_id, r.decision, r.reason, r.status) as subtitle, a.user_id, r.decision_id
        from governance.requests r join governance.accounts a using (account_id)
        where r.decision_id = v_id or r.decision_id = (select k.decision_id from governance.request_keys k where k.request_id = v_query) limit 5)
        union all
        (select 1, 2, 'payment', v_query, v_query, concat_ws(' · ', a.user_id, l.granted || ' tokens', to_char(l.created_at at time zone 'UTC', 'YYYY-MM-DD')),
          a.user_id, null
        from governance.lots l join governance.accounts a using (account_id)
        where v_query in (l.stripe_charge_id, l.stripe_payment_intent_id, l.stripe_invoice_line_id, l.stripe_checkout_session_id) limit 5)
        union all
        select 2, min(x.n), 'user', a.user_id, coalesce(nullif(btrim(a.display_name), ''), a.user_id), concat_ws(' · ', a.user_id, a.email, a.plan_id), a.user_id, null
        from unnest(v_ids) with ordinality x(account_id, n) join governance.accounts a using (account_id) group by a.account_id
        union all
        select 3, row_number() over (order by u.priority, u.rule_name), 'rule', u.rule_name, u.rule_name, concat_ws(' · ', u.rule_type, u.mode, u.description), null, null
        from governance.rules u where u.retired_at is null and strpos(lower(u.rule_name || ' ' || coalesce(u.description, '')), v_lower) > 0
      ) every order by rank, n limit p_limit) h);
end
$$;
comment on function public.console_search(text, int) is
  'What a typed text may mean, best first: a request or decision id, a payment id, users, rules. Errors: invalid_argument.';
revoke all on function public.console_search(text, int) from public, anon, authenticated;
grant execute on function public.console_search(text, int) to service_role;

-- ---------------------------------------------------------------------------------------------------------------
-- Decisions and events
-- ---------------------------------------------------------------------------------------------------------------

create index hold_events_account on governance.hold_events (account_id, event_id);
-- Settlements above the ceiling are few, and each waits for a person.
create index hold_events_quarantined on governance.hold_events (decision_id) where kind = 'quarantined';
create index requests_refused_by_reason on governance.requests (reason, decision_id) where decision = 'block';

create function governance.decision_json(r governance.requests) returns jsonb
  language sql stable set search_path = '' as $$
  select jsonb_build_object('decision_id', r.decision_id, 'request_id', r.request_id, 'at', r.created_at, 'decision', r.decision,
    'reason', r.reason, 'message', r.message, 'requested_model', r.requested_model, 'model', coalesce(r.settled_model, r.model),
    'task_type', r.task_type, 'scope_id', r.scope_id, 'conversation_id', r.conversation_id, 'estimated_tokens', r.estimated_tokens,
    'reserved_tokens', r.reserved_tokens, 'charged_tokens', r.charged_tokens, 'input_tokens', r.input_tokens, 'output_tokens', r.output_tokens,
    'cost_micros', r.cost_micros, 'currency', r.currency, 'status', r.status, 'ended_at', r.ended_at, 'expires_at', r.expires_at,
    'warnings', coalesce(to_jsonb(r.warnings), '[]'), 'rule_name', v.rule_name, 'rule_version', v.version)
  from (select) one left join governance.rule_versions v on v.version_id = r.rule_version_id
$$;
comment on function governance.decision_json(governance.requests) is 'A call and how it ended, as the user''s page lists it.';

create function public.console_account_decisions(p_user_id text, p_before_id bigint default null, p_limit int default 50) returns jsonb
  language plpgsql stable security definer set search_path = '' set jit = off set plan_cache_mode = 'force_custom_plan' as $$
declare
  v_account_id bigint;
  v_before timestamptz := 'infinity';
begin
  perform governance.check_id('p_user_id', p_user_id);
  perform governance.check_limit(p_limit, 500);
  select a.account_id into v_account_id from governance.accounts a where a.user_id = p_user_id;
  if v_account_id is null then
    perform governance.fail('PT404', 'unknown_user', format('There is no account of user "%s"', left(p_user_id, 64)));
  end if;
  if p_before_id is not null then
    select r.created_at into v_before from governance.requests r where r.decision_id = p_before_id and r.account_id = v_account_id;
    if not found then
      perform governance.fail('PT404', 'not_found', 'p_before_id is no decision of this user that is still kept');
    end if;
  end if;
  return (
    with page as (
      select c.call, row_number() over () as n
      from (select q as call from governance.requests q
        where q.account_id = v_account_id and q.created_at <= v_before
          and (p_before_id is null or (q.created_at, q.decision_id) < (v_before, p_before_id))
        order by q.created_at desc, q.decision_id desc limit p_limit + 1) c)
    select jsonb_build_object(
      'decisions', coalesce(jsonb_agg(governance.decision_json(p.call) order by p.n) filter (where p.n <= p_limit), '[]'),
      'next_before_id', case when count(*) > p_limit then max((p.call).decision_id) filter (where p.n = p_limit) end)
    from page p);
end
$$;
comment on function public.console_account_decisions(text, bigint, int) is
  'A user''s calls, newest first, each with its decision and how it ended; p_before_id is next_before_id of the page before. Errors: invalid_argument, unknown_user, not_found.';
revoke all on function public.console_account_decisions(text, bigint, int) from public, anon, authenticated;
grant execute on function public.console_account_decisions(text, bigint, int) to service_role;

create function governance.check_event_filter(p_filter jsonb) returns void
  language plpgsql immutable set search_path = '' as $$
begin
  if p_filter is null or p_filter = '{}' then return; end if;
  if jsonb_typeof(p_filter) <> 'object' or exists (
    select from jsonb_each(p_filter) f where f.value <> 'null' and not (case f.key
      when 'kinds' then jsonb_typeof(f.value) = 'array' and jsonb_array_length(f.value) <= 20
      when 'user_id' then jsonb_typeof(f.value) = 'string' when 'decision' then jsonb_typeof(f.value) = 'string'
      when 'reason' then jsonb_typeof(f.value) = 'string' when 'model' then jsonb_typeof(f.value) = 'string' else false end)) then
    perform governance.fail('PT400', 'invalid_argument', 'p_filter has user_id, decision, reason, model (texts) and kinds (a list) only');
  end if;
end
$$;
comment on function governance.check_event_filter(jsonb) is 'Refuses a filter of events that is not understood: better than to show everything.';

create function public.console_events_before(p_before_event_id bigint default null, p_limit int default 200, p_filter jsonb default '{}') returns jsonb
  language plpgsql stable security definer set search_path = '' set jit = off as $$
declare
  -- A rare filter ends the page here, with what was found and where to go on: the cost of a page has a bound.
  c_most constant int := 10000;
  v_filter jsonb := coalesce(p_filter, '{}');
  v_high bigint := coalesce(p_before_event_id, 9223372036854775807);
  -- One more than is asked for tells whether there is more.
  v_page int := greatest(p_limit + 1, 50);
  v_account_id bigint;
  v_until timestamptz := 'infinity';
  v_calls text := 'true';
  v_entries text := 'true';
  v_holds text := 'true';
  v_kinds text[];
  v_order text := 'r.decision_id desc';
  v_looked int := 0;
  v_floor bigint;
  v_rows jsonb;
  v_events jsonb := '[]';
begin
  perform governance.check_limit(p_limit, 1000);
  perform governance.check_event_filter(p_filter);
  if jsonb_typeof(v_filter -> 'kinds') = 'array' then
    v_kinds := array(select jsonb_array_elements_text(v_filter -> 'kinds'));
  end if;
  if v_filter ->> 'user_id' is not null then
    select a.account_id into v_account_id from governance.accounts a where a.user_id = v_filter ->> 'user_id';
    if v_account_id is null then
      return jsonb_build_object('events', '[]'::jsonb, 'next_before_event_id', null);
    end if;
    -- Calls of one account stand in one order by time and by id, and by time they have an index.
    select x.at into v_until from (
      select r.created_at as at from governance.requests r where r.decision_id = v_high
      union all select t.created_at from governance.token_transactions t where t.transaction_id = v_high
      union all select h.created_at from governance.hold_events h where h.event_id = v_high) x;
    v_until := coalesce(v_until, 'infinity');
    v_calls := format('account_id = %s', v_account_id);
    v_entries := v_calls;
    v_holds := v_calls;
    v_order := 'r.created_at desc, r.decision_id desc';
  end if;
  if v_filter ->> 'reason' is not null or v_filter ->> 'decision' = 'block' then
    -- Only a refusal has a reason, and nothing comes after it.
    if v_filter ->> 'reason' is not null and v_account_id is null then
      -- The index that has them in order of the reason first, and no walk through everything else.
      v_order := 'r.reason desc, r.decision_id desc';
    end if;
    v_calls := v_calls || ' and r.decision = ''block''' || case when v_filter ->> 'reason' is not null then format(' and r.reason = %L', v_filter ->> 'reason') else '' end;
    v_entries := 'false';
    v_holds := 'false';
  end if;
  if v_kinds is not null then
    if not v_kinds && '{authorized,blocked}' then v_calls := 'false'; end if;
    if not v_kinds && '{settled}' then v_entries := 'false'; end if;
    if not v_kinds && '{released,expired,quarantined}' then v_holds := 'false'; end if;
  end if;
  loop
    execute format($q$
      with calls as (
        select r.decision_id as id, case r.decision when 'block' then 'blocked' else 'authorized' end as kind, r.created_at as at, r.decision_id,
          case r.decision when 'block' then r.estimated_tokens else r.reserved_tokens end as tokens, null::text as reason
        from governance.requests r where r.decision_id < $1 and r.created_at <= $2 and %1$s order by %2$s limit $3
      ), entries as (
        select t.transaction_id as id, 'settled' as kind, t.created_at as at, t.decision_id, null::bigint as tokens, null::text as reason
        from governance.token_transactions t
        where t.transaction_id < $1 and t.transaction_type = 'usage' and t.decision_id is not null and %3$s order by t.transaction_id desc limit $3
      ), holds as (
        select h.event_id as id, h.kind, h.created_at as at, h.decision_id, h.tokens, h.reason
        from governance.hold_events h where h.event_id < $1 and %4$s order by h.event_id desc limit $3
      ), floor as materialized (
        -- Below the last row of a source that has more, other sources' rows would come too early.
        select max(x.id) as id from (select min(id) as id from calls having count(*) = $3
          union all select min(id) from entries having count(*) = $3
          union all select min(id) from holds having count(*) = $3) x
      ), events as (
        select e.* from (select * from calls union all select * from entries union all select * from holds) e, floor f
        where e.id >= coalesce(f.id, 0) and ($4 is null or e.kind = any ($4))
      )
      select (select f.id from floor f), (
        -- As usage_events_since has it; a test holds the two together.
        select coalesce(jsonb_agg(jsonb_build_object('event_id', p.id, 'kind', p.kind, 'at', p.at, 'request_id', p.request_id, 'decision_id', p.decision_id,
            'user_id', a.user_id, 'display_name', a.display_name, 'plan_id', p.plan_id, 'decision', p.decision,
            'reason', case when p.kind in ('released', 'expired', 'quarantined') then p.hold_reason else p.reason end, 'http_status', p.http_status,
            'requested_model', p.requested_model, 'model', case p.kind when 'settled' then coalesce(p.settled_model, p.model) else p.model end,
            'task_type', p.task_type, 'scope_id', p.scope_id, 'conversation_id', p.conversation_id, 'tokens', coalesce(p.tokens, p.charged_tokens, 0),
            'input_tokens', case p.kind when 'settled' then p.input_tokens end, 'output_tokens', case p.kind when 'settled' then p.output_tokens end,
            'cost_micros', case p.kind when 'settled' then p.cost_micros end, 'currency', case p.kind when 'settled' then p.currency end,
            'warnings', coalesce(to_jsonb(p.warnings), '[]'),
            'rule_name', case when p.rule_version_id is not null then (select v.rule_name from governance.rule_versions v where v.version_id = p.rule_version_id) end,
            'rule_names', case when p.matched_version_ids is not null then governance.rule_names(p.matched_version_ids) else '[]' end
          ) order by p.id desc), '[]') from (
          select e.id, e.kind, e.at, e.tokens, e.reason as hold_reason, r.*
          from events e
          cross join lateral (select q.request_id, q.decision_id, q.account_id, q.plan_id, q.decision, q.reason, q.http_status, q.requested_model, q.model,
              q.settled_model, q.task_type, q.scope_id, q.conversation_id, q.charged_tokens, q.input_tokens, q.output_tokens, q.cost_micros, q.currency,
              q.warnings, q.rule_version_id, q.matched_version_ids
            from governance.requests q where q.decision_id = e.decision_id limit 1) r
          where ($5 is null or r.decision = $5) and ($6 is null or $6 in (r.model, r.requested_model, r.settled_model))
          order by e.id desc limit $7) p
        join governance.accounts a on a.account_id = p.account_id)
      $q$, v_calls, v_order, v_entries, v_holds)
    into v_floor, v_rows
    using v_high, v_until, v_page, v_kinds, v_filter ->> 'decision', v_filter ->> 'model', p_limit + 1 - jsonb_array_length(v_events);
    v_events := v_events || v_rows;
    v_looked := v_looked + v_page;
    exit when jsonb_array_length(v_events) > p_limit or v_floor is null or v_looked >= c_most;
    v_high := v_floor;
    v_page := least(v_page * 4, c_most);
  end loop;
  return jsonb_build_object(
    'events', case when jsonb_array_length(v_events) > p_limit then v_events - p_limit else v_events end,
    'next_before_event_id', case when jsonb_array_length(v_events) > p_limit then (v_events -> (p_limit - 1) ->> 'event_id')::bigint else v_floor end);
end
$$;
comment on function public.console_events_before(bigint, int, jsonb) is
  'What happened, newest first; p_filter may have user_id, decision, reason, model, kinds. next_before_event_id goes on from here, null at the end; where the filter is rare a page may hold fewer events than asked, and there are more. Errors: invalid_argument.';
revoke all on function public.console_events_before(bigint, int, jsonb) from public, anon, authenticated;
grant execute on function public.console_events_before(bigint, int, jsonb) to service_role;

-- ---------------------------------------------------------------------------------------------------------------
-- Why
-- ---------------------------------------------------------------------------------------------------------------

create function public.explain_decision(p_decision_id bigint) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
declare
  r governance.requests;
  a governance.accounts;
  v_rule governance.rule_versions;
  v_facts jsonb;
  v_trace jsonb := '[]';
  v_read text[];
  v_need bigint;
  v_have bigint;
  v_shortfall jsonb;
  v_limit jsonb;
  v_clears_at timestamptz;
  v_remedies text[] := '{}';
  v_allowance bigint;
  v_upgrade text;
  v_row record;
begin
  if p_decision_id is null then
    perform governance.fail('PT400', 'invalid_argument', 'p_decision_id is needed');
  end if;
  select x.* into r from governance.requests x where x.decision_id = p_decision_id;
  if not found then
    perform governance.fail('PT404', 'not_found', format('There is no decision %s, or it is no longer kept', p_decision_id));
  end if;
  select x.* into strict a from governance.accounts x where x.account_id = r.account_id;
  select x.* into v_rule from governance.rule_versions x where x.version_id = r.rule_version_id;
  -- Only a hash and a count of the message are kept.
  v_facts := governance.facts_json(r, a) || jsonb_build_object('message', case when r.message_characters is not null then '(not kept)' end);

  -- Rules were looked at unless a block was in force already; the one that blocked was the last.
  if r.reason is distinct from 'user_blocked' and (r.rule_version_id is null or r.rule_version_id = any (coalesce(r.matched_version_ids, '{}'))) then
    for v_row in
      select v.version_id, v.rule_name, v.version, v.rule, v.version_id = any (coalesce(r.matched_version_ids, '{}')) as matched
      from governance.rule_sets s
      cross join lateral unnest(s.version_ids) with ordinality o(version_id, n)
      join governance.rule_versions v using (version_id)
      where s.rule_set_id = r.rule_set_id order by o.n
    loop
      v_read := (governance.compile_condition(v_row.rule -> 'conditions', 'conditions', 1)).facts;
      if v_row.rule -> 'applies_to' ? 'plans' then v_read := v_read || 'plan'::text; end if;
      if v_row.rule -> 'applies_to' ? 'scopes' then v_read := v_read || 'scope_id'::text; end if;
      v_trace := v_trace || jsonb_build_object('rule_name', v_row.rule_name, 'version', v_row.version, 'mode', v_row.rule -> 'mode',
        'matched', v_row.matched,
        'facts', (select coalesce(jsonb_object_agg(f, v_facts -> f), '{}') from unnest(v_read) f));
      exit when v_row.version_id = r.rule_version_id;
      -- A route changes what the rules after it see.
      if v_row.matched and v_row.rule ->> 'mode' = 'enforce' and v_row.rule -> 'action' ? 'route' then
        v_facts := v_facts || jsonb_build_object('model', v_row.rule -> 'action' -> 'route' -> 'model',
          'provider', governance.provider_of(v_row.rule -> 'action' -> 'route' ->> 'model', r.created_at));
      end if;
    end loop;
  end if;

  v_need := case when r.decision = 'block' then least(ceil(r.estimated_tokens * coalesce(r.cost_factor, 1)), 9007199254740991)::bigint else r.reserved_tokens end;
  if r.reason = 'insufficient_tokens' and r.rule_version_id is null then
    v_have := (v_facts ->> 'available_tokens')::bigint;
    v_shortfall := jsonb_build_object('need', v_need, 'have', v_have, 'missing', v_need - v_have);
    select p.monthly_allowance into v_allowance from governance.plans p where p.plan_id = r.plan_id;
    -- The next allowance helps only if it is enough.
    if v_allowance >= v_need then v_clears_at := r.month_ends_at; end if;
  elsif r.reason in ('daily_limit', 'monthly_limit') and (case r.reason when 'daily_limit' then r.daily_limit else r.monthly_limit end) is not null then
    v_limit := jsonb_build_object('window', case r.reason when 'daily_limit' then 'daily' else 'monthly' end,
      'limit', case r.reason when 'daily_limit' then r.daily_limit else r.monthly_limit end,
      'used', case r.reason when 'daily_limit' then r.seen_tokens_today else r.seen_tokens_month end);
    v_have := greatest((v_limit ->> 'limit')::bigint - (v_limit ->> 'used')::bigint, 0);
    if v_need > v_have then
      v_shortfall := jsonb_build_object('need', v_need, 'have', v_have, 'missing', (v_limit ->> 'used')::bigint + v_need - (v_limit ->> 'limit')::bigint);
    end if;
    -- A new day or month helps only a call that fits into it.
    if v_need <= (v_limit ->> 'limit')::bigint then
      v_clears_at := case r.reason when 'daily_limit' then r.day_ends_at else r.month_ends_at end;
    end if;
  end if;
  if v_clears_at is null and v_limit is null and r.retry_after_seconds is not null then
    v_clears_at := date_trunc('second', r.created_at + r.retry_after_seconds * interval '1 second');
  end if;

  if r.decision = 'block' then
    select p.name into v_upgrade from governance.plans p where p.plan_id = r.upgrade_plan;
    if r.reason = 'insufficient_tokens' and v_shortfall is not null then
      v_remedies := v_remedies || format('Add at least %s tokens.', v_shortfall ->> 'missing');
      if v_have > 0 then
        v_remedies := v_remedies || format('Ask for less: at most %s tokens are free.', v_have);
      end if;
    elsif v_limit is not null and v_shortfall is not null then
      v_remedies := v_remedies || format('Raise the %s limit to at least %s tokens.', v_limit ->> 'window', (v_limit ->> 'used')::bigint + v_need);
      if v_have > 0 then
        v_remedies := v_remedies || format('Ask for less: %s tokens are left of the %s limit.', v_have, v_limit ->> 'window');
      end if;
    elsif r.reason = 'user_blocked' then
      v_remedies := v_remedies || 'An operator can unblock this user.'::text;
    elsif r.rule_version_id is not null and not r.rule_version_id = any (coalesce(r.matched_version_ids, '{}')) then
      v_remedies := v_remedies || format('The rule %s blocked this user for a while, at an earlier call: unblock the user, which forgives.', v_rule.rule_name);
    elsif r.rule_version_id is not null then
      v_remedies := v_remedies || format('The rule %s must not match: unblocking the user makes its message counters start anew; or change the rule, or put it in shadow.', v_rule.rule_name);
    end if;
    if v_upgrade is not null then
      v_remedies := v_remedies || format('Move the user to the plan %s.', v_upgrade);
    end if;
    if v_clears_at is not null then
      v_remedies := v_remedies || format('Wait until %s (%s).', to_char(v_clears_at at time zone a.timezone, 'YYYY-MM-DD HH24:MI'), a.timezone);
    end if;
  end if;

  return jsonb_build_object(
    'decision_id', r.decision_id, 'request_id', r.request_id, 'user_id', a.user_id, 'at', r.created_at,
    'decision', r.decision, 'reason', r.reason, 'message', r.message, 'http_status', r.http_status,
    'rule_name', v_rule.rule_name, 'rule_version', v_rule.version,
    'requested_model', r.requested_model, 'model', r.model, 'truncate_to_words', r.truncate_to_words,
    'estimated_tokens', r.estimated_tokens, 'reserved_tokens', r.reserved_tokens, 'status', r.status,
    'shortfall', v_shortfall, 'limit', v_limit, 'clears_at', v_clears_at, 'timezone', a.timezone,
    'balance', governance.decision_answer(r) -> 'balance', 'limits', governance.decision_answer(r) -> 'limits',
    'warnings', coalesce(to_jsonb(r.warnings), '[]'),
    'facts', v_facts,
    'rules', v_trace,
    'remedies', to_jsonb(v_remedies));
end
$$;
comment on function public.explain_decision(bigint) is
  'The receipt of a decision: every rule looked at, with its version, the facts it saw and whether it matched; what was missing, when that clears, and what would have to change. Errors: invalid_argument, not_found.';
revoke all on function public.explain_decision(bigint) from public, anon, authenticated;
grant execute on function public.explain_decision(bigint) to service_role;

revoke all on all functions in schema governance from public;
