-- Search: accounts by words, filter and order, and whatever an id names.

create function governance.estimate_rows(p_query text) returns bigint
  language plpgsql set search_path = '' as $$
declare
  v_plan json;
begin
  execute 'explain (format json) ' || p_query into v_plan;
  return (v_plan -> 0 -> 'Plan' ->> 'Plan Rows')::numeric::bigint;
end
$$;
comment on function governance.estimate_rows(text) is 'How many rows the planner expects of a query.';

create function governance.find_accounts_condition(p_query text) returns text
  language sql immutable set search_path = '' as $$
  select case when p_query <> '' then (
    select string_agg(format('l.search_text like %L', case when char_length(p_query) < 3 then E'%\n' else '%' end
      || governance.like_pattern(w) || '%'), ' and ' order by n)
    from regexp_split_to_table(p_query, ' ') with ordinality x(w, n)) end
$$;
comment on function governance.find_accounts_condition(text) is
  'SQL that an account listing l matches a search: each word, in any order, anywhere in user id, name or e-mail; with '
  'fewer than three characters, at the beginning of one.';

create function governance.close_accounts(p_query text, p_limit int) returns bigint[]
  language plpgsql volatile set search_path = '' as $$
declare
  v_schema text := (select n.nspname from pg_catalog.pg_extension e
    join pg_catalog.pg_namespace n on n.oid = e.extnamespace where e.extname = 'pg_trgm');
  v_words text[] := array(select w from regexp_split_to_table(p_query, ' ') with ordinality x(w, n)
    where char_length(w) between 3 and 50 order by char_length(w) desc, n limit 5);
  v_found bigint[];
begin
  -- Ids are meant as they are.
  if v_schema is null or v_words = '{}' or p_query ~ '^(\w+_\S+|[0-9a-f-]{8,})$' then return '{}'; end if;
  -- More than 5,000 close ones are not all compared: a word that so many have tells nobody apart.
  -- Two letters in the wrong order share two of the five trigrams of a word of four.
  perform set_config('pg_trgm.word_similarity_threshold', '0.39', true);
  execute format('select array_agg(x.account_id order by x.likeness desc, x.account_id) from (
      select l.account_id, %s as likeness
      from (select y.account_id, y.search_text from governance.account_listings y where %s limit 5000) l
      order by likeness desc, l.account_id limit %s) x',
    (select string_agg(format('%I.word_similarity(%L, l.search_text)', v_schema, w), ' + ') from unnest(v_words) w),
    (select string_agg(format('y.search_text operator(%I.%%>) %L', v_schema, w), ' and ') from unnest(v_words) w),
    p_limit) into v_found;
  return coalesce(v_found, '{}');
end
$$;
comment on function governance.close_accounts(text, int) is
  'Accounts whose user id, name or e-mail has words like these, the closest first: typing errors, other spellings. '
  'Empty without pg_trgm.';

create function governance.account_rows(p_account_ids bigint[]) returns jsonb
  language sql stable set search_path = '' as $$
  -- As governance.account_json says it, written out: a page asks for it twenty times.
  select coalesce(jsonb_agg(jsonb_build_object(
      'user_id', a.user_id, 'display_name', a.display_name, 'email', a.email, 'plan_id', a.plan_id, 'timezone',
        a.timezone,
      'created_at', a.created_at, 'version', a.version,
      'is_flagged', a.flagged_at is not null, 'flag_reason', a.flag_reason, 'flagged_at', a.flagged_at, 'flagged_by',
        a.flagged_by,
      'last_activity', a.last_activity_at,
      'currency', t.currency,
      'usage_percent', governance.percent_used(f.tokens_today, f.tokens_this_month, c.daily_limit, c.monthly_limit,
        p.monthly_allowance),
      'usage_of', governance.usage_of(f.tokens_today, f.tokens_this_month, c.daily_limit, c.monthly_limit,
        p.monthly_allowance)
    ) || to_jsonb(f) - 'account_id' || governance.block_json(a, t.at) order by x.n), '[]')
  from unnest(p_account_ids) with ordinality x(account_id, n)
  join governance.accounts a using (account_id)
  join governance.account_figures f using (account_id)
  join governance.plans p using (plan_id)
  cross join (select governance.now() as at, k.currency from governance.active_config k offset 0) t
  cross join lateral (select
      governance.raised_limit(p.daily_limit, a.raised_daily_limit, a.raised_until, t.at) as daily_limit,
      governance.raised_limit(p.monthly_limit, a.raised_monthly_limit, a.raised_until, t.at) as monthly_limit) c
$$;
comment on function governance.account_rows(bigint[]) is 'Rows of the user table, in the order given.';

create function governance.sort_column(p_sort text, out name text, out type text)
  language plpgsql stable set search_path = '' as $$
declare
  v_figures text[] := governance.columns_of('governance.account_figures');
begin
  if p_sort = any (v_figures || 'usage_percent'::text) then
    name := p_sort;
    type := 'bigint';
  elsif p_sort = 'created_at' then
    name := p_sort;
    type := 'timestamptz';
  elsif coalesce(p_sort, 'name') = 'name' then
    name := 'sort_name';
    type := 'text';
  elsif p_sort = 'last_activity' then
    name := 'last_activity_at';
    type := 'timestamptz';
  else
    perform governance.fail('PT400', 'invalid_argument',
      format('p_sort is one of name, last_activity, created_at, usage_percent, %s', array_to_string(v_figures, ', ')));
  end if;
end
$$;
comment on function governance.sort_column(text) is
  'The column of governance.account_listings, and its type, that a word of p_sort means. Errors: invalid_argument.';

create function governance.filter_condition(p_filter text) returns text
  language plpgsql stable set search_path = '' as $$
declare
  v_condition text := case coalesce(p_filter, 'all')
    when 'all' then 'true'
    when 'flagged' then 'l.is_flagged'
    when 'blocked' then format('l.blocked_until > %L', governance.now())
    when 'near_limit' then 'l.usage_percent >= 80'
    when 'in_debt' then 'l.debt > 0'
    when 'active_today' then format('l.day_ends_at > %L', governance.now())
    when 'low_balance' then format('l.available < %s', (select c.low_balance_tokens from governance.active_config c))
    -- Disputes that are not decided are few.
    when 'disputed' then format('l.account_id = any (%L::bigint[])', array(select p.account_id
      from governance.stripe_disputes d join governance.stripe_payments p using (payment_id)
      where d.stage < 3 and p.account_id is not null)) end;
begin
  if v_condition is null then
    perform governance.fail('PT400', 'invalid_argument',
      'p_filter is one of all, flagged, blocked, near_limit, low_balance, in_debt, disputed, active_today');
  end if;
  return v_condition;
end
$$;
comment on function governance.filter_condition(text) is
  'The condition on governance.account_listings l that a filter of the user table means. Errors: invalid_argument.';

create function governance.read_search_cursor(p_cursor text, p_order text, p_type text, p_last_tier int,
  out tier int, out key text, out id bigint)
  language plpgsql stable set search_path = '' as $$
declare
  v_cursor jsonb;
begin
  tier := 0;
  if p_cursor is null then return; end if;
  begin
    v_cursor := convert_from(decode(p_cursor, 'base64'), 'UTF8')::jsonb;
    tier := (v_cursor ->> 't')::int;
    key := v_cursor ->> 'k';
    id := (v_cursor ->> 'i')::bigint;
    if p_type = 'bigint' then key := key::bigint; elsif p_type = 'timestamptz' then key := key::timestamptz; end if;
  exception when others then
    key := null;
  end;
  if key is null or id is null or tier is null or tier not between 0 and p_last_tier
    or v_cursor ->> 's' is distinct from p_order then
    perform governance.fail('PT400', 'invalid_argument', 'p_cursor is not one that this search gave');
  end if;
end
$$;
comment on function governance.read_search_cursor(text, text, text, int) is
  'Where a page of a search goes on: after this key and account. Errors: invalid_argument.';

create function governance.gather_few(p_conditions text[], out source text, out condition text, out total bigint,
  out is_exact boolean)
  language plpgsql set search_path = '' as $$
declare
  -- Up to so many accounts are gathered and sorted; where more match, the index of the sort is walked instead.
  c_few constant int := 2000;
  v_one text;
  v_found bigint[];
begin
  source := 'governance.account_listings l';
  condition := coalesce(nullif(array_to_string(p_conditions, ' and '), ''), 'true');
  is_exact := false;
  -- Is there a condition, or the table itself, that leaves few? Then gather those: the total is exact, and any order
  -- cheap.
  foreach v_one in array case when cardinality(p_conditions) > 0 then p_conditions else '{true}' end loop
    continue when governance.estimate_rows('select from governance.account_listings l where ' || v_one) > 4 * c_few;
    execute format('select array_agg(x.account_id) from (select l.account_id from governance.account_listings l where '
      '%s limit %s) x', v_one, c_few + 1) into v_found;
    continue when cardinality(v_found) > c_few;
    source := format('(select * from governance.account_listings where account_id = any (%L::bigint[])) l',
      coalesce(v_found, '{}'));
    is_exact := true;
    if cardinality(p_conditions) <= 1 then
      total := coalesce(cardinality(v_found), 0);
      condition := 'true';
    else
      execute format('select count(*) from %s where %s', source, condition) into total;
    end if;
    return;
  end loop;
  total := governance.estimate_rows('select from governance.account_listings l where ' || condition);
  if condition = 'true' and total < 10 * c_few then
    select count(*) into total from governance.account_listings;
    is_exact := true;
  end if;
end
$$;
comment on function governance.gather_few(text[]) is
  'What a search reads: the few accounts that fit, or the table with the condition. And how many there are.';

create function public.console_search_accounts(
  p_query text default '', p_filter text default 'all', p_plan_id text default null, p_sort text default 'name',
  p_descending boolean default false, p_cursor text default null, p_limit int default 20,
  p_active_since timestamptz default null
) returns jsonb
  language plpgsql security definer set search_path = '' set jit = off as $$
declare
  v_query text := lower(btrim(regexp_replace(coalesce(p_query, ''), '\s+', ' ', 'g')));
  v_sort record := governance.sort_column(p_sort);
  v_direction text := case when coalesce(p_descending, false) then 'desc' else 'asc' end;
  v_conditions text[] := '{}';
  v_condition text;
  v_is_close boolean := false;
  v_owners bigint[] := '{}';
  v_tier int := 0;
  v_last_tier int := 0;
  v_from record;
  v_tier_condition text;
  v_tier_where text;
  v_key text;
  v_id bigint;
  v_ids bigint[] := '{}';
  v_keys text[] := '{}';
  v_tiers int[] := '{}';
  v_found_id bigint;
  v_found_key text;
begin
  perform governance.refuse_others('console_search_accounts');
  perform governance.check_optional('p_query', p_query, 500);
  perform governance.check_limit(p_limit, 100);
  v_condition := governance.filter_condition(p_filter);
  if v_condition <> 'true' then
    v_conditions := v_conditions || v_condition;
  end if;
  if p_active_since is not null then
    if not isfinite(p_active_since) then
      perform governance.fail('PT400', 'invalid_argument', 'p_active_since is a moment');
    end if;
    v_conditions := v_conditions || format('l.last_activity_at >= %L', p_active_since);
  end if;
  if p_plan_id is not null then
    v_conditions := v_conditions || format('l.plan_id = %L', p_plan_id);
  end if;
  if v_query <> '' then
    v_conditions := v_conditions || governance.find_accounts_condition(v_query);
    -- Names that begin with what was typed come first.
    v_last_tier := (v_sort.name = 'sort_name')::int;
  end if;
  select c.tier, c.key, c.id into v_tier, v_key, v_id
  from governance.read_search_cursor(p_cursor, v_sort.name || v_direction, v_sort.type, v_last_tier) c;
  perform governance.follow_events(200);
  if v_query <> '' then
    execute format('select not exists (select from governance.account_listings l where %s)',
      governance.find_accounts_condition(v_query)) into v_is_close;
    if v_is_close then
      -- Nobody is written so: whose payment, call or customer has such an id, else whoever is written nearly so.
      v_last_tier := 0;
      v_owners := array(select distinct o from unnest(governance.id_words(p_query)) w
        cross join lateral governance.find_owners(w) o limit 100);
      v_is_close := v_owners = '{}';
      v_conditions := array_replace(v_conditions, governance.find_accounts_condition(v_query),
        format('l.account_id = any (%L::bigint[])', case when v_is_close
          then governance.close_accounts(v_query, 100) else v_owners end));
    end if;
  end if;

  v_from := governance.gather_few(v_conditions);
  while v_tier <= v_last_tier and cardinality(v_ids) <= p_limit loop
    v_tier_condition := case
      when v_last_tier = 1 then format('l.sort_name %s like %L', case v_tier when 1 then 'not' else '' end,
      governance.like_pattern(v_query) || '%') else 'true' end;
    -- A name that begins with the text holds it: no need to look for it again.
    v_tier_where := case when v_last_tier = 1 and v_tier = 0
      then coalesce(nullif(array_to_string(array_remove(v_conditions, governance.find_accounts_condition(v_query)),
        ' and '), ''), 'true') else v_from.condition end;
    for v_found_id, v_found_key in execute format(
      'select l.account_id, l.%1$I::text as key from %2$s where %3$s and %4$s %5$s order by l.%1$I %6$s, l.account_id '
      '%6$s limit %7$s',
      v_sort.name, v_from.source, v_tier_where, v_tier_condition,
      case when v_key is not null then format('and (l.%I, l.account_id) %s (%L::%s, %s)', v_sort.name,
        case v_direction when 'asc' then '>' else '<' end, v_key,
        v_sort.type || case v_sort.type when 'text' then ' collate "C"' else '' end, v_id) else '' end,
      v_direction, p_limit + 1 - cardinality(v_ids))
    loop
      v_ids := v_ids || v_found_id;
      v_keys := v_keys || v_found_key;
      v_tiers := v_tiers || v_tier;
    end loop;
    v_tier := v_tier + 1;
    v_key := null;
  end loop;

  return jsonb_build_object(
    'accounts', governance.account_rows(v_ids[1:p_limit]),
    'next_cursor', case when cardinality(v_ids) > p_limit
      then translate(encode(convert_to(jsonb_build_object('s', v_sort.name || v_direction,
      't', v_tiers[p_limit], 'k', v_keys[p_limit], 'i', v_ids[p_limit])::text, 'UTF8'), 'base64'), E'\n', '') end,
    'total', v_from.total,
    'total_is_exact', v_from.is_exact,
    'is_close', v_is_close and v_ids <> '{}',
    'is_by_id', v_owners <> '{}' and v_ids <> '{}');
end
$$;
comment on function public.console_search_accounts(text, text, text, text, boolean, text, int, timestamptz) is
  'A page of the user table. The text is looked for anywhere in user id, name and e-mail, with fewer than three '
  'characters at their beginning; in order of name, names that begin with it come first. Where nobody is written so, '
  'those are searched whose payment, call or customer has an id with it (is_by_id), else the 100 closest (is_close). '
  'Filters: all, flagged, blocked, near_limit (80 % or more used), '
  'low_balance (the setting), in_debt, disputed (not decided yet), active_today; p_active_since beside any. '
  'next_cursor is null on the last page. Errors: invalid_argument.';
revoke all on function public.console_search_accounts(text, text, text, text, boolean, text, int, timestamptz)
  from public, anon, authenticated;
grant execute on function public.console_search_accounts(text, text, text, text, boolean, text, int, timestamptz)
  to service_role;

create function governance.id_words(p_text text) returns text[]
  language sql immutable set search_path = '' as $$
  select coalesce(array_agg(w order by n), '{}') from (
    select w, min(n) as n from regexp_split_to_table(left(btrim(p_text), 500), '[\s,;()<>"''“”„#]+')
      with ordinality x(w, n)
    where char_length(w) >= 8 or char_length(w) >= 4 and w ~ '\d'
    group by w order by min(n) limit 3) y
$$;
comment on function governance.id_words(text) is
  'The words of a text that may be an id or a part of one: long ones, and shorter ones with a digit. The first three.';

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
  'Whether a text is long enough to be looked for inside ids. A short word without a digit stands in many by chance.';

create function governance.find_owners(p_id text) returns setof bigint
  language plpgsql stable set search_path = '' as $$
declare
  v_part text := '%' || governance.like_pattern(lower(p_id)) || '%';
begin
  return query
    select k.account_id from governance.stripe_customers k where k.customer_id = p_id
    union select u.account_id from governance.stripe_subscriptions u
      where u.subscription_id = p_id and u.account_id is not null
    union select p.account_id from governance.find_payments(p_id) f(payment_id)
      join governance.stripe_payments p using (payment_id) where p.account_id is not null
    union select r.account_id from governance.find_calls(p_id) f(decision_id)
      join governance.requests r using (decision_id);
  if found or not governance.is_part(p_id) then return; end if;
  return query execute format('
    (select k.account_id from governance.stripe_customers k where lower(k.customer_id) like %1$L limit 5)
    union (select u.account_id from governance.stripe_subscriptions u
      where lower(u.subscription_id) like %1$L and u.account_id is not null limit 5)', v_part);
end
$$;
comment on function governance.find_owners(text) is
  'Accounts of a payment, call, customer or subscription with this id, or with this part of one.';

create function governance.find_waiting(p_id text)
  returns table (kind text, id text, title text, subtitle text, user_id text)
  language sql stable set search_path = '' as $$
  (select 'event', w.event_id, p_id, concat_ws(' · ', 'not credited: waits for a person', w.event_type, w.reason),
    null::text
  from (select * from governance.webhook_events_processed x where x.status = 'quarantined'
    order by x.received_at desc limit 2000) w
  where w.event_id = p_id or strpos(w.payload::text, p_id) > 0 limit 5)
  union all
  (select 'case', c.difference_id, p_id, concat_ws(' · ', 'open difference', c.class, replace(c.status, '_', ' ')),
    c.user_id
  from governance.reconciliation_cases c
  where c.blocks and c.status in ('open', 'investigating', 'proposed', 'approved', 'posted')
    and (c.difference_id = p_id or strpos(c.difference::text, p_id) > 0) limit 5)
$$;
comment on function governance.find_waiting(text) is
  'What names an id and was not credited: Stripe''s events that wait for a person (the newest 2,000), and open '
  'differences of a reconciliation.';

create function governance.find_calls(p_id text) returns setof bigint
  language plpgsql stable set search_path = '' as $$
declare
  v_number bigint := case when p_id ~ '^\d{1,18}$' then p_id::bigint end;
begin
  return query select r.decision_id from governance.requests r where r.decision_id = v_number
    union select k.decision_id from governance.request_keys k where k.request_id = p_id;
  if found then return; end if;
  -- The beginning of a request id: in the order of any language an id stands right before what begins with it.
  if p_id ~ '^\S{6,}$' then
    return query select k.decision_id from (select x.request_id, x.decision_id from governance.request_keys x
      where x.request_id >= p_id order by x.request_id limit 20) k where starts_with(k.request_id, p_id) limit 5;
    if found then return; end if;
  end if;
  -- The end of the id of a call that was stopped, which is what tickets are about; any part of a newer call's.
  if governance.is_part(p_id) then
    return query execute format('select r.decision_id from governance.requests r
      where r.decision = ''block'' and reverse(r.request_id) like %L limit 5',
      governance.like_pattern(reverse(p_id)) || '%');
    if not found then
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
comment on function governance.find_calls(text) is
  'Calls by their whole request or decision id, else by the beginning of one; a call that was stopped also by the end '
  'of its request id, and the newest 50,000 calls by any part of it.';

create function public.console_search(p_query text, p_limit int default 20) returns jsonb
  language plpgsql volatile security definer set search_path = '' set jit = off as $$
declare
  v_query text := btrim(coalesce(p_query, ''));
  v_lower text := lower(regexp_replace(btrim(coalesce(p_query, '')), '\s+', ' ', 'g'));
  -- What of it may be an id: the whole, or words among others.
  v_words text[] := case when btrim(coalesce(p_query, '')) ~ '\s' then governance.id_words(p_query)
    else array[btrim(coalesce(p_query, ''))] end;
  v_ids bigint[];
  v_more bigint[];
begin
  perform governance.refuse_others('console_search');
  perform governance.check_optional('p_query', p_query, 500);
  perform governance.check_limit(p_limit, 100);
  if v_lower = '' then return '[]'; end if;
  -- The user with this very id, then names that begin so, then whoever else matches: each from an index, none sorted.
  select array_agg(x.account_id) into v_ids from (
    select a.account_id from governance.accounts a where a.user_id = v_query or a.user_id = any (v_words)) x;
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
    -- Nobody is written so: whose payment, call or customer it is, else whoever is written nearly so.
    v_ids := array(select distinct o from unnest(v_words) w cross join lateral governance.find_owners(w) o limit 7);
    if v_ids = '{}' then v_ids := governance.close_accounts(v_lower, least(p_limit, 7)); end if;
  end if;
  return (
    select coalesce(jsonb_agg(to_jsonb(h) - 'rank' - 'n' order by h.rank, h.n), '[]') from (
      select * from (
        -- A whole id of a request, decision or payment is meant exactly.
        (select 1 as rank, 1::bigint as n, 'request' as kind, r.request_id as id, r.request_id as title,
          concat_ws(' · ', a.user_id, r.decision, r.reason, r.status) as subtitle, a.user_id, r.decision_id
        from unnest(v_words) w cross join lateral governance.find_calls(w) f(decision_id)
        join governance.requests r using (decision_id) join governance.accounts a using (account_id) limit 5)
        union all
        -- What was not credited comes after the event or difference that says why.
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
        from unnest(v_words) w cross join lateral governance.find_waiting(w) f where w ~ '^\S{6,}$' limit 10)
        union all
        select 2, min(x.n), 'user', a.user_id, coalesce(nullif(btrim(a.display_name), ''), a.user_id),
          concat_ws(' · ', a.user_id, a.email, a.plan_id), a.user_id, null
        from unnest(v_ids) with ordinality x(account_id, n) join governance.accounts a using (account_id)
          group by a.account_id
        union all
        select 3, row_number() over (order by u.priority, u.rule_name), 'rule', u.rule_name, u.rule_name,
          concat_ws(' · ', u.rule_type, u.mode, u.description), null, null
        from governance.rules u where u.retired_at is null
          and strpos(lower(u.rule_name || ' ' || coalesce(u.description, '')), v_lower) > 0
      ) every order by rank, n limit p_limit) h);
end
$$;
comment on function public.console_search(text, int) is
  'What a typed text may mean, best first: a request or decision by its id or a part of it; a payment by any id of '
  'Stripe''s, the order''s, the invoice''s number, or a part of one; Stripe''s events and open differences that name '
  'it and were not credited; users, where nobody is written so by what of theirs has such an id, else by words with '
  'typing errors; rules. Of several words those that look like ids are looked for too. Errors: invalid_argument.';
revoke all on function public.console_search(text, int) from public, anon, authenticated;
grant execute on function public.console_search(text, int) to service_role;
