-- Payments, refunds and disputes, and the tokens that follow them.

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
  -- The amount paid, once tokens were granted for it.
  amount_minor bigint,
  currency text,
  paid_at timestamptz,
  -- When its charge was made, where Stripe reported it long after: a bank debit succeeds days later.
  charged_at timestamptz,
  -- Largest cumulative figure that a charge reported.
  refunded_minor bigint not null default 0,
  -- Authorised, never captured, and a refund in Stripe's words before 2025-03-31.
  released_minor bigint not null default 0,
  refunded_at timestamptz,
  -- Set by a posted correction: counts until a newer refund arrives.
  refunded_override_minor bigint,
  refunded_override_at timestamptz,
  -- Its invoice is known to have sold no tokens: another thing, a fee, a plan that gives none.
  is_other_sale boolean not null default false,
  created_at timestamptz not null
) with (fillfactor = 80);

-- Also found by the beginning of an id, as it is in a mail or a ticket.
create unique index stripe_payments_intent on governance.stripe_payments (payment_intent_id text_pattern_ops)
  where payment_intent_id is not null;

create unique index stripe_payments_charge on governance.stripe_payments (charge_id text_pattern_ops)
  where charge_id is not null;

create unique index stripe_payments_session on governance.stripe_payments (checkout_session_id)
  where checkout_session_id is not null;

create unique index stripe_payments_invoice on governance.stripe_payments (invoice_id) where invoice_id is not null;

create index stripe_payments_order on governance.stripe_payments (order_id) where order_id is not null;

create index stripe_payments_account on governance.stripe_payments (account_id, payment_id)
  where account_id is not null;

create index stripe_payments_time on governance.stripe_payments ((coalesce(paid_at, created_at)), payment_id);

create index stripe_payments_customer on governance.stripe_payments (customer_id) where customer_id is not null;

create index stripe_payments_subscription on governance.stripe_payments (subscription_id)
  where subscription_id is not null;

-- Payments that a person looks for, among many that are in order.
create index stripe_payments_unowned on governance.stripe_payments (payment_id) where account_id is null;

create index stripe_payments_not_credited on governance.stripe_payments (payment_id) where amount_minor is null;

create index stripe_payments_refunded on governance.stripe_payments (payment_id) where refunded_minor > 0;

comment on table governance.stripe_payments is 'Payments at Stripe and what is known of them.';

create function governance.payment_ids(p_charge_id text, p_payment_intent_id text, p_session_id text,
  p_invoice_id text, p_order_id text) returns text
  language sql immutable parallel safe set search_path = '' as $$
  select lower(coalesce(p_charge_id, '') || E'\n' || coalesce(p_payment_intent_id, '') || E'\n'
    || coalesce(p_session_id, '') || E'\n' || coalesce(p_invoice_id, '') || E'\n' || coalesce(p_order_id, ''))
$$;
comment on function governance.payment_ids(text, text, text, text, text) is
  'The ids of a payment in small letters, each on a line of its own: any part of one is looked for in it.';

create table governance.stripe_payment_names (
  -- Mostly a PaymentIntent or a charge.
  name text primary key,
  payment_id bigint not null,
  -- Of a charge: largest cumulative refund that it reported.
  refunded_minor bigint not null default 0
);

create index stripe_payment_names_payment on governance.stripe_payment_names (payment_id);

comment on table governance.stripe_payment_names is
  'Further names of a payment: an invoice may be paid in several parts, each with a PaymentIntent and a charge.';

create table governance.stripe_invoice_payments (
  -- Its PaymentIntent, or its charge where it has none.
  name text primary key,
  amount_minor bigint not null
);

comment on table governance.stripe_invoice_payments is
  'The amount of each payment of an invoice: an invoice may be paid in several parts.';

create table governance.stripe_merged_payments (
  payment_id bigint primary key,
  merged_into bigint not null
);

create index stripe_merged_payments_into on governance.stripe_merged_payments (merged_into);

comment on table governance.stripe_merged_payments is
  'Payments that turned out to be another one: records, which are never changed, still name them.';

create table governance.stripe_invoice_numbers (
  invoice_id text primary key,
  -- As on the invoice, and so in a user's mail.
  number text not null
);

create index stripe_invoice_numbers_number on governance.stripe_invoice_numbers (number);

comment on table governance.stripe_invoice_numbers is 'Numbers of invoices that were paid, in capital letters.';

create table governance.stripe_refunds (
  refund_id text primary key,
  payment_id bigint not null references governance.stripe_payments (payment_id),
  -- The charge that it gives back: one of several where an invoice was paid in parts.
  charge_id text,
  amount_minor bigint not null check (amount_minor >= 0),
  -- 1 pending, 2 succeeded, 3 failed or canceled: it only rises.
  state smallint not null,
  reported_at timestamptz not null
);

create index stripe_refunds_payment on governance.stripe_refunds (payment_id);

comment on table governance.stripe_refunds is 'Refunds by id.';

create table governance.stripe_disputes (
  dispute_id text primary key,
  payment_id bigint not null references governance.stripe_payments (payment_id),
  -- The PaymentIntent, or the charge, that it disputes: one of several where an invoice was paid in parts.
  payment_name text,
  charge_id text,
  amount_minor bigint not null check (amount_minor >= 0),
  currency text,
  status text not null,
  -- 1 inquiry, 2 open, 3 decided: it only rises; of two decisions the later counts.
  stage smallint not null,
  is_lost boolean not null default false,
  -- The money came back before the decision.
  is_reinstated boolean not null default false,
  reported_at timestamptz not null
);

create index stripe_disputes_payment on governance.stripe_disputes (payment_id);

comment on table governance.stripe_disputes is 'Disputes by id.';

create table governance.stripe_lots (
  lot_id bigint primary key,
  payment_id bigint not null,
  -- Tokens that the payment bought, corrections included: what refunds are in proportion to.
  tokens bigint not null,
  -- Taken back for refunds, for lost disputes; and how much of both became debt because it was spent.
  reversed bigint not null default 0,
  clawed bigint not null default 0,
  owed bigint not null default 0,
  dispute_state text not null default 'none',
  -- Corrected away or reclassified: the payment no longer moves it.
  is_void boolean not null default false
) with (fillfactor = 80);

create index stripe_lots_payment on governance.stripe_lots (payment_id);

comment on table governance.stripe_lots is 'Which lots a payment bought, and what was taken back of them.';

create table governance.purchase_records (
  transaction_id bigint primary key,
  account_id bigint not null,
  created_at timestamptz not null,
  record_type text not null,
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
  -- Of a grant whose price is not simply what Stripe collected for it: collected through Stripe, tax included; and what
  -- was covered otherwise, and by what.
  collected_minor bigint,
  covered_minor bigint,
  covered_by text,
  -- Of the lot, how many tokens refunds and lost disputes have taken back in all, this record included.
  taken_back_tokens bigint not null default 0
);

create index purchase_records_invoice_line on governance.purchase_records (invoice_line_id)
  where invoice_line_id is not null;

create index purchase_records_lot on governance.purchase_records (lot_id);

comment on table governance.purchase_records is
  'Effects of each payment on the ledger, entry by entry: the ledger''s side of a reconciliation; append-only.';

create table governance.stripe_customers (
  customer_id text primary key,
  -- No foreign key: its check would lock the account's row before the account's own lock is taken.
  account_id bigint not null
);

comment on table governance.stripe_customers is 'Whose customer at Stripe: learnt from checkouts and subscriptions.';

-- The price of an order: booked (net of tax), collected through Stripe, covered by a discount. booked_minor is null
-- where the order does not come to the pack's price.
create type governance.order_money as (booked_minor bigint, collected_minor bigint, covered_minor bigint,
  covered_by text, currency text, is_wrong_currency boolean);

-- Money of a payment that went back: refunded in all, and lost in disputes; whether one is open; the largest amount
-- disputed.
create type governance.money_back as (refunded bigint, refund_id text, lost bigint, is_disputed boolean,
  dispute_id text, disputed bigint);

create type governance.stripe_outcome as (status text, reason text, effects jsonb, payment_id bigint,
  waits_for_customer text);

create index purchase_records_difference on governance.purchase_records (difference_id) where difference_id is not null;

create function governance.payment_json(p governance.stripe_payments) returns jsonb
  language sql stable set search_path = '' as $$
  select jsonb_build_object('payment_id', p.payment_id, 'paid_at', coalesce(p.paid_at, p.created_at),
    'amount_minor', p.amount_minor, 'currency', p.currency, 'charge_id', p.charge_id, 'payment_intent_id',
    p.payment_intent_id, 'checkout_session_id', p.checkout_session_id, 'invoice_id', p.invoice_id, 'subscription_id',
    p.subscription_id, 'order_id', p.order_id, 'livemode', p.livemode,
    'refunded_minor', coalesce(p.refunded_override_minor, p.refunded_minor),
    'lots', (select coalesce(jsonb_agg(jsonb_build_object('lot_id', s.lot_id, 'pack_id', l.pack_id, 'tokens', s.tokens,
        'remaining', l.remaining, 'frozen', l.frozen, 'taken_back', s.reversed + s.clawed, 'dispute_state',
        s.dispute_state, 'is_void', s.is_void) order by s.lot_id), '[]')
      from governance.stripe_lots s join governance.lots l using (lot_id) where s.payment_id = p.payment_id),
    'disputes', (select coalesce(jsonb_agg(jsonb_build_object('dispute_id', d.dispute_id, 'status', d.status,
        'amount_minor', d.amount_minor) order by d.reported_at), '[]')
      from governance.stripe_disputes d where d.payment_id = p.payment_id))
$$;
comment on function governance.payment_json(governance.stripe_payments) is
  'A payment: what was paid and refunded (minor units), its names at Stripe, the lots it bought with what was taken '
  'back, and its disputes.';

create function governance.merge_payments(p_into bigint, p_from bigint) returns void
  language plpgsql set search_path = '' as $$
declare
  f governance.stripe_payments;
begin
  update governance.stripe_refunds set payment_id = p_into where payment_id = p_from;
  update governance.stripe_disputes set payment_id = p_into where payment_id = p_from;
  update governance.stripe_lots set payment_id = p_into where payment_id = p_from;
  update governance.stripe_payment_names set payment_id = p_into where payment_id = p_from;
  update governance.stripe_merged_payments set merged_into = p_into where merged_into = p_from;
  insert into governance.stripe_merged_payments (payment_id, merged_into) values (p_from, p_into);
  delete from governance.stripe_payments p where p.payment_id = p_from returning * into f;
  -- Two parts of one invoice: the second keeps its names, and what was refunded of it.
  insert into governance.stripe_payment_names (name, payment_id, refunded_minor)
  select x.name, p_into, x.refunded_minor
  from governance.stripe_payments p cross join lateral (values (f.payment_intent_id, p.payment_intent_id, 0::bigint),
    (f.charge_id, p.charge_id, f.refunded_minor), (f.checkout_session_id, p.checkout_session_id, 0),
    (f.invoice_id, p.invoice_id, 0)) x(name, known, refunded_minor)
  where p.payment_id = p_into and x.name <> x.known
  on conflict (name) do update set payment_id = excluded.payment_id;
  update governance.stripe_payments p set
    account_id = coalesce(p.account_id, f.account_id),
      payment_intent_id = coalesce(p.payment_intent_id, f.payment_intent_id),
    charge_id = coalesce(p.charge_id, f.charge_id),
      checkout_session_id = coalesce(p.checkout_session_id, f.checkout_session_id),
    invoice_id = coalesce(p.invoice_id, f.invoice_id), customer_id = coalesce(p.customer_id, f.customer_id),
    subscription_id = coalesce(p.subscription_id, f.subscription_id), order_id = coalesce(p.order_id, f.order_id),
    livemode = coalesce(p.livemode, f.livemode), amount_minor = coalesce(p.amount_minor, f.amount_minor),
    currency = coalesce(p.currency, f.currency), paid_at = coalesce(p.paid_at, f.paid_at),
    charged_at = least(p.charged_at, f.charged_at), released_minor = greatest(p.released_minor, f.released_minor),
    refunded_minor = case when f.charge_id <> p.charge_id then p.refunded_minor
      else greatest(p.refunded_minor, f.refunded_minor) end, refunded_at = greatest(p.refunded_at, f.refunded_at),
    refunded_override_minor = coalesce(p.refunded_override_minor, f.refunded_override_minor),
    refunded_override_at = coalesce(p.refunded_override_at, f.refunded_override_at),
    is_other_sale = p.is_other_sale or f.is_other_sale
  where p.payment_id = p_into;
end
$$;
comment on function governance.merge_payments(bigint,
  bigint) is 'Two rows turned out to be one payment: the first takes all that the second knew.';

create function governance.payment_of(r governance.purchase_records) returns bigint
  language sql stable set search_path = '' as $$
  select coalesce((select m.merged_into from governance.stripe_merged_payments m where m.payment_id = r.payment_id),
    r.payment_id)
$$;
comment on function governance.payment_of(governance.purchase_records) is
  'The payment of a record as it is known now: it may have been merged into another.';

create function governance.note_payment(
  p_now timestamptz, p_intent text, p_charge text default null, p_session text default null,
    p_invoice text default null,
  p_customer text default null, p_livemode boolean default null, p_order text default null
) returns governance.stripe_payments
  language plpgsql set search_path = '' as $$
begin
  return governance.write_payment(governance.find_payment(p_intent, p_charge, p_session, p_invoice), p_now, p_intent,
    p_charge, p_session, p_invoice,
    p_customer, p_livemode, p_order);
end
$$;
comment on function governance.note_payment(timestamptz, text, text, text, text, text, boolean, text) is
  'Finds the payment by any of its names, or makes it, and notes the other names. Takes their locks.';

create function governance.note_refund(p_now timestamptz, p_event_at timestamptz, p_refund jsonb,
  p_charge text default null, p_intent text default null) returns bigint
  language plpgsql set search_path = '' as $$
declare
  v_id text := governance.stripe_id(p_refund -> 'id');
  v_charge text := coalesce(governance.stripe_id(p_refund -> 'charge'), p_charge);
  v_intent text := coalesce(governance.stripe_id(p_refund -> 'payment_intent'), p_intent);
  v_amount bigint := governance.stripe_whole(p_refund -> 'amount');
  v_state smallint := case p_refund ->> 'status' when 'pending' then 1 when 'requires_action' then 1
    when 'failed' then 3 when 'canceled' then 3 else 2 end;
  v_pay governance.stripe_payments;
begin
  if v_id is null or v_amount is null or v_amount < 0 or coalesce(v_charge, v_intent) is null then return null; end if;
  v_pay := governance.note_payment(p_now, v_intent, v_charge);
  insert into governance.stripe_refunds as r (refund_id, payment_id, charge_id, amount_minor, state, reported_at)
  values (v_id, v_pay.payment_id, v_charge, v_amount, v_state, p_event_at)
  on conflict (refund_id) do update set charge_id = coalesce(r.charge_id, excluded.charge_id),
    state = greatest(r.state, excluded.state), amount_minor = greatest(r.amount_minor, excluded.amount_minor),
    -- When it came to its state: the earliest time that was reported, however often and late it is reported again.
    reported_at = case when excluded.state > r.state then excluded.reported_at
      when excluded.state = r.state then least(r.reported_at, excluded.reported_at) else r.reported_at end;
  return v_pay.payment_id;
end
$$;
comment on function governance.note_refund(timestamptz, timestamptz, jsonb, text,
  text) is 'Notes a refund; null where it is not whole.';

create function governance.note_dispute(p_now timestamptz, p_event_at timestamptz, p_dispute jsonb,
  p_type text) returns bigint
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
    -- An appeal is heard after a dispute was lost: until it is won, the money is gone.
    when v_status in ('won', 'lost', 'charge_refunded', 'appeal_needs_response', 'appeal_under_review') then 3
    when v_status like 'warning%' or v_status = 'prevented' then 1
    when v_status in ('needs_response', 'under_review') then 2
  end;
  if v_stage is null then return null; end if;
  v_pay := governance.note_payment(p_now, v_intent, v_charge);
  insert into governance.stripe_disputes as d (dispute_id, payment_id, payment_name, charge_id, amount_minor, currency,
    status, stage, is_lost, is_reinstated, reported_at)
  values (v_id, v_pay.payment_id, coalesce(v_intent, v_charge), v_charge, v_amount,
    governance.stripe_currency(p_dispute -> 'currency'), v_status, v_stage,
    v_status = 'lost' or v_status like 'appeal%', p_type = 'charge.dispute.funds_reinstated', p_event_at)
  on conflict (dispute_id) do update set
    is_reinstated = d.is_reinstated or excluded.is_reinstated,
    amount_minor = greatest(d.amount_minor, excluded.amount_minor),
    payment_name = coalesce(d.payment_name, excluded.payment_name),
    charge_id = coalesce(d.charge_id, excluded.charge_id),
    currency = coalesce(d.currency, excluded.currency),
    -- Of two decisions the later counts; on a tie, lost wins.
    (status, stage, is_lost, reported_at) = (
      select n.status, n.stage, n.is_lost, n.reported_at
      from (values (d.status, d.stage, d.is_lost, d.reported_at),
        (excluded.status, excluded.stage, excluded.is_lost, excluded.reported_at))
        n(status, stage, is_lost, reported_at)
      order by n.stage desc, n.reported_at desc, n.is_lost desc, n.status limit 1);
  return v_pay.payment_id;
end
$$;
comment on function governance.note_dispute(timestamptz, timestamptz, jsonb,
  text) is 'Notes a dispute; null where it is not whole.';

create function governance.is_within_bounds(s governance.stripe_lots) returns boolean
  language plpgsql immutable set search_path = '' as $$
begin
  return least(s.reversed, s.clawed, s.owed, s.tokens - s.reversed - s.clawed, s.reversed + s.clawed - s.owed) >= 0;
end
$$;
comment on function governance.is_within_bounds(governance.stripe_lots) is
  'The check of a payment''s lots: nothing below zero, no more taken back than was bought, no more owed than was taken '
    'back.';

create function governance.find_payment(p_intent text, p_charge text, p_session text,
  p_invoice text) returns governance.stripe_payments
  language plpgsql set search_path = '' as $$
declare
  v_pay governance.stripe_payments;
  v_id bigint;
  v_other bigint;
begin
  perform governance.lock_stripe_ids(p_intent, p_charge, p_session, p_invoice);
  for v_other in
    select p.payment_id from governance.stripe_payments p where p.payment_intent_id = p_intent
    union all select p.payment_id from governance.stripe_payments p where p.charge_id = p_charge
    union all select p.payment_id from governance.stripe_payments p where p.checkout_session_id = p_session
    union all select p.payment_id from governance.stripe_payments p where p.invoice_id = p_invoice
    union all select n.payment_id from governance.stripe_payment_names n
      where n.name in (p_intent, p_charge, p_session, p_invoice)
  loop
    if v_id is null then v_id := v_other;
    elsif v_other <> v_id then perform governance.merge_payments(v_id, v_other);
    end if;
  end loop;
  if v_id is not null then
    select * into strict v_pay from governance.stripe_payments p where p.payment_id = v_id;
  end if;
  return v_pay;
end
$$;
comment on function governance.find_payment(text, text, text, text) is
  'The payment by any of its names, or null; rows that turn out to be one payment are merged. Takes the locks of the '
  'names.';

create function governance.write_payment(
  p_pay governance.stripe_payments, p_now timestamptz, p_intent text, p_charge text, p_session text, p_invoice text,
    p_customer text, p_livemode boolean,
  p_order text, p_account_id bigint default null, p_amount bigint default null, p_currency text default null,
    p_paid_at timestamptz default null
) returns governance.stripe_payments
  language plpgsql set search_path = '' as $$
begin
  if p_pay.payment_id is null then
    insert into governance.stripe_payments (account_id, payment_intent_id, charge_id, checkout_session_id, invoice_id,
      customer_id, livemode, order_id,
      amount_minor, currency, paid_at, created_at)
    values (p_account_id, p_intent, p_charge, p_session, p_invoice, p_customer, p_livemode, p_order, p_amount,
      p_currency, p_paid_at, p_now)
    returning * into p_pay;
    return p_pay;
  end if;
  -- Another part of the same invoice.
  insert into governance.stripe_payment_names (name, payment_id)
  select x.name, p_pay.payment_id from (values (p_intent, p_pay.payment_intent_id), (p_charge, p_pay.charge_id),
    (p_session, p_pay.checkout_session_id), (p_invoice, p_pay.invoice_id)) x(name, known)
  where x.name <> x.known on conflict do nothing;
  -- A lot is found by its charge even when the charge arrived after the grant.
  if p_charge is not null and p_pay.account_id is not null then
    update governance.lots l set stripe_charge_id = p_charge
    from governance.stripe_lots s
    where s.payment_id = p_pay.payment_id and l.lot_id = s.lot_id and l.stripe_charge_id is null;
  end if;
  if p_account_id is not null or (p_pay.payment_intent_id is null and p_intent is not null)
    or (p_pay.charge_id is null and p_charge is not null)
    or (p_pay.checkout_session_id is null and p_session is not null)
      or (p_pay.invoice_id is null and p_invoice is not null)
    or (p_pay.customer_id is null and p_customer is not null) or (p_pay.livemode is null and p_livemode is not null)
    or (p_pay.order_id is null and p_order is not null) then
    update governance.stripe_payments p set
      payment_intent_id = coalesce(p.payment_intent_id, p_intent), charge_id = coalesce(p.charge_id, p_charge),
      checkout_session_id = coalesce(p.checkout_session_id, p_session), invoice_id = coalesce(p.invoice_id, p_invoice),
      customer_id = coalesce(p.customer_id, p_customer), livemode = coalesce(p.livemode, p_livemode),
        order_id = coalesce(p.order_id, p_order),
      account_id = coalesce(p_account_id, p.account_id), amount_minor = coalesce(p_amount, p.amount_minor),
      currency = coalesce(p_currency, p.currency), paid_at = coalesce(p_paid_at, p.paid_at)
    where p.payment_id = p_pay.payment_id
    returning * into p_pay;
  end if;
  return p_pay;
end
$$;
comment on function governance.write_payment(governance.stripe_payments, timestamptz, text, text, text, text, text,
  boolean, text, bigint, bigint, text, timestamptz) is
  'Makes the payment that governance.find_payment did not find, or notes on the one it found the names that are new; '
  'and who paid what, once that is granted.';

create trigger purchase_records_append_only before update or delete or truncate on governance.purchase_records
  for each statement execute function governance.refuse_change();

-- A lot a payment: read in a moment, and the checks that it replaces held for each.
-- squawk-ignore constraint-missing-not-valid
alter table governance.stripe_lots add constraint stripe_lots_within_bounds
  check (governance.is_within_bounds(stripe_lots));

-- A ticket often has the last characters of an id.
do $$
begin
  perform governance.index_parts('stripe_payments_parts', 'stripe_payments',
    'governance.payment_ids(charge_id, payment_intent_id, checkout_session_id, invoice_id, order_id)');
  perform governance.index_parts('stripe_refunds_parts', 'stripe_refunds', 'lower(refund_id)');
  perform governance.index_parts('stripe_disputes_parts', 'stripe_disputes', 'lower(dispute_id)');
  perform governance.index_parts('stripe_invoice_numbers_parts', 'stripe_invoice_numbers', 'lower(number)');
  perform governance.index_parts('stripe_customers_parts', 'stripe_customers', 'lower(customer_id)');
end
$$;
