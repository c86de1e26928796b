-- Tried, not only looked up: every table × every operation × every role of the API, and every function of ours by every
-- role that must not call it. All are taken from the catalogue, so that none is forgotten.
begin;
create extension if not exists pgtap;
select no_plan();

create temporary table statements as
select c.relname, o.operation, case o.operation
    when 'select' then format('select 1 from governance.%I', c.relname)
    when 'insert' then format('insert into governance.%I default values', c.relname)
    when 'update' then format('update governance.%1$I set %2$I = %2$I', c.relname, a.attname)
    when 'delete' then format('delete from governance.%I', c.relname)
    else format('truncate governance.%I', c.relname) end as statement
from pg_catalog.pg_class c
-- An identity and what is generated may not be written to by anybody: the last column that is neither.
cross join lateral (select x.attname from pg_catalog.pg_attribute x
  where x.attrelid = c.oid and x.attnum > 0 and not x.attisdropped and x.attidentity = '' and x.attgenerated = '' order by x.attnum desc limit 1) a
cross join (values ('select'), ('insert'), ('update'), ('delete'), ('truncate')) o(operation)
where c.relnamespace = 'governance'::regnamespace and (c.relkind in ('r', 'p') or (c.relkind = 'v' and o.operation = 'select'))
order by c.relname, o.operation;
create temporary table calls as
select p.proname, format('select %I.%I(%s)', n.nspname, p.proname,
    -- A subselect: a strict function of plain nulls would be left out before anybody's right is asked.
    (select string_agg(format('%s(select null::%s)', case when p.provariadic <> 0 and u.n = p.pronargs then 'variadic ' end, pg_catalog.format_type(u.t, null)), ', ' order by u.n)
      from unnest(p.proargtypes) with ordinality u(t, n))) as statement,
  n.nspname = 'public' and p.proname like 'my\_%' as is_users_own, n.nspname
from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
where n.nspname in ('public', 'governance') and p.prokind = 'f' and p.prorettype <> 'trigger'::regtype
  and p.proowner = (select s.nspowner from pg_catalog.pg_namespace s where s.nspname = 'governance');
grant select on statements, calls to anon, authenticated, service_role;

select cmp_ok(count(*), '>', 200::bigint, 'every table is tried with every operation') from statements;
select cmp_ok(count(*), '>', 100::bigint, 'every function is tried') from calls;

set local role anon;
select throws_ok(s.statement, '42501', null, format('anon: %s governance.%s', s.operation, s.relname)) from statements s;
select throws_ok(c.statement, '42501', null, format('anon: %s.%s', c.nspname, c.proname)) from calls c;
reset role;
set local role authenticated;
select throws_ok(s.statement, '42501', null, format('authenticated: %s governance.%s', s.operation, s.relname)) from statements s;
select throws_ok(c.statement, '42501', null, format('authenticated: %s.%s', c.nspname, c.proname)) from calls c where not c.is_users_own;
reset role;
set local role service_role;
select throws_ok(s.statement, '42501', null, format('the service: %s governance.%s', s.operation, s.relname))
from statements s where not (s.relname = 'signals' and s.operation = 'select');
select lives_ok('select 1 from governance.signals', 'the service: select governance.signals, and nothing else of it');
select throws_ok(c.statement, '42501', null, format('the service: %s.%s', c.nspname, c.proname)) from calls c where c.nspname = 'governance';
reset role;

-- Were the schema open to them (a mistake of one grant), each table and each function would still refuse.
grant usage on schema governance to anon, authenticated;
set local role anon;
select throws_ok(s.statement, '42501', null, format('anon, in the schema: %s governance.%s', s.operation, s.relname)) from statements s;
select throws_ok(c.statement, '42501', null, format('anon, in the schema: %s', c.proname)) from calls c where c.nspname = 'governance';
reset role;
set local role authenticated;
select throws_ok(s.statement, '42501', null, format('authenticated, in the schema: %s governance.%s', s.operation, s.relname)) from statements s;
select throws_ok(c.statement, '42501', null, format('authenticated, in the schema: %s', c.proname)) from calls c where c.nspname = 'governance';
reset role;

-- Even a role with every privilege on the tables reads no row of them: row level security has no policy for it.
select public.upsert_account('alice', p_email => 'alice@example.com');
select public.upsert_account('bob', p_email => 'bob@example.com');
select public.update_user_token_balance('alice', 111, 'bonus');
select public.update_user_token_balance('bob', 2222, 'bonus');
select public.authorize_usage('r-alice', 'alice', 'gpt-4o-mini', 10);
select public.settle_usage('r-alice', 40000, 11000);
select public.authorize_usage('r-bob', 'bob', 'gpt-4o-mini', 10);
select public.settle_usage('r-bob', 3, 4);
grant select on all tables in schema governance to authenticated;
set local role authenticated;
select is((select count(*) from governance.accounts), 0::bigint, 'row level security: no account');
select is((select count(*) from governance.token_transactions), 0::bigint, 'row level security: no ledger entry');
select is((select count(*) from governance.requests), 0::bigint, 'row level security: no call');
select is((select count(*) from governance.lots), 0::bigint, 'row level security: no lot');
reset role;
revoke select on all tables in schema governance from authenticated;
revoke usage on schema governance from anon, authenticated;

-- Users see themselves, and nobody else, by the three functions that are theirs.
set local role authenticated;
set local request.jwt.claims = '{"sub": "alice", "role": "authenticated"}';
select is(public.my_token_balance() #>> '{balance,promotional}', '0', 'alice sees her own balance, spent');
select is(jsonb_path_query_first(public.my_token_usage(7), '$.**.total_tokens') #>> '{}', '51000', 'alice sees her own usage');
select isnt(public.my_token_alerts()::text, '[]', 'alice sees her own alerts');
set local request.jwt.claims = '{"sub": "bob", "role": "authenticated"}';
select is(public.my_token_balance() #>> '{balance,promotional}', '2222', 'bob sees his own balance');
select is(jsonb_path_query_first(public.my_token_usage(7), '$.**.total_tokens') #>> '{}', '7', 'bob sees his own usage');
select is(position('alice' in public.my_token_balance()::text || public.my_token_usage(7)::text || public.my_token_alerts()::text), 0, 'bob sees nothing of alice');
set local request.jwt.claims = '{"sub": "nobody", "role": "authenticated"}';
select is(position('alice' in public.my_token_balance()::text || public.my_token_usage(7)::text || public.my_token_alerts()::text), 0, 'a user without an account sees nothing of anybody');
set local request.jwt.claims = '{"role": "authenticated"}';
select throws_ok('select public.my_token_balance()', 'PT401', null, 'a token without a subject is nobody''s');
select throws_ok('select public.my_token_usage(7)', 'PT401', null, 'a token without a subject has no usage');
select throws_ok('select public.my_token_alerts()', 'PT401', null, 'a token without a subject has no alerts');
reset role;
select * from finish();
rollback;
