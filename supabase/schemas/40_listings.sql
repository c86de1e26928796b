-- Listings: a copy of each account that the console searches, filters and sorts. It is seconds old and kept off the
-- path of a call. What the console reads (41 to 46) is for the service role alone, and its cost is bounded by a page
-- or by the minutes asked for, never by the length of history.

create table governance.account_listings (
  -- No foreign key: checking it would lock the account, which its holder has while it waits for this row. The triggers
  -- below make, change and remove a listing with its account.
  account_id bigint primary key,
  -- Written with the account (see account_listings_follow)
  sort_name text collate "C" not null,
  search_text text not null,
  plan_id text not null,
  is_flagged boolean not null,
  -- Written by governance.follow_events, as are the figures that governance.account_figures names
  blocked_until timestamptz,
  reserved bigint not null default 0,
  -- -1: of nothing that could be used up.
  usage_percent int not null default -1,
  last_activity_at timestamptz not null default '-infinity',
  created_at timestamptz not null,
  -- End of the local day on which the account was last active, and of the month that its counters are of.
  day_ends_at timestamptz,
  month_ends_at timestamptz not null,
  holds_check_at timestamptz
) with (fillfactor = 80);

comment on table governance.account_listings is
  'Columns by which the console searches, filters and sorts accounts. A copy, so that no index covers the counters '
  'that every call changes.';

create index account_listings_name on governance.account_listings (sort_name, account_id);

create index account_listings_plan on governance.account_listings (plan_id, sort_name, account_id);

create index account_listings_activity on governance.account_listings (last_activity_at, account_id);

create index account_listings_flagged on governance.account_listings (account_id) where is_flagged;

create index account_listings_blocked on governance.account_listings (blocked_until) where blocked_until is not null;

create index account_listings_used on governance.account_listings (usage_percent, account_id);

create index account_listings_since on governance.account_listings (created_at, account_id);

create index account_listings_day on governance.account_listings (day_ends_at) where day_ends_at is not null;

create index account_listings_month_end on governance.account_listings (month_ends_at);

create index account_listings_holding on governance.account_listings (account_id) include (reserved) where reserved > 0;

create index account_listings_holds_check on governance.account_listings (holds_check_at)
  where holds_check_at is not null;

-- Search among many needs pg_trgm, in whichever schema this project keeps its extensions. Without it, search reads
-- every listing.
do $$
declare
  v_schema text := (select n.nspname from pg_catalog.pg_namespace n where n.nspname in ('extensions', 'public')
    order by 1 limit 1);
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
end
$$;

create function governance.index_parts(p_index text, p_table text, p_expression text) returns void
  language plpgsql set search_path = '' as $$
declare
  v_schema text := (select n.nspname from pg_catalog.pg_extension e
    join pg_catalog.pg_namespace n on n.oid = e.extnamespace where e.extname = 'pg_trgm');
begin
  if v_schema is null then return; end if;
  execute format('create index %I on governance.%I using gin ((%s) %I.gin_trgm_ops) '
    'with (gin_pending_list_limit = 256)', p_index, p_table, p_expression, v_schema);
end
$$;
comment on function governance.index_parts(text, text, text) is
  'Makes the index by which any part of a text is found. Nothing without pg_trgm: then the table is read.';

do $$
begin
  perform governance.index_parts('account_listings_search', 'account_listings', 'search_text');
end
$$;

create function governance.sort_name(p_user_id text, p_display_name text) returns text
  language sql immutable parallel safe set search_path = '' as $$
  select lower(left(coalesce(nullif(btrim(p_display_name), ''), p_user_id), 200))
$$;
comment on function governance.sort_name(text, text) is
  'The text by which an account is sorted: its name, else its user id, in small letters.';

create function governance.search_text(p_user_id text, p_display_name text, p_email text) returns text
  language sql immutable parallel safe set search_path = '' as $$
  select E'\n' || lower(p_user_id || E'\n' || regexp_replace(left(coalesce(p_display_name, ''), 300), '\s+', ' ', 'g')
    || E'\n' || left(coalesce(p_email, ''), 300))
$$;
comment on function governance.search_text(text, text, text) is
  'The text in which an account is found: user id, name and e-mail in small letters, each on a line of its own.';

create function governance.percent_used(p_today bigint, p_month bigint, p_daily_limit bigint, p_monthly_limit bigint,
  p_monthly_allowance bigint) returns int
  language plpgsql immutable set search_path = '' as $$
declare
  -- Not least(): it passes over nulls, and nobody without a limit has used 2,147,483,647 percent.
  v_percent numeric := case
    when p_daily_limit is null and p_monthly_limit is null then p_month * 100.0 / nullif(p_monthly_allowance, 0)
    else greatest(
      case when p_daily_limit = 0 then 100 else p_today * 100.0 / p_daily_limit end,
      case when p_monthly_limit = 0 then 100 else p_month * 100.0 / p_monthly_limit end) end;
begin
  return case when v_percent > 2147483647 then 2147483647 else floor(v_percent)::int end;
end
$$;
comment on function governance.percent_used(bigint, bigint, bigint, bigint, bigint) is
  'usage_percent of docs/RULES.md: the higher of day''s and month''s use; by the allowance where there is no limit; '
    'null without either.';

create function governance.usage_of(p_today bigint, p_month bigint, p_daily_limit bigint, p_monthly_limit bigint,
  p_monthly_allowance bigint) returns text
  language sql immutable set search_path = '' as $$
  select case
    when p_daily_limit is null and p_monthly_limit is null then case when p_monthly_allowance > 0 then 'allowance' end
    when p_monthly_limit is null then 'daily_limit'
    when p_daily_limit is null then 'monthly_limit'
    when governance.percent_used(p_today, p_month, p_daily_limit, null, 0)
      >= governance.percent_used(p_today, p_month, null, p_monthly_limit, 0) then 'daily_limit'
    else 'monthly_limit' end
$$;
comment on function governance.usage_of(bigint, bigint, bigint, bigint, bigint) is
  'The limit of which governance.percent_used is a percentage: daily_limit, monthly_limit or allowance; null without '
  'any.';

-- The figures of the user table, all of which it can be sorted by. A column here becomes a column of account_listings
-- with its index (below), a key of each row (governance.account_rows) and a word of p_sort (console_search_accounts).
create view governance.account_figures with (security_invoker = true) as
  select a.account_id,
    case when a.day_ends_at > t.at then a.day_tokens else 0 end + a.reserved_tokens as tokens_today,
    case when a.month_ends_at > t.at then a.month_tokens else 0 end + a.reserved_tokens as tokens_this_month,
    case when a.month_ends_at > t.at then a.month_cost_micros else 0 end as cost_this_month_micros,
    a.subscription_tokens + a.purchased_tokens + a.promotional_tokens - a.reserved_tokens as available,
    a.debt_tokens as debt
  from governance.accounts a cross join (select governance.now() as at) t;

comment on view governance.account_figures is 'The figures of the user table, as they are at this moment.';

create view governance.current_listings with (security_invoker = true) as
  select f.*,
    governance.blocked_until(a) as blocked_until,
    a.reserved_tokens as reserved,
    coalesce(governance.percent_used(f.tokens_today, f.tokens_this_month,
      governance.raised_limit(p.daily_limit, a.raised_daily_limit, a.raised_daily_until, t.at),
      governance.raised_limit(p.monthly_limit, a.raised_monthly_limit, a.raised_monthly_until, t.at),
      greatest(p.monthly_allowance, a.month_allowance)), -1) as usage_percent,
    coalesce(a.last_activity_at, '-infinity') as last_activity_at,
    case when a.day_ends_at > t.at and a.day_calls > 0 then a.day_ends_at end as day_ends_at,
    a.month_ends_at,
    a.holds_check_at
  from governance.account_figures f
  join governance.accounts a using (account_id)
  join governance.plans p using (plan_id)
  cross join (select governance.now() as at) t;

comment on view governance.current_listings is
  'The rows that governance.copy_to_listings copies, as they are at this moment.';

create function governance.columns_of(p_view regclass) returns text[]
  language sql stable set search_path = '' as $$
  select array_agg(a.attname::text order by a.attnum) from pg_catalog.pg_attribute a
  where a.attrelid = p_view and a.attnum > 0 and not a.attisdropped and a.attname <> 'account_id'
$$;
comment on function governance.columns_of(regclass) is 'Columns of a view of accounts, besides the account itself.';

-- The copy of each figure, by which the user table can be sorted.
do $$
declare
  v_figure text;
begin
  foreach v_figure in array governance.columns_of('governance.account_figures') loop
    execute format('alter table governance.account_listings add column %I bigint not null default 0', v_figure);
    execute format('create index %I on governance.account_listings (%I, account_id)',
      'account_listings_' || v_figure, v_figure);
  end loop;
end
$$;

create index account_listings_in_debt on governance.account_listings (account_id) where debt > 0;

create table governance.listings_due (
  -- Not the account's id: an act adds to it without waiting for a copy that takes the same account out of it.
  due_id bigint generated always as identity primary key,
  account_id bigint not null
);

comment on table governance.listings_due is
  'Accounts whose listing somebody was copying while an operator changed who they are: the next copy writes them.';

create function governance.write_listing(a governance.accounts) returns void
  language sql set search_path = '' as $$
  update governance.account_listings l set sort_name = governance.sort_name(a.user_id, a.display_name),
    search_text = governance.search_text(a.user_id, a.display_name, a.email), plan_id = a.plan_id,
    is_flagged = a.flagged_at is not null, blocked_until = governance.blocked_until(a)
  where l.account_id = a.account_id
$$;
comment on function governance.write_listing(governance.accounts) is
  'Writes who an account is, and what operators decided, into its listing.';

create function governance.copy_to_listings(p_account_ids bigint[]) returns void
  language plpgsql set search_path = '' as $$
declare
  v_columns text[] := governance.columns_of('governance.current_listings');
  v_due bigint[];
begin
  -- One writer of many rows at a time, so that two never wait for each other.
  perform pg_advisory_xact_lock(7254014);
  with due as (delete from governance.listings_due d where d.account_id = any (p_account_ids) returning d.account_id)
  select array_agg(distinct d.account_id) into v_due from due d;
  if v_due is not null then
    perform governance.write_listing(a) from governance.accounts a where a.account_id = any (v_due);
  end if;
  execute format('update governance.account_listings l set (%s) = row(%s) from governance.current_listings n '
    'where n.account_id = any ($1) and l.account_id = n.account_id and (%s) is distinct from (%2$s)',
    array_to_string(v_columns, ', '), 'n.' || array_to_string(v_columns, ', n.'),
    'l.' || array_to_string(v_columns, ', l.')) using p_account_ids;
end
$$;
comment on function governance.copy_to_listings(bigint[]) is 'Brings the listings of these accounts up to the moment.';

create function governance.follow_account() returns trigger
  language plpgsql set search_path = '' as $$
begin
  if tg_op = 'INSERT' then
    insert into governance.account_listings (account_id, sort_name, search_text, plan_id, is_flagged, month_ends_at,
      created_at)
    values (new.account_id, governance.sort_name(new.user_id, new.display_name),
      governance.search_text(new.user_id, new.display_name, new.email), new.plan_id, new.flagged_at is not null,
        new.month_ends_at, new.created_at);
  elsif tg_op = 'DELETE' then
    delete from governance.account_listings l where l.account_id = old.account_id;
  else
    perform from governance.account_listings l where l.account_id = new.account_id for update skip locked;
    if found then
      perform governance.write_listing(new);
    else
      -- Calls wait for the holder of the account: it does not wait in turn for a copy of many listings.
      insert into governance.listings_due (account_id) values (new.account_id);
    end if;
  end if;
  return null;
end
$$;
comment on function governance.follow_account() is 'Carries who an account is, and what operators decided, into its '
  'listing.';

create function governance.roll_due_accounts(p_now timestamptz, p_limit int, p_budget interval,
  out expired_holds int, out expired_lots int, out allowances int, out failed int, out is_done boolean)
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
    -- A frozen lot stays open beyond its end with nothing to take out of it: old disputes must not fill the page.
    (select o.account_id from governance.lots o where o.is_open and o.expires_at <= p_now and o.remaining > 0
      order by o.expires_at limit p_limit)
    union all
    (select l.account_id from governance.account_listings l where l.month_ends_at <= p_now order by l.month_ends_at
      limit p_limit)
    union all
    -- Only where the setting pay_debt_from changed, or a copy of older books was restored: see recover_debt.
    (select l.account_id from governance.account_listings l where l.debt > 0 and l.available > 0
      and governance.pays_debt_at_once() limit p_limit)
  ) x;
  foreach v_id in array coalesce(v_due, '{}') loop
    if clock_timestamp() > v_until then
      is_done := false;
      exit;
    end if;
    -- The holder of the account's lock brings it up to the moment too.
    if not pg_try_advisory_xact_lock(governance.lock_key((select a.user_id from governance.accounts a
      where a.account_id = v_id))) then
      continue;
    end if;
    select * into v_account from governance.accounts a where a.account_id = v_id for update skip locked;
    continue when not found;
    v_touched := v_touched || v_id;
    if governance.needs_roll(v_account, p_now) or v_account.debt_tokens > 0 then
      begin
        v_rolled := governance.roll_account(v_id, p_now);
        if v_account.debt_tokens > 0 then
          perform governance.recover_debt(v_id, p_now, null);
        end if;
        expired_holds := expired_holds + coalesce(v_rolled.expired_holds, 0);
        expired_lots := expired_lots + coalesce(v_rolled.expired_lots, 0);
        allowances := allowances + coalesce(v_rolled.allowances, 0);
      exception when others then
        -- One account that cannot be rolled must not keep the others from it.
        failed := failed + 1;
        perform governance.raise_alert(null, v_id, 'maintenance_failed', 'critical',
          format('Upkeep of %s failed: %s', left(v_account.user_id, 100), left(sqlerrm, 300)), null, null,
            (p_now at time zone 'UTC')::date::text,
          jsonb_build_object('sqlstate', sqlstate), p_now);
      end;
    end if;
  end loop;
  -- Other writers of these listings hold their accounts, so the only wait would be for another copier: see upkeep.
  if cardinality(v_touched) > 0 and pg_try_advisory_xact_lock(7254014) then
    perform governance.copy_to_listings(v_touched);
  end if;
  is_done := is_done and coalesce(cardinality(v_due), 0) < p_limit;
end
$$;
comment on function governance.roll_due_accounts(timestamptz, int, interval) is
  'Brings accounts up to the moment whose holds or lots have expired or whose month is over, for at most so long: '
  'their calls wait meanwhile.';

-- A guess at how many accounts hold a text is only as good as the sample.
alter table governance.account_listings alter column search_text set statistics 500;

create trigger account_listings_made after insert or delete
  on governance.accounts for each row execute function governance.follow_account();

-- Calls set none of these columns, or to what they are: the listing is not on their path. A rule's block is copied by
-- governance.follow_events; that an operator lifted it shows at once.
create trigger account_listings_changed after update of display_name, email, plan_id, flagged_at, blocked_at,
  blocked_until, rule_blocked_until
  on governance.accounts for each row
  when ((old.display_name, old.email, old.plan_id, old.flagged_at, old.blocked_at, old.blocked_until)
    is distinct from (new.display_name, new.email, new.plan_id, new.flagged_at, new.blocked_at, new.blocked_until)
    or (old.rule_blocked_until is not null and new.rule_blocked_until is null))
  execute function governance.follow_account();
