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
  -- What was paid, once tokens were granted for it.
  amount_minor bigint,
  currency text,
  paid_at timestamptz,
  -- Largest cumulative figure that a charge told.
  refunded_minor bigint not null default 0,
  refunded_at timestamptz,
  -- Set by a posted correction: counts until a newer refund is told.
  refunded_override_minor bigint,
  refunded_override_at timestamptz,
  created_at timestamptz not null
) with (fillfactor = 80);

-- Also found by the beginning of an id, as it stands in a mail or a ticket.
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

comment on table governance.stripe_payments is 'Payments at Stripe and what is known of them.';

create table governance.stripe_payment_names (
  -- Mostly a PaymentIntent or a charge.
  name text primary key,
  payment_id bigint not null,
  -- Of a charge: largest cumulative refund that it told.
  refunded_minor bigint not null default 0
);

create index stripe_payment_names_payment on governance.stripe_payment_names (payment_id);

comment on table governance.stripe_payment_names is
  'Further names of a payment: an invoice may be paid in several parts, each with a PaymentIntent and a charge.';

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
  currency text,
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
  covered_by text
);

create index purchase_records_invoice_line on governance.purchase_records (invoice_line_id)
  where invoice_line_id is not null;

create index purchase_records_lot on governance.purchase_records (lot_id);

comment on table governance.purchase_records is 'What each payment did to the ledger, entry by entry: the ledger''s '
  'side of a reconciliation; append-only.';

create table governance.stripe_customers (
  customer_id text primary key,
  account_id bigint not null references governance.accounts (account_id)
);

comment on table governance.stripe_customers is 'Whose customer at Stripe: learnt from checkouts and subscriptions.';

-- What an order cost: booked (net of tax), collected through Stripe, covered by a discount; booked is null where it does
-- not come to the price.
create type governance.order_money as (booked_minor bigint, collected_minor bigint, covered_minor bigint,
  covered_by text, currency text, is_wrong_currency boolean);

create type governance.stripe_outcome as (status text, reason text, effects jsonb, payment_id bigint,
  waits_for_customer text);

create index purchase_records_difference on governance.purchase_records (difference_id) where difference_id is not null;

create function governance.merge_payments(p_into bigint, p_from bigint) returns void
  language plpgsql set search_path = '' as $$
declare
  f governance.stripe_payments;
begin
  update governance.stripe_refunds set payment_id = p_into where payment_id = p_from;
  update governance.stripe_disputes set payment_id = p_into where payment_id = p_from;
  update governance.stripe_lots set payment_id = p_into where payment_id = p_from;
  update governance.stripe_payment_names set payment_id = p_into where payment_id = p_from;
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
    refunded_minor = case when f.charge_id <> p.charge_id then p.refunded_minor
      else greatest(p.refunded_minor, f.refunded_minor) end, refunded_at = greatest(p.refunded_at, f.refunded_at),
    refunded_override_minor = coalesce(p.refunded_override_minor, f.refunded_override_minor),
    refunded_override_at = coalesce(p.refunded_override_at, f.refunded_override_at)
  where p.payment_id = p_into;
end
$$;
comment on function governance.merge_payments(bigint,
  bigint) is 'Two rows turned out to be one payment: the first takes all that the second knew.';

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

create function governance.note_refund(p_now timestamptz, p_told_at timestamptz, p_refund jsonb,
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
  insert into governance.stripe_refunds as r (refund_id, payment_id, amount_minor, state, told_at)
  values (v_id, v_pay.payment_id, v_amount, v_state, p_told_at)
  on conflict (refund_id) do update set
    state = greatest(r.state, excluded.state), amount_minor = greatest(r.amount_minor, excluded.amount_minor),
    told_at = case when excluded.state > r.state then greatest(r.told_at, excluded.told_at) else r.told_at end;
  return v_pay.payment_id;
end
$$;
comment on function governance.note_refund(timestamptz, timestamptz, jsonb, text,
  text) is 'Notes a refund; null where it is not whole.';

create function governance.note_dispute(p_now timestamptz, p_told_at timestamptz, p_dispute jsonb,
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
    when v_status in ('won', 'lost', 'charge_refunded') then 3
    when v_status like 'warning%' or v_status = 'prevented' then 1
    when v_status in ('needs_response', 'under_review') then 2
  end;
  if v_stage is null then return null; end if;
  v_pay := governance.note_payment(p_now, v_intent, v_charge);
  insert into governance.stripe_disputes as d (dispute_id, payment_id, amount_minor, currency, status, stage, is_lost,
    is_reinstated, told_at)
  values (v_id, v_pay.payment_id, v_amount, governance.stripe_currency(p_dispute -> 'currency'), v_status, v_stage, v_status = 'lost',
    p_type = 'charge.dispute.funds_reinstated', p_told_at)
  on conflict (dispute_id) do update set
    is_reinstated = d.is_reinstated or excluded.is_reinstated,
    amount_minor = greatest(d.amount_minor, excluded.amount_minor),
    currency = coalesce(d.currency, excluded.currency),
    -- Of two decisions the later stands; on a tie, lost wins.
    (status, stage, is_lost, told_at) = (
      select n.status, n.stage, n.is_lost, n.told_at
      from (values (d.status, d.stage, d.is_lost, d.told_at),
        (excluded.status, excluded.stage, excluded.is_lost, excluded.told_at)) n(status, stage, is_lost, told_at)
      order by n.stage desc, n.told_at desc, n.is_lost desc, n.status limit 1);
  return v_pay.payment_id;
end
$$;
comment on function governance.note_dispute(timestamptz, timestamptz, jsonb,
  text) is 'Notes a dispute; null where it is not whole.';

create function governance.pro_rata(p_tokens bigint, p_part bigint, p_of bigint) returns bigint
  language sql immutable set search_path = '' as $$
  select case when p_of <= 0 or p_part >= p_of then p_tokens when p_part <= 0 then 0
    else trunc(p_tokens::numeric * p_part / p_of)::bigint end
$$;
comment on function governance.pro_rata(bigint, bigint,
  bigint) is 'tokens × part ÷ of, rounded down, all of them when part reaches of; nothing of nothing. The core''s '
    'proRata is the same.';

create function governance.record_purchase(
  p_transaction_id bigint, p_type text, p_lot_id bigint, p_payment_id bigint, p_tokens bigint, p_debt bigint default 0,
    p_amount bigint default null,
  p_currency text default null, p_refund_id text default null, p_dispute_id text default null,
    p_line_id text default null,
  p_period_start timestamptz default null, p_period_end timestamptz default null, p_difference_id text default null,
  p_collected bigint default null, p_covered bigint default null, p_covered_by text default null
) returns void
  language plpgsql set search_path = '' as $$
begin
  insert into governance.purchase_records (transaction_id, account_id, created_at, record_type, lot_id, payment_id,
    tokens, debt_tokens,
    amount_minor, currency, refund_id, dispute_id, invoice_line_id, period_start, period_end, difference_id,
    collected_minor, covered_minor, covered_by)
  select t.transaction_id, t.account_id, t.created_at, p_type, p_lot_id, p_payment_id, p_tokens, p_debt, p_amount,
    p_currency, p_refund_id,
    p_dispute_id, p_line_id, p_period_start, p_period_end, p_difference_id, p_collected, nullif(p_covered, 0),
    p_covered_by
  from governance.token_transactions t where t.transaction_id = p_transaction_id;
end
$$;
comment on function governance.record_purchase(bigint, text, bigint, bigint, bigint, bigint, bigint, text, text, text,
  text, timestamptz, timestamptz, text, bigint, bigint, text) is
  'Notes what a ledger entry has to do with a payment.';

create function governance.take_back(p_lot_id bigint, p_tokens bigint, p_type text, p_now timestamptz, p_reference text,
  p_description text, p_metadata jsonb) returns governance.lot_taking
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
    update governance.lots l set expired = l.expired - v_expired, clawed_back = l.clawed_back + v_expired
      where l.lot_id = p_lot_id;
  end if;
  return governance.claw_back_lot(p_lot_id, p_tokens - v_expired, p_type, p_now, p_reference, p_description,
    p_metadata);
end
$$;
comment on function governance.take_back(bigint, bigint, text, timestamptz, text, text, jsonb) is
  'Takes tokens of a lot back: frozen, unspent, then expired ones; what was spent becomes debt. The caller holds the '
  'account''s lock.';

create function governance.give_back(p_lot_id bigint, p_tokens bigint, p_now timestamptz, p_reference text,
  p_description text, p_metadata jsonb) returns bigint
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
  select least(a.debt_tokens, v_owed) into strict v_debt from governance.accounts a
    where a.account_id = v_lot.account_id;
  v_unspent := least(v_owed - v_debt, v_lot.spent);
  v_returned := least(p_tokens - v_owed, v_lot.clawed_back);
  update governance.lots l set
    remaining = l.remaining + v_unspent + v_returned, spent = l.spent - v_unspent,
      clawed_back = l.clawed_back - v_returned, is_open = true
  where l.lot_id = p_lot_id and v_unspent + v_returned > 0;
  update governance.stripe_lots s set owed = s.owed - v_owed where s.lot_id = p_lot_id;
  if v_lot.expires_at is not null then
    update governance.accounts a set lots_check_at = least(a.lots_check_at, v_lot.expires_at)
      where a.account_id = v_lot.account_id;
  end if;
  return (governance.append_entry(v_lot.account_id, 'reversal', p_now,
    case when v_unspent + v_returned > 0 then array[p_lot_id, v_unspent + v_returned] else '{}' end,
    case v_lot.kind when 'subscription' then v_unspent + v_returned else 0 end, case v_lot.kind
      when 'purchased' then v_unspent + v_returned else 0 end,
    case v_lot.kind when 'promotional' then v_unspent + v_returned
      else 0 end, -v_debt, p_reference, p_description, p_metadata)).transaction_id;
end
$$;
comment on function governance.give_back(bigint, bigint, timestamptz, text, text, jsonb) is
  'Undoes a taking back: debt first, then tokens into the lot. Answers the entry. The caller holds the account''s '
    'lock.';

create function governance.effect(p_type text, p_user_id text, p_tokens bigint, p_transaction_id bigint) returns jsonb
  language sql stable set search_path = '' as $$
  select jsonb_build_object('type', p_type, 'user_id', p_user_id, 'tokens', p_tokens, 'transaction_id',
    p_transaction_id)
$$;
comment on function governance.effect(text, text, bigint, bigint) is 'One effect as process_stripe_event answers it.';

create function governance.settle_payment(p_payment_id bigint, p_now timestamptz, p_cause text,
  p_difference_id text default null) returns jsonb
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
    and not exists (select from governance.stripe_payment_names n
      where n.payment_id = p_payment_id and n.refunded_minor > 0)
    and not exists (select from governance.stripe_refunds r where r.payment_id = p_payment_id)
    and not exists (select from governance.stripe_disputes d where d.payment_id = p_payment_id) then
    return v_effects;
  end if;
  v_account := governance.lock_account_id(v_pay.account_id);

  v_pay.refunded_minor := v_pay.refunded_minor + (select coalesce(sum(n.refunded_minor), 0)
    from governance.stripe_payment_names n where n.payment_id = p_payment_id);
  select greatest(coalesce(sum(r.amount_minor) filter (where r.state = 2), 0),
      v_pay.refunded_minor - coalesce(sum(r.amount_minor) filter (where r.state = 3), 0)),
    case when count(*) filter (where r.state = 2) = 1 then max(r.refund_id) filter (where r.state = 2) end
  into v_refunded, v_refund_id
  from governance.stripe_refunds r where r.payment_id = p_payment_id;
  if v_pay.refunded_override_at is not null
    and not exists (select from governance.stripe_refunds r
      where r.payment_id = p_payment_id and r.told_at > v_pay.refunded_override_at)
    and coalesce(v_pay.refunded_at, '-infinity') <= v_pay.refunded_override_at then
    v_refunded := v_pay.refunded_override_minor;
  end if;
  select coalesce(sum(d.amount_minor) filter (where d.stage = 3 and d.is_lost), 0),
    coalesce(bool_or(d.stage = 2 and not d.is_reinstated), false),
    max(d.dispute_id), coalesce(max(d.amount_minor), 0)
  into v_lost, v_open, v_dispute_id, v_disputed
  from (select x.stage, x.is_lost, x.is_reinstated, x.dispute_id,
      -- Told in another currency, a part cannot be told from the whole: the whole payment is disputed.
      case when x.currency <> v_pay.currency then v_pay.amount_minor else x.amount_minor end as amount_minor
    from governance.stripe_disputes x where x.payment_id = p_payment_id) d;
  v_reference := coalesce(v_pay.charge_id, v_pay.payment_intent_id, v_pay.invoice_id, v_pay.checkout_session_id);
  v_metadata := jsonb_strip_nulls(jsonb_build_object('cause', p_cause, 'charge_id', v_pay.charge_id,
    'payment_intent_id', v_pay.payment_intent_id,
    'invoice_id', v_pay.invoice_id, 'difference_id', p_difference_id));

  for v_lot in
    select s.*, l.remaining, l.frozen from governance.stripe_lots s join governance.lots l using (lot_id)
    where s.payment_id = p_payment_id and not s.is_void order by s.lot_id
  loop
    v_due_reversed := governance.pro_rata(v_lot.tokens, v_refunded, v_pay.amount_minor);
    if v_refunded = 0 then v_due_reversed := 0; end if;
    v_due_clawed := case when v_lost = 0 then 0
      else least(governance.pro_rata(v_lot.tokens, v_lost, v_pay.amount_minor), v_lot.tokens - v_due_reversed) end;

    -- Given back first, so that the sums never pass what was bought; and what is owed for it struck before it is no
    -- longer taken.
    if v_due_clawed < v_lot.clawed then
      v_move := v_lot.clawed - v_due_clawed;
      v_entry := governance.give_back(v_lot.lot_id, v_move, p_now, v_reference, 'Dispute won: given back', v_metadata
        || jsonb_strip_nulls(jsonb_build_object('dispute_id', v_dispute_id)));
      update governance.stripe_lots s set clawed = v_due_clawed where s.lot_id = v_lot.lot_id;
      update governance.stripe_lots s set dispute_state = 'released'
        where s.lot_id = v_lot.lot_id and v_due_clawed = 0 and v_lost = 0;
      perform governance.record_purchase(v_entry, 'dispute_release', v_lot.lot_id, p_payment_id, v_move, 0, v_disputed,
        v_pay.currency, null, v_dispute_id,
        p_difference_id => p_difference_id);
      v_effects := v_effects || governance.effect('dispute_release', v_account.user_id, v_move, v_entry);
      v_moved := true;
    end if;
    if v_due_reversed < v_lot.reversed then
      v_move := v_lot.reversed - v_due_reversed;
      v_entry := governance.give_back(v_lot.lot_id, v_move, p_now, v_reference, 'Refund failed: given back',
        v_metadata);
      update governance.stripe_lots s set reversed = v_due_reversed where s.lot_id = v_lot.lot_id;
      perform governance.record_purchase(v_entry, 'restoration', v_lot.lot_id, p_payment_id, v_move, 0, v_refunded,
        v_pay.currency,
        p_difference_id => p_difference_id);
      v_effects := v_effects || governance.effect('restoration', v_account.user_id, v_move, v_entry);
      v_moved := true;
    end if;
    if v_due_reversed > v_lot.reversed then
      v_move := v_due_reversed - v_lot.reversed;
      v_taking := governance.take_back(v_lot.lot_id, v_move, 'refund', p_now, v_reference, 'Refund', v_metadata
        || jsonb_strip_nulls(jsonb_build_object('refund_id', v_refund_id, 'refunded_minor', v_refunded)));
      update governance.stripe_lots s set reversed = v_due_reversed, owed = s.owed + v_taking.debt
        where s.lot_id = v_lot.lot_id;
      perform governance.record_purchase(v_taking.transaction_id, 'refund', v_lot.lot_id, p_payment_id, -v_move,
        v_taking.debt, v_refunded, v_pay.currency,
        v_refund_id, p_difference_id => p_difference_id);
      v_effects := v_effects || governance.effect('refund', v_account.user_id, -v_move, v_taking.transaction_id);
      v_moved := true;
    end if;
    if v_due_clawed > v_lot.clawed then
      v_move := v_due_clawed - v_lot.clawed;
      v_taking := governance.take_back(v_lot.lot_id, v_move, 'reversal', p_now, v_reference, 'Dispute lost', v_metadata
        || jsonb_strip_nulls(jsonb_build_object('dispute_id', v_dispute_id)));
      update governance.stripe_lots s set clawed = v_due_clawed, owed = s.owed + v_taking.debt, dispute_state = 'clawed'
        where s.lot_id = v_lot.lot_id;
      perform governance.record_purchase(v_taking.transaction_id, 'dispute_clawback', v_lot.lot_id, p_payment_id,
        -v_move, v_taking.debt, v_disputed, v_pay.currency,
        null, v_dispute_id, p_difference_id => p_difference_id);
      v_effects := v_effects || governance.effect('dispute_clawback', v_account.user_id, -v_move,
        v_taking.transaction_id);
      v_moved := true;
    end if;

    select l.remaining, l.frozen into strict v_lot.remaining, v_lot.frozen from governance.lots l
      where l.lot_id = v_lot.lot_id;
    if v_open and (v_lot.dispute_state <> 'held' or v_lot.remaining > 0) then
      v_taking := governance.freeze_lot(v_lot.lot_id, v_lot.remaining, p_now, v_reference, 'Dispute opened: frozen',
        v_metadata || jsonb_build_object('dispute_id', v_dispute_id));
      if v_taking.taken > 0 or v_lot.dispute_state <> 'held' then
        -- Nothing may be left to freeze; that it was tried is on record all the same.
        v_entry := coalesce(v_taking.transaction_id,
          (governance.append_entry(v_pay.account_id, 'reversal', p_now, '{}', 0, 0, 0, 0, v_reference,
          'Dispute opened: nothing left to freeze', v_metadata
            || jsonb_build_object('dispute_id', v_dispute_id))).transaction_id);
        update governance.stripe_lots s set dispute_state = 'held' where s.lot_id = v_lot.lot_id;
        perform governance.record_purchase(v_entry, 'dispute_hold', v_lot.lot_id, p_payment_id, -v_taking.taken, 0,
          v_disputed, v_pay.currency, null, v_dispute_id,
          p_difference_id => p_difference_id);
        v_effects := v_effects || governance.effect('dispute_hold', v_account.user_id, -v_taking.taken, v_entry);
      end if;
    elsif not v_open and (v_lot.dispute_state = 'held' or v_lot.frozen > 0) then
      v_taking := governance.thaw_lot(v_lot.lot_id, v_lot.frozen, p_now, v_reference, 'Dispute decided: thawed',
        v_metadata || jsonb_strip_nulls(jsonb_build_object('dispute_id', v_dispute_id)));
      if v_due_clawed = 0 then
        v_entry := coalesce(v_taking.transaction_id,
          (governance.append_entry(v_pay.account_id, 'reversal', p_now, '{}', 0, 0, 0, 0, v_reference,
          'Dispute decided: nothing was frozen', v_metadata
            || jsonb_strip_nulls(jsonb_build_object('dispute_id', v_dispute_id)))).transaction_id);
        update governance.stripe_lots s set dispute_state = 'released' where s.lot_id = v_lot.lot_id;
        perform governance.record_purchase(v_entry, 'dispute_release', v_lot.lot_id, p_payment_id, v_taking.taken, 0,
          v_disputed, v_pay.currency, null, v_dispute_id,
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
  'Moves a payment''s lots to where its refunds and disputes put them: pro rata, capped, debt for what was spent. '
    'Answers the effects; nothing when all is in its place. Locks the account.';

create function governance.grant_pack(
  p_now timestamptz, p_payment_id bigint, p_user_id text, p_pack_id text, p_tokens bigint, p_amount bigint,
    p_currency text, p_paid_at timestamptz,
  p_cause text, p_difference_id text default null
) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_account governance.accounts := governance.lock_account(p_user_id);
  v_pay governance.stripe_payments;
begin
  update governance.stripe_payments p set
    account_id = v_account.account_id, amount_minor = p_amount, currency = p_currency, paid_at = p_paid_at
  where p.payment_id = p_payment_id returning * into strict v_pay;
  return governance.grant_paid(p_now, v_pay, p_user_id, p_pack_id, p_tokens, p_cause, p_difference_id);
end
$$;
comment on function governance.grant_pack(timestamptz, bigint, text, text, bigint, bigint, text, timestamptz, text,
  text) is
  'Grants a paid pack and ties its lot to the payment. The caller holds the payment''s locks; the account is locked '
    'here.';

create function governance.learn_customer(p_customer text, p_account_id bigint) returns boolean
  language plpgsql set search_path = '' as $$
begin
  if p_customer is null or p_account_id is null then return false; end if;
  insert into governance.stripe_customers (customer_id, account_id) values (p_customer, p_account_id)
    on conflict do nothing;
  return found;
end
$$;
comment on function governance.learn_customer(text,
  bigint) is 'Remembers whose customer this is; true when it is news.';

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
      where x.account_id = l.account_id and x.transaction_type in ('purchase', 'subscription_grant')
        and x.lot_changes[1] = l.lot_id and x.amount > 0
      order by x.transaction_id limit 1) t on true
    where coalesce(l.stripe_charge_id, l.stripe_payment_intent_id, l.stripe_checkout_session_id) is not null
      and l.amount_minor is not null
      and not exists (select from governance.stripe_lots s where s.lot_id = l.lot_id)
    order by l.lot_id
  loop
    v_pay := governance.note_payment(v_lot.granted_at, v_lot.stripe_payment_intent_id, v_lot.stripe_charge_id,
      v_lot.stripe_checkout_session_id, p_livemode => true);
    update governance.stripe_payments p set account_id = v_lot.account_id, amount_minor = v_lot.amount_minor,
      currency = v_lot.currency, paid_at = v_lot.granted_at
    where p.payment_id = v_pay.payment_id;
    insert into governance.stripe_lots (lot_id, payment_id, tokens)
      values (v_lot.lot_id, v_pay.payment_id, v_lot.granted) returning * into v_known;
    perform governance.record_purchase(v_lot.transaction_id, 'grant', v_lot.lot_id, v_pay.payment_id, v_lot.granted, 0,
      v_lot.amount_minor, v_lot.currency,
      p_line_id => v_lot.stripe_invoice_line_id);
    -- Refunds and disputes that were booked before this bookkeeping was there, told by their entries.
    for v_entry in
      select t.*, lag(t.debt_after, 1, 0::bigint) over (order by t.transaction_id) as debt_before
      from governance.token_transactions t where t.account_id = v_lot.account_id order by t.transaction_id
    loop
      continue when v_entry.transaction_id <= v_lot.transaction_id
        or v_entry.transaction_type not in ('refund', 'reversal')
        or not (v_lot.lot_id = any (v_entry.lot_changes) or v_entry.description like '%' || v_lot.stripe_charge_id);
      v_owed := greatest(v_entry.debt_after - v_entry.debt_before, 0);
      v_type := case when v_entry.transaction_type = 'refund' then 'refund'
        when v_entry.description like 'Dispute lost%' then 'dispute_clawback'
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
      v_known.dispute_state := case v_type when 'dispute_hold' then 'held' when 'dispute_release' then 'released'
        when 'dispute_clawback' then 'clawed' else v_known.dispute_state end;
      if v_type like 'dispute%' and v_entry.reference is not null then
        insert into governance.stripe_disputes as d (dispute_id, payment_id, amount_minor, status, stage, is_lost,
          told_at)
        values (v_entry.reference, v_pay.payment_id, v_lot.amount_minor,
          case v_type when 'dispute_hold' then 'needs_response' when 'dispute_release' then 'won' else 'lost' end,
          case v_type when 'dispute_hold' then 2 else 3 end, v_type = 'dispute_clawback', v_entry.created_at)
        on conflict (dispute_id) do update set status = excluded.status, stage = excluded.stage,
          is_lost = excluded.is_lost, told_at = excluded.told_at;
      end if;
      if not exists (select from governance.purchase_records r where r.transaction_id = v_entry.transaction_id) then
        perform governance.record_purchase(v_entry.transaction_id, v_type, v_lot.lot_id, v_pay.payment_id, v_tokens,
          v_owed, null, v_lot.currency,
          case v_type when 'refund' then v_entry.reference end, case
            when v_type like 'dispute%' then v_entry.reference end);
      end if;
    end loop;
    update governance.stripe_lots s set reversed = v_known.reversed, clawed = v_known.clawed, owed = v_known.owed,
      dispute_state = v_known.dispute_state
    where s.lot_id = v_lot.lot_id;
    v_count := v_count + 1;
  end loop;
  return v_count;
end
$$;
comment on function governance.adopt_purchases() is
  'Takes lots that were loaded with Stripe''s ids, not granted by process_stripe_event, into the books of payments: '
    'for imports and sample data. Safe to run twice; answers how many lots.';

create function public.console_ledger_purchases_since(
  p_cursor text default null, p_limit int default 5000, p_from timestamptz default null, p_to timestamptz default null
) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
declare
  v_records jsonb;
  v_count int;
  v_last bigint;
  v_corrected bigint[] := '{}';
begin
  perform governance.refuse_others('console_ledger_purchases_since');
  if p_limit is null or p_limit not between 1 and 20000 then
    perform governance.fail('PT400', 'invalid_argument', 'p_limit is a whole number from 1 to 20000');
  elsif p_cursor is not null and p_cursor !~ '^[0-9]{1,18}$' then
    perform governance.fail('PT400', 'invalid_argument', 'p_cursor is a next_cursor as it was answered');
  elsif not isfinite(p_from) or not isfinite(p_to) or p_from >= p_to or p_to > '9999-01-01' then
    perform governance.fail('PT400', 'invalid_argument', 'p_from must come before p_to');
  end if;
  if p_from is not null or p_to is not null then
    -- A correction is booked when it is booked, which may be long after the period that it puts right.
    select coalesce(array_agg(distinct x.lot_id), '{}') into v_corrected
    from governance.reconciliation_cases c join governance.purchase_records x on x.difference_id = c.difference_id
    where c.posted_at is not null and (p_to is null or c.period_from < p_to)
      and (p_from is null or c.period_to > p_from);
  end if;
  with page as (
    select r.* from governance.purchase_records r
    where r.transaction_id > coalesce(p_cursor, '0')::bigint
      -- All that ever happened to a lot that was touched in the period, or within the three days after it for which
      -- Stripe delivers again: the grant may be late, and an export tells refunds up to the day it was made.
      and ((p_from is null and p_to is null) or r.lot_id = any (v_corrected)
        or exists (select from governance.purchase_records x where x.lot_id = r.lot_id
        and (p_from is null or x.created_at >= p_from) and (p_to is null or x.created_at < p_to + interval '3 days')))
    order by r.transaction_id limit p_limit
  )
  select coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
      'transaction_id', r.transaction_id,
      'record_type', case r.record_type when 'supplement' then 'grant' else r.record_type end, 'user_id', a.user_id, 'tokens', r.tokens,
        'created_at', r.created_at,
      'lot_id', r.lot_id, 'grant_kind', case l.kind when 'purchased' then 'purchase' else l.kind end,
      'debt_tokens', nullif(r.debt_tokens, 0), 'tokens_remaining', case r.record_type
        when 'grant' then l.remaining + l.frozen end,
      -- What Stripe's own files show for it; booked_minor is the price of the tokens, net of tax.
      'amount_minor', coalesce(r.collected_minor, r.amount_minor), 'booked_minor', case
        when r.collected_minor is not null then r.amount_minor end,
      'covered_minor', r.covered_minor, 'covered_by', r.covered_by, 'currency', r.currency, 'pack_id', l.pack_id, 'charge_id', p.charge_id,
        'payment_intent_id', p.payment_intent_id,
      'checkout_session_id', p.checkout_session_id, 'order_id', p.order_id, 'invoice_id', p.invoice_id,
        'invoice_line_id', r.invoice_line_id,
      'period_start', r.period_start, 'period_end', r.period_end, 'customer_id', p.customer_id, 'refund_id',
        r.refund_id, 'dispute_id', r.dispute_id,
      'livemode', p.livemode, 'difference_id', r.difference_id)) order by r.transaction_id), '[]'), count(*),
        max(r.transaction_id)
  into v_records, v_count, v_last
  from page r
  join governance.accounts a on a.account_id = r.account_id
  join governance.lots l on l.lot_id = r.lot_id
  left join governance.stripe_lots s on s.lot_id = r.lot_id
  left join governance.stripe_payments p on p.payment_id = coalesce(s.payment_id, r.payment_id);
  return jsonb_build_object('records', v_records, 'next_cursor', coalesce(v_last::text, p_cursor), 'has_more',
    v_count = p_limit);
end
$$;
comment on function public.console_ledger_purchases_since(text, int, timestamptz, timestamptz) is
  'The ledger''s records of payments (LedgerRecord of shared/governance/reconciliation) page by page: records, '
    'next_cursor, has_more. A run starts without a cursor and reads to the end. A period brings all records, to this '
    'day, of the lots that were touched in it or within three days after, or by a correction of one of its '
    'differences. Errors: invalid_argument.';
revoke all on function public.console_ledger_purchases_since(text, int, timestamptz, timestamptz)
  from public, anon, authenticated;
grant execute on function public.console_ledger_purchases_since(text, int, timestamptz, timestamptz) to service_role;

create function public.console_token_roll_forward(p_from timestamptz, p_to timestamptz) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
declare
  v_lines jsonb;
begin
  perform governance.refuse_others('console_token_roll_forward');
  if p_from is null or p_to is null or not isfinite(p_from) or not isfinite(p_to) or p_from >= p_to then
    perform governance.fail('PT400', 'invalid_argument', 'p_from must come before p_to');
  end if;
  with moves as (
    select t.lot_changes[n * 2 - 1] as lot_id, t.lot_changes[n * 2] as tokens, t.transaction_type as type, t.created_at
    from governance.token_transactions t cross join lateral generate_series(1, cardinality(t.lot_changes) / 2) n
  ), by_lot as (
    select l.lot_id, case l.kind when 'purchased' then 'purchased'
      else l.kind end as kind, l.currency, l.amount_minor, l.granted,
      l.created_at >= p_from and l.created_at < p_to as is_new, l.created_at < p_to as is_there, l.remaining,
      coalesce(sum(m.tokens) filter (where m.created_at < p_from), 0)::bigint as opening,
      coalesce(sum(m.tokens) filter (where m.created_at < p_to), 0)::bigint as closing,
      coalesce(sum(m.tokens) filter (where m.created_at >= p_to), 0)::bigint as later,
      coalesce(sum(m.tokens) filter (where i.inside and m.type in ('purchase', 'subscription_grant')),
        0)::bigint as purchased,
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
      case when b.amount_minor is null then 0
        else governance.pro_rata(b.amount_minor, least(b.opening, b.granted), b.granted) end as deferred_opening,
      case when b.amount_minor is null then 0
        else governance.pro_rata(b.amount_minor, least(b.closing, b.granted), b.granted) end as deferred_closing,
      case when b.amount_minor is null then 0
        else governance.pro_rata(b.amount_minor, least(greatest(b.refunded + b.disputed - b.restored, 0), b.granted),
        b.granted) end as given_back
    from by_lot b
  )
  select coalesce(jsonb_agg(jsonb_build_object('kind', s.kind, 'currency', s.currency,
    'opening_tokens', s.opening, 'purchased_tokens', s.purchased, 'promotional_tokens', s.promotional,
      'restored_tokens', s.restored,
    'consumed_tokens', s.consumed, 'refunded_tokens', s.refunded, 'disputed_tokens', s.disputed, 'expired_tokens',
      s.expired, 'adjusted_tokens', s.adjusted,
    'closing_tokens', s.closing, 'ledger_tokens', s.ledger, 'opening_deferred_minor', s.deferred_opening, 'sold_minor',
      s.sold,
    'recognised_minor', s.deferred_opening + s.sold - s.given_back - s.deferred_closing, 'refunded_minor', s.given_back,
      'closing_deferred_minor', s.deferred_closing)
    order by s.kind, s.currency nulls last), '[]')
  into v_lines
  from (
    select p.kind, p.currency, sum(p.opening)::bigint as opening, sum(p.purchased)::bigint as purchased,
      sum(p.promotional)::bigint as promotional,
      sum(p.restored)::bigint as restored, sum(p.consumed)::bigint as consumed, sum(p.refunded)::bigint as refunded,
        sum(p.disputed)::bigint as disputed,
      sum(p.expired)::bigint as expired, sum(p.adjusted)::bigint as adjusted, sum(p.closing)::bigint as closing,
      -- The lots as they stand, less what moved since: not a sum of the same movements.
      sum(p.remaining - p.later)::bigint as ledger, sum(p.deferred_opening)::bigint as deferred_opening,
        sum(p.deferred_closing)::bigint as deferred_closing,
      sum(p.given_back)::bigint as given_back,
        sum(case when p.is_new then coalesce(p.amount_minor, 0) else 0 end)::bigint as sold
    from priced p where p.is_there group by p.kind, p.currency) s;
  return v_lines;
end
$$;
comment on function public.console_token_roll_forward(timestamptz, timestamptz) is
  'Tokens from opening to closing by kind and currency, with their money as deferred revenue (RollForwardLine of '
  'shared/governance/reconciliation). Frozen tokens are out of it until thawed. Errors: invalid_argument.';
revoke all on function public.console_token_roll_forward(timestamptz, timestamptz) from public, anon, authenticated;
grant execute on function public.console_token_roll_forward(timestamptz, timestamptz) to service_role;

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
    union all select n.payment_id from governance.stripe_payment_names n where n.name in (p_intent, p_charge, p_session, p_invoice)
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
  -- A lot is found by its charge even when the charge was told after it was granted.
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

create function governance.order_money(o jsonb, p_amount jsonb, p_price bigint, p_currency text)
  returns governance.order_money
  language plpgsql immutable set search_path = '' as $$
declare
  v_total bigint := governance.stripe_whole(p_amount);
  v_tax bigint := coalesce(governance.stripe_whole(o #> '{total_details,amount_tax}'), 0);
  v_discount bigint := coalesce(governance.stripe_whole(o #> '{total_details,amount_discount}'), 0);
  v_shipping bigint := coalesce(governance.stripe_whole(o #> '{total_details,amount_shipping}'), 0);
  v_currency text := governance.stripe_currency(o -> 'currency');
  -- Adaptive Pricing: charged in the buyer's currency, and sold in ours.
  v_converted jsonb := governance.stripe_object(o -> 'currency_conversion');
  v_sold_total bigint := coalesce(governance.stripe_whole(v_converted -> 'amount_total'), v_total);
  v_sold_currency text := coalesce(governance.stripe_currency(v_converted -> 'source_currency'), v_currency);
  v_answer governance.order_money;
begin
  v_answer.currency := v_currency;
  v_answer.is_wrong_currency := v_sold_currency is distinct from p_currency;
  if v_answer.is_wrong_currency or least(v_total, v_tax, v_discount, v_shipping) < 0 then return v_answer; end if;
  -- The price may have tax on top or within it; a discount is whatever Stripe says that it took off.
  if v_sold_total + v_discount - v_shipping in (p_price, p_price + v_tax)
    and (v_converted = '{}' or v_tax + v_discount + v_shipping = 0) then
    v_answer.collected_minor := v_total;
    v_answer.booked_minor := greatest(v_total - v_tax - v_shipping, 0);
    v_answer.covered_minor := v_discount;
    v_answer.covered_by := case when v_discount > 0 then 'discount' end;
  end if;
  return v_answer;
end
$$;
comment on function governance.order_money(jsonb, jsonb, bigint, text) is
  'What an order with tax, a discount, shipping or a converted currency cost, held against the pack''s price.';

create function governance.grant_paid(
  p_now timestamptz, p_pay governance.stripe_payments, p_user_id text, p_pack_id text, p_tokens bigint, p_cause text,
  p_difference_id text default null, p_sale governance.order_money default null
) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  -- A pack that is sold as it is costs what was paid for it.
  v_booked bigint := coalesce(p_sale.booked_minor, p_pay.amount_minor);
  v_reference text := coalesce(p_pay.charge_id, p_pay.payment_intent_id, p_pay.checkout_session_id, p_pay.invoice_id);
  v_description text := 'Pack ' || p_pack_id;
  v_metadata jsonb := jsonb_strip_nulls(jsonb_build_object('cause', p_cause, 'pack_id', p_pack_id, 'charge_id',
    p_pay.charge_id,
    'payment_intent_id', p_pay.payment_intent_id, 'checkout_session_id', p_pay.checkout_session_id, 'amount_minor',
      v_booked,
    'currency', p_pay.currency, 'difference_id', p_difference_id,
    -- As governance.lot_seal writes it of a lot that is new.
    'lot_seal', concat_ws('|', 'purchased', extract(epoch from p_now), '-', p_tokens, 0, 0, 0)));
  v_lot_id bigint;
  v_id bigint;
  v_last_hash bytea;
  v_hash bytea;
  v_balance bigint;
  v_debt bigint;
begin
  insert into governance.lots (account_id, kind, created_at, description, pack_id, stripe_charge_id,
    stripe_payment_intent_id, stripe_checkout_session_id,
    amount_minor, currency, metadata, granted, remaining)
  values (p_pay.account_id, 'purchased', p_now, v_description, p_pack_id, p_pay.charge_id, p_pay.payment_intent_id,
    p_pay.checkout_session_id,
    v_booked, p_pay.currency, v_metadata, p_tokens, p_tokens)
  returning lot_id into v_lot_id;
  -- The transaction has its number, by the lot, before it draws the entry's id: readers of the feed rely on it.
  v_id := nextval('governance.event_ids');
  -- The entry is put together where the account is: "was" is the same row as it stood before.
  update governance.accounts a set purchased_tokens = a.purchased_tokens + p_tokens, last_transaction_id = v_id,
    last_hash = governance.entry_hash(a.last_hash, governance.entry_payload(v_id, p_now, 'purchase', p_tokens,
      a.subscription_tokens + a.purchased_tokens + a.promotional_tokens,
        a.subscription_tokens + a.purchased_tokens + a.promotional_tokens + p_tokens,
      a.debt_tokens, array[v_lot_id, p_tokens], null, a.user_id, v_reference, v_description, v_metadata))
  from governance.accounts was
  where a.account_id = p_pay.account_id and was.account_id = a.account_id
  returning was.last_hash, a.last_hash, a.subscription_tokens + a.purchased_tokens + a.promotional_tokens, a.debt_tokens
  into strict v_last_hash, v_hash, v_balance, v_debt;
  insert into governance.token_transactions (transaction_id, account_id, created_at, transaction_type, amount,
    previous_balance, new_balance, debt_after,
    lot_changes, reference, description, metadata, previous_hash, hash)
  values (v_id, p_pay.account_id, p_now, 'purchase', p_tokens, v_balance - p_tokens, v_balance, v_debt,
    array[v_lot_id, p_tokens], v_reference, v_description,
    v_metadata, v_last_hash, v_hash);
  insert into governance.stripe_lots (lot_id, payment_id, tokens) values (v_lot_id, p_pay.payment_id, p_tokens);
  insert into governance.purchase_records (transaction_id, account_id, created_at, record_type, lot_id, payment_id,
    tokens, amount_minor, currency, difference_id, collected_minor, covered_minor, covered_by)
  values (v_id, p_pay.account_id, p_now, 'grant', v_lot_id, p_pay.payment_id, p_tokens, v_booked,
    p_pay.currency, p_difference_id, p_sale.collected_minor, nullif(p_sale.covered_minor, 0), p_sale.covered_by);
  if v_debt > 0 then
    perform governance.recover_debt(p_pay.account_id, p_now, v_reference, p_tokens);
  end if;
  perform governance.ring('accounts', p_now);
  return '[]'::jsonb || governance.effect('grant', p_user_id, p_tokens, v_id);
end
$$;
comment on function governance.grant_paid(timestamptz, governance.stripe_payments, text, text, bigint, text, text,
  governance.order_money) is
  'Grants what a payment paid for, ties the lot to it and pays debt. The caller holds the locks of the '
  'payment and of the account, and has rolled the account.';

create function governance.settled(p_payment_id bigint, p_now timestamptz,
  p_cause text) returns governance.stripe_outcome
  language plpgsql set search_path = '' as $$
begin
  if p_payment_id is null then return governance.outcome('quarantined', 'malformed'); end if;
  return governance.outcome('processed', null, governance.settle_payment(p_payment_id, p_now, p_cause), p_payment_id);
end
$$;
comment on function governance.settled(bigint, timestamptz,
  text) is 'What became of an event that told of this payment; one that names none is for a person.';

create trigger purchase_records_append_only before update or delete or truncate on governance.purchase_records
  for each statement execute function governance.refuse_change();

-- A lot a payment: read in a moment, and the checks that it replaces held for each.
-- squawk-ignore constraint-missing-not-valid
alter table governance.stripe_lots add constraint stripe_lots_within_bounds
  check (governance.is_within_bounds(stripe_lots));
