-- Finding by what a ticket contains: ids and parts of ids, of calls, payments, customers, and what was never credited.

create function governance.id_words(p_text text) returns text[]
  language sql immutable set search_path = '' as $$
  with given as (select btrim(left(governance.visible_text(p_text), 500)) as text),
  words as (
    select w, n from given, regexp_split_to_table(text, '[]\s,;()<>{}"''`“”„‘’«»[]+') with ordinality x(w, n)
    where w <> ''),
  -- A sentence ends right after an id; an address and a form hold one, which may have such signs itself (auth0|5f7c8e);
  -- a long one is shown as its two ends.
  parts as (
    select text as w, 0 as n, true as is_whole from given where text ~ '^\S+$'
    union all select btrim(w, '.:!?*#…'), n, false from words where w !~ '://'
    union all select y, n, false
    from words cross join unnest(array['[/?&#]+', '[/?&=#:…]+|\.{3,}', '[/?&=#:…|]+|\.{3,}']) s
      cross join lateral regexp_split_to_table(w, s) y
    where w ~ '[/?&=#:…|]|\.{3}'),
  likely as (
    select w, min(n) as n, min(case
      when is_whole then 0
      when w ~ '^(pi|ch|py|cs|in|sub|cus|re|pyr|dp|du|evt)_\w{4,}$' or w ~ '^[^@]+@[^@]+\.\w+$' then 1
      when w ~ '\d' and char_length(w) >= 8 and w ~ '[[:alpha:]]' then 2
      when w ~ '\d' and char_length(w) >= 6 then 3
      when w ~ '\d' and char_length(w) >= 4 then 4
      -- Among many words, a long one is hardly an id.
      when char_length(w) >= 8 and (select count(*) from words) <= 8 then 5 end) as likeliness
    from parts group by w)
  select coalesce(array_agg(w order by likeliness, n), '{}')
  from (select * from likely where likeliness is not null order by likeliness, n limit 5) y
$$;
comment on function governance.id_words(text) is
  'Words of a text that may be an id, a part of one or an e-mail, the likeliest five: the text itself where it is one '
  'word; ids that say what they are of, and e-mails; words with letters and digits, with digits; long ones among few.';

create function governance.find_named(p_words text[]) returns setof bigint
  language sql stable set search_path = '' as $$
  -- Word by word, so that each is looked up in its index.
  select x.account_id from unnest(p_words) w cross join lateral (
    select a.account_id from governance.accounts a where a.user_id = w
    union
    (select a.account_id from governance.accounts a where lower(a.email) = lower(w) limit 20)) x
$$;
comment on function governance.find_named(text[]) is 'Accounts whose user id or e-mail is one of these words.';

create function governance.find_payments(p_id text) returns setof bigint
  language plpgsql stable set search_path = '' as $$
begin
  return query
    select p.payment_id from governance.stripe_payments p
    where p_id in (p.charge_id, p.payment_intent_id, p.checkout_session_id, p.invoice_id, p.order_id)
    union select r.payment_id from governance.stripe_refunds r where r.refund_id = p_id
    union select d.payment_id from governance.stripe_disputes d where d.dispute_id = p_id
    union select s.payment_id from governance.lots x join governance.stripe_lots s using (lot_id)
      where x.stripe_invoice_line_id = p_id
    union select p.payment_id from governance.stripe_invoice_numbers i
      join governance.stripe_payments p using (invoice_id) where i.number = upper(p_id);
  if found then return; end if;
  if p_id ~ '^(pi|ch|py)_\w{4,}$' then
    return query execute format('select p.payment_id from governance.stripe_payments p where p.%I like %L limit 5',
      case when p_id like 'pi\_%' then 'payment_intent_id' else 'charge_id' end, governance.like_pattern(p_id) || '%');
  end if;
  if not found and governance.is_part(p_id) then
    return query execute format('
      (select p.payment_id from governance.stripe_payments p where governance.payment_ids(p.charge_id,
        p.payment_intent_id, p.checkout_session_id, p.invoice_id, p.order_id) like %1$L limit 5)
      union (select r.payment_id from governance.stripe_refunds r where lower(r.refund_id) like %1$L limit 5)
      union (select d.payment_id from governance.stripe_disputes d where lower(d.dispute_id) like %1$L limit 5)
      union (select p.payment_id from governance.stripe_invoice_numbers i
        join governance.stripe_payments p using (invoice_id) where lower(i.number) like %1$L limit 5)',
      '%' || governance.like_pattern(lower(p_id)) || '%');
  end if;
end
$$;
comment on function governance.find_payments(text) is
  'Payments by a whole id of their charge, payment intent, session, invoice, invoice line, order, refund or dispute, '
  'or by the number on the invoice; where there is none, by a part of one of these.';

create function governance.is_part(p_text text) returns boolean
  language sql immutable set search_path = '' as $$
  select p_text ~ '^\S{8,255}$' or p_text ~ '^\S{6,7}$' and p_text ~ '\d'
$$;
comment on function governance.is_part(text) is
  'Whether a text is long enough to be looked for inside ids. A short word without a digit is in many by chance.';

create function governance.find_customers(p_id text) returns setof bigint
  language plpgsql stable set search_path = '' as $$
begin
  return query
    select k.account_id from governance.stripe_customers k where k.customer_id = p_id
    union select u.account_id from governance.stripe_subscriptions u
      where u.subscription_id = p_id and u.account_id is not null;
  if found or not governance.is_part(p_id) then return; end if;
  return query execute format('
    (select k.account_id from governance.stripe_customers k where lower(k.customer_id) like %1$L limit 5)
    union (select u.account_id from governance.stripe_subscriptions u
      where lower(u.subscription_id) like %1$L and u.account_id is not null limit 5)',
    '%' || governance.like_pattern(lower(p_id)) || '%');
end
$$;
comment on function governance.find_customers(text) is
  'Accounts of a customer or subscription at Stripe with this id, or with this part of one.';

create function governance.find_owners(p_id text, p_is_alone boolean) returns setof bigint
  language sql stable set search_path = '' as $$
  select p.account_id from governance.find_payments(p_id) f(payment_id)
    join governance.stripe_payments p using (payment_id) where p.account_id is not null
  union select r.account_id from governance.find_calls(p_id, p_is_alone) f(decision_id)
    join governance.requests r using (decision_id)
  union select governance.find_customers(p_id)
$$;
comment on function governance.find_owners(text, boolean) is
  'Accounts of a payment, call, customer or subscription with this id, or with this part of one.';

create function governance.find_waiting(p_ids text[])
  returns table (kind text, id text, title text, subtitle text, user_id text)
  language sql stable set search_path = '' as $$
  (select 'event', w.event_id, i, concat_ws(' · ', 'not credited: waits for a person', w.event_type, w.reason),
    null::text
  -- Each is written out once, however many ids are looked for.
  from (select x.event_id, x.event_type, x.reason, x.event_id || coalesce(x.payload::text, '') as body
    from governance.webhook_events_processed x where x.status = 'quarantined'
    order by x.received_at desc limit 2000) w
  join unnest(p_ids) i on strpos(w.body, i) > 0 limit 5)
  union all
  (select 'case', c.difference_id, i, concat_ws(' · ', 'open difference', c.class, replace(c.status, '_', ' ')),
    c.user_id
  from (select x.*, x.difference_id || coalesce(x.difference::text, '') as body from governance.reconciliation_cases x
    where x.blocks and x.status in ('open', 'investigating', 'proposed', 'approved', 'posted') offset 0) c
  join unnest(p_ids) i on strpos(c.body, i) > 0 limit 5)
$$;
comment on function governance.find_waiting(text[]) is
  'Money that was not credited and names one of these ids: Stripe''s events that wait for a person (the newest 2,000), '
  'and open differences of a reconciliation.';

create function governance.find_calls(p_id text, p_is_alone boolean) returns setof bigint
  language plpgsql stable set search_path = '' as $$
declare
  v_number bigint := case when p_id ~ '^\d{1,18}$' then p_id::bigint end;
begin
  return query select r.decision_id from governance.requests r where r.decision_id = v_number
    union select k.decision_id from governance.request_keys k where k.request_id = p_id;
  if found then return; end if;
  -- The beginning of a request id: in the order of any language an id comes right before what begins with it.
  if p_id ~ '^\S{6,}$' then
    return query select k.decision_id from (select x.request_id, x.decision_id from governance.request_keys x
      where x.request_id >= p_id order by x.request_id limit 20) k where starts_with(k.request_id, p_id) limit 5;
    if found then return; end if;
  end if;
  -- The end of one; any part of a newer call's.
  if governance.is_part(p_id) then
    return query execute format('select k.decision_id from governance.request_keys k
      where reverse(k.request_id) like %L limit 5', governance.like_pattern(reverse(p_id)) || '%');
    if not found and p_is_alone then
      return query select x.decision_id from (select r.request_id, r.decision_id from governance.requests r
        order by r.decision_id desc limit 50000) x where strpos(lower(x.request_id), lower(p_id)) > 0 limit 5;
    end if;
    if found then return; end if;
  end if;
  -- The beginning of a decision's number, with up to three digits left out.
  if p_id ~ '^\d{4,15}$' then
    return query select r.decision_id from generate_series(1, 3) d cross join lateral (
      select x.decision_id from governance.requests x
      where x.decision_id between v_number * (10 ^ d)::bigint and (v_number + 1) * (10 ^ d)::bigint - 1
      order by x.decision_id limit 3) r limit 5;
  end if;
end
$$;
comment on function governance.find_calls(text, boolean) is
  'Calls by their whole request or decision id, else by the beginning of one or the end of a request id; the newest '
  '50,000 calls by any part of it, where that alone is looked for.';

create function public.console_search(p_query text, p_limit int default 20) returns jsonb
  language plpgsql volatile security definer set search_path = '' set jit = off as $$
declare
  v_lower text := governance.search_words(p_query);
  -- What of it may be an id: the whole, or words among others.
  v_words text[] := governance.id_words(p_query);
  v_ids bigint[];
  v_more bigint[];
begin
  perform governance.refuse_others('console_search');
  perform governance.check_optional('p_query', p_query, 500);
  perform governance.check_limit(p_limit, 100);
  if v_lower = '' then return '[]'; end if;
  -- The user with this very id or e-mail, then names that begin so, then all other matches: each from an index, none
  -- sorted.
  v_ids := array(select governance.find_named(array_append(v_words, btrim(p_query))));
  execute format('select array_agg(x.account_id) from (select l.account_id from governance.account_listings l
    where l.sort_name like %L order by l.sort_name, l.account_id limit %s) x',
      governance.like_pattern(v_lower) || '%', p_limit) into v_more;
  v_ids := v_ids || v_more;
  if coalesce(cardinality(v_ids), 0) < p_limit then
    execute format('select array_agg(x.account_id) from (select l.account_id from governance.account_listings l where '
      '%s limit %s) x',
      governance.find_accounts_condition(v_lower), 2 * p_limit) into v_more;
    v_ids := v_ids || v_more;
  end if;
  if coalesce(cardinality(v_ids), 0) = 0 then
    -- No user matches: the owner of a customer id, else users with a similar name. Payments and calls name theirs.
    v_ids := array(select distinct o from unnest(v_words) w cross join lateral governance.find_customers(w) o limit 7);
    if v_ids = '{}' then v_ids := governance.close_accounts(v_lower, least(p_limit, 7)); end if;
  end if;
  return (
    select coalesce(jsonb_agg(to_jsonb(h) - 'rank' - 'n' order by h.rank, h.n), '[]') from (
      select * from (
        -- A whole id of a request, decision or payment is meant exactly.
        (select 1 as rank, 1::bigint as n, 'request' as kind, r.request_id as id, r.request_id as title,
          concat_ws(' · ', a.user_id, r.decision, r.reason, r.status) as subtitle, a.user_id, r.decision_id
        from unnest(v_words) w cross join lateral governance.find_calls(w, btrim(p_query) !~ '\s') f(decision_id)
        join governance.requests r using (decision_id) join governance.accounts a using (account_id) limit 5)
        union all
        -- What was not credited comes after the event or difference that explains it.
        (select 1, case when z.tokens is null then 4 else 2 end, 'payment', y.id, y.id,
          concat_ws(' · ', a.user_id, coalesce(z.tokens || ' tokens', 'no tokens granted'),
            to_char(coalesce(p.paid_at, p.created_at) at time zone 'UTC', 'YYYY-MM-DD')), a.user_id, null
        from unnest(v_words) w cross join lateral governance.find_payments(w) f(payment_id)
        join governance.stripe_payments p using (payment_id)
        -- The whole id of which a part was typed; what was typed where it is an id of something of the payment's.
        cross join lateral (select coalesce((select i from unnest(array[p.charge_id, p.payment_intent_id,
          p.checkout_session_id, p.invoice_id, p.order_id]) i where strpos(lower(i), lower(w)) > 0 limit 1), w) as id) y
        left join governance.accounts a using (account_id)
        cross join lateral (select sum(s.tokens) as tokens from governance.stripe_lots s
          where s.payment_id = p.payment_id) z limit 5)
        union all
        (select 1, 3, f.kind, f.id, f.title, f.subtitle, f.user_id, null
        from governance.find_waiting(array(select w from unnest(v_words) w where w ~ '^\S{6,}$')) f limit 10)
        union all
        select 2, min(x.n), 'user', a.user_id, coalesce(nullif(btrim(a.display_name), ''), a.user_id),
          concat_ws(' · ', a.user_id, a.email, a.plan_id), a.user_id, null
        from unnest(v_ids) with ordinality x(account_id, n) join governance.accounts a using (account_id)
          group by a.account_id
        union all
        select 3, row_number() over (order by u.priority, u.rule_name), 'rule', u.rule_name, u.rule_name,
          concat_ws(' · ', u.rule_type, u.mode, u.description), null, null
        from governance.rules u where u.retired_at is null
          -- The screens show daily_limit as "daily limit".
          and strpos(replace(lower(u.rule_name || ' ' || coalesce(u.description, '')), '_', ' '),
            replace(v_lower, '_', ' ')) > 0
      ) every order by rank, n limit p_limit) h);
end
$$;
comment on function public.console_search(text, int) is
  'What a typed text may mean, best first: a request or decision by its id or a part of it; a payment by any id of '
  'Stripe''s, the order''s, the invoice''s number, or a part of one; Stripe''s events and open differences that '
  'name it and were not credited; users, where nobody has it so by what of theirs has such an id, else by words '
  'with typing errors; rules. Of several words those that look like ids are looked for too. Errors: '
  'invalid_argument.';
revoke all on function public.console_search(text, int) from public, anon, authenticated;
grant execute on function public.console_search(text, int) to service_role;
