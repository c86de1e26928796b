-- Accounts: who they are, their lock, and what they read about themselves.

-- The columns that calls change come last, and no index covers any of them: updates stay on their page (HOT).
create table governance.accounts (
  account_id bigint generated always as identity primary key,
  user_id text not null unique,
  plan_id text not null references governance.plans (plan_id),
  timezone text not null default 'UTC',
  email text,
  display_name text,
  metadata jsonb not null default '{}',
  created_at timestamptz not null default now(),
  -- Flags and blocks that operators set.
  version int not null default 1,
  flagged_at timestamptz,
  flag_reason text,
  flagged_by text,
  blocked_at timestamptz,
  -- Null while blocked: until someone unblocks.
  blocked_until timestamptz,
  block_reason text,
  blocked_by text,
  -- A rule's block, until it ends.
  rule_blocked_until timestamptz,
  rule_block_reason text,
  rule_block_message text,
  rule_block_version_id bigint,
  -- Limits that an operator raised, each until its own moment; after it they have no effect. Null: as the plan has
  -- it.
  raised_daily_limit bigint,
  raised_daily_until timestamptz,
  raised_monthly_limit bigint,
  raised_monthly_until timestamptz,
  -- The plan that it moves to when its next month begins.
  next_plan_id text,
  -- Unblocking forgives: messages before this moment no longer count as identical or rapid.
  forgiven_at timestamptz,
  -- The day that a settlement is stamped with, and its month (CONVENTIONS, Time): they never go back.
  local_day date not null,
  day_ends_at timestamptz not null,
  local_month date not null,
  month_ends_at timestamptz not null,
  -- Allowance given for local_month: a plan change gives only what is above it, and a worse plan takes none back.
  month_allowance bigint not null default 0,
  -- Head of the ledger's chain.
  last_transaction_id bigint,
  last_hash bytea,
  -- Earliest moment at which a lot of this account expires; null for none.
  lots_check_at timestamptz,
  -- Created and expiring moments of the oldest hold that may still be open; null for none.
  holds_from timestamptz,
  holds_check_at timestamptz,
  last_message_at timestamptz,
  last_activity_at timestamptz,
  rapid_messages int not null default 0,
  day_messages int not null default 0,
  month_messages int not null default 0,
  day_calls int not null default 0,
  month_calls int not null default 0,
  day_tokens bigint not null default 0,
  month_tokens bigint not null default 0,
  day_cost_micros bigint not null default 0,
  month_cost_micros bigint not null default 0,
  -- Live tokens by kind: the sums of the lots' remaining.
  subscription_tokens bigint not null default 0,
  purchased_tokens bigint not null default 0,
  promotional_tokens bigint not null default 0,
  reserved_tokens bigint not null default 0,
  debt_tokens bigint not null default 0
) with (fillfactor = 50);

create index accounts_flagged on governance.accounts (flagged_at desc) where flagged_at is not null;

-- An e-mail changes with no call, so that calls still update in place.
create index accounts_email on governance.accounts (lower(email)) where email is not null;

create index accounts_blocked on governance.accounts (blocked_at desc) where blocked_at is not null;

comment on table governance.accounts is 'One row a user: who they are, what operators decided, and the counters that a '
  'call checks.';

-- Shapes of the answers: a typed row becomes jsonb at half the cost of jsonb_build_object, which looks up the type of
-- each key and value again in each call.

create type governance.balance as (debt bigint, total bigint, reserved bigint, available bigint, purchased bigint,
  promotional bigint, subscription bigint);

create type governance.limit_state as (used bigint, "limit" bigint, remaining bigint, resets_at timestamptz);

create type governance.limits as (daily governance.limit_state, monthly governance.limit_state);

create function governance.balance_json(p_subscription bigint, p_purchased bigint, p_promotional bigint,
  p_reserved bigint, p_debt bigint) returns jsonb
  language sql stable set search_path = '' as $$
  select jsonb_build_object('available', p_subscription + p_purchased + p_promotional - p_reserved, 'reserved',
    p_reserved,
    'subscription', p_subscription, 'purchased', p_purchased, 'promotional', p_promotional, 'debt', p_debt,
    'total', p_subscription + p_purchased + p_promotional)
$$;
comment on function governance.balance_json(bigint, bigint, bigint, bigint,
  bigint) is 'The balance of CONTRACT, in tokens.';

create function governance.limits_json(p_daily_limit bigint, p_day_used bigint, p_day_ends_at timestamptz,
  p_monthly_limit bigint, p_month_used bigint, p_month_ends_at timestamptz) returns jsonb
  language sql stable set search_path = '' as $$
  select jsonb_build_object(
    'daily', jsonb_build_object('limit', p_daily_limit, 'used', p_day_used, 'remaining', case
      when p_daily_limit is not null then greatest(p_daily_limit - p_day_used, 0) end, 'resets_at', p_day_ends_at),
    'monthly', jsonb_build_object('limit', p_monthly_limit, 'used', p_month_used, 'remaining', case
      when p_monthly_limit is not null then greatest(p_monthly_limit - p_month_used, 0) end, 'resets_at',
      p_month_ends_at))
$$;
comment on function governance.limits_json(bigint, bigint, timestamptz, bigint, bigint,
  timestamptz) is 'The limits of CONTRACT, in tokens; null for none.';

create function governance.raised_limit(p_limit bigint, p_raised bigint, p_until timestamptz, p_now timestamptz)
  returns bigint
  language sql immutable set search_path = '' as $$
  select case when p_until > p_now and p_raised > p_limit then p_raised else p_limit end
$$;
comment on function governance.raised_limit(bigint, bigint, timestamptz, timestamptz) is
  'A plan''s limit, or what it was raised to until a moment that has not come; null where the plan has none.';

create function governance.blocked_until(a governance.accounts) returns timestamptz
  language sql stable set search_path = '' as $$
  select greatest(case when a.blocked_at is not null then coalesce(a.blocked_until, 'infinity') end,
    a.rule_blocked_until)
$$;
comment on function governance.blocked_until(governance.accounts) is
  'Until when calls of an account are stopped, by an operator or by a rule: infinity until somebody unblocks, null '
  'where nothing ever blocked it. An account is blocked while this is after now.';

create function governance.block_json(a governance.accounts, p_now timestamptz) returns jsonb
  language plpgsql stable set search_path = '' as $$
declare
  v_until timestamptz := governance.blocked_until(a);
  v_by_operator boolean := a.blocked_at is not null and coalesce(a.blocked_until > p_now, true);
  v_by_rule boolean := coalesce(a.rule_blocked_until > p_now, false);
  v_rule_name text;
begin
  if v_by_rule then
    select v.rule_name into v_rule_name from governance.rule_versions v where v.version_id = a.rule_block_version_id;
  end if;
  return jsonb_build_object(
    'is_blocked', v_by_operator or v_by_rule,
    'block_source', case when v_by_operator then 'operator' when v_by_rule then 'rule' end,
    'block_reason', case when v_by_operator then a.block_reason when v_by_rule then a.rule_block_reason end,
    'blocked_at', case when v_by_operator then a.blocked_at end,
    'blocked_until', case when (v_by_operator or v_by_rule) and isfinite(v_until) then v_until end,
    'blocked_by', case when v_by_operator then a.blocked_by end,
    'block_rule', v_rule_name,
    'rule_blocked_until', case when v_by_rule then a.rule_blocked_until end,
    'rule_block_reason', case when v_by_rule then a.rule_block_reason end);
end
$$;
comment on function governance.block_json(governance.accounts, timestamptz) is
  'What stops an account''s calls now, the same in every answer: is_blocked; block_source operator or rule (operator '
  'where both do); blocked_until, when the last of both ends (null: when somebody unblocks); the reason and who. A '
  'rule''s block beside an operator''s is in block_rule, rule_blocked_until and rule_block_reason.';

create function governance.account_json(a governance.accounts) returns jsonb
  language sql stable set search_path = '' as $$
  select jsonb_build_object(
    'user_id', a.user_id, 'plan_id', a.plan_id, 'plan_name', p.name, 'email', a.email, 'display_name', a.display_name,
    'timezone', a.timezone, 'metadata', a.metadata, 'created_at', a.created_at, 'version', a.version,
    'is_flagged', a.flagged_at is not null, 'flag_reason', a.flag_reason, 'flagged_at', a.flagged_at, 'flagged_by',
      a.flagged_by,
    'last_activity', a.last_activity_at, 'fail_mode', p.fail_mode, 'allows_top_up', p.allows_top_up,
    'balance', governance.balance_json(a.subscription_tokens, a.purchased_tokens, a.promotional_tokens,
      a.reserved_tokens, a.debt_tokens),
    'limits', governance.limits_json(
      governance.raised_limit(p.daily_limit, a.raised_daily_limit, a.raised_daily_until, t.now),
      a.day_tokens + a.reserved_tokens, a.day_ends_at,
      governance.raised_limit(p.monthly_limit, a.raised_monthly_limit, a.raised_monthly_until, t.now),
      a.month_tokens + a.reserved_tokens, a.month_ends_at),
    'raised', case when greatest(a.raised_daily_until, a.raised_monthly_until) > t.now then jsonb_build_object(
      'daily_limit', case when a.raised_daily_until > t.now then a.raised_daily_limit end,
      'daily_until', case when a.raised_daily_until > t.now then a.raised_daily_until end,
      'monthly_limit', case when a.raised_monthly_until > t.now then a.raised_monthly_limit end,
      'monthly_until', case when a.raised_monthly_until > t.now then a.raised_monthly_until end,
      'until', greatest(a.raised_daily_until, a.raised_monthly_until)) end,
    'next_plan', (select jsonb_build_object('plan_id', n.plan_id, 'name', n.name, 'at', a.month_ends_at)
      from governance.plans n where n.plan_id = a.next_plan_id))
    || governance.block_json(a, t.now)
  from governance.plans p, (select governance.now() as now) t where p.plan_id = a.plan_id
$$;
comment on function governance.account_json(governance.accounts) is 'The account as functions return it.';

create function governance.lock_key(p_user_id text) returns bigint
  language sql immutable set search_path = '' as $$
  select hashtextextended(p_user_id, 7254)
$$;
comment on function governance.lock_key(text) is 'The advisory lock of an account, taken before its row: waiting there '
  'is much cheaper than on the row.';

create function governance.create_account(p_user_id text, p_now timestamptz, p_plan_id text default null,
  p_timezone text default 'UTC') returns governance.accounts
  language plpgsql set search_path = '' as $$
declare
  v_plan governance.plans;
  v_account governance.accounts;
  v_day date := (p_now at time zone p_timezone)::date;
  v_month date := date_trunc('month', p_now at time zone p_timezone)::date;
begin
  select p.* into v_plan from governance.plans p
  where p.plan_id = coalesce(p_plan_id, (select c.default_plan from governance.active_config c))
    and p.retired_at is null;
  if not found then
    perform governance.fail('PT409', 'not_configured', 'There is no default plan yet: apply a preset first');
  end if;
  insert into governance.accounts (user_id, plan_id, timezone, created_at, local_day, day_ends_at, local_month,
    month_ends_at, month_allowance)
  values (p_user_id, v_plan.plan_id, p_timezone, p_now, v_day, (v_day + 1)::timestamp at time zone p_timezone,
    v_month, (v_month + interval '1 month')::timestamp at time zone p_timezone, v_plan.monthly_allowance)
  on conflict (user_id) do nothing
  returning * into v_account;
  if v_account.account_id is not null and v_plan.monthly_allowance > 0 then
    perform governance.grant_allowance(v_account, v_month, v_plan.monthly_allowance, p_now, v_plan.rollover_months);
  end if;
  select * into strict v_account from governance.accounts a where a.user_id = p_user_id for update;
  return v_account;
end
$$;
comment on function governance.create_account(text, timestamptz, text,
  text) is 'Makes an account with its first allowance. The caller holds the account''s lock.';

create function governance.lock_account(p_user_id text, p_create boolean default false) returns governance.accounts
  language plpgsql set search_path = '' as $$
declare
  v_account governance.accounts;
  v_now timestamptz;
begin
  perform pg_advisory_xact_lock(governance.lock_key(p_user_id));
  select * into v_account from governance.accounts a where a.user_id = p_user_id for update;
  v_now := governance.now();
  if v_account.account_id is null then
    if not p_create then
      perform governance.fail('PT404', 'unknown_user', format('There is no account of user "%s"', left(p_user_id, 64)));
    end if;
    return governance.create_account(p_user_id, v_now);
  end if;
  if governance.needs_roll(v_account, v_now) then
    perform governance.roll_account(v_account.account_id, v_now);
    select * into strict v_account from governance.accounts a where a.user_id = p_user_id;
  end if;
  return v_account;
end
$$;
comment on function governance.lock_account(text, boolean) is
  'Locks an account until the transaction ends, brings it up to the moment and returns it; unknown_user unless it may '
  'be made.';

create function governance.lock_account_id(p_account_id bigint) returns governance.accounts
  language plpgsql set search_path = '' as $$
declare
  v_user_id text;
begin
  select a.user_id into strict v_user_id from governance.accounts a where a.account_id = p_account_id;
  return governance.lock_account(v_user_id);
end
$$;
comment on function governance.lock_account_id(bigint) is 'governance.lock_account by account_id.';

create function governance.lock_accounts(p_account_ids bigint[]) returns void
  language plpgsql set search_path = '' as $$
begin
  perform governance.lock_account(u.user_id) from (select a.user_id from governance.accounts a
    where a.account_id = any (p_account_ids) order by governance.lock_key(a.user_id)) u;
end
$$;
comment on function governance.lock_accounts(bigint[]) is
  'Locks several accounts as governance.lock_account does, always in the order of their locks.';

create function governance.account_id_of(p_user_id text) returns bigint
  language plpgsql stable set search_path = '' as $$
declare
  v_account_id bigint;
begin
  select a.account_id into v_account_id from governance.accounts a where a.user_id = p_user_id;
  if v_account_id is null then
    perform governance.fail('PT404', 'unknown_user', format('There is no account of user "%s"', left(p_user_id, 64)));
  end if;
  return v_account_id;
end
$$;
comment on function governance.account_id_of(text) is 'The account of a user. Errors: unknown_user.';

create function public.upsert_account(
  p_user_id text, p_plan_id text default null, p_email text default null, p_display_name text default null,
  p_timezone text default null, p_metadata jsonb default null
) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_timezone text;
  v_account governance.accounts;
  v_plan governance.plans;
  v_now timestamptz;
  v_more bigint;
begin
  perform governance.refuse_others('upsert_account');
  perform governance.check_id('p_user_id', p_user_id);
  perform governance.check_optional('p_email', p_email, 320);
  perform governance.check_optional('p_display_name', p_display_name, 10000);
  perform governance.check_metadata('p_metadata', p_metadata);
  if p_timezone is not null then
    v_timezone := governance.check_timezone(p_timezone);
  end if;
  if p_plan_id is not null then
    select * into v_plan from governance.plans p where p.plan_id = p_plan_id and p.retired_at is null;
    if not found then
      perform governance.fail('PT404', 'unknown_plan', format('There is no plan "%s"', left(p_plan_id, 64)));
    end if;
  end if;

  perform pg_advisory_xact_lock(governance.lock_key(p_user_id));
  v_now := governance.now();
  if not exists (select from governance.accounts a where a.user_id = p_user_id) then
    v_account := governance.create_account(p_user_id, v_now, p_plan_id, coalesce(v_timezone, 'UTC'));
  else
    v_account := governance.lock_account(p_user_id);
    if v_timezone is not null and v_timezone <> v_account.timezone then
      update governance.accounts a set version = a.version + 1 where a.account_id = v_account.account_id;
      perform governance.turn_day(v_account, v_timezone, v_now);
      v_account := governance.lock_account(p_user_id);
    end if;
    if p_plan_id is not null and p_plan_id <> v_account.plan_id then
      v_more := v_plan.monthly_allowance - v_account.month_allowance;
      update governance.accounts a set
        plan_id = p_plan_id, version = a.version + 1, next_plan_id = null,
          month_allowance = greatest(a.month_allowance, v_plan.monthly_allowance)
      where a.account_id = v_account.account_id;
      -- A better plan gives the difference now, and the month's allowance never twice.
      if v_more > 0 then
        perform governance.grant_allowance(v_account, v_account.local_month, v_more, v_now, v_plan.rollover_months);
      end if;
    end if;
  end if;
  update governance.accounts a set
    email = coalesce(p_email, a.email), display_name = coalesce(p_display_name, a.display_name),
      metadata = coalesce(p_metadata, a.metadata)
  where a.account_id = v_account.account_id
  returning * into v_account;
  perform governance.ring('accounts', v_now);
  return governance.account_json(v_account);
end
$$;
comment on function public.upsert_account(text, text, text, text, text, jsonb) is
  'Makes an account or changes what is given; null leaves a thing as it is. A better plan gives the difference of '
  'allowance at once. Returns the account. Errors: invalid_argument, unknown_plan, not_configured.';
revoke all on function public.upsert_account(text, text, text, text, text, jsonb) from public, anon, authenticated;
grant execute on function public.upsert_account(text, text, text, text, text, jsonb) to service_role;

create function governance.current_account(p_user_id text, p_create boolean default false) returns governance.accounts
  language plpgsql set search_path = '' as $$
declare
  v_account governance.accounts;
begin
  select * into v_account from governance.accounts a where a.user_id = p_user_id;
  if v_account.account_id is null and not p_create then
    perform governance.fail('PT404', 'unknown_user', format('There is no account of user "%s"', left(p_user_id, 64)));
  end if;
  -- A read does not wait for calls: the account is locked and brought up to date only if something is due.
  if v_account.account_id is null
    or (governance.needs_roll(v_account, governance.now()) and current_setting('transaction_read_only') = 'off') then
    v_account := governance.lock_account(p_user_id, p_create);
  end if;
  return v_account;
end
$$;
comment on function governance.current_account(text,
  boolean) is 'An account as it is at this moment, read without waiting where that is possible; unknown_user unless it '
    'may be made.';

create function public.get_or_create_token_record(p_user_id text) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_account governance.accounts;
  v_limit bigint;
begin
  perform governance.refuse_others('get_or_create_token_record');
  perform governance.check_id('p_user_id', p_user_id);
  v_account := governance.current_account(p_user_id, true);
  select governance.raised_limit(p.daily_limit, v_account.raised_daily_limit, v_account.raised_daily_until,
      governance.now())
    into v_limit from governance.plans p where p.plan_id = v_account.plan_id;
  return jsonb_build_object(
    'tokens_used', v_account.day_tokens + v_account.reserved_tokens,
    'tokens_limit', v_limit,
    'tokens_remaining', case
      when v_limit is not null then greatest(v_limit - v_account.day_tokens - v_account.reserved_tokens, 0) end,
    'resets_at', v_account.day_ends_at,
    'user_id', v_account.user_id, 'plan_id', v_account.plan_id, 'date', v_account.local_day, 'timezone',
      v_account.timezone,
    'messages_sent', v_account.day_messages, 'cost_micros', v_account.day_cost_micros,
    'available', v_account.subscription_tokens + v_account.purchased_tokens + v_account.promotional_tokens -
      v_account.reserved_tokens);
end
$$;
comment on function public.get_or_create_token_record(text) is
  'The user''s day: tokens used (held ones included), limit, remaining (both null without one), when the next starts. '
    'A new user gets an account. Errors: invalid_argument, not_configured.';
revoke all on function public.get_or_create_token_record(text) from public, anon, authenticated;
grant execute on function public.get_or_create_token_record(text) to service_role;

create function governance.my_account() returns governance.accounts
  language plpgsql set search_path = '' as $$
declare
  v_claims jsonb;
  v_user_id text;
begin
  begin
    v_claims := nullif(current_setting('request.jwt.claims', true), '')::jsonb;
    v_user_id := case when jsonb_typeof(v_claims -> 'sub') = 'string' then v_claims ->> 'sub' end;
  exception when data_exception then
    v_user_id := null;
  end;
  if v_user_id is null or btrim(v_user_id) = '' or char_length(v_user_id) > 255 then
    perform governance.fail('PT401', 'not_signed_in', 'Sign in first: the token names no user');
  end if;
  return governance.current_account(v_user_id, true);
end
$$;
comment on function governance.my_account() is
  'The account of the user whom the request''s token names (sub). A new user gets an account, as at a first call.';

create function public.my_token_balance() returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_account governance.accounts := governance.my_account();
  v_plan governance.plans;
  v_percent int;
  v_reached int;
  v_available bigint;
  v_language text := governance.user_language(v_account);
begin
  select * into strict v_plan from governance.plans p where p.plan_id = v_account.plan_id;
  v_available := v_account.subscription_tokens + v_account.purchased_tokens + v_account.promotional_tokens -
    v_account.reserved_tokens;
  v_plan.daily_limit := governance.raised_limit(v_plan.daily_limit, v_account.raised_daily_limit,
    v_account.raised_daily_until, governance.now());
  v_plan.monthly_limit := governance.raised_limit(v_plan.monthly_limit, v_account.raised_monthly_limit,
    v_account.raised_monthly_until, governance.now());
  v_percent := governance.percent_used(v_account.day_tokens + v_account.reserved_tokens,
    v_account.month_tokens + v_account.reserved_tokens,
    v_plan.daily_limit, v_plan.monthly_limit, greatest(v_plan.monthly_allowance, v_account.month_allowance));
  select max(w) into v_reached from unnest(v_plan.warn_at) w where w <= v_percent;
  return jsonb_build_object(
    'tokens', v_available,
    'plan', v_account.plan_id,
    'plan_name', v_plan.name,
    'balance', governance.account_json(v_account) -> 'balance',
    'limits', governance.account_json(v_account) -> 'limits',
    'usage_percent', v_percent,
    'warning', case
      when v_available < (select c.low_balance_tokens from governance.active_config c) then
        jsonb_build_object('type', 'low_balance', 'message', governance.say('alert.low_balance', v_language,
          jsonb_build_object('value', governance.say_count(v_available, v_language))))
      when v_reached is not null then
        jsonb_build_object('type', 'usage', 'percent', v_reached, 'message',
          governance.say('warning.usage', v_language, jsonb_build_object('percent', v_reached))) end,
    'packs', case when v_plan.allows_top_up then (
      select coalesce(jsonb_agg(jsonb_build_object('pack_id', k.pack_id, 'tokens', k.tokens, 'price_minor',
        k.price_minor, 'currency', k.currency) order by k.tokens, k.pack_id), '[]')
      from governance.packs k where k.retired_at is null and (k.plans is null or v_account.plan_id = any (k.plans)))
        else '[]' end,
    'buy_url', governance.buy_url('insufficient_tokens', v_account.plan_id),
    'upgrade', (select governance.upgrade_json(u.plan_id) from governance.plans u
      where u.plan_id = v_plan.upgrade_to and u.retired_at is null),
    'language', v_language,
    'is_blocked', governance.account_json(v_account) -> 'is_blocked');
end
$$;
comment on function public.my_token_balance() is
  'The signed-in user''s tokens, plan, limits, a warning where there is one, the packs they may buy and where '
  '(the setting buy_url). Errors: not_signed_in, not_configured.';
revoke all on function public.my_token_balance() from public, anon, authenticated;
grant execute on function public.my_token_balance() to authenticated;

-- A function, as the terms of a check are read again from text by every statement that writes the table; and without a
-- search path, which would cost as much as it saves: it uses built-in operators alone.
create function governance.is_sound(a governance.accounts) returns boolean
  language plpgsql immutable as $$
begin
  return least(a.subscription_tokens, a.purchased_tokens, a.promotional_tokens, a.reserved_tokens, a.debt_tokens,
    a.day_tokens, a.month_tokens,
    a.subscription_tokens + a.purchased_tokens + a.promotional_tokens - a.reserved_tokens) >= 0;
end
$$;
comment on function governance.is_sound(governance.accounts) is
  'Whether nothing of an account is below zero, and no more tokens are reserved than there are.';

alter table governance.accounts add constraint accounts_never_negative check (governance.is_sound(accounts));
