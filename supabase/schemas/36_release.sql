-- Giving a hold back: the call failed, or never used what it held.

create function governance.release_call(p_request_id text, p_reason text) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_key governance.request_keys;
  q governance.requests;
  v_account governance.accounts;
  v_now timestamptz;
begin
  select * into v_key from governance.request_keys k where k.request_id = p_request_id;
  if not found then
    perform governance.fail('PT404', 'unknown_request', format('There is no request "%s"', left(p_request_id, 64)));
  end if;
  v_account := governance.lock_account_id(v_key.account_id);
  v_now := governance.now();
  select x.* into strict q from governance.requests x
    where x.decision_id = v_key.decision_id and x.created_at = v_key.created_at;
  if q.status in ('settled', 'quarantined') then
    perform governance.fail('PT409', 'already_settled', format('Request "%s" was settled', left(p_request_id, 64)));
  elsif q.status = 'blocked' then
    perform governance.fail('PT409', 'not_authorized',
      format('Request "%s" was blocked: there is nothing to release', left(p_request_id, 64)));
  elsif q.status = 'released' and q.end_reason is distinct from p_reason then
    perform governance.fail('PT409', 'idempotency_conflict',
      format('Request "%s" was released before with another reason', left(p_request_id, 64)));
  end if;
  if q.status = 'held' then
    update governance.accounts a set
      reserved_tokens = a.reserved_tokens - q.reserved_tokens,
      holds_from = case when a.reserved_tokens > q.reserved_tokens then a.holds_from end,
      holds_check_at = case when a.reserved_tokens > q.reserved_tokens then a.holds_check_at end
    where a.account_id = q.account_id
    returning * into v_account;
    if v_account.debt_tokens > 0 and governance.recover_debt(q.account_id, v_now, p_request_id) > 0 then
      select * into strict v_account from governance.accounts a where a.account_id = q.account_id;
    end if;
    insert into governance.hold_events (created_at, kind, decision_id, account_id, tokens, reason)
    values (v_now, 'released', q.decision_id, q.account_id, q.reserved_tokens, p_reason);
  end if;
  if q.status = 'held' or (q.status = 'expired' and q.end_reserved_tokens is null) then
    -- A hold that expired keeps its status and gives nothing more back.
    update governance.requests x set
      status = case when x.status = 'held' then 'released' else x.status end,
      ended_at = coalesce(x.ended_at, v_now), end_reason = coalesce(x.end_reason, p_reason),
      released_tokens = case when x.status = 'held' then x.reserved_tokens else 0 end,
      end_subscription_tokens = v_account.subscription_tokens, end_purchased_tokens = v_account.purchased_tokens,
      end_promotional_tokens = v_account.promotional_tokens, end_reserved_tokens = v_account.reserved_tokens,
      end_debt_tokens = v_account.debt_tokens
    where x.decision_id = q.decision_id and x.created_at = q.created_at
    returning * into strict q;
    perform governance.ring('feed', v_now);
  end if;
  return governance.release_answer(governance.call_end(q));
end
$$;
comment on function governance.release_call(text, text) is 'release_usage for one call.';

create function governance.release_calls(p_calls governance.release_arguments[], p_waits boolean default true)
  returns jsonb[]
  language plpgsql set search_path = '' set enable_seqscan = off set jit = off as $$
declare
  e governance.release_arguments;
  v_is_locked boolean;
  v_answers jsonb[];
begin
  foreach e in array p_calls loop
    perform governance.check_id('p_request_id', e.request_id);
    perform governance.check_optional('p_reason', e.reason, 1000);
  end loop;
  if p_waits then
    perform pg_advisory_xact_lock(l.lock_key) from (
      select distinct k.lock_key from unnest(p_calls) u join governance.request_keys k on k.request_id = u.request_id
      order by 1) l;
  else
    -- With a limit each key is found first, and only its lock is tried: as a condition of a join it might be tried for
    -- every key there is.
    select coalesce(bool_and(pg_try_advisory_xact_lock(l.lock_key)), true) into v_is_locked
    from unnest(p_calls) u cross join lateral (
      select k.lock_key from governance.request_keys k where k.request_id = u.request_id limit 1) l;
    if not v_is_locked then
      raise lock_not_available using message = 'Another transaction holds an account of the batch';
    end if;
  end if;
  foreach e in array p_calls loop
    v_answers := array_append(v_answers, governance.release_call(e.request_id, e.reason));
  end loop;
  return v_answers;
end
$$;
comment on function governance.release_calls(governance.release_arguments[], boolean) is
  'release_usage for any number of calls in one batch: answers in the order of the calls. Raises where release_usage '
  'does, for the whole batch; and unless p_waits, where another transaction holds an account.';

create function public.release_usage(p_request_id text, p_reason text default null) returns jsonb
  language plpgsql security definer set search_path = '' as $$
begin
  perform governance.refuse_others('release_usage');
  return (governance.release_calls(array[row(p_request_id, p_reason)::governance.release_arguments]))[1];
end
$$;
comment on function public.release_usage(text, text) is
  'Gives a hold back: the call failed or was not made. A hold that had expired answers status expired and releases '
  'nothing more. Safe to repeat. Errors: invalid_argument, unknown_request, not_authorized, already_settled, '
  'idempotency_conflict.';
revoke all on function public.release_usage(text, text) from public, anon, authenticated;
grant execute on function public.release_usage(text, text) to service_role;
