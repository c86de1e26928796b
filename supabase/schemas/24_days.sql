-- Days and months of accounts: when they turn, and what falls due by then.

create type governance.rolled as (expired_holds int, expired_lots int, allowances int);

create function governance.expire_account_holds(p_account_id bigint, p_now timestamptz) returns int
  language plpgsql set search_path = '' as $$
declare
  v_hold record;
  v_from timestamptz;
  v_debt bigint;
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
    update governance.accounts a set reserved_tokens = a.reserved_tokens - v_hold.reserved_tokens
      where a.account_id = p_account_id;
    v_count := v_count + 1;
  end loop;
  update governance.accounts a set (holds_from, holds_check_at) = (
    select min(r.created_at), min(r.expires_at) from governance.requests r
    where r.account_id = p_account_id and r.created_at >= v_from and r.status = 'held')
  where a.account_id = p_account_id
  returning a.debt_tokens into v_debt;
  if v_debt > 0 then
    perform governance.recover_debt(p_account_id, p_now, null);
  end if;
  return v_count;
end
$$;
comment on function governance.expire_account_holds(bigint,
  timestamptz) is 'Gives the tokens of an account''s expired holds back; returns how many holds. The caller holds the '
    'account''s lock.';

create function governance.move_allowances(a governance.accounts, p_timezone text, p_now timestamptz) returns void
  language plpgsql set search_path = '' as $$
declare
  v_old text := governance.known_zone(a.timezone);
  v_lot governance.lots;
  v_ends_at timestamptz;
begin
  for v_lot in
    select * from governance.lots l
    where l.account_id = a.account_id and l.is_open and l.description = 'Monthly allowance'
      and (l.expires_at = a.month_ends_at
        or l.expires_at at time zone v_old = date_trunc('month', l.expires_at at time zone v_old))
    order by l.lot_id
  loop
    v_ends_at := case when v_lot.expires_at = a.month_ends_at then (a.local_month + interval '1 month')::timestamp
      else v_lot.expires_at at time zone v_old end at time zone p_timezone;
    continue when v_ends_at = v_lot.expires_at;
    update governance.lots l set expires_at = v_ends_at where l.lot_id = v_lot.lot_id;
    update governance.accounts x set lots_check_at = least(x.lots_check_at, v_ends_at)
    where x.account_id = a.account_id;
    -- Moves no tokens: it seals the lot's new end.
    perform governance.append_entry(a.account_id, 'adjustment', p_now, array[v_lot.lot_id, 0], 0, 0, 0, 0, null,
      format('Allowance ends with the month in %s', p_timezone));
  end loop;
end
$$;
comment on function governance.move_allowances(governance.accounts, text, timestamptz) is
  'Gives open allowances the end of their month in another zone, so that no hours are without one and none has two.';

create function governance.move_to_next_plan(a governance.accounts, p_now timestamptz) returns text
  language plpgsql set search_path = '' as $$
declare
  v_moves boolean;
begin
  if a.next_plan_id is null then return a.plan_id; end if;
  v_moves := exists (select from governance.plans p where p.plan_id = a.next_plan_id and p.retired_at is null);
  update governance.accounts x set next_plan_id = null, version = x.version + 1,
    plan_id = case when v_moves then a.next_plan_id else x.plan_id end
  where x.account_id = a.account_id;
  insert into governance.audit_log (created_at, operator, action, account_id, details)
  values (p_now, null, case when v_moves then 'scheduled_plan_begun' else 'scheduled_plan_gone' end, a.account_id,
    jsonb_build_object('plan_id', a.next_plan_id, 'before', a.plan_id));
  return case when v_moves then a.next_plan_id else a.plan_id end;
end
$$;
comment on function governance.move_to_next_plan(governance.accounts, timestamptz) is
  'Moves an account to the plan that was scheduled for its next month, unless that plan was retired since; returns the '
  'plan it is on. The caller holds the account''s lock.';

create function governance.turn_day(a governance.accounts, p_timezone text, p_now timestamptz) returns int
  language plpgsql set search_path = '' as $$
declare
  v_zone text := governance.known_zone(p_timezone);
  -- Never back: moving west lengthens the day, and gives no second limit for the same date.
  v_day date := greatest(a.local_day, (p_now at time zone v_zone)::date);
  v_month date := date_trunc('month', v_day)::date;
  v_plan governance.plans;
  v_grant_month date;
  v_allowances int := 0;
begin
  if v_zone <> p_timezone then
    perform governance.raise_alert(null, null, 'unknown_zone', 'warning',
      format('The server no longer knows the time zone %s: days of its users are counted in UTC', left(p_timezone, 64)),
      null, null, to_char(p_now at time zone 'UTC', 'YYYY-MM'),
      jsonb_build_object('timezone', p_timezone, 'user_id', a.user_id), p_now, p_timezone);
  end if;
  if v_zone <> a.timezone then
    perform governance.move_allowances(a, v_zone, p_now);
  end if;
  update governance.accounts x set
    timezone = v_zone, local_day = v_day, day_ends_at = (v_day + 1)::timestamp at time zone v_zone,
    local_month = v_month, month_ends_at = (v_month + interval '1 month')::timestamp at time zone v_zone
  where x.account_id = a.account_id;
  if v_day > a.local_day then
    update governance.accounts x set day_messages = 0, day_calls = 0, day_tokens = 0, day_cost_micros = 0
    where x.account_id = a.account_id;
  end if;
  if v_month > a.local_month then
    a.plan_id := governance.move_to_next_plan(a, p_now);
    select * into strict v_plan from governance.plans p where p.plan_id = a.plan_id;
    update governance.accounts x set month_messages = 0, month_calls = 0, month_tokens = 0, month_cost_micros = 0,
      month_allowance = v_plan.monthly_allowance
    where x.account_id = a.account_id;
    -- Months that passed unseen are granted only as far as their tokens would still be there.
    v_grant_month := greatest((a.local_month + interval '1 month')::date,
      (v_month - v_plan.rollover_months * interval '1 month')::date);
    while v_plan.monthly_allowance > 0 and v_grant_month <= v_month
      and not governance.is_paid_through_stripe(a.account_id, a.plan_id, v_month::timestamp at time zone v_zone)
    loop
      a.timezone := v_zone;
      perform governance.grant_allowance(a, v_grant_month, v_plan.monthly_allowance, p_now, v_plan.rollover_months);
      v_allowances := v_allowances + 1;
      v_grant_month := (v_grant_month + interval '1 month')::date;
    end loop;
  end if;
  return v_allowances;
end
$$;
comment on function governance.turn_day(governance.accounts, text, timestamptz) is
  'Puts an account on the day and month of a zone, with a new month''s allowance; returns how many allowances. The day '
  'never goes back (CONVENTIONS, Time). A zone that the server no longer knows becomes UTC, with an alert. The caller '
  'holds the account''s lock.';

create function governance.leave_unknown_zones(p_now timestamptz, p_budget interval) returns boolean
  language plpgsql set search_path = '' as $$
declare
  v_until timestamptz := clock_timestamp() + p_budget;
  v_started text := pg_postmaster_start_time()::text;
  v_account governance.accounts;
  v_zones text[];
begin
  -- A server's time zone database changes when it is installed again: one look after each start.
  if exists (select from governance.maintenance_state s
    where s.key = 'checked_zones' and s.value ->> 'server_started' = v_started) then return true; end if;
  select array_agg(z.timezone) into v_zones from (select distinct a.timezone from governance.accounts a) z
  where governance.known_zone(z.timezone) <> z.timezone;
  for v_account in select * from governance.accounts a where a.timezone = any (v_zones) loop
    if clock_timestamp() > v_until then return false; end if;
    -- An account that a call has in hand falls back when its day ends.
    continue when not pg_try_advisory_xact_lock(governance.lock_key(v_account.user_id));
    select * into v_account from governance.accounts a where a.account_id = v_account.account_id for update skip locked;
    continue when not found;
    perform governance.turn_day(v_account, v_account.timezone, p_now);
  end loop;
  insert into governance.maintenance_state as s (key, value)
    values ('checked_zones', jsonb_build_object('server_started', v_started))
  on conflict (key) do update set value = excluded.value, updated_at = clock_timestamp();
  return true;
end
$$;
comment on function governance.leave_unknown_zones(timestamptz, interval) is
  'After each start of the server: accounts whose time zone it no longer knows fall back to UTC, for at most so long; '
  'returns whether all did.';

create function governance.roll_account(p_account_id bigint, p_now timestamptz) returns governance.rolled
  language plpgsql set search_path = '' as $$
declare
  a governance.accounts;
  v_lot governance.lots;
  v_take bigint;
  v_result governance.rolled := row(0, 0, 0);
begin
  select * into strict a from governance.accounts x where x.account_id = p_account_id;
  if a.holds_check_at <= p_now then
    v_result.expired_holds := governance.expire_account_holds(p_account_id, p_now);
    select * into strict a from governance.accounts x where x.account_id = p_account_id;
  end if;

  if a.day_ends_at <= p_now and governance.known_zone(a.timezone) <> a.timezone then
    -- Before the allowance ends with the month of a zone that is gone: that of UTC may not have begun.
    perform governance.move_allowances(a, governance.known_zone(a.timezone), p_now);
  end if;
  if a.lots_check_at <= p_now then
    for v_lot in
      select * from governance.lots l
      where l.account_id = p_account_id and l.is_open and l.expires_at <= p_now and l.remaining > 0
      order by l.expires_at, l.lot_id
    loop
      -- Tokens held for calls under way outlive their lot until those calls end.
      v_take := least(v_lot.remaining,
        a.subscription_tokens + a.purchased_tokens + a.promotional_tokens - a.reserved_tokens);
      exit when v_take = 0;
      update governance.lots l set remaining = l.remaining - v_take, expired = l.expired + v_take,
        is_open = l.remaining - v_take + l.frozen > 0
      where l.lot_id = v_lot.lot_id;
      perform governance.append_entry(p_account_id, 'expiry', p_now, array[v_lot.lot_id, -v_take],
        case v_lot.kind when 'subscription' then -v_take else 0 end, case v_lot.kind when 'purchased' then -v_take
          else 0 end,
        case v_lot.kind when 'promotional' then -v_take else 0 end, 0, null, 'Expired');
      v_result.expired_lots := v_result.expired_lots + 1;
      select * into strict a from governance.accounts x where x.account_id = p_account_id;
    end loop;
    update governance.accounts x set lots_check_at = (
      select min(l.expires_at) from governance.lots l
        where l.account_id = p_account_id and l.is_open and l.remaining > 0)
    where x.account_id = p_account_id;
  end if;

  if a.day_ends_at <= p_now then
    v_result.allowances := governance.turn_day(a, a.timezone, p_now);
  end if;
  return v_result;
end
$$;
comment on function governance.roll_account(bigint, timestamptz) is
  'Brings an account up to the moment: expired holds, expired lots, turn of day and month with its allowance. Never '
  'backwards, and nothing twice. The caller holds the account''s lock.';

create function governance.needs_roll(a governance.accounts, p_now timestamptz) returns boolean
  language plpgsql stable set search_path = '' as $$
begin
  return least(a.day_ends_at, a.month_ends_at, a.lots_check_at, a.holds_check_at) <= p_now;
end
$$;
comment on function governance.needs_roll(governance.accounts,
  timestamptz) is 'Whether governance.roll_account has anything to do.';
