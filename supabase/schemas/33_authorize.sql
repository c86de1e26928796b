-- The path of a call, first half: may this user make it, and its tokens are held. docs/RULES.md fixes what is decided.
-- One function decides any number of calls in one batch; a single call is a batch of one.

-- What a decision changes of its account: counted in memory from call to call, written once.
create type governance.authorize_state as (account_id bigint, last_message_at timestamptz, rapid_messages int,
  day_messages int, month_messages int, day_calls int, month_calls int, reserved_tokens bigint,
  holds_from timestamptz, holds_check_at timestamptz,
  -- Messages and conversations of this account's calls so far in this batch
  hashes bigint[], conversations text[]);

-- What is decided of a call that something stops, warns of or changes.
create type governance.judgement as (account_id bigint, decision_id bigint, decision text, reason text,
  http_status int, message text, warnings text[],
  model text, truncate_to_words int, retry_after_seconds int, upgrade_plan text, upgrade jsonb, cost_factor numeric,
  reserved_tokens bigint, version_id bigint, matched_version_ids bigint[], rule_blocked_until timestamptz,
  flag_reason text, flag_version_id bigint);

create function governance.judge_call(a governance.accounts, p governance.plans, c governance.active_config,
  f governance.facts, p_message text, p_phrases text, p_now timestamptz) returns governance.judgement
  language plpgsql stable set search_path = '' as $$
declare
  j governance.judgement;
  v governance.verdict;
  v_need bigint;
  v_retry_at timestamptz;
  v_percent int;
begin
  if not (a.blocked_at is not null and (a.blocked_until is null or a.blocked_until > p_now)
    or coalesce(a.rule_blocked_until > p_now, false)) then
    v := governance.evaluate_rules(f, p_message, p_phrases, p.monthly_allowance, p.daily_limit, p.monthly_limit,
      p_now);
  end if;
  v_need := case when v.cost_factor is null then f.estimated_tokens
    else least(ceil(f.estimated_tokens * v.cost_factor), 9007199254740991) end;
  if a.blocked_at is not null and (a.blocked_until is null or a.blocked_until > p_now) then
    j.reason := 'user_blocked';
    v_retry_at := a.blocked_until;
  elsif a.rule_blocked_until > p_now then
    j.reason := a.rule_block_reason;
    j.message := a.rule_block_message;
    j.version_id := a.rule_block_version_id;
    v_retry_at := a.rule_blocked_until;
  elsif v.blocked then
    j.reason := v.reason;
    j.message := v.message;
    j.version_id := v.version_id;
    j.rule_blocked_until := p_now + v.block_minutes * interval '1 minute';
    v_retry_at := j.rule_blocked_until;
  elsif f.tokens_today + v_need > p.daily_limit then
    j.reason := 'daily_limit';
    v_retry_at := a.day_ends_at;
  elsif f.tokens_this_month + v_need > p.monthly_limit then
    j.reason := 'monthly_limit';
    v_retry_at := a.month_ends_at;
  elsif v_need > f.available_tokens then
    j.reason := 'insufficient_tokens';
  else
    if p.daily_limit > 0 then
      select max(w) into v_percent from unnest(p.warn_at) w
        where (f.tokens_today + v_need)::numeric * 100 >= p.daily_limit::numeric * w;
      if v_percent is not null then
        v.warnings := v.warnings || governance.say('warning.daily_limit', governance.user_language(a),
          jsonb_build_object('percent', v_percent));
      end if;
    end if;
    if p.monthly_limit > 0 then
      select max(w) into v_percent from unnest(p.warn_at) w
        where (f.tokens_this_month + v_need)::numeric * 100 >= p.monthly_limit::numeric * w;
      if v_percent is not null then
        v.warnings := v.warnings || governance.say('warning.monthly_limit', governance.user_language(a),
          jsonb_build_object('percent', v_percent));
      end if;
    end if;
  end if;

  if j.reason is not null then
    j.http_status := governance.http_status(j.reason);
    j.message := governance.user_message(j.reason, j.message, governance.user_language(a));
    if v_retry_at is null and j.http_status = 429 then
      v_retry_at := case j.reason
        when 'daily_limit' then a.day_ends_at
        when 'monthly_limit' then a.month_ends_at
        when 'token_hogging' then a.day_ends_at
        when 'budget_exhausted' then a.month_ends_at
        when 'spam_identical' then p_now + c.identical_window_minutes * interval '1 minute'
        when 'bot_behavior' then p_now + interval '2 seconds'
        else p_now + interval '1 minute' end;
    end if;
    if v_retry_at is not null then
      j.retry_after_seconds := least(ceil(extract(epoch from v_retry_at - p_now)), 2147483647);
    end if;
    if j.reason in ('insufficient_tokens', 'daily_limit', 'monthly_limit') and p.upgrade_to is not null then
      j.upgrade_plan := p.upgrade_to;
      j.upgrade := governance.upgrade_json(p.upgrade_to);
    end if;
  end if;
  j.decision := case when j.reason is not null then 'block' when v.warnings is not null then 'warn' else 'allow' end;
  j.reserved_tokens := case when j.reason is null then v_need else 0 end;
  j.warnings := v.warnings;
  j.model := v.model;
  j.truncate_to_words := v.truncate_to_words;
  j.cost_factor := v.cost_factor;
  j.matched_version_ids := v.matched_version_ids;
  -- An account is flagged once.
  j.flag_reason := case when a.flagged_at is null then v.flag_reason end;
  j.flag_version_id := v.flag_version_id;
  return j;
end
$$;
comment on function governance.judge_call(governance.accounts, governance.plans, governance.active_config,
  governance.facts, text, text, timestamptz) is 'Steps 4 to 10 of docs/RULES.md for a call that something stops, '
    'warns of or changes.';

create function governance.punish_account(j governance.judgement, p_now timestamptz) returns void
  language plpgsql set search_path = '' as $$
begin
  if j.rule_blocked_until is not null then
    update governance.accounts y set rule_blocked_until = j.rule_blocked_until, rule_block_reason = j.reason,
      rule_block_message = j.message, rule_block_version_id = j.version_id
    where y.account_id = j.account_id;
    insert into governance.audit_log (created_at, action, account_id, rule_name, reason, details)
    select p_now, 'rule_block', j.account_id, x.rule_name, j.reason,
      jsonb_build_object('until', j.rule_blocked_until, 'rule_version', x.version, 'decision_id', j.decision_id)
    from governance.rule_versions x where x.version_id = j.version_id;
  end if;
  if j.flag_reason is not null then
    update governance.accounts y set flagged_at = p_now, flag_reason = j.flag_reason, flagged_by = 'rule',
      version = y.version + 1 where y.account_id = j.account_id;
    insert into governance.audit_log (created_at, action, account_id, rule_name, reason, details)
    select p_now, 'rule_flag', j.account_id, x.rule_name, j.flag_reason,
      jsonb_build_object('rule_version', x.version, 'decision_id', j.decision_id)
    from governance.rule_versions x where x.version_id = j.flag_version_id;
  end if;
end
$$;
comment on function governance.punish_account(governance.judgement, timestamptz) is
  'Blocks the account for a while or flags it, as a rule decided for a call.';

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
  c governance.active_config;
  -- Reading a variable costs a fifth of calling a function.
  v_is_alone boolean := cardinality(p_calls) = 1;
  -- The places of the calls in the order in which they are decided
  v_order int[];
  v_place int;
  -- A call, its message, its account and plan as they were read, and what this batch changed so far
  m governance.judged_message;
  a governance.accounts;
  p governance.plans;
  v_plan_id text;
  s governance.authorize_state;
  f governance.facts;
  j governance.judgement;
  q governance.requests;
  x governance.authorize_arguments;
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
  foreach x in array p_calls loop
    if x.request_id is null or x.user_id is null or x.model is null
      -- Not empty, nor blank: none begins with a space.
      or least(x.request_id collate "C", x.user_id, x.model) < '!'
      or greatest(length(x.request_id), length(x.user_id), length(x.model) + 55,
        length(x.conversation_id), length(x.task_type), length(x.scope_id)) > 255
      or x.estimated_tokens not between 1 and 9007199254740991 or octet_length(x.message) > 4194304
      or x.complexity is not null then
      perform governance.check_authorize(x);
    end if;
    -- Plain text of single-spaced words needs no collapsing; folding it cannot change its words.
    v_is_plain := octet_length(x.message) <= governance.judged_characters()
      and char_length(x.message) = octet_length(x.message)
      and x.message !~ '[^\x20-\x7e]|  |^ | $';
    -- As governance.lock_key, which would cost more than all the rest of this line.
    v_lock_key := hashtextextended(x.user_id, 7254);
    if v_is_plain is not false then
      v_folded := lower(x.message collate "C");
      m := row(v_folded, hashtextextended(v_folded, v_lock_key), char_length(v_folded),
        cardinality(string_to_array(v_folded, ' ')), v_lock_key)::governance.judged_message;
    else
      v_folded := governance.fold(x.message);
      m := row(v_folded, hashtextextended(governance.identity_text(x.message, v_folded), v_lock_key),
        char_length(x.message), governance.count_words(x.message), v_lock_key)::governance.judged_message;
    end if;
    if not v_is_alone then v_messages := array_append(v_messages, m); end if;
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
  select * into c from governance.active_config;
  -- The transaction number before any event id: readers of the feed rely on it.
  v_now := case when pg_current_xact_id() is not null then
    coalesce(c.test_clock_at, clock_timestamp() + coalesce(c.test_clock_offset, interval '0')) end;
  v_utc := v_now at time zone 'UTC'; v_hold_ends_at := v_now + c.hold_minutes * interval '1 minute';
  -- Not combined with "and": "null and f()" still calls f.
  if c.rules_due_at <= v_now then
    perform governance.end_timed_rules(v_now); select * into c from governance.active_config;
  end if;

  -- Calls of one account one after another, in their order. One call is in x and m already.
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
        x := p_calls[v_place];
        m := v_messages[v_place];
      end if;
      if x.user_id is distinct from a.user_id then
        if s.day_calls > a.day_calls then v_states := array_append(v_states, s); end if;
        a := (select y from governance.accounts y where y.user_id = x.user_id);
        -- As governance.needs_roll.
        if a.account_id is null
          or least(a.day_ends_at, a.month_ends_at, a.lots_check_at, a.holds_check_at) <= v_now then
          -- Twice, as a lot that was kept for a hold may end once a new allowance is there.
          for v_count in 1..2 loop
            if a.account_id is null then
              perform governance.create_account(x.user_id, v_now);
            else
              perform governance.roll_account(a.account_id, v_now);
            end if;
            select * into strict a from governance.accounts y where y.user_id = x.user_id;
            exit when not governance.needs_roll(a, v_now);
          end loop;
        end if;
        -- Most accounts of a batch are on the plan of the one before.
        if a.plan_id is distinct from v_plan_id then
          select * into strict p from governance.plans y where y.plan_id = a.plan_id;
          v_plan_id := a.plan_id;
        end if;
        if greatest(a.raised_daily_until, a.raised_monthly_until) > v_now then
          p.daily_limit := governance.raised_limit(p.daily_limit, a.raised_daily_limit, a.raised_daily_until, v_now);
          p.monthly_limit := governance.raised_limit(p.monthly_limit, a.raised_monthly_limit,
            a.raised_monthly_until, v_now);
          v_plan_id := null;
        end if;
        -- The time in a zone costs as much as a row: most accounts of a batch share one.
        if a.timezone is distinct from v_timezone then
          v_timezone := a.timezone;
          v_local := case when v_timezone = 'UTC' then v_utc else governance.local_time(v_now, v_timezone) end;
        end if;
        s := row(a.account_id, a.last_message_at, a.rapid_messages, a.day_messages, a.month_messages, a.day_calls,
          a.month_calls, a.reserved_tokens, a.holds_from, a.holds_check_at, null, null)::governance.authorize_state;
      end if;
      -- Facts that cost are worked out only where a rule reads them.
      v_identical := 0;
      if c.rules_read_identical and a.last_message_at is not null and x.message is not null then
        select count(*) into v_identical from (
          select from governance.request_keys y
          where y.account_id = a.account_id and y.message_hash = m.hash
            and y.created_at > greatest(v_now - c.identical_window_minutes * interval '1 minute', a.forgiven_at)
          limit 999) n;
      end if;
      -- What few calls need is in branches of its own behind one test: an expression is prepared as a whole, also the
      -- parts that do not run.
      v_conversation := null;
      if s.hashes is not null or x.estimated_tokens is null or x.conversation_id <> '' or x.complexity is not null
        or c.rules_read_words then
        if s.hashes is not null then
          v_identical := v_identical + coalesce(cardinality(array_positions(s.hashes, m.hash)), 0);
        end if;
        if x.conversation_id <> '' then
          select (y.facts).conversation_messages into v_conversation from governance.requests y
          where y.account_id = a.account_id and y.conversation_id = x.conversation_id
          order by y.created_at desc, y.decision_id desc limit 1;
          v_conversation := coalesce(v_conversation, 0)
            + coalesce(cardinality(array_positions(s.conversations, x.conversation_id)), 0)
            + case when x.message is null then 0 else 1 end;
        end if;
        if x.estimated_tokens is null then
          select y.tokens into v_estimate from governance.estimates y where y.task_type = x.task_type;
          v_estimate := coalesce(v_estimate, (m.characters + 3) / 4 + c.reply_tokens, c.default_estimate);
        end if;
        if x.complexity is not null then x.complexity := round(x.complexity, 3); end if;
        if c.rules_read_words then v_phrases := governance.space_phrases(m.folded); end if;
      end if;
      v_fingerprint := hashtextextended(row(x.user_id, x.model, x.estimated_tokens, x.message, x.conversation_id,
        x.task_type, x.scope_id, x.complexity)::text, 0);
      if v_has_taken_ids then
        select r.* into q from governance.request_keys k
          join governance.requests r on r.decision_id = k.decision_id and r.created_at = k.created_at
        where k.request_id = x.request_id;
        if q.decision_id is null then
          select * into q from unnest(v_requests) r where r.request_id = x.request_id;
        end if;
        if q.decision_id is not null then
          v_answers[v_place] := governance.repeated_decision(q, a.account_id, x.request_id, v_fingerprint);
          continue;
        end if;
      end if;
      f := row(
        a.day_tokens + s.reserved_tokens,
        a.month_tokens + s.reserved_tokens,
        case when x.message is null then s.day_messages else s.day_messages + 1 end,
        case when not c.rules_read_identical then null when x.message is null then 0
          else least(v_identical + 1, 1000) end,
        case when x.message is not null then round(extract(epoch from v_now - s.last_message_at), 3) end,
        case when x.message is null then 0
          when s.last_message_at > v_now - interval '2 seconds'
            and (a.forgiven_at is null or s.last_message_at > a.forgiven_at) then least(s.rapid_messages + 1, 1000000)
          else 1 end,
        v_conversation,
        m.words, m.characters, coalesce(x.estimated_tokens, v_estimate),
        case when c.rules_read_words then
          governance.rules_complexity(x.complexity, v_phrases, m.characters) else x.complexity end,
        date_part('hour', v_utc), date_part('hour', v_local), date_part('isodow', v_local),
        a.plan_id, x.model, case when c.rules_read_provider then governance.provider_of(x.model, v_now) end,
        nullif(x.task_type, ''), nullif(x.scope_id, ''),
        a.subscription_tokens + a.purchased_tokens + a.promotional_tokens - s.reserved_tokens,
        null, a.day_cost_micros, a.month_cost_micros, floor(date_part('epoch', v_now - a.created_at) / 86400),
        a.flagged_at is not null, case
          when c.rules_read_words then governance.rules_topic(v_phrases) end)::governance.facts;
      if p.daily_limit is not null or p.monthly_limit is not null then
        f.usage_percent := greatest(
          case when p.daily_limit = 0 then 100 else f.tokens_today * 100 / p.daily_limit end,
          case when p.monthly_limit = 0 then 100 else f.tokens_this_month * 100 / p.monthly_limit end);
      elsif greatest(p.monthly_allowance, a.month_allowance) > 0 then
        f.usage_percent := f.tokens_this_month * 100 / greatest(p.monthly_allowance, a.month_allowance);
      end if;
      -- Nothing stops most calls: one expression asks all rules at once, and only where one matches are they gone
      -- through in order.
      if a.blocked_at is not null or a.rule_blocked_until > v_now or f.estimated_tokens > f.available_tokens
        or (f.tokens_today + f.estimated_tokens) * 100 >= p.daily_limit * coalesce(p.warn_at[1], 100)
        or (f.tokens_this_month + f.estimated_tokens) * 100 >= p.monthly_limit * coalesce(p.warn_at[1], 100)
        or governance.rules_match(f, m.folded, v_phrases, p.monthly_allowance, p.daily_limit, p.monthly_limit) then
        j := governance.judge_call(a, p, c, f, m.folded, v_phrases, v_now);
      end if;
      q := row(pg_current_xact_id(), nextval('governance.event_ids'), v_now, a.account_id, x.request_id, v_fingerprint,
        -- What was asked
        x.model, f.task_type, f.scope_id, nullif(x.conversation_id, ''), m.hash,
        -- What was decided
        coalesce(j.decision, 'allow'), j.reason, coalesce(j.http_status, 200), j.message, j.warnings,
        coalesce(j.model, x.model), j.truncate_to_words, case when j.reason is null then v_hold_ends_at end,
        j.retry_after_seconds, j.upgrade_plan, j.cost_factor, a.plan_id, c.rule_set_id, j.version_id,
        j.matched_version_ids,
        -- What the rules saw
        f, coalesce(j.reserved_tokens, f.estimated_tokens),
        -- Limits and balance as answered
        p.daily_limit, a.day_ends_at, p.monthly_limit, a.month_ends_at, a.subscription_tokens, a.purchased_tokens,
        a.promotional_tokens, s.reserved_tokens + coalesce(j.reserved_tokens, f.estimated_tokens), a.debt_tokens,
        -- How it ended
        case when j.reason is null then 'held' else 'blocked' end, null, null, null, null, null, null, null, null, null,
        null, null, null, null, null, null, null, null, null, null, null, null, null, null, null)::governance.requests;
      v_requests := array_append(v_requests, q);
      v_keys := array_append(v_keys, row(x.request_id, v_now, q.decision_id, a.account_id,
        m.lock_key, m.hash)::governance.request_keys);
      v_answers[v_place] := governance.decision_answer(q, f, j.upgrade, p.fail_mode);
      s := row(s.account_id, case when x.message is null then s.last_message_at else v_now end,
        case when x.message is null then s.rapid_messages else f.rapid_messages end, f.messages_today,
        case when x.message is null then s.month_messages else s.month_messages + 1 end, s.day_calls + 1,
        s.month_calls + 1, q.total_reserved_tokens,
        case when j.reason is null then least(s.holds_from, v_now) else s.holds_from end,
        case when j.reason is null then least(s.holds_check_at, v_hold_ends_at) else s.holds_check_at end,
        case when x.message is null then s.hashes else array_append(s.hashes, m.hash) end,
        case when x.message is null or x.conversation_id is null then s.conversations
          else array_append(s.conversations, x.conversation_id) end)::governance.authorize_state;
      if j.decision is not null then
        if j.rule_blocked_until is not null or j.flag_reason is not null then
          -- The calls after this one see it at once; it is written with the rest.
          j.account_id := a.account_id;
          j.decision_id := q.decision_id;
          v_judgements := array_append(v_judgements, j);
          if j.rule_blocked_until is not null then
            a.rule_blocked_until := j.rule_blocked_until;
            a.rule_block_reason := j.reason;
            a.rule_block_message := j.message;
            a.rule_block_version_id := j.version_id;
          end if;
          if j.flag_reason is not null then a.flagged_at := v_now; end if;
        end if;
        j := null;
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
    v_keys := null; v_requests := null; v_states := null; v_judgements := null; a := null; s := null;
  end loop;

  if v_requests is not null then
    v_states := array_append(v_states, s);
    insert into governance.requests select * from unnest(v_requests);
    update governance.accounts y set
      last_activity_at = v_now, last_message_at = n.last_message_at, rapid_messages = n.rapid_messages,
      day_messages = n.day_messages, month_messages = n.month_messages, day_calls = n.day_calls,
      month_calls = n.month_calls, reserved_tokens = n.reserved_tokens, holds_from = n.holds_from,
      holds_check_at = n.holds_check_at
    from unnest(v_states) n where y.account_id = n.account_id;
    if v_judgements is not null then
      foreach j in array v_judgements loop
        perform governance.punish_account(j, v_now);
      end loop;
    end if;
    -- Each connection wakes the readers once an interval at most.
    if (date_part('epoch', v_now) * 1000 / c.signal_interval_ms)::bigint::text
      is distinct from current_setting('governance.beat', true) then
      perform governance.ring_feed(v_now, c.signal_interval_ms);
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
