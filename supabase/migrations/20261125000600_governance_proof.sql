-- The proof, without its holes. The ledger is hashed, and what else is kept beside it can be told from it: what a lot
-- is, what a call was charged, what the roll-up and the counters add up to. supabase/CONVENTIONS.md says what
-- public.verify_ledger checks, and what nobody can see from inside the database.

-- ---------------------------------------------------------------------------------------------------------------
-- Seals: an entry that does anything but spend a lot says, under its hash, what the lot is then. What calls and debt
-- spend is told by the tokens of their entries, so calls seal nothing.
-- ---------------------------------------------------------------------------------------------------------------

-- No search_path on these two, so that they are inlined: they use built-in functions alone.
create function governance.lot_seal(l governance.lots) returns text
  language sql stable as $$
  select concat_ws('|', l.kind, extract(epoch from l.created_at), coalesce(extract(epoch from l.expires_at)::text, '-'), l.granted, l.frozen, l.expired, l.clawed_back)
$$;
comment on function governance.lot_seal(governance.lots) is
  'What of a lot spending does not change: kind | created at | expires at or "-" (seconds since 1970) | granted | frozen | expired | clawed back.';

create function governance.seals_lot(p_type text, p_lot_changes bigint[], p_metadata jsonb) returns boolean
  language sql immutable as $$
  select cardinality(p_lot_changes) = 2
    and (p_lot_changes[2] >= 0 or p_type in ('expiry', 'refund', 'reversal') or (p_type = 'adjustment' and coalesce(p_metadata ? 'difference_id', false)))
$$;
comment on function governance.seals_lot(text, bigint[], jsonb) is
  'Whether an entry seals the one lot that it names: all do that may have done more than spend it.';

create or replace function governance.append_entry(
  p_account_id bigint, p_type text, p_now timestamptz, p_lot_changes bigint[], p_subscription bigint, p_purchased bigint,
  p_promotional bigint, p_debt bigint, p_reference text default null, p_description text default null, p_metadata jsonb default null,
  p_decision_id bigint default null
) returns governance.token_transactions
  language plpgsql set search_path = '' as $$
declare
  v_entry governance.token_transactions;
  v_user_id text;
  v_expires_at timestamptz;
begin
  -- The transaction has its number before it draws an id: readers of the feed rely on it.
  v_entry.xid := pg_current_xact_id();
  select a.user_id, a.last_hash, a.subscription_tokens + a.purchased_tokens + a.promotional_tokens, a.debt_tokens + p_debt
  into strict v_user_id, v_entry.previous_hash, v_entry.previous_balance, v_entry.debt_after
  from governance.accounts a where a.account_id = p_account_id;
  if governance.seals_lot(p_type, p_lot_changes, p_metadata) then
    select coalesce(p_metadata, '{}') || jsonb_build_object('lot_seal', governance.lot_seal(l)), case when p_lot_changes[2] > 0 then l.expires_at end
    into strict p_metadata, v_expires_at
    from governance.lots l where l.lot_id = p_lot_changes[1];
  end if;
  v_entry.transaction_id := nextval('governance.event_ids');
  v_entry.amount := p_subscription + p_purchased + p_promotional;
  v_entry.new_balance := v_entry.previous_balance + v_entry.amount;
  v_entry.hash := governance.entry_hash(v_entry.previous_hash, governance.entry_payload(v_entry.transaction_id, p_now, p_type, v_entry.amount,
    v_entry.previous_balance, v_entry.new_balance, v_entry.debt_after, p_lot_changes, p_decision_id, v_user_id, p_reference, p_description, p_metadata));
  insert into governance.token_transactions (transaction_id, account_id, created_at, transaction_type, amount, previous_balance, new_balance, debt_after,
    lot_changes, reference, decision_id, description, metadata, previous_hash, hash, xid)
  values (v_entry.transaction_id, p_account_id, p_now, p_type, v_entry.amount, v_entry.previous_balance, v_entry.new_balance, v_entry.debt_after,
    p_lot_changes, p_reference, p_decision_id, p_description, p_metadata, v_entry.previous_hash, v_entry.hash, v_entry.xid)
  returning * into v_entry;
  update governance.accounts a set
    subscription_tokens = a.subscription_tokens + p_subscription, purchased_tokens = a.purchased_tokens + p_purchased,
    promotional_tokens = a.promotional_tokens + p_promotional, debt_tokens = a.debt_tokens + p_debt,
    last_transaction_id = v_entry.transaction_id, last_hash = v_entry.hash,
    -- Tokens that come into a lot expire with it, whoever put them there.
    lots_check_at = least(a.lots_check_at, v_expires_at)
  where a.account_id = p_account_id;
  return v_entry;
end
$$;
comment on function governance.append_entry(bigint, text, timestamptz, bigint[], bigint, bigint, bigint, bigint, text, text, jsonb, bigint) is
  'Writes one ledger entry and carries it into the account; whatever does more to a lot than spend it is sealed. The caller holds the account''s lock and has changed the lots already; amounts are changes by kind.';

create or replace function governance.claw_back_lot(p_lot_id bigint, p_tokens bigint, p_type text, p_now timestamptz, p_reference text, p_description text default null, p_metadata jsonb default null) returns governance.lot_taking
  language plpgsql set search_path = '' as $$
declare
  v_lot governance.lots;
  v_account governance.accounts;
  v_frozen bigint;
  v_take bigint;
  v_result governance.lot_taking;
begin
  select * into strict v_lot from governance.lots l where l.lot_id = p_lot_id;
  select * into strict v_account from governance.accounts a where a.account_id = v_lot.account_id;
  v_frozen := least(p_tokens, v_lot.frozen);
  v_take := least(p_tokens - v_frozen, v_lot.remaining,
    v_account.subscription_tokens + v_account.purchased_tokens + v_account.promotional_tokens - v_account.reserved_tokens);
  v_result := row(v_take, v_frozen, p_tokens - v_frozen - v_take, null);
  update governance.lots l set
    remaining = l.remaining - v_take, frozen = l.frozen - v_frozen, clawed_back = l.clawed_back + v_take + v_frozen,
    is_open = l.remaining - v_take + l.frozen - v_frozen > 0
  where l.lot_id = p_lot_id;
  -- The lot is named even where no tokens leave the balance: frozen or expired ones may have changed their name.
  v_result.transaction_id := (governance.append_entry(v_lot.account_id, p_type, p_now, array[p_lot_id, -v_take],
    case v_lot.kind when 'subscription' then -v_take else 0 end, case v_lot.kind when 'purchased' then -v_take else 0 end,
    case v_lot.kind when 'promotional' then -v_take else 0 end, v_result.debt, p_reference, p_description, p_metadata)).transaction_id;
  return v_result;
end
$$;

create or replace function governance.end_subscription_lots(p_account_id bigint, p_on_cancel text, p_now timestamptz, p_reference text, p_lot_id bigint default null) returns bigint
  language plpgsql set search_path = '' as $$
declare
  v_lot record;
  v_free bigint;
  v_take bigint;
  v_moved bigint := 0;
begin
  if p_on_cancel = 'keep' then return 0; end if;
  for v_lot in select l.lot_id, l.remaining from governance.lots l
    where l.account_id = p_account_id and l.kind = 'subscription' and l.is_open and (p_lot_id is null or l.lot_id = p_lot_id) order by l.lot_id
  loop
    if p_on_cancel = 'convert' then
      update governance.lots l set kind = 'purchased', expires_at = null where l.lot_id = v_lot.lot_id;
      perform governance.append_entry(p_account_id, 'adjustment', p_now, array[v_lot.lot_id, 0::bigint], -v_lot.remaining, v_lot.remaining, 0, 0, p_reference,
        'Subscription ended: its tokens are kept as purchased');
      v_moved := v_moved + v_lot.remaining;
    else
      select a.subscription_tokens + a.purchased_tokens + a.promotional_tokens - a.reserved_tokens into strict v_free
      from governance.accounts a where a.account_id = p_account_id;
      -- What is held for calls under way expires when they end.
      v_take := least(v_lot.remaining, v_free);
      update governance.lots l set remaining = l.remaining - v_take, expired = l.expired + v_take, expires_at = least(l.expires_at, p_now),
        is_open = l.remaining - v_take + l.frozen > 0
      where l.lot_id = v_lot.lot_id;
      if v_take < v_lot.remaining then
        update governance.accounts a set lots_check_at = least(a.lots_check_at, p_now) where a.account_id = p_account_id;
      end if;
      -- That the lot ends now is on record even where all of it is held or frozen.
      perform governance.append_entry(p_account_id, 'expiry', p_now, array[v_lot.lot_id, -v_take], -v_take, 0, 0, 0, p_reference, 'Subscription ended');
      v_moved := v_moved - v_take;
    end if;
  end loop;
  return v_moved;
end
$$;

-- ---------------------------------------------------------------------------------------------------------------
-- A month that turns takes its day along
-- ---------------------------------------------------------------------------------------------------------------

create or replace function governance.roll_account(p_account_id bigint, p_now timestamptz) returns governance.rolled
  language plpgsql set search_path = '' as $$
declare
  a governance.accounts;
  v_plan governance.plans;
  v_lot governance.lots;
  v_take bigint;
  v_day date;
  v_month date;
  v_grant_month date;
  v_result governance.rolled := row(0, 0, 0);
begin
  select * into strict a from governance.accounts x where x.account_id = p_account_id;
  if a.holds_check_at <= p_now then
    v_result.expired_holds := governance.expire_account_holds(p_account_id, p_now);
    select * into strict a from governance.accounts x where x.account_id = p_account_id;
  end if;

  if a.lots_check_at <= p_now then
    for v_lot in
      select * from governance.lots l
      where l.account_id = p_account_id and l.is_open and l.expires_at <= p_now and l.remaining > 0
      order by l.expires_at, l.lot_id
    loop
      -- Tokens held for calls under way outlive their lot until those calls end.
      v_take := least(v_lot.remaining, a.subscription_tokens + a.purchased_tokens + a.promotional_tokens - a.reserved_tokens);
      exit when v_take = 0;
      update governance.lots l set remaining = l.remaining - v_take, expired = l.expired + v_take, is_open = l.remaining - v_take + l.frozen > 0
      where l.lot_id = v_lot.lot_id;
      perform governance.append_entry(p_account_id, 'expiry', p_now, array[v_lot.lot_id, -v_take],
        case v_lot.kind when 'subscription' then -v_take else 0 end, case v_lot.kind when 'purchased' then -v_take else 0 end,
        case v_lot.kind when 'promotional' then -v_take else 0 end, 0, null, 'Expired');
      v_result.expired_lots := v_result.expired_lots + 1;
      select * into strict a from governance.accounts x where x.account_id = p_account_id;
    end loop;
    update governance.accounts x set lots_check_at = (
      select min(l.expires_at) from governance.lots l where l.account_id = p_account_id and l.is_open and l.remaining > 0)
    where x.account_id = p_account_id;
  end if;

  -- A new time zone may leave the end of the day behind that of its month: what a month counts is what its days have.
  if a.day_ends_at <= p_now or a.month_ends_at <= p_now then
    v_day := (p_now at time zone a.timezone)::date;
    update governance.accounts x set
      local_day = v_day, day_ends_at = (v_day + 1)::timestamp at time zone a.timezone,
      day_messages = 0, day_calls = 0, day_tokens = 0, day_cost_micros = 0
    where x.account_id = p_account_id;
  end if;
  if a.month_ends_at <= p_now then
    v_month := date_trunc('month', p_now at time zone a.timezone)::date;
    select * into strict v_plan from governance.plans p where p.plan_id = a.plan_id;
    update governance.accounts x set
      local_month = v_month, month_ends_at = (v_month + interval '1 month')::timestamp at time zone a.timezone,
      month_messages = 0, month_calls = 0, month_tokens = 0, month_cost_micros = 0, month_allowance = v_plan.monthly_allowance
    where x.account_id = p_account_id;
    if v_plan.monthly_allowance > 0 then
      -- Months that passed unseen are granted only as far as their tokens would still be there.
      v_grant_month := greatest((a.local_month + interval '1 month')::date, (v_month - v_plan.rollover_months * interval '1 month')::date);
      while v_grant_month <= v_month loop
        perform governance.grant_allowance(a, v_grant_month, v_plan.monthly_allowance, p_now, v_plan.rollover_months);
        v_result.allowances := v_result.allowances + 1;
        v_grant_month := (v_grant_month + interval '1 month')::date;
      end loop;
    end if;
  end if;
  return v_result;
end
$$;

-- ---------------------------------------------------------------------------------------------------------------
-- A refund that failed, or a dispute that was won after all, once the tokens were spent: the debt for them is struck
-- before the payment's row says that nothing is taken back. The other way round the row's check refused it, and the
-- event waited for a person as malformed.
-- ---------------------------------------------------------------------------------------------------------------

create or replace function governance.settle_payment(p_payment_id bigint, p_now timestamptz, p_cause text, p_difference_id text default null) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_pay governance.stripe_payments;
  v_account governance.accounts;
  v_refunded bigint;
  v_refund_id text;
  v_lost bigint;
  v_open boolean;
  v_dispute_id text;
  v_disputed bigint;
  v_lot record;
  v_due_reversed bigint;
  v_due_clawed bigint;
  v_move bigint;
  v_taking governance.lot_taking;
  v_entry bigint;
  v_reference text;
  v_metadata jsonb;
  v_effects jsonb := '[]';
  v_moved boolean := false;
begin
  select * into v_pay from governance.stripe_payments p where p.payment_id = p_payment_id;
  if v_pay.account_id is null then return v_effects; end if;
  -- Nothing was refunded or disputed: the common case.
  if v_pay.refunded_minor = 0 and v_pay.refunded_override_at is null
    and not exists (select from governance.stripe_refunds r where r.payment_id = p_payment_id)
    and not exists (select from governance.stripe_disputes d where d.payment_id = p_payment_id) then
    return v_effects;
  end if;
  v_account := governance.lock_account_id(v_pay.account_id);

  select greatest(coalesce(sum(r.amount_minor) filter (where r.state = 2), 0),
      v_pay.refunded_minor - coalesce(sum(r.amount_minor) filter (where r.state = 3), 0)),
    case when count(*) filter (where r.state = 2) = 1 then max(r.refund_id) filter (where r.state = 2) end
  into v_refunded, v_refund_id
  from governance.stripe_refunds r where r.payment_id = p_payment_id;
  if v_pay.refunded_override_at is not null
    and not exists (select from governance.stripe_refunds r where r.payment_id = p_payment_id and r.told_at > v_pay.refunded_override_at)
    and coalesce(v_pay.refunded_at, '-infinity') <= v_pay.refunded_override_at then
    v_refunded := v_pay.refunded_override_minor;
  end if;
  select coalesce(sum(d.amount_minor) filter (where d.stage = 3 and d.is_lost), 0), coalesce(bool_or(d.stage = 2 and not d.is_reinstated), false),
    max(d.dispute_id), coalesce(max(d.amount_minor), 0)
  into v_lost, v_open, v_dispute_id, v_disputed
  from governance.stripe_disputes d where d.payment_id = p_payment_id;
  v_reference := coalesce(v_pay.charge_id, v_pay.payment_intent_id, v_pay.invoice_id, v_pay.checkout_session_id);
  v_metadata := jsonb_strip_nulls(jsonb_build_object('cause', p_cause, 'charge_id', v_pay.charge_id, 'payment_intent_id', v_pay.payment_intent_id,
    'invoice_id', v_pay.invoice_id, 'difference_id', p_difference_id));

  for v_lot in
    select s.*, l.remaining, l.frozen from governance.stripe_lots s join governance.lots l using (lot_id)
    where s.payment_id = p_payment_id and not s.is_void order by s.lot_id
  loop
    v_due_reversed := governance.pro_rata(v_lot.tokens, v_refunded, v_pay.amount_minor);
    if v_refunded = 0 then v_due_reversed := 0; end if;
    v_due_clawed := case when v_lost = 0 then 0
      else least(governance.pro_rata(v_lot.tokens, v_lost, v_pay.amount_minor), v_lot.tokens - v_due_reversed) end;

    -- Given back first, so that the sums never pass what was bought; and what is owed for it struck before it is no longer taken.
    if v_due_clawed < v_lot.clawed then
      v_move := v_lot.clawed - v_due_clawed;
      v_entry := governance.give_back(v_lot.lot_id, v_move, p_now, v_reference, 'Dispute won: given back', v_metadata || jsonb_strip_nulls(jsonb_build_object('dispute_id', v_dispute_id)));
      update governance.stripe_lots s set clawed = v_due_clawed where s.lot_id = v_lot.lot_id;
      update governance.stripe_lots s set dispute_state = 'released' where s.lot_id = v_lot.lot_id and v_due_clawed = 0 and v_lost = 0;
      perform governance.record_purchase(v_entry, 'dispute_release', v_lot.lot_id, p_payment_id, v_move, 0, v_disputed, v_pay.currency, null, v_dispute_id,
        p_difference_id => p_difference_id);
      v_effects := v_effects || governance.effect('dispute_release', v_account.user_id, v_move, v_entry);
      v_moved := true;
    end if;
    if v_due_reversed < v_lot.reversed then
      v_move := v_lot.reversed - v_due_reversed;
      v_entry := governance.give_back(v_lot.lot_id, v_move, p_now, v_reference, 'Refund failed: given back', v_metadata);
      update governance.stripe_lots s set reversed = v_due_reversed where s.lot_id = v_lot.lot_id;
      perform governance.record_purchase(v_entry, 'restoration', v_lot.lot_id, p_payment_id, v_move, 0, v_refunded, v_pay.currency,
        p_difference_id => p_difference_id);
      v_effects := v_effects || governance.effect('restoration', v_account.user_id, v_move, v_entry);
      v_moved := true;
    end if;
    if v_due_reversed > v_lot.reversed then
      v_move := v_due_reversed - v_lot.reversed;
      v_taking := governance.take_back(v_lot.lot_id, v_move, 'refund', p_now, v_reference, 'Refund', v_metadata || jsonb_strip_nulls(jsonb_build_object('refund_id', v_refund_id, 'refunded_minor', v_refunded)));
      update governance.stripe_lots s set reversed = v_due_reversed, owed = s.owed + v_taking.debt where s.lot_id = v_lot.lot_id;
      perform governance.record_purchase(v_taking.transaction_id, 'refund', v_lot.lot_id, p_payment_id, -v_move, v_taking.debt, v_refunded, v_pay.currency,
        v_refund_id, p_difference_id => p_difference_id);
      v_effects := v_effects || governance.effect('refund', v_account.user_id, -v_move, v_taking.transaction_id);
      v_moved := true;
    end if;
    if v_due_clawed > v_lot.clawed then
      v_move := v_due_clawed - v_lot.clawed;
      v_taking := governance.take_back(v_lot.lot_id, v_move, 'reversal', p_now, v_reference, 'Dispute lost', v_metadata || jsonb_strip_nulls(jsonb_build_object('dispute_id', v_dispute_id)));
      update governance.stripe_lots s set clawed = v_due_clawed, owed = s.owed + v_taking.debt, dispute_state = 'clawed' where s.lot_id = v_lot.lot_id;
      perform governance.record_purchase(v_taking.transaction_id, 'dispute_clawback', v_lot.lot_id, p_payment_id, -v_move, v_taking.debt, v_disputed, v_pay.currency,
        null, v_dispute_id, p_difference_id => p_difference_id);
      v_effects := v_effects || governance.effect('dispute_clawback', v_account.user_id, -v_move, v_taking.transaction_id);
      v_moved := true;
    end if;

    select l.remaining, l.frozen into strict v_lot.remaining, v_lot.frozen from governance.lots l where l.lot_id = v_lot.lot_id;
    if v_open and (v_lot.dispute_state <> 'held' or v_lot.remaining > 0) then
      v_taking := governance.freeze_lot(v_lot.lot_id, v_lot.remaining, p_now, v_reference, 'Dispute opened: frozen', v_metadata || jsonb_build_object('dispute_id', v_dispute_id));
      if v_taking.taken > 0 or v_lot.dispute_state <> 'held' then
        -- Nothing may be left to freeze; that it was tried is on record all the same.
        v_entry := coalesce(v_taking.transaction_id, (governance.append_entry(v_pay.account_id, 'reversal', p_now, '{}', 0, 0, 0, 0, v_reference,
          'Dispute opened: nothing left to freeze', v_metadata || jsonb_build_object('dispute_id', v_dispute_id))).transaction_id);
        update governance.stripe_lots s set dispute_state = 'held' where s.lot_id = v_lot.lot_id;
        perform governance.record_purchase(v_entry, 'dispute_hold', v_lot.lot_id, p_payment_id, -v_taking.taken, 0, v_disputed, v_pay.currency, null, v_dispute_id,
          p_difference_id => p_difference_id);
        v_effects := v_effects || governance.effect('dispute_hold', v_account.user_id, -v_taking.taken, v_entry);
      end if;
    elsif not v_open and (v_lot.dispute_state = 'held' or v_lot.frozen > 0) then
      v_taking := governance.thaw_lot(v_lot.lot_id, v_lot.frozen, p_now, v_reference, 'Dispute decided: thawed', v_metadata || jsonb_strip_nulls(jsonb_build_object('dispute_id', v_dispute_id)));
      if v_due_clawed = 0 then
        v_entry := coalesce(v_taking.transaction_id, (governance.append_entry(v_pay.account_id, 'reversal', p_now, '{}', 0, 0, 0, 0, v_reference,
          'Dispute decided: nothing was frozen', v_metadata || jsonb_strip_nulls(jsonb_build_object('dispute_id', v_dispute_id)))).transaction_id);
        update governance.stripe_lots s set dispute_state = 'released' where s.lot_id = v_lot.lot_id;
        perform governance.record_purchase(v_entry, 'dispute_release', v_lot.lot_id, p_payment_id, v_taking.taken, 0, v_disputed, v_pay.currency, null, v_dispute_id,
          p_difference_id => p_difference_id);
        v_effects := v_effects || governance.effect('dispute_release', v_account.user_id, v_taking.taken, v_entry);
      end if;
      v_moved := true;
    end if;
  end loop;
  if v_moved then
    perform governance.recover_debt(v_pay.account_id, p_now, v_reference);
    perform governance.ring('accounts', p_now);
  end if;
  return v_effects;
end
$$;

-- ---------------------------------------------------------------------------------------------------------------
-- Anchors: a hash over the hashes of all entries, once a day. What happens before an anchor cannot be told otherwise
-- afterwards, not even by whoever reckons an account's whole chain anew, without all later anchors; and those have left:
-- PostgreSQL's log has them, and whoever asked public.verify_ledger.
-- ---------------------------------------------------------------------------------------------------------------

insert into governance.maintenance_state (key, value) values ('anchored_ledger', '{"upto": 0, "hash": "", "mark": 0, "mark_xid": "0"}');

create function governance.anchor_ledger(p_now timestamptz) returns void
  language plpgsql set search_path = '' as $$
declare
  v_day text := (p_now at time zone 'UTC')::date;
  v_state jsonb;
  v_upto bigint;
  v_entries bigint;
  v_hash text;
begin
  select s.value into v_state from governance.maintenance_state s where s.key = 'anchored_ledger' and s.value ->> 'day' is distinct from v_day for update skip locked;
  -- Up to the entries that were followed when the last anchor was made, once every transaction that can have had an id among them has ended.
  if v_state is null or exists (select from pg_snapshot_xip(pg_current_snapshot()) x where x < (v_state ->> 'mark_xid')::xid8) then return; end if;
  select max(x.transaction_id), count(*), encode(sha256(decode(v_state ->> 'hash', 'hex') || string_agg(x.hash, ''::bytea order by x.transaction_id)), 'hex')
  into v_upto, v_entries, v_hash
  from (select t.transaction_id, t.hash from governance.token_transactions t
    where t.transaction_id > (v_state ->> 'upto')::bigint and t.transaction_id <= (v_state ->> 'mark')::bigint order by t.transaction_id limit 1000000) x;
  if v_entries > 0 then
    v_state := v_state || jsonb_build_object('upto', v_upto, 'hash', v_hash);
    insert into governance.audit_log (created_at, action, details)
    values (p_now, 'ledger_anchor', jsonb_build_object('upto', v_upto, 'entries', v_entries, 'hash', v_hash));
    raise log 'governance: ledger anchor % up to entry %', v_hash, v_upto;
  end if;
  -- A long history is anchored in several rounds.
  if v_entries < 1000000 then
    v_state := v_state || jsonb_build_object('day', v_day, 'mark_xid', pg_current_xact_id(),
      'mark', (select (f.value ->> 'consumed')::bigint from governance.maintenance_state f where f.key = 'followed_events'));
  end if;
  update governance.maintenance_state s set value = v_state, updated_at = clock_timestamp() where s.key = 'anchored_ledger';
end
$$;
comment on function governance.anchor_ledger(timestamptz) is
  'Once a day, anchors what was entered up to the day before: SHA-256 over the anchor before and the hashes of the entries since, in order of id. Into the audit log, and PostgreSQL''s own.';

create or replace function public.run_maintenance() returns jsonb
  language plpgsql security definer set search_path = '' set jit = off as $$
declare
  v_now timestamptz := governance.now();
  v_until timestamptz := clock_timestamp() + interval '2 seconds';
  v_followed bigint := 0;
  v_count int := 0;
  v_months record;
  v_days int;
  v_alerts int;
  v_queued int;
  v_purged record;
  v_rolled record;
  v_problems int;
begin
  -- First, while this transaction has written nothing: see follow_events.
  loop
    v_count := governance.follow_events(2000);
    v_followed := v_followed + v_count;
    exit when v_count = 0 or clock_timestamp() > v_until;
  end loop;
  v_days := governance.aggregate_days();
  select * into v_purged from governance.purge(v_now);
  v_problems := governance.check_rollups(v_now);
  perform governance.anchor_ledger(v_now);
  v_alerts := v_problems + governance.evaluate_alerts(v_now);
  v_queued := governance.queue_notifications(v_now);
  if v_alerts > 0 or v_queued > 0 then
    perform governance.ring('alerts', v_now);
  end if;
  -- Last, because the calls of these accounts wait until this round is over.
  select * into v_rolled from governance.roll_due_accounts(v_now, 1000, interval '500 milliseconds');
  if v_rolled.expired_holds > 0 then
    perform governance.ring('feed', v_now);
  end if;
  select * into v_months from governance.keep_partitions(v_now);
  return governance.maintenance_answer(jsonb_build_object(
    'expired_reservations', v_rolled.expired_holds, 'expired_grants', v_rolled.expired_lots, 'allowances_reset', v_rolled.allowances,
    'days_aggregated', v_days, 'webhook_events_purged', v_purged.webhook_events_purged, 'alerts_triggered', v_alerts, 'notifications_queued', v_queued,
    'partitions_created', v_months.created, 'partitions_dropped', v_months.dropped, 'rows_purged', v_purged.rows_purged, 'rollup_problems', v_problems, 'accounts_failed', v_rolled.failed,
    'events_followed', v_followed,
    'more', not v_rolled.is_done or not v_months.is_done or v_count > 0 or v_days >= 40 or v_purged.rows_purged >= 5000 or v_purged.webhook_events_purged >= 5000));
end
$$;

-- ---------------------------------------------------------------------------------------------------------------
-- The proof
-- ---------------------------------------------------------------------------------------------------------------

create or replace function public.verify_ledger(p_user_id text default null) returns jsonb
  -- Estimates of what unnest answers are wild: compiling for them took longer than the work.
  language plpgsql stable security definer set search_path = '' set jit = off set plan_cache_mode = force_custom_plan as $$
declare
  v_account_id bigint;
  v_accounts bigint;
  v_entries bigint;
  v_problems jsonb;
begin
  if p_user_id is not null then
    perform governance.check_id('p_user_id', p_user_id);
    select a.account_id into v_account_id from governance.accounts a where a.user_id = p_user_id;
    if v_account_id is null then
      perform governance.fail('PT404', 'unknown_user', format('There is no account of user "%s"', left(p_user_id, 64)));
    end if;
  end if;
  with chained as (
    select t.transaction_id, t.account_id, t.amount, t.previous_balance, t.new_balance, t.previous_hash, t.hash, t.lot_changes,
      case when t.transaction_type = 'usage' then t.decision_id end as decision_id,
      governance.entry_hash(t.previous_hash, governance.entry_payload(t.transaction_id, t.created_at, t.transaction_type, t.amount,
        t.previous_balance, t.new_balance, t.debt_after, t.lot_changes, t.decision_id, a.user_id, t.reference, t.description, t.metadata)) as expected_hash,
      lag(t.hash) over w as hash_before, coalesce(lag(t.new_balance) over w, 0) as balance_before, t.debt_after - coalesce(lag(t.debt_after) over w, 0) as debt
    from governance.token_transactions t join governance.accounts a using (account_id)
    where v_account_id is null or t.account_id = v_account_id
    window w as (partition by t.account_id order by t.transaction_id)
  ), ledgers as (
    -- What calls were charged stands in their entries for ever: what left the lots, and what was added to the debt.
    select c.account_id, count(*) as entries, count(c.decision_id) as calls, sum(c.debt - c.amount) filter (where c.decision_id is not null) as charged,
      array_agg(jsonb_build_object('transaction_id', c.transaction_id, 'problem', case
        when c.hash <> c.expected_hash then 'hash_mismatch'
        when c.previous_hash is distinct from c.hash_before then 'chain_broken'
        when c.previous_balance <> c.balance_before or c.new_balance <> c.previous_balance + c.amount then 'balance_discontinuity'
        else 'lot_changes_mismatch' end))
      filter (where c.hash <> c.expected_hash or c.previous_hash is distinct from c.hash_before
        or c.previous_balance <> c.balance_before or c.new_balance <> c.previous_balance + c.amount
        or (case cardinality(c.lot_changes) when 2 then c.lot_changes[2] when 0 then 0
          else (select sum(x.v)::bigint from unnest(c.lot_changes) with ordinality x(v, n) where x.n % 2 = 0) end) <> c.amount) as problems
    from chained c group by c.account_id
  ), moved as (
    -- Nearly every entry moves one lot: only the others are taken apart. Of a lot's seals the last one stands.
    select m.account_id, m.lot_id, sum(m.tokens) as net, max(m.seal collate "C") as seal
    from (
      select t.account_id, t.lot_changes[1] as lot_id, t.lot_changes[2] as tokens,
        case when t.metadata is not null and governance.seals_lot(t.transaction_type, t.lot_changes, t.metadata)
          then lpad(t.transaction_id::text, 19, '0') || (t.metadata ->> 'lot_seal') end as seal
      from governance.token_transactions t
      where cardinality(t.lot_changes) = 2 and (v_account_id is null or t.account_id = v_account_id)
      union all
      select t.account_id, t.lot_changes[n * 2 - 1], t.lot_changes[n * 2], null
      from governance.token_transactions t cross join lateral generate_series(1, (cardinality(t.lot_changes) + 1) / 2) n
      where cardinality(t.lot_changes) > 2 and (v_account_id is null or t.account_id = v_account_id)) m
    group by 1, 2
  ), lot_problems as (
    select coalesce(l.account_id, m.account_id) as account_id, coalesce(l.lot_id, m.lot_id) as lot_id,
      coalesce(l.remaining, 0) as remaining, coalesce(m.net, 0) as net, governance.lot_seal(l) as found, substr(m.seal, 20) as expected
    from (select * from governance.lots x where v_account_id is null or x.account_id = v_account_id) l
    full join moved m on m.lot_id = l.lot_id and m.account_id = l.account_id
    where coalesce(l.remaining, -1) <> coalesce(m.net, -1) or l.granted <> l.remaining + l.frozen + l.spent + l.expired + l.clawed_back
      or substr(m.seal, 20) <> governance.lot_seal(l) or (not l.is_open and l.remaining + l.frozen > 0)
  ), source_problems as (
    -- Where a lot's money came from: as its payment is called, and as the last record of its price says, which says what its entry says.
    select x.account_id, x.lot_id
    from (
      select distinct on (l.lot_id) l.account_id, l.lot_id,
        l.stripe_charge_id <> p.charge_id or l.stripe_payment_intent_id <> p.payment_intent_id or l.stripe_checkout_session_id <> p.checkout_session_id as is_renamed,
        l.amount_minor is distinct from r.amount_minor or l.currency is distinct from r.currency or t.metadata ->> 'amount_minor' <> r.amount_minor::text
          or t.metadata ->> 'currency' <> r.currency or l.pack_id <> t.metadata ->> 'pack_id' as is_repriced
      from governance.lots l join governance.stripe_lots s using (lot_id) join governance.stripe_payments p using (payment_id)
      left join governance.purchase_records r on r.lot_id = l.lot_id and r.record_type in ('grant', 'relabel')
      left join governance.token_transactions t on t.transaction_id = r.transaction_id
      where v_account_id is null or l.account_id = v_account_id
      order by l.lot_id, r.transaction_id desc) x
    where x.is_renamed or x.is_repriced
  ), live as (
    select l.account_id,
      coalesce(sum(l.remaining) filter (where l.kind = 'subscription'), 0) as subscription,
      coalesce(sum(l.remaining) filter (where l.kind = 'purchased'), 0) as purchased,
      coalesce(sum(l.remaining) filter (where l.kind = 'promotional'), 0) as promotional,
      min(l.expires_at) filter (where l.remaining > 0) as expires_at
    from governance.lots l where l.is_open and (v_account_id is null or l.account_id = v_account_id) group by 1
  ), call_problems as (
    -- A call's entry outlives its row: an entry whose call is gone is in order unless the call's key is still there.
    select coalesce(t.account_id, r.account_id) as account_id, coalesce(t.decision_id, r.decision_id) as decision_id, t.transaction_id,
      case when r.decision_id is null then 'request_missing' when t.transaction_id is not null then 'request_mismatch'
        when r.status = 'settled' then 'usage_entry_missing' else 'hold_event_missing' end as problem,
      r.charged_tokens - r.unpaid_tokens as found, -t.amount as expected
    from (select x.account_id, x.decision_id, x.transaction_id, x.amount, x.reference, x.created_at from governance.token_transactions x
      where x.transaction_type = 'usage' and x.decision_id is not null and (v_account_id is null or x.account_id = v_account_id)) t
    full join (select y.account_id, y.decision_id, y.status, y.request_id, y.transaction_id, y.charged_tokens, y.unpaid_tokens, y.ended_at
      from governance.requests y where v_account_id is null or y.account_id = v_account_id) r
      on r.decision_id = t.decision_id
    left join governance.hold_events h on h.decision_id = r.decision_id and h.kind = r.status
    left join governance.request_keys k on k.request_id = t.reference and k.decision_id = t.decision_id and r.decision_id is null
    where case
      when r.decision_id is null then k.decision_id is not null
      when t.transaction_id is null then r.status = 'settled' or (r.status not in ('blocked', 'held') and h.decision_id is null)
      else r.status <> 'settled' or r.account_id <> t.account_id or r.request_id is distinct from t.reference or r.transaction_id is distinct from t.transaction_id
        or r.charged_tokens - r.unpaid_tokens is distinct from -t.amount or r.ended_at is distinct from t.created_at end
  ), calls as (
    select r.account_id, case when r.status = 'settled' then r.settled_model end as model,
      case when r.status = 'settled' then coalesce(r.task_type, '') end as task_type, case when r.status = 'settled' then coalesce(r.scope_id, '') end as scope_id,
      count(*) as calls, count(r.message_hash) as messages, sum(r.input_tokens) as input_tokens, sum(r.output_tokens) as output_tokens,
      sum(r.charged_tokens) as charged_tokens, coalesce(sum(r.cost_micros), 0) as cost_micros,
      sum(r.reserved_tokens) filter (where r.status = 'held') as held, min(r.created_at) filter (where r.status = 'held') as held_from,
      min(r.expires_at) filter (where r.status = 'held') as held_until,
      -- The last call: what it saw of the day's messages, and whether its day is the account's still. Older days matter to nobody.
      max(array[r.decision_id, r.seen_messages_today, (r.day_ends_at = a.day_ends_at)::int]) filter (where r.day_ends_at > a.day_ends_at - interval '4 days') as last_seen
    from governance.requests r join governance.accounts a using (account_id)
    where v_account_id is null or r.account_id = v_account_id
    group by 1, 2, 3, 4
  ), account_calls as (
    select c.account_id, sum(c.calls) filter (where c.model is not null) as settled, sum(c.held) as held, min(c.held_from) as held_from,
      min(c.held_until) as held_until, max(c.last_seen) as last_seen
    from calls c group by 1
  ), used as (
    -- What was imported was counted too, and is no call of ours.
    select d.account_id, d.model, d.task_type, d.scope_id, sum(d.calls) as calls, sum(d.messages) as messages, sum(d.input_tokens) as input_tokens,
      sum(d.output_tokens) as output_tokens, sum(d.charged_tokens) as charged_tokens, sum(d.cost_micros) as cost_micros,
      sum(d.charged_tokens) filter (where d.day = a.local_day) as day_tokens, sum(d.cost_micros) filter (where d.day = a.local_day) as day_cost,
      sum(d.charged_tokens) filter (where d.day >= a.local_month and d.day < a.local_month + interval '1 month') as month_tokens,
      sum(d.cost_micros) filter (where d.day >= a.local_month and d.day < a.local_month + interval '1 month') as month_cost
    from (
      select u.account_id, u.day, u.model, u.task_type, u.scope_id, u.calls, u.messages, u.input_tokens, u.output_tokens, u.charged_tokens, u.cost_micros
      from governance.usage_daily u where v_account_id is null or u.account_id = v_account_id
      union all
      select i.account_id, i.day, i.model, i.task_type, '', -1, -1, -i.input_tokens, -i.output_tokens, 0, -coalesce(i.cost_micros, 0)
      from governance.imported_usage i where v_account_id is null or i.account_id = v_account_id) d
    join governance.accounts a using (account_id)
    group by 1, 2, 3, 4
  ), account_used as (
    select u.account_id, sum(u.calls) as calls, sum(u.charged_tokens) as charged, sum(u.day_tokens) as day_tokens, sum(u.day_cost) as day_cost,
      sum(u.month_tokens) as month_tokens, sum(u.month_cost) as month_cost
    from used u group by 1
  ), usage_problems as (
    select account_id, model, task_type, scope_id, p.measure, p.found, p.expected
    from used u full join (select * from calls c where c.model is not null) r using (account_id, model, task_type, scope_id)
    left join ledgers l using (account_id) left join account_calls y using (account_id)
    cross join lateral (values
      ('calls', u.calls, r.calls), ('messages', u.messages, r.messages), ('input_tokens', u.input_tokens, r.input_tokens),
      ('output_tokens', u.output_tokens, r.output_tokens), ('charged_tokens', u.charged_tokens, r.charged_tokens),
      ('cost_micros', u.cost_micros, r.cost_micros)) p(measure, found, expected)
    -- Where retention has dropped calls, the roll-up may have more than the calls that are left, never less.
    where case when l.calls > coalesce(y.settled, 0) then coalesce(p.found, 0) < p.expected else coalesce(p.found, 0) <> coalesce(p.expected, 0) end
  ), account_problems as (
    select a.account_id, p.problem, to_jsonb(p.found) as found, to_jsonb(p.expected) as expected
    from governance.accounts a
    left join live v using (account_id) left join ledgers g using (account_id) left join account_calls c using (account_id) left join account_used u using (account_id)
    left join lateral (select t.* from governance.token_transactions t where t.account_id = a.account_id order by t.transaction_id desc limit 1) last on true
    cross join lateral (values
      ('balance_mismatch', a.subscription_tokens + a.purchased_tokens + a.promotional_tokens, coalesce(last.new_balance, 0)),
      ('lots_mismatch', coalesce(v.subscription + v.purchased + v.promotional, 0), a.subscription_tokens + a.purchased_tokens + a.promotional_tokens),
      ('subscription_mismatch', coalesce(v.subscription, 0), a.subscription_tokens),
      ('purchased_mismatch', coalesce(v.purchased, 0), a.purchased_tokens),
      ('promotional_mismatch', coalesce(v.promotional, 0), a.promotional_tokens),
      ('debt_mismatch', a.debt_tokens, coalesce(last.debt_after, 0)),
      ('entries_missing', coalesce(last.transaction_id, 0), coalesce(a.last_transaction_id, 0)),
      ('head_mismatch', case when last.hash is distinct from a.last_hash then 1 else 0 end, 0),
      ('over_reserved', greatest(a.reserved_tokens - a.subscription_tokens - a.purchased_tokens - a.promotional_tokens, 0), 0),
      ('holds_mismatch', a.reserved_tokens, coalesce(c.held, 0)),
      ('usage_mismatch', coalesce(u.charged, 0), coalesce(g.charged, 0)),
      ('usage_mismatch', coalesce(u.calls, 0), coalesce(g.calls, 0)),
      ('day_tokens_mismatch', a.day_tokens, coalesce(u.day_tokens, 0)),
      ('month_tokens_mismatch', a.month_tokens, coalesce(u.month_tokens, 0)),
      ('day_cost_mismatch', a.day_cost_micros, coalesce(u.day_cost, 0)),
      ('month_cost_mismatch', a.month_cost_micros, coalesce(u.month_cost, 0)),
      -- No call since the day turned, or since new time zones moved its end and left its count.
      ('day_messages_mismatch', a.day_messages, case when a.day_messages = 0 and coalesce(c.last_seen[3], 0) = 0 then 0 else coalesce(c.last_seen[2], 0) end)
    ) p(problem, found, expected)
    where (v_account_id is null or a.account_id = v_account_id) and p.found is distinct from p.expected
    union all
    select a.account_id, p.problem, to_jsonb(p.found), to_jsonb(p.latest)
    from governance.accounts a left join live v using (account_id) left join account_calls c using (account_id)
    cross join lateral (values
      ('lots_check_mismatch', a.lots_check_at, v.expires_at),
      ('holds_from_mismatch', a.holds_from, c.held_from),
      ('holds_check_mismatch', a.holds_check_at, c.held_until)) p(problem, found, latest)
    where (v_account_id is null or a.account_id = v_account_id)
      and (p.found > p.latest or (p.found is null) <> (p.latest is null) and (p.latest is not null or p.problem <> 'lots_check_mismatch'))
  ), orphans as (
    -- Books whose account was deleted: no join with accounts would show them.
    select x.account_id from (select t.account_id from governance.token_transactions t union select l.account_id from governance.lots l
      union select u.account_id from governance.usage_daily u) x
    where v_account_id is null and not exists (select from governance.accounts a where a.account_id = x.account_id)
  ), anchors as (
    -- A forged one may say anything: what is no number and no hash is a mismatch.
    select x.audit_id, x.upto, x.hash, coalesce(lag(x.upto) over w, 0) as after, coalesce(lag(x.hash) over w, '') as hash_before,
      lead(x.audit_id) over w is null as is_last
    from (select y.audit_id, case when y.details ->> 'upto' ~ '^[0-9]{1,18}$' then (y.details ->> 'upto')::bigint end as upto,
        case when y.details ->> 'hash' ~ '^[0-9a-f]{64}$' then y.details ->> 'hash' end as hash
      from governance.audit_log y where y.action = 'ledger_anchor' and v_account_id is null) x
    window w as (order by x.audit_id)
  ), anchor_problems as (
    select a.upto from anchors a cross join lateral (
      select string_agg(t.hash, ''::bytea order by t.transaction_id) as hashes from governance.token_transactions t
      where t.transaction_id > a.after and t.transaction_id <= a.upto) e
    where a.hash is null or a.upto is null or a.hash is distinct from encode(sha256(decode(a.hash_before, 'hex') || e.hashes), 'hex')
    union
    select (s.value ->> 'upto')::bigint from governance.maintenance_state s left join anchors a on a.is_last
    where s.key = 'anchored_ledger' and v_account_id is null and s.value ->> 'hash' <> coalesce(a.hash, '')
  ), problems as (
    select null::bigint as account_id, jsonb_build_object('problem', 'anchor_mismatch', 'upto', a.upto) as problem, 0 as rank, a.upto as n from anchor_problems a
    union all
    select o.account_id, jsonb_build_object('problem', 'account_missing'), 0, o.account_id from orphans o
    union all
    select g.account_id, e.problem, 1, (e.problem ->> 'transaction_id')::bigint from ledgers g cross join lateral unnest(g.problems[:1000]) e(problem)
    union all
    select l.account_id, case when l.found <> l.expected and l.remaining = l.net
      then jsonb_build_object('problem', 'seal_mismatch', 'grant_id', l.lot_id, 'found', l.found, 'expected', l.expected)
      else jsonb_build_object('problem', 'lot_mismatch', 'grant_id', l.lot_id, 'found', l.remaining, 'expected', l.net) end, 2, l.lot_id
    from lot_problems l
    union all
    select x.account_id, jsonb_build_object('problem', 'source_mismatch', 'grant_id', x.lot_id), 2, x.lot_id from source_problems x
    union all
    select p.account_id, jsonb_build_object('problem', p.problem, 'found', p.found, 'expected', p.expected), 3, 0 from account_problems p
    union all
    select c.account_id, jsonb_strip_nulls(jsonb_build_object('problem', c.problem, 'decision_id', c.decision_id, 'transaction_id', c.transaction_id,
      'found', c.found, 'expected', c.expected)), 4, c.decision_id from call_problems c
    union all
    select u.account_id, jsonb_build_object('problem', 'usage_mismatch', 'model', u.model, 'task_type', u.task_type, 'scope_id', u.scope_id,
      'measure', u.measure, 'found', coalesce(u.found, 0), 'expected', coalesce(u.expected, 0)), 5, 0 from usage_problems u
  )
  select
    (select count(*) from governance.accounts a where v_account_id is null or a.account_id = v_account_id),
    (select coalesce(sum(g.entries), 0) from ledgers g),
    (select coalesce(jsonb_agg(s.problem), '[]') from (
      select p.problem || case when a.user_id is not null then jsonb_build_object('user_id', a.user_id)
        when p.account_id is not null then jsonb_build_object('account_id', p.account_id) else '{}' end as problem
      from problems p left join governance.accounts a using (account_id) order by p.rank, p.n limit 1000) s)
  into v_accounts, v_entries, v_problems;
  return jsonb_build_object('accounts_checked', v_accounts, 'entries_checked', v_entries, 'problems', v_problems,
    'anchor', (select jsonb_build_object('upto', s.value -> 'upto', 'hash', s.value -> 'hash') from governance.maintenance_state s
      where s.key = 'anchored_ledger' and s.value -> 'upto' <> '0'));
end
$$;
comment on function public.verify_ledger(text) is
  'Checks the proof of one account, or of all: chain of hashes, continuity of balances, lots against entries and their seals, account and counters against both, calls and roll-up against entries, all entries against the daily anchors. problems is empty when all is sound; at most 1,000 are named (supabase/CONVENTIONS.md lists them). anchor is the last one: upto, hash. Errors: invalid_argument, unknown_user.';
revoke all on function public.verify_ledger(text) from public, anon, authenticated;
grant execute on function public.verify_ledger(text) to service_role;

revoke all on all functions in schema governance from public;
