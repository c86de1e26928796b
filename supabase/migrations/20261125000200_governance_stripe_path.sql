-- The path of a Stripe event, made lean: the same books as before with well under half the work. What cost, counted in
-- instructions of the server for one paid checkout (4.8 million before, 1.9 after): the clock, a function in SQL that
-- was parsed anew in every transaction; readers of JSON, inlined a dozen operators each, set up anew in every
-- transaction; rows written twice; statements that find nothing for a payment that is new; an account looked up and
-- locked once more for each of its lots; a search path set at every step (0.01 million each).

-- ---------------------------------------------------------------------------------------------------------------
-- Constraints: PostgreSQL reads each anew at every statement. What keeps tokens from going negative stays; the rest, and
-- more, is proven by public.verify_purchases.
-- ---------------------------------------------------------------------------------------------------------------

do $$
declare
  v_check record;
begin
  for v_check in select c.conrelid::regclass as relation, c.conname from pg_catalog.pg_constraint c
    where c.contype = 'c' and c.conrelid in ('governance.stripe_payments'::regclass, 'governance.stripe_lots'::regclass,
      'governance.purchase_records'::regclass, 'governance.webhook_events_processed'::regclass) loop
    execute format('alter table %s drop constraint %I', v_check.relation, v_check.conname);
  end loop;
end
$$;
create function governance.is_within_bounds(s governance.stripe_lots) returns boolean
  language plpgsql immutable as $$
begin
  return least(s.reversed, s.clawed, s.owed, s.tokens - s.reversed - s.clawed, s.reversed + s.clawed - s.owed) >= 0;
end
$$;
comment on function governance.is_within_bounds(governance.stripe_lots) is
  'The check of a payment''s lots: nothing below zero, no more taken back than was bought, no more owed than was taken back.';
-- A lot a payment: read in a moment, and the checks that it replaces held for each.
-- squawk-ignore constraint-missing-not-valid
alter table governance.stripe_lots add constraint stripe_lots_within_bounds check (governance.is_within_bounds(stripe_lots));

-- Whoever adds a lot holds its account's lock and writes the account's row: to look the account up for each lot, and lock
-- it once more, proves nothing. That no account with lots is deleted is asked where one is deleted.
alter table governance.lots drop constraint lots_account_id_fkey;
create function governance.refuse_orphans() returns trigger
  language plpgsql set search_path = '' as $$
begin
  if exists (select from governance.lots l where l.account_id = old.account_id) then
    raise exception using errcode = 'foreign_key_violation', message = format('Account %s has lots: it is never deleted', old.account_id);
  end if;
  return old;
end
$$;
comment on function governance.refuse_orphans() is 'Keeps the account of every lot, for its owner too.';
create trigger accounts_keep_lots before delete on governance.accounts for each row execute function governance.refuse_orphans();

create function public.verify_purchases() returns jsonb
  language plpgsql stable security definer set search_path = '' set jit = off as $$
declare
  v_problems jsonb;
begin
  with problems as (
    select 'lot_mismatch' as problem, s.lot_id, s.payment_id
    from governance.stripe_lots s left join governance.lots l using (lot_id)
    -- What the money took back is what left the lot and what is owed for it, until a correction takes its part.
    where ((s.reversed + s.clawed is distinct from l.clawed_back + s.owed or s.tokens <> l.granted)
        and not exists (select from governance.purchase_records r where r.lot_id = s.lot_id and r.record_type = 'adjustment'))
      or s.dispute_state not in ('none', 'held', 'released', 'clawed') or (l.frozen > 0 and s.dispute_state <> 'held')
    union all
    select 'payment_mismatch', null, p.payment_id
    from governance.stripe_payments p
    where least(p.amount_minor, p.refunded_minor, p.refunded_override_minor) < 0 or p.currency !~ '^[a-z]{3}$'
      or num_nonnulls(p.payment_intent_id, p.charge_id, p.checkout_session_id, p.invoice_id) = 0
    union all
    select 'account_mismatch', s.lot_id, s.payment_id
    from governance.stripe_lots s join governance.lots l using (lot_id) left join governance.stripe_payments p on p.payment_id = s.payment_id
    where p.account_id is distinct from l.account_id
    union all
    select 'record_mismatch', r.lot_id, r.payment_id
    from governance.purchase_records r left join governance.token_transactions t using (transaction_id)
    where t.account_id is distinct from r.account_id or t.created_at is distinct from r.created_at
      or r.record_type not in ('grant', 'refund', 'restoration', 'dispute_hold', 'dispute_release', 'dispute_clawback', 'adjustment', 'promotional', 'relabel')
    union all
    select 'record_missing', s.lot_id, s.payment_id
    from governance.stripe_lots s
    where not exists (select from governance.purchase_records r where r.lot_id = s.lot_id and r.record_type = 'grant')
    union all
    select 'event_mismatch', null, w.payment_id
    from governance.webhook_events_processed w
    where w.status not in ('processed', 'quarantined', 'dismissed') or (w.status = 'quarantined') <> (w.payload is not null)
  )
  select coalesce(jsonb_agg(to_jsonb(x)), '[]') into v_problems
  from (select * from problems p order by p.problem, p.payment_id, p.lot_id limit 1000) x;
  return jsonb_build_object('problems', v_problems, 'payments', (select count(*) from governance.stripe_payments), 'lots', (select count(*) from governance.stripe_lots));
end
$$;
comment on function public.verify_purchases() is
  'Checks the books of payments beside public.verify_ledger: what refunds and disputes took against the lots, payments, their records and events. problems is empty when all is sound; at most 1,000 are named.';
revoke all on function public.verify_purchases() from public, anon, authenticated;
grant execute on function public.verify_purchases() to service_role;

-- ---------------------------------------------------------------------------------------------------------------
-- Indexes: each is locked and written to for every payment. Payments are found by their ids in their own table; events
-- that wait are few, and one index is enough for them.
-- ---------------------------------------------------------------------------------------------------------------

drop index governance.lots_charge;
drop index governance.lots_payment_intent;
drop index governance.lots_checkout_session;
drop index governance.webhook_events_processed_quarantined;
drop index governance.webhook_events_processed_waiting;
create index webhook_events_processed_waiting on governance.webhook_events_processed (waits_for_customer, received_at) where status = 'quarantined';

create or replace function public.console_search(p_query text, p_limit int default 20) returns jsonb
  language plpgsql volatile security definer set search_path = '' set jit = off as $$
declare
  v_query text := btrim(coalesce(p_query, ''));
  v_lower text := lower(regexp_replace(btrim(coalesce(p_query, '')), '\s+', ' ', 'g'));
  v_id bigint := case when btrim(coalesce(p_query, '')) ~ '^\d{1,18}$' then btrim(p_query)::bigint end;
  v_ids bigint[];
  v_more bigint[];
begin
  perform governance.check_optional('p_query', p_query, 500);
  perform governance.check_limit(p_limit, 100);
  if v_lower = '' then return '[]'; end if;
  -- The user with this very id, then names that begin so, then whoever else matches: each from an index, none sorted.
  select array_agg(a.account_id) into v_ids from governance.accounts a where a.user_id = v_query;
  execute format('select array_agg(x.account_id) from (select l.account_id from governance.account_listings l
    where l.sort_name like %L order by l.sort_name, l.account_id limit %s) x', governance.like_pattern(v_lower) || '%', p_limit) into v_more;
  v_ids := v_ids || v_more;
  if coalesce(cardinality(v_ids), 0) < p_limit then
    execute format('select array_agg(x.account_id) from (select l.account_id from governance.account_listings l where %s limit %s) x',
      governance.find_accounts_condition(v_lower), 2 * p_limit) into v_more;
    v_ids := v_ids || v_more;
  end if;
  return (
    select coalesce(jsonb_agg(to_jsonb(h) - 'rank' - 'n' order by h.rank, h.n), '[]') from (
      select * from (
        -- A whole id of a request, decision or payment is meant exactly.
        (select 1 as rank, 1::bigint as n, 'request' as kind, r.request_id as id, r.request_id as title,
          concat_ws(' · ', a.user_id, r.decision, r.reason, r.status) as subtitle, a.user_id, r.decision_id
        from governance.requests r join governance.accounts a using (account_id)
        where r.decision_id = v_id or r.decision_id = (select k.decision_id from governance.request_keys k where k.request_id = v_query) limit 5)
        union all
        (select 1, 2, 'payment', v_query, v_query, concat_ws(' · ', a.user_id, l.granted || ' tokens', to_char(l.created_at at time zone 'UTC', 'YYYY-MM-DD')),
          a.user_id, null
        from (
          select s.lot_id from governance.stripe_payments p join governance.stripe_lots s using (payment_id)
          where v_query in (p.charge_id, p.payment_intent_id, p.checkout_session_id, p.invoice_id)
          union select x.lot_id from governance.lots x where x.stripe_invoice_line_id = v_query) found
        join governance.lots l using (lot_id) join governance.accounts a using (account_id) limit 5)
        union all
        select 2, min(x.n), 'user', a.user_id, coalesce(nullif(btrim(a.display_name), ''), a.user_id), concat_ws(' · ', a.user_id, a.email, a.plan_id), a.user_id, null
        from unnest(v_ids) with ordinality x(account_id, n) join governance.accounts a using (account_id) group by a.account_id
        union all
        select 3, row_number() over (order by u.priority, u.rule_name), 'rule', u.rule_name, u.rule_name, concat_ws(' · ', u.rule_type, u.mode, u.description), null, null
        from governance.rules u where u.retired_at is null and strpos(lower(u.rule_name || ' ' || coalesce(u.description, '')), v_lower) > 0
      ) every order by rank, n limit p_limit) h);
end
$$;

-- ---------------------------------------------------------------------------------------------------------------
-- What every path uses
-- ---------------------------------------------------------------------------------------------------------------

create or replace function governance.now() returns timestamptz
  language plpgsql stable set search_path = '' as $$
declare
  v_now timestamptz;
begin
  select coalesce(c.test_clock_at, clock_timestamp() + coalesce(c.test_clock_offset, interval '0')) into v_now from governance.active_config c;
  return v_now;
end
$$;

create or replace function governance.ring(p_topic text, p_now timestamptz) returns void
  language plpgsql set search_path = '' as $$
declare
  v_beat text := date_bin('50 milliseconds', p_now, '2000-01-01');
begin
  -- A connection looks once in the shortest interval that can be set.
  if v_beat is distinct from current_setting('governance.beat_' || p_topic, true) then
    perform set_config('governance.beat_' || p_topic, v_beat, false);
    -- Whoever finds the row busy leaves the ringing to its holder.
    update governance.signals s set at = p_now, beats = s.beats + 1
    where s.topic = (select t.topic from governance.signals t cross join governance.active_config c
      where t.topic = p_topic and (t.at < p_now - c.signal_interval_ms * interval '1 millisecond' or t.at > p_now) for update of t skip locked);
  end if;
end
$$;

-- ---------------------------------------------------------------------------------------------------------------
-- Reading what Stripe sends. In plpgsql, so that a transaction sets each up once, however often it asks; without
-- search_path, as their callers have set it and they use built-in functions alone.
-- ---------------------------------------------------------------------------------------------------------------

create or replace function governance.stripe_id(p_value jsonb) returns text
  language plpgsql immutable as $$
declare
  v_id text;
begin
  if jsonb_typeof(p_value) = 'string' then
    v_id := p_value #>> '{}';
  elsif jsonb_typeof(p_value) = 'object' then
    v_id := p_value ->> 'id';
  end if;
  if length(v_id) between 1 and 255 then return v_id; end if;
  return null;
end
$$;

create or replace function governance.stripe_whole(p_value jsonb) returns bigint
  language plpgsql immutable as $$
declare
  v_number numeric;
begin
  if jsonb_typeof(p_value) = 'number' then
    v_number := p_value::numeric;
    if scale(v_number) = 0 and v_number between -9007199254740991 and 9007199254740991 then return v_number; end if;
  end if;
  return null;
end
$$;

create or replace function governance.stripe_time(p_value jsonb) returns timestamptz
  language plpgsql immutable as $$
begin
  -- Between two numbers there are only numbers, whatever else a JSON value may be.
  return case when p_value between '0' and '253402300799' then to_timestamp(p_value::double precision) end;
end
$$;

create or replace function governance.metadata_text(p_metadata jsonb, variadic p_keys text[]) returns text
  language plpgsql immutable as $$
declare
  v_key text;
  v_found text;
begin
  foreach v_key in array p_keys loop
    v_found := btrim(p_metadata ->> v_key);
    if v_found <> '' then
      if length(v_found) <= 255 then return v_found; end if;
      return null;
    end if;
  end loop;
  return null;
end
$$;

-- ---------------------------------------------------------------------------------------------------------------
-- Payments
-- ---------------------------------------------------------------------------------------------------------------

drop function governance.lock_stripe_ids(text[]);
create function governance.lock_stripe_ids(p_one text, p_two text default null, p_three text default null, p_four text default null) returns void
  language plpgsql as $$
declare
  v_first bigint := hashtextextended(coalesce(p_one, p_two, p_three, p_four), 7255);
  v_last bigint := hashtextextended(coalesce(p_four, p_three, p_two, p_one), 7255);
begin
  -- In one order for everybody, and before any account's lock.
  if num_nonnulls(p_one, p_two, p_three, p_four) < 3 then
    perform pg_advisory_xact_lock(least(v_first, v_last)), pg_advisory_xact_lock(greatest(v_first, v_last));
  else
    perform pg_advisory_xact_lock(k.key)
    from (select distinct hashtextextended(i.id, 7255) as key from unnest(array[p_one, p_two, p_three, p_four]) i(id) where i.id is not null order by 1) k;
  end if;
end
$$;
comment on function governance.lock_stripe_ids(text, text, text, text) is 'Lets one transaction at a time work on what these ids of Stripe''s name.';

create function governance.find_payment(p_intent text, p_charge text, p_session text, p_invoice text) returns governance.stripe_payments
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
  'The payment by any of its names, or null; rows that turn out to be one payment are merged. Takes the locks of the names.';

create function governance.write_payment(
  p_pay governance.stripe_payments, p_now timestamptz, p_intent text, p_charge text, p_session text, p_invoice text, p_customer text, p_livemode boolean,
  p_order text, p_account_id bigint default null, p_amount bigint default null, p_currency text default null, p_paid_at timestamptz default null
) returns governance.stripe_payments
  language plpgsql set search_path = '' as $$
begin
  if p_pay.payment_id is null then
    insert into governance.stripe_payments (account_id, payment_intent_id, charge_id, checkout_session_id, invoice_id, customer_id, livemode, order_id,
      amount_minor, currency, paid_at, created_at)
    values (p_account_id, p_intent, p_charge, p_session, p_invoice, p_customer, p_livemode, p_order, p_amount, p_currency, p_paid_at, p_now)
    returning * into p_pay;
    return p_pay;
  end if;
  -- A lot is found by its charge even when the charge was told after it was granted.
  if p_charge is not null and p_pay.account_id is not null then
    update governance.lots l set stripe_charge_id = p_charge
    from governance.stripe_lots s
    where s.payment_id = p_pay.payment_id and l.lot_id = s.lot_id and l.stripe_charge_id is null;
  end if;
  if p_account_id is not null or (p_pay.payment_intent_id is null and p_intent is not null) or (p_pay.charge_id is null and p_charge is not null)
    or (p_pay.checkout_session_id is null and p_session is not null) or (p_pay.invoice_id is null and p_invoice is not null)
    or (p_pay.customer_id is null and p_customer is not null) or (p_pay.livemode is null and p_livemode is not null)
    or (p_pay.order_id is null and p_order is not null) then
    update governance.stripe_payments p set
      payment_intent_id = coalesce(p.payment_intent_id, p_intent), charge_id = coalesce(p.charge_id, p_charge),
      checkout_session_id = coalesce(p.checkout_session_id, p_session), invoice_id = coalesce(p.invoice_id, p_invoice),
      customer_id = coalesce(p.customer_id, p_customer), livemode = coalesce(p.livemode, p_livemode), order_id = coalesce(p.order_id, p_order),
      account_id = coalesce(p_account_id, p.account_id), amount_minor = coalesce(p_amount, p.amount_minor),
      currency = coalesce(p_currency, p.currency), paid_at = coalesce(p_paid_at, p.paid_at)
    where p.payment_id = p_pay.payment_id
    returning * into p_pay;
  end if;
  return p_pay;
end
$$;
comment on function governance.write_payment(governance.stripe_payments, timestamptz, text, text, text, text, text, boolean, text, bigint, bigint, text, timestamptz) is
  'Makes the payment that governance.find_payment did not find, or notes on the one it found the names that are new; and who paid what, once that is granted.';

create or replace function governance.note_payment(
  p_now timestamptz, p_intent text, p_charge text default null, p_session text default null, p_invoice text default null,
  p_customer text default null, p_livemode boolean default null, p_order text default null
) returns governance.stripe_payments
  language plpgsql set search_path = '' as $$
begin
  return governance.write_payment(governance.find_payment(p_intent, p_charge, p_session, p_invoice), p_now, p_intent, p_charge, p_session, p_invoice,
    p_customer, p_livemode, p_order);
end
$$;

-- ---------------------------------------------------------------------------------------------------------------
-- Paid orders
-- ---------------------------------------------------------------------------------------------------------------

create function governance.grant_paid(
  p_now timestamptz, p_pay governance.stripe_payments, p_user_id text, p_pack_id text, p_tokens bigint, p_cause text, p_difference_id text default null
) returns jsonb
  language plpgsql as $$
declare
  v_reference text := coalesce(p_pay.charge_id, p_pay.payment_intent_id, p_pay.checkout_session_id, p_pay.invoice_id);
  v_description text := 'Pack ' || p_pack_id;
  v_metadata jsonb := jsonb_strip_nulls(jsonb_build_object('cause', p_cause, 'pack_id', p_pack_id, 'charge_id', p_pay.charge_id,
    'payment_intent_id', p_pay.payment_intent_id, 'checkout_session_id', p_pay.checkout_session_id, 'amount_minor', p_pay.amount_minor,
    'currency', p_pay.currency, 'difference_id', p_difference_id,
    -- As governance.lot_seal writes it of a lot that is new.
    'lot_seal', concat_ws('|', 'purchased', extract(epoch from p_now), '-', p_tokens, 0, 0, 0)));
  v_lot_id bigint;
  v_id bigint;
  v_last_hash bytea;
  v_hash bytea;
  v_balance bigint;
  v_debt bigint;
  v_spent governance.lot_spending;
begin
  insert into governance.lots (account_id, kind, created_at, description, pack_id, stripe_charge_id, stripe_payment_intent_id, stripe_checkout_session_id,
    amount_minor, currency, metadata, granted, remaining)
  values (p_pay.account_id, 'purchased', p_now, v_description, p_pack_id, p_pay.charge_id, p_pay.payment_intent_id, p_pay.checkout_session_id,
    p_pay.amount_minor, p_pay.currency, v_metadata, p_tokens, p_tokens)
  returning lot_id into v_lot_id;
  -- The transaction has its number, by the lot, before it draws the entry's id: readers of the feed rely on it.
  v_id := nextval('governance.event_ids');
  -- The entry is put together where the account is: "was" is the same row as it stood before.
  update governance.accounts a set purchased_tokens = a.purchased_tokens + p_tokens, last_transaction_id = v_id,
    last_hash = governance.entry_hash(a.last_hash, governance.entry_payload(v_id, p_now, 'purchase', p_tokens,
      a.subscription_tokens + a.purchased_tokens + a.promotional_tokens, a.subscription_tokens + a.purchased_tokens + a.promotional_tokens + p_tokens,
      a.debt_tokens, array[v_lot_id, p_tokens], null, a.user_id, v_reference, v_description, v_metadata))
  from governance.accounts was
  where a.account_id = p_pay.account_id and was.account_id = a.account_id
  returning was.last_hash, a.last_hash, a.subscription_tokens + a.purchased_tokens + a.promotional_tokens, a.debt_tokens
  into strict v_last_hash, v_hash, v_balance, v_debt;
  insert into governance.token_transactions (transaction_id, account_id, created_at, transaction_type, amount, previous_balance, new_balance, debt_after,
    lot_changes, reference, description, metadata, previous_hash, hash)
  values (v_id, p_pay.account_id, p_now, 'purchase', p_tokens, v_balance - p_tokens, v_balance, v_debt, array[v_lot_id, p_tokens], v_reference, v_description,
    v_metadata, v_last_hash, v_hash);
  insert into governance.stripe_lots (lot_id, payment_id, tokens) values (v_lot_id, p_pay.payment_id, p_tokens);
  insert into governance.purchase_records (transaction_id, account_id, created_at, record_type, lot_id, payment_id, tokens, amount_minor, currency, difference_id)
  values (v_id, p_pay.account_id, p_now, 'grant', v_lot_id, p_pay.payment_id, p_tokens, p_pay.amount_minor, p_pay.currency, p_difference_id);
  if v_debt > 0 then
    v_spent := governance.spend_lots(p_pay.account_id, least(v_debt, p_tokens), v_lot_id);
    perform governance.append_entry(p_pay.account_id, 'debt_recovery', p_now, v_spent.lot_changes, v_spent.subscription, v_spent.purchased,
      v_spent.promotional, -v_spent.taken, v_reference, 'Debt of earlier calls paid');
  end if;
  perform governance.ring('accounts', p_now);
  return '[]'::jsonb || governance.effect('grant', p_user_id, p_tokens, v_id);
end
$$;
comment on function governance.grant_paid(timestamptz, governance.stripe_payments, text, text, bigint, text, text) is
  'Grants what a payment paid for, ties the lot to it and pays debt out of it. The caller holds the locks of the payment and of the account, and has rolled the account.';

create or replace function governance.grant_pack(
  p_now timestamptz, p_payment_id bigint, p_user_id text, p_pack_id text, p_tokens bigint, p_amount bigint, p_currency text, p_paid_at timestamptz,
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

create or replace function governance.is_token_order(p_metadata jsonb) returns boolean
  language sql immutable as $$
  -- Filled at all is enough: what is too long to be a pack is for a person, not to be passed over.
  select btrim(concat(p_metadata ->> 'pack_id', p_metadata ->> 'packId', p_metadata ->> 'packid', p_metadata ->> 'tokens')) <> ''
    or coalesce(p_metadata ->> 'type', '') in ('token_pack_purchase', 'token_purchase')
$$;

drop function governance.on_paid_order(text, timestamptz, timestamptz, jsonb, governance.stripe_payments, bigint, text);
create function governance.on_paid_order(
  p_event_id text, p_now timestamptz, p_told_at timestamptz, o jsonb, p_metadata jsonb, p_user_id text, p_pack_id text,
  p_intent text, p_charge text, p_session text, p_livemode boolean, p_amount jsonb
) returns governance.stripe_outcome
  language plpgsql as $$
declare
  -- Most orders have neither.
  v_invoice text := case when o ->> 'invoice' is not null then governance.stripe_id(o -> 'invoice') end;
  v_order text := case when p_metadata ?| array['order_id', 'orderId'] then governance.metadata_text(p_metadata, 'order_id', 'orderId') end;
  v_customer text := governance.stripe_id(o -> 'customer');
  v_tokens text := btrim(p_metadata ->> 'tokens');
  v_at timestamptz := coalesce(governance.stripe_time(o -> 'created'), p_told_at, p_now);
  v_pay governance.stripe_payments;
  v_account_id bigint;
  v_needs_roll boolean;
  v_balance bigint;
  v_pack_tokens bigint;
  v_price bigint;
  v_currency text;
  v_was_sold boolean;
  v_has_checkout boolean;
  v_knows_customer boolean;
  v_fits boolean;
  v_was_known boolean := false;
  v_reason text;
  v_effects jsonb;
begin
  perform governance.lock_stripe_ids(p_intent, p_charge, p_session, v_invoice);
  select a.account_id, governance.needs_roll(a, p_now), a.subscription_tokens + a.purchased_tokens + a.promotional_tokens
  into v_account_id, v_needs_roll, v_balance
  from governance.accounts a where a.user_id = p_user_id;
  -- The pack as it is sold is nearly always the pack as it was sold then.
  select p.tokens, p.price_minor, p.currency, p.effective_from <= v_at,
    exists (select from governance.checkouts c where c.account_id = v_account_id and c.closed_at is null),
    exists (select from governance.stripe_customers k where k.customer_id = v_customer)
  into v_pack_tokens, v_price, v_currency, v_was_sold, v_has_checkout, v_knows_customer
  from governance.packs p where p.pack_id = p_pack_id and p.retired_at is null;
  if v_was_sold is not true then
    select p.tokens, p.price_minor, p.currency into v_pack_tokens, v_price, v_currency from governance.pack_at(p_pack_id, v_at) p;
  end if;
  v_fits := v_account_id is not null and (v_tokens is null or v_tokens = v_pack_tokens::text) and p_amount = to_jsonb(v_price) and o ->> 'currency' = v_currency
    and v_balance + v_pack_tokens < 9007199254740992;

  -- A payment that fits and that nobody has told of yet is made as a granted one, in one go.
  if v_fits then
    insert into governance.stripe_payments (account_id, payment_intent_id, charge_id, checkout_session_id, invoice_id, customer_id, livemode, order_id,
      amount_minor, currency, paid_at, created_at)
    values (v_account_id, p_intent, p_charge, p_session, v_invoice, v_customer, p_livemode, v_order, v_price, v_currency, coalesce(p_told_at, p_now), p_now)
    on conflict do nothing returning * into v_pay;
  end if;
  if v_pay.payment_id is null then
    v_pay := governance.find_payment(p_intent, p_charge, p_session, v_invoice);
    if exists (select from governance.stripe_lots s where s.payment_id = v_pay.payment_id) then
      v_pay := governance.write_payment(v_pay, p_now, p_intent, p_charge, p_session, v_invoice, v_customer, p_livemode, v_order);
      return governance.outcome('processed', 'already_granted', governance.settle_payment(v_pay.payment_id, p_now, p_event_id), v_pay.payment_id);
    end if;
    v_was_known := v_pay.payment_id is not null;
    if v_fits is not true then
      v_reason := case
        when v_tokens !~ '^[0-9]{1,15}$' or v_tokens ~ '^0+$' then 'invalid_tokens'
        when v_tokens::bigint > 100000000 then 'tokens_above_ceiling'
        when v_account_id is null then 'unknown_user'
        when v_pack_tokens is null then 'unknown_pack'
        when v_tokens::bigint <> v_pack_tokens then 'tokens_mismatch'
        when governance.stripe_currency(o -> 'currency') is distinct from v_currency then 'currency_mismatch'
        when governance.stripe_whole(p_amount) is distinct from v_price then 'amount_mismatch'
        when v_balance + v_pack_tokens > 9007199254740991 then 'balance_above_ceiling'
      end;
      if v_reason is not null then
        v_pay := governance.write_payment(v_pay, p_now, p_intent, p_charge, p_session, v_invoice, v_customer, p_livemode, v_order);
        return governance.outcome('quarantined', v_reason, p_payment_id => v_pay.payment_id);
      end if;
    end if;
    v_pay := governance.write_payment(v_pay, p_now, p_intent, p_charge, p_session, v_invoice, v_customer, p_livemode, v_order,
      v_account_id, v_price, v_currency, coalesce(p_told_at, p_now));
  end if;

  perform pg_advisory_xact_lock(governance.lock_key(p_user_id));
  if v_needs_roll then perform governance.roll_account(v_account_id, p_now); end if;
  v_effects := governance.grant_paid(p_now, v_pay, p_user_id, p_pack_id, v_pack_tokens, p_event_id);
  if v_has_checkout is not false then
    update governance.checkouts c set closed_at = p_now
    where c.checkout_id = (select o.checkout_id from governance.checkouts o
      where o.account_id = v_account_id and o.closed_at is null order by o.pack_id = p_pack_id desc, o.opened_at limit 1);
  end if;
  if v_knows_customer is not true then perform governance.learn_customer(v_customer, v_account_id); end if;
  -- What was refunded or disputed before it was paid for can only be known of a payment that was known.
  if v_was_known then
    v_effects := v_effects || governance.settle_payment(v_pay.payment_id, p_now, p_event_id);
  end if;
  return governance.outcome('processed', null, v_effects, v_pay.payment_id);
end
$$;
comment on function governance.on_paid_order(text, timestamptz, timestamptz, jsonb, jsonb, text, text, text, text, text, boolean, jsonb) is
  'Grants what was paid for once all of it fits: user, pack, tokens, price at the time, currency, ceiling; otherwise it waits for a person.';

create or replace function governance.on_checkout(p_event_id text, p_type text, p_now timestamptz, p_told_at timestamptz, o jsonb, p_livemode boolean) returns governance.stripe_outcome
  language plpgsql as $$
declare
  v_metadata jsonb := o -> 'metadata';
  v_user_id text := nullif(btrim(v_metadata ->> 'user_id'), '');
  v_pack_id text := nullif(btrim(v_metadata ->> 'pack_id'), '');
  v_session text := governance.stripe_id(o -> 'id');
  v_mode text := o ->> 'mode';
  v_status text := o ->> 'payment_status';
  v_account_id bigint;
begin
  -- Most orders have these names; whoever writes others pays for looking for them.
  if v_user_id is null then
    v_user_id := coalesce(governance.metadata_text(v_metadata, 'userId', 'userid'), governance.stripe_id(o -> 'client_reference_id'));
  end if;
  if v_pack_id is null then v_pack_id := governance.metadata_text(v_metadata, 'packId', 'packid'); end if;
  if v_mode = 'subscription' then
    -- The tokens come with invoice.paid; the session tells whose subscription it is.
    select a.account_id into v_account_id from governance.accounts a where a.user_id = v_user_id;
    return governance.outcome('processed', 'subscription_noted',
      governance.note_subscription(p_now, p_event_id, governance.stripe_id(o -> 'subscription'), governance.stripe_id(o -> 'customer'), v_account_id,
        governance.metadata_text(v_metadata, 'plan_id', 'planId', 'plan')));
  elsif v_mode = 'setup' then
    return governance.outcome('ignored', 'not_a_token_purchase');
  elsif v_pack_id is null then
    if not governance.is_token_order(v_metadata) then return governance.outcome('ignored', 'not_a_token_purchase'); end if;
  end if;
  if p_type in ('checkout.session.expired', 'checkout.session.async_payment_failed') then
    update governance.checkouts c set closed_at = p_now
    where c.checkout_id = (select x.checkout_id from governance.checkouts x join governance.accounts a using (account_id)
      where a.user_id = v_user_id and x.closed_at is null order by x.pack_id = v_pack_id desc, x.opened_at limit 1);
    return governance.outcome('processed', case when p_type = 'checkout.session.expired' then 'expired' else 'payment_failed' end);
  elsif v_session is null then
    return governance.outcome('quarantined', 'malformed');
  end if;
  if v_status in ('paid', 'no_payment_required') then
    return governance.on_paid_order(p_event_id, p_now, p_told_at, o, v_metadata, v_user_id, v_pack_id,
      governance.stripe_id(o -> 'payment_intent'), null, v_session, p_livemode, o -> 'amount_total');
  end if;
  return governance.outcome(case when v_status = 'unpaid' then 'processed' else 'quarantined' end,
    case when v_status = 'unpaid' then 'awaiting_payment' else 'payment_status_unknown' end,
    p_payment_id => (governance.note_payment(p_now, governance.stripe_id(o -> 'payment_intent'), null, v_session, governance.stripe_id(o -> 'invoice'), governance.stripe_id(o -> 'customer'),
      p_livemode, governance.metadata_text(v_metadata, 'order_id', 'orderId'))).payment_id);
end
$$;

create or replace function governance.on_payment_intent(p_event_id text, p_type text, p_now timestamptz, p_told_at timestamptz, o jsonb, p_livemode boolean) returns governance.stripe_outcome
  language plpgsql set search_path = '' as $$
declare
  v_intent text := governance.stripe_id(o -> 'id');
  v_charge text := coalesce(governance.stripe_id(o -> 'latest_charge'), governance.stripe_id(o #> '{charges,data,0,id}'));
  v_metadata jsonb := governance.stripe_object(o -> 'metadata');
  v_payment_id bigint;
begin
  if v_intent is null then return governance.outcome('quarantined', 'malformed'); end if;
  if p_type <> 'payment_intent.succeeded' then return governance.outcome('processed', 'payment_failed'); end if;
  -- Sold without Checkout: then the order is on the payment itself.
  if governance.is_token_order(v_metadata) then
    return governance.on_paid_order(p_event_id, p_now, p_told_at, o, v_metadata,
      coalesce(governance.metadata_text(v_metadata, 'user_id', 'userId', 'userid'), governance.stripe_id(o -> 'client_reference_id')),
      governance.metadata_text(v_metadata, 'pack_id', 'packId', 'packid'), v_intent, v_charge, null, p_livemode,
      coalesce(nullif(o -> 'amount_received', 'null'), o -> 'amount'));
  end if;
  v_payment_id := (governance.note_payment(p_now, v_intent, v_charge, null, governance.stripe_id(o -> 'invoice'), governance.stripe_id(o -> 'customer'), p_livemode)).payment_id;
  return governance.outcome('processed', null, governance.settle_payment(v_payment_id, p_now, p_event_id), v_payment_id);
end
$$;

-- ---------------------------------------------------------------------------------------------------------------
-- Subscriptions
-- ---------------------------------------------------------------------------------------------------------------

create or replace function governance.on_invoice(p_event_id text, p_now timestamptz, p_told_at timestamptz, o jsonb, p_livemode boolean) returns governance.stripe_outcome
  language plpgsql set search_path = '' as $$
declare
  v_invoice text := governance.stripe_id(o -> 'id');
  v_customer text := governance.stripe_id(o -> 'customer');
  -- From 2025-03-31 an invoice names neither subscription, payment nor charge at its top.
  v_parent jsonb := governance.stripe_object(o #> '{parent,subscription_details}');
  v_subscription text := coalesce(governance.stripe_id(o -> 'subscription'), governance.stripe_id(v_parent -> 'subscription'));
  v_intent text := coalesce(governance.stripe_id(o -> 'payment_intent'), governance.stripe_id(o #> '{payments,data,0,payment,payment_intent}'));
  v_charge text := coalesce(governance.stripe_id(o -> 'charge'), governance.stripe_id(o #> '{payments,data,0,payment,charge}'));
  v_metadata jsonb := governance.stripe_object(o -> 'metadata') || governance.stripe_object(v_parent -> 'metadata') || governance.stripe_object(o #> '{subscription_details,metadata}');
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
    select s.account_id into v_account_id from governance.stripe_subscriptions s where s.subscription_id = v_subscription and s.account_id is not null;
  end if;
  if v_account_id is null then
    select c.account_id into v_account_id from governance.stripe_customers c where c.customer_id = v_customer;
  end if;

  for v_line in select governance.stripe_object(x.value) from jsonb_array_elements(v_lines) x limit 250 loop
    v_line_metadata := governance.stripe_object(v_line -> 'metadata');
    continue when coalesce(v_line -> 'proration' = 'true', false) or coalesce(v_line #> '{parent,subscription_item_details,proration}' = 'true', false)
      or (governance.stripe_id(v_line -> 'subscription') is null and coalesce(v_line ->> 'type', '') <> 'subscription'
        and coalesce(v_line #>> '{parent,type}', '') <> 'subscription_item_details');
    v_plan_id := governance.plan_of(v_metadata, v_line);
    v_tokens := btrim(coalesce(v_line_metadata ->> 'tokens', v_line #>> '{price,metadata,tokens}', v_metadata ->> 'tokens'));
    if v_plan_id is null then
      select s.plan_id into v_plan_id from governance.stripe_subscriptions s join governance.plans p using (plan_id) where s.subscription_id = v_subscription;
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
      return governance.outcome('quarantined', v_problem, '[]', v_pay.payment_id, case when v_problem = 'unknown_user' then v_customer end);
    end if;
    -- Older line ids name the subscription, not the line: then invoice and period make it one of a kind.
    if v_key not like 'il\_%' then v_key := v_invoice || ':' || v_key || ':' || extract(epoch from v_from)::bigint; end if;
    v_lines_due := v_lines_due || jsonb_build_object('key', v_key, 'plan_id', v_plan_id, 'tokens', v_tokens, 'amount', v_amount, 'from', v_from, 'to', v_to);
  end loop;
  if v_lines_due = '{}' then
    if v_user_id is not null and v_subscription is not null then
      return governance.outcome('quarantined', 'unknown_plan', p_payment_id => v_pay.payment_id);
    end if;
    return governance.outcome('ignored', 'not_a_token_purchase');
  end if;
  -- All of its lines or none: a line that does not fit keeps the others waiting.
  for v_due in select x.* from unnest(v_lines_due) with ordinality u(line, n)
    cross join lateral jsonb_to_record(u.line) x(key text, plan_id text, tokens text, amount bigint, "from" timestamptz, "to" timestamptz) order by u.n
  loop
    continue when exists (select from governance.lots l where l.stripe_invoice_line_id = v_due.key);
    update governance.stripe_payments p set amount_minor = coalesce(p.amount_minor, v_paid), currency = coalesce(p.currency, v_currency),
      paid_at = coalesce(p.paid_at, p_told_at, p_now)
    where p.payment_id = v_pay.payment_id;
    v_effects := v_effects || governance.grant_invoice_line(p_now, p_event_id, v_pay.payment_id, v_account_id, v_due.key, v_due.plan_id, v_due.tokens::bigint,
      v_due.amount, v_currency, v_due."from", v_due."to", v_subscription);
  end loop;
  perform governance.learn_customer(v_customer, v_account_id);
  if v_subscription is not null then
    v_effects := v_effects || governance.note_subscription(p_now, p_event_id, v_subscription, v_customer, v_account_id, v_plan_id);
  end if;
  return governance.outcome('processed', null, v_effects || governance.settle_payment(v_pay.payment_id, p_now, p_event_id), v_pay.payment_id);
end
$$;

-- ---------------------------------------------------------------------------------------------------------------
-- The door
-- ---------------------------------------------------------------------------------------------------------------

create function governance.settled(p_payment_id bigint, p_now timestamptz, p_cause text) returns governance.stripe_outcome
  language plpgsql set search_path = '' as $$
begin
  if p_payment_id is null then return governance.outcome('quarantined', 'malformed'); end if;
  return governance.outcome('processed', null, governance.settle_payment(p_payment_id, p_now, p_cause), p_payment_id);
end
$$;
comment on function governance.settled(bigint, timestamptz, text) is 'What became of an event that told of this payment; one that names none is for a person.';

drop function governance.dispatch_event(text, text, timestamptz, jsonb, timestamptz);
drop function governance.take_event(text, jsonb, timestamptz);
create function governance.take_event(p_event_id text, p_event jsonb, p_now timestamptz, p_is_new boolean default false) returns jsonb
  language plpgsql as $$
declare
  v_type text := p_event ->> 'type';
  v_told_at timestamptz := governance.stripe_time(p_event -> 'created');
  v_live boolean := case p_event -> 'livemode' when 'true' then true when 'false' then false end;
  o jsonb := p_event #> '{data,object}';
  v_outcome governance.stripe_outcome;
  v_waits boolean;
begin
  begin
    if not v_live then
      if exists (select from governance.settings s where s.key = 'stripe_livemode' and s.value = 'true') then
        v_outcome := governance.outcome('quarantined', 'test_mode');
      end if;
    end if;
    if jsonb_typeof(o) is distinct from 'object' then v_outcome := governance.outcome('quarantined', 'malformed');
    elsif v_outcome.status is not null then null;
    elsif v_type like 'checkout.session.%' then v_outcome := governance.on_checkout(p_event_id, v_type, p_now, v_told_at, o, v_live);
    elsif v_type like 'payment_intent.%' then v_outcome := governance.on_payment_intent(p_event_id, v_type, p_now, v_told_at, o, v_live);
    elsif v_type like 'charge.dispute.%' then
      v_outcome := governance.settled(governance.note_dispute(p_now, coalesce(v_told_at, p_now), o, v_type), p_now, p_event_id);
    elsif v_type like 'refund.%' or v_type = 'charge.refund.updated' then
      v_outcome := governance.settled(governance.note_refund(p_now, coalesce(v_told_at, p_now), o), p_now, p_event_id);
    elsif v_type like 'charge.%' then v_outcome := governance.on_charge(p_event_id, v_type, p_now, coalesce(v_told_at, p_now), o, v_live);
    elsif v_type in ('invoice.paid', 'invoice.payment_succeeded') then v_outcome := governance.on_invoice(p_event_id, p_now, v_told_at, o, v_live);
    elsif v_type = 'invoice_payment.paid' then
      -- From 2025-03-31: the only thing that ties an invoice to its payment.
      v_outcome := governance.settled(case when governance.stripe_id(o -> 'invoice') is not null then
        (governance.note_payment(p_now, governance.stripe_id(o #> '{payment,payment_intent}'), governance.stripe_id(o #> '{payment,charge}'), null,
          governance.stripe_id(o -> 'invoice'))).payment_id end, p_now, p_event_id);
    elsif v_type like 'invoice.%' then v_outcome := governance.outcome('processed', 'payment_failed');
    else v_outcome := governance.on_subscription(p_event_id, v_type, p_now, o);
    end if;
  exception when data_exception or integrity_constraint_violation or sqlstate 'PT400' or sqlstate 'PT404' then
    -- Whatever stands in it, an event is kept for a person rather than sent back to Stripe for ever.
    v_outcome := governance.outcome('quarantined', 'malformed');
  end;
  v_waits := v_outcome.status = 'quarantined';
  if p_is_new then
    insert into governance.webhook_events_processed (event_id, event_type, event_created_at, received_at, status, reason, effects, payment_id,
      waits_for_customer, payload)
    values (p_event_id, v_type, v_told_at, p_now, case when v_waits then 'quarantined' else 'processed' end, v_outcome.reason, v_outcome.effects,
      v_outcome.payment_id, v_outcome.waits_for_customer, case when v_waits then p_event end);
  else
    update governance.webhook_events_processed w set
      status = case when v_waits then 'quarantined' else 'processed' end, reason = v_outcome.reason, effects = w.effects || v_outcome.effects,
      payment_id = v_outcome.payment_id, waits_for_customer = v_outcome.waits_for_customer, payload = case when v_waits then p_event end, attempts = w.attempts + 1
    where w.event_id = p_event_id;
  end if;
  if v_waits then
    insert into governance.alert_events (kind, severity, message, period_key, details, created_at)
    values ('webhook_quarantined', 'critical', format('A Stripe event waits for a decision: %s (%s)', v_outcome.reason, v_type), p_event_id,
      jsonb_build_object('event_id', p_event_id, 'event_type', v_type, 'reason', v_outcome.reason, 'payment_id', v_outcome.payment_id), p_now)
    on conflict do nothing;
    perform governance.ring('alerts', p_now);
  elsif v_type = 'charge.dispute.created' and v_outcome.effects <> '[]' then
    insert into governance.alert_events (account_id, kind, severity, message, period_key, details, created_at)
    select p.account_id, 'stripe_dispute', 'warning', 'A payment is disputed: what is left of its tokens is frozen', p_event_id,
      jsonb_build_object('event_id', p_event_id, 'charge_id', p.charge_id, 'payment_intent_id', p.payment_intent_id), p_now
    from governance.stripe_payments p where p.payment_id = v_outcome.payment_id
    on conflict do nothing;
    perform governance.ring('alerts', p_now);
  end if;
  return jsonb_build_object('event_id', p_event_id, 'status', v_outcome.status, 'reason', v_outcome.reason, 'effects', v_outcome.effects);
end
$$;
comment on function governance.take_event(text, jsonb, timestamptz, boolean) is
  'Acts on an event and keeps what came of it; p_is_new when nothing is kept of it yet. Answers as process_stripe_event does.';

-- No plan anew for each event, and no compiling of one.
create or replace function public.process_stripe_event(p_event jsonb) returns jsonb
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
  -- In lists of at most eight: a longer one is hashed, anew in every transaction.
  if not coalesce(jsonb_typeof(p_event -> 'id') = 'string' and btrim(v_id) <> '' and length(v_id) <= 255 and pg_column_size(p_event) <= 1048576
    and (v_type in ('checkout.session.completed', 'payment_intent.succeeded', 'charge.succeeded', 'charge.updated', 'charge.captured', 'charge.refunded',
        'invoice.paid', 'invoice_payment.paid')
      or v_type in ('refund.created', 'refund.updated', 'refund.failed', 'charge.refund.updated', 'customer.subscription.created',
        'customer.subscription.updated', 'customer.subscription.deleted', 'invoice.payment_succeeded')
      or v_type in ('charge.dispute.created', 'charge.dispute.updated', 'charge.dispute.closed', 'charge.dispute.funds_withdrawn',
        'charge.dispute.funds_reinstated', 'checkout.session.async_payment_succeeded', 'checkout.session.async_payment_failed', 'checkout.session.expired')
      or v_type in ('payment_intent.payment_failed', 'payment_intent.canceled', 'charge.failed', 'charge.pending', 'charge.expired',
        'invoice.payment_failed')), false) then
    if jsonb_typeof(p_event) is distinct from 'object' then
      perform governance.fail('PT400', 'invalid_argument', 'p_event is the event object as Stripe sends it');
    elsif jsonb_typeof(p_event -> 'id') is distinct from 'string' or btrim(v_id) = '' or length(v_id) > 255 then
      perform governance.fail('PT400', 'invalid_argument', 'p_event.id is the event''s id, a text of at most 255 characters');
    elsif jsonb_typeof(p_event -> 'type') is distinct from 'string' or btrim(v_type) = '' or length(v_type) > 255 then
      perform governance.fail('PT400', 'invalid_argument', 'p_event.type is the event''s type, a text of at most 255 characters');
    elsif pg_column_size(p_event) > 1048576 then
      perform governance.fail('PT400', 'invalid_argument', 'p_event is larger than 1 MB: Stripe sends no such event');
    end if;
    return jsonb_build_object('event_id', v_id, 'status', 'ignored', 'reason', 'unhandled_type', 'effects', '[]'::jsonb);
  end if;
  -- One at a time for each event; what came of it is written once, at the end.
  perform pg_advisory_xact_lock(hashtextextended(v_id, 7256));
  select coalesce(c.test_clock_at, clock_timestamp() + coalesce(c.test_clock_offset, interval '0')), w.event_id, w.event_type, w.status, w.reason
  into v_now, v_known_id, v_known_type, v_status, v_reason
  from governance.active_config c left join governance.webhook_events_processed w on w.event_id = v_id;
  if v_known_id is not null and (v_status <> 'quarantined' or v_known_type <> v_type) then
    return jsonb_build_object('event_id', v_id, 'status', 'duplicate', 'reason', v_reason, 'effects', '[]'::jsonb);
  end if;
  -- A quarantined one is looked at again: what it waited for may be there by now.
  return governance.take_event(v_id, p_event, v_now, v_known_id is null);
end
$$;
revoke all on function public.process_stripe_event(jsonb) from public, anon, authenticated;
grant execute on function public.process_stripe_event(jsonb) to service_role;

revoke all on all functions in schema governance from public;
