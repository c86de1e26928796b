-- What a cursor of the feed is made of: the history of a database, and how far its transactions have ended.

create function governance.feed_low_id(p_since timestamptz) returns bigint
  language plpgsql stable set search_path = '' as $$
declare
  v_low bigint := 0;
  v_high bigint;
  v_mid bigint;
  v_at timestamptz;
begin
  -- Ids follow time closely: halve until the first call at or after the moment.
  select max(r.decision_id) into v_high from governance.requests r;
  v_high := coalesce(v_high, 0);
  while v_low < v_high loop
    v_mid := (v_low + v_high) / 2;
    select r.created_at into v_at from governance.requests r where r.decision_id > v_mid order by r.decision_id limit 1;
    if v_at is null or v_at >= p_since then v_high := v_mid; else v_low := v_mid + 1; end if;
  end loop;
  return v_low;
end
$$;
comment on function governance.feed_low_id(timestamptz) is 'An id at or before the first call since a moment.';

create function governance.ended_below(p_bound xid8, p_snapshot pg_snapshot) returns boolean
  language sql immutable set search_path = '' as $$
  select p_bound > '0'::xid8 and pg_snapshot_xmax(p_snapshot) >= p_bound
    and not exists (select from pg_snapshot_xip(p_snapshot) x where x < p_bound)
$$;
comment on function governance.ended_below(xid8,
  pg_snapshot) is 'Whether every transaction with a number below the bound had ended when the snapshot was taken; '
    'false for no bound.';

create function governance.history_id() returns text
  language plpgsql stable set search_path = '' as $$
begin
  -- Another cluster, or another line of the same one since it was restored to a moment or a standby took over.
  return (select to_hex(s.system_identifier) || ':' || c.timeline_id
    from pg_catalog.pg_control_system() s cross join pg_catalog.pg_control_checkpoint() c);
exception when insufficient_privilege or undefined_function or feature_not_supported then
  return '';
end
$$;
comment on function governance.history_id() is
  'The history of transactions that this server writes; empty where the server does not tell.';

create function governance.event_mark(p_id bigint) returns text
  language sql stable set search_path = '' as $$
  -- The last event up to an id: its id, time and transaction number, which together no other history has. 0 for none.
  select coalesce((select e.id || ':' || extract(epoch from e.created_at) || ':' || e.xid from (
    (select r.decision_id as id, r.created_at, r.xid from governance.requests r
      where r.decision_id <= p_id order by r.decision_id desc limit 1)
    union all
    (select t.transaction_id, t.created_at, t.xid from governance.token_transactions t
      where t.transaction_id <= p_id order by t.transaction_id desc limit 1)
    union all
    (select h.event_id, h.created_at, h.xid from governance.hold_events h
      where h.event_id <= p_id order by h.event_id desc limit 1)) e
    order by e.id desc limit 1), '0')
$$;
comment on function governance.event_mark(bigint) is
  'The last event up to an id, as a cursor keeps it: its id, its time and the number of its transaction.';
