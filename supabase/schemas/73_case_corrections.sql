-- What a case's correction books, and its preview.

create function governance.complete_correction(c jsonb) returns jsonb
  language plpgsql stable set search_path = '' as $$
declare
  v_user_id text := governance.person_of(c);
  v_plan governance.plans;
begin
  if v_user_id is not null then
    c := c || jsonb_build_object('user_id', v_user_id);
  end if;
  if c ->> 'grant_kind' = 'subscription' and governance.stripe_whole(c -> 'tokens') is null
    and v_user_id is not null then
    select p.* into v_plan from governance.accounts a
      left join lateral (select s.plan_id from governance.stripe_subscriptions s
        where s.customer_id = c ->> 'customer_id' and s.plan_id is not null and s.canceled_at is null
        order by s.updated_at desc limit 1) s on true
      join governance.plans p on p.plan_id = coalesce(s.plan_id, a.plan_id)
    where a.user_id = v_user_id;
    if v_plan.monthly_allowance > 0 then
      c := c || jsonb_build_object('tokens', v_plan.monthly_allowance, 'plan_id', v_plan.plan_id, 'words',
        format('Grant the %s tokens of a month of %s, keyed on %s.',
          governance.with_separators(v_plan.monthly_allowance), v_plan.name,
          coalesce(c ->> 'charge_id', c ->> 'invoice_id', 'the payment')));
    end if;
  end if;
  return c;
end
$$;
comment on function governance.complete_correction(jsonb) is
  'A correction with what the project knows and the report could not: who it is about, and the tokens of a '
  'subscription''s month.';

create function governance.grant_period(
  p_now timestamptz, p_pay governance.stripe_payments, p_user_id text, p_plan_id text, p_tokens bigint, p_amount bigint,
  p_currency text, p_cause text, p_difference_id text
) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_account governance.accounts := governance.lock_account(p_user_id);
  v_granted governance.granted;
begin
  update governance.stripe_payments p set account_id = v_account.account_id, amount_minor = p_amount,
    currency = p_currency, paid_at = coalesce(p.paid_at, p_now)
  where p.payment_id = p_pay.payment_id;
  -- The invoiced month is over or under way: its tokens last a month from the day they come.
  v_granted := governance.grant_tokens(v_account.account_id, 'subscription', p_tokens, 'subscription_grant', p_now,
    p_now + interval '1 month', p_cause, 'Subscription ' || coalesce(p_plan_id, v_account.plan_id),
    jsonb_strip_nulls(jsonb_build_object('difference_id', p_difference_id, 'invoice_id', p_pay.invoice_id, 'plan_id',
      p_plan_id, 'amount_minor', p_amount, 'currency', p_currency)),
    jsonb_build_object('stripe_charge_id', p_pay.charge_id, 'stripe_payment_intent_id', p_pay.payment_intent_id,
      'amount_minor', p_amount, 'currency', p_currency));
  insert into governance.stripe_lots (lot_id, payment_id, tokens)
  values (v_granted.lot_id, p_pay.payment_id, p_tokens);
  perform governance.record_purchase(v_granted.transaction_id, 'grant', v_granted.lot_id, p_pay.payment_id, p_tokens, 0,
    p_amount, p_currency, p_difference_id => p_difference_id);
  return jsonb_build_array(governance.effect('grant', p_user_id, p_tokens, v_granted.transaction_id));
end
$$;
comment on function governance.grant_period(timestamptz, governance.stripe_payments, text, text, bigint, bigint, text,
  text, text) is
  'Grants a subscription''s invoiced period that was never granted, as subscription tokens, and ties the lot to its '
  'payment. The caller holds the payment''s locks; the account is locked here.';

create function governance.apply_grant(p_difference_id text, c jsonb, p_now timestamptz) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_tokens bigint := governance.stripe_whole(c -> 'tokens');
  v_amount bigint := governance.stripe_whole(c -> 'amount_minor');
  v_currency text := governance.stripe_currency(c -> 'currency');
  v_user_id text := c ->> 'user_id';
  v_pay governance.stripe_payments;
  v_effects jsonb;
  v_reference text := left('correction ' || p_difference_id, 500);
begin
  v_pay := governance.note_payment(p_now, governance.stripe_id(c -> 'payment_intent_id'),
    governance.stripe_id(c -> 'charge_id'),
    governance.stripe_id(c -> 'checkout_session_id'), governance.stripe_id(c -> 'invoice_id'),
      governance.stripe_id(c -> 'customer_id'));
  if coalesce(v_pay.payment_intent_id, v_pay.charge_id, v_pay.checkout_session_id, v_pay.invoice_id) is null then
    perform governance.fail('PT400', 'invalid_argument', 'The payment has no id of Stripe''s: a grant needs one');
  elsif exists (select from governance.stripe_lots s where s.payment_id = v_pay.payment_id) then
    perform governance.fail('PT409', 'already_granted',
      'The tokens of this payment are granted already: run the reconciliation again');
  end if;
  v_user_id := coalesce(v_user_id, governance.person_of(c));
  if v_user_id is null or not exists (select from governance.accounts a where a.user_id = v_user_id) then
    perform governance.fail('PT404', 'unknown_user',
      'The payment names no known user: propose again with correction.user_id');
  elsif v_tokens is null or v_tokens not between 1 and 100000000 then
    perform governance.fail('PT400', 'invalid_argument', 'correction.tokens is a whole number from 1 to 100,000,000');
  elsif v_amount is null or v_amount < 0 or v_currency is null then
    perform governance.fail('PT400', 'invalid_argument',
      'correction.amount_minor and correction.currency are needed');
  end if;
  if c ->> 'grant_kind' = 'subscription' then
    v_effects := governance.grant_period(p_now, v_pay, v_user_id, c ->> 'plan_id', v_tokens, v_amount, v_currency,
      v_reference, p_difference_id);
  else
    v_effects := governance.grant_pack(p_now, v_pay.payment_id, v_user_id, coalesce(c ->> 'pack_id', 'custom'),
      v_tokens, v_amount, v_currency, p_now, v_reference, p_difference_id);
  end if;
  if governance.stripe_whole(c -> 'refunded_minor') > 0 then
    update governance.stripe_payments p
      set refunded_minor = greatest(p.refunded_minor, governance.stripe_whole(c -> 'refunded_minor')),
      refunded_at = p_now
    where p.payment_id = v_pay.payment_id;
  end if;
  return v_effects || governance.settle_payment(v_pay.payment_id, p_now, v_reference, p_difference_id);
end
$$;
comment on function governance.apply_grant(text, jsonb, timestamptz) is
  'Books the tokens of a payment that was never granted, and what its refunds and disputes take of them.';

create function governance.set_disputes(p_payment governance.stripe_payments, p_action text, c jsonb, p_reference text,
  p_now timestamptz) returns void
  language plpgsql set search_path = '' as $$
begin
  -- Every dispute of the payment takes the state that Stripe reports; one that Stripe never sent is noted now.
  update governance.stripe_disputes d set reported_at = greatest(d.reported_at, p_now), is_reinstated = false,
    stage = case p_action when 'hold' then 2 else 3 end, is_lost = p_action = 'finalise_dispute',
    status = case p_action when 'hold' then 'needs_response' when 'release' then 'won' else 'lost' end,
    amount_minor = coalesce(nullif(governance.stripe_whole(c -> 'disputed_minor'), 0), d.amount_minor)
  where d.payment_id = p_payment.payment_id;
  if not found and p_action <> 'release' then
    insert into governance.stripe_disputes (dispute_id, payment_id, amount_minor, status, stage, is_lost, reported_at)
    values (coalesce(governance.stripe_id(c -> 'dispute_id'), p_reference), p_payment.payment_id,
      coalesce(nullif(governance.stripe_whole(c -> 'disputed_minor'), 0), p_payment.amount_minor),
      case p_action when 'hold' then 'needs_response' else 'lost' end, case p_action when 'hold' then 2
        else 3 end, p_action = 'finalise_dispute', p_now);
  elsif not found then
    insert into governance.stripe_disputes (dispute_id, payment_id, amount_minor, status, stage, reported_at)
    values (coalesce(governance.stripe_id(c -> 'dispute_id'), p_reference), p_payment.payment_id,
      coalesce(p_payment.amount_minor, 0), 'won', 3, p_now);
  end if;
end
$$;
comment on function governance.set_disputes(governance.stripe_payments, text, jsonb, text, timestamptz) is
  'Brings the disputes of a payment to where a correction has them: hold, release or finalise_dispute.';

create function governance.apply_correction(p_difference_id text, c jsonb, p_now timestamptz) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_action text := c ->> 'action';
  v_tokens bigint := governance.stripe_whole(c -> 'tokens');
  v_amount bigint := governance.stripe_whole(c -> 'amount_minor');
  v_currency text := governance.stripe_currency(c -> 'currency');
  v_lot_id bigint := governance.stripe_whole(c -> 'lot_id');
  v_user_id text := c ->> 'user_id';
  v_known governance.stripe_lots;
  v_lot governance.lots;
  v_pay governance.stripe_payments;
  v_taking governance.lot_taking;
  v_entry bigint;
  v_kind text;
  v_effects jsonb := '[]';
  v_reference text := left('correction ' || p_difference_id, 500);
  v_metadata jsonb := jsonb_build_object('difference_id', p_difference_id);
begin
  if v_action = 'grant' then
    return governance.apply_grant(p_difference_id, c, p_now);
  end if;

  select s.* into v_known from governance.stripe_lots s where s.lot_id = v_lot_id;
  if v_known.lot_id is null then
    perform governance.fail('PT404', 'not_found', 'The correction names no lot of a payment');
  end if;
  select * into strict v_pay from governance.stripe_payments p where p.payment_id = v_known.payment_id;
  perform governance.lock_stripe_ids(v_pay.payment_intent_id, v_pay.charge_id, v_pay.checkout_session_id,
    v_pay.invoice_id);
  perform governance.lock_account_id(v_pay.account_id);
  select s.* into strict v_known from governance.stripe_lots s where s.lot_id = v_lot_id;
  select l.* into strict v_lot from governance.lots l where l.lot_id = v_lot_id;
  select a.user_id into strict v_user_id from governance.accounts a where a.account_id = v_pay.account_id;

  if v_action in ('reverse', 'adjust') then
    if v_tokens is null or v_tokens = 0 or abs(v_tokens) > 100000000 then
      perform governance.fail('PT400', 'invalid_argument',
        'correction.tokens is a whole number, not zero, of at most 100,000,000');
    elsif v_tokens < 0 then
      if -v_tokens > v_known.tokens - v_known.reversed - v_known.clawed then
        perform governance.fail('PT409', 'more_than_left',
          format('Only %s tokens of this grant can still be taken back',
            governance.with_separators(v_known.tokens - v_known.reversed - v_known.clawed)));
      end if;
      v_taking := governance.take_back(v_lot_id, -v_tokens, 'adjustment', p_now, v_reference, 'Correction', v_metadata);
      v_entry := v_taking.transaction_id;
      perform governance.record_purchase(v_entry, 'adjustment', v_lot_id, v_pay.payment_id, v_tokens, v_taking.debt,
        null, v_pay.currency, p_difference_id => p_difference_id);
    else
      update governance.lots l set granted = l.granted + v_tokens, remaining = l.remaining + v_tokens, is_open = true
        where l.lot_id = v_lot_id;
      v_entry := (governance.append_entry(v_pay.account_id, 'adjustment', p_now, array[v_lot_id, v_tokens],
        case v_lot.kind when 'subscription' then v_tokens else 0 end, case v_lot.kind when 'purchased' then v_tokens
          else 0 end,
        case v_lot.kind when 'promotional' then v_tokens
          else 0 end, 0, v_reference, 'Correction', v_metadata)).transaction_id;
      perform governance.record_purchase(v_entry, 'adjustment', v_lot_id, v_pay.payment_id, v_tokens, 0, null,
        v_pay.currency, p_difference_id => p_difference_id);
    end if;
    perform governance.recover_debt(v_pay.account_id, p_now, v_reference, greatest(v_tokens, 0));
    -- A lot that gets its tokens back is no longer void.
    update governance.stripe_lots s set tokens = s.tokens + v_tokens,
      is_void = (s.is_void and (v_tokens < 0 or v_lot.kind = 'promotional'))
        or s.tokens + v_tokens <= s.reversed + s.clawed where s.lot_id = v_lot_id;
    v_effects := jsonb_build_array(governance.effect('adjustment', v_user_id, v_tokens, v_entry));
  elsif v_action in ('claw_back', 'restore') then
    if governance.stripe_whole(c -> 'refunded_minor') is null then
      perform governance.fail('PT400', 'invalid_argument',
        'correction.refunded_minor is needed: the amount that Stripe says was refunded');
    end if;
    update governance.stripe_payments p set refunded_override_minor = governance.stripe_whole(c -> 'refunded_minor'),
      refunded_override_at = greatest(p_now, p.refunded_at,
        (select max(r.reported_at) from governance.stripe_refunds r where r.payment_id = p.payment_id))
    where p.payment_id = v_pay.payment_id;
  elsif v_action in ('hold', 'release', 'finalise_dispute') then
    perform governance.set_disputes(v_pay, v_action, c, v_reference, p_now);
  elsif v_action = 'relabel' then
    if v_amount is null or v_amount < 0 or v_currency is null then
      perform governance.fail('PT400', 'invalid_argument',
        'correction.amount_minor and correction.currency are needed');
    end if;
    update governance.lots l set amount_minor = v_amount, currency = v_currency where l.lot_id = v_lot_id;
    update governance.stripe_payments p set amount_minor = v_amount, currency = v_currency
      where p.payment_id = v_pay.payment_id
      and not exists (select from governance.stripe_lots s where s.payment_id = p.payment_id and s.lot_id <> v_lot_id);
    v_entry := (governance.append_entry(v_pay.account_id, 'adjustment', p_now, array[v_lot_id, 0::bigint], 0, 0, 0, 0,
      v_reference, 'Correction of the amount paid',
      v_metadata || jsonb_build_object('amount_minor', v_amount, 'currency', v_currency))).transaction_id;
    perform governance.record_purchase(v_entry, 'relabel', v_lot_id, v_pay.payment_id, 0, 0, v_amount, v_currency,
      p_difference_id => p_difference_id);
    v_effects := jsonb_build_array(governance.effect('relabel', v_user_id, 0, v_entry));
  elsif v_action in ('promotional', 'reclassify') then
    v_kind := case v_action when 'promotional' then 'promotional' else c ->> 'kind' end;
    if v_kind is null or v_kind not in ('promotional', 'purchased', 'subscription') or v_kind = v_lot.kind then
      perform governance.fail('PT400', 'invalid_argument',
        'correction.kind must be a kind that the lot does not have: promotional, purchased or subscription');
    end if;
    update governance.lots l set kind = v_kind where l.lot_id = v_lot_id;
    update governance.stripe_lots s set is_void = v_kind = 'promotional' or s.tokens <= s.reversed + s.clawed
      where s.lot_id = v_lot_id;
    v_entry := (governance.append_entry(v_pay.account_id, 'adjustment', p_now, array[v_lot_id, 0::bigint],
      v_lot.remaining * ((v_kind = 'subscription')::int - (v_lot.kind = 'subscription')::int),
      v_lot.remaining * ((v_kind = 'purchased')::int - (v_lot.kind = 'purchased')::int),
      v_lot.remaining * ((v_kind = 'promotional')::int - (v_lot.kind = 'promotional')::int), 0, v_reference,
      'Reclassified as ' || v_kind, v_metadata)).transaction_id;
    perform governance.record_purchase(v_entry, case v_action when 'promotional' then v_action else 'adjustment' end,
      v_lot_id, v_pay.payment_id, 0, 0, null, null,
      p_difference_id => p_difference_id);
    v_effects := jsonb_build_array(governance.effect(v_action, v_user_id, 0, v_entry));
  else
    perform governance.fail('PT409', 'nothing_to_post', 'This correction books nothing: a person decides what is done');
  end if;
  perform governance.reprice_reversed(v_lot_id, c, p_now, v_reference, v_metadata);
  return v_effects || governance.settle_payment(v_pay.payment_id, p_now, v_reference, p_difference_id);
end
$$;
comment on function governance.apply_correction(text, jsonb,
  timestamptz) is 'Books a correction (Correction of shared/governance/reconciliation): new entries alone, nothing is '
    'edited.';

create function governance.preview_correction(c governance.reconciliation_cases, p_now timestamptz) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_effects jsonb;
  v_users text[];
  v_before jsonb;
  v_after jsonb;
begin
  -- Done, then rolled back: the preview is what will happen, not a guess.
  begin
    v_effects := governance.apply_correction(c.difference_id, c.correction, p_now);
    select coalesce(array_agg(distinct e ->> 'user_id'), '{}') into v_users from jsonb_array_elements(v_effects) e
      where e ->> 'user_id' is not null;
    v_after := governance.account_books(v_users);
    raise exception using errcode = 'PT0DR', message = 'preview';
  exception when sqlstate 'PT0DR' then null;
  end;
  v_before := governance.account_books(v_users);
  return jsonb_build_object('effects', v_effects, 'accounts', (
    select coalesce(jsonb_agg(jsonb_build_object('user_id', a.key, 'name', a.value -> 'name', 'before',
      coalesce(v_before #> array[a.key, 'balance'], '{}'), 'after', a.value -> 'balance',
      'entries', a.value -> 'entries', 'lots', (
        select coalesce(jsonb_agg(jsonb_build_object('lot_id', l.key::bigint, 'before',
          v_before #> array[a.key, 'lots', l.key], 'after', l.value) order by l.key::bigint), '[]')
        from jsonb_each(a.value -> 'lots') l where l.value is distinct from v_before #> array[a.key, 'lots', l.key]))
          order by a.key), '[]')
    from jsonb_each(v_after) a));
end
$$;
comment on function governance.preview_correction(governance.reconciliation_cases, timestamptz) is
  'A preview of a correction: its effects, and for each account its entries, balances and changed lots before and '
  'after. Changes nothing. Errors: those of governance.apply_correction.';

create function public.console_post_correction(p_difference_id text, p_operator text, p_dry_run boolean default false,
  p_expected_version int default null) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_now timestamptz;
  c governance.reconciliation_cases;
  v_effects jsonb;
  v_before jsonb;
  v_preview jsonb;
  v_why text;
begin
  perform governance.refuse_others('console_post_correction');
  perform governance.check_id('p_difference_id', p_difference_id, 512);
  perform governance.check_id('p_operator', p_operator);
  if not coalesce(p_dry_run, false) then
    perform pg_advisory_xact_lock_shared(7254101);
    perform governance.lock_person(p_operator);
  end if;
  v_now := governance.now();
  select * into c from governance.reconciliation_cases x where x.difference_id = p_difference_id for update;
  if c.difference_id is null then
    perform governance.fail('PT404', 'not_found', 'There is no such case');
  elsif c.status in ('posted', 'verified') then
    return jsonb_build_object('difference_id', p_difference_id, 'status', c.status, 'effects',
      coalesce(c.effects, '[]'), 'dry_run', false, 'posted_by', c.posted_by, 'posted_at', c.posted_at);
  elsif p_expected_version <> c.version then
    perform governance.fail('PT409', 'version_conflict',
      format('%s was changed by %s in the meantime: it is %s now', left(p_difference_id, 100),
      coalesce(c.history -> -1 ->> 'by', 'somebody'), replace(c.status, '_', ' ')), governance.case_json(c)::text);
  end if;
  if p_dry_run then
    v_preview := governance.preview_correction(c, v_now);
    v_why := case when c.status <> 'approved' then governance.why_approver(c, p_operator, v_preview -> 'effects', v_now)
      end;
    return v_preview || jsonb_build_object('difference_id', p_difference_id, 'status', c.status, 'dry_run', true,
      'needs_approver', v_why is not null, 'why_approver', v_why);
  elsif c.status not in ('proposed', 'approved') then
    perform governance.fail('PT409', 'not_proposed',
      format('This case is %s: propose its correction first', replace(c.status, '_', ' ')));
  elsif c.resolution = 'write_off' then
    perform governance.fail('PT409', 'not_proposed',
      'A write-off is proposed for this case: propose its correction first');
  elsif c.status <> 'approved' and governance.needs_approver(c) then
    perform governance.fail('PT403', 'approval_needed', governance.why_approver(c, p_operator, '[]', v_now));
  end if;
  v_before := governance.before_correction(c.correction);
  v_effects := governance.apply_correction(p_difference_id, c.correction, v_now);
  if c.correction ->> 'action' = 'grant' then
    select jsonb_build_object('lot_id', r.lot_id) into v_before from governance.purchase_records r
    where r.transaction_id = (v_effects #>> '{0,transaction_id}')::bigint;
  end if;
  if c.status <> 'approved' then
    v_why := governance.why_approver(c, p_operator, v_effects, v_now);
    if v_why is not null then
      perform governance.fail('PT403', 'approval_needed', v_why);
    end if;
  end if;
  -- The clock again: booking may have waited for the account, and a run that read the ledger meanwhile has not seen it.
  v_now := governance.now();
  if c.status <> 'approved' then
    insert into governance.lone_decisions (difference_id, what, decided_at, decided_by, tokens, amount_minor, currency)
    select p_difference_id, 'posted', v_now, p_operator, s.tokens, s.amount_minor, c.currency
      from governance.stake_of(c, v_effects) s;
  end if;
  update governance.reconciliation_cases x set status = 'posted', status_at = v_now, posted_at = v_now,
    posted_by = p_operator, effects = v_effects, before_posting = v_before, updated_at = v_now, version = x.version + 1,
    -- From now on the case has what was posted, and to whom.
    user_id = coalesce(v_effects #>> '{0,user_id}', x.user_id),
    tokens = coalesce(-nullif((select sum((e.value ->> 'tokens')::bigint) from jsonb_array_elements(v_effects) e), 0),
      x.tokens),
    correction = x.correction || jsonb_strip_nulls(jsonb_build_object('user_id', v_effects #>> '{0,user_id}')),
    history = x.history || jsonb_build_object('at', v_now, 'by', p_operator, 'action', 'posted', 'details', v_effects)
  where x.difference_id = p_difference_id;
  insert into governance.audit_log (created_at, operator, action, account_id, reason, command_id, details)
  select v_now, p_operator, 'post_correction',
    (select a.account_id from governance.accounts a where a.user_id = v_effects #>> '{0,user_id}'),
    c.class, left(p_difference_id, 255),
      jsonb_build_object('difference_id', p_difference_id, 'correction', c.correction, 'effects', v_effects,
      'proposed_by', c.proposed_by, 'approved_by', c.approved_by);
  return jsonb_build_object('difference_id', p_difference_id, 'status', 'posted', 'effects', v_effects, 'dry_run',
    false, 'posted_by', p_operator, 'posted_at', v_now);
end
$$;
comment on function public.console_post_correction(text, text, boolean, int) is
  'Books the correction of a proposed case, approved by a second person above the limit (settings '
  'approval_above_tokens, approval_above_minor: of one correction, and of all that one person decides alone within 24 '
  'hours); once, however often it is called. p_dry_run answers effects, entries, lots and balances before and after, '
  'and changes nothing. Audited. Errors: invalid_argument, not_found, version_conflict, not_proposed, approval_needed, '
  'already_granted, unknown_user, more_than_left, nothing_to_post.';
revoke all on function public.console_post_correction(text, text, boolean, int) from public, anon, authenticated;
grant execute on function public.console_post_correction(text, text, boolean, int) to service_role;

create function public.console_preview_cases(p_difference_ids text[], p_action text, p_operator text) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_now timestamptz := governance.now();
  v_id text;
  c governance.reconciliation_cases;
  v_refusal governance.refusal;
  v_why text;
  v_effects jsonb;
  v_hint text;
  v_message text;
  v_state text;
  v_included jsonb := '[]';
  v_excluded jsonb := '[]';
  v_waits bigint := 0;
  v_tokens_added numeric := 0;
  v_tokens_taken numeric := 0;
  v_stake governance.stake;
  v_more_tokens numeric := 0;
  v_more_minor jsonb := '{}';
begin
  perform governance.refuse_others('console_preview_cases');
  perform governance.check_id('p_operator', p_operator);
  if p_action is null or p_action not in ('investigate', 'assign', 'note', 'propose', 'approve', 'carry_forward',
    'write_off', 'reopen', 'post') then
    perform governance.fail('PT400', 'invalid_argument',
      'p_action is one of investigate, assign, note, propose, approve, carry_forward, write_off, reopen, post');
  elsif p_difference_ids is null or cardinality(p_difference_ids) not between 1 and 1000
    or array_ndims(p_difference_ids) > 1 or array_position(p_difference_ids, null) is not null then
    perform governance.fail('PT400', 'invalid_argument', 'p_difference_ids is a list of 1 to 1,000 ids');
  end if;
  for v_id in select distinct x from unnest(p_difference_ids) x order by 1 loop
    select * into c from governance.reconciliation_cases x where x.difference_id = v_id;
    v_refusal := null;
    v_effects := '[]';
    v_stake := null;
    if p_action <> 'post' then
      v_refusal := governance.case_refusal(c, v_id, p_action, p_operator);
      if v_refusal.hint is null and p_action = 'write_off' and c.blocks then
        if governance.why_approver(c, p_operator, null, v_now, v_more_tokens,
          coalesce((v_more_minor ->> coalesce(c.currency, ''))::numeric, 0)) is not null then
          v_waits := v_waits + 1;
        else
          v_stake := governance.stake_of(c, null);
        end if;
      end if;
    elsif c.difference_id is null then
      v_refusal := row('PT404', 'not_found', 'There is no such case');
    elsif c.status not in ('proposed', 'approved') then
      v_refusal := row('PT409', 'not_proposed',
        format('It is %s: only what was proposed can be posted', replace(c.status, '_', ' ')));
    elsif c.resolution = 'write_off' then
      v_refusal := row('PT409', 'not_proposed', 'It is proposed to write it off');
    else
      begin
        v_effects := governance.preview_correction(c, v_now) -> 'effects';
        v_why := null;
        if c.status <> 'approved' then
          -- Each alone may be within the limit; with those before it, it must be too.
          v_why := governance.why_approver(c, p_operator, v_effects, v_now, v_more_tokens,
            coalesce((v_more_minor ->> coalesce(c.currency, ''))::numeric, 0));
          if v_why is null then v_stake := governance.stake_of(c, v_effects); end if;
        end if;
        if v_why is not null then
          v_refusal := row('PT403', 'approval_needed', v_why);
        end if;
      exception when others then
        get stacked diagnostics v_hint = pg_exception_hint, v_message = message_text, v_state = returned_sqlstate;
        -- Our own refusals say why it cannot be included; anything else is a fault.
        if v_state not like 'PT4%' then raise; end if;
        v_refusal := row(v_state, v_hint, v_message);
      end;
    end if;
    if v_stake.tokens is not null then
      v_more_tokens := v_more_tokens + v_stake.tokens;
      v_more_minor := v_more_minor
        || jsonb_build_object(coalesce(c.currency, ''),
        coalesce((v_more_minor ->> coalesce(c.currency, ''))::numeric, 0) + v_stake.amount_minor);
    end if;
    if v_refusal.hint is not null then
      v_excluded := v_excluded
        || jsonb_build_object('difference_id', v_id, 'code', v_refusal.hint, 'message', v_refusal.message);
    else
      v_included := v_included || jsonb_build_object('difference_id', v_id, 'version', c.version,
        'users', case p_action when 'post'
          then (select coalesce(jsonb_agg(distinct e -> 'user_id'), '[]') from jsonb_array_elements(v_effects) e)
          else jsonb_build_array(c.user_id) end, 'currency', c.currency, 'amount_minor', c.amount_minor, 'tokens',
          c.tokens);
      select v_tokens_added + coalesce(sum(e.tokens) filter (where e.tokens > 0), 0),
        v_tokens_taken - coalesce(sum(e.tokens) filter (where e.tokens < 0), 0)
      into v_tokens_added, v_tokens_taken from jsonb_to_recordset(v_effects) e(tokens bigint);
    end if;
  end loop;
  return jsonb_build_object('action', p_action,
    'included', (select coalesce(jsonb_agg(jsonb_build_object('difference_id', i ->> 'difference_id', 'version',
      i -> 'version')), '[]') from jsonb_array_elements(v_included) i),
    'excluded', v_excluded, 'waits_for_approval', v_waits,
    'users', (select count(distinct u) from jsonb_array_elements(v_included) i
      cross join lateral jsonb_array_elements_text(i -> 'users') u),
    'tokens', (select coalesce(sum(abs((i ->> 'tokens')::bigint)), 0) from jsonb_array_elements(v_included) i),
    'tokens_added', v_tokens_added, 'tokens_taken', v_tokens_taken,
    'money', (select coalesce(jsonb_agg(jsonb_build_object('currency', s.currency, 'amount_minor', s.amount)
      order by s.currency), '[]')
      from (select i ->> 'currency' as currency, sum(abs((i ->> 'amount_minor')::bigint)) as amount
        from jsonb_array_elements(v_included) i
        where i ->> 'currency' is not null and (i ->> 'amount_minor')::bigint <> 0 group by 1) s));
end
$$;
comment on function public.console_preview_cases(text[], text, text) is
  'The blast radius of an action on many cases (those of console_case_action, or post): which are included, which not '
  'and why, users, tokens and money at stake, and what posting would add and take. Each correction is done and undone '
  'alone. Changes nothing. Errors: invalid_argument.';
revoke all on function public.console_preview_cases(text[], text, text) from public, anon, authenticated;
grant execute on function public.console_preview_cases(text[], text, text) to service_role;
