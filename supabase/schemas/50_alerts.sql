-- Alerts: what can be watched, what is watched, and what was raised.

create function governance.alert_kinds()
  returns table (kind text, metric text, unit text, severity text, is_for_operators boolean,
    needs_operator boolean, title text)
  language sql immutable set search_path = '' as $$
  -- A new kind: a line here, one in shared/governance/alerts/kinds.ts, and raise_alert where it is noticed. severity:
  -- as raised, where it does not depend on how much. is_for_operators: raised without a preset asking for them;
  -- operators always get them, users never see them. needs_operator: it is on the operators' list; the others are
  -- each user's own limits, which are in the user's timeline and are counted. What users read of a kind is
  -- 'alert.<kind>' in the catalogue of words. Kinds of limits carry their percent: daily_limit_80.
  values
    ('budget', null, 'percent', null, false, true, 'Budget'),
    ('user_budget', null, 'amount', 'warning', false, true, 'Budget of a user'),
    ('usage_spike', 'spike', 'tokens', 'info', false, true, 'Sudden use'),
    ('low_balance', 'balance', 'tokens', 'warning', false, false, 'Balance is low'),
    ('high_usage', 'operation_tokens', 'tokens', 'warning', false, false, 'High usage'),
    ('negative_balance', 'debt', 'tokens', 'critical', false, false, 'Used beyond the balance'),
    ('daily_limit', null, 'percent', null, false, false, 'Daily limit'),
    ('monthly_limit', null, 'percent', null, false, false, 'Monthly limit'),
    ('allowance', null, 'percent', null, false, false, 'Allowance'),
    ('abuse_burst', null, 'none', 'critical', true, true, 'Burst of stopped calls'),
    ('unknown_price', null, 'none', 'warning', true, true, 'Model without a price'),
    ('unknown_zone', null, 'none', 'warning', true, true, 'Time zone not known'),
    ('settlement_quarantined', null, 'tokens', 'critical', true, true, 'Settlement waits for a decision'),
    ('rollup_mismatch', null, 'none', 'critical', true, true, 'Counters and roll-up differ'),
    ('maintenance_failed', null, 'none', 'critical', true, true, 'Upkeep of one user failed'),
    ('upkeep_failed', null, 'none', null, true, true, 'A step of upkeep failed'),
    ('upkeep_late', null, 'none', 'critical', true, true, 'Upkeep was not run'),
    ('doors_open', null, 'none', 'critical', true, true, 'Rights are open that should not be'),
    ('webhook_quarantined', null, 'none', 'critical', true, true, 'Stripe event waits for a decision'),
    ('event_quarantined', null, 'none', 'critical', true, true, 'Event waits for a decision'),
    ('stripe_dispute', null, 'none', 'warning', true, true, 'Payment disputed')
$$;
comment on function governance.alert_kinds() is 'Every kind of alert there is; the core has the same list '
  '(shared/governance/alerts/kinds.ts), and a test compares them.';

create function governance.alert_metrics()
  returns table (place int, metric text, unit text, scopes text[], periods text[], has_budget boolean)
  language sql immutable set search_path = '' as $$
  -- The first scope and period are the defaults. Periods of budgets are made of the accounts' own days.
  values
    (1, 'cost_micros', 'micro-units of the currency', '{all,user,plan,scope,model}'::text[],
      '{month,day,week,year}'::text[], true),
    (2, 'tokens', 'tokens', '{all,user,plan,scope,model}', '{month,day,week,year}', true),
    (3, 'balance', 'tokens left', '{user}', '{day}', false),
    (4, 'operation_tokens', 'tokens of one call', '{user}', '{day}', false),
    (5, 'debt', 'tokens used beyond the balance', '{user}', '{day}', false),
    (6, 'spike', 'times the usual hour', '{user}', '{hour}', false)
$$;
comment on function governance.alert_metrics() is
  'Metrics that an alert of a preset may watch: the unit of its thresholds, whose usage, and over which period.';

-- Without a search path, so that it is inlined where usage is added up: it uses built-in functions alone.
create function governance.measure(p_metric text, p_tokens numeric, p_cost_micros numeric) returns numeric
  language sql immutable as $$
  select case p_metric when 'tokens' then p_tokens when 'cost_micros' then p_cost_micros end
$$;
comment on function governance.measure(text, numeric, numeric) is
  'The figure of a metric over the days of a period, from added-up usage; null for any other metric.';

create function governance.passed_threshold(p_metric text, p_thresholds numeric[], p_balance_before numeric,
  p_balance_after numeric, p_tokens numeric, p_debt numeric) returns numeric
  language plpgsql immutable set search_path = '' as $$
declare
  v_passed numeric;
  t numeric;
begin
  foreach t in array p_thresholds loop
    case p_metric
      when 'balance' then
        if p_balance_before >= t and p_balance_after < t then v_passed := least(v_passed, t); end if;
      when 'operation_tokens' then
        if p_tokens > t then v_passed := greatest(v_passed, t); end if;
      when 'debt' then
        if p_debt >= t then v_passed := least(v_passed, t); end if;
      else null;
    end case;
  end loop;
  return v_passed;
end
$$;
comment on function governance.passed_threshold(text, numeric[], numeric, numeric, numeric, numeric) is
  'The threshold that was passed, of a metric that settlements notice: of a balance or a debt the lowest, of one call '
  'the highest; null for none, and for any other metric.';

create function governance.alert_kind(p_kind text) returns text
  language sql immutable set search_path = '' as $$
  select regexp_replace(p_kind, '^(daily_limit|monthly_limit|allowance)_\d+$', '\1')
$$;
comment on function governance.alert_kind(text) is 'The kind in governance.alert_kinds: daily_limit of daily_limit_80.';

create function governance.is_alert_kind(p_kind text) returns boolean
  language sql immutable set search_path = '' as $$
  select exists (select from governance.alert_kinds() k where k.kind = governance.alert_kind(p_kind))
$$;
comment on function governance.is_alert_kind(text) is 'The check of alert events.';

create function governance.needs_operator(p_kind text) returns boolean
  language sql immutable set search_path = '' as $$
  select coalesce((select k.needs_operator from governance.alert_kinds() k
    where k.kind = governance.alert_kind(p_kind)), true)
$$;
comment on function governance.needs_operator(text) is 'Whether alerts of a kind are on the operators'' list; the '
  'others are users'' own limits.';

create function governance.alert_scope(p_scope text, out kind text, out id text)
  language sql immutable set search_path = '' as $$
  select split_part(p_scope, ':', 1), nullif(substr(p_scope, length(split_part(p_scope, ':', 1)) + 2), '')
$$;
comment on function governance.alert_scope(text) is
  'Whose usage an alert watches: all, user, or the plan, scope or model with this id.';

create table governance.cost_alerts (
  alert_id bigint generated always as identity primary key,
  alert_name text not null unique,
  -- Metric, scope and period are of governance.alert_metrics.
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

comment on table governance.cost_alerts is 'Alerts of the preset: what to watch, and the thresholds to raise at.';

create table governance.alert_events (
  alert_event_id bigint generated always as identity primary key,
  -- Null for what no alert of the preset asked for (low balance, high usage, limit nearly used).
  alert_id bigint references governance.cost_alerts (alert_id),
  account_id bigint,
  kind text not null constraint alert_events_kind check (governance.is_alert_kind(kind)),
  severity text not null check (severity in ('info', 'warning', 'critical')),
  message text not null,
  threshold numeric,
  value numeric,
  -- The same matter is raised once a period: a day, a month, or whatever else the kind repeats by.
  period_key text not null default '',
  -- Its subject within the period: the limit in force, the subject of a budget, a model, a time zone.
  subject text not null default '',
  details jsonb not null default '{}',
  created_at timestamptz not null default now(),
  acknowledged_at timestamptz,
  acknowledged_by text,
  -- How it was resolved, in the words of the person who did.
  resolution text,
  -- Who sees to it.
  owner text,
  -- Off the list until then.
  snoozed_until timestamptz,
  -- When it was considered for notifications; null until then.
  considered_at timestamptz,
  needs_operator boolean not null generated always as (governance.needs_operator(kind)) stored
);

create unique index alert_events_once on governance.alert_events
  (kind, coalesce(alert_id, 0), coalesce(account_id, 0), coalesce(threshold, 0), period_key, subject)
  where period_key <> '';

create index alert_events_time on governance.alert_events (created_at desc);

-- Users' own limits are very many beside them.
create index alert_events_operators_time on governance.alert_events (created_at desc) where needs_operator;

create index alert_events_account on governance.alert_events (account_id, created_at desc) where account_id is not null;

comment on table governance.alert_events is 'Alerts that were raised.';

create index alert_events_new on governance.alert_events (alert_event_id) where considered_at is null;

create index alert_events_open on governance.alert_events (alert_event_id) include (created_at)
  where acknowledged_at is null;

create index alert_events_operators on governance.alert_events (alert_event_id)
  where acknowledged_at is null and needs_operator;

create function governance.alert_user_sentence(e governance.alert_events, p_language text) returns text
  language sql stable set search_path = '' as $$
  select coalesce(governance.say('alert.' || governance.alert_kind(e.kind), p_language, jsonb_build_object(
    'value', governance.say_amount(e.details ->> 'metric', e.value, e.details ->> 'currency', p_language),
    'threshold', governance.say_count(e.threshold, p_language),
    'usual', governance.say_count(coalesce((e.details ->> 'usual_tokens')::numeric, 0), p_language),
    'period', governance.say_period(e.period_key, p_language))), e.message)
$$;
comment on function governance.alert_user_sentence(governance.alert_events, text) is
  'The sentence for the user whom an alert is about.';

create function governance.check_alert(p_item jsonb, p_path text, p_plans jsonb, p_currency text)
  returns governance.cost_alerts
  language plpgsql set search_path = '' as $$
declare
  v_alert governance.cost_alerts;
  v_metric record;
  v_scope record;
  v_list jsonb;
begin
  if lower(p_item ->> 'currency') <> p_currency then
    perform governance.invalid_preset(p_path || '.currency',
      format('budgets are in the preset''s currency, %s', p_currency));
  end if;
  v_alert.alert_name := p_item ->> 'alert_name';
  v_alert.metric := governance.preset_text(p_item, 'metric', p_path, null, 64);
  select * into v_metric from governance.alert_metrics() m where m.metric = v_alert.metric;
  if not found then
    perform governance.invalid_preset(p_path || '.metric', format('"%s" is no metric: %s are', v_alert.metric,
      (select string_agg(m.metric, ', ' order by m.place) from governance.alert_metrics() m)));
  end if;
  v_alert.scope := governance.preset_text(p_item, 'scope', p_path, v_metric.scopes[1]);
  select * into v_scope from governance.alert_scope(v_alert.scope);
  if not v_scope.kind = any (v_metric.scopes) or v_alert.scope like '%:'
    or (v_scope.id is not null) <> (v_scope.kind in ('plan', 'scope', 'model')) then
    perform governance.invalid_preset(p_path || '.scope', format('"%s" is no scope of %s: %s', v_alert.scope,
      v_alert.metric, (select string_agg(x || case when x in ('plan', 'scope', 'model') then ':<id>' else '' end, ', ')
        || case when cardinality(v_metric.scopes) > 1 then ' are' else ' is' end from unnest(v_metric.scopes) x)));
  end if;
  if v_scope.kind = 'plan' and not exists (
    select from jsonb_array_elements(p_plans) x where x ->> 'plan_id' = v_scope.id) then
    perform governance.invalid_preset(p_path || '.scope', format('there is no plan "%s": %s', v_scope.id,
      (select string_agg(x ->> 'plan_id', ', ') from jsonb_array_elements(p_plans) x)));
  end if;
  v_alert.period := governance.preset_text(p_item, 'period', p_path, v_metric.periods[1], 32);
  if not v_alert.period = any (v_metric.periods) then
    perform governance.invalid_preset(p_path || '.period', format('"%s" is no period of %s: %s', v_alert.period,
      v_alert.metric, array_to_string(v_metric.periods, ', ')
        || case when cardinality(v_metric.periods) > 1 then ' are' else ' is' end));
  end if;
  v_alert.budget := governance.preset_whole(p_item, 'budget', p_path, 1, 9007199254740991);
  if v_alert.budget is not null and not v_metric.has_budget then
    perform governance.invalid_preset(p_path || '.budget',
      format('%s has no budget: its thresholds are %s', v_alert.metric, v_metric.unit));
  end if;
  v_list := coalesce(nullif(p_item -> 'thresholds', 'null'), '[]');
  if jsonb_typeof(v_list) <> 'array' or jsonb_array_length(v_list) not between 1 and 20
    or exists (select from jsonb_array_elements(v_list) w where jsonb_typeof(w) <> 'number'
      or (w #>> '{}')::numeric <= 0 or (w #>> '{}')::numeric > 9007199254740991) then
    perform governance.invalid_preset(p_path || '.thresholds', format('a list of 1 to 20 numbers above 0 is needed: %s',
      case when v_alert.budget is not null then 'percents of the budget' else v_metric.unit end));
  end if;
  v_alert.thresholds := (select array_agg(distinct (w #>> '{}')::numeric order by (w #>> '{}')::numeric)
    from jsonb_array_elements(v_list) w);
  v_list := coalesce(nullif(p_item -> 'channels', 'null'), '[]');
  perform governance.check_channels(v_list, p_path || '.channels');
  v_alert.channels := coalesce((select array_agg(w) from jsonb_array_elements_text(v_list) w), '{}');
  return v_alert;
end
$$;
comment on function governance.check_alert(jsonb, text, jsonb, text) is
  'An alert of a preset, if metric, scope and period are in governance.alert_metrics; else invalid_preset with the '
  'path and what is allowed.';

create function governance.count_open_alerts() returns bigint
  language sql stable set search_path = '' as $$
  select count(*) from (select from governance.alert_events e
    where e.acknowledged_at is null and e.created_at > governance.now() - governance.alert_retention() limit 10000) x
$$;
comment on function governance.count_open_alerts() is 'Alerts that are still shown (24 hours, or the setting '
  'alert_retention_hours) and that nobody has acknowledged.';

create function governance.count_operator_alerts() returns bigint
  language sql stable set search_path = '' as $$
  select count(*) from (select from governance.alert_events e
    where e.acknowledged_at is null and e.needs_operator
      and coalesce(e.snoozed_until <= governance.now(), true) limit 10000) x
$$;
comment on function governance.count_operator_alerts() is 'Alerts that wait for an operator: neither acknowledged nor '
  'snoozed, however old.';

create function governance.alert_retention() returns interval
  language sql stable set search_path = '' as $$
  select coalesce((select case
    when jsonb_typeof(s.value) = 'number' then least(greatest((s.value #>> '{}')::numeric, 1), 8784)::int end
    from governance.settings s where s.key = 'alert_retention_hours'), 24) * interval '1 hour'
$$;
comment on function governance.alert_retention() is 'How long an alert is shown: the setting alert_retention_hours; 24 '
  'by default.';

create function public.my_token_alerts() returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_account governance.accounts := governance.my_account();
  v_language text := governance.user_language(v_account);
begin
  return (
    select coalesce(jsonb_agg(jsonb_build_object('type', e.kind, 'severity', e.severity,
      'message', e.sentence,
      'details', e.details || jsonb_build_object('threshold', e.threshold, case e.kind when 'low_balance' then 'balance'
        else 'value' end, e.value),
      'created_at', e.created_at) order by e.created_at desc, e.alert_event_id desc), '[]')
    from (select x.*, governance.alert_user_sentence(x, v_language) as sentence from governance.alert_events x
      where x.account_id = v_account.account_id and not governance.is_for_operators(x.kind)
        and x.created_at > governance.now() - governance.alert_retention()
      order by x.created_at desc limit 100) e);
end
$$;
comment on function public.my_token_alerts() is
  'Alerts about the signed-in user that are still kept (24 hours, or the setting alert_retention_hours), newest first. '
  'Errors: not_signed_in, not_configured.';
revoke all on function public.my_token_alerts() from public, anon, authenticated;
grant execute on function public.my_token_alerts() to authenticated;

create function governance.raise_alert(
  p_alert_id bigint, p_account_id bigint, p_kind text, p_severity text, p_message text, p_threshold numeric,
  p_value numeric, p_period text, p_details jsonb, p_now timestamptz, p_subject text default ''
) returns int
  language plpgsql set search_path = '' as $$
begin
  insert into governance.alert_events (alert_id, account_id, kind, severity, message, threshold, value, period_key,
    subject, details, created_at)
  values (p_alert_id, p_account_id, p_kind, p_severity, p_message, p_threshold, p_value, p_period, p_subject,
    coalesce(p_details, '{}'), p_now)
  on conflict do nothing;
  if not found then return 0; end if;
  update governance.cost_alerts a set last_triggered_at = p_now where a.alert_id = p_alert_id;
  perform governance.ring('alerts', p_now);
  return 1;
end
$$;
comment on function governance.raise_alert(bigint, bigint, text, text, text, numeric, numeric, text, jsonb,
  timestamptz, text) is
  'Raises an alert, unless it was raised in this period about this subject already; returns how many were raised.';

create function governance.budget_period(p_period text, p_day date, out from_day date, out to_day date, out key text)
  language sql immutable set search_path = '' as $$
  select date_trunc(p_period, p_day::timestamp)::date,
    (date_trunc(p_period, p_day::timestamp) + ('1 ' || p_period)::interval)::date - 1,
    to_char(p_day, case p_period when 'week' then 'IYYY-"W"IW' when 'month' then 'YYYY-MM' when 'year' then 'YYYY'
      else 'YYYY-MM-DD' end)
$$;
comment on function governance.budget_period(text, date) is
  'First day, last day and name of the day, week (from Monday), month or year that holds a day.';

create function governance.open_periods(p_period text, p_since timestamptz, p_now timestamptz)
  returns table (from_day date, to_day date, key text)
  language sql stable set search_path = '' as $$
  select distinct p.from_day, p.to_day, p.key
  from generate_series(greatest(governance.first_open_day(p_since), governance.first_open_day(p_now) - 31)::timestamp,
    governance.last_open_day(p_now)::timestamp, interval '1 day') g(day)
  cross join lateral governance.budget_period(p_period, g.day::date) p
  order by p.from_day
$$;
comment on function governance.open_periods(text, timestamptz, timestamptz) is
  'Budget periods that usage may have been added to since a moment (at most a month back): at a change of month, the '
  'old one until it has ended everywhere, and the new one from its first beginning.';

create function governance.has_budget(p_metric text) returns boolean
  language sql immutable set search_path = '' as $$
  select coalesce((select m.has_budget from governance.alert_metrics() m where m.metric = p_metric), false)
$$;
comment on function governance.has_budget(text) is
  'Whether a metric is measured over the days of a period, with or without a budget; the others are noticed as they '
  'happen.';

create function governance.usage_in_scope(p_scope text, p_from date, p_to date)
  returns table (day date, model text, calls bigint, charged_tokens bigint, cost_micros bigint)
  language sql stable set search_path = '' as $$
  select u.day, u.model, u.calls, u.charged_tokens, u.cost_micros
  from governance.usage_between(p_from, p_to) u cross join governance.alert_scope(p_scope) s
  where case s.kind when 'plan' then u.plan_id = s.id when 'scope' then u.scope_id = s.id
    when 'model' then u.model = s.id else true end
$$;
comment on function governance.usage_in_scope(text, date, date) is
  'Usage of what an alert over many users watches, to be added up. A plan''s is that of the accounts that had it when '
  'the day was closed, as on the costs desk.';

create function governance.alert_value(p_alert governance.cost_alerts, p_from date, p_to date,
  p_account_id bigint default null) returns numeric
  language plpgsql stable set search_path = '' as $$
declare
  v_tokens numeric;
  v_cost_micros numeric;
begin
  if p_account_id is not null then
    select sum(d.charged_tokens), sum(d.cost_micros) into v_tokens, v_cost_micros
    from governance.usage_daily d
    where d.account_id = p_account_id and d.day between p_from and p_to;
  else
    select sum(u.charged_tokens), sum(u.cost_micros) into v_tokens, v_cost_micros
    from governance.usage_in_scope(p_alert.scope, p_from, p_to) u;
  end if;
  return coalesce(governance.measure(p_alert.metric, v_tokens, v_cost_micros), 0);
end
$$;
comment on function governance.alert_value(governance.cost_alerts, date, date, bigint) is
  'The figure of a budget (tokens, or cost in micro-units) on these days: of its scope, or of one account.';

create function governance.raise_unknown_price(p_model text, p_now timestamptz) returns void
  language plpgsql set search_path = '' as $$
declare
  v_month text := to_char(p_now at time zone 'UTC', 'YYYY-MM');
begin
  -- Read first: two inserts of the same key would wait for each other.
  if exists (select from governance.alert_events e
    where e.kind = 'unknown_price' and e.period_key = v_month and e.subject = p_model) then return; end if;
  perform governance.raise_alert(null, null, 'unknown_price', 'warning',
    format('Model %s has no price: its calls cost nothing in every figure. Add its price to the preset',
      left(p_model, 200)), null, null, v_month, jsonb_build_object('model', p_model), p_now, p_model);
end
$$;
comment on function governance.raise_unknown_price(text, timestamptz) is
  'Alerts operators to a model without a price, once a month of UTC.';

create function governance.is_for_operators(p_kind text) returns boolean
  language sql immutable set search_path = '' as $$
  select coalesce((select k.is_for_operators from governance.alert_kinds() k
    where k.kind = governance.alert_kind(p_kind)), true)
$$;
comment on function governance.is_for_operators(text) is
  'Alerts that are raised without a preset asking for them; operators always get them, and the user whom they are '
  'about never sees them.';
