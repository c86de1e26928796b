-- Why a call was decided as it was.

create function governance.facts_json(q governance.requests) returns jsonb
  language sql stable set search_path = '' as $$
  select to_jsonb(q.facts) || jsonb_build_object('provider', governance.provider_of(q.requested_model, q.created_at))
$$;
comment on function governance.facts_json(governance.requests) is
  'The facts of a decision as they were seen; the message itself is never kept.';

create function governance.decision_json(r governance.requests) returns jsonb
  language sql stable set search_path = '' as $$
  select jsonb_build_object('decision_id', r.decision_id, 'request_id', r.request_id, 'at', r.created_at, 'decision',
    r.decision,
    'reason', r.reason, 'message', r.message, 'requested_model', r.requested_model, 'model',
      coalesce(r.settled_model, r.model),
    'task_type', r.task_type, 'scope_id', r.scope_id, 'conversation_id', r.conversation_id, 'estimated_tokens',
      (r.facts).estimated_tokens,
    'reserved_tokens', r.reserved_tokens, 'charged_tokens', r.charged_tokens, 'input_tokens', r.input_tokens,
      'output_tokens', r.output_tokens,
    'cost_micros', r.cost_micros, 'currency', r.currency, 'status', r.status, 'ended_at', r.ended_at, 'expires_at',
      r.expires_at,
    'warnings', coalesce(to_jsonb(r.warnings), '[]'), 'rule_name', v.rule_name, 'rule_version', v.version)
  from (select) one left join governance.rule_versions v on v.version_id = r.rule_version_id
$$;
comment on function governance.decision_json(governance.requests) is 'A call and how it ended, as the user''s page '
  'lists it.';

create function public.console_account_decisions(p_user_id text, p_before_id bigint default null,
  p_limit int default 50) returns jsonb
  language plpgsql stable security definer set search_path = '' set jit = off
    set plan_cache_mode = 'force_custom_plan' as $$
declare
  v_account_id bigint;
  v_before timestamptz := 'infinity';
begin
  perform governance.refuse_others('console_account_decisions');
  perform governance.check_id('p_user_id', p_user_id);
  perform governance.check_limit(p_limit, 500);
  v_account_id := governance.account_id_of(p_user_id);
  if p_before_id is not null then
    select r.created_at into v_before from governance.requests r
      where r.decision_id = p_before_id and r.account_id = v_account_id;
    if not found then
      perform governance.fail('PT404', 'not_found',
        'No decision of this user with the id p_before_id is kept: read from the beginning');
    end if;
  end if;
  return (
    with page as (
      select c.call, row_number() over () as n
      from (select q as call from governance.requests q
        where q.account_id = v_account_id and q.created_at <= v_before
          and (p_before_id is null or (q.created_at, q.decision_id) < (v_before, p_before_id))
        order by q.created_at desc, q.decision_id desc limit p_limit + 1) c)
    select jsonb_build_object(
      'decisions', coalesce(jsonb_agg(governance.decision_json(p.call) order by p.n) filter (where p.n <= p_limit),
        '[]'),
      'next_before_id', case when count(*) > p_limit then max((p.call).decision_id) filter (where p.n = p_limit) end)
    from page p);
end
$$;
comment on function public.console_account_decisions(text, bigint, int) is
  'A user''s calls, newest first, each with its decision and how it ended; p_before_id is next_before_id of the page '
    'before. Errors: invalid_argument, unknown_user, not_found.';
revoke all on function public.console_account_decisions(text, bigint, int) from public, anon, authenticated;
grant execute on function public.console_account_decisions(text, bigint, int) to service_role;

create function governance.decision_trace(r governance.requests, p_facts jsonb, out trace jsonb, out facts jsonb)
  language plpgsql stable set search_path = '' as $$
declare
  v_read text[];
  v_row record;
begin
  trace := '[]';
  facts := p_facts;
  -- Rules were looked at unless a block was in force already; the one that blocked was the last.
  if r.reason is distinct from 'user_blocked'
    and (r.rule_version_id is null or r.rule_version_id = any (coalesce(r.matched_version_ids, '{}'))) then
    for v_row in
      select v.version_id, v.rule_name, v.version, v.rule,
        v.version_id = any (coalesce(r.matched_version_ids, '{}')) as matched
      from governance.rule_sets s
      cross join lateral unnest(s.version_ids) with ordinality o(version_id, n)
      join governance.rule_versions v using (version_id)
      where s.rule_set_id = r.rule_set_id order by o.n
    loop
      v_read := (governance.compile_condition(v_row.rule -> 'conditions', 'conditions', 1)).facts;
      if v_row.rule -> 'applies_to' ? 'plans' then v_read := v_read || 'plan'::text; end if;
      if v_row.rule -> 'applies_to' ? 'scopes' then v_read := v_read || 'scope_id'::text; end if;
      trace := trace || jsonb_build_object('rule_name', v_row.rule_name, 'version', v_row.version, 'mode',
        v_row.rule -> 'mode',
        'matched', v_row.matched, 'rule', v_row.rule,
        'facts', (select coalesce(jsonb_object_agg(f, facts -> f), '{}') from unnest(v_read) f));
      exit when v_row.version_id = r.rule_version_id;
      -- A route changes what the rules after it see.
      if v_row.matched and v_row.rule ->> 'mode' = 'enforce' and v_row.rule -> 'action' ? 'route' then
        facts := facts || jsonb_build_object('model', v_row.rule -> 'action' -> 'route' -> 'model',
          'provider', governance.provider_of(v_row.rule -> 'action' -> 'route' ->> 'model', r.created_at));
      end if;
    end loop;
  end if;
end
$$;
comment on function governance.decision_trace(governance.requests, jsonb) is
  'The rules that were evaluated for a call, in order, with the facts that each read; and the facts as the last one '
  'saw them.';

create function public.explain_decision(p_decision_id bigint) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
declare
  r governance.requests;
  a governance.accounts;
  v_rule governance.rule_versions;
  v_facts jsonb;
  v_trace jsonb;
  v_need bigint;
  v_have bigint;
  v_shortfall jsonb;
  v_limit jsonb;
  v_clears_at timestamptz;
  v_remedies text[] := '{}';
  v_allowance bigint;
  v_upgrade text;
  v_answer jsonb;
begin
  perform governance.refuse_others('explain_decision');
  if p_decision_id is null then
    perform governance.fail('PT400', 'invalid_argument', 'p_decision_id is needed');
  end if;
  select x.* into r from governance.requests x where x.decision_id = p_decision_id;
  if not found then
    perform governance.fail('PT404', 'not_found',
      format('There is no decision %s, or it is no longer kept', p_decision_id));
  end if;
  select x.* into strict a from governance.accounts x where x.account_id = r.account_id;
  select x.* into v_rule from governance.rule_versions x where x.version_id = r.rule_version_id;
  v_answer := to_jsonb(governance.decision_answer(r, r.facts, null, null));
  -- Only a hash and a count of the message are kept.
  v_facts := governance.facts_json(r)
    || jsonb_build_object('message', case when (r.facts).message_characters is not null then '(not kept)' end);

  select x.trace, x.facts into v_trace, v_facts from governance.decision_trace(r, v_facts) x;
  v_need := case when r.decision = 'block'
    then least(ceil((r.facts).estimated_tokens * coalesce(r.cost_factor, 1)), 9007199254740991)::bigint
    else r.reserved_tokens end;
  if r.reason = 'insufficient_tokens' and r.rule_version_id is null then
    v_have := (v_facts ->> 'available_tokens')::bigint;
    v_shortfall := jsonb_build_object('need', v_need, 'have', v_have, 'missing', v_need - v_have);
    select p.monthly_allowance into v_allowance from governance.plans p where p.plan_id = r.plan_id;
    -- The next allowance helps only if it is enough.
    if v_allowance >= v_need then v_clears_at := r.month_ends_at; end if;
  elsif r.reason in ('daily_limit', 'monthly_limit')
    and (case r.reason when 'daily_limit' then r.daily_limit else r.monthly_limit end) is not null then
    v_limit := jsonb_build_object('window', case r.reason when 'daily_limit' then 'daily' else 'monthly' end,
      'limit', case r.reason when 'daily_limit' then r.daily_limit else r.monthly_limit end,
      'used', case r.reason when 'daily_limit' then (r.facts).tokens_today else (r.facts).tokens_this_month end);
    v_have := greatest((v_limit ->> 'limit')::bigint - (v_limit ->> 'used')::bigint, 0);
    if v_need > v_have then
      -- What this call lacks. Usage beyond the limit is not part of it: used and limit show that.
      v_shortfall := jsonb_build_object('need', v_need, 'have', v_have, 'missing', v_need - v_have);
    end if;
    -- A new day or month helps only a call that fits into it.
    if v_need <= (v_limit ->> 'limit')::bigint then
      v_clears_at := case r.reason when 'daily_limit' then r.day_ends_at else r.month_ends_at end;
    end if;
  end if;
  if v_clears_at is null and v_limit is null and r.retry_after_seconds is not null then
    v_clears_at := date_trunc('second', r.created_at + r.retry_after_seconds * interval '1 second');
  end if;

  if r.decision = 'block' then
    select p.name into v_upgrade from governance.plans p where p.plan_id = r.upgrade_plan;
    if r.reason = 'insufficient_tokens' and v_shortfall is not null then
      v_remedies := v_remedies || format('Add at least %s tokens.', governance.with_separators(v_need - v_have));
      if v_have > 0 then
        v_remedies := v_remedies
          || format('Ask for less: at most %s tokens are free.', governance.with_separators(v_have));
      end if;
    elsif v_limit is not null and v_shortfall is not null then
      v_remedies := v_remedies
        || format(case r.reason when 'daily_limit' then 'Raise the daily limit to at least %s tokens.'
          else 'Raise the monthly limit to at least %s tokens.' end,
        governance.with_separators((v_limit ->> 'used')::bigint + v_need));
      if v_have > 0 then
        v_remedies := v_remedies
          || format(case r.reason when 'daily_limit' then 'Ask for less: %s tokens are left of the daily limit.'
            else 'Ask for less: %s tokens are left of the monthly limit.' end, governance.with_separators(v_have));
      end if;
    elsif r.reason = 'user_blocked' then
      v_remedies := v_remedies || 'An operator can unblock this user.'::text;
    elsif r.rule_version_id is not null and not r.rule_version_id = any (coalesce(r.matched_version_ids, '{}')) then
      v_remedies := v_remedies
        || format('The rule %s blocked this user for a while, at an earlier call: unblock the user, which forgives.',
        replace(v_rule.rule_name, '_', ' '));
    elsif r.rule_version_id is not null then
      v_remedies := v_remedies
        || format('The rule %s must not match: unblocking the user makes its message counters start again; or change '
          'the rule, or put it in shadow.',
        replace(v_rule.rule_name, '_', ' '));
    end if;
    if v_upgrade is not null then
      v_remedies := v_remedies || format('Move the user to the plan %s.', v_upgrade);
    end if;
    if v_clears_at is not null then
      v_remedies := v_remedies
        || format('Wait until %s (%s).', governance.say_moment(v_clears_at, a.timezone, 'en'),
          governance.known_zone(a.timezone));
    end if;
  end if;

  return jsonb_build_object(
    'decision_id', r.decision_id, 'request_id', r.request_id, 'user_id', a.user_id, 'at', r.created_at,
    'decision', r.decision, 'reason', r.reason, 'message', r.message, 'http_status', r.http_status,
    'rule_name', v_rule.rule_name, 'rule_version', v_rule.version,
    'requested_model', r.requested_model, 'model', r.model, 'truncate_to_words', r.truncate_to_words,
    'estimated_tokens', (r.facts).estimated_tokens, 'reserved_tokens', r.reserved_tokens, 'status', r.status,
    'shortfall', v_shortfall, 'limit', v_limit, 'clears_at', v_clears_at, 'timezone', a.timezone,
    'balance', v_answer -> 'balance', 'limits', v_answer -> 'limits',
    'warnings', coalesce(to_jsonb(r.warnings), '[]'), 'currency', (select c.currency from governance.active_config c),
    'facts', v_facts,
    'rules', v_trace,
    'remedies', to_jsonb(v_remedies),
    'language', governance.user_language(a), 'buy_url', v_answer -> 'buy_url', 'contact_url', v_answer -> 'contact_url',
    'upgrade', governance.upgrade_json(r.upgrade_plan));
end
$$;
comment on function public.explain_decision(bigint) is
  'The receipt of a decision: every rule looked at, with its version, the facts it saw and whether it matched; what '
  'was missing, when that clears, and what would have to change. Errors: invalid_argument, not_found.';
revoke all on function public.explain_decision(bigint) from public, anon, authenticated;
grant execute on function public.explain_decision(bigint) to service_role;

create function public.console_try_decision(p_decision_id bigint) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  r governance.requests;
  v_user_id text;
  v_answer jsonb;
begin
  perform governance.refuse_others('console_try_decision');
  if p_decision_id is null then
    perform governance.fail('PT400', 'invalid_argument', 'p_decision_id is needed');
  end if;
  select x.* into r from governance.requests x where x.decision_id = p_decision_id;
  if not found then
    perform governance.fail('PT404', 'not_found',
      format('There is no decision %s, or it is no longer kept', p_decision_id));
  end if;
  select a.user_id into strict v_user_id from governance.accounts a where a.account_id = r.account_id;
  -- Decided as a real call is, then rolled back: the real answer, not a guess.
  begin
    v_answer := public.authorize_usage('try ' || gen_random_uuid(), v_user_id, r.requested_model,
      (r.facts).estimated_tokens,
      null, r.conversation_id, r.task_type, r.scope_id);
    raise exception using errcode = 'PT0DR', message = 'preview';
  exception when sqlstate 'PT0DR' then null;
  end;
  return jsonb_build_object('decision', v_answer -> 'decision', 'reason', v_answer -> 'reason', 'message',
    v_answer -> 'message', 'balance', v_answer -> 'balance', 'limits', v_answer -> 'limits', 'retry_after_seconds',
    v_answer -> 'retry_after_seconds', 'estimated_tokens', (r.facts).estimated_tokens,
    'had_message', (r.facts).message_characters is not null);
end
$$;
comment on function public.console_try_decision(bigint) is
  'The answer that the same call would get now: it is decided as a call is, then rolled back. Its message is not kept, '
  'so it is asked without one (had_message says whether there was one). Errors: invalid_argument, not_found.';
revoke all on function public.console_try_decision(bigint) from public, anon, authenticated;
grant execute on function public.console_try_decision(bigint) to service_role;
