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

create function governance.check_other_models(e governance.settle_arguments) returns void
  language plpgsql immutable set search_path = '' as $$
declare
  v_part jsonb;
  v_input numeric := 0;
  v_output numeric := 0;
begin
  if jsonb_typeof(e.metadata -> 'by_other_models') <> 'array'
    or jsonb_array_length(e.metadata -> 'by_other_models') > 20 then
    perform governance.fail('PT400', 'invalid_argument', 'p_metadata.by_other_models is a list of at most 20 models');
  end if;
  for v_part in select * from jsonb_array_elements(e.metadata -> 'by_other_models') loop
    if jsonb_typeof(v_part -> 'model') is distinct from 'string' or jsonb_typeof(v_part) <> 'object' then
      perform governance.fail('PT400', 'invalid_argument',
        'Each part of p_metadata.by_other_models must name its model');
    end if;
    perform governance.check_id('p_metadata.by_other_models.model', v_part ->> 'model', 200);
    perform governance.check_token_parts(governance.token_part(v_part, 'input_tokens'),
      governance.token_part(v_part, 'output_tokens'), v_part);
    v_input := v_input + governance.token_part(v_part, 'input_tokens');
    v_output := v_output + governance.token_part(v_part, 'output_tokens');
  end loop;
  if v_input > e.input_tokens or v_output > e.output_tokens then
    perform governance.fail('PT400', 'invalid_argument',
      'The tokens in p_metadata.by_other_models are part of p_input_tokens and p_output_tokens: they cannot be more');
  end if;
end
$$;
comment on function governance.check_other_models(governance.settle_arguments) is 'Refuses tokens of other models that '
  'are not part of the call''s own.';

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
  'The cost of tokens by a price, in millionths of a micro-unit, before rounding.';

create function governance.price_in_tier(p governance.prices, p_input_tokens bigint, p_tier text)
  returns governance.prices
  language plpgsql immutable set search_path = '' as $$
declare
  v_input numeric := p.input_micros_per_million;
  v_output numeric := p.output_micros_per_million;
  v_tier_input bigint;
  v_tier_output bigint;
begin
  if p_input_tokens > p.long_context_above_tokens then
    v_input := coalesce(p.long_context_input_micros_per_million, v_input);
    v_output := coalesce(p.long_context_output_micros_per_million, v_output);
  end if;
  if p_tier in ('batch', 'flex') then
    v_tier_input := p.batch_input_micros_per_million;
    v_tier_output := p.batch_output_micros_per_million;
  elsif p_tier in ('priority', 'fast') then
    v_tier_input := p.priority_input_micros_per_million;
    v_tier_output := p.priority_output_micros_per_million;
  end if;
  -- Both at once: the tier keeps its share of the longer context's price.
  if v_tier_input is not null and p.input_micros_per_million > 0 then
    v_input := div(v_input * v_tier_input, p.input_micros_per_million);
  else
    v_input := coalesce(v_tier_input, v_input);
  end if;
  if v_tier_output is not null and p.output_micros_per_million > 0 then
    v_output := div(v_output * v_tier_output, p.output_micros_per_million);
  else
    v_output := coalesce(v_tier_output, v_output);
  end if;
  if p.input_micros_per_million > 0 then
    p.cached_input_micros_per_million := div(p.cached_input_micros_per_million * v_input,
      p.input_micros_per_million)::bigint;
    p.cache_write_micros_per_million := div(p.cache_write_micros_per_million * v_input,
      p.input_micros_per_million)::bigint;
    p.cache_write_1h_micros_per_million := div(p.cache_write_1h_micros_per_million * v_input,
      p.input_micros_per_million)::bigint;
  end if;
  if p.output_micros_per_million > 0 then
    p.reasoning_micros_per_million := div(p.reasoning_micros_per_million * v_output,
      p.output_micros_per_million)::bigint;
  end if;
  p.input_micros_per_million := v_input::bigint;
  p.output_micros_per_million := v_output::bigint;
  return p;
exception when numeric_value_out_of_range then
  perform governance.fail('PT400', 'invalid_argument',
    'The price of this service tier would reach 2^63 micro-units or more');
  return null;
end
$$;
comment on function governance.price_in_tier(governance.prices, bigint, text) is
  'A price as a tier of its provider charges it (batch, flex, priority or fast; any other: as it stands), for a call '
  'that reads so many tokens.';

create function governance.cost_micros(p_price governance.prices, p_made_at timestamptz, p_input_tokens bigint,
  p_output_tokens bigint, p_metadata jsonb) returns bigint
  language plpgsql stable set search_path = '' as $$
declare
  v_tier text := p_metadata ->> 'service_tier';
  v_cost numeric;
  v_part jsonb;
  v_price governance.prices;
  v_input bigint;
  v_output bigint;
begin
  if v_tier is not null or p_input_tokens > p_price.long_context_above_tokens then
    p_price := governance.price_in_tier(p_price, p_input_tokens, v_tier);
  end if;
  v_cost := governance.cost_at(p_price, p_input_tokens, p_output_tokens, p_metadata);
  -- Tokens of another model are charged at the price of that model.
  if p_metadata ? 'by_other_models' then
    for v_part in select * from jsonb_array_elements(p_metadata -> 'by_other_models') loop
      v_price := governance.price_at(v_part ->> 'model', p_made_at);
      if v_price.price_id is null then return null; end if;
      v_input := governance.token_part(v_part, 'input_tokens');
      v_output := governance.token_part(v_part, 'output_tokens');
      v_price := governance.price_in_tier(v_price, v_input, v_tier);
      v_cost := v_cost - governance.cost_at(p_price, v_input, v_output, v_part)
        + governance.cost_at(v_price, v_input, v_output, v_part);
    end loop;
  end if;
  v_cost := div(v_cost + 500000, 1000000);
  if v_cost > 9007199254740991 then
    perform governance.fail('PT400', 'invalid_argument',
      'The cost of these tokens would reach 2^53 micro-units or more');
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
