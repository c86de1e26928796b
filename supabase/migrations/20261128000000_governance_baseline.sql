-- Written by `npm run schema` from supabase/schemas: edit there.
select set_config('check_function_bodies', 'off', true);

-- schemas/01_schema.sql
-- The schema. Everything lives in schema governance, which no API exposes; the functions in schema public are the only
-- way in. supabase/CONVENTIONS.md lists the invariants that every writer keeps.
create schema governance;

comment on schema governance is
  'What AI usage costs, who may spend it, and the proof. Not exposed: use the functions in schema public.';

revoke all on schema governance from public;

alter default privileges in schema governance revoke all on functions from public;

-- One order of ids for decisions, ledger entries and hold events: the feed merges them by id.
create sequence governance.event_ids as bigint;

create function governance.refuse_change() returns trigger
  language plpgsql set search_path = '' as $$
begin
  raise exception using errcode = 'PT403', hint = 'append_only',
    message = format('%s is append-only: a correction is a new entry', tg_table_name);
end
$$;
comment on function governance.refuse_change() is 'Keeps a table append-only, for its owner too.';

-- schemas/02_inputs.sql
-- Errors that callers see, and the checks of what they send.

-- Rules: checked and compiled when saved, evaluated as straight plpgsql. docs/RULES.md is the meaning; the core in
-- shared/governance implements the same page.

create function governance.fail(p_sqlstate text, p_hint text, p_message text, p_detail text default null) returns void
  language plpgsql set search_path = '' as $$
begin
  raise exception using errcode = p_sqlstate, hint = p_hint, message = p_message, detail = coalesce(p_detail, '');
end
$$;
comment on function governance.fail(text, text, text,
  text) is 'Raises an error of supabase/ERROR_CODES.md: SQLSTATE, stable word, sentence.';

create function governance.check_text(p_value jsonb, p_path text, p_max int) returns text
  language plpgsql immutable set search_path = '' as $$
begin
  if jsonb_typeof(p_value) is distinct from 'string' or char_length(p_value #>> '{}') not between 1 and p_max then
    perform governance.invalid_rule(p_path, format('a text of 1 to %s characters is needed', p_max));
  end if;
  return p_value #>> '{}';
end
$$;
comment on function governance.check_text(jsonb, text, int) is 'A text within its length.';

create function governance.check_whole(p_value jsonb, p_path text, p_min bigint, p_max bigint) returns bigint
  language plpgsql immutable set search_path = '' as $$
declare
  v_number numeric;
begin
  if jsonb_typeof(p_value) is distinct from 'number' then
    perform governance.invalid_rule(p_path, format('a whole number from %s to %s is needed', p_min, p_max));
  end if;
  v_number := (p_value #>> '{}')::numeric;
  if v_number <> trunc(v_number) or v_number not between p_min and p_max then
    perform governance.invalid_rule(p_path, format('a whole number from %s to %s is needed', p_min, p_max));
  end if;
  return v_number::bigint;
end
$$;
comment on function governance.check_whole(jsonb, text, bigint, bigint) is 'A whole number within its range.';

-- Accounts, lots and the ledger. Whoever changes an account's tokens holds its lock (governance.lock_account) and
-- writes an entry (governance.append_entry, or the settlement itself), so that lots, account and ledger agree.

-- ---------------------------------------------------------------------------------------------------------------
-- Arguments
-- ---------------------------------------------------------------------------------------------------------------

create function governance.check_id(p_name text, p_value text, p_max int default 255) returns void
  language plpgsql immutable set search_path = '' as $$
begin
  if p_value is null or btrim(p_value) = '' then
    perform governance.fail('PT400', 'invalid_argument', format('%s is needed', p_name));
  elsif char_length(p_value) > p_max then
    perform governance.fail('PT400', 'invalid_argument', format('%s has more than %s characters', p_name, p_max));
  end if;
end
$$;
comment on function governance.check_id(text, text, int) is 'Refuses an identifier that is missing, blank or too long.';

create function governance.check_optional(p_name text, p_value text, p_max int) returns void
  language plpgsql immutable set search_path = '' as $$
begin
  if char_length(p_value) > p_max then
    perform governance.fail('PT400', 'invalid_argument', format('%s has more than %s characters', p_name, p_max));
  end if;
end
$$;
comment on function governance.check_optional(text, text, int) is 'Refuses a text that is too long.';

create function governance.check_metadata(p_name text, p_value jsonb) returns void
  language plpgsql immutable set search_path = '' as $$
begin
  if p_value is not null and jsonb_typeof(p_value) <> 'object' then
    perform governance.fail('PT400', 'invalid_argument', format('%s must be a JSON object', p_name));
  elsif octet_length(p_value::text) > 16384 then
    perform governance.fail('PT400', 'invalid_argument', format('%s is larger than 16 KB', p_name));
  end if;
end
$$;
comment on function governance.check_metadata(text, jsonb) is 'Refuses metadata that is no object or is too large.';

create function governance.check_limit(p_limit int, p_max int) returns void
  language plpgsql immutable set search_path = '' as $$
begin
  if p_limit is null or p_limit not between 1 and p_max then
    perform governance.fail('PT400', 'invalid_argument', format('p_limit is a whole number from 1 to %s', p_max));
  end if;
end
$$;
comment on function governance.check_limit(int, int) is 'Refuses a page size that is out of bounds.';

create function governance.check_period(p_start timestamptz, p_end timestamptz) returns void
  language plpgsql immutable set search_path = '' as $$
begin
  if p_start is null or p_end is null or not isfinite(p_start) or not isfinite(p_end) or p_start >= p_end
    or p_start < '1900-01-01 00:00:00Z' or p_end > '2200-01-01 00:00:00Z' then
    perform governance.fail('PT400', 'invalid_argument',
      'A period is needed: p_start before p_end, between the years 1900 and 2200');
  end if;
end
$$;
comment on function governance.check_period(timestamptz, timestamptz) is 'Refuses a period that is none.';

create function governance.try_jsonb(p_text text) returns jsonb
  language plpgsql immutable set search_path = '' as $$
begin
  return p_text::jsonb;
exception when data_exception or program_limit_exceeded or statement_too_complex then
  return null;
end
$$;
comment on function governance.try_jsonb(text) is 'The JSON of a text; null if it is none.';

-- schemas/03_clock.sql
-- The server's clock, the test clock, and time zones.

-- Reading the server's own list opens every file of its time zone database (20 to 60 ms): once, here, and afterwards
-- only for a zone that was added since.
create table governance.time_zones (
  lower_name text primary key,
  name text not null
);

comment on table governance.time_zones is 'Time zones as the time zone database spells them, by their name in lower '
  'case.';

create function governance.now() returns timestamptz
  language plpgsql stable set search_path = '' as $$
declare
  v_now timestamptz;
begin
  select coalesce(c.test_clock_at, clock_timestamp() + coalesce(c.test_clock_offset, interval '0')) into v_now
    from governance.active_config c;
  return v_now;
end
$$;
comment on function governance.now() is 'The server''s clock, or the test clock where a test set one.';

create function governance.set_test_clock(p_at timestamptz, p_frozen boolean default false) returns timestamptz
  language plpgsql set search_path = '' as $$
begin
  update governance.active_config set
    test_clock_offset = case when p_at is not null and not p_frozen then p_at - clock_timestamp() end,
    test_clock_at = case when p_frozen then p_at end;
  return governance.now();
end
$$;
comment on function governance.set_test_clock(timestamptz, boolean) is
  'For tests alone: moves governance.now() to a moment, running on from it or frozen; null gives the server''s clock '
    'back.';

create function governance.known_zone(p_timezone text) returns text
  language plpgsql stable set search_path = '' as $$
begin
  perform now() at time zone p_timezone;
  return p_timezone;
exception when invalid_parameter_value then
  return 'UTC';
end
$$;
comment on function governance.known_zone(text) is 'The zone, or UTC where this server does not know it: an update of '
  'its time zone database may take a name away.';

create function governance.check_timezone(p_timezone text) returns text
  language plpgsql stable set search_path = '' as $$
declare
  v_name text;
begin
  if p_timezone = 'UTC' then return p_timezone; end if;
  -- Only names of the time zone database: PostgreSQL would also take POSIX rules such as FOO+3.
  if char_length(p_timezone) <= 64 then
    select z.name into v_name from governance.time_zones z where z.lower_name = lower(p_timezone);
    if governance.known_zone(coalesce(v_name, p_timezone)) <> coalesce(v_name, p_timezone) then
      v_name := null;
    elsif v_name is null then
      select n.name into v_name from pg_catalog.pg_timezone_names n
      where lower(n.name) = lower(p_timezone) and n.name !~ '^(posix|right)/' limit 1;
    end if;
  end if;
  if v_name is null then
    perform governance.fail('PT400', 'invalid_argument',
      format('p_timezone "%s" is not a time zone', left(p_timezone, 64)));
  end if;
  return v_name;
end
$$;
comment on function governance.check_timezone(text) is 'The time zone by its proper name; refuses what the time zone '
  'database does not know.';

insert into governance.time_zones (lower_name, name)
  select distinct on (lower(n.name)) lower(n.name), n.name from pg_catalog.pg_timezone_names n
  where n.name !~ '^(posix|right)/' order by lower(n.name), n.name collate "C";

-- schemas/04_signals.sql
-- Wake-ups for readers.

create table governance.signals (
  topic text primary key,
  at timestamptz not null,
  beats bigint not null default 0
) with (fillfactor = 10);

comment on table governance.signals is
  'Wake-ups for readers: a row changes when there may be something new, at most every few hundred milliseconds. What '
  'happened is read by cursor.';

create function governance.ring(p_topic text, p_now timestamptz) returns void
  language plpgsql set search_path = '' as $$
declare
  v_beat text := date_bin('50 milliseconds', p_now, '2000-01-01');
begin
  -- A connection looks once in the shortest interval that can be set.
  if v_beat is distinct from current_setting('governance.beat_' || p_topic, true) then
    perform set_config('governance.beat_' || p_topic, v_beat, false);
    -- Whoever finds the row busy leaves the ringing to its holder.
    update governance.signals s set at = p_now, beats = s.beats + 1
    where s.topic = (select t.topic from governance.signals t cross join governance.active_config c
      where t.topic = p_topic and (t.at < p_now - c.signal_interval_ms * interval '1 millisecond' or t.at > p_now)
        for update of t skip locked);
  end if;
end
$$;
comment on function governance.ring(text, timestamptz) is 'Wakes readers of a topic, unless that was just done.';

create function governance.ring_feed(p_now timestamptz, p_interval_ms int) returns void
  language plpgsql set search_path = '' as $$
begin
  perform set_config('governance.beat', (extract(epoch from p_now) * 1000 / p_interval_ms)::bigint::text, false);
  perform governance.ring('feed', p_now);
end
$$;
comment on function governance.ring_feed(timestamptz,
  int) is 'Wakes readers of the feed after a call, at most once an interval.';

insert into governance.signals (topic, at) values ('feed', '-infinity'), ('rules', '-infinity'),
  ('accounts', '-infinity'), ('alerts', '-infinity');

-- schemas/05_text.sql
-- Folding and counting text: how a message is compared with words and phrases.

create table governance.fold_letters (
  upper text primary key,
  lower text not null
);

comment on table governance.fold_letters is 'Letters beyond ASCII that folding makes lower case.';

-- The kinds of characters that docs/RULES.md names, as the inside of a regular expression's brackets. They are
-- constants to the planner, which asks them once. The core has the same ranges in
-- shared/governance/rules/characters.ts.

create function governance.combining_marks() returns text
  language sql immutable parallel safe set search_path = '' as $$
  select '\u0300-\u036f\u0483-\u0489\u0591-\u05bd\u05bf\u05c1-\u05c2\u05c4-\u05c5\u05c7\u0610-\u061a\u064b-\u065f\u0670'
    '\u06d6-\u06dc\u06df-\u06e4\u06e7-\u06e8\u06ea-\u06ed\u0711\u0730-\u074a\u07a6-\u07b0\u07eb-\u07f3\u07fd'
    '\u0816-\u0819\u081b-\u0823\u0825-\u0827\u0829-\u082d\u0859-\u085b\u0897-\u089f\u08ca-\u08e1\u08e3-\u0903'
    '\u093a-\u093c\u093e-\u094f\u0951-\u0957\u0962-\u0963\u0981-\u0983\u09bc\u09be-\u09cd\u09d7\u09e2-\u09e3'
    '\u09fe-\u0a03\u0a3c-\u0a51\u0a70-\u0a71\u0a75\u0a81-\u0a83\u0abc\u0abe-\u0acd\u0ae2-\u0ae3\u0afa-\u0b03\u0b3c'
    '\u0b3e-\u0b57\u0b62-\u0b63\u0b82\u0bbe-\u0bcd\u0bd7\u0c00-\u0c04\u0c3c\u0c3e-\u0c56\u0c62-\u0c63\u0c81-\u0c83'
    '\u0cbc\u0cbe-\u0cd6\u0ce2-\u0ce3\u0cf3-\u0d03\u0d3b-\u0d3c\u0d3e-\u0d4d\u0d57\u0d62-\u0d63\u0d81-\u0d83'
    '\u0dca-\u0ddf\u0df2-\u0df3\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ece\u0f18-\u0f19\u0f35'
    '\u0f37\u0f39\u0f3e-\u0f3f\u0f71-\u0f84\u0f86-\u0f87\u0f8d-\u0fbc\u0fc6\u102b-\u103e\u1056-\u1059\u105e-\u1060'
    '\u1062-\u1064\u1067-\u106d\u1071-\u1074\u1082-\u108d\u108f\u109a-\u109d\u135d-\u135f\u1712-\u1715\u1732-\u1734'
    '\u1752-\u1753\u1772-\u1773\u17b4-\u17d3\u17dd\u180b-\u180d\u180f\u1885-\u1886\u18a9\u1920-\u193b\u1a17-\u1a1b'
    '\u1a55-\u1a7f\u1ab0-\u1b04\u1b34-\u1b44\u1b6b-\u1b73\u1b80-\u1b82\u1ba1-\u1bad\u1be6-\u1bf3\u1c24-\u1c37'
    '\u1cd0-\u1cd2\u1cd4-\u1ce8\u1ced\u1cf4\u1cf7-\u1cf9\u1dc0-\u1dff\u20d0-\u20f0\u2cef-\u2cf1\u2d7f\u2de0-\u2dff'
    '\u302a-\u302f\u3099-\u309a\ua66f-\ua672\ua674-\ua67d\ua69e-\ua69f\ua6f0-\ua6f1\ua802\ua806\ua80b\ua823-\ua827'
    '\ua82c\ua880-\ua881\ua8b4-\ua8c5\ua8e0-\ua8f1\ua8ff\ua926-\ua92d\ua947-\ua953\ua980-\ua983\ua9b3-\ua9c0\ua9e5'
    '\uaa29-\uaa36\uaa43\uaa4c-\uaa4d\uaa7b-\uaa7d\uaab0\uaab2-\uaab4\uaab7-\uaab8\uaabe-\uaabf\uaac1\uaaeb-\uaaef'
    '\uaaf5-\uaaf6\uabe3-\uabea\uabec-\uabed\ufb1e\ufe00-\ufe0f\ufe20-\ufe2f\uff9e-\uff9f\U000101fd\U000102e0'
    '\U00010376-\U0001037a\U00010a01-\U00010a0f\U00010a38-\U00010a3f\U00010ae5-\U00010ae6\U00010d24-\U00010d27'
    '\U00010d69-\U00010d6d\U00010eab-\U00010eac\U00010efa-\U00010eff\U00010f46-\U00010f50\U00010f82-\U00010f85'
    '\U00011000-\U00011002\U00011038-\U00011046\U00011070\U00011073-\U00011074\U0001107f-\U00011082'
    '\U000110b0-\U000110ba\U000110c2\U00011100-\U00011102\U00011127-\U00011134\U00011145-\U00011146\U00011173'
    '\U00011180-\U00011182\U000111b3-\U000111c0\U000111c9-\U000111cc\U000111ce-\U000111cf\U0001122c-\U00011237'
    '\U0001123e\U00011241\U000112df-\U000112ea\U00011300-\U00011303\U0001133b-\U0001133c\U0001133e-\U0001134d'
    '\U00011357\U00011362-\U00011374\U000113b8-\U000113d0\U000113d2\U000113e1-\U000113e2\U00011435-\U00011446'
    '\U0001145e\U000114b0-\U000114c3\U000115af-\U000115c0\U000115dc-\U000115dd\U00011630-\U00011640'
    '\U000116ab-\U000116b7\U0001171d-\U0001172b\U0001182c-\U0001183a\U00011930-\U0001193e\U00011940'
    '\U00011942-\U00011943\U000119d1-\U000119e0\U000119e4\U00011a01-\U00011a0a\U00011a33-\U00011a39'
    '\U00011a3b-\U00011a3e\U00011a47\U00011a51-\U00011a5b\U00011a8a-\U00011a99\U00011b60-\U00011b67'
    '\U00011c2f-\U00011c3f\U00011c92-\U00011cb6\U00011d31-\U00011d45\U00011d47\U00011d8a-\U00011d97'
    '\U00011ef3-\U00011ef6\U00011f00-\U00011f01\U00011f03\U00011f34-\U00011f42\U00011f5a\U00013440'
    '\U00013447-\U00013455\U0001611e-\U0001612f\U00016af0-\U00016af4\U00016b30-\U00016b36\U00016f4f'
    '\U00016f51-\U00016f92\U00016fe4-\U00016ff1\U0001bc9d-\U0001bc9e\U0001cf00-\U0001cf46\U0001d165-\U0001d169'
    '\U0001d16d-\U0001d172\U0001d17b-\U0001d182\U0001d185-\U0001d18b\U0001d1aa-\U0001d1ad\U0001d242-\U0001d244'
    '\U0001da00-\U0001da36\U0001da3b-\U0001da6c\U0001da75\U0001da84\U0001da9b-\U0001daaf\U0001e000-\U0001e02a'
    '\U0001e08f\U0001e130-\U0001e136\U0001e2ae\U0001e2ec-\U0001e2ef\U0001e4ec-\U0001e4ef\U0001e5ee-\U0001e5ef'
    '\U0001e6e3\U0001e6e6\U0001e6ee-\U0001e6ef\U0001e6f5\U0001e8d0-\U0001e8d6\U0001e944-\U0001e94a'
    '\U000e0100-\U000e01ef'
$$;
comment on function governance.combining_marks() is
  'Combining marks: general category M of Unicode 17, and two more.';

create function governance.rare_spaces() returns text
  language sql immutable parallel safe set search_path = '' as $$
  select '\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000'
$$;
comment on function governance.rare_spaces() is
  'White space that is not ASCII.';

create function governance.separators() returns text
  language sql immutable parallel safe set search_path = '' as $$
  select '\u0001-\u002f\u003a-\u0040\u005b-\u0060\u007b-\u00a9\u00ab-\u00b4\u00b6-\u00b9\u00bb-\u00bf\u00d7\u00f7'
    '\u2000-\u206f\u3000-\u3004\u3008-\u3030\u3036-\u3037\u303d-\u303f\u30a0\u30fb\ufe30-\ufe4f\uff00-\uff0f'
    '\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65'
$$;
comment on function governance.separators() is
  'What ends a word when phrases are looked for.';

create function governance.ideographs() returns text
  language sql immutable parallel safe set search_path = '' as $$
  select '\u2e80-\u2fff\u3005-\u3007\u3031-\u3035\u3038-\u303c\u3040-\u309f\u30a1-\u30fa\u30fc-\u312f\u3190-\u31ff'
    '\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9d\U0001aff0-\U0001b16f\U00020000-\U0003fffd'
$$;
comment on function governance.ideographs() is
  'Chinese characters, kana and bopomofo: written without spaces, each counted as a word.';

create function governance.south_east_asian_letters() returns text
  language sql immutable parallel safe set search_path = '' as $$
  select '\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aaf\ua9e0-\ua9ff\uaa60-\uaadf'
$$;
comment on function governance.south_east_asian_letters() is
  'Thai, Lao, Myanmar, Khmer and Tai: written without spaces, five of them counted as a word.';

create function governance.unspaced_characters() returns text
  language sql immutable parallel safe set search_path = '' as $$
  select governance.ideographs() || governance.south_east_asian_letters()
$$;
comment on function governance.unspaced_characters() is
  'Characters of scripts that are written without spaces.';

create function governance.upper_letters() returns text
  language sql immutable parallel safe set search_path = '' as $$
  select 'ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖØÙÚÛÜÝÞĀĂĄĆĈĊČĎĐĒĔĖĘĚĜĞĠĢĤĦĨĪĬĮĲĴĶĹĻĽĿŁŃŅŇŊŌŎŐŒŔŖŘŚŜŞŠŢŤŦŨŪŬŮŰŲŴŶŸŹŻŽͰͲͶͿΆΈΉΊΌΎ'
    'ΏΑΒΓΔΕΖΗΘΙ'
    'ΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩΪΫϏϘϚϜϞϠϢϤϦϨϪϬϮϴϷϹϺϽϾϿЀЁЂЃЄЅІЇЈЉЊЋЌЍЎЏАБВГДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯѠѢѤѦѨѪѬѮѰѲѴѶѸѺѼѾҀҊҌҎҐҒҔҖҘҚҜ'
    'ҞҠҢҤҦҨҪҬҮҰҲҴҶҸҺҼҾӀӁӃӅӇӉӋӍӐӒӔӖӘӚӜӞӠӢӤӦӨӪӬӮӰӲӴӶӸӺӼӾ'
$$;
comment on function governance.upper_letters() is
  'Letters beyond ASCII that folding makes lower case, in the order of governance.lower_letters.';

create function governance.lower_letters() returns text
  language sql immutable parallel safe set search_path = '' as $$
  select 'àáâãäåæçèéêëìíîïðñòóôõöøùúûüýþāăąćĉċčďđēĕėęěĝğġģĥħĩīĭįĳĵķĺļľŀłńņňŋōŏőœŕŗřśŝşšţťŧũūŭůűųŵŷÿźżžͱͳͷϳάέήίόύ'
    'ώαβγδεζηθι'
    'κλμνξοπρστυφχψωϊϋϗϙϛϝϟϡϣϥϧϩϫϭϯθϸϲϻͻͼͽѐёђѓєѕіїјљњћќѝўџабвгдежзийклмнопрстуфхцчшщъыьэюяѡѣѥѧѩѫѭѯѱѳѵѷѹѻѽѿҁҋҍҏґғҕҗҙқҝ'
    'ҟҡңҥҧҩҫҭүұҳҵҷҹһҽҿӏӂӄӆӈӊӌӎӑӓӕӗәӛӝӟӡӣӥӧөӫӭӯӱӳӵӷӹӻӽӿ'
$$;
comment on function governance.lower_letters() is
  'The lower case of governance.upper_letters, one by one.';

create function governance.judged_characters() returns int
  language sql immutable parallel safe set search_path = '' as $$
  select 20000
$$;
comment on function governance.judged_characters() is
  'Characters of a message that are judged, and that are kept of what they normalise to. Normalising cannot be '
  'cancelled, so it never gets more.';

create function governance.fold(p_text text) returns text
  language plpgsql immutable strict parallel safe set search_path = '' as $$
declare
  v_text text := left(p_text, governance.judged_characters());
  v_letters text;
  v_upper text;
begin
  if octet_length(v_text) = char_length(v_text) then
    return lower(v_text collate "C");
  end if;
  -- Normalising sorts each run of marks, in the square of its length.
  v_text := regexp_replace(v_text,
    '([' || governance.combining_marks() || ']{30})[' || governance.combining_marks() || ']+', '\1', 'g');
  v_text := lower(left(normalize(v_text, nfkc), governance.judged_characters()) collate "C");
  -- One pass for each letter that is there: translate() tries all letters at each character.
  v_letters := regexp_replace(v_text, '[^' || governance.upper_letters() || ']+', '', 'g');
  while v_letters <> '' loop
    v_upper := left(v_letters, 1);
    v_text := replace(v_text, v_upper,
      substr(governance.lower_letters(), strpos(governance.upper_letters(), v_upper), 1));
    v_letters := replace(v_letters, v_upper, '');
  end loop;
  return v_text;
end
$$;
comment on function governance.fold(text) is
  'What is judged of a text, folded as docs/RULES.md says: its first characters, stream-safe, NFKC, lower case.';

create function governance.collapse_spaces(p_text text) returns text
  language plpgsql immutable strict parallel safe set search_path = '' as $$
declare
  v_text text := p_text;
begin
  if octet_length(v_text) <> char_length(v_text) then
    v_text := regexp_replace(v_text, '[' || governance.rare_spaces() || ']+', ' ', 'g');
  end if;
  v_text := translate(v_text, E'\t\n\v\f\r', '     ');
  while strpos(v_text, '  ') > 0 loop
    v_text := replace(v_text, '  ', ' ');
  end loop;
  return btrim(v_text, ' ');
end
$$;
comment on function governance.collapse_spaces(text) is 'Each run of white space becomes one space; none at the ends.';

create function governance.identity_text(p_message text, p_folded text) returns text
  language plpgsql immutable parallel safe set search_path = '' as $$
begin
  return governance.collapse_spaces(p_folded) || substr(p_message, governance.judged_characters() + 1);
end
$$;
comment on function governance.identity_text(text, text) is
  'The text by which two messages count as identical, of a message and what governance.fold made of it.';

create function governance.count_words(p_text text) returns int
  language plpgsql immutable strict parallel safe set search_path = '' as $$
declare
  v_text text := governance.collapse_spaces(p_text);
  v_words int := 0;
begin
  if octet_length(v_text) <> char_length(v_text) and v_text ~ ('[' || governance.unspaced_characters() || ']') then
    v_words := char_length(v_text)
      - char_length(regexp_replace(v_text, '[' || governance.ideographs() || ']+', '', 'g'))
      + regexp_count(v_text, '[' || governance.south_east_asian_letters() || ']{1,5}');
    -- What is left, without the separators that touch what was counted. The one white space now is U+0020.
    v_text := governance.collapse_spaces(regexp_replace(v_text, '(?:(?! )[' || governance.separators() || '])*['
      || governance.unspaced_characters() || ']+(?:(?! )[' || governance.separators() || '])*', ' ', 'g'));
  end if;
  if v_text = '' then return v_words; end if;
  return v_words + char_length(v_text) - char_length(replace(v_text, ' ', '')) + 1;
end
$$;
comment on function governance.count_words(text) is 'Words of a message, as docs/RULES.md counts them.';

create function governance.space_phrases(p_folded text) returns text
  language plpgsql immutable strict parallel safe set search_path = '' as $$
declare
  v_text text := p_folded;
begin
  if octet_length(v_text) <> char_length(v_text) then
    v_text := regexp_replace(v_text, '[' || governance.unspaced_characters() || ']+', ' \& ', 'g');
  end if;
  return ' ' || btrim(regexp_replace(v_text, '[' || governance.separators() || ']+', ' ', 'g'), ' ') || ' ';
end
$$;
comment on function governance.space_phrases(text) is 'Folded text with every separator as one space, scripts without '
  'spaces apart from others, and a space at each end. A text without a word is two spaces.';

create function governance.sought_phrase(p_phrase text) returns text
  language sql immutable parallel safe set search_path = '' as $$
  select regexp_replace(regexp_replace(governance.space_phrases(governance.fold(p_phrase)),
    '^ (?=[' || governance.unspaced_characters() || '])', ''),
    '([' || governance.unspaced_characters() || ']) $', '\1')
$$;
comment on function governance.sought_phrase(text) is
  'A phrase as it is looked for in what governance.space_phrases makes; spaces alone for one without a word.';

create function governance.like_pattern(p_text text) returns text
  language sql immutable set search_path = '' as $$
  select replace(replace(replace(p_text, '\', '\\'), '%', '\%'), '_', '\_')
$$;
comment on function governance.like_pattern(text) is 'A text that LIKE takes as it is.';

create function governance.with_separators(p_number bigint) returns text
  language sql immutable set search_path = '' as $$
  select to_char(p_number, 'FM9,999,999,999,999,999,990')
$$;
comment on function governance.with_separators(bigint) is 'A number as people read it: 10,240.';

insert into governance.fold_letters (upper, lower)
  select substr(governance.upper_letters(), n, 1), substr(governance.lower_letters(), n, 1)
  from generate_series(1, length(governance.upper_letters())) n;

-- schemas/06_doors.sql
-- Who may call what. Each function in public is granted to the service, or (my_…) to signed-in users. Grants can be
-- lost: a dump carries no revoke from anon and authenticated, and a Supabase project grants both whatever is new in
-- public. So every function for the service also refuses these roles itself.

create function governance.refuse_others(p_function text) returns void
  language plpgsql stable set search_path = '' as $$
declare
  -- The role that the request was given (PostgREST sets it), or who is connected. Unlike current_user it stays the same
  -- inside a security definer function, and it takes only roles that the connection may have: it cannot be forged.
  v_role text := current_setting('role');
begin
  if v_role = 'service_role' then return; end if;
  if v_role = 'none' then v_role := session_user; end if;
  if exists (
    select from pg_catalog.pg_proc p
    where p.pronamespace = 'public'::regnamespace and p.proname = p_function
      -- A role without the right comes here only through a function of the project that has it, which is allowed.
      and has_function_privilege(v_role, p.oid, 'execute')
      and not exists (
        select from pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) x
        left join pg_catalog.pg_roles g on g.oid = x.grantee
        where g.rolname not in ('anon', 'authenticated') and pg_has_role(v_role, g.oid, 'usage'))) then
    perform governance.fail('42501', 'server_only',
      format('%s is for the server alone. It was granted to %s by mistake: npm run doctor says how to close it',
        p_function, v_role));
  end if;
end
$$;
comment on function governance.refuse_others(text) is
  'Refuses a caller whose only right to this function is a grant to public, anon or authenticated. The first statement '
  'of every public function for the service; authorize_usage and settle_usage ask for the usual role themselves first.';

create function governance.open_doors() returns table (object text, role text)
  language sql stable set search_path = '' as $$
  select d.object, r.rolname::text
  from pg_catalog.pg_roles r
  cross join lateral (
    select 'function ' || p.oid::regprocedure as object from pg_catalog.pg_proc p
    where p.pronamespace = 'public'::regnamespace
      and (p.prosrc like '%governance.refuse_others(%'
        or (r.rolname = 'anon' and p.prosrc like '%governance.my_account()%'))
      and p.proowner = (select n.nspowner from pg_catalog.pg_namespace n where n.nspname = 'governance')
      and has_function_privilege(r.oid, p.oid, 'execute')
    union all
    select 'schema governance' where has_schema_privilege(r.oid, 'governance', 'usage, create')
    union all
    select 'table ' || c.oid::regclass from pg_catalog.pg_class c
    where c.relnamespace = 'governance'::regnamespace and c.relkind in ('r', 'p', 'v')
      and has_table_privilege(r.oid, c.oid, 'select, insert, update, delete, truncate')) d
  where r.rolname in ('anon', 'authenticated')
  order by 1, 2
$$;
comment on function governance.open_doors() is 'What anon and authenticated may use although it is for the service: '
  'nothing, on a sound project.';

create function governance.check_doors(p_now timestamptz) returns int
  language plpgsql set search_path = '' as $$
declare
  v_doors text[] := array(select d.object || ' by ' || d.role from governance.open_doors() d);
begin
  if cardinality(v_doors) = 0 then return 0; end if;
  return governance.raise_alert(null, null, 'doors_open', 'critical',
    format('%s rights on what is for the server alone are granted to anon or authenticated, such as %s. Close them: '
      'npm run doctor -- --url URL --fix', cardinality(v_doors), v_doors[1]),
    null, cardinality(v_doors), (p_now at time zone 'UTC')::date::text,
    jsonb_build_object('doors', to_jsonb(v_doors[1:50])), p_now);
end
$$;
comment on function governance.check_doors(timestamptz) is 'Raises the alert doors_open, once a day, where a grant is '
  'open that should not be.';

create function public.console_repair() returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_doors jsonb;
  v_function record;
  v_published boolean := false;
begin
  perform governance.refuse_others('console_repair');
  select coalesce(jsonb_agg(d.object || ' by ' || d.role), '[]') into v_doors from governance.open_doors() d;
  for v_function in
    select p.oid::regprocedure as name, p.prosrc like '%governance.refuse_others(%' as is_for_service
    from pg_catalog.pg_proc p
    where p.pronamespace = 'public'::regnamespace
      and (p.prosrc like '%governance.refuse_others(%' or p.prosrc like '%governance.my_account()%')
      and p.proowner = (select n.nspowner from pg_catalog.pg_namespace n where n.nspname = 'governance')
  loop
    execute format('revoke all on function %s from public, anon', v_function.name);
    execute format('revoke all on function %s from %s', v_function.name,
      case when v_function.is_for_service then 'authenticated' else 'service_role' end);
    execute format('grant execute on function %s to %s', v_function.name,
      case when v_function.is_for_service then 'service_role' else 'authenticated' end);
  end loop;
  revoke all on schema governance from public, anon, authenticated;
  revoke all on all tables in schema governance from public, anon, authenticated;
  revoke all on all sequences in schema governance from public, anon, authenticated;
  revoke all on all routines in schema governance from public, anon, authenticated;
  grant usage on schema governance to service_role;
  grant select on governance.signals to service_role;
  if governance.lacks_publication() then
    begin
      alter publication supabase_realtime add table governance.signals;
      v_published := true;
    exception when insufficient_privilege then
      -- Its owner must: npm run doctor says so.
      null;
    end;
  end if;
  return jsonb_build_object('closed', v_doors,
    'still_open', (select coalesce(jsonb_agg(d.object || ' by ' || d.role), '[]') from governance.open_doors() d),
    'published', v_published, 'scheduled', governance.schedule_maintenance());
end
$$;
comment on function public.console_repair() is
  'Puts right what a restored dump lacks: takes from anon and authenticated what is for the service alone, grants the '
  'service its functions, publishes the wake-ups, schedules upkeep. Changes nothing on a sound project. Answers '
  'closed, still_open (granted by another role, which only that role or a superuser can revoke), published, scheduled.';
revoke all on function public.console_repair() from public, anon, authenticated;
grant execute on function public.console_repair() to service_role;

create function governance.lacks_publication() returns boolean
  language sql stable set search_path = '' as $$
  select exists (select from pg_catalog.pg_publication p where p.pubname = 'supabase_realtime' and not p.puballtables)
    and not exists (select from pg_catalog.pg_publication_tables t
      where t.pubname = 'supabase_realtime' and t.schemaname = 'governance' and t.tablename = 'signals')
$$;
comment on function governance.lacks_publication() is 'Whether Realtime is there and does not carry the wake-ups.';

-- schemas/10_configuration.sql
-- Plans, packs, prices, estimates and settings: what the preset in force says.

create table governance.plans (
  plan_id text primary key,
  name text not null,
  monthly_allowance bigint not null default 0 check (monthly_allowance between 0 and 9007199254740991),
  daily_limit bigint check (daily_limit between 0 and 9007199254740991),
  monthly_limit bigint check (monthly_limit between 0 and 9007199254740991),
  allows_top_up boolean not null default true,
  -- Percents of a limit at which the user is warned, ascending.
  warn_at int[] not null default '{80,90,95}',
  fail_mode text not null default 'closed' check (fail_mode in ('closed', 'open')),
  on_cancel text not null default 'expire' check (on_cancel in ('keep', 'convert', 'expire')),
  -- Months that an unspent allowance outlives its own month.
  rollover_months int not null default 0 check (rollover_months between 0 and 12),
  upgrade_to text,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  -- A retired plan takes no new accounts; those on it keep it.
  retired_at timestamptz
);

comment on table governance.plans is 'What an account may use: monthly allowance, daily and monthly limits, warnings.';

create table governance.packs (
  pack_row_id bigint generated always as identity primary key,
  pack_id text not null,
  tokens bigint not null check (tokens between 1 and 100000000),
  price_minor bigint not null check (price_minor between 0 and 9007199254740991),
  currency text not null check (currency ~ '^[a-z]{3}$'),
  -- Plans that may buy it; null for all that allow a top-up.
  plans text[],
  -- A changed pack is a new row: a payment is checked against the pack as it was then.
  effective_from timestamptz not null default now(),
  retired_at timestamptz,
  unique (pack_id, effective_from)
);

create unique index packs_in_force on governance.packs (pack_id) where retired_at is null;

comment on table governance.packs is 'Packs of tokens for sale, with their price over time.';

create table governance.prices (
  price_id bigint generated always as identity primary key,
  provider text not null,
  model text not null,
  input_micros_per_million bigint not null check (input_micros_per_million between 0 and 1000000000000000),
  output_micros_per_million bigint not null check (output_micros_per_million between 0 and 1000000000000000),
  -- Null: as input.
  cached_input_micros_per_million bigint check (cached_input_micros_per_million between 0 and 1000000000000000),
  -- Null: as input.
  cache_write_micros_per_million bigint check (cache_write_micros_per_million between 0 and 1000000000000000),
  -- Writes that are kept for an hour; null: twice the input.
  cache_write_1h_micros_per_million bigint check (cache_write_1h_micros_per_million between 0 and 1000000000000000),
  -- Null: as output.
  reasoning_micros_per_million bigint check (reasoning_micros_per_million between 0 and 1000000000000000),
  currency text not null check (currency ~ '^[a-z]{3}$'),
  effective_from timestamptz not null,
  created_at timestamptz not null default now(),
  retired_at timestamptz
);

create unique index prices_in_force on governance.prices (model, effective_from, provider) where retired_at is null;

comment on table governance.prices is 'Micro-units of a currency per million tokens, by model and date. A call costs '
  'what its own moment says.';

create table governance.estimates (
  task_type text primary key,
  tokens bigint not null check (tokens between 1 and 9007199254740991),
  updated_at timestamptz not null default now()
);

comment on table governance.estimates is 'Tokens to hold for a task whose caller gives no estimate.';

create table governance.settings (
  key text primary key,
  value jsonb not null,
  updated_at timestamptz not null default now()
);

comment on table governance.settings is 'Settings of the preset in force, by name. Those on the path of a call are '
  'also columns of governance.active_config.';

-- One row: what every call reads. Written by apply_preset, save_rule and governance.set_test_clock.
create table governance.active_config (
  only_row boolean primary key default true check (only_row),
  preset_name text,
  currency text not null default 'usd',
  default_plan text,
  rule_set_id bigint not null default 0,
  hold_minutes int not null default 15 check (hold_minutes between 1 and 10080),
  identical_window_minutes int not null default 60 check (identical_window_minutes between 1 and 10080),
  reply_tokens bigint not null default 500 check (reply_tokens >= 0),
  default_estimate bigint not null default 300 check (default_estimate >= 1),
  -- A settlement above this waits for a person.
  settle_ceiling_tokens bigint not null default 10000000 check (settle_ceiling_tokens > 0),
  low_balance_tokens bigint not null default 1000 check (low_balance_tokens >= 0),
  high_usage_tokens bigint not null default 5000 check (high_usage_tokens >= 0),
  -- A settlement looks for alerts when it leaves less than the one, or used more than the other: the setting or a
  -- threshold of the preset's alerts, whichever comes first.
  alert_balance_below bigint not null default 1000,
  alert_operation_above bigint not null default 5000,
  decision_retention_days int not null default 90 check (decision_retention_days >= 32),
  -- Wake-ups for readers of the feed are at least this far apart.
  signal_interval_ms int not null default 250 check (signal_interval_ms between 50 and 60000),
  is_sample_data boolean not null default false,
  -- The test clock: an offset from the server's clock, or a moment that stands still.
  test_clock_offset interval,
  test_clock_at timestamptz,
  updated_at timestamptz not null default now(),
  -- Facts that cost, and that some rule in force reads.
  rules_read_identical boolean not null default false,
  rules_read_words boolean not null default false,
  rules_read_provider boolean not null default false,
  -- When the first rule that was changed for a while goes back.
  rules_due_at timestamptz
);

comment on table governance.active_config is 'The configuration in force, flattened to what a call needs.';

-- In the order in which a call's price is looked for: found without sorting.
create index prices_by_moment on governance.prices (model, effective_from desc, created_at, provider collate "C");

create function governance.provider_of(p_model text, p_at timestamptz) returns text
  language sql stable set search_path = '' as $$
  select p.provider from governance.prices p
  where p.model = p_model and p.effective_from <= p_at and (p.retired_at is null or p.retired_at > p_at)
  order by p.effective_from desc, p.created_at, p.provider collate "C" limit 1
$$;
comment on function governance.provider_of(text,
  timestamptz) is 'Who serves a model, by the price table; null if unknown.';

create function governance.cost_of(p_model text, p_at timestamptz, p_input bigint, p_output bigint) returns bigint
  language sql stable set search_path = '' as $$
  select div(p_input::numeric * p.input_micros_per_million + p_output::numeric * p.output_micros_per_million + 500000,
    1000000)::bigint
  from governance.prices p
  where p.model = p_model and p.effective_from <= p_at and (p.retired_at is null or p.retired_at > p_at)
  order by p.effective_from desc, p.provider collate "C" limit 1
$$;
comment on function governance.cost_of(text, timestamptz, bigint,
  bigint) is 'Cost of plain input and output tokens at a moment''s price, in micro-units; null if none is known.';

create function governance.pack_at(p_pack_id text, p_at timestamptz) returns governance.packs
  language plpgsql stable set search_path = '' as $$
declare
  v_pack governance.packs;
begin
  -- A payment from before the first price is checked against the first.
  select p.* into v_pack from governance.packs p where p.pack_id = p_pack_id
  order by p.effective_from <= p_at desc, case
    when p.effective_from <= p_at then p.effective_from end desc, p.effective_from limit 1;
  return v_pack;
end
$$;
comment on function governance.pack_at(text, timestamptz) is 'A pack as it was sold at a moment.';

create function governance.setting_number(p_key text, p_default bigint) returns bigint
  language sql stable set search_path = '' as $$
  select coalesce((select (s.value #>> '{}')::numeric::bigint from governance.settings s
    where s.key = p_key and jsonb_typeof(s.value) = 'number'
      and (s.value #>> '{}')::numeric between 0 and 9007199254740991), p_default)
$$;
comment on function governance.setting_number(text, bigint) is 'A whole number out of the settings, or the default.';

create function public.console_pack_prices() returns jsonb
  language sql stable security definer set search_path = '' as $$
  select governance.refuse_others('console_pack_prices');
  select coalesce(jsonb_agg(jsonb_build_object('pack_id', p.pack_id, 'tokens', p.tokens, 'price_minor', p.price_minor,
    'currency', p.currency,
    'valid_from', greatest(p.effective_from, '1970-01-01T00:00:00Z')) order by p.pack_id, p.effective_from), '[]')
  from governance.packs p
$$;
comment on function public.console_pack_prices() is 'Every pack with its price from each moment on, retired ones too.';
revoke all on function public.console_pack_prices() from public, anon, authenticated;
grant execute on function public.console_pack_prices() to service_role;

create function governance.setting_texts(p_key text, p_otherwise text[]) returns text[]
  language sql stable set search_path = '' as $$
  select coalesce((select case
    when jsonb_typeof(s.value) = 'array' then array(select jsonb_array_elements_text(s.value)) end
    from governance.settings s where s.key = p_key), p_otherwise)
$$;
comment on function governance.setting_texts(text,
  text[]) is 'A setting that is a list of texts; p_otherwise where it is not given.';

insert into governance.active_config default values;

-- schemas/11_rules.sql
-- Rules: their versions, the facts they read, what a rule may say, and saving one.

create table governance.rules (
  rule_name text primary key,
  version int not null,
  version_id bigint not null,
  rule_type text not null,
  priority int not null,
  mode text not null check (mode in ('enforce', 'shadow', 'off')),
  is_active boolean not null,
  conditions jsonb not null,
  action jsonb not null,
  applies_to jsonb not null,
  description text,
  updated_at timestamptz not null,
  updated_by text,
  retired_at timestamptz
);

comment on table governance.rules is 'Rules as they stand. Every state they had is in governance.rule_versions.';

create table governance.rule_versions (
  version_id bigint generated always as identity primary key,
  rule_name text not null,
  version int not null,
  rule jsonb not null,
  created_at timestamptz not null,
  created_by text,
  reason text,
  -- The rule was taken out of use; what it was stays readable.
  is_retired boolean not null default false,
  unique (rule_name, version)
);

comment on table governance.rule_versions is 'Every version of every rule, as saved or retired, with who and why; '
  'append-only.';

create table governance.timed_rules (
  rule_name text primary key,
  -- When the rule goes back, and to which version; null: there was no rule before, and it is retired.
  back_at timestamptz not null,
  back_version_id bigint,
  operator text
);

comment on table governance.timed_rules is 'Rules that were changed for a while. The first call after the moment, or '
  'upkeep, puts them back (governance.end_timed_rules); any other change of the rule ends this.';

create table governance.rule_sets (
  rule_set_id bigint generated always as identity primary key,
  -- In order of evaluation; rules that are off or retired are not in it.
  version_ids bigint[] not null,
  created_at timestamptz not null default now()
);

comment on table governance.rule_sets is 'Which rule versions were in force together: a decision names its set.';

create type governance.verdict as (
  blocked boolean,
  reason text,
  message text,
  block_minutes int,
  version_id bigint,
  warnings text[],
  truncate_to_words int,
  model text,
  flag_reason text,
  flag_version_id bigint,
  cost_factor numeric,
  matched_version_ids bigint[]
);

create type governance.compiled_condition as (expression text, leaves int, facts text[]);

-- The facts that rules read, by their names in docs/RULES.md: one row, worked out by governance.authorize_calls and
-- kept with the call. A new fact is a line here, one there and one in the core's table. The message is a fact too, but
-- not in the row: it is never kept.
create type governance.facts as (
  -- Settled in the account's local day and month, plus held now
  tokens_today bigint,
  tokens_this_month bigint,
  -- Messages: this one included; null or 0 without one
  messages_today int,
  identical_messages int,
  seconds_since_last_message numeric,
  rapid_messages int,
  conversation_messages int,
  message_words int,
  message_characters int,
  estimated_tokens bigint,
  complexity numeric,
  hour_utc int,
  hour_local int,
  weekday_local int,
  plan text,
  model text,
  provider text,
  task_type text,
  scope_id text,
  available_tokens bigint,
  usage_percent bigint,
  cost_today_micros bigint,
  cost_this_month_micros bigint,
  account_age_days int,
  is_flagged boolean,
  topic text
);

create function governance.fact_type(p_fact text) returns text
  language sql stable set search_path = '' as $$
  select case when p_fact = 'message' then 'text' else (
    select case t.typcategory when 'N' then 'number' when 'S' then 'text' when 'B' then 'boolean' end
    from pg_catalog.pg_attribute a join pg_catalog.pg_type t on t.oid = a.atttypid
    where a.attrelid = 'governance.facts'::regclass and a.attname = p_fact and not a.attisdropped) end
$$;
comment on function governance.fact_type(text) is 'text, number or boolean; null for an unknown fact.';

create function governance.invalid_rule(p_path text, p_problem text) returns void
  language plpgsql set search_path = '' as $$
begin
  perform governance.fail('PT422', 'invalid_rule', format('%s: %s', p_path, p_problem), p_path);
end
$$;
comment on function governance.invalid_rule(text, text) is 'Refuses a rule, naming the place and the problem.';

create function governance.check_action(p_action jsonb) returns jsonb
  language plpgsql immutable set search_path = '' as $$
declare
  v_kind text;
  v_spec jsonb;
  v_key text;
  v_by numeric;
begin
  if jsonb_typeof(p_action) is distinct from 'object' or p_action = '{}' then
    perform governance.invalid_rule('action',
      'one or more of block, warn, truncate, route, flag, deflect, multiply_cost is needed');
  end if;
  if p_action ? 'block' and p_action ? 'deflect' then
    perform governance.invalid_rule('action', 'block and deflect cannot stand in one action');
  end if;
  for v_kind, v_spec in select * from jsonb_each(p_action) loop
    if v_kind not in ('block', 'warn', 'truncate', 'route', 'flag', 'deflect', 'multiply_cost') then
      perform governance.invalid_rule('action.' || left(v_kind, 60), 'unknown action');
    end if;
    if jsonb_typeof(v_spec) <> 'object' then
      perform governance.invalid_rule('action.' || v_kind, 'an object is needed');
    end if;
    for v_key in select jsonb_object_keys(v_spec) loop
      if not (case v_kind
        when 'block' then v_key in ('reason', 'message', 'minutes')
        when 'warn' then v_key in ('message')
        when 'truncate' then v_key in ('words')
        when 'route' then v_key in ('model')
        when 'flag' then v_key in ('reason')
        when 'deflect' then v_key in ('message', 'reason')
        else v_key in ('by') end) then
        perform governance.invalid_rule(format('action.%s.%s', v_kind, left(v_key, 60)), 'unknown key');
      end if;
    end loop;
    if v_kind in ('block', 'flag') or (v_kind = 'deflect' and v_spec ? 'reason') then
      if governance.check_text(v_spec -> 'reason', format('action.%s.reason', v_kind), 64) !~ '^[a-z][a-z0-9_]*$' then
        perform governance.invalid_rule(format('action.%s.reason', v_kind),
          'a reason has small letters, digits and _ and begins with a letter');
      end if;
    end if;
    if v_kind in ('warn', 'deflect') or (v_kind = 'block' and v_spec ? 'message') then
      perform governance.check_text(v_spec -> 'message', format('action.%s.message', v_kind), 2000);
    end if;
    if v_kind = 'block' and v_spec ? 'minutes' then
      perform governance.check_whole(v_spec -> 'minutes', 'action.block.minutes', 1, 525600);
    elsif v_kind = 'truncate' then
      perform governance.check_whole(v_spec -> 'words', 'action.truncate.words', 1, 100000);
    elsif v_kind = 'route' then
      perform governance.check_text(v_spec -> 'model', 'action.route.model', 200);
    elsif v_kind = 'multiply_cost' then
      if jsonb_typeof(v_spec -> 'by') is distinct from 'number' then
        perform governance.invalid_rule('action.multiply_cost.by',
          'a number from 0.001 to 1000 with at most three decimals is needed');
      end if;
      v_by := (v_spec ->> 'by')::numeric;
      if v_by not between 0.001 and 1000 or v_by <> round(v_by, 3) then
        perform governance.invalid_rule('action.multiply_cost.by',
          'a number from 0.001 to 1000 with at most three decimals is needed');
      end if;
    end if;
  end loop;
  return p_action;
end
$$;
comment on function governance.check_action(jsonb) is 'The action, if docs/RULES.md allows it.';

create function governance.check_rule(p_rule jsonb) returns jsonb
  language plpgsql stable set search_path = '' as $$
declare
  v_applies jsonb := '{}';
  v_key text;
  v_list jsonb;
  v_item jsonb;
  v_mode text;
  v_active boolean := true;
  v_values bigint;
  v_characters bigint;
begin
  if jsonb_typeof(p_rule) is distinct from 'object' then
    perform governance.invalid_rule('rule', 'an object is needed');
  end if;
  perform governance.check_text(p_rule -> 'rule_name', 'rule_name', 100);
  if p_rule -> 'rule_type' is not null and p_rule -> 'rule_type' <> 'null' then
    perform governance.check_text(p_rule -> 'rule_type', 'rule_type', 64);
  end if;
  if p_rule -> 'priority' is not null and p_rule -> 'priority' <> 'null' then
    perform governance.check_whole(p_rule -> 'priority', 'priority', -2147483648, 2147483647);
  end if;
  v_mode := coalesce(p_rule ->> 'mode', 'enforce');
  if v_mode not in ('enforce', 'shadow', 'off') then
    perform governance.invalid_rule('mode', 'enforce, shadow or off is needed');
  end if;
  if p_rule -> 'is_active' is not null and p_rule -> 'is_active' <> 'null' then
    if jsonb_typeof(p_rule -> 'is_active') <> 'boolean' then
      perform governance.invalid_rule('is_active', 'true or false is needed');
    end if;
    v_active := (p_rule ->> 'is_active')::boolean;
  end if;
  if p_rule -> 'description' is not null and p_rule -> 'description' <> 'null' then
    if jsonb_typeof(p_rule -> 'description') <> 'string' or char_length(p_rule ->> 'description') > 2000 then
      perform governance.invalid_rule('description', 'a text of at most 2,000 characters is needed');
    end if;
  end if;
  if p_rule -> 'applies_to' is not null and p_rule -> 'applies_to' <> 'null' then
    if jsonb_typeof(p_rule -> 'applies_to') <> 'object' then
      perform governance.invalid_rule('applies_to', 'an object with plans and scopes is needed');
    end if;
    for v_key, v_list in select * from jsonb_each(p_rule -> 'applies_to') loop
      if v_key not in ('plans', 'scopes') then
        perform governance.invalid_rule('applies_to.' || left(v_key, 60), 'plans and scopes are known');
      end if;
      continue when v_list = 'null';
      if jsonb_typeof(v_list) <> 'array' or jsonb_array_length(v_list) > 1000 then
        perform governance.invalid_rule('applies_to.' || v_key, 'a list of at most 1,000 texts is needed');
      end if;
      for v_item in select * from jsonb_array_elements(v_list) loop
        perform governance.check_text(v_item, 'applies_to.' || v_key, 255);
      end loop;
      if jsonb_array_length(v_list) > 0 then
        v_applies := v_applies || jsonb_build_object(v_key, v_list);
      end if;
    end loop;
  end if;
  select count(*), coalesce(sum(char_length(x.v #>> '{}')) filter (where jsonb_typeof(x.v) = 'string'), 0)
    into v_values, v_characters
  from jsonb_path_query(p_rule -> 'conditions', 'strict $.**') x(v);
  if v_values > 10000 or v_characters > 100000 then
    perform governance.invalid_rule('conditions',
      'conditions have at most 10,000 values and 100,000 characters of text in all');
  end if;
  perform governance.compile_condition(p_rule -> 'conditions', 'conditions', 1);
  return jsonb_build_object(
    'rule_name', p_rule ->> 'rule_name',
    'rule_type', coalesce(p_rule ->> 'rule_type', 'custom'),
    'conditions', p_rule -> 'conditions',
    'action', governance.check_action(p_rule -> 'action'),
    'priority', coalesce((p_rule ->> 'priority')::numeric::int, 100),
    'mode', v_mode,
    'is_active', v_active,
    'applies_to', v_applies,
    'description', p_rule ->> 'description');
end
$$;
comment on function governance.check_rule(jsonb) is 'The rule with its defaults filled in; raises invalid_rule with '
  'the path of what is wrong.';

create function governance.rule_json(r governance.rules) returns jsonb
  language sql stable set search_path = '' as $$
  select jsonb_build_object('rule_name', r.rule_name, 'rule_type', r.rule_type, 'conditions', r.conditions, 'action',
    r.action,
    'priority', r.priority, 'mode', r.mode, 'is_active', r.is_active, 'applies_to', r.applies_to, 'version', r.version,
    'description', r.description, 'updated_at', r.updated_at, 'updated_by', r.updated_by)
    || coalesce((select jsonb_build_object('back_at', t.back_at) from governance.timed_rules t
      where t.rule_name = r.rule_name and r.retired_at is null), '{}')
$$;
comment on function governance.rule_json(governance.rules) is 'A rule as functions answer it.';

create function governance.store_rule(p_rule jsonb, p_operator text, p_now timestamptz,
  p_reason text default null) returns governance.rules
  language plpgsql set search_path = '' as $$
declare
  v_version int;
  v_version_id bigint;
  v_rule governance.rules;
begin
  delete from governance.timed_rules t where t.rule_name = p_rule ->> 'rule_name';
  select coalesce(max(v.version), 0) + 1 into v_version from governance.rule_versions v
    where v.rule_name = p_rule ->> 'rule_name';
  insert into governance.rule_versions (rule_name, version, rule, created_at, created_by, reason)
  values (p_rule ->> 'rule_name', v_version, p_rule, p_now, p_operator, p_reason)
  returning version_id into v_version_id;
  insert into governance.rules as r (rule_name, version, version_id, rule_type, priority, mode, is_active, conditions,
    action, applies_to, description, updated_at, updated_by)
  values (p_rule ->> 'rule_name', v_version, v_version_id, p_rule ->> 'rule_type', (p_rule ->> 'priority')::int,
    p_rule ->> 'mode',
    (p_rule ->> 'is_active')::boolean, p_rule -> 'conditions', p_rule -> 'action', p_rule -> 'applies_to',
      p_rule ->> 'description', p_now, p_operator)
  on conflict (rule_name) do update set
    version = excluded.version, version_id = excluded.version_id, rule_type = excluded.rule_type,
      priority = excluded.priority, mode = excluded.mode,
    is_active = excluded.is_active, conditions = excluded.conditions, action = excluded.action,
      applies_to = excluded.applies_to,
    description = excluded.description, updated_at = excluded.updated_at, updated_by = excluded.updated_by,
      retired_at = null
  returning * into v_rule;
  return v_rule;
end
$$;
comment on function governance.store_rule(jsonb, text, timestamptz, text) is
  'Writes a checked rule as its next version. Call governance.compile_rules afterwards.';

create function governance.store_retirement(p_rule_name text, p_operator text, p_now timestamptz,
  p_reason text default null) returns governance.rules
  language plpgsql set search_path = '' as $$
declare
  v_rule governance.rules;
  v_version_id bigint;
begin
  delete from governance.timed_rules t where t.rule_name = p_rule_name;
  insert into governance.rule_versions (rule_name, version, rule, created_at, created_by, reason, is_retired)
  select v.rule_name, v.version + 1, v.rule, p_now, p_operator, p_reason, true
  from governance.rule_versions v where v.rule_name = p_rule_name
  order by v.version desc limit 1
  returning version_id into v_version_id;
  update governance.rules r set version = r.version + 1, version_id = v_version_id, updated_at = p_now,
    updated_by = p_operator, retired_at = p_now
  where r.rule_name = p_rule_name returning * into strict v_rule;
  return v_rule;
end
$$;
comment on function governance.store_retirement(text, text, timestamptz, text) is
  'Takes a rule out of use, as a version of its own. Call governance.compile_rules afterwards.';

create function governance.end_timed_rules(p_now timestamptz) returns int
  language plpgsql set search_path = '' as $$
declare
  v_timed governance.timed_rules;
  v_rule governance.rules;
  v_ended int := 0;
begin
  -- Whoever changes rules now leaves them compiled; the next call looks again.
  if not pg_try_advisory_xact_lock(7254012) then return 0; end if;
  for v_timed in select * from governance.timed_rules t where t.back_at <= p_now order by t.back_at, t.rule_name loop
    if v_timed.back_version_id is null then
      v_rule := governance.store_retirement(v_timed.rule_name, v_timed.operator, p_now, 'Its time was over');
    else
      v_rule := governance.store_rule((select v.rule from governance.rule_versions v
        where v.version_id = v_timed.back_version_id), v_timed.operator, p_now, 'Its time was over: back by itself');
    end if;
    insert into governance.audit_log (created_at, operator, action, rule_name, reason, details)
    values (p_now, v_timed.operator, 'timed_rule_ended', v_timed.rule_name, 'Its time was over',
      jsonb_build_object('version', v_rule.version));
    v_ended := v_ended + 1;
  end loop;
  if v_ended > 0 then
    perform governance.compile_rules();
    perform governance.ring('rules', p_now);
  end if;
  return v_ended;
end
$$;
comment on function governance.end_timed_rules(timestamptz) is 'Puts rules back whose time is over; answers how many.';

create function governance.check_rule_version(p_rule_name text, p_current governance.rules, p_expected_version int)
  returns void
  language plpgsql stable set search_path = '' as $$
begin
  -- A retired rule is expected as the version that it was retired with, or as none.
  if p_expected_version is null or p_expected_version = coalesce(p_current.version, 0)
    or (p_expected_version = 0 and p_current.retired_at is not null) then
    return;
  end if;
  perform governance.fail('PT409', 'version_conflict',
    case when p_current.version is null or p_current.retired_at is not null
      then format('There is no rule "%s" in force', left(p_rule_name, 64))
      else format('Rule "%s" is at version %s, not %s', left(p_rule_name, 64), p_current.version,
        p_expected_version) end,
    case when p_current.version is null or p_current.retired_at is not null then 'null'
      else governance.rule_json(p_current)::text end);
end
$$;
comment on function governance.check_rule_version(text, governance.rules, int) is
  'Refuses a change over somebody else''s: version_conflict, with the current rule in its details.';

create function public.save_rule(p_command_id text, p_rule jsonb, p_expected_version int default null,
  p_operator text default null, p_reason text default null, p_until timestamptz default null) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_checked jsonb;
  v_current governance.rules;
  v_back_version_id bigint;
  v_rule governance.rules;
  v_answer jsonb;
  v_now timestamptz;
begin
  perform governance.refuse_others('save_rule');
  perform governance.check_id('p_command_id', p_command_id);
  perform governance.check_optional('p_operator', p_operator, 255);
  perform governance.check_optional('p_reason', p_reason, 1000);
  if p_rule is null then
    perform governance.fail('PT400', 'invalid_argument', 'p_rule is needed');
  end if;
  v_checked := governance.check_rule(p_rule);
  -- One writer of rules at a time: each makes governance.evaluate_rules anew.
  perform pg_advisory_xact_lock(7254012);
  v_answer := governance.begin_command('operator', p_command_id, case when p_reason is null and p_until is null
    then row('save_rule', p_rule, p_expected_version, p_operator)::text
    else row('save_rule', p_rule, p_expected_version, p_operator, p_reason, p_until)::text end);
  if v_answer is not null then return v_answer; end if;
  v_now := governance.now();
  if p_until <= v_now or p_until > v_now + interval '1 year' then
    perform governance.fail('PT400', 'invalid_argument', 'p_until is a moment within the next year');
  end if;
  perform governance.end_timed_rules(v_now);
  select * into v_current from governance.rules r where r.rule_name = v_checked ->> 'rule_name';
  perform governance.check_rule_version(v_checked ->> 'rule_name', v_current, p_expected_version);
  -- Who changes a timed change goes back to what was before the first one.
  select t.back_version_id into v_back_version_id from governance.timed_rules t
    where t.rule_name = v_checked ->> 'rule_name';
  if not found and v_current.retired_at is null then v_back_version_id := v_current.version_id; end if;
  v_rule := governance.store_rule(v_checked, p_operator, v_now, p_reason);
  if p_until is not null then
    insert into governance.timed_rules (rule_name, back_at, back_version_id, operator)
    values (v_rule.rule_name, p_until, v_back_version_id, p_operator);
  end if;
  perform governance.compile_rules();
  insert into governance.audit_log (created_at, operator, action, rule_name, reason, command_id, details)
  values (v_now, p_operator, 'save_rule', v_rule.rule_name, p_reason, p_command_id,
    jsonb_build_object('version', v_rule.version, 'before', case
      when v_current.retired_at is null and v_current.version is not null then governance.rule_json(v_current) end)
      || case when p_until is null then '{}' else jsonb_build_object('until', p_until) end);
  perform governance.ring('rules', v_now);
  return governance.end_command('operator', p_command_id, governance.rule_json(v_rule));
end
$$;
comment on function public.save_rule(text, jsonb, int, text, text, timestamptz) is
  'Saves a rule as its next version, in force at once. p_expected_version (0 for a new rule) refuses a save over '
  'someone else''s. With p_until the rule goes back by itself then to what it was before. Errors: invalid_argument, '
  'invalid_rule (path in details), version_conflict (current rule in details), idempotency_conflict.';
revoke all on function public.save_rule(text, jsonb, int, text, text, timestamptz) from public, anon, authenticated;
grant execute on function public.save_rule(text, jsonb, int, text, text, timestamptz) to service_role;

create function public.list_rules() returns jsonb
  language sql stable security definer set search_path = '' as $$
  select governance.refuse_others('list_rules');
  select coalesce(jsonb_agg(governance.rule_json(r) || jsonb_build_object('matches_24h', coalesce(m.matches, 0))
    order by r.priority, r.rule_name collate "C"), '[]')
  from governance.rules r
  left join governance.matches_since(governance.now() - interval '24 hours') m using (rule_name)
  where r.retired_at is null
$$;
comment on function public.list_rules() is 'The rules that are not retired, in the order in which they run, each with '
  'the calls that it matched in the last 24 hours, enforced or in shadow.';
revoke all on function public.list_rules() from public, anon, authenticated;
grant execute on function public.list_rules() to service_role;

create function governance.rule_names(p_version_ids bigint[], p_mode text default null) returns jsonb
  language sql stable set search_path = '' as $$
  select coalesce(jsonb_agg(v.rule_name order by n), '[]')
  from unnest(p_version_ids) with ordinality i(version_id, n) join governance.rule_versions v using (version_id)
  where p_mode is null or v.rule ->> 'mode' = p_mode
$$;
comment on function governance.rule_names(bigint[],
  text) is 'Names of rule versions, in order; of one mode alone if said.';

create function governance.define_rules(p_match text, p_walk text, p_topic text, p_complexity text) returns void
  language plpgsql set search_path = '' as $$
declare
  v_facts text := 'f governance.facts, p_message text, p_phrases text, p_monthly_allowance bigint, p_daily_limit bigint,
    p_monthly_limit bigint';
begin
  -- No search path on the first: it is inlined.
  execute format('create or replace function governance.rules_match(%s) returns boolean language sql stable as %L',
    v_facts, 'select ' || p_match);
  execute format('create or replace function governance.rules_topic(p_phrases text) returns text
    language plpgsql immutable set search_path = %L as %L', '', 'begin return ' || p_topic || '; end');
  execute format('create or replace function governance.rules_complexity(p_complexity numeric, p_phrases text,
    p_characters int) returns numeric language plpgsql immutable set search_path = %L as %L', '',
    'begin return ' || p_complexity || '; end');
  execute format('create or replace function governance.evaluate_rules(%s, p_at timestamptz) returns governance.verdict
    language plpgsql stable set search_path = %L as %L',
    v_facts, '', E'declare\n  v governance.verdict;\nbegin\n' || p_walk || E'  return v;\nend\n');
end
$$;
comment on function governance.define_rules(text, text, text,
  text) is 'Makes the functions that calls ask about rules, from what governance.compile_rules wrote.';

create trigger rule_versions_append_only before update or delete or truncate on governance.rule_versions
  for each statement execute function governance.refuse_change();

-- schemas/12_rule_compiler.sql
-- The compilation of rules into the SQL that a call runs.

create function governance.compile_number(p_value jsonb, p_path text) returns text
  language plpgsql immutable set search_path = '' as $$
declare
  v_number numeric;
begin
  if jsonb_typeof(p_value) is distinct from 'number' then
    perform governance.invalid_rule(p_path, 'a number is needed');
  end if;
  v_number := (p_value #>> '{}')::numeric;
  if abs(v_number) >= 1e300 or (v_number <> 0 and abs(v_number) < 1e-300) then
    perform governance.invalid_rule(p_path, 'the number is too large or too small');
  end if;
  if not (v_number = trunc(v_number) and abs(v_number) < 9007199254740992)
    and length(rtrim(ltrim(replace(abs(v_number)::text, '.', ''), '0'), '0')) > 15 then
    perform governance.invalid_rule(p_path, 'a number is whole and below 2^53, or has at most 15 significant digits');
  end if;
  return format('(%s)', v_number);
end
$$;
comment on function governance.compile_number(jsonb, text) is 'A number of a rule as SQL.';

create function governance.compile_text(p_value jsonb, p_path text) returns text
  language plpgsql immutable set search_path = '' as $$
begin
  if jsonb_typeof(p_value) is distinct from 'string' then
    perform governance.invalid_rule(p_path, 'a text is needed');
  end if;
  if char_length(p_value #>> '{}') > 1000 then
    perform governance.invalid_rule(p_path, 'a text has at most 1,000 characters');
  end if;
  return quote_literal(p_value #>> '{}') || '::text';
end
$$;
comment on function governance.compile_text(jsonb, text) is 'A text of a rule as SQL.';

create function governance.compile_leaf(p_node jsonb, p_path text) returns governance.compiled_condition
  language plpgsql stable set search_path = '' as $$
declare
  v_fact text := p_node ->> 'fact';
  v_op text := p_node ->> 'op';
  v_value jsonb := p_node -> 'value';
  v_type text;
  v_column text;
  v_items text[];
  v_phrase text;
  v_key text;
  v_at int := 0;
  v_item jsonb;
  v_expression text;
begin
  for v_key in select jsonb_object_keys(p_node) loop
    if v_key not in ('fact', 'op', 'value') then
      perform governance.invalid_rule(p_path || '.' || left(v_key, 60), 'a leaf has fact, op and value only');
    end if;
  end loop;
  if jsonb_typeof(p_node -> 'fact') is distinct from 'string' then
    perform governance.invalid_rule(p_path || '.fact', 'the name of a fact is needed');
  end if;
  v_type := governance.fact_type(v_fact);
  if v_type is null then
    perform governance.invalid_rule(p_path || '.fact', format('unknown fact "%s"', left(v_fact, 60)));
  end if;
  if jsonb_typeof(p_node -> 'op') is distinct from 'string'
    or v_op not in ('=', '!=', '>', '>=', '<', '<=', 'in', 'not_in', 'between', 'contains', 'matches_any') then
    perform governance.invalid_rule(p_path || '.op', format('unknown op "%s"', left(coalesce(v_op, ''), 60)));
  end if;
  if v_value is null then
    perform governance.invalid_rule(p_path || '.value', 'a value is needed');
  end if;
  if (v_op in ('>', '>=', '<', '<=', 'between') and v_type <> 'number')
    or (v_op in ('in', 'not_in') and v_type = 'boolean')
    or (v_op in ('contains', 'matches_any') and v_type <> 'text') then
    perform governance.invalid_rule(p_path || '.op',
      format('"%s" does not fit the %s fact "%s"', v_op, v_type, v_fact));
  end if;
  v_column := case v_fact when 'message' then 'p_message' else 'f.' || v_fact end;

  if jsonb_typeof(v_value) = 'object' then
    if v_type <> 'number' or v_op not in ('=', '!=', '>', '>=', '<', '<=')
      or v_value ->> 'plan' is null or v_value ->> 'plan' not in ('monthly_allowance', 'daily_limit', 'monthly_limit')
      or (select count(*) from jsonb_object_keys(v_value)) <> 1 then
      perform governance.invalid_rule(p_path || '.value',
        'a plan value is {"plan": "monthly_allowance" | "daily_limit" | "monthly_limit"}, compared with a number fact');
    end if;
    v_expression := format('(%s %s p_%s) is true', v_column, case v_op when '!=' then '<>'
      else v_op end, v_value ->> 'plan');
  elsif v_op in ('=', '!=', '>', '>=', '<', '<=') then
    v_expression := format('(%s %s %s) is true', v_column, case v_op when '!=' then '<>' else v_op end,
      case v_type
        when 'number' then governance.compile_number(v_value, p_path || '.value')
        when 'text' then governance.compile_text(v_value, p_path || '.value')
        else case when jsonb_typeof(v_value) = 'boolean' then v_value::text end
      end);
    if v_expression is null or v_expression not like '%) is true' or jsonb_typeof(v_value) = 'null' then
      perform governance.invalid_rule(p_path || '.value', format('a %s is needed', v_type));
    end if;
    if v_type = 'boolean' and jsonb_typeof(v_value) <> 'boolean' then
      perform governance.invalid_rule(p_path || '.value', 'true or false is needed');
    end if;
  elsif v_op = 'between' then
    if jsonb_typeof(v_value) <> 'array' or jsonb_array_length(v_value) <> 2 then
      perform governance.invalid_rule(p_path || '.value', '[low, high] is needed');
    end if;
    v_expression := format('(%1$s >= %2$s and %1$s <= %3$s) is true', v_column,
      governance.compile_number(v_value -> 0, p_path || '.value[0]'),
        governance.compile_number(v_value -> 1, p_path || '.value[1]'));
  elsif v_op in ('in', 'not_in') then
    if jsonb_typeof(v_value) <> 'array' then
      perform governance.invalid_rule(p_path || '.value', 'a list is needed');
    end if;
    if jsonb_array_length(v_value) > 1000 then
      perform governance.invalid_rule(p_path || '.value', 'a list has at most 1,000 values');
    end if;
    for v_item in select * from jsonb_array_elements(v_value) loop
      v_items := v_items || case v_type
        when 'number' then governance.compile_number(v_item, format('%s.value[%s]', p_path, v_at))
        else governance.compile_text(v_item, format('%s.value[%s]', p_path, v_at)) end;
      v_at := v_at + 1;
    end loop;
    v_expression := format(case v_op when 'in' then '(%s = any (array[%s]::%s[])) is true'
      else '(%s <> all (array[%s]::%s[])) is true' end,
      v_column, array_to_string(v_items, ','), case v_type when 'number' then 'numeric' else 'text' end);
  else
    if jsonb_typeof(v_value) = 'string' then
      v_value := jsonb_build_array(v_value);
    elsif jsonb_typeof(v_value) <> 'array' then
      perform governance.invalid_rule(p_path || '.value', 'a phrase or a list of phrases is needed');
    end if;
    if jsonb_array_length(v_value) > 1000 then
      perform governance.invalid_rule(p_path || '.value', 'a list has at most 1,000 phrases');
    end if;
    for v_item in select * from jsonb_array_elements(v_value) loop
      perform governance.compile_text(v_item, format('%s.value[%s]', p_path, v_at));
      v_phrase := governance.sought_phrase(v_item #>> '{}');
      if btrim(v_phrase) = '' then
        perform governance.invalid_rule(format('%s.value[%s]', p_path, v_at), 'a phrase needs a letter or a digit');
      end if;
      v_items := v_items || format('strpos(%s, %L) > 0',
        case v_fact when 'message' then 'p_phrases'
          else 'governance.space_phrases(governance.fold(' || v_column || '))' end, v_phrase);
      v_at := v_at + 1;
    end loop;
    v_expression := format('(%s is not null and (%s)) is true', v_column,
      coalesce(array_to_string(v_items, case v_op when 'contains' then ' and ' else ' or ' end), case v_op
        when 'contains' then 'true' else 'false' end));
  end if;
  return row(v_expression, 1, array[v_fact])::governance.compiled_condition;
end
$$;
comment on function governance.compile_leaf(jsonb,
  text) is 'A leaf of a rule''s conditions as SQL that is true or false, never null.';

create function governance.compile_condition(p_node jsonb, p_path text,
  p_depth int) returns governance.compiled_condition
  language plpgsql stable set search_path = '' as $$
declare
  v_key text;
  v_child jsonb;
  v_compiled governance.compiled_condition;
  v_parts text[] := '{}';
  v_leaves int := 0;
  v_facts text[] := '{}';
  v_at int := 0;
begin
  if p_depth > 20 then
    perform governance.invalid_rule(p_path, 'conditions nest at most 20 deep');
  end if;
  if jsonb_typeof(p_node) is distinct from 'object' then
    perform governance.invalid_rule(p_path,
      'a condition is {"all": […]}, {"any": […]}, {"not": …} or {"fact", "op", "value"}');
  end if;
  if p_node ? 'fact' or p_node ? 'op' then
    return governance.compile_leaf(p_node, p_path);
  end if;
  if (select count(*) from jsonb_object_keys(p_node)) <> 1 then
    perform governance.invalid_rule(p_path, 'a condition has exactly one of all, any, not, or is a leaf with a fact');
  end if;
  select k into v_key from jsonb_object_keys(p_node) k;
  if v_key = 'not' then
    v_compiled := governance.compile_condition(p_node -> 'not', p_path || '.not', p_depth + 1);
    return row(format('(not %s)', v_compiled.expression), v_compiled.leaves,
      v_compiled.facts)::governance.compiled_condition;
  end if;
  if v_key not in ('all', 'any') then
    perform governance.invalid_rule(p_path || '.' || left(v_key, 60),
      'a condition has all, any, not, or fact, op and value');
  end if;
  if jsonb_typeof(p_node -> v_key) <> 'array' then
    perform governance.invalid_rule(p_path || '.' || v_key, 'a list of conditions is needed');
  end if;
  for v_child in select * from jsonb_array_elements(p_node -> v_key) loop
    v_compiled := governance.compile_condition(v_child, format('%s.%s[%s]', p_path, v_key, v_at), p_depth + 1);
    v_parts := v_parts || v_compiled.expression;
    v_leaves := v_leaves + v_compiled.leaves;
    v_facts := v_facts || v_compiled.facts;
    v_at := v_at + 1;
    if v_leaves > 200 or v_at > 1000 then
      perform governance.invalid_rule(p_path, 'conditions have at most 200 leaves');
    end if;
  end loop;
  return row(
    case when v_at = 0 then case v_key when 'all' then 'true' else 'false' end
      else '(' || array_to_string(v_parts, case v_key when 'all' then ' and ' else ' or ' end) || ')' end,
    v_leaves, v_facts)::governance.compiled_condition;
end
$$;
comment on function governance.compile_condition(jsonb, text,
  int) is 'A rule''s conditions as an SQL expression over the facts f; refuses what docs/RULES.md does not allow.';

create function governance.rule_condition(p_rule jsonb) returns text
  language plpgsql stable set search_path = '' as $$
declare
  v_condition text := (governance.compile_condition(p_rule -> 'conditions', 'conditions', 1)).expression;
begin
  if p_rule -> 'applies_to' ? 'plans' then
    v_condition := format('(f.plan = any (%L::text[])) is true and ',
      array(select jsonb_array_elements_text(p_rule -> 'applies_to' -> 'plans'))) || v_condition;
  end if;
  if p_rule -> 'applies_to' ? 'scopes' then
    v_condition := format('(f.scope_id = any (%L::text[])) is true and ',
      array(select jsonb_array_elements_text(p_rule -> 'applies_to' -> 'scopes'))) || v_condition;
  end if;
  return '(' || v_condition || ')';
end
$$;
comment on function governance.rule_condition(jsonb) is 'Whether a rule applies and matches, as an SQL expression over '
  'the facts f_*.';

create function governance.compile_rule(p_version_id bigint, p_rule jsonb) returns text
  language plpgsql stable set search_path = '' as $$
declare
  v_condition text := governance.rule_condition(p_rule);
  v_action jsonb := p_rule -> 'action';
  v_code text;
begin
  v_code := format(E'  if %s then\n    v.matched_version_ids := v.matched_version_ids || %s::bigint;\n', v_condition,
    p_version_id);
  if p_rule ->> 'mode' = 'enforce' then
    if v_action ? 'warn' then
      v_code := v_code || format(E'    v.warnings := v.warnings || %L::text;\n', v_action -> 'warn' ->> 'message');
    end if;
    if v_action ? 'truncate' then
      v_code := v_code || format(E'    v.truncate_to_words := least(v.truncate_to_words, %s);\n',
        (v_action -> 'truncate' ->> 'words')::numeric::int);
    end if;
    if v_action ? 'route' then
      v_code := v_code || format(E'    v.model := %1$L; f.model := %1$L; f.provider := governance.provider_of(%1$L, '
        'p_at);\n',
        v_action -> 'route' ->> 'model');
    end if;
    if v_action ? 'flag' then
      v_code := v_code || format(E'    if v.flag_reason is null then v.flag_reason := %L; v.flag_version_id := %s; end '
        'if;\n',
        v_action -> 'flag' ->> 'reason', p_version_id);
    end if;
    if v_action ? 'multiply_cost' then
      v_code := v_code || format(E'    v.cost_factor := coalesce(v.cost_factor, 1) * %s;\n',
        v_action -> 'multiply_cost' ->> 'by');
    end if;
    if v_action ? 'block' or v_action ? 'deflect' then
      v_code := v_code || format(E'    v.blocked := true; v.reason := %L; v.message := %L; v.block_minutes := %L; '
        'v.version_id := %s;\n    return v;\n',
        coalesce(v_action -> 'block' ->> 'reason', v_action -> 'deflect' ->> 'reason', 'off_topic'),
        coalesce(v_action -> 'block' ->> 'message', v_action -> 'deflect' ->> 'message'),
        (v_action -> 'block' ->> 'minutes')::numeric::int, p_version_id);
    end if;
  end if;
  return v_code || E'  end if;\n';
end
$$;
comment on function governance.compile_rule(bigint, jsonb) is 'One rule as a statement of governance.evaluate_rules.';

create function governance.compile_rules() returns bigint
  language plpgsql set search_path = '' as $$
declare
  v_rule record;
  v_walk text := '';
  v_any text[] := '{}';
  v_facts text[] := '{}';
  v_version_ids bigint[] := '{}';
  v_rule_set_id bigint;
  v_topic text := 'null::text';
  v_complexity text := 'p_complexity';
  v_characters bigint;
begin
  perform pg_advisory_xact_lock(7254012);
  -- Every connection keeps the compiled rules in memory, some sixty times their size. What a rule goes back to by
  -- itself keeps its room: a call that puts it back must not be refused for that.
  select coalesce((select sum(greatest(
      case when r.is_active and r.mode <> 'off' and r.retired_at is null
        then length(r.conditions::text) + length(r.applies_to::text) else 0 end,
      case when (v.rule ->> 'is_active')::boolean and v.rule ->> 'mode' <> 'off'
        then length((v.rule -> 'conditions')::text) + length((v.rule -> 'applies_to')::text) else 0 end))
    from governance.rules r left join governance.timed_rules t using (rule_name)
    left join governance.rule_versions v on v.version_id = t.back_version_id), 0)
    + coalesce((select sum(length(s.value::text)) from governance.settings s
      where s.key in ('topics', 'complexity_words')), 0) into v_characters;
  if v_characters > 500000 then
    perform governance.invalid_rule('conditions', format('the rules that are on, topics and complexity words have at '
      'most 500,000 characters in all, and would have %s: turn a rule off, or shorten lists',
      to_char(v_characters, 'FM999,999,999,999')));
  end if;
  for v_rule in
    select r.version_id, jsonb_build_object('conditions', r.conditions, 'action', r.action, 'applies_to', r.applies_to,
      'mode', r.mode) as rule
    from governance.rules r
    where r.is_active and r.mode <> 'off' and r.retired_at is null
    order by r.priority, r.rule_name collate "C"
  loop
    v_walk := v_walk || governance.compile_rule(v_rule.version_id, v_rule.rule);
    v_any := v_any || governance.rule_condition(v_rule.rule);
    v_facts := v_facts || (governance.compile_condition(v_rule.rule -> 'conditions', 'conditions', 1)).facts;
    v_version_ids := v_version_ids || v_rule.version_id;
  end loop;
  if 'topic' = any (v_facts) then
    select 'case ' || string_agg(format('when %s then %L', t.is_about, t.topic), ' ' order by t.place)
      || ' end' into v_topic
    from (
      select e.place, e.topic ->> 'topic' as topic, (
        select coalesce(string_agg(format('strpos(p_phrases, %L) > 0', p.phrase), ' or '), 'false')
        from (select governance.sought_phrase(w) as phrase
          from jsonb_array_elements_text(e.topic -> 'words') w) p
        where btrim(p.phrase) <> '') as is_about
      from jsonb_array_elements((select s.value from governance.settings s
        where s.key = 'topics')) with ordinality e(topic, place)) t;
    v_topic := coalesce(v_topic, 'null::text');
  end if;
  if 'complexity' = any (v_facts) then
    select format('case when p_complexity is null and p_phrases is not null then
      round(least(1000, 200 * (%s) + least(400, p_characters * 2::bigint / 3)) / 1000.0,
        3) else p_complexity end',
      coalesce(string_agg(format('(strpos(p_phrases, %L) > 0)::int', p.phrase), ' + '), '0')) into v_complexity
    from (select distinct governance.sought_phrase(w) as phrase
      from jsonb_array_elements_text((select s.value from governance.settings s where s.key = 'complexity_words')) w) p
    where btrim(p.phrase) <> '';
  end if;
  perform governance.define_rules(coalesce(nullif(array_to_string(v_any, E'\n    or '), ''), 'false'), v_walk, v_topic,
    v_complexity);
  insert into governance.rule_sets (version_ids) values (v_version_ids) returning rule_set_id into v_rule_set_id;
  update governance.active_config set
    rule_set_id = v_rule_set_id, updated_at = clock_timestamp(),
    rules_due_at = (select min(t.back_at) from governance.timed_rules t),
    rules_read_identical = 'identical_messages' = any (v_facts),
      rules_read_words = v_facts && array['message', 'topic', 'complexity'],
    rules_read_provider = 'provider' = any (v_facts);
  return v_rule_set_id;
end
$$;
comment on function governance.compile_rules() is
  'Makes the functions that calls ask about rules anew from the rules and word lists in force, and names the set; one '
  'at a time.';

-- Configuration, operators' commands, and the feed that readers follow.

-- schemas/13_preset_checks.sql
-- What a preset may say: each refusal names the place and what is allowed.

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
  if coalesce(p_settings -> 'operator_emails', '[]') <> '[]' then
    if jsonb_typeof(p_settings -> 'operator_emails') <> 'array'
      or jsonb_array_length(p_settings -> 'operator_emails') > 50
      or exists (select from jsonb_array_elements(p_settings -> 'operator_emails') w where jsonb_typeof(w) <> 'string'
        or char_length(w #>> '{}') > 254 or (w #>> '{}') !~ '^[^\s@<>(),;:\\"\[\]]+@[^\s@<>(),;:\\"\[\]]+$') then
      perform governance.invalid_preset('settings.operator_emails', 'a list of at most 50 e-mail addresses is needed');
    end if;
  end if;
  if coalesce(p_settings -> 'pay_debt_from', '"free"') not in ('"free"', '"grants"') then
    perform governance.invalid_preset('settings.pay_debt_from', 'free or grants is needed');
  end if;
  foreach v_key in array '{operator_channels,user_warning_channels}'::text[] loop
    if coalesce(p_settings -> v_key, '[]') <> '[]' and (jsonb_typeof(p_settings -> v_key) <> 'array'
      or exists (select from jsonb_array_elements(p_settings -> v_key) w
        where jsonb_typeof(w) <> 'string' or (w #>> '{}') !~ '^[a-z][a-z0-9_]{0,31}$')) then
      perform governance.invalid_preset('settings.' || v_key, 'a list of channels such as email and slack is needed');
    end if;
  end loop;
  return p_settings;
end
$$;
comment on function governance.check_settings(jsonb) is 'The settings, if the word lists in them can be compiled and '
  'the addresses written to.';

-- schemas/14_presets.sql
-- The preset: made the configuration in force, part by part.

create function governance.store_plans(p_plans jsonb, p_now timestamptz) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_item jsonb;
  v_path text;
  v_at int := 0;
  v_count int := 0;
  v_list jsonb;
  v_plan governance.plans;
  v_old_plan governance.plans;
  v_changed jsonb := '{}';
begin
  for v_item in select * from jsonb_array_elements(p_plans) loop
    v_path := format('plans[%s]', v_at); v_at := v_at + 1;
    v_plan := null;
    v_plan.plan_id := v_item ->> 'plan_id';
    v_plan.name := governance.preset_text(v_item, 'name', v_path, v_plan.plan_id);
    v_plan.monthly_allowance := governance.preset_whole(v_item, 'monthly_allowance', v_path, 0, 9007199254740991, 0);
    v_plan.daily_limit := governance.preset_whole(v_item, 'daily_limit', v_path, 0, 9007199254740991);
    v_plan.monthly_limit := governance.preset_whole(v_item, 'monthly_limit', v_path, 0, 9007199254740991);
    v_plan.rollover_months := governance.preset_whole(v_item, 'rollover_months', v_path, 0, 12, 0);
    v_plan.allows_top_up := coalesce(v_item -> 'allows_top_up', 'null') in ('true', 'null');
    if coalesce(jsonb_typeof(v_item -> 'allows_top_up'), 'null') not in ('boolean', 'null')
      then perform governance.invalid_preset(v_path || '.allows_top_up', 'true or false is needed'); end if;
    v_plan.fail_mode := governance.preset_text(v_item, 'fail_mode', v_path, 'closed');
    if v_plan.fail_mode not in ('closed', 'open')
      then perform governance.invalid_preset(v_path || '.fail_mode', 'closed or open is needed'); end if;
    v_plan.on_cancel := governance.preset_text(v_item, 'on_cancel', v_path, 'expire');
    if v_plan.on_cancel not in ('keep', 'convert', 'expire')
      then perform governance.invalid_preset(v_path || '.on_cancel', 'keep, convert or expire is needed'); end if;
    if coalesce(v_item -> 'upgrade_to', 'null') <> 'null' then
      v_plan.upgrade_to := governance.preset_text(v_item, 'upgrade_to', v_path);
      if not exists (select from jsonb_array_elements(p_plans) x where x ->> 'plan_id' = v_plan.upgrade_to) then
        perform governance.invalid_preset(v_path || '.upgrade_to',
          format('there is no plan "%s"', left(v_plan.upgrade_to, 64)));
      end if;
    end if;
    v_list := coalesce(nullif(v_item -> 'warn_at', 'null'), '[80, 90, 95]');
    if jsonb_typeof(v_list) <> 'array' or jsonb_array_length(v_list) > 20
      or exists (select from jsonb_array_elements(v_list) w
        where jsonb_typeof(w) <> 'number' or (w #>> '{}')::numeric <> trunc((w #>> '{}')::numeric)
        or (w #>> '{}')::numeric not between 1 and 100) then
      perform governance.invalid_preset(v_path || '.warn_at', 'a list of whole percents from 1 to 100 is needed');
    end if;
    v_plan.warn_at := coalesce((select array_agg(distinct (w #>> '{}')::numeric::int
      order by (w #>> '{}')::numeric::int) from jsonb_array_elements(v_list) w), '{}');
    select * into v_old_plan from governance.plans p where p.plan_id = v_plan.plan_id;
    if v_old_plan.plan_id is null or v_old_plan.retired_at is not null
      or row(v_old_plan.name, v_old_plan.monthly_allowance, v_old_plan.daily_limit, v_old_plan.monthly_limit,
        v_old_plan.rollover_months, v_old_plan.allows_top_up, v_old_plan.fail_mode, v_old_plan.on_cancel,
        v_old_plan.upgrade_to, v_old_plan.warn_at)
        is distinct from row(v_plan.name, v_plan.monthly_allowance, v_plan.daily_limit, v_plan.monthly_limit,
          v_plan.rollover_months, v_plan.allows_top_up, v_plan.fail_mode, v_plan.on_cancel, v_plan.upgrade_to,
          v_plan.warn_at) then
      insert into governance.plans (plan_id, name, monthly_allowance, daily_limit, monthly_limit, rollover_months,
        allows_top_up, fail_mode, on_cancel, upgrade_to, warn_at)
      values (v_plan.plan_id, v_plan.name, v_plan.monthly_allowance, v_plan.daily_limit, v_plan.monthly_limit,
        v_plan.rollover_months, v_plan.allows_top_up, v_plan.fail_mode, v_plan.on_cancel, v_plan.upgrade_to,
        v_plan.warn_at)
      on conflict (plan_id) do update set name = excluded.name, monthly_allowance = excluded.monthly_allowance,
        daily_limit = excluded.daily_limit,
        monthly_limit = excluded.monthly_limit, rollover_months = excluded.rollover_months,
          allows_top_up = excluded.allows_top_up, fail_mode = excluded.fail_mode,
        on_cancel = excluded.on_cancel, upgrade_to = excluded.upgrade_to, warn_at = excluded.warn_at,
          updated_at = p_now, retired_at = null;
      v_count := v_count + 1;
    end if;
  end loop;
  v_changed := v_changed || jsonb_build_object('plans', v_count);
  update governance.plans p set retired_at = p_now
  where p.retired_at is null
    and not exists (select from jsonb_array_elements(p_plans) x where x ->> 'plan_id' = p.plan_id);
  get diagnostics v_count = row_count;
  v_changed := v_changed || jsonb_build_object('plans_retired', v_count);
  return v_changed;
end
$$;
comment on function governance.store_plans(jsonb, timestamptz) is
  'The plans of a preset; answers how many changed and were retired.';

create function governance.store_packs(p_packs jsonb, p_plans jsonb, p_currency text, p_now timestamptz) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_item jsonb;
  v_path text;
  v_at int := 0;
  v_count int := 0;
  v_list jsonb;
  v_pack governance.packs;
  v_old_pack governance.packs;
  v_changed jsonb := '{}';
begin
  for v_item in select * from jsonb_array_elements(p_packs) loop
    v_path := format('packs[%s]', v_at); v_at := v_at + 1;
    v_pack := null;
    v_pack.pack_id := v_item ->> 'pack_id';
    v_pack.tokens := governance.preset_whole(v_item, 'tokens', v_path, 1, 100000000, null, true);
    v_pack.price_minor := governance.preset_whole(v_item, 'price_minor', v_path, 0, 9007199254740991, null, true);
    v_pack.currency := lower(governance.preset_text(v_item, 'currency', v_path, p_currency, 3));
    if v_pack.currency !~ '^[a-z]{3}$'
      then perform governance.invalid_preset(v_path || '.currency', 'three letters are needed'); end if;
    v_list := coalesce(nullif(v_item -> 'plans', 'null'), '[]');
    if jsonb_typeof(v_list) <> 'array' or exists (select from jsonb_array_elements(v_list) x
      where jsonb_typeof(x) <> 'string'
        or not exists (select from jsonb_array_elements(p_plans) p where p ->> 'plan_id' = x #>> '{}')) then
      perform governance.invalid_preset(v_path || '.plans', 'a list of plans of this preset is needed');
    end if;
    v_pack.plans := (select array_agg(x order by x collate "C") from jsonb_array_elements_text(v_list) x);
    select * into v_old_pack from governance.packs p where p.pack_id = v_pack.pack_id and p.retired_at is null;
    if v_old_pack.pack_id is null
      or row(v_old_pack.tokens, v_old_pack.price_minor, v_old_pack.currency, v_old_pack.plans)
      is distinct from row(v_pack.tokens, v_pack.price_minor, v_pack.currency, v_pack.plans) then
      update governance.packs p set retired_at = p_now where p.pack_row_id = v_old_pack.pack_row_id;
      -- The first price of a pack holds for the past too: its payments may have been made before this preset.
      insert into governance.packs (pack_id, tokens, price_minor, currency, plans, effective_from)
      values (v_pack.pack_id, v_pack.tokens, v_pack.price_minor, v_pack.currency, v_pack.plans,
        case when exists (select from governance.packs p where p.pack_id = v_pack.pack_id) then p_now
          else '-infinity' end);
      v_count := v_count + 1;
    end if;
  end loop;
  v_changed := v_changed || jsonb_build_object('packs', v_count);
  update governance.packs p set retired_at = p_now
  where p.retired_at is null
    and not exists (select from jsonb_array_elements(p_packs) x where x ->> 'pack_id' = p.pack_id);
  get diagnostics v_count = row_count;
  v_changed := v_changed || jsonb_build_object('packs_retired', v_count);
  return v_changed;
end
$$;
comment on function governance.store_packs(jsonb, jsonb, text, timestamptz) is
  'The packs of a preset; answers how many changed and were retired.';

create function governance.store_price(p_item jsonb, p_path text, p_currency text, p_now timestamptz) returns boolean
  language plpgsql set search_path = '' as $$
declare
  v_price governance.prices;
  v_old_price governance.prices;
begin
  v_price.provider := governance.preset_text(p_item, 'provider', p_path);
  v_price.model := governance.preset_text(p_item, 'model', p_path, null, 200);
  v_price.input_micros_per_million := governance.preset_whole(p_item, 'input_micros_per_million', p_path, 0,
    1000000000000000, null, true);
  v_price.output_micros_per_million := governance.preset_whole(p_item, 'output_micros_per_million', p_path, 0,
    1000000000000000, null, true);
  v_price.cached_input_micros_per_million := governance.preset_whole(p_item, 'cached_input_micros_per_million',
    p_path, 0, 1000000000000000);
  v_price.cache_write_micros_per_million := governance.preset_whole(p_item, 'cache_write_micros_per_million', p_path,
    0, 1000000000000000);
  v_price.cache_write_1h_micros_per_million := governance.preset_whole(p_item, 'cache_write_1h_micros_per_million',
    p_path, 0, 1000000000000000);
  v_price.reasoning_micros_per_million := governance.preset_whole(p_item, 'reasoning_micros_per_million', p_path, 0,
    1000000000000000);
  v_price.currency := lower(governance.preset_text(p_item, 'currency', p_path, p_currency, 3));
  if v_price.currency <> p_currency then
    perform governance.invalid_preset(p_path || '.currency',
      format('prices are in the preset''s currency, %s', p_currency));
  end if;
  begin
    v_price.effective_from := case
      when governance.preset_text(p_item, 'effective_from', p_path, '1970-01-01') ~ '^\d{4}-\d{2}-\d{2}$'
      then (p_item ->> 'effective_from')::timestamp at time zone 'UTC'
        else coalesce(p_item ->> 'effective_from', '1970-01-01T00:00:00Z')::timestamptz end;
  exception when data_exception then
    perform governance.invalid_preset(p_path || '.effective_from', 'a date or a moment is needed');
  end;
  if v_price.effective_from is null then v_price.effective_from := '1970-01-01T00:00:00Z'; end if;
  select * into v_old_price from governance.prices p
  where p.model = v_price.model and p.provider = v_price.provider and p.effective_from = v_price.effective_from
    and p.retired_at is null;
  if v_old_price.price_id is null
    or row(v_old_price.input_micros_per_million, v_old_price.output_micros_per_million,
      v_old_price.cached_input_micros_per_million, v_old_price.cache_write_micros_per_million,
      v_old_price.cache_write_1h_micros_per_million,
      v_old_price.reasoning_micros_per_million, v_old_price.currency)
      is distinct from row(v_price.input_micros_per_million, v_price.output_micros_per_million,
        v_price.cached_input_micros_per_million, v_price.cache_write_micros_per_million,
        v_price.cache_write_1h_micros_per_million, v_price.reasoning_micros_per_million, v_price.currency) then
    update governance.prices p set retired_at = p_now where p.price_id = v_old_price.price_id;
    insert into governance.prices (provider, model, input_micros_per_million, output_micros_per_million,
      cached_input_micros_per_million,
      cache_write_micros_per_million, cache_write_1h_micros_per_million, reasoning_micros_per_million, currency,
      effective_from, created_at)
    values (v_price.provider, v_price.model, v_price.input_micros_per_million, v_price.output_micros_per_million,
      v_price.cached_input_micros_per_million,
      v_price.cache_write_micros_per_million, v_price.cache_write_1h_micros_per_million,
      v_price.reasoning_micros_per_million, v_price.currency,
        v_price.effective_from, p_now);
    return true;
  end if;
  return false;
end
$$;
comment on function governance.store_price(jsonb, text, text, timestamptz) is
  'Sets the price of a model of a provider from a moment; false where it is so already.';

create function governance.store_prices(p_prices jsonb, p_currency text, p_now timestamptz) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_item jsonb;
  v_path text;
  v_at int := 0;
  v_count int := 0;
  v_changed jsonb := '{}';
begin
  for v_item in select * from jsonb_array_elements(p_prices) loop
    v_path := format('prices[%s]', v_at); v_at := v_at + 1;
    if exists (select from jsonb_array_elements(p_prices) with ordinality x(price, n)
      where n < v_at and x.price ->> 'model' = v_item ->> 'model'
        and x.price ->> 'provider' = v_item ->> 'provider'
        and x.price -> 'effective_from' is not distinct from v_item -> 'effective_from') then
      perform governance.invalid_preset(v_path, 'this model of this provider has a price from that moment already');
    end if;
    if governance.store_price(v_item, v_path, p_currency, p_now) then v_count := v_count + 1; end if;
  end loop;
  v_changed := v_changed || jsonb_build_object('prices', v_count);
  update governance.prices p set retired_at = p_now
  where p.retired_at is null and not exists (select from jsonb_array_elements(p_prices) x
    where x ->> 'model' = p.model and x ->> 'provider' = p.provider
      and p.effective_from = case
        when x ->> 'effective_from' ~ '^\d{4}-\d{2}-\d{2}$' then (x ->> 'effective_from')::timestamp at time zone 'UTC'
        else coalesce(x ->> 'effective_from', '1970-01-01T00:00:00Z')::timestamptz end);
  get diagnostics v_count = row_count;
  v_changed := v_changed || jsonb_build_object('prices_retired', v_count);
  return v_changed;
end
$$;
comment on function governance.store_prices(jsonb, text, timestamptz) is
  'The prices of a preset; answers how many changed and were retired.';

create function governance.store_estimates(p_estimates jsonb, p_now timestamptz) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_item jsonb;
  v_path text;
  v_at int := 0;
  v_count int := 0;
  v_changed jsonb := '{}';
begin
  for v_item in select * from jsonb_array_elements(p_estimates) loop
    v_path := format('estimates[%s]', v_at); v_at := v_at + 1;
    insert into governance.estimates as e (task_type, tokens)
      values (v_item ->> 'task_type',
      governance.preset_whole(v_item, 'tokens', v_path, 1, 9007199254740991, null, true))
    on conflict (task_type) do update set tokens = excluded.tokens, updated_at = p_now
      where e.tokens <> excluded.tokens;
    if found then v_count := v_count + 1; end if;
  end loop;
  v_changed := v_changed || jsonb_build_object('estimates', v_count);
  delete from governance.estimates e
    where not exists (select from jsonb_array_elements(p_estimates) x where x ->> 'task_type' = e.task_type);
  get diagnostics v_count = row_count;
  v_changed := v_changed || jsonb_build_object('estimates_retired', v_count);
  return v_changed;
end
$$;
comment on function governance.store_estimates(jsonb, timestamptz) is
  'The estimates of a preset; answers how many changed and were retired.';

create function governance.store_alerts(p_alerts jsonb, p_plans jsonb, p_now timestamptz) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_item jsonb;
  v_at int := 0;
  v_count int := 0;
  v_alert governance.cost_alerts;
  v_old_alert governance.cost_alerts;
  v_changed jsonb := '{}';
begin
  for v_item in select * from jsonb_array_elements(p_alerts) loop
    v_alert := governance.check_alert(v_item, format('alerts[%s]', v_at), p_plans);
    v_at := v_at + 1;
    select * into v_old_alert from governance.cost_alerts a where a.alert_name = v_alert.alert_name;
    continue when v_old_alert.retired_at is null
      and row(v_old_alert.metric, v_old_alert.scope, v_old_alert.period, v_old_alert.budget, v_old_alert.thresholds,
        v_old_alert.channels)
        is not distinct from row(v_alert.metric, v_alert.scope, v_alert.period, v_alert.budget, v_alert.thresholds,
          v_alert.channels);
    insert into governance.cost_alerts (alert_name, metric, scope, period, budget, thresholds, channels)
    values (v_alert.alert_name, v_alert.metric, v_alert.scope, v_alert.period, v_alert.budget, v_alert.thresholds,
      v_alert.channels)
    on conflict (alert_name) do update set metric = excluded.metric, scope = excluded.scope, period = excluded.period,
      budget = excluded.budget, thresholds = excluded.thresholds, channels = excluded.channels, is_active = true,
      updated_at = p_now, retired_at = null;
    v_count := v_count + 1;
  end loop;
  v_changed := v_changed || jsonb_build_object('alerts', v_count);
  update governance.cost_alerts a set retired_at = p_now, is_active = false
  where a.retired_at is null
    and not exists (select from jsonb_array_elements(p_alerts) x where x ->> 'alert_name' = a.alert_name);
  get diagnostics v_count = row_count;
  return v_changed || jsonb_build_object('alerts_retired', v_count);
end
$$;
comment on function governance.store_alerts(jsonb, jsonb, timestamptz) is
  'The alerts of a preset; answers how many '
  'changed and were retired.';

create function governance.store_settings(p_settings jsonb, p_now timestamptz) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_item jsonb;
  v_count int := 0;
  v_changed jsonb := '{}';
begin
  for v_item in select jsonb_build_object('key', s.key, 'value', s.value) from jsonb_each(p_settings) s loop
    insert into governance.settings as s (key, value) values (v_item ->> 'key', v_item -> 'value')
    on conflict (key) do update set value = excluded.value, updated_at = p_now where s.value <> excluded.value;
    if found then v_count := v_count + 1; end if;
  end loop;
  v_changed := v_changed || jsonb_build_object('settings', v_count);
  delete from governance.settings s where not p_settings ? s.key;
  get diagnostics v_count = row_count;
  v_changed := v_changed || jsonb_build_object('settings_retired', v_count);
  return v_changed;
end
$$;
comment on function governance.store_settings(jsonb, timestamptz) is
  'The settings of a preset; answers how many changed and were retired.';

create function governance.store_rules(p_rules jsonb, p_name text, p_now timestamptz) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_item jsonb;
  v_count int := 0;
  v_rule jsonb;
  v_old_rule governance.rules;
  v_changed jsonb := '{}';
begin
  for v_item in select * from jsonb_array_elements(p_rules) loop
    v_rule := governance.check_rule(v_item);
    select * into v_old_rule from governance.rules r where r.rule_name = v_rule ->> 'rule_name';
    if v_old_rule.rule_name is null or v_old_rule.retired_at is not null
      or (governance.rule_json(v_old_rule) - array['version', 'updated_at', 'updated_by', 'back_at']) <> v_rule then
      perform governance.store_rule(v_rule, 'preset ' || p_name, p_now);
      v_count := v_count + 1;
    end if;
  end loop;
  v_changed := v_changed || jsonb_build_object('rules', v_count);
  perform governance.store_retirement(r.rule_name, 'preset ' || p_name, p_now)
  from governance.rules r
  where r.retired_at is null
    and not exists (select from jsonb_array_elements(p_rules) x where x ->> 'rule_name' = r.rule_name);
  get diagnostics v_count = row_count;
  v_changed := v_changed || jsonb_build_object('rules_retired', v_count);
  return v_changed;
end
$$;
comment on function governance.store_rules(jsonb, text, timestamptz) is
  'The rules of a preset; answers how many changed and were retired.';

create function governance.store_config(p_name text, p_currency text, p_default_plan text, p_settings jsonb)
  returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_config governance.active_config;
  v_old governance.active_config;
begin
  select * into strict v_old from governance.active_config c;
  update governance.active_config c set
    preset_name = p_name, currency = p_currency, default_plan = p_default_plan,
    hold_minutes = governance.preset_whole(p_settings, 'hold_minutes', 'settings', 1, 10080, 15),
    identical_window_minutes = governance.preset_whole(p_settings, 'identical_window_minutes', 'settings', 1, 10080,
      60),
    reply_tokens = governance.preset_whole(p_settings, 'reply_tokens', 'settings', 0, 1000000000, 500),
    default_estimate = governance.preset_whole(p_settings, 'default_estimate', 'settings', 1, 1000000000, 300),
    settle_ceiling_tokens = governance.preset_whole(p_settings, 'settle_ceiling_tokens', 'settings', 1,
      9007199254740991, 10000000),
    low_balance_tokens = governance.preset_whole(p_settings, 'low_balance_tokens', 'settings', 0, 9007199254740991,
      1000),
    high_usage_tokens = governance.preset_whole(p_settings, 'high_usage_tokens', 'settings', 0, 9007199254740991, 5000),
    alert_balance_below = greatest(governance.preset_whole(p_settings, 'low_balance_tokens', 'settings', 0,
      9007199254740991, 1000), (select max(t) from governance.cost_alerts k, unnest(k.thresholds) t
      where k.metric = 'balance' and k.retired_at is null)),
    alert_operation_above = least(governance.preset_whole(p_settings, 'high_usage_tokens', 'settings', 0,
      9007199254740991, 5000), (select min(t) from governance.cost_alerts k, unnest(k.thresholds) t
      where k.metric = 'operation_tokens' and k.retired_at is null)),
    decision_retention_days = governance.preset_whole(p_settings, 'decision_retention_days', 'settings', 32, 36500, 90),
    signal_interval_ms = governance.preset_whole(p_settings, 'signal_interval_ms', 'settings', 50, 60000, 250),
    updated_at = clock_timestamp()
  returning * into v_config;
  return jsonb_build_object('configuration',
    case when row(v_config.preset_name, v_config.currency, v_config.default_plan)
      is distinct from row(v_old.preset_name, v_old.currency, v_old.default_plan) then 1 else 0 end);
end
$$;
comment on function governance.store_config(text, text, text, jsonb) is
  'Flattens the configuration to what a call needs, after alerts are stored; answers whether its names changed.';

create function public.apply_preset(p_preset jsonb) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_now timestamptz;
  v_name text;
  v_currency text;
  v_settings jsonb;
  v_plans jsonb;
  v_packs jsonb;
  v_rules jsonb;
  v_prices jsonb;
  v_estimates jsonb;
  v_alerts jsonb;
  v_default_plan text;
  v_words jsonb;
  v_changed jsonb := '{}';
begin
  perform governance.refuse_others('apply_preset');
  if p_preset is null or jsonb_typeof(p_preset) <> 'object' then
    perform governance.fail('PT400', 'invalid_argument', 'p_preset is a preset as a JSON object');
  end if;
  v_name := governance.preset_text(p_preset, 'name', 'preset');
  v_currency := lower(governance.preset_text(p_preset, 'currency', 'preset', 'usd', 3));
  if v_currency !~ '^[a-z]{3}$' then perform governance.invalid_preset('currency', 'three letters are needed'); end if;
  v_settings := governance.check_settings(coalesce(nullif(p_preset -> 'settings', 'null'), '{}'));
  v_plans := governance.preset_list(p_preset, 'plans', 'plan_id');
  v_packs := governance.preset_list(p_preset, 'packs', 'pack_id');
  v_rules := governance.preset_list(p_preset, 'rules', 'rule_name');
  v_prices := governance.preset_list(p_preset, 'prices', 'model');
  v_estimates := governance.preset_list(p_preset, 'estimates', 'task_type');
  v_alerts := governance.preset_list(p_preset, 'alerts', 'alert_name');
  if jsonb_array_length(v_plans) = 0 then perform governance.invalid_preset('plans', 'at least one plan is needed');
    end if;
  v_default_plan := governance.preset_text(p_preset, 'default_plan', 'preset', v_plans -> 0 ->> 'plan_id');
  if not exists (select from jsonb_array_elements(v_plans) x where x ->> 'plan_id' = v_default_plan) then
    perform governance.invalid_preset('default_plan', format('there is no plan "%s"', left(v_default_plan, 64)));
  end if;

  perform pg_advisory_xact_lock(7254012);
  v_now := governance.now();

  select jsonb_object_agg(s.key, s.value) into v_words from governance.settings s
  where s.key in ('topics', 'complexity_words');
  v_changed := governance.store_plans(v_plans, v_now);
  v_changed := v_changed || governance.store_packs(v_packs, v_plans, v_currency, v_now);
  v_changed := v_changed || governance.store_prices(v_prices, v_currency, v_now);
  v_changed := v_changed || governance.store_estimates(v_estimates, v_now);
  v_changed := v_changed || governance.store_alerts(v_alerts, v_plans, v_now);
  v_changed := v_changed || governance.store_settings(v_settings, v_now);
  v_changed := v_changed || governance.store_rules(v_rules, v_name, v_now);
  v_changed := v_changed || governance.store_config(v_name, v_currency, v_default_plan, v_settings);
  -- Rules are compiled with the words of topics and complexity in them.
  if v_changed ->> 'rules' <> '0' or v_changed ->> 'rules_retired' <> '0' or v_words is distinct from (
    select jsonb_object_agg(s.key, s.value) from governance.settings s where s.key in ('topics', 'complexity_words'))
    then
    perform governance.compile_rules();
  end if;
  if exists (select from jsonb_each(v_changed) x where x.value <> '0') then
    insert into governance.audit_log (created_at, action, details)
      values (v_now, 'apply_preset', jsonb_build_object('preset', p_preset, 'changed', v_changed));
    perform governance.ring('rules', v_now);
  end if;
  return jsonb_build_object('name', v_name, 'changed', v_changed, 'rule_set_id',
    (select c.rule_set_id from governance.active_config c));
end
$$;
comment on function public.apply_preset(jsonb) is
  'Makes a preset the whole configuration: adds and changes what it names, retires what it does not. Answers how many '
  'of each were changed; a second time nothing is. Errors: invalid_argument, invalid_preset, invalid_rule (path in '
  'details).';
revoke all on function public.apply_preset(jsonb) from public, anon, authenticated;
grant execute on function public.apply_preset(jsonb) to service_role;

-- schemas/15_rule_desk.sql
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
comment on function governance.version_json(governance.rule_versions) is 'A version of a rule as functions answer it.';

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
comment on function governance.rules_as_of(bigint) is 'The rule set as it stood right after a change.';

create function public.console_rules_as_of(p_version_id bigint) returns jsonb
  language sql stable security definer set search_path = '' as $$
  select governance.refuse_others('console_rules_as_of');
  select coalesce(jsonb_agg(v.rule || jsonb_build_object('version', v.version)
    order by (v.rule ->> 'priority')::int, v.rule_name collate "C"), '[]')
  from governance.rules_as_of(p_version_id) v
$$;
comment on function public.console_rules_as_of(bigint) is 'The rules as they stood right after a change, in order.';
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

-- schemas/16_price_desk.sql
-- Prices on the screen: what is set, which models have none, and single prices taken over.

create function public.console_prices() returns jsonb
  language sql stable security definer set search_path = '' as $$
  select governance.refuse_others('console_prices');
  select jsonb_build_object(
    'currency', (select c.currency from governance.active_config c),
    'prices', (select coalesce(jsonb_agg(jsonb_build_object('provider', p.provider, 'model', p.model,
      'input_micros_per_million', p.input_micros_per_million, 'output_micros_per_million', p.output_micros_per_million,
      'cached_input_micros_per_million', p.cached_input_micros_per_million,
      'cache_write_micros_per_million', p.cache_write_micros_per_million,
      'cache_write_1h_micros_per_million', p.cache_write_1h_micros_per_million,
      'reasoning_micros_per_million', p.reasoning_micros_per_million, 'currency', p.currency,
      'effective_from', p.effective_from) order by p.provider collate "C", p.model collate "C", p.effective_from), '[]')
      from governance.prices p where p.retired_at is null),
    -- Models that calls used while they had no price, and have none now.
    'unpriced', (select coalesce(jsonb_agg(jsonb_build_object('model', u.model, 'first_seen_at', u.first_seen_at,
      'calls', coalesce((select sum(t.calls) from governance.usage_totals t
        where t.model = u.model and t.day >= (u.first_seen_at at time zone 'UTC')::date - 1), 0))
      order by u.model collate "C"), '[]')
      from (select e.subject as model, min(e.created_at) as first_seen_at from governance.alert_events e
        where e.kind = 'unknown_price' and e.created_at > governance.now() - interval '62 days'
        group by e.subject) u
      where governance.provider_of(u.model, governance.now()) is null))
$$;
comment on function public.console_prices() is
  'Prices that are not retired, past and to come too, and models that calls used without one (calls: of closed days).';
revoke all on function public.console_prices() from public, anon, authenticated;
grant execute on function public.console_prices() to service_role;

create function public.console_save_prices(p_command_id text, p_prices jsonb, p_reason text,
  p_operator text default null) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_answer jsonb;
  v_now timestamptz;
  v_currency text;
  v_changed jsonb := '[]';
  v_item jsonb;
  v_place bigint;
begin
  perform governance.refuse_others('console_save_prices');
  perform governance.check_id('p_command_id', p_command_id);
  perform governance.check_id('p_reason', p_reason, 1000);
  perform governance.check_optional('p_operator', p_operator, 255);
  if jsonb_typeof(p_prices) is distinct from 'array' or jsonb_array_length(p_prices) not between 1 and 500 then
    perform governance.fail('PT400', 'invalid_argument', 'p_prices is a list of 1 to 500 prices');
  end if;
  perform pg_advisory_xact_lock(7254012);
  v_answer := governance.begin_command('operator', p_command_id,
    row('console_save_prices', p_prices, p_reason, p_operator)::text);
  if v_answer is not null then return v_answer; end if;
  v_now := governance.now();
  select c.currency into v_currency from governance.active_config c;
  for v_item, v_place in select * from jsonb_array_elements(p_prices) with ordinality loop
    if jsonb_typeof(v_item) <> 'object' then
      perform governance.invalid_preset(format('prices[%s]', v_place - 1), 'an object is needed');
    end if;
    if governance.store_price(v_item, format('prices[%s]', v_place - 1), v_currency, v_now) then
      v_changed := v_changed || jsonb_build_array(v_item ->> 'model');
    end if;
  end loop;
  if v_changed <> '[]' then
    insert into governance.audit_log (created_at, operator, action, reason, command_id, details)
    values (v_now, p_operator, 'save_prices', p_reason, p_command_id, jsonb_build_object('prices', p_prices));
    perform governance.ring('rules', v_now);
  end if;
  return governance.end_command('operator', p_command_id, jsonb_build_object('changed', v_changed));
end
$$;
comment on function public.console_save_prices(text, jsonb, text, text) is
  'Sets prices by provider, model and effective_from; others stay. Calls that were settled keep their cost. Errors: '
  'invalid_argument, invalid_preset (path in details), idempotency_conflict.';
revoke all on function public.console_save_prices(text, jsonb, text, text) from public, anon, authenticated;
grant execute on function public.console_save_prices(text, jsonb, text, text) to service_role;

-- schemas/17_preset_desk.sql
-- The configuration in force, as the preset that it is.

create function public.console_preset() returns jsonb
  language sql stable security definer set search_path = '' as $$
  select governance.refuse_others('console_preset');
  select jsonb_build_object('name', c.preset_name, 'currency', c.currency, 'default_plan', c.default_plan,
    'settings', (select coalesce(jsonb_object_agg(s.key, s.value), '{}') from governance.settings s),
    'plans', (select coalesce(jsonb_agg(jsonb_build_object('plan_id', p.plan_id, 'name', p.name,
      'monthly_allowance', p.monthly_allowance, 'daily_limit', p.daily_limit, 'monthly_limit', p.monthly_limit,
      'allows_top_up', p.allows_top_up, 'warn_at', to_jsonb(p.warn_at), 'fail_mode', p.fail_mode,
      'on_cancel', p.on_cancel, 'rollover_months', p.rollover_months, 'upgrade_to', p.upgrade_to)
      order by p.monthly_allowance, p.plan_id collate "C"), '[]') from governance.plans p where p.retired_at is null),
    'packs', (select coalesce(jsonb_agg(jsonb_build_object('pack_id', k.pack_id, 'tokens', k.tokens,
      'price_minor', k.price_minor, 'currency', k.currency, 'plans', coalesce(to_jsonb(k.plans), '[]'))
      order by k.tokens, k.pack_id collate "C"), '[]') from governance.packs k where k.retired_at is null),
    'rules', (select coalesce(jsonb_agg(v.rule order by r.priority, r.rule_name collate "C"), '[]')
      from governance.rules r join governance.rule_versions v using (version_id) where r.retired_at is null),
    'prices', (select coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object('provider', x.provider, 'model', x.model,
      'input_micros_per_million', x.input_micros_per_million,
      'output_micros_per_million', x.output_micros_per_million,
      'cached_input_micros_per_million', x.cached_input_micros_per_million,
      'cache_write_micros_per_million', x.cache_write_micros_per_million,
      'cache_write_1h_micros_per_million', x.cache_write_1h_micros_per_million,
      'reasoning_micros_per_million', x.reasoning_micros_per_million, 'currency', x.currency,
      'effective_from', x.effective_from))
      order by x.provider collate "C", x.model collate "C", x.effective_from), '[]')
      from governance.prices x where x.retired_at is null),
    'estimates', (select coalesce(jsonb_agg(jsonb_build_object('task_type', e.task_type, 'tokens', e.tokens)
      order by e.task_type collate "C"), '[]') from governance.estimates e),
    'alerts', (select coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object('alert_name', a.alert_name,
      'metric', a.metric, 'scope', a.scope, 'period', a.period, 'budget', a.budget,
      'thresholds', to_jsonb(a.thresholds), 'channels', to_jsonb(a.channels))) order by a.alert_name collate "C"), '[]')
      from governance.cost_alerts a where a.retired_at is null))
  from governance.active_config c
$$;
comment on function public.console_preset() is 'The configuration in force as a preset: applied, it changes nothing.';
revoke all on function public.console_preset() from public, anon, authenticated;
grant execute on function public.console_preset() to service_role;

-- schemas/20_accounts.sql
-- Accounts: who they are, their lock, and what they read about themselves.

-- The columns that calls change stand last, and no index covers any of them: updates stay on their page (HOT).
create table governance.accounts (
  account_id bigint generated always as identity primary key,
  user_id text not null unique,
  plan_id text not null references governance.plans (plan_id),
  timezone text not null default 'UTC',
  email text,
  display_name text,
  metadata jsonb not null default '{}',
  created_at timestamptz not null default now(),
  -- What operators did.
  version int not null default 1,
  flagged_at timestamptz,
  flag_reason text,
  flagged_by text,
  blocked_at timestamptz,
  -- Null while blocked: until someone unblocks.
  blocked_until timestamptz,
  block_reason text,
  blocked_by text,
  -- A rule's block, until it ends.
  rule_blocked_until timestamptz,
  rule_block_reason text,
  rule_block_message text,
  rule_block_version_id bigint,
  -- Limits that an operator raised until a moment; after it they count for nothing. Null: as the plan has it.
  raised_daily_limit bigint,
  raised_monthly_limit bigint,
  raised_until timestamptz,
  -- The plan that it moves to when its next month begins.
  next_plan_id text,
  -- Unblocking forgives: messages before this moment no longer count as identical or rapid.
  forgiven_at timestamptz,
  -- The day that a settlement is stamped with, and its month (CONVENTIONS, Time): they never go back.
  local_day date not null,
  day_ends_at timestamptz not null,
  local_month date not null,
  month_ends_at timestamptz not null,
  -- Allowance given for local_month: a plan change gives only what is above it.
  month_allowance bigint not null default 0,
  -- Head of the ledger's chain.
  last_transaction_id bigint,
  last_hash bytea,
  -- Earliest moment at which a lot of this account expires; null for none.
  lots_check_at timestamptz,
  -- Created and expiring moments of the oldest hold that may still be open; null for none.
  holds_from timestamptz,
  holds_check_at timestamptz,
  last_message_at timestamptz,
  last_activity_at timestamptz,
  rapid_messages int not null default 0,
  day_messages int not null default 0,
  month_messages int not null default 0,
  day_calls int not null default 0,
  month_calls int not null default 0,
  day_tokens bigint not null default 0,
  month_tokens bigint not null default 0,
  day_cost_micros bigint not null default 0,
  month_cost_micros bigint not null default 0,
  -- Live tokens by kind: the sums of the lots' remaining.
  subscription_tokens bigint not null default 0,
  purchased_tokens bigint not null default 0,
  promotional_tokens bigint not null default 0,
  reserved_tokens bigint not null default 0,
  debt_tokens bigint not null default 0
) with (fillfactor = 50);

create index accounts_flagged on governance.accounts (flagged_at desc) where flagged_at is not null;

create index accounts_blocked on governance.accounts (blocked_at desc) where blocked_at is not null;

comment on table governance.accounts is 'One row a user: who they are, what operators decided, and the counters that a '
  'call checks.';

-- Shapes of the answers: a typed row becomes jsonb at half the cost of jsonb_build_object, which looks up the type of
-- each key and value again in each call.

create type governance.balance as (available bigint, reserved bigint, subscription bigint, purchased bigint,
  promotional bigint, debt bigint, total bigint);

create type governance.limit_state as ("limit" bigint, used bigint, remaining bigint, resets_at timestamptz);

create type governance.limits as (daily governance.limit_state, monthly governance.limit_state);

create function governance.balance_json(p_subscription bigint, p_purchased bigint, p_promotional bigint,
  p_reserved bigint, p_debt bigint) returns jsonb
  language sql stable set search_path = '' as $$
  select jsonb_build_object('available', p_subscription + p_purchased + p_promotional - p_reserved, 'reserved',
    p_reserved,
    'subscription', p_subscription, 'purchased', p_purchased, 'promotional', p_promotional, 'debt', p_debt,
    'total', p_subscription + p_purchased + p_promotional)
$$;
comment on function governance.balance_json(bigint, bigint, bigint, bigint,
  bigint) is 'The balance of CONTRACT, in tokens.';

create function governance.limits_json(p_daily_limit bigint, p_day_used bigint, p_day_ends_at timestamptz,
  p_monthly_limit bigint, p_month_used bigint, p_month_ends_at timestamptz) returns jsonb
  language sql stable set search_path = '' as $$
  select jsonb_build_object(
    'daily', jsonb_build_object('limit', p_daily_limit, 'used', p_day_used, 'remaining', case
      when p_daily_limit is not null then greatest(p_daily_limit - p_day_used, 0) end, 'resets_at', p_day_ends_at),
    'monthly', jsonb_build_object('limit', p_monthly_limit, 'used', p_month_used, 'remaining', case
      when p_monthly_limit is not null then greatest(p_monthly_limit - p_month_used, 0) end, 'resets_at',
      p_month_ends_at))
$$;
comment on function governance.limits_json(bigint, bigint, timestamptz, bigint, bigint,
  timestamptz) is 'The limits of CONTRACT, in tokens; null for none.';

create function governance.raised_limit(p_limit bigint, p_raised bigint, p_until timestamptz, p_now timestamptz)
  returns bigint
  language sql immutable set search_path = '' as $$
  select case when p_until > p_now and p_raised > p_limit then p_raised else p_limit end
$$;
comment on function governance.raised_limit(bigint, bigint, timestamptz, timestamptz) is
  'A plan''s limit, or what it was raised to until a moment that has not come; null where the plan has none.';

create function governance.blocked_until(a governance.accounts) returns timestamptz
  language sql stable set search_path = '' as $$
  select greatest(case when a.blocked_at is not null then coalesce(a.blocked_until, 'infinity') end,
    a.rule_blocked_until)
$$;
comment on function governance.blocked_until(governance.accounts) is
  'Until when calls of an account are stopped, by an operator or by a rule: infinity until somebody unblocks, null '
  'where nothing ever blocked it. An account is blocked while this is after now.';

create function governance.block_json(a governance.accounts, p_now timestamptz) returns jsonb
  language plpgsql stable set search_path = '' as $$
declare
  v_until timestamptz := governance.blocked_until(a);
  v_by_operator boolean := a.blocked_at is not null and coalesce(a.blocked_until > p_now, true);
  v_by_rule boolean := coalesce(a.rule_blocked_until > p_now, false);
  v_rule_name text;
begin
  if v_by_rule then
    select v.rule_name into v_rule_name from governance.rule_versions v where v.version_id = a.rule_block_version_id;
  end if;
  return jsonb_build_object(
    'is_blocked', v_by_operator or v_by_rule,
    'block_source', case when v_by_operator then 'operator' when v_by_rule then 'rule' end,
    'block_reason', case when v_by_operator then a.block_reason when v_by_rule then a.rule_block_reason end,
    'blocked_at', case when v_by_operator then a.blocked_at end,
    'blocked_until', case when (v_by_operator or v_by_rule) and isfinite(v_until) then v_until end,
    'blocked_by', case when v_by_operator then a.blocked_by end,
    'block_rule', v_rule_name,
    'rule_blocked_until', case when v_by_rule then a.rule_blocked_until end,
    'rule_block_reason', case when v_by_rule then a.rule_block_reason end);
end
$$;
comment on function governance.block_json(governance.accounts, timestamptz) is
  'What stops an account''s calls now, the same in every answer: is_blocked; block_source operator or rule (operator '
  'where both do); blocked_until, when the last of both ends (null: when somebody unblocks); the reason and who. A '
  'rule''s block beside an operator''s is in block_rule, rule_blocked_until and rule_block_reason.';

create function governance.account_json(a governance.accounts) returns jsonb
  language sql stable set search_path = '' as $$
  select jsonb_build_object(
    'user_id', a.user_id, 'plan_id', a.plan_id, 'plan_name', p.name, 'email', a.email, 'display_name', a.display_name,
    'timezone', a.timezone, 'metadata', a.metadata, 'created_at', a.created_at, 'version', a.version,
    'is_flagged', a.flagged_at is not null, 'flag_reason', a.flag_reason, 'flagged_at', a.flagged_at, 'flagged_by',
      a.flagged_by,
    'last_activity', a.last_activity_at, 'fail_mode', p.fail_mode, 'allows_top_up', p.allows_top_up,
    'balance', governance.balance_json(a.subscription_tokens, a.purchased_tokens, a.promotional_tokens,
      a.reserved_tokens, a.debt_tokens),
    'limits', governance.limits_json(
      governance.raised_limit(p.daily_limit, a.raised_daily_limit, a.raised_until, t.now),
      a.day_tokens + a.reserved_tokens, a.day_ends_at,
      governance.raised_limit(p.monthly_limit, a.raised_monthly_limit, a.raised_until, t.now),
      a.month_tokens + a.reserved_tokens, a.month_ends_at),
    'raised', case when a.raised_until > t.now then jsonb_build_object('daily_limit', a.raised_daily_limit,
      'monthly_limit', a.raised_monthly_limit, 'until', a.raised_until) end,
    'next_plan', (select jsonb_build_object('plan_id', n.plan_id, 'name', n.name, 'at', a.month_ends_at)
      from governance.plans n where n.plan_id = a.next_plan_id))
    || governance.block_json(a, t.now)
  from governance.plans p, (select governance.now() as now) t where p.plan_id = a.plan_id
$$;
comment on function governance.account_json(governance.accounts) is 'The account as functions answer it.';

create function governance.lock_key(p_user_id text) returns bigint
  language sql immutable set search_path = '' as $$
  select hashtextextended(p_user_id, 7254)
$$;
comment on function governance.lock_key(text) is 'The advisory lock of an account, taken before its row: waiting there '
  'is much cheaper than on the row.';

create function governance.create_account(p_user_id text, p_now timestamptz, p_plan_id text default null,
  p_timezone text default 'UTC') returns governance.accounts
  language plpgsql set search_path = '' as $$
declare
  v_plan governance.plans;
  v_account governance.accounts;
  v_day date := (p_now at time zone p_timezone)::date;
  v_month date := date_trunc('month', p_now at time zone p_timezone)::date;
begin
  select p.* into v_plan from governance.plans p
  where p.plan_id = coalesce(p_plan_id, (select c.default_plan from governance.active_config c))
    and p.retired_at is null;
  if not found then
    perform governance.fail('PT409', 'not_configured', 'There is no default plan yet: apply a preset first');
  end if;
  insert into governance.accounts (user_id, plan_id, timezone, created_at, local_day, day_ends_at, local_month,
    month_ends_at, month_allowance)
  values (p_user_id, v_plan.plan_id, p_timezone, p_now, v_day, (v_day + 1)::timestamp at time zone p_timezone,
    v_month, (v_month + interval '1 month')::timestamp at time zone p_timezone, v_plan.monthly_allowance)
  on conflict (user_id) do nothing
  returning * into v_account;
  if v_account.account_id is not null and v_plan.monthly_allowance > 0 then
    perform governance.grant_allowance(v_account, v_month, v_plan.monthly_allowance, p_now, v_plan.rollover_months);
  end if;
  select * into strict v_account from governance.accounts a where a.user_id = p_user_id for update;
  return v_account;
end
$$;
comment on function governance.create_account(text, timestamptz, text,
  text) is 'Makes an account with its first allowance. The caller holds the account''s lock.';

create function governance.lock_account(p_user_id text, p_create boolean default false) returns governance.accounts
  language plpgsql set search_path = '' as $$
declare
  v_account governance.accounts;
  v_now timestamptz;
begin
  perform pg_advisory_xact_lock(governance.lock_key(p_user_id));
  select * into v_account from governance.accounts a where a.user_id = p_user_id for update;
  v_now := governance.now();
  if v_account.account_id is null then
    if not p_create then
      perform governance.fail('PT404', 'unknown_user', format('There is no account of user "%s"', left(p_user_id, 64)));
    end if;
    return governance.create_account(p_user_id, v_now);
  end if;
  if governance.needs_roll(v_account, v_now) then
    perform governance.roll_account(v_account.account_id, v_now);
    select * into strict v_account from governance.accounts a where a.user_id = p_user_id;
  end if;
  return v_account;
end
$$;
comment on function governance.lock_account(text, boolean) is
  'Locks an account until the transaction ends, brings it up to the moment and answers it; unknown_user unless it may '
  'be made.';

create function governance.lock_account_id(p_account_id bigint) returns governance.accounts
  language plpgsql set search_path = '' as $$
declare
  v_user_id text;
begin
  select a.user_id into strict v_user_id from governance.accounts a where a.account_id = p_account_id;
  return governance.lock_account(v_user_id);
end
$$;
comment on function governance.lock_account_id(bigint) is 'governance.lock_account by account_id.';

create function public.upsert_account(
  p_user_id text, p_plan_id text default null, p_email text default null, p_display_name text default null,
  p_timezone text default null, p_metadata jsonb default null
) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_timezone text;
  v_account governance.accounts;
  v_plan governance.plans;
  v_now timestamptz;
  v_more bigint;
begin
  perform governance.refuse_others('upsert_account');
  perform governance.check_id('p_user_id', p_user_id);
  perform governance.check_optional('p_email', p_email, 320);
  perform governance.check_optional('p_display_name', p_display_name, 10000);
  perform governance.check_metadata('p_metadata', p_metadata);
  if p_timezone is not null then
    v_timezone := governance.check_timezone(p_timezone);
  end if;
  if p_plan_id is not null then
    select * into v_plan from governance.plans p where p.plan_id = p_plan_id and p.retired_at is null;
    if not found then
      perform governance.fail('PT404', 'unknown_plan', format('There is no plan "%s"', left(p_plan_id, 64)));
    end if;
  end if;

  perform pg_advisory_xact_lock(governance.lock_key(p_user_id));
  v_now := governance.now();
  if not exists (select from governance.accounts a where a.user_id = p_user_id) then
    v_account := governance.create_account(p_user_id, v_now, p_plan_id, coalesce(v_timezone, 'UTC'));
  else
    v_account := governance.lock_account(p_user_id);
    if v_timezone is not null and v_timezone <> v_account.timezone then
      update governance.accounts a set version = a.version + 1 where a.account_id = v_account.account_id;
      perform governance.turn_day(v_account, v_timezone, v_now);
      v_account := governance.lock_account(p_user_id);
    end if;
    if p_plan_id is not null and p_plan_id <> v_account.plan_id then
      v_more := v_plan.monthly_allowance - v_account.month_allowance;
      update governance.accounts a set
        plan_id = p_plan_id, version = a.version + 1, next_plan_id = null,
          month_allowance = greatest(a.month_allowance, v_plan.monthly_allowance)
      where a.account_id = v_account.account_id;
      -- A better plan gives the difference now, and the month's allowance never twice.
      if v_more > 0 then
        perform governance.grant_allowance(v_account, v_account.local_month, v_more, v_now, v_plan.rollover_months);
      end if;
    end if;
  end if;
  update governance.accounts a set
    email = coalesce(p_email, a.email), display_name = coalesce(p_display_name, a.display_name),
      metadata = coalesce(p_metadata, a.metadata)
  where a.account_id = v_account.account_id
  returning * into v_account;
  perform governance.ring('accounts', v_now);
  return governance.account_json(v_account);
end
$$;
comment on function public.upsert_account(text, text, text, text, text, jsonb) is
  'Makes an account or changes what is given; null leaves a thing as it is. A better plan gives the difference of '
  'allowance at once. Answers the account. Errors: invalid_argument, unknown_plan, not_configured.';
revoke all on function public.upsert_account(text, text, text, text, text, jsonb) from public, anon, authenticated;
grant execute on function public.upsert_account(text, text, text, text, text, jsonb) to service_role;

create function governance.current_account(p_user_id text, p_create boolean default false) returns governance.accounts
  language plpgsql set search_path = '' as $$
declare
  v_account governance.accounts;
begin
  select * into v_account from governance.accounts a where a.user_id = p_user_id;
  if v_account.account_id is null and not p_create then
    perform governance.fail('PT404', 'unknown_user', format('There is no account of user "%s"', left(p_user_id, 64)));
  end if;
  -- A read does not wait for calls: the account is locked and brought up to date only if something is due.
  if v_account.account_id is null
    or (governance.needs_roll(v_account, governance.now()) and current_setting('transaction_read_only') = 'off') then
    v_account := governance.lock_account(p_user_id, p_create);
  end if;
  return v_account;
end
$$;
comment on function governance.current_account(text,
  boolean) is 'An account as it is at this moment, read without waiting where that is possible; unknown_user unless it '
    'may be made.';

create function public.get_or_create_token_record(p_user_id text) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_account governance.accounts;
  v_limit bigint;
begin
  perform governance.refuse_others('get_or_create_token_record');
  perform governance.check_id('p_user_id', p_user_id);
  v_account := governance.current_account(p_user_id, true);
  select governance.raised_limit(p.daily_limit, v_account.raised_daily_limit, v_account.raised_until, governance.now())
    into v_limit from governance.plans p where p.plan_id = v_account.plan_id;
  return jsonb_build_object(
    'tokens_used', v_account.day_tokens + v_account.reserved_tokens,
    'tokens_limit', v_limit,
    'tokens_remaining', case
      when v_limit is not null then greatest(v_limit - v_account.day_tokens - v_account.reserved_tokens, 0) end,
    'resets_at', v_account.day_ends_at,
    'user_id', v_account.user_id, 'plan_id', v_account.plan_id, 'date', v_account.local_day, 'timezone',
      v_account.timezone,
    'messages_sent', v_account.day_messages, 'cost_micros', v_account.day_cost_micros,
    'available', v_account.subscription_tokens + v_account.purchased_tokens + v_account.promotional_tokens -
      v_account.reserved_tokens);
end
$$;
comment on function public.get_or_create_token_record(text) is
  'The user''s day: tokens used (held ones included), limit and remaining (null without a limit), when it starts anew. '
    'A new user gets an account. Errors: invalid_argument, not_configured.';
revoke all on function public.get_or_create_token_record(text) from public, anon, authenticated;
grant execute on function public.get_or_create_token_record(text) to service_role;

create function governance.my_account() returns governance.accounts
  language plpgsql set search_path = '' as $$
declare
  v_claims jsonb;
  v_user_id text;
begin
  begin
    v_claims := nullif(current_setting('request.jwt.claims', true), '')::jsonb;
    v_user_id := case when jsonb_typeof(v_claims -> 'sub') = 'string' then v_claims ->> 'sub' end;
  exception when data_exception then
    v_user_id := null;
  end;
  if v_user_id is null or btrim(v_user_id) = '' or char_length(v_user_id) > 255 then
    perform governance.fail('PT401', 'not_signed_in', 'Sign in first: the token names no user');
  end if;
  return governance.current_account(v_user_id, true);
end
$$;
comment on function governance.my_account() is 'The account of whom the request''s token names (sub). One who is new '
  'gets an account, as at a first call.';

create function public.my_token_balance() returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_account governance.accounts := governance.my_account();
  v_plan governance.plans;
  v_percent int;
  v_reached int;
  v_available bigint;
begin
  select * into strict v_plan from governance.plans p where p.plan_id = v_account.plan_id;
  v_available := v_account.subscription_tokens + v_account.purchased_tokens + v_account.promotional_tokens -
    v_account.reserved_tokens;
  v_plan.daily_limit := governance.raised_limit(v_plan.daily_limit, v_account.raised_daily_limit,
    v_account.raised_until, governance.now());
  v_plan.monthly_limit := governance.raised_limit(v_plan.monthly_limit, v_account.raised_monthly_limit,
    v_account.raised_until, governance.now());
  v_percent := governance.percent_used(v_account.day_tokens + v_account.reserved_tokens,
    v_account.month_tokens + v_account.reserved_tokens,
    v_plan.daily_limit, v_plan.monthly_limit, v_plan.monthly_allowance);
  select max(w) into v_reached from unnest(v_plan.warn_at) w where w <= v_percent;
  return jsonb_build_object(
    'tokens', v_available,
    'plan', v_account.plan_id,
    'plan_name', v_plan.name,
    'balance', governance.account_json(v_account) -> 'balance',
    'limits', governance.account_json(v_account) -> 'limits',
    'usage_percent', v_percent,
    'warning', case
      when v_available < (select c.low_balance_tokens from governance.active_config c) then
        jsonb_build_object('type', 'low_balance', 'message', format('You have %s tokens left.', v_available))
      when v_reached is not null then
        jsonb_build_object('type', 'usage', 'percent', v_reached, 'message',
          format('You have used %s%% of your tokens.', v_reached)) end,
    'packs', case when v_plan.allows_top_up then (
      select coalesce(jsonb_agg(jsonb_build_object('pack_id', k.pack_id, 'tokens', k.tokens, 'price_minor',
        k.price_minor, 'currency', k.currency) order by k.tokens, k.pack_id), '[]')
      from governance.packs k where k.retired_at is null and (k.plans is null or v_account.plan_id = any (k.plans)))
        else '[]' end,
    'upgrade', (select jsonb_build_object('plan_id', u.plan_id, 'name', u.name) from governance.plans u
      where u.plan_id = v_plan.upgrade_to and u.retired_at is null),
    'is_blocked', governance.account_json(v_account) -> 'is_blocked');
end
$$;
comment on function public.my_token_balance() is
  'The signed-in user''s tokens, plan, limits, a warning where there is one, and the packs they may buy. Errors: '
    'not_signed_in, not_configured.';
revoke all on function public.my_token_balance() from public, anon, authenticated;
grant execute on function public.my_token_balance() to authenticated;

create function governance.is_never_negative(a governance.accounts) returns boolean
  language plpgsql immutable set search_path = '' as $$
begin
  return least(a.subscription_tokens, a.purchased_tokens, a.promotional_tokens, a.reserved_tokens, a.debt_tokens,
    a.day_tokens, a.month_tokens,
    a.subscription_tokens + a.purchased_tokens + a.promotional_tokens - a.reserved_tokens) >= 0;
end
$$;
comment on function governance.is_never_negative(governance.accounts) is 'The check of accounts: no counter below '
  'zero, nothing reserved that is not there.';

create function governance.refuse_orphans() returns trigger
  language plpgsql set search_path = '' as $$
begin
  if exists (select from governance.lots l where l.account_id = old.account_id) then
    raise exception using errcode = 'foreign_key_violation',
      message = format('Account %s has lots: it is never deleted', old.account_id);
  end if;
  return old;
end
$$;
comment on function governance.refuse_orphans() is 'Keeps the account of every lot, for its owner too.';

alter table governance.accounts add constraint accounts_never_negative check (governance.is_never_negative(accounts));

create trigger accounts_keep_lots before delete
  on governance.accounts for each row execute function governance.refuse_orphans();

-- schemas/21_acts.sql
-- What operators do to accounts, and the audit log.

create table governance.commands (
  kind text not null,
  command_id text not null check (command_id <> '' and length(command_id) <= 255),
  fingerprint bytea not null,
  answer jsonb,
  created_at timestamptz not null default now(),
  primary key (kind, command_id)
);

create index commands_time on governance.commands (created_at);

comment on table governance.commands is 'Keys of commands already done, with their answers: a repeat answers again and '
  'does nothing. Kept at least 30 days.';

create table governance.audit_log (
  audit_id bigint generated always as identity primary key,
  created_at timestamptz not null,
  operator text,
  action text not null,
  account_id bigint,
  rule_name text,
  reason text,
  command_id text,
  details jsonb not null default '{}'
);

create index audit_log_account on governance.audit_log (account_id, audit_id desc) where account_id is not null;

create index audit_log_operator on governance.audit_log (operator, audit_id desc) where operator is not null;

create index audit_log_time on governance.audit_log (created_at desc);

comment on table governance.audit_log is 'What operators and rules did to accounts and configuration; append-only.';

create function governance.begin_command(p_kind text, p_command_id text, p_parameters text) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_fingerprint bytea := sha256(convert_to(p_parameters, 'UTF8'));
  v_command governance.commands;
begin
  insert into governance.commands (kind, command_id, fingerprint) values (p_kind, p_command_id, v_fingerprint)
  on conflict do nothing;
  if found then return null; end if;
  select * into strict v_command from governance.commands c where c.kind = p_kind and c.command_id = p_command_id;
  if v_command.fingerprint <> v_fingerprint then
    perform governance.fail('PT409', 'idempotency_conflict',
      format('"%s" was used before with other parameters', left(p_command_id, 64)));
  end if;
  return v_command.answer;
end
$$;
comment on function governance.begin_command(text, text, text) is
  'Claims a command id: null means do it now and call governance.end_command; otherwise the answer given before. A '
  'concurrent twin waits.';

create function governance.end_command(p_kind text, p_command_id text, p_answer jsonb) returns jsonb
  language sql set search_path = '' as $$
  update governance.commands set answer = p_answer where kind = p_kind and command_id = p_command_id returning answer
$$;
comment on function governance.end_command(text, text, jsonb) is 'Keeps the answer of a command for its repeats.';

create function governance.check_operator_command(p_command_id text, p_user_id text, p_reason text,
  p_operator text) returns void
  language plpgsql immutable set search_path = '' as $$
begin
  perform governance.check_id('p_command_id', p_command_id);
  perform governance.check_id('p_user_id', p_user_id);
  perform governance.check_id('p_reason', p_reason, 1000);
  perform governance.check_optional('p_operator', p_operator, 255);
end
$$;
comment on function governance.check_operator_command(text, text, text,
  text) is 'Refuses an operator''s command without an id, a user or a reason.';

create function governance.begin_act(p_action text, p_command_id text, p_user_id text, p_reason text,
  p_operator text, p_expected_version int, p_parameters text default null) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_account governance.accounts;
  v_answer jsonb;
begin
  perform governance.check_operator_command(p_command_id, p_user_id, p_reason, p_operator);
  v_account := governance.lock_account(p_user_id);
  v_answer := governance.begin_command('operator', p_command_id,
    row(p_action, p_user_id, p_reason, p_operator, p_expected_version, p_parameters)::text);
  if v_answer is null and p_expected_version <> v_account.version then
    perform governance.fail('PT409', 'version_conflict',
      format('The account was changed in the meantime: it is version %s now, not %s', v_account.version,
      p_expected_version), governance.account_json(v_account)::text);
  end if;
  return v_answer;
end
$$;
comment on function governance.begin_act(text, text, text, text, text, int, text) is
  'Begins an operator''s act on an account: checks, locks the account, claims the command id. Null: do it now and call '
  'governance.end_act; otherwise the answer given before. An account of another version than the expected one (null '
  'for any) is a version_conflict with the account in its details.';

create function governance.end_act(p_action text, p_command_id text, p_user_id text, p_reason text, p_operator text,
  p_details jsonb default '{}', p_act jsonb default null) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_account governance.accounts;
  v_now timestamptz := governance.now();
begin
  update governance.accounts a set version = a.version + 1 where a.user_id = p_user_id returning * into v_account;
  insert into governance.audit_log (created_at, operator, action, account_id, reason, command_id, details)
  values (v_now, p_operator, p_action, v_account.account_id, p_reason, p_command_id, p_details);
  perform governance.ring('accounts', v_now);
  return governance.end_command('operator', p_command_id, case when p_act is null
    then governance.account_json(v_account)
    else jsonb_build_object('act', p_act, 'account', governance.account_json(v_account)) end);
end
$$;
comment on function governance.end_act(text, text, text, text, text, jsonb, jsonb) is
  'Ends an operator''s act on an account: its version rises, the audit has it, and its answer is kept: the account, '
  'with p_act beside it where there is one.';

create function governance.change_standing(a governance.accounts, p_act jsonb, p_reason text, p_operator text,
  p_now timestamptz) returns jsonb
  language plpgsql set search_path = '' as $$
begin
  case p_act ->> 'kind'
  when 'flag_user' then
    update governance.accounts y set flagged_at = p_now, flag_reason = p_reason, flagged_by = p_operator
    where y.account_id = a.account_id;
  when 'unflag_user' then
    update governance.accounts y set flagged_at = null, flag_reason = null, flagged_by = null
    where y.account_id = a.account_id;
  when 'block_user' then
    update governance.accounts y set blocked_at = p_now, blocked_until = (p_act ->> 'until')::timestamptz,
      block_reason = p_reason, blocked_by = p_operator
    where y.account_id = a.account_id;
  when 'unblock_user' then
    update governance.accounts y set
      blocked_at = null, blocked_until = null, block_reason = null, blocked_by = null,
      rule_blocked_until = null, rule_block_reason = null, rule_block_message = null, rule_block_version_id = null,
      forgiven_at = p_now, rapid_messages = 0
    where y.account_id = a.account_id;
  end case;
  return jsonb_build_object('at', p_now, 'standing', jsonb_build_object('flagged_at', a.flagged_at, 'flag_reason',
    a.flag_reason, 'flagged_by', a.flagged_by, 'blocked_at', a.blocked_at, 'blocked_until', a.blocked_until,
    'block_reason', a.block_reason, 'blocked_by', a.blocked_by, 'rule_blocked_until', a.rule_blocked_until,
    'rule_block_reason', a.rule_block_reason, 'rule_block_message', a.rule_block_message, 'rule_block_version_id',
    a.rule_block_version_id));
end
$$;
comment on function governance.change_standing(governance.accounts, jsonb, text, text, timestamptz) is
  'Flags an account, clears its flag, blocks or unblocks it, as p_act says ({kind, until}); answers what undoing it '
  'needs. The caller holds the account''s lock.';

create function governance.put_back_standing(a governance.accounts, p_kind text, p_undo jsonb, p_now timestamptz)
  returns void
  language plpgsql set search_path = '' as $$
declare
  v_at timestamptz := (p_undo ->> 'at')::timestamptz;
  v_was governance.accounts := jsonb_populate_record(a, p_undo -> 'standing');
  v_why text := case p_kind
    when 'flag_user' then case when a.flagged_at is distinct from v_at
      then 'The flag was cleared, or set anew, since' end
    when 'unflag_user' then case when a.flagged_at is not null then 'The user was flagged again since' end
    when 'block_user' then case when a.blocked_at is distinct from v_at
      then 'The user was unblocked, or blocked otherwise, since' end
    when 'unblock_user' then case when governance.blocked_until(a) > p_now then 'The user was blocked again since' end
    end;
begin
  if v_why is not null then perform governance.fail('PT409', 'changed_since', v_why); end if;
  -- Messages that were forgiven are not counted again.
  update governance.accounts y set
    flagged_at = v_was.flagged_at, flag_reason = v_was.flag_reason, flagged_by = v_was.flagged_by
  where y.account_id = a.account_id and p_kind in ('flag_user', 'unflag_user');
  update governance.accounts y set
    blocked_at = v_was.blocked_at, blocked_until = v_was.blocked_until, block_reason = v_was.block_reason,
    blocked_by = v_was.blocked_by
  where y.account_id = a.account_id and p_kind in ('block_user', 'unblock_user');
  update governance.accounts y set
    rule_blocked_until = v_was.rule_blocked_until, rule_block_reason = v_was.rule_block_reason,
    rule_block_message = v_was.rule_block_message, rule_block_version_id = v_was.rule_block_version_id
  where y.account_id = a.account_id and p_kind = 'unblock_user';
end
$$;
comment on function governance.put_back_standing(governance.accounts, text, jsonb, timestamptz) is
  'Takes a flag, a block, or the end of one back to what it was before. The caller holds the account''s lock. Errors: '
  'changed_since.';

create function governance.act_on_standing(p_act jsonb, p_command_id text, p_user_id text, p_reason text,
  p_operator text, p_details jsonb) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  a governance.accounts := governance.lock_account(p_user_id);
  v_now timestamptz := governance.now();
  v_effects jsonb := governance.run_act(a, p_act, null, p_command_id, p_reason, p_operator, v_now);
begin
  -- Who did it finds it among their acts, and can undo it there. A program that names nobody has no such list.
  if p_operator is not null then
    insert into governance.account_acts (command_id, account_id, kind, fields, reason, operator, status, effects,
      created_at, done_at)
    values (p_command_id, a.account_id, p_act ->> 'kind', p_act, p_reason, p_operator, 'done', v_effects, v_now, v_now)
    on conflict (command_id) do nothing;
  end if;
  return governance.end_act(p_act ->> 'kind', p_command_id, p_user_id, p_reason, p_operator, p_details);
end
$$;
comment on function governance.act_on_standing(jsonb, text, text, text, text, jsonb) is
  'Flags, clears a flag, blocks or unblocks after governance.begin_act; kept among the operator''s acts. Answers the '
  'account.';

create function public.flag_user(p_command_id text, p_user_id text, p_reason text,
  p_operator text default null, p_expected_version int default null) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_answer jsonb;
begin
  perform governance.refuse_others('flag_user');
  v_answer := governance.begin_act('flag_user', p_command_id, p_user_id, p_reason, p_operator, p_expected_version);
  if v_answer is not null then return v_answer; end if;
  return governance.act_on_standing('{"kind": "flag_user"}', p_command_id, p_user_id, p_reason, p_operator, '{}');
end
$$;
comment on function public.flag_user(text, text, text, text, int) is
  'Marks an account for review; its calls go on. Answers the account. Errors: invalid_argument, unknown_user, '
  'version_conflict, idempotency_conflict.';
revoke all on function public.flag_user(text, text, text, text, int) from public, anon, authenticated;
grant execute on function public.flag_user(text, text, text, text, int) to service_role;

create function public.unflag_user(p_command_id text, p_user_id text, p_reason text,
  p_operator text default null, p_expected_version int default null) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_answer jsonb;
begin
  perform governance.refuse_others('unflag_user');
  v_answer := governance.begin_act('unflag_user', p_command_id, p_user_id, p_reason, p_operator, p_expected_version);
  if v_answer is not null then return v_answer; end if;
  return governance.act_on_standing('{"kind": "unflag_user"}', p_command_id, p_user_id, p_reason, p_operator, '{}');
end
$$;
comment on function public.unflag_user(text, text, text, text, int) is
  'Clears the flag of an account that was reviewed. Answers the account. Errors: invalid_argument, unknown_user, '
  'version_conflict, idempotency_conflict.';
revoke all on function public.unflag_user(text, text, text, text, int) from public, anon, authenticated;
grant execute on function public.unflag_user(text, text, text, text, int) to service_role;

create function public.block_user(p_command_id text, p_user_id text, p_reason text, p_until timestamptz default null,
  p_operator text default null, p_expected_version int default null) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_answer jsonb;
begin
  perform governance.refuse_others('block_user');
  if not isfinite(p_until) then
    perform governance.fail('PT400', 'invalid_argument',
      'p_until is a moment in the future, or null until someone unblocks');
  end if;
  v_answer := governance.begin_act('block_user', p_command_id, p_user_id, p_reason, p_operator, p_expected_version,
    extract(epoch from p_until)::text);
  if v_answer is not null then return v_answer; end if;
  if p_until <= governance.now() then
    perform governance.fail('PT400', 'invalid_argument',
      'p_until is a moment in the future, or null until someone unblocks');
  end if;
  return governance.act_on_standing(jsonb_build_object('kind', 'block_user', 'until', p_until), p_command_id, p_user_id,
    p_reason, p_operator, jsonb_build_object('until', p_until));
end
$$;
comment on function public.block_user(text, text, text, timestamptz, text, int) is
  'Stops an account''s calls from the next one on, until a moment or until someone unblocks. Answers the account. '
  'Errors: invalid_argument, unknown_user, version_conflict, idempotency_conflict.';
revoke all on function public.block_user(text, text, text, timestamptz, text, int) from public, anon, authenticated;
grant execute on function public.block_user(text, text, text, timestamptz, text, int) to service_role;

create function public.unblock_user(p_command_id text, p_user_id text, p_reason text,
  p_operator text default null, p_expected_version int default null) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_answer jsonb;
  v_lifted jsonb;
begin
  perform governance.refuse_others('unblock_user');
  v_answer := governance.begin_act('unblock_user', p_command_id, p_user_id, p_reason, p_operator, p_expected_version);
  if v_answer is not null then return v_answer; end if;
  select jsonb_strip_nulls(governance.block_json(a, governance.now())) - 'is_blocked' into v_lifted
  from governance.accounts a where a.user_id = p_user_id;
  return governance.act_on_standing('{"kind": "unblock_user"}', p_command_id, p_user_id, p_reason, p_operator,
    jsonb_build_object('lifted', v_lifted));
end
$$;
comment on function public.unblock_user(text, text, text, text, int) is
  'Lifts an operator''s and a rule''s block, and forgives: identical and rapid messages are counted anew. A flag '
  'stays. Answers the account; the audit keeps what was lifted. Errors: invalid_argument, unknown_user, '
  'version_conflict, idempotency_conflict.';
revoke all on function public.unblock_user(text, text, text, text, int) from public, anon, authenticated;
grant execute on function public.unblock_user(text, text, text, text, int) to service_role;

create function public.console_audit(p_filter jsonb default '{}', p_before_id bigint default null,
  p_limit int default 100) returns jsonb
  language plpgsql stable security definer set search_path = '' set plan_cache_mode = 'force_custom_plan' as $$
declare
  v_account_id bigint;
  v_from timestamptz;
  v_to timestamptz;
begin
  perform governance.refuse_others('console_audit');
  perform governance.check_limit(p_limit, 1000);
  if p_filter is null or jsonb_typeof(p_filter) <> 'object' then
    perform governance.fail('PT400', 'invalid_argument',
      'p_filter is an object: operator, action, user_id, from, to, by (people or rules)');
  end if;
  begin
    v_from := (p_filter ->> 'from')::timestamptz;
    v_to := (p_filter ->> 'to')::timestamptz;
  exception when data_exception then
    perform governance.fail('PT400', 'invalid_argument', 'p_filter.from and to are moments');
  end;
  if p_filter ->> 'user_id' is not null then
    select a.account_id into v_account_id from governance.accounts a where a.user_id = p_filter ->> 'user_id';
    if v_account_id is null then
      perform governance.fail('PT404', 'unknown_user',
        format('There is no account of user "%s"', left(p_filter ->> 'user_id', 64)));
    end if;
  end if;
  return (
    with page as (
      select x.*, row_number() over (order by x.audit_id desc) as n from (
        select g.* from governance.audit_log g
        where g.audit_id < coalesce(p_before_id, 9223372036854775807)
          and (v_account_id is null or g.account_id = v_account_id)
          and (p_filter ->> 'operator' is null or g.operator = p_filter ->> 'operator')
          and (p_filter ->> 'action' is null or g.action = p_filter ->> 'action')
          and (p_filter ->> 'by' is distinct from 'people' or g.operator is not null)
          and (p_filter ->> 'by' is distinct from 'rules' or g.operator is null)
          and (v_from is null or g.created_at >= v_from) and (v_to is null or g.created_at < v_to)
        order by g.audit_id desc limit p_limit + 1) x)
    select jsonb_build_object(
      'entries', coalesce(jsonb_agg(jsonb_build_object('audit_id', g.audit_id, 'at', g.created_at, 'operator',
        g.operator, 'action', g.action, 'user_id', a.user_id, 'display_name', a.display_name, 'email', a.email,
        'rule_name', g.rule_name, 'reason', g.reason, 'command_id', g.command_id, 'details', g.details)
        order by g.n) filter (where g.n <= p_limit), '[]'),
      'next_before_id', case when count(*) > p_limit then max(g.audit_id) filter (where g.n = p_limit) end)
    from page g left join governance.accounts a using (account_id));
end
$$;
comment on function public.console_audit(jsonb, bigint, int) is
  'The audit log, newest first: who did what to whom, when and why. p_filter may name operator, action, user_id, from, '
  'to, and by (people: operators alone; rules: rules and upkeep alone). Errors: invalid_argument, unknown_user.';
revoke all on function public.console_audit(jsonb, bigint, int) from public, anon, authenticated;
grant execute on function public.console_audit(jsonb, bigint, int) to service_role;

create trigger audit_log_append_only before update or delete or truncate on governance.audit_log
  for each statement execute function governance.refuse_change();

-- schemas/22_lots.sql
-- Lots of tokens: granted, spent, frozen, taken back, expired.

create table governance.lots (
  lot_id bigint generated always as identity primary key,
  account_id bigint not null,
  -- subscription, purchased, promotional
  kind text not null,
  expires_at timestamptz,
  created_at timestamptz not null default now(),
  description text,
  -- Where the money came from, so that refunds and disputes find the lot.
  pack_id text,
  stripe_charge_id text,
  stripe_payment_intent_id text,
  stripe_invoice_line_id text,
  stripe_checkout_session_id text,
  amount_minor bigint,
  currency text,
  metadata jsonb not null default '{}',
  granted bigint not null,
  -- False once nothing can come out of it any more: neither remaining nor frozen.
  is_open boolean not null default true,
  remaining bigint not null,
  -- Set aside by a dispute: in no balance until thawed.
  frozen bigint not null default 0,
  spent bigint not null default 0,
  expired bigint not null default 0,
  -- Taken back for money that went back.
  clawed_back bigint not null default 0
) with (fillfactor = 70);

create index lots_open on governance.lots (account_id) where is_open;

create index lots_account on governance.lots (account_id, lot_id);

create index lots_expiring on governance.lots (expires_at) where is_open and expires_at is not null;

create unique index lots_invoice_line on governance.lots (stripe_invoice_line_id)
  where stripe_invoice_line_id is not null;

comment on table governance.lots is 'Grants of tokens. granted = remaining + frozen + spent + expired + clawed_back, '
  'always.';

create type governance.lot_spending as (taken bigint, subscription bigint, purchased bigint, promotional bigint,
  lot_changes bigint[]);

create type governance.granted as (lot_id bigint, transaction_id bigint, previous_balance bigint, new_balance bigint,
  debt_recovered bigint);

create type governance.lot_taking as (taken bigint, from_frozen bigint, debt bigint, transaction_id bigint);

create function governance.spend_lots(p_account_id bigint, p_tokens bigint) returns governance.lot_spending
  language plpgsql set search_path = '' as $$
declare
  v_lot record;
  v_take bigint;
  v_result governance.lot_spending := row(0, 0, 0, 0, '{}');
begin
  for v_lot in
    select l.lot_id, l.kind, l.remaining, l.frozen from governance.lots l
    where l.account_id = p_account_id and l.is_open and l.remaining > 0
    order by l.expires_at nulls last, case l.kind when 'subscription' then 0 when 'promotional' then 1
      else 2 end, l.created_at, l.lot_id
  loop
    exit when v_result.taken >= p_tokens;
    v_take := least(v_lot.remaining, p_tokens - v_result.taken);
    update governance.lots l set remaining = l.remaining - v_take, spent = l.spent + v_take,
      is_open = l.remaining - v_take + l.frozen > 0
    where l.lot_id = v_lot.lot_id;
    v_result.taken := v_result.taken + v_take;
    v_result.lot_changes := v_result.lot_changes || v_lot.lot_id || -v_take;
    if v_lot.kind = 'subscription' then v_result.subscription := v_result.subscription - v_take;
    elsif v_lot.kind = 'purchased' then v_result.purchased := v_result.purchased - v_take;
    else v_result.promotional := v_result.promotional - v_take;
    end if;
  end loop;
  return v_result;
end
$$;
comment on function governance.spend_lots(bigint, bigint) is
  'Takes up to so many tokens out of an account''s lots in the order of CONTRACT; answers what was taken. No entry is '
  'written.';

create function governance.grant_tokens(
  p_account_id bigint, p_kind text, p_tokens bigint, p_type text, p_now timestamptz,
    p_expires_at timestamptz default null,
  p_reference text default null, p_description text default null, p_metadata jsonb default null,
    p_source jsonb default '{}'
) returns governance.granted
  language plpgsql set search_path = '' as $$
declare
  v_lot_id bigint;
  v_entry governance.token_transactions;
  v_result governance.granted;
begin
  insert into governance.lots (account_id, kind, expires_at, created_at, description, pack_id, stripe_charge_id,
    stripe_payment_intent_id,
    stripe_invoice_line_id, stripe_checkout_session_id, amount_minor, currency, metadata, granted, remaining)
  values (p_account_id, p_kind, p_expires_at, p_now, p_description, p_source ->> 'pack_id',
    p_source ->> 'stripe_charge_id',
    p_source ->> 'stripe_payment_intent_id', p_source ->> 'stripe_invoice_line_id',
      p_source ->> 'stripe_checkout_session_id',
    (p_source ->> 'amount_minor')::bigint, p_source ->> 'currency', coalesce(p_metadata, '{}'), p_tokens, p_tokens)
  returning lot_id into v_lot_id;
  v_entry := governance.append_entry(p_account_id, p_type, p_now, array[v_lot_id, p_tokens],
    case p_kind when 'subscription' then p_tokens else 0 end, case p_kind when 'purchased' then p_tokens else 0 end,
    case p_kind when 'promotional' then p_tokens else 0 end, 0, p_reference, p_description, p_metadata);
  v_result := row(v_lot_id, v_entry.transaction_id, v_entry.previous_balance, v_entry.new_balance, 0);
  if p_expires_at is not null then
    update governance.accounts a set lots_check_at = least(a.lots_check_at, p_expires_at)
      where a.account_id = p_account_id;
  end if;
  if v_entry.debt_after > 0 then
    v_result.debt_recovered := governance.recover_debt(p_account_id, p_now, p_reference, p_tokens);
  end if;
  return v_result;
end
$$;
comment on function governance.grant_tokens(bigint, text, bigint, text, timestamptz, timestamptz, text, text, jsonb,
  jsonb) is
  'Adds a lot with its entry, and pays debt (governance.recover_debt). p_source may name pack_id, stripe_charge_id, '
  'stripe_payment_intent_id, stripe_invoice_line_id, stripe_checkout_session_id, amount_minor, currency. The caller '
  'holds the account''s lock.';

create function governance.freeze_lot(p_lot_id bigint, p_tokens bigint, p_now timestamptz, p_reference text,
  p_description text default null, p_metadata jsonb default null) returns governance.lot_taking
  language plpgsql set search_path = '' as $$
declare
  v_lot governance.lots;
  v_account governance.accounts;
  v_take bigint;
  v_result governance.lot_taking := row(0, 0, 0, null);
begin
  select * into strict v_lot from governance.lots l where l.lot_id = p_lot_id;
  select * into strict v_account from governance.accounts a where a.account_id = v_lot.account_id;
  -- What is held for calls under way stays until they end.
  v_take := least(p_tokens, v_lot.remaining,
    v_account.subscription_tokens + v_account.purchased_tokens + v_account.promotional_tokens
      - v_account.reserved_tokens);
  if v_take > 0 then
    update governance.lots l set remaining = l.remaining - v_take, frozen = l.frozen + v_take where l.lot_id = p_lot_id;
    v_result.transaction_id := (governance.append_entry(v_lot.account_id, 'reversal', p_now, array[p_lot_id, -v_take],
      case v_lot.kind when 'subscription' then -v_take else 0 end, case v_lot.kind when 'purchased' then -v_take
        else 0 end,
      case v_lot.kind when 'promotional' then -v_take
        else 0 end, 0, p_reference, p_description, p_metadata)).transaction_id;
    v_result.taken := v_take;
  end if;
  return v_result;
end
$$;
comment on function governance.freeze_lot(bigint, bigint, timestamptz, text, text, jsonb) is
  'Sets unspent tokens of a lot aside (a dispute was opened): they leave the balance and can come back. Answers how '
  'many. The caller holds the account''s lock.';

create function governance.thaw_lot(p_lot_id bigint, p_tokens bigint, p_now timestamptz, p_reference text,
  p_description text default null, p_metadata jsonb default null) returns governance.lot_taking
  language plpgsql set search_path = '' as $$
declare
  v_lot governance.lots;
  v_back bigint;
  v_result governance.lot_taking := row(0, 0, 0, null);
begin
  select * into strict v_lot from governance.lots l where l.lot_id = p_lot_id;
  v_back := least(p_tokens, v_lot.frozen);
  if v_back > 0 then
    update governance.lots l set remaining = l.remaining + v_back, frozen = l.frozen - v_back, is_open = true
      where l.lot_id = p_lot_id;
    v_result.transaction_id := (governance.append_entry(v_lot.account_id, 'reversal', p_now, array[p_lot_id, v_back],
      case v_lot.kind when 'subscription' then v_back else 0 end, case v_lot.kind when 'purchased' then v_back
        else 0 end,
      case v_lot.kind when 'promotional' then v_back
        else 0 end, 0, p_reference, p_description, p_metadata)).transaction_id;
    v_result.taken := v_back;
    if v_lot.expires_at is not null then
      update governance.accounts a set lots_check_at = least(a.lots_check_at, v_lot.expires_at)
        where a.account_id = v_lot.account_id;
    end if;
  end if;
  return v_result;
end
$$;
comment on function governance.thaw_lot(bigint, bigint, timestamptz, text, text,
  jsonb) is 'Gives frozen tokens of a lot back (the dispute was won). The caller holds the account''s lock.';

create function governance.claw_back_lot(p_lot_id bigint, p_tokens bigint, p_type text, p_now timestamptz,
  p_reference text, p_description text default null, p_metadata jsonb default null) returns governance.lot_taking
  language plpgsql set search_path = '' as $$
declare
  v_lot governance.lots;
  v_account governance.accounts;
  v_frozen bigint;
  v_take bigint;
  v_result governance.lot_taking;
begin
  select * into strict v_lot from governance.lots l where l.lot_id = p_lot_id;
  select * into strict v_account from governance.accounts a where a.account_id = v_lot.account_id;
  v_frozen := least(p_tokens, v_lot.frozen);
  v_take := least(p_tokens - v_frozen, v_lot.remaining,
    v_account.subscription_tokens + v_account.purchased_tokens + v_account.promotional_tokens
      - v_account.reserved_tokens);
  v_result := row(v_take, v_frozen, p_tokens - v_frozen - v_take, null);
  update governance.lots l set
    remaining = l.remaining - v_take, frozen = l.frozen - v_frozen, clawed_back = l.clawed_back + v_take + v_frozen,
    is_open = l.remaining - v_take + l.frozen - v_frozen > 0
  where l.lot_id = p_lot_id;
  -- The lot is named even where no tokens leave the balance: frozen or expired ones may have changed their name.
  v_result.transaction_id := (governance.append_entry(v_lot.account_id, p_type, p_now, array[p_lot_id, -v_take],
    case v_lot.kind when 'subscription' then -v_take else 0 end, case v_lot.kind when 'purchased' then -v_take
      else 0 end,
    case v_lot.kind when 'promotional' then -v_take
      else 0 end, v_result.debt, p_reference, p_description, p_metadata)).transaction_id;
  return v_result;
end
$$;
comment on function governance.claw_back_lot(bigint, bigint, text, timestamptz, text, text, jsonb) is
  'Takes back tokens of a lot whose money went back: frozen ones first, then unspent ones; what is spent already '
  'becomes debt. p_type refund or reversal. The caller holds the account''s lock.';

create function governance.grant_allowance(p_account governance.accounts, p_month date, p_tokens bigint,
  p_now timestamptz, p_rollover_months int) returns void
  language plpgsql set search_path = '' as $$
begin
  perform governance.grant_tokens(p_account.account_id, 'subscription', p_tokens, 'subscription_grant', p_now,
    (p_month + (1 + p_rollover_months) * interval '1 month')::timestamp at time zone p_account.timezone,
    'allowance ' || to_char(p_month, 'YYYY-MM'), 'Monthly allowance');
end
$$;
comment on function governance.grant_allowance(governance.accounts, date, bigint, timestamptz,
  int) is 'Grants a month''s allowance as a lot that ends with the month, or as many months later as the plan says.';

create function governance.recover_debt(p_account_id bigint, p_now timestamptz, p_reference text,
  p_granted bigint default 0) returns bigint
  language plpgsql set search_path = '' as $$
declare
  v_account governance.accounts;
  v_pay bigint;
  v_spent governance.lot_spending;
begin
  select * into strict v_account from governance.accounts a where a.account_id = p_account_id;
  v_pay := least(v_account.debt_tokens,
    v_account.subscription_tokens + v_account.purchased_tokens + v_account.promotional_tokens
      - v_account.reserved_tokens);
  if v_pay > p_granted and not governance.pays_debt_at_once() then
    v_pay := p_granted;
  end if;
  if v_pay <= 0 then return 0; end if;
  v_spent := governance.spend_lots(p_account_id, v_pay);
  perform governance.append_entry(p_account_id, 'debt_recovery', p_now, v_spent.lot_changes, v_spent.subscription,
    v_spent.purchased,
    v_spent.promotional, -v_spent.taken, p_reference, 'Debt paid');
  return v_spent.taken;
end
$$;
comment on function governance.recover_debt(bigint, timestamptz, text, bigint) is
  'Pays debt out of what is free, in the order in which lots are spent, with an entry: nobody owes and has free tokens '
  'at once. With the setting pay_debt_from = grants only what was just granted (p_granted tokens) pays. Called '
  'wherever tokens become free or debt grows. The caller holds the account''s lock.';

create function governance.pays_debt_at_once() returns boolean
  language sql stable set search_path = '' as $$
  select not exists (select from governance.settings s where s.key = 'pay_debt_from' and s.value = '"grants"')
$$;
comment on function governance.pays_debt_at_once() is 'Whether debt is paid out of whatever is free (the default), or '
  'only out of grants: the setting pay_debt_from.';

create function governance.adds_up(l governance.lots) returns boolean
  language plpgsql immutable set search_path = '' as $$
begin
  return l.kind in ('subscription', 'purchased', 'promotional') and l.granted > 0
    and least(l.remaining, l.frozen, l.spent, l.expired, l.clawed_back) >= 0
    and l.granted = l.remaining + l.frozen + l.spent + l.expired + l.clawed_back
      and (l.is_open or l.remaining + l.frozen = 0);
end
$$;
comment on function governance.adds_up(governance.lots) is 'The check of lots: granted is what remains, is frozen, was '
  'spent, expired or was clawed back; none of it below zero.';

-- The proof, without its holes. The ledger is hashed, and what else is kept beside it can be told from it: what a lot
-- is, what a call was charged, what the roll-up and the counters add up to. supabase/CONVENTIONS.md says what
-- public.verify_ledger checks, and what nobody can see from inside the database.

-- ---------------------------------------------------------------------------------------------------------------
-- Seals: an entry that does anything but spend a lot says, under its hash, what the lot is then. What calls and debt
-- spend is told by the tokens of their entries, so calls seal nothing.
-- ---------------------------------------------------------------------------------------------------------------

-- No search_path on these two, so that they are inlined: they use built-in functions alone.
create function governance.lot_seal(l governance.lots) returns text
  language sql stable set search_path = '' as $$
  select concat_ws('|', l.kind, extract(epoch from l.created_at), coalesce(extract(epoch from l.expires_at)::text, '-'),
    l.granted, l.frozen, l.expired, l.clawed_back)
$$;
comment on function governance.lot_seal(governance.lots) is
  'What of a lot spending does not change: kind | created at | expires at or "-" (seconds since 1970) | granted | '
  'frozen | expired | clawed back.';

create function governance.seals_lot(p_type text, p_lot_changes bigint[], p_metadata jsonb) returns boolean
  language sql immutable as $$
  select cardinality(p_lot_changes) = 2
    and (p_lot_changes[2] >= 0 or p_type in ('expiry', 'refund', 'reversal')
      or (p_type = 'adjustment' and coalesce(p_metadata ? 'difference_id', false)))
$$;
comment on function governance.seals_lot(text, bigint[], jsonb) is
  'Whether an entry seals the one lot that it names: all do that may have done more than spend it.';

alter table governance.lots add constraint lots_add_up check (governance.adds_up(lots));

-- schemas/23_ledger.sql
-- The ledger: append-only, one hash chain for each account.

create table governance.token_transactions (
  transaction_id bigint primary key default nextval('governance.event_ids'),
  account_id bigint not null,
  created_at timestamptz not null,
  -- purchase, usage, refund, adjustment, bonus, subscription_grant, expiry, reversal, debt_recovery
  transaction_type text not null,
  amount bigint not null,
  previous_balance bigint not null,
  new_balance bigint not null,
  debt_after bigint not null,
  -- Pairs lot_id, tokens: what this entry put into lots and took out of them. The tokens add up to amount.
  lot_changes bigint[] not null,
  -- What caused it: the request of a usage, the idempotency key, charge or dispute of anything else.
  reference text,
  -- The decision that a usage settles.
  decision_id bigint,
  description text,
  metadata jsonb,
  -- SHA-256 over the entry before it and this one: see governance.entry_hash.
  previous_hash bytea,
  hash bytea not null,
  -- No checks: a check is read anew at every insert, and the chain and public.verify_ledger prove more.
  xid xid8 not null default pg_current_xact_id()
);

create index token_transactions_account on governance.token_transactions (account_id, transaction_id);

comment on table governance.token_transactions is 'The ledger: append-only for every role, one hash chain an account.';

create function governance.entry_payload(
  p_transaction_id bigint, p_created_at timestamptz, p_type text, p_amount bigint, p_previous_balance bigint,
    p_new_balance bigint,
  p_debt_after bigint, p_lot_changes bigint[], p_decision_id bigint, p_user_id text, p_reference text,
    p_description text, p_metadata jsonb
) returns text
  language sql stable as $$
  select concat_ws('|', p_transaction_id, (extract(epoch from p_created_at) * 1000000)::bigint, p_type, p_amount,
    p_previous_balance, p_new_balance,
    p_debt_after, array_to_string(p_lot_changes, ','), coalesce(p_decision_id::text, '-'), octet_length(p_user_id)
      || ':' || p_user_id,
    coalesce(octet_length(p_reference) || ':' || p_reference, '-'),
      coalesce(octet_length(p_description) || ':' || p_description, '-'),
    coalesce(octet_length(p_metadata::text) || ':' || p_metadata::text, '-'))
$$;
comment on function governance.entry_payload(bigint, timestamptz, text, bigint, bigint, bigint, bigint, bigint[],
  bigint, text, text, text, jsonb) is
  'What of a ledger entry its hash covers, as text: supabase/CONVENTIONS.md has the format.';

create function governance.entry_hash(p_previous_hash bytea, p_payload text) returns bytea
  language sql stable as $$
  select sha256(coalesce(p_previous_hash, ''::bytea) || convert_to(p_payload, 'UTF8'))
$$;
comment on function governance.entry_hash(bytea,
  text) is 'SHA-256 over the hash of the entry before (nothing for the first) and the payload.';

create function governance.append_entry(
  p_account_id bigint, p_type text, p_now timestamptz, p_lot_changes bigint[], p_subscription bigint,
    p_purchased bigint,
  p_promotional bigint, p_debt bigint, p_reference text default null, p_description text default null,
    p_metadata jsonb default null,
  p_decision_id bigint default null
) returns governance.token_transactions
  language plpgsql set search_path = '' as $$
declare
  v_entry governance.token_transactions;
  v_user_id text;
  v_expires_at timestamptz;
begin
  -- The transaction has its number before it draws an id: readers of the feed rely on it.
  v_entry.xid := pg_current_xact_id();
  select a.user_id, a.last_hash, a.subscription_tokens + a.purchased_tokens + a.promotional_tokens,
    a.debt_tokens + p_debt
  into strict v_user_id, v_entry.previous_hash, v_entry.previous_balance, v_entry.debt_after
  from governance.accounts a where a.account_id = p_account_id;
  if governance.seals_lot(p_type, p_lot_changes, p_metadata) then
    select coalesce(p_metadata, '{}') || jsonb_build_object('lot_seal', governance.lot_seal(l)), case
      when p_lot_changes[2] > 0 then l.expires_at end
    into strict p_metadata, v_expires_at
    from governance.lots l where l.lot_id = p_lot_changes[1];
  end if;
  v_entry.transaction_id := nextval('governance.event_ids');
  v_entry.amount := p_subscription + p_purchased + p_promotional;
  v_entry.new_balance := v_entry.previous_balance + v_entry.amount;
  v_entry.hash := governance.entry_hash(v_entry.previous_hash,
    governance.entry_payload(v_entry.transaction_id, p_now, p_type, v_entry.amount,
    v_entry.previous_balance, v_entry.new_balance, v_entry.debt_after, p_lot_changes, p_decision_id, v_user_id,
      p_reference, p_description, p_metadata));
  insert into governance.token_transactions (transaction_id, account_id, created_at, transaction_type, amount,
    previous_balance, new_balance, debt_after,
    lot_changes, reference, decision_id, description, metadata, previous_hash, hash, xid)
  values (v_entry.transaction_id, p_account_id, p_now, p_type, v_entry.amount, v_entry.previous_balance,
    v_entry.new_balance, v_entry.debt_after,
    p_lot_changes, p_reference, p_decision_id, p_description, p_metadata, v_entry.previous_hash, v_entry.hash,
      v_entry.xid)
  returning * into v_entry;
  update governance.accounts a set
    subscription_tokens = a.subscription_tokens + p_subscription, purchased_tokens = a.purchased_tokens + p_purchased,
    promotional_tokens = a.promotional_tokens + p_promotional, debt_tokens = a.debt_tokens + p_debt,
    last_transaction_id = v_entry.transaction_id, last_hash = v_entry.hash,
    -- Tokens that come into a lot expire with it, whoever put them there.
    lots_check_at = least(a.lots_check_at, v_expires_at)
  where a.account_id = p_account_id;
  return v_entry;
end
$$;
comment on function governance.append_entry(bigint, text, timestamptz, bigint[], bigint, bigint, bigint, bigint, text,
  text, jsonb, bigint) is
  'Writes one ledger entry and carries it into the account; whatever does more to a lot than spend it is sealed. The '
  'caller holds the account''s lock and has changed the lots already; amounts are changes by kind.';

create function public.update_user_token_balance(
  p_user_id text, p_amount bigint, p_transaction_type text, p_description text default null,
    p_metadata jsonb default '{}',
  p_idempotency_key text default null, p_expires_at timestamptz default null
) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_account governance.accounts;
  v_now timestamptz;
  v_answer jsonb;
  v_available bigint;
  v_granted governance.granted;
  v_spent governance.lot_spending;
  v_entry governance.token_transactions;
begin
  perform governance.refuse_others('update_user_token_balance');
  perform governance.check_id('p_user_id', p_user_id);
  perform governance.check_optional('p_description', p_description, 2000);
  perform governance.check_metadata('p_metadata', p_metadata);
  if p_idempotency_key is not null then
    perform governance.check_id('p_idempotency_key', p_idempotency_key);
  end if;
  if p_amount is null or p_amount = 0 or p_amount not between -9007199254740991 and 9007199254740991 then
    perform governance.fail('PT400', 'invalid_argument',
      'p_amount is a whole number of tokens, not zero, below 2^53 in size');
  end if;
  if p_transaction_type is null
    or p_transaction_type not in ('purchase', 'usage', 'refund', 'adjustment', 'bonus', 'subscription_grant', 'expiry',
    'reversal') then
    perform governance.fail('PT400', 'invalid_argument',
      'p_transaction_type is one of purchase, usage, refund, adjustment, bonus, subscription_grant, expiry, reversal');
  end if;
  if (p_transaction_type in ('purchase', 'bonus', 'subscription_grant') and p_amount < 0)
    or (p_transaction_type in ('usage', 'expiry') and p_amount > 0) then
    perform governance.fail('PT400', 'invalid_argument',
      format('p_amount of a %s must be %s', p_transaction_type, case when p_amount < 0 then 'positive'
      else 'negative' end));
  end if;
  if p_expires_at is not null and (p_amount < 0 or not isfinite(p_expires_at) or p_expires_at <= governance.now()) then
    perform governance.fail('PT400', 'invalid_argument',
      'p_expires_at is a moment in the future, for tokens that are added');
  end if;

  v_account := governance.lock_account(p_user_id);
  if p_idempotency_key is not null then
    v_answer := governance.begin_command('balance', p_idempotency_key,
      row(p_user_id, p_amount, p_transaction_type, p_description, p_metadata, extract(epoch from p_expires_at))::text);
    if v_answer is not null then return v_answer; end if;
  end if;
  v_now := governance.now();
  v_available := v_account.subscription_tokens + v_account.purchased_tokens + v_account.promotional_tokens -
    v_account.reserved_tokens;
  if p_amount > 0 then
    if v_available + v_account.reserved_tokens + p_amount > 9007199254740991 then
      perform governance.fail('PT400', 'invalid_argument', 'The balance would not stay below 2^53');
    end if;
    v_granted := governance.grant_tokens(v_account.account_id,
      case p_transaction_type when 'purchase' then 'purchased' when 'subscription_grant' then 'subscription'
        else 'promotional' end,
      p_amount, p_transaction_type, v_now, p_expires_at, p_idempotency_key, p_description, p_metadata);
    v_answer := jsonb_build_object('transaction_id', v_granted.transaction_id, 'previous_balance',
      v_granted.previous_balance,
      'new_balance', v_granted.new_balance, 'grant_id', v_granted.lot_id, 'debt_recovered', v_granted.debt_recovered);
  else
    if -p_amount > v_available then
      perform governance.fail('PT402', 'insufficient_tokens',
        format('%s tokens are free, %s are needed', v_available, -p_amount),
        jsonb_build_object('have', v_available, 'need', -p_amount)::text);
    end if;
    v_spent := governance.spend_lots(v_account.account_id, -p_amount);
    v_entry := governance.append_entry(v_account.account_id, p_transaction_type, v_now, v_spent.lot_changes,
      v_spent.subscription,
      v_spent.purchased, v_spent.promotional, 0, p_idempotency_key, p_description, p_metadata);
    v_answer := jsonb_build_object('transaction_id', v_entry.transaction_id, 'previous_balance',
      v_entry.previous_balance, 'new_balance', v_entry.new_balance);
  end if;
  if p_idempotency_key is not null then
    v_answer := governance.end_command('balance', p_idempotency_key, v_answer);
  end if;
  perform governance.ring('accounts', v_now);
  return v_answer;
end
$$;
comment on function public.update_user_token_balance(text, bigint, text, text, jsonb, text, timestamptz) is
  'Adds a lot (purchase: purchased; subscription_grant: subscription; else promotional; debt is paid first) or takes '
  'tokens in spending order, with a ledger entry. Answers transaction_id, previous_balance, new_balance. Errors: '
  'invalid_argument, unknown_user, insufficient_tokens, idempotency_conflict.';
revoke all on function public.update_user_token_balance(text, bigint, text, text, jsonb, text, timestamptz)
  from public, anon, authenticated;
grant execute on function public.update_user_token_balance(text, bigint, text, text, jsonb, text,
  timestamptz) to service_role;

create function public.get_user_token_balance(p_user_id text) returns bigint
  language plpgsql security definer set search_path = '' as $$
declare
  v_account governance.accounts;
begin
  perform governance.refuse_others('get_user_token_balance');
  perform governance.check_id('p_user_id', p_user_id);
  select * into v_account from governance.accounts a where a.user_id = p_user_id;
  if v_account.account_id is null then
    perform governance.fail('PT404', 'unknown_user', format('There is no account of user "%s"', left(p_user_id, 64)));
  end if;
  if governance.needs_roll(v_account, governance.now()) and current_setting('transaction_read_only') = 'off' then
    v_account := governance.lock_account(p_user_id);
  end if;
  return v_account.subscription_tokens + v_account.purchased_tokens + v_account.promotional_tokens
    - v_account.reserved_tokens;
end
$$;
comment on function public.get_user_token_balance(text) is 'Tokens that are free to use. Errors: invalid_argument, '
  'unknown_user.';
revoke all on function public.get_user_token_balance(text) from public, anon, authenticated;
grant execute on function public.get_user_token_balance(text) to service_role;

create function public.get_user_transaction_history(p_user_id text, p_limit int default 50,
  p_before_id bigint default null)
  returns table (transaction_id bigint, transaction_type text, amount bigint, previous_balance bigint,
    new_balance bigint,
    description text, metadata jsonb, created_at timestamptz, payload text, hash text)
  language plpgsql stable security definer set search_path = '' as $$
declare
  v_account_id bigint;
begin
  perform governance.refuse_others('get_user_transaction_history');
  perform governance.check_id('p_user_id', p_user_id);
  if p_limit is null or p_limit not between 1 and 1000 then
    perform governance.fail('PT400', 'invalid_argument', 'p_limit is a whole number from 1 to 1000');
  end if;
  select a.account_id into v_account_id from governance.accounts a where a.user_id = p_user_id;
  if v_account_id is null then
    perform governance.fail('PT404', 'unknown_user', format('There is no account of user "%s"', left(p_user_id, 64)));
  end if;
  return query
    select t.transaction_id, t.transaction_type, t.amount, t.previous_balance, t.new_balance, t.description,
      coalesce(t.metadata, '{}') || case when t.transaction_type = 'usage' and t.decision_id is not null
        then jsonb_build_object('request_id', t.reference, 'decision_id', t.decision_id) else '{}' end,
      t.created_at,
      governance.entry_payload(t.transaction_id, t.created_at, t.transaction_type, t.amount, t.previous_balance,
        t.new_balance, t.debt_after,
        t.lot_changes, t.decision_id, p_user_id, t.reference, t.description, t.metadata),
      encode(t.hash, 'hex')
    from governance.token_transactions t
    where t.account_id = v_account_id and t.transaction_id < coalesce(p_before_id, 9223372036854775807)
    order by t.transaction_id desc limit p_limit;
end
$$;
comment on function public.get_user_transaction_history(text, int, bigint) is
  'Ledger entries, newest first; p_before_id is the last transaction_id of the page before. Errors: invalid_argument, '
  'unknown_user.';
revoke all on function public.get_user_transaction_history(text, int, bigint) from public, anon, authenticated;
grant execute on function public.get_user_transaction_history(text, int, bigint) to service_role;

create function public.my_token_history(p_limit int default 50, p_before_id bigint default null) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_account governance.accounts;
  v_entries jsonb;
begin
  if p_limit is null or p_limit not between 1 and 200 then
    perform governance.fail('PT400', 'invalid_argument', 'p_limit is a whole number from 1 to 200');
  end if;
  v_account := governance.my_account();
  -- Descriptions and metadata are the operators' own: not for the user.
  select coalesce(jsonb_agg(to_jsonb(e) order by e.transaction_id desc), '[]') into v_entries from (
    select t.transaction_id, t.transaction_type, t.amount, t.previous_balance, t.new_balance, t.created_at
    from governance.token_transactions t
    where t.account_id = v_account.account_id and t.transaction_id < coalesce(p_before_id, 9223372036854775807)
    order by t.transaction_id desc limit p_limit) e;
  return jsonb_build_object('entries', v_entries, 'next_before_id',
    case when jsonb_array_length(v_entries) = p_limit then v_entries -> -1 -> 'transaction_id' end);
end
$$;
comment on function public.my_token_history(int, bigint) is
  'The signed-in user''s ledger entries, newest first, at most p_limit (1 to 200); next_before_id, where there may be '
  'more, is p_before_id of the next page. Errors: not_signed_in, invalid_argument, not_configured.';
revoke all on function public.my_token_history(int, bigint) from public, anon, authenticated;
grant execute on function public.my_token_history(int, bigint) to authenticated;

create trigger token_transactions_append_only before update or delete or truncate on governance.token_transactions
  for each statement execute function governance.refuse_change();

-- schemas/24_days.sql
-- Days and months of accounts: when they turn, and what falls due by then.

create type governance.rolled as (expired_holds int, expired_lots int, allowances int);

create function governance.expire_account_holds(p_account_id bigint, p_now timestamptz) returns int
  language plpgsql set search_path = '' as $$
declare
  v_hold record;
  v_from timestamptz;
  v_debt bigint;
  v_count int := 0;
begin
  select a.holds_from into v_from from governance.accounts a where a.account_id = p_account_id;
  if v_from is null then return 0; end if;
  for v_hold in
    update governance.requests r set
      status = 'expired', ended_at = p_now, released_tokens = r.reserved_tokens
    where r.account_id = p_account_id and r.created_at >= v_from and r.status = 'held' and r.expires_at <= p_now
    returning r.decision_id, r.reserved_tokens
  loop
    insert into governance.hold_events (created_at, kind, decision_id, account_id, tokens)
    values (p_now, 'expired', v_hold.decision_id, p_account_id, v_hold.reserved_tokens);
    update governance.accounts a set reserved_tokens = a.reserved_tokens - v_hold.reserved_tokens
      where a.account_id = p_account_id;
    v_count := v_count + 1;
  end loop;
  update governance.accounts a set (holds_from, holds_check_at) = (
    select min(r.created_at), min(r.expires_at) from governance.requests r
    where r.account_id = p_account_id and r.created_at >= v_from and r.status = 'held')
  where a.account_id = p_account_id
  returning a.debt_tokens into v_debt;
  if v_debt > 0 then
    perform governance.recover_debt(p_account_id, p_now, null);
  end if;
  return v_count;
end
$$;
comment on function governance.expire_account_holds(bigint,
  timestamptz) is 'Gives the tokens of an account''s expired holds back; answers how many holds. The caller holds the '
    'account''s lock.';

create function governance.move_allowances(a governance.accounts, p_timezone text, p_now timestamptz) returns void
  language plpgsql set search_path = '' as $$
declare
  v_old text := governance.known_zone(a.timezone);
  v_lot governance.lots;
  v_ends_at timestamptz;
begin
  for v_lot in
    select * from governance.lots l
    where l.account_id = a.account_id and l.is_open and l.description = 'Monthly allowance'
      and (l.expires_at = a.month_ends_at
        or l.expires_at at time zone v_old = date_trunc('month', l.expires_at at time zone v_old))
    order by l.lot_id
  loop
    v_ends_at := case when v_lot.expires_at = a.month_ends_at then (a.local_month + interval '1 month')::timestamp
      else v_lot.expires_at at time zone v_old end at time zone p_timezone;
    continue when v_ends_at = v_lot.expires_at;
    update governance.lots l set expires_at = v_ends_at where l.lot_id = v_lot.lot_id;
    update governance.accounts x set lots_check_at = least(x.lots_check_at, v_ends_at)
    where x.account_id = a.account_id;
    -- Moves no tokens: it seals the lot's new end.
    perform governance.append_entry(a.account_id, 'adjustment', p_now, array[v_lot.lot_id, 0], 0, 0, 0, 0, null,
      format('Allowance ends with the month in %s', p_timezone));
  end loop;
end
$$;
comment on function governance.move_allowances(governance.accounts, text, timestamptz) is
  'Gives open allowances the end of their month in another zone, so that no hours are without one and none has two.';

create function governance.move_to_next_plan(a governance.accounts, p_now timestamptz) returns text
  language plpgsql set search_path = '' as $$
declare
  v_moves boolean;
begin
  if a.next_plan_id is null then return a.plan_id; end if;
  v_moves := exists (select from governance.plans p where p.plan_id = a.next_plan_id and p.retired_at is null);
  update governance.accounts x set next_plan_id = null, version = x.version + 1,
    plan_id = case when v_moves then a.next_plan_id else x.plan_id end
  where x.account_id = a.account_id;
  insert into governance.audit_log (created_at, operator, action, account_id, details)
  values (p_now, null, case when v_moves then 'scheduled_plan_begun' else 'scheduled_plan_gone' end, a.account_id,
    jsonb_build_object('plan_id', a.next_plan_id, 'before', a.plan_id));
  return case when v_moves then a.next_plan_id else a.plan_id end;
end
$$;
comment on function governance.move_to_next_plan(governance.accounts, timestamptz) is
  'Moves an account to the plan that was scheduled for its next month, unless that plan was retired since; answers the '
  'plan it is on. The caller holds the account''s lock.';

create function governance.turn_day(a governance.accounts, p_timezone text, p_now timestamptz) returns int
  language plpgsql set search_path = '' as $$
declare
  v_zone text := governance.known_zone(p_timezone);
  -- Never back: moving west lengthens the day, and gives no second limit for the same date.
  v_day date := greatest(a.local_day, (p_now at time zone v_zone)::date);
  v_month date := date_trunc('month', v_day)::date;
  v_plan governance.plans;
  v_grant_month date;
  v_allowances int := 0;
begin
  if v_zone <> p_timezone then
    perform governance.raise_alert(null, null, 'unknown_zone', 'warning',
      format('The server no longer knows the time zone %s: days of its users are counted in UTC', left(p_timezone, 64)),
      null, null, to_char(p_now at time zone 'UTC', 'YYYY-MM'),
      jsonb_build_object('timezone', p_timezone, 'user_id', a.user_id), p_now, p_timezone);
  end if;
  if v_zone <> a.timezone then
    perform governance.move_allowances(a, v_zone, p_now);
  end if;
  update governance.accounts x set
    timezone = v_zone, local_day = v_day, day_ends_at = (v_day + 1)::timestamp at time zone v_zone,
    local_month = v_month, month_ends_at = (v_month + interval '1 month')::timestamp at time zone v_zone
  where x.account_id = a.account_id;
  if v_day > a.local_day then
    update governance.accounts x set day_messages = 0, day_calls = 0, day_tokens = 0, day_cost_micros = 0
    where x.account_id = a.account_id;
  end if;
  if v_month > a.local_month then
    a.plan_id := governance.move_to_next_plan(a, p_now);
    select * into strict v_plan from governance.plans p where p.plan_id = a.plan_id;
    update governance.accounts x set month_messages = 0, month_calls = 0, month_tokens = 0, month_cost_micros = 0,
      month_allowance = v_plan.monthly_allowance
    where x.account_id = a.account_id;
    -- Months that passed unseen are granted only as far as their tokens would still be there.
    v_grant_month := greatest((a.local_month + interval '1 month')::date,
      (v_month - v_plan.rollover_months * interval '1 month')::date);
    while v_plan.monthly_allowance > 0 and v_grant_month <= v_month
      and not governance.is_paid_through_stripe(a.account_id, a.plan_id, v_month::timestamp at time zone v_zone)
    loop
      a.timezone := v_zone;
      perform governance.grant_allowance(a, v_grant_month, v_plan.monthly_allowance, p_now, v_plan.rollover_months);
      v_allowances := v_allowances + 1;
      v_grant_month := (v_grant_month + interval '1 month')::date;
    end loop;
  end if;
  return v_allowances;
end
$$;
comment on function governance.turn_day(governance.accounts, text, timestamptz) is
  'Puts an account on the day and month of a zone, with a new month''s allowance; answers how many allowances. The day '
  'never goes back (CONVENTIONS, Time). A zone that the server no longer knows becomes UTC, with an alert. The caller '
  'holds the account''s lock.';

create function governance.leave_unknown_zones(p_now timestamptz, p_budget interval) returns boolean
  language plpgsql set search_path = '' as $$
declare
  v_until timestamptz := clock_timestamp() + p_budget;
  v_started text := pg_postmaster_start_time()::text;
  v_account governance.accounts;
  v_zones text[];
begin
  -- A server's time zone database changes when it is installed anew: one look after each start.
  if exists (select from governance.maintenance_state s
    where s.key = 'checked_zones' and s.value ->> 'server_started' = v_started) then return true; end if;
  select array_agg(z.timezone) into v_zones from (select distinct a.timezone from governance.accounts a) z
  where governance.known_zone(z.timezone) <> z.timezone;
  for v_account in select * from governance.accounts a where a.timezone = any (v_zones) loop
    if clock_timestamp() > v_until then return false; end if;
    -- An account that a call has in hand falls back when its day ends.
    continue when not pg_try_advisory_xact_lock(governance.lock_key(v_account.user_id));
    select * into v_account from governance.accounts a where a.account_id = v_account.account_id for update skip locked;
    continue when not found;
    perform governance.turn_day(v_account, v_account.timezone, p_now);
  end loop;
  insert into governance.maintenance_state as s (key, value)
    values ('checked_zones', jsonb_build_object('server_started', v_started))
  on conflict (key) do update set value = excluded.value, updated_at = clock_timestamp();
  return true;
end
$$;
comment on function governance.leave_unknown_zones(timestamptz, interval) is
  'After each start of the server: accounts whose time zone it no longer knows fall back to UTC, for at most so long; '
  'answers whether all did.';

create function governance.roll_account(p_account_id bigint, p_now timestamptz) returns governance.rolled
  language plpgsql set search_path = '' as $$
declare
  a governance.accounts;
  v_lot governance.lots;
  v_take bigint;
  v_result governance.rolled := row(0, 0, 0);
begin
  select * into strict a from governance.accounts x where x.account_id = p_account_id;
  if a.holds_check_at <= p_now then
    v_result.expired_holds := governance.expire_account_holds(p_account_id, p_now);
    select * into strict a from governance.accounts x where x.account_id = p_account_id;
  end if;

  if a.lots_check_at <= p_now then
    for v_lot in
      select * from governance.lots l
      where l.account_id = p_account_id and l.is_open and l.expires_at <= p_now and l.remaining > 0
      order by l.expires_at, l.lot_id
    loop
      -- Tokens held for calls under way outlive their lot until those calls end.
      v_take := least(v_lot.remaining,
        a.subscription_tokens + a.purchased_tokens + a.promotional_tokens - a.reserved_tokens);
      exit when v_take = 0;
      update governance.lots l set remaining = l.remaining - v_take, expired = l.expired + v_take,
        is_open = l.remaining - v_take + l.frozen > 0
      where l.lot_id = v_lot.lot_id;
      perform governance.append_entry(p_account_id, 'expiry', p_now, array[v_lot.lot_id, -v_take],
        case v_lot.kind when 'subscription' then -v_take else 0 end, case v_lot.kind when 'purchased' then -v_take
          else 0 end,
        case v_lot.kind when 'promotional' then -v_take else 0 end, 0, null, 'Expired');
      v_result.expired_lots := v_result.expired_lots + 1;
      select * into strict a from governance.accounts x where x.account_id = p_account_id;
    end loop;
    update governance.accounts x set lots_check_at = (
      select min(l.expires_at) from governance.lots l
        where l.account_id = p_account_id and l.is_open and l.remaining > 0)
    where x.account_id = p_account_id;
  end if;

  if a.day_ends_at <= p_now then
    v_result.allowances := governance.turn_day(a, a.timezone, p_now);
  end if;
  return v_result;
end
$$;
comment on function governance.roll_account(bigint, timestamptz) is
  'Brings an account up to the moment: expired holds, expired lots, turn of day and month with its allowance. Never '
  'backwards, and nothing twice. The caller holds the account''s lock.';

create function governance.needs_roll(a governance.accounts, p_now timestamptz) returns boolean
  language plpgsql stable set search_path = '' as $$
begin
  return a.day_ends_at <= p_now or a.month_ends_at <= p_now or coalesce(a.lots_check_at <= p_now, false)
    or coalesce(a.holds_check_at <= p_now, false);
end
$$;
comment on function governance.needs_roll(governance.accounts,
  timestamptz) is 'Whether governance.roll_account has anything to do.';

-- schemas/30_calls.sql
-- The path of a call: authorise, settle, release.

-- governance.authorize_calls writes whole rows: a column more here is a value more there.
create table governance.requests (
  -- First, so that its default is worked out before that of decision_id: readers of the feed rely on a writer having
  -- its transaction number before its event id.
  xid xid8 not null default pg_current_xact_id(),
  decision_id bigint not null default nextval('governance.event_ids'),
  created_at timestamptz not null,
  account_id bigint not null,
  request_id text not null,
  -- Hash of the parameters: a repeat with others is refused.
  fingerprint bigint not null,
  -- What was asked
  requested_model text not null,
  task_type text,
  scope_id text,
  conversation_id text,
  message_hash bigint,
  -- What was decided
  decision text not null,
  reason text,
  http_status smallint not null,
  message text,
  warnings text[],
  model text not null,
  truncate_to_words int,
  expires_at timestamptz,
  retry_after_seconds int,
  upgrade_plan text,
  -- Null for 1: see multiply_cost.
  cost_factor numeric,
  plan_id text not null,
  rule_set_id bigint not null,
  -- The rule that blocked, and all that matched (shadow ones too).
  rule_version_id bigint,
  matched_version_ids bigint[],
  -- What the rules saw
  facts governance.facts not null,
  reserved_tokens bigint not null,
  -- Limits and balance as answered
  daily_limit bigint,
  day_ends_at timestamptz not null,
  monthly_limit bigint,
  month_ends_at timestamptz not null,
  subscription_tokens bigint not null,
  purchased_tokens bigint not null,
  promotional_tokens bigint not null,
  total_reserved_tokens bigint not null,
  debt_tokens bigint not null,
  -- How it ended
  status text not null,
  ended_at timestamptz,
  -- The account's day at the settlement: where the roll-up has it (CONVENTIONS, Time).
  usage_day date,
  end_reason text,
  settled_model text,
  provider text,
  input_tokens bigint,
  output_tokens bigint,
  cached_input_tokens bigint,
  cache_write_tokens bigint,
  reasoning_tokens bigint,
  charged_tokens bigint,
  released_tokens bigint,
  unpaid_tokens bigint,
  cost_micros bigint,
  currency text,
  settle_fingerprint bigint,
  transaction_id bigint,
  alerts jsonb,
  settle_metadata jsonb,
  end_subscription_tokens bigint,
  end_purchased_tokens bigint,
  end_promotional_tokens bigint,
  end_reserved_tokens bigint,
  end_debt_tokens bigint,
  primary key (decision_id, created_at)
) partition by range (created_at);

create index requests_account_time on governance.requests (account_id, created_at);

create index requests_conversation on governance.requests (account_id, conversation_id, created_at)
  where conversation_id is not null;

create index requests_refused on governance.requests (created_at) where decision = 'block';

comment on table governance.requests is
  'Every call: its decision, its hold and, once settled, its usage event. Monthly partitions; retention drops whole '
  'ones.';

comment on column governance.requests.status is
  'blocked; or held, then settled, released, expired (a late settle may follow) or quarantined.';

-- The caller's own id names a call across all partitions, and leads to its row without looking into each.
create table governance.request_keys (
  request_id text primary key,
  created_at timestamptz not null,
  decision_id bigint not null,
  account_id bigint not null,
  -- governance.lock_key of the account's user.
  lock_key bigint not null,
  message_hash bigint
);

comment on table governance.request_keys is 'Ids of calls, for as long as their rows are kept.';

create view governance.usage_events with (security_invoker = true) as
  select decision_id, request_id, account_id, created_at, ended_at, coalesce(settled_model, model) as model, provider,
    task_type,
    scope_id, conversation_id, input_tokens, output_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens,
    charged_tokens, cost_micros, currency
  from governance.requests
  where status = 'settled';

comment on view governance.usage_events is 'Settled calls.';

create table governance.requests_default partition of governance.requests default with (fillfactor = 75);

-- What happens to a hold other than settlement (which the ledger tells): readers of the feed find it here.
create table governance.hold_events (
  event_id bigint primary key default nextval('governance.event_ids'),
  created_at timestamptz not null,
  kind text not null check (kind in ('released', 'expired', 'quarantined')),
  decision_id bigint not null,
  account_id bigint not null,
  tokens bigint not null,
  reason text,
  xid xid8 not null default pg_current_xact_id()
);

create index hold_events_time on governance.hold_events (created_at);

comment on table governance.hold_events is 'Holds that were released, expired or quarantined.';

create table governance.usage_daily (
  account_id bigint not null,
  -- The account's own day at the settlement (CONVENTIONS, Time).
  day date not null,
  model text not null,
  -- Empty for none.
  task_type text not null default '',
  scope_id text not null default '',
  calls int not null default 0,
  messages int not null default 0,
  input_tokens bigint not null default 0,
  output_tokens bigint not null default 0,
  charged_tokens bigint not null default 0,
  cost_micros bigint not null default 0,
  -- When the first and the last of it was used: a period that holds both holds the whole row.
  first_activity_at timestamptz not null,
  last_activity_at timestamptz not null,
  primary key (account_id, day, model, task_type, scope_id)
) with (fillfactor = 70);

create index usage_daily_day on governance.usage_daily (day);

comment on table governance.usage_daily is 'Settled usage by account, local day, model, task type and scope, written '
  'by the settlement itself.';

create index hold_events_account on governance.hold_events (account_id, event_id);

-- Settlements above the ceiling are few, and each waits for a person.
create index hold_events_quarantined on governance.hold_events (decision_id) where kind = 'quarantined';

create index requests_refused_by_reason on governance.requests (reason, decision_id) where decision = 'block';

create type governance.authorization as (request_id text, decision_id bigint, decision text, reason text,
  http_status int, message text, requested_model text, model text, truncate_to_words int, estimated_tokens bigint,
  reserved_tokens bigint, expires_at timestamptz, retry_after_seconds int, shortfall jsonb, upgrade jsonb,
  balance governance.balance, limits governance.limits, warnings text[], fail_mode text);

create type governance.settlement as (request_id text, decision_id bigint, status text, charged_tokens bigint,
  released_tokens bigint, debt_tokens bigint, cost_micros bigint, currency text, model text, transaction_id bigint,
  balance governance.balance, alerts jsonb);

-- What the functions of a call take, without the p_ of their parameters.
create type governance.authorize_arguments as (request_id text, user_id text, model text, estimated_tokens bigint,
  message text, conversation_id text, task_type text, scope_id text, complexity numeric);

-- A message as rules and counters see it, and the lock of its account (governance.lock_key).
create type governance.judged_message as (folded text, hash bigint, characters int, words int, lock_key bigint);

create type governance.settle_arguments as (request_id text, input_tokens bigint, output_tokens bigint, model text,
  metadata jsonb);

create type governance.release_arguments as (request_id text, reason text);

-- How a call ended, and what its settlement adds to the roll-up.
create type governance.call_end as (decision_id bigint, created_at timestamptz, account_id bigint, request_id text,
  status text, model text, provider text, input_tokens bigint, output_tokens bigint, cached_input_tokens bigint,
  cache_write_tokens bigint, reasoning_tokens bigint, charged_tokens bigint, released_tokens bigint,
  unpaid_tokens bigint, cost_micros bigint, currency text, settle_fingerprint bigint, transaction_id bigint,
  alerts jsonb, settle_metadata jsonb, subscription_tokens bigint, purchased_tokens bigint, promotional_tokens bigint,
  reserved_tokens bigint, debt_tokens bigint, day date, task_type text, scope_id text, messages int);

comment on column governance.request_keys.message_hash is 'Of the folded message, for counting identical ones; null '
  'without a message.';

create index request_keys_identical on governance.request_keys (account_id, message_hash, created_at)
  where message_hash is not null;

create function governance.ensure_request_partitions(p_from date, p_to date, p_most int default 1000) returns int
  language plpgsql set search_path = '' as $$
declare
  v_month date := date_trunc('month', p_from)::date;
  v_from timestamptz;
  v_to timestamptz;
  v_name text;
  v_waiting int;
  v_created int := 0;
begin
  perform pg_advisory_xact_lock(7254011);
  while v_month <= p_to and v_created < p_most loop
    v_name := 'requests_' || to_char(v_month, 'YYYY_MM');
    v_from := v_month::timestamp at time zone 'UTC';
    v_to := (v_month + interval '1 month')::timestamp at time zone 'UTC';
    v_month := (v_month + interval '1 month')::date;
    continue when to_regclass('governance.' || v_name) is not null;
    -- Calls of a month that has no partition are in the default one. A few are moved while new calls wait; many stay
    -- there for good, where every reader finds them.
    select count(*) into v_waiting from (select from governance.requests_default d
      where d.created_at >= v_from and d.created_at < v_to limit 2001) x;
    continue when v_waiting > 2000;
    if v_from <= governance.now() then
      -- The month has begun: a call may be on its way into the default partition at this very moment.
      lock table only governance.requests in access exclusive mode;
    end if;
    execute format('create table governance.%I (like governance.requests including defaults including comments) with '
      '(fillfactor = 75)', v_name);
    execute format('alter table governance.%I enable row level security', v_name);
    execute format('revoke all on governance.%I from public', v_name);
    execute format('with moved as (delete from governance.requests_default where created_at >= %L
      and created_at < %L returning *)
      insert into governance.%I select * from moved', v_from, v_to, v_name);
    execute format('alter table governance.requests attach partition governance.%I for values from (%L) to (%L)',
      v_name, v_from, v_to);
    v_created := v_created + 1;
  end loop;
  return v_created;
end
$$;
comment on function governance.ensure_request_partitions(date, date, int) is
  'Makes the monthly partitions of governance.requests that cover the given days, at most p_most of them; answers how '
  'many were new. A month with more than 2,000 calls in the default partition gets none.';

-- The path of a call: authorize_usage holds tokens, settle_usage charges, release_usage gives back. Each is one short
-- transaction under the account's advisory lock. docs/RULES.md fixes what is decided.

create function governance.http_status(p_reason text) returns int
  language sql immutable set search_path = '' as $$
  select case
    when p_reason is null then 200
    when p_reason = 'insufficient_tokens' then 402
    when p_reason in ('daily_limit', 'monthly_limit', 'budget_exhausted', 'spam_identical', 'bot_behavior',
      'token_hogging', 'rate_limited') then 429
    else 403
  end
$$;
comment on function governance.http_status(text) is 'The HTTP status of a block by its reason; 200 without one.';

create function governance.reason_message(p_reason text) returns text
  language sql immutable set search_path = '' as $$
  select case p_reason
    when 'insufficient_tokens' then 'You do not have enough tokens left for this.'
    when 'daily_limit' then 'You have reached today''s limit. It starts anew tomorrow.'
    when 'monthly_limit' then 'You have reached this month''s limit.'
    when 'budget_exhausted' then 'The budget for this is used up.'
    when 'user_blocked' then 'Your access is paused. Please contact support.'
    when 'spam_identical' then 'You have sent the same message many times. Please wait before you send it again.'
    when 'bot_behavior' then 'You are sending messages too fast. Please slow down.'
    when 'token_hogging' then 'You have sent very many messages today. Please come back tomorrow.'
    when 'rate_limited' then 'Too many requests. Please wait a moment.'
    when 'off_topic' then 'I cannot help with that here.'
    else 'This request was not allowed.'
  end
$$;
comment on function governance.reason_message(text) is 'What a user is told where the rule says nothing itself.';

-- The two answers, as typed rows: those become JSON at half the cost of jsonb_build_object. The first has no search
-- path, so that it is inlined: it uses built-in functions alone. A repeat is answered by the same expression.
create function governance.decision_answer(q governance.requests, f governance.facts, p_upgrade jsonb,
  p_fail_mode text) returns json
  language sql stable as $$
  select row_to_json(row(q.request_id, q.decision_id, q.decision, q.reason, q.http_status, q.message, q.requested_model,
    q.model, q.truncate_to_words, f.estimated_tokens, q.reserved_tokens, q.expires_at, q.retry_after_seconds,
    case when q.reason = 'insufficient_tokens' then
      governance.shortfall(f.estimated_tokens, q.cost_factor, f.available_tokens) end,
    p_upgrade,
    row(f.available_tokens - q.reserved_tokens, q.total_reserved_tokens, q.subscription_tokens, q.purchased_tokens,
      q.promotional_tokens, q.debt_tokens,
      f.available_tokens - q.reserved_tokens + q.total_reserved_tokens)::governance.balance,
    row(row(q.daily_limit, f.tokens_today + q.reserved_tokens,
        case when q.daily_limit is not null then greatest(q.daily_limit - f.tokens_today - q.reserved_tokens, 0) end,
        q.day_ends_at)::governance.limit_state,
      row(q.monthly_limit, f.tokens_this_month + q.reserved_tokens,
        case when q.monthly_limit is not null then
          greatest(q.monthly_limit - f.tokens_this_month - q.reserved_tokens, 0) end,
        q.month_ends_at)::governance.limit_state)::governance.limits,
    coalesce(q.warnings, '{}'), p_fail_mode)::governance.authorization)
$$;
comment on function governance.decision_answer(governance.requests, governance.facts, jsonb, text) is
  'The answer of authorize_usage from its row and facts.';

create function governance.shortfall(p_estimate bigint, p_cost_factor numeric, p_have bigint) returns jsonb
  language sql immutable set search_path = '' as $$
  select jsonb_build_object('need', n.need, 'have', p_have, 'missing', n.need - p_have)
  from (select least(ceil(p_estimate * coalesce(p_cost_factor, 1)), 9007199254740991)::bigint as need) n
$$;
comment on function governance.shortfall(bigint, numeric, bigint) is 'What a call needs, has and lacks.';

create function governance.end_answer(e governance.call_end) returns json
  language plpgsql stable set search_path = '' as $$
begin
  return case when e.status in ('settled', 'quarantined') then
    row_to_json(row(e.request_id, e.decision_id, e.status, e.charged_tokens, e.released_tokens, e.unpaid_tokens,
      e.cost_micros, e.currency, e.model, e.transaction_id,
      row(e.subscription_tokens + e.purchased_tokens + e.promotional_tokens - e.reserved_tokens, e.reserved_tokens,
        e.subscription_tokens, e.purchased_tokens, e.promotional_tokens, e.debt_tokens,
        e.subscription_tokens + e.purchased_tokens + e.promotional_tokens)::governance.balance,
      coalesce(e.alerts, '[]'))::governance.settlement)
    else governance.release_answer(e) end;
end
$$;
comment on function governance.end_answer(governance.call_end) is 'The answer of settle_usage and release_usage.';

create function governance.release_answer(e governance.call_end) returns json
  language sql stable set search_path = '' as $$
  select json_build_object('request_id', e.request_id, 'decision_id', e.decision_id, 'status', e.status,
    'released_tokens', e.released_tokens, 'balance', governance.balance_json(e.subscription_tokens,
      e.purchased_tokens, e.promotional_tokens, e.reserved_tokens, e.debt_tokens))
$$;
comment on function governance.release_answer(governance.call_end) is
  'The answer of release_usage: the call ended without a charge.';

create function governance.call_end(q governance.requests) returns governance.call_end
  language sql stable set search_path = '' as $$
  select row(q.decision_id, q.created_at, q.account_id, q.request_id, q.status, q.settled_model, q.provider,
    q.input_tokens, q.output_tokens, q.cached_input_tokens, q.cache_write_tokens, q.reasoning_tokens, q.charged_tokens,
    q.released_tokens, q.unpaid_tokens, q.cost_micros, q.currency, q.settle_fingerprint, q.transaction_id, q.alerts,
    q.settle_metadata, q.end_subscription_tokens, q.end_purchased_tokens, q.end_promotional_tokens,
    q.end_reserved_tokens, q.end_debt_tokens, null, q.task_type, q.scope_id, null)::governance.call_end
$$;
comment on function governance.call_end(governance.requests) is 'How a call ended, from its row.';

-- schemas/31_receipts.sql
-- Why a call was decided as it was.

create function governance.facts_json(q governance.requests) returns jsonb
  language sql stable set search_path = '' as $$
  select to_jsonb(q.facts) || jsonb_build_object('provider', governance.provider_of(q.requested_model, q.created_at))
$$;
comment on function governance.facts_json(governance.requests) is
  'The facts of a decision as they were seen; the message itself is never kept.';

create function governance.decision_json(r governance.requests) returns jsonb
  language sql stable set search_path = '' as $$
  select jsonb_build_object('decision_id', r.decision_id, 'request_id', r.request_id, 'at', r.created_at, 'decision',
    r.decision,
    'reason', r.reason, 'message', r.message, 'requested_model', r.requested_model, 'model',
      coalesce(r.settled_model, r.model),
    'task_type', r.task_type, 'scope_id', r.scope_id, 'conversation_id', r.conversation_id, 'estimated_tokens',
      (r.facts).estimated_tokens,
    'reserved_tokens', r.reserved_tokens, 'charged_tokens', r.charged_tokens, 'input_tokens', r.input_tokens,
      'output_tokens', r.output_tokens,
    'cost_micros', r.cost_micros, 'currency', r.currency, 'status', r.status, 'ended_at', r.ended_at, 'expires_at',
      r.expires_at,
    'warnings', coalesce(to_jsonb(r.warnings), '[]'), 'rule_name', v.rule_name, 'rule_version', v.version)
  from (select) one left join governance.rule_versions v on v.version_id = r.rule_version_id
$$;
comment on function governance.decision_json(governance.requests) is 'A call and how it ended, as the user''s page '
  'lists it.';

create function public.console_account_decisions(p_user_id text, p_before_id bigint default null,
  p_limit int default 50) returns jsonb
  language plpgsql stable security definer set search_path = '' set jit = off
    set plan_cache_mode = 'force_custom_plan' as $$
declare
  v_account_id bigint;
  v_before timestamptz := 'infinity';
begin
  perform governance.refuse_others('console_account_decisions');
  perform governance.check_id('p_user_id', p_user_id);
  perform governance.check_limit(p_limit, 500);
  select a.account_id into v_account_id from governance.accounts a where a.user_id = p_user_id;
  if v_account_id is null then
    perform governance.fail('PT404', 'unknown_user', format('There is no account of user "%s"', left(p_user_id, 64)));
  end if;
  if p_before_id is not null then
    select r.created_at into v_before from governance.requests r
      where r.decision_id = p_before_id and r.account_id = v_account_id;
    if not found then
      perform governance.fail('PT404', 'not_found', 'p_before_id is no decision of this user that is still kept');
    end if;
  end if;
  return (
    with page as (
      select c.call, row_number() over () as n
      from (select q as call from governance.requests q
        where q.account_id = v_account_id and q.created_at <= v_before
          and (p_before_id is null or (q.created_at, q.decision_id) < (v_before, p_before_id))
        order by q.created_at desc, q.decision_id desc limit p_limit + 1) c)
    select jsonb_build_object(
      'decisions', coalesce(jsonb_agg(governance.decision_json(p.call) order by p.n) filter (where p.n <= p_limit),
        '[]'),
      'next_before_id', case when count(*) > p_limit then max((p.call).decision_id) filter (where p.n = p_limit) end)
    from page p);
end
$$;
comment on function public.console_account_decisions(text, bigint, int) is
  'A user''s calls, newest first, each with its decision and how it ended; p_before_id is next_before_id of the page '
    'before. Errors: invalid_argument, unknown_user, not_found.';
revoke all on function public.console_account_decisions(text, bigint, int) from public, anon, authenticated;
grant execute on function public.console_account_decisions(text, bigint, int) to service_role;

create function public.explain_decision(p_decision_id bigint) returns jsonb
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
  v_answer jsonb;
begin
  perform governance.refuse_others('explain_decision');
  if p_decision_id is null then
    perform governance.fail('PT400', 'invalid_argument', 'p_decision_id is needed');
  end if;
  select x.* into r from governance.requests x where x.decision_id = p_decision_id;
  if not found then
    perform governance.fail('PT404', 'not_found',
      format('There is no decision %s, or it is no longer kept', p_decision_id));
  end if;
  select x.* into strict a from governance.accounts x where x.account_id = r.account_id;
  select x.* into v_rule from governance.rule_versions x where x.version_id = r.rule_version_id;
  v_answer := governance.decision_answer(r, r.facts, null, null);
  -- Only a hash and a count of the message are kept.
  v_facts := governance.facts_json(r)
    || jsonb_build_object('message', case when (r.facts).message_characters is not null then '(not kept)' end);

  -- Rules were looked at unless a block was in force already; the one that blocked was the last.
  if r.reason is distinct from 'user_blocked'
    and (r.rule_version_id is null or r.rule_version_id = any (coalesce(r.matched_version_ids, '{}'))) then
    for v_row in
      select v.version_id, v.rule_name, v.version, v.rule,
        v.version_id = any (coalesce(r.matched_version_ids, '{}')) as matched
      from governance.rule_sets s
      cross join lateral unnest(s.version_ids) with ordinality o(version_id, n)
      join governance.rule_versions v using (version_id)
      where s.rule_set_id = r.rule_set_id order by o.n
    loop
      v_read := (governance.compile_condition(v_row.rule -> 'conditions', 'conditions', 1)).facts;
      if v_row.rule -> 'applies_to' ? 'plans' then v_read := v_read || 'plan'::text; end if;
      if v_row.rule -> 'applies_to' ? 'scopes' then v_read := v_read || 'scope_id'::text; end if;
      v_trace := v_trace || jsonb_build_object('rule_name', v_row.rule_name, 'version', v_row.version, 'mode',
        v_row.rule -> 'mode',
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

  v_need := case when r.decision = 'block'
    then least(ceil((r.facts).estimated_tokens * coalesce(r.cost_factor, 1)), 9007199254740991)::bigint
    else r.reserved_tokens end;
  if r.reason = 'insufficient_tokens' and r.rule_version_id is null then
    v_have := (v_facts ->> 'available_tokens')::bigint;
    v_shortfall := jsonb_build_object('need', v_need, 'have', v_have, 'missing', v_need - v_have);
    select p.monthly_allowance into v_allowance from governance.plans p where p.plan_id = r.plan_id;
    -- The next allowance helps only if it is enough.
    if v_allowance >= v_need then v_clears_at := r.month_ends_at; end if;
  elsif r.reason in ('daily_limit', 'monthly_limit')
    and (case r.reason when 'daily_limit' then r.daily_limit else r.monthly_limit end) is not null then
    v_limit := jsonb_build_object('window', case r.reason when 'daily_limit' then 'daily' else 'monthly' end,
      'limit', case r.reason when 'daily_limit' then r.daily_limit else r.monthly_limit end,
      'used', case r.reason when 'daily_limit' then (r.facts).tokens_today else (r.facts).tokens_this_month end);
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
        v_remedies := v_remedies
          || format('Ask for less: at most %s tokens are free.', governance.with_separators(v_have));
      end if;
    elsif v_limit is not null and v_shortfall is not null then
      v_remedies := v_remedies
        || format('Raise the %s limit to at least %s tokens.', v_limit ->> 'window',
        governance.with_separators((v_limit ->> 'used')::bigint + v_need));
      if v_have > 0 then
        v_remedies := v_remedies
          || format('Ask for less: %s tokens are left of the %s limit.', governance.with_separators(v_have),
          v_limit ->> 'window');
      end if;
    elsif r.reason = 'user_blocked' then
      v_remedies := v_remedies || 'An operator can unblock this user.'::text;
    elsif r.rule_version_id is not null and not r.rule_version_id = any (coalesce(r.matched_version_ids, '{}')) then
      v_remedies := v_remedies
        || format('The rule %s blocked this user for a while, at an earlier call: unblock the user, which forgives.',
        replace(v_rule.rule_name, '_', ' '));
    elsif r.rule_version_id is not null then
      v_remedies := v_remedies
        || format('The rule %s must not match: unblocking the user makes its message counters start anew; or change '
          'the rule, or put it in shadow.',
        replace(v_rule.rule_name, '_', ' '));
    end if;
    if v_upgrade is not null then
      v_remedies := v_remedies || format('Move the user to the plan %s.', v_upgrade);
    end if;
    if v_clears_at is not null then
      v_remedies := v_remedies
        || format('Wait until %s (%s).', to_char(v_clears_at at time zone a.timezone, 'YYYY-MM-DD HH24:MI'),
        a.timezone);
    end if;
  end if;

  return jsonb_build_object(
    'decision_id', r.decision_id, 'request_id', r.request_id, 'user_id', a.user_id, 'at', r.created_at,
    'decision', r.decision, 'reason', r.reason, 'message', r.message, 'http_status', r.http_status,
    'rule_name', v_rule.rule_name, 'rule_version', v_rule.version,
    'requested_model', r.requested_model, 'model', r.model, 'truncate_to_words', r.truncate_to_words,
    'estimated_tokens', (r.facts).estimated_tokens, 'reserved_tokens', r.reserved_tokens, 'status', r.status,
    'shortfall', v_shortfall, 'limit', v_limit, 'clears_at', v_clears_at, 'timezone', a.timezone,
    'balance', v_answer -> 'balance', 'limits', v_answer -> 'limits',
    'warnings', coalesce(to_jsonb(r.warnings), '[]'), 'currency', (select c.currency from governance.active_config c),
    'facts', v_facts,
    'rules', v_trace,
    'remedies', to_jsonb(v_remedies));
end
$$;
comment on function public.explain_decision(bigint) is
  'The receipt of a decision: every rule looked at, with its version, the facts it saw and whether it matched; what '
  'was missing, when that clears, and what would have to change. Errors: invalid_argument, not_found.';
revoke all on function public.explain_decision(bigint) from public, anon, authenticated;
grant execute on function public.explain_decision(bigint) to service_role;

create function public.console_try_decision(p_decision_id bigint) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  r governance.requests;
  v_user_id text;
  v_answer jsonb;
begin
  perform governance.refuse_others('console_try_decision');
  if p_decision_id is null then
    perform governance.fail('PT400', 'invalid_argument', 'p_decision_id is needed');
  end if;
  select x.* into r from governance.requests x where x.decision_id = p_decision_id;
  if not found then
    perform governance.fail('PT404', 'not_found',
      format('There is no decision %s, or it is no longer kept', p_decision_id));
  end if;
  select a.user_id into strict v_user_id from governance.accounts a where a.account_id = r.account_id;
  -- Asked as a call asks, and taken back: no guess at what a call would be answered.
  begin
    v_answer := public.authorize_usage('try ' || gen_random_uuid(), v_user_id, r.requested_model,
      (r.facts).estimated_tokens,
      null, r.conversation_id, r.task_type, r.scope_id);
    raise exception using errcode = 'PT0DR', message = 'preview';
  exception when sqlstate 'PT0DR' then null;
  end;
  return jsonb_build_object('decision', v_answer -> 'decision', 'reason', v_answer -> 'reason', 'message',
    v_answer -> 'message', 'balance', v_answer -> 'balance', 'limits', v_answer -> 'limits', 'retry_after_seconds',
    v_answer -> 'retry_after_seconds', 'estimated_tokens', (r.facts).estimated_tokens,
    'had_message', (r.facts).message_characters is not null);
end
$$;
comment on function public.console_try_decision(bigint) is
  'What the same call would be answered now: decided as a call is, then taken back. Its message is not kept, so it is '
  'asked without one (had_message says whether there was one). Errors: invalid_argument, not_found.';
revoke all on function public.console_try_decision(bigint) from public, anon, authenticated;
grant execute on function public.console_try_decision(bigint) to service_role;

-- schemas/32_feed.sql
-- Events in the order in which they became visible.

create function governance.feed_low_id(p_since timestamptz) returns bigint
  language plpgsql stable set search_path = '' as $$
declare
  v_low bigint := 0;
  v_high bigint;
  v_mid bigint;
  v_at timestamptz;
begin
  -- Ids follow time closely: halve until the first call at or after the moment.
  select max(r.decision_id) into v_high from governance.requests r;
  v_high := coalesce(v_high, 0);
  while v_low < v_high loop
    v_mid := (v_low + v_high) / 2;
    select r.created_at into v_at from governance.requests r where r.decision_id > v_mid order by r.decision_id limit 1;
    if v_at is null or v_at >= p_since then v_high := v_mid; else v_low := v_mid + 1; end if;
  end loop;
  return v_low;
end
$$;
comment on function governance.feed_low_id(timestamptz) is 'An id at or before the first call since a moment.';

create function governance.ended_below(p_bound xid8, p_snapshot pg_snapshot) returns boolean
  language sql immutable set search_path = '' as $$
  select p_bound > '0'::xid8 and pg_snapshot_xmax(p_snapshot) >= p_bound
    and not exists (select from pg_snapshot_xip(p_snapshot) x where x < p_bound)
$$;
comment on function governance.ended_below(xid8,
  pg_snapshot) is 'Whether every transaction with a number below the bound had ended when the snapshot was taken; '
    'false for no bound.';

create function governance.history_id() returns text
  language plpgsql stable set search_path = '' as $$
begin
  -- Another cluster, or another line of the same one since it was restored to a moment or a standby took over.
  return (select to_hex(s.system_identifier) || ':' || c.timeline_id
    from pg_catalog.pg_control_system() s cross join pg_catalog.pg_control_checkpoint() c);
exception when insufficient_privilege or undefined_function or feature_not_supported then
  return '';
end
$$;
comment on function governance.history_id() is 'Which history of transactions this server writes; empty where it does '
  'not say.';

create function governance.event_mark(p_id bigint) returns text
  language sql stable set search_path = '' as $$
  -- The last event up to an id, by what no other history has in its place; 0 for none.
  select coalesce((select e.id || ':' || extract(epoch from e.created_at) || ':' || e.xid from (
    (select r.decision_id as id, r.created_at, r.xid from governance.requests r
      where r.decision_id <= p_id order by r.decision_id desc limit 1)
    union all
    (select t.transaction_id, t.created_at, t.xid from governance.token_transactions t
      where t.transaction_id <= p_id order by t.transaction_id desc limit 1)
    union all
    (select h.event_id, h.created_at, h.xid from governance.hold_events h
      where h.event_id <= p_id order by h.event_id desc limit 1)) e
    order by e.id desc limit 1), '0')
$$;
comment on function governance.event_mark(bigint) is 'The last event up to an id, as a cursor keeps it: id, when, and '
  'number of its transaction.';

create function public.usage_events_since(p_cursor text default null, p_limit int default 500,
  p_filter jsonb default '{}') returns jsonb
  language plpgsql stable security definer set search_path = '' set jit = off as $$
declare
  -- A cursor says what its reader has: every event up to low, all that was visible in base, and, while it pages
  -- through what is visible in page, those of them up to after. base_high and page_high are the highest ids visible
  -- then. So an event whose transaction commits late is new to every reader, whatever its id, and nothing comes twice.
  -- base_bound and page_bound are above every transaction number that was given out when those highest ids were read
  -- (0 where that is not known): a snapshot's own xmax is not.
  -- After a restore the history is another one, and its transaction numbers mean nothing in a kept cursor. So a cursor
  -- also names the history that it is of, the last event up to low, and the last one up to the highest id it has seen.
  v_low bigint := 0;
  v_base pg_snapshot;
  v_base_high bigint := 0;
  v_base_bound xid8 := '0';
  v_page pg_snapshot;
  v_page_high bigint := 0;
  v_page_bound xid8 := '0';
  v_after bigint := 0;
  v_now pg_snapshot := pg_current_snapshot();
  v_now_high bigint;
  v_now_bound xid8 := '0';
  v_history text := replace(governance.history_id(), '.', '');
  v_low_mark text := '0';
  v_high_mark text := '0';
  v_seen_id bigint;
  v_seen_at timestamptz;
  v_restarted_after bigint;
  v_has_xid boolean := pg_is_in_recovery() or pg_current_xact_id_if_assigned() is not null;
  v_parts text[];
  v_key text;
  v_account_id bigint;
  v_decision text;
  v_reason text;
  v_model text;
  v_kinds text[];
  v_since timestamptz;
  v_facts boolean := false;
  v_ids bigint[];
  v_all_ids bigint[] := '{}';
  v_room int;
  v_events jsonb;
begin
  perform governance.refuse_others('usage_events_since');
  if p_limit is null or p_limit not between 1 and 5000 then
    perform governance.fail('PT400', 'invalid_argument', 'p_limit is a whole number from 1 to 5000');
  end if;
  if coalesce(jsonb_typeof(p_filter), 'object') <> 'object' then
    perform governance.fail('PT400', 'invalid_argument', 'p_filter is a JSON object');
  end if;
  for v_key in select jsonb_object_keys(coalesce(p_filter, '{}')) loop
    if v_key not in ('user_id', 'decision', 'reason', 'model', 'kinds', 'since', 'facts') then
      perform governance.fail('PT400', 'invalid_argument',
        format('p_filter.%s is unknown: user_id, decision, reason, model, kinds, since, facts are', left(v_key, 64)));
    end if;
  end loop;
  v_decision := p_filter ->> 'decision';
  v_reason := p_filter ->> 'reason';
  v_model := p_filter ->> 'model';
  v_facts := coalesce(p_filter -> 'facts', 'false') = 'true';
  begin
    v_since := (p_filter ->> 'since')::timestamptz;
    if coalesce(p_filter -> 'kinds', 'null') <> 'null' then
      v_kinds := array(select jsonb_array_elements_text(p_filter -> 'kinds'));
    end if;
    if p_cursor is not null and p_cursor <> 'now' then
      v_parts := string_to_array(p_cursor, '.');
      if v_parts[1] <> '3' or cardinality(v_parts) <> 12 then
        raise exception using errcode = 'invalid_text_representation';
      end if;
      v_low := v_parts[2]::bigint;
      v_base := nullif(v_parts[3], '-')::pg_snapshot;
      v_base_high := v_parts[4]::bigint;
      v_page := nullif(v_parts[5], '-')::pg_snapshot;
      v_page_high := v_parts[6]::bigint;
      v_after := v_parts[7]::bigint;
      v_base_bound := v_parts[8]::xid8;
      v_page_bound := v_parts[9]::xid8;
      v_low_mark := replace(v_parts[11], '_', '.');
      v_high_mark := replace(v_parts[12], '_', '.');
      v_seen_id := split_part(v_high_mark, ':', 1)::bigint;
      v_seen_at := to_timestamp(nullif(split_part(v_high_mark, ':', 2), '')::float8);
    end if;
  exception when data_exception then
    perform governance.fail('PT400', 'invalid_argument',
      'p_cursor is null, "now", or a next_cursor as it was answered; p_filter.since is a moment, p_filter.kinds a '
      'list');
  end;
  if p_filter ->> 'user_id' is not null then
    select a.account_id into v_account_id from governance.accounts a where a.user_id = p_filter ->> 'user_id';
    if v_account_id is null then
      -- Nobody of that name yet: nothing has happened, and the reader keeps its place.
      v_account_id := -1;
    end if;
  end if;
  select greatest((select max(r.decision_id) from governance.requests r),
    (select max(t.transaction_id) from governance.token_transactions t),
    (select max(h.event_id) from governance.hold_events h), 0) into v_now_high;
  -- Writers have their number before their event id. So whoever took an id up to the highest has a number below the one
  -- that this transaction takes now.
  if not v_has_xid then
    v_now_bound := pg_current_xact_id();
  end if;
  if v_parts is not null then
    if pg_is_in_recovery() and split_part(v_parts[10], ':', 1) = split_part(v_history, ':', 1) then
      -- A standby may be behind the reader: whether the history is another one is for the primary to say.
      v_history := v_parts[10];
    elsif v_parts[10] <> v_history or (not pg_is_in_recovery()
      and (greatest(pg_snapshot_xmax(v_base), pg_snapshot_xmax(v_page)) > greatest(pg_snapshot_xmax(v_now), v_now_bound)
      -- Retention may have dropped the event; nothing else does.
      or (governance.event_mark(v_seen_id) <> v_high_mark and v_seen_at > governance.now()
        - interval '1 day' * (select c.decision_retention_days - 1 from governance.active_config c))))
    then
      -- What the reader has up to low is in this history too where the event at low is; else all of it comes again.
      if v_low_mark = '0' or governance.event_mark(v_low) <> v_low_mark then
        v_low := case when v_since is null then 0 else governance.feed_low_id(v_since - interval '1 hour') end;
      end if;
      v_base := null;
      v_base_high := 0;
      v_base_bound := '0';
      v_page := null;
      v_after := 0;
      v_restarted_after := v_low;
    end if;
  end if;
  if p_cursor = 'now' then
    -- Transactions that began more than an hour ago are not waited for.
    v_low := governance.feed_low_id(governance.now() - interval '1 hour');
    return jsonb_build_object('events', '[]'::jsonb, 'next_cursor',
      format('3.%s.%s.%s.-.0.0.%s.0.%s.%s.%s', v_low, v_now, v_now_high, v_now_bound, v_history,
        replace(governance.event_mark(v_low), '.', '_'), replace(governance.event_mark(v_now_high), '.', '_')),
      'restarted_after', null);
  end if;
  if p_cursor is null and v_since is not null then
    v_low := governance.feed_low_id(v_since - interval '1 hour');
  end if;

  loop
    if v_page is null then
      v_page := v_now;
      v_page_high := v_now_high;
      v_page_bound := v_now_bound;
      v_after := v_low;
    end if;
    v_room := p_limit - cardinality(v_all_ids);
    select array_agg(e.id order by e.id) into v_ids from (
      select u.id from (
        (select r.decision_id as id from governance.requests r
          where r.decision_id > v_after
            and (pg_visible_in_snapshot(r.xid, v_page) or r.xid >= pg_snapshot_xmax(v_now))
            and (v_base is null or not (pg_visible_in_snapshot(r.xid, v_base) or r.xid >= pg_snapshot_xmax(v_now)))
            and (v_account_id is null or r.account_id = v_account_id)
              and (v_decision is null or r.decision = v_decision)
            and (v_reason is null or r.reason = v_reason)
              and (v_model is null or r.model = v_model or r.requested_model = v_model)
            and (v_since is null or r.created_at >= v_since)
            and (v_kinds is null or case when r.decision = 'block' then 'blocked' else 'authorized' end = any (v_kinds))
          order by r.decision_id limit v_room)
        union all
        (select t.transaction_id from governance.token_transactions t
          where t.transaction_id > v_after and t.transaction_type = 'usage' and t.decision_id is not null
            and (pg_visible_in_snapshot(t.xid, v_page) or t.xid >= pg_snapshot_xmax(v_now))
            and (v_base is null or not (pg_visible_in_snapshot(t.xid, v_base) or t.xid >= pg_snapshot_xmax(v_now)))
            and (v_account_id is null or t.account_id = v_account_id) and (v_since is null or t.created_at >= v_since)
            and (v_kinds is null or 'settled' = any (v_kinds))
            and ((v_decision is null and v_reason is null and v_model is null) or exists (
              select from governance.requests r
                where r.decision_id = t.decision_id and (v_decision is null or r.decision = v_decision)
                and (v_reason is null or r.reason = v_reason)
                  and (v_model is null or r.settled_model = v_model or r.requested_model = v_model)))
          order by t.transaction_id limit v_room)
        union all
        (select h.event_id from governance.hold_events h
          where h.event_id > v_after
            and (pg_visible_in_snapshot(h.xid, v_page) or h.xid >= pg_snapshot_xmax(v_now))
            and (v_base is null or not (pg_visible_in_snapshot(h.xid, v_base) or h.xid >= pg_snapshot_xmax(v_now)))
            and (v_account_id is null or h.account_id = v_account_id) and (v_since is null or h.created_at >= v_since)
            and (v_kinds is null or h.kind = any (v_kinds))
            and ((v_decision is null and v_reason is null and v_model is null) or exists (
              select from governance.requests r
                where r.decision_id = h.decision_id and (v_decision is null or r.decision = v_decision)
                and (v_reason is null or r.reason = v_reason)
                  and (v_model is null or r.model = v_model or r.requested_model = v_model)))
          order by h.event_id limit v_room)
      ) u order by u.id limit v_room
    ) e;
    v_all_ids := v_all_ids || coalesce(v_ids, '{}');
    if cardinality(v_ids) = v_room then
      v_after := v_ids[v_room];
      exit;
    end if;
    -- All that page shows is delivered: it becomes the base. Where every transaction below a bound had ended by then,
    -- nothing can come any more at or below the highest id that goes with it.
    if governance.ended_below(v_page_bound, v_page) then
      v_low := greatest(v_low, v_page_high);
    elsif governance.ended_below(v_base_bound, v_page) then
      v_low := greatest(v_low, v_base_high);
    end if;
    v_base := v_page;
    v_base_high := v_page_high;
    v_base_bound := v_page_bound;
    if v_page::text = v_now::text then
      v_page := null;
      v_after := 0;
      exit;
    end if;
    v_page := null;
  end loop;

  select coalesce(jsonb_agg(e.event || case
    when v_facts and e.event ->> 'kind' in ('authorized', 'blocked') then e.facts else '{}' end order by e.id), '[]')
    into v_events
  from (
    select i.id,
      case when q.decision_id = i.id and t.transaction_id is null then
        jsonb_build_object('facts', governance.facts_json(q),
          'plan', (select jsonb_build_object('monthly_allowance', p.monthly_allowance, 'daily_limit', q.daily_limit,
            'monthly_limit', q.monthly_limit) from governance.plans p where p.plan_id = q.plan_id),
          'local_day', (q.created_at at time zone a.timezone)::date, 'matched',
            governance.rule_names(q.matched_version_ids, 'enforce')) end as facts,
      jsonb_build_object(
        'event_id', i.id,
        'kind', case when t.transaction_id is not null then 'settled' when h.event_id is not null then h.kind
          when q.decision = 'block' then 'blocked' else 'authorized' end,
        'at', coalesce(t.created_at, h.created_at, q.created_at),
        'request_id', coalesce(q.request_id, t.reference), 'decision_id',
          coalesce(q.decision_id, t.decision_id, h.decision_id),
        'user_id', a.user_id, 'display_name', a.display_name, 'plan_id', coalesce(q.plan_id, a.plan_id),
        'decision', q.decision, 'reason', case when h.event_id is not null then h.reason
          else q.reason end, 'http_status', q.http_status,
        'requested_model', q.requested_model, 'model', case
          when t.transaction_id is not null then coalesce(q.settled_model, q.model) else q.model end,
        'task_type', q.task_type, 'scope_id', q.scope_id, 'conversation_id', q.conversation_id,
        'tokens', case when t.transaction_id is not null then coalesce(q.charged_tokens, -t.amount)
          when h.event_id is not null then h.tokens
          when q.decision = 'block' then (q.facts).estimated_tokens else q.reserved_tokens end,
        'input_tokens', case when t.transaction_id is not null then q.input_tokens end,
        'output_tokens', case when t.transaction_id is not null then q.output_tokens end,
        'cost_micros', case when t.transaction_id is not null then q.cost_micros end,
        'currency', case when t.transaction_id is not null then q.currency end,
        'warnings', coalesce(to_jsonb(q.warnings), '[]'),
        'rule_name', (select v.rule_name from governance.rule_versions v where v.version_id = q.rule_version_id),
        'rule_names', governance.rule_names(q.matched_version_ids)) as event
    from unnest(v_all_ids) i(id)
    left join governance.token_transactions t on t.transaction_id = i.id
    left join governance.hold_events h on h.event_id = i.id
    left join governance.requests q on q.decision_id = coalesce(t.decision_id, h.decision_id, i.id)
    join governance.accounts a on a.account_id = coalesce(t.account_id, h.account_id, q.account_id)
  ) e;
  return jsonb_build_object('events', v_events,
    'next_cursor', format('3.%s.%s.%s.%s.%s.%s.%s.%s.%s.%s.%s', v_low, coalesce(v_base::text, '-'), v_base_high,
      coalesce(v_page::text, '-'), v_page_high, v_after, v_base_bound, v_page_bound, v_history,
      replace(governance.event_mark(v_low), '.', '_'),
      replace(governance.event_mark(greatest(v_base_high, v_page_high)), '.', '_')),
    'restarted_after', v_restarted_after);
end
$$;
comment on function public.usage_events_since(text, int, jsonb) is
  'What happened after a cursor (null: from the beginning, or from p_filter.since; "now": from now on), oldest first; '
  'late commits come late, nothing comes twice. Filter: user_id, decision, reason, model, kinds (authorized, blocked, '
  'settled, released, expired, quarantined), since, facts. A page shorter than p_limit is the end for now. After a '
  'restore restarted_after is an event id, else null: forget what you have with a higher id, it is not of this '
  'history; what is now comes again from there. Errors: invalid_argument.';
revoke all on function public.usage_events_since(text, int, jsonb) from public, anon, authenticated;
grant execute on function public.usage_events_since(text, int, jsonb) to service_role;

create function governance.check_event_filter(p_filter jsonb) returns void
  language plpgsql immutable set search_path = '' as $$
begin
  if p_filter is null or p_filter = '{}' then return; end if;
  if jsonb_typeof(p_filter) <> 'object' or exists (
    select from jsonb_each(p_filter) f where f.value <> 'null' and not (case f.key
      when 'kinds' then jsonb_typeof(f.value) = 'array' and jsonb_array_length(f.value) <= 20
      when 'user_id' then jsonb_typeof(f.value) = 'string' when 'decision' then jsonb_typeof(f.value) = 'string'
      when 'reason' then jsonb_typeof(f.value) = 'string' when 'model' then jsonb_typeof(f.value) = 'string'
        else false end)) then
    perform governance.fail('PT400', 'invalid_argument',
      'p_filter has user_id, decision, reason, model (texts) and kinds (a list) only');
  end if;
end
$$;
comment on function governance.check_event_filter(jsonb) is 'Refuses a filter of events that is not understood: better '
  'than to show everything.';

create function public.console_events_before(p_before_event_id bigint default null, p_limit int default 200,
  p_filter jsonb default '{}') returns jsonb
  language plpgsql stable security definer set search_path = '' set jit = off as $$
declare
  -- A rare filter ends the page here, with what was found and where to go on: the cost of a page has a bound.
  c_most constant int := 10000;
  v_filter jsonb := coalesce(p_filter, '{}');
  v_high bigint := coalesce(p_before_event_id, 9223372036854775807);
  -- One more than is asked for tells whether there is more.
  v_page int := greatest(p_limit + 1, 50);
  v_account_id bigint;
  v_until timestamptz := 'infinity';
  v_calls text := 'true';
  v_entries text := 'true';
  v_holds text := 'true';
  v_kinds text[];
  v_order text := 'r.decision_id desc';
  v_looked int := 0;
  v_floor bigint;
  v_rows jsonb;
  v_events jsonb := '[]';
begin
  perform governance.refuse_others('console_events_before');
  perform governance.check_limit(p_limit, 1000);
  perform governance.check_event_filter(p_filter);
  if jsonb_typeof(v_filter -> 'kinds') = 'array' then
    v_kinds := array(select jsonb_array_elements_text(v_filter -> 'kinds'));
  end if;
  if v_filter ->> 'user_id' is not null then
    select a.account_id into v_account_id from governance.accounts a where a.user_id = v_filter ->> 'user_id';
    if v_account_id is null then
      return jsonb_build_object('events', '[]'::jsonb, 'next_before_event_id', null);
    end if;
    -- Calls of one account stand in one order by time and by id, and by time they have an index.
    select x.at into v_until from (
      select r.created_at as at from governance.requests r where r.decision_id = v_high
      union all select t.created_at from governance.token_transactions t where t.transaction_id = v_high
      union all select h.created_at from governance.hold_events h where h.event_id = v_high) x;
    v_until := coalesce(v_until, 'infinity');
    v_calls := format('account_id = %s', v_account_id);
    v_entries := v_calls;
    v_holds := v_calls;
    v_order := 'r.created_at desc, r.decision_id desc';
  end if;
  if v_filter ->> 'reason' is not null or v_filter ->> 'decision' = 'block' then
    -- Only a refusal has a reason, and nothing comes after it.
    if v_filter ->> 'reason' is not null and v_account_id is null then
      -- The index that has them in order of the reason first, and no walk through everything else.
      v_order := 'r.reason desc, r.decision_id desc';
    end if;
    v_calls := v_calls || ' and r.decision = ''block''' || case
      when v_filter ->> 'reason' is not null then format(' and r.reason = %L', v_filter ->> 'reason') else '' end;
    v_entries := 'false';
    v_holds := 'false';
  end if;
  if v_kinds is not null then
    if not v_kinds && '{authorized,blocked}' then v_calls := 'false'; end if;
    if not v_kinds && '{settled}' then v_entries := 'false'; end if;
    if not v_kinds && '{released,expired,quarantined}' then v_holds := 'false'; end if;
  end if;
  loop
    execute format($q$
      with calls as (
        select r.decision_id as id, case r.decision when 'block' then 'blocked'
          else 'authorized' end as kind, r.created_at as at, r.decision_id,
          case r.decision when 'block' then (r.facts).estimated_tokens
            else r.reserved_tokens end as tokens, null::text as reason
        from governance.requests r where r.decision_id < $1 and r.created_at <= $2 and %1$s order by %2$s limit $3
      ), entries as (
        select t.transaction_id as id, 'settled' as kind, t.created_at as at, t.decision_id, null::bigint as tokens,
          null::text as reason
        from governance.token_transactions t
        where t.transaction_id < $1 and t.transaction_type = 'usage' and t.decision_id is not null and %3$s
          order by t.transaction_id desc limit $3
      ), holds as (
        select h.event_id as id, h.kind, h.created_at as at, h.decision_id, h.tokens, h.reason
        from governance.hold_events h where h.event_id < $1 and %4$s order by h.event_id desc limit $3
      ), floor as materialized (
        -- Below the last row of a source that has more, other sources' rows would come too early.
        select max(x.id) as id from (select min(id) as id from calls having count(*) = $3
          union all select min(id) from entries having count(*) = $3
          union all select min(id) from holds having count(*) = $3) x
      ), events as (
        select e.* from (select * from calls union all select * from entries union all select * from holds) e, floor f
        where e.id >= coalesce(f.id, 0) and ($4 is null or e.kind = any ($4))
      )
      select (select f.id from floor f), (
        -- As usage_events_since has it; a test holds the two together.
        select coalesce(jsonb_agg(jsonb_build_object('event_id', p.id, 'kind', p.kind, 'at', p.at, 'request_id',
          p.request_id, 'decision_id', p.decision_id,
            'user_id', a.user_id, 'display_name', a.display_name, 'plan_id', p.plan_id, 'decision', p.decision,
            'reason', case when p.kind in ('released', 'expired', 'quarantined') then p.hold_reason
              else p.reason end, 'http_status', p.http_status,
            'requested_model', p.requested_model, 'model', case p.kind
              when 'settled' then coalesce(p.settled_model, p.model) else p.model end,
            'task_type', p.task_type, 'scope_id', p.scope_id, 'conversation_id', p.conversation_id, 'tokens',
              coalesce(p.tokens, p.charged_tokens, 0),
            'input_tokens', case p.kind when 'settled' then p.input_tokens end, 'output_tokens', case p.kind
              when 'settled' then p.output_tokens end,
            'cost_micros', case p.kind when 'settled' then p.cost_micros end, 'currency', case p.kind
              when 'settled' then p.currency end,
            'warnings', coalesce(to_jsonb(p.warnings), '[]'),
            'rule_name', case when p.rule_version_id is not null
              then (select v.rule_name from governance.rule_versions v where v.version_id = p.rule_version_id) end,
            'rule_names', case when p.matched_version_ids is not null then governance.rule_names(p.matched_version_ids)
              else '[]' end
          ) order by p.id desc), '[]') from (
          select e.id, e.kind, e.at, e.tokens, e.reason as hold_reason, r.*
          from events e
          cross join lateral (select q.request_id, q.decision_id, q.account_id, q.plan_id, q.decision, q.reason,
            q.http_status, q.requested_model, q.model,
              q.settled_model, q.task_type, q.scope_id, q.conversation_id, q.charged_tokens, q.input_tokens,
                q.output_tokens, q.cost_micros, q.currency,
              q.warnings, q.rule_version_id, q.matched_version_ids
            from governance.requests q where q.decision_id = e.decision_id limit 1) r
          where ($5 is null or r.decision = $5) and ($6 is null or $6 in (r.model, r.requested_model, r.settled_model))
          order by e.id desc limit $7) p
        join governance.accounts a on a.account_id = p.account_id)
      $q$, v_calls, v_order, v_entries, v_holds)
    into v_floor, v_rows
    using v_high, v_until, v_page, v_kinds, v_filter ->> 'decision', v_filter ->> 'model',
      p_limit + 1 - jsonb_array_length(v_events);
    v_events := v_events || v_rows;
    v_looked := v_looked + v_page;
    exit when jsonb_array_length(v_events) > p_limit or v_floor is null or v_looked >= c_most;
    v_high := v_floor;
    v_page := least(v_page * 4, c_most);
  end loop;
  return jsonb_build_object(
    'events', case when jsonb_array_length(v_events) > p_limit then v_events - p_limit else v_events end,
    'next_before_event_id', case
      when jsonb_array_length(v_events) > p_limit then (v_events -> (p_limit - 1) ->> 'event_id')::bigint
      else v_floor end);
end
$$;
comment on function public.console_events_before(bigint, int, jsonb) is
  'What happened, newest first; p_filter may have user_id, decision, reason, model, kinds. next_before_event_id goes '
  'on from here, null at the end; where the filter is rare a page may hold fewer events than asked, and there are '
  'more. Errors: invalid_argument.';
revoke all on function public.console_events_before(bigint, int, jsonb) from public, anon, authenticated;
grant execute on function public.console_events_before(bigint, int, jsonb) to service_role;

-- schemas/33_authorize.sql
-- The path of a call, first half: may this user make it, and its tokens are held. docs/RULES.md fixes what is decided.
-- One function decides any number of calls in one batch; a single call is a batch of one.

-- What a decision changes of its account: counted in memory from call to call, written once.
create type governance.authorize_state as (account_id bigint, last_message_at timestamptz, rapid_messages int,
  day_messages int, month_messages int, day_calls int, month_calls int, reserved_tokens bigint,
  holds_from timestamptz, holds_check_at timestamptz,
  -- Messages and conversations of this account's calls so far in this batch
  hashes bigint[], conversations text[]);

-- What is decided of a call that something stops, warns of or changes.
create type governance.judgement as (account_id bigint, decision_id bigint, decision text, reason text,
  http_status int, message text, warnings text[],
  model text, truncate_to_words int, retry_after_seconds int, upgrade_plan text, upgrade jsonb, cost_factor numeric,
  reserved_tokens bigint, version_id bigint, matched_version_ids bigint[], rule_blocked_until timestamptz,
  flag_reason text, flag_version_id bigint);

create function governance.check_authorize(e governance.authorize_arguments) returns void
  language plpgsql immutable set search_path = '' as $$
begin
  perform governance.check_id('p_request_id', e.request_id);
  perform governance.check_id('p_user_id', e.user_id);
  perform governance.check_id('p_model', e.model, 200);
  perform governance.check_optional('p_conversation_id', e.conversation_id, 255);
  perform governance.check_optional('p_task_type', e.task_type, 255);
  perform governance.check_optional('p_scope_id', e.scope_id, 255);
  if e.estimated_tokens not between 1 and 9007199254740991 then
    perform governance.fail('PT400', 'invalid_argument',
      'p_estimated_tokens is a whole number of tokens from 1 up to 2^53 - 1, or null');
  end if;
  if octet_length(e.message) > 4194304 then
    perform governance.fail('PT400', 'invalid_argument', 'p_message is larger than 4 MB');
  end if;
  if e.complexity is not null and (e.complexity = 'NaN' or e.complexity not between 0 and 1) then
    perform governance.fail('PT400', 'invalid_argument', 'p_complexity is a number from 0 to 1');
  end if;
end
$$;
comment on function governance.check_authorize(governance.authorize_arguments) is
  'Refuses what authorize_usage cannot take.';

create function governance.judge_call(a governance.accounts, p governance.plans, c governance.active_config,
  f governance.facts, p_message text, p_phrases text, p_now timestamptz) returns governance.judgement
  language plpgsql stable set search_path = '' as $$
declare
  j governance.judgement;
  v governance.verdict;
  v_need bigint;
  v_retry_at timestamptz;
  v_percent int;
begin
  if not (a.blocked_at is not null and (a.blocked_until is null or a.blocked_until > p_now)
    or coalesce(a.rule_blocked_until > p_now, false)) then
    v := governance.evaluate_rules(f, p_message, p_phrases, p.monthly_allowance, p.daily_limit, p.monthly_limit,
      p_now);
  end if;
  v_need := case when v.cost_factor is null then f.estimated_tokens
    else least(ceil(f.estimated_tokens * v.cost_factor), 9007199254740991) end;
  if a.blocked_at is not null and (a.blocked_until is null or a.blocked_until > p_now) then
    j.reason := 'user_blocked';
    v_retry_at := a.blocked_until;
  elsif a.rule_blocked_until > p_now then
    j.reason := a.rule_block_reason;
    j.message := a.rule_block_message;
    j.version_id := a.rule_block_version_id;
    v_retry_at := a.rule_blocked_until;
  elsif v.blocked then
    j.reason := v.reason;
    j.message := v.message;
    j.version_id := v.version_id;
    j.rule_blocked_until := p_now + v.block_minutes * interval '1 minute';
    v_retry_at := j.rule_blocked_until;
  elsif f.tokens_today + v_need > p.daily_limit then
    j.reason := 'daily_limit';
    v_retry_at := a.day_ends_at;
  elsif f.tokens_this_month + v_need > p.monthly_limit then
    j.reason := 'monthly_limit';
    v_retry_at := a.month_ends_at;
  elsif v_need > f.available_tokens then
    j.reason := 'insufficient_tokens';
  else
    if p.daily_limit > 0 then
      select max(w) into v_percent from unnest(p.warn_at) w
        where (f.tokens_today + v_need)::numeric * 100 >= p.daily_limit::numeric * w;
      if v_percent is not null then
        v.warnings := v.warnings || format('%s%% of the daily limit is used.', v_percent);
      end if;
    end if;
    if p.monthly_limit > 0 then
      select max(w) into v_percent from unnest(p.warn_at) w
        where (f.tokens_this_month + v_need)::numeric * 100 >= p.monthly_limit::numeric * w;
      if v_percent is not null then
        v.warnings := v.warnings || format('%s%% of the monthly limit is used.', v_percent);
      end if;
    end if;
  end if;

  if j.reason is not null then
    j.http_status := governance.http_status(j.reason);
    j.message := coalesce(j.message, governance.reason_message(j.reason));
    if v_retry_at is null and j.http_status = 429 then
      v_retry_at := case j.reason
        when 'daily_limit' then a.day_ends_at
        when 'monthly_limit' then a.month_ends_at
        when 'token_hogging' then a.day_ends_at
        when 'budget_exhausted' then a.month_ends_at
        when 'spam_identical' then p_now + c.identical_window_minutes * interval '1 minute'
        when 'bot_behavior' then p_now + interval '2 seconds'
        else p_now + interval '1 minute' end;
    end if;
    if v_retry_at is not null then
      j.retry_after_seconds := least(ceil(extract(epoch from v_retry_at - p_now)), 2147483647);
    end if;
    if j.reason in ('insufficient_tokens', 'daily_limit', 'monthly_limit') and p.upgrade_to is not null then
      j.upgrade_plan := p.upgrade_to;
      j.upgrade := governance.upgrade_json(p.upgrade_to);
    end if;
  end if;
  j.decision := case when j.reason is not null then 'block' when v.warnings is not null then 'warn' else 'allow' end;
  j.reserved_tokens := case when j.reason is null then v_need else 0 end;
  j.warnings := v.warnings;
  j.model := v.model;
  j.truncate_to_words := v.truncate_to_words;
  j.cost_factor := v.cost_factor;
  j.matched_version_ids := v.matched_version_ids;
  -- An account is flagged once.
  j.flag_reason := case when a.flagged_at is null then v.flag_reason end;
  j.flag_version_id := v.flag_version_id;
  return j;
end
$$;
comment on function governance.judge_call(governance.accounts, governance.plans, governance.active_config,
  governance.facts, text, text, timestamptz) is 'Steps 4 to 10 of docs/RULES.md for a call that something stops, '
    'warns of or changes.';

create function governance.upgrade_json(p_plan_id text) returns jsonb
  language sql stable set search_path = '' as $$
  select jsonb_build_object('plan_id', p.plan_id, 'name', p.name) from governance.plans p where p.plan_id = p_plan_id
$$;
comment on function governance.upgrade_json(text) is 'The plan that an answer offers; null for none.';

create function governance.punish_account(j governance.judgement, p_now timestamptz) returns void
  language plpgsql set search_path = '' as $$
begin
  if j.rule_blocked_until is not null then
    update governance.accounts y set rule_blocked_until = j.rule_blocked_until, rule_block_reason = j.reason,
      rule_block_message = j.message, rule_block_version_id = j.version_id
    where y.account_id = j.account_id;
    insert into governance.audit_log (created_at, action, account_id, rule_name, reason, details)
    select p_now, 'rule_block', j.account_id, x.rule_name, j.reason,
      jsonb_build_object('until', j.rule_blocked_until, 'rule_version', x.version, 'decision_id', j.decision_id)
    from governance.rule_versions x where x.version_id = j.version_id;
  end if;
  if j.flag_reason is not null then
    update governance.accounts y set flagged_at = p_now, flag_reason = j.flag_reason, flagged_by = 'rule',
      version = y.version + 1 where y.account_id = j.account_id;
    insert into governance.audit_log (created_at, action, account_id, rule_name, reason, details)
    select p_now, 'rule_flag', j.account_id, x.rule_name, j.flag_reason,
      jsonb_build_object('rule_version', x.version, 'decision_id', j.decision_id)
    from governance.rule_versions x where x.version_id = j.flag_version_id;
  end if;
end
$$;
comment on function governance.punish_account(governance.judgement, timestamptz) is
  'Blocks the account for a while or flags it, as a rule said of a call.';

create function governance.repeated_decision(q governance.requests, p_account_id bigint, p_request_id text,
  p_fingerprint bigint) returns json
  language plpgsql stable set search_path = '' as $$
begin
  if (q.account_id = p_account_id and q.fingerprint = p_fingerprint) is not true then
    perform governance.fail('PT409', 'idempotency_conflict',
      format('Request "%s" was made before with other parameters', left(p_request_id, 64)));
  end if;
  return governance.decision_answer(q, q.facts, governance.upgrade_json(q.upgrade_plan),
    (select p.fail_mode from governance.plans p where p.plan_id = q.plan_id));
end
$$;
comment on function governance.repeated_decision(governance.requests, bigint, text, bigint) is
  'The answer of a call whose id is taken by a row: its own from before, or a conflict with another call.';

create function governance.authorize_calls(p_calls governance.authorize_arguments[], p_waits boolean default true)
  returns json[]
  -- Plans of these statements depend on no parameter: without the setting each call would plan anew, to prune
  -- partitions. And a connection keeps its plans: one made while a table was empty would scan the grown table for ever.
  language plpgsql set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off
    set jit = off as $$
declare
  c governance.active_config;
  -- A call with what was read for it; its account and plan as they were read; and what this batch changed so far.
  x record;
  a governance.accounts;
  p governance.plans;
  s governance.authorize_state;
  f governance.facts;
  j governance.judgement;
  q governance.requests;
  v_call governance.authorize_arguments;
  v_now timestamptz;
  v_hold_ends_at timestamptz;
  v_is_plain boolean;
  v_folded text;
  v_phrases text;
  v_lock_key bigint;
  v_fingerprint bigint;
  v_conversation int;
  v_estimate bigint;
  v_has_taken_ids boolean := false;
  v_count bigint;
  v_messages governance.judged_message[];
  v_keys governance.request_keys[];
  v_requests governance.requests[];
  v_states governance.authorize_state[];
  v_judgements governance.judgement[];
  v_answers json[];
begin
  foreach v_call in array p_calls loop
    if v_call.request_id is null or v_call.user_id is null or v_call.model is null
      or least(btrim(v_call.request_id), btrim(v_call.user_id), btrim(v_call.model)) = ''
      or greatest(length(v_call.request_id), length(v_call.user_id), length(v_call.model) + 55,
        length(v_call.conversation_id), length(v_call.task_type), length(v_call.scope_id)) > 255
      or v_call.estimated_tokens not between 1 and 9007199254740991 or octet_length(v_call.message) > 4194304
      or v_call.complexity is not null then
      perform governance.check_authorize(v_call);
    end if;
    -- Plain text of single-spaced words needs no collapsing; folding it cannot change its words.
    v_is_plain := octet_length(v_call.message) <= governance.judged_characters()
      and char_length(v_call.message) = octet_length(v_call.message)
      and v_call.message !~ '[^\x20-\x7e]|  |^ | $';
    v_folded := case when v_is_plain then lower(v_call.message collate "C") else governance.fold(v_call.message) end;
    -- As governance.lock_key, which would cost more than all the rest of this line.
    v_lock_key := hashtextextended(v_call.user_id, 7254);
    v_messages := array_append(v_messages, row(v_folded, hashtextextended(
      case when v_is_plain then v_folded else governance.identity_text(v_call.message, v_folded) end,
      v_lock_key), char_length(v_call.message),
      case when v_is_plain then char_length(v_folded) - char_length(replace(v_folded, ' ', ''))
        + (v_folded <> '')::int else governance.count_words(v_call.message) end,
      v_lock_key)::governance.judged_message);
  end loop;
  -- All accounts' locks, always in the same order: no two batches wait for each other.
  if cardinality(p_calls) = 1 then
    -- As an expression, at a fifth of what a statement costs.
    perform pg_advisory_xact_lock(v_lock_key);
  elsif p_waits then
    perform pg_advisory_xact_lock(l.lock_key) from (select distinct m.lock_key from unnest(v_messages) m order by 1) l;
  elsif exists (select from unnest(v_messages) m where not pg_try_advisory_xact_lock(m.lock_key)) then
    raise lock_not_available using message = 'Another transaction holds an account of the batch';
  end if;
  select * into c from governance.active_config;
  -- The transaction number before any event id: readers of the feed rely on it.
  v_now := case when pg_current_xact_id() is not null then
    coalesce(c.test_clock_at, clock_timestamp() + coalesce(c.test_clock_offset, interval '0')) end;
  v_hold_ends_at := v_now + c.hold_minutes * interval '1 minute';
  -- Not "and": null and a call is a call.
  if c.rules_due_at <= v_now then
    perform governance.end_timed_rules(v_now);
    select * into c from governance.active_config;
  end if;

  loop
    for x in
      select u.*, b as account, (select o from governance.plans o where o.plan_id = b.plan_id) as plan,
        -- Facts that cost are worked out only where a rule reads them.
        case when c.rules_read_identical and b.last_message_at is not null then (
          select count(*) from (
            select from governance.request_keys y
            where y.account_id = b.account_id and y.message_hash = u.message_hash
              and y.created_at > greatest(v_now - c.identical_window_minutes * interval '1 minute', b.forgiven_at)
            limit 999) n) end as identical_messages
      from unnest(p_calls, v_messages) with ordinality u(request_id, user_id, model, estimated_tokens, message,
        conversation_id, task_type, scope_id, complexity, folded, message_hash, characters, words, lock_key, place)
      left join governance.accounts b on b.user_id = u.user_id
      order by u.user_id collate "C", u.place
    loop
      if x.user_id is distinct from a.user_id then
        if s.day_calls > a.day_calls then v_states := array_append(v_states, s); end if;
        a := x.account;
        p := x.plan;
        if a.account_id is null or governance.needs_roll(a, v_now) then
          -- Twice, as a lot that was kept for a hold may end once a new allowance is there.
          for v_count in 1..2 loop
            if a.account_id is null then
              perform governance.create_account(x.user_id, v_now);
            else
              perform governance.roll_account(a.account_id, v_now);
            end if;
            select * into strict a from governance.accounts y where y.user_id = x.user_id;
            exit when not governance.needs_roll(a, v_now);
          end loop;
          select * into strict p from governance.plans y where y.plan_id = a.plan_id;
        end if;
        if a.raised_until > v_now then
          p.daily_limit := governance.raised_limit(p.daily_limit, a.raised_daily_limit, a.raised_until, v_now);
          p.monthly_limit := governance.raised_limit(p.monthly_limit, a.raised_monthly_limit, a.raised_until, v_now);
        end if;
        s := row(a.account_id, a.last_message_at, a.rapid_messages, a.day_messages, a.month_messages, a.day_calls,
          a.month_calls, a.reserved_tokens, a.holds_from, a.holds_check_at, null, null)::governance.authorize_state;
      end if;
      v_fingerprint := hashtextextended(row(x.user_id, x.model, x.estimated_tokens, x.message, x.conversation_id,
        x.task_type, x.scope_id, round(x.complexity, 3))::text, 0);
      if v_has_taken_ids then
        select r.* into q from governance.request_keys k
          join governance.requests r on r.decision_id = k.decision_id and r.created_at = k.created_at
        where k.request_id = x.request_id;
        if q.decision_id is null then
          select * into q from unnest(v_requests) r where r.request_id = x.request_id;
        end if;
        if q.decision_id is not null then
          v_answers[x.place] := governance.repeated_decision(q, a.account_id, x.request_id, v_fingerprint);
          continue;
        end if;
      end if;

      if x.conversation_id <> '' then
        select (y.facts).conversation_messages into v_conversation from governance.requests y
        where y.account_id = a.account_id and y.conversation_id = x.conversation_id
        order by y.created_at desc, y.decision_id desc limit 1;
      end if;
      if x.estimated_tokens is null then
        select y.tokens into v_estimate from governance.estimates y where y.task_type = x.task_type;
        v_estimate := coalesce(v_estimate, (x.characters + 3) / 4 + c.reply_tokens, c.default_estimate);
      end if;
      if c.rules_read_words then v_phrases := governance.space_phrases(x.folded); end if;
      f := row(
        a.day_tokens + s.reserved_tokens,
        a.month_tokens + s.reserved_tokens,
        case when x.message is null then s.day_messages else s.day_messages + 1 end,
        case when not c.rules_read_identical then null when x.message is null then 0
          else least(coalesce(x.identical_messages, 0) + 1
            + coalesce(cardinality(array_positions(s.hashes, x.message_hash)), 0), 1000) end,
        case when x.message is not null then round(extract(epoch from v_now - s.last_message_at), 3) end,
        case when x.message is null then 0
          when s.last_message_at > v_now - interval '2 seconds'
            and (a.forgiven_at is null or s.last_message_at > a.forgiven_at) then least(s.rapid_messages + 1, 1000000)
          else 1 end,
        case when x.conversation_id <> '' then coalesce(v_conversation, 0)
          + coalesce(cardinality(array_positions(s.conversations, x.conversation_id)), 0)
          + case when x.message is null then 0 else 1 end end,
        x.words, x.characters, coalesce(x.estimated_tokens, v_estimate),
        case when c.rules_read_words then
          governance.rules_complexity(round(x.complexity, 3), v_phrases, x.characters) else round(x.complexity, 3) end,
        date_part('hour', v_now at time zone 'UTC'), date_part('hour', v_now at time zone a.timezone),
        date_part('isodow', v_now at time zone a.timezone),
        a.plan_id, x.model, case when c.rules_read_provider then governance.provider_of(x.model, v_now) end,
        nullif(x.task_type, ''), nullif(x.scope_id, ''),
        a.subscription_tokens + a.purchased_tokens + a.promotional_tokens - s.reserved_tokens,
        null, a.day_cost_micros, a.month_cost_micros, floor(date_part('epoch', v_now - a.created_at) / 86400),
        a.flagged_at is not null, case
          when c.rules_read_words then governance.rules_topic(v_phrases) end)::governance.facts;
      if p.daily_limit is not null or p.monthly_limit is not null then
        f.usage_percent := greatest(
          case when p.daily_limit = 0 then 100 else f.tokens_today * 100 / p.daily_limit end,
          case when p.monthly_limit = 0 then 100 else f.tokens_this_month * 100 / p.monthly_limit end);
      elsif p.monthly_allowance > 0 then
        f.usage_percent := f.tokens_this_month * 100 / p.monthly_allowance;
      end if;
      -- Most calls are stopped by nothing: one expression asks all rules at once, and only then they are walked.
      if a.blocked_at is not null or a.rule_blocked_until > v_now or f.estimated_tokens > f.available_tokens
        or (f.tokens_today + f.estimated_tokens) * 100 >= p.daily_limit * coalesce(p.warn_at[1], 100)
        or (f.tokens_this_month + f.estimated_tokens) * 100 >= p.monthly_limit * coalesce(p.warn_at[1], 100)
        or governance.rules_match(f, x.folded, v_phrases, p.monthly_allowance, p.daily_limit, p.monthly_limit) then
        j := governance.judge_call(a, p, c, f, x.folded, v_phrases, v_now);
      end if;
      q := row(pg_current_xact_id(), nextval('governance.event_ids'), v_now, a.account_id, x.request_id, v_fingerprint,
        -- What was asked
        x.model, f.task_type, f.scope_id, nullif(x.conversation_id, ''), x.message_hash,
        -- What was decided
        coalesce(j.decision, 'allow'), j.reason, coalesce(j.http_status, 200), j.message, j.warnings,
        coalesce(j.model, x.model), j.truncate_to_words, case when j.reason is null then v_hold_ends_at end,
        j.retry_after_seconds, j.upgrade_plan, j.cost_factor, a.plan_id, c.rule_set_id, j.version_id,
        j.matched_version_ids,
        -- What the rules saw
        f, coalesce(j.reserved_tokens, f.estimated_tokens),
        -- Limits and balance as answered
        p.daily_limit, a.day_ends_at, p.monthly_limit, a.month_ends_at, a.subscription_tokens, a.purchased_tokens,
        a.promotional_tokens, s.reserved_tokens + coalesce(j.reserved_tokens, f.estimated_tokens), a.debt_tokens,
        -- How it ended
        case when j.reason is null then 'held' else 'blocked' end, null, null, null, null, null, null, null, null, null,
        null, null, null, null, null, null, null, null, null, null, null, null, null, null, null)::governance.requests;
      v_requests := array_append(v_requests, q);
      v_keys := array_append(v_keys, row(x.request_id, v_now, q.decision_id, a.account_id,
        x.lock_key, x.message_hash)::governance.request_keys);
      v_answers[x.place] := governance.decision_answer(q, f, j.upgrade, p.fail_mode);
      s := row(s.account_id, case when x.message is null then s.last_message_at else v_now end,
        case when x.message is null then s.rapid_messages else f.rapid_messages end, f.messages_today,
        case when x.message is null then s.month_messages else s.month_messages + 1 end, s.day_calls + 1,
        s.month_calls + 1, q.total_reserved_tokens,
        case when j.reason is null then least(s.holds_from, v_now) else s.holds_from end,
        case when j.reason is null then least(s.holds_check_at, v_hold_ends_at) else s.holds_check_at end,
        case when x.message is null then s.hashes else array_append(s.hashes, x.message_hash) end,
        case when x.message is null or x.conversation_id is null then s.conversations
          else array_append(s.conversations, x.conversation_id) end)::governance.authorize_state;
      if j.decision is not null then
        if j.rule_blocked_until is not null or j.flag_reason is not null then
          -- The calls after this one see it at once; it is written with the rest.
          j.account_id := a.account_id;
          j.decision_id := q.decision_id;
          v_judgements := array_append(v_judgements, j);
          if j.rule_blocked_until is not null then
            a.rule_blocked_until := j.rule_blocked_until;
            a.rule_block_reason := j.reason;
            a.rule_block_message := j.message;
            a.rule_block_version_id := j.version_id;
          end if;
          if j.flag_reason is not null then a.flagged_at := v_now; end if;
        end if;
        j := null;
      end if;
    end loop;
    exit when v_keys is null;

    -- In one order, as the locks are.
    insert into governance.request_keys select * from unnest(v_keys) k order by k.request_id on conflict do nothing;
    get diagnostics v_count = row_count;
    exit when v_count = cardinality(v_keys);
    -- An id is taken, by another call or twice in this batch. Nothing but keys is written yet: decide again, with a
    -- look at each id.
    delete from governance.request_keys k using unnest(v_keys) n
      where k.request_id = n.request_id and k.decision_id = n.decision_id;
    v_has_taken_ids := true;
    v_keys := null; v_requests := null; v_states := null; v_judgements := null; a := null; s := null;
  end loop;

  if v_requests is not null then
    v_states := array_append(v_states, s);
    insert into governance.requests select * from unnest(v_requests);
    update governance.accounts y set
      last_activity_at = v_now, last_message_at = n.last_message_at, rapid_messages = n.rapid_messages,
      day_messages = n.day_messages, month_messages = n.month_messages, day_calls = n.day_calls,
      month_calls = n.month_calls, reserved_tokens = n.reserved_tokens, holds_from = n.holds_from,
      holds_check_at = n.holds_check_at
    from unnest(v_states) n where y.account_id = n.account_id;
    if v_judgements is not null then
      foreach j in array v_judgements loop
        perform governance.punish_account(j, v_now);
      end loop;
    end if;
    -- Each connection wakes the readers once an interval at most.
    if (extract(epoch from v_now) * 1000 / c.signal_interval_ms)::bigint::text
      is distinct from current_setting('governance.beat', true) then
      perform governance.ring_feed(v_now, c.signal_interval_ms);
    end if;
  end if;
  return v_answers;
end
$$;
comment on function governance.authorize_calls(governance.authorize_arguments[], boolean) is
  'authorize_usage for any number of calls in one batch: answers in the order of the calls. Calls of one '
  'account see each other in order. Raises where authorize_usage does, for the whole batch; and unless p_waits, where '
  'another transaction holds an account.';

create function public.authorize_usage(
  p_request_id text, p_user_id text, p_model text, p_estimated_tokens bigint default null, p_message text default null,
  p_conversation_id text default null, p_task_type text default null, p_scope_id text default null,
  p_complexity numeric default null
) returns jsonb
  language plpgsql security definer set search_path = '' as $$
begin
  if current_setting('role') <> 'service_role' then perform governance.refuse_others('authorize_usage'); end if;
  return (governance.authorize_calls(array[row(p_request_id, p_user_id, p_model, p_estimated_tokens, p_message,
    p_conversation_id, p_task_type, p_scope_id, p_complexity)::governance.authorize_arguments]))[1]::jsonb;
end
$$;
comment on function public.authorize_usage(text, text, text, bigint, text, text, text, text, numeric) is
  'Asks before a call: may this user make it, with which model, and holds its tokens. A refusal is an answer (decision '
  'block). The same p_request_id and parameters answer the same. Errors: invalid_argument, idempotency_conflict, '
  'not_configured.';
revoke all on function public.authorize_usage(text, text, text, bigint, text, text, text, text, numeric)
  from public, anon, authenticated;
grant execute on function public.authorize_usage(text, text, text, bigint, text, text, text, text, numeric)
  to service_role;

-- schemas/34_call_costs.sql
-- What a call costs: the parts of its tokens, and the price of each on its day.

create function governance.token_part(p_metadata jsonb, p_key text) returns bigint
  language plpgsql immutable set search_path = '' as $$
declare
  v_number numeric;
begin
  if p_metadata -> p_key is null or p_metadata -> p_key = 'null' then return 0; end if;
  if jsonb_typeof(p_metadata -> p_key) <> 'number' then
    perform governance.fail('PT400', 'invalid_argument', format('p_metadata.%s is a whole number of tokens', p_key));
  end if;
  v_number := (p_metadata ->> p_key)::numeric;
  if v_number <> trunc(v_number) or v_number not between 0 and 9007199254740991 then
    perform governance.fail('PT400', 'invalid_argument', format('p_metadata.%s is a whole number of tokens', p_key));
  end if;
  return v_number::bigint;
end
$$;
comment on function governance.token_part(jsonb,
  text) is 'A count of tokens in the metadata of a settlement; 0 where absent.';

create function governance.check_token_parts(p_input_tokens bigint, p_output_tokens bigint, p_parts jsonb) returns void
  language plpgsql immutable set search_path = '' as $$
begin
  if governance.token_part(p_parts, 'cached_input_tokens')
      + governance.token_part(p_parts, 'cache_write_tokens') > p_input_tokens
    or governance.token_part(p_parts, 'cache_write_1h_tokens') > governance.token_part(p_parts, 'cache_write_tokens')
    or governance.token_part(p_parts, 'reasoning_tokens') > p_output_tokens then
    perform governance.fail('PT400', 'invalid_argument',
      'cached_input_tokens and cache_write_tokens are part of p_input_tokens, cache_write_1h_tokens of '
      'cache_write_tokens, reasoning_tokens of p_output_tokens');
  end if;
end
$$;
comment on function governance.check_token_parts(bigint, bigint, jsonb) is 'Refuses parts of tokens that are more than '
  'the whole.';

create function governance.price_at(p_model text, p_at timestamptz) returns governance.prices
  language sql stable set search_path = '' as $$
  select p from governance.prices p
  where p.model = p_model and p.effective_from <= p_at and (p.retired_at is null or p.retired_at > p_at)
  order by p.effective_from desc, p.created_at, p.provider collate "C" limit 1
$$;
comment on function governance.price_at(text, timestamptz) is 'A model''s price at a moment; null if none is known.';

create function governance.cost_at(p governance.prices, p_input_tokens bigint, p_output_tokens bigint, p_parts jsonb)
  returns numeric
  language sql immutable set search_path = '' as $$
  select (p_input_tokens - n.cached - n.written)::numeric * p.input_micros_per_million
    + n.cached::numeric * coalesce(p.cached_input_micros_per_million, p.input_micros_per_million)
    + (n.written - n.hourly)::numeric * coalesce(p.cache_write_micros_per_million, p.input_micros_per_million)
    + n.hourly::numeric * coalesce(p.cache_write_1h_micros_per_million, 2 * p.input_micros_per_million)
    + (p_output_tokens - n.reasoning)::numeric * p.output_micros_per_million
    + n.reasoning::numeric * coalesce(p.reasoning_micros_per_million, p.output_micros_per_million)
  from (select governance.token_part(p_parts, 'cached_input_tokens') as cached,
    governance.token_part(p_parts, 'cache_write_tokens') as written,
    governance.token_part(p_parts, 'cache_write_1h_tokens') as hourly,
    governance.token_part(p_parts, 'reasoning_tokens') as reasoning) n
$$;
comment on function governance.cost_at(governance.prices, bigint, bigint, jsonb) is
  'What tokens cost by a price, in millionths of a micro-unit, before rounding.';

create function governance.cost_micros(p_price governance.prices, p_made_at timestamptz, p_input_tokens bigint,
  p_output_tokens bigint, p_metadata jsonb) returns bigint
  language plpgsql stable set search_path = '' as $$
declare
  v_cost numeric := governance.cost_at(p_price, p_input_tokens, p_output_tokens, p_metadata);
  v_part jsonb;
  v_price governance.prices;
  v_input bigint;
  v_output bigint;
begin
  -- What another model worked for costs what that model costs.
  if p_metadata ? 'by_other_models' then
    for v_part in select * from jsonb_array_elements(p_metadata -> 'by_other_models') loop
      v_price := governance.price_at(v_part ->> 'model', p_made_at);
      if v_price.price_id is null then return null; end if;
      v_input := governance.token_part(v_part, 'input_tokens');
      v_output := governance.token_part(v_part, 'output_tokens');
      v_cost := v_cost - governance.cost_at(p_price, v_input, v_output, v_part)
        + governance.cost_at(v_price, v_input, v_output, v_part);
    end loop;
  end if;
  v_cost := div(v_cost + 500000, 1000000);
  if v_cost > 9007199254740991 then
    perform governance.fail('PT400', 'invalid_argument', 'The cost of so many tokens is not below 2^53 micro-units');
  end if;
  return greatest(v_cost, 0);
end
$$;
comment on function governance.cost_micros(governance.prices, timestamptz, bigint, bigint, jsonb) is
  'The cost of a call by its price, as docs/RULES.md says; null where another model that it used has no price.';

create function governance.unpriced_part(p_metadata jsonb, p_made_at timestamptz) returns text
  language sql stable set search_path = '' as $$
  select x.part ->> 'model' from jsonb_array_elements(p_metadata -> 'by_other_models') x(part)
  where (governance.price_at(x.part ->> 'model', p_made_at)).price_id is null limit 1
$$;
comment on function governance.unpriced_part(jsonb, timestamptz) is
  'The first of the other models of a call that has no price.';

-- schemas/35_settle.sql
-- The path of a call, second half: what was used is charged. One function ends any number of calls in one batch; a
-- single call is a batch of one.

-- What a settlement changes of its account: counted in memory from call to call, written once.
create type governance.settle_state as (account_id bigint, last_transaction_id bigint, last_hash bytea,
  day_tokens bigint, month_tokens bigint, day_cost_micros bigint, month_cost_micros bigint,
  subscription_tokens bigint, purchased_tokens bigint, promotional_tokens bigint, reserved_tokens bigint,
  debt_tokens bigint,
  -- The lot that is spent next, what is left of it, and what this batch took out of it
  lot_id bigint, lot_kind text, lot_left bigint, lot_taken bigint,
  -- This account's calls that have ended in this batch
  ended bigint[]);

create function governance.check_other_models(e governance.settle_arguments) returns void
  language plpgsql immutable set search_path = '' as $$
declare
  v_part jsonb;
  v_input numeric := 0;
  v_output numeric := 0;
begin
  if jsonb_typeof(e.metadata -> 'by_other_models') <> 'array'
    or jsonb_array_length(e.metadata -> 'by_other_models') > 20 then
    perform governance.fail('PT400', 'invalid_argument', 'p_metadata.by_other_models is a list of at most 20 models');
  end if;
  for v_part in select * from jsonb_array_elements(e.metadata -> 'by_other_models') loop
    if jsonb_typeof(v_part -> 'model') is distinct from 'string' or jsonb_typeof(v_part) <> 'object' then
      perform governance.fail('PT400', 'invalid_argument', 'p_metadata.by_other_models names a model in each place');
    end if;
    perform governance.check_id('p_metadata.by_other_models.model', v_part ->> 'model', 200);
    perform governance.check_token_parts(governance.token_part(v_part, 'input_tokens'),
      governance.token_part(v_part, 'output_tokens'), v_part);
    v_input := v_input + governance.token_part(v_part, 'input_tokens');
    v_output := v_output + governance.token_part(v_part, 'output_tokens');
  end loop;
  if v_input > e.input_tokens or v_output > e.output_tokens then
    perform governance.fail('PT400', 'invalid_argument',
      'What p_metadata.by_other_models used is part of p_input_tokens and p_output_tokens');
  end if;
end
$$;
comment on function governance.check_other_models(governance.settle_arguments) is 'Refuses tokens of other models that '
  'are not part of the call''s own.';

create function governance.check_settle(e governance.settle_arguments) returns void
  language plpgsql immutable set search_path = '' as $$
begin
  perform governance.check_id('p_request_id', e.request_id);
  if e.input_tokens is null or e.output_tokens is null or e.input_tokens not between 0 and 9007199254740991
    or e.output_tokens not between 0 and 9007199254740991 then
    perform governance.fail('PT400', 'invalid_argument',
      'p_input_tokens and p_output_tokens are whole numbers from 0 up to 2^53 - 1');
  end if;
  if e.model is not null then
    perform governance.check_id('p_model', e.model, 200);
  end if;
  perform governance.check_metadata('p_metadata', e.metadata);
  perform governance.check_token_parts(e.input_tokens, e.output_tokens, e.metadata);
  if e.metadata ? 'by_other_models' then perform governance.check_other_models(e); end if;
end
$$;
comment on function governance.check_settle(governance.settle_arguments) is 'Refuses what settle_usage cannot take.';

create function governance.repeated_end(p_request_id text, p_decision_id bigint, p_created_at timestamptz,
  p_fingerprint bigint) returns json
  language plpgsql stable set search_path = '' as $$
declare
  q governance.requests;
begin
  select * into strict q from governance.requests x
    where x.decision_id = p_decision_id and x.created_at = p_created_at;
  if q.status = 'released' then
    perform governance.fail('PT409', 'already_released', format('Request "%s" was released', left(p_request_id, 64)));
  elsif q.status = 'blocked' then
    perform governance.fail('PT409', 'not_authorized',
      format('Request "%s" was blocked: there is nothing to settle', left(p_request_id, 64)));
  elsif q.settle_fingerprint <> p_fingerprint then
    perform governance.fail('PT409', 'idempotency_conflict',
      format('Request "%s" was settled before with other parameters', left(p_request_id, 64)));
  end if;
  return governance.end_answer(governance.call_end(q));
end
$$;
comment on function governance.repeated_end(text, bigint, timestamptz, bigint) is
  'The answer of settle_usage for a call that has ended: its own from before, or why it cannot be settled.';

create function governance.quarantine_call(q governance.call_end, p_charge numeric, p_ceiling bigint,
  p_now timestamptz) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_message text := format('A settlement of %s tokens is above the ceiling of %s and waits for a person', p_charge,
    p_ceiling);
begin
  insert into governance.alert_events (account_id, kind, severity, message, threshold, value, period_key, details,
    created_at)
  values (q.account_id, 'settlement_quarantined', 'critical', v_message, p_ceiling, p_charge, '',
    jsonb_build_object('request_id', q.request_id, 'decision_id', q.decision_id), p_now);
  insert into governance.hold_events (created_at, kind, decision_id, account_id, tokens, reason)
  values (p_now, 'quarantined', q.decision_id, q.account_id, q.released_tokens, 'above_ceiling');
  perform governance.ring('feed', p_now);
  perform governance.ring('alerts', p_now);
  return jsonb_build_array(jsonb_build_object('type', 'settlement_quarantined', 'severity', 'critical', 'message',
    v_message, 'details', jsonb_build_object('tokens', p_charge, 'ceiling', p_ceiling)));
end
$$;
comment on function governance.quarantine_call(governance.call_end, numeric, bigint, timestamptz) is
  'Sets a settlement above the ceiling aside: nothing is charged, the hold is given back, a person is called. Answers '
  'the alerts.';

create function governance.write_ends(p_entries governance.token_transactions[], p_ends governance.call_end[],
  p_states governance.settle_state[], p_now timestamptz, p_oldest timestamptz, p_newest timestamptz) returns void
  language plpgsql set search_path = '' as $$
declare
  v_usage governance.usage_daily[];
  v_end governance.call_end := p_ends[1];
begin
  update governance.lots y set
    remaining = y.remaining - s.lot_taken, spent = y.spent + s.lot_taken,
    is_open = y.remaining - s.lot_taken + y.frozen > 0
  from unnest(p_states) s where y.lot_id = s.lot_id and s.lot_taken > 0;
  insert into governance.token_transactions select * from unnest(p_entries);
  -- One call needs no sums.
  if cardinality(p_ends) = 1 then
    if v_end.status = 'settled' then
      v_usage := array[row(v_end.account_id, v_end.day, v_end.model, coalesce(v_end.task_type, ''),
        coalesce(v_end.scope_id, ''), 1, v_end.messages, v_end.input_tokens, v_end.output_tokens, v_end.charged_tokens,
        coalesce(v_end.cost_micros, 0), p_now, p_now)::governance.usage_daily];
    end if;
  else
    select array_agg(n.usage) into v_usage from (
      select row(u.account_id, u.day, u.model, coalesce(u.task_type, ''), coalesce(u.scope_id, ''), count(*),
        sum(u.messages), sum(u.input_tokens), sum(u.output_tokens), sum(u.charged_tokens),
        sum(coalesce(u.cost_micros, 0)), p_now, p_now)::governance.usage_daily as usage
      from unnest(p_ends) u where u.status = 'settled'
      group by u.account_id, u.day, u.model, coalesce(u.task_type, ''), coalesce(u.scope_id, '')) n;
  end if;
  insert into governance.usage_daily as y select * from unnest(v_usage)
  on conflict (account_id, day, model, task_type, scope_id) do update set
    calls = y.calls + excluded.calls, messages = y.messages + excluded.messages,
    input_tokens = y.input_tokens + excluded.input_tokens, output_tokens = y.output_tokens + excluded.output_tokens,
    charged_tokens = y.charged_tokens + excluded.charged_tokens, cost_micros = y.cost_micros + excluded.cost_micros,
    first_activity_at = least(y.first_activity_at, excluded.first_activity_at),
    last_activity_at = greatest(y.last_activity_at, excluded.last_activity_at);
  update governance.accounts y set
    last_activity_at = p_now, last_transaction_id = s.last_transaction_id, last_hash = s.last_hash,
    day_tokens = s.day_tokens, month_tokens = s.month_tokens,
    day_cost_micros = s.day_cost_micros, month_cost_micros = s.month_cost_micros,
    subscription_tokens = s.subscription_tokens, purchased_tokens = s.purchased_tokens,
    promotional_tokens = s.promotional_tokens, reserved_tokens = s.reserved_tokens, debt_tokens = s.debt_tokens,
    holds_from = case when s.reserved_tokens > 0 then y.holds_from end,
    holds_check_at = case when s.reserved_tokens > 0 then y.holds_check_at end
  from unnest(p_states) s where y.account_id = s.account_id;
  update governance.requests y set
    status = e.status, ended_at = p_now, usage_day = e.day, settled_model = e.model, provider = e.provider,
    input_tokens = e.input_tokens, output_tokens = e.output_tokens, cached_input_tokens = e.cached_input_tokens,
    cache_write_tokens = e.cache_write_tokens, reasoning_tokens = e.reasoning_tokens,
    charged_tokens = e.charged_tokens, released_tokens = e.released_tokens, unpaid_tokens = e.unpaid_tokens,
    cost_micros = e.cost_micros, currency = e.currency, settle_fingerprint = e.settle_fingerprint,
    transaction_id = e.transaction_id, alerts = nullif(e.alerts, '[]'),
    settle_metadata = nullif(e.settle_metadata, '{}'),
    end_subscription_tokens = e.subscription_tokens, end_purchased_tokens = e.purchased_tokens,
    end_promotional_tokens = e.promotional_tokens, end_reserved_tokens = e.reserved_tokens,
    end_debt_tokens = e.debt_tokens
  from unnest(p_ends) e where y.decision_id = e.decision_id and y.created_at = e.created_at
    and y.created_at >= p_oldest and y.created_at <= p_newest;
end
$$;
comment on function governance.write_ends(governance.token_transactions[], governance.call_end[],
  governance.settle_state[], timestamptz, timestamptz, timestamptz) is 'Writes what governance.settle_calls charged.';

create function governance.recover_at_end(e governance.call_end, p_now timestamptz) returns governance.call_end
  language plpgsql set search_path = '' as $$
declare
  q governance.requests;
begin
  perform governance.recover_debt(e.account_id, p_now, e.request_id);
  update governance.requests y set end_subscription_tokens = a.subscription_tokens,
    end_purchased_tokens = a.purchased_tokens, end_promotional_tokens = a.promotional_tokens,
    end_debt_tokens = a.debt_tokens
  from governance.accounts a
  where a.account_id = e.account_id and y.decision_id = e.decision_id and y.created_at = e.created_at
  returning y.* into strict q;
  return governance.call_end(q);
end
$$;
comment on function governance.recover_at_end(governance.call_end, timestamptz) is
  'Pays debt out of what a call that has ended left free, and tells the call what is left.';

create function governance.settle_state(p_account_id bigint) returns governance.settle_state
  language sql stable set search_path = '' as $$
  select row(a.account_id, a.last_transaction_id, a.last_hash, a.day_tokens, a.month_tokens, a.day_cost_micros,
    a.month_cost_micros, a.subscription_tokens, a.purchased_tokens, a.promotional_tokens, a.reserved_tokens,
    a.debt_tokens, l.lot_id, l.kind, l.remaining, 0, null)::governance.settle_state
  from governance.accounts a left join lateral (
    select y.lot_id, y.kind, y.remaining from governance.lots y
    where y.account_id = a.account_id and y.is_open and y.remaining > 0
    order by y.expires_at nulls last, case y.kind when 'subscription' then 0 when 'promotional' then 1 else 2 end,
      y.created_at, y.lot_id limit 1) l on true
  where a.account_id = p_account_id
$$;
comment on function governance.settle_state(bigint) is 'What governance.settle_calls counts on from, read again.';

create function governance.settle_calls(p_calls governance.settle_arguments[], p_above_ceiling boolean default false,
  p_waits boolean default true) returns json[]
  language plpgsql set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off
    set jit = off as $$
declare
  c governance.active_config;
  v_call governance.settle_arguments;
  -- A call with what was read for it; its account and plan as they were read; and what this batch changed so far.
  x record;
  a governance.accounts;
  p governance.plans;
  s governance.settle_state;
  v_spent governance.lot_spending;
  v_end governance.call_end;
  v_key governance.request_keys;
  v_keys governance.request_keys[];
  v_oldest timestamptz;
  v_newest timestamptz;
  v_now timestamptz;
  v_is_locked boolean;
  v_is_first_reading boolean := true;
  v_has_rolled boolean;
  v_fingerprint bigint;
  v_model text;
  v_unpriced text;
  v_charge numeric;
  v_charged bigint;
  v_total bigint;
  v_take bigint;
  v_reserved bigint;
  v_cost bigint;
  v_transaction_id bigint;
  v_hash bytea;
  v_alerts jsonb;
  v_ended bigint[];
  v_entries governance.token_transactions[];
  v_ends governance.call_end[];
  v_states governance.settle_state[];
  v_answers json[];
begin
  foreach v_call in array p_calls loop
    if v_call.request_id is null or length(v_call.request_id) not between 1 and 255 or v_call.input_tokens is null
      or v_call.output_tokens is null or v_call.input_tokens not between 0 and 9007199254740991
      or v_call.output_tokens not between 0 and 9007199254740991 or v_call.model is not null
      or v_call.metadata <> '{}' then
      perform governance.check_settle(v_call);
    end if;
  end loop;
  -- All accounts' locks, always in the same order: no two batches wait for each other.
  if cardinality(p_calls) = 1 then
    select * into v_key from governance.request_keys k where k.request_id = v_call.request_id;
    -- As an expression, at a fifth of what a statement costs.
    perform pg_advisory_xact_lock(v_key.lock_key);
    v_keys := array[v_key];
    v_oldest := v_key.created_at;
    v_newest := v_key.created_at;
  else
    select array_agg(l.key order by l.place), min((l.key).created_at), max((l.key).created_at),
      coalesce(bool_and(l.is_locked), true)
    into v_keys, v_oldest, v_newest, v_is_locked from (
      select o.key, o.place, case when p_waits then pg_advisory_xact_lock(o.lock_key) is not null
        else pg_try_advisory_xact_lock(o.lock_key) end as is_locked
      from (
        select k as key, u.place, k.lock_key
        from unnest(p_calls) with ordinality u(request_id, input_tokens, output_tokens, model, metadata, place)
        left join governance.request_keys k on k.request_id = u.request_id
        order by k.lock_key offset 0) o) l;
    if not v_is_locked and not p_waits then
      raise lock_not_available using message = 'Another transaction holds an account of the batch';
    end if;
  end if;
  select * into c from governance.active_config;
  -- The transaction number before any event id: readers of the feed rely on it.
  v_now := case when pg_current_xact_id() is not null then
    coalesce(c.test_clock_at, clock_timestamp() + coalesce(c.test_clock_offset, interval '0')) end;

  loop
    v_has_rolled := false;
    for x in
      select u.*, b as account, governance.needs_roll(b, v_now) and v_is_first_reading as is_due,
        q.status, q.reserved_tokens as held_tokens, q.cost_factor, q.model as asked_model, q.task_type, q.scope_id,
        q.message_hash is not null as is_message,
        (select y from governance.plans y where y.plan_id = b.plan_id) as plan,
        -- The price is the one of the moment of the call.
        (select y from governance.prices y
          where y.model = coalesce(u.model, q.model) and y.effective_from <= u.made_at
            and (y.retired_at is null or y.retired_at > u.made_at)
          order by y.effective_from desc, y.created_at, y.provider collate "C" limit 1) as price,
        (select y from governance.lots y where y.account_id = u.account_id and y.is_open and y.remaining > 0
          order by y.expires_at nulls last, case y.kind when 'subscription' then 0 when 'promotional' then 1 else 2 end,
            y.created_at, y.lot_id limit 1) as lot
      from unnest(p_calls, v_keys) with ordinality u(request_id, input_tokens, output_tokens, model, metadata,
        key_id, made_at, decision_id, account_id, lock_key, hash, place)
      -- The bounds leave partitions out before they are opened.
      left join governance.requests q on q.decision_id = u.decision_id and q.created_at = u.made_at
        and q.created_at >= v_oldest and q.created_at <= v_newest
      left join governance.accounts b on b.account_id = u.account_id
      order by is_due desc, u.account_id, u.place
    loop
      if x.decision_id is null then
        perform governance.fail('PT404', 'unknown_request',
          format('There is no request "%s"', left(x.request_id, 64)));
      elsif x.is_due then
        perform governance.roll_account(x.account_id, v_now);
        v_has_rolled := true;
        continue;
      end if;
      exit when v_has_rolled;
      if s.account_id is distinct from x.account_id then
        if s.ended is not null then v_states := array_append(v_states, s); end if;
        a := x.account;
        p := x.plan;
        if a.raised_until > v_now then
          p.daily_limit := governance.raised_limit(p.daily_limit, a.raised_daily_limit, a.raised_until, v_now);
          p.monthly_limit := governance.raised_limit(p.monthly_limit, a.raised_monthly_limit, a.raised_until, v_now);
        end if;
        s := row(a.account_id, a.last_transaction_id, a.last_hash, a.day_tokens, a.month_tokens, a.day_cost_micros,
          a.month_cost_micros, a.subscription_tokens, a.purchased_tokens, a.promotional_tokens, a.reserved_tokens,
          a.debt_tokens, (x.lot).lot_id, (x.lot).kind, (x.lot).remaining, 0, null)::governance.settle_state;
      end if;
      v_model := coalesce(x.model, x.asked_model);
      v_fingerprint := hashtextextended(row(x.input_tokens, x.output_tokens, x.model,
        coalesce(x.metadata, '{}'))::text, 0);
      v_reserved := s.reserved_tokens - case x.status when 'held' then x.held_tokens else 0 end;
      v_charge := case when x.cost_factor is null then x.input_tokens::numeric + x.output_tokens
        else ceil((x.input_tokens::numeric + x.output_tokens) * x.cost_factor) end;

      if (x.status in ('held', 'expired') or x.status = 'quarantined' and p_above_ceiling) is not true
        or x.decision_id = any (s.ended) then
        -- It has ended before, perhaps in this very batch.
        if v_ends is not null then
          perform governance.write_ends(v_entries, v_ends, array_append(v_states, s), v_now, v_oldest, v_newest);
          v_entries := null; v_ends := null; v_states := null; s.lot_taken := 0;
        end if;
        v_answers[x.place] := governance.repeated_end(x.request_id, x.decision_id, x.made_at, v_fingerprint);
        continue;
      elsif v_charge > c.settle_ceiling_tokens and not p_above_ceiling then
        v_end := row(x.decision_id, x.made_at, x.account_id, x.request_id, 'quarantined', v_model, null,
          x.input_tokens, x.output_tokens, null, null, null, 0, s.reserved_tokens - v_reserved, 0, null, c.currency,
          v_fingerprint, null, null, x.metadata, s.subscription_tokens, s.purchased_tokens, s.promotional_tokens,
          v_reserved, s.debt_tokens, null, null, null, null)::governance.call_end;
        v_end.alerts := governance.quarantine_call(v_end, v_charge, c.settle_ceiling_tokens, v_now);
        s.reserved_tokens := v_reserved;
        s.ended := s.ended || x.decision_id;
      else
        if v_charge > 9007199254740991 then
          perform governance.fail('PT400', 'invalid_argument', 'More than 2^53 - 1 tokens cannot be charged');
        end if;
        v_charged := v_charge;
        v_cost := case
          -- No price is known, but the caller's own bill may be (record_token_usage).
          when (x.price).price_id is null then
            case when x.metadata ? 'stated_cost_micros' then governance.token_part(x.metadata, 'stated_cost_micros') end
          -- The formula of governance.cost_micros where nothing of it can leave bigint.
          when coalesce(x.metadata, '{}') = '{}' and greatest(x.input_tokens, x.output_tokens,
            (x.price).input_micros_per_million, (x.price).output_micros_per_million) < 1000000000 then
            (x.input_tokens * (x.price).input_micros_per_million
              + x.output_tokens * (x.price).output_micros_per_million + 500000) / 1000000
          else governance.cost_micros(x.price, x.made_at, x.input_tokens, x.output_tokens, x.metadata) end;
        v_total := s.subscription_tokens + s.purchased_tokens + s.promotional_tokens;
        -- What the hold kept, then what is free; the rest is debt.
        v_take := least(v_charged, v_total - v_reserved);
        if v_take > coalesce(s.lot_left, 0) then
          if s.lot_taken > 0 then
            perform governance.write_ends(v_entries, v_ends, array_append(v_states, s), v_now, v_oldest, v_newest);
            v_entries := null; v_ends := null; v_states := null; s.lot_taken := 0;
          end if;
          v_spent := governance.spend_lots(x.account_id, v_take);
          s.lot_id := null;
        else
          v_spent := row(v_take, case s.lot_kind when 'subscription' then -v_take else 0 end,
            case s.lot_kind when 'purchased' then -v_take else 0 end,
            case s.lot_kind when 'promotional' then -v_take else 0 end,
            case when v_take > 0 then array[s.lot_id, -v_take] else '{}' end)::governance.lot_spending;
        end if;
        v_transaction_id := nextval('governance.event_ids');
        v_hash := governance.entry_hash(s.last_hash, governance.entry_payload(v_transaction_id, v_now, 'usage', -v_take,
          v_total, v_total - v_take, s.debt_tokens + v_charged - v_take, v_spent.lot_changes, x.decision_id, a.user_id,
          x.request_id, null, null));
        v_entries := array_append(v_entries, row(v_transaction_id, x.account_id, v_now, 'usage', -v_take, v_total,
          v_total - v_take, s.debt_tokens + v_charged - v_take, v_spent.lot_changes, x.request_id, x.decision_id, null,
          null, s.last_hash, v_hash, pg_current_xact_id())::governance.token_transactions);
        v_unpriced := case when v_cost is not null then null when (x.price).price_id is null then v_model
          else governance.unpriced_part(x.metadata, x.made_at) end;
        v_alerts := case when v_unpriced is not null
          then jsonb_build_array(jsonb_build_object('type', 'unknown_price', 'severity', 'info', 'message',
            format('No price is known for model %s', v_unpriced), 'details',
            jsonb_build_object('model', v_unpriced))) end;
        if v_alerts is not null then perform governance.raise_unknown_price(v_unpriced, v_now); end if;
        if v_charged > v_take or v_charged > c.alert_operation_above or v_total - v_take < c.alert_balance_below
          or (p.daily_limit > 0 and (s.day_tokens + v_charged) * 100 >= p.daily_limit * p.warn_at[1])
          or (p.monthly_limit > 0 and (s.month_tokens + v_charged) * 100 >= p.monthly_limit * p.warn_at[1]) then
          v_alerts := coalesce(v_alerts, '[]') || governance.settlement_alerts(x.account_id, v_now, v_charged,
            v_charged - v_take, v_total, v_total - v_take, c.low_balance_tokens, c.high_usage_tokens, p.daily_limit,
            s.day_tokens, p.monthly_limit, s.month_tokens, p.warn_at, a.local_day,
            jsonb_build_object('request_id', x.request_id, 'decision_id', x.decision_id));
        end if;
        v_end := row(x.decision_id, x.made_at, x.account_id, x.request_id, 'settled', v_model, (x.price).provider,
          x.input_tokens, x.output_tokens,
          case when x.metadata <> '{}' then nullif(governance.token_part(x.metadata, 'cached_input_tokens'), 0) end,
          case when x.metadata <> '{}' then nullif(governance.token_part(x.metadata, 'cache_write_tokens'), 0) end,
          case when x.metadata <> '{}' then nullif(governance.token_part(x.metadata, 'reasoning_tokens'), 0) end,
          v_charged, greatest(s.reserved_tokens - v_reserved - v_charged, 0), v_charged - v_take, v_cost, c.currency,
          v_fingerprint, v_transaction_id, v_alerts, x.metadata,
          s.subscription_tokens + v_spent.subscription, s.purchased_tokens + v_spent.purchased,
          s.promotional_tokens + v_spent.promotional, v_reserved, s.debt_tokens + v_charged - v_take,
          a.local_day, x.task_type, x.scope_id, case when x.is_message then 1 else 0 end)::governance.call_end;
        s := row(s.account_id, v_transaction_id, v_hash, s.day_tokens + v_charged, s.month_tokens + v_charged,
          s.day_cost_micros + coalesce(v_cost, 0), s.month_cost_micros + coalesce(v_cost, 0),
          v_end.subscription_tokens, v_end.purchased_tokens, v_end.promotional_tokens, v_reserved, v_end.debt_tokens,
          s.lot_id, s.lot_kind, s.lot_left - v_take, case when s.lot_id is null then 0 else s.lot_taken + v_take end,
          s.ended || x.decision_id)::governance.settle_state;
        if s.lot_id is null then
          select n.lot_id, n.lot_kind, n.lot_left into s.lot_id, s.lot_kind, s.lot_left
            from governance.settle_state(x.account_id) n;
        end if;
      end if;
      v_ends := array_append(v_ends, v_end);
      if s.debt_tokens > 0
        and s.subscription_tokens + s.purchased_tokens + s.promotional_tokens > s.reserved_tokens then
        -- What the hold kept and the call did not use pays what was owed before; the answer says what is left.
        perform governance.write_ends(v_entries, v_ends, array_append(v_states, s), v_now, v_oldest, v_newest);
        v_entries := null; v_ends := null; v_states := null;
        v_end := governance.recover_at_end(v_end, v_now);
        v_ended := s.ended;
        s := governance.settle_state(x.account_id);
        s.ended := v_ended;
      end if;
      v_answers[x.place] := governance.end_answer(v_end);
    end loop;
    exit when not v_has_rolled;
    v_is_first_reading := false;
  end loop;
  if s.ended is not null then v_states := array_append(v_states, s); end if;
  if v_states is not null then
    perform governance.write_ends(v_entries, v_ends, v_states, v_now, v_oldest, v_newest);
    -- Each connection wakes the readers once an interval at most.
    if (extract(epoch from v_now) * 1000 / c.signal_interval_ms)::bigint::text
      is distinct from current_setting('governance.beat', true) then
      perform governance.ring_feed(v_now, c.signal_interval_ms);
    end if;
  end if;
  return v_answers;
end
$$;
comment on function governance.settle_calls(governance.settle_arguments[], boolean, boolean) is
  'settle_usage for any number of calls in one batch: answers in the order of the calls. Raises where '
  'settle_usage does, for the whole batch; and unless p_waits, where another transaction holds an account. With '
  'p_above_ceiling a person lets quarantined settlements through.';

create function public.settle_usage(
  p_request_id text, p_input_tokens bigint, p_output_tokens bigint, p_model text default null,
  p_metadata jsonb default '{}'
) returns jsonb
  language plpgsql security definer set search_path = '' as $$
begin
  if current_setting('role') <> 'service_role' then perform governance.refuse_others('settle_usage'); end if;
  return (governance.settle_calls(array[row(p_request_id, p_input_tokens, p_output_tokens, p_model,
    p_metadata)::governance.settle_arguments]))[1]::jsonb;
end
$$;
comment on function public.settle_usage(text, bigint, bigint, text, jsonb) is
  'Charges a call that was authorised: input and output tokens as the provider counted them. p_metadata may say '
  'cached_input_tokens, cache_write_tokens (parts of the input), cache_write_1h_tokens (part of those) and '
  'reasoning_tokens (part of the output), and by_other_models (parts that other models worked for). Above the '
  'setting settle_ceiling_tokens status is quarantined and nothing is charged. Safe to repeat. Errors: '
  'invalid_argument, unknown_request, not_authorized, already_released, idempotency_conflict.';
revoke all on function public.settle_usage(text, bigint, bigint, text, jsonb) from public, anon, authenticated;
grant execute on function public.settle_usage(text, bigint, bigint, text, jsonb) to service_role;

-- schemas/36_release.sql
-- Giving a hold back: the call failed, or never used what it held.

create function governance.release_call(p_request_id text, p_reason text) returns json
  language plpgsql set search_path = '' as $$
declare
  v_key governance.request_keys;
  q governance.requests;
  v_account governance.accounts;
  v_now timestamptz;
begin
  select * into v_key from governance.request_keys k where k.request_id = p_request_id;
  if not found then
    perform governance.fail('PT404', 'unknown_request', format('There is no request "%s"', left(p_request_id, 64)));
  end if;
  v_account := governance.lock_account_id(v_key.account_id);
  v_now := governance.now();
  select x.* into strict q from governance.requests x
    where x.decision_id = v_key.decision_id and x.created_at = v_key.created_at;
  if q.status in ('settled', 'quarantined') then
    perform governance.fail('PT409', 'already_settled', format('Request "%s" was settled', left(p_request_id, 64)));
  elsif q.status = 'blocked' then
    perform governance.fail('PT409', 'not_authorized',
      format('Request "%s" was blocked: there is nothing to release', left(p_request_id, 64)));
  elsif q.status = 'released' and q.end_reason is distinct from p_reason then
    perform governance.fail('PT409', 'idempotency_conflict',
      format('Request "%s" was released before with another reason', left(p_request_id, 64)));
  end if;
  if q.status = 'held' then
    update governance.accounts a set
      reserved_tokens = a.reserved_tokens - q.reserved_tokens,
      holds_from = case when a.reserved_tokens > q.reserved_tokens then a.holds_from end,
      holds_check_at = case when a.reserved_tokens > q.reserved_tokens then a.holds_check_at end
    where a.account_id = q.account_id
    returning * into v_account;
    if v_account.debt_tokens > 0 and governance.recover_debt(q.account_id, v_now, p_request_id) > 0 then
      select * into strict v_account from governance.accounts a where a.account_id = q.account_id;
    end if;
    insert into governance.hold_events (created_at, kind, decision_id, account_id, tokens, reason)
    values (v_now, 'released', q.decision_id, q.account_id, q.reserved_tokens, p_reason);
  end if;
  if q.status = 'held' or (q.status = 'expired' and q.end_reserved_tokens is null) then
    -- A hold that expired keeps its status and gives nothing more back.
    update governance.requests x set
      status = case when x.status = 'held' then 'released' else x.status end,
      ended_at = coalesce(x.ended_at, v_now), end_reason = coalesce(x.end_reason, p_reason),
      released_tokens = case when x.status = 'held' then x.reserved_tokens else 0 end,
      end_subscription_tokens = v_account.subscription_tokens, end_purchased_tokens = v_account.purchased_tokens,
      end_promotional_tokens = v_account.promotional_tokens, end_reserved_tokens = v_account.reserved_tokens,
      end_debt_tokens = v_account.debt_tokens
    where x.decision_id = q.decision_id and x.created_at = q.created_at
    returning * into strict q;
    perform governance.ring('feed', v_now);
  end if;
  return governance.end_answer(governance.call_end(q));
end
$$;
comment on function governance.release_call(text, text) is 'release_usage for one call.';

create function governance.release_calls(p_calls governance.release_arguments[], p_waits boolean default true)
  returns json[]
  language plpgsql set search_path = '' as $$
declare
  e governance.release_arguments;
  v_answers json[];
begin
  foreach e in array p_calls loop
    perform governance.check_id('p_request_id', e.request_id);
    perform governance.check_optional('p_reason', e.reason, 1000);
  end loop;
  if p_waits then
    perform pg_advisory_xact_lock(l.lock_key) from (
      select distinct k.lock_key from unnest(p_calls) u join governance.request_keys k on k.request_id = u.request_id
      order by 1) l;
  elsif exists (select from unnest(p_calls) u join governance.request_keys k on k.request_id = u.request_id
    where not pg_try_advisory_xact_lock(k.lock_key)) then
    raise lock_not_available using message = 'Another transaction holds an account of the batch';
  end if;
  foreach e in array p_calls loop
    v_answers := array_append(v_answers, governance.release_call(e.request_id, e.reason));
  end loop;
  return v_answers;
end
$$;
comment on function governance.release_calls(governance.release_arguments[], boolean) is
  'release_usage for any number of calls in one batch: answers in the order of the calls. Raises where release_usage '
  'does, for the whole batch; and unless p_waits, where another transaction holds an account.';

create function public.release_usage(p_request_id text, p_reason text default null) returns jsonb
  language plpgsql security definer set search_path = '' as $$
begin
  perform governance.refuse_others('release_usage');
  return (governance.release_calls(array[row(p_request_id, p_reason)::governance.release_arguments]))[1]::jsonb;
end
$$;
comment on function public.release_usage(text, text) is
  'Gives a hold back: the call failed or was not made. A hold that had expired answers status expired and releases '
  'nothing more. Safe to repeat. Errors: invalid_argument, unknown_request, not_authorized, already_settled, '
  'idempotency_conflict.';
revoke all on function public.release_usage(text, text) from public, anon, authenticated;
grant execute on function public.release_usage(text, text) to service_role;

-- schemas/37_batches.sql
-- Many calls in one batch. What a call means is defined with the single functions; here is only how a batch is read,
-- and what becomes of it where one of its calls is refused.

create function governance.check_batch(p_calls jsonb, p_keys text[]) returns void
  language plpgsql immutable set search_path = '' as $$
declare
  v_call jsonb;
  v_key text;
begin
  for v_call in select * from jsonb_array_elements(p_calls) loop
    if jsonb_typeof(v_call) <> 'object' then
      perform governance.fail('PT400', 'invalid_argument', 'Each call of p_calls is a JSON object');
    elsif v_call - p_keys <> '{}' then
      select min(k) into v_key from jsonb_object_keys(v_call - p_keys) k;
      perform governance.fail('PT400', 'invalid_argument',
        format('A call has no "%s", but %s', left(v_key, 64), array_to_string(p_keys, ', ')));
    end if;
  end loop;
end
$$;
comment on function governance.check_batch(jsonb, text[]) is 'Refuses what is no call with these keys.';

create function governance.run_calls(p_kind text, p_calls jsonb, p_waits boolean) returns json[]
  language plpgsql set search_path = '' as $$
begin
  case p_kind
    when 'authorize' then
      perform governance.check_batch(p_calls, '{request_id,user_id,model,estimated_tokens,message,conversation_id,'
        'task_type,scope_id,complexity}');
      return governance.authorize_calls(array(
        select e from jsonb_populate_recordset(null::governance.authorize_arguments, p_calls) e), p_waits);
    when 'settle' then
      perform governance.check_batch(p_calls, '{request_id,input_tokens,output_tokens,model,metadata}');
      return governance.settle_calls(array(
        select e from jsonb_populate_recordset(null::governance.settle_arguments, p_calls) e), p_waits => p_waits);
    else
      perform governance.check_batch(p_calls, '{request_id,reason}');
      return governance.release_calls(array(
        select e from jsonb_populate_recordset(null::governance.release_arguments, p_calls) e), p_waits);
  end case;
end
$$;
comment on function governance.run_calls(text, jsonb, boolean) is
  'Runs a batch of calls of a kind (authorize, settle, release): answers in the order of the calls. Raises where one '
  'is refused; and unless p_waits, where another transaction holds an account.';

create function governance.lock_batch(p_kind text, p_calls jsonb) returns bigint[]
  language plpgsql set search_path = '' set lock_timeout = '500ms' set plan_cache_mode = force_generic_plan
    set enable_seqscan = off as $$
declare
  v_key bigint;
  v_busy bigint[] := '{}';
begin
  for v_key in
    select distinct case p_kind when 'authorize' then governance.lock_key(e.call ->> 'user_id') else k.lock_key end
    from jsonb_array_elements(p_calls) e(call)
    left join governance.request_keys k on p_kind <> 'authorize' and k.request_id = e.call ->> 'request_id'
    order by 1
  loop
    -- It may still be waited for, as every key before is smaller; but once in vain is long enough for one batch.
    if v_key is null or pg_try_advisory_xact_lock(v_key) then continue; end if;
    begin
      if v_busy = '{}' then
        perform pg_advisory_xact_lock(v_key);
      else
        v_busy := v_busy || v_key;
      end if;
    exception when lock_not_available then
      v_busy := v_busy || v_key;
    end;
  end loop;
  return v_busy;
end
$$;
comment on function governance.lock_batch(text, jsonb) is 'Takes the locks of a batch''s accounts, in one order. '
  'Answers those that another transaction keeps for longer than half a second: their calls would hold up all others.';

create function governance.run_by_halves(p_kind text, p_calls jsonb) returns json[]
  language plpgsql set search_path = '' as $$
declare
  v_half int := jsonb_array_length(p_calls) / 2;
  v_state text;
  v_hint text;
  v_message text;
  v_detail text;
begin
  begin
    return governance.run_calls(p_kind, p_calls, true);
  exception when others then
    get stacked diagnostics v_state = returned_sqlstate, v_hint = pg_exception_hint, v_message = message_text,
      v_detail = pg_exception_detail;
    if governance.refuses_no_call(v_state) then raise; end if;
  end;
  if v_half = 0 then
    return array[json_build_object('error', json_build_object('code', v_state, 'hint', nullif(v_hint, ''), 'message',
      v_message, 'details', nullif(v_detail, '')))];
  end if;
  -- A call is refused, and nothing of the batch has happened. Each half goes by itself, until the call is alone.
  return governance.run_by_halves(p_kind, jsonb_path_query_array(p_calls, '$[0 to $end]',
      jsonb_build_object('end', v_half - 1)))
    || governance.run_by_halves(p_kind, jsonb_path_query_array(p_calls, '$[$start to last]',
      jsonb_build_object('start', v_half)));
end
$$;
comment on function governance.run_by_halves(text, jsonb) is
  'Runs a batch in which a call may be refused: its slot then holds the error. Whoever calls has taken the locks: '
  'halves would not take them in one order.';

create function governance.refuses_no_call(p_sqlstate text) returns boolean
  language plpgsql immutable set search_path = '' as $$
begin
  return left(p_sqlstate, 2) in ('40', '53', '55', '57', '58', 'XX');
end
$$;
comment on function governance.refuses_no_call(text) is 'Deadlocks, full disks and the like refuse no call: nothing of '
  'the batch has happened, and it can be sent again.';

create function governance.run_free_calls(p_kind text, p_calls jsonb, p_busy bigint[]) returns json[]
  language plpgsql set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
declare
  v_is_busy boolean[];
  v_free jsonb;
  v_given json[];
  v_answers json[];
  v_next int := 1;
begin
  select array_agg(l.is_busy order by l.place), coalesce(jsonb_agg(l.call order by l.place)
      filter (where not l.is_busy), '[]')
  into v_is_busy, v_free from (
    select e.call, e.place, coalesce(case p_kind when 'authorize' then governance.lock_key(e.call ->> 'user_id')
      else (select k.lock_key from governance.request_keys k where k.request_id = e.call ->> 'request_id') end
      = any (p_busy), false) as is_busy
    from jsonb_array_elements(p_calls) with ordinality e(call, place)) l;
  if v_free <> '[]' then v_given := governance.run_by_halves(p_kind, v_free); end if;
  for v_place in 1 .. cardinality(v_is_busy) loop
    if v_is_busy[v_place] then
      v_answers[v_place] := json_build_object('error', json_build_object('code', '55P03', 'hint', 'account_busy',
        'message', 'Another transaction holds the account: ask again', 'details', null));
    else
      v_answers[v_place] := v_given[v_next];
      v_next := v_next + 1;
    end if;
  end loop;
  return v_answers;
end
$$;
comment on function governance.run_free_calls(text, jsonb, bigint[]) is
  'Runs a batch without the calls of accounts whose locks (p_busy) could not be had; those are refused in their slots.';

create function governance.answer_batch(p_kind text, p_calls jsonb) returns json
  language plpgsql set search_path = '' as $$
declare
  v_busy bigint[];
begin
  if jsonb_typeof(p_calls) is distinct from 'array' or jsonb_array_length(p_calls) > 500 then
    perform governance.fail('PT400', 'invalid_argument', 'p_calls is a JSON array of at most 500 calls');
  elsif p_calls = '[]' then
    return '[]';
  end if;
  -- Nearly always no account is held by another, and no call is refused.
  begin
    return array_to_json(governance.run_calls(p_kind, p_calls, false));
  exception
    when lock_not_available then null;
    when others then
      if governance.refuses_no_call(sqlstate) then raise; end if;
  end;
  -- Nothing has happened and no lock is kept. Now with patience: first all locks, then each call by itself if need be.
  v_busy := governance.lock_batch(p_kind, p_calls);
  if v_busy = '{}' then return array_to_json(governance.run_by_halves(p_kind, p_calls)); end if;
  return array_to_json(governance.run_free_calls(p_kind, p_calls, v_busy));
end
$$;
comment on function governance.answer_batch(text, jsonb) is 'The answers of a batch, after a look at its size.';

create function public.authorize_usage_many(p_calls jsonb) returns jsonb
  language plpgsql security definer set search_path = '' as $$
begin
  perform governance.refuse_others('authorize_usage_many');
  return governance.answer_batch('authorize', p_calls)::jsonb;
end
$$;
comment on function public.authorize_usage_many(jsonb) is
  'authorize_usage for an array of at most 500 calls, objects with its parameters without p_. Answers an array in '
  'the same order: what authorize_usage answers, or {"error": {code, hint, message, details}} where it would refuse. '
  'Errors of the whole: invalid_argument.';
revoke all on function public.authorize_usage_many(jsonb) from public, anon, authenticated;
grant execute on function public.authorize_usage_many(jsonb) to service_role;

create function public.settle_usage_many(p_calls jsonb) returns jsonb
  language plpgsql security definer set search_path = '' as $$
begin
  perform governance.refuse_others('settle_usage_many');
  return governance.answer_batch('settle', p_calls)::jsonb;
end
$$;
comment on function public.settle_usage_many(jsonb) is
  'settle_usage for an array of at most 500 calls, objects with its parameters without p_. Answers an array in the '
  'same order: what settle_usage answers, or {"error": {code, hint, message, details}} where it would refuse. '
  'Errors of the whole: invalid_argument.';
revoke all on function public.settle_usage_many(jsonb) from public, anon, authenticated;
grant execute on function public.settle_usage_many(jsonb) to service_role;

create function public.release_usage_many(p_calls jsonb) returns jsonb
  language plpgsql security definer set search_path = '' as $$
begin
  perform governance.refuse_others('release_usage_many');
  return governance.answer_batch('release', p_calls)::jsonb;
end
$$;
comment on function public.release_usage_many(jsonb) is
  'release_usage for an array of at most 500 calls, objects with its parameters without p_. Answers an array in the '
  'same order: what release_usage answers, or {"error": {code, hint, message, details}} where it would refuse. '
  'Errors of the whole: invalid_argument.';
revoke all on function public.release_usage_many(jsonb) from public, anon, authenticated;
grant execute on function public.release_usage_many(jsonb) to service_role;

create function public.record_token_usage(p_user_id text, p_tokens_used bigint, p_cost_gbp numeric default null,
  p_model text default null) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_request_id text := 'record-' || gen_random_uuid();
  v_decision jsonb;
  v_settled jsonb;
  v_metadata jsonb := '{}';
begin
  perform governance.refuse_others('record_token_usage');
  perform governance.check_id('p_user_id', p_user_id);
  if p_tokens_used is null or p_tokens_used not between 1 and 9007199254740991 then
    perform governance.fail('PT400', 'invalid_argument',
      'p_tokens_used is a whole number of tokens from 1 up to 2^53 - 1');
  end if;
  if p_cost_gbp is not null then
    if p_cost_gbp = 'NaN' or p_cost_gbp not between 0 and 1000000000 then
      perform governance.fail('PT400', 'invalid_argument', 'p_cost_gbp is an amount of pounds from 0 to 1,000,000,000');
    end if;
    v_metadata := jsonb_build_object('cost_gbp', round(p_cost_gbp, 12));
    if (select c.currency from governance.active_config c) = 'gbp' then
      v_metadata := v_metadata || jsonb_build_object('stated_cost_micros', round(p_cost_gbp * 1000000)::bigint);
    end if;
  end if;
  v_decision := public.authorize_usage(v_request_id, p_user_id, coalesce(p_model, 'unknown'), p_tokens_used);
  if v_decision ->> 'decision' = 'block' then
    return jsonb_build_object('success', false, 'error', v_decision -> 'message', 'reason', v_decision -> 'reason',
      'tokens_remaining', least((v_decision -> 'balance' ->> 'available')::bigint,
        (v_decision -> 'limits' -> 'daily' ->> 'remaining')::bigint,
        (v_decision -> 'limits' -> 'monthly' ->> 'remaining')::bigint),
      'http_status', v_decision -> 'http_status', 'upgrade', v_decision -> 'upgrade', 'retry_after_seconds',
        v_decision -> 'retry_after_seconds',
      'request_id', v_request_id, 'decision_id', v_decision -> 'decision_id');
  end if;
  v_settled := public.settle_usage(v_request_id, p_tokens_used, 0, p_model, v_metadata);
  return jsonb_build_object('success', v_settled ->> 'status' = 'settled',
    'error', case when v_settled ->> 'status' <> 'settled' then 'The usage is above the ceiling and waits for a person'
      end,
    'reason', case when v_settled ->> 'status' <> 'settled' then v_settled ->> 'status' end,
    'tokens_remaining', least((v_settled -> 'balance' ->> 'available')::bigint,
      (v_decision -> 'limits' -> 'daily' ->> 'remaining')::bigint,
      (v_decision -> 'limits' -> 'monthly' ->> 'remaining')::bigint),
    'warnings', v_decision -> 'warnings', 'cost_micros', v_settled -> 'cost_micros', 'currency',
      v_settled -> 'currency', 'alerts', v_settled -> 'alerts',
    'request_id', v_request_id, 'decision_id', v_decision -> 'decision_id');
end
$$;
comment on function public.record_token_usage(text, bigint, numeric, text) is
  'Authorises and settles in one, for callers that know the tokens already: success, or error and reason. p_cost_gbp '
  'counts only where the model has no price and the preset''s currency is gbp. Errors: invalid_argument, '
    'not_configured.';
revoke all on function public.record_token_usage(text, bigint, numeric, text) from public, anon, authenticated;
grant execute on function public.record_token_usage(text, bigint, numeric, text) to service_role;

-- schemas/38_correction_effects.sql
-- What each kind of correction changes of an account's tokens, plan or calls, and how it is taken back.

create table governance.account_acts (
  act_id bigint generated always as identity primary key,
  command_id text not null unique,
  account_id bigint not null,
  kind text not null,
  -- What was asked, as governance.check_act reads it.
  fields jsonb not null,
  reason text not null,
  operator text not null,
  status text not null check (status in ('proposed', 'done', 'rejected', 'undone')),
  -- Why a second person was asked.
  why text,
  -- Account before and after, entries, lots; and what undoing needs.
  effects jsonb not null default '{}',
  created_at timestamptz not null,
  done_at timestamptz,
  -- The second person, who approved or rejected it.
  decided_by text,
  -- Numbers of acts.
  undoes bigint,
  undone_by bigint,
  -- Of which bulk act it is a part.
  bulk_id bigint
);

create index account_acts_account on governance.account_acts (account_id, act_id desc);

create index account_acts_operator on governance.account_acts (operator, act_id desc);

create index account_acts_proposed on governance.account_acts (act_id) where status = 'proposed';

create unique index account_acts_refund on governance.account_acts (account_id, (fields ->> 'request_id'))
  where kind = 'refund_call' and status in ('proposed', 'done') and undoes is null;

comment on table governance.account_acts is 'Corrections that operators made or proposed, with their effects.';

create function governance.act_whole(p_act jsonb, p_key text, p_min bigint default 1) returns bigint
  language plpgsql immutable set search_path = '' as $$
declare
  v_whole bigint := governance.stripe_whole(p_act -> p_key);
begin
  if v_whole is null or v_whole < p_min then
    perform governance.fail('PT400', 'invalid_argument',
      format('p_act.%s is a whole number from %s up to 2^53 - 1', p_key, p_min));
  end if;
  return v_whole;
end
$$;
comment on function governance.act_whole(jsonb, text, bigint) is 'A whole number of tokens in an act.';

create function governance.act_moment(p_act jsonb, p_key text) returns timestamptz
  language plpgsql stable set search_path = '' as $$
declare
  v_at timestamptz;
begin
  v_at := (p_act ->> p_key)::timestamptz;
  return case when isfinite(v_at) and v_at > governance.now() then v_at end;
exception when data_exception then
  return null;
end
$$;
comment on function governance.act_moment(jsonb, text) is 'A moment in the future in an act; null for anything else.';

create function governance.check_act(p_act jsonb) returns jsonb
  language plpgsql stable set search_path = '' as $$
declare
  v_kind text;
  v_known text[];
  v_unknown text;
begin
  if p_act is null or jsonb_typeof(p_act) <> 'object' then
    perform governance.fail('PT400', 'invalid_argument', 'p_act is an object with a kind');
  end if;
  p_act := jsonb_strip_nulls(p_act);
  v_kind := case when jsonb_typeof(p_act -> 'kind') = 'string' then p_act ->> 'kind' end;
  v_known := case v_kind
    when 'give_tokens' then '{kind,tokens,lot_kind,expires_at}'
    when 'take_tokens' then '{kind,tokens}'
    when 'refund_call' then '{kind,request_id}'
    when 'end_hold' then '{kind,request_id,action,input_tokens,output_tokens}'
    when 'change_plan' then '{kind,plan_id,when}'
    when 'raise_limit' then '{kind,daily_limit,monthly_limit,until}'
    when 'block_user' then '{kind,until}'
    when 'flag_user' then '{kind}'
    when 'unflag_user' then '{kind}'
    when 'unblock_user' then '{kind}'
    when 'note' then '{kind}' end;
  if v_known is null then
    perform governance.fail('PT400', 'invalid_argument',
      'p_act.kind is one of give_tokens, take_tokens, refund_call, end_hold, change_plan, raise_limit, flag_user, '
      'unflag_user, block_user, unblock_user, note');
  end if;
  select k into v_unknown from jsonb_object_keys(p_act) k where k <> all (v_known) limit 1;
  if v_unknown is not null then
    perform governance.fail('PT400', 'invalid_argument', format('p_act.%s is not part of %s', left(v_unknown, 64),
      v_kind));
  end if;
  if v_kind in ('give_tokens', 'take_tokens') then
    perform governance.act_whole(p_act, 'tokens');
  end if;
  if v_kind = 'give_tokens' then
    if not coalesce(p_act ->> 'lot_kind', 'promotional') = any ('{promotional,purchased,subscription}') then
      perform governance.fail('PT400', 'invalid_argument',
        'p_act.lot_kind is promotional, purchased or subscription');
    end if;
    if p_act ? 'expires_at' and governance.act_moment(p_act, 'expires_at') is null then
      perform governance.fail('PT400', 'invalid_argument',
        'p_act.expires_at is a moment in the future; leave it out for tokens that never expire');
    end if;
  elsif v_kind in ('refund_call', 'end_hold') then
    perform governance.check_id('p_act.request_id', p_act ->> 'request_id');
  end if;
  if v_kind = 'end_hold' then
    if not coalesce(p_act ->> 'action', '') = any ('{settle,release}') then
      perform governance.fail('PT400', 'invalid_argument', 'p_act.action is settle or release');
    end if;
    if p_act ? 'input_tokens' then perform governance.act_whole(p_act, 'input_tokens', 0); end if;
    if p_act ? 'output_tokens' then perform governance.act_whole(p_act, 'output_tokens', 0); end if;
  elsif v_kind = 'change_plan' then
    perform governance.check_id('p_act.plan_id', p_act ->> 'plan_id');
    if not coalesce(p_act ->> 'when', 'now') = any ('{now,next_period}') then
      perform governance.fail('PT400', 'invalid_argument', 'p_act.when is now or next_period');
    end if;
  elsif v_kind = 'block_user' and p_act ? 'until' and governance.act_moment(p_act, 'until') is null then
    perform governance.fail('PT400', 'invalid_argument',
      'p_act.until is a moment in the future; leave it out to block until someone unblocks');
  elsif v_kind = 'raise_limit' then
    if p_act ? 'daily_limit' then perform governance.act_whole(p_act, 'daily_limit'); end if;
    if p_act ? 'monthly_limit' then perform governance.act_whole(p_act, 'monthly_limit'); end if;
    if not p_act ?| '{daily_limit,monthly_limit}' then
      perform governance.fail('PT400', 'invalid_argument', 'p_act.daily_limit, monthly_limit or both are raised');
    elsif governance.act_moment(p_act, 'until') is null
      or governance.act_moment(p_act, 'until') > governance.now() + interval '1 year' then
      perform governance.fail('PT400', 'invalid_argument', 'p_act.until is a moment in the future, within a year');
    end if;
  end if;
  return p_act;
end
$$;
comment on function governance.check_act(jsonb) is
  'Refuses an act that is not complete. Kinds and fields: give_tokens {tokens, lot_kind promotional (default), '
  'purchased or subscription, expires_at}, take_tokens {tokens}, refund_call {request_id}, end_hold {request_id, '
  'action settle or release, input_tokens, output_tokens}, change_plan {plan_id, when now (default) or next_period}, '
  'raise_limit {daily_limit, monthly_limit, until}, flag_user {}, unflag_user {}, block_user {until}, '
  'unblock_user {}, note {}.';

create function governance.why_unchanged(a governance.accounts, p_act jsonb, p_now timestamptz) returns text
  language plpgsql stable set search_path = '' as $$
begin
  return case p_act ->> 'kind'
    when 'change_plan' then case
      when p_act ->> 'plan_id' = a.plan_id then 'The user is on this plan already'
      when p_act ->> 'when' = 'next_period' and p_act ->> 'plan_id' = a.next_plan_id
        then 'The user moves to this plan at the next period already' end
    when 'raise_limit' then case when exists (select from governance.plans p where p.plan_id = a.plan_id
        and ((p_act ? 'daily_limit' and coalesce((p_act ->> 'daily_limit')::bigint <= p.daily_limit, true))
          or (p_act ? 'monthly_limit' and coalesce((p_act ->> 'monthly_limit')::bigint <= p.monthly_limit, true))))
      then 'A limit is raised above what the plan has; a plan without this limit needs no raising' end
    when 'flag_user' then case when a.flagged_at is not null then 'The user is flagged already' end
    when 'unflag_user' then case when a.flagged_at is null then 'The user is not flagged' end
    when 'block_user' then case when a.blocked_at is not null and coalesce(a.blocked_until, 'infinity')
        >= greatest(coalesce((p_act ->> 'until')::timestamptz, 'infinity'), p_now)
      then 'The user is blocked for as long already' end
    when 'unblock_user' then case when coalesce(governance.blocked_until(a) <= p_now, true)
      then 'The user is not blocked' end
    end;
end
$$;
comment on function governance.why_unchanged(governance.accounts, jsonb, timestamptz) is
  'Why an act would change nothing of an account, in a sentence; null where it would change something.';

create function governance.put_back(p_account_id bigint, p_taken bigint[], p_type text, p_now timestamptz,
  p_reference text, p_description text, p_metadata jsonb) returns void
  language plpgsql set search_path = '' as $$
declare
  v_lot governance.lots;
  v_tokens bigint;
  v_expired bigint := 0;
begin
  for i in 1 .. cardinality(p_taken) by 2 loop
    v_tokens := -p_taken[i + 1];
    continue when v_tokens <= 0;
    select * into strict v_lot from governance.lots l where l.lot_id = p_taken[i];
    if v_lot.expires_at <= p_now then
      v_expired := v_expired + v_tokens;
      continue;
    end if;
    update governance.lots l set remaining = l.remaining + v_tokens, spent = l.spent - v_tokens, is_open = true
    where l.lot_id = v_lot.lot_id;
    perform governance.append_entry(p_account_id, p_type, p_now, array[v_lot.lot_id, v_tokens],
      case v_lot.kind when 'subscription' then v_tokens else 0 end,
      case v_lot.kind when 'purchased' then v_tokens else 0 end,
      case v_lot.kind when 'promotional' then v_tokens else 0 end, 0, p_reference, p_description, p_metadata);
  end loop;
  if v_expired > 0 then
    perform governance.grant_tokens(p_account_id, 'promotional', v_expired, p_type, p_now,
      p_now + interval '30 days', p_reference, p_description, p_metadata);
  end if;
end
$$;
comment on function governance.put_back(bigint, bigint[], text, timestamptz, text, text, jsonb) is
  'Puts tokens back into the lots that an entry took them from (its lot_changes), an entry each. What came from a lot '
  'that has expired since comes back as promotional tokens for 30 days. The caller holds the account''s lock.';

create function governance.request_of(p_account_id bigint, p_request_id text) returns governance.requests
  language plpgsql stable set search_path = '' as $$
declare
  q governance.requests;
begin
  select x.* into q from governance.request_keys k
    join governance.requests x on x.decision_id = k.decision_id and x.created_at = k.created_at
  where k.request_id = p_request_id and x.account_id = p_account_id;
  if not found then
    perform governance.fail('PT404', 'unknown_request',
      format('This user has no call "%s", or it is no longer kept', left(p_request_id, 64)));
  end if;
  return q;
end
$$;
comment on function governance.request_of(bigint, text) is 'A call of an account by its request id. Errors: '
  'unknown_request.';

create function governance.apply_act(a governance.accounts, p_act jsonb, p_command_id text, p_reason text,
  p_operator text, p_now timestamptz) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  c_reference constant text := left('act ' || p_command_id, 255);
  v_metadata jsonb := jsonb_build_object('command_id', p_command_id, 'operator', p_operator);
  v_tokens bigint := governance.stripe_whole(p_act -> 'tokens');
  v_free bigint := a.subscription_tokens + a.purchased_tokens + a.promotional_tokens - a.reserved_tokens;
  v_kind text := coalesce(p_act ->> 'lot_kind', 'promotional');
  v_granted governance.granted;
  v_spent governance.lot_spending;
  v_lots bigint[];
  v_debt bigint;
  v_why text := governance.why_unchanged(a, p_act, p_now);
  q governance.requests;
begin
  case p_act ->> 'kind'
  when 'give_tokens' then
    if v_free + a.reserved_tokens + v_tokens > 9007199254740991 then
      perform governance.fail('PT400', 'invalid_argument', 'The balance would not stay below 2^53');
    end if;
    v_granted := governance.grant_tokens(a.account_id, v_kind, v_tokens,
      case v_kind when 'promotional' then 'bonus' when 'subscription' then 'subscription_grant' else 'adjustment' end,
      p_now, (p_act ->> 'expires_at')::timestamptz, c_reference, p_reason, v_metadata);
    return jsonb_build_object('lot_id', v_granted.lot_id);
  when 'take_tokens' then
    if v_tokens > v_free then
      perform governance.fail('PT402', 'insufficient_tokens',
        format('%s tokens are free, %s are to be taken', v_free, v_tokens),
        jsonb_build_object('have', v_free, 'need', v_tokens)::text);
    end if;
    v_spent := governance.spend_lots(a.account_id, v_tokens);
    perform governance.append_entry(a.account_id, 'adjustment', p_now, v_spent.lot_changes, v_spent.subscription,
      v_spent.purchased, v_spent.promotional, 0, c_reference, p_reason, v_metadata);
    return jsonb_build_object('taken', to_jsonb(v_spent.lot_changes));
  when 'refund_call' then
    q := governance.request_of(a.account_id, p_act ->> 'request_id');
    if q.status <> 'settled' or q.charged_tokens = 0 then
      perform governance.fail('PT409', 'nothing_to_refund',
        format('The call is %s%s: nothing was charged for it', q.status, case
          when q.status = 'settled' then ' with no tokens' end));
    elsif exists (select from governance.account_acts x where x.account_id = a.account_id and x.kind = 'refund_call'
      and x.status in ('proposed', 'done') and x.undoes is null and x.command_id <> p_command_id
      and x.fields ->> 'request_id' = q.request_id) then
      perform governance.fail('PT409', 'already_refunded', 'This call was refunded, or its refund proposed, before');
    end if;
    v_metadata := v_metadata || jsonb_build_object('request_id', q.request_id, 'decision_id', q.decision_id);
    -- What became debt is forgiven as far as it is still owed; the rest of it was paid out of lots since.
    v_debt := least(q.unpaid_tokens, a.debt_tokens);
    if v_debt > 0 then
      perform governance.append_entry(a.account_id, 'refund', p_now, '{}', 0, 0, 0, -v_debt, c_reference, p_reason,
        v_metadata);
    end if;
    select t.lot_changes into strict v_lots from governance.token_transactions t
    where t.transaction_id = q.transaction_id;
    perform governance.put_back(a.account_id, v_lots, 'refund', p_now, c_reference, p_reason, v_metadata);
    if q.unpaid_tokens > v_debt then
      perform governance.grant_tokens(a.account_id, 'promotional', q.unpaid_tokens - v_debt, 'refund', p_now, null,
        c_reference, p_reason, v_metadata);
    end if;
    perform governance.recover_debt(a.account_id, p_now, c_reference);
    return jsonb_build_object('refunded', q.charged_tokens);
  when 'end_hold' then
    q := governance.request_of(a.account_id, p_act ->> 'request_id');
    return jsonb_build_object('answer', governance.end_hold(q, p_act ->> 'action', p_reason,
      governance.stripe_whole(p_act -> 'input_tokens'), governance.stripe_whole(p_act -> 'output_tokens'), p_now));
  when 'change_plan' then
    if v_why is not null then
      perform governance.fail('PT409', 'nothing_to_change', v_why);
    elsif p_act ->> 'when' = 'next_period' then
      if not exists (select from governance.plans p where p.plan_id = p_act ->> 'plan_id' and p.retired_at is null) then
        perform governance.fail('PT404', 'unknown_plan',
          format('There is no plan "%s"', left(p_act ->> 'plan_id', 64)));
      end if;
      update governance.accounts y set next_plan_id = p_act ->> 'plan_id' where y.account_id = a.account_id;
      return jsonb_build_object('next_plan_id', a.next_plan_id);
    end if;
    perform public.upsert_account(a.user_id, p_act ->> 'plan_id');
    return jsonb_build_object('plan_id', a.plan_id, 'month_allowance', a.month_allowance, 'lot_id', (
      select max(l.lot_id) from governance.lots l
      where l.account_id = a.account_id and l.kind = 'subscription'
        and l.lot_id > (p_act ->> 'last_lot_id')::bigint));
  when 'raise_limit' then
    if v_why is not null then perform governance.fail('PT409', 'nothing_to_change', v_why); end if;
    update governance.accounts y set raised_daily_limit = (p_act ->> 'daily_limit')::bigint,
      raised_monthly_limit = (p_act ->> 'monthly_limit')::bigint, raised_until = (p_act ->> 'until')::timestamptz
    where y.account_id = a.account_id;
    return jsonb_build_object('raised', jsonb_build_object('daily_limit', a.raised_daily_limit, 'monthly_limit',
      a.raised_monthly_limit, 'until', a.raised_until));
  when 'note' then
    return '{}';
  else
    return governance.change_standing(a, p_act, p_reason, p_operator, p_now);
  end case;
end
$$;
comment on function governance.apply_act(governance.accounts, jsonb, text, text, text, timestamptz) is
  'Does an act that governance.check_act has read; answers what undoing it needs. The caller holds the account''s '
  'lock. '
  'Errors: insufficient_tokens, unknown_request, nothing_to_refund, already_refunded, already_resolved, unknown_plan, '
  'nothing_to_change, invalid_argument.';

create function governance.reverse_act(a governance.accounts, x governance.account_acts, p_command_id text,
  p_reason text, p_operator text, p_now timestamptz) returns void
  language plpgsql set search_path = '' as $$
declare
  c_reference constant text := left('act ' || p_command_id, 255);
  v_metadata jsonb := jsonb_build_object('command_id', p_command_id, 'operator', p_operator, 'undoes', x.command_id);
  v_undo jsonb := x.effects -> 'undo';
  v_free bigint := a.subscription_tokens + a.purchased_tokens + a.promotional_tokens - a.reserved_tokens;
  v_tokens bigint;
  v_spent governance.lot_spending;
  l governance.lots;
begin
  if v_undo ? 'standing' then
    perform governance.put_back_standing(a, x.kind, v_undo, p_now);
    return;
  elsif v_undo ? 'next_plan_id' then
    if a.next_plan_id is distinct from x.fields ->> 'plan_id' then
      perform governance.fail('PT409', 'changed_since', 'The user does not move to this plan any more');
    end if;
    update governance.accounts y set next_plan_id = v_undo ->> 'next_plan_id' where y.account_id = a.account_id;
    return;
  elsif v_undo ? 'raised' then
    if a.raised_until is distinct from (x.fields ->> 'until')::timestamptz
      or a.raised_daily_limit is distinct from (x.fields ->> 'daily_limit')::bigint
      or a.raised_monthly_limit is distinct from (x.fields ->> 'monthly_limit')::bigint then
      perform governance.fail('PT409', 'changed_since', 'The limits were raised otherwise since');
    end if;
    update governance.accounts y set raised_daily_limit = (v_undo #>> '{raised,daily_limit}')::bigint,
      raised_monthly_limit = (v_undo #>> '{raised,monthly_limit}')::bigint,
      raised_until = (v_undo #>> '{raised,until}')::timestamptz
    where y.account_id = a.account_id;
    return;
  end if;
  if v_undo ? 'plan_id' and x.kind = 'change_plan' then
    if a.plan_id is distinct from x.fields ->> 'plan_id' then
      perform governance.fail('PT409', 'changed_since', format('The user has moved on to the plan %s since',
        left(a.plan_id, 64)));
    end if;
    update governance.accounts y set plan_id = v_undo ->> 'plan_id',
      month_allowance = case when y.local_month = (x.effects ->> 'local_month')::date
        then (v_undo ->> 'month_allowance')::bigint else y.month_allowance end
    where y.account_id = a.account_id;
  end if;
  if v_undo ? 'lot_id' and v_undo ->> 'lot_id' is not null then
    -- What of it has expired is gone already; what was spent becomes debt, as it was before the grant.
    select * into strict l from governance.lots y where y.lot_id = (v_undo ->> 'lot_id')::bigint;
    if l.granted - l.expired - l.clawed_back > 0 then
      perform governance.claw_back_lot(l.lot_id, l.granted - l.expired - l.clawed_back, 'reversal', p_now,
        c_reference, p_reason, v_metadata);
      perform governance.recover_debt(a.account_id, p_now, c_reference);
    end if;
  elsif v_undo ? 'taken' then
    perform governance.put_back(a.account_id, array(select jsonb_array_elements_text(v_undo -> 'taken')::bigint),
      'adjustment', p_now, c_reference, p_reason, v_metadata);
    perform governance.recover_debt(a.account_id, p_now, c_reference);
  elsif v_undo ? 'refunded' then
    v_tokens := (v_undo ->> 'refunded')::bigint;
    v_spent := governance.spend_lots(a.account_id, least(v_tokens, v_free));
    perform governance.append_entry(a.account_id, 'adjustment', p_now, v_spent.lot_changes, v_spent.subscription,
      v_spent.purchased, v_spent.promotional, v_tokens - v_spent.taken, c_reference, p_reason, v_metadata);
  elsif x.kind <> 'change_plan' then
    perform governance.fail('PT409', 'not_undoable', format('%s cannot be undone', replace(x.kind, '_', ' ')));
  end if;
end
$$;
comment on function governance.reverse_act(governance.accounts, governance.account_acts, text, text, text,
  timestamptz) is
  'Takes an act back with compensating entries. The caller holds the account''s lock. Errors: changed_since, '
  'not_undoable.';

-- schemas/39_corrections.sql
-- Corrections: what an operator changes of an account's tokens, plan or calls. Each is previewed by doing it and taking
-- it back, counted against what one person may decide alone, kept with its effects, and undone by compensating entries.

create function governance.run_act(a governance.accounts, p_act jsonb, x governance.account_acts, p_command_id text,
  p_reason text, p_operator text, p_now timestamptz) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  c_shown constant text[] := '{user_id,plan_id,plan_name,balance,limits,is_blocked,is_flagged,raised,next_plan}';
  v_before jsonb := governance.account_json(a);
  v_books_before jsonb := governance.account_books(array[a.user_id]) -> a.user_id;
  v_after jsonb;
  v_books_after jsonb;
  v_undo jsonb := '{}';
begin
  if x.act_id is not null then
    perform governance.reverse_act(a, x, p_command_id, p_reason, p_operator, p_now);
  else
    v_undo := governance.apply_act(a, p_act || jsonb_build_object('last_lot_id',
      (select coalesce(max(l.lot_id), 0) from governance.lots l where l.account_id = a.account_id)),
      p_command_id, p_reason, p_operator, p_now);
  end if;
  select governance.account_json(y) into strict v_after from governance.accounts y where y.account_id = a.account_id;
  v_books_after := governance.account_books(array[a.user_id]) -> a.user_id;
  return jsonb_build_object('undo', v_undo, 'local_month', a.local_month,
    'before', (select jsonb_object_agg(k, v_before -> k) from unnest(c_shown) k),
    'after', (select jsonb_object_agg(k, v_after -> k) from unnest(c_shown) k),
    -- Own entries of this transaction that were there before the act belong to bringing the account up to the moment.
    'entries', (select coalesce(jsonb_agg(e order by n), '[]')
      from jsonb_array_elements(v_books_after -> 'entries') with ordinality x(e, n)
      where n > jsonb_array_length(v_books_before -> 'entries')),
    'lots', (select coalesce(jsonb_agg(jsonb_build_object('lot_id', y.key::bigint, 'before',
        v_books_before #> array['lots', y.key], 'after', y.value) order by y.key::bigint), '[]')
      from jsonb_each(v_books_after -> 'lots') y
      where y.value is distinct from v_books_before #> array['lots', y.key]));
end
$$;
comment on function governance.run_act(governance.accounts, jsonb, governance.account_acts, text, text, text,
  timestamptz) is
  'Does an act, or takes act x back where it is given; answers its effects: the account before and after, ledger '
  'entries, changed lots, and what undoing needs. The caller holds the account''s lock.';

create function governance.act_stake(p_effects jsonb) returns bigint
  language sql immutable set search_path = '' as $$
  select least(coalesce(sum(abs((e ->> 'amount')::numeric)), 0)
    + abs((p_effects #>> '{after,balance,debt}')::numeric - (p_effects #>> '{before,balance,debt}')::numeric),
    9007199254740991)::bigint
  from jsonb_array_elements(p_effects -> 'entries') e where e ->> 'type' <> 'debt_recovery'
$$;
comment on function governance.act_stake(jsonb) is 'How many tokens an act moves: what counts against the limit of one '
  'person.';

create function governance.why_second_person(p_operator text, p_tokens bigint, p_now timestamptz) returns text
  language plpgsql stable set search_path = '' as $$
declare
  v_limit bigint := governance.setting_number('approval_above_tokens', 1000000);
  v_alone numeric;
begin
  if p_tokens = 0 then return null; end if;
  if p_tokens > v_limit then
    return format('More than %s tokens need the approval of a second person', governance.with_separators(v_limit));
  end if;
  select p_tokens + coalesce(sum(d.tokens), 0) into v_alone from governance.lone_decisions d
  where d.decided_at > p_now - interval '24 hours' and governance.is_same_person(d.decided_by, p_operator);
  if v_alone > v_limit then
    return format('With this one you would have decided %s tokens alone within 24 hours: above %s a second person must '
      'approve', governance.with_separators(v_alone::bigint), governance.with_separators(v_limit));
  end if;
  return null;
end
$$;
comment on function governance.why_second_person(text, bigint, timestamptz) is
  'Why a second person must approve so many tokens, in a sentence; null where one is enough. The limit is finance''s '
  '(setting approval_above_tokens), and what one person decided alone within 24 hours is added up over both desks.';

create function governance.act_json(x governance.account_acts) returns jsonb
  language sql stable set search_path = '' as $$
  select jsonb_build_object('act_id', x.act_id, 'command_id', x.command_id, 'user_id', a.user_id, 'display_name',
    a.display_name, 'kind', x.kind, 'fields', x.fields - 'kind', 'reason', x.reason, 'operator', x.operator, 'status',
    x.status, 'why', x.why, 'effects', x.effects - '{undo,local_month}'::text[], 'created_at', x.created_at, 'done_at',
    x.done_at, 'decided_by', x.decided_by, 'undoes', x.undoes, 'undone_by', x.undone_by, 'bulk_id',
    x.bulk_id, 'can_undo', x.status = 'done' and x.undoes is null
      and (x.effects -> 'undo') is distinct from '{}' and x.kind <> 'end_hold')
  from governance.accounts a where a.account_id = x.account_id
$$;
comment on function governance.act_json(governance.account_acts) is 'A correction as the console reads it.';

create function public.console_act(p_command_id text, p_user_id text, p_act jsonb, p_reason text, p_operator text,
  p_expected_version int default null, p_dry_run boolean default false) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_act jsonb;
  a governance.accounts;
  x governance.account_acts;
  v_answer jsonb;
  v_effects jsonb;
  v_why text;
  v_now timestamptz;
begin
  perform governance.refuse_others('console_act');
  perform governance.check_operator_command(p_command_id, p_user_id, p_reason, p_operator);
  perform governance.check_id('p_operator', p_operator);
  v_act := governance.check_act(p_act);
  if not coalesce(p_dry_run, false) then
    perform governance.lock_person(p_operator);
    v_answer := governance.begin_act('act', p_command_id, p_user_id, p_reason, p_operator, p_expected_version,
      v_act::text);
    if v_answer is not null then return v_answer; end if;
  end if;
  a := governance.lock_account(p_user_id);
  v_now := governance.now();
  begin
    v_effects := governance.run_act(a, v_act, null, p_command_id, p_reason, p_operator, v_now);
    v_why := governance.why_second_person(p_operator, governance.act_stake(v_effects), v_now);
    if p_dry_run or v_why is not null then
      raise exception using errcode = 'PT0DR', message = 'preview';
    end if;
  exception when sqlstate 'PT0DR' then null;
  end;
  if p_dry_run then
    return jsonb_build_object('effects', v_effects - '{undo,local_month}'::text[], 'version', a.version, 'why', v_why);
  end if;
  insert into governance.account_acts (command_id, account_id, kind, fields, reason, operator, status, why, effects,
    created_at, done_at)
  values (p_command_id, a.account_id, v_act ->> 'kind', v_act, p_reason, p_operator,
    case when v_why is null then 'done' else 'proposed' end, v_why, v_effects, v_now, case when v_why is null
    then v_now end)
  returning * into x;
  if v_why is null and governance.act_stake(v_effects) > 0 then
    insert into governance.lone_decisions (act_id, what, decided_at, decided_by, tokens, amount_minor)
    values (x.act_id, 'act', v_now, p_operator, governance.act_stake(v_effects), 0);
  end if;
  return governance.end_act(case when v_why is null then '' else 'propose_' end || x.kind, p_command_id, p_user_id,
    p_reason, p_operator, (v_act - 'kind') || jsonb_build_object('act_id', x.act_id), governance.act_json(x));
end
$$;
comment on function public.console_act(text, text, jsonb, text, text, int, boolean) is
  'An operator''s correction of an account: p_act is {kind, ...} as governance.check_act says. Answers {act, account}. '
  'Above what one person may decide alone (setting approval_above_tokens, added up over 24 hours) act.status is '
  'proposed, nothing has moved, and somebody else decides with console_decide_act. p_dry_run answers {effects, why, '
  'version} and changes nothing. Audited, and safe to repeat. Errors: invalid_argument, unknown_user, '
  'version_conflict, idempotency_conflict, insufficient_tokens, unknown_request, nothing_to_refund, '
  'already_refunded, already_resolved, unknown_plan, nothing_to_change.';
revoke all on function public.console_act(text, text, jsonb, text, text, int, boolean)
  from public, anon, authenticated;
grant execute on function public.console_act(text, text, jsonb, text, text, int, boolean) to service_role;

create function governance.find_act(p_act_id bigint) returns governance.account_acts
  language plpgsql stable set search_path = '' as $$
declare
  x governance.account_acts;
begin
  select * into x from governance.account_acts y where y.act_id = p_act_id;
  if not found then
    perform governance.fail('PT404', 'not_found', 'There is no such act');
  end if;
  return x;
end
$$;
comment on function governance.find_act(bigint) is 'A correction by its number. Errors: not_found.';

create function public.console_decide_act(p_command_id text, p_act_id bigint, p_decision text, p_reason text,
  p_operator text, p_dry_run boolean default false) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  x governance.account_acts;
  a governance.accounts;
  v_user_id text;
  v_answer jsonb;
  v_effects jsonb;
  v_now timestamptz;
begin
  perform governance.refuse_others('console_decide_act');
  perform governance.check_id('p_command_id', p_command_id);
  perform governance.check_id('p_reason', p_reason, 1000);
  perform governance.check_id('p_operator', p_operator);
  if p_decision is null or p_decision not in ('approve', 'reject') then
    perform governance.fail('PT400', 'invalid_argument', 'p_decision is approve or reject');
  end if;
  x := governance.find_act(p_act_id);
  a := governance.lock_account_id(x.account_id);
  if not coalesce(p_dry_run, false) then
    v_answer := governance.begin_command('operator', p_command_id,
      row('decide_act', p_act_id, p_decision, p_reason, p_operator)::text);
    if v_answer is not null then return v_answer; end if;
  end if;
  x := governance.find_act(p_act_id);
  if x.status <> 'proposed' then
    perform governance.fail('PT409', 'already_decided', format('This act is %s already%s', x.status,
      coalesce(': ' || left(x.decided_by, 64), '')), governance.act_json(x)::text);
  elsif p_decision = 'approve' and governance.is_same_person(x.operator, p_operator) then
    perform governance.fail('PT403', 'same_person', 'Somebody else must approve what you proposed');
  end if;
  v_now := governance.now();
  if p_decision = 'approve' then
    begin
      v_effects := governance.run_act(a, x.fields, null, x.command_id, x.reason, x.operator, v_now);
      if p_dry_run then
        raise exception using errcode = 'PT0DR', message = 'preview';
      end if;
    exception when sqlstate 'PT0DR' then
      return jsonb_build_object('effects', v_effects - '{undo,local_month}'::text[], 'version', a.version, 'why', null);
    end;
  end if;
  update governance.account_acts y set status = case p_decision when 'approve' then 'done' else 'rejected' end,
    effects = coalesce(v_effects, y.effects), done_at = v_now, decided_by = p_operator
  where y.act_id = p_act_id returning * into x;
  select y.user_id into strict v_user_id from governance.accounts y where y.account_id = x.account_id;
  return governance.end_act(p_decision || '_' || x.kind, p_command_id, v_user_id, p_reason, p_operator,
    (x.fields - 'kind') || jsonb_build_object('act_id', x.act_id, 'proposed_by', x.operator), governance.act_json(x));
end
$$;
comment on function public.console_decide_act(text, bigint, text, text, text, boolean) is
  'A second person approves a proposed correction, which is done then and there, or rejects it (its proposer may too). '
  'Answers {act, account}; p_dry_run what approving would do now. Audited. Errors: invalid_argument, not_found, '
  'already_decided, same_person, and those of console_act.';
revoke all on function public.console_decide_act(text, bigint, text, text, text, boolean)
  from public, anon, authenticated;
grant execute on function public.console_decide_act(text, bigint, text, text, text, boolean) to service_role;

create function public.console_undo_act(p_command_id text, p_act_id bigint, p_reason text, p_operator text,
  p_dry_run boolean default false) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  x governance.account_acts;
  y governance.account_acts;
  a governance.accounts;
  v_answer jsonb;
  v_effects jsonb;
  v_now timestamptz;
begin
  perform governance.refuse_others('console_undo_act');
  perform governance.check_id('p_command_id', p_command_id);
  perform governance.check_id('p_reason', p_reason, 1000);
  perform governance.check_id('p_operator', p_operator);
  x := governance.find_act(p_act_id);
  a := governance.lock_account_id(x.account_id);
  if not coalesce(p_dry_run, false) then
    v_answer := governance.begin_command('operator', p_command_id,
      row('undo_act', p_act_id, p_reason, p_operator)::text);
    if v_answer is not null then return v_answer; end if;
  end if;
  x := governance.find_act(p_act_id);
  if x.status <> 'done' then
    perform governance.fail('PT409', 'not_undoable', format('This act is %s: there is nothing to undo', x.status),
      governance.act_json(x)::text);
  elsif x.undoes is not null then
    perform governance.fail('PT409', 'not_undoable', 'An undo is not undone: do the act again');
  end if;
  v_now := governance.now();
  begin
    v_effects := governance.run_act(a, null, x, p_command_id, p_reason, p_operator, v_now);
    if p_dry_run then
      raise exception using errcode = 'PT0DR', message = 'preview';
    end if;
  exception when sqlstate 'PT0DR' then
    return jsonb_build_object('effects', v_effects - '{undo,local_month}'::text[], 'version', a.version, 'why', null);
  end;
  insert into governance.account_acts (command_id, account_id, kind, fields, reason, operator, status, effects,
    created_at, done_at, undoes)
  values (p_command_id, x.account_id, x.kind, x.fields, p_reason, p_operator, 'done', v_effects, v_now, v_now,
    x.act_id)
  returning * into y;
  update governance.account_acts z set status = 'undone', undone_by = y.act_id where z.act_id = x.act_id;
  delete from governance.lone_decisions d where d.act_id = x.act_id;
  return governance.end_act('undo_' || x.kind, p_command_id, a.user_id, p_reason, p_operator,
    (x.fields - 'kind') || jsonb_build_object('act_id', y.act_id, 'undoes', x.act_id), governance.act_json(y));
end
$$;
comment on function public.console_undo_act(text, bigint, text, text, boolean) is
  'Takes a correction back with compensating entries: tokens given are taken from their lot (what was spent of them '
  'becomes debt), tokens taken come back to their lots, the plan of before is put back. Answers {act, account}; '
  'p_dry_run the effects. Audited. Errors: invalid_argument, not_found, not_undoable, changed_since, '
  'idempotency_conflict.';
revoke all on function public.console_undo_act(text, bigint, text, text, boolean) from public, anon, authenticated;
grant execute on function public.console_undo_act(text, bigint, text, text, boolean) to service_role;

create function public.console_command_outcome(p_command_id text) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_answer jsonb;
begin
  perform governance.refuse_others('console_command_outcome');
  perform governance.check_id('p_command_id', p_command_id);
  insert into governance.commands (kind, command_id, fingerprint, answer)
  values ('operator', p_command_id, '', '{"is_void": true}') on conflict do nothing;
  select c.answer into strict v_answer from governance.commands c
  where c.kind = 'operator' and c.command_id = p_command_id;
  return jsonb_build_object('is_done', not coalesce(v_answer ? 'is_void', false), 'answer', case
    when not v_answer ? 'is_void' then v_answer end);
end
$$;
comment on function public.console_command_outcome(text) is
  'What came of an operator''s command whose answer was lost: {is_done, answer}. One that never arrived is void from '
  'now on: should it still come, it is refused. Errors: invalid_argument.';
revoke all on function public.console_command_outcome(text) from public, anon, authenticated;
grant execute on function public.console_command_outcome(text) to service_role;

create function public.console_list_acts(p_filter jsonb default '{}', p_before_id bigint default null,
  p_limit int default 50) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
declare
  v_account_id bigint;
begin
  perform governance.refuse_others('console_list_acts');
  perform governance.check_limit(p_limit, 200);
  if p_filter is null or jsonb_typeof(p_filter) <> 'object' then
    perform governance.fail('PT400', 'invalid_argument', 'p_filter is an object: operator, user_id, status');
  end if;
  if p_filter ->> 'user_id' is not null then
    select a.account_id into v_account_id from governance.accounts a where a.user_id = p_filter ->> 'user_id';
    if v_account_id is null then
      perform governance.fail('PT404', 'unknown_user',
        format('There is no account of user "%s"', left(p_filter ->> 'user_id', 64)));
    end if;
  end if;
  return (
    with page as (
      select x as act, row_number() over (order by x.act_id desc) as n
      from governance.account_acts x
      where x.act_id < coalesce(p_before_id, 9223372036854775807)
        and (v_account_id is null or x.account_id = v_account_id)
        -- Thousands of a bulk act would hide all others: that is listed as one.
        and (v_account_id is not null or x.bulk_id is null)
        and (p_filter ->> 'operator' is null or x.operator = p_filter ->> 'operator')
        and (p_filter ->> 'status' is null or x.status = p_filter ->> 'status')
      order by x.act_id desc limit p_limit + 1)
    select jsonb_build_object(
      'acts', coalesce(jsonb_agg(governance.act_json(p.act) order by p.n) filter (where p.n <= p_limit), '[]'),
      'next_before_id', case when count(*) > p_limit then max((p.act).act_id) filter (where p.n = p_limit) end)
    from page p);
end
$$;
comment on function public.console_list_acts(jsonb, bigint, int) is
  'Corrections of accounts, newest first; p_filter may name operator, user_id, status. Those of bulk acts are listed '
  'by user alone. Errors: invalid_argument, unknown_user.';
revoke all on function public.console_list_acts(jsonb, bigint, int) from public, anon, authenticated;
grant execute on function public.console_list_acts(jsonb, bigint, int) to service_role;

-- schemas/40_listings.sql
-- Listings: a copy of each account that the console searches, filters and sorts. It is seconds old and kept off the
-- path of a call. What the console reads (41 to 46) is for the service role alone, and its cost is bounded by a page
-- or by the minutes asked for, never by the length of history.

create table governance.account_listings (
  -- No foreign key: checking it would lock the account, which its holder has while it waits for this row. The triggers
  -- below make, change and remove a listing with its account.
  account_id bigint primary key,
  -- Written with the account (see account_listings_follow)
  sort_name text collate "C" not null,
  search_text text not null,
  plan_id text not null,
  is_flagged boolean not null,
  -- Written by governance.follow_events
  blocked_until timestamptz,
  tokens_today bigint not null default 0,
  tokens_this_month bigint not null default 0,
  cost_this_month_micros bigint not null default 0,
  available bigint not null default 0,
  reserved bigint not null default 0,
  debt bigint not null default 0,
  usage_percent int,
  last_activity_at timestamptz not null default '-infinity',
  -- End of the local day on which the account was last active, and of the month that its counters are of.
  day_ends_at timestamptz,
  month_ends_at timestamptz not null,
  holds_check_at timestamptz
) with (fillfactor = 80);

comment on table governance.account_listings is
  'What the console searches, filters and sorts accounts by. A copy, so that no index covers the counters that every '
  'call changes.';

create index account_listings_name on governance.account_listings (sort_name, account_id);

create index account_listings_plan on governance.account_listings (plan_id, sort_name, account_id);

create index account_listings_today on governance.account_listings (tokens_today, account_id);

create index account_listings_month on governance.account_listings (tokens_this_month, account_id);

create index account_listings_cost on governance.account_listings (cost_this_month_micros, account_id);

create index account_listings_available on governance.account_listings (available, account_id);

create index account_listings_activity on governance.account_listings (last_activity_at, account_id);

create index account_listings_debt on governance.account_listings (debt, account_id);

create index account_listings_flagged on governance.account_listings (account_id) where is_flagged;

create index account_listings_blocked on governance.account_listings (blocked_until) where blocked_until is not null;

create index account_listings_near_limit on governance.account_listings (usage_percent) where usage_percent >= 80;

create index account_listings_in_debt on governance.account_listings (account_id) where debt > 0;

create index account_listings_day on governance.account_listings (day_ends_at) where day_ends_at is not null;

create index account_listings_month_end on governance.account_listings (month_ends_at);

create index account_listings_holding on governance.account_listings (account_id) include (reserved) where reserved > 0;

create index account_listings_holds_check on governance.account_listings (holds_check_at)
  where holds_check_at is not null;

-- Search among many needs pg_trgm, in whichever schema this project keeps its extensions. Without it, search reads
-- every listing.
do $$
declare
  v_schema text := (select n.nspname from pg_catalog.pg_namespace n where n.nspname in ('extensions', 'public')
    order by 1 limit 1);
begin
  if not exists (select from pg_catalog.pg_extension where extname = 'pg_trgm') then
    if not exists (select from pg_catalog.pg_available_extensions where name = 'pg_trgm') then return; end if;
    begin
      execute format('create extension pg_trgm schema %I', v_schema);
    exception when insufficient_privilege then
      raise notice 'pg_trgm is there but may not be installed by this role: search among many accounts will be slow';
      return;
    end;
  end if;
  select n.nspname into strict v_schema from pg_catalog.pg_extension e
    join pg_catalog.pg_namespace n on n.oid = e.extnamespace
    where e.extname = 'pg_trgm';
  execute format('create index account_listings_search on governance.account_listings using gin (search_text '
    '%I.gin_trgm_ops) with (gin_pending_list_limit = 256)',
    v_schema);
end
$$;

create function governance.sort_name(p_user_id text, p_display_name text) returns text
  language sql immutable parallel safe set search_path = '' as $$
  select lower(left(coalesce(nullif(btrim(p_display_name), ''), p_user_id), 200))
$$;
comment on function governance.sort_name(text,
  text) is 'What an account is sorted by: its name, else its user id, in small letters.';

create function governance.search_text(p_user_id text, p_display_name text, p_email text) returns text
  language sql immutable parallel safe set search_path = '' as $$
  select E'\n' || lower(p_user_id || E'\n' || regexp_replace(left(coalesce(p_display_name, ''), 300), '\s+', ' ', 'g')
    || E'\n' || left(coalesce(p_email, ''), 300))
$$;
comment on function governance.search_text(text, text,
  text) is 'What an account is found by: user id, name and e-mail in small letters, each on a line of its own.';

create function governance.percent_used(p_today bigint, p_month bigint, p_daily_limit bigint, p_monthly_limit bigint,
  p_monthly_allowance bigint) returns int
  language plpgsql immutable set search_path = '' as $$
declare
  -- Not least(): it passes over nulls, and nobody without a limit has used 2,147,483,647 percent.
  v_percent numeric := case
    when p_daily_limit is null and p_monthly_limit is null then p_month * 100.0 / nullif(p_monthly_allowance, 0)
    else greatest(
      case when p_daily_limit = 0 then 100 else p_today * 100.0 / p_daily_limit end,
      case when p_monthly_limit = 0 then 100 else p_month * 100.0 / p_monthly_limit end) end;
begin
  return case when v_percent > 2147483647 then 2147483647 else floor(v_percent)::int end;
end
$$;
comment on function governance.percent_used(bigint, bigint, bigint, bigint, bigint) is
  'usage_percent of docs/RULES.md: the higher of day''s and month''s use; by the allowance where there is no limit; '
    'null without either.';

create function governance.usage_of(p_today bigint, p_month bigint, p_daily_limit bigint, p_monthly_limit bigint,
  p_monthly_allowance bigint) returns text
  language sql immutable set search_path = '' as $$
  select case
    when p_daily_limit is null and p_monthly_limit is null then case when p_monthly_allowance > 0 then 'allowance' end
    when p_monthly_limit is null then 'daily_limit'
    when p_daily_limit is null then 'monthly_limit'
    when governance.percent_used(p_today, p_month, p_daily_limit, null, 0)
      >= governance.percent_used(p_today, p_month, null, p_monthly_limit, 0) then 'daily_limit'
    else 'monthly_limit' end
$$;
comment on function governance.usage_of(bigint, bigint, bigint, bigint, bigint) is
  'What governance.percent_used is a percent of: daily_limit, monthly_limit or allowance; null without any.';

-- The figures of the user table, all of which it can be sorted by. A column here is a column of account_listings with
-- its index, a key of each row (governance.account_rows) and a word of p_sort (console_search_accounts).
create view governance.account_figures with (security_invoker = true) as
  select a.account_id,
    case when a.day_ends_at > t.at then a.day_tokens else 0 end + a.reserved_tokens as tokens_today,
    case when a.month_ends_at > t.at then a.month_tokens else 0 end + a.reserved_tokens as tokens_this_month,
    case when a.month_ends_at > t.at then a.month_cost_micros else 0 end as cost_this_month_micros,
    a.subscription_tokens + a.purchased_tokens + a.promotional_tokens - a.reserved_tokens as available,
    a.debt_tokens as debt
  from governance.accounts a cross join (select governance.now() as at) t;

comment on view governance.account_figures is 'The figures of the user table, as they are at this moment.';

create view governance.current_listings with (security_invoker = true) as
  select f.*,
    governance.blocked_until(a) as blocked_until,
    a.reserved_tokens as reserved,
    governance.percent_used(f.tokens_today, f.tokens_this_month,
      governance.raised_limit(p.daily_limit, a.raised_daily_limit, a.raised_until, t.at),
      governance.raised_limit(p.monthly_limit, a.raised_monthly_limit, a.raised_until, t.at),
      p.monthly_allowance) as usage_percent,
    coalesce(a.last_activity_at, '-infinity') as last_activity_at,
    case when a.day_ends_at > t.at and a.day_calls > 0 then a.day_ends_at end as day_ends_at,
    a.month_ends_at,
    a.holds_check_at
  from governance.account_figures f
  join governance.accounts a using (account_id)
  join governance.plans p using (plan_id)
  cross join (select governance.now() as at) t;

comment on view governance.current_listings is 'What governance.copy_to_listings copies, as it is at this moment.';

create function governance.columns_of(p_view regclass) returns text[]
  language sql stable set search_path = '' as $$
  select array_agg(a.attname::text order by a.attnum) from pg_catalog.pg_attribute a
  where a.attrelid = p_view and a.attnum > 0 and not a.attisdropped and a.attname <> 'account_id'
$$;
comment on function governance.columns_of(regclass) is 'Columns of a view of accounts, besides the account itself.';

create function governance.copy_to_listings(p_account_ids bigint[]) returns void
  language plpgsql set search_path = '' as $$
declare
  v_columns text[] := governance.columns_of('governance.current_listings');
begin
  -- One writer of many rows at a time, so that two never wait for each other.
  perform pg_advisory_xact_lock(7254014);
  execute format('update governance.account_listings l set (%s) = row(%s) from governance.current_listings n '
    'where n.account_id = any ($1) and l.account_id = n.account_id and (%s) is distinct from (%2$s)',
    array_to_string(v_columns, ', '), 'n.' || array_to_string(v_columns, ', n.'),
    'l.' || array_to_string(v_columns, ', l.')) using p_account_ids;
end
$$;
comment on function governance.copy_to_listings(bigint[]) is 'Brings the listings of these accounts up to the moment.';

create function governance.follow_account() returns trigger
  language plpgsql set search_path = '' as $$
begin
  if tg_op = 'INSERT' then
    insert into governance.account_listings (account_id, sort_name, search_text, plan_id, is_flagged, month_ends_at)
    values (new.account_id, governance.sort_name(new.user_id, new.display_name),
      governance.search_text(new.user_id, new.display_name, new.email), new.plan_id, new.flagged_at is not null,
        new.month_ends_at);
  elsif tg_op = 'DELETE' then
    delete from governance.account_listings l where l.account_id = old.account_id;
  else
    update governance.account_listings set
      sort_name = governance.sort_name(new.user_id, new.display_name),
      search_text = governance.search_text(new.user_id, new.display_name, new.email),
      plan_id = new.plan_id, is_flagged = new.flagged_at is not null,
      blocked_until = governance.blocked_until(new)
    where account_id = new.account_id;
  end if;
  return null;
end
$$;
comment on function governance.follow_account() is 'Carries who an account is, and what operators decided, into its '
  'listing.';

create function governance.roll_due_accounts(p_now timestamptz, p_limit int, p_budget interval,
  out expired_holds int, out expired_lots int, out allowances int, out failed int, out is_done boolean)
  language plpgsql set search_path = '' as $$
declare
  v_until timestamptz := clock_timestamp() + p_budget;
  v_due bigint[];
  v_id bigint;
  v_account governance.accounts;
  v_rolled governance.rolled;
  v_touched bigint[] := '{}';
begin
  expired_holds := 0; expired_lots := 0; allowances := 0; failed := 0; is_done := true;
  select array_agg(distinct x.account_id) into v_due from (
    (select l.account_id from governance.account_listings l where l.holds_check_at <= p_now limit p_limit)
    union all
    -- A frozen lot stays open beyond its end with nothing to take out of it: old disputes must not fill the page.
    (select o.account_id from governance.lots o where o.is_open and o.expires_at <= p_now and o.remaining > 0
      order by o.expires_at limit p_limit)
    union all
    (select l.account_id from governance.account_listings l where l.month_ends_at <= p_now order by l.month_ends_at
      limit p_limit)
    union all
    -- Only where the setting pay_debt_from changed, or a copy of older books was restored: see recover_debt.
    (select l.account_id from governance.account_listings l where l.debt > 0 and l.available > 0
      and governance.pays_debt_at_once() limit p_limit)
  ) x;
  foreach v_id in array coalesce(v_due, '{}') loop
    if clock_timestamp() > v_until then
      is_done := false;
      exit;
    end if;
    -- Whoever has the account in hand brings it up to the moment too.
    if not pg_try_advisory_xact_lock(governance.lock_key((select a.user_id from governance.accounts a
      where a.account_id = v_id))) then
      continue;
    end if;
    select * into v_account from governance.accounts a where a.account_id = v_id for update skip locked;
    continue when not found;
    v_touched := v_touched || v_id;
    if governance.needs_roll(v_account, p_now) or v_account.debt_tokens > 0 then
      begin
        v_rolled := governance.roll_account(v_id, p_now);
        if v_account.debt_tokens > 0 then
          perform governance.recover_debt(v_id, p_now, null);
        end if;
        expired_holds := expired_holds + coalesce(v_rolled.expired_holds, 0);
        expired_lots := expired_lots + coalesce(v_rolled.expired_lots, 0);
        allowances := allowances + coalesce(v_rolled.allowances, 0);
      exception when others then
        -- One account that cannot be rolled must not keep the others from it.
        failed := failed + 1;
        perform governance.raise_alert(null, v_id, 'maintenance_failed', 'critical',
          format('Upkeep of %s failed: %s', left(v_account.user_id, 100), left(sqlerrm, 300)), null, null,
            (p_now at time zone 'UTC')::date::text,
          jsonb_build_object('sqlstate', sqlstate), p_now);
      end;
    end if;
  end loop;
  -- Whoever else writes these listings holds their accounts, so the only wait would be for another copier: see upkeep.
  if cardinality(v_touched) > 0 and pg_try_advisory_xact_lock(7254014) then
    perform governance.copy_to_listings(v_touched);
  end if;
  is_done := is_done and coalesce(cardinality(v_due), 0) < p_limit;
end
$$;
comment on function governance.roll_due_accounts(timestamptz, int, interval) is
  'Brings accounts up to the moment whose holds or lots have expired or whose month is over, for at most so long: '
  'their calls wait meanwhile.';

-- A guess at how many accounts hold a text is only as good as the sample.
alter table governance.account_listings alter column search_text set statistics 500;

create trigger account_listings_made after insert or delete
  on governance.accounts for each row execute function governance.follow_account();

-- Calls set none of these columns, or to what they are: the listing is not on their path. A rule's block is copied by
-- governance.follow_events; that an operator lifted it shows at once.
create trigger account_listings_changed after update of display_name, email, plan_id, flagged_at, blocked_at,
  blocked_until, rule_blocked_until
  on governance.accounts for each row
  when ((old.display_name, old.email, old.plan_id, old.flagged_at, old.blocked_at, old.blocked_until)
    is distinct from (new.display_name, new.email, new.plan_id, new.flagged_at, new.blocked_at, new.blocked_until)
    or (old.rule_blocked_until is not null and new.rule_blocked_until is null))
  execute function governance.follow_account();

-- schemas/41_search.sql
-- Search: accounts by words, filter and order, and whatever an id names.

create function governance.estimate_rows(p_query text) returns bigint
  language plpgsql set search_path = '' as $$
declare
  v_plan json;
begin
  execute 'explain (format json) ' || p_query into v_plan;
  return (v_plan -> 0 -> 'Plan' ->> 'Plan Rows')::numeric::bigint;
end
$$;
comment on function governance.estimate_rows(text) is 'How many rows the planner expects of a query.';

create function governance.find_accounts_condition(p_query text) returns text
  language sql immutable set search_path = '' as $$
  select case when p_query <> '' then (
    select string_agg(format('l.search_text like %L', case when char_length(p_query) < 3 then E'%\n' else '%' end
      || governance.like_pattern(w) || '%'), ' and ' order by n)
    from regexp_split_to_table(p_query, ' ') with ordinality x(w, n)) end
$$;
comment on function governance.find_accounts_condition(text) is
  'SQL that an account listing l matches a search: each word, in any order, anywhere in user id, name or e-mail; with '
  'fewer than three characters, at the beginning of one.';

create function governance.close_accounts(p_query text, p_limit int) returns bigint[]
  language plpgsql volatile set search_path = '' as $$
declare
  v_schema text := (select n.nspname from pg_catalog.pg_extension e
    join pg_catalog.pg_namespace n on n.oid = e.extnamespace where e.extname = 'pg_trgm');
  v_words text[] := array(select w from regexp_split_to_table(p_query, ' ') with ordinality x(w, n)
    where char_length(w) between 3 and 50 order by char_length(w) desc, n limit 5);
  v_found bigint[];
begin
  -- Ids are meant as they are.
  if v_schema is null or v_words = '{}' or p_query ~ '^(\w+_\S+|[0-9a-f-]{8,})$' then return '{}'; end if;
  -- More than 5,000 close ones are not all compared: a word that so many have tells nobody apart.
  -- Two letters in the wrong order share two of the five trigrams of a word of four.
  perform set_config('pg_trgm.word_similarity_threshold', '0.39', true);
  execute format('select array_agg(x.account_id order by x.likeness desc, x.account_id) from (
      select l.account_id, %s as likeness
      from (select y.account_id, y.search_text from governance.account_listings y where %s limit 5000) l
      order by likeness desc, l.account_id limit %s) x',
    (select string_agg(format('%I.word_similarity(%L, l.search_text)', v_schema, w), ' + ') from unnest(v_words) w),
    (select string_agg(format('y.search_text operator(%I.%%>) %L', v_schema, w), ' and ') from unnest(v_words) w),
    p_limit) into v_found;
  return coalesce(v_found, '{}');
end
$$;
comment on function governance.close_accounts(text, int) is
  'Accounts whose user id, name or e-mail has words like these, the closest first: typing errors, other spellings. '
  'Empty without pg_trgm.';

create function governance.account_rows(p_account_ids bigint[]) returns jsonb
  language sql stable set search_path = '' as $$
  -- As governance.account_json says it, written out: a page asks for it twenty times.
  select coalesce(jsonb_agg(jsonb_build_object(
      'user_id', a.user_id, 'display_name', a.display_name, 'email', a.email, 'plan_id', a.plan_id, 'timezone',
        a.timezone,
      'created_at', a.created_at, 'version', a.version,
      'is_flagged', a.flagged_at is not null, 'flag_reason', a.flag_reason, 'flagged_at', a.flagged_at, 'flagged_by',
        a.flagged_by,
      'last_activity', a.last_activity_at,
      'currency', t.currency,
      'usage_percent', governance.percent_used(f.tokens_today, f.tokens_this_month, c.daily_limit, c.monthly_limit,
        p.monthly_allowance),
      'usage_of', governance.usage_of(f.tokens_today, f.tokens_this_month, c.daily_limit, c.monthly_limit,
        p.monthly_allowance)
    ) || to_jsonb(f) - 'account_id' || governance.block_json(a, t.at) order by x.n), '[]')
  from unnest(p_account_ids) with ordinality x(account_id, n)
  join governance.accounts a using (account_id)
  join governance.account_figures f using (account_id)
  join governance.plans p using (plan_id)
  cross join (select governance.now() as at, k.currency from governance.active_config k offset 0) t
  cross join lateral (select
      governance.raised_limit(p.daily_limit, a.raised_daily_limit, a.raised_until, t.at) as daily_limit,
      governance.raised_limit(p.monthly_limit, a.raised_monthly_limit, a.raised_until, t.at) as monthly_limit) c
$$;
comment on function governance.account_rows(bigint[]) is 'Rows of the user table, in the order given.';

create function governance.sort_column(p_sort text, out name text, out type text)
  language plpgsql stable set search_path = '' as $$
declare
  v_figures text[] := governance.columns_of('governance.account_figures');
begin
  if p_sort = any (v_figures) then
    name := p_sort;
    type := 'bigint';
  elsif coalesce(p_sort, 'name') = 'name' then
    name := 'sort_name';
    type := 'text';
  elsif p_sort = 'last_activity' then
    name := 'last_activity_at';
    type := 'timestamptz';
  else
    perform governance.fail('PT400', 'invalid_argument',
      format('p_sort is one of name, last_activity, %s', array_to_string(v_figures, ', ')));
  end if;
end
$$;
comment on function governance.sort_column(text) is
  'The column of governance.account_listings, and its type, that a word of p_sort means. Errors: invalid_argument.';

create function governance.filter_condition(p_filter text) returns text
  language plpgsql stable set search_path = '' as $$
declare
  v_condition text := case coalesce(p_filter, 'all')
    when 'all' then 'true'
    when 'flagged' then 'l.is_flagged'
    when 'blocked' then format('l.blocked_until > %L', governance.now())
    when 'near_limit' then 'l.usage_percent >= 80'
    when 'in_debt' then 'l.debt > 0'
    when 'active_today' then format('l.day_ends_at > %L', governance.now())
    when 'low_balance' then format('l.available < %s', (select c.low_balance_tokens from governance.active_config c))
    -- Disputes that are not decided are few.
    when 'disputed' then format('l.account_id = any (%L::bigint[])', array(select p.account_id
      from governance.stripe_disputes d join governance.stripe_payments p using (payment_id)
      where d.stage < 3 and p.account_id is not null)) end;
begin
  if v_condition is null then
    perform governance.fail('PT400', 'invalid_argument',
      'p_filter is one of all, flagged, blocked, near_limit, low_balance, in_debt, disputed, active_today');
  end if;
  return v_condition;
end
$$;
comment on function governance.filter_condition(text) is
  'The condition on governance.account_listings l that a filter of the user table means. Errors: invalid_argument.';

create function governance.read_search_cursor(p_cursor text, p_order text, p_type text, p_last_tier int,
  out tier int, out key text, out id bigint)
  language plpgsql stable set search_path = '' as $$
declare
  v_cursor jsonb;
begin
  tier := 0;
  if p_cursor is null then return; end if;
  begin
    v_cursor := convert_from(decode(p_cursor, 'base64'), 'UTF8')::jsonb;
    tier := (v_cursor ->> 't')::int;
    key := v_cursor ->> 'k';
    id := (v_cursor ->> 'i')::bigint;
    if p_type = 'bigint' then key := key::bigint; elsif p_type = 'timestamptz' then key := key::timestamptz; end if;
  exception when others then
    key := null;
  end;
  if key is null or id is null or tier is null or tier not between 0 and p_last_tier
    or v_cursor ->> 's' is distinct from p_order then
    perform governance.fail('PT400', 'invalid_argument', 'p_cursor is not one that this search gave');
  end if;
end
$$;
comment on function governance.read_search_cursor(text, text, text, int) is
  'Where a page of a search goes on: after this key and account. Errors: invalid_argument.';

create function governance.gather_few(p_conditions text[], out source text, out condition text, out total bigint,
  out is_exact boolean)
  language plpgsql set search_path = '' as $$
declare
  -- Up to so many accounts are gathered and sorted; where more match, the index of the sort is walked instead.
  c_few constant int := 2000;
  v_one text;
  v_found bigint[];
begin
  source := 'governance.account_listings l';
  condition := coalesce(nullif(array_to_string(p_conditions, ' and '), ''), 'true');
  is_exact := false;
  -- Is there a condition, or the table itself, that leaves few? Then gather those: the total is exact, and any order
  -- cheap.
  foreach v_one in array case when cardinality(p_conditions) > 0 then p_conditions else '{true}' end loop
    continue when governance.estimate_rows('select from governance.account_listings l where ' || v_one) > 4 * c_few;
    execute format('select array_agg(x.account_id) from (select l.account_id from governance.account_listings l where '
      '%s limit %s) x', v_one, c_few + 1) into v_found;
    continue when cardinality(v_found) > c_few;
    source := format('(select * from governance.account_listings where account_id = any (%L::bigint[])) l',
      coalesce(v_found, '{}'));
    is_exact := true;
    if cardinality(p_conditions) <= 1 then
      total := coalesce(cardinality(v_found), 0);
      condition := 'true';
    else
      execute format('select count(*) from %s where %s', source, condition) into total;
    end if;
    return;
  end loop;
  total := governance.estimate_rows('select from governance.account_listings l where ' || condition);
  if condition = 'true' and total < 10 * c_few then
    select count(*) into total from governance.account_listings;
    is_exact := true;
  end if;
end
$$;
comment on function governance.gather_few(text[]) is
  'What a search reads: the few accounts that fit, or the table with the condition. And how many there are.';

create function public.console_search_accounts(
  p_query text default '', p_filter text default 'all', p_plan_id text default null, p_sort text default 'name',
  p_descending boolean default false, p_cursor text default null, p_limit int default 20,
  p_active_since timestamptz default null
) returns jsonb
  language plpgsql security definer set search_path = '' set jit = off as $$
declare
  v_query text := lower(btrim(regexp_replace(coalesce(p_query, ''), '\s+', ' ', 'g')));
  v_sort record := governance.sort_column(p_sort);
  v_direction text := case when coalesce(p_descending, false) then 'desc' else 'asc' end;
  v_conditions text[] := '{}';
  v_condition text;
  v_is_close boolean := false;
  v_tier int := 0;
  v_last_tier int := 0;
  v_from record;
  v_tier_condition text;
  v_tier_where text;
  v_key text;
  v_id bigint;
  v_ids bigint[] := '{}';
  v_keys text[] := '{}';
  v_tiers int[] := '{}';
  v_found_id bigint;
  v_found_key text;
begin
  perform governance.refuse_others('console_search_accounts');
  perform governance.check_optional('p_query', p_query, 500);
  perform governance.check_limit(p_limit, 100);
  v_condition := governance.filter_condition(p_filter);
  if v_condition <> 'true' then
    v_conditions := v_conditions || v_condition;
  end if;
  if p_active_since is not null then
    if not isfinite(p_active_since) then
      perform governance.fail('PT400', 'invalid_argument', 'p_active_since is a moment');
    end if;
    v_conditions := v_conditions || format('l.last_activity_at >= %L', p_active_since);
  end if;
  if p_plan_id is not null then
    v_conditions := v_conditions || format('l.plan_id = %L', p_plan_id);
  end if;
  if v_query <> '' then
    v_conditions := v_conditions || governance.find_accounts_condition(v_query);
    -- Names that begin with what was typed come first.
    v_last_tier := (v_sort.name = 'sort_name')::int;
  end if;
  select c.tier, c.key, c.id into v_tier, v_key, v_id
  from governance.read_search_cursor(p_cursor, v_sort.name || v_direction, v_sort.type, v_last_tier) c;
  perform governance.follow_events(200);
  if v_query <> '' then
    execute format('select not exists (select from governance.account_listings l where %s)',
      governance.find_accounts_condition(v_query)) into v_is_close;
    if v_is_close then
      -- Nobody is written so: whoever is written nearly so.
      v_last_tier := 0;
      v_conditions := array_replace(v_conditions, governance.find_accounts_condition(v_query),
        format('l.account_id = any (%L::bigint[])', governance.close_accounts(v_query, 100)));
    end if;
  end if;

  v_from := governance.gather_few(v_conditions);
  while v_tier <= v_last_tier and cardinality(v_ids) <= p_limit loop
    v_tier_condition := case
      when v_last_tier = 1 then format('l.sort_name %s like %L', case v_tier when 1 then 'not' else '' end,
      governance.like_pattern(v_query) || '%') else 'true' end;
    -- A name that begins with the text holds it: no need to look for it again.
    v_tier_where := case when v_last_tier = 1 and v_tier = 0
      then coalesce(nullif(array_to_string(array_remove(v_conditions, governance.find_accounts_condition(v_query)),
        ' and '), ''), 'true') else v_from.condition end;
    for v_found_id, v_found_key in execute format(
      'select l.account_id, l.%1$I::text as key from %2$s where %3$s and %4$s %5$s order by l.%1$I %6$s, l.account_id '
      '%6$s limit %7$s',
      v_sort.name, v_from.source, v_tier_where, v_tier_condition,
      case when v_key is not null then format('and (l.%I, l.account_id) %s (%L::%s, %s)', v_sort.name,
        case v_direction when 'asc' then '>' else '<' end, v_key,
        v_sort.type || case v_sort.type when 'text' then ' collate "C"' else '' end, v_id) else '' end,
      v_direction, p_limit + 1 - cardinality(v_ids))
    loop
      v_ids := v_ids || v_found_id;
      v_keys := v_keys || v_found_key;
      v_tiers := v_tiers || v_tier;
    end loop;
    v_tier := v_tier + 1;
    v_key := null;
  end loop;

  return jsonb_build_object(
    'accounts', governance.account_rows(v_ids[1:p_limit]),
    'next_cursor', case when cardinality(v_ids) > p_limit
      then translate(encode(convert_to(jsonb_build_object('s', v_sort.name || v_direction,
      't', v_tiers[p_limit], 'k', v_keys[p_limit], 'i', v_ids[p_limit])::text, 'UTF8'), 'base64'), E'\n', '') end,
    'total', v_from.total,
    'total_is_exact', v_from.is_exact,
    'is_close', v_is_close and v_ids <> '{}');
end
$$;
comment on function public.console_search_accounts(text, text, text, text, boolean, text, int, timestamptz) is
  'A page of the user table. The text is looked for anywhere in user id, name and e-mail, with fewer than three '
  'characters at their beginning; in order of name, names that begin with it come first. Where nobody is written so, '
  'the 100 closest are searched instead (is_close). Filters: all, flagged, blocked, near_limit (80 % or more used), '
  'low_balance (the setting), in_debt, disputed (not decided yet), active_today; p_active_since beside any. '
  'next_cursor is null on the last page. Errors: invalid_argument.';
revoke all on function public.console_search_accounts(text, text, text, text, boolean, text, int, timestamptz)
  from public, anon, authenticated;
grant execute on function public.console_search_accounts(text, text, text, text, boolean, text, int, timestamptz)
  to service_role;

create function governance.find_payments(p_id text) returns setof bigint
  language plpgsql stable set search_path = '' as $$
begin
  return query
    select p.payment_id from governance.stripe_payments p
    where p_id in (p.charge_id, p.payment_intent_id, p.checkout_session_id, p.invoice_id, p.order_id)
    union select r.payment_id from governance.stripe_refunds r where r.refund_id = p_id
    union select d.payment_id from governance.stripe_disputes d where d.dispute_id = p_id
    union select s.payment_id from governance.lots x join governance.stripe_lots s using (lot_id)
      where x.stripe_invoice_line_id = p_id
    union select p.payment_id from governance.stripe_invoice_numbers i
      join governance.stripe_payments p using (invoice_id) where i.number = upper(p_id);
  if not found and p_id ~ '^(pi|ch|py)_\w{4,}$' then
    return query execute format('select p.payment_id from governance.stripe_payments p where p.%I like %L limit 5',
      case when p_id like 'pi\_%' then 'payment_intent_id' else 'charge_id' end, governance.like_pattern(p_id) || '%');
  end if;
end
$$;
comment on function governance.find_payments(text) is
  'Payments by a whole id of their charge, payment intent, session, invoice, invoice line, order, refund or dispute, '
  'by the number on the invoice, or by the beginning of the first two.';

create function governance.find_waiting(p_id text)
  returns table (kind text, id text, title text, subtitle text, user_id text)
  language sql stable set search_path = '' as $$
  (select 'event', w.event_id, p_id, concat_ws(' · ', 'not credited: waits for a person', w.event_type, w.reason),
    null::text
  from (select * from governance.webhook_events_processed x where x.status = 'quarantined'
    order by x.received_at desc limit 2000) w
  where w.event_id = p_id or strpos(w.payload::text, p_id) > 0 limit 5)
  union all
  (select 'case', c.difference_id, p_id, concat_ws(' · ', 'open difference', c.class, replace(c.status, '_', ' ')),
    c.user_id
  from governance.reconciliation_cases c
  where c.blocks and c.status in ('open', 'investigating', 'proposed', 'approved', 'posted')
    and (c.difference_id = p_id or strpos(c.difference::text, p_id) > 0) limit 5)
$$;
comment on function governance.find_waiting(text) is
  'What names an id and was not credited: Stripe''s events that wait for a person (the newest 2,000), and open '
  'differences of a reconciliation.';

create function governance.find_calls(p_id text) returns setof bigint
  language plpgsql stable set search_path = '' as $$
declare
  v_number bigint := case when p_id ~ '^\d{1,18}$' then p_id::bigint end;
begin
  return query select r.decision_id from governance.requests r where r.decision_id = v_number
    union select k.decision_id from governance.request_keys k where k.request_id = p_id;
  if found then return; end if;
  -- The beginning of a request id: in the order of any language an id stands right before what begins with it.
  if p_id ~ '^\S{6,}$' then
    return query select k.decision_id from (select x.request_id, x.decision_id from governance.request_keys x
      where x.request_id >= p_id order by x.request_id limit 20) k where starts_with(k.request_id, p_id) limit 5;
  end if;
  -- The beginning of a decision's number, with up to three digits left out.
  if p_id ~ '^\d{4,15}$' then
    return query select r.decision_id from generate_series(1, 3) d cross join lateral (
      select x.decision_id from governance.requests x
      where x.decision_id between v_number * (10 ^ d)::bigint and (v_number + 1) * (10 ^ d)::bigint - 1
      order by x.decision_id limit 3) r limit 5;
  end if;
end
$$;
comment on function governance.find_calls(text) is
  'Calls by their whole request or decision id, else by the beginning of one.';

create function public.console_search(p_query text, p_limit int default 20) returns jsonb
  language plpgsql volatile security definer set search_path = '' set jit = off as $$
declare
  v_query text := btrim(coalesce(p_query, ''));
  v_lower text := lower(regexp_replace(btrim(coalesce(p_query, '')), '\s+', ' ', 'g'));
  v_ids bigint[];
  v_more bigint[];
begin
  perform governance.refuse_others('console_search');
  perform governance.check_optional('p_query', p_query, 500);
  perform governance.check_limit(p_limit, 100);
  if v_lower = '' then return '[]'; end if;
  -- The user with this very id, then names that begin so, then whoever else matches: each from an index, none sorted.
  select array_agg(x.account_id) into v_ids from (
    select a.account_id from governance.accounts a where a.user_id = v_query
    union select k.account_id from governance.stripe_customers k where k.customer_id = v_query
    union select u.account_id from governance.stripe_subscriptions u
      where u.subscription_id = v_query and u.account_id is not null) x;
  execute format('select array_agg(x.account_id) from (select l.account_id from governance.account_listings l
    where l.sort_name like %L order by l.sort_name, l.account_id limit %s) x',
      governance.like_pattern(v_lower) || '%', p_limit) into v_more;
  v_ids := v_ids || v_more;
  if coalesce(cardinality(v_ids), 0) < p_limit then
    execute format('select array_agg(x.account_id) from (select l.account_id from governance.account_listings l where '
      '%s limit %s) x',
      governance.find_accounts_condition(v_lower), 2 * p_limit) into v_more;
    v_ids := v_ids || v_more;
  end if;
  if coalesce(cardinality(v_ids), 0) = 0 then
    -- Nobody is written so: whoever is written nearly so.
    v_ids := governance.close_accounts(v_lower, least(p_limit, 7));
  end if;
  return (
    select coalesce(jsonb_agg(to_jsonb(h) - 'rank' - 'n' order by h.rank, h.n), '[]') from (
      select * from (
        -- A whole id of a request, decision or payment is meant exactly.
        (select 1 as rank, 1::bigint as n, 'request' as kind, r.request_id as id, r.request_id as title,
          concat_ws(' · ', a.user_id, r.decision, r.reason, r.status) as subtitle, a.user_id, r.decision_id
        from governance.find_calls(v_query) f(decision_id) join governance.requests r using (decision_id)
        join governance.accounts a using (account_id) limit 5)
        union all
        -- What was not credited comes after the event or difference that says why.
        (select 1, case when z.tokens is null then 4 else 2 end, 'payment', v_query, v_query,
          concat_ws(' · ', a.user_id, coalesce(z.tokens || ' tokens', 'no tokens granted'),
            to_char(coalesce(p.paid_at, p.created_at) at time zone 'UTC', 'YYYY-MM-DD')), a.user_id, null
        from governance.find_payments(v_query) f(payment_id) join governance.stripe_payments p using (payment_id)
        left join governance.accounts a using (account_id)
        cross join lateral (select sum(s.tokens) as tokens from governance.stripe_lots s
          where s.payment_id = p.payment_id) z limit 5)
        union all
        (select 1, 3, w.kind, w.id, w.title, w.subtitle, w.user_id, null from governance.find_waiting(v_query) w
        where v_query ~ '^\S{6,}$')
        union all
        select 2, min(x.n), 'user', a.user_id, coalesce(nullif(btrim(a.display_name), ''), a.user_id),
          concat_ws(' · ', a.user_id, a.email, a.plan_id), a.user_id, null
        from unnest(v_ids) with ordinality x(account_id, n) join governance.accounts a using (account_id)
          group by a.account_id
        union all
        select 3, row_number() over (order by u.priority, u.rule_name), 'rule', u.rule_name, u.rule_name,
          concat_ws(' · ', u.rule_type, u.mode, u.description), null, null
        from governance.rules u where u.retired_at is null
          and strpos(lower(u.rule_name || ' ' || coalesce(u.description, '')), v_lower) > 0
      ) every order by rank, n limit p_limit) h);
end
$$;
comment on function public.console_search(text, int) is
  'What a typed text may mean, best first: a request or decision by its id or the beginning of it; a payment by any id '
  'of Stripe''s, the order''s, or the invoice''s number; Stripe''s events and open differences that name it and were '
  'not credited; users, also by their customer or subscription at Stripe, and by words with typing errors where nobody '
  'is written so; rules. Errors: invalid_argument.';
revoke all on function public.console_search(text, int) from public, anon, authenticated;
grant execute on function public.console_search(text, int) to service_role;

-- schemas/42_user_page.sql
-- One user's page: balance, lots, debt and its causes, payments.

create function governance.debt_causes(p_account_id bigint) returns jsonb
  language sql stable set search_path = '' as $$
  with entries as (
    select t.transaction_id, t.created_at, t.transaction_type, t.reference, t.description, t.debt_after,
      t.debt_after - lag(t.debt_after) over (order by t.transaction_id) as change
    from (select * from governance.token_transactions x where x.account_id = p_account_id
      order by x.transaction_id desc limit 5000) t
  ), since as (
    select e.*, coalesce(e.change, e.debt_after) as owed from entries e
    where e.transaction_id > coalesce((select max(z.transaction_id) from entries z where z.debt_after = 0), 0)
  ), causes as (
    -- What was paid since goes to the oldest cause first.
    select s.*, least(s.owed, greatest(sum(s.owed) over (order by s.transaction_id)
      - (select coalesce(-sum(p.owed), 0) from since p where p.owed < 0), 0)) as open
    from since s where s.owed > 0)
  select coalesce(jsonb_agg(jsonb_build_object('transaction_id', c.transaction_id, 'at', c.created_at, 'cause',
    coalesce(r.record_type, c.transaction_type), 'tokens', c.open, 'reference', c.reference, 'description',
    c.description, 'charge_id', s.charge_id, 'dispute_id', r.dispute_id, 'refund_id', r.refund_id)
    order by c.transaction_id desc), '[]')
  from (select * from causes x where x.open > 0 order by x.transaction_id desc limit 20) c
  left join governance.purchase_records r using (transaction_id)
  left join governance.stripe_payments s on s.payment_id = governance.payment_of(r)
$$;
comment on function governance.debt_causes(bigint) is
  'What an account owes, by cause, newest first: the ledger entry that it arose from, how many tokens of it are still '
  'owed, and the refund or dispute where one took back what was spent. cause is usage where a call used more than was '
  'there.';

create function governance.payments_json(p_account_id bigint) returns jsonb
  language sql stable set search_path = '' as $$
  select coalesce(jsonb_agg(jsonb_build_object('payment_id', p.payment_id, 'paid_at', coalesce(p.paid_at, p.created_at),
    'amount_minor', p.amount_minor, 'currency', p.currency, 'charge_id', p.charge_id, 'payment_intent_id',
    p.payment_intent_id, 'checkout_session_id', p.checkout_session_id, 'invoice_id', p.invoice_id, 'subscription_id',
    p.subscription_id, 'order_id', p.order_id, 'livemode', p.livemode,
    'refunded_minor', coalesce(p.refunded_override_minor, p.refunded_minor),
    'lots', (select coalesce(jsonb_agg(jsonb_build_object('lot_id', s.lot_id, 'pack_id', l.pack_id, 'tokens', s.tokens,
        'remaining', l.remaining, 'frozen', l.frozen, 'taken_back', s.reversed + s.clawed, 'dispute_state',
        s.dispute_state, 'is_void', s.is_void) order by s.lot_id), '[]')
      from governance.stripe_lots s join governance.lots l using (lot_id) where s.payment_id = p.payment_id),
    'disputes', (select coalesce(jsonb_agg(jsonb_build_object('dispute_id', d.dispute_id, 'status', d.status,
        'amount_minor', d.amount_minor) order by d.told_at), '[]')
      from governance.stripe_disputes d where d.payment_id = p.payment_id))
    order by coalesce(p.paid_at, p.created_at) desc, p.payment_id desc), '[]')
  from (select * from governance.stripe_payments x where x.account_id = p_account_id
    order by x.payment_id desc limit 50) p
$$;
comment on function governance.payments_json(bigint) is
  'The newest 50 payments of an account: what was paid and refunded (minor units), its names at Stripe, the lots it '
  'bought with what was taken back, and its disputes.';

create function public.console_get_account(p_user_id text) returns jsonb
  language plpgsql security definer set search_path = '' set jit = off as $$
declare
  v_account governance.accounts;
  v_plan governance.plans;
begin
  perform governance.refuse_others('console_get_account');
  perform governance.check_id('p_user_id', p_user_id);
  v_account := governance.current_account(p_user_id);
  select * into strict v_plan from governance.plans p where p.plan_id = v_account.plan_id;
  return jsonb_build_object(
    'account', governance.account_json(v_account) - '{balance,limits,plan_name,fail_mode,allows_top_up}'::text[],
    'plan', jsonb_build_object('plan_id', v_plan.plan_id, 'name', v_plan.name, 'monthly_allowance',
      v_plan.monthly_allowance,
      'daily_limit', v_plan.daily_limit, 'monthly_limit', v_plan.monthly_limit, 'allows_top_up', v_plan.allows_top_up,
      'fail_mode', v_plan.fail_mode, 'on_cancel', v_plan.on_cancel, 'warn_at', v_plan.warn_at, 'upgrade_to',
        v_plan.upgrade_to),
    'balance', governance.account_json(v_account) -> 'balance',
    'limits', governance.account_json(v_account) -> 'limits',
    'messages_today', v_account.day_messages,
    'cost_today_micros', v_account.day_cost_micros,
    'cost_this_month_micros', v_account.month_cost_micros,
    'currency', (select c.currency from governance.active_config c),
    'last_activity', v_account.last_activity_at,
    'low_balance_tokens', (select c.low_balance_tokens from governance.active_config c),
    'debt_causes', case when v_account.debt_tokens > 0 then governance.debt_causes(v_account.account_id) else '[]' end,
    'payments', governance.payments_json(v_account.account_id),
    'waiting', (select coalesce(jsonb_agg(jsonb_build_object('request_id', r.request_id, 'decision_id', r.decision_id,
        'model', r.settled_model, 'input_tokens', r.input_tokens, 'output_tokens', r.output_tokens, 'created_at',
        r.created_at) order by r.created_at desc), '[]')
      from governance.hold_events h
      join governance.requests r on r.decision_id = h.decision_id and r.status = 'quarantined'
      where h.kind = 'quarantined' and h.account_id = v_account.account_id),
    'lots', (
      select coalesce(jsonb_agg(jsonb_build_object('grant_id', l.lot_id, 'kind', l.kind, 'granted', l.granted,
        'remaining', l.remaining,
        'frozen', l.frozen, 'spent', l.spent, 'expired', l.expired, 'clawed_back', l.clawed_back, 'expires_at',
          l.expires_at,
        'created_at', l.created_at, 'description', l.description, 'pack_id', l.pack_id, 'charge_id', l.stripe_charge_id)
        order by l.is_open desc, l.expires_at nulls last, case l.kind when 'subscription' then 0
          when 'promotional' then 1 else 2 end, l.created_at, l.lot_id), '[]')
      from ((select * from governance.lots o where o.account_id = v_account.account_id and o.is_open limit 200)
        union all
        -- Used-up ones, the newest few.
        (select * from governance.lots u where u.account_id = v_account.account_id and not u.is_open
          order by u.lot_id desc limit 20)) l),
    'holds', case when v_account.holds_from is null then '[]' else (
      select coalesce(jsonb_agg(jsonb_build_object('request_id', r.request_id, 'decision_id', r.decision_id, 'model',
        r.model, 'status', r.status,
        'reserved_tokens', r.reserved_tokens, 'created_at', r.created_at, 'expires_at', r.expires_at)
          order by r.created_at desc), '[]')
      from (select * from governance.requests q where q.account_id = v_account.account_id and q.status = 'held'
        and q.created_at >= v_account.holds_from order by q.created_at desc limit 200) r) end,
    'audit', (
      select coalesce(jsonb_agg(jsonb_build_object('audit_id', g.audit_id, 'at', g.created_at, 'operator', g.operator,
        'action', g.action,
        'user_id', p_user_id, 'reason', g.reason, 'command_id', g.command_id, 'details', g.details)
          order by g.audit_id desc), '[]')
      from (select * from governance.audit_log x where x.account_id = v_account.account_id order by x.audit_id desc
        limit 50) g));
end
$$;
comment on function public.console_get_account(text) is
  'Everything the user''s page shows: account, plan, balance, limits, debt by cause, payments, lots (open ones, and '
  'the newest used-up), open holds, settlements that wait for a person, the last 50 audit entries. Errors: '
  'invalid_argument, unknown_user.';
revoke all on function public.console_get_account(text) from public, anon, authenticated;
grant execute on function public.console_get_account(text) to service_role;

-- schemas/43_holds.sql
-- Holds that need a person.

create view governance.stuck_holds with (security_invoker = true) as
  -- Held past its end, and nobody has given it back for five minutes; or settled beyond a sane ceiling, and waiting for
  -- a person.
  select r.decision_id, r.created_at, r.account_id, r.request_id, r.status, r.model, r.reserved_tokens, r.expires_at
  from governance.account_listings l
  join governance.accounts a using (account_id)
  join governance.requests r on r.account_id = a.account_id and r.created_at >= a.holds_from
  where l.holds_check_at < governance.now() - interval '5 minutes' and r.status = 'held'
    and r.expires_at < governance.now() - interval '5 minutes'
  union all
  select r.decision_id, r.created_at, r.account_id, r.request_id, r.status, r.model, r.reserved_tokens, r.expires_at
  from governance.hold_events h
  join governance.requests r on r.decision_id = h.decision_id and r.status = 'quarantined'
  where h.kind = 'quarantined';

comment on view governance.stuck_holds is 'Holds that need a person or have outlived their end: see '
  'console_stuck_holds and console_resolve_hold.';

create function governance.count_stuck_holds() returns bigint
  language sql stable set search_path = '' as $$
  select count(*) from governance.stuck_holds
$$;
comment on function governance.count_stuck_holds() is 'Holds that need a person or have outlived their end.';

create function public.console_stuck_holds(p_limit int default 100) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
begin
  perform governance.refuse_others('console_stuck_holds');
  perform governance.check_limit(p_limit, 1000);
  return (
    select coalesce(jsonb_agg(jsonb_build_object('request_id', s.request_id, 'decision_id', s.decision_id, 'user_id',
      a.user_id, 'display_name', a.display_name,
      'status', s.status, 'model', s.model, 'reserved_tokens', s.reserved_tokens, 'created_at', s.created_at,
        'expires_at', s.expires_at,
      'input_tokens', r.input_tokens, 'output_tokens', r.output_tokens) order by s.created_at), '[]')
    from (select * from governance.stuck_holds order by created_at limit p_limit) s
    join governance.accounts a using (account_id)
    join governance.requests r on r.decision_id = s.decision_id and r.created_at = s.created_at);
end
$$;
comment on function public.console_stuck_holds(int) is
  'Holds that have outlived their end, and settlements above the ceiling that wait for a person. Errors: '
  'invalid_argument.';
revoke all on function public.console_stuck_holds(int) from public, anon, authenticated;
grant execute on function public.console_stuck_holds(int) to service_role;

create function governance.end_hold(q governance.requests, p_action text, p_reason text, p_input_tokens bigint,
  p_output_tokens bigint, p_now timestamptz) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_answer jsonb;
begin
  if q.status not in ('held', 'expired', 'quarantined') then
    perform governance.fail('PT409', 'already_resolved',
      format('Request "%s" is %s already', left(q.request_id, 64), q.status));
  end if;

  if p_action = 'settle' and q.status = 'quarantined' then
    -- What the caller reported, let through; the caller's own repeat keeps finding its answer.
    v_answer := (governance.settle_calls(array[row(q.request_id, coalesce(p_input_tokens, q.input_tokens),
      coalesce(p_output_tokens, q.output_tokens), q.settled_model,
      coalesce(q.settle_metadata, '{}'))::governance.settle_arguments], true))[1];
    update governance.requests x set settle_fingerprint = q.settle_fingerprint
      where x.decision_id = q.decision_id and x.created_at = q.created_at;
  elsif p_action = 'settle' then
    if p_input_tokens is null or p_output_tokens is null then
      perform governance.fail('PT400', 'invalid_argument',
        'Say what the call used: p_input_tokens and p_output_tokens');
    end if;
    v_answer := (governance.settle_calls(array[row(q.request_id, p_input_tokens, p_output_tokens, null,
      null)::governance.settle_arguments], true))[1];
  elsif q.status = 'held' then
    v_answer := public.release_usage(q.request_id, p_reason);
  elsif q.status = 'expired' then
    perform governance.fail('PT409', 'already_resolved',
      format('The hold of request "%s" has expired: its tokens are back already', left(q.request_id, 64)));
  else
    insert into governance.hold_events (created_at, kind, decision_id, account_id, tokens, reason)
    values (p_now, 'released', q.decision_id, q.account_id, 0, left(p_reason, 1000));
    update governance.requests x set status = 'released', ended_at = p_now, end_reason = p_reason, released_tokens = 0
    where x.decision_id = q.decision_id and x.created_at = q.created_at returning * into q;
    v_answer := governance.end_answer(governance.call_end(q));
    perform governance.ring('feed', p_now);
  end if;
  return v_answer;
end
$$;
comment on function governance.end_hold(governance.requests, text, text, bigint, bigint, timestamptz) is
  'Settles or releases a hold that is open, has expired, or waits for a person. Answers as settle_usage and '
  'release_usage do. The caller holds the account''s lock and has read the call under it. Errors: invalid_argument, '
  'already_resolved.';

create function public.console_resolve_hold(
  p_command_id text, p_request_id text, p_action text, p_reason text, p_operator text default null,
    p_input_tokens bigint default null, p_output_tokens bigint default null
) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  q governance.requests;
  v_now timestamptz;
  v_answer jsonb;
begin
  perform governance.refuse_others('console_resolve_hold');
  perform governance.check_operator_command(p_command_id, p_request_id, p_reason, p_operator);
  if p_action is null or p_action not in ('settle', 'release') then
    perform governance.fail('PT400', 'invalid_argument', 'p_action is settle or release');
  end if;
  if p_input_tokens not between 0 and 9007199254740991 or p_output_tokens not between 0 and 9007199254740991 then
    perform governance.fail('PT400', 'invalid_argument',
      'p_input_tokens and p_output_tokens are whole numbers from 0 up to 2^53 - 1');
  end if;
  select x.* into q from governance.request_keys k
    join governance.requests x on x.decision_id = k.decision_id and x.created_at = k.created_at
  where k.request_id = p_request_id;
  if not found then
    perform governance.fail('PT404', 'unknown_request', format('There is no request "%s"', left(p_request_id, 64)));
  end if;
  perform governance.lock_account_id(q.account_id);
  v_answer := governance.begin_command('operator', p_command_id,
    row('resolve_hold', p_request_id, p_action, p_reason, p_operator, p_input_tokens, p_output_tokens)::text);
  if v_answer is not null then return v_answer; end if;
  v_now := governance.now();
  select x.* into strict q from governance.requests x
    where x.decision_id = q.decision_id and x.created_at = q.created_at;
  v_answer := governance.end_hold(q, p_action, p_reason, p_input_tokens, p_output_tokens, v_now);
  insert into governance.audit_log (created_at, operator, action, account_id, reason, command_id, details)
  values (v_now, p_operator, 'resolve_hold', q.account_id, p_reason, p_command_id,
    jsonb_build_object('request_id', p_request_id, 'decision_id', q.decision_id, 'action', p_action, 'status',
      v_answer -> 'status', 'charged_tokens', v_answer -> 'charged_tokens'));
  return governance.end_command('operator', p_command_id, v_answer);
end
$$;
comment on function public.console_resolve_hold(text, text, text, text, text, bigint, bigint) is
  'A person ends a hold: settle it with the tokens it used (a quarantined one with those it reported, unless others '
  'are said), or release it. Answers as settle_usage and release_usage do; audited. Errors: invalid_argument, '
  'unknown_request, already_resolved, idempotency_conflict.';
revoke all on function public.console_resolve_hold(text, text, text, text, text, bigint, bigint)
  from public, anon, authenticated;
grant execute on function public.console_resolve_hold(text, text, text, text, text, bigint, bigint) to service_role;

-- schemas/44_watch.sql
-- What happened in the last minutes and hours.

create table governance.minute_totals (
  minute timestamptz not null,
  -- allow, warn or block of the calls made in it; settled of those that ended in it.
  outcome text not null check (outcome in ('allow', 'warn', 'block', 'settled')),
  -- Why blocked; empty for none.
  reason text not null default '',
  calls bigint not null,
  -- Held for allow and warn, asked for block, charged for settled.
  tokens bigint not null,
  cost_micros bigint not null default 0,
  primary key (minute, outcome, reason)
) with (fillfactor = 70);

comment on table governance.minute_totals is 'Calls and tokens by minute, for the chart; kept two days.';

create table governance.recent_usage (
  -- Start of five minutes.
  slot timestamptz not null,
  account_id bigint not null,
  tokens bigint not null,
  primary key (slot, account_id)
) with (fillfactor = 70);

comment on table governance.recent_usage is 'Tokens charged by account in each five minutes; kept two days.';

create table governance.rule_matches (
  -- Start of five minutes.
  slot timestamptz not null,
  version_id bigint not null,
  matches bigint not null,
  primary key (slot, version_id)
) with (fillfactor = 70);

comment on table governance.rule_matches is 'Calls that each version of a rule matched, enforced or in shadow, in each '
  'five minutes; kept two days.';

create function governance.count_matches(p_after bigint, p_upto bigint)
  returns table (slot timestamptz, version_id bigint, matches bigint)
  language sql stable set search_path = '' as $$
  select date_bin('5 minutes', r.created_at, '2000-01-01'), v.version_id, count(*)
  from governance.requests r cross join unnest(r.matched_version_ids) v(version_id)
  where r.decision_id > p_after and r.decision_id <= p_upto and r.matched_version_ids is not null
  group by 1, 2
$$;
comment on function governance.count_matches(bigint, bigint) is 'Matches of rules among the calls with ids after the '
  'first and up to the second.';

create function governance.matches_by_slot() returns table (slot timestamptz, version_id bigint, matches bigint)
  language sql stable set search_path = '' as $$
  select x.slot, x.version_id, x.matches from governance.rule_matches x
  union all
  -- What is committed and not yet counted.
  select c.slot, c.version_id, c.matches
  from governance.maintenance_state s
  cross join lateral governance.count_matches((s.value ->> 'consumed')::bigint,
    (s.value ->> 'consumed')::bigint + 50000) c
  where s.key = 'followed_events'
$$;
comment on function governance.matches_by_slot() is 'Calls that each version of a rule matched in each five minutes of '
  'the last two days; a slot may come in parts.';

create function governance.matches_since(p_since timestamptz) returns table (rule_name text, matches bigint)
  language sql stable set search_path = '' as $$
  select v.rule_name, sum(m.matches)::bigint
  from governance.matches_by_slot() m
  join governance.rule_versions v using (version_id)
  where m.slot >= date_bin('5 minutes', p_since, '2000-01-01')
  group by 1
$$;
comment on function governance.matches_since(timestamptz) is
  'Calls that each rule matched since a moment, at most two days back, in whole five minutes; all versions together.';

create function governance.count_events(p_after bigint, p_upto bigint)
  returns table (minute timestamptz, outcome text, reason text, calls bigint, tokens bigint, cost_micros bigint)
  language sql stable set search_path = '' as $$
  select date_trunc('minute', r.created_at), r.decision, case r.decision when 'block' then coalesce(r.reason, '')
    else '' end,
    count(*), sum(case r.decision when 'block' then (r.facts).estimated_tokens else r.reserved_tokens end)::bigint,
      0::bigint
  from governance.requests r
  where r.decision_id > p_after and r.decision_id <= p_upto
  group by 1, 2, 3
  union all
  select date_trunc('minute', t.created_at), 'settled', '', count(*),
    sum(coalesce(r.charged_tokens, -t.amount))::bigint, coalesce(sum(r.cost_micros), 0)::bigint
  from governance.token_transactions t
  -- One look into an index each: the entries are few, the calls are not.
  left join lateral (select q.charged_tokens, q.cost_micros from governance.requests q
    where q.decision_id = t.decision_id limit 1) r on true
  where t.transaction_id > p_after and t.transaction_id <= p_upto and t.transaction_type = 'usage'
  group by 1
$$;
comment on function governance.count_events(bigint,
  bigint) is 'Calls and tokens by minute of the events with ids after the first and up to the second.';

create function governance.follow_new_events(p_limit int, p_last_id bigint, p_xid xid8, out followed int,
  out account_ids bigint[])
  language plpgsql set search_path = '' set jit = off set plan_cache_mode = 'force_custom_plan' as $$
declare
  v_now timestamptz := governance.now();
  v_oldest timestamptz := governance.now() - interval '2 days';
  v_state jsonb;
  v_last bigint := p_last_id;
  v_from bigint;
  v_ready bigint;
  v_upto bigint;
  v_snapshot pg_snapshot;
begin
  followed := 0;
  account_ids := '{}';
  if (select (s.value ->> 'consumed')::bigint >= v_last from governance.maintenance_state s
    where s.key = 'followed_events')
    and coalesce((select min(l.day_ends_at) from governance.account_listings l where l.day_ends_at is not null) > v_now,
      true)
    and coalesce((select min(l.month_ends_at) from governance.account_listings l) > v_now, true) then
    return;
  end if;
  select s.value into v_state from governance.maintenance_state s where s.key = 'followed_events'
    for update skip locked;
  if v_state is null then return; end if;
  v_from := (v_state ->> 'consumed')::bigint;
  v_ready := v_from;

  -- Ids are taken in one order and committed in another: an id may be passed once every transaction that can have taken
  -- one before it is over. Writers have their transaction number before their event id, so those transactions are the
  -- ones below p_xid, the number that this one got after it had read the last id; null if it had one before. (A
  -- snapshot's xmax would not do: it is no bound of the numbers that are given out.)
  v_snapshot := pg_current_snapshot();
  if governance.ended_below(p_xid, v_snapshot) then
    v_ready := v_last;
    v_state := v_state || jsonb_build_object('mark', v_last, 'mark_xid', p_xid, 'mark_at', clock_timestamp());
  elsif governance.ended_below((v_state ->> 'mark_xid')::xid8, v_snapshot)
    -- Whoever is under way for two minutes is no call, but a bulk load or a backup: charts and sorting do not wait for
    -- it.
    or (v_state ->> 'mark_at')::timestamptz < clock_timestamp() - interval '2 minutes' then
    v_ready := (v_state ->> 'mark')::bigint;
    if p_xid is not null then
      v_state := v_state || jsonb_build_object('mark', v_last, 'mark_xid', p_xid, 'mark_at', clock_timestamp());
    end if;
  end if;
  v_ready := greatest(v_ready, v_from);

  -- A page of it: up to where the source that has most fills p_limit.
  select least(v_ready, min(p.last)) into v_upto from (
    select max(x.id) as last, count(*) as n from (select r.decision_id as id from governance.requests r
      where r.decision_id > v_from and r.decision_id <= v_ready order by r.decision_id limit p_limit) x
    union all
    select max(x.id), count(*) from (select t.transaction_id as id from governance.token_transactions t
      where t.transaction_id > v_from and t.transaction_id <= v_ready order by t.transaction_id limit p_limit) x
    union all
    select max(x.id), count(*) from (select h.event_id as id from governance.hold_events h
      where h.event_id > v_from and h.event_id <= v_ready order by h.event_id limit p_limit) x
  ) p where p.n = p_limit;

  if v_upto > v_from then
    insert into governance.minute_totals as m (minute, outcome, reason, calls, tokens, cost_micros)
    select c.minute, c.outcome, c.reason, sum(c.calls), sum(c.tokens), sum(c.cost_micros)
    from governance.count_events(v_from, v_upto) c where c.minute > v_oldest group by 1, 2, 3
    on conflict (minute, outcome, reason) do update set
      calls = m.calls + excluded.calls, tokens = m.tokens + excluded.tokens,
        cost_micros = m.cost_micros + excluded.cost_micros;
    insert into governance.recent_usage as u (slot, account_id, tokens)
    select date_bin('5 minutes', t.created_at, '2000-01-01'), t.account_id, sum(coalesce(r.charged_tokens, -t.amount))
    from governance.token_transactions t
    left join lateral (select q.charged_tokens from governance.requests q
      where q.decision_id = t.decision_id limit 1) r on true
    where t.transaction_id > v_from and t.transaction_id <= v_upto and t.transaction_type = 'usage'
      and t.created_at > v_oldest
    group by 1, 2
    on conflict (slot, account_id) do update set tokens = u.tokens + excluded.tokens;
    insert into governance.rule_matches as m (slot, version_id, matches)
    select c.slot, c.version_id, c.matches from governance.count_matches(v_from, v_upto) c where c.slot > v_oldest
    on conflict (slot, version_id) do update set matches = m.matches + excluded.matches;
    v_state := v_state || jsonb_build_object('consumed', v_upto);
  end if;
  update governance.maintenance_state s set value = v_state, updated_at = clock_timestamp()
  where s.key = 'followed_events' and s.value is distinct from v_state;

  -- Whatever can be seen, and not only what may be passed: to copy an account twice does no harm. And what turns by the
  -- clock.
  account_ids := array(select r.account_id from governance.requests r where r.decision_id > v_from
      order by r.decision_id limit p_limit)
    || array(select t.account_id from governance.token_transactions t where t.transaction_id > v_from
      order by t.transaction_id limit p_limit)
    || array(select h.account_id from governance.hold_events h where h.event_id > v_from order by h.event_id
      limit p_limit)
    || array(select l.account_id from governance.account_listings l where l.day_ends_at <= v_now order by l.day_ends_at
      limit p_limit)
    || array(select x.account_id from (
      -- The rest waits for upkeep, which gives the new month's allowance too.
      select l.account_id, l.tokens_this_month, l.reserved, l.cost_this_month_micros from governance.account_listings l
      where l.month_ends_at <= v_now order by l.month_ends_at limit 10 * p_limit) x
      where x.tokens_this_month > x.reserved or x.cost_this_month_micros > 0 limit p_limit);
  followed := case when v_upto > v_from then least(v_upto - v_from, 2147483647)::int else 0 end;
end
$$;
comment on function governance.follow_new_events(int, bigint, xid8) is
  'Carries events into the totals by minute, one page a call; answers how many ids it passed, and the accounts whose '
  'listings are to be copied. p_last_id is the last event id, p_xid the transaction number that was taken after it.';

create function governance.follow_events(p_limit int default 2000) returns int
  language plpgsql set search_path = '' as $$
declare
  v_has_xid boolean := pg_current_xact_id_if_assigned() is not null;
  v_last bigint;
  v_followed int;
  v_account_ids bigint[];
begin
  if current_setting('transaction_read_only') = 'on'
    or current_setting('transaction_isolation') <> 'read committed' then return 0; end if;
  select case when e.is_called then e.last_value else 0 end into v_last from governance.event_ids e;
  select f.followed, f.account_ids into v_followed, v_account_ids
  from governance.follow_new_events(p_limit, v_last, case when not v_has_xid then pg_current_xact_id() end) f;
  if cardinality(v_account_ids) > 0 then
    perform governance.copy_to_listings(v_account_ids);
  end if;
  return v_followed;
end
$$;
comment on function governance.follow_events(int) is
  'Carries events into minute_totals, recent_usage and account_listings, each once; at most so many of each kind. '
  'Answers how far it got, 0 when there is nothing more. Whoever comes while another works leaves at once.';

create function public.console_overview(p_minutes int default 60) returns jsonb
  language plpgsql security definer set search_path = '' set jit = off set plan_cache_mode = 'force_custom_plan' as $$
declare
  v_now timestamptz := governance.now();
  v_from timestamptz;
  v_consumed bigint;
  v_answer jsonb;
begin
  perform governance.refuse_others('console_overview');
  if p_minutes is null or p_minutes not between 1 and 1440 then
    perform governance.fail('PT400', 'invalid_argument', 'p_minutes is a whole number from 1 to 1440');
  end if;
  v_from := date_trunc('minute', v_now) - (p_minutes - 1) * interval '1 minute';
  for v_round in 1..5 loop
    exit when governance.follow_events(2000) = 0;
  end loop;
  select (s.value ->> 'consumed')::bigint into v_consumed from governance.maintenance_state s
    where s.key = 'followed_events';
  with totals as materialized (
    select m.minute, m.outcome, m.reason, m.calls, m.tokens, m.cost_micros from governance.minute_totals m
      where m.minute >= v_from
    union all
    -- What is committed and not yet counted: some seconds' worth, or two minutes' where a long transaction holds the
    -- count up.
    select c.minute, c.outcome, c.reason, c.calls, c.tokens, c.cost_micros
    from governance.count_events(v_consumed, v_consumed + 50000) c where c.minute >= v_from
  ), minutes as (
    select g.minute, coalesce(sum(t.calls) filter (where t.outcome <> 'settled'), 0) as calls,
      coalesce(sum(t.tokens) filter (where t.outcome = 'settled'), 0) as settled_tokens,
      coalesce(sum(t.tokens) filter (where t.outcome = 'allow'), 0) as allowed_tokens,
      coalesce(sum(t.tokens) filter (where t.outcome = 'warn'), 0) as warned_tokens,
      coalesce(sum(t.tokens) filter (where t.outcome = 'block'), 0) as blocked_tokens,
      coalesce(sum(t.calls) filter (where t.outcome = 'block'), 0) as blocked_calls
    from generate_series(v_from, v_now, interval '1 minute') g(minute)
    left join totals t using (minute) group by 1
  )
  select jsonb_build_object(
    'at', v_now,
    'calls', (select coalesce(sum(t.calls), 0) from totals t where t.outcome <> 'settled'),
    'blocked', (select coalesce(sum(t.calls), 0) from totals t where t.outcome = 'block'),
    'warned', (select coalesce(sum(t.calls), 0) from totals t where t.outcome = 'warn'),
    'settled_tokens', (select coalesce(sum(t.tokens), 0) from totals t where t.outcome = 'settled'),
    'cost_micros', (select coalesce(sum(t.cost_micros), 0) from totals t where t.outcome = 'settled'),
    'currency', (select c.currency from governance.active_config c),
    'active_users', (select count(*) from governance.account_listings l where l.last_activity_at >= v_from),
    'open_holds', (
      select count(*) from governance.account_listings l
      join governance.accounts a using (account_id)
      join governance.requests r on r.account_id = a.account_id and r.created_at >= a.holds_from and r.status = 'held'
      where l.reserved > 0),
    'held_tokens', (select coalesce(sum(l.reserved), 0) from governance.account_listings l where l.reserved > 0),
    'stuck_holds', governance.count_stuck_holds(),
    'flagged_users', (select count(*) from governance.account_listings l where l.is_flagged),
    'blocked_users', (select count(*) from governance.account_listings l where l.blocked_until > v_now),
    'users_in_debt', (select count(*) from governance.account_listings l where l.debt > 0),
    'open_alerts', governance.count_operator_alerts(),
    'minutes', (select jsonb_agg(to_jsonb(m) order by m.minute) from minutes m),
    'reasons', (select coalesce(jsonb_agg(jsonb_build_object('reason', r.reason, 'calls', r.calls)
      order by r.calls desc, r.reason), '[]') from (
      select t.reason, sum(t.calls) as calls from totals t where t.outcome = 'block' and t.reason <> '' group by 1
        order by 2 desc, 1 limit 10) r),
    'top_users', (select coalesce(jsonb_agg(jsonb_build_object('user_id', a.user_id, 'display_name', a.display_name,
      'tokens', u.tokens)
      order by u.tokens desc, a.user_id), '[]') from (
        select x.account_id, sum(x.tokens) as tokens from (
          select y.account_id, y.tokens from governance.recent_usage y
            where y.slot >= date_bin('5 minutes', v_from, '2000-01-01')
          union all
          select u.account_id, u.tokens from governance.usage_not_followed() u
          where u.slot >= date_bin('5 minutes', v_from, '2000-01-01')) x
        group by 1 having sum(x.tokens) > 0 order by 2 desc, 1 limit 10) u
      join governance.accounts a using (account_id)))
  into v_answer;
  return v_answer;
end
$$;
comment on function public.console_overview(int) is
  'What is going on, over the last p_minutes (1 to 1440): counters, a bucket a minute, reasons of blocks, whose '
  'tokens. Errors: invalid_argument.';
revoke all on function public.console_overview(int) from public, anon, authenticated;
grant execute on function public.console_overview(int) to service_role;

create function public.console_rail_counts() returns jsonb
  language plpgsql security definer set search_path = '' set jit = off set plan_cache_mode = 'force_custom_plan' as $$
begin
  perform governance.refuse_others('console_rail_counts');
  perform governance.follow_events(500);
  return jsonb_build_object(
    'open_alerts', governance.count_operator_alerts(),
    'flagged', (select count(*) from governance.account_listings l where l.is_flagged),
    'blocked', (select count(*) from governance.account_listings l where l.blocked_until > governance.now()),
    'in_debt', (select count(*) from governance.account_listings l where l.debt > 0),
    'stuck_holds', governance.count_stuck_holds());
end
$$;
comment on function public.console_rail_counts() is
  'The counts beside the desks: alerts that wait for an operator, accounts flagged, '
  'blocked and in debt, holds stuck.';
revoke all on function public.console_rail_counts() from public, anon, authenticated;
grant execute on function public.console_rail_counts() to service_role;

create function public.console_replication() returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
begin
  perform governance.refuse_others('console_replication');
  return jsonb_build_object('is_replica', pg_is_in_recovery(), 'server_time', clock_timestamp(),
    -- Bytes of write-ahead log since the beginning: written on a primary, replayed on a replica.
    'wal_position', pg_wal_lsn_diff(case when pg_is_in_recovery() then pg_last_wal_replay_lsn()
      else pg_current_wal_lsn() end, '0/0'),
    'replayed_at', pg_last_xact_replay_timestamp());
end
$$;
comment on function public.console_replication() is
  'How far this server is: a replica that has replayed what the primary had written is not behind. is_replica, '
  'server_time, wal_position in bytes, replayed_at (the last transaction replayed; null on a primary).';
revoke all on function public.console_replication() from public, anon, authenticated;
grant execute on function public.console_replication() to service_role;

create function public.console_project_info() returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
declare
  v_migrations text[];
  v_accounts bigint;
  v_is_exact boolean := false;
begin
  perform governance.refuse_others('console_project_info');
  -- The record of Supabase's CLI and of ours; a project whose tables were made by hand has none.
  if to_regclass('supabase_migrations.schema_migrations') is not null then
    execute format('select array_agg(m.version || ''_'' || (to_jsonb(m) ->> ''name'') order by m.version)
      from %I.schema_migrations m where to_jsonb(m) ->> ''name'' like ''governance\_%%''',
        'supabase_migrations') into v_migrations;
  end if;
  select c.reltuples::bigint into v_accounts from pg_catalog.pg_class c where c.oid = 'governance.accounts'::regclass;
  if v_accounts < 50000 then
    select count(*) into v_accounts from governance.accounts;
    v_is_exact := true;
  end if;
  return (
    select jsonb_build_object(
      'schema_version', coalesce(split_part(v_migrations[cardinality(v_migrations)], '_', 1), 'unknown'),
      'migrations', coalesce(to_jsonb(v_migrations), '[]'),
      'server_version', current_setting('server_version'),
      'preset', c.preset_name,
      'currency', c.currency,
      'sample_data', c.is_sample_data,
      'accounts', v_accounts,
      'accounts_is_exact', v_is_exact,
      'default_plan', c.default_plan,
      'plans', (select coalesce(jsonb_agg(jsonb_build_object('plan_id', p.plan_id, 'name', p.name, 'retired',
        p.retired_at is not null)
        order by p.retired_at is not null, p.monthly_allowance, p.plan_id), '[]') from governance.plans p),
      'server_time', governance.now())
    from governance.active_config c);
end
$$;
comment on function public.console_project_info() is 'What project this is: migrations applied, server, preset, '
  'currency, plans, how many accounts (an estimate from 50,000).';
revoke all on function public.console_project_info() from public, anon, authenticated;
grant execute on function public.console_project_info() to service_role;

-- schemas/45_analytics.sql
-- Usage by day, model, task and scope.

create table governance.usage_totals (
  day date not null,
  model text not null,
  task_type text not null,
  scope_id text not null,
  calls bigint not null,
  messages bigint not null,
  input_tokens bigint not null,
  output_tokens bigint not null,
  charged_tokens bigint not null,
  cost_micros bigint not null,
  primary key (day, model, task_type, scope_id)
);

comment on table governance.usage_totals is 'Usage of everybody by day, for days that no settlement can add to.';

create table governance.usage_days (
  day date primary key,
  active_users bigint not null,
  aggregated_at timestamptz not null
);

comment on table governance.usage_days is 'Days that governance.usage_totals has. A day that an import adds to is '
  'taken out, and aggregated again.';

create function governance.first_open_day(p_now timestamptz) returns date
  language sql immutable set search_path = '' as $$
  -- Days end last at UTC-12. The hour more is for settlements that read the clock before and commit after.
  select ((p_now - interval '13 hours') at time zone 'UTC')::date
$$;
comment on function governance.first_open_day(timestamptz) is 'The earliest day that a settlement may still add to.';

create function governance.last_open_day(p_now timestamptz) returns date
  language sql immutable set search_path = '' as $$
  select ((p_now + interval '14 hours') at time zone 'UTC')::date
$$;
comment on function governance.last_open_day(timestamptz) is 'The latest day that has begun anywhere: days begin first '
  'at UTC+14.';

create function governance.aggregate_days(p_limit int default 40) returns int
  language plpgsql set search_path = '' as $$
declare
  v_open date := governance.first_open_day(governance.now());
  v_from date;
  v_day date;
  v_days int := 0;
begin
  if not pg_try_advisory_xact_lock(7254013) then return 0; end if;
  select min(d.day) into v_from from governance.usage_daily d;
  for v_day in
    select g::date from generate_series(v_from, v_open - 1, interval '1 day') g
    where not exists (select from governance.usage_days u where u.day = g::date)
    order by g desc limit p_limit
  loop
    delete from governance.usage_totals t where t.day = v_day;
    insert into governance.usage_totals (day, model, task_type, scope_id, calls, messages, input_tokens, output_tokens,
      charged_tokens, cost_micros)
    select d.day, d.model, d.task_type, d.scope_id, sum(d.calls), sum(d.messages), sum(d.input_tokens),
      sum(d.output_tokens), sum(d.charged_tokens), sum(d.cost_micros)
    from governance.usage_daily d where d.day = v_day group by 1, 2, 3, 4;
    insert into governance.usage_days (day, active_users, aggregated_at)
    select v_day, count(distinct d.account_id), clock_timestamp() from governance.usage_daily d where d.day = v_day;
    v_days := v_days + 1;
  end loop;
  return v_days;
end
$$;
comment on function governance.aggregate_days(int) is 'Aggregates days that are over and not yet in usage_totals, the '
  'latest first; answers how many.';

create function governance.account_calls(p_account_id bigint, p_start timestamptz, p_end timestamptz)
  returns table (day date, at timestamptz, model text, task_type text, scope_id text, conversation_id text,
    messages bigint, input_tokens bigint, output_tokens bigint, charged_tokens bigint, cost_micros bigint)
  language sql stable set search_path = '' as $$
  with calls as (
    select r.* from governance.requests r
    where r.account_id = p_account_id and r.status = 'settled' and r.ended_at >= p_start and r.ended_at < p_end
      -- A hold lasts a week at most, and a server's clock may have been set back.
      and r.created_at >= p_start - interval '8 days' and r.created_at < p_end + interval '1 day'
    union all
    -- A call settled later than that had its hold expired, or was set aside for a person.
    select r.* from governance.requests r
    where r.decision_id in (select h.decision_id from governance.hold_events h
        where h.account_id = p_account_id and h.kind in ('expired', 'quarantined'))
      and r.account_id = p_account_id and r.status = 'settled' and r.ended_at >= p_start and r.ended_at < p_end
      and r.created_at < p_start - interval '8 days'
  )
  select c.usage_day, c.ended_at, c.settled_model, coalesce(c.task_type, ''), coalesce(c.scope_id, ''),
    c.conversation_id, (c.message_hash is not null)::int::bigint, c.input_tokens, c.output_tokens, c.charged_tokens,
    coalesce(c.cost_micros, 0)
  from calls c
  union all
  select u.day, u.at, u.model, u.task_type, '', u.conversation_id, 1, u.input_tokens, u.output_tokens, 0,
    coalesce(u.cost_micros, 0)
  from governance.imported_usage u where u.account_id = p_account_id and u.at >= p_start and u.at < p_end
$$;
comment on function governance.account_calls(bigint, timestamptz, timestamptz) is
  'Settled calls and imported messages of an account whose usage falls into a period, as far back as calls are kept.';

create function governance.account_usage(p_account_id bigint, p_start timestamptz, p_end timestamptz)
  returns table (day date, model text, task_type text, scope_id text, calls bigint, messages bigint,
    input_tokens bigint, output_tokens bigint,
    charged_tokens bigint, cost_micros bigint, last_activity_at timestamptz)
  language plpgsql stable set search_path = '' as $$
declare
  v_first timestamptz;
  v_last timestamptz;
begin
  -- Rows of the roll-up that lie wholly in the period count as they are, whatever zones the account has had.
  return query
    select d.day, d.model, d.task_type, d.scope_id, d.calls::bigint, d.messages::bigint, d.input_tokens,
      d.output_tokens, d.charged_tokens, d.cost_micros, d.last_activity_at
    from governance.usage_daily d
    where d.account_id = p_account_id and d.first_activity_at >= p_start and d.last_activity_at < p_end
      and d.day between (p_start at time zone 'UTC')::date - 2 and (p_end at time zone 'UTC')::date + 2;
  select min(d.first_activity_at), max(d.last_activity_at) into v_first, v_last from governance.usage_daily d
  where d.account_id = p_account_id and d.first_activity_at < p_end and d.last_activity_at >= p_start
    and not (d.first_activity_at >= p_start and d.last_activity_at < p_end)
    and d.day between (p_start at time zone 'UTC')::date - 2 and (p_end at time zone 'UTC')::date + 2;
  if v_first is null then return; end if;
  -- Rows that reach over an edge are read call by call. Where their calls are no longer kept, what is left of a row
  -- counts in the period of its last use: no two periods share it, and none loses it.
  return query
    with calls as materialized (
      select * from governance.account_calls(p_account_id, v_first, v_last + interval '1 microsecond')
    ), parts as (
      select c.day, c.model, c.task_type, c.scope_id, 1::bigint as calls, c.messages, c.input_tokens, c.output_tokens,
        c.charged_tokens, c.cost_micros, c.at, c.at >= p_start and c.at < p_end as is_inside, false as is_row
      from calls c
      union all
      select d.day, d.model, d.task_type, d.scope_id, d.calls, d.messages, d.input_tokens, d.output_tokens,
        d.charged_tokens, d.cost_micros, d.last_activity_at,
        d.last_activity_at >= p_start and d.last_activity_at < p_end, true
      from governance.usage_daily d
      where d.account_id = p_account_id and d.first_activity_at < p_end and d.last_activity_at >= p_start
        and not (d.first_activity_at >= p_start and d.last_activity_at < p_end)
        and d.day between (p_start at time zone 'UTC')::date - 2 and (p_end at time zone 'UTC')::date + 2
    ), signed as (
      -- A row that ends inside: the row less its calls outside. One that ends outside: its calls inside.
      select p.*, case when p.is_row then p.is_inside::int
        when bool_or(p.is_row and p.is_inside) over whole then p.is_inside::int - 1
        else p.is_inside::int end as sign, bool_or(p.is_row) over whole as has_row
      from parts p
      window whole as (partition by p.day, p.model, p.task_type, p.scope_id)
    )
    select s.day, s.model, s.task_type, s.scope_id, sum(s.sign * s.calls)::bigint, sum(s.sign * s.messages)::bigint,
      sum(s.sign * s.input_tokens)::bigint, sum(s.sign * s.output_tokens)::bigint,
      sum(s.sign * s.charged_tokens)::bigint, sum(s.sign * s.cost_micros)::bigint,
      max(s.at) filter (where s.is_inside)
    from signed s where s.has_row
    group by 1, 2, 3, 4 having sum(s.sign * s.calls) > 0;
end
$$;
comment on function governance.account_usage(bigint, timestamptz, timestamptz) is
  'Settled and imported usage of an account from p_start up to p_end, by its own days.';

create function governance.account_days(p_account_id bigint, p_from date, p_to date)
  returns table (day date, conversation_id text)
  language sql stable set search_path = '' as $$
  -- A day is some hours before or after its date in UTC.
  select c.day, c.conversation_id
  from governance.account_calls(p_account_id, (p_from - 2)::timestamp at time zone 'UTC',
    (p_to + 3)::timestamp at time zone 'UTC') c
  where c.day between p_from and p_to
$$;
comment on function governance.account_days(bigint, date, date) is
  'Conversations of an account''s usage by its own days, as far back as calls are kept.';

create function governance.account_usage_json(p_account_id bigint, p_start timestamptz, p_end timestamptz,
  p_from date default null, p_to date default null) returns jsonb
  language sql stable set search_path = '' as $$
  with usage as materialized (
    select * from governance.account_usage(p_account_id, p_start, p_end) where p_from is null
    union all
    select d.day, d.model, d.task_type, d.scope_id, d.calls, d.messages, d.input_tokens, d.output_tokens,
      d.charged_tokens, d.cost_micros, d.last_activity_at
    from governance.usage_daily d where d.account_id = p_account_id and d.day between p_from and p_to
  )
  select jsonb_build_object(
    'prompt_tokens', coalesce(sum(u.input_tokens), 0),
    'completion_tokens', coalesce(sum(u.output_tokens), 0),
    'total_tokens', coalesce(sum(u.input_tokens + u.output_tokens), 0),
    'charged_tokens', coalesce(sum(u.charged_tokens), 0),
    'call_count', coalesce(sum(u.calls), 0),
    'message_count', coalesce(sum(u.messages), 0),
    'conversation_count', case
      when p_from is null then (select count(distinct c.conversation_id)
        from governance.account_calls(p_account_id, p_start, p_end) c)
      else (select count(distinct c.conversation_id) from governance.account_days(p_account_id, p_from, p_to) c) end,
    'last_activity', max(u.last_activity_at),
    'cost_micros', coalesce(sum(u.cost_micros), 0),
    'currency', (select c.currency from governance.active_config c),
    'by_day', (select coalesce(jsonb_agg(to_jsonb(d) order by d.day), '[]') from (
      select x.day, sum(x.input_tokens) as prompt_tokens, sum(x.output_tokens) as completion_tokens,
        sum(x.input_tokens + x.output_tokens) as total_tokens,
        sum(x.messages) as message_count, sum(x.cost_micros) as cost_micros, sum(x.charged_tokens) as charged_tokens,
          sum(x.calls) as call_count
      from usage x group by 1) d),
    'by_model', (select coalesce(jsonb_agg(to_jsonb(m) order by m.total_tokens desc, m.model), '[]') from (
      select x.model, sum(x.input_tokens + x.output_tokens) as total_tokens, sum(x.cost_micros) as cost_micros,
        sum(x.input_tokens) as prompt_tokens, sum(x.output_tokens) as completion_tokens, sum(x.calls) as call_count
      from usage x group by 1) m),
    'by_task_type', (select coalesce(jsonb_agg(to_jsonb(t) order by t.total_tokens desc, t.task_type), '[]') from (
      select nullif(x.task_type, '') as task_type, sum(x.input_tokens + x.output_tokens) as total_tokens,
        sum(x.cost_micros) as cost_micros, sum(x.calls) as call_count
      from usage x group by 1) t),
    'by_scope', (select coalesce(jsonb_agg(to_jsonb(s) order by s.total_tokens desc, s.scope_id), '[]') from (
      select nullif(x.scope_id, '') as scope_id, sum(x.input_tokens + x.output_tokens) as total_tokens,
        sum(x.cost_micros) as cost_micros, sum(x.calls) as call_count
      from usage x group by 1) s))
  from usage u
$$;
comment on function governance.account_usage_json(bigint, timestamptz, timestamptz, date, date) is
  'What calculate_user_token_usage answers of a period; or of the account''s own days p_from to p_to.';

create function public.calculate_user_token_usage(p_user_id text, p_start timestamptz, p_end timestamptz) returns jsonb
  language plpgsql stable security definer set search_path = '' set jit = off as $$
declare
  v_account_id bigint;
begin
  perform governance.refuse_others('calculate_user_token_usage');
  perform governance.check_id('p_user_id', p_user_id);
  perform governance.check_period(p_start, p_end);
  select a.account_id into v_account_id from governance.accounts a where a.user_id = p_user_id;
  if v_account_id is null then
    perform governance.fail('PT404', 'unknown_user', format('There is no account of user "%s"', left(p_user_id, 64)));
  end if;
  return governance.account_usage_json(v_account_id, p_start, p_end);
end
$$;
comment on function public.calculate_user_token_usage(text, timestamptz, timestamptz) is
  'What a user used from p_start up to p_end: tokens, messages, conversations, cost, by local day, model, task type '
  'and scope. A call counts when it settled. Errors: invalid_argument, unknown_user.';
revoke all on function public.calculate_user_token_usage(text, timestamptz, timestamptz)
  from public, anon, authenticated;
grant execute on function public.calculate_user_token_usage(text, timestamptz, timestamptz) to service_role;

create function public.user_token_usage(p_user_id text, p_period text default 'day', p_start date default null,
  p_end date default null)
  returns table (user_id text, period_start date, period_end date, prompt_tokens bigint, completion_tokens bigint,
    total_tokens bigint,
    message_count bigint, conversation_count bigint, cost_micros bigint, currency text, last_activity timestamptz)
  language plpgsql stable security definer set search_path = '' set jit = off as $$
declare
  v_account_id bigint;
  v_zone text;
  v_day date;
  v_today date;
  v_start date;
  v_end date;
  v_currency text := (select c.currency from governance.active_config c);
begin
  perform governance.refuse_others('user_token_usage');
  perform governance.check_id('p_user_id', p_user_id);
  if p_period is null or p_period not in ('day', 'week', 'month') then
    perform governance.fail('PT400', 'invalid_argument', 'p_period is day, week or month');
  end if;
  select a.account_id, a.timezone, a.local_day into v_account_id, v_zone, v_day
  from governance.accounts a where a.user_id = p_user_id;
  if v_account_id is null then
    perform governance.fail('PT404', 'unknown_user', format('There is no account of user "%s"', left(p_user_id, 64)));
  end if;
  -- An account that moved west may be a day ahead of its zone's date.
  v_today := greatest(v_day, (governance.now() at time zone governance.known_zone(v_zone))::date);
  v_end := coalesce(p_end, v_today);
  v_start := coalesce(p_start, v_end - case p_period when 'day' then 29 when 'week' then 83 else 364 end);
  if not isfinite(v_start) or not isfinite(v_end) or v_start > v_end or v_start < '1900-01-01' or v_end > '2199-12-31'
    or v_end - v_start > 3660 then
    perform governance.fail('PT400', 'invalid_argument', 'p_start and p_end are days, at most ten years apart');
  end if;
  v_start := date_trunc(p_period, v_start::timestamp)::date;
  return query
    with conversations as (
      select date_trunc(p_period, c.day::timestamp)::date as first, count(distinct c.conversation_id) as count
      from governance.account_days(v_account_id, v_start, v_end + 31) c group by 1
    )
    select p_user_id, p.first, (p.next - 1), coalesce(sum(d.input_tokens), 0)::bigint,
      coalesce(sum(d.output_tokens), 0)::bigint,
      coalesce(sum(d.input_tokens + d.output_tokens), 0)::bigint, coalesce(sum(d.messages), 0)::bigint,
      coalesce((select c.count from conversations c where c.first = p.first), 0),
      coalesce(sum(d.cost_micros), 0)::bigint, v_currency, max(d.last_activity_at)
    from (select g::date as first, (g + ('1 ' || p_period)::interval)::date as next
      from generate_series(v_start::timestamp, v_end::timestamp, ('1 ' || p_period)::interval) g) p
    left join governance.usage_daily d on d.account_id = v_account_id and d.day >= p.first and d.day < p.next
    group by p.first, p.next order by p.first;
end
$$;
comment on function public.user_token_usage(text, text, date, date) is
  'A user''s usage by day, week (from Monday) or month of their own zone, oldest first, without gaps. Errors: '
    'invalid_argument, unknown_user.';
revoke all on function public.user_token_usage(text, text, date, date) from public, anon, authenticated;
grant execute on function public.user_token_usage(text, text, date, date) to service_role;

create function public.my_token_usage(p_days int default 7) returns jsonb
  language plpgsql security definer set search_path = '' set jit = off as $$
declare
  v_account governance.accounts;
  v_usage jsonb;
begin
  if p_days is null or p_days not between 1 and 366 then
    perform governance.fail('PT400', 'invalid_argument', 'p_days is a whole number from 1 to 366');
  end if;
  v_account := governance.my_account();
  v_usage := governance.account_usage_json(v_account.account_id, null, null, v_account.local_day - p_days + 1,
    v_account.local_day);
  return v_usage || jsonb_build_object(
    'byTaskType', (select coalesce(jsonb_object_agg(coalesce(t ->> 'task_type', 'other'), t -> 'total_tokens'), '{}')
      from jsonb_array_elements(v_usage -> 'by_task_type') t),
    'byDate', (select coalesce(jsonb_agg(jsonb_build_object('date', d -> 'day', 'tokens', d -> 'total_tokens')
      order by d ->> 'day'), '[]') from jsonb_array_elements(v_usage -> 'by_day') d),
    'totalTokens', v_usage -> 'total_tokens',
    'avgPerDay', (v_usage ->> 'total_tokens')::bigint / p_days,
    'cost_today_micros', v_account.day_cost_micros,
    'cost_this_month_micros', v_account.month_cost_micros,
    'days', p_days);
end
$$;
comment on function public.my_token_usage(int) is
  'The signed-in user''s usage of the last p_days (1 to 366) local days, today included, by day, model and task type. '
    'Errors: not_signed_in, invalid_argument, not_configured.';
revoke all on function public.my_token_usage(int) from public, anon, authenticated;
grant execute on function public.my_token_usage(int) to authenticated;

create function governance.usage_between(p_from date, p_to date)
  returns table (day date, model text, task_type text, scope_id text, calls bigint, messages bigint,
    input_tokens bigint, output_tokens bigint, charged_tokens bigint, cost_micros bigint)
  language sql stable set search_path = '' as $$
  select t.day, t.model, t.task_type, t.scope_id, t.calls, t.messages, t.input_tokens, t.output_tokens,
    t.charged_tokens, t.cost_micros
  from governance.usage_totals t join governance.usage_days u using (day) where t.day between p_from and p_to
  union all
  select d.day, d.model, d.task_type, d.scope_id, sum(d.calls)::bigint, sum(d.messages)::bigint,
    sum(d.input_tokens)::bigint, sum(d.output_tokens)::bigint, sum(d.charged_tokens)::bigint,
    sum(d.cost_micros)::bigint
  from governance.usage_daily d
  where d.day in (select g::date from generate_series(p_from, p_to, interval '1 day') g
    where not exists (select from governance.usage_days u where u.day = g::date))
  group by 1, 2, 3, 4
$$;
comment on function governance.usage_between(date, date) is
  'Everybody''s usage by day, model, task type and scope: of days that are over from their totals, of open ones from '
  'the accounts'' own roll-up.';

create function public.console_usage_totals(p_days int default 30) returns jsonb
  language plpgsql security definer set search_path = '' set jit = off as $$
declare
  v_today date := (governance.now() at time zone 'UTC')::date;
  -- The world's latest day may be one ahead of UTC's.
  v_to date := v_today + 1;
  v_from date;
  v_answer jsonb;
begin
  perform governance.refuse_others('console_usage_totals');
  if p_days is null or p_days not between 1 and 366 then
    perform governance.fail('PT400', 'invalid_argument', 'p_days is a whole number from 1 to 366');
  end if;
  v_from := v_today - p_days + 1;
  perform governance.follow_events(2000);
  with usage as materialized (
    select * from governance.usage_between(v_from, v_to)
  ), days as (
    select g::date as day from generate_series(v_from, v_to, interval '1 day') g
    where g::date <= v_today or exists (select from usage u where u.day = g::date)
  )
  select jsonb_build_object(
    'from', v_from, 'to', (select max(d.day) from days d),
    'currency', (select c.currency from governance.active_config c),
    'calls', coalesce(sum(u.calls), 0), 'messages', coalesce(sum(u.messages), 0),
    'prompt_tokens', coalesce(sum(u.input_tokens), 0), 'completion_tokens', coalesce(sum(u.output_tokens), 0),
    'total_tokens', coalesce(sum(u.input_tokens + u.output_tokens), 0), 'charged_tokens',
      coalesce(sum(u.charged_tokens), 0),
    'cost_micros', coalesce(sum(u.cost_micros), 0),
    'by_day', (select jsonb_agg(to_jsonb(x) order by x.day) from (
      select d.day, coalesce(sum(y.calls), 0) as calls, coalesce(sum(y.messages), 0) as messages,
        coalesce(sum(y.input_tokens), 0) as prompt_tokens,
        coalesce(sum(y.output_tokens), 0) as completion_tokens,
          coalesce(sum(y.input_tokens + y.output_tokens), 0) as total_tokens,
        coalesce(sum(y.cost_micros), 0) as cost_micros,
        (select a.active_users from governance.usage_days a where a.day = d.day) as active_users
      from days d left join usage y using (day) group by 1) x),
    'by_model', (select coalesce(jsonb_agg(to_jsonb(x) order by x.cost_micros desc, x.total_tokens desc, x.model), '[]')
      from (
      select y.model, sum(y.calls) as calls, sum(y.input_tokens + y.output_tokens) as total_tokens,
        sum(y.cost_micros) as cost_micros from usage y group by 1 order by 4 desc, 3 desc limit 100) x),
    'by_task_type', (select coalesce(jsonb_agg(to_jsonb(x) order by x.total_tokens desc, x.task_type), '[]') from (
      select nullif(y.task_type, '') as task_type, sum(y.calls) as calls,
        sum(y.input_tokens + y.output_tokens) as total_tokens, sum(y.cost_micros) as cost_micros from usage y group by 1
        order by 3 desc limit 100) x),
    'by_scope', (select coalesce(jsonb_agg(to_jsonb(x) order by x.total_tokens desc, x.scope_id), '[]') from (
      select nullif(y.scope_id, '') as scope_id, sum(y.calls) as calls,
        sum(y.input_tokens + y.output_tokens) as total_tokens, sum(y.cost_micros) as cost_micros from usage y group by 1
        order by 3 desc limit 100) x),
    'top_users', (select coalesce(jsonb_agg(jsonb_build_object('user_id', a.user_id, 'display_name', a.display_name,
      'plan_id', a.plan_id,
        'cost_this_month_micros', x.cost_this_month_micros, 'tokens_this_month', x.tokens_this_month)
          order by x.cost_this_month_micros desc, a.user_id), '[]')
      from (select * from governance.account_listings l where l.cost_this_month_micros > 0
        order by l.cost_this_month_micros desc, l.account_id desc limit 20) x
      join governance.accounts a using (account_id)))
  into v_answer
  from usage u;
  return v_answer;
end
$$;
comment on function public.console_usage_totals(int) is
  'Everybody''s usage and cost over the last p_days (1 to 366), by day, model, task type and scope, and whose cost is '
    'highest this month. Errors: invalid_argument.';
revoke all on function public.console_usage_totals(int) from public, anon, authenticated;
grant execute on function public.console_usage_totals(int) to service_role;

create function public.console_token_stats() returns jsonb
  language plpgsql security definer set search_path = '' set jit = off as $$
begin
  perform governance.refuse_others('console_token_stats');
  perform governance.follow_events(2000);
  return (select jsonb_build_object(
    'totalUsersWithTokens', count(*) filter (where l.available > 0),
    'avgBalancePerUser', coalesce(div(sum(l.available) filter (where l.available > 0),
      nullif(count(*) filter (where l.available > 0), 0)), 0),
    'totalTokensUsedToday', (select coalesce(sum(d.input_tokens + d.output_tokens), 0) from governance.usage_daily d
      where d.day = (governance.now() at time zone 'UTC')::date),
    'lowBalanceUsers', count(*) filter (where l.available < (select c.low_balance_tokens
      from governance.active_config c)),
    'activeAlerts', governance.count_open_alerts())
  from governance.account_listings l);
end
$$;
comment on function public.console_token_stats() is 'Users with tokens, their average balance, tokens used today '
  '(local days, by UTC''s date), users whose balance is low, open alerts.';
revoke all on function public.console_token_stats() from public, anon, authenticated;
grant execute on function public.console_token_stats() to service_role;

-- schemas/46_costs.sql
-- The costs desk: what was used and what it cost, over any range, from the roll-ups alone.

create function public.console_costs(p_from date, p_to date, p_step text default 'day', p_by text default 'model',
  p_filter jsonb default '{}') returns jsonb
  language plpgsql security definer set search_path = '' set jit = off set plan_cache_mode = 'force_custom_plan' as $$
declare
  v_before date;
  v_account_id bigint;
  v_by_account boolean;
  v_answer jsonb;
begin
  perform governance.refuse_others('console_costs');
  if p_from is null or p_to is null or not isfinite(p_from) or not isfinite(p_to) or p_from > p_to
    or p_from < '1900-01-01' or p_to > '2199-12-31' or p_to - p_from > 3660 then
    perform governance.fail('PT400', 'invalid_argument', 'p_from and p_to are days, at most ten years apart');
  end if;
  if p_step is null or p_step not in ('day', 'week', 'month') then
    perform governance.fail('PT400', 'invalid_argument', 'p_step is day, week or month');
  end if;
  if p_by is null or p_by not in ('model', 'provider', 'plan', 'task_type', 'scope', 'user') then
    perform governance.fail('PT400', 'invalid_argument', 'p_by is model, provider, plan, task_type, scope or user');
  end if;
  if p_filter is null or jsonb_typeof(p_filter) <> 'object' or exists (select from jsonb_each(p_filter) f
    where f.key not in ('model', 'provider', 'plan', 'task_type', 'scope', 'user') or jsonb_typeof(f.value) <> 'string'
      or length(f.value #>> '{}') > 500) then
    perform governance.fail('PT400', 'invalid_argument',
      'p_filter is an object of model, provider, plan, task_type, scope and user, each a text');
  end if;
  if p_filter ? 'user' then
    select a.account_id into v_account_id from governance.accounts a where a.user_id = p_filter ->> 'user';
    if v_account_id is null then
      perform governance.fail('PT404', 'unknown_user', format('There is no account of user "%s"',
        left(p_filter ->> 'user', 64)));
    end if;
  end if;
  v_before := p_from - (p_to - p_from + 1);
  v_by_account := p_by in ('plan', 'user') or p_filter ?| array['plan', 'user'];
  with usage as materialized (
    select u.day, u.model, u.task_type, u.scope_id, null::bigint as account_id, u.calls,
      u.input_tokens + u.output_tokens as tokens, u.cost_micros
    from governance.usage_between(v_before, p_to) u where not v_by_account
    union all
    select d.day, d.model, d.task_type, d.scope_id, d.account_id, d.calls, d.input_tokens + d.output_tokens,
      d.cost_micros
    from governance.usage_daily d where v_by_account and v_account_id is null and d.day between v_before and p_to
    union all
    select d.day, d.model, d.task_type, d.scope_id, d.account_id, d.calls, d.input_tokens + d.output_tokens,
      d.cost_micros
    from governance.usage_daily d where d.account_id = v_account_id and d.day between v_before and p_to
  ), models as materialized (
    select m.model, governance.provider_of(m.model, governance.now()) as provider
    from (select distinct u.model from usage u) m
  ), keyed as materialized (
    select u.day, u.day >= p_from as is_now, u.calls, u.tokens, u.cost_micros,
      case p_by when 'model' then u.model when 'provider' then coalesce(m.provider, '')
        when 'plan' then coalesce(a.plan_id, '') when 'task_type' then u.task_type when 'scope' then u.scope_id
        else u.account_id::text end as key
    from usage u join models m using (model)
    left join governance.accounts a on a.account_id = u.account_id and v_by_account
    where (p_filter ->> 'model' is null or u.model = p_filter ->> 'model')
      and (p_filter ->> 'provider' is null or coalesce(m.provider, '') = p_filter ->> 'provider')
      and (p_filter ->> 'task_type' is null or u.task_type = p_filter ->> 'task_type')
      and (p_filter ->> 'scope' is null or u.scope_id = p_filter ->> 'scope')
      and (p_filter ->> 'plan' is null or coalesce(a.plan_id, '') = p_filter ->> 'plan')
  ), parts as materialized (
    select k.key, coalesce(sum(k.cost_micros) filter (where k.is_now), 0) as cost_micros,
      coalesce(sum(k.cost_micros) filter (where not k.is_now), 0) as before_cost_micros,
      coalesce(sum(k.calls) filter (where k.is_now), 0) as calls,
      coalesce(sum(k.tokens) filter (where k.is_now), 0) as tokens
    from keyed k group by 1
  )
  select jsonb_build_object('from', p_from, 'to', p_to, 'before_from', v_before, 'step', p_step, 'by', p_by,
    'currency', (select c.currency from governance.active_config c),
    'cost_micros', coalesce(sum(k.cost_micros) filter (where k.is_now), 0),
    'calls', coalesce(sum(k.calls) filter (where k.is_now), 0),
    'tokens', coalesce(sum(k.tokens) filter (where k.is_now), 0),
    'before', jsonb_build_object('cost_micros', coalesce(sum(k.cost_micros) filter (where not k.is_now), 0),
      'calls', coalesce(sum(k.calls) filter (where not k.is_now), 0),
      'tokens', coalesce(sum(k.tokens) filter (where not k.is_now), 0)),
    'periods', (select jsonb_agg(jsonb_build_object('from', greatest(p.first, p_from),
        'to', least(p.next - 1, p_to), 'cost_micros', coalesce(x.cost_micros, 0), 'calls', coalesce(x.calls, 0),
        'tokens', coalesce(x.tokens, 0)) order by p.first)
      from (select g::date as first, (g + ('1 ' || p_step)::interval)::date as next
        from generate_series(date_trunc(p_step, p_from::timestamp), p_to::timestamp, ('1 ' || p_step)::interval) g) p
      left join (select date_trunc(p_step, y.day::timestamp)::date as first, sum(y.cost_micros) as cost_micros,
          sum(y.calls) as calls, sum(y.tokens) as tokens
        from keyed y where y.is_now group by 1) x using (first)),
    'parts', (select coalesce(jsonb_agg(jsonb_build_object(
        'key', case when p_by = 'user' then a.user_id else x.key end,
        'name', case when p_by = 'user' then a.display_name when p_by = 'plan' then p.name end,
        'cost_micros', x.cost_micros, 'before_cost_micros', x.before_cost_micros, 'calls', x.calls,
        'tokens', x.tokens) order by x.cost_micros desc, x.tokens desc, x.key), '[]')
      from (select * from parts y where y.calls > 0 or y.before_cost_micros > 0
        order by y.cost_micros desc, y.tokens desc, y.key limit 100) x
      left join governance.accounts a on p_by = 'user' and a.account_id = x.key::bigint
      left join governance.plans p on p_by = 'plan' and p.plan_id = x.key),
    'part_count', (select count(*) from parts y where y.calls > 0),
    'top_ten_cost_micros', (select coalesce(sum(t.cost_micros), 0) from (select y.cost_micros from parts y
      order by y.cost_micros desc limit 10) t))
  into v_answer
  from keyed k;
  return v_answer;
end
$$;
comment on function public.console_costs(date, date, text, text, jsonb) is
  'Cost in micro-units of the currency, calls and tokens from p_from to p_to, both days included, beside as many days '
  'before: in all, by day, week (from Monday) or month, and by model, provider, plan (the one that accounts have '
  'now), task_type, scope or user, the 100 dearest. Days are each account''s own; a call counts when it settled; '
  'models without a price cost nothing. Source: the roll-ups usage_totals and usage_daily. Errors: '
  'invalid_argument, unknown_user.';
revoke all on function public.console_costs(date, date, text, text, jsonb) from public, anon, authenticated;
grant execute on function public.console_costs(date, date, text, text, jsonb) to service_role;

-- schemas/47_imports.sql
-- Usage taken over from an existing chat table.

create table governance.imported_usage (
  -- Whose key message_key is: the table it came from, as schema.name.
  source text not null,
  message_key text not null,
  account_id bigint not null,
  at timestamptz not null,
  -- The date then in the zone that the account had at the import: stamped once, like a settlement's.
  day date not null,
  model text not null,
  conversation_id text,
  task_type text not null default '',
  input_tokens bigint not null check (input_tokens >= 0),
  output_tokens bigint not null check (output_tokens >= 0),
  cost_micros bigint,
  primary key (source, message_key)
);

create index imported_usage_account on governance.imported_usage (account_id, at);

comment on table governance.imported_usage is
  'Messages whose usage was brought in from a chat table (import_usage_history). They count as usage, and were never '
  'charged.';

create table governance.usage_imports (
  source text primary key,
  columns jsonb not null,
  -- Where the next batch begins: the last row read, in the order of time and key.
  last_at timestamptz,
  last_key text,
  rows_read bigint not null default 0,
  rows_imported bigint not null default 0,
  -- Rows without a user, a time or tokens.
  rows_skipped bigint not null default 0,
  started_at timestamptz not null,
  updated_at timestamptz not null,
  finished_at timestamptz
);

comment on table governance.usage_imports is 'How far each import has come.';

create function governance.token_count(p_value jsonb) returns bigint
  language sql immutable set search_path = '' as $$
  select case when (p_value #>> '{}') ~ '^\d{1,15}(\.0+)?$' then (p_value #>> '{}')::numeric::bigint end
$$;
comment on function governance.token_count(jsonb) is 'A whole number of tokens, from a number or a text; null if it is '
  'none.';

create function governance.usage_shapes() returns jsonb
  language sql immutable set search_path = '' as $shapes$
  select jsonb '[
  {"shape":"perplexity_chat",
    "has":[["prompt_tokens"],["citation_tokens","num_search_queries","search_context_size"]],
    "model":"(^|/)(sonar|r1-1776)","needs":["prompt_tokens","completion_tokens|total_tokens"],
    "input":["prompt_tokens","citation_tokens"],"output":["completion_tokens","reasoning_tokens"],
    "reasoning":"reasoning_tokens"},
  {"shape":"openai_chat","has":[["prompt_tokens"]],"needs":["prompt_tokens","total_tokens|completion_tokens"],
    "input":["prompt_tokens"],"output":["completion_tokens"],
    "cached":"prompt_tokens_details.cached_tokens|prompt_cache_hit_tokens|cache_read_input_tokens",
    "cache_write":"prompt_tokens_details.cache_write_tokens|prompt_tokens_details.cache_creation_tokens",
    "reasoning":"completion_tokens_details.reasoning_tokens","total":"total_tokens"},
  {"shape":"anthropic_messages","has":[["input_tokens"],["cache_creation_input_tokens","cache_read_input_tokens"]],
    "type":"message","needs":["input_tokens","output_tokens"],
    "input":["input_tokens","cache_creation_input_tokens","cache_read_input_tokens"],"output":["output_tokens"],
    "cached":"cache_read_input_tokens","cache_write":"cache_creation_input_tokens",
    "cache_write_1h":"cache_creation.ephemeral_1h_input_tokens",
    "reasoning":"output_tokens_details.thinking_tokens"},
  {"shape":"openai_responses","has":[["input_tokens"]],"needs":["input_tokens","output_tokens"],
    "input":["input_tokens"],"output":["output_tokens"],
    "cached":"input_tokens_details.cached_tokens|input_token_details.cached_tokens|input_token_details.cache_read",
    "cache_write":"input_tokens_details.cache_write_tokens|input_token_details.cache_creation",
    "reasoning":"output_tokens_details.reasoning_tokens|output_token_details.reasoning","total":"total_tokens"},
  {"shape":"google_generate_content","has":[["promptTokenCount","candidatesTokenCount","totalTokenCount"]],
    "needs":["totalTokenCount|promptTokenCount","totalTokenCount|candidatesTokenCount"],
    "input":["promptTokenCount","toolUsePromptTokenCount"],
    "output":["candidatesTokenCount|responseTokenCount","thoughtsTokenCount"],"cached":"cachedContentTokenCount",
    "reasoning":"thoughtsTokenCount","total":"totalTokenCount"},
  {"shape":"google_interactions","has":[["total_input_tokens"]],
    "needs":["total_input_tokens","total_output_tokens"],"input":["total_input_tokens","total_tool_use_tokens"],
    "output":["total_output_tokens","total_thought_tokens"],"cached":"total_cached_tokens",
    "reasoning":"total_thought_tokens","total":"total_tokens"},
  {"shape":"bedrock_converse","has":[["inputTokens"],["cacheReadInputTokens","cacheWriteInputTokens"]],
    "needs":["inputTokens","outputTokens"],"input":["inputTokens","cacheReadInputTokens","cacheWriteInputTokens"],
    "output":["outputTokens"],"cached":"cacheReadInputTokens","cache_write":"cacheWriteInputTokens"},
  {"shape":"ai_sdk","has":[["inputTokens.total"]],"needs":["inputTokens.total","outputTokens.total"],
    "input":["inputTokens.total"],"output":["outputTokens.total"],"cached":"inputTokens.cacheRead",
    "cache_write":"inputTokens.cacheWrite","reasoning":"outputTokens.reasoning"},
  {"shape":"ai_sdk","has":[["inputTokens","promptTokens"]],
    "needs":["inputTokens|promptTokens","outputTokens|completionTokens|totalTokens"],
    "input":["inputTokens|promptTokens"],"output":["outputTokens|completionTokens"],
    "cached":"inputTokenDetails.cacheReadTokens|cachedInputTokens",
    "cache_write":"inputTokenDetails.cacheWriteTokens",
    "reasoning":"outputTokenDetails.reasoningTokens|reasoningTokens","total":"totalTokens"},
  {"shape":"tokens_used","has":[["tokensUsed","tokens_used","total_tokens","totalTokens"]],
    "needs":["tokensUsed|tokens_used|total_tokens|totalTokens"],
    "input":["tokensUsed|tokens_used|total_tokens|totalTokens"],"output":[],"only_total":true}
]'
$shapes$;
comment on function governance.usage_shapes() is
  'How providers report the tokens of a call: the core''s table (shared/governance/usage/shapes.ts), line for line.';

create function governance.usage_places() returns text[]
  language sql immutable set search_path = '' as $$
  select array['usageMetadata', 'usage_metadata', 'usage.tokens', 'usage', 'choices.0.usage',
    'x_groq.usage', 'response.usage', 'message.usage', 'meta.tokens',
    'token_usage', 'tokenUsage', 'metrics', 'metadata', '']
$$;
comment on function governance.usage_places() is
  'Where a report of usage lies in a message''s metadata, by dotted path; the first that has one is read.';

create function governance.first_given(p_report jsonb, p_paths text) returns jsonb
  language plpgsql immutable strict set search_path = '' as $$
declare
  v_path text;
  v_found jsonb;
begin
  foreach v_path in array string_to_array(p_paths, '|') loop
    v_found := p_report #> string_to_array(v_path, '.');
    if v_found <> 'null' then return v_found; end if;
  end loop;
  return null;
end
$$;
comment on function governance.first_given(jsonb, text) is 'Of the dotted paths `a|b` the first that is given.';

create function governance.has_any(p_report jsonb, p_paths jsonb) returns boolean
  language plpgsql immutable strict set search_path = '' as $$
declare
  v_path text;
begin
  for v_path in select * from jsonb_array_elements_text(p_paths) loop
    if governance.first_given(p_report, v_path) is not null then return true; end if;
  end loop;
  return false;
end
$$;
comment on function governance.has_any(jsonb, jsonb) is 'Whether a report has a value at one of the dotted paths.';

create function governance.reported_count(p_report jsonb, p_paths jsonb) returns bigint
  language plpgsql immutable strict set search_path = '' as $$
declare
  v_paths text;
  v_sum bigint;
  v_count bigint;
begin
  for v_paths in select * from jsonb_array_elements_text(p_paths) loop
    v_count := governance.token_count(governance.first_given(p_report, v_paths));
    v_sum := coalesce(v_sum + v_count, v_sum, v_count);
  end loop;
  return v_sum;
end
$$;
comment on function governance.reported_count(jsonb, jsonb) is
  'The counts of a report at these paths, added up; null where none is given.';

create function governance.read_usage(p_metadata jsonb, out input_tokens bigint, out output_tokens bigint,
  out model text)
  language plpgsql immutable strict set search_path = '' as $$
declare
  v_report jsonb;
  s jsonb;
  v_place text;
  v_name text := governance.first_given(p_metadata,
    'modelVersion|model|response.model|message.model|model_used|modelUsed') #>> '{}';
  v_shapes jsonb := governance.usage_shapes();
  v_reasoning bigint;
  v_beside bigint;
begin
  foreach v_place in array governance.usage_places() loop
    v_report := p_metadata #> string_to_array(v_place, '.');
    continue when jsonb_typeof(v_report) is distinct from 'object';
    for s in select * from jsonb_array_elements(v_shapes) loop
      continue when not governance.has_any(v_report, s -> 'has' -> 0);
      continue when s -> 'has' -> 1 is not null and not governance.has_any(v_report, s -> 'has' -> 1)
        and (s ->> 'model' is null or v_name is null or v_name !~ (s ->> 'model'))
        and (s ->> 'type' is null or p_metadata ->> 'type' is distinct from s ->> 'type');
      input_tokens := governance.reported_count(v_report, s -> 'input');
      output_tokens := governance.reported_count(v_report, s -> 'output');
      continue when coalesce(input_tokens, 0) + coalesce(output_tokens, 0) = 0;
      v_reasoning := governance.token_count(governance.first_given(v_report, s ->> 'reasoning'));
      v_beside := governance.token_count(governance.first_given(v_report, s ->> 'total'))
        - coalesce(input_tokens, 0) - coalesce(output_tokens, 0);
      -- What the total has more is reasoning beside the output, or the part that was left out. History is taken as far
      -- as it tells: unlike a call's own report it is not refused for a total that does not add up.
      if v_beside > 0 and input_tokens is null then
        input_tokens := v_beside;
      elsif v_beside > 0 and (output_tokens is null or v_beside = v_reasoning
        or (coalesce(v_reasoning, 0) = 0 and v_name like '%gemini%')) then
        output_tokens := coalesce(output_tokens, 0) + v_beside;
      end if;
      input_tokens := coalesce(input_tokens, 0);
      output_tokens := coalesce(output_tokens, 0);
      model := coalesce(nullif(v_report ->> 'model', ''), nullif(v_name, ''));
      return;
    end loop;
  end loop;
  input_tokens := null;
  output_tokens := null;
end
$$;
comment on function governance.read_usage(jsonb) is 'Tokens and model of a chat message''s metadata, in the shapes of '
  'governance.usage_shapes; null where it has none.';

create function public.import_usage_history(p_table text, p_columns jsonb default '{}', p_batch int default 1000,
  p_restart boolean default false) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_table regclass;
  v_kind "char";
  v_role text;
  v_schema text;
  v_source text;
  v_columns jsonb := '{"id":"id","user_id":"user_id","created_at":"created_at","metadata":"metadata"}';
  v_key text;
  v_name text;
  v_types jsonb := '{}';
  v_import governance.usage_imports;
  v_user text;
  v_rows jsonb;
  v_read int;
  v_done int;
  v_last text;
  v_now timestamptz := governance.now();
begin
  perform governance.refuse_others('import_usage_history');
  perform governance.check_id('p_table', p_table, 255);
  if p_batch is null or p_batch not between 1 and 10000 then
    perform governance.fail('PT400', 'invalid_argument', 'p_batch is a whole number from 1 to 10000');
  end if;
  begin
    v_table := to_regclass(p_table);
  exception when others then
    v_table := null;
  end;
  select c.relkind, n.nspname, format('%I.%I', n.nspname, c.relname) into v_kind, v_schema, v_source
  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = v_table;
  if v_table is null or v_kind not in ('r', 'p', 'v', 'm', 'f')
    or v_schema in ('governance', 'pg_catalog', 'information_schema') or v_schema like 'pg\_%' then
    perform governance.fail('PT404', 'not_found',
      format('There is no table or view "%s" to read: name it as schema.table', left(p_table, 64)));
  end if;
  -- This function runs as its owner, who may read more than the caller: what the caller may not read stays closed.
  v_role := case current_setting('role') when 'none' then session_user else current_setting('role') end;
  if not has_table_privilege(v_role, v_table, 'select') or not has_schema_privilege(v_role, v_schema, 'usage') then
    perform governance.fail('PT403', 'not_readable', format('%s may not read %s: grant it select', v_role, v_source));
  end if;
  if p_columns is null or jsonb_typeof(p_columns) <> 'object' then
    perform governance.fail('PT400', 'invalid_argument', 'p_columns is a JSON object');
  end if;
  v_columns := v_columns || p_columns;
  for v_key, v_name in select * from jsonb_each_text(v_columns) loop
    if v_key not in ('id', 'user_id', 'created_at', 'metadata', 'conversation_id', 'model', 'task_type') then
      perform governance.fail('PT400', 'invalid_argument',
        format('p_columns.%s is unknown: id, user_id, created_at, metadata, conversation_id, model, task_type are',
        left(v_key, 64)));
    end if;
    continue when v_name is null and v_key in ('conversation_id', 'model', 'task_type');
    v_types := v_types || coalesce((
      select jsonb_build_object(v_key, pg_catalog.format_type(a.atttypid, null)) from pg_catalog.pg_attribute a
      where a.attrelid = v_table and a.attname = v_name and a.attnum > 0 and not a.attisdropped), '{}');
    if v_types -> v_key is null then
      perform governance.fail('PT400', 'invalid_argument',
        format('p_columns.%s: %s has no column "%s"', v_key, v_source, left(v_name, 64)));
    end if;
  end loop;
  if v_types ->> 'created_at' not in ('timestamp with time zone', 'timestamp without time zone') then
    perform governance.fail('PT400', 'invalid_argument', 'p_columns.created_at names no timestamp');
  end if;
  -- Batches go by the key: without order or with twins a row would be lost between two of them.
  if v_types ->> 'id' not in ('bigint', 'integer', 'smallint', 'uuid', 'text', 'character varying',
    'timestamp with time zone') then
    perform governance.fail('PT400', 'invalid_argument', 'p_columns.id names no whole number, uuid or text');
  end if;
  if v_kind in ('r', 'p') and not exists (
    select from pg_catalog.pg_index i
      join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
    where i.indrelid = v_table and i.indisunique and i.indisvalid and i.indpred is null and i.indnkeyatts = 1
      and a.attname = v_columns ->> 'id') then
    perform governance.fail('PT400', 'invalid_argument',
      format('p_columns.id: "%s" is not unique in %s', left(v_columns ->> 'id', 64), v_source));
  end if;

  -- One batch at a time of one source.
  perform pg_advisory_xact_lock(hashtextextended('import ' || v_source, 7254));
  -- No day is closed while this batch adds to it: aggregate_days takes this lock alone.
  perform pg_advisory_xact_lock_shared(7254013);
  insert into governance.usage_imports as u (source, columns, started_at, updated_at)
    values (v_source, v_columns, v_now, v_now)
  on conflict (source) do update set updated_at = v_now,
    last_key = case when p_restart or u.columns <> v_columns then null else u.last_key end,
    rows_read = case when p_restart or u.columns <> v_columns then 0 else u.rows_read end,
    rows_skipped = case when p_restart or u.columns <> v_columns then 0 else u.rows_skipped end,
    finished_at = null, columns = v_columns
  returning * into v_import;

  begin
    execute format($q$
    select coalesce(jsonb_agg(to_jsonb(x) order by x.n), '[]'), count(*), (array_agg(x.key order by x.n desc))[1]
    from (
      select row_number() over (order by t.%1$I) as n, t.%1$I::text as key, left(t.%2$I::text, 300) as user_id,
        %3$s as at,
        governance.read_usage(governance.try_jsonb(t.%4$I::text)) as usage, %5$s as conversation_id, %6$s as model,
          %7$s as task_type
      from %8$s t
      where %9$s
      order by t.%1$I limit %10$s) x
    $q$,
    v_columns ->> 'id', v_columns ->> 'user_id',
    case v_types ->> 'created_at'
      when 'timestamp without time zone' then format('t.%I at time zone ''UTC''', v_columns ->> 'created_at')
      else format('t.%I', v_columns ->> 'created_at') end,
    v_columns ->> 'metadata',
    case when v_types ? 'conversation_id' then format('left(t.%I::text, 255)', v_columns ->> 'conversation_id')
      else 'null::text' end,
    case when v_types ? 'model' then format('left(t.%I::text, 200)', v_columns ->> 'model') else 'null::text' end,
    case when v_types ? 'task_type' then format('left(t.%I::text, 255)', v_columns ->> 'task_type')
      else 'null::text' end,
    v_source,
    case when v_import.last_key is not null
      then format('t.%I > %L::%s', v_columns ->> 'id', v_import.last_key, v_types ->> 'id') else 'true' end,
    p_batch)
  into v_rows, v_read, v_last;
  exception when insufficient_privilege then
    perform governance.fail('PT403', 'not_readable',
      format('The owner of the governance schema may not read %s: grant it select', v_source));
  end;

  -- A user of the old table who has made no call here yet gets an account, as at a first call.
  for v_user in
    select distinct x ->> 'user_id' from jsonb_array_elements(v_rows) x
    where x -> 'usage' ->> 'input_tokens' is not null and btrim(coalesce(x ->> 'user_id', '')) <> ''
      and char_length(x ->> 'user_id') <= 255
      and x ->> 'at' is not null and isfinite((x ->> 'at')::timestamptz)
      and not exists (select from governance.accounts a where a.user_id = x ->> 'user_id')
    order by 1
  loop
    perform governance.lock_account(v_user, true);
  end loop;
  with new_rows as (
    insert into governance.imported_usage (source, message_key, account_id, at, day, model, conversation_id, task_type,
      input_tokens, output_tokens, cost_micros)
    select v_source, x.key, a.account_id, x.at, (x.at at time zone a.timezone)::date, m.model,
      nullif(x.conversation_id, ''), coalesce(x.task_type, ''),
      (x.usage ->> 'input_tokens')::bigint, (x.usage ->> 'output_tokens')::bigint,
      governance.cost_of(m.model, x.at, (x.usage ->> 'input_tokens')::bigint, (x.usage ->> 'output_tokens')::bigint)
    from jsonb_to_recordset(v_rows) x(key text, user_id text, at timestamptz, usage jsonb, conversation_id text,
      model text, task_type text)
    join governance.accounts a on a.user_id = x.user_id
    cross join lateral (select left(coalesce(nullif(x.model, ''), x.usage ->> 'model', 'unknown'), 200) as model) m
    where x.usage ->> 'input_tokens' is not null and x.at between '1900-01-01' and '2200-01-01'
    on conflict do nothing
    returning *
  ), counted as (
    insert into governance.usage_daily as d (account_id, day, model, task_type, scope_id, calls, messages, input_tokens,
      output_tokens, charged_tokens, cost_micros, first_activity_at, last_activity_at)
    select n.account_id, n.day, n.model, n.task_type, '', count(*), count(*), sum(n.input_tokens), sum(n.output_tokens),
      0, coalesce(sum(n.cost_micros), 0), min(n.at), max(n.at)
    -- In one order, so that batches of two tables never wait for each other.
    from new_rows n group by 1, 2, 3, 4 order by 1, 2, 3, 4
    on conflict (account_id, day, model, task_type, scope_id) do update set
      calls = d.calls + excluded.calls, messages = d.messages + excluded.messages,
        input_tokens = d.input_tokens + excluded.input_tokens,
      output_tokens = d.output_tokens + excluded.output_tokens, cost_micros = d.cost_micros + excluded.cost_micros,
      first_activity_at = least(d.first_activity_at, excluded.first_activity_at),
      last_activity_at = greatest(d.last_activity_at, excluded.last_activity_at)
  ), reopened as (
    delete from governance.usage_days u where u.day in (select n.day from new_rows n)
  )
  select count(*) into v_done from new_rows;

  update governance.usage_imports u set
    last_key = coalesce(v_last, u.last_key), rows_read = u.rows_read + v_read, rows_imported = u.rows_imported + v_done,
    rows_skipped = u.rows_skipped + (select count(*) from jsonb_array_elements(v_rows) x where not exists (
      select from governance.imported_usage i where i.source = v_source and i.message_key = x ->> 'key')),
    finished_at = case when v_read < p_batch then v_now end
  where u.source = v_source returning * into v_import;
  return jsonb_build_object('source', v_source, 'batch_read', v_read, 'batch_imported', v_done, 'rows_read',
    v_import.rows_read,
    'rows_imported', v_import.rows_imported, 'rows_skipped', v_import.rows_skipped, 'finished',
      v_import.finished_at is not null);
end
$$;
comment on function public.import_usage_history(text, jsonb, int, boolean) is
  'Reads one batch of a chat table or view (schema.name) whose metadata holds token counts, and counts it as usage; '
  'nothing is charged, and the table is only read. p_columns names its columns where they are not id, user_id, '
  'created_at, metadata (and conversation_id, model, task_type if it has them). Call it until finished; a message '
  'counts once, however often. p_restart reads from the beginning again. Errors: invalid_argument, not_found, '
  'not_configured.';
revoke all on function public.import_usage_history(text, jsonb, int, boolean) from public, anon, authenticated;
grant execute on function public.import_usage_history(text, jsonb, int, boolean) to service_role;

-- schemas/48_bulk_acts.sql
-- One correction of many accounts: worked out before it starts, done in small steps that are each kept, stopped, gone
-- on with and undone as a whole. A step holds the locks of a few accounts for a moment, so calls and operators go on.

create table governance.bulk_acts (
  bulk_id bigint generated always as identity primary key,
  command_id text not null unique,
  -- What was asked, as governance.check_act reads it.
  fields jsonb not null,
  reason text not null,
  operator text not null,
  -- proposed: a second person decides. stopped: goes on when somebody says so. undoing goes over to undone.
  status text not null check (status in ('proposed', 'rejected', 'running', 'stopped', 'done', 'undoing', 'undone')),
  why text,
  -- What was worked out when it started.
  plan jsonb not null,
  accounts int not null,
  done int not null default 0,
  refused int not null default 0,
  undone int not null default 0,
  -- Tokens that moved so far, without those that paid debt.
  tokens bigint not null default 0,
  created_at timestamptz not null,
  -- When the last step was kept.
  stepped_at timestamptz,
  ended_at timestamptz,
  -- The second person, who approved or rejected it.
  decided_by text,
  undo_reason text,
  undone_by text
);

create index bulk_acts_open on governance.bulk_acts (bulk_id desc) where status in ('proposed', 'running', 'stopped',
  'undoing');

comment on table governance.bulk_acts is 'Corrections of many accounts at once, and how far each is.';

create table governance.bulk_act_accounts (
  bulk_id bigint not null,
  account_id bigint not null,
  -- Accounts are taken in the order of their locks.
  lock_key bigint not null,
  status text not null default 'waiting' check (status in ('waiting', 'done', 'refused', 'undone', 'kept')),
  act_id bigint,
  tokens bigint,
  -- Why it was refused, or why it could not be undone (kept).
  hint text,
  message text,
  primary key (bulk_id, account_id)
);

create index bulk_act_accounts_next on governance.bulk_act_accounts (bulk_id, status, lock_key, account_id);

comment on table governance.bulk_act_accounts is 'What came of a bulk act, account by account.';

create type governance.bulk_line as (account_id bigint, tokens bigint, debt_paid bigint, hint text);

create function governance.bulk_lines(p_act jsonb, p_account_ids bigint[]) returns setof governance.bulk_line
  language sql stable set search_path = '' as $$
  -- As governance.apply_act does it, for all at once and without a lock.
  select a.account_id,
    case when x.hint is null then x.tokens else 0 end,
    case when x.hint is null then least(a.debt_tokens, greatest(x.tokens, 0)) else 0 end,
    x.hint
  from governance.accounts a
  left join governance.plans p on p.plan_id = p_act ->> 'plan_id' and p.retired_at is null
  cross join (select governance.now() as at offset 0) t
  cross join lateral (select a.subscription_tokens + a.purchased_tokens + a.promotional_tokens as total) b
  cross join lateral (select
    case p_act ->> 'kind' when 'give_tokens' then (p_act ->> 'tokens')::bigint
      when 'take_tokens' then -(p_act ->> 'tokens')::bigint
      when 'change_plan' then case when p_act ->> 'when' = 'next_period' then 0
        else greatest(p.monthly_allowance - a.month_allowance, 0) end else 0 end as tokens,
    case p_act ->> 'kind'
      when 'give_tokens' then case when b.total + (p_act ->> 'tokens')::numeric > 9007199254740991
        then 'invalid_argument' end
      when 'take_tokens' then case when b.total - a.reserved_tokens < (p_act ->> 'tokens')::bigint
        then 'insufficient_tokens' end
      else case when governance.why_unchanged(a, p_act, t.at) is not null then 'nothing_to_change' end
      end as hint) x
  where a.account_id = any (p_account_ids)
$$;
comment on function governance.bulk_lines(jsonb, bigint[]) is
  'What an act would do to each of these accounts: tokens that it adds (or takes, below zero), how many of them pay '
  'debt, or the word it would be refused with.';

create function governance.check_bulk_act(p_act jsonb) returns jsonb
  language plpgsql stable set search_path = '' as $$
declare
  v_act jsonb := governance.check_act(p_act);
begin
  if v_act ->> 'kind' in ('refund_call', 'end_hold') then
    perform governance.fail('PT400', 'invalid_argument', format('p_act.kind %s is about one call of one user',
      v_act ->> 'kind'));
  elsif v_act ->> 'kind' = 'change_plan' and not exists (select from governance.plans p
    where p.plan_id = v_act ->> 'plan_id' and p.retired_at is null) then
    perform governance.fail('PT404', 'unknown_plan', format('There is no plan "%s"', left(v_act ->> 'plan_id', 64)));
  end if;
  return v_act;
end
$$;
comment on function governance.check_bulk_act(jsonb) is 'Refuses an act that many accounts cannot get at once. Errors: '
  'invalid_argument, unknown_plan.';

create function governance.plan_bulk_act(p_act jsonb, p_user_ids jsonb, p_operator text, p_now timestamptz)
  returns jsonb
  language plpgsql stable set search_path = '' as $$
declare
  c_most constant int := 20000;
  c_shown constant int := 100;
  v_user_ids text[];
  v_missing text[];
  v_account_ids bigint[];
  v_plan jsonb;
begin
  if p_user_ids is null or jsonb_typeof(p_user_ids) <> 'array' or jsonb_array_length(p_user_ids) = 0
    or exists (select from jsonb_array_elements(p_user_ids) u where jsonb_typeof(u) <> 'string') then
    perform governance.fail('PT400', 'invalid_argument', 'p_user_ids is an array of user ids: at least one');
  elsif jsonb_array_length(p_user_ids) > c_most then
    perform governance.fail('PT400', 'invalid_argument',
      format('p_user_ids names %s users: at most %s go into one act', jsonb_array_length(p_user_ids), c_most));
  end if;
  select array_agg(distinct u) into v_user_ids from jsonb_array_elements_text(p_user_ids) u;
  select array_agg(a.account_id), array_agg(u order by u) filter (where a.account_id is null)
    into v_account_ids, v_missing
  from unnest(v_user_ids) u left join governance.accounts a on a.user_id = u;
  v_account_ids := array_remove(v_account_ids, null);
  with lines as materialized (select * from governance.bulk_lines(p_act, v_account_ids))
  select jsonb_build_object(
    'accounts', count(*), 'changes', count(*) filter (where l.hint is null),
    'refused', count(*) filter (where l.hint is not null),
    'missing', coalesce(cardinality(v_missing), 0),
    'missing_ids', to_jsonb(coalesce(v_missing[1:c_shown], '{}')),
    'tokens', coalesce(sum(l.tokens), 0), 'debt_paid', coalesce(sum(l.debt_paid), 0),
    'stake', coalesce(sum(abs(l.tokens) + l.debt_paid), 0),
    'by_refusal', (select coalesce(jsonb_agg(jsonb_build_object('hint', y.hint, 'accounts', y.n) order by y.n desc),
      '[]') from (select z.hint, count(*) as n from lines z where z.hint is not null group by z.hint) y),
    'by_plan', (select coalesce(jsonb_agg(jsonb_build_object('plan_id', y.plan_id, 'name', p.name, 'accounts', y.n,
        'tokens', y.tokens) order by y.n desc, y.plan_id), '[]')
      from (select a.plan_id, count(*) as n, sum(z.tokens) as tokens from lines z
        join governance.accounts a using (account_id) where z.hint is null group by a.plan_id) y
      join governance.plans p using (plan_id)),
    'shown', (select coalesce(jsonb_agg(jsonb_build_object('user_id', y.user_id, 'display_name', y.display_name,
        'email', y.email, 'plan_id', y.plan_id, 'before', y.free, 'after', y.free + y.tokens - y.debt_paid,
        'debt_paid', y.debt_paid, 'hint', y.hint, 'is_flagged', y.is_flagged, 'is_blocked', y.blocked_until > p_now,
        'blocked_until', case when y.blocked_until > p_now and isfinite(y.blocked_until) then y.blocked_until end,
        'daily_limit', y.daily_limit, 'monthly_limit', y.monthly_limit) order by y.hint nulls last, y.user_id), '[]')
      from (select a.user_id, a.display_name, a.email, a.plan_id, z.tokens, z.debt_paid, z.hint,
          a.subscription_tokens + a.purchased_tokens + a.promotional_tokens - a.reserved_tokens as free,
          a.flagged_at is not null as is_flagged, coalesce(governance.blocked_until(a), '-infinity') as blocked_until,
          governance.raised_limit(p.daily_limit, a.raised_daily_limit, a.raised_until, p_now) as daily_limit,
          governance.raised_limit(p.monthly_limit, a.raised_monthly_limit, a.raised_until, p_now) as monthly_limit
        from lines z join governance.accounts a using (account_id) join governance.plans p using (plan_id)
        order by z.hint nulls last, a.user_id limit c_shown) y))
    -- Who they are: what an act that moves no tokens costs them and us.
    || (select jsonb_build_object(
        'blocked', count(*) filter (where governance.blocked_until(a) > p_now),
        'flagged', count(*) filter (where a.flagged_at is not null),
        'paying', count(*) filter (where exists (select from governance.stripe_payments y
          where y.account_id = a.account_id)),
        'holding', count(*) filter (where a.reserved_tokens > 0),
        'used_this_month', coalesce(sum(a.month_tokens) filter (where a.month_ends_at > p_now), 0))
      from lines z join governance.accounts a using (account_id) where z.hint is null)
  into v_plan from lines l;
  if (v_plan ->> 'stake')::numeric > 9007199254740991 then
    perform governance.fail('PT400', 'invalid_argument', 'All of it together would not stay below 2^53 tokens');
  end if;
  return v_plan || jsonb_build_object('account_ids', to_jsonb(coalesce(v_account_ids, '{}')),
    'why', governance.why_second_person(p_operator, (v_plan ->> 'stake')::bigint, p_now));
end
$$;
comment on function governance.plan_bulk_act(jsonb, jsonb, text, timestamptz) is
  'Whom an act on many hits and what it costs: counts, tokens, by plan, who is refused and why, users that are gone, '
  'of those that change how many pay, are blocked, are flagged or have calls in flight and what they used this month, '
  'the first hundred by user, and why a second person must approve. Errors: invalid_argument.';

create function governance.bulk_json(b governance.bulk_acts) returns jsonb
  language sql stable set search_path = '' as $$
  select jsonb_build_object('bulk_id', b.bulk_id, 'command_id', b.command_id, 'kind', b.fields ->> 'kind', 'fields',
    b.fields - 'kind', 'reason', b.reason, 'operator', b.operator, 'status', b.status, 'why', b.why, 'plan',
    b.plan - 'shown', 'accounts', b.accounts, 'done', b.done, 'refused', b.refused, 'undone', b.undone, 'tokens',
    b.tokens, 'created_at', b.created_at, 'stepped_at', b.stepped_at, 'ended_at', b.ended_at, 'decided_by',
    b.decided_by, 'undo_reason', b.undo_reason, 'undone_by', b.undone_by,
    'can_undo', b.status in ('done', 'stopped') and b.fields ->> 'kind' <> 'note' and b.done > b.undone)
$$;
comment on function governance.bulk_json(governance.bulk_acts) is 'A bulk act as the console reads it.';

create function governance.find_bulk_act(p_bulk_id bigint, p_for_update boolean default false)
  returns governance.bulk_acts
  language plpgsql set search_path = '' as $$
declare
  b governance.bulk_acts;
begin
  if p_for_update then
    select * into b from governance.bulk_acts x where x.bulk_id = p_bulk_id for update;
  else
    select * into b from governance.bulk_acts x where x.bulk_id = p_bulk_id;
  end if;
  if b.bulk_id is null then
    perform governance.fail('PT404', 'not_found', 'There is no such bulk act');
  end if;
  return b;
end
$$;
comment on function governance.find_bulk_act(bigint, boolean) is 'A bulk act by its number. Errors: not_found.';

create function public.console_preview_bulk_act(p_act jsonb, p_user_ids jsonb, p_operator text) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
begin
  perform governance.refuse_others('console_preview_bulk_act');
  perform governance.check_id('p_operator', p_operator);
  return governance.plan_bulk_act(governance.check_bulk_act(p_act), p_user_ids, p_operator, governance.now())
    - 'account_ids';
end
$$;
comment on function public.console_preview_bulk_act(jsonb, jsonb, text) is
  'Whom a correction of many users would hit and what it would cost; changes nothing. Users that do not exist are '
  'counted and left out. At most 20,000 users. Errors: invalid_argument, unknown_plan.';
revoke all on function public.console_preview_bulk_act(jsonb, jsonb, text) from public, anon, authenticated;
grant execute on function public.console_preview_bulk_act(jsonb, jsonb, text) to service_role;

create function public.console_start_bulk_act(p_command_id text, p_act jsonb, p_user_ids jsonb, p_reason text,
  p_operator text, p_expected_changes int default null, p_expected_tokens bigint default null) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_act jsonb;
  v_plan jsonb;
  v_answer jsonb;
  v_now timestamptz := governance.now();
  b governance.bulk_acts;
begin
  perform governance.refuse_others('console_start_bulk_act');
  perform governance.check_id('p_command_id', p_command_id);
  perform governance.check_id('p_reason', p_reason, 1000);
  perform governance.check_id('p_operator', p_operator);
  v_act := governance.check_bulk_act(p_act);
  perform governance.lock_person(p_operator);
  v_answer := governance.begin_command('operator', p_command_id,
    row('bulk_act', v_act, p_user_ids, p_reason, p_operator, p_expected_changes, p_expected_tokens)::text);
  if v_answer is not null then return v_answer; end if;
  v_plan := governance.plan_bulk_act(v_act, p_user_ids, p_operator, v_now);
  if (v_plan ->> 'changes')::int <> p_expected_changes or (v_plan ->> 'tokens')::bigint <> p_expected_tokens then
    perform governance.fail('PT409', 'changed_since',
      'Some of these users changed since this was worked out: look at what it does now',
      (v_plan - 'account_ids')::text);
  elsif (v_plan ->> 'changes')::int = 0 then
    perform governance.fail('PT409', 'nothing_to_change', 'None of these users would be changed');
  end if;
  insert into governance.bulk_acts (command_id, fields, reason, operator, status, why, plan, accounts, created_at)
  values (p_command_id, v_act, p_reason, p_operator,
    case when v_plan ->> 'why' is null then 'running' else 'proposed' end, v_plan ->> 'why',
    v_plan - '{account_ids,shown}'::text[], (v_plan ->> 'accounts')::int, v_now)
  returning * into b;
  insert into governance.bulk_act_accounts (bulk_id, account_id, lock_key)
  select b.bulk_id, a.account_id, governance.lock_key(a.user_id) from governance.accounts a
  where a.account_id = any (array(select x::bigint from jsonb_array_elements_text(v_plan -> 'account_ids') x));
  if b.why is null and (v_plan ->> 'stake')::bigint > 0 then
    insert into governance.lone_decisions (bulk_id, what, decided_at, decided_by, tokens, amount_minor)
    values (b.bulk_id, 'act', v_now, p_operator, (v_plan ->> 'stake')::bigint, 0);
  end if;
  return governance.end_bulk_command(b, case when b.why is null then 'start_bulk' else 'propose_bulk' end,
    p_command_id, p_reason, p_operator);
end
$$;
comment on function public.console_start_bulk_act(text, jsonb, jsonb, text, text, int, bigint) is
  'Starts a correction of many users, and does none of it yet: console_step_bulk_act does, step by step. Answers the '
  'bulk act; above what one person may decide alone, for all of it together, its status is proposed until somebody '
  'else approves with console_change_bulk_act. Where it would change other than the expected number of accounts or '
  'tokens it is refused with what it does now in the details. Audited, and safe to repeat. Errors: invalid_argument, '
  'unknown_plan, changed_since, nothing_to_change, idempotency_conflict.';
revoke all on function public.console_start_bulk_act(text, jsonb, jsonb, text, text, int, bigint)
  from public, anon, authenticated;
grant execute on function public.console_start_bulk_act(text, jsonb, jsonb, text, text, int, bigint) to service_role;

create function governance.end_bulk_command(b governance.bulk_acts, p_action text, p_command_id text, p_reason text,
  p_operator text) returns jsonb
  language plpgsql set search_path = '' as $$
begin
  insert into governance.audit_log (created_at, operator, action, reason, command_id, details)
  values (governance.now(), p_operator, p_action, p_reason, p_command_id, b.fields || jsonb_build_object('bulk_id',
    b.bulk_id, 'accounts', b.accounts, 'done', b.done, 'tokens', b.plan -> 'tokens'));
  return governance.end_command('operator', p_command_id, governance.bulk_json(b));
end
$$;
comment on function governance.end_bulk_command(governance.bulk_acts, text, text, text, text) is
  'Audits what was decided of a bulk act, and keeps the answer for a repeat.';

create function governance.step_account(b governance.bulk_acts, r governance.bulk_act_accounts)
  returns governance.bulk_act_accounts
  language plpgsql set search_path = '' as $$
declare
  a governance.accounts;
  x governance.account_acts;
  y governance.account_acts;
  v_command_id constant text := gen_random_uuid()::text;
  v_undoes boolean := b.status = 'undoing';
  v_operator text := case when b.status = 'undoing' then b.undone_by else b.operator end;
  v_reason text := case when b.status = 'undoing' then b.undo_reason else b.reason end;
  v_effects jsonb;
  v_now timestamptz;
  v_state text;
  v_why text;
begin
  a := governance.lock_account_id(r.account_id);
  v_now := governance.now();
  v_why := case when not v_undoes then governance.why_unchanged(a, b.fields, v_now) end;
  if v_why is not null then perform governance.fail('PT409', 'nothing_to_change', v_why); end if;
  if v_undoes then
    x := governance.find_act(r.act_id);
    if x.status <> 'done' then
      r.status := 'undone';
      return r;
    end if;
  end if;
  v_effects := governance.run_act(a, case when not v_undoes then b.fields end, x, v_command_id, v_reason, v_operator,
    v_now);
  insert into governance.account_acts (command_id, account_id, kind, fields, reason, operator, status, effects,
    created_at, done_at, decided_by, undoes, bulk_id)
  values (v_command_id, a.account_id, b.fields ->> 'kind', b.fields, v_reason, v_operator, 'done', v_effects, v_now,
    v_now, case when not v_undoes then b.decided_by end, x.act_id, b.bulk_id)
  returning * into y;
  if v_undoes then
    update governance.account_acts z set status = 'undone', undone_by = y.act_id where z.act_id = x.act_id;
    r.status := 'undone';
  else
    r.status := 'done';
    r.act_id := y.act_id;
    r.tokens := (select coalesce(sum((e ->> 'amount')::bigint), 0)
      from jsonb_array_elements(v_effects -> 'entries') e where e ->> 'type' <> 'debt_recovery');
  end if;
  perform governance.end_act(case when v_undoes then 'undo_' else '' end || (b.fields ->> 'kind'), v_command_id,
    a.user_id, v_reason, v_operator, (b.fields - 'kind') || jsonb_build_object('act_id', y.act_id, 'bulk_id',
    b.bulk_id));
  return r;
exception
  -- The whole step is tried again.
  when deadlock_detected or serialization_failure or lock_not_available or query_canceled then raise;
  -- One account that refuses, or that is gone, does not hold up the others.
  when others then
    get stacked diagnostics r.hint = pg_exception_hint, r.message = message_text, v_state = returned_sqlstate;
    if v_state !~ '^PT' then
      r.hint := 'failed';
      r.message := case when v_state = 'P0002' then 'This account is gone' else format('%s (%s)', r.message, v_state)
        end;
    end if;
    if v_undoes then
      r.status := 'kept';
    else
      r := row(r.bulk_id, r.account_id, r.lock_key, 'refused', null, null, r.hint, r.message);
    end if;
    return r;
end
$$;
comment on function governance.step_account(governance.bulk_acts, governance.bulk_act_accounts) is
  'Does a bulk act to one account, or undoes it there; answers what came of it. Takes the account''s lock.';

create function public.console_step_bulk_act(p_bulk_id bigint, p_limit int default 50) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  -- How long a step may hold the locks of its accounts, unless the first alone takes longer.
  c_until constant timestamptz := clock_timestamp() + interval '100 milliseconds';
  b governance.bulk_acts;
  r governance.bulk_act_accounts;
  v_status text;
  v_done int := 0;
  v_refused int := 0;
  v_undone int := 0;
  v_tokens bigint := 0;
begin
  perform governance.refuse_others('console_step_bulk_act');
  perform governance.check_limit(p_limit, 1000);
  b := governance.find_bulk_act(p_bulk_id);
  if b.status not in ('running', 'undoing') then return governance.bulk_json(b); end if;
  v_status := case b.status when 'running' then 'waiting' else 'done' end;
  -- Whoever steps beside this one takes other accounts.
  for r in select * from governance.bulk_act_accounts x where x.bulk_id = p_bulk_id and x.status = v_status
    order by x.lock_key, x.account_id limit p_limit for update skip locked
  loop
    r := governance.step_account(b, r);
    update governance.bulk_act_accounts x set status = r.status, act_id = r.act_id, tokens = r.tokens, hint = r.hint,
      message = left(r.message, 500) where x.bulk_id = r.bulk_id and x.account_id = r.account_id;
    v_done := v_done + (r.status = 'done')::int;
    v_refused := v_refused + (r.status = 'refused')::int;
    v_undone := v_undone + (r.status = 'undone')::int;
    v_tokens := v_tokens + case when r.status = 'done' then r.tokens when r.status = 'undone' then -r.tokens else 0
      end;
    exit when clock_timestamp() > c_until;
  end loop;
  update governance.bulk_acts x set done = x.done + v_done, refused = x.refused + v_refused,
    undone = x.undone + v_undone, tokens = x.tokens + v_tokens, stepped_at = governance.now()
  where x.bulk_id = p_bulk_id returning * into b;
  if b.status in ('running', 'undoing') and not exists (select from governance.bulk_act_accounts x
    where x.bulk_id = p_bulk_id and x.status = case b.status when 'running' then 'waiting' else 'done' end) then
    update governance.bulk_acts x set status = case b.status when 'running' then 'done' else 'undone' end,
      ended_at = governance.now()
    where x.bulk_id = p_bulk_id returning * into b;
    if b.status = 'undone' then
      delete from governance.lone_decisions d where d.bulk_id = b.bulk_id;
    end if;
    insert into governance.audit_log (created_at, operator, action, reason, command_id, details)
    values (governance.now(), coalesce(b.undone_by, b.operator), case b.status when 'done' then 'end_bulk'
      else 'end_undo_bulk' end, coalesce(b.undo_reason, b.reason), null, jsonb_build_object('bulk_id', b.bulk_id,
      'accounts', b.accounts, 'done', b.done, 'refused', b.refused, 'undone', b.undone, 'tokens', b.tokens));
  end if;
  return governance.bulk_json(b);
end
$$;
comment on function public.console_step_bulk_act(bigint, int) is
  'Does the next accounts of a bulk act that runs or is being undone, for about 100 ms, and answers how far it is. '
  'What a step did is kept with it: a step that is lost with its connection did nothing, and whoever steps next goes '
  'on there. Several may step at once; no account is done twice. Errors: invalid_argument, not_found.';
revoke all on function public.console_step_bulk_act(bigint, int) from public, anon, authenticated;
grant execute on function public.console_step_bulk_act(bigint, int) to service_role;

create function public.console_change_bulk_act(p_command_id text, p_bulk_id bigint, p_action text, p_reason text,
  p_operator text) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  b governance.bulk_acts;
  v_answer jsonb;
  v_next text;
begin
  perform governance.refuse_others('console_change_bulk_act');
  perform governance.check_id('p_command_id', p_command_id);
  perform governance.check_id('p_reason', p_reason, 1000);
  perform governance.check_id('p_operator', p_operator);
  v_answer := governance.begin_command('operator', p_command_id,
    row('change_bulk_act', p_bulk_id, p_action, p_reason, p_operator)::text);
  if v_answer is not null then return v_answer; end if;
  b := governance.find_bulk_act(p_bulk_id, true);
  v_next := case p_action
    when 'approve' then case b.status when 'proposed' then 'running' end
    when 'reject' then case b.status when 'proposed' then 'rejected' end
    when 'stop' then case when b.status = 'running' then 'stopped' end
    when 'go_on' then case when b.status = 'stopped' then 'running' end
    when 'undo' then case when b.status in ('stopped', 'done') and b.fields ->> 'kind' <> 'note'
      then 'undoing' end end;
  if p_action is null or p_action not in ('approve', 'reject', 'stop', 'go_on', 'undo') then
    perform governance.fail('PT400', 'invalid_argument', 'p_action is approve, reject, stop, go_on or undo');
  elsif v_next is null then
    perform governance.fail('PT409', case when p_action in ('approve', 'reject') then 'already_decided'
      when p_action = 'undo' then 'not_undoable' else 'changed_since' end,
      format('This bulk act is %s', b.status), governance.bulk_json(b)::text);
  elsif p_action = 'approve' and governance.is_same_person(b.operator, p_operator) then
    perform governance.fail('PT403', 'same_person', 'Somebody else must approve what you proposed');
  end if;
  update governance.bulk_acts x set status = v_next,
    decided_by = case when p_action in ('approve', 'reject') then p_operator else x.decided_by end,
    undone_by = case when p_action = 'undo' then p_operator else x.undone_by end,
    undo_reason = case when p_action = 'undo' then p_reason else x.undo_reason end,
    ended_at = case when p_action in ('reject', 'stop') then governance.now() end
  where x.bulk_id = p_bulk_id returning * into b;
  return governance.end_bulk_command(b, p_action || '_bulk', p_command_id, p_reason, p_operator);
end
$$;
comment on function public.console_change_bulk_act(text, bigint, text, text, text) is
  'Approves or rejects a proposed bulk act, stops a running one, goes on with a stopped one, or undoes what it did (a '
  'compensating entry for each account, as console_undo_act makes it). Answers the bulk act; console_step_bulk_act '
  'does the work. Audited, and safe to repeat. Errors: invalid_argument, not_found, already_decided, same_person, '
  'changed_since, not_undoable, idempotency_conflict.';
revoke all on function public.console_change_bulk_act(text, bigint, text, text, text)
  from public, anon, authenticated;
grant execute on function public.console_change_bulk_act(text, bigint, text, text, text) to service_role;

create function public.console_bulk_act(p_bulk_id bigint, p_status text default null,
  p_after_id bigint default null, p_limit int default 100) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
begin
  perform governance.refuse_others('console_bulk_act');
  perform governance.check_limit(p_limit, 1000);
  if p_status is not null and p_status not in ('waiting', 'done', 'refused', 'undone', 'kept') then
    perform governance.fail('PT400', 'invalid_argument', 'p_status is waiting, done, refused, undone or kept');
  end if;
  return (
    with page as (
      select r.*, row_number() over (order by r.account_id) as n from governance.bulk_act_accounts r
      where r.bulk_id = p_bulk_id and r.account_id > coalesce(p_after_id, 0)
        and (p_status is null or r.status = p_status)
      order by r.account_id limit p_limit + 1)
    select jsonb_build_object('bulk', governance.bulk_json(governance.find_bulk_act(p_bulk_id)),
      'rows', coalesce(jsonb_agg(jsonb_build_object('user_id', a.user_id, 'display_name', a.display_name, 'email',
        a.email, 'status', p.status, 'act_id', p.act_id, 'tokens', p.tokens, 'hint', p.hint, 'message', p.message)
        order by p.n) filter (where p.n <= p_limit), '[]'),
      'next_after_id', case when count(*) > p_limit then max(p.account_id) filter (where p.n = p_limit) end)
    from page p left join governance.accounts a using (account_id));
end
$$;
comment on function public.console_bulk_act(bigint, text, bigint, int) is
  'A bulk act, and what came of it by user: waiting, done, refused (why), undone, or kept (could not be undone, why). '
  'Errors: invalid_argument, not_found.';
revoke all on function public.console_bulk_act(bigint, text, bigint, int) from public, anon, authenticated;
grant execute on function public.console_bulk_act(bigint, text, bigint, int) to service_role;

create function public.console_list_bulk_acts(p_before_id bigint default null, p_limit int default 50) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
begin
  perform governance.refuse_others('console_list_bulk_acts');
  perform governance.check_limit(p_limit, 200);
  return (
    with page as (
      select b as bulk, row_number() over (order by b.bulk_id desc) as n from governance.bulk_acts b
      where b.bulk_id < coalesce(p_before_id, 9223372036854775807) order by b.bulk_id desc limit p_limit + 1)
    select jsonb_build_object(
      'bulks', coalesce(jsonb_agg(governance.bulk_json(p.bulk) order by p.n) filter (where p.n <= p_limit), '[]'),
      'next_before_id', case when count(*) > p_limit then max((p.bulk).bulk_id) filter (where p.n = p_limit) end)
    from page p);
end
$$;
comment on function public.console_list_bulk_acts(bigint, int) is
  'Corrections of many users, newest first, with how far each is. Errors: invalid_argument.';
revoke all on function public.console_list_bulk_acts(bigint, int) from public, anon, authenticated;
grant execute on function public.console_list_bulk_acts(bigint, int) to service_role;

-- schemas/50_alerts.sql
-- Alerts: what can be watched, what is watched, and what was raised.

create function governance.alert_kinds()
  returns table (kind text, metric text, unit text, severity text, is_for_operators boolean,
    needs_operator boolean, title text, user_sentence text)
  language sql immutable set search_path = '' as $$
  -- A new kind: a line here, one in shared/governance/alerts/kinds.ts, and raise_alert where it is noticed.
  -- severity: as raised, where it does not depend on how much. is_for_operators: nobody asks for these alerts and no
  -- operator must miss them; users never see them. needs_operator: it is on the operators' list; the others are
  -- each user's own limits, which stand in the user's timeline and are counted. user_sentence:
  -- governance.alert_user_sentence fills it in; null for what is not said to users. Kinds of limits carry their
  -- percent: daily_limit_80.
  values
    ('budget', null, 'percent', null, false, true, 'Budget', null),
    ('user_budget', null, 'amount', 'warning', false, true, 'Budget of a user', 'You have used {value} in {period}.'),
    ('usage_spike', 'spike', 'tokens', 'info', false, true, 'Sudden use',
      'You used {value} tokens within an hour; {usual} is usual for you.'),
    ('low_balance', 'balance', 'tokens', 'warning', false, false, 'Balance is low', 'You have {value} tokens left.'),
    ('high_usage', 'operation_tokens', 'tokens', 'warning', false, false, 'High usage',
      'One of your requests used {value} tokens.'),
    ('negative_balance', 'debt', 'tokens', 'critical', false, false, 'Used beyond the balance',
      'Your last request used {value} tokens more than you had. The next tokens you get pay for them first.'),
    ('daily_limit', null, 'percent', null, false, false, 'Daily limit',
      'You have used {threshold} % of today''s tokens.'),
    ('monthly_limit', null, 'percent', null, false, false, 'Monthly limit',
      'You have used {threshold} % of this month''s tokens.'),
    ('allowance', null, 'percent', null, false, false, 'Allowance',
      'You have used {threshold} % of this month''s tokens.'),
    ('abuse_burst', null, 'none', 'critical', true, true, 'Burst of stopped calls', null),
    ('unknown_price', null, 'none', 'warning', true, true, 'Model without a price', null),
    ('unknown_zone', null, 'none', 'warning', true, true, 'Time zone not known', null),
    ('settlement_quarantined', null, 'tokens', 'critical', true, true, 'Settlement waits for a decision', null),
    ('rollup_mismatch', null, 'none', 'critical', true, true, 'Counters and roll-up differ', null),
    ('maintenance_failed', null, 'none', 'critical', true, true, 'Upkeep of one user failed', null),
    ('upkeep_failed', null, 'none', null, true, true, 'A step of upkeep failed', null),
    ('upkeep_late', null, 'none', 'critical', true, true, 'Upkeep was not run', null),
    ('doors_open', null, 'none', 'critical', true, true, 'Rights are open that should not be', null),
    ('webhook_quarantined', null, 'none', 'critical', true, true, 'Stripe event waits for a decision', null),
    ('event_quarantined', null, 'none', 'critical', true, true, 'Event waits for a decision', null),
    ('stripe_dispute', null, 'none', 'warning', true, true, 'Payment disputed', null)
$$;
comment on function governance.alert_kinds() is 'Every kind of alert there is; the core has the same list '
  '(shared/governance/alerts/kinds.ts), and a test compares them.';

create function governance.alert_metrics()
  returns table (place int, metric text, unit text, scopes text[], periods text[], has_budget boolean)
  language sql immutable set search_path = '' as $$
  -- The first scope and period are the defaults. Periods of budgets are made of the accounts' own days.
  values
    (1, 'cost_micros', 'micro-units of the currency', '{all,user,plan,scope,model}'::text[],
      '{month,day,week,year}'::text[], true),
    (2, 'tokens', 'tokens', '{all,user,plan,scope,model}', '{month,day,week,year}', true),
    (3, 'balance', 'tokens left', '{user}', '{day}', false),
    (4, 'operation_tokens', 'tokens of one call', '{user}', '{day}', false),
    (5, 'debt', 'tokens used beyond the balance', '{user}', '{day}', false),
    (6, 'spike', 'times the usual hour', '{user}', '{hour}', false)
$$;
comment on function governance.alert_metrics() is 'What an alert of a preset may watch: unit of its thresholds, whose, '
  'and over which period.';

create function governance.alert_kind(p_kind text) returns text
  language sql immutable set search_path = '' as $$
  select regexp_replace(p_kind, '^(daily_limit|monthly_limit|allowance)_\d+$', '\1')
$$;
comment on function governance.alert_kind(text) is 'The kind in governance.alert_kinds: daily_limit of daily_limit_80.';

create function governance.is_alert_kind(p_kind text) returns boolean
  language sql immutable set search_path = '' as $$
  select exists (select from governance.alert_kinds() k where k.kind = governance.alert_kind(p_kind))
$$;
comment on function governance.is_alert_kind(text) is 'The check of alert events.';

create function governance.needs_operator(p_kind text) returns boolean
  language sql immutable set search_path = '' as $$
  select coalesce((select k.needs_operator from governance.alert_kinds() k
    where k.kind = governance.alert_kind(p_kind)), true)
$$;
comment on function governance.needs_operator(text) is 'Whether alerts of a kind are on the operators'' list; the '
  'others are users'' own limits.';

create table governance.cost_alerts (
  alert_id bigint generated always as identity primary key,
  alert_name text not null unique,
  -- Metric, scope and period are of governance.alert_metrics.
  metric text not null,
  -- all, or user, plan:<id>, scope:<id>, model:<id>
  scope text not null default 'all',
  period text not null default 'month',
  -- Percents of the budget where there is one, else amounts of the metric.
  thresholds numeric[] not null,
  budget bigint check (budget > 0),
  channels text[] not null default '{}',
  is_active boolean not null default true,
  last_triggered_at timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  retired_at timestamptz
);

comment on table governance.cost_alerts is 'Alerts of the preset: what to watch, and the thresholds to raise at.';

create table governance.alert_events (
  alert_event_id bigint generated always as identity primary key,
  -- Null for what no alert of the preset asked for (low balance, large call, limit nearly used).
  alert_id bigint references governance.cost_alerts (alert_id),
  account_id bigint,
  kind text not null constraint alert_events_kind check (governance.is_alert_kind(kind)),
  severity text not null check (severity in ('info', 'warning', 'critical')),
  message text not null,
  threshold numeric,
  value numeric,
  -- The same matter is raised once a period: a day, a month, or whatever else the kind repeats by.
  period_key text not null default '',
  -- What it is about within the period: the limit or budget in force, a model, a time zone.
  subject text not null default '',
  details jsonb not null default '{}',
  created_at timestamptz not null default now(),
  acknowledged_at timestamptz,
  acknowledged_by text,
  -- What became of it, in the words of who resolved it.
  resolution text,
  -- Who sees to it.
  owner text,
  -- Off the list until then.
  snoozed_until timestamptz,
  -- When it was considered for notifications; null until then.
  considered_at timestamptz,
  needs_operator boolean not null generated always as (governance.needs_operator(kind)) stored
);

create unique index alert_events_once on governance.alert_events
  (kind, coalesce(alert_id, 0), coalesce(account_id, 0), coalesce(threshold, 0), period_key, subject)
  where period_key <> '';

create index alert_events_time on governance.alert_events (created_at desc);

create index alert_events_account on governance.alert_events (account_id, created_at desc) where account_id is not null;

comment on table governance.alert_events is 'Alerts that were raised.';

create index alert_events_new on governance.alert_events (alert_event_id) where considered_at is null;

create index alert_events_open on governance.alert_events (alert_event_id) include (created_at)
  where acknowledged_at is null;

create index alert_events_operators on governance.alert_events (alert_event_id)
  where acknowledged_at is null and needs_operator;

create function governance.alert_user_sentence(e governance.alert_events) returns text
  language sql immutable set search_path = '' as $$
  select coalesce((
    select replace(replace(replace(replace(k.user_sentence,
      '{value}', case when e.details ->> 'metric' = 'cost_micros'
        then to_char(e.value / 1000000, 'FM999,999,999,999,990.00') || ' ' || upper(e.details ->> 'currency')
        when e.details ->> 'metric' = 'tokens' then to_char(e.value, 'FM999,999,999,999,999,990') || ' tokens'
        else to_char(abs(e.value), 'FM999,999,999,999,999,990') end),
      '{threshold}', coalesce(to_char(e.threshold, 'FM999,999,999,999,999,990'), '')),
      '{usual}', coalesce(to_char((e.details ->> 'usual_tokens')::numeric, 'FM999,999,999,999,999,990'), '0')),
      '{period}', coalesce(e.period_key, ''))
    from governance.alert_kinds() k where k.kind = governance.alert_kind(e.kind)), e.message)
$$;
comment on function governance.alert_user_sentence(governance.alert_events) is
  'What the user whom an alert is about reads: the one place of these words.';

create function governance.check_alert(p_item jsonb, p_path text, p_plans jsonb) returns governance.cost_alerts
  language plpgsql set search_path = '' as $$
declare
  v_alert governance.cost_alerts;
  v_metric record;
  v_list jsonb;
begin
  v_alert.alert_name := p_item ->> 'alert_name';
  v_alert.metric := governance.preset_text(p_item, 'metric', p_path, null, 64);
  select * into v_metric from governance.alert_metrics() m where m.metric = v_alert.metric;
  if not found then
    perform governance.invalid_preset(p_path || '.metric', format('"%s" is no metric: %s are', v_alert.metric,
      (select string_agg(m.metric, ', ' order by m.place) from governance.alert_metrics() m)));
  end if;
  v_alert.scope := governance.preset_text(p_item, 'scope', p_path, v_metric.scopes[1]);
  if not split_part(v_alert.scope, ':', 1) = any (v_metric.scopes)
    or (v_alert.scope like '%:%') <> (split_part(v_alert.scope, ':', 1) in ('plan', 'scope', 'model'))
    or v_alert.scope like '%:' then
    perform governance.invalid_preset(p_path || '.scope', format('"%s" is no scope of %s: %s', v_alert.scope,
      v_alert.metric, (select string_agg(x || case when x in ('plan', 'scope', 'model') then ':<id>' else '' end, ', ')
        || case when cardinality(v_metric.scopes) > 1 then ' are' else ' is' end from unnest(v_metric.scopes) x)));
  end if;
  if v_alert.scope like 'plan:%' and not exists (
    select from jsonb_array_elements(p_plans) x where 'plan:' || (x ->> 'plan_id') = v_alert.scope) then
    perform governance.invalid_preset(p_path || '.scope', format('there is no plan "%s": %s', substr(v_alert.scope, 6),
      (select string_agg(x ->> 'plan_id', ', ') from jsonb_array_elements(p_plans) x)));
  end if;
  v_alert.period := governance.preset_text(p_item, 'period', p_path, v_metric.periods[1], 32);
  if not v_alert.period = any (v_metric.periods) then
    perform governance.invalid_preset(p_path || '.period', format('"%s" is no period of %s: %s', v_alert.period,
      v_alert.metric, array_to_string(v_metric.periods, ', ')
        || case when cardinality(v_metric.periods) > 1 then ' are' else ' is' end));
  end if;
  v_alert.budget := governance.preset_whole(p_item, 'budget', p_path, 1, 9007199254740991);
  if v_alert.budget is not null and not v_metric.has_budget then
    perform governance.invalid_preset(p_path || '.budget',
      format('%s has no budget: its thresholds are %s', v_alert.metric, v_metric.unit));
  end if;
  v_list := coalesce(nullif(p_item -> 'thresholds', 'null'), '[]');
  if jsonb_typeof(v_list) <> 'array' or jsonb_array_length(v_list) not between 1 and 20
    or exists (select from jsonb_array_elements(v_list) w where jsonb_typeof(w) <> 'number'
      or (w #>> '{}')::numeric <= 0 or (w #>> '{}')::numeric > 9007199254740991) then
    perform governance.invalid_preset(p_path || '.thresholds', format('a list of 1 to 20 numbers above 0 is needed: %s',
      case when v_alert.budget is not null then 'percents of the budget' else v_metric.unit end));
  end if;
  v_alert.thresholds := (select array_agg(distinct (w #>> '{}')::numeric order by (w #>> '{}')::numeric)
    from jsonb_array_elements(v_list) w);
  v_list := coalesce(nullif(p_item -> 'channels', 'null'), '[]');
  if jsonb_typeof(v_list) <> 'array' or exists (select from jsonb_array_elements(v_list) w
    where jsonb_typeof(w) <> 'string' or (w #>> '{}') !~ '^[a-z][a-z0-9_]{0,31}$') then
    perform governance.invalid_preset(p_path || '.channels', 'a list of channels such as email and slack is needed');
  end if;
  v_alert.channels := coalesce((select array_agg(w) from jsonb_array_elements_text(v_list) w), '{}');
  return v_alert;
end
$$;
comment on function governance.check_alert(jsonb, text, jsonb) is
  'An alert of a preset, if metric, scope and period are in governance.alert_metrics; else invalid_preset with the '
  'path and what is allowed.';

create function governance.count_open_alerts() returns bigint
  language sql stable set search_path = '' as $$
  select count(*) from (select from governance.alert_events e
    where e.acknowledged_at is null and e.created_at > governance.now() - governance.alert_retention() limit 10000) x
$$;
comment on function governance.count_open_alerts() is 'Alerts that are still shown (24 hours, or the setting '
  'alert_retention_hours) and that nobody has acknowledged.';

create function governance.count_operator_alerts() returns bigint
  language sql stable set search_path = '' as $$
  select count(*) from (select from governance.alert_events e
    where e.acknowledged_at is null and e.needs_operator
      and coalesce(e.snoozed_until <= governance.now(), true) limit 10000) x
$$;
comment on function governance.count_operator_alerts() is 'Alerts that wait for an operator: neither acknowledged nor '
  'snoozed, however old.';

create function governance.alert_retention() returns interval
  language sql stable set search_path = '' as $$
  select coalesce((select case
    when jsonb_typeof(s.value) = 'number' then least(greatest((s.value #>> '{}')::numeric, 1), 8784)::int end
    from governance.settings s where s.key = 'alert_retention_hours'), 24) * interval '1 hour'
$$;
comment on function governance.alert_retention() is 'How long an alert is shown: the setting alert_retention_hours; 24 '
  'by default.';

create function public.my_token_alerts() returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_account governance.accounts := governance.my_account();
begin
  return (
    select coalesce(jsonb_agg(jsonb_build_object('type', e.kind, 'severity', e.severity,
      'message', e.sentence,
      'details', e.details || jsonb_build_object('threshold', e.threshold, case e.kind when 'low_balance' then 'balance'
        else 'value' end, e.value),
      'created_at', e.created_at) order by e.created_at desc, e.alert_event_id desc), '[]')
    from (select x.*, governance.alert_user_sentence(x) as sentence from governance.alert_events x
      where x.account_id = v_account.account_id and not governance.is_for_operators(x.kind)
        and x.created_at > governance.now() - governance.alert_retention()
      order by x.created_at desc limit 100) e);
end
$$;
comment on function public.my_token_alerts() is
  'Alerts about the signed-in user that are still kept (24 hours, or the setting alert_retention_hours), newest first. '
  'Errors: not_signed_in, not_configured.';
revoke all on function public.my_token_alerts() from public, anon, authenticated;
grant execute on function public.my_token_alerts() to authenticated;

create function governance.raise_alert(
  p_alert_id bigint, p_account_id bigint, p_kind text, p_severity text, p_message text, p_threshold numeric,
  p_value numeric, p_period text, p_details jsonb, p_now timestamptz, p_subject text default ''
) returns int
  language plpgsql set search_path = '' as $$
begin
  insert into governance.alert_events (alert_id, account_id, kind, severity, message, threshold, value, period_key,
    subject, details, created_at)
  values (p_alert_id, p_account_id, p_kind, p_severity, p_message, p_threshold, p_value, p_period, p_subject,
    coalesce(p_details, '{}'), p_now)
  on conflict do nothing;
  if not found then return 0; end if;
  update governance.cost_alerts a set last_triggered_at = p_now where a.alert_id = p_alert_id;
  perform governance.ring('alerts', p_now);
  return 1;
end
$$;
comment on function governance.raise_alert(bigint, bigint, text, text, text, numeric, numeric, text, jsonb,
  timestamptz, text) is
  'Raises an alert, unless it was raised in this period about this subject already; answers how many were raised.';

create function governance.budget_period(p_period text, p_day date, out from_day date, out to_day date, out key text)
  language sql immutable set search_path = '' as $$
  select date_trunc(p_period, p_day::timestamp)::date,
    (date_trunc(p_period, p_day::timestamp) + ('1 ' || p_period)::interval)::date - 1,
    to_char(p_day, case p_period when 'week' then 'IYYY-"W"IW' when 'month' then 'YYYY-MM' when 'year' then 'YYYY'
      else 'YYYY-MM-DD' end)
$$;
comment on function governance.budget_period(text, date) is
  'First day, last day and name of the day, week (from Monday), month or year that holds a day.';

create function governance.open_periods(p_period text, p_since timestamptz, p_now timestamptz)
  returns table (from_day date, to_day date, key text)
  language sql stable set search_path = '' as $$
  select distinct p.from_day, p.to_day, p.key
  from generate_series(greatest(governance.first_open_day(p_since), governance.first_open_day(p_now) - 31)::timestamp,
    governance.last_open_day(p_now)::timestamp, interval '1 day') g(day)
  cross join lateral governance.budget_period(p_period, g.day::date) p
  order by p.from_day
$$;
comment on function governance.open_periods(text, timestamptz, timestamptz) is
  'Budget periods that usage may have been added to since a moment (at most a month back): at a change of month, the '
  'old one until it has ended everywhere, and the new one from its first beginning.';

create function governance.has_budget(p_metric text) returns boolean
  language sql immutable set search_path = '' as $$
  select coalesce((select m.has_budget from governance.alert_metrics() m where m.metric = p_metric), false)
$$;
comment on function governance.has_budget(text) is
  'Whether a metric is measured over the days of a period, with or without a budget; the others are noticed as they '
  'happen.';

create function governance.alert_value(p_alert governance.cost_alerts, p_from date, p_to date,
  p_account_id bigint default null) returns numeric
  language plpgsql stable set search_path = '' as $$
declare
  v_kind text := split_part(p_alert.scope, ':', 1);
  v_id text := substr(p_alert.scope, length(split_part(p_alert.scope, ':', 1)) + 2);
  v_tokens numeric;
  v_cost_micros numeric;
begin
  if v_kind = 'user' then
    select sum(d.charged_tokens), sum(d.cost_micros) into v_tokens, v_cost_micros
    from governance.usage_daily d
    where d.account_id = p_account_id and d.day between p_from and p_to;
  elsif v_kind = 'plan' then
    select sum(d.charged_tokens), sum(d.cost_micros) into v_tokens, v_cost_micros
    from governance.usage_daily d join governance.accounts a using (account_id)
    where d.day between p_from and p_to and a.plan_id = v_id;
  else
    select sum(u.tokens), sum(u.cost_micros) into v_tokens, v_cost_micros from (
      select sum(t.charged_tokens) as tokens, sum(t.cost_micros) as cost_micros
      from governance.usage_totals t join governance.usage_days x using (day)
      where t.day between p_from and p_to
        and (v_kind not in ('scope', 'model') or v_id = case v_kind when 'scope' then t.scope_id else t.model end)
      union all
      select sum(d.charged_tokens), sum(d.cost_micros)
      from governance.usage_daily d
      where d.day in (select g::date from generate_series(p_from, p_to, interval '1 day') g
          where not exists (select from governance.usage_days x where x.day = g::date))
        and (v_kind not in ('scope', 'model') or v_id = case v_kind when 'scope' then d.scope_id else d.model end)) u;
  end if;
  return coalesce(case p_alert.metric when 'tokens' then v_tokens when 'cost_micros' then v_cost_micros end, 0);
end
$$;
comment on function governance.alert_value(governance.cost_alerts, date, date, bigint) is
  'What a budget measures (tokens, or cost in micro-units) of its scope on these days: all, plan:x, scope:x, model:x, '
  'or one account for the scope user. A plan''s is that of the accounts that have it now.';

create function governance.raise_unknown_price(p_model text, p_now timestamptz) returns void
  language plpgsql set search_path = '' as $$
declare
  v_month text := to_char(p_now at time zone 'UTC', 'YYYY-MM');
begin
  -- Look first: two inserts of the same key would wait for each other.
  if exists (select from governance.alert_events e
    where e.kind = 'unknown_price' and e.period_key = v_month and e.subject = p_model) then return; end if;
  perform governance.raise_alert(null, null, 'unknown_price', 'warning',
    format('Model %s has no price: its calls cost nothing in every figure. Add its price to the preset',
      left(p_model, 200)), null, null, v_month, jsonb_build_object('model', p_model), p_now, p_model);
end
$$;
comment on function governance.raise_unknown_price(text, timestamptz) is
  'Tells operators of a model without a price, once a month of UTC.';

create function governance.is_for_operators(p_kind text) returns boolean
  language sql immutable set search_path = '' as $$
  select coalesce((select k.is_for_operators from governance.alert_kinds() k
    where k.kind = governance.alert_kind(p_kind)), true)
$$;
comment on function governance.is_for_operators(text) is 'Alerts that nobody asked for and no operator must miss; they '
  'are none of the business of the user whom they are about.';

-- schemas/51_notifications.sql
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
      where v_event.alert_id is null and v_event.kind ~ '^(daily_limit|monthly_limit|allowance)_\d+$'
      union
      select w, 'operators' from unnest(v_operator_channels) w
      where v_event.alert_id is null and governance.is_for_operators(v_event.kind)
    ) t
    left join governance.accounts a on a.account_id = v_event.account_id
    cross join lateral (select case t.audience when 'user' then governance.alert_user_sentence(v_event)
      else v_event.message end as words) w
    where t.channel ~ '^[a-z][a-z0-9_]{0,31}$'
      -- Not to users without an address, or who opted out.
      and (t.audience = 'operators' or (a.email is not null and a.email <> ''
        and coalesce(a.metadata -> 'notifications' -> t.channel, 'true') <> 'false'));
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
  'Queues the messages that new alerts give cause for; answers how many. A user opts out with metadata '
  '{"notifications": {"email": false}}. Operators'' addresses are the setting operator_emails; operator_channels says '
    'how they hear of what no alert of the preset names.';

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
    'subject', t.subject, 'body', t.body, 'payload', t.payload, 'attempts', t.attempts, 'created_at', t.created_at)
      order by t.notification_id), '[]')
  into v_answer from taken t;
  return v_answer;
end
$$;
comment on function public.claim_notifications(int, text, int) is
  'Takes messages to send; what is not finished within the lease comes again. recipients are addresses: the user''s, '
    'or operators'' (the setting operator_emails). Errors: invalid_argument.';
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

-- schemas/52_alert_evaluation.sql
-- When alerts are due: at a settlement, and at each round of upkeep.

create function governance.settlement_alerts(
  p_account_id bigint, p_now timestamptz, p_charged bigint, p_debt bigint, p_free_before bigint, p_free_after bigint,
  p_low bigint, p_high bigint, p_daily_limit bigint, p_day_before bigint, p_monthly_limit bigint,
  p_month_before bigint, p_warn_at int[], p_day date, p_details jsonb
) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_alerts jsonb := '[]';
  v_threshold numeric;
  v_percent int;
  v_limit record;
begin
  if p_debt > 0 then
    v_alerts := v_alerts || jsonb_build_object('type', 'negative_balance', 'severity', 'critical',
      'message', format('%s tokens were used beyond the balance', p_debt), 'threshold', 0, 'value', -p_debt,
      'period', '', 'subject', '');
  end if;
  -- Thresholds are the setting and those of the preset's alerts; the lowest that was passed is raised.
  select min(t) into v_threshold from (select p_low as t union select unnest(k.thresholds)
    from governance.cost_alerts k where k.metric = 'balance' and k.is_active) x
  where p_free_before >= t and p_free_after < t;
  if v_threshold is not null then
    v_alerts := v_alerts || jsonb_build_object('type', 'low_balance', 'severity', 'warning',
      'message', 'User token balance is low', 'threshold', v_threshold, 'value', p_free_after, 'period', '',
      'subject', '');
  end if;
  select max(t) into v_threshold from (select p_high as t union select unnest(k.thresholds)
    from governance.cost_alerts k where k.metric = 'operation_tokens' and k.is_active) x where p_charged > t;
  if v_threshold is not null then
    v_alerts := v_alerts || jsonb_build_object('type', 'high_usage', 'severity', 'warning',
      'message', format('One operation used %s tokens', p_charged), 'threshold', v_threshold, 'value', p_charged,
      'period', p_day::text, 'subject', '');
  end if;
  for v_limit in
    select * from (values ('daily_limit', p_daily_limit, p_day_before, p_day::text),
      ('monthly_limit', p_monthly_limit, p_month_before, to_char(p_day, 'YYYY-MM'))) x(kind, most, before, period)
    where most > 0
  loop
    select max(w) into v_percent from unnest(p_warn_at) w
    where (v_limit.before + p_charged)::numeric * 100 >= v_limit.most::numeric * w
      and v_limit.before::numeric * 100 < v_limit.most::numeric * w;
    if v_percent is not null then
      -- Another limit, as after an upgrade, warns anew.
      v_alerts := v_alerts || jsonb_build_object('type', v_limit.kind || '_' || v_percent,
        'severity', case when v_percent >= 95 then 'critical' else 'warning' end,
        'message', format('%s%% of the %s limit is used', v_percent, replace(v_limit.kind, '_limit', '')),
        'threshold', v_percent, 'value', div((v_limit.before + p_charged)::numeric * 100, v_limit.most),
        'period', v_limit.period, 'subject', v_limit.most::text);
    end if;
  end loop;
  insert into governance.alert_events (account_id, kind, severity, message, threshold, value, period_key, subject,
    details, created_at)
  select p_account_id, x ->> 'type', x ->> 'severity', x ->> 'message', (x ->> 'threshold')::numeric,
    (x ->> 'value')::numeric, x ->> 'period', x ->> 'subject', p_details, p_now
  from jsonb_array_elements(v_alerts) x
  where x ->> 'type' <> 'high_usage'
  on conflict do nothing;
  if v_alerts <> '[]' then
    perform governance.ring('alerts', p_now);
  end if;
  perform governance.raise_large_call(p_account_id, (x ->> 'threshold')::numeric, p_charged, x ->> 'message', p_day,
    p_details, p_now)
  from jsonb_array_elements(v_alerts) x where x ->> 'type' = 'high_usage';
  return (select coalesce(jsonb_agg(jsonb_build_object('type', x -> 'type', 'severity', x -> 'severity', 'message',
    x -> 'message',
    'details', jsonb_build_object(case when x ->> 'type' = 'low_balance' then 'balance'
      else 'value' end, x -> 'value', 'threshold', x -> 'threshold'))), '[]')
    from jsonb_array_elements(v_alerts) x);
end
$$;
comment on function governance.settlement_alerts(bigint, timestamptz, bigint, bigint, bigint, bigint, bigint, bigint,
  bigint, bigint, bigint, bigint, int[], date, jsonb) is
  'Alerts that a settlement gives cause for, recorded and answered.';

create function governance.raise_large_call(p_account_id bigint, p_threshold numeric, p_tokens bigint, p_message text,
  p_day date, p_details jsonb, p_now timestamptz) returns void
  language plpgsql set search_path = '' as $$
declare
  v_largest governance.alert_events;
begin
  select * into v_largest from governance.alert_events e
  where e.account_id = p_account_id and e.kind = 'high_usage' and e.period_key = p_day::text
  order by e.value desc limit 1;
  if v_largest.alert_event_id is null or v_largest.threshold < p_threshold or v_largest.value * 2 <= p_tokens then
    perform governance.raise_alert(null, p_account_id, 'high_usage', 'warning', p_message, p_threshold, p_tokens,
      p_day::text, p_details, p_now, case when v_largest.threshold = p_threshold then p_tokens::text else '' end);
  elsif v_largest.value < p_tokens then
    -- The day's largest call is the one to look at.
    update governance.alert_events e set message = p_message, value = p_tokens, details = p_details
    where e.alert_event_id = v_largest.alert_event_id;
  end if;
end
$$;
comment on function governance.raise_large_call(bigint, numeric, bigint, text, date, jsonb, timestamptz) is
  'A large call is raised once a day and threshold, and again when one is at least twice as large; a larger one in '
  'between takes the place of the last in its alert.';

create function governance.evaluate_budget(p_alert governance.cost_alerts, p_since timestamptz, p_now timestamptz)
  returns int
  language plpgsql set search_path = '' as $$
declare
  v_period record;
  v_value numeric;
  v_reached numeric;
  v_percent bigint;
  v_raised int := 0;
begin
  for v_period in select * from governance.open_periods(p_alert.period, p_since, p_now) loop
    v_value := governance.alert_value(p_alert, v_period.from_day, v_period.to_day);
    v_percent := case when p_alert.budget is not null then div(v_value * 100, p_alert.budget) end;
    select max(t) into v_reached from unnest(p_alert.thresholds) t
    where case when p_alert.budget is not null then v_value * 100 >= t * p_alert.budget else v_value >= t end;
    -- Only the highest threshold reached is raised.
    continue when v_reached is null or exists (
      select from governance.alert_events e where e.alert_id = p_alert.alert_id and e.period_key = v_period.key
        and e.subject = coalesce(p_alert.budget::text, '') and e.threshold >= v_reached);
    v_raised := v_raised + governance.raise_alert(p_alert.alert_id, null, 'budget',
      case when p_alert.budget is not null and v_reached >= 90 then 'critical' else 'warning' end,
      case when p_alert.budget is not null
        then format('%s: %s%% of the budget for %s is used', p_alert.alert_name, v_percent, v_period.key)
        else format('%s: %s of %s in %s', p_alert.alert_name, v_value, p_alert.metric, v_period.key) end,
      v_reached, coalesce(v_percent, v_value), v_period.key,
      jsonb_build_object('alert_name', p_alert.alert_name, 'metric', p_alert.metric, 'scope', p_alert.scope,
        'period', p_alert.period, 'amount', v_value, 'budget', p_alert.budget,
        'currency', (select c.currency from governance.active_config c)),
      p_now, coalesce(p_alert.budget::text, ''));
  end loop;
  return v_raised;
end
$$;
comment on function governance.evaluate_budget(governance.cost_alerts, timestamptz, timestamptz) is
  'Raises what is due of a budget over many users, for every period that was open since the last look.';

create function governance.usage_not_followed() returns table (account_id bigint, slot timestamptz, tokens bigint)
  language sql stable set search_path = '' as $$
  select t.account_id, date_bin('5 minutes', t.created_at, '2000-01-01'), coalesce(r.charged_tokens, -t.amount)
  from governance.token_transactions t
  left join lateral (select q.charged_tokens from governance.requests q
    where q.decision_id = t.decision_id limit 1) r on true
  where t.transaction_type = 'usage'
    and t.transaction_id > (select (s.value ->> 'consumed')::bigint from governance.maintenance_state s
      where s.key = 'followed_events')
  order by t.transaction_id limit 20000
$$;
comment on function governance.usage_not_followed() is
  'Usage that is committed and that listings and recent_usage do not have yet.';

create function governance.active_accounts(p_since timestamptz) returns setof bigint
  language sql stable set search_path = '' as $$
  select l.account_id from governance.account_listings l where l.last_activity_at > p_since
  union
  select u.account_id from governance.usage_not_followed() u
$$;
comment on function governance.active_accounts(timestamptz) is 'Accounts that were active after a moment, or just now.';

create function governance.evaluate_user_budget(p_alert governance.cost_alerts, p_since timestamptz,
  p_now timestamptz, p_limit int) returns int
  language plpgsql set search_path = '' as $$
declare
  v_row record;
  v_raised int := 0;
begin
  for v_row in
    select a.account_id, a.user_id, p.key, u.value, r.reached
    from governance.active_accounts(p_since) l(account_id)
    join governance.accounts a using (account_id)
    cross join governance.open_periods(p_alert.period, p_since, p_now) p
    cross join lateral (
      select governance.alert_value(p_alert, p.from_day, p.to_day, a.account_id) as value) u
    cross join lateral (select max(t) as reached from unnest(p_alert.thresholds) t
      where case when p_alert.budget is not null then u.value * 100 >= t * p_alert.budget else u.value >= t end) r
    where r.reached is not null and not exists (
      select from governance.alert_events e where e.alert_id = p_alert.alert_id and e.account_id = a.account_id
        and e.period_key = p.key and e.subject = coalesce(p_alert.budget::text, '') and e.threshold >= r.reached)
    limit p_limit
  loop
    v_raised := v_raised + governance.raise_alert(p_alert.alert_id, v_row.account_id, 'user_budget', 'warning',
      format('%s: %s has used %s (%s) in %s', p_alert.alert_name, v_row.user_id, v_row.value, p_alert.metric,
        v_row.key),
      v_row.reached, v_row.value, v_row.key,
      jsonb_build_object('alert_name', p_alert.alert_name, 'metric', p_alert.metric, 'budget', p_alert.budget,
        'currency', (select c.currency from governance.active_config c)),
      p_now, coalesce(p_alert.budget::text, ''));
  end loop;
  return v_raised;
end
$$;
comment on function governance.evaluate_user_budget(governance.cost_alerts, timestamptz, timestamptz, int) is
  'Raises what is due of a budget that each user has, for users active since the last look; at most p_limit.';

create function governance.evaluate_spikes(p_alert governance.cost_alerts, p_now timestamptz, p_limit int) returns int
  language plpgsql set search_path = '' as $$
declare
  v_row record;
  v_raised int := 0;
begin
  for v_row in
    with recent as (
      -- Tokens that a spike was raised for do not count for another.
      select r.account_id, r.slot, r.tokens, (select max((e.details ->> 'counted_to')::timestamptz)
        from governance.alert_events e where e.alert_id = p_alert.alert_id and e.account_id = r.account_id
          and e.created_at > p_now - interval '2 hours') as raised_to
      from (select u.account_id, u.slot, u.tokens from governance.recent_usage u
        union all select * from governance.usage_not_followed()) r
      where r.slot > p_now - interval '25 hours'
    ), hours as (
      select r.account_id, max(r.slot) as counted_to,
        sum(r.tokens) filter (where r.slot > greatest(p_now - interval '1 hour', r.raised_to)) as hour_tokens,
        coalesce(sum(r.tokens) filter (where r.slot <= p_now - interval '1 hour'), 0) / 24 as usual
      from recent r group by 1
    )
    select h.account_id, a.user_id, h.counted_to, h.hour_tokens, h.usual,
      (select max(t) from unnest(p_alert.thresholds) t where h.hour_tokens >= t * greatest(h.usual, 1)) as reached
    from hours h join governance.accounts a using (account_id)
    -- So many times the usual hour of the day before, and enough to matter.
    where h.hour_tokens > (select c.high_usage_tokens from governance.active_config c)
      and h.hour_tokens >= p_alert.thresholds[1] * greatest(h.usual, 1)
    order by h.hour_tokens desc limit p_limit
  loop
    v_raised := v_raised + governance.raise_alert(p_alert.alert_id, v_row.account_id, 'usage_spike', 'info',
      format('%s used %s tokens in an hour; %s is usual', v_row.user_id, v_row.hour_tokens, round(v_row.usual)),
      v_row.reached, v_row.hour_tokens, to_char(v_row.counted_to at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI'),
      jsonb_build_object('alert_name', p_alert.alert_name, 'usual_tokens', round(v_row.usual),
        'counted_to', v_row.counted_to), p_now);
  end loop;
  return v_raised;
end
$$;
comment on function governance.evaluate_spikes(governance.cost_alerts, timestamptz, int) is
  'Raises an alert for users whose last hour is so many times their usual hour; each token counts for one spike only.';

create function governance.warn_of_allowances(p_since timestamptz, p_now timestamptz, p_limit int) returns int
  language plpgsql set search_path = '' as $$
declare
  v_row record;
  v_raised int := 0;
begin
  for v_row in
    select x.* from (
      select a.account_id, a.local_month, u.percent as usage_percent, p.monthly_allowance::text as allowance,
        (select max(w) from unnest(p.warn_at) w where w <= u.percent) as reached
      from governance.active_accounts(p_since) l(account_id)
      join governance.accounts a using (account_id)
      join governance.plans p on p.plan_id = a.plan_id
      cross join lateral governance.percent_used(a.day_tokens + a.reserved_tokens, a.month_tokens + a.reserved_tokens,
        null, null, p.monthly_allowance) u(percent)
      where p.daily_limit is null and p.monthly_limit is null and a.month_ends_at > p_now) x
    where x.reached is not null and not exists (select from governance.alert_events e
      where e.account_id = x.account_id and e.period_key = to_char(x.local_month, 'YYYY-MM')
        and e.subject = x.allowance and e.kind like 'allowance\_%' and e.threshold >= x.reached)
    limit p_limit
  loop
    v_raised := v_raised + governance.raise_alert(null, v_row.account_id, 'allowance_' || v_row.reached,
      case when v_row.reached >= 95 then 'critical' else 'warning' end,
      format('%s%% of the month''s tokens are used', v_row.reached), v_row.reached, v_row.usage_percent,
      to_char(v_row.local_month, 'YYYY-MM'), '{}', p_now, v_row.allowance);
  end loop;
  return v_raised;
end
$$;
comment on function governance.warn_of_allowances(timestamptz, timestamptz, int) is
  'Where no limit warns, the allowance does: each percent of a plan once a month and allowance; at most p_limit.';

create function governance.evaluate_abuse_burst(p_now timestamptz) returns int
  language plpgsql set search_path = '' as $$
declare
  -- What tokens and operators stop is no abuse, however much of it there is.
  c_ordinary constant text[] := '{insufficient_tokens,daily_limit,monthly_limit,budget_exhausted,user_blocked,
    unknown_user,plan_required}';
  v_now bigint;
  v_usual numeric;
  v_reason text;
  v_least bigint := coalesce((select (s.value #>> '{}')::numeric::bigint from governance.settings s
    where s.key = 'abuse_burst_calls' and jsonb_typeof(s.value) = 'number'), 100);
  v_users bigint;
begin
  select coalesce(sum(m.calls) filter (where m.minute > p_now - interval '10 minutes'), 0),
    coalesce(sum(m.calls) filter (where m.minute <= p_now - interval '10 minutes'), 0) / 144.0
  into v_now, v_usual from governance.minute_totals m
  where m.minute > p_now - interval '1 day' and m.outcome = 'block' and m.reason <> all (c_ordinary);
  if v_now < v_least or v_now < 5 * v_usual then return 0; end if;
  select m.reason into v_reason from governance.minute_totals m
  where m.minute > p_now - interval '10 minutes' and m.outcome = 'block' and m.reason <> all (c_ordinary)
  group by 1 order by sum(m.calls) desc, 1 limit 1;
  select count(distinct x.account_id) into v_users from (select r.account_id from governance.requests r
    where r.decision = 'block' and r.created_at > p_now - interval '10 minutes'
      and r.reason <> all (c_ordinary) limit 10000) x;
  return governance.raise_alert(null, null, 'abuse_burst', 'critical',
    format('Rules stopped %s calls of %s users within ten minutes, mostly for %s; %s is usual', v_now, v_users,
      replace(v_reason, '_', ' '), round(v_usual)), v_least, v_now,
    to_char(p_now at time zone 'UTC', 'YYYY-MM-DD"T"HH24'),
    jsonb_build_object('reason', v_reason, 'users', v_users, 'usual_calls', round(v_usual)), p_now);
end
$$;
comment on function governance.evaluate_abuse_burst(timestamptz) is
  'Raises abuse_burst, once an hour, when rules stop at least so many calls within ten minutes (the setting '
  'abuse_burst_calls, 100 by default) and five times the usual of the day before.';

create function governance.evaluate_alerts(p_now timestamptz, p_limit int default 5000) returns int
  language plpgsql set search_path = '' as $$
declare
  v_alert governance.cost_alerts;
  v_found int;
  v_raised int := 0;
  v_is_all boolean := true;
  v_state jsonb;
  v_since timestamptz;
begin
  if not pg_try_advisory_xact_lock(7254015) then return 0; end if;
  -- Only accounts active since the last complete look can have reached a threshold; listings lag a little behind.
  select s.value into v_state from governance.maintenance_state s where s.key = 'allowance_warnings';
  v_since := least(coalesce((v_state ->> 'since')::timestamptz, (v_state ->> 'at')::timestamptz,
    '-infinity') - interval '2 minutes', p_now - interval '10 minutes');
  for v_alert in select * from governance.cost_alerts a where a.is_active and a.retired_at is null
    order by a.alert_id loop
    -- The others are noticed by the settlement itself (governance.settlement_alerts).
    continue when v_alert.metric <> 'spike' and not governance.has_budget(v_alert.metric);
    v_found := case
      when v_alert.metric = 'spike' then governance.evaluate_spikes(v_alert, p_now, p_limit)
      when v_alert.scope = 'user' then governance.evaluate_user_budget(v_alert, v_since, p_now, p_limit)
      else governance.evaluate_budget(v_alert, v_since, p_now) end;
    v_is_all := v_is_all and v_found < p_limit;
    v_raised := v_raised + v_found;
  end loop;
  v_raised := v_raised + governance.evaluate_abuse_burst(p_now);
  v_found := governance.warn_of_allowances(v_since, p_now, p_limit);
  v_is_all := v_is_all and v_found < p_limit;
  v_raised := v_raised + v_found;
  -- What was raised is not raised again, so the next round finds the rest.
  insert into governance.maintenance_state as s (key, value)
  values ('allowance_warnings',
    jsonb_build_object('at', p_now, 'since', case when v_is_all then p_now else v_since end))
  on conflict (key) do update set value = excluded.value, updated_at = clock_timestamp();
  return v_raised;
end
$$;
comment on function governance.evaluate_alerts(timestamptz, int) is
  'Raises the alerts that are due: budgets, spikes, allowances nearly used; at most so many of a kind in a round, the '
  'rest in the next. Answers how many.';

-- schemas/53_alert_desk.sql
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

create function public.console_cost_alerts() returns jsonb
  language sql stable security definer set search_path = '' set jit = off as $$
  select governance.refuse_others('console_cost_alerts');
  select coalesce(jsonb_agg(jsonb_build_object('alert_name', k.alert_name, 'metric', k.metric, 'scope', k.scope,
    'period', k.period, 'budget', k.budget,
      'thresholds', k.thresholds, 'channels', k.channels, 'is_active', k.is_active, 'last_triggered_at',
        k.last_triggered_at,
      'value', v.value, 'percent', case when k.budget is not null then div(v.value * 100, k.budget) end,
      'currency', c.currency) order by k.alert_name), '[]')
  from governance.cost_alerts k
  cross join governance.active_config c
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

create function public.console_alerts(
  p_before_id bigint default null, p_limit int default 50, p_open_only boolean default false,
    p_undelivered_only boolean default false, p_filter jsonb default '{}'
) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
declare
  v_now timestamptz := governance.now();
  v_since timestamptz := case when p_open_only then v_now - governance.alert_retention() else '-infinity' end;
begin
  perform governance.refuse_others('console_alerts');
  perform governance.check_limit(p_limit, 500);
  perform governance.check_alert_filter(p_filter);
  return (
    with page as (
      select e.*, row_number() over (order by e.alert_event_id desc) as n from (
        select * from governance.alert_events x
        where x.alert_event_id < coalesce(p_before_id, 9223372036854775807)
          and (p_open_only is not true or (x.acknowledged_at is null
            and (x.created_at > v_since or x.needs_operator)))
          and (p_filter ->> 'kind' is null or governance.alert_kind(x.kind) = p_filter ->> 'kind')
          and (p_filter ->> 'severity' is null or x.severity = p_filter ->> 'severity')
          and (p_filter ->> 'needs_operator' is null or x.needs_operator = (p_filter ->> 'needs_operator')::boolean)
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
  'up, alone; p_filter narrows them by kind, severity, needs_operator and after_id. Errors: invalid_argument.';
revoke all on function public.console_alerts(bigint, int, boolean, boolean, jsonb) from public, anon, authenticated;
grant execute on function public.console_alerts(bigint, int, boolean, boolean, jsonb) to service_role;

-- schemas/60_stripe_objects.sql
-- Reading Stripe's JSON.

create function governance.stripe_id(p_value jsonb) returns text
  language plpgsql immutable set search_path = '' as $$
declare
  v_id text;
begin
  if jsonb_typeof(p_value) = 'string' then
    v_id := p_value #>> '{}';
  elsif jsonb_typeof(p_value) = 'object' then
    v_id := p_value ->> 'id';
  end if;
  if length(v_id) between 1 and 255 then return v_id; end if;
  return null;
end
$$;
comment on function governance.stripe_id(jsonb) is 'An id, also out of an expanded object; null for anything else.';

create function governance.stripe_whole(p_value jsonb) returns bigint
  language plpgsql immutable set search_path = '' as $$
declare
  v_number numeric;
begin
  if jsonb_typeof(p_value) = 'number' then
    v_number := p_value::numeric;
    if scale(v_number) = 0 and v_number between -9007199254740991 and 9007199254740991 then return v_number; end if;
  end if;
  return null;
end
$$;
comment on function governance.stripe_whole(jsonb) is 'A whole number below 2^53 in size; null for anything else.';

create function governance.stripe_time(p_value jsonb) returns timestamptz
  language plpgsql immutable set search_path = '' as $$
begin
  -- Between two numbers there are only numbers, whatever else a JSON value may be.
  return case when p_value between '0' and '253402300799' then to_timestamp(p_value::double precision) end;
end
$$;
comment on function governance.stripe_time(jsonb) is 'Seconds since 1970 as a moment; null for anything else.';

create function governance.stripe_object(p_value jsonb) returns jsonb
  language sql immutable set search_path = '' as $$
  select case when jsonb_typeof(p_value) = 'object' then p_value else '{}' end
$$;
comment on function governance.stripe_object(jsonb) is 'The object, or an empty one.';

create function governance.stripe_list(p_value jsonb) returns jsonb
  language sql immutable set search_path = '' as $$
  select case when jsonb_typeof(p_value -> 'data') = 'array' then p_value -> 'data'
    when jsonb_typeof(p_value) = 'array' then p_value else '[]' end
$$;
comment on function governance.stripe_list(jsonb) is 'The items of a Stripe list, or none.';

create function governance.stripe_currency(p_value jsonb) returns text
  language sql immutable set search_path = '' as $$
  select case when jsonb_typeof(p_value) = 'string' and p_value #>> '{}' ~ '^[A-Za-z]{3}$' then lower(p_value #>> '{}')
    end
$$;
comment on function governance.stripe_currency(jsonb) is 'A currency code in lower case; null for anything else.';

create function governance.metadata_text(p_metadata jsonb, variadic p_keys text[]) returns text
  language plpgsql immutable set search_path = '' as $$
declare
  v_key text;
  v_found text;
begin
  foreach v_key in array p_keys loop
    v_found := btrim(p_metadata ->> v_key);
    if v_found <> '' then
      if length(v_found) <= 255 then return v_found; end if;
      return null;
    end if;
  end loop;
  return null;
end
$$;
comment on function governance.metadata_text(jsonb, text[]) is 'The first of these metadata keys that is filled.';

create function governance.is_token_order(p_metadata jsonb) returns boolean
  language sql immutable set search_path = '' as $$
  -- Filled at all is enough: what is too long to be a pack is for a person, not to be passed over.
  select btrim(concat(p_metadata ->> 'pack_id', p_metadata ->> 'packId', p_metadata ->> 'packid',
    p_metadata ->> 'tokens')) <> ''
    or coalesce(p_metadata ->> 'type', '') in ('token_pack_purchase', 'token_purchase')
$$;
comment on function governance.is_token_order(jsonb) is 'Whether an order is for tokens at all: a project sells other '
  'things too.';

create function governance.lock_stripe_ids(p_one text, p_two text default null, p_three text default null,
  p_four text default null) returns void
  language plpgsql set search_path = '' as $$
declare
  v_first bigint := hashtextextended(coalesce(p_one, p_two, p_three, p_four), 7255);
  v_last bigint := hashtextextended(coalesce(p_four, p_three, p_two, p_one), 7255);
begin
  -- In one order for everybody, and before any account's lock.
  if num_nonnulls(p_one, p_two, p_three, p_four) < 3 then
    perform pg_advisory_xact_lock(least(v_first, v_last)), pg_advisory_xact_lock(greatest(v_first, v_last));
  else
    perform pg_advisory_xact_lock(k.key)
    from (select distinct hashtextextended(i.id, 7255) as key from unnest(array[p_one, p_two, p_three, p_four]) i(id)
      where i.id is not null order by 1) k;
  end if;
end
$$;
comment on function governance.lock_stripe_ids(text, text, text,
  text) is 'Lets one transaction at a time work on what these ids of Stripe''s name.';

-- schemas/61_payments.sql
-- Payments, refunds and disputes, and the tokens that follow them.

create table governance.stripe_payments (
  payment_id bigint generated always as identity primary key,
  account_id bigint,
  -- Any of Stripe's names for the payment finds it; a payment that came by two of them is merged into one row.
  payment_intent_id text,
  charge_id text,
  checkout_session_id text,
  invoice_id text,
  customer_id text,
  subscription_id text,
  order_id text,
  livemode boolean,
  -- What was paid, once tokens were granted for it.
  amount_minor bigint,
  currency text,
  paid_at timestamptz,
  -- Largest cumulative figure that a charge told.
  refunded_minor bigint not null default 0,
  refunded_at timestamptz,
  -- Set by a posted correction: counts until a newer refund is told.
  refunded_override_minor bigint,
  refunded_override_at timestamptz,
  created_at timestamptz not null
) with (fillfactor = 80);

-- Also found by the beginning of an id, as it stands in a mail or a ticket.
create unique index stripe_payments_intent on governance.stripe_payments (payment_intent_id text_pattern_ops)
  where payment_intent_id is not null;

create unique index stripe_payments_charge on governance.stripe_payments (charge_id text_pattern_ops)
  where charge_id is not null;

create unique index stripe_payments_session on governance.stripe_payments (checkout_session_id)
  where checkout_session_id is not null;

create unique index stripe_payments_invoice on governance.stripe_payments (invoice_id) where invoice_id is not null;

create index stripe_payments_order on governance.stripe_payments (order_id) where order_id is not null;

create index stripe_payments_account on governance.stripe_payments (account_id, payment_id)
  where account_id is not null;

comment on table governance.stripe_payments is 'Payments at Stripe and what is known of them.';

create table governance.stripe_payment_names (
  -- Mostly a PaymentIntent or a charge.
  name text primary key,
  payment_id bigint not null,
  -- Of a charge: largest cumulative refund that it told.
  refunded_minor bigint not null default 0
);

create index stripe_payment_names_payment on governance.stripe_payment_names (payment_id);

comment on table governance.stripe_payment_names is
  'Further names of a payment: an invoice may be paid in several parts, each with a PaymentIntent and a charge.';

create table governance.stripe_merged_payments (
  payment_id bigint primary key,
  merged_into bigint not null
);

create index stripe_merged_payments_into on governance.stripe_merged_payments (merged_into);

comment on table governance.stripe_merged_payments is
  'Payments that turned out to be another one: records, which are never changed, still name them.';

create table governance.stripe_invoice_numbers (
  invoice_id text primary key,
  -- What stands on the invoice, and so in a user's mail.
  number text not null
);

create index stripe_invoice_numbers_number on governance.stripe_invoice_numbers (number);

comment on table governance.stripe_invoice_numbers is 'Numbers of invoices that were paid, in capital letters.';

create table governance.stripe_refunds (
  refund_id text primary key,
  payment_id bigint not null references governance.stripe_payments (payment_id),
  amount_minor bigint not null check (amount_minor >= 0),
  -- 1 pending, 2 succeeded, 3 failed or canceled: it only rises.
  state smallint not null,
  told_at timestamptz not null
);

create index stripe_refunds_payment on governance.stripe_refunds (payment_id);

comment on table governance.stripe_refunds is 'Refunds by id.';

create table governance.stripe_disputes (
  dispute_id text primary key,
  payment_id bigint not null references governance.stripe_payments (payment_id),
  amount_minor bigint not null check (amount_minor >= 0),
  currency text,
  status text not null,
  -- 1 inquiry, 2 open, 3 decided: it only rises; of two decisions the later stands.
  stage smallint not null,
  is_lost boolean not null default false,
  -- The money came back before the decision.
  is_reinstated boolean not null default false,
  told_at timestamptz not null
);

create index stripe_disputes_payment on governance.stripe_disputes (payment_id);

comment on table governance.stripe_disputes is 'Disputes by id.';

create table governance.stripe_lots (
  lot_id bigint primary key,
  payment_id bigint not null,
  -- Tokens that the payment bought, corrections included: what refunds are in proportion to.
  tokens bigint not null,
  -- Taken back for refunds, for lost disputes; and how much of both became debt because it was spent.
  reversed bigint not null default 0,
  clawed bigint not null default 0,
  owed bigint not null default 0,
  dispute_state text not null default 'none',
  -- Corrected away or reclassified: the payment no longer moves it.
  is_void boolean not null default false
) with (fillfactor = 80);

create index stripe_lots_payment on governance.stripe_lots (payment_id);

comment on table governance.stripe_lots is 'Which lots a payment bought, and what was taken back of them.';

create table governance.purchase_records (
  transaction_id bigint primary key,
  account_id bigint not null,
  created_at timestamptz not null,
  record_type text not null,
  lot_id bigint not null,
  payment_id bigint not null,
  -- Signed effect, debt included.
  tokens bigint not null,
  debt_tokens bigint not null default 0,
  amount_minor bigint,
  currency text,
  refund_id text,
  dispute_id text,
  invoice_line_id text,
  period_start timestamptz,
  period_end timestamptz,
  difference_id text,
  -- Of a grant whose price is not simply what Stripe collected for it: collected through Stripe, tax included; and what
  -- was covered otherwise, and by what.
  collected_minor bigint,
  covered_minor bigint,
  covered_by text
);

create index purchase_records_invoice_line on governance.purchase_records (invoice_line_id)
  where invoice_line_id is not null;

create index purchase_records_lot on governance.purchase_records (lot_id);

comment on table governance.purchase_records is 'What each payment did to the ledger, entry by entry: the ledger''s '
  'side of a reconciliation; append-only.';

create table governance.stripe_customers (
  customer_id text primary key,
  account_id bigint not null references governance.accounts (account_id)
);

comment on table governance.stripe_customers is 'Whose customer at Stripe: learnt from checkouts and subscriptions.';

-- What an order cost: booked (net of tax), collected through Stripe, covered by a discount. booked_minor is null where
-- the order does not come to the pack's price.
create type governance.order_money as (booked_minor bigint, collected_minor bigint, covered_minor bigint,
  covered_by text, currency text, is_wrong_currency boolean);

-- What went back of a payment: refunded in all, and lost in disputes; whether one is open; the largest amount disputed.
create type governance.money_back as (refunded bigint, refund_id text, lost bigint, is_disputed boolean,
  dispute_id text, disputed bigint);

create type governance.stripe_outcome as (status text, reason text, effects jsonb, payment_id bigint,
  waits_for_customer text);

create index purchase_records_difference on governance.purchase_records (difference_id) where difference_id is not null;

create function governance.merge_payments(p_into bigint, p_from bigint) returns void
  language plpgsql set search_path = '' as $$
declare
  f governance.stripe_payments;
begin
  update governance.stripe_refunds set payment_id = p_into where payment_id = p_from;
  update governance.stripe_disputes set payment_id = p_into where payment_id = p_from;
  update governance.stripe_lots set payment_id = p_into where payment_id = p_from;
  update governance.stripe_payment_names set payment_id = p_into where payment_id = p_from;
  update governance.stripe_merged_payments set merged_into = p_into where merged_into = p_from;
  insert into governance.stripe_merged_payments (payment_id, merged_into) values (p_from, p_into);
  delete from governance.stripe_payments p where p.payment_id = p_from returning * into f;
  -- Two parts of one invoice: the second keeps its names, and what was refunded of it.
  insert into governance.stripe_payment_names (name, payment_id, refunded_minor)
  select x.name, p_into, x.refunded_minor
  from governance.stripe_payments p cross join lateral (values (f.payment_intent_id, p.payment_intent_id, 0::bigint),
    (f.charge_id, p.charge_id, f.refunded_minor), (f.checkout_session_id, p.checkout_session_id, 0),
    (f.invoice_id, p.invoice_id, 0)) x(name, known, refunded_minor)
  where p.payment_id = p_into and x.name <> x.known
  on conflict (name) do update set payment_id = excluded.payment_id;
  update governance.stripe_payments p set
    account_id = coalesce(p.account_id, f.account_id),
      payment_intent_id = coalesce(p.payment_intent_id, f.payment_intent_id),
    charge_id = coalesce(p.charge_id, f.charge_id),
      checkout_session_id = coalesce(p.checkout_session_id, f.checkout_session_id),
    invoice_id = coalesce(p.invoice_id, f.invoice_id), customer_id = coalesce(p.customer_id, f.customer_id),
    subscription_id = coalesce(p.subscription_id, f.subscription_id), order_id = coalesce(p.order_id, f.order_id),
    livemode = coalesce(p.livemode, f.livemode), amount_minor = coalesce(p.amount_minor, f.amount_minor),
    currency = coalesce(p.currency, f.currency), paid_at = coalesce(p.paid_at, f.paid_at),
    refunded_minor = case when f.charge_id <> p.charge_id then p.refunded_minor
      else greatest(p.refunded_minor, f.refunded_minor) end, refunded_at = greatest(p.refunded_at, f.refunded_at),
    refunded_override_minor = coalesce(p.refunded_override_minor, f.refunded_override_minor),
    refunded_override_at = coalesce(p.refunded_override_at, f.refunded_override_at)
  where p.payment_id = p_into;
end
$$;
comment on function governance.merge_payments(bigint,
  bigint) is 'Two rows turned out to be one payment: the first takes all that the second knew.';

create function governance.payment_of(r governance.purchase_records) returns bigint
  language sql stable set search_path = '' as $$
  select coalesce((select m.merged_into from governance.stripe_merged_payments m where m.payment_id = r.payment_id),
    r.payment_id)
$$;
comment on function governance.payment_of(governance.purchase_records) is
  'The payment of a record as it is known now: it may have been merged into another.';

create function governance.note_payment(
  p_now timestamptz, p_intent text, p_charge text default null, p_session text default null,
    p_invoice text default null,
  p_customer text default null, p_livemode boolean default null, p_order text default null
) returns governance.stripe_payments
  language plpgsql set search_path = '' as $$
begin
  return governance.write_payment(governance.find_payment(p_intent, p_charge, p_session, p_invoice), p_now, p_intent,
    p_charge, p_session, p_invoice,
    p_customer, p_livemode, p_order);
end
$$;
comment on function governance.note_payment(timestamptz, text, text, text, text, text, boolean, text) is
  'Finds the payment by any of its names, or makes it, and notes the other names. Takes their locks.';

create function governance.note_refund(p_now timestamptz, p_told_at timestamptz, p_refund jsonb,
  p_charge text default null, p_intent text default null) returns bigint
  language plpgsql set search_path = '' as $$
declare
  v_id text := governance.stripe_id(p_refund -> 'id');
  v_charge text := coalesce(governance.stripe_id(p_refund -> 'charge'), p_charge);
  v_intent text := coalesce(governance.stripe_id(p_refund -> 'payment_intent'), p_intent);
  v_amount bigint := governance.stripe_whole(p_refund -> 'amount');
  v_state smallint := case p_refund ->> 'status' when 'pending' then 1 when 'requires_action' then 1
    when 'failed' then 3 when 'canceled' then 3 else 2 end;
  v_pay governance.stripe_payments;
begin
  if v_id is null or v_amount is null or v_amount < 0 or coalesce(v_charge, v_intent) is null then return null; end if;
  v_pay := governance.note_payment(p_now, v_intent, v_charge);
  insert into governance.stripe_refunds as r (refund_id, payment_id, amount_minor, state, told_at)
  values (v_id, v_pay.payment_id, v_amount, v_state, p_told_at)
  on conflict (refund_id) do update set
    state = greatest(r.state, excluded.state), amount_minor = greatest(r.amount_minor, excluded.amount_minor),
    told_at = case when excluded.state > r.state then greatest(r.told_at, excluded.told_at) else r.told_at end;
  return v_pay.payment_id;
end
$$;
comment on function governance.note_refund(timestamptz, timestamptz, jsonb, text,
  text) is 'Notes a refund; null where it is not whole.';

create function governance.note_dispute(p_now timestamptz, p_told_at timestamptz, p_dispute jsonb,
  p_type text) returns bigint
  language plpgsql set search_path = '' as $$
declare
  v_id text := governance.stripe_id(p_dispute -> 'id');
  v_charge text := governance.stripe_id(p_dispute -> 'charge');
  v_intent text := governance.stripe_id(p_dispute -> 'payment_intent');
  v_amount bigint := governance.stripe_whole(p_dispute -> 'amount');
  v_status text := p_dispute ->> 'status';
  v_stage smallint;
  v_pay governance.stripe_payments;
begin
  if v_id is null or v_amount is null or v_amount < 0 or coalesce(v_charge, v_intent) is null then return null; end if;
  v_stage := case
    -- An appeal is heard after a dispute was lost: until it is won, the money is gone.
    when v_status in ('won', 'lost', 'charge_refunded', 'appeal_needs_response', 'appeal_under_review') then 3
    when v_status like 'warning%' or v_status = 'prevented' then 1
    when v_status in ('needs_response', 'under_review') then 2
  end;
  if v_stage is null then return null; end if;
  v_pay := governance.note_payment(p_now, v_intent, v_charge);
  insert into governance.stripe_disputes as d (dispute_id, payment_id, amount_minor, currency, status, stage, is_lost,
    is_reinstated, told_at)
  values (v_id, v_pay.payment_id, v_amount, governance.stripe_currency(p_dispute -> 'currency'), v_status, v_stage,
    v_status = 'lost' or v_status like 'appeal%',
    p_type = 'charge.dispute.funds_reinstated', p_told_at)
  on conflict (dispute_id) do update set
    is_reinstated = d.is_reinstated or excluded.is_reinstated,
    amount_minor = greatest(d.amount_minor, excluded.amount_minor),
    currency = coalesce(d.currency, excluded.currency),
    -- Of two decisions the later stands; on a tie, lost wins.
    (status, stage, is_lost, told_at) = (
      select n.status, n.stage, n.is_lost, n.told_at
      from (values (d.status, d.stage, d.is_lost, d.told_at),
        (excluded.status, excluded.stage, excluded.is_lost, excluded.told_at)) n(status, stage, is_lost, told_at)
      order by n.stage desc, n.told_at desc, n.is_lost desc, n.status limit 1);
  return v_pay.payment_id;
end
$$;
comment on function governance.note_dispute(timestamptz, timestamptz, jsonb,
  text) is 'Notes a dispute; null where it is not whole.';

create function governance.learn_customer(p_customer text, p_account_id bigint) returns boolean
  language plpgsql set search_path = '' as $$
begin
  if p_customer is null or p_account_id is null then return false; end if;
  insert into governance.stripe_customers (customer_id, account_id) values (p_customer, p_account_id)
    on conflict do nothing;
  return found;
end
$$;
comment on function governance.learn_customer(text,
  bigint) is 'Remembers whose customer this is; true when it is news.';

create function governance.is_within_bounds(s governance.stripe_lots) returns boolean
  language plpgsql immutable set search_path = '' as $$
begin
  return least(s.reversed, s.clawed, s.owed, s.tokens - s.reversed - s.clawed, s.reversed + s.clawed - s.owed) >= 0;
end
$$;
comment on function governance.is_within_bounds(governance.stripe_lots) is
  'The check of a payment''s lots: nothing below zero, no more taken back than was bought, no more owed than was taken '
    'back.';

create function governance.find_payment(p_intent text, p_charge text, p_session text,
  p_invoice text) returns governance.stripe_payments
  language plpgsql set search_path = '' as $$
declare
  v_pay governance.stripe_payments;
  v_id bigint;
  v_other bigint;
begin
  perform governance.lock_stripe_ids(p_intent, p_charge, p_session, p_invoice);
  for v_other in
    select p.payment_id from governance.stripe_payments p where p.payment_intent_id = p_intent
    union all select p.payment_id from governance.stripe_payments p where p.charge_id = p_charge
    union all select p.payment_id from governance.stripe_payments p where p.checkout_session_id = p_session
    union all select p.payment_id from governance.stripe_payments p where p.invoice_id = p_invoice
    union all select n.payment_id from governance.stripe_payment_names n
      where n.name in (p_intent, p_charge, p_session, p_invoice)
  loop
    if v_id is null then v_id := v_other;
    elsif v_other <> v_id then perform governance.merge_payments(v_id, v_other);
    end if;
  end loop;
  if v_id is not null then
    select * into strict v_pay from governance.stripe_payments p where p.payment_id = v_id;
  end if;
  return v_pay;
end
$$;
comment on function governance.find_payment(text, text, text, text) is
  'The payment by any of its names, or null; rows that turn out to be one payment are merged. Takes the locks of the '
  'names.';

create function governance.write_payment(
  p_pay governance.stripe_payments, p_now timestamptz, p_intent text, p_charge text, p_session text, p_invoice text,
    p_customer text, p_livemode boolean,
  p_order text, p_account_id bigint default null, p_amount bigint default null, p_currency text default null,
    p_paid_at timestamptz default null
) returns governance.stripe_payments
  language plpgsql set search_path = '' as $$
begin
  if p_pay.payment_id is null then
    insert into governance.stripe_payments (account_id, payment_intent_id, charge_id, checkout_session_id, invoice_id,
      customer_id, livemode, order_id,
      amount_minor, currency, paid_at, created_at)
    values (p_account_id, p_intent, p_charge, p_session, p_invoice, p_customer, p_livemode, p_order, p_amount,
      p_currency, p_paid_at, p_now)
    returning * into p_pay;
    return p_pay;
  end if;
  -- Another part of the same invoice.
  insert into governance.stripe_payment_names (name, payment_id)
  select x.name, p_pay.payment_id from (values (p_intent, p_pay.payment_intent_id), (p_charge, p_pay.charge_id),
    (p_session, p_pay.checkout_session_id), (p_invoice, p_pay.invoice_id)) x(name, known)
  where x.name <> x.known on conflict do nothing;
  -- A lot is found by its charge even when the charge was told after it was granted.
  if p_charge is not null and p_pay.account_id is not null then
    update governance.lots l set stripe_charge_id = p_charge
    from governance.stripe_lots s
    where s.payment_id = p_pay.payment_id and l.lot_id = s.lot_id and l.stripe_charge_id is null;
  end if;
  if p_account_id is not null or (p_pay.payment_intent_id is null and p_intent is not null)
    or (p_pay.charge_id is null and p_charge is not null)
    or (p_pay.checkout_session_id is null and p_session is not null)
      or (p_pay.invoice_id is null and p_invoice is not null)
    or (p_pay.customer_id is null and p_customer is not null) or (p_pay.livemode is null and p_livemode is not null)
    or (p_pay.order_id is null and p_order is not null) then
    update governance.stripe_payments p set
      payment_intent_id = coalesce(p.payment_intent_id, p_intent), charge_id = coalesce(p.charge_id, p_charge),
      checkout_session_id = coalesce(p.checkout_session_id, p_session), invoice_id = coalesce(p.invoice_id, p_invoice),
      customer_id = coalesce(p.customer_id, p_customer), livemode = coalesce(p.livemode, p_livemode),
        order_id = coalesce(p.order_id, p_order),
      account_id = coalesce(p_account_id, p.account_id), amount_minor = coalesce(p_amount, p.amount_minor),
      currency = coalesce(p_currency, p.currency), paid_at = coalesce(p_paid_at, p.paid_at)
    where p.payment_id = p_pay.payment_id
    returning * into p_pay;
  end if;
  return p_pay;
end
$$;
comment on function governance.write_payment(governance.stripe_payments, timestamptz, text, text, text, text, text,
  boolean, text, bigint, bigint, text, timestamptz) is
  'Makes the payment that governance.find_payment did not find, or notes on the one it found the names that are new; '
  'and who paid what, once that is granted.';

create trigger purchase_records_append_only before update or delete or truncate on governance.purchase_records
  for each statement execute function governance.refuse_change();

-- A lot a payment: read in a moment, and the checks that it replaces held for each.
-- squawk-ignore constraint-missing-not-valid
alter table governance.stripe_lots add constraint stripe_lots_within_bounds
  check (governance.is_within_bounds(stripe_lots));

-- schemas/62_subscriptions.sql
-- Subscriptions and their invoices.

create table governance.stripe_subscriptions (
  subscription_id text primary key,
  account_id bigint references governance.accounts (account_id),
  customer_id text,
  -- The plan that Stripe names now, paid or not.
  plan_id text,
  -- Its price names the plan: a price that nobody knows may be another plan's.
  is_priced boolean not null default false,
  paid_plan_id text,
  -- Tokens a period, where its Checkout Session alone names them.
  tokens text,
  -- The last period that an invoice paid for; null until one did.
  paid_from timestamptz,
  paid_until timestamptz,
  canceled_at timestamptz,
  updated_at timestamptz not null
);

create index stripe_subscriptions_account on governance.stripe_subscriptions (account_id);

comment on table governance.stripe_subscriptions is
  'Subscriptions: whose, for which plan, which period was paid last, and whether they ended.';

create table governance.stripe_prices (
  price_id text primary key,
  plan_id text,
  tokens text
);

comment on table governance.stripe_prices is
  'What a price at Stripe is for, as subscriptions tell it: from 2025-03-31 an invoice''s line has only the price''s id.';

create type governance.invoice_share as (booked_minor bigint, collected_minor bigint, covered_minor bigint);

create type governance.invoice_due as (problem text, key text, plan_id text, tokens bigint, booked_minor bigint,
  collected_minor bigint, covered_minor bigint, period_from timestamptz, period_to timestamptz, is_credited boolean);

create function governance.end_subscription_lots(p_account_id bigint, p_on_cancel text, p_now timestamptz,
  p_subscription text, p_is_last boolean, p_lot_id bigint default null) returns bigint
  language plpgsql set search_path = '' as $$
declare
  v_lot record;
  v_free bigint;
  v_take bigint;
  v_moved bigint := 0;
begin
  if p_on_cancel = 'keep' then return 0; end if;
  for v_lot in select l.lot_id, l.remaining from governance.lots l
    where l.account_id = p_account_id and l.kind = 'subscription' and l.is_open
      and case when p_lot_id is not null then l.lot_id = p_lot_id else coalesce((
        select p.subscription_id = p_subscription
        from governance.stripe_lots s join governance.stripe_payments p using (payment_id)
        where s.lot_id = l.lot_id), p_is_last) end
    order by l.lot_id
  loop
    if p_on_cancel = 'convert' then
      update governance.lots l set kind = 'purchased', expires_at = null where l.lot_id = v_lot.lot_id;
      perform governance.append_entry(p_account_id, 'adjustment', p_now, array[v_lot.lot_id, 0::bigint],
        -v_lot.remaining, v_lot.remaining, 0, 0, p_subscription,
        'Subscription ended: its tokens are kept as purchased');
      v_moved := v_moved + v_lot.remaining;
    else
      select a.subscription_tokens + a.purchased_tokens + a.promotional_tokens - a.reserved_tokens into strict v_free
      from governance.accounts a where a.account_id = p_account_id;
      -- What is held for calls under way expires when they end.
      v_take := least(v_lot.remaining, v_free);
      update governance.lots l set remaining = l.remaining - v_take, expired = l.expired + v_take,
        expires_at = least(l.expires_at, p_now),
        is_open = l.remaining - v_take + l.frozen > 0
      where l.lot_id = v_lot.lot_id;
      if v_take < v_lot.remaining then
        update governance.accounts a set lots_check_at = least(a.lots_check_at, p_now)
          where a.account_id = p_account_id;
      end if;
      -- That the lot ends now is on record even where all of it is held or frozen.
      perform governance.append_entry(p_account_id, 'expiry', p_now, array[v_lot.lot_id, -v_take], -v_take, 0, 0, 0,
        p_subscription, 'Subscription ended');
      v_moved := v_moved - v_take;
    end if;
  end loop;
  return v_moved;
end
$$;
comment on function governance.end_subscription_lots(bigint, text, timestamptz, text, boolean, bigint) is
  'What becomes of subscription tokens when a subscription ends: keep, convert into purchased ones, or expire. One '
  'lot, or those that the subscription paid for and, where no other goes on (p_is_last), those that no subscription '
  'paid for. The caller holds the account''s lock.';

create function governance.note_subscription(p_now timestamptz, p_event_id text, p_subscription text, p_customer text,
  p_account_id bigint, p_plan_id text, p_tokens text default null) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_waiting record;
  v_effects jsonb := '[]';
begin
  if p_subscription is not null then
    perform governance.lock_stripe_ids(p_subscription);
    insert into governance.stripe_subscriptions as s (subscription_id, account_id, customer_id, plan_id, tokens,
      updated_at)
    values (p_subscription, p_account_id, p_customer, p_plan_id, p_tokens, p_now)
    on conflict (subscription_id) do update set account_id = coalesce(s.account_id, excluded.account_id),
      customer_id = coalesce(s.customer_id, excluded.customer_id),
      -- Once it has ended, an older event that comes late does not change which plan it had at its end.
      plan_id = case when s.canceled_at is null then coalesce(excluded.plan_id, s.plan_id)
        else coalesce(s.plan_id, excluded.plan_id) end,
      tokens = coalesce(excluded.tokens, s.tokens), updated_at = p_now;
  end if;
  perform governance.learn_customer(p_customer, p_account_id);
  if p_account_id is not null and p_customer is not null then
    -- What was delivered before anybody knew whose it is. None of them waits while they are taken up: each may find the
    -- others, and would take them up again.
    for v_waiting in
      with waiting as (
        update governance.webhook_events_processed w set waits_for_customer = null
        where w.waits_for_customer = p_customer and w.status in ('quarantined', 'parked') and w.event_id <> p_event_id
        returning w.event_id, w.payload, w.event_created_at)
      select w.event_id, w.payload from waiting w order by w.event_created_at, w.event_id
    loop
      v_effects := v_effects || coalesce(governance.take_event(v_waiting.event_id, v_waiting.payload,
        p_now) -> 'effects', '[]');
    end loop;
  end if;
  return v_effects;
end
$$;
comment on function governance.note_subscription(timestamptz, text, text, text, bigint, text, text) is
  'Notes whose subscription it is and for which plan, and takes up events that waited to know. Answers their effects.';

create function governance.on_subscription(p_event_id text, p_type text, p_now timestamptz,
  o jsonb) returns governance.stripe_outcome
  language plpgsql set search_path = '' as $$
declare
  v_id text := governance.stripe_id(o -> 'id');
  v_metadata jsonb := governance.stripe_object(o -> 'metadata');
  v_customer text := governance.stripe_id(o -> 'customer');
  v_user_id text := governance.metadata_text(v_metadata, 'user_id', 'userId', 'userid');
  v_plan_id text;
  v_is_priced boolean;
  v_account governance.accounts;
  v_sub governance.stripe_subscriptions;
  v_other governance.stripe_subscriptions;
  v_plan governance.plans;
  v_moved bigint;
  v_effects jsonb;
begin
  if v_id is null then return governance.outcome('quarantined', 'malformed'); end if;
  perform governance.learn_prices(governance.stripe_list(o -> 'items'));
  perform governance.lock_stripe_ids(v_id);
  -- Any of its items may be the plan; the others are seats, or what else is sold beside it.
  select x.plan_id, governance.price_plan(i.item) is not null into v_plan_id, v_is_priced
  from jsonb_array_elements(governance.stripe_list(o -> 'items') || '[{}]') with ordinality i(item, n)
    cross join lateral governance.plan_of(v_metadata, i.item) x(plan_id)
  where x.plan_id is not null
  order by governance.plan_of('{}', i.item) is null, i.n limit 1;
  select a.* into v_account from governance.accounts a where a.user_id = v_user_id;
  if v_account.account_id is null then
    select a.* into v_account from governance.stripe_customers c join governance.accounts a using (account_id)
      where c.customer_id = v_customer;
  end if;
  if v_is_priced then
    insert into governance.stripe_subscriptions as s (subscription_id, is_priced, updated_at) values (v_id, true, p_now)
    on conflict (subscription_id) do update set is_priced = true where not s.is_priced;
  end if;
  v_effects := governance.note_subscription(p_now, p_event_id, v_id, v_customer, v_account.account_id, v_plan_id);
  if p_type <> 'customer.subscription.deleted' and coalesce(o ->> 'status', '') <> 'canceled' then
    return governance.outcome('processed', 'subscription_noted', v_effects);
  end if;
  select * into strict v_sub from governance.stripe_subscriptions s where s.subscription_id = v_id for update;
  if v_sub.canceled_at is not null then return governance.outcome('processed', 'already_canceled', v_effects); end if;
  if v_sub.account_id is not null then
    -- A month that began while the subscription ran turns first: afterwards it would give the plan's allowance.
    v_account := governance.lock_account_id(v_sub.account_id);
  end if;
  -- The plan at its end decides what becomes of its tokens, also of those whose invoice comes late.
  update governance.stripe_subscriptions s set plan_id = coalesce(v_plan_id, s.paid_plan_id, s.plan_id),
    canceled_at = coalesce(governance.stripe_time(o -> 'ended_at'), governance.stripe_time(o -> 'canceled_at'), p_now)
  where s.subscription_id = v_id;
  if v_sub.account_id is null then return governance.outcome('processed', 'unknown_user', v_effects); end if;
  -- Another subscription that is paid and goes on: its plan and tokens stay.
  select * into v_other from governance.stripe_subscriptions s
  where s.account_id = v_sub.account_id and s.subscription_id <> v_id and s.canceled_at is null
    and s.paid_plan_id is not null
  order by s.paid_until desc nulls last, s.subscription_id limit 1;
  if v_other.subscription_id is not null and v_sub.paid_until is null then
    return governance.outcome('processed', 'never_paid', v_effects);
  end if;
  select * into v_plan from governance.plans p
  where p.plan_id = coalesce(v_plan_id, v_sub.paid_plan_id, v_sub.plan_id, v_account.plan_id);
  if v_account.plan_id in (v_plan.plan_id, v_sub.paid_plan_id) or v_other.subscription_id is not null then
    v_moved := governance.end_subscription_lots(v_account.account_id, v_plan.on_cancel, p_now, v_id,
      v_other.subscription_id is null);
    update governance.accounts a set plan_id = coalesce(v_other.paid_plan_id, c.default_plan), version = a.version + 1
    from governance.active_config c where a.account_id = v_account.account_id
      and coalesce(v_other.paid_plan_id, c.default_plan, a.plan_id) <> a.plan_id;
    v_effects := v_effects || governance.effect('subscription_' || v_plan.on_cancel, v_account.user_id, v_moved, null);
    perform governance.ring('accounts', p_now);
  end if;
  return governance.outcome('processed', null, v_effects);
end
$$;
comment on function governance.on_subscription(text, text, timestamptz, jsonb) is
  'customer.subscription.*: whose it is, and what becomes of its tokens when it ends (the plan''s on_cancel). Where '
  'another paid subscription goes on, only the tokens that this one paid for end.';

create function governance.price_of(p_item jsonb) returns text
  language sql immutable set search_path = '' as $$
  select coalesce(governance.stripe_id(p_item #> '{pricing,price_details,price}'),
    governance.stripe_id(p_item -> 'price'), governance.stripe_id(p_item -> 'plan'))
$$;
comment on function governance.price_of(jsonb) is 'The id of the price of a subscription item or invoice line.';

create function governance.told_plan(p_item jsonb) returns text
  language sql stable set search_path = '' as $$
  select p.plan_id from (values
    (1, governance.metadata_text(governance.stripe_object(p_item #> '{price,metadata}'), 'plan_id', 'planId', 'plan')),
    (2, governance.metadata_text(governance.stripe_object(p_item #> '{plan,metadata}'), 'plan_id', 'planId', 'plan')),
    (3, p_item #>> '{price,lookup_key}'), (4, p_item #>> '{price,nickname}'), (5, p_item #>> '{plan,nickname}')
  ) c(n, plan_id) join governance.plans p on p.plan_id = c.plan_id order by c.n limit 1
$$;
comment on function governance.told_plan(jsonb) is
  'The plan that the price within a subscription item or invoice line names: by metadata, lookup key or nickname.';

create function governance.told_tokens(p_item jsonb) returns text
  language sql immutable set search_path = '' as $$
  select nullif(coalesce(btrim(p_item #>> '{price,metadata,tokens}'), btrim(p_item #>> '{plan,metadata,tokens}')), '')
$$;
comment on function governance.told_tokens(jsonb) is
  'Tokens of one piece that the price within a subscription item or invoice line names.';

create function governance.learn_prices(p_items jsonb) returns void
  language sql set search_path = '' as $$
  insert into governance.stripe_prices as k (price_id, plan_id, tokens)
  select t.price_id, t.plan_id, t.tokens
  from (select distinct on (1) governance.price_of(x.item), governance.told_plan(x.item),
      left(governance.told_tokens(x.item), 255)
    from jsonb_array_elements(p_items) x(item) order by 1) t(price_id, plan_id, tokens)
  where t.price_id is not null and not exists (select from governance.stripe_prices o
    where o.price_id = t.price_id and (o.plan_id, o.tokens) is not distinct from (t.plan_id, t.tokens))
  order by t.price_id
  on conflict (price_id) do update set plan_id = excluded.plan_id, tokens = excluded.tokens
$$;
comment on function governance.learn_prices(jsonb) is
  'Notes what the prices of a subscription''s items are for. Writes, and so locks, only what is new, in order of ids.';

create function governance.price_plan(p_item jsonb) returns text
  language sql stable set search_path = '' as $$
  select coalesce(governance.told_plan(p_item), (select k.plan_id from governance.stripe_prices k
    join governance.plans p using (plan_id) where k.price_id = governance.price_of(p_item)))
$$;
comment on function governance.price_plan(jsonb) is
  'The plan that the price of a subscription item or invoice line is for, told with it or known from before.';

create function governance.plan_of(p_metadata jsonb, p_item jsonb) returns text
  language sql stable set search_path = '' as $$
  select p.plan_id from (
    select governance.metadata_text(governance.stripe_object(p_item -> 'metadata'), 'plan_id', 'planId', 'plan'),
      governance.metadata_text(p_metadata, 'plan_id', 'planId', 'plan')) m(own, subscriptions)
  cross join lateral (values
    -- Stripe copies a subscription's metadata to its lines. A change of plan in Stripe's portal changes the price, and
    -- leaves the metadata as it was.
    (1, nullif(m.own, m.subscriptions)), (2, governance.price_plan(p_item)), (3, m.subscriptions)
  ) c(n, plan_id) join governance.plans p on p.plan_id = c.plan_id order by c.n limit 1
$$;
comment on function governance.plan_of(jsonb, jsonb) is
  'The plan that a subscription item or invoice line is for: by metadata of its own, by its price, or by the '
  'subscription''s metadata.';

create function governance.switch_to_paid_plan(p_account_id bigint, p_plan_id text, p_subscription text,
  p_from timestamptz) returns void
  language sql set search_path = '' as $$
  update governance.accounts a set plan_id = p_plan_id, version = a.version + 1
  where a.account_id = p_account_id and a.plan_id <> p_plan_id and not exists (
    select from governance.stripe_subscriptions s
    where s.account_id = p_account_id
      -- An ended subscription gives no plan. Of several periods the one that begins last does, whichever came first.
      and (s.subscription_id = p_subscription and s.canceled_at is not null
        or s.canceled_at is null and s.paid_from > p_from))
$$;
comment on function governance.switch_to_paid_plan(bigint, text, text, timestamptz) is
  'Puts an account on the plan that was paid for. The caller holds the account''s lock.';

create function governance.is_paid_through_stripe(p_account_id bigint, p_plan_id text, p_month_start timestamptz)
  returns boolean
  language sql stable set search_path = '' as $$
  select exists (select from governance.stripe_subscriptions s
    where s.account_id = p_account_id and s.paid_plan_id = p_plan_id and s.canceled_at is null
      -- A year paid in advance gives its months as other plans do, as long as it lasts.
      and not (s.paid_until - s.paid_from > interval '45 days' and s.paid_until > p_month_start))
$$;
comment on function governance.is_paid_through_stripe(bigint, text, timestamptz) is
  'Whether paid invoices alone give the tokens of an account''s plan in this month; the month''s own allowance is then '
  'not given.';

create function governance.note_paid_period(p_subscription text, p_account_id bigint, p_due governance.invoice_due,
  p_now timestamptz) returns void
  language sql set search_path = '' as $$
  insert into governance.stripe_subscriptions as s (subscription_id, account_id, plan_id, paid_plan_id, paid_from,
    paid_until, updated_at)
  select p_subscription, p_account_id, p_due.plan_id, p_due.plan_id, p_due.period_from, p_due.period_to, p_now
  where p_subscription is not null
  on conflict (subscription_id) do update set account_id = coalesce(s.account_id, excluded.account_id),
    -- Invoices come in any order: the plan is that of the period, or part of one, that begins last.
    paid_plan_id = case when s.paid_from > excluded.paid_from then s.paid_plan_id
      else coalesce(excluded.paid_plan_id, s.paid_plan_id) end,
    paid_from = greatest(s.paid_from, excluded.paid_from),
    paid_until = greatest(s.paid_until, excluded.paid_until)
$$;
comment on function governance.note_paid_period(text, bigint, governance.invoice_due, timestamptz) is
  'Notes which period of a subscription was paid, and for which plan.';

-- schemas/63_stripe_events.sql
-- Stripe events: each is acted on once, in any order.

-- Money: Stripe's events become lots, and tokens follow the money. An event is never acted on by itself: it adds facts
-- about a payment (paid, refunded so much, disputed, won or lost), and governance.settle_payment then moves the
-- payment's lots to where those facts put them. Facts only grow, so the order and number of deliveries do not matter.

-- ---------------------------------------------------------------------------------------------------------------
-- Tables
-- ---------------------------------------------------------------------------------------------------------------

create table governance.webhook_events_processed (
  event_id text primary key,
  event_type text not null,
  -- Stripe's own time of the event; null where it told none.
  event_created_at timestamptz,
  received_at timestamptz not null,
  attempts int not null default 1,
  -- processed: acted on or noted. quarantined: waits for a person, and is tried again when it is delivered again.
  -- parked: nobody knows yet whether it is ours; taken up when its customer is known.
  status text not null,
  reason text,
  effects jsonb not null default '[]',
  payment_id bigint,
  -- An event whose user or plan is not known yet is tried again when this customer is.
  waits_for_customer text,
  -- Kept while quarantined or parked alone.
  payload jsonb,
  decided_at timestamptz,
  decided_by text,
  decided_reason text
) with (fillfactor = 90);

create index webhook_events_processed_time on governance.webhook_events_processed using brin (received_at);

comment on table governance.webhook_events_processed is 'Stripe events by id: each is acted on once. Done ones are '
  'cleared after 30 days, quarantined ones stay.';

create index webhook_events_processed_waiting on governance.webhook_events_processed (waits_for_customer, received_at)
  where status in ('quarantined', 'parked');

create function governance.outcome(p_status text, p_reason text default null, p_effects jsonb default '[]',
  p_payment_id bigint default null, p_waits_for text default null)
  returns governance.stripe_outcome
  language sql immutable set search_path = '' as $$
  select row(p_status, p_reason, coalesce(p_effects, '[]'), p_payment_id, p_waits_for)::governance.stripe_outcome
$$;
comment on function governance.outcome(text, text, jsonb, bigint, text) is 'What became of an event.';

create function governance.on_checkout(p_event_id text, p_type text, p_now timestamptz, p_told_at timestamptz, o jsonb,
  p_livemode boolean) returns governance.stripe_outcome
  language plpgsql set search_path = '' as $$
declare
  v_metadata jsonb := o -> 'metadata';
  v_user_id text := nullif(btrim(v_metadata ->> 'user_id'), '');
  v_pack_id text := nullif(btrim(v_metadata ->> 'pack_id'), '');
  v_session text := governance.stripe_id(o -> 'id');
  v_mode text := o ->> 'mode';
  v_status text := o ->> 'payment_status';
  v_account_id bigint;
begin
  -- Most orders have these names; whoever writes others pays for looking for them.
  if v_user_id is null then
    v_user_id := coalesce(governance.metadata_text(v_metadata, 'userId', 'userid'),
      governance.stripe_id(o -> 'client_reference_id'));
  end if;
  if v_pack_id is null then v_pack_id := governance.metadata_text(v_metadata, 'packId', 'packid'); end if;
  if v_mode = 'subscription' then
    -- The tokens come with invoice.paid; the session tells whose subscription it is.
    select a.account_id into v_account_id from governance.accounts a where a.user_id = v_user_id;
    return governance.outcome('processed', 'subscription_noted',
      governance.note_subscription(p_now, p_event_id, governance.stripe_id(o -> 'subscription'),
        governance.stripe_id(o -> 'customer'), v_account_id,
        governance.metadata_text(v_metadata, 'plan_id', 'planId', 'plan'),
        governance.metadata_text(v_metadata, 'tokens')));
  elsif v_mode = 'setup' then
    return governance.outcome('ignored', 'not_a_token_purchase');
  elsif v_pack_id is null then
    if not governance.is_token_order(v_metadata) then return governance.outcome('ignored', 'not_a_token_purchase');
      end if;
  end if;
  if p_type in ('checkout.session.expired', 'checkout.session.async_payment_failed') then
    update governance.checkouts c set closed_at = p_now
    where c.checkout_id = (select x.checkout_id from governance.checkouts x
      join governance.accounts a using (account_id)
      where a.user_id = v_user_id and x.closed_at is null order by x.pack_id = v_pack_id desc, x.opened_at limit 1);
    return governance.outcome('processed', case when p_type = 'checkout.session.expired' then 'expired'
      else 'payment_failed' end);
  elsif v_session is null then
    return governance.outcome('quarantined', 'malformed');
  end if;
  if v_status in ('paid', 'no_payment_required') then
    return governance.on_paid_order(p_event_id, p_now, p_told_at, o, v_metadata, v_user_id, v_pack_id,
      governance.stripe_id(o -> 'payment_intent'), null, v_session, p_livemode, o -> 'amount_total');
  end if;
  return governance.outcome(case when v_status = 'unpaid' then 'processed' else 'quarantined' end,
    case when v_status = 'unpaid' then 'awaiting_payment' else 'payment_status_unknown' end,
    p_payment_id => (governance.note_payment(p_now, governance.stripe_id(o -> 'payment_intent'), null, v_session,
      governance.stripe_id(o -> 'invoice'), governance.stripe_id(o -> 'customer'),
      p_livemode, governance.metadata_text(v_metadata, 'order_id', 'orderId'))).payment_id);
end
$$;
comment on function governance.on_checkout(text, text, timestamptz, timestamptz, jsonb,
  boolean) is 'checkout.session.*';

create function governance.on_charge(p_event_id text, p_type text, p_now timestamptz, p_told_at timestamptz, o jsonb,
  p_livemode boolean) returns governance.stripe_outcome
  language plpgsql set search_path = '' as $$
declare
  v_charge text := governance.stripe_id(o -> 'id');
  v_intent text := governance.stripe_id(o -> 'payment_intent');
  -- Of a partial capture Stripe counts what was authorised and never captured as refunded.
  v_refunded bigint := coalesce(governance.stripe_whole(o -> 'amount_refunded'), 0)
    - greatest(coalesce(governance.stripe_whole(o -> 'amount') - governance.stripe_whole(o -> 'amount_captured'), 0),
      0);
  v_refund jsonb;
  v_outcome governance.stripe_outcome;
  v_pay governance.stripe_payments;
begin
  if v_charge is null then return governance.outcome('quarantined', 'malformed'); end if;
  -- A failed try is not the payment; the next one has another id.
  if p_type in ('charge.failed', 'charge.pending', 'charge.expired')
    or coalesce(o ->> 'status', 'succeeded') <> 'succeeded' then
    return governance.outcome('processed', case when p_type = 'charge.pending' then 'awaiting_payment'
      else 'payment_failed' end);
  end if;
  if v_intent is null and p_type in ('charge.succeeded', 'charge.captured') and o -> 'captured' <> 'false'
    and governance.is_token_order(o -> 'metadata') then
    -- Sold by a charge alone, as before there were PaymentIntents: then the order is on the charge.
    v_outcome := governance.on_paid_order(p_event_id, p_now, p_told_at, o, o -> 'metadata',
      governance.metadata_text(o -> 'metadata', 'user_id', 'userId', 'userid'),
      governance.metadata_text(o -> 'metadata', 'pack_id', 'packId', 'packid'), null, v_charge, null, p_livemode,
      coalesce(nullif(o -> 'amount_captured', 'null'), o -> 'amount'));
    if v_outcome.status = 'quarantined' then return v_outcome; end if;
  end if;
  v_pay := governance.note_payment(p_now, v_intent, v_charge, null, governance.stripe_id(o -> 'invoice'),
    governance.stripe_id(o -> 'customer'), p_livemode);
  if v_refunded > 0 then
    update governance.stripe_payments p set
      refunded_minor = case when p.charge_id = v_charge then greatest(p.refunded_minor, v_refunded)
        else p.refunded_minor end,
      refunded_at = greatest(p.refunded_at, p_told_at)
    where p.payment_id = v_pay.payment_id;
    update governance.stripe_payment_names n set refunded_minor = greatest(n.refunded_minor, v_refunded)
    where n.name = v_charge;
  end if;
  -- Before 2022-11-15 a charge lists its refunds.
  for v_refund in select r.value from jsonb_array_elements(governance.stripe_list(o -> 'refunds')) r limit 100 loop
    perform governance.note_refund(p_now, p_told_at, governance.stripe_object(v_refund), v_charge, v_intent);
  end loop;
  return governance.outcome('processed', v_outcome.reason, coalesce(v_outcome.effects, '[]')
    || governance.settle_payment(v_pay.payment_id, p_now, p_event_id), v_pay.payment_id);
end
$$;
comment on function governance.on_charge(text, text, timestamptz, timestamptz, jsonb,
  boolean) is 'charge.* but refunds and disputes.';

create function governance.on_payment_intent(p_event_id text, p_type text, p_now timestamptz, p_told_at timestamptz,
  o jsonb, p_livemode boolean) returns governance.stripe_outcome
  language plpgsql set search_path = '' as $$
declare
  v_intent text := governance.stripe_id(o -> 'id');
  v_charge text := coalesce(governance.stripe_id(o -> 'latest_charge'),
    governance.stripe_id(o #> '{charges,data,0,id}'));
  v_metadata jsonb := governance.stripe_object(o -> 'metadata');
  v_payment_id bigint;
begin
  if v_intent is null then return governance.outcome('quarantined', 'malformed'); end if;
  if p_type <> 'payment_intent.succeeded' then return governance.outcome('processed', 'payment_failed'); end if;
  -- Sold without Checkout: then the order is on the payment itself.
  if governance.is_token_order(v_metadata) then
    return governance.on_paid_order(p_event_id, p_now, p_told_at, o, v_metadata,
      coalesce(governance.metadata_text(v_metadata, 'user_id', 'userId', 'userid'),
        governance.stripe_id(o -> 'client_reference_id')),
      governance.metadata_text(v_metadata, 'pack_id', 'packId', 'packid'), v_intent, v_charge, null, p_livemode,
      coalesce(nullif(o -> 'amount_received', 'null'), o -> 'amount'));
  end if;
  v_payment_id := (governance.note_payment(p_now, v_intent, v_charge, null, governance.stripe_id(o -> 'invoice'),
    governance.stripe_id(o -> 'customer'), p_livemode)).payment_id;
  return governance.outcome('processed', null, governance.settle_payment(v_payment_id, p_now, p_event_id),
    v_payment_id);
end
$$;
comment on function governance.on_payment_intent(text, text, timestamptz, timestamptz, jsonb,
  boolean) is 'payment_intent.*';

-- No plan anew for each event, and no compiling of one.
create function public.process_stripe_event(p_event jsonb) returns jsonb
  language plpgsql security definer set search_path = '' set plan_cache_mode = force_generic_plan set jit = off as $$
declare
  v_id text := p_event ->> 'id';
  v_type text := p_event ->> 'type';
  v_now timestamptz;
  v_known_id text;
  v_known_type text;
  v_status text;
  v_reason text;
begin
  perform governance.refuse_others('process_stripe_event');
  -- In lists of at most eight: a longer one is hashed, anew in every transaction.
  if not coalesce(jsonb_typeof(p_event -> 'id') = 'string' and btrim(v_id) <> '' and length(v_id) <= 255
    and pg_column_size(p_event) <= 1048576
    and (v_type in ('checkout.session.completed', 'payment_intent.succeeded', 'charge.succeeded', 'charge.updated',
      'charge.captured', 'charge.refunded',
        'invoice.paid', 'invoice_payment.paid')
      or v_type in ('refund.created', 'refund.updated', 'refund.failed', 'charge.refund.updated',
        'customer.subscription.created',
        'customer.subscription.updated', 'customer.subscription.deleted', 'invoice.payment_succeeded')
      or v_type in ('charge.dispute.created', 'charge.dispute.updated', 'charge.dispute.closed',
        'charge.dispute.funds_withdrawn',
        'charge.dispute.funds_reinstated', 'checkout.session.async_payment_succeeded',
          'checkout.session.async_payment_failed', 'checkout.session.expired')
      or v_type in ('payment_intent.payment_failed', 'payment_intent.canceled', 'charge.failed', 'charge.pending',
        'charge.expired',
        'invoice.payment_failed')), false) then
    if jsonb_typeof(p_event) is distinct from 'object' then
      perform governance.fail('PT400', 'invalid_argument', 'p_event is the event object as Stripe sends it');
    elsif jsonb_typeof(p_event -> 'id') is distinct from 'string' or btrim(v_id) = '' or length(v_id) > 255 then
      perform governance.fail('PT400', 'invalid_argument',
        'p_event.id is the event''s id, a text of at most 255 characters');
    elsif jsonb_typeof(p_event -> 'type') is distinct from 'string' or btrim(v_type) = '' or length(v_type) > 255 then
      perform governance.fail('PT400', 'invalid_argument',
        'p_event.type is the event''s type, a text of at most 255 characters');
    elsif pg_column_size(p_event) > 1048576 then
      perform governance.fail('PT400', 'invalid_argument', 'p_event is larger than 1 MB: Stripe sends no such event');
    end if;
    return jsonb_build_object('event_id', v_id, 'status', 'ignored', 'reason', 'unhandled_type', 'effects',
      '[]'::jsonb);
  end if;
  -- One at a time for each event; what came of it is written once, at the end.
  perform pg_advisory_xact_lock(hashtextextended(v_id, 7256));
  select coalesce(c.test_clock_at, clock_timestamp() + coalesce(c.test_clock_offset, interval '0')), w.event_id,
    w.event_type, w.status, w.reason
  into v_now, v_known_id, v_known_type, v_status, v_reason
  from governance.active_config c left join governance.webhook_events_processed w on w.event_id = v_id;
  if v_known_id is not null and (v_status not in ('quarantined', 'parked') or v_known_type <> v_type) then
    return jsonb_build_object('event_id', v_id, 'status', 'duplicate', 'reason', v_reason, 'effects', '[]'::jsonb);
  end if;
  -- One that waits is looked at again: what it waited for may be there by now.
  return governance.take_event(v_id, p_event, v_now, v_known_id is null);
end
$$;
comment on function public.process_stripe_event(jsonb) is
  'Takes a Stripe event whose signature was checked: any order, any number of times, API versions from 2020-08-27 on. '
  'Answers event_id, status processed / duplicate / ignored / quarantined, reason, effects. Errors: invalid_argument.';
revoke all on function public.process_stripe_event(jsonb) from public, anon, authenticated;
grant execute on function public.process_stripe_event(jsonb) to service_role;

create function governance.on_paid_order(
  p_event_id text, p_now timestamptz, p_told_at timestamptz, o jsonb, p_metadata jsonb, p_user_id text, p_pack_id text,
  p_intent text, p_charge text, p_session text, p_livemode boolean, p_amount jsonb
) returns governance.stripe_outcome
  language plpgsql set search_path = '' as $$
declare
  -- Most orders have neither.
  v_invoice text := case when o ->> 'invoice' is not null then governance.stripe_id(o -> 'invoice') end;
  v_order text := case when p_metadata ?| array['order_id', 'orderId']
    then governance.metadata_text(p_metadata, 'order_id', 'orderId') end;
  v_customer text := governance.stripe_id(o -> 'customer');
  v_tokens text := btrim(p_metadata ->> 'tokens');
  v_at timestamptz := coalesce(governance.stripe_time(o -> 'created'), p_told_at, p_now);
  v_pay governance.stripe_payments;
  v_account_id bigint;
  v_needs_roll boolean;
  v_balance bigint;
  v_pack_tokens bigint;
  v_price bigint;
  v_currency text;
  v_was_sold boolean;
  v_may_buy boolean;
  v_plan_id text;
  v_allows_top_up boolean;
  v_sale governance.order_money;
  v_has_checkout boolean;
  v_knows_customer boolean;
  v_fits boolean;
  v_was_known boolean := false;
  v_reason text;
  v_effects jsonb;
begin
  perform governance.lock_stripe_ids(p_intent, p_charge, p_session, v_invoice);
  select a.account_id, governance.needs_roll(a, p_now),
    a.subscription_tokens + a.purchased_tokens + a.promotional_tokens, a.plan_id, l.allows_top_up
  into v_account_id, v_needs_roll, v_balance, v_plan_id, v_allows_top_up
  from governance.accounts a join governance.plans l using (plan_id) where a.user_id = p_user_id;
  -- The pack as it is sold is nearly always the pack as it was sold then.
  select p.tokens, p.price_minor, p.currency, p.effective_from <= v_at,
    case when p.plans is null then v_allows_top_up else v_plan_id = any (p.plans) end,
    exists (select from governance.checkouts c where c.account_id = v_account_id and c.closed_at is null),
    exists (select from governance.stripe_customers k where k.customer_id = v_customer)
  into v_pack_tokens, v_price, v_currency, v_was_sold, v_may_buy, v_has_checkout, v_knows_customer
  from governance.packs p where p.pack_id = p_pack_id and p.retired_at is null;
  if v_was_sold is not true then
    select p.tokens, p.price_minor, p.currency, case when p.plans is null then v_allows_top_up
      else v_plan_id = any (p.plans) end
    into v_pack_tokens, v_price, v_currency, v_may_buy from governance.pack_at(p_pack_id, v_at) p;
  end if;
  -- Allowed when its checkout began is allowed.
  v_may_buy := v_may_buy or exists (select from governance.checkouts c
    where v_has_checkout and c.account_id = v_account_id and c.pack_id = p_pack_id and c.closed_at is null);
  v_fits := v_account_id is not null and (v_tokens is null or v_tokens = v_pack_tokens::text)
    and v_may_buy
    and p_amount = to_jsonb(v_price) and o ->> 'currency' = v_currency
    and coalesce(o #> '{total_details,amount_tax}', '0') = '0'
    and v_balance + v_pack_tokens < 9007199254740992;

  -- A payment that fits and that nobody has told of yet is made as a granted one, in one go.
  if v_fits then
    insert into governance.stripe_payments (account_id, payment_intent_id, charge_id, checkout_session_id, invoice_id,
      customer_id, livemode, order_id,
      amount_minor, currency, paid_at, created_at)
    values (v_account_id, p_intent, p_charge, p_session, v_invoice, v_customer, p_livemode, v_order, v_price,
      v_currency, coalesce(p_told_at, p_now), p_now)
    on conflict do nothing returning * into v_pay;
  end if;
  if v_pay.payment_id is null then
    v_pay := governance.find_payment(p_intent, p_charge, p_session, v_invoice);
    if exists (select from governance.stripe_lots s where s.payment_id = v_pay.payment_id) then
      v_pay := governance.write_payment(v_pay, p_now, p_intent, p_charge, p_session, v_invoice, v_customer, p_livemode,
        v_order);
      return governance.outcome('processed', 'already_granted',
        governance.settle_payment(v_pay.payment_id, p_now, p_event_id), v_pay.payment_id);
    end if;
    v_was_known := v_pay.payment_id is not null;
    if v_fits is not true then
      v_sale := governance.order_money(o, p_amount, v_price, v_currency);
      v_reason := case
        when v_tokens !~ '^[0-9]{1,15}$' or v_tokens ~ '^0+$' then 'invalid_tokens'
        when v_tokens::bigint > 100000000 then 'tokens_above_ceiling'
        when v_account_id is null then 'unknown_user'
        when v_pack_tokens is null then 'unknown_pack'
        when v_tokens::bigint <> v_pack_tokens then 'tokens_mismatch'
        when v_sale.is_wrong_currency then 'currency_mismatch'
        when v_sale.booked_minor is null then 'amount_mismatch'
        when not v_may_buy then 'plan_not_allowed'
        when v_balance + v_pack_tokens > 9007199254740991 then 'balance_above_ceiling'
      end;
      if v_reason is not null then
        v_pay := governance.write_payment(v_pay, p_now, p_intent, p_charge, p_session, v_invoice, v_customer,
          p_livemode, v_order);
        return governance.outcome('quarantined', v_reason, p_payment_id => v_pay.payment_id);
      end if;
    end if;
    v_pay := governance.write_payment(v_pay, p_now, p_intent, p_charge, p_session, v_invoice, v_customer, p_livemode,
      v_order, v_account_id, coalesce(v_sale.collected_minor, v_price), coalesce(v_sale.currency, v_currency),
      coalesce(p_told_at, p_now));
  end if;

  perform pg_advisory_xact_lock(governance.lock_key(p_user_id));
  if v_needs_roll then perform governance.roll_account(v_account_id, p_now); end if;
  v_effects := governance.grant_paid(p_now, v_pay, p_user_id, p_pack_id, v_pack_tokens, p_event_id, null, v_sale);
  if v_has_checkout is not false then
    update governance.checkouts c set closed_at = p_now
    where c.checkout_id = (select o.checkout_id from governance.checkouts o
      where o.account_id = v_account_id and o.closed_at is null order by o.pack_id = p_pack_id desc, o.opened_at
        limit 1);
  end if;
  if v_knows_customer is not true then perform governance.learn_customer(v_customer, v_account_id); end if;
  -- What was refunded or disputed before it was paid for can only be known of a payment that was known.
  if v_was_known then
    v_effects := v_effects || governance.settle_payment(v_pay.payment_id, p_now, p_event_id);
  end if;
  return governance.outcome('processed', null, v_effects, v_pay.payment_id);
end
$$;
comment on function governance.on_paid_order(text, timestamptz, timestamptz, jsonb, jsonb, text, text, text, text, text,
  boolean, jsonb) is
  'Grants what was paid for once all of it fits: user, pack, tokens, price at the time, currency, ceiling; otherwise '
  'it waits for a person.';

create function governance.close_event_alert(p_event_id text, p_now timestamptz, p_by text, p_words text) returns void
  language sql set search_path = '' as $$
  update governance.alert_events e set acknowledged_at = p_now, acknowledged_by = p_by, resolution = p_words
  where e.alert_event_id in (
    -- One that an operator decides just now is theirs.
    select x.alert_event_id from governance.alert_events x
    where x.kind = 'webhook_quarantined' and coalesce(x.alert_id, 0) = 0 and coalesce(x.account_id, 0) = 0
      and coalesce(x.threshold, 0) = 0 and x.period_key = p_event_id and x.period_key <> '' and x.acknowledged_at is null
    for update skip locked)
$$;
comment on function governance.close_event_alert(text, timestamptz, text, text) is
  'An event that waited for a decision does not wait any more: nor does its alert.';

create function governance.take_event(p_event_id text, p_event jsonb, p_now timestamptz,
  p_is_new boolean default false) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_type text := p_event ->> 'type';
  v_told_at timestamptz := governance.stripe_time(p_event -> 'created');
  v_live boolean := case p_event -> 'livemode' when 'true' then true when 'false' then false end;
  o jsonb := p_event #> '{data,object}';
  v_outcome governance.stripe_outcome;
  v_status text;
  v_waits boolean;
begin
  begin
    if not v_live then
      if exists (select from governance.settings s where s.key = 'stripe_livemode' and s.value = 'true') then
        v_outcome := governance.outcome('quarantined', 'test_mode');
      end if;
    end if;
    if p_event -> 'account' <> 'null' and not governance.stripe_id(p_event -> 'account')
      = any (governance.setting_texts('stripe_accounts', '{}')) then
      -- The money of a connected account is not ours.
      v_outcome := governance.outcome('quarantined', 'connected_account');
    end if;
    if jsonb_typeof(o) is distinct from 'object' then v_outcome := governance.outcome('quarantined', 'malformed');
    elsif v_outcome.status is not null then null;
    elsif v_type like 'checkout.session.%'
      then v_outcome := governance.on_checkout(p_event_id, v_type, p_now, v_told_at, o, v_live);
    elsif v_type like 'payment_intent.%'
      then v_outcome := governance.on_payment_intent(p_event_id, v_type, p_now, v_told_at, o, v_live);
    elsif v_type like 'charge.dispute.%' then
      v_outcome := governance.settled(governance.note_dispute(p_now, coalesce(v_told_at, p_now), o, v_type), p_now,
        p_event_id);
    elsif v_type like 'refund.%' or v_type = 'charge.refund.updated' then
      v_outcome := governance.settled(governance.note_refund(p_now, coalesce(v_told_at, p_now), o), p_now, p_event_id);
    elsif v_type like 'charge.%'
      then v_outcome := governance.on_charge(p_event_id, v_type, p_now, coalesce(v_told_at, p_now), o, v_live);
    elsif v_type in ('invoice.paid', 'invoice.payment_succeeded')
      then v_outcome := governance.on_invoice(p_event_id, p_now, v_told_at, o, v_live);
    elsif v_type = 'invoice_payment.paid' then
      -- From 2025-03-31: the only thing that ties an invoice to its payment.
      v_outcome := governance.settled(case when governance.stripe_id(o -> 'invoice') is not null then
        (governance.note_payment(p_now, governance.stripe_id(o #> '{payment,payment_intent}'),
          governance.stripe_id(o #> '{payment,charge}'), null,
          governance.stripe_id(o -> 'invoice'))).payment_id end, p_now, p_event_id);
    elsif v_type like 'invoice.%' then v_outcome := governance.outcome('processed', 'payment_failed');
    else v_outcome := governance.on_subscription(p_event_id, v_type, p_now, o);
    end if;
  exception when data_exception or integrity_constraint_violation or sqlstate 'PT400' or sqlstate 'PT404' then
    -- Whatever stands in it, an event is kept for a person rather than sent back to Stripe for ever.
    v_outcome := governance.outcome('quarantined', 'malformed');
  end;
  v_waits := v_outcome.status = 'quarantined';
  v_status := case when v_outcome.status in ('quarantined', 'parked') then v_outcome.status else 'processed' end;
  if p_is_new then
    insert into governance.webhook_events_processed (event_id, event_type, event_created_at, received_at, status,
      reason, effects, payment_id,
      waits_for_customer, payload)
    values (p_event_id, v_type, v_told_at, p_now, v_status, v_outcome.reason, v_outcome.effects,
      v_outcome.payment_id, v_outcome.waits_for_customer, case when v_status <> 'processed' then p_event end);
  else
    update governance.webhook_events_processed w set
      status = v_status, reason = v_outcome.reason, effects = w.effects || v_outcome.effects,
      payment_id = v_outcome.payment_id, waits_for_customer = v_outcome.waits_for_customer,
      payload = case when v_status <> 'processed' then p_event end, attempts = w.attempts + 1
    where w.event_id = p_event_id;
    if not v_waits then
      perform governance.close_event_alert(p_event_id, p_now, 'Stripe', 'What it waited for came, and it was acted on');
    end if;
  end if;
  if v_waits then
    insert into governance.alert_events (kind, severity, message, period_key, details, created_at)
    values ('webhook_quarantined', 'critical',
      format('A Stripe event waits for a decision: %s (%s)', v_outcome.reason, v_type), p_event_id,
      jsonb_build_object('event_id', p_event_id, 'event_type', v_type, 'reason', v_outcome.reason, 'payment_id',
        v_outcome.payment_id), p_now)
    on conflict do nothing;
    perform governance.ring('alerts', p_now);
  elsif v_type = 'charge.dispute.created' and v_outcome.effects <> '[]' then
    insert into governance.alert_events (account_id, kind, severity, message, period_key, details, created_at)
    select p.account_id, 'stripe_dispute', 'warning', 'A payment is disputed: what is left of its tokens is frozen',
      p_event_id,
      jsonb_build_object('event_id', p_event_id, 'charge_id', p.charge_id, 'payment_intent_id', p.payment_intent_id),
        p_now
    from governance.stripe_payments p where p.payment_id = v_outcome.payment_id
    on conflict do nothing;
    perform governance.ring('alerts', p_now);
  end if;
  return jsonb_build_object('event_id', p_event_id,
    'status', case v_outcome.status when 'parked' then 'ignored' else v_outcome.status end,
    'reason', v_outcome.reason, 'effects', v_outcome.effects);
end
$$;
comment on function governance.take_event(text, jsonb, timestamptz, boolean) is
  'Acts on an event and keeps what came of it; p_is_new when nothing is kept of it yet. Answers as '
  'process_stripe_event does.';

-- schemas/64_checkouts.sql
-- Whether a purchase may begin.

create table governance.checkouts (
  checkout_id bigint generated always as identity primary key,
  account_id bigint not null references governance.accounts (account_id),
  pack_id text not null,
  opened_at timestamptz not null,
  closed_at timestamptz
);

create index checkouts_account on governance.checkouts (account_id, opened_at desc);

comment on table governance.checkouts is 'Checkouts that were allowed to begin: for the cooldown and the limit of open '
  'ones.';

create function public.begin_checkout(p_user_id text, p_pack_id text) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_account governance.accounts;
  v_plan governance.plans;
  v_pack governance.packs;
  v_now timestamptz;
  v_cooldown bigint;
  v_limit bigint;
  v_minutes bigint;
  v_last timestamptz;
  v_open int;
  v_oldest timestamptz;
  v_reason text;
  v_retry numeric;
begin
  perform governance.refuse_others('begin_checkout');
  perform governance.check_id('p_user_id', p_user_id);
  perform governance.check_id('p_pack_id', p_pack_id);
  v_account := governance.lock_account(p_user_id);
  v_now := governance.now();
  select * into v_pack from governance.packs p
    where p.pack_id = p_pack_id and p.retired_at is null and p.effective_from <= v_now
  order by p.effective_from desc limit 1;
  if v_pack.pack_id is null then
    perform governance.fail('PT404', 'unknown_pack', format('There is no pack "%s" on sale', left(p_pack_id, 64)));
  end if;
  select * into strict v_plan from governance.plans p where p.plan_id = v_account.plan_id;
  v_cooldown := governance.setting_number('purchase_cooldown_seconds', 10);
  v_limit := governance.setting_number('open_checkout_limit', 3);
  v_minutes := governance.setting_number('open_checkout_minutes', 60);
  select max(c.opened_at),
    count(*) filter (where c.closed_at is null
    and c.opened_at > v_now - least(v_minutes, 525600) * interval '1 minute'),
    min(c.opened_at) filter (where c.closed_at is null
      and c.opened_at > v_now - least(v_minutes, 525600) * interval '1 minute')
  into v_last, v_open, v_oldest
  from governance.checkouts c where c.account_id = v_account.account_id;
  if v_account.blocked_at is not null and (v_account.blocked_until is null or v_account.blocked_until > v_now) then
    v_reason := 'user_blocked';
    v_retry := extract(epoch from v_account.blocked_until - v_now);
  elsif not (case when v_pack.plans is null then v_plan.allows_top_up else v_account.plan_id = any (v_pack.plans) end)
    then
    v_reason := 'plan_not_allowed';
  elsif v_last > v_now - least(v_cooldown, 31536000) * interval '1 second' then
    v_reason := 'cooldown';
    v_retry := extract(epoch from v_last - v_now) + v_cooldown;
  elsif v_open >= v_limit then
    v_reason := 'too_many_open_checkouts';
    v_retry := extract(epoch from v_oldest - v_now) + v_minutes * 60;
  else
    insert into governance.checkouts (account_id, pack_id, opened_at) values (v_account.account_id, p_pack_id, v_now);
  end if;
  return jsonb_build_object('allowed', v_reason is null, 'reason', v_reason, 'retry_after_seconds', case
    when v_retry is not null then greatest(ceil(v_retry), 1)::bigint end,
    'pack', jsonb_build_object('pack_id', v_pack.pack_id, 'tokens', v_pack.tokens, 'price_minor', v_pack.price_minor,
      'currency', v_pack.currency));
end
$$;
comment on function public.begin_checkout(text, text) is
  'Whether a user may begin to buy a pack now: plan, block, cooldown (setting purchase_cooldown_seconds), open '
  'checkouts (open_checkout_limit within open_checkout_minutes). Allowed ones count. Errors: invalid_argument, '
  'unknown_user, unknown_pack.';
revoke all on function public.begin_checkout(text, text) from public, anon, authenticated;
grant execute on function public.begin_checkout(text, text) to service_role;

-- schemas/65_invoices.sql
-- Paid invoices: what each of their sales grants, and what is booked for it.

create function governance.apportion(p_total bigint, p_weights bigint[]) returns bigint[]
  language plpgsql immutable set search_path = '' as $$
declare
  v_sum numeric := (select sum(w) from unnest(p_weights) w);
  v_upto numeric := 0;
  v_given bigint := 0;
  v_next bigint;
  v_parts bigint[] := '{}';
  v_weight bigint;
begin
  foreach v_weight in array p_weights loop
    v_upto := v_upto + v_weight;
    v_next := case when v_sum > 0 then trunc(p_total * v_upto / v_sum) else 0 end;
    v_parts := v_parts || (v_next - v_given);
    v_given := v_next;
  end loop;
  return v_parts;
end
$$;
comment on function governance.apportion(bigint, bigint[]) is
  'Splits an amount by weights into whole parts that add up to it; all 0 where the weights are.';

create function governance.sum_amounts(p_list jsonb) returns bigint
  language sql immutable set search_path = '' as $$
  select coalesce(sum(governance.stripe_whole(x.value -> 'amount')), 0)::bigint
  from jsonb_array_elements(case when jsonb_typeof(p_list) = 'array' then p_list else '[]' end) x
$$;
comment on function governance.sum_amounts(jsonb) is 'The sum of "amount" over a list such as total_discount_amounts.';

create function governance.invoice_tax(o jsonb) returns bigint
  language sql immutable set search_path = '' as $$
  select greatest(coalesce(governance.stripe_whole(o -> 'total') - governance.stripe_whole(o -> 'total_excluding_tax'),
    governance.stripe_whole(o -> 'tax'), governance.sum_amounts(o -> 'total_taxes')
      + governance.sum_amounts(o -> 'total_tax_amounts')), 0)
$$;
comment on function governance.invoice_tax(jsonb) is 'Tax within an invoice''s total, however its API version tells it.';

create function governance.invoice_shares(o jsonb) returns governance.invoice_share[]
  language plpgsql immutable set search_path = '' as $$
declare
  v_paid bigint := greatest(coalesce(governance.stripe_whole(o -> 'amount_paid'), 0), 0);
  v_total bigint := coalesce(governance.stripe_whole(o -> 'total'), v_paid);
  v_tax bigint := governance.invoice_tax(o);
  v_is_outside boolean := coalesce(o -> 'paid_out_of_band' = 'true', false);
  v_listed bigint;
  v_net bigint;
  v_weights bigint[];
  v_booked bigint[];
  v_collected bigint[];
  v_covered bigint[];
begin
  select coalesce(sum(greatest(l.amount, 0)), 0), least(coalesce(sum(l.amount - l.discount), 0),
      coalesce(sum(l.amount), 0) - governance.sum_amounts(o -> 'total_discount_amounts')),
    coalesce(array_agg(greatest(l.amount - l.discount, 0) order by l.n), '{}')
  into v_listed, v_net, v_weights
  from (select x.n, coalesce(governance.stripe_whole(x.value -> 'amount'), 0) as amount,
      governance.sum_amounts(x.value -> 'discount_amounts') as discount
    from jsonb_array_elements(governance.stripe_list(o -> 'lines')) with ordinality x(value, n)) l;
  v_collected := governance.apportion(case when v_is_outside then 0 else v_paid end, v_weights);
  v_booked := governance.apportion(case when v_is_outside then greatest(v_total - v_tax, 0)
    -- What was paid above the total was owed from before.
    when v_total > 0 then least(v_paid, v_total) - trunc(v_tax::numeric * least(v_paid, v_total) / v_total)::bigint
    else 0 end, v_weights);
  v_covered := governance.apportion(greatest(v_listed + greatest(v_total - v_net, 0)
    - case when v_is_outside then 0 else v_paid end, 0), v_weights);
  return array(select row(v_booked[n], v_collected[n], v_covered[n])::governance.invoice_share
    from generate_series(1, cardinality(v_weights)) n order by n);
end
$$;
comment on function governance.invoice_shares(jsonb) is
  'What each line of an invoice brought: booked (paid for it, net of tax), collected (through Stripe, tax included), '
  'covered (by a discount, a credit, the customer''s balance or outside of Stripe). All lines share credits and '
  'discounts in proportion, so that collected adds up to amount_paid.';

create function governance.invoice_covered_by(o jsonb) returns text
  language sql immutable set search_path = '' as $$
  select nullif(concat_ws(', ',
    case when o -> 'paid_out_of_band' = 'true' then 'paid outside of Stripe' end,
    case when governance.sum_amounts(o -> 'total_discount_amounts') > 0 then 'discount' end,
    case when o -> 'paid_out_of_band' is distinct from 'true'
      and governance.stripe_whole(o -> 'total') > governance.stripe_whole(o -> 'amount_paid')
        + coalesce(governance.stripe_whole(o -> 'pre_payment_credit_notes_amount'), 0)
      then 'customer balance' end,
    case when governance.stripe_whole(o -> 'pre_payment_credit_notes_amount') > 0 then 'credit note' end,
    case when exists (select from jsonb_array_elements(governance.stripe_list(o -> 'lines')) x
      where governance.stripe_whole(x.value -> 'amount') < 0) then 'credit' end,
    case when governance.stripe_whole(o -> 'amount_paid') = 0 and not exists (
      select from jsonb_array_elements(governance.stripe_list(o -> 'lines')) x
      where governance.stripe_whole(x.value -> 'amount') <> 0) then 'trial' end), '')
$$;
comment on function governance.invoice_covered_by(jsonb) is
  'In words, what paid for an invoice beside the payment; null where the payment did.';

create function governance.invoice_dues(o jsonb, p_metadata jsonb, p_subscription text)
  returns setof governance.invoice_due
  language sql stable set search_path = '' as $$
  with lines as (
    select x.n, governance.stripe_object(x.value) as line, s.booked_minor, s.collected_minor, s.covered_minor,
      coalesce(x.value -> 'proration' = 'true', false)
        or coalesce(x.value #> '{parent,subscription_item_details,proration}' = 'true', false) as is_proration,
      governance.stripe_whole(x.value -> 'amount') as amount,
      coalesce(governance.told_tokens(x.value), k.tokens) as price_tokens,
      btrim(x.value #>> '{metadata,tokens}') as line_tokens,
      coalesce(btrim(p_metadata ->> 'tokens'), (select s.tokens from governance.stripe_subscriptions s
        where s.subscription_id = p_subscription)) as subscription_tokens,
      coalesce(governance.stripe_whole(x.value -> 'quantity'), 1) as quantity
    from jsonb_array_elements(governance.stripe_list(o -> 'lines')) with ordinality x(value, n)
    join unnest(governance.invoice_shares(o)) with ordinality s(booked_minor, collected_minor, covered_minor, n)
      using (n)
    left join governance.stripe_prices k on k.price_id = governance.price_of(x.value)
    where governance.stripe_id(x.value -> 'subscription') is not null or x.value ->> 'type' = 'subscription'
      or x.value #>> '{parent,type}' = 'subscription_item_details'
  ), sold as (
    select l.*,
      -- Stripe copies the subscription's metadata to each line: those tokens are the subscription's, once a period.
      case when l.line_tokens is distinct from l.subscription_tokens and l.line_tokens is not null then l.line_tokens
        when l.price_tokens is not null then case
          when l.price_tokens ~ '^[0-9]{1,15}$' and l.quantity between 1 and 1000000
          then (l.price_tokens::numeric * l.quantity)::text else l.price_tokens end
        else l.subscription_tokens end as tokens,
      coalesce(governance.plan_of(p_metadata, l.line), (select p.plan_id from governance.stripe_subscriptions s
        join governance.plans p using (plan_id) where s.subscription_id = p_subscription)) as any_plan_id,
      governance.price_plan(l.line) as price_plan_id,
      governance.metadata_text(governance.stripe_object(l.line -> 'metadata'), 'plan_id', 'planId', 'plan')
        as own_plan_id,
      governance.metadata_text(p_metadata, 'plan_id', 'planId', 'plan') as subscription_plan_id,
      -- Until a subscription has told what this price is for, nobody knows whether the plan has changed.
      governance.price_of(l.line) is not null and jsonb_typeof(l.line -> 'price') is distinct from 'object'
        and jsonb_typeof(l.line -> 'plan') is distinct from 'object' and not exists (
        select from governance.stripe_prices k where k.price_id = governance.price_of(l.line)) as has_new_price
    from lines l where l.amount is null or l.amount >= 0
  ), planned as (
    select s.*, case
      when s.price_plan_id is not null or s.own_plan_id is distinct from s.subscription_plan_id
        and s.own_plan_id is not null then s.any_plan_id
      -- Beside the price of a plan, a line that names none is for something else.
      when s.tokens is null and exists (select from sold x where x.price_plan_id is not null) then null
      when s.has_new_price and exists (select from governance.stripe_subscriptions k
        where k.subscription_id = p_subscription and k.is_priced) then null
      else s.any_plan_id end as plan_id
    from sold s
  ), named as (
    select s.*, case
      when s.tokens is null then 'plan ' || s.plan_id
      when s.tokens = s.subscription_tokens and s.price_tokens is null then 'subscription'
      else 'line ' || s.n end as sale,
      governance.stripe_id(s.line -> 'id') as id, governance.stripe_time(s.line #> '{period,start}') as period_from,
      governance.stripe_time(s.line #> '{period,end}') as period_to
    from planned s where s.tokens is not null or s.plan_id is not null
  ), grouped as (
    select n.sale, (array_agg(n.tokens order by n.is_proration, n.n))[1] as tokens,
      (array_agg(n.plan_id order by n.is_proration, n.n) filter (where n.plan_id is not null))[1] as plan_id,
      (array_agg(n.id order by n.is_proration, n.n))[1] as id,
      (array_agg(n.period_from order by n.is_proration, n.n))[1] as period_from,
      (array_agg(n.period_to order by n.is_proration, n.n))[1] as period_to, min(n.n) as place,
      sum(n.booked_minor)::bigint as booked, sum(n.collected_minor)::bigint as collected,
      sum(n.covered_minor)::bigint as covered, bool_and(n.is_proration) as is_proration,
      bool_or(n.amount is null) as has_no_amount
    from named n group by n.sale
  )
  select
    case
      when g.id is null or g.period_from is null or g.period_to is null or g.period_to <= g.period_from then 'malformed'
      when g.has_no_amount then 'amount_mismatch'
      when g.tokens is not null and (g.tokens !~ '^[0-9]{1,15}$' or g.tokens::bigint = 0) then 'invalid_tokens'
      when g.tokens::bigint > 100000000 then 'tokens_above_ceiling'
      -- Part of a period of a price that names tokens: how many it buys only a person can say.
      when g.is_proration and g.tokens is not null then 'proration'
    end,
    -- Older line ids name the subscription, not the line: then invoice and period make it one of a kind.
    case when g.id like 'il\_%' then g.id
      else governance.stripe_id(o -> 'id') || ':' || g.id || ':' || extract(epoch from g.period_from)::bigint end,
    g.plan_id, case when g.tokens ~ '^[0-9]{1,15}$' then g.tokens::bigint end, g.booked, g.collected, g.covered,
    g.period_from, g.period_to, exists (select from lines l where l.amount < 0)
  from grouped g order by g.place
$$;
comment on function governance.invoice_dues(jsonb, jsonb, text) is
  'What a paid invoice is to grant, one row a sale: tokens that a line or its price names (times the quantity), tokens '
  'of the subscription once, or a plan''s allowance once, each with the money of all its lines. problem is why the '
  'invoice waits.';

create function governance.adopt_allowance(p_account_id bigint, p_now timestamptz, p_event_id text,
  p_pay governance.stripe_payments, p_due governance.invoice_due, p_currency text, p_expires timestamptz)
  returns governance.granted
  language plpgsql set search_path = '' as $$
declare
  v_lot governance.lots;
  v_entry governance.granted;
begin
  select * into v_lot from governance.lots l
  where l.account_id = p_account_id and l.kind = 'subscription' and l.stripe_invoice_line_id is null
    and l.expires_at > p_now
  order by l.granted desc, l.lot_id desc limit 1;
  if v_lot.lot_id is null then return null; end if;
  update governance.lots l set stripe_invoice_line_id = p_due.key, stripe_charge_id = p_pay.charge_id,
    stripe_payment_intent_id = p_pay.payment_intent_id, amount_minor = p_due.booked_minor, currency = p_currency,
    expires_at = greatest(l.expires_at, p_expires)
  where l.lot_id = v_lot.lot_id;
  v_entry.transaction_id := (governance.append_entry(p_account_id, 'subscription_grant', p_now,
    array[v_lot.lot_id, 0::bigint], 0, 0, 0, 0, p_due.key, 'Invoice paid: this month''s allowance is there already',
    jsonb_strip_nulls(jsonb_build_object('cause', p_event_id, 'invoice_id', p_pay.invoice_id, 'plan_id', p_due.plan_id,
      'amount_minor', p_due.booked_minor, 'currency', p_currency)))).transaction_id;
  v_entry.lot_id := v_lot.lot_id;
  return v_entry;
end
$$;
comment on function governance.adopt_allowance(bigint, timestamptz, text, governance.stripe_payments,
  governance.invoice_due, text, timestamptz) is
  'The allowance that an account got before its invoice was paid becomes the paid one; null where there is none. The '
  'caller holds the account''s lock.';

create function governance.supplement_lot(p_account_id bigint, p_now timestamptz, p_event_id text,
  p_pay governance.stripe_payments, p_due governance.invoice_due, p_currency text, p_subscription text)
  returns governance.granted
  language plpgsql set search_path = '' as $$
declare
  v_lot governance.lots;
  v_entry governance.granted;
begin
  select l.* into v_lot from governance.lots l join governance.stripe_lots s using (lot_id)
    join governance.stripe_payments p using (payment_id)
  where l.account_id = p_account_id and p.subscription_id = p_subscription and l.currency = p_currency
  order by l.lot_id desc limit 1;
  if v_lot.lot_id is null then return null; end if;
  update governance.lots l set amount_minor = l.amount_minor + p_due.booked_minor where l.lot_id = v_lot.lot_id;
  v_entry.transaction_id := (governance.append_entry(p_account_id, 'subscription_grant', p_now,
    array[v_lot.lot_id, 0::bigint], 0, 0, 0, 0, p_due.key, 'Invoice paid: more for tokens that are there already',
    jsonb_strip_nulls(jsonb_build_object('cause', p_event_id, 'invoice_id', p_pay.invoice_id, 'plan_id', p_due.plan_id,
      'amount_minor', v_lot.amount_minor + p_due.booked_minor, 'currency', p_currency)))).transaction_id;
  v_entry.lot_id := v_lot.lot_id;
  return v_entry;
end
$$;
comment on function governance.supplement_lot(bigint, timestamptz, text, governance.stripe_payments,
  governance.invoice_due, text, text) is
  'More money for tokens that are there already (a seat more in mid-period): added to the price of their lot. Null '
  'where there is none. The caller holds the account''s lock.';

create function governance.given_in_period(p_account_id bigint, p_now timestamptz, p_event_id text,
  p_due governance.invoice_due, p_subscription text, p_expires timestamptz) returns bigint
  language plpgsql set search_path = '' as $$
declare
  v_lot record;
  v_given bigint := 0;
begin
  for v_lot in
    select l.lot_id, l.granted, l.expired, l.is_open, l.expires_at, r.period_end
    from governance.lots l join governance.stripe_lots s using (lot_id)
      join governance.stripe_payments p on p.payment_id = s.payment_id
      join governance.purchase_records r on r.lot_id = l.lot_id and r.record_type = 'grant'
    where l.account_id = p_account_id and l.kind = 'subscription' and p.subscription_id = p_subscription
      and r.period_end > p_due.period_from and r.period_start < p_due.period_to
      -- A period that ends sooner (a trial, a period that was begun anew) is another one, unless it was credited.
      and (r.period_end >= p_due.period_to or p_due.is_credited)
    order by l.lot_id
  loop
    v_given := v_given + v_lot.granted;
    continue when v_lot.period_end >= p_due.period_to;
    v_given := v_given - v_lot.expired;
    if v_lot.is_open and v_lot.expires_at < p_expires then
      update governance.lots l set expires_at = p_expires where l.lot_id = v_lot.lot_id;
      perform governance.append_entry(p_account_id, 'subscription_grant', p_now, array[v_lot.lot_id, 0::bigint], 0, 0,
        0, 0, p_due.key, 'Period begun anew: its tokens last until the end of the new one',
        jsonb_build_object('cause', p_event_id));
    end if;
  end loop;
  return v_given;
end
$$;
comment on function governance.given_in_period(bigint, timestamptz, text, governance.invoice_due, text, timestamptz) is
  'How much of a period''s allowance its subscription has given already. Where the period began anew and the rest of '
  'the old one was credited, its tokens go on into the new one. The caller holds the account''s lock.';

create function governance.grant_invoice_due(p_now timestamptz, p_event_id text, p_payment_id bigint,
  p_account_id bigint, p_due governance.invoice_due, p_currency text, p_subscription text, p_covered_by text)
  returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_account governance.accounts := governance.lock_account_id(p_account_id);
  v_plan governance.plans;
  v_pay governance.stripe_payments;
  v_more bigint := p_due.tokens;
  v_expires timestamptz := p_due.period_to;
  v_granted governance.granted;
  v_type text := 'grant';
  v_on_cancel text;
begin
  update governance.stripe_payments p set account_id = p_account_id,
    subscription_id = coalesce(p.subscription_id, p_subscription)
  where p.payment_id = p_payment_id returning * into strict v_pay;
  if p_due.plan_id is not null then
    select * into strict v_plan from governance.plans p where p.plan_id = p_due.plan_id;
    perform governance.switch_to_paid_plan(p_account_id, p_due.plan_id, p_subscription, p_due.period_from);
  end if;
  if p_due.tokens is null then
    -- Paid for a month or less, the tokens last as long as the period, and until Stripe has had time to collect the
    -- next one (about an hour). Paid for longer, they come month by month.
    v_expires := case when p_due.period_to - p_due.period_from > interval '45 days'
      then (v_account.local_month + (1 + v_plan.rollover_months) * interval '1 month')::timestamp
        at time zone v_account.timezone
      else p_due.period_to + interval '90 minutes' + v_plan.rollover_months * interval '1 month' end;
    -- What this period already gave is not given again.
    v_more := greatest(v_plan.monthly_allowance - coalesce((
      select sum(l.granted) from governance.lots l
      where l.account_id = p_account_id and l.kind = 'subscription' and l.stripe_invoice_line_id is null
        and l.expires_at > p_now), 0)
      - governance.given_in_period(p_account_id, p_now, p_event_id, p_due, p_subscription, v_expires), 0);
    update governance.accounts a set month_allowance = greatest(a.month_allowance, v_plan.monthly_allowance)
    where a.account_id = p_account_id;
  end if;
  if v_more > 0 then
    v_granted := governance.grant_tokens(p_account_id, 'subscription', v_more, 'subscription_grant', p_now, v_expires,
      p_due.key, 'Subscription ' || coalesce(p_due.plan_id, ''),
      jsonb_strip_nulls(jsonb_build_object('cause', p_event_id, 'invoice_id', v_pay.invoice_id,
        'plan_id', p_due.plan_id, 'period_start', p_due.period_from, 'period_end', p_due.period_to,
        'amount_minor', p_due.booked_minor,
        'currency', p_currency)),
      jsonb_build_object('stripe_charge_id', v_pay.charge_id, 'stripe_payment_intent_id', v_pay.payment_intent_id,
        'stripe_invoice_line_id', p_due.key, 'amount_minor', p_due.booked_minor, 'currency', p_currency));
  else
    v_granted := governance.adopt_allowance(p_account_id, p_now, p_event_id, v_pay, p_due, p_currency, v_expires);
    if v_granted.lot_id is null then
      v_granted := governance.supplement_lot(p_account_id, p_now, p_event_id, v_pay, p_due, p_currency, p_subscription);
      v_type := 'supplement';
    end if;
    if v_granted.lot_id is null then return '[]'; end if;
  end if;
  if v_type = 'grant' then
    insert into governance.stripe_lots (lot_id, payment_id, tokens)
    select l.lot_id, p_payment_id, l.granted from governance.lots l where l.lot_id = v_granted.lot_id;
  end if;
  perform governance.record_purchase(v_granted.transaction_id, v_type, v_granted.lot_id, p_payment_id,
    case when v_type = 'grant' then (select l.granted from governance.lots l where l.lot_id = v_granted.lot_id)
      else 0 end,
    0, (select l.amount_minor from governance.lots l where l.lot_id = v_granted.lot_id), p_currency,
    p_line_id => p_due.key, p_period_start => p_due.period_from, p_period_end => p_due.period_to,
    p_collected => p_due.collected_minor, p_covered => p_due.covered_minor, p_covered_by => p_covered_by);
  perform governance.note_paid_period(p_subscription, p_account_id, p_due, p_now);
  -- The subscription ended before its invoice was delivered: its tokens share the fate of the others, which the plan
  -- at its end decides.
  select coalesce(p.on_cancel, 'keep') into v_on_cancel
  from governance.stripe_subscriptions s
  left join governance.plans p on p.plan_id = coalesce(s.plan_id, s.paid_plan_id, p_due.plan_id, v_account.plan_id)
  where s.subscription_id = p_subscription and s.canceled_at is not null;
  if v_type = 'grant' and found then
    perform governance.end_subscription_lots(p_account_id, v_on_cancel, p_now, p_subscription, false, v_granted.lot_id);
  end if;
  return jsonb_build_array(governance.effect('grant', v_account.user_id, v_more, v_granted.transaction_id));
end
$$;
comment on function governance.grant_invoice_due(timestamptz, text, bigint, bigint, governance.invoice_due, text, text,
  text) is
  'Grants one sale of a paid invoice: the tokens it names, or its plan''s allowance as far as the period has not given '
  'it. The caller holds the payment''s locks.';

create function governance.on_invoice(p_event_id text, p_now timestamptz, p_told_at timestamptz, o jsonb,
  p_livemode boolean) returns governance.stripe_outcome
  language plpgsql set search_path = '' as $$
declare
  v_invoice text := governance.stripe_id(o -> 'id');
  v_customer text := governance.stripe_id(o -> 'customer');
  -- From 2025-03-31 an invoice names neither subscription, payment nor charge at its top.
  v_parent jsonb := governance.stripe_object(o #> '{parent,subscription_details}');
  v_subscription text := coalesce(governance.stripe_id(o -> 'subscription'),
    governance.stripe_id(v_parent -> 'subscription'));
  v_intent text := coalesce(governance.stripe_id(o -> 'payment_intent'),
    governance.stripe_id(o #> '{payments,data,0,payment,payment_intent}'));
  v_charge text := coalesce(governance.stripe_id(o -> 'charge'),
    governance.stripe_id(o #> '{payments,data,0,payment,charge}'));
  v_metadata jsonb := governance.stripe_object(o -> 'metadata') || governance.stripe_object(v_parent -> 'metadata')
    || governance.stripe_object(o #> '{subscription_details,metadata}');
  v_user_id text;
  v_currency text := governance.stripe_currency(o -> 'currency');
  v_paid bigint := governance.stripe_whole(o -> 'amount_paid');
  v_pay governance.stripe_payments;
  v_account_id bigint;
  v_due governance.invoice_due;
  v_dues governance.invoice_due[];
  v_plan_id text;
  v_problem text;
  v_effects jsonb := '[]';
begin
  if v_invoice is null then return governance.outcome('quarantined', 'malformed'); end if;
  if o -> 'subscription_details' is null and v_parent = '{}' then
    -- Before 2023 the subscription's metadata is on its lines alone.
    v_metadata := v_metadata || coalesce((select governance.stripe_object(x.value -> 'metadata')
      from jsonb_array_elements(governance.stripe_list(o -> 'lines')) with ordinality x(value, n)
      where x.value ->> 'type' = 'subscription' order by x.n limit 1), '{}');
  end if;
  v_user_id := governance.metadata_text(v_metadata, 'user_id', 'userId', 'userid');
  if coalesce(o ->> 'status', 'paid') <> 'paid' then return governance.outcome('processed', 'awaiting_payment'); end if;
  v_pay := governance.note_payment(p_now, v_intent, v_charge, null, v_invoice, v_customer, p_livemode);
  if jsonb_typeof(o -> 'number') = 'string' and char_length(o ->> 'number') between 1 and 100 then
    insert into governance.stripe_invoice_numbers (invoice_id, number) values (v_invoice, upper(o ->> 'number'))
    on conflict do nothing;
  end if;
  if v_subscription is not null then
    perform governance.lock_stripe_ids(v_subscription);
  end if;
  v_account_id := coalesce((select a.account_id from governance.accounts a where a.user_id = v_user_id),
    (select s.account_id from governance.stripe_subscriptions s where s.subscription_id = v_subscription),
    (select c.account_id from governance.stripe_customers c where c.customer_id = v_customer));
  v_dues := array(select d from governance.invoice_dues(o, v_metadata, v_subscription) d);

  if v_dues = '{}' and v_subscription is null and governance.is_token_order(v_metadata) then
    -- A single invoice for a pack.
    return governance.on_paid_order(p_event_id, p_now, p_told_at, o || jsonb_build_object('invoice', v_invoice,
      'total_details', jsonb_build_object('amount_tax', governance.invoice_tax(o), 'amount_discount',
        governance.sum_amounts(o -> 'total_discount_amounts'))), v_metadata, v_user_id,
      governance.metadata_text(v_metadata, 'pack_id', 'packId', 'packid'), v_intent, v_charge, null, p_livemode,
      o -> 'amount_paid');
  end if;
  if v_dues = '{}' then
    -- The plan may be told later, by the subscription or its Checkout Session.
    return case when v_subscription is null then governance.outcome('ignored', 'not_a_token_purchase')
      when v_user_id is not null
        then governance.outcome('quarantined', 'unknown_plan', '[]', v_pay.payment_id, v_customer)
      else governance.outcome('parked', 'not_known_yet', '[]', v_pay.payment_id, v_customer) end;
  end if;
  v_problem := case
    when o #> '{lines,has_more}' = 'true' then 'lines_missing'
    when v_paid is null or v_paid < 0 then 'amount_mismatch'
    when v_currency is null then 'currency_mismatch'
  end;
  -- All of its lines or none: a line that does not fit keeps the others waiting.
  foreach v_due in array v_dues loop
    v_problem := coalesce(v_problem, v_due.problem);
    v_plan_id := coalesce(v_due.plan_id, v_plan_id);
  end loop;
  if v_problem is null and v_account_id is null then v_problem := 'unknown_user'; end if;
  if v_problem is not null then
    return governance.outcome('quarantined', v_problem, '[]', v_pay.payment_id, case
      when v_problem = 'unknown_user' then v_customer end);
  end if;
  foreach v_due in array v_dues loop
    continue when exists (select from governance.purchase_records r
      where r.invoice_line_id = v_due.key and r.account_id = v_account_id);
    update governance.stripe_payments p set amount_minor = coalesce(p.amount_minor, v_paid),
      currency = coalesce(p.currency, v_currency), paid_at = coalesce(p.paid_at, p_told_at, p_now)
    where p.payment_id = v_pay.payment_id;
    v_effects := v_effects || governance.grant_invoice_due(p_now, p_event_id, v_pay.payment_id, v_account_id, v_due,
      v_currency, v_subscription, governance.invoice_covered_by(o));
  end loop;
  perform governance.learn_customer(v_customer, v_account_id);
  if v_subscription is not null then
    v_effects := v_effects || governance.note_subscription(p_now, p_event_id, v_subscription, v_customer, v_account_id,
      v_plan_id);
  end if;
  return governance.outcome('processed', null, v_effects
    || governance.settle_payment(v_pay.payment_id, p_now, p_event_id), v_pay.payment_id);
end
$$;
comment on function governance.on_invoice(text, timestamptz, timestamptz, jsonb,
  boolean) is 'invoice.paid, in its shapes before and after 2025-03-31: each subscription line and period grants once.';

-- schemas/66_settlement.sql
-- Tokens follow the money: what a payment bought is granted, and moved to where refunds and disputes put it.

create function governance.pro_rata(p_tokens bigint, p_part bigint, p_of bigint) returns bigint
  language sql immutable set search_path = '' as $$
  select case when p_of <= 0 or p_part >= p_of then p_tokens when p_part <= 0 then 0
    else trunc(p_tokens::numeric * p_part / p_of)::bigint end
$$;
comment on function governance.pro_rata(bigint, bigint,
  bigint) is 'tokens × part ÷ of, rounded down, all of them when part reaches of; nothing of nothing. The core''s '
    'proRata is the same.';

create function governance.record_purchase(
  p_transaction_id bigint, p_type text, p_lot_id bigint, p_payment_id bigint, p_tokens bigint, p_debt bigint default 0,
    p_amount bigint default null,
  p_currency text default null, p_refund_id text default null, p_dispute_id text default null,
    p_line_id text default null,
  p_period_start timestamptz default null, p_period_end timestamptz default null, p_difference_id text default null,
  p_collected bigint default null, p_covered bigint default null, p_covered_by text default null
) returns void
  language plpgsql set search_path = '' as $$
begin
  insert into governance.purchase_records (transaction_id, account_id, created_at, record_type, lot_id, payment_id,
    tokens, debt_tokens,
    amount_minor, currency, refund_id, dispute_id, invoice_line_id, period_start, period_end, difference_id,
    collected_minor, covered_minor, covered_by)
  select t.transaction_id, t.account_id, t.created_at, p_type, p_lot_id, p_payment_id, p_tokens, p_debt, p_amount,
    p_currency, p_refund_id,
    p_dispute_id, p_line_id, p_period_start, p_period_end, p_difference_id, p_collected, nullif(p_covered, 0),
    p_covered_by
  from governance.token_transactions t where t.transaction_id = p_transaction_id;
end
$$;
comment on function governance.record_purchase(bigint, text, bigint, bigint, bigint, bigint, bigint, text, text, text,
  text, timestamptz, timestamptz, text, bigint, bigint, text) is
  'Notes what a ledger entry has to do with a payment.';

create function governance.take_back(p_lot_id bigint, p_tokens bigint, p_type text, p_now timestamptz, p_reference text,
  p_description text, p_metadata jsonb) returns governance.lot_taking
  language plpgsql set search_path = '' as $$
declare
  v_lot governance.lots;
  v_free bigint;
  v_expired bigint;
begin
  select * into strict v_lot from governance.lots l where l.lot_id = p_lot_id;
  select a.subscription_tokens + a.purchased_tokens + a.promotional_tokens - a.reserved_tokens into strict v_free
  from governance.accounts a where a.account_id = v_lot.account_id;
  -- What expired unused is not owed: it is only called by another name.
  v_expired := least(v_lot.expired, greatest(p_tokens - v_lot.frozen - least(v_lot.remaining, v_free), 0));
  if v_expired > 0 then
    update governance.lots l set expired = l.expired - v_expired, clawed_back = l.clawed_back + v_expired
      where l.lot_id = p_lot_id;
  end if;
  return governance.claw_back_lot(p_lot_id, p_tokens - v_expired, p_type, p_now, p_reference, p_description,
    p_metadata);
end
$$;
comment on function governance.take_back(bigint, bigint, text, timestamptz, text, text, jsonb) is
  'Takes tokens of a lot back: frozen, unspent, then expired ones; what was spent becomes debt. The caller holds the '
  'account''s lock.';

create function governance.give_back(p_lot_id bigint, p_tokens bigint, p_now timestamptz, p_reference text,
  p_description text, p_metadata jsonb) returns bigint
  language plpgsql set search_path = '' as $$
declare
  v_lot governance.lots;
  v_owed bigint;
  v_debt bigint;
  v_unspent bigint;
  v_returned bigint;
begin
  select * into strict v_lot from governance.lots l where l.lot_id = p_lot_id;
  -- First what was owed for it: still open debt is struck, paid debt comes back as tokens.
  select least(s.owed, p_tokens) into strict v_owed from governance.stripe_lots s where s.lot_id = p_lot_id;
  select least(a.debt_tokens, v_owed) into strict v_debt from governance.accounts a
    where a.account_id = v_lot.account_id;
  v_unspent := least(v_owed - v_debt, v_lot.spent);
  v_returned := least(p_tokens - v_owed, v_lot.clawed_back);
  update governance.lots l set
    remaining = l.remaining + v_unspent + v_returned, spent = l.spent - v_unspent,
      clawed_back = l.clawed_back - v_returned, is_open = true
  where l.lot_id = p_lot_id and v_unspent + v_returned > 0;
  update governance.stripe_lots s set owed = s.owed - v_owed where s.lot_id = p_lot_id;
  if v_lot.expires_at is not null then
    update governance.accounts a set lots_check_at = least(a.lots_check_at, v_lot.expires_at)
      where a.account_id = v_lot.account_id;
  end if;
  return (governance.append_entry(v_lot.account_id, 'reversal', p_now,
    case when v_unspent + v_returned > 0 then array[p_lot_id, v_unspent + v_returned] else '{}' end,
    case v_lot.kind when 'subscription' then v_unspent + v_returned else 0 end, case v_lot.kind
      when 'purchased' then v_unspent + v_returned else 0 end,
    case v_lot.kind when 'promotional' then v_unspent + v_returned
      else 0 end, -v_debt, p_reference, p_description, p_metadata)).transaction_id;
end
$$;
comment on function governance.give_back(bigint, bigint, timestamptz, text, text, jsonb) is
  'Undoes a taking back: debt first, then tokens into the lot. Answers the entry. The caller holds the account''s '
    'lock.';

create function governance.effect(p_type text, p_user_id text, p_tokens bigint, p_transaction_id bigint) returns jsonb
  language sql stable set search_path = '' as $$
  select jsonb_build_object('type', p_type, 'user_id', p_user_id, 'tokens', p_tokens, 'transaction_id',
    p_transaction_id)
$$;
comment on function governance.effect(text, text, bigint, bigint) is 'One effect as process_stripe_event answers it.';

create function governance.money_back(p_pay governance.stripe_payments) returns governance.money_back
  language plpgsql stable set search_path = '' as $$
declare
  v_told bigint := p_pay.refunded_minor + (select coalesce(sum(n.refunded_minor), 0)
    from governance.stripe_payment_names n where n.payment_id = p_pay.payment_id);
  v_back governance.money_back;
begin
  select greatest(coalesce(sum(r.amount_minor) filter (where r.state = 2), 0),
      v_told - coalesce(sum(r.amount_minor) filter (where r.state = 3), 0)),
    case when count(*) filter (where r.state = 2) = 1 then max(r.refund_id) filter (where r.state = 2) end
  into v_back.refunded, v_back.refund_id
  from governance.stripe_refunds r where r.payment_id = p_pay.payment_id;
  if p_pay.refunded_override_at is not null
    and not exists (select from governance.stripe_refunds r
      where r.payment_id = p_pay.payment_id and r.told_at > p_pay.refunded_override_at)
    and coalesce(p_pay.refunded_at, '-infinity') <= p_pay.refunded_override_at then
    v_back.refunded := p_pay.refunded_override_minor;
  end if;
  select coalesce(sum(d.amount_minor) filter (where d.stage = 3 and d.is_lost), 0),
    coalesce(bool_or(d.stage = 2 and not d.is_reinstated), false),
    max(d.dispute_id), coalesce(max(d.amount_minor), 0)
  into v_back.lost, v_back.is_disputed, v_back.dispute_id, v_back.disputed
  from (select x.stage, x.is_lost, x.is_reinstated, x.dispute_id,
      -- In another currency a part cannot be told from the whole: the whole payment is disputed.
      case when x.currency <> p_pay.currency then p_pay.amount_minor else x.amount_minor end as amount_minor
    from governance.stripe_disputes x where x.payment_id = p_pay.payment_id) d;
  return v_back;
end
$$;
comment on function governance.money_back(governance.stripe_payments) is
  'What of a payment was refunded or lost in disputes, as far as Stripe has told.';

create function governance.settle_lot(p_lot governance.stripe_lots, p_pay governance.stripe_payments,
  p_back governance.money_back, p_now timestamptz, p_reference text, p_metadata jsonb, p_difference_id text)
  returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_user_id text := (select a.user_id from governance.accounts a where a.account_id = p_pay.account_id);
  v_due_reversed bigint := case when p_back.refunded = 0 then 0
    else governance.pro_rata(p_lot.tokens, p_back.refunded, p_pay.amount_minor) end;
  v_due_clawed bigint := case when p_back.lost = 0 then 0
    else least(governance.pro_rata(p_lot.tokens, p_back.lost, p_pay.amount_minor), p_lot.tokens - v_due_reversed) end;
  v_dispute jsonb := p_metadata || jsonb_strip_nulls(jsonb_build_object('dispute_id', p_back.dispute_id));
  v_move bigint;
  v_taking governance.lot_taking;
  v_entry bigint;
  v_effects jsonb := '[]';
begin
  -- Given back first, so that the sums never pass what was bought, and debt for it is struck before it counts as taken.
  if v_due_clawed < p_lot.clawed then
    v_move := p_lot.clawed - v_due_clawed;
    v_entry := governance.give_back(p_lot.lot_id, v_move, p_now, p_reference, 'Dispute won: given back', v_dispute);
    update governance.stripe_lots s set clawed = v_due_clawed,
      dispute_state = case when v_due_clawed = 0 and p_back.lost = 0 then 'released' else s.dispute_state end
    where s.lot_id = p_lot.lot_id;
    perform governance.record_purchase(v_entry, 'dispute_release', p_lot.lot_id, p_pay.payment_id, v_move, 0,
      p_back.disputed, p_pay.currency, null, p_back.dispute_id, p_difference_id => p_difference_id);
    v_effects := v_effects || governance.effect('dispute_release', v_user_id, v_move, v_entry);
  end if;
  if v_due_reversed < p_lot.reversed then
    v_move := p_lot.reversed - v_due_reversed;
    v_entry := governance.give_back(p_lot.lot_id, v_move, p_now, p_reference, 'Refund failed: given back', p_metadata);
    update governance.stripe_lots s set reversed = v_due_reversed where s.lot_id = p_lot.lot_id;
    perform governance.record_purchase(v_entry, 'restoration', p_lot.lot_id, p_pay.payment_id, v_move, 0,
      p_back.refunded, p_pay.currency, p_difference_id => p_difference_id);
    v_effects := v_effects || governance.effect('restoration', v_user_id, v_move, v_entry);
  end if;
  if v_due_reversed > p_lot.reversed then
    v_move := v_due_reversed - p_lot.reversed;
    v_taking := governance.take_back(p_lot.lot_id, v_move, 'refund', p_now, p_reference, 'Refund', p_metadata
      || jsonb_strip_nulls(jsonb_build_object('refund_id', p_back.refund_id, 'refunded_minor', p_back.refunded)));
    update governance.stripe_lots s set reversed = v_due_reversed, owed = s.owed + v_taking.debt
    where s.lot_id = p_lot.lot_id;
    perform governance.record_purchase(v_taking.transaction_id, 'refund', p_lot.lot_id, p_pay.payment_id, -v_move,
      v_taking.debt, p_back.refunded, p_pay.currency, p_back.refund_id, p_difference_id => p_difference_id);
    v_effects := v_effects || governance.effect('refund', v_user_id, -v_move, v_taking.transaction_id);
  end if;
  if v_due_clawed > p_lot.clawed then
    v_move := v_due_clawed - p_lot.clawed;
    v_taking := governance.take_back(p_lot.lot_id, v_move, 'reversal', p_now, p_reference, 'Dispute lost', v_dispute);
    update governance.stripe_lots s set clawed = v_due_clawed, owed = s.owed + v_taking.debt, dispute_state = 'clawed'
    where s.lot_id = p_lot.lot_id;
    perform governance.record_purchase(v_taking.transaction_id, 'dispute_clawback', p_lot.lot_id, p_pay.payment_id,
      -v_move, v_taking.debt, p_back.disputed, p_pay.currency, null, p_back.dispute_id,
      p_difference_id => p_difference_id);
    v_effects := v_effects || governance.effect('dispute_clawback', v_user_id, -v_move, v_taking.transaction_id);
  end if;
  return v_effects;
end
$$;
comment on function governance.settle_lot(governance.stripe_lots, governance.stripe_payments, governance.money_back,
  timestamptz, text, jsonb, text) is
  'Takes back or gives back what refunds and decided disputes have changed of one lot. Answers the effects. The caller '
  'holds the account''s lock.';

create function governance.hold_lot(p_lot_id bigint, p_pay governance.stripe_payments, p_back governance.money_back,
  p_now timestamptz, p_reference text, p_metadata jsonb, p_difference_id text) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_lot record;
  v_user_id text := (select a.user_id from governance.accounts a where a.account_id = p_pay.account_id);
  v_metadata jsonb := p_metadata || jsonb_strip_nulls(jsonb_build_object('dispute_id', p_back.dispute_id));
  v_taking governance.lot_taking;
  v_type text;
  v_tokens bigint;
  v_entry bigint;
begin
  -- Read again: governance.settle_lot may have changed it.
  select s.dispute_state, s.clawed, l.remaining, l.frozen into strict v_lot
  from governance.stripe_lots s join governance.lots l using (lot_id) where s.lot_id = p_lot_id;
  if p_back.is_disputed and (v_lot.dispute_state <> 'held' or v_lot.remaining > 0) then
    v_taking := governance.freeze_lot(p_lot_id, v_lot.remaining, p_now, p_reference, 'Dispute opened: frozen',
      v_metadata);
    if v_taking.taken = 0 and v_lot.dispute_state = 'held' then return '[]'; end if;
    v_type := 'dispute_hold';
    v_tokens := -v_taking.taken;
  elsif not p_back.is_disputed and (v_lot.dispute_state = 'held' or v_lot.frozen > 0) then
    v_taking := governance.thaw_lot(p_lot_id, v_lot.frozen, p_now, p_reference, 'Dispute decided: thawed', v_metadata);
    if v_lot.clawed > 0 then return '[]'; end if;
    v_type := 'dispute_release';
    v_tokens := v_taking.taken;
  else
    return '[]';
  end if;
  -- Where no tokens moved, that it was tried is on record all the same.
  v_entry := coalesce(v_taking.transaction_id,
    (governance.append_entry(p_pay.account_id, 'reversal', p_now, '{}', 0, 0, 0, 0, p_reference,
      case v_type when 'dispute_hold' then 'Dispute opened: nothing left to freeze'
        else 'Dispute decided: nothing was frozen' end, v_metadata)).transaction_id);
  update governance.stripe_lots s set dispute_state = case v_type when 'dispute_hold' then 'held' else 'released' end
  where s.lot_id = p_lot_id;
  perform governance.record_purchase(v_entry, v_type, p_lot_id, p_pay.payment_id, v_tokens, 0, p_back.disputed,
    p_pay.currency, null, p_back.dispute_id, p_difference_id => p_difference_id);
  return jsonb_build_array(governance.effect(v_type, v_user_id, v_tokens, v_entry));
end
$$;
comment on function governance.hold_lot(bigint, governance.stripe_payments, governance.money_back, timestamptz, text,
  jsonb, text) is
  'Freezes what is left of a lot while its payment is disputed, and thaws it once that is decided. Answers the '
  'effects. The caller holds the account''s lock.';

create function governance.settle_payment(p_payment_id bigint, p_now timestamptz, p_cause text,
  p_difference_id text default null) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_pay governance.stripe_payments;
  v_back governance.money_back;
  v_lot governance.stripe_lots;
  v_reference text;
  v_metadata jsonb;
  v_effects jsonb := '[]';
begin
  select * into v_pay from governance.stripe_payments p where p.payment_id = p_payment_id;
  if v_pay.account_id is null then return v_effects; end if;
  -- Nothing was refunded or disputed: the common case.
  if v_pay.refunded_minor = 0 and v_pay.refunded_override_at is null
    and not exists (select from governance.stripe_payment_names n
      where n.payment_id = p_payment_id and n.refunded_minor > 0)
    and not exists (select from governance.stripe_refunds r where r.payment_id = p_payment_id)
    and not exists (select from governance.stripe_disputes d where d.payment_id = p_payment_id) then
    return v_effects;
  end if;
  perform governance.lock_account_id(v_pay.account_id);
  v_back := governance.money_back(v_pay);
  v_reference := coalesce(v_pay.charge_id, v_pay.payment_intent_id, v_pay.invoice_id, v_pay.checkout_session_id);
  v_metadata := jsonb_strip_nulls(jsonb_build_object('cause', p_cause, 'charge_id', v_pay.charge_id,
    'payment_intent_id', v_pay.payment_intent_id, 'invoice_id', v_pay.invoice_id, 'difference_id', p_difference_id));
  for v_lot in select * from governance.stripe_lots s where s.payment_id = p_payment_id and not s.is_void
    order by s.lot_id
  loop
    v_effects := v_effects
      || governance.settle_lot(v_lot, v_pay, v_back, p_now, v_reference, v_metadata, p_difference_id)
      || governance.hold_lot(v_lot.lot_id, v_pay, v_back, p_now, v_reference, v_metadata, p_difference_id);
  end loop;
  perform governance.recover_debt(v_pay.account_id, p_now, v_reference);
  if v_effects <> '[]' then perform governance.ring('accounts', p_now); end if;
  return v_effects;
end
$$;
comment on function governance.settle_payment(bigint, timestamptz, text, text) is
  'Moves a payment''s lots to where its refunds and disputes put them: pro rata, capped, debt for what was spent. '
    'Answers the effects; nothing when all is in its place. Locks the account.';

create function governance.order_money(o jsonb, p_amount jsonb, p_price bigint, p_currency text)
  returns governance.order_money
  language plpgsql immutable set search_path = '' as $$
declare
  v_total bigint := governance.stripe_whole(p_amount);
  v_tax bigint := coalesce(governance.stripe_whole(o #> '{total_details,amount_tax}'), 0);
  v_discount bigint := coalesce(governance.stripe_whole(o #> '{total_details,amount_discount}'), 0);
  v_shipping bigint := coalesce(governance.stripe_whole(o #> '{total_details,amount_shipping}'), 0);
  v_currency text := governance.stripe_currency(o -> 'currency');
  -- Adaptive Pricing: charged in the buyer's currency, and sold in ours.
  v_converted jsonb := governance.stripe_object(o -> 'currency_conversion');
  v_sold_total bigint := coalesce(governance.stripe_whole(v_converted -> 'amount_total'), v_total);
  v_sold_currency text := coalesce(governance.stripe_currency(v_converted -> 'source_currency'), v_currency);
  v_answer governance.order_money;
begin
  v_answer.currency := v_currency;
  v_answer.is_wrong_currency := v_sold_currency is distinct from p_currency;
  if v_answer.is_wrong_currency or least(v_total, v_tax, v_discount, v_shipping) < 0 then return v_answer; end if;
  -- The price may have tax on top or within it; a discount is whatever Stripe says that it took off.
  if v_sold_total + v_discount - v_shipping in (p_price, p_price + v_tax)
    and (v_converted = '{}' or v_tax + v_discount + v_shipping = 0) then
    v_answer.collected_minor := v_total;
    v_answer.booked_minor := greatest(v_total - v_tax - v_shipping, 0);
    v_answer.covered_minor := v_discount;
    v_answer.covered_by := case when v_discount > 0 then 'discount' end;
  end if;
  return v_answer;
end
$$;
comment on function governance.order_money(jsonb, jsonb, bigint, text) is
  'What an order with tax, a discount, shipping or a converted currency cost, held against the pack''s price.';

create function governance.grant_paid(
  p_now timestamptz, p_pay governance.stripe_payments, p_user_id text, p_pack_id text, p_tokens bigint, p_cause text,
  p_difference_id text default null, p_sale governance.order_money default null
) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  -- A pack that is sold as it is costs what was paid for it.
  v_booked bigint := coalesce(p_sale.booked_minor, p_pay.amount_minor);
  v_reference text := coalesce(p_pay.charge_id, p_pay.payment_intent_id, p_pay.checkout_session_id, p_pay.invoice_id);
  v_description text := 'Pack ' || p_pack_id;
  v_metadata jsonb := jsonb_strip_nulls(jsonb_build_object('cause', p_cause, 'pack_id', p_pack_id, 'charge_id',
    p_pay.charge_id,
    'payment_intent_id', p_pay.payment_intent_id, 'checkout_session_id', p_pay.checkout_session_id, 'amount_minor',
      v_booked,
    'currency', p_pay.currency, 'difference_id', p_difference_id,
    -- As governance.lot_seal writes it of a lot that is new.
    'lot_seal', concat_ws('|', 'purchased', extract(epoch from p_now), '-', p_tokens, 0, 0, 0)));
  v_lot_id bigint;
  v_id bigint;
  v_last_hash bytea;
  v_hash bytea;
  v_balance bigint;
  v_debt bigint;
begin
  insert into governance.lots (account_id, kind, created_at, description, pack_id, stripe_charge_id,
    stripe_payment_intent_id, stripe_checkout_session_id,
    amount_minor, currency, metadata, granted, remaining)
  values (p_pay.account_id, 'purchased', p_now, v_description, p_pack_id, p_pay.charge_id, p_pay.payment_intent_id,
    p_pay.checkout_session_id,
    v_booked, p_pay.currency, v_metadata, p_tokens, p_tokens)
  returning lot_id into v_lot_id;
  -- The transaction has its number, by the lot, before it draws the entry's id: readers of the feed rely on it.
  v_id := nextval('governance.event_ids');
  -- The entry is put together where the account is: "was" is the same row as it stood before.
  update governance.accounts a set purchased_tokens = a.purchased_tokens + p_tokens, last_transaction_id = v_id,
    last_hash = governance.entry_hash(a.last_hash, governance.entry_payload(v_id, p_now, 'purchase', p_tokens,
      a.subscription_tokens + a.purchased_tokens + a.promotional_tokens,
        a.subscription_tokens + a.purchased_tokens + a.promotional_tokens + p_tokens,
      a.debt_tokens, array[v_lot_id, p_tokens], null, a.user_id, v_reference, v_description, v_metadata))
  from governance.accounts was
  where a.account_id = p_pay.account_id and was.account_id = a.account_id
  returning was.last_hash, a.last_hash, a.subscription_tokens + a.purchased_tokens + a.promotional_tokens, a.debt_tokens
  into strict v_last_hash, v_hash, v_balance, v_debt;
  insert into governance.token_transactions (transaction_id, account_id, created_at, transaction_type, amount,
    previous_balance, new_balance, debt_after,
    lot_changes, reference, description, metadata, previous_hash, hash)
  values (v_id, p_pay.account_id, p_now, 'purchase', p_tokens, v_balance - p_tokens, v_balance, v_debt,
    array[v_lot_id, p_tokens], v_reference, v_description,
    v_metadata, v_last_hash, v_hash);
  insert into governance.stripe_lots (lot_id, payment_id, tokens) values (v_lot_id, p_pay.payment_id, p_tokens);
  insert into governance.purchase_records (transaction_id, account_id, created_at, record_type, lot_id, payment_id,
    tokens, amount_minor, currency, difference_id, collected_minor, covered_minor, covered_by)
  values (v_id, p_pay.account_id, p_now, 'grant', v_lot_id, p_pay.payment_id, p_tokens, v_booked,
    p_pay.currency, p_difference_id, p_sale.collected_minor, nullif(p_sale.covered_minor, 0), p_sale.covered_by);
  if v_debt > 0 then
    perform governance.recover_debt(p_pay.account_id, p_now, v_reference, p_tokens);
  end if;
  perform governance.ring('accounts', p_now);
  return '[]'::jsonb || governance.effect('grant', p_user_id, p_tokens, v_id);
end
$$;
comment on function governance.grant_paid(timestamptz, governance.stripe_payments, text, text, bigint, text, text,
  governance.order_money) is
  'Grants what a payment paid for, ties the lot to it and pays debt. The caller holds the locks of the '
  'payment and of the account, and has rolled the account.';

create function governance.grant_pack(
  p_now timestamptz, p_payment_id bigint, p_user_id text, p_pack_id text, p_tokens bigint, p_amount bigint,
    p_currency text, p_paid_at timestamptz,
  p_cause text, p_difference_id text default null
) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_account governance.accounts := governance.lock_account(p_user_id);
  v_pay governance.stripe_payments;
begin
  update governance.stripe_payments p set
    account_id = v_account.account_id, amount_minor = p_amount, currency = p_currency, paid_at = p_paid_at
  where p.payment_id = p_payment_id returning * into strict v_pay;
  return governance.grant_paid(p_now, v_pay, p_user_id, p_pack_id, p_tokens, p_cause, p_difference_id);
end
$$;
comment on function governance.grant_pack(timestamptz, bigint, text, text, bigint, bigint, text, timestamptz, text,
  text) is
  'Grants a paid pack and ties its lot to the payment. The caller holds the payment''s locks; the account is locked '
    'here.';

create function governance.settled(p_payment_id bigint, p_now timestamptz,
  p_cause text) returns governance.stripe_outcome
  language plpgsql set search_path = '' as $$
begin
  if p_payment_id is null then return governance.outcome('quarantined', 'malformed'); end if;
  return governance.outcome('processed', null, governance.settle_payment(p_payment_id, p_now, p_cause), p_payment_id);
end
$$;
comment on function governance.settled(bigint, timestamptz,
  text) is 'What became of an event that told of this payment; one that names none is for a person.';

-- schemas/67_purchase_records.sql
-- The ledger's side of a reconciliation: its records of payments, and tokens from opening to closing.

create function governance.adopt_purchases() returns bigint
  language plpgsql set search_path = '' as $$
declare
  v_lot record;
  v_entry record;
  v_pay governance.stripe_payments;
  v_known governance.stripe_lots;
  v_owed bigint;
  v_tokens bigint;
  v_type text;
  v_count bigint := 0;
begin
  for v_lot in
    select l.*, t.transaction_id, t.created_at as granted_at
    from governance.lots l
    join lateral (select x.transaction_id, x.created_at from governance.token_transactions x
      where x.account_id = l.account_id and x.transaction_type in ('purchase', 'subscription_grant')
        and x.lot_changes[1] = l.lot_id and x.amount > 0
      order by x.transaction_id limit 1) t on true
    where coalesce(l.stripe_charge_id, l.stripe_payment_intent_id, l.stripe_checkout_session_id) is not null
      and l.amount_minor is not null
      and not exists (select from governance.stripe_lots s where s.lot_id = l.lot_id)
    order by l.lot_id
  loop
    v_pay := governance.note_payment(v_lot.granted_at, v_lot.stripe_payment_intent_id, v_lot.stripe_charge_id,
      v_lot.stripe_checkout_session_id, p_livemode => true);
    update governance.stripe_payments p set account_id = v_lot.account_id, amount_minor = v_lot.amount_minor,
      currency = v_lot.currency, paid_at = v_lot.granted_at
    where p.payment_id = v_pay.payment_id;
    insert into governance.stripe_lots (lot_id, payment_id, tokens)
      values (v_lot.lot_id, v_pay.payment_id, v_lot.granted) returning * into v_known;
    perform governance.record_purchase(v_lot.transaction_id, 'grant', v_lot.lot_id, v_pay.payment_id, v_lot.granted, 0,
      v_lot.amount_minor, v_lot.currency,
      p_line_id => v_lot.stripe_invoice_line_id);
    -- Refunds and disputes that were booked before this bookkeeping was there, told by their entries.
    for v_entry in
      select t.*, lag(t.debt_after, 1, 0::bigint) over (order by t.transaction_id) as debt_before
      from governance.token_transactions t where t.account_id = v_lot.account_id order by t.transaction_id
    loop
      continue when v_entry.transaction_id <= v_lot.transaction_id
        or v_entry.transaction_type not in ('refund', 'reversal')
        or not (v_lot.lot_id = any (v_entry.lot_changes) or v_entry.description like '%' || v_lot.stripe_charge_id);
      v_owed := greatest(v_entry.debt_after - v_entry.debt_before, 0);
      v_type := case when v_entry.transaction_type = 'refund' then 'refund'
        when v_entry.description like 'Dispute lost%' then 'dispute_clawback'
        when v_entry.amount > 0 then 'dispute_release' else 'dispute_hold' end;
      v_tokens := v_entry.amount - case v_type when 'refund' then v_owed else 0 end;
      if v_type = 'refund' then
        v_known.reversed := v_known.reversed - v_tokens;
        v_known.owed := v_known.owed + v_owed;
        insert into governance.stripe_refunds (refund_id, payment_id, amount_minor, state, told_at)
        select v_entry.reference, v_pay.payment_id, case when v_known.reversed >= v_lot.granted then v_lot.amount_minor
          else ceil(v_lot.amount_minor::numeric * -v_tokens / v_lot.granted)::bigint end, 2, v_entry.created_at
        where v_entry.reference is not null on conflict do nothing;
      elsif v_type = 'dispute_clawback' then
        -- What was frozen is taken with it, though it left the balance before.
        v_tokens := -(v_lot.granted - v_known.reversed);
        v_known.clawed := v_lot.granted - v_known.reversed;
        v_known.owed := v_known.owed + v_owed;
      end if;
      v_known.dispute_state := case v_type when 'dispute_hold' then 'held' when 'dispute_release' then 'released'
        when 'dispute_clawback' then 'clawed' else v_known.dispute_state end;
      if v_type like 'dispute%' and v_entry.reference is not null then
        insert into governance.stripe_disputes as d (dispute_id, payment_id, amount_minor, status, stage, is_lost,
          told_at)
        values (v_entry.reference, v_pay.payment_id, v_lot.amount_minor,
          case v_type when 'dispute_hold' then 'needs_response' when 'dispute_release' then 'won' else 'lost' end,
          case v_type when 'dispute_hold' then 2 else 3 end, v_type = 'dispute_clawback', v_entry.created_at)
        on conflict (dispute_id) do update set status = excluded.status, stage = excluded.stage,
          is_lost = excluded.is_lost, told_at = excluded.told_at;
      end if;
      if not exists (select from governance.purchase_records r where r.transaction_id = v_entry.transaction_id) then
        perform governance.record_purchase(v_entry.transaction_id, v_type, v_lot.lot_id, v_pay.payment_id, v_tokens,
          v_owed, null, v_lot.currency,
          case v_type when 'refund' then v_entry.reference end, case
            when v_type like 'dispute%' then v_entry.reference end);
      end if;
    end loop;
    update governance.stripe_lots s set reversed = v_known.reversed, clawed = v_known.clawed, owed = v_known.owed,
      dispute_state = v_known.dispute_state
    where s.lot_id = v_lot.lot_id;
    v_count := v_count + 1;
  end loop;
  return v_count;
end
$$;
comment on function governance.adopt_purchases() is
  'Takes lots that were loaded with Stripe''s ids, not granted by process_stripe_event, into the books of payments: '
    'for imports and sample data. Safe to run twice; answers how many lots.';

create function public.console_ledger_purchases_since(
  p_cursor text default null, p_limit int default 5000, p_from timestamptz default null, p_to timestamptz default null
) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
declare
  v_records jsonb;
  v_count int;
  v_last bigint;
  v_corrected bigint[] := '{}';
begin
  perform governance.refuse_others('console_ledger_purchases_since');
  if p_limit is null or p_limit not between 1 and 20000 then
    perform governance.fail('PT400', 'invalid_argument', 'p_limit is a whole number from 1 to 20000');
  elsif p_cursor is not null and p_cursor !~ '^[0-9]{1,18}$' then
    perform governance.fail('PT400', 'invalid_argument', 'p_cursor is a next_cursor as it was answered');
  elsif not isfinite(p_from) or not isfinite(p_to) or p_from >= p_to or p_to > '9999-01-01' then
    perform governance.fail('PT400', 'invalid_argument', 'p_from must come before p_to');
  end if;
  if p_from is not null or p_to is not null then
    -- A correction is booked when it is booked, which may be long after the period that it puts right.
    select coalesce(array_agg(distinct x.lot_id), '{}') into v_corrected
    from governance.reconciliation_cases c join governance.purchase_records x on x.difference_id = c.difference_id
    where c.posted_at is not null and (p_to is null or c.period_from < p_to)
      and (p_from is null or c.period_to > p_from);
  end if;
  with page as (
    select r.* from governance.purchase_records r
    where r.transaction_id > coalesce(p_cursor, '0')::bigint
      -- All that ever happened to a lot that was touched in the period, or within the three days after it for which
      -- Stripe delivers again: the grant may be late, and an export tells refunds up to the day it was made.
      and ((p_from is null and p_to is null) or r.lot_id = any (v_corrected)
        or exists (select from governance.purchase_records x where x.lot_id = r.lot_id
        and (p_from is null or x.created_at >= p_from) and (p_to is null or x.created_at < p_to + interval '3 days')))
    order by r.transaction_id limit p_limit
  )
  select coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
      'transaction_id', r.transaction_id,
      'record_type', case r.record_type when 'supplement' then 'grant' else r.record_type end, 'user_id', a.user_id,
        'tokens', r.tokens,
        'created_at', r.created_at,
      'lot_id', r.lot_id, 'grant_kind', case l.kind when 'purchased' then 'purchase' else l.kind end,
      'debt_tokens', nullif(r.debt_tokens, 0), 'tokens_remaining', case r.record_type
        when 'grant' then l.remaining + l.frozen end,
      -- What Stripe's own files show for it; booked_minor is the price of the tokens, net of tax.
      'amount_minor', coalesce(r.collected_minor, r.amount_minor), 'booked_minor', case
        -- A supplement's record has the price of its lot from then on.
        when r.record_type = 'supplement' then r.amount_minor - (select x.amount_minor from governance.purchase_records x
          where x.lot_id = r.lot_id and x.transaction_id < r.transaction_id
            and x.record_type in ('grant', 'relabel', 'supplement') order by x.transaction_id desc limit 1)
        when r.collected_minor is not null then r.amount_minor end,
      -- Other things were sold with the tokens.
      'payment_minor', case when r.collected_minor is not null and p.invoice_id is not null and p.amount_minor > (
          select sum(x.collected_minor) from governance.purchase_records x
          where x.invoice_line_id is not null and governance.payment_of(x) = p.payment_id)
        then p.amount_minor end,
      'covered_minor', r.covered_minor, 'covered_by', r.covered_by, 'currency', r.currency, 'pack_id', l.pack_id,
        'charge_id', p.charge_id,
        'payment_intent_id', p.payment_intent_id,
      'checkout_session_id', p.checkout_session_id, 'order_id', p.order_id, 'invoice_id', p.invoice_id,
        'invoice_line_id', r.invoice_line_id,
      'period_start', r.period_start, 'period_end', r.period_end, 'customer_id', p.customer_id, 'refund_id',
        r.refund_id, 'dispute_id', r.dispute_id,
      'livemode', p.livemode, 'difference_id', r.difference_id)) order by r.transaction_id), '[]'), count(*),
        max(r.transaction_id)
  into v_records, v_count, v_last
  from page r
  join governance.accounts a on a.account_id = r.account_id
  join governance.lots l on l.lot_id = r.lot_id
  left join governance.stripe_lots s on s.lot_id = r.lot_id
  -- More money for tokens that are there already came by a payment of its own.
  left join governance.stripe_payments p on p.payment_id = case when r.record_type = 'supplement' or s.lot_id is null
    then governance.payment_of(r) else s.payment_id end;
  return jsonb_build_object('records', v_records, 'next_cursor', coalesce(v_last::text, p_cursor), 'has_more',
    v_count = p_limit);
end
$$;
comment on function public.console_ledger_purchases_since(text, int, timestamptz, timestamptz) is
  'The ledger''s records of payments (LedgerRecord of shared/governance/reconciliation) page by page: records, '
    'next_cursor, has_more. A run starts without a cursor and reads to the end. A period brings all records, to this '
    'day, of the lots that were touched in it or within three days after, or by a correction of one of its '
    'differences. Errors: invalid_argument.';
revoke all on function public.console_ledger_purchases_since(text, int, timestamptz, timestamptz)
  from public, anon, authenticated;
grant execute on function public.console_ledger_purchases_since(text, int, timestamptz, timestamptz) to service_role;

create function public.console_token_roll_forward(p_from timestamptz, p_to timestamptz) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
declare
  v_lines jsonb;
begin
  perform governance.refuse_others('console_token_roll_forward');
  if p_from is null or p_to is null or not isfinite(p_from) or not isfinite(p_to) or p_from >= p_to then
    perform governance.fail('PT400', 'invalid_argument', 'p_from must come before p_to');
  end if;
  with moves as (
    select t.lot_changes[n * 2 - 1] as lot_id, t.lot_changes[n * 2] as tokens, t.transaction_type as type, t.created_at
    from governance.token_transactions t cross join lateral generate_series(1, cardinality(t.lot_changes) / 2) n
  ), prices as (
    -- What a lot cost may change after it was sold: each period has what was true by its end.
    select r.lot_id,
      (array_agg(r.amount_minor order by r.transaction_id desc) filter (where r.created_at < p_from))[1] as opening,
      (array_agg(r.amount_minor order by r.transaction_id desc) filter (where r.created_at < p_to))[1] as closing
    from governance.purchase_records r where r.record_type in ('grant', 'relabel', 'supplement') group by r.lot_id
  ), by_lot as (
    select l.lot_id, case l.kind when 'purchased' then 'purchased'
      else l.kind end as kind, l.currency, l.granted,
      case when c.lot_id is not null then c.opening when l.created_at < p_from then l.amount_minor end as opening_price,
      case when c.lot_id is not null then c.closing else l.amount_minor end as closing_price,
      l.created_at < p_to as is_there, l.remaining,
      coalesce(sum(m.tokens) filter (where m.created_at < p_from), 0)::bigint as opening,
      coalesce(sum(m.tokens) filter (where m.created_at < p_to), 0)::bigint as closing,
      coalesce(sum(m.tokens) filter (where m.created_at >= p_to), 0)::bigint as later,
      coalesce(sum(m.tokens) filter (where i.inside and m.type in ('purchase', 'subscription_grant')),
        0)::bigint as purchased,
      coalesce(sum(m.tokens) filter (where i.inside and m.type = 'bonus'), 0)::bigint as promotional,
      coalesce(sum(m.tokens) filter (where i.inside and m.type = 'reversal' and m.tokens > 0), 0)::bigint as restored,
      coalesce(-sum(m.tokens) filter (where i.inside and m.type in ('usage', 'debt_recovery')), 0)::bigint as consumed,
      coalesce(-sum(m.tokens) filter (where i.inside and m.type = 'refund'), 0)::bigint as refunded,
      coalesce(-sum(m.tokens) filter (where i.inside and m.type = 'reversal' and m.tokens < 0), 0)::bigint as disputed,
      coalesce(-sum(m.tokens) filter (where i.inside and m.type = 'expiry'), 0)::bigint as expired,
      coalesce(sum(m.tokens) filter (where i.inside and m.type = 'adjustment'), 0)::bigint as adjusted
    from moves m cross join lateral (select m.created_at >= p_from and m.created_at < p_to as inside) i
    join governance.lots l using (lot_id)
    left join prices c using (lot_id)
    group by l.lot_id, c.lot_id, c.opening, c.closing
  ), priced as (
    select b.*,
      case when b.opening_price is null then 0
        else governance.pro_rata(b.opening_price, least(b.opening, b.granted), b.granted) end as deferred_opening,
      case when b.closing_price is null then 0
        else governance.pro_rata(b.closing_price, least(b.closing, b.granted), b.granted) end as deferred_closing,
      case when b.closing_price is null then 0
        else governance.pro_rata(b.closing_price, least(greatest(b.refunded + b.disputed - b.restored, 0), b.granted),
        b.granted) end as given_back
    from by_lot b
  )
  select coalesce(jsonb_agg(jsonb_build_object('kind', s.kind, 'currency', s.currency,
    'opening_tokens', s.opening, 'purchased_tokens', s.purchased, 'promotional_tokens', s.promotional,
      'restored_tokens', s.restored,
    'consumed_tokens', s.consumed, 'refunded_tokens', s.refunded, 'disputed_tokens', s.disputed, 'expired_tokens',
      s.expired, 'adjusted_tokens', s.adjusted,
    'closing_tokens', s.closing, 'ledger_tokens', s.ledger, 'opening_deferred_minor', s.deferred_opening, 'sold_minor',
      s.sold,
    'recognised_minor', s.deferred_opening + s.sold - s.given_back - s.deferred_closing, 'refunded_minor', s.given_back,
      'closing_deferred_minor', s.deferred_closing)
    order by s.kind, s.currency nulls last), '[]')
  into v_lines
  from (
    select p.kind, p.currency, sum(p.opening)::bigint as opening, sum(p.purchased)::bigint as purchased,
      sum(p.promotional)::bigint as promotional,
      sum(p.restored)::bigint as restored, sum(p.consumed)::bigint as consumed, sum(p.refunded)::bigint as refunded,
        sum(p.disputed)::bigint as disputed,
      sum(p.expired)::bigint as expired, sum(p.adjusted)::bigint as adjusted, sum(p.closing)::bigint as closing,
      -- The lots as they stand, less what moved since: not a sum of the same movements.
      sum(p.remaining - p.later)::bigint as ledger, sum(p.deferred_opening)::bigint as deferred_opening,
        sum(p.deferred_closing)::bigint as deferred_closing,
      sum(p.given_back)::bigint as given_back,
        sum(coalesce(p.closing_price, 0) - coalesce(p.opening_price, 0))::bigint as sold
    from priced p where p.is_there group by p.kind, p.currency) s;
  return v_lines;
end
$$;
comment on function public.console_token_roll_forward(timestamptz, timestamptz) is
  'Tokens from opening to closing by kind and currency, with their money as deferred revenue (RollForwardLine of '
  'shared/governance/reconciliation). Frozen tokens are out of it until thawed. Errors: invalid_argument.';
revoke all on function public.console_token_roll_forward(timestamptz, timestamptz) from public, anon, authenticated;
grant execute on function public.console_token_roll_forward(timestamptz, timestamptz) to service_role;

-- schemas/68_stripe_decisions.sql
-- Stripe events that wait for a person.

create function public.console_stripe_events(p_limit int default 100, p_before timestamptz default null) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
begin
  perform governance.refuse_others('console_stripe_events');
  if p_limit is null or p_limit not between 1 and 1000 then
    perform governance.fail('PT400', 'invalid_argument', 'p_limit is a whole number from 1 to 1000');
  end if;
  return jsonb_build_object(
    'waiting', (select count(*) from governance.webhook_events_processed w where w.status = 'quarantined'),
    'events', (select coalesce(jsonb_agg(jsonb_build_object('event_id', e.event_id, 'event_type', e.event_type,
      'reason', e.reason,
        'event_created_at', e.event_created_at, 'received_at', e.received_at, 'attempts', e.attempts, 'payload',
          e.payload,
        'charge_id', p.charge_id, 'payment_intent_id', p.payment_intent_id) order by e.received_at desc, e.event_id),
          '[]')
      from (select * from governance.webhook_events_processed w
        where w.status = 'quarantined' and (p_before is null or w.received_at < p_before)
        order by w.received_at desc limit p_limit) e left join governance.stripe_payments p using (payment_id)));
end
$$;
comment on function public.console_stripe_events(int,
  timestamptz) is 'Stripe events that wait for a person, newest first, with why. Errors: invalid_argument.';
revoke all on function public.console_stripe_events(int, timestamptz) from public, anon, authenticated;
grant execute on function public.console_stripe_events(int, timestamptz) to service_role;

create function public.console_release_stripe_event(
  p_command_id text, p_event_id text, p_operator text, p_reason text, p_user_id text default null,
    p_pack_id text default null, p_tokens bigint default null
) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_known governance.webhook_events_processed;
  v_pay governance.stripe_payments;
  v_object jsonb;
  v_metadata jsonb;
  v_user_id text;
  v_pack_id text;
  v_tokens bigint;
  v_amount bigint;
  v_currency text;
  v_now timestamptz;
  v_answer jsonb;
  v_effects jsonb;
begin
  perform governance.refuse_others('console_release_stripe_event');
  perform governance.check_id('p_command_id', p_command_id);
  perform governance.check_id('p_event_id', p_event_id);
  perform governance.check_id('p_operator', p_operator);
  perform governance.check_id('p_reason', p_reason, 2000);
  perform governance.check_optional('p_user_id', p_user_id, 255);
  perform governance.check_optional('p_pack_id', p_pack_id, 255);
  if p_tokens not between 1 and 100000000 then
    perform governance.fail('PT400', 'invalid_argument', 'p_tokens is a whole number from 1 to 100,000,000');
  end if;
  v_answer := governance.begin_command('release_stripe_event', p_command_id,
    row(p_event_id, p_operator, p_reason, p_user_id, p_pack_id, p_tokens)::text);
  if v_answer is not null then return v_answer; end if;
  select * into v_known from governance.webhook_events_processed w where w.event_id = p_event_id for update;
  if v_known.event_id is null then
    perform governance.fail('PT404', 'not_found', 'There is no such event');
  elsif v_known.status = 'processed' and v_known.decided_at is null then
    -- It went through by itself meanwhile: what the person wants has been done.
    return governance.end_command('release_stripe_event', p_command_id, jsonb_build_object('event_id', p_event_id,
      'status', 'processed', 'reason', 'already_processed', 'effects', v_known.effects));
  elsif v_known.status not in ('quarantined', 'parked') then
    perform governance.fail('PT409', 'already_decided', format('This event is %s already', v_known.status));
  end if;
  v_now := governance.now();
  v_object := governance.stripe_object(v_known.payload #> '{data,object}');
  -- What was wrong may have been put right: a user made, a plan named, a pack added.
  v_answer := governance.take_event(p_event_id, v_known.payload, v_now);
  if v_answer ->> 'status' = 'quarantined' then
    if v_known.event_type not in ('checkout.session.completed', 'checkout.session.async_payment_succeeded',
      'payment_intent.succeeded') then
      perform governance.fail('PT409', 'still_quarantined',
        format('It still cannot be acted on (%s): put right what is missing, or dismiss it', v_answer ->> 'reason'));
    end if;
    v_metadata := governance.stripe_object(v_object -> 'metadata');
    v_user_id := coalesce(p_user_id, governance.metadata_text(v_metadata, 'user_id', 'userId', 'userid'),
      governance.stripe_id(v_object -> 'client_reference_id'));
    v_pack_id := coalesce(p_pack_id, governance.metadata_text(v_metadata, 'pack_id', 'packId', 'packid'));
    v_tokens := coalesce(p_tokens, (governance.pack_at(v_pack_id, v_now)).tokens);
    v_amount := coalesce(governance.stripe_whole(v_object -> 'amount_total'),
      governance.stripe_whole(v_object -> 'amount_received'), governance.stripe_whole(v_object -> 'amount'));
    v_currency := governance.stripe_currency(v_object -> 'currency');
    if coalesce(v_object ->> 'payment_status', 'paid') not in ('paid', 'no_payment_required') then
      perform governance.fail('PT409', 'not_paid', 'Stripe has not said that this was paid');
    elsif v_tokens is null then
      perform governance.fail('PT400', 'invalid_argument',
        'p_tokens or a known p_pack_id is needed: the event names none');
    elsif v_user_id is null or not exists (select from governance.accounts a where a.user_id = v_user_id) then
      perform governance.fail('PT404', 'unknown_user', 'p_user_id is needed: the event names no known user');
    elsif v_amount is null or v_amount < 0 or v_currency is null then
      perform governance.fail('PT409', 'still_quarantined',
        'The event tells no amount that was paid: dismiss it, and book by reconciliation');
    end if;
    v_pay := governance.note_payment(v_now,
      coalesce(governance.stripe_id(v_object -> 'payment_intent'), case
      when v_known.event_type like 'payment_intent%' then governance.stripe_id(v_object -> 'id') end),
      null, case when v_known.event_type like 'checkout%' then governance.stripe_id(v_object -> 'id') end,
        governance.stripe_id(v_object -> 'invoice'));
    if exists (select from governance.stripe_lots s where s.payment_id = v_pay.payment_id) then
      perform governance.fail('PT409', 'already_granted',
        'This payment was granted by another event: dismiss this one');
    end if;
    v_effects := governance.grant_pack(v_now, v_pay.payment_id, v_user_id, coalesce(v_pack_id, 'custom'), v_tokens,
      v_amount, v_currency,
      coalesce(v_known.event_created_at, v_now), p_event_id)
        || governance.settle_payment(v_pay.payment_id, v_now, p_event_id);
    update governance.webhook_events_processed w set status = 'processed', effects = v_effects, payload = null,
      payment_id = v_pay.payment_id
    where w.event_id = p_event_id;
    v_answer := jsonb_build_object('event_id', p_event_id, 'status', 'processed', 'reason', 'released', 'effects',
      v_effects);
  end if;
  update governance.webhook_events_processed w set decided_at = v_now, decided_by = p_operator,
    decided_reason = p_reason where w.event_id = p_event_id;
  perform governance.close_event_alert(p_event_id, v_now, p_operator, p_reason);
  insert into governance.audit_log (created_at, operator, action, account_id, reason, command_id, details)
  select v_now, p_operator, 'release_stripe_event', p.account_id, p_reason, p_command_id,
    jsonb_build_object('event_id', p_event_id, 'was', v_known.reason, 'effects', v_answer -> 'effects')
  from governance.webhook_events_processed w left join governance.stripe_payments p using (payment_id)
    where w.event_id = p_event_id;
  return governance.end_command('release_stripe_event', p_command_id, v_answer);
end
$$;
comment on function public.console_release_stripe_event(text, text, text, text, text, text, bigint) is
  'A person lets a quarantined event through: as it stands if what was missing is there now, else a paid order with '
  'the user, pack or tokens given. Audited. Errors: invalid_argument, not_found, already_decided, still_quarantined, '
  'not_paid, already_granted, unknown_user, idempotency_conflict.';
revoke all on function public.console_release_stripe_event(text, text, text, text, text, text, bigint)
  from public, anon, authenticated;
grant execute on function public.console_release_stripe_event(text, text, text, text, text, text,
  bigint) to service_role;

create function public.console_dismiss_stripe_event(p_command_id text, p_event_id text, p_operator text,
  p_reason text) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_known governance.webhook_events_processed;
  v_now timestamptz;
  v_answer jsonb;
begin
  perform governance.refuse_others('console_dismiss_stripe_event');
  perform governance.check_id('p_command_id', p_command_id);
  perform governance.check_id('p_event_id', p_event_id);
  perform governance.check_id('p_operator', p_operator);
  perform governance.check_id('p_reason', p_reason, 2000);
  v_answer := governance.begin_command('dismiss_stripe_event', p_command_id,
    row(p_event_id, p_operator, p_reason)::text);
  if v_answer is not null then return v_answer; end if;
  v_now := governance.now();
  update governance.webhook_events_processed w set status = 'dismissed', payload = null, decided_at = v_now,
    decided_by = p_operator, decided_reason = p_reason
  where w.event_id = p_event_id and w.status = 'quarantined' returning * into v_known;
  if v_known.event_id is null then
    perform governance.fail('PT404', 'not_found', 'There is no such event waiting');
  end if;
  perform governance.close_event_alert(p_event_id, v_now, p_operator, p_reason);
  insert into governance.audit_log (created_at, operator, action, reason, command_id, details)
  values (v_now, p_operator, 'dismiss_stripe_event', p_reason, p_command_id,
    jsonb_build_object('event_id', p_event_id, 'was', v_known.reason));
  return governance.end_command('dismiss_stripe_event', p_command_id,
    jsonb_build_object('event_id', p_event_id, 'status', 'dismissed'));
end
$$;
comment on function public.console_dismiss_stripe_event(text, text, text,
  text) is 'A person sets a quarantined event aside: nothing is credited. Audited. Errors: invalid_argument, '
    'not_found, idempotency_conflict.';
revoke all on function public.console_dismiss_stripe_event(text, text, text, text) from public, anon, authenticated;
grant execute on function public.console_dismiss_stripe_event(text, text, text, text) to service_role;

-- schemas/70_difference_classes.sql
-- The classes of differences.

create table governance.difference_classes (
  class text primary key,
  name text not null,
  means text not null,
  -- False for what is only listed, carried forward or left out.
  blocks boolean not null
);

comment on table governance.difference_classes is 'Classes of differences, the same as in '
  'shared/governance/reconciliation/classes.ts; a test holds the two equal.';

insert into governance.difference_classes (class, name, means, blocks) values
  ('PAID_NOT_GRANTED', 'Paid, not granted', 'The money came, the tokens did not.',
    true),
  ('GRANTED_NOT_PAID', 'Granted, not paid', 'Tokens were given for a payment that is not there, failed, or is unpaid.',
    true),
  ('DUPLICATE_GRANT', 'Granted twice', 'One payment was credited more than once.',
    true),
  ('DUPLICATE_CHARGE', 'Charged twice', 'One order was paid more than once.',
    true),
  ('AMOUNT_MISMATCH', 'Other amount', 'What was paid is not the price of the pack at that time.',
    true),
  ('TOKEN_QTY_MISMATCH', 'Other number of tokens', 'What was granted is not what the pack holds.',
    true),
  ('CURRENCY_MISMATCH', 'Other currency', 'Payment and grant name different currencies.',
    true),
  ('REFUND_NOT_REVERSED', 'Refunded, tokens kept', 'Money went back, the tokens stayed.',
    true),
  ('REFUND_OVER_REVERSED', 'Taken back too much', 'More tokens were taken back than the refund calls for.',
    true),
  ('REFUND_AFTER_SPEND', 'Refunded after use', 'The tokens were used before the refund.',
    true),
  ('DISPUTE_NOT_HELD', 'Disputed, not held', 'A dispute is open and its tokens can still be used.',
    true),
  ('DISPUTE_WON_NOT_RESTORED', 'Dispute won, still held', 'The tokens were not given back.',
    true),
  ('DISPUTE_LOST_NOT_CHARGED', 'Dispute lost, not taken back', 'The money is gone, the tokens are not.',
    true),
  ('SUB_PERIOD_GAP', 'Period not granted', 'An invoiced period has no grant.',
    true),
  ('SUB_PERIOD_OVERLAP', 'Period granted twice', 'An invoiced period was granted more than once.',
    true),
  ('FEE_VARIANCE', 'Other fee', 'Stripe''s fee does not add up.',
    true),
  ('FX_ROUNDING', 'Rounding of a conversion', 'At most one minor unit.',
    false),
  ('TIMING', 'Timing', 'Too young to be missing; carried forward.',
    false),
  ('ORPHAN', 'Belongs to nothing', 'A refund, dispute or correction whose payment is not known.',
    true),
  ('UNKNOWN_CATEGORY', 'Unknown kind', 'A kind of row that is not known yet.',
    true),
  ('TEST_MODE_LEAK', 'Test mode', 'A test payment in live data.',
    true);

-- schemas/71_cases.sql
-- Cases: differences as finance decides them, and who may decide alone.

create table governance.reconciliation_cases (
  difference_id text primary key check (difference_id <> '' and length(difference_id) <= 512),
  class text not null,
  status text not null default 'open' check (status in ('open', 'investigating', 'proposed', 'approved', 'posted',
    'verified', 'carried_forward', 'written_off')),
  amount_minor bigint not null default 0,
  currency text,
  tokens bigint not null default 0,
  occurred_at timestamptz,
  period_from timestamptz not null,
  period_to timestamptz not null,
  first_run_id text not null,
  last_run_id text not null,
  -- What would be posted: the report's proposal, or the proposer's own.
  correction jsonb not null,
  assigned_to text,
  proposed_by text,
  approved_by text,
  posted_at timestamptz,
  effects jsonb,
  history jsonb not null default '[]',
  updated_at timestamptz not null,
  -- Rises with every change: an action on a version that somebody else changed is refused.
  version int not null default 1,
  user_id text,
  -- False for what is only listed.
  blocks boolean not null default true,
  -- Both sides and the trail, from the last run.
  difference jsonb,
  opened_at timestamptz not null,
  -- The ledger as of which it was last looked for.
  checked_at timestamptz not null,
  -- When it took its status: a note later is no new decision.
  status_at timestamptz not null,
  -- What was proposed: to post the correction, or to write the difference off.
  resolution text not null default 'correct' check (resolution in ('correct', 'write_off')),
  posted_by text,
  -- How many closes it was carried over.
  times_carried int not null default 0
);

create index reconciliation_cases_status on governance.reconciliation_cases (status, updated_at desc);

comment on table governance.reconciliation_cases is 'Differences as finance works on them: open → investigating → '
  'proposed → approved → posted → verified; or carried forward, or written off.';

create table governance.lone_decisions (
  lone_decision_id bigint generated always as identity primary key,
  difference_id text references governance.reconciliation_cases (difference_id),
  act_id bigint references governance.account_acts (act_id),
  bulk_id bigint references governance.bulk_acts (bulk_id),
  what text not null check (what in ('posted', 'written_off', 'act')),
  decided_at timestamptz not null,
  decided_by text not null,
  tokens bigint not null,
  amount_minor bigint not null,
  currency text,
  check (num_nonnulls(difference_id, act_id, bulk_id) = 1)
);

create index lone_decisions_act on governance.lone_decisions (act_id) where act_id is not null;

create index lone_decisions_bulk on governance.lone_decisions (bulk_id) where bulk_id is not null;

create index lone_decisions_time on governance.lone_decisions (decided_at);

create index lone_decisions_difference on governance.lone_decisions (difference_id);

comment on table governance.lone_decisions is
  'What one person posted, wrote off or corrected on an account without a second: added up, it has a limit. Not on the '
  'case, which may be opened again and booked again. A write-off that is reopened, or an act that is undone, is taken '
  'out.';

-- Most cases that there ever were are decided, and the desk asks for the others all the time.
create index reconciliation_cases_undecided on governance.reconciliation_cases (difference_id)
  where blocks and status in ('open', 'investigating', 'proposed', 'approved', 'posted');

create type governance.stake as (tokens bigint, amount_minor bigint);

create type governance.refusal as (sqlstate text, hint text, message text);

create function governance.case_json(c governance.reconciliation_cases) returns jsonb
  language sql stable set search_path = '' as $$
  select to_jsonb(c) - 'difference'
    || jsonb_build_object('needs_approver', governance.needs_approver(c), 'is_undecided', governance.is_undecided(c),
    'age_days', greatest(floor(extract(epoch from governance.now() - coalesce(c.occurred_at, c.opened_at)) / 86400),
      0)::bigint)
$$;
comment on function governance.case_json(governance.reconciliation_cases) is 'A case as the console reads it, without '
  'both sides.';

create function governance.person_of(c jsonb) returns text
  language sql stable set search_path = '' as $$
  select coalesce(
    (select a.user_id from governance.accounts a where a.user_id = c ->> 'user_id'),
    (select a.user_id from governance.lots l join governance.accounts a using (account_id)
      where l.lot_id = governance.stripe_whole(c -> 'lot_id')),
    (select a.user_id from governance.stripe_payments p join governance.accounts a using (account_id)
      where p.charge_id = c ->> 'charge_id' limit 1),
    (select a.user_id from governance.stripe_payments p join governance.accounts a using (account_id)
      where p.payment_intent_id = c ->> 'payment_intent_id' limit 1),
    (select a.user_id from governance.stripe_customers k join governance.accounts a using (account_id)
      where k.customer_id = c ->> 'customer_id'))
$$;
comment on function governance.person_of(jsonb) is
  'Whom a correction is about: the user, lot, payment or customer that it names; null where the project knows none.';

create function governance.stake_tokens(p_difference jsonb, p_correction jsonb) returns bigint
  language sql stable set search_path = '' as $$
  select case when coalesce(governance.stripe_whole(p_difference -> 'tokens'), 0) <> 0
      then governance.stripe_whole(p_difference -> 'tokens')
    when p_correction ->> 'action' = 'grant' and p_correction ->> 'grant_kind' = 'subscription'
      then -coalesce(governance.stripe_whole(p_correction -> 'tokens'), 0)
    else 0 end
$$;
comment on function governance.stake_tokens(jsonb, jsonb) is
  'Tokens at stake of a difference: what the ledger has too many (+) or too few (−); a correction moves as many.';

create function governance.needs_approver(c governance.reconciliation_cases) returns boolean
  language sql stable set search_path = '' as $$
  select greatest(abs(c.tokens), abs(governance.stripe_whole(c.correction -> 'tokens')),
    s.tokens) > governance.setting_number('approval_above_tokens', 1000000)
    or s.amount_minor > governance.setting_number('approval_above_minor', 10000)
  from governance.stake_of(c, '[]') s
$$;
comment on function governance.needs_approver(governance.reconciliation_cases) is
  'Whether a case alone is above the settings approval_above_tokens and approval_above_minor; what it books and what '
  'the same person booked that day count too: see governance.why_approver.';

create function governance.is_same_person(p_one text, p_other text) returns boolean
  language sql immutable set search_path = '' as $$
  select lower(regexp_replace(normalize(p_one, NFKC), '[[:space:]]+', '',
    'g')) = lower(regexp_replace(normalize(p_other, NFKC), '[[:space:]]+', '', 'g'))
$$;
comment on function governance.is_same_person(text,
  text) is 'Whether two operators'' names are one person''s: case, spaces and width do not make another.';

create function governance.is_undecided(c governance.reconciliation_cases) returns boolean
  language sql immutable set search_path = '' as $$
  select c.blocks and c.status in ('open', 'investigating', 'proposed', 'approved', 'posted')
$$;
comment on function governance.is_undecided(governance.reconciliation_cases) is 'Whether a case still keeps its period '
  'open: neither verified, carried forward nor written off.';

create function governance.stake_of(c governance.reconciliation_cases, p_effects jsonb) returns governance.stake
  language sql stable set search_path = '' as $$
  select case when p_effects is null then abs(c.tokens) else greatest(
      (select coalesce(sum(abs(e.tokens)), 0)::bigint from jsonb_to_recordset(p_effects) e(tokens bigint)),
      -- Moves no token, and takes the whole grant out of what its payment can take back.
      case c.correction ->> 'action'
        when 'promotional' then (select l.granted from governance.lots l
        where l.lot_id = governance.stripe_whole(c.correction -> 'lot_id')) end) end,
    greatest(abs(c.amount_minor), case when p_effects is not null and c.correction ->> 'action' in ('grant', 'relabel')
      then abs(coalesce(governance.stripe_whole(c.correction -> 'amount_minor'), 0)) end)
$$;
comment on function governance.stake_of(governance.reconciliation_cases, jsonb) is
  'What is decided when a case is booked with these effects, or (null) written off: tokens and minor units. What is '
  'booked counts, not what was written beside it.';

create function governance.why_approver(
  c governance.reconciliation_cases, p_operator text, p_effects jsonb, p_now timestamptz,
    p_more_tokens numeric default 0, p_more_minor numeric default 0
) returns text
  language plpgsql stable set search_path = '' as $$
declare
  v_limit_tokens bigint := governance.setting_number('approval_above_tokens', 1000000);
  v_limit_minor bigint := governance.setting_number('approval_above_minor', 10000);
  v_stake governance.stake := governance.stake_of(c, p_effects);
  v_tokens numeric;
  v_minor numeric;
begin
  if governance.needs_approver(c) or v_stake.tokens > v_limit_tokens then
    return format('A decision of this size (more than %s tokens or %s minor units) needs the approval of a second '
      'person',
      v_limit_tokens, v_limit_minor);
  end if;
  select v_stake.tokens + p_more_tokens + coalesce(sum(d.tokens), 0),
    v_stake.amount_minor + p_more_minor + coalesce(sum(d.amount_minor) filter (where d.currency
      is not distinct from c.currency), 0) into v_tokens, v_minor
  from governance.lone_decisions d
  where d.decided_at > p_now - interval '24 hours' and governance.is_same_person(d.decided_by, p_operator);
  if v_tokens > v_limit_tokens or v_minor > v_limit_minor then
    return format('With this one you would have decided %s tokens and %s minor units alone within 24 hours: above %s '
      'tokens or %s minor units a second person must approve',
      v_tokens, v_minor, v_limit_tokens, v_limit_minor);
  end if;
  return null;
end
$$;
comment on function governance.why_approver(governance.reconciliation_cases, text, jsonb, timestamptz, numeric,
  numeric) is
  'Why a second person must approve before this is booked (p_effects) or written off (null), in a sentence; null where '
  'one is enough. Splitting a sum over many cases does not get round the limit, nor does booking one case again: what '
  'one person decided alone within 24 hours is added up.';

create function governance.lock_person(p_operator text) returns void
  language sql set search_path = '' as $$
  select pg_advisory_xact_lock(hashtextextended(lower(regexp_replace(normalize(p_operator, NFKC), '[[:space:]]+', '',
    'g')), 7254102))
$$;
comment on function governance.lock_person(text) is 'What one person decides alone is added up: one decision at a time '
  'for each. Taken before any case and account.';

create function public.console_reconciliation_cases(
  p_status text[] default null, p_difference_ids text[] default null, p_limit int default 500,
    p_after text default null,
  p_run_id text default null, p_class text default null, p_assigned_to text default null,
    p_older_than_days int default null, p_undecided boolean default null
) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
begin
  perform governance.refuse_others('console_reconciliation_cases');
  if p_limit is null or p_limit not between 1 and 5000 then
    perform governance.fail('PT400', 'invalid_argument', 'p_limit is a whole number from 1 to 5000');
  elsif p_older_than_days not between 0 and 36500 then
    perform governance.fail('PT400', 'invalid_argument', 'p_older_than_days is a whole number from 0 to 36500');
  end if;
  return (
    with scope as (
      select c.difference_id, c.class, c.status, c.assigned_to, c.currency, c.amount_minor, c.tokens, c.user_id,
        governance.is_undecided(c) as is_undecided,
        (p_status is null or c.status = any (p_status))
          and (p_difference_ids is null or c.difference_id = any (p_difference_ids))
        and (p_class is null or c.class = p_class) and (p_undecided is null or governance.is_undecided(c) = p_undecided)
        and (p_assigned_to is null or coalesce(c.assigned_to, '') = p_assigned_to)
        and (p_older_than_days is null
          or coalesce(c.occurred_at, c.opened_at) <= governance.now() - p_older_than_days * interval '1 day') as fits
      from governance.reconciliation_cases c
      where p_run_id is null or exists (select from governance.reconciliation_run_differences d
        where d.run_id = p_run_id and d.difference_id = c.difference_id)
    )
    select jsonb_build_object(
      'counts', (select coalesce(jsonb_object_agg(s.status, s.n), '{}')
        from (select x.status, count(*) as n from scope x group by 1) s),
      'undecided', (select count(*) from scope x where x.is_undecided),
      'classes', (select coalesce(jsonb_object_agg(s.class, s.n), '{}')
        from (select x.class, count(*) as n from scope x group by 1) s),
      'assignees', (select coalesce(jsonb_agg(s.assigned_to order by s.assigned_to), '[]')
        from (select distinct x.assigned_to from scope x where x.assigned_to <> '' limit 200) s),
      'total', (select count(*) from scope x where x.fits),
      'tokens', (select coalesce(sum(abs(x.tokens)), 0) from scope x where x.fits),
      'users', (select count(distinct x.user_id) from scope x where x.fits),
      'money', (select coalesce(jsonb_agg(jsonb_build_object('currency', s.currency, 'amount_minor', s.amount)
        order by s.currency), '[]')
        from (select x.currency, sum(abs(x.amount_minor)) as amount from scope x
          where x.fits and x.amount_minor <> 0 and x.currency is not null group by 1) s),
      'cases', (select coalesce(jsonb_agg(governance.case_json(c) || case when p_difference_ids is null then '{}'
        else jsonb_build_object('difference', c.difference) end order by c.difference_id), '[]')
        from (select x.difference_id from scope x where x.fits and (p_after is null or x.difference_id > p_after)
          order by x.difference_id limit p_limit) page
        join governance.reconciliation_cases c using (difference_id))));
end
$$;
comment on function public.console_reconciliation_cases(text[], text[], int, text, text, text, text, int, boolean) is
  'Cases in order of id, p_after being the last id of the page before; of one run, or all. p_assigned_to '''' means '
    'nobody; p_undecided true, what still keeps a period open. Cases asked for by id come with both sides. counts, '
    'undecided, classes and assignees are of the run or the project; total, tokens, users and money of what fits. '
    'Errors: invalid_argument.';
revoke all on function public.console_reconciliation_cases(text[], text[], int, text, text, text, text, int, boolean)
  from public, anon, authenticated;
grant execute on function public.console_reconciliation_cases(text[], text[], int, text, text, text, text, int,
  boolean) to service_role;

create function governance.case_refusal(
  c governance.reconciliation_cases, p_id text, p_action text, p_operator text, p_expected_version bigint default null,
    p_named jsonb default '{}'
) returns governance.refusal
  language plpgsql stable set search_path = '' as $$
declare
  v_name text := left(p_id, 100);
  v_by text := coalesce(c.history -> -1 ->> 'by', 'somebody');
  -- With what the proposer names.
  v_correction jsonb := c.correction || p_named;
begin
  if c.difference_id is null then
    return row('PT404', 'not_found', format('There is no case "%s"', v_name))::governance.refusal;
  elsif p_expected_version <> c.version then
    return row('PT409', 'version_conflict',
      format('%s was changed by %s in the meantime: it is %s now', v_name, v_by,
      replace(c.status, '_', ' ')))::governance.refusal;
  elsif p_action in ('note', 'assign') then
    return null;
  elsif c.status in ('posted', 'verified') then
    return row('PT409', 'already_decided', format('%s is %s already', v_name, c.status))::governance.refusal;
  elsif c.status in ('carried_forward', 'written_off') and p_action <> 'reopen' then
    return row('PT409', 'already_decided',
      format('%s is %s already: reopen it first', v_name, replace(c.status, '_', ' ')))::governance.refusal;
  elsif p_action = 'reopen' and c.status = 'open' then
    return row('PT409', 'already_decided', format('%s is open already', v_name))::governance.refusal;
  elsif p_action = 'approve' and c.status <> 'proposed' then
    return row('PT409', 'not_proposed',
      format('%s is %s: only what was proposed can be approved', v_name,
      replace(c.status, '_', ' ')))::governance.refusal;
  elsif p_action = 'approve' and governance.is_same_person(c.proposed_by, p_operator) then
    return row('PT403', 'same_person', 'Somebody else must approve what you proposed')::governance.refusal;
  elsif p_action = 'propose'
    and coalesce(v_correction ->> 'action', '') not in ('grant', 'reverse', 'adjust', 'claw_back', 'restore', 'hold',
    'release', 'finalise_dispute', 'relabel', 'promotional') then
    return row('PT409', 'nothing_to_post',
      format('%s has no correction that books anything: decide it, or mend it in Stripe', v_name))::governance.refusal;
  elsif p_action = 'propose' and v_correction ->> 'action' = 'grant'
    and not exists (select from governance.accounts a where a.user_id = v_correction ->> 'user_id')
      and not exists (select from governance.stripe_customers k where k.customer_id = v_correction ->> 'customer_id')
        then
    return row('PT404', 'unknown_user', format('%s names no known user: say who paid', v_name))::governance.refusal;
  end if;
  return null;
end
$$;
comment on function governance.case_refusal(governance.reconciliation_cases, text, text, text, bigint,
  jsonb) is 'Why an action on a case is refused; null where it is not. Actions and their previews ask the same.';

create function public.console_case_action(
  p_command_id text, p_difference_ids text[], p_action text, p_operator text, p_reason text default null,
    p_details jsonb default '{}', p_expected_versions jsonb default null
) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_now timestamptz;
  v_answer jsonb;
  v_id text;
  c governance.reconciliation_cases;
  v_refusal governance.refusal;
  v_status text;
  v_waits boolean;
  v_is_alone boolean;
begin
  perform governance.refuse_others('console_case_action');
  perform governance.check_id('p_command_id', p_command_id);
  perform governance.check_id('p_operator', p_operator);
  perform governance.check_optional('p_reason', p_reason, 2000);
  perform governance.check_metadata('p_details', p_details);
  if p_action is null or p_action not in ('investigate', 'assign', 'note', 'propose', 'approve', 'carry_forward',
    'write_off', 'reopen') then
    perform governance.fail('PT400', 'invalid_argument',
      'p_action is one of investigate, assign, note, propose, approve, carry_forward, write_off, reopen');
  elsif p_difference_ids is null or cardinality(p_difference_ids) not between 1 and 1000
    or array_ndims(p_difference_ids) > 1 or array_position(p_difference_ids, null) is not null then
    perform governance.fail('PT400', 'invalid_argument', 'p_difference_ids are 1 to 1,000');
  elsif p_action in ('note', 'write_off', 'reopen') and coalesce(btrim(p_reason), '') = '' then
    perform governance.fail('PT400', 'invalid_argument', 'p_reason is needed');
  elsif p_action = 'assign'
    and (coalesce(jsonb_typeof(p_details -> 'assigned_to'), '') not in ('string', 'null')
    or length(p_details ->> 'assigned_to') > 255) then
    perform governance.fail('PT400', 'invalid_argument',
      'p_details.assigned_to is a name of at most 255 characters, or null for nobody');
  elsif jsonb_typeof(p_expected_versions) <> 'object' then
    perform governance.fail('PT400', 'invalid_argument', 'p_expected_versions is an object: difference id → version');
  elsif exists (select from jsonb_each(p_expected_versions) v where governance.stripe_whole(v.value) is null) then
    -- A version that cannot be read would be no check at all.
    perform governance.fail('PT400', 'invalid_argument',
      'A version in p_expected_versions is a whole number, as the case was answered with');
  end if;
  v_answer := governance.begin_command('case_action', p_command_id,
    row(p_difference_ids, p_action, p_operator, p_reason, p_details)::text || coalesce(p_expected_versions::text, ''));
  if v_answer is not null then return v_answer; end if;
  -- Many at once, but not while a run is kept or a period closed: what is closed must be what was decided.
  perform pg_advisory_xact_lock_shared(7254101);
  if p_action = 'write_off' then
    perform governance.lock_person(p_operator);
  end if;
  v_now := governance.now();
  for v_id in select distinct x from unnest(p_difference_ids) x order by 1 loop
    select * into c from governance.reconciliation_cases x where x.difference_id = v_id for update;
    v_refusal := governance.case_refusal(c, v_id, p_action, p_operator,
      governance.stripe_whole(p_expected_versions -> v_id), governance.stripe_object(p_details -> 'correction'));
    if v_refusal.hint is not null then
      perform governance.fail(v_refusal.sqlstate, v_refusal.hint, v_refusal.message, case v_refusal.hint
        when 'version_conflict' then governance.case_json(c)::text end);
    end if;
    -- Above the limit one person can only propose to write off.
    v_waits := p_action = 'write_off' and c.blocks and governance.why_approver(c, p_operator, null, v_now) is not null;
    v_is_alone := p_action = 'write_off' and c.blocks and not v_waits;
    v_status := case p_action when 'investigate' then 'investigating' when 'propose' then 'proposed'
      when 'approve' then case c.resolution when 'write_off' then 'written_off' else 'approved' end
      when 'carry_forward' then 'carried_forward' when 'write_off' then case when v_waits then 'proposed'
        else 'written_off' end when 'reopen' then 'open' else c.status end;
    update governance.reconciliation_cases x set
      status = v_status, status_at = case when x.status = v_status then x.status_at
        else v_now end, updated_at = v_now, version = x.version + 1,
      assigned_to = case p_action when 'assign' then nullif(btrim(p_details ->> 'assigned_to'), '')
        else x.assigned_to end,
      -- Whoever proposes may name what the report could not: the user, the tokens, another action.
      correction = case p_action when 'propose'
        then governance.complete_correction(x.correction || governance.stripe_object(p_details -> 'correction'))
        else x.correction end,
      user_id = case p_action when 'propose'
        then coalesce(governance.person_of(x.correction || governance.stripe_object(p_details -> 'correction')),
          x.user_id)
        else x.user_id end,
      -- What is at stake is what the proposal moves.
      tokens = case when p_action = 'propose'
          and governance.stripe_whole(p_details #> '{correction,tokens}') is not null
        then -governance.stripe_whole(p_details #> '{correction,tokens}') else x.tokens end,
      resolution = case when p_action = 'write_off' then 'write_off'
        when p_action in ('note', 'assign', 'approve') then x.resolution else 'correct' end,
      proposed_by = case when p_action in ('propose', 'write_off') then p_operator
        when p_action in ('note', 'assign', 'approve') then x.proposed_by end,
      approved_by = case when p_action = 'approve' then p_operator
        when p_action in ('note', 'assign') then x.approved_by end,
      history = x.history || jsonb_strip_nulls(jsonb_build_object('at', v_now, 'by', p_operator, 'action', case
        when v_waits then 'propose_write_off' else p_action end,
        'reason', p_reason, 'details', nullif(p_details, '{}')))
    where x.difference_id = v_id returning * into c;
    if v_is_alone then
      insert into governance.lone_decisions (difference_id, what, decided_at, decided_by, tokens, amount_minor,
        currency)
      select v_id, 'written_off', v_now, p_operator, s.tokens, s.amount_minor, c.currency
        from governance.stake_of(c, null) s;
    elsif p_action = 'reopen' then
      delete from governance.lone_decisions d where d.difference_id = v_id and d.what = 'written_off';
    end if;
  end loop;
  insert into governance.audit_log (created_at, operator, action, reason, command_id, details)
  values (v_now, p_operator, 'case_' || p_action, p_reason, p_command_id,
    jsonb_build_object('difference_ids', to_jsonb(p_difference_ids)));
  return governance.end_command('case_action', p_command_id, jsonb_build_object('cases',
    (select jsonb_agg(governance.case_json(x) order by x.difference_id) from governance.reconciliation_cases x
      where x.difference_id = any (p_difference_ids))));
end
$$;
comment on function public.console_case_action(text, text[], text, text, text, jsonb, jsonb) is
  'Moves cases on: investigate, assign, note, propose, approve (by somebody else), carry_forward, write_off (above the '
  'limit only proposed, until somebody else approves), reopen; all of them or none. p_expected_versions names the '
  'versions that were looked at. Audited. Errors: invalid_argument, not_found, version_conflict, already_decided, '
  'not_proposed, same_person, nothing_to_post, unknown_user, idempotency_conflict.';
revoke all on function public.console_case_action(text, text[], text, text, text, jsonb, jsonb)
  from public, anon, authenticated;
grant execute on function public.console_case_action(text, text[], text, text, text, jsonb, jsonb) to service_role;

create function public.console_finance_counts() returns jsonb
  language sql stable security definer set search_path = '' as $$
  select governance.refuse_others('console_finance_counts');
  select jsonb_build_object(
    'keeps_runs', exists (select from governance.reconciliation_runs),
    'undecided', (select count(*) from governance.reconciliation_cases c where governance.is_undecided(c)),
    'waiting_for_approval', (select count(*) from governance.reconciliation_cases c
      where c.status = 'proposed' and c.blocks),
    'stripe_events', (select count(*) from governance.webhook_events_processed w where w.status = 'quarantined'),
    'closed_periods', (select count(*) from governance.reconciliation_periods),
    'approval_above_tokens', governance.setting_number('approval_above_tokens', 1000000),
    'approval_above_minor', governance.setting_number('approval_above_minor', 10000))
$$;
comment on function public.console_finance_counts() is 'What waits on the finance desk, and the limits above which a '
  'second person must approve.';
revoke all on function public.console_finance_counts() from public, anon, authenticated;
grant execute on function public.console_finance_counts() to service_role;

-- schemas/72_reconciliation_runs.sql
-- Reconciliation runs that are kept, their differences, and what changed from one run to another.

create table governance.reconciliation_runs (
  run_id text primary key check (run_id <> '' and length(run_id) <= 255),
  period_from timestamptz not null,
  period_to timestamptz not null check (period_to > period_from),
  tied_out boolean not null,
  -- The report without its differences.
  report jsonb not null,
  created_at timestamptz not null,
  created_by text not null,
  -- The ledger as of which the run was made: it cannot have seen what was posted later.
  ledger_read_at timestamptz not null,
  is_complete boolean not null default false,
  -- What keeping it did, answered again when its last page comes again.
  outcome jsonb not null default '{}'
);

create index reconciliation_runs_time on governance.reconciliation_runs (created_at desc);

comment on table governance.reconciliation_runs is 'Reconciliations that were kept.';

create table governance.reconciliation_run_differences (
  run_id text not null references governance.reconciliation_runs (run_id),
  difference_id text not null,
  class text not null,
  amount_minor bigint not null,
  currency text,
  tokens bigint not null,
  primary key (run_id, difference_id)
);

comment on table governance.reconciliation_run_differences is 'Which differences a kept run found, with what was at '
  'stake in it: runs can be compared.';

create function public.console_keep_reconciliation(p_run_id text, p_operator text, p_report jsonb,
  p_differences jsonb default '[]', p_is_last boolean default true) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_now timestamptz;
  v_from timestamptz;
  v_to timestamptz;
  v_read_at timestamptz;
  v_sees timestamptz;
  v_run governance.reconciliation_runs;
  v_covered text[];
  v_reopened bigint;
  v_kept bigint;
  v_verified bigint := 0;
  v_gone bigint := 0;
  v_skipped bigint := 0;
  v_answer jsonb;
begin
  perform governance.refuse_others('console_keep_reconciliation');
  perform governance.check_id('p_run_id', p_run_id);
  perform governance.check_id('p_operator', p_operator);
  if p_report is null or jsonb_typeof(p_report) <> 'object' or jsonb_typeof(p_report -> 'tied_out')
    is distinct from 'boolean' then
    perform governance.fail('PT400', 'invalid_argument', 'p_report is a report (without its differences)');
  elsif p_report ? 'inputs'
    and (jsonb_typeof(p_report -> 'inputs') <> 'array'
    or exists (select from jsonb_array_elements(p_report -> 'inputs') i where jsonb_typeof(i) <> 'object')) then
    perform governance.fail('PT400', 'invalid_argument', 'p_report.inputs is a list of files');
  elsif exists (select from unnest(array['bridge', 'tie_out', 'roll_forward']) k
    where p_report ? k and (jsonb_typeof(p_report -> k) <> 'array'
      or exists (select from jsonb_array_elements(p_report -> k) i where jsonb_typeof(i) <> 'object'))) then
    perform governance.fail('PT400', 'invalid_argument',
      'p_report.bridge, tie_out and roll_forward are lists of lines');
  elsif pg_column_size(p_report) > 8388608 then
    perform governance.fail('PT400', 'invalid_argument', 'p_report is larger than 8 MB');
  elsif p_is_last is null then
    perform governance.fail('PT400', 'invalid_argument', 'p_is_last is true or false');
  elsif p_differences is null or jsonb_typeof(p_differences) <> 'array' or jsonb_array_length(p_differences) > 5000 then
    perform governance.fail('PT400', 'invalid_argument',
      'p_differences is a list of at most 5,000: send the others in further calls, the last with p_is_last');
  elsif exists (select from jsonb_array_elements(p_differences) d
    where jsonb_typeof(d) <> 'object' or length(coalesce(d ->> 'difference_id', '')) not between 1 and 512
      or coalesce(d ->> 'class', '') = '' or length(d ->> 'class') > 100 or jsonb_typeof(d -> 'correction')
        is distinct from 'object') then
    perform governance.fail('PT400', 'invalid_argument', 'Each difference needs difference_id, class and correction');
  elsif exists (select from jsonb_array_elements(p_differences) d cross join unnest(array['amount_minor', 'tokens']) k
      where d ? k and d -> k <> 'null' and governance.stripe_whole(d -> k) is null) then
    perform governance.fail('PT400', 'invalid_argument', 'amount_minor and tokens of a difference are whole numbers');
  end if;
  begin
    v_from := (p_report #>> '{period,from}')::timestamptz;
    v_to := (p_report #>> '{period,to}')::timestamptz;
    v_read_at := (p_report ->> 'ledger_read_at')::timestamptz;
  exception when data_exception then
    perform governance.fail('PT400', 'invalid_argument', 'p_report.period is not one, or ledger_read_at is no moment');
  end;
  begin
    perform (d ->> 'occurred_at')::timestamptz from jsonb_array_elements(p_differences) d
      where d ->> 'occurred_at' ~ '^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d';
  exception when data_exception then
    perform governance.fail('PT400', 'invalid_argument',
      'occurred_at of a difference is a moment, as 2026-03-31T12:00:00Z');
  end;
  if v_from is null or v_to is null or not isfinite(v_from) or not isfinite(v_to) or v_from >= v_to then
    perform governance.fail('PT400', 'invalid_argument', 'p_report.period is not one');
  end if;

  -- Pages, runs and closes one after the other, and no case changes meanwhile.
  perform pg_advisory_xact_lock(7254101);
  v_now := governance.now();
  -- Nobody has read the ledger of a moment to come.
  v_read_at := least(coalesce(v_read_at, v_now), v_now);
  insert into governance.reconciliation_runs as r (run_id, period_from, period_to, tied_out, report, created_at,
    created_by, ledger_read_at)
  values (p_run_id, v_from, v_to, (p_report ->> 'tied_out')::boolean, p_report - 'differences', v_now, p_operator,
    v_read_at)
  on conflict (run_id) do nothing;
  select * into strict v_run from governance.reconciliation_runs r where r.run_id = p_run_id;
  if v_run.report <> p_report - 'differences' then
    perform governance.fail('PT409', 'idempotency_conflict', 'This run was kept with another report');
  elsif v_run.is_complete then
    return v_run.outcome;
  end if;
  v_read_at := v_run.ledger_read_at;
  -- What was posted just before may have been committed just after: better to look again than to book again.
  v_sees := v_read_at - interval '10 seconds';

  with page as (
    select distinct on (d ->> 'difference_id') d ->> 'difference_id' as difference_id, d ->> 'class' as class,
      coalesce(governance.stripe_whole(d -> 'amount_minor'), 0) as amount_minor,
      d ->> 'currency' as currency, governance.stake_tokens(d, k.correction) as tokens, k.correction,
      coalesce(k.correction ->> 'user_id', d ->> 'user_id') as user_id, d
    from jsonb_array_elements(p_differences) d
    cross join lateral (select governance.complete_correction(d -> 'correction') as correction) k order by 1
  ), linked as (
    insert into governance.reconciliation_run_differences (run_id, difference_id, class, amount_minor, currency, tokens)
    select p_run_id, p.difference_id, p.class, p.amount_minor, p.currency, p.tokens from page p
    on conflict do nothing returning difference_id
  ), kept as (
    insert into governance.reconciliation_cases as c (difference_id, class, amount_minor, currency, tokens, occurred_at,
      period_from, period_to,
      first_run_id, last_run_id, correction, updated_at, status_at, user_id, blocks, difference, opened_at, checked_at)
    select p.difference_id, p.class, p.amount_minor, p.currency, p.tokens,
      case when p.d ->> 'occurred_at' ~ '^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d' then (p.d ->> 'occurred_at')::timestamptz end,
      v_from, v_to, p_run_id, p_run_id, p.correction, v_now, v_now, p.user_id,
      coalesce(p.d -> 'blocks' = 'true',
        (select k.blocks from governance.difference_classes k where k.class = p.class), true),
      p.d || jsonb_build_object('correction', p.correction, 'user_id', p.user_id, 'tokens', p.tokens), v_now, v_read_at
    from page p join linked using (difference_id) order by 1
    on conflict (difference_id) do update set
      last_run_id = excluded.last_run_id, checked_at = excluded.checked_at, amount_minor = excluded.amount_minor,
        tokens = excluded.tokens, currency = excluded.currency,
      user_id = coalesce(excluded.user_id, c.user_id), blocks = excluded.blocks, difference = excluded.difference,
        updated_at = v_now, version = c.version + 1,
      -- The narrower period is the more exact one.
      period_from = case when excluded.period_from >= c.period_from
        and excluded.period_to <= c.period_to then excluded.period_from else c.period_from end,
      period_to = case when excluded.period_from >= c.period_from
        and excluded.period_to <= c.period_to then excluded.period_to else c.period_to end,
      correction = case when c.status in ('proposed', 'approved') then c.correction else excluded.correction end,
      -- Posted or gone, and there again in a ledger that was read after that: it did not help. Written off, and more
      -- than
      -- was written off: nobody has decided that.
      (status, status_at, resolution, proposed_by, approved_by, history) = (select
        case when x.reason is null then c.status else 'open' end,
        case when x.reason is null then c.status_at else v_now end,
        case when x.reason is null and c.status not in ('posted', 'verified') then c.resolution else 'correct' end,
        case when x.reason is null then c.proposed_by end,
        case when x.reason is null then c.approved_by end,
        case when x.reason is null then c.history
          else c.history || jsonb_build_object('at', v_now, 'by', p_operator, 'action', 'reopened', 'reason', x.reason
            || p_run_id) end
        from (select case
          when c.status in ('posted', 'verified')
            and (c.posted_at is null or c.posted_at < v_sees) then 'Still there in run '
          when c.status = 'written_off'
            and (abs(excluded.amount_minor) > abs(c.amount_minor) or abs(excluded.tokens) > abs(c.tokens)
            or excluded.currency is distinct from c.currency) then 'More than was written off in run ' end as reason) x)
    -- A run that read an older ledger tells nothing new.
    where c.checked_at <= excluded.checked_at
    returning c.history -> -1 as last_entry)
  select count(*) filter (where k.last_entry ->> 'action' = 'reopened' and k.last_entry ->> 'reason' in
    ('Still there in run ' || p_run_id, 'More than was written off in run ' || p_run_id)) into v_reopened from kept k;
  v_reopened := v_reopened + coalesce(governance.stripe_whole(v_run.outcome -> 'reopened'), 0);
  select count(*) into v_kept from governance.reconciliation_run_differences x where x.run_id = p_run_id;

  if p_is_last then
    if coalesce(governance.stripe_whole(p_report -> 'differences_total') <> v_kept, false) then
      perform governance.fail('PT409', 'incomplete_run',
        format('The run has %s differences and %s came: send the others before the last page',
        p_report ->> 'differences_total', v_kept));
    end if;
    -- What is gone, among all that this run would have found again.
    select coalesce(array_agg(r.run_id), '{}') into v_covered from governance.reconciliation_runs r
    where r.run_id in (select c.last_run_id from governance.reconciliation_cases c
      where c.status in ('open', 'investigating', 'proposed', 'approved', 'posted'))
      and r.run_id <> p_run_id and governance.run_covers(v_run.report, r.report);
    with due as (
      select c.difference_id, c.status, c.last_run_id = any (v_covered) as is_covered
      from governance.reconciliation_cases c
      where c.status in ('open', 'investigating', 'proposed', 'approved', 'posted') and c.period_from >= v_from
        and c.period_to <= v_to and c.checked_at <= v_read_at
        and c.last_run_id <> p_run_id and (c.posted_at is null or c.posted_at <= v_read_at)
        and not exists (select from governance.reconciliation_run_differences x
          where x.run_id = p_run_id and x.difference_id = c.difference_id)
      order by c.difference_id for update
    ), verified as (
      update governance.reconciliation_cases c set status = 'verified', status_at = v_now, checked_at = v_read_at,
        updated_at = v_now, version = c.version + 1,
        history = c.history || jsonb_build_object('at', v_now, 'by', p_operator, 'action', case d.status
          when 'posted' then 'verified' else 'gone' end, 'reason', 'Gone in run ' || p_run_id)
      from due d where d.difference_id = c.difference_id and d.is_covered
      returning d.status)
    select (select count(*) from verified v where v.status = 'posted'),
      (select count(*) from verified v where v.status <> 'posted'), (select count(*) from due d where not d.is_covered)
    into v_verified, v_gone, v_skipped;
  end if;
  v_answer := jsonb_build_object('run_id', p_run_id, 'kept', v_kept, 'verified', v_verified, 'gone', v_gone, 'reopened',
    v_reopened, 'not_looked_for', v_skipped, 'is_complete', p_is_last);
  update governance.reconciliation_runs r set outcome = v_answer, is_complete = p_is_last where r.run_id = p_run_id;
  return v_answer;
end
$$;
comment on function public.console_keep_reconciliation(text, text, jsonb, jsonb, boolean) is
  'Keeps a run and its differences as cases, page by page, the last with p_is_last. Then posted cases that are gone '
  'are verified, open ones that are gone too (gone), those posted and still there are open again (reopened), and so '
  'are those that are more than was written off; cases of files that this run did not read are left (not_looked_for). '
  'Safe to repeat and to go on with: kept says how many it has. report.ledger_read_at says as of when the ledger was '
  'read. Errors: invalid_argument, idempotency_conflict, incomplete_run.';
revoke all on function public.console_keep_reconciliation(text, text, jsonb, jsonb, boolean)
  from public, anon, authenticated;
grant execute on function public.console_keep_reconciliation(text, text, jsonb, jsonb, boolean) to service_role;

create function governance.run_covers(p_new jsonb, p_old jsonb) returns boolean
  language sql immutable set search_path = '' as $$
  select not exists (
    select from jsonb_array_elements(coalesce(p_old -> 'inputs', '[]')) o
    where not exists (
      select from jsonb_array_elements(coalesce(p_new -> 'inputs', '[]')) n
      where n ->> 'sha256' = o ->> 'sha256'
        or (n ->> 'kind' is not distinct from o ->> 'kind'
          and coalesce(governance.stripe_whole(n -> 'rows') >= governance.stripe_whole(o -> 'rows'), true)
          and coalesce(n #>> '{window,from}' <= o #>> '{window,from}' and n #>> '{window,to}' >= o #>> '{window,to}',
            true))))
    -- One file does not stand for two of its kind.
    and not exists (
      select from (select o ->> 'kind' as kind, sum(governance.stripe_whole(o -> 'rows')) as rows
        from jsonb_array_elements(coalesce(p_old -> 'inputs', '[]')) o group by 1) k
      where k.rows > coalesce((select sum(governance.stripe_whole(n -> 'rows'))
        from jsonb_array_elements(coalesce(p_new -> 'inputs', '[]')) n
        where n ->> 'kind' is not distinct from k.kind), 0))
$$;
comment on function governance.run_covers(jsonb, jsonb) is
  'Whether a report was made of all that another was made of: the same files, or of each kind as many rows, in files '
  'with as wide windows. Only then is what is gone gone.';

create function governance.run_json(r governance.reconciliation_runs) returns jsonb
  language sql stable set search_path = '' as $$
  select jsonb_build_object('run_id', r.run_id, 'period_from', r.period_from, 'period_to', r.period_to, 'tied_out',
    r.tied_out, 'is_complete', r.is_complete,
    'created_at', r.created_at, 'created_by', r.created_by, 'ledger_read_at', r.ledger_read_at, 'outcome', r.outcome,
    'file_names', (select coalesce(jsonb_agg(i ->> 'name'), '[]')
      from jsonb_array_elements(coalesce(r.report -> 'inputs', '[]')) i),
    'differences', (select count(*) from governance.reconciliation_run_differences d where d.run_id = r.run_id),
    'undecided', (select count(*) from governance.reconciliation_run_differences d
      join governance.reconciliation_cases c using (difference_id)
      where d.run_id = r.run_id and governance.is_undecided(c)),
    'is_closed', exists (select from governance.reconciliation_periods p where p.run_id = r.run_id))
$$;
comment on function governance.run_json(governance.reconciliation_runs) is 'A kept run as the console lists it.';

create function public.console_kept_runs(p_limit int default 50, p_before_run_id text default null) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
declare
  v_before timestamptz;
begin
  perform governance.refuse_others('console_kept_runs');
  if p_limit is null or p_limit not between 1 and 500 then
    perform governance.fail('PT400', 'invalid_argument', 'p_limit is a whole number from 1 to 500');
  end if;
  if p_before_run_id is not null then
    select r.created_at into v_before from governance.reconciliation_runs r where r.run_id = p_before_run_id;
    if v_before is null then
      perform governance.fail('PT404', 'not_found', 'p_before_run_id is no run that is kept: read from the beginning');
    end if;
  end if;
  return (select coalesce(jsonb_agg(governance.run_json(r) order by r.created_at desc, r.run_id desc), '[]')
    from (select * from governance.reconciliation_runs x
      where v_before is null or (x.created_at, x.run_id) < (v_before, p_before_run_id)
      order by x.created_at desc, x.run_id desc limit p_limit) r);
end
$$;
comment on function public.console_kept_runs(int,
  text) is 'Kept runs, newest first; p_before_run_id is the last one of the page before. Errors: invalid_argument, '
    'not_found.';
revoke all on function public.console_kept_runs(int, text) from public, anon, authenticated;
grant execute on function public.console_kept_runs(int, text) to service_role;

create function public.console_kept_run(p_run_id text) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
declare
  v_run governance.reconciliation_runs;
begin
  perform governance.refuse_others('console_kept_run');
  select * into v_run from governance.reconciliation_runs r where r.run_id = p_run_id;
  if v_run.run_id is null then
    perform governance.fail('PT404', 'not_found', 'This run is not kept in the project');
  end if;
  return jsonb_build_object('run', governance.run_json(v_run), 'report', v_run.report);
end
$$;
comment on function public.console_kept_run(text) is 'A kept run with its report. Errors: not_found.';
revoke all on function public.console_kept_run(text) from public, anon, authenticated;
grant execute on function public.console_kept_run(text) to service_role;

create function public.console_compare_reconciliations(p_run_id text, p_other_run_id text,
  p_limit int default 200) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
declare
  v_known int;
begin
  perform governance.refuse_others('console_compare_reconciliations');
  if p_limit is null or p_limit not between 1 and 5000 then
    perform governance.fail('PT400', 'invalid_argument', 'p_limit is a whole number from 1 to 5000');
  end if;
  select count(*) into v_known from governance.reconciliation_runs r
    where r.run_id in (p_run_id, p_other_run_id) and r.is_complete;
  if v_known < (case when p_run_id = p_other_run_id then 1 else 2 end) then
    perform governance.fail('PT404', 'not_found', 'Both runs must be kept, wholly');
  end if;
  return (
    with pairs as (
      select coalesce(a.difference_id, b.difference_id) as difference_id, coalesce(a.class, b.class) as class,
        coalesce(a.currency, b.currency) as currency,
        b.amount_minor as amount_before, a.amount_minor as amount_now, b.tokens as tokens_before,
          a.tokens as tokens_now,
        case when b.difference_id is null then 'new' when a.difference_id is null then 'gone'
          when (a.amount_minor, a.tokens) is distinct from (b.amount_minor, b.tokens) then 'changed'
            else 'same' end as how
      from (select * from governance.reconciliation_run_differences x where x.run_id = p_run_id) a
      full join (select * from governance.reconciliation_run_differences x where x.run_id = p_other_run_id) b
        using (difference_id)
    )
    select jsonb_build_object(
      'counts', jsonb_build_object('new', count(*) filter (where p.how = 'new'), 'gone',
        count(*) filter (where p.how = 'gone'),
        'changed', count(*) filter (where p.how = 'changed'), 'same', count(*) filter (where p.how = 'same')),
      'rows', (select coalesce(jsonb_agg(jsonb_build_object('difference_id', x.difference_id, 'class', x.class,
        'currency', x.currency, 'how', x.how,
          'amount_before', x.amount_before, 'amount_now', x.amount_now, 'tokens_before', x.tokens_before, 'tokens_now',
            x.tokens_now, 'status', c.status)
          order by array_position(array['new', 'gone', 'changed', 'same'], x.how), x.difference_id), '[]')
        from (select * from pairs q order by array_position(array['new', 'gone', 'changed', 'same'], q.how),
          q.difference_id limit p_limit) x
        left join governance.reconciliation_cases c using (difference_id)))
    from pairs p);
end
$$;
comment on function public.console_compare_reconciliations(text, text, int) is
  'What the first run has that the second had not (new), no longer has (gone), has with other figures (changed), and '
  'has the same. Errors: invalid_argument, not_found.';
revoke all on function public.console_compare_reconciliations(text, text, int) from public, anon, authenticated;
grant execute on function public.console_compare_reconciliations(text, text, int) to service_role;

-- schemas/73_case_corrections.sql
-- What a case's correction books, and its preview.

create function governance.complete_correction(c jsonb) returns jsonb
  language plpgsql stable set search_path = '' as $$
declare
  v_user_id text := governance.person_of(c);
  v_plan governance.plans;
begin
  if v_user_id is not null then
    c := c || jsonb_build_object('user_id', v_user_id);
  end if;
  if c ->> 'grant_kind' = 'subscription' and governance.stripe_whole(c -> 'tokens') is null
    and v_user_id is not null then
    select p.* into v_plan from governance.accounts a
      left join lateral (select s.plan_id from governance.stripe_subscriptions s
        where s.customer_id = c ->> 'customer_id' and s.plan_id is not null and s.canceled_at is null
        order by s.updated_at desc limit 1) s on true
      join governance.plans p on p.plan_id = coalesce(s.plan_id, a.plan_id)
    where a.user_id = v_user_id;
    if v_plan.monthly_allowance > 0 then
      c := c || jsonb_build_object('tokens', v_plan.monthly_allowance, 'plan_id', v_plan.plan_id, 'words',
        format('Grant the %s tokens of a month of %s, keyed on %s.',
          btrim(to_char(v_plan.monthly_allowance, '999,999,999,999')), v_plan.name,
          coalesce(c ->> 'charge_id', c ->> 'invoice_id', 'the payment')));
    end if;
  end if;
  return c;
end
$$;
comment on function governance.complete_correction(jsonb) is
  'A correction with what the project knows and the report could not: who it is about, and the tokens of a '
  'subscription''s month.';

create function governance.grant_period(
  p_now timestamptz, p_pay governance.stripe_payments, p_user_id text, p_plan_id text, p_tokens bigint, p_amount bigint,
  p_currency text, p_cause text, p_difference_id text
) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_account governance.accounts := governance.lock_account(p_user_id);
  v_granted governance.granted;
begin
  update governance.stripe_payments p set account_id = v_account.account_id, amount_minor = p_amount,
    currency = p_currency, paid_at = coalesce(p.paid_at, p_now)
  where p.payment_id = p_pay.payment_id;
  -- The invoiced month is over or under way: its tokens last a month from the day they come.
  v_granted := governance.grant_tokens(v_account.account_id, 'subscription', p_tokens, 'subscription_grant', p_now,
    p_now + interval '1 month', p_cause, 'Subscription ' || coalesce(p_plan_id, v_account.plan_id),
    jsonb_strip_nulls(jsonb_build_object('difference_id', p_difference_id, 'invoice_id', p_pay.invoice_id, 'plan_id',
      p_plan_id, 'amount_minor', p_amount, 'currency', p_currency)),
    jsonb_build_object('stripe_charge_id', p_pay.charge_id, 'stripe_payment_intent_id', p_pay.payment_intent_id,
      'amount_minor', p_amount, 'currency', p_currency));
  insert into governance.stripe_lots (lot_id, payment_id, tokens)
  values (v_granted.lot_id, p_pay.payment_id, p_tokens);
  perform governance.record_purchase(v_granted.transaction_id, 'grant', v_granted.lot_id, p_pay.payment_id, p_tokens, 0,
    p_amount, p_currency, p_difference_id => p_difference_id);
  return jsonb_build_array(governance.effect('grant', p_user_id, p_tokens, v_granted.transaction_id));
end
$$;
comment on function governance.grant_period(timestamptz, governance.stripe_payments, text, text, bigint, bigint, text,
  text, text) is
  'Grants a subscription''s invoiced period that was never granted, as subscription tokens, and ties the lot to its '
  'payment. The caller holds the payment''s locks; the account is locked here.';

create function governance.apply_correction(p_difference_id text, c jsonb, p_now timestamptz) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_action text := c ->> 'action';
  v_tokens bigint := governance.stripe_whole(c -> 'tokens');
  v_amount bigint := governance.stripe_whole(c -> 'amount_minor');
  v_currency text := governance.stripe_currency(c -> 'currency');
  v_lot_id bigint := governance.stripe_whole(c -> 'lot_id');
  v_user_id text := c ->> 'user_id';
  v_known governance.stripe_lots;
  v_lot governance.lots;
  v_pay governance.stripe_payments;
  v_taking governance.lot_taking;
  v_entry bigint;
  v_effects jsonb := '[]';
  v_reference text := left('correction ' || p_difference_id, 500);
  v_metadata jsonb := jsonb_build_object('difference_id', p_difference_id);
begin
  if v_action = 'grant' then
    v_pay := governance.note_payment(p_now, governance.stripe_id(c -> 'payment_intent_id'),
      governance.stripe_id(c -> 'charge_id'),
      governance.stripe_id(c -> 'checkout_session_id'), governance.stripe_id(c -> 'invoice_id'),
        governance.stripe_id(c -> 'customer_id'));
    if coalesce(v_pay.payment_intent_id, v_pay.charge_id, v_pay.checkout_session_id, v_pay.invoice_id) is null then
      perform governance.fail('PT400', 'invalid_argument', 'The payment has no id: a grant must be keyed on one');
    elsif exists (select from governance.stripe_lots s where s.payment_id = v_pay.payment_id) then
      perform governance.fail('PT409', 'already_granted',
        'This payment has its tokens by now: run the reconciliation again');
    end if;
    v_user_id := coalesce(v_user_id, governance.person_of(c));
    if v_user_id is null or not exists (select from governance.accounts a where a.user_id = v_user_id) then
      perform governance.fail('PT404', 'unknown_user',
        'The payment names no known user: propose again with correction.user_id');
    elsif v_tokens is null or v_tokens not between 1 and 100000000 then
      perform governance.fail('PT400', 'invalid_argument', 'correction.tokens is a whole number from 1 to 100,000,000');
    elsif v_amount is null or v_amount < 0 or v_currency is null then
      perform governance.fail('PT400', 'invalid_argument',
        'correction.amount_minor and correction.currency are needed');
    end if;
    if c ->> 'grant_kind' = 'subscription' then
      v_effects := governance.grant_period(p_now, v_pay, v_user_id, c ->> 'plan_id', v_tokens, v_amount, v_currency,
        v_reference, p_difference_id);
    else
      v_effects := governance.grant_pack(p_now, v_pay.payment_id, v_user_id, coalesce(c ->> 'pack_id', 'custom'),
        v_tokens, v_amount, v_currency, p_now, v_reference, p_difference_id);
    end if;
    if governance.stripe_whole(c -> 'refunded_minor') > 0 then
      update governance.stripe_payments p
        set refunded_minor = greatest(p.refunded_minor, governance.stripe_whole(c -> 'refunded_minor')),
        refunded_at = p_now
      where p.payment_id = v_pay.payment_id;
    end if;
    return v_effects || governance.settle_payment(v_pay.payment_id, p_now, v_reference, p_difference_id);
  end if;

  select s.* into v_known from governance.stripe_lots s where s.lot_id = v_lot_id;
  if v_known.lot_id is null then
    perform governance.fail('PT404', 'not_found', 'The correction names no lot of a payment');
  end if;
  select * into strict v_pay from governance.stripe_payments p where p.payment_id = v_known.payment_id;
  perform governance.lock_stripe_ids(v_pay.payment_intent_id, v_pay.charge_id, v_pay.checkout_session_id,
    v_pay.invoice_id);
  perform governance.lock_account_id(v_pay.account_id);
  select s.* into strict v_known from governance.stripe_lots s where s.lot_id = v_lot_id;
  select l.* into strict v_lot from governance.lots l where l.lot_id = v_lot_id;
  select a.user_id into strict v_user_id from governance.accounts a where a.account_id = v_pay.account_id;

  if v_action in ('reverse', 'adjust') then
    if v_tokens is null or v_tokens = 0 or abs(v_tokens) > 100000000 then
      perform governance.fail('PT400', 'invalid_argument',
        'correction.tokens is a whole number, not zero, of at most 100,000,000');
    elsif v_tokens < 0 then
      if -v_tokens > v_known.tokens - v_known.reversed - v_known.clawed then
        perform governance.fail('PT409', 'more_than_left',
          format('Only %s tokens of this grant are not taken back yet',
          v_known.tokens - v_known.reversed - v_known.clawed));
      end if;
      v_taking := governance.take_back(v_lot_id, -v_tokens, 'adjustment', p_now, v_reference, 'Correction', v_metadata);
      v_entry := v_taking.transaction_id;
      perform governance.record_purchase(v_entry, 'adjustment', v_lot_id, v_pay.payment_id, v_tokens, v_taking.debt,
        null, v_pay.currency, p_difference_id => p_difference_id);
    else
      update governance.lots l set granted = l.granted + v_tokens, remaining = l.remaining + v_tokens, is_open = true
        where l.lot_id = v_lot_id;
      v_entry := (governance.append_entry(v_pay.account_id, 'adjustment', p_now, array[v_lot_id, v_tokens],
        case v_lot.kind when 'subscription' then v_tokens else 0 end, case v_lot.kind when 'purchased' then v_tokens
          else 0 end,
        case v_lot.kind when 'promotional' then v_tokens
          else 0 end, 0, v_reference, 'Correction', v_metadata)).transaction_id;
      perform governance.record_purchase(v_entry, 'adjustment', v_lot_id, v_pay.payment_id, v_tokens, 0, null,
        v_pay.currency, p_difference_id => p_difference_id);
    end if;
    perform governance.recover_debt(v_pay.account_id, p_now, v_reference, greatest(v_tokens, 0));
    update governance.stripe_lots s set tokens = s.tokens + v_tokens, is_void = s.is_void
      or s.tokens + v_tokens <= s.reversed + s.clawed where s.lot_id = v_lot_id;
    v_effects := jsonb_build_array(governance.effect('adjustment', v_user_id, v_tokens, v_entry));
  elsif v_action in ('claw_back', 'restore') then
    if governance.stripe_whole(c -> 'refunded_minor') is null then
      perform governance.fail('PT400', 'invalid_argument',
        'correction.refunded_minor is needed: what Stripe says was refunded');
    end if;
    update governance.stripe_payments p set refunded_override_minor = governance.stripe_whole(c -> 'refunded_minor'),
      refunded_override_at = greatest(p_now, p.refunded_at,
        (select max(r.told_at) from governance.stripe_refunds r where r.payment_id = p.payment_id))
    where p.payment_id = v_pay.payment_id;
  elsif v_action in ('hold', 'release', 'finalise_dispute') then
    -- Stripe's word stands for every dispute of the payment; one that never was told is noted now.
    update governance.stripe_disputes d set told_at = greatest(d.told_at, p_now), is_reinstated = false,
      stage = case v_action when 'hold' then 2 else 3 end, is_lost = v_action = 'finalise_dispute',
      status = case v_action when 'hold' then 'needs_response' when 'release' then 'won' else 'lost' end,
      amount_minor = coalesce(nullif(governance.stripe_whole(c -> 'disputed_minor'), 0), d.amount_minor)
    where d.payment_id = v_pay.payment_id;
    if not found and v_action <> 'release' then
      insert into governance.stripe_disputes (dispute_id, payment_id, amount_minor, status, stage, is_lost, told_at)
      values (coalesce(governance.stripe_id(c -> 'dispute_id'), v_reference), v_pay.payment_id,
        coalesce(nullif(governance.stripe_whole(c -> 'disputed_minor'), 0), v_pay.amount_minor),
        case v_action when 'hold' then 'needs_response' else 'lost' end, case v_action when 'hold' then 2
          else 3 end, v_action = 'finalise_dispute', p_now);
    elsif not found then
      insert into governance.stripe_disputes (dispute_id, payment_id, amount_minor, status, stage, told_at)
      values (coalesce(governance.stripe_id(c -> 'dispute_id'), v_reference), v_pay.payment_id,
        coalesce(v_pay.amount_minor, 0), 'won', 3, p_now);
    end if;
  elsif v_action = 'relabel' then
    if v_amount is null or v_amount < 0 or v_currency is null then
      perform governance.fail('PT400', 'invalid_argument',
        'correction.amount_minor and correction.currency are needed');
    end if;
    update governance.lots l set amount_minor = v_amount, currency = v_currency where l.lot_id = v_lot_id;
    update governance.stripe_payments p set amount_minor = v_amount, currency = v_currency
      where p.payment_id = v_pay.payment_id
      and not exists (select from governance.stripe_lots s where s.payment_id = p.payment_id and s.lot_id <> v_lot_id);
    v_entry := (governance.append_entry(v_pay.account_id, 'adjustment', p_now, '{}', 0, 0, 0, 0, v_reference,
      'Correction of the amount paid',
      v_metadata || jsonb_build_object('amount_minor', v_amount, 'currency', v_currency))).transaction_id;
    perform governance.record_purchase(v_entry, 'relabel', v_lot_id, v_pay.payment_id, 0, 0, v_amount, v_currency,
      p_difference_id => p_difference_id);
    v_effects := jsonb_build_array(governance.effect('relabel', v_user_id, 0, v_entry));
  elsif v_action = 'promotional' then
    update governance.lots l set kind = 'promotional' where l.lot_id = v_lot_id;
    update governance.stripe_lots s set is_void = true where s.lot_id = v_lot_id;
    v_entry := (governance.append_entry(v_pay.account_id, 'adjustment', p_now, array[v_lot_id, 0::bigint],
      case v_lot.kind when 'subscription' then -v_lot.remaining else 0 end, case v_lot.kind
        when 'purchased' then -v_lot.remaining else 0 end,
      case v_lot.kind when 'promotional' then 0
        else v_lot.remaining end, 0, v_reference, 'Reclassified as promotional', v_metadata)).transaction_id;
    perform governance.record_purchase(v_entry, 'promotional', v_lot_id, v_pay.payment_id, 0, 0, null, null,
      p_difference_id => p_difference_id);
    v_effects := jsonb_build_array(governance.effect('promotional', v_user_id, 0, v_entry));
  else
    perform governance.fail('PT409', 'nothing_to_post', 'This correction books nothing: it is for a person');
  end if;
  return v_effects || governance.settle_payment(v_pay.payment_id, p_now, v_reference, p_difference_id);
end
$$;
comment on function governance.apply_correction(text, jsonb,
  timestamptz) is 'Books a correction (Correction of shared/governance/reconciliation): new entries alone, nothing is '
    'edited.';

create function governance.account_books(p_user_ids text[]) returns jsonb
  language sql stable set search_path = '' as $$
  select coalesce(jsonb_object_agg(a.user_id, jsonb_build_object(
    'name', a.display_name,
    'balance', jsonb_build_object('total', a.subscription_tokens + a.purchased_tokens + a.promotional_tokens,
      'subscription', a.subscription_tokens,
      'purchased', a.purchased_tokens, 'promotional', a.promotional_tokens, 'debt', a.debt_tokens),
    'entries', (select coalesce(jsonb_agg(jsonb_build_object('type', t.transaction_type, 'amount', t.amount,
      'previous_balance', t.previous_balance,
        'new_balance', t.new_balance, 'debt_after', t.debt_after, 'description', t.description)
          order by t.transaction_id), '[]')
      from (select * from governance.token_transactions x where x.account_id = a.account_id
        order by x.transaction_id desc limit 100) t where t.xid = pg_current_xact_id()),
    'lots', (select coalesce(jsonb_object_agg(l.lot_id,
      jsonb_build_object('kind', l.kind, 'pack_id', l.pack_id, 'granted', l.granted, 'remaining', l.remaining, 'frozen',
      l.frozen,
        'spent', l.spent, 'expired', l.expired, 'clawed_back', l.clawed_back, 'amount_minor', l.amount_minor,
          'currency', l.currency)), '{}')
      from governance.lots l where l.account_id = a.account_id))), '{}')
  from governance.accounts a where a.user_id = any (p_user_ids)
$$;
comment on function governance.account_books(text[]) is 'Balances, lots and this transaction''s own entries of '
  'accounts: what a preview compares.';

create function governance.preview_correction(c governance.reconciliation_cases, p_now timestamptz) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_effects jsonb;
  v_users text[];
  v_before jsonb;
  v_after jsonb;
begin
  -- Done and undone: the preview is what will happen, not a guess at it.
  begin
    v_effects := governance.apply_correction(c.difference_id, c.correction, p_now);
    select coalesce(array_agg(distinct e ->> 'user_id'), '{}') into v_users from jsonb_array_elements(v_effects) e
      where e ->> 'user_id' is not null;
    v_after := governance.account_books(v_users);
    raise exception using errcode = 'PT0DR', message = 'preview';
  exception when sqlstate 'PT0DR' then null;
  end;
  v_before := governance.account_books(v_users);
  return jsonb_build_object('effects', v_effects, 'accounts', (
    select coalesce(jsonb_agg(jsonb_build_object('user_id', a.key, 'name', a.value -> 'name', 'before',
      coalesce(v_before #> array[a.key, 'balance'], '{}'), 'after', a.value -> 'balance',
      'entries', a.value -> 'entries', 'lots', (
        select coalesce(jsonb_agg(jsonb_build_object('lot_id', l.key::bigint, 'before',
          v_before #> array[a.key, 'lots', l.key], 'after', l.value) order by l.key::bigint), '[]')
        from jsonb_each(a.value -> 'lots') l where l.value is distinct from v_before #> array[a.key, 'lots', l.key]))
          order by a.key), '[]')
    from jsonb_each(v_after) a));
end
$$;
comment on function governance.preview_correction(governance.reconciliation_cases, timestamptz) is
  'What a correction would do: effects, and for each account its entries, balances and changed lots before and after. '
  'Changes nothing. Errors: those of governance.apply_correction.';

create function public.console_post_correction(p_difference_id text, p_operator text, p_dry_run boolean default false,
  p_expected_version int default null) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_now timestamptz;
  c governance.reconciliation_cases;
  v_effects jsonb;
  v_preview jsonb;
  v_why text;
begin
  perform governance.refuse_others('console_post_correction');
  perform governance.check_id('p_difference_id', p_difference_id, 512);
  perform governance.check_id('p_operator', p_operator);
  if not coalesce(p_dry_run, false) then
    perform pg_advisory_xact_lock_shared(7254101);
    perform governance.lock_person(p_operator);
  end if;
  v_now := governance.now();
  select * into c from governance.reconciliation_cases x where x.difference_id = p_difference_id for update;
  if c.difference_id is null then
    perform governance.fail('PT404', 'not_found', 'There is no such case');
  elsif c.status in ('posted', 'verified') then
    return jsonb_build_object('difference_id', p_difference_id, 'status', c.status, 'effects',
      coalesce(c.effects, '[]'), 'dry_run', false, 'posted_by', c.posted_by, 'posted_at', c.posted_at);
  elsif p_expected_version <> c.version then
    perform governance.fail('PT409', 'version_conflict',
      format('%s was changed by %s in the meantime: it is %s now', left(p_difference_id, 100),
      coalesce(c.history -> -1 ->> 'by', 'somebody'), replace(c.status, '_', ' ')), governance.case_json(c)::text);
  end if;
  if p_dry_run then
    v_preview := governance.preview_correction(c, v_now);
    v_why := case when c.status <> 'approved' then governance.why_approver(c, p_operator, v_preview -> 'effects', v_now)
      end;
    return v_preview || jsonb_build_object('difference_id', p_difference_id, 'status', c.status, 'dry_run', true,
      'needs_approver', v_why is not null, 'why_approver', v_why);
  elsif c.status not in ('proposed', 'approved') then
    perform governance.fail('PT409', 'not_proposed',
      format('This case is %s: propose its correction first', replace(c.status, '_', ' ')));
  elsif c.resolution = 'write_off' then
    perform governance.fail('PT409', 'not_proposed',
      'It is proposed to write this case off: propose its correction first');
  elsif c.status <> 'approved' and governance.needs_approver(c) then
    perform governance.fail('PT403', 'approval_needed', governance.why_approver(c, p_operator, '[]', v_now));
  end if;
  v_effects := governance.apply_correction(p_difference_id, c.correction, v_now);
  if c.status <> 'approved' then
    v_why := governance.why_approver(c, p_operator, v_effects, v_now);
    if v_why is not null then
      perform governance.fail('PT403', 'approval_needed', v_why);
    end if;
  end if;
  -- The clock anew: booking may have waited for the account, and a run that read the ledger meanwhile has not seen it.
  v_now := governance.now();
  if c.status <> 'approved' then
    insert into governance.lone_decisions (difference_id, what, decided_at, decided_by, tokens, amount_minor, currency)
    select p_difference_id, 'posted', v_now, p_operator, s.tokens, s.amount_minor, c.currency
      from governance.stake_of(c, v_effects) s;
  end if;
  update governance.reconciliation_cases x set status = 'posted', status_at = v_now, posted_at = v_now,
    posted_by = p_operator, effects = v_effects, updated_at = v_now, version = x.version + 1,
    -- What was posted, and whom it was posted to, is what the case says from now on.
    user_id = coalesce(v_effects #>> '{0,user_id}', x.user_id),
    tokens = coalesce(-nullif((select sum((e.value ->> 'tokens')::bigint) from jsonb_array_elements(v_effects) e), 0),
      x.tokens),
    correction = x.correction || jsonb_strip_nulls(jsonb_build_object('user_id', v_effects #>> '{0,user_id}')),
    history = x.history || jsonb_build_object('at', v_now, 'by', p_operator, 'action', 'posted', 'details', v_effects)
  where x.difference_id = p_difference_id;
  insert into governance.audit_log (created_at, operator, action, account_id, reason, command_id, details)
  select v_now, p_operator, 'post_correction',
    (select a.account_id from governance.accounts a where a.user_id = v_effects #>> '{0,user_id}'),
    c.class, left(p_difference_id, 255),
      jsonb_build_object('difference_id', p_difference_id, 'correction', c.correction, 'effects', v_effects,
      'proposed_by', c.proposed_by, 'approved_by', c.approved_by);
  return jsonb_build_object('difference_id', p_difference_id, 'status', 'posted', 'effects', v_effects, 'dry_run',
    false, 'posted_by', p_operator, 'posted_at', v_now);
end
$$;
comment on function public.console_post_correction(text, text, boolean, int) is
  'Books the correction of a proposed case, approved by a second person above the limit (settings '
  'approval_above_tokens, approval_above_minor: of one correction, and of all that one person decides alone within 24 '
  'hours); once, however often it is called. p_dry_run answers effects, entries, lots and balances before and after, '
  'and changes nothing. Audited. Errors: invalid_argument, not_found, version_conflict, not_proposed, approval_needed, '
  'already_granted, unknown_user, more_than_left, nothing_to_post.';
revoke all on function public.console_post_correction(text, text, boolean, int) from public, anon, authenticated;
grant execute on function public.console_post_correction(text, text, boolean, int) to service_role;

create function public.console_preview_cases(p_difference_ids text[], p_action text, p_operator text) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_now timestamptz := governance.now();
  v_id text;
  c governance.reconciliation_cases;
  v_refusal governance.refusal;
  v_why text;
  v_effects jsonb;
  v_hint text;
  v_message text;
  v_state text;
  v_included jsonb := '[]';
  v_excluded jsonb := '[]';
  v_waits bigint := 0;
  v_tokens_added numeric := 0;
  v_tokens_taken numeric := 0;
  v_stake governance.stake;
  v_more_tokens numeric := 0;
  v_more_minor jsonb := '{}';
begin
  perform governance.refuse_others('console_preview_cases');
  perform governance.check_id('p_operator', p_operator);
  if p_action is null or p_action not in ('investigate', 'assign', 'note', 'propose', 'approve', 'carry_forward',
    'write_off', 'reopen', 'post') then
    perform governance.fail('PT400', 'invalid_argument',
      'p_action is one of investigate, assign, note, propose, approve, carry_forward, write_off, reopen, post');
  elsif p_difference_ids is null or cardinality(p_difference_ids) not between 1 and 1000
    or array_ndims(p_difference_ids) > 1 or array_position(p_difference_ids, null) is not null then
    perform governance.fail('PT400', 'invalid_argument', 'p_difference_ids are 1 to 1,000');
  end if;
  for v_id in select distinct x from unnest(p_difference_ids) x order by 1 loop
    select * into c from governance.reconciliation_cases x where x.difference_id = v_id;
    v_refusal := null;
    v_effects := '[]';
    v_stake := null;
    if p_action <> 'post' then
      v_refusal := governance.case_refusal(c, v_id, p_action, p_operator);
      if v_refusal.hint is null and p_action = 'write_off' and c.blocks then
        if governance.why_approver(c, p_operator, null, v_now, v_more_tokens,
          coalesce((v_more_minor ->> coalesce(c.currency, ''))::numeric, 0)) is not null then
          v_waits := v_waits + 1;
        else
          v_stake := governance.stake_of(c, null);
        end if;
      end if;
    elsif c.difference_id is null then
      v_refusal := row('PT404', 'not_found', 'There is no such case');
    elsif c.status not in ('proposed', 'approved') then
      v_refusal := row('PT409', 'not_proposed',
        format('It is %s: only what was proposed can be posted', replace(c.status, '_', ' ')));
    elsif c.resolution = 'write_off' then
      v_refusal := row('PT409', 'not_proposed', 'It is proposed to write it off');
    else
      begin
        v_effects := governance.preview_correction(c, v_now) -> 'effects';
        v_why := null;
        if c.status <> 'approved' then
          -- Each alone may be within the limit; with those before it, it must be too.
          v_why := governance.why_approver(c, p_operator, v_effects, v_now, v_more_tokens,
            coalesce((v_more_minor ->> coalesce(c.currency, ''))::numeric, 0));
          if v_why is null then v_stake := governance.stake_of(c, v_effects); end if;
        end if;
        if v_why is not null then
          v_refusal := row('PT403', 'approval_needed', v_why);
        end if;
      exception when others then
        get stacked diagnostics v_hint = pg_exception_hint, v_message = message_text, v_state = returned_sqlstate;
        -- Our own refusals say why it cannot be included; anything else is a fault.
        if v_state not like 'PT4%' then raise; end if;
        v_refusal := row(v_state, v_hint, v_message);
      end;
    end if;
    if v_stake.tokens is not null then
      v_more_tokens := v_more_tokens + v_stake.tokens;
      v_more_minor := v_more_minor
        || jsonb_build_object(coalesce(c.currency, ''),
        coalesce((v_more_minor ->> coalesce(c.currency, ''))::numeric, 0) + v_stake.amount_minor);
    end if;
    if v_refusal.hint is not null then
      v_excluded := v_excluded
        || jsonb_build_object('difference_id', v_id, 'code', v_refusal.hint, 'message', v_refusal.message);
    else
      v_included := v_included || jsonb_build_object('difference_id', v_id, 'version', c.version,
        'users', case p_action when 'post'
          then (select coalesce(jsonb_agg(distinct e -> 'user_id'), '[]') from jsonb_array_elements(v_effects) e)
          else jsonb_build_array(c.user_id) end, 'currency', c.currency, 'amount_minor', c.amount_minor, 'tokens',
          c.tokens);
      select v_tokens_added + coalesce(sum(e.tokens) filter (where e.tokens > 0), 0),
        v_tokens_taken - coalesce(sum(e.tokens) filter (where e.tokens < 0), 0)
      into v_tokens_added, v_tokens_taken from jsonb_to_recordset(v_effects) e(tokens bigint);
    end if;
  end loop;
  return jsonb_build_object('action', p_action,
    'included', (select coalesce(jsonb_agg(jsonb_build_object('difference_id', i ->> 'difference_id', 'version',
      i -> 'version')), '[]') from jsonb_array_elements(v_included) i),
    'excluded', v_excluded, 'waits_for_approval', v_waits,
    'users', (select count(distinct u) from jsonb_array_elements(v_included) i
      cross join lateral jsonb_array_elements_text(i -> 'users') u),
    'tokens', (select coalesce(sum(abs((i ->> 'tokens')::bigint)), 0) from jsonb_array_elements(v_included) i),
    'tokens_added', v_tokens_added, 'tokens_taken', v_tokens_taken,
    'money', (select coalesce(jsonb_agg(jsonb_build_object('currency', s.currency, 'amount_minor', s.amount)
      order by s.currency), '[]')
      from (select i ->> 'currency' as currency, sum(abs((i ->> 'amount_minor')::bigint)) as amount
        from jsonb_array_elements(v_included) i
        where i ->> 'currency' is not null and (i ->> 'amount_minor')::bigint <> 0 group by 1) s));
end
$$;
comment on function public.console_preview_cases(text[], text, text) is
  'The blast radius of an action on many cases (those of console_case_action, or post): which are included, which not '
  'and why, users, tokens and money at stake, and what posting would add and take. Each correction is done and undone '
  'alone. Changes nothing. Errors: invalid_argument.';
revoke all on function public.console_preview_cases(text[], text, text) from public, anon, authenticated;
grant execute on function public.console_preview_cases(text[], text, text) to service_role;

-- schemas/74_periods.sql
-- Closing a period.

create table governance.reconciliation_periods (
  period_from timestamptz primary key,
  period_to timestamptz not null check (period_to > period_from),
  run_id text not null references governance.reconciliation_runs (run_id),
  -- SHA-256 over what was closed: run, inputs by their hashes, cases.
  seal bytea not null,
  sealed jsonb not null,
  closed_at timestamptz not null,
  closed_by text not null,
  sign_off text
);

comment on table governance.reconciliation_periods is 'Closed periods with their seal; append-only. What comes late is '
  'posted in the period in which it comes.';

create function public.console_close_period(p_command_id text, p_run_id text, p_operator text,
  p_sign_off text default null) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_now timestamptz;
  v_answer jsonb;
  v_run governance.reconciliation_runs;
  v_block jsonb;
  v_sealed jsonb;
  v_seal bytea;
  v_carried bigint;
begin
  perform governance.refuse_others('console_close_period');
  perform governance.check_id('p_command_id', p_command_id);
  perform governance.check_id('p_run_id', p_run_id);
  perform governance.check_id('p_operator', p_operator);
  perform governance.check_optional('p_sign_off', p_sign_off, 2000);
  v_answer := governance.begin_command('close_period', p_command_id, row(p_run_id, p_operator, p_sign_off)::text);
  if v_answer is not null then return v_answer; end if;
  perform pg_advisory_xact_lock(7254101);
  -- After the lock: closes follow each other by the clock, as their seals do.
  v_now := governance.now();
  select * into v_run from governance.reconciliation_runs r where r.run_id = p_run_id;
  if v_run.run_id is null then
    perform governance.fail('PT404', 'not_found', 'There is no such run: keep it first');
  end if;
  select k.value into v_block from jsonb_array_elements(governance.closing_checks(v_run, v_now)) with ordinality k
  where k.value -> 'blocks' = 'true' and k.value -> 'ok' = 'false' order by k.ordinality limit 1;
  if v_block is not null then
    perform governance.fail('PT409', v_block ->> 'hint', v_block ->> 'says');
  end if;
  v_sealed := jsonb_build_object('run_id', v_run.run_id, 'period',
    jsonb_build_object('from', v_run.period_from, 'to', v_run.period_to), 'report', v_run.report,
    'cases', (select coalesce(jsonb_agg(jsonb_build_object('difference_id', c.difference_id, 'class', c.class, 'status',
      c.status, 'amount_minor', c.amount_minor,
      'currency', c.currency, 'tokens', c.tokens, 'effects', c.effects, 'history', c.history) order by c.difference_id),
        '[]')
      from governance.cases_closed_with(v_run) c),
    'closed_at', v_now, 'closed_by', p_operator, 'sign_off', p_sign_off,
    'seal_before', (select encode(p.seal, 'hex') from governance.reconciliation_periods p
      order by p.closed_at desc, p.period_from desc limit 1));
  v_seal := sha256(convert_to(v_sealed::text, 'UTF8'));
  insert into governance.reconciliation_periods (period_from, period_to, run_id, seal, sealed, closed_at, closed_by,
    sign_off)
  values (v_run.period_from, v_run.period_to, p_run_id, v_seal, v_sealed, v_now, p_operator, p_sign_off);
  -- Carried forward means: into the next period, where somebody must decide again.
  with carried as (
    update governance.reconciliation_cases c set status = 'open', status_at = v_now, resolution = 'correct',
      proposed_by = null, approved_by = null, times_carried = c.times_carried + 1,
      updated_at = v_now, version = c.version + 1,
      history = c.history || jsonb_build_object('at', v_now, 'by', p_operator, 'action', 'carried_over', 'reason',
        'Its period was closed: it is a late item of the next one')
    where c.status = 'carried_forward' and c.blocks
      and c.difference_id in (select x.difference_id from governance.cases_in_close(v_run) x)
    returning 1)
  select count(*) into v_carried from carried;
  insert into governance.audit_log (created_at, operator, action, reason, command_id, details)
  values (v_now, p_operator, 'close_period', p_sign_off, p_command_id,
    jsonb_build_object('run_id', p_run_id, 'seal', encode(v_seal, 'hex')));
  return governance.end_command('close_period', p_command_id,
    jsonb_build_object('period_from', v_run.period_from, 'period_to', v_run.period_to, 'run_id', p_run_id, 'seal',
      encode(v_seal, 'hex'), 'closed_at', v_now, 'carried_over', v_carried));
end
$$;
comment on function public.console_close_period(text, text, text, text) is
  'Closes the period of a kept run whose differences are all dealt with, and seals it (SHA-256 over run, input hashes, '
  'cases with their history, and the seal before). What was carried forward is open again, as a late item of the next '
  'period. Audited. Errors: invalid_argument, not_found, incomplete_run, period_not_over, already_closed, superseded, '
  'unexplained, still_open, idempotency_conflict.';
revoke all on function public.console_close_period(text, text, text, text) from public, anon, authenticated;
grant execute on function public.console_close_period(text, text, text, text) to service_role;

create function public.console_closed_periods() returns jsonb
  language sql stable security definer set search_path = '' as $$
  select governance.refuse_others('console_closed_periods');
  select coalesce(jsonb_agg(jsonb_build_object('period_from', p.period_from, 'period_to', p.period_to, 'run_id',
    p.run_id, 'seal', encode(p.seal, 'hex'),
    -- What is shown is what was sealed; only a text that fits is read.
    'is_intact', case when p.seal = sha256(convert_to(p.sealed::text, 'UTF8')) then
      (p.run_id, p.period_from, p.period_to, p.closed_at, p.closed_by, p.sign_off)
        is not distinct from (p.sealed ->> 'run_id', (p.sealed #>> '{period,from}')::timestamptz,
        (p.sealed #>> '{period,to}')::timestamptz, (p.sealed ->> 'closed_at')::timestamptz, p.sealed ->> 'closed_by',
          p.sealed ->> 'sign_off')
      and (p.sealed ->> 'seal_before' is null
        or exists (select from governance.reconciliation_periods b
        where encode(b.seal, 'hex') = p.sealed ->> 'seal_before')) else false end,
    'seal_before', p.sealed -> 'seal_before', 'cases', jsonb_array_length(p.sealed -> 'cases'),
    'closed_at', p.closed_at, 'closed_by', p.closed_by, 'sign_off', p.sign_off) order by p.period_from desc), '[]')
  from governance.reconciliation_periods p
$$;
comment on function public.console_closed_periods() is 'Closed periods, newest first, each with its seal, whether it '
  'still fits, and the seal before, which must be there too.';
revoke all on function public.console_closed_periods() from public, anon, authenticated;
grant execute on function public.console_closed_periods() to service_role;

-- Sets, not questions about one case: a close asks them of every case that there ever was.
create function governance.cases_in_close(r governance.reconciliation_runs)
  returns setof governance.reconciliation_cases
  language sql stable set search_path = '' as $$
  select c.* from governance.reconciliation_cases c
  left join governance.reconciliation_run_differences d on d.run_id = r.run_id and d.difference_id = c.difference_id
  where coalesce(c.occurred_at, c.period_from) < r.period_to or d.run_id is not null
$$;
comment on function governance.cases_in_close(governance.reconciliation_runs) is
  'The cases that are a matter of closing with this run: found by it, or of its time or before. Late items of closed '
  'periods among them.';

create function governance.cases_closed_with(r governance.reconciliation_runs)
  returns setof governance.reconciliation_cases
  language sql stable set search_path = '' as $$
  select c.* from governance.cases_in_close(r) c
  left join governance.reconciliation_run_differences d on d.run_id = r.run_id and d.difference_id = c.difference_id
  where d.run_id is not null or c.status = 'carried_forward'
    or c.status_at > coalesce((select max(p.closed_at) from governance.reconciliation_periods p), '-infinity')
$$;
comment on function governance.cases_closed_with(governance.reconciliation_runs) is
  'The cases that are sealed with this run''s period: found by it, or decided since the last close.';

create function governance.is_unexplained(p_figure jsonb, p_explained numeric default 0) returns boolean
  language sql immutable set search_path = '' as $$
  select coalesce(p_figure, 'null') <> 'null'
    -- Nothing is never unexplained, whatever else is explained.
    and coalesce(governance.stripe_whole(p_figure) not in (0, -coalesce(p_explained, 0)), true)
$$;
comment on function governance.is_unexplained(jsonb,
  numeric) is 'Whether a figure of a report leaves something unexplained; one that is no whole number does.';

create function governance.closing_checks(r governance.reconciliation_runs, p_now timestamptz) returns jsonb
  language plpgsql stable set search_path = '' as $$
declare
  v_checks jsonb := '[]';
  v_count bigint;
  v_other bigint;
  v_posted bigint;
  v_text text;
  v_closed governance.reconciliation_periods;
begin
  v_checks := v_checks || jsonb_build_object('check', 'kept_wholly', 'hint', 'incomplete_run', 'ok', r.is_complete,
    'blocks', true, 'count', 0,
    'says', case when r.is_complete then 'The run is kept with all its differences'
      else 'The run is not kept wholly: keep it again' end);
  v_checks := v_checks || jsonb_build_object('check', 'period_over', 'hint', 'period_not_over', 'ok',
    r.period_to <= p_now and r.period_to <= r.ledger_read_at, 'blocks', true, 'count', 0,
    'says', case when r.period_to > p_now then 'The period has not ended yet' when r.period_to > r.ledger_read_at
      then 'The period had not ended when the ledger was read: reconcile it again' else 'The period has ended' end);
  select * into v_closed from governance.reconciliation_periods p
    where p.period_from < r.period_to and p.period_to > r.period_from order by p.period_from limit 1;
  v_checks := v_checks || jsonb_build_object('check', 'not_closed', 'hint', 'already_closed', 'ok',
    v_closed.run_id is null, 'blocks', true, 'count', 0,
    'says', case when v_closed.run_id is null then 'No part of it is closed'
      else format('The period, or a part of it, is closed already (by %s)', v_closed.closed_by) end);
  v_checks := v_checks || (select jsonb_build_object('check', 'newest_run', 'hint', 'superseded', 'ok', count(*) = 0,
    'blocks', true, 'count', count(*),
      'says', case when count(*) = 0 then 'It is the newest run of this period'
        else 'A newer run of this period is kept: close with that one' end)
    from governance.reconciliation_runs n
      where n.period_from = r.period_from and n.period_to = r.period_to and n.is_complete and n.run_id <> r.run_id
      and (n.ledger_read_at, n.created_at) > (r.ledger_read_at, r.created_at));
  -- What the statements leave unexplained; a figure that is none is not explained either. A row whose net is wrong is a
  -- difference of its own, and explains that much.
  select string_agg(x.says, ', ' order by x.says), count(*) into v_text, v_count from (
    select format('%s %s minor units between Stripe and ledger', b ->> 'currency', b ->> 'unexplained_minor') as says
    from jsonb_array_elements(coalesce(r.report -> 'bridge', '[]')) b
      where governance.is_unexplained(b -> 'unexplained_minor')
    union all
    select format('%s %s minor units in Stripe''s own figures', t ->> 'currency', t ->> 'unexplained_minor')
    from jsonb_array_elements(coalesce(r.report -> 'tie_out', '[]')) t
    where governance.is_unexplained(t -> 'unexplained_minor',
      (select sum(d.amount_minor) from governance.reconciliation_run_differences d
      where d.run_id = r.run_id and d.class = 'FEE_VARIANCE' and d.currency = t ->> 'currency'))
    union all
    select format('%s tokens (%s)', coalesce(nullif(f -> 'unexplained_tokens', '0'), f -> 'drift_tokens'), f ->> 'kind')
    from jsonb_array_elements(coalesce(r.report -> 'roll_forward', '[]')) f
    where governance.is_unexplained(f -> 'unexplained_tokens') or governance.is_unexplained(f -> 'drift_tokens')
    union all
    select format('%s %s minor units of deferred revenue (%s)', f ->> 'currency', f ->> 'unexplained_deferred_minor',
      f ->> 'kind')
    from jsonb_array_elements(coalesce(r.report -> 'roll_forward', '[]')) f
      where governance.is_unexplained(f -> 'unexplained_deferred_minor')) x;
  v_checks := v_checks || jsonb_build_object('check', 'unexplained', 'hint', 'unexplained', 'ok', v_count = 0, 'blocks',
    true, 'count', v_count,
    'says', case when v_count = 0
      and jsonb_array_length(coalesce(r.report -> 'roll_forward', '[]')) = 0
      then 'Nothing is unexplained in money; the report has no statement of tokens'
      when v_count = 0 then 'Nothing is unexplained, in money or in tokens'
        else 'Unexplained: ' || left(v_text, 500) end);
  -- Differences of the run, and what is older and was never decided: a late item belongs to the next period.
  select count(*) filter (where c.status in ('open', 'investigating')),
    count(*) filter (where c.status in ('proposed', 'approved')),
    count(*) filter (where c.status = 'posted') into v_count, v_other, v_posted
  from governance.cases_in_close(r) c where governance.is_undecided(c);
  v_checks := v_checks || jsonb_build_object('check', 'decided', 'hint', 'still_open', 'ok', v_count = 0, 'blocks',
    true, 'count', v_count,
    'says', case v_count when 0 then 'Every difference is decided'
      when 1 then '1 difference is neither corrected, carried forward nor written off'
      else format('%s differences are neither corrected, carried forward nor written off', v_count) end);
  v_checks := v_checks || jsonb_build_object('check', 'posted', 'hint', 'still_open', 'ok', v_other = 0, 'blocks', true,
    'count', v_other,
    'says', case v_other when 0 then 'No proposal waits' when 1 then '1 proposal is not posted'
      else format('%s proposals are not posted', v_other) end);
  v_checks := v_checks || jsonb_build_object('check', 'verified', 'hint', 'still_open', 'ok', v_posted = 0, 'blocks',
    true, 'count', v_posted,
    'says', case v_posted when 0 then 'Every posted correction is verified by a run'
      else format('%s posted, not verified: reconcile the same files again and keep that run', v_posted) end);
  -- To know, not to block.
  select * into v_closed from governance.reconciliation_periods p order by p.period_to desc limit 1;
  if v_closed.run_id is not null then
    v_checks := v_checks || jsonb_build_object('check', 'no_gap', 'ok', v_closed.period_to = r.period_from, 'blocks',
      false, 'count', 0,
      'says', case when v_closed.period_to = r.period_from then 'It begins where the last closed period ended'
        else 'It does not begin where the last closed period ended' end);
  end if;
  select count(*) into v_count from governance.webhook_events_processed w where w.status = 'quarantined';
  v_checks := v_checks || jsonb_build_object('check', 'stripe_events', 'ok', v_count = 0, 'blocks', false, 'count',
    v_count,
    'says', case v_count when 0 then 'No Stripe event waits for a person'
      when 1 then '1 Stripe event waits for a person' else format('%s Stripe events wait for a person', v_count) end);
  return v_checks;
end
$$;
comment on function governance.closing_checks(governance.reconciliation_runs,
  timestamptz) is 'What closing a period with this run needs, each with whether it is so; closing itself asks the '
    'same.';

create function public.console_closing(p_run_id text) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
declare
  v_run governance.reconciliation_runs;
  v_checks jsonb;
begin
  perform governance.refuse_others('console_closing');
  select * into v_run from governance.reconciliation_runs r where r.run_id = p_run_id;
  if v_run.run_id is null then
    perform governance.fail('PT404', 'not_found', 'There is no such run: keep it first');
  end if;
  v_checks := governance.closing_checks(v_run, governance.now());
  return jsonb_build_object('run', governance.run_json(v_run), 'checks', v_checks,
    'can_close', not exists (select from jsonb_array_elements(v_checks) k
      where k -> 'blocks' = 'true' and k -> 'ok' = 'false'),
    'decided', (select coalesce(jsonb_agg(jsonb_build_object('status', s.status, 'currency', s.currency, 'count', s.n,
      'amount_minor', s.amount, 'tokens', s.tokens) order by s.status, s.currency nulls last), '[]')
      from (select c.status, c.currency, count(*) as n, sum(abs(c.amount_minor)) as amount, sum(abs(c.tokens)) as tokens
        from governance.cases_closed_with(v_run) c
          where c.blocks and c.status in ('verified', 'carried_forward', 'written_off')
        group by 1, 2) s));
end
$$;
comment on function public.console_closing(text) is 'The checklist of closing a period with this run: what still '
  'blocks it, and what was decided. Errors: not_found.';
revoke all on function public.console_closing(text) from public, anon, authenticated;
grant execute on function public.console_closing(text) to service_role;

create function public.console_sealed_period(p_run_id text) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
declare
  v_period governance.reconciliation_periods;
begin
  perform governance.refuse_others('console_sealed_period');
  select * into v_period from governance.reconciliation_periods p where p.run_id = p_run_id;
  if v_period.run_id is null then
    perform governance.fail('PT404', 'not_found', 'No period was closed with this run');
  end if;
  return jsonb_build_object('run_id', v_period.run_id, 'seal', encode(v_period.seal, 'hex'), 'sealed',
    v_period.sealed::text);
end
$$;
comment on function public.console_sealed_period(text) is 'What was sealed, as the very text over whose UTF-8 bytes '
  'the seal is the SHA-256: anybody can check it. Errors: not_found.';
revoke all on function public.console_sealed_period(text) from public, anon, authenticated;
grant execute on function public.console_sealed_period(text) to service_role;

create trigger reconciliation_periods_append_only before update or delete
  or truncate on governance.reconciliation_periods
  for each statement execute function governance.refuse_change();

-- schemas/75_history.sql
-- What happened to one account: everything on one line of time, and its ledger with where each entry came from.

create index requests_refused_account on governance.requests (account_id, created_at) where decision = 'block';

create index token_transactions_unusual on governance.token_transactions (account_id, created_at)
  where transaction_type <> 'usage';

create index notifications_user on governance.notifications (account_id, created_at) where audience = 'user';

create function governance.history_kinds() returns text[]
  language sql immutable set search_path = '' as $$
  select '{stopped,purchase,refund,dispute,grant,act,alert,message}'::text[]
$$;
comment on function governance.history_kinds() is
  'What an account''s history is made of. Of what happened at one moment, the later of these is the newer.';

-- One source each, newest first, at most p_limit, older than a moment and, within it, than a number.
create function governance.history_calls(p_account_id bigint, p_at timestamptz, p_n bigint, p_limit int)
  returns table (at timestamptz, n bigint, item jsonb)
  language sql stable set search_path = '' as $$
  select r.created_at, r.decision_id, jsonb_build_object('decision_id', r.decision_id, 'reason', r.reason, 'message',
    r.message, 'model', r.requested_model, 'request_id', r.request_id, 'rule_name',
    (select v.rule_name from governance.rule_versions v where v.version_id = r.rule_version_id))
  from governance.requests r
  where r.account_id = p_account_id and r.decision = 'block' and (r.created_at, r.decision_id) < (p_at, p_n)
  order by r.created_at desc, r.decision_id desc limit p_limit
$$;
comment on function governance.history_calls(bigint, timestamptz, bigint, int) is 'Calls of an account that were '
  'stopped, as far back as calls are kept.';

create function governance.history_money(p_account_id bigint)
  returns table (kind text, at timestamptz, n bigint, item jsonb)
  language sql stable set search_path = '' as $$
  with payments as materialized (
    select p.*, jsonb_build_object('payment_id', p.payment_id, 'currency', p.currency, 'charge_id', p.charge_id,
      'payment_intent_id', p.payment_intent_id, 'invoice_id', p.invoice_id, 'livemode', p.livemode) as names
    from governance.stripe_payments p where p.account_id = p_account_id
  )
  select 'purchase', coalesce(p.paid_at, p.created_at), p.payment_id, p.names || jsonb_build_object('amount_minor',
    p.amount_minor, 'tokens', (select sum(s.tokens) from governance.stripe_lots s where s.payment_id = p.payment_id),
    'pack_id', (select max(l.pack_id) from governance.stripe_lots s join governance.lots l using (lot_id)
      where s.payment_id = p.payment_id))
  from payments p
  union all
  select 'refund', r.told_at, ('x' || left(md5(r.refund_id), 14))::bit(56)::bigint,
    p.names || jsonb_build_object('refund_id', r.refund_id, 'amount_minor', r.amount_minor,
      'state', case r.state when 1 then 'pending' when 2 then 'succeeded' else 'failed' end)
  from payments p join governance.stripe_refunds r using (payment_id)
  union all
  -- A charge may tell what was refunded without naming the refunds.
  select 'refund', p.refunded_at, p.payment_id, p.names || jsonb_build_object('refund_id', null, 'amount_minor',
    p.refunded_minor, 'state', 'succeeded')
  from payments p
  where p.refunded_minor > 0 and p.refunded_at is not null
    and not exists (select from governance.stripe_refunds r where r.payment_id = p.payment_id)
  union all
  select 'dispute', d.told_at, ('x' || left(md5(d.dispute_id), 14))::bit(56)::bigint,
    p.names || jsonb_build_object('dispute_id', d.dispute_id, 'amount_minor', d.amount_minor,
      'currency', coalesce(d.currency, p.currency), 'status', d.status, 'is_lost', d.is_lost)
  from payments p join governance.stripe_disputes d using (payment_id)
$$;
comment on function governance.history_money(bigint) is 'What an account paid, and what was refunded and disputed.';

create function governance.history_grants(p_account_id bigint, p_at timestamptz, p_n bigint, p_limit int)
  returns table (at timestamptz, n bigint, item jsonb)
  language sql stable set search_path = '' as $$
  select t.created_at, t.transaction_id, jsonb_build_object('transaction_id', t.transaction_id, 'transaction_type',
    t.transaction_type, 'amount', t.amount, 'new_balance', t.new_balance, 'debt', t.debt_after, 'description',
    t.description)
  from governance.token_transactions t
  where t.account_id = p_account_id and t.transaction_type <> 'usage'
    and (t.created_at, t.transaction_id) < (p_at, p_n)
    -- A payment's own grant is told by the payment.
    and not exists (select from governance.purchase_records r where r.transaction_id = t.transaction_id
      and r.record_type = 'grant')
  order by t.created_at desc, t.transaction_id desc limit p_limit
$$;
comment on function governance.history_grants(bigint, timestamptz, bigint, int) is
  'Entries of an account''s ledger that are neither usage nor the grant of a payment.';

create function governance.history_said(p_account_id bigint)
  returns table (kind text, at timestamptz, n bigint, item jsonb)
  language sql stable set search_path = '' as $$
  select 'act', g.created_at, g.audit_id, jsonb_build_object('audit_id', g.audit_id, 'operator', g.operator, 'action',
    g.action, 'rule_name', g.rule_name, 'reason', g.reason)
  from governance.audit_log g where g.account_id = p_account_id
  union all
  select 'alert', e.created_at, e.alert_event_id, jsonb_build_object('alert_event_id', e.alert_event_id, 'alert_kind',
    e.kind, 'severity', e.severity, 'message', e.message, 'acknowledged_by', e.acknowledged_by)
  from governance.alert_events e where e.account_id = p_account_id
  union all
  select 'message', coalesce(m.sent_at, m.created_at), m.notification_id, jsonb_build_object('notification_id',
    m.notification_id, 'channel', m.channel, 'recipient', m.recipient, 'subject', m.subject, 'status', m.status)
  from governance.notifications m where m.account_id = p_account_id and m.audience = 'user'
$$;
comment on function governance.history_said(bigint) is
  'What operators and rules did to an account, what alerted about it, and what was sent to its user.';

create function public.console_account_history(p_user_id text, p_filter jsonb default '{}',
  p_cursor text default null, p_limit int default 50) returns jsonb
  language plpgsql stable security definer set search_path = '' set jit = off
    set plan_cache_mode = 'force_custom_plan' as $$
declare
  c_kinds constant text[] := governance.history_kinds();
  v_kinds text[] := c_kinds;
  v_account_id bigint;
  v_at timestamptz := 'infinity';
  v_rank int := 0;
  v_n bigint := 0;
  v_parts text[];
begin
  perform governance.refuse_others('console_account_history');
  perform governance.check_id('p_user_id', p_user_id);
  perform governance.check_limit(p_limit, 200);
  if p_filter is null or jsonb_typeof(p_filter) <> 'object' or p_filter - 'kinds' <> '{}'
    or jsonb_typeof(coalesce(p_filter -> 'kinds', 'null')) not in ('array', 'null') then
    perform governance.fail('PT400', 'invalid_argument', 'p_filter is an object; kinds in it is a list');
  end if;
  if jsonb_typeof(p_filter -> 'kinds') = 'array' then
    v_kinds := array(select * from jsonb_array_elements_text(p_filter -> 'kinds') limit 100);
    if not v_kinds <@ c_kinds then
      perform governance.fail('PT400', 'invalid_argument',
        'p_filter.kinds has no others than ' || array_to_string(c_kinds, ', '));
    end if;
  end if;
  if p_cursor is not null then
    -- Microseconds, place of the kind, number: what was shown last.
    v_parts := regexp_match(p_cursor, '^(-?\d{1,17})\.(\d)\.(\d{1,18})$');
    if v_parts is null then
      perform governance.fail('PT400', 'invalid_argument', 'p_cursor is not one that this function gave');
    end if;
    v_at := 'epoch'::timestamptz + v_parts[1]::bigint * interval '1 microsecond';
    v_rank := v_parts[2]::int;
    v_n := v_parts[3]::bigint;
  end if;
  select a.account_id into v_account_id from governance.accounts a where a.user_id = p_user_id;
  if v_account_id is null then
    perform governance.fail('PT404', 'unknown_user', format('There is no account of user "%s"', left(p_user_id, 64)));
  end if;
  return (
    with found as (
      select 'stopped' as kind, x.* from governance.history_calls(v_account_id, v_at,
        case when v_rank > 1 then 9223372036854775807 when v_rank = 1 then v_n else 0 end, p_limit + 1) x
      where 'stopped' = any (v_kinds)
      union all
      select 'grant', x.* from governance.history_grants(v_account_id, v_at,
        case when v_rank > 5 then 9223372036854775807 when v_rank = 5 then v_n else 0 end, p_limit + 1) x
      where 'grant' = any (v_kinds)
      union all
      select x.* from governance.history_money(v_account_id) x
      where x.kind = any (v_kinds) and v_kinds && '{purchase,refund,dispute}'
        and (x.at, array_position(c_kinds, x.kind), x.n) < (v_at, v_rank, v_n)
      union all
      select x.* from governance.history_said(v_account_id) x
      where x.kind = any (v_kinds) and v_kinds && '{act,alert,message}'
        and (x.at, array_position(c_kinds, x.kind), x.n) < (v_at, v_rank, v_n)
    ), page as (
      select f.*, array_position(c_kinds, f.kind) as rank,
        row_number() over (order by f.at desc, array_position(c_kinds, f.kind) desc, f.n desc) as place
      from found f order by place limit p_limit + 1
    )
    select jsonb_build_object(
      'items', coalesce(jsonb_agg(jsonb_build_object('kind', p.kind, 'at', p.at, 'key', p.kind || ' ' || p.n || ' '
        || coalesce(p.item ->> 'refund_id', p.item ->> 'dispute_id', '')) || p.item order by p.place)
        filter (where p.place <= p_limit), '[]'),
      'next_cursor', case when count(*) > p_limit then (
        select (extract(epoch from l.at) * 1000000)::bigint || '.' || l.rank || '.' || l.n
        from page l where l.place = p_limit) end)
    from page p);
end
$$;
comment on function public.console_account_history(text, jsonb, text, int) is
  'What happened to an account, newest first: calls stopped, purchases, refunds, disputes, grants (whatever else moved '
  'tokens without a call), acts of operators and rules, alerts, messages to the user. p_filter.kinds: only these. '
  'next_cursor is null on the last page. Errors: invalid_argument, unknown_user.';
revoke all on function public.console_account_history(text, jsonb, text, int) from public, anon, authenticated;
grant execute on function public.console_account_history(text, jsonb, text, int) to service_role;

create function governance.entry_origin(t governance.token_transactions) returns jsonb
  language sql stable set search_path = '' as $$
  select case
    when t.transaction_type = 'usage' then jsonb_build_object('kind', 'call', 'id', t.reference, 'decision_id',
      t.decision_id)
    else coalesce(
      (select jsonb_build_object('kind', case when r.dispute_id is not null then 'dispute'
          when r.refund_id is not null then 'refund' else 'payment' end,
        'id', coalesce(r.dispute_id, r.refund_id, p.charge_id, p.payment_intent_id, p.invoice_id),
        'payment_id', p.payment_id, 'charge_id', p.charge_id, 'payment_intent_id', p.payment_intent_id, 'invoice_id',
        p.invoice_id, 'livemode', p.livemode)
      from governance.purchase_records r join governance.stripe_payments p on p.payment_id = governance.payment_of(r)
      where r.transaction_id = t.transaction_id),
      (select jsonb_build_object('kind', 'act', 'id', x.act_id, 'operator', x.operator, 'act_kind', x.kind)
      from governance.account_acts x where x.command_id = t.metadata ->> 'command_id' and x.account_id = t.account_id),
      jsonb_build_object('kind', case
        when t.transaction_type = 'subscription_grant' and t.reference like 'allowance %' then 'allowance'
        when t.transaction_type = 'expiry' then 'expiry'
        when t.transaction_type = 'debt_recovery' then 'debt'
        else 'backend' end, 'id', t.reference)) end
$$;
comment on function governance.entry_origin(governance.token_transactions) is
  'What an entry of the ledger came from: call, payment, refund, dispute, an operator''s act, allowance, expiry, debt '
  'that was paid, or the product''s backend.';

create function public.console_account_ledger(p_user_id text, p_filter jsonb default '{}',
  p_before_id bigint default null, p_limit int default 50) returns jsonb
  language plpgsql stable security definer set search_path = '' set jit = off
    set plan_cache_mode = 'force_custom_plan' as $$
declare
  -- So many entries are looked at for one page; where more are to be looked at, the page says from where to go on.
  c_looked constant int := 20000;
  v_account_id bigint;
  v_unknown text;
  v_text text;
  v_from timestamptz;
  v_to timestamptz;
begin
  perform governance.refuse_others('console_account_ledger');
  perform governance.check_id('p_user_id', p_user_id);
  perform governance.check_limit(p_limit, 500);
  if p_filter is null or jsonb_typeof(p_filter) <> 'object' then
    perform governance.fail('PT400', 'invalid_argument', 'p_filter is an object: type, text, from, to');
  end if;
  select k into v_unknown from jsonb_object_keys(p_filter) k where k <> all ('{type,text,from,to}') limit 1;
  if v_unknown is not null then
    perform governance.fail('PT400', 'invalid_argument',
      format('p_filter.%s is unknown: it has type, text, from and to', left(v_unknown, 64)));
  end if;
  perform governance.check_optional('p_filter.text', p_filter ->> 'text', 200);
  v_text := lower(nullif(btrim(p_filter ->> 'text'), ''));
  begin
    v_from := coalesce((p_filter ->> 'from')::timestamptz, '-infinity');
    v_to := coalesce((p_filter ->> 'to')::timestamptz, 'infinity');
  exception when data_exception then
    perform governance.fail('PT400', 'invalid_argument', 'p_filter.from and to are moments');
  end;
  select a.account_id into v_account_id from governance.accounts a where a.user_id = p_user_id;
  if v_account_id is null then
    perform governance.fail('PT404', 'unknown_user', format('There is no account of user "%s"', left(p_user_id, 64)));
  end if;
  return (
    with looked as materialized (
      select t from governance.token_transactions t
      where t.account_id = v_account_id and t.transaction_id < coalesce(p_before_id, 9223372036854775807)
      order by t.transaction_id desc limit c_looked
    ), page as (
      select l.t, row_number() over (order by (l.t).transaction_id desc) as place from looked l
      where ((p_filter ->> 'type') is null or (l.t).transaction_type = p_filter ->> 'type')
        and (l.t).created_at >= v_from and (l.t).created_at < v_to
        and (v_text is null or strpos(lower(concat_ws(E'\n', (l.t).transaction_id, (l.t).reference, (l.t).description,
          (l.t).decision_id, ((l.t).metadata - 'lot_seal')::text)), v_text) > 0)
      order by (l.t).transaction_id desc limit p_limit + 1
    )
    select jsonb_build_object(
      'entries', coalesce(jsonb_agg(jsonb_build_object('transaction_id', (p.t).transaction_id, 'transaction_type',
        (p.t).transaction_type, 'amount', (p.t).amount, 'previous_balance', (p.t).previous_balance, 'new_balance',
        (p.t).new_balance, 'debt_after', (p.t).debt_after, 'description', (p.t).description, 'metadata',
        coalesce((p.t).metadata, '{}'), 'created_at', (p.t).created_at, 'origin', governance.entry_origin(p.t),
        'lots', (select coalesce(jsonb_agg(jsonb_build_object('lot_id', (p.t).lot_changes[i], 'tokens',
            (p.t).lot_changes[i + 1], 'kind', l.kind) order by i), '[]')
          from generate_series(1, cardinality((p.t).lot_changes), 2) i
          left join governance.lots l on l.lot_id = (p.t).lot_changes[i])) order by p.place)
        filter (where p.place <= p_limit), '[]'),
      'next_before_id', case
        when count(*) > p_limit then max((p.t).transaction_id) filter (where p.place = p_limit)
        when (select count(*) from looked) = c_looked then (select min((l.t).transaction_id) from looked l) end)
    from page p);
end
$$;
comment on function public.console_account_ledger(text, jsonb, bigint, int) is
  'Entries of an account''s ledger, newest first, each with its origin and the lots it moved. p_filter may name type, '
  'text (part of an id, reference, description or metadata), from and to. next_before_id is null when all was looked '
  'at; a page may be short of entries before that. Errors: invalid_argument, unknown_user.';
revoke all on function public.console_account_ledger(text, jsonb, bigint, int) from public, anon, authenticated;
grant execute on function public.console_account_ledger(text, jsonb, bigint, int) to service_role;

-- schemas/80_proof.sql
-- The proof: whether the books are sound.

create function governance.check_entries(p_account_id bigint)
  returns table (account_id bigint, entries bigint, calls bigint, charged numeric, problems jsonb[])
  language plpgsql stable set search_path = '' as $$
begin
  return query
  with chained as (
    select t.transaction_id, t.account_id, t.amount, t.previous_balance, t.new_balance, t.previous_hash, t.hash,
      t.lot_changes,
      case when t.transaction_type = 'usage' then t.decision_id end as decision_id,
      governance.entry_hash(t.previous_hash,
        governance.entry_payload(t.transaction_id, t.created_at, t.transaction_type, t.amount,
        t.previous_balance, t.new_balance, t.debt_after, t.lot_changes, t.decision_id, a.user_id, t.reference,
          t.description, t.metadata)) as expected_hash,
      lag(t.hash) over w as hash_before, coalesce(lag(t.new_balance) over w, 0) as balance_before,
        t.debt_after - coalesce(lag(t.debt_after) over w, 0) as debt
    from governance.token_transactions t join governance.accounts a using (account_id)
    where p_account_id is null or t.account_id = p_account_id
    window w as (partition by t.account_id order by t.transaction_id)
  
  )
  -- What calls were charged stands in their entries for ever: what left the lots, and what was added to the debt.
  select c.account_id, count(*) as entries, count(c.decision_id) as calls,
    sum(c.debt - c.amount) filter (where c.decision_id is not null) as charged,
    array_agg(jsonb_build_object('transaction_id', c.transaction_id, 'problem', case
      when c.hash <> c.expected_hash then 'hash_mismatch'
      when c.previous_hash is distinct from c.hash_before then 'chain_broken'
      when c.previous_balance <> c.balance_before
        or c.new_balance <> c.previous_balance + c.amount then 'balance_discontinuity'
      else 'lot_changes_mismatch' end))
    filter (where c.hash <> c.expected_hash or c.previous_hash is distinct from c.hash_before
      or c.previous_balance <> c.balance_before or c.new_balance <> c.previous_balance + c.amount
      or (case cardinality(c.lot_changes) when 2 then c.lot_changes[2] when 0 then 0
        else (select sum(x.v)::bigint from unnest(c.lot_changes) with ordinality x(v, n) where x.n % 2 = 0)
          end) <> c.amount) as problems
  from chained c group by c.account_id
  ;
end
$$;
comment on function governance.check_entries(bigint) is
  'The entries of one account, or of all: how many, how many of calls, what calls were charged, and which break the '
  'chain of hashes and balances.';

create function governance.check_lots(p_account_id bigint)
  returns table (account_id bigint, problem jsonb, rank int, place bigint)
  language plpgsql stable set search_path = '' as $$
begin
  return query
  with moved as (
    -- Nearly every entry moves one lot: only the others are taken apart. Of a lot's seals the last one stands.
    select m.account_id, m.lot_id, sum(m.tokens) as net, max(m.seal collate "C") as seal
    from (
      select t.account_id, t.lot_changes[1] as lot_id, t.lot_changes[2] as tokens,
        case when t.metadata is not null and governance.seals_lot(t.transaction_type, t.lot_changes, t.metadata)
          then lpad(t.transaction_id::text, 19, '0') || (t.metadata ->> 'lot_seal') end as seal
      from governance.token_transactions t
      where cardinality(t.lot_changes) = 2 and (p_account_id is null or t.account_id = p_account_id)
      union all
      select t.account_id, t.lot_changes[n * 2 - 1], t.lot_changes[n * 2], null
      from governance.token_transactions t cross join lateral generate_series(1, (cardinality(t.lot_changes) + 1) / 2) n
      where cardinality(t.lot_changes) > 2 and (p_account_id is null or t.account_id = p_account_id)) m
    group by 1, 2
  
  ), lot_problems as (
    select coalesce(l.account_id, m.account_id) as account_id, coalesce(l.lot_id, m.lot_id) as lot_id,
      coalesce(l.remaining, 0) as remaining, coalesce(m.net, 0) as net, governance.lot_seal(l) as found,
        substr(m.seal, 20) as expected
    from (select * from governance.lots x where p_account_id is null or x.account_id = p_account_id) l
    full join moved m on m.lot_id = l.lot_id and m.account_id = l.account_id
    where coalesce(l.remaining, -1) <> coalesce(m.net, -1)
      or l.granted <> l.remaining + l.frozen + l.spent + l.expired + l.clawed_back
      or substr(m.seal, 20) <> governance.lot_seal(l) or (not l.is_open and l.remaining + l.frozen > 0)
  
  ), source_problems as (
    -- Where a lot's money came from: as its payment is called, and as the last record of its price says, which says
    -- what its entry says.
    select x.account_id, x.lot_id
    from (
      select distinct on (l.lot_id) l.account_id, l.lot_id,
        exists (
          select from (values (l.stripe_charge_id, p.charge_id), (l.stripe_payment_intent_id, p.payment_intent_id),
            (l.stripe_checkout_session_id, p.checkout_session_id)) n(of_lot, of_payment)
          where n.of_lot <> n.of_payment and not exists (select from governance.stripe_payment_names x
            where x.name = n.of_lot and x.payment_id = p.payment_id)) as is_renamed,
        l.amount_minor is distinct from r.amount_minor or l.currency
          is distinct from r.currency or t.metadata ->> 'amount_minor' <> r.amount_minor::text
          or t.metadata ->> 'currency' <> r.currency or l.pack_id <> t.metadata ->> 'pack_id' as is_repriced
      from governance.lots l join governance.stripe_lots s using (lot_id)
        join governance.stripe_payments p using (payment_id)
      left join governance.purchase_records r on r.lot_id = l.lot_id
        and r.record_type in ('grant', 'relabel', 'supplement')
      left join governance.token_transactions t on t.transaction_id = r.transaction_id
      where p_account_id is null or l.account_id = p_account_id
      order by l.lot_id, r.transaction_id desc) x
    where x.is_renamed or x.is_repriced
  
  )
  select l.account_id, case when l.found <> l.expected and l.remaining = l.net
    then jsonb_build_object('problem', 'seal_mismatch', 'grant_id', l.lot_id, 'found', l.found, 'expected', l.expected)
    else jsonb_build_object('problem', 'lot_mismatch', 'grant_id', l.lot_id, 'found', l.remaining, 'expected', l.net)
      end, 2, l.lot_id
  from lot_problems l
  union all
  select x.account_id, jsonb_build_object('problem', 'source_mismatch', 'grant_id', x.lot_id), 2, x.lot_id
  from source_problems x;
end
$$;
comment on function governance.check_lots(bigint) is
  'Lots that differ from their entries, their seals, or the payments that bought them.';

create function governance.check_calls(p_account_id bigint)
  returns table (account_id bigint, problem jsonb, rank int, place bigint)
  language plpgsql stable set search_path = '' as $$
begin
  return query
  with call_problems as (
    -- A call's entry outlives its row: an entry whose call is gone is in order unless the call's key is still there.
    select coalesce(t.account_id, r.account_id) as account_id, coalesce(t.decision_id, r.decision_id) as decision_id,
      t.transaction_id,
      case when r.decision_id is null then 'request_missing' when t.transaction_id is not null then 'request_mismatch'
        when r.status = 'settled' then 'usage_entry_missing' else 'hold_event_missing' end as problem,
      r.charged_tokens - r.unpaid_tokens as found, -t.amount as expected
    from (select x.account_id, x.decision_id, x.transaction_id, x.amount, x.reference, x.created_at
      from governance.token_transactions x
      where x.transaction_type = 'usage' and x.decision_id is not null
        and (p_account_id is null or x.account_id = p_account_id)) t
    full join (select y.account_id, y.decision_id, y.status, y.request_id, y.transaction_id, y.charged_tokens,
      y.unpaid_tokens, y.ended_at
      from governance.requests y where p_account_id is null or y.account_id = p_account_id) r
      on r.decision_id = t.decision_id
    left join governance.hold_events h on h.decision_id = r.decision_id and h.kind = r.status
    left join governance.request_keys k on k.request_id = t.reference and k.decision_id = t.decision_id
      and r.decision_id is null
    where case
      when r.decision_id is null then k.decision_id is not null
      when t.transaction_id is null then r.status = 'settled'
        or (r.status not in ('blocked', 'held') and h.decision_id is null)
      else r.status <> 'settled' or r.account_id <> t.account_id or r.request_id
        is distinct from t.reference or r.transaction_id is distinct from t.transaction_id
        or r.charged_tokens - r.unpaid_tokens is distinct from -t.amount or r.ended_at is distinct from t.created_at end
  
  )
  select c.account_id, jsonb_strip_nulls(jsonb_build_object('problem', c.problem, 'decision_id', c.decision_id,
    'transaction_id', c.transaction_id, 'found', c.found, 'expected', c.expected)), 4, c.decision_id
  from call_problems c;
end
$$;
comment on function governance.check_calls(bigint) is
  'Calls that differ from their ledger entries or their hold events.';

create function governance.sum_calls(p_account_id bigint)
  returns table (account_id bigint, model text, task_type text, scope_id text, calls bigint, messages bigint,
    input_tokens numeric, output_tokens numeric, charged_tokens numeric, cost_micros numeric, held numeric,
    held_from timestamptz, held_until timestamptz, last_seen bigint[])
  language plpgsql stable set search_path = '' as $$
begin
  return query
  select r.account_id, case when r.status = 'settled' then r.settled_model end as model,
    case when r.status = 'settled' then coalesce(r.task_type, '') end as task_type, case
      when r.status = 'settled' then coalesce(r.scope_id, '') end as scope_id,
    count(*) as calls, count(r.message_hash) as messages, sum(r.input_tokens) as input_tokens,
      sum(r.output_tokens) as output_tokens,
    sum(r.charged_tokens) as charged_tokens, coalesce(sum(r.cost_micros), 0) as cost_micros,
    sum(r.reserved_tokens) filter (where r.status = 'held') as held,
      min(r.created_at) filter (where r.status = 'held') as held_from,
    min(r.expires_at) filter (where r.status = 'held') as held_until,
    -- The last call: what it saw of the day's messages, and whether its day is the account's still. Older days matter
    -- to nobody.
    max(array[r.decision_id, (r.facts).messages_today,
      (r.day_ends_at = a.day_ends_at)::int]) filter (where r.day_ends_at > a.day_ends_at - interval
        '4 days') as last_seen
  from governance.requests r join governance.accounts a using (account_id)
  where p_account_id is null or r.account_id = p_account_id
  group by 1, 2, 3, 4
  ;
end
$$;
comment on function governance.sum_calls(bigint) is
  'Calls added up by account and, where settled, by model, task and scope; with open holds and the last call of the '
  'day.';

create function governance.sum_usage(p_account_id bigint)
  returns table (account_id bigint, model text, task_type text, scope_id text, calls bigint, messages bigint,
    input_tokens numeric, output_tokens numeric, charged_tokens numeric, cost_micros numeric, day_tokens numeric,
    day_cost numeric, month_tokens numeric, month_cost numeric)
  language plpgsql stable set search_path = '' as $$
begin
  return query
  -- What was imported was counted too, and is no call of ours.
  select d.account_id, d.model, d.task_type, d.scope_id, sum(d.calls) as calls, sum(d.messages) as messages,
    sum(d.input_tokens) as input_tokens,
    sum(d.output_tokens) as output_tokens, sum(d.charged_tokens) as charged_tokens, sum(d.cost_micros) as cost_micros,
    sum(d.charged_tokens) filter (where d.day = a.local_day) as day_tokens,
      sum(d.cost_micros) filter (where d.day = a.local_day) as day_cost,
    sum(d.charged_tokens) filter (where d.day >= a.local_month
      and d.day < a.local_month + interval '1 month') as month_tokens,
    sum(d.cost_micros) filter (where d.day >= a.local_month
      and d.day < a.local_month + interval '1 month') as month_cost
  from (
    select u.account_id, u.day, u.model, u.task_type, u.scope_id, u.calls, u.messages, u.input_tokens,
      u.output_tokens, u.charged_tokens, u.cost_micros
    from governance.usage_daily u where p_account_id is null or u.account_id = p_account_id
    union all
    select i.account_id, i.day, i.model, i.task_type, '', -1, -1, -i.input_tokens, -i.output_tokens, 0,
      -coalesce(i.cost_micros, 0)
    from governance.imported_usage i where p_account_id is null or i.account_id = p_account_id) d
  join governance.accounts a using (account_id)
  group by 1, 2, 3, 4
  ;
end
$$;
comment on function governance.sum_usage(bigint) is
  'The roll-up added up by account, model, task and scope, without what was imported.';

create function governance.check_orphans(p_account_id bigint)
  returns table (account_id bigint, problem jsonb, rank int, place bigint)
  language plpgsql stable set search_path = '' as $$
begin
  return query
  select x.account_id, jsonb_build_object('problem', 'account_missing'), 0, x.account_id
  from (
    select t.account_id from governance.token_transactions t
    union
    select l.account_id from governance.lots l
    union
    select u.account_id from governance.usage_daily u) x
  where p_account_id is null and not exists (select from governance.accounts a where a.account_id = x.account_id);
end
$$;
comment on function governance.check_orphans(bigint) is
  'Books whose account was deleted: no join with accounts would show them. Looks only where all accounts are checked.';

create function governance.sum_lots(p_account_id bigint)
  returns table (account_id bigint, subscription numeric, purchased numeric, promotional numeric,
    expires_at timestamptz)
  language plpgsql stable set search_path = '' as $$
begin
  return query
  select l.account_id,
    coalesce(sum(l.remaining) filter (where l.kind = 'subscription'), 0) as subscription,
    coalesce(sum(l.remaining) filter (where l.kind = 'purchased'), 0) as purchased,
    coalesce(sum(l.remaining) filter (where l.kind = 'promotional'), 0) as promotional,
    min(l.expires_at) filter (where l.remaining > 0) as expires_at
  from governance.lots l where l.is_open and (p_account_id is null or l.account_id = p_account_id) group by 1;
end
$$;
comment on function governance.sum_lots(bigint) is
  'Live tokens by account and kind, and the next moment at which some of them expire.';

create function public.verify_ledger(p_user_id text default null) returns jsonb
  -- Estimates of what unnest answers are wild: compiling for them took longer than the work.
  language plpgsql stable security definer set search_path = '' set jit = off
    set plan_cache_mode = force_custom_plan as $$
declare
  v_account_id bigint;
  v_accounts bigint;
  v_entries bigint;
  v_problems jsonb;
  v_at_once boolean := governance.pays_debt_at_once();
begin
  perform governance.refuse_others('verify_ledger');
  if p_user_id is not null then
    perform governance.check_id('p_user_id', p_user_id);
    select a.account_id into v_account_id from governance.accounts a where a.user_id = p_user_id;
    if v_account_id is null then
      perform governance.fail('PT404', 'unknown_user', format('There is no account of user "%s"', left(p_user_id, 64)));
    end if;
  end if;
  with ledgers as materialized (
    select * from governance.check_entries(v_account_id)
  ), live as materialized (
    select * from governance.sum_lots(v_account_id)
  ), calls as materialized (
    select * from governance.sum_calls(v_account_id)
  ), used as materialized (
    select * from governance.sum_usage(v_account_id)
  ), account_calls as (
    select c.account_id, sum(c.calls) filter (where c.model is not null) as settled, sum(c.held) as held,
      min(c.held_from) as held_from, min(c.held_until) as held_until, max(c.last_seen) as last_seen
    from calls c group by 1
  ), account_used as (
    select u.account_id, sum(u.calls) as calls, sum(u.charged_tokens) as charged, sum(u.day_tokens) as day_tokens,
      sum(u.day_cost) as day_cost, sum(u.month_tokens) as month_tokens, sum(u.month_cost) as month_cost
    from used u group by 1
  ), usage_problems as (
    select account_id, model, task_type, scope_id, p.measure, p.found, p.expected
    from used u full join (select * from calls c where c.model is not null) r
      using (account_id, model, task_type, scope_id)
    left join ledgers l using (account_id) left join account_calls y using (account_id)
    cross join lateral (values
      ('calls', u.calls, r.calls), ('messages', u.messages, r.messages),
      ('input_tokens', u.input_tokens, r.input_tokens), ('output_tokens', u.output_tokens, r.output_tokens),
      ('charged_tokens', u.charged_tokens, r.charged_tokens),
      ('cost_micros', u.cost_micros, r.cost_micros)) p(measure, found, expected)
    -- Where retention has dropped calls, the roll-up may have more than the calls that are left, never less.
    where case when l.calls > coalesce(y.settled, 0) then coalesce(p.found, 0) < p.expected
      else coalesce(p.found, 0) <> coalesce(p.expected, 0) end
  ), account_problems as (
    select a.account_id, p.problem, to_jsonb(p.found) as found, to_jsonb(p.expected) as expected
    from governance.accounts a
    left join live v using (account_id) left join ledgers g using (account_id)
      left join account_calls c using (account_id) left join account_used u using (account_id)
    left join lateral (select t.* from governance.token_transactions t where t.account_id = a.account_id
      order by t.transaction_id desc limit 1) last on true
    cross join lateral (values
      ('balance_mismatch', a.subscription_tokens + a.purchased_tokens + a.promotional_tokens,
        coalesce(last.new_balance, 0)),
      ('lots_mismatch', coalesce(v.subscription + v.purchased + v.promotional, 0),
        a.subscription_tokens + a.purchased_tokens + a.promotional_tokens),
      ('subscription_mismatch', coalesce(v.subscription, 0), a.subscription_tokens),
      ('purchased_mismatch', coalesce(v.purchased, 0), a.purchased_tokens),
      ('promotional_mismatch', coalesce(v.promotional, 0), a.promotional_tokens),
      ('debt_mismatch', a.debt_tokens, coalesce(last.debt_after, 0)),
      ('entries_missing', coalesce(last.transaction_id, 0), coalesce(a.last_transaction_id, 0)),
      ('head_mismatch', case when last.hash is distinct from a.last_hash then 1 else 0 end, 0),
      ('over_reserved', greatest(a.reserved_tokens - a.subscription_tokens - a.purchased_tokens - a.promotional_tokens,
        0), 0),
      ('debt_beside_free', case when v_at_once then least(a.debt_tokens, a.subscription_tokens + a.purchased_tokens
        + a.promotional_tokens - a.reserved_tokens) else 0 end, 0),
      ('holds_mismatch', a.reserved_tokens, coalesce(c.held, 0)),
      ('usage_mismatch', coalesce(u.charged, 0), coalesce(g.charged, 0)),
      ('usage_mismatch', coalesce(u.calls, 0), coalesce(g.calls, 0)),
      ('day_tokens_mismatch', a.day_tokens, coalesce(u.day_tokens, 0)),
      ('month_tokens_mismatch', a.month_tokens, coalesce(u.month_tokens, 0)),
      ('day_cost_mismatch', a.day_cost_micros, coalesce(u.day_cost, 0)),
      ('month_cost_mismatch', a.month_cost_micros, coalesce(u.month_cost, 0)),
      -- No call since the day turned, or since new time zones moved its end and left its count.
      ('day_messages_mismatch', a.day_messages, case when a.day_messages = 0 and coalesce(c.last_seen[3], 0) = 0 then 0
        else coalesce(c.last_seen[2], 0) end)
    ) p(problem, found, expected)
    where (v_account_id is null or a.account_id = v_account_id) and p.found is distinct from p.expected
    union all
    select a.account_id, p.problem, to_jsonb(p.found), to_jsonb(p.latest)
    from governance.accounts a left join live v using (account_id) left join account_calls c using (account_id)
    cross join lateral (values
      ('lots_check_mismatch', a.lots_check_at, v.expires_at),
      ('holds_from_mismatch', a.holds_from, c.held_from),
      ('holds_check_mismatch', a.holds_check_at, c.held_until)) p(problem, found, latest)
    where (v_account_id is null or a.account_id = v_account_id)
      and (p.found > p.latest or (p.found is null) <> (p.latest is null)
        and (p.latest is not null or p.problem <> 'lots_check_mismatch'))
  ), problems as (
    select * from governance.check_anchors(v_account_id)
    union all
    select * from governance.check_orphans(v_account_id)
    union all
    select g.account_id, e.problem, 1, (e.problem ->> 'transaction_id')::bigint
    from ledgers g cross join lateral unnest(g.problems[:1000]) e(problem)
    union all
    select * from governance.check_lots(v_account_id)
    union all
    select p.account_id, jsonb_build_object('problem', p.problem, 'found', p.found, 'expected', p.expected), 3, 0
    from account_problems p
    union all
    select * from governance.check_calls(v_account_id)
    union all
    select u.account_id, jsonb_build_object('problem', 'usage_mismatch', 'model', u.model, 'task_type', u.task_type,
      'scope_id', u.scope_id, 'measure', u.measure, 'found', coalesce(u.found, 0),
      'expected', coalesce(u.expected, 0)), 5, 0
    from usage_problems u
  )
  select
    (select count(*) from governance.accounts a where v_account_id is null or a.account_id = v_account_id),
    (select coalesce(sum(g.entries), 0) from ledgers g),
    (select coalesce(jsonb_agg(s.problem), '[]') from (
      select p.problem || case when a.user_id is not null then jsonb_build_object('user_id', a.user_id)
        when p.account_id is not null then jsonb_build_object('account_id', p.account_id) else '{}' end as problem
      from problems p left join governance.accounts a using (account_id) order by p.rank, p.place limit 1000) s)
  into v_accounts, v_entries, v_problems;
  return jsonb_build_object('accounts_checked', v_accounts, 'entries_checked', v_entries, 'problems', v_problems,
    'anchor', (select jsonb_build_object('upto', s.value -> 'upto', 'hash', s.value -> 'hash')
      from governance.maintenance_state s
      where s.key = 'anchored_ledger' and s.value -> 'upto' <> '0'));
end
$$;
comment on function public.verify_ledger(text) is
  'Checks the proof of one account, or of all: chain of hashes, continuity of balances, lots against entries and their '
  'seals, account and counters against both, calls and roll-up against entries, all entries against the daily anchors. '
  'problems is empty when all is sound; at most 1,000 are named (supabase/CONVENTIONS.md lists them). anchor is the '
  'last one: upto, hash. Errors: invalid_argument, unknown_user.';
revoke all on function public.verify_ledger(text) from public, anon, authenticated;
grant execute on function public.verify_ledger(text) to service_role;

create function public.verify_purchases() returns jsonb
  language plpgsql stable security definer set search_path = '' set jit = off as $$
declare
  v_problems jsonb;
begin
  perform governance.refuse_others('verify_purchases');
  with problems as (
    select 'lot_mismatch' as problem, s.lot_id, s.payment_id
    from governance.stripe_lots s left join governance.lots l using (lot_id)
    -- What the money took back is what left the lot and what is owed for it, until a correction takes its part.
    where ((s.reversed + s.clawed is distinct from l.clawed_back + s.owed or s.tokens <> l.granted)
        and not exists (select from governance.purchase_records r
          where r.lot_id = s.lot_id and r.record_type = 'adjustment'))
      or s.dispute_state not in ('none', 'held', 'released', 'clawed') or (l.frozen > 0 and s.dispute_state <> 'held')
    union all
    select 'payment_mismatch', null, p.payment_id
    from governance.stripe_payments p
    where least(p.amount_minor, p.refunded_minor, p.refunded_override_minor) < 0 or p.currency !~ '^[a-z]{3}$'
      or num_nonnulls(p.payment_intent_id, p.charge_id, p.checkout_session_id, p.invoice_id) = 0
    union all
    select 'account_mismatch', s.lot_id, s.payment_id
    from governance.stripe_lots s join governance.lots l using (lot_id)
      left join governance.stripe_payments p on p.payment_id = s.payment_id
    where p.account_id is distinct from l.account_id
    union all
    select 'record_mismatch', r.lot_id, r.payment_id
    from governance.purchase_records r left join governance.token_transactions t using (transaction_id)
    where t.account_id is distinct from r.account_id or t.created_at is distinct from r.created_at
      or r.record_type not in ('grant', 'refund', 'restoration', 'dispute_hold', 'dispute_release', 'dispute_clawback',
        'adjustment', 'promotional', 'relabel', 'supplement')
    union all
    select 'record_missing', s.lot_id, s.payment_id
    from governance.stripe_lots s
    where not exists (select from governance.purchase_records r where r.lot_id = s.lot_id and r.record_type = 'grant')
    union all
    select 'event_mismatch', null, w.payment_id
    from governance.webhook_events_processed w
    where w.status not in ('processed', 'quarantined', 'parked', 'dismissed')
      or (w.status in ('quarantined', 'parked')) <> (w.payload is not null)
  )
  select coalesce(jsonb_agg(to_jsonb(x)), '[]') into v_problems
  from (select * from problems p order by p.problem, p.payment_id, p.lot_id limit 1000) x;
  return jsonb_build_object('problems', v_problems, 'payments', (select count(*) from governance.stripe_payments),
    'lots', (select count(*) from governance.stripe_lots));
end
$$;
comment on function public.verify_purchases() is
  'Checks the books of payments beside public.verify_ledger: what refunds and disputes took against the lots, '
  'payments, their records and events. problems is empty when all is sound; at most 1,000 are named.';
revoke all on function public.verify_purchases() from public, anon, authenticated;
grant execute on function public.verify_purchases() to service_role;

-- schemas/81_anchors.sql
-- Anchors: a daily hash over the whole ledger, kept outside of it.

create function governance.check_anchors(p_account_id bigint)
  returns table (account_id bigint, problem jsonb, rank int, place bigint)
  language plpgsql stable set search_path = '' as $$
begin
  return query
  with anchors as (
    -- A forged one may say anything: what is no number and no hash is a mismatch.
    select x.audit_id, x.upto, x.hash, coalesce(lag(x.upto) over w, 0) as after,
      coalesce(lag(x.hash) over w, '') as hash_before,
      lead(x.audit_id) over w is null as is_last
    from (select y.audit_id, case when y.details ->> 'upto' ~ '^[0-9]{1,18}$' then (y.details ->> 'upto')::bigint
      end as upto,
        case when y.details ->> 'hash' ~ '^[0-9a-f]{64}$' then y.details ->> 'hash' end as hash
      from governance.audit_log y where y.action = 'ledger_anchor' and p_account_id is null) x
    window w as (order by x.audit_id)
  
  ), anchor_problems as (
    select a.upto from anchors a cross join lateral (
      select string_agg(t.hash, ''::bytea order by t.transaction_id) as hashes from governance.token_transactions t
      where t.transaction_id > a.after and t.transaction_id <= a.upto) e
    where a.hash is null or a.upto is null or a.hash
      is distinct from encode(sha256(decode(a.hash_before, 'hex') || e.hashes), 'hex')
    union
    select (s.value ->> 'upto')::bigint from governance.maintenance_state s left join anchors a on a.is_last
    where s.key = 'anchored_ledger' and p_account_id is null and s.value ->> 'hash' <> coalesce(a.hash, '')
  
  )
  select null::bigint, jsonb_build_object('problem', 'anchor_mismatch', 'upto', a.upto), 0, a.upto
  from anchor_problems a;
end
$$;
comment on function governance.check_anchors(bigint) is
  'Anchors that do not match the entries they cover. Looks only where all accounts are checked.';

create function governance.anchor_ledger(p_now timestamptz, p_limit int default 100000) returns boolean
  language plpgsql set search_path = '' as $$
declare
  v_day text := (p_now at time zone 'UTC')::date;
  v_state jsonb;
  v_upto bigint;
  v_entries bigint;
  v_hash text;
begin
  select s.value into v_state from governance.maintenance_state s
    where s.key = 'anchored_ledger' and s.value ->> 'day' is distinct from v_day for update skip locked;
  -- Up to the entries that were followed when the last anchor was made, once every transaction that can have had an id
  -- among them has ended.
  if v_state is null or exists (select from pg_snapshot_xip(pg_current_snapshot()) x
    where x < (v_state ->> 'mark_xid')::xid8) then return true; end if;
  select max(x.transaction_id), count(*),
    encode(sha256(decode(v_state ->> 'hash', 'hex') || string_agg(x.hash, ''::bytea order by x.transaction_id)), 'hex')
  into v_upto, v_entries, v_hash
  from (select t.transaction_id, t.hash from governance.token_transactions t
    where t.transaction_id > (v_state ->> 'upto')::bigint and t.transaction_id <= (v_state ->> 'mark')::bigint
      order by t.transaction_id limit p_limit) x;
  if v_entries > 0 then
    v_state := v_state || jsonb_build_object('upto', v_upto, 'hash', v_hash);
    insert into governance.audit_log (created_at, action, details)
    values (p_now, 'ledger_anchor', jsonb_build_object('upto', v_upto, 'entries', v_entries, 'hash', v_hash));
    raise log 'governance: ledger anchor % up to entry %', v_hash, v_upto;
  end if;
  -- A long history is anchored in several rounds.
  if v_entries < p_limit then
    v_state := v_state || jsonb_build_object('day', v_day, 'mark_xid', pg_current_xact_id(),
      'mark', (select (f.value ->> 'consumed')::bigint from governance.maintenance_state f
        where f.key = 'followed_events'));
  end if;
  update governance.maintenance_state s set value = v_state, updated_at = clock_timestamp()
    where s.key = 'anchored_ledger';
  return v_entries < p_limit;
end
$$;
comment on function governance.anchor_ledger(timestamptz, int) is
  'Once a day, anchors what was entered up to the day before: SHA-256 over the anchor before and the hashes of the '
  'entries since, in order of id. Into the audit log, and PostgreSQL''s own.';

-- schemas/90_upkeep.sql
-- Upkeep: what happens without anybody asking.

create table governance.maintenance_state (
  key text primary key,
  value jsonb not null,
  updated_at timestamptz not null default now()
);

comment on table governance.maintenance_state is 'Where upkeep left off.';

create table governance.maintenance_runs (
  run_id bigint generated always as identity primary key,
  started_at timestamptz not null,
  milliseconds int not null,
  -- What it did, by the names of run_maintenance's answer; what it did not do is left out.
  counts jsonb not null
);

comment on table governance.maintenance_runs is 'The last thousand rounds of upkeep and what each did.';

create function governance.months_ahead() returns int
  language sql immutable set search_path = '' as $$ select 6 $$;
comment on function governance.months_ahead() is 'How many months of calls are made ahead: so long may upkeep be away '
  'before calls go into the default partition.';

create function governance.keep_partitions(p_now timestamptz, out created int, out dropped int, out is_done boolean)
  language plpgsql set search_path = '' as $$
declare
  v_before timestamptz := p_now - (select c.decision_retention_days from governance.active_config c) * interval '1 day';
  v_timeout text := current_setting('lock_timeout');
  v_partition record;
  v_is_waiting boolean;
  v_after bigint;
  v_last bigint;
  v_count int;
begin
  created := 0;
  dropped := 0;
  is_done := true;
  if not pg_try_advisory_xact_lock(7254016) then return; end if;
  -- Making or dropping a month needs the table of calls alone for a moment, and calls queue behind whoever waits for
  -- it: so it waits only briefly, and makes four months a round. A month is made only while the default partition is
  -- small, because PostgreSQL reads all of it meanwhile.
  perform set_config('lock_timeout', '80ms', true);
  if pg_relation_size('governance.requests_default') > 16 * 1024 * 1024 then
    perform governance.raise_alert(null, null, 'upkeep_failed', 'warning',
      'Upkeep was away so long that many calls are in the default partition: new months are not made until retention '
        'has cleared it. Calls go on; to make the months at once, stop the calls and run '
        'governance.ensure_request_partitions', null, null, (p_now at time zone 'UTC')::date::text,
      '{"step": "partitions"}', p_now);
  elsif exists (select from generate_series(-1, governance.months_ahead()) g
    where to_regclass('governance.requests_'
      || to_char(date_trunc('month', p_now at time zone 'UTC') + g * interval '1 month', 'YYYY_MM')) is null) then
    begin
      created := governance.ensure_request_partitions((p_now - interval '1 month')::date,
        (p_now + governance.months_ahead() * interval '1 month')::date, 4);
      is_done := created < 4;
    exception when lock_not_available then
      is_done := false;
    end;
  end if;
  for v_partition in
    select c.oid::regclass as name,
      (regexp_match(pg_catalog.pg_get_expr(c.relpartbound, c.oid), 'TO \(''([^'']+)''\)'))[1]::timestamptz as ends_at
    from pg_catalog.pg_inherits i join pg_catalog.pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'governance.requests'::regclass and pg_catalog.pg_get_expr(c.relpartbound, c.oid) <> 'DEFAULT'
    order by 2
  loop
    continue when v_partition.ends_at is null or v_partition.ends_at > v_before;
    -- A hold that is open, or waits for a person, keeps its month.
    execute format('select exists (select from %s where status in (''held'', ''quarantined''))', v_partition.name)
      into v_is_waiting;
    continue when v_is_waiting;
    -- First the keys of its calls, a batch a round, then the month itself in a moment, and one a round.
    select coalesce((s.value ->> 'after')::bigint, -1) into v_after from governance.maintenance_state s
    where s.key = 'dropping' and s.value ->> 'partition' = v_partition.name::text;
    execute format('with batch as (select request_id,
      decision_id from %s where decision_id > $1 order by decision_id limit 5000),
      gone as (delete from governance.request_keys k using batch b where k.request_id = b.request_id
        and k.decision_id = b.decision_id)
      select max(decision_id), count(*) from batch', v_partition.name) into v_last, v_count using coalesce(v_after, -1);
    insert into governance.maintenance_state as s (key, value)
      values ('dropping', jsonb_build_object('partition', v_partition.name::text, 'after', coalesce(v_last, v_after)))
    on conflict (key) do update set value = excluded.value, updated_at = clock_timestamp();
    if v_count = 5000 then
      is_done := false;
      exit;
    end if;
    begin
      execute format('drop table %s', v_partition.name);
      dropped := dropped + 1;
    exception when lock_not_available then
      null;
    end;
    is_done := false;
    exit;
  end loop;
  perform set_config('lock_timeout', v_timeout, true);
end
$$;
comment on function governance.keep_partitions(timestamptz) is
  'Makes the months of calls that are to come, and drops those older than the setting decision_retention_days, with '
  'the keys of their calls.';

create function governance.purge(p_now timestamptz, p_limit int default 5000, out rows_purged int,
  out webhook_events_purged int)
  language plpgsql set search_path = '' as $$
declare
  v_calls_before timestamptz := p_now - (select c.decision_retention_days
    from governance.active_config c) * interval '1 day';
  v_count int;
begin
  rows_purged := 0;
  webhook_events_purged := 0;
  if not pg_try_advisory_xact_lock(7254017) then return; end if;
  with gone as (
    delete from governance.requests_default r where r.decision_id in (
      select d.decision_id from governance.requests_default d
        where d.created_at < v_calls_before and d.status not in ('held', 'quarantined') limit p_limit)
    returning r.request_id, r.decision_id)
  delete from governance.request_keys k using gone g
    where k.request_id = g.request_id and k.decision_id = g.decision_id;
  get diagnostics v_count = row_count; rows_purged := rows_purged + v_count;
  delete from governance.hold_events h where h.event_id in (
    select o.event_id from governance.hold_events o
    where o.created_at < v_calls_before
      and not exists (select from governance.requests r where r.decision_id = o.decision_id) limit p_limit);
  get diagnostics v_count = row_count; rows_purged := rows_purged + v_count;
  delete from governance.minute_totals m where m.ctid = any (array(
    select o.ctid from governance.minute_totals o where o.minute < p_now - interval '2 days' limit p_limit));
  get diagnostics v_count = row_count; rows_purged := rows_purged + v_count;
  delete from governance.recent_usage u where u.ctid = any (array(
    select o.ctid from governance.recent_usage o where o.slot < p_now - interval '2 days' limit p_limit));
  get diagnostics v_count = row_count; rows_purged := rows_purged + v_count;
  delete from governance.rule_matches m where m.ctid = any (array(
    select o.ctid from governance.rule_matches o where o.slot < p_now - interval '2 days' limit p_limit));
  get diagnostics v_count = row_count; rows_purged := rows_purged + v_count;
  -- A command may be repeated for 30 days.
  delete from governance.commands c where (c.kind, c.command_id) in (
    select o.kind, o.command_id from governance.commands o
      where o.created_at < least(p_now, clock_timestamp()) - interval '35 days' limit p_limit);
  get diagnostics v_count = row_count; rows_purged := rows_purged + v_count;
  -- An alert is kept as long as it is shown, and as long as its period may still run.
  delete from governance.alert_events e where e.alert_event_id in (
    select o.alert_event_id from governance.alert_events o
    where o.created_at < p_now - governance.alert_retention()
      -- What waits for an operator is not cleared away unseen.
      and (o.acknowledged_at is not null or not o.needs_operator or o.created_at < p_now - interval '400 days')
      and (o.period_key = '' or o.created_at < p_now - interval '400 days'
      or (length(o.period_key) > 8 and o.created_at < p_now - interval '40 days')) limit p_limit);
  get diagnostics v_count = row_count; rows_purged := rows_purged + v_count;
  delete from governance.notifications n where n.notification_id in (
    select o.notification_id from governance.notifications o where o.created_at < p_now - interval '30 days'
      limit p_limit);
  get diagnostics v_count = row_count; rows_purged := rows_purged + v_count;
  if to_regclass('governance.webhook_events_processed') is not null then
    execute 'delete from governance.webhook_events_processed w where w.event_id in (
      select o.event_id from governance.webhook_events_processed o
        where o.received_at < $1 - interval ''30 days'' and o.status <> ''quarantined'' limit $2)'
      using p_now, p_limit;
    get diagnostics webhook_events_purged = row_count;
  end if;
end
$$;
comment on function governance.purge(timestamptz, int) is 'Clears what has outlived its use, some at a time.';

create function governance.end_round(p_started timestamptz, p_counts jsonb) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_run_id bigint;
begin
  insert into governance.maintenance_runs (started_at, milliseconds, counts)
  values (p_started, least(extract(epoch from clock_timestamp() - p_started) * 1000, 2147483647)::int,
    coalesce((select jsonb_object_agg(c.key, c.value) from jsonb_each(p_counts) c
      where c.value not in ('0', 'false', 'null')), '{}'))
  returning run_id into v_run_id;
  delete from governance.maintenance_runs m where m.run_id <= v_run_id - 1000;
  return '{"expired_reservations": 0, "expired_grants": 0, "allowances_reset": 0, "days_aggregated": 0,
    "webhook_events_purged": 0, "alerts_triggered": 0,
    "notifications_queued": 0, "partitions_created": 0, "partitions_dropped": 0, "rows_purged": 0,
      "rollup_problems": 0, "accounts_failed": 0,
    "events_followed": 0, "more": false}'::jsonb || p_counts;
end
$$;
comment on function governance.end_round(timestamptz, jsonb) is 'Keeps what a round of upkeep did, and answers what '
  'run_maintenance answers: every count, zero where nothing was done.';

create function governance.note_late_upkeep(p_now timestamptz) returns int
  language sql set search_path = '' as $$
  select coalesce(sum(governance.raise_alert(null, null, 'upkeep_late', 'critical',
    format('Upkeep last ran at %s: until then nothing expired, no allowance was given and no alert was raised. Have '
      'run_maintenance called every minute', to_char(s.updated_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI "UTC"')),
    null, null, s.updated_at::text, '{}', p_now)), 0)::int
  from governance.maintenance_state s
  where s.key = 'rounds' and s.updated_at < clock_timestamp() - interval '15 minutes'
$$;
comment on function governance.note_late_upkeep(timestamptz) is
  'Raises upkeep_late, once for each time that upkeep stopped, if its last round is more than 15 minutes old by the '
  'server''s clock. Asked by the next round and by whoever delivers messages.';

create function governance.upkeep_step(p_step text, p_now timestamptz, p_share numeric) returns jsonb
  language plpgsql set search_path = '' set jit = off as $$
declare
  v_days int := greatest(40 * p_share, 1);
  v_rows int := greatest(5000 * p_share, 50);
  v_purged record;
  v_count int;
  v_answer jsonb := '{}';
begin
  case p_step
    when 'rules' then
      v_answer := jsonb_build_object('rules_put_back', governance.end_timed_rules(p_now));
    when 'days' then
      v_count := governance.aggregate_days(v_days);
      v_answer := jsonb_build_object('days_aggregated', v_count, 'more', v_count >= v_days);
    when 'purge' then
      v_purged := governance.purge(p_now, v_rows);
      v_answer := jsonb_build_object('rows_purged', v_purged.rows_purged,
        'webhook_events_purged', v_purged.webhook_events_purged,
        'more', greatest(v_purged.rows_purged, v_purged.webhook_events_purged) >= v_rows);
    when 'rollups' then
      v_count := governance.check_rollups(p_now, greatest(200 * p_share, 5)::int);
      v_answer := jsonb_build_object('rollup_problems', v_count, 'alerts_triggered', v_count);
    when 'anchor' then
      v_answer := jsonb_build_object('more',
        not governance.anchor_ledger(p_now, greatest(100000 * p_share, 1000)::int));
    when 'doors' then
      v_answer := jsonb_build_object('alerts_triggered', governance.check_doors(p_now));
    when 'alerts' then
      v_answer := jsonb_build_object('alerts_triggered', governance.evaluate_alerts(p_now, v_rows));
    when 'notifications' then
      v_answer := jsonb_build_object('notifications_queued',
        governance.queue_notifications(p_now, greatest(1000 * p_share, 20)::int));
  end case;
  return v_answer;
end
$$;
comment on function governance.upkeep_step(text, timestamptz, numeric) is
  'One of the steps of upkeep for which no call waits, of the size p_share (1: the usual); answers its counts.';

create function governance.add_counts(p_counts jsonb, p_more jsonb) returns jsonb
  language sql immutable set search_path = '' as $$
  select p_counts || coalesce((select jsonb_object_agg(m.key, case jsonb_typeof(m.value)
    when 'number' then to_jsonb(coalesce((p_counts ->> m.key)::bigint, 0) + (m.value #>> '{}')::bigint)
    else to_jsonb(coalesce((p_counts ->> m.key)::boolean, false) or (m.value #>> '{}')::boolean) end)
    from jsonb_each(p_more) m where jsonb_typeof(m.value) in ('number', 'boolean')), '{}')
$$;
comment on function governance.add_counts(jsonb, jsonb) is 'Adds up the counts of two steps; more if either has more.';

create function public.run_maintenance() returns jsonb
  language plpgsql security definer set search_path = '' set jit = off as $$
declare
  c_steps constant text[] := '{rules,days,purge,rollups,anchor,doors,alerts,notifications}';
  v_started timestamptz := clock_timestamp();
  v_now timestamptz := governance.now();
  v_is_first boolean := pg_current_xact_id_if_assigned() is null;
  v_last_id bigint;
  v_xid xid8;
  v_state jsonb;
  v_next int;
  v_step text;
  v_share numeric;
  v_counts jsonb;
  v_account_ids bigint[] := '{}';
  v_page record;
  v_rolled record;
  v_months_first boolean;
  v_has_months boolean := false;
  v_months record;
  v_step_at timestamptz;
  v_locked_at timestamptz;
begin
  perform governance.refuse_others('run_maintenance');
  -- Before this transaction writes anything: see follow_new_events.
  select case when e.is_called then e.last_value else 0 end into v_last_id from governance.event_ids e;
  v_xid := case when v_is_first then pg_current_xact_id() end;
  v_counts := jsonb_build_object('alerts_triggered', governance.note_late_upkeep(v_now));

  -- What no call waits for, for at most two seconds. A step that fails, or is stopped by the statement timeout, undoes
  -- itself alone: what the others did is kept, and it does half as much next time. The next round starts where this one
  -- ended.
  select s.value into v_state from governance.maintenance_state s where s.key = 'rounds' for update skip locked;
  v_next := coalesce((v_state ->> 'next')::int, 0);
  for v_turn in 0 .. cardinality(c_steps) - 1 loop
    v_step := c_steps[1 + (v_next + v_turn) % cardinality(c_steps)];
    if clock_timestamp() > v_started + interval '2 seconds' then
      v_counts := v_counts || '{"more": true}';
      v_state := v_state || jsonb_build_object('next', (v_next + v_turn) % cardinality(c_steps));
      exit;
    end if;
    v_share := coalesce((v_state -> 'shares' ->> v_step)::numeric, 1);
    begin
      v_step_at := clock_timestamp();
      v_counts := governance.add_counts(v_counts, governance.upkeep_step(v_step, v_now, v_share));
      v_share := case when clock_timestamp() > v_step_at + interval '1 second' then greatest(v_share / 2, 0.001)
        else least(v_share * 2, 1) end;
      v_state := jsonb_set(v_state, array['shares', v_step], to_jsonb(round(v_share, 6)));
    exception
      when query_canceled then
        v_state := jsonb_set(v_state, array['shares', v_step], to_jsonb(greatest(round(v_share / 4, 6), 0.001)))
          || jsonb_build_object('next', (v_next + v_turn) % cardinality(c_steps));
        update governance.maintenance_state s set value = v_state, updated_at = clock_timestamp()
          where s.key = 'rounds' and v_state is not null;
        return governance.end_round(v_started, v_counts || '{"more": true}');
      when lock_not_available or deadlock_detected then
        v_counts := v_counts || '{"more": true}';
      when others then
        v_counts := governance.add_counts(v_counts, jsonb_build_object('alerts_triggered',
          governance.raise_alert(null, null, 'upkeep_failed', 'critical',
            format('Upkeep failed at %s: %s', v_step, left(sqlerrm, 300)), null, null,
            v_step || ' ' || (v_now at time zone 'UTC')::date, jsonb_build_object('step', v_step, 'sqlstate', sqlstate),
            v_now)));
    end;
  end loop;

  if clock_timestamp() > v_started + interval '4 seconds' then
    -- A long step: keep what it did before the statement timeout comes.
    update governance.maintenance_state s set value = v_state, updated_at = clock_timestamp()
      where s.key = 'rounds' and v_state is not null;
    return governance.end_round(v_started, v_counts || '{"more": true}');
  end if;

  -- Last what calls and operators wait for until this transaction ends: listings, accounts, months; together for less
  -- than 200 ms. Listings come before accounts, which are only tried: see Locks in supabase/CONVENTIONS.md.
  -- What the round before had no time to copy comes first.
  v_account_ids := array(select x::bigint from jsonb_array_elements_text(coalesce(v_state -> 'to_copy', '[]')) x);
  if current_setting('transaction_isolation') = 'read committed' then
    while cardinality(v_account_ids) < 1000 loop
      v_page := governance.follow_new_events(2000, v_last_id, v_xid);
      v_counts := governance.add_counts(v_counts, jsonb_build_object('events_followed', v_page.followed));
      v_account_ids := v_account_ids || array(select distinct x from unnest(v_page.account_ids) x
        where x <> all (v_account_ids));
      exit when v_page.followed = 0;
      if clock_timestamp() > v_started + interval '3 seconds' then
        v_counts := v_counts || '{"more": true}';
        exit;
      end if;
    end loop;
    if cardinality(v_account_ids) > 0 then
      perform pg_advisory_xact_lock(7254014);
    end if;
  end if;
  v_locked_at := clock_timestamp();
  -- A row of a listing has many indexes: some at a time, and what is left is kept for the next round.
  while cardinality(v_account_ids) > 0
    and (v_state is null or clock_timestamp() < v_locked_at + interval '40 milliseconds') loop
    perform governance.copy_to_listings(v_account_ids[1:50]);
    v_account_ids := v_account_ids[51:];
  end loop;
  if cardinality(v_account_ids) > 0 then
    v_counts := v_counts || '{"more": true}';
  end if;
  v_state := v_state || jsonb_build_object('to_copy', to_jsonb(v_account_ids));
  -- Months that found no time in the round before go first.
  v_months_first := coalesce(v_state ? 'months_wait', false);
  if v_months_first then
    v_months := governance.keep_partitions(v_now);
    v_has_months := true;
  end if;
  v_rolled := governance.roll_due_accounts(v_now, 500,
    greatest(interval '30 milliseconds', v_locked_at + interval '120 milliseconds' - clock_timestamp()));
  v_counts := governance.add_counts(v_counts, jsonb_build_object('expired_reservations', v_rolled.expired_holds,
    'expired_grants', v_rolled.expired_lots, 'allowances_reset', v_rolled.allowances,
    'accounts_failed', v_rolled.failed, 'more', not v_rolled.is_done));
  if v_rolled.expired_holds > 0 then
    perform governance.ring('feed', v_now);
  end if;
  v_counts := governance.add_counts(v_counts, jsonb_build_object('more',
    not governance.leave_unknown_zones(v_now, interval '20 milliseconds')));
  if not v_months_first and clock_timestamp() < v_locked_at + interval '100 milliseconds' then
    v_months := governance.keep_partitions(v_now);
    v_has_months := true;
  end if;
  if not v_has_months then
    v_state := v_state || '{"months_wait": true}';
    v_counts := v_counts || '{"more": true}';
  else
    v_state := v_state - 'months_wait';
    v_counts := governance.add_counts(v_counts, jsonb_build_object('partitions_created', v_months.created,
      'partitions_dropped', v_months.dropped, 'more', not v_months.is_done));
  end if;
  if (v_counts ->> 'alerts_triggered')::int > 0 or (v_counts ->> 'notifications_queued')::int > 0 then
    perform governance.ring('alerts', v_now);
  end if;
  update governance.maintenance_state s set value = v_state, updated_at = clock_timestamp()
    where s.key = 'rounds' and v_state is not null;
  return governance.end_round(v_started, v_counts);
end
$$;
comment on function public.run_maintenance() is
  'One round of upkeep: expired holds and lots given back or taken out, allowances of new months, totals of past days, '
  'retention, alerts and their notifications. No call waits longer than 200 ms for it. Safe to run from several places '
  'at once; call again while more is true.';
revoke all on function public.run_maintenance() from public, anon, authenticated;
grant execute on function public.run_maintenance() to service_role;

-- No search_path here: a procedure with one may not commit. Every name is written in full.
create procedure governance.maintain()
  language plpgsql as $$
declare
  v_until timestamptz := pg_catalog.clock_timestamp() + interval '50 seconds';
  v_answer jsonb;
begin
  loop
    v_answer := public.run_maintenance();
    commit;
    exit when not (v_answer ->> 'more')::boolean or pg_catalog.clock_timestamp() > v_until;
  end loop;
end
$$;
comment on procedure governance.maintain() is 'Rounds of upkeep, each its own transaction, until all is done: what '
  'pg_cron calls every minute.';

create function governance.schedule_maintenance() returns boolean
  language plpgsql set search_path = '' as $$
begin
  if not exists (select from pg_catalog.pg_extension where extname = 'pg_cron') then return false; end if;
  execute format('select cron.schedule(%L, %L, %L)', 'governance-maintenance', '* * * * *',
    'call governance.maintain()');
  return true;
exception when insufficient_privilege or undefined_function or invalid_schema_name or undefined_table then
  raise notice 'pg_cron is there, but its schedule could not be set: %', sqlerrm;
  return false;
end
$$;
comment on function governance.schedule_maintenance() is
  'Has pg_cron run upkeep every minute; false where pg_cron is not installed: then call run_maintenance from anywhere, '
  'every minute. Call it again after installing pg_cron.';

insert into governance.maintenance_state (key, value)
values ('followed_events', '{"consumed": 0, "mark": 0, "mark_xid": "1"}');

insert into governance.maintenance_state (key, value)
  values ('anchored_ledger', '{"upto": 0, "hash": "", "mark": 0, "mark_xid": "0"}');

insert into governance.maintenance_state (key, value, updated_at)
  values ('rounds', '{"next": 0, "shares": {}}', 'infinity');

create function governance.check_rollups(p_now timestamptz, p_limit int default 200) returns int
  language plpgsql set search_path = '' as $$
declare
  v_after bigint;
  v_row record;
  v_last bigint;
  v_found int := 0;
begin
  select coalesce((s.value ->> 'after')::bigint, 0) into v_after from governance.maintenance_state s
    where s.key = 'checked_rollups' for update skip locked;
  if v_after is null then
    insert into governance.maintenance_state (key, value) values ('checked_rollups', '{"after": 0}')
      on conflict do nothing;
    return 0;
  end if;
  -- Some accounts each round, in turn: what the account counted and what the roll-up has must be one figure.
  for v_row in
    select a.account_id, a.user_id, a.day_tokens, a.month_tokens, a.local_day,
      (select coalesce(sum(d.charged_tokens), 0) from governance.usage_daily d
        where d.account_id = a.account_id and d.day = a.local_day) as rolled_day,
      (select coalesce(sum(d.charged_tokens), 0) from governance.usage_daily d where d.account_id = a.account_id
        and d.day >= a.local_month and d.day < (a.local_month + interval '1 month')::date) as rolled_month
    from governance.accounts a where a.account_id > v_after order by a.account_id limit p_limit
  loop
    v_last := v_row.account_id;
    if v_row.day_tokens <> v_row.rolled_day or v_row.month_tokens <> v_row.rolled_month then
      v_found := v_found + governance.raise_alert(null, v_row.account_id, 'rollup_mismatch', 'critical',
        format('The counters of %s and its roll-up differ: day %s and %s, month %s and %s', left(v_row.user_id, 100),
          v_row.day_tokens, v_row.rolled_day, v_row.month_tokens, v_row.rolled_month),
        null, null, v_row.local_day::text, '{}', p_now);
    end if;
  end loop;
  update governance.maintenance_state s set value = jsonb_build_object('after', coalesce(v_last, 0)),
    updated_at = clock_timestamp() where s.key = 'checked_rollups';
  return v_found;
end
$$;
comment on function governance.check_rollups(timestamptz,
  int) is 'Compares counters of accounts with their roll-ups, some each round; answers how many differ. Raises an '
    'alert, changes nothing.';

-- schemas/91_health.sql
-- Whether all is well: what npm run doctor and the health desk ask.

create function public.console_health() returns jsonb
  language plpgsql stable security definer set search_path = '' set jit = off as $$
declare
  v_now timestamptz := governance.now();
  v_real timestamptz := clock_timestamp();
  v_upkeep timestamptz;
  v_count bigint;
  v_since timestamptz;
  v_text text;
  v_texts text[];
  v_checks jsonb := '[]';
  v_day interval := interval '1 day';
begin
  perform governance.refuse_others('console_health');

  select s.updated_at into v_upkeep from governance.maintenance_state s where s.key = 'rounds';
  v_checks := v_checks || governance.health('upkeep',
    case when v_upkeep = 'infinity' then 'Upkeep never ran'
      when v_upkeep < v_real - interval '5 minutes' then format('Upkeep last ran %s ago',
        date_trunc('minute', v_real - v_upkeep)) end,
    format('Upkeep ran at %s', v_upkeep), 'Have run_maintenance called every minute: docs/guides/admin.md');

  select array_agg(distinct coalesce(e.details ->> 'step', a.user_id)) into v_texts
  from governance.alert_events e left join governance.accounts a using (account_id)
  where e.kind in ('upkeep_failed', 'maintenance_failed') and e.created_at > v_now - v_day;
  v_checks := v_checks || governance.health('upkeep_failures',
    'Upkeep failed within a day at: ' || array_to_string(v_texts[1:10], ', '),
    'No step of upkeep failed within a day',
    'Read the alerts upkeep_failed and maintenance_failed: each has its error');

  select count(*), min(d.object || ' by ' || d.role) into v_count, v_text from governance.open_doors() d;
  v_checks := v_checks || governance.health('doors',
    case when v_count > 0 then format('%s rights on what is for the service alone are open, such as %s', v_count,
      v_text) end,
    'anon and authenticated may use nothing that is for the service', 'Close them: npm run doctor -- --url URL --fix');

  select count(*) into v_count from pg_catalog.pg_proc p
  where p.pronamespace = 'public'::regnamespace and p.prosrc like '%governance.refuse_others(%'
    and not has_function_privilege('service_role', p.oid, 'execute');
  v_checks := v_checks || governance.health('service_grants',
    case when v_count > 0 then format('The service may not call %s of its functions', v_count) end,
    'The service may call all its functions', 'Grant them: npm run migrate, or npm run doctor -- --url URL --fix');

  v_texts := array(select c.relname from pg_catalog.pg_class c where c.relnamespace = 'governance'::regnamespace
    and c.relkind in ('r', 'p') and not c.relrowsecurity order by 1);
  v_checks := v_checks || governance.health('row_level_security',
    'Row level security is off for: ' || nullif(array_to_string(v_texts, ', '), ''),
    'Row level security is on for every table', 'alter table governance.<table> enable row level security');

  v_texts := array(select c.relname || '.' || t.tgname from pg_catalog.pg_trigger t
    join pg_catalog.pg_class c on c.oid = t.tgrelid
    where c.relnamespace = 'governance'::regnamespace and t.tgenabled not in ('O', 'A') order by 1);
  v_checks := v_checks || governance.health('triggers',
    'Triggers are disabled: ' || nullif(array_to_string(v_texts, ', '), ''),
    'Every trigger is enabled', 'alter table governance.<table> enable trigger <trigger>, then find who disabled it');

  v_texts := array(select i.indexrelid::regclass::text from pg_catalog.pg_index i
    join pg_catalog.pg_class c on c.oid = i.indrelid
    where c.relnamespace = 'governance'::regnamespace and not (i.indisvalid and i.indisready) order by 1);
  v_checks := v_checks || governance.health('indexes',
    'Indexes are not valid: ' || nullif(array_to_string(v_texts, ', '), ''),
    'Every index is valid', 'reindex index <index>');

  v_checks := v_checks || governance.health('realtime',
    case when governance.lacks_publication() then
      'Realtime does not carry the wake-ups: screens learn of news late' end,
    'Realtime carries the wake-ups, or is not installed',
    'npm run doctor -- --url URL --fix, or as the publication''s owner: alter publication supabase_realtime add table '
      'governance.signals');

  select array_agg(to_char(g, 'YYYY-MM') order by g) into v_texts
  from generate_series(date_trunc('month', v_now at time zone 'UTC'),
    date_trunc('month', v_now at time zone 'UTC') + interval '2 months', interval '1 month') g
  where to_regclass('governance.requests_' || to_char(g, 'YYYY_MM')) is null;
  v_checks := v_checks || governance.health('months_ahead',
    'Calls have no partition for: ' || array_to_string(v_texts, ', '),
    'Partitions for the next months are there', 'Run upkeep; if it does not help, read its alerts');

  select count(*) into v_count from (select from governance.requests_default limit 100000) x;
  v_checks := v_checks || governance.health('default_partition',
    case when v_count > 0 then format('%s calls are in the default partition: upkeep was away for long', v_count) end,
    'No call is in the default partition', 'Calls go on and nothing is lost; retention clears it');

  select count(*), min(n.due_at) into v_count, v_since from governance.notifications n
  where n.status = 'queued' and n.due_at < v_now - interval '5 minutes';
  v_checks := v_checks || governance.health('deliveries',
    case when v_count > 0 then format('%s messages are due since %s and nobody takes them', v_count, v_since) end,
    'No message is overdue', 'Run npm run deliver every minute, or deploy the Edge Function: docs/guides/admin.md');

  select count(*) into v_count from governance.notifications n join governance.alert_events e using (alert_event_id)
  where n.status = 'failed' and e.acknowledged_at is null;
  v_checks := v_checks || governance.health('failed_deliveries',
    case when v_count > 0 then format('%s messages were given up', v_count) end,
    'No message was given up', 'Look at last_error on the alerts desk, mend the address or channel, and send again');

  select count(*), min(l.holds_check_at) into v_count, v_since from governance.account_listings l
  where l.holds_check_at < v_now - interval '10 minutes';
  v_checks := v_checks || governance.health('holds',
    case when v_count > 0 then format('%s accounts have holds that expired since %s and were not given back', v_count,
      v_since) end,
    'No expired hold waits', 'Run upkeep; calls give them back too');

  select count(*) into v_count from governance.hold_events h join governance.requests r using (decision_id)
  where h.kind = 'quarantined' and r.status = 'quarantined';
  v_checks := v_checks || governance.health('settlements',
    case when v_count > 0 then format('%s settlements above the ceiling wait for a person', v_count) end,
    'No settlement waits for a person', 'Decide them on the alerts desk');

  select count(*), min(w.received_at) into v_count, v_since from governance.webhook_events_processed w
  where w.status = 'quarantined';
  v_checks := v_checks || governance.health('stripe_events',
    case when v_count > 0 then format('%s Stripe events wait for a person, the oldest since %s', v_count, v_since) end,
    'No Stripe event waits for a person', 'Release or dismiss them on the finance desk');

  select count(*) into v_count from governance.alert_events e
  where e.kind = 'rollup_mismatch' and e.acknowledged_at is null;
  v_checks := v_checks || governance.health('rollups',
    case when v_count > 0 then format('The counters of %s accounts and their roll-up differ', v_count) end,
    'Counters and roll-up agree', 'Run verify_ledger for these users and find who changed the tables');

  select max(l.created_at) into v_since from governance.audit_log l where l.action = 'ledger_anchor';
  -- The first anchor is made the day after upkeep first looked: what counts is that it looks.
  select count(*) into v_count from (select from governance.token_transactions t
    where t.created_at < v_now - 3 * v_day limit 1) x
  where not exists (select from governance.maintenance_state s where s.key = 'anchored_ledger'
    and (s.value ->> 'day')::date >= (v_now at time zone 'UTC')::date - 3);
  v_checks := v_checks || governance.health('ledger_anchor',
    case when v_count > 0 then
      format('The ledger was last anchored at %s', coalesce(v_since::text, 'no time')) end,
    'The ledger is anchored daily', 'Run upkeep: it anchors once a day');

  select count(*) into v_count from (
    select r.version_id from governance.rules r where r.is_active and r.mode <> 'off' and r.retired_at is null
    except select v from governance.rule_sets s cross join unnest(s.version_ids) v
      where s.rule_set_id = (select c.rule_set_id from governance.active_config c)) x;
  v_checks := v_checks || governance.health('rules',
    case when v_count > 0 then format('%s rules in force are not compiled: calls do not see them', v_count)
      when to_regproc('governance.rules_match') is null or to_regproc('governance.evaluate_rules') is null then
        'The compiled rules are gone' end,
    'Every rule in force is compiled', 'Save any rule again, or apply the preset');

  v_checks := v_checks || governance.health('configuration',
    case when not exists (select from governance.active_config c join governance.plans p on p.plan_id = c.default_plan
      where p.retired_at is null) then 'There is no default plan: no call of a new user can be decided' end,
    'There is a default plan', 'Apply a preset: npm run migrate -- --database-url URL --preset NAME');

  select (s.value ->> 'consumed')::bigint, (s.value ->> 'mark_at')::timestamptz into v_count, v_since
  from governance.maintenance_state s where s.key = 'followed_events';
  v_checks := v_checks || governance.health('lists',
    case when v_count < (select e.last_value from governance.event_ids e where e.is_called)
      and v_since < v_real - interval '10 minutes' then
      format('Lists and charts lack what happened since %s', v_since) end,
    'Lists and charts are up to date', 'Run upkeep; a transaction that is open for long keeps them back');

  v_checks := v_checks || governance.health('clock',
    (select case when c.test_clock_at is not null or c.test_clock_offset is not null then
      format('A test clock is set: the project believes it is %s', v_now) end from governance.active_config c),
    'The server''s own clock is used', 'select governance.set_test_clock(null)');

  select greatest(pg_catalog.age(d.datfrozenxid), 0) into v_count from pg_catalog.pg_database d
  where d.datname = current_database();
  v_checks := v_checks || governance.health('transaction_ids',
    case when v_count > 1500000000 then
      format('%s transactions since the last freeze: the server will stop at 2 billion', v_count) end,
    'Transaction numbers are not running out', 'Find what keeps autovacuum from freezing; run vacuum (freeze)');

  return jsonb_build_object('checks', v_checks, 'server_time', v_real,
    'is_well', not v_checks @> '[{"ok": false}]',
    'sizes', (select jsonb_object_agg(x.name, x.bytes) from (
      select c.relname::text as name,
        sum(pg_catalog.pg_total_relation_size(coalesce(i.inhrelid, c.oid)))::bigint as bytes
      from pg_catalog.pg_class c left join pg_catalog.pg_inherits i on i.inhparent = c.oid
      where c.relnamespace = 'governance'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
      group by 1 order by 2 desc limit 10) x));
end
$$;
comment on function public.console_health() is
  'Whether the project is well: checks, each {check, ok, found, advice}; is_well; server_time; sizes of the largest '
  'tables in bytes. Reads only.';
revoke all on function public.console_health() from public, anon, authenticated;
grant execute on function public.console_health() to service_role;

create function governance.health(p_check text, p_trouble text, p_sound text, p_advice text) returns jsonb
  language sql immutable set search_path = '' as $$
  select jsonb_build_object('check', p_check, 'ok', p_trouble is null, 'found', coalesce(p_trouble, p_sound), 'advice',
    case when p_trouble is not null then p_advice end)
$$;
comment on function governance.health(text, text, text, text) is 'One check of console_health; a trouble that is null '
  'is none.';

-- schemas/92_health_desk.sql
-- The health desk: what stands behind the checks of console_health, and proving the ledger on request.

create function governance.statements_schema(out schema_name text, out reason text)
  language plpgsql stable set search_path = '' as $$
begin
  select n.nspname into schema_name from pg_catalog.pg_extension e
    join pg_catalog.pg_namespace n on n.oid = e.extnamespace where e.extname = 'pg_stat_statements';
  if schema_name is null then
    reason := 'The extension pg_stat_statements is not installed: create extension pg_stat_statements';
  end if;
end
$$;
comment on function governance.statements_schema() is
  'Where pg_stat_statements is, or why there is none.';

create function governance.slow_functions(out functions jsonb, out reason text)
  language plpgsql stable set search_path = '' as $$
declare
  v_schema text;
begin
  select s.schema_name, s.reason into v_schema, reason from governance.statements_schema() s;
  if v_schema is null then return; end if;
  execute format($sql$
    select coalesce(jsonb_agg(to_jsonb(x) order by x.mean_ms desc, x.function), '[]') from (
      select f.proname as function, sum(s.calls)::bigint as calls,
        round((sum(s.total_exec_time) / greatest(sum(s.calls), 1))::numeric, 2) as mean_ms,
        round(max(s.max_exec_time)::numeric, 2) as max_ms
      from %I.pg_stat_statements s
      join pg_catalog.pg_proc f on f.pronamespace = 'public'::regnamespace
        and f.prosrc like '%%governance.refuse_others(%%'
        and s.query ~ ('\m' || f.proname || '\M')
      where s.dbid = (select d.oid from pg_catalog.pg_database d where d.datname = current_database())
        and s.query !~* '^\s*(create|comment|grant|revoke|alter|drop)\M'
      group by 1 order by 3 desc limit 10) x$sql$, v_schema) into functions;
exception when others then
  -- Not preloaded, or its figures are not for this role: the desk says why.
  functions := null;
  reason := left(sqlerrm, 300);
end
$$;
comment on function governance.slow_functions() is
  'The ten service functions with the longest mean time by pg_stat_statements: function, calls, mean_ms, max_ms; or '
  'null with the reason.';

create function governance.hold_ages(p_now timestamptz) returns jsonb
  language sql stable set search_path = '' as $$
  with holds as (
    select p_now - r.created_at as age, r.reserved_tokens, r.expires_at < p_now as is_over
    from governance.account_listings l
    join governance.accounts a using (account_id)
    join governance.requests r on r.account_id = a.account_id and r.created_at >= a.holds_from and r.status = 'held'
    where l.reserved > 0
  )
  select jsonb_agg(jsonb_build_object('from_seconds', b.low, 'to_seconds', b.high, 'holds', x.holds,
    'tokens', x.tokens, 'expired', x.expired) order by b.low)
  from (values (0, 60), (60, 600), (600, 3600), (3600, 86400), (86400, null)) b(low, high)
  cross join lateral (select count(*) as holds, coalesce(sum(h.reserved_tokens), 0) as tokens,
      count(*) filter (where h.is_over) as expired
    from holds h where extract(epoch from h.age) >= b.low
      and (b.high is null or extract(epoch from h.age) < b.high)) x
$$;
comment on function governance.hold_ages(timestamptz) is
  'Open holds by age: how many, how many tokens they hold, and how many are past their end.';

create function public.console_health_details() returns jsonb
  language plpgsql stable security definer set search_path = '' set jit = off as $$
declare
  v_now timestamptz := governance.now();
  v_slow record;
begin
  perform governance.refuse_others('console_health_details');
  v_slow := governance.slow_functions();
  return jsonb_build_object(
    'runs', (select coalesce(jsonb_agg(jsonb_build_object('run_id', r.run_id, 'started_at', r.started_at,
        'milliseconds', r.milliseconds, 'counts', r.counts) order by r.run_id desc), '[]')
      from (select * from governance.maintenance_runs m order by m.run_id desc limit 30) r),
    'deliveries', (select jsonb_build_object(
        'queued', count(*) filter (where n.status = 'queued'),
        'due', count(*) filter (where n.status = 'queued' and n.due_at <= v_now),
        'oldest_due_at', min(n.due_at) filter (where n.status = 'queued' and n.due_at <= v_now),
        'failed', count(*) filter (where n.status = 'failed'),
        'sent_today', count(*) filter (where n.status = 'sent' and n.sent_at > v_now - interval '1 day'),
        'last_sent_at', max(n.sent_at))
      from governance.notifications n),
    'holds', governance.hold_ages(v_now),
    'waiting', public.console_stuck_holds(50),
    'partitions', (select coalesce(jsonb_agg(jsonb_build_object('name', c.relname,
        'bytes', pg_catalog.pg_total_relation_size(c.oid), 'is_default',
          pg_catalog.pg_get_expr(c.relpartbound, c.oid) = 'DEFAULT') order by c.relname), '[]')
      from pg_catalog.pg_inherits i join pg_catalog.pg_class c on c.oid = i.inhrelid
      where i.inhparent = 'governance.requests'::regclass),
    'rules', (select jsonb_build_object('in_force', count(*) filter (where r.mode = 'enforce'),
        'in_shadow', count(*) filter (where r.mode = 'shadow'),
        'compiled_at', (select s.created_at from governance.rule_sets s
          where s.rule_set_id = (select c.rule_set_id from governance.active_config c)))
      from governance.rules r where r.is_active and r.mode <> 'off' and r.retired_at is null),
    'verified', (select jsonb_build_object('at', a.created_at, 'operator', a.operator,
        'accounts_checked', a.details -> 'accounts_checked', 'entries_checked', a.details -> 'entries_checked',
        'problem_count', a.details -> 'problem_count', 'problems', a.details -> 'problems')
      from governance.audit_log a where a.action = 'verify_ledger' and a.created_at > v_now - interval '400 days'
      order by a.created_at desc limit 1),
    'anchored_at', (select max(a.created_at) from governance.audit_log a where a.action = 'ledger_anchor'
      and a.created_at > v_now - interval '400 days'),
    'database_bytes', pg_catalog.pg_database_size(current_database()),
    'slow_functions', v_slow.functions, 'slow_functions_reason', v_slow.reason);
end
$$;
comment on function public.console_health_details() is
  'What stands behind console_health: upkeep''s last rounds and what they did, deliveries, open holds by age, holds '
  'and settlements that wait, partitions, rules compiled, who verified the ledger when, sizes in bytes, slow '
  'functions in milliseconds. Reads only.';
revoke all on function public.console_health_details() from public, anon, authenticated;
grant execute on function public.console_health_details() to service_role;

create function public.console_verify_ledger(p_command_id text, p_operator text default null) returns jsonb
  language plpgsql security definer set search_path = '' set jit = off as $$
declare
  v_answer jsonb;
  v_found jsonb;
begin
  perform governance.refuse_others('console_verify_ledger');
  perform governance.check_id('p_command_id', p_command_id);
  perform governance.check_optional('p_operator', p_operator, 255);
  v_answer := governance.begin_command('operator', p_command_id, row('verify_ledger', p_operator)::text);
  if v_answer is not null then return v_answer; end if;
  v_found := public.verify_ledger();
  v_answer := jsonb_build_object('accounts_checked', v_found -> 'accounts_checked',
    'entries_checked', v_found -> 'entries_checked', 'problem_count', jsonb_array_length(v_found -> 'problems'),
    'problems', (select coalesce(jsonb_agg(x), '[]') from (select x from jsonb_array_elements(v_found -> 'problems')
      with ordinality p(x, n) order by n limit 20) p));
  insert into governance.audit_log (created_at, operator, action, command_id, details)
  values (governance.now(), p_operator, 'verify_ledger', p_command_id, v_answer);
  return governance.end_command('operator', p_command_id, v_answer);
end
$$;
comment on function public.console_verify_ledger(text, text) is
  'Verifies the whole ledger now and keeps in the audit who did and what was found: accounts_checked, '
  'entries_checked, problem_count, the first 20 problems. Errors: invalid_argument, idempotency_conflict.';
revoke all on function public.console_verify_ledger(text, text) from public, anon, authenticated;
grant execute on function public.console_verify_ledger(text, text) to service_role;

-- schemas/99_install.sql
-- What runs once, when the schema is complete: partitions, the first compilation of rules, row level security, rights,
-- the wake-ups' publication, and the schedule of upkeep.
do $$
begin
  perform governance.ensure_request_partitions((now() - interval '1 month')::date, (now() + interval '6 months')::date);
end
$$;

do $$
declare
  v_function record;
begin
  perform governance.compile_rules();
  for v_function in
    select p.oid::regprocedure as name, d.said from pg_catalog.pg_proc p join (values
      ('rules_match', 'Whether any rule in force, or in shadow, matches a call.'),
      ('rules_topic', 'The topic of a message, where a rule reads it.'),
      ('rules_complexity', 'The complexity of a message, where a rule reads it.'),
      ('evaluate_rules', 'What the rules in force say of a call that one of them matches.')) d(name, said)
        on p.proname = d.name
    where p.pronamespace = 'governance'::regnamespace
  loop
    execute format('comment on function %s is %L', v_function.name, v_function.said
      || ' Written by governance.compile_rules: do not edit.');
  end loop;
end
$$;

-- Nobody reads or writes tables directly. Functions run as the owner, whom row level security does not bind.
do $$
declare
  v_table regclass;
begin
  for v_table in select c.oid::regclass from pg_catalog.pg_class c
    where c.relnamespace = 'governance'::regnamespace and c.relkind in ('r', 'p') and not c.relrowsecurity loop
    execute format('alter table %s enable row level security', v_table);
  end loop;
end
$$;
revoke all on all tables in schema governance from public;
revoke all on all sequences in schema governance from public;
revoke all on all routines in schema governance from public;

-- Supabase's Realtime reads the wake-ups as the service: the one table that a role other than the owner may read.
do $$
begin
  if exists (select from pg_catalog.pg_roles where rolname = 'service_role') then
    grant usage on schema governance to service_role;
    grant select on governance.signals to service_role;
    create policy signals_service_reads on governance.signals for select to service_role using (true);
  end if;
  if exists (select from pg_catalog.pg_publication where pubname = 'supabase_realtime' and not puballtables) then
    alter publication supabase_realtime add table governance.signals;
  end if;
end
$$;

do $$
begin
  perform governance.schedule_maintenance();
end
$$;
