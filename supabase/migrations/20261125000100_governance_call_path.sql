-- The path of a call at half its cost, with the same answers (docs/RULES.md). What PostgreSQL does anew for every
-- statement of every call (reading a check, sorting prices, opening each partition, setting up an expression) is done
-- once, where a preset or a rule is saved, or not at all. supabase/CONVENTIONS.md says what each step costs.

-- ---------------------------------------------------------------------------------------------------------------
-- Shapes of the answers: a typed row becomes jsonb at half the cost of jsonb_build_object, which looks up the type of
-- each key and value again in each call.
-- ---------------------------------------------------------------------------------------------------------------

create type governance.balance as (available bigint, reserved bigint, subscription bigint, purchased bigint, promotional bigint, debt bigint, total bigint);
create type governance.limit_state as ("limit" bigint, used bigint, remaining bigint, resets_at timestamptz);
create type governance.limits as (daily governance.limit_state, monthly governance.limit_state);
create type governance.authorization as (
  request_id text, decision_id bigint, decision text, reason text, http_status int, message text, requested_model text, model text,
  truncate_to_words int, estimated_tokens bigint, reserved_tokens bigint, expires_at timestamptz, retry_after_seconds int,
  shortfall jsonb, upgrade jsonb, balance governance.balance, limits governance.limits, warnings text[], fail_mode text);
create type governance.settlement as (
  request_id text, decision_id bigint, status text, charged_tokens bigint, released_tokens bigint, debt_tokens bigint, cost_micros bigint,
  currency text, model text, transaction_id bigint, balance governance.balance, alerts jsonb);


-- ---------------------------------------------------------------------------------------------------------------
-- Rules: asked all at once by a function that PostgreSQL writes into the caller's own expression (a plain SQL function
-- of one select is inlined), walked in order only where one matches.
-- ---------------------------------------------------------------------------------------------------------------

alter table governance.active_config
  -- Facts that cost, and that some rule in force reads.
  add column rules_read_identical boolean not null default false,
  add column rules_read_words boolean not null default false,
  add column rules_read_provider boolean not null default false;

drop function governance.define_evaluate_rules(text);
do $$
begin
  execute (select 'drop function ' || p.oid::regprocedure from pg_catalog.pg_proc p
    where p.proname = 'evaluate_rules' and p.pronamespace = 'governance'::regnamespace);
end
$$;
alter type governance.verdict
  drop attribute rule_set_id, drop attribute identical_messages, drop attribute complexity, drop attribute topic;

create function governance.define_rules(p_match text, p_walk text, p_topic text, p_complexity text) returns void
  language plpgsql set search_path = '' as $$
declare
  v_facts text := 'f_at timestamptz, f_timezone text, f_account_created_at timestamptz, f_message text, f_message_phrases text,
       f_tokens_today bigint, f_tokens_this_month bigint, f_messages_today int, f_identical_messages int, f_seconds_since_last_message numeric,
       f_rapid_messages int, f_conversation_messages int, f_message_words int, f_message_characters int, f_estimated_tokens bigint,
       f_complexity numeric, f_plan text, f_model text, f_provider text, f_task_type text, f_scope_id text, f_available_tokens bigint,
       f_usage_percent bigint, f_cost_today_micros bigint, f_cost_this_month_micros bigint, f_is_flagged boolean, f_topic text,
       f_plan_monthly_allowance bigint, f_plan_daily_limit bigint, f_plan_monthly_limit bigint';
begin
  -- No search path of their own: the first three are inlined, and the caller of the last sets it.
  execute format('create or replace function governance.rules_match(%s) returns boolean language sql stable as %L', v_facts, 'select ' || p_match);
  execute format('create or replace function governance.rules_topic(f_message_phrases text) returns text language sql immutable as %L', 'select ' || p_topic);
  execute format('create or replace function governance.rules_complexity(f_complexity numeric, f_message_phrases text, f_message_characters int)
    returns numeric language sql immutable as %L', 'select ' || p_complexity);
  execute format('create or replace function governance.evaluate_rules(%s) returns governance.verdict language plpgsql stable as %L', v_facts,
    E'declare\n  v governance.verdict;\nbegin\n' || p_walk || E'  return v;\nend\n');
end
$$;
comment on function governance.define_rules(text, text, text, text) is 'Makes the functions that calls ask about rules, from what governance.compile_rules wrote.';

create or replace function governance.compile_rules() returns bigint
  language plpgsql set search_path = '' as $$
declare
  v_rule record;
  v_walk text := '';
  v_any text[] := '{}';
  v_facts text[] := '{}';
  v_version_ids bigint[] := '{}';
  v_rule_set_id bigint;
  v_topic text := 'null::text';
  v_complexity text := 'f_complexity';
begin
  perform pg_advisory_xact_lock(7254012);
  for v_rule in
    select r.version_id, jsonb_build_object('conditions', r.conditions, 'action', r.action, 'applies_to', r.applies_to, 'mode', r.mode) as rule
    from governance.rules r
    where r.is_active and r.mode <> 'off' and r.retired_at is null
    order by r.priority, r.rule_name collate "C"
  loop
    v_walk := v_walk || governance.compile_rule(v_rule.version_id, v_rule.rule);
    v_any := v_any || governance.rule_condition(v_rule.rule);
    v_facts := v_facts || (governance.compile_condition(v_rule.rule -> 'conditions', 'conditions', 1)).facts;
    v_version_ids := v_version_ids || v_rule.version_id;
  end loop;
  if 'topic' = any (v_facts) then
    select 'case ' || string_agg(format('when %s then %L', t.is_about, t.topic), ' ' order by t.place) || ' end' into v_topic
    from (
      select e.place, e.topic ->> 'topic' as topic, (
        select coalesce(string_agg(format('strpos(f_message_phrases, %L) > 0', p.phrase), ' or '), 'false')
        from (select governance.space_phrases(governance.fold(w)) as phrase from jsonb_array_elements_text(e.topic -> 'words') w) p
        where btrim(p.phrase) <> '') as is_about
      from jsonb_array_elements((select s.value from governance.settings s where s.key = 'topics')) with ordinality e(topic, place)) t;
    v_topic := coalesce(v_topic, 'null::text');
  end if;
  if 'complexity' = any (v_facts) then
    select format('case when f_complexity is null and f_message_phrases is not null then
      round(least(1000, 200 * (%s) + least(400, f_message_characters * 2::bigint / 3)) / 1000.0, 3) else f_complexity end',
      coalesce(string_agg(format('(strpos(f_message_phrases, %L) > 0)::int', p.phrase), ' + '), '0')) into v_complexity
    from (select distinct governance.space_phrases(governance.fold(w)) as phrase
      from jsonb_array_elements_text((select s.value from governance.settings s where s.key = 'complexity_words')) w) p
    where btrim(p.phrase) <> '';
  end if;
  perform governance.define_rules(coalesce(nullif(array_to_string(v_any, E'\n    or '), ''), 'false'), v_walk, v_topic, v_complexity);
  insert into governance.rule_sets (version_ids) values (v_version_ids) returning rule_set_id into v_rule_set_id;
  update governance.active_config set
    rule_set_id = v_rule_set_id, updated_at = clock_timestamp(),
    rules_read_identical = 'identical_messages' = any (v_facts), rules_read_words = v_facts && array['message', 'topic', 'complexity'],
    rules_read_provider = 'provider' = any (v_facts);
  return v_rule_set_id;
end
$$;
comment on function governance.compile_rules() is
  'Makes the functions that calls ask about rules anew from the rules and word lists in force, and names the set; one at a time.';

do $$
declare
  v_function record;
begin
  perform governance.compile_rules();
  for v_function in
    select p.oid::regprocedure as name, d.said from pg_catalog.pg_proc p join (values
      ('rules_match', 'Whether any rule in force, or in shadow, matches a call.'),
      ('rules_topic', 'The topic of a message, where a rule reads it.'),
      ('rules_complexity', 'The complexity of a message, where a rule reads it.'),
      ('evaluate_rules', 'What the rules in force say of a call that one of them matches.')) d(name, said) on p.proname = d.name
    where p.pronamespace = 'governance'::regnamespace
  loop
    execute format('comment on function %s is %L', v_function.name, v_function.said || ' Written by governance.compile_rules: do not edit.');
  end loop;
end
$$;

-- ---------------------------------------------------------------------------------------------------------------
-- The two checks that keep tokens from going negative, as functions of the row: PostgreSQL reads the text of a check
-- anew at every statement, and a call of one name is quickly read.
-- ---------------------------------------------------------------------------------------------------------------

create function governance.is_never_negative(a governance.accounts) returns boolean
  language plpgsql immutable as $$
begin
  return least(a.subscription_tokens, a.purchased_tokens, a.promotional_tokens, a.reserved_tokens, a.debt_tokens, a.day_tokens, a.month_tokens,
    a.subscription_tokens + a.purchased_tokens + a.promotional_tokens - a.reserved_tokens) >= 0;
end
$$;
comment on function governance.is_never_negative(governance.accounts) is 'The check of accounts: no counter below zero, nothing reserved that is not there.';
create function governance.adds_up(l governance.lots) returns boolean
  language plpgsql immutable as $$
begin
  return l.kind in ('subscription', 'purchased', 'promotional') and l.granted > 0 and least(l.remaining, l.frozen, l.spent, l.expired, l.clawed_back) >= 0
    and l.granted = l.remaining + l.frozen + l.spent + l.expired + l.clawed_back and (l.is_open or l.remaining + l.frozen = 0);
end
$$;
comment on function governance.adds_up(governance.lots) is 'The check of lots: granted is what remains, is frozen, was spent, expired or was clawed back; none of it below zero.';
-- One scan each, of rows that kept the same rule under its former wording.
alter table governance.accounts drop constraint accounts_never_negative;
-- squawk-ignore constraint-missing-not-valid
alter table governance.accounts add constraint accounts_never_negative check (governance.is_never_negative(accounts));
alter table governance.lots drop constraint lots_add_up;
-- squawk-ignore constraint-missing-not-valid
alter table governance.lots add constraint lots_add_up check (governance.adds_up(lots));

-- ---------------------------------------------------------------------------------------------------------------
-- Identical messages are counted beside the partitions: one index to look into, not one a month.
-- ---------------------------------------------------------------------------------------------------------------

alter table governance.request_keys add column message_hash bigint;
comment on column governance.request_keys.message_hash is 'Of the folded message, for counting identical ones; null without a message.';
-- No window of identical messages is longer than a week.
update governance.request_keys k set message_hash = r.message_hash
from governance.requests r
where r.decision_id = k.decision_id and r.created_at = k.created_at and r.message_hash is not null and r.created_at > now() - interval '8 days';
create index request_keys_identical on governance.request_keys (account_id, message_hash, created_at) where message_hash is not null;
drop index governance.requests_identical;

-- In the order in which a call's price is looked for: found without sorting.
create index prices_by_moment on governance.prices (model, effective_from desc, created_at, provider collate "C");
drop index governance.prices_model;

-- ---------------------------------------------------------------------------------------------------------------
-- The ledger's proof: the same text, the same hash, put together in one go
-- ---------------------------------------------------------------------------------------------------------------

create or replace function governance.entry_payload(
  p_transaction_id bigint, p_created_at timestamptz, p_type text, p_amount bigint, p_previous_balance bigint, p_new_balance bigint,
  p_debt_after bigint, p_lot_changes bigint[], p_decision_id bigint, p_user_id text, p_reference text, p_description text, p_metadata jsonb
) returns text
  language sql stable as $$
  select concat_ws('|', p_transaction_id, (extract(epoch from p_created_at) * 1000000)::bigint, p_type, p_amount, p_previous_balance, p_new_balance,
    p_debt_after, array_to_string(p_lot_changes, ','), coalesce(p_decision_id::text, '-'), octet_length(p_user_id) || ':' || p_user_id,
    coalesce(octet_length(p_reference) || ':' || p_reference, '-'), coalesce(octet_length(p_description) || ':' || p_description, '-'),
    coalesce(octet_length(p_metadata::text) || ':' || p_metadata::text, '-'))
$$;

-- ---------------------------------------------------------------------------------------------------------------
-- The calls
-- ---------------------------------------------------------------------------------------------------------------

create or replace function public.authorize_usage(
  p_request_id text, p_user_id text, p_model text, p_estimated_tokens bigint default null, p_message text default null,
  p_conversation_id text default null, p_task_type text default null, p_scope_id text default null, p_complexity numeric default null
) returns jsonb
  -- Plans of these statements depend on no parameter: without the setting each call would plan anew, to prune partitions.
  -- And a connection keeps its plans: one made while a table was empty would scan the grown table for ever.
  language plpgsql security definer set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $$
declare
  -- Whole rows into typed variables: cheaper than wide select lists, which PostgreSQL sets up anew for each call.
  a governance.accounts;
  p governance.plans;
  c governance.active_config;
  q governance.requests;
  v governance.verdict;
  v_now timestamptz;
  v_rounds int;
  v_fingerprint bigint;
  v_made_at timestamptz;
  v_phrases text;
  v_identical int;
  v_complexity numeric;
  v_topic text;
  v_provider text;
  v_characters int;
  v_folded text;
  v_hash bigint;
  v_words int;
  v_seconds_since numeric;
  v_rapid int;
  v_conversation int;
  v_estimate bigint;
  v_available bigint;
  v_used_today bigint;
  v_used_month bigint;
  v_usage_percent bigint;
  v_is_clear boolean;
  v_hold_ends_at timestamptz;
  v_need bigint;
  v_decision text;
  v_reason text;
  v_message text;
  v_http_status int;
  v_version_id bigint;
  v_retry_at timestamptz;
  v_retry_seconds int;
  v_rule_blocked_until timestamptz;
  v_percent int;
  v_upgrade_to text;
  v_upgrade jsonb;
  v_shortfall jsonb;
  v_decision_id bigint;
begin
  if p_request_id is null or p_user_id is null or p_model is null or btrim(p_request_id) = '' or btrim(p_user_id) = '' or btrim(p_model) = ''
    or length(p_request_id) > 255 or length(p_user_id) > 255 or length(p_model) > 200
    or p_estimated_tokens not between 1 and 9007199254740991 or octet_length(p_message) > 4194304 or p_complexity is not null
    or length(p_conversation_id) > 255 or length(p_task_type) > 255 or length(p_scope_id) > 255 then
    perform governance.check_authorize(p_request_id, p_user_id, p_model, p_estimated_tokens, p_message, p_conversation_id, p_task_type, p_scope_id, p_complexity);
  end if;

  perform pg_advisory_xact_lock(hashtextextended(p_user_id, 7254));
  loop
    select * into a from governance.accounts x where x.user_id = p_user_id;
    select * into c from governance.active_config;
    v_now := coalesce(c.test_clock_at, clock_timestamp() + coalesce(c.test_clock_offset, interval '0'));
    exit when (a.day_ends_at > v_now and a.month_ends_at > v_now and (a.lots_check_at is null or a.lots_check_at > v_now)
      and (a.holds_check_at is null or a.holds_check_at > v_now)) or v_rounds > 1;
    if a.account_id is null then
      perform governance.create_account(p_user_id, v_now);
    else
      perform governance.roll_account(a.account_id, v_now);
    end if;
    v_rounds := coalesce(v_rounds, 0) + 1;
  end loop;
  select * into p from governance.plans x where x.plan_id = a.plan_id;
  v_fingerprint := hashtextextended(row(p_user_id, p_model, p_estimated_tokens, p_message, p_conversation_id, p_task_type, p_scope_id, round(p_complexity, 3))::text, 0);

  if p_message is not null then
    v_characters := char_length(p_message);
    if v_characters = octet_length(p_message) and p_message !~ '[^\x20-\x7e]|  |^ | $' then
      -- Plain text of single-spaced words needs no collapsing; folding it cannot change its words.
      v_folded := lower(p_message collate "C");
      v_hash := hashtextextended(v_folded, a.account_id);
      v_words := v_characters - char_length(replace(p_message, ' ', '')) + (v_characters > 0)::int;
    else
      v_folded := governance.fold(p_message);
      v_hash := hashtextextended(governance.collapse_spaces(v_folded), a.account_id);
      v_words := governance.count_words(p_message);
    end if;
    v_seconds_since := round(extract(epoch from v_now - a.last_message_at), 3);
  end if;
  v_rapid := case when p_message is null then 0
    when v_now - a.last_message_at < interval '2 seconds' and (a.forgiven_at is null or a.last_message_at > a.forgiven_at) then least(a.rapid_messages + 1, 1000000)
    else 1 end;
  if p_conversation_id <> '' then
    select x.seen_conversation_messages into v_conversation from governance.requests x
    where x.account_id = a.account_id and x.conversation_id = p_conversation_id
    order by x.created_at desc, x.decision_id desc limit 1;
    v_conversation := coalesce(v_conversation, 0) + (p_message is not null)::int;
  end if;
  v_complexity := round(p_complexity, 3);
  v_estimate := p_estimated_tokens;
  if v_estimate is null then
    select x.tokens into v_estimate from governance.estimates x where x.task_type = p_task_type;
    v_estimate := coalesce(v_estimate, (v_characters + 3) / 4 + c.reply_tokens, c.default_estimate);
  end if;
  v_available := a.subscription_tokens + a.purchased_tokens + a.promotional_tokens - a.reserved_tokens;
  v_used_today := a.day_tokens + a.reserved_tokens;
  v_used_month := a.month_tokens + a.reserved_tokens;
  if p.daily_limit is not null or p.monthly_limit is not null or p.monthly_allowance > 0 then
    v_usage_percent := case
      when p.daily_limit is not null or p.monthly_limit is not null then greatest(
        case when p.daily_limit = 0 then 100 else v_used_today * 100 / p.daily_limit end,
        case when p.monthly_limit = 0 then 100 else v_used_month * 100 / p.monthly_limit end)
      else v_used_month * 100 / p.monthly_allowance end;
  end if;
  -- Nothing about the account or its plan stops this call or warns of it.
  v_is_clear := a.blocked_at is null and (a.rule_blocked_until is null or a.rule_blocked_until <= v_now) and v_estimate <= v_available
    and (p.daily_limit is null or (v_used_today + v_estimate) * 100 < p.daily_limit * coalesce(p.warn_at[1], 100))
    and (p.monthly_limit is null or (v_used_month + v_estimate) * 100 < p.monthly_limit * coalesce(p.warn_at[1], 100));
  if v_is_clear or not (a.blocked_at is not null and (a.blocked_until is null or a.blocked_until > v_now) or coalesce(a.rule_blocked_until > v_now, false)) then
    -- Facts that cost are worked out only where a rule reads them.
    if c.rules_read_identical then
      if p_message is null then
        v_identical := 0;
      else
        select count(*) + 1 into v_identical from (select from governance.request_keys x where x.account_id = a.account_id and x.message_hash = v_hash
          and x.created_at > greatest(v_now - c.identical_window_minutes * interval '1 minute', a.forgiven_at) limit 999) n;
      end if;
    end if;
    if c.rules_read_words then
      v_phrases := governance.space_phrases(v_folded);
      v_topic := governance.rules_topic(v_phrases);
      v_complexity := governance.rules_complexity(v_complexity, v_phrases, v_characters);
    end if;
    if c.rules_read_provider then
      v_provider := governance.provider_of(p_model, v_now);
    end if;
    -- Most calls match nothing: one expression asks all rules at once, and only then they are walked in order.
    if governance.rules_match(v_now, a.timezone, a.created_at, v_folded, v_phrases, v_used_today, v_used_month,
      a.day_messages + (p_message is not null)::int, v_identical, v_seconds_since, v_rapid, v_conversation, v_words, v_characters, v_estimate, v_complexity,
      a.plan_id, p_model, v_provider, nullif(p_task_type, ''), nullif(p_scope_id, ''), v_available, v_usage_percent, a.day_cost_micros, a.month_cost_micros,
      a.flagged_at is not null, v_topic, p.monthly_allowance, p.daily_limit, p.monthly_limit) then
      v := governance.evaluate_rules(v_now, a.timezone, a.created_at, v_folded, v_phrases, v_used_today, v_used_month,
      a.day_messages + (p_message is not null)::int, v_identical, v_seconds_since, v_rapid, v_conversation, v_words, v_characters, v_estimate, v_complexity,
      a.plan_id, p_model, v_provider, nullif(p_task_type, ''), nullif(p_scope_id, ''), v_available, v_usage_percent, a.day_cost_micros, a.month_cost_micros,
      a.flagged_at is not null, v_topic, p.monthly_allowance, p.daily_limit, p.monthly_limit);
    end if;
  end if;

  if v_is_clear and v.matched_version_ids is null then
    v_need := v_estimate;
  else
    v_need := case when v.cost_factor is null then v_estimate else least(ceil(v_estimate * v.cost_factor), 9007199254740991) end;
    if a.blocked_at is not null and (a.blocked_until is null or a.blocked_until > v_now) then
      v_reason := 'user_blocked';
      v_retry_at := a.blocked_until;
    elsif a.rule_blocked_until > v_now then
      v_reason := a.rule_block_reason;
      v_message := a.rule_block_message;
      v_version_id := a.rule_block_version_id;
      v_retry_at := a.rule_blocked_until;
    elsif v.blocked then
      v_reason := v.reason;
      v_message := v.message;
      v_version_id := v.version_id;
      v_rule_blocked_until := v_now + v.block_minutes * interval '1 minute';
      v_retry_at := v_rule_blocked_until;
    elsif v_used_today + v_need > p.daily_limit then
      v_reason := 'daily_limit';
      v_retry_at := a.day_ends_at;
    elsif v_used_month + v_need > p.monthly_limit then
      v_reason := 'monthly_limit';
      v_retry_at := a.month_ends_at;
    elsif v_need > v_available then
      v_reason := 'insufficient_tokens';
    else
      if p.daily_limit > 0 then
        select max(w) into v_percent from unnest(p.warn_at) w where (v_used_today + v_need)::numeric * 100 >= p.daily_limit::numeric * w;
        if v_percent is not null then v.warnings := v.warnings || format('%s%% of the daily limit is used.', v_percent); end if;
      end if;
      if p.monthly_limit > 0 then
        select max(w) into v_percent from unnest(p.warn_at) w where (v_used_month + v_need)::numeric * 100 >= p.monthly_limit::numeric * w;
        if v_percent is not null then v.warnings := v.warnings || format('%s%% of the monthly limit is used.', v_percent); end if;
      end if;
      if v.warnings is not null then v_decision := 'warn'; end if;
    end if;

    if v_reason is not null then
      v_decision := 'block';
      v_http_status := governance.http_status(v_reason);
      v_message := coalesce(v_message, governance.reason_message(v_reason));
      if v_retry_at is null and v_http_status = 429 then
        v_retry_at := case v_reason
          when 'daily_limit' then a.day_ends_at
          when 'monthly_limit' then a.month_ends_at
          when 'token_hogging' then a.day_ends_at
          when 'budget_exhausted' then a.month_ends_at
          when 'spam_identical' then v_now + c.identical_window_minutes * interval '1 minute'
          when 'bot_behavior' then v_now + interval '2 seconds'
          else v_now + interval '1 minute' end;
      end if;
      if v_retry_at is not null then v_retry_seconds := least(ceil(extract(epoch from v_retry_at - v_now)), 2147483647); end if;
      if v_reason = 'insufficient_tokens' then
        v_shortfall := jsonb_build_object('need', v_need, 'have', v_available, 'missing', v_need - v_available);
      end if;
      if v_reason in ('insufficient_tokens', 'daily_limit', 'monthly_limit') and p.upgrade_to is not null then
        v_upgrade_to := p.upgrade_to;
        select jsonb_build_object('plan_id', x.plan_id, 'name', x.name) into v_upgrade from governance.plans x where x.plan_id = v_upgrade_to;
      end if;
      v_need := 0;
    end if;
  end if;

  if v_reason is null then v_hold_ends_at := v_now + c.hold_minutes * interval '1 minute'; end if;
  -- The transaction number before the event id: readers of the feed rely on it.
  insert into governance.request_keys (request_id, created_at, decision_id, account_id, lock_key, message_hash)
  values (p_request_id, v_now, case when pg_current_xact_id() is not null then nextval('governance.event_ids') end, a.account_id, hashtextextended(p_user_id, 7254), v_hash)
  on conflict do nothing
  returning decision_id into v_decision_id;
  if v_decision_id is null then
    -- The id is taken: this call's own answer from before, or another call's.
    select x.decision_id, x.created_at into strict v_decision_id, v_made_at from governance.request_keys x where x.request_id = p_request_id;
    select * into strict q from governance.requests x where x.decision_id = v_decision_id and x.created_at = v_made_at;
    if q.account_id <> a.account_id or q.fingerprint <> v_fingerprint then
      perform governance.fail('PT409', 'idempotency_conflict', format('Request "%s" was made before with other parameters', left(p_request_id, 64)));
    end if;
    return governance.decision_answer(q);
  end if;
  insert into governance.requests (decision_id, created_at, account_id, request_id, fingerprint, requested_model, task_type, scope_id, conversation_id,
    message_hash, message_words, message_characters, decision, reason, http_status, message, warnings, model, truncate_to_words, expires_at,
    retry_after_seconds, upgrade_plan, cost_factor, plan_id, rule_set_id, rule_version_id, matched_version_ids,
    estimated_tokens, reserved_tokens, seen_tokens_today, seen_tokens_month, seen_cost_today_micros, seen_cost_month_micros,
    seen_messages_today, seen_rapid_messages, seen_identical_messages, seen_conversation_messages, seen_seconds_since, seen_complexity,
    seen_topic, seen_usage_percent, seen_flagged, daily_limit, day_ends_at, monthly_limit, month_ends_at,
    subscription_tokens, purchased_tokens, promotional_tokens, total_reserved_tokens, debt_tokens, status)
  values (v_decision_id, v_now, a.account_id, p_request_id, v_fingerprint, p_model, nullif(p_task_type, ''), nullif(p_scope_id, ''), nullif(p_conversation_id, ''),
    v_hash, v_words, v_characters, coalesce(v_decision, 'allow'), v_reason, coalesce(v_http_status, 200), v_message, v.warnings, coalesce(v.model, p_model), v.truncate_to_words,
    v_hold_ends_at,
    v_retry_seconds, v_upgrade_to, v.cost_factor, a.plan_id, c.rule_set_id, v_version_id, v.matched_version_ids,
    v_estimate, v_need, v_used_today, v_used_month, a.day_cost_micros, a.month_cost_micros,
    a.day_messages + (p_message is not null)::int, v_rapid, v_identical, v_conversation, v_seconds_since, v_complexity,
    v_topic, v_usage_percent, a.flagged_at is not null, p.daily_limit, a.day_ends_at, p.monthly_limit, a.month_ends_at,
    a.subscription_tokens, a.purchased_tokens, a.promotional_tokens, a.reserved_tokens + v_need, a.debt_tokens,
    case when v_reason is null then 'held' else 'blocked' end);
  update governance.accounts y set
    last_activity_at = v_now,
    last_message_at = case when p_message is null then a.last_message_at else v_now end,
    rapid_messages = case when p_message is null then a.rapid_messages else v_rapid end,
    day_messages = a.day_messages + (p_message is not null)::int, month_messages = a.month_messages + (p_message is not null)::int,
    day_calls = a.day_calls + 1, month_calls = a.month_calls + 1,
    reserved_tokens = y.reserved_tokens + v_need,
    holds_from = case when v_reason is null then least(a.holds_from, v_now) else a.holds_from end,
    holds_check_at = case when v_reason is null then least(a.holds_check_at, v_hold_ends_at) else a.holds_check_at end
  where y.account_id = a.account_id;
  if v_rule_blocked_until is not null then
    update governance.accounts y set rule_blocked_until = v_rule_blocked_until, rule_block_reason = v_reason, rule_block_message = v_message,
      rule_block_version_id = v_version_id
    where y.account_id = a.account_id;
    insert into governance.audit_log (created_at, action, account_id, rule_name, reason, details)
    select v_now, 'rule_block', a.account_id, x.rule_name, v_reason, jsonb_build_object('until', v_rule_blocked_until, 'rule_version', x.version, 'decision_id', v_decision_id)
    from governance.rule_versions x where x.version_id = v_version_id;
  end if;
  if v.flag_reason is not null and a.flagged_at is null then
    update governance.accounts y set flagged_at = v_now, flag_reason = v.flag_reason, flagged_by = 'rule', version = y.version + 1 where y.account_id = a.account_id;
    insert into governance.audit_log (created_at, action, account_id, rule_name, reason, details)
    select v_now, 'rule_flag', a.account_id, x.rule_name, v.flag_reason, jsonb_build_object('rule_version', x.version, 'decision_id', v_decision_id)
    from governance.rule_versions x where x.version_id = v.flag_version_id;
  end if;
  -- Each connection wakes the readers once an interval at most.
  if (extract(epoch from v_now) * 1000 / c.signal_interval_ms)::bigint::text is distinct from current_setting('governance.beat', true) then
    perform governance.ring_feed(v_now, c.signal_interval_ms);
  end if;
  return to_jsonb(row(p_request_id, v_decision_id, coalesce(v_decision, 'allow'), v_reason, coalesce(v_http_status, 200), v_message, p_model, coalesce(v.model, p_model),
    v.truncate_to_words, v_estimate, v_need, v_hold_ends_at, v_retry_seconds, v_shortfall, v_upgrade,
    row(v_available - v_need, a.reserved_tokens + v_need, a.subscription_tokens, a.purchased_tokens, a.promotional_tokens, a.debt_tokens, v_available + a.reserved_tokens)::governance.balance,
    row(row(p.daily_limit, v_used_today + v_need, greatest(p.daily_limit - v_used_today - v_need, case when p.daily_limit is not null then 0 end), a.day_ends_at)::governance.limit_state,
      row(p.monthly_limit, v_used_month + v_need, greatest(p.monthly_limit - v_used_month - v_need, case when p.monthly_limit is not null then 0 end), a.month_ends_at)::governance.limit_state)::governance.limits,
    coalesce(v.warnings, '{}'), p.fail_mode)::governance.authorization);
end
$$;

create or replace function governance.settle_request(
  p_request_id text, p_input_tokens bigint, p_output_tokens bigint, p_model text, p_metadata jsonb, p_above_ceiling boolean
) returns jsonb
  language plpgsql set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $$
declare
  k governance.request_keys;
  a governance.accounts;
  p governance.plans;
  c governance.active_config;
  q governance.requests;
  v_price governance.prices;
  v_now timestamptz;
  v_rounds int;
  v_fingerprint bigint;
  v_model text;
  v_held bigint;
  v_reserved bigint;
  v_total bigint;
  v_charge numeric;
  v_cost numeric;
  v_charged bigint;
  v_take bigint;
  v_debt bigint;
  v_lot_id bigint;
  v_kind text;
  v_spent governance.lot_spending;
  v_cached bigint;
  v_cache_write bigint;
  v_reasoning bigint;
  v_cost_micros bigint;
  v_transaction_id bigint;
  v_hash bytea;
  v_alerts jsonb;
begin
  select * into k from governance.request_keys x where x.request_id = p_request_id;
  if k.decision_id is null then
    perform governance.fail('PT404', 'unknown_request', format('There is no request "%s"', left(p_request_id, 64)));
  end if;
  if p_metadata is not null and p_metadata <> '{}' then
    v_cached := nullif(governance.token_part(p_metadata, 'cached_input_tokens'), 0);
    v_cache_write := nullif(governance.token_part(p_metadata, 'cache_write_tokens'), 0);
    v_reasoning := nullif(governance.token_part(p_metadata, 'reasoning_tokens'), 0);
    if coalesce(v_cached, 0) + coalesce(v_cache_write, 0) > p_input_tokens or v_reasoning > p_output_tokens then
      perform governance.fail('PT400', 'invalid_argument',
        'cached_input_tokens and cache_write_tokens are part of p_input_tokens, reasoning_tokens of p_output_tokens');
    end if;
  end if;
  perform pg_advisory_xact_lock(k.lock_key);
  loop
    select * into a from governance.accounts x where x.account_id = k.account_id;
    select * into c from governance.active_config;
    v_now := coalesce(c.test_clock_at, clock_timestamp() + coalesce(c.test_clock_offset, interval '0'));
    exit when (a.day_ends_at > v_now and a.month_ends_at > v_now and (a.lots_check_at is null or a.lots_check_at > v_now)
      and (a.holds_check_at is null or a.holds_check_at > v_now)) or v_rounds > 0;
    perform governance.roll_account(k.account_id, v_now);
    v_rounds := 1;
  end loop;
  select x.status, x.reserved_tokens, x.cost_factor, x.model, x.task_type, x.scope_id, x.message_hash, x.settle_fingerprint
  into strict q.status, q.reserved_tokens, q.cost_factor, q.model, q.task_type, q.scope_id, q.message_hash, q.settle_fingerprint
  from governance.requests x where x.decision_id = k.decision_id and x.created_at = k.created_at;
  select x.daily_limit, x.monthly_limit, x.warn_at into p.daily_limit, p.monthly_limit, p.warn_at from governance.plans x where x.plan_id = a.plan_id;
  v_model := coalesce(p_model, q.model);
  v_fingerprint := hashtextextended(row(p_input_tokens, p_output_tokens, p_model, p_metadata)::text, 0);
  v_charge := case when q.cost_factor is null then p_input_tokens::numeric + p_output_tokens else ceil((p_input_tokens::numeric + p_output_tokens) * q.cost_factor) end;
  v_held := case when q.status = 'held' then q.reserved_tokens else 0 end;
  v_reserved := a.reserved_tokens - v_held;
  v_total := a.subscription_tokens + a.purchased_tokens + a.promotional_tokens;

  if q.status in ('held', 'expired') and v_charge <= c.settle_ceiling_tokens then
    v_charged := v_charge;
  elsif q.status in ('settled', 'quarantined') and not (q.status = 'quarantined' and p_above_ceiling) then
    if q.settle_fingerprint <> v_fingerprint then
      perform governance.fail('PT409', 'idempotency_conflict', format('Request "%s" was settled before with other parameters', left(p_request_id, 64)));
    end if;
    select * into strict q from governance.requests x where x.decision_id = k.decision_id and x.created_at = k.created_at;
    return governance.end_answer(q);
  elsif q.status = 'released' then
    perform governance.fail('PT409', 'already_released', format('Request "%s" was released', left(p_request_id, 64)));
  elsif q.status = 'blocked' then
    perform governance.fail('PT409', 'not_authorized', format('Request "%s" was blocked: there is nothing to settle', left(p_request_id, 64)));
  elsif not p_above_ceiling then
    return governance.quarantine_settlement(k.decision_id, k.created_at, v_now, p_input_tokens, p_output_tokens, v_model, p_metadata, v_fingerprint, v_charge, c.settle_ceiling_tokens);
  elsif v_charge > 9007199254740991 then
    perform governance.fail('PT400', 'invalid_argument', 'More than 2^53 - 1 tokens cannot be charged');
  else
    v_charged := v_charge;
  end if;
  -- The price is the one of the moment of the call.
  select * into v_price from governance.prices x
  where x.model = v_model and x.effective_from <= k.created_at and (x.retired_at is null or x.retired_at > k.created_at)
  order by x.effective_from desc, x.created_at, x.provider collate "C" limit 1;
  if v_price.price_id is not null and p_metadata = '{}' and greatest(p_input_tokens, p_output_tokens) < 1000000000
    and greatest(v_price.input_micros_per_million, v_price.output_micros_per_million) < 1000000000 then
    -- The formula below where nothing of it can leave bigint.
    v_cost_micros := (p_input_tokens * v_price.input_micros_per_million + p_output_tokens * v_price.output_micros_per_million + 500000) / 1000000;
  elsif v_price.price_id is not null then
    v_cost := div((p_input_tokens - coalesce(v_cached, 0) - coalesce(v_cache_write, 0))::numeric * v_price.input_micros_per_million
      + coalesce(v_cached, 0)::numeric * coalesce(v_price.cached_input_micros_per_million, v_price.input_micros_per_million)
      + coalesce(v_cache_write, 0)::numeric * coalesce(v_price.cache_write_micros_per_million, v_price.input_micros_per_million)
      + (p_output_tokens - coalesce(v_reasoning, 0))::numeric * v_price.output_micros_per_million
      + coalesce(v_reasoning, 0)::numeric * coalesce(v_price.reasoning_micros_per_million, v_price.output_micros_per_million)
      + 500000, 1000000);
    if v_cost > 9007199254740991 then
      perform governance.fail('PT400', 'invalid_argument', 'The cost of so many tokens is not below 2^53 micro-units');
    end if;
    v_cost_micros := v_cost;
  elsif p_metadata ? 'stated_cost_micros' then
    -- No price is known, but the caller's own bill is (record_token_usage).
    v_cost_micros := governance.token_part(p_metadata, 'stated_cost_micros');
  else
    v_alerts := jsonb_build_array(jsonb_build_object('type', 'unknown_price', 'severity', 'info', 'message', format('No price is known for model %s', v_model), 'details', jsonb_build_object('model', v_model)));
  end if;

  -- What the hold kept, then what is free; the rest is debt.
  v_take := least(v_charged, v_total - v_reserved);
  if v_take > 0 then
    update governance.lots l set remaining = l.remaining - v_take, spent = l.spent + v_take, is_open = l.remaining - v_take + l.frozen > 0
    where l.lot_id = (
        select x.lot_id from governance.lots x where x.account_id = k.account_id and x.is_open and x.remaining > 0
        order by x.expires_at nulls last, case x.kind when 'subscription' then 0 when 'promotional' then 1 else 2 end, x.created_at, x.lot_id limit 1)
      and l.remaining >= v_take
    returning l.lot_id, l.kind into v_lot_id, v_kind;
    if v_lot_id is null then
      v_spent := governance.spend_lots(k.account_id, v_take);
    else
      v_spent := row(v_take, case v_kind when 'subscription' then -v_take else 0 end, case v_kind when 'purchased' then -v_take else 0 end,
        case v_kind when 'promotional' then -v_take else 0 end, array[v_lot_id, -v_take]);
    end if;
  else
    v_spent := row(0, 0, 0, 0, '{}');
  end if;
  v_debt := v_charged - v_take;
  -- The transaction number before the event id: readers of the feed rely on it.
  v_transaction_id := case when pg_current_xact_id() is not null then nextval('governance.event_ids') end;
  insert into governance.token_transactions (transaction_id, account_id, created_at, transaction_type, amount, previous_balance, new_balance,
    debt_after, lot_changes, reference, decision_id, previous_hash, hash)
  values (v_transaction_id, k.account_id, v_now, 'usage', -v_take, v_total, v_total - v_take,
    a.debt_tokens + v_debt, v_spent.lot_changes, p_request_id, k.decision_id, a.last_hash,
    governance.entry_hash(a.last_hash, governance.entry_payload(v_transaction_id, v_now, 'usage', -v_take, v_total, v_total - v_take,
      a.debt_tokens + v_debt, v_spent.lot_changes, k.decision_id, a.user_id, p_request_id, null, null)))
  returning hash into v_hash;
  insert into governance.usage_daily as d (account_id, day, model, task_type, scope_id, calls, messages, input_tokens, output_tokens, charged_tokens, cost_micros, last_activity_at)
  values (k.account_id, a.local_day, v_model, coalesce(q.task_type, ''), coalesce(q.scope_id, ''), 1, (q.message_hash is not null)::int, p_input_tokens, p_output_tokens, v_charged, coalesce(v_cost_micros, 0), v_now)
  on conflict (account_id, day, model, task_type, scope_id) do update set
    calls = d.calls + 1, messages = d.messages + excluded.messages, input_tokens = d.input_tokens + excluded.input_tokens,
    output_tokens = d.output_tokens + excluded.output_tokens, charged_tokens = d.charged_tokens + excluded.charged_tokens,
    cost_micros = d.cost_micros + excluded.cost_micros, last_activity_at = excluded.last_activity_at;
  if v_debt > 0 or v_charged > c.high_usage_tokens or (v_total >= c.low_balance_tokens and v_total - v_take < c.low_balance_tokens)
    or (p.daily_limit > 0 and (a.day_tokens + v_charged) * 100 >= p.daily_limit * p.warn_at[1])
    or (p.monthly_limit > 0 and (a.month_tokens + v_charged) * 100 >= p.monthly_limit * p.warn_at[1]) then
    v_alerts := coalesce(v_alerts, '[]') || governance.settlement_alerts(k.account_id, v_now, v_charged, v_debt,
      v_total, v_total - v_take, c.low_balance_tokens, c.high_usage_tokens,
      p.daily_limit, a.day_tokens, p.monthly_limit, a.month_tokens, p.warn_at, a.local_day, jsonb_build_object('request_id', p_request_id, 'decision_id', k.decision_id));
  end if;
  update governance.accounts y set
    last_activity_at = v_now, last_transaction_id = v_transaction_id, last_hash = v_hash,
    day_tokens = a.day_tokens + v_charged, month_tokens = a.month_tokens + v_charged,
    day_cost_micros = a.day_cost_micros + coalesce(v_cost_micros, 0), month_cost_micros = a.month_cost_micros + coalesce(v_cost_micros, 0),
    subscription_tokens = a.subscription_tokens + v_spent.subscription, purchased_tokens = a.purchased_tokens + v_spent.purchased,
    promotional_tokens = a.promotional_tokens + v_spent.promotional,
    reserved_tokens = v_reserved, debt_tokens = a.debt_tokens + v_debt,
    holds_from = case when v_reserved > 0 then a.holds_from end, holds_check_at = case when v_reserved > 0 then a.holds_check_at end
  where y.account_id = k.account_id;
  update governance.requests y set
    status = 'settled', ended_at = v_now, settled_model = v_model, provider = v_price.provider, input_tokens = p_input_tokens, output_tokens = p_output_tokens,
    cached_input_tokens = v_cached, cache_write_tokens = v_cache_write, reasoning_tokens = v_reasoning,
    charged_tokens = v_charged, released_tokens = greatest(v_held - v_charged, 0), unpaid_tokens = v_debt, cost_micros = v_cost_micros,
    currency = c.currency, settle_fingerprint = v_fingerprint, transaction_id = v_transaction_id, alerts = nullif(v_alerts, '[]'),
    settle_metadata = nullif(p_metadata, '{}'),
    end_subscription_tokens = a.subscription_tokens + v_spent.subscription, end_purchased_tokens = a.purchased_tokens + v_spent.purchased,
    end_promotional_tokens = a.promotional_tokens + v_spent.promotional, end_reserved_tokens = v_reserved, end_debt_tokens = a.debt_tokens + v_debt
  where y.decision_id = k.decision_id and y.created_at = k.created_at;
  if (extract(epoch from v_now) * 1000 / c.signal_interval_ms)::bigint::text is distinct from current_setting('governance.beat', true) then
    perform governance.ring_feed(v_now, c.signal_interval_ms);
  end if;
  return to_jsonb(row(p_request_id, k.decision_id, 'settled', v_charged, greatest(v_held - v_charged, 0), v_debt, v_cost_micros, c.currency, v_model, v_transaction_id,
    row(v_total - v_take - v_reserved, v_reserved, a.subscription_tokens + v_spent.subscription, a.purchased_tokens + v_spent.purchased,
      a.promotional_tokens + v_spent.promotional, a.debt_tokens + v_debt, v_total - v_take)::governance.balance,
    coalesce(v_alerts, '[]'))::governance.settlement);
end
$$;

revoke all on all functions in schema governance from public;
