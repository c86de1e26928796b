-- Whether all is well: what npm run doctor and the health desk ask.

create function governance.health_of_upkeep() returns jsonb
  language plpgsql stable set search_path = '' as $$
declare
  v_now timestamptz := governance.now();
  v_real timestamptz := clock_timestamp();
  v_upkeep timestamptz;
  v_texts text[];
  v_day interval := interval '1 day';
  v_checks jsonb := '[]';
begin
  select s.updated_at into v_upkeep from governance.maintenance_state s where s.key = 'rounds';
  v_checks := v_checks || governance.health('upkeep',
    case when v_upkeep = 'infinity' then 'Upkeep never ran'
      when v_upkeep < v_real - interval '5 minutes' then format('Upkeep last ran %s ago',
        date_trunc('minute', v_real - v_upkeep)) end,
    format('Upkeep ran at %s', v_upkeep), 'Have run_maintenance called every minute: docs/guides/admin.md');

  select array_agg(distinct coalesce(e.details ->> 'step', a.user_id)) into v_texts
  from governance.alert_events e left join governance.accounts a using (account_id)
  where e.kind in ('upkeep_failed', 'maintenance_failed') and e.created_at > v_now - v_day;
  v_checks := v_checks || governance.health('upkeep_failures',
    'Upkeep failed within a day at: ' || array_to_string(v_texts[1:10], ', '),
    'No step of upkeep failed within a day',
    'Read the alerts upkeep_failed and maintenance_failed: each has its error');
  return v_checks;
end
$$;
comment on function governance.health_of_upkeep() is
  'Checks of console_health: whether upkeep runs, and what failed in it.';

create function governance.health_of_rights() returns jsonb
  language plpgsql stable set search_path = '' as $$
declare
  v_count bigint;
  v_text text;
  v_texts text[];
  v_checks jsonb := '[]';
begin
  select count(*), min(d.object || ' by ' || d.role) into v_count, v_text from governance.open_doors() d;
  v_checks := v_checks || governance.health('doors',
    case when v_count > 0 then format('%s rights on what is for the service alone are open, such as %s', v_count,
      v_text) end,
    'anon and authenticated may use nothing that is for the service', 'Close them: npm run doctor -- --url URL --fix');

  select count(*) into v_count from pg_catalog.pg_proc p
  where p.pronamespace = 'public'::regnamespace and p.prosrc like '%governance.refuse_others(%'
    and not has_function_privilege('service_role', p.oid, 'execute');
  v_checks := v_checks || governance.health('service_grants',
    case when v_count > 0 then format('The service may not call %s of its functions', v_count) end,
    'The service may call all its functions', 'Grant them: npm run migrate, or npm run doctor -- --url URL --fix');

  v_texts := array(select c.relname from pg_catalog.pg_class c where c.relnamespace = 'governance'::regnamespace
    and c.relkind in ('r', 'p') and not c.relrowsecurity order by 1);
  v_checks := v_checks || governance.health('row_level_security',
    'Row level security is off for: ' || nullif(array_to_string(v_texts, ', '), ''),
    'Row level security is on for every table', 'alter table governance.<table> enable row level security');

  v_texts := array(select c.relname || '.' || t.tgname from pg_catalog.pg_trigger t
    join pg_catalog.pg_class c on c.oid = t.tgrelid
    where c.relnamespace = 'governance'::regnamespace and t.tgenabled not in ('O', 'A') order by 1);
  v_checks := v_checks || governance.health('triggers',
    'Triggers are disabled: ' || nullif(array_to_string(v_texts, ', '), ''),
    'Every trigger is enabled', 'alter table governance.<table> enable trigger <trigger>, then find who disabled it');

  v_texts := array(select i.indexrelid::regclass::text from pg_catalog.pg_index i
    join pg_catalog.pg_class c on c.oid = i.indrelid
    where c.relnamespace = 'governance'::regnamespace and not (i.indisvalid and i.indisready) order by 1);
  v_checks := v_checks || governance.health('indexes',
    'Indexes are not valid: ' || nullif(array_to_string(v_texts, ', '), ''),
    'Every index is valid', 'reindex index <index>');

  v_checks := v_checks || governance.health('realtime',
    case when governance.lacks_publication() then
      'Realtime does not carry the wake-ups: screens learn of news late' end,
    'Realtime carries the wake-ups, or is not installed',
    'npm run doctor -- --url URL --fix, or as the publication''s owner: alter publication supabase_realtime add table '
      'governance.signals');
  return v_checks;
end
$$;
comment on function governance.health_of_rights() is
  'Checks of console_health: who may do what, and whether tables, triggers and indexes are as they were made.';

create function governance.health_of_work() returns jsonb
  language plpgsql stable set search_path = '' as $$
declare
  v_now timestamptz := governance.now();
  v_count bigint;
  v_since timestamptz;
  v_texts text[];
  v_checks jsonb := '[]';
begin
  select array_agg(to_char(g, 'YYYY-MM') order by g) into v_texts
  from generate_series(date_trunc('month', v_now at time zone 'UTC'),
    date_trunc('month', v_now at time zone 'UTC') + interval '2 months', interval '1 month') g
  where to_regclass('governance.requests_' || to_char(g, 'YYYY_MM')) is null;
  v_checks := v_checks || governance.health('months_ahead',
    'Calls have no partition for: ' || array_to_string(v_texts, ', '),
    'Partitions for the next months are there', 'Run upkeep; if it does not help, read its alerts');

  select count(*) into v_count from (select from governance.requests_default limit 100000) x;
  v_checks := v_checks || governance.health('default_partition',
    case when v_count > 0 then format('%s calls are in the default partition: upkeep was away for long', v_count) end,
    'No call is in the default partition', 'Calls go on and nothing is lost; retention clears it');

  select count(*), min(n.due_at) into v_count, v_since from governance.notifications n
  where n.status = 'queued' and n.due_at < v_now - interval '5 minutes';
  v_checks := v_checks || governance.health('deliveries',
    case when v_count > 0 then format('%s messages are due since %s and nobody takes them', v_count, v_since) end,
    'No message is overdue', 'Run npm run deliver every minute, or deploy the Edge Function: docs/guides/admin.md');

  select count(*) into v_count from governance.notifications n join governance.alert_events e using (alert_event_id)
  where n.status = 'failed' and e.acknowledged_at is null;
  v_checks := v_checks || governance.health('failed_deliveries',
    case when v_count > 0 then format('%s messages were given up', v_count) end,
    'No message was given up', 'Look at last_error on the alerts desk, mend the address or channel, and send again');

  select count(*), min(l.holds_check_at) into v_count, v_since from governance.account_listings l
  where l.holds_check_at < v_now - interval '10 minutes';
  v_checks := v_checks || governance.health('holds',
    case when v_count > 0 then format('%s accounts have holds that expired since %s and were not given back', v_count,
      v_since) end,
    'No expired hold waits', 'Run upkeep; calls give them back too');

  select count(*) into v_count from governance.hold_events h join governance.requests r using (decision_id)
  where h.kind = 'quarantined' and r.status = 'quarantined';
  v_checks := v_checks || governance.health('settlements',
    case when v_count > 0 then format('%s settlements above the ceiling wait for a person', v_count) end,
    'No settlement waits for a person', 'Decide them on the alerts desk');

  select count(*), min(w.received_at) into v_count, v_since from governance.webhook_events_processed w
  where w.status = 'quarantined';
  v_checks := v_checks || governance.health('stripe_events',
    case when v_count > 0 then format('%s Stripe events wait for a person, the oldest since %s', v_count, v_since) end,
    'No Stripe event waits for a person', 'Release or dismiss them on the finance desk');
  return v_checks;
end
$$;
comment on function governance.health_of_work() is
  'Checks of console_health: what waits, for upkeep, for a sender or for a person.';

create function governance.health_of_books() returns jsonb
  language plpgsql stable set search_path = '' as $$
declare
  v_now timestamptz := governance.now();
  v_real timestamptz := clock_timestamp();
  v_count bigint;
  v_since timestamptz;
  v_day interval := interval '1 day';
  v_checks jsonb := '[]';
begin
  select count(*) into v_count from governance.alert_events e
  where e.kind = 'rollup_mismatch' and e.acknowledged_at is null;
  v_checks := v_checks || governance.health('rollups',
    case when v_count > 0 then format('The counters of %s accounts and their roll-up differ', v_count) end,
    'Counters and roll-up agree', 'Run verify_ledger for these users and find who changed the tables');

  select max(l.created_at) into v_since from governance.audit_log l where l.action = 'ledger_anchor';
  -- The first anchor is made the day after upkeep first looked: what counts is that it looks.
  select count(*) into v_count from (select from governance.token_transactions t
    where t.created_at < v_now - 3 * v_day limit 1) x
  where not exists (select from governance.maintenance_state s where s.key = 'anchored_ledger'
    and (s.value ->> 'day')::date >= (v_now at time zone 'UTC')::date - 3);
  v_checks := v_checks || governance.health('ledger_anchor',
    case when v_count > 0 then
      format('The ledger was last anchored at %s', coalesce(v_since::text, 'no time')) end,
    'The ledger is anchored daily', 'Run upkeep: it anchors once a day');

  select count(*) into v_count from (
    select r.version_id from governance.rules r where r.is_active and r.mode <> 'off' and r.retired_at is null
    except select v from governance.rule_sets s cross join unnest(s.version_ids) v
      where s.rule_set_id = (select c.rule_set_id from governance.active_config c)) x;
  v_checks := v_checks || governance.health('rules',
    case when v_count > 0 then format('%s rules in force are not compiled: calls do not see them', v_count)
      when to_regproc('governance.rules_match') is null or to_regproc('governance.evaluate_rules') is null then
        'The compiled rules are gone' end,
    'Every rule in force is compiled', 'Save any rule again, or apply the preset');

  v_checks := v_checks || governance.health('configuration',
    case when not exists (select from governance.active_config c join governance.plans p on p.plan_id = c.default_plan
      where p.retired_at is null) then 'There is no default plan: no call of a new user can be decided' end,
    'There is a default plan', 'Apply a preset: npm run migrate -- --database-url URL --preset NAME');

  select (s.value ->> 'consumed')::bigint, (s.value ->> 'mark_at')::timestamptz into v_count, v_since
  from governance.maintenance_state s where s.key = 'followed_events';
  v_checks := v_checks || governance.health('lists',
    case when v_count < (select e.last_value from governance.event_ids e where e.is_called)
      and v_since < v_real - interval '10 minutes' then
      format('Lists and charts lack what happened since %s', v_since) end,
    'Lists and charts are up to date', 'Run upkeep; a transaction that is open for long keeps them back');

  v_checks := v_checks || governance.health('clock',
    (select case when c.test_clock_at is not null or c.test_clock_offset is not null then
      format('A test clock is set: the project believes it is %s', v_now) end from governance.active_config c),
    'The server''s own clock is used', 'select governance.set_test_clock(null)');

  select greatest(pg_catalog.age(d.datfrozenxid), 0) into v_count from pg_catalog.pg_database d
  where d.datname = current_database();
  v_checks := v_checks || governance.health('transaction_ids',
    case when v_count > 1500000000 then
      format('%s transactions since the last freeze: the server will stop at 2 billion', v_count) end,
    'Transaction numbers are not running out', 'Find what keeps autovacuum from freezing; run vacuum (freeze)');
  return v_checks;
end
$$;
comment on function governance.health_of_books() is
  'Checks of console_health: whether books, rules, lists and clock are right.';

create function public.console_health() returns jsonb
  language plpgsql stable security definer set search_path = '' set jit = off as $$
declare
  v_checks jsonb;
begin
  perform governance.refuse_others('console_health');
  v_checks := governance.health_of_upkeep() || governance.health_of_rights() || governance.health_of_work()
    || governance.health_of_guards() || governance.health_of_books();
  return jsonb_build_object('checks', v_checks, 'server_time', clock_timestamp(),
    'is_well', not v_checks @> '[{"ok": false}]',
    'sizes', (select jsonb_object_agg(x.name, x.bytes) from (
      select c.relname::text as name,
        sum(pg_catalog.pg_total_relation_size(coalesce(i.inhrelid, c.oid)))::bigint as bytes
      from pg_catalog.pg_class c left join pg_catalog.pg_inherits i on i.inhparent = c.oid
      where c.relnamespace = 'governance'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
      group by 1 order by 2 desc limit 10) x));
end
$$;
comment on function public.console_health() is
  'Whether the project is well: checks, each {check, ok, found, advice}; is_well; server_time; sizes of the largest '
  'tables in bytes. Reads only.';
revoke all on function public.console_health() from public, anon, authenticated;
grant execute on function public.console_health() to service_role;

create function governance.health(p_check text, p_trouble text, p_sound text, p_advice text) returns jsonb
  language sql immutable set search_path = '' as $$
  select jsonb_build_object('check', p_check, 'ok', p_trouble is null, 'found', coalesce(p_trouble, p_sound), 'advice',
    case when p_trouble is not null then p_advice end)
$$;
comment on function governance.health(text, text, text, text) is
  'One check of console_health. It is ok where p_trouble is null, and then says p_sound.';
