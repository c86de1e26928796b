-- Reconciliation runs, and differences as finance decides them.

create table governance.reconciliation_runs (
  run_id text primary key check (run_id <> '' and length(run_id) <= 255),
  period_from timestamptz not null,
  period_to timestamptz not null check (period_to > period_from),
  tied_out boolean not null,
  -- The report without its differences.
  report jsonb not null,
  created_at timestamptz not null,
  created_by text not null,
  -- The ledger as of which the run was made: it cannot have seen what was posted later.
  ledger_read_at timestamptz not null,
  is_complete boolean not null default false,
  -- What keeping it did, answered again when its last page comes again.
  outcome jsonb not null default '{}'
);

create index reconciliation_runs_time on governance.reconciliation_runs (created_at desc);

comment on table governance.reconciliation_runs is 'Reconciliations that were kept.';

create table governance.difference_classes (
  class text primary key,
  name text not null,
  means text not null,
  -- False for what is only listed, carried forward or left out.
  blocks boolean not null
);

comment on table governance.difference_classes is 'Classes of differences, the same as in '
  'shared/governance/reconciliation/classes.ts; a test holds the two equal.';

insert into governance.difference_classes (class, name, means, blocks) values
  ('PAID_NOT_GRANTED', 'Paid, not granted', 'The money came, the tokens did not.',
    true),
  ('GRANTED_NOT_PAID', 'Granted, not paid', 'Tokens were given for a payment that is not there, failed, or is unpaid.',
    true),
  ('DUPLICATE_GRANT', 'Granted twice', 'One payment was credited more than once.',
    true),
  ('DUPLICATE_CHARGE', 'Charged twice', 'One order was paid more than once.',
    true),
  ('AMOUNT_MISMATCH', 'Other amount', 'What was paid is not the price of the pack at that time.',
    true),
  ('TOKEN_QTY_MISMATCH', 'Other number of tokens', 'What was granted is not what the pack holds.',
    true),
  ('CURRENCY_MISMATCH', 'Other currency', 'Payment and grant name different currencies.',
    true),
  ('REFUND_NOT_REVERSED', 'Refunded, tokens kept', 'Money went back, the tokens stayed.',
    true),
  ('REFUND_OVER_REVERSED', 'Taken back too much', 'More tokens were taken back than the refund calls for.',
    true),
  ('REFUND_AFTER_SPEND', 'Refunded after use', 'The tokens were used before the refund.',
    true),
  ('DISPUTE_NOT_HELD', 'Disputed, not held', 'A dispute is open and its tokens can still be used.',
    true),
  ('DISPUTE_WON_NOT_RESTORED', 'Dispute won, still held', 'The tokens were not given back.',
    true),
  ('DISPUTE_LOST_NOT_CHARGED', 'Dispute lost, not taken back', 'The money is gone, the tokens are not.',
    true),
  ('SUB_PERIOD_GAP', 'Period not granted', 'An invoiced period has no grant.',
    true),
  ('SUB_PERIOD_OVERLAP', 'Period granted twice', 'An invoiced period was granted more than once.',
    true),
  ('FEE_VARIANCE', 'Other fee', 'Stripe''s fee does not add up.',
    true),
  ('FX_ROUNDING', 'Rounding of a conversion', 'At most one minor unit.',
    false),
  ('TIMING', 'Timing', 'Too young to be missing; carried forward.',
    false),
  ('ORPHAN', 'Belongs to nothing', 'A refund, dispute or correction whose payment is not known.',
    true),
  ('UNKNOWN_CATEGORY', 'Unknown kind', 'A kind of row that is not known yet.',
    true),
  ('TEST_MODE_LEAK', 'Test mode', 'A test payment in live data.',
    true);

create table governance.reconciliation_cases (
  difference_id text primary key check (difference_id <> '' and length(difference_id) <= 512),
  class text not null,
  status text not null default 'open' check (status in ('open', 'investigating', 'proposed', 'approved', 'posted',
    'verified', 'carried_forward', 'written_off')),
  amount_minor bigint not null default 0,
  currency text,
  tokens bigint not null default 0,
  occurred_at timestamptz,
  period_from timestamptz not null,
  period_to timestamptz not null,
  first_run_id text not null,
  last_run_id text not null,
  -- What would be posted: the report's proposal, or the proposer's own.
  correction jsonb not null,
  assigned_to text,
  proposed_by text,
  approved_by text,
  posted_at timestamptz,
  effects jsonb,
  history jsonb not null default '[]',
  updated_at timestamptz not null,
  -- Rises with every change: an action on a version that somebody else changed is refused.
  version int not null default 1,
  user_id text,
  -- False for what is only listed.
  blocks boolean not null default true,
  -- Both sides and the trail, from the last run.
  difference jsonb,
  opened_at timestamptz not null,
  -- The ledger as of which it was last looked for.
  checked_at timestamptz not null,
  -- When it took its status: a note later is no new decision.
  status_at timestamptz not null,
  -- What was proposed: to post the correction, or to write the difference off.
  resolution text not null default 'correct' check (resolution in ('correct', 'write_off')),
  posted_by text,
  -- How many closes it was carried over.
  times_carried int not null default 0
);

create index reconciliation_cases_status on governance.reconciliation_cases (status, updated_at desc);

comment on table governance.reconciliation_cases is 'Differences as finance works on them: open → investigating → '
  'proposed → approved → posted → verified; or carried forward, or written off.';

create table governance.reconciliation_run_differences (
  run_id text not null references governance.reconciliation_runs (run_id),
  difference_id text not null,
  class text not null,
  amount_minor bigint not null,
  currency text,
  tokens bigint not null,
  primary key (run_id, difference_id)
);

comment on table governance.reconciliation_run_differences is 'Which differences a kept run found, with what was at '
  'stake in it: runs can be compared.';

create table governance.lone_decisions (
  lone_decision_id bigint generated always as identity primary key,
  difference_id text references governance.reconciliation_cases (difference_id),
  act_id bigint references governance.account_acts (act_id),
  bulk_id bigint references governance.bulk_acts (bulk_id),
  what text not null check (what in ('posted', 'written_off', 'act')),
  decided_at timestamptz not null,
  decided_by text not null,
  tokens bigint not null,
  amount_minor bigint not null,
  currency text,
  check (num_nonnulls(difference_id, act_id, bulk_id) = 1)
);

create index lone_decisions_act on governance.lone_decisions (act_id) where act_id is not null;

create index lone_decisions_bulk on governance.lone_decisions (bulk_id) where bulk_id is not null;

create index lone_decisions_time on governance.lone_decisions (decided_at);

create index lone_decisions_difference on governance.lone_decisions (difference_id);

comment on table governance.lone_decisions is
  'What one person posted, wrote off or corrected on an account without a second: added up, it has a limit. Not on the '
  'case, which may be opened again and booked again. A write-off that is reopened, or an act that is undone, is taken '
  'out.';

-- Most cases that there ever were are decided, and the desk asks for the others all the time.
create index reconciliation_cases_undecided on governance.reconciliation_cases (difference_id)
  where blocks and status in ('open', 'investigating', 'proposed', 'approved', 'posted');

create type governance.stake as (tokens bigint, amount_minor bigint);

create type governance.refusal as (sqlstate text, hint text, message text);

create function governance.case_json(c governance.reconciliation_cases) returns jsonb
  language sql stable set search_path = '' as $$
  select to_jsonb(c) - 'difference'
    || jsonb_build_object('needs_approver', governance.needs_approver(c), 'is_undecided', governance.is_undecided(c),
    'age_days', greatest(floor(extract(epoch from governance.now() - coalesce(c.occurred_at, c.opened_at)) / 86400),
      0)::bigint)
$$;
comment on function governance.case_json(governance.reconciliation_cases) is 'A case as the console reads it, without '
  'both sides.';

create function governance.person_of(c jsonb) returns text
  language sql stable set search_path = '' as $$
  select coalesce(
    (select a.user_id from governance.accounts a where a.user_id = c ->> 'user_id'),
    (select a.user_id from governance.lots l join governance.accounts a using (account_id)
      where l.lot_id = governance.stripe_whole(c -> 'lot_id')),
    (select a.user_id from governance.stripe_payments p join governance.accounts a using (account_id)
      where p.charge_id = c ->> 'charge_id' limit 1),
    (select a.user_id from governance.stripe_payments p join governance.accounts a using (account_id)
      where p.payment_intent_id = c ->> 'payment_intent_id' limit 1),
    (select a.user_id from governance.stripe_customers k join governance.accounts a using (account_id)
      where k.customer_id = c ->> 'customer_id'))
$$;
comment on function governance.person_of(jsonb) is
  'Whom a correction is about: the user, lot, payment or customer that it names; null where the project knows none.';

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
          btrim(to_char(v_plan.monthly_allowance, '999,999,999,999')), v_plan.name,
          coalesce(c ->> 'charge_id', c ->> 'invoice_id', 'the payment')));
    end if;
  end if;
  return c;
end
$$;
comment on function governance.complete_correction(jsonb) is
  'A correction with what the project knows and the report could not: who it is about, and the tokens of a '
  'subscription''s month.';

create function governance.stake_tokens(p_difference jsonb, p_correction jsonb) returns bigint
  language sql stable set search_path = '' as $$
  select case when coalesce(governance.stripe_whole(p_difference -> 'tokens'), 0) <> 0
      then governance.stripe_whole(p_difference -> 'tokens')
    when p_correction ->> 'action' = 'grant' and p_correction ->> 'grant_kind' = 'subscription'
      then -coalesce(governance.stripe_whole(p_correction -> 'tokens'), 0)
    else 0 end
$$;
comment on function governance.stake_tokens(jsonb, jsonb) is
  'Tokens at stake of a difference: what the ledger has too many (+) or too few (−); a correction moves as many.';

create function public.console_keep_reconciliation(p_run_id text, p_operator text, p_report jsonb,
  p_differences jsonb default '[]', p_is_last boolean default true) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_now timestamptz;
  v_from timestamptz;
  v_to timestamptz;
  v_read_at timestamptz;
  v_sees timestamptz;
  v_run governance.reconciliation_runs;
  v_covered text[];
  v_reopened bigint;
  v_kept bigint;
  v_verified bigint := 0;
  v_gone bigint := 0;
  v_skipped bigint := 0;
  v_answer jsonb;
begin
  perform governance.refuse_others('console_keep_reconciliation');
  perform governance.check_id('p_run_id', p_run_id);
  perform governance.check_id('p_operator', p_operator);
  if p_report is null or jsonb_typeof(p_report) <> 'object' or jsonb_typeof(p_report -> 'tied_out')
    is distinct from 'boolean' then
    perform governance.fail('PT400', 'invalid_argument', 'p_report is a report (without its differences)');
  elsif p_report ? 'inputs'
    and (jsonb_typeof(p_report -> 'inputs') <> 'array'
    or exists (select from jsonb_array_elements(p_report -> 'inputs') i where jsonb_typeof(i) <> 'object')) then
    perform governance.fail('PT400', 'invalid_argument', 'p_report.inputs is a list of files');
  elsif exists (select from unnest(array['bridge', 'tie_out', 'roll_forward']) k
    where p_report ? k and (jsonb_typeof(p_report -> k) <> 'array'
      or exists (select from jsonb_array_elements(p_report -> k) i where jsonb_typeof(i) <> 'object'))) then
    perform governance.fail('PT400', 'invalid_argument',
      'p_report.bridge, tie_out and roll_forward are lists of lines');
  elsif pg_column_size(p_report) > 8388608 then
    perform governance.fail('PT400', 'invalid_argument', 'p_report is larger than 8 MB');
  elsif p_is_last is null then
    perform governance.fail('PT400', 'invalid_argument', 'p_is_last is true or false');
  elsif p_differences is null or jsonb_typeof(p_differences) <> 'array' or jsonb_array_length(p_differences) > 5000 then
    perform governance.fail('PT400', 'invalid_argument',
      'p_differences is a list of at most 5,000: send the others in further calls, the last with p_is_last');
  elsif exists (select from jsonb_array_elements(p_differences) d
    where jsonb_typeof(d) <> 'object' or length(coalesce(d ->> 'difference_id', '')) not between 1 and 512
      or coalesce(d ->> 'class', '') = '' or length(d ->> 'class') > 100 or jsonb_typeof(d -> 'correction')
        is distinct from 'object') then
    perform governance.fail('PT400', 'invalid_argument', 'Each difference needs difference_id, class and correction');
  elsif exists (select from jsonb_array_elements(p_differences) d cross join unnest(array['amount_minor', 'tokens']) k
      where d ? k and d -> k <> 'null' and governance.stripe_whole(d -> k) is null) then
    perform governance.fail('PT400', 'invalid_argument', 'amount_minor and tokens of a difference are whole numbers');
  end if;
  begin
    v_from := (p_report #>> '{period,from}')::timestamptz;
    v_to := (p_report #>> '{period,to}')::timestamptz;
    v_read_at := (p_report ->> 'ledger_read_at')::timestamptz;
  exception when data_exception then
    perform governance.fail('PT400', 'invalid_argument', 'p_report.period is not one, or ledger_read_at is no moment');
  end;
  begin
    perform (d ->> 'occurred_at')::timestamptz from jsonb_array_elements(p_differences) d
      where d ->> 'occurred_at' ~ '^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d';
  exception when data_exception then
    perform governance.fail('PT400', 'invalid_argument',
      'occurred_at of a difference is a moment, as 2026-03-31T12:00:00Z');
  end;
  if v_from is null or v_to is null or not isfinite(v_from) or not isfinite(v_to) or v_from >= v_to then
    perform governance.fail('PT400', 'invalid_argument', 'p_report.period is not one');
  end if;

  -- Pages, runs and closes one after the other, and no case changes meanwhile.
  perform pg_advisory_xact_lock(7254101);
  v_now := governance.now();
  -- Nobody has read the ledger of a moment to come.
  v_read_at := least(coalesce(v_read_at, v_now), v_now);
  insert into governance.reconciliation_runs as r (run_id, period_from, period_to, tied_out, report, created_at,
    created_by, ledger_read_at)
  values (p_run_id, v_from, v_to, (p_report ->> 'tied_out')::boolean, p_report - 'differences', v_now, p_operator,
    v_read_at)
  on conflict (run_id) do nothing;
  select * into strict v_run from governance.reconciliation_runs r where r.run_id = p_run_id;
  if v_run.report <> p_report - 'differences' then
    perform governance.fail('PT409', 'idempotency_conflict', 'This run was kept with another report');
  elsif v_run.is_complete then
    return v_run.outcome;
  end if;
  v_read_at := v_run.ledger_read_at;
  -- What was posted just before may have been committed just after: better to look again than to book again.
  v_sees := v_read_at - interval '10 seconds';

  with page as (
    select distinct on (d ->> 'difference_id') d ->> 'difference_id' as difference_id, d ->> 'class' as class,
      coalesce(governance.stripe_whole(d -> 'amount_minor'), 0) as amount_minor,
      d ->> 'currency' as currency, governance.stake_tokens(d, k.correction) as tokens, k.correction,
      coalesce(k.correction ->> 'user_id', d ->> 'user_id') as user_id, d
    from jsonb_array_elements(p_differences) d
    cross join lateral (select governance.complete_correction(d -> 'correction') as correction) k order by 1
  ), linked as (
    insert into governance.reconciliation_run_differences (run_id, difference_id, class, amount_minor, currency, tokens)
    select p_run_id, p.difference_id, p.class, p.amount_minor, p.currency, p.tokens from page p
    on conflict do nothing returning difference_id
  ), kept as (
    insert into governance.reconciliation_cases as c (difference_id, class, amount_minor, currency, tokens, occurred_at,
      period_from, period_to,
      first_run_id, last_run_id, correction, updated_at, status_at, user_id, blocks, difference, opened_at, checked_at)
    select p.difference_id, p.class, p.amount_minor, p.currency, p.tokens,
      case when p.d ->> 'occurred_at' ~ '^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d' then (p.d ->> 'occurred_at')::timestamptz end,
      v_from, v_to, p_run_id, p_run_id, p.correction, v_now, v_now, p.user_id,
      coalesce(p.d -> 'blocks' = 'true',
        (select k.blocks from governance.difference_classes k where k.class = p.class), true),
      p.d || jsonb_build_object('correction', p.correction, 'user_id', p.user_id, 'tokens', p.tokens), v_now, v_read_at
    from page p join linked using (difference_id) order by 1
    on conflict (difference_id) do update set
      last_run_id = excluded.last_run_id, checked_at = excluded.checked_at, amount_minor = excluded.amount_minor,
        tokens = excluded.tokens, currency = excluded.currency,
      user_id = coalesce(excluded.user_id, c.user_id), blocks = excluded.blocks, difference = excluded.difference,
        updated_at = v_now, version = c.version + 1,
      -- The narrower period is the more exact one.
      period_from = case when excluded.period_from >= c.period_from
        and excluded.period_to <= c.period_to then excluded.period_from else c.period_from end,
      period_to = case when excluded.period_from >= c.period_from
        and excluded.period_to <= c.period_to then excluded.period_to else c.period_to end,
      correction = case when c.status in ('proposed', 'approved') then c.correction else excluded.correction end,
      -- Posted or gone, and there again in a ledger that was read after that: it did not help. Written off, and more
      -- than
      -- was written off: nobody has decided that.
      (status, status_at, resolution, proposed_by, approved_by, history) = (select
        case when x.reason is null then c.status else 'open' end,
        case when x.reason is null then c.status_at else v_now end,
        case when x.reason is null and c.status not in ('posted', 'verified') then c.resolution else 'correct' end,
        case when x.reason is null then c.proposed_by end,
        case when x.reason is null then c.approved_by end,
        case when x.reason is null then c.history
          else c.history || jsonb_build_object('at', v_now, 'by', p_operator, 'action', 'reopened', 'reason', x.reason
            || p_run_id) end
        from (select case
          when c.status in ('posted', 'verified')
            and (c.posted_at is null or c.posted_at < v_sees) then 'Still there in run '
          when c.status = 'written_off'
            and (abs(excluded.amount_minor) > abs(c.amount_minor) or abs(excluded.tokens) > abs(c.tokens)
            or excluded.currency is distinct from c.currency) then 'More than was written off in run ' end as reason) x)
    -- A run that read an older ledger tells nothing new.
    where c.checked_at <= excluded.checked_at
    returning c.history -> -1 as last_entry)
  select count(*) filter (where k.last_entry ->> 'action' = 'reopened' and k.last_entry ->> 'reason' in
    ('Still there in run ' || p_run_id, 'More than was written off in run ' || p_run_id)) into v_reopened from kept k;
  v_reopened := v_reopened + coalesce(governance.stripe_whole(v_run.outcome -> 'reopened'), 0);
  select count(*) into v_kept from governance.reconciliation_run_differences x where x.run_id = p_run_id;

  if p_is_last then
    if coalesce(governance.stripe_whole(p_report -> 'differences_total') <> v_kept, false) then
      perform governance.fail('PT409', 'incomplete_run',
        format('The run has %s differences and %s came: send the others before the last page',
        p_report ->> 'differences_total', v_kept));
    end if;
    -- What is gone, among all that this run would have found again.
    select coalesce(array_agg(r.run_id), '{}') into v_covered from governance.reconciliation_runs r
    where r.run_id in (select c.last_run_id from governance.reconciliation_cases c
      where c.status in ('open', 'investigating', 'proposed', 'approved', 'posted'))
      and r.run_id <> p_run_id and governance.run_covers(v_run.report, r.report);
    with due as (
      select c.difference_id, c.status, c.last_run_id = any (v_covered) as is_covered
      from governance.reconciliation_cases c
      where c.status in ('open', 'investigating', 'proposed', 'approved', 'posted') and c.period_from >= v_from
        and c.period_to <= v_to and c.checked_at <= v_read_at
        and c.last_run_id <> p_run_id and (c.posted_at is null or c.posted_at <= v_read_at)
        and not exists (select from governance.reconciliation_run_differences x
          where x.run_id = p_run_id and x.difference_id = c.difference_id)
      order by c.difference_id for update
    ), verified as (
      update governance.reconciliation_cases c set status = 'verified', status_at = v_now, checked_at = v_read_at,
        updated_at = v_now, version = c.version + 1,
        history = c.history || jsonb_build_object('at', v_now, 'by', p_operator, 'action', case d.status
          when 'posted' then 'verified' else 'gone' end, 'reason', 'Gone in run ' || p_run_id)
      from due d where d.difference_id = c.difference_id and d.is_covered
      returning d.status)
    select (select count(*) from verified v where v.status = 'posted'),
      (select count(*) from verified v where v.status <> 'posted'), (select count(*) from due d where not d.is_covered)
    into v_verified, v_gone, v_skipped;
  end if;
  v_answer := jsonb_build_object('run_id', p_run_id, 'kept', v_kept, 'verified', v_verified, 'gone', v_gone, 'reopened',
    v_reopened, 'not_looked_for', v_skipped, 'is_complete', p_is_last);
  update governance.reconciliation_runs r set outcome = v_answer, is_complete = p_is_last where r.run_id = p_run_id;
  return v_answer;
end
$$;
comment on function public.console_keep_reconciliation(text, text, jsonb, jsonb, boolean) is
  'Keeps a run and its differences as cases, page by page, the last with p_is_last. Then posted cases that are gone '
  'are verified, open ones that are gone too (gone), those posted and still there are open again (reopened), and so '
  'are those that are more than was written off; cases of files that this run did not read are left (not_looked_for). '
  'Safe to repeat and to go on with: kept says how many it has. report.ledger_read_at says as of when the ledger was '
  'read. Errors: invalid_argument, idempotency_conflict, incomplete_run.';
revoke all on function public.console_keep_reconciliation(text, text, jsonb, jsonb, boolean)
  from public, anon, authenticated;
grant execute on function public.console_keep_reconciliation(text, text, jsonb, jsonb, boolean) to service_role;

create function governance.needs_approver(c governance.reconciliation_cases) returns boolean
  language sql stable set search_path = '' as $$
  select greatest(abs(c.tokens), abs(governance.stripe_whole(c.correction -> 'tokens')),
    s.tokens) > governance.setting_number('approval_above_tokens', 1000000)
    or s.amount_minor > governance.setting_number('approval_above_minor', 10000)
  from governance.stake_of(c, '[]') s
$$;
comment on function governance.needs_approver(governance.reconciliation_cases) is
  'Whether a case alone is above the settings approval_above_tokens and approval_above_minor; what it books and what '
  'the same person booked that day count too: see governance.why_approver.';

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
  v_effects jsonb := '[]';
  v_reference text := left('correction ' || p_difference_id, 500);
  v_metadata jsonb := jsonb_build_object('difference_id', p_difference_id);
begin
  if v_action = 'grant' then
    v_pay := governance.note_payment(p_now, governance.stripe_id(c -> 'payment_intent_id'),
      governance.stripe_id(c -> 'charge_id'),
      governance.stripe_id(c -> 'checkout_session_id'), governance.stripe_id(c -> 'invoice_id'),
        governance.stripe_id(c -> 'customer_id'));
    if coalesce(v_pay.payment_intent_id, v_pay.charge_id, v_pay.checkout_session_id, v_pay.invoice_id) is null then
      perform governance.fail('PT400', 'invalid_argument', 'The payment has no id: a grant must be keyed on one');
    elsif exists (select from governance.stripe_lots s where s.payment_id = v_pay.payment_id) then
      perform governance.fail('PT409', 'already_granted',
        'This payment has its tokens by now: run the reconciliation again');
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
          format('Only %s tokens of this grant are not taken back yet',
          v_known.tokens - v_known.reversed - v_known.clawed));
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
    update governance.stripe_lots s set tokens = s.tokens + v_tokens, is_void = s.is_void
      or s.tokens + v_tokens <= s.reversed + s.clawed where s.lot_id = v_lot_id;
    v_effects := jsonb_build_array(governance.effect('adjustment', v_user_id, v_tokens, v_entry));
  elsif v_action in ('claw_back', 'restore') then
    if governance.stripe_whole(c -> 'refunded_minor') is null then
      perform governance.fail('PT400', 'invalid_argument',
        'correction.refunded_minor is needed: what Stripe says was refunded');
    end if;
    update governance.stripe_payments p set refunded_override_minor = governance.stripe_whole(c -> 'refunded_minor'),
      refunded_override_at = greatest(p_now, p.refunded_at,
        (select max(r.told_at) from governance.stripe_refunds r where r.payment_id = p.payment_id))
    where p.payment_id = v_pay.payment_id;
  elsif v_action in ('hold', 'release', 'finalise_dispute') then
    -- Stripe's word stands for every dispute of the payment; one that never was told is noted now.
    update governance.stripe_disputes d set told_at = greatest(d.told_at, p_now), is_reinstated = false,
      stage = case v_action when 'hold' then 2 else 3 end, is_lost = v_action = 'finalise_dispute',
      status = case v_action when 'hold' then 'needs_response' when 'release' then 'won' else 'lost' end,
      amount_minor = coalesce(nullif(governance.stripe_whole(c -> 'disputed_minor'), 0), d.amount_minor)
    where d.payment_id = v_pay.payment_id;
    if not found and v_action <> 'release' then
      insert into governance.stripe_disputes (dispute_id, payment_id, amount_minor, status, stage, is_lost, told_at)
      values (coalesce(governance.stripe_id(c -> 'dispute_id'), v_reference), v_pay.payment_id,
        coalesce(nullif(governance.stripe_whole(c -> 'disputed_minor'), 0), v_pay.amount_minor),
        case v_action when 'hold' then 'needs_response' else 'lost' end, case v_action when 'hold' then 2
          else 3 end, v_action = 'finalise_dispute', p_now);
    elsif not found then
      insert into governance.stripe_disputes (dispute_id, payment_id, amount_minor, status, stage, told_at)
      values (coalesce(governance.stripe_id(c -> 'dispute_id'), v_reference), v_pay.payment_id,
        coalesce(v_pay.amount_minor, 0), 'won', 3, p_now);
    end if;
  elsif v_action = 'relabel' then
    if v_amount is null or v_amount < 0 or v_currency is null then
      perform governance.fail('PT400', 'invalid_argument',
        'correction.amount_minor and correction.currency are needed');
    end if;
    update governance.lots l set amount_minor = v_amount, currency = v_currency where l.lot_id = v_lot_id;
    update governance.stripe_payments p set amount_minor = v_amount, currency = v_currency
      where p.payment_id = v_pay.payment_id
      and not exists (select from governance.stripe_lots s where s.payment_id = p.payment_id and s.lot_id <> v_lot_id);
    v_entry := (governance.append_entry(v_pay.account_id, 'adjustment', p_now, '{}', 0, 0, 0, 0, v_reference,
      'Correction of the amount paid',
      v_metadata || jsonb_build_object('amount_minor', v_amount, 'currency', v_currency))).transaction_id;
    perform governance.record_purchase(v_entry, 'relabel', v_lot_id, v_pay.payment_id, 0, 0, v_amount, v_currency,
      p_difference_id => p_difference_id);
    v_effects := jsonb_build_array(governance.effect('relabel', v_user_id, 0, v_entry));
  elsif v_action = 'promotional' then
    update governance.lots l set kind = 'promotional' where l.lot_id = v_lot_id;
    update governance.stripe_lots s set is_void = true where s.lot_id = v_lot_id;
    v_entry := (governance.append_entry(v_pay.account_id, 'adjustment', p_now, array[v_lot_id, 0::bigint],
      case v_lot.kind when 'subscription' then -v_lot.remaining else 0 end, case v_lot.kind
        when 'purchased' then -v_lot.remaining else 0 end,
      case v_lot.kind when 'promotional' then 0
        else v_lot.remaining end, 0, v_reference, 'Reclassified as promotional', v_metadata)).transaction_id;
    perform governance.record_purchase(v_entry, 'promotional', v_lot_id, v_pay.payment_id, 0, 0, null, null,
      p_difference_id => p_difference_id);
    v_effects := jsonb_build_array(governance.effect('promotional', v_user_id, 0, v_entry));
  else
    perform governance.fail('PT409', 'nothing_to_post', 'This correction books nothing: it is for a person');
  end if;
  return v_effects || governance.settle_payment(v_pay.payment_id, p_now, v_reference, p_difference_id);
end
$$;
comment on function governance.apply_correction(text, jsonb,
  timestamptz) is 'Books a correction (Correction of shared/governance/reconciliation): new entries alone, nothing is '
    'edited.';

create function governance.is_same_person(p_one text, p_other text) returns boolean
  language sql immutable set search_path = '' as $$
  select lower(regexp_replace(normalize(p_one, NFKC), '[[:space:]]+', '',
    'g')) = lower(regexp_replace(normalize(p_other, NFKC), '[[:space:]]+', '', 'g'))
$$;
comment on function governance.is_same_person(text,
  text) is 'Whether two operators'' names are one person''s: case, spaces and width do not make another.';

create function governance.is_undecided(c governance.reconciliation_cases) returns boolean
  language sql immutable set search_path = '' as $$
  select c.blocks and c.status in ('open', 'investigating', 'proposed', 'approved', 'posted')
$$;
comment on function governance.is_undecided(governance.reconciliation_cases) is 'Whether a case still keeps its period '
  'open: neither verified, carried forward nor written off.';

create function governance.stake_of(c governance.reconciliation_cases, p_effects jsonb) returns governance.stake
  language sql stable set search_path = '' as $$
  select case when p_effects is null then abs(c.tokens) else greatest(
      (select coalesce(sum(abs(e.tokens)), 0)::bigint from jsonb_to_recordset(p_effects) e(tokens bigint)),
      -- Moves no token, and takes the whole grant out of what its payment can take back.
      case c.correction ->> 'action'
        when 'promotional' then (select l.granted from governance.lots l
        where l.lot_id = governance.stripe_whole(c.correction -> 'lot_id')) end) end,
    greatest(abs(c.amount_minor), case when p_effects is not null and c.correction ->> 'action' in ('grant', 'relabel')
      then abs(coalesce(governance.stripe_whole(c.correction -> 'amount_minor'), 0)) end)
$$;
comment on function governance.stake_of(governance.reconciliation_cases, jsonb) is
  'What is decided when a case is booked with these effects, or (null) written off: tokens and minor units. What is '
  'booked counts, not what was written beside it.';

create function governance.why_approver(
  c governance.reconciliation_cases, p_operator text, p_effects jsonb, p_now timestamptz,
    p_more_tokens numeric default 0, p_more_minor numeric default 0
) returns text
  language plpgsql stable set search_path = '' as $$
declare
  v_limit_tokens bigint := governance.setting_number('approval_above_tokens', 1000000);
  v_limit_minor bigint := governance.setting_number('approval_above_minor', 10000);
  v_stake governance.stake := governance.stake_of(c, p_effects);
  v_tokens numeric;
  v_minor numeric;
begin
  if governance.needs_approver(c) or v_stake.tokens > v_limit_tokens then
    return format('A decision of this size (more than %s tokens or %s minor units) needs the approval of a second '
      'person',
      v_limit_tokens, v_limit_minor);
  end if;
  select v_stake.tokens + p_more_tokens + coalesce(sum(d.tokens), 0),
    v_stake.amount_minor + p_more_minor + coalesce(sum(d.amount_minor) filter (where d.currency
      is not distinct from c.currency), 0) into v_tokens, v_minor
  from governance.lone_decisions d
  where d.decided_at > p_now - interval '24 hours' and governance.is_same_person(d.decided_by, p_operator);
  if v_tokens > v_limit_tokens or v_minor > v_limit_minor then
    return format('With this one you would have decided %s tokens and %s minor units alone within 24 hours: above %s '
      'tokens or %s minor units a second person must approve',
      v_tokens, v_minor, v_limit_tokens, v_limit_minor);
  end if;
  return null;
end
$$;
comment on function governance.why_approver(governance.reconciliation_cases, text, jsonb, timestamptz, numeric,
  numeric) is
  'Why a second person must approve before this is booked (p_effects) or written off (null), in a sentence; null where '
  'one is enough. Splitting a sum over many cases does not get round the limit, nor does booking one case again: what '
  'one person decided alone within 24 hours is added up.';

create function governance.lock_person(p_operator text) returns void
  language sql set search_path = '' as $$
  select pg_advisory_xact_lock(hashtextextended(lower(regexp_replace(normalize(p_operator, NFKC), '[[:space:]]+', '',
    'g')), 7254102))
$$;
comment on function governance.lock_person(text) is 'What one person decides alone is added up: one decision at a time '
  'for each. Taken before any case and account.';

create function governance.run_covers(p_new jsonb, p_old jsonb) returns boolean
  language sql immutable set search_path = '' as $$
  select not exists (
    select from jsonb_array_elements(coalesce(p_old -> 'inputs', '[]')) o
    where not exists (
      select from jsonb_array_elements(coalesce(p_new -> 'inputs', '[]')) n
      where n ->> 'sha256' = o ->> 'sha256'
        or (n ->> 'kind' is not distinct from o ->> 'kind'
          and coalesce(governance.stripe_whole(n -> 'rows') >= governance.stripe_whole(o -> 'rows'), true)
          and coalesce(n #>> '{window,from}' <= o #>> '{window,from}' and n #>> '{window,to}' >= o #>> '{window,to}',
            true))))
    -- One file does not stand for two of its kind.
    and not exists (
      select from (select o ->> 'kind' as kind, sum(governance.stripe_whole(o -> 'rows')) as rows
        from jsonb_array_elements(coalesce(p_old -> 'inputs', '[]')) o group by 1) k
      where k.rows > coalesce((select sum(governance.stripe_whole(n -> 'rows'))
        from jsonb_array_elements(coalesce(p_new -> 'inputs', '[]')) n
        where n ->> 'kind' is not distinct from k.kind), 0))
$$;
comment on function governance.run_covers(jsonb, jsonb) is
  'Whether a report was made of all that another was made of: the same files, or of each kind as many rows, in files '
  'with as wide windows. Only then is what is gone gone.';

create function governance.run_json(r governance.reconciliation_runs) returns jsonb
  language sql stable set search_path = '' as $$
  select jsonb_build_object('run_id', r.run_id, 'period_from', r.period_from, 'period_to', r.period_to, 'tied_out',
    r.tied_out, 'is_complete', r.is_complete,
    'created_at', r.created_at, 'created_by', r.created_by, 'ledger_read_at', r.ledger_read_at, 'outcome', r.outcome,
    'file_names', (select coalesce(jsonb_agg(i ->> 'name'), '[]')
      from jsonb_array_elements(coalesce(r.report -> 'inputs', '[]')) i),
    'differences', (select count(*) from governance.reconciliation_run_differences d where d.run_id = r.run_id),
    'undecided', (select count(*) from governance.reconciliation_run_differences d
      join governance.reconciliation_cases c using (difference_id)
      where d.run_id = r.run_id and governance.is_undecided(c)),
    'is_closed', exists (select from governance.reconciliation_periods p where p.run_id = r.run_id))
$$;
comment on function governance.run_json(governance.reconciliation_runs) is 'A kept run as the console lists it.';

create function public.console_kept_runs(p_limit int default 50, p_before_run_id text default null) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
declare
  v_before timestamptz;
begin
  perform governance.refuse_others('console_kept_runs');
  if p_limit is null or p_limit not between 1 and 500 then
    perform governance.fail('PT400', 'invalid_argument', 'p_limit is a whole number from 1 to 500');
  end if;
  if p_before_run_id is not null then
    select r.created_at into v_before from governance.reconciliation_runs r where r.run_id = p_before_run_id;
    if v_before is null then
      perform governance.fail('PT404', 'not_found', 'p_before_run_id is no run that is kept: read from the beginning');
    end if;
  end if;
  return (select coalesce(jsonb_agg(governance.run_json(r) order by r.created_at desc, r.run_id desc), '[]')
    from (select * from governance.reconciliation_runs x
      where v_before is null or (x.created_at, x.run_id) < (v_before, p_before_run_id)
      order by x.created_at desc, x.run_id desc limit p_limit) r);
end
$$;
comment on function public.console_kept_runs(int,
  text) is 'Kept runs, newest first; p_before_run_id is the last one of the page before. Errors: invalid_argument, '
    'not_found.';
revoke all on function public.console_kept_runs(int, text) from public, anon, authenticated;
grant execute on function public.console_kept_runs(int, text) to service_role;

create function public.console_kept_run(p_run_id text) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
declare
  v_run governance.reconciliation_runs;
begin
  perform governance.refuse_others('console_kept_run');
  select * into v_run from governance.reconciliation_runs r where r.run_id = p_run_id;
  if v_run.run_id is null then
    perform governance.fail('PT404', 'not_found', 'This run is not kept in the project');
  end if;
  return jsonb_build_object('run', governance.run_json(v_run), 'report', v_run.report);
end
$$;
comment on function public.console_kept_run(text) is 'A kept run with its report. Errors: not_found.';
revoke all on function public.console_kept_run(text) from public, anon, authenticated;
grant execute on function public.console_kept_run(text) to service_role;

create function public.console_compare_reconciliations(p_run_id text, p_other_run_id text,
  p_limit int default 200) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
declare
  v_known int;
begin
  perform governance.refuse_others('console_compare_reconciliations');
  if p_limit is null or p_limit not between 1 and 5000 then
    perform governance.fail('PT400', 'invalid_argument', 'p_limit is a whole number from 1 to 5000');
  end if;
  select count(*) into v_known from governance.reconciliation_runs r
    where r.run_id in (p_run_id, p_other_run_id) and r.is_complete;
  if v_known < (case when p_run_id = p_other_run_id then 1 else 2 end) then
    perform governance.fail('PT404', 'not_found', 'Both runs must be kept, wholly');
  end if;
  return (
    with pairs as (
      select coalesce(a.difference_id, b.difference_id) as difference_id, coalesce(a.class, b.class) as class,
        coalesce(a.currency, b.currency) as currency,
        b.amount_minor as amount_before, a.amount_minor as amount_now, b.tokens as tokens_before,
          a.tokens as tokens_now,
        case when b.difference_id is null then 'new' when a.difference_id is null then 'gone'
          when (a.amount_minor, a.tokens) is distinct from (b.amount_minor, b.tokens) then 'changed'
            else 'same' end as how
      from (select * from governance.reconciliation_run_differences x where x.run_id = p_run_id) a
      full join (select * from governance.reconciliation_run_differences x where x.run_id = p_other_run_id) b
        using (difference_id)
    )
    select jsonb_build_object(
      'counts', jsonb_build_object('new', count(*) filter (where p.how = 'new'), 'gone',
        count(*) filter (where p.how = 'gone'),
        'changed', count(*) filter (where p.how = 'changed'), 'same', count(*) filter (where p.how = 'same')),
      'rows', (select coalesce(jsonb_agg(jsonb_build_object('difference_id', x.difference_id, 'class', x.class,
        'currency', x.currency, 'how', x.how,
          'amount_before', x.amount_before, 'amount_now', x.amount_now, 'tokens_before', x.tokens_before, 'tokens_now',
            x.tokens_now, 'status', c.status)
          order by array_position(array['new', 'gone', 'changed', 'same'], x.how), x.difference_id), '[]')
        from (select * from pairs q order by array_position(array['new', 'gone', 'changed', 'same'], q.how),
          q.difference_id limit p_limit) x
        left join governance.reconciliation_cases c using (difference_id)))
    from pairs p);
end
$$;
comment on function public.console_compare_reconciliations(text, text, int) is
  'What the first run has that the second had not (new), no longer has (gone), has with other figures (changed), and '
  'has the same. Errors: invalid_argument, not_found.';
revoke all on function public.console_compare_reconciliations(text, text, int) from public, anon, authenticated;
grant execute on function public.console_compare_reconciliations(text, text, int) to service_role;

create function public.console_reconciliation_cases(
  p_status text[] default null, p_difference_ids text[] default null, p_limit int default 500,
    p_after text default null,
  p_run_id text default null, p_class text default null, p_assigned_to text default null,
    p_older_than_days int default null, p_undecided boolean default null
) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
begin
  perform governance.refuse_others('console_reconciliation_cases');
  if p_limit is null or p_limit not between 1 and 5000 then
    perform governance.fail('PT400', 'invalid_argument', 'p_limit is a whole number from 1 to 5000');
  elsif p_older_than_days not between 0 and 36500 then
    perform governance.fail('PT400', 'invalid_argument', 'p_older_than_days is a whole number from 0 to 36500');
  end if;
  return (
    with scope as (
      select c.difference_id, c.class, c.status, c.assigned_to, c.currency, c.amount_minor, c.tokens, c.user_id,
        governance.is_undecided(c) as is_undecided,
        (p_status is null or c.status = any (p_status))
          and (p_difference_ids is null or c.difference_id = any (p_difference_ids))
        and (p_class is null or c.class = p_class) and (p_undecided is null or governance.is_undecided(c) = p_undecided)
        and (p_assigned_to is null or coalesce(c.assigned_to, '') = p_assigned_to)
        and (p_older_than_days is null
          or coalesce(c.occurred_at, c.opened_at) <= governance.now() - p_older_than_days * interval '1 day') as fits
      from governance.reconciliation_cases c
      where p_run_id is null or exists (select from governance.reconciliation_run_differences d
        where d.run_id = p_run_id and d.difference_id = c.difference_id)
    )
    select jsonb_build_object(
      'counts', (select coalesce(jsonb_object_agg(s.status, s.n), '{}')
        from (select x.status, count(*) as n from scope x group by 1) s),
      'undecided', (select count(*) from scope x where x.is_undecided),
      'classes', (select coalesce(jsonb_object_agg(s.class, s.n), '{}')
        from (select x.class, count(*) as n from scope x group by 1) s),
      'assignees', (select coalesce(jsonb_agg(s.assigned_to order by s.assigned_to), '[]')
        from (select distinct x.assigned_to from scope x where x.assigned_to <> '' limit 200) s),
      'total', (select count(*) from scope x where x.fits),
      'tokens', (select coalesce(sum(abs(x.tokens)), 0) from scope x where x.fits),
      'users', (select count(distinct x.user_id) from scope x where x.fits),
      'money', (select coalesce(jsonb_agg(jsonb_build_object('currency', s.currency, 'amount_minor', s.amount)
        order by s.currency), '[]')
        from (select x.currency, sum(abs(x.amount_minor)) as amount from scope x
          where x.fits and x.amount_minor <> 0 and x.currency is not null group by 1) s),
      'cases', (select coalesce(jsonb_agg(governance.case_json(c) || case when p_difference_ids is null then '{}'
        else jsonb_build_object('difference', c.difference) end order by c.difference_id), '[]')
        from (select x.difference_id from scope x where x.fits and (p_after is null or x.difference_id > p_after)
          order by x.difference_id limit p_limit) page
        join governance.reconciliation_cases c using (difference_id))));
end
$$;
comment on function public.console_reconciliation_cases(text[], text[], int, text, text, text, text, int, boolean) is
  'Cases in order of id, p_after being the last id of the page before; of one run, or all. p_assigned_to '''' means '
    'nobody; p_undecided true, what still keeps a period open. Cases asked for by id come with both sides. counts, '
    'undecided, classes and assignees are of the run or the project; total, tokens, users and money of what fits. '
    'Errors: invalid_argument.';
revoke all on function public.console_reconciliation_cases(text[], text[], int, text, text, text, text, int, boolean)
  from public, anon, authenticated;
grant execute on function public.console_reconciliation_cases(text[], text[], int, text, text, text, text, int,
  boolean) to service_role;

create function governance.case_refusal(
  c governance.reconciliation_cases, p_id text, p_action text, p_operator text, p_expected_version bigint default null,
    p_named jsonb default '{}'
) returns governance.refusal
  language plpgsql stable set search_path = '' as $$
declare
  v_name text := left(p_id, 100);
  v_by text := coalesce(c.history -> -1 ->> 'by', 'somebody');
  -- With what the proposer names.
  v_correction jsonb := c.correction || p_named;
begin
  if c.difference_id is null then
    return row('PT404', 'not_found', format('There is no case "%s"', v_name))::governance.refusal;
  elsif p_expected_version <> c.version then
    return row('PT409', 'version_conflict',
      format('%s was changed by %s in the meantime: it is %s now', v_name, v_by,
      replace(c.status, '_', ' ')))::governance.refusal;
  elsif p_action in ('note', 'assign') then
    return null;
  elsif c.status in ('posted', 'verified') then
    return row('PT409', 'already_decided', format('%s is %s already', v_name, c.status))::governance.refusal;
  elsif c.status in ('carried_forward', 'written_off') and p_action <> 'reopen' then
    return row('PT409', 'already_decided',
      format('%s is %s already: reopen it first', v_name, replace(c.status, '_', ' ')))::governance.refusal;
  elsif p_action = 'reopen' and c.status = 'open' then
    return row('PT409', 'already_decided', format('%s is open already', v_name))::governance.refusal;
  elsif p_action = 'approve' and c.status <> 'proposed' then
    return row('PT409', 'not_proposed',
      format('%s is %s: only what was proposed can be approved', v_name,
      replace(c.status, '_', ' ')))::governance.refusal;
  elsif p_action = 'approve' and governance.is_same_person(c.proposed_by, p_operator) then
    return row('PT403', 'same_person', 'Somebody else must approve what you proposed')::governance.refusal;
  elsif p_action = 'propose'
    and coalesce(v_correction ->> 'action', '') not in ('grant', 'reverse', 'adjust', 'claw_back', 'restore', 'hold',
    'release', 'finalise_dispute', 'relabel', 'promotional') then
    return row('PT409', 'nothing_to_post',
      format('%s has no correction that books anything: decide it, or mend it in Stripe', v_name))::governance.refusal;
  elsif p_action = 'propose' and v_correction ->> 'action' = 'grant'
    and not exists (select from governance.accounts a where a.user_id = v_correction ->> 'user_id')
      and not exists (select from governance.stripe_customers k where k.customer_id = v_correction ->> 'customer_id')
        then
    return row('PT404', 'unknown_user', format('%s names no known user: say who paid', v_name))::governance.refusal;
  end if;
  return null;
end
$$;
comment on function governance.case_refusal(governance.reconciliation_cases, text, text, text, bigint,
  jsonb) is 'Why an action on a case is refused; null where it is not. Actions and their previews ask the same.';

create function public.console_case_action(
  p_command_id text, p_difference_ids text[], p_action text, p_operator text, p_reason text default null,
    p_details jsonb default '{}', p_expected_versions jsonb default null
) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_now timestamptz;
  v_answer jsonb;
  v_id text;
  c governance.reconciliation_cases;
  v_refusal governance.refusal;
  v_status text;
  v_waits boolean;
  v_is_alone boolean;
begin
  perform governance.refuse_others('console_case_action');
  perform governance.check_id('p_command_id', p_command_id);
  perform governance.check_id('p_operator', p_operator);
  perform governance.check_optional('p_reason', p_reason, 2000);
  perform governance.check_metadata('p_details', p_details);
  if p_action is null or p_action not in ('investigate', 'assign', 'note', 'propose', 'approve', 'carry_forward',
    'write_off', 'reopen') then
    perform governance.fail('PT400', 'invalid_argument',
      'p_action is one of investigate, assign, note, propose, approve, carry_forward, write_off, reopen');
  elsif p_difference_ids is null or cardinality(p_difference_ids) not between 1 and 1000
    or array_ndims(p_difference_ids) > 1 or array_position(p_difference_ids, null) is not null then
    perform governance.fail('PT400', 'invalid_argument', 'p_difference_ids are 1 to 1,000');
  elsif p_action in ('note', 'write_off', 'reopen') and coalesce(btrim(p_reason), '') = '' then
    perform governance.fail('PT400', 'invalid_argument', 'p_reason is needed');
  elsif p_action = 'assign'
    and (coalesce(jsonb_typeof(p_details -> 'assigned_to'), '') not in ('string', 'null')
    or length(p_details ->> 'assigned_to') > 255) then
    perform governance.fail('PT400', 'invalid_argument',
      'p_details.assigned_to is a name of at most 255 characters, or null for nobody');
  elsif jsonb_typeof(p_expected_versions) <> 'object' then
    perform governance.fail('PT400', 'invalid_argument', 'p_expected_versions is an object: difference id → version');
  elsif exists (select from jsonb_each(p_expected_versions) v where governance.stripe_whole(v.value) is null) then
    -- A version that cannot be read would be no check at all.
    perform governance.fail('PT400', 'invalid_argument',
      'A version in p_expected_versions is a whole number, as the case was answered with');
  end if;
  v_answer := governance.begin_command('case_action', p_command_id,
    row(p_difference_ids, p_action, p_operator, p_reason, p_details)::text || coalesce(p_expected_versions::text, ''));
  if v_answer is not null then return v_answer; end if;
  -- Many at once, but not while a run is kept or a period closed: what is closed must be what was decided.
  perform pg_advisory_xact_lock_shared(7254101);
  if p_action = 'write_off' then
    perform governance.lock_person(p_operator);
  end if;
  v_now := governance.now();
  for v_id in select distinct x from unnest(p_difference_ids) x order by 1 loop
    select * into c from governance.reconciliation_cases x where x.difference_id = v_id for update;
    v_refusal := governance.case_refusal(c, v_id, p_action, p_operator,
      governance.stripe_whole(p_expected_versions -> v_id), governance.stripe_object(p_details -> 'correction'));
    if v_refusal.hint is not null then
      perform governance.fail(v_refusal.sqlstate, v_refusal.hint, v_refusal.message, case v_refusal.hint
        when 'version_conflict' then governance.case_json(c)::text end);
    end if;
    -- Above the limit one person can only propose to write off.
    v_waits := p_action = 'write_off' and c.blocks and governance.why_approver(c, p_operator, null, v_now) is not null;
    v_is_alone := p_action = 'write_off' and c.blocks and not v_waits;
    v_status := case p_action when 'investigate' then 'investigating' when 'propose' then 'proposed'
      when 'approve' then case c.resolution when 'write_off' then 'written_off' else 'approved' end
      when 'carry_forward' then 'carried_forward' when 'write_off' then case when v_waits then 'proposed'
        else 'written_off' end when 'reopen' then 'open' else c.status end;
    update governance.reconciliation_cases x set
      status = v_status, status_at = case when x.status = v_status then x.status_at
        else v_now end, updated_at = v_now, version = x.version + 1,
      assigned_to = case p_action when 'assign' then nullif(btrim(p_details ->> 'assigned_to'), '')
        else x.assigned_to end,
      -- Whoever proposes may name what the report could not: the user, the tokens, another action.
      correction = case p_action when 'propose'
        then governance.complete_correction(x.correction || governance.stripe_object(p_details -> 'correction'))
        else x.correction end,
      user_id = case p_action when 'propose'
        then coalesce(governance.person_of(x.correction || governance.stripe_object(p_details -> 'correction')),
          x.user_id)
        else x.user_id end,
      -- What is at stake is what the proposal moves.
      tokens = case when p_action = 'propose'
          and governance.stripe_whole(p_details #> '{correction,tokens}') is not null
        then -governance.stripe_whole(p_details #> '{correction,tokens}') else x.tokens end,
      resolution = case when p_action = 'write_off' then 'write_off'
        when p_action in ('note', 'assign', 'approve') then x.resolution else 'correct' end,
      proposed_by = case when p_action in ('propose', 'write_off') then p_operator
        when p_action in ('note', 'assign', 'approve') then x.proposed_by end,
      approved_by = case when p_action = 'approve' then p_operator
        when p_action in ('note', 'assign') then x.approved_by end,
      history = x.history || jsonb_strip_nulls(jsonb_build_object('at', v_now, 'by', p_operator, 'action', case
        when v_waits then 'propose_write_off' else p_action end,
        'reason', p_reason, 'details', nullif(p_details, '{}')))
    where x.difference_id = v_id returning * into c;
    if v_is_alone then
      insert into governance.lone_decisions (difference_id, what, decided_at, decided_by, tokens, amount_minor,
        currency)
      select v_id, 'written_off', v_now, p_operator, s.tokens, s.amount_minor, c.currency
        from governance.stake_of(c, null) s;
    elsif p_action = 'reopen' then
      delete from governance.lone_decisions d where d.difference_id = v_id and d.what = 'written_off';
    end if;
  end loop;
  insert into governance.audit_log (created_at, operator, action, reason, command_id, details)
  values (v_now, p_operator, 'case_' || p_action, p_reason, p_command_id,
    jsonb_build_object('difference_ids', to_jsonb(p_difference_ids)));
  return governance.end_command('case_action', p_command_id, jsonb_build_object('cases',
    (select jsonb_agg(governance.case_json(x) order by x.difference_id) from governance.reconciliation_cases x
      where x.difference_id = any (p_difference_ids))));
end
$$;
comment on function public.console_case_action(text, text[], text, text, text, jsonb, jsonb) is
  'Moves cases on: investigate, assign, note, propose, approve (by somebody else), carry_forward, write_off (above the '
  'limit only proposed, until somebody else approves), reopen; all of them or none. p_expected_versions names the '
  'versions that were looked at. Audited. Errors: invalid_argument, not_found, version_conflict, already_decided, '
  'not_proposed, same_person, nothing_to_post, unknown_user, idempotency_conflict.';
revoke all on function public.console_case_action(text, text[], text, text, text, jsonb, jsonb)
  from public, anon, authenticated;
grant execute on function public.console_case_action(text, text[], text, text, text, jsonb, jsonb) to service_role;

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

create function governance.preview_correction(c governance.reconciliation_cases, p_now timestamptz) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_effects jsonb;
  v_users text[];
  v_before jsonb;
  v_after jsonb;
begin
  -- Done and undone: the preview is what will happen, not a guess at it.
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
  'What a correction would do: effects, and for each account its entries, balances and changed lots before and after. '
  'Changes nothing. Errors: those of governance.apply_correction.';

create function public.console_post_correction(p_difference_id text, p_operator text, p_dry_run boolean default false,
  p_expected_version int default null) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_now timestamptz;
  c governance.reconciliation_cases;
  v_effects jsonb;
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
      'It is proposed to write this case off: propose its correction first');
  elsif c.status <> 'approved' and governance.needs_approver(c) then
    perform governance.fail('PT403', 'approval_needed', governance.why_approver(c, p_operator, '[]', v_now));
  end if;
  v_effects := governance.apply_correction(p_difference_id, c.correction, v_now);
  if c.status <> 'approved' then
    v_why := governance.why_approver(c, p_operator, v_effects, v_now);
    if v_why is not null then
      perform governance.fail('PT403', 'approval_needed', v_why);
    end if;
  end if;
  -- The clock anew: booking may have waited for the account, and a run that read the ledger meanwhile has not seen it.
  v_now := governance.now();
  if c.status <> 'approved' then
    insert into governance.lone_decisions (difference_id, what, decided_at, decided_by, tokens, amount_minor, currency)
    select p_difference_id, 'posted', v_now, p_operator, s.tokens, s.amount_minor, c.currency
      from governance.stake_of(c, v_effects) s;
  end if;
  update governance.reconciliation_cases x set status = 'posted', status_at = v_now, posted_at = v_now,
    posted_by = p_operator, effects = v_effects, updated_at = v_now, version = x.version + 1,
    -- What was posted, and whom it was posted to, is what the case says from now on.
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
    perform governance.fail('PT400', 'invalid_argument', 'p_difference_ids are 1 to 1,000');
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

create function public.console_finance_counts() returns jsonb
  language sql stable security definer set search_path = '' as $$
  select governance.refuse_others('console_finance_counts');
  select jsonb_build_object(
    'keeps_runs', exists (select from governance.reconciliation_runs),
    'undecided', (select count(*) from governance.reconciliation_cases c where governance.is_undecided(c)),
    'waiting_for_approval', (select count(*) from governance.reconciliation_cases c
      where c.status = 'proposed' and c.blocks),
    'stripe_events', (select count(*) from governance.webhook_events_processed w where w.status = 'quarantined'),
    'closed_periods', (select count(*) from governance.reconciliation_periods),
    'approval_above_tokens', governance.setting_number('approval_above_tokens', 1000000),
    'approval_above_minor', governance.setting_number('approval_above_minor', 10000))
$$;
comment on function public.console_finance_counts() is 'What waits on the finance desk, and the limits above which a '
  'second person must approve.';
revoke all on function public.console_finance_counts() from public, anon, authenticated;
grant execute on function public.console_finance_counts() to service_role;
