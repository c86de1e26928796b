-- The compilation of rules into the SQL that a call runs.

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
  'the facts f.';

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
  'Writes the functions that calls ask about rules from the rules and word lists in force, and names the set; one '
  'at a time.';
