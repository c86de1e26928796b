-- Prices on the screen: what is set, which models have none, and single prices taken over.

create function public.console_prices() returns jsonb
  language sql stable security definer set search_path = '' as $$
  select governance.refuse_others('console_prices');
  select jsonb_build_object(
    'currency', (select c.currency from governance.active_config c),
    'prices', (select coalesce(jsonb_agg(jsonb_build_object('provider', p.provider, 'model', p.model,
      'input_micros_per_million', p.input_micros_per_million, 'output_micros_per_million', p.output_micros_per_million,
      'cached_input_micros_per_million', p.cached_input_micros_per_million,
      'cache_write_micros_per_million', p.cache_write_micros_per_million,
      'cache_write_1h_micros_per_million', p.cache_write_1h_micros_per_million,
      'reasoning_micros_per_million', p.reasoning_micros_per_million, 'currency', p.currency,
      'effective_from', p.effective_from) order by p.provider collate "C", p.model collate "C", p.effective_from), '[]')
      from governance.prices p where p.retired_at is null),
    -- Models that calls used while they had no price, and have none now.
    'unpriced', (select coalesce(jsonb_agg(jsonb_build_object('model', u.model, 'first_seen_at', u.first_seen_at,
      'calls', coalesce((select sum(t.calls) from governance.usage_totals t
        where t.model = u.model and t.day >= (u.first_seen_at at time zone 'UTC')::date - 1), 0))
      order by u.model collate "C"), '[]')
      from (select e.subject as model, min(e.created_at) as first_seen_at from governance.alert_events e
        where e.kind = 'unknown_price' and e.created_at > governance.now() - interval '62 days'
        group by e.subject) u
      where governance.provider_of(u.model, governance.now()) is null))
$$;
comment on function public.console_prices() is
  'Prices that are not retired, past and to come too, and models that calls used without one (calls: of closed days).';
revoke all on function public.console_prices() from public, anon, authenticated;
grant execute on function public.console_prices() to service_role;

create function public.console_save_prices(p_command_id text, p_prices jsonb, p_reason text,
  p_operator text default null) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_answer jsonb;
  v_now timestamptz;
  v_currency text;
  v_changed jsonb := '[]';
  v_item jsonb;
  v_place bigint;
begin
  perform governance.refuse_others('console_save_prices');
  perform governance.check_id('p_command_id', p_command_id);
  perform governance.check_id('p_reason', p_reason, 1000);
  perform governance.check_optional('p_operator', p_operator, 255);
  if jsonb_typeof(p_prices) is distinct from 'array' or jsonb_array_length(p_prices) not between 1 and 500 then
    perform governance.fail('PT400', 'invalid_argument', 'p_prices is a list of 1 to 500 prices');
  end if;
  perform pg_advisory_xact_lock(7254012);
  v_answer := governance.begin_command('operator', p_command_id,
    row('console_save_prices', p_prices, p_reason, p_operator)::text);
  if v_answer is not null then return v_answer; end if;
  perform governance.refuse_lone_change('{price}');
  v_now := governance.now();
  select c.currency into v_currency from governance.active_config c;
  for v_item, v_place in select * from jsonb_array_elements(p_prices) with ordinality loop
    if jsonb_typeof(v_item) <> 'object' then
      perform governance.invalid_preset(format('prices[%s]', v_place - 1), 'an object is needed');
    end if;
    if governance.store_price(v_item, format('prices[%s]', v_place - 1), v_currency, v_now) then
      v_changed := v_changed || jsonb_build_array(v_item ->> 'model');
    end if;
  end loop;
  if v_changed <> '[]' then
    perform governance.keep_config_versions(p_operator, p_reason, v_now);
    insert into governance.audit_log (created_at, operator, action, reason, command_id, details)
    values (v_now, p_operator, 'save_prices', p_reason, p_command_id, jsonb_build_object('prices', p_prices));
    perform governance.ring('rules', v_now);
  end if;
  return governance.end_command('operator', p_command_id, jsonb_build_object('changed', v_changed));
end
$$;
comment on function public.console_save_prices(text, jsonb, text, text) is
  'Sets prices by provider, model and effective_from; others stay. Calls that were settled keep their cost. Errors: '
  'invalid_argument, invalid_preset (path in details), idempotency_conflict.';
revoke all on function public.console_save_prices(text, jsonb, text, text) from public, anon, authenticated;
grant execute on function public.console_save_prices(text, jsonb, text, text) to service_role;
