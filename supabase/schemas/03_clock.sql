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

create function governance.local_time(p_at timestamptz, p_timezone text) returns timestamp
  language plpgsql stable set search_path = '' as $$
begin
  if p_timezone = 'UTC' then return p_at at time zone 'UTC'; end if;
  -- A block with an exception costs as much as a write.
  begin
    return p_at at time zone p_timezone;
  exception when invalid_parameter_value then
    return p_at at time zone 'UTC';
  end;
end
$$;
comment on function governance.local_time(timestamptz, text) is
  'The time on the wall of a zone; of UTC where this server does not know it (governance.known_zone).';

create function governance.is_place(p_name text) returns boolean
  language sql immutable set search_path = '' as $$
  select p_name !~ '^(posix|right)/' and p_name not in ('Factory', 'localtime', 'posixrules')
$$;
comment on function governance.is_place(text) is
  'Whether a name of pg_timezone_names is a zone anywhere, not a file of this server''s that no browser knows: '
  'localtime is whatever it was set to.';

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
      where lower(n.name) = lower(p_timezone) and governance.is_place(n.name) limit 1;
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

-- Four names are abbreviations too, which PostgreSQL reads first: CET would be an hour ahead all the year. They are
-- kept as the zones that they are links to in the time zone database, with their summer time.
insert into governance.time_zones (lower_name, name)
  select distinct on (lower(n.name)) lower(n.name), case n.name when 'CET' then 'Europe/Brussels'
    when 'MET' then 'Europe/Brussels' when 'EET' then 'Europe/Athens' when 'WET' then 'Europe/Lisbon' else n.name end
  from pg_catalog.pg_timezone_names n
  where governance.is_place(n.name) order by lower(n.name), n.name collate "C";
