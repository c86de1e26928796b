-- Messages to people about alerts.

-- Several deliverers may run at once: each message is leased to one of them.

create table governance.notifications (
  notification_id bigint generated always as identity primary key,
  alert_event_id bigint references governance.alert_events (alert_event_id) on delete set null,
  -- email, slack …
  channel text not null check (channel ~ '^[a-z][a-z0-9_]{0,31}$'),
  -- operators, or user: then recipient is the user's own address.
  audience text not null check (audience in ('operators', 'user')),
  recipient text,
  account_id bigint,
  subject text not null,
  body text not null,
  payload jsonb not null default '{}',
  -- Of operators: the routes that it goes by; empty text: the operators' own addresses too.
  routes text[] not null default '{}',
  status text not null default 'queued' check (status in ('queued', 'sent', 'failed', 'withdrawn')),
  attempts int not null default 0,
  -- Not before this moment. A claim moves it to the end of the lease: after a crash the message is due again.
  due_at timestamptz not null,
  created_at timestamptz not null,
  sent_at timestamptz,
  last_error text
);

create index notifications_due on governance.notifications (due_at) where status = 'queued';

create index notifications_time on governance.notifications (created_at);

create index notifications_user on governance.notifications (account_id, created_at) where audience = 'user';

comment on table governance.notifications is
  'Messages to send, each once: take them with claim_notifications, report the outcome with finish_notification.';

create index notifications_alert on governance.notifications (alert_event_id);

create index notifications_failed on governance.notifications (alert_event_id) where status = 'failed';

create function governance.concerns_event(k governance.cost_alerts, p_kind text, p_value numeric) returns boolean
  language sql immutable set search_path = '' as $$
  select k.is_active and k.retired_at is null
    and k.metric = (select x.metric from governance.alert_kinds() x where x.kind = p_kind)
    and governance.passed_threshold(k.metric, k.thresholds, 'Infinity', p_value, p_value, -p_value) is not null
$$;
comment on function governance.concerns_event(governance.cost_alerts, text, numeric) is
  'Whether what a settlement noticed has the metric and the threshold of this alert of the preset.';

create function governance.check_routes(p_routes jsonb) returns void
  language plpgsql stable set search_path = '' as $$
declare
  v_route jsonb;
  v_path text;
  v_at int := 0;
begin
  if coalesce(p_routes, '[]') = '[]' then return; end if;
  if jsonb_typeof(p_routes) <> 'array' or jsonb_array_length(p_routes) > 100 then
    perform governance.invalid_preset('settings.alert_routes', 'a list of at most 100 routes is needed');
  end if;
  for v_route in select * from jsonb_array_elements(p_routes) loop
    v_path := format('settings.alert_routes[%s]', v_at);
    v_at := v_at + 1;
    if jsonb_typeof(v_route) <> 'object' then
      perform governance.invalid_preset(v_path, 'a {route, severity, kinds, channels, emails} is needed');
    end if;
    perform governance.preset_text(v_route, 'route', v_path);
    if exists (select from jsonb_object_keys(v_route) k where k not in ('route', 'severity', 'kinds', 'channels',
      'emails')) then
      perform governance.invalid_preset(v_path, 'a route has route, severity, kinds, channels and emails');
    end if;
    if coalesce(nullif(v_route -> 'severity', 'null'), '"info"') not in ('"info"', '"warning"', '"critical"') then
      perform governance.invalid_preset(v_path || '.severity', 'info, warning or critical is needed');
    end if;
    if jsonb_typeof(coalesce(nullif(v_route -> 'kinds', 'null'), '[]')) <> 'array'
      or exists (select from jsonb_array_elements(nullif(v_route -> 'kinds', 'null')) w
        where not exists (select from governance.alert_kinds() k where to_jsonb(k.kind) = w)) then
      perform governance.invalid_preset(v_path || '.kinds', format('a list of kinds is needed: %s',
        (select string_agg(k.kind, ', ') from governance.alert_kinds() k)));
    end if;
    perform governance.check_channels(v_route -> 'channels', v_path || '.channels');
    if coalesce(nullif(v_route -> 'channels', 'null'), '[]') = '[]' then
      perform governance.invalid_preset(v_path || '.channels', 'a channel such as email or slack is needed');
    end if;
    perform governance.check_addresses(nullif(v_route -> 'emails', 'null'), v_path || '.emails');
  end loop;
  if exists (select from jsonb_array_elements(p_routes) x group by x ->> 'route' having count(*) > 1) then
    perform governance.invalid_preset('settings.alert_routes', 'each route has a name of its own');
  end if;
end
$$;
comment on function governance.check_routes(jsonb) is
  'Refuses routes of alerts with an unknown severity, kind or channel, or an invalid address.';

create function governance.severity_rank(p_severity text) returns int
  language sql immutable set search_path = '' as $$
  select array_position('{info,warning,critical}', p_severity)
$$;
comment on function governance.severity_rank(text) is 'Higher is more urgent.';

create function governance.takes_alert(p_route jsonb, p_kind text, p_severity text) returns boolean
  language sql immutable set search_path = '' as $$
  select governance.severity_rank(p_severity) >= governance.severity_rank(coalesce(p_route ->> 'severity', 'info'))
    and case when coalesce(nullif(p_route -> 'kinds', 'null'), '[]') = '[]' then governance.needs_operator(p_kind)
      else p_route -> 'kinds' ? governance.alert_kind(p_kind) end
$$;
comment on function governance.takes_alert(jsonb, text, text) is
  'Whether a route is for an alert: of its severity or above, and of one of its kinds; without kinds, whatever needs '
  'an operator.';

create function governance.alert_routes() returns setof jsonb
  language sql stable set search_path = '' as $$
  select r.* from governance.settings s cross join jsonb_array_elements(s.value) r where s.key = 'alert_routes'
$$;
comment on function governance.alert_routes() is 'Who is notified of which alerts: the setting alert_routes.';

create function governance.operator_addresses(p_routes text[]) returns text[]
  language sql stable set search_path = '' as $$
  with own as (
    select r ->> 'route' as route, coalesce(nullif(r -> 'emails', 'null'), '[]') as emails
    from governance.alert_routes() r
  ), addresses as (
    -- The operators' own also for a route that has no addresses, or that no longer exists.
    select 0 as at, o.address, o.place
    from unnest(governance.setting_texts('operator_emails', '{}')) with ordinality o(address, place)
    where p_routes = '{}' or exists (select from unnest(p_routes) n(name) left join own on own.route = n.name
      where coalesce(own.emails, '[]') = '[]')
    union all
    select 1, e.address, e.place
    from own cross join jsonb_array_elements_text(own.emails) with ordinality e(address, place)
    where own.route = any (p_routes)
  )
  select coalesce(array_agg(x.address order by x.at, x.place, x.address), '{}')
  from (select a.address, min(a.at) as at, min(a.place) as place from addresses a group by 1) x
$$;
comment on function governance.operator_addresses(text[]) is 'Where an e-mail to operators goes that is sent by these '
  'routes: their addresses, or the setting operator_emails.';

create function governance.route_effect(p_route jsonb, p_now timestamptz) returns jsonb
  language sql stable set search_path = '' as $$
  with raised as (
    -- Users' own limits are very many: the newest alone are looked at.
    (select e.kind, e.severity from governance.alert_events e
    where e.created_at > p_now - interval '30 days' and not e.needs_operator
      and coalesce(nullif(p_route -> 'kinds', 'null'), '[]') <> '[]'
    order by e.created_at desc limit 10000)
    union all
    (select e.kind, e.severity from governance.alert_events e
    where e.created_at > p_now - interval '30 days' and e.needs_operator
    order by e.created_at desc limit 10000)
  ), taken as (
    select governance.alert_kind(r.kind) as kind, r.n
    from (select x.kind, x.severity, count(*) as n from raised x group by 1, 2) r
    where governance.takes_alert(p_route, r.kind, r.severity)
  )
  select jsonb_build_object('alerts', coalesce(sum(t.n), 0), 'alert_kinds', coalesce((select jsonb_object_agg(k.kind,
    k.n) from (select x.kind, sum(x.n) as n from taken x group by 1) k), '{}')) from taken t
$$;
comment on function governance.route_effect(jsonb, timestamptz) is
  'The alerts of the last 30 days that a route would have sent, by kind; of very many the newest 10,000, and as '
  'many of users'' own limits.';

create function governance.queue_notifications(p_now timestamptz, p_limit int default 1000) returns int
  language plpgsql set search_path = '' as $$
declare
  v_event governance.alert_events;
  v_queued int := 0;
  v_count int;
  v_user_channels text[] := governance.setting_texts('user_warning_channels', '{email}');
  v_operator_channels text[] := governance.setting_texts('operator_channels', '{email}');
  v_routes jsonb := (select coalesce(jsonb_agg(r), '[]') from governance.alert_routes() r);
  v_copied_at timestamptz;
begin
  v_copied_at := governance.note_copy(p_now);
  perform governance.give_up_notifications(p_now);
  for v_event in
    update governance.alert_events e set considered_at = p_now
    where e.alert_event_id in (
      select n.alert_event_id from governance.alert_events n where n.considered_at is null order by n.alert_event_id
        limit p_limit for update skip locked)
    returning e.*
  loop
    -- An alert a day old is no longer news.
    continue when v_event.created_at < p_now - interval '1 day';
    -- This database is a copy: users are notified by the project that was copied.
    insert into governance.notifications (alert_event_id, channel, audience, recipient, account_id, routes, subject,
      body, payload, due_at, created_at)
    select v_event.alert_event_id, t.channel, t.audience, case t.audience
      when 'user' then a.email end, v_event.account_id, t.routes,
      left(w.words, 200), w.words,
      jsonb_build_object('kind', v_event.kind, 'severity', v_event.severity, 'threshold', v_event.threshold, 'value',
        v_event.value,
        'user_id', a.user_id, 'display_name', a.display_name, 'details', v_event.details, 'at', v_event.created_at,
        'language', case when t.audience = 'user' then governance.user_language(a) end,
        'upgrade', (select jsonb_build_object('plan_id', u.plan_id, 'name', u.name) from governance.plans p
          join governance.plans u on u.plan_id = p.upgrade_to
          where p.plan_id = a.plan_id and t.audience = 'user')),
      p_now, p_now
    from (select w.channel, w.audience, coalesce(array_agg(distinct w.route) filter (where w.audience = 'operators'),
        '{}') as routes from (
      -- An alert of the preset goes to operators by its channels; one about single users goes to the user by e-mail.
      select c.channel, case when k.scope = 'user' and c.channel = 'email'
        and v_event.account_id is not null then 'user' else 'operators' end as audience, '' as route
      from governance.cost_alerts k cross join lateral unnest(k.channels) c(channel)
      where (k.alert_id = v_event.alert_id
        or (v_event.alert_id is null and governance.concerns_event(k, v_event.kind, v_event.value)))
      union
      -- Users are warned of their own limits.
      select w, 'user', '' from unnest(v_user_channels) w
      where v_event.alert_id is null and (v_event.kind ~ '^(daily_limit|monthly_limit|allowance)_\d+$'
        or v_event.kind = 'low_balance')
      union
      -- Operators are notified by every route that takes it.
      select c.channel, 'operators', r ->> 'route'
      from jsonb_array_elements(v_routes) r cross join jsonb_array_elements_text(r -> 'channels') c(channel)
      where governance.takes_alert(r, v_event.kind, v_event.severity)
      union
      -- Operators are always notified of it, also where no route takes it.
      select w, 'operators', '' from unnest(v_operator_channels) w
      where v_event.alert_id is null and governance.is_for_operators(v_event.kind)
        and not exists (select from jsonb_array_elements(v_routes) r
          where governance.takes_alert(r, v_event.kind, v_event.severity))
    ) w group by 1, 2) t
    left join governance.accounts a on a.account_id = v_event.account_id
    cross join lateral (select case t.audience when 'user' then
        governance.alert_user_sentence(v_event, governance.user_language(a))
      else v_event.message end as words) w
    where t.channel ~ '^[a-z][a-z0-9_]{0,31}$'
      -- Not to users without an address, or who opted out.
      and (t.audience = 'operators' or (v_event.created_at >= coalesce(v_copied_at, '-infinity')
        and governance.wants_message(a, t.channel, governance.alert_topic(v_event.kind))
        -- A balance that goes up and down around its threshold is one message a day.
        and not (v_event.kind = 'low_balance' and exists (select from governance.notifications o
          where o.account_id = v_event.account_id and o.audience = 'user' and o.channel = t.channel
            and o.payload ->> 'kind' = 'low_balance' and o.created_at > p_now - interval '1 day'))));
    get diagnostics v_count = row_count;
    v_queued := v_queued + v_count;
    if v_event.alert_id is null then
      update governance.cost_alerts k set last_triggered_at = greatest(k.last_triggered_at, v_event.created_at)
      where governance.concerns_event(k, v_event.kind, v_event.value);
    end if;
  end loop;
  return v_queued;
end
$$;
comment on function governance.queue_notifications(timestamptz, int) is
  'Queues the messages that new alerts give cause for; returns how many. Users turn them off (my_preferences), or '
  'their backend does with metadata {"notifications": {"email": false}}. Operators'' addresses are the setting '
  'operator_emails. alert_routes sets who is notified of what, and how; operator_channels how they are notified of '
  'what no route takes.';

create function public.claim_notifications(p_limit int default 50, p_channel text default null,
  p_lease_seconds int default 300) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_now timestamptz := governance.now();
  v_answer jsonb;
begin
  perform governance.refuse_others('claim_notifications');
  perform governance.check_limit(p_limit, 500);
  perform governance.check_optional('p_channel', p_channel, 32);
  if p_lease_seconds is null or p_lease_seconds not between 10 and 86400 then
    perform governance.fail('PT400', 'invalid_argument', 'p_lease_seconds is a whole number from 10 to 86400');
  end if;
  perform governance.note_copy(v_now);
  perform governance.give_up_notifications(v_now);
  -- Where upkeep has stopped, only a deliverer can raise the alert and send it.
  if governance.note_late_upkeep(v_now) > 0 then
    perform governance.queue_notifications(v_now);
  end if;
  with due as (
    -- Addresses are read again each time: one that was wrong can be put right.
    select w.notification_id, case when w.channel <> 'email' then array_remove(array[w.recipient], null)
        when w.audience = 'operators' then governance.operator_addresses(w.routes)
        else array_remove(array[coalesce(a.email, w.recipient)], null) end as addresses,
      w.audience = 'user' and w.account_id is not null and (a.account_id is null
        or not governance.wants_message(a, w.channel, governance.notification_topic(w.payload))) as is_unwanted
    from governance.notifications w left join governance.accounts a on a.account_id = w.account_id
    where w.status = 'queued' and w.due_at <= v_now and (p_channel is null or w.channel = p_channel)
    order by w.due_at, w.notification_id limit p_limit for update of w skip locked),
  withdrawn as (
    update governance.notifications n set status = 'withdrawn',
      last_error = 'Before it was sent, the user or the project turned such messages off.'
    from due d where d.is_unwanted and n.notification_id = d.notification_id),
  taken as (
    update governance.notifications n set attempts = n.attempts + 1,
      due_at = v_now + p_lease_seconds * interval '1 second',
      recipient = nullif(array_to_string(d.addresses, ', '), '')
    from due d where not d.is_unwanted and n.notification_id = d.notification_id
    returning n.*)
  select coalesce(jsonb_agg(jsonb_build_object('notification_id', t.notification_id, 'channel', t.channel, 'audience',
    t.audience, 'recipient', t.recipient,
    'recipients', to_jsonb(d.addresses),
    'subject', t.subject, 'body', t.body, 'payload', t.payload, 'mail', governance.user_mail(t),
    'attempts', t.attempts, 'created_at', t.created_at)
      order by t.notification_id), '[]')
  into v_answer from taken t join due d using (notification_id);
  return v_answer;
end
$$;
comment on function public.claim_notifications(int, text, int) is
  'Takes messages to send; what is not finished within the lease comes again. recipients are addresses: the user''s, '
    'or operators'' (the setting operator_emails). mail: a mail to a user, whole. What its user turned '
  'off since is withdrawn. Errors: '
    'invalid_argument.';
revoke all on function public.claim_notifications(int, text, int) from public, anon, authenticated;
grant execute on function public.claim_notifications(int, text, int) to service_role;

create function governance.note_copy(p_now timestamptz) returns timestamptz
  language plpgsql set search_path = '' as $$
declare
  -- A standby that takes over, or a recovery to a moment, is the same database: there the queue goes on.
  v_database text := (select nullif(split_part(governance.history_id(), ':', 1), '') || ':' || d.oid
    from pg_catalog.pg_database d where d.datname = current_database());
  v_known jsonb;
begin
  select s.value into v_known from governance.maintenance_state s where s.key = 'database';
  if v_database is not null and v_known ->> 'id' is distinct from v_database then
    -- Where several notice at once, the others wait here and find it noted.
    insert into governance.maintenance_state as s (key, value) values ('database', jsonb_build_object('id', v_database))
    on conflict (key) do update set updated_at = p_now, value = jsonb_build_object('id', v_database, 'copied_at', p_now)
      where s.value ->> 'id' <> v_database;
    if found and v_known is not null then
      update governance.notifications n set status = 'withdrawn',
        last_error = 'It was queued before this database was restored: the project that was copied sends it.'
      where n.status = 'queued' and n.audience = 'user';
    end if;
    select s.value into v_known from governance.maintenance_state s where s.key = 'database';
  end if;
  return (v_known ->> 'copied_at')::timestamptz;
end
$$;
comment on function governance.note_copy(timestamptz) is
  'Notices that this database was restored into another one, and withdraws what was queued for users: the project '
  'that was copied sends that. Returns when it was noticed; null for a database that is no copy.';

create function governance.give_up_notifications(p_now timestamptz) returns int
  language plpgsql set search_path = '' as $$
declare
  v_count int;
begin
  update governance.notifications n set status = 'failed',
    last_error = coalesce(n.last_error, case n.attempts
      when 0 then 'Nobody sent it in time: does a deliverer run for this channel?'
      else 'Whoever took it to send it never said how that went.' end)
  where n.notification_id in (
    select w.notification_id from governance.notifications w
    -- A user's warning is stale after a day, an operator's after three.
    where w.status = 'queued' and w.due_at <= p_now and w.created_at < p_now - case w.audience
      when 'user' then interval '1 day' else interval '3 days' end
    order by w.due_at limit 1000 for update skip locked);
  get diagnostics v_count = row_count;
  return v_count;
end
$$;
comment on function governance.give_up_notifications(timestamptz) is
  'Sets messages aside that waited too long to be news, where people can see them; returns how many.';

create function public.finish_notification(
  p_notification_id bigint, p_error text default null, p_is_final boolean default false,
    p_retry_after_seconds int default null
) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_now timestamptz := governance.now();
  n governance.notifications;
begin
  perform governance.refuse_others('finish_notification');
  if p_retry_after_seconds not between 0 and 86400 then
    perform governance.fail('PT400', 'invalid_argument', 'p_retry_after_seconds is a whole number from 0 to 86400');
  end if;
  -- Each failure waits longer, up to an hour. After eight tries and a day the message is given up, and kept to be seen:
  -- a mail server may be away for hours.
  update governance.notifications x set
    status = case when x.status = 'sent' or p_error is null then 'sent'
      -- A message that was given up stays so, even if a sender with an old lease still reports.
      when x.status = 'failed' or p_is_final
        or (x.attempts >= 8 and x.created_at <= v_now - interval '1 day') then 'failed' else 'queued' end,
    sent_at = case when x.status = 'sent' then x.sent_at when p_error is null then v_now end,
    last_error = case when x.status = 'sent' then x.last_error else left(p_error, 2000) end,
    due_at = case when x.status = 'sent' or p_error is null then x.due_at
      else v_now + greatest(least(power(2, least(x.attempts, 12)) * 30, 3600),
        p_retry_after_seconds) * interval '1 second' end
  where x.notification_id = p_notification_id returning * into n;
  if not found then
    perform governance.fail('PT404', 'not_found', format('There is no notification %s', p_notification_id));
  end if;
  return jsonb_build_object('notification_id', n.notification_id, 'status', n.status, 'attempts', n.attempts, 'due_at',
    n.due_at, 'sent_at', n.sent_at);
end
$$;
comment on function public.finish_notification(bigint, text, boolean, int) is
  'Records how sending went: sent, or with p_error, to be tried again (not before p_retry_after_seconds), or with '
  'p_is_final never. Errors: invalid_argument, not_found.';
revoke all on function public.finish_notification(bigint, text, boolean, int) from public, anon, authenticated;
grant execute on function public.finish_notification(bigint, text, boolean, int) to service_role;

create function public.console_retry_notification(p_command_id text, p_notification_id bigint,
  p_operator text default null) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_answer jsonb;
  v_now timestamptz;
  n governance.notifications;
begin
  perform governance.refuse_others('console_retry_notification');
  perform governance.check_id('p_command_id', p_command_id);
  perform governance.check_optional('p_operator', p_operator, 255);
  v_answer := governance.begin_command('operator', p_command_id,
    row('retry_notification', p_notification_id, p_operator)::text);
  if v_answer is not null then return v_answer; end if;
  v_now := governance.now();
  -- Created again: else it would be given up again at once for its age.
  update governance.notifications x set status = 'queued', attempts = 0, due_at = v_now, created_at = v_now,
    last_error = null
  where x.notification_id = p_notification_id and x.status = 'failed' returning * into n;
  if not found then
    if exists (select from governance.notifications x where x.notification_id = p_notification_id) then
      perform governance.fail('PT409', 'already_resolved',
        format('Notification %s was not given up: there is nothing to send again', p_notification_id));
    end if;
    perform governance.fail('PT404', 'not_found', format('There is no notification %s', p_notification_id));
  end if;
  insert into governance.audit_log (created_at, operator, action, account_id, command_id, details)
  values (v_now, p_operator, 'retry_notification', n.account_id, p_command_id,
    jsonb_build_object('notification_id', n.notification_id, 'alert_event_id', n.alert_event_id, 'channel', n.channel));
  perform governance.ring('alerts', v_now);
  return governance.end_command('operator', p_command_id,
    jsonb_build_object('notification_id', n.notification_id, 'status', n.status));
end
$$;
comment on function public.console_retry_notification(text, bigint, text) is
  'Has a message that was given up sent again. Audited. Errors: invalid_argument, not_found, already_resolved, '
  'idempotency_conflict.';
revoke all on function public.console_retry_notification(text, bigint, text) from public, anon, authenticated;
grant execute on function public.console_retry_notification(text, bigint, text) to service_role;
