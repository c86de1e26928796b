-- Plans, packs, prices, estimates and settings, and the preset that fills them.

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

comment on table governance.prices is 'Micro-units of a currency per million tokens, by model and date. A call costs '
  'what its own moment says.';

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
  updated_at timestamptz not null default now(),
  -- Facts that cost, and that some rule in force reads.
  rules_read_identical boolean not null default false,
  rules_read_words boolean not null default false,
  rules_read_provider boolean not null default false
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

create function governance.invalid_preset(p_path text, p_problem text) returns void
  language plpgsql set search_path = '' as $$
begin
  perform governance.fail('PT422', 'invalid_preset', format('%s: %s', p_path, p_problem), p_path);
end
$$;
comment on function governance.invalid_preset(text, text) is 'Refuses a preset, naming the place and the problem.';

create function governance.preset_text(p_item jsonb, p_key text, p_path text, p_default text default null,
  p_max int default 255) returns text
  language plpgsql stable set search_path = '' as $$
begin
  if coalesce(p_item -> p_key, 'null') = 'null' then
    if p_default is null then perform governance.invalid_preset(p_path || '.' || p_key, 'a text is needed'); end if;
    return p_default;
  end if;
  if jsonb_typeof(p_item -> p_key) <> 'string' or char_length(p_item ->> p_key) not between 1 and p_max then
    perform governance.invalid_preset(p_path || '.' || p_key, format('a text of 1 to %s characters is needed', p_max));
  end if;
  return p_item ->> p_key;
end
$$;
comment on function governance.preset_text(jsonb, text, text, text,
  int) is 'A text of a preset, or its default; no default means it is needed.';

create function governance.preset_whole(p_item jsonb, p_key text, p_path text, p_min bigint, p_max bigint,
  p_default bigint default null, p_needed boolean default false) returns bigint
  language plpgsql stable set search_path = '' as $$
declare
  v_number numeric;
begin
  if coalesce(p_item -> p_key, 'null') = 'null' then
    if p_needed then perform governance.invalid_preset(p_path || '.' || p_key, 'a whole number is needed'); end if;
    return p_default;
  end if;
  if jsonb_typeof(p_item -> p_key) = 'number' then
    v_number := (p_item ->> p_key)::numeric;
    if v_number = trunc(v_number) and v_number between p_min and p_max then return v_number::bigint; end if;
  end if;
  perform governance.invalid_preset(p_path || '.' || p_key,
    format('a whole number from %s to %s is needed', p_min, p_max));
  return null;
end
$$;
comment on function governance.preset_whole(jsonb, text, text, bigint, bigint, bigint,
  boolean) is 'A whole number of a preset, or its default.';

create function governance.preset_list(p_preset jsonb, p_key text, p_id text) returns jsonb
  language plpgsql stable set search_path = '' as $$
declare
  v_list jsonb := coalesce(nullif(p_preset -> p_key, 'null'), '[]');
  v_item jsonb;
  v_at int := 0;
begin
  if jsonb_typeof(v_list) <> 'array' then perform governance.invalid_preset(p_key, 'a list is needed'); end if;
  if jsonb_array_length(v_list) > 10000
    then perform governance.invalid_preset(p_key, 'a list has at most 10,000 items'); end if;
  for v_item in select * from jsonb_array_elements(v_list) loop
    if jsonb_typeof(v_item) <> 'object'
      then perform governance.invalid_preset(format('%s[%s]', p_key, v_at), 'an object is needed'); end if;
    perform governance.preset_text(v_item, p_id, format('%s[%s]', p_key, v_at));
    v_at := v_at + 1;
  end loop;
  if p_key <> 'prices' and (select count(distinct x ->> p_id) from jsonb_array_elements(v_list) x) <> v_at then
    perform governance.invalid_preset(p_key, format('two items have the same %s', p_id));
  end if;
  return v_list;
end
$$;
comment on function governance.preset_list(jsonb, text,
  text) is 'A list of a preset whose items are objects with a name of their own.';

-- Alerts that reach people: who operators are, what a sender may say of a message, what could not be delivered and how
-- it
-- is sent again; the list behind the count of open alerts; and receipts whose figures add up.

-- ---------------------------------------------------------------------------------------------------------------
-- Whom to tell
-- ---------------------------------------------------------------------------------------------------------------

create function governance.check_settings(p_settings jsonb) returns jsonb
  language plpgsql stable set search_path = '' as $$
declare
  v_item jsonb;
  v_at int := 0;
  v_key text;
begin
  if jsonb_typeof(p_settings) <> 'object' then perform governance.invalid_preset('settings', 'an object is needed');
    end if;
  if coalesce(p_settings -> 'complexity_words', '[]') <> '[]' then
    if jsonb_typeof(p_settings -> 'complexity_words') <> 'array'
      or jsonb_array_length(p_settings -> 'complexity_words') > 1000
      or exists (select from jsonb_array_elements(p_settings -> 'complexity_words') w
        where jsonb_typeof(w) <> 'string' or char_length(w #>> '{}') > 1000) then
      perform governance.invalid_preset('settings.complexity_words', 'a list of at most 1,000 phrases is needed');
    end if;
  end if;
  if coalesce(p_settings -> 'topics', '[]') <> '[]' then
    if jsonb_typeof(p_settings -> 'topics') <> 'array' or jsonb_array_length(p_settings -> 'topics') > 1000 then
      perform governance.invalid_preset('settings.topics', 'a list of {topic, words} is needed');
    end if;
    for v_item in select * from jsonb_array_elements(p_settings -> 'topics') loop
      if jsonb_typeof(v_item) <> 'object' or jsonb_typeof(v_item -> 'topic')
        is distinct from 'string' or jsonb_typeof(v_item -> 'words') is distinct from 'array'
        or jsonb_array_length(v_item -> 'words') > 1000 or char_length(v_item ->> 'topic') not between 1 and 1000
        or exists (select from jsonb_array_elements(v_item -> 'words') w
          where jsonb_typeof(w) <> 'string' or char_length(w #>> '{}') > 1000) then
        perform governance.invalid_preset(format('settings.topics[%s]', v_at),
          'a {topic, words} with at most 1,000 phrases is needed');
      end if;
      v_at := v_at + 1;
    end loop;
  end if;
  if coalesce(p_settings -> 'operator_emails', '[]') <> '[]' then
    if jsonb_typeof(p_settings -> 'operator_emails') <> 'array'
      or jsonb_array_length(p_settings -> 'operator_emails') > 50
      or exists (select from jsonb_array_elements(p_settings -> 'operator_emails') w where jsonb_typeof(w) <> 'string'
        or char_length(w #>> '{}') > 254 or (w #>> '{}') !~ '^[^\s@<>(),;:\\"\[\]]+@[^\s@<>(),;:\\"\[\]]+$') then
      perform governance.invalid_preset('settings.operator_emails', 'a list of at most 50 e-mail addresses is needed');
    end if;
  end if;
  if coalesce(p_settings -> 'pay_debt_from', '"free"') not in ('"free"', '"grants"') then
    perform governance.invalid_preset('settings.pay_debt_from', 'free or grants is needed');
  end if;
  foreach v_key in array '{operator_channels,user_warning_channels}'::text[] loop
    if coalesce(p_settings -> v_key, '[]') <> '[]' and (jsonb_typeof(p_settings -> v_key) <> 'array'
      or exists (select from jsonb_array_elements(p_settings -> v_key) w
        where jsonb_typeof(w) <> 'string' or (w #>> '{}') !~ '^[a-z][a-z0-9_]{0,31}$')) then
      perform governance.invalid_preset('settings.' || v_key, 'a list of channels such as email and slack is needed');
    end if;
  end loop;
  return p_settings;
end
$$;
comment on function governance.check_settings(jsonb) is 'The settings, if the word lists in them can be compiled and '
  'the addresses written to.';

create function public.apply_preset(p_preset jsonb) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_now timestamptz;
  v_name text;
  v_currency text;
  v_settings jsonb;
  v_plans jsonb;
  v_packs jsonb;
  v_rules jsonb;
  v_prices jsonb;
  v_estimates jsonb;
  v_alerts jsonb;
  v_default_plan text;
  v_item jsonb;
  v_path text;
  v_at int;
  v_count int;
  v_changed jsonb := '{}';
  v_plan governance.plans;
  v_old_plan governance.plans;
  v_pack governance.packs;
  v_old_pack governance.packs;
  v_price governance.prices;
  v_old_price governance.prices;
  v_alert governance.cost_alerts;
  v_old_alert governance.cost_alerts;
  v_rule jsonb;
  v_old_rule governance.rules;
  v_config governance.active_config;
  v_old_config governance.active_config;
  v_recompile boolean := false;
  v_list jsonb;
begin
  perform governance.refuse_others('apply_preset');
  if p_preset is null or jsonb_typeof(p_preset) <> 'object' then
    perform governance.fail('PT400', 'invalid_argument', 'p_preset is a preset as a JSON object');
  end if;
  v_name := governance.preset_text(p_preset, 'name', 'preset');
  v_currency := lower(governance.preset_text(p_preset, 'currency', 'preset', 'usd', 3));
  if v_currency !~ '^[a-z]{3}$' then perform governance.invalid_preset('currency', 'three letters are needed'); end if;
  v_settings := governance.check_settings(coalesce(nullif(p_preset -> 'settings', 'null'), '{}'));
  v_plans := governance.preset_list(p_preset, 'plans', 'plan_id');
  v_packs := governance.preset_list(p_preset, 'packs', 'pack_id');
  v_rules := governance.preset_list(p_preset, 'rules', 'rule_name');
  v_prices := governance.preset_list(p_preset, 'prices', 'model');
  v_estimates := governance.preset_list(p_preset, 'estimates', 'task_type');
  v_alerts := governance.preset_list(p_preset, 'alerts', 'alert_name');
  if jsonb_array_length(v_plans) = 0 then perform governance.invalid_preset('plans', 'at least one plan is needed');
    end if;
  v_default_plan := governance.preset_text(p_preset, 'default_plan', 'preset', v_plans -> 0 ->> 'plan_id');
  if not exists (select from jsonb_array_elements(v_plans) x where x ->> 'plan_id' = v_default_plan) then
    perform governance.invalid_preset('default_plan', format('there is no plan "%s"', left(v_default_plan, 64)));
  end if;

  perform pg_advisory_xact_lock(7254012);
  v_now := governance.now();

  v_at := 0; v_count := 0;
  for v_item in select * from jsonb_array_elements(v_plans) loop
    v_path := format('plans[%s]', v_at); v_at := v_at + 1;
    v_plan := null;
    v_plan.plan_id := v_item ->> 'plan_id';
    v_plan.name := governance.preset_text(v_item, 'name', v_path, v_plan.plan_id);
    v_plan.monthly_allowance := governance.preset_whole(v_item, 'monthly_allowance', v_path, 0, 9007199254740991, 0);
    v_plan.daily_limit := governance.preset_whole(v_item, 'daily_limit', v_path, 0, 9007199254740991);
    v_plan.monthly_limit := governance.preset_whole(v_item, 'monthly_limit', v_path, 0, 9007199254740991);
    v_plan.rollover_months := governance.preset_whole(v_item, 'rollover_months', v_path, 0, 12, 0);
    v_plan.allows_top_up := coalesce(v_item -> 'allows_top_up', 'null') in ('true', 'null');
    if coalesce(jsonb_typeof(v_item -> 'allows_top_up'), 'null') not in ('boolean', 'null')
      then perform governance.invalid_preset(v_path || '.allows_top_up', 'true or false is needed'); end if;
    v_plan.fail_mode := governance.preset_text(v_item, 'fail_mode', v_path, 'closed');
    if v_plan.fail_mode not in ('closed', 'open')
      then perform governance.invalid_preset(v_path || '.fail_mode', 'closed or open is needed'); end if;
    v_plan.on_cancel := governance.preset_text(v_item, 'on_cancel', v_path, 'expire');
    if v_plan.on_cancel not in ('keep', 'convert', 'expire')
      then perform governance.invalid_preset(v_path || '.on_cancel', 'keep, convert or expire is needed'); end if;
    if coalesce(v_item -> 'upgrade_to', 'null') <> 'null' then
      v_plan.upgrade_to := governance.preset_text(v_item, 'upgrade_to', v_path);
      if not exists (select from jsonb_array_elements(v_plans) x where x ->> 'plan_id' = v_plan.upgrade_to) then
        perform governance.invalid_preset(v_path || '.upgrade_to',
          format('there is no plan "%s"', left(v_plan.upgrade_to, 64)));
      end if;
    end if;
    v_list := coalesce(nullif(v_item -> 'warn_at', 'null'), '[80, 90, 95]');
    if jsonb_typeof(v_list) <> 'array' or jsonb_array_length(v_list) > 20
      or exists (select from jsonb_array_elements(v_list) w
        where jsonb_typeof(w) <> 'number' or (w #>> '{}')::numeric <> trunc((w #>> '{}')::numeric)
        or (w #>> '{}')::numeric not between 1 and 100) then
      perform governance.invalid_preset(v_path || '.warn_at', 'a list of whole percents from 1 to 100 is needed');
    end if;
    v_plan.warn_at := coalesce((select array_agg(distinct (w #>> '{}')::numeric::int
      order by (w #>> '{}')::numeric::int) from jsonb_array_elements(v_list) w), '{}');
    select * into v_old_plan from governance.plans p where p.plan_id = v_plan.plan_id;
    if v_old_plan.plan_id is null or v_old_plan.retired_at is not null
      or row(v_old_plan.name, v_old_plan.monthly_allowance, v_old_plan.daily_limit, v_old_plan.monthly_limit,
        v_old_plan.rollover_months, v_old_plan.allows_top_up, v_old_plan.fail_mode, v_old_plan.on_cancel,
        v_old_plan.upgrade_to, v_old_plan.warn_at)
        is distinct from row(v_plan.name, v_plan.monthly_allowance, v_plan.daily_limit, v_plan.monthly_limit,
          v_plan.rollover_months, v_plan.allows_top_up, v_plan.fail_mode, v_plan.on_cancel, v_plan.upgrade_to,
          v_plan.warn_at) then
      insert into governance.plans (plan_id, name, monthly_allowance, daily_limit, monthly_limit, rollover_months,
        allows_top_up, fail_mode, on_cancel, upgrade_to, warn_at)
      values (v_plan.plan_id, v_plan.name, v_plan.monthly_allowance, v_plan.daily_limit, v_plan.monthly_limit,
        v_plan.rollover_months, v_plan.allows_top_up, v_plan.fail_mode, v_plan.on_cancel, v_plan.upgrade_to,
        v_plan.warn_at)
      on conflict (plan_id) do update set name = excluded.name, monthly_allowance = excluded.monthly_allowance,
        daily_limit = excluded.daily_limit,
        monthly_limit = excluded.monthly_limit, rollover_months = excluded.rollover_months,
          allows_top_up = excluded.allows_top_up, fail_mode = excluded.fail_mode,
        on_cancel = excluded.on_cancel, upgrade_to = excluded.upgrade_to, warn_at = excluded.warn_at,
          updated_at = v_now, retired_at = null;
      v_count := v_count + 1;
    end if;
  end loop;
  v_changed := v_changed || jsonb_build_object('plans', v_count);
  update governance.plans p set retired_at = v_now
  where p.retired_at is null
    and not exists (select from jsonb_array_elements(v_plans) x where x ->> 'plan_id' = p.plan_id);
  get diagnostics v_count = row_count;
  v_changed := v_changed || jsonb_build_object('plans_retired', v_count);

  v_at := 0; v_count := 0;
  for v_item in select * from jsonb_array_elements(v_packs) loop
    v_path := format('packs[%s]', v_at); v_at := v_at + 1;
    v_pack := null;
    v_pack.pack_id := v_item ->> 'pack_id';
    v_pack.tokens := governance.preset_whole(v_item, 'tokens', v_path, 1, 100000000, null, true);
    v_pack.price_minor := governance.preset_whole(v_item, 'price_minor', v_path, 0, 9007199254740991, null, true);
    v_pack.currency := lower(governance.preset_text(v_item, 'currency', v_path, v_currency, 3));
    if v_pack.currency !~ '^[a-z]{3}$'
      then perform governance.invalid_preset(v_path || '.currency', 'three letters are needed'); end if;
    v_list := coalesce(nullif(v_item -> 'plans', 'null'), '[]');
    if jsonb_typeof(v_list) <> 'array' or exists (select from jsonb_array_elements(v_list) x
      where jsonb_typeof(x) <> 'string'
        or not exists (select from jsonb_array_elements(v_plans) p where p ->> 'plan_id' = x #>> '{}')) then
      perform governance.invalid_preset(v_path || '.plans', 'a list of plans of this preset is needed');
    end if;
    v_pack.plans := (select array_agg(x order by x collate "C") from jsonb_array_elements_text(v_list) x);
    select * into v_old_pack from governance.packs p where p.pack_id = v_pack.pack_id and p.retired_at is null;
    if v_old_pack.pack_id is null
      or row(v_old_pack.tokens, v_old_pack.price_minor, v_old_pack.currency, v_old_pack.plans)
      is distinct from row(v_pack.tokens, v_pack.price_minor, v_pack.currency, v_pack.plans) then
      update governance.packs p set retired_at = v_now where p.pack_row_id = v_old_pack.pack_row_id;
      -- The first price of a pack holds for the past too: its payments may have been made before this preset.
      insert into governance.packs (pack_id, tokens, price_minor, currency, plans, effective_from)
      values (v_pack.pack_id, v_pack.tokens, v_pack.price_minor, v_pack.currency, v_pack.plans,
        case when exists (select from governance.packs p where p.pack_id = v_pack.pack_id) then v_now
          else '-infinity' end);
      v_count := v_count + 1;
    end if;
  end loop;
  v_changed := v_changed || jsonb_build_object('packs', v_count);
  update governance.packs p set retired_at = v_now
  where p.retired_at is null
    and not exists (select from jsonb_array_elements(v_packs) x where x ->> 'pack_id' = p.pack_id);
  get diagnostics v_count = row_count;
  v_changed := v_changed || jsonb_build_object('packs_retired', v_count);

  v_at := 0; v_count := 0;
  for v_item in select * from jsonb_array_elements(v_prices) loop
    v_path := format('prices[%s]', v_at); v_at := v_at + 1;
    v_price := null;
    v_price.provider := governance.preset_text(v_item, 'provider', v_path);
    v_price.model := governance.preset_text(v_item, 'model', v_path, null, 200);
    v_price.input_micros_per_million := governance.preset_whole(v_item, 'input_micros_per_million', v_path, 0,
      1000000000000000, null, true);
    v_price.output_micros_per_million := governance.preset_whole(v_item, 'output_micros_per_million', v_path, 0,
      1000000000000000, null, true);
    v_price.cached_input_micros_per_million := governance.preset_whole(v_item, 'cached_input_micros_per_million',
      v_path, 0, 1000000000000000);
    v_price.cache_write_micros_per_million := governance.preset_whole(v_item, 'cache_write_micros_per_million', v_path,
      0, 1000000000000000);
    v_price.reasoning_micros_per_million := governance.preset_whole(v_item, 'reasoning_micros_per_million', v_path, 0,
      1000000000000000);
    v_price.currency := lower(governance.preset_text(v_item, 'currency', v_path, v_currency, 3));
    if v_price.currency <> v_currency then
      perform governance.invalid_preset(v_path || '.currency',
        format('prices are in the preset''s currency, %s', v_currency));
    end if;
    begin
      v_price.effective_from := case
        when governance.preset_text(v_item, 'effective_from', v_path, '1970-01-01') ~ '^\d{4}-\d{2}-\d{2}$'
        then (v_item ->> 'effective_from')::timestamp at time zone 'UTC'
          else coalesce(v_item ->> 'effective_from', '1970-01-01T00:00:00Z')::timestamptz end;
    exception when data_exception then
      perform governance.invalid_preset(v_path || '.effective_from', 'a date or a moment is needed');
    end;
    if v_price.effective_from is null then v_price.effective_from := '1970-01-01T00:00:00Z'; end if;
    if exists (select from jsonb_array_elements(v_prices) with ordinality x(price, n)
      where n < v_at and x.price ->> 'model' = v_price.model and x.price ->> 'provider' = v_price.provider
        and x.price -> 'effective_from' is not distinct from v_item -> 'effective_from') then
      perform governance.invalid_preset(v_path, 'this model of this provider has a price from that moment already');
    end if;
    select * into v_old_price from governance.prices p
    where p.model = v_price.model and p.provider = v_price.provider and p.effective_from = v_price.effective_from
      and p.retired_at is null;
    if v_old_price.price_id is null
      or row(v_old_price.input_micros_per_million, v_old_price.output_micros_per_million,
        v_old_price.cached_input_micros_per_million, v_old_price.cache_write_micros_per_million,
        v_old_price.reasoning_micros_per_million, v_old_price.currency)
        is distinct from row(v_price.input_micros_per_million, v_price.output_micros_per_million,
          v_price.cached_input_micros_per_million, v_price.cache_write_micros_per_million,
          v_price.reasoning_micros_per_million, v_price.currency) then
      update governance.prices p set retired_at = v_now where p.price_id = v_old_price.price_id;
      insert into governance.prices (provider, model, input_micros_per_million, output_micros_per_million,
        cached_input_micros_per_million,
        cache_write_micros_per_million, reasoning_micros_per_million, currency, effective_from, created_at)
      values (v_price.provider, v_price.model, v_price.input_micros_per_million, v_price.output_micros_per_million,
        v_price.cached_input_micros_per_million,
        v_price.cache_write_micros_per_million, v_price.reasoning_micros_per_million, v_price.currency,
          v_price.effective_from, v_now);
      v_count := v_count + 1;
    end if;
  end loop;
  v_changed := v_changed || jsonb_build_object('prices', v_count);
  update governance.prices p set retired_at = v_now
  where p.retired_at is null and not exists (select from jsonb_array_elements(v_prices) x
    where x ->> 'model' = p.model and x ->> 'provider' = p.provider
      and p.effective_from = case
        when x ->> 'effective_from' ~ '^\d{4}-\d{2}-\d{2}$' then (x ->> 'effective_from')::timestamp at time zone 'UTC'
        else coalesce(x ->> 'effective_from', '1970-01-01T00:00:00Z')::timestamptz end);
  get diagnostics v_count = row_count;
  v_changed := v_changed || jsonb_build_object('prices_retired', v_count);

  v_at := 0; v_count := 0;
  for v_item in select * from jsonb_array_elements(v_estimates) loop
    v_path := format('estimates[%s]', v_at); v_at := v_at + 1;
    insert into governance.estimates as e (task_type, tokens)
      values (v_item ->> 'task_type',
      governance.preset_whole(v_item, 'tokens', v_path, 1, 9007199254740991, null, true))
    on conflict (task_type) do update set tokens = excluded.tokens, updated_at = v_now
      where e.tokens <> excluded.tokens;
    if found then v_count := v_count + 1; end if;
  end loop;
  v_changed := v_changed || jsonb_build_object('estimates', v_count);
  delete from governance.estimates e
    where not exists (select from jsonb_array_elements(v_estimates) x where x ->> 'task_type' = e.task_type);
  get diagnostics v_count = row_count;
  v_changed := v_changed || jsonb_build_object('estimates_retired', v_count);

  v_at := 0; v_count := 0;
  for v_item in select * from jsonb_array_elements(v_alerts) loop
    v_path := format('alerts[%s]', v_at); v_at := v_at + 1;
    v_alert := null;
    v_alert.alert_name := v_item ->> 'alert_name';
    v_alert.metric := governance.preset_text(v_item, 'metric', v_path, null, 64);
    v_alert.scope := governance.preset_text(v_item, 'scope', v_path, 'all');
    v_alert.period := governance.preset_text(v_item, 'period', v_path, 'month', 32);
    v_alert.budget := governance.preset_whole(v_item, 'budget', v_path, 1, 9007199254740991);
    v_list := coalesce(nullif(v_item -> 'thresholds', 'null'), '[]');
    if jsonb_typeof(v_list) <> 'array' or jsonb_array_length(v_list) not between 1 and 20
      or exists (select from jsonb_array_elements(v_list) w
        where jsonb_typeof(w) <> 'number' or abs((w #>> '{}')::numeric) > 9007199254740991) then
      perform governance.invalid_preset(v_path || '.thresholds', 'a list of 1 to 20 numbers is needed');
    end if;
    v_alert.thresholds := (select array_agg(distinct (w #>> '{}')::numeric order by (w #>> '{}')::numeric)
      from jsonb_array_elements(v_list) w);
    v_list := coalesce(nullif(v_item -> 'channels', 'null'), '[]');
    if jsonb_typeof(v_list) <> 'array'
      or exists (select from jsonb_array_elements(v_list) w where jsonb_typeof(w) <> 'string') then
      perform governance.invalid_preset(v_path || '.channels', 'a list of texts is needed');
    end if;
    v_alert.channels := coalesce((select array_agg(w) from jsonb_array_elements_text(v_list) w), '{}');
    select * into v_old_alert from governance.cost_alerts a where a.alert_name = v_alert.alert_name;
    if v_old_alert.alert_id is null or v_old_alert.retired_at is not null
      or row(v_old_alert.metric, v_old_alert.scope, v_old_alert.period, v_old_alert.budget, v_old_alert.thresholds,
        v_old_alert.channels)
        is distinct from row(v_alert.metric, v_alert.scope, v_alert.period, v_alert.budget, v_alert.thresholds,
          v_alert.channels)
        then
      insert into governance.cost_alerts (alert_name, metric, scope, period, budget, thresholds, channels)
      values (v_alert.alert_name, v_alert.metric, v_alert.scope, v_alert.period, v_alert.budget, v_alert.thresholds,
        v_alert.channels)
      on conflict (alert_name) do update set metric = excluded.metric, scope = excluded.scope, period = excluded.period,
        budget = excluded.budget,
        thresholds = excluded.thresholds, channels = excluded.channels, is_active = true, updated_at = v_now,
          retired_at = null;
      v_count := v_count + 1;
    end if;
  end loop;
  v_changed := v_changed || jsonb_build_object('alerts', v_count);
  update governance.cost_alerts a set retired_at = v_now, is_active = false
  where a.retired_at is null
    and not exists (select from jsonb_array_elements(v_alerts) x where x ->> 'alert_name' = a.alert_name);
  get diagnostics v_count = row_count;
  v_changed := v_changed || jsonb_build_object('alerts_retired', v_count);

  v_count := 0;
  for v_item in select jsonb_build_object('key', s.key, 'value', s.value) from jsonb_each(v_settings) s loop
    insert into governance.settings as s (key, value) values (v_item ->> 'key', v_item -> 'value')
    on conflict (key) do update set value = excluded.value, updated_at = v_now where s.value <> excluded.value;
    if found then
      v_count := v_count + 1;
      v_recompile := v_recompile or v_item ->> 'key' in ('topics', 'complexity_words');
    end if;
  end loop;
  v_changed := v_changed || jsonb_build_object('settings', v_count);
  v_recompile := v_recompile
    or exists (select from governance.settings s
    where not v_settings ? s.key and s.key in ('topics', 'complexity_words'));
  delete from governance.settings s where not v_settings ? s.key;
  get diagnostics v_count = row_count;
  v_changed := v_changed || jsonb_build_object('settings_retired', v_count);

  v_at := 0; v_count := 0;
  for v_item in select * from jsonb_array_elements(v_rules) loop
    v_rule := governance.check_rule(v_item);
    select * into v_old_rule from governance.rules r where r.rule_name = v_rule ->> 'rule_name';
    if v_old_rule.rule_name is null or v_old_rule.retired_at is not null
      or (governance.rule_json(v_old_rule) - 'version' - 'updated_at' - 'updated_by') <> v_rule then
      perform governance.store_rule(v_rule, 'preset ' || v_name, v_now);
      v_count := v_count + 1;
    end if;
  end loop;
  v_changed := v_changed || jsonb_build_object('rules', v_count);
  v_recompile := v_recompile or v_count > 0;
  update governance.rules r set retired_at = v_now
  where r.retired_at is null
    and not exists (select from jsonb_array_elements(v_rules) x where x ->> 'rule_name' = r.rule_name);
  get diagnostics v_count = row_count;
  v_changed := v_changed || jsonb_build_object('rules_retired', v_count);
  v_recompile := v_recompile or v_count > 0;

  select * into strict v_old_config from governance.active_config c;
  update governance.active_config c set
    preset_name = v_name, currency = v_currency, default_plan = v_default_plan,
    hold_minutes = governance.preset_whole(v_settings, 'hold_minutes', 'settings', 1, 10080, 15),
    identical_window_minutes = governance.preset_whole(v_settings, 'identical_window_minutes', 'settings', 1, 10080,
      60),
    reply_tokens = governance.preset_whole(v_settings, 'reply_tokens', 'settings', 0, 1000000000, 500),
    default_estimate = governance.preset_whole(v_settings, 'default_estimate', 'settings', 1, 1000000000, 300),
    settle_ceiling_tokens = governance.preset_whole(v_settings, 'settle_ceiling_tokens', 'settings', 1,
      9007199254740991, 10000000),
    low_balance_tokens = governance.preset_whole(v_settings, 'low_balance_tokens', 'settings', 0, 9007199254740991,
      1000),
    high_usage_tokens = governance.preset_whole(v_settings, 'high_usage_tokens', 'settings', 0, 9007199254740991, 5000),
    decision_retention_days = governance.preset_whole(v_settings, 'decision_retention_days', 'settings', 32, 36500, 90),
    signal_interval_ms = governance.preset_whole(v_settings, 'signal_interval_ms', 'settings', 50, 60000, 250),
    updated_at = clock_timestamp()
  returning * into v_config;
  if v_recompile then
    perform governance.compile_rules();
  end if;
  v_changed := v_changed || jsonb_build_object('configuration',
    case when row(v_config.preset_name, v_config.currency, v_config.default_plan)
      is distinct from row(v_old_config.preset_name, v_old_config.currency, v_old_config.default_plan)
        then 1 else 0 end);
  if exists (select from jsonb_each(v_changed) x where x.value <> '0') then
    insert into governance.audit_log (created_at, action, details)
      values (v_now, 'apply_preset', jsonb_build_object('preset', p_preset, 'changed', v_changed));
    perform governance.ring('rules', v_now);
  end if;
  return jsonb_build_object('name', v_name, 'changed', v_changed, 'rule_set_id',
    (select c.rule_set_id from governance.active_config c));
end
$$;
comment on function public.apply_preset(jsonb) is
  'Makes a preset the whole configuration: adds and changes what it names, retires what it does not. Answers how many '
  'of each were changed; a second time nothing is. Errors: invalid_argument, invalid_preset, invalid_rule (path in '
  'details).';
revoke all on function public.apply_preset(jsonb) from public, anon, authenticated;
grant execute on function public.apply_preset(jsonb) to service_role;

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

insert into governance.active_config default values;
