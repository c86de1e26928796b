-- Lots of tokens: granted, spent, frozen, taken back, expired.

-- A domain is looked at where a kind is written, a check of the table at every statement that writes it. Another kind
-- would be added "not valid" and validated after, as with a table's own check.
-- squawk-ignore ban-create-domain-with-constraint
create domain governance.lot_kind as text check (value in ('subscription', 'purchased', 'promotional'));

create table governance.lots (
  lot_id bigint generated always as identity primary key,
  account_id bigint not null,
  kind governance.lot_kind not null,
  expires_at timestamptz,
  created_at timestamptz not null default now(),
  description text,
  -- Where the money came from, so that refunds and disputes find the lot.
  pack_id text,
  stripe_charge_id text,
  stripe_payment_intent_id text,
  stripe_invoice_line_id text,
  stripe_checkout_session_id text,
  amount_minor bigint,
  currency text,
  metadata jsonb not null default '{}',
  granted bigint not null,
  -- False once nothing can come out of it any more: neither remaining nor frozen.
  is_open boolean not null default true,
  remaining bigint not null,
  -- Set aside by a dispute: in no balance until thawed.
  frozen bigint not null default 0,
  spent bigint not null default 0,
  expired bigint not null default 0,
  -- Taken back for money that went back.
  clawed_back bigint not null default 0
) with (fillfactor = 70);

-- In the order in which lots are spent (governance.spend_lots).
create index lots_open on governance.lots (account_id, expires_at,
  (case kind when 'subscription' then 0 when 'promotional' then 1 else 2 end), created_at, lot_id) where is_open;

create index lots_account on governance.lots (account_id, lot_id);

create index lots_expiring on governance.lots (expires_at) where is_open and expires_at is not null;

create unique index lots_invoice_line on governance.lots (stripe_invoice_line_id)
  where stripe_invoice_line_id is not null;

comment on table governance.lots is 'Grants of tokens. granted = remaining + frozen + spent + expired + clawed_back, '
  'always.';

create type governance.lot_spending as (taken bigint, subscription bigint, purchased bigint, promotional bigint,
  lot_changes bigint[]);

create type governance.granted as (lot_id bigint, transaction_id bigint, previous_balance bigint, new_balance bigint,
  debt_recovered bigint);

create type governance.lot_taking as (taken bigint, from_frozen bigint, debt bigint, transaction_id bigint);

create function governance.spend_lots(p_account_id bigint, p_tokens bigint) returns governance.lot_spending
  language plpgsql set search_path = '' as $$
declare
  v_lot record;
  v_take bigint;
  v_result governance.lot_spending := row(0, 0, 0, 0, '{}');
begin
  for v_lot in
    select l.lot_id, l.kind, l.remaining, l.frozen from governance.lots l
    where l.account_id = p_account_id and l.is_open and l.remaining > 0
    order by l.expires_at nulls last, case l.kind when 'subscription' then 0 when 'promotional' then 1
      else 2 end, l.created_at, l.lot_id
  loop
    exit when v_result.taken >= p_tokens;
    v_take := least(v_lot.remaining, p_tokens - v_result.taken);
    update governance.lots l set remaining = l.remaining - v_take, spent = l.spent + v_take,
      is_open = l.remaining - v_take + l.frozen > 0
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
comment on function governance.spend_lots(bigint, bigint) is
  'Takes at most so many tokens out of an account''s lots, in the order of CONTRACT; returns how many, and from which '
  'lots. The caller writes the entry.';

create function governance.grant_tokens(
  p_account_id bigint, p_kind text, p_tokens bigint, p_type text, p_now timestamptz,
    p_expires_at timestamptz default null,
  p_reference text default null, p_description text default null, p_metadata jsonb default null,
    p_source jsonb default '{}'
) returns governance.granted
  language plpgsql set search_path = '' as $$
declare
  v_lot_id bigint;
  v_entry governance.token_transactions;
  v_result governance.granted;
begin
  insert into governance.lots (account_id, kind, expires_at, created_at, description, pack_id, stripe_charge_id,
    stripe_payment_intent_id,
    stripe_invoice_line_id, stripe_checkout_session_id, amount_minor, currency, metadata, granted, remaining)
  values (p_account_id, p_kind, p_expires_at, p_now, p_description, p_source ->> 'pack_id',
    p_source ->> 'stripe_charge_id',
    p_source ->> 'stripe_payment_intent_id', p_source ->> 'stripe_invoice_line_id',
      p_source ->> 'stripe_checkout_session_id',
    (p_source ->> 'amount_minor')::bigint, p_source ->> 'currency', coalesce(p_metadata, '{}'), p_tokens, p_tokens)
  returning lot_id into v_lot_id;
  v_entry := governance.append_entry(p_account_id, p_type, p_now, array[v_lot_id, p_tokens],
    case p_kind when 'subscription' then p_tokens else 0 end, case p_kind when 'purchased' then p_tokens else 0 end,
    case p_kind when 'promotional' then p_tokens else 0 end, 0, p_reference, p_description, p_metadata);
  v_result := row(v_lot_id, v_entry.transaction_id, v_entry.previous_balance, v_entry.new_balance, 0);
  if p_expires_at is not null then
    update governance.accounts a set lots_check_at = least(a.lots_check_at, p_expires_at)
      where a.account_id = p_account_id;
  end if;
  if v_entry.debt_after > 0 then
    v_result.debt_recovered := governance.recover_debt(p_account_id, p_now, p_reference, p_tokens);
  end if;
  return v_result;
end
$$;
comment on function governance.grant_tokens(bigint, text, bigint, text, timestamptz, timestamptz, text, text, jsonb,
  jsonb) is
  'Adds a lot with its entry, and pays debt (governance.recover_debt). p_source may name pack_id, stripe_charge_id, '
  'stripe_payment_intent_id, stripe_invoice_line_id, stripe_checkout_session_id, amount_minor, currency. The caller '
  'holds the account''s lock.';

create function governance.freeze_lot(p_lot_id bigint, p_tokens bigint, p_now timestamptz, p_reference text,
  p_description text default null, p_metadata jsonb default null) returns governance.lot_taking
  language plpgsql set search_path = '' as $$
declare
  v_lot governance.lots;
  v_account governance.accounts;
  v_take bigint;
  v_result governance.lot_taking := row(0, 0, 0, null);
begin
  select * into strict v_lot from governance.lots l where l.lot_id = p_lot_id;
  select * into strict v_account from governance.accounts a where a.account_id = v_lot.account_id;
  -- Tokens held for calls under way stay until those end.
  v_take := least(p_tokens, v_lot.remaining,
    v_account.subscription_tokens + v_account.purchased_tokens + v_account.promotional_tokens
      - v_account.reserved_tokens);
  if v_take > 0 then
    update governance.lots l set remaining = l.remaining - v_take, frozen = l.frozen + v_take where l.lot_id = p_lot_id;
    v_result.transaction_id := (governance.append_entry(v_lot.account_id, 'reversal', p_now, array[p_lot_id, -v_take],
      case v_lot.kind when 'subscription' then -v_take else 0 end, case v_lot.kind when 'purchased' then -v_take
        else 0 end,
      case v_lot.kind when 'promotional' then -v_take
        else 0 end, 0, p_reference, p_description, p_metadata)).transaction_id;
    v_result.taken := v_take;
  end if;
  return v_result;
end
$$;
comment on function governance.freeze_lot(bigint, bigint, timestamptz, text, text, jsonb) is
  'Sets unspent tokens of a lot aside (a dispute was opened): they leave the balance and can come back. Returns how '
  'many. The caller holds the account''s lock.';

create function governance.thaw_lot(p_lot_id bigint, p_tokens bigint, p_now timestamptz, p_reference text,
  p_description text default null, p_metadata jsonb default null) returns governance.lot_taking
  language plpgsql set search_path = '' as $$
declare
  v_lot governance.lots;
  v_back bigint;
  v_result governance.lot_taking := row(0, 0, 0, null);
begin
  select * into strict v_lot from governance.lots l where l.lot_id = p_lot_id;
  v_back := least(p_tokens, v_lot.frozen);
  if v_back > 0 then
    update governance.lots l set remaining = l.remaining + v_back, frozen = l.frozen - v_back, is_open = true
      where l.lot_id = p_lot_id;
    v_result.transaction_id := (governance.append_entry(v_lot.account_id, 'reversal', p_now, array[p_lot_id, v_back],
      case v_lot.kind when 'subscription' then v_back else 0 end, case v_lot.kind when 'purchased' then v_back
        else 0 end,
      case v_lot.kind when 'promotional' then v_back
        else 0 end, 0, p_reference, p_description, p_metadata)).transaction_id;
    v_result.taken := v_back;
    if v_lot.expires_at is not null then
      update governance.accounts a set lots_check_at = least(a.lots_check_at, v_lot.expires_at)
        where a.account_id = v_lot.account_id;
    end if;
  end if;
  return v_result;
end
$$;
comment on function governance.thaw_lot(bigint, bigint, timestamptz, text, text,
  jsonb) is 'Gives frozen tokens of a lot back (the dispute was won). The caller holds the account''s lock.';

create function governance.claw_back_lot(p_lot_id bigint, p_tokens bigint, p_type text, p_now timestamptz,
  p_reference text, p_description text default null, p_metadata jsonb default null) returns governance.lot_taking
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
    v_account.subscription_tokens + v_account.purchased_tokens + v_account.promotional_tokens
      - v_account.reserved_tokens);
  v_result := row(v_take, v_frozen, p_tokens - v_frozen - v_take, null);
  update governance.lots l set
    remaining = l.remaining - v_take, frozen = l.frozen - v_frozen, clawed_back = l.clawed_back + v_take + v_frozen,
    is_open = l.remaining - v_take + l.frozen - v_frozen > 0
  where l.lot_id = p_lot_id;
  -- The lot is named even where no tokens leave the balance: frozen or expired ones may have changed their name.
  v_result.transaction_id := (governance.append_entry(v_lot.account_id, p_type, p_now, array[p_lot_id, -v_take],
    case v_lot.kind when 'subscription' then -v_take else 0 end, case v_lot.kind when 'purchased' then -v_take
      else 0 end,
    case v_lot.kind when 'promotional' then -v_take
      else 0 end, v_result.debt, p_reference, p_description, p_metadata)).transaction_id;
  return v_result;
end
$$;
comment on function governance.claw_back_lot(bigint, bigint, text, timestamptz, text, text, jsonb) is
  'Takes back tokens of a lot whose money went back: frozen ones first, then unspent ones; what is spent already '
  'becomes debt. p_type refund or reversal. The caller holds the account''s lock.';

create function governance.grant_allowance(p_account governance.accounts, p_month date, p_tokens bigint,
  p_now timestamptz, p_rollover_months int) returns void
  language plpgsql set search_path = '' as $$
begin
  perform governance.grant_tokens(p_account.account_id, 'subscription', p_tokens, 'subscription_grant', p_now,
    (p_month + (1 + p_rollover_months) * interval '1 month')::timestamp
      at time zone governance.known_zone(p_account.timezone),
    'allowance ' || to_char(p_month, 'YYYY-MM'), 'Monthly allowance');
end
$$;
comment on function governance.grant_allowance(governance.accounts, date, bigint, timestamptz,
  int) is 'Grants a month''s allowance as a lot that ends with the month, or as many months later as the plan says.';

create function governance.recover_debt(p_account_id bigint, p_now timestamptz, p_reference text,
  p_granted bigint default 0) returns bigint
  language plpgsql set search_path = '' as $$
declare
  v_account governance.accounts;
  v_pay bigint;
  v_spent governance.lot_spending;
begin
  select * into strict v_account from governance.accounts a where a.account_id = p_account_id;
  v_pay := least(v_account.debt_tokens,
    v_account.subscription_tokens + v_account.purchased_tokens + v_account.promotional_tokens
      - v_account.reserved_tokens);
  if v_pay > p_granted and not governance.pays_debt_at_once() then
    v_pay := p_granted;
  end if;
  if v_pay <= 0 then return 0; end if;
  v_spent := governance.spend_lots(p_account_id, v_pay);
  perform governance.append_entry(p_account_id, 'debt_recovery', p_now, v_spent.lot_changes, v_spent.subscription,
    v_spent.purchased,
    v_spent.promotional, -v_spent.taken, p_reference, 'Debt paid');
  return v_spent.taken;
end
$$;
comment on function governance.recover_debt(bigint, timestamptz, text, bigint) is
  'Pays debt out of what is free, in the order in which lots are spent, with an entry: nobody owes and has free tokens '
  'at once. With the setting pay_debt_from = grants only what was just granted (p_granted tokens) pays. Called '
  'wherever tokens become free or debt grows. The caller holds the account''s lock.';

create function governance.pays_debt_at_once() returns boolean
  language sql stable set search_path = '' as $$
  select not exists (select from governance.settings s where s.key = 'pay_debt_from' and s.value = '"grants"')
$$;
comment on function governance.pays_debt_at_once() is 'Whether debt is paid out of whatever is free (the default), or '
  'only out of grants: the setting pay_debt_from.';

-- A function, as governance.is_sound(governance.accounts) is.
create function governance.adds_up(l governance.lots) returns boolean
  language plpgsql immutable set search_path = '' as $$
begin
  return least(l.granted - 1, l.remaining, l.frozen, l.spent, l.expired, l.clawed_back) >= 0
    and l.granted = l.remaining + l.frozen + l.spent + l.expired + l.clawed_back
    and (l.is_open or l.remaining + l.frozen = 0);
end
$$;
comment on function governance.adds_up(governance.lots) is
  'Whether the remaining, frozen, spent, expired and clawed-back tokens of a lot add up to those granted, and none is '
  'below zero.';

alter table governance.lots add constraint lots_add_up check (governance.adds_up(lots));

create function governance.refuse_orphans() returns trigger
  language plpgsql set search_path = '' as $$
begin
  if exists (select from governance.lots l where l.account_id = old.account_id) then
    raise exception using errcode = 'foreign_key_violation',
      message = format('Account %s has lots: it is never deleted', old.account_id);
  end if;
  return old;
end
$$;
comment on function governance.refuse_orphans() is
  'Refuses to delete an account that has lots, also to the owner of the tables.';

create trigger accounts_keep_lots before delete
  on governance.accounts for each row execute function governance.refuse_orphans();
