-- The alerts desk: alike alerts as one line, and what operators do with them.

create function public.console_alert_groups(p_filter jsonb default '{}') returns jsonb
  language plpgsql stable security definer set search_path = '' set jit = off as $$
declare
  v_now timestamptz := governance.now();
  v_since timestamptz := v_now - governance.alert_retention();
begin
  perform governance.refuse_others('console_alert_groups');
  perform governance.check_alert_filter(p_filter);
  return (
    with open as materialized (
      select e.*, governance.alert_kind(e.kind) as alike, coalesce(e.snoozed_until > v_now, false) as is_snoozed
      from governance.alert_events e
      where e.acknowledged_at is null and (e.needs_operator or e.created_at > v_since)
        and (p_filter ->> 'severity' is null or e.severity = p_filter ->> 'severity')
        and (p_filter ->> 'needs_operator' is null or e.needs_operator = (p_filter ->> 'needs_operator')::boolean)
        and (p_filter ->> 'after_id' is null or e.alert_event_id > (p_filter ->> 'after_id')::bigint)
    ), wanted as (
      select o.*, row_number() over (partition by o.alike, o.alert_id, o.is_snoozed order by o.alert_event_id desc) as n
      from open o where p_filter ->> 'kind' is null or o.alike = p_filter ->> 'kind'
    ), groups as (
      select w.alike, w.alert_id, w.is_snoozed, bool_or(w.needs_operator) as needs_operator,
        case when bool_or(w.severity = 'critical') then 'critical' when bool_or(w.severity = 'warning') then 'warning'
          else 'info' end as severity,
        count(*) as count, count(distinct w.account_id) as users, min(w.created_at) as first_at,
        max(w.created_at) as last_at, max(w.alert_event_id) as newest_id, min(w.snoozed_until) as snoozed_until,
        array_agg(w.alert_event_id order by w.alert_event_id desc) filter (where w.n <= 2000) as ids,
        array_agg(distinct w.owner) filter (where w.owner is not null) as owners,
        array_agg(w.account_id order by w.alert_event_id desc)
          filter (where w.n <= 50 and w.account_id is not null) as account_ids
      from wanted w group by 1, 2, 3
    )
    select jsonb_build_object('groups', coalesce(jsonb_agg(jsonb_build_object(
        'group_id', g.alike || coalesce(':' || k.alert_name, '') || case when g.is_snoozed then ':snoozed' else '' end,
        'kind', g.alike, 'alert_name', k.alert_name, 'severity', g.severity, 'needs_operator', g.needs_operator,
        'count', g.count, 'users', g.users, 'first_at', g.first_at, 'last_at', g.last_at,
        'snoozed_until', case when g.is_snoozed then g.snoozed_until end, 'owners', coalesce(to_jsonb(g.owners), '[]'),
        'alert_event_ids', to_jsonb(g.ids), 'message', e.message, 'newest_id', g.newest_id,
        'who', (select coalesce(jsonb_agg(jsonb_build_object('user_id', a.user_id, 'display_name', a.display_name)),
            '[]')
          from (select x.account_id, min(x.n) as n from unnest(g.account_ids) with ordinality x(account_id, n)
            group by 1 order by 2 limit 10) u join governance.accounts a using (account_id)))
      order by g.is_snoozed, g.needs_operator desc,
        case g.severity when 'critical' then 0 when 'warning' then 1 else 2 end, g.last_at desc), '[]'),
      'open', (select count(*) from open o where o.needs_operator and not o.is_snoozed),
      'users_own', (select count(*) from open o where not o.needs_operator))
    from groups g join governance.alert_events e on e.alert_event_id = g.newest_id
    left join governance.cost_alerts k on k.alert_id = g.alert_id);
end
$$;
comment on function public.console_alert_groups(jsonb) is
  'Open alerts, alike ones as one line with how many and who: what waits for an operator first, by severity; then '
  'users'' own limits; what is snoozed last. p_filter as in console_alerts. Errors: invalid_argument.';
revoke all on function public.console_alert_groups(jsonb) from public, anon, authenticated;
grant execute on function public.console_alert_groups(jsonb) to service_role;

create function public.console_decide_alerts(p_command_id text, p_alert_event_ids bigint[], p_action text,
  p_reason text default null, p_until timestamptz default null, p_operator text default null) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_now timestamptz := governance.now();
  v_answer jsonb;
  v_changed bigint[];
begin
  perform governance.refuse_others('console_decide_alerts');
  perform governance.check_id('p_command_id', p_command_id);
  perform governance.check_optional('p_operator', p_operator, 255);
  perform governance.check_optional('p_reason', p_reason, 1000);
  if p_action is null or p_action not in ('acknowledge', 'resolve', 'snooze', 'take', 'give_up') then
    perform governance.fail('PT400', 'invalid_argument',
      'p_action is acknowledge, resolve, snooze, take or give_up');
  end if;
  if p_alert_event_ids is null or cardinality(p_alert_event_ids) not between 1 and 2000
    or array_position(p_alert_event_ids, null) is not null then
    perform governance.fail('PT400', 'invalid_argument', 'p_alert_event_ids names 1 to 2000 alerts');
  end if;
  if p_action = 'resolve' and length(trim(coalesce(p_reason, ''))) < 3 then
    perform governance.fail('PT400', 'invalid_argument', 'Resolving needs a reason of at least 3 characters');
  end if;
  if p_action = 'snooze' and coalesce(not isfinite(p_until) or p_until <= v_now or p_until > v_now + interval '30 days',
    true) then
    perform governance.fail('PT400', 'invalid_argument', 'p_until is a moment within the next 30 days');
  end if;
  v_answer := governance.begin_command('operator', p_command_id,
    row('decide_alerts', p_alert_event_ids, p_action, p_reason, p_until, p_operator)::text);
  if v_answer is not null then return v_answer; end if;
  with changed as (
    update governance.alert_events e set
      acknowledged_at = case when p_action in ('acknowledge', 'resolve') then v_now else e.acknowledged_at end,
      acknowledged_by = case when p_action in ('acknowledge', 'resolve') then p_operator else e.acknowledged_by end,
      resolution = case when p_action = 'resolve' then trim(p_reason) else e.resolution end,
      snoozed_until = case when p_action = 'snooze' then p_until else e.snoozed_until end,
      owner = case p_action when 'take' then p_operator when 'give_up' then null else e.owner end
    where e.alert_event_id in (
      -- In one order, so that two operators do not wait for each other.
      select x.alert_event_id from governance.alert_events x
      where x.alert_event_id = any (p_alert_event_ids) and x.acknowledged_at is null
      order by x.alert_event_id for update)
    returning e.alert_event_id)
  select array_agg(c.alert_event_id order by c.alert_event_id) into v_changed from changed c;
  if v_changed is not null then
    insert into governance.audit_log (created_at, operator, action, reason, command_id, details)
    values (v_now, p_operator, p_action || '_alerts', p_reason, p_command_id,
      jsonb_build_object('alerts', cardinality(v_changed), 'alert_event_ids', to_jsonb(v_changed[1:100]),
        'kinds', (select jsonb_agg(distinct e.kind) from governance.alert_events e
          where e.alert_event_id = any (v_changed)), 'until', p_until));
    perform governance.ring('alerts', v_now);
  end if;
  return governance.end_command('operator', p_command_id,
    jsonb_build_object('changed', coalesce(cardinality(v_changed), 0)));
end
$$;
comment on function public.console_decide_alerts(text, bigint[], text, text, timestamptz, text) is
  'What an operator does with open alerts, many at once: acknowledge; resolve with a reason; snooze until a moment '
  'within 30 days; take, to see to them; give_up. Those that are closed already stay as they are. Answers how many '
  'changed. Errors: invalid_argument, idempotency_conflict.';
revoke all on function public.console_decide_alerts(text, bigint[], text, text, timestamptz, text)
  from public, anon, authenticated;
grant execute on function public.console_decide_alerts(text, bigint[], text, text, timestamptz, text) to service_role;
