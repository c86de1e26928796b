-- Folding and counting text: how a message is compared with words and phrases.

create table governance.fold_letters (
  upper text primary key,
  lower text not null
);

comment on table governance.fold_letters is 'Letters beyond ASCII that folding makes lower case.';

create function governance.fold(p_text text) returns text
  language plpgsql immutable strict parallel safe set search_path = '' as $$
begin
  if octet_length(p_text) = char_length(p_text) then
    return lower(p_text collate "C");
  end if;
  return translate(lower(normalize(p_text, nfkc) collate "C"),
    'ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖØÙÚÛÜÝÞĀĂĄĆĈĊČĎĐĒĔĖĘĚĜĞĠĢĤĦĨĪĬĮĲĴĶĹĻĽĿŁŃŅŇŊŌŎŐŒŔŖŘŚŜŞŠŢŤŦŨŪŬŮŰŲŴŶŸŹŻŽͰͲͶͿΆΈΉΊΌΎΏΑΒΓΔ'
    'ΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩΪΫϏϘϚϜϞϠϢϤϦϨϪϬϮϴϷϹϺϽϾϿЀЁЂЃЄЅІЇЈЉЊЋЌЍЎЏАБВГДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯѠѢѤѦѨѪѬѮѰѲѴѶѸѺѼѾҀ'
    'ҊҌҎҐҒҔҖҘҚҜҞҠҢҤҦҨҪҬҮҰҲҴҶҸҺҼҾӀӁӃӅӇӉӋӍӐӒӔӖӘӚӜӞӠӢӤӦӨӪӬӮӰӲӴӶӸӺӼӾ',
    'àáâãäåæçèéêëìíîïðñòóôõöøùúûüýþāăąćĉċčďđēĕėęěĝğġģĥħĩīĭįĳĵķĺļľŀłńņňŋōŏőœŕŗřśŝşšţťŧũūŭůűųŵŷÿźżžͱͳͷϳάέήίόύώαβγδ'
    'εζηθικλμνξοπρστυφχψωϊϋϗϙϛϝϟϡϣϥϧϩϫϭϯθϸϲϻͻͼͽѐёђѓєѕіїјљњћќѝўџабвгдежзийклмнопрстуфхцчшщъыьэюяѡѣѥѧѩѫѭѯѱѳѵѷѹѻѽѿҁ'
    'ҋҍҏґғҕҗҙқҝҟҡңҥҧҩҫҭүұҳҵҷҹһҽҿӏӂӄӆӈӊӌӎӑӓӕӗәӛӝӟӡӣӥӧөӫӭӯӱӳӵӷӹӻӽӿ');
end
$$;
comment on function governance.fold(text) is 'NFKC and the lower case of docs/RULES.md.';

create function governance.collapse_spaces(p_text text) returns text
  language plpgsql immutable strict parallel safe set search_path = '' as $$
declare
  v_text text;
begin
  if octet_length(p_text) = char_length(p_text) then
    v_text := translate(p_text, E'\t\n\v\f\r', '     ');
  else
    v_text := translate(p_text,
      E'\t\n\v\f\r\u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028'
      '\u2029\u202f\u205f\u3000',
      '                        ');
  end if;
  while strpos(v_text, '  ') > 0 loop
    v_text := replace(v_text, '  ', ' ');
  end loop;
  return btrim(v_text, ' ');
end
$$;
comment on function governance.collapse_spaces(text) is 'Each run of white space becomes one space; none at the ends.';

create function governance.count_words(p_text text) returns int
  language plpgsql immutable strict parallel safe set search_path = '' as $$
declare
  v_text text := governance.collapse_spaces(p_text);
begin
  if v_text = '' then return 0; end if;
  return char_length(v_text) - char_length(replace(v_text, ' ', '')) + 1;
end
$$;
comment on function governance.count_words(text) is 'Words between white space.';

create function governance.space_phrases(p_folded text) returns text
  language plpgsql immutable strict parallel safe set search_path = '' as $$
begin
  return ' ' || btrim(regexp_replace(p_folded,
    '[\x01-\x2f\x3a-\x60\x7b-\x7f\u0080-\u00a9\u00ab-\u00b4\u00b6-\u00b9\u00bb-\u00bf\u00d7\u00f7\u2000-\u206f'
    '\u3000-\u303f\ufe30-\ufe4f\uff00-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65]+',
    ' ', 'g'), ' ') || ' ';
end
$$;
comment on function governance.space_phrases(text) is 'Folded text with every separator as one space and one at each '
  'end: a phrase occurs if it does so with its spaces.';

create function governance.like_pattern(p_text text) returns text
  language sql immutable as $$
  select replace(replace(replace(p_text, '\', '\\'), '%', '\%'), '_', '\_')
$$;
comment on function governance.like_pattern(text) is 'A text that LIKE takes as it is.';

create function governance.with_separators(p_number bigint) returns text
  language sql immutable set search_path = '' as $$
  select to_char(p_number, 'FM9,999,999,999,999,999,990')
$$;
comment on function governance.with_separators(bigint) is 'A number as people read it: 10,240.';

insert into governance.fold_letters (upper, lower)
  select substr(u.letters, n, 1), substr(l.letters, n, 1)
  from (select 'ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖØÙÚÛÜÝÞĀĂĄĆĈĊČĎĐĒĔĖĘĚĜĞĠĢĤĦĨĪĬĮĲĴĶĹĻĽĿŁŃŅŇŊŌŎŐŒŔŖŘŚŜŞŠŢŤŦŨŪŬŮŰŲŴŶŸŹŻŽͰͲͶͿ'
    'ΆΈΉΊΌΎΏΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩΪΫϏϘϚϜϞϠϢϤϦϨϪϬϮϴϷϹϺϽϾϿЀЁЂЃЄЅІЇЈЉЊЋЌЍЎЏАБВГДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯѠѢѤѦѨѪ'
    'ѬѮѰѲѴѶѸѺѼѾҀҊҌҎҐҒҔҖҘҚҜҞҠҢҤҦҨҪҬҮҰҲҴҶҸҺҼҾӀӁӃӅӇӉӋӍӐӒӔӖӘӚӜӞӠӢӤӦӨӪӬӮӰӲӴӶӸӺӼӾ' as letters) u,
    (select 'àáâãäåæçèéêëìíîïðñòóôõöøùúûüýþāăąćĉċčďđēĕėęěĝğġģĥħĩīĭįĳĵķĺļľŀłńņňŋōŏőœŕŗřśŝşšţťŧũūŭůűųŵŷÿźżžͱͳͷϳάέή'
      'ίόύώαβγδεζηθικλμνξοπρστυφχψωϊϋϗϙϛϝϟϡϣϥϧϩϫϭϯθϸϲϻͻͼͽѐёђѓєѕіїјљњћќѝўџабвгдежзийклмнопрстуфхцчшщъыьэюяѡѣѥѧѩѫѭ'
      'ѯѱѳѵѷѹѻѽѿҁҋҍҏґғҕҗҙқҝҟҡңҥҧҩҫҭүұҳҵҷҹһҽҿӏӂӄӆӈӊӌӎӑӓӕӗәӛӝӟӡӣӥӧөӫӭӯӱӳӵӷӹӻӽӿ' as letters) l,
    generate_series(1, length('ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖØÙÚÛÜÝÞĀĂĄĆĈĊČĎĐĒĔĖĘĚĜĞĠĢĤĦĨĪĬĮĲĴĶĹĻĽĿŁŃŅŇŊŌŎŐŒŔŖŘŚŜŞŠŢŤŦŨ'
      'ŪŬŮŰŲŴŶŸŹŻŽͰͲͶͿΆΈΉΊΌΎΏΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩΪΫϏϘϚϜϞϠϢϤϦϨϪϬϮϴϷϹϺϽϾϿЀЁЂЃЄЅІЇЈЉЊЋЌЍЎЏАБВГДЕЖЗИЙКЛМНОПРСТУФ'
      'ХЦЧШЩЪЫЬЭЮЯѠѢѤѦѨѪѬѮѰѲѴѶѸѺѼѾҀҊҌҎҐҒҔҖҘҚҜҞҠҢҤҦҨҪҬҮҰҲҴҶҸҺҼҾӀӁӃӅӇӉӋӍӐӒӔӖӘӚӜӞӠӢӤӦӨӪӬӮӰӲӴӶӸӺӼӾ')) n;
