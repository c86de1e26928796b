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
    -- Where another transaction holds the row, that one rings.
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
  perform set_config('governance.beat', (date_part('epoch', p_now) * 1000 / p_interval_ms)::bigint::text, false);
  perform governance.ring('feed', p_now);
end
$$;
comment on function governance.ring_feed(timestamptz,
  int) is 'Wakes readers of the feed after a call, at most once an interval.';

insert into governance.signals (topic, at) values ('feed', '-infinity'), ('rules', '-infinity'),
  ('accounts', '-infinity'), ('alerts', '-infinity');

create function public.console_signals() returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
begin
  perform governance.refuse_others('console_signals');
  return (select jsonb_object_agg(s.topic, s.beats) from governance.signals s);
end
$$;
comment on function public.console_signals() is
  'How often each topic was rung: a count that changed means that there is something new to read. For consoles that '
  'Realtime does not reach, twice a second.';
revoke all on function public.console_signals() from public, anon, authenticated;
grant execute on function public.console_signals() to service_role;
