-- What each kind of correction changes of an account's tokens, plan or calls, and how it is taken back.

create table governance.account_acts (
  act_id bigint generated always as identity primary key,
  command_id text not null unique,
  account_id bigint not null,
  kind text not null,
  -- The act as it was asked for, as governance.check_act reads it.
  fields jsonb not null,
  reason text not null,
  operator text not null,
  status text not null check (status in ('proposed', 'done', 'rejected', 'undone')),
  -- Why a second person was asked.
  why text,
  -- Account before and after, entries, lots; and what undoing needs.
  effects jsonb not null default '{}',
  created_at timestamptz not null,
  done_at timestamptz,
  -- The second person, who approved or rejected it.
  decided_by text,
  -- Numbers of acts.
  undoes bigint,
  undone_by bigint,
  -- Of which bulk act it is a part.
  bulk_id bigint
);

create index account_acts_account on governance.account_acts (account_id, act_id desc);

create index account_acts_operator on governance.account_acts (operator, act_id desc);

create index account_acts_proposed on governance.account_acts (act_id) where status = 'proposed';

create unique index account_acts_refund on governance.account_acts (account_id, (fields ->> 'request_id'))
  where kind = 'refund_call' and status in ('proposed', 'done') and undoes is null;

comment on table governance.account_acts is 'Corrections that operators made or proposed, with their effects.';

create function governance.act_whole(p_act jsonb, p_key text, p_min bigint default 1) returns bigint
  language plpgsql immutable set search_path = '' as $$
declare
  v_whole bigint := governance.stripe_whole(p_act -> p_key);
begin
  if v_whole is null or v_whole < p_min then
    perform governance.fail('PT400', 'invalid_argument',
      format('p_act.%s is a whole number from %s up to 2^53 - 1', p_key, p_min));
  end if;
  return v_whole;
end
$$;
comment on function governance.act_whole(jsonb, text, bigint) is 'A whole number of tokens in an act.';

create function governance.act_moment(p_act jsonb, p_key text) returns timestamptz
  language plpgsql stable set search_path = '' as $$
declare
  v_at timestamptz;
begin
  if not governance.has_offset(p_act ->> p_key) then return null; end if;
  v_at := (p_act ->> p_key)::timestamptz;
  return case when governance.is_date(v_at) and v_at > governance.now() then v_at end;
exception when data_exception then
  return null;
end
$$;
comment on function governance.act_moment(jsonb, text) is
  'A moment in the future, with its offset, in an act; null for anything else.';

create function governance.check_act(p_act jsonb) returns jsonb
  language plpgsql stable set search_path = '' as $$
declare
  v_kind text;
  v_known text[];
  v_unknown text;
begin
  if p_act is null or jsonb_typeof(p_act) <> 'object' then
    perform governance.fail('PT400', 'invalid_argument', 'p_act is an object with a kind');
  end if;
  p_act := jsonb_strip_nulls(p_act);
  v_kind := case when jsonb_typeof(p_act -> 'kind') = 'string' then p_act ->> 'kind' end;
  v_known := case v_kind
    when 'give_tokens' then '{kind,tokens,lot_kind,expires_at}'
    when 'take_tokens' then '{kind,tokens}'
    when 'refund_call' then '{kind,request_id}'
    when 'end_hold' then '{kind,request_id,action,input_tokens,output_tokens}'
    when 'change_plan' then '{kind,plan_id,when}'
    when 'raise_limit' then '{kind,daily_limit,monthly_limit,until}'
    when 'block_user' then '{kind,until}'
    when 'flag_user' then '{kind}'
    when 'unflag_user' then '{kind}'
    when 'unblock_user' then '{kind}'
    when 'note' then '{kind}' end;
  if v_known is null then
    perform governance.fail('PT400', 'invalid_argument',
      'p_act.kind is one of give_tokens, take_tokens, refund_call, end_hold, change_plan, raise_limit, flag_user, '
      'unflag_user, block_user, unblock_user, note');
  end if;
  select k into v_unknown from jsonb_object_keys(p_act) k where k <> all (v_known) limit 1;
  if v_unknown is not null then
    perform governance.fail('PT400', 'invalid_argument',
      format('p_act has no key "%s" where its kind is %s', left(v_unknown, 64),
      v_kind));
  end if;
  if v_kind in ('give_tokens', 'take_tokens') then
    perform governance.act_whole(p_act, 'tokens');
  end if;
  if v_kind = 'give_tokens' then
    if not coalesce(p_act ->> 'lot_kind', 'promotional') = any ('{promotional,purchased,subscription}') then
      perform governance.fail('PT400', 'invalid_argument',
        'p_act.lot_kind is promotional, purchased or subscription');
    end if;
    if p_act ? 'expires_at' and governance.act_moment(p_act, 'expires_at') is null then
      perform governance.fail('PT400', 'invalid_argument',
        'p_act.expires_at is a moment in the future, as 2030-01-31T18:00:00Z; leave it out for tokens that never '
          'expire');
    end if;
  elsif v_kind in ('refund_call', 'end_hold') then
    perform governance.check_id('p_act.request_id', p_act ->> 'request_id');
  end if;
  if v_kind = 'end_hold' then
    if not coalesce(p_act ->> 'action', '') = any ('{settle,release}') then
      perform governance.fail('PT400', 'invalid_argument', 'p_act.action is settle or release');
    end if;
    if p_act ? 'input_tokens' then perform governance.act_whole(p_act, 'input_tokens', 0); end if;
    if p_act ? 'output_tokens' then perform governance.act_whole(p_act, 'output_tokens', 0); end if;
  elsif v_kind = 'change_plan' then
    perform governance.check_id('p_act.plan_id', p_act ->> 'plan_id');
    if not coalesce(p_act ->> 'when', 'now') = any ('{now,next_period}') then
      perform governance.fail('PT400', 'invalid_argument', 'p_act.when is now or next_period');
    end if;
  elsif v_kind = 'block_user' and p_act ? 'until' and governance.act_moment(p_act, 'until') is null then
    perform governance.fail('PT400', 'invalid_argument',
      'p_act.until is a moment in the future, as 2030-01-31T18:00:00Z; leave it out to block until someone unblocks');
  elsif v_kind = 'raise_limit' then
    if p_act ? 'daily_limit' then perform governance.act_whole(p_act, 'daily_limit'); end if;
    if p_act ? 'monthly_limit' then perform governance.act_whole(p_act, 'monthly_limit'); end if;
    if not p_act ?| '{daily_limit,monthly_limit}' then
      perform governance.fail('PT400', 'invalid_argument', 'p_act needs daily_limit, monthly_limit or both');
    elsif governance.act_moment(p_act, 'until') is null
      or governance.act_moment(p_act, 'until') > governance.now() + interval '1 year' then
      perform governance.fail('PT400', 'invalid_argument',
        'p_act.until is a moment in the future, as 2030-01-31T18:00:00Z, within a year');
    end if;
  end if;
  return p_act;
end
$$;
comment on function governance.check_act(jsonb) is
  'Refuses an act that is not complete. Kinds and fields: give_tokens {tokens, lot_kind promotional (default), '
  'purchased or subscription, expires_at}, take_tokens {tokens}, refund_call {request_id}, end_hold {request_id, '
  'action settle or release, input_tokens, output_tokens}, change_plan {plan_id, when now (default) or next_period}, '
  'raise_limit {daily_limit, monthly_limit, until}, flag_user {}, unflag_user {}, block_user {until}, '
  'unblock_user {}, note {}.';

create function governance.why_unchanged(a governance.accounts, p_act jsonb, p_now timestamptz) returns text
  language plpgsql stable set search_path = '' as $$
begin
  return case p_act ->> 'kind'
    when 'change_plan' then case
      when p_act ->> 'plan_id' = a.plan_id then 'The user is on this plan already'
      when p_act ->> 'when' = 'next_period' and p_act ->> 'plan_id' = a.next_plan_id
        then 'The user moves to this plan at the next period already' end
    when 'raise_limit' then case when exists (select from governance.plans p where p.plan_id = a.plan_id
        and ((p_act ? 'daily_limit' and coalesce((p_act ->> 'daily_limit')::bigint <= p.daily_limit, true))
          or (p_act ? 'monthly_limit' and coalesce((p_act ->> 'monthly_limit')::bigint <= p.monthly_limit, true))))
      then 'A limit is raised above what the plan has; a plan without this limit needs no raising' end
    when 'flag_user' then case when a.flagged_at is not null then 'The user is flagged already' end
    when 'unflag_user' then case when a.flagged_at is null then 'The user is not flagged' end
    when 'block_user' then case when a.blocked_at is not null and coalesce(a.blocked_until, 'infinity')
        >= greatest(coalesce((p_act ->> 'until')::timestamptz, 'infinity'), p_now)
      then 'The user is blocked for as long already' end
    when 'unblock_user' then case when coalesce(governance.blocked_until(a) <= p_now, true)
      then 'The user is not blocked' end
    end;
end
$$;
comment on function governance.why_unchanged(governance.accounts, jsonb, timestamptz) is
  'Why an act would change nothing of an account, in a sentence; null where it would change something.';

create function governance.put_back(p_account_id bigint, p_taken bigint[], p_type text, p_now timestamptz,
  p_reference text, p_description text, p_metadata jsonb) returns void
  language plpgsql set search_path = '' as $$
declare
  v_lot governance.lots;
  v_tokens bigint;
  v_expired bigint := 0;
begin
  for i in 1 .. cardinality(p_taken) by 2 loop
    v_tokens := -p_taken[i + 1];
    continue when v_tokens <= 0;
    select * into strict v_lot from governance.lots l where l.lot_id = p_taken[i];
    if v_lot.expires_at <= p_now then
      v_expired := v_expired + v_tokens;
      continue;
    end if;
    update governance.lots l set remaining = l.remaining + v_tokens, spent = l.spent - v_tokens, is_open = true
    where l.lot_id = v_lot.lot_id;
    perform governance.append_entry(p_account_id, p_type, p_now, array[v_lot.lot_id, v_tokens],
      case v_lot.kind when 'subscription' then v_tokens else 0 end,
      case v_lot.kind when 'purchased' then v_tokens else 0 end,
      case v_lot.kind when 'promotional' then v_tokens else 0 end, 0, p_reference, p_description, p_metadata);
  end loop;
  if v_expired > 0 then
    perform governance.grant_tokens(p_account_id, 'promotional', v_expired, p_type, p_now,
      p_now + interval '30 days', p_reference, p_description, p_metadata);
  end if;
end
$$;
comment on function governance.put_back(bigint, bigint[], text, timestamptz, text, text, jsonb) is
  'Puts tokens back into the lots that an entry took them from (its lot_changes), an entry each. What came from a lot '
  'that has expired since comes back as promotional tokens for 30 days. The caller holds the account''s lock.';

create function governance.request_of(p_account_id bigint, p_request_id text) returns governance.requests
  language plpgsql stable set search_path = '' as $$
declare
  q governance.requests;
begin
  select x.* into q from governance.request_keys k
    join governance.requests x on x.decision_id = k.decision_id and x.created_at = k.created_at
  where k.request_id = p_request_id and x.account_id = p_account_id;
  if not found then
    perform governance.fail('PT404', 'unknown_request',
      format('This user has no call "%s", or it is no longer kept', left(p_request_id, 64)));
  end if;
  return q;
end
$$;
comment on function governance.request_of(bigint, text) is 'A call of an account by its request id. Errors: '
  'unknown_request.';

create function governance.set_raised(p_account_id bigint, p_act jsonb, p_to jsonb) returns void
  language sql set search_path = '' as $$
  update governance.accounts y set
    raised_daily_limit = case when p_act ? 'daily_limit' then (p_to ->> 'daily_limit')::bigint
      else y.raised_daily_limit end,
    raised_daily_until = case when p_act ? 'daily_limit' then (p_to ->> 'daily_until')::timestamptz
      else y.raised_daily_until end,
    raised_monthly_limit = case when p_act ? 'monthly_limit' then (p_to ->> 'monthly_limit')::bigint
      else y.raised_monthly_limit end,
    raised_monthly_until = case when p_act ? 'monthly_limit' then (p_to ->> 'monthly_until')::timestamptz
      else y.raised_monthly_until end
  where y.account_id = p_account_id
$$;
comment on function governance.set_raised(bigint, jsonb, jsonb) is
  'Raises the limits that an act names, or puts them back; one that it does not name stays as it was raised.';

create function governance.apply_act(a governance.accounts, p_act jsonb, p_command_id text, p_reason text,
  p_operator text, p_now timestamptz) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  c_reference constant text := left('act ' || p_command_id, 255);
  v_metadata jsonb := jsonb_build_object('command_id', p_command_id, 'operator', p_operator);
  v_tokens bigint := governance.stripe_whole(p_act -> 'tokens');
  v_free bigint := a.subscription_tokens + a.purchased_tokens + a.promotional_tokens - a.reserved_tokens;
  v_kind text := coalesce(p_act ->> 'lot_kind', 'promotional');
  v_granted governance.granted;
  v_spent governance.lot_spending;
  v_lots bigint[];
  v_debt bigint;
  v_why text := governance.why_unchanged(a, p_act, p_now);
  q governance.requests;
begin
  case p_act ->> 'kind'
  when 'give_tokens' then
    if v_free + a.reserved_tokens + v_tokens > 9007199254740991 then
      perform governance.fail('PT400', 'invalid_argument', 'The balance would reach 2^53 tokens or more: add fewer');
    end if;
    v_granted := governance.grant_tokens(a.account_id, v_kind, v_tokens,
      case v_kind when 'promotional' then 'bonus' when 'subscription' then 'subscription_grant' else 'adjustment' end,
      p_now, (p_act ->> 'expires_at')::timestamptz, c_reference, p_reason, v_metadata);
    return jsonb_build_object('lot_id', v_granted.lot_id);
  when 'take_tokens' then
    if v_tokens > v_free then
      perform governance.fail('PT402', 'insufficient_tokens',
        format('%s tokens are free, %s are to be taken', governance.with_separators(v_free),
          governance.with_separators(v_tokens)),
        jsonb_build_object('have', v_free, 'need', v_tokens)::text);
    end if;
    v_spent := governance.spend_lots(a.account_id, v_tokens);
    perform governance.append_entry(a.account_id, 'adjustment', p_now, v_spent.lot_changes, v_spent.subscription,
      v_spent.purchased, v_spent.promotional, 0, c_reference, p_reason, v_metadata);
    perform governance.tell_user(a.account_id, 'tokens_taken', 'message.support',
      jsonb_build_object('tokens', v_tokens), p_now);
    return jsonb_build_object('taken', to_jsonb(v_spent.lot_changes));
  when 'refund_call' then
    q := governance.request_of(a.account_id, p_act ->> 'request_id');
    if q.status <> 'settled' or q.charged_tokens = 0 then
      perform governance.fail('PT409', 'nothing_to_refund',
        format('The call is %s%s: nothing was charged for it', q.status, case
          when q.status = 'settled' then ' with no tokens' end));
    elsif exists (select from governance.account_acts x where x.account_id = a.account_id and x.kind = 'refund_call'
      and x.status in ('proposed', 'done') and x.undoes is null and x.command_id <> p_command_id
      and x.fields ->> 'request_id' = q.request_id) then
      perform governance.fail('PT409', 'already_refunded', 'This call is refunded already, or its refund is proposed');
    end if;
    v_metadata := v_metadata || jsonb_build_object('request_id', q.request_id, 'decision_id', q.decision_id);
    -- Debt of the call is forgiven as far as it is still owed; the rest of that debt was paid out of lots since.
    v_debt := least(q.unpaid_tokens, a.debt_tokens);
    if v_debt > 0 then
      perform governance.append_entry(a.account_id, 'refund', p_now, '{}', 0, 0, 0, -v_debt, c_reference, p_reason,
        v_metadata);
    end if;
    select t.lot_changes into strict v_lots from governance.token_transactions t
    where t.transaction_id = q.transaction_id;
    perform governance.put_back(a.account_id, v_lots, 'refund', p_now, c_reference, p_reason, v_metadata);
    if q.unpaid_tokens > v_debt then
      perform governance.grant_tokens(a.account_id, 'promotional', q.unpaid_tokens - v_debt, 'refund', p_now, null,
        c_reference, p_reason, v_metadata);
    end if;
    perform governance.recover_debt(a.account_id, p_now, c_reference);
    return jsonb_build_object('refunded', q.charged_tokens);
  when 'end_hold' then
    q := governance.request_of(a.account_id, p_act ->> 'request_id');
    return jsonb_build_object('answer', governance.end_hold(q, p_act ->> 'action', p_reason,
      governance.stripe_whole(p_act -> 'input_tokens'), governance.stripe_whole(p_act -> 'output_tokens'), p_now));
  when 'change_plan' then
    if v_why is not null then
      perform governance.fail('PT409', 'nothing_to_change', v_why);
    elsif p_act ->> 'when' = 'next_period' then
      if not exists (select from governance.plans p where p.plan_id = p_act ->> 'plan_id' and p.retired_at is null) then
        perform governance.fail('PT404', 'unknown_plan',
          format('There is no plan "%s"', left(p_act ->> 'plan_id', 64)));
      end if;
      update governance.accounts y set next_plan_id = p_act ->> 'plan_id' where y.account_id = a.account_id;
      return jsonb_build_object('next_plan_id', a.next_plan_id);
    end if;
    perform public.upsert_account(a.user_id, p_act ->> 'plan_id');
    return jsonb_build_object('plan_id', a.plan_id, 'month_allowance', a.month_allowance, 'lot_id', (
      select max(l.lot_id) from governance.lots l
      where l.account_id = a.account_id and l.kind = 'subscription'
        and l.lot_id > (p_act ->> 'last_lot_id')::bigint));
  when 'raise_limit' then
    if v_why is not null then perform governance.fail('PT409', 'nothing_to_change', v_why); end if;
    perform governance.set_raised(a.account_id, p_act, p_act || jsonb_build_object('daily_until', p_act -> 'until',
      'monthly_until', p_act -> 'until'));
    return jsonb_build_object('raised', jsonb_build_object('daily_limit', a.raised_daily_limit, 'daily_until',
      a.raised_daily_until, 'monthly_limit', a.raised_monthly_limit, 'monthly_until', a.raised_monthly_until));
  when 'note' then
    return '{}';
  else
    return governance.change_standing(a, p_act, p_reason, p_operator, p_now);
  end case;
end
$$;
comment on function governance.apply_act(governance.accounts, jsonb, text, text, text, timestamptz) is
  'Does an act that governance.check_act has read; returns what undoing it needs. The caller holds the account''s '
  'lock. '
  'Errors: insufficient_tokens, unknown_request, nothing_to_refund, already_refunded, already_resolved, unknown_plan, '
  'nothing_to_change, invalid_argument.';

create function governance.reverse_act(a governance.accounts, x governance.account_acts, p_command_id text,
  p_reason text, p_operator text, p_now timestamptz) returns void
  language plpgsql set search_path = '' as $$
declare
  c_reference constant text := left('act ' || p_command_id, 255);
  v_metadata jsonb := jsonb_build_object('command_id', p_command_id, 'operator', p_operator, 'undoes', x.command_id);
  v_undo jsonb := x.effects -> 'undo';
  v_free bigint := a.subscription_tokens + a.purchased_tokens + a.promotional_tokens - a.reserved_tokens;
  v_tokens bigint;
  v_spent governance.lot_spending;
  l governance.lots;
begin
  if v_undo ? 'standing' then
    perform governance.put_back_standing(a, x.kind, v_undo, p_now);
    return;
  elsif v_undo ? 'next_plan_id' then
    if a.next_plan_id is distinct from x.fields ->> 'plan_id' then
      perform governance.fail('PT409', 'changed_since', 'The user''s next plan was changed since');
    end if;
    update governance.accounts y set next_plan_id = v_undo ->> 'next_plan_id' where y.account_id = a.account_id;
    return;
  elsif v_undo ? 'raised' then
    if (x.fields ? 'daily_limit' and row(a.raised_daily_limit, a.raised_daily_until) is distinct from
        row((x.fields ->> 'daily_limit')::bigint, (x.fields ->> 'until')::timestamptz))
      or (x.fields ? 'monthly_limit' and row(a.raised_monthly_limit, a.raised_monthly_until) is distinct from
        row((x.fields ->> 'monthly_limit')::bigint, (x.fields ->> 'until')::timestamptz)) then
      perform governance.fail('PT409', 'changed_since', 'The raised limits were changed since');
    end if;
    perform governance.set_raised(a.account_id, x.fields, v_undo -> 'raised');
    return;
  end if;
  if v_undo ? 'plan_id' and x.kind = 'change_plan' then
    if a.plan_id is distinct from x.fields ->> 'plan_id' then
      perform governance.fail('PT409', 'changed_since', format('The user has moved on to the plan %s since',
        left(a.plan_id, 64)));
    end if;
    update governance.accounts y set plan_id = v_undo ->> 'plan_id',
      month_allowance = case when y.local_month = (x.effects ->> 'local_month')::date
        then (v_undo ->> 'month_allowance')::bigint else y.month_allowance end
    where y.account_id = a.account_id;
  end if;
  if v_undo ? 'lot_id' and v_undo ->> 'lot_id' is not null then
    -- Tokens of it that expired are gone already; those that were spent become debt, as they were before the grant.
    select * into strict l from governance.lots y where y.lot_id = (v_undo ->> 'lot_id')::bigint;
    if l.granted - l.expired - l.clawed_back > 0 then
      perform governance.claw_back_lot(l.lot_id, l.granted - l.expired - l.clawed_back, 'reversal', p_now,
        c_reference, p_reason, v_metadata);
      perform governance.recover_debt(a.account_id, p_now, c_reference);
    end if;
  elsif v_undo ? 'taken' then
    perform governance.put_back(a.account_id, array(select jsonb_array_elements_text(v_undo -> 'taken')::bigint),
      'adjustment', p_now, c_reference, p_reason, v_metadata);
    perform governance.recover_debt(a.account_id, p_now, c_reference);
  elsif v_undo ? 'refunded' then
    v_tokens := (v_undo ->> 'refunded')::bigint;
    v_spent := governance.spend_lots(a.account_id, least(v_tokens, v_free));
    perform governance.append_entry(a.account_id, 'adjustment', p_now, v_spent.lot_changes, v_spent.subscription,
      v_spent.purchased, v_spent.promotional, v_tokens - v_spent.taken, c_reference, p_reason, v_metadata);
  elsif x.kind <> 'change_plan' then
    perform governance.fail('PT409', 'not_undoable', format('%s cannot be undone', replace(x.kind, '_', ' ')));
  end if;
end
$$;
comment on function governance.reverse_act(governance.accounts, governance.account_acts, text, text, text,
  timestamptz) is
  'Takes an act back with compensating entries. The caller holds the account''s lock. Errors: changed_since, '
  'not_undoable.';

create function governance.account_books(p_user_ids text[]) returns jsonb
  language sql stable set search_path = '' as $$
  select coalesce(jsonb_object_agg(a.user_id, jsonb_build_object(
    'name', a.display_name,
    'balance', jsonb_build_object('total', a.subscription_tokens + a.purchased_tokens + a.promotional_tokens,
      'subscription', a.subscription_tokens,
      'purchased', a.purchased_tokens, 'promotional', a.promotional_tokens, 'debt', a.debt_tokens),
    'entries', (select coalesce(jsonb_agg(jsonb_build_object('type', t.transaction_type, 'amount', t.amount,
      'previous_balance', t.previous_balance,
        'new_balance', t.new_balance, 'debt_after', t.debt_after, 'description', t.description)
          order by t.transaction_id), '[]')
      from (select * from governance.token_transactions x where x.account_id = a.account_id
        order by x.transaction_id desc limit 100) t where t.xid = pg_current_xact_id()),
    'lots', (select coalesce(jsonb_object_agg(l.lot_id,
      jsonb_build_object('kind', l.kind, 'pack_id', l.pack_id, 'granted', l.granted, 'remaining', l.remaining, 'frozen',
      l.frozen,
        'spent', l.spent, 'expired', l.expired, 'clawed_back', l.clawed_back, 'amount_minor', l.amount_minor,
          'currency', l.currency)), '{}')
      from governance.lots l where l.account_id = a.account_id))), '{}')
  from governance.accounts a where a.user_id = any (p_user_ids)
$$;
comment on function governance.account_books(text[]) is 'Balances, lots and this transaction''s own entries of '
  'accounts: what a preview compares.';
