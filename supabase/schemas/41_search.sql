-- Search: accounts by words, filter and order.

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

create function governance.visible_text(p_text text) returns text
  language sql immutable set search_path = '' as $$
  select regexp_replace(regexp_replace(coalesce(p_text, ''), '[\u00ad\u200b-\u200f\u202a-\u202e\u2060\ufeff]', '', 'g'),
    '[' || governance.rare_spaces() || ']', ' ', 'g')
$$;
comment on function governance.visible_text(text) is
  'A pasted text without what cannot be seen, and with plain spaces for all others.';

create function governance.search_words(p_text text) returns text
  language sql immutable set search_path = '' as $$
  -- Quotes, brackets and the marks of a sentence around a word come with pasting; a text of nothing else is meant so.
  select coalesce(nullif(btrim(regexp_replace(y.text, '(?:^|(?<= ))[]["''`“”„‘’«»<>(){}]+|[]["''`“”„‘’«»<>(){},;:.!?]+'
    '(?: |$)', ' ', 'g')), ''), y.text)
  from (select btrim(regexp_replace(lower(governance.visible_text(p_text)), '\s+', ' ', 'g')) as text) y
$$;
comment on function governance.search_words(text) is
  'A text as accounts are searched by it: in small letters, one space between words, nothing around a word.';

create function governance.find_accounts_condition(p_query text) returns text
  language sql immutable set search_path = '' as $$
  select case when p_query <> '' then (
    select string_agg(format('l.search_text like %L', case when char_length(p_query) < 3 then E'%\n' else '%' end
      || governance.like_pattern(w) || '%'), ' and ' order by n)
    from regexp_split_to_table(p_query, ' ') with ordinality x(w, n)) end
$$;
comment on function governance.find_accounts_condition(text) is
  'The SQL condition by which an account listing l matches a search: each word, in any order, anywhere in user id, '
  'name or e-mail; with fewer than three characters, at the beginning of one.';

create function governance.with_umlauts(p_word text) returns text
  language sql immutable set search_path = '' as $$
  select replace(replace(replace(replace(p_word, 'ae', 'ä'), 'oe', 'ö'), 'ue', 'ü'), 'ss', 'ß')
$$;
comment on function governance.with_umlauts(text) is
  'A word with German letters where two letters were typed for one: mueller, strauss.';

-- Comparing words costs a hundred times what the planner estimates: left to itself it reads the whole table.
create function governance.close_accounts(p_query text, p_limit int) returns bigint[]
  language plpgsql volatile set search_path = '' set enable_seqscan = off as $$
declare
  v_schema text := (select n.nspname from pg_catalog.pg_extension e
    join pg_catalog.pg_namespace n on n.oid = e.extnamespace where e.extname = 'pg_trgm');
  v_words text[] := array(select w from regexp_split_to_table(p_query, ' ') with ordinality x(w, n)
    where char_length(w) between 3 and 50 order by char_length(w) desc, n limit 5);
  v_found bigint[];
begin
  -- An id is searched exactly; a whole message is no name.
  if v_schema is null or v_words = '{}' or cardinality(string_to_array(p_query, ' ')) > 6
    or p_query ~ '^(\w+_\S+|[0-9a-f-]{8,})$' then
    return '{}';
  end if;
  -- More than 1,500 close ones are not all compared: a word that so many share identifies nobody. Two letters in the
  -- wrong order share two of the five trigrams of a word of four.
  perform set_config('pg_trgm.word_similarity_threshold', '0.39', true);
  execute format('select array_agg(x.account_id order by x.likeness desc, x.account_id) from (
      select l.account_id, %s as likeness
      from (select y.account_id, y.search_text from governance.account_listings y where %s limit 1500) l
      order by likeness desc, l.account_id limit %s) x',
    (select string_agg(format('greatest(%1$I.word_similarity(%2$L, l.search_text), '
      '%1$I.word_similarity(%3$L, l.search_text))', v_schema, w, governance.with_umlauts(w)), ' + ')
      from unnest(v_words) w),
    (select string_agg(format(case when w = governance.with_umlauts(w) then 'y.search_text operator(%1$I.%%>) %2$L'
      else '(y.search_text operator(%1$I.%%>) %2$L or y.search_text operator(%1$I.%%>) %3$L)' end,
      v_schema, w, governance.with_umlauts(w)), ' and ') from unnest(v_words) w),
    p_limit) into v_found;
  return coalesce(v_found, '{}');
end
$$;
comment on function governance.close_accounts(text, int) is
  'Accounts whose user id, name or e-mail has words like these, the closest first: typing errors, other spellings. '
  'Empty without pg_trgm.';

create function governance.account_rows(p_account_ids bigint[]) returns jsonb
  language sql stable set search_path = '' as $$
  -- As governance.account_json, written out here: a page needs it for twenty rows.
  select coalesce(jsonb_agg(jsonb_build_object(
      'user_id', a.user_id, 'display_name', a.display_name, 'email', a.email, 'plan_id', a.plan_id, 'timezone',
        a.timezone,
      'created_at', a.created_at, 'version', a.version,
      'is_flagged', a.flagged_at is not null, 'flag_reason', a.flag_reason, 'flagged_at', a.flagged_at, 'flagged_by',
        a.flagged_by,
      'last_activity', a.last_activity_at,
      'currency', t.currency,
      'usage_percent', governance.percent_used(f.tokens_today, f.tokens_this_month, c.daily_limit, c.monthly_limit,
        greatest(p.monthly_allowance, a.month_allowance)),
      'usage_of', governance.usage_of(f.tokens_today, f.tokens_this_month, c.daily_limit, c.monthly_limit,
        greatest(p.monthly_allowance, a.month_allowance))
    ) || to_jsonb(f) - 'account_id' || governance.block_json(a, t.at) order by x.n), '[]')
  from unnest(p_account_ids) with ordinality x(account_id, n)
  join governance.accounts a using (account_id)
  join governance.account_figures f using (account_id)
  join governance.plans p using (plan_id)
  cross join (select governance.now() as at, k.currency from governance.active_config k offset 0) t
  cross join lateral (select
      governance.raised_limit(p.daily_limit, a.raised_daily_limit, a.raised_daily_until, t.at) as daily_limit,
      governance.raised_limit(p.monthly_limit, a.raised_monthly_limit, a.raised_monthly_until, t.at) as monthly_limit) c
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
    perform governance.fail('PT400', 'invalid_argument', 'p_cursor must come from an earlier answer of this search');
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
  -- cheap. All conditions together are tried last: each alone may leave many accounts, and together they leave nobody.
  foreach v_one in array case when cardinality(p_conditions) > 1 then p_conditions || condition
    else array[condition] end loop
    continue when governance.estimate_rows('select from governance.account_listings l where ' || v_one) > 4 * c_few;
    execute format('select array_agg(x.account_id) from (select l.account_id from governance.account_listings l where '
      '%s limit %s) x', v_one, c_few + 1) into v_found;
    continue when cardinality(v_found) > c_few;
    source := format('(select * from governance.account_listings where account_id = any (%L::bigint[])) l',
      coalesce(v_found, '{}'));
    is_exact := true;
    if v_one = condition then
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
  'The source that a search reads: the accounts that match, where they are few, else the table with the condition; and '
  'how many match.';

create function public.console_search_accounts(
  p_query text default '', p_filter text default 'all', p_plan_id text default null, p_sort text default 'name',
  p_descending boolean default false, p_cursor text default null, p_limit int default 20,
  p_active_since timestamptz default null
) returns jsonb
  language plpgsql security definer set search_path = '' set jit = off as $$
declare
  v_query text := governance.search_words(p_query);
  v_sort record := governance.sort_column(p_sort);
  v_direction text := case when coalesce(p_descending, false) then 'desc' else 'asc' end;
  v_conditions text[] := '{}';
  v_condition text;
  v_is_close boolean := false;
  v_owners bigint[] := '{}';
  v_ids_typed text[] := governance.id_words(p_query);
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
      -- No user matches: the users named in it, or those whose payment, call or customer has such an id; else users
      -- with a similar name.
      v_last_tier := 0;
      v_owners := array(select governance.find_named(v_ids_typed)
        union select o from unnest(v_ids_typed) w
          cross join lateral governance.find_owners(w, btrim(p_query) !~ '\s') o limit 100);
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
  'characters at their beginning; in order of name, names that begin with it come first. Where nobody has it so, '
  'those are searched whose id or e-mail is in it, or whose payment, call or customer has an id with it (is_by_id), '
  'else the 100 closest (is_close). Filters: all, flagged, blocked, near_limit (80 % or more used), low_balance '
  '(the setting), in_debt, disputed (not decided yet), active_today; p_active_since beside any. next_cursor is null '
  'on the last page. Errors: invalid_argument.';
revoke all on function public.console_search_accounts(text, text, text, text, boolean, text, int, timestamptz)
  from public, anon, authenticated;
grant execute on function public.console_search_accounts(text, text, text, text, boolean, text, int, timestamptz)
  to service_role;
