-- The ledger's side of a reconciliation: its records of payments, and tokens from opening to closing.

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
    -- Refunds and disputes that were booked before these records existed, derived from their entries.
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
        insert into governance.stripe_refunds (refund_id, payment_id, amount_minor, state, reported_at)
        select v_entry.reference, v_pay.payment_id, case when v_known.reversed >= v_lot.granted then v_lot.amount_minor
          else ceil(v_lot.amount_minor::numeric * -v_tokens / v_lot.granted)::bigint end, 2, v_entry.created_at
        where v_entry.reference is not null on conflict do nothing;
      elsif v_type = 'dispute_clawback' then
        -- Frozen tokens are taken with it, though they left the balance before.
        v_tokens := -(v_lot.granted - v_known.reversed);
        v_known.clawed := v_lot.granted - v_known.reversed;
        v_known.owed := v_known.owed + v_owed;
      end if;
      v_known.dispute_state := case v_type when 'dispute_hold' then 'held' when 'dispute_release' then 'released'
        when 'dispute_clawback' then 'clawed' else v_known.dispute_state end;
      if v_type like 'dispute%' and v_entry.reference is not null then
        insert into governance.stripe_disputes as d (dispute_id, payment_id, amount_minor, status, stage, is_lost,
          reported_at)
        values (v_entry.reference, v_pay.payment_id, v_lot.amount_minor,
          case v_type when 'dispute_hold' then 'needs_response' when 'dispute_release' then 'won' else 'lost' end,
          case v_type when 'dispute_hold' then 2 else 3 end, v_type = 'dispute_clawback', v_entry.created_at)
        on conflict (dispute_id) do update set status = excluded.status, stage = excluded.stage,
          is_lost = excluded.is_lost, reported_at = excluded.reported_at;
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
    'for imports and sample data. Safe to run twice; returns how many lots.';

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
    perform governance.fail('PT400', 'invalid_argument', 'p_cursor must be the next_cursor of an earlier answer');
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
      -- Stripe delivers again: the grant may be late, and an export has refunds up to the day it was made.
      and ((p_from is null and p_to is null) or r.lot_id = any (v_corrected)
        or exists (select from governance.purchase_records x where x.lot_id = r.lot_id
        and (p_from is null or x.created_at >= p_from) and (p_to is null or x.created_at < p_to + interval '3 days'))
        -- A bank debit of the period may succeed later than that.
        or exists (select from governance.stripe_lots x join governance.stripe_payments p using (payment_id)
          where x.lot_id = r.lot_id and p.charged_at >= coalesce(p_from, '-infinity')
            and p.charged_at < coalesce(p_to, 'infinity')))
    order by r.transaction_id limit p_limit
  )
  select coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
      'transaction_id', r.transaction_id,
      'record_type', case r.record_type when 'supplement' then 'grant' else r.record_type end, 'user_id', a.user_id,
        'tokens', r.tokens,
        'created_at', r.created_at,
      'lot_id', r.lot_id, 'grant_kind', case l.kind when 'purchased' then 'purchase' else l.kind end,
      'debt_tokens', nullif(r.debt_tokens, 0), 'tokens_remaining', case r.record_type
        when 'grant' then l.remaining + l.frozen end,
      -- The amount that Stripe's own files show for it; booked_minor is the price of the tokens, net of tax.
      'amount_minor', coalesce(r.collected_minor, r.amount_minor), 'booked_minor', case
        -- A supplement's record has the price of its lot from then on.
        when r.record_type = 'supplement' then r.amount_minor
          - coalesce((select x.amount_minor from governance.purchase_records x
          where x.lot_id = r.lot_id and x.transaction_id < r.transaction_id
            and x.record_type in ('grant', 'relabel', 'supplement') order by x.transaction_id desc limit 1), 0)
        when r.collected_minor is not null then r.amount_minor end,
      'deferred_minor', case when r.record_type = 'grant' then governance.deferred_minor(
        l.amount_minor - governance.pro_rata(l.amount_minor, s.reversed + s.clawed, s.tokens), y.first_day, y.days,
        least(p_to, governance.now())) end,
      -- Other things were sold with the tokens.
      'payment_minor', case when r.collected_minor is not null and p.invoice_id is not null and p.amount_minor > (
          select sum(x.collected_minor) from governance.purchase_records x
          where x.invoice_line_id is not null and governance.payment_of(x) = p.payment_id)
        then p.amount_minor end,
      'covered_minor', r.covered_minor, 'covered_by', r.covered_by, 'currency', r.currency, 'pack_id', l.pack_id,
        'charge_id', p.charge_id, 'charged_at', case when r.record_type in ('grant', 'supplement')
          then p.charged_at end,
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
  left join governance.paid_periods y on y.lot_id = r.lot_id
  -- More money for tokens that are there already came by a payment of its own.
  left join governance.stripe_payments p on p.payment_id = case when r.record_type = 'supplement' or s.lot_id is null
    then governance.payment_of(r) else s.payment_id end;
  return jsonb_build_object('records', v_records, 'next_cursor', coalesce(v_last::text, p_cursor), 'has_more',
    v_count = p_limit);
end
$$;
comment on function public.console_ledger_purchases_since(text, int, timestamptz, timestamptz) is
  'The ledger''s records of payments (LedgerRecord of shared/governance/reconciliation) page by page: records, '
    'next_cursor, has_more. A run starts without a cursor and reads to the end. A period brings all records, to this '
    'day, of the lots that were touched in it or within three days after, whose payment was charged in it, or that a '
    'correction of one of its differences touched. Errors: invalid_argument.';
revoke all on function public.console_ledger_purchases_since(text, int, timestamptz, timestamptz)
  from public, anon, authenticated;
grant execute on function public.console_ledger_purchases_since(text, int, timestamptz, timestamptz) to service_role;

create function governance.sold_no_tokens(p_payment_id bigint) returns void
  language sql set search_path = '' as $$
  update governance.stripe_payments p set is_other_sale = true where p.payment_id = p_payment_id and not p.is_other_sale
$$;
comment on function governance.sold_no_tokens(bigint) is
  'Notes that a payment was for something that gives no tokens: the finance desk does not ask for a grant.';

create function public.console_known_payments(p_from timestamptz, p_to timestamptz) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
declare
  -- Stripe delivers again for three days, and an invoice may arrive before its payment.
  v_from timestamptz := p_from - interval '3 days';
  v_to timestamptz := p_to + interval '3 days';
begin
  perform governance.refuse_others('console_known_payments');
  if p_from is null or p_to is null or not isfinite(p_from) or not isfinite(p_to) or p_from >= p_to
    or p_to > '9999-01-01' then
    perform governance.fail('PT400', 'invalid_argument', 'p_from must come before p_to');
  end if;
  return jsonb_build_object(
    'other_sales', (select coalesce(jsonb_agg(x.id order by x.id), '[]')
      from governance.stripe_payments p
      cross join lateral (select unnest(array[p.invoice_id, p.payment_intent_id, p.charge_id]) as id
        union select n.name from governance.stripe_payment_names n where n.payment_id = p.payment_id) x
      where p.is_other_sale and x.id is not null and coalesce(p.paid_at, p.created_at) between v_from and v_to
        -- Its invoice may have arrived before the Checkout Session that sold tokens with it.
        and not exists (select from governance.stripe_lots s where s.payment_id = p.payment_id)),
    'returns', (select coalesce(jsonb_object_agg(x.id, c.charge_id), '{}')
      from (select r.refund_id as id, r.payment_id, r.charge_id from governance.stripe_refunds r
          where r.reported_at between v_from and v_to
        union all
        select d.dispute_id, d.payment_id, d.charge_id from governance.stripe_disputes d
          where d.reported_at between v_from and v_to) x
      join governance.stripe_payments p using (payment_id)
      -- Where it was not named, it is known only of a payment by one charge.
      cross join lateral (select coalesce(x.charge_id, case when not exists (
        select from governance.stripe_payment_names n where n.payment_id = p.payment_id and n.name ~ '^(ch|py)_')
        then p.charge_id end) as charge_id) c
      where c.charge_id is not null),
    'invoices', (select coalesce(jsonb_object_agg(x.id, p.invoice_id), '{}')
      from governance.stripe_payments p
      join governance.stripe_payment_names n on n.payment_id = p.payment_id and n.name ~ '^(ch|py)_'
      cross join lateral (values (n.name), (p.charge_id)) x(id)
      where p.invoice_id is not null and x.id is not null
        and coalesce(p.paid_at, p.created_at) between v_from and v_to));
end
$$;
comment on function public.console_known_payments(timestamptz, timestamptz) is
  'Facts about a period''s payments that the project knows and Stripe''s files may not show. other_sales: ids '
  '(invoices, PaymentIntents, charges) of payments whose invoice is known to have sold no tokens: another thing, a '
  'fee, a plan that gives none. returns: the charge of each refund and dispute, by its id. invoices: the invoice of '
  'each of several charges that paid it together. Errors: invalid_argument.';
revoke all on function public.console_known_payments(timestamptz, timestamptz) from public, anon, authenticated;
grant execute on function public.console_known_payments(timestamptz, timestamptz) to service_role;

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
  ), prices as (
    -- The price of a lot may change after it was sold: each period has the price that was true by its end.
    select r.lot_id,
      (array_agg(r.amount_minor order by r.transaction_id desc)
        filter (where r.created_at < p_from and r.record_type <> 'adjustment'))[1] as opening,
      (array_agg(r.amount_minor order by r.transaction_id desc)
        filter (where r.created_at < p_to and r.record_type <> 'adjustment'))[1] as closing,
      -- And so may what was bought for it: tokens that a correction took were not used.
      coalesce(sum(r.tokens) filter (where r.created_at < p_from), 0)::bigint as opening_bought,
      coalesce(sum(r.tokens) filter (where r.created_at < p_to), 0)::bigint as closing_bought
    from governance.purchase_records r
    where r.record_type in ('grant', 'relabel', 'supplement', 'adjustment') group by r.lot_id
  ), periods as (
    select y.lot_id, y.first_day, y.days,
      coalesce(max(r.taken_back_tokens) filter (where r.transaction_id = x.opening), 0) as opening_taken,
      coalesce(max(r.taken_back_tokens) filter (where r.transaction_id = x.closing), 0) as closing_taken
    from governance.paid_periods y join governance.purchase_records r using (lot_id)
      join (select r.lot_id, max(r.transaction_id) filter (where r.created_at < p_from) as opening,
        max(r.transaction_id) filter (where r.created_at < p_to) as closing
        from governance.purchase_records r group by 1) x using (lot_id)
    group by 1, 2, 3
  ), by_lot as (
    select l.lot_id, case l.kind when 'purchased' then 'purchased'
      else l.kind end as kind, l.currency, l.granted, coalesce(c.opening_bought, l.granted) as opening_bought,
      coalesce(c.closing_bought, l.granted) as closing_bought,
      case when c.lot_id is not null then c.opening when l.created_at < p_from then l.amount_minor end as opening_price,
      case when c.lot_id is not null then c.closing else l.amount_minor end as closing_price,
      l.created_at < p_to as is_there, l.remaining,
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
    left join prices c using (lot_id)
    group by l.lot_id, c.lot_id, c.opening, c.closing, c.opening_bought, c.closing_bought
  ), taken as (
    -- Of a paid period, the money that went back by then.
    select b.*, y.first_day, y.days, governance.pro_rata(b.opening_price, y.opening_taken, b.granted) as opening_taken,
      governance.pro_rata(b.closing_price, y.closing_taken, b.granted) as closing_taken
    from by_lot b left join periods y using (lot_id)
  ), priced as (
    select b.*,
      case when b.opening_price is null then 0 when b.days is not null
        then governance.deferred_minor(b.opening_price - b.opening_taken, b.first_day, b.days, p_from)
        else governance.part_of(b.opening_price, b.opening, b.opening_bought) end as deferred_opening,
      case when b.closing_price is null then 0 when b.days is not null
        then governance.deferred_minor(b.closing_price - b.closing_taken, b.first_day, b.days, p_to)
        else governance.part_of(b.closing_price, b.closing, b.closing_bought) end as deferred_closing,
      case when b.closing_price is null then 0 when b.days is not null
        then b.closing_taken - coalesce(b.opening_taken, 0)
        else governance.part_of(b.closing_price, b.refunded + b.disputed - b.restored, b.closing_bought)
        end as given_back
    from taken b
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
      -- The lots as they are now, less what moved since: not a sum of the same movements.
      sum(p.remaining - p.later)::bigint as ledger, sum(p.deferred_opening)::bigint as deferred_opening,
        sum(p.deferred_closing)::bigint as deferred_closing,
      sum(p.given_back)::bigint as given_back,
        sum(coalesce(p.closing_price, 0) - coalesce(p.opening_price, 0))::bigint as sold
    from priced p where p.is_there group by p.kind, p.currency) s;
  return v_lines;
end
$$;
comment on function public.console_token_roll_forward(timestamptz, timestamptz) is
  'Tokens from opening to closing by kind and currency, with their money as deferred revenue (RollForwardLine of '
  'shared/governance/reconciliation). Frozen tokens are out of it until thawed; the money of a year paid in advance '
  'goes by its days. Errors: invalid_argument.';
revoke all on function public.console_token_roll_forward(timestamptz, timestamptz) from public, anon, authenticated;
grant execute on function public.console_token_roll_forward(timestamptz, timestamptz) to service_role;

create table governance.stripe_refund_figures (
  charge_id text not null,
  reported_at timestamptz not null,
  refunded_minor bigint not null,
  primary key (charge_id, reported_at)
);

comment on table governance.stripe_refund_figures is
  'The refunded total that a charge reported, each time that it rose: after a refund failed the figure is lower.';

create function governance.note_refund_figure(p_charge text, p_event_at timestamptz, p_refunded bigint) returns void
  language sql set search_path = '' as $$
  insert into governance.stripe_refund_figures as f (charge_id, reported_at, refunded_minor)
  values (p_charge, p_event_at, p_refunded)
  on conflict (charge_id, reported_at) do update
    set refunded_minor = greatest(f.refunded_minor, excluded.refunded_minor)
$$;
comment on function governance.note_refund_figure(text, timestamptz, bigint) is
  'Notes the refunded total that a charge reported.';

create function governance.refunded_again(p_pay governance.stripe_payments) returns bigint
  language sql stable set search_path = '' as $$
  with charges as (
    select p_pay.charge_id, p_pay.refunded_minor where p_pay.charge_id is not null
    union all
    select n.name, n.refunded_minor from governance.stripe_payment_names n
    where n.payment_id = p_pay.payment_id and n.refunded_minor > 0
  ),
  figures as (
    select f.charge_id, f.reported_at, f.refunded_minor, f.refunded_minor <= max(f.refunded_minor) over (
      partition by f.charge_id order by f.reported_at rows between unbounded preceding and 1 preceding) as is_again
    from charges c join governance.stripe_refund_figures f using (charge_id)
  ),
  last_figures as (
    select f.charge_id, max(f.reported_at) as reported_at,
      (array_agg(f.refunded_minor order by f.reported_at desc))[1] as refunded_minor
    from figures f group by f.charge_id having bool_or(f.is_again)
  )
  select sum(greatest(coalesce(l.refunded_minor, c.refunded_minor)
    - (select coalesce(sum(r.amount_minor), 0) from governance.stripe_refunds r
      where r.payment_id = p_pay.payment_id and r.state = 3 and coalesce(r.charge_id, p_pay.charge_id) = c.charge_id
        and (l.reported_at is null or r.reported_at >= l.reported_at)), 0))::bigint
  from charges c left join last_figures l using (charge_id)
  having count(l.charge_id) > 0
$$;
comment on function governance.refunded_again(governance.stripe_payments) is
  'The amount refunded where a refund failed and another was made, by the last reports of its charges: that the total '
  'did not rise with another refund shows that the failed one is no longer in the figure. Null where nothing shows it. '
  'From 2022-11-15 until 2024-10-28 only this figure shows such a refund.';
