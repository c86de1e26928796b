-- The configuration in force, as the preset that it is.

create function public.console_preset() returns jsonb
  language sql stable security definer set search_path = '' as $$
  select governance.refuse_others('console_preset');
  select jsonb_build_object('name', c.preset_name, 'currency', c.currency, 'default_plan', c.default_plan,
    'settings', (select coalesce(jsonb_object_agg(s.key, s.value), '{}') from governance.settings s),
    'plans', (select coalesce(jsonb_agg(jsonb_build_object('plan_id', p.plan_id, 'name', p.name,
      'monthly_allowance', p.monthly_allowance, 'daily_limit', p.daily_limit, 'monthly_limit', p.monthly_limit,
      'allows_top_up', p.allows_top_up, 'warn_at', to_jsonb(p.warn_at), 'fail_mode', p.fail_mode,
      'on_cancel', p.on_cancel, 'rollover_months', p.rollover_months, 'upgrade_to', p.upgrade_to)
      order by p.monthly_allowance, p.plan_id collate "C"), '[]') from governance.plans p where p.retired_at is null),
    'packs', (select coalesce(jsonb_agg(jsonb_build_object('pack_id', k.pack_id, 'tokens', k.tokens,
      'price_minor', k.price_minor, 'currency', k.currency, 'plans', coalesce(to_jsonb(k.plans), '[]'))
      order by k.tokens, k.pack_id collate "C"), '[]') from governance.packs k where k.retired_at is null),
    'rules', (select coalesce(jsonb_agg(v.rule order by r.priority, r.rule_name collate "C"), '[]')
      from governance.rules r join governance.rule_versions v using (version_id) where r.retired_at is null),
    'prices', (select coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object('provider', x.provider, 'model', x.model,
      'input_micros_per_million', x.input_micros_per_million,
      'output_micros_per_million', x.output_micros_per_million,
      'cached_input_micros_per_million', x.cached_input_micros_per_million,
      'cache_write_micros_per_million', x.cache_write_micros_per_million,
      'cache_write_1h_micros_per_million', x.cache_write_1h_micros_per_million,
      'reasoning_micros_per_million', x.reasoning_micros_per_million, 'currency', x.currency,
      'effective_from', x.effective_from))
      order by x.provider collate "C", x.model collate "C", x.effective_from), '[]')
      from governance.prices x where x.retired_at is null),
    'estimates', (select coalesce(jsonb_agg(jsonb_build_object('task_type', e.task_type, 'tokens', e.tokens)
      order by e.task_type collate "C"), '[]') from governance.estimates e),
    'alerts', (select coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object('alert_name', a.alert_name,
      'metric', a.metric, 'scope', a.scope, 'period', a.period, 'budget', a.budget,
      'thresholds', to_jsonb(a.thresholds), 'channels', to_jsonb(a.channels))) order by a.alert_name collate "C"), '[]')
      from governance.cost_alerts a where a.retired_at is null))
  from governance.active_config c
$$;
comment on function public.console_preset() is 'The configuration in force as a preset: applied, it changes nothing.';
revoke all on function public.console_preset() from public, anon, authenticated;
grant execute on function public.console_preset() to service_role;
