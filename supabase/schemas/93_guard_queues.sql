-- What backends owe the project: settlements that their guards could not send, or must not.

create table governance.guard_queues (
  backend text primary key,
  waiting int not null,
  parked int not null,
  oldest_at timestamptz,
  reported_at timestamptz not null
);

comment on table governance.guard_queues is
  'The queue of each backend''s guard as it last reported it; by the server''s own clock.';

create function public.report_guard_queue(p_backend text, p_waiting int, p_parked int default 0,
  p_oldest_seconds bigint default null) returns void
  language plpgsql security definer set search_path = '' as $$
declare
  v_now timestamptz := clock_timestamp();
begin
  perform governance.refuse_others('report_guard_queue');
  perform governance.check_id('p_backend', p_backend, 255);
  if p_waiting is null or p_waiting < 0 or p_parked is null or p_parked < 0
    or p_oldest_seconds not between 0 and 315360000 then
    perform governance.fail('PT400', 'invalid_argument',
      'p_waiting and p_parked are counts, p_oldest_seconds an age of at most ten years');
  end if;
  insert into governance.guard_queues as q (backend, waiting, parked, oldest_at, reported_at)
  values (p_backend, p_waiting, p_parked, v_now - p_oldest_seconds * interval '1 second', v_now)
  on conflict (backend) do update set waiting = excluded.waiting, parked = excluded.parked,
    oldest_at = excluded.oldest_at, reported_at = excluded.reported_at;
  -- Drops backends that owe nothing and no longer report, and the oldest where there are too many.
  delete from governance.guard_queues q where (q.waiting + q.parked = 0 and q.reported_at < v_now - interval '7 days')
    or q.backend in (select x.backend from governance.guard_queues x order by x.reported_at desc offset 1000);
end
$$;
comment on function public.report_guard_queue(text, int, int, bigint) is
  'Reports what the store of a backend''s guard holds: settlements that wait, those parked for a person, and the '
  'age in seconds of the oldest that waits. The guard calls it by itself when that changes. The last report of each '
  'backend is kept, of at most 1,000. Errors: invalid_argument.';
revoke all on function public.report_guard_queue(text, int, int, bigint) from public, anon, authenticated;
grant execute on function public.report_guard_queue(text, int, int, bigint) to service_role;

create function governance.health_of_guards() returns jsonb
  language sql stable set search_path = '' as $$
  with stuck as (
    select q.*, row_number() over (order by q.parked desc, q.oldest_at, q.backend) as place
    from governance.guard_queues q
    where q.parked > 0 or (q.waiting > 0
      and least(q.oldest_at, q.reported_at) < clock_timestamp() - interval '5 minutes')
  )
  select jsonb_build_array(governance.health('guard_queues',
    'Backends owe settlements: ' || (select string_agg(format('%s (%s)', left(s.backend, 100), concat_ws(', ',
      case when s.waiting > 0 then format('%s wait', s.waiting) end,
      case when s.parked > 0 then format('%s parked', s.parked) end,
      -- The console recognises a time in this form, and shows it as it shows all times.
      'reported ' || to_char(s.reported_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI"Z"'))), '; ' order by s.place)
      from stuck s where s.place <= 5)
      || (select case when count(*) > 5 then format(' and %s more', count(*) - 5) else '' end from stuck s),
    'No backend owes settlements for long',
    'Waiting: see that the backend runs and reaches the project; guard.drain() sends what its store has. Parked: look '
      'at guard.parked() there, mend the cause, and put or remove each: docs/guides/guard.md'))
$$;
comment on function governance.health_of_guards() is
  'Check of console_health: settlements that backends could not send for five minutes, or have parked.';
