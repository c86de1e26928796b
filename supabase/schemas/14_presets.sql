-- The preset: made the configuration in force, part by part.

create function governance.store_plans(p_plans jsonb, p_now timestamptz) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_item jsonb;
  v_path text;
  v_at int := 0;
  v_count int := 0;
  v_list jsonb;
  v_plan governance.plans;
  v_old_plan governance.plans;
  v_changed jsonb := '{}';
begin
  for v_item in select * from jsonb_array_elements(p_plans) loop
    v_path := format('plans[%s]', v_at); v_at := v_at + 1;
    v_plan := null;
    v_plan.plan_id := v_item ->> 'plan_id';
    v_plan.name := governance.preset_text(v_item, 'name', v_path, v_plan.plan_id);
    v_plan.monthly_allowance := governance.preset_whole(v_item, 'monthly_allowance', v_path, 0, 9007199254740991, 0);
    v_plan.daily_limit := governance.preset_whole(v_item, 'daily_limit', v_path, 0, 9007199254740991);
    v_plan.monthly_limit := governance.preset_whole(v_item, 'monthly_limit', v_path, 0, 9007199254740991);
    v_plan.rollover_months := governance.preset_whole(v_item, 'rollover_months', v_path, 0, 12, 0);
    v_plan.allows_top_up := coalesce(v_item -> 'allows_top_up', 'null') in ('true', 'null');
    if coalesce(jsonb_typeof(v_item -> 'allows_top_up'), 'null') not in ('boolean', 'null')
      then perform governance.invalid_preset(v_path || '.allows_top_up', 'true or false is needed'); end if;
    v_plan.fail_mode := governance.preset_text(v_item, 'fail_mode', v_path, 'closed');
    if v_plan.fail_mode not in ('closed', 'open')
      then perform governance.invalid_preset(v_path || '.fail_mode', 'closed or open is needed'); end if;
    v_plan.on_cancel := governance.preset_text(v_item, 'on_cancel', v_path, 'expire');
    if v_plan.on_cancel not in ('keep', 'convert', 'expire')
      then perform governance.invalid_preset(v_path || '.on_cancel', 'keep, convert or expire is needed'); end if;
    if coalesce(v_item -> 'upgrade_to', 'null') <> 'null' then
      v_plan.upgrade_to := governance.preset_text(v_item, 'upgrade_to', v_path);
      if not exists (select from jsonb_array_elements(p_plans) x where x ->> 'plan_id' = v_plan.upgrade_to) then
        perform governance.invalid_preset(v_path || '.upgrade_to',
          format('there is no plan "%s"', left(v_plan.upgrade_to, 64)));
      end if;
    end if;
    v_list := coalesce(nullif(v_item -> 'warn_at', 'null'), '[80, 90, 95]');
    if jsonb_typeof(v_list) <> 'array' or jsonb_array_length(v_list) > 20
      or exists (select from jsonb_array_elements(v_list) w
        where jsonb_typeof(w) <> 'number' or (w #>> '{}')::numeric <> trunc((w #>> '{}')::numeric)
        or (w #>> '{}')::numeric not between 1 and 100) then
      perform governance.invalid_preset(v_path || '.warn_at', 'a list of whole percents from 1 to 100 is needed');
    end if;
    v_plan.warn_at := coalesce((select array_agg(distinct (w #>> '{}')::numeric::int
      order by (w #>> '{}')::numeric::int) from jsonb_array_elements(v_list) w), '{}');
    select * into v_old_plan from governance.plans p where p.plan_id = v_plan.plan_id;
    if v_old_plan.plan_id is null or v_old_plan.retired_at is not null
      or row(v_old_plan.name, v_old_plan.monthly_allowance, v_old_plan.daily_limit, v_old_plan.monthly_limit,
        v_old_plan.rollover_months, v_old_plan.allows_top_up, v_old_plan.fail_mode, v_old_plan.on_cancel,
        v_old_plan.upgrade_to, v_old_plan.warn_at)
        is distinct from row(v_plan.name, v_plan.monthly_allowance, v_plan.daily_limit, v_plan.monthly_limit,
          v_plan.rollover_months, v_plan.allows_top_up, v_plan.fail_mode, v_plan.on_cancel, v_plan.upgrade_to,
          v_plan.warn_at) then
      insert into governance.plans (plan_id, name, monthly_allowance, daily_limit, monthly_limit, rollover_months,
        allows_top_up, fail_mode, on_cancel, upgrade_to, warn_at)
      values (v_plan.plan_id, v_plan.name, v_plan.monthly_allowance, v_plan.daily_limit, v_plan.monthly_limit,
        v_plan.rollover_months, v_plan.allows_top_up, v_plan.fail_mode, v_plan.on_cancel, v_plan.upgrade_to,
        v_plan.warn_at)
      on conflict (plan_id) do update set name = excluded.name, monthly_allowance = excluded.monthly_allowance,
        daily_limit = excluded.daily_limit,
        monthly_limit = excluded.monthly_limit, rollover_months = excluded.rollover_months,
          allows_top_up = excluded.allows_top_up, fail_mode = excluded.fail_mode,
        on_cancel = excluded.on_cancel, upgrade_to = excluded.upgrade_to, warn_at = excluded.warn_at,
          updated_at = p_now, retired_at = null;
      v_count := v_count + 1;
    end if;
  end loop;
  v_changed := v_changed || jsonb_build_object('plans', v_count);
  update governance.plans p set retired_at = p_now
  where p.retired_at is null
    and not exists (select from jsonb_array_elements(p_plans) x where x ->> 'plan_id' = p.plan_id);
  get diagnostics v_count = row_count;
  v_changed := v_changed || jsonb_build_object('plans_retired', v_count);
  return v_changed;
end
$$;
comment on function governance.store_plans(jsonb, timestamptz) is
  'The plans of a preset; returns how many changed and were retired.';

create function governance.store_packs(p_packs jsonb, p_plans jsonb, p_currency text, p_now timestamptz) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_item jsonb;
  v_path text;
  v_at int := 0;
  v_count int := 0;
  v_list jsonb;
  v_pack governance.packs;
  v_old_pack governance.packs;
  v_changed jsonb := '{}';
begin
  for v_item in select * from jsonb_array_elements(p_packs) loop
    v_path := format('packs[%s]', v_at); v_at := v_at + 1;
    v_pack := null;
    v_pack.pack_id := v_item ->> 'pack_id';
    v_pack.tokens := governance.preset_whole(v_item, 'tokens', v_path, 1, 100000000, null, true);
    v_pack.price_minor := governance.preset_whole(v_item, 'price_minor', v_path, 0, 9007199254740991, null, true);
    v_pack.currency := lower(governance.preset_text(v_item, 'currency', v_path, p_currency, 3));
    if v_pack.currency !~ '^[a-z]{3}$'
      then perform governance.invalid_preset(v_path || '.currency', 'three letters are needed'); end if;
    v_list := coalesce(nullif(v_item -> 'plans', 'null'), '[]');
    if jsonb_typeof(v_list) <> 'array' or exists (select from jsonb_array_elements(v_list) x
      where jsonb_typeof(x) <> 'string'
        or not exists (select from jsonb_array_elements(p_plans) p where p ->> 'plan_id' = x #>> '{}')) then
      perform governance.invalid_preset(v_path || '.plans', 'a list of plans of this preset is needed');
    end if;
    v_pack.plans := (select array_agg(x order by x collate "C") from jsonb_array_elements_text(v_list) x);
    select * into v_old_pack from governance.packs p where p.pack_id = v_pack.pack_id and p.retired_at is null;
    if v_old_pack.pack_id is null
      or row(v_old_pack.tokens, v_old_pack.price_minor, v_old_pack.currency, v_old_pack.plans)
      is distinct from row(v_pack.tokens, v_pack.price_minor, v_pack.currency, v_pack.plans) then
      update governance.packs p set retired_at = p_now where p.pack_row_id = v_old_pack.pack_row_id;
      -- The first price of a pack holds for the past too: its payments may have been made before this preset.
      insert into governance.packs (pack_id, tokens, price_minor, currency, plans, effective_from)
      values (v_pack.pack_id, v_pack.tokens, v_pack.price_minor, v_pack.currency, v_pack.plans,
        case when exists (select from governance.packs p where p.pack_id = v_pack.pack_id) then p_now
          else '-infinity' end);
      v_count := v_count + 1;
    end if;
  end loop;
  v_changed := v_changed || jsonb_build_object('packs', v_count);
  update governance.packs p set retired_at = p_now
  where p.retired_at is null
    and not exists (select from jsonb_array_elements(p_packs) x where x ->> 'pack_id' = p.pack_id);
  get diagnostics v_count = row_count;
  v_changed := v_changed || jsonb_build_object('packs_retired', v_count);
  return v_changed;
end
$$;
comment on function governance.store_packs(jsonb, jsonb, text, timestamptz) is
  'The packs of a preset; returns how many changed and were retired.';

create function governance.price_moment(p_item jsonb, p_path text) returns timestamptz
  language plpgsql stable set search_path = '' as $$
declare
  v_text text := governance.preset_text(p_item, 'effective_from', p_path, '1970-01-01');
  v_at timestamptz;
begin
  if v_text !~ '^\d{4}-\d\d-\d\d$' and not governance.has_offset(v_text) then
    perform governance.invalid_preset(p_path || '.effective_from',
      'a date, or a moment with its offset, is needed: 2026-11-22 or 2026-11-22T08:00:00Z');
  end if;
  begin
    v_at := case when v_text ~ '^\d{4}-\d{2}-\d{2}$' then v_text::timestamp at time zone 'UTC'
      else v_text::timestamptz end;
  exception when data_exception then
    perform governance.invalid_preset(p_path || '.effective_from', 'a date or a moment is needed');
  end;
  if v_at is null or v_at < '1900-01-01T00:00:00Z' or v_at >= '3000-01-01T00:00:00Z' then
    perform governance.invalid_preset(p_path || '.effective_from', 'a date from 1900 to 2999 is needed');
  end if;
  return v_at;
end
$$;
comment on function governance.price_moment(jsonb, text) is 'From when a price of a preset holds: a date means its '
  'midnight UTC.';

create function governance.store_price(p_item jsonb, p_path text, p_currency text, p_now timestamptz) returns boolean
  language plpgsql set search_path = '' as $$
declare
  v_price governance.prices;
  v_old_price governance.prices;
begin
  v_price.provider := governance.preset_text(p_item, 'provider', p_path);
  v_price.model := governance.preset_text(p_item, 'model', p_path, null, 200);
  v_price.input_micros_per_million := governance.preset_whole(p_item, 'input_micros_per_million', p_path, 0,
    1000000000000000, null, true);
  v_price.output_micros_per_million := governance.preset_whole(p_item, 'output_micros_per_million', p_path, 0,
    1000000000000000, null, true);
  v_price.cached_input_micros_per_million := governance.preset_whole(p_item, 'cached_input_micros_per_million',
    p_path, 0, 1000000000000000);
  v_price.cache_write_micros_per_million := governance.preset_whole(p_item, 'cache_write_micros_per_million', p_path,
    0, 1000000000000000);
  v_price.cache_write_1h_micros_per_million := governance.preset_whole(p_item, 'cache_write_1h_micros_per_million',
    p_path, 0, 1000000000000000);
  v_price.reasoning_micros_per_million := governance.preset_whole(p_item, 'reasoning_micros_per_million', p_path, 0,
    1000000000000000);
  v_price.batch_input_micros_per_million := governance.preset_whole(p_item, 'batch_input_micros_per_million', p_path,
    0, 1000000000000000);
  v_price.batch_output_micros_per_million := governance.preset_whole(p_item, 'batch_output_micros_per_million', p_path,
    0, 1000000000000000);
  v_price.priority_input_micros_per_million := governance.preset_whole(p_item, 'priority_input_micros_per_million',
    p_path, 0, 1000000000000000);
  v_price.priority_output_micros_per_million := governance.preset_whole(p_item, 'priority_output_micros_per_million',
    p_path, 0, 1000000000000000);
  v_price.long_context_above_tokens := governance.preset_whole(p_item, 'long_context_above_tokens', p_path, 1,
    9007199254740991);
  v_price.long_context_input_micros_per_million := governance.preset_whole(p_item,
    'long_context_input_micros_per_million', p_path, 0, 1000000000000000);
  v_price.long_context_output_micros_per_million := governance.preset_whole(p_item,
    'long_context_output_micros_per_million', p_path, 0, 1000000000000000);
  v_price.currency := lower(governance.preset_text(p_item, 'currency', p_path, p_currency, 3));
  if v_price.currency <> p_currency then
    perform governance.invalid_preset(p_path || '.currency',
      format('prices are in the preset''s currency, %s', p_currency));
  end if;
  v_price.effective_from := governance.price_moment(p_item, p_path);
  select * into v_old_price from governance.prices p
  where p.model = v_price.model and p.provider = v_price.provider and p.effective_from = v_price.effective_from
    and p.retired_at is null;
  -- Compared without its id and the times that this database gave it.
  if v_old_price.price_id is null
    or to_jsonb(v_old_price) - '{price_id,created_at,retired_at}'::text[]
      <> to_jsonb(v_price) - '{price_id,created_at,retired_at}'::text[] then
    update governance.prices p set retired_at = p_now where p.price_id = v_old_price.price_id;
    v_price.price_id := nextval(pg_get_serial_sequence('governance.prices', 'price_id'));
    v_price.created_at := p_now;
    insert into governance.prices overriding system value select v_price.*;
    return true;
  end if;
  return false;
end
$$;
comment on function governance.store_price(jsonb, text, text, timestamptz) is
  'Sets the price of a model of a provider from a moment; false where it is so already.';

create function governance.store_prices(p_prices jsonb, p_currency text, p_now timestamptz) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_item jsonb;
  v_path text;
  v_at int := 0;
  v_count int := 0;
  v_changed jsonb := '{}';
begin
  for v_item in select * from jsonb_array_elements(p_prices) loop
    v_path := format('prices[%s]', v_at); v_at := v_at + 1;
    if exists (select from jsonb_array_elements(p_prices) with ordinality x(price, n)
      where n < v_at and x.price ->> 'model' = v_item ->> 'model'
        and x.price ->> 'provider' = v_item ->> 'provider'
        and governance.price_moment(x.price, v_path) = governance.price_moment(v_item, v_path)) then
      perform governance.invalid_preset(v_path, 'this model of this provider has a price from that moment already');
    end if;
    if governance.store_price(v_item, v_path, p_currency, p_now) then v_count := v_count + 1; end if;
  end loop;
  v_changed := v_changed || jsonb_build_object('prices', v_count);
  update governance.prices p set retired_at = p_now
  where p.retired_at is null and not exists (select from jsonb_array_elements(p_prices) x
    where x ->> 'model' = p.model and x ->> 'provider' = p.provider
      and p.effective_from = governance.price_moment(x, 'prices'));
  get diagnostics v_count = row_count;
  v_changed := v_changed || jsonb_build_object('prices_retired', v_count);
  return v_changed;
end
$$;
comment on function governance.store_prices(jsonb, text, timestamptz) is
  'The prices of a preset; returns how many changed and were retired.';

create function governance.store_estimates(p_estimates jsonb, p_now timestamptz) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_item jsonb;
  v_path text;
  v_at int := 0;
  v_count int := 0;
  v_changed jsonb := '{}';
begin
  for v_item in select * from jsonb_array_elements(p_estimates) loop
    v_path := format('estimates[%s]', v_at); v_at := v_at + 1;
    insert into governance.estimates as e (task_type, tokens)
      values (v_item ->> 'task_type',
      governance.preset_whole(v_item, 'tokens', v_path, 1, 9007199254740991, null, true))
    on conflict (task_type) do update set tokens = excluded.tokens, updated_at = p_now
      where e.tokens <> excluded.tokens;
    if found then v_count := v_count + 1; end if;
  end loop;
  v_changed := v_changed || jsonb_build_object('estimates', v_count);
  delete from governance.estimates e
    where not exists (select from jsonb_array_elements(p_estimates) x where x ->> 'task_type' = e.task_type);
  get diagnostics v_count = row_count;
  v_changed := v_changed || jsonb_build_object('estimates_retired', v_count);
  return v_changed;
end
$$;
comment on function governance.store_estimates(jsonb, timestamptz) is
  'The estimates of a preset; returns how many changed and were retired.';

create function governance.store_alerts(p_alerts jsonb, p_plans jsonb, p_currency text, p_now timestamptz)
  returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_item jsonb;
  v_at int := 0;
  v_count int := 0;
  v_alert governance.cost_alerts;
  v_old_alert governance.cost_alerts;
  v_changed jsonb := '{}';
begin
  for v_item in select * from jsonb_array_elements(p_alerts) loop
    v_alert := governance.check_alert(v_item, format('alerts[%s]', v_at), p_plans, p_currency);
    v_at := v_at + 1;
    select * into v_old_alert from governance.cost_alerts a where a.alert_name = v_alert.alert_name;
    continue when v_old_alert.retired_at is null
      and row(v_old_alert.metric, v_old_alert.scope, v_old_alert.period, v_old_alert.budget, v_old_alert.thresholds,
        v_old_alert.channels)
        is not distinct from row(v_alert.metric, v_alert.scope, v_alert.period, v_alert.budget, v_alert.thresholds,
          v_alert.channels);
    insert into governance.cost_alerts (alert_name, metric, scope, period, budget, thresholds, channels, created_at,
      updated_at)
    values (v_alert.alert_name, v_alert.metric, v_alert.scope, v_alert.period, v_alert.budget, v_alert.thresholds,
      v_alert.channels, p_now, p_now)
    on conflict (alert_name) do update set metric = excluded.metric, scope = excluded.scope, period = excluded.period,
      budget = excluded.budget, thresholds = excluded.thresholds, channels = excluded.channels, is_active = true,
      updated_at = p_now, retired_at = null;
    v_count := v_count + 1;
  end loop;
  v_changed := v_changed || jsonb_build_object('alerts', v_count);
  update governance.cost_alerts a set retired_at = p_now, is_active = false
  where a.retired_at is null
    and not exists (select from jsonb_array_elements(p_alerts) x where x ->> 'alert_name' = a.alert_name);
  get diagnostics v_count = row_count;
  return v_changed || jsonb_build_object('alerts_retired', v_count);
end
$$;
comment on function governance.store_alerts(jsonb, jsonb, text, timestamptz) is
  'The alerts of a preset; returns how many '
  'changed and were retired.';

create function governance.store_settings(p_settings jsonb, p_now timestamptz) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_item jsonb;
  v_count int := 0;
  v_changed jsonb := '{}';
begin
  for v_item in select jsonb_build_object('key', s.key, 'value', s.value) from jsonb_each(p_settings) s loop
    insert into governance.settings as s (key, value) values (v_item ->> 'key', v_item -> 'value')
    on conflict (key) do update set value = excluded.value, updated_at = p_now where s.value <> excluded.value;
    if found then v_count := v_count + 1; end if;
  end loop;
  v_changed := v_changed || jsonb_build_object('settings', v_count);
  delete from governance.settings s where not p_settings ? s.key;
  get diagnostics v_count = row_count;
  v_changed := v_changed || jsonb_build_object('settings_retired', v_count);
  return v_changed;
end
$$;
comment on function governance.store_settings(jsonb, timestamptz) is
  'The settings of a preset; returns how many changed and were retired.';

create function governance.store_rules(p_rules jsonb, p_by text, p_reason text, p_now timestamptz) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_item jsonb;
  v_count int := 0;
  v_rule jsonb;
  v_old_rule governance.rules;
  v_changed jsonb := '{}';
begin
  for v_item in select * from jsonb_array_elements(p_rules) loop
    v_rule := governance.check_rule(v_item);
    select * into v_old_rule from governance.rules r where r.rule_name = v_rule ->> 'rule_name';
    if v_old_rule.rule_name is null or v_old_rule.retired_at is not null
      or (governance.rule_json(v_old_rule) - array['version', 'updated_at', 'updated_by', 'back_at']) <> v_rule then
      perform governance.store_rule(v_rule, p_by, p_now, p_reason);
      v_count := v_count + 1;
    end if;
  end loop;
  v_changed := v_changed || jsonb_build_object('rules', v_count);
  perform governance.store_retirement(r.rule_name, p_by, p_now, p_reason)
  from governance.rules r
  where r.retired_at is null
    and not exists (select from jsonb_array_elements(p_rules) x where x ->> 'rule_name' = r.rule_name);
  get diagnostics v_count = row_count;
  v_changed := v_changed || jsonb_build_object('rules_retired', v_count);
  return v_changed;
end
$$;
comment on function governance.store_rules(jsonb, text, text, timestamptz) is
  'The rules of a preset; returns how many changed and were retired.';

create function governance.store_config(p_name text, p_currency text, p_default_plan text, p_settings jsonb)
  returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_config governance.active_config;
  v_old governance.active_config;
begin
  select * into strict v_old from governance.active_config c;
  update governance.active_config c set
    preset_name = p_name, currency = p_currency, default_plan = p_default_plan,
    hold_minutes = governance.preset_whole(p_settings, 'hold_minutes', 'settings', 1, 10080, 15),
    identical_window_minutes = governance.preset_whole(p_settings, 'identical_window_minutes', 'settings', 1, 10080,
      60),
    reply_tokens = governance.preset_whole(p_settings, 'reply_tokens', 'settings', 0, 1000000000, 500),
    default_estimate = governance.preset_whole(p_settings, 'default_estimate', 'settings', 1, 1000000000, 300),
    settle_ceiling_tokens = governance.preset_whole(p_settings, 'settle_ceiling_tokens', 'settings', 1,
      9007199254740991, 10000000),
    low_balance_tokens = governance.preset_whole(p_settings, 'low_balance_tokens', 'settings', 0, 9007199254740991,
      1000),
    high_usage_tokens = governance.preset_whole(p_settings, 'high_usage_tokens', 'settings', 0, 9007199254740991, 5000),
    alert_balance_below = greatest(governance.preset_whole(p_settings, 'low_balance_tokens', 'settings', 0,
      9007199254740991, 1000), (select max(t) from governance.cost_alerts k, unnest(k.thresholds) t
      where k.metric = 'balance' and k.retired_at is null)),
    alert_operation_above = least(governance.preset_whole(p_settings, 'high_usage_tokens', 'settings', 0,
      9007199254740991, 5000), (select min(t) from governance.cost_alerts k, unnest(k.thresholds) t
      where k.metric = 'operation_tokens' and k.retired_at is null)),
    decision_retention_days = governance.preset_whole(p_settings, 'decision_retention_days', 'settings', 32, 36500, 90),
    signal_interval_ms = governance.preset_whole(p_settings, 'signal_interval_ms', 'settings', 50, 60000, 250),
    updated_at = clock_timestamp()
  returning * into v_config;
  return jsonb_build_object('configuration',
    case when row(v_config.preset_name, v_config.currency, v_config.default_plan)
      is distinct from row(v_old.preset_name, v_old.currency, v_old.default_plan) then 1 else 0 end);
end
$$;
comment on function governance.store_config(text, text, text, jsonb) is
  'Flattens the configuration to what a call needs, after alerts are stored; returns whether its names changed.';

create function governance.config_key(p_kind text, p_record jsonb) returns text
  language sql stable set search_path = '' as $$
  select case p_kind
    when 'plan' then p_record ->> 'plan_id'
    when 'pack' then p_record ->> 'pack_id'
    when 'rule' then p_record ->> 'rule_name'
    when 'price' then governance.price_key(p_record ->> 'provider', p_record ->> 'model',
      governance.price_moment(p_record, 'prices'))
    when 'estimate' then p_record ->> 'task_type'
    when 'topic' then p_record ->> 'topic'
    when 'alert' then p_record ->> 'alert_name'
    when 'route' then p_record ->> 'route'
    when 'setting' then p_record ->> 'key'
    when 'project' then 'project' end
$$;
comment on function governance.config_key(text, jsonb) is 'The key of a record in its kind; null for an unknown kind.';

create function governance.price_key(p_provider text, p_model text, p_from timestamptz) returns text
  language sql stable set search_path = '' as $$
  select format('%s/%s@%s', p_provider, p_model, to_char(p_from at time zone 'UTC',
    case when p_from = date_trunc('day', p_from, 'UTC') then 'YYYY-MM-DD' else 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"' end))
$$;
comment on function governance.price_key(text, text, timestamptz) is 'A price by provider, model and first moment.';

create function governance.config_records() returns table (kind text, key text, record jsonb)
  language sql stable set search_path = '' as $$
  select 'project', 'project', jsonb_build_object('name', c.preset_name, 'currency', c.currency,
    'default_plan', c.default_plan)
  from governance.active_config c where c.preset_name is not null
  union all
  select 'plan', p.plan_id, jsonb_build_object('plan_id', p.plan_id, 'name', p.name,
    'monthly_allowance', p.monthly_allowance, 'daily_limit', p.daily_limit, 'monthly_limit', p.monthly_limit,
    'allows_top_up', p.allows_top_up, 'warn_at', to_jsonb(p.warn_at), 'fail_mode', p.fail_mode,
    'on_cancel', p.on_cancel, 'rollover_months', p.rollover_months, 'upgrade_to', p.upgrade_to)
  from governance.plans p where p.retired_at is null
  union all
  select 'pack', k.pack_id, jsonb_build_object('pack_id', k.pack_id, 'tokens', k.tokens, 'price_minor', k.price_minor,
    'currency', k.currency, 'plans', coalesce(to_jsonb(k.plans), '[]'))
  from governance.packs k where k.retired_at is null
  union all
  select 'price', governance.price_key(x.provider, x.model, x.effective_from), jsonb_strip_nulls(jsonb_build_object(
    'provider', x.provider, 'model', x.model, 'input_micros_per_million', x.input_micros_per_million,
    'output_micros_per_million', x.output_micros_per_million,
    'cached_input_micros_per_million', x.cached_input_micros_per_million,
    'cache_write_micros_per_million', x.cache_write_micros_per_million,
    'cache_write_1h_micros_per_million', x.cache_write_1h_micros_per_million,
    'reasoning_micros_per_million', x.reasoning_micros_per_million,
    'batch_input_micros_per_million', x.batch_input_micros_per_million,
    'batch_output_micros_per_million', x.batch_output_micros_per_million,
    'priority_input_micros_per_million', x.priority_input_micros_per_million,
    'priority_output_micros_per_million', x.priority_output_micros_per_million,
    'long_context_above_tokens', x.long_context_above_tokens,
    'long_context_input_micros_per_million', x.long_context_input_micros_per_million,
    'long_context_output_micros_per_million', x.long_context_output_micros_per_million, 'currency', x.currency,
    'effective_from', to_char(x.effective_from at time zone 'UTC',
      case when x.effective_from = date_trunc('day', x.effective_from, 'UTC') then 'YYYY-MM-DD'
        else 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"' end)))
  from governance.prices x where x.retired_at is null
  union all
  select 'estimate', e.task_type, jsonb_build_object('task_type', e.task_type, 'tokens', e.tokens)
  from governance.estimates e
  union all
  select 'alert', a.alert_name, jsonb_strip_nulls(jsonb_build_object('alert_name', a.alert_name, 'metric', a.metric,
    'scope', a.scope, 'period', a.period, 'budget', a.budget, 'thresholds', to_jsonb(a.thresholds),
    'channels', to_jsonb(a.channels)))
  from governance.cost_alerts a where a.retired_at is null
  union all
  select 'setting', s.key, jsonb_build_object('key', s.key, 'value', s.value)
  from governance.settings s where not exists (select from governance.config_kinds() k where k.setting = s.key)
  union all
  select k.kind, governance.config_key(k.kind, t.item), t.item
  from governance.config_kinds() k join governance.settings s on s.key = k.setting
  cross join jsonb_array_elements(case when jsonb_typeof(s.value) = 'array' then s.value else '[]' end) t(item)
$$;
comment on function governance.config_records() is
  'The configuration in force without its rules, a row for each record as in a preset.';

create function governance.keep_config_versions(p_by text, p_reason text, p_now timestamptz) returns jsonb
  language sql set search_path = '' as $$
  with latest as (
    select distinct on (v.kind, v.key) v.* from governance.config_versions v order by v.kind, v.key, v.version desc
  ), in_force as (
    select distinct on (r.kind, r.key) r.* from governance.config_records() r
    order by r.kind, r.key, r.record::text
  ), kept as (
    insert into governance.config_versions (kind, key, version, record, created_at, created_by, reason, is_retired)
    select coalesce(n.kind, l.kind), coalesce(n.key, l.key), coalesce(l.version, 0) + 1,
      coalesce(n.record, l.record), p_now, p_by, p_reason, n.record is null
    from in_force n full join latest l on l.kind = n.kind and l.key = n.key
    where case when n.record is null then not l.is_retired
      else l.record is distinct from n.record or l.is_retired end
    order by 1, 2
    returning kind, key, version, is_retired
  )
  select coalesce(jsonb_agg(jsonb_build_object('kind', k.kind, 'key', k.key, 'version', k.version,
    'is_retired', k.is_retired)), '[]') from kept k
$$;
comment on function governance.keep_config_versions(text, text, timestamptz) is
  'Keeps what changed since the last versions as versions; returns which. Whoever changes the configuration ends with '
  'it.';

create function governance.store_preset(p_preset jsonb, p_by text, p_reason text, p_now timestamptz) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_name text;
  v_currency text;
  v_settings jsonb;
  v_plans jsonb;
  v_packs jsonb;
  v_rules jsonb;
  v_prices jsonb;
  v_estimates jsonb;
  v_alerts jsonb;
  v_default_plan text;
  v_words jsonb;
  v_changed jsonb := '{}';
begin
  v_name := governance.preset_text(p_preset, 'name', 'preset');
  v_currency := lower(governance.preset_text(p_preset, 'currency', 'preset', 'usd', 3));
  if v_currency !~ '^[a-z]{3}$' then perform governance.invalid_preset('currency', 'three letters are needed'); end if;
  v_settings := governance.check_settings(coalesce(nullif(p_preset -> 'settings', 'null'), '{}'));
  v_plans := governance.preset_list(p_preset, 'plans', 'plan_id');
  v_packs := governance.preset_list(p_preset, 'packs', 'pack_id');
  v_rules := governance.preset_list(p_preset, 'rules', 'rule_name');
  v_prices := governance.preset_list(p_preset, 'prices', 'model');
  v_estimates := governance.preset_list(p_preset, 'estimates', 'task_type');
  v_alerts := governance.preset_list(p_preset, 'alerts', 'alert_name');
  if jsonb_array_length(v_plans) = 0 then perform governance.invalid_preset('plans', 'at least one plan is needed');
    end if;
  v_default_plan := governance.preset_text(p_preset, 'default_plan', 'preset', v_plans -> 0 ->> 'plan_id');
  if not exists (select from jsonb_array_elements(v_plans) x where x ->> 'plan_id' = v_default_plan) then
    perform governance.invalid_preset('default_plan', format('there is no plan "%s"', left(v_default_plan, 64)));
  end if;
  select jsonb_object_agg(s.key, s.value) into v_words from governance.settings s
  where s.key in ('topics', 'complexity_words');
  v_changed := governance.store_plans(v_plans, p_now);
  v_changed := v_changed || governance.store_packs(v_packs, v_plans, v_currency, p_now);
  v_changed := v_changed || governance.store_prices(v_prices, v_currency, p_now);
  v_changed := v_changed || governance.store_estimates(v_estimates, p_now);
  v_changed := v_changed || governance.store_alerts(v_alerts, v_plans, v_currency, p_now);
  v_changed := v_changed || governance.store_settings(v_settings, p_now);
  v_changed := v_changed || governance.store_rules(v_rules, p_by, p_reason, p_now);
  v_changed := v_changed || governance.store_config(v_name, v_currency, v_default_plan, v_settings);
  -- Rules are compiled with the words of topics and complexity in them.
  if v_changed ->> 'rules' <> '0' or v_changed ->> 'rules_retired' <> '0' or v_words is distinct from (
    select jsonb_object_agg(s.key, s.value) from governance.settings s where s.key in ('topics', 'complexity_words'))
    then
    perform governance.compile_rules();
  end if;
  perform governance.keep_config_versions(p_by, p_reason, p_now);
  return v_changed;
end
$$;
comment on function governance.store_preset(jsonb, text, text, timestamptz) is
  'Checks a preset and makes it the whole configuration; returns how many of each kind changed. The caller holds the '
  'lock of rules and presets.';

create function public.apply_preset(p_preset jsonb) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_now timestamptz;
  v_changed jsonb;
begin
  perform governance.refuse_others('apply_preset');
  if p_preset is null or jsonb_typeof(p_preset) <> 'object' then
    perform governance.fail('PT400', 'invalid_argument', 'p_preset is a preset as a JSON object');
  end if;
  perform pg_advisory_xact_lock(7254012);
  v_now := governance.now();
  v_changed := governance.store_preset(p_preset, 'preset ' || governance.preset_text(p_preset, 'name', 'preset'), null,
    v_now);
  if exists (select from jsonb_each(v_changed) x where x.value <> '0') then
    insert into governance.audit_log (created_at, action, details)
      values (v_now, 'apply_preset', jsonb_build_object('preset', p_preset, 'changed', v_changed));
    perform governance.ring('rules', v_now);
  end if;
  return jsonb_build_object('name', p_preset ->> 'name', 'changed', v_changed, 'rule_set_id',
    (select c.rule_set_id from governance.active_config c));
end
$$;
comment on function public.apply_preset(jsonb) is
  'Makes a preset the whole configuration: adds and changes what it names, retires what it does not. Returns how many '
  'of each were changed; a second time nothing is. Errors: invalid_argument, invalid_preset, invalid_rule (path in '
  'details).';
revoke all on function public.apply_preset(jsonb) from public, anon, authenticated;
grant execute on function public.apply_preset(jsonb) to service_role;
