-- Subscriptions and their invoices.

create table governance.stripe_subscriptions (
  subscription_id text primary key,
  -- No foreign key: its check would lock the account's row before the account's own lock is taken.
  account_id bigint,
  -- When Stripe named the user; null while that is known from its customer only.
  owner_reported_at timestamptz,
  customer_id text,
  -- The plan that Stripe names now, paid or not.
  plan_id text,
  -- When Stripe last reported its items, where the price of one names the plan: an unknown price on a later invoice
  -- may be another plan's.
  priced_at timestamptz,
  paid_plan_id text,
  -- Tokens a period, where its Checkout Session alone names them.
  tokens text,
  -- The last period that an invoice paid for; null until one did.
  paid_from timestamptz,
  paid_until timestamptz,
  canceled_at timestamptz,
  updated_at timestamptz not null
);

create index stripe_subscriptions_account on governance.stripe_subscriptions (account_id);

do $$
begin
  perform governance.index_parts('stripe_subscriptions_parts', 'stripe_subscriptions', 'lower(subscription_id)');
end
$$;

comment on table governance.stripe_subscriptions is
  'Subscriptions: whose, for which plan, which period was paid last, and whether they ended.';

create table governance.stripe_prices (
  price_id text primary key,
  plan_id text,
  tokens text
);

comment on table governance.stripe_prices is
  'The plan or tokens that a price at Stripe is for, as known from subscriptions: from 2025-03-31 an invoice''s line '
  'has only the id of the price.';

create table governance.paid_periods (
  lot_id bigint primary key,
  -- Of UTC.
  first_day date not null,
  days int not null
);

comment on table governance.paid_periods is
  'Lots whose money is for longer than their tokens: a year paid in advance, which gives its allowance month by month. '
  'Their money becomes revenue by days of the period, other lots'' with their tokens.';

create table governance.moved_lots (
  lot_id bigint primary key,
  -- The lot whose tokens these were, and the one that was paid for.
  from_lot_id bigint not null,
  paid_lot_id bigint not null,
  subscription_id text not null
);

create index moved_lots_subscription on governance.moved_lots (subscription_id);

create index moved_lots_paid on governance.moved_lots (paid_lot_id);

create index moved_lots_from on governance.moved_lots (from_lot_id);

comment on table governance.moved_lots is
  'Lots that went to another user with their subscription. Their money stays where it was paid.';

create type governance.invoice_due as (problem text, key text, plan_id text, tokens bigint, booked_minor bigint,
  collected_minor bigint, covered_minor bigint, period_from timestamptz, period_to timestamptz,
  credited_ends timestamptz[]);

create function governance.subscription_of_lot(p_lot_id bigint) returns text
  language sql stable set search_path = '' as $$
  select coalesce((select p.subscription_id from governance.stripe_lots s
      join governance.stripe_payments p using (payment_id) where s.lot_id = p_lot_id),
    (select m.subscription_id from governance.moved_lots m where m.lot_id = p_lot_id))
$$;
comment on function governance.subscription_of_lot(bigint) is
  'The subscription that paid for a lot; null for a lot of anything else.';

create function governance.end_lot(p_account_id bigint, p_lot_id bigint, p_now timestamptz, p_reference text,
  p_words text, p_metadata jsonb default null) returns bigint
  language plpgsql set search_path = '' as $$
declare
  v_remaining bigint := (select l.remaining from governance.lots l where l.lot_id = p_lot_id);
  v_take bigint;
begin
  -- Tokens held for calls under way expire when those end.
  select least(v_remaining, a.subscription_tokens + a.purchased_tokens + a.promotional_tokens - a.reserved_tokens)
  into strict v_take from governance.accounts a where a.account_id = p_account_id;
  update governance.lots l set remaining = l.remaining - v_take, expired = l.expired + v_take,
    expires_at = least(l.expires_at, p_now),
    is_open = l.remaining - v_take + l.frozen > 0
  where l.lot_id = p_lot_id;
  if v_take < v_remaining then
    update governance.accounts a set lots_check_at = least(a.lots_check_at, p_now) where a.account_id = p_account_id;
  end if;
  -- That the lot ends now is on record even where all of it is held or frozen.
  perform governance.append_entry(p_account_id, 'expiry', p_now, array[p_lot_id, -v_take], -v_take, 0, 0, 0,
    p_reference, p_words, p_metadata);
  return v_take;
end
$$;
comment on function governance.end_lot(bigint, bigint, timestamptz, text, text, jsonb) is
  'Ends a lot of a subscription now; returns how many tokens left it. The caller holds the '
  'account''s lock.';

create function governance.end_subscription_lots(p_account_id bigint, p_on_cancel text, p_now timestamptz,
  p_subscription text, p_is_last boolean, p_lot_id bigint default null) returns bigint
  language plpgsql set search_path = '' as $$
declare
  v_lot record;
  v_moved bigint := 0;
begin
  if p_on_cancel = 'keep' then return 0; end if;
  for v_lot in select l.lot_id, l.remaining from governance.lots l
    where l.account_id = p_account_id and l.kind = 'subscription' and l.is_open
      and case when p_lot_id is not null then l.lot_id = p_lot_id
        else coalesce(governance.subscription_of_lot(l.lot_id) = p_subscription, p_is_last) end
    order by l.lot_id
  loop
    if p_on_cancel = 'convert' then
      update governance.lots l set kind = 'purchased', expires_at = null where l.lot_id = v_lot.lot_id;
      perform governance.append_entry(p_account_id, 'adjustment', p_now, array[v_lot.lot_id, 0::bigint],
        -v_lot.remaining, v_lot.remaining, 0, 0, p_subscription,
        'Subscription ended: its tokens are kept as purchased');
      v_moved := v_moved + v_lot.remaining;
    else
      v_moved := v_moved - governance.end_lot(p_account_id, v_lot.lot_id, p_now, p_subscription,
        'Subscription ended');
    end if;
  end loop;
  return v_moved;
end
$$;
comment on function governance.end_subscription_lots(bigint, text, timestamptz, text, boolean, bigint) is
  'Does with subscription tokens what is to be done when a subscription ends: keep them, convert them into purchased '
  'ones, or let them expire. One lot, or those that the subscription paid for and, where no other goes on (p_is_last), '
  'those that no subscription paid for. The caller holds the account''s lock.';

create function governance.paid_plan(p_account_id bigint, p_without text) returns text
  language sql stable set search_path = '' as $$
  -- Of several the period that began last gives the plan, as in governance.switch_to_paid_plan.
  select s.paid_plan_id from governance.stripe_subscriptions s
  where s.account_id = p_account_id and s.subscription_id <> p_without and s.canceled_at is null
    and s.paid_plan_id is not null
  order by s.paid_from desc nulls last, s.subscription_id limit 1
$$;
comment on function governance.paid_plan(bigint, text) is
  'The plan of an account by its paid subscriptions that go on, without one of them; null where there is none.';

create function governance.move_subscription(p_now timestamptz, p_event_id text, p_subscription text, p_from bigint,
  p_to bigint, p_event_at timestamptz) returns void
  language plpgsql set search_path = '' as $$
declare
  v_sub governance.stripe_subscriptions;
  v_other text := governance.paid_plan(p_from, p_subscription);
  v_metadata jsonb := jsonb_build_object('cause', p_event_id);
  v_lot governance.lots;
  v_tokens bigint;
begin
  perform governance.lock_accounts(array[p_from, p_to]);
  -- A month that began while it was the former user's has turned with the lock.
  update governance.stripe_subscriptions s set account_id = p_to, owner_reported_at = p_event_at
  where s.subscription_id = p_subscription returning * into strict v_sub;
  update governance.accounts a set plan_id = coalesce(v_other, c.default_plan), version = a.version + 1
  from governance.active_config c where a.account_id = p_from and a.plan_id = v_sub.paid_plan_id
    and v_sub.canceled_at is null
    and coalesce(v_other, c.default_plan, a.plan_id) <> a.plan_id;
  if v_sub.paid_plan_id is not null then
    perform governance.switch_to_paid_plan(p_to, v_sub.paid_plan_id, p_subscription, v_sub.paid_from);
  end if;
  for v_lot in select l.* from governance.lots l
    where l.account_id = p_from and l.kind = 'subscription' and l.is_open
      -- A year's months are given without a payment of their own.
      and coalesce(governance.subscription_of_lot(l.lot_id) = p_subscription,
        v_other is null and governance.is_long_period(v_sub.paid_from, v_sub.paid_until))
    order by l.lot_id
  loop
    v_tokens := governance.end_lot(p_from, v_lot.lot_id, p_now, p_subscription,
      'Subscription moved to another user', v_metadata);
    continue when v_tokens = 0 or v_lot.expires_at <= p_now;
    insert into governance.moved_lots (lot_id, from_lot_id, paid_lot_id, subscription_id)
    select g.lot_id, v_lot.lot_id, coalesce((select m.paid_lot_id from governance.moved_lots m
      where m.lot_id = v_lot.lot_id), v_lot.lot_id), p_subscription
    from governance.grant_tokens(p_to, 'subscription', v_tokens, 'adjustment', p_now, v_lot.expires_at,
      p_subscription, 'Subscription moved from another user', v_metadata,
      -- The money stays with the lot that was paid for; where it was not known, it is not known to be 0.
      jsonb_build_object('amount_minor', 0 * v_lot.amount_minor, 'currency', v_lot.currency)) g;
  end loop;
  perform governance.ring('accounts', p_now);
end
$$;
comment on function governance.move_subscription(timestamptz, text, text, bigint, bigint, timestamptz) is
  'A subscription is another user''s now: its plan and what is left of its tokens go with it, and the former user '
  'keeps nothing of it. Takes the locks of both accounts, in order.';

create function governance.own_subscription(p_now timestamptz, p_event_id text, p_subscription text,
  p_account_id bigint, p_event_at timestamptz) returns bigint
  language plpgsql set search_path = '' as $$
declare
  v_sub governance.stripe_subscriptions;
begin
  perform governance.lock_stripe_ids(p_subscription);
  select * into v_sub from governance.stripe_subscriptions s where s.subscription_id = p_subscription;
  if v_sub.subscription_id is null then
    insert into governance.stripe_subscriptions (subscription_id, account_id, owner_reported_at, updated_at)
    values (p_subscription, p_account_id, p_event_at, p_now);
    return p_account_id;
  elsif p_account_id is null or v_sub.account_id is not null
    and coalesce(p_event_at, '-infinity') <= coalesce(v_sub.owner_reported_at, '-infinity') then
    return v_sub.account_id;
  elsif v_sub.account_id <> p_account_id then
    perform governance.move_subscription(p_now, p_event_id, p_subscription, v_sub.account_id, p_account_id, p_event_at);
  else
    update governance.stripe_subscriptions s set account_id = p_account_id, owner_reported_at = p_event_at
    where s.subscription_id = p_subscription;
  end if;
  return p_account_id;
end
$$;
comment on function governance.own_subscription(timestamptz, text, text, bigint, timestamptz) is
  'The user of a subscription: the latest report of Stripe''s counts, in whatever order reports come. p_event_at is '
  'null where no event named the user. Called before any account''s lock is taken.';

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

create function governance.note_subscription(p_now timestamptz, p_event_id text, p_subscription text, p_customer text,
  p_account_id bigint, p_plan_id text, p_tokens text default null) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_waiting record;
  v_effects jsonb := '[]';
begin
  if p_subscription is not null then
    perform governance.lock_stripe_ids(p_subscription);
    insert into governance.stripe_subscriptions as s (subscription_id, account_id, customer_id, plan_id, tokens,
      updated_at)
    values (p_subscription, p_account_id, p_customer, p_plan_id, p_tokens, p_now)
    on conflict (subscription_id) do update set account_id = coalesce(s.account_id, excluded.account_id),
      customer_id = coalesce(s.customer_id, excluded.customer_id),
      -- Once it has ended, an older event that comes late does not change which plan it had at its end.
      plan_id = case when s.canceled_at is null then coalesce(excluded.plan_id, s.plan_id)
        else coalesce(s.plan_id, excluded.plan_id) end,
      tokens = coalesce(excluded.tokens, s.tokens), updated_at = p_now;
  end if;
  perform governance.learn_customer(p_customer, p_account_id);
  if p_account_id is not null and p_customer is not null then
    -- Events that came before the user was known. None of them counts as waiting while they are processed: each may
    -- find the others, and would process them again.
    for v_waiting in
      with waiting as (
        update governance.webhook_events_processed w set waits_for_customer = null
        where w.waits_for_customer = p_customer and w.status in ('quarantined', 'parked') and w.event_id <> p_event_id
        returning w.event_id, w.payload, w.event_created_at)
      select w.event_id, w.payload from waiting w order by w.event_created_at, w.event_id
    loop
      v_effects := v_effects || coalesce(governance.take_event(v_waiting.event_id, v_waiting.payload,
        p_now) -> 'effects', '[]');
    end loop;
  end if;
  return v_effects;
end
$$;
comment on function governance.note_subscription(timestamptz, text, text, text, bigint, text, text) is
  'Notes whose subscription it is and for which plan, and takes up events that waited to know. Returns their effects.';

create function governance.on_subscription(p_event_id text, p_type text, p_now timestamptz, p_event_at timestamptz,
  o jsonb) returns governance.stripe_outcome
  language plpgsql set search_path = '' as $$
declare
  v_id text := governance.stripe_id(o -> 'id');
  v_metadata jsonb := governance.stripe_object(o -> 'metadata');
  v_customer text := governance.stripe_id(o -> 'customer');
  v_user_id text := governance.metadata_text(v_metadata, 'user_id', 'userId', 'userid');
  v_plan_id text;
  v_is_priced boolean;
  v_is_named boolean := true;
  v_account governance.accounts;
  v_sub governance.stripe_subscriptions;
  v_other text;
  v_plan governance.plans;
  v_moved bigint;
  v_effects jsonb;
begin
  if v_id is null then return governance.outcome('quarantined', 'malformed'); end if;
  perform governance.learn_prices(governance.stripe_list(o -> 'items'));
  perform governance.lock_stripe_ids(v_id);
  -- Any of its items may be the plan; the others are seats, or what else is sold beside it.
  select x.plan_id, governance.price_plan(i.item) is not null into v_plan_id, v_is_priced
  from jsonb_array_elements(governance.stripe_list(o -> 'items') || '[{}]') with ordinality i(item, n)
    cross join lateral governance.plan_of(v_metadata, i.item) x(plan_id)
  where x.plan_id is not null
  order by governance.plan_of('{}', i.item) is null, i.n limit 1;
  select a.* into v_account from governance.accounts a where a.user_id = v_user_id;
  if v_account.account_id is null then
    select a.* into v_account from governance.stripe_customers c join governance.accounts a using (account_id)
      where c.customer_id = v_customer;
    v_is_named := false;
  end if;
  v_account.account_id := governance.own_subscription(p_now, p_event_id, v_id, v_account.account_id,
    case when v_is_named then p_event_at end);
  if v_is_priced then
    update governance.stripe_subscriptions s set priced_at = greatest(s.priced_at, p_event_at)
    where s.subscription_id = v_id;
  end if;
  v_effects := governance.note_subscription(p_now, p_event_id, v_id, v_customer, v_account.account_id, v_plan_id);
  if p_type <> 'customer.subscription.deleted' and coalesce(o ->> 'status', '') <> 'canceled' then
    return governance.outcome('processed', 'subscription_noted', v_effects);
  end if;
  select * into strict v_sub from governance.stripe_subscriptions s where s.subscription_id = v_id for update;
  if v_sub.canceled_at is not null then return governance.outcome('processed', 'already_canceled', v_effects); end if;
  if v_sub.account_id is not null then
    -- A month that began while the subscription ran turns first: afterwards it would give the plan's allowance.
    v_account := governance.lock_account_id(v_sub.account_id);
  end if;
  -- The plan at its end decides what becomes of its tokens, also of those whose invoice comes late.
  update governance.stripe_subscriptions s set plan_id = coalesce(v_plan_id, s.paid_plan_id, s.plan_id),
    canceled_at = coalesce(governance.stripe_time(o -> 'ended_at'), governance.stripe_time(o -> 'canceled_at'), p_now)
  where s.subscription_id = v_id;
  if v_sub.account_id is null then return governance.outcome('processed', 'unknown_user', v_effects); end if;
  -- Another subscription that is paid and goes on: its plan and tokens stay.
  v_other := governance.paid_plan(v_sub.account_id, v_id);
  if v_other is not null and v_sub.paid_until is null then
    return governance.outcome('processed', 'never_paid', v_effects);
  end if;
  select * into v_plan from governance.plans p
  where p.plan_id = coalesce(v_plan_id, v_sub.paid_plan_id, v_sub.plan_id, v_account.plan_id);
  if v_account.plan_id in (v_plan.plan_id, v_sub.paid_plan_id) or v_other is not null then
    v_moved := governance.end_subscription_lots(v_account.account_id, v_plan.on_cancel, p_now, v_id,
      v_other is null);
    update governance.accounts a set plan_id = coalesce(v_other, c.default_plan), version = a.version + 1
    from governance.active_config c where a.account_id = v_account.account_id
      and coalesce(v_other, c.default_plan, a.plan_id) <> a.plan_id;
    v_effects := v_effects || governance.effect('subscription_' || v_plan.on_cancel, v_account.user_id, v_moved, null);
    perform governance.tell_user(v_account.account_id, 'subscription', 'message.subscription_' || v_plan.on_cancel,
      jsonb_build_object('plan', v_plan.name, 'tokens', abs(v_moved)), p_now,
      coalesce(governance.stripe_time(o -> 'ended_at'), governance.stripe_time(o -> 'canceled_at')));
    perform governance.ring('accounts', p_now);
  end if;
  return governance.outcome('processed', null, v_effects);
end
$$;
comment on function governance.on_subscription(text, text, timestamptz, timestamptz, jsonb) is
  'customer.subscription.*: whose it is, and what becomes of its tokens when it ends (the plan''s on_cancel). Where '
  'another paid subscription goes on, only the tokens that this one paid for end.';

create function governance.price_of(p_item jsonb) returns text
  language sql immutable set search_path = '' as $$
  select coalesce(governance.stripe_id(p_item #> '{pricing,price_details,price}'),
    governance.stripe_id(p_item -> 'price'), governance.stripe_id(p_item -> 'plan'))
$$;
comment on function governance.price_of(jsonb) is 'The id of the price of a subscription item or invoice line.';

create function governance.named_plan(p_item jsonb) returns text
  language sql stable set search_path = '' as $$
  select p.plan_id from (values (governance.price_object(p_item))) x(price) cross join lateral (values
    (1, governance.metadata_text(governance.stripe_object(x.price -> 'metadata'), 'plan_id', 'planId', 'plan')),
    (2, governance.metadata_text(governance.stripe_object(p_item #> '{plan,metadata}'), 'plan_id', 'planId', 'plan')),
    (3, x.price ->> 'lookup_key'), (4, x.price ->> 'nickname'), (5, p_item #>> '{plan,nickname}')
  ) c(n, plan_id) join governance.plans p on p.plan_id = c.plan_id order by c.n limit 1
$$;
comment on function governance.named_plan(jsonb) is
  'The plan that the price within a subscription item or invoice line names: by metadata, lookup key or nickname.';

create function governance.named_tokens(p_item jsonb) returns text
  language sql immutable set search_path = '' as $$
  select nullif(coalesce(btrim(governance.price_object(p_item) #>> '{metadata,tokens}'),
    btrim(p_item #>> '{plan,metadata,tokens}')), '')
$$;
comment on function governance.named_tokens(jsonb) is
  'Tokens of one piece that the price within a subscription item or invoice line names.';

create function governance.learn_prices(p_items jsonb) returns void
  language sql set search_path = '' as $$
  insert into governance.stripe_prices as k (price_id, plan_id, tokens)
  select t.price_id, t.plan_id, t.tokens
  from (select distinct on (1) governance.price_of(x.item), governance.named_plan(x.item),
      left(governance.named_tokens(x.item), 255)
    from jsonb_array_elements(p_items) x(item) order by 1) t(price_id, plan_id, tokens)
  where t.price_id is not null and not exists (select from governance.stripe_prices o
    where o.price_id = t.price_id and (o.plan_id, o.tokens) is not distinct from (t.plan_id, t.tokens))
  order by t.price_id
  on conflict (price_id) do update set plan_id = excluded.plan_id, tokens = excluded.tokens
$$;
comment on function governance.learn_prices(jsonb) is
  'Notes what the prices of a subscription''s items are for. Writes, and so locks, only what is new, in order of ids.';

create function governance.price_plan(p_item jsonb) returns text
  language sql stable set search_path = '' as $$
  select coalesce(governance.named_plan(p_item), (select k.plan_id from governance.stripe_prices k
    join governance.plans p using (plan_id) where k.price_id = governance.price_of(p_item)))
$$;
comment on function governance.price_plan(jsonb) is
  'The plan that the price of a subscription item or invoice line is for, given with it or known from before.';

create function governance.plan_of(p_metadata jsonb, p_item jsonb) returns text
  language sql stable set search_path = '' as $$
  select p.plan_id from (
    select governance.metadata_text(governance.stripe_object(p_item -> 'metadata'), 'plan_id', 'planId', 'plan'),
      governance.metadata_text(p_metadata, 'plan_id', 'planId', 'plan')) m(own, subscriptions)
  cross join lateral (values
    -- Stripe copies a subscription's metadata to its lines. A change of plan in Stripe's portal changes the price, and
    -- leaves the metadata as it was.
    (1, nullif(m.own, m.subscriptions)), (2, governance.price_plan(p_item)), (3, m.subscriptions)
  ) c(n, plan_id) join governance.plans p on p.plan_id = c.plan_id order by c.n limit 1
$$;
comment on function governance.plan_of(jsonb, jsonb) is
  'The plan that a subscription item or invoice line is for: by metadata of its own, by its price, or by the '
  'subscription''s metadata.';

create function governance.switch_to_paid_plan(p_account_id bigint, p_plan_id text, p_subscription text,
  p_from timestamptz) returns void
  language sql set search_path = '' as $$
  update governance.accounts a set plan_id = p_plan_id, version = a.version + 1
  where a.account_id = p_account_id and a.plan_id <> p_plan_id and not exists (
    select from governance.stripe_subscriptions s
    where s.account_id = p_account_id
      -- An ended subscription gives no plan. Of several periods the one that begins last does, whichever came first.
      and (s.subscription_id = p_subscription and s.canceled_at is not null
        or s.canceled_at is null and s.paid_from > p_from))
$$;
comment on function governance.switch_to_paid_plan(bigint, text, text, timestamptz) is
  'Puts an account on the plan that was paid for. The caller holds the account''s lock.';

create function governance.is_long_period(p_from timestamptz, p_to timestamptz) returns boolean
  language sql immutable set search_path = '' as $$ select p_to - p_from > interval '45 days' $$;
comment on function governance.is_long_period(timestamptz, timestamptz) is
  'Whether a paid period is longer than a month: then a plan gives its allowance month by month.';

create function governance.recognised_minor(p_net bigint, p_first date, p_days int, p_through date) returns bigint
  language sql immutable set search_path = '' as $$
  -- The same whole amount each day; what does not divide comes at the end, one a day.
  select p_net / p_days * k.n + greatest(k.n - (p_days - p_net % p_days), 0)
  from (select least(greatest(p_through - p_first + 1, 0), p_days)) k(n)
$$;
comment on function governance.recognised_minor(bigint, date, int, date) is
  'How much of the money of a paid period has become revenue by the end of a day.';

create function governance.deferred_minor(p_net bigint, p_first date, p_days int, p_at timestamptz) returns bigint
  language sql immutable set search_path = '' as $$
  select p_net - governance.recognised_minor(p_net, p_first, p_days, (p_at at time zone 'UTC')::date - 1)
$$;
comment on function governance.deferred_minor(bigint, date, int, timestamptz) is
  'How much of the money of a paid period is deferred revenue at a moment: a day is earned when it is over.';

create function governance.is_paid_through_stripe(p_account_id bigint, p_plan_id text, p_month_start timestamptz)
  returns boolean
  language sql stable set search_path = '' as $$
  select exists (select from governance.stripe_subscriptions s
    where s.account_id = p_account_id and s.paid_plan_id = p_plan_id and s.canceled_at is null
      -- A year paid in advance gives its months as other plans do, as long as it lasts.
      and not (governance.is_long_period(s.paid_from, s.paid_until) and s.paid_until > p_month_start))
$$;
comment on function governance.is_paid_through_stripe(bigint, text, timestamptz) is
  'Whether paid invoices alone give the tokens of an account''s plan in this month; the month''s own allowance is then '
  'not given.';

create function governance.note_paid_period(p_subscription text, p_account_id bigint, p_due governance.invoice_due,
  p_now timestamptz) returns void
  language sql set search_path = '' as $$
  insert into governance.stripe_subscriptions as s (subscription_id, account_id, plan_id, paid_plan_id, paid_from,
    paid_until, updated_at)
  select p_subscription, p_account_id, p_due.plan_id, p_due.plan_id, p_due.period_from, p_due.period_to, p_now
  where p_subscription is not null
  on conflict (subscription_id) do update set account_id = coalesce(s.account_id, excluded.account_id),
    -- Invoices come in any order: the plan is that of the period, or part of one, that begins last.
    paid_plan_id = case when s.paid_from > excluded.paid_from then s.paid_plan_id
      else coalesce(excluded.paid_plan_id, s.paid_plan_id) end,
    paid_from = greatest(s.paid_from, excluded.paid_from),
    paid_until = greatest(s.paid_until, excluded.paid_until)
$$;
comment on function governance.note_paid_period(text, bigint, governance.invoice_due, timestamptz) is
  'Notes which period of a subscription was paid, and for which plan.';
