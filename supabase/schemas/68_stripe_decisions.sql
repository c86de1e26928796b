-- Stripe events that wait for a person.

create function governance.raise_event_alert(p_event_id text, p_type text, p_reason text, p_payment_id bigint,
  p_now timestamptz) returns void
  language sql set search_path = '' as $$
  insert into governance.alert_events (kind, severity, message, period_key, details, created_at)
  values ('webhook_quarantined', 'critical', format('A Stripe event waits for a decision: %s (%s)',
    replace(p_reason, '_', ' '), p_type),
    p_event_id, jsonb_build_object('event_id', p_event_id, 'event_type', p_type, 'reason', p_reason, 'payment_id',
      p_payment_id), p_now)
  on conflict do nothing
$$;
comment on function governance.raise_event_alert(text, text, text, bigint, timestamptz) is
  'Raises an alert, once, for an event that waits for a person.';

create function governance.show_waiting_invoices(p_now timestamptz, p_limit int) returns int
  language plpgsql set search_path = '' as $$
declare
  v_event record;
  v_count int := 0;
begin
  for v_event in
    update governance.webhook_events_processed w set status = 'quarantined', reason = 'unknown_plan'
    where w.event_id in (
      select x.event_id from governance.webhook_events_processed x
      where x.status = 'parked' and x.received_at < p_now - interval '15 minutes'
        and exists (select from governance.stripe_customers c where c.customer_id = x.waits_for_customer)
      order by x.received_at limit p_limit for update skip locked)
    returning w.event_id, w.event_type, w.reason, w.payment_id
  loop
    perform governance.raise_event_alert(v_event.event_id, v_event.event_type, v_event.reason, v_event.payment_id,
      p_now);
    v_count := v_count + 1;
  end loop;
  return v_count;
end
$$;
comment on function governance.show_waiting_invoices(timestamptz, int) is
  'Invoices that a known customer paid a quarter of an hour ago, for a plan that is still unknown: from now on they '
  'wait for a person, with an alert. Each is still taken up by itself when its plan becomes known. Returns how many.';

create function public.console_stripe_events(p_limit int default 100, p_before timestamptz default null) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
begin
  perform governance.refuse_others('console_stripe_events');
  if p_limit is null or p_limit not between 1 and 1000 then
    perform governance.fail('PT400', 'invalid_argument', 'p_limit is a whole number from 1 to 1000');
  end if;
  return jsonb_build_object(
    'waiting', (select count(*) from governance.webhook_events_processed w where w.status = 'quarantined'),
    'events', (select coalesce(jsonb_agg(jsonb_build_object('event_id', e.event_id, 'event_type', e.event_type,
      'reason', e.reason,
        'event_created_at', e.event_created_at, 'received_at', e.received_at, 'attempts', e.attempts, 'payload',
          e.payload,
        'charge_id', p.charge_id, 'payment_intent_id', p.payment_intent_id) order by e.received_at desc, e.event_id),
          '[]')
      from (select * from governance.webhook_events_processed w
        where w.status = 'quarantined' and (p_before is null or w.received_at < p_before)
        order by w.received_at desc limit p_limit) e left join governance.stripe_payments p using (payment_id)));
end
$$;
comment on function public.console_stripe_events(int,
  timestamptz) is 'Stripe events that wait for a person, newest first, with why. Errors: invalid_argument.';
revoke all on function public.console_stripe_events(int, timestamptz) from public, anon, authenticated;
grant execute on function public.console_stripe_events(int, timestamptz) to service_role;

create function public.console_release_stripe_event(
  p_command_id text, p_event_id text, p_operator text, p_reason text, p_user_id text default null,
    p_pack_id text default null, p_tokens bigint default null
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
  perform governance.refuse_others('console_release_stripe_event');
  perform governance.check_id('p_command_id', p_command_id);
  perform governance.check_id('p_event_id', p_event_id);
  perform governance.check_id('p_operator', p_operator);
  perform governance.check_id('p_reason', p_reason, 2000);
  perform governance.check_optional('p_user_id', p_user_id, 255);
  perform governance.check_optional('p_pack_id', p_pack_id, 255);
  if p_tokens not between 1 and 100000000 then
    perform governance.fail('PT400', 'invalid_argument', 'p_tokens is a whole number from 1 to 100,000,000');
  end if;
  v_answer := governance.begin_command('release_stripe_event', p_command_id,
    row(p_event_id, p_operator, p_reason, p_user_id, p_pack_id, p_tokens)::text);
  if v_answer is not null then return v_answer; end if;
  select * into v_known from governance.webhook_events_processed w where w.event_id = p_event_id for update;
  if v_known.event_id is null then
    perform governance.fail('PT404', 'not_found', 'There is no such event');
  elsif v_known.status = 'processed' and v_known.decided_at is null then
    -- It was processed by itself meanwhile: what the person wanted is done.
    return governance.end_command('release_stripe_event', p_command_id, jsonb_build_object('event_id', p_event_id,
      'status', 'processed', 'reason', 'already_processed', 'effects', v_known.effects));
  elsif v_known.status not in ('quarantined', 'parked') then
    perform governance.fail('PT409', 'already_decided', format('This event is %s already', v_known.status));
  end if;
  v_now := governance.now();
  v_object := governance.stripe_object(v_known.payload #> '{data,object}');
  -- The cause may have been removed: a user made, a plan named, a pack added.
  v_answer := governance.take_event(p_event_id, v_known.payload, v_now);
  if v_answer ->> 'status' = 'quarantined' then
    if v_known.event_type not in ('checkout.session.completed', 'checkout.session.async_payment_succeeded',
      'payment_intent.succeeded') then
      perform governance.fail('PT409', 'still_quarantined',
        format('This event still cannot be acted on (%s): put right what is missing, or dismiss it',
          replace(v_answer ->> 'reason', '_', ' ')));
    end if;
    v_metadata := governance.stripe_object(v_object -> 'metadata');
    v_user_id := coalesce(p_user_id, governance.metadata_text(v_metadata, 'user_id', 'userId', 'userid'),
      governance.stripe_id(v_object -> 'client_reference_id'));
    v_pack_id := coalesce(p_pack_id, governance.metadata_text(v_metadata, 'pack_id', 'packId', 'packid'));
    v_tokens := coalesce(p_tokens, (governance.pack_at(v_pack_id, v_now)).tokens);
    v_amount := coalesce(governance.stripe_whole(v_object -> 'amount_total'),
      governance.stripe_whole(v_object -> 'amount_received'), governance.stripe_whole(v_object -> 'amount'));
    v_currency := governance.stripe_currency(v_object -> 'currency');
    if coalesce(v_object ->> 'payment_status', 'paid') not in ('paid', 'no_payment_required') then
      perform governance.fail('PT409', 'not_paid', 'Stripe has not reported that this was paid');
    elsif v_tokens is null then
      perform governance.fail('PT400', 'invalid_argument',
        'p_tokens or a known p_pack_id is needed: the event names none');
    elsif v_user_id is null or not exists (select from governance.accounts a where a.user_id = v_user_id) then
      perform governance.fail('PT404', 'unknown_user', 'p_user_id is needed: the event names no known user');
    elsif v_amount is null or v_amount < 0 or v_currency is null then
      perform governance.fail('PT409', 'still_quarantined',
        'The event has no paid amount: dismiss it, and book the payment by reconciliation');
    end if;
    v_pay := governance.note_payment(v_now,
      coalesce(governance.stripe_id(v_object -> 'payment_intent'), case
      when v_known.event_type like 'payment_intent%' then governance.stripe_id(v_object -> 'id') end),
      null, case when v_known.event_type like 'checkout%' then governance.stripe_id(v_object -> 'id') end,
        governance.stripe_id(v_object -> 'invoice'));
    if exists (select from governance.stripe_lots s where s.payment_id = v_pay.payment_id) then
      perform governance.fail('PT409', 'already_granted',
        'This payment was granted by another event: dismiss this one');
    end if;
    v_effects := governance.grant_pack(v_now, v_pay.payment_id, v_user_id, coalesce(v_pack_id, 'custom'), v_tokens,
      v_amount, v_currency,
      coalesce(v_known.event_created_at, v_now), p_event_id)
        || governance.settle_payment(v_pay.payment_id, v_now, p_event_id);
    update governance.webhook_events_processed w set status = 'processed', effects = v_effects, payload = null,
      payment_id = v_pay.payment_id
    where w.event_id = p_event_id;
    v_answer := jsonb_build_object('event_id', p_event_id, 'status', 'processed', 'reason', 'released', 'effects',
      v_effects);
  end if;
  update governance.webhook_events_processed w set decided_at = v_now, decided_by = p_operator,
    decided_reason = p_reason where w.event_id = p_event_id;
  perform governance.close_event_alert(p_event_id, v_now, p_operator, p_reason);
  insert into governance.audit_log (created_at, operator, action, account_id, reason, command_id, details)
  select v_now, p_operator, 'release_stripe_event', p.account_id, p_reason, p_command_id,
    jsonb_build_object('event_id', p_event_id, 'was', v_known.reason, 'effects', v_answer -> 'effects')
  from governance.webhook_events_processed w left join governance.stripe_payments p using (payment_id)
    where w.event_id = p_event_id;
  return governance.end_command('release_stripe_event', p_command_id, v_answer);
end
$$;
comment on function public.console_release_stripe_event(text, text, text, text, text, text, bigint) is
  'A person lets a quarantined event through: as it is if what was missing is there now, else a paid order with the '
  'user, pack or tokens given. Audited. Errors: invalid_argument, not_found, already_decided, still_quarantined, '
  'not_paid, already_granted, unknown_user, idempotency_conflict.';
revoke all on function public.console_release_stripe_event(text, text, text, text, text, text, bigint)
  from public, anon, authenticated;
grant execute on function public.console_release_stripe_event(text, text, text, text, text, text,
  bigint) to service_role;

create function public.console_dismiss_stripe_event(p_command_id text, p_event_id text, p_operator text,
  p_reason text) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_known governance.webhook_events_processed;
  v_now timestamptz;
  v_answer jsonb;
begin
  perform governance.refuse_others('console_dismiss_stripe_event');
  perform governance.check_id('p_command_id', p_command_id);
  perform governance.check_id('p_event_id', p_event_id);
  perform governance.check_id('p_operator', p_operator);
  perform governance.check_id('p_reason', p_reason, 2000);
  v_answer := governance.begin_command('dismiss_stripe_event', p_command_id,
    row(p_event_id, p_operator, p_reason)::text);
  if v_answer is not null then return v_answer; end if;
  v_now := governance.now();
  update governance.webhook_events_processed w set status = 'dismissed', payload = null, decided_at = v_now,
    decided_by = p_operator, decided_reason = p_reason
  where w.event_id = p_event_id and w.status = 'quarantined' returning * into v_known;
  if v_known.event_id is null then
    perform governance.fail('PT404', 'not_found', 'There is no such event waiting');
  end if;
  perform governance.close_event_alert(p_event_id, v_now, p_operator, p_reason);
  insert into governance.audit_log (created_at, operator, action, reason, command_id, details)
  values (v_now, p_operator, 'dismiss_stripe_event', p_reason, p_command_id,
    jsonb_build_object('event_id', p_event_id, 'was', v_known.reason));
  return governance.end_command('dismiss_stripe_event', p_command_id,
    jsonb_build_object('event_id', p_event_id, 'status', 'dismissed'));
end
$$;
comment on function public.console_dismiss_stripe_event(text, text, text,
  text) is 'A person sets a quarantined event aside: nothing is credited. Audited. Errors: invalid_argument, '
    'not_found, idempotency_conflict.';
revoke all on function public.console_dismiss_stripe_event(text, text, text, text) from public, anon, authenticated;
grant execute on function public.console_dismiss_stripe_event(text, text, text, text) to service_role;

create function governance.take_back_doubles(p_pay governance.stripe_payments, p_now timestamptz, p_cause text)
  returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_lots bigint[] := array(select s.lot_id from governance.stripe_lots s
    where s.payment_id = p_pay.payment_id and not s.is_void order by s.lot_id);
  v_doubles bigint[];
  v_reference text := coalesce(p_pay.charge_id, p_pay.payment_intent_id, p_pay.invoice_id, p_pay.checkout_session_id);
  v_metadata jsonb := jsonb_build_object('cause', p_cause);
  v_lot record;
  v_taking governance.lot_taking;
  v_effects jsonb := '[]';
begin
  if cardinality(v_lots) < 2 then return v_effects; end if;
  -- Lots granted for another row of this payment, before the two were known to be one.
  with grants as materialized (
    select r.lot_id, r.payment_id, r.transaction_id from governance.purchase_records r
    where r.lot_id = any (v_lots) and r.record_type = 'grant'
      and (select l.pack_id is not null from governance.lots l where l.lot_id = r.lot_id))
  select coalesce(array_agg(g.lot_id), '{}') into v_doubles from grants g
  where exists (select from grants e where e.payment_id <> g.payment_id and e.transaction_id < g.transaction_id);
  if v_doubles = '{}' then return v_effects; end if;
  perform governance.lock_accounts(p_pay.account_id || array(select l.account_id from governance.lots l
    where l.lot_id = any (v_doubles)));
  for v_lot in select s.lot_id, s.tokens - s.reversed - s.clawed as tokens, l.account_id, a.user_id
    from governance.stripe_lots s join governance.lots l using (lot_id) join governance.accounts a using (account_id)
    where s.lot_id = any (v_doubles) order by s.lot_id
  loop
    v_taking := governance.take_back(v_lot.lot_id, v_lot.tokens, 'adjustment', p_now, v_reference,
      'One payment, granted twice: taken back', v_metadata);
    perform governance.record_purchase(v_taking.transaction_id, 'adjustment', v_lot.lot_id, p_pay.payment_id,
      -v_lot.tokens, v_taking.debt, null, p_pay.currency);
    -- The money was paid once, and is the first grant's.
    perform governance.reprice_lot(v_lot.lot_id, 0, p_now, v_reference,
      'One payment, granted twice: nothing was paid for this grant', v_metadata);
    update governance.stripe_lots s set tokens = s.tokens - v_lot.tokens, is_void = true where s.lot_id = v_lot.lot_id;
    perform governance.recover_debt(v_lot.account_id, p_now, v_reference);
    v_effects := v_effects
      || governance.effect('adjustment', v_lot.user_id, -v_lot.tokens, v_taking.transaction_id);
  end loop;
  perform governance.ring('accounts', p_now);
  return v_effects;
end
$$;
comment on function governance.take_back_doubles(governance.stripe_payments, timestamptz, text) is
  'An invoice and a PaymentIntent that both carry the order are one payment, as Stripe reports later (since '
  '2025-03-31 neither names the other): of packs that were granted for each, the first stays. Returns the effects. '
  'Locks the accounts.';
