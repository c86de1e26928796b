-- Events in the order in which they became visible.

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
comment on function governance.history_id() is 'Which history of transactions this server writes; empty where it does '
  'not say.';

create function governance.event_mark(p_id bigint) returns text
  language sql stable set search_path = '' as $$
  -- The last event up to an id, by what no other history has in its place; 0 for none.
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
comment on function governance.event_mark(bigint) is 'The last event up to an id, as a cursor keeps it: id, when, and '
  'number of its transaction.';

create function public.usage_events_since(p_cursor text default null, p_limit int default 500,
  p_filter jsonb default '{}') returns jsonb
  language plpgsql stable security definer set search_path = '' set jit = off as $$
declare
  -- A cursor says what its reader has: every event up to low, all that was visible in base, and, while it pages
  -- through what is visible in page, those of them up to after. base_high and page_high are the highest ids visible
  -- then. So an event whose transaction commits late is new to every reader, whatever its id, and nothing comes twice.
  -- base_bound and page_bound are above every transaction number that was given out when those highest ids were read
  -- (0 where that is not known): a snapshot's own xmax is not.
  -- After a restore the history is another one, and its transaction numbers mean nothing in a kept cursor. So a cursor
  -- also names the history that it is of, the last event up to low, and the last one up to the highest id it has seen.
  v_low bigint := 0;
  v_base pg_snapshot;
  v_base_high bigint := 0;
  v_base_bound xid8 := '0';
  v_page pg_snapshot;
  v_page_high bigint := 0;
  v_page_bound xid8 := '0';
  v_after bigint := 0;
  v_now pg_snapshot := pg_current_snapshot();
  v_now_high bigint;
  v_now_bound xid8 := '0';
  v_history text := replace(governance.history_id(), '.', '');
  v_low_mark text := '0';
  v_high_mark text := '0';
  v_seen_id bigint;
  v_seen_at timestamptz;
  v_restarted_after bigint;
  v_has_xid boolean := pg_is_in_recovery() or pg_current_xact_id_if_assigned() is not null;
  v_parts text[];
  v_key text;
  v_account_id bigint;
  v_decision text;
  v_reason text;
  v_model text;
  v_kinds text[];
  v_since timestamptz;
  v_facts boolean := false;
  v_ids bigint[];
  v_all_ids bigint[] := '{}';
  v_room int;
  v_events jsonb;
begin
  perform governance.refuse_others('usage_events_since');
  if p_limit is null or p_limit not between 1 and 5000 then
    perform governance.fail('PT400', 'invalid_argument', 'p_limit is a whole number from 1 to 5000');
  end if;
  if coalesce(jsonb_typeof(p_filter), 'object') <> 'object' then
    perform governance.fail('PT400', 'invalid_argument', 'p_filter is a JSON object');
  end if;
  for v_key in select jsonb_object_keys(coalesce(p_filter, '{}')) loop
    if v_key not in ('user_id', 'decision', 'reason', 'model', 'kinds', 'since', 'facts') then
      perform governance.fail('PT400', 'invalid_argument',
        format('p_filter.%s is unknown: user_id, decision, reason, model, kinds, since, facts are', left(v_key, 64)));
    end if;
  end loop;
  v_decision := p_filter ->> 'decision';
  v_reason := p_filter ->> 'reason';
  v_model := p_filter ->> 'model';
  v_facts := coalesce(p_filter -> 'facts', 'false') = 'true';
  begin
    v_since := (p_filter ->> 'since')::timestamptz;
    if coalesce(p_filter -> 'kinds', 'null') <> 'null' then
      v_kinds := array(select jsonb_array_elements_text(p_filter -> 'kinds'));
    end if;
    if p_cursor is not null and p_cursor <> 'now' then
      v_parts := string_to_array(p_cursor, '.');
      if v_parts[1] <> '3' or cardinality(v_parts) <> 12 then
        raise exception using errcode = 'invalid_text_representation';
      end if;
      v_low := v_parts[2]::bigint;
      v_base := nullif(v_parts[3], '-')::pg_snapshot;
      v_base_high := v_parts[4]::bigint;
      v_page := nullif(v_parts[5], '-')::pg_snapshot;
      v_page_high := v_parts[6]::bigint;
      v_after := v_parts[7]::bigint;
      v_base_bound := v_parts[8]::xid8;
      v_page_bound := v_parts[9]::xid8;
      v_low_mark := replace(v_parts[11], '_', '.');
      v_high_mark := replace(v_parts[12], '_', '.');
      v_seen_id := split_part(v_high_mark, ':', 1)::bigint;
      v_seen_at := to_timestamp(nullif(split_part(v_high_mark, ':', 2), '')::float8);
    end if;
  exception when data_exception then
    perform governance.fail('PT400', 'invalid_argument',
      'p_cursor is null, "now", or a next_cursor as it was answered; p_filter.since is a moment, p_filter.kinds a '
      'list');
  end;
  if p_filter ->> 'user_id' is not null then
    select a.account_id into v_account_id from governance.accounts a where a.user_id = p_filter ->> 'user_id';
    if v_account_id is null then
      -- Nobody of that name yet: nothing has happened, and the reader keeps its place.
      v_account_id := -1;
    end if;
  end if;
  select greatest((select max(r.decision_id) from governance.requests r),
    (select max(t.transaction_id) from governance.token_transactions t),
    (select max(h.event_id) from governance.hold_events h), 0) into v_now_high;
  -- Writers have their number before their event id. So whoever took an id up to the highest has a number below the one
  -- that this transaction takes now.
  if not v_has_xid then
    v_now_bound := pg_current_xact_id();
  end if;
  if v_parts is not null then
    if pg_is_in_recovery() and split_part(v_parts[10], ':', 1) = split_part(v_history, ':', 1) then
      -- A standby may be behind the reader: whether the history is another one is for the primary to say.
      v_history := v_parts[10];
    elsif v_parts[10] <> v_history or (not pg_is_in_recovery()
      and (greatest(pg_snapshot_xmax(v_base), pg_snapshot_xmax(v_page)) > greatest(pg_snapshot_xmax(v_now), v_now_bound)
      -- Retention may have dropped the event; nothing else does.
      or (governance.event_mark(v_seen_id) <> v_high_mark and v_seen_at > governance.now()
        - interval '1 day' * (select c.decision_retention_days - 1 from governance.active_config c))))
    then
      -- What the reader has up to low is in this history too where the event at low is; else all of it comes again.
      if v_low_mark = '0' or governance.event_mark(v_low) <> v_low_mark then
        v_low := case when v_since is null then 0 else governance.feed_low_id(v_since - interval '1 hour') end;
      end if;
      v_base := null;
      v_base_high := 0;
      v_base_bound := '0';
      v_page := null;
      v_after := 0;
      v_restarted_after := v_low;
    end if;
  end if;
  if p_cursor = 'now' then
    -- Transactions that began more than an hour ago are not waited for.
    v_low := governance.feed_low_id(governance.now() - interval '1 hour');
    return jsonb_build_object('events', '[]'::jsonb, 'next_cursor',
      format('3.%s.%s.%s.-.0.0.%s.0.%s.%s.%s', v_low, v_now, v_now_high, v_now_bound, v_history,
        replace(governance.event_mark(v_low), '.', '_'), replace(governance.event_mark(v_now_high), '.', '_')),
      'restarted_after', null);
  end if;
  if p_cursor is null and v_since is not null then
    v_low := governance.feed_low_id(v_since - interval '1 hour');
  end if;

  loop
    if v_page is null then
      v_page := v_now;
      v_page_high := v_now_high;
      v_page_bound := v_now_bound;
      v_after := v_low;
    end if;
    v_room := p_limit - cardinality(v_all_ids);
    select array_agg(e.id order by e.id) into v_ids from (
      select u.id from (
        (select r.decision_id as id from governance.requests r
          where r.decision_id > v_after
            and (pg_visible_in_snapshot(r.xid, v_page) or r.xid >= pg_snapshot_xmax(v_now))
            and (v_base is null or not (pg_visible_in_snapshot(r.xid, v_base) or r.xid >= pg_snapshot_xmax(v_now)))
            and (v_account_id is null or r.account_id = v_account_id)
              and (v_decision is null or r.decision = v_decision)
            and (v_reason is null or r.reason = v_reason)
              and (v_model is null or r.model = v_model or r.requested_model = v_model)
            and (v_since is null or r.created_at >= v_since)
            and (v_kinds is null or case when r.decision = 'block' then 'blocked' else 'authorized' end = any (v_kinds))
          order by r.decision_id limit v_room)
        union all
        (select t.transaction_id from governance.token_transactions t
          where t.transaction_id > v_after and t.transaction_type = 'usage' and t.decision_id is not null
            and (pg_visible_in_snapshot(t.xid, v_page) or t.xid >= pg_snapshot_xmax(v_now))
            and (v_base is null or not (pg_visible_in_snapshot(t.xid, v_base) or t.xid >= pg_snapshot_xmax(v_now)))
            and (v_account_id is null or t.account_id = v_account_id) and (v_since is null or t.created_at >= v_since)
            and (v_kinds is null or 'settled' = any (v_kinds))
            and ((v_decision is null and v_reason is null and v_model is null) or exists (
              select from governance.requests r
                where r.decision_id = t.decision_id and (v_decision is null or r.decision = v_decision)
                and (v_reason is null or r.reason = v_reason)
                  and (v_model is null or r.settled_model = v_model or r.requested_model = v_model)))
          order by t.transaction_id limit v_room)
        union all
        (select h.event_id from governance.hold_events h
          where h.event_id > v_after
            and (pg_visible_in_snapshot(h.xid, v_page) or h.xid >= pg_snapshot_xmax(v_now))
            and (v_base is null or not (pg_visible_in_snapshot(h.xid, v_base) or h.xid >= pg_snapshot_xmax(v_now)))
            and (v_account_id is null or h.account_id = v_account_id) and (v_since is null or h.created_at >= v_since)
            and (v_kinds is null or h.kind = any (v_kinds))
            and ((v_decision is null and v_reason is null and v_model is null) or exists (
              select from governance.requests r
                where r.decision_id = h.decision_id and (v_decision is null or r.decision = v_decision)
                and (v_reason is null or r.reason = v_reason)
                  and (v_model is null or r.model = v_model or r.requested_model = v_model)))
          order by h.event_id limit v_room)
      ) u order by u.id limit v_room
    ) e;
    v_all_ids := v_all_ids || coalesce(v_ids, '{}');
    if cardinality(v_ids) = v_room then
      v_after := v_ids[v_room];
      exit;
    end if;
    -- All that page shows is delivered: it becomes the base. Where every transaction below a bound had ended by then,
    -- nothing can come any more at or below the highest id that goes with it.
    if governance.ended_below(v_page_bound, v_page) then
      v_low := greatest(v_low, v_page_high);
    elsif governance.ended_below(v_base_bound, v_page) then
      v_low := greatest(v_low, v_base_high);
    end if;
    v_base := v_page;
    v_base_high := v_page_high;
    v_base_bound := v_page_bound;
    if v_page::text = v_now::text then
      v_page := null;
      v_after := 0;
      exit;
    end if;
    v_page := null;
  end loop;

  select coalesce(jsonb_agg(e.event || case
    when v_facts and e.event ->> 'kind' in ('authorized', 'blocked') then e.facts else '{}' end order by e.id), '[]')
    into v_events
  from (
    select i.id,
      case when q.decision_id = i.id and t.transaction_id is null then
        jsonb_build_object('facts', governance.facts_json(q),
          'plan', (select jsonb_build_object('monthly_allowance', p.monthly_allowance, 'daily_limit', q.daily_limit,
            'monthly_limit', q.monthly_limit) from governance.plans p where p.plan_id = q.plan_id),
          'local_day', (q.created_at at time zone a.timezone)::date, 'matched',
            governance.rule_names(q.matched_version_ids, 'enforce')) end as facts,
      jsonb_build_object(
        'event_id', i.id,
        'kind', case when t.transaction_id is not null then 'settled' when h.event_id is not null then h.kind
          when q.decision = 'block' then 'blocked' else 'authorized' end,
        'at', coalesce(t.created_at, h.created_at, q.created_at),
        'request_id', coalesce(q.request_id, t.reference), 'decision_id',
          coalesce(q.decision_id, t.decision_id, h.decision_id),
        'user_id', a.user_id, 'display_name', a.display_name, 'plan_id', coalesce(q.plan_id, a.plan_id),
        'decision', q.decision, 'reason', case when h.event_id is not null then h.reason
          else q.reason end, 'http_status', q.http_status,
        'requested_model', q.requested_model, 'model', case
          when t.transaction_id is not null then coalesce(q.settled_model, q.model) else q.model end,
        'task_type', q.task_type, 'scope_id', q.scope_id, 'conversation_id', q.conversation_id,
        'tokens', case when t.transaction_id is not null then coalesce(q.charged_tokens, -t.amount)
          when h.event_id is not null then h.tokens
          when q.decision = 'block' then (q.facts).estimated_tokens else q.reserved_tokens end,
        'input_tokens', case when t.transaction_id is not null then q.input_tokens end,
        'output_tokens', case when t.transaction_id is not null then q.output_tokens end,
        'cost_micros', case when t.transaction_id is not null then q.cost_micros end,
        'currency', case when t.transaction_id is not null then q.currency end,
        'warnings', coalesce(to_jsonb(q.warnings), '[]'),
        'rule_name', (select v.rule_name from governance.rule_versions v where v.version_id = q.rule_version_id),
        'rule_names', governance.rule_names(q.matched_version_ids)) as event
    from unnest(v_all_ids) i(id)
    left join governance.token_transactions t on t.transaction_id = i.id
    left join governance.hold_events h on h.event_id = i.id
    left join governance.requests q on q.decision_id = coalesce(t.decision_id, h.decision_id, i.id)
    join governance.accounts a on a.account_id = coalesce(t.account_id, h.account_id, q.account_id)
  ) e;
  return jsonb_build_object('events', v_events,
    'next_cursor', format('3.%s.%s.%s.%s.%s.%s.%s.%s.%s.%s.%s', v_low, coalesce(v_base::text, '-'), v_base_high,
      coalesce(v_page::text, '-'), v_page_high, v_after, v_base_bound, v_page_bound, v_history,
      replace(governance.event_mark(v_low), '.', '_'),
      replace(governance.event_mark(greatest(v_base_high, v_page_high)), '.', '_')),
    'restarted_after', v_restarted_after);
end
$$;
comment on function public.usage_events_since(text, int, jsonb) is
  'What happened after a cursor (null: from the beginning, or from p_filter.since; "now": from now on), oldest first; '
  'late commits come late, nothing comes twice. Filter: user_id, decision, reason, model, kinds (authorized, blocked, '
  'settled, released, expired, quarantined), since, facts. A page shorter than p_limit is the end for now. After a '
  'restore restarted_after is an event id, else null: forget what you have with a higher id, it is not of this '
  'history; what is now comes again from there. Errors: invalid_argument.';
revoke all on function public.usage_events_since(text, int, jsonb) from public, anon, authenticated;
grant execute on function public.usage_events_since(text, int, jsonb) to service_role;

create function governance.check_event_filter(p_filter jsonb) returns void
  language plpgsql immutable set search_path = '' as $$
begin
  if p_filter is null or p_filter = '{}' then return; end if;
  if jsonb_typeof(p_filter) <> 'object' or exists (
    select from jsonb_each(p_filter) f where f.value <> 'null' and not (case f.key
      when 'kinds' then jsonb_typeof(f.value) = 'array' and jsonb_array_length(f.value) <= 20
      when 'user_id' then jsonb_typeof(f.value) = 'string' when 'decision' then jsonb_typeof(f.value) = 'string'
      when 'reason' then jsonb_typeof(f.value) = 'string' when 'model' then jsonb_typeof(f.value) = 'string'
        else false end)) then
    perform governance.fail('PT400', 'invalid_argument',
      'p_filter has user_id, decision, reason, model (texts) and kinds (a list) only');
  end if;
end
$$;
comment on function governance.check_event_filter(jsonb) is 'Refuses a filter of events that is not understood: better '
  'than to show everything.';

create function public.console_events_before(p_before_event_id bigint default null, p_limit int default 200,
  p_filter jsonb default '{}') returns jsonb
  language plpgsql stable security definer set search_path = '' set jit = off as $$
declare
  -- A rare filter ends the page here, with what was found and where to go on: the cost of a page has a bound.
  c_most constant int := 10000;
  v_filter jsonb := coalesce(p_filter, '{}');
  v_high bigint := coalesce(p_before_event_id, 9223372036854775807);
  -- One more than is asked for tells whether there is more.
  v_page int := greatest(p_limit + 1, 50);
  v_account_id bigint;
  v_until timestamptz := 'infinity';
  v_calls text := 'true';
  v_entries text := 'true';
  v_holds text := 'true';
  v_kinds text[];
  v_order text := 'r.decision_id desc';
  v_looked int := 0;
  v_floor bigint;
  v_rows jsonb;
  v_events jsonb := '[]';
begin
  perform governance.refuse_others('console_events_before');
  perform governance.check_limit(p_limit, 1000);
  perform governance.check_event_filter(p_filter);
  if jsonb_typeof(v_filter -> 'kinds') = 'array' then
    v_kinds := array(select jsonb_array_elements_text(v_filter -> 'kinds'));
  end if;
  if v_filter ->> 'user_id' is not null then
    select a.account_id into v_account_id from governance.accounts a where a.user_id = v_filter ->> 'user_id';
    if v_account_id is null then
      return jsonb_build_object('events', '[]'::jsonb, 'next_before_event_id', null);
    end if;
    -- Calls of one account stand in one order by time and by id, and by time they have an index.
    select x.at into v_until from (
      select r.created_at as at from governance.requests r where r.decision_id = v_high
      union all select t.created_at from governance.token_transactions t where t.transaction_id = v_high
      union all select h.created_at from governance.hold_events h where h.event_id = v_high) x;
    v_until := coalesce(v_until, 'infinity');
    v_calls := format('account_id = %s', v_account_id);
    v_entries := v_calls;
    v_holds := v_calls;
    v_order := 'r.created_at desc, r.decision_id desc';
  end if;
  if v_filter ->> 'reason' is not null or v_filter ->> 'decision' = 'block' then
    -- Only a refusal has a reason, and nothing comes after it.
    if v_filter ->> 'reason' is not null and v_account_id is null then
      -- The index that has them in order of the reason first, and no walk through everything else.
      v_order := 'r.reason desc, r.decision_id desc';
    end if;
    v_calls := v_calls || ' and r.decision = ''block''' || case
      when v_filter ->> 'reason' is not null then format(' and r.reason = %L', v_filter ->> 'reason') else '' end;
    v_entries := 'false';
    v_holds := 'false';
  end if;
  if v_kinds is not null then
    if not v_kinds && '{authorized,blocked}' then v_calls := 'false'; end if;
    if not v_kinds && '{settled}' then v_entries := 'false'; end if;
    if not v_kinds && '{released,expired,quarantined}' then v_holds := 'false'; end if;
  end if;
  loop
    execute format($q$
      with calls as (
        select r.decision_id as id, case r.decision when 'block' then 'blocked'
          else 'authorized' end as kind, r.created_at as at, r.decision_id,
          case r.decision when 'block' then (r.facts).estimated_tokens
            else r.reserved_tokens end as tokens, null::text as reason
        from governance.requests r where r.decision_id < $1 and r.created_at <= $2 and %1$s order by %2$s limit $3
      ), entries as (
        select t.transaction_id as id, 'settled' as kind, t.created_at as at, t.decision_id, null::bigint as tokens,
          null::text as reason
        from governance.token_transactions t
        where t.transaction_id < $1 and t.transaction_type = 'usage' and t.decision_id is not null and %3$s
          order by t.transaction_id desc limit $3
      ), holds as (
        select h.event_id as id, h.kind, h.created_at as at, h.decision_id, h.tokens, h.reason
        from governance.hold_events h where h.event_id < $1 and %4$s order by h.event_id desc limit $3
      ), floor as materialized (
        -- Below the last row of a source that has more, other sources' rows would come too early.
        select max(x.id) as id from (select min(id) as id from calls having count(*) = $3
          union all select min(id) from entries having count(*) = $3
          union all select min(id) from holds having count(*) = $3) x
      ), events as (
        select e.* from (select * from calls union all select * from entries union all select * from holds) e, floor f
        where e.id >= coalesce(f.id, 0) and ($4 is null or e.kind = any ($4))
      )
      select (select f.id from floor f), (
        -- As usage_events_since has it; a test holds the two together.
        select coalesce(jsonb_agg(jsonb_build_object('event_id', p.id, 'kind', p.kind, 'at', p.at, 'request_id',
          p.request_id, 'decision_id', p.decision_id,
            'user_id', a.user_id, 'display_name', a.display_name, 'plan_id', p.plan_id, 'decision', p.decision,
            'reason', case when p.kind in ('released', 'expired', 'quarantined') then p.hold_reason
              else p.reason end, 'http_status', p.http_status,
            'requested_model', p.requested_model, 'model', case p.kind
              when 'settled' then coalesce(p.settled_model, p.model) else p.model end,
            'task_type', p.task_type, 'scope_id', p.scope_id, 'conversation_id', p.conversation_id, 'tokens',
              coalesce(p.tokens, p.charged_tokens, 0),
            'input_tokens', case p.kind when 'settled' then p.input_tokens end, 'output_tokens', case p.kind
              when 'settled' then p.output_tokens end,
            'cost_micros', case p.kind when 'settled' then p.cost_micros end, 'currency', case p.kind
              when 'settled' then p.currency end,
            'warnings', coalesce(to_jsonb(p.warnings), '[]'),
            'rule_name', case when p.rule_version_id is not null
              then (select v.rule_name from governance.rule_versions v where v.version_id = p.rule_version_id) end,
            'rule_names', case when p.matched_version_ids is not null then governance.rule_names(p.matched_version_ids)
              else '[]' end
          ) order by p.id desc), '[]') from (
          select e.id, e.kind, e.at, e.tokens, e.reason as hold_reason, r.*
          from events e
          cross join lateral (select q.request_id, q.decision_id, q.account_id, q.plan_id, q.decision, q.reason,
            q.http_status, q.requested_model, q.model,
              q.settled_model, q.task_type, q.scope_id, q.conversation_id, q.charged_tokens, q.input_tokens,
                q.output_tokens, q.cost_micros, q.currency,
              q.warnings, q.rule_version_id, q.matched_version_ids
            from governance.requests q where q.decision_id = e.decision_id limit 1) r
          where ($5 is null or r.decision = $5) and ($6 is null or $6 in (r.model, r.requested_model, r.settled_model))
          order by e.id desc limit $7) p
        join governance.accounts a on a.account_id = p.account_id)
      $q$, v_calls, v_order, v_entries, v_holds)
    into v_floor, v_rows
    using v_high, v_until, v_page, v_kinds, v_filter ->> 'decision', v_filter ->> 'model',
      p_limit + 1 - jsonb_array_length(v_events);
    v_events := v_events || v_rows;
    v_looked := v_looked + v_page;
    exit when jsonb_array_length(v_events) > p_limit or v_floor is null or v_looked >= c_most;
    v_high := v_floor;
    v_page := least(v_page * 4, c_most);
  end loop;
  return jsonb_build_object(
    'events', case when jsonb_array_length(v_events) > p_limit then v_events - p_limit else v_events end,
    'next_before_event_id', case
      when jsonb_array_length(v_events) > p_limit then (v_events -> (p_limit - 1) ->> 'event_id')::bigint
      else v_floor end);
end
$$;
comment on function public.console_events_before(bigint, int, jsonb) is
  'What happened, newest first; p_filter may have user_id, decision, reason, model, kinds. next_before_event_id goes '
  'on from here, null at the end; where the filter is rare a page may hold fewer events than asked, and there are '
  'more. Errors: invalid_argument.';
revoke all on function public.console_events_before(bigint, int, jsonb) from public, anon, authenticated;
grant execute on function public.console_events_before(bigint, int, jsonb) to service_role;
