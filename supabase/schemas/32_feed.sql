-- Events in the order in which they became visible.

-- A cursor records what its reader has: every event up to low, all that was visible in base, and, while it pages
-- through what is visible in page, those of them up to after_id. base_high and page_high are the highest ids visible
-- then. So an event whose transaction commits late is new to every reader, whatever its id, and nothing comes twice.
-- base_bound and page_bound are above every transaction number that was given out when those highest ids were read (0
-- where that is not known): a snapshot's own xmax is not. After a restore the history is another one, and its
-- transaction numbers mean nothing in a kept cursor. So a cursor also names the history that it is of, the last event
-- up to low, and the last one up to the highest id it has seen.
create type governance.feed_cursor as (low bigint, base pg_snapshot, base_high bigint, page pg_snapshot,
  page_high bigint, after_id bigint, base_bound xid8, page_bound xid8, history text, low_mark text, high_mark text);

create type governance.event_filter as (account_id bigint, decision text, reason text, model text, kinds text[],
  since timestamptz);

create function governance.read_feed_cursor(p_cursor text) returns governance.feed_cursor
  language plpgsql stable set search_path = '' as $$
declare
  v_parts text[] := string_to_array(p_cursor, '.');
begin
  if p_cursor is null then
    return row(0, null, 0, null, 0, 0, '0', '0', null, '0', '0')::governance.feed_cursor;
  elsif v_parts[1] <> '3' or cardinality(v_parts) <> 12 then
    raise exception using errcode = 'invalid_text_representation';
  end if;
  perform split_part(v_parts[12], ':', 1)::bigint,
    nullif(replace(split_part(v_parts[12], ':', 2), '_', '.'), '')::float8;
  return row(v_parts[2], nullif(v_parts[3], '-'), v_parts[4], nullif(v_parts[5], '-'), v_parts[6], v_parts[7],
    v_parts[8], v_parts[9], v_parts[10], replace(v_parts[11], '_', '.'),
    replace(v_parts[12], '_', '.'))::governance.feed_cursor;
exception when data_exception then
  perform governance.fail('PT400', 'invalid_argument',
    'p_cursor is null, "now" or the next_cursor of an earlier answer');
  return null;
end
$$;
comment on function governance.read_feed_cursor(text) is
  'A cursor of the feed, read; the beginning for null. Errors: invalid_argument.';

create function governance.feed_cursor_text(k governance.feed_cursor, p_history text) returns text
  language sql stable set search_path = '' as $$
  select format('3.%s.%s.%s.%s.%s.%s.%s.%s.%s.%s.%s', k.low, coalesce(k.base::text, '-'), k.base_high,
    coalesce(k.page::text, '-'), k.page_high, k.after_id, k.base_bound, k.page_bound, p_history,
    replace(governance.event_mark(k.low), '.', '_'),
    replace(governance.event_mark(greatest(k.base_high, k.page_high)), '.', '_'))
$$;
comment on function governance.feed_cursor_text(governance.feed_cursor, text) is 'A cursor as its reader keeps it.';

create function governance.filtered_account(p_filter jsonb) returns bigint
  language sql stable set search_path = '' as $$
  -- Nobody of that name yet: nothing has happened, and a reader keeps its place.
  select case when p_filter ->> 'user_id' is not null then coalesce((select a.account_id from governance.accounts a
    where a.user_id = p_filter ->> 'user_id'), -1) end
$$;
comment on function governance.filtered_account(jsonb) is
  'The account that a filter names; -1 for an unknown user, null for all.';

create function governance.read_event_filter(p_filter jsonb) returns governance.event_filter
  language plpgsql stable set search_path = '' as $$
declare
  w governance.event_filter;
  v_key text;
begin
  if coalesce(jsonb_typeof(p_filter), 'object') <> 'object' then
    perform governance.fail('PT400', 'invalid_argument', 'p_filter is a JSON object');
  end if;
  for v_key in select jsonb_object_keys(coalesce(p_filter, '{}')) loop
    if v_key not in ('user_id', 'decision', 'reason', 'model', 'kinds', 'since', 'facts') then
      perform governance.fail('PT400', 'invalid_argument',
        format('p_filter has no key "%s"; it takes user_id, decision, reason, model, kinds, since, facts',
          left(v_key, 64)));
    end if;
  end loop;
  w.decision := p_filter ->> 'decision';
  w.reason := p_filter ->> 'reason';
  w.model := p_filter ->> 'model';
  begin
    w.since := (p_filter ->> 'since')::timestamptz;
    if coalesce(p_filter -> 'kinds', 'null') <> 'null' then
      w.kinds := array(select jsonb_array_elements_text(p_filter -> 'kinds'));
    end if;
  exception when data_exception then
    perform governance.fail('PT400', 'invalid_argument', 'p_filter.since is a moment, p_filter.kinds a list');
  end;
  w.account_id := governance.filtered_account(p_filter);
  return w;
end
$$;
comment on function governance.read_event_filter(jsonb) is 'A filter of the feed. Errors: invalid_argument.';

create function governance.is_other_history(k governance.feed_cursor, p_history text, p_now pg_snapshot, p_bound xid8)
  returns boolean
  language plpgsql stable set search_path = '' as $$
declare
  v_seen_at timestamptz := to_timestamp(nullif(split_part(k.high_mark, ':', 2), '')::float8);
begin
  return k.history <> p_history or (not pg_is_in_recovery()
    and (greatest(pg_snapshot_xmax(k.base), pg_snapshot_xmax(k.page)) > greatest(pg_snapshot_xmax(p_now), p_bound)
    -- Retention may have dropped the event; nothing else does.
    or (governance.event_mark(split_part(k.high_mark, ':', 1)::bigint) <> k.high_mark and v_seen_at > governance.now()
      - interval '1 day' * (select c.decision_retention_days - 1 from governance.active_config c))));
end
$$;
comment on function governance.is_other_history(governance.feed_cursor, text, pg_snapshot, xid8) is
  'Whether a cursor is of another history than this database''s: an older backup was restored.';

create function governance.feed_ids(k governance.feed_cursor, p_now pg_snapshot, w governance.event_filter, p_room int)
  returns bigint[]
  language plpgsql stable set search_path = '' as $$
begin
  return (
    select array_agg(e.id order by e.id) from (
      select u.id from (
        (select r.decision_id as id from governance.requests r
          where r.decision_id > k.after_id
            and (pg_visible_in_snapshot(r.xid, k.page) or r.xid >= pg_snapshot_xmax(p_now))
            and (k.base is null or not (pg_visible_in_snapshot(r.xid, k.base) or r.xid >= pg_snapshot_xmax(p_now)))
            and (w.account_id is null or r.account_id = w.account_id)
              and (w.decision is null or r.decision = w.decision)
            and (w.reason is null or r.reason = w.reason)
              and (w.model is null or r.model = w.model or r.requested_model = w.model)
            and (w.since is null or r.created_at >= w.since)
            and (w.kinds is null or case when r.decision = 'block' then 'blocked' else 'authorized' end = any (w.kinds))
          order by r.decision_id limit p_room)
        union all
        (select t.transaction_id from governance.token_transactions t
          where t.transaction_id > k.after_id and t.transaction_type = 'usage' and t.decision_id is not null
            and (pg_visible_in_snapshot(t.xid, k.page) or t.xid >= pg_snapshot_xmax(p_now))
            and (k.base is null or not (pg_visible_in_snapshot(t.xid, k.base) or t.xid >= pg_snapshot_xmax(p_now)))
            and (w.account_id is null or t.account_id = w.account_id) and (w.since is null or t.created_at >= w.since)
            and (w.kinds is null or 'settled' = any (w.kinds))
            and ((w.decision is null and w.reason is null and w.model is null) or exists (
              select from governance.requests r
                where r.decision_id = t.decision_id and (w.decision is null or r.decision = w.decision)
                and (w.reason is null or r.reason = w.reason)
                  and (w.model is null or r.settled_model = w.model or r.requested_model = w.model)))
          order by t.transaction_id limit p_room)
        union all
        (select h.event_id from governance.hold_events h
          where h.event_id > k.after_id
            and (pg_visible_in_snapshot(h.xid, k.page) or h.xid >= pg_snapshot_xmax(p_now))
            and (k.base is null or not (pg_visible_in_snapshot(h.xid, k.base) or h.xid >= pg_snapshot_xmax(p_now)))
            and (w.account_id is null or h.account_id = w.account_id) and (w.since is null or h.created_at >= w.since)
            and (w.kinds is null or h.kind = any (w.kinds))
            and ((w.decision is null and w.reason is null and w.model is null) or exists (
              select from governance.requests r
                where r.decision_id = h.decision_id and (w.decision is null or r.decision = w.decision)
                and (w.reason is null or r.reason = w.reason)
                  and (w.model is null or r.model = w.model or r.requested_model = w.model)))
          order by h.event_id limit p_room)
      ) u order by u.id limit p_room
    ) e);
end
$$;
comment on function governance.feed_ids(governance.feed_cursor, pg_snapshot, governance.event_filter, int) is
  'The next events of a page that fit the filter, at most p_room: visible in the page, and not in the base.';

create function governance.feed_events(p_ids bigint[], p_facts boolean) returns jsonb
  language sql stable set search_path = '' as $$
  select coalesce(jsonb_agg(e.event || case
    when p_facts and e.event ->> 'kind' in ('authorized', 'blocked') then e.facts else '{}' end order by e.id), '[]')
  from (
    select i.id,
      case when q.decision_id = i.id and t.transaction_id is null then
        jsonb_build_object('facts', governance.facts_json(q),
          'plan', (select jsonb_build_object('monthly_allowance', p.monthly_allowance, 'daily_limit', q.daily_limit,
            'monthly_limit', q.monthly_limit) from governance.plans p where p.plan_id = q.plan_id),
          'local_day', governance.local_time(q.created_at, a.timezone)::date, 'matched',
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
    from unnest(p_ids) i(id)
    left join governance.token_transactions t on t.transaction_id = i.id
    left join governance.hold_events h on h.event_id = i.id
    left join governance.requests q on q.decision_id = coalesce(t.decision_id, h.decision_id, i.id)
    join governance.accounts a on a.account_id = coalesce(t.account_id, h.account_id, q.account_id)
  ) e
$$;
comment on function governance.feed_events(bigint[], boolean) is 'Events of the feed by their ids, in order.';

create function public.usage_events_since(p_cursor text default null, p_limit int default 500,
  p_filter jsonb default '{}') returns jsonb
  language plpgsql stable security definer set search_path = '' set jit = off as $$
declare
  k governance.feed_cursor;
  v_filter governance.event_filter;
  v_now pg_snapshot := pg_current_snapshot();
  v_now_high bigint;
  v_now_bound xid8 := '0';
  v_history text := replace(governance.history_id(), '.', '');
  v_restarted_after bigint;
  v_has_xid boolean := pg_is_in_recovery() or pg_current_xact_id_if_assigned() is not null;
  v_ids bigint[];
  v_all_ids bigint[] := '{}';
begin
  perform governance.refuse_others('usage_events_since');
  if p_limit is null or p_limit not between 1 and 5000 then
    perform governance.fail('PT400', 'invalid_argument', 'p_limit is a whole number from 1 to 5000');
  end if;
  v_filter := governance.read_event_filter(p_filter);
  k := governance.read_feed_cursor(nullif(p_cursor, 'now'));
  select greatest((select max(r.decision_id) from governance.requests r),
    (select max(t.transaction_id) from governance.token_transactions t),
    (select max(h.event_id) from governance.hold_events h), 0) into v_now_high;
  -- A writer takes its transaction number before its event id. So every writer of an id up to the highest has a lower
  -- number than the one that this transaction takes now.
  if not v_has_xid then
    v_now_bound := pg_current_xact_id();
  end if;
  if k.history is not null then
    if pg_is_in_recovery() and split_part(k.history, ':', 1) = split_part(v_history, ':', 1) then
      -- A standby may be behind the reader: only the primary can tell whether the history is another one.
      v_history := k.history;
    elsif governance.is_other_history(k, v_history, v_now, v_now_bound) then
      -- Where this history has the event at low, it has all that the reader got up to there; else all of it comes
      -- again.
      if k.low_mark = '0' or governance.event_mark(k.low) <> k.low_mark then
        k.low := case when v_filter.since is null then 0
          else governance.feed_low_id(v_filter.since - interval '1 hour') end;
      end if;
      k.base := null;
      k.base_high := 0;
      k.base_bound := '0';
      k.page := null;
      k.after_id := 0;
      v_restarted_after := k.low;
    end if;
  end if;
  if p_cursor = 'now' then
    -- Transactions that began more than an hour ago are not waited for.
    k.low := governance.feed_low_id(governance.now() - interval '1 hour');
    k.base := v_now;
    k.base_high := v_now_high;
    k.base_bound := v_now_bound;
    return jsonb_build_object('events', '[]'::jsonb, 'next_cursor', governance.feed_cursor_text(k, v_history),
      'restarted_after', null);
  end if;
  if p_cursor is null and v_filter.since is not null then
    k.low := governance.feed_low_id(v_filter.since - interval '1 hour');
  end if;

  loop
    if k.page is null then
      k.page := v_now;
      k.page_high := v_now_high;
      k.page_bound := v_now_bound;
      k.after_id := k.low;
    end if;
    v_ids := governance.feed_ids(k, v_now, v_filter, p_limit - cardinality(v_all_ids));
    v_all_ids := v_all_ids || coalesce(v_ids, '{}');
    if cardinality(v_all_ids) = p_limit then
      k.after_id := v_all_ids[p_limit];
      exit;
    end if;
    -- All that is visible in page is delivered: page becomes the base. Where every transaction below a bound had ended
    -- by then, nothing can come any more at or below the highest id that goes with it.
    if governance.ended_below(k.page_bound, k.page) then
      k.low := greatest(k.low, k.page_high);
    elsif governance.ended_below(k.base_bound, k.page) then
      k.low := greatest(k.low, k.base_high);
    end if;
    k.base := k.page;
    k.base_high := k.page_high;
    k.base_bound := k.page_bound;
    if k.page::text = v_now::text then
      k.page := null;
      k.after_id := 0;
      exit;
    end if;
    k.page := null;
  end loop;

  return jsonb_build_object(
    'events', governance.feed_events(v_all_ids, coalesce(p_filter -> 'facts', 'false') = 'true'),
    'next_cursor', governance.feed_cursor_text(k, v_history), 'restarted_after', v_restarted_after);
end
$$;
comment on function public.usage_events_since(text, int, jsonb) is
  'Events after a cursor (null: from the beginning, or from p_filter.since; "now": from now on), oldest first; late '
  'commits come late, nothing comes twice. Filter: user_id, decision, reason, model, kinds (authorized, blocked, '
  'settled, released, expired, quarantined), since, facts. A page shorter than p_limit is the end for now. After a '
  'restore restarted_after is an event id, else null: forget what you have with a higher id, it is not of this '
  'history; what is now comes again from there. Errors: invalid_argument.';
revoke all on function public.usage_events_since(text, int, jsonb) from public, anon, authenticated;
grant execute on function public.usage_events_since(text, int, jsonb) to service_role;

create function governance.event_sources(p_filter jsonb, p_account_id bigint, p_high bigint, p_kinds text[],
  out calls text, out entries text, out holds text, out in_order text, out until timestamptz)
  language plpgsql stable set search_path = '' as $$
begin
  until := 'infinity';
  calls := 'true';
  entries := 'true';
  holds := 'true';
  in_order := 'r.decision_id desc';
  if p_account_id is not null then
    -- Calls of one account have the same order by time as by id, and there is an index by time.
    select x.at into until from (
      select r.created_at as at from governance.requests r where r.decision_id = p_high
      union all select t.created_at from governance.token_transactions t where t.transaction_id = p_high
      union all select h.created_at from governance.hold_events h where h.event_id = p_high) x;
    until := coalesce(until, 'infinity');
    calls := format('account_id = %s', p_account_id);
    entries := calls;
    holds := calls;
    in_order := 'r.created_at desc, r.decision_id desc';
  end if;
  if p_filter ->> 'reason' is not null or p_filter ->> 'decision' = 'block' then
    -- Only a blocked call has a reason, and it has neither an entry nor a hold.
    if p_filter ->> 'reason' is not null and p_account_id is null then
      -- In order of the reason first: so the index by reason is read, and not every call.
      in_order := 'r.reason desc, r.decision_id desc';
    end if;
    calls := calls || ' and r.decision = ''block''' || case
      when p_filter ->> 'reason' is not null then format(' and r.reason = %L', p_filter ->> 'reason') else '' end;
    entries := 'false';
    holds := 'false';
  end if;
  if p_kinds is not null then
    if not p_kinds && '{authorized,blocked}' then calls := 'false'; end if;
    if not p_kinds && '{settled}' then entries := 'false'; end if;
    if not p_kinds && '{released,expired,quarantined}' then holds := 'false'; end if;
  end if;
end
$$;
comment on function governance.event_sources(jsonb, bigint, bigint, text[]) is
  'A filter of events as conditions on calls, entries and holds, and the order in which an index has them.';

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
  v_kinds text[];
  s record;
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
  end if;
  s := governance.event_sources(v_filter, v_account_id, v_high, v_kinds);
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
        -- Where a source has more rows than were read, rows of the others below its last one wait for the next page:
        -- rows that belong between them were not read yet.
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
      $q$, s.calls, s.in_order, s.entries, s.holds)
    into v_floor, v_rows
    using v_high, s.until, v_page, v_kinds, v_filter ->> 'decision', v_filter ->> 'model',
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
  'Events, newest first; p_filter may have user_id, decision, reason, model, kinds. next_before_event_id goes on from '
  'here, null at the end; where the filter is rare a page may hold fewer events than asked, and there are more. '
  'Errors: invalid_argument.';
revoke all on function public.console_events_before(bigint, int, jsonb) from public, anon, authenticated;
grant execute on function public.console_events_before(bigint, int, jsonb) to service_role;
