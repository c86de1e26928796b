-- Who may call what the desk reads and does: the service alone, and each user about themselves. With Supabase's default
-- grants in place (the role that migrates grants everything new in public to all three API roles).
begin;
create extension if not exists pgtap;
select plan(76);

create temporary table desk_functions (name text, arguments text[], is_users_own boolean);
insert into desk_functions
select p.proname, array(select pg_catalog.format_type(t, null) from unnest(p.proargtypes) t), p.proname like 'my\_%'
from pg_catalog.pg_proc p
where p.pronamespace = 'public'::regnamespace
  and p.proname = any ('{console_project_info,console_overview,console_search_accounts,console_get_account,console_account_decisions,console_events_before,console_search,console_rail_counts,explain_decision,calculate_user_token_usage,user_token_usage,get_or_create_token_record,console_usage_totals,console_token_stats,import_usage_history,run_maintenance,claim_notifications,finish_notification,console_alerts,console_cost_alerts,console_acknowledge_alert,console_retry_notification,console_stuck_holds,console_resolve_hold,my_token_balance,my_token_usage,my_token_alerts,my_token_history,my_preferences,turn_off_messages}');

select is(count(*), 30::bigint, 'the desk has its 30 functions, none overloaded') from desk_functions;
select function_privs_are('public', name, arguments, 'anon', '{}'::text[]) from desk_functions order by name;
select function_privs_are('public', name, arguments, 'authenticated', case when is_users_own then '{EXECUTE}' else '{}' end::text[]) from desk_functions order by name;
select ok(not has_function_privilege('public', (format('public.%I(%s)', name, array_to_string(arguments, ', ')))::regprocedure, 'execute'),
  format('public may not execute %s', name)) from desk_functions where name in ('run_maintenance', 'console_resolve_hold', 'my_token_balance') order by name;

-- Tables: no role of the API sees any of them, and row level security is on.
select is(array(
    select format('%s %s %s', r.name, c.relname, v.name) from pg_catalog.pg_class c
    cross join (values ('anon'), ('authenticated'), ('service_role')) r(name) cross join (values ('select'), ('insert'), ('update'), ('delete'), ('truncate')) v(name)
    where c.relnamespace = 'governance'::regnamespace and c.relkind in ('r', 'p', 'v')
      and c.relname in ('account_listings', 'call_totals', 'user_totals', 'rule_matches', 'imported_usage', 'usage_imports', 'usage_totals', 'usage_days', 'notifications', 'stuck_holds')
      and has_table_privilege(r.name, c.oid, v.name)), '{}'::text[], 'no role of the API may touch the desk''s tables');
select is(array(
    select c.relname::text from pg_catalog.pg_class c
    where c.relnamespace = 'governance'::regnamespace and c.relkind in ('r', 'p') and not c.relrowsecurity), '{}'::text[], 'row level security is on for every table');

-- Functions run with the rights of their owner: none may be led astray by a search path, and each says what it is.
select is(array(
    select p.proname::text from pg_catalog.pg_proc p join desk_functions d on d.name = p.proname and p.pronamespace = 'public'::regnamespace
    where not p.prosecdef or p.proconfig is null or not 'search_path=""' = any (p.proconfig)), '{}'::text[], 'each runs as its owner with an empty search path');
select is(array(
    select p.proname::text from pg_catalog.pg_proc p join desk_functions d on d.name = p.proname and p.pronamespace = 'public'::regnamespace
    where obj_description(p.oid) is null), '{}'::text[], 'each has a comment');

-- Tried, and not only looked up.
set local role anon;
select throws_ok('select public.console_overview()', '42501');
select throws_ok('select public.run_maintenance()', '42501');
select throws_ok('select public.my_token_balance()', '42501');
reset role;
set local role authenticated;
select throws_ok('select public.console_search_accounts()', '42501');
select throws_ok('select public.console_resolve_hold(''c'', ''r'', ''release'', ''why'')', '42501');
select throws_ok('select * from governance.account_listings', '42501');
select throws_ok('select public.my_token_balance()', 'PT401');
reset role;
set local role service_role;
select lives_ok('select public.console_overview()');
reset role;
select * from finish();
rollback;
