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
comment on function governance.open_doors() is
  'Rights that anon and authenticated have although they are for the service alone. A sound project has none.';

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
      -- Its owner must: npm run doctor shows it.
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
  'service its functions, publishes the wake-ups, schedules upkeep. Changes nothing on a sound project. Returns '
  'closed, still_open (granted by another role, which only that role or a superuser can revoke), published, scheduled.';
revoke all on function public.console_repair() from public, anon, authenticated;
grant execute on function public.console_repair() to service_role;

create function governance.lacks_publication() returns boolean
  language sql stable set search_path = '' as $$
  select exists (select from pg_catalog.pg_publication p where p.pubname = 'supabase_realtime' and not p.puballtables)
    and not exists (select from pg_catalog.pg_publication_tables t
      where t.pubname = 'supabase_realtime' and t.schemaname = 'governance' and t.tablename = 'signals')
$$;
comment on function governance.lacks_publication() is
  'Whether the project has Realtime, and its publication lacks the wake-ups.';
