-- The correction that undoes what was posted: another entry, under the same rules.

create function governance.reprice_lot(p_lot_id bigint, p_amount bigint, p_now timestamptz, p_reference text,
  p_words text, p_metadata jsonb) returns void
  language plpgsql set search_path = '' as $$
declare
  v_lot governance.lots;
  v_payment_id bigint := (select s.payment_id from governance.stripe_lots s where s.lot_id = p_lot_id);
  v_entry bigint;
begin
  update governance.lots l set amount_minor = p_amount
  where l.lot_id = p_lot_id and l.amount_minor <> p_amount returning l.* into v_lot;
  if v_lot.lot_id is null then return; end if;
  v_entry := (governance.append_entry(v_lot.account_id, 'adjustment', p_now, array[p_lot_id, 0::bigint], 0, 0, 0, 0,
    p_reference, p_words, p_metadata || jsonb_build_object('amount_minor', p_amount, 'currency',
      v_lot.currency))).transaction_id;
  perform governance.record_purchase(v_entry, 'relabel', p_lot_id, v_payment_id, 0, 0, p_amount, v_lot.currency,
    p_difference_id => p_metadata ->> 'difference_id');
end
$$;
comment on function governance.reprice_lot(bigint, bigint, timestamptz, text, text, jsonb) is
  'Changes what a lot cost from now on, on record, so that each period has the figure that was true by its end. Does '
  'nothing where it is the same. The caller holds the account''s lock.';

create function governance.reprice_reversed(p_lot_id bigint, c jsonb, p_now timestamptz, p_reference text,
  p_metadata jsonb) returns void
  language plpgsql set search_path = '' as $$
declare
  v_is_unpaid boolean := (select s.is_void and (s.tokens = 0 or l.kind = 'promotional')
    from governance.stripe_lots s join governance.lots l using (lot_id) where s.lot_id = p_lot_id);
begin
  if c ->> 'action' not in ('reverse', 'adjust', 'promotional', 'reclassify') then return;
  elsif v_is_unpaid then
    perform governance.reprice_lot(p_lot_id, 0, p_now, p_reference, 'Nothing was paid for it: no revenue', p_metadata);
  elsif c ? 'undoes' and governance.stripe_whole(c -> 'amount_minor') is not null
    and (select l.amount_minor = 0 from governance.lots l where l.lot_id = p_lot_id) then
    perform governance.reprice_lot(p_lot_id, governance.stripe_whole(c -> 'amount_minor'), p_now, p_reference,
      'It was paid for after all: its price is what it was', p_metadata);
  end if;
end
$$;
comment on function governance.reprice_reversed(bigint, jsonb, timestamptz, text, jsonb) is
  'Corrects what a lot cost where a correction reversed its grant as a whole or gave it away, or where that was '
  'undone: money that nobody paid is no revenue. The caller holds the account''s lock.';

create function governance.before_correction(c jsonb) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_lot_id bigint := governance.stripe_whole(c -> 'lot_id');
  v_pay governance.stripe_payments;
begin
  select p.* into v_pay from governance.stripe_lots s join governance.stripe_payments p using (payment_id)
    where s.lot_id = v_lot_id;
  if v_pay.payment_id is null then return '{}'; end if;
  -- As governance.apply_correction: nothing changes between the two.
  perform governance.lock_stripe_ids(v_pay.payment_intent_id, v_pay.charge_id, v_pay.checkout_session_id,
    v_pay.invoice_id);
  perform governance.lock_account_id(v_pay.account_id);
  select * into v_pay from governance.stripe_payments p where p.payment_id = v_pay.payment_id;
  return (select jsonb_build_object('lot_id', l.lot_id, 'kind', l.kind, 'amount_minor', l.amount_minor,
      'currency', l.currency, 'refunded_minor', (governance.money_back(v_pay)).refunded,
      'dispute', (select case when bool_or(d.stage = 2 and not d.is_reinstated) then 'hold'
          when bool_or(d.stage = 3 and d.is_lost) then 'finalise_dispute' else 'release' end
        from governance.stripe_disputes d where d.payment_id = v_pay.payment_id))
    from governance.lots l where l.lot_id = v_lot_id);
end
$$;
comment on function governance.before_correction(jsonb) is
  'How a correction finds its lot, what was refunded and disputed; locks as booking it does.';

create function governance.inverse_correction(c governance.reconciliation_cases) returns jsonb
  language plpgsql stable set search_path = '' as $$
declare
  v_before jsonb := c.before_posting;
  v_inverse jsonb;
begin
  if c.effects is null then return null; end if;
  v_inverse := case
    when c.correction ->> 'action' = 'grant' then (
      select jsonb_build_object('action', 'adjust', 'tokens', nullif(s.reversed + s.clawed - s.tokens, 0))
      from governance.stripe_lots s where s.lot_id = governance.stripe_whole(v_before -> 'lot_id'))
    when c.correction ->> 'action' in ('reverse', 'adjust') then
      jsonb_build_object('action', 'adjust', 'tokens', -governance.stripe_whole(c.correction -> 'tokens'))
        || jsonb_strip_nulls(jsonb_build_object('amount_minor', v_before -> 'amount_minor'))
    when c.correction ->> 'action' in ('claw_back', 'restore') then
      jsonb_build_object('action', 'restore', 'refunded_minor', v_before -> 'refunded_minor')
    when c.correction ->> 'action' in ('hold', 'release', 'finalise_dispute') then
      jsonb_build_object('action', v_before ->> 'dispute')
    when c.correction ->> 'action' = 'relabel' then
      jsonb_build_object('action', 'relabel', 'amount_minor', v_before -> 'amount_minor',
        'currency', v_before ->> 'currency')
    when c.correction ->> 'action' in ('promotional', 'reclassify') then
      jsonb_build_object('action', 'reclassify', 'kind', v_before ->> 'kind')
        || jsonb_strip_nulls(jsonb_build_object('amount_minor', v_before -> 'amount_minor')) end
    || jsonb_build_object('lot_id', v_before -> 'lot_id');
  -- A figure that was not known before cannot be brought back.
  if v_inverse is null or exists (select from jsonb_each(v_inverse) x where x.value = 'null') then return null; end if;
  return v_inverse || jsonb_build_object('books', true, 'undoes', c.correction - 'undoes', 'user_id', c.user_id,
    'words', left('Undo: ' || coalesce(c.correction ->> 'words', 'what was posted'), 1000));
end
$$;
comment on function governance.inverse_correction(governance.reconciliation_cases) is
  'The correction that undoes what was posted for a case; null where there is none.';
