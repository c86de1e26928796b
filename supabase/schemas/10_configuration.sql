-- Plans, packs, prices, estimates and settings, as the preset in force has them.

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

comment on table governance.plans is
  'Plans, which set what an account may use: monthly allowance, daily and monthly limits, warnings.';

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
  -- Writes that are kept for an hour; null: twice the input.
  cache_write_1h_micros_per_million bigint check (cache_write_1h_micros_per_million between 0 and 1000000000000000),
  -- Null: as output.
  reasoning_micros_per_million bigint check (reasoning_micros_per_million between 0 and 1000000000000000),
  -- What the provider's tiers charge otherwise; null: as above. Their other parts keep their share of the input
  -- (reasoning: of the output), as governance.price_in_tier says.
  batch_input_micros_per_million bigint check (batch_input_micros_per_million between 0 and 1000000000000000),
  batch_output_micros_per_million bigint check (batch_output_micros_per_million between 0 and 1000000000000000),
  priority_input_micros_per_million bigint check (priority_input_micros_per_million between 0 and 1000000000000000),
  priority_output_micros_per_million bigint check (priority_output_micros_per_million between 0 and 1000000000000000),
  -- A call that reads more than so many tokens; null: none does.
  long_context_above_tokens bigint check (long_context_above_tokens between 1 and 9007199254740991),
  long_context_input_micros_per_million bigint
    check (long_context_input_micros_per_million between 0 and 1000000000000000),
  long_context_output_micros_per_million bigint
    check (long_context_output_micros_per_million between 0 and 1000000000000000),
  currency text not null check (currency ~ '^[a-z]{3}$'),
  effective_from timestamptz not null,
  created_at timestamptz not null default now(),
  retired_at timestamptz
);

create unique index prices_in_force on governance.prices (model, effective_from, provider) where retired_at is null;

comment on table governance.prices is
  'Micro-units of a currency per million tokens, by model and date. A call costs the price of its own moment.';

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

comment on table governance.settings is 'Settings of the preset in force, by name. Those on the path of a call are '
  'also columns of governance.active_config.';

create function governance.config_kinds() returns table (kind text, list text, setting text)
  language sql immutable set search_path = '' as $$
  -- list: where a preset has records of the kind. setting: the setting that is a list of them.
  values ('project', null, null), ('plan', 'plans', null), ('pack', 'packs', null), ('price', 'prices', null),
    ('estimate', 'estimates', null), ('topic', null, 'topics'), ('alert', 'alerts', null),
    ('route', null, 'alert_routes'), ('setting', null, null), ('rule', 'rules', null)
$$;
comment on function governance.config_kinds() is 'Every kind of record that a configuration is made of.';

create table governance.config_versions (
  version_id bigint generated always as identity primary key,
  -- What it is, and which: governance.config_records.
  kind text not null,
  key text not null,
  version int not null,
  record jsonb not null,
  created_at timestamptz not null,
  created_by text,
  reason text,
  -- It was taken out of use; what it was stays readable.
  is_retired boolean not null default false,
  unique (kind, key, version)
);

comment on table governance.config_versions is 'Every version of every plan, pack, price, estimate, topic, alert, '
  'route and setting, with who and why; append-only. Rules have governance.rule_versions.';

create trigger config_versions_append_only before update or delete or truncate on governance.config_versions
  for each statement execute function governance.refuse_change();

create table governance.config_proposals (
  proposal_id bigint generated always as identity primary key,
  -- As console_apply_config takes them, with the version that each was made on.
  changes jsonb not null,
  reason text not null,
  proposed_by text not null,
  proposed_at timestamptz not null,
  status text not null default 'proposed' check (status in ('proposed', 'approved', 'rejected')),
  decided_by text,
  decided_at timestamptz,
  decision_reason text
);

create index config_proposals_open on governance.config_proposals (proposal_id) where status = 'proposed';

comment on table governance.config_proposals is 'Changes of rules and configuration that wait for a second person '
  '(setting second_person_for), and what became of them.';

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
  -- A settlement looks for alerts when it leaves less than the one, or used more than the other: the setting or a
  -- threshold of the preset's alerts, whichever comes first.
  alert_balance_below bigint not null default 1000,
  alert_operation_above bigint not null default 5000,
  decision_retention_days int not null default 90 check (decision_retention_days >= 32),
  -- Wake-ups for readers of the feed are at least this far apart.
  signal_interval_ms int not null default 250 check (signal_interval_ms between 50 and 60000),
  is_sample_data boolean not null default false,
  -- The test clock: an offset from the server's clock, or a moment at which it is frozen.
  test_clock_offset interval,
  test_clock_at timestamptz,
  updated_at timestamptz not null default now(),
  -- Facts that cost, and that some rule in force reads.
  rules_read_identical boolean not null default false,
  rules_read_words boolean not null default false,
  rules_read_provider boolean not null default false,
  -- When the first rule that was changed for a while goes back.
  rules_due_at timestamptz
);

comment on table governance.active_config is 'The configuration in force, flattened to what a call needs.';

-- In the order in which a call's price is looked for: found without sorting.
create index prices_by_moment on governance.prices (model, effective_from desc, created_at, provider collate "C");

create function governance.provider_of(p_model text, p_at timestamptz) returns text
  language sql stable set search_path = '' as $$
  select p.provider from governance.prices p
  where p.model = p_model and p.effective_from <= p_at and (p.retired_at is null or p.retired_at > p_at)
  order by p.effective_from desc, p.created_at, p.provider collate "C" limit 1
$$;
comment on function governance.provider_of(text,
  timestamptz) is 'Who serves a model, by the price table; null if unknown.';

create function governance.cost_of(p_model text, p_at timestamptz, p_input bigint, p_output bigint) returns bigint
  language sql stable set search_path = '' as $$
  select div(p_input::numeric * p.input_micros_per_million + p_output::numeric * p.output_micros_per_million + 500000,
    1000000)::bigint
  from governance.prices p
  where p.model = p_model and p.effective_from <= p_at and (p.retired_at is null or p.retired_at > p_at)
  order by p.effective_from desc, p.provider collate "C" limit 1
$$;
comment on function governance.cost_of(text, timestamptz, bigint,
  bigint) is 'Cost of plain input and output tokens at a moment''s price, in micro-units; null if none is known.';

create function governance.pack_at(p_pack_id text, p_at timestamptz) returns governance.packs
  language plpgsql stable set search_path = '' as $$
declare
  v_pack governance.packs;
begin
  -- A payment from before the first price is checked against the first.
  select p.* into v_pack from governance.packs p where p.pack_id = p_pack_id
  order by p.effective_from <= p_at desc, case
    when p.effective_from <= p_at then p.effective_from end desc, p.effective_from limit 1;
  return v_pack;
end
$$;
comment on function governance.pack_at(text, timestamptz) is 'A pack as it was sold at a moment.';

create function governance.setting_number(p_key text, p_default bigint) returns bigint
  language sql stable set search_path = '' as $$
  select coalesce((select (s.value #>> '{}')::numeric::bigint from governance.settings s
    where s.key = p_key and jsonb_typeof(s.value) = 'number'
      and (s.value #>> '{}')::numeric between 0 and 9007199254740991), p_default)
$$;
comment on function governance.setting_number(text, bigint) is 'A whole number out of the settings, or the default.';

create function public.console_pack_prices() returns jsonb
  language sql stable security definer set search_path = '' as $$
  select governance.refuse_others('console_pack_prices');
  select coalesce(jsonb_agg(jsonb_build_object('pack_id', p.pack_id, 'tokens', p.tokens, 'price_minor', p.price_minor,
    'currency', p.currency,
    'valid_from', greatest(p.effective_from, '1970-01-01T00:00:00Z')) order by p.pack_id, p.effective_from), '[]')
  from governance.packs p
$$;
comment on function public.console_pack_prices() is 'Every pack with its price from each moment on, retired ones too.';
revoke all on function public.console_pack_prices() from public, anon, authenticated;
grant execute on function public.console_pack_prices() to service_role;

create function governance.setting_texts(p_key text, p_otherwise text[]) returns text[]
  language sql stable set search_path = '' as $$
  select coalesce((select case
    when jsonb_typeof(s.value) = 'array' then array(select jsonb_array_elements_text(s.value)) end
    from governance.settings s where s.key = p_key), p_otherwise)
$$;
comment on function governance.setting_texts(text,
  text[]) is 'A setting that is a list of texts; p_otherwise where it is not given.';

create function governance.setting_text(p_key text) returns text
  language sql stable set search_path = '' as $$
  select case when jsonb_typeof(s.value) = 'string' then s.value #>> '{}' end
  from governance.settings s where s.key = p_key
$$;
comment on function governance.setting_text(text) is 'A setting that is a text; null where it is not given.';

insert into governance.active_config default values;
