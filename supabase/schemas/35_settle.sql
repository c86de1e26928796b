-- The path of a call, second half: what was used is charged. One function ends any number of calls in one batch; a
-- single call is a batch of one.

-- What a settlement changes of its account: counted in memory from call to call, written once.
create type governance.settle_state as (account_id bigint, last_transaction_id bigint, last_hash bytea,
  day_tokens bigint, month_tokens bigint, day_cost_micros bigint, month_cost_micros bigint,
  subscription_tokens bigint, purchased_tokens bigint, promotional_tokens bigint, reserved_tokens bigint,
  debt_tokens bigint,
  -- The lot that is spent next, what is left of it, and what this batch took out of it
  lot_id bigint, lot_kind text, lot_left bigint, lot_taken bigint,
  -- This account's calls that have ended in this batch
  ended bigint[]);

create function governance.repeated_end(p_request_id text, p_decision_id bigint, p_created_at timestamptz,
  p_fingerprint bigint) returns governance.call_end
  language plpgsql stable set search_path = '' as $$
declare
  q governance.requests;
begin
  select * into strict q from governance.requests x
    where x.decision_id = p_decision_id and x.created_at = p_created_at;
  if q.status = 'released' then
    perform governance.fail('PT409', 'already_released', format('Request "%s" was released', left(p_request_id, 64)));
  elsif q.status = 'blocked' then
    perform governance.fail('PT409', 'not_authorized',
      format('Request "%s" was blocked: there is nothing to settle', left(p_request_id, 64)));
  elsif q.settle_fingerprint <> p_fingerprint then
    perform governance.fail('PT409', 'idempotency_conflict',
      format('Request "%s" was settled before with other parameters', left(p_request_id, 64)));
  end if;
  return governance.call_end(q);
end
$$;
comment on function governance.repeated_end(text, bigint, timestamptz, bigint) is
  'How a call that is settled again has ended, or why it cannot be settled.';

create function governance.write_ends(p_entries governance.token_transactions[], p_ends governance.call_end[],
  p_ids bigint[], p_states governance.settle_state[], p_now timestamptz, p_oldest timestamptz, p_newest timestamptz)
  returns boolean
  language plpgsql set search_path = '' as $$
declare
  v_usage governance.usage_daily[];
  v_end governance.call_end;
  s governance.settle_state;
begin
  if cardinality(p_states) = 1 then
    -- One account, as of a call alone, is written by its key: an array as a table costs as much as the row.
    s := p_states[1];
    update governance.lots y set
      remaining = y.remaining - s.lot_taken, spent = y.spent + s.lot_taken,
      is_open = y.remaining - s.lot_taken + y.frozen > 0
    where y.lot_id = s.lot_id and s.lot_taken > 0;
    update governance.accounts y set
      last_activity_at = p_now, last_transaction_id = s.last_transaction_id, last_hash = s.last_hash,
      day_tokens = s.day_tokens, month_tokens = s.month_tokens,
      day_cost_micros = s.day_cost_micros, month_cost_micros = s.month_cost_micros,
      subscription_tokens = s.subscription_tokens, purchased_tokens = s.purchased_tokens,
      promotional_tokens = s.promotional_tokens, reserved_tokens = s.reserved_tokens, debt_tokens = s.debt_tokens,
      holds_from = case when s.reserved_tokens > 0 then y.holds_from end,
      holds_check_at = case when s.reserved_tokens > 0 then y.holds_check_at end
    where y.account_id = s.account_id;
  else
    update governance.lots y set
      remaining = y.remaining - n.lot_taken, spent = y.spent + n.lot_taken,
      is_open = y.remaining - n.lot_taken + y.frozen > 0
    from unnest(p_states) n where y.lot_id = n.lot_id and n.lot_taken > 0;
    update governance.accounts y set
      last_activity_at = p_now, last_transaction_id = n.last_transaction_id, last_hash = n.last_hash,
      day_tokens = n.day_tokens, month_tokens = n.month_tokens,
      day_cost_micros = n.day_cost_micros, month_cost_micros = n.month_cost_micros,
      subscription_tokens = n.subscription_tokens, purchased_tokens = n.purchased_tokens,
      promotional_tokens = n.promotional_tokens, reserved_tokens = n.reserved_tokens, debt_tokens = n.debt_tokens,
      holds_from = case when n.reserved_tokens > 0 then y.holds_from end,
      holds_check_at = case when n.reserved_tokens > 0 then y.holds_check_at end
    from unnest(p_states) n where y.account_id = n.account_id;
  end if;
  insert into governance.token_transactions select * from unnest(p_entries);
  -- One call needs no sums.
  if cardinality(p_ends) = 1 then
    v_end := p_ends[1];
    if v_end.status = 'settled' then
      v_usage := array[row(v_end.account_id, v_end.day, v_end.model, coalesce(v_end.task_type, ''),
        coalesce(v_end.scope_id, ''), 1, v_end.messages, v_end.input_tokens, v_end.output_tokens, v_end.charged_tokens,
        coalesce(v_end.cost_micros, 0), p_now, p_now)::governance.usage_daily];
    end if;
  else
    select array_agg(n.usage) into v_usage from (
      select row(u.account_id, u.day, u.model, coalesce(u.task_type, ''), coalesce(u.scope_id, ''), count(*),
        sum(u.messages), sum(u.input_tokens), sum(u.output_tokens), sum(u.charged_tokens),
        sum(coalesce(u.cost_micros, 0)), p_now, p_now)::governance.usage_daily as usage
      from unnest(p_ends) u where u.status = 'settled'
      group by u.account_id, u.day, u.model, coalesce(u.task_type, ''), coalesce(u.scope_id, '')) n;
  end if;
  insert into governance.usage_daily as y select * from unnest(v_usage)
  on conflict (account_id, day, model, task_type, scope_id) do update set
    calls = y.calls + excluded.calls, messages = y.messages + excluded.messages,
    input_tokens = y.input_tokens + excluded.input_tokens, output_tokens = y.output_tokens + excluded.output_tokens,
    charged_tokens = y.charged_tokens + excluded.charged_tokens, cost_micros = y.cost_micros + excluded.cost_micros,
    first_activity_at = least(y.first_activity_at, excluded.first_activity_at),
    last_activity_at = greatest(y.last_activity_at, excluded.last_activity_at);
  update governance.requests y set
    status = e.status, ended_at = p_now, usage_day = e.day, settled_model = e.model, provider = e.provider,
    input_tokens = e.input_tokens, output_tokens = e.output_tokens, cached_input_tokens = e.cached_input_tokens,
    cache_write_tokens = e.cache_write_tokens, reasoning_tokens = e.reasoning_tokens,
    charged_tokens = e.charged_tokens, released_tokens = e.released_tokens, unpaid_tokens = e.unpaid_tokens,
    cost_micros = e.cost_micros, currency = e.currency, settle_fingerprint = e.settle_fingerprint,
    transaction_id = e.transaction_id, alerts = nullif(e.alerts, '[]'),
    settle_metadata = nullif(e.settle_metadata, '{}'),
    end_subscription_tokens = e.subscription_tokens, end_purchased_tokens = e.purchased_tokens,
    end_promotional_tokens = e.promotional_tokens, end_reserved_tokens = e.reserved_tokens,
    end_debt_tokens = e.debt_tokens
  from unnest(p_ends) e where y.decision_id = e.decision_id and y.created_at = e.created_at
    -- So that every plan goes by the key, also one that was made while the table was empty.
    and y.decision_id = any (p_ids) and y.created_at >= p_oldest and y.created_at <= p_newest;
  return true;
end
$$;
comment on function governance.write_ends(governance.token_transactions[], governance.call_end[], bigint[],
  governance.settle_state[], timestamptz, timestamptz, timestamptz) is
  'Writes what governance.settle_calls charged. Returns true, for use in an expression: "perform" costs five times.';

create function governance.recover_at_end(e governance.call_end, p_now timestamptz) returns governance.call_end
  language plpgsql set search_path = '' as $$
declare
  q governance.requests;
begin
  perform governance.recover_debt(e.account_id, p_now, e.request_id);
  update governance.requests y set end_subscription_tokens = a.subscription_tokens,
    end_purchased_tokens = a.purchased_tokens, end_promotional_tokens = a.promotional_tokens,
    end_debt_tokens = a.debt_tokens
  from governance.accounts a
  where a.account_id = e.account_id and y.decision_id = e.decision_id and y.created_at = e.created_at
  returning y.* into strict q;
  return governance.call_end(q);
end
$$;
comment on function governance.recover_at_end(governance.call_end, timestamptz) is
  'Pays debt out of tokens that the end of a call made free; returns that end with the balance after it.';

-- A call as it was read when it was to be settled, with what its account had then.
create type governance.read_call as (place int, decision_id bigint, created_at timestamptz, account_id bigint,
  status text, reserved_tokens bigint, cost_factor numeric, model text, task_type text, scope_id text,
  is_message boolean, user_id text, plan_id text, local_day date, due_at timestamptz, raised_until timestamptz,
  state governance.settle_state);

-- Without a search path it is inlined, into the reading of one call and of many.
create function governance.read_call(p_place int, p_decision_id bigint, p_created_at timestamptz, p_account_id bigint,
  p_oldest timestamptz, p_newest timestamptz) returns setof governance.read_call
  language sql stable as $$
  select p_place, p_decision_id, p_created_at, p_account_id, q.status,
    q.reserved_tokens, q.cost_factor, q.model, q.task_type, q.scope_id, q.message_hash is not null,
    a.user_id, a.plan_id, a.local_day, least(a.day_ends_at, a.month_ends_at, a.lots_check_at, a.holds_check_at),
    greatest(a.raised_daily_until, a.raised_monthly_until),
    row(a.account_id, a.last_transaction_id, a.last_hash, a.day_tokens, a.month_tokens, a.day_cost_micros,
      a.month_cost_micros, a.subscription_tokens, a.purchased_tokens, a.promotional_tokens, a.reserved_tokens,
      a.debt_tokens, l.lot_id, l.kind, l.remaining, 0, null)::governance.settle_state
  -- Fewest columns first, as each join hands on all. With a limit or an offset each row is found by its key, also by a
  -- plan that was made while the table was empty.
  from (select) one
  left join lateral (
    select y.lot_id, y.kind, y.remaining from governance.lots y
    where y.account_id = p_account_id and y.is_open and y.remaining > 0
    order by y.expires_at nulls last, case y.kind when 'subscription' then 0 when 'promotional' then 1 else 2 end,
      y.created_at, y.lot_id limit 1) l on true
  left join lateral (
    select y.status, y.reserved_tokens, y.cost_factor, y.model, y.task_type, y.scope_id, y.message_hash
    from governance.requests y where y.decision_id = p_decision_id and y.created_at = p_created_at
      and y.created_at >= p_oldest and y.created_at <= p_newest limit 1) q on true
  left join lateral (
    select y.account_id, y.user_id, y.plan_id, y.local_day, y.day_ends_at, y.month_ends_at, y.lots_check_at,
      y.holds_check_at, y.raised_daily_until, y.raised_monthly_until, y.last_transaction_id, y.last_hash, y.day_tokens,
      y.month_tokens, y.day_cost_micros, y.month_cost_micros, y.subscription_tokens, y.purchased_tokens,
      y.promotional_tokens, y.reserved_tokens, y.debt_tokens
    from governance.accounts y where y.account_id = p_account_id offset 0) a on true
$$;
comment on function governance.read_call(int, bigint, timestamptz, bigint, timestamptz, timestamptz) is
  'A call and its account as governance.settle_calls reads them.';

create function governance.settle_state(p_account_id bigint) returns governance.settle_state
  language sql stable set search_path = '' as $$
  select r.state from governance.read_call(1, null, null, p_account_id, null, null) r
$$;
comment on function governance.settle_state(bigint) is 'The sums to which governance.settle_calls adds.';

create function governance.settle_calls(p_calls governance.settle_arguments[], p_above_ceiling boolean default false,
  p_waits boolean default true) returns governance.settlement[]
  language plpgsql set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off
    set jit = off as $$
declare
  v_config governance.active_config;
  v_count int := cardinality(p_calls);
  -- Reading a variable costs a fifth of calling a function.
  v_is_alone boolean := v_count = 1;
  -- A call, what was read of it and of its account, and what this batch changed so far
  v_call governance.settle_arguments;
  v_read governance.read_call;
  v_reads governance.read_call[];
  v_state governance.settle_state;
  v_account_id bigint;
  v_spent governance.lot_spending;
  v_end governance.call_end;
  v_key governance.request_keys;
  v_keys governance.request_keys[];
  v_oldest timestamptz;
  v_newest timestamptz;
  v_now timestamptz;
  v_is_locked boolean;
  v_fingerprint bigint;
  v_model text;
  v_made_at timestamptz;
  -- Of the price; where one is known, its provider is too.
  v_provider text;
  v_input_price bigint;
  v_output_price bigint;
  v_long_context bigint;
  -- Of the account's plan, with limits that were raised for a while
  v_plan_id text;
  v_daily_limit bigint;
  v_monthly_limit bigint;
  v_warn_at int[];
  v_unpriced text;
  v_charged bigint;
  v_total bigint;
  v_take bigint;
  v_reserved bigint;
  v_cost bigint;
  v_transaction_id bigint;
  v_hash bytea;
  v_alerts jsonb;
  v_ended bigint[];
  v_entries governance.token_transactions[];
  v_ends governance.call_end[];
  v_ids bigint[];
  v_states governance.settle_state[];
  v_is_written boolean;
  v_answers governance.settlement[];
begin
  foreach v_call in array p_calls loop
    if v_call.request_id is null or length(v_call.request_id) not between 1 and 255 or v_call.input_tokens is null
      or v_call.output_tokens is null or v_call.input_tokens not between 0 and 9007199254740991
      or v_call.output_tokens not between 0 and 9007199254740991 or v_call.model is not null
      or v_call.metadata <> '{}' then
      perform governance.check_settle(v_call);
    end if;
  end loop;
  -- All accounts' locks, always in the same order: no two batches wait for each other.
  if v_is_alone then
    select * into v_key from governance.request_keys k where k.request_id = v_call.request_id;
    -- An expression costs a fifth of "perform", which runs a statement.
    v_is_locked := case when v_key.lock_key is null then true when p_waits then
      pg_advisory_xact_lock(v_key.lock_key) is not null else pg_try_advisory_xact_lock(v_key.lock_key) end;
    v_oldest := v_key.created_at; v_newest := v_key.created_at;
    select * into v_read
    from governance.read_call(1, v_key.decision_id, v_oldest, v_key.account_id, v_oldest, v_newest);
  else
    if p_waits then
      perform pg_advisory_xact_lock(l.lock_key) from (
        select distinct k.lock_key from unnest(p_calls) u join governance.request_keys k on k.request_id = u.request_id
        order by 1) l;
    end if;
    select array_agg(l.key), min(l.created_at), max(l.created_at),
      coalesce(bool_and(pg_try_advisory_xact_lock(l.lock_key)), true)
    into v_keys, v_oldest, v_newest, v_is_locked from (
      select k.key, k.created_at, k.lock_key
      from unnest(p_calls) with ordinality u(request_id, input_tokens, output_tokens, model, metadata, place)
      -- With a limit each is found by its key, also by a plan that was made while the table was empty.
      left join lateral (
        select y as key, y.created_at, y.lock_key from governance.request_keys y where y.request_id = u.request_id
        limit 1) k on true
      order by u.place) l;
    -- Calls of one account one after another, in their order.
    v_reads := array(select e from unnest(v_keys) with ordinality k(request_id, created_at, decision_id, account_id,
      lock_key, message_hash, place)
      cross join lateral governance.read_call(k.place::int, k.decision_id, k.created_at, k.account_id, v_oldest,
        v_newest) e
      order by k.account_id, k.place);
  end if;
  if not v_is_locked then
    raise lock_not_available using message = 'Another transaction holds an account of the batch';
  end if;
  select * into v_config from governance.active_config;
  -- The transaction number before any event id: readers of the feed rely on it.
  v_now := case when pg_current_xact_id() is not null then
    coalesce(v_config.test_clock_at, clock_timestamp() + coalesce(v_config.test_clock_offset, interval '0')) end;

  for v_at in 1 .. v_count loop
    if not v_is_alone then
      v_read := v_reads[v_at];
      v_call := p_calls[v_read.place];
    end if;
    if v_read.decision_id is null then
      perform governance.fail('PT404', 'unknown_request',
        format('There is no request "%s"', left(v_call.request_id, 64)));
    end if;
    -- As governance.needs_roll. What was read before of the account and its calls is out of date.
    if v_read.due_at <= v_now then
      if v_read.account_id is distinct from v_account_id then
        perform governance.roll_account(v_read.account_id, v_now);
      end if;
      select * into v_read from governance.read_call(v_read.place, v_read.decision_id, v_read.created_at,
        v_read.account_id, v_oldest, v_newest);
    end if;
    if v_read.account_id is distinct from v_account_id then
      if v_state.ended is not null then v_states := array_append(v_states, v_state); end if;
      v_state := v_read.state;
      v_account_id := v_read.account_id;
      -- Most accounts of a batch are on the plan of the one before.
      if v_read.plan_id is distinct from v_plan_id then
        select y.plan_id, y.daily_limit, y.monthly_limit, y.warn_at
        into v_plan_id, v_daily_limit, v_monthly_limit, v_warn_at
        from governance.plans y where y.plan_id = v_read.plan_id;
      end if;
      if v_read.raised_until > v_now then
        v_plan_id := null;
        select governance.raised_limit(v_daily_limit, y.raised_daily_limit, y.raised_daily_until, v_now),
          governance.raised_limit(v_monthly_limit, y.raised_monthly_limit, y.raised_monthly_until, v_now)
        into v_daily_limit, v_monthly_limit
        from governance.accounts y where y.account_id = v_read.account_id;
      end if;
    end if;
    -- The price is the one of the moment of the call (governance.price_at). Calls that were asked together share it.
    if (v_model = coalesce(v_call.model, v_read.model) and v_made_at = v_read.created_at) is not true then
      v_model := coalesce(v_call.model, v_read.model);
      v_made_at := v_read.created_at;
      select y.provider, y.input_micros_per_million, y.output_micros_per_million, y.long_context_above_tokens
      into v_provider, v_input_price, v_output_price, v_long_context
      from governance.prices y where y.model = v_model and y.effective_from <= v_made_at
        and (y.retired_at is null or y.retired_at > v_made_at)
      order by y.effective_from desc, y.created_at, y.provider collate "C" limit 1;
    end if;
    v_fingerprint := hashtextextended(row(v_call.input_tokens, v_call.output_tokens, v_call.model,
      coalesce(v_call.metadata, '{}'))::text, 0);
    v_reserved := v_state.reserved_tokens - case v_read.status when 'held' then v_read.reserved_tokens else 0 end;
    -- What few calls need is in a branch of its own: an expression is prepared as a whole, also the parts that do not
    -- run.
    v_charged := v_call.input_tokens + v_call.output_tokens;
    if v_read.cost_factor is not null then
      v_charged := least(ceil(v_charged * v_read.cost_factor), 9007199254740992);
    end if;
    if (v_read.status in ('held', 'expired') or v_read.status = 'quarantined' and p_above_ceiling) is not true
      or v_read.decision_id = any (v_state.ended) then
      -- It has ended before, perhaps in this very batch.
      if v_ends is not null then
        v_is_written := governance.write_ends(v_entries, v_ends, v_ids, case when v_state.ended is null then v_states
          else array_append(v_states, v_state) end, v_now, v_oldest, v_newest);
        v_entries := null; v_ends := null; v_ids := null; v_states := null; v_state.lot_taken := 0;
      end if;
      v_end := governance.repeated_end(v_call.request_id, v_read.decision_id, v_read.created_at, v_fingerprint);
    elsif v_charged > v_config.settle_ceiling_tokens and not p_above_ceiling then
      v_end := row(v_read.decision_id, v_read.created_at, v_read.account_id, v_call.request_id, 'quarantined', v_model,
        null, v_call.input_tokens, v_call.output_tokens, null, null, null, 0, v_state.reserved_tokens - v_reserved, 0,
        null, v_config.currency, v_fingerprint, null, null, v_call.metadata, v_state.subscription_tokens,
        v_state.purchased_tokens, v_state.promotional_tokens, v_reserved, v_state.debt_tokens, null, null, null,
        null)::governance.call_end;
      v_end.alerts := governance.quarantine_call(v_end, ceil((v_call.input_tokens + v_call.output_tokens)
        * coalesce(v_read.cost_factor, 1)), v_config.settle_ceiling_tokens, v_now);
      v_ends := array_append(v_ends, v_end);
      v_ids := array_append(v_ids, v_read.decision_id);
      v_state.reserved_tokens := v_reserved;
      v_state.ended := v_state.ended || v_read.decision_id;
    else
      if v_charged > 9007199254740991 then
        perform governance.fail('PT400', 'invalid_argument', 'More than 2^53 - 1 tokens cannot be charged');
      end if;
      if v_provider is not null and coalesce(v_call.metadata, '{}') = '{}'
        and coalesce(v_call.input_tokens <= v_long_context, true)
        and greatest(v_call.input_tokens, v_call.output_tokens, v_input_price, v_output_price) < 1000000000 then
        -- The formula of governance.cost_micros where nothing of it can leave bigint.
        v_cost := (v_call.input_tokens * v_input_price + v_call.output_tokens * v_output_price + 500000) / 1000000;
      elsif v_provider is not null then
        v_cost := governance.cost_micros(governance.price_at(v_model, v_made_at), v_made_at, v_call.input_tokens,
          v_call.output_tokens, v_call.metadata);
      else
        -- No price is known, but the caller's own bill may be (record_token_usage).
        v_cost := case when v_call.metadata ? 'stated_cost_micros' then
          governance.token_part(v_call.metadata, 'stated_cost_micros') end;
      end if;
      v_total := v_state.subscription_tokens + v_state.purchased_tokens + v_state.promotional_tokens;
      -- What the hold kept, then what is free; the rest is debt.
      v_take := least(v_charged, v_total - v_reserved);
      if v_take > coalesce(v_state.lot_left, 0) then
        if v_state.lot_taken > 0 then
          v_states := array_append(v_states, v_state);
          v_is_written := governance.write_ends(v_entries, v_ends, v_ids, v_states, v_now, v_oldest, v_newest);
          v_entries := null; v_ends := null; v_ids := null; v_states := null; v_state.lot_taken := 0;
        end if;
        v_spent := governance.spend_lots(v_read.account_id, v_take);
        v_state.lot_id := null;
      else
        v_spent := row(v_take, case v_state.lot_kind when 'subscription' then -v_take else 0 end,
          case v_state.lot_kind when 'purchased' then -v_take else 0 end,
          case v_state.lot_kind when 'promotional' then -v_take else 0 end,
          case when v_take > 0 then array[v_state.lot_id, -v_take] else '{}' end)::governance.lot_spending;
      end if;
      v_transaction_id := nextval('governance.event_ids');
      v_hash := governance.entry_hash(v_state.last_hash, governance.entry_payload(v_transaction_id, v_now, 'usage',
        -v_take, v_total, v_total - v_take, v_state.debt_tokens + v_charged - v_take, v_spent.lot_changes,
        v_read.decision_id, v_read.user_id, v_call.request_id, null, null));
      v_entries := array_append(v_entries, row(v_transaction_id, v_read.account_id, v_now, 'usage', -v_take, v_total,
        v_total - v_take, v_state.debt_tokens + v_charged - v_take, v_spent.lot_changes, v_call.request_id,
        v_read.decision_id, null, null, v_state.last_hash, v_hash,
        pg_current_xact_id())::governance.token_transactions);
      v_alerts := null;
      if v_cost is null then
        v_unpriced := case when v_provider is null then v_model
          else governance.unpriced_part(v_call.metadata, v_read.created_at) end;
        v_alerts := jsonb_build_array(jsonb_build_object('type', 'unknown_price', 'severity', 'info', 'message',
          format('No price is known for model %s', v_unpriced), 'details', jsonb_build_object('model', v_unpriced)));
        perform governance.raise_unknown_price(v_unpriced, v_now);
      end if;
      if v_charged > v_take or v_charged > v_config.alert_operation_above
        or v_total - v_take < v_config.alert_balance_below
        or (v_daily_limit > 0 and (v_state.day_tokens + v_charged) * 100 >= v_daily_limit * v_warn_at[1])
        or (v_monthly_limit > 0 and (v_state.month_tokens + v_charged) * 100 >= v_monthly_limit * v_warn_at[1]) then
        v_alerts := coalesce(v_alerts, '[]') || governance.settlement_alerts(v_read.account_id, v_now, v_charged,
          v_charged - v_take, v_total, v_total - v_take, v_config.low_balance_tokens, v_config.high_usage_tokens,
          v_daily_limit, v_state.day_tokens, v_monthly_limit, v_state.month_tokens, v_warn_at, v_read.local_day,
          jsonb_build_object('request_id', v_call.request_id, 'decision_id', v_read.decision_id));
      end if;
      v_end := row(v_read.decision_id, v_read.created_at, v_read.account_id, v_call.request_id, 'settled', v_model,
        v_provider, v_call.input_tokens, v_call.output_tokens, null, null, null, v_charged,
        greatest(v_state.reserved_tokens - v_reserved - v_charged, 0), v_charged - v_take, v_cost, v_config.currency,
        v_fingerprint, v_transaction_id, v_alerts, v_call.metadata,
        v_state.subscription_tokens + v_spent.subscription, v_state.purchased_tokens + v_spent.purchased,
        v_state.promotional_tokens + v_spent.promotional, v_reserved, v_state.debt_tokens + v_charged - v_take,
        v_read.local_day, v_read.task_type, v_read.scope_id,
        case when v_read.is_message then 1 else 0 end)::governance.call_end;
      if v_call.metadata <> '{}' then
        v_end.cached_input_tokens := nullif(governance.token_part(v_call.metadata, 'cached_input_tokens'), 0);
        v_end.cache_write_tokens := nullif(governance.token_part(v_call.metadata, 'cache_write_tokens'), 0);
        v_end.reasoning_tokens := nullif(governance.token_part(v_call.metadata, 'reasoning_tokens'), 0);
      end if;
      v_ends := array_append(v_ends, v_end);
      v_ids := array_append(v_ids, v_read.decision_id);
      v_state := row(v_state.account_id, v_transaction_id, v_hash, v_state.day_tokens + v_charged,
        v_state.month_tokens + v_charged, v_state.day_cost_micros + coalesce(v_cost, 0),
        v_state.month_cost_micros + coalesce(v_cost, 0), v_end.subscription_tokens, v_end.purchased_tokens,
        v_end.promotional_tokens, v_reserved, v_end.debt_tokens, v_state.lot_id, v_state.lot_kind,
        v_state.lot_left - v_take, case when v_state.lot_id is null then 0 else v_state.lot_taken + v_take end,
        v_state.ended || v_read.decision_id)::governance.settle_state;
      if v_state.lot_id is null then
        select n.lot_id, n.lot_kind, n.lot_left into v_state.lot_id, v_state.lot_kind, v_state.lot_left
          from governance.settle_state(v_read.account_id) n;
      end if;
    end if;
    if v_state.debt_tokens > 0 and v_ends is not null
      and v_state.subscription_tokens + v_state.purchased_tokens + v_state.promotional_tokens
        > v_state.reserved_tokens then
      -- What the hold kept and the call did not use pays what was owed before; the answer says what is left.
      v_is_written := governance.write_ends(v_entries, v_ends, v_ids, array_append(v_states, v_state), v_now, v_oldest,
        v_newest);
      v_entries := null; v_ends := null; v_ids := null; v_states := null;
      v_end := governance.recover_at_end(v_end, v_now);
      v_ended := v_state.ended; v_state := governance.settle_state(v_read.account_id); v_state.ended := v_ended;
    end if;
    v_total := v_end.subscription_tokens + v_end.purchased_tokens + v_end.promotional_tokens;
    v_answers[v_read.place] := row(v_end.model, coalesce(v_end.alerts, '[]'), v_end.status,
      row(v_end.debt_tokens, v_total, v_end.reserved_tokens, v_total - v_end.reserved_tokens, v_end.purchased_tokens,
        v_end.promotional_tokens, v_end.subscription_tokens)::governance.balance, v_end.currency, v_end.request_id,
      v_end.cost_micros, v_end.unpaid_tokens, v_end.decision_id, v_end.charged_tokens, v_end.transaction_id,
      v_end.released_tokens)::governance.settlement;
  end loop;
  if v_state.ended is not null then v_states := array_append(v_states, v_state); end if;
  if v_states is not null then
    v_is_written := governance.write_ends(v_entries, v_ends, v_ids, v_states, v_now, v_oldest, v_newest);
  end if;
  -- Each connection wakes the readers once an interval at most.
  if v_is_written and (date_part('epoch', v_now) * 1000 / v_config.signal_interval_ms)::bigint::text
    is distinct from current_setting('governance.beat', true) then
    perform governance.ring_feed(v_now, v_config.signal_interval_ms);
  end if;
  return v_answers;
end
$$;
comment on function governance.settle_calls(governance.settle_arguments[], boolean, boolean) is
  'settle_usage for any number of calls in one batch: answers in the order of the calls. Raises where '
  'settle_usage does, for the whole batch; and unless p_waits, where another transaction holds an account. With '
  'p_above_ceiling a person lets quarantined settlements through.';

create function public.settle_usage(
  p_request_id text, p_input_tokens bigint, p_output_tokens bigint, p_model text default null,
  p_metadata jsonb default '{}'
) returns jsonb
  language plpgsql security definer set search_path = '' as $$
begin
  if current_setting('role') <> 'service_role' then perform governance.refuse_others('settle_usage'); end if;
  return to_jsonb((governance.settle_calls(array[row(p_request_id, p_input_tokens, p_output_tokens, p_model,
    p_metadata)::governance.settle_arguments]))[1]);
end
$$;
comment on function public.settle_usage(text, bigint, bigint, text, jsonb) is
  'Charges a call that was authorised: input and output tokens as the provider counted them. p_metadata may have '
  'cached_input_tokens, cache_write_tokens (parts of the input), cache_write_1h_tokens (part of those) and '
  'reasoning_tokens (part of the output), service_tier (as the provider names it), and by_other_models (parts that '
  'other models worked for). Above the setting settle_ceiling_tokens status is quarantined and nothing is charged. '
  'Safe to repeat. Errors: invalid_argument, unknown_request, not_authorized, already_released, '
  'idempotency_conflict.';
revoke all on function public.settle_usage(text, bigint, bigint, text, jsonb) from public, anon, authenticated;
grant execute on function public.settle_usage(text, bigint, bigint, text, jsonb) to service_role;
