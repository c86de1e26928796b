-- Many calls in one batch. What a call means is defined with the single functions; here is only how a batch is read,
-- and what becomes of it where one of its calls is refused.

create function governance.wrong_value(p_call jsonb) returns text
  language plpgsql immutable set search_path = '' as $$
declare
  v_key text;
  v_value jsonb;
  v_type text;
begin
  if jsonb_typeof(p_call) <> 'object' then return 'Each call of p_calls is a JSON object'; end if;
  for v_key, v_value in select * from jsonb_each(p_call) loop
    v_type := jsonb_typeof(v_value);
    if v_key in ('estimated_tokens', 'input_tokens', 'output_tokens', 'tokens_used') then
      continue when v_type = 'null'
        or v_type in ('number', 'string') and (v_value #>> '{}') ~ '^\s*[+-]?\d{1,18}\s*$';
      return format('p_%s is a whole number of tokens, not %s', v_key, left(v_value::text, 64));
    elsif v_key in ('complexity', 'cost_gbp') then
      continue when v_type in ('null', 'number')
        or v_type = 'string' and (v_value #>> '{}') ~* '^\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*$';
      return format('p_%s is a number, not %s', v_key, left(v_value::text, 64));
    elsif v_key = 'user_id' and v_type in ('object', 'array', 'boolean') then
      return format('p_user_id is a text, not a JSON %s', v_type);
    end if;
  end loop;
  return null;
end
$$;
comment on function governance.wrong_value(jsonb) is 'What is wrong with a call that is no object, names its user by '
  'an object, or has no number where one is needed; null where nothing is. A number is a text too, as with PostgREST.';

create function governance.check_batch(p_calls jsonb, p_keys text[]) returns jsonb
  language plpgsql immutable set search_path = '' as $$
declare
  v_call jsonb;
  v_key text;
  v_wrong text;
begin
  -- All of them at once; each by itself only where one is wrong. No key can be taken from what is no object: it fails,
  -- and wrong_value says why.
  if p_calls @? '$[*].user_id.type() ? (@ != "string")' or exists (
    select from jsonb_array_elements(p_calls) e(call) where e.call - p_keys <> '{}') then
    for v_call in select * from jsonb_array_elements(p_calls) loop
      v_wrong := governance.wrong_value(v_call);
      if v_wrong is not null then
        perform governance.fail('PT400', 'invalid_argument', v_wrong);
      elsif v_call - p_keys <> '{}' then
        select min(k) into v_key from jsonb_object_keys(v_call - p_keys) k;
        perform governance.fail('PT400', 'invalid_argument',
          format('A call has no key "%s"; it takes %s', left(v_key, 64), array_to_string(p_keys, ', ')));
      end if;
    end loop;
  end if;
  return p_calls;
end
$$;
comment on function governance.check_batch(jsonb, text[]) is 'The calls, where each is one with these keys, of a user '
  'that is a text or a number; else refuses.';

create function governance.run_calls(p_kind text, p_calls jsonb, p_waits boolean) returns jsonb
  language plpgsql set search_path = '' as $$
begin
  case p_kind
    when 'authorize' then
      p_calls := governance.check_batch(p_calls, '{request_id,user_id,model,estimated_tokens,message,conversation_id,'
        'task_type,scope_id,complexity}');
      return to_jsonb(governance.authorize_calls(array(
        select e from jsonb_populate_recordset(null::governance.authorize_arguments, p_calls) e), p_waits));
    when 'settle' then
      p_calls := governance.check_batch(p_calls, '{request_id,input_tokens,output_tokens,model,metadata}');
      return to_jsonb(governance.settle_calls(array(
        select e from jsonb_populate_recordset(null::governance.settle_arguments, p_calls) e), p_waits => p_waits));
    when 'record' then
      p_calls := governance.check_batch(p_calls, '{user_id,tokens_used,cost_gbp,model}');
      return to_jsonb(governance.record_calls(array(
        select e from jsonb_populate_recordset(null::governance.record_arguments, p_calls) e), p_waits));
    else
      p_calls := governance.check_batch(p_calls, '{request_id,reason}');
      return to_jsonb(governance.release_calls(array(
        select e from jsonb_populate_recordset(null::governance.release_arguments, p_calls) e), p_waits));
  end case;
end
$$;
comment on function governance.run_calls(text, jsonb, boolean) is
  'Runs a batch of calls of a kind (authorize, settle, release, record): answers in the order of the calls. Raises '
  'where one is refused; and unless p_waits, where another transaction holds an account.';

create function governance.lock_batch(p_kind text, p_calls jsonb) returns bigint[]
  language plpgsql set search_path = '' set lock_timeout = '500ms' set plan_cache_mode = force_generic_plan
    set enable_seqscan = off as $$
declare
  v_key bigint;
  v_busy bigint[] := '{}';
begin
  for v_key in
    select distinct case when p_kind in ('authorize', 'record') then governance.lock_key(e.call ->> 'user_id')
      else k.lock_key end
    from jsonb_array_elements(p_calls) e(call)
    left join governance.request_keys k on p_kind in ('settle', 'release') and k.request_id = e.call ->> 'request_id'
    order by 1
  loop
    -- Waiting is safe, as the locks taken so far have smaller keys; but a batch waits in vain only once.
    if v_key is null or pg_try_advisory_xact_lock(v_key) then continue; end if;
    begin
      if v_busy = '{}' then
        perform pg_advisory_xact_lock(v_key);
      else
        v_busy := v_busy || v_key;
      end if;
    exception when lock_not_available then
      v_busy := v_busy || v_key;
    end;
  end loop;
  return v_busy;
end
$$;
comment on function governance.lock_batch(text, jsonb) is 'Takes the locks of a batch''s accounts, in one order. '
  'Returns those that another transaction keeps for longer than half a second: their calls would hold up all others.';

create function governance.run_by_halves(p_kind text, p_calls jsonb) returns jsonb[]
  language plpgsql set search_path = '' as $$
declare
  v_half int := jsonb_array_length(p_calls) / 2;
  v_state text;
  v_hint text;
  v_message text;
  v_detail text;
begin
  begin
    return array(select a.answer from jsonb_array_elements(governance.run_calls(p_kind, p_calls, true)) a(answer));
  exception when others then
    get stacked diagnostics v_state = returned_sqlstate, v_hint = pg_exception_hint, v_message = message_text,
      v_detail = pg_exception_detail;
    if governance.refuses_no_call(v_state) then raise; end if;
  end;
  if v_half = 0 and v_state like '22%' and governance.wrong_value(p_calls -> 0) is not null then
    v_state := 'PT400'; v_hint := 'invalid_argument'; v_message := governance.wrong_value(p_calls -> 0);
  end if;
  if v_half = 0 then
    return array[jsonb_build_object('error', jsonb_build_object('code', v_state, 'hint', nullif(v_hint, ''), 'message',
      v_message, 'details', nullif(v_detail, '')))];
  end if;
  -- A call is refused, and nothing of the batch has happened. Each half goes by itself, until the call is alone.
  return governance.run_by_halves(p_kind, jsonb_path_query_array(p_calls, '$[0 to $end]',
      jsonb_build_object('end', v_half - 1)))
    || governance.run_by_halves(p_kind, jsonb_path_query_array(p_calls, '$[$start to last]',
      jsonb_build_object('start', v_half)));
end
$$;
comment on function governance.run_by_halves(text, jsonb) is
  'Runs a batch in which a call may be refused: its slot then holds the error. The caller has taken the locks: '
  'halves would not take them in one order.';

create function governance.refuses_no_call(p_sqlstate text) returns boolean
  language plpgsql immutable set search_path = '' as $$
begin
  return left(p_sqlstate, 2) in ('40', '53', '55', '57', '58', 'XX');
end
$$;
comment on function governance.refuses_no_call(text) is
  'Whether an error is a deadlock, a full disk or the like, and refuses no call: nothing of the batch has happened, '
  'and it can be sent again.';

create function governance.run_free_calls(p_kind text, p_calls jsonb, p_busy bigint[]) returns jsonb[]
  language plpgsql set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
declare
  v_is_busy boolean[];
  v_free jsonb;
  v_given jsonb[];
  v_answers jsonb[];
  v_next int := 1;
begin
  select array_agg(l.is_busy order by l.place), coalesce(jsonb_agg(l.call order by l.place)
      filter (where not l.is_busy), '[]')
  into v_is_busy, v_free from (
    select e.call, e.place, coalesce(case
      when p_kind in ('authorize', 'record') then governance.lock_key(e.call ->> 'user_id')
      else (select k.lock_key from governance.request_keys k where k.request_id = e.call ->> 'request_id') end
      = any (p_busy), false) as is_busy
    from jsonb_array_elements(p_calls) with ordinality e(call, place)) l;
  if v_free <> '[]' then v_given := governance.run_by_halves(p_kind, v_free); end if;
  for v_place in 1 .. cardinality(v_is_busy) loop
    if v_is_busy[v_place] then
      v_answers[v_place] := jsonb_build_object('error', jsonb_build_object('code', '55P03', 'hint', 'account_busy',
        'message', 'Another transaction holds the account: ask again', 'details', null));
    else
      v_answers[v_place] := v_given[v_next];
      v_next := v_next + 1;
    end if;
  end loop;
  return v_answers;
end
$$;
comment on function governance.run_free_calls(text, jsonb, bigint[]) is
  'Runs a batch without the calls of accounts whose locks (p_busy) could not be had; those are refused in their slots.';

create function governance.answer_batch(p_kind text, p_calls jsonb) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_busy bigint[];
begin
  if jsonb_typeof(p_calls) is distinct from 'array' or jsonb_array_length(p_calls) > 500 then
    perform governance.fail('PT400', 'invalid_argument', 'p_calls is a JSON array of at most 500 calls');
  elsif p_calls = '[]' then
    return '[]';
  end if;
  -- Nearly always no account is held by another, and no call is refused.
  begin
    return governance.run_calls(p_kind, p_calls, false);
  exception
    when lock_not_available then null;
    when others then
      if governance.refuses_no_call(sqlstate) then raise; end if;
  end;
  -- Nothing has happened and no lock is kept. Now wait: first take all locks, then run each call by itself if need
  -- be.
  v_busy := governance.lock_batch(p_kind, p_calls);
  if v_busy = '{}' then return to_jsonb(governance.run_by_halves(p_kind, p_calls)); end if;
  return to_jsonb(governance.run_free_calls(p_kind, p_calls, v_busy));
end
$$;
comment on function governance.answer_batch(text, jsonb) is 'The answers of a batch, after a look at its size.';

create function public.authorize_usage_many(p_calls jsonb) returns jsonb
  language plpgsql security definer set search_path = '' as $$
begin
  if current_setting('role') <> 'service_role' then perform governance.refuse_others('authorize_usage_many'); end if;
  return governance.answer_batch('authorize', p_calls);
end
$$;
comment on function public.authorize_usage_many(jsonb) is
  'authorize_usage for an array of at most 500 calls, objects with its parameters without p_. Returns an array in '
  'the same order: what authorize_usage answers, or {"error": {code, hint, message, details}} where it would refuse. '
  'Errors of the whole: invalid_argument.';
revoke all on function public.authorize_usage_many(jsonb) from public, anon, authenticated;
grant execute on function public.authorize_usage_many(jsonb) to service_role;

create function public.settle_usage_many(p_calls jsonb) returns jsonb
  language plpgsql security definer set search_path = '' as $$
begin
  if current_setting('role') <> 'service_role' then perform governance.refuse_others('settle_usage_many'); end if;
  return governance.answer_batch('settle', p_calls);
end
$$;
comment on function public.settle_usage_many(jsonb) is
  'settle_usage for an array of at most 500 calls, objects with its parameters without p_. Returns an array in the '
  'same order: what settle_usage answers, or {"error": {code, hint, message, details}} where it would refuse. '
  'Errors of the whole: invalid_argument.';
revoke all on function public.settle_usage_many(jsonb) from public, anon, authenticated;
grant execute on function public.settle_usage_many(jsonb) to service_role;

create function public.release_usage_many(p_calls jsonb) returns jsonb
  language plpgsql security definer set search_path = '' as $$
begin
  if current_setting('role') <> 'service_role' then perform governance.refuse_others('release_usage_many'); end if;
  return governance.answer_batch('release', p_calls);
end
$$;
comment on function public.release_usage_many(jsonb) is
  'release_usage for an array of at most 500 calls, objects with its parameters without p_. Returns an array in the '
  'same order: what release_usage answers, or {"error": {code, hint, message, details}} where it would refuse. '
  'Errors of the whole: invalid_argument.';
revoke all on function public.release_usage_many(jsonb) from public, anon, authenticated;
grant execute on function public.release_usage_many(jsonb) to service_role;

create type governance.record_arguments as (user_id text, tokens_used bigint, cost_gbp numeric, model text);

create function governance.check_record(e governance.record_arguments) returns void
  language plpgsql immutable set search_path = '' as $$
begin
  perform governance.check_id('p_user_id', e.user_id);
  if e.tokens_used is null or e.tokens_used not between 1 and 9007199254740991 then
    perform governance.fail('PT400', 'invalid_argument',
      'p_tokens_used is a whole number of tokens from 1 up to 2^53 - 1');
  end if;
  if e.cost_gbp = 'NaN' or e.cost_gbp not between 0 and 1000000000 then
    perform governance.fail('PT400', 'invalid_argument', 'p_cost_gbp is an amount of pounds from 0 to 1,000,000,000');
  end if;
end
$$;
comment on function governance.check_record(governance.record_arguments) is
  'Refuses arguments that record_token_usage cannot take.';

create function governance.record_metadata(e governance.record_arguments) returns jsonb
  language plpgsql stable set search_path = '' as $$
begin
  if e.cost_gbp is null then return '{}'; end if;
  return jsonb_build_object('cost_gbp', round(e.cost_gbp, 12))
    || case when (select c.currency from governance.active_config c) = 'gbp'
      then jsonb_build_object('stated_cost_micros', round(e.cost_gbp * 1000000)::bigint) else '{}' end;
end
$$;
comment on function governance.record_metadata(governance.record_arguments) is
  'The metadata that record_token_usage adds to a settlement: the caller''s own bill.';

create function governance.record_answer(d governance.authorization, s governance.settlement) returns jsonb
  language plpgsql stable set search_path = '' as $$
begin
  if d.decision = 'block' then
    return jsonb_build_object('success', false, 'error', d.message, 'reason', d.reason,
      'tokens_remaining', least((d.balance).available, ((d.limits).daily).remaining, ((d.limits).monthly).remaining),
      'http_status', d.http_status, 'upgrade', d.upgrade, 'retry_after_seconds', d.retry_after_seconds,
      'request_id', d.request_id, 'decision_id', d.decision_id);
  end if;
  return jsonb_build_object('success', s.status = 'settled',
    'error', case when s.status <> 'settled' then 'The usage is above the ceiling and waits for a person' end,
    'reason', nullif(s.status, 'settled'),
    'tokens_remaining', least((s.balance).available, ((d.limits).daily).remaining, ((d.limits).monthly).remaining),
    'warnings', d.warnings, 'cost_micros', s.cost_micros, 'currency', s.currency, 'alerts', s.alerts,
    'request_id', d.request_id, 'decision_id', d.decision_id);
end
$$;
comment on function governance.record_answer(governance.authorization, governance.settlement) is
  'The answer of record_token_usage.';

create function governance.record_calls(p_calls governance.record_arguments[], p_waits boolean default true)
  returns jsonb[]
  language plpgsql set search_path = '' as $$
declare
  e governance.record_arguments;
  d governance.authorization;
  v_places int[];
  v_calls governance.authorize_arguments[];
  v_ends governance.settle_arguments[];
  v_decisions governance.authorization[];
  v_settlements governance.settlement[];
  v_settled int;
  v_answers jsonb[];
begin
  foreach e in array p_calls loop
    perform governance.check_record(e);
  end loop;
  -- In rounds of one call of each account: it is settled before the account's next one is decided, as one by one. The
  -- first round has every account, so that it takes all locks.
  for v_places in
    select array_agg(n.place order by n.place) from (
      select u.place::int, row_number() over (partition by u.user_id order by u.place) as round
      from unnest(p_calls) with ordinality u(user_id, tokens_used, cost_gbp, model, place)) n
    group by n.round order by n.round
  loop
    v_calls := null; v_ends := null; v_settlements := null; v_settled := 0;
    for v_at in 1 .. cardinality(v_places) loop
      e := p_calls[v_places[v_at]];
      v_calls := array_append(v_calls, row('record-' || gen_random_uuid(), e.user_id, coalesce(e.model, 'unknown'),
        e.tokens_used, null, null, null, null, null)::governance.authorize_arguments);
    end loop;
    v_decisions := governance.authorize_calls(v_calls, p_waits);
    for v_at in 1 .. cardinality(v_places) loop
      d := v_decisions[v_at];
      e := p_calls[v_places[v_at]];
      if d.decision <> 'block' then
        v_ends := array_append(v_ends, row(d.request_id, e.tokens_used, 0, e.model,
          governance.record_metadata(e))::governance.settle_arguments);
      end if;
    end loop;
    if v_ends is not null then v_settlements := governance.settle_calls(v_ends); end if;
    for v_at in 1 .. cardinality(v_places) loop
      d := v_decisions[v_at];
      if d.decision <> 'block' then v_settled := v_settled + 1; end if;
      v_answers[v_places[v_at]] := governance.record_answer(d,
        case when d.decision <> 'block' then v_settlements[v_settled] end);
    end loop;
  end loop;
  return v_answers;
end
$$;
comment on function governance.record_calls(governance.record_arguments[], boolean) is
  'record_token_usage for any number of calls in one batch: answers in the order of the calls. Raises where '
  'record_token_usage does, for the whole batch; and unless p_waits, where another transaction holds an account.';

create function public.record_token_usage(p_user_id text, p_tokens_used bigint, p_cost_gbp numeric default null,
  p_model text default null) returns jsonb
  language plpgsql security definer set search_path = '' as $$
begin
  perform governance.refuse_others('record_token_usage');
  return (governance.record_calls(array[row(p_user_id, p_tokens_used, p_cost_gbp,
    p_model)::governance.record_arguments]))[1];
end
$$;
comment on function public.record_token_usage(text, bigint, numeric, text) is
  'Authorises and settles in one, for callers that know the tokens already: success, or error and reason. p_cost_gbp '
  'counts only where the model has no price and the preset''s currency is gbp. Errors: invalid_argument, '
    'not_configured.';
revoke all on function public.record_token_usage(text, bigint, numeric, text) from public, anon, authenticated;
grant execute on function public.record_token_usage(text, bigint, numeric, text) to service_role;

create function public.record_token_usage_many(p_calls jsonb) returns jsonb
  language plpgsql security definer set search_path = '' as $$
begin
  perform governance.refuse_others('record_token_usage_many');
  return governance.answer_batch('record', p_calls);
end
$$;
comment on function public.record_token_usage_many(jsonb) is
  'record_token_usage for an array of at most 500 calls, objects with its parameters without p_. Returns an array in '
  'the same order: what record_token_usage answers, or {"error": {code, hint, message, details}} where it would '
  'refuse. Like the single function it has no id of the caller''s: not safe to repeat. Errors of the whole: '
  'invalid_argument.';
revoke all on function public.record_token_usage_many(jsonb) from public, anon, authenticated;
grant execute on function public.record_token_usage_many(jsonb) to service_role;
