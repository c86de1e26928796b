-- The finance desk's payments: found, with the state of each; who may have paid one that names nobody; and why a
-- balance is what it is.

create function governance.payment_cases(p governance.stripe_payments)
  returns setof governance.reconciliation_cases
  language sql stable set search_path = '' as $$
  select c from governance.reconciliation_cases c where c.difference #>> '{stripe,charge_id}' = p.charge_id
  union
  select c from governance.reconciliation_cases c
  where c.difference #>> '{stripe,payment_intent_id}' = p.payment_intent_id
$$;
comment on function governance.payment_cases(governance.stripe_payments) is 'Differences about a payment.';

create function public.console_payments(p_filter jsonb default '{}', p_before_id bigint default null,
  p_limit int default 100) returns jsonb
  language plpgsql stable security definer set search_path = '' set jit = off as $$
declare
  v_state text := p_filter ->> 'state';
  v_text text := nullif(btrim(p_filter ->> 'text'), '');
  v_where text := 'true';
  v_ids bigint[];
  v_before timestamptz := 'infinity';
  v_answer jsonb;
begin
  perform governance.refuse_others('console_payments');
  perform governance.check_limit(p_limit, 500);
  if p_filter is null or jsonb_typeof(p_filter) <> 'object' or p_filter - '{state,text,user_id}'::text[] <> '{}'
    or jsonb_typeof(coalesce(p_filter -> 'text', 'null')) not in ('string', 'null')
    or jsonb_typeof(coalesce(p_filter -> 'user_id', 'null')) not in ('string', 'null') then
    perform governance.fail('PT400', 'invalid_argument', 'p_filter is an object of state, text and user_id');
  end if;
  perform governance.check_optional('p_filter.text', v_text, 255);
  if v_state not in ('no_user', 'not_credited', 'refunded', 'disputed', 'difference') then
    perform governance.fail('PT400', 'invalid_argument',
      'p_filter.state is no_user, not_credited, refunded, disputed or difference');
  end if;
  v_where := case v_state
    when 'no_user' then 'p.account_id is null'
    when 'not_credited' then 'p.amount_minor is null'
    when 'refunded' then 'p.refunded_minor > 0'
    when 'disputed' then 'p.payment_id in (select d.payment_id from governance.stripe_disputes d)'
    when 'difference' then 'p.payment_id in (select x.payment_id from governance.reconciliation_cases c
      join governance.stripe_payments x on x.charge_id = c.difference #>> ''{stripe,charge_id}''
        or x.payment_intent_id = c.difference #>> ''{stripe,payment_intent_id}''
      where c.blocks and c.status in (''open'', ''investigating'', ''proposed'', ''approved'', ''posted''))'
    else 'true' end;
  if p_filter ->> 'user_id' is not null then
    v_where := v_where || format(' and p.account_id = %s', coalesce((select a.account_id from governance.accounts a
      where a.user_id = p_filter ->> 'user_id'), -1));
  end if;
  if v_text is not null then
    v_ids := array(
      select f from governance.find_payments(v_text) f
      union
      (select x.payment_id from governance.stripe_payments x where x.customer_id = v_text limit 1000)
      union
      (select x.payment_id from (
          select a.account_id from governance.accounts a where a.user_id = v_text or lower(a.email) = lower(v_text)
          union
          (select l.account_id from governance.account_listings l
            where length(v_text) >= 3
              and l.search_text like '%' || governance.like_pattern(lower(v_text)) || '%' limit 200)) u
        join governance.stripe_payments x using (account_id) limit 5000));
    v_where := v_where || ' and p.payment_id = any ($3)';
  end if;
  if p_before_id is not null then
    select coalesce(p.paid_at, p.created_at) into v_before from governance.stripe_payments p
    where p.payment_id = p_before_id;
    v_before := coalesce(v_before, '-infinity');
  end if;
  execute format($q$
    with page as (
      select p from governance.stripe_payments p
      where (coalesce(p.paid_at, p.created_at), p.payment_id) < ($4, coalesce($1, 9223372036854775807)) and %s
      order by coalesce(p.paid_at, p.created_at) desc, p.payment_id desc limit $2 + 1
    ), numbered as (
      select g.p, row_number() over (order by coalesce((g.p).paid_at, (g.p).created_at) desc,
        (g.p).payment_id desc) as place
      from page g
    )
    select jsonb_build_object(
      'payments', coalesce(jsonb_agg(governance.payment_json(n.p) || jsonb_build_object(
          'user_id', a.user_id, 'display_name', a.display_name, 'email', a.email, 'customer_id', (n.p).customer_id,
          'differences', (select coalesce(jsonb_agg(jsonb_build_object('difference_id', c.difference_id, 'class',
              c.class, 'status', c.status, 'blocks', c.blocks, 'amount_minor', c.amount_minor, 'currency', c.currency,
              'tokens', c.tokens) order by c.difference_id), '[]')
            from governance.payment_cases(n.p) c)) order by n.place) filter (where n.place <= $2), '[]'),
      'next_before_id', case when count(*) > $2 then max((n.p).payment_id) filter (where n.place = $2) end)
    from numbered n left join governance.accounts a on a.account_id = (n.p).account_id
    $q$, v_where)
  into v_answer using p_before_id, p_limit, v_ids, v_before;
  return v_answer;
end
$$;
comment on function public.console_payments(jsonb, bigint, int) is
  'Payments at Stripe, the newest first, with who paid, the lots they bought and the differences about them. '
  'p_filter.text finds by any of a payment''s ids, the number of its invoice, its customer, or its user''s id, name or '
  'e-mail; state is no_user, not_credited, refunded, disputed or difference (one that is to be decided); user_id is '
  'whose. '
  'Errors: invalid_argument.';
revoke all on function public.console_payments(jsonb, bigint, int) from public, anon, authenticated;
grant execute on function public.console_payments(jsonb, bigint, int) to service_role;

create function governance.event_texts(p_object jsonb) returns table (what text, value text)
  language sql immutable set search_path = '' as $$
  select x.what, left(x.value, 255) from (values
    ('customer', governance.stripe_id(p_object -> 'customer')),
    ('order', governance.metadata_text(governance.stripe_object(p_object -> 'metadata'), 'order_id', 'orderId')),
    ('email', p_object #>> '{customer_details,email}'), ('email', p_object ->> 'customer_email'),
    ('email', p_object #>> '{billing_details,email}'), ('email', p_object ->> 'receipt_email'),
    ('reference', p_object ->> 'client_reference_id'),
    ('reference', governance.metadata_text(governance.stripe_object(p_object -> 'metadata'), 'user_id', 'userId',
      'userid'))) x(what, value)
  where nullif(btrim(x.value), '') is not null
$$;
comment on function governance.event_texts(jsonb) is
  'Texts in an object of Stripe''s that tell who paid: customer, order, e-mail, reference.';

create function public.console_suggest_payers(p_difference_id text default null, p_event_id text default null)
  returns jsonb
  language plpgsql stable security definer set search_path = '' set jit = off as $$
declare
  v_side jsonb;
  v_payload jsonb;
begin
  perform governance.refuse_others('console_suggest_payers');
  perform governance.check_optional('p_difference_id', p_difference_id, 512);
  perform governance.check_optional('p_event_id', p_event_id, 255);
  if (p_difference_id is null) = (p_event_id is null) then
    perform governance.fail('PT400', 'invalid_argument', 'Either p_difference_id or p_event_id is needed');
  end if;
  if p_event_id is not null then
    select w.payload into v_payload from governance.webhook_events_processed w where w.event_id = p_event_id;
    if not found then perform governance.fail('PT404', 'not_found', 'There is no such event'); end if;
  else
    select coalesce(c.difference -> 'stripe', '{}') into v_side from governance.reconciliation_cases c
    where c.difference_id = p_difference_id;
    if not found then perform governance.fail('PT404', 'not_found', 'There is no such difference'); end if;
  end if;
  return (
    with payments as (
      select p.* from governance.stripe_payments p
      where p.charge_id = v_side ->> 'charge_id' or p.payment_intent_id = v_side ->> 'payment_intent_id'
    ), texts as (
      select t.* from governance.event_texts(governance.stripe_object(v_payload #> '{data,object}')) t
      union
      -- Other events about the payment that still wait.
      select t.* from payments p join governance.webhook_events_processed w using (payment_id)
        cross join lateral governance.event_texts(governance.stripe_object(w.payload #> '{data,object}')) t
      union select 'customer', v_side ->> 'customer_id' where v_side ->> 'customer_id' is not null
      union select 'order', v_side ->> 'order_id' where v_side ->> 'order_id' is not null
      union select 'customer', p.customer_id from payments p where p.customer_id is not null
    ), found as (
      select 1 as rank, 'customer' as why, t.value, c.account_id
      from texts t join governance.stripe_customers c on c.customer_id = t.value where t.what = 'customer'
      union
      (select 2, 'customer', t.value, p.account_id from texts t
        join governance.stripe_payments p on p.customer_id = t.value and p.account_id is not null
        where t.what = 'customer' limit 20)
      union
      (select 3, 'order', t.value, p.account_id from texts t
        join governance.stripe_payments p on p.order_id = t.value and p.account_id is not null
        where t.what = 'order' limit 20)
      union
      select 4, 'reference', t.value, a.account_id from texts t
        join governance.accounts a on a.user_id = t.value where t.what in ('reference', 'order')
      union
      (select 5, 'email', t.value, a.account_id from texts t
        join governance.accounts a on lower(a.email) = lower(btrim(t.value)) where t.what = 'email' limit 20)
    ), best as (
      select distinct on (f.account_id) f.* from found f order by f.account_id, f.rank
    )
    select coalesce(jsonb_agg(jsonb_build_object('user_id', a.user_id, 'display_name', a.display_name, 'email', a.email,
      'plan_id', a.plan_id, 'why', b.why, 'value', b.value) order by b.rank, a.user_id), '[]')
    from best b join governance.accounts a using (account_id));
end
$$;
comment on function public.console_suggest_payers(text, text) is
  'Who may have paid what a difference or a waiting event is about, the likeliest first: why is customer (Stripe''s '
  'customer paid before), order, reference (an id that the product gave) or email, and value what was equal. A '
  'suggestion: nothing is booked. Errors: invalid_argument, not_found.';
revoke all on function public.console_suggest_payers(text, text) from public, anon, authenticated;
grant execute on function public.console_suggest_payers(text, text) to service_role;

create function public.console_explain_balance(p_user_id text) returns jsonb
  language plpgsql security definer set search_path = '' set jit = off as $$
declare
  v_account governance.accounts;
begin
  perform governance.refuse_others('console_explain_balance');
  perform governance.check_id('p_user_id', p_user_id);
  v_account := governance.current_account(p_user_id);
  return (
    with entries as (
      select t.transaction_type, count(*) as entries, sum(t.amount) as tokens, min(t.created_at) as first_at,
        max(t.created_at) as last_at
      from governance.token_transactions t where t.account_id = v_account.account_id group by 1
    )
    select jsonb_build_object(
      'total', v_account.subscription_tokens + v_account.purchased_tokens + v_account.promotional_tokens,
      'subscription', v_account.subscription_tokens, 'purchased', v_account.purchased_tokens,
      'promotional', v_account.promotional_tokens, 'reserved', v_account.reserved_tokens,
      'debt', v_account.debt_tokens,
      'frozen', (select coalesce(sum(l.frozen), 0) from governance.lots l
        where l.account_id = v_account.account_id and l.is_open),
      'next_expiry', (select jsonb_build_object('at', l.expires_at, 'tokens', sum(l.remaining))
        from governance.lots l where l.account_id = v_account.account_id and l.is_open and l.remaining > 0
          and l.expires_at is not null group by l.expires_at order by l.expires_at limit 1),
      'since', (select min(e.first_at) from entries e),
      'lines', coalesce(jsonb_agg(jsonb_build_object('transaction_type', e.transaction_type, 'entries', e.entries,
        'tokens', e.tokens, 'last_at', e.last_at)
        order by e.tokens desc, e.transaction_type), '[]'))
    from entries e);
end
$$;
comment on function public.console_explain_balance(text) is
  'Why a balance is what it is: the sum of every entry of the ledger by type, which is the balance; how much of it is '
  'held, owed or frozen, and what expires next. Errors: invalid_argument, unknown_user.';
revoke all on function public.console_explain_balance(text) from public, anon, authenticated;
grant execute on function public.console_explain_balance(text) to service_role;
