-- Alerts that reach people: who operators are, what a sender may say of a message, what could not be delivered and how it
-- is sent again; the list behind the count of open alerts; and receipts whose figures add up.

-- ---------------------------------------------------------------------------------------------------------------
-- Whom to tell
-- ---------------------------------------------------------------------------------------------------------------

create or replace function governance.check_settings(p_settings jsonb) returns jsonb
  language plpgsql stable set search_path = '' as $$
declare
  v_item jsonb;
  v_at int := 0;
  v_key text;
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
  if coalesce(p_settings -> 'operator_emails', '[]') <> '[]' then
    if jsonb_typeof(p_settings -> 'operator_emails') <> 'array' or jsonb_array_length(p_settings -> 'operator_emails') > 50
      or exists (select from jsonb_array_elements(p_settings -> 'operator_emails') w where jsonb_typeof(w) <> 'string'
        or char_length(w #>> '{}') > 254 or (w #>> '{}') !~ '^[^\s@<>(),;:\\"\[\]]+@[^\s@<>(),;:\\"\[\]]+$') then
      perform governance.invalid_preset('settings.operator_emails', 'a list of at most 50 e-mail addresses is needed');
    end if;
  end if;
  foreach v_key in array '{operator_channels,user_warning_channels}'::text[] loop
    if coalesce(p_settings -> v_key, '[]') <> '[]' and (jsonb_typeof(p_settings -> v_key) <> 'array'
      or exists (select from jsonb_array_elements(p_settings -> v_key) w where jsonb_typeof(w) <> 'string' or (w #>> '{}') !~ '^[a-z][a-z0-9_]{0,31}$')) then
      perform governance.invalid_preset('settings.' || v_key, 'a list of channels such as email and slack is needed');
    end if;
  end loop;
  return p_settings;
end
$$;
comment on function governance.check_settings(jsonb) is 'The settings, if the word lists in them can be compiled and the addresses written to.';

create function governance.setting_texts(p_key text, p_otherwise text[]) returns text[]
  language sql stable set search_path = '' as $$
  select coalesce((select case when jsonb_typeof(s.value) = 'array' then array(select jsonb_array_elements_text(s.value)) end
    from governance.settings s where s.key = p_key), p_otherwise)
$$;
comment on function governance.setting_texts(text, text[]) is 'A setting that is a list of texts; p_otherwise where it is not given.';

create function governance.is_for_operators(p_kind text) returns boolean
  language sql immutable as $$
  select p_kind in ('settlement_quarantined', 'rollup_mismatch', 'maintenance_failed', 'webhook_quarantined', 'event_quarantined', 'stripe_dispute')
$$;
comment on function governance.is_for_operators(text) is 'Alerts that nobody asked for and no operator must miss; they are none of the business of the user whom they are about.';

create or replace function governance.queue_notifications(p_now timestamptz, p_limit int default 1000) returns int
  language plpgsql set search_path = '' as $$
declare
  v_event record;
  v_queued int := 0;
  v_count int;
  v_user_channels text[] := governance.setting_texts('user_warning_channels', '{email}');
  v_operator_channels text[] := governance.setting_texts('operator_channels', '{email}');
begin
  perform governance.give_up_notifications(p_now);
  for v_event in
    update governance.alert_events e set considered_at = p_now
    where e.alert_event_id in (
      select n.alert_event_id from governance.alert_events n where n.considered_at is null order by n.alert_event_id limit p_limit for update skip locked)
    returning e.*
  loop
    -- What is a day old already is history, not news.
    continue when v_event.created_at < p_now - interval '1 day';
    insert into governance.notifications (alert_event_id, channel, audience, recipient, account_id, subject, body, payload, due_at, created_at)
    select v_event.alert_event_id, t.channel, t.audience, case t.audience when 'user' then a.email end, v_event.account_id,
      left(v_event.message, 200), v_event.message,
      jsonb_build_object('kind', v_event.kind, 'severity', v_event.severity, 'threshold', v_event.threshold, 'value', v_event.value,
        'user_id', a.user_id, 'display_name', a.display_name, 'details', v_event.details, 'at', v_event.created_at,
        'upgrade', (select jsonb_build_object('plan_id', u.plan_id, 'name', u.name) from governance.plans p join governance.plans u on u.plan_id = p.upgrade_to
          where p.plan_id = a.plan_id and t.audience = 'user')),
      p_now, p_now
    from (
      -- Operators hear of their alerts, by its channels; a user's own matter goes to the user where the channel is e-mail.
      select c.channel, case when k.scope = 'user' and c.channel = 'email' and v_event.account_id is not null then 'user' else 'operators' end as audience
      from governance.cost_alerts k cross join lateral unnest(k.channels) c(channel)
      where (k.alert_id = v_event.alert_id or (v_event.alert_id is null and k.is_active and k.retired_at is null and k.scope = 'user'
          and k.metric = case v_event.kind when 'low_balance' then 'balance' when 'high_usage' then 'operation_tokens' when 'negative_balance' then 'debt' end))
      union
      -- Users are warned of their own limits.
      select w, 'user' from unnest(v_user_channels) w
      where v_event.alert_id is null and v_event.kind ~ '^(daily_limit|monthly_limit|allowance)_\d+$'
      union
      select w, 'operators' from unnest(v_operator_channels) w
      where v_event.alert_id is null and governance.is_for_operators(v_event.kind)
    ) t
    left join governance.accounts a on a.account_id = v_event.account_id
    where t.channel ~ '^[a-z][a-z0-9_]{0,31}$'
      -- A user without an address, or who wants none of it, is left in peace.
      and (t.audience = 'operators' or (a.email is not null and a.email <> ''
        and coalesce(a.metadata -> 'notifications' -> t.channel, 'true') <> 'false'));
    get diagnostics v_count = row_count;
    v_queued := v_queued + v_count;
    if v_event.alert_id is null and v_event.kind in ('low_balance', 'high_usage', 'negative_balance') then
      update governance.cost_alerts k set last_triggered_at = greatest(k.last_triggered_at, v_event.created_at)
      where k.is_active and k.retired_at is null and k.scope = 'user'
        and k.metric = case v_event.kind when 'low_balance' then 'balance' when 'high_usage' then 'operation_tokens' else 'debt' end;
    end if;
  end loop;
  return v_queued;
end
$$;
comment on function governance.queue_notifications(timestamptz, int) is
  'Queues the messages that new alerts give cause for; answers how many. A user opts out with metadata {"notifications": {"email": false}}. Operators'' addresses are the setting operator_emails; operator_channels says how they hear of what no alert of the preset names.';

-- ---------------------------------------------------------------------------------------------------------------
-- Sending
-- ---------------------------------------------------------------------------------------------------------------

create index notifications_failed on governance.notifications (alert_event_id) where status = 'failed';

create function governance.give_up_notifications(p_now timestamptz) returns int
  language plpgsql set search_path = '' as $$
declare
  v_count int;
begin
  update governance.notifications n set status = 'failed',
    last_error = coalesce(n.last_error, case n.attempts when 0 then 'Nobody sent it in time: does a deliverer run for this channel?'
      else 'Whoever took it to send it never said how that went.' end)
  where n.notification_id in (
    select w.notification_id from governance.notifications w
    -- "80 % of today's tokens" is no news tomorrow; what operators must know keeps a little longer.
    where w.status = 'queued' and w.due_at <= p_now and w.created_at < p_now - case w.audience when 'user' then interval '1 day' else interval '3 days' end
    order by w.due_at limit 1000 for update skip locked);
  get diagnostics v_count = row_count;
  return v_count;
end
$$;
comment on function governance.give_up_notifications(timestamptz) is
  'Sets messages aside that waited too long to be news, where people can see them; answers how many.';

create or replace function public.claim_notifications(p_limit int default 50, p_channel text default null, p_lease_seconds int default 300) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_now timestamptz := governance.now();
  v_operators text[] := governance.setting_texts('operator_emails', '{}');
  v_answer jsonb;
begin
  perform governance.check_limit(p_limit, 500);
  perform governance.check_optional('p_channel', p_channel, 32);
  if p_lease_seconds is null or p_lease_seconds not between 10 and 86400 then
    perform governance.fail('PT400', 'invalid_argument', 'p_lease_seconds is a whole number from 10 to 86400');
  end if;
  perform governance.give_up_notifications(v_now);
  with taken as (
    update governance.notifications n set attempts = n.attempts + 1, due_at = v_now + p_lease_seconds * interval '1 second',
      -- Read anew each time: an address that was wrong can be put right.
      recipient = case when n.audience = 'operators' and n.channel = 'email' then nullif(array_to_string(v_operators, ', '), '') else n.recipient end
    where n.notification_id in (
      select w.notification_id from governance.notifications w
      where w.status = 'queued' and w.due_at <= v_now and (p_channel is null or w.channel = p_channel)
      order by w.due_at, w.notification_id limit p_limit for update skip locked)
    returning n.*)
  select coalesce(jsonb_agg(jsonb_build_object('notification_id', t.notification_id, 'channel', t.channel, 'audience', t.audience, 'recipient', t.recipient,
    'recipients', case when t.audience = 'operators' and t.channel = 'email' then to_jsonb(v_operators)
      else to_jsonb(array_remove(array[t.recipient], null)) end,
    'subject', t.subject, 'body', t.body, 'payload', t.payload, 'attempts', t.attempts, 'created_at', t.created_at) order by t.notification_id), '[]')
  into v_answer from taken t;
  return v_answer;
end
$$;
comment on function public.claim_notifications(int, text, int) is
  'Takes messages to send; what is not finished within the lease comes again. recipients are addresses: the user''s, or operators'' (the setting operator_emails). Errors: invalid_argument.';

drop function public.finish_notification(bigint, text);
create function public.finish_notification(
  p_notification_id bigint, p_error text default null, p_is_final boolean default false, p_retry_after_seconds int default null
) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_now timestamptz := governance.now();
  n governance.notifications;
begin
  if p_retry_after_seconds not between 0 and 86400 then
    perform governance.fail('PT400', 'invalid_argument', 'p_retry_after_seconds is a whole number from 0 to 86400');
  end if;
  -- Each failure waits longer, up to an hour. After eight it is given up, but not before a day is over: a mail server may be
  -- away for hours. What is given up is kept to be seen.
  update governance.notifications x set
    status = case when x.status = 'sent' or p_error is null then 'sent'
      -- What was given up stays so, whatever a sender still says of an attempt whose lease was over.
      when x.status = 'failed' or p_is_final or (x.attempts >= 8 and x.created_at <= v_now - interval '1 day') then 'failed' else 'queued' end,
    sent_at = case when x.status = 'sent' then x.sent_at when p_error is null then v_now end,
    last_error = case when x.status = 'sent' then x.last_error else left(p_error, 2000) end,
    due_at = case when x.status = 'sent' or p_error is null then x.due_at
      else v_now + greatest(least(power(2, least(x.attempts, 12)) * 30, 3600), p_retry_after_seconds) * interval '1 second' end
  where x.notification_id = p_notification_id returning * into n;
  if not found then
    perform governance.fail('PT404', 'not_found', format('There is no notification %s', p_notification_id));
  end if;
  return jsonb_build_object('notification_id', n.notification_id, 'status', n.status, 'attempts', n.attempts, 'due_at', n.due_at, 'sent_at', n.sent_at);
end
$$;
comment on function public.finish_notification(bigint, text, boolean, int) is
  'Says how sending went: sent, or with p_error, to be tried again (not before p_retry_after_seconds), or with p_is_final never. Errors: invalid_argument, not_found.';
revoke all on function public.finish_notification(bigint, text, boolean, int) from public, anon, authenticated;
grant execute on function public.finish_notification(bigint, text, boolean, int) to service_role;

create function public.console_retry_notification(p_command_id text, p_notification_id bigint, p_operator text default null) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_answer jsonb;
  v_now timestamptz;
  n governance.notifications;
begin
  perform governance.check_id('p_command_id', p_command_id);
  perform governance.check_optional('p_operator', p_operator, 255);
  v_answer := governance.begin_command('operator', p_command_id, row('retry_notification', p_notification_id, p_operator)::text);
  if v_answer is not null then return v_answer; end if;
  v_now := governance.now();
  -- Its life begins anew: else what waited too long would be given up again at once.
  update governance.notifications x set status = 'queued', attempts = 0, due_at = v_now, created_at = v_now, last_error = null
  where x.notification_id = p_notification_id and x.status = 'failed' returning * into n;
  if not found then
    if exists (select from governance.notifications x where x.notification_id = p_notification_id) then
      perform governance.fail('PT409', 'already_resolved', format('Notification %s was not given up: there is nothing to send again', p_notification_id));
    end if;
    perform governance.fail('PT404', 'not_found', format('There is no notification %s', p_notification_id));
  end if;
  insert into governance.audit_log (created_at, operator, action, account_id, command_id, details)
  values (v_now, p_operator, 'retry_notification', n.account_id, p_command_id,
    jsonb_build_object('notification_id', n.notification_id, 'alert_event_id', n.alert_event_id, 'channel', n.channel));
  perform governance.ring('alerts', v_now);
  return governance.end_command('operator', p_command_id, jsonb_build_object('notification_id', n.notification_id, 'status', n.status));
end
$$;
comment on function public.console_retry_notification(text, bigint, text) is
  'Has a message that was given up sent again. Audited. Errors: invalid_argument, not_found, already_resolved, idempotency_conflict.';
revoke all on function public.console_retry_notification(text, bigint, text) from public, anon, authenticated;
grant execute on function public.console_retry_notification(text, bigint, text) to service_role;

-- ---------------------------------------------------------------------------------------------------------------
-- The list behind the count
-- ---------------------------------------------------------------------------------------------------------------

create index alert_events_open on governance.alert_events (alert_event_id) include (created_at) where acknowledged_at is null;

create or replace function governance.count_open_alerts() returns bigint
  language sql stable set search_path = '' as $$
  select count(*) from (select from governance.alert_events e
    where e.acknowledged_at is null and e.created_at > governance.now() - governance.alert_retention() limit 10000) x
$$;
comment on function governance.count_open_alerts() is 'Alerts that are still shown (24 hours, or the setting alert_retention_hours) and that nobody has acknowledged.';

drop function public.console_alerts(bigint, int, boolean);
create function public.console_alerts(
  p_before_id bigint default null, p_limit int default 50, p_open_only boolean default false, p_undelivered_only boolean default false
) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
declare
  v_now timestamptz := governance.now();
  v_since timestamptz := case when p_open_only then v_now - governance.alert_retention() else '-infinity' end;
begin
  perform governance.check_limit(p_limit, 500);
  return (
    with page as (
      select e.*, row_number() over (order by e.alert_event_id desc) as n from (
        select * from governance.alert_events x
        where x.alert_event_id < coalesce(p_before_id, 9223372036854775807)
          and (p_open_only is not true or (x.acknowledged_at is null and x.created_at > v_since))
          and (p_undelivered_only is not true or x.alert_event_id in (select f.alert_event_id from governance.notifications f where f.status = 'failed'))
        order by x.alert_event_id desc limit p_limit + 1) e)
    select jsonb_build_object(
      'alerts', coalesce(jsonb_agg(jsonb_build_object('alert_event_id', p.alert_event_id, 'alert_name', k.alert_name, 'kind', p.kind, 'severity', p.severity,
        'message', p.message, 'user_id', a.user_id, 'display_name', a.display_name, 'threshold', p.threshold, 'value', p.value, 'period', p.period_key,
        'details', p.details, 'created_at', p.created_at, 'acknowledged_at', p.acknowledged_at, 'acknowledged_by', p.acknowledged_by,
        'considered_at', p.considered_at, 'decision_id', case when p.details ->> 'decision_id' ~ '^\d{1,18}$' then (p.details ->> 'decision_id')::bigint end,
        'notifications', (select coalesce(jsonb_agg(jsonb_build_object('notification_id', n.notification_id, 'channel', n.channel, 'audience', n.audience,
            'recipient', n.recipient, 'status', n.status, 'attempts', n.attempts, 'created_at', n.created_at, 'due_at', n.due_at, 'sent_at', n.sent_at,
            'last_error', n.last_error) order by n.notification_id), '[]')
          from governance.notifications n where n.alert_event_id = p.alert_event_id)) order by p.n) filter (where p.n <= p_limit), '[]'),
      'next_before_id', case when count(*) > p_limit then max(p.alert_event_id) filter (where p.n = p_limit) end,
      -- How delivery stands: what waits although it is due is what nobody takes; what was given up is said until somebody has
      -- seen to its alert. And when alerts were last looked for at all.
      'delivery', jsonb_build_object(
        'queued', (select count(*) from (select from governance.notifications q where q.status = 'queued' limit 10000) x),
        'overdue_since', (select min(q.due_at) from governance.notifications q where q.status = 'queued' and q.due_at < v_now - interval '5 minutes'),
        'failed', (select count(*) from (select from governance.notifications f join governance.alert_events e using (alert_event_id)
          where f.status = 'failed' and e.acknowledged_at is null limit 10000) x),
        'upkeep_at', (select s.value -> 'at' from governance.maintenance_state s where s.key = 'allowance_warnings')))
    from page p
    left join governance.cost_alerts k on k.alert_id = p.alert_id
    left join governance.accounts a on a.account_id = p.account_id);
end
$$;
comment on function public.console_alerts(bigint, int, boolean, boolean) is
  'Alerts that were raised, newest first, each with its messages; the open ones, or those of which a message was given up, alone. Errors: invalid_argument.';
revoke all on function public.console_alerts(bigint, int, boolean, boolean) from public, anon, authenticated;
grant execute on function public.console_alerts(bigint, int, boolean, boolean) to service_role;

-- ---------------------------------------------------------------------------------------------------------------
-- Receipts whose figures add up
-- ---------------------------------------------------------------------------------------------------------------

create function governance.with_separators(p_number bigint) returns text
  language sql immutable set search_path = '' as $$
  select to_char(p_number, 'FM9,999,999,999,999,999,990')
$$;
comment on function governance.with_separators(bigint) is 'A number as people read it: 10,240.';

create or replace function public.explain_decision(p_decision_id bigint) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
declare
  r governance.requests;
  a governance.accounts;
  v_rule governance.rule_versions;
  v_facts jsonb;
  v_trace jsonb := '[]';
  v_read text[];
  v_need bigint;
  v_have bigint;
  v_shortfall jsonb;
  v_limit jsonb;
  v_clears_at timestamptz;
  v_remedies text[] := '{}';
  v_allowance bigint;
  v_upgrade text;
  v_row record;
begin
  if p_decision_id is null then
    perform governance.fail('PT400', 'invalid_argument', 'p_decision_id is needed');
  end if;
  select x.* into r from governance.requests x where x.decision_id = p_decision_id;
  if not found then
    perform governance.fail('PT404', 'not_found', format('There is no decision %s, or it is no longer kept', p_decision_id));
  end if;
  select x.* into strict a from governance.accounts x where x.account_id = r.account_id;
  select x.* into v_rule from governance.rule_versions x where x.version_id = r.rule_version_id;
  -- Only a hash and a count of the message are kept.
  v_facts := governance.facts_json(r, a) || jsonb_build_object('message', case when r.message_characters is not null then '(not kept)' end);

  -- Rules were looked at unless a block was in force already; the one that blocked was the last.
  if r.reason is distinct from 'user_blocked' and (r.rule_version_id is null or r.rule_version_id = any (coalesce(r.matched_version_ids, '{}'))) then
    for v_row in
      select v.version_id, v.rule_name, v.version, v.rule, v.version_id = any (coalesce(r.matched_version_ids, '{}')) as matched
      from governance.rule_sets s
      cross join lateral unnest(s.version_ids) with ordinality o(version_id, n)
      join governance.rule_versions v using (version_id)
      where s.rule_set_id = r.rule_set_id order by o.n
    loop
      v_read := (governance.compile_condition(v_row.rule -> 'conditions', 'conditions', 1)).facts;
      if v_row.rule -> 'applies_to' ? 'plans' then v_read := v_read || 'plan'::text; end if;
      if v_row.rule -> 'applies_to' ? 'scopes' then v_read := v_read || 'scope_id'::text; end if;
      v_trace := v_trace || jsonb_build_object('rule_name', v_row.rule_name, 'version', v_row.version, 'mode', v_row.rule -> 'mode',
        'matched', v_row.matched, 'rule', v_row.rule,
        'facts', (select coalesce(jsonb_object_agg(f, v_facts -> f), '{}') from unnest(v_read) f));
      exit when v_row.version_id = r.rule_version_id;
      -- A route changes what the rules after it see.
      if v_row.matched and v_row.rule ->> 'mode' = 'enforce' and v_row.rule -> 'action' ? 'route' then
        v_facts := v_facts || jsonb_build_object('model', v_row.rule -> 'action' -> 'route' -> 'model',
          'provider', governance.provider_of(v_row.rule -> 'action' -> 'route' ->> 'model', r.created_at));
      end if;
    end loop;
  end if;

  v_need := case when r.decision = 'block' then least(ceil(r.estimated_tokens * coalesce(r.cost_factor, 1)), 9007199254740991)::bigint else r.reserved_tokens end;
  if r.reason = 'insufficient_tokens' and r.rule_version_id is null then
    v_have := (v_facts ->> 'available_tokens')::bigint;
    v_shortfall := jsonb_build_object('need', v_need, 'have', v_have, 'missing', v_need - v_have);
    select p.monthly_allowance into v_allowance from governance.plans p where p.plan_id = r.plan_id;
    -- The next allowance helps only if it is enough.
    if v_allowance >= v_need then v_clears_at := r.month_ends_at; end if;
  elsif r.reason in ('daily_limit', 'monthly_limit') and (case r.reason when 'daily_limit' then r.daily_limit else r.monthly_limit end) is not null then
    v_limit := jsonb_build_object('window', case r.reason when 'daily_limit' then 'daily' else 'monthly' end,
      'limit', case r.reason when 'daily_limit' then r.daily_limit else r.monthly_limit end,
      'used', case r.reason when 'daily_limit' then r.seen_tokens_today else r.seen_tokens_month end);
    v_have := greatest((v_limit ->> 'limit')::bigint - (v_limit ->> 'used')::bigint, 0);
    if v_need > v_have then
      -- What this call lacks. By how much the limit is overrun already is not this call's: used and limit say it.
      v_shortfall := jsonb_build_object('need', v_need, 'have', v_have, 'missing', v_need - v_have);
    end if;
    -- A new day or month helps only a call that fits into it.
    if v_need <= (v_limit ->> 'limit')::bigint then
      v_clears_at := case r.reason when 'daily_limit' then r.day_ends_at else r.month_ends_at end;
    end if;
  end if;
  if v_clears_at is null and v_limit is null and r.retry_after_seconds is not null then
    v_clears_at := date_trunc('second', r.created_at + r.retry_after_seconds * interval '1 second');
  end if;

  if r.decision = 'block' then
    select p.name into v_upgrade from governance.plans p where p.plan_id = r.upgrade_plan;
    if r.reason = 'insufficient_tokens' and v_shortfall is not null then
      v_remedies := v_remedies || format('Add at least %s tokens.', governance.with_separators(v_need - v_have));
      if v_have > 0 then
        v_remedies := v_remedies || format('Ask for less: at most %s tokens are free.', governance.with_separators(v_have));
      end if;
    elsif v_limit is not null and v_shortfall is not null then
      v_remedies := v_remedies || format('Raise the %s limit to at least %s tokens.', v_limit ->> 'window', governance.with_separators((v_limit ->> 'used')::bigint + v_need));
      if v_have > 0 then
        v_remedies := v_remedies || format('Ask for less: %s tokens are left of the %s limit.', governance.with_separators(v_have), v_limit ->> 'window');
      end if;
    elsif r.reason = 'user_blocked' then
      v_remedies := v_remedies || 'An operator can unblock this user.'::text;
    elsif r.rule_version_id is not null and not r.rule_version_id = any (coalesce(r.matched_version_ids, '{}')) then
      v_remedies := v_remedies || format('The rule %s blocked this user for a while, at an earlier call: unblock the user, which forgives.', replace(v_rule.rule_name, '_', ' '));
    elsif r.rule_version_id is not null then
      v_remedies := v_remedies || format('The rule %s must not match: unblocking the user makes its message counters start anew; or change the rule, or put it in shadow.', replace(v_rule.rule_name, '_', ' '));
    end if;
    if v_upgrade is not null then
      v_remedies := v_remedies || format('Move the user to the plan %s.', v_upgrade);
    end if;
    if v_clears_at is not null then
      v_remedies := v_remedies || format('Wait until %s (%s).', to_char(v_clears_at at time zone a.timezone, 'YYYY-MM-DD HH24:MI'), a.timezone);
    end if;
  end if;

  return jsonb_build_object(
    'decision_id', r.decision_id, 'request_id', r.request_id, 'user_id', a.user_id, 'at', r.created_at,
    'decision', r.decision, 'reason', r.reason, 'message', r.message, 'http_status', r.http_status,
    'rule_name', v_rule.rule_name, 'rule_version', v_rule.version,
    'requested_model', r.requested_model, 'model', r.model, 'truncate_to_words', r.truncate_to_words,
    'estimated_tokens', r.estimated_tokens, 'reserved_tokens', r.reserved_tokens, 'status', r.status,
    'shortfall', v_shortfall, 'limit', v_limit, 'clears_at', v_clears_at, 'timezone', a.timezone,
    'balance', governance.decision_answer(r) -> 'balance', 'limits', governance.decision_answer(r) -> 'limits',
    'warnings', coalesce(to_jsonb(r.warnings), '[]'), 'currency', (select c.currency from governance.active_config c),
    'facts', v_facts,
    'rules', v_trace,
    'remedies', to_jsonb(v_remedies));
end
$$;
comment on function public.explain_decision(bigint) is
  'The receipt of a decision: every rule looked at, with its version, the facts it saw and whether it matched; what was missing, when that clears, and what would have to change. Errors: invalid_argument, not_found.';
revoke all on function public.explain_decision(bigint) from public, anon, authenticated;
grant execute on function public.explain_decision(bigint) to service_role;

revoke all on all functions in schema governance from public;
