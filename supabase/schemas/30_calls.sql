-- The path of a call: authorise, settle, release.

create table governance.requests (
  -- First, so that its default is worked out before that of decision_id: readers of the feed rely on a writer having
  -- its transaction number before its event id.
  xid xid8 not null default pg_current_xact_id(),
  decision_id bigint not null default nextval('governance.event_ids'),
  created_at timestamptz not null,
  account_id bigint not null,
  request_id text not null,
  -- Hash of the parameters: a repeat with others is refused.
  fingerprint bigint not null,
  -- What was asked
  requested_model text not null,
  task_type text,
  scope_id text,
  conversation_id text,
  message_hash bigint,
  message_words int,
  message_characters int,
  -- What was decided
  decision text not null,
  reason text,
  http_status smallint not null,
  message text,
  warnings text[],
  model text not null,
  truncate_to_words int,
  expires_at timestamptz,
  retry_after_seconds int,
  upgrade_plan text,
  -- Null for 1: see multiply_cost.
  cost_factor numeric,
  plan_id text not null,
  rule_set_id bigint not null,
  -- The rule that blocked, and all that matched (shadow ones too).
  rule_version_id bigint,
  matched_version_ids bigint[],
  -- The facts that it saw
  estimated_tokens bigint not null,
  reserved_tokens bigint not null,
  seen_tokens_today bigint not null,
  seen_tokens_month bigint not null,
  seen_cost_today_micros bigint not null,
  seen_cost_month_micros bigint not null,
  seen_messages_today int not null,
  seen_rapid_messages int not null,
  seen_identical_messages int,
  seen_conversation_messages int,
  seen_seconds_since numeric,
  seen_complexity numeric,
  seen_topic text,
  seen_usage_percent bigint,
  seen_flagged boolean not null,
  -- Limits and balance as answered
  daily_limit bigint,
  day_ends_at timestamptz not null,
  monthly_limit bigint,
  month_ends_at timestamptz not null,
  subscription_tokens bigint not null,
  purchased_tokens bigint not null,
  promotional_tokens bigint not null,
  total_reserved_tokens bigint not null,
  debt_tokens bigint not null,
  -- How it ended
  status text not null,
  ended_at timestamptz,
  -- The account's day at the settlement: where the roll-up has it (CONVENTIONS, Time).
  usage_day date,
  end_reason text,
  settled_model text,
  provider text,
  input_tokens bigint,
  output_tokens bigint,
  cached_input_tokens bigint,
  cache_write_tokens bigint,
  reasoning_tokens bigint,
  charged_tokens bigint,
  released_tokens bigint,
  unpaid_tokens bigint,
  cost_micros bigint,
  currency text,
  settle_fingerprint bigint,
  transaction_id bigint,
  alerts jsonb,
  settle_metadata jsonb,
  end_subscription_tokens bigint,
  end_purchased_tokens bigint,
  end_promotional_tokens bigint,
  end_reserved_tokens bigint,
  end_debt_tokens bigint,
  primary key (decision_id, created_at)
) partition by range (created_at);

create index requests_account_time on governance.requests (account_id, created_at);

create index requests_conversation on governance.requests (account_id, conversation_id, created_at)
  where conversation_id is not null;

create index requests_refused on governance.requests (created_at) where decision = 'block';

comment on table governance.requests is
  'Every call: its decision, its hold and, once settled, its usage event. Monthly partitions; retention drops whole '
  'ones.';

comment on column governance.requests.status is
  'blocked; or held, then settled, released, expired (a late settle may follow) or quarantined.';

-- The caller's own id names a call across all partitions, and leads to its row without looking into each.
create table governance.request_keys (
  request_id text primary key,
  created_at timestamptz not null,
  decision_id bigint not null,
  account_id bigint not null,
  -- governance.lock_key of the account's user.
  lock_key bigint not null,
  message_hash bigint
);

comment on table governance.request_keys is 'Ids of calls, for as long as their rows are kept.';

create view governance.usage_events with (security_invoker = true) as
  select decision_id, request_id, account_id, created_at, ended_at, coalesce(settled_model, model) as model, provider,
    task_type,
    scope_id, conversation_id, input_tokens, output_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens,
    charged_tokens, cost_micros, currency
  from governance.requests
  where status = 'settled';

comment on view governance.usage_events is 'Settled calls.';

create table governance.requests_default partition of governance.requests default with (fillfactor = 75);

-- What happens to a hold other than settlement (which the ledger tells): readers of the feed find it here.
create table governance.hold_events (
  event_id bigint primary key default nextval('governance.event_ids'),
  created_at timestamptz not null,
  kind text not null check (kind in ('released', 'expired', 'quarantined')),
  decision_id bigint not null,
  account_id bigint not null,
  tokens bigint not null,
  reason text,
  xid xid8 not null default pg_current_xact_id()
);

create index hold_events_time on governance.hold_events (created_at);

comment on table governance.hold_events is 'Holds that were released, expired or quarantined.';

create table governance.usage_daily (
  account_id bigint not null,
  -- The account's own day at the settlement (CONVENTIONS, Time).
  day date not null,
  model text not null,
  -- Empty for none.
  task_type text not null default '',
  scope_id text not null default '',
  calls int not null default 0,
  messages int not null default 0,
  input_tokens bigint not null default 0,
  output_tokens bigint not null default 0,
  charged_tokens bigint not null default 0,
  cost_micros bigint not null default 0,
  -- When the first and the last of it was used: a period that holds both holds the whole row.
  first_activity_at timestamptz not null,
  last_activity_at timestamptz not null,
  primary key (account_id, day, model, task_type, scope_id)
) with (fillfactor = 70);

create index usage_daily_day on governance.usage_daily (day);

comment on table governance.usage_daily is 'Settled usage by account, local day, model, task type and scope, written '
  'by the settlement itself.';

create index hold_events_account on governance.hold_events (account_id, event_id);

-- Settlements above the ceiling are few, and each waits for a person.
create index hold_events_quarantined on governance.hold_events (decision_id) where kind = 'quarantined';

create index requests_refused_by_reason on governance.requests (reason, decision_id) where decision = 'block';

create type governance.authorization as (
  request_id text, decision_id bigint, decision text, reason text, http_status int, message text, requested_model text,
    model text,
  truncate_to_words int, estimated_tokens bigint, reserved_tokens bigint, expires_at timestamptz,
    retry_after_seconds int,
  shortfall jsonb, upgrade jsonb, balance governance.balance, limits governance.limits, warnings text[],
    fail_mode text);

create type governance.settlement as (
  request_id text, decision_id bigint, status text, charged_tokens bigint, released_tokens bigint, debt_tokens bigint,
    cost_micros bigint,
  currency text, model text, transaction_id bigint, balance governance.balance, alerts jsonb);

comment on column governance.request_keys.message_hash is 'Of the folded message, for counting identical ones; null '
  'without a message.';

create index request_keys_identical on governance.request_keys (account_id, message_hash, created_at)
  where message_hash is not null;

create function governance.ensure_request_partitions(p_from date, p_to date, p_most int default 1000) returns int
  language plpgsql set search_path = '' as $$
declare
  v_month date := date_trunc('month', p_from)::date;
  v_from timestamptz;
  v_to timestamptz;
  v_name text;
  v_waiting int;
  v_created int := 0;
begin
  perform pg_advisory_xact_lock(7254011);
  while v_month <= p_to and v_created < p_most loop
    v_name := 'requests_' || to_char(v_month, 'YYYY_MM');
    v_from := v_month::timestamp at time zone 'UTC';
    v_to := (v_month + interval '1 month')::timestamp at time zone 'UTC';
    v_month := (v_month + interval '1 month')::date;
    continue when to_regclass('governance.' || v_name) is not null;
    -- Calls of a month that has no partition are in the default one. A few are moved while new calls wait; many stay
    -- there for good, where every reader finds them.
    select count(*) into v_waiting from (select from governance.requests_default d
      where d.created_at >= v_from and d.created_at < v_to limit 2001) x;
    continue when v_waiting > 2000;
    if v_from <= governance.now() then
      -- The month has begun: a call may be on its way into the default partition at this very moment.
      lock table only governance.requests in access exclusive mode;
    end if;
    execute format('create table governance.%I (like governance.requests including defaults including comments) with '
      '(fillfactor = 75)', v_name);
    execute format('alter table governance.%I enable row level security', v_name);
    execute format('revoke all on governance.%I from public', v_name);
    execute format('with moved as (delete from governance.requests_default where created_at >= %L
      and created_at < %L returning *)
      insert into governance.%I select * from moved', v_from, v_to, v_name);
    execute format('alter table governance.requests attach partition governance.%I for values from (%L) to (%L)',
      v_name, v_from, v_to);
    v_created := v_created + 1;
  end loop;
  return v_created;
end
$$;
comment on function governance.ensure_request_partitions(date, date, int) is
  'Makes the monthly partitions of governance.requests that cover the given days, at most p_most of them; answers how '
  'many were new. A month with more than 2,000 calls in the default partition gets none.';

-- The path of a call: authorize_usage holds tokens, settle_usage charges, release_usage gives back. Each is one short
-- transaction under the account's advisory lock. docs/RULES.md fixes what is decided.

create function governance.http_status(p_reason text) returns int
  language sql immutable set search_path = '' as $$
  select case
    when p_reason is null then 200
    when p_reason = 'insufficient_tokens' then 402
    when p_reason in ('daily_limit', 'monthly_limit', 'budget_exhausted', 'spam_identical', 'bot_behavior',
      'token_hogging', 'rate_limited') then 429
    else 403
  end
$$;
comment on function governance.http_status(text) is 'The HTTP status of a block by its reason; 200 without one.';

create function governance.reason_message(p_reason text) returns text
  language sql immutable set search_path = '' as $$
  select case p_reason
    when 'insufficient_tokens' then 'You do not have enough tokens left for this.'
    when 'daily_limit' then 'You have reached today''s limit. It starts anew tomorrow.'
    when 'monthly_limit' then 'You have reached this month''s limit.'
    when 'budget_exhausted' then 'The budget for this is used up.'
    when 'user_blocked' then 'Your access is paused. Please contact support.'
    when 'spam_identical' then 'You have sent the same message many times. Please wait before you send it again.'
    when 'bot_behavior' then 'You are sending messages too fast. Please slow down.'
    when 'token_hogging' then 'You have sent very many messages today. Please come back tomorrow.'
    when 'rate_limited' then 'Too many requests. Please wait a moment.'
    when 'off_topic' then 'I cannot help with that here.'
    else 'This request was not allowed.'
  end
$$;
comment on function governance.reason_message(text) is 'What a user is told where the rule says nothing itself.';

create function governance.decision_answer(q governance.requests) returns jsonb
  language plpgsql stable set search_path = '' as $$
declare
  v_total bigint := q.subscription_tokens + q.purchased_tokens + q.promotional_tokens;
  v_available bigint := v_total - q.total_reserved_tokens;
  v_need bigint;
  v_upgrade jsonb;
  v_shortfall jsonb;
begin
  if q.upgrade_plan is not null then
    select jsonb_build_object('plan_id', p.plan_id, 'name', p.name) into v_upgrade from governance.plans p
      where p.plan_id = q.upgrade_plan;
  end if;
  if q.reason = 'insufficient_tokens' then
    v_need := least(ceil(q.estimated_tokens * coalesce(q.cost_factor, 1)), 9007199254740991);
    v_shortfall := jsonb_build_object('need', v_need, 'have', v_available, 'missing', v_need - v_available);
  end if;
  return jsonb_build_object(
    'request_id', q.request_id, 'decision_id', q.decision_id, 'decision', q.decision, 'reason', q.reason, 'http_status',
      q.http_status,
    'message', q.message, 'requested_model', q.requested_model, 'model', q.model, 'truncate_to_words',
      q.truncate_to_words,
    'estimated_tokens', q.estimated_tokens, 'reserved_tokens', q.reserved_tokens, 'expires_at', q.expires_at,
    'retry_after_seconds', q.retry_after_seconds, 'shortfall', v_shortfall, 'upgrade', v_upgrade,
    'balance', jsonb_build_object('available', v_available, 'reserved', q.total_reserved_tokens, 'subscription',
      q.subscription_tokens,
      'purchased', q.purchased_tokens, 'promotional', q.promotional_tokens, 'debt', q.debt_tokens, 'total', v_total),
    'limits', jsonb_build_object(
      'daily', jsonb_build_object('limit', q.daily_limit, 'used', q.seen_tokens_today + q.reserved_tokens,
        'remaining', case when q.daily_limit is not null
          then greatest(q.daily_limit - q.seen_tokens_today - q.reserved_tokens, 0) end,
        'resets_at', q.day_ends_at),
      'monthly', jsonb_build_object('limit', q.monthly_limit, 'used', q.seen_tokens_month + q.reserved_tokens,
        'remaining', case when q.monthly_limit is not null
          then greatest(q.monthly_limit - q.seen_tokens_month - q.reserved_tokens, 0) end,
        'resets_at', q.month_ends_at)),
    'warnings', coalesce(to_jsonb(q.warnings), '[]'),
    'fail_mode', (select p.fail_mode from governance.plans p where p.plan_id = q.plan_id));
end
$$;
comment on function governance.decision_answer(governance.requests) is
  'The answer of authorize_usage from its row, for a repeat: the same as the first, which authorize_usage writes from '
  'its variables.';

create function governance.end_answer(q governance.requests) returns jsonb
  language plpgsql stable set search_path = '' as $$
declare
  v_balance jsonb := jsonb_build_object(
    'available', q.end_subscription_tokens + q.end_purchased_tokens + q.end_promotional_tokens - q.end_reserved_tokens,
    'reserved', q.end_reserved_tokens, 'subscription', q.end_subscription_tokens, 'purchased', q.end_purchased_tokens,
    'promotional', q.end_promotional_tokens, 'debt', q.end_debt_tokens,
    'total', q.end_subscription_tokens + q.end_purchased_tokens + q.end_promotional_tokens);
begin
  if q.status in ('settled', 'quarantined') then
    return jsonb_build_object('request_id', q.request_id, 'decision_id', q.decision_id, 'status', q.status,
      'charged_tokens', q.charged_tokens,
      'released_tokens', q.released_tokens, 'debt_tokens', q.unpaid_tokens, 'cost_micros', q.cost_micros, 'currency',
        q.currency,
      'model', q.settled_model, 'transaction_id', q.transaction_id, 'balance', v_balance, 'alerts',
        coalesce(q.alerts, '[]'));
  end if;
  return jsonb_build_object('request_id', q.request_id, 'decision_id', q.decision_id, 'status', q.status,
    'released_tokens', q.released_tokens, 'balance', v_balance);
end
$$;
comment on function governance.end_answer(governance.requests) is 'The answer of settle_usage and release_usage, from '
  'the row.';

create function governance.check_authorize(
  p_request_id text, p_user_id text, p_model text, p_estimated_tokens bigint, p_message text, p_conversation_id text,
  p_task_type text, p_scope_id text, p_complexity numeric
) returns void
  language plpgsql immutable set search_path = '' as $$
begin
  perform governance.check_id('p_request_id', p_request_id);
  perform governance.check_id('p_user_id', p_user_id);
  perform governance.check_id('p_model', p_model, 200);
  perform governance.check_optional('p_conversation_id', p_conversation_id, 255);
  perform governance.check_optional('p_task_type', p_task_type, 255);
  perform governance.check_optional('p_scope_id', p_scope_id, 255);
  if p_estimated_tokens not between 1 and 9007199254740991 then
    perform governance.fail('PT400', 'invalid_argument',
      'p_estimated_tokens is a whole number of tokens from 1 up to 2^53 - 1, or null');
  end if;
  if octet_length(p_message) > 4194304 then
    perform governance.fail('PT400', 'invalid_argument', 'p_message is larger than 4 MB');
  end if;
  if p_complexity is not null and (p_complexity = 'NaN' or p_complexity not between 0 and 1) then
    perform governance.fail('PT400', 'invalid_argument', 'p_complexity is a number from 0 to 1');
  end if;
end
$$;
comment on function governance.check_authorize(text, text, text, bigint, text, text, text, text,
  numeric) is 'Refuses what authorize_usage cannot take.';

create function public.authorize_usage(
  p_request_id text, p_user_id text, p_model text, p_estimated_tokens bigint default null, p_message text default null,
  p_conversation_id text default null, p_task_type text default null, p_scope_id text default null,
    p_complexity numeric default null
) returns jsonb
  -- Plans of these statements depend on no parameter: without the setting each call would plan anew, to prune
  -- partitions.
  -- And a connection keeps its plans: one made while a table was empty would scan the grown table for ever.
  language plpgsql security definer set search_path = '' set plan_cache_mode = force_generic_plan
    set enable_seqscan = off set jit = off as $$
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
  if current_setting('role') <> 'service_role' then perform governance.refuse_others('authorize_usage'); end if;
  if p_request_id is null or p_user_id is null or p_model is null or btrim(p_request_id) = '' or btrim(p_user_id) = ''
    or btrim(p_model) = ''
    or length(p_request_id) > 255 or length(p_user_id) > 255 or length(p_model) > 200
    or p_estimated_tokens not between 1 and 9007199254740991 or octet_length(p_message) > 4194304
      or p_complexity is not null
    or length(p_conversation_id) > 255 or length(p_task_type) > 255 or length(p_scope_id) > 255 then
    perform governance.check_authorize(p_request_id, p_user_id, p_model, p_estimated_tokens, p_message,
      p_conversation_id, p_task_type, p_scope_id, p_complexity);
  end if;

  perform pg_advisory_xact_lock(hashtextextended(p_user_id, 7254));
  loop
    select * into a from governance.accounts x where x.user_id = p_user_id;
    select * into c from governance.active_config;
    v_now := coalesce(c.test_clock_at, clock_timestamp() + coalesce(c.test_clock_offset, interval '0'));
    exit when (a.day_ends_at > v_now and a.month_ends_at > v_now
      and (a.lots_check_at is null or a.lots_check_at > v_now)
      and (a.holds_check_at is null or a.holds_check_at > v_now)) or v_rounds > 1;
    if a.account_id is null then
      perform governance.create_account(p_user_id, v_now);
    else
      perform governance.roll_account(a.account_id, v_now);
    end if;
    v_rounds := coalesce(v_rounds, 0) + 1;
  end loop;
  select * into p from governance.plans x where x.plan_id = a.plan_id;
  v_fingerprint := hashtextextended(row(p_user_id, p_model, p_estimated_tokens, p_message, p_conversation_id,
    p_task_type, p_scope_id, round(p_complexity, 3))::text, 0);

  if p_message is not null then
    v_characters := char_length(p_message);
    if v_characters <= 20000 and v_characters = octet_length(p_message) and p_message !~ '[^\x20-\x7e]|  |^ | $' then
      -- Plain text of single-spaced words needs no collapsing; folding it cannot change its words.
      v_folded := lower(p_message collate "C");
      v_hash := hashtextextended(v_folded, a.account_id);
      v_words := v_characters - char_length(replace(p_message, ' ', '')) + (v_characters > 0)::int;
    else
      v_folded := governance.fold(p_message);
      v_hash := hashtextextended(governance.identity_text(p_message, v_folded), a.account_id);
      v_words := governance.count_words(p_message);
    end if;
    v_seconds_since := round(extract(epoch from v_now - a.last_message_at), 3);
  end if;
  v_rapid := case when p_message is null then 0
    when v_now - a.last_message_at < interval '2 seconds'
      and (a.forgiven_at is null or a.last_message_at > a.forgiven_at) then least(a.rapid_messages + 1, 1000000)
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
  v_is_clear := a.blocked_at is null and (a.rule_blocked_until is null or a.rule_blocked_until <= v_now)
    and v_estimate <= v_available
    and (p.daily_limit is null or (v_used_today + v_estimate) * 100 < p.daily_limit * coalesce(p.warn_at[1], 100))
    and (p.monthly_limit is null or (v_used_month + v_estimate) * 100 < p.monthly_limit * coalesce(p.warn_at[1], 100));
  if v_is_clear or not (a.blocked_at is not null and (a.blocked_until is null or a.blocked_until > v_now)
    or coalesce(a.rule_blocked_until > v_now, false)) then
    -- Facts that cost are worked out only where a rule reads them.
    if c.rules_read_identical then
      if p_message is null then
        v_identical := 0;
      else
        select count(*) + 1 into v_identical
          from (select from governance.request_keys x where x.account_id = a.account_id and x.message_hash = v_hash
          and x.created_at > greatest(v_now - c.identical_window_minutes * interval '1 minute', a.forgiven_at)
            limit 999) n;
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
      a.day_messages + (p_message is not null)::int, v_identical, v_seconds_since, v_rapid, v_conversation, v_words,
        v_characters, v_estimate, v_complexity,
      a.plan_id, p_model, v_provider, nullif(p_task_type, ''), nullif(p_scope_id, ''), v_available, v_usage_percent,
        a.day_cost_micros, a.month_cost_micros,
      a.flagged_at is not null, v_topic, p.monthly_allowance, p.daily_limit, p.monthly_limit) then
      v := governance.evaluate_rules(v_now, a.timezone, a.created_at, v_folded, v_phrases, v_used_today, v_used_month,
      a.day_messages + (p_message is not null)::int, v_identical, v_seconds_since, v_rapid, v_conversation, v_words,
        v_characters, v_estimate, v_complexity,
      a.plan_id, p_model, v_provider, nullif(p_task_type, ''), nullif(p_scope_id, ''), v_available, v_usage_percent,
        a.day_cost_micros, a.month_cost_micros,
      a.flagged_at is not null, v_topic, p.monthly_allowance, p.daily_limit, p.monthly_limit);
    end if;
  end if;

  if v_is_clear and v.matched_version_ids is null then
    v_need := v_estimate;
  else
    v_need := case when v.cost_factor is null then v_estimate
      else least(ceil(v_estimate * v.cost_factor), 9007199254740991) end;
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
        select max(w) into v_percent from unnest(p.warn_at) w
          where (v_used_today + v_need)::numeric * 100 >= p.daily_limit::numeric * w;
        if v_percent is not null then v.warnings := v.warnings || format('%s%% of the daily limit is used.', v_percent);
          end if;
      end if;
      if p.monthly_limit > 0 then
        select max(w) into v_percent from unnest(p.warn_at) w
          where (v_used_month + v_need)::numeric * 100 >= p.monthly_limit::numeric * w;
        if v_percent is not null then v.warnings := v.warnings
          || format('%s%% of the monthly limit is used.', v_percent); end if;
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
      if v_retry_at is not null then v_retry_seconds := least(ceil(extract(epoch from v_retry_at - v_now)), 2147483647);
        end if;
      if v_reason = 'insufficient_tokens' then
        v_shortfall := jsonb_build_object('need', v_need, 'have', v_available, 'missing', v_need - v_available);
      end if;
      if v_reason in ('insufficient_tokens', 'daily_limit', 'monthly_limit') and p.upgrade_to is not null then
        v_upgrade_to := p.upgrade_to;
        select jsonb_build_object('plan_id', x.plan_id, 'name', x.name) into v_upgrade from governance.plans x
          where x.plan_id = v_upgrade_to;
      end if;
      v_need := 0;
    end if;
  end if;

  if v_reason is null then v_hold_ends_at := v_now + c.hold_minutes * interval '1 minute'; end if;
  -- The transaction number before the event id: readers of the feed rely on it.
  insert into governance.request_keys (request_id, created_at, decision_id, account_id, lock_key, message_hash)
  values (p_request_id, v_now, case
    when pg_current_xact_id() is not null then nextval('governance.event_ids') end, a.account_id,
    hashtextextended(p_user_id, 7254), v_hash)
  on conflict do nothing
  returning decision_id into v_decision_id;
  if v_decision_id is null then
    -- The id is taken: this call's own answer from before, or another call's.
    select x.decision_id, x.created_at into strict v_decision_id, v_made_at from governance.request_keys x
      where x.request_id = p_request_id;
    select * into strict q from governance.requests x where x.decision_id = v_decision_id and x.created_at = v_made_at;
    if q.account_id <> a.account_id or q.fingerprint <> v_fingerprint then
      perform governance.fail('PT409', 'idempotency_conflict',
        format('Request "%s" was made before with other parameters', left(p_request_id, 64)));
    end if;
    return governance.decision_answer(q);
  end if;
  insert into governance.requests (decision_id, created_at, account_id, request_id, fingerprint, requested_model,
    task_type, scope_id, conversation_id,
    message_hash, message_words, message_characters, decision, reason, http_status, message, warnings, model,
      truncate_to_words, expires_at,
    retry_after_seconds, upgrade_plan, cost_factor, plan_id, rule_set_id, rule_version_id, matched_version_ids,
    estimated_tokens, reserved_tokens, seen_tokens_today, seen_tokens_month, seen_cost_today_micros,
      seen_cost_month_micros,
    seen_messages_today, seen_rapid_messages, seen_identical_messages, seen_conversation_messages, seen_seconds_since,
      seen_complexity,
    seen_topic, seen_usage_percent, seen_flagged, daily_limit, day_ends_at, monthly_limit, month_ends_at,
    subscription_tokens, purchased_tokens, promotional_tokens, total_reserved_tokens, debt_tokens, status)
  values (v_decision_id, v_now, a.account_id, p_request_id, v_fingerprint, p_model, nullif(p_task_type, ''),
    nullif(p_scope_id, ''), nullif(p_conversation_id, ''),
    v_hash, v_words, v_characters, coalesce(v_decision, 'allow'), v_reason, coalesce(v_http_status, 200), v_message,
      v.warnings, coalesce(v.model, p_model), v.truncate_to_words,
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
    day_messages = a.day_messages + (p_message is not null)::int,
      month_messages = a.month_messages + (p_message is not null)::int,
    day_calls = a.day_calls + 1, month_calls = a.month_calls + 1,
    reserved_tokens = y.reserved_tokens + v_need,
    holds_from = case when v_reason is null then least(a.holds_from, v_now) else a.holds_from end,
    holds_check_at = case when v_reason is null then least(a.holds_check_at, v_hold_ends_at) else a.holds_check_at end
  where y.account_id = a.account_id;
  if v_rule_blocked_until is not null then
    update governance.accounts y set rule_blocked_until = v_rule_blocked_until, rule_block_reason = v_reason,
      rule_block_message = v_message,
      rule_block_version_id = v_version_id
    where y.account_id = a.account_id;
    insert into governance.audit_log (created_at, action, account_id, rule_name, reason, details)
    select v_now, 'rule_block', a.account_id, x.rule_name, v_reason,
      jsonb_build_object('until', v_rule_blocked_until, 'rule_version', x.version, 'decision_id', v_decision_id)
    from governance.rule_versions x where x.version_id = v_version_id;
  end if;
  if v.flag_reason is not null and a.flagged_at is null then
    update governance.accounts y set flagged_at = v_now, flag_reason = v.flag_reason, flagged_by = 'rule',
      version = y.version + 1 where y.account_id = a.account_id;
    insert into governance.audit_log (created_at, action, account_id, rule_name, reason, details)
    select v_now, 'rule_flag', a.account_id, x.rule_name, v.flag_reason,
      jsonb_build_object('rule_version', x.version, 'decision_id', v_decision_id)
    from governance.rule_versions x where x.version_id = v.flag_version_id;
  end if;
  -- Each connection wakes the readers once an interval at most.
  if (extract(epoch from v_now) * 1000 / c.signal_interval_ms)::bigint::text
    is distinct from current_setting('governance.beat', true) then
    perform governance.ring_feed(v_now, c.signal_interval_ms);
  end if;
  return to_jsonb(row(p_request_id, v_decision_id, coalesce(v_decision, 'allow'), v_reason,
    coalesce(v_http_status, 200), v_message, p_model, coalesce(v.model, p_model),
    v.truncate_to_words, v_estimate, v_need, v_hold_ends_at, v_retry_seconds, v_shortfall, v_upgrade,
    row(v_available - v_need, a.reserved_tokens + v_need, a.subscription_tokens, a.purchased_tokens,
      a.promotional_tokens, a.debt_tokens, v_available + a.reserved_tokens)::governance.balance,
    row(row(p.daily_limit, v_used_today + v_need,
      greatest(p.daily_limit - v_used_today - v_need, case when p.daily_limit is not null then 0 end),
      a.day_ends_at)::governance.limit_state,
      row(p.monthly_limit, v_used_month + v_need,
        greatest(p.monthly_limit - v_used_month - v_need, case when p.monthly_limit is not null then 0 end),
        a.month_ends_at)::governance.limit_state)::governance.limits,
    coalesce(v.warnings, '{}'), p.fail_mode)::governance.authorization);
end
$$;
comment on function public.authorize_usage(text, text, text, bigint, text, text, text, text, numeric) is
  'Asks before a call: may this user make it, with which model, and holds its tokens. A refusal is an answer (decision '
  'block). The same p_request_id and parameters answer the same. Errors: invalid_argument, idempotency_conflict, '
  'not_configured.';
revoke all on function public.authorize_usage(text, text, text, bigint, text, text, text, text, numeric)
  from public, anon, authenticated;
grant execute on function public.authorize_usage(text, text, text, bigint, text, text, text, text,
  numeric) to service_role;

create function governance.token_part(p_metadata jsonb, p_key text) returns bigint
  language plpgsql immutable set search_path = '' as $$
declare
  v_number numeric;
begin
  if p_metadata -> p_key is null or p_metadata -> p_key = 'null' then return 0; end if;
  if jsonb_typeof(p_metadata -> p_key) <> 'number' then
    perform governance.fail('PT400', 'invalid_argument', format('p_metadata.%s is a whole number of tokens', p_key));
  end if;
  v_number := (p_metadata ->> p_key)::numeric;
  if v_number <> trunc(v_number) or v_number not between 0 and 9007199254740991 then
    perform governance.fail('PT400', 'invalid_argument', format('p_metadata.%s is a whole number of tokens', p_key));
  end if;
  return v_number::bigint;
end
$$;
comment on function governance.token_part(jsonb,
  text) is 'A count of tokens in the metadata of a settlement; 0 where absent.';

create function governance.quarantine_settlement(
  p_decision_id bigint, p_created_at timestamptz, p_now timestamptz, p_input_tokens bigint, p_output_tokens bigint,
    p_model text, p_metadata jsonb,
  p_fingerprint bigint, p_charge numeric, p_ceiling bigint
) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  q governance.requests;
  v_account governance.accounts;
  v_held bigint;
  v_message text := format('A settlement of %s tokens is above the ceiling of %s and waits for a person', p_charge,
    p_ceiling);
begin
  select y.* into strict q from governance.requests y
    where y.decision_id = p_decision_id and y.created_at = p_created_at;
  v_held := case when q.status = 'held' then q.reserved_tokens else 0 end;
  update governance.accounts a set
    last_activity_at = p_now, reserved_tokens = a.reserved_tokens - v_held,
    holds_from = case when a.reserved_tokens > v_held then a.holds_from end,
    holds_check_at = case when a.reserved_tokens > v_held then a.holds_check_at end
  where a.account_id = q.account_id
  returning * into v_account;
  if v_account.debt_tokens > 0 and governance.recover_debt(q.account_id, p_now, q.request_id) > 0 then
    select * into strict v_account from governance.accounts a where a.account_id = q.account_id;
  end if;
  insert into governance.alert_events (account_id, kind, severity, message, threshold, value, period_key, details,
    created_at)
  values (q.account_id, 'settlement_quarantined', 'critical', v_message, p_ceiling, p_charge, '',
    jsonb_build_object('request_id', q.request_id, 'decision_id', q.decision_id), p_now);
  insert into governance.hold_events (created_at, kind, decision_id, account_id, tokens, reason)
  values (p_now, 'quarantined', q.decision_id, q.account_id, v_held, 'above_ceiling');
  update governance.requests y set
    status = 'quarantined', ended_at = p_now, settled_model = p_model, input_tokens = p_input_tokens,
      output_tokens = p_output_tokens,
    charged_tokens = 0, released_tokens = v_held, unpaid_tokens = 0,
      currency = (select c.currency from governance.active_config c),
    settle_fingerprint = p_fingerprint, settle_metadata = nullif(p_metadata, '{}'),
    alerts = jsonb_build_array(jsonb_build_object('type', 'settlement_quarantined', 'severity', 'critical', 'message',
      v_message,
      'details', jsonb_build_object('tokens', p_charge, 'ceiling', p_ceiling))),
    end_subscription_tokens = v_account.subscription_tokens, end_purchased_tokens = v_account.purchased_tokens,
    end_promotional_tokens = v_account.promotional_tokens, end_reserved_tokens = v_account.reserved_tokens,
      end_debt_tokens = v_account.debt_tokens
  where y.decision_id = p_decision_id and y.created_at = p_created_at
  returning * into strict q;
  perform governance.ring('feed', p_now);
  perform governance.ring('alerts', p_now);
  return governance.end_answer(q);
end
$$;
comment on function governance.quarantine_settlement(bigint, timestamptz, timestamptz, bigint, bigint, text, jsonb,
  bigint, numeric, bigint) is
  'Sets a settlement above the ceiling aside: nothing is charged, the hold is given back, a person is called.';

create function governance.settle_request(
  p_request_id text, p_input_tokens bigint, p_output_tokens bigint, p_model text, p_metadata jsonb,
    p_above_ceiling boolean
) returns jsonb
  language plpgsql set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off
    set jit = off as $$
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
    exit when (a.day_ends_at > v_now and a.month_ends_at > v_now
      and (a.lots_check_at is null or a.lots_check_at > v_now)
      and (a.holds_check_at is null or a.holds_check_at > v_now)) or v_rounds > 0;
    perform governance.roll_account(k.account_id, v_now);
    v_rounds := 1;
  end loop;
  select x.status, x.reserved_tokens, x.cost_factor, x.model, x.task_type, x.scope_id, x.message_hash,
    x.settle_fingerprint
  into strict q.status, q.reserved_tokens, q.cost_factor, q.model, q.task_type, q.scope_id, q.message_hash,
    q.settle_fingerprint
  from governance.requests x where x.decision_id = k.decision_id and x.created_at = k.created_at;
  select x.daily_limit, x.monthly_limit, x.warn_at into p.daily_limit, p.monthly_limit, p.warn_at
    from governance.plans x where x.plan_id = a.plan_id;
  v_model := coalesce(p_model, q.model);
  v_fingerprint := hashtextextended(row(p_input_tokens, p_output_tokens, p_model, p_metadata)::text, 0);
  v_charge := case when q.cost_factor is null then p_input_tokens::numeric + p_output_tokens
    else ceil((p_input_tokens::numeric + p_output_tokens) * q.cost_factor) end;
  v_held := case when q.status = 'held' then q.reserved_tokens else 0 end;
  v_reserved := a.reserved_tokens - v_held;
  v_total := a.subscription_tokens + a.purchased_tokens + a.promotional_tokens;

  if q.status in ('held', 'expired') and v_charge <= c.settle_ceiling_tokens then
    v_charged := v_charge;
  elsif q.status in ('settled', 'quarantined') and not (q.status = 'quarantined' and p_above_ceiling) then
    if q.settle_fingerprint <> v_fingerprint then
      perform governance.fail('PT409', 'idempotency_conflict',
        format('Request "%s" was settled before with other parameters', left(p_request_id, 64)));
    end if;
    select * into strict q from governance.requests x
      where x.decision_id = k.decision_id and x.created_at = k.created_at;
    return governance.end_answer(q);
  elsif q.status = 'released' then
    perform governance.fail('PT409', 'already_released', format('Request "%s" was released', left(p_request_id, 64)));
  elsif q.status = 'blocked' then
    perform governance.fail('PT409', 'not_authorized',
      format('Request "%s" was blocked: there is nothing to settle', left(p_request_id, 64)));
  elsif not p_above_ceiling then
    return governance.quarantine_settlement(k.decision_id, k.created_at, v_now, p_input_tokens, p_output_tokens,
      v_model, p_metadata, v_fingerprint, v_charge, c.settle_ceiling_tokens);
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
    v_cost_micros := (p_input_tokens * v_price.input_micros_per_million + p_output_tokens *
      v_price.output_micros_per_million + 500000) / 1000000;
  elsif v_price.price_id is not null then
    v_cost := div((p_input_tokens - coalesce(v_cached, 0) - coalesce(v_cache_write,
      0))::numeric * v_price.input_micros_per_million
      + coalesce(v_cached, 0)::numeric * coalesce(v_price.cached_input_micros_per_million,
        v_price.input_micros_per_million)
      + coalesce(v_cache_write, 0)::numeric * coalesce(v_price.cache_write_micros_per_million,
        v_price.input_micros_per_million)
      + (p_output_tokens - coalesce(v_reasoning, 0))::numeric * v_price.output_micros_per_million
      + coalesce(v_reasoning, 0)::numeric * coalesce(v_price.reasoning_micros_per_million,
        v_price.output_micros_per_million)
      + 500000, 1000000);
    if v_cost > 9007199254740991 then
      perform governance.fail('PT400', 'invalid_argument', 'The cost of so many tokens is not below 2^53 micro-units');
    end if;
    v_cost_micros := v_cost;
  elsif p_metadata ? 'stated_cost_micros' then
    -- No price is known, but the caller's own bill is (record_token_usage).
    v_cost_micros := governance.token_part(p_metadata, 'stated_cost_micros');
  else
    perform governance.raise_unknown_price(v_model, v_now);
    v_alerts := jsonb_build_array(jsonb_build_object('type', 'unknown_price', 'severity', 'info', 'message',
      format('No price is known for model %s', v_model), 'details', jsonb_build_object('model', v_model)));
  end if;

  -- What the hold kept, then what is free; the rest is debt.
  v_take := least(v_charged, v_total - v_reserved);
  if v_take > 0 then
    update governance.lots l set remaining = l.remaining - v_take, spent = l.spent + v_take,
      is_open = l.remaining - v_take + l.frozen > 0
    where l.lot_id = (
        select x.lot_id from governance.lots x where x.account_id = k.account_id and x.is_open and x.remaining > 0
        order by x.expires_at nulls last, case x.kind when 'subscription' then 0 when 'promotional' then 1
          else 2 end, x.created_at, x.lot_id limit 1)
      and l.remaining >= v_take
    returning l.lot_id, l.kind into v_lot_id, v_kind;
    if v_lot_id is null then
      v_spent := governance.spend_lots(k.account_id, v_take);
    else
      v_spent := row(v_take, case v_kind when 'subscription' then -v_take else 0 end, case v_kind
        when 'purchased' then -v_take else 0 end,
        case v_kind when 'promotional' then -v_take else 0 end, array[v_lot_id, -v_take]);
    end if;
  else
    v_spent := row(0, 0, 0, 0, '{}');
  end if;
  v_debt := v_charged - v_take;
  -- The transaction number before the event id: readers of the feed rely on it.
  v_transaction_id := case when pg_current_xact_id() is not null then nextval('governance.event_ids') end;
  insert into governance.token_transactions (transaction_id, account_id, created_at, transaction_type, amount,
    previous_balance, new_balance,
    debt_after, lot_changes, reference, decision_id, previous_hash, hash)
  values (v_transaction_id, k.account_id, v_now, 'usage', -v_take, v_total, v_total - v_take,
    a.debt_tokens + v_debt, v_spent.lot_changes, p_request_id, k.decision_id, a.last_hash,
    governance.entry_hash(a.last_hash,
      governance.entry_payload(v_transaction_id, v_now, 'usage', -v_take, v_total, v_total - v_take,
      a.debt_tokens + v_debt, v_spent.lot_changes, k.decision_id, a.user_id, p_request_id, null, null)))
  returning hash into v_hash;
  insert into governance.usage_daily as d (account_id, day, model, task_type, scope_id, calls, messages, input_tokens,
    output_tokens, charged_tokens, cost_micros, first_activity_at, last_activity_at)
  values (k.account_id, a.local_day, v_model, coalesce(q.task_type, ''), coalesce(q.scope_id, ''), 1,
    (q.message_hash is not null)::int, p_input_tokens, p_output_tokens, v_charged, coalesce(v_cost_micros, 0),
    v_now, v_now)
  on conflict (account_id, day, model, task_type, scope_id) do update set
    calls = d.calls + 1, messages = d.messages + excluded.messages,
      input_tokens = d.input_tokens + excluded.input_tokens,
    output_tokens = d.output_tokens + excluded.output_tokens,
      charged_tokens = d.charged_tokens + excluded.charged_tokens,
    cost_micros = d.cost_micros + excluded.cost_micros,
    first_activity_at = least(d.first_activity_at, excluded.first_activity_at),
    last_activity_at = greatest(d.last_activity_at, excluded.last_activity_at);
  if v_debt > 0 or v_charged > c.alert_operation_above or v_total - v_take < c.alert_balance_below
    or (p.daily_limit > 0 and (a.day_tokens + v_charged) * 100 >= p.daily_limit * p.warn_at[1])
    or (p.monthly_limit > 0 and (a.month_tokens + v_charged) * 100 >= p.monthly_limit * p.warn_at[1]) then
    v_alerts := coalesce(v_alerts, '[]') || governance.settlement_alerts(k.account_id, v_now, v_charged, v_debt,
      v_total, v_total - v_take, c.low_balance_tokens, c.high_usage_tokens,
      p.daily_limit, a.day_tokens, p.monthly_limit, a.month_tokens, p.warn_at, a.local_day,
        jsonb_build_object('request_id', p_request_id, 'decision_id', k.decision_id));
  end if;
  update governance.accounts y set
    last_activity_at = v_now, last_transaction_id = v_transaction_id, last_hash = v_hash,
    day_tokens = a.day_tokens + v_charged, month_tokens = a.month_tokens + v_charged,
    day_cost_micros = a.day_cost_micros + coalesce(v_cost_micros, 0),
      month_cost_micros = a.month_cost_micros + coalesce(v_cost_micros, 0),
    subscription_tokens = a.subscription_tokens + v_spent.subscription,
      purchased_tokens = a.purchased_tokens + v_spent.purchased,
    promotional_tokens = a.promotional_tokens + v_spent.promotional,
    reserved_tokens = v_reserved, debt_tokens = a.debt_tokens + v_debt,
    holds_from = case when v_reserved > 0 then a.holds_from end, holds_check_at = case
      when v_reserved > 0 then a.holds_check_at end
  where y.account_id = k.account_id;
  update governance.requests y set
    status = 'settled', ended_at = v_now, usage_day = a.local_day, settled_model = v_model, provider = v_price.provider,
      input_tokens = p_input_tokens, output_tokens = p_output_tokens,
    cached_input_tokens = v_cached, cache_write_tokens = v_cache_write, reasoning_tokens = v_reasoning,
    charged_tokens = v_charged, released_tokens = greatest(v_held - v_charged, 0), unpaid_tokens = v_debt,
      cost_micros = v_cost_micros,
    currency = c.currency, settle_fingerprint = v_fingerprint, transaction_id = v_transaction_id,
      alerts = nullif(v_alerts, '[]'),
    settle_metadata = nullif(p_metadata, '{}'),
    end_subscription_tokens = a.subscription_tokens + v_spent.subscription,
      end_purchased_tokens = a.purchased_tokens + v_spent.purchased,
    end_promotional_tokens = a.promotional_tokens + v_spent.promotional, end_reserved_tokens = v_reserved,
      end_debt_tokens = a.debt_tokens + v_debt
  where y.decision_id = k.decision_id and y.created_at = k.created_at;
  if a.debt_tokens > 0 and v_total - v_take > v_reserved
    and governance.recover_debt(k.account_id, v_now, p_request_id) > 0 then
    -- What the hold kept and the call did not use pays what was owed before; the answer says what is left.
    update governance.requests y set end_subscription_tokens = x.subscription_tokens,
      end_purchased_tokens = x.purchased_tokens, end_promotional_tokens = x.promotional_tokens,
      end_debt_tokens = x.debt_tokens
    from governance.accounts x
    where x.account_id = k.account_id and y.decision_id = k.decision_id and y.created_at = k.created_at
    returning y.* into strict q;
    return governance.end_answer(q);
  end if;
  if (extract(epoch from v_now) * 1000 / c.signal_interval_ms)::bigint::text
    is distinct from current_setting('governance.beat', true) then
    perform governance.ring_feed(v_now, c.signal_interval_ms);
  end if;
  return to_jsonb(row(p_request_id, k.decision_id, 'settled', v_charged, greatest(v_held - v_charged, 0), v_debt,
    v_cost_micros, c.currency, v_model, v_transaction_id,
    row(v_total - v_take - v_reserved, v_reserved, a.subscription_tokens + v_spent.subscription,
      a.purchased_tokens + v_spent.purchased,
      a.promotional_tokens + v_spent.promotional, a.debt_tokens + v_debt, v_total - v_take)::governance.balance,
    coalesce(v_alerts, '[]'))::governance.settlement);
end
$$;
comment on function governance.settle_request(text, bigint, bigint, text, jsonb, boolean) is
  'settle_usage; with p_above_ceiling a person lets a quarantined settlement through.';

create function public.settle_usage(
  p_request_id text, p_input_tokens bigint, p_output_tokens bigint, p_model text default null,
    p_metadata jsonb default '{}'
) returns jsonb
  language plpgsql security definer set search_path = '' as $$
begin
  if current_setting('role') <> 'service_role' then perform governance.refuse_others('settle_usage'); end if;
  if p_request_id is null or length(p_request_id) not between 1 and 255 then
    perform governance.check_id('p_request_id', p_request_id);
  end if;
  if p_input_tokens is null or p_output_tokens is null or p_input_tokens not between 0 and 9007199254740991
    or p_output_tokens not between 0 and 9007199254740991 then
    perform governance.fail('PT400', 'invalid_argument',
      'p_input_tokens and p_output_tokens are whole numbers from 0 up to 2^53 - 1');
  end if;
  if p_model is not null then
    perform governance.check_id('p_model', p_model, 200);
  end if;
  if p_metadata <> '{}' then
    perform governance.check_metadata('p_metadata', p_metadata);
  end if;
  return governance.settle_request(p_request_id, p_input_tokens, p_output_tokens, p_model, p_metadata, false);
end
$$;
comment on function public.settle_usage(text, bigint, bigint, text, jsonb) is
  'Charges a call that was authorised: input and output tokens as the provider counted them. p_metadata may say '
  'cached_input_tokens, cache_write_tokens (parts of the input) and reasoning_tokens (part of the output). Above the '
  'setting settle_ceiling_tokens status is quarantined and nothing is charged. Safe to repeat. Errors: '
  'invalid_argument, unknown_request, not_authorized, already_released, idempotency_conflict.';
revoke all on function public.settle_usage(text, bigint, bigint, text, jsonb) from public, anon, authenticated;
grant execute on function public.settle_usage(text, bigint, bigint, text, jsonb) to service_role;

create function public.release_usage(p_request_id text, p_reason text default null) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_key governance.request_keys;
  q governance.requests;
  v_account governance.accounts;
  v_now timestamptz;
begin
  perform governance.refuse_others('release_usage');
  perform governance.check_id('p_request_id', p_request_id);
  perform governance.check_optional('p_reason', p_reason, 1000);
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
    insert into governance.hold_events (created_at, kind, decision_id, account_id, tokens, reason)
    values (v_now, 'released', q.decision_id, q.account_id, q.reserved_tokens, p_reason);
    if v_account.debt_tokens > 0 and governance.recover_debt(q.account_id, v_now, p_request_id) > 0 then
      select * into strict v_account from governance.accounts a where a.account_id = q.account_id;
    end if;
  end if;
  if q.status = 'held' or (q.status = 'expired' and q.end_reserved_tokens is null) then
    -- A hold that expired keeps its status and gives nothing more back.
    update governance.requests x set
      status = case when x.status = 'held' then 'released'
        else x.status end, ended_at = coalesce(x.ended_at, v_now), end_reason = coalesce(x.end_reason, p_reason),
      released_tokens = case when x.status = 'held' then x.reserved_tokens else 0 end,
      end_subscription_tokens = v_account.subscription_tokens, end_purchased_tokens = v_account.purchased_tokens,
      end_promotional_tokens = v_account.promotional_tokens, end_reserved_tokens = v_account.reserved_tokens,
        end_debt_tokens = v_account.debt_tokens
    where x.decision_id = q.decision_id and x.created_at = q.created_at
    returning * into strict q;
    perform governance.ring('feed', v_now);
  end if;
  return governance.end_answer(q);
end
$$;
comment on function public.release_usage(text, text) is
  'Gives a hold back: the call failed or was not made. A hold that had expired answers status expired and releases '
  'nothing more. Safe to repeat. Errors: invalid_argument, unknown_request, not_authorized, already_settled, '
  'idempotency_conflict.';
revoke all on function public.release_usage(text, text) from public, anon, authenticated;
grant execute on function public.release_usage(text, text) to service_role;

create function public.record_token_usage(p_user_id text, p_tokens_used bigint, p_cost_gbp numeric default null,
  p_model text default null) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_request_id text := 'record-' || gen_random_uuid();
  v_decision jsonb;
  v_settled jsonb;
  v_metadata jsonb := '{}';
begin
  perform governance.refuse_others('record_token_usage');
  perform governance.check_id('p_user_id', p_user_id);
  if p_tokens_used is null or p_tokens_used not between 1 and 9007199254740991 then
    perform governance.fail('PT400', 'invalid_argument',
      'p_tokens_used is a whole number of tokens from 1 up to 2^53 - 1');
  end if;
  if p_cost_gbp is not null then
    if p_cost_gbp = 'NaN' or p_cost_gbp not between 0 and 1000000000 then
      perform governance.fail('PT400', 'invalid_argument', 'p_cost_gbp is an amount of pounds from 0 to 1,000,000,000');
    end if;
    v_metadata := jsonb_build_object('cost_gbp', round(p_cost_gbp, 12));
    if (select c.currency from governance.active_config c) = 'gbp' then
      v_metadata := v_metadata || jsonb_build_object('stated_cost_micros', round(p_cost_gbp * 1000000)::bigint);
    end if;
  end if;
  v_decision := public.authorize_usage(v_request_id, p_user_id, coalesce(p_model, 'unknown'), p_tokens_used);
  if v_decision ->> 'decision' = 'block' then
    return jsonb_build_object('success', false, 'error', v_decision -> 'message', 'reason', v_decision -> 'reason',
      'tokens_remaining', least((v_decision -> 'balance' ->> 'available')::bigint,
        (v_decision -> 'limits' -> 'daily' ->> 'remaining')::bigint,
        (v_decision -> 'limits' -> 'monthly' ->> 'remaining')::bigint),
      'http_status', v_decision -> 'http_status', 'upgrade', v_decision -> 'upgrade', 'retry_after_seconds',
        v_decision -> 'retry_after_seconds',
      'request_id', v_request_id, 'decision_id', v_decision -> 'decision_id');
  end if;
  v_settled := governance.settle_request(v_request_id, p_tokens_used, 0, p_model, v_metadata, false);
  return jsonb_build_object('success', v_settled ->> 'status' = 'settled',
    'error', case when v_settled ->> 'status' <> 'settled' then 'The usage is above the ceiling and waits for a person'
      end,
    'reason', case when v_settled ->> 'status' <> 'settled' then v_settled ->> 'status' end,
    'tokens_remaining', least((v_settled -> 'balance' ->> 'available')::bigint,
      (v_decision -> 'limits' -> 'daily' ->> 'remaining')::bigint,
      (v_decision -> 'limits' -> 'monthly' ->> 'remaining')::bigint),
    'warnings', v_decision -> 'warnings', 'cost_micros', v_settled -> 'cost_micros', 'currency',
      v_settled -> 'currency', 'alerts', v_settled -> 'alerts',
    'request_id', v_request_id, 'decision_id', v_decision -> 'decision_id');
end
$$;
comment on function public.record_token_usage(text, bigint, numeric, text) is
  'Authorises and settles in one, for callers that know the tokens already: success, or error and reason. p_cost_gbp '
  'counts only where the model has no price and the preset''s currency is gbp. Errors: invalid_argument, '
    'not_configured.';
revoke all on function public.record_token_usage(text, bigint, numeric, text) from public, anon, authenticated;
grant execute on function public.record_token_usage(text, bigint, numeric, text) to service_role;
