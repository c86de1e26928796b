-- What users are written, in which language, and what they turned off: by a function, or by the link in a mail.

create table governance.preferences (
  account_id bigint primary key references governance.accounts (account_id) on delete cascade,
  -- Null: as the account or the project has it.
  language text,
  -- Topics (governance.message_topics) that the user wants no messages about.
  topics_off text[] not null default '{}',
  updated_at timestamptz not null
);

comment on table governance.preferences is 'What users chose themselves: language, and messages that they turned off.';

create table governance.secrets (
  name text primary key,
  value bytea not null
);

comment on table governance.secrets is 'Keys that this database made for itself, and that leave it in no answer.';

create function governance.message_topics() returns text[]
  language sql immutable set search_path = '' as $$
  select '{limits,low_balance,purchases,subscription,tokens_taken}'::text[]
$$;
comment on function governance.message_topics() is 'What messages to users are about. Each can be turned off.';

create function governance.alert_topic(p_kind text) returns text
  language sql immutable set search_path = '' as $$
  select case p_kind when 'low_balance' then 'low_balance' else 'limits' end
$$;
comment on function governance.alert_topic(text) is 'The topic of an alert that is sent to a user.';

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
    and not exists (select from governance.preferences p
      where p.account_id = a.account_id and p_topic = any (p.topics_off))
$$;
comment on function governance.wants_message(governance.accounts, text, text) is
  'Whether a user can be written to and has not turned that off: the topic, or the channel (metadata '
  '{"notifications": {"email": false}}).';

create function governance.tell_user(p_account_id bigint, p_topic text, p_word text, p_values jsonb,
  p_now timestamptz) returns void
  language plpgsql set search_path = '' as $$
declare
  a governance.accounts;
  v_language text;
  v_body text;
begin
  select * into a from governance.accounts x where x.account_id = p_account_id;
  if not governance.wants_message(a, 'email', p_topic)
    or 'email' <> all (governance.setting_texts('user_warning_channels', '{email}')) then
    return;
  end if;
  v_language := governance.user_language(a);
  v_body := governance.say(p_word, v_language, (
    select jsonb_object_agg(v.key, case jsonb_typeof(v.value)
      when 'number' then governance.say_count((v.value #>> '{}')::numeric, v_language)
      when 'object' then governance.say_money((v.value ->> 'minor')::numeric, v.value ->> 'currency', v_language)
      else v.value #>> '{}' end)
    from jsonb_each(p_values) v));
  insert into governance.notifications (channel, audience, recipient, account_id, subject, body, payload, due_at,
    created_at)
  values ('email', 'user', a.email, a.account_id, left(v_body, 200), v_body,
    jsonb_build_object('topic', p_topic, 'word', p_word, 'values', p_values, 'language', v_language, 'user_id',
      a.user_id, 'display_name', a.display_name, 'at', p_now), p_now, p_now);
end
$$;
comment on function governance.tell_user(bigint, text, text, jsonb, timestamptz) is
  'Queues a message to a user who wants such. Values: numbers are counts, {minor, currency} is money. Within the '
  'transaction of what it is about: both happen, or neither.';

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
  'What the link in a mail carries: it turns off one topic for one user, and is good for nothing else.';

create function governance.user_mail(n governance.notifications) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  a governance.accounts;
  p governance.plans;
  v_topic text := coalesce(n.payload ->> 'topic', governance.alert_topic(n.payload ->> 'kind'));
  v_language text;
  v_lines text[] := '{}';
  v_url text;
  v_upgrade jsonb;
begin
  select * into a from governance.accounts x where x.account_id = n.account_id;
  if n.audience <> 'user' or a.account_id is null then return null; end if;
  v_language := coalesce(n.payload ->> 'language', governance.user_language(a));
  select * into p from governance.plans x where x.plan_id = a.plan_id;
  if v_topic = 'low_balance' then
    v_lines := v_lines || governance.say('next.buy', v_language,
      jsonb_build_object('url', governance.buy_url('insufficient_tokens', a.plan_id)));
    if governance.buy_url('insufficient_tokens', a.plan_id) is null then v_lines := '{}'; end if;
  end if;
  if v_topic in ('low_balance', 'limits') and p.upgrade_to is not null then
    v_upgrade := governance.upgrade_json(p.upgrade_to);
    v_lines := v_lines || governance.say(case when v_upgrade ? 'url' then 'next.upgrade_at' else 'next.upgrade' end,
      v_language, jsonb_build_object('plan', v_upgrade -> 'name', 'url', v_upgrade -> 'url'));
  elsif v_topic = 'subscription' and governance.setting_text('upgrade_url') is not null then
    v_lines := v_lines || governance.say('next.plans', v_language,
      jsonb_build_object('url', governance.setting_text('upgrade_url')));
  elsif v_topic = 'tokens_taken' and governance.setting_text('contact_url') is not null then
    v_lines := v_lines || governance.say('next.contact', v_language,
      jsonb_build_object('url', governance.setting_text('contact_url')));
  end if;
  v_url := governance.setting_text('unsubscribe_url');
  v_url := v_url || case when v_url like '%?%' then '&' else '?' end || 'token='
    || governance.turn_off_token(a.account_id, v_topic);
  return jsonb_build_object('language', v_language, 'topic', v_topic,
    'hello', case when coalesce(btrim(a.display_name), '') = '' then governance.say('mail.hello_nobody', v_language)
      else governance.say('mail.hello', v_language, jsonb_build_object('name', left(a.display_name, 80))) end,
    'lines', to_jsonb(v_lines),
    'why', governance.say('mail.why', v_language,
      jsonb_build_object('topic', governance.user_word('topic.' || v_topic, v_language))),
    'turn_off', governance.say(case when v_url is null then 'mail.turn_off' else 'mail.turn_off_at' end, v_language,
      jsonb_build_object('url', v_url)),
    'turn_off_url', v_url);
end
$$;
comment on function governance.user_mail(governance.notifications) is
  'What a mail to a user says around its sentence, in the user''s language: greeting, what to do next with its link, '
  'why it came, and how to turn such mails off. Null for others.';

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
    'email', a.email, 'messages', (select jsonb_object_agg(t, not t = any (coalesce(p.topics_off, '{}')))
      from unnest(governance.message_topics()) t))
  from (select) one left join governance.preferences p on p.account_id = a.account_id
$$;
comment on function governance.preferences_json(governance.accounts) is 'What a user chose.';

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
      perform governance.fail('PT400', 'invalid_argument', 'p_changes.messages has true or false by topic: '
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
  'What the signed-in user chose: language, and which messages they get by topic. p_changes changes what it names: '
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
  'Turns off what the link in a mail is about, without a sign-in; p_is_question only words the question. Answers '
  'is_valid and what to show, in the user''s language.';
revoke all on function public.turn_off_messages(text, boolean) from public, anon, authenticated;
grant execute on function public.turn_off_messages(text, boolean) to service_role;
