-- Accounts, lots and the ledger. Whoever changes an account's tokens holds its lock (governance.lock_account) and
-- writes an entry (governance.append_entry, or the settlement itself), so that lots, account and ledger agree.

-- ---------------------------------------------------------------------------------------------------------------
-- Arguments
-- ---------------------------------------------------------------------------------------------------------------

create function governance.check_id(p_name text, p_value text, p_max int default 255) returns void
  language plpgsql immutable set search_path = '' as $$
begin
  if p_value is null or btrim(p_value) = '' then
    perform governance.fail('PT400', 'invalid_argument', format('%s is needed', p_name));
  elsif char_length(p_value) > p_max then
    perform governance.fail('PT400', 'invalid_argument', format('%s has more than %s characters', p_name, p_max));
  end if;
end
$$;
comment on function governance.check_id(text, text, int) is 'Refuses an identifier that is missing, blank or too long.';

create function governance.check_optional(p_name text, p_value text, p_max int) returns void
  language plpgsql immutable set search_path = '' as $$
begin
  if char_length(p_value) > p_max then
    perform governance.fail('PT400', 'invalid_argument', format('%s has more than %s characters', p_name, p_max));
  end if;
end
$$;
comment on function governance.check_optional(text, text, int) is 'Refuses a text that is too long.';

create function governance.check_metadata(p_name text, p_value jsonb) returns void
  language plpgsql immutable set search_path = '' as $$
begin
  if p_value is not null and jsonb_typeof(p_value) <> 'object' then
    perform governance.fail('PT400', 'invalid_argument', format('%s must be a JSON object', p_name));
  elsif octet_length(p_value::text) > 16384 then
    perform governance.fail('PT400', 'invalid_argument', format('%s is larger than 16 KB', p_name));
  end if;
end
$$;
comment on function governance.check_metadata(text, jsonb) is 'Refuses metadata that is no object or is too large.';

create function governance.check_timezone(p_timezone text) returns text
  language plpgsql stable set search_path = '' as $$
declare
  v_name text;
begin
  if p_timezone = 'UTC' then return p_timezone; end if;
  -- Only names of the time zone database: PostgreSQL would also take POSIX rules such as FOO+3.
  if char_length(p_timezone) <= 64 then
    select n.name into v_name from pg_catalog.pg_timezone_names n
    where lower(n.name) = lower(p_timezone) and n.name !~ '^(posix|right)/' limit 1;
  end if;
  if v_name is null then
    perform governance.fail('PT400', 'invalid_argument', format('p_timezone "%s" is not a time zone', left(p_timezone, 64)));
  end if;
  return v_name;
end
$$;
comment on function governance.check_timezone(text) is 'The time zone by its proper name; refuses what the time zone database does not know.';

-- ---------------------------------------------------------------------------------------------------------------
-- Shapes
-- ---------------------------------------------------------------------------------------------------------------

-- No search_path on the small pure functions below, so that they are inlined: they use built-in functions alone.
create function governance.balance_json(p_subscription bigint, p_purchased bigint, p_promotional bigint, p_reserved bigint, p_debt bigint) returns jsonb
  language sql stable as $$
  select jsonb_build_object('available', p_subscription + p_purchased + p_promotional - p_reserved, 'reserved', p_reserved,
    'subscription', p_subscription, 'purchased', p_purchased, 'promotional', p_promotional, 'debt', p_debt,
    'total', p_subscription + p_purchased + p_promotional)
$$;
comment on function governance.balance_json(bigint, bigint, bigint, bigint, bigint) is 'The balance of CONTRACT, in tokens.';

create function governance.limits_json(p_daily_limit bigint, p_day_used bigint, p_day_ends_at timestamptz, p_monthly_limit bigint, p_month_used bigint, p_month_ends_at timestamptz) returns jsonb
  language sql stable as $$
  select jsonb_build_object(
    'daily', jsonb_build_object('limit', p_daily_limit, 'used', p_day_used, 'remaining', case when p_daily_limit is not null then greatest(p_daily_limit - p_day_used, 0) end, 'resets_at', p_day_ends_at),
    'monthly', jsonb_build_object('limit', p_monthly_limit, 'used', p_month_used, 'remaining', case when p_monthly_limit is not null then greatest(p_monthly_limit - p_month_used, 0) end, 'resets_at', p_month_ends_at))
$$;
comment on function governance.limits_json(bigint, bigint, timestamptz, bigint, bigint, timestamptz) is 'The limits of CONTRACT, in tokens; null for none.';

create function governance.account_json(a governance.accounts) returns jsonb
  language sql stable set search_path = '' as $$
  select jsonb_build_object(
    'user_id', a.user_id, 'plan_id', a.plan_id, 'plan_name', p.name, 'email', a.email, 'display_name', a.display_name,
    'timezone', a.timezone, 'metadata', a.metadata, 'created_at', a.created_at, 'version', a.version,
    'is_flagged', a.flagged_at is not null, 'flag_reason', a.flag_reason, 'flagged_at', a.flagged_at, 'flagged_by', a.flagged_by,
    'is_blocked', a.blocked_at is not null and (a.blocked_until is null or a.blocked_until > governance.now()),
    'block_reason', a.block_reason, 'blocked_at', a.blocked_at, 'blocked_until', a.blocked_until, 'blocked_by', a.blocked_by,
    'rule_blocked_until', case when a.rule_blocked_until > governance.now() then a.rule_blocked_until end,
    'rule_block_reason', case when a.rule_blocked_until > governance.now() then a.rule_block_reason end,
    'last_activity', a.last_activity_at, 'fail_mode', p.fail_mode, 'allows_top_up', p.allows_top_up,
    'balance', governance.balance_json(a.subscription_tokens, a.purchased_tokens, a.promotional_tokens, a.reserved_tokens, a.debt_tokens),
    'limits', governance.limits_json(p.daily_limit, a.day_tokens + a.reserved_tokens, a.day_ends_at, p.monthly_limit, a.month_tokens + a.reserved_tokens, a.month_ends_at))
  from governance.plans p where p.plan_id = a.plan_id
$$;
comment on function governance.account_json(governance.accounts) is 'The account as functions answer it.';

-- ---------------------------------------------------------------------------------------------------------------
-- Ledger entries
-- ---------------------------------------------------------------------------------------------------------------

create function governance.entry_payload(
  p_transaction_id bigint, p_created_at timestamptz, p_type text, p_amount bigint, p_previous_balance bigint, p_new_balance bigint,
  p_debt_after bigint, p_lot_changes bigint[], p_decision_id bigint, p_user_id text, p_reference text, p_description text, p_metadata jsonb
) returns text
  language sql stable as $$
  select p_transaction_id || '|' || (extract(epoch from p_created_at) * 1000000)::bigint || '|' || p_type || '|' || p_amount || '|'
    || p_previous_balance || '|' || p_new_balance || '|' || p_debt_after || '|' || array_to_string(p_lot_changes, ',') || '|'
    || coalesce(p_decision_id::text, '-') || '|' || octet_length(p_user_id) || ':' || p_user_id || '|'
    || coalesce(octet_length(p_reference) || ':' || p_reference, '-') || '|'
    || coalesce(octet_length(p_description) || ':' || p_description, '-') || '|'
    || coalesce(octet_length(p_metadata::text) || ':' || p_metadata::text, '-')
$$;
comment on function governance.entry_payload(bigint, timestamptz, text, bigint, bigint, bigint, bigint, bigint[], bigint, text, text, text, jsonb) is
  'What of a ledger entry its hash covers, as text: supabase/CONVENTIONS.md has the format.';

create function governance.entry_hash(p_previous_hash bytea, p_payload text) returns bytea
  language sql stable as $$
  select sha256(coalesce(p_previous_hash, ''::bytea) || convert_to(p_payload, 'UTF8'))
$$;
comment on function governance.entry_hash(bytea, text) is 'SHA-256 over the hash of the entry before (nothing for the first) and the payload.';

create function governance.lock_key(p_user_id text) returns bigint
  language sql immutable as $$
  select hashtextextended(p_user_id, 7254)
$$;
comment on function governance.lock_key(text) is 'The advisory lock of an account, taken before its row: waiting there is much cheaper than on the row.';

create function governance.append_entry(
  p_account_id bigint, p_type text, p_now timestamptz, p_lot_changes bigint[], p_subscription bigint, p_purchased bigint,
  p_promotional bigint, p_debt bigint, p_reference text default null, p_description text default null, p_metadata jsonb default null,
  p_decision_id bigint default null
) returns governance.token_transactions
  language plpgsql set search_path = '' as $$
declare
  v_account governance.accounts;
  v_entry governance.token_transactions;
begin
  update governance.accounts a set
    subscription_tokens = a.subscription_tokens + p_subscription,
    purchased_tokens = a.purchased_tokens + p_purchased,
    promotional_tokens = a.promotional_tokens + p_promotional,
    debt_tokens = a.debt_tokens + p_debt
  where a.account_id = p_account_id returning * into strict v_account;
  v_entry.transaction_id := nextval('governance.event_ids');
  v_entry.account_id := p_account_id;
  v_entry.created_at := p_now;
  v_entry.transaction_type := p_type;
  v_entry.amount := p_subscription + p_purchased + p_promotional;
  v_entry.new_balance := v_account.subscription_tokens + v_account.purchased_tokens + v_account.promotional_tokens;
  v_entry.previous_balance := v_entry.new_balance - v_entry.amount;
  v_entry.debt_after := v_account.debt_tokens;
  v_entry.lot_changes := p_lot_changes;
  v_entry.reference := p_reference;
  v_entry.decision_id := p_decision_id;
  v_entry.description := p_description;
  v_entry.metadata := p_metadata;
  v_entry.previous_hash := v_account.last_hash;
  v_entry.hash := governance.entry_hash(v_account.last_hash, governance.entry_payload(v_entry.transaction_id, v_entry.created_at, v_entry.transaction_type,
    v_entry.amount, v_entry.previous_balance, v_entry.new_balance, v_entry.debt_after, v_entry.lot_changes, v_entry.decision_id,
    v_account.user_id, v_entry.reference, v_entry.description, v_entry.metadata));
  v_entry.xid := pg_current_xact_id();
  insert into governance.token_transactions select v_entry.*;
  update governance.accounts a set last_transaction_id = v_entry.transaction_id, last_hash = v_entry.hash where a.account_id = p_account_id;
  return v_entry;
end
$$;
comment on function governance.append_entry(bigint, text, timestamptz, bigint[], bigint, bigint, bigint, bigint, text, text, jsonb, bigint) is
  'Writes one ledger entry and carries it into the account. The caller holds the account''s lock and has changed the lots already; amounts are changes by kind.';

create type governance.lot_spending as (taken bigint, subscription bigint, purchased bigint, promotional bigint, lot_changes bigint[]);

create function governance.spend_lots(p_account_id bigint, p_tokens bigint, p_lot_id bigint default null) returns governance.lot_spending
  language plpgsql set search_path = '' as $$
declare
  v_lot record;
  v_take bigint;
  v_result governance.lot_spending := row(0, 0, 0, 0, '{}');
begin
  for v_lot in
    select l.lot_id, l.kind, l.remaining, l.frozen from governance.lots l
    where l.account_id = p_account_id and l.is_open and l.remaining > 0 and (p_lot_id is null or l.lot_id = p_lot_id)
    order by l.expires_at nulls last, case l.kind when 'subscription' then 0 when 'promotional' then 1 else 2 end, l.created_at, l.lot_id
  loop
    exit when v_result.taken >= p_tokens;
    v_take := least(v_lot.remaining, p_tokens - v_result.taken);
    update governance.lots l set remaining = l.remaining - v_take, spent = l.spent + v_take, is_open = l.remaining - v_take + l.frozen > 0
    where l.lot_id = v_lot.lot_id;
    v_result.taken := v_result.taken + v_take;
    v_result.lot_changes := v_result.lot_changes || v_lot.lot_id || -v_take;
    if v_lot.kind = 'subscription' then v_result.subscription := v_result.subscription - v_take;
    elsif v_lot.kind = 'purchased' then v_result.purchased := v_result.purchased - v_take;
    else v_result.promotional := v_result.promotional - v_take;
    end if;
  end loop;
  return v_result;
end
$$;
comment on function governance.spend_lots(bigint, bigint, bigint) is
  'Takes up to so many tokens out of an account''s lots in the order of CONTRACT (or out of one lot); answers what was taken. No entry is written.';

create type governance.granted as (lot_id bigint, transaction_id bigint, previous_balance bigint, new_balance bigint, debt_recovered bigint);

create function governance.grant_tokens(
  p_account_id bigint, p_kind text, p_tokens bigint, p_type text, p_now timestamptz, p_expires_at timestamptz default null,
  p_reference text default null, p_description text default null, p_metadata jsonb default null, p_source jsonb default '{}'
) returns governance.granted
  language plpgsql set search_path = '' as $$
declare
  v_lot_id bigint;
  v_entry governance.token_transactions;
  v_spent governance.lot_spending;
  v_result governance.granted;
  v_debt bigint;
begin
  insert into governance.lots (account_id, kind, expires_at, created_at, description, pack_id, stripe_charge_id, stripe_payment_intent_id,
    stripe_invoice_line_id, stripe_checkout_session_id, amount_minor, currency, metadata, granted, remaining)
  values (p_account_id, p_kind, p_expires_at, p_now, p_description, p_source ->> 'pack_id', p_source ->> 'stripe_charge_id',
    p_source ->> 'stripe_payment_intent_id', p_source ->> 'stripe_invoice_line_id', p_source ->> 'stripe_checkout_session_id',
    (p_source ->> 'amount_minor')::bigint, p_source ->> 'currency', coalesce(p_metadata, '{}'), p_tokens, p_tokens)
  returning lot_id into v_lot_id;
  v_entry := governance.append_entry(p_account_id, p_type, p_now, array[v_lot_id, p_tokens],
    case p_kind when 'subscription' then p_tokens else 0 end, case p_kind when 'purchased' then p_tokens else 0 end,
    case p_kind when 'promotional' then p_tokens else 0 end, 0, p_reference, p_description, p_metadata);
  v_result := row(v_lot_id, v_entry.transaction_id, v_entry.previous_balance, v_entry.new_balance, 0);
  if p_expires_at is not null then
    update governance.accounts a set lots_check_at = least(a.lots_check_at, p_expires_at) where a.account_id = p_account_id;
  end if;
  v_debt := least(v_entry.debt_after, p_tokens);
  if v_debt > 0 then
    v_spent := governance.spend_lots(p_account_id, v_debt, v_lot_id);
    perform governance.append_entry(p_account_id, 'debt_recovery', p_now, v_spent.lot_changes, v_spent.subscription, v_spent.purchased,
      v_spent.promotional, -v_debt, p_reference, 'Debt of earlier calls paid');
    v_result.debt_recovered := v_debt;
  end if;
  return v_result;
end
$$;
comment on function governance.grant_tokens(bigint, text, bigint, text, timestamptz, timestamptz, text, text, jsonb, jsonb) is
  'Adds a lot with its entry; debt is paid out of it first. p_source may name pack_id, stripe_charge_id, stripe_payment_intent_id, stripe_invoice_line_id, stripe_checkout_session_id, amount_minor, currency. The caller holds the account''s lock.';

create type governance.lot_taking as (taken bigint, from_frozen bigint, debt bigint, transaction_id bigint);

create function governance.freeze_lot(p_lot_id bigint, p_tokens bigint, p_now timestamptz, p_reference text, p_description text default null, p_metadata jsonb default null) returns governance.lot_taking
  language plpgsql set search_path = '' as $$
declare
  v_lot governance.lots;
  v_account governance.accounts;
  v_take bigint;
  v_result governance.lot_taking := row(0, 0, 0, null);
begin
  select * into strict v_lot from governance.lots l where l.lot_id = p_lot_id;
  select * into strict v_account from governance.accounts a where a.account_id = v_lot.account_id;
  -- What is held for calls under way stays until they end.
  v_take := least(p_tokens, v_lot.remaining,
    v_account.subscription_tokens + v_account.purchased_tokens + v_account.promotional_tokens - v_account.reserved_tokens);
  if v_take > 0 then
    update governance.lots l set remaining = l.remaining - v_take, frozen = l.frozen + v_take where l.lot_id = p_lot_id;
    v_result.transaction_id := (governance.append_entry(v_lot.account_id, 'reversal', p_now, array[p_lot_id, -v_take],
      case v_lot.kind when 'subscription' then -v_take else 0 end, case v_lot.kind when 'purchased' then -v_take else 0 end,
      case v_lot.kind when 'promotional' then -v_take else 0 end, 0, p_reference, p_description, p_metadata)).transaction_id;
    v_result.taken := v_take;
  end if;
  return v_result;
end
$$;
comment on function governance.freeze_lot(bigint, bigint, timestamptz, text, text, jsonb) is
  'Sets unspent tokens of a lot aside (a dispute was opened): they leave the balance and can come back. Answers how many. The caller holds the account''s lock.';

create function governance.thaw_lot(p_lot_id bigint, p_tokens bigint, p_now timestamptz, p_reference text, p_description text default null, p_metadata jsonb default null) returns governance.lot_taking
  language plpgsql set search_path = '' as $$
declare
  v_lot governance.lots;
  v_back bigint;
  v_result governance.lot_taking := row(0, 0, 0, null);
begin
  select * into strict v_lot from governance.lots l where l.lot_id = p_lot_id;
  v_back := least(p_tokens, v_lot.frozen);
  if v_back > 0 then
    update governance.lots l set remaining = l.remaining + v_back, frozen = l.frozen - v_back, is_open = true where l.lot_id = p_lot_id;
    v_result.transaction_id := (governance.append_entry(v_lot.account_id, 'reversal', p_now, array[p_lot_id, v_back],
      case v_lot.kind when 'subscription' then v_back else 0 end, case v_lot.kind when 'purchased' then v_back else 0 end,
      case v_lot.kind when 'promotional' then v_back else 0 end, 0, p_reference, p_description, p_metadata)).transaction_id;
    v_result.taken := v_back;
    if v_lot.expires_at is not null then
      update governance.accounts a set lots_check_at = least(a.lots_check_at, v_lot.expires_at) where a.account_id = v_lot.account_id;
    end if;
  end if;
  return v_result;
end
$$;
comment on function governance.thaw_lot(bigint, bigint, timestamptz, text, text, jsonb) is 'Gives frozen tokens of a lot back (the dispute was won). The caller holds the account''s lock.';

create function governance.claw_back_lot(p_lot_id bigint, p_tokens bigint, p_type text, p_now timestamptz, p_reference text, p_description text default null, p_metadata jsonb default null) returns governance.lot_taking
  language plpgsql set search_path = '' as $$
declare
  v_lot governance.lots;
  v_account governance.accounts;
  v_frozen bigint;
  v_take bigint;
  v_result governance.lot_taking;
begin
  select * into strict v_lot from governance.lots l where l.lot_id = p_lot_id;
  select * into strict v_account from governance.accounts a where a.account_id = v_lot.account_id;
  v_frozen := least(p_tokens, v_lot.frozen);
  v_take := least(p_tokens - v_frozen, v_lot.remaining,
    v_account.subscription_tokens + v_account.purchased_tokens + v_account.promotional_tokens - v_account.reserved_tokens);
  v_result := row(v_take, v_frozen, p_tokens - v_frozen - v_take, null);
  update governance.lots l set
    remaining = l.remaining - v_take, frozen = l.frozen - v_frozen, clawed_back = l.clawed_back + v_take + v_frozen,
    is_open = l.remaining - v_take + l.frozen - v_frozen > 0
  where l.lot_id = p_lot_id;
  v_result.transaction_id := (governance.append_entry(v_lot.account_id, p_type, p_now,
    case when v_take > 0 then array[p_lot_id, -v_take] else '{}' end,
    case v_lot.kind when 'subscription' then -v_take else 0 end, case v_lot.kind when 'purchased' then -v_take else 0 end,
    case v_lot.kind when 'promotional' then -v_take else 0 end, v_result.debt, p_reference, p_description, p_metadata)).transaction_id;
  return v_result;
end
$$;
comment on function governance.claw_back_lot(bigint, bigint, text, timestamptz, text, text, jsonb) is
  'Takes back tokens of a lot whose money went back: frozen ones first, then unspent ones; what is spent already becomes debt. p_type refund or reversal. The caller holds the account''s lock.';

-- ---------------------------------------------------------------------------------------------------------------
-- Time on an account: holds expire, lots expire, day and month turn
-- ---------------------------------------------------------------------------------------------------------------

create function governance.grant_allowance(p_account governance.accounts, p_month date, p_tokens bigint, p_now timestamptz, p_rollover_months int) returns void
  language plpgsql set search_path = '' as $$
begin
  perform governance.grant_tokens(p_account.account_id, 'subscription', p_tokens, 'subscription_grant', p_now,
    (p_month + (1 + p_rollover_months) * interval '1 month')::timestamp at time zone p_account.timezone,
    'allowance ' || to_char(p_month, 'YYYY-MM'), 'Monthly allowance');
end
$$;
comment on function governance.grant_allowance(governance.accounts, date, bigint, timestamptz, int) is 'Grants a month''s allowance as a lot that ends with the month, or as many months later as the plan says.';

create function governance.expire_account_holds(p_account_id bigint, p_now timestamptz) returns int
  language plpgsql set search_path = '' as $$
declare
  v_hold record;
  v_from timestamptz;
  v_count int := 0;
begin
  select a.holds_from into v_from from governance.accounts a where a.account_id = p_account_id;
  if v_from is null then return 0; end if;
  for v_hold in
    update governance.requests r set
      status = 'expired', ended_at = p_now, released_tokens = r.reserved_tokens
    where r.account_id = p_account_id and r.created_at >= v_from and r.status = 'held' and r.expires_at <= p_now
    returning r.decision_id, r.reserved_tokens
  loop
    insert into governance.hold_events (created_at, kind, decision_id, account_id, tokens)
    values (p_now, 'expired', v_hold.decision_id, p_account_id, v_hold.reserved_tokens);
    update governance.accounts a set reserved_tokens = a.reserved_tokens - v_hold.reserved_tokens where a.account_id = p_account_id;
    v_count := v_count + 1;
  end loop;
  update governance.accounts a set (holds_from, holds_check_at) = (
    select min(r.created_at), min(r.expires_at) from governance.requests r
    where r.account_id = p_account_id and r.created_at >= v_from and r.status = 'held')
  where a.account_id = p_account_id;
  return v_count;
end
$$;
comment on function governance.expire_account_holds(bigint, timestamptz) is 'Gives the tokens of an account''s expired holds back; answers how many holds. The caller holds the account''s lock.';

create type governance.rolled as (expired_holds int, expired_lots int, allowances int);

create function governance.roll_account(p_account_id bigint, p_now timestamptz) returns governance.rolled
  language plpgsql set search_path = '' as $$
declare
  a governance.accounts;
  v_plan governance.plans;
  v_lot governance.lots;
  v_take bigint;
  v_day date;
  v_month date;
  v_grant_month date;
  v_result governance.rolled := row(0, 0, 0);
begin
  select * into strict a from governance.accounts x where x.account_id = p_account_id;
  if a.holds_check_at <= p_now then
    v_result.expired_holds := governance.expire_account_holds(p_account_id, p_now);
    select * into strict a from governance.accounts x where x.account_id = p_account_id;
  end if;

  if a.lots_check_at <= p_now then
    for v_lot in
      select * from governance.lots l
      where l.account_id = p_account_id and l.is_open and l.expires_at <= p_now and l.remaining > 0
      order by l.expires_at, l.lot_id
    loop
      -- Tokens held for calls under way outlive their lot until those calls end.
      v_take := least(v_lot.remaining, a.subscription_tokens + a.purchased_tokens + a.promotional_tokens - a.reserved_tokens);
      exit when v_take = 0;
      update governance.lots l set remaining = l.remaining - v_take, expired = l.expired + v_take, is_open = l.remaining - v_take + l.frozen > 0
      where l.lot_id = v_lot.lot_id;
      perform governance.append_entry(p_account_id, 'expiry', p_now, array[v_lot.lot_id, -v_take],
        case v_lot.kind when 'subscription' then -v_take else 0 end, case v_lot.kind when 'purchased' then -v_take else 0 end,
        case v_lot.kind when 'promotional' then -v_take else 0 end, 0, null, 'Expired');
      v_result.expired_lots := v_result.expired_lots + 1;
      select * into strict a from governance.accounts x where x.account_id = p_account_id;
    end loop;
    update governance.accounts x set lots_check_at = (
      select min(l.expires_at) from governance.lots l where l.account_id = p_account_id and l.is_open and l.remaining > 0)
    where x.account_id = p_account_id;
  end if;

  if a.day_ends_at <= p_now then
    v_day := (p_now at time zone a.timezone)::date;
    update governance.accounts x set
      local_day = v_day, day_ends_at = (v_day + 1)::timestamp at time zone a.timezone,
      day_messages = 0, day_calls = 0, day_tokens = 0, day_cost_micros = 0
    where x.account_id = p_account_id;
  end if;
  if a.month_ends_at <= p_now then
    v_month := date_trunc('month', p_now at time zone a.timezone)::date;
    select * into strict v_plan from governance.plans p where p.plan_id = a.plan_id;
    update governance.accounts x set
      local_month = v_month, month_ends_at = (v_month + interval '1 month')::timestamp at time zone a.timezone,
      month_messages = 0, month_calls = 0, month_tokens = 0, month_cost_micros = 0, month_allowance = v_plan.monthly_allowance
    where x.account_id = p_account_id;
    if v_plan.monthly_allowance > 0 then
      -- Months that passed unseen are granted only as far as their tokens would still be there.
      v_grant_month := greatest((a.local_month + interval '1 month')::date, (v_month - v_plan.rollover_months * interval '1 month')::date);
      while v_grant_month <= v_month loop
        perform governance.grant_allowance(a, v_grant_month, v_plan.monthly_allowance, p_now, v_plan.rollover_months);
        v_result.allowances := v_result.allowances + 1;
        v_grant_month := (v_grant_month + interval '1 month')::date;
      end loop;
    end if;
  end if;
  return v_result;
end
$$;
comment on function governance.roll_account(bigint, timestamptz) is
  'Brings an account up to the moment: expired holds, expired lots, turn of day and month with its allowance. Never backwards, and nothing twice. The caller holds the account''s lock.';

create function governance.needs_roll(a governance.accounts, p_now timestamptz) returns boolean
  language sql stable as $$
  select a.day_ends_at <= p_now or a.month_ends_at <= p_now or coalesce(a.lots_check_at <= p_now, false) or coalesce(a.holds_check_at <= p_now, false)
$$;
comment on function governance.needs_roll(governance.accounts, timestamptz) is 'Whether governance.roll_account has anything to do.';

create function governance.create_account(p_user_id text, p_now timestamptz, p_plan_id text default null, p_timezone text default 'UTC') returns governance.accounts
  language plpgsql set search_path = '' as $$
declare
  v_plan governance.plans;
  v_account governance.accounts;
  v_day date := (p_now at time zone p_timezone)::date;
  v_month date := date_trunc('month', p_now at time zone p_timezone)::date;
begin
  select p.* into v_plan from governance.plans p
  where p.plan_id = coalesce(p_plan_id, (select c.default_plan from governance.active_config c)) and p.retired_at is null;
  if not found then
    perform governance.fail('PT409', 'not_configured', 'There is no default plan yet: apply a preset first');
  end if;
  insert into governance.accounts (user_id, plan_id, timezone, created_at, local_day, day_ends_at, local_month, month_ends_at, month_allowance)
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
comment on function governance.create_account(text, timestamptz, text, text) is 'Makes an account with its first allowance. The caller holds the account''s lock.';

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
  'Locks an account until the transaction ends, brings it up to the moment and answers it; unknown_user unless it may be made.';

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

-- ---------------------------------------------------------------------------------------------------------------
-- Commands: safe to repeat
-- ---------------------------------------------------------------------------------------------------------------

create function governance.begin_command(p_kind text, p_command_id text, p_parameters text) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_fingerprint bytea := sha256(convert_to(p_parameters, 'UTF8'));
  v_command governance.commands;
begin
  insert into governance.commands (kind, command_id, fingerprint) values (p_kind, p_command_id, v_fingerprint)
  on conflict do nothing;
  if found then return null; end if;
  select * into strict v_command from governance.commands c where c.kind = p_kind and c.command_id = p_command_id;
  if v_command.fingerprint <> v_fingerprint then
    perform governance.fail('PT409', 'idempotency_conflict', format('"%s" was used before with other parameters', left(p_command_id, 64)));
  end if;
  return v_command.answer;
end
$$;
comment on function governance.begin_command(text, text, text) is
  'Claims a command id: null means do it now and call governance.end_command; otherwise the answer given before. A concurrent twin waits.';

create function governance.end_command(p_kind text, p_command_id text, p_answer jsonb) returns jsonb
  language sql set search_path = '' as $$
  update governance.commands set answer = p_answer where kind = p_kind and command_id = p_command_id returning answer
$$;
comment on function governance.end_command(text, text, jsonb) is 'Keeps the answer of a command for its repeats.';

create function governance.ring(p_topic text, p_now timestamptz) returns void
  language plpgsql set search_path = '' as $$
begin
  -- Rare enough not to matter, and whoever finds the row busy leaves the ringing to its holder.
  update governance.signals s set at = p_now, beats = s.beats + 1
  where s.topic = (select t.topic from governance.signals t where t.topic = p_topic
    and (t.at < p_now - (select c.signal_interval_ms from governance.active_config c) * interval '1 millisecond' or t.at > p_now)
    for update skip locked);
end
$$;
comment on function governance.ring(text, timestamptz) is 'Wakes readers of a topic, unless that was just done.';

-- ---------------------------------------------------------------------------------------------------------------
-- Public
-- ---------------------------------------------------------------------------------------------------------------

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
  v_day date;
  v_month date;
  v_more bigint;
begin
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
      -- The counters stay; only the ends of day and month move. Neither goes back, so no allowance comes twice.
      v_day := greatest(v_account.local_day, (v_now at time zone v_timezone)::date);
      v_month := v_account.local_month;
      update governance.accounts a set
        timezone = v_timezone, day_ends_at = (v_day + 1)::timestamp at time zone v_timezone,
        month_ends_at = (v_month + interval '1 month')::timestamp at time zone v_timezone, version = a.version + 1
      where a.account_id = v_account.account_id;
      v_account := governance.lock_account(p_user_id);
    end if;
    if p_plan_id is not null and p_plan_id <> v_account.plan_id then
      v_more := v_plan.monthly_allowance - v_account.month_allowance;
      update governance.accounts a set
        plan_id = p_plan_id, version = a.version + 1, month_allowance = greatest(a.month_allowance, v_plan.monthly_allowance)
      where a.account_id = v_account.account_id;
      -- A better plan gives the difference now, and the month's allowance never twice.
      if v_more > 0 then
        perform governance.grant_allowance(v_account, v_account.local_month, v_more, v_now, v_plan.rollover_months);
      end if;
    end if;
  end if;
  update governance.accounts a set
    email = coalesce(p_email, a.email), display_name = coalesce(p_display_name, a.display_name), metadata = coalesce(p_metadata, a.metadata)
  where a.account_id = v_account.account_id
  returning * into v_account;
  perform governance.ring('accounts', v_now);
  return governance.account_json(v_account);
end
$$;
comment on function public.upsert_account(text, text, text, text, text, jsonb) is
  'Makes an account or changes what is given; null leaves a thing as it is. A better plan gives the difference of allowance at once. Answers the account. Errors: invalid_argument, unknown_plan, not_configured.';
revoke all on function public.upsert_account(text, text, text, text, text, jsonb) from public, anon, authenticated;
grant execute on function public.upsert_account(text, text, text, text, text, jsonb) to service_role;

create function public.update_user_token_balance(
  p_user_id text, p_amount bigint, p_transaction_type text, p_description text default null, p_metadata jsonb default '{}',
  p_idempotency_key text default null, p_expires_at timestamptz default null
) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_account governance.accounts;
  v_now timestamptz;
  v_answer jsonb;
  v_available bigint;
  v_granted governance.granted;
  v_spent governance.lot_spending;
  v_entry governance.token_transactions;
begin
  perform governance.check_id('p_user_id', p_user_id);
  perform governance.check_optional('p_description', p_description, 2000);
  perform governance.check_metadata('p_metadata', p_metadata);
  if p_idempotency_key is not null then
    perform governance.check_id('p_idempotency_key', p_idempotency_key);
  end if;
  if p_amount is null or p_amount = 0 or p_amount not between -9007199254740991 and 9007199254740991 then
    perform governance.fail('PT400', 'invalid_argument', 'p_amount is a whole number of tokens, not zero, below 2^53 in size');
  end if;
  if p_transaction_type is null or p_transaction_type not in ('purchase', 'usage', 'refund', 'adjustment', 'bonus', 'subscription_grant', 'expiry', 'reversal') then
    perform governance.fail('PT400', 'invalid_argument',
      'p_transaction_type is one of purchase, usage, refund, adjustment, bonus, subscription_grant, expiry, reversal');
  end if;
  if (p_transaction_type in ('purchase', 'bonus', 'subscription_grant') and p_amount < 0) or (p_transaction_type in ('usage', 'expiry') and p_amount > 0) then
    perform governance.fail('PT400', 'invalid_argument', format('p_amount of a %s must be %s', p_transaction_type, case when p_amount < 0 then 'positive' else 'negative' end));
  end if;
  if p_expires_at is not null and (p_amount < 0 or not isfinite(p_expires_at) or p_expires_at <= governance.now()) then
    perform governance.fail('PT400', 'invalid_argument', 'p_expires_at is a moment in the future, for tokens that are added');
  end if;

  v_account := governance.lock_account(p_user_id);
  if p_idempotency_key is not null then
    v_answer := governance.begin_command('balance', p_idempotency_key,
      row(p_user_id, p_amount, p_transaction_type, p_description, p_metadata, extract(epoch from p_expires_at))::text);
    if v_answer is not null then return v_answer; end if;
  end if;
  v_now := governance.now();
  v_available := v_account.subscription_tokens + v_account.purchased_tokens + v_account.promotional_tokens - v_account.reserved_tokens;
  if p_amount > 0 then
    if v_available + v_account.reserved_tokens + p_amount > 9007199254740991 then
      perform governance.fail('PT400', 'invalid_argument', 'The balance would not stay below 2^53');
    end if;
    v_granted := governance.grant_tokens(v_account.account_id,
      case p_transaction_type when 'purchase' then 'purchased' when 'subscription_grant' then 'subscription' else 'promotional' end,
      p_amount, p_transaction_type, v_now, p_expires_at, p_idempotency_key, p_description, p_metadata);
    v_answer := jsonb_build_object('transaction_id', v_granted.transaction_id, 'previous_balance', v_granted.previous_balance,
      'new_balance', v_granted.new_balance, 'grant_id', v_granted.lot_id, 'debt_recovered', v_granted.debt_recovered);
  else
    if -p_amount > v_available then
      perform governance.fail('PT402', 'insufficient_tokens', format('%s tokens are free, %s are needed', v_available, -p_amount),
        jsonb_build_object('have', v_available, 'need', -p_amount)::text);
    end if;
    v_spent := governance.spend_lots(v_account.account_id, -p_amount);
    v_entry := governance.append_entry(v_account.account_id, p_transaction_type, v_now, v_spent.lot_changes, v_spent.subscription,
      v_spent.purchased, v_spent.promotional, 0, p_idempotency_key, p_description, p_metadata);
    v_answer := jsonb_build_object('transaction_id', v_entry.transaction_id, 'previous_balance', v_entry.previous_balance, 'new_balance', v_entry.new_balance);
  end if;
  if p_idempotency_key is not null then
    v_answer := governance.end_command('balance', p_idempotency_key, v_answer);
  end if;
  perform governance.ring('accounts', v_now);
  return v_answer;
end
$$;
comment on function public.update_user_token_balance(text, bigint, text, text, jsonb, text, timestamptz) is
  'Adds a lot (purchase: purchased; subscription_grant: subscription; else promotional; debt is paid first) or takes tokens in spending order, with a ledger entry. Answers transaction_id, previous_balance, new_balance. Errors: invalid_argument, unknown_user, insufficient_tokens, idempotency_conflict.';
revoke all on function public.update_user_token_balance(text, bigint, text, text, jsonb, text, timestamptz) from public, anon, authenticated;
grant execute on function public.update_user_token_balance(text, bigint, text, text, jsonb, text, timestamptz) to service_role;

create function public.get_user_token_balance(p_user_id text) returns bigint
  language plpgsql security definer set search_path = '' as $$
declare
  v_account governance.accounts;
begin
  perform governance.check_id('p_user_id', p_user_id);
  select * into v_account from governance.accounts a where a.user_id = p_user_id;
  if v_account.account_id is null then
    perform governance.fail('PT404', 'unknown_user', format('There is no account of user "%s"', left(p_user_id, 64)));
  end if;
  if governance.needs_roll(v_account, governance.now()) and current_setting('transaction_read_only') = 'off' then
    v_account := governance.lock_account(p_user_id);
  end if;
  return v_account.subscription_tokens + v_account.purchased_tokens + v_account.promotional_tokens - v_account.reserved_tokens;
end
$$;
comment on function public.get_user_token_balance(text) is 'Tokens that are free to use. Errors: invalid_argument, unknown_user.';
revoke all on function public.get_user_token_balance(text) from public, anon, authenticated;
grant execute on function public.get_user_token_balance(text) to service_role;

create function public.get_user_transaction_history(p_user_id text, p_limit int default 50, p_before_id bigint default null)
  returns table (transaction_id bigint, transaction_type text, amount bigint, previous_balance bigint, new_balance bigint,
    description text, metadata jsonb, created_at timestamptz, payload text, hash text)
  language plpgsql stable security definer set search_path = '' as $$
declare
  v_account_id bigint;
begin
  perform governance.check_id('p_user_id', p_user_id);
  if p_limit is null or p_limit not between 1 and 1000 then
    perform governance.fail('PT400', 'invalid_argument', 'p_limit is a whole number from 1 to 1000');
  end if;
  select a.account_id into v_account_id from governance.accounts a where a.user_id = p_user_id;
  if v_account_id is null then
    perform governance.fail('PT404', 'unknown_user', format('There is no account of user "%s"', left(p_user_id, 64)));
  end if;
  return query
    select t.transaction_id, t.transaction_type, t.amount, t.previous_balance, t.new_balance, t.description,
      coalesce(t.metadata, '{}') || case when t.transaction_type = 'usage' and t.decision_id is not null
        then jsonb_build_object('request_id', t.reference, 'decision_id', t.decision_id) else '{}' end,
      t.created_at,
      governance.entry_payload(t.transaction_id, t.created_at, t.transaction_type, t.amount, t.previous_balance, t.new_balance, t.debt_after,
        t.lot_changes, t.decision_id, p_user_id, t.reference, t.description, t.metadata),
      encode(t.hash, 'hex')
    from governance.token_transactions t
    where t.account_id = v_account_id and t.transaction_id < coalesce(p_before_id, 9223372036854775807)
    order by t.transaction_id desc limit p_limit;
end
$$;
comment on function public.get_user_transaction_history(text, int, bigint) is
  'Ledger entries, newest first; p_before_id is the last transaction_id of the page before. Errors: invalid_argument, unknown_user.';
revoke all on function public.get_user_transaction_history(text, int, bigint) from public, anon, authenticated;
grant execute on function public.get_user_transaction_history(text, int, bigint) to service_role;

create function public.verify_ledger(p_user_id text default null) returns jsonb
  -- Estimates of what unnest answers are wild: compiling for them took longer than the work.
  language plpgsql stable security definer set search_path = '' set jit = off as $$
declare
  v_account_id bigint;
  v_accounts bigint;
  v_entries bigint;
  v_problems jsonb;
begin
  if p_user_id is not null then
    perform governance.check_id('p_user_id', p_user_id);
    select a.account_id into v_account_id from governance.accounts a where a.user_id = p_user_id;
    if v_account_id is null then
      perform governance.fail('PT404', 'unknown_user', format('There is no account of user "%s"', left(p_user_id, 64)));
    end if;
  end if;
  with chained as (
    select t.transaction_id, t.account_id, a.user_id, t.amount, t.previous_balance, t.new_balance, t.hash, t.lot_changes,
      governance.entry_hash(t.previous_hash, governance.entry_payload(t.transaction_id, t.created_at, t.transaction_type, t.amount,
        t.previous_balance, t.new_balance, t.debt_after, t.lot_changes, t.decision_id, a.user_id, t.reference, t.description, t.metadata)) as expected_hash,
      t.previous_hash, lag(t.hash) over w as hash_before, coalesce(lag(t.new_balance) over w, 0) as balance_before
    from governance.token_transactions t join governance.accounts a using (account_id)
    where v_account_id is null or t.account_id = v_account_id
    window w as (partition by t.account_id order by t.transaction_id)
  ), entry_problems as (
    select c.user_id, c.transaction_id,
      case
        when c.hash <> c.expected_hash then 'hash_mismatch'
        when c.previous_hash is distinct from c.hash_before then 'chain_broken'
        when c.previous_balance <> c.balance_before or c.new_balance <> c.previous_balance + c.amount then 'balance_discontinuity'
        when c.amount <> (select coalesce(sum(x.v), 0) from unnest(c.lot_changes) with ordinality x(v, n) where x.n % 2 = 0) then 'lot_changes_mismatch'
      end as problem
    from chained c
    where c.hash <> c.expected_hash or c.previous_hash is distinct from c.hash_before
      or c.previous_balance <> c.balance_before or c.new_balance <> c.previous_balance + c.amount
      or (case cardinality(c.lot_changes) when 2 then c.lot_changes[2] when 0 then 0
        else (select sum(x.v) from unnest(c.lot_changes) with ordinality x(v, n) where x.n % 2 = 0) end) <> c.amount
  ), moved as (
    select t.account_id, t.lot_changes[n * 2 - 1] as lot_id, sum(t.lot_changes[n * 2]) as net
    from governance.token_transactions t cross join lateral generate_series(1, cardinality(t.lot_changes) / 2) n
    where v_account_id is null or t.account_id = v_account_id
    group by 1, 2
  ), lot_problems as (
    select a.user_id, coalesce(l.lot_id, m.lot_id) as lot_id, coalesce(l.remaining, 0) as remaining, coalesce(m.net, 0) as net
    from (select * from governance.lots x where v_account_id is null or x.account_id = v_account_id) l
    full join moved m on m.lot_id = l.lot_id and m.account_id = l.account_id
    join governance.accounts a on a.account_id = coalesce(l.account_id, m.account_id)
    where coalesce(l.remaining, -1) <> coalesce(m.net, -1) or l.granted <> l.remaining + l.frozen + l.spent + l.expired + l.clawed_back
  ), live as (
    select l.account_id,
      coalesce(sum(l.remaining) filter (where l.kind = 'subscription'), 0) as subscription,
      coalesce(sum(l.remaining) filter (where l.kind = 'purchased'), 0) as purchased,
      coalesce(sum(l.remaining) filter (where l.kind = 'promotional'), 0) as promotional
    from governance.lots l where l.is_open and (v_account_id is null or l.account_id = v_account_id) group by 1
  ), account_problems as (
    select a.user_id, p.problem, p.found, p.expected
    from governance.accounts a
    left join live v using (account_id)
    left join lateral (select t.* from governance.token_transactions t where t.account_id = a.account_id order by t.transaction_id desc limit 1) last on true
    cross join lateral (values
      ('balance_mismatch', a.subscription_tokens + a.purchased_tokens + a.promotional_tokens, coalesce(last.new_balance, 0)),
      ('lots_mismatch', coalesce(v.subscription + v.purchased + v.promotional, 0), a.subscription_tokens + a.purchased_tokens + a.promotional_tokens),
      ('subscription_mismatch', coalesce(v.subscription, 0), a.subscription_tokens),
      ('purchased_mismatch', coalesce(v.purchased, 0), a.purchased_tokens),
      ('promotional_mismatch', coalesce(v.promotional, 0), a.promotional_tokens),
      ('debt_mismatch', a.debt_tokens, coalesce(last.debt_after, 0)),
      ('entries_missing', coalesce(last.transaction_id, 0), coalesce(a.last_transaction_id, 0)),
      ('head_mismatch', case when last.hash is distinct from a.last_hash then 1 else 0 end, 0),
      ('over_reserved', greatest(a.reserved_tokens - a.subscription_tokens - a.purchased_tokens - a.promotional_tokens, 0), 0),
      ('holds_mismatch', a.reserved_tokens, case when a.reserved_tokens = 0 and a.holds_from is null then 0 else
        (select coalesce(sum(r.reserved_tokens), 0)::bigint from governance.requests r
          where r.account_id = a.account_id and r.status = 'held' and r.created_at >= coalesce(a.holds_from, '-infinity')) end)
    ) p(problem, found, expected)
    where (v_account_id is null or a.account_id = v_account_id) and p.found is distinct from p.expected
  ), problems as (
    select jsonb_build_object('problem', e.problem, 'user_id', e.user_id, 'transaction_id', e.transaction_id) as problem, 1 as rank, e.transaction_id as n from entry_problems e
    union all
    select jsonb_build_object('problem', 'lot_mismatch', 'user_id', l.user_id, 'grant_id', l.lot_id, 'found', l.remaining, 'expected', l.net), 2, l.lot_id from lot_problems l
    union all
    select jsonb_build_object('problem', p.problem, 'user_id', p.user_id, 'found', p.found, 'expected', p.expected), 3, 0 from account_problems p
  )
  select
    (select count(*) from governance.accounts a where v_account_id is null or a.account_id = v_account_id),
    (select count(*) from governance.token_transactions t where v_account_id is null or t.account_id = v_account_id),
    (select coalesce(jsonb_agg(s.problem), '[]') from (select p.problem from problems p order by p.rank, p.n limit 1000) s)
  into v_accounts, v_entries, v_problems;
  return jsonb_build_object('accounts_checked', v_accounts, 'entries_checked', v_entries, 'problems', v_problems);
end
$$;
comment on function public.verify_ledger(text) is
  'Checks the proof of one account, or of all: chain of hashes, continuity of balances, lots against entries, account against both. problems is empty when all is sound; at most 1,000 are named. Errors: invalid_argument, unknown_user.';
revoke all on function public.verify_ledger(text) from public, anon, authenticated;
grant execute on function public.verify_ledger(text) to service_role;

revoke all on all functions in schema governance from public;
