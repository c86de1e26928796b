-- Errors that callers see, and the checks of what they send: parts of a rule, and arguments of functions.

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

create function governance.has_offset(p_moment text) returns boolean
  language sql immutable set search_path = '' as $$
  select p_moment ~ '^\d{4}-\d\d-\d\d[T ]\d\d:[0-5]\d(:[0-5]\d(\.\d+)?)?(Z|[+-]\d\d(:?\d\d)?)$'
$$;
comment on function governance.has_offset(text) is 'Whether a text is a moment with its offset, as the core writes it. '
  'Without one the zone of each connection would decide, and "tomorrow" be another day.';

create function governance.is_date(p_at timestamptz) returns boolean
  language sql immutable set search_path = '' as $$
  select p_at >= '0001-01-01Z' and p_at < '10000-01-01Z'
$$;
comment on function governance.is_date(timestamptz) is
  'Whether a moment has a year of four digits: JavaScript reads no other as JSON has it. Null for null.';

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

create function governance.check_days(p_from date, p_to date, p_step text) returns void
  language plpgsql immutable set search_path = '' as $$
begin
  if p_from is null or p_to is null or not isfinite(p_from) or not isfinite(p_to) or p_from > p_to
    or p_from < '1900-01-01' or p_to > '2199-12-31' or p_to - p_from > 3660 then
    perform governance.fail('PT400', 'invalid_argument', 'p_from and p_to are days, at most ten years apart');
  end if;
  if p_step is null or p_step not in ('day', 'week', 'month') then
    perform governance.fail('PT400', 'invalid_argument', 'p_step is day, week or month');
  end if;
end
$$;
comment on function governance.check_days(date, date, text) is
  'Refuses a range of days that is missing, too long or ends before it begins, and a step other than day, week or '
  'month.';

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
comment on function governance.check_period(timestamptz, timestamptz) is
  'Refuses a period that is missing, does not end after it begins, or lies outside the years 1900 to 2200.';

create function governance.try_jsonb(p_text text) returns jsonb
  language plpgsql immutable set search_path = '' as $$
begin
  return p_text::jsonb;
exception when data_exception or program_limit_exceeded or statement_too_complex then
  return null;
end
$$;
comment on function governance.try_jsonb(text) is 'The JSON of a text; null where it is not JSON.';
