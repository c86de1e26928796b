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
