-- Money: Stripe's events become lots, and tokens follow the money. An event is never acted on by itself: it adds facts
-- about a payment (paid, refunded so much, disputed, won or lost), and governance.settle_payment then moves the
-- payment's lots to where those facts put them. Facts only grow, so the order and number of deliveries do not matter.

-- ---------------------------------------------------------------------------------------------------------------
-- Tables
-- ---------------------------------------------------------------------------------------------------------------

create table governance.webhook_events_processed (
  event_id text primary key,
  event_type text not null,
  -- Stripe's own time of the event; null where it told none.
  event_created_at timestamptz,
  received_at timestamptz not null,
  attempts int not null default 1,
  -- processed: acted on or noted. quarantined: waits for a person, and is tried again when it is delivered again.
  status text not null check (status in ('processed', 'quarantined', 'dismissed')),
  reason text,
  effects jsonb not null default '[]',
  payment_id bigint,
  -- A quarantined event whose user is not known yet is tried again when this customer is.
  waits_for_customer text,
  -- Kept while quarantined alone.
  payload jsonb,
  decided_at timestamptz,
  decided_by text,
  decided_reason text
) with (fillfactor = 90);
create index webhook_events_processed_quarantined on governance.webhook_events_processed (received_at) where status = 'quarantined';
create index webhook_events_processed_waiting on governance.webhook_events_processed (waits_for_customer)
  where status = 'quarantined' and waits_for_customer is not null;
create index webhook_events_processed_time on governance.webhook_events_processed (received_at) where status <> 'quarantined';
comment on table governance.webhook_events_processed is 'Stripe events by id: each is acted on once. Done ones are cleared after 30 days, quarantined ones stay.';

create table governance.stripe_payments (
  payment_id bigint generated always as identity primary key,
  account_id bigint references governance.accounts (account_id),
  -- Any of Stripe's names for the payment finds it; a payment that came by two of them is merged into one row.
  payment_intent_id text,
  charge_id text,
  checkout_session_id text,
  invoice_id text,
  customer_id text,
  subscription_id text,
  order_id text,
  livemode boolean,
  -- What was paid, once tokens were granted for it.
  amount_minor bigint check (amount_minor >= 0),
  currency text check (currency ~ '^[a-z]{3}$'),
  paid_at timestamptz,
  -- Largest cumulative figure that a charge told.
  refunded_minor bigint not null default 0 check (refunded_minor >= 0),
  refunded_at timestamptz,
  -- Set by a posted correction: counts until a newer refund is told.
  refunded_override_minor bigint check (refunded_override_minor >= 0),
  refunded_override_at timestamptz,
  created_at timestamptz not null
) with (fillfactor = 80);
create unique index stripe_payments_intent on governance.stripe_payments (payment_intent_id) where payment_intent_id is not null;
create unique index stripe_payments_charge on governance.stripe_payments (charge_id) where charge_id is not null;
create unique index stripe_payments_session on governance.stripe_payments (checkout_session_id) where checkout_session_id is not null;
create unique index stripe_payments_invoice on governance.stripe_payments (invoice_id) where invoice_id is not null;
create index stripe_payments_account on governance.stripe_payments (account_id) where account_id is not null;
comment on table governance.stripe_payments is 'Payments at Stripe and what is known of them.';

create table governance.stripe_refunds (
  refund_id text primary key,
  payment_id bigint not null references governance.stripe_payments (payment_id),
  amount_minor bigint not null check (amount_minor >= 0),
  -- 1 pending, 2 succeeded, 3 failed or canceled: it only rises.
  state smallint not null,
  told_at timestamptz not null
);
create index stripe_refunds_payment on governance.stripe_refunds (payment_id);
comment on table governance.stripe_refunds is 'Refunds by id.';

create table governance.stripe_disputes (
  dispute_id text primary key,
  payment_id bigint not null references governance.stripe_payments (payment_id),
  amount_minor bigint not null check (amount_minor >= 0),
  status text not null,
  -- 1 inquiry, 2 open, 3 decided: it only rises; of two decisions the later stands.
  stage smallint not null,
  is_lost boolean not null default false,
  -- The money came back before the decision.
  is_reinstated boolean not null default false,
  told_at timestamptz not null
);
create index stripe_disputes_payment on governance.stripe_disputes (payment_id);
comment on table governance.stripe_disputes is 'Disputes by id.';

create table governance.stripe_lots (
  lot_id bigint primary key references governance.lots (lot_id),
  payment_id bigint not null references governance.stripe_payments (payment_id),
  -- Tokens that the payment bought, corrections included: what refunds are in proportion to.
  tokens bigint not null check (tokens >= 0),
  -- Taken back for refunds, for lost disputes; and how much of both became debt because it was spent.
  reversed bigint not null default 0 check (reversed >= 0),
  clawed bigint not null default 0 check (clawed >= 0),
  owed bigint not null default 0 check (owed >= 0),
  dispute_state text not null default 'none' check (dispute_state in ('none', 'held', 'released', 'clawed')),
  check (reversed + clawed <= tokens),
  check (owed <= reversed + clawed)
) with (fillfactor = 80);
create index stripe_lots_payment on governance.stripe_lots (payment_id);
comment on table governance.stripe_lots is 'Which lots a payment bought, and what was taken back of them.';

create table governance.purchase_records (
  transaction_id bigint primary key references governance.token_transactions (transaction_id),
  account_id bigint not null,
  created_at timestamptz not null,
  record_type text not null check (record_type in ('grant', 'refund', 'restoration', 'dispute_hold', 'dispute_release',
    'dispute_clawback', 'adjustment', 'promotional', 'relabel')),
  lot_id bigint not null,
  payment_id bigint not null,
  -- Signed effect, debt included.
  tokens bigint not null,
  debt_tokens bigint not null default 0,
  amount_minor bigint,
  currency text,
  refund_id text,
  dispute_id text,
  invoice_line_id text,
  period_start timestamptz,
  period_end timestamptz,
  difference_id text,
  xid xid8 not null default pg_current_xact_id()
);
create index purchase_records_cursor on governance.purchase_records (xid, transaction_id);
create index purchase_records_time on governance.purchase_records (created_at);
create index purchase_records_lot on governance.purchase_records (lot_id);
create trigger purchase_records_append_only before update or delete or truncate on governance.purchase_records
  for each statement execute function governance.refuse_change();
comment on table governance.purchase_records is 'What each payment did to the ledger, entry by entry: the ledger''s side of a reconciliation; append-only.';

create table governance.stripe_customers (
  customer_id text primary key,
  account_id bigint not null references governance.accounts (account_id)
);
comment on table governance.stripe_customers is 'Whose customer at Stripe: learnt from checkouts and subscriptions.';

create table governance.stripe_subscriptions (
  subscription_id text primary key,
  account_id bigint references governance.accounts (account_id),
  customer_id text,
  plan_id text,
  canceled_at timestamptz,
  updated_at timestamptz not null
);
comment on table governance.stripe_subscriptions is 'Subscriptions: whose, for which plan, and whether they ended.';

create table governance.checkouts (
  checkout_id bigint generated always as identity primary key,
  account_id bigint not null references governance.accounts (account_id),
  pack_id text not null,
  opened_at timestamptz not null,
  closed_at timestamptz
);
create index checkouts_account on governance.checkouts (account_id, opened_at desc);
comment on table governance.checkouts is 'Checkouts that were allowed to begin: for the cooldown and the limit of open ones.';

-- ---------------------------------------------------------------------------------------------------------------
-- Reading what Stripe sends: never an error, whatever stands there
-- ---------------------------------------------------------------------------------------------------------------

create function governance.stripe_id(p_value jsonb) returns text
  language sql immutable as $$
  select case when length(s.id) between 1 and 255 then s.id end
  from (select case jsonb_typeof(p_value) when 'string' then p_value #>> '{}' when 'object' then p_value ->> 'id' end as id) s
$$;
comment on function governance.stripe_id(jsonb) is 'An id, also out of an expanded object; null for anything else.';

create function governance.stripe_whole(p_value jsonb) returns bigint
  language sql immutable as $$
  select case when jsonb_typeof(p_value) = 'number' and length(p_value #>> '{}') <= 24
    and (p_value #>> '{}')::numeric = trunc((p_value #>> '{}')::numeric) and abs((p_value #>> '{}')::numeric) < 9007199254740992
    then (p_value #>> '{}')::numeric::bigint end
$$;
comment on function governance.stripe_whole(jsonb) is 'A whole number below 2^53 in size; null for anything else.';

create function governance.stripe_time(p_value jsonb) returns timestamptz
  language sql stable as $$
  select case when s.v between 0 and 253402300799 then to_timestamp(s.v) end from (select governance.stripe_whole(p_value) as v) s
$$;
comment on function governance.stripe_time(jsonb) is 'Seconds since 1970 as a moment; null for anything else.';

create function governance.stripe_object(p_value jsonb) returns jsonb
  language sql immutable as $$
  select case jsonb_typeof(p_value) when 'object' then p_value else '{}' end
$$;
comment on function governance.stripe_object(jsonb) is 'The object, or an empty one.';

create function governance.stripe_list(p_value jsonb) returns jsonb
  language sql immutable as $$
  select case when jsonb_typeof(p_value -> 'data') = 'array' then p_value -> 'data' when jsonb_typeof(p_value) = 'array' then p_value else '[]' end
$$;
comment on function governance.stripe_list(jsonb) is 'The items of a Stripe list, or none.';

create function governance.stripe_currency(p_value jsonb) returns text
  language sql immutable as $$
  select case when jsonb_typeof(p_value) = 'string' and p_value #>> '{}' ~ '^[A-Za-z]{3}$' then lower(p_value #>> '{}') end
$$;
comment on function governance.stripe_currency(jsonb) is 'A currency code in lower case; null for anything else.';

create function governance.metadata_text(p_metadata jsonb, variadic p_keys text[]) returns text
  language sql immutable as $$
  select case when length(v.found) between 1 and 255 then v.found end
  from (select btrim(p_metadata ->> k.key) as found from unnest(p_keys) with ordinality k(key, n)
    where coalesce(btrim(p_metadata ->> k.key), '') <> '' order by k.n limit 1) v
$$;
comment on function governance.metadata_text(jsonb, text[]) is 'The first of these metadata keys that is filled.';

-- ---------------------------------------------------------------------------------------------------------------
-- Payments
-- ---------------------------------------------------------------------------------------------------------------

create function governance.lock_stripe_ids(variadic p_ids text[]) returns void
  language plpgsql set search_path = '' as $$
declare
  v_key bigint;
begin
  -- In one order for everybody, and before any account's lock.
  for v_key in select distinct hashtextextended(i.id, 7255) from unnest(p_ids) i(id) where i.id is not null order by 1 loop
    perform pg_advisory_xact_lock(v_key);
  end loop;
end
$$;
comment on function governance.lock_stripe_ids(text[]) is 'Lets one transaction at a time work on what these ids of Stripe''s name.';

create function governance.merge_payments(p_into bigint, p_from bigint) returns void
  language plpgsql set search_path = '' as $$
declare
  f governance.stripe_payments;
begin
  update governance.stripe_refunds set payment_id = p_into where payment_id = p_from;
  update governance.stripe_disputes set payment_id = p_into where payment_id = p_from;
  update governance.stripe_lots set payment_id = p_into where payment_id = p_from;
  delete from governance.stripe_payments p where p.payment_id = p_from returning * into f;
  update governance.stripe_payments p set
    account_id = coalesce(p.account_id, f.account_id), payment_intent_id = coalesce(p.payment_intent_id, f.payment_intent_id),
    charge_id = coalesce(p.charge_id, f.charge_id), checkout_session_id = coalesce(p.checkout_session_id, f.checkout_session_id),
    invoice_id = coalesce(p.invoice_id, f.invoice_id), customer_id = coalesce(p.customer_id, f.customer_id),
    subscription_id = coalesce(p.subscription_id, f.subscription_id), order_id = coalesce(p.order_id, f.order_id),
    livemode = coalesce(p.livemode, f.livemode), amount_minor = coalesce(p.amount_minor, f.amount_minor),
    currency = coalesce(p.currency, f.currency), paid_at = coalesce(p.paid_at, f.paid_at),
    refunded_minor = greatest(p.refunded_minor, f.refunded_minor), refunded_at = greatest(p.refunded_at, f.refunded_at),
    refunded_override_minor = coalesce(p.refunded_override_minor, f.refunded_override_minor),
    refunded_override_at = coalesce(p.refunded_override_at, f.refunded_override_at)
  where p.payment_id = p_into;
end
$$;
comment on function governance.merge_payments(bigint, bigint) is 'Two rows turned out to be one payment: the first takes all that the second knew.';

create function governance.note_payment(
  p_now timestamptz, p_intent text, p_charge text default null, p_session text default null, p_invoice text default null,
  p_customer text default null, p_livemode boolean default null, p_order text default null
) returns governance.stripe_payments
  language plpgsql set search_path = '' as $$
declare
  v_pay governance.stripe_payments;
  v_other bigint;
begin
  perform governance.lock_stripe_ids(p_intent, p_charge, p_session, p_invoice);
  if p_intent is not null then
    select * into v_pay from governance.stripe_payments p where p.payment_intent_id = p_intent;
  end if;
  if p_charge is not null then
    select p.payment_id into v_other from governance.stripe_payments p where p.charge_id = p_charge;
    if v_other is not null and v_pay.payment_id is null then
      select * into v_pay from governance.stripe_payments p where p.payment_id = v_other;
    elsif v_other <> v_pay.payment_id then
      perform governance.merge_payments(v_pay.payment_id, v_other);
    end if;
  end if;
  if p_session is not null then
    v_other := null;
    select p.payment_id into v_other from governance.stripe_payments p where p.checkout_session_id = p_session;
    if v_other is not null and v_pay.payment_id is null then
      select * into v_pay from governance.stripe_payments p where p.payment_id = v_other;
    elsif v_other <> v_pay.payment_id then
      perform governance.merge_payments(v_pay.payment_id, v_other);
    end if;
  end if;
  if p_invoice is not null then
    v_other := null;
    select p.payment_id into v_other from governance.stripe_payments p where p.invoice_id = p_invoice;
    if v_other is not null and v_pay.payment_id is null then
      select * into v_pay from governance.stripe_payments p where p.payment_id = v_other;
    elsif v_other <> v_pay.payment_id then
      perform governance.merge_payments(v_pay.payment_id, v_other);
    end if;
  end if;
  if v_pay.payment_id is null then
    insert into governance.stripe_payments (payment_intent_id, charge_id, checkout_session_id, invoice_id, customer_id, livemode, order_id, created_at)
    values (p_intent, p_charge, p_session, p_invoice, p_customer, p_livemode, p_order, p_now)
    returning * into v_pay;
    return v_pay;
  end if;
  update governance.stripe_payments p set
    payment_intent_id = coalesce(p.payment_intent_id, p_intent), charge_id = coalesce(p.charge_id, p_charge),
    checkout_session_id = coalesce(p.checkout_session_id, p_session), invoice_id = coalesce(p.invoice_id, p_invoice),
    customer_id = coalesce(p.customer_id, p_customer), livemode = coalesce(p.livemode, p_livemode), order_id = coalesce(p.order_id, p_order)
  where p.payment_id = v_pay.payment_id
  returning * into v_pay;
  -- A lot is found by its charge even when the charge was told after it was granted.
  if p_charge is not null and v_pay.account_id is not null then
    update governance.lots l set stripe_charge_id = p_charge
    from governance.stripe_lots s
    where s.payment_id = v_pay.payment_id and l.lot_id = s.lot_id and l.stripe_charge_id is null;
  end if;
  return v_pay;
end
$$;
comment on function governance.note_payment(timestamptz, text, text, text, text, text, boolean, text) is
  'Finds the payment by any of its names, or makes it, and notes the other names. Takes their locks.';

create function governance.note_refund(p_now timestamptz, p_told_at timestamptz, p_refund jsonb, p_charge text default null, p_intent text default null) returns bigint
  language plpgsql set search_path = '' as $$
declare
  v_id text := governance.stripe_id(p_refund -> 'id');
  v_charge text := coalesce(governance.stripe_id(p_refund -> 'charge'), p_charge);
  v_intent text := coalesce(governance.stripe_id(p_refund -> 'payment_intent'), p_intent);
  v_amount bigint := governance.stripe_whole(p_refund -> 'amount');
  v_state smallint := case p_refund ->> 'status' when 'pending' then 1 when 'requires_action' then 1 when 'failed' then 3 when 'canceled' then 3 else 2 end;
  v_pay governance.stripe_payments;
begin
  if v_id is null or v_amount is null or v_amount < 0 or coalesce(v_charge, v_intent) is null then return null; end if;
  v_pay := governance.note_payment(p_now, v_intent, v_charge);
  insert into governance.stripe_refunds as r (refund_id, payment_id, amount_minor, state, told_at)
  values (v_id, v_pay.payment_id, v_amount, v_state, p_told_at)
  on conflict (refund_id) do update set
    state = greatest(r.state, excluded.state), amount_minor = greatest(r.amount_minor, excluded.amount_minor),
    told_at = case when excluded.state > r.state then greatest(r.told_at, excluded.told_at) else r.told_at end;
  return v_pay.payment_id;
end
$$;
comment on function governance.note_refund(timestamptz, timestamptz, jsonb, text, text) is 'Notes a refund; null where it is not whole.';

create function governance.note_dispute(p_now timestamptz, p_told_at timestamptz, p_dispute jsonb, p_type text) returns bigint
  language plpgsql set search_path = '' as $$
declare
  v_id text := governance.stripe_id(p_dispute -> 'id');
  v_charge text := governance.stripe_id(p_dispute -> 'charge');
  v_intent text := governance.stripe_id(p_dispute -> 'payment_intent');
  v_amount bigint := governance.stripe_whole(p_dispute -> 'amount');
  v_status text := p_dispute ->> 'status';
  v_stage smallint;
  v_pay governance.stripe_payments;
begin
  if v_id is null or v_amount is null or v_amount < 0 or coalesce(v_charge, v_intent) is null then return null; end if;
  v_stage := case
    when v_status in ('won', 'lost', 'charge_refunded') then 3
    when v_status like 'warning%' or v_status = 'prevented' then 1
    when v_status in ('needs_response', 'under_review') then 2
  end;
  if v_stage is null then return null; end if;
  v_pay := governance.note_payment(p_now, v_intent, v_charge);
  insert into governance.stripe_disputes as d (dispute_id, payment_id, amount_minor, status, stage, is_lost, is_reinstated, told_at)
  values (v_id, v_pay.payment_id, v_amount, v_status, v_stage, v_status = 'lost', p_type = 'charge.dispute.funds_reinstated', p_told_at)
  on conflict (dispute_id) do update set
    is_reinstated = d.is_reinstated or excluded.is_reinstated,
    amount_minor = greatest(d.amount_minor, excluded.amount_minor),
    -- Of two decisions the later stands; told at the same second, the one against us.
    (status, stage, is_lost, told_at) = (
      select n.status, n.stage, n.is_lost, n.told_at
      from (values (d.status, d.stage, d.is_lost, d.told_at), (excluded.status, excluded.stage, excluded.is_lost, excluded.told_at)) n(status, stage, is_lost, told_at)
      order by n.stage desc, n.told_at desc, n.is_lost desc, n.status limit 1);
  return v_pay.payment_id;
end
$$;
comment on function governance.note_dispute(timestamptz, timestamptz, jsonb, text) is 'Notes a dispute; null where it is not whole.';

-- ---------------------------------------------------------------------------------------------------------------
-- Lots follow the money
-- ---------------------------------------------------------------------------------------------------------------

create function governance.pro_rata(p_tokens bigint, p_part bigint, p_of bigint) returns bigint
  language sql immutable as $$
  select case when p_of <= 0 or p_part >= p_of then p_tokens when p_part <= 0 then 0 else trunc(p_tokens::numeric * p_part / p_of)::bigint end
$$;
comment on function governance.pro_rata(bigint, bigint, bigint) is 'tokens × part ÷ of, rounded down, all of them when part reaches of; nothing of nothing. The core''s proRata is the same.';

create function governance.record_purchase(
  p_transaction_id bigint, p_type text, p_lot_id bigint, p_payment_id bigint, p_tokens bigint, p_debt bigint default 0, p_amount bigint default null,
  p_currency text default null, p_refund_id text default null, p_dispute_id text default null, p_line_id text default null,
  p_period_start timestamptz default null, p_period_end timestamptz default null, p_difference_id text default null
) returns void
  language sql set search_path = '' as $$
  insert into governance.purchase_records (transaction_id, account_id, created_at, record_type, lot_id, payment_id, tokens, debt_tokens,
    amount_minor, currency, refund_id, dispute_id, invoice_line_id, period_start, period_end, difference_id)
  select t.transaction_id, t.account_id, t.created_at, p_type, p_lot_id, p_payment_id, p_tokens, p_debt, p_amount, p_currency, p_refund_id,
    p_dispute_id, p_line_id, p_period_start, p_period_end, p_difference_id
  from governance.token_transactions t where t.transaction_id = p_transaction_id
$$;
comment on function governance.record_purchase(bigint, text, bigint, bigint, bigint, bigint, bigint, text, text, text, text, timestamptz, timestamptz, text) is
  'Notes what a ledger entry has to do with a payment.';

create function governance.recover_debt(p_account_id bigint, p_now timestamptz, p_reference text) returns bigint
  language plpgsql set search_path = '' as $$
declare
  v_account governance.accounts;
  v_pay bigint;
  v_spent governance.lot_spending;
begin
  select * into strict v_account from governance.accounts a where a.account_id = p_account_id;
  v_pay := least(v_account.debt_tokens,
    v_account.subscription_tokens + v_account.purchased_tokens + v_account.promotional_tokens - v_account.reserved_tokens);
  if v_pay <= 0 then return 0; end if;
  v_spent := governance.spend_lots(p_account_id, v_pay);
  perform governance.append_entry(p_account_id, 'debt_recovery', p_now, v_spent.lot_changes, v_spent.subscription, v_spent.purchased,
    v_spent.promotional, -v_spent.taken, p_reference, 'Debt paid');
  return v_spent.taken;
end
$$;
comment on function governance.recover_debt(bigint, timestamptz, text) is
  'Pays debt out of what is free, so that nobody owes and holds tokens at once. The caller holds the account''s lock.';

create function governance.take_back(p_lot_id bigint, p_tokens bigint, p_type text, p_now timestamptz, p_reference text, p_description text, p_metadata jsonb) returns governance.lot_taking
  language plpgsql set search_path = '' as $$
declare
  v_lot governance.lots;
  v_free bigint;
  v_expired bigint;
begin
  select * into strict v_lot from governance.lots l where l.lot_id = p_lot_id;
  select a.subscription_tokens + a.purchased_tokens + a.promotional_tokens - a.reserved_tokens into strict v_free
  from governance.accounts a where a.account_id = v_lot.account_id;
  -- What expired unused is not owed: it is only called by another name.
  v_expired := least(v_lot.expired, greatest(p_tokens - v_lot.frozen - least(v_lot.remaining, v_free), 0));
  if v_expired > 0 then
    update governance.lots l set expired = l.expired - v_expired, clawed_back = l.clawed_back + v_expired where l.lot_id = p_lot_id;
  end if;
  return governance.claw_back_lot(p_lot_id, p_tokens - v_expired, p_type, p_now, p_reference, p_description, p_metadata);
end
$$;
comment on function governance.take_back(bigint, bigint, text, timestamptz, text, text, jsonb) is
  'Takes tokens of a lot back: frozen, unspent, then expired ones; what was spent becomes debt. The caller holds the account''s lock.';

create function governance.give_back(p_lot_id bigint, p_tokens bigint, p_now timestamptz, p_reference text, p_description text, p_metadata jsonb) returns bigint
  language plpgsql set search_path = '' as $$
declare
  v_lot governance.lots;
  v_owed bigint;
  v_debt bigint;
  v_unspent bigint;
  v_returned bigint;
begin
  select * into strict v_lot from governance.lots l where l.lot_id = p_lot_id;
  -- First what was owed for it: still open debt is struck, paid debt comes back as tokens.
  select least(s.owed, p_tokens) into strict v_owed from governance.stripe_lots s where s.lot_id = p_lot_id;
  select least(a.debt_tokens, v_owed) into strict v_debt from governance.accounts a where a.account_id = v_lot.account_id;
  v_unspent := least(v_owed - v_debt, v_lot.spent);
  v_returned := least(p_tokens - v_owed, v_lot.clawed_back);
  update governance.lots l set
    remaining = l.remaining + v_unspent + v_returned, spent = l.spent - v_unspent, clawed_back = l.clawed_back - v_returned, is_open = true
  where l.lot_id = p_lot_id and v_unspent + v_returned > 0;
  update governance.stripe_lots s set owed = s.owed - v_owed where s.lot_id = p_lot_id;
  if v_lot.expires_at is not null then
    update governance.accounts a set lots_check_at = least(a.lots_check_at, v_lot.expires_at) where a.account_id = v_lot.account_id;
  end if;
  return (governance.append_entry(v_lot.account_id, 'reversal', p_now,
    case when v_unspent + v_returned > 0 then array[p_lot_id, v_unspent + v_returned] else '{}' end,
    case v_lot.kind when 'subscription' then v_unspent + v_returned else 0 end, case v_lot.kind when 'purchased' then v_unspent + v_returned else 0 end,
    case v_lot.kind when 'promotional' then v_unspent + v_returned else 0 end, -v_debt, p_reference, p_description, p_metadata)).transaction_id;
end
$$;
comment on function governance.give_back(bigint, bigint, timestamptz, text, text, jsonb) is
  'Undoes a taking back: debt first, then tokens into the lot. Answers the entry. The caller holds the account''s lock.';

create function governance.effect(p_type text, p_user_id text, p_tokens bigint, p_transaction_id bigint) returns jsonb
  language sql immutable as $$
  select jsonb_build_object('type', p_type, 'user_id', p_user_id, 'tokens', p_tokens, 'transaction_id', p_transaction_id)
$$;
comment on function governance.effect(text, text, bigint, bigint) is 'One effect as process_stripe_event answers it.';

create function governance.settle_payment(p_payment_id bigint, p_now timestamptz, p_cause text, p_difference_id text default null) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_pay governance.stripe_payments;
  v_account governance.accounts;
  v_refunded bigint;
  v_refund_id text;
  v_lost bigint;
  v_open boolean;
  v_dispute_id text;
  v_disputed bigint;
  v_lot record;
  v_due_reversed bigint;
  v_due_clawed bigint;
  v_move bigint;
  v_taking governance.lot_taking;
  v_entry bigint;
  v_reference text;
  v_metadata jsonb;
  v_effects jsonb := '[]';
  v_moved boolean := false;
begin
  select * into v_pay from governance.stripe_payments p where p.payment_id = p_payment_id;
  if v_pay.account_id is null then return v_effects; end if;
  -- Nothing was refunded or disputed: the common case.
  if v_pay.refunded_minor = 0 and v_pay.refunded_override_at is null
    and not exists (select from governance.stripe_refunds r where r.payment_id = p_payment_id)
    and not exists (select from governance.stripe_disputes d where d.payment_id = p_payment_id) then
    return v_effects;
  end if;
  v_account := governance.lock_account_id(v_pay.account_id);

  select greatest(coalesce(sum(r.amount_minor) filter (where r.state = 2), 0),
      v_pay.refunded_minor - coalesce(sum(r.amount_minor) filter (where r.state = 3), 0)),
    case when count(*) filter (where r.state = 2) = 1 then max(r.refund_id) filter (where r.state = 2) end
  into v_refunded, v_refund_id
  from governance.stripe_refunds r where r.payment_id = p_payment_id;
  if v_pay.refunded_override_at is not null
    and not exists (select from governance.stripe_refunds r where r.payment_id = p_payment_id and r.told_at > v_pay.refunded_override_at)
    and coalesce(v_pay.refunded_at, '-infinity') <= v_pay.refunded_override_at then
    v_refunded := v_pay.refunded_override_minor;
  end if;
  select coalesce(sum(d.amount_minor) filter (where d.stage = 3 and d.is_lost), 0), coalesce(bool_or(d.stage = 2 and not d.is_reinstated), false),
    max(d.dispute_id), coalesce(max(d.amount_minor), 0)
  into v_lost, v_open, v_dispute_id, v_disputed
  from governance.stripe_disputes d where d.payment_id = p_payment_id;
  v_reference := coalesce(v_pay.charge_id, v_pay.payment_intent_id, v_pay.invoice_id, v_pay.checkout_session_id);
  v_metadata := jsonb_strip_nulls(jsonb_build_object('cause', p_cause, 'charge_id', v_pay.charge_id, 'payment_intent_id', v_pay.payment_intent_id,
    'invoice_id', v_pay.invoice_id, 'difference_id', p_difference_id));

  for v_lot in
    select s.*, l.remaining, l.frozen from governance.stripe_lots s join governance.lots l using (lot_id)
    where s.payment_id = p_payment_id order by s.lot_id
  loop
    v_due_reversed := governance.pro_rata(v_lot.tokens, v_refunded, v_pay.amount_minor);
    if v_refunded = 0 then v_due_reversed := 0; end if;
    v_due_clawed := case when v_lost = 0 then 0
      else least(governance.pro_rata(v_lot.tokens, v_lost, v_pay.amount_minor), v_lot.tokens - v_due_reversed) end;

    -- Given back first, so that the sums never pass what was bought.
    if v_due_clawed < v_lot.clawed then
      v_move := v_lot.clawed - v_due_clawed;
      update governance.stripe_lots s set clawed = v_due_clawed where s.lot_id = v_lot.lot_id;
      update governance.stripe_lots s set dispute_state = 'released' where s.lot_id = v_lot.lot_id and v_due_clawed = 0 and v_lost = 0;
      v_entry := governance.give_back(v_lot.lot_id, v_move, p_now, v_reference, 'Dispute won: given back', v_metadata || jsonb_strip_nulls(jsonb_build_object('dispute_id', v_dispute_id)));
      perform governance.record_purchase(v_entry, 'dispute_release', v_lot.lot_id, p_payment_id, v_move, 0, v_disputed, v_pay.currency, null, v_dispute_id,
        p_difference_id => p_difference_id);
      v_effects := v_effects || governance.effect('dispute_release', v_account.user_id, v_move, v_entry);
      v_moved := true;
    end if;
    if v_due_reversed < v_lot.reversed then
      v_move := v_lot.reversed - v_due_reversed;
      update governance.stripe_lots s set reversed = v_due_reversed where s.lot_id = v_lot.lot_id;
      v_entry := governance.give_back(v_lot.lot_id, v_move, p_now, v_reference, 'Refund failed: given back', v_metadata);
      perform governance.record_purchase(v_entry, 'restoration', v_lot.lot_id, p_payment_id, v_move, 0, v_refunded, v_pay.currency,
        p_difference_id => p_difference_id);
      v_effects := v_effects || governance.effect('restoration', v_account.user_id, v_move, v_entry);
      v_moved := true;
    end if;
    if v_due_reversed > v_lot.reversed then
      v_move := v_due_reversed - v_lot.reversed;
      v_taking := governance.take_back(v_lot.lot_id, v_move, 'refund', p_now, v_reference, 'Refund', v_metadata || jsonb_strip_nulls(jsonb_build_object('refund_id', v_refund_id, 'refunded_minor', v_refunded)));
      update governance.stripe_lots s set reversed = v_due_reversed, owed = s.owed + v_taking.debt where s.lot_id = v_lot.lot_id;
      perform governance.record_purchase(v_taking.transaction_id, 'refund', v_lot.lot_id, p_payment_id, -v_move, v_taking.debt, v_refunded, v_pay.currency,
        v_refund_id, p_difference_id => p_difference_id);
      v_effects := v_effects || governance.effect('refund', v_account.user_id, -v_move, v_taking.transaction_id);
      v_moved := true;
    end if;
    if v_due_clawed > v_lot.clawed then
      v_move := v_due_clawed - v_lot.clawed;
      v_taking := governance.take_back(v_lot.lot_id, v_move, 'reversal', p_now, v_reference, 'Dispute lost', v_metadata || jsonb_strip_nulls(jsonb_build_object('dispute_id', v_dispute_id)));
      update governance.stripe_lots s set clawed = v_due_clawed, owed = s.owed + v_taking.debt, dispute_state = 'clawed' where s.lot_id = v_lot.lot_id;
      perform governance.record_purchase(v_taking.transaction_id, 'dispute_clawback', v_lot.lot_id, p_payment_id, -v_move, v_taking.debt, v_disputed, v_pay.currency,
        null, v_dispute_id, p_difference_id => p_difference_id);
      v_effects := v_effects || governance.effect('dispute_clawback', v_account.user_id, -v_move, v_taking.transaction_id);
      v_moved := true;
    end if;

    select l.remaining, l.frozen into strict v_lot.remaining, v_lot.frozen from governance.lots l where l.lot_id = v_lot.lot_id;
    if v_open and (v_lot.dispute_state <> 'held' or v_lot.remaining > 0) then
      v_taking := governance.freeze_lot(v_lot.lot_id, v_lot.remaining, p_now, v_reference, 'Dispute opened: frozen', v_metadata || jsonb_build_object('dispute_id', v_dispute_id));
      if v_taking.taken > 0 or v_lot.dispute_state <> 'held' then
        -- Nothing may be left to freeze; that it was tried is on record all the same.
        v_entry := coalesce(v_taking.transaction_id, (governance.append_entry(v_pay.account_id, 'reversal', p_now, '{}', 0, 0, 0, 0, v_reference,
          'Dispute opened: nothing left to freeze', v_metadata || jsonb_build_object('dispute_id', v_dispute_id))).transaction_id);
        update governance.stripe_lots s set dispute_state = 'held' where s.lot_id = v_lot.lot_id;
        perform governance.record_purchase(v_entry, 'dispute_hold', v_lot.lot_id, p_payment_id, -v_taking.taken, 0, v_disputed, v_pay.currency, null, v_dispute_id,
          p_difference_id => p_difference_id);
        v_effects := v_effects || governance.effect('dispute_hold', v_account.user_id, -v_taking.taken, v_entry);
      end if;
    elsif not v_open and (v_lot.dispute_state = 'held' or v_lot.frozen > 0) then
      v_taking := governance.thaw_lot(v_lot.lot_id, v_lot.frozen, p_now, v_reference, 'Dispute decided: thawed', v_metadata || jsonb_strip_nulls(jsonb_build_object('dispute_id', v_dispute_id)));
      if v_due_clawed = 0 then
        v_entry := coalesce(v_taking.transaction_id, (governance.append_entry(v_pay.account_id, 'reversal', p_now, '{}', 0, 0, 0, 0, v_reference,
          'Dispute decided: nothing was frozen', v_metadata || jsonb_strip_nulls(jsonb_build_object('dispute_id', v_dispute_id)))).transaction_id);
        update governance.stripe_lots s set dispute_state = 'released' where s.lot_id = v_lot.lot_id;
        perform governance.record_purchase(v_entry, 'dispute_release', v_lot.lot_id, p_payment_id, v_taking.taken, 0, v_disputed, v_pay.currency, null, v_dispute_id,
          p_difference_id => p_difference_id);
        v_effects := v_effects || governance.effect('dispute_release', v_account.user_id, v_taking.taken, v_entry);
      end if;
      v_moved := true;
    end if;
  end loop;
  if v_moved then
    perform governance.recover_debt(v_pay.account_id, p_now, v_reference);
    perform governance.ring('accounts', p_now);
  end if;
  return v_effects;
end
$$;
comment on function governance.settle_payment(bigint, timestamptz, text, text) is
  'Moves a payment''s lots to where its refunds and disputes put them: pro rata, capped, debt for what was spent. Answers the effects; nothing when all is in its place. Locks the account.';
