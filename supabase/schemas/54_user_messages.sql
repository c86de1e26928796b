-- Messages to users: their text, their language, and what users turned off, by a function or by the link in a mail.

create table governance.preferences (
  account_id bigint primary key references governance.accounts (account_id) on delete cascade,
  -- Null: as the account or the project has it.
  language text,
  -- Topics (governance.message_topics) that the user wants no messages about.
  topics_off text[] not null default '{}',
  updated_at timestamptz not null
);

comment on table governance.preferences is 'Choices of the users: language, and messages that they turned off.';

create table governance.secrets (
  name text primary key,
  value bytea not null
);

comment on table governance.secrets is 'Keys that this database made for itself, and that leave it in no answer.';

create function governance.message_topics() returns text[]
  language sql immutable set search_path = '' as $$
  select '{limits,low_balance,purchases,subscription,tokens_taken}'::text[]
$$;
comment on function governance.message_topics() is 'Topics of messages to users. Each can be turned off.';

create function governance.sent_topics() returns text[]
  language sql stable set search_path = '' as $$
  select governance.setting_texts('user_messages', governance.message_topics())
$$;
comment on function governance.sent_topics() is
  'Topics that the project writes to users about: the setting user_messages; all where it is not set.';

create function governance.alert_topic(p_kind text) returns text
  language sql immutable set search_path = '' as $$
  select case p_kind when 'low_balance' then 'low_balance' else 'limits' end
$$;
comment on function governance.alert_topic(text) is 'The topic of an alert that is sent to a user.';

create function governance.notification_topic(p_payload jsonb) returns text
  language sql immutable set search_path = '' as $$
  select coalesce(p_payload ->> 'topic', governance.alert_topic(p_payload ->> 'kind'))
$$;
comment on function governance.notification_topic(jsonb) is 'The topic of a message to a user, by its payload.';

create function governance.user_language(a governance.accounts) returns text
  language sql stable set search_path = '' as $$
  select coalesce(
    (select p.language from governance.preferences p where p.account_id = a.account_id),
    (select l from unnest(governance.user_languages()) l
      where l = lower(split_part(replace(a.metadata ->> 'language', '_', '-'), '-', 1))),
    governance.setting_text('default_language'), 'en')
$$;
comment on function governance.user_language(governance.accounts) is
  'The language a user is written to: their own choice, metadata.language of the account (de, de-AT), the setting '
  'default_language, English.';

create function governance.wants_message(a governance.accounts, p_channel text, p_topic text) returns boolean
  language sql stable set search_path = '' as $$
  select coalesce(a.email, '') <> '' and coalesce(a.metadata -> 'notifications' -> p_channel, 'true') <> 'false'
    and p_topic = any (governance.sent_topics())
    and not exists (select from governance.preferences p
      where p.account_id = a.account_id and p_topic = any (p.topics_off))
$$;
comment on function governance.wants_message(governance.accounts, text, text) is
  'Whether a user can be written to, the project sends such messages, and the user has not turned that off: the topic, '
  'or the channel (metadata {"notifications": {"email": false}}).';

create function governance.word_message(p_word text, p_values jsonb, p_language text) returns text
  language sql stable set search_path = '' as $$
  select governance.say(p_word, p_language, (
    select jsonb_object_agg(v.key, case jsonb_typeof(v.value)
      when 'number' then governance.say_count((v.value #>> '{}')::numeric, p_language)
      when 'object' then coalesce(governance.say_period(v.value ->> 'key', p_language),
        governance.say_money((v.value ->> 'minor')::numeric, v.value ->> 'currency', p_language))
      else v.value #>> '{}' end)
    from jsonb_each(p_values) v))
$$;
comment on function governance.word_message(text, jsonb, text) is
  'The text of a message. Numbers are counts, {minor, currency} is money, {key} a period.';

create function governance.tell_user(p_account_id bigint, p_topic text, p_word text, p_values jsonb,
  p_now timestamptz, p_happened_at timestamptz default null) returns void
  language plpgsql set search_path = '' as $$
declare
  a governance.accounts;
  v_language text;
  v_body text;
begin
  -- Stripe delivers again for three days. What comes later is from a backfill or a restore: no message is sent.
  if p_happened_at < p_now - interval '3 days' then return; end if;
  select * into a from governance.accounts x where x.account_id = p_account_id;
  if not governance.wants_message(a, 'email', p_topic)
    or 'email' <> all (governance.setting_texts('user_warning_channels', '{email}')) then
    return;
  end if;
  v_language := governance.user_language(a);
  v_body := governance.word_message(p_word, p_values, v_language);
  insert into governance.notifications (channel, audience, recipient, account_id, subject, body, payload, due_at,
    created_at)
  values ('email', 'user', a.email, a.account_id, left(v_body, 200), v_body,
    jsonb_build_object('topic', p_topic, 'word', p_word, 'values', p_values, 'language', v_language, 'user_id',
      a.user_id, 'display_name', a.display_name, 'at', coalesce(p_happened_at, p_now)), p_now, p_now);
end
$$;
comment on function governance.tell_user(bigint, text, text, jsonb, timestamptz, timestamptz) is
  'Queues a message to a user who wants messages of this topic, in the transaction of the event that it is about: both '
  'happen, or neither. Nothing is sent about what happened more than three days ago.';

create function governance.hmac_sha256(p_key bytea, p_text text) returns bytea
  language sql immutable set search_path = '' as $$
  -- RFC 2104, for keys of at most one block.
  select sha256(k.outside || sha256(k.inside || convert_to(p_text, 'UTF8')))
  from (select
      string_agg(set_byte('\x00'::bytea, 0, b # 54), ''::bytea order by n) as inside,
      string_agg(set_byte('\x00'::bytea, 0, b # 92), ''::bytea order by n) as outside
    from (select n, case when n < octet_length(p_key) then get_byte(p_key, n) else 0 end as b
      from generate_series(0, 63) n) x) k
$$;
comment on function governance.hmac_sha256(bytea, text) is 'HMAC-SHA-256, so that no extension is needed for it.';

create function governance.turn_off_token(p_account_id bigint, p_topic text) returns text
  language plpgsql set search_path = '' as $$
declare
  v_key bytea := (select s.value from governance.secrets s where s.name = 'turn_off_messages');
begin
  if v_key is null then
    insert into governance.secrets (name, value) values ('turn_off_messages',
      sha256(convert_to(gen_random_uuid()::text || gen_random_uuid() || gen_random_uuid(), 'UTF8')))
    on conflict do nothing;
    select s.value into strict v_key from governance.secrets s where s.name = 'turn_off_messages';
  end if;
  return p_account_id || '.' || p_topic || '.' || encode(governance.hmac_sha256(v_key,
    p_account_id || '.' || p_topic), 'hex');
end
$$;
comment on function governance.turn_off_token(bigint, text) is
  'The token in the link of a mail: it turns off one topic for one user, and is good for nothing else.';

create function governance.one_line(p_text text, p_length int default 500) returns text
  language sql immutable parallel safe set search_path = '' as $$
  -- No line breaks, no control, direction or invisible characters, but the joiners that scripts and emoji need.
  select left(btrim(regexp_replace(p_text,
    '([\u0001-\u0020\u007f-\u00a0\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]'
      '|[\U000E0000-\U000E007F]|\s)+', ' ', 'g')), p_length)
$$;
comment on function governance.one_line(text, int) is 'A text from outside as one line of a mail.';

create function governance.html_text(p_text text) returns text
  language sql immutable parallel safe set search_path = '' as $$
  select replace(replace(replace(replace(p_text, '&', '&amp;'), '<', '&lt;'), '>', '&gt;'), '"', '&quot;')
$$;
comment on function governance.html_text(text) is 'A text within HTML, also within the quotes of an attribute.';

create function governance.mail_line(p_word text, p_language text, p_values jsonb) returns jsonb
  language sql immutable set search_path = '' as $$
  -- Each word with an address ends in ": {url}". It is of the project's settings alone (governance.check_settings).
  select jsonb_build_object('text', l.line, 'html', case when x.url is null then governance.html_text(l.line)
    else format('<a href="%s">%s</a>', governance.html_text(x.url),
      governance.html_text(left(l.line, -length(': ' || x.url)))) end)
  from (select p_values ->> 'url' as url) x
  cross join lateral (select governance.one_line(governance.say(p_word, p_language, p_values), 1000) as line) l
$$;
comment on function governance.mail_line(text, text, jsonb) is
  'A line of a mail as text, which ends in its address, and as HTML, which is a link to it.';

create function governance.say_moment(p_at timestamptz, p_timezone text, p_language text) returns text
  language sql stable set search_path = '' as $$
  select governance.say('format.moment', p_language, jsonb_build_object('time', to_char(x.t, 'HH24:MI'),
    'day', governance.say_day(to_char(x.t, 'YYYY-MM-DD'), p_language)))
  from (select p_at at time zone coalesce(governance.known_zone(p_timezone), 'UTC') as t) x
$$;
comment on function governance.say_moment(timestamptz, text, text) is 'A moment in a zone: 5 March 2027, 14:30.';

create function governance.name_in_greeting(p_name text) returns text
  language sql immutable set search_path = '' as $$
  -- Mail programs make links of whatever looks like an address: a name that does is left out.
  select case when governance.one_line(p_name, 80) ~ '[/@:<>\\]|\.[[:alpha:]]{2}|www\.' then null
    else nullif(governance.one_line(p_name, 80), '') end
$$;
comment on function governance.name_in_greeting(text) is 'A user''s name as a mail may show it; null for none.';

create function governance.mail_steps(p_topic text, p_plan_id text, p_language text) returns jsonb[]
  language plpgsql stable set search_path = '' as $$
declare
  v_lines jsonb[] := '{}';
  v_upgrade jsonb;
  v_buy text := governance.buy_url('insufficient_tokens', p_plan_id);
  v_plans text := governance.setting_text('upgrade_url');
  v_contact text := governance.setting_text('contact_url');
begin
  if p_topic = 'low_balance' and v_buy is not null then
    v_lines := v_lines || governance.mail_line('next.buy', p_language, jsonb_build_object('url', v_buy));
  end if;
  if p_topic in ('low_balance', 'limits') then
    select governance.upgrade_json(p.upgrade_to) into v_upgrade
    from governance.plans p where p.plan_id = p_plan_id and p.upgrade_to is not null;
    if v_upgrade is not null then
      v_lines := v_lines || governance.mail_line(
        case when v_upgrade ? 'url' then 'next.upgrade_at' else 'next.upgrade' end, p_language,
        jsonb_build_object('plan', v_upgrade -> 'name', 'url', v_upgrade -> 'url'));
    end if;
  elsif p_topic = 'subscription' and v_plans is not null then
    v_lines := v_lines || governance.mail_line('next.plans', p_language, jsonb_build_object('url', v_plans));
  elsif p_topic = 'tokens_taken' and v_contact is not null then
    v_lines := v_lines || governance.mail_line('next.contact', p_language, jsonb_build_object('url', v_contact));
  end if;
  return v_lines;
end
$$;
comment on function governance.mail_steps(text, text, text) is
  'Steps that a user can take next about a topic, a line each, with the link of the project''s settings.';

create function governance.write_mail(p_name text, p_plan_id text, p_timezone text, p_language text, p_topic text,
  p_sentence text, p_at timestamptz, p_turn_off text) returns jsonb
  language plpgsql stable set search_path = '' as $$
declare
  c_page constant text := '<!doctype html><html lang="%s"><head><meta charset="utf-8"><meta name="viewport" '
    'content="width=device-width"><title>%s</title></head><body style="font:16px/1.5 system-ui,sans-serif;'
    'max-width:36rem;margin:0 auto;padding:24px 16px">%s</body></html>';
  v_name text := governance.name_in_greeting(p_name);
  v_sentence text := governance.one_line(p_sentence);
  v_subject text := governance.one_line(regexp_replace(v_sentence, '\.$', ''), 200);
  v_about jsonb[];
  v_parts jsonb[];
begin
  v_about := array[
    governance.mail_line('mail.at', p_language, jsonb_build_object('zone', p_timezone,
      'at', governance.say_moment(p_at, p_timezone, p_language))),
    governance.mail_line('mail.why', p_language,
      jsonb_build_object('topic', governance.user_word('topic.' || p_topic, p_language)))];
  if p_turn_off is not null then
    v_about := v_about || governance.mail_line('mail.turn_off_at', p_language,
      jsonb_build_object('url', p_turn_off));
  end if;
  v_parts := array[
    jsonb_build_array(governance.mail_line(case when v_name is null then 'mail.hello_nobody' else 'mail.hello' end,
      p_language, jsonb_build_object('name', v_name))),
    jsonb_build_array(jsonb_build_object('text', v_sentence, 'html', governance.html_text(v_sentence))),
    to_jsonb(governance.mail_steps(p_topic, p_plan_id, p_language)),
    to_jsonb(v_about)];
  return (select jsonb_build_object('subject', v_subject, 'language', p_language, 'topic', p_topic,
      'text', string_agg(x.text, E'\n\n' order by x.n) || E'\n',
      'html', format(c_page, p_language, governance.html_text(v_subject), string_agg(format('<p%s>%s</p>',
        case when x.n = 4 then ' style="color:#666;font-size:13px"' else '' end, x.html), '' order by x.n)))
    from (select p.n, string_agg(l.line ->> 'text', E'\n' order by l.n) as text,
        string_agg(l.line ->> 'html', '<br>' order by l.n) as html
      from unnest(v_parts) with ordinality p(lines, n)
      cross join lateral jsonb_array_elements(p.lines) with ordinality l(line, n) group by p.n) x);
end
$$;
comment on function governance.write_mail(text, text, text, text, text, text, timestamptz, text) is
  'A mail to a user, whole, as text and as HTML: greeting, sentence, what to do next, when it was, why it came, and '
  'how to turn such mails off. p_turn_off: the address for that, null for none.';

create function governance.turn_off_url(p_token text) returns text
  language sql stable set search_path = '' as $$
  select u.url || case when u.url like '%?%' then '&' else '?' end || 'token=' || p_token
  from (select governance.setting_text('unsubscribe_url') as url) u
$$;
comment on function governance.turn_off_url(text) is
  'Where the link in a mail leads; null where the setting unsubscribe_url is not given.';

create function governance.user_mail(n governance.notifications) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  a governance.accounts;
  v_topic text := governance.notification_topic(n.payload);
  v_url text;
begin
  select * into a from governance.accounts x where x.account_id = n.account_id;
  if n.audience <> 'user' or a.account_id is null then return null; end if;
  v_url := governance.turn_off_url(governance.turn_off_token(a.account_id, v_topic));
  return governance.write_mail(a.display_name, a.plan_id, a.timezone,
      coalesce(n.payload ->> 'language', governance.user_language(a)), v_topic, n.body,
      coalesce((n.payload ->> 'at')::timestamptz, n.created_at), v_url)
    || jsonb_build_object('turn_off_url', v_url, 'from', governance.setting_text('mail_from'));
end
$$;
comment on function governance.user_mail(governance.notifications) is
  'A message to a user as the mail that is sent (governance.write_mail), with its sender where the project names one '
  'and the address that turns such mails off. Null for others.';

create function governance.message_samples() returns table (n bigint, topic text, word text, sample jsonb)
  language sql stable set search_path = '' as $$
  select row_number() over (), x.topic, x.word, x.sample
  from (select coalesce((select p.name from governance.active_config c join governance.plans p
          on p.plan_id = c.default_plan), 'Pro') as plan,
      coalesce(pk.tokens, 500000) as tokens, jsonb_build_object('minor', coalesce(pk.price_minor, 500),
        'currency', coalesce(pk.currency, c.currency)) as money,
      coalesce((select (s.value #>> '{}')::bigint from governance.settings s
        where s.key = 'low_balance_tokens' and jsonb_typeof(s.value) = 'number'), 1000) as low
    from governance.active_config c left join lateral (select k.tokens, k.price_minor, k.currency
      from governance.packs k where k.retired_at is null order by k.price_minor, k.pack_id limit 1) pk on true) s
  cross join lateral (values
    ('purchases', 'message.purchase', jsonb_build_object('tokens', s.tokens, 'money', s.money)),
    ('purchases', 'message.renewal', jsonb_build_object('tokens', s.tokens, 'money', s.money, 'plan', s.plan)),
    ('subscription', 'message.subscription_keep', jsonb_build_object('plan', s.plan)),
    ('subscription', 'message.subscription_convert', jsonb_build_object('plan', s.plan, 'tokens', s.tokens)),
    ('subscription', 'message.subscription_expire', jsonb_build_object('plan', s.plan)),
    ('tokens_taken', 'message.refund', jsonb_build_object('tokens', s.tokens)),
    ('tokens_taken', 'message.dispute', jsonb_build_object('tokens', s.tokens)),
    ('tokens_taken', 'message.support', jsonb_build_object('tokens', s.tokens)),
    ('low_balance', 'alert.low_balance', jsonb_build_object('value', s.low)),
    ('limits', 'alert.daily_limit', jsonb_build_object('threshold', 80)),
    ('limits', 'alert.monthly_limit', jsonb_build_object('threshold', 80)),
    ('limits', 'alert.allowance', jsonb_build_object('threshold', 80)),
    ('limits', 'alert.negative_balance', jsonb_build_object('value', s.low)),
    ('limits', 'alert.high_usage', jsonb_build_object('value', s.tokens)),
    ('limits', 'alert.usage_spike', jsonb_build_object('value', s.tokens, 'usual', s.tokens / 20)),
    ('limits', 'alert.user_budget', jsonb_build_object('value', s.money,
      'period', jsonb_build_object('key', '2027-03'))))
    x(topic, word, sample)
$$;
comment on function governance.message_samples() is
  'Every message that a user can get, with values of this project to show it with.';

create function governance.is_message_sent(p_topic text, p_word text) returns boolean
  language sql stable set search_path = '' as $$
  select p_topic = any (governance.sent_topics())
    and 'email' = any (governance.setting_texts('user_warning_channels', '{email}'))
    and (p_word !~ '^alert\.(negative_balance|high_usage|usage_spike|user_budget)$'
      -- Users get these only where an alert of the preset writes to them.
      or exists (select from governance.cost_alerts k
        where k.is_active and k.retired_at is null and k.scope = 'user' and 'email' = any (k.channels)
          and case when p_word = 'alert.user_budget' then k.metric <> 'spike' and governance.has_budget(k.metric)
            else k.metric = (select x.metric from governance.alert_kinds() x where 'alert.' || x.kind = p_word) end))
$$;
comment on function governance.is_message_sent(text, text) is
  'Whether the project writes a message to users who have not turned it off.';

create function public.console_messages(p_language text default null) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
declare
  v_language text := coalesce(p_language, governance.setting_text('default_language'), 'en');
begin
  perform governance.refuse_others('console_messages');
  if v_language <> all (governance.user_languages()) then
    perform governance.fail('PT400', 'invalid_argument',
      'p_language is one of ' || array_to_string(governance.user_languages(), ', '));
  end if;
  return (select jsonb_build_object('language', v_language,
      'languages', (select jsonb_agg(jsonb_build_object('language', l,
          'name', governance.user_word('language.name', l)))
        from unnest(governance.user_languages()) l),
      'from', governance.setting_text('mail_from'),
      'missing', (select coalesce(jsonb_agg(k), '[]') from unnest(
          '{unsubscribe_url,buy_url,upgrade_url,contact_url,mail_from}'::text[]) k
        where governance.setting_text(k) is null),
      'is_mail_on', 'email' = any (governance.setting_texts('user_warning_channels', '{email}')),
      'messages', jsonb_agg(jsonb_build_object('word', m.word, 'is_sent', governance.is_message_sent(m.topic, m.word),
          'turned_off_by', (select count(*) from governance.preferences p where m.topic = any (p.topics_off)))
        || governance.write_mail('Ann Miller', c.default_plan, 'Europe/London', v_language, m.topic,
          governance.word_message(m.word, m.sample, v_language), governance.now(),
          governance.turn_off_url('…')) order by m.n))
    from governance.message_samples() m cross join governance.active_config c);
end
$$;
comment on function public.console_messages(text) is
  'Every message that users can get, as the mail that would be sent to an invented user on the default plan: text and '
  'HTML, in a language (the project''s default unless said). missing: settings that would add a link or a sender. '
  'Errors: invalid_argument.';
revoke all on function public.console_messages(text) from public, anon, authenticated;
grant execute on function public.console_messages(text) to service_role;

create function governance.save_topic(p_account_id bigint, p_topic text, p_is_on boolean, p_now timestamptz)
  returns void
  language sql set search_path = '' as $$
  insert into governance.preferences as p (account_id, topics_off, updated_at)
  values (p_account_id, case when p_is_on then '{}' else array[p_topic] end, p_now)
  on conflict (account_id) do update set updated_at = p_now,
    topics_off = array(select distinct t from unnest(case when p_is_on then array_remove(p.topics_off, p_topic)
      else p.topics_off || p_topic end) t order by t)
$$;
comment on function governance.save_topic(bigint, text, boolean, timestamptz) is
  'Turns messages about a topic on or off for a user.';

create function governance.preferences_json(a governance.accounts) returns jsonb
  language sql stable set search_path = '' as $$
  select jsonb_build_object('language', governance.user_language(a), 'languages', to_jsonb(governance.user_languages()),
    'email', a.email,
    'messages', (select coalesce(jsonb_object_agg(t, not t = any (coalesce(p.topics_off, '{}'))), '{}')
      from unnest(governance.message_topics()) t where t = any (governance.sent_topics())))
  from (select) one left join governance.preferences p on p.account_id = a.account_id
$$;
comment on function governance.preferences_json(governance.accounts) is
  'A user''s choices, of the messages that the project sends.';

create function public.my_preferences(p_changes jsonb default '{}') returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  a governance.accounts := governance.my_account();
  v_now timestamptz := governance.now();
  v_key text;
  v_value jsonb;
begin
  if p_changes is null or jsonb_typeof(p_changes) <> 'object'
    or jsonb_typeof(coalesce(p_changes -> 'messages', '{}')) <> 'object' then
    perform governance.fail('PT400', 'invalid_argument', 'p_changes is an object: language, messages');
  end if;
  select k into v_key from jsonb_object_keys(p_changes) k where k not in ('language', 'messages') limit 1;
  if v_key is not null then
    perform governance.fail('PT400', 'invalid_argument',
      format('p_changes.%s is unknown: it has language and messages', left(v_key, 64)));
  end if;
  if coalesce(p_changes -> 'language', 'null') <> 'null' and (jsonb_typeof(p_changes -> 'language') <> 'string'
    or (p_changes ->> 'language') <> all (governance.user_languages())) then
    perform governance.fail('PT400', 'invalid_argument',
      'p_changes.language is one of ' || array_to_string(governance.user_languages(), ', ') || ', or null');
  end if;
  for v_key, v_value in select * from jsonb_each(coalesce(p_changes -> 'messages', '{}')) loop
    if v_key <> all (governance.message_topics()) or jsonb_typeof(v_value) <> 'boolean' then
      perform governance.fail('PT400', 'invalid_argument',
        'p_changes.messages has true or false for each topic that it names: '
        || array_to_string(governance.message_topics(), ', '));
    end if;
  end loop;
  if p_changes <> '{}' then
    if p_changes ? 'language' then
      insert into governance.preferences as p (account_id, language, updated_at)
      values (a.account_id, p_changes ->> 'language', v_now)
      on conflict (account_id) do update set language = excluded.language, updated_at = v_now;
    end if;
    perform governance.save_topic(a.account_id, m.key, m.value = 'true', v_now)
    from jsonb_each(coalesce(p_changes -> 'messages', '{}')) m;
    insert into governance.audit_log (created_at, action, account_id, details)
    values (v_now, 'user_preferences', a.account_id, p_changes);
  end if;
  return governance.preferences_json(a);
end
$$;
comment on function public.my_preferences(jsonb) is
  'Choices of the signed-in user: language, and which messages they get by topic. p_changes changes what it names: '
  '{"language": "de", "messages": {"low_balance": false}}; language null is the account''s own again. Errors: '
  'not_signed_in, not_configured, invalid_argument.';
revoke all on function public.my_preferences(jsonb) from public, anon, authenticated;
grant execute on function public.my_preferences(jsonb) to authenticated;

create function public.turn_off_messages(p_token text, p_is_question boolean default false) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_parts text[] := regexp_match(p_token, '^([0-9]{1,18})\.([a-z_]{1,32})\.([0-9a-f]{64})$');
  v_now timestamptz := governance.now();
  v_topic text;
  v_language text;
  a governance.accounts;
begin
  perform governance.refuse_others('turn_off_messages');
  if v_parts[2] = any (governance.message_topics())
    -- Compared as hashes: how long it takes says nothing about where they differ.
    and sha256(convert_to(p_token, 'UTF8'))
      = sha256(convert_to(governance.turn_off_token(v_parts[1]::bigint, v_parts[2]), 'UTF8')) then
    select * into a from governance.accounts x where x.account_id = v_parts[1]::bigint;
  end if;
  if a.account_id is null then
    v_language := coalesce(governance.setting_text('default_language'), 'en');
    return jsonb_build_object('is_valid', false, 'language', v_language, 'text',
      governance.say('off.wrong', v_language));
  end if;
  v_language := governance.user_language(a);
  v_topic := governance.user_word('topic.' || v_parts[2], v_language);
  if not p_is_question and not exists (select from governance.preferences p
    where p.account_id = a.account_id and v_parts[2] = any (p.topics_off)) then
    perform governance.save_topic(a.account_id, v_parts[2], false, v_now);
    insert into governance.audit_log (created_at, action, account_id, details)
    values (v_now, 'user_preferences', a.account_id, jsonb_build_object('messages',
      jsonb_build_object(v_parts[2], false), 'by', 'link'));
  end if;
  return jsonb_build_object('is_valid', true, 'language', v_language, 'topic', v_parts[2],
    'text', governance.say(case when p_is_question then 'off.question' else 'off.done' end, v_language,
      jsonb_build_object('topic', v_topic)),
    'button', governance.say('off.button', v_language));
end
$$;
comment on function public.turn_off_messages(text, boolean) is
  'Turns off what the link in a mail is about, without a sign-in; p_is_question only words the question. Returns '
  'is_valid and what to show, in the user''s language.';
revoke all on function public.turn_off_messages(text, boolean) from public, anon, authenticated;
grant execute on function public.turn_off_messages(text, boolean) to service_role;
