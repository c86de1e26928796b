-- Stripe events: each is acted on once, in any order.

-- Money: Stripe's events become lots, and tokens follow the money. An event is never acted on by itself: it adds facts
-- about a payment (paid, refunded so much, disputed, won or lost), and governance.settle_payment then moves the
-- payment's lots to where those facts put them. Facts only grow, so the order and number of deliveries do not matter.

create table governance.webhook_events_processed (
  event_id text primary key,
  event_type text not null,
  -- Stripe's own time of the event; null where it has none.
  event_created_at timestamptz,
  received_at timestamptz not null,
  attempts int not null default 1,
  -- processed: acted on or noted. quarantined: waits for a person, and is tried again when it is delivered again.
  -- parked: nobody knows yet whether it is ours; taken up when its customer is known.
  status text not null,
  reason text,
  effects jsonb not null default '[]',
  payment_id bigint,
  -- An event whose user or plan is not known yet is tried again when this customer is.
  waits_for_customer text,
  -- Kept while quarantined or parked alone.
  payload jsonb,
  decided_at timestamptz,
  decided_by text,
  decided_reason text
) with (fillfactor = 90);

create index webhook_events_processed_time on governance.webhook_events_processed using brin (received_at);

comment on table governance.webhook_events_processed is 'Stripe events by id: each is acted on once. Done ones are '
  'cleared after 30 days, quarantined ones stay.';

create index webhook_events_processed_waiting on governance.webhook_events_processed (waits_for_customer, received_at)
  where status in ('quarantined', 'parked');

create function governance.outcome(p_status text, p_reason text default null, p_effects jsonb default '[]',
  p_payment_id bigint default null, p_waits_for text default null)
  returns governance.stripe_outcome
  language sql immutable set search_path = '' as $$
  select row(p_status, p_reason, coalesce(p_effects, '[]'), p_payment_id, p_waits_for)::governance.stripe_outcome
$$;
comment on function governance.outcome(text, text, jsonb, bigint, text) is 'The outcome of an event.';

create function governance.on_checkout(p_event_id text, p_type text, p_now timestamptz, p_event_at timestamptz, o jsonb,
  p_livemode boolean) returns governance.stripe_outcome
  language plpgsql set search_path = '' as $$
declare
  v_metadata jsonb := o -> 'metadata';
  v_user_id text := nullif(btrim(v_metadata ->> 'user_id'), '');
  v_pack_id text := nullif(btrim(v_metadata ->> 'pack_id'), '');
  v_session text := governance.stripe_id(o -> 'id');
  v_mode text := o ->> 'mode';
  v_status text := o ->> 'payment_status';
  v_account_id bigint;
begin
  -- Most orders have these names; only with others there is a search.
  if v_user_id is null then
    v_user_id := coalesce(governance.metadata_text(v_metadata, 'userId', 'userid'),
      governance.stripe_id(o -> 'client_reference_id'));
  end if;
  if v_pack_id is null then v_pack_id := governance.metadata_text(v_metadata, 'packId', 'packid'); end if;
  if v_mode = 'subscription' then
    -- The tokens come with invoice.paid; the session shows whose subscription it is.
    select a.account_id into v_account_id from governance.accounts a where a.user_id = v_user_id;
    if governance.stripe_id(o -> 'subscription') is not null then
      v_account_id := governance.own_subscription(p_now, p_event_id, governance.stripe_id(o -> 'subscription'),
        v_account_id, coalesce(p_event_at, p_now));
    end if;
    return governance.outcome('processed', 'subscription_noted',
      governance.note_subscription(p_now, p_event_id, governance.stripe_id(o -> 'subscription'),
        governance.stripe_id(o -> 'customer'), v_account_id,
        governance.metadata_text(v_metadata, 'plan_id', 'planId', 'plan'),
        governance.metadata_text(v_metadata, 'tokens')));
  elsif v_mode = 'setup' then
    return governance.outcome('ignored', 'not_a_token_purchase');
  elsif v_pack_id is null then
    if not governance.is_token_order(v_metadata) then return governance.outcome('ignored', 'not_a_token_purchase');
      end if;
  end if;
  if p_type in ('checkout.session.expired', 'checkout.session.async_payment_failed') then
    update governance.checkouts c set closed_at = p_now
    where c.checkout_id = (select x.checkout_id from governance.checkouts x
      join governance.accounts a using (account_id)
      where a.user_id = v_user_id and x.closed_at is null order by x.pack_id = v_pack_id desc, x.opened_at limit 1);
    return governance.outcome('processed', case when p_type = 'checkout.session.expired' then 'expired'
      else 'payment_failed' end);
  elsif v_session is null then
    return governance.outcome('quarantined', 'malformed');
  end if;
  if v_status in ('paid', 'no_payment_required') then
    return governance.on_paid_order(p_event_id, p_now, p_event_at, o, v_metadata, v_user_id, v_pack_id,
      governance.stripe_id(o -> 'payment_intent'), null, v_session, p_livemode, o -> 'amount_total');
  end if;
  return governance.outcome(case when v_status = 'unpaid' then 'processed' else 'quarantined' end,
    case when v_status = 'unpaid' then 'awaiting_payment' else 'payment_status_unknown' end,
    p_payment_id => (governance.note_payment(p_now, governance.stripe_id(o -> 'payment_intent'), null, v_session,
      governance.stripe_id(o -> 'invoice'), governance.stripe_id(o -> 'customer'),
      p_livemode, governance.metadata_text(v_metadata, 'order_id', 'orderId'))).payment_id);
end
$$;
comment on function governance.on_checkout(text, text, timestamptz, timestamptz, jsonb, boolean) is
  'Acts on checkout.session.*.';

create function governance.on_charge(p_event_id text, p_type text, p_now timestamptz, p_event_at timestamptz, o jsonb,
  p_livemode boolean, p_version text) returns governance.stripe_outcome
  language plpgsql set search_path = '' as $$
declare
  v_charge text := governance.stripe_id(o -> 'id');
  v_intent text := governance.stripe_id(o -> 'payment_intent');
  v_refunded bigint := coalesce(governance.stripe_whole(o -> 'amount_refunded'), 0);
  v_charged_at timestamptz := governance.stripe_time(o -> 'created');
  v_released bigint := 0;
  v_refund jsonb;
  v_outcome governance.stripe_outcome;
  v_pay governance.stripe_payments;
begin
  if v_charge is null then return governance.outcome('quarantined', 'malformed'); end if;
  -- A failed try is not the payment; the next one has another id.
  if p_type in ('charge.failed', 'charge.pending', 'charge.expired')
    or coalesce(o ->> 'status', 'succeeded') <> 'succeeded' then
    return governance.outcome('processed', case when p_type = 'charge.pending' then 'awaiting_payment'
      else 'payment_failed' end);
  end if;
  if v_intent is null and p_type in ('charge.succeeded', 'charge.captured') and o -> 'captured' <> 'false'
    and governance.is_token_order(o -> 'metadata') then
    -- Sold by a charge alone, as before there were PaymentIntents: then the order is on the charge.
    v_outcome := governance.on_paid_order(p_event_id, p_now, p_event_at, o, o -> 'metadata',
      governance.metadata_text(o -> 'metadata', 'user_id', 'userId', 'userid'),
      governance.metadata_text(o -> 'metadata', 'pack_id', 'packId', 'packid'), null, v_charge, null, p_livemode,
      coalesce(nullif(o -> 'amount_captured', 'null'), o -> 'amount'));
    if v_outcome.status = 'quarantined' then return v_outcome; end if;
  end if;
  v_pay := governance.note_payment(p_now, v_intent, v_charge, null, governance.stripe_id(o -> 'invoice'),
    governance.stripe_id(o -> 'customer'), p_livemode);
  if v_refunded > 0 then
    -- When it is captured nothing else can have been refunded.
    v_released := governance.released_minor(o,
      case when p_type <> 'charge.captured' and v_pay.released_minor = 0 then p_version end);
    v_refunded := greatest(v_refunded - v_released, 0);
  end if;
  if v_charged_at < p_event_at - interval '1 hour' and v_pay.charged_at is distinct from v_charged_at
    or v_released > v_pay.released_minor then
    update governance.stripe_payments p set released_minor = greatest(p.released_minor, v_released),
      charged_at = least(p.charged_at, v_charged_at)
    where p.payment_id = v_pay.payment_id;
  end if;
  if v_refunded > 0 then
    update governance.stripe_payments p set
      refunded_minor = case when p.charge_id = v_charge then greatest(p.refunded_minor, v_refunded)
        else p.refunded_minor end,
      refunded_at = greatest(p.refunded_at, p_event_at)
    where p.payment_id = v_pay.payment_id;
    update governance.stripe_payment_names n set refunded_minor = greatest(n.refunded_minor, v_refunded)
    where n.name = v_charge;
    if p_type = 'charge.refunded' then perform governance.note_refund_figure(v_charge, p_event_at, v_refunded); end if;
  end if;
  -- Before 2022-11-15 a charge lists its refunds.
  for v_refund in select r.value from jsonb_array_elements(governance.stripe_list(o -> 'refunds')) r limit 100 loop
    perform governance.note_refund(p_now, p_event_at, governance.stripe_object(v_refund), v_charge, v_intent);
  end loop;
  return governance.outcome('processed', v_outcome.reason, coalesce(v_outcome.effects, '[]')
    || governance.settle_payment(v_pay.payment_id, p_now, p_event_id), v_pay.payment_id);
end
$$;
comment on function governance.on_charge(text, text, timestamptz, timestamptz, jsonb, boolean, text) is
  'Acts on charge.*, charge.refunded included; refunds and disputes have events of their own.';

create function governance.on_payment_intent(p_event_id text, p_type text, p_now timestamptz, p_event_at timestamptz,
  o jsonb, p_livemode boolean, p_version text) returns governance.stripe_outcome
  language plpgsql set search_path = '' as $$
declare
  v_intent text := governance.stripe_id(o -> 'id');
  v_charge text := coalesce(governance.stripe_id(o -> 'latest_charge'),
    governance.stripe_id(o #> '{charges,data,0,id}'));
  v_metadata jsonb := governance.stripe_object(o -> 'metadata');
  v_released bigint := governance.stripe_whole(o -> 'amount') - governance.stripe_whole(o -> 'amount_received');
  v_outcome governance.stripe_outcome;
begin
  if v_intent is null then return governance.outcome('quarantined', 'malformed'); end if;
  if p_type <> 'payment_intent.succeeded' then return governance.outcome('processed', 'payment_failed'); end if;
  -- Sold without Checkout: then the order is on the payment itself.
  if governance.is_token_order(v_metadata) then
    v_outcome := governance.on_paid_order(p_event_id, p_now, p_event_at, o, v_metadata,
      coalesce(governance.metadata_text(v_metadata, 'user_id', 'userId', 'userid'),
        governance.stripe_id(o -> 'client_reference_id')),
      governance.metadata_text(v_metadata, 'pack_id', 'packId', 'packid'), v_intent, v_charge, null, p_livemode,
      coalesce(nullif(o -> 'amount_received', 'null'), o -> 'amount'));
  else
    v_outcome := governance.settled((governance.note_payment(p_now, v_intent, v_charge, null,
      governance.stripe_id(o -> 'invoice'), governance.stripe_id(o -> 'customer'), p_livemode)).payment_id, p_now,
      p_event_id);
  end if;
  if v_released > 0 and p_version < '2025-03-31' then
    update governance.stripe_payments p set released_minor = greatest(p.released_minor, v_released)
    where p.payment_id = v_outcome.payment_id;
    v_outcome.effects := v_outcome.effects || governance.settle_payment(v_outcome.payment_id, p_now, p_event_id);
  end if;
  return v_outcome;
end
$$;
comment on function governance.on_payment_intent(text, text, timestamptz, timestamptz, jsonb, boolean, text) is
  'Acts on payment_intent.*.';

-- So that no statement is planned again, or compiled, for each event.
create function public.process_stripe_event(p_event jsonb) returns jsonb
  language plpgsql security definer set search_path = '' set plan_cache_mode = force_generic_plan set jit = off as $$
declare
  v_id text := p_event ->> 'id';
  v_type text := p_event ->> 'type';
  v_now timestamptz;
  v_known_id text;
  v_known_type text;
  v_status text;
  v_reason text;
begin
  perform governance.refuse_others('process_stripe_event');
  -- In lists of at most eight: a longer one is hashed, again in every transaction.
  if not coalesce(jsonb_typeof(p_event -> 'id') = 'string' and btrim(v_id) <> '' and length(v_id) <= 255
    and pg_column_size(p_event) <= 1048576
    and (v_type in ('checkout.session.completed', 'payment_intent.succeeded', 'charge.succeeded', 'charge.updated',
      'charge.captured', 'charge.refunded',
        'invoice.paid', 'invoice_payment.paid')
      or v_type in ('refund.created', 'refund.updated', 'refund.failed', 'charge.refund.updated',
        'customer.subscription.created',
        'customer.subscription.updated', 'customer.subscription.deleted', 'invoice.payment_succeeded')
      or v_type in ('charge.dispute.created', 'charge.dispute.updated', 'charge.dispute.closed',
        'charge.dispute.funds_withdrawn',
        'charge.dispute.funds_reinstated', 'checkout.session.async_payment_succeeded',
          'checkout.session.async_payment_failed', 'checkout.session.expired')
      or v_type in ('payment_intent.payment_failed', 'payment_intent.canceled', 'charge.failed', 'charge.pending',
        'charge.expired',
        'invoice.payment_failed')), false) then
    if jsonb_typeof(p_event) is distinct from 'object' then
      perform governance.fail('PT400', 'invalid_argument', 'p_event is the event object as Stripe sends it');
    elsif jsonb_typeof(p_event -> 'id') is distinct from 'string' or btrim(v_id) = '' or length(v_id) > 255 then
      perform governance.fail('PT400', 'invalid_argument',
        'p_event.id is the event''s id, a text of at most 255 characters');
    elsif jsonb_typeof(p_event -> 'type') is distinct from 'string' or btrim(v_type) = '' or length(v_type) > 255 then
      perform governance.fail('PT400', 'invalid_argument',
        'p_event.type is the event''s type, a text of at most 255 characters');
    elsif pg_column_size(p_event) > 1048576 then
      perform governance.fail('PT400', 'invalid_argument', 'p_event is larger than 1 MB: Stripe sends no such event');
    end if;
    return jsonb_build_object('event_id', v_id, 'status', 'ignored', 'reason', 'unhandled_type', 'effects',
      '[]'::jsonb);
  end if;
  -- One at a time for each event; what came of it is written once, at the end.
  perform pg_advisory_xact_lock(hashtextextended(v_id, 7256));
  select coalesce(c.test_clock_at, clock_timestamp() + coalesce(c.test_clock_offset, interval '0')), w.event_id,
    w.event_type, w.status, w.reason
  into v_now, v_known_id, v_known_type, v_status, v_reason
  from governance.active_config c left join governance.webhook_events_processed w on w.event_id = v_id;
  if v_known_id is not null and (v_status not in ('quarantined', 'parked') or v_known_type <> v_type) then
    return jsonb_build_object('event_id', v_id, 'status', 'duplicate', 'reason', v_reason, 'effects', '[]'::jsonb);
  end if;
  -- One that waits is looked at again: what it waited for may be there by now.
  return governance.take_event(v_id, p_event, v_now, v_known_id is null);
end
$$;
comment on function public.process_stripe_event(jsonb) is
  'Takes a Stripe event whose signature was checked: any order, any number of times, API versions from 2020-08-27 on. '
  'Returns event_id, status processed / duplicate / ignored / quarantined, reason, effects. Errors: invalid_argument.';
revoke all on function public.process_stripe_event(jsonb) from public, anon, authenticated;
grant execute on function public.process_stripe_event(jsonb) to service_role;

create function governance.on_paid_order(
  p_event_id text, p_now timestamptz, p_event_at timestamptz, o jsonb, p_metadata jsonb, p_user_id text, p_pack_id text,
  p_intent text, p_charge text, p_session text, p_livemode boolean, p_amount jsonb
) returns governance.stripe_outcome
  language plpgsql set search_path = '' as $$
declare
  -- Most orders have neither.
  v_invoice text := case when o ->> 'invoice' is not null then governance.stripe_id(o -> 'invoice') end;
  v_order text := case when p_metadata ?| array['order_id', 'orderId']
    then governance.metadata_text(p_metadata, 'order_id', 'orderId') end;
  v_customer text := governance.stripe_id(o -> 'customer');
  v_tokens text := btrim(p_metadata ->> 'tokens');
  v_at timestamptz := coalesce(governance.stripe_time(o -> 'created'), p_event_at, p_now);
  v_pay governance.stripe_payments;
  v_account_id bigint;
  v_needs_roll boolean;
  v_balance bigint;
  v_pack_tokens bigint;
  v_price bigint;
  v_currency text;
  v_was_sold boolean;
  v_may_buy boolean;
  v_plan_id text;
  v_allows_top_up boolean;
  v_sale governance.order_money;
  v_has_checkout boolean;
  v_knows_customer boolean;
  v_fits boolean;
  v_was_known boolean := false;
  v_reason text;
  v_effects jsonb;
begin
  perform governance.lock_stripe_ids(p_intent, p_charge, p_session, v_invoice);
  select a.account_id, governance.needs_roll(a, p_now),
    a.subscription_tokens + a.purchased_tokens + a.promotional_tokens, a.plan_id, l.allows_top_up
  into v_account_id, v_needs_roll, v_balance, v_plan_id, v_allows_top_up
  from governance.accounts a join governance.plans l using (plan_id) where a.user_id = p_user_id;
  -- The pack as it is sold is nearly always the pack as it was sold then.
  select p.tokens, p.price_minor, p.currency, p.effective_from <= v_at,
    case when p.plans is null then v_allows_top_up else v_plan_id = any (p.plans) end,
    exists (select from governance.checkouts c where c.account_id = v_account_id and c.closed_at is null),
    exists (select from governance.stripe_customers k where k.customer_id = v_customer)
  into v_pack_tokens, v_price, v_currency, v_was_sold, v_may_buy, v_has_checkout, v_knows_customer
  from governance.packs p where p.pack_id = p_pack_id and p.retired_at is null;
  if v_was_sold is not true then
    select p.tokens, p.price_minor, p.currency, case when p.plans is null then v_allows_top_up
      else v_plan_id = any (p.plans) end
    into v_pack_tokens, v_price, v_currency, v_may_buy from governance.pack_at(p_pack_id, v_at) p;
  end if;
  -- A purchase that was allowed when its checkout began is still allowed.
  v_may_buy := v_may_buy or exists (select from governance.checkouts c
    where v_has_checkout and c.account_id = v_account_id and c.pack_id = p_pack_id and c.closed_at is null);
  v_fits := v_account_id is not null and (v_tokens is null or v_tokens = v_pack_tokens::text)
    and v_may_buy
    and p_amount = to_jsonb(v_price) and o ->> 'currency' = v_currency
    and coalesce(o #> '{total_details,amount_tax}', '0') = '0'
    and (v_invoice is null or not coalesce(o -> 'total_details' ?| array['amount_outside', 'amount_balance'], false))
    and v_balance + v_pack_tokens < 9007199254740992;

  -- A payment that fits and is new is inserted as granted, in one statement.
  if v_fits then
    insert into governance.stripe_payments (account_id, payment_intent_id, charge_id, checkout_session_id, invoice_id,
      customer_id, livemode, order_id,
      amount_minor, currency, paid_at, created_at)
    values (v_account_id, p_intent, p_charge, p_session, v_invoice, v_customer, p_livemode, v_order, v_price,
      v_currency, coalesce(p_event_at, p_now), p_now)
    on conflict do nothing returning * into v_pay;
  end if;
  if v_pay.payment_id is null then
    v_pay := governance.find_payment(p_intent, p_charge, p_session, v_invoice);
    if exists (select from governance.stripe_lots s where s.payment_id = v_pay.payment_id) then
      v_pay := governance.write_payment(v_pay, p_now, p_intent, p_charge, p_session, v_invoice, v_customer, p_livemode,
        v_order);
      return governance.outcome('processed', 'already_granted',
        governance.settle_payment(v_pay.payment_id, p_now, p_event_id), v_pay.payment_id);
    end if;
    v_was_known := v_pay.payment_id is not null;
    if v_fits is not true then
      v_sale := governance.order_money(o, p_amount, v_price, v_currency);
      v_reason := case
        when v_tokens !~ '^[0-9]{1,15}$' or v_tokens ~ '^0+$' then 'invalid_tokens'
        when v_tokens::bigint > 100000000 then 'tokens_above_ceiling'
        when v_account_id is null then 'unknown_user'
        when v_pack_tokens is null then 'unknown_pack'
        when v_tokens::bigint <> v_pack_tokens then 'tokens_mismatch'
        when v_sale.is_wrong_currency then 'currency_mismatch'
        when v_sale.booked_minor is null then 'amount_mismatch'
        when not v_may_buy then 'plan_not_allowed'
        when v_balance + v_pack_tokens > 9007199254740991 then 'balance_above_ceiling'
      end;
      if v_reason is not null then
        v_pay := governance.write_payment(v_pay, p_now, p_intent, p_charge, p_session, v_invoice, v_customer,
          p_livemode, v_order);
        return governance.outcome('quarantined', v_reason, p_payment_id => v_pay.payment_id);
      end if;
    end if;
    v_pay := governance.write_payment(v_pay, p_now, p_intent, p_charge, p_session, v_invoice, v_customer, p_livemode,
      v_order, v_account_id, coalesce(v_sale.collected_minor, v_price), coalesce(v_sale.currency, v_currency),
      coalesce(p_event_at, p_now));
  end if;

  perform pg_advisory_xact_lock(governance.lock_key(p_user_id));
  if v_needs_roll then perform governance.roll_account(v_account_id, p_now); end if;
  v_effects := governance.grant_paid(p_now, v_pay, p_user_id, p_pack_id, v_pack_tokens, p_event_id, null, v_sale);
  if v_has_checkout is not false then
    update governance.checkouts c set closed_at = p_now
    where c.checkout_id = (select o.checkout_id from governance.checkouts o
      where o.account_id = v_account_id and o.closed_at is null order by o.pack_id = p_pack_id desc, o.opened_at
        limit 1);
  end if;
  if v_knows_customer is not true then perform governance.learn_customer(v_customer, v_account_id); end if;
  -- Only a payment that was known before can have earlier refunds or disputes.
  if v_was_known then
    v_effects := v_effects || governance.settle_payment(v_pay.payment_id, p_now, p_event_id);
  end if;
  return governance.outcome('processed', null, v_effects, v_pay.payment_id);
end
$$;
comment on function governance.on_paid_order(text, timestamptz, timestamptz, jsonb, jsonb, text, text, text, text, text,
  boolean, jsonb) is
  'Grants what was paid for once all of it fits: user, pack, tokens, price at the time, currency, ceiling; otherwise '
  'it waits for a person.';

create function governance.close_event_alert(p_event_id text, p_now timestamptz, p_by text, p_words text) returns void
  language sql set search_path = '' as $$
  update governance.alert_events e set acknowledged_at = p_now, acknowledged_by = p_by, resolution = p_words
  where e.alert_event_id in (
    -- An alert that an operator is deciding at this moment is left to them.
    select x.alert_event_id from governance.alert_events x
    where x.kind = 'webhook_quarantined' and coalesce(x.alert_id, 0) = 0 and coalesce(x.account_id, 0) = 0
      and coalesce(x.threshold, 0) = 0 and x.period_key = p_event_id and x.period_key <> ''
        and x.acknowledged_at is null
    for update skip locked)
$$;
comment on function governance.close_event_alert(text, timestamptz, text, text) is
  'Closes the alert of an event that no longer waits for a decision.';

create function governance.take_event(p_event_id text, p_event jsonb, p_now timestamptz,
  p_is_new boolean default false) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_type text := p_event ->> 'type';
  v_event_at timestamptz := governance.stripe_time(p_event -> 'created');
  v_live boolean := case p_event -> 'livemode' when 'true' then true when 'false' then false end;
  o jsonb := p_event #> '{data,object}';
  v_outcome governance.stripe_outcome;
  v_status text;
  v_waits boolean;
begin
  begin
    if not v_live then
      if exists (select from governance.settings s where s.key = 'stripe_livemode' and s.value = 'true') then
        v_outcome := governance.outcome('quarantined', 'test_mode');
      end if;
    end if;
    if p_event -> 'account' <> 'null' and not governance.stripe_id(p_event -> 'account')
      = any (governance.setting_texts('stripe_accounts', '{}')) then
      -- The money of a connected account is not ours.
      v_outcome := governance.outcome('quarantined', 'connected_account');
    end if;
    if jsonb_typeof(o) is distinct from 'object' then v_outcome := governance.outcome('quarantined', 'malformed');
    elsif v_outcome.status is not null then null;
    elsif v_type like 'checkout.session.%'
      then v_outcome := governance.on_checkout(p_event_id, v_type, p_now, v_event_at, o, v_live);
    elsif v_type like 'payment_intent.%'
      then v_outcome := governance.on_payment_intent(p_event_id, v_type, p_now, v_event_at, o, v_live,
        p_event ->> 'api_version');
    elsif v_type like 'charge.dispute.%' then
      v_outcome := governance.settled(governance.note_dispute(p_now, coalesce(v_event_at, p_now), o, v_type), p_now,
        p_event_id);
    elsif v_type like 'refund.%' and governance.stripe_id(o -> 'id') is not null
      and o -> 'charge' = 'null' and o -> 'payment_intent' = 'null' then
      -- Of a customer's cash balance: money that paid for nothing. Where either is left out it may be of a payment.
      v_outcome := governance.outcome('ignored', 'not_a_token_purchase');
    elsif v_type like 'refund.%' or v_type = 'charge.refund.updated' then
      v_outcome := governance.settled(governance.note_refund(p_now, coalesce(v_event_at, p_now), o), p_now, p_event_id);
    elsif v_type like 'charge.%'
      then v_outcome := governance.on_charge(p_event_id, v_type, p_now, coalesce(v_event_at, p_now), o, v_live,
        p_event ->> 'api_version');
    elsif v_type in ('invoice.paid', 'invoice.payment_succeeded')
      then v_outcome := governance.on_invoice(p_event_id, p_now, v_event_at, o, v_live);
    elsif v_type = 'invoice_payment.paid' then
      v_outcome := governance.settled(governance.note_invoice_payment(p_now, o), p_now, p_event_id);
    elsif v_type like 'invoice.%' then v_outcome := governance.outcome('processed', 'payment_failed');
    else v_outcome := governance.on_subscription(p_event_id, v_type, p_now, coalesce(v_event_at, p_now), o);
    end if;
  exception when data_exception or integrity_constraint_violation or sqlstate 'PT400' or sqlstate 'PT404' then
    -- Whatever is in it, an event is kept for a person; if it were refused, Stripe would deliver it again and again.
    v_outcome := governance.outcome('quarantined', 'malformed');
  end;
  v_waits := v_outcome.status = 'quarantined';
  v_status := case when v_outcome.status in ('quarantined', 'parked') then v_outcome.status else 'processed' end;
  if p_is_new then
    insert into governance.webhook_events_processed (event_id, event_type, event_created_at, received_at, status,
      reason, effects, payment_id,
      waits_for_customer, payload)
    values (p_event_id, v_type, v_event_at, p_now, v_status, v_outcome.reason, v_outcome.effects,
      v_outcome.payment_id, v_outcome.waits_for_customer, case when v_status <> 'processed' then p_event end);
  else
    update governance.webhook_events_processed w set
      status = v_status, reason = v_outcome.reason, effects = w.effects || v_outcome.effects,
      payment_id = v_outcome.payment_id, waits_for_customer = v_outcome.waits_for_customer,
      payload = case when v_status <> 'processed' then p_event end, attempts = w.attempts + 1
    where w.event_id = p_event_id;
    if not v_waits then
      perform governance.close_event_alert(p_event_id, p_now, 'Stripe', 'What it waited for came, and it was acted on');
    end if;
  end if;
  if v_waits then
    perform governance.raise_event_alert(p_event_id, v_type, v_outcome.reason, v_outcome.payment_id, p_now);
    perform governance.ring('alerts', p_now);
  elsif v_type = 'charge.dispute.created' and v_outcome.effects <> '[]' then
    insert into governance.alert_events (account_id, kind, severity, message, period_key, details, created_at)
    select p.account_id, 'stripe_dispute', 'warning', 'A payment is disputed: what is left of its tokens is frozen',
      p_event_id,
      jsonb_build_object('event_id', p_event_id, 'charge_id', p.charge_id, 'payment_intent_id', p.payment_intent_id),
        p_now
    from governance.stripe_payments p where p.payment_id = v_outcome.payment_id
    on conflict do nothing;
    perform governance.ring('alerts', p_now);
  end if;
  return jsonb_build_object('event_id', p_event_id,
    'status', case v_outcome.status when 'parked' then 'ignored' else v_outcome.status end,
    'reason', v_outcome.reason, 'effects', v_outcome.effects);
end
$$;
comment on function governance.take_event(text, jsonb, timestamptz, boolean) is
  'Acts on an event and keeps what came of it; p_is_new when nothing is kept of it yet. Returns as '
  'process_stripe_event does.';
