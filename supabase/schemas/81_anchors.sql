-- Anchors: a daily hash over the whole ledger, kept outside of it.

create function governance.check_anchors(p_account_id bigint)
  returns table (account_id bigint, problem jsonb, rank int, place bigint)
  language plpgsql stable set search_path = '' as $$
begin
  return query
  with anchors as (
    -- A forged anchor may hold anything: what is not a number or not a hash is a mismatch.
    select x.audit_id, x.upto, x.hash, coalesce(lag(x.upto) over w, 0) as after,
      coalesce(lag(x.hash) over w, '') as hash_before,
      lead(x.audit_id) over w is null as is_last
    from (select y.audit_id, case when y.details ->> 'upto' ~ '^[0-9]{1,18}$' then (y.details ->> 'upto')::bigint
      end as upto,
        case when y.details ->> 'hash' ~ '^[0-9a-f]{64}$' then y.details ->> 'hash' end as hash
      from governance.audit_log y where y.action = 'ledger_anchor' and p_account_id is null) x
    window w as (order by x.audit_id)
  
  ), anchor_problems as (
    select a.upto from anchors a cross join lateral (
      select string_agg(t.hash, ''::bytea order by t.transaction_id) as hashes from governance.token_transactions t
      where t.transaction_id > a.after and t.transaction_id <= a.upto) e
    where a.hash is null or a.upto is null or a.hash
      is distinct from encode(sha256(decode(a.hash_before, 'hex') || e.hashes), 'hex')
    union
    select (s.value ->> 'upto')::bigint from governance.maintenance_state s left join anchors a on a.is_last
    where s.key = 'anchored_ledger' and p_account_id is null and s.value ->> 'hash' <> coalesce(a.hash, '')
  
  )
  select null::bigint, jsonb_build_object('problem', 'anchor_mismatch', 'upto', a.upto), 0, a.upto
  from anchor_problems a;
end
$$;
comment on function governance.check_anchors(bigint) is
  'Anchors that do not match the entries they cover. Looks only where all accounts are checked.';

create function governance.anchor_ledger(p_now timestamptz, p_limit int default 100000) returns boolean
  language plpgsql set search_path = '' as $$
declare
  v_day text := (p_now at time zone 'UTC')::date;
  v_state jsonb;
  v_upto bigint;
  v_entries bigint;
  v_hash text;
begin
  select s.value into v_state from governance.maintenance_state s
    where s.key = 'anchored_ledger' and s.value ->> 'day' is distinct from v_day for update skip locked;
  -- Up to the entries that were followed when the last anchor was made, once every transaction that can have had an id
  -- among them has ended.
  if v_state is null or exists (select from pg_snapshot_xip(pg_current_snapshot()) x
    where x < (v_state ->> 'mark_xid')::xid8) then return true; end if;
  select max(x.transaction_id), count(*),
    encode(sha256(decode(v_state ->> 'hash', 'hex') || string_agg(x.hash, ''::bytea order by x.transaction_id)), 'hex')
  into v_upto, v_entries, v_hash
  from (select t.transaction_id, t.hash from governance.token_transactions t
    where t.transaction_id > (v_state ->> 'upto')::bigint and t.transaction_id <= (v_state ->> 'mark')::bigint
      order by t.transaction_id limit p_limit) x;
  if v_entries > 0 then
    v_state := v_state || jsonb_build_object('upto', v_upto, 'hash', v_hash);
    insert into governance.audit_log (created_at, action, details)
    values (p_now, 'ledger_anchor', jsonb_build_object('upto', v_upto, 'entries', v_entries, 'hash', v_hash));
    raise log 'governance: ledger anchor % up to entry %', v_hash, v_upto;
  end if;
  -- A long history is anchored in several rounds.
  if v_entries < p_limit then
    v_state := v_state || jsonb_build_object('day', v_day, 'mark_xid', pg_current_xact_id(),
      'mark', (select (f.value ->> 'consumed')::bigint from governance.maintenance_state f
        where f.key = 'followed_events'));
  end if;
  update governance.maintenance_state s set value = v_state, updated_at = clock_timestamp()
    where s.key = 'anchored_ledger';
  return v_entries < p_limit;
end
$$;
comment on function governance.anchor_ledger(timestamptz, int) is
  'Once a day, anchors what was entered up to the day before: SHA-256 over the anchor before and the hashes of the '
  'entries since, in order of id. Into the audit log, and PostgreSQL''s own.';

create function governance.anchor_json() returns jsonb
  language sql stable set search_path = '' as $$
  select jsonb_build_object('upto', s.value -> 'upto', 'hash', s.value -> 'hash')
  from governance.maintenance_state s where s.key = 'anchored_ledger' and s.value -> 'upto' <> '0'
$$;
comment on function governance.anchor_json() is 'The last anchor of the ledger: upto which entry, and its hash; null '
  'before the first.';
