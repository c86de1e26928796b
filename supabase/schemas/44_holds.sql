-- Holds that need a person.

create view governance.stuck_holds with (security_invoker = true) as
  -- Held past its end, and nobody has given it back for five minutes; or settled beyond a sane ceiling, and waiting for
  -- a person.
  select r.decision_id, r.created_at, r.account_id, r.request_id, r.status, r.model, r.reserved_tokens, r.expires_at
  from governance.account_listings l
  join governance.accounts a using (account_id)
  join governance.requests r on r.account_id = a.account_id and r.created_at >= a.holds_from
  where l.holds_check_at < governance.now() - interval '5 minutes' and r.status = 'held'
    and r.expires_at < governance.now() - interval '5 minutes'
  union all
  select r.decision_id, r.created_at, r.account_id, r.request_id, r.status, r.model, r.reserved_tokens, r.expires_at
  from governance.hold_events h
  join governance.requests r on r.decision_id = h.decision_id and r.status = 'quarantined'
  where h.kind = 'quarantined';

comment on view governance.stuck_holds is 'Holds that need a person or have outlived their end: see '
  'console_stuck_holds and console_resolve_hold.';

create function governance.quarantine_call(q governance.call_end, p_charge numeric, p_ceiling bigint,
  p_now timestamptz) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_message text := format('A settlement of %s tokens is above the ceiling of %s and waits for a person', p_charge,
    p_ceiling);
begin
  insert into governance.alert_events (account_id, kind, severity, message, threshold, value, period_key, details,
    created_at)
  values (q.account_id, 'settlement_quarantined', 'critical', v_message, p_ceiling, p_charge, '',
    jsonb_build_object('request_id', q.request_id, 'decision_id', q.decision_id), p_now);
  insert into governance.hold_events (created_at, kind, decision_id, account_id, tokens, reason)
  values (p_now, 'quarantined', q.decision_id, q.account_id, q.released_tokens, 'above_ceiling');
  perform governance.ring('feed', p_now);
  perform governance.ring('alerts', p_now);
  return jsonb_build_array(jsonb_build_object('type', 'settlement_quarantined', 'severity', 'critical', 'message',
    v_message, 'details', jsonb_build_object('tokens', p_charge, 'ceiling', p_ceiling)));
end
$$;
comment on function governance.quarantine_call(governance.call_end, numeric, bigint, timestamptz) is
  'Sets a settlement above the ceiling aside: nothing is charged, the hold is given back, an alert is raised. '
  'Returns the alerts.';

create function governance.count_stuck_holds() returns bigint
  language sql stable set search_path = '' as $$
  select count(*) from governance.stuck_holds
$$;
comment on function governance.count_stuck_holds() is 'Holds that need a person or have outlived their end.';

create function public.console_stuck_holds(p_limit int default 100) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
begin
  perform governance.refuse_others('console_stuck_holds');
  perform governance.check_limit(p_limit, 1000);
  return (
    select coalesce(jsonb_agg(jsonb_build_object('request_id', s.request_id, 'decision_id', s.decision_id, 'user_id',
      a.user_id, 'display_name', a.display_name,
      'status', s.status, 'model', s.model, 'reserved_tokens', s.reserved_tokens, 'created_at', s.created_at,
        'expires_at', s.expires_at,
      'input_tokens', r.input_tokens, 'output_tokens', r.output_tokens) order by s.created_at), '[]')
    from (select * from governance.stuck_holds order by created_at limit p_limit) s
    join governance.accounts a using (account_id)
    join governance.requests r on r.decision_id = s.decision_id and r.created_at = s.created_at);
end
$$;
comment on function public.console_stuck_holds(int) is
  'Holds that have outlived their end, and settlements above the ceiling that wait for a person. Errors: '
  'invalid_argument.';
revoke all on function public.console_stuck_holds(int) from public, anon, authenticated;
grant execute on function public.console_stuck_holds(int) to service_role;

create function governance.end_hold(q governance.requests, p_action text, p_reason text, p_input_tokens bigint,
  p_output_tokens bigint, p_now timestamptz) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_answer jsonb;
begin
  if q.status not in ('held', 'expired', 'quarantined') then
    perform governance.fail('PT409', 'already_resolved',
      format('Request "%s" is %s already', left(q.request_id, 64), q.status));
  end if;

  if p_action = 'settle' and q.status = 'quarantined' then
    -- The settlement that the caller reported is let through; the caller's own repeat keeps finding its answer.
    v_answer := to_jsonb((governance.settle_calls(array[row(q.request_id, coalesce(p_input_tokens, q.input_tokens),
      coalesce(p_output_tokens, q.output_tokens), q.settled_model,
      coalesce(q.settle_metadata, '{}'))::governance.settle_arguments], true))[1]);
    update governance.requests x set settle_fingerprint = q.settle_fingerprint
      where x.decision_id = q.decision_id and x.created_at = q.created_at;
  elsif p_action = 'settle' then
    if p_input_tokens is null or p_output_tokens is null then
      perform governance.fail('PT400', 'invalid_argument',
        'Say what the call used: p_input_tokens and p_output_tokens');
    end if;
    v_answer := to_jsonb((governance.settle_calls(array[row(q.request_id, p_input_tokens, p_output_tokens, null,
      null)::governance.settle_arguments], true))[1]);
  elsif q.status = 'held' then
    v_answer := public.release_usage(q.request_id, p_reason);
  elsif q.status = 'expired' then
    perform governance.fail('PT409', 'already_resolved',
      format('The hold of request "%s" has expired: its tokens are back already', left(q.request_id, 64)));
  else
    insert into governance.hold_events (created_at, kind, decision_id, account_id, tokens, reason)
    values (p_now, 'released', q.decision_id, q.account_id, 0, left(p_reason, 1000));
    update governance.requests x set status = 'released', ended_at = p_now, end_reason = p_reason, released_tokens = 0
    where x.decision_id = q.decision_id and x.created_at = q.created_at returning * into q;
    v_answer := governance.release_answer(governance.call_end(q));
    perform governance.ring('feed', p_now);
  end if;
  return v_answer;
end
$$;
comment on function governance.end_hold(governance.requests, text, text, bigint, bigint, timestamptz) is
  'Settles or releases a hold that is open, has expired, or waits for a person. Returns as settle_usage and '
  'release_usage do. The caller holds the account''s lock and has read the call under it. Errors: invalid_argument, '
  'already_resolved.';

create function public.console_resolve_hold(
  p_command_id text, p_request_id text, p_action text, p_reason text, p_operator text default null,
    p_input_tokens bigint default null, p_output_tokens bigint default null
) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  q governance.requests;
  v_now timestamptz;
  v_answer jsonb;
begin
  perform governance.refuse_others('console_resolve_hold');
  perform governance.check_operator_command(p_command_id, p_request_id, p_reason, p_operator);
  if p_action is null or p_action not in ('settle', 'release') then
    perform governance.fail('PT400', 'invalid_argument', 'p_action is settle or release');
  end if;
  if p_input_tokens not between 0 and 9007199254740991 or p_output_tokens not between 0 and 9007199254740991 then
    perform governance.fail('PT400', 'invalid_argument',
      'p_input_tokens and p_output_tokens are whole numbers from 0 up to 2^53 - 1');
  end if;
  select x.* into q from governance.request_keys k
    join governance.requests x on x.decision_id = k.decision_id and x.created_at = k.created_at
  where k.request_id = p_request_id;
  if not found then
    perform governance.fail('PT404', 'unknown_request', format('There is no request "%s"', left(p_request_id, 64)));
  end if;
  perform governance.lock_account_id(q.account_id);
  v_answer := governance.begin_command('operator', p_command_id,
    row('resolve_hold', p_request_id, p_action, p_reason, p_operator, p_input_tokens, p_output_tokens)::text);
  if v_answer is not null then return v_answer; end if;
  v_now := governance.now();
  select x.* into strict q from governance.requests x
    where x.decision_id = q.decision_id and x.created_at = q.created_at;
  v_answer := governance.end_hold(q, p_action, p_reason, p_input_tokens, p_output_tokens, v_now);
  insert into governance.audit_log (created_at, operator, action, account_id, reason, command_id, details)
  values (v_now, p_operator, 'resolve_hold', q.account_id, p_reason, p_command_id,
    jsonb_build_object('request_id', p_request_id, 'decision_id', q.decision_id, 'action', p_action, 'status',
      v_answer -> 'status', 'charged_tokens', v_answer -> 'charged_tokens'));
  return governance.end_command('operator', p_command_id, v_answer);
end
$$;
comment on function public.console_resolve_hold(text, text, text, text, text, bigint, bigint) is
  'A person ends a hold: settle it with the tokens it used (a quarantined one with those it reported, unless others '
  'are given), or release it. Returns as settle_usage and release_usage do; audited. Errors: invalid_argument, '
  'unknown_request, already_resolved, idempotency_conflict.';
revoke all on function public.console_resolve_hold(text, text, text, text, text, bigint, bigint)
  from public, anon, authenticated;
grant execute on function public.console_resolve_hold(text, text, text, text, text, bigint, bigint) to service_role;
