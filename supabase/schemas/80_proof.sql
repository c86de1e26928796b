-- The proof: whether the books are sound. The ledger is hashed, and everything kept beside it can be derived from it.
-- supabase/CONVENTIONS.md lists what public.verify_ledger checks, and what cannot be detected from inside the database.

-- An entry that does anything but spend a lot records, under its hash, the state of the lot after it. What calls and
-- debt spend is known from the tokens of their entries, so calls seal nothing.
create function governance.lot_seal(l governance.lots) returns text
  language sql stable set search_path = '' as $$
  select concat_ws('|', l.kind, extract(epoch from l.created_at), coalesce(extract(epoch from l.expires_at)::text, '-'),
    l.granted, l.frozen, l.expired, l.clawed_back)
$$;
comment on function governance.lot_seal(governance.lots) is
  'The parts of a lot that spending does not change: kind | created at | expires at or "-" (seconds since 1970) | '
  'granted | frozen | expired | clawed back.';

create function governance.seals_lot(p_type text, p_lot_changes bigint[], p_metadata jsonb) returns boolean
  language sql immutable set search_path = '' as $$
  select cardinality(p_lot_changes) = 2
    and (p_lot_changes[2] >= 0 or p_type in ('expiry', 'refund', 'reversal')
      or (p_type = 'adjustment' and coalesce(p_metadata ?| array['difference_id', 'cause'], false)))
$$;
comment on function governance.seals_lot(text, bigint[], jsonb) is
  'Whether an entry seals the one lot that it names: all do that may have done more than spend it.';

create function governance.check_entries(p_account_id bigint)
  returns table (account_id bigint, entries bigint, calls bigint, charged numeric, problems jsonb[])
  language plpgsql stable set search_path = '' as $$
begin
  return query
  with chained as (
    select t.transaction_id, t.account_id, t.amount, t.previous_balance, t.new_balance, t.previous_hash, t.hash,
      t.lot_changes,
      case when t.transaction_type = 'usage' then t.decision_id end as decision_id,
      governance.entry_hash(t.previous_hash,
        governance.entry_payload(t.transaction_id, t.created_at, t.transaction_type, t.amount,
        t.previous_balance, t.new_balance, t.debt_after, t.lot_changes, t.decision_id, a.user_id, t.reference,
          t.description, t.metadata)) as expected_hash,
      lag(t.hash) over w as hash_before, coalesce(lag(t.new_balance) over w, 0) as balance_before,
        t.debt_after - coalesce(lag(t.debt_after) over w, 0) as debt
    from governance.token_transactions t join governance.accounts a using (account_id)
    where p_account_id is null or t.account_id = p_account_id
    window w as (partition by t.account_id order by t.transaction_id)
  
  )
  -- The charge of a call is in its entry for ever: the tokens that left the lots, and those added to the debt.
  select c.account_id, count(*) as entries, count(c.decision_id) as calls,
    sum(c.debt - c.amount) filter (where c.decision_id is not null) as charged,
    array_agg(jsonb_build_object('transaction_id', c.transaction_id, 'problem', case
      when c.hash <> c.expected_hash then 'hash_mismatch'
      when c.previous_hash is distinct from c.hash_before then 'chain_broken'
      when c.previous_balance <> c.balance_before
        or c.new_balance <> c.previous_balance + c.amount then 'balance_discontinuity'
      else 'lot_changes_mismatch' end))
    filter (where c.hash <> c.expected_hash or c.previous_hash is distinct from c.hash_before
      or c.previous_balance <> c.balance_before or c.new_balance <> c.previous_balance + c.amount
      or (case cardinality(c.lot_changes) when 2 then c.lot_changes[2] when 0 then 0
        else (select sum(x.v)::bigint from unnest(c.lot_changes) with ordinality x(v, n) where x.n % 2 = 0)
          end) <> c.amount) as problems
  from chained c group by c.account_id
  ;
end
$$;
comment on function governance.check_entries(bigint) is
  'The entries of one account, or of all: how many, how many of calls, what calls were charged, and which break the '
  'chain of hashes and balances.';

create function governance.check_lots(p_account_id bigint)
  returns table (account_id bigint, problem jsonb, rank int, place bigint)
  language plpgsql stable set search_path = '' as $$
begin
  return query
  with moved as (
    -- Nearly every entry moves one lot: only the others are taken apart. Of a lot's seals the last one counts.
    select m.account_id, m.lot_id, sum(m.tokens) as net, max(m.seal collate "C") as seal
    from (
      select t.account_id, t.lot_changes[1] as lot_id, t.lot_changes[2] as tokens,
        case when t.metadata is not null and governance.seals_lot(t.transaction_type, t.lot_changes, t.metadata)
          then lpad(t.transaction_id::text, 19, '0') || (t.metadata ->> 'lot_seal') end as seal
      from governance.token_transactions t
      where cardinality(t.lot_changes) = 2 and (p_account_id is null or t.account_id = p_account_id)
      union all
      select t.account_id, t.lot_changes[n * 2 - 1], t.lot_changes[n * 2], null
      from governance.token_transactions t cross join lateral generate_series(1, (cardinality(t.lot_changes) + 1) / 2) n
      where cardinality(t.lot_changes) > 2 and (p_account_id is null or t.account_id = p_account_id)) m
    group by 1, 2
  
  ), lot_problems as (
    select coalesce(l.account_id, m.account_id) as account_id, coalesce(l.lot_id, m.lot_id) as lot_id,
      coalesce(l.remaining, 0) as remaining, coalesce(m.net, 0) as net, governance.lot_seal(l) as found,
        substr(m.seal, 20) as expected
    from (select * from governance.lots x where p_account_id is null or x.account_id = p_account_id) l
    full join moved m on m.lot_id = l.lot_id and m.account_id = l.account_id
    where coalesce(l.remaining, -1) <> coalesce(m.net, -1)
      or l.granted <> l.remaining + l.frozen + l.spent + l.expired + l.clawed_back
      or substr(m.seal, 20) <> governance.lot_seal(l) or (not l.is_open and l.remaining + l.frozen > 0)
  
  ), source_problems as (
    -- Where a lot's money came from: its ids must be those of its payment; its price must be that of its last record,
    -- and that of its entry.
    select x.account_id, x.lot_id
    from (
      select distinct on (l.lot_id) l.account_id, l.lot_id,
        exists (
          select from (values (l.stripe_charge_id, p.charge_id), (l.stripe_payment_intent_id, p.payment_intent_id),
            (l.stripe_checkout_session_id, p.checkout_session_id)) n(of_lot, of_payment)
          where n.of_lot <> n.of_payment and not exists (select from governance.stripe_payment_names x
            where x.name = n.of_lot and x.payment_id = p.payment_id)) as is_renamed,
        l.amount_minor is distinct from r.amount_minor or l.currency
          is distinct from r.currency or t.metadata ->> 'amount_minor' <> r.amount_minor::text
          or t.metadata ->> 'currency' <> r.currency or l.pack_id <> t.metadata ->> 'pack_id' as is_repriced
      from governance.lots l join governance.stripe_lots s using (lot_id)
        join governance.stripe_payments p using (payment_id)
      left join governance.purchase_records r on r.lot_id = l.lot_id
        and r.record_type in ('grant', 'relabel', 'supplement')
      left join governance.token_transactions t on t.transaction_id = r.transaction_id
      where p_account_id is null or l.account_id = p_account_id
      order by l.lot_id, r.transaction_id desc) x
    where x.is_renamed or x.is_repriced
  
  )
  select l.account_id, case when l.found <> l.expected and l.remaining = l.net
    then jsonb_build_object('problem', 'seal_mismatch', 'lot_id', l.lot_id, 'found', l.found, 'expected', l.expected)
    else jsonb_build_object('problem', 'lot_mismatch', 'lot_id', l.lot_id, 'found', l.remaining, 'expected', l.net)
      end, 2, l.lot_id
  from lot_problems l
  union all
  select x.account_id, jsonb_build_object('problem', 'source_mismatch', 'lot_id', x.lot_id), 2, x.lot_id
  from source_problems x;
end
$$;
comment on function governance.check_lots(bigint) is
  'Lots that differ from their entries, their seals, or the payments that bought them.';

create function governance.check_calls(p_account_id bigint)
  returns table (account_id bigint, problem jsonb, rank int, place bigint)
  language plpgsql stable set search_path = '' as $$
begin
  return query
  with call_problems as (
    -- A call's entry outlives its row: an entry whose call is gone is in order unless the call's key is still there.
    select coalesce(t.account_id, r.account_id) as account_id, coalesce(t.decision_id, r.decision_id) as decision_id,
      t.transaction_id,
      case when r.decision_id is null then 'request_missing' when t.transaction_id is not null then 'request_mismatch'
        when r.status = 'settled' then 'usage_entry_missing' else 'hold_event_missing' end as problem,
      r.charged_tokens - r.unpaid_tokens as found, -t.amount as expected
    from (select x.account_id, x.decision_id, x.transaction_id, x.amount, x.reference, x.created_at
      from governance.token_transactions x
      where x.transaction_type = 'usage' and x.decision_id is not null
        and (p_account_id is null or x.account_id = p_account_id)) t
    full join (select y.account_id, y.decision_id, y.status, y.request_id, y.transaction_id, y.charged_tokens,
      y.unpaid_tokens, y.ended_at
      from governance.requests y where p_account_id is null or y.account_id = p_account_id) r
      on r.decision_id = t.decision_id
    left join governance.hold_events h on h.decision_id = r.decision_id and h.kind = r.status
    left join governance.request_keys k on k.request_id = t.reference and k.decision_id = t.decision_id
      and r.decision_id is null
    where case
      when r.decision_id is null then k.decision_id is not null
      when t.transaction_id is null then r.status = 'settled'
        or (r.status not in ('blocked', 'held') and h.decision_id is null)
      else r.status <> 'settled' or r.account_id <> t.account_id or r.request_id
        is distinct from t.reference or r.transaction_id is distinct from t.transaction_id
        or r.charged_tokens - r.unpaid_tokens is distinct from -t.amount or r.ended_at is distinct from t.created_at end
  
  )
  select c.account_id, jsonb_strip_nulls(jsonb_build_object('problem', c.problem, 'decision_id', c.decision_id,
    'transaction_id', c.transaction_id, 'found', c.found, 'expected', c.expected)), 4, c.decision_id
  from call_problems c;
end
$$;
comment on function governance.check_calls(bigint) is
  'Calls that differ from their ledger entries or their hold events.';

create function governance.sum_calls(p_account_id bigint)
  returns table (account_id bigint, model text, task_type text, scope_id text, calls bigint, messages bigint,
    input_tokens numeric, output_tokens numeric, charged_tokens numeric, cost_micros numeric, held numeric,
    held_from timestamptz, held_until timestamptz, last_seen bigint[])
  language plpgsql stable set search_path = '' as $$
begin
  return query
  select r.account_id, case when r.status = 'settled' then r.settled_model end as model,
    case when r.status = 'settled' then coalesce(r.task_type, '') end as task_type, case
      when r.status = 'settled' then coalesce(r.scope_id, '') end as scope_id,
    count(*) as calls, count(r.message_hash) as messages, sum(r.input_tokens) as input_tokens,
      sum(r.output_tokens) as output_tokens,
    sum(r.charged_tokens) as charged_tokens, coalesce(sum(r.cost_micros), 0) as cost_micros,
    sum(r.reserved_tokens) filter (where r.status = 'held') as held,
      min(r.created_at) filter (where r.status = 'held') as held_from,
    min(r.expires_at) filter (where r.status = 'held') as held_until,
    -- The last call: what it saw of the day's messages, and whether its day is the account's still. Older days are
    -- not checked.
    max(array[r.decision_id, (r.facts).messages_today,
      (r.day_ends_at = a.day_ends_at)::int]) filter (where r.day_ends_at > a.day_ends_at - interval
        '4 days') as last_seen
  from governance.requests r join governance.accounts a using (account_id)
  where p_account_id is null or r.account_id = p_account_id
  group by 1, 2, 3, 4
  ;
end
$$;
comment on function governance.sum_calls(bigint) is
  'Calls added up by account and, where settled, by model, task and scope; with open holds and the last call of the '
  'day.';

create function governance.sum_usage(p_account_id bigint)
  returns table (account_id bigint, model text, task_type text, scope_id text, calls bigint, messages bigint,
    input_tokens numeric, output_tokens numeric, charged_tokens numeric, cost_micros numeric, day_tokens numeric,
    day_cost numeric, month_tokens numeric, month_cost numeric)
  language plpgsql stable set search_path = '' as $$
begin
  return query
  -- Imported usage was counted too, and is no call of ours.
  select d.account_id, d.model, d.task_type, d.scope_id, sum(d.calls) as calls, sum(d.messages) as messages,
    sum(d.input_tokens) as input_tokens,
    sum(d.output_tokens) as output_tokens, sum(d.charged_tokens) as charged_tokens, sum(d.cost_micros) as cost_micros,
    sum(d.charged_tokens) filter (where d.day = a.local_day) as day_tokens,
      sum(d.cost_micros) filter (where d.day = a.local_day) as day_cost,
    sum(d.charged_tokens) filter (where d.day >= a.local_month
      and d.day < a.local_month + interval '1 month') as month_tokens,
    sum(d.cost_micros) filter (where d.day >= a.local_month
      and d.day < a.local_month + interval '1 month') as month_cost
  from (
    select u.account_id, u.day, u.model, u.task_type, u.scope_id, u.calls, u.messages, u.input_tokens,
      u.output_tokens, u.charged_tokens, u.cost_micros
    from governance.usage_daily u where p_account_id is null or u.account_id = p_account_id
    union all
    select i.account_id, i.day, i.model, i.task_type, '', -1, -1, -i.input_tokens, -i.output_tokens, 0,
      -coalesce(i.cost_micros, 0)
    from governance.imported_usage i where p_account_id is null or i.account_id = p_account_id) d
  join governance.accounts a using (account_id)
  group by 1, 2, 3, 4
  ;
end
$$;
comment on function governance.sum_usage(bigint) is
  'The roll-up added up by account, model, task and scope, without what was imported.';

create function governance.check_orphans(p_account_id bigint)
  returns table (account_id bigint, problem jsonb, rank int, place bigint)
  language plpgsql stable set search_path = '' as $$
begin
  return query
  select x.account_id, jsonb_build_object('problem', 'account_missing'), 0, x.account_id
  from (
    select t.account_id from governance.token_transactions t
    union
    select l.account_id from governance.lots l
    union
    select u.account_id from governance.usage_daily u) x
  where p_account_id is null and not exists (select from governance.accounts a where a.account_id = x.account_id);
end
$$;
comment on function governance.check_orphans(bigint) is
  'Books whose account was deleted: no join with accounts would show them. Looks only where all accounts are checked.';

create function governance.sum_lots(p_account_id bigint)
  returns table (account_id bigint, subscription numeric, purchased numeric, promotional numeric,
    expires_at timestamptz)
  language plpgsql stable set search_path = '' as $$
begin
  return query
  select l.account_id,
    coalesce(sum(l.remaining) filter (where l.kind = 'subscription'), 0) as subscription,
    coalesce(sum(l.remaining) filter (where l.kind = 'purchased'), 0) as purchased,
    coalesce(sum(l.remaining) filter (where l.kind = 'promotional'), 0) as promotional,
    min(l.expires_at) filter (where l.remaining > 0) as expires_at
  from governance.lots l where l.is_open and (p_account_id is null or l.account_id = p_account_id) group by 1;
end
$$;
comment on function governance.sum_lots(bigint) is
  'Live tokens by account and kind, and the next moment at which some of them expire.';

-- jit is off: estimates of what unnest answers are wild, and compiling for them took longer than the work.
create function public.verify_ledger(p_user_id text default null) returns jsonb
  language plpgsql stable security definer set search_path = '' set jit = off
    set plan_cache_mode = force_custom_plan as $$
declare
  v_account_id bigint;
  v_accounts bigint;
  v_entries bigint;
  v_problems jsonb;
  v_at_once boolean := governance.pays_debt_at_once();
begin
  perform governance.refuse_others('verify_ledger');
  if p_user_id is not null then
    perform governance.check_id('p_user_id', p_user_id);
    v_account_id := governance.account_id_of(p_user_id);
  end if;
  with ledgers as materialized (
    select * from governance.check_entries(v_account_id)
  ), live as materialized (
    select * from governance.sum_lots(v_account_id)
  ), calls as materialized (
    select * from governance.sum_calls(v_account_id)
  ), used as materialized (
    select * from governance.sum_usage(v_account_id)
  ), account_calls as (
    select c.account_id, sum(c.calls) filter (where c.model is not null) as settled, sum(c.held) as held,
      min(c.held_from) as held_from, min(c.held_until) as held_until, max(c.last_seen) as last_seen
    from calls c group by 1
  ), account_used as (
    select u.account_id, sum(u.calls) as calls, sum(u.charged_tokens) as charged, sum(u.day_tokens) as day_tokens,
      sum(u.day_cost) as day_cost, sum(u.month_tokens) as month_tokens, sum(u.month_cost) as month_cost
    from used u group by 1
  ), usage_problems as (
    select account_id, model, task_type, scope_id, p.measure, p.found, p.expected
    from used u full join (select * from calls c where c.model is not null) r
      using (account_id, model, task_type, scope_id)
    left join ledgers l using (account_id) left join account_calls y using (account_id)
    cross join lateral (values
      ('calls', u.calls, r.calls), ('messages', u.messages, r.messages),
      ('input_tokens', u.input_tokens, r.input_tokens), ('output_tokens', u.output_tokens, r.output_tokens),
      ('charged_tokens', u.charged_tokens, r.charged_tokens),
      ('cost_micros', u.cost_micros, r.cost_micros)) p(measure, found, expected)
    -- Where retention has dropped calls, the roll-up may have more than the calls that are left, never less.
    where case when l.calls > coalesce(y.settled, 0) then coalesce(p.found, 0) < p.expected
      else coalesce(p.found, 0) <> coalesce(p.expected, 0) end
  ), account_problems as (
    select a.account_id, p.problem, to_jsonb(p.found) as found, to_jsonb(p.expected) as expected
    from governance.accounts a
    left join live v using (account_id) left join ledgers g using (account_id)
      left join account_calls c using (account_id) left join account_used u using (account_id)
    left join lateral (select t.* from governance.token_transactions t where t.account_id = a.account_id
      order by t.transaction_id desc limit 1) last on true
    cross join lateral (values
      ('balance_mismatch', a.subscription_tokens + a.purchased_tokens + a.promotional_tokens,
        coalesce(last.new_balance, 0)),
      ('lots_mismatch', coalesce(v.subscription + v.purchased + v.promotional, 0),
        a.subscription_tokens + a.purchased_tokens + a.promotional_tokens),
      ('subscription_mismatch', coalesce(v.subscription, 0), a.subscription_tokens),
      ('purchased_mismatch', coalesce(v.purchased, 0), a.purchased_tokens),
      ('promotional_mismatch', coalesce(v.promotional, 0), a.promotional_tokens),
      ('debt_mismatch', a.debt_tokens, coalesce(last.debt_after, 0)),
      ('entries_missing', coalesce(last.transaction_id, 0), coalesce(a.last_transaction_id, 0)),
      ('head_mismatch', case when last.hash is distinct from a.last_hash then 1 else 0 end, 0),
      ('over_reserved', greatest(a.reserved_tokens - a.subscription_tokens - a.purchased_tokens - a.promotional_tokens,
        0), 0),
      ('debt_beside_free', case when v_at_once then least(a.debt_tokens, a.subscription_tokens + a.purchased_tokens
        + a.promotional_tokens - a.reserved_tokens) else 0 end, 0),
      ('holds_mismatch', a.reserved_tokens, coalesce(c.held, 0)),
      ('usage_mismatch', coalesce(u.charged, 0), coalesce(g.charged, 0)),
      ('usage_mismatch', coalesce(u.calls, 0), coalesce(g.calls, 0)),
      ('day_tokens_mismatch', a.day_tokens, coalesce(u.day_tokens, 0)),
      ('month_tokens_mismatch', a.month_tokens, coalesce(u.month_tokens, 0)),
      ('day_cost_mismatch', a.day_cost_micros, coalesce(u.day_cost, 0)),
      ('month_cost_mismatch', a.month_cost_micros, coalesce(u.month_cost, 0)),
      -- No call since the day turned, or since new time zones moved its end and left its count.
      ('day_messages_mismatch', a.day_messages, case when a.day_messages = 0 and coalesce(c.last_seen[3], 0) = 0 then 0
        else coalesce(c.last_seen[2], 0) end)
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
      and (p.found > p.latest or (p.found is null) <> (p.latest is null)
        and (p.latest is not null or p.problem <> 'lots_check_mismatch'))
  ), problems as (
    select * from governance.check_anchors(v_account_id)
    union all
    select * from governance.check_orphans(v_account_id)
    union all
    select g.account_id, e.problem, 1, (e.problem ->> 'transaction_id')::bigint
    from ledgers g cross join lateral unnest(g.problems[:1000]) e(problem)
    union all
    select * from governance.check_lots(v_account_id)
    union all
    select p.account_id, jsonb_build_object('problem', p.problem, 'found', p.found, 'expected', p.expected), 3, 0
    from account_problems p
    union all
    select * from governance.check_calls(v_account_id)
    union all
    select u.account_id, jsonb_build_object('problem', 'usage_mismatch', 'model', u.model, 'task_type', u.task_type,
      'scope_id', u.scope_id, 'measure', u.measure, 'found', coalesce(u.found, 0),
      'expected', coalesce(u.expected, 0)), 5, 0
    from usage_problems u
  )
  select
    (select count(*) from governance.accounts a where v_account_id is null or a.account_id = v_account_id),
    (select coalesce(sum(g.entries), 0) from ledgers g),
    (select coalesce(jsonb_agg(s.problem), '[]') from (
      select p.problem || case when a.user_id is not null then jsonb_build_object('user_id', a.user_id)
        when p.account_id is not null then jsonb_build_object('account_id', p.account_id) else '{}' end as problem
      from problems p left join governance.accounts a using (account_id) order by p.rank, p.place limit 1000) s)
  into v_accounts, v_entries, v_problems;
  return jsonb_build_object('accounts_checked', v_accounts, 'entries_checked', v_entries, 'problems', v_problems,
    'anchor', governance.anchor_json());
end
$$;
comment on function public.verify_ledger(text) is
  'Checks the proof of one account, or of all: chain of hashes, continuity of balances, lots against entries and their '
  'seals, account and counters against both, calls and roll-up against entries, all entries against the daily anchors. '
  'problems is empty when all is sound; at most 1,000 are named (supabase/CONVENTIONS.md lists them). anchor is the '
  'last one: upto, hash. Errors: invalid_argument, unknown_user.';
revoke all on function public.verify_ledger(text) from public, anon, authenticated;
grant execute on function public.verify_ledger(text) to service_role;

create function public.verify_purchases() returns jsonb
  language plpgsql stable security definer set search_path = '' set jit = off as $$
declare
  v_problems jsonb;
begin
  perform governance.refuse_others('verify_purchases');
  with problems as (
    select 'lot_mismatch' as problem, s.lot_id, s.payment_id
    from governance.stripe_lots s left join governance.lots l using (lot_id)
    -- What the money took back is what left the lot and what is owed for it, until a correction takes its part.
    where ((s.reversed + s.clawed is distinct from l.clawed_back + s.owed or s.tokens <> l.granted)
        and not exists (select from governance.purchase_records r
          where r.lot_id = s.lot_id and r.record_type = 'adjustment'))
      or s.dispute_state not in ('none', 'held', 'released', 'clawed') or (l.frozen > 0 and s.dispute_state <> 'held')
    union all
    select 'payment_mismatch', null, p.payment_id
    from governance.stripe_payments p
    where least(p.amount_minor, p.refunded_minor, p.refunded_override_minor) < 0 or p.currency !~ '^[a-z]{3}$'
      or num_nonnulls(p.payment_intent_id, p.charge_id, p.checkout_session_id, p.invoice_id) = 0
    union all
    select 'account_mismatch', s.lot_id, s.payment_id
    from governance.stripe_lots s join governance.lots l using (lot_id)
      left join governance.stripe_payments p on p.payment_id = s.payment_id
    where p.account_id is distinct from l.account_id
    union all
    select 'record_mismatch', r.lot_id, r.payment_id
    from governance.purchase_records r left join governance.token_transactions t using (transaction_id)
    where t.account_id is distinct from r.account_id or t.created_at is distinct from r.created_at
      or r.record_type not in ('grant', 'refund', 'restoration', 'dispute_hold', 'dispute_release', 'dispute_clawback',
        'adjustment', 'promotional', 'relabel', 'supplement')
    union all
    select 'record_missing', s.lot_id, s.payment_id
    from governance.stripe_lots s
    where not exists (select from governance.purchase_records r where r.lot_id = s.lot_id and r.record_type = 'grant')
    union all
    select 'event_mismatch', null, w.payment_id
    from governance.webhook_events_processed w
    where w.status not in ('processed', 'quarantined', 'parked', 'dismissed')
      or (w.status in ('quarantined', 'parked')) <> (w.payload is not null)
  )
  select coalesce(jsonb_agg(to_jsonb(x)), '[]') into v_problems
  from (select * from problems p order by p.problem, p.payment_id, p.lot_id limit 1000) x;
  return jsonb_build_object('problems', v_problems, 'payments', (select count(*) from governance.stripe_payments),
    'lots', (select count(*) from governance.stripe_lots));
end
$$;
comment on function public.verify_purchases() is
  'Checks the books of payments beside public.verify_ledger: what refunds and disputes took against the lots, '
  'payments, their records and events. problems is empty when all is sound; at most 1,000 are named.';
revoke all on function public.verify_purchases() from public, anon, authenticated;
grant execute on function public.verify_purchases() to service_role;

create function governance.check_rollups(p_now timestamptz, p_limit int default 200) returns int
  language plpgsql set search_path = '' as $$
declare
  v_after bigint;
  v_row record;
  v_last bigint;
  v_found int := 0;
begin
  select coalesce((s.value ->> 'after')::bigint, 0) into v_after from governance.maintenance_state s
    where s.key = 'checked_rollups' for update skip locked;
  if v_after is null then
    insert into governance.maintenance_state (key, value) values ('checked_rollups', '{"after": 0}')
      on conflict do nothing;
    return 0;
  end if;
  -- Some accounts each round, in turn: what the account counted and what the roll-up has must be one figure.
  for v_row in
    select a.account_id, a.user_id, a.day_tokens, a.month_tokens, a.local_day,
      (select coalesce(sum(d.charged_tokens), 0) from governance.usage_daily d
        where d.account_id = a.account_id and d.day = a.local_day) as rolled_day,
      (select coalesce(sum(d.charged_tokens), 0) from governance.usage_daily d where d.account_id = a.account_id
        and d.day >= a.local_month and d.day < (a.local_month + interval '1 month')::date) as rolled_month
    from governance.accounts a where a.account_id > v_after order by a.account_id limit p_limit
  loop
    v_last := v_row.account_id;
    if v_row.day_tokens <> v_row.rolled_day or v_row.month_tokens <> v_row.rolled_month then
      v_found := v_found + governance.raise_alert(null, v_row.account_id, 'rollup_mismatch', 'critical',
        format('The counters of %s and its roll-up differ: day %s and %s, month %s and %s', left(v_row.user_id, 100),
          v_row.day_tokens, v_row.rolled_day, v_row.month_tokens, v_row.rolled_month),
        null, null, v_row.local_day::text, jsonb_build_object('day_tokens', v_row.day_tokens, 'rolled_day',
          v_row.rolled_day, 'month_tokens', v_row.month_tokens, 'rolled_month', v_row.rolled_month), p_now);
    end if;
  end loop;
  update governance.maintenance_state s set value = jsonb_build_object('after', coalesce(v_last, 0)),
    updated_at = clock_timestamp() where s.key = 'checked_rollups';
  return v_found;
end
$$;
comment on function governance.check_rollups(timestamptz,
  int) is 'Compares counters of accounts with their roll-ups, some each round; returns how many differ. Raises an '
    'alert, changes nothing.';
