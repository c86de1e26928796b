-- Rules: versions, checks, and their compilation into SQL.

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

comment on table governance.rules is 'Rules as they stand. Every state they had is in governance.rule_versions.';

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

create function governance.compile_number(p_value jsonb, p_path text) returns text
  language plpgsql immutable set search_path = '' as $$
declare
  v_number numeric;
begin
  if jsonb_typeof(p_value) is distinct from 'number' then
    perform governance.invalid_rule(p_path, 'a number is needed');
  end if;
  v_number := (p_value #>> '{}')::numeric;
  if abs(v_number) >= 1e300 or (v_number <> 0 and abs(v_number) < 1e-300) then
    perform governance.invalid_rule(p_path, 'the number is too large or too small');
  end if;
  if not (v_number = trunc(v_number) and abs(v_number) < 9007199254740992)
    and length(rtrim(ltrim(replace(abs(v_number)::text, '.', ''), '0'), '0')) > 15 then
    perform governance.invalid_rule(p_path, 'a number is whole and below 2^53, or has at most 15 significant digits');
  end if;
  return format('(%s)', v_number);
end
$$;
comment on function governance.compile_number(jsonb, text) is 'A number of a rule as SQL.';

create function governance.compile_text(p_value jsonb, p_path text) returns text
  language plpgsql immutable set search_path = '' as $$
begin
  if jsonb_typeof(p_value) is distinct from 'string' then
    perform governance.invalid_rule(p_path, 'a text is needed');
  end if;
  if char_length(p_value #>> '{}') > 1000 then
    perform governance.invalid_rule(p_path, 'a text has at most 1,000 characters');
  end if;
  return quote_literal(p_value #>> '{}') || '::text';
end
$$;
comment on function governance.compile_text(jsonb, text) is 'A text of a rule as SQL.';

create function governance.compile_leaf(p_node jsonb, p_path text) returns governance.compiled_condition
  language plpgsql stable set search_path = '' as $$
declare
  v_fact text := p_node ->> 'fact';
  v_op text := p_node ->> 'op';
  v_value jsonb := p_node -> 'value';
  v_type text;
  v_column text;
  v_items text[];
  v_phrase text;
  v_key text;
  v_at int := 0;
  v_item jsonb;
  v_expression text;
begin
  for v_key in select jsonb_object_keys(p_node) loop
    if v_key not in ('fact', 'op', 'value') then
      perform governance.invalid_rule(p_path || '.' || left(v_key, 60), 'a leaf has fact, op and value only');
    end if;
  end loop;
  if jsonb_typeof(p_node -> 'fact') is distinct from 'string' then
    perform governance.invalid_rule(p_path || '.fact', 'the name of a fact is needed');
  end if;
  v_type := governance.fact_type(v_fact);
  if v_type is null then
    perform governance.invalid_rule(p_path || '.fact', format('unknown fact "%s"', left(v_fact, 60)));
  end if;
  if jsonb_typeof(p_node -> 'op') is distinct from 'string'
    or v_op not in ('=', '!=', '>', '>=', '<', '<=', 'in', 'not_in', 'between', 'contains', 'matches_any') then
    perform governance.invalid_rule(p_path || '.op', format('unknown op "%s"', left(coalesce(v_op, ''), 60)));
  end if;
  if v_value is null then
    perform governance.invalid_rule(p_path || '.value', 'a value is needed');
  end if;
  if (v_op in ('>', '>=', '<', '<=', 'between') and v_type <> 'number')
    or (v_op in ('in', 'not_in') and v_type = 'boolean')
    or (v_op in ('contains', 'matches_any') and v_type <> 'text') then
    perform governance.invalid_rule(p_path || '.op',
      format('"%s" does not fit the %s fact "%s"', v_op, v_type, v_fact));
  end if;
  v_column := case v_fact when 'message' then 'p_message' else 'f.' || v_fact end;

  if jsonb_typeof(v_value) = 'object' then
    if v_type <> 'number' or v_op not in ('=', '!=', '>', '>=', '<', '<=')
      or v_value ->> 'plan' is null or v_value ->> 'plan' not in ('monthly_allowance', 'daily_limit', 'monthly_limit')
      or (select count(*) from jsonb_object_keys(v_value)) <> 1 then
      perform governance.invalid_rule(p_path || '.value',
        'a plan value is {"plan": "monthly_allowance" | "daily_limit" | "monthly_limit"}, compared with a number fact');
    end if;
    v_expression := format('(%s %s p_%s) is true', v_column, case v_op when '!=' then '<>'
      else v_op end, v_value ->> 'plan');
  elsif v_op in ('=', '!=', '>', '>=', '<', '<=') then
    v_expression := format('(%s %s %s) is true', v_column, case v_op when '!=' then '<>' else v_op end,
      case v_type
        when 'number' then governance.compile_number(v_value, p_path || '.value')
        when 'text' then governance.compile_text(v_value, p_path || '.value')
        else case when jsonb_typeof(v_value) = 'boolean' then v_value::text end
      end);
    if v_expression is null or v_expression not like '%) is true' or jsonb_typeof(v_value) = 'null' then
      perform governance.invalid_rule(p_path || '.value', format('a %s is needed', v_type));
    end if;
    if v_type = 'boolean' and jsonb_typeof(v_value) <> 'boolean' then
      perform governance.invalid_rule(p_path || '.value', 'true or false is needed');
    end if;
  elsif v_op = 'between' then
    if jsonb_typeof(v_value) <> 'array' or jsonb_array_length(v_value) <> 2 then
      perform governance.invalid_rule(p_path || '.value', '[low, high] is needed');
    end if;
    v_expression := format('(%1$s >= %2$s and %1$s <= %3$s) is true', v_column,
      governance.compile_number(v_value -> 0, p_path || '.value[0]'),
        governance.compile_number(v_value -> 1, p_path || '.value[1]'));
  elsif v_op in ('in', 'not_in') then
    if jsonb_typeof(v_value) <> 'array' then
      perform governance.invalid_rule(p_path || '.value', 'a list is needed');
    end if;
    if jsonb_array_length(v_value) > 1000 then
      perform governance.invalid_rule(p_path || '.value', 'a list has at most 1,000 values');
    end if;
    for v_item in select * from jsonb_array_elements(v_value) loop
      v_items := v_items || case v_type
        when 'number' then governance.compile_number(v_item, format('%s.value[%s]', p_path, v_at))
        else governance.compile_text(v_item, format('%s.value[%s]', p_path, v_at)) end;
      v_at := v_at + 1;
    end loop;
    v_expression := format(case v_op when 'in' then '(%s = any (array[%s]::%s[])) is true'
      else '(%s <> all (array[%s]::%s[])) is true' end,
      v_column, array_to_string(v_items, ','), case v_type when 'number' then 'numeric' else 'text' end);
  else
    if jsonb_typeof(v_value) = 'string' then
      v_value := jsonb_build_array(v_value);
    elsif jsonb_typeof(v_value) <> 'array' then
      perform governance.invalid_rule(p_path || '.value', 'a phrase or a list of phrases is needed');
    end if;
    if jsonb_array_length(v_value) > 1000 then
      perform governance.invalid_rule(p_path || '.value', 'a list has at most 1,000 phrases');
    end if;
    for v_item in select * from jsonb_array_elements(v_value) loop
      perform governance.compile_text(v_item, format('%s.value[%s]', p_path, v_at));
      v_phrase := governance.sought_phrase(v_item #>> '{}');
      if btrim(v_phrase) = '' then
        perform governance.invalid_rule(format('%s.value[%s]', p_path, v_at), 'a phrase needs a letter or a digit');
      end if;
      v_items := v_items || format('strpos(%s, %L) > 0',
        case v_fact when 'message' then 'p_phrases'
          else 'governance.space_phrases(governance.fold(' || v_column || '))' end, v_phrase);
      v_at := v_at + 1;
    end loop;
    v_expression := format('(%s is not null and (%s)) is true', v_column,
      coalesce(array_to_string(v_items, case v_op when 'contains' then ' and ' else ' or ' end), case v_op
        when 'contains' then 'true' else 'false' end));
  end if;
  return row(v_expression, 1, array[v_fact])::governance.compiled_condition;
end
$$;
comment on function governance.compile_leaf(jsonb,
  text) is 'A leaf of a rule''s conditions as SQL that is true or false, never null.';

create function governance.compile_condition(p_node jsonb, p_path text,
  p_depth int) returns governance.compiled_condition
  language plpgsql stable set search_path = '' as $$
declare
  v_key text;
  v_child jsonb;
  v_compiled governance.compiled_condition;
  v_parts text[] := '{}';
  v_leaves int := 0;
  v_facts text[] := '{}';
  v_at int := 0;
begin
  if p_depth > 20 then
    perform governance.invalid_rule(p_path, 'conditions nest at most 20 deep');
  end if;
  if jsonb_typeof(p_node) is distinct from 'object' then
    perform governance.invalid_rule(p_path,
      'a condition is {"all": […]}, {"any": […]}, {"not": …} or {"fact", "op", "value"}');
  end if;
  if p_node ? 'fact' or p_node ? 'op' then
    return governance.compile_leaf(p_node, p_path);
  end if;
  if (select count(*) from jsonb_object_keys(p_node)) <> 1 then
    perform governance.invalid_rule(p_path, 'a condition has exactly one of all, any, not, or is a leaf with a fact');
  end if;
  select k into v_key from jsonb_object_keys(p_node) k;
  if v_key = 'not' then
    v_compiled := governance.compile_condition(p_node -> 'not', p_path || '.not', p_depth + 1);
    return row(format('(not %s)', v_compiled.expression), v_compiled.leaves,
      v_compiled.facts)::governance.compiled_condition;
  end if;
  if v_key not in ('all', 'any') then
    perform governance.invalid_rule(p_path || '.' || left(v_key, 60),
      'a condition has all, any, not, or fact, op and value');
  end if;
  if jsonb_typeof(p_node -> v_key) <> 'array' then
    perform governance.invalid_rule(p_path || '.' || v_key, 'a list of conditions is needed');
  end if;
  for v_child in select * from jsonb_array_elements(p_node -> v_key) loop
    v_compiled := governance.compile_condition(v_child, format('%s.%s[%s]', p_path, v_key, v_at), p_depth + 1);
    v_parts := v_parts || v_compiled.expression;
    v_leaves := v_leaves + v_compiled.leaves;
    v_facts := v_facts || v_compiled.facts;
    v_at := v_at + 1;
    if v_leaves > 200 or v_at > 1000 then
      perform governance.invalid_rule(p_path, 'conditions have at most 200 leaves');
    end if;
  end loop;
  return row(
    case when v_at = 0 then case v_key when 'all' then 'true' else 'false' end
      else '(' || array_to_string(v_parts, case v_key when 'all' then ' and ' else ' or ' end) || ')' end,
    v_leaves, v_facts)::governance.compiled_condition;
end
$$;
comment on function governance.compile_condition(jsonb, text,
  int) is 'A rule''s conditions as an SQL expression over the facts f; refuses what docs/RULES.md does not allow.';

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
    perform governance.invalid_rule('action', 'block and deflect cannot stand in one action');
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

create function governance.rule_condition(p_rule jsonb) returns text
  language plpgsql stable set search_path = '' as $$
declare
  v_condition text := (governance.compile_condition(p_rule -> 'conditions', 'conditions', 1)).expression;
begin
  if p_rule -> 'applies_to' ? 'plans' then
    v_condition := format('(f.plan = any (%L::text[])) is true and ',
      array(select jsonb_array_elements_text(p_rule -> 'applies_to' -> 'plans'))) || v_condition;
  end if;
  if p_rule -> 'applies_to' ? 'scopes' then
    v_condition := format('(f.scope_id = any (%L::text[])) is true and ',
      array(select jsonb_array_elements_text(p_rule -> 'applies_to' -> 'scopes'))) || v_condition;
  end if;
  return '(' || v_condition || ')';
end
$$;
comment on function governance.rule_condition(jsonb) is 'Whether a rule applies and matches, as an SQL expression over '
  'the facts f_*.';

create function governance.compile_rule(p_version_id bigint, p_rule jsonb) returns text
  language plpgsql stable set search_path = '' as $$
declare
  v_condition text := governance.rule_condition(p_rule);
  v_action jsonb := p_rule -> 'action';
  v_code text;
begin
  v_code := format(E'  if %s then\n    v.matched_version_ids := v.matched_version_ids || %s::bigint;\n', v_condition,
    p_version_id);
  if p_rule ->> 'mode' = 'enforce' then
    if v_action ? 'warn' then
      v_code := v_code || format(E'    v.warnings := v.warnings || %L::text;\n', v_action -> 'warn' ->> 'message');
    end if;
    if v_action ? 'truncate' then
      v_code := v_code || format(E'    v.truncate_to_words := least(v.truncate_to_words, %s);\n',
        (v_action -> 'truncate' ->> 'words')::numeric::int);
    end if;
    if v_action ? 'route' then
      v_code := v_code || format(E'    v.model := %1$L; f.model := %1$L; f.provider := governance.provider_of(%1$L, '
        'p_at);\n',
        v_action -> 'route' ->> 'model');
    end if;
    if v_action ? 'flag' then
      v_code := v_code || format(E'    if v.flag_reason is null then v.flag_reason := %L; v.flag_version_id := %s; end '
        'if;\n',
        v_action -> 'flag' ->> 'reason', p_version_id);
    end if;
    if v_action ? 'multiply_cost' then
      v_code := v_code || format(E'    v.cost_factor := coalesce(v.cost_factor, 1) * %s;\n',
        v_action -> 'multiply_cost' ->> 'by');
    end if;
    if v_action ? 'block' or v_action ? 'deflect' then
      v_code := v_code || format(E'    v.blocked := true; v.reason := %L; v.message := %L; v.block_minutes := %L; '
        'v.version_id := %s;\n    return v;\n',
        coalesce(v_action -> 'block' ->> 'reason', v_action -> 'deflect' ->> 'reason', 'off_topic'),
        coalesce(v_action -> 'block' ->> 'message', v_action -> 'deflect' ->> 'message'),
        (v_action -> 'block' ->> 'minutes')::numeric::int, p_version_id);
    end if;
  end if;
  return v_code || E'  end if;\n';
end
$$;
comment on function governance.compile_rule(bigint, jsonb) is 'One rule as a statement of governance.evaluate_rules.';

create function governance.compile_rules() returns bigint
  language plpgsql set search_path = '' as $$
declare
  v_rule record;
  v_walk text := '';
  v_any text[] := '{}';
  v_facts text[] := '{}';
  v_version_ids bigint[] := '{}';
  v_rule_set_id bigint;
  v_topic text := 'null::text';
  v_complexity text := 'p_complexity';
  v_characters bigint;
begin
  perform pg_advisory_xact_lock(7254012);
  -- Every connection keeps the compiled rules in memory, some sixty times their size. What a rule goes back to by
  -- itself keeps its room: a call that puts it back must not be refused for that.
  select coalesce((select sum(greatest(
      case when r.is_active and r.mode <> 'off' and r.retired_at is null
        then length(r.conditions::text) + length(r.applies_to::text) else 0 end,
      case when (v.rule ->> 'is_active')::boolean and v.rule ->> 'mode' <> 'off'
        then length((v.rule -> 'conditions')::text) + length((v.rule -> 'applies_to')::text) else 0 end))
    from governance.rules r left join governance.timed_rules t using (rule_name)
    left join governance.rule_versions v on v.version_id = t.back_version_id), 0)
    + coalesce((select sum(length(s.value::text)) from governance.settings s
      where s.key in ('topics', 'complexity_words')), 0) into v_characters;
  if v_characters > 500000 then
    perform governance.invalid_rule('conditions', format('the rules that are on, topics and complexity words have at '
      'most 500,000 characters in all, and would have %s: turn a rule off, or shorten lists',
      to_char(v_characters, 'FM999,999,999,999')));
  end if;
  for v_rule in
    select r.version_id, jsonb_build_object('conditions', r.conditions, 'action', r.action, 'applies_to', r.applies_to,
      'mode', r.mode) as rule
    from governance.rules r
    where r.is_active and r.mode <> 'off' and r.retired_at is null
    order by r.priority, r.rule_name collate "C"
  loop
    v_walk := v_walk || governance.compile_rule(v_rule.version_id, v_rule.rule);
    v_any := v_any || governance.rule_condition(v_rule.rule);
    v_facts := v_facts || (governance.compile_condition(v_rule.rule -> 'conditions', 'conditions', 1)).facts;
    v_version_ids := v_version_ids || v_rule.version_id;
  end loop;
  if 'topic' = any (v_facts) then
    select 'case ' || string_agg(format('when %s then %L', t.is_about, t.topic), ' ' order by t.place)
      || ' end' into v_topic
    from (
      select e.place, e.topic ->> 'topic' as topic, (
        select coalesce(string_agg(format('strpos(p_phrases, %L) > 0', p.phrase), ' or '), 'false')
        from (select governance.sought_phrase(w) as phrase
          from jsonb_array_elements_text(e.topic -> 'words') w) p
        where btrim(p.phrase) <> '') as is_about
      from jsonb_array_elements((select s.value from governance.settings s
        where s.key = 'topics')) with ordinality e(topic, place)) t;
    v_topic := coalesce(v_topic, 'null::text');
  end if;
  if 'complexity' = any (v_facts) then
    select format('case when p_complexity is null and p_phrases is not null then
      round(least(1000, 200 * (%s) + least(400, p_characters * 2::bigint / 3)) / 1000.0,
        3) else p_complexity end',
      coalesce(string_agg(format('(strpos(p_phrases, %L) > 0)::int', p.phrase), ' + '), '0')) into v_complexity
    from (select distinct governance.sought_phrase(w) as phrase
      from jsonb_array_elements_text((select s.value from governance.settings s where s.key = 'complexity_words')) w) p
    where btrim(p.phrase) <> '';
  end if;
  perform governance.define_rules(coalesce(nullif(array_to_string(v_any, E'\n    or '), ''), 'false'), v_walk, v_topic,
    v_complexity);
  insert into governance.rule_sets (version_ids) values (v_version_ids) returning rule_set_id into v_rule_set_id;
  update governance.active_config set
    rule_set_id = v_rule_set_id, updated_at = clock_timestamp(),
    rules_due_at = (select min(t.back_at) from governance.timed_rules t),
    rules_read_identical = 'identical_messages' = any (v_facts),
      rules_read_words = v_facts && array['message', 'topic', 'complexity'],
    rules_read_provider = 'provider' = any (v_facts);
  return v_rule_set_id;
end
$$;
comment on function governance.compile_rules() is
  'Makes the functions that calls ask about rules anew from the rules and word lists in force, and names the set; one '
  'at a time.';

-- Configuration, operators' commands, and the feed that readers follow.

create function governance.rule_json(r governance.rules) returns jsonb
  language sql stable set search_path = '' as $$
  select jsonb_build_object('rule_name', r.rule_name, 'rule_type', r.rule_type, 'conditions', r.conditions, 'action',
    r.action,
    'priority', r.priority, 'mode', r.mode, 'is_active', r.is_active, 'applies_to', r.applies_to, 'version', r.version,
    'description', r.description, 'updated_at', r.updated_at, 'updated_by', r.updated_by)
    || coalesce((select jsonb_build_object('back_at', t.back_at) from governance.timed_rules t
      where t.rule_name = r.rule_name and r.retired_at is null), '{}')
$$;
comment on function governance.rule_json(governance.rules) is 'A rule as functions answer it.';

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
  -- Whoever changes rules now leaves them compiled; the next call looks again.
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
comment on function governance.end_timed_rules(timestamptz) is 'Puts rules back whose time is over; answers how many.';

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
  -- One writer of rules at a time: each makes governance.evaluate_rules anew.
  perform pg_advisory_xact_lock(7254012);
  v_answer := governance.begin_command('operator', p_command_id, case when p_reason is null and p_until is null
    then row('save_rule', p_rule, p_expected_version, p_operator)::text
    else row('save_rule', p_rule, p_expected_version, p_operator, p_reason, p_until)::text end);
  if v_answer is not null then return v_answer; end if;
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
comment on function governance.rule_names(bigint[],
  text) is 'Names of rule versions, in order; of one mode alone if said.';

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
