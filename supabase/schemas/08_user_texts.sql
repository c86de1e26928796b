-- Texts for users, put together from the catalogue (governance.user_word).

create function governance.say(p_word text, p_language text, p_values jsonb default '{}') returns text
  language sql immutable parallel safe set search_path = '' as $$
  -- In one pass: a value that looks like a place of another stays as it is.
  select string_agg(case when x.n = 1 then x.part
    else coalesce(p_values ->> split_part(x.part, '}', 1), '') || substr(x.part, strpos(x.part, '}') + 1) end, ''
    order by x.n)
  from unnest(string_to_array(governance.user_word(p_word, p_language), '{')) with ordinality x(part, n)
$$;
comment on function governance.say(text, text, jsonb) is
  'A text of the catalogue with its values; null for a word that is not in it. The core''s say is the same.';

create function governance.say_count(p_number numeric, p_language text) returns text
  language sql immutable parallel safe set search_path = '' as $$
  select replace(to_char(p_number, 'FM999,999,999,999,999,999,990'), ',',
    governance.user_word('format.separator', p_language))
$$;
comment on function governance.say_count(numeric, text) is 'A whole number with the language''s separators.';

create function governance.say_day(p_day text, p_language text) returns text
  language sql immutable parallel safe set search_path = '' as $$
  select governance.say('format.day', p_language, jsonb_build_object('day', substr(p_day, 9, 2)::int,
    'month', split_part(governance.user_word('format.months', p_language), ',', substr(p_day, 6, 2)::int),
    'year', left(p_day, 4)))
$$;
comment on function governance.say_day(text, text) is 'A day, YYYY-MM-DD: 5 March 2027.';

create function governance.say_period(p_key text, p_language text) returns text
  language sql stable parallel safe set search_path = '' as $$
  select case when p_key ~ '^[1-9][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$' then
      governance.say_day(p_key, p_language)
    when p_key ~ '^[1-9][0-9]{3}-W(0[1-9]|[1-4][0-9]|5[0-3])$' then
      -- The first week of a year holds its 4th of January.
      governance.say('format.week', p_language, jsonb_build_object('day', governance.say_day(to_char(
        date_trunc('week', make_date(left(p_key, 4)::int, 1, 4)::timestamp)
          + (right(p_key, 2)::int - 1) * interval '7 days', 'YYYY-MM-DD'), p_language)))
    when p_key ~ '^[1-9][0-9]{3}-(0[1-9]|1[0-2])$' then
      governance.say('format.month', p_language, jsonb_build_object('year', left(p_key, 4),
        'month', split_part(governance.user_word('format.months', p_language), ',', right(p_key, 2)::int)))
    else p_key end
$$;
comment on function governance.say_period(text, text) is
  'The period that a key of governance.budget_period names: 5 March 2027, the week from 4 January 2027, March 2027, '
  '2027. Any other text stays as it is. The core''s sayPeriod is the same.';

create function governance.minor_digits(p_currency text) returns int
  language sql immutable parallel safe set search_path = '' as $$
  select case
    when lower(p_currency) = any ('{bif,clp,djf,gnf,jpy,kmf,krw,mga,pyg,rwf,vnd,vuv,xaf,xof,xpf}') then 0
    when lower(p_currency) = any ('{bhd,jod,kwd,omr,tnd}') then 3
    else 2 end
$$;
comment on function governance.minor_digits(text) is
  'Decimal places of a currency as Stripe writes it. The core''s currencyExponent is the same.';

create function governance.say_money(p_minor numeric, p_currency text, p_language text) returns text
  language sql immutable parallel safe set search_path = '' as $$
  select case when p_minor < 0 then '-' else '' end || governance.say_count(
      trunc(abs(p_minor) / 10::numeric ^ d.digits), p_language)
    || case when d.digits = 0 then '' else governance.user_word('format.decimal', p_language)
      || lpad((abs(p_minor) % (10::numeric ^ d.digits))::bigint::text, d.digits, '0') end
    || ' ' || upper(p_currency)
  from (select governance.minor_digits(p_currency) as digits) d
$$;
comment on function governance.say_money(numeric, text, text) is 'Money out of minor units: 5.00 USD.';

create function governance.say_amount(p_metric text, p_value numeric, p_currency text, p_language text) returns text
  language sql immutable parallel safe set search_path = '' as $$
  select case p_metric
    when 'cost_micros' then governance.say_money(
      round(p_value * 10::numeric ^ governance.minor_digits(p_currency) / 1000000), p_currency, p_language)
    when 'tokens' then governance.say('amount.tokens', p_language,
      jsonb_build_object('value', governance.say_count(p_value, p_language)))
    else governance.say_count(abs(p_value), p_language) end
$$;
comment on function governance.say_amount(text, numeric, text, text) is
  'The figure that an alert measured, in words: 5.00 USD, 1,234 tokens; a count where it measures something else.';

create function governance.user_message(p_reason text, p_message text, p_language text) returns text
  language sql immutable parallel safe set search_path = '' as $$
  -- A rule has its own message in English only. In other languages users read the standard message of its reason.
  select case when p_message is not null and (p_language = 'en' or w.word is null)
      and not exists (select from unnest(governance.user_languages()) l
        where p_message = coalesce(governance.user_word('reason.' || p_reason, l),
          governance.user_word('reason.other', l)))
    then p_message else coalesce(w.word, governance.user_word('reason.other', p_language)) end
  from (select governance.user_word('reason.' || p_reason, p_language) as word) w
$$;
comment on function governance.user_message(text, text, text) is
  'The message to the user of a stopped call: the rule''s own message in English, in other languages the standard '
  'message of its reason.';
