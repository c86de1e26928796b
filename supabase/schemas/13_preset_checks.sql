-- What a preset may contain: each refusal names the place and what is allowed.

create function governance.invalid_preset(p_path text, p_problem text) returns void
  language plpgsql set search_path = '' as $$
begin
  perform governance.fail('PT422', 'invalid_preset', format('%s: %s', p_path, p_problem), p_path);
end
$$;
comment on function governance.invalid_preset(text, text) is 'Refuses a preset, naming the place and the problem.';

create function governance.preset_text(p_item jsonb, p_key text, p_path text, p_default text default null,
  p_max int default 255) returns text
  language plpgsql stable set search_path = '' as $$
begin
  if coalesce(p_item -> p_key, 'null') = 'null' then
    if p_default is null then perform governance.invalid_preset(p_path || '.' || p_key, 'a text is needed'); end if;
    return p_default;
  end if;
  if jsonb_typeof(p_item -> p_key) <> 'string' or char_length(p_item ->> p_key) not between 1 and p_max then
    perform governance.invalid_preset(p_path || '.' || p_key, format('a text of 1 to %s characters is needed', p_max));
  end if;
  return p_item ->> p_key;
end
$$;
comment on function governance.preset_text(jsonb, text, text, text,
  int) is 'A text of a preset, or its default; no default means it is needed.';

create function governance.preset_whole(p_item jsonb, p_key text, p_path text, p_min bigint, p_max bigint,
  p_default bigint default null, p_needed boolean default false) returns bigint
  language plpgsql stable set search_path = '' as $$
declare
  v_number numeric;
begin
  if coalesce(p_item -> p_key, 'null') = 'null' then
    if p_needed then perform governance.invalid_preset(p_path || '.' || p_key, 'a whole number is needed'); end if;
    return p_default;
  end if;
  if jsonb_typeof(p_item -> p_key) = 'number' then
    v_number := (p_item ->> p_key)::numeric;
    if v_number = trunc(v_number) and v_number between p_min and p_max then return v_number::bigint; end if;
  end if;
  perform governance.invalid_preset(p_path || '.' || p_key,
    format('a whole number from %s to %s is needed', p_min, p_max));
  return null;
end
$$;
comment on function governance.preset_whole(jsonb, text, text, bigint, bigint, bigint,
  boolean) is 'A whole number of a preset, or its default.';

create function governance.preset_list(p_preset jsonb, p_key text, p_id text) returns jsonb
  language plpgsql stable set search_path = '' as $$
declare
  v_list jsonb := coalesce(nullif(p_preset -> p_key, 'null'), '[]');
  v_item jsonb;
  v_at int := 0;
begin
  if jsonb_typeof(v_list) <> 'array' then perform governance.invalid_preset(p_key, 'a list is needed'); end if;
  if jsonb_array_length(v_list) > 10000
    then perform governance.invalid_preset(p_key, 'a list has at most 10,000 items'); end if;
  for v_item in select * from jsonb_array_elements(v_list) loop
    if jsonb_typeof(v_item) <> 'object'
      then perform governance.invalid_preset(format('%s[%s]', p_key, v_at), 'an object is needed'); end if;
    perform governance.preset_text(v_item, p_id, format('%s[%s]', p_key, v_at));
    v_at := v_at + 1;
  end loop;
  if p_key <> 'prices' and (select count(distinct x ->> p_id) from jsonb_array_elements(v_list) x) <> v_at then
    perform governance.invalid_preset(p_key, format('two items have the same %s', p_id));
  end if;
  return v_list;
end
$$;
comment on function governance.preset_list(jsonb, text,
  text) is 'A list of a preset whose items are objects with a name of their own.';

create function governance.check_addresses(p_list jsonb, p_path text) returns void
  language plpgsql immutable set search_path = '' as $$
begin
  if coalesce(p_list, '[]') <> '[]' and (jsonb_typeof(p_list) <> 'array' or jsonb_array_length(p_list) > 50
    or exists (select from jsonb_array_elements(p_list) w where jsonb_typeof(w) <> 'string'
      or char_length(w #>> '{}') > 254 or (w #>> '{}') !~ '^[^\s@<>(),;:\\"\[\]]+@[^\s@<>(),;:\\"\[\]]+$')) then
    perform governance.invalid_preset(p_path, 'a list of at most 50 e-mail addresses is needed');
  end if;
end
$$;
comment on function governance.check_addresses(jsonb, text) is 'Refuses anything but a list of e-mail addresses.';

create function governance.check_channels(p_list jsonb, p_path text) returns void
  language plpgsql immutable set search_path = '' as $$
begin
  if coalesce(p_list, '[]') <> '[]' and (jsonb_typeof(p_list) <> 'array'
    or exists (select from jsonb_array_elements(p_list) w
      where jsonb_typeof(w) <> 'string' or (w #>> '{}') !~ '^[a-z][a-z0-9_]{0,31}$')) then
    perform governance.invalid_preset(p_path, 'a list of channels such as email and slack is needed');
  end if;
end
$$;
comment on function governance.check_channels(jsonb, text) is 'Refuses anything but a list of channels.';

create function governance.check_settings(p_settings jsonb) returns jsonb
  language plpgsql stable set search_path = '' as $$
declare
  v_item jsonb;
  v_at int := 0;
  v_key text;
begin
  if jsonb_typeof(p_settings) <> 'object' then perform governance.invalid_preset('settings', 'an object is needed');
    end if;
  if coalesce(p_settings -> 'complexity_words', '[]') <> '[]' then
    if jsonb_typeof(p_settings -> 'complexity_words') <> 'array'
      or jsonb_array_length(p_settings -> 'complexity_words') > 1000
      or exists (select from jsonb_array_elements(p_settings -> 'complexity_words') w
        where jsonb_typeof(w) <> 'string' or char_length(w #>> '{}') > 1000) then
      perform governance.invalid_preset('settings.complexity_words', 'a list of at most 1,000 phrases is needed');
    end if;
  end if;
  if coalesce(p_settings -> 'topics', '[]') <> '[]' then
    if jsonb_typeof(p_settings -> 'topics') <> 'array' or jsonb_array_length(p_settings -> 'topics') > 1000 then
      perform governance.invalid_preset('settings.topics', 'a list of {topic, words} is needed');
    end if;
    for v_item in select * from jsonb_array_elements(p_settings -> 'topics') loop
      if jsonb_typeof(v_item) <> 'object' or jsonb_typeof(v_item -> 'topic')
        is distinct from 'string' or jsonb_typeof(v_item -> 'words') is distinct from 'array'
        or jsonb_array_length(v_item -> 'words') > 1000 or char_length(v_item ->> 'topic') not between 1 and 1000
        or exists (select from jsonb_array_elements(v_item -> 'words') w
          where jsonb_typeof(w) <> 'string' or char_length(w #>> '{}') > 1000) then
        perform governance.invalid_preset(format('settings.topics[%s]', v_at),
          'a {topic, words} with at most 1,000 phrases is needed');
      end if;
      v_at := v_at + 1;
    end loop;
  end if;
  perform governance.check_addresses(p_settings -> 'operator_emails', 'settings.operator_emails');
  perform governance.check_routes(p_settings -> 'alert_routes');
  foreach v_key in array '{buy_url,upgrade_url,contact_url,unsubscribe_url}'::text[] loop
    -- Into mails and answers: one address, and nothing that could be read as more.
    if coalesce(p_settings -> v_key, 'null') <> 'null' and (jsonb_typeof(p_settings -> v_key) <> 'string'
      or char_length(p_settings ->> v_key) > 500
      or (p_settings ->> v_key) !~ (case v_key when 'contact_url' then '^(mailto:|https://[^/?#]|http://localhost[:/])'
        else '^(https://[^/?#]|http://localhost[:/])' end)
      or (p_settings ->> v_key) ~ '[^\x21-\x7e]|[<>"\\^`{|}]') then
      perform governance.invalid_preset('settings.' || v_key,
        'an address that begins with https:// is needed, of at most 500 characters');
    end if;
  end loop;
  if coalesce(p_settings -> 'mail_from', 'null') <> 'null' and (jsonb_typeof(p_settings -> 'mail_from') <> 'string'
    or char_length(p_settings ->> 'mail_from') > 200 or (p_settings ->> 'mail_from')
      !~ '^([^\u0001-\u001f\u007f-\u009f\u2028\u2029<>"@,;]*<[^\s@<>(),;:\\"\[\]]+@[^\s@<>(),;:\\"\[\]]+>'
        '|[^\s@<>(),;:\\"\[\]]+@[^\s@<>(),;:\\"\[\]]+)$') then
    perform governance.invalid_preset('settings.mail_from',
      'an address such as tokens@example.com or Tokens <tokens@example.com> is needed');
  end if;
  if coalesce(p_settings -> 'user_messages', '[]') <> '[]' and (jsonb_typeof(p_settings -> 'user_messages') <> 'array'
    or exists (select from jsonb_array_elements(p_settings -> 'user_messages') w
      where jsonb_typeof(w) <> 'string' or (w #>> '{}') <> all (governance.message_topics()))) then
    perform governance.invalid_preset('settings.user_messages', 'a list of these is needed: '
      || array_to_string(governance.message_topics(), ', '));
  end if;
  if coalesce(p_settings -> 'default_language', 'null') <> 'null'
    and not coalesce(p_settings ->> 'default_language' = any (governance.user_languages()), false) then
    perform governance.invalid_preset('settings.default_language',
      'one of ' || array_to_string(governance.user_languages(), ', ') || ' is needed');
  end if;
  if coalesce(p_settings -> 'second_person_for', '[]') <> '[]' then
    if jsonb_typeof(p_settings -> 'second_person_for') <> 'array'
      or exists (select from jsonb_array_elements(p_settings -> 'second_person_for') w
        where jsonb_typeof(w) <> 'string'
          or not exists (select from governance.config_kinds() k where k.kind = w #>> '{}')) then
      perform governance.invalid_preset('settings.second_person_for', format('a list of %s is needed',
        (select string_agg(k.kind, ', ') from governance.config_kinds() k)));
    end if;
  end if;
  if coalesce(p_settings -> 'pay_debt_from', '"free"') not in ('"free"', '"grants"') then
    perform governance.invalid_preset('settings.pay_debt_from', 'free or grants is needed');
  end if;
  foreach v_key in array '{operator_channels,user_warning_channels}'::text[] loop
    perform governance.check_channels(p_settings -> v_key, 'settings.' || v_key);
  end loop;
  return p_settings;
end
$$;
comment on function governance.check_settings(jsonb) is 'The settings, if the word lists in them can be compiled and '
  'the addresses written to.';
