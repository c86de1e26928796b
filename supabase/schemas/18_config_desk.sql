-- Plans, packs, prices, estimates, topics, alerts, routes and settings on the screen: each a record with versions,
-- changed on the version that was seen, looked at before it goes live, and brought back. Rules are changed here only
-- together with them, or where a second person is asked.

create function governance.config_version_json(v governance.config_versions) returns jsonb
  language sql immutable set search_path = '' as $$
  select jsonb_build_object('version_id', v.version_id, 'kind', v.kind, 'key', v.key, 'version', v.version,
    'record', v.record, 'at', v.created_at, 'by', v.created_by, 'reason', v.reason, 'is_retired', v.is_retired)
$$;
comment on function governance.config_version_json(governance.config_versions) is
  'A version of a record as functions return it.';

create function governance.latest_config(p_kind text, p_key text) returns governance.config_versions
  language sql stable set search_path = '' as $$
  select v.* from governance.config_versions v where v.kind = p_kind and v.key = p_key
  order by v.version desc limit 1
$$;
comment on function governance.latest_config(text, text) is 'The last version of a record, a retired one too.';

create function public.console_config() returns jsonb
  language sql stable security definer set search_path = '' as $$
  select governance.refuse_others('console_config');
  select jsonb_build_object(
    'records', (select coalesce(jsonb_agg(governance.config_version_json(v) order by v.kind, v.key collate "C"), '[]')
      from (select distinct on (x.kind, x.key) x.* from governance.config_versions x
        order by x.kind, x.key, x.version desc) v
      where not v.is_retired),
    'latest_version_id', coalesce((select max(x.version_id) from governance.config_versions x), 0),
    'second_person_for', to_jsonb(governance.setting_texts('second_person_for', '{}')))
$$;
comment on function public.console_config() is 'The configuration in force without its rules: each record with its '
  'version, who set it and why; and the kinds whose changes need a second person.';
revoke all on function public.console_config() from public, anon, authenticated;
grant execute on function public.console_config() to service_role;

create function public.console_config_changes(p_kind text default null, p_key text default null,
  p_before bigint default null, p_limit int default 50) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
declare
  v_changes jsonb;
begin
  perform governance.refuse_others('console_config_changes');
  if p_limit is null or p_limit not between 1 and 200 then
    perform governance.fail('PT400', 'invalid_argument', 'p_limit is a whole number from 1 to 200');
  end if;
  select coalesce(jsonb_agg(governance.config_version_json(v) || jsonb_build_object('before', (
    select governance.config_version_json(b) from governance.config_versions b
    where b.kind = v.kind and b.key = v.key and b.version < v.version order by b.version desc limit 1))
    order by v.version_id desc), '[]') into v_changes
  from (select x.* from governance.config_versions x
    where (p_kind is null or x.kind = p_kind) and (p_key is null or x.key = p_key)
      and (p_before is null or x.version_id < p_before)
    order by x.version_id desc limit p_limit) v;
  return jsonb_build_object('changes', v_changes);
end
$$;
comment on function public.console_config_changes(text, text, bigint, int) is
  'Changes of the configuration, newest first, of one record, one kind or all, each with the version before it. '
  'p_before: the version_id to go on from.';
revoke all on function public.console_config_changes(text, text, bigint, int) from public, anon, authenticated;
grant execute on function public.console_config_changes(text, text, bigint, int) to service_role;

create function public.console_config_as_of(p_version_id bigint) returns jsonb
  language sql stable security definer set search_path = '' as $$
  select governance.refuse_others('console_config_as_of');
  select coalesce(jsonb_agg(governance.config_version_json(v) order by v.kind, v.key collate "C"), '[]')
  from (select distinct on (x.kind, x.key) x.* from governance.config_versions x
    where x.version_id <= p_version_id order by x.kind, x.key, x.version_id desc) v
  where not v.is_retired
$$;
comment on function public.console_config_as_of(bigint) is 'The configuration as it was right after a change.';
revoke all on function public.console_config_as_of(bigint) from public, anon, authenticated;
grant execute on function public.console_config_as_of(bigint) to service_role;

create function governance.check_config_changes(p_changes jsonb) returns void
  language plpgsql stable set search_path = '' as $$
declare
  v_change jsonb;
  v_place bigint;
begin
  if jsonb_typeof(p_changes) is distinct from 'array' or jsonb_array_length(p_changes) not between 1 and 2000 then
    perform governance.fail('PT400', 'invalid_argument', 'p_changes is a list of 1 to 2,000 changes');
  end if;
  for v_change, v_place in select * from jsonb_array_elements(p_changes) with ordinality loop
    if jsonb_typeof(v_change) <> 'object'
      or not exists (select from governance.config_kinds() k where k.kind = v_change ->> 'kind')
      or jsonb_typeof(v_change -> 'key') is distinct from 'string'
      or char_length(v_change ->> 'key') not between 1 and 500
      or jsonb_typeof(coalesce(v_change -> 'record', 'null')) not in ('object', 'null')
      or jsonb_typeof(coalesce(v_change -> 'expected_version', 'null')) not in ('number', 'null') then
      perform governance.fail('PT400', 'invalid_argument', format('p_changes[%s] is {kind, key, record, '
        'expected_version}; record is null to retire it', v_place - 1));
    end if;
    if jsonb_typeof(v_change -> 'record') = 'object' then
      if v_change ->> 'kind' = 'price' then
        perform governance.preset_text(v_change -> 'record', 'provider', 'prices');
        perform governance.preset_text(v_change -> 'record', 'model', 'prices', null, 200);
      end if;
      if governance.config_key(v_change ->> 'kind', v_change -> 'record') is distinct from v_change ->> 'key' then
        perform governance.fail('PT400', 'invalid_argument', format('p_changes[%s].key is not the key of its record',
          v_place - 1));
      end if;
      if v_change ->> 'kind' = 'setting' and (
        exists (select from governance.config_kinds() k where k.setting = v_change ->> 'key')
        or coalesce(v_change #> '{record,value}', 'null') = 'null') then
        perform governance.invalid_preset('settings.' || left(v_change ->> 'key', 64), 'a value is needed');
      end if;
    elsif v_change ->> 'kind' = 'project' then
      perform governance.fail('PT400', 'invalid_argument', 'The record of the project cannot be retired');
    end if;
  end loop;
  if exists (select from jsonb_array_elements(p_changes) c group by c ->> 'kind', c ->> 'key' having count(*) > 1) then
    perform governance.fail('PT400', 'invalid_argument', 'p_changes names a record twice');
  end if;
end
$$;
comment on function governance.check_config_changes(jsonb) is
  'Refuses a list of changes that is not {kind, key, record, expected_version}, each record once.';

create function governance.changed_list(p_list jsonb, p_kind text, p_changes jsonb) returns jsonb
  language sql stable set search_path = '' as $$
  with changes as (
    select c.item ->> 'key' as key, nullif(c.item -> 'record', 'null') as record, c.place
    from jsonb_array_elements(p_changes) with ordinality c(item, place) where c.item ->> 'kind' = p_kind
  ), items as (
    select i.item, i.place, governance.config_key(p_kind, i.item) as key
    from jsonb_array_elements(coalesce(p_list, '[]')) with ordinality i(item, place)
  )
  select coalesce(jsonb_agg(x.record order by x.is_new, x.place), '[]')
  from (
    select coalesce(c.record, i.item) as record, false as is_new, i.place
    from items i left join changes c using (key) where c.key is null or c.record is not null
    union all
    select c.record, true, c.place from changes c
    where c.record is not null and not exists (select from items i where i.key = c.key)) x
$$;
comment on function governance.changed_list(jsonb, text, jsonb) is
  'A list of a preset with the changes of its kind: replaced in place, left out where they are retired, new ones at '
  'the end.';

create function governance.changed_preset(p_preset jsonb, p_changes jsonb) returns jsonb
  language plpgsql stable set search_path = '' as $$
declare
  v_preset jsonb := p_preset;
  v_settings jsonb := p_preset -> 'settings';
  v_kind record;
  v_list jsonb;
begin
  for v_kind in select k.* from governance.config_kinds() k where k.list is not null
    and exists (select from jsonb_array_elements(p_changes) c where c ->> 'kind' = k.kind)
  loop
    v_preset := jsonb_set(v_preset, array[v_kind.list],
      governance.changed_list(v_preset -> v_kind.list, v_kind.kind, p_changes));
  end loop;
  v_settings := (v_settings - coalesce((select array_agg(c ->> 'key') from jsonb_array_elements(p_changes) c
      where c ->> 'kind' = 'setting'), '{}'))
    || coalesce((select jsonb_object_agg(c ->> 'key', c #> '{record,value}') from jsonb_array_elements(p_changes) c
      where c ->> 'kind' = 'setting' and jsonb_typeof(c -> 'record') = 'object'), '{}');
  for v_kind in select k.* from governance.config_kinds() k where k.setting is not null
    and exists (select from jsonb_array_elements(p_changes) c where c ->> 'kind' = k.kind)
  loop
    v_list := governance.changed_list(v_settings -> v_kind.setting, v_kind.kind, p_changes);
    v_settings := case v_list when '[]' then v_settings - v_kind.setting
      else v_settings || jsonb_build_object(v_kind.setting, v_list) end;
  end loop;
  return v_preset || jsonb_build_object('settings', v_settings) || coalesce((
    select c -> 'record' from jsonb_array_elements(p_changes) c where c ->> 'kind' = 'project'), '{}');
end
$$;
comment on function governance.changed_preset(jsonb, jsonb) is 'A preset as changes leave it.';

create function governance.check_config_versions(p_changes jsonb) returns void
  language plpgsql stable set search_path = '' as $$
declare
  v_change jsonb;
  v_latest governance.config_versions;
  v_rule governance.rules;
  v_expected numeric;
begin
  for v_change in select * from jsonb_array_elements(p_changes) loop
    continue when coalesce(v_change -> 'expected_version', 'null') = 'null';
    v_expected := (v_change ->> 'expected_version')::numeric;
    if v_change ->> 'kind' = 'rule' then
      select * into v_rule from governance.rules r where r.rule_name = v_change ->> 'key';
      perform governance.check_rule_version(v_change ->> 'key', v_rule,
        case when v_expected between 0 and 2147483647 then v_expected::int else -1 end);
      continue;
    end if;
    v_latest := governance.latest_config(v_change ->> 'kind', v_change ->> 'key');
    -- A retired record is expected as the version that it was retired with, or as none.
    continue when v_expected = coalesce(v_latest.version, 0) or (v_expected = 0 and v_latest.is_retired);
    perform governance.fail('PT409', 'version_conflict', format('%s "%s" was changed by somebody else',
      initcap(v_change ->> 'kind'), left(v_change ->> 'key', 64)),
      case when v_latest.version is null or v_latest.is_retired then 'null'
        else governance.config_version_json(v_latest)::text end);
  end loop;
end
$$;
comment on function governance.check_config_versions(jsonb) is
  'Refuses changes over somebody else''s: version_conflict, with the record as it is now in details.';

create function governance.refuse_lone_change(p_kinds text[], p_keys text[] default '{}') returns void
  language plpgsql stable set search_path = '' as $$
declare
  v_asked text[] := governance.setting_texts('second_person_for', '{}');
begin
  -- Whoever could change this setting alone would not be bound by it.
  if v_asked && p_kinds or (v_asked <> '{}' and 'second_person_for' = any (p_keys)) then
    perform governance.fail('PT403', 'approval_needed', 'In this project a second person approves such a change: '
      'propose it');
  end if;
end
$$;
comment on function governance.refuse_lone_change(text[], text[]) is
  'Refuses changes that need a second person (setting second_person_for: a list of kinds).';

create function governance.change_config(p_changes jsonb, p_reason text, p_operator text, p_command_id text,
  p_now timestamptz, p_more jsonb default '{}') returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_before bigint;
  v_rules_before bigint;
  v_currency text := (select c.currency from governance.active_config c);
  v_changed jsonb;
begin
  perform governance.end_timed_rules(p_now);
  perform governance.check_config_versions(p_changes);
  select coalesce(max(v.version_id), 0) into v_before from governance.config_versions v;
  select coalesce(max(v.version_id), 0) into v_rules_before from governance.rule_versions v;
  perform governance.store_preset(governance.changed_preset(public.console_preset(), p_changes), p_operator, p_reason,
    p_now);
  if exists (select from governance.active_config c where c.currency <> v_currency)
    and exists (select from governance.usage_daily u where u.cost_micros <> 0) then
    perform governance.invalid_preset('currency', format('costs are counted in %s already, and a sum holds one '
      'currency', v_currency));
  end if;
  select coalesce(jsonb_agg(x.change order by x.kind, x.key), '[]') into v_changed from (
    select v.kind, v.key, jsonb_build_object('kind', v.kind, 'key', v.key, 'version', v.version,
      'is_retired', v.is_retired) as change
    from governance.config_versions v where v.version_id > v_before
    union all
    select 'rule', v.rule_name, jsonb_build_object('kind', 'rule', 'key', v.rule_name, 'version', v.version,
      'is_retired', v.is_retired)
    from governance.rule_versions v where v.version_id > v_rules_before) x;
  if v_changed <> '[]' then
    insert into governance.audit_log (created_at, operator, action, reason, command_id, details)
    values (p_now, p_operator, 'change_config', p_reason, p_command_id,
      jsonb_build_object('changed', v_changed) || p_more);
    perform governance.ring('rules', p_now);
  end if;
  return v_changed;
end
$$;
comment on function governance.change_config(jsonb, text, text, text, timestamptz, jsonb) is
  'Applies changes to the configuration in force, all or none; returns which records have a new version. The caller '
  'holds the lock of rules and presets.';

create function public.console_apply_config(p_command_id text, p_changes jsonb, p_reason text,
  p_operator text default null) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_answer jsonb;
begin
  perform governance.refuse_others('console_apply_config');
  perform governance.check_id('p_command_id', p_command_id);
  perform governance.check_id('p_reason', p_reason, 1000);
  perform governance.check_optional('p_operator', p_operator, 255);
  perform governance.check_config_changes(p_changes);
  perform pg_advisory_xact_lock(7254012);
  v_answer := governance.begin_command('operator', p_command_id,
    row('console_apply_config', p_changes, p_reason, p_operator)::text);
  if v_answer is not null then return v_answer; end if;
  perform governance.refuse_lone_change(array_agg(c ->> 'kind'), array_agg(c ->> 'key'))
  from jsonb_array_elements(p_changes) c;
  return governance.end_command('operator', p_command_id, jsonb_build_object('changed',
    governance.change_config(p_changes, p_reason, p_operator, p_command_id, governance.now())));
end
$$;
comment on function public.console_apply_config(text, jsonb, text, text) is
  'Changes many records of the configuration, all or none. p_changes: [{kind, key, record, expected_version}], record '
  'null to retire it. Errors: invalid_argument, invalid_preset, invalid_rule (path in details), version_conflict '
  '(current record in details), approval_needed, idempotency_conflict.';
revoke all on function public.console_apply_config(text, jsonb, text, text) from public, anon, authenticated;
grant execute on function public.console_apply_config(text, jsonb, text, text) to service_role;

create function public.console_save_config(p_command_id text, p_kind text, p_key text, p_record jsonb, p_reason text,
  p_expected_version int default null, p_operator text default null) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_changes jsonb := jsonb_build_array(jsonb_build_object('kind', p_kind, 'key', p_key, 'record', p_record,
    'expected_version', p_expected_version));
  v_answer jsonb;
begin
  perform governance.refuse_others('console_save_config');
  perform governance.check_id('p_command_id', p_command_id);
  perform governance.check_id('p_reason', p_reason, 1000);
  perform governance.check_optional('p_operator', p_operator, 255);
  if p_kind = 'rule' then
    perform governance.fail('PT400', 'invalid_argument', 'Rules are saved with save_rule');
  end if;
  perform governance.check_config_changes(v_changes);
  perform pg_advisory_xact_lock(7254012);
  v_answer := governance.begin_command('operator', p_command_id,
    row('console_save_config', v_changes, p_reason, p_operator)::text);
  if v_answer is not null then return v_answer; end if;
  perform governance.refuse_lone_change(array[p_kind], array[p_key]);
  perform governance.change_config(v_changes, p_reason, p_operator, p_command_id, governance.now());
  return governance.end_command('operator', p_command_id,
    governance.config_version_json(governance.latest_config(p_kind, p_key)));
end
$$;
comment on function public.console_save_config(text, text, text, jsonb, text, int, text) is
  'Saves a record of the configuration as its next version; null retires it. p_expected_version (0 for a new one) '
  'refuses a save over someone else''s. Errors: invalid_argument, invalid_preset (path in details), version_conflict '
  '(current record in details), approval_needed, idempotency_conflict.';
revoke all on function public.console_save_config(text, text, text, jsonb, text, int, text)
  from public, anon, authenticated;
grant execute on function public.console_save_config(text, text, text, jsonb, text, int, text) to service_role;

create function governance.config_effect(p_kind text, p_key text, p_record jsonb, p_now timestamptz) returns jsonb
  language plpgsql stable set search_path = '' set jit = off as $$
declare
  v_answer jsonb := '{}';
  v_old jsonb;
  v_is_superseded boolean;
  v_from date := (p_now at time zone 'UTC')::date - 29;
  v_to date := (p_now at time zone 'UTC')::date + 1;
begin
  select v.record into v_old from governance.latest_config(p_kind, p_key) v where not v.is_retired;
  case p_kind
  when 'plan' then
    -- A day or month that has turned since the last call counts as empty.
    select jsonb_build_object('users', count(*),
      'above_daily', count(*) filter (where a.day_ends_at > p_now
        and a.day_tokens > coalesce((p_record ->> 'daily_limit')::numeric, 'infinity')),
      'above_monthly', count(*) filter (where a.month_ends_at > p_now
        and a.month_tokens > coalesce((p_record ->> 'monthly_limit')::numeric, 'infinity')),
      'allowance_tokens', count(*) * coalesce((v_old ->> 'monthly_allowance')::numeric, 0),
      'would_allowance_tokens', count(*) * coalesce((p_record ->> 'monthly_allowance')::numeric, 0)) into v_answer
    from governance.accounts a where a.plan_id = p_key;
  when 'price' then
    -- A price from another day is compared with the one that is in force.
    if v_old is null then
      select to_jsonb(p) into v_old from governance.prices p
      where p.provider = p_record ->> 'provider' and p.model = p_record ->> 'model' and p.retired_at is null
        and p.effective_from <= p_now order by p.effective_from desc limit 1;
    end if;
    -- Keys end in the day, so they sort as days do.
    v_is_superseded := exists (select from governance.prices p
      where p.provider = coalesce(p_record, v_old) ->> 'provider' and p.model = coalesce(p_record, v_old) ->> 'model'
        and p.retired_at is null and p.effective_from <= p_now
        and governance.price_key(p.provider, p.model, p.effective_from) collate "C" > p_key);
    select jsonb_build_object('is_superseded', v_is_superseded, 'calls', coalesce(sum(u.calls), 0),
      'tokens', coalesce(sum(u.input_tokens + u.output_tokens), 0), 'cost_micros', coalesce(sum(u.cost_micros), 0),
      'would_cost_micros', case
        when v_is_superseded then coalesce(sum(u.cost_micros), 0)
        when p_record is null then 0
        when v_old is null or sum(u.input_tokens::numeric * (v_old ->> 'input_micros_per_million')::numeric
          + u.output_tokens::numeric * (v_old ->> 'output_micros_per_million')::numeric) = 0
        then coalesce(round(sum(u.input_tokens::numeric * (p_record ->> 'input_micros_per_million')::numeric
          + u.output_tokens::numeric * (p_record ->> 'output_micros_per_million')::numeric) / 1000000), 0)
        -- The charged cost, scaled: cached and batch tokens keep their share.
        else round(sum(u.cost_micros) * sum(u.input_tokens::numeric
            * (p_record ->> 'input_micros_per_million')::numeric
            + u.output_tokens::numeric * (p_record ->> 'output_micros_per_million')::numeric)
          / sum(u.input_tokens::numeric * (v_old ->> 'input_micros_per_million')::numeric
            + u.output_tokens::numeric * (v_old ->> 'output_micros_per_million')::numeric)) end) into v_answer
    from governance.usage_between(v_from, v_to) u
    where u.model = coalesce(p_record ->> 'model', v_old ->> 'model');
  when 'estimate' then
    select jsonb_build_object('calls', coalesce(sum(u.calls), 0), 'mean_tokens', case when sum(u.calls) > 0
      then round(sum(u.charged_tokens) / sum(u.calls)) end) into v_answer
    from governance.usage_between(v_from, v_to) u where u.task_type = p_key;
  when 'pack' then
    select jsonb_build_object('checkouts', count(*), 'buyers', count(distinct c.account_id),
      'open_checkouts', count(*) filter (where c.closed_at is null and c.opened_at > p_now - interval '1 day'))
    into v_answer
    from governance.checkouts c where c.pack_id = p_key and c.opened_at > p_now - interval '30 days';
  when 'topic' then
    select jsonb_build_object('rules', count(*)) into v_answer from governance.rules r
    where r.retired_at is null and r.is_active and r.mode <> 'off' and r.conditions::text like '%"fact": "topic"%';
  when 'route' then
    v_answer := governance.route_effect(p_record, p_now);
  when 'alert' then
    v_answer := governance.alert_effect(p_record, v_old, p_now);
  else null;
  end case;
  return jsonb_build_object('kind', p_kind, 'key', p_key) || v_answer;
end
$$;
comment on function governance.config_effect(text, text, jsonb, timestamptz) is
  'Whom a change of a record touches, and what it costs by the last 30 days.';

create function public.console_preview_config(p_changes jsonb) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_problem jsonb;
  v_changed jsonb := '[]';
  v_message text;
  v_detail text;
  v_hint text;
  v_now timestamptz;
begin
  perform governance.refuse_others('console_preview_config');
  perform governance.check_config_changes(p_changes);
  perform pg_advisory_xact_lock(7254012);
  v_now := governance.now();
  -- Done, then rolled back: this shows what the project would refuse, and changes nothing.
  begin
    v_changed := governance.change_config(p_changes, 'preview', 'preview', null, v_now);
    raise exception using errcode = 'PT499', message = v_changed::text;
  exception
    when sqlstate 'PT499' then null;
    when sqlstate 'PT409' or sqlstate 'PT422' or sqlstate 'PT400' or sqlstate 'PT404' then
      get stacked diagnostics v_message = message_text, v_detail = pg_exception_detail, v_hint = pg_exception_hint;
      v_problem := jsonb_build_object('code', v_hint, 'message', v_message, 'path', v_detail);
  end;
  return jsonb_build_object('problem', v_problem, 'changed', v_changed,
    'effects', (select jsonb_agg(governance.config_effect(c ->> 'kind', c ->> 'key', nullif(c -> 'record', 'null'),
      v_now) order by c ->> 'kind', c ->> 'key') from jsonb_array_elements(p_changes) c));
end
$$;
comment on function public.console_preview_config(jsonb) is
  'What changes of the configuration would do: the project''s refusal, if any, the records with a new version, and '
  'whom each touches. Changes nothing. Errors: invalid_argument.';
revoke all on function public.console_preview_config(jsonb) from public, anon, authenticated;
grant execute on function public.console_preview_config(jsonb) to service_role;

create function governance.proposal_json(p governance.config_proposals) returns jsonb
  language sql immutable set search_path = '' as $$
  select jsonb_build_object('proposal_id', p.proposal_id, 'changes', p.changes, 'reason', p.reason,
    'by', p.proposed_by, 'at', p.proposed_at, 'status', p.status, 'decided_by', p.decided_by,
    'decided_at', p.decided_at, 'decision_reason', p.decision_reason)
$$;
comment on function governance.proposal_json(governance.config_proposals) is 'A proposal as functions return it.';

create function public.console_propose_config(p_command_id text, p_changes jsonb, p_reason text, p_operator text)
  returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_answer jsonb;
  v_proposal governance.config_proposals;
begin
  perform governance.refuse_others('console_propose_config');
  perform governance.check_id('p_command_id', p_command_id);
  perform governance.check_id('p_reason', p_reason, 1000);
  perform governance.check_id('p_operator', p_operator, 255);
  perform governance.check_config_changes(p_changes);
  perform governance.check_rule(c -> 'record') from jsonb_array_elements(p_changes) c
  where c ->> 'kind' = 'rule' and jsonb_typeof(c -> 'record') = 'object';
  perform pg_advisory_xact_lock(7254012);
  v_answer := governance.begin_command('operator', p_command_id,
    row('console_propose_config', p_changes, p_reason, p_operator)::text);
  if v_answer is not null then return v_answer; end if;
  perform governance.check_config_versions(p_changes);
  if (select count(*) from governance.config_proposals p where p.status = 'proposed') >= 500 then
    perform governance.fail('PT409', 'too_many_proposals',
      '500 proposals wait for a decision already: decide some of them first');
  end if;
  insert into governance.config_proposals (changes, reason, proposed_by, proposed_at)
  values (p_changes, p_reason, p_operator, governance.now()) returning * into v_proposal;
  insert into governance.audit_log (created_at, operator, action, reason, command_id, details)
  values (v_proposal.proposed_at, p_operator, 'propose_config', p_reason, p_command_id,
    jsonb_build_object('proposal_id', v_proposal.proposal_id, 'changes', p_changes));
  perform governance.ring('rules', v_proposal.proposed_at);
  return governance.end_command('operator', p_command_id, governance.proposal_json(v_proposal));
end
$$;
comment on function public.console_propose_config(text, jsonb, text, text) is
  'Proposes changes of rules and configuration to a second person; nothing changes until it is approved. Errors: '
  'invalid_argument, invalid_rule, version_conflict, too_many_proposals, idempotency_conflict.';
revoke all on function public.console_propose_config(text, jsonb, text, text) from public, anon, authenticated;
grant execute on function public.console_propose_config(text, jsonb, text, text) to service_role;

create function public.console_decide_config(p_command_id text, p_proposal_id bigint, p_approve boolean, p_reason text,
  p_operator text) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_answer jsonb;
  v_proposal governance.config_proposals;
  v_changed jsonb := '[]';
  v_now timestamptz;
begin
  perform governance.refuse_others('console_decide_config');
  perform governance.check_id('p_command_id', p_command_id);
  perform governance.check_optional('p_reason', p_reason, 1000);
  perform governance.check_id('p_operator', p_operator, 255);
  if p_proposal_id is null or p_approve is null then
    perform governance.fail('PT400', 'invalid_argument', 'p_proposal_id and p_approve are needed');
  end if;
  perform pg_advisory_xact_lock(7254012);
  v_answer := governance.begin_command('operator', p_command_id,
    row('console_decide_config', p_proposal_id, p_approve, p_reason, p_operator)::text);
  if v_answer is not null then return v_answer; end if;
  v_now := governance.now();
  select * into v_proposal from governance.config_proposals p where p.proposal_id = p_proposal_id for update;
  if v_proposal.proposal_id is null then
    perform governance.fail('PT404', 'not_found', 'There is no such proposal');
  end if;
  if v_proposal.status <> 'proposed' then
    perform governance.fail('PT409', 'already_decided', format('%s has already %s this proposal', v_proposal.decided_by,
      v_proposal.status), governance.proposal_json(v_proposal)::text);
  end if;
  if p_approve then
    if governance.is_same_person(v_proposal.proposed_by, p_operator) then
      perform governance.fail('PT403', 'same_person',
        'Somebody other than the person who proposed this change must approve it');
    end if;
    v_changed := governance.change_config(v_proposal.changes, v_proposal.reason, v_proposal.proposed_by, p_command_id,
      v_now, jsonb_build_object('proposal_id', p_proposal_id, 'approved_by', p_operator));
  end if;
  update governance.config_proposals p set status = case when p_approve then 'approved' else 'rejected' end,
    decided_by = p_operator, decided_at = v_now, decision_reason = p_reason
  where p.proposal_id = p_proposal_id returning * into v_proposal;
  insert into governance.audit_log (created_at, operator, action, reason, command_id, details)
  values (v_now, p_operator, case when p_approve then 'approve_config' else 'reject_config' end, p_reason, p_command_id,
    jsonb_build_object('proposal_id', p_proposal_id, 'proposed_by', v_proposal.proposed_by));
  perform governance.ring('rules', v_now);
  return governance.end_command('operator', p_command_id,
    governance.proposal_json(v_proposal) || jsonb_build_object('changed', v_changed));
end
$$;
comment on function public.console_decide_config(text, bigint, boolean, text, text) is
  'A second person approves proposed changes, which are in force then and there, or rejects them (their proposer may '
  'too). Errors: invalid_argument, not_found, already_decided (proposal in details), same_person, version_conflict '
  '(somebody changed a record since it was proposed), idempotency_conflict.';
revoke all on function public.console_decide_config(text, bigint, boolean, text, text)
  from public, anon, authenticated;
grant execute on function public.console_decide_config(text, bigint, boolean, text, text) to service_role;

create function public.console_config_proposals(p_limit int default 50) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
declare
  v_answer jsonb;
begin
  perform governance.refuse_others('console_config_proposals');
  if p_limit is null or p_limit not between 1 and 500 then
    perform governance.fail('PT400', 'invalid_argument', 'p_limit is a whole number from 1 to 500');
  end if;
  select coalesce(jsonb_agg(governance.proposal_json(p) order by p.status <> 'proposed', p.proposal_id desc), '[]')
  into v_answer
  from (select x.* from governance.config_proposals x
    order by x.status <> 'proposed', x.proposal_id desc limit p_limit) p;
  return jsonb_build_object('proposals', v_answer);
end
$$;
comment on function public.console_config_proposals(int) is
  'Proposed changes of rules and configuration: those that wait first, then the newest decided ones.';
revoke all on function public.console_config_proposals(int) from public, anon, authenticated;
grant execute on function public.console_config_proposals(int) to service_role;
