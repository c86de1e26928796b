-- One user's page: balance, lots, debt and its causes, payments.

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
    -- What was paid since goes to the oldest cause first.
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
  'What an account owes, by cause, newest first: the ledger entry that it arose from, how many tokens of it are still '
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
      select coalesce(jsonb_agg(jsonb_build_object('grant_id', l.lot_id, 'kind', l.kind, 'granted', l.granted,
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
