-- Seals: a chain of hashes over the audit log, so that an entry that was changed, taken out or put in is noticed.

create table governance.audit_seals (
  seal_id bigint generated always as identity primary key,
  sealed_at timestamptz not null,
  -- Entries after this one, up to that one.
  after_id bigint not null,
  upto bigint not null,
  entries int not null,
  -- SHA-256 over the seal before and the hashes of its entries.
  hash text not null
);

comment on table governance.audit_seals is 'Hashes over the audit log, each over the one before; append-only.';

create trigger audit_seals_append_only before update or delete or truncate on governance.audit_seals
  for each statement execute function governance.refuse_change();

create function governance.audit_hash(p_before text, p_after_id bigint, p_upto bigint, out entries int, out hash text)
  language sql stable set search_path = '' as $$
  select count(*)::int, encode(sha256(decode(p_before, 'hex') || coalesce(string_agg(sha256(convert_to(
    jsonb_build_array(g.audit_id, extract(epoch from g.created_at), g.operator, g.action, g.account_id, g.rule_name,
      g.reason, g.command_id, g.device, g.details)::text, 'UTF8')), ''::bytea order by g.audit_id), '')), 'hex')
  from governance.audit_log g where g.audit_id > p_after_id and g.audit_id <= p_upto
$$;
comment on function governance.audit_hash(text, bigint, bigint) is
  'How many entries of the audit log there are after one and up to another, and their hash over the one before.';

create function governance.seal_audit(p_now timestamptz, p_limit int default 20000) returns boolean
  language plpgsql set search_path = '' as $$
declare
  v_state jsonb;
  v_upto bigint;
  v_entries int := 0;
  v_hash text;
begin
  select s.value into v_state from governance.maintenance_state s where s.key = 'sealed_audit' for update skip locked;
  -- Up to the entries that were there the last time, once every transaction that can have a number among them ended.
  if v_state is null or exists (select from pg_snapshot_xip(pg_current_snapshot()) x
    where x < (v_state ->> 'mark_xid')::xid8) then return true; end if;
  select max(x.audit_id) into v_upto from (select g.audit_id from governance.audit_log g
    where g.audit_id > (v_state ->> 'upto')::bigint and g.audit_id <= (v_state ->> 'mark')::bigint
    order by g.audit_id limit p_limit) x;
  if v_upto is not null then
    select f.entries, f.hash into v_entries, v_hash
    from governance.audit_hash(v_state ->> 'hash', (v_state ->> 'upto')::bigint, v_upto) f;
    insert into governance.audit_seals (sealed_at, after_id, upto, entries, hash)
    values (p_now, (v_state ->> 'upto')::bigint, v_upto, v_entries, v_hash);
    v_state := v_state || jsonb_build_object('upto', v_upto, 'hash', v_hash);
  end if;
  if v_entries < p_limit then
    v_state := v_state || jsonb_build_object('mark_xid', pg_current_xact_id(),
      'mark', (select coalesce(max(g.audit_id), 0) from governance.audit_log g));
  end if;
  update governance.maintenance_state s set value = v_state, updated_at = clock_timestamp()
  where s.key = 'sealed_audit';
  return v_entries < p_limit;
end
$$;
comment on function governance.seal_audit(timestamptz, int) is
  'Seals the entries of the audit log that were there at the last round; false while there are more.';

create function public.console_verify_audit(p_command_id text, p_operator text default null) returns jsonb
  language plpgsql security definer set search_path = '' set jit = off as $$
declare
  v_answer jsonb;
begin
  perform governance.refuse_others('console_verify_audit');
  perform governance.check_id('p_command_id', p_command_id);
  perform governance.check_optional('p_operator', p_operator, 255);
  v_answer := governance.begin_command('operator', p_command_id, row('verify_audit', p_operator)::text);
  if v_answer is not null then return v_answer; end if;
  -- The first marks what is there now, the second seals it, unless a transaction is under way.
  perform governance.seal_audit(governance.now());
  perform governance.seal_audit(governance.now());
  with seals as (
    select s.*, lag(s.hash, 1, '') over w as before, lag(s.upto, 1, 0::bigint) over w as upto_before,
      lead(s.seal_id) over w is null as is_last
    from governance.audit_seals s window w as (order by s.seal_id)
  ), checked as (
    select s.*, f.entries as found, f.hash is distinct from s.hash or s.after_id <> s.upto_before as is_wrong
    from seals s cross join lateral governance.audit_hash(s.before, s.after_id, s.upto) f
  ), problems as (
    select c.seal_id, jsonb_build_object('seal_id', c.seal_id, 'sealed_at', c.sealed_at, 'after_id', c.after_id, 'upto',
      c.upto, 'entries', c.entries, 'found', c.found) as problem
    from checked c where c.is_wrong
    union all
    -- Seals that were taken from the end.
    select 9223372036854775807, jsonb_build_object('seal_id', null, 'sealed_at', null, 'after_id',
      coalesce(l.upto, 0), 'upto', (s.value ->> 'upto')::bigint, 'entries', null, 'found', null)
    from governance.maintenance_state s left join checked l on l.is_last
    where s.key = 'sealed_audit' and s.value ->> 'hash' <> coalesce(l.hash, '')
  )
  select jsonb_build_object(
    'entries_checked', (select coalesce(sum(c.found), 0) from checked c), 'seals', (select count(*) from checked),
    'problem_count', (select count(*) from problems),
    'problems', (select coalesce(jsonb_agg(p.problem order by p.seal_id), '[]')
      from (select * from problems order by seal_id limit 20) p),
    'upto', (select max(c.upto) from checked c), 'hash', (select c.hash from checked c where c.is_last),
    'unsealed', (select count(*) from governance.audit_log g
      where g.audit_id > coalesce((select max(c.upto) from checked c), 0)))
  into v_answer;
  insert into governance.audit_log (created_at, operator, action, command_id, details)
  values (governance.now(), p_operator, 'verify_audit', p_command_id, v_answer);
  return governance.end_command('operator', p_command_id, v_answer);
end
$$;
comment on function public.console_verify_audit(text, text) is
  'Checks the audit log against its seals, and keeps in it who did and what was found: entries_checked, seals, '
  'problem_count, the first 20 problems (entries after after_id up to upto are not those that were sealed), the last '
  'hash, and how many of the newest entries are not sealed yet. Errors: invalid_argument, idempotency_conflict.';
revoke all on function public.console_verify_audit(text, text) from public, anon, authenticated;
grant execute on function public.console_verify_audit(text, text) to service_role;
