-- Prices on the screen: what is set, and which models have none. They change as the rest of the configuration does.

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
      'reasoning_micros_per_million', p.reasoning_micros_per_million,
      'batch_input_micros_per_million', p.batch_input_micros_per_million,
      'batch_output_micros_per_million', p.batch_output_micros_per_million,
      'priority_input_micros_per_million', p.priority_input_micros_per_million,
      'priority_output_micros_per_million', p.priority_output_micros_per_million,
      'long_context_above_tokens', p.long_context_above_tokens,
      'long_context_input_micros_per_million', p.long_context_input_micros_per_million,
      'long_context_output_micros_per_million', p.long_context_output_micros_per_million, 'currency', p.currency,
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
  'Prices that are not retired, past and to come too, and models that calls used without one (calls: in all).';
revoke all on function public.console_prices() from public, anon, authenticated;
grant execute on function public.console_prices() to service_role;
