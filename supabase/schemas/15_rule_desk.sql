-- What the rules desk asks: history and return, what a rule hit, and the calls behind it.

create function public.console_retire_rule(p_command_id text, p_rule_name text, p_reason text,
  p_expected_version int default null, p_operator text default null) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_current governance.rules;
  v_rule governance.rules;
  v_answer jsonb;
  v_now timestamptz;
begin
  perform governance.refuse_others('console_retire_rule');
  perform governance.check_id('p_command_id', p_command_id);
  perform governance.check_id('p_rule_name', p_rule_name, 100);
  perform governance.check_id('p_reason', p_reason, 1000);
  perform governance.check_optional('p_operator', p_operator, 255);
  perform pg_advisory_xact_lock(7254012);
  v_answer := governance.begin_command('operator', p_command_id,
    row('console_retire_rule', p_rule_name, p_reason, p_expected_version, p_operator)::text);
  if v_answer is not null then return v_answer; end if;
  perform governance.refuse_lone_change('{rule}');
  v_now := governance.now();
  perform governance.end_timed_rules(v_now);
  select * into v_current from governance.rules r where r.rule_name = p_rule_name and r.retired_at is null;
  if v_current.rule_name is null then
    perform governance.fail('PT404', 'not_found', format('There is no rule "%s" in force', left(p_rule_name, 64)));
  end if;
  perform governance.check_rule_version(p_rule_name, v_current, p_expected_version);
  v_rule := governance.store_retirement(p_rule_name, p_operator, v_now, p_reason);
  perform governance.compile_rules();
  insert into governance.audit_log (created_at, operator, action, rule_name, reason, command_id, details)
  values (v_now, p_operator, 'retire_rule', p_rule_name, p_reason, p_command_id,
    jsonb_build_object('version', v_rule.version, 'before', governance.rule_json(v_current)));
  perform governance.ring('rules', v_now);
  return governance.end_command('operator', p_command_id,
    governance.rule_json(v_rule) || '{"is_retired": true}');
end
$$;
comment on function public.console_retire_rule(text, text, text, int, text) is
  'Takes a rule out of use; its history stays, and save_rule brings it back. Errors: invalid_argument, not_found, '
  'version_conflict (current rule in details), idempotency_conflict.';
revoke all on function public.console_retire_rule(text, text, text, int, text) from public, anon, authenticated;
grant execute on function public.console_retire_rule(text, text, text, int, text) to service_role;

create function governance.version_json(v governance.rule_versions) returns jsonb
  language sql immutable set search_path = '' as $$
  select jsonb_build_object('version_id', v.version_id, 'rule_name', v.rule_name, 'version', v.version, 'rule', v.rule,
    'at', v.created_at, 'by', v.created_by, 'reason', v.reason, 'is_retired', v.is_retired)
$$;
comment on function governance.version_json(governance.rule_versions) is 'A version of a rule as functions return it.';

create function public.console_rule_changes(p_rule_name text default null, p_before bigint default null,
  p_limit int default 50) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
declare
  v_changes jsonb;
begin
  perform governance.refuse_others('console_rule_changes');
  if p_limit is null or p_limit not between 1 and 200 then
    perform governance.fail('PT400', 'invalid_argument', 'p_limit is a whole number from 1 to 200');
  end if;
  select coalesce(jsonb_agg(governance.version_json(v) || jsonb_build_object('before', (
    select governance.version_json(b) from governance.rule_versions b
    where b.rule_name = v.rule_name and b.version < v.version order by b.version desc limit 1))
    order by v.version_id desc), '[]') into v_changes
  from (select x.* from governance.rule_versions x
    where (p_rule_name is null or x.rule_name = p_rule_name) and (p_before is null or x.version_id < p_before)
    order by x.version_id desc limit p_limit) v;
  return jsonb_build_object('changes', v_changes, 'latest_version_id',
    (select max(x.version_id) from governance.rule_versions x));
end
$$;
comment on function public.console_rule_changes(text, bigint, int) is
  'Changes of rules, newest first, of one rule or all, each with the version before it. p_before: the version_id to go '
  'on from.';
revoke all on function public.console_rule_changes(text, bigint, int) from public, anon, authenticated;
grant execute on function public.console_rule_changes(text, bigint, int) to service_role;

create function governance.rules_as_of(p_version_id bigint) returns setof governance.rule_versions
  language sql stable set search_path = '' as $$
  select x.* from (
    select distinct on (v.rule_name) v.* from governance.rule_versions v
    where v.version_id <= p_version_id order by v.rule_name, v.version_id desc) x
  where not x.is_retired
$$;
comment on function governance.rules_as_of(bigint) is 'The rule set as it was right after a change.';

create function public.console_rules_as_of(p_version_id bigint) returns jsonb
  language sql stable security definer set search_path = '' as $$
  select governance.refuse_others('console_rules_as_of');
  select coalesce(jsonb_agg(v.rule || jsonb_build_object('version', v.version)
    order by (v.rule ->> 'priority')::int, v.rule_name collate "C"), '[]')
  from governance.rules_as_of(p_version_id) v
$$;
comment on function public.console_rules_as_of(bigint) is 'The rules as they were right after a change, in order.';
revoke all on function public.console_rules_as_of(bigint) from public, anon, authenticated;
grant execute on function public.console_rules_as_of(bigint) to service_role;

create function public.console_restore_rules(p_command_id text, p_version_id bigint, p_expected_version_id bigint,
  p_reason text, p_operator text default null) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_answer jsonb;
  v_now timestamptz;
  v_latest bigint;
  v_then governance.rule_versions;
  v_name text;
  v_changed text[] := '{}';
begin
  perform governance.refuse_others('console_restore_rules');
  perform governance.check_id('p_command_id', p_command_id);
  perform governance.check_id('p_reason', p_reason, 1000);
  perform governance.check_optional('p_operator', p_operator, 255);
  perform pg_advisory_xact_lock(7254012);
  v_answer := governance.begin_command('operator', p_command_id,
    row('console_restore_rules', p_version_id, p_expected_version_id, p_reason, p_operator)::text);
  if v_answer is not null then return v_answer; end if;
  perform governance.refuse_lone_change('{rule}');
  v_now := governance.now();
  perform governance.end_timed_rules(v_now);
  select max(v.version_id) into v_latest from governance.rule_versions v;
  if not exists (select from governance.rule_versions v where v.version_id = p_version_id) then
    perform governance.fail('PT404', 'not_found', 'There is no such change of the rules');
  end if;
  if p_expected_version_id is distinct from v_latest then
    perform governance.fail('PT409', 'version_conflict', 'Somebody changed a rule in the meantime', 'null');
  end if;
  for v_then in select * from governance.rules_as_of(p_version_id) loop
    continue when exists (select from governance.rules r join governance.rule_versions n using (version_id)
      where r.rule_name = v_then.rule_name and r.retired_at is null and n.rule = v_then.rule);
    perform governance.store_rule(governance.check_rule(v_then.rule), p_operator, v_now, p_reason);
    v_changed := v_changed || v_then.rule_name;
  end loop;
  for v_name in select r.rule_name from governance.rules r
    where r.retired_at is null
      and not exists (select from governance.rules_as_of(p_version_id) t where t.rule_name = r.rule_name)
    order by r.rule_name
  loop
    perform governance.store_retirement(v_name, p_operator, v_now, p_reason);
    v_changed := v_changed || v_name;
  end loop;
  if cardinality(v_changed) > 0 then
    perform governance.compile_rules();
    insert into governance.audit_log (created_at, operator, action, reason, command_id, details)
    values (v_now, p_operator, 'restore_rules', p_reason, p_command_id,
      jsonb_build_object('version_id', p_version_id, 'changed', to_jsonb(v_changed)));
    perform governance.ring('rules', v_now);
  end if;
  return governance.end_command('operator', p_command_id, jsonb_build_object('changed', to_jsonb(v_changed)));
end
$$;
comment on function public.console_restore_rules(text, bigint, bigint, text, text) is
  'Returns the whole rule set to what it was right after a change: rules made since are retired. p_expected_version_id '
  'is the latest change that the operator saw. Errors: invalid_argument, not_found, version_conflict, '
  'idempotency_conflict.';
revoke all on function public.console_restore_rules(text, bigint, bigint, text, text)
  from public, anon, authenticated;
grant execute on function public.console_restore_rules(text, bigint, bigint, text, text) to service_role;

create function public.console_rule_hits(p_rule_name text) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
declare
  v_now timestamptz := governance.now();
  v_hours jsonb;
  v_unblocked jsonb;
begin
  perform governance.refuse_others('console_rule_hits');
  select coalesce(jsonb_agg(jsonb_build_object('hour', h.hour, 'enforced', h.enforced, 'shadow', h.shadow)
    order by h.hour), '[]') into v_hours
  from (
    select date_trunc('hour', m.slot, 'UTC') as hour,
      coalesce(sum(m.matches) filter (where v.rule ->> 'mode' = 'enforce'), 0) as enforced,
      coalesce(sum(m.matches) filter (where v.rule ->> 'mode' = 'shadow'), 0) as shadow
    from governance.matches_by_slot() m join governance.rule_versions v using (version_id)
    where v.rule_name = p_rule_name and m.slot >= date_trunc('hour', v_now - interval '47 hours', 'UTC')
    group by 1) h;
  -- Blocks of this rule that an operator lifted: people who asked, and were right.
  select jsonb_agg(jsonb_build_object('at', u.created_at, 'user_id', a.user_id, 'by', u.operator, 'reason', u.reason)
    order by u.audit_id desc) into v_unblocked
  from (
    select g.* from governance.audit_log g
    where g.created_at >= v_now - interval '7 days' and g.action = 'unblock_user'
      and exists (select from governance.audit_log b
        where b.account_id = g.account_id and b.action = 'rule_block' and b.rule_name = p_rule_name
          and b.audit_id < g.audit_id and b.created_at >= g.created_at - interval '7 days')
    order by g.audit_id desc limit 50) u
  join governance.accounts a using (account_id);
  return jsonb_build_object('now', v_now, 'hours', v_hours, 'unblocked', coalesce(v_unblocked, '[]'));
end
$$;
comment on function public.console_rule_hits(text) is
  'Calls that a rule matched in each hour of the last two days, enforced and in shadow, and the users whom an operator '
  'unblocked after it within seven days (at most 50).';
revoke all on function public.console_rule_hits(text) from public, anon, authenticated;
grant execute on function public.console_rule_hits(text) to service_role;

create function public.console_rule_calls(p_rule_name text, p_from timestamptz, p_to timestamptz,
  p_before bigint default null, p_limit int default 50) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
declare
  v_versions bigint[];
  v_calls jsonb;
begin
  perform governance.refuse_others('console_rule_calls');
  if p_limit is null or p_limit not between 1 and 200 then
    perform governance.fail('PT400', 'invalid_argument', 'p_limit is a whole number from 1 to 200');
  end if;
  if p_from is null or p_to is null or p_to <= p_from or p_to - p_from > interval '49 hours' then
    perform governance.fail('PT400', 'invalid_argument', 'p_from and p_to are at most two days apart');
  end if;
  select array_agg(v.version_id) into v_versions from governance.rule_versions v where v.rule_name = p_rule_name;
  select coalesce(jsonb_agg(jsonb_build_object('decision_id', r.decision_id, 'request_id', r.request_id,
    'at', r.created_at, 'user_id', a.user_id, 'display_name', a.display_name, 'plan_id', r.plan_id,
    'decision', r.decision, 'reason', r.reason, 'model', r.model, 'tokens', (r.facts).estimated_tokens,
    'mode', (select v.rule ->> 'mode' from governance.rule_versions v
      where v.rule_name = p_rule_name and v.version_id = any (r.matched_version_ids) limit 1))
    order by r.decision_id desc), '[]') into v_calls
  from (select q.* from governance.requests q
    where q.created_at >= p_from and q.created_at < p_to and q.matched_version_ids && v_versions
      and (p_before is null or q.decision_id < p_before)
    order by q.decision_id desc limit p_limit) r
  join governance.accounts a using (account_id);
  return jsonb_build_object('calls', v_calls);
end
$$;
comment on function public.console_rule_calls(text, timestamptz, timestamptz, bigint, int) is
  'The calls that a rule matched within at most two days, newest first. p_before: the decision_id to go on from.';
revoke all on function public.console_rule_calls(text, timestamptz, timestamptz, bigint, int)
  from public, anon, authenticated;
grant execute on function public.console_rule_calls(text, timestamptz, timestamptz, bigint, int) to service_role;
