-- Tables of the governance backend. Everything lives in schema governance, which no API exposes; the functions in
-- schema public are the only way in. supabase/CONVENTIONS.md says the invariants that every writer keeps.
create schema governance;
comment on schema governance is 'What AI usage costs, who may spend it, and the proof. Not exposed: use the functions in schema public.';
revoke all on schema governance from public;

-- One order of ids for decisions, ledger entries and hold events: the feed merges them by id.
create sequence governance.event_ids as bigint;

-- ---------------------------------------------------------------------------------------------------------------
-- Configuration: what a preset fills
-- ---------------------------------------------------------------------------------------------------------------

create table governance.plans (
  plan_id text primary key,
  name text not null,
  monthly_allowance bigint not null default 0 check (monthly_allowance between 0 and 9007199254740991),
  daily_limit bigint check (daily_limit between 0 and 9007199254740991),
  monthly_limit bigint check (monthly_limit between 0 and 9007199254740991),
  allows_top_up boolean not null default true,
  -- Percents of a limit at which the user is warned, ascending.
  warn_at int[] not null default '{80,90,95}',
  fail_mode text not null default 'closed' check (fail_mode in ('closed', 'open')),
  on_cancel text not null default 'expire' check (on_cancel in ('keep', 'convert', 'expire')),
  -- Months that an unspent allowance outlives its own month.
  rollover_months int not null default 0 check (rollover_months between 0 and 12),
  upgrade_to text,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  -- A retired plan takes no new accounts; those on it keep it.
  retired_at timestamptz
);
comment on table governance.plans is 'What an account may use: monthly allowance, daily and monthly limits, warnings.';

create table governance.packs (
  pack_row_id bigint generated always as identity primary key,
  pack_id text not null,
  tokens bigint not null check (tokens between 1 and 100000000),
  price_minor bigint not null check (price_minor between 0 and 9007199254740991),
  currency text not null check (currency ~ '^[a-z]{3}$'),
  -- Plans that may buy it; null for all that allow a top-up.
  plans text[],
  -- A changed pack is a new row: a payment is checked against the pack as it was then.
  effective_from timestamptz not null default now(),
  retired_at timestamptz,
  unique (pack_id, effective_from)
);
create unique index packs_in_force on governance.packs (pack_id) where retired_at is null;
comment on table governance.packs is 'Packs of tokens for sale, with their price over time.';

create table governance.prices (
  price_id bigint generated always as identity primary key,
  provider text not null,
  model text not null,
  input_micros_per_million bigint not null check (input_micros_per_million between 0 and 1000000000000000),
  output_micros_per_million bigint not null check (output_micros_per_million between 0 and 1000000000000000),
  -- Null: as input.
  cached_input_micros_per_million bigint check (cached_input_micros_per_million between 0 and 1000000000000000),
  -- Null: as input.
  cache_write_micros_per_million bigint check (cache_write_micros_per_million between 0 and 1000000000000000),
  -- Null: as output.
  reasoning_micros_per_million bigint check (reasoning_micros_per_million between 0 and 1000000000000000),
  currency text not null check (currency ~ '^[a-z]{3}$'),
  effective_from timestamptz not null,
  created_at timestamptz not null default now(),
  retired_at timestamptz
);
create unique index prices_in_force on governance.prices (model, effective_from, provider) where retired_at is null;
create index prices_model on governance.prices (model, effective_from desc);
comment on table governance.prices is 'Micro-units of a currency per million tokens, by model and date. A call costs what its own moment says.';

create table governance.estimates (
  task_type text primary key,
  tokens bigint not null check (tokens between 1 and 9007199254740991),
  updated_at timestamptz not null default now()
);
comment on table governance.estimates is 'Tokens to hold for a task whose caller gives no estimate.';

create table governance.settings (
  key text primary key,
  value jsonb not null,
  updated_at timestamptz not null default now()
);
comment on table governance.settings is 'Settings of the preset in force, by name. Those on the path of a call are also columns of governance.active_config.';

create table governance.cost_alerts (
  alert_id bigint generated always as identity primary key,
  alert_name text not null unique,
  -- cost_micros, tokens, balance, operation_tokens, spike …
  metric text not null,
  -- all, or user, plan:<id>, scope:<id>, model:<id>
  scope text not null default 'all',
  period text not null default 'month',
  -- Percents of the budget where there is one, else amounts of the metric.
  thresholds numeric[] not null,
  budget bigint check (budget > 0),
  channels text[] not null default '{}',
  is_active boolean not null default true,
  last_triggered_at timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  retired_at timestamptz
);
comment on table governance.cost_alerts is 'What to watch and when to say so.';

create table governance.alert_events (
  alert_event_id bigint generated always as identity primary key,
  -- Null for what the settlement itself noticed (low balance, large operation, limit nearly used).
  alert_id bigint references governance.cost_alerts (alert_id),
  account_id bigint,
  kind text not null,
  severity text not null check (severity in ('info', 'warning', 'critical')),
  message text not null,
  threshold numeric,
  value numeric,
  -- The same matter is said once a period: local day or month, or whatever else the kind repeats by.
  period_key text not null default '',
  details jsonb not null default '{}',
  created_at timestamptz not null default now(),
  acknowledged_at timestamptz,
  acknowledged_by text
);
create unique index alert_events_once on governance.alert_events
  (kind, coalesce(alert_id, 0), coalesce(account_id, 0), coalesce(threshold, 0), period_key) where period_key <> '';
create index alert_events_time on governance.alert_events (created_at desc);
create index alert_events_account on governance.alert_events (account_id, created_at desc) where account_id is not null;
comment on table governance.alert_events is 'Alerts that were raised.';

create table governance.rules (
  rule_name text primary key,
  version int not null,
  version_id bigint not null,
  rule_type text not null,
  priority int not null,
  mode text not null check (mode in ('enforce', 'shadow', 'off')),
  is_active boolean not null,
  conditions jsonb not null,
  action jsonb not null,
  applies_to jsonb not null,
  description text,
  updated_at timestamptz not null,
  updated_by text,
  retired_at timestamptz
);
comment on table governance.rules is 'Rules as they stand. Every state they had is in governance.rule_versions.';

create table governance.rule_versions (
  version_id bigint generated always as identity primary key,
  rule_name text not null,
  version int not null,
  rule jsonb not null,
  created_at timestamptz not null,
  created_by text,
  unique (rule_name, version)
);
comment on table governance.rule_versions is 'Every version of every rule, as saved; append-only.';

create table governance.rule_sets (
  rule_set_id bigint generated always as identity primary key,
  -- In order of evaluation; rules that are off or retired are not in it.
  version_ids bigint[] not null,
  created_at timestamptz not null default now()
);
comment on table governance.rule_sets is 'Which rule versions were in force together: a decision names its set.';

-- One row: what every call reads. Written by apply_preset, save_rule and governance.set_test_clock.
create table governance.active_config (
  only_row boolean primary key default true check (only_row),
  preset_name text,
  currency text not null default 'usd',
  default_plan text,
  rule_set_id bigint not null default 0,
  hold_minutes int not null default 15 check (hold_minutes between 1 and 10080),
  identical_window_minutes int not null default 60 check (identical_window_minutes between 1 and 10080),
  reply_tokens bigint not null default 500 check (reply_tokens >= 0),
  default_estimate bigint not null default 300 check (default_estimate >= 1),
  -- A settlement above this waits for a person.
  settle_ceiling_tokens bigint not null default 10000000 check (settle_ceiling_tokens > 0),
  low_balance_tokens bigint not null default 1000 check (low_balance_tokens >= 0),
  high_usage_tokens bigint not null default 5000 check (high_usage_tokens >= 0),
  decision_retention_days int not null default 90 check (decision_retention_days >= 32),
  -- Wake-ups for readers of the feed are at least this far apart.
  signal_interval_ms int not null default 250 check (signal_interval_ms between 50 and 60000),
  is_sample_data boolean not null default false,
  -- The test clock: an offset from the server's clock, or a moment that stands still.
  test_clock_offset interval,
  test_clock_at timestamptz,
  updated_at timestamptz not null default now()
);
insert into governance.active_config default values;
comment on table governance.active_config is 'The configuration in force, flattened to what a call needs.';

-- ---------------------------------------------------------------------------------------------------------------
-- Accounts, lots, ledger
-- ---------------------------------------------------------------------------------------------------------------

-- The columns that calls change stand last, and no index covers any of them: updates stay on their page (HOT).
create table governance.accounts (
  account_id bigint generated always as identity primary key,
  user_id text not null unique,
  plan_id text not null references governance.plans (plan_id),
  timezone text not null default 'UTC',
  email text,
  display_name text,
  metadata jsonb not null default '{}',
  created_at timestamptz not null default now(),
  -- What operators did.
  version int not null default 1,
  flagged_at timestamptz,
  flag_reason text,
  flagged_by text,
  blocked_at timestamptz,
  -- Null while blocked: until someone unblocks.
  blocked_until timestamptz,
  block_reason text,
  blocked_by text,
  -- What a rule did for a while.
  rule_blocked_until timestamptz,
  rule_block_reason text,
  rule_block_message text,
  rule_block_version_id bigint,
  -- Unblocking forgives: messages before this moment no longer count as identical or rapid.
  forgiven_at timestamptz,
  -- The account's own day and month; rolled when the clock passes their ends, never backwards.
  local_day date not null,
  day_ends_at timestamptz not null,
  local_month date not null,
  month_ends_at timestamptz not null,
  -- Allowance given for local_month: a plan change gives only what is above it.
  month_allowance bigint not null default 0,
  -- Head of the ledger's chain.
  last_transaction_id bigint,
  last_hash bytea,
  -- Earliest moment at which a lot of this account expires; null for none.
  lots_check_at timestamptz,
  -- Created and expiring moments of the oldest hold that may still be open; null for none.
  holds_from timestamptz,
  holds_check_at timestamptz,
  last_message_at timestamptz,
  last_activity_at timestamptz,
  rapid_messages int not null default 0,
  day_messages int not null default 0,
  month_messages int not null default 0,
  day_calls int not null default 0,
  month_calls int not null default 0,
  day_tokens bigint not null default 0,
  month_tokens bigint not null default 0,
  day_cost_micros bigint not null default 0,
  month_cost_micros bigint not null default 0,
  -- Live tokens by kind: the sums of the lots' remaining.
  subscription_tokens bigint not null default 0,
  purchased_tokens bigint not null default 0,
  promotional_tokens bigint not null default 0,
  reserved_tokens bigint not null default 0,
  debt_tokens bigint not null default 0,
  -- One check, not ten: PostgreSQL reads each anew at every update.
  constraint accounts_never_negative check (least(subscription_tokens, purchased_tokens, promotional_tokens, reserved_tokens, debt_tokens,
    day_tokens, month_tokens, subscription_tokens + purchased_tokens + promotional_tokens - reserved_tokens) >= 0)
) with (fillfactor = 50);
create index accounts_flagged on governance.accounts (flagged_at desc) where flagged_at is not null;
create index accounts_blocked on governance.accounts (blocked_at desc) where blocked_at is not null;
comment on table governance.accounts is 'One row a user: who they are, what operators decided, and the counters that a call checks.';

create table governance.lots (
  lot_id bigint generated always as identity primary key,
  account_id bigint not null references governance.accounts (account_id),
  -- subscription, purchased, promotional
  kind text not null,
  expires_at timestamptz,
  created_at timestamptz not null default now(),
  description text,
  -- Where the money came from, so that refunds and disputes find the lot.
  pack_id text,
  stripe_charge_id text,
  stripe_payment_intent_id text,
  stripe_invoice_line_id text,
  stripe_checkout_session_id text,
  amount_minor bigint,
  currency text,
  metadata jsonb not null default '{}',
  granted bigint not null,
  -- False once nothing can come out of it any more: neither remaining nor frozen.
  is_open boolean not null default true,
  remaining bigint not null,
  -- Set aside by a dispute: in no balance until thawed.
  frozen bigint not null default 0,
  spent bigint not null default 0,
  expired bigint not null default 0,
  -- Taken back for money that went back.
  clawed_back bigint not null default 0,
  constraint lots_add_up check (kind in ('subscription', 'purchased', 'promotional') and granted > 0 and least(remaining, frozen, spent, expired, clawed_back) >= 0
    and granted = remaining + frozen + spent + expired + clawed_back and (is_open or remaining + frozen = 0))
) with (fillfactor = 70);
create index lots_open on governance.lots (account_id) where is_open;
create index lots_account on governance.lots (account_id, lot_id);
create index lots_expiring on governance.lots (expires_at) where is_open and expires_at is not null;
create index lots_charge on governance.lots (stripe_charge_id) where stripe_charge_id is not null;
create index lots_payment_intent on governance.lots (stripe_payment_intent_id) where stripe_payment_intent_id is not null;
create unique index lots_invoice_line on governance.lots (stripe_invoice_line_id) where stripe_invoice_line_id is not null;
create index lots_checkout_session on governance.lots (stripe_checkout_session_id) where stripe_checkout_session_id is not null;
comment on table governance.lots is 'Grants of tokens. granted = remaining + frozen + spent + expired + clawed_back, always.';

create table governance.token_transactions (
  transaction_id bigint primary key default nextval('governance.event_ids'),
  account_id bigint not null,
  created_at timestamptz not null,
  -- purchase, usage, refund, adjustment, bonus, subscription_grant, expiry, reversal, debt_recovery
  transaction_type text not null,
  amount bigint not null,
  previous_balance bigint not null,
  new_balance bigint not null,
  debt_after bigint not null,
  -- Pairs lot_id, tokens: what this entry put into lots and took out of them. The tokens add up to amount.
  lot_changes bigint[] not null,
  -- What caused it: the request of a usage, the idempotency key, charge or dispute of anything else.
  reference text,
  -- The decision that a usage settles.
  decision_id bigint,
  description text,
  metadata jsonb,
  -- SHA-256 over the entry before it and this one: see governance.entry_hash.
  previous_hash bytea,
  hash bytea not null,
  -- No checks: a check is read anew at every insert, and the chain and public.verify_ledger prove more.
  xid xid8 not null default pg_current_xact_id()
);
create index token_transactions_account on governance.token_transactions (account_id, transaction_id);
comment on table governance.token_transactions is 'The ledger: append-only for every role, one hash chain an account.';

create function governance.refuse_change() returns trigger
  language plpgsql set search_path = '' as $$
begin
  raise exception using errcode = 'PT403', hint = 'append_only',
    message = format('%s is append-only: a correction is a new entry', tg_table_name);
end
$$;
comment on function governance.refuse_change() is 'Keeps a table append-only, for its owner too.';
create trigger token_transactions_append_only before update or delete or truncate on governance.token_transactions
  for each statement execute function governance.refuse_change();
create trigger rule_versions_append_only before update or delete or truncate on governance.rule_versions
  for each statement execute function governance.refuse_change();

-- ---------------------------------------------------------------------------------------------------------------
-- Calls: one row is decision, hold and usage event at once
-- ---------------------------------------------------------------------------------------------------------------

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
create index requests_identical on governance.requests (account_id, message_hash, created_at) where message_hash is not null;
create index requests_conversation on governance.requests (account_id, conversation_id, created_at) where conversation_id is not null;
create index requests_refused on governance.requests (created_at) where decision = 'block';
comment on table governance.requests is
  'Every call: its decision, its hold and, once settled, its usage event. Monthly partitions; retention drops whole ones.';
comment on column governance.requests.status is
  'blocked; or held, then settled, released, expired (a late settle may follow) or quarantined.';

-- The caller's own id names a call across all partitions, and leads to its row without looking into each.
create table governance.request_keys (
  request_id text primary key,
  created_at timestamptz not null,
  decision_id bigint not null,
  account_id bigint not null,
  -- governance.lock_key of the account's user.
  lock_key bigint not null
);
comment on table governance.request_keys is 'Ids of calls, for as long as their rows are kept.';

create view governance.usage_events with (security_invoker = true) as
  select decision_id, request_id, account_id, created_at, ended_at, coalesce(settled_model, model) as model, provider, task_type,
    scope_id, conversation_id, input_tokens, output_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens,
    charged_tokens, cost_micros, currency
  from governance.requests
  where status = 'settled';
comment on view governance.usage_events is 'Settled calls.';

create function governance.ensure_request_partitions(p_from date, p_to date) returns int
  language plpgsql set search_path = '' as $$
declare
  v_month date := date_trunc('month', p_from)::date;
  v_from timestamptz;
  v_to timestamptz;
  v_name text;
  v_created int := 0;
begin
  perform pg_advisory_xact_lock(7254011);
  while v_month <= p_to loop
    v_name := 'requests_' || to_char(v_month, 'YYYY_MM');
    if to_regclass('governance.' || v_name) is null then
      v_from := v_month::timestamp at time zone 'UTC';
      v_to := (v_month + interval '1 month')::timestamp at time zone 'UTC';
      if v_from <= clock_timestamp() then
        -- The month has begun: a call may be on its way into the default partition at this very moment.
        lock table only governance.requests in access exclusive mode;
      end if;
      execute format('create table governance.%I (like governance.requests including defaults including comments) with (fillfactor = 75)', v_name);
      execute format('alter table governance.%I enable row level security', v_name);
      execute format('revoke all on governance.%I from public', v_name);
      -- Rows that came while the partition was missing wait in the default one.
      execute format('with moved as (delete from governance.requests_default where created_at >= %L and created_at < %L returning *)
        insert into governance.%I select * from moved', v_from, v_to, v_name);
      execute format('alter table governance.requests attach partition governance.%I for values from (%L) to (%L)', v_name, v_from, v_to);
      v_created := v_created + 1;
    end if;
    v_month := (v_month + interval '1 month')::date;
  end loop;
  return v_created;
end
$$;
comment on function governance.ensure_request_partitions(date, date) is
  'Makes the monthly partitions of governance.requests that cover the given days; answers how many were new.';

create table governance.requests_default partition of governance.requests default with (fillfactor = 75);
alter table governance.requests_default enable row level security;
do $$
begin
  perform governance.ensure_request_partitions((now() - interval '1 month')::date, (now() + interval '2 months')::date);
end
$$;

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
  -- The account's own day.
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
  last_activity_at timestamptz not null,
  primary key (account_id, day, model, task_type, scope_id)
) with (fillfactor = 70);
create index usage_daily_day on governance.usage_daily (day);
comment on table governance.usage_daily is 'Settled usage by account, local day, model, task type and scope, written by the settlement itself.';

-- ---------------------------------------------------------------------------------------------------------------
-- Commands, audit, wake-ups
-- ---------------------------------------------------------------------------------------------------------------

create table governance.commands (
  kind text not null,
  command_id text not null check (command_id <> '' and length(command_id) <= 255),
  fingerprint bytea not null,
  answer jsonb,
  created_at timestamptz not null default now(),
  primary key (kind, command_id)
);
create index commands_time on governance.commands (created_at);
comment on table governance.commands is 'Keys of commands already done, with their answers: a repeat answers again and does nothing. Kept at least 30 days.';

create table governance.audit_log (
  audit_id bigint generated always as identity primary key,
  created_at timestamptz not null,
  operator text,
  action text not null,
  account_id bigint,
  rule_name text,
  reason text,
  command_id text,
  details jsonb not null default '{}'
);
create index audit_log_account on governance.audit_log (account_id, audit_id desc) where account_id is not null;
create index audit_log_time on governance.audit_log (created_at desc);
create trigger audit_log_append_only before update or delete or truncate on governance.audit_log
  for each statement execute function governance.refuse_change();
comment on table governance.audit_log is 'What operators and rules did to accounts and configuration; append-only.';

create table governance.signals (
  topic text primary key,
  at timestamptz not null,
  beats bigint not null default 0
) with (fillfactor = 10);
insert into governance.signals (topic, at) values ('feed', '-infinity'), ('rules', '-infinity'), ('accounts', '-infinity'), ('alerts', '-infinity');
comment on table governance.signals is
  'Wake-ups for readers: a row changes when there may be something new, at most every few hundred milliseconds. What happened is read by cursor.';

create table governance.maintenance_state (
  key text primary key,
  value jsonb not null,
  updated_at timestamptz not null default now()
);
comment on table governance.maintenance_state is 'Where upkeep left off.';

-- ---------------------------------------------------------------------------------------------------------------
-- Nobody reads or writes tables directly. Functions run as the owner, whom row level security does not bind.
-- ---------------------------------------------------------------------------------------------------------------
do $$
declare
  v_table regclass;
begin
  for v_table in select c.oid::regclass from pg_catalog.pg_class c
    where c.relnamespace = 'governance'::regnamespace and c.relkind in ('r', 'p') loop
    execute format('alter table %s enable row level security', v_table);
  end loop;
end
$$;
revoke all on all tables in schema governance from public;
revoke all on all sequences in schema governance from public;
revoke all on all functions in schema governance from public;
alter default privileges in schema governance revoke all on functions from public;

-- Supabase's Realtime reads the wake-ups as the service: the one table that a role other than the owner may read.
do $$
begin
  if exists (select from pg_catalog.pg_roles where rolname = 'service_role') then
    grant usage on schema governance to service_role;
    grant select on governance.signals to service_role;
    create policy signals_service_reads on governance.signals for select to service_role using (true);
  end if;
  if exists (select from pg_catalog.pg_publication where pubname = 'supabase_realtime' and not puballtables) then
    alter publication supabase_realtime add table governance.signals;
  end if;
end
$$;
