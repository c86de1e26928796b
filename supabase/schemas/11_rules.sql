-- Rules: their versions, the facts they read, what a rule may contain, and saving one.

create table governance.rules (
  rule_name text primary key,
  version int not null,
  version_id bigint not null,
  rule_type text not null,
  priority int not null,
  mode text not null check (mode in ('enforce', 'shadow', 'off')),
  is_active boolean not null,
  conditions jsonb not null,
  action jsonb not null,
  applies_to jsonb not null,
  description text,
  updated_at timestamptz not null,
  updated_by text,
  retired_at timestamptz
);

comment on table governance.rules is 'Rules as they are now. Every earlier state is in governance.rule_versions.';

create table governance.rule_versions (
  version_id bigint generated always as identity primary key,
  rule_name text not null,
  version int not null,
  rule jsonb not null,
  created_at timestamptz not null,
  created_by text,
  reason text,
  -- The rule was taken out of use; what it was stays readable.
  is_retired boolean not null default false,
  unique (rule_name, version)
);

comment on table governance.rule_versions is 'Every version of every rule, as saved or retired, with who and why; '
  'append-only.';

create table governance.timed_rules (
  rule_name text primary key,
  -- When the rule goes back, and to which version; null: there was no rule before, and it is retired.
  back_at timestamptz not null,
  back_version_id bigint,
  operator text
);

comment on table governance.timed_rules is 'Rules that were changed for a while. The first call after the moment, or '
  'upkeep, puts them back (governance.end_timed_rules); any other change of the rule ends this.';

create table governance.rule_sets (
  rule_set_id bigint generated always as identity primary key,
  -- In order of evaluation; rules that are off or retired are not in it.
  version_ids bigint[] not null,
  created_at timestamptz not null default now()
);

comment on table governance.rule_sets is 'Which rule versions were in force together: a decision names its set.';

create type governance.verdict as (
  blocked boolean,
  reason text,
  message text,
  block_minutes int,
  version_id bigint,
  warnings text[],
  truncate_to_words int,
  model text,
  flag_reason text,
  flag_version_id bigint,
  cost_factor numeric,
  matched_version_ids bigint[]
);

create type governance.compiled_condition as (expression text, leaves int, facts text[]);

-- The facts that rules read, by their names in docs/RULES.md: one row, worked out by governance.authorize_calls and
-- kept with the call. A new fact is a line here, one there and one in the core's table. The message is a fact too, but
-- not in the row: it is never kept.
create type governance.facts as (
  -- Settled in the account's local day and month, plus held now
  tokens_today bigint,
  tokens_this_month bigint,
  -- Messages: this one included; null or 0 without one
  messages_today int,
  identical_messages int,
  seconds_since_last_message numeric,
  rapid_messages int,
  conversation_messages int,
  message_words int,
  message_characters int,
  estimated_tokens bigint,
  complexity numeric,
  hour_utc int,
  hour_local int,
  weekday_local int,
  plan text,
  model text,
  provider text,
  task_type text,
  scope_id text,
  available_tokens bigint,
  usage_percent bigint,
  cost_today_micros bigint,
  cost_this_month_micros bigint,
  account_age_days int,
  is_flagged boolean,
  topic text
);

create function governance.fact_type(p_fact text) returns text
  language sql stable set search_path = '' as $$
  select case when p_fact = 'message' then 'text' else (
    select case t.typcategory when 'N' then 'number' when 'S' then 'text' when 'B' then 'boolean' end
    from pg_catalog.pg_attribute a join pg_catalog.pg_type t on t.oid = a.atttypid
    where a.attrelid = 'governance.facts'::regclass and a.attname = p_fact and not a.attisdropped) end
$$;
comment on function governance.fact_type(text) is 'text, number or boolean; null for an unknown fact.';

create function governance.invalid_rule(p_path text, p_problem text) returns void
  language plpgsql set search_path = '' as $$
begin
  perform governance.fail('PT422', 'invalid_rule', format('%s: %s', p_path, p_problem), p_path);
end
$$;
comment on function governance.invalid_rule(text, text) is 'Refuses a rule, naming the place and the problem.';

create function governance.check_action(p_action jsonb) returns jsonb
  language plpgsql immutable set search_path = '' as $$
declare
  v_kind text;
  v_spec jsonb;
  v_key text;
  v_by numeric;
begin
  if jsonb_typeof(p_action) is distinct from 'object' or p_action = '{}' then
    perform governance.invalid_rule('action',
      'one or more of block, warn, truncate, route, flag, deflect, multiply_cost is needed');
  end if;
  if p_action ? 'block' and p_action ? 'deflect' then
    perform governance.invalid_rule('action', 'block and deflect cannot be in one action');
  end if;
  for v_kind, v_spec in select * from jsonb_each(p_action) loop
    if v_kind not in ('block', 'warn', 'truncate', 'route', 'flag', 'deflect', 'multiply_cost') then
      perform governance.invalid_rule('action.' || left(v_kind, 60), 'unknown action');
    end if;
    if jsonb_typeof(v_spec) <> 'object' then
      perform governance.invalid_rule('action.' || v_kind, 'an object is needed');
    end if;
    for v_key in select jsonb_object_keys(v_spec) loop
      if not (case v_kind
        when 'block' then v_key in ('reason', 'message', 'minutes')
        when 'warn' then v_key in ('message')
        when 'truncate' then v_key in ('words')
        when 'route' then v_key in ('model')
        when 'flag' then v_key in ('reason')
        when 'deflect' then v_key in ('message', 'reason')
        else v_key in ('by') end) then
        perform governance.invalid_rule(format('action.%s.%s', v_kind, left(v_key, 60)), 'unknown key');
      end if;
    end loop;
    if v_kind in ('block', 'flag') or (v_kind = 'deflect' and v_spec ? 'reason') then
      if governance.check_text(v_spec -> 'reason', format('action.%s.reason', v_kind), 64) !~ '^[a-z][a-z0-9_]*$' then
        perform governance.invalid_rule(format('action.%s.reason', v_kind),
          'a reason has small letters, digits and _ and begins with a letter');
      end if;
    end if;
    if v_kind in ('warn', 'deflect') or (v_kind = 'block' and v_spec ? 'message') then
      perform governance.check_text(v_spec -> 'message', format('action.%s.message', v_kind), 2000);
    end if;
    if v_kind = 'block' and v_spec ? 'minutes' then
      perform governance.check_whole(v_spec -> 'minutes', 'action.block.minutes', 1, 525600);
    elsif v_kind = 'truncate' then
      perform governance.check_whole(v_spec -> 'words', 'action.truncate.words', 1, 100000);
    elsif v_kind = 'route' then
      perform governance.check_text(v_spec -> 'model', 'action.route.model', 200);
    elsif v_kind = 'multiply_cost' then
      if jsonb_typeof(v_spec -> 'by') is distinct from 'number' then
        perform governance.invalid_rule('action.multiply_cost.by',
          'a number from 0.001 to 1000 with at most three decimals is needed');
      end if;
      v_by := (v_spec ->> 'by')::numeric;
      if v_by not between 0.001 and 1000 or v_by <> round(v_by, 3) then
        perform governance.invalid_rule('action.multiply_cost.by',
          'a number from 0.001 to 1000 with at most three decimals is needed');
      end if;
    end if;
  end loop;
  return p_action;
end
$$;
comment on function governance.check_action(jsonb) is 'The action, if docs/RULES.md allows it.';

create function governance.check_rule(p_rule jsonb) returns jsonb
  language plpgsql stable set search_path = '' as $$
declare
  v_applies jsonb := '{}';
  v_key text;
  v_list jsonb;
  v_item jsonb;
  v_mode text;
  v_active boolean := true;
  v_values bigint;
  v_characters bigint;
begin
  if jsonb_typeof(p_rule) is distinct from 'object' then
    perform governance.invalid_rule('rule', 'an object is needed');
  end if;
  perform governance.check_text(p_rule -> 'rule_name', 'rule_name', 100);
  if p_rule -> 'rule_type' is not null and p_rule -> 'rule_type' <> 'null' then
    perform governance.check_text(p_rule -> 'rule_type', 'rule_type', 64);
  end if;
  if p_rule -> 'priority' is not null and p_rule -> 'priority' <> 'null' then
    perform governance.check_whole(p_rule -> 'priority', 'priority', -2147483648, 2147483647);
  end if;
  v_mode := coalesce(p_rule ->> 'mode', 'enforce');
  if v_mode not in ('enforce', 'shadow', 'off') then
    perform governance.invalid_rule('mode', 'enforce, shadow or off is needed');
  end if;
  if p_rule -> 'is_active' is not null and p_rule -> 'is_active' <> 'null' then
    if jsonb_typeof(p_rule -> 'is_active') <> 'boolean' then
      perform governance.invalid_rule('is_active', 'true or false is needed');
    end if;
    v_active := (p_rule ->> 'is_active')::boolean;
  end if;
  if p_rule -> 'description' is not null and p_rule -> 'description' <> 'null' then
    if jsonb_typeof(p_rule -> 'description') <> 'string' or char_length(p_rule ->> 'description') > 2000 then
      perform governance.invalid_rule('description', 'a text of at most 2,000 characters is needed');
    end if;
  end if;
  if p_rule -> 'applies_to' is not null and p_rule -> 'applies_to' <> 'null' then
    if jsonb_typeof(p_rule -> 'applies_to') <> 'object' then
      perform governance.invalid_rule('applies_to', 'an object with plans and scopes is needed');
    end if;
    for v_key, v_list in select * from jsonb_each(p_rule -> 'applies_to') loop
      if v_key not in ('plans', 'scopes') then
        perform governance.invalid_rule('applies_to.' || left(v_key, 60), 'plans and scopes are known');
      end if;
      continue when v_list = 'null';
      if jsonb_typeof(v_list) <> 'array' or jsonb_array_length(v_list) > 1000 then
        perform governance.invalid_rule('applies_to.' || v_key, 'a list of at most 1,000 texts is needed');
      end if;
      for v_item in select * from jsonb_array_elements(v_list) loop
        perform governance.check_text(v_item, 'applies_to.' || v_key, 255);
      end loop;
      if jsonb_array_length(v_list) > 0 then
        v_applies := v_applies || jsonb_build_object(v_key, v_list);
      end if;
    end loop;
  end if;
  select count(*), coalesce(sum(char_length(x.v #>> '{}')) filter (where jsonb_typeof(x.v) = 'string'), 0)
    into v_values, v_characters
  from jsonb_path_query(p_rule -> 'conditions', 'strict $.**') x(v);
  if v_values > 10000 or v_characters > 100000 then
    perform governance.invalid_rule('conditions',
      'conditions have at most 10,000 values and 100,000 characters of text in all');
  end if;
  perform governance.compile_condition(p_rule -> 'conditions', 'conditions', 1);
  return jsonb_build_object(
    'rule_name', p_rule ->> 'rule_name',
    'rule_type', coalesce(p_rule ->> 'rule_type', 'custom'),
    'conditions', p_rule -> 'conditions',
    'action', governance.check_action(p_rule -> 'action'),
    'priority', coalesce((p_rule ->> 'priority')::numeric::int, 100),
    'mode', v_mode,
    'is_active', v_active,
    'applies_to', v_applies,
    'description', p_rule ->> 'description');
end
$$;
comment on function governance.check_rule(jsonb) is 'The rule with its defaults filled in; raises invalid_rule with '
  'the path of what is wrong.';

create function governance.rule_json(r governance.rules) returns jsonb
  language sql stable set search_path = '' as $$
  select jsonb_build_object('rule_name', r.rule_name, 'rule_type', r.rule_type, 'conditions', r.conditions, 'action',
    r.action,
    'priority', r.priority, 'mode', r.mode, 'is_active', r.is_active, 'applies_to', r.applies_to, 'version', r.version,
    'description', r.description, 'updated_at', r.updated_at, 'updated_by', r.updated_by)
    || coalesce((select jsonb_build_object('back_at', t.back_at) from governance.timed_rules t
      where t.rule_name = r.rule_name and r.retired_at is null), '{}')
$$;
comment on function governance.rule_json(governance.rules) is 'A rule as functions return it.';

create function governance.store_rule(p_rule jsonb, p_operator text, p_now timestamptz,
  p_reason text default null) returns governance.rules
  language plpgsql set search_path = '' as $$
declare
  v_version int;
  v_version_id bigint;
  v_rule governance.rules;
begin
  delete from governance.timed_rules t where t.rule_name = p_rule ->> 'rule_name';
  select coalesce(max(v.version), 0) + 1 into v_version from governance.rule_versions v
    where v.rule_name = p_rule ->> 'rule_name';
  insert into governance.rule_versions (rule_name, version, rule, created_at, created_by, reason)
  values (p_rule ->> 'rule_name', v_version, p_rule, p_now, p_operator, p_reason)
  returning version_id into v_version_id;
  insert into governance.rules as r (rule_name, version, version_id, rule_type, priority, mode, is_active, conditions,
    action, applies_to, description, updated_at, updated_by)
  values (p_rule ->> 'rule_name', v_version, v_version_id, p_rule ->> 'rule_type', (p_rule ->> 'priority')::int,
    p_rule ->> 'mode',
    (p_rule ->> 'is_active')::boolean, p_rule -> 'conditions', p_rule -> 'action', p_rule -> 'applies_to',
      p_rule ->> 'description', p_now, p_operator)
  on conflict (rule_name) do update set
    version = excluded.version, version_id = excluded.version_id, rule_type = excluded.rule_type,
      priority = excluded.priority, mode = excluded.mode,
    is_active = excluded.is_active, conditions = excluded.conditions, action = excluded.action,
      applies_to = excluded.applies_to,
    description = excluded.description, updated_at = excluded.updated_at, updated_by = excluded.updated_by,
      retired_at = null
  returning * into v_rule;
  return v_rule;
end
$$;
comment on function governance.store_rule(jsonb, text, timestamptz, text) is
  'Writes a checked rule as its next version. Call governance.compile_rules afterwards.';

create function governance.store_retirement(p_rule_name text, p_operator text, p_now timestamptz,
  p_reason text default null) returns governance.rules
  language plpgsql set search_path = '' as $$
declare
  v_rule governance.rules;
  v_version_id bigint;
begin
  delete from governance.timed_rules t where t.rule_name = p_rule_name;
  insert into governance.rule_versions (rule_name, version, rule, created_at, created_by, reason, is_retired)
  select v.rule_name, v.version + 1, v.rule, p_now, p_operator, p_reason, true
  from governance.rule_versions v where v.rule_name = p_rule_name
  order by v.version desc limit 1
  returning version_id into v_version_id;
  update governance.rules r set version = r.version + 1, version_id = v_version_id, updated_at = p_now,
    updated_by = p_operator, retired_at = p_now
  where r.rule_name = p_rule_name returning * into strict v_rule;
  return v_rule;
end
$$;
comment on function governance.store_retirement(text, text, timestamptz, text) is
  'Takes a rule out of use, as a version of its own. Call governance.compile_rules afterwards.';

create function governance.end_timed_rules(p_now timestamptz) returns int
  language plpgsql set search_path = '' as $$
declare
  v_timed governance.timed_rules;
  v_rule governance.rules;
  v_ended int := 0;
begin
  -- Who changes rules or presets waits for this lock until the round of upkeep that took it ends.
  if not exists (select from governance.timed_rules t where t.back_at <= p_now) then return 0; end if;
  -- A change of rules under way leaves them compiled; the next call looks again.
  if not pg_try_advisory_xact_lock(7254012) then return 0; end if;
  for v_timed in select * from governance.timed_rules t where t.back_at <= p_now order by t.back_at, t.rule_name loop
    if v_timed.back_version_id is null then
      v_rule := governance.store_retirement(v_timed.rule_name, v_timed.operator, p_now, 'Its time was over');
    else
      v_rule := governance.store_rule((select v.rule from governance.rule_versions v
        where v.version_id = v_timed.back_version_id), v_timed.operator, p_now, 'Its time was over: back by itself');
    end if;
    insert into governance.audit_log (created_at, operator, action, rule_name, reason, details)
    values (p_now, v_timed.operator, 'timed_rule_ended', v_timed.rule_name, 'Its time was over',
      jsonb_build_object('version', v_rule.version));
    v_ended := v_ended + 1;
  end loop;
  if v_ended > 0 then
    perform governance.compile_rules();
    perform governance.ring('rules', p_now);
  end if;
  return v_ended;
end
$$;
comment on function governance.end_timed_rules(timestamptz) is 'Puts rules back whose time is over; returns how many.';

create function governance.check_rule_version(p_rule_name text, p_current governance.rules, p_expected_version int)
  returns void
  language plpgsql stable set search_path = '' as $$
begin
  -- A retired rule is expected as the version that it was retired with, or as none.
  if p_expected_version is null or p_expected_version = coalesce(p_current.version, 0)
    or (p_expected_version = 0 and p_current.retired_at is not null) then
    return;
  end if;
  perform governance.fail('PT409', 'version_conflict',
    case when p_current.version is null or p_current.retired_at is not null
      then format('There is no rule "%s" in force', left(p_rule_name, 64))
      else format('Rule "%s" is at version %s, not %s', left(p_rule_name, 64), p_current.version,
        p_expected_version) end,
    case when p_current.version is null or p_current.retired_at is not null then 'null'
      else governance.rule_json(p_current)::text end);
end
$$;
comment on function governance.check_rule_version(text, governance.rules, int) is
  'Refuses a change over somebody else''s: version_conflict, with the current rule in its details.';

create function public.save_rule(p_command_id text, p_rule jsonb, p_expected_version int default null,
  p_operator text default null, p_reason text default null, p_until timestamptz default null) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_checked jsonb;
  v_current governance.rules;
  v_back_version_id bigint;
  v_rule governance.rules;
  v_answer jsonb;
  v_now timestamptz;
begin
  perform governance.refuse_others('save_rule');
  perform governance.check_id('p_command_id', p_command_id);
  perform governance.check_optional('p_operator', p_operator, 255);
  perform governance.check_optional('p_reason', p_reason, 1000);
  if p_rule is null then
    perform governance.fail('PT400', 'invalid_argument', 'p_rule is needed');
  end if;
  v_checked := governance.check_rule(p_rule);
  -- One writer of rules at a time: each replaces governance.evaluate_rules.
  perform pg_advisory_xact_lock(7254012);
  v_answer := governance.begin_command('operator', p_command_id, case when p_reason is null and p_until is null
    then row('save_rule', p_rule, p_expected_version, p_operator)::text
    else row('save_rule', p_rule, p_expected_version, p_operator, p_reason, p_until)::text end);
  if v_answer is not null then return v_answer; end if;
  perform governance.refuse_lone_change('{rule}');
  v_now := governance.now();
  if p_until <= v_now or p_until > v_now + interval '1 year' then
    perform governance.fail('PT400', 'invalid_argument', 'p_until is a moment within the next year');
  end if;
  perform governance.end_timed_rules(v_now);
  select * into v_current from governance.rules r where r.rule_name = v_checked ->> 'rule_name';
  perform governance.check_rule_version(v_checked ->> 'rule_name', v_current, p_expected_version);
  -- Who changes a timed change goes back to what was before the first one.
  select t.back_version_id into v_back_version_id from governance.timed_rules t
    where t.rule_name = v_checked ->> 'rule_name';
  if not found and v_current.retired_at is null then v_back_version_id := v_current.version_id; end if;
  v_rule := governance.store_rule(v_checked, p_operator, v_now, p_reason);
  if p_until is not null then
    insert into governance.timed_rules (rule_name, back_at, back_version_id, operator)
    values (v_rule.rule_name, p_until, v_back_version_id, p_operator);
  end if;
  perform governance.compile_rules();
  insert into governance.audit_log (created_at, operator, action, rule_name, reason, command_id, details)
  values (v_now, p_operator, 'save_rule', v_rule.rule_name, p_reason, p_command_id,
    jsonb_build_object('version', v_rule.version, 'before', case
      when v_current.retired_at is null and v_current.version is not null then governance.rule_json(v_current) end)
      || case when p_until is null then '{}' else jsonb_build_object('until', p_until) end);
  perform governance.ring('rules', v_now);
  return governance.end_command('operator', p_command_id, governance.rule_json(v_rule));
end
$$;
comment on function public.save_rule(text, jsonb, int, text, text, timestamptz) is
  'Saves a rule as its next version, in force at once. p_expected_version (0 for a new rule) refuses a save over '
  'someone else''s. With p_until the rule goes back by itself then to what it was before. Errors: invalid_argument, '
  'invalid_rule (path in details), version_conflict (current rule in details), idempotency_conflict.';
revoke all on function public.save_rule(text, jsonb, int, text, text, timestamptz) from public, anon, authenticated;
grant execute on function public.save_rule(text, jsonb, int, text, text, timestamptz) to service_role;

create function public.list_rules() returns jsonb
  language sql stable security definer set search_path = '' as $$
  select governance.refuse_others('list_rules');
  select coalesce(jsonb_agg(governance.rule_json(r) || jsonb_build_object('matches_24h', coalesce(m.matches, 0))
    order by r.priority, r.rule_name collate "C"), '[]')
  from governance.rules r
  left join governance.matches_since(governance.now() - interval '24 hours') m using (rule_name)
  where r.retired_at is null
$$;
comment on function public.list_rules() is 'The rules that are not retired, in the order in which they run, each with '
  'the calls that it matched in the last 24 hours, enforced or in shadow.';
revoke all on function public.list_rules() from public, anon, authenticated;
grant execute on function public.list_rules() to service_role;

create function governance.rule_names(p_version_ids bigint[], p_mode text default null) returns jsonb
  language sql stable set search_path = '' as $$
  select coalesce(jsonb_agg(v.rule_name order by n), '[]')
  from unnest(p_version_ids) with ordinality i(version_id, n) join governance.rule_versions v using (version_id)
  where p_mode is null or v.rule ->> 'mode' = p_mode
$$;
comment on function governance.rule_names(bigint[], text) is
  'Names of rule versions, in order; only those of a mode where p_mode names one.';

create function governance.define_rules(p_match text, p_walk text, p_topic text, p_complexity text) returns void
  language plpgsql set search_path = '' as $$
declare
  v_facts text := 'f governance.facts, p_message text, p_phrases text, p_monthly_allowance bigint, p_daily_limit bigint,
    p_monthly_limit bigint';
begin
  -- No search path on the first: it is inlined.
  execute format('create or replace function governance.rules_match(%s) returns boolean language sql stable as %L',
    v_facts, 'select ' || p_match);
  execute format('create or replace function governance.rules_topic(p_phrases text) returns text
    language plpgsql immutable set search_path = %L as %L', '', 'begin return ' || p_topic || '; end');
  execute format('create or replace function governance.rules_complexity(p_complexity numeric, p_phrases text,
    p_characters int) returns numeric language plpgsql immutable set search_path = %L as %L', '',
    'begin return ' || p_complexity || '; end');
  execute format('create or replace function governance.evaluate_rules(%s, p_at timestamptz) returns governance.verdict
    language plpgsql stable set search_path = %L as %L',
    v_facts, '', E'declare\n  v governance.verdict;\nbegin\n' || p_walk || E'  return v;\nend\n');
end
$$;
comment on function governance.define_rules(text, text, text,
  text) is 'Makes the functions that calls ask about rules, from what governance.compile_rules wrote.';

create trigger rule_versions_append_only before update or delete or truncate on governance.rule_versions
  for each statement execute function governance.refuse_change();
