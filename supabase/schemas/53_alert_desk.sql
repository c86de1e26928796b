-- The alerts desk: alike alerts as one line, and what operators do with them.

create function public.console_alert_groups(p_filter jsonb default '{}') returns jsonb
  language plpgsql stable security definer set search_path = '' set jit = off as $$
declare
  v_now timestamptz := governance.now();
  v_since timestamptz := v_now - governance.alert_retention();
  v_needs_operator boolean;
begin
  perform governance.refuse_others('console_alert_groups');
  perform governance.check_alert_filter(p_filter);
  v_needs_operator := governance.asked_needs_operator(p_filter);
  return (
    with open as materialized (
      select e.*, governance.alert_kind(e.kind) as alike, coalesce(e.snoozed_until > v_now, false) as is_snoozed
      from governance.alert_events e
      where e.acknowledged_at is null and (e.needs_operator or e.created_at > v_since)
    ), wanted as (
      select o.*, row_number() over (partition by o.alike, o.alert_id, o.is_snoozed order by o.alert_event_id desc) as n
      from open o
      where (p_filter ->> 'kind' is null or o.alike = p_filter ->> 'kind')
        and (p_filter ->> 'severity' is null or o.severity = p_filter ->> 'severity')
        and (v_needs_operator is null or o.needs_operator = v_needs_operator)
        and (p_filter ->> 'after_id' is null or o.alert_event_id > (p_filter ->> 'after_id')::bigint)
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
        'alert_event_ids', to_jsonb(g.ids), 'newest_id', g.newest_id,
        'newest', jsonb_build_object('kind', e.kind, 'alert_name', k.alert_name, 'message', e.message,
          'threshold', e.threshold, 'value', e.value, 'period', e.period_key, 'details', e.details),
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
  'users'' own limits; what is snoozed last. p_filter as in console_alerts; open and users_own count all. Errors: '
  'invalid_argument.';
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
  'An operator''s decision about open alerts, many at once: acknowledge; resolve with a reason; snooze until a moment '
  'within 30 days; take, to see to them; give_up. Those that are closed already stay as they are. Returns how many '
  'changed. Errors: invalid_argument, idempotency_conflict.';
revoke all on function public.console_decide_alerts(text, bigint[], text, text, timestamptz, text)
  from public, anon, authenticated;
grant execute on function public.console_decide_alerts(text, bigint[], text, text, timestamptz, text) to service_role;

create function public.console_cost_alerts() returns jsonb
  language sql stable security definer set search_path = '' set jit = off as $$
  select governance.refuse_others('console_cost_alerts');
  select coalesce(jsonb_agg(jsonb_build_object('alert_name', k.alert_name, 'metric', k.metric, 'scope', k.scope,
    'scope_kind', s.kind, 'scope_id', s.id, 'period', k.period, 'budget', k.budget, 'thresholds', k.thresholds,
    'channels', k.channels, 'is_active', k.is_active, 'last_triggered_at', k.last_triggered_at,
    'value', v.value, 'percent', case when k.budget is not null then div(v.value * 100, k.budget) end,
    'currency', c.currency) order by k.alert_name), '[]')
  from governance.cost_alerts k
  cross join governance.active_config c
  cross join governance.alert_scope(k.scope) s
  -- A budget's current period is that of UTC's date.
  cross join lateral (select case when governance.has_budget(k.metric) and k.scope <> 'user' then (
      select governance.alert_value(k, p.from_day, p.to_day)
      from governance.budget_period(k.period, (governance.now() at time zone 'UTC')::date) p)
    end as value) v
  where k.retired_at is null
$$;
comment on function public.console_cost_alerts() is 'The alerts of the preset, with how far each has come in its '
  'period.';
revoke all on function public.console_cost_alerts() from public, anon, authenticated;
grant execute on function public.console_cost_alerts() to service_role;

create function public.console_acknowledge_alert(p_command_id text, p_alert_event_id bigint,
  p_operator text default null) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_answer jsonb;
  e governance.alert_events;
begin
  perform governance.refuse_others('console_acknowledge_alert');
  perform governance.check_id('p_command_id', p_command_id);
  perform governance.check_optional('p_operator', p_operator, 255);
  v_answer := governance.begin_command('operator', p_command_id,
    row('acknowledge_alert', p_alert_event_id, p_operator)::text);
  if v_answer is not null then return v_answer; end if;
  update governance.alert_events x set acknowledged_at = coalesce(x.acknowledged_at, governance.now()),
    acknowledged_by = case when x.acknowledged_at is null then p_operator else x.acknowledged_by end
  where x.alert_event_id = p_alert_event_id returning * into e;
  if not found then
    perform governance.fail('PT404', 'not_found', format('There is no alert %s', p_alert_event_id));
  end if;
  insert into governance.audit_log (created_at, operator, action, account_id, command_id, details)
  values (governance.now(), p_operator, 'acknowledge_alert', e.account_id, p_command_id,
    jsonb_build_object('alert_event_id', e.alert_event_id, 'kind', e.kind));
  perform governance.ring('alerts', governance.now());
  return governance.end_command('operator', p_command_id, jsonb_build_object('alert_event_id', e.alert_event_id,
    'acknowledged_at', e.acknowledged_at, 'acknowledged_by', e.acknowledged_by));
end
$$;
comment on function public.console_acknowledge_alert(text, bigint,
  text) is 'Someone has seen to an alert: it is open no more. Errors: invalid_argument, not_found, '
    'idempotency_conflict.';
revoke all on function public.console_acknowledge_alert(text, bigint, text) from public, anon, authenticated;
grant execute on function public.console_acknowledge_alert(text, bigint, text) to service_role;

create function governance.check_alert_filter(p_filter jsonb) returns void
  language plpgsql immutable set search_path = '' as $$
begin
  if p_filter is null or jsonb_typeof(p_filter) <> 'object' or exists (select from jsonb_each(p_filter) f
    where not case f.key when 'kind' then jsonb_typeof(f.value) = 'string' and length(f.value #>> '{}') <= 100
      when 'severity' then f.value in ('"info"', '"warning"', '"critical"')
      when 'needs_operator' then jsonb_typeof(f.value) = 'boolean'
      when 'after_id' then jsonb_typeof(f.value) = 'number' and f.value #>> '{}' ~ '^\d{1,18}$'
      else false end) then
    perform governance.fail('PT400', 'invalid_argument',
      'p_filter is an object of kind, severity (info, warning, critical), needs_operator and after_id');
  end if;
end
$$;
comment on function governance.check_alert_filter(jsonb) is 'Refuses a filter of alerts that nobody knows.';

create function governance.asked_needs_operator(p_filter jsonb) returns boolean
  language sql immutable set search_path = '' as $$
  -- The severity of users' own limits is theirs: what is critical to a user is not so to an operator.
  select case when p_filter ? 'needs_operator' then (p_filter ->> 'needs_operator')::boolean
    when p_filter ? 'severity' and not p_filter ? 'kind' then true end
$$;
comment on function governance.asked_needs_operator(jsonb) is
  'Whether a filter asks for what needs an operator, for users'' own limits, or, null, for both. A severity alone asks '
  'for what needs an operator.';

create function public.console_alerts(
  p_before_id bigint default null, p_limit int default 50, p_open_only boolean default false,
    p_undelivered_only boolean default false, p_filter jsonb default '{}'
) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
declare
  v_now timestamptz := governance.now();
  v_since timestamptz := case when p_open_only then v_now - governance.alert_retention() else '-infinity' end;
  v_needs_operator boolean;
begin
  perform governance.refuse_others('console_alerts');
  perform governance.check_limit(p_limit, 500);
  perform governance.check_alert_filter(p_filter);
  v_needs_operator := governance.asked_needs_operator(p_filter);
  return (
    with page as (
      select e.*, row_number() over (order by e.alert_event_id desc) as n from (
        select * from governance.alert_events x
        where x.alert_event_id < coalesce(p_before_id, 9223372036854775807)
          and (p_open_only is not true or (x.acknowledged_at is null
            and (x.created_at > v_since or x.needs_operator)))
          and (p_filter ->> 'kind' is null or governance.alert_kind(x.kind) = p_filter ->> 'kind')
          and (p_filter ->> 'severity' is null or x.severity = p_filter ->> 'severity')
          and (v_needs_operator is null or x.needs_operator = v_needs_operator)
          and (p_filter ->> 'after_id' is null or x.alert_event_id > (p_filter ->> 'after_id')::bigint)
          and (p_undelivered_only is not true
            or x.alert_event_id in (select f.alert_event_id from governance.notifications f where f.status = 'failed'))
        order by x.alert_event_id desc limit p_limit + 1) e)
    select jsonb_build_object(
      'alerts', coalesce(jsonb_agg(jsonb_build_object('alert_event_id', p.alert_event_id, 'alert_name', k.alert_name,
        'kind', p.kind, 'severity', p.severity,
        'message', p.message, 'user_id', a.user_id, 'display_name', a.display_name, 'threshold', p.threshold, 'value',
          p.value, 'period', p.period_key,
        'details', p.details, 'created_at', p.created_at, 'acknowledged_at', p.acknowledged_at, 'acknowledged_by',
          p.acknowledged_by,
        'resolution', p.resolution, 'owner', p.owner, 'snoozed_until', p.snoozed_until,
        'needs_operator', p.needs_operator,
        'considered_at', p.considered_at, 'decision_id', case
          when p.details ->> 'decision_id' ~ '^\d{1,18}$' then (p.details ->> 'decision_id')::bigint end,
        'notifications', (select coalesce(jsonb_agg(jsonb_build_object('notification_id', n.notification_id, 'channel',
          n.channel, 'audience', n.audience,
            'recipient', n.recipient, 'status', n.status, 'attempts', n.attempts, 'created_at', n.created_at, 'due_at',
              n.due_at, 'sent_at', n.sent_at,
            'last_error', n.last_error) order by n.notification_id), '[]')
          from governance.notifications n where n.alert_event_id = p.alert_event_id))
            order by p.n) filter (where p.n <= p_limit), '[]'),
      'next_before_id', case when count(*) > p_limit then max(p.alert_event_id) filter (where p.n = p_limit) end,
      -- Due for five minutes and unclaimed counts as overdue. Given up counts until its alert is acknowledged.
      'delivery', jsonb_build_object(
        'queued', (select count(*)
          from (select from governance.notifications q where q.status = 'queued' limit 10000) x),
        'overdue_since', (select min(q.due_at) from governance.notifications q
          where q.status = 'queued' and q.due_at < v_now - interval '5 minutes'),
        'failed', (select count(*)
          from (select from governance.notifications f join governance.alert_events e using (alert_event_id)
          where f.status = 'failed' and e.acknowledged_at is null limit 10000) x),
        'upkeep_at', (select s.value -> 'at' from governance.maintenance_state s where s.key = 'allowance_warnings')))
    from page p
    left join governance.cost_alerts k on k.alert_id = p.alert_id
    left join governance.accounts a on a.account_id = p.account_id);
end
$$;
comment on function public.console_alerts(bigint, int, boolean, boolean, jsonb) is
  'Alerts that were raised, newest first, each with its messages; the open ones, or those of which a message was given '
  'up, alone; p_filter narrows them by kind, severity, needs_operator and after_id. Of a severity alone it finds what '
  'needs an operator. Errors: invalid_argument.';
revoke all on function public.console_alerts(bigint, int, boolean, boolean, jsonb) from public, anon, authenticated;
grant execute on function public.console_alerts(bigint, int, boolean, boolean, jsonb) to service_role;
