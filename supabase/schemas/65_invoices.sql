-- Paid invoices: what each of their sales grants, and what is booked for it.

create function governance.note_invoice_payment(p_now timestamptz, o jsonb) returns bigint
  language plpgsql set search_path = '' as $$
declare
  v_intent text := governance.stripe_id(o #> '{payment,payment_intent}');
  v_charge text := governance.stripe_id(o #> '{payment,charge}');
  v_invoice text := governance.stripe_id(o -> 'invoice');
  v_amount bigint := governance.stripe_whole(o -> 'amount_paid');
begin
  if v_invoice is null then return null; end if;
  if v_amount > 0 and coalesce(v_intent, v_charge) is not null then
    insert into governance.stripe_invoice_payments (name, amount_minor)
    values (coalesce(v_intent, v_charge), v_amount) on conflict do nothing;
  end if;
  return (governance.note_payment(p_now, v_intent, v_charge, null, v_invoice)).payment_id;
end
$$;
comment on function governance.note_invoice_payment(timestamptz, jsonb) is
  'Notes which payment, of how much, paid an invoice: from 2025-03-31 the only thing that ties the two. Null where it '
  'is not whole.';

create function governance.invoice_dues(o jsonb, p_metadata jsonb, p_subscription text)
  returns setof governance.invoice_due
  language sql stable set search_path = '' as $$
  with lines as (
    select x.n, governance.stripe_object(x.value) as line, s.booked_minor, s.collected_minor, s.covered_minor,
      governance.is_proration(x.value) as is_proration,
      governance.stripe_whole(x.value -> 'amount') as amount,
      coalesce(governance.named_tokens(x.value), k.tokens) as price_tokens,
      btrim(x.value #>> '{metadata,tokens}') as line_tokens,
      coalesce(btrim(p_metadata ->> 'tokens'), (select s.tokens from governance.stripe_subscriptions s
        where s.subscription_id = p_subscription)) as subscription_tokens,
      governance.stripe_whole(coalesce(nullif(x.value -> 'quantity', 'null'), '1')) as quantity
    from jsonb_array_elements(governance.stripe_list(o -> 'lines')) with ordinality x(value, n)
    join unnest(governance.invoice_shares(o)) with ordinality s(booked_minor, collected_minor, covered_minor, n)
      using (n)
    left join governance.stripe_prices k on k.price_id = governance.price_of(x.value)
    where governance.is_subscription_line(x.value)
      -- Another item is one of tokens where it or its price names tokens.
      or governance.named_tokens(x.value) is not null or k.tokens is not null
      or btrim(x.value #>> '{metadata,tokens}') <> ''
      or p_subscription is not null and governance.price_plan(x.value) is not null
  ), sold as (
    select l.*,
      -- Stripe copies the subscription's metadata to each line: those tokens are the subscription's, once a period.
      case when l.line_tokens is distinct from l.subscription_tokens and l.line_tokens is not null then l.line_tokens
        when l.price_tokens is not null then case
          when l.price_tokens !~ '^[0-9]{1,15}$' then l.price_tokens
          when l.quantity between 0 and 1000000 then (l.price_tokens::numeric * l.quantity)::text
          else l.price_tokens || ' each' end
        else l.subscription_tokens end as tokens,
      l.price_tokens is not null and (l.line_tokens is null or l.line_tokens is not distinct from l.subscription_tokens)
        as is_by_price,
      coalesce(governance.plan_of(p_metadata, l.line), (select p.plan_id from governance.stripe_subscriptions s
        join governance.plans p using (plan_id) where s.subscription_id = p_subscription)) as any_plan_id,
      governance.price_plan(l.line) as price_plan_id,
      governance.metadata_text(governance.stripe_object(l.line -> 'metadata'), 'plan_id', 'planId', 'plan')
        as own_plan_id,
      governance.metadata_text(p_metadata, 'plan_id', 'planId', 'plan') as subscription_plan_id,
      -- Until a subscription event shows what this price is for, it is not known whether the plan has changed.
      governance.price_of(l.line) is not null and governance.price_object(l.line) = '{}'
        and jsonb_typeof(l.line -> 'plan') is distinct from 'object' and not exists (
        select from governance.stripe_prices k where k.price_id = governance.price_of(l.line)) as has_new_price
    from lines l where l.amount is null or l.amount >= 0
  ), planned as (
    select s.*, case
      when s.price_plan_id is not null or s.own_plan_id is distinct from s.subscription_plan_id
        and s.own_plan_id is not null then s.any_plan_id
      -- Beside the price of a plan, a line that names none is for something else.
      when s.tokens is null and exists (select from sold x where x.price_plan_id is not null) then null
      when s.has_new_price and exists (select from governance.stripe_subscriptions k
        where k.subscription_id = p_subscription
          and k.priced_at < coalesce(governance.invoice_time(o), 'infinity')) then null
      else s.any_plan_id end as plan_id
    from sold s
  ), named as (
    select s.*, case
      when s.tokens is null then 'plan ' || s.plan_id
      when s.tokens = s.subscription_tokens and s.price_tokens is null then 'subscription'
      -- Stripe writes a line for each tier of a price; one for the tier's fee has no quantity.
      when s.is_by_price and not s.is_proration and governance.price_of(s.line) is not null
        then 'price ' || governance.price_of(s.line) || ' ' || (s.line #>> '{period,start}')
      else 'line ' || s.n end as sale,
      governance.stripe_id(s.line -> 'id') as id, governance.stripe_time(s.line #> '{period,start}') as period_from,
      governance.stripe_time(s.line #> '{period,end}') as period_to
    from planned s where s.tokens is not null or s.plan_id is not null
  ), grouped as (
    -- Whole periods before parts of one, and the latest period first: a line for use of the period before may be beside
    -- it.
    select n.sale, case when n.sale like 'price %' and bool_and(n.tokens ~ '^[0-9]{1,15}$')
        then sum(case when n.tokens ~ '^[0-9]{1,15}$' then n.tokens::numeric end)::text
        else (array_agg(n.tokens order by n.is_proration, n.period_to desc nulls last, n.n))[1] end as tokens,
      (array_agg(n.plan_id order by n.is_proration, n.period_to desc nulls last, n.n)
        filter (where n.plan_id is not null))[1] as plan_id,
      (array_agg(n.id order by n.is_proration, n.period_to desc nulls last, n.n))[1] as id,
      (array_agg(n.period_from order by n.is_proration, n.period_to desc nulls last, n.n))[1] as period_from,
      (array_agg(n.period_to order by n.is_proration, n.period_to desc nulls last, n.n))[1] as period_to,
      min(n.n) as place,
      sum(n.booked_minor)::bigint as booked, sum(n.collected_minor)::bigint as collected,
      sum(n.covered_minor)::bigint as covered, bool_and(n.is_proration) as is_proration,
      bool_or(n.amount is null) as has_no_amount
    from named n group by n.sale having not coalesce(bool_and(n.is_by_price and n.quantity = 0), false)
  )
  select
    case
      when g.id is null or g.period_from is null or g.period_to is null or g.period_to < g.period_from
        or g.period_to = g.period_from and g.tokens is null then 'malformed'
      when g.has_no_amount then 'amount_mismatch'
      when g.tokens is not null and (g.tokens !~ '^[0-9]{1,15}$' or g.tokens::bigint = 0) then 'invalid_tokens'
      when g.tokens::bigint > 100000000 then 'tokens_above_ceiling'
      -- Part of a period of a price that names tokens: only a person can decide how many it buys.
      when g.is_proration and g.tokens is not null then 'proration'
    end,
    -- Older line ids name the subscription, not the line: then invoice and period make it one of a kind.
    case when g.id like 'il\_%' then g.id
      else governance.stripe_id(o -> 'id') || ':' || g.id || ':' || extract(epoch from g.period_from)::bigint end,
    g.plan_id, case when g.tokens ~ '^[0-9]{1,15}$' then g.tokens::bigint end, g.booked, g.collected, g.covered,
    -- Paid when it was over, with the use of it: the period that begins then is the one to have the tokens.
    case when p.is_over then g.period_to else g.period_from end,
    -- Sold once, not for a period: Stripe writes the moment twice.
    case when g.period_to = g.period_from then null
      when p.is_over then g.period_to + age(g.period_to at time zone 'UTC', g.period_from at time zone 'UTC')
      else g.period_to end,
    array(select governance.stripe_time(l.line #> '{period,end}') from lines l where l.amount < 0)
  from grouped g cross join lateral (values (
    coalesce(not g.is_proration and g.period_to > g.period_from
      and g.period_to <= governance.stripe_time(o -> 'period_end'), false))) p(is_over)
  order by g.place
$$;
comment on function governance.invoice_dues(jsonb, jsonb, text) is
  'The grants that a paid invoice asks for, one row for each sale: tokens that a line or its price names (times the '
  'quantity), tokens of the subscription once, or a plan''s allowance once, each with the money of all its lines. '
  'period_to is null where it is sold once, not for a period; credited_ends are the ends of the periods that the '
  'invoice credits. problem is why the invoice waits.';

create function governance.sells_nothing(o jsonb) returns boolean
  language sql stable set search_path = '' as $$
  select o #> '{lines,has_more}' is distinct from 'true' and count(*) > 0 and not bool_or(
    governance.is_subscription_line(x.value) and coalesce(governance.stripe_whole(x.value -> 'amount') >= 0, true)
    and not (x.value -> 'quantity' = '0' and (governance.named_tokens(x.value) is not null or exists (
      select from governance.stripe_prices k
      where k.price_id = governance.price_of(x.value) and k.tokens is not null))))
  from jsonb_array_elements(governance.stripe_list(o -> 'lines')) x
$$;
comment on function governance.sells_nothing(jsonb) is
  'Whether no line of a subscription''s invoice can be one that tokens or a plan were paid by, whatever events follow.';

create function governance.adopt_allowance(p_account_id bigint, p_now timestamptz, p_event_id text,
  p_pay governance.stripe_payments, p_due governance.invoice_due, p_currency text, p_expires timestamptz)
  returns governance.granted
  language plpgsql set search_path = '' as $$
declare
  v_lot governance.lots;
  v_entry governance.granted;
begin
  select * into v_lot from governance.lots l
  where l.account_id = p_account_id and l.kind = 'subscription' and l.stripe_invoice_line_id is null
    and l.expires_at > p_now and not exists (select from governance.moved_lots m where m.lot_id = l.lot_id)
  order by l.granted desc, l.lot_id desc limit 1;
  if v_lot.lot_id is null then return null; end if;
  update governance.lots l set stripe_invoice_line_id = p_due.key, stripe_charge_id = p_pay.charge_id,
    stripe_payment_intent_id = p_pay.payment_intent_id, amount_minor = p_due.booked_minor, currency = p_currency,
    expires_at = greatest(l.expires_at, p_expires)
  where l.lot_id = v_lot.lot_id;
  v_entry.transaction_id := (governance.append_entry(p_account_id, 'subscription_grant', p_now,
    array[v_lot.lot_id, 0::bigint], 0, 0, 0, 0, p_due.key, 'Invoice paid: this month''s allowance is there already',
    jsonb_strip_nulls(jsonb_build_object('cause', p_event_id, 'invoice_id', p_pay.invoice_id, 'plan_id', p_due.plan_id,
      'amount_minor', p_due.booked_minor, 'currency', p_currency, 'tokens_left', v_lot.remaining)))).transaction_id;
  v_entry.lot_id := v_lot.lot_id;
  return v_entry;
end
$$;
comment on function governance.adopt_allowance(bigint, timestamptz, text, governance.stripe_payments,
  governance.invoice_due, text, timestamptz) is
  'The allowance that an account got before its invoice was paid becomes the paid one; null where there is none. The '
  'caller holds the account''s lock.';

create function governance.supplement_lot(p_account_id bigint, p_now timestamptz, p_event_id text,
  p_pay governance.stripe_payments, p_due governance.invoice_due, p_currency text, p_subscription text)
  returns governance.granted
  language plpgsql set search_path = '' as $$
declare
  v_lot governance.lots;
  v_entry governance.granted;
begin
  -- A former user may have used all of it: then nothing moved with the subscription, and the lot is still theirs.
  select l.* into v_lot from governance.lots l
  where l.currency = p_currency and (
    l.account_id = p_account_id and governance.subscription_of_lot(l.lot_id) = p_subscription
    or l.lot_id in (select s.lot_id from governance.stripe_payments p join governance.stripe_lots s using (payment_id)
      where p.subscription_id = p_subscription))
  order by l.account_id = p_account_id desc, l.lot_id desc limit 1;
  if v_lot.lot_id is null then return null; end if;
  update governance.lots l set amount_minor = l.amount_minor + p_due.booked_minor where l.lot_id = v_lot.lot_id;
  v_entry.transaction_id := (governance.append_entry(v_lot.account_id, 'subscription_grant', p_now,
    array[v_lot.lot_id, 0::bigint], 0, 0, 0, 0, p_due.key, 'Invoice paid: more for tokens that are there already',
    jsonb_strip_nulls(jsonb_build_object('cause', p_event_id, 'invoice_id', p_pay.invoice_id, 'plan_id', p_due.plan_id,
      'amount_minor', v_lot.amount_minor + p_due.booked_minor, 'currency', p_currency)))).transaction_id;
  v_entry.lot_id := v_lot.lot_id;
  return v_entry;
end
$$;
comment on function governance.supplement_lot(bigint, timestamptz, text, governance.stripe_payments,
  governance.invoice_due, text, text) is
  'Adds money for tokens that were granted before (one more seat in mid-period) to the price of their lot, whichever '
  'account has it. Null where there is none. The caller holds the locks of all accounts of the subscription.';

create function governance.given_in_period(p_account_id bigint, p_now timestamptz, p_event_id text,
  p_due governance.invoice_due, p_subscription text, p_expires timestamptz) returns bigint
  language plpgsql set search_path = '' as $$
declare
  v_lot record;
  v_given bigint := 0;
begin
  for v_lot in
    select l.lot_id, l.granted - o.moved as granted, l.expired - o.moved as expired, l.is_open
      and l.account_id = p_account_id as is_open, l.expires_at, r.period_end
    from governance.stripe_payments p join governance.stripe_lots s using (payment_id)
      join governance.purchase_records r on r.lot_id = s.lot_id and r.record_type = 'grant'
      -- The account that has them, or had them and used them.
      cross join lateral (select s.lot_id union all select m.lot_id from governance.moved_lots m
        where m.paid_lot_id = s.lot_id) x
      join governance.lots l on l.lot_id = x.lot_id
      cross join lateral (select coalesce(sum(x.granted), 0)::bigint as moved from governance.moved_lots y
        join governance.lots x using (lot_id) where y.from_lot_id = l.lot_id) o
    where p.subscription_id = p_subscription and l.kind = 'subscription'
      and r.period_end > p_due.period_from and r.period_start < p_due.period_to
      -- A period that ends sooner (a trial, a period that was begun again) is another one, unless it was credited, or
      -- went on into one that was.
      and (r.period_end >= p_due.period_to or r.period_end = any (p_due.credited_ends)
        or l.expires_at >= (select min(c) from unnest(p_due.credited_ends) c))
    order by l.lot_id
  loop
    v_given := v_given + v_lot.granted;
    continue when v_lot.period_end >= p_due.period_to;
    v_given := v_given - v_lot.expired;
    if v_lot.is_open and v_lot.expires_at < p_expires then
      update governance.lots l set expires_at = p_expires where l.lot_id = v_lot.lot_id;
      perform governance.append_entry(p_account_id, 'subscription_grant', p_now, array[v_lot.lot_id, 0::bigint], 0, 0,
        0, 0, p_due.key, 'Period begun again: its tokens last until the end of the new one',
        jsonb_build_object('cause', p_event_id));
    end if;
  end loop;
  return v_given;
end
$$;
comment on function governance.given_in_period(bigint, timestamptz, text, governance.invoice_due, text, timestamptz) is
  'How much of a period''s allowance its subscription has given already. Where the period began again and the rest of '
  'the old one was credited, its tokens go on into the new one. What it gave to a former user counts too. The caller '
  'holds the locks of all accounts of the subscription.';

create function governance.grant_invoice_due(p_now timestamptz, p_event_id text, p_payment_id bigint,
  p_account_id bigint, p_due governance.invoice_due, p_currency text, p_subscription text, p_covered_by text)
  returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_account governance.accounts;
  v_plan governance.plans;
  v_pay governance.stripe_payments;
  v_more bigint := p_due.tokens;
  v_expires timestamptz := p_due.period_to;
  v_granted governance.granted;
  v_type text := 'grant';
  v_on_cancel text;
begin
  perform governance.lock_accounts(p_account_id || array(select l.account_id from governance.stripe_payments p
    join governance.stripe_lots s using (payment_id) join governance.lots l using (lot_id)
    where p.subscription_id = p_subscription));
  select * into strict v_account from governance.accounts a where a.account_id = p_account_id;
  update governance.stripe_payments p set account_id = p_account_id,
    subscription_id = coalesce(p.subscription_id, p_subscription)
  where p.payment_id = p_payment_id returning * into strict v_pay;
  if p_due.plan_id is not null then
    select * into strict v_plan from governance.plans p where p.plan_id = p_due.plan_id;
    perform governance.switch_to_paid_plan(p_account_id, p_due.plan_id, p_subscription, p_due.period_from);
  end if;
  if p_due.tokens is null then
    -- Paid for a month or less, the tokens last as long as the period, and until Stripe has had time to collect the
    -- next one (about an hour). Paid for longer, they come month by month.
    v_expires := case when governance.is_long_period(p_due.period_from, p_due.period_to)
      then (v_account.local_month + (1 + v_plan.rollover_months) * interval '1 month')::timestamp
        at time zone governance.known_zone(v_account.timezone)
      else p_due.period_to + interval '90 minutes' + v_plan.rollover_months * interval '1 month' end;
    -- Tokens that this period gave already are not given again.
    v_more := greatest(v_plan.monthly_allowance - coalesce((
      select sum(l.granted) from governance.lots l
      where l.account_id = p_account_id and l.kind = 'subscription' and l.stripe_invoice_line_id is null
        and l.expires_at > p_now
        and not exists (select from governance.moved_lots m where m.lot_id = l.lot_id)), 0)
      - governance.given_in_period(p_account_id, p_now, p_event_id, p_due, p_subscription, v_expires), 0);
    update governance.accounts a set month_allowance = greatest(a.month_allowance, v_plan.monthly_allowance)
    where a.account_id = p_account_id;
  end if;
  if v_more > 0 then
    v_granted := governance.grant_tokens(p_account_id, case when v_expires is null then 'purchased'
      else 'subscription' end, v_more, case when v_expires is null then 'purchase' else 'subscription_grant' end, p_now,
      v_expires, p_due.key, case when v_expires is null then 'Invoice paid'
        else 'Subscription ' || coalesce(p_due.plan_id, '') end,
      jsonb_strip_nulls(jsonb_build_object('cause', p_event_id, 'invoice_id', v_pay.invoice_id,
        'plan_id', p_due.plan_id, 'period_start', p_due.period_from, 'period_end', p_due.period_to,
        'amount_minor', p_due.booked_minor,
        'currency', p_currency)),
      jsonb_build_object('stripe_charge_id', v_pay.charge_id, 'stripe_payment_intent_id', v_pay.payment_intent_id,
        'stripe_invoice_line_id', p_due.key, 'amount_minor', p_due.booked_minor, 'currency', p_currency));
  else
    v_granted := governance.adopt_allowance(p_account_id, p_now, p_event_id, v_pay, p_due, p_currency, v_expires);
    if v_granted.lot_id is null then
      v_granted := governance.supplement_lot(p_account_id, p_now, p_event_id, v_pay, p_due, p_currency, p_subscription);
      v_type := 'supplement';
    end if;
    if v_granted.lot_id is null then
      -- A plan that gives no tokens: a limit alone, say.
      perform governance.note_paid_period(p_subscription, p_account_id, p_due, p_now);
      return '[]';
    end if;
  end if;
  if v_type = 'grant' then
    insert into governance.stripe_lots (lot_id, payment_id, tokens)
    select l.lot_id, p_payment_id, l.granted from governance.lots l where l.lot_id = v_granted.lot_id;
    if p_due.tokens is null and governance.is_long_period(p_due.period_from, p_due.period_to) then
      insert into governance.paid_periods (lot_id, first_day, days)
      select v_granted.lot_id, d.first, greatest((p_due.period_to at time zone 'UTC')::date - d.first, 1)
      from (values ((p_due.period_from at time zone 'UTC')::date)) d(first);
    end if;
  end if;
  perform governance.record_purchase(v_granted.transaction_id, v_type, v_granted.lot_id, p_payment_id,
    case when v_type = 'grant' then (select l.granted from governance.lots l where l.lot_id = v_granted.lot_id)
      else 0 end,
    0, (select l.amount_minor from governance.lots l where l.lot_id = v_granted.lot_id), p_currency,
    p_line_id => p_due.key, p_period_start => p_due.period_from, p_period_end => p_due.period_to,
    p_collected => p_due.collected_minor, p_covered => p_due.covered_minor, p_covered_by => p_covered_by);
  if p_due.period_to is not null then
    perform governance.note_paid_period(p_subscription, p_account_id, p_due, p_now);
  end if;
  -- The subscription ended before its invoice was delivered: its tokens share the fate of the others, which the plan
  -- at its end decides.
  select coalesce(p.on_cancel, 'keep') into v_on_cancel
  from governance.stripe_subscriptions s
  left join governance.plans p on p.plan_id = coalesce(s.plan_id, s.paid_plan_id, p_due.plan_id, v_account.plan_id)
  where s.subscription_id = p_subscription and s.canceled_at is not null;
  if v_type = 'grant' and found then
    perform governance.end_subscription_lots(p_account_id, v_on_cancel, p_now, p_subscription, false, v_granted.lot_id);
  end if;
  if v_more > 0 and p_due.collected_minor > 0 then
    perform governance.tell_user(p_account_id, 'purchases', 'message.renewal', jsonb_build_object('tokens', v_more,
      'plan', coalesce(v_plan.name, (select x.name from governance.plans x where x.plan_id = v_account.plan_id)),
      'money', jsonb_build_object('minor', p_due.collected_minor, 'currency', p_currency)), p_now,
      (select p.paid_at from governance.stripe_payments p where p.payment_id = p_payment_id));
  end if;
  return jsonb_build_array(governance.effect('grant', v_account.user_id, v_more, v_granted.transaction_id));
end
$$;
comment on function governance.grant_invoice_due(timestamptz, text, bigint, bigint, governance.invoice_due, text, text,
  text) is
  'Grants one sale of a paid invoice: the tokens it names, or its plan''s allowance as far as the period has not given '
  'it. The caller holds the payment''s locks.';

create function governance.invoice_without_dues(p_event_id text, o jsonb, p_subscription text, p_user_id text,
  p_customer text, p_payment_id bigint) returns governance.stripe_outcome
  language plpgsql set search_path = '' as $$
begin
  if p_subscription is not null and governance.sells_nothing(o) then
    -- A credit for what ended early, a seat that nobody has, a fee beside the plan.
    perform governance.sold_no_tokens(p_payment_id);
    return governance.outcome('processed', 'nothing_sold', '[]', p_payment_id);
  elsif p_subscription is null then
    perform governance.sold_no_tokens(p_payment_id);
    return governance.outcome('ignored', 'not_a_token_purchase');
  elsif p_user_id is not null or exists (select from governance.webhook_events_processed w
    where w.event_id = p_event_id and w.status = 'quarantined' and w.reason = 'unknown_plan') then
    return governance.outcome('quarantined', 'unknown_plan', '[]', p_payment_id, p_customer);
  end if;
  -- The plan may come later, with the subscription or its Checkout Session: until then it waits without an alert,
  -- which governance.show_waiting_invoices raises after a while.
  return governance.outcome('parked', 'not_known_yet', '[]', p_payment_id, p_customer);
end
$$;
comment on function governance.invoice_without_dues(text, jsonb, text, text, text, bigint) is
  'The outcome of a paid invoice that is known to grant nothing, or of which nobody knows yet what it grants.';

create function governance.on_invoice(p_event_id text, p_now timestamptz, p_event_at timestamptz, o jsonb,
  p_livemode boolean) returns governance.stripe_outcome
  language plpgsql set search_path = '' as $$
declare
  v_invoice text := governance.stripe_id(o -> 'id');
  v_customer text := governance.stripe_id(o -> 'customer');
  -- From 2025-03-31 an invoice names neither subscription, payment nor charge at its top.
  v_parent jsonb := governance.stripe_object(o #> '{parent,subscription_details}');
  v_subscription text := coalesce(governance.stripe_id(o -> 'subscription'),
    governance.stripe_id(v_parent -> 'subscription'));
  v_intent text := coalesce(governance.stripe_id(o -> 'payment_intent'),
    governance.stripe_id(o #> '{payments,data,0,payment,payment_intent}'));
  v_charge text := coalesce(governance.stripe_id(o -> 'charge'),
    governance.stripe_id(o #> '{payments,data,0,payment,charge}'));
  v_metadata jsonb := governance.stripe_object(o -> 'metadata') || governance.stripe_object(v_parent -> 'metadata')
    || governance.stripe_object(o #> '{subscription_details,metadata}');
  v_user_id text;
  v_currency text := governance.stripe_currency(o -> 'currency');
  v_paid bigint := governance.stripe_whole(o -> 'amount_paid');
  v_pay governance.stripe_payments;
  v_account_id bigint;
  v_from timestamptz;
  v_is_moved boolean;
  v_due governance.invoice_due;
  v_dues governance.invoice_due[];
  v_plan_id text;
  v_problem text;
  v_effects jsonb := '[]';
begin
  if v_invoice is null then return governance.outcome('quarantined', 'malformed'); end if;
  if o -> 'subscription_details' is null and v_parent = '{}' then
    -- Before 2023 the subscription's metadata is on its lines alone.
    v_metadata := v_metadata || coalesce((select governance.stripe_object(x.value -> 'metadata')
      from jsonb_array_elements(governance.stripe_list(o -> 'lines')) with ordinality x(value, n)
      where x.value ->> 'type' = 'subscription' order by x.n limit 1), '{}');
  end if;
  v_user_id := governance.metadata_text(v_metadata, 'user_id', 'userId', 'userid');
  if coalesce(o ->> 'status', 'paid') <> 'paid' then return governance.outcome('processed', 'awaiting_payment'); end if;
  v_pay := governance.note_payment(p_now, v_intent, v_charge, null, v_invoice, v_customer, p_livemode);
  if jsonb_typeof(o -> 'number') = 'string' and char_length(o ->> 'number') between 1 and 100 then
    insert into governance.stripe_invoice_numbers (invoice_id, number) values (v_invoice, upper(o ->> 'number'))
    on conflict do nothing;
  end if;
  v_account_id := (select a.account_id from governance.accounts a where a.user_id = v_user_id);
  if v_subscription is not null then
    -- An invoice has the subscription's metadata as it was when the invoice was finalised.
    p_event_at := coalesce(p_event_at, p_now);
    v_from := coalesce(governance.invoice_time(o), p_event_at);
    v_is_moved := v_account_id is null and v_user_id is not null and exists (
      select from governance.stripe_subscriptions s
      where s.subscription_id = v_subscription and s.owner_reported_at < v_from);
    v_account_id := governance.own_subscription(p_now, p_event_id, v_subscription, v_account_id, v_from);
    -- It has a new user now, who is not known yet.
    if v_is_moved then return governance.outcome('quarantined', 'unknown_user', '[]', v_pay.payment_id); end if;
  end if;
  v_account_id := coalesce(v_account_id, (select c.account_id from governance.stripe_customers c
    where c.customer_id = v_customer));
  if v_subscription is null then
    -- A pack may be named by the line alone, or by its price.
    v_metadata := governance.pack_of_lines(o) || v_metadata;
    if exists (select from governance.stripe_lots s where s.payment_id = v_pay.payment_id) then
      return governance.outcome('processed', 'already_granted',
        governance.settle_payment(v_pay.payment_id, p_now, p_event_id), v_pay.payment_id);
    end if;
  end if;
  v_dues := case when v_subscription is null and governance.is_token_order(v_metadata) then '{}'
    else array(select d from governance.invoice_dues(o, v_metadata, v_subscription) d) end;

  if v_dues = '{}' and v_subscription is null and governance.is_token_order(v_metadata) then
    -- A single invoice for a pack.
    o := governance.invoice_order(o);
    return governance.on_paid_order(p_event_id, p_now, p_event_at, o, v_metadata, v_user_id,
      governance.metadata_text(v_metadata, 'pack_id', 'packId', 'packid'), v_intent, v_charge, null, p_livemode,
      o -> 'amount_sold');
  end if;
  if v_dues = '{}' then
    return governance.invoice_without_dues(p_event_id, o, v_subscription, v_user_id, v_customer, v_pay.payment_id);
  end if;
  v_problem := case
    when o #> '{lines,has_more}' = 'true' then 'lines_missing'
    when v_paid is null or v_paid < 0 then 'amount_mismatch'
    when v_currency is null then 'currency_mismatch'
  end;
  -- All of its lines or none: a line that does not fit keeps the others waiting.
  foreach v_due in array v_dues loop
    v_problem := coalesce(v_problem, v_due.problem);
    v_plan_id := coalesce(v_due.plan_id, v_plan_id);
  end loop;
  if v_problem is null and v_account_id is null then v_problem := 'unknown_user'; end if;
  if v_problem is not null then
    return governance.outcome('quarantined', v_problem, '[]', v_pay.payment_id, case
      when v_problem = 'unknown_user' then v_customer end);
  end if;
  foreach v_due in array v_dues loop
    continue when exists (select from governance.purchase_records r where r.invoice_line_id = v_due.key);
    update governance.stripe_payments p set amount_minor = coalesce(p.amount_minor, v_paid),
      currency = coalesce(p.currency, v_currency), paid_at = coalesce(p.paid_at, p_event_at, p_now)
    where p.payment_id = v_pay.payment_id;
    v_effects := v_effects || governance.grant_invoice_due(p_now, p_event_id, v_pay.payment_id, v_account_id, v_due,
      v_currency, v_subscription, governance.invoice_covered_by(o));
  end loop;
  if not exists (select from unnest(v_dues) d join governance.purchase_records r on r.invoice_line_id = d.key) then
    perform governance.sold_no_tokens(v_pay.payment_id);
  end if;
  perform governance.learn_customer(v_customer, v_account_id);
  if v_subscription is not null then
    v_effects := v_effects || governance.note_subscription(p_now, p_event_id, v_subscription, v_customer, v_account_id,
      v_plan_id);
  end if;
  return governance.outcome('processed', null, v_effects
    || governance.settle_payment(v_pay.payment_id, p_now, p_event_id), v_pay.payment_id);
end
$$;
comment on function governance.on_invoice(text, timestamptz, timestamptz, jsonb,
  boolean) is 'invoice.paid, in its shapes before and after 2025-03-31: each subscription line and period grants once.';
