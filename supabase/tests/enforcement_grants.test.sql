-- Nobody but the service may call what the backend calls, and nobody at all may touch a table: under Supabase's own
-- default grants, looked up and tried.
begin;
create extension if not exists pgtap;
select no_plan();

-- Every table × every operation × every role of the API.
select ok(not has_table_privilege(r.name, c.oid, v.name), format('%s may not %s governance.%s', r.name, v.name, c.relname))
from pg_catalog.pg_class c
cross join (values ('anon'), ('authenticated'), ('service_role')) r(name)
cross join (values ('select'), ('insert'), ('update'), ('delete'), ('truncate')) v(name)
where c.relnamespace = 'governance'::regnamespace and c.relkind in ('r', 'p', 'v')
  and not (c.relname = 'signals' and r.name = 'service_role' and v.name = 'select')
order by c.relname, r.name, v.name;
select ok(has_table_privilege('service_role', 'governance.signals', 'select'), 'the service may read the wake-ups');
select ok(not has_schema_privilege(r.name, 'governance', 'usage'), format('%s may not look into schema governance', r.name)) from (values ('anon'), ('authenticated')) r(name);
select ok(not has_schema_privilege('service_role', 'governance', 'create'), 'the service makes nothing in schema governance');
select ok(c.relrowsecurity, format('row level security is on for governance.%s', c.relname))
from pg_catalog.pg_class c where c.relnamespace = 'governance'::regnamespace and c.relkind in ('r', 'p') order by c.relname;
select ok(not has_sequence_privilege(r.name, c.oid, 'usage'), format('%s may not draw from governance.%s', r.name, c.relname))
from pg_catalog.pg_class c cross join (values ('anon'), ('authenticated'), ('service_role')) r(name)
where c.relnamespace = 'governance'::regnamespace and c.relkind = 'S' order by c.relname, r.name;

-- Every function: ours in public are the service's, but for a user's own; those in governance are nobody's.
select ok(not has_function_privilege('anon', p.oid, 'execute'), format('anon may not execute %s', p.proname))
from pg_catalog.pg_proc p where p.pronamespace = 'public'::regnamespace and p.proowner = (select n.nspowner from pg_catalog.pg_namespace n where n.nspname = 'governance') order by p.proname;
select ok(has_function_privilege('authenticated', p.oid, 'execute') = (p.proname like 'my\_%'), format('authenticated %s %s', case when p.proname like 'my\_%' then 'may execute' else 'may not execute' end, p.proname))
from pg_catalog.pg_proc p where p.pronamespace = 'public'::regnamespace and p.proowner = (select n.nspowner from pg_catalog.pg_namespace n where n.nspname = 'governance') order by p.proname;
select ok(has_function_privilege('service_role', p.oid, 'execute'), format('the service may execute %s', p.proname))
from pg_catalog.pg_proc p where p.pronamespace = 'public'::regnamespace and p.proowner = (select n.nspowner from pg_catalog.pg_namespace n where n.nspname = 'governance') and p.proname not like 'my\_%' order by p.proname;
select is(array(
    select p.proname::text || ' ' || r.name from pg_catalog.pg_proc p cross join (values ('anon'), ('authenticated'), ('service_role')) r(name)
    where p.pronamespace = 'governance'::regnamespace and has_function_privilege(r.name, p.oid, 'execute') order by 1), '{}'::text[],
  'no role of the API may execute a function of schema governance');

-- Each public function runs as its owner, on no search path, and says what it does.
select ok(p.prosecdef and 'search_path=""' = any (p.proconfig), format('%s is security definer with an empty search path', p.proname))
from pg_catalog.pg_proc p where p.pronamespace = 'public'::regnamespace and p.proowner = (select n.nspowner from pg_catalog.pg_namespace n where n.nspname = 'governance') order by p.proname;
select isnt(obj_description(p.oid), null, format('%s has a comment', p.proname))
from pg_catalog.pg_proc p where p.pronamespace in ('public'::regnamespace, 'governance'::regnamespace) and p.proowner = (select n.nspowner from pg_catalog.pg_namespace n where n.nspname = 'governance') order by p.proname;
select isnt(obj_description(c.oid), null, format('governance.%s has a comment', c.relname))
from pg_catalog.pg_class c where c.relnamespace = 'governance'::regnamespace and c.relkind in ('r', 'p', 'v') and not c.relispartition order by c.relname;

-- Tried, and not only looked up.
set local role anon;
select throws_ok($$select public.authorize_usage('r', 'u', 'm')$$, '42501', null, 'anon is refused authorize_usage');
select throws_ok($$select public.settle_usage('r', 1, 1)$$, '42501', null, 'anon is refused settle_usage');
select throws_ok($$select public.get_user_token_balance('u')$$, '42501', null, 'anon is refused get_user_token_balance');
select throws_ok($$select * from governance.accounts$$, '42501', null, 'anon is refused governance.accounts');
reset role;
set local role authenticated;
select throws_ok($$select public.authorize_usage('r', 'u', 'm')$$, '42501', null, 'authenticated is refused authorize_usage');
select throws_ok($$select public.update_user_token_balance('u', 1, 'bonus')$$, '42501', null, 'authenticated is refused update_user_token_balance');
select throws_ok($$select public.save_rule('c', '{}')$$, '42501', null, 'authenticated is refused save_rule');
select throws_ok($$select public.apply_preset('{}')$$, '42501', null, 'authenticated is refused apply_preset');
select throws_ok($$update governance.accounts set debt_tokens = 0$$, '42501', null, 'authenticated is refused an update of governance.accounts');
reset role;
set local role service_role;
select throws_ok($$select * from governance.token_transactions$$, '42501', null, 'the service is refused governance.token_transactions');
select throws_ok($$select governance.set_test_clock(now())$$, '42501', null, 'the service is refused the test clock');
select lives_ok($$select * from governance.signals$$, 'the service reads the wake-ups');
reset role;

-- The ledger and its kin are append-only for their owner too.
select set_config('role', (select n.nspowner::regrole::text from pg_catalog.pg_namespace n where n.nspname = 'governance'), true);
select throws_ok(format('%s governance.%s%s', v.statement, t.name, case v.statement when 'truncate' then ' cascade' else '' end), 'PT403', null, format('%s %s is refused to the owner', v.statement, t.name))
from (values ('delete from'), ('truncate')) v(statement) cross join (values ('token_transactions'), ('rule_versions'), ('audit_log')) t(name);
select throws_ok('update governance.token_transactions set amount = amount', 'PT403', null, 'an update of token_transactions is refused to the owner');
select throws_ok('update governance.rule_versions set version = version', 'PT403', null, 'an update of rule_versions is refused to the owner');
select throws_ok('update governance.audit_log set action = action', 'PT403', null, 'an update of audit_log is refused to the owner');
reset role;
select * from finish();
rollback;
