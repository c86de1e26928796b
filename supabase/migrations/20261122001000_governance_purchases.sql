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
create index webhook_events_processed_time on governance.webhook_events_processed using brin (received_at);
comment on table governance.webhook_events_processed is 'Stripe events by id: each is acted on once. Done ones are cleared after 30 days, quarantined ones stay.';

create table governance.stripe_payments (
  payment_id bigint generated always as identity primary key,
  account_id bigint,
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
  lot_id bigint primary key,
  payment_id bigint not null,
  -- Tokens that the payment bought, corrections included: what refunds are in proportion to.
  tokens bigint not null check (tokens >= 0),
  -- Taken back for refunds, for lost disputes; and how much of both became debt because it was spent.
  reversed bigint not null default 0 check (reversed >= 0),
  clawed bigint not null default 0 check (clawed >= 0),
  owed bigint not null default 0 check (owed >= 0),
  dispute_state text not null default 'none' check (dispute_state in ('none', 'held', 'released', 'clawed')),
  -- Corrected away or reclassified: the payment no longer moves it.
  is_void boolean not null default false,
  check (reversed + clawed <= tokens),
  check (owed <= reversed + clawed)
) with (fillfactor = 80);
create index stripe_lots_payment on governance.stripe_lots (payment_id);
comment on table governance.stripe_lots is 'Which lots a payment bought, and what was taken back of them.';

create table governance.purchase_records (
  transaction_id bigint primary key,
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
  difference_id text
);
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

-- Plain expressions without search_path, so that they are inlined: they use built-in functions alone.
create function governance.stripe_id(p_value jsonb) returns text
  language sql immutable as $$
  select case
    when jsonb_typeof(p_value) = 'string' and length(p_value #>> '{}') between 1 and 255 then p_value #>> '{}'
    when jsonb_typeof(p_value) = 'object' and length(p_value ->> 'id') between 1 and 255 then p_value ->> 'id'
  end
$$;
comment on function governance.stripe_id(jsonb) is 'An id, also out of an expanded object; null for anything else.';

create function governance.stripe_whole(p_value jsonb) returns bigint
  language sql immutable as $$
  select case when jsonb_typeof(p_value) = 'number' then
    case when p_value #>> '{}' ~ '^-?[0-9]{1,16}$' then
      case when (p_value #>> '{}')::bigint between -9007199254740991 and 9007199254740991 then (p_value #>> '{}')::bigint end end end
$$;
comment on function governance.stripe_whole(jsonb) is 'A whole number below 2^53 in size; null for anything else.';

create function governance.stripe_time(p_value jsonb) returns timestamptz
  language sql immutable as $$
  select case when governance.stripe_whole(p_value) between 0 and 253402300799 then to_timestamp(governance.stripe_whole(p_value)::double precision) end
$$;
comment on function governance.stripe_time(jsonb) is 'Seconds since 1970 as a moment; null for anything else.';

create function governance.stripe_object(p_value jsonb) returns jsonb
  language sql immutable as $$
  select case when jsonb_typeof(p_value) = 'object' then p_value else '{}' end
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
  language plpgsql immutable set search_path = '' as $$
declare
  v_key text;
  v_found text;
begin
  foreach v_key in array p_keys loop
    v_found := btrim(p_metadata ->> v_key);
    if v_found <> '' then
      return case when length(v_found) <= 255 then v_found end;
    end if;
  end loop;
  return null;
end
$$;
comment on function governance.metadata_text(jsonb, text[]) is 'The first of these metadata keys that is filled.';

-- ---------------------------------------------------------------------------------------------------------------
-- Payments
-- ---------------------------------------------------------------------------------------------------------------

create function governance.lock_stripe_ids(variadic p_ids text[]) returns void
  language plpgsql set search_path = '' as $$
begin
  -- In one order for everybody, and before any account's lock.
  perform pg_advisory_xact_lock(k.key)
  from (select distinct hashtextextended(i.id, 7255) as key from unnest(p_ids) i(id) where i.id is not null order by 1) k;
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
  language plpgsql set search_path = '' as $$
begin
  insert into governance.purchase_records (transaction_id, account_id, created_at, record_type, lot_id, payment_id, tokens, debt_tokens,
    amount_minor, currency, refund_id, dispute_id, invoice_line_id, period_start, period_end, difference_id)
  select t.transaction_id, t.account_id, t.created_at, p_type, p_lot_id, p_payment_id, p_tokens, p_debt, p_amount, p_currency, p_refund_id,
    p_dispute_id, p_line_id, p_period_start, p_period_end, p_difference_id
  from governance.token_transactions t where t.transaction_id = p_transaction_id;
end
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
  language sql stable as $$
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
    where s.payment_id = p_payment_id and not s.is_void order by s.lot_id
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

-- ---------------------------------------------------------------------------------------------------------------
-- Events
-- ---------------------------------------------------------------------------------------------------------------

create type governance.stripe_outcome as (status text, reason text, effects jsonb, payment_id bigint, waits_for_customer text);

create function governance.outcome(p_status text, p_reason text default null, p_effects jsonb default '[]', p_payment_id bigint default null, p_waits_for text default null)
  returns governance.stripe_outcome
  language sql immutable as $$
  select row(p_status, p_reason, coalesce(p_effects, '[]'), p_payment_id, p_waits_for)::governance.stripe_outcome
$$;
comment on function governance.outcome(text, text, jsonb, bigint, text) is 'What became of an event.';

create function governance.pack_at(p_pack_id text, p_at timestamptz) returns governance.packs
  language plpgsql stable set search_path = '' as $$
declare
  v_pack governance.packs;
begin
  -- A payment from before the first price is checked against the first.
  select p.* into v_pack from governance.packs p where p.pack_id = p_pack_id
  order by p.effective_from <= p_at desc, case when p.effective_from <= p_at then p.effective_from end desc, p.effective_from limit 1;
  return v_pack;
end
$$;
comment on function governance.pack_at(text, timestamptz) is 'A pack as it was sold at a moment.';

create function governance.setting_number(p_key text, p_default bigint) returns bigint
  language sql stable set search_path = '' as $$
  select coalesce((select (s.value #>> '{}')::numeric::bigint from governance.settings s
    where s.key = p_key and jsonb_typeof(s.value) = 'number' and (s.value #>> '{}')::numeric between 0 and 9007199254740991), p_default)
$$;
comment on function governance.setting_number(text, bigint) is 'A whole number out of the settings, or the default.';

create function governance.grant_pack(
  p_now timestamptz, p_payment_id bigint, p_user_id text, p_pack_id text, p_tokens bigint, p_amount bigint, p_currency text, p_paid_at timestamptz,
  p_cause text, p_difference_id text default null
) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_pay governance.stripe_payments;
  v_account governance.accounts;
  v_granted governance.granted;
  v_reference text;
begin
  v_account := governance.lock_account(p_user_id);
  update governance.stripe_payments p set
    account_id = v_account.account_id, amount_minor = p_amount, currency = p_currency, paid_at = p_paid_at
  where p.payment_id = p_payment_id returning * into strict v_pay;
  v_reference := coalesce(v_pay.charge_id, v_pay.payment_intent_id, v_pay.checkout_session_id, v_pay.invoice_id);
  v_granted := governance.grant_tokens(v_account.account_id, 'purchased', p_tokens, 'purchase', p_now, null, v_reference, 'Pack ' || p_pack_id,
    jsonb_strip_nulls(jsonb_build_object('cause', p_cause, 'pack_id', p_pack_id, 'charge_id', v_pay.charge_id, 'payment_intent_id', v_pay.payment_intent_id,
      'checkout_session_id', v_pay.checkout_session_id, 'amount_minor', p_amount, 'currency', p_currency, 'difference_id', p_difference_id)),
    jsonb_build_object('pack_id', p_pack_id, 'stripe_charge_id', v_pay.charge_id, 'stripe_payment_intent_id', v_pay.payment_intent_id,
      'stripe_checkout_session_id', v_pay.checkout_session_id, 'amount_minor', p_amount, 'currency', p_currency));
  insert into governance.stripe_lots (lot_id, payment_id, tokens) values (v_granted.lot_id, p_payment_id, p_tokens);
  perform governance.record_purchase(v_granted.transaction_id, 'grant', v_granted.lot_id, p_payment_id, p_tokens, 0, p_amount, p_currency,
    p_difference_id => p_difference_id);
  perform governance.ring('accounts', p_now);
  return jsonb_build_array(governance.effect('grant', p_user_id, p_tokens, v_granted.transaction_id));
end
$$;
comment on function governance.grant_pack(timestamptz, bigint, text, text, bigint, bigint, text, timestamptz, text, text) is
  'Grants a paid pack and ties its lot to the payment. The caller holds the payment''s locks; the account is locked here.';

create function governance.learn_customer(p_customer text, p_account_id bigint) returns boolean
  language plpgsql set search_path = '' as $$
begin
  if p_customer is null or p_account_id is null then return false; end if;
  insert into governance.stripe_customers (customer_id, account_id) values (p_customer, p_account_id) on conflict do nothing;
  return found;
end
$$;
comment on function governance.learn_customer(text, bigint) is 'Remembers whose customer this is; true when it is news.';

create function governance.on_paid_order(
  p_event_id text, p_now timestamptz, p_told_at timestamptz, p_object jsonb, p_payment governance.stripe_payments, p_amount bigint, p_currency text
) returns governance.stripe_outcome
  language plpgsql set search_path = '' as $$
declare
  v_metadata jsonb := governance.stripe_object(p_object -> 'metadata');
  v_user_id text := coalesce(governance.metadata_text(v_metadata, 'user_id', 'userId', 'userid'), governance.stripe_id(p_object -> 'client_reference_id'));
  v_pack_id text := governance.metadata_text(v_metadata, 'pack_id', 'packId', 'packid');
  v_tokens text := btrim(v_metadata ->> 'tokens');
  v_account governance.accounts;
  v_pack governance.packs;
  v_at timestamptz := coalesce(governance.stripe_time(p_object -> 'created'), p_told_at, p_now);
  v_effects jsonb;
begin
  if exists (select from governance.stripe_lots s where s.payment_id = p_payment.payment_id) then
    return governance.outcome('processed', 'already_granted', governance.settle_payment(p_payment.payment_id, p_now, p_event_id), p_payment.payment_id);
  end if;
  if v_tokens is not null and (v_tokens !~ '^[0-9]{1,15}$' or v_tokens::bigint = 0) then
    return governance.outcome('quarantined', 'invalid_tokens', p_payment_id => p_payment.payment_id);
  elsif v_tokens::bigint > 100000000 then
    return governance.outcome('quarantined', 'tokens_above_ceiling', p_payment_id => p_payment.payment_id);
  elsif v_user_id is null then
    return governance.outcome('quarantined', 'unknown_user', p_payment_id => p_payment.payment_id);
  end if;
  select a.* into v_account from governance.accounts a where a.user_id = v_user_id;
  if v_account.account_id is null then
    return governance.outcome('quarantined', 'unknown_user', p_payment_id => p_payment.payment_id);
  end if;
  v_pack := governance.pack_at(v_pack_id, v_at);
  if v_pack.pack_id is null then
    return governance.outcome('quarantined', 'unknown_pack', p_payment_id => p_payment.payment_id);
  elsif v_tokens is not null and v_tokens::bigint <> v_pack.tokens then
    return governance.outcome('quarantined', 'tokens_mismatch', p_payment_id => p_payment.payment_id);
  elsif p_currency is distinct from v_pack.currency then
    return governance.outcome('quarantined', 'currency_mismatch', p_payment_id => p_payment.payment_id);
  elsif p_amount is distinct from v_pack.price_minor then
    return governance.outcome('quarantined', 'amount_mismatch', p_payment_id => p_payment.payment_id);
  elsif v_account.subscription_tokens + v_account.purchased_tokens + v_account.promotional_tokens + v_pack.tokens > 9007199254740991 then
    return governance.outcome('quarantined', 'balance_above_ceiling', p_payment_id => p_payment.payment_id);
  end if;
  v_effects := governance.grant_pack(p_now, p_payment.payment_id, v_user_id, v_pack_id, v_pack.tokens, p_amount, p_currency, coalesce(p_told_at, p_now), p_event_id);
  update governance.checkouts c set closed_at = p_now
  where c.checkout_id = (select o.checkout_id from governance.checkouts o
    where o.account_id = v_account.account_id and o.closed_at is null order by o.pack_id = v_pack_id desc, o.opened_at limit 1);
  perform governance.learn_customer(governance.stripe_id(p_object -> 'customer'), v_account.account_id);
  return governance.outcome('processed', null, v_effects || governance.settle_payment(p_payment.payment_id, p_now, p_event_id), p_payment.payment_id);
end
$$;
comment on function governance.on_paid_order(text, timestamptz, timestamptz, jsonb, governance.stripe_payments, bigint, text) is
  'Grants what was paid for once all of it fits: user, pack, tokens, price at the time, currency, ceiling; otherwise it waits for a person.';

create function governance.is_token_order(p_metadata jsonb) returns boolean
  language sql immutable as $$
  select governance.metadata_text(p_metadata, 'pack_id', 'packId', 'packid', 'tokens') is not null
    or coalesce(p_metadata ->> 'type', '') in ('token_pack_purchase', 'token_purchase')
$$;
comment on function governance.is_token_order(jsonb) is 'Whether an order is for tokens at all: a project sells other things too.';

create function governance.on_checkout(p_event_id text, p_type text, p_now timestamptz, p_told_at timestamptz, o jsonb, p_livemode boolean) returns governance.stripe_outcome
  language plpgsql set search_path = '' as $$
declare
  v_metadata jsonb := governance.stripe_object(o -> 'metadata');
  v_user_id text := coalesce(governance.metadata_text(v_metadata, 'user_id', 'userId', 'userid'), governance.stripe_id(o -> 'client_reference_id'));
  v_account_id bigint;
  v_pay governance.stripe_payments;
begin
  select a.account_id into v_account_id from governance.accounts a where a.user_id = v_user_id;
  if o ->> 'mode' = 'subscription' then
    -- The tokens come with invoice.paid; the session tells whose subscription it is.
    return governance.outcome('processed', 'subscription_noted',
      governance.note_subscription(p_now, p_event_id, governance.stripe_id(o -> 'subscription'), governance.stripe_id(o -> 'customer'), v_account_id,
        governance.metadata_text(v_metadata, 'plan_id', 'planId', 'plan')));
  elsif o ->> 'mode' = 'setup' or not governance.is_token_order(v_metadata) then
    return governance.outcome('ignored', 'not_a_token_purchase');
  end if;
  if p_type in ('checkout.session.expired', 'checkout.session.async_payment_failed') then
    update governance.checkouts c set closed_at = p_now
    where c.checkout_id = (select x.checkout_id from governance.checkouts x where x.account_id = v_account_id and x.closed_at is null
      order by x.pack_id = governance.metadata_text(v_metadata, 'pack_id', 'packId', 'packid') desc, x.opened_at limit 1);
    return governance.outcome('processed', case when p_type = 'checkout.session.expired' then 'expired' else 'payment_failed' end);
  end if;
  if governance.stripe_id(o -> 'id') is null then
    return governance.outcome('quarantined', 'malformed');
  end if;
  v_pay := governance.note_payment(p_now, governance.stripe_id(o -> 'payment_intent'), null, governance.stripe_id(o -> 'id'),
    governance.stripe_id(o -> 'invoice'), governance.stripe_id(o -> 'customer'), p_livemode,
    governance.metadata_text(v_metadata, 'order_id', 'orderId'));
  if o ->> 'payment_status' = 'unpaid' then
    return governance.outcome('processed', 'awaiting_payment', p_payment_id => v_pay.payment_id);
  elsif coalesce(o ->> 'payment_status', '') not in ('paid', 'no_payment_required') then
    return governance.outcome('quarantined', 'payment_status_unknown', p_payment_id => v_pay.payment_id);
  end if;
  return governance.on_paid_order(p_event_id, p_now, p_told_at, o, v_pay, governance.stripe_whole(o -> 'amount_total'), governance.stripe_currency(o -> 'currency'));
end
$$;
comment on function governance.on_checkout(text, text, timestamptz, timestamptz, jsonb, boolean) is 'checkout.session.*';

create function governance.on_charge(p_event_id text, p_type text, p_now timestamptz, p_told_at timestamptz, o jsonb, p_livemode boolean) returns governance.stripe_outcome
  language plpgsql set search_path = '' as $$
declare
  v_charge text := governance.stripe_id(o -> 'id');
  v_intent text := governance.stripe_id(o -> 'payment_intent');
  v_refunded bigint := coalesce(governance.stripe_whole(o -> 'amount_refunded'), 0);
  v_refund jsonb;
  v_pay governance.stripe_payments;
begin
  if v_charge is null then return governance.outcome('quarantined', 'malformed'); end if;
  -- A failed try is not the payment; the next one has another id.
  if p_type in ('charge.failed', 'charge.pending', 'charge.expired') or coalesce(o ->> 'status', 'succeeded') <> 'succeeded' then
    return governance.outcome('processed', case when p_type = 'charge.pending' then 'awaiting_payment' else 'payment_failed' end);
  end if;
  v_pay := governance.note_payment(p_now, v_intent, v_charge, null, governance.stripe_id(o -> 'invoice'), governance.stripe_id(o -> 'customer'), p_livemode);
  if v_refunded > 0 then
    update governance.stripe_payments p set refunded_minor = greatest(p.refunded_minor, v_refunded), refunded_at = greatest(p.refunded_at, p_told_at)
    where p.payment_id = v_pay.payment_id;
  end if;
  -- Before 2022-11-15 a charge lists its refunds.
  for v_refund in select r.value from jsonb_array_elements(governance.stripe_list(o -> 'refunds')) r limit 100 loop
    perform governance.note_refund(p_now, p_told_at, governance.stripe_object(v_refund), v_charge, v_intent);
  end loop;
  return governance.outcome('processed', null, governance.settle_payment(v_pay.payment_id, p_now, p_event_id), v_pay.payment_id);
end
$$;
comment on function governance.on_charge(text, text, timestamptz, timestamptz, jsonb, boolean) is 'charge.* but refunds and disputes.';

create function governance.on_payment_intent(p_event_id text, p_type text, p_now timestamptz, p_told_at timestamptz, o jsonb, p_livemode boolean) returns governance.stripe_outcome
  language plpgsql set search_path = '' as $$
declare
  v_intent text := governance.stripe_id(o -> 'id');
  v_charge text := coalesce(governance.stripe_id(o -> 'latest_charge'), governance.stripe_id(o #> '{charges,data,0,id}'));
  v_pay governance.stripe_payments;
begin
  if v_intent is null then return governance.outcome('quarantined', 'malformed'); end if;
  if p_type <> 'payment_intent.succeeded' then return governance.outcome('processed', 'payment_failed'); end if;
  v_pay := governance.note_payment(p_now, v_intent, v_charge, null, governance.stripe_id(o -> 'invoice'), governance.stripe_id(o -> 'customer'), p_livemode);
  -- Sold without Checkout: then the order is on the payment itself.
  if governance.is_token_order(governance.stripe_object(o -> 'metadata')) then
    return governance.on_paid_order(p_event_id, p_now, p_told_at, o, v_pay,
      coalesce(governance.stripe_whole(o -> 'amount_received'), governance.stripe_whole(o -> 'amount')), governance.stripe_currency(o -> 'currency'));
  end if;
  return governance.outcome('processed', null, governance.settle_payment(v_pay.payment_id, p_now, p_event_id), v_pay.payment_id);
end
$$;
comment on function governance.on_payment_intent(text, text, timestamptz, timestamptz, jsonb, boolean) is 'payment_intent.*';

-- ---------------------------------------------------------------------------------------------------------------
-- Subscriptions
-- ---------------------------------------------------------------------------------------------------------------

create function governance.end_subscription_lots(p_account_id bigint, p_on_cancel text, p_now timestamptz, p_reference text, p_lot_id bigint default null) returns bigint
  language plpgsql set search_path = '' as $$
declare
  v_lot record;
  v_free bigint;
  v_take bigint;
  v_moved bigint := 0;
begin
  if p_on_cancel = 'keep' then return 0; end if;
  for v_lot in select l.lot_id, l.remaining from governance.lots l
    where l.account_id = p_account_id and l.kind = 'subscription' and l.is_open and (p_lot_id is null or l.lot_id = p_lot_id) order by l.lot_id
  loop
    if p_on_cancel = 'convert' then
      update governance.lots l set kind = 'purchased', expires_at = null where l.lot_id = v_lot.lot_id;
      perform governance.append_entry(p_account_id, 'adjustment', p_now, array[v_lot.lot_id, 0::bigint], -v_lot.remaining, v_lot.remaining, 0, 0, p_reference,
        'Subscription ended: its tokens are kept as purchased');
      v_moved := v_moved + v_lot.remaining;
    else
      select a.subscription_tokens + a.purchased_tokens + a.promotional_tokens - a.reserved_tokens into strict v_free
      from governance.accounts a where a.account_id = p_account_id;
      -- What is held for calls under way expires when they end.
      v_take := least(v_lot.remaining, v_free);
      update governance.lots l set remaining = l.remaining - v_take, expired = l.expired + v_take, expires_at = least(l.expires_at, p_now),
        is_open = l.remaining - v_take + l.frozen > 0
      where l.lot_id = v_lot.lot_id;
      if v_take < v_lot.remaining then
        update governance.accounts a set lots_check_at = least(a.lots_check_at, p_now) where a.account_id = p_account_id;
      end if;
      if v_take > 0 then
        perform governance.append_entry(p_account_id, 'expiry', p_now, array[v_lot.lot_id, -v_take], -v_take, 0, 0, 0, p_reference, 'Subscription ended');
        v_moved := v_moved - v_take;
      end if;
    end if;
  end loop;
  return v_moved;
end
$$;
comment on function governance.end_subscription_lots(bigint, text, timestamptz, text, bigint) is
  'What becomes of subscription tokens when the subscription ends: keep, convert into purchased ones, or expire. The caller holds the account''s lock.';

create function governance.note_subscription(p_now timestamptz, p_event_id text, p_subscription text, p_customer text, p_account_id bigint, p_plan_id text) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_waiting record;
  v_effects jsonb := '[]';
begin
  if p_subscription is not null then
    perform governance.lock_stripe_ids(p_subscription);
    insert into governance.stripe_subscriptions as s (subscription_id, account_id, customer_id, plan_id, updated_at)
    values (p_subscription, p_account_id, p_customer, p_plan_id, p_now)
    on conflict (subscription_id) do update set account_id = coalesce(s.account_id, excluded.account_id),
      customer_id = coalesce(s.customer_id, excluded.customer_id), plan_id = coalesce(excluded.plan_id, s.plan_id), updated_at = p_now;
  end if;
  perform governance.learn_customer(p_customer, p_account_id);
  if p_account_id is not null and p_customer is not null then
    -- What was delivered before anybody knew whose it is.
    for v_waiting in select w.event_id, w.payload from governance.webhook_events_processed w
      where w.waits_for_customer = p_customer and w.status = 'quarantined' and w.event_id <> p_event_id order by w.event_created_at, w.event_id for update
    loop
      v_effects := v_effects || coalesce(governance.take_event(v_waiting.event_id, v_waiting.payload, p_now) -> 'effects', '[]');
    end loop;
  end if;
  return v_effects;
end
$$;
comment on function governance.note_subscription(timestamptz, text, text, text, bigint, text) is
  'Notes whose subscription it is and for which plan, and takes up events that waited to know. Answers their effects.';

create function governance.on_subscription(p_event_id text, p_type text, p_now timestamptz, o jsonb) returns governance.stripe_outcome
  language plpgsql set search_path = '' as $$
declare
  v_id text := governance.stripe_id(o -> 'id');
  v_metadata jsonb := governance.stripe_object(o -> 'metadata');
  v_customer text := governance.stripe_id(o -> 'customer');
  v_user_id text := governance.metadata_text(v_metadata, 'user_id', 'userId', 'userid');
  v_plan_id text := governance.plan_of(v_metadata, o #> '{items,data,0}');
  v_account governance.accounts;
  v_sub governance.stripe_subscriptions;
  v_plan governance.plans;
  v_moved bigint;
  v_effects jsonb;
begin
  if v_id is null then return governance.outcome('quarantined', 'malformed'); end if;
  select a.* into v_account from governance.accounts a where a.user_id = v_user_id;
  if v_account.account_id is null then
    select a.* into v_account from governance.stripe_customers c join governance.accounts a using (account_id) where c.customer_id = v_customer;
  end if;
  v_effects := governance.note_subscription(p_now, p_event_id, v_id, v_customer, v_account.account_id, v_plan_id);
  if p_type <> 'customer.subscription.deleted' and coalesce(o ->> 'status', '') <> 'canceled' then
    return governance.outcome('processed', 'subscription_noted', v_effects);
  end if;
  select * into strict v_sub from governance.stripe_subscriptions s where s.subscription_id = v_id for update;
  if v_sub.canceled_at is not null then return governance.outcome('processed', 'already_canceled', v_effects); end if;
  update governance.stripe_subscriptions s set canceled_at = coalesce(governance.stripe_time(o -> 'ended_at'), governance.stripe_time(o -> 'canceled_at'), p_now)
  where s.subscription_id = v_id;
  if v_sub.account_id is null then return governance.outcome('processed', 'unknown_user', v_effects); end if;
  v_account := governance.lock_account_id(v_sub.account_id);
  select * into v_plan from governance.plans p where p.plan_id = coalesce(v_sub.plan_id, v_account.plan_id);
  if v_plan.plan_id = v_account.plan_id then
    v_moved := governance.end_subscription_lots(v_account.account_id, v_plan.on_cancel, p_now, v_id);
    update governance.accounts a set plan_id = c.default_plan, version = a.version + 1
    from governance.active_config c where a.account_id = v_account.account_id and c.default_plan is not null;
    v_effects := v_effects || governance.effect('subscription_' || v_plan.on_cancel, v_account.user_id, v_moved, null);
    perform governance.ring('accounts', p_now);
  end if;
  return governance.outcome('processed', null, v_effects);
end
$$;
comment on function governance.on_subscription(text, text, timestamptz, jsonb) is
  'customer.subscription.*: whose it is, and what becomes of its tokens when it ends (the plan''s on_cancel).';

create function governance.plan_of(p_metadata jsonb, p_item jsonb) returns text
  language sql stable set search_path = '' as $$
  select p.plan_id from (values
    (1, governance.metadata_text(governance.stripe_object(p_item -> 'metadata'), 'plan_id', 'planId', 'plan')),
    (2, governance.metadata_text(governance.stripe_object(p_item #> '{price,metadata}'), 'plan_id', 'planId', 'plan')),
    (3, governance.metadata_text(governance.stripe_object(p_item #> '{plan,metadata}'), 'plan_id', 'planId', 'plan')),
    (4, governance.metadata_text(p_metadata, 'plan_id', 'planId', 'plan')),
    (5, p_item #>> '{price,lookup_key}'), (6, p_item #>> '{price,nickname}'), (7, p_item #>> '{plan,nickname}')
  ) c(n, plan_id) join governance.plans p on p.plan_id = c.plan_id order by c.n limit 1
$$;
comment on function governance.plan_of(jsonb, jsonb) is 'The plan that a subscription item or invoice line is for: by metadata, lookup key or nickname.';

create function governance.grant_invoice_line(
  p_now timestamptz, p_event_id text, p_payment_id bigint, p_account_id bigint, p_line_key text, p_plan_id text, p_tokens bigint,
  p_amount bigint, p_currency text, p_from timestamptz, p_to timestamptz, p_subscription text
) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_account governance.accounts := governance.lock_account_id(p_account_id);
  v_plan governance.plans;
  v_pay governance.stripe_payments;
  v_more bigint := p_tokens;
  v_total bigint := p_tokens;
  v_lot_id bigint;
  v_entry bigint;
  v_expires timestamptz := p_to;
  v_granted governance.granted;
  v_on_cancel text;
  v_month_end timestamptz := v_account.month_ends_at;
begin
  select * into strict v_pay from governance.stripe_payments p where p.payment_id = p_payment_id;
  if p_plan_id is not null then
    select * into strict v_plan from governance.plans p where p.plan_id = p_plan_id;
    if v_account.plan_id <> p_plan_id and not exists (select from governance.stripe_subscriptions s where s.subscription_id = p_subscription and s.canceled_at is not null) then
      update governance.accounts a set plan_id = p_plan_id, version = a.version + 1 where a.account_id = p_account_id;
    end if;
    if p_tokens is null then
      -- The plan's monthly allowance is what was paid for. What this month already gave of it is not given again: that
      -- lot becomes the paid one.
      v_more := greatest(v_plan.monthly_allowance - v_account.month_allowance, 0);
      update governance.accounts a set month_allowance = greatest(a.month_allowance, v_plan.monthly_allowance) where a.account_id = p_account_id;
      v_expires := ((v_account.local_month + (1 + v_plan.rollover_months) * interval '1 month')::timestamp at time zone v_account.timezone);
    end if;
  end if;
  if v_more > 0 then
    v_granted := governance.grant_tokens(p_account_id, 'subscription', v_more, 'subscription_grant', p_now, v_expires, p_line_key,
      'Subscription ' || coalesce(p_plan_id, ''), jsonb_strip_nulls(jsonb_build_object('cause', p_event_id, 'invoice_id', v_pay.invoice_id, 'plan_id', p_plan_id,
        'period_start', p_from, 'period_end', p_to, 'amount_minor', p_amount, 'currency', p_currency)),
      jsonb_build_object('stripe_charge_id', v_pay.charge_id, 'stripe_payment_intent_id', v_pay.payment_intent_id, 'stripe_invoice_line_id', p_line_key,
        'amount_minor', p_amount, 'currency', p_currency));
    v_lot_id := v_granted.lot_id;
    v_entry := v_granted.transaction_id;
    v_total := v_more;
  else
    select l.lot_id, l.granted into v_lot_id, v_total from governance.lots l
    where l.account_id = p_account_id and l.kind = 'subscription' and l.stripe_invoice_line_id is null and l.created_at < v_month_end
      and l.expires_at > p_now order by l.granted desc, l.lot_id desc limit 1;
    if v_lot_id is null then return '[]'; end if;
    update governance.lots l set stripe_invoice_line_id = p_line_key, stripe_charge_id = v_pay.charge_id, stripe_payment_intent_id = v_pay.payment_intent_id,
      amount_minor = p_amount, currency = p_currency
    where l.lot_id = v_lot_id;
    v_entry := (governance.append_entry(p_account_id, 'subscription_grant', p_now, '{}', 0, 0, 0, 0, p_line_key,
      'Invoice paid: this month''s allowance is there already', jsonb_strip_nulls(jsonb_build_object('cause', p_event_id, 'invoice_id', v_pay.invoice_id, 'plan_id', p_plan_id)))).transaction_id;
  end if;
  update governance.stripe_payments p set account_id = p_account_id, subscription_id = coalesce(p.subscription_id, p_subscription) where p.payment_id = p_payment_id;
  insert into governance.stripe_lots (lot_id, payment_id, tokens) values (v_lot_id, p_payment_id, v_total);
  perform governance.record_purchase(v_entry, 'grant', v_lot_id, p_payment_id, v_total, 0, p_amount, p_currency, p_line_id => p_line_key,
    p_period_start => p_from, p_period_end => p_to);
  -- The subscription ended before its invoice was delivered: its tokens share the fate of the others.
  if exists (select from governance.stripe_subscriptions s where s.subscription_id = p_subscription and s.canceled_at is not null) then
    select coalesce(p.on_cancel, 'keep') into v_on_cancel from governance.plans p where p.plan_id = coalesce(p_plan_id, v_account.plan_id);
    perform governance.end_subscription_lots(p_account_id, v_on_cancel, p_now, p_subscription, v_lot_id);
  end if;
  return jsonb_build_array(governance.effect('grant', v_account.user_id, v_more, v_entry));
end
$$;
comment on function governance.grant_invoice_line(timestamptz, text, bigint, bigint, text, text, bigint, bigint, text, timestamptz, timestamptz, text) is
  'Grants what one paid invoice line stands for: the tokens it names, or its plan''s allowance as far as this month has not given it. The caller holds the payment''s locks.';

create function governance.on_invoice(p_event_id text, p_now timestamptz, p_told_at timestamptz, o jsonb, p_livemode boolean) returns governance.stripe_outcome
  language plpgsql set search_path = '' as $$
declare
  v_invoice text := governance.stripe_id(o -> 'id');
  v_customer text := governance.stripe_id(o -> 'customer');
  -- From 2025-03-31 an invoice names neither subscription, payment nor charge at its top.
  v_parent jsonb := governance.stripe_object(o #> '{parent,subscription_details}');
  v_subscription text := coalesce(governance.stripe_id(o -> 'subscription'), governance.stripe_id(v_parent -> 'subscription'));
  v_intent text := coalesce(governance.stripe_id(o -> 'payment_intent'), governance.stripe_id(o #> '{payments,data,0,payment,payment_intent}'));
  v_charge text := coalesce(governance.stripe_id(o -> 'charge'), governance.stripe_id(o #> '{payments,data,0,payment,charge}'));
  v_metadata jsonb := governance.stripe_object(o -> 'metadata') || governance.stripe_object(v_parent -> 'metadata') || governance.stripe_object(o #> '{subscription_details,metadata}');
  v_user_id text := governance.metadata_text(v_metadata, 'user_id', 'userId', 'userid');
  v_currency text := governance.stripe_currency(o -> 'currency');
  v_paid bigint := governance.stripe_whole(o -> 'amount_paid');
  v_lines jsonb := governance.stripe_list(o -> 'lines');
  v_line jsonb;
  v_line_metadata jsonb;
  v_pay governance.stripe_payments;
  v_account_id bigint;
  v_plan_id text;
  v_tokens text;
  v_amount bigint;
  v_from timestamptz;
  v_to timestamptz;
  v_key text;
  v_any boolean := false;
  v_problem text;
  v_effects jsonb := '[]';
begin
  if v_invoice is null then return governance.outcome('quarantined', 'malformed'); end if;
  if coalesce(o ->> 'status', 'paid') <> 'paid' then return governance.outcome('processed', 'awaiting_payment'); end if;
  v_pay := governance.note_payment(p_now, v_intent, v_charge, null, v_invoice, v_customer, p_livemode);
  if v_subscription is not null then
    perform governance.lock_stripe_ids(v_subscription);
  end if;
  select a.account_id into v_account_id from governance.accounts a where a.user_id = v_user_id;
  if v_account_id is null then
    select s.account_id into v_account_id from governance.stripe_subscriptions s where s.subscription_id = v_subscription and s.account_id is not null;
  end if;
  if v_account_id is null then
    select c.account_id into v_account_id from governance.stripe_customers c where c.customer_id = v_customer;
  end if;

  for v_line in select governance.stripe_object(x.value) from jsonb_array_elements(v_lines) x limit 250 loop
    v_line_metadata := governance.stripe_object(v_line -> 'metadata');
    continue when coalesce(v_line -> 'proration' = 'true', false) or coalesce(v_line #> '{parent,subscription_item_details,proration}' = 'true', false)
      or (governance.stripe_id(v_line -> 'subscription') is null and coalesce(v_line ->> 'type', '') <> 'subscription'
        and coalesce(v_line #>> '{parent,type}', '') <> 'subscription_item_details');
    v_plan_id := governance.plan_of(v_metadata, v_line);
    v_tokens := btrim(coalesce(v_line_metadata ->> 'tokens', v_line #>> '{price,metadata,tokens}', v_metadata ->> 'tokens'));
    if v_plan_id is null then
      select s.plan_id into v_plan_id from governance.stripe_subscriptions s join governance.plans p using (plan_id) where s.subscription_id = v_subscription;
    end if;
    continue when v_plan_id is null and v_tokens is null;
    v_any := true;
    v_amount := governance.stripe_whole(v_line -> 'amount');
    v_from := governance.stripe_time(v_line #> '{period,start}');
    v_to := governance.stripe_time(v_line #> '{period,end}');
    v_problem := case
      when governance.stripe_id(v_line -> 'id') is null or v_from is null or v_to is null or v_to <= v_from then 'malformed'
      when v_amount is null or v_amount < 0 or v_paid is null or v_paid < 0 then 'amount_mismatch'
      when v_currency is null then 'currency_mismatch'
      when v_tokens is not null and (v_tokens !~ '^[0-9]{1,15}$' or v_tokens::bigint = 0) then 'invalid_tokens'
      when v_tokens::bigint > 100000000 then 'tokens_above_ceiling'
      when v_account_id is null then 'unknown_user'
    end;
    if v_problem is not null then
      return governance.outcome('quarantined', v_problem, v_effects, v_pay.payment_id, case when v_problem = 'unknown_user' then v_customer end);
    end if;
    -- Older line ids name the subscription, not the line: then invoice and period make it one of a kind.
    v_key := governance.stripe_id(v_line -> 'id');
    if v_key not like 'il\_%' then v_key := v_invoice || ':' || v_key || ':' || extract(epoch from v_from)::bigint; end if;
    continue when exists (select from governance.lots l where l.stripe_invoice_line_id = v_key);
    update governance.stripe_payments p set amount_minor = coalesce(p.amount_minor, v_paid), currency = coalesce(p.currency, v_currency),
      paid_at = coalesce(p.paid_at, p_told_at, p_now)
    where p.payment_id = v_pay.payment_id;
    v_effects := v_effects || governance.grant_invoice_line(p_now, p_event_id, v_pay.payment_id, v_account_id, v_key, v_plan_id, v_tokens::bigint,
      v_amount, v_currency, v_from, v_to, v_subscription);
  end loop;
  if not v_any then
    if v_user_id is not null and v_subscription is not null then
      return governance.outcome('quarantined', 'unknown_plan', p_payment_id => v_pay.payment_id);
    end if;
    return governance.outcome('ignored', 'not_a_token_purchase');
  end if;
  perform governance.learn_customer(v_customer, v_account_id);
  if v_subscription is not null then
    v_effects := v_effects || governance.note_subscription(p_now, p_event_id, v_subscription, v_customer, v_account_id, v_plan_id);
  end if;
  return governance.outcome('processed', null, v_effects || governance.settle_payment(v_pay.payment_id, p_now, p_event_id), v_pay.payment_id);
end
$$;
comment on function governance.on_invoice(text, timestamptz, timestamptz, jsonb, boolean) is 'invoice.paid, in its shapes before and after 2025-03-31: each subscription line and period grants once.';

-- ---------------------------------------------------------------------------------------------------------------
-- The door
-- ---------------------------------------------------------------------------------------------------------------

create function governance.dispatch_event(p_event_id text, p_type text, p_told_at timestamptz, p_event jsonb, p_now timestamptz) returns governance.stripe_outcome
  language plpgsql set search_path = '' as $$
declare
  o jsonb := p_event #> '{data,object}';
  v_live boolean := case jsonb_typeof(p_event -> 'livemode') when 'boolean' then (p_event ->> 'livemode')::boolean end;
  v_payment_id bigint;
begin
  if jsonb_typeof(o) is distinct from 'object' then return governance.outcome('quarantined', 'malformed'); end if;
  if v_live = false and exists (select from governance.settings s where s.key = 'stripe_livemode' and s.value = 'true') then
    return governance.outcome('quarantined', 'test_mode');
  end if;
  if p_type like 'checkout.session.%' then return governance.on_checkout(p_event_id, p_type, p_now, p_told_at, o, v_live);
  elsif p_type like 'payment_intent.%' then return governance.on_payment_intent(p_event_id, p_type, p_now, p_told_at, o, v_live);
  elsif p_type like 'charge.dispute.%' then
    v_payment_id := governance.note_dispute(p_now, coalesce(p_told_at, p_now), o, p_type);
    if v_payment_id is null then return governance.outcome('quarantined', 'malformed'); end if;
    return governance.outcome('processed', null, governance.settle_payment(v_payment_id, p_now, p_event_id), v_payment_id);
  elsif p_type like 'refund.%' or p_type = 'charge.refund.updated' then
    v_payment_id := governance.note_refund(p_now, coalesce(p_told_at, p_now), o);
    if v_payment_id is null then return governance.outcome('quarantined', 'malformed'); end if;
    return governance.outcome('processed', null, governance.settle_payment(v_payment_id, p_now, p_event_id), v_payment_id);
  elsif p_type like 'charge.%' then return governance.on_charge(p_event_id, p_type, p_now, coalesce(p_told_at, p_now), o, v_live);
  elsif p_type in ('invoice.paid', 'invoice.payment_succeeded') then return governance.on_invoice(p_event_id, p_now, p_told_at, o, v_live);
  elsif p_type = 'invoice_payment.paid' then
    -- From 2025-03-31: the only thing that ties an invoice to its payment.
    v_payment_id := (governance.note_payment(p_now, governance.stripe_id(o #> '{payment,payment_intent}'), governance.stripe_id(o #> '{payment,charge}'), null,
      governance.stripe_id(o -> 'invoice'))).payment_id;
    return governance.outcome('processed', null, governance.settle_payment(v_payment_id, p_now, p_event_id), v_payment_id);
  elsif p_type like 'invoice.%' then return governance.outcome('processed', 'payment_failed');
  else return governance.on_subscription(p_event_id, p_type, p_now, o);
  end if;
end
$$;
comment on function governance.dispatch_event(text, text, timestamptz, jsonb, timestamptz) is 'Hands an event to what reads its type.';

create function governance.take_event(p_event_id text, p_event jsonb, p_now timestamptz) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_type text := p_event ->> 'type';
  v_told_at timestamptz := governance.stripe_time(p_event -> 'created');
  v_outcome governance.stripe_outcome;
begin
  begin
    v_outcome := governance.dispatch_event(p_event_id, v_type, v_told_at, p_event, p_now);
  exception when data_exception or integrity_constraint_violation or sqlstate 'PT400' or sqlstate 'PT404' then
    -- Whatever stands in it, an event is kept for a person rather than sent back to Stripe for ever.
    v_outcome := governance.outcome('quarantined', 'malformed');
  end;
  insert into governance.webhook_events_processed as w (event_id, event_type, event_created_at, received_at, status, reason, effects, payment_id,
    waits_for_customer, payload)
  values (p_event_id, v_type, v_told_at, p_now, case v_outcome.status when 'quarantined' then 'quarantined' else 'processed' end, v_outcome.reason,
    v_outcome.effects, v_outcome.payment_id, v_outcome.waits_for_customer, case v_outcome.status when 'quarantined' then p_event end)
  on conflict (event_id) do update set
    status = excluded.status, reason = excluded.reason, effects = w.effects || excluded.effects, payment_id = excluded.payment_id,
    waits_for_customer = excluded.waits_for_customer, payload = excluded.payload, attempts = w.attempts + 1;
  if v_outcome.status = 'quarantined' then
    insert into governance.alert_events (kind, severity, message, period_key, details, created_at)
    values ('webhook_quarantined', 'critical', format('A Stripe event waits for a decision: %s (%s)', v_outcome.reason, v_type), p_event_id,
      jsonb_build_object('event_id', p_event_id, 'event_type', v_type, 'reason', v_outcome.reason, 'payment_id', v_outcome.payment_id), p_now)
    on conflict do nothing;
    perform governance.ring('alerts', p_now);
  elsif v_type = 'charge.dispute.created' and v_outcome.effects <> '[]' then
    insert into governance.alert_events (account_id, kind, severity, message, period_key, details, created_at)
    select p.account_id, 'stripe_dispute', 'warning', 'A payment is disputed: what is left of its tokens is frozen', p_event_id,
      jsonb_build_object('event_id', p_event_id, 'charge_id', p.charge_id, 'payment_intent_id', p.payment_intent_id), p_now
    from governance.stripe_payments p where p.payment_id = v_outcome.payment_id
    on conflict do nothing;
    perform governance.ring('alerts', p_now);
  end if;
  return jsonb_build_object('event_id', p_event_id, 'status', v_outcome.status, 'reason', v_outcome.reason, 'effects', v_outcome.effects);
end
$$;
comment on function governance.take_event(text, jsonb, timestamptz) is 'Acts on an event and keeps what came of it. Answers as process_stripe_event does.';

create function public.process_stripe_event(p_event jsonb) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_id text;
  v_type text;
  v_now timestamptz;
  v_known governance.webhook_events_processed;
begin
  if p_event is null or jsonb_typeof(p_event) <> 'object' then
    perform governance.fail('PT400', 'invalid_argument', 'p_event is the event object as Stripe sends it');
  elsif jsonb_typeof(p_event -> 'id') is distinct from 'string' or btrim(p_event ->> 'id') = '' or length(p_event ->> 'id') > 255 then
    perform governance.fail('PT400', 'invalid_argument', 'p_event.id is the event''s id, a text of at most 255 characters');
  elsif jsonb_typeof(p_event -> 'type') is distinct from 'string' or btrim(p_event ->> 'type') = '' or length(p_event ->> 'type') > 255 then
    perform governance.fail('PT400', 'invalid_argument', 'p_event.type is the event''s type, a text of at most 255 characters');
  elsif pg_column_size(p_event) > 1048576 then
    perform governance.fail('PT400', 'invalid_argument', 'p_event is larger than 1 MB: Stripe sends no such event');
  end if;
  v_id := p_event ->> 'id';
  v_type := p_event ->> 'type';
  if v_type not in ('checkout.session.completed', 'checkout.session.async_payment_succeeded', 'checkout.session.async_payment_failed', 'checkout.session.expired',
    'payment_intent.succeeded', 'payment_intent.payment_failed', 'payment_intent.canceled',
    'charge.succeeded', 'charge.captured', 'charge.updated', 'charge.failed', 'charge.pending', 'charge.expired', 'charge.refunded', 'charge.refund.updated',
    'refund.created', 'refund.updated', 'refund.failed',
    'charge.dispute.created', 'charge.dispute.updated', 'charge.dispute.closed', 'charge.dispute.funds_withdrawn', 'charge.dispute.funds_reinstated',
    'invoice.paid', 'invoice.payment_succeeded', 'invoice.payment_failed', 'invoice_payment.paid',
    'customer.subscription.created', 'customer.subscription.updated', 'customer.subscription.deleted') then
    return jsonb_build_object('event_id', v_id, 'status', 'ignored', 'reason', 'unhandled_type', 'effects', '[]'::jsonb);
  end if;
  v_now := governance.now();
  -- One at a time for each event; what came of it is written once, at the end.
  perform pg_advisory_xact_lock(hashtextextended(v_id, 7256));
  select * into v_known from governance.webhook_events_processed w where w.event_id = v_id;
  if v_known.event_id is not null and (v_known.status <> 'quarantined' or v_known.event_type <> v_type) then
    return jsonb_build_object('event_id', v_id, 'status', 'duplicate', 'reason', v_known.reason, 'effects', '[]'::jsonb);
  end if;
  -- A quarantined one is looked at again: what it waited for may be there by now.
  return governance.take_event(v_id, p_event, v_now);
end
$$;
comment on function public.process_stripe_event(jsonb) is
  'Takes a Stripe event whose signature was checked: any order, any number of times, API versions from 2020-08-27 on. Answers event_id, status processed / duplicate / ignored / quarantined, reason, effects. Errors: invalid_argument.';
revoke all on function public.process_stripe_event(jsonb) from public, anon, authenticated;
grant execute on function public.process_stripe_event(jsonb) to service_role;

create function public.begin_checkout(p_user_id text, p_pack_id text) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_account governance.accounts;
  v_plan governance.plans;
  v_pack governance.packs;
  v_now timestamptz;
  v_cooldown bigint;
  v_limit bigint;
  v_minutes bigint;
  v_last timestamptz;
  v_open int;
  v_oldest timestamptz;
  v_reason text;
  v_retry numeric;
begin
  perform governance.check_id('p_user_id', p_user_id);
  perform governance.check_id('p_pack_id', p_pack_id);
  v_account := governance.lock_account(p_user_id);
  v_now := governance.now();
  select * into v_pack from governance.packs p where p.pack_id = p_pack_id and p.retired_at is null and p.effective_from <= v_now
  order by p.effective_from desc limit 1;
  if v_pack.pack_id is null then
    perform governance.fail('PT404', 'unknown_pack', format('There is no pack "%s" on sale', left(p_pack_id, 64)));
  end if;
  select * into strict v_plan from governance.plans p where p.plan_id = v_account.plan_id;
  v_cooldown := governance.setting_number('purchase_cooldown_seconds', 10);
  v_limit := governance.setting_number('open_checkout_limit', 3);
  v_minutes := governance.setting_number('open_checkout_minutes', 60);
  select max(c.opened_at), count(*) filter (where c.closed_at is null and c.opened_at > v_now - least(v_minutes, 525600) * interval '1 minute'),
    min(c.opened_at) filter (where c.closed_at is null and c.opened_at > v_now - least(v_minutes, 525600) * interval '1 minute')
  into v_last, v_open, v_oldest
  from governance.checkouts c where c.account_id = v_account.account_id;
  if v_account.blocked_at is not null and (v_account.blocked_until is null or v_account.blocked_until > v_now) then
    v_reason := 'user_blocked';
    v_retry := extract(epoch from v_account.blocked_until - v_now);
  elsif not (case when v_pack.plans is null then v_plan.allows_top_up else v_account.plan_id = any (v_pack.plans) end) then
    v_reason := 'plan_not_allowed';
  elsif v_last > v_now - least(v_cooldown, 31536000) * interval '1 second' then
    v_reason := 'cooldown';
    v_retry := extract(epoch from v_last - v_now) + v_cooldown;
  elsif v_open >= v_limit then
    v_reason := 'too_many_open_checkouts';
    v_retry := extract(epoch from v_oldest - v_now) + v_minutes * 60;
  else
    insert into governance.checkouts (account_id, pack_id, opened_at) values (v_account.account_id, p_pack_id, v_now);
  end if;
  return jsonb_build_object('allowed', v_reason is null, 'reason', v_reason, 'retry_after_seconds', case when v_retry is not null then greatest(ceil(v_retry), 1)::bigint end,
    'pack', jsonb_build_object('pack_id', v_pack.pack_id, 'tokens', v_pack.tokens, 'price_minor', v_pack.price_minor, 'currency', v_pack.currency));
end
$$;
comment on function public.begin_checkout(text, text) is
  'Whether a user may begin to buy a pack now: plan, block, cooldown (setting purchase_cooldown_seconds), open checkouts (open_checkout_limit within open_checkout_minutes). Allowed ones count. Errors: invalid_argument, unknown_user, unknown_pack.';
revoke all on function public.begin_checkout(text, text) from public, anon, authenticated;
grant execute on function public.begin_checkout(text, text) to service_role;

-- ---------------------------------------------------------------------------------------------------------------
-- Console: quarantined events
-- ---------------------------------------------------------------------------------------------------------------

create function public.console_stripe_events(p_limit int default 100, p_before timestamptz default null) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
begin
  if p_limit is null or p_limit not between 1 and 1000 then
    perform governance.fail('PT400', 'invalid_argument', 'p_limit is a whole number from 1 to 1000');
  end if;
  return jsonb_build_object(
    'waiting', (select count(*) from governance.webhook_events_processed w where w.status = 'quarantined'),
    'events', (select coalesce(jsonb_agg(jsonb_build_object('event_id', e.event_id, 'event_type', e.event_type, 'reason', e.reason,
        'event_created_at', e.event_created_at, 'received_at', e.received_at, 'attempts', e.attempts, 'payload', e.payload,
        'charge_id', p.charge_id, 'payment_intent_id', p.payment_intent_id) order by e.received_at desc, e.event_id), '[]')
      from (select * from governance.webhook_events_processed w where w.status = 'quarantined' and (p_before is null or w.received_at < p_before)
        order by w.received_at desc limit p_limit) e left join governance.stripe_payments p using (payment_id)));
end
$$;
comment on function public.console_stripe_events(int, timestamptz) is 'Stripe events that wait for a person, newest first, with why. Errors: invalid_argument.';
revoke all on function public.console_stripe_events(int, timestamptz) from public, anon, authenticated;
grant execute on function public.console_stripe_events(int, timestamptz) to service_role;

create function public.console_release_stripe_event(
  p_command_id text, p_event_id text, p_operator text, p_reason text, p_user_id text default null, p_pack_id text default null, p_tokens bigint default null
) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_known governance.webhook_events_processed;
  v_pay governance.stripe_payments;
  v_object jsonb;
  v_metadata jsonb;
  v_user_id text;
  v_pack_id text;
  v_tokens bigint;
  v_amount bigint;
  v_currency text;
  v_now timestamptz;
  v_answer jsonb;
  v_effects jsonb;
begin
  perform governance.check_id('p_command_id', p_command_id);
  perform governance.check_id('p_event_id', p_event_id);
  perform governance.check_id('p_operator', p_operator);
  perform governance.check_id('p_reason', p_reason, 2000);
  perform governance.check_optional('p_user_id', p_user_id, 255);
  perform governance.check_optional('p_pack_id', p_pack_id, 255);
  if p_tokens not between 1 and 100000000 then
    perform governance.fail('PT400', 'invalid_argument', 'p_tokens is a whole number from 1 to 100,000,000');
  end if;
  v_answer := governance.begin_command('release_stripe_event', p_command_id, row(p_event_id, p_operator, p_reason, p_user_id, p_pack_id, p_tokens)::text);
  if v_answer is not null then return v_answer; end if;
  select * into v_known from governance.webhook_events_processed w where w.event_id = p_event_id for update;
  if v_known.event_id is null then
    perform governance.fail('PT404', 'not_found', 'There is no such event');
  elsif v_known.status <> 'quarantined' then
    perform governance.fail('PT409', 'already_decided', format('This event is %s already', v_known.status));
  end if;
  v_now := governance.now();
  v_object := governance.stripe_object(v_known.payload #> '{data,object}');
  -- What was wrong may have been put right: a user made, a plan named, a pack added.
  v_answer := governance.take_event(p_event_id, v_known.payload, v_now);
  if v_answer ->> 'status' = 'quarantined' then
    if v_known.event_type not in ('checkout.session.completed', 'checkout.session.async_payment_succeeded', 'payment_intent.succeeded') then
      perform governance.fail('PT409', 'still_quarantined', format('It still cannot be acted on (%s): put right what is missing, or dismiss it', v_answer ->> 'reason'));
    end if;
    v_metadata := governance.stripe_object(v_object -> 'metadata');
    v_user_id := coalesce(p_user_id, governance.metadata_text(v_metadata, 'user_id', 'userId', 'userid'), governance.stripe_id(v_object -> 'client_reference_id'));
    v_pack_id := coalesce(p_pack_id, governance.metadata_text(v_metadata, 'pack_id', 'packId', 'packid'));
    v_tokens := coalesce(p_tokens, (governance.pack_at(v_pack_id, v_now)).tokens);
    v_amount := coalesce(governance.stripe_whole(v_object -> 'amount_total'), governance.stripe_whole(v_object -> 'amount_received'), governance.stripe_whole(v_object -> 'amount'));
    v_currency := governance.stripe_currency(v_object -> 'currency');
    if coalesce(v_object ->> 'payment_status', 'paid') not in ('paid', 'no_payment_required') then
      perform governance.fail('PT409', 'not_paid', 'Stripe has not said that this was paid');
    elsif v_tokens is null then
      perform governance.fail('PT400', 'invalid_argument', 'p_tokens or a known p_pack_id is needed: the event names none');
    elsif v_user_id is null or not exists (select from governance.accounts a where a.user_id = v_user_id) then
      perform governance.fail('PT404', 'unknown_user', 'p_user_id is needed: the event names no known user');
    elsif v_amount is null or v_amount < 0 or v_currency is null then
      perform governance.fail('PT409', 'still_quarantined', 'The event tells no amount that was paid: dismiss it, and book by reconciliation');
    end if;
    v_pay := governance.note_payment(v_now, coalesce(governance.stripe_id(v_object -> 'payment_intent'), case when v_known.event_type like 'payment_intent%' then governance.stripe_id(v_object -> 'id') end),
      null, case when v_known.event_type like 'checkout%' then governance.stripe_id(v_object -> 'id') end, governance.stripe_id(v_object -> 'invoice'));
    if exists (select from governance.stripe_lots s where s.payment_id = v_pay.payment_id) then
      perform governance.fail('PT409', 'already_granted', 'This payment was granted by another event: dismiss this one');
    end if;
    v_effects := governance.grant_pack(v_now, v_pay.payment_id, v_user_id, coalesce(v_pack_id, 'custom'), v_tokens, v_amount, v_currency,
      coalesce(v_known.event_created_at, v_now), p_event_id) || governance.settle_payment(v_pay.payment_id, v_now, p_event_id);
    update governance.webhook_events_processed w set status = 'processed', effects = v_effects, payload = null, payment_id = v_pay.payment_id
    where w.event_id = p_event_id;
    v_answer := jsonb_build_object('event_id', p_event_id, 'status', 'processed', 'reason', 'released', 'effects', v_effects);
  end if;
  update governance.webhook_events_processed w set decided_at = v_now, decided_by = p_operator, decided_reason = p_reason where w.event_id = p_event_id;
  insert into governance.audit_log (created_at, operator, action, account_id, reason, command_id, details)
  select v_now, p_operator, 'release_stripe_event', p.account_id, p_reason, p_command_id,
    jsonb_build_object('event_id', p_event_id, 'was', v_known.reason, 'effects', v_answer -> 'effects')
  from governance.webhook_events_processed w left join governance.stripe_payments p using (payment_id) where w.event_id = p_event_id;
  return governance.end_command('release_stripe_event', p_command_id, v_answer);
end
$$;
comment on function public.console_release_stripe_event(text, text, text, text, text, text, bigint) is
  'A person lets a quarantined event through: as it stands if what was missing is there now, else a paid order with the user, pack or tokens given. Audited. Errors: invalid_argument, not_found, already_decided, still_quarantined, not_paid, already_granted, unknown_user, idempotency_conflict.';
revoke all on function public.console_release_stripe_event(text, text, text, text, text, text, bigint) from public, anon, authenticated;
grant execute on function public.console_release_stripe_event(text, text, text, text, text, text, bigint) to service_role;

create function public.console_dismiss_stripe_event(p_command_id text, p_event_id text, p_operator text, p_reason text) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_known governance.webhook_events_processed;
  v_now timestamptz;
  v_answer jsonb;
begin
  perform governance.check_id('p_command_id', p_command_id);
  perform governance.check_id('p_event_id', p_event_id);
  perform governance.check_id('p_operator', p_operator);
  perform governance.check_id('p_reason', p_reason, 2000);
  v_answer := governance.begin_command('dismiss_stripe_event', p_command_id, row(p_event_id, p_operator, p_reason)::text);
  if v_answer is not null then return v_answer; end if;
  v_now := governance.now();
  update governance.webhook_events_processed w set status = 'dismissed', payload = null, decided_at = v_now, decided_by = p_operator, decided_reason = p_reason
  where w.event_id = p_event_id and w.status = 'quarantined' returning * into v_known;
  if v_known.event_id is null then
    perform governance.fail('PT404', 'not_found', 'There is no such event waiting');
  end if;
  insert into governance.audit_log (created_at, operator, action, reason, command_id, details)
  values (v_now, p_operator, 'dismiss_stripe_event', p_reason, p_command_id, jsonb_build_object('event_id', p_event_id, 'was', v_known.reason));
  return governance.end_command('dismiss_stripe_event', p_command_id, jsonb_build_object('event_id', p_event_id, 'status', 'dismissed'));
end
$$;
comment on function public.console_dismiss_stripe_event(text, text, text, text) is 'A person sets a quarantined event aside: nothing is credited. Audited. Errors: invalid_argument, not_found, idempotency_conflict.';
revoke all on function public.console_dismiss_stripe_event(text, text, text, text) from public, anon, authenticated;
grant execute on function public.console_dismiss_stripe_event(text, text, text, text) to service_role;

-- ---------------------------------------------------------------------------------------------------------------
-- Console: the ledger's side of a reconciliation
-- ---------------------------------------------------------------------------------------------------------------

create function governance.adopt_purchases() returns bigint
  language plpgsql set search_path = '' as $$
declare
  v_lot record;
  v_entry record;
  v_pay governance.stripe_payments;
  v_known governance.stripe_lots;
  v_owed bigint;
  v_tokens bigint;
  v_type text;
  v_count bigint := 0;
begin
  for v_lot in
    select l.*, t.transaction_id, t.created_at as granted_at
    from governance.lots l
    join lateral (select x.transaction_id, x.created_at from governance.token_transactions x
      where x.account_id = l.account_id and x.transaction_type in ('purchase', 'subscription_grant') and x.lot_changes[1] = l.lot_id and x.amount > 0
      order by x.transaction_id limit 1) t on true
    where coalesce(l.stripe_charge_id, l.stripe_payment_intent_id, l.stripe_checkout_session_id) is not null and l.amount_minor is not null
      and not exists (select from governance.stripe_lots s where s.lot_id = l.lot_id)
    order by l.lot_id
  loop
    v_pay := governance.note_payment(v_lot.granted_at, v_lot.stripe_payment_intent_id, v_lot.stripe_charge_id, v_lot.stripe_checkout_session_id, p_livemode => true);
    update governance.stripe_payments p set account_id = v_lot.account_id, amount_minor = v_lot.amount_minor, currency = v_lot.currency, paid_at = v_lot.granted_at
    where p.payment_id = v_pay.payment_id;
    insert into governance.stripe_lots (lot_id, payment_id, tokens) values (v_lot.lot_id, v_pay.payment_id, v_lot.granted) returning * into v_known;
    perform governance.record_purchase(v_lot.transaction_id, 'grant', v_lot.lot_id, v_pay.payment_id, v_lot.granted, 0, v_lot.amount_minor, v_lot.currency,
      p_line_id => v_lot.stripe_invoice_line_id);
    -- Refunds and disputes that were booked before this bookkeeping was there, told by their entries.
    for v_entry in
      select t.*, lag(t.debt_after, 1, 0::bigint) over (order by t.transaction_id) as debt_before
      from governance.token_transactions t where t.account_id = v_lot.account_id order by t.transaction_id
    loop
      continue when v_entry.transaction_id <= v_lot.transaction_id or v_entry.transaction_type not in ('refund', 'reversal')
        or not (v_lot.lot_id = any (v_entry.lot_changes) or v_entry.description like '%' || v_lot.stripe_charge_id);
      v_owed := greatest(v_entry.debt_after - v_entry.debt_before, 0);
      v_type := case when v_entry.transaction_type = 'refund' then 'refund' when v_entry.description like 'Dispute lost%' then 'dispute_clawback'
        when v_entry.amount > 0 then 'dispute_release' else 'dispute_hold' end;
      v_tokens := v_entry.amount - case v_type when 'refund' then v_owed else 0 end;
      if v_type = 'refund' then
        v_known.reversed := v_known.reversed - v_tokens;
        v_known.owed := v_known.owed + v_owed;
        insert into governance.stripe_refunds (refund_id, payment_id, amount_minor, state, told_at)
        select v_entry.reference, v_pay.payment_id, case when v_known.reversed >= v_lot.granted then v_lot.amount_minor
          else ceil(v_lot.amount_minor::numeric * -v_tokens / v_lot.granted)::bigint end, 2, v_entry.created_at
        where v_entry.reference is not null on conflict do nothing;
      elsif v_type = 'dispute_clawback' then
        -- What was frozen is taken with it, though it left the balance before.
        v_tokens := -(v_lot.granted - v_known.reversed);
        v_known.clawed := v_lot.granted - v_known.reversed;
        v_known.owed := v_known.owed + v_owed;
      end if;
      v_known.dispute_state := case v_type when 'dispute_hold' then 'held' when 'dispute_release' then 'released' when 'dispute_clawback' then 'clawed' else v_known.dispute_state end;
      if v_type like 'dispute%' and v_entry.reference is not null then
        insert into governance.stripe_disputes as d (dispute_id, payment_id, amount_minor, status, stage, is_lost, told_at)
        values (v_entry.reference, v_pay.payment_id, v_lot.amount_minor,
          case v_type when 'dispute_hold' then 'needs_response' when 'dispute_release' then 'won' else 'lost' end,
          case v_type when 'dispute_hold' then 2 else 3 end, v_type = 'dispute_clawback', v_entry.created_at)
        on conflict (dispute_id) do update set status = excluded.status, stage = excluded.stage, is_lost = excluded.is_lost, told_at = excluded.told_at;
      end if;
      if not exists (select from governance.purchase_records r where r.transaction_id = v_entry.transaction_id) then
        perform governance.record_purchase(v_entry.transaction_id, v_type, v_lot.lot_id, v_pay.payment_id, v_tokens, v_owed, null, v_lot.currency,
          case v_type when 'refund' then v_entry.reference end, case when v_type like 'dispute%' then v_entry.reference end);
      end if;
    end loop;
    update governance.stripe_lots s set reversed = v_known.reversed, clawed = v_known.clawed, owed = v_known.owed, dispute_state = v_known.dispute_state
    where s.lot_id = v_lot.lot_id;
    v_count := v_count + 1;
  end loop;
  return v_count;
end
$$;
comment on function governance.adopt_purchases() is
  'Takes lots that were loaded with Stripe''s ids, not granted by process_stripe_event, into the books of payments: for imports and sample data. Safe to run twice; answers how many lots.';

create function public.console_ledger_purchases_since(
  p_cursor text default null, p_limit int default 5000, p_from timestamptz default null, p_to timestamptz default null
) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
declare
  v_records jsonb;
  v_count int;
  v_last bigint;
begin
  if p_limit is null or p_limit not between 1 and 20000 then
    perform governance.fail('PT400', 'invalid_argument', 'p_limit is a whole number from 1 to 20000');
  elsif p_cursor is not null and p_cursor !~ '^[0-9]{1,18}$' then
    perform governance.fail('PT400', 'invalid_argument', 'p_cursor is a next_cursor as it was answered');
  elsif not isfinite(p_from) or not isfinite(p_to) or p_from >= p_to or p_to > '9999-01-01' then
    perform governance.fail('PT400', 'invalid_argument', 'p_from must come before p_to');
  end if;
  with page as (
    select r.* from governance.purchase_records r
    where r.transaction_id > coalesce(p_cursor, '0')::bigint
      -- All that ever happened to a lot that was touched in the period, or within the three days after it for which
      -- Stripe delivers again: the grant may be late, and an export tells refunds up to the day it was made.
      and ((p_from is null and p_to is null) or exists (select from governance.purchase_records x where x.lot_id = r.lot_id
        and (p_from is null or x.created_at >= p_from) and (p_to is null or x.created_at < p_to + interval '3 days')))
    order by r.transaction_id limit p_limit
  )
  select coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
      'transaction_id', r.transaction_id, 'record_type', r.record_type, 'user_id', a.user_id, 'tokens', r.tokens, 'created_at', r.created_at,
      'lot_id', r.lot_id, 'grant_kind', case l.kind when 'purchased' then 'purchase' else l.kind end,
      'debt_tokens', nullif(r.debt_tokens, 0), 'tokens_remaining', case r.record_type when 'grant' then l.remaining + l.frozen end,
      'amount_minor', r.amount_minor, 'currency', r.currency, 'pack_id', l.pack_id, 'charge_id', p.charge_id, 'payment_intent_id', p.payment_intent_id,
      'checkout_session_id', p.checkout_session_id, 'order_id', p.order_id, 'invoice_id', p.invoice_id, 'invoice_line_id', r.invoice_line_id,
      'period_start', r.period_start, 'period_end', r.period_end, 'customer_id', p.customer_id, 'refund_id', r.refund_id, 'dispute_id', r.dispute_id,
      'livemode', p.livemode, 'difference_id', r.difference_id)) order by r.transaction_id), '[]'), count(*), max(r.transaction_id)
  into v_records, v_count, v_last
  from page r
  join governance.accounts a on a.account_id = r.account_id
  join governance.lots l on l.lot_id = r.lot_id
  left join governance.stripe_lots s on s.lot_id = r.lot_id
  left join governance.stripe_payments p on p.payment_id = coalesce(s.payment_id, r.payment_id);
  return jsonb_build_object('records', v_records, 'next_cursor', coalesce(v_last::text, p_cursor), 'has_more', v_count = p_limit);
end
$$;
comment on function public.console_ledger_purchases_since(text, int, timestamptz, timestamptz) is
  'The ledger''s records of payments (LedgerRecord of shared/governance/reconciliation) page by page: records, next_cursor, has_more. A run starts without a cursor and reads to the end. A period brings all records, to this day, of the lots that were touched in it or within three days after. Errors: invalid_argument.';
revoke all on function public.console_ledger_purchases_since(text, int, timestamptz, timestamptz) from public, anon, authenticated;
grant execute on function public.console_ledger_purchases_since(text, int, timestamptz, timestamptz) to service_role;

create function public.console_pack_prices() returns jsonb
  language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(jsonb_build_object('pack_id', p.pack_id, 'tokens', p.tokens, 'price_minor', p.price_minor, 'currency', p.currency,
    'valid_from', greatest(p.effective_from, '1970-01-01T00:00:00Z')) order by p.pack_id, p.effective_from), '[]')
  from governance.packs p
$$;
comment on function public.console_pack_prices() is 'Every pack with its price from each moment on, retired ones too.';
revoke all on function public.console_pack_prices() from public, anon, authenticated;
grant execute on function public.console_pack_prices() to service_role;

create function public.console_token_roll_forward(p_from timestamptz, p_to timestamptz) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
declare
  v_lines jsonb;
begin
  if p_from is null or p_to is null or not isfinite(p_from) or not isfinite(p_to) or p_from >= p_to then
    perform governance.fail('PT400', 'invalid_argument', 'p_from must come before p_to');
  end if;
  with moves as (
    select t.lot_changes[n * 2 - 1] as lot_id, t.lot_changes[n * 2] as tokens, t.transaction_type as type, t.created_at
    from governance.token_transactions t cross join lateral generate_series(1, cardinality(t.lot_changes) / 2) n
  ), by_lot as (
    select l.lot_id, case l.kind when 'purchased' then 'purchased' else l.kind end as kind, l.currency, l.amount_minor, l.granted,
      l.created_at >= p_from and l.created_at < p_to as is_new, l.created_at < p_to as is_there, l.remaining,
      coalesce(sum(m.tokens) filter (where m.created_at < p_from), 0)::bigint as opening,
      coalesce(sum(m.tokens) filter (where m.created_at < p_to), 0)::bigint as closing,
      coalesce(sum(m.tokens) filter (where m.created_at >= p_to), 0)::bigint as later,
      coalesce(sum(m.tokens) filter (where i.inside and m.type in ('purchase', 'subscription_grant')), 0)::bigint as purchased,
      coalesce(sum(m.tokens) filter (where i.inside and m.type = 'bonus'), 0)::bigint as promotional,
      coalesce(sum(m.tokens) filter (where i.inside and m.type = 'reversal' and m.tokens > 0), 0)::bigint as restored,
      coalesce(-sum(m.tokens) filter (where i.inside and m.type in ('usage', 'debt_recovery')), 0)::bigint as consumed,
      coalesce(-sum(m.tokens) filter (where i.inside and m.type = 'refund'), 0)::bigint as refunded,
      coalesce(-sum(m.tokens) filter (where i.inside and m.type = 'reversal' and m.tokens < 0), 0)::bigint as disputed,
      coalesce(-sum(m.tokens) filter (where i.inside and m.type = 'expiry'), 0)::bigint as expired,
      coalesce(sum(m.tokens) filter (where i.inside and m.type = 'adjustment'), 0)::bigint as adjusted
    from moves m cross join lateral (select m.created_at >= p_from and m.created_at < p_to as inside) i
    join governance.lots l using (lot_id)
    group by l.lot_id
  ), priced as (
    select b.*,
      case when b.amount_minor is null then 0 else governance.pro_rata(b.amount_minor, least(b.opening, b.granted), b.granted) end as deferred_opening,
      case when b.amount_minor is null then 0 else governance.pro_rata(b.amount_minor, least(b.closing, b.granted), b.granted) end as deferred_closing,
      case when b.amount_minor is null then 0 else governance.pro_rata(b.amount_minor, least(greatest(b.refunded + b.disputed - b.restored, 0), b.granted), b.granted) end as given_back
    from by_lot b
  )
  select coalesce(jsonb_agg(jsonb_build_object('kind', s.kind, 'currency', s.currency,
    'opening_tokens', s.opening, 'purchased_tokens', s.purchased, 'promotional_tokens', s.promotional, 'restored_tokens', s.restored,
    'consumed_tokens', s.consumed, 'refunded_tokens', s.refunded, 'disputed_tokens', s.disputed, 'expired_tokens', s.expired, 'adjusted_tokens', s.adjusted,
    'closing_tokens', s.closing, 'ledger_tokens', s.ledger, 'opening_deferred_minor', s.deferred_opening, 'sold_minor', s.sold,
    'recognised_minor', s.deferred_opening + s.sold - s.given_back - s.deferred_closing, 'refunded_minor', s.given_back, 'closing_deferred_minor', s.deferred_closing)
    order by s.kind, s.currency nulls last), '[]')
  into v_lines
  from (
    select p.kind, p.currency, sum(p.opening)::bigint as opening, sum(p.purchased)::bigint as purchased, sum(p.promotional)::bigint as promotional,
      sum(p.restored)::bigint as restored, sum(p.consumed)::bigint as consumed, sum(p.refunded)::bigint as refunded, sum(p.disputed)::bigint as disputed,
      sum(p.expired)::bigint as expired, sum(p.adjusted)::bigint as adjusted, sum(p.closing)::bigint as closing,
      -- The lots as they stand, less what moved since: not a sum of the same movements.
      sum(p.remaining - p.later)::bigint as ledger, sum(p.deferred_opening)::bigint as deferred_opening, sum(p.deferred_closing)::bigint as deferred_closing,
      sum(p.given_back)::bigint as given_back, sum(case when p.is_new then coalesce(p.amount_minor, 0) else 0 end)::bigint as sold
    from priced p where p.is_there group by p.kind, p.currency) s;
  return v_lines;
end
$$;
comment on function public.console_token_roll_forward(timestamptz, timestamptz) is
  'Tokens from opening to closing by kind and currency, with their money as deferred revenue (RollForwardLine of shared/governance/reconciliation). Frozen tokens are out of it until thawed. Errors: invalid_argument.';
revoke all on function public.console_token_roll_forward(timestamptz, timestamptz) from public, anon, authenticated;
grant execute on function public.console_token_roll_forward(timestamptz, timestamptz) to service_role;

-- ---------------------------------------------------------------------------------------------------------------
-- Console: differences, corrections, closed periods
-- ---------------------------------------------------------------------------------------------------------------

create table governance.reconciliation_runs (
  run_id text primary key check (run_id <> '' and length(run_id) <= 255),
  period_from timestamptz not null,
  period_to timestamptz not null check (period_to > period_from),
  tied_out boolean not null,
  -- The report without its differences.
  report jsonb not null,
  created_at timestamptz not null,
  created_by text not null
);
create index reconciliation_runs_time on governance.reconciliation_runs (created_at desc);
comment on table governance.reconciliation_runs is 'Reconciliations that were kept.';

create table governance.reconciliation_cases (
  difference_id text primary key check (difference_id <> '' and length(difference_id) <= 512),
  class text not null,
  status text not null default 'open' check (status in ('open', 'investigating', 'proposed', 'approved', 'posted', 'verified', 'carried_forward', 'written_off')),
  amount_minor bigint not null default 0,
  currency text,
  tokens bigint not null default 0,
  occurred_at timestamptz,
  period_from timestamptz not null,
  period_to timestamptz not null,
  first_run_id text not null,
  last_run_id text not null,
  -- What would be posted: the report's proposal, or the proposer's own.
  correction jsonb not null,
  assigned_to text,
  proposed_by text,
  approved_by text,
  posted_at timestamptz,
  effects jsonb,
  history jsonb not null default '[]',
  updated_at timestamptz not null
);
create index reconciliation_cases_status on governance.reconciliation_cases (status, updated_at desc);
comment on table governance.reconciliation_cases is 'Differences as finance works on them: open → investigating → proposed → approved → posted → verified; or carried forward, or written off.';

create table governance.reconciliation_periods (
  period_from timestamptz primary key,
  period_to timestamptz not null check (period_to > period_from),
  run_id text not null references governance.reconciliation_runs (run_id),
  -- SHA-256 over what was closed: run, inputs by their hashes, cases.
  seal bytea not null,
  sealed jsonb not null,
  closed_at timestamptz not null,
  closed_by text not null,
  sign_off text
);
create trigger reconciliation_periods_append_only before update or delete or truncate on governance.reconciliation_periods
  for each statement execute function governance.refuse_change();
comment on table governance.reconciliation_periods is 'Closed periods with their seal; append-only. What comes late is posted in the period in which it comes.';

create function governance.case_json(c governance.reconciliation_cases) returns jsonb
  language sql stable as $$
  select to_jsonb(c)
$$;
comment on function governance.case_json(governance.reconciliation_cases) is 'A case as the console reads it.';

create function public.console_keep_reconciliation(p_run_id text, p_operator text, p_report jsonb, p_differences jsonb default '[]', p_is_last boolean default true) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_now timestamptz := governance.now();
  v_from timestamptz;
  v_to timestamptz;
  v_kept bigint;
  v_verified bigint := 0;
begin
  perform governance.check_id('p_run_id', p_run_id);
  perform governance.check_id('p_operator', p_operator);
  if p_report is null or jsonb_typeof(p_report) <> 'object' or jsonb_typeof(p_report -> 'tied_out') is distinct from 'boolean' then
    perform governance.fail('PT400', 'invalid_argument', 'p_report is a report (without its differences)');
  elsif p_differences is null or jsonb_typeof(p_differences) <> 'array' or jsonb_array_length(p_differences) > 5000 then
    perform governance.fail('PT400', 'invalid_argument', 'p_differences is a list of at most 5,000: send the others in further calls, the last with p_is_last');
  elsif exists (select from jsonb_array_elements(p_differences) d where jsonb_typeof(d) <> 'object' or length(coalesce(d ->> 'difference_id', '')) not between 1 and 512
      or coalesce(d ->> 'class', '') = '' or jsonb_typeof(d -> 'correction') is distinct from 'object') then
    perform governance.fail('PT400', 'invalid_argument', 'Each difference needs difference_id, class and correction');
  end if;
  begin
    v_from := (p_report #>> '{period,from}')::timestamptz;
    v_to := (p_report #>> '{period,to}')::timestamptz;
  exception when data_exception then
    perform governance.fail('PT400', 'invalid_argument', 'p_report.period is not one');
  end;
  if v_from is null or v_to is null or v_from >= v_to then
    perform governance.fail('PT400', 'invalid_argument', 'p_report.period is not one');
  end if;
  insert into governance.reconciliation_runs as r (run_id, period_from, period_to, tied_out, report, created_at, created_by)
  values (p_run_id, v_from, v_to, (p_report ->> 'tied_out')::boolean, p_report - 'differences', v_now, p_operator)
  on conflict (run_id) do nothing;
  with kept as (
    insert into governance.reconciliation_cases as c (difference_id, class, amount_minor, currency, tokens, occurred_at, period_from, period_to,
      first_run_id, last_run_id, correction, updated_at)
    select d ->> 'difference_id', d ->> 'class', coalesce(governance.stripe_whole(d -> 'amount_minor'), 0), d ->> 'currency',
      coalesce(governance.stripe_whole(d -> 'tokens'), 0), case when d ->> 'occurred_at' ~ '^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d' then (d ->> 'occurred_at')::timestamptz end,
      v_from, v_to, p_run_id, p_run_id, d -> 'correction', v_now
    from jsonb_array_elements(p_differences) d
    on conflict (difference_id) do update set
      last_run_id = excluded.last_run_id, amount_minor = excluded.amount_minor, tokens = excluded.tokens, updated_at = v_now,
      correction = case when c.status in ('open', 'investigating', 'posted', 'verified') then excluded.correction else c.correction end,
      -- Posted and still there: it did not help.
      status = case when c.status in ('posted', 'verified') then 'open' else c.status end,
      history = case when c.status in ('posted', 'verified')
        then c.history || jsonb_build_object('at', v_now, 'by', p_operator, 'action', 'reopened', 'reason', 'Still there in run ' || p_run_id) else c.history end
    returning 1)
  select count(*) into v_kept from kept;
  if p_is_last then
    with verified as (
      update governance.reconciliation_cases c set status = 'verified', updated_at = v_now,
        history = c.history || jsonb_build_object('at', v_now, 'by', p_operator, 'action', 'verified', 'reason', 'Gone in run ' || p_run_id)
      where c.status = 'posted' and c.period_from >= v_from and c.period_to <= v_to and c.last_run_id <> p_run_id
      returning 1)
    select count(*) into v_verified from verified;
  end if;
  return jsonb_build_object('run_id', p_run_id, 'kept', v_kept, 'verified', v_verified);
end
$$;
comment on function public.console_keep_reconciliation(text, text, jsonb, jsonb, boolean) is
  'Keeps a run and its differences as cases; posted cases that are gone are verified, those still there open again. Safe to repeat. Errors: invalid_argument.';
revoke all on function public.console_keep_reconciliation(text, text, jsonb, jsonb, boolean) from public, anon, authenticated;
grant execute on function public.console_keep_reconciliation(text, text, jsonb, jsonb, boolean) to service_role;

create function public.console_reconciliation_cases(p_status text[] default null, p_difference_ids text[] default null, p_limit int default 500, p_after text default null) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
begin
  if p_limit is null or p_limit not between 1 and 5000 then
    perform governance.fail('PT400', 'invalid_argument', 'p_limit is a whole number from 1 to 5000');
  end if;
  return jsonb_build_object(
    'counts', (select coalesce(jsonb_object_agg(s.status, s.n), '{}') from (select c.status, count(*) as n from governance.reconciliation_cases c group by 1) s),
    'cases', (select coalesce(jsonb_agg(governance.case_json(c) order by c.difference_id), '[]') from (
      select * from governance.reconciliation_cases x
      where (p_status is null or x.status = any (p_status)) and (p_difference_ids is null or x.difference_id = any (p_difference_ids))
        and (p_after is null or x.difference_id > p_after)
      order by x.difference_id limit p_limit) c));
end
$$;
comment on function public.console_reconciliation_cases(text[], text[], int, text) is 'Cases by status or id, in order of id; p_after is the last id of the page before. Errors: invalid_argument.';
revoke all on function public.console_reconciliation_cases(text[], text[], int, text) from public, anon, authenticated;
grant execute on function public.console_reconciliation_cases(text[], text[], int, text) to service_role;

create function governance.needs_approver(c governance.reconciliation_cases) returns boolean
  language sql stable set search_path = '' as $$
  select abs(coalesce(governance.stripe_whole(c.correction -> 'tokens'), c.tokens)) > governance.setting_number('approval_above_tokens', 1000000)
    or abs(c.amount_minor) > governance.setting_number('approval_above_minor', 10000)
$$;
comment on function governance.needs_approver(governance.reconciliation_cases) is 'Whether a second person must approve: above the settings approval_above_tokens and approval_above_minor.';

create function public.console_case_action(
  p_command_id text, p_difference_ids text[], p_action text, p_operator text, p_reason text default null, p_details jsonb default '{}'
) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_now timestamptz := governance.now();
  v_answer jsonb;
  v_id text;
  c governance.reconciliation_cases;
  v_status text;
  v_cases jsonb := '[]';
begin
  perform governance.check_id('p_command_id', p_command_id);
  perform governance.check_id('p_operator', p_operator);
  perform governance.check_optional('p_reason', p_reason, 2000);
  perform governance.check_metadata('p_details', p_details);
  if p_action is null or p_action not in ('investigate', 'assign', 'note', 'propose', 'approve', 'carry_forward', 'write_off', 'reopen') then
    perform governance.fail('PT400', 'invalid_argument', 'p_action is one of investigate, assign, note, propose, approve, carry_forward, write_off, reopen');
  elsif p_difference_ids is null or cardinality(p_difference_ids) not between 1 and 1000 then
    perform governance.fail('PT400', 'invalid_argument', 'p_difference_ids are 1 to 1,000');
  elsif p_action in ('note', 'write_off', 'reopen') and coalesce(btrim(p_reason), '') = '' then
    perform governance.fail('PT400', 'invalid_argument', 'p_reason is needed');
  end if;
  v_answer := governance.begin_command('case_action', p_command_id, row(p_difference_ids, p_action, p_operator, p_reason, p_details)::text);
  if v_answer is not null then return v_answer; end if;
  for v_id in select distinct x from unnest(p_difference_ids) x order by 1 loop
    select * into c from governance.reconciliation_cases x where x.difference_id = v_id for update;
    if c.difference_id is null then
      perform governance.fail('PT404', 'not_found', format('There is no case "%s"', left(v_id, 100)));
    elsif c.status in ('posted', 'verified') and p_action not in ('note', 'assign') then
      perform governance.fail('PT409', 'already_decided', format('%s is %s already', left(v_id, 100), c.status));
    elsif p_action = 'approve' and c.status <> 'proposed' then
      perform governance.fail('PT409', 'not_proposed', format('%s is %s: only what was proposed can be approved', left(v_id, 100), c.status));
    elsif p_action = 'approve' and c.proposed_by = p_operator then
      perform governance.fail('PT403', 'same_person', 'Somebody else must approve what you proposed');
    end if;
    v_status := case p_action when 'investigate' then 'investigating' when 'propose' then 'proposed' when 'approve' then 'approved'
      when 'carry_forward' then 'carried_forward' when 'write_off' then 'written_off' when 'reopen' then 'open' else c.status end;
    update governance.reconciliation_cases x set
      status = v_status, updated_at = v_now,
      assigned_to = case p_action when 'assign' then p_details ->> 'assigned_to' else x.assigned_to end,
      -- Whoever proposes may name what the report could not: the user, the tokens, another action.
      correction = case p_action when 'propose' then x.correction || governance.stripe_object(p_details -> 'correction') else x.correction end,
      proposed_by = case p_action when 'propose' then p_operator when 'reopen' then null else x.proposed_by end,
      approved_by = case p_action when 'approve' then p_operator when 'propose' then null when 'reopen' then null else x.approved_by end,
      history = x.history || jsonb_strip_nulls(jsonb_build_object('at', v_now, 'by', p_operator, 'action', p_action, 'reason', p_reason, 'details', nullif(p_details, '{}')))
    where x.difference_id = v_id returning * into c;
    v_cases := v_cases || governance.case_json(c);
  end loop;
  insert into governance.audit_log (created_at, operator, action, reason, command_id, details)
  values (v_now, p_operator, 'case_' || p_action, p_reason, p_command_id, jsonb_build_object('difference_ids', to_jsonb(p_difference_ids)));
  return governance.end_command('case_action', p_command_id, jsonb_build_object('cases', v_cases));
end
$$;
comment on function public.console_case_action(text, text[], text, text, text, jsonb) is
  'Moves cases on: investigate, assign, note, propose, approve (by somebody else), carry_forward, write_off, reopen; all of them or none. Audited. Errors: invalid_argument, not_found, already_decided, not_proposed, same_person, idempotency_conflict.';
revoke all on function public.console_case_action(text, text[], text, text, text, jsonb) from public, anon, authenticated;
grant execute on function public.console_case_action(text, text[], text, text, text, jsonb) to service_role;

create function governance.apply_correction(p_difference_id text, c jsonb, p_now timestamptz) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_action text := c ->> 'action';
  v_tokens bigint := governance.stripe_whole(c -> 'tokens');
  v_amount bigint := governance.stripe_whole(c -> 'amount_minor');
  v_currency text := governance.stripe_currency(c -> 'currency');
  v_lot_id bigint := governance.stripe_whole(c -> 'lot_id');
  v_user_id text := c ->> 'user_id';
  v_known governance.stripe_lots;
  v_lot governance.lots;
  v_pay governance.stripe_payments;
  v_taking governance.lot_taking;
  v_entry bigint;
  v_effects jsonb := '[]';
  v_reference text := left('correction ' || p_difference_id, 500);
  v_metadata jsonb := jsonb_build_object('difference_id', p_difference_id);
begin
  if v_action = 'grant' then
    v_pay := governance.note_payment(p_now, governance.stripe_id(c -> 'payment_intent_id'), governance.stripe_id(c -> 'charge_id'),
      governance.stripe_id(c -> 'checkout_session_id'), governance.stripe_id(c -> 'invoice_id'), governance.stripe_id(c -> 'customer_id'));
    if coalesce(v_pay.payment_intent_id, v_pay.charge_id, v_pay.checkout_session_id, v_pay.invoice_id) is null then
      perform governance.fail('PT400', 'invalid_argument', 'The payment has no id: a grant must be keyed on one');
    elsif exists (select from governance.stripe_lots s where s.payment_id = v_pay.payment_id) then
      perform governance.fail('PT409', 'already_granted', 'This payment has its tokens by now: run the reconciliation again');
    end if;
    if v_user_id is null then
      select a.user_id into v_user_id from governance.stripe_customers k join governance.accounts a using (account_id) where k.customer_id = c ->> 'customer_id';
    end if;
    if v_user_id is null or not exists (select from governance.accounts a where a.user_id = v_user_id) then
      perform governance.fail('PT404', 'unknown_user', 'The payment names no known user: propose again with correction.user_id');
    elsif v_tokens is null or v_tokens not between 1 and 100000000 then
      perform governance.fail('PT400', 'invalid_argument', 'correction.tokens is a whole number from 1 to 100,000,000');
    elsif v_amount is null or v_amount < 0 or v_currency is null then
      perform governance.fail('PT400', 'invalid_argument', 'correction.amount_minor and correction.currency are needed');
    end if;
    v_effects := governance.grant_pack(p_now, v_pay.payment_id, v_user_id, coalesce(c ->> 'pack_id', 'custom'), v_tokens, v_amount, v_currency,
      p_now, v_reference, p_difference_id);
    if governance.stripe_whole(c -> 'refunded_minor') > 0 then
      update governance.stripe_payments p set refunded_minor = greatest(p.refunded_minor, governance.stripe_whole(c -> 'refunded_minor')), refunded_at = p_now
      where p.payment_id = v_pay.payment_id;
    end if;
    return v_effects || governance.settle_payment(v_pay.payment_id, p_now, v_reference, p_difference_id);
  end if;

  select s.* into v_known from governance.stripe_lots s where s.lot_id = v_lot_id;
  if v_known.lot_id is null then
    perform governance.fail('PT404', 'not_found', 'The correction names no lot of a payment');
  end if;
  select * into strict v_pay from governance.stripe_payments p where p.payment_id = v_known.payment_id;
  perform governance.lock_stripe_ids(v_pay.payment_intent_id, v_pay.charge_id, v_pay.checkout_session_id, v_pay.invoice_id);
  perform governance.lock_account_id(v_pay.account_id);
  select s.* into strict v_known from governance.stripe_lots s where s.lot_id = v_lot_id;
  select l.* into strict v_lot from governance.lots l where l.lot_id = v_lot_id;
  select a.user_id into strict v_user_id from governance.accounts a where a.account_id = v_pay.account_id;

  if v_action in ('reverse', 'adjust') then
    if v_tokens is null or v_tokens = 0 or abs(v_tokens) > 100000000 then
      perform governance.fail('PT400', 'invalid_argument', 'correction.tokens is a whole number, not zero, of at most 100,000,000');
    elsif v_tokens < 0 then
      if -v_tokens > v_known.tokens - v_known.reversed - v_known.clawed then
        perform governance.fail('PT409', 'more_than_left', format('Only %s tokens of this grant are not taken back yet', v_known.tokens - v_known.reversed - v_known.clawed));
      end if;
      v_taking := governance.take_back(v_lot_id, -v_tokens, 'adjustment', p_now, v_reference, 'Correction', v_metadata);
      v_entry := v_taking.transaction_id;
      perform governance.record_purchase(v_entry, 'adjustment', v_lot_id, v_pay.payment_id, v_tokens, v_taking.debt, null, v_pay.currency, p_difference_id => p_difference_id);
    else
      update governance.lots l set granted = l.granted + v_tokens, remaining = l.remaining + v_tokens, is_open = true where l.lot_id = v_lot_id;
      v_entry := (governance.append_entry(v_pay.account_id, 'adjustment', p_now, array[v_lot_id, v_tokens],
        case v_lot.kind when 'subscription' then v_tokens else 0 end, case v_lot.kind when 'purchased' then v_tokens else 0 end,
        case v_lot.kind when 'promotional' then v_tokens else 0 end, 0, v_reference, 'Correction', v_metadata)).transaction_id;
      perform governance.record_purchase(v_entry, 'adjustment', v_lot_id, v_pay.payment_id, v_tokens, 0, null, v_pay.currency, p_difference_id => p_difference_id);
      perform governance.recover_debt(v_pay.account_id, p_now, v_reference);
    end if;
    update governance.stripe_lots s set tokens = s.tokens + v_tokens, is_void = s.is_void or s.tokens + v_tokens <= s.reversed + s.clawed where s.lot_id = v_lot_id;
    v_effects := jsonb_build_array(governance.effect('adjustment', v_user_id, v_tokens, v_entry));
  elsif v_action in ('claw_back', 'restore') then
    if governance.stripe_whole(c -> 'refunded_minor') is null then
      perform governance.fail('PT400', 'invalid_argument', 'correction.refunded_minor is needed: what Stripe says was refunded');
    end if;
    update governance.stripe_payments p set refunded_override_minor = governance.stripe_whole(c -> 'refunded_minor'),
      refunded_override_at = greatest(p_now, p.refunded_at, (select max(r.told_at) from governance.stripe_refunds r where r.payment_id = p.payment_id))
    where p.payment_id = v_pay.payment_id;
  elsif v_action in ('hold', 'release', 'finalise_dispute') then
    -- Stripe's word stands for every dispute of the payment; one that never was told is noted now.
    update governance.stripe_disputes d set told_at = greatest(d.told_at, p_now), is_reinstated = false,
      stage = case v_action when 'hold' then 2 else 3 end, is_lost = v_action = 'finalise_dispute',
      status = case v_action when 'hold' then 'needs_response' when 'release' then 'won' else 'lost' end,
      amount_minor = coalesce(nullif(governance.stripe_whole(c -> 'disputed_minor'), 0), d.amount_minor)
    where d.payment_id = v_pay.payment_id;
    if not found and v_action <> 'release' then
      insert into governance.stripe_disputes (dispute_id, payment_id, amount_minor, status, stage, is_lost, told_at)
      values (coalesce(governance.stripe_id(c -> 'dispute_id'), v_reference), v_pay.payment_id, coalesce(nullif(governance.stripe_whole(c -> 'disputed_minor'), 0), v_pay.amount_minor),
        case v_action when 'hold' then 'needs_response' else 'lost' end, case v_action when 'hold' then 2 else 3 end, v_action = 'finalise_dispute', p_now);
    elsif not found then
      insert into governance.stripe_disputes (dispute_id, payment_id, amount_minor, status, stage, told_at)
      values (coalesce(governance.stripe_id(c -> 'dispute_id'), v_reference), v_pay.payment_id, coalesce(v_pay.amount_minor, 0), 'won', 3, p_now);
    end if;
  elsif v_action = 'relabel' then
    if v_amount is null or v_amount < 0 or v_currency is null then
      perform governance.fail('PT400', 'invalid_argument', 'correction.amount_minor and correction.currency are needed');
    end if;
    update governance.lots l set amount_minor = v_amount, currency = v_currency where l.lot_id = v_lot_id;
    update governance.stripe_payments p set amount_minor = v_amount, currency = v_currency where p.payment_id = v_pay.payment_id
      and not exists (select from governance.stripe_lots s where s.payment_id = p.payment_id and s.lot_id <> v_lot_id);
    v_entry := (governance.append_entry(v_pay.account_id, 'adjustment', p_now, '{}', 0, 0, 0, 0, v_reference, 'Correction of the amount paid',
      v_metadata || jsonb_build_object('amount_minor', v_amount, 'currency', v_currency))).transaction_id;
    perform governance.record_purchase(v_entry, 'relabel', v_lot_id, v_pay.payment_id, 0, 0, v_amount, v_currency, p_difference_id => p_difference_id);
    v_effects := jsonb_build_array(governance.effect('relabel', v_user_id, 0, v_entry));
  elsif v_action = 'promotional' then
    update governance.lots l set kind = 'promotional' where l.lot_id = v_lot_id;
    update governance.stripe_lots s set is_void = true where s.lot_id = v_lot_id;
    v_entry := (governance.append_entry(v_pay.account_id, 'adjustment', p_now, array[v_lot_id, 0::bigint],
      case v_lot.kind when 'subscription' then -v_lot.remaining else 0 end, case v_lot.kind when 'purchased' then -v_lot.remaining else 0 end,
      case v_lot.kind when 'promotional' then 0 else v_lot.remaining end, 0, v_reference, 'Reclassified as promotional', v_metadata)).transaction_id;
    perform governance.record_purchase(v_entry, 'promotional', v_lot_id, v_pay.payment_id, 0, 0, null, null, p_difference_id => p_difference_id);
    v_effects := jsonb_build_array(governance.effect('promotional', v_user_id, 0, v_entry));
  else
    perform governance.fail('PT409', 'nothing_to_post', 'This correction books nothing: it is for a person');
  end if;
  return v_effects || governance.settle_payment(v_pay.payment_id, p_now, v_reference, p_difference_id);
end
$$;
comment on function governance.apply_correction(text, jsonb, timestamptz) is 'Books a correction (Correction of shared/governance/reconciliation): new entries alone, nothing is edited.';

create function public.console_post_correction(p_difference_id text, p_operator text, p_dry_run boolean default false) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_now timestamptz := governance.now();
  c governance.reconciliation_cases;
  v_effects jsonb;
begin
  perform governance.check_id('p_difference_id', p_difference_id, 512);
  perform governance.check_id('p_operator', p_operator);
  select * into c from governance.reconciliation_cases x where x.difference_id = p_difference_id for update;
  if c.difference_id is null then
    perform governance.fail('PT404', 'not_found', 'There is no such case');
  elsif c.status in ('posted', 'verified') then
    return jsonb_build_object('difference_id', p_difference_id, 'status', c.status, 'effects', c.effects, 'dry_run', false);
  elsif c.status not in ('proposed', 'approved') and not p_dry_run then
    perform governance.fail('PT409', 'not_proposed', format('This case is %s: propose its correction first', c.status));
  elsif c.status <> 'approved' and governance.needs_approver(c) and not p_dry_run then
    perform governance.fail('PT403', 'approval_needed', 'A correction of this size needs the approval of a second person');
  end if;
  if p_dry_run then
    -- Done and undone: the preview is what will happen, not a guess at it.
    begin
      v_effects := governance.apply_correction(p_difference_id, c.correction, v_now);
      raise exception using errcode = 'PT0DR', message = 'preview';
    exception when sqlstate 'PT0DR' then null;
    end;
    return jsonb_build_object('difference_id', p_difference_id, 'status', c.status, 'effects', v_effects, 'dry_run', true, 'needs_approver', governance.needs_approver(c));
  end if;
  v_effects := governance.apply_correction(p_difference_id, c.correction, v_now);
  update governance.reconciliation_cases x set status = 'posted', posted_at = v_now, effects = v_effects, updated_at = v_now,
    history = x.history || jsonb_build_object('at', v_now, 'by', p_operator, 'action', 'posted', 'details', v_effects)
  where x.difference_id = p_difference_id;
  insert into governance.audit_log (created_at, operator, action, account_id, reason, command_id, details)
  select v_now, p_operator, 'post_correction', (select a.account_id from governance.accounts a where a.user_id = v_effects #>> '{0,user_id}'),
    c.class, left(p_difference_id, 255), jsonb_build_object('difference_id', p_difference_id, 'correction', c.correction, 'effects', v_effects,
      'proposed_by', c.proposed_by, 'approved_by', c.approved_by);
  return jsonb_build_object('difference_id', p_difference_id, 'status', 'posted', 'effects', v_effects, 'dry_run', false);
end
$$;
comment on function public.console_post_correction(text, text, boolean) is
  'Books the correction of a proposed case, approved by a second person above the limit; once, however often it is called. p_dry_run answers the effects and changes nothing. Audited. Errors: invalid_argument, not_found, not_proposed, approval_needed, already_granted, unknown_user, more_than_left, nothing_to_post.';
revoke all on function public.console_post_correction(text, text, boolean) from public, anon, authenticated;
grant execute on function public.console_post_correction(text, text, boolean) to service_role;

create function public.console_close_period(p_command_id text, p_run_id text, p_operator text, p_sign_off text default null) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_now timestamptz := governance.now();
  v_answer jsonb;
  v_run governance.reconciliation_runs;
  v_open bigint;
  v_sealed jsonb;
  v_seal bytea;
begin
  perform governance.check_id('p_command_id', p_command_id);
  perform governance.check_id('p_run_id', p_run_id);
  perform governance.check_id('p_operator', p_operator);
  perform governance.check_optional('p_sign_off', p_sign_off, 2000);
  v_answer := governance.begin_command('close_period', p_command_id, row(p_run_id, p_operator, p_sign_off)::text);
  if v_answer is not null then return v_answer; end if;
  perform pg_advisory_xact_lock(7254101);
  select * into v_run from governance.reconciliation_runs r where r.run_id = p_run_id;
  if v_run.run_id is null then
    perform governance.fail('PT404', 'not_found', 'There is no such run: keep it first');
  elsif v_run.period_to > v_now then
    perform governance.fail('PT409', 'period_not_over', 'The period has not ended yet');
  elsif exists (select from governance.reconciliation_periods p where p.period_from < v_run.period_to and p.period_to > v_run.period_from) then
    perform governance.fail('PT409', 'already_closed', 'The period, or a part of it, is closed already');
  end if;
  select count(*) into v_open from governance.reconciliation_cases c
  where c.last_run_id = p_run_id and c.status not in ('verified', 'carried_forward', 'written_off') and c.class not in ('TIMING', 'FX_ROUNDING');
  if v_open > 0 then
    perform governance.fail('PT409', 'still_open', format('%s differences of this run are neither verified, carried forward nor written off', v_open));
  end if;
  v_sealed := jsonb_build_object('run_id', v_run.run_id, 'period', jsonb_build_object('from', v_run.period_from, 'to', v_run.period_to), 'report', v_run.report,
    'cases', (select coalesce(jsonb_agg(jsonb_build_object('difference_id', c.difference_id, 'class', c.class, 'status', c.status, 'amount_minor', c.amount_minor,
      'currency', c.currency, 'tokens', c.tokens, 'effects', c.effects) order by c.difference_id), '[]')
      from governance.reconciliation_cases c where c.period_from >= v_run.period_from and c.period_to <= v_run.period_to),
    'closed_at', v_now, 'closed_by', p_operator, 'sign_off', p_sign_off,
    'seal_before', (select encode(p.seal, 'hex') from governance.reconciliation_periods p order by p.period_from desc limit 1));
  v_seal := sha256(convert_to(v_sealed::text, 'UTF8'));
  insert into governance.reconciliation_periods (period_from, period_to, run_id, seal, sealed, closed_at, closed_by, sign_off)
  values (v_run.period_from, v_run.period_to, p_run_id, v_seal, v_sealed, v_now, p_operator, p_sign_off);
  insert into governance.audit_log (created_at, operator, action, reason, command_id, details)
  values (v_now, p_operator, 'close_period', p_sign_off, p_command_id, jsonb_build_object('run_id', p_run_id, 'seal', encode(v_seal, 'hex')));
  return governance.end_command('close_period', p_command_id,
    jsonb_build_object('period_from', v_run.period_from, 'period_to', v_run.period_to, 'run_id', p_run_id, 'seal', encode(v_seal, 'hex'), 'closed_at', v_now));
end
$$;
comment on function public.console_close_period(text, text, text, text) is
  'Closes the period of a kept run whose differences are all dealt with, and seals it (SHA-256 over run, input hashes, cases and the seal before). Audited. Errors: invalid_argument, not_found, period_not_over, already_closed, still_open, idempotency_conflict.';
revoke all on function public.console_close_period(text, text, text, text) from public, anon, authenticated;
grant execute on function public.console_close_period(text, text, text, text) to service_role;

create function public.console_closed_periods() returns jsonb
  language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(jsonb_build_object('period_from', p.period_from, 'period_to', p.period_to, 'run_id', p.run_id, 'seal', encode(p.seal, 'hex'),
    'is_intact', p.seal = sha256(convert_to(p.sealed::text, 'UTF8')), 'closed_at', p.closed_at, 'closed_by', p.closed_by, 'sign_off', p.sign_off) order by p.period_from desc), '[]')
  from governance.reconciliation_periods p
$$;
comment on function public.console_closed_periods() is 'Closed periods, newest first, each with its seal and whether it still fits.';
revoke all on function public.console_closed_periods() from public, anon, authenticated;
grant execute on function public.console_closed_periods() to service_role;

-- ---------------------------------------------------------------------------------------------------------------
-- Nobody reads or writes these tables directly
-- ---------------------------------------------------------------------------------------------------------------
do $$
declare
  v_table regclass;
begin
  for v_table in select c.oid::regclass from pg_catalog.pg_class c
    where c.relnamespace = 'governance'::regnamespace and c.relkind in ('r', 'p') and not c.relrowsecurity loop
    execute format('alter table %s enable row level security', v_table);
  end loop;
end
$$;
revoke all on all tables in schema governance from public;
revoke all on all sequences in schema governance from public;
revoke all on all functions in schema governance from public;
