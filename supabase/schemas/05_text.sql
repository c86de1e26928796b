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

create function governance.invisible_characters() returns text
  language sql immutable parallel safe set search_path = '' as $$
  select '\u00ad\u034f\u061c\u115f-\u1160\u17b4-\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164'
    '\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff'
$$;
comment on function governance.invisible_characters() is
  'Characters that nobody sees and that may stand anywhere in a word: Default_Ignorable_Code_Point of Unicode.';

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
comment on function governance.separators() is 'Characters that end a word when phrases are looked for.';

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
  'How many characters of a message are judged, and how many are kept of what they normalise to. Normalising cannot be '
  'cancelled, so it never gets a longer text.';

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
  v_text := regexp_replace(v_text, '[' || governance.invisible_characters() || ']+', '', 'g');
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
  'The part of a text that is judged, folded as docs/RULES.md says: its first characters, without invisible ones, '
  'stream-safe, NFKC, lower case.';

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
    -- The rest of the text, without the separators beside words that are counted already. The one white space now is
    -- U+0020.
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
  'A phrase in the form in which it is looked for in the result of governance.space_phrases; only spaces where it has '
  'no word.';

create function governance.like_pattern(p_text text) returns text
  language sql immutable set search_path = '' as $$
  select replace(replace(replace(p_text, '\', '\\'), '%', '\%'), '_', '\_')
$$;
comment on function governance.like_pattern(text) is 'A text escaped for LIKE, which then matches it literally.';

create function governance.with_separators(p_number bigint) returns text
  language sql immutable set search_path = '' as $$
  select to_char(p_number, 'FM9,999,999,999,999,999,990')
$$;
comment on function governance.with_separators(bigint) is 'A number as people read it: 10,240.';

insert into governance.fold_letters (upper, lower)
  select substr(governance.upper_letters(), n, 1), substr(governance.lower_letters(), n, 1)
  from generate_series(1, length(governance.upper_letters())) n;
