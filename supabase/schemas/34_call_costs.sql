-- What a call costs: the parts of its tokens, and the price of each on its day.

create function governance.token_part(p_metadata jsonb, p_key text) returns bigint
  language plpgsql immutable set search_path = '' as $$
declare
  v_number numeric;
begin
  if p_metadata -> p_key is null or p_metadata -> p_key = 'null' then return 0; end if;
  if jsonb_typeof(p_metadata -> p_key) <> 'number' then
    perform governance.fail('PT400', 'invalid_argument', format('p_metadata.%s is a whole number of tokens', p_key));
  end if;
  v_number := (p_metadata ->> p_key)::numeric;
  if v_number <> trunc(v_number) or v_number not between 0 and 9007199254740991 then
    perform governance.fail('PT400', 'invalid_argument', format('p_metadata.%s is a whole number of tokens', p_key));
  end if;
  return v_number::bigint;
end
$$;
comment on function governance.token_part(jsonb,
  text) is 'A count of tokens in the metadata of a settlement; 0 where absent.';

create function governance.check_token_parts(p_input_tokens bigint, p_output_tokens bigint, p_parts jsonb) returns void
  language plpgsql immutable set search_path = '' as $$
begin
  if governance.token_part(p_parts, 'cached_input_tokens')
      + governance.token_part(p_parts, 'cache_write_tokens') > p_input_tokens
    or governance.token_part(p_parts, 'cache_write_1h_tokens') > governance.token_part(p_parts, 'cache_write_tokens')
    or governance.token_part(p_parts, 'reasoning_tokens') > p_output_tokens then
    perform governance.fail('PT400', 'invalid_argument',
      'cached_input_tokens and cache_write_tokens are part of p_input_tokens, cache_write_1h_tokens of '
      'cache_write_tokens, reasoning_tokens of p_output_tokens');
  end if;
end
$$;
comment on function governance.check_token_parts(bigint, bigint, jsonb) is 'Refuses parts of tokens that are more than '
  'the whole.';

create function governance.price_at(p_model text, p_at timestamptz) returns governance.prices
  language sql stable set search_path = '' as $$
  select p from governance.prices p
  where p.model = p_model and p.effective_from <= p_at and (p.retired_at is null or p.retired_at > p_at)
  order by p.effective_from desc, p.created_at, p.provider collate "C" limit 1
$$;
comment on function governance.price_at(text, timestamptz) is 'A model''s price at a moment; null if none is known.';

create function governance.cost_at(p governance.prices, p_input_tokens bigint, p_output_tokens bigint, p_parts jsonb)
  returns numeric
  language sql immutable set search_path = '' as $$
  select (p_input_tokens - n.cached - n.written)::numeric * p.input_micros_per_million
    + n.cached::numeric * coalesce(p.cached_input_micros_per_million, p.input_micros_per_million)
    + (n.written - n.hourly)::numeric * coalesce(p.cache_write_micros_per_million, p.input_micros_per_million)
    + n.hourly::numeric * coalesce(p.cache_write_1h_micros_per_million, 2 * p.input_micros_per_million)
    + (p_output_tokens - n.reasoning)::numeric * p.output_micros_per_million
    + n.reasoning::numeric * coalesce(p.reasoning_micros_per_million, p.output_micros_per_million)
  from (select governance.token_part(p_parts, 'cached_input_tokens') as cached,
    governance.token_part(p_parts, 'cache_write_tokens') as written,
    governance.token_part(p_parts, 'cache_write_1h_tokens') as hourly,
    governance.token_part(p_parts, 'reasoning_tokens') as reasoning) n
$$;
comment on function governance.cost_at(governance.prices, bigint, bigint, jsonb) is
  'What tokens cost by a price, in millionths of a micro-unit, before rounding.';

create function governance.cost_micros(p_price governance.prices, p_made_at timestamptz, p_input_tokens bigint,
  p_output_tokens bigint, p_metadata jsonb) returns bigint
  language plpgsql stable set search_path = '' as $$
declare
  v_cost numeric := governance.cost_at(p_price, p_input_tokens, p_output_tokens, p_metadata);
  v_part jsonb;
  v_price governance.prices;
  v_input bigint;
  v_output bigint;
begin
  -- What another model worked for costs what that model costs.
  if p_metadata ? 'by_other_models' then
    for v_part in select * from jsonb_array_elements(p_metadata -> 'by_other_models') loop
      v_price := governance.price_at(v_part ->> 'model', p_made_at);
      if v_price.price_id is null then return null; end if;
      v_input := governance.token_part(v_part, 'input_tokens');
      v_output := governance.token_part(v_part, 'output_tokens');
      v_cost := v_cost - governance.cost_at(p_price, v_input, v_output, v_part)
        + governance.cost_at(v_price, v_input, v_output, v_part);
    end loop;
  end if;
  v_cost := div(v_cost + 500000, 1000000);
  if v_cost > 9007199254740991 then
    perform governance.fail('PT400', 'invalid_argument', 'The cost of so many tokens is not below 2^53 micro-units');
  end if;
  return greatest(v_cost, 0);
end
$$;
comment on function governance.cost_micros(governance.prices, timestamptz, bigint, bigint, jsonb) is
  'The cost of a call by its price, as docs/RULES.md says; null where another model that it used has no price.';

create function governance.unpriced_part(p_metadata jsonb, p_made_at timestamptz) returns text
  language sql stable set search_path = '' as $$
  select x.part ->> 'model' from jsonb_array_elements(p_metadata -> 'by_other_models') x(part)
  where (governance.price_at(x.part ->> 'model', p_made_at)).price_id is null limit 1
$$;
comment on function governance.unpriced_part(jsonb, timestamptz) is
  'The first of the other models of a call that has no price.';
