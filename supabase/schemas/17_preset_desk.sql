-- The configuration in force, as a preset.

create function public.console_preset() returns jsonb
  language sql stable security definer set search_path = '' as $$
  select governance.refuse_others('console_preset');
  with r as materialized (select * from governance.config_records())
  select jsonb_build_object('name', c.preset_name, 'currency', c.currency, 'default_plan', c.default_plan,
    'settings', (select coalesce(jsonb_object_agg(s.key, s.value), '{}') from governance.settings s),
    'plans', (select coalesce(jsonb_agg(r.record order by (r.record ->> 'monthly_allowance')::bigint,
      r.key collate "C"), '[]') from r where r.kind = 'plan'),
    'packs', (select coalesce(jsonb_agg(r.record order by (r.record ->> 'tokens')::bigint, r.key collate "C"), '[]')
      from r where r.kind = 'pack'),
    'rules', (select coalesce(jsonb_agg(v.rule order by r.priority, r.rule_name collate "C"), '[]')
      from governance.rules r join governance.rule_versions v using (version_id) where r.retired_at is null),
    'prices', (select coalesce(jsonb_agg(r.record order by r.key collate "C"), '[]') from r where r.kind = 'price'),
    'estimates', (select coalesce(jsonb_agg(r.record order by r.key collate "C"), '[]')
      from r where r.kind = 'estimate'),
    'alerts', (select coalesce(jsonb_agg(r.record order by r.key collate "C"), '[]') from r where r.kind = 'alert'))
  from governance.active_config c
$$;
comment on function public.console_preset() is 'The configuration in force as a preset. Applying it changes nothing.';
revoke all on function public.console_preset() from public, anon, authenticated;
grant execute on function public.console_preset() to service_role;
