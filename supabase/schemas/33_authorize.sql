-- The path of a call, first half: may this user make it, and its tokens are held. docs/RULES.md fixes what is decided.
-- One function decides any number of calls in one batch; a single call is a batch of one.

-- What a decision changes of its account: counted in memory from call to call, written once.
create type governance.authorize_state as (account_id bigint, last_message_at timestamptz, rapid_messages int,
  day_messages int, month_messages int, day_calls int, month_calls int, reserved_tokens bigint,
  holds_from timestamptz, holds_check_at timestamptz,
  -- Messages and conversations of this account's calls so far in this batch
  hashes bigint[], conversations text[]);

create function governance.repeated_decision(q governance.requests, p_account_id bigint, p_request_id text,
  p_fingerprint bigint) returns governance.authorization
  language plpgsql stable set search_path = '' as $$
begin
  if (q.account_id = p_account_id and q.fingerprint = p_fingerprint) is not true then
    perform governance.fail('PT409', 'idempotency_conflict',
      format('Request "%s" was made before with other parameters', left(p_request_id, 64)));
  end if;
  return governance.decision_answer(q, q.facts, governance.upgrade_json(q.upgrade_plan),
    (select p.fail_mode from governance.plans p where p.plan_id = q.plan_id));
end
$$;
comment on function governance.repeated_decision(governance.requests, bigint, text, bigint) is
  'The answer of a call whose id is taken by a row: its own from before, or a conflict with another call.';

create function governance.authorize_calls(p_calls governance.authorize_arguments[], p_waits boolean default true)
  returns governance.authorization[]
  -- Plans of these statements depend on no parameter: without the setting each call would plan again, to prune
  -- partitions. And a connection keeps its plans: one made while a table was empty would scan the grown table for ever.
  language plpgsql set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off
    set jit = off as $$
declare
  v_config governance.active_config;
  -- Reading a variable costs a fifth of calling a function.
  v_is_alone boolean := cardinality(p_calls) = 1;
  -- The places of the calls in the order in which they are decided
  v_order int[];
  v_place int;
  -- A call and its message; its account and plan as they were read, and what this batch changed of the account so far
  v_call governance.authorize_arguments;
  v_message governance.judged_message;
  v_account governance.accounts;
  v_plan governance.plans;
  v_plan_id text;
  v_state governance.authorize_state;
  -- The facts that rules see; the decision where something stops, warns of or changes the call; the row it becomes
  v_facts governance.facts;
  v_judgement governance.judgement;
  v_request governance.requests;
  v_now timestamptz;
  v_timezone text;
  v_local timestamp;
  v_utc timestamp;
  v_hold_ends_at timestamptz;
  v_is_plain boolean;
  v_folded text;
  v_phrases text;
  v_lock_key bigint;
  v_is_locked boolean;
  v_fingerprint bigint;
  v_identical bigint;
  v_conversation int;
  v_estimate bigint;
  v_has_taken_ids boolean := false;
  v_count bigint;
  v_messages governance.judged_message[];
  v_keys governance.request_keys[];
  v_requests governance.requests[];
  v_states governance.authorize_state[];
  v_judgements governance.judgement[];
  v_answers governance.authorization[];
begin
  foreach v_call in array p_calls loop
    if v_call.request_id is null or v_call.user_id is null or v_call.model is null
      -- Not empty, nor blank: none begins with a space.
      or least(v_call.request_id collate "C", v_call.user_id, v_call.model) < '!'
      or greatest(length(v_call.request_id), length(v_call.user_id), length(v_call.model) + 55,
        length(v_call.conversation_id), length(v_call.task_type), length(v_call.scope_id)) > 255
      or v_call.estimated_tokens not between 1 and 9007199254740991 or octet_length(v_call.message) > 4194304
      or v_call.complexity is not null then
      perform governance.check_authorize(v_call);
    end if;
    -- Plain text of single-spaced words needs no collapsing; folding it cannot change its words.
    v_is_plain := octet_length(v_call.message) <= governance.judged_characters()
      and char_length(v_call.message) = octet_length(v_call.message)
      and v_call.message !~ '[^\x20-\x7e]|  |^ | $';
    -- As governance.lock_key, which would cost more than all the rest of this line.
    v_lock_key := hashtextextended(v_call.user_id, 7254);
    if v_is_plain is not false then
      v_folded := lower(v_call.message collate "C");
      v_message := row(v_folded, hashtextextended(v_folded, v_lock_key), char_length(v_folded),
        cardinality(string_to_array(v_folded, ' ')), v_lock_key)::governance.judged_message;
    else
      v_folded := governance.fold(v_call.message);
      v_message := row(v_folded, hashtextextended(governance.identity_text(v_call.message, v_folded), v_lock_key),
        char_length(v_call.message), governance.count_words(v_call.message), v_lock_key)::governance.judged_message;
    end if;
    if not v_is_alone then v_messages := array_append(v_messages, v_message); end if;
    if not p_waits then
      -- A transaction that does not wait may take locks in any order.
      v_is_locked := pg_try_advisory_xact_lock(v_lock_key);
      if not v_is_locked then
        raise lock_not_available using message = 'Another transaction holds an account of the batch';
      end if;
    end if;
  end loop;
  -- All accounts' locks, always in the same order: no two batches wait for each other.
  if p_waits and v_is_alone then
    -- An expression costs a fifth of "perform", which runs a statement.
    v_is_locked := pg_advisory_xact_lock(v_lock_key) is not null;
  elsif p_waits then
    perform pg_advisory_xact_lock(l.lock_key) from (select distinct u.lock_key from unnest(v_messages) u order by 1) l;
  end if;
  select * into v_config from governance.active_config;
  -- The transaction number before any event id: readers of the feed rely on it.
  v_now := case when pg_current_xact_id() is not null then
    coalesce(v_config.test_clock_at, clock_timestamp() + coalesce(v_config.test_clock_offset, interval '0')) end;
  v_utc := v_now at time zone 'UTC'; v_hold_ends_at := v_now + v_config.hold_minutes * interval '1 minute';
  -- Not combined with "and": "null and f()" still calls f.
  if v_config.rules_due_at <= v_now then
    perform governance.end_timed_rules(v_now); select * into v_config from governance.active_config;
  end if;

  -- Calls of one account one after another, in their order. One call is in v_call and v_message already.
  if v_is_alone then
    v_order := array[1];
  else
    v_order := array(select u.place from unnest(p_calls) with ordinality u(request_id, user_id, model,
      estimated_tokens, message, conversation_id, task_type, scope_id, complexity, place)
      order by u.user_id collate "C", u.place);
  end if;
  loop
    foreach v_place in array v_order loop
      if not v_is_alone then
        v_call := p_calls[v_place];
        v_message := v_messages[v_place];
      end if;
      if v_call.user_id is distinct from v_account.user_id then
        if v_state.day_calls > v_account.day_calls then v_states := array_append(v_states, v_state); end if;
        v_account := (select y from governance.accounts y where y.user_id = v_call.user_id);
        -- As governance.needs_roll.
        if v_account.account_id is null
          or least(v_account.day_ends_at, v_account.month_ends_at, v_account.lots_check_at,
            v_account.holds_check_at) <= v_now then
          -- Twice, as a lot that was kept for a hold may end once a new allowance is there.
          for v_count in 1..2 loop
            if v_account.account_id is null then
              perform governance.create_account(v_call.user_id, v_now);
            else
              perform governance.roll_account(v_account.account_id, v_now);
            end if;
            select * into strict v_account from governance.accounts y where y.user_id = v_call.user_id;
            exit when not governance.needs_roll(v_account, v_now);
          end loop;
        end if;
        -- Most accounts of a batch are on the plan of the one before.
        if v_account.plan_id is distinct from v_plan_id then
          select * into strict v_plan from governance.plans y where y.plan_id = v_account.plan_id;
          v_plan_id := v_account.plan_id;
        end if;
        if greatest(v_account.raised_daily_until, v_account.raised_monthly_until) > v_now then
          v_plan.daily_limit := governance.raised_limit(v_plan.daily_limit, v_account.raised_daily_limit,
            v_account.raised_daily_until, v_now);
          v_plan.monthly_limit := governance.raised_limit(v_plan.monthly_limit, v_account.raised_monthly_limit,
            v_account.raised_monthly_until, v_now);
          v_plan_id := null;
        end if;
        -- The time in a zone costs as much as a row: most accounts of a batch share one.
        if v_account.timezone is distinct from v_timezone then
          v_timezone := v_account.timezone;
          v_local := case when v_timezone = 'UTC' then v_utc else governance.local_time(v_now, v_timezone) end;
        end if;
        v_state := row(v_account.account_id, v_account.last_message_at, v_account.rapid_messages,
          v_account.day_messages, v_account.month_messages, v_account.day_calls, v_account.month_calls,
          v_account.reserved_tokens, v_account.holds_from, v_account.holds_check_at, null,
          null)::governance.authorize_state;
      end if;
      -- Facts that cost are worked out only where a rule reads them.
      v_identical := 0;
      if v_config.rules_read_identical and v_account.last_message_at is not null and v_call.message is not null then
        select count(*) into v_identical from (
          select from governance.request_keys y
          where y.account_id = v_account.account_id and y.message_hash = v_message.hash
            and y.created_at > greatest(v_now - v_config.identical_window_minutes * interval '1 minute',
              v_account.forgiven_at)
          limit 999) n;
      end if;
      -- What few calls need is in branches of its own behind one test: an expression is prepared as a whole, also the
      -- parts that do not run.
      v_conversation := null;
      if v_state.hashes is not null or v_call.estimated_tokens is null or v_call.conversation_id <> ''
        or v_call.complexity is not null or v_config.rules_read_words then
        if v_state.hashes is not null then
          v_identical := v_identical + coalesce(cardinality(array_positions(v_state.hashes, v_message.hash)), 0);
        end if;
        if v_call.conversation_id <> '' then
          select (y.facts).conversation_messages into v_conversation from governance.requests y
          where y.account_id = v_account.account_id and y.conversation_id = v_call.conversation_id
          order by y.created_at desc, y.decision_id desc limit 1;
          v_conversation := coalesce(v_conversation, 0)
            + coalesce(cardinality(array_positions(v_state.conversations, v_call.conversation_id)), 0)
            + case when v_call.message is null then 0 else 1 end;
        end if;
        if v_call.estimated_tokens is null then
          select y.tokens into v_estimate from governance.estimates y where y.task_type = v_call.task_type;
          v_estimate := coalesce(v_estimate, (v_message.characters + 3) / 4 + v_config.reply_tokens,
            v_config.default_estimate);
        end if;
        if v_call.complexity is not null then v_call.complexity := round(v_call.complexity, 3); end if;
        if v_config.rules_read_words then v_phrases := governance.space_phrases(v_message.folded); end if;
      end if;
      v_fingerprint := hashtextextended(row(v_call.user_id, v_call.model, v_call.estimated_tokens, v_call.message,
        v_call.conversation_id, v_call.task_type, v_call.scope_id, v_call.complexity)::text, 0);
      if v_has_taken_ids then
        select r.* into v_request from governance.request_keys k
          join governance.requests r on r.decision_id = k.decision_id and r.created_at = k.created_at
        where k.request_id = v_call.request_id;
        if v_request.decision_id is null then
          select * into v_request from unnest(v_requests) r where r.request_id = v_call.request_id;
        end if;
        if v_request.decision_id is not null then
          v_answers[v_place] := governance.repeated_decision(v_request, v_account.account_id, v_call.request_id,
            v_fingerprint);
          continue;
        end if;
      end if;
      v_facts := row(
        v_account.day_tokens + v_state.reserved_tokens, -- tokens_today
        v_account.month_tokens + v_state.reserved_tokens, -- tokens_this_month
        case when v_call.message is null then v_state.day_messages else v_state.day_messages + 1 end, -- messages_today
        case when not v_config.rules_read_identical then null when v_call.message is null then 0
          else least(v_identical + 1, 1000) end, -- identical_messages
        case when v_call.message is not null then
          round(extract(epoch from v_now - v_state.last_message_at), 3) end, -- seconds_since_last_message
        case when v_call.message is null then 0
          when v_state.last_message_at > v_now - interval '2 seconds'
            and (v_account.forgiven_at is null or v_state.last_message_at > v_account.forgiven_at)
            then least(v_state.rapid_messages + 1, 1000000)
          else 1 end, -- rapid_messages
        v_conversation, -- conversation_messages
        v_message.words, v_message.characters, -- message_words, message_characters
        coalesce(v_call.estimated_tokens, v_estimate), -- estimated_tokens
        case when v_config.rules_read_words then governance.rules_complexity(v_call.complexity, v_phrases,
          v_message.characters) else v_call.complexity end, -- complexity
        date_part('hour', v_utc), date_part('hour', v_local), -- hour_utc, hour_local
        date_part('isodow', v_local), -- weekday_local
        v_account.plan_id, v_call.model, -- plan, model
        case when v_config.rules_read_provider then governance.provider_of(v_call.model, v_now) end, -- provider
        nullif(v_call.task_type, ''), nullif(v_call.scope_id, ''), -- task_type, scope_id
        v_account.subscription_tokens + v_account.purchased_tokens + v_account.promotional_tokens
          - v_state.reserved_tokens, -- available_tokens
        null, -- usage_percent: below
        v_account.day_cost_micros, v_account.month_cost_micros, -- cost_today_micros, cost_this_month_micros
        floor(date_part('epoch', v_now - v_account.created_at) / 86400), -- account_age_days
        v_account.flagged_at is not null, -- is_flagged
        case when v_config.rules_read_words then governance.rules_topic(v_phrases) end -- topic
        )::governance.facts;
      if v_plan.daily_limit is not null or v_plan.monthly_limit is not null then
        v_facts.usage_percent := greatest(
          case when v_plan.daily_limit = 0 then 100 else v_facts.tokens_today * 100 / v_plan.daily_limit end,
          case when v_plan.monthly_limit = 0 then 100 else v_facts.tokens_this_month * 100 / v_plan.monthly_limit end);
      elsif greatest(v_plan.monthly_allowance, v_account.month_allowance) > 0 then
        v_facts.usage_percent := v_facts.tokens_this_month * 100
          / greatest(v_plan.monthly_allowance, v_account.month_allowance);
      end if;
      -- Nothing stops most calls: one expression asks all rules at once, and only where one matches are they gone
      -- through in order.
      if v_account.blocked_at is not null or v_account.rule_blocked_until > v_now
        or v_facts.estimated_tokens > v_facts.available_tokens
        or (v_facts.tokens_today + v_facts.estimated_tokens) * 100
          >= v_plan.daily_limit * coalesce(v_plan.warn_at[1], 100)
        or (v_facts.tokens_this_month + v_facts.estimated_tokens) * 100
          >= v_plan.monthly_limit * coalesce(v_plan.warn_at[1], 100)
        or governance.rules_match(v_facts, v_message.folded, v_phrases, v_plan.monthly_allowance, v_plan.daily_limit,
          v_plan.monthly_limit) then
        v_judgement := governance.judge_call(v_account, v_plan, v_config, v_facts, v_message.folded, v_phrases, v_now);
      end if;
      v_request := row(
        pg_current_xact_id(), nextval('governance.event_ids'), -- xid, decision_id
        v_now, v_account.account_id, -- created_at, account_id
        v_call.request_id, v_fingerprint, -- request_id, fingerprint
        -- What was asked
        v_call.model, v_facts.task_type, v_facts.scope_id, -- requested_model, task_type, scope_id
        nullif(v_call.conversation_id, ''), v_message.hash, -- conversation_id, message_hash
        -- What was decided
        coalesce(v_judgement.decision, 'allow'), v_judgement.reason, -- decision, reason
        coalesce(v_judgement.http_status, 200), -- http_status
        v_judgement.message, v_judgement.warnings, -- message, warnings
        coalesce(v_judgement.model, v_call.model), v_judgement.truncate_to_words, -- model, truncate_to_words
        case when v_judgement.reason is null then v_hold_ends_at end, -- expires_at
        v_judgement.retry_after_seconds, v_judgement.upgrade_plan, -- retry_after_seconds, upgrade_plan
        v_judgement.cost_factor, v_account.plan_id, v_config.rule_set_id, -- cost_factor, plan_id, rule_set_id
        v_judgement.version_id, v_judgement.matched_version_ids, -- rule_version_id, matched_version_ids
        -- What the rules saw
        v_facts, coalesce(v_judgement.reserved_tokens, v_facts.estimated_tokens), -- facts, reserved_tokens
        -- Limits and balance as answered
        v_plan.daily_limit, v_account.day_ends_at, -- daily_limit, day_ends_at
        v_plan.monthly_limit, v_account.month_ends_at, -- monthly_limit, month_ends_at
        v_account.subscription_tokens, v_account.purchased_tokens, -- subscription_tokens, purchased_tokens
        v_account.promotional_tokens, -- promotional_tokens
        v_state.reserved_tokens
          + coalesce(v_judgement.reserved_tokens, v_facts.estimated_tokens), -- total_reserved_tokens
        v_account.debt_tokens, -- debt_tokens
        -- How it ended: a settlement, a release or the end of the hold writes the rest
        case when v_judgement.reason is null then 'held' else 'blocked' end, -- status
        null, null, null, null, null, -- ended_at, usage_day, end_reason, settled_model, provider
        null, null, null, -- input_tokens, output_tokens, cached_input_tokens
        null, null, -- cache_write_tokens, reasoning_tokens
        null, null, null, -- charged_tokens, released_tokens, unpaid_tokens
        null, null, null, null, -- cost_micros, currency, settle_fingerprint, transaction_id
        null, null, -- alerts, settle_metadata
        null, null, null, -- end_subscription_tokens, end_purchased_tokens, end_promotional_tokens
        null, null -- end_reserved_tokens, end_debt_tokens
        )::governance.requests;
      v_requests := array_append(v_requests, v_request);
      v_keys := array_append(v_keys, row(v_call.request_id, v_now, v_request.decision_id, v_account.account_id,
        v_message.lock_key, v_message.hash)::governance.request_keys);
      v_answers[v_place] := governance.decision_answer(v_request, v_facts, v_judgement.upgrade, v_plan.fail_mode);
      v_state := row(v_state.account_id, case when v_call.message is null then v_state.last_message_at else v_now end,
        case when v_call.message is null then v_state.rapid_messages else v_facts.rapid_messages end,
        v_facts.messages_today,
        case when v_call.message is null then v_state.month_messages else v_state.month_messages + 1 end,
        v_state.day_calls + 1, v_state.month_calls + 1, v_request.total_reserved_tokens,
        case when v_judgement.reason is null then least(v_state.holds_from, v_now) else v_state.holds_from end,
        case when v_judgement.reason is null then least(v_state.holds_check_at, v_hold_ends_at)
          else v_state.holds_check_at end,
        case when v_call.message is null then v_state.hashes else array_append(v_state.hashes, v_message.hash) end,
        case when v_call.message is null or v_call.conversation_id is null then v_state.conversations
          else array_append(v_state.conversations, v_call.conversation_id) end)::governance.authorize_state;
      if v_judgement.decision is not null then
        if v_judgement.rule_blocked_until is not null or v_judgement.flag_reason is not null then
          -- The calls after this one see it at once; it is written with the rest.
          v_judgement.account_id := v_account.account_id;
          v_judgement.decision_id := v_request.decision_id;
          v_judgements := array_append(v_judgements, v_judgement);
          if v_judgement.rule_blocked_until is not null then
            v_account.rule_blocked_until := v_judgement.rule_blocked_until;
            v_account.rule_block_reason := v_judgement.reason;
            v_account.rule_block_message := v_judgement.message;
            v_account.rule_block_version_id := v_judgement.version_id;
          end if;
          if v_judgement.flag_reason is not null then v_account.flagged_at := v_now; end if;
        end if;
        v_judgement := null;
      end if;
    end loop;
    exit when v_keys is null;

    -- In one order, as the locks are.
    insert into governance.request_keys select * from unnest(v_keys) k order by k.request_id on conflict do nothing;
    get diagnostics v_count = row_count;
    exit when v_count = cardinality(v_keys);
    -- An id is taken: by another call, or twice in this batch. Only keys are written so far: decide again, looking up
    -- each id.
    delete from governance.request_keys k using unnest(v_keys) n
      where k.request_id = n.request_id and k.decision_id = n.decision_id;
    v_has_taken_ids := true;
    v_keys := null; v_requests := null; v_states := null; v_judgements := null; v_account := null; v_state := null;
  end loop;

  if v_requests is not null then
    v_states := array_append(v_states, v_state);
    insert into governance.requests select * from unnest(v_requests);
    update governance.accounts y set
      last_activity_at = v_now, last_message_at = n.last_message_at, rapid_messages = n.rapid_messages,
      day_messages = n.day_messages, month_messages = n.month_messages, day_calls = n.day_calls,
      month_calls = n.month_calls, reserved_tokens = n.reserved_tokens, holds_from = n.holds_from,
      holds_check_at = n.holds_check_at
    from unnest(v_states) n where y.account_id = n.account_id;
    if v_judgements is not null then
      foreach v_judgement in array v_judgements loop
        perform governance.punish_account(v_judgement, v_now);
      end loop;
    end if;
    -- Each connection wakes the readers once an interval at most.
    if (date_part('epoch', v_now) * 1000 / v_config.signal_interval_ms)::bigint::text
      is distinct from current_setting('governance.beat', true) then
      perform governance.ring_feed(v_now, v_config.signal_interval_ms);
    end if;
  end if;
  return v_answers;
end
$$;
comment on function governance.authorize_calls(governance.authorize_arguments[], boolean) is
  'authorize_usage for any number of calls in one batch: answers in the order of the calls. Calls of one '
  'account see each other in order. Raises where authorize_usage does, for the whole batch; and unless p_waits, where '
  'another transaction holds an account.';

create function public.authorize_usage(
  p_request_id text, p_user_id text, p_model text, p_estimated_tokens bigint default null, p_message text default null,
  p_conversation_id text default null, p_task_type text default null, p_scope_id text default null,
  p_complexity numeric default null
) returns jsonb
  language plpgsql security definer set search_path = '' as $$
begin
  if current_setting('role') <> 'service_role' then perform governance.refuse_others('authorize_usage'); end if;
  return to_jsonb((governance.authorize_calls(array[row(p_request_id, p_user_id, p_model, p_estimated_tokens, p_message,
    p_conversation_id, p_task_type, p_scope_id, p_complexity)::governance.authorize_arguments]))[1]);
end
$$;
comment on function public.authorize_usage(text, text, text, bigint, text, text, text, text, numeric) is
  'Asks before a call: may this user make it, with which model, and holds its tokens. A refusal is an answer (decision '
  'block). The same p_request_id and parameters answer the same. Errors: invalid_argument, idempotency_conflict, '
  'not_configured.';
revoke all on function public.authorize_usage(text, text, text, bigint, text, text, text, text, numeric)
  from public, anon, authenticated;
grant execute on function public.authorize_usage(text, text, text, bigint, text, text, text, text, numeric)
  to service_role;
