-- Reading Stripe's JSON.

create function governance.stripe_id(p_value jsonb) returns text
  language plpgsql immutable set search_path = '' as $$
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
comment on function governance.stripe_id(jsonb) is 'An id, also out of an expanded object; null for anything else.';

create function governance.stripe_whole(p_value jsonb) returns bigint
  language plpgsql immutable set search_path = '' as $$
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
comment on function governance.stripe_whole(jsonb) is 'A whole number below 2^53 in size; null for anything else.';

create function governance.stripe_time(p_value jsonb) returns timestamptz
  language plpgsql immutable set search_path = '' as $$
begin
  -- Between two numbers there are only numbers, whatever else a JSON value may be.
  return case when p_value between '0' and '253402300799' then to_timestamp(p_value::double precision) end;
end
$$;
comment on function governance.stripe_time(jsonb) is 'Seconds since 1970 as a moment; null for anything else.';

create function governance.stripe_object(p_value jsonb) returns jsonb
  language sql immutable set search_path = '' as $$
  select case when jsonb_typeof(p_value) = 'object' then p_value else '{}' end
$$;
comment on function governance.stripe_object(jsonb) is 'The object, or an empty one.';

create function governance.stripe_list(p_value jsonb) returns jsonb
  language sql immutable set search_path = '' as $$
  select case when jsonb_typeof(p_value -> 'data') = 'array' then p_value -> 'data'
    when jsonb_typeof(p_value) = 'array' then p_value else '[]' end
$$;
comment on function governance.stripe_list(jsonb) is 'The items of a Stripe list, or none.';

create function governance.stripe_currency(p_value jsonb) returns text
  language sql immutable set search_path = '' as $$
  select case when jsonb_typeof(p_value) = 'string' and p_value #>> '{}' ~ '^[A-Za-z]{3}$' then lower(p_value #>> '{}')
    end
$$;
comment on function governance.stripe_currency(jsonb) is 'A currency code in lower case; null for anything else.';

create function governance.metadata_text(p_metadata jsonb, variadic p_keys text[]) returns text
  language plpgsql immutable set search_path = '' as $$
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
comment on function governance.metadata_text(jsonb, text[]) is 'The first of these metadata keys that is filled.';

create function governance.is_token_order(p_metadata jsonb) returns boolean
  language sql immutable set search_path = '' as $$
  -- Filled at all is enough: what is too long to be a pack is for a person, not to be passed over.
  select btrim(concat(p_metadata ->> 'pack_id', p_metadata ->> 'packId', p_metadata ->> 'packid',
    p_metadata ->> 'tokens')) <> ''
    or coalesce(p_metadata ->> 'type', '') in ('token_pack_purchase', 'token_purchase')
$$;
comment on function governance.is_token_order(jsonb) is 'Whether an order is for tokens at all: a project sells other '
  'things too.';

create function governance.lock_stripe_ids(p_one text, p_two text default null, p_three text default null,
  p_four text default null) returns void
  language plpgsql set search_path = '' as $$
declare
  v_first bigint := hashtextextended(coalesce(p_one, p_two, p_three, p_four), 7255);
  v_last bigint := hashtextextended(coalesce(p_four, p_three, p_two, p_one), 7255);
begin
  -- In one order for everybody, and before any account's lock.
  if num_nonnulls(p_one, p_two, p_three, p_four) < 3 then
    perform pg_advisory_xact_lock(least(v_first, v_last)), pg_advisory_xact_lock(greatest(v_first, v_last));
  else
    perform pg_advisory_xact_lock(k.key)
    from (select distinct hashtextextended(i.id, 7255) as key from unnest(array[p_one, p_two, p_three, p_four]) i(id)
      where i.id is not null order by 1) k;
  end if;
end
$$;
comment on function governance.lock_stripe_ids(text, text, text,
  text) is 'Lets one transaction at a time work on what these ids of Stripe''s name.';
