-- Configuration, operators' commands, and the feed that readers follow.

create function governance.rule_json(r governance.rules) returns jsonb
  language sql stable set search_path = '' as $$
  select jsonb_build_object('rule_name', r.rule_name, 'rule_type', r.rule_type, 'conditions', r.conditions, 'action', r.action,
    'priority', r.priority, 'mode', r.mode, 'is_active', r.is_active, 'applies_to', r.applies_to, 'version', r.version,
    'description', r.description, 'updated_at', r.updated_at, 'updated_by', r.updated_by)
$$;
comment on function governance.rule_json(governance.rules) is 'A rule as functions answer it.';

create function governance.store_rule(p_rule jsonb, p_operator text, p_now timestamptz) returns governance.rules
  language plpgsql set search_path = '' as $$
declare
  v_version int;
  v_version_id bigint;
  v_rule governance.rules;
begin
  select coalesce(max(v.version), 0) + 1 into v_version from governance.rule_versions v where v.rule_name = p_rule ->> 'rule_name';
  insert into governance.rule_versions (rule_name, version, rule, created_at, created_by)
  values (p_rule ->> 'rule_name', v_version, p_rule, p_now, p_operator)
  returning version_id into v_version_id;
  insert into governance.rules as r (rule_name, version, version_id, rule_type, priority, mode, is_active, conditions, action, applies_to, description, updated_at, updated_by)
  values (p_rule ->> 'rule_name', v_version, v_version_id, p_rule ->> 'rule_type', (p_rule ->> 'priority')::int, p_rule ->> 'mode',
    (p_rule ->> 'is_active')::boolean, p_rule -> 'conditions', p_rule -> 'action', p_rule -> 'applies_to', p_rule ->> 'description', p_now, p_operator)
  on conflict (rule_name) do update set
    version = excluded.version, version_id = excluded.version_id, rule_type = excluded.rule_type, priority = excluded.priority, mode = excluded.mode,
    is_active = excluded.is_active, conditions = excluded.conditions, action = excluded.action, applies_to = excluded.applies_to,
    description = excluded.description, updated_at = excluded.updated_at, updated_by = excluded.updated_by, retired_at = null
  returning * into v_rule;
  return v_rule;
end
$$;
comment on function governance.store_rule(jsonb, text, timestamptz) is 'Writes a checked rule as its next version. Call governance.compile_rules afterwards.';

create function public.save_rule(p_command_id text, p_rule jsonb, p_expected_version int default null, p_operator text default null) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_checked jsonb;
  v_current governance.rules;
  v_rule governance.rules;
  v_answer jsonb;
  v_now timestamptz;
begin
  perform governance.check_id('p_command_id', p_command_id);
  perform governance.check_optional('p_operator', p_operator, 255);
  if p_rule is null then
    perform governance.fail('PT400', 'invalid_argument', 'p_rule is needed');
  end if;
  v_checked := governance.check_rule(p_rule);
  -- One writer of rules at a time: each makes governance.evaluate_rules anew.
  perform pg_advisory_xact_lock(7254012);
  v_answer := governance.begin_command('operator', p_command_id, row('save_rule', p_rule, p_expected_version, p_operator)::text);
  if v_answer is not null then return v_answer; end if;
  v_now := governance.now();
  select * into v_current from governance.rules r where r.rule_name = v_checked ->> 'rule_name' and r.retired_at is null;
  if p_expected_version is not null and coalesce(v_current.version, 0) <> p_expected_version then
    perform governance.fail('PT409', 'version_conflict',
      case when v_current.version is null then format('There is no rule "%s" in force', left(v_checked ->> 'rule_name', 64))
        else format('Rule "%s" is at version %s, not %s', left(v_checked ->> 'rule_name', 64), v_current.version, p_expected_version) end,
      case when v_current.version is null then 'null' else governance.rule_json(v_current)::text end);
  end if;
  v_rule := governance.store_rule(v_checked, p_operator, v_now);
  perform governance.compile_rules();
  insert into governance.audit_log (created_at, operator, action, rule_name, command_id, details)
  values (v_now, p_operator, 'save_rule', v_rule.rule_name, p_command_id,
    jsonb_build_object('version', v_rule.version, 'before', case when v_current.version is not null then governance.rule_json(v_current) end));
  perform governance.ring('rules', v_now);
  return governance.end_command('operator', p_command_id, governance.rule_json(v_rule));
end
$$;
comment on function public.save_rule(text, jsonb, int, text) is
  'Saves a rule as its next version, in force at once. p_expected_version (0 for a new rule) refuses a save over someone else''s. Errors: invalid_argument, invalid_rule (path in details), version_conflict (current rule in details), idempotency_conflict.';
revoke all on function public.save_rule(text, jsonb, int, text) from public, anon, authenticated;
grant execute on function public.save_rule(text, jsonb, int, text) to service_role;

create function public.list_rules() returns jsonb
  language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(governance.rule_json(r) order by r.priority, r.rule_name collate "C"), '[]')
  from governance.rules r where r.retired_at is null
$$;
comment on function public.list_rules() is 'The rules that are not retired, in the order in which they run.';
revoke all on function public.list_rules() from public, anon, authenticated;
grant execute on function public.list_rules() to service_role;

-- ---------------------------------------------------------------------------------------------------------------
-- Operators on accounts
-- ---------------------------------------------------------------------------------------------------------------

create function governance.check_operator_command(p_command_id text, p_user_id text, p_reason text, p_operator text) returns void
  language plpgsql immutable set search_path = '' as $$
begin
  perform governance.check_id('p_command_id', p_command_id);
  perform governance.check_id('p_user_id', p_user_id);
  perform governance.check_id('p_reason', p_reason, 1000);
  perform governance.check_optional('p_operator', p_operator, 255);
end
$$;
comment on function governance.check_operator_command(text, text, text, text) is 'Refuses an operator''s command without an id, a user or a reason.';

create function public.flag_user(p_command_id text, p_user_id text, p_reason text, p_operator text default null) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_account governance.accounts;
  v_answer jsonb;
  v_now timestamptz;
begin
  perform governance.check_operator_command(p_command_id, p_user_id, p_reason, p_operator);
  v_account := governance.lock_account(p_user_id);
  v_answer := governance.begin_command('operator', p_command_id, row('flag_user', p_user_id, p_reason, p_operator)::text);
  if v_answer is not null then return v_answer; end if;
  v_now := governance.now();
  update governance.accounts a set flagged_at = v_now, flag_reason = p_reason, flagged_by = p_operator, version = a.version + 1
  where a.account_id = v_account.account_id returning * into v_account;
  insert into governance.audit_log (created_at, operator, action, account_id, reason, command_id)
  values (v_now, p_operator, 'flag_user', v_account.account_id, p_reason, p_command_id);
  perform governance.ring('accounts', v_now);
  return governance.end_command('operator', p_command_id, governance.account_json(v_account));
end
$$;
comment on function public.flag_user(text, text, text, text) is 'Marks an account for review; its calls go on. Answers the account. Errors: invalid_argument, unknown_user, idempotency_conflict.';
revoke all on function public.flag_user(text, text, text, text) from public, anon, authenticated;
grant execute on function public.flag_user(text, text, text, text) to service_role;

create function public.block_user(p_command_id text, p_user_id text, p_reason text, p_until timestamptz default null, p_operator text default null) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_account governance.accounts;
  v_answer jsonb;
  v_now timestamptz;
begin
  perform governance.check_operator_command(p_command_id, p_user_id, p_reason, p_operator);
  if p_until is not null and not isfinite(p_until) then
    perform governance.fail('PT400', 'invalid_argument', 'p_until is a moment in the future, or null until someone unblocks');
  end if;
  v_account := governance.lock_account(p_user_id);
  v_answer := governance.begin_command('operator', p_command_id, row('block_user', p_user_id, p_reason, extract(epoch from p_until), p_operator)::text);
  if v_answer is not null then return v_answer; end if;
  v_now := governance.now();
  if p_until <= v_now then
    perform governance.fail('PT400', 'invalid_argument', 'p_until is a moment in the future, or null until someone unblocks');
  end if;
  update governance.accounts a set blocked_at = v_now, blocked_until = p_until, block_reason = p_reason, blocked_by = p_operator, version = a.version + 1
  where a.account_id = v_account.account_id returning * into v_account;
  insert into governance.audit_log (created_at, operator, action, account_id, reason, command_id, details)
  values (v_now, p_operator, 'block_user', v_account.account_id, p_reason, p_command_id, jsonb_build_object('until', p_until));
  perform governance.ring('accounts', v_now);
  return governance.end_command('operator', p_command_id, governance.account_json(v_account));
end
$$;
comment on function public.block_user(text, text, text, timestamptz, text) is
  'Stops an account''s calls from the next one on, until a moment or until someone unblocks. Answers the account. Errors: invalid_argument, unknown_user, idempotency_conflict.';
revoke all on function public.block_user(text, text, text, timestamptz, text) from public, anon, authenticated;
grant execute on function public.block_user(text, text, text, timestamptz, text) to service_role;

create function public.unblock_user(p_command_id text, p_user_id text, p_reason text, p_operator text default null) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_account governance.accounts;
  v_answer jsonb;
  v_now timestamptz;
begin
  perform governance.check_operator_command(p_command_id, p_user_id, p_reason, p_operator);
  v_account := governance.lock_account(p_user_id);
  v_answer := governance.begin_command('operator', p_command_id, row('unblock_user', p_user_id, p_reason, p_operator)::text);
  if v_answer is not null then return v_answer; end if;
  v_now := governance.now();
  update governance.accounts a set
    blocked_at = null, blocked_until = null, block_reason = null, blocked_by = null,
    rule_blocked_until = null, rule_block_reason = null, rule_block_message = null, rule_block_version_id = null,
    forgiven_at = v_now, rapid_messages = 0, version = a.version + 1
  where a.account_id = v_account.account_id returning * into v_account;
  insert into governance.audit_log (created_at, operator, action, account_id, reason, command_id)
  values (v_now, p_operator, 'unblock_user', v_account.account_id, p_reason, p_command_id);
  perform governance.ring('accounts', v_now);
  return governance.end_command('operator', p_command_id, governance.account_json(v_account));
end
$$;
comment on function public.unblock_user(text, text, text, text) is
  'Lifts an operator''s and a rule''s block, and forgives: identical and rapid messages are counted anew. A flag stays. Answers the account. Errors: invalid_argument, unknown_user, idempotency_conflict.';
revoke all on function public.unblock_user(text, text, text, text) from public, anon, authenticated;
grant execute on function public.unblock_user(text, text, text, text) to service_role;

-- ---------------------------------------------------------------------------------------------------------------
-- Presets
-- ---------------------------------------------------------------------------------------------------------------

create function governance.invalid_preset(p_path text, p_problem text) returns void
  language plpgsql set search_path = '' as $$
begin
  perform governance.fail('PT422', 'invalid_preset', format('%s: %s', p_path, p_problem), p_path);
end
$$;
comment on function governance.invalid_preset(text, text) is 'Refuses a preset, naming the place and the problem.';

create function governance.preset_text(p_item jsonb, p_key text, p_path text, p_default text default null, p_max int default 255) returns text
  language plpgsql stable set search_path = '' as $$
begin
  if coalesce(p_item -> p_key, 'null') = 'null' then
    if p_default is null then perform governance.invalid_preset(p_path || '.' || p_key, 'a text is needed'); end if;
    return p_default;
  end if;
  if jsonb_typeof(p_item -> p_key) <> 'string' or char_length(p_item ->> p_key) not between 1 and p_max then
    perform governance.invalid_preset(p_path || '.' || p_key, format('a text of 1 to %s characters is needed', p_max));
  end if;
  return p_item ->> p_key;
end
$$;
comment on function governance.preset_text(jsonb, text, text, text, int) is 'A text of a preset, or its default; no default means it is needed.';

create function governance.preset_whole(p_item jsonb, p_key text, p_path text, p_min bigint, p_max bigint, p_default bigint default null, p_needed boolean default false) returns bigint
  language plpgsql stable set search_path = '' as $$
declare
  v_number numeric;
begin
  if coalesce(p_item -> p_key, 'null') = 'null' then
    if p_needed then perform governance.invalid_preset(p_path || '.' || p_key, 'a whole number is needed'); end if;
    return p_default;
  end if;
  if jsonb_typeof(p_item -> p_key) = 'number' then
    v_number := (p_item ->> p_key)::numeric;
    if v_number = trunc(v_number) and v_number between p_min and p_max then return v_number::bigint; end if;
  end if;
  perform governance.invalid_preset(p_path || '.' || p_key, format('a whole number from %s to %s is needed', p_min, p_max));
  return null;
end
$$;
comment on function governance.preset_whole(jsonb, text, text, bigint, bigint, bigint, boolean) is 'A whole number of a preset, or its default.';

create function governance.preset_list(p_preset jsonb, p_key text, p_id text) returns jsonb
  language plpgsql stable set search_path = '' as $$
declare
  v_list jsonb := coalesce(nullif(p_preset -> p_key, 'null'), '[]');
  v_item jsonb;
  v_at int := 0;
begin
  if jsonb_typeof(v_list) <> 'array' then perform governance.invalid_preset(p_key, 'a list is needed'); end if;
  if jsonb_array_length(v_list) > 10000 then perform governance.invalid_preset(p_key, 'a list has at most 10,000 items'); end if;
  for v_item in select * from jsonb_array_elements(v_list) loop
    if jsonb_typeof(v_item) <> 'object' then perform governance.invalid_preset(format('%s[%s]', p_key, v_at), 'an object is needed'); end if;
    perform governance.preset_text(v_item, p_id, format('%s[%s]', p_key, v_at));
    v_at := v_at + 1;
  end loop;
  if p_key <> 'prices' and (select count(distinct x ->> p_id) from jsonb_array_elements(v_list) x) <> v_at then
    perform governance.invalid_preset(p_key, format('two items have the same %s', p_id));
  end if;
  return v_list;
end
$$;
comment on function governance.preset_list(jsonb, text, text) is 'A list of a preset whose items are objects with a name of their own.';

create function governance.check_settings(p_settings jsonb) returns jsonb
  language plpgsql stable set search_path = '' as $$
declare
  v_item jsonb;
  v_at int := 0;
begin
  if jsonb_typeof(p_settings) <> 'object' then perform governance.invalid_preset('settings', 'an object is needed'); end if;
  if coalesce(p_settings -> 'complexity_words', '[]') <> '[]' then
    if jsonb_typeof(p_settings -> 'complexity_words') <> 'array' or jsonb_array_length(p_settings -> 'complexity_words') > 1000
      or exists (select from jsonb_array_elements(p_settings -> 'complexity_words') w where jsonb_typeof(w) <> 'string' or char_length(w #>> '{}') > 1000) then
      perform governance.invalid_preset('settings.complexity_words', 'a list of at most 1,000 phrases is needed');
    end if;
  end if;
  if coalesce(p_settings -> 'topics', '[]') <> '[]' then
    if jsonb_typeof(p_settings -> 'topics') <> 'array' or jsonb_array_length(p_settings -> 'topics') > 1000 then
      perform governance.invalid_preset('settings.topics', 'a list of {topic, words} is needed');
    end if;
    for v_item in select * from jsonb_array_elements(p_settings -> 'topics') loop
      if jsonb_typeof(v_item) <> 'object' or jsonb_typeof(v_item -> 'topic') is distinct from 'string' or jsonb_typeof(v_item -> 'words') is distinct from 'array'
        or jsonb_array_length(v_item -> 'words') > 1000 or char_length(v_item ->> 'topic') not between 1 and 1000
        or exists (select from jsonb_array_elements(v_item -> 'words') w where jsonb_typeof(w) <> 'string' or char_length(w #>> '{}') > 1000) then
        perform governance.invalid_preset(format('settings.topics[%s]', v_at), 'a {topic, words} with at most 1,000 phrases is needed');
      end if;
      v_at := v_at + 1;
    end loop;
  end if;
  return p_settings;
end
$$;
comment on function governance.check_settings(jsonb) is 'The settings, if the word lists in them can be compiled.';

create function public.apply_preset(p_preset jsonb) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_now timestamptz;
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
  v_item jsonb;
  v_path text;
  v_at int;
  v_count int;
  v_changed jsonb := '{}';
  v_plan governance.plans;
  v_old_plan governance.plans;
  v_pack governance.packs;
  v_old_pack governance.packs;
  v_price governance.prices;
  v_old_price governance.prices;
  v_alert governance.cost_alerts;
  v_old_alert governance.cost_alerts;
  v_rule jsonb;
  v_old_rule governance.rules;
  v_config governance.active_config;
  v_old_config governance.active_config;
  v_recompile boolean := false;
  v_list jsonb;
begin
  if p_preset is null or jsonb_typeof(p_preset) <> 'object' then
    perform governance.fail('PT400', 'invalid_argument', 'p_preset is a preset as a JSON object');
  end if;
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
  if jsonb_array_length(v_plans) = 0 then perform governance.invalid_preset('plans', 'at least one plan is needed'); end if;
  v_default_plan := governance.preset_text(p_preset, 'default_plan', 'preset', v_plans -> 0 ->> 'plan_id');
  if not exists (select from jsonb_array_elements(v_plans) x where x ->> 'plan_id' = v_default_plan) then
    perform governance.invalid_preset('default_plan', format('there is no plan "%s"', left(v_default_plan, 64)));
  end if;

  perform pg_advisory_xact_lock(7254012);
  v_now := governance.now();

  v_at := 0; v_count := 0;
  for v_item in select * from jsonb_array_elements(v_plans) loop
    v_path := format('plans[%s]', v_at); v_at := v_at + 1;
    v_plan := null;
    v_plan.plan_id := v_item ->> 'plan_id';
    v_plan.name := governance.preset_text(v_item, 'name', v_path, v_plan.plan_id);
    v_plan.monthly_allowance := governance.preset_whole(v_item, 'monthly_allowance', v_path, 0, 9007199254740991, 0);
    v_plan.daily_limit := governance.preset_whole(v_item, 'daily_limit', v_path, 0, 9007199254740991);
    v_plan.monthly_limit := governance.preset_whole(v_item, 'monthly_limit', v_path, 0, 9007199254740991);
    v_plan.rollover_months := governance.preset_whole(v_item, 'rollover_months', v_path, 0, 12, 0);
    v_plan.allows_top_up := coalesce(v_item -> 'allows_top_up', 'null') in ('true', 'null');
    if coalesce(jsonb_typeof(v_item -> 'allows_top_up'), 'null') not in ('boolean', 'null') then perform governance.invalid_preset(v_path || '.allows_top_up', 'true or false is needed'); end if;
    v_plan.fail_mode := governance.preset_text(v_item, 'fail_mode', v_path, 'closed');
    if v_plan.fail_mode not in ('closed', 'open') then perform governance.invalid_preset(v_path || '.fail_mode', 'closed or open is needed'); end if;
    v_plan.on_cancel := governance.preset_text(v_item, 'on_cancel', v_path, 'expire');
    if v_plan.on_cancel not in ('keep', 'convert', 'expire') then perform governance.invalid_preset(v_path || '.on_cancel', 'keep, convert or expire is needed'); end if;
    if coalesce(v_item -> 'upgrade_to', 'null') <> 'null' then
      v_plan.upgrade_to := governance.preset_text(v_item, 'upgrade_to', v_path);
      if not exists (select from jsonb_array_elements(v_plans) x where x ->> 'plan_id' = v_plan.upgrade_to) then
        perform governance.invalid_preset(v_path || '.upgrade_to', format('there is no plan "%s"', left(v_plan.upgrade_to, 64)));
      end if;
    end if;
    v_list := coalesce(nullif(v_item -> 'warn_at', 'null'), '[80, 90, 95]');
    if jsonb_typeof(v_list) <> 'array' or jsonb_array_length(v_list) > 20
      or exists (select from jsonb_array_elements(v_list) w where jsonb_typeof(w) <> 'number' or (w #>> '{}')::numeric <> trunc((w #>> '{}')::numeric) or (w #>> '{}')::numeric not between 1 and 100) then
      perform governance.invalid_preset(v_path || '.warn_at', 'a list of whole percents from 1 to 100 is needed');
    end if;
    v_plan.warn_at := coalesce((select array_agg(distinct (w #>> '{}')::numeric::int order by (w #>> '{}')::numeric::int) from jsonb_array_elements(v_list) w), '{}');
    select * into v_old_plan from governance.plans p where p.plan_id = v_plan.plan_id;
    if v_old_plan.plan_id is null or v_old_plan.retired_at is not null
      or row(v_old_plan.name, v_old_plan.monthly_allowance, v_old_plan.daily_limit, v_old_plan.monthly_limit, v_old_plan.rollover_months, v_old_plan.allows_top_up, v_old_plan.fail_mode, v_old_plan.on_cancel, v_old_plan.upgrade_to, v_old_plan.warn_at)
        is distinct from row(v_plan.name, v_plan.monthly_allowance, v_plan.daily_limit, v_plan.monthly_limit, v_plan.rollover_months, v_plan.allows_top_up, v_plan.fail_mode, v_plan.on_cancel, v_plan.upgrade_to, v_plan.warn_at) then
      insert into governance.plans (plan_id, name, monthly_allowance, daily_limit, monthly_limit, rollover_months, allows_top_up, fail_mode, on_cancel, upgrade_to, warn_at)
      values (v_plan.plan_id, v_plan.name, v_plan.monthly_allowance, v_plan.daily_limit, v_plan.monthly_limit, v_plan.rollover_months, v_plan.allows_top_up, v_plan.fail_mode, v_plan.on_cancel, v_plan.upgrade_to, v_plan.warn_at)
      on conflict (plan_id) do update set name = excluded.name, monthly_allowance = excluded.monthly_allowance, daily_limit = excluded.daily_limit,
        monthly_limit = excluded.monthly_limit, rollover_months = excluded.rollover_months, allows_top_up = excluded.allows_top_up, fail_mode = excluded.fail_mode,
        on_cancel = excluded.on_cancel, upgrade_to = excluded.upgrade_to, warn_at = excluded.warn_at, updated_at = v_now, retired_at = null;
      v_count := v_count + 1;
    end if;
  end loop;
  v_changed := v_changed || jsonb_build_object('plans', v_count);
  update governance.plans p set retired_at = v_now
  where p.retired_at is null and not exists (select from jsonb_array_elements(v_plans) x where x ->> 'plan_id' = p.plan_id);
  get diagnostics v_count = row_count;
  v_changed := v_changed || jsonb_build_object('plans_retired', v_count);

  v_at := 0; v_count := 0;
  for v_item in select * from jsonb_array_elements(v_packs) loop
    v_path := format('packs[%s]', v_at); v_at := v_at + 1;
    v_pack := null;
    v_pack.pack_id := v_item ->> 'pack_id';
    v_pack.tokens := governance.preset_whole(v_item, 'tokens', v_path, 1, 100000000, null, true);
    v_pack.price_minor := governance.preset_whole(v_item, 'price_minor', v_path, 0, 9007199254740991, null, true);
    v_pack.currency := lower(governance.preset_text(v_item, 'currency', v_path, v_currency, 3));
    if v_pack.currency !~ '^[a-z]{3}$' then perform governance.invalid_preset(v_path || '.currency', 'three letters are needed'); end if;
    v_list := coalesce(nullif(v_item -> 'plans', 'null'), '[]');
    if jsonb_typeof(v_list) <> 'array' or exists (select from jsonb_array_elements(v_list) x
      where jsonb_typeof(x) <> 'string' or not exists (select from jsonb_array_elements(v_plans) p where p ->> 'plan_id' = x #>> '{}')) then
      perform governance.invalid_preset(v_path || '.plans', 'a list of plans of this preset is needed');
    end if;
    v_pack.plans := (select array_agg(x order by x collate "C") from jsonb_array_elements_text(v_list) x);
    select * into v_old_pack from governance.packs p where p.pack_id = v_pack.pack_id and p.retired_at is null;
    if v_old_pack.pack_id is null or row(v_old_pack.tokens, v_old_pack.price_minor, v_old_pack.currency, v_old_pack.plans) is distinct from row(v_pack.tokens, v_pack.price_minor, v_pack.currency, v_pack.plans) then
      update governance.packs p set retired_at = v_now where p.pack_row_id = v_old_pack.pack_row_id;
      -- The first price of a pack holds for the past too: its payments may have been made before this preset.
      insert into governance.packs (pack_id, tokens, price_minor, currency, plans, effective_from)
      values (v_pack.pack_id, v_pack.tokens, v_pack.price_minor, v_pack.currency, v_pack.plans,
        case when exists (select from governance.packs p where p.pack_id = v_pack.pack_id) then v_now else '-infinity' end);
      v_count := v_count + 1;
    end if;
  end loop;
  v_changed := v_changed || jsonb_build_object('packs', v_count);
  update governance.packs p set retired_at = v_now
  where p.retired_at is null and not exists (select from jsonb_array_elements(v_packs) x where x ->> 'pack_id' = p.pack_id);
  get diagnostics v_count = row_count;
  v_changed := v_changed || jsonb_build_object('packs_retired', v_count);

  v_at := 0; v_count := 0;
  for v_item in select * from jsonb_array_elements(v_prices) loop
    v_path := format('prices[%s]', v_at); v_at := v_at + 1;
    v_price := null;
    v_price.provider := governance.preset_text(v_item, 'provider', v_path);
    v_price.model := governance.preset_text(v_item, 'model', v_path, null, 200);
    v_price.input_micros_per_million := governance.preset_whole(v_item, 'input_micros_per_million', v_path, 0, 1000000000000000, null, true);
    v_price.output_micros_per_million := governance.preset_whole(v_item, 'output_micros_per_million', v_path, 0, 1000000000000000, null, true);
    v_price.cached_input_micros_per_million := governance.preset_whole(v_item, 'cached_input_micros_per_million', v_path, 0, 1000000000000000);
    v_price.cache_write_micros_per_million := governance.preset_whole(v_item, 'cache_write_micros_per_million', v_path, 0, 1000000000000000);
    v_price.reasoning_micros_per_million := governance.preset_whole(v_item, 'reasoning_micros_per_million', v_path, 0, 1000000000000000);
    v_price.currency := lower(governance.preset_text(v_item, 'currency', v_path, v_currency, 3));
    if v_price.currency <> v_currency then
      perform governance.invalid_preset(v_path || '.currency', format('prices are in the preset''s currency, %s', v_currency));
    end if;
    begin
      v_price.effective_from := case when governance.preset_text(v_item, 'effective_from', v_path, '1970-01-01') ~ '^\d{4}-\d{2}-\d{2}$'
        then (v_item ->> 'effective_from')::timestamp at time zone 'UTC' else coalesce(v_item ->> 'effective_from', '1970-01-01T00:00:00Z')::timestamptz end;
    exception when data_exception then
      perform governance.invalid_preset(v_path || '.effective_from', 'a date or a moment is needed');
    end;
    if v_price.effective_from is null then v_price.effective_from := '1970-01-01T00:00:00Z'; end if;
    if exists (select from jsonb_array_elements(v_prices) with ordinality x(price, n)
      where n < v_at and x.price ->> 'model' = v_price.model and x.price ->> 'provider' = v_price.provider and x.price -> 'effective_from' is not distinct from v_item -> 'effective_from') then
      perform governance.invalid_preset(v_path, 'this model of this provider has a price from that moment already');
    end if;
    select * into v_old_price from governance.prices p
    where p.model = v_price.model and p.provider = v_price.provider and p.effective_from = v_price.effective_from and p.retired_at is null;
    if v_old_price.price_id is null
      or row(v_old_price.input_micros_per_million, v_old_price.output_micros_per_million, v_old_price.cached_input_micros_per_million, v_old_price.cache_write_micros_per_million, v_old_price.reasoning_micros_per_million, v_old_price.currency)
        is distinct from row(v_price.input_micros_per_million, v_price.output_micros_per_million, v_price.cached_input_micros_per_million, v_price.cache_write_micros_per_million, v_price.reasoning_micros_per_million, v_price.currency) then
      update governance.prices p set retired_at = v_now where p.price_id = v_old_price.price_id;
      insert into governance.prices (provider, model, input_micros_per_million, output_micros_per_million, cached_input_micros_per_million,
        cache_write_micros_per_million, reasoning_micros_per_million, currency, effective_from, created_at)
      values (v_price.provider, v_price.model, v_price.input_micros_per_million, v_price.output_micros_per_million, v_price.cached_input_micros_per_million,
        v_price.cache_write_micros_per_million, v_price.reasoning_micros_per_million, v_price.currency, v_price.effective_from, v_now);
      v_count := v_count + 1;
    end if;
  end loop;
  v_changed := v_changed || jsonb_build_object('prices', v_count);
  update governance.prices p set retired_at = v_now
  where p.retired_at is null and not exists (select from jsonb_array_elements(v_prices) x
    where x ->> 'model' = p.model and x ->> 'provider' = p.provider
      and p.effective_from = case when x ->> 'effective_from' ~ '^\d{4}-\d{2}-\d{2}$' then (x ->> 'effective_from')::timestamp at time zone 'UTC'
        else coalesce(x ->> 'effective_from', '1970-01-01T00:00:00Z')::timestamptz end);
  get diagnostics v_count = row_count;
  v_changed := v_changed || jsonb_build_object('prices_retired', v_count);

  v_at := 0; v_count := 0;
  for v_item in select * from jsonb_array_elements(v_estimates) loop
    v_path := format('estimates[%s]', v_at); v_at := v_at + 1;
    insert into governance.estimates as e (task_type, tokens) values (v_item ->> 'task_type', governance.preset_whole(v_item, 'tokens', v_path, 1, 9007199254740991, null, true))
    on conflict (task_type) do update set tokens = excluded.tokens, updated_at = v_now where e.tokens <> excluded.tokens;
    if found then v_count := v_count + 1; end if;
  end loop;
  v_changed := v_changed || jsonb_build_object('estimates', v_count);
  delete from governance.estimates e where not exists (select from jsonb_array_elements(v_estimates) x where x ->> 'task_type' = e.task_type);
  get diagnostics v_count = row_count;
  v_changed := v_changed || jsonb_build_object('estimates_retired', v_count);

  v_at := 0; v_count := 0;
  for v_item in select * from jsonb_array_elements(v_alerts) loop
    v_path := format('alerts[%s]', v_at); v_at := v_at + 1;
    v_alert := null;
    v_alert.alert_name := v_item ->> 'alert_name';
    v_alert.metric := governance.preset_text(v_item, 'metric', v_path, null, 64);
    v_alert.scope := governance.preset_text(v_item, 'scope', v_path, 'all');
    v_alert.period := governance.preset_text(v_item, 'period', v_path, 'month', 32);
    v_alert.budget := governance.preset_whole(v_item, 'budget', v_path, 1, 9007199254740991);
    v_list := coalesce(nullif(v_item -> 'thresholds', 'null'), '[]');
    if jsonb_typeof(v_list) <> 'array' or jsonb_array_length(v_list) not between 1 and 20
      or exists (select from jsonb_array_elements(v_list) w where jsonb_typeof(w) <> 'number' or abs((w #>> '{}')::numeric) > 9007199254740991) then
      perform governance.invalid_preset(v_path || '.thresholds', 'a list of 1 to 20 numbers is needed');
    end if;
    v_alert.thresholds := (select array_agg(distinct (w #>> '{}')::numeric order by (w #>> '{}')::numeric) from jsonb_array_elements(v_list) w);
    v_list := coalesce(nullif(v_item -> 'channels', 'null'), '[]');
    if jsonb_typeof(v_list) <> 'array' or exists (select from jsonb_array_elements(v_list) w where jsonb_typeof(w) <> 'string') then
      perform governance.invalid_preset(v_path || '.channels', 'a list of texts is needed');
    end if;
    v_alert.channels := coalesce((select array_agg(w) from jsonb_array_elements_text(v_list) w), '{}');
    select * into v_old_alert from governance.cost_alerts a where a.alert_name = v_alert.alert_name;
    if v_old_alert.alert_id is null or v_old_alert.retired_at is not null
      or row(v_old_alert.metric, v_old_alert.scope, v_old_alert.period, v_old_alert.budget, v_old_alert.thresholds, v_old_alert.channels) is distinct from row(v_alert.metric, v_alert.scope, v_alert.period, v_alert.budget, v_alert.thresholds, v_alert.channels) then
      insert into governance.cost_alerts (alert_name, metric, scope, period, budget, thresholds, channels)
      values (v_alert.alert_name, v_alert.metric, v_alert.scope, v_alert.period, v_alert.budget, v_alert.thresholds, v_alert.channels)
      on conflict (alert_name) do update set metric = excluded.metric, scope = excluded.scope, period = excluded.period, budget = excluded.budget,
        thresholds = excluded.thresholds, channels = excluded.channels, is_active = true, updated_at = v_now, retired_at = null;
      v_count := v_count + 1;
    end if;
  end loop;
  v_changed := v_changed || jsonb_build_object('alerts', v_count);
  update governance.cost_alerts a set retired_at = v_now, is_active = false
  where a.retired_at is null and not exists (select from jsonb_array_elements(v_alerts) x where x ->> 'alert_name' = a.alert_name);
  get diagnostics v_count = row_count;
  v_changed := v_changed || jsonb_build_object('alerts_retired', v_count);

  v_count := 0;
  for v_item in select jsonb_build_object('key', s.key, 'value', s.value) from jsonb_each(v_settings) s loop
    insert into governance.settings as s (key, value) values (v_item ->> 'key', v_item -> 'value')
    on conflict (key) do update set value = excluded.value, updated_at = v_now where s.value <> excluded.value;
    if found then
      v_count := v_count + 1;
      v_recompile := v_recompile or v_item ->> 'key' in ('topics', 'complexity_words');
    end if;
  end loop;
  v_changed := v_changed || jsonb_build_object('settings', v_count);
  v_recompile := v_recompile or exists (select from governance.settings s where not v_settings ? s.key and s.key in ('topics', 'complexity_words'));
  delete from governance.settings s where not v_settings ? s.key;
  get diagnostics v_count = row_count;
  v_changed := v_changed || jsonb_build_object('settings_retired', v_count);

  v_at := 0; v_count := 0;
  for v_item in select * from jsonb_array_elements(v_rules) loop
    v_rule := governance.check_rule(v_item);
    select * into v_old_rule from governance.rules r where r.rule_name = v_rule ->> 'rule_name';
    if v_old_rule.rule_name is null or v_old_rule.retired_at is not null
      or (governance.rule_json(v_old_rule) - 'version' - 'updated_at' - 'updated_by') <> v_rule then
      perform governance.store_rule(v_rule, 'preset ' || v_name, v_now);
      v_count := v_count + 1;
    end if;
  end loop;
  v_changed := v_changed || jsonb_build_object('rules', v_count);
  v_recompile := v_recompile or v_count > 0;
  update governance.rules r set retired_at = v_now
  where r.retired_at is null and not exists (select from jsonb_array_elements(v_rules) x where x ->> 'rule_name' = r.rule_name);
  get diagnostics v_count = row_count;
  v_changed := v_changed || jsonb_build_object('rules_retired', v_count);
  v_recompile := v_recompile or v_count > 0;

  select * into strict v_old_config from governance.active_config c;
  update governance.active_config c set
    preset_name = v_name, currency = v_currency, default_plan = v_default_plan,
    hold_minutes = governance.preset_whole(v_settings, 'hold_minutes', 'settings', 1, 10080, 15),
    identical_window_minutes = governance.preset_whole(v_settings, 'identical_window_minutes', 'settings', 1, 10080, 60),
    reply_tokens = governance.preset_whole(v_settings, 'reply_tokens', 'settings', 0, 1000000000, 500),
    default_estimate = governance.preset_whole(v_settings, 'default_estimate', 'settings', 1, 1000000000, 300),
    settle_ceiling_tokens = governance.preset_whole(v_settings, 'settle_ceiling_tokens', 'settings', 1, 9007199254740991, 10000000),
    low_balance_tokens = governance.preset_whole(v_settings, 'low_balance_tokens', 'settings', 0, 9007199254740991, 1000),
    high_usage_tokens = governance.preset_whole(v_settings, 'high_usage_tokens', 'settings', 0, 9007199254740991, 5000),
    decision_retention_days = governance.preset_whole(v_settings, 'decision_retention_days', 'settings', 32, 36500, 90),
    signal_interval_ms = governance.preset_whole(v_settings, 'signal_interval_ms', 'settings', 50, 60000, 250),
    updated_at = clock_timestamp()
  returning * into v_config;
  if v_recompile then
    perform governance.compile_rules();
  end if;
  v_changed := v_changed || jsonb_build_object('configuration',
    case when row(v_config.preset_name, v_config.currency, v_config.default_plan) is distinct from row(v_old_config.preset_name, v_old_config.currency, v_old_config.default_plan) then 1 else 0 end);
  if exists (select from jsonb_each(v_changed) x where x.value <> '0') then
    insert into governance.audit_log (created_at, action, details) values (v_now, 'apply_preset', jsonb_build_object('preset', p_preset, 'changed', v_changed));
    perform governance.ring('rules', v_now);
  end if;
  return jsonb_build_object('name', v_name, 'changed', v_changed, 'rule_set_id', (select c.rule_set_id from governance.active_config c));
end
$$;
comment on function public.apply_preset(jsonb) is
  'Makes a preset the whole configuration: adds and changes what it names, retires what it does not. Answers how many of each were changed; a second time nothing is. Errors: invalid_argument, invalid_preset, invalid_rule (path in details).';
revoke all on function public.apply_preset(jsonb) from public, anon, authenticated;
grant execute on function public.apply_preset(jsonb) to service_role;

-- ---------------------------------------------------------------------------------------------------------------
-- The feed
-- ---------------------------------------------------------------------------------------------------------------

create function governance.facts_json(q governance.requests, a governance.accounts) returns jsonb
  language sql stable set search_path = '' as $$
  select jsonb_build_object(
    'tokens_today', q.seen_tokens_today, 'tokens_this_month', q.seen_tokens_month, 'messages_today', q.seen_messages_today,
    'identical_messages', q.seen_identical_messages, 'seconds_since_last_message', q.seen_seconds_since, 'rapid_messages', q.seen_rapid_messages,
    'conversation_messages', q.seen_conversation_messages, 'message_words', q.message_words, 'message_characters', q.message_characters,
    'estimated_tokens', q.estimated_tokens, 'complexity', q.seen_complexity, 'hour_utc', extract(hour from q.created_at at time zone 'UTC')::int,
    'hour_local', extract(hour from q.created_at at time zone a.timezone)::int, 'weekday_local', extract(isodow from q.created_at at time zone a.timezone)::int,
    'plan', q.plan_id, 'model', q.requested_model, 'provider', governance.provider_of(q.requested_model, q.created_at), 'task_type', q.task_type, 'scope_id', q.scope_id,
    'available_tokens', q.subscription_tokens + q.purchased_tokens + q.promotional_tokens - q.total_reserved_tokens + q.reserved_tokens,
    'usage_percent', q.seen_usage_percent, 'cost_today_micros', q.seen_cost_today_micros, 'cost_this_month_micros', q.seen_cost_month_micros,
    'account_age_days', floor(extract(epoch from q.created_at - a.created_at) / 86400)::int, 'is_flagged', q.seen_flagged, 'topic', q.seen_topic)
$$;
comment on function governance.facts_json(governance.requests, governance.accounts) is 'The facts of a decision as they were seen; the message itself is never kept.';

create function governance.rule_names(p_version_ids bigint[], p_mode text default null) returns jsonb
  language sql stable set search_path = '' as $$
  select coalesce(jsonb_agg(v.rule_name order by n), '[]')
  from unnest(p_version_ids) with ordinality i(version_id, n) join governance.rule_versions v using (version_id)
  where p_mode is null or v.rule ->> 'mode' = p_mode
$$;
comment on function governance.rule_names(bigint[], text) is 'Names of rule versions, in order; of one mode alone if said.';

create function governance.feed_low_id(p_since timestamptz) returns bigint
  language plpgsql stable set search_path = '' as $$
declare
  v_low bigint := 0;
  v_high bigint;
  v_mid bigint;
  v_at timestamptz;
begin
  -- Ids follow time closely: halve until the first call at or after the moment.
  select max(r.decision_id) into v_high from governance.requests r;
  v_high := coalesce(v_high, 0);
  while v_low < v_high loop
    v_mid := (v_low + v_high) / 2;
    select r.created_at into v_at from governance.requests r where r.decision_id > v_mid order by r.decision_id limit 1;
    if v_at is null or v_at >= p_since then v_high := v_mid; else v_low := v_mid + 1; end if;
  end loop;
  return v_low;
end
$$;
comment on function governance.feed_low_id(timestamptz) is 'An id at or before the first call since a moment.';

create function governance.ended_below(p_bound xid8, p_snapshot pg_snapshot) returns boolean
  language sql immutable set search_path = '' as $$
  select p_bound > '0'::xid8 and pg_snapshot_xmax(p_snapshot) >= p_bound and not exists (select from pg_snapshot_xip(p_snapshot) x where x < p_bound)
$$;
comment on function governance.ended_below(xid8, pg_snapshot) is 'Whether every transaction with a number below the bound had ended when the snapshot was taken; false for no bound.';

create function public.usage_events_since(p_cursor text default null, p_limit int default 500, p_filter jsonb default '{}') returns jsonb
  language plpgsql stable security definer set search_path = '' set jit = off as $$
declare
  -- A cursor says what its reader has: every event up to low, all that was visible in base, and, while it pages
  -- through what is visible in page, those of them up to after. base_high and page_high are the highest ids visible
  -- then. So an event whose transaction commits late is new to every reader, whatever its id, and nothing comes twice.
  -- base_bound and page_bound are above every transaction number that was given out when those highest ids were read
  -- (0 where that is not known): a snapshot's own xmax is not.
  v_low bigint := 0;
  v_base pg_snapshot;
  v_base_high bigint := 0;
  v_base_bound xid8 := '0';
  v_page pg_snapshot;
  v_page_high bigint := 0;
  v_page_bound xid8 := '0';
  v_after bigint := 0;
  v_now pg_snapshot := pg_current_snapshot();
  v_now_high bigint;
  v_now_bound xid8 := '0';
  v_has_xid boolean := pg_is_in_recovery() or pg_current_xact_id_if_assigned() is not null;
  v_parts text[];
  v_key text;
  v_account_id bigint;
  v_decision text;
  v_reason text;
  v_model text;
  v_kinds text[];
  v_since timestamptz;
  v_facts boolean := false;
  v_ids bigint[];
  v_all_ids bigint[] := '{}';
  v_room int;
  v_events jsonb;
begin
  if p_limit is null or p_limit not between 1 and 5000 then
    perform governance.fail('PT400', 'invalid_argument', 'p_limit is a whole number from 1 to 5000');
  end if;
  if coalesce(jsonb_typeof(p_filter), 'object') <> 'object' then
    perform governance.fail('PT400', 'invalid_argument', 'p_filter is a JSON object');
  end if;
  for v_key in select jsonb_object_keys(coalesce(p_filter, '{}')) loop
    if v_key not in ('user_id', 'decision', 'reason', 'model', 'kinds', 'since', 'facts') then
      perform governance.fail('PT400', 'invalid_argument', format('p_filter.%s is unknown: user_id, decision, reason, model, kinds, since, facts are', left(v_key, 64)));
    end if;
  end loop;
  v_decision := p_filter ->> 'decision';
  v_reason := p_filter ->> 'reason';
  v_model := p_filter ->> 'model';
  v_facts := coalesce(p_filter -> 'facts', 'false') = 'true';
  begin
    v_since := (p_filter ->> 'since')::timestamptz;
    if coalesce(p_filter -> 'kinds', 'null') <> 'null' then
      v_kinds := array(select jsonb_array_elements_text(p_filter -> 'kinds'));
    end if;
    if p_cursor is not null and p_cursor <> 'now' then
      v_parts := string_to_array(p_cursor, '.');
      if v_parts[1] <> '2' or cardinality(v_parts) <> 9 then
        raise exception using errcode = 'invalid_text_representation';
      end if;
      v_low := v_parts[2]::bigint;
      v_base := nullif(v_parts[3], '-')::pg_snapshot;
      v_base_high := v_parts[4]::bigint;
      v_page := nullif(v_parts[5], '-')::pg_snapshot;
      v_page_high := v_parts[6]::bigint;
      v_after := v_parts[7]::bigint;
      v_base_bound := v_parts[8]::xid8;
      v_page_bound := v_parts[9]::xid8;
    end if;
  exception when data_exception then
    perform governance.fail('PT400', 'invalid_argument', 'p_cursor is null, "now", or a next_cursor as it was answered; p_filter.since is a moment, p_filter.kinds a list');
  end;
  if p_filter ->> 'user_id' is not null then
    select a.account_id into v_account_id from governance.accounts a where a.user_id = p_filter ->> 'user_id';
    if v_account_id is null then
      -- Nobody of that name yet: nothing has happened, and the reader keeps its place.
      v_account_id := -1;
    end if;
  end if;
  select greatest((select max(r.decision_id) from governance.requests r), (select max(t.transaction_id) from governance.token_transactions t),
    (select max(h.event_id) from governance.hold_events h), 0) into v_now_high;
  -- Writers have their number before their event id. So whoever took an id up to the highest has a number below the one
  -- that this transaction takes now.
  if not v_has_xid then
    v_now_bound := pg_current_xact_id();
  end if;
  if p_cursor = 'now' then
    -- Transactions that began more than an hour ago are not waited for.
    return jsonb_build_object('events', '[]'::jsonb, 'next_cursor',
      format('2.%s.%s.%s.-.0.0.%s.0', governance.feed_low_id(governance.now() - interval '1 hour'), v_now, v_now_high, v_now_bound));
  end if;
  if p_cursor is null and v_since is not null then
    v_low := governance.feed_low_id(v_since - interval '1 hour');
  end if;

  loop
    if v_page is null then
      v_page := v_now;
      v_page_high := v_now_high;
      v_page_bound := v_now_bound;
      v_after := v_low;
    end if;
    v_room := p_limit - cardinality(v_all_ids);
    select array_agg(e.id order by e.id) into v_ids from (
      select u.id from (
        (select r.decision_id as id from governance.requests r
          where r.decision_id > v_after
            and (pg_visible_in_snapshot(r.xid, v_page) or r.xid >= pg_snapshot_xmax(v_now))
            and (v_base is null or not (pg_visible_in_snapshot(r.xid, v_base) or r.xid >= pg_snapshot_xmax(v_now)))
            and (v_account_id is null or r.account_id = v_account_id) and (v_decision is null or r.decision = v_decision)
            and (v_reason is null or r.reason = v_reason) and (v_model is null or r.model = v_model or r.requested_model = v_model)
            and (v_since is null or r.created_at >= v_since)
            and (v_kinds is null or case when r.decision = 'block' then 'blocked' else 'authorized' end = any (v_kinds))
          order by r.decision_id limit v_room)
        union all
        (select t.transaction_id from governance.token_transactions t
          where t.transaction_id > v_after and t.transaction_type = 'usage' and t.decision_id is not null
            and (pg_visible_in_snapshot(t.xid, v_page) or t.xid >= pg_snapshot_xmax(v_now))
            and (v_base is null or not (pg_visible_in_snapshot(t.xid, v_base) or t.xid >= pg_snapshot_xmax(v_now)))
            and (v_account_id is null or t.account_id = v_account_id) and (v_since is null or t.created_at >= v_since)
            and (v_kinds is null or 'settled' = any (v_kinds))
            and ((v_decision is null and v_reason is null and v_model is null) or exists (
              select from governance.requests r where r.decision_id = t.decision_id and (v_decision is null or r.decision = v_decision)
                and (v_reason is null or r.reason = v_reason) and (v_model is null or r.settled_model = v_model or r.requested_model = v_model)))
          order by t.transaction_id limit v_room)
        union all
        (select h.event_id from governance.hold_events h
          where h.event_id > v_after
            and (pg_visible_in_snapshot(h.xid, v_page) or h.xid >= pg_snapshot_xmax(v_now))
            and (v_base is null or not (pg_visible_in_snapshot(h.xid, v_base) or h.xid >= pg_snapshot_xmax(v_now)))
            and (v_account_id is null or h.account_id = v_account_id) and (v_since is null or h.created_at >= v_since)
            and (v_kinds is null or h.kind = any (v_kinds))
            and ((v_decision is null and v_reason is null and v_model is null) or exists (
              select from governance.requests r where r.decision_id = h.decision_id and (v_decision is null or r.decision = v_decision)
                and (v_reason is null or r.reason = v_reason) and (v_model is null or r.model = v_model or r.requested_model = v_model)))
          order by h.event_id limit v_room)
      ) u order by u.id limit v_room
    ) e;
    v_all_ids := v_all_ids || coalesce(v_ids, '{}');
    if cardinality(v_ids) = v_room then
      v_after := v_ids[v_room];
      exit;
    end if;
    -- All that page shows is delivered: it becomes the base. Where every transaction below a bound had ended by then,
    -- nothing can come any more at or below the highest id that goes with it.
    if governance.ended_below(v_page_bound, v_page) then
      v_low := greatest(v_low, v_page_high);
    elsif governance.ended_below(v_base_bound, v_page) then
      v_low := greatest(v_low, v_base_high);
    end if;
    v_base := v_page;
    v_base_high := v_page_high;
    v_base_bound := v_page_bound;
    if v_page::text = v_now::text then
      v_page := null;
      v_after := 0;
      exit;
    end if;
    v_page := null;
  end loop;

  select coalesce(jsonb_agg(e.event || case when v_facts and e.event ->> 'kind' in ('authorized', 'blocked') then e.facts else '{}' end order by e.id), '[]') into v_events
  from (
    select i.id,
      case when q.decision_id = i.id and t.transaction_id is null then
        jsonb_build_object('facts', governance.facts_json(q, a),
          'plan', (select jsonb_build_object('monthly_allowance', p.monthly_allowance, 'daily_limit', q.daily_limit, 'monthly_limit', q.monthly_limit) from governance.plans p where p.plan_id = q.plan_id),
          'local_day', (q.created_at at time zone a.timezone)::date, 'matched', governance.rule_names(q.matched_version_ids, 'enforce')) end as facts,
      jsonb_build_object(
        'event_id', i.id,
        'kind', case when t.transaction_id is not null then 'settled' when h.event_id is not null then h.kind when q.decision = 'block' then 'blocked' else 'authorized' end,
        'at', coalesce(t.created_at, h.created_at, q.created_at),
        'request_id', coalesce(q.request_id, t.reference), 'decision_id', coalesce(q.decision_id, t.decision_id, h.decision_id),
        'user_id', a.user_id, 'display_name', a.display_name, 'plan_id', coalesce(q.plan_id, a.plan_id),
        'decision', q.decision, 'reason', case when h.event_id is not null then h.reason else q.reason end, 'http_status', q.http_status,
        'requested_model', q.requested_model, 'model', case when t.transaction_id is not null then coalesce(q.settled_model, q.model) else q.model end,
        'task_type', q.task_type, 'scope_id', q.scope_id, 'conversation_id', q.conversation_id,
        'tokens', case when t.transaction_id is not null then coalesce(q.charged_tokens, -t.amount) when h.event_id is not null then h.tokens
          when q.decision = 'block' then q.estimated_tokens else q.reserved_tokens end,
        'input_tokens', case when t.transaction_id is not null then q.input_tokens end,
        'output_tokens', case when t.transaction_id is not null then q.output_tokens end,
        'cost_micros', case when t.transaction_id is not null then q.cost_micros end,
        'currency', case when t.transaction_id is not null then q.currency end,
        'warnings', coalesce(to_jsonb(q.warnings), '[]'),
        'rule_name', (select v.rule_name from governance.rule_versions v where v.version_id = q.rule_version_id),
        'rule_names', governance.rule_names(q.matched_version_ids)) as event
    from unnest(v_all_ids) i(id)
    left join governance.token_transactions t on t.transaction_id = i.id
    left join governance.hold_events h on h.event_id = i.id
    left join governance.requests q on q.decision_id = coalesce(t.decision_id, h.decision_id, i.id)
    join governance.accounts a on a.account_id = coalesce(t.account_id, h.account_id, q.account_id)
  ) e;
  return jsonb_build_object('events', v_events,
    'next_cursor', format('2.%s.%s.%s.%s.%s.%s.%s.%s', v_low, coalesce(v_base::text, '-'), v_base_high, coalesce(v_page::text, '-'), v_page_high, v_after,
      v_base_bound, v_page_bound));
end
$$;
comment on function public.usage_events_since(text, int, jsonb) is
  'What happened after a cursor (null: from the beginning, or from p_filter.since; "now": from now on), oldest first; late commits come late, nothing comes twice. Filter: user_id, decision, reason, model, kinds (authorized, blocked, settled, released, expired, quarantined), since, facts. A page shorter than p_limit is the end for now. Errors: invalid_argument.';
revoke all on function public.usage_events_since(text, int, jsonb) from public, anon, authenticated;
grant execute on function public.usage_events_since(text, int, jsonb) to service_role;

revoke all on all functions in schema governance from public;
