-- Tokens follow the money: what a payment bought is granted, and moved to where refunds and disputes put it.

create function governance.pro_rata(p_tokens bigint, p_part bigint, p_of bigint) returns bigint
  language sql immutable set search_path = '' as $$
  select case when p_of <= 0 or p_part >= p_of then p_tokens when p_part <= 0 then 0
    else trunc(p_tokens::numeric * p_part / p_of)::bigint end
$$;
comment on function governance.pro_rata(bigint, bigint,
  bigint) is 'tokens × part ÷ of, rounded down, all of them when part reaches of; nothing of nothing. The core''s '
    'proRata is the same.';

create function governance.part_of(p_amount bigint, p_tokens bigint, p_bought bigint) returns bigint
  language sql immutable set search_path = '' as $$
  select case when p_bought > 0 then governance.pro_rata(p_amount, least(greatest(p_tokens, 0), p_bought), p_bought)
    else 0 end
$$;
comment on function governance.part_of(bigint, bigint, bigint) is
  'The part of a lot''s price that falls to some of its tokens, of all that were bought for it; 0 where corrections '
  'left none of those.';

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
    collected_minor, covered_minor, covered_by, taken_back_tokens)
  select t.transaction_id, t.account_id, t.created_at, p_type, p_lot_id, p_payment_id, p_tokens, p_debt, p_amount,
    p_currency, p_refund_id,
    p_dispute_id, p_line_id, p_period_start, p_period_end, p_difference_id, p_collected, nullif(p_covered, 0),
    p_covered_by, coalesce((select s.reversed + s.clawed from governance.stripe_lots s where s.lot_id = p_lot_id), 0)
  from governance.token_transactions t where t.transaction_id = p_transaction_id;
end
$$;
comment on function governance.record_purchase(bigint, text, bigint, bigint, bigint, bigint, bigint, text, text, text,
  text, timestamptz, timestamptz, text, bigint, bigint, text) is
  'Notes what a ledger entry has to do with a payment.';

create function governance.take_moved(p_paid_lot_id bigint, p_tokens bigint, p_type text, p_now timestamptz,
  p_reference text, p_description text, p_metadata jsonb) returns bigint
  language plpgsql set search_path = '' as $$
declare
  v_lot record;
  v_take bigint;
  v_taken bigint := 0;
begin
  for v_lot in
    select l.lot_id, l.account_id, l.remaining, l.clawed_back,
      a.subscription_tokens + a.purchased_tokens + a.promotional_tokens - a.reserved_tokens as free
    from governance.moved_lots m join governance.lots l using (lot_id) join governance.accounts a using (account_id)
    where m.paid_lot_id = p_paid_lot_id order by l.lot_id desc
  loop
    -- A count below zero gives tokens back to the lots that they were taken from.
    v_take := case when p_tokens > 0 then least(p_tokens - v_taken, v_lot.remaining, v_lot.free)
      else greatest(p_tokens - v_taken, -v_lot.clawed_back) end;
    continue when v_take = 0;
    update governance.lots l set remaining = l.remaining - v_take, clawed_back = l.clawed_back + v_take,
      is_open = l.remaining - v_take + l.frozen > 0 where l.lot_id = v_lot.lot_id;
    perform governance.append_entry(v_lot.account_id, p_type, p_now, array[v_lot.lot_id, -v_take], -v_take, 0, 0, 0,
      p_reference, p_description, p_metadata);
    v_taken := v_taken + v_take;
  end loop;
  return v_taken;
end
$$;
comment on function governance.take_moved(bigint, bigint, text, timestamptz, text, text, jsonb) is
  'Takes tokens that went to another user with their subscription back, as far as they are unspent; below zero gives '
  'them back. Returns how many. The caller holds the locks of both accounts.';

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
  -- Tokens that expired unused are not owed: they only count as taken back, not as expired.
  v_expired := least(v_lot.expired, greatest(p_tokens - v_lot.frozen - least(v_lot.remaining, v_free), 0));
  if v_expired > 0 then
    update governance.lots l set expired = l.expired - v_expired, clawed_back = l.clawed_back + v_expired
      where l.lot_id = p_lot_id;
    perform governance.take_moved(p_lot_id, v_expired, p_type, p_now, p_reference, p_description, p_metadata);
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
  v_moved bigint;
begin
  select * into strict v_lot from governance.lots l where l.lot_id = p_lot_id;
  -- First what was owed for it: still open debt is struck, paid debt comes back as tokens.
  select least(s.owed, p_tokens) into strict v_owed from governance.stripe_lots s where s.lot_id = p_lot_id;
  select least(a.debt_tokens, v_owed) into strict v_debt from governance.accounts a
    where a.account_id = v_lot.account_id;
  v_unspent := least(v_owed - v_debt, v_lot.spent);
  v_returned := least(p_tokens - v_owed, v_lot.clawed_back);
  v_moved := -governance.take_moved(p_lot_id, -v_returned, 'reversal', p_now, p_reference, p_description, p_metadata);
  v_returned := v_returned - v_moved;
  update governance.lots l set
    remaining = l.remaining + v_unspent + v_returned, spent = l.spent - v_unspent,
      clawed_back = l.clawed_back - v_returned - v_moved, expired = l.expired + v_moved,
      is_open = l.is_open or v_unspent + v_returned > 0
  where l.lot_id = p_lot_id and v_unspent + v_returned + v_moved > 0;
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
  'Undoes a taking back: debt first, then tokens into the lot. Returns the entry. The caller holds the account''s '
    'lock.';

create function governance.effect(p_type text, p_user_id text, p_tokens bigint, p_transaction_id bigint) returns jsonb
  language sql stable set search_path = '' as $$
  select jsonb_build_object('type', p_type, 'user_id', p_user_id, 'tokens', p_tokens, 'transaction_id',
    p_transaction_id)
$$;
comment on function governance.effect(text, text, bigint, bigint) is 'One effect as process_stripe_event answers it.';

create function governance.money_back(p_pay governance.stripe_payments) returns governance.money_back
  language plpgsql stable set search_path = '' as $$
declare
  v_told bigint := p_pay.refunded_minor + (select coalesce(sum(n.refunded_minor), 0)
    from governance.stripe_payment_names n where n.payment_id = p_pay.payment_id);
  v_back governance.money_back;
begin
  select greatest(coalesce(sum(r.amount_minor) filter (where r.state = 2), 0)
        - case when bool_or(r.state = 2 and r.amount_minor = p_pay.released_minor) then p_pay.released_minor else 0 end,
      v_told - coalesce(sum(r.amount_minor) filter (where r.state = 3), 0), governance.refunded_again(p_pay)),
    case when count(*) filter (where r.state = 2) = 1 then max(r.refund_id) filter (where r.state = 2) end
  into v_back.refunded, v_back.refund_id
  from governance.stripe_refunds r where r.payment_id = p_pay.payment_id;
  if p_pay.refunded_override_at is not null
    and not exists (select from governance.stripe_refunds r
      where r.payment_id = p_pay.payment_id and r.reported_at > p_pay.refunded_override_at)
    and coalesce(p_pay.refunded_at, '-infinity') <= p_pay.refunded_override_at then
    v_back.refunded := p_pay.refunded_override_minor;
  end if;
  select coalesce(sum(d.amount_minor) filter (where d.stage = 3 and d.is_lost), 0),
    coalesce(bool_or(d.stage = 2 and not d.is_reinstated), false),
    max(d.dispute_id), coalesce(max(d.amount_minor), 0)
  into v_back.lost, v_back.is_disputed, v_back.dispute_id, v_back.disputed
  from (select x.stage, x.is_lost, x.is_reinstated, x.dispute_id,
      -- In another currency a part cannot be distinguished from the whole: all that was paid by that payment counts
      -- as disputed.
      case when x.currency <> p_pay.currency then coalesce(least(i.amount_minor, p_pay.amount_minor),
        p_pay.amount_minor) else x.amount_minor end as amount_minor
    from governance.stripe_disputes x left join governance.stripe_invoice_payments i on i.name = x.payment_name
    where x.payment_id = p_pay.payment_id) d;
  return v_back;
end
$$;
comment on function governance.money_back(governance.stripe_payments) is
  'How much of a payment was refunded or lost in disputes, as far as Stripe has reported.';

create function governance.settle_lot(p_lot governance.stripe_lots, p_pay governance.stripe_payments,
  p_back governance.money_back, p_now timestamptz, p_reference text, p_metadata jsonb, p_difference_id text)
  returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_user_id text := (select a.user_id from governance.accounts a where a.account_id = p_pay.account_id);
  v_due_reversed bigint := case when p_back.refunded = 0 then 0
    else governance.pro_rata(p_lot.tokens, p_back.refunded, p_pay.amount_minor) end;
  v_due_clawed bigint := case when p_back.lost = 0 then 0
    else least(governance.pro_rata(p_lot.tokens, p_back.lost, p_pay.amount_minor), p_lot.tokens - v_due_reversed) end;
  v_dispute jsonb := p_metadata || jsonb_strip_nulls(jsonb_build_object('dispute_id', p_back.dispute_id));
  v_move bigint;
  v_taking governance.lot_taking;
  v_entry bigint;
  v_effects jsonb := '[]';
begin
  -- Given back first, so that the sums never pass what was bought, and debt for it is struck before it counts as taken.
  if v_due_clawed < p_lot.clawed then
    v_move := p_lot.clawed - v_due_clawed;
    v_entry := governance.give_back(p_lot.lot_id, v_move, p_now, p_reference, 'Dispute won: given back', v_dispute);
    update governance.stripe_lots s set clawed = v_due_clawed,
      dispute_state = case when v_due_clawed = 0 and p_back.lost = 0 then 'released' else s.dispute_state end
    where s.lot_id = p_lot.lot_id;
    perform governance.record_purchase(v_entry, 'dispute_release', p_lot.lot_id, p_pay.payment_id, v_move, 0,
      p_back.disputed, p_pay.currency, null, p_back.dispute_id, p_difference_id => p_difference_id);
    v_effects := v_effects || governance.effect('dispute_release', v_user_id, v_move, v_entry);
  end if;
  if v_due_reversed < p_lot.reversed then
    v_move := p_lot.reversed - v_due_reversed;
    v_entry := governance.give_back(p_lot.lot_id, v_move, p_now, p_reference, 'Refund failed: given back', p_metadata);
    update governance.stripe_lots s set reversed = v_due_reversed where s.lot_id = p_lot.lot_id;
    perform governance.record_purchase(v_entry, 'restoration', p_lot.lot_id, p_pay.payment_id, v_move, 0,
      p_back.refunded, p_pay.currency, p_difference_id => p_difference_id);
    v_effects := v_effects || governance.effect('restoration', v_user_id, v_move, v_entry);
  end if;
  if v_due_reversed > p_lot.reversed then
    v_move := v_due_reversed - p_lot.reversed;
    v_taking := governance.take_back(p_lot.lot_id, v_move, 'refund', p_now, p_reference, 'Refund', p_metadata
      || jsonb_strip_nulls(jsonb_build_object('refund_id', p_back.refund_id, 'refunded_minor', p_back.refunded)));
    update governance.stripe_lots s set reversed = v_due_reversed, owed = s.owed + v_taking.debt
    where s.lot_id = p_lot.lot_id;
    perform governance.record_purchase(v_taking.transaction_id, 'refund', p_lot.lot_id, p_pay.payment_id, -v_move,
      v_taking.debt, p_back.refunded, p_pay.currency, p_back.refund_id, p_difference_id => p_difference_id);
    v_effects := v_effects || governance.effect('refund', v_user_id, -v_move, v_taking.transaction_id);
    perform governance.tell_user(p_pay.account_id, 'tokens_taken', 'message.refund',
      jsonb_build_object('tokens', v_move), p_now, case when p_difference_id is null then greatest(p_pay.refunded_at,
        (select max(r.reported_at) from governance.stripe_refunds r where r.payment_id = p_pay.payment_id)) end);
  end if;
  if v_due_clawed > p_lot.clawed then
    v_move := v_due_clawed - p_lot.clawed;
    v_taking := governance.take_back(p_lot.lot_id, v_move, 'reversal', p_now, p_reference, 'Dispute lost', v_dispute);
    update governance.stripe_lots s set clawed = v_due_clawed, owed = s.owed + v_taking.debt, dispute_state = 'clawed'
    where s.lot_id = p_lot.lot_id;
    perform governance.record_purchase(v_taking.transaction_id, 'dispute_clawback', p_lot.lot_id, p_pay.payment_id,
      -v_move, v_taking.debt, p_back.disputed, p_pay.currency, null, p_back.dispute_id,
      p_difference_id => p_difference_id);
    v_effects := v_effects || governance.effect('dispute_clawback', v_user_id, -v_move, v_taking.transaction_id);
    perform governance.tell_user(p_pay.account_id, 'tokens_taken', 'message.dispute',
      jsonb_build_object('tokens', v_move), p_now, case when p_difference_id is null then
        (select max(d.reported_at) from governance.stripe_disputes d where d.payment_id = p_pay.payment_id) end);
  end if;
  return v_effects;
end
$$;
comment on function governance.settle_lot(governance.stripe_lots, governance.stripe_payments, governance.money_back,
  timestamptz, text, jsonb, text) is
  'Takes back or gives back what refunds and decided disputes have changed of one lot. Returns the effects. The caller '
  'holds the account''s lock.';

create function governance.hold_lot(p_lot_id bigint, p_pay governance.stripe_payments, p_back governance.money_back,
  p_now timestamptz, p_reference text, p_metadata jsonb, p_difference_id text) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_lot record;
  v_user_id text := (select a.user_id from governance.accounts a where a.account_id = p_pay.account_id);
  v_metadata jsonb := p_metadata || jsonb_strip_nulls(jsonb_build_object('dispute_id', p_back.dispute_id));
  v_taking governance.lot_taking;
  v_type text;
  v_tokens bigint;
  v_entry bigint;
begin
  -- Read again: governance.settle_lot may have changed it.
  select s.dispute_state, s.clawed, l.remaining, l.frozen into strict v_lot
  from governance.stripe_lots s join governance.lots l using (lot_id) where s.lot_id = p_lot_id;
  if p_back.is_disputed and (v_lot.dispute_state <> 'held' or v_lot.remaining > 0) then
    v_taking := governance.freeze_lot(p_lot_id, v_lot.remaining, p_now, p_reference, 'Dispute opened: frozen',
      v_metadata);
    if v_taking.taken = 0 and v_lot.dispute_state = 'held' then return '[]'; end if;
    v_type := 'dispute_hold';
    v_tokens := -v_taking.taken;
  elsif not p_back.is_disputed and (v_lot.dispute_state = 'held' or v_lot.frozen > 0) then
    v_taking := governance.thaw_lot(p_lot_id, v_lot.frozen, p_now, p_reference, 'Dispute decided: thawed', v_metadata);
    if v_lot.clawed > 0 and v_lot.dispute_state <> 'held' then return '[]'; end if;
    -- Held for the last of several disputes, of which another was lost: then what that one took stays taken.
    v_type := case when v_lot.clawed > 0 then 'dispute_clawback' else 'dispute_release' end;
    v_tokens := case when v_lot.clawed > 0 then 0 else v_taking.taken end;
  else
    return '[]';
  end if;
  -- Where no tokens moved, that it was tried is on record all the same.
  v_entry := coalesce(v_taking.transaction_id,
    (governance.append_entry(p_pay.account_id, 'reversal', p_now, '{}', 0, 0, 0, 0, p_reference,
      case v_type when 'dispute_hold' then 'Dispute opened: nothing left to freeze'
        else 'Dispute decided: nothing was frozen' end, v_metadata)).transaction_id);
  update governance.stripe_lots s set dispute_state = case v_type when 'dispute_hold' then 'held'
    when 'dispute_clawback' then 'clawed' else 'released' end
  where s.lot_id = p_lot_id;
  perform governance.record_purchase(v_entry, v_type, p_lot_id, p_pay.payment_id, v_tokens, 0, p_back.disputed,
    p_pay.currency, null, p_back.dispute_id, p_difference_id => p_difference_id);
  return jsonb_build_array(case when v_type = 'dispute_clawback'
    then governance.effect('dispute_release', v_user_id, v_taking.taken, v_entry)
    else governance.effect(v_type, v_user_id, v_tokens, v_entry) end);
end
$$;
comment on function governance.hold_lot(bigint, governance.stripe_payments, governance.money_back, timestamptz, text,
  jsonb, text) is
  'Freezes what is left of a lot while its payment is disputed, and thaws it once that is decided. Returns the '
  'effects. The caller holds the account''s lock.';

create function governance.settle_payment(p_payment_id bigint, p_now timestamptz, p_cause text,
  p_difference_id text default null) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_pay governance.stripe_payments;
  v_back governance.money_back;
  v_lot governance.stripe_lots;
  v_reference text;
  v_metadata jsonb;
  v_effects jsonb := '[]';
begin
  select * into v_pay from governance.stripe_payments p where p.payment_id = p_payment_id;
  if v_pay.account_id is null then return v_effects; end if;
  if exists (select from governance.stripe_merged_payments m where m.merged_into = p_payment_id) then
    v_effects := governance.take_back_doubles(v_pay, p_now, p_cause);
  end if;
  -- Nothing was refunded or disputed: the common case.
  if v_pay.refunded_minor = 0 and v_pay.refunded_override_at is null
    and not exists (select from governance.stripe_payment_names n
      where n.payment_id = p_payment_id and n.refunded_minor > 0)
    and not exists (select from governance.stripe_refunds r where r.payment_id = p_payment_id)
    and not exists (select from governance.stripe_disputes d where d.payment_id = p_payment_id) then
    return v_effects;
  end if;
  perform governance.lock_accounts(v_pay.account_id || array(select l.account_id from governance.stripe_lots s
    join governance.moved_lots m on m.paid_lot_id = s.lot_id join governance.lots l on l.lot_id = m.lot_id
    where s.payment_id = p_payment_id));
  v_back := governance.money_back(v_pay);
  v_reference := coalesce(v_pay.charge_id, v_pay.payment_intent_id, v_pay.invoice_id, v_pay.checkout_session_id);
  v_metadata := jsonb_strip_nulls(jsonb_build_object('cause', p_cause, 'charge_id', v_pay.charge_id,
    'payment_intent_id', v_pay.payment_intent_id, 'invoice_id', v_pay.invoice_id, 'difference_id', p_difference_id));
  for v_lot in select * from governance.stripe_lots s where s.payment_id = p_payment_id and not s.is_void
    order by s.lot_id
  loop
    v_effects := v_effects
      || governance.settle_lot(v_lot, v_pay, v_back, p_now, v_reference, v_metadata, p_difference_id)
      || governance.hold_lot(v_lot.lot_id, v_pay, v_back, p_now, v_reference, v_metadata, p_difference_id);
  end loop;
  perform governance.recover_debt(v_pay.account_id, p_now, v_reference);
  if v_effects <> '[]' then perform governance.ring('accounts', p_now); end if;
  return v_effects;
end
$$;
comment on function governance.settle_payment(bigint, timestamptz, text, text) is
  'Moves a payment''s lots to where its refunds and disputes put them: pro rata, capped, debt for what was spent. '
    'Returns the effects; nothing when all is in its place. Locks the account.';

create function governance.order_money(o jsonb, p_amount jsonb, p_price bigint, p_currency text)
  returns governance.order_money
  language plpgsql immutable set search_path = '' as $$
declare
  v_total bigint := governance.stripe_whole(p_amount);
  v_tax bigint := coalesce(governance.stripe_whole(o #> '{total_details,amount_tax}'), 0);
  v_discount bigint := coalesce(governance.stripe_whole(o #> '{total_details,amount_discount}'), 0);
  v_shipping bigint := coalesce(governance.stripe_whole(o #> '{total_details,amount_shipping}'), 0);
  -- Of an invoice (governance.invoice_order).
  v_outside bigint := coalesce(governance.stripe_whole(o #> '{total_details,amount_outside}'), 0);
  v_balance bigint := coalesce(governance.stripe_whole(o #> '{total_details,amount_balance}'), 0);
  v_paid bigint := least(v_total - v_balance, v_total);
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
  -- The price may have tax on top or within it; the discount is the amount that Stripe reports.
  if v_sold_total + v_discount - v_shipping in (p_price, p_price + v_tax)
    and (v_converted = '{}' or v_tax + v_discount + v_shipping = 0) then
    v_answer.collected_minor := v_total - v_outside - v_balance;
    v_answer.booked_minor := greatest(v_paid - case when v_total > 0
      then trunc(v_tax::numeric * v_paid / v_total)::bigint else v_tax end - v_shipping, 0);
    v_answer.covered_minor := v_discount + v_outside + greatest(v_balance, 0);
    v_answer.covered_by := coalesce(o #>> '{total_details,covered_by}', case when v_discount > 0 then 'discount' end);
  end if;
  return v_answer;
end
$$;
comment on function governance.order_money(jsonb, jsonb, bigint, text) is
  'The price of an order with tax, a discount, shipping or a converted currency, or one paid elsewhere or from a '
  'balance, held against the pack''s price.';

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
  -- The entry is put together where the account is: "was" is the same row as it was before.
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
  perform governance.tell_user(p_pay.account_id, 'purchases', 'message.purchase', jsonb_build_object('tokens', p_tokens,
    'money', jsonb_build_object('minor', coalesce(p_sale.collected_minor, p_pay.amount_minor), 'currency',
      p_pay.currency)), p_now, case when p_difference_id is null then p_pay.paid_at end);
  perform governance.ring('accounts', p_now);
  return '[]'::jsonb || governance.effect('grant', p_user_id, p_tokens, v_id);
end
$$;
comment on function governance.grant_paid(timestamptz, governance.stripe_payments, text, text, bigint, text, text,
  governance.order_money) is
  'Grants what a payment paid for, ties the lot to it and pays debt. The caller holds the locks of the '
  'payment and of the account, and has rolled the account.';

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

create function governance.settled(p_payment_id bigint, p_now timestamptz,
  p_cause text) returns governance.stripe_outcome
  language plpgsql set search_path = '' as $$
begin
  if p_payment_id is null then return governance.outcome('quarantined', 'malformed'); end if;
  return governance.outcome('processed', null, governance.settle_payment(p_payment_id, p_now, p_cause), p_payment_id);
end
$$;
comment on function governance.settled(bigint, timestamptz,
  text) is
  'The outcome of an event about this payment; an event that names no payment waits for a person.';
