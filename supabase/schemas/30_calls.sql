-- Calls: their tables, the shapes of arguments and answers, and what authorising, settling and releasing share.
-- authorize_usage (33) holds tokens, settle_usage (35) charges, release_usage (36) gives back: each is one short
-- transaction under the account's advisory lock.

-- governance.authorize_calls writes whole rows: a column more here is a value more there.
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
  -- What the rules saw
  facts governance.facts not null,
  reserved_tokens bigint not null,
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

-- Every row meets the condition, which keeps the index to queries by account: a connection keeps a plan that it made
-- while a month was empty, and would walk through the whole index to end a few calls.
create index requests_account_time on governance.requests (account_id, created_at) where account_id is not null;

create index requests_conversation on governance.requests (account_id, conversation_id, created_at)
  where conversation_id is not null;

create index requests_refused on governance.requests (created_at) where decision = 'block';

create index requests_refused_account on governance.requests (account_id, created_at) where decision = 'block';

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

-- Tickets name a call by the end of its id too. An index of every part would cost a call in a batch a fifth more.
create index request_keys_end on governance.request_keys (reverse(request_id) text_pattern_ops);

comment on table governance.request_keys is 'Ids of calls, for as long as their rows are kept.';

create view governance.usage_events with (security_invoker = true) as
  select decision_id, request_id, account_id, created_at, ended_at, coalesce(settled_model, model) as model, provider,
    task_type,
    scope_id, conversation_id, input_tokens, output_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens,
    charged_tokens, cost_micros, currency
  from governance.requests
  where status = 'settled';

comment on view governance.usage_events is 'Settled calls.';

-- Each page has room for the end of every call that began there, as those of a batch end in one transaction: their
-- rows stay where they are, and no index is written (HOT).
create table governance.requests_default partition of governance.requests default with (fillfactor = 40);

-- Ends of holds other than by a settlement, which is in the ledger. Readers of the feed find them here.
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

-- Fields of the answers are in the order in which jsonb keeps keys (shorter first, then by letter), so that they need
-- no sorting.
create type governance.authorization as (model text, limits governance.limits, reason text, balance governance.balance,
  buy_url text, message text, upgrade jsonb, decision text, warnings text[], fail_mode text, shortfall jsonb,
  expires_at timestamptz, request_id text, contact_url text, decision_id bigint, http_status int,
  requested_model text, reserved_tokens bigint, estimated_tokens bigint, truncate_to_words int,
  retry_after_seconds int);

create type governance.settlement as (model text, alerts jsonb, status text, balance governance.balance, currency text,
  request_id text, cost_micros bigint, debt_tokens bigint, decision_id bigint, charged_tokens bigint,
  transaction_id bigint, released_tokens bigint);

-- Arguments of the functions of a call, named as their parameters without p_.
create type governance.authorize_arguments as (request_id text, user_id text, model text, estimated_tokens bigint,
  message text, conversation_id text, task_type text, scope_id text, complexity numeric);

-- A message as rules and counters see it, and the lock of its account (governance.lock_key).
create type governance.judged_message as (folded text, hash bigint, characters int, words int, lock_key bigint);

create function governance.check_authorize(e governance.authorize_arguments) returns void
  language plpgsql immutable set search_path = '' as $$
begin
  perform governance.check_id('p_request_id', e.request_id);
  perform governance.check_id('p_user_id', e.user_id);
  perform governance.check_id('p_model', e.model, 200);
  perform governance.check_optional('p_conversation_id', e.conversation_id, 255);
  perform governance.check_optional('p_task_type', e.task_type, 255);
  perform governance.check_optional('p_scope_id', e.scope_id, 255);
  if e.estimated_tokens not between 1 and 9007199254740991 then
    perform governance.fail('PT400', 'invalid_argument',
      'p_estimated_tokens is a whole number of tokens from 1 up to 2^53 - 1, or null');
  end if;
  if octet_length(e.message) > 4194304 then
    perform governance.fail('PT400', 'invalid_argument', 'p_message is larger than 4 MB');
  end if;
  if e.complexity is not null and (e.complexity = 'NaN' or e.complexity not between 0 and 1) then
    perform governance.fail('PT400', 'invalid_argument', 'p_complexity is a number from 0 to 1');
  end if;
end
$$;
comment on function governance.check_authorize(governance.authorize_arguments) is
  'Refuses arguments that authorize_usage cannot take.';

create type governance.settle_arguments as (request_id text, input_tokens bigint, output_tokens bigint, model text,
  metadata jsonb);

create function governance.check_settle(e governance.settle_arguments) returns void
  language plpgsql immutable set search_path = '' as $$
begin
  perform governance.check_id('p_request_id', e.request_id);
  if e.input_tokens is null or e.output_tokens is null or e.input_tokens not between 0 and 9007199254740991
    or e.output_tokens not between 0 and 9007199254740991 then
    perform governance.fail('PT400', 'invalid_argument',
      'p_input_tokens and p_output_tokens are whole numbers from 0 up to 2^53 - 1');
  end if;
  if e.model is not null then
    perform governance.check_id('p_model', e.model, 200);
  end if;
  perform governance.check_metadata('p_metadata', e.metadata);
  perform governance.check_token_parts(e.input_tokens, e.output_tokens, e.metadata);
  if e.metadata ? 'by_other_models' then perform governance.check_other_models(e); end if;
end
$$;
comment on function governance.check_settle(governance.settle_arguments) is
  'Refuses arguments that settle_usage cannot take.';

create type governance.release_arguments as (request_id text, reason text);

-- How a call ended, and what its settlement adds to the roll-up.
create type governance.call_end as (decision_id bigint, created_at timestamptz, account_id bigint, request_id text,
  status text, model text, provider text, input_tokens bigint, output_tokens bigint, cached_input_tokens bigint,
  cache_write_tokens bigint, reasoning_tokens bigint, charged_tokens bigint, released_tokens bigint,
  unpaid_tokens bigint, cost_micros bigint, currency text, settle_fingerprint bigint, transaction_id bigint,
  alerts jsonb, settle_metadata jsonb, subscription_tokens bigint, purchased_tokens bigint, promotional_tokens bigint,
  reserved_tokens bigint, debt_tokens bigint, day date, task_type text, scope_id text, messages int);

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
      '(fillfactor = 40)', v_name);
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
  'Makes the monthly partitions of governance.requests that cover the given days, at most p_most of them; returns how '
  'many were new. A month with more than 2,000 calls in the default partition gets none.';

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

-- Answers are typed rows until they leave: those become JSON at half the cost of jsonb_build_object. This one has no
-- search path, so that it is inlined: it uses built-in functions alone. A repeat is answered by the same expression.
create function governance.decision_answer(q governance.requests, f governance.facts, p_upgrade jsonb,
  p_fail_mode text) returns governance.authorization
  language sql stable as $$
  select row(q.model,
    -- What remains is never negative, and null without a limit.
    row(row(f.tokens_today + q.reserved_tokens, q.daily_limit,
        q.daily_limit - least(f.tokens_today + q.reserved_tokens, q.daily_limit),
        q.day_ends_at)::governance.limit_state,
      row(f.tokens_this_month + q.reserved_tokens, q.monthly_limit,
        q.monthly_limit - least(f.tokens_this_month + q.reserved_tokens, q.monthly_limit),
        q.month_ends_at)::governance.limit_state)::governance.limits,
    q.reason,
    row(q.debt_tokens, f.available_tokens - q.reserved_tokens + q.total_reserved_tokens, q.total_reserved_tokens,
      f.available_tokens - q.reserved_tokens, q.purchased_tokens, q.promotional_tokens,
      q.subscription_tokens)::governance.balance,
    case when q.reason is not null then governance.buy_url(q.reason, q.plan_id) end,
    q.message, p_upgrade, q.decision, coalesce(q.warnings, '{}'), p_fail_mode,
    case when q.reason = 'insufficient_tokens' then
      governance.shortfall(f.estimated_tokens, q.cost_factor, f.available_tokens) end,
    q.expires_at, q.request_id, case when q.reason is not null then governance.contact_url(q.reason) end,
    q.decision_id, q.http_status, q.requested_model, q.reserved_tokens, f.estimated_tokens, q.truncate_to_words,
    q.retry_after_seconds)::governance.authorization
$$;
comment on function governance.decision_answer(governance.requests, governance.facts, jsonb, text) is
  'The answer of authorize_usage from its row and facts.';

create function governance.upgrade_json(p_plan_id text) returns jsonb
  language sql stable set search_path = '' as $$
  select jsonb_strip_nulls(jsonb_build_object('plan_id', p.plan_id, 'name', p.name, 'url',
    governance.setting_text('upgrade_url')))
  from governance.plans p where p.plan_id = p_plan_id
$$;
comment on function governance.upgrade_json(text) is 'The plan that an answer offers, and where to take it (the '
  'setting upgrade_url); null for none.';

create function governance.buy_url(p_reason text, p_plan_id text) returns text
  language sql stable set search_path = '' as $$
  select governance.setting_text('buy_url') from governance.plans p
  where p.plan_id = p_plan_id and p.allows_top_up and p_reason = 'insufficient_tokens'
$$;
comment on function governance.buy_url(text, text) is 'Where a user is to buy tokens (the setting buy_url), where that '
  'helps: tokens are missing and the plan allows to buy some.';

create function governance.contact_url(p_reason text) returns text
  language sql stable set search_path = '' as $$
  select governance.setting_text('contact_url') where p_reason = 'user_blocked'
$$;
comment on function governance.contact_url(text) is 'Where a user reaches a person (the setting contact_url), where '
  'only that helps: they are blocked.';

create function governance.shortfall(p_estimate bigint, p_cost_factor numeric, p_have bigint) returns jsonb
  language sql immutable set search_path = '' as $$
  select jsonb_build_object('need', n.need, 'have', p_have, 'missing', n.need - p_have)
  from (select least(ceil(p_estimate * coalesce(p_cost_factor, 1)), 9007199254740991)::bigint as need) n
$$;
comment on function governance.shortfall(bigint, numeric, bigint) is
  'How many tokens a call needs, how many are free, and how many are missing.';

create function governance.release_answer(e governance.call_end) returns jsonb
  language sql stable set search_path = '' as $$
  select jsonb_build_object('request_id', e.request_id, 'decision_id', e.decision_id, 'status', e.status,
    'released_tokens', e.released_tokens, 'balance', governance.balance_json(e.subscription_tokens,
      e.purchased_tokens, e.promotional_tokens, e.reserved_tokens, e.debt_tokens))
$$;
comment on function governance.release_answer(governance.call_end) is
  'The answer of release_usage: the call ended without a charge.';

create function governance.call_end(q governance.requests) returns governance.call_end
  language sql stable set search_path = '' as $$
  select row(q.decision_id, q.created_at, q.account_id, q.request_id, q.status, q.settled_model, q.provider,
    q.input_tokens, q.output_tokens, q.cached_input_tokens, q.cache_write_tokens, q.reasoning_tokens, q.charged_tokens,
    q.released_tokens, q.unpaid_tokens, q.cost_micros, q.currency, q.settle_fingerprint, q.transaction_id, q.alerts,
    q.settle_metadata, q.end_subscription_tokens, q.end_purchased_tokens, q.end_promotional_tokens,
    q.end_reserved_tokens, q.end_debt_tokens, null, q.task_type, q.scope_id, null)::governance.call_end
$$;
comment on function governance.call_end(governance.requests) is 'How a call ended, from its row.';
