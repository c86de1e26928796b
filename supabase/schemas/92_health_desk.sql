-- The health desk: the figures behind the checks of console_health, and proving the ledger on request.

create function governance.statements_schema(out schema_name text, out reason text)
  language plpgsql stable set search_path = '' as $$
begin
  select n.nspname into schema_name from pg_catalog.pg_extension e
    join pg_catalog.pg_namespace n on n.oid = e.extnamespace where e.extname = 'pg_stat_statements';
  if schema_name is null then
    reason := 'The extension pg_stat_statements is not installed: create extension pg_stat_statements';
  end if;
end
$$;
comment on function governance.statements_schema() is
  'Where pg_stat_statements is, or why there is none.';

create function governance.slow_functions(out functions jsonb, out reason text)
  language plpgsql stable set search_path = '' as $$
declare
  v_schema text;
begin
  select s.schema_name, s.reason into v_schema, reason from governance.statements_schema() s;
  if v_schema is null then return; end if;
  execute format($sql$
    select coalesce(jsonb_agg(to_jsonb(x) order by x.mean_ms desc, x.function), '[]') from (
      select f.proname as function, sum(s.calls)::bigint as calls,
        round((sum(s.total_exec_time) / greatest(sum(s.calls), 1))::numeric, 2) as mean_ms,
        round(max(s.max_exec_time)::numeric, 2) as max_ms
      from %I.pg_stat_statements s
      join pg_catalog.pg_proc f on f.pronamespace = 'public'::regnamespace
        and f.prosrc like '%%governance.refuse_others(%%'
        and s.query ~ ('\m' || f.proname || '\M')
      where s.dbid = (select d.oid from pg_catalog.pg_database d where d.datname = current_database())
        and s.query !~* '^\s*(create|comment|grant|revoke|alter|drop)\M'
      group by 1 order by 3 desc limit 10) x$sql$, v_schema) into functions;
exception when others then
  -- Not preloaded, or its figures are not for this role: the desk shows why.
  functions := null;
  reason := left(sqlerrm, 300);
end
$$;
comment on function governance.slow_functions() is
  'The ten service functions with the longest mean time by pg_stat_statements: function, calls, mean_ms, max_ms; or '
  'null with the reason.';

create function governance.hold_ages(p_now timestamptz) returns jsonb
  language sql stable set search_path = '' as $$
  with holds as (
    select p_now - r.created_at as age, r.reserved_tokens, r.expires_at < p_now as is_over
    from governance.account_listings l
    join governance.accounts a using (account_id)
    join governance.requests r on r.account_id = a.account_id and r.created_at >= a.holds_from and r.status = 'held'
    where l.reserved > 0
  )
  select jsonb_agg(jsonb_build_object('from_seconds', b.low, 'to_seconds', b.high, 'holds', x.holds,
    'tokens', x.tokens, 'expired', x.expired) order by b.low)
  from (values (0, 60), (60, 600), (600, 3600), (3600, 86400), (86400, null)) b(low, high)
  cross join lateral (select count(*) as holds, coalesce(sum(h.reserved_tokens), 0) as tokens,
      count(*) filter (where h.is_over) as expired
    from holds h where extract(epoch from h.age) >= b.low
      and (b.high is null or extract(epoch from h.age) < b.high)) x
$$;
comment on function governance.hold_ages(timestamptz) is
  'Open holds by age: how many, how many tokens they hold, and how many are past their end.';

create function public.console_health_details() returns jsonb
  language plpgsql stable security definer set search_path = '' set jit = off as $$
declare
  v_now timestamptz := governance.now();
  v_slow record;
begin
  perform governance.refuse_others('console_health_details');
  v_slow := governance.slow_functions();
  return jsonb_build_object(
    'runs', (select coalesce(jsonb_agg(jsonb_build_object('run_id', r.run_id, 'started_at', r.started_at,
        'milliseconds', r.milliseconds, 'counts', r.counts) order by r.run_id desc), '[]')
      from (select * from governance.maintenance_runs m order by m.run_id desc limit 30) r),
    'deliveries', (select jsonb_build_object(
        'queued', count(*) filter (where n.status = 'queued'),
        'due', count(*) filter (where n.status = 'queued' and n.due_at <= v_now),
        'oldest_due_at', min(n.due_at) filter (where n.status = 'queued' and n.due_at <= v_now),
        'failed', count(*) filter (where n.status = 'failed'),
        'sent_today', count(*) filter (where n.status = 'sent' and n.sent_at > v_now - interval '1 day'),
        'last_sent_at', max(n.sent_at))
      from governance.notifications n),
    'guards', (select coalesce(jsonb_agg(jsonb_build_object('backend', q.backend, 'waiting', q.waiting,
        'parked', q.parked, 'oldest_at', q.oldest_at, 'reported_at', q.reported_at)
        order by q.parked + q.waiting desc, q.reported_at desc), '[]')
      from (select * from governance.guard_queues g order by g.parked + g.waiting desc, g.reported_at desc limit 50) q),
    'holds', governance.hold_ages(v_now),
    'waiting', public.console_stuck_holds(50),
    'partitions', (select coalesce(jsonb_agg(jsonb_build_object('name', c.relname,
        'bytes', pg_catalog.pg_total_relation_size(c.oid), 'is_default',
          pg_catalog.pg_get_expr(c.relpartbound, c.oid) = 'DEFAULT') order by c.relname), '[]')
      from pg_catalog.pg_inherits i join pg_catalog.pg_class c on c.oid = i.inhrelid
      where i.inhparent = 'governance.requests'::regclass),
    'rules', (select jsonb_build_object('in_force', count(*) filter (where r.mode = 'enforce'),
        'in_shadow', count(*) filter (where r.mode = 'shadow'),
        'compiled_at', (select s.created_at from governance.rule_sets s
          where s.rule_set_id = (select c.rule_set_id from governance.active_config c)))
      from governance.rules r where r.is_active and r.mode <> 'off' and r.retired_at is null),
    'verified', (select jsonb_build_object('at', a.created_at, 'operator', a.operator,
        'accounts_checked', a.details -> 'accounts_checked', 'entries_checked', a.details -> 'entries_checked',
        'problem_count', a.details -> 'problem_count', 'problems', a.details -> 'problems')
      from governance.audit_log a where a.action = 'verify_ledger' and a.created_at > v_now - interval '400 days'
      order by a.created_at desc limit 1),
    'anchored_at', (select max(a.created_at) from governance.audit_log a where a.action = 'ledger_anchor'
      and a.created_at > v_now - interval '400 days'),
    'database_bytes', pg_catalog.pg_database_size(current_database()),
    'slow_functions', v_slow.functions, 'slow_functions_reason', v_slow.reason);
end
$$;
comment on function public.console_health_details() is
  'The figures behind console_health: upkeep''s last rounds and what they did, deliveries, what backends'' guards '
  'owe, open holds by age, holds and settlements that wait, partitions, rules compiled, who verified the ledger '
  'when, sizes in bytes, slow functions in milliseconds. Reads only.';
revoke all on function public.console_health_details() from public, anon, authenticated;
grant execute on function public.console_health_details() to service_role;

create function public.console_verify_ledger(p_command_id text, p_operator text default null) returns jsonb
  language plpgsql security definer set search_path = '' set jit = off as $$
declare
  v_answer jsonb;
  v_found jsonb;
begin
  perform governance.refuse_others('console_verify_ledger');
  perform governance.check_id('p_command_id', p_command_id);
  perform governance.check_optional('p_operator', p_operator, 255);
  v_answer := governance.begin_command('operator', p_command_id, row('verify_ledger', p_operator)::text);
  if v_answer is not null then return v_answer; end if;
  v_found := public.verify_ledger();
  v_answer := jsonb_build_object('accounts_checked', v_found -> 'accounts_checked',
    'entries_checked', v_found -> 'entries_checked', 'problem_count', jsonb_array_length(v_found -> 'problems'),
    'problems', (select coalesce(jsonb_agg(x), '[]') from (select x from jsonb_array_elements(v_found -> 'problems')
      with ordinality p(x, n) order by n limit 20) p));
  insert into governance.audit_log (created_at, operator, action, command_id, details)
  values (governance.now(), p_operator, 'verify_ledger', p_command_id, v_answer);
  return governance.end_command('operator', p_command_id, v_answer);
end
$$;
comment on function public.console_verify_ledger(text, text) is
  'Verifies the whole ledger now and keeps in the audit who did and what was found: accounts_checked, '
  'entries_checked, problem_count, the first 20 problems. Errors: invalid_argument, idempotency_conflict.';
revoke all on function public.console_verify_ledger(text, text) from public, anon, authenticated;
grant execute on function public.console_verify_ledger(text, text) to service_role;
