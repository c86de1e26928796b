-- Subscriptions and their invoices.

create table governance.stripe_subscriptions (
  subscription_id text primary key,
  account_id bigint references governance.accounts (account_id),
  customer_id text,
  plan_id text,
  canceled_at timestamptz,
  updated_at timestamptz not null
);

comment on table governance.stripe_subscriptions is 'Subscriptions: whose, for which plan, and whether they ended.';

create function governance.end_subscription_lots(p_account_id bigint, p_on_cancel text, p_now timestamptz,
  p_reference text, p_lot_id bigint default null) returns bigint
  language plpgsql set search_path = '' as $$
declare
  v_lot record;
  v_free bigint;
  v_take bigint;
  v_moved bigint := 0;
begin
  if p_on_cancel = 'keep' then return 0; end if;
  for v_lot in select l.lot_id, l.remaining from governance.lots l
    where l.account_id = p_account_id and l.kind = 'subscription' and l.is_open
      and (p_lot_id is null or l.lot_id = p_lot_id) order by l.lot_id
  loop
    if p_on_cancel = 'convert' then
      update governance.lots l set kind = 'purchased', expires_at = null where l.lot_id = v_lot.lot_id;
      perform governance.append_entry(p_account_id, 'adjustment', p_now, array[v_lot.lot_id, 0::bigint],
        -v_lot.remaining, v_lot.remaining, 0, 0, p_reference,
        'Subscription ended: its tokens are kept as purchased');
      v_moved := v_moved + v_lot.remaining;
    else
      select a.subscription_tokens + a.purchased_tokens + a.promotional_tokens - a.reserved_tokens into strict v_free
      from governance.accounts a where a.account_id = p_account_id;
      -- What is held for calls under way expires when they end.
      v_take := least(v_lot.remaining, v_free);
      update governance.lots l set remaining = l.remaining - v_take, expired = l.expired + v_take,
        expires_at = least(l.expires_at, p_now),
        is_open = l.remaining - v_take + l.frozen > 0
      where l.lot_id = v_lot.lot_id;
      if v_take < v_lot.remaining then
        update governance.accounts a set lots_check_at = least(a.lots_check_at, p_now)
          where a.account_id = p_account_id;
      end if;
      -- That the lot ends now is on record even where all of it is held or frozen.
      perform governance.append_entry(p_account_id, 'expiry', p_now, array[v_lot.lot_id, -v_take], -v_take, 0, 0, 0,
        p_reference, 'Subscription ended');
      v_moved := v_moved - v_take;
    end if;
  end loop;
  return v_moved;
end
$$;
comment on function governance.end_subscription_lots(bigint, text, timestamptz, text, bigint) is
  'What becomes of subscription tokens when the subscription ends: keep, convert into purchased ones, or expire. The '
  'caller holds the account''s lock.';

create function governance.note_subscription(p_now timestamptz, p_event_id text, p_subscription text, p_customer text,
  p_account_id bigint, p_plan_id text) returns jsonb
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
      customer_id = coalesce(s.customer_id, excluded.customer_id), plan_id = coalesce(excluded.plan_id, s.plan_id),
        updated_at = p_now;
  end if;
  perform governance.learn_customer(p_customer, p_account_id);
  if p_account_id is not null and p_customer is not null then
    -- What was delivered before anybody knew whose it is.
    for v_waiting in select w.event_id, w.payload from governance.webhook_events_processed w
      where w.waits_for_customer = p_customer and w.status = 'quarantined' and w.event_id <> p_event_id
        order by w.event_created_at, w.event_id for update
    loop
      v_effects := v_effects || coalesce(governance.take_event(v_waiting.event_id, v_waiting.payload,
        p_now) -> 'effects', '[]');
    end loop;
  end if;
  return v_effects;
end
$$;
comment on function governance.note_subscription(timestamptz, text, text, text, bigint, text) is
  'Notes whose subscription it is and for which plan, and takes up events that waited to know. Answers their effects.';

create function governance.on_subscription(p_event_id text, p_type text, p_now timestamptz,
  o jsonb) returns governance.stripe_outcome
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
    select a.* into v_account from governance.stripe_customers c join governance.accounts a using (account_id)
      where c.customer_id = v_customer;
  end if;
  v_effects := governance.note_subscription(p_now, p_event_id, v_id, v_customer, v_account.account_id, v_plan_id);
  if p_type <> 'customer.subscription.deleted' and coalesce(o ->> 'status', '') <> 'canceled' then
    return governance.outcome('processed', 'subscription_noted', v_effects);
  end if;
  select * into strict v_sub from governance.stripe_subscriptions s where s.subscription_id = v_id for update;
  if v_sub.canceled_at is not null then return governance.outcome('processed', 'already_canceled', v_effects); end if;
  update governance.stripe_subscriptions s
    set canceled_at = coalesce(governance.stripe_time(o -> 'ended_at'), governance.stripe_time(o -> 'canceled_at'),
    p_now)
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
comment on function governance.plan_of(jsonb,
  jsonb) is 'The plan that a subscription item or invoice line is for: by metadata, lookup key or nickname.';

create function governance.grant_invoice_line(
  p_now timestamptz, p_event_id text, p_payment_id bigint, p_account_id bigint, p_line_key text, p_plan_id text,
    p_tokens bigint,
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
    if v_account.plan_id <> p_plan_id
      and not exists (select from governance.stripe_subscriptions s
      where s.subscription_id = p_subscription and s.canceled_at is not null) then
      update governance.accounts a set plan_id = p_plan_id, version = a.version + 1 where a.account_id = p_account_id;
    end if;
    if p_tokens is null then
      -- The plan's monthly allowance is what was paid for. What this month already gave of it is not given again: that
      -- lot becomes the paid one.
      v_more := greatest(v_plan.monthly_allowance - v_account.month_allowance, 0);
      update governance.accounts a set month_allowance = greatest(a.month_allowance, v_plan.monthly_allowance)
        where a.account_id = p_account_id;
      v_expires := ((v_account.local_month + (1 + v_plan.rollover_months) * interval
        '1 month')::timestamp at time zone v_account.timezone);
    end if;
  end if;
  if v_more > 0 then
    v_granted := governance.grant_tokens(p_account_id, 'subscription', v_more, 'subscription_grant', p_now, v_expires,
      p_line_key,
      'Subscription ' || coalesce(p_plan_id, ''),
        jsonb_strip_nulls(jsonb_build_object('cause', p_event_id, 'invoice_id', v_pay.invoice_id, 'plan_id', p_plan_id,
        'period_start', p_from, 'period_end', p_to, 'amount_minor', p_amount, 'currency', p_currency)),
      jsonb_build_object('stripe_charge_id', v_pay.charge_id, 'stripe_payment_intent_id', v_pay.payment_intent_id,
        'stripe_invoice_line_id', p_line_key,
        'amount_minor', p_amount, 'currency', p_currency));
    v_lot_id := v_granted.lot_id;
    v_entry := v_granted.transaction_id;
    v_total := v_more;
  else
    select l.lot_id, l.granted into v_lot_id, v_total from governance.lots l
    where l.account_id = p_account_id and l.kind = 'subscription' and l.stripe_invoice_line_id is null
      and l.created_at < v_month_end
      and l.expires_at > p_now order by l.granted desc, l.lot_id desc limit 1;
    if v_lot_id is null then return '[]'; end if;
    update governance.lots l set stripe_invoice_line_id = p_line_key, stripe_charge_id = v_pay.charge_id,
      stripe_payment_intent_id = v_pay.payment_intent_id,
      amount_minor = p_amount, currency = p_currency
    where l.lot_id = v_lot_id;
    v_entry := (governance.append_entry(p_account_id, 'subscription_grant', p_now, '{}', 0, 0, 0, 0, p_line_key,
      'Invoice paid: this month''s allowance is there already',
        jsonb_strip_nulls(jsonb_build_object('cause', p_event_id, 'invoice_id', v_pay.invoice_id, 'plan_id',
        p_plan_id)))).transaction_id;
  end if;
  update governance.stripe_payments p set account_id = p_account_id,
    subscription_id = coalesce(p.subscription_id, p_subscription) where p.payment_id = p_payment_id;
  insert into governance.stripe_lots (lot_id, payment_id, tokens) values (v_lot_id, p_payment_id, v_total);
  perform governance.record_purchase(v_entry, 'grant', v_lot_id, p_payment_id, v_total, 0, p_amount, p_currency,
    p_line_id => p_line_key,
    p_period_start => p_from, p_period_end => p_to);
  -- The subscription ended before its invoice was delivered: its tokens share the fate of the others.
  if exists (select from governance.stripe_subscriptions s
    where s.subscription_id = p_subscription and s.canceled_at is not null) then
    select coalesce(p.on_cancel, 'keep') into v_on_cancel from governance.plans p
      where p.plan_id = coalesce(p_plan_id, v_account.plan_id);
    perform governance.end_subscription_lots(p_account_id, v_on_cancel, p_now, p_subscription, v_lot_id);
  end if;
  return jsonb_build_array(governance.effect('grant', v_account.user_id, v_more, v_entry));
end
$$;
comment on function governance.grant_invoice_line(timestamptz, text, bigint, bigint, text, text, bigint, bigint, text,
  timestamptz, timestamptz, text) is
  'Grants what one paid invoice line stands for: the tokens it names, or its plan''s allowance as far as this month '
    'has not given it. The caller holds the payment''s locks.';

create function governance.on_invoice(p_event_id text, p_now timestamptz, p_told_at timestamptz, o jsonb,
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
  v_due record;
  v_lines_due jsonb[] := '{}';
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
    select s.account_id into v_account_id from governance.stripe_subscriptions s
      where s.subscription_id = v_subscription and s.account_id is not null;
  end if;
  if v_account_id is null then
    select c.account_id into v_account_id from governance.stripe_customers c where c.customer_id = v_customer;
  end if;

  for v_line in select governance.stripe_object(x.value) from jsonb_array_elements(v_lines) x limit 250 loop
    v_line_metadata := governance.stripe_object(v_line -> 'metadata');
    continue when coalesce(v_line -> 'proration' = 'true', false)
      or coalesce(v_line #> '{parent,subscription_item_details,proration}' = 'true', false)
      or (governance.stripe_id(v_line -> 'subscription') is null and coalesce(v_line ->> 'type', '') <> 'subscription'
        and coalesce(v_line #>> '{parent,type}', '') <> 'subscription_item_details');
    v_plan_id := governance.plan_of(v_metadata, v_line);
    v_tokens := btrim(coalesce(v_line_metadata ->> 'tokens', v_line #>> '{price,metadata,tokens}',
      v_metadata ->> 'tokens'));
    if v_plan_id is null then
      select s.plan_id into v_plan_id from governance.stripe_subscriptions s join governance.plans p using (plan_id)
        where s.subscription_id = v_subscription;
    end if;
    continue when v_plan_id is null and v_tokens is null;
    v_amount := governance.stripe_whole(v_line -> 'amount');
    v_from := governance.stripe_time(v_line #> '{period,start}');
    v_to := governance.stripe_time(v_line #> '{period,end}');
    v_key := governance.stripe_id(v_line -> 'id');
    v_problem := case
      when v_key is null or v_from is null or v_to is null or v_to <= v_from then 'malformed'
      when v_amount is null or v_amount < 0 or v_paid is null or v_paid < 0 then 'amount_mismatch'
      when v_currency is null then 'currency_mismatch'
      when v_tokens is not null and (v_tokens !~ '^[0-9]{1,15}$' or v_tokens::bigint = 0) then 'invalid_tokens'
      when v_tokens::bigint > 100000000 then 'tokens_above_ceiling'
      when v_account_id is null then 'unknown_user'
    end;
    if v_problem is not null then
      return governance.outcome('quarantined', v_problem, '[]', v_pay.payment_id, case
        when v_problem = 'unknown_user' then v_customer end);
    end if;
    -- Older line ids name the subscription, not the line: then invoice and period make it one of a kind.
    if v_key not like 'il\_%' then v_key := v_invoice || ':' || v_key || ':' || extract(epoch from v_from)::bigint;
      end if;
    v_lines_due := v_lines_due
      || jsonb_build_object('key', v_key, 'plan_id', v_plan_id, 'tokens', v_tokens, 'amount', v_amount, 'from', v_from,
      'to', v_to);
  end loop;
  if v_lines_due = '{}' then
    if v_user_id is not null and v_subscription is not null then
      return governance.outcome('quarantined', 'unknown_plan', p_payment_id => v_pay.payment_id);
    end if;
    return governance.outcome('ignored', 'not_a_token_purchase');
  end if;
  -- All of its lines or none: a line that does not fit keeps the others waiting.
  for v_due in select x.* from unnest(v_lines_due) with ordinality u(line, n)
    cross join lateral jsonb_to_record(u.line) x(key text, plan_id text, tokens text, amount bigint, "from" timestamptz,
      "to" timestamptz) order by u.n
  loop
    continue when exists (select from governance.lots l where l.stripe_invoice_line_id = v_due.key);
    update governance.stripe_payments p set amount_minor = coalesce(p.amount_minor, v_paid),
      currency = coalesce(p.currency, v_currency),
      paid_at = coalesce(p.paid_at, p_told_at, p_now)
    where p.payment_id = v_pay.payment_id;
    v_effects := v_effects || governance.grant_invoice_line(p_now, p_event_id, v_pay.payment_id, v_account_id,
      v_due.key, v_due.plan_id, v_due.tokens::bigint,
      v_due.amount, v_currency, v_due."from", v_due."to", v_subscription);
  end loop;
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
