-- One user's page: balance, lots, debt and its causes, payments; everything that happened on one line of time; and the
-- ledger, with where each entry came from.

create function governance.debt_causes(p_account_id bigint) returns jsonb
  language sql stable set search_path = '' as $$
  with entries as (
    select t.transaction_id, t.created_at, t.transaction_type, t.reference, t.description, t.debt_after,
      t.debt_after - lag(t.debt_after) over (order by t.transaction_id) as change
    from (select * from governance.token_transactions x where x.account_id = p_account_id
      order by x.transaction_id desc limit 5000) t
  ), since as (
    select e.*, coalesce(e.change, e.debt_after) as owed from entries e
    where e.transaction_id > coalesce((select max(z.transaction_id) from entries z where z.debt_after = 0), 0)
  ), causes as (
    -- Debt paid since then is taken off the oldest cause first.
    select s.*, least(s.owed, greatest(sum(s.owed) over (order by s.transaction_id)
      - (select coalesce(-sum(p.owed), 0) from since p where p.owed < 0), 0)) as open
    from since s where s.owed > 0)
  select coalesce(jsonb_agg(jsonb_build_object('transaction_id', c.transaction_id, 'at', c.created_at, 'cause',
    coalesce(r.record_type, c.transaction_type), 'tokens', c.open, 'reference', c.reference, 'description',
    c.description, 'charge_id', s.charge_id, 'dispute_id', r.dispute_id, 'refund_id', r.refund_id)
    order by c.transaction_id desc), '[]')
  from (select * from causes x where x.open > 0 order by x.transaction_id desc limit 20) c
  left join governance.purchase_records r using (transaction_id)
  left join governance.stripe_payments s on s.payment_id = governance.payment_of(r)
$$;
comment on function governance.debt_causes(bigint) is
  'The debt of an account by cause, newest first: the ledger entry that it arose from, how many tokens of it are still '
  'owed, and the refund or dispute where one took back what was spent. cause is usage where a call used more than was '
  'there.';

create function governance.payments_json(p_account_id bigint) returns jsonb
  language sql stable set search_path = '' as $$
  select coalesce(jsonb_agg(governance.payment_json(p)
    order by coalesce(p.paid_at, p.created_at) desc, p.payment_id desc), '[]')
  from (select * from governance.stripe_payments x where x.account_id = p_account_id
    order by x.payment_id desc limit 50) p
$$;
comment on function governance.payments_json(bigint) is
  'The newest 50 payments of an account: what was paid and refunded (minor units), its names at Stripe, the lots it '
  'bought with what was taken back, and its disputes.';

create function public.console_get_account(p_user_id text) returns jsonb
  language plpgsql security definer set search_path = '' set jit = off as $$
declare
  v_account governance.accounts;
  v_plan governance.plans;
begin
  perform governance.refuse_others('console_get_account');
  perform governance.check_id('p_user_id', p_user_id);
  v_account := governance.current_account(p_user_id);
  select * into strict v_plan from governance.plans p where p.plan_id = v_account.plan_id;
  return jsonb_build_object(
    'account', governance.account_json(v_account) - '{balance,limits,plan_name,fail_mode,allows_top_up}'::text[],
    'plan', jsonb_build_object('plan_id', v_plan.plan_id, 'name', v_plan.name, 'monthly_allowance',
      v_plan.monthly_allowance,
      'daily_limit', v_plan.daily_limit, 'monthly_limit', v_plan.monthly_limit, 'allows_top_up', v_plan.allows_top_up,
      'fail_mode', v_plan.fail_mode, 'on_cancel', v_plan.on_cancel, 'warn_at', v_plan.warn_at, 'upgrade_to',
        v_plan.upgrade_to),
    'balance', governance.account_json(v_account) -> 'balance',
    'limits', governance.account_json(v_account) -> 'limits',
    'preferences', governance.preferences_json(v_account) - 'email' - 'languages',
    -- One person may have two accounts: a ticket may be about the other.
    'same_email', (select coalesce(jsonb_agg(jsonb_build_object('user_id', x.user_id, 'display_name', x.display_name,
        'plan_id', x.plan_id, 'last_activity', x.last_activity_at)), '[]')
      from (select o.* from governance.accounts o where lower(o.email) = lower(v_account.email)
        and o.account_id <> v_account.account_id order by o.last_activity_at desc nulls last limit 5) x),
    'messages_today', v_account.day_messages,
    'cost_today_micros', v_account.day_cost_micros,
    'cost_this_month_micros', v_account.month_cost_micros,
    'currency', (select c.currency from governance.active_config c),
    'last_activity', v_account.last_activity_at,
    'low_balance_tokens', (select c.low_balance_tokens from governance.active_config c),
    'debt_causes', case when v_account.debt_tokens > 0 then governance.debt_causes(v_account.account_id) else '[]' end,
    'payments', governance.payments_json(v_account.account_id),
    'waiting', (select coalesce(jsonb_agg(jsonb_build_object('request_id', r.request_id, 'decision_id', r.decision_id,
        'model', r.settled_model, 'input_tokens', r.input_tokens, 'output_tokens', r.output_tokens, 'created_at',
        r.created_at) order by r.created_at desc), '[]')
      from governance.hold_events h
      join governance.requests r on r.decision_id = h.decision_id and r.status = 'quarantined'
      where h.kind = 'quarantined' and h.account_id = v_account.account_id),
    'lots', (
      select coalesce(jsonb_agg(jsonb_build_object('lot_id', l.lot_id, 'kind', l.kind, 'granted', l.granted,
        'remaining', l.remaining,
        'frozen', l.frozen, 'spent', l.spent, 'expired', l.expired, 'clawed_back', l.clawed_back, 'expires_at',
          l.expires_at,
        'created_at', l.created_at, 'description', l.description, 'pack_id', l.pack_id, 'charge_id', l.stripe_charge_id)
        order by l.is_open desc, l.expires_at nulls last, case l.kind when 'subscription' then 0
          when 'promotional' then 1 else 2 end, l.created_at, l.lot_id), '[]')
      from ((select * from governance.lots o where o.account_id = v_account.account_id and o.is_open limit 200)
        union all
        -- Used-up ones, the newest few.
        (select * from governance.lots u where u.account_id = v_account.account_id and not u.is_open
          order by u.lot_id desc limit 20)) l),
    'holds', case when v_account.holds_from is null then '[]' else (
      select coalesce(jsonb_agg(jsonb_build_object('request_id', r.request_id, 'decision_id', r.decision_id, 'model',
        r.model, 'status', r.status,
        'reserved_tokens', r.reserved_tokens, 'created_at', r.created_at, 'expires_at', r.expires_at)
          order by r.created_at desc), '[]')
      from (select * from governance.requests q where q.account_id = v_account.account_id and q.status = 'held'
        and q.created_at >= v_account.holds_from order by q.created_at desc limit 200) r) end,
    'audit', (
      select coalesce(jsonb_agg(jsonb_build_object('audit_id', g.audit_id, 'at', g.created_at, 'operator', g.operator,
        'action', g.action,
        'user_id', p_user_id, 'reason', g.reason, 'command_id', g.command_id, 'details', g.details)
          order by g.audit_id desc), '[]')
      from (select * from governance.audit_log x where x.account_id = v_account.account_id order by x.audit_id desc
        limit 50) g));
end
$$;
comment on function public.console_get_account(text) is
  'Everything the user''s page shows: account, others of the same e-mail, plan, balance, limits, debt by cause, '
  'payments, lots (open ones, and '
  'the newest used-up), open holds, settlements that wait for a person, the last 50 audit entries. Errors: '
  'invalid_argument, unknown_user.';
revoke all on function public.console_get_account(text) from public, anon, authenticated;
grant execute on function public.console_get_account(text) to service_role;

create function governance.history_kinds() returns text[]
  language sql immutable set search_path = '' as $$
  select '{stopped,purchase,refund,dispute,grant,act,alert,message}'::text[]
$$;
comment on function governance.history_kinds() is
  'Kinds of items in an account''s history. Of items of the same moment, the kind that is later in this list counts as '
  'newer.';

-- One source each, newest first, at most p_limit, older than a moment and, within it, than a number.
create function governance.history_calls(p_account_id bigint, p_at timestamptz, p_n bigint, p_limit int)
  returns table (at timestamptz, n bigint, item jsonb)
  language sql stable set search_path = '' as $$
  select r.created_at, r.decision_id, jsonb_build_object('decision_id', r.decision_id, 'reason', r.reason, 'message',
    r.message, 'model', r.requested_model, 'request_id', r.request_id, 'rule_name',
    (select v.rule_name from governance.rule_versions v where v.version_id = r.rule_version_id))
  from governance.requests r
  where r.account_id = p_account_id and r.decision = 'block' and (r.created_at, r.decision_id) < (p_at, p_n)
  order by r.created_at desc, r.decision_id desc limit p_limit
$$;
comment on function governance.history_calls(bigint, timestamptz, bigint, int) is 'Calls of an account that were '
  'stopped, as far back as calls are kept.';

create function governance.history_money(p_account_id bigint)
  returns table (kind text, at timestamptz, n bigint, item jsonb)
  language sql stable set search_path = '' as $$
  with payments as materialized (
    select p.*, jsonb_build_object('payment_id', p.payment_id, 'currency', p.currency, 'charge_id', p.charge_id,
      'payment_intent_id', p.payment_intent_id, 'invoice_id', p.invoice_id, 'livemode', p.livemode) as names
    from governance.stripe_payments p where p.account_id = p_account_id
  )
  select 'purchase', coalesce(p.paid_at, p.created_at), p.payment_id, p.names || jsonb_build_object('amount_minor',
    p.amount_minor, 'tokens', (select sum(s.tokens) from governance.stripe_lots s where s.payment_id = p.payment_id),
    'pack_id', (select max(l.pack_id) from governance.stripe_lots s join governance.lots l using (lot_id)
      where s.payment_id = p.payment_id))
  from payments p
  union all
  select 'refund', r.reported_at, ('x' || left(md5(r.refund_id), 14))::bit(56)::bigint,
    p.names || jsonb_build_object('refund_id', r.refund_id, 'amount_minor', r.amount_minor,
      'state', case r.state when 1 then 'pending' when 2 then 'succeeded' else 'failed' end)
  from payments p join governance.stripe_refunds r using (payment_id)
  union all
  -- A charge may report what was refunded without naming the refunds.
  select 'refund', p.refunded_at, p.payment_id, p.names || jsonb_build_object('refund_id', null, 'amount_minor',
    p.refunded_minor, 'state', 'succeeded')
  from payments p
  where p.refunded_minor > 0 and p.refunded_at is not null
    and not exists (select from governance.stripe_refunds r where r.payment_id = p.payment_id)
  union all
  select 'dispute', d.reported_at, ('x' || left(md5(d.dispute_id), 14))::bit(56)::bigint,
    p.names || jsonb_build_object('dispute_id', d.dispute_id, 'amount_minor', d.amount_minor,
      'currency', coalesce(d.currency, p.currency), 'status', d.status, 'is_lost', d.is_lost)
  from payments p join governance.stripe_disputes d using (payment_id)
$$;
comment on function governance.history_money(bigint) is 'Payments, refunds and disputes of an account.';

create function governance.history_grants(p_account_id bigint, p_at timestamptz, p_n bigint, p_limit int)
  returns table (at timestamptz, n bigint, item jsonb)
  language sql stable set search_path = '' as $$
  select t.created_at, t.transaction_id, jsonb_build_object('transaction_id', t.transaction_id, 'transaction_type',
    t.transaction_type, 'amount', t.amount, 'new_balance', t.new_balance, 'debt', t.debt_after, 'description',
    t.description)
  from governance.token_transactions t
  where t.account_id = p_account_id and t.transaction_type <> 'usage'
    and (t.created_at, t.transaction_id) < (p_at, p_n)
    -- A payment's own grant is part of the payment's line.
    and not exists (select from governance.purchase_records r where r.transaction_id = t.transaction_id
      and r.record_type = 'grant')
  order by t.created_at desc, t.transaction_id desc limit p_limit
$$;
comment on function governance.history_grants(bigint, timestamptz, bigint, int) is
  'Entries of an account''s ledger that are neither usage nor the grant of a payment.';

create function governance.history_acts(p_account_id bigint)
  returns table (kind text, at timestamptz, n bigint, item jsonb)
  language sql stable set search_path = '' as $$
  select 'act', g.created_at, g.audit_id, jsonb_build_object('audit_id', g.audit_id, 'operator', g.operator, 'action',
    g.action, 'rule_name', g.rule_name, 'reason', g.reason)
  from governance.audit_log g where g.account_id = p_account_id
  union all
  select 'alert', e.created_at, e.alert_event_id, jsonb_build_object('alert_event_id', e.alert_event_id, 'alert_kind',
    e.kind, 'alert_name', k.alert_name, 'severity', e.severity, 'message', e.message, 'threshold', e.threshold,
    'value', e.value, 'period', e.period_key, 'details', e.details, 'acknowledged_by', e.acknowledged_by)
  from governance.alert_events e left join governance.cost_alerts k using (alert_id) where e.account_id = p_account_id
  union all
  select 'message', coalesce(m.sent_at, m.created_at), m.notification_id, jsonb_build_object('notification_id',
    m.notification_id, 'channel', m.channel, 'recipient', m.recipient, 'subject', m.subject, 'status', m.status)
  from governance.notifications m where m.account_id = p_account_id and m.audience = 'user'
$$;
comment on function governance.history_acts(bigint) is
  'Acts of operators and rules on an account, alerts about it, and messages sent to its user.';

create function public.console_account_history(p_user_id text, p_filter jsonb default '{}',
  p_cursor text default null, p_limit int default 50) returns jsonb
  language plpgsql stable security definer set search_path = '' set jit = off
    set plan_cache_mode = 'force_custom_plan' as $$
declare
  c_kinds constant text[] := governance.history_kinds();
  v_kinds text[] := c_kinds;
  v_account_id bigint;
  v_at timestamptz := 'infinity';
  v_rank int := 0;
  v_n bigint := 0;
  v_parts text[];
begin
  perform governance.refuse_others('console_account_history');
  perform governance.check_id('p_user_id', p_user_id);
  perform governance.check_limit(p_limit, 200);
  if p_filter is null or jsonb_typeof(p_filter) <> 'object' or p_filter - 'kinds' <> '{}'
    or jsonb_typeof(coalesce(p_filter -> 'kinds', 'null')) not in ('array', 'null') then
    perform governance.fail('PT400', 'invalid_argument', 'p_filter is an object; kinds in it is a list');
  end if;
  if jsonb_typeof(p_filter -> 'kinds') = 'array' then
    v_kinds := array(select * from jsonb_array_elements_text(p_filter -> 'kinds') limit 100);
    if not v_kinds <@ c_kinds then
      perform governance.fail('PT400', 'invalid_argument',
        'p_filter.kinds takes only ' || array_to_string(c_kinds, ', '));
    end if;
  end if;
  if p_cursor is not null then
    -- Microseconds, place of the kind, number: what was shown last.
    v_parts := regexp_match(p_cursor, '^(-?\d{1,17})\.(\d)\.(\d{1,18})$');
    if v_parts is null then
      perform governance.fail('PT400', 'invalid_argument',
        'p_cursor must come from an earlier answer of this function');
    end if;
    v_at := 'epoch'::timestamptz + v_parts[1]::bigint * interval '1 microsecond';
    v_rank := v_parts[2]::int;
    v_n := v_parts[3]::bigint;
  end if;
  v_account_id := governance.account_id_of(p_user_id);
  return (
    with found as (
      select 'stopped' as kind, x.* from governance.history_calls(v_account_id, v_at,
        case when v_rank > 1 then 9223372036854775807 when v_rank = 1 then v_n else 0 end, p_limit + 1) x
      where 'stopped' = any (v_kinds)
      union all
      select 'grant', x.* from governance.history_grants(v_account_id, v_at,
        case when v_rank > 5 then 9223372036854775807 when v_rank = 5 then v_n else 0 end, p_limit + 1) x
      where 'grant' = any (v_kinds)
      union all
      select x.* from governance.history_money(v_account_id) x
      where x.kind = any (v_kinds) and v_kinds && '{purchase,refund,dispute}'
        and (x.at, array_position(c_kinds, x.kind), x.n) < (v_at, v_rank, v_n)
      union all
      select x.* from governance.history_acts(v_account_id) x
      where x.kind = any (v_kinds) and v_kinds && '{act,alert,message}'
        and (x.at, array_position(c_kinds, x.kind), x.n) < (v_at, v_rank, v_n)
    ), page as (
      select f.*, array_position(c_kinds, f.kind) as rank,
        row_number() over (order by f.at desc, array_position(c_kinds, f.kind) desc, f.n desc) as place
      from found f order by place limit p_limit + 1
    )
    select jsonb_build_object(
      'items', coalesce(jsonb_agg(jsonb_build_object('kind', p.kind, 'at', p.at, 'key', p.kind || ' ' || p.n || ' '
        || coalesce(p.item ->> 'refund_id', p.item ->> 'dispute_id', '')) || p.item order by p.place)
        filter (where p.place <= p_limit), '[]'),
      'next_cursor', case when count(*) > p_limit then (
        select (extract(epoch from l.at) * 1000000)::bigint || '.' || l.rank || '.' || l.n
        from page l where l.place = p_limit) end)
    from page p);
end
$$;
comment on function public.console_account_history(text, jsonb, text, int) is
  'The history of an account, newest first: calls stopped, purchases, refunds, disputes, grants (whatever else moved '
  'tokens without a call), acts of operators and rules, alerts, messages to the user. p_filter.kinds: only these. '
  'next_cursor is null on the last page. Errors: invalid_argument, unknown_user.';
revoke all on function public.console_account_history(text, jsonb, text, int) from public, anon, authenticated;
grant execute on function public.console_account_history(text, jsonb, text, int) to service_role;

create function governance.entry_origin(t governance.token_transactions) returns jsonb
  language sql stable set search_path = '' as $$
  select case
    when t.transaction_type = 'usage' then jsonb_build_object('kind', 'call', 'id', t.reference, 'decision_id',
      t.decision_id)
    else coalesce(
      (select jsonb_build_object('kind', case when r.dispute_id is not null then 'dispute'
          when r.refund_id is not null then 'refund' else 'payment' end,
        'id', coalesce(r.dispute_id, r.refund_id, p.charge_id, p.payment_intent_id, p.invoice_id),
        'payment_id', p.payment_id, 'charge_id', p.charge_id, 'payment_intent_id', p.payment_intent_id, 'invoice_id',
        p.invoice_id, 'livemode', p.livemode)
      from governance.purchase_records r join governance.stripe_payments p on p.payment_id = governance.payment_of(r)
      where r.transaction_id = t.transaction_id),
      (select jsonb_build_object('kind', 'act', 'id', x.act_id, 'operator', x.operator, 'act_kind', x.kind)
      from governance.account_acts x where x.command_id = t.metadata ->> 'command_id' and x.account_id = t.account_id),
      jsonb_build_object('kind', case
        when t.transaction_type = 'subscription_grant' and t.reference like 'allowance %' then 'allowance'
        when t.transaction_type = 'expiry' then 'expiry'
        when t.transaction_type = 'debt_recovery' then 'debt'
        else 'backend' end, 'id', t.reference)) end
$$;
comment on function governance.entry_origin(governance.token_transactions) is
  'The origin of an entry of the ledger: call, payment, refund, dispute, an operator''s act, allowance, expiry, debt '
  'that was paid, or the product''s backend.';

create function public.console_account_ledger(p_user_id text, p_filter jsonb default '{}',
  p_before_id bigint default null, p_limit int default 50) returns jsonb
  language plpgsql stable security definer set search_path = '' set jit = off
    set plan_cache_mode = 'force_custom_plan' as $$
declare
  -- So many entries are looked at for one page; where more are to be looked at, the page answers where to go on.
  c_looked constant int := 20000;
  v_account_id bigint;
  v_unknown text;
  v_text text;
  v_from timestamptz;
  v_to timestamptz;
begin
  perform governance.refuse_others('console_account_ledger');
  perform governance.check_id('p_user_id', p_user_id);
  perform governance.check_limit(p_limit, 500);
  if p_filter is null or jsonb_typeof(p_filter) <> 'object' then
    perform governance.fail('PT400', 'invalid_argument', 'p_filter is an object: type, text, from, to');
  end if;
  select k into v_unknown from jsonb_object_keys(p_filter) k where k <> all ('{type,text,from,to}') limit 1;
  if v_unknown is not null then
    perform governance.fail('PT400', 'invalid_argument',
      format('p_filter has no key "%s"; it takes type, text, from and to', left(v_unknown, 64)));
  end if;
  perform governance.check_optional('p_filter.text', p_filter ->> 'text', 200);
  v_text := lower(nullif(btrim(p_filter ->> 'text'), ''));
  begin
    v_from := coalesce((p_filter ->> 'from')::timestamptz, '-infinity');
    v_to := coalesce((p_filter ->> 'to')::timestamptz, 'infinity');
  exception when data_exception then
    perform governance.fail('PT400', 'invalid_argument', 'p_filter.from and to are moments');
  end;
  v_account_id := governance.account_id_of(p_user_id);
  return (
    with looked as materialized (
      select t from governance.token_transactions t
      where t.account_id = v_account_id and t.transaction_id < coalesce(p_before_id, 9223372036854775807)
      order by t.transaction_id desc limit c_looked
    ), page as (
      select l.t, row_number() over (order by (l.t).transaction_id desc) as place from looked l
      where ((p_filter ->> 'type') is null or (l.t).transaction_type = p_filter ->> 'type')
        and (l.t).created_at >= v_from and (l.t).created_at < v_to
        and (v_text is null or strpos(lower(concat_ws(E'\n', (l.t).transaction_id, (l.t).reference, (l.t).description,
          (l.t).decision_id, ((l.t).metadata - 'lot_seal')::text)), v_text) > 0)
      order by (l.t).transaction_id desc limit p_limit + 1
    )
    select jsonb_build_object(
      'entries', coalesce(jsonb_agg(jsonb_build_object('transaction_id', (p.t).transaction_id, 'transaction_type',
        (p.t).transaction_type, 'amount', (p.t).amount, 'previous_balance', (p.t).previous_balance, 'new_balance',
        (p.t).new_balance, 'debt_after', (p.t).debt_after, 'description', (p.t).description, 'metadata',
        coalesce((p.t).metadata, '{}'), 'created_at', (p.t).created_at, 'origin', governance.entry_origin(p.t),
        'lots', (select coalesce(jsonb_agg(jsonb_build_object('lot_id', (p.t).lot_changes[i], 'tokens',
            (p.t).lot_changes[i + 1], 'kind', l.kind) order by i), '[]')
          from generate_series(1, cardinality((p.t).lot_changes), 2) i
          left join governance.lots l on l.lot_id = (p.t).lot_changes[i])) order by p.place)
        filter (where p.place <= p_limit), '[]'),
      'next_before_id', case
        when count(*) > p_limit then max((p.t).transaction_id) filter (where p.place = p_limit)
        when (select count(*) from looked) = c_looked then (select min((l.t).transaction_id) from looked l) end)
    from page p);
end
$$;
comment on function public.console_account_ledger(text, jsonb, bigint, int) is
  'Entries of an account''s ledger, newest first, each with its origin and the lots it moved. p_filter may name type, '
  'text (part of an id, reference, description or metadata), from and to. next_before_id is null when all was looked '
  'at; a page may be short of entries before that. Errors: invalid_argument, unknown_user.';
revoke all on function public.console_account_ledger(text, jsonb, bigint, int) from public, anon, authenticated;
grant execute on function public.console_account_ledger(text, jsonb, bigint, int) to service_role;
