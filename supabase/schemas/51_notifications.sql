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
  status text not null default 'queued' check (status in ('queued', 'sent', 'failed')),
  attempts int not null default 0,
  -- Not before this moment. A claim moves it to the end of the lease: after a crash the message is due again.
  due_at timestamptz not null,
  created_at timestamptz not null,
  sent_at timestamptz,
  last_error text
);

create index notifications_due on governance.notifications (due_at) where status = 'queued';

create index notifications_time on governance.notifications (created_at);

comment on table governance.notifications is 'Messages to send, each once: take them with claim_notifications, say how '
  'it went with finish_notification.';

create index notifications_alert on governance.notifications (alert_event_id);

create index notifications_failed on governance.notifications (alert_event_id) where status = 'failed';

create function governance.concerns_event(k governance.cost_alerts, p_kind text, p_value numeric) returns boolean
  language sql immutable set search_path = '' as $$
  select k.is_active and k.retired_at is null
    and k.metric = (select x.metric from governance.alert_kinds() x where x.kind = p_kind)
    and case k.metric when 'balance' then p_value < (select max(t) from unnest(k.thresholds) t)
      when 'operation_tokens' then p_value > (select min(t) from unnest(k.thresholds) t)
      when 'debt' then -p_value >= (select min(t) from unnest(k.thresholds) t) else false end
$$;
comment on function governance.concerns_event(governance.cost_alerts, text, numeric) is
  'Whether an alert of the preset asked for what a settlement noticed: metric and threshold.';

create function governance.queue_notifications(p_now timestamptz, p_limit int default 1000) returns int
  language plpgsql set search_path = '' as $$
declare
  v_event governance.alert_events;
  v_queued int := 0;
  v_count int;
  v_user_channels text[] := governance.setting_texts('user_warning_channels', '{email}');
  v_operator_channels text[] := governance.setting_texts('operator_channels', '{email}');
begin
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
    insert into governance.notifications (alert_event_id, channel, audience, recipient, account_id, subject, body,
      payload, due_at, created_at)
    select v_event.alert_event_id, t.channel, t.audience, case t.audience
      when 'user' then a.email end, v_event.account_id,
      left(w.words, 200), w.words,
      jsonb_build_object('kind', v_event.kind, 'severity', v_event.severity, 'threshold', v_event.threshold, 'value',
        v_event.value,
        'user_id', a.user_id, 'display_name', a.display_name, 'details', v_event.details, 'at', v_event.created_at,
        'language', case when t.audience = 'user' then governance.user_language(a) end,
        'upgrade', (select jsonb_build_object('plan_id', u.plan_id, 'name', u.name) from governance.plans p
          join governance.plans u on u.plan_id = p.upgrade_to
          where p.plan_id = a.plan_id and t.audience = 'user')),
      p_now, p_now
    from (
      -- An alert of the preset goes to operators by its channels; one about single users goes to the user by e-mail.
      select c.channel, case when k.scope = 'user' and c.channel = 'email'
        and v_event.account_id is not null then 'user' else 'operators' end as audience
      from governance.cost_alerts k cross join lateral unnest(k.channels) c(channel)
      where (k.alert_id = v_event.alert_id
        or (v_event.alert_id is null and governance.concerns_event(k, v_event.kind, v_event.value)))
      union
      -- Users are warned of their own limits.
      select w, 'user' from unnest(v_user_channels) w
      where v_event.alert_id is null and (v_event.kind ~ '^(daily_limit|monthly_limit|allowance)_\d+$'
        or v_event.kind = 'low_balance')
      union
      select w, 'operators' from unnest(v_operator_channels) w
      where v_event.alert_id is null and governance.is_for_operators(v_event.kind)
    ) t
    left join governance.accounts a on a.account_id = v_event.account_id
    cross join lateral (select case t.audience when 'user' then
        governance.alert_user_sentence(v_event, governance.user_language(a))
      else v_event.message end as words) w
    where t.channel ~ '^[a-z][a-z0-9_]{0,31}$'
      -- Not to users without an address, or who opted out.
      and (t.audience = 'operators' or (governance.wants_message(a, t.channel, governance.alert_topic(v_event.kind))
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
  'Queues the messages that new alerts give cause for; answers how many. Users turn them off (my_preferences), or '
  'their backend does with metadata {"notifications": {"email": false}}. Operators'' addresses are the setting '
  'operator_emails; operator_channels says how they hear of what no alert of the preset names.';

create function public.claim_notifications(p_limit int default 50, p_channel text default null,
  p_lease_seconds int default 300) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_now timestamptz := governance.now();
  v_operators text[] := governance.setting_texts('operator_emails', '{}');
  v_answer jsonb;
begin
  perform governance.refuse_others('claim_notifications');
  perform governance.check_limit(p_limit, 500);
  perform governance.check_optional('p_channel', p_channel, 32);
  if p_lease_seconds is null or p_lease_seconds not between 10 and 86400 then
    perform governance.fail('PT400', 'invalid_argument', 'p_lease_seconds is a whole number from 10 to 86400');
  end if;
  perform governance.give_up_notifications(v_now);
  -- Where upkeep has stopped, only whoever still delivers can raise the alert and send it.
  if governance.note_late_upkeep(v_now) > 0 then
    perform governance.queue_notifications(v_now);
  end if;
  with taken as (
    update governance.notifications n set attempts = n.attempts + 1,
      due_at = v_now + p_lease_seconds * interval '1 second',
      -- Read anew each time: an address that was wrong can be put right.
      recipient = case when n.audience = 'operators'
        and n.channel = 'email' then nullif(array_to_string(v_operators, ', '), '') else n.recipient end
    where n.notification_id in (
      select w.notification_id from governance.notifications w
      where w.status = 'queued' and w.due_at <= v_now and (p_channel is null or w.channel = p_channel)
      order by w.due_at, w.notification_id limit p_limit for update skip locked)
    returning n.*)
  select coalesce(jsonb_agg(jsonb_build_object('notification_id', t.notification_id, 'channel', t.channel, 'audience',
    t.audience, 'recipient', t.recipient,
    'recipients', case when t.audience = 'operators' and t.channel = 'email' then to_jsonb(v_operators)
      else to_jsonb(array_remove(array[t.recipient], null)) end,
    'subject', t.subject, 'body', t.body, 'payload', t.payload, 'mail', governance.user_mail(t),
    'attempts', t.attempts, 'created_at', t.created_at)
      order by t.notification_id), '[]')
  into v_answer from taken t;
  return v_answer;
end
$$;
comment on function public.claim_notifications(int, text, int) is
  'Takes messages to send; what is not finished within the lease comes again. recipients are addresses: the user''s, '
    'or operators'' (the setting operator_emails). mail: what a mail to a user says around its body. Errors: '
    'invalid_argument.';
revoke all on function public.claim_notifications(int, text, int) from public, anon, authenticated;
grant execute on function public.claim_notifications(int, text, int) to service_role;

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
  'Sets messages aside that waited too long to be news, where people can see them; answers how many.';

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
  'Says how sending went: sent, or with p_error, to be tried again (not before p_retry_after_seconds), or with '
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
  -- Created anew: else it would be given up again at once for its age.
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
