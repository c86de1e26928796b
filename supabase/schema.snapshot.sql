-- Written by tests/database/schema-snapshot.test.ts (UPDATE_SNAPSHOT=1): what the migrations make. Not to be run.
table governance.account_listings with (fillfactor=80)
  account_id bigint not null
  sort_name text not null
  search_text text not null
  plan_id text not null
  is_flagged boolean not null
  blocked_until timestamp with time zone
  tokens_today bigint not null default 0
  tokens_this_month bigint not null default 0
  cost_this_month bigint not null default 0
  available bigint not null default 0
  reserved bigint not null default 0
  debt bigint not null default 0
  usage_percent integer
  last_activity_at timestamp with time zone not null default '-infinity'::timestamp with time zone
  day_ends_at timestamp with time zone
  month_ends_at timestamp with time zone not null
  holds_check_at timestamp with time zone
  FOREIGN KEY (account_id) REFERENCES governance.accounts(account_id) ON DELETE CASCADE
  PRIMARY KEY (account_id)
  INDEX account_listings_activity ON governance.account_listings USING btree (last_activity_at, account_id)
  INDEX account_listings_available ON governance.account_listings USING btree (available, account_id)
  INDEX account_listings_blocked ON governance.account_listings USING btree (blocked_until) WHERE (blocked_until IS NOT NULL)
  INDEX account_listings_cost ON governance.account_listings USING btree (cost_this_month, account_id)
  INDEX account_listings_day ON governance.account_listings USING btree (day_ends_at) WHERE (day_ends_at IS NOT NULL)
  INDEX account_listings_flagged ON governance.account_listings USING btree (account_id) WHERE is_flagged
  INDEX account_listings_holding ON governance.account_listings USING btree (account_id) INCLUDE (reserved) WHERE (reserved > 0)
  INDEX account_listings_holds_check ON governance.account_listings USING btree (holds_check_at) WHERE (holds_check_at IS NOT NULL)
  INDEX account_listings_in_debt ON governance.account_listings USING btree (account_id) WHERE (debt > 0)
  INDEX account_listings_month ON governance.account_listings USING btree (tokens_this_month, account_id)
  INDEX account_listings_month_end ON governance.account_listings USING btree (month_ends_at)
  INDEX account_listings_name ON governance.account_listings USING btree (sort_name, account_id)
  INDEX account_listings_near_limit ON governance.account_listings USING btree (usage_percent) WHERE (usage_percent >= 80)
  INDEX account_listings_plan ON governance.account_listings USING btree (plan_id, sort_name, account_id)
  INDEX account_listings_search ON governance.account_listings USING gin (search_text extensions.gin_trgm_ops) WITH (gin_pending_list_limit='256')
  INDEX account_listings_today ON governance.account_listings USING btree (tokens_today, account_id)
  UNIQUE INDEX account_listings_pkey ON governance.account_listings USING btree (account_id)
  row level security
table governance.accounts with (fillfactor=50)
  account_id bigint not null generated always as identity
  user_id text not null
  plan_id text not null
  timezone text not null default 'UTC'::text
  email text
  display_name text
  metadata jsonb not null default '{}'::jsonb
  created_at timestamp with time zone not null default now()
  version integer not null default 1
  flagged_at timestamp with time zone
  flag_reason text
  flagged_by text
  blocked_at timestamp with time zone
  blocked_until timestamp with time zone
  block_reason text
  blocked_by text
  rule_blocked_until timestamp with time zone
  rule_block_reason text
  rule_block_message text
  rule_block_version_id bigint
  forgiven_at timestamp with time zone
  local_day date not null
  day_ends_at timestamp with time zone not null
  local_month date not null
  month_ends_at timestamp with time zone not null
  month_allowance bigint not null default 0
  last_transaction_id bigint
  last_hash bytea
  lots_check_at timestamp with time zone
  holds_from timestamp with time zone
  holds_check_at timestamp with time zone
  last_message_at timestamp with time zone
  last_activity_at timestamp with time zone
  rapid_messages integer not null default 0
  day_messages integer not null default 0
  month_messages integer not null default 0
  day_calls integer not null default 0
  month_calls integer not null default 0
  day_tokens bigint not null default 0
  month_tokens bigint not null default 0
  day_cost_micros bigint not null default 0
  month_cost_micros bigint not null default 0
  subscription_tokens bigint not null default 0
  purchased_tokens bigint not null default 0
  promotional_tokens bigint not null default 0
  reserved_tokens bigint not null default 0
  debt_tokens bigint not null default 0
  CHECK (governance.is_never_negative(accounts.*))
  FOREIGN KEY (plan_id) REFERENCES governance.plans(plan_id)
  PRIMARY KEY (account_id)
  UNIQUE (user_id)
  INDEX accounts_blocked ON governance.accounts USING btree (blocked_at DESC) WHERE (blocked_at IS NOT NULL)
  INDEX accounts_flagged ON governance.accounts USING btree (flagged_at DESC) WHERE (flagged_at IS NOT NULL)
  UNIQUE INDEX accounts_pkey ON governance.accounts USING btree (account_id)
  UNIQUE INDEX accounts_user_id_key ON governance.accounts USING btree (user_id)
  trigger account_listings_changed AFTER UPDATE OF display_name, email, plan_id, flagged_at, blocked_at, blocked_until ON governance.accounts FOR EACH ROW WHEN (((((((old.display_name IS DISTINCT FROM new.display_name) OR (old.email IS DISTINCT FROM new.email)) OR (old.plan_id IS DISTINCT FROM new.plan_id)) OR (old.flagged_at IS DISTINCT FROM new.flagged_at)) OR (old.blocked_at IS DISTINCT FROM new.blocked_at)) OR (old.blocked_until IS DISTINCT FROM new.blocked_until))) EXECUTE FUNCTION governance.follow_account()
  trigger account_listings_made AFTER INSERT ON governance.accounts FOR EACH ROW EXECUTE FUNCTION governance.follow_account()
  trigger accounts_keep_lots BEFORE DELETE ON governance.accounts FOR EACH ROW EXECUTE FUNCTION governance.refuse_orphans()
  row level security
table governance.active_config
  only_row boolean not null default true
  preset_name text
  currency text not null default 'usd'::text
  default_plan text
  rule_set_id bigint not null default 0
  hold_minutes integer not null default 15
  identical_window_minutes integer not null default 60
  reply_tokens bigint not null default 500
  default_estimate bigint not null default 300
  settle_ceiling_tokens bigint not null default 10000000
  low_balance_tokens bigint not null default 1000
  high_usage_tokens bigint not null default 5000
  decision_retention_days integer not null default 90
  signal_interval_ms integer not null default 250
  is_sample_data boolean not null default false
  test_clock_offset interval
  test_clock_at timestamp with time zone
  updated_at timestamp with time zone not null default now()
  rules_read_identical boolean not null default false
  rules_read_words boolean not null default false
  rules_read_provider boolean not null default false
  CHECK (((hold_minutes >= 1) AND (hold_minutes <= 10080)))
  CHECK (((identical_window_minutes >= 1) AND (identical_window_minutes <= 10080)))
  CHECK (((signal_interval_ms >= 50) AND (signal_interval_ms <= 60000)))
  CHECK ((decision_retention_days >= 32))
  CHECK ((default_estimate >= 1))
  CHECK ((high_usage_tokens >= 0))
  CHECK ((low_balance_tokens >= 0))
  CHECK ((reply_tokens >= 0))
  CHECK ((settle_ceiling_tokens > 0))
  CHECK (only_row)
  PRIMARY KEY (only_row)
  UNIQUE INDEX active_config_pkey ON governance.active_config USING btree (only_row)
  row level security
table governance.alert_events
  alert_event_id bigint not null generated always as identity
  alert_id bigint
  account_id bigint
  kind text not null
  severity text not null
  message text not null
  threshold numeric
  value numeric
  period_key text not null default ''::text
  details jsonb not null default '{}'::jsonb
  created_at timestamp with time zone not null default now()
  acknowledged_at timestamp with time zone
  acknowledged_by text
  considered_at timestamp with time zone
  CHECK ((severity = ANY (ARRAY['info'::text, 'warning'::text, 'critical'::text])))
  FOREIGN KEY (alert_id) REFERENCES governance.cost_alerts(alert_id)
  PRIMARY KEY (alert_event_id)
  INDEX alert_events_account ON governance.alert_events USING btree (account_id, created_at DESC) WHERE (account_id IS NOT NULL)
  INDEX alert_events_new ON governance.alert_events USING btree (alert_event_id) WHERE (considered_at IS NULL)
  INDEX alert_events_open ON governance.alert_events USING btree (alert_event_id) INCLUDE (created_at) WHERE (acknowledged_at IS NULL)
  INDEX alert_events_time ON governance.alert_events USING btree (created_at DESC)
  UNIQUE INDEX alert_events_once ON governance.alert_events USING btree (kind, COALESCE(alert_id, (0)::bigint), COALESCE(account_id, (0)::bigint), COALESCE(threshold, (0)::numeric), period_key) WHERE (period_key <> ''::text)
  UNIQUE INDEX alert_events_pkey ON governance.alert_events USING btree (alert_event_id)
  row level security
table governance.audit_log
  audit_id bigint not null generated always as identity
  created_at timestamp with time zone not null
  operator text
  action text not null
  account_id bigint
  rule_name text
  reason text
  command_id text
  details jsonb not null default '{}'::jsonb
  PRIMARY KEY (audit_id)
  INDEX audit_log_account ON governance.audit_log USING btree (account_id, audit_id DESC) WHERE (account_id IS NOT NULL)
  INDEX audit_log_time ON governance.audit_log USING btree (created_at DESC)
  UNIQUE INDEX audit_log_pkey ON governance.audit_log USING btree (audit_id)
  trigger audit_log_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON governance.audit_log FOR EACH STATEMENT EXECUTE FUNCTION governance.refuse_change()
  row level security
table governance.checkouts
  checkout_id bigint not null generated always as identity
  account_id bigint not null
  pack_id text not null
  opened_at timestamp with time zone not null
  closed_at timestamp with time zone
  FOREIGN KEY (account_id) REFERENCES governance.accounts(account_id)
  PRIMARY KEY (checkout_id)
  INDEX checkouts_account ON governance.checkouts USING btree (account_id, opened_at DESC)
  UNIQUE INDEX checkouts_pkey ON governance.checkouts USING btree (checkout_id)
  row level security
table governance.commands
  kind text not null
  command_id text not null
  fingerprint bytea not null
  answer jsonb
  created_at timestamp with time zone not null default now()
  CHECK (((command_id <> ''::text) AND (length(command_id) <= 255)))
  PRIMARY KEY (kind, command_id)
  INDEX commands_time ON governance.commands USING btree (created_at)
  UNIQUE INDEX commands_pkey ON governance.commands USING btree (kind, command_id)
  row level security
table governance.cost_alerts
  alert_id bigint not null generated always as identity
  alert_name text not null
  metric text not null
  scope text not null default 'all'::text
  period text not null default 'month'::text
  thresholds numeric[] not null
  budget bigint
  channels text[] not null default '{}'::text[]
  is_active boolean not null default true
  last_triggered_at timestamp with time zone
  created_at timestamp with time zone not null default now()
  updated_at timestamp with time zone not null default now()
  retired_at timestamp with time zone
  CHECK ((budget > 0))
  PRIMARY KEY (alert_id)
  UNIQUE (alert_name)
  UNIQUE INDEX cost_alerts_alert_name_key ON governance.cost_alerts USING btree (alert_name)
  UNIQUE INDEX cost_alerts_pkey ON governance.cost_alerts USING btree (alert_id)
  row level security
table governance.estimates
  task_type text not null
  tokens bigint not null
  updated_at timestamp with time zone not null default now()
  CHECK (((tokens >= 1) AND (tokens <= '9007199254740991'::bigint)))
  PRIMARY KEY (task_type)
  UNIQUE INDEX estimates_pkey ON governance.estimates USING btree (task_type)
  row level security
sequence governance.event_ids
table governance.fold_letters
  upper text not null
  lower text not null
  PRIMARY KEY (upper)
  UNIQUE INDEX fold_letters_pkey ON governance.fold_letters USING btree (upper)
  row level security
table governance.hold_events
  event_id bigint not null default nextval('governance.event_ids'::regclass)
  created_at timestamp with time zone not null
  kind text not null
  decision_id bigint not null
  account_id bigint not null
  tokens bigint not null
  reason text
  xid xid8 not null default pg_current_xact_id()
  CHECK ((kind = ANY (ARRAY['released'::text, 'expired'::text, 'quarantined'::text])))
  PRIMARY KEY (event_id)
  INDEX hold_events_account ON governance.hold_events USING btree (account_id, event_id)
  INDEX hold_events_quarantined ON governance.hold_events USING btree (decision_id) WHERE (kind = 'quarantined'::text)
  INDEX hold_events_time ON governance.hold_events USING btree (created_at)
  UNIQUE INDEX hold_events_pkey ON governance.hold_events USING btree (event_id)
  row level security
table governance.imported_usage
  source text not null
  message_key text not null
  account_id bigint not null
  at timestamp with time zone not null
  day date not null
  model text not null
  conversation_id text
  task_type text not null default ''::text
  input_tokens bigint not null
  output_tokens bigint not null
  cost_micros bigint
  CHECK ((input_tokens >= 0))
  CHECK ((output_tokens >= 0))
  PRIMARY KEY (source, message_key)
  INDEX imported_usage_account ON governance.imported_usage USING btree (account_id, at)
  UNIQUE INDEX imported_usage_pkey ON governance.imported_usage USING btree (source, message_key)
  row level security
table governance.lone_decisions
  lone_decision_id bigint not null generated always as identity
  difference_id text not null
  what text not null
  decided_at timestamp with time zone not null
  decided_by text not null
  tokens bigint not null
  amount_minor bigint not null
  currency text
  CHECK ((what = ANY (ARRAY['posted'::text, 'written_off'::text])))
  FOREIGN KEY (difference_id) REFERENCES governance.reconciliation_cases(difference_id)
  PRIMARY KEY (lone_decision_id)
  INDEX lone_decisions_difference ON governance.lone_decisions USING btree (difference_id)
  INDEX lone_decisions_time ON governance.lone_decisions USING btree (decided_at)
  UNIQUE INDEX lone_decisions_pkey ON governance.lone_decisions USING btree (lone_decision_id)
  row level security
table governance.lots with (fillfactor=70)
  lot_id bigint not null generated always as identity
  account_id bigint not null
  kind text not null
  expires_at timestamp with time zone
  created_at timestamp with time zone not null default now()
  description text
  pack_id text
  stripe_charge_id text
  stripe_payment_intent_id text
  stripe_invoice_line_id text
  stripe_checkout_session_id text
  amount_minor bigint
  currency text
  metadata jsonb not null default '{}'::jsonb
  granted bigint not null
  is_open boolean not null default true
  remaining bigint not null
  frozen bigint not null default 0
  spent bigint not null default 0
  expired bigint not null default 0
  clawed_back bigint not null default 0
  CHECK (governance.adds_up(lots.*))
  PRIMARY KEY (lot_id)
  INDEX lots_account ON governance.lots USING btree (account_id, lot_id)
  INDEX lots_expiring ON governance.lots USING btree (expires_at) WHERE (is_open AND (expires_at IS NOT NULL))
  INDEX lots_open ON governance.lots USING btree (account_id) WHERE is_open
  UNIQUE INDEX lots_invoice_line ON governance.lots USING btree (stripe_invoice_line_id) WHERE (stripe_invoice_line_id IS NOT NULL)
  UNIQUE INDEX lots_pkey ON governance.lots USING btree (lot_id)
  row level security
table governance.maintenance_state
  key text not null
  value jsonb not null
  updated_at timestamp with time zone not null default now()
  PRIMARY KEY (key)
  UNIQUE INDEX maintenance_state_pkey ON governance.maintenance_state USING btree (key)
  row level security
table governance.minute_totals with (fillfactor=70)
  minute timestamp with time zone not null
  outcome text not null
  reason text not null default ''::text
  calls bigint not null
  tokens bigint not null
  cost_micros bigint not null default 0
  CHECK ((outcome = ANY (ARRAY['allow'::text, 'warn'::text, 'block'::text, 'settled'::text])))
  PRIMARY KEY (minute, outcome, reason)
  UNIQUE INDEX minute_totals_pkey ON governance.minute_totals USING btree (minute, outcome, reason)
  row level security
table governance.notifications
  notification_id bigint not null generated always as identity
  alert_event_id bigint
  channel text not null
  audience text not null
  recipient text
  account_id bigint
  subject text not null
  body text not null
  payload jsonb not null default '{}'::jsonb
  status text not null default 'queued'::text
  attempts integer not null default 0
  due_at timestamp with time zone not null
  created_at timestamp with time zone not null
  sent_at timestamp with time zone
  last_error text
  CHECK ((audience = ANY (ARRAY['operators'::text, 'user'::text])))
  CHECK ((channel ~ '^[a-z][a-z0-9_]{0,31}$'::text))
  CHECK ((status = ANY (ARRAY['queued'::text, 'sent'::text, 'failed'::text])))
  FOREIGN KEY (alert_event_id) REFERENCES governance.alert_events(alert_event_id) ON DELETE SET NULL
  PRIMARY KEY (notification_id)
  INDEX notifications_alert ON governance.notifications USING btree (alert_event_id)
  INDEX notifications_due ON governance.notifications USING btree (due_at) WHERE (status = 'queued'::text)
  INDEX notifications_failed ON governance.notifications USING btree (alert_event_id) WHERE (status = 'failed'::text)
  INDEX notifications_time ON governance.notifications USING btree (created_at)
  UNIQUE INDEX notifications_pkey ON governance.notifications USING btree (notification_id)
  row level security
table governance.packs
  pack_row_id bigint not null generated always as identity
  pack_id text not null
  tokens bigint not null
  price_minor bigint not null
  currency text not null
  plans text[]
  effective_from timestamp with time zone not null default now()
  retired_at timestamp with time zone
  CHECK (((price_minor >= 0) AND (price_minor <= '9007199254740991'::bigint)))
  CHECK (((tokens >= 1) AND (tokens <= 100000000)))
  CHECK ((currency ~ '^[a-z]{3}$'::text))
  PRIMARY KEY (pack_row_id)
  UNIQUE (pack_id, effective_from)
  UNIQUE INDEX packs_in_force ON governance.packs USING btree (pack_id) WHERE (retired_at IS NULL)
  UNIQUE INDEX packs_pack_id_effective_from_key ON governance.packs USING btree (pack_id, effective_from)
  UNIQUE INDEX packs_pkey ON governance.packs USING btree (pack_row_id)
  row level security
table governance.plans
  plan_id text not null
  name text not null
  monthly_allowance bigint not null default 0
  daily_limit bigint
  monthly_limit bigint
  allows_top_up boolean not null default true
  warn_at integer[] not null default '{80,90,95}'::integer[]
  fail_mode text not null default 'closed'::text
  on_cancel text not null default 'expire'::text
  rollover_months integer not null default 0
  upgrade_to text
  created_at timestamp with time zone not null default now()
  updated_at timestamp with time zone not null default now()
  retired_at timestamp with time zone
  CHECK (((daily_limit >= 0) AND (daily_limit <= '9007199254740991'::bigint)))
  CHECK (((monthly_allowance >= 0) AND (monthly_allowance <= '9007199254740991'::bigint)))
  CHECK (((monthly_limit >= 0) AND (monthly_limit <= '9007199254740991'::bigint)))
  CHECK (((rollover_months >= 0) AND (rollover_months <= 12)))
  CHECK ((fail_mode = ANY (ARRAY['closed'::text, 'open'::text])))
  CHECK ((on_cancel = ANY (ARRAY['keep'::text, 'convert'::text, 'expire'::text])))
  PRIMARY KEY (plan_id)
  UNIQUE INDEX plans_pkey ON governance.plans USING btree (plan_id)
  row level security
table governance.prices
  price_id bigint not null generated always as identity
  provider text not null
  model text not null
  input_micros_per_million bigint not null
  output_micros_per_million bigint not null
  cached_input_micros_per_million bigint
  cache_write_micros_per_million bigint
  reasoning_micros_per_million bigint
  currency text not null
  effective_from timestamp with time zone not null
  created_at timestamp with time zone not null default now()
  retired_at timestamp with time zone
  CHECK (((cache_write_micros_per_million >= 0) AND (cache_write_micros_per_million <= '1000000000000000'::bigint)))
  CHECK (((cached_input_micros_per_million >= 0) AND (cached_input_micros_per_million <= '1000000000000000'::bigint)))
  CHECK (((input_micros_per_million >= 0) AND (input_micros_per_million <= '1000000000000000'::bigint)))
  CHECK (((output_micros_per_million >= 0) AND (output_micros_per_million <= '1000000000000000'::bigint)))
  CHECK (((reasoning_micros_per_million >= 0) AND (reasoning_micros_per_million <= '1000000000000000'::bigint)))
  CHECK ((currency ~ '^[a-z]{3}$'::text))
  PRIMARY KEY (price_id)
  INDEX prices_by_moment ON governance.prices USING btree (model, effective_from DESC, created_at, provider COLLATE "C")
  UNIQUE INDEX prices_in_force ON governance.prices USING btree (model, effective_from, provider) WHERE (retired_at IS NULL)
  UNIQUE INDEX prices_pkey ON governance.prices USING btree (price_id)
  row level security
table governance.purchase_records
  transaction_id bigint not null
  account_id bigint not null
  created_at timestamp with time zone not null
  record_type text not null
  lot_id bigint not null
  payment_id bigint not null
  tokens bigint not null
  debt_tokens bigint not null default 0
  amount_minor bigint
  currency text
  refund_id text
  dispute_id text
  invoice_line_id text
  period_start timestamp with time zone
  period_end timestamp with time zone
  difference_id text
  PRIMARY KEY (transaction_id)
  INDEX purchase_records_difference ON governance.purchase_records USING btree (difference_id) WHERE (difference_id IS NOT NULL)
  INDEX purchase_records_lot ON governance.purchase_records USING btree (lot_id)
  UNIQUE INDEX purchase_records_pkey ON governance.purchase_records USING btree (transaction_id)
  trigger purchase_records_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON governance.purchase_records FOR EACH STATEMENT EXECUTE FUNCTION governance.refuse_change()
  row level security
table governance.recent_usage with (fillfactor=70)
  slot timestamp with time zone not null
  account_id bigint not null
  tokens bigint not null
  PRIMARY KEY (slot, account_id)
  UNIQUE INDEX recent_usage_pkey ON governance.recent_usage USING btree (slot, account_id)
  row level security
table governance.reconciliation_cases
  difference_id text not null
  class text not null
  status text not null default 'open'::text
  amount_minor bigint not null default 0
  currency text
  tokens bigint not null default 0
  occurred_at timestamp with time zone
  period_from timestamp with time zone not null
  period_to timestamp with time zone not null
  first_run_id text not null
  last_run_id text not null
  correction jsonb not null
  assigned_to text
  proposed_by text
  approved_by text
  posted_at timestamp with time zone
  effects jsonb
  history jsonb not null default '[]'::jsonb
  updated_at timestamp with time zone not null
  version integer not null default 1
  user_id text
  blocks boolean not null default true
  difference jsonb
  opened_at timestamp with time zone not null
  checked_at timestamp with time zone not null
  status_at timestamp with time zone not null
  resolution text not null default 'correct'::text
  posted_by text
  times_carried integer not null default 0
  CHECK (((difference_id <> ''::text) AND (length(difference_id) <= 512)))
  CHECK ((resolution = ANY (ARRAY['correct'::text, 'write_off'::text])))
  CHECK ((status = ANY (ARRAY['open'::text, 'investigating'::text, 'proposed'::text, 'approved'::text, 'posted'::text, 'verified'::text, 'carried_forward'::text, 'written_off'::text])))
  PRIMARY KEY (difference_id)
  INDEX reconciliation_cases_status ON governance.reconciliation_cases USING btree (status, updated_at DESC)
  INDEX reconciliation_cases_undecided ON governance.reconciliation_cases USING btree (difference_id) WHERE (blocks AND (status = ANY (ARRAY['open'::text, 'investigating'::text, 'proposed'::text, 'approved'::text, 'posted'::text])))
  UNIQUE INDEX reconciliation_cases_pkey ON governance.reconciliation_cases USING btree (difference_id)
  row level security
table governance.reconciliation_periods
  period_from timestamp with time zone not null
  period_to timestamp with time zone not null
  run_id text not null
  seal bytea not null
  sealed jsonb not null
  closed_at timestamp with time zone not null
  closed_by text not null
  sign_off text
  CHECK ((period_to > period_from))
  FOREIGN KEY (run_id) REFERENCES governance.reconciliation_runs(run_id)
  PRIMARY KEY (period_from)
  UNIQUE INDEX reconciliation_periods_pkey ON governance.reconciliation_periods USING btree (period_from)
  trigger reconciliation_periods_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON governance.reconciliation_periods FOR EACH STATEMENT EXECUTE FUNCTION governance.refuse_change()
  row level security
table governance.reconciliation_run_differences
  run_id text not null
  difference_id text not null
  class text not null
  amount_minor bigint not null
  currency text
  tokens bigint not null
  FOREIGN KEY (run_id) REFERENCES governance.reconciliation_runs(run_id)
  PRIMARY KEY (run_id, difference_id)
  UNIQUE INDEX reconciliation_run_differences_pkey ON governance.reconciliation_run_differences USING btree (run_id, difference_id)
  row level security
table governance.reconciliation_runs
  run_id text not null
  period_from timestamp with time zone not null
  period_to timestamp with time zone not null
  tied_out boolean not null
  report jsonb not null
  created_at timestamp with time zone not null
  created_by text not null
  ledger_read_at timestamp with time zone not null
  is_complete boolean not null default false
  outcome jsonb not null default '{}'::jsonb
  CHECK (((run_id <> ''::text) AND (length(run_id) <= 255)))
  CHECK ((period_to > period_from))
  PRIMARY KEY (run_id)
  INDEX reconciliation_runs_time ON governance.reconciliation_runs USING btree (created_at DESC)
  UNIQUE INDEX reconciliation_runs_pkey ON governance.reconciliation_runs USING btree (run_id)
  row level security
table governance.request_keys
  request_id text not null
  created_at timestamp with time zone not null
  decision_id bigint not null
  account_id bigint not null
  lock_key bigint not null
  message_hash bigint
  PRIMARY KEY (request_id)
  INDEX request_keys_identical ON governance.request_keys USING btree (account_id, message_hash, created_at) WHERE (message_hash IS NOT NULL)
  UNIQUE INDEX request_keys_pkey ON governance.request_keys USING btree (request_id)
  row level security
table governance.requests partition by RANGE (created_at)
  xid xid8 not null default pg_current_xact_id()
  decision_id bigint not null default nextval('governance.event_ids'::regclass)
  created_at timestamp with time zone not null
  account_id bigint not null
  request_id text not null
  fingerprint bigint not null
  requested_model text not null
  task_type text
  scope_id text
  conversation_id text
  message_hash bigint
  message_words integer
  message_characters integer
  decision text not null
  reason text
  http_status smallint not null
  message text
  warnings text[]
  model text not null
  truncate_to_words integer
  expires_at timestamp with time zone
  retry_after_seconds integer
  upgrade_plan text
  cost_factor numeric
  plan_id text not null
  rule_set_id bigint not null
  rule_version_id bigint
  matched_version_ids bigint[]
  estimated_tokens bigint not null
  reserved_tokens bigint not null
  seen_tokens_today bigint not null
  seen_tokens_month bigint not null
  seen_cost_today_micros bigint not null
  seen_cost_month_micros bigint not null
  seen_messages_today integer not null
  seen_rapid_messages integer not null
  seen_identical_messages integer
  seen_conversation_messages integer
  seen_seconds_since numeric
  seen_complexity numeric
  seen_topic text
  seen_usage_percent bigint
  seen_flagged boolean not null
  daily_limit bigint
  day_ends_at timestamp with time zone not null
  monthly_limit bigint
  month_ends_at timestamp with time zone not null
  subscription_tokens bigint not null
  purchased_tokens bigint not null
  promotional_tokens bigint not null
  total_reserved_tokens bigint not null
  debt_tokens bigint not null
  status text not null
  ended_at timestamp with time zone
  end_reason text
  settled_model text
  provider text
  input_tokens bigint
  output_tokens bigint
  cached_input_tokens bigint
  cache_write_tokens bigint
  reasoning_tokens bigint
  charged_tokens bigint
  released_tokens bigint
  unpaid_tokens bigint
  cost_micros bigint
  currency text
  settle_fingerprint bigint
  transaction_id bigint
  alerts jsonb
  settle_metadata jsonb
  end_subscription_tokens bigint
  end_purchased_tokens bigint
  end_promotional_tokens bigint
  end_reserved_tokens bigint
  end_debt_tokens bigint
  PRIMARY KEY (decision_id, created_at)
  INDEX requests_account_time ON ONLY governance.requests USING btree (account_id, created_at)
  INDEX requests_conversation ON ONLY governance.requests USING btree (account_id, conversation_id, created_at) WHERE (conversation_id IS NOT NULL)
  INDEX requests_refused ON ONLY governance.requests USING btree (created_at) WHERE (decision = 'block'::text)
  INDEX requests_refused_by_reason ON ONLY governance.requests USING btree (reason, decision_id) WHERE (decision = 'block'::text)
  UNIQUE INDEX requests_pkey ON ONLY governance.requests USING btree (decision_id, created_at)
  row level security
table governance.rule_sets
  rule_set_id bigint not null generated always as identity
  version_ids bigint[] not null
  created_at timestamp with time zone not null default now()
  PRIMARY KEY (rule_set_id)
  UNIQUE INDEX rule_sets_pkey ON governance.rule_sets USING btree (rule_set_id)
  row level security
table governance.rule_versions
  version_id bigint not null generated always as identity
  rule_name text not null
  version integer not null
  rule jsonb not null
  created_at timestamp with time zone not null
  created_by text
  PRIMARY KEY (version_id)
  UNIQUE (rule_name, version)
  UNIQUE INDEX rule_versions_pkey ON governance.rule_versions USING btree (version_id)
  UNIQUE INDEX rule_versions_rule_name_version_key ON governance.rule_versions USING btree (rule_name, version)
  trigger rule_versions_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON governance.rule_versions FOR EACH STATEMENT EXECUTE FUNCTION governance.refuse_change()
  row level security
table governance.rules
  rule_name text not null
  version integer not null
  version_id bigint not null
  rule_type text not null
  priority integer not null
  mode text not null
  is_active boolean not null
  conditions jsonb not null
  action jsonb not null
  applies_to jsonb not null
  description text
  updated_at timestamp with time zone not null
  updated_by text
  retired_at timestamp with time zone
  CHECK ((mode = ANY (ARRAY['enforce'::text, 'shadow'::text, 'off'::text])))
  PRIMARY KEY (rule_name)
  UNIQUE INDEX rules_pkey ON governance.rules USING btree (rule_name)
  row level security
table governance.settings
  key text not null
  value jsonb not null
  updated_at timestamp with time zone not null default now()
  PRIMARY KEY (key)
  UNIQUE INDEX settings_pkey ON governance.settings USING btree (key)
  row level security
table governance.signals with (fillfactor=10)
  topic text not null
  at timestamp with time zone not null
  beats bigint not null default 0
  PRIMARY KEY (topic)
  UNIQUE INDEX signals_pkey ON governance.signals USING btree (topic)
  policy signals_service_reads for SELECT to service_role
  row level security
  granted SELECT to service_role
table governance.stripe_customers
  customer_id text not null
  account_id bigint not null
  FOREIGN KEY (account_id) REFERENCES governance.accounts(account_id)
  PRIMARY KEY (customer_id)
  UNIQUE INDEX stripe_customers_pkey ON governance.stripe_customers USING btree (customer_id)
  row level security
table governance.stripe_disputes
  dispute_id text not null
  payment_id bigint not null
  amount_minor bigint not null
  status text not null
  stage smallint not null
  is_lost boolean not null default false
  is_reinstated boolean not null default false
  told_at timestamp with time zone not null
  CHECK ((amount_minor >= 0))
  FOREIGN KEY (payment_id) REFERENCES governance.stripe_payments(payment_id)
  PRIMARY KEY (dispute_id)
  INDEX stripe_disputes_payment ON governance.stripe_disputes USING btree (payment_id)
  UNIQUE INDEX stripe_disputes_pkey ON governance.stripe_disputes USING btree (dispute_id)
  row level security
table governance.stripe_lots with (fillfactor=80)
  lot_id bigint not null
  payment_id bigint not null
  tokens bigint not null
  reversed bigint not null default 0
  clawed bigint not null default 0
  owed bigint not null default 0
  dispute_state text not null default 'none'::text
  is_void boolean not null default false
  CHECK (governance.is_within_bounds(stripe_lots.*))
  PRIMARY KEY (lot_id)
  INDEX stripe_lots_payment ON governance.stripe_lots USING btree (payment_id)
  UNIQUE INDEX stripe_lots_pkey ON governance.stripe_lots USING btree (lot_id)
  row level security
table governance.stripe_payments with (fillfactor=80)
  payment_id bigint not null generated always as identity
  account_id bigint
  payment_intent_id text
  charge_id text
  checkout_session_id text
  invoice_id text
  customer_id text
  subscription_id text
  order_id text
  livemode boolean
  amount_minor bigint
  currency text
  paid_at timestamp with time zone
  refunded_minor bigint not null default 0
  refunded_at timestamp with time zone
  refunded_override_minor bigint
  refunded_override_at timestamp with time zone
  created_at timestamp with time zone not null
  PRIMARY KEY (payment_id)
  UNIQUE INDEX stripe_payments_charge ON governance.stripe_payments USING btree (charge_id) WHERE (charge_id IS NOT NULL)
  UNIQUE INDEX stripe_payments_intent ON governance.stripe_payments USING btree (payment_intent_id) WHERE (payment_intent_id IS NOT NULL)
  UNIQUE INDEX stripe_payments_invoice ON governance.stripe_payments USING btree (invoice_id) WHERE (invoice_id IS NOT NULL)
  UNIQUE INDEX stripe_payments_pkey ON governance.stripe_payments USING btree (payment_id)
  UNIQUE INDEX stripe_payments_session ON governance.stripe_payments USING btree (checkout_session_id) WHERE (checkout_session_id IS NOT NULL)
  row level security
table governance.stripe_refunds
  refund_id text not null
  payment_id bigint not null
  amount_minor bigint not null
  state smallint not null
  told_at timestamp with time zone not null
  CHECK ((amount_minor >= 0))
  FOREIGN KEY (payment_id) REFERENCES governance.stripe_payments(payment_id)
  PRIMARY KEY (refund_id)
  INDEX stripe_refunds_payment ON governance.stripe_refunds USING btree (payment_id)
  UNIQUE INDEX stripe_refunds_pkey ON governance.stripe_refunds USING btree (refund_id)
  row level security
table governance.stripe_subscriptions
  subscription_id text not null
  account_id bigint
  customer_id text
  plan_id text
  canceled_at timestamp with time zone
  updated_at timestamp with time zone not null
  FOREIGN KEY (account_id) REFERENCES governance.accounts(account_id)
  PRIMARY KEY (subscription_id)
  UNIQUE INDEX stripe_subscriptions_pkey ON governance.stripe_subscriptions USING btree (subscription_id)
  row level security
view governance.stuck_holds with (security_invoker=true)
  decision_id bigint
  created_at timestamp with time zone
  account_id bigint
  request_id text
  status text
  model text
  reserved_tokens bigint
  expires_at timestamp with time zone
table governance.time_zones
  lower_name text not null
  name text not null
  PRIMARY KEY (lower_name)
  UNIQUE INDEX time_zones_pkey ON governance.time_zones USING btree (lower_name)
  row level security
table governance.token_transactions
  transaction_id bigint not null default nextval('governance.event_ids'::regclass)
  account_id bigint not null
  created_at timestamp with time zone not null
  transaction_type text not null
  amount bigint not null
  previous_balance bigint not null
  new_balance bigint not null
  debt_after bigint not null
  lot_changes bigint[] not null
  reference text
  decision_id bigint
  description text
  metadata jsonb
  previous_hash bytea
  hash bytea not null
  xid xid8 not null default pg_current_xact_id()
  PRIMARY KEY (transaction_id)
  INDEX token_transactions_account ON governance.token_transactions USING btree (account_id, transaction_id)
  UNIQUE INDEX token_transactions_pkey ON governance.token_transactions USING btree (transaction_id)
  trigger token_transactions_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON governance.token_transactions FOR EACH STATEMENT EXECUTE FUNCTION governance.refuse_change()
  row level security
table governance.usage_daily with (fillfactor=70)
  account_id bigint not null
  day date not null
  model text not null
  task_type text not null default ''::text
  scope_id text not null default ''::text
  calls integer not null default 0
  messages integer not null default 0
  input_tokens bigint not null default 0
  output_tokens bigint not null default 0
  charged_tokens bigint not null default 0
  cost_micros bigint not null default 0
  last_activity_at timestamp with time zone not null
  PRIMARY KEY (account_id, day, model, task_type, scope_id)
  INDEX usage_daily_day ON governance.usage_daily USING btree (day)
  UNIQUE INDEX usage_daily_pkey ON governance.usage_daily USING btree (account_id, day, model, task_type, scope_id)
  row level security
table governance.usage_days
  day date not null
  active_users bigint not null
  aggregated_at timestamp with time zone not null
  PRIMARY KEY (day)
  UNIQUE INDEX usage_days_pkey ON governance.usage_days USING btree (day)
  row level security
view governance.usage_events with (security_invoker=true)
  decision_id bigint
  request_id text
  account_id bigint
  created_at timestamp with time zone
  ended_at timestamp with time zone
  model text
  provider text
  task_type text
  scope_id text
  conversation_id text
  input_tokens bigint
  output_tokens bigint
  cached_input_tokens bigint
  cache_write_tokens bigint
  reasoning_tokens bigint
  charged_tokens bigint
  cost_micros bigint
  currency text
table governance.usage_imports
  source text not null
  columns jsonb not null
  last_at timestamp with time zone
  last_key text
  rows_read bigint not null default 0
  rows_imported bigint not null default 0
  rows_skipped bigint not null default 0
  started_at timestamp with time zone not null
  updated_at timestamp with time zone not null
  finished_at timestamp with time zone
  PRIMARY KEY (source)
  UNIQUE INDEX usage_imports_pkey ON governance.usage_imports USING btree (source)
  row level security
table governance.usage_totals
  day date not null
  model text not null
  task_type text not null
  scope_id text not null
  calls bigint not null
  messages bigint not null
  input_tokens bigint not null
  output_tokens bigint not null
  charged_tokens bigint not null
  cost_micros bigint not null
  PRIMARY KEY (day, model, task_type, scope_id)
  UNIQUE INDEX usage_totals_pkey ON governance.usage_totals USING btree (day, model, task_type, scope_id)
  row level security
table governance.webhook_events_processed with (fillfactor=90)
  event_id text not null
  event_type text not null
  event_created_at timestamp with time zone
  received_at timestamp with time zone not null
  attempts integer not null default 1
  status text not null
  reason text
  effects jsonb not null default '[]'::jsonb
  payment_id bigint
  waits_for_customer text
  payload jsonb
  decided_at timestamp with time zone
  decided_by text
  decided_reason text
  PRIMARY KEY (event_id)
  INDEX webhook_events_processed_time ON governance.webhook_events_processed USING brin (received_at)
  INDEX webhook_events_processed_waiting ON governance.webhook_events_processed USING btree (waits_for_customer, received_at) WHERE (status = 'quarantined'::text)
  UNIQUE INDEX webhook_events_processed_pkey ON governance.webhook_events_processed USING btree (event_id)
  row level security
function governance.account_books(p_user_ids text[]) returns jsonb stable
function governance.account_json(a governance.accounts) returns jsonb stable
function governance.account_rows(p_account_ids bigint[]) returns jsonb stable
function governance.account_usage(p_account_id bigint, p_start timestamp with time zone, p_end timestamp with time zone) returns TABLE(day date, model text, task_type text, scope_id text, calls bigint, messages bigint, input_tokens bigint, output_tokens bigint, charged_tokens bigint, cost_micros bigint, last_activity_at timestamp with time zone) stable
function governance.account_usage_json(p_account_id bigint, p_start timestamp with time zone, p_end timestamp with time zone) returns jsonb stable
function governance.adds_up(l governance.lots) returns boolean immutable
function governance.adopt_purchases() returns bigint
function governance.aggregate_days(p_limit integer DEFAULT 40) returns integer
function governance.alert_period(p_period text, p_now timestamp with time zone, OUT from_day date, OUT to_day date, OUT key text) returns record immutable
function governance.alert_retention() returns interval stable
function governance.alert_value(p_alert governance.cost_alerts, p_now timestamp with time zone) returns numeric stable
function governance.anchor_ledger(p_now timestamp with time zone) returns void
function governance.append_entry(p_account_id bigint, p_type text, p_now timestamp with time zone, p_lot_changes bigint[], p_subscription bigint, p_purchased bigint, p_promotional bigint, p_debt bigint, p_reference text DEFAULT NULL::text, p_description text DEFAULT NULL::text, p_metadata jsonb DEFAULT NULL::jsonb, p_decision_id bigint DEFAULT NULL::bigint) returns governance.token_transactions
function governance.apply_correction(p_difference_id text, c jsonb, p_now timestamp with time zone) returns jsonb
function public.apply_preset(p_preset jsonb) returns jsonb security definer to service_role
function public.authorize_usage(p_request_id text, p_user_id text, p_model text, p_estimated_tokens bigint DEFAULT NULL::bigint, p_message text DEFAULT NULL::text, p_conversation_id text DEFAULT NULL::text, p_task_type text DEFAULT NULL::text, p_scope_id text DEFAULT NULL::text, p_complexity numeric DEFAULT NULL::numeric) returns jsonb security definer to service_role
function governance.balance_json(p_subscription bigint, p_purchased bigint, p_promotional bigint, p_reserved bigint, p_debt bigint) returns jsonb stable
function public.begin_checkout(p_user_id text, p_pack_id text) returns jsonb security definer to service_role
function governance.begin_command(p_kind text, p_command_id text, p_parameters text) returns jsonb
function public.block_user(p_command_id text, p_user_id text, p_reason text, p_until timestamp with time zone DEFAULT NULL::timestamp with time zone, p_operator text DEFAULT NULL::text) returns jsonb security definer to service_role
function public.calculate_user_token_usage(p_user_id text, p_start timestamp with time zone, p_end timestamp with time zone) returns jsonb stable security definer to service_role
function governance.case_json(c governance.reconciliation_cases) returns jsonb stable
function governance.case_refusal(c governance.reconciliation_cases, p_id text, p_action text, p_operator text, p_expected_version bigint DEFAULT NULL::bigint, p_named jsonb DEFAULT '{}'::jsonb) returns governance.refusal stable
function governance.cases_closed_with(r governance.reconciliation_runs) returns SETOF governance.reconciliation_cases stable
function governance.cases_in_close(r governance.reconciliation_runs) returns SETOF governance.reconciliation_cases stable
function governance.check_action(p_action jsonb) returns jsonb immutable
function governance.check_authorize(p_request_id text, p_user_id text, p_model text, p_estimated_tokens bigint, p_message text, p_conversation_id text, p_task_type text, p_scope_id text, p_complexity numeric) returns void immutable
function governance.check_event_filter(p_filter jsonb) returns void immutable
function governance.check_id(p_name text, p_value text, p_max integer DEFAULT 255) returns void immutable
function governance.check_limit(p_limit integer, p_max integer) returns void immutable
function governance.check_metadata(p_name text, p_value jsonb) returns void immutable
function governance.check_operator_command(p_command_id text, p_user_id text, p_reason text, p_operator text) returns void immutable
function governance.check_optional(p_name text, p_value text, p_max integer) returns void immutable
function governance.check_period(p_start timestamp with time zone, p_end timestamp with time zone) returns void immutable
function governance.check_rollups(p_now timestamp with time zone, p_limit integer DEFAULT 200) returns integer
function governance.check_rule(p_rule jsonb) returns jsonb immutable
function governance.check_settings(p_settings jsonb) returns jsonb stable
function governance.check_text(p_value jsonb, p_path text, p_max integer) returns text immutable
function governance.check_timezone(p_timezone text) returns text stable
function governance.check_whole(p_value jsonb, p_path text, p_min bigint, p_max bigint) returns bigint immutable
function public.claim_notifications(p_limit integer DEFAULT 50, p_channel text DEFAULT NULL::text, p_lease_seconds integer DEFAULT 300) returns jsonb security definer to service_role
function governance.claw_back_lot(p_lot_id bigint, p_tokens bigint, p_type text, p_now timestamp with time zone, p_reference text, p_description text DEFAULT NULL::text, p_metadata jsonb DEFAULT NULL::jsonb) returns governance.lot_taking
function governance.closing_checks(r governance.reconciliation_runs, p_now timestamp with time zone) returns jsonb stable
function governance.collapse_spaces(p_text text) returns text immutable
function governance.compile_condition(p_node jsonb, p_path text, p_depth integer) returns governance.compiled_condition immutable
function governance.compile_leaf(p_node jsonb, p_path text) returns governance.compiled_condition immutable
function governance.compile_number(p_value jsonb, p_path text) returns text immutable
function governance.compile_rule(p_version_id bigint, p_rule jsonb) returns text stable
function governance.compile_rules() returns bigint
function governance.compile_text(p_value jsonb, p_path text) returns text immutable
function public.console_account_decisions(p_user_id text, p_before_id bigint DEFAULT NULL::bigint, p_limit integer DEFAULT 50) returns jsonb stable security definer to service_role
function public.console_acknowledge_alert(p_command_id text, p_alert_event_id bigint, p_operator text DEFAULT NULL::text) returns jsonb security definer to service_role
function public.console_alerts(p_before_id bigint DEFAULT NULL::bigint, p_limit integer DEFAULT 50, p_open_only boolean DEFAULT false, p_undelivered_only boolean DEFAULT false) returns jsonb stable security definer to service_role
function public.console_case_action(p_command_id text, p_difference_ids text[], p_action text, p_operator text, p_reason text DEFAULT NULL::text, p_details jsonb DEFAULT '{}'::jsonb, p_expected_versions jsonb DEFAULT NULL::jsonb) returns jsonb security definer to service_role
function public.console_close_period(p_command_id text, p_run_id text, p_operator text, p_sign_off text DEFAULT NULL::text) returns jsonb security definer to service_role
function public.console_closed_periods() returns jsonb stable security definer to service_role
function public.console_closing(p_run_id text) returns jsonb stable security definer to service_role
function public.console_compare_reconciliations(p_run_id text, p_other_run_id text, p_limit integer DEFAULT 200) returns jsonb stable security definer to service_role
function public.console_cost_alerts() returns jsonb stable security definer to service_role
function public.console_dismiss_stripe_event(p_command_id text, p_event_id text, p_operator text, p_reason text) returns jsonb security definer to service_role
function public.console_events_before(p_before_event_id bigint DEFAULT NULL::bigint, p_limit integer DEFAULT 200, p_filter jsonb DEFAULT '{}'::jsonb) returns jsonb stable security definer to service_role
function public.console_finance_counts() returns jsonb stable security definer to service_role
function public.console_get_account(p_user_id text) returns jsonb security definer to service_role
function public.console_keep_reconciliation(p_run_id text, p_operator text, p_report jsonb, p_differences jsonb DEFAULT '[]'::jsonb, p_is_last boolean DEFAULT true) returns jsonb security definer to service_role
function public.console_kept_run(p_run_id text) returns jsonb stable security definer to service_role
function public.console_kept_runs(p_limit integer DEFAULT 50, p_before_run_id text DEFAULT NULL::text) returns jsonb stable security definer to service_role
function public.console_ledger_purchases_since(p_cursor text DEFAULT NULL::text, p_limit integer DEFAULT 5000, p_from timestamp with time zone DEFAULT NULL::timestamp with time zone, p_to timestamp with time zone DEFAULT NULL::timestamp with time zone) returns jsonb stable security definer to service_role
function public.console_overview(p_minutes integer DEFAULT 60) returns jsonb security definer to service_role
function public.console_pack_prices() returns jsonb stable security definer to service_role
function public.console_post_correction(p_difference_id text, p_operator text, p_dry_run boolean DEFAULT false, p_expected_version integer DEFAULT NULL::integer) returns jsonb security definer to service_role
function public.console_preview_cases(p_difference_ids text[], p_action text, p_operator text) returns jsonb security definer to service_role
function public.console_project_info() returns jsonb stable security definer to service_role
function public.console_rail_counts() returns jsonb security definer to service_role
function public.console_reconciliation_cases(p_status text[] DEFAULT NULL::text[], p_difference_ids text[] DEFAULT NULL::text[], p_limit integer DEFAULT 500, p_after text DEFAULT NULL::text, p_run_id text DEFAULT NULL::text, p_class text DEFAULT NULL::text, p_assigned_to text DEFAULT NULL::text, p_older_than_days integer DEFAULT NULL::integer, p_undecided boolean DEFAULT NULL::boolean) returns jsonb stable security definer to service_role
function public.console_release_stripe_event(p_command_id text, p_event_id text, p_operator text, p_reason text, p_user_id text DEFAULT NULL::text, p_pack_id text DEFAULT NULL::text, p_tokens bigint DEFAULT NULL::bigint) returns jsonb security definer to service_role
function public.console_resolve_hold(p_command_id text, p_request_id text, p_action text, p_reason text, p_operator text DEFAULT NULL::text, p_input_tokens bigint DEFAULT NULL::bigint, p_output_tokens bigint DEFAULT NULL::bigint) returns jsonb security definer to service_role
function public.console_retry_notification(p_command_id text, p_notification_id bigint, p_operator text DEFAULT NULL::text) returns jsonb security definer to service_role
function public.console_sealed_period(p_run_id text) returns jsonb stable security definer to service_role
function public.console_search(p_query text, p_limit integer DEFAULT 20) returns jsonb security definer to service_role
function public.console_search_accounts(p_query text DEFAULT ''::text, p_filter text DEFAULT 'all'::text, p_plan_id text DEFAULT NULL::text, p_sort text DEFAULT 'name'::text, p_descending boolean DEFAULT false, p_cursor text DEFAULT NULL::text, p_limit integer DEFAULT 20) returns jsonb security definer to service_role
function public.console_stripe_events(p_limit integer DEFAULT 100, p_before timestamp with time zone DEFAULT NULL::timestamp with time zone) returns jsonb stable security definer to service_role
function public.console_stuck_holds(p_limit integer DEFAULT 100) returns jsonb stable security definer to service_role
function public.console_token_roll_forward(p_from timestamp with time zone, p_to timestamp with time zone) returns jsonb stable security definer to service_role
function public.console_token_stats() returns jsonb security definer to service_role
function public.console_usage_totals(p_days integer DEFAULT 30) returns jsonb security definer to service_role
function governance.copy_to_listings(p_account_ids bigint[]) returns void
function governance.cost_of(p_model text, p_at timestamp with time zone, p_input bigint, p_output bigint) returns bigint stable
function governance.count_conversations(p_account_id bigint, p_start timestamp with time zone, p_end timestamp with time zone) returns bigint stable
function governance.count_events(p_after bigint, p_upto bigint) returns TABLE(minute timestamp with time zone, outcome text, reason text, calls bigint, tokens bigint, cost_micros bigint) stable
function governance.count_open_alerts() returns bigint stable
function governance.count_stuck_holds() returns bigint stable
function governance.count_words(p_text text) returns integer immutable
function governance.create_account(p_user_id text, p_now timestamp with time zone, p_plan_id text DEFAULT NULL::text, p_timezone text DEFAULT 'UTC'::text) returns governance.accounts
function governance.current_account(p_user_id text, p_create boolean DEFAULT false) returns governance.accounts
function governance.decision_answer(q governance.requests) returns jsonb stable
function governance.decision_json(r governance.requests) returns jsonb stable
function governance.define_rules(p_match text, p_walk text, p_topic text, p_complexity text) returns void
function governance.effect(p_type text, p_user_id text, p_tokens bigint, p_transaction_id bigint) returns jsonb stable
function governance.end_answer(q governance.requests) returns jsonb stable
function governance.end_command(p_kind text, p_command_id text, p_answer jsonb) returns jsonb
function governance.end_subscription_lots(p_account_id bigint, p_on_cancel text, p_now timestamp with time zone, p_reference text, p_lot_id bigint DEFAULT NULL::bigint) returns bigint
function governance.ended_below(p_bound xid8, p_snapshot pg_snapshot) returns boolean immutable
function governance.ensure_request_partitions(p_from date, p_to date) returns integer
function governance.entry_hash(p_previous_hash bytea, p_payload text) returns bytea stable
function governance.entry_payload(p_transaction_id bigint, p_created_at timestamp with time zone, p_type text, p_amount bigint, p_previous_balance bigint, p_new_balance bigint, p_debt_after bigint, p_lot_changes bigint[], p_decision_id bigint, p_user_id text, p_reference text, p_description text, p_metadata jsonb) returns text stable
function governance.estimate_rows(p_query text) returns bigint
function governance.evaluate_alerts(p_now timestamp with time zone, p_limit integer DEFAULT 5000) returns integer
function governance.evaluate_rules(f_at timestamp with time zone, f_timezone text, f_account_created_at timestamp with time zone, f_message text, f_message_phrases text, f_tokens_today bigint, f_tokens_this_month bigint, f_messages_today integer, f_identical_messages integer, f_seconds_since_last_message numeric, f_rapid_messages integer, f_conversation_messages integer, f_message_words integer, f_message_characters integer, f_estimated_tokens bigint, f_complexity numeric, f_plan text, f_model text, f_provider text, f_task_type text, f_scope_id text, f_available_tokens bigint, f_usage_percent bigint, f_cost_today_micros bigint, f_cost_this_month_micros bigint, f_is_flagged boolean, f_topic text, f_plan_monthly_allowance bigint, f_plan_daily_limit bigint, f_plan_monthly_limit bigint) returns governance.verdict stable
function governance.expire_account_holds(p_account_id bigint, p_now timestamp with time zone) returns integer
function public.explain_decision(p_decision_id bigint) returns jsonb stable security definer to service_role
function governance.fact_type(p_fact text) returns text immutable
function governance.facts_json(q governance.requests, a governance.accounts) returns jsonb stable
function governance.fail(p_sqlstate text, p_hint text, p_message text, p_detail text DEFAULT NULL::text) returns void
function governance.feed_low_id(p_since timestamp with time zone) returns bigint stable
function governance.find_accounts_condition(p_query text) returns text immutable
function governance.find_payment(p_intent text, p_charge text, p_session text, p_invoice text) returns governance.stripe_payments
function public.finish_notification(p_notification_id bigint, p_error text DEFAULT NULL::text, p_is_final boolean DEFAULT false, p_retry_after_seconds integer DEFAULT NULL::integer) returns jsonb security definer to service_role
function public.flag_user(p_command_id text, p_user_id text, p_reason text, p_operator text DEFAULT NULL::text) returns jsonb security definer to service_role
function governance.fold(p_text text) returns text immutable
function governance.follow_account() returns trigger
function governance.follow_events(p_limit integer DEFAULT 2000) returns integer
function governance.freeze_lot(p_lot_id bigint, p_tokens bigint, p_now timestamp with time zone, p_reference text, p_description text DEFAULT NULL::text, p_metadata jsonb DEFAULT NULL::jsonb) returns governance.lot_taking
function public.get_or_create_token_record(p_user_id text) returns jsonb security definer to service_role
function public.get_user_token_balance(p_user_id text) returns bigint security definer to service_role
function public.get_user_transaction_history(p_user_id text, p_limit integer DEFAULT 50, p_before_id bigint DEFAULT NULL::bigint) returns TABLE(transaction_id bigint, transaction_type text, amount bigint, previous_balance bigint, new_balance bigint, description text, metadata jsonb, created_at timestamp with time zone, payload text, hash text) stable security definer to service_role
function governance.give_back(p_lot_id bigint, p_tokens bigint, p_now timestamp with time zone, p_reference text, p_description text, p_metadata jsonb) returns bigint
function governance.give_up_notifications(p_now timestamp with time zone) returns integer
function governance.grant_allowance(p_account governance.accounts, p_month date, p_tokens bigint, p_now timestamp with time zone, p_rollover_months integer) returns void
function governance.grant_invoice_line(p_now timestamp with time zone, p_event_id text, p_payment_id bigint, p_account_id bigint, p_line_key text, p_plan_id text, p_tokens bigint, p_amount bigint, p_currency text, p_from timestamp with time zone, p_to timestamp with time zone, p_subscription text) returns jsonb
function governance.grant_pack(p_now timestamp with time zone, p_payment_id bigint, p_user_id text, p_pack_id text, p_tokens bigint, p_amount bigint, p_currency text, p_paid_at timestamp with time zone, p_cause text, p_difference_id text DEFAULT NULL::text) returns jsonb
function governance.grant_paid(p_now timestamp with time zone, p_pay governance.stripe_payments, p_user_id text, p_pack_id text, p_tokens bigint, p_cause text, p_difference_id text DEFAULT NULL::text) returns jsonb
function governance.grant_tokens(p_account_id bigint, p_kind text, p_tokens bigint, p_type text, p_now timestamp with time zone, p_expires_at timestamp with time zone DEFAULT NULL::timestamp with time zone, p_reference text DEFAULT NULL::text, p_description text DEFAULT NULL::text, p_metadata jsonb DEFAULT NULL::jsonb, p_source jsonb DEFAULT '{}'::jsonb) returns governance.granted
function governance.http_status(p_reason text) returns integer immutable
function public.import_usage_history(p_table text, p_columns jsonb DEFAULT '{}'::jsonb, p_batch integer DEFAULT 1000, p_restart boolean DEFAULT false) returns jsonb security definer to service_role
function governance.invalid_preset(p_path text, p_problem text) returns void
function governance.invalid_rule(p_path text, p_problem text) returns void
function governance.is_for_operators(p_kind text) returns boolean immutable
function governance.is_never_negative(a governance.accounts) returns boolean immutable
function governance.is_same_person(p_one text, p_other text) returns boolean immutable
function governance.is_token_order(p_metadata jsonb) returns boolean immutable
function governance.is_undecided(c governance.reconciliation_cases) returns boolean immutable
function governance.is_unexplained(p_figure jsonb, p_explained numeric DEFAULT 0) returns boolean immutable
function governance.is_within_bounds(s governance.stripe_lots) returns boolean immutable
function governance.keep_partitions(p_now timestamp with time zone, OUT created integer, OUT dropped integer, OUT is_done boolean) returns record
function governance.learn_customer(p_customer text, p_account_id bigint) returns boolean
function governance.like_pattern(p_text text) returns text immutable
function governance.limits_json(p_daily_limit bigint, p_day_used bigint, p_day_ends_at timestamp with time zone, p_monthly_limit bigint, p_month_used bigint, p_month_ends_at timestamp with time zone) returns jsonb stable
function public.list_rules() returns jsonb stable security definer to service_role
function governance.lock_account(p_user_id text, p_create boolean DEFAULT false) returns governance.accounts
function governance.lock_account_id(p_account_id bigint) returns governance.accounts
function governance.lock_key(p_user_id text) returns bigint immutable
function governance.lock_person(p_operator text) returns void
function governance.lock_stripe_ids(p_one text, p_two text DEFAULT NULL::text, p_three text DEFAULT NULL::text, p_four text DEFAULT NULL::text) returns void
function governance.lot_seal(l governance.lots) returns text stable
function governance.maintenance_answer(p_counts jsonb) returns jsonb immutable
function governance.merge_payments(p_into bigint, p_from bigint) returns void
function governance.metadata_text(p_metadata jsonb, VARIADIC p_keys text[]) returns text immutable
function governance.my_account() returns governance.accounts
function public.my_token_alerts() returns jsonb security definer to authenticated, service_role
function public.my_token_balance() returns jsonb security definer to authenticated, service_role
function public.my_token_usage(p_days integer DEFAULT 7) returns jsonb security definer to authenticated, service_role
function governance.needs_approver(c governance.reconciliation_cases) returns boolean stable
function governance.needs_roll(a governance.accounts, p_now timestamp with time zone) returns boolean stable
function governance.note_dispute(p_now timestamp with time zone, p_told_at timestamp with time zone, p_dispute jsonb, p_type text) returns bigint
function governance.note_payment(p_now timestamp with time zone, p_intent text, p_charge text DEFAULT NULL::text, p_session text DEFAULT NULL::text, p_invoice text DEFAULT NULL::text, p_customer text DEFAULT NULL::text, p_livemode boolean DEFAULT NULL::boolean, p_order text DEFAULT NULL::text) returns governance.stripe_payments
function governance.note_refund(p_now timestamp with time zone, p_told_at timestamp with time zone, p_refund jsonb, p_charge text DEFAULT NULL::text, p_intent text DEFAULT NULL::text) returns bigint
function governance.note_subscription(p_now timestamp with time zone, p_event_id text, p_subscription text, p_customer text, p_account_id bigint, p_plan_id text) returns jsonb
function governance.now() returns timestamp with time zone stable
function governance.on_charge(p_event_id text, p_type text, p_now timestamp with time zone, p_told_at timestamp with time zone, o jsonb, p_livemode boolean) returns governance.stripe_outcome
function governance.on_checkout(p_event_id text, p_type text, p_now timestamp with time zone, p_told_at timestamp with time zone, o jsonb, p_livemode boolean) returns governance.stripe_outcome
function governance.on_invoice(p_event_id text, p_now timestamp with time zone, p_told_at timestamp with time zone, o jsonb, p_livemode boolean) returns governance.stripe_outcome
function governance.on_paid_order(p_event_id text, p_now timestamp with time zone, p_told_at timestamp with time zone, o jsonb, p_metadata jsonb, p_user_id text, p_pack_id text, p_intent text, p_charge text, p_session text, p_livemode boolean, p_amount jsonb) returns governance.stripe_outcome
function governance.on_payment_intent(p_event_id text, p_type text, p_now timestamp with time zone, p_told_at timestamp with time zone, o jsonb, p_livemode boolean) returns governance.stripe_outcome
function governance.on_subscription(p_event_id text, p_type text, p_now timestamp with time zone, o jsonb) returns governance.stripe_outcome
function governance.outcome(p_status text, p_reason text DEFAULT NULL::text, p_effects jsonb DEFAULT '[]'::jsonb, p_payment_id bigint DEFAULT NULL::bigint, p_waits_for text DEFAULT NULL::text) returns governance.stripe_outcome immutable
function governance.pack_at(p_pack_id text, p_at timestamp with time zone) returns governance.packs stable
function governance.percent_used(p_today bigint, p_month bigint, p_daily_limit bigint, p_monthly_limit bigint, p_monthly_allowance bigint) returns integer immutable
function governance.plan_of(p_metadata jsonb, p_item jsonb) returns text stable
function governance.preset_list(p_preset jsonb, p_key text, p_id text) returns jsonb stable
function governance.preset_text(p_item jsonb, p_key text, p_path text, p_default text DEFAULT NULL::text, p_max integer DEFAULT 255) returns text stable
function governance.preset_whole(p_item jsonb, p_key text, p_path text, p_min bigint, p_max bigint, p_default bigint DEFAULT NULL::bigint, p_needed boolean DEFAULT false) returns bigint stable
function governance.preview_correction(c governance.reconciliation_cases, p_now timestamp with time zone) returns jsonb
function governance.pro_rata(p_tokens bigint, p_part bigint, p_of bigint) returns bigint immutable
function public.process_stripe_event(p_event jsonb) returns jsonb security definer to service_role
function governance.provider_of(p_model text, p_at timestamp with time zone) returns text stable
function governance.purge(p_now timestamp with time zone, p_limit integer DEFAULT 5000, OUT rows_purged integer, OUT webhook_events_purged integer) returns record
function governance.quarantine_settlement(p_decision_id bigint, p_created_at timestamp with time zone, p_now timestamp with time zone, p_input_tokens bigint, p_output_tokens bigint, p_model text, p_metadata jsonb, p_fingerprint bigint, p_charge numeric, p_ceiling bigint) returns jsonb
function governance.queue_notifications(p_now timestamp with time zone, p_limit integer DEFAULT 1000) returns integer
function governance.raise_alert(p_alert_id bigint, p_account_id bigint, p_kind text, p_severity text, p_message text, p_threshold numeric, p_value numeric, p_period text, p_details jsonb, p_now timestamp with time zone) returns integer
function governance.read_usage(p_metadata jsonb, OUT input_tokens bigint, OUT output_tokens bigint, OUT model text) returns record immutable
function governance.reason_message(p_reason text) returns text immutable
function governance.record_purchase(p_transaction_id bigint, p_type text, p_lot_id bigint, p_payment_id bigint, p_tokens bigint, p_debt bigint DEFAULT 0, p_amount bigint DEFAULT NULL::bigint, p_currency text DEFAULT NULL::text, p_refund_id text DEFAULT NULL::text, p_dispute_id text DEFAULT NULL::text, p_line_id text DEFAULT NULL::text, p_period_start timestamp with time zone DEFAULT NULL::timestamp with time zone, p_period_end timestamp with time zone DEFAULT NULL::timestamp with time zone, p_difference_id text DEFAULT NULL::text) returns void
function public.record_token_usage(p_user_id text, p_tokens_used bigint, p_cost_gbp numeric DEFAULT NULL::numeric, p_model text DEFAULT NULL::text) returns jsonb security definer to service_role
function governance.recover_debt(p_account_id bigint, p_now timestamp with time zone, p_reference text) returns bigint
function governance.refuse_change() returns trigger
function governance.refuse_orphans() returns trigger
function public.release_usage(p_request_id text, p_reason text DEFAULT NULL::text) returns jsonb security definer to service_role
function governance.ring(p_topic text, p_now timestamp with time zone) returns void
function governance.ring_feed(p_now timestamp with time zone, p_interval_ms integer) returns void
function governance.roll_account(p_account_id bigint, p_now timestamp with time zone) returns governance.rolled
function governance.roll_due_accounts(p_now timestamp with time zone, p_limit integer, p_budget interval) returns TABLE(expired_holds integer, expired_lots integer, allowances integer, failed integer, is_done boolean)
function governance.rule_condition(p_rule jsonb) returns text stable
function governance.rule_json(r governance.rules) returns jsonb stable
function governance.rule_names(p_version_ids bigint[], p_mode text DEFAULT NULL::text) returns jsonb stable
function governance.rules_complexity(f_complexity numeric, f_message_phrases text, f_message_characters integer) returns numeric immutable
function governance.rules_match(f_at timestamp with time zone, f_timezone text, f_account_created_at timestamp with time zone, f_message text, f_message_phrases text, f_tokens_today bigint, f_tokens_this_month bigint, f_messages_today integer, f_identical_messages integer, f_seconds_since_last_message numeric, f_rapid_messages integer, f_conversation_messages integer, f_message_words integer, f_message_characters integer, f_estimated_tokens bigint, f_complexity numeric, f_plan text, f_model text, f_provider text, f_task_type text, f_scope_id text, f_available_tokens bigint, f_usage_percent bigint, f_cost_today_micros bigint, f_cost_this_month_micros bigint, f_is_flagged boolean, f_topic text, f_plan_monthly_allowance bigint, f_plan_daily_limit bigint, f_plan_monthly_limit bigint) returns boolean stable
function governance.rules_topic(f_message_phrases text) returns text immutable
function governance.run_covers(p_new jsonb, p_old jsonb) returns boolean immutable
function governance.run_json(r governance.reconciliation_runs) returns jsonb stable
function public.run_maintenance() returns jsonb security definer to service_role
function public.save_rule(p_command_id text, p_rule jsonb, p_expected_version integer DEFAULT NULL::integer, p_operator text DEFAULT NULL::text) returns jsonb security definer to service_role
function governance.schedule_maintenance() returns boolean
function governance.seals_lot(p_type text, p_lot_changes bigint[], p_metadata jsonb) returns boolean immutable
function governance.search_text(p_user_id text, p_display_name text, p_email text) returns text immutable
function governance.set_test_clock(p_at timestamp with time zone, p_frozen boolean DEFAULT false) returns timestamp with time zone
function governance.setting_number(p_key text, p_default bigint) returns bigint stable
function governance.setting_texts(p_key text, p_otherwise text[]) returns text[] stable
function governance.settle_payment(p_payment_id bigint, p_now timestamp with time zone, p_cause text, p_difference_id text DEFAULT NULL::text) returns jsonb
function governance.settle_request(p_request_id text, p_input_tokens bigint, p_output_tokens bigint, p_model text, p_metadata jsonb, p_above_ceiling boolean) returns jsonb
function public.settle_usage(p_request_id text, p_input_tokens bigint, p_output_tokens bigint, p_model text DEFAULT NULL::text, p_metadata jsonb DEFAULT '{}'::jsonb) returns jsonb security definer to service_role
function governance.settled(p_payment_id bigint, p_now timestamp with time zone, p_cause text) returns governance.stripe_outcome
function governance.settlement_alerts(p_account_id bigint, p_now timestamp with time zone, p_charged bigint, p_debt bigint, p_free_before bigint, p_free_after bigint, p_low bigint, p_high bigint, p_daily_limit bigint, p_day_before bigint, p_monthly_limit bigint, p_month_before bigint, p_warn_at integer[], p_day date, p_details jsonb) returns jsonb
function governance.sort_name(p_user_id text, p_display_name text) returns text immutable
function governance.space_phrases(p_folded text) returns text immutable
function governance.spend_lots(p_account_id bigint, p_tokens bigint, p_lot_id bigint DEFAULT NULL::bigint) returns governance.lot_spending
function governance.stake_of(c governance.reconciliation_cases, p_effects jsonb) returns governance.stake stable
function governance.store_rule(p_rule jsonb, p_operator text, p_now timestamp with time zone) returns governance.rules
function governance.stripe_currency(p_value jsonb) returns text immutable
function governance.stripe_id(p_value jsonb) returns text immutable
function governance.stripe_list(p_value jsonb) returns jsonb immutable
function governance.stripe_object(p_value jsonb) returns jsonb immutable
function governance.stripe_time(p_value jsonb) returns timestamp with time zone immutable
function governance.stripe_whole(p_value jsonb) returns bigint immutable
function governance.take_back(p_lot_id bigint, p_tokens bigint, p_type text, p_now timestamp with time zone, p_reference text, p_description text, p_metadata jsonb) returns governance.lot_taking
function governance.take_event(p_event_id text, p_event jsonb, p_now timestamp with time zone, p_is_new boolean DEFAULT false) returns jsonb
function governance.thaw_lot(p_lot_id bigint, p_tokens bigint, p_now timestamp with time zone, p_reference text, p_description text DEFAULT NULL::text, p_metadata jsonb DEFAULT NULL::jsonb) returns governance.lot_taking
function governance.token_count(p_value jsonb) returns bigint immutable
function governance.token_part(p_metadata jsonb, p_key text) returns bigint immutable
function governance.try_jsonb(p_text text) returns jsonb immutable
function public.unblock_user(p_command_id text, p_user_id text, p_reason text, p_operator text DEFAULT NULL::text) returns jsonb security definer to service_role
function public.update_user_token_balance(p_user_id text, p_amount bigint, p_transaction_type text, p_description text DEFAULT NULL::text, p_metadata jsonb DEFAULT '{}'::jsonb, p_idempotency_key text DEFAULT NULL::text, p_expires_at timestamp with time zone DEFAULT NULL::timestamp with time zone) returns jsonb security definer to service_role
function public.upsert_account(p_user_id text, p_plan_id text DEFAULT NULL::text, p_email text DEFAULT NULL::text, p_display_name text DEFAULT NULL::text, p_timezone text DEFAULT NULL::text, p_metadata jsonb DEFAULT NULL::jsonb) returns jsonb security definer to service_role
function public.usage_events_since(p_cursor text DEFAULT NULL::text, p_limit integer DEFAULT 500, p_filter jsonb DEFAULT '{}'::jsonb) returns jsonb stable security definer to service_role
function public.user_token_usage(p_user_id text, p_period text DEFAULT 'day'::text, p_start date DEFAULT NULL::date, p_end date DEFAULT NULL::date) returns TABLE(user_id text, period_start date, period_end date, prompt_tokens bigint, completion_tokens bigint, total_tokens bigint, message_count bigint, conversation_count bigint, cost_micros bigint, currency text, last_activity timestamp with time zone) stable security definer to service_role
function public.verify_ledger(p_user_id text DEFAULT NULL::text) returns jsonb stable security definer to service_role
function public.verify_purchases() returns jsonb stable security definer to service_role
function governance.why_approver(c governance.reconciliation_cases, p_operator text, p_effects jsonb, p_now timestamp with time zone, p_more_tokens numeric DEFAULT 0, p_more_minor numeric DEFAULT 0) returns text stable
function governance.with_separators(p_number bigint) returns text immutable
function governance.write_payment(p_pay governance.stripe_payments, p_now timestamp with time zone, p_intent text, p_charge text, p_session text, p_invoice text, p_customer text, p_livemode boolean, p_order text, p_account_id bigint DEFAULT NULL::bigint, p_amount bigint DEFAULT NULL::bigint, p_currency text DEFAULT NULL::text, p_paid_at timestamp with time zone DEFAULT NULL::timestamp with time zone) returns governance.stripe_payments
