-- Cases: differences as finance decides them, and who may decide alone.

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
  -- The correction that would be posted: the report's proposal, or the proposer's own.
  correction jsonb not null,
  assigned_to text,
  proposed_by text,
  approved_by text,
  posted_at timestamptz,
  effects jsonb,
  -- The state before the correction was posted: an undo goes back to it.
  before_posting jsonb,
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
  -- When the ledger was read in which it was last looked for.
  checked_at timestamptz not null,
  -- When it took its status: a note later is no new decision.
  status_at timestamptz not null,
  -- The proposal: to post the correction, or to write the difference off.
  resolution text not null default 'correct' check (resolution in ('correct', 'write_off')),
  posted_by text,
  -- How many closes it was carried over.
  times_carried int not null default 0
);

create index reconciliation_cases_status on governance.reconciliation_cases (status, updated_at desc);

create index reconciliation_cases_charge on governance.reconciliation_cases ((difference #>> '{stripe,charge_id}'))
  where difference #>> '{stripe,charge_id}' is not null;

create index reconciliation_cases_intent
  on governance.reconciliation_cases ((difference #>> '{stripe,payment_intent_id}'))
  where difference #>> '{stripe,payment_intent_id}' is not null;

comment on table governance.reconciliation_cases is 'Differences as finance works on them: open → investigating → '
  'proposed → approved → posted → verified; or carried forward, or written off.';

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
  'Tokens and money that one person posted, wrote off or corrected on an account without a second: their sum has a '
  'limit. Not on the case, which may be opened again and booked again. A write-off that is reopened, or an act that is '
  'undone, is taken out.';

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
      case when c.correction ->> 'action' in ('promotional', 'reclassify') then (select l.granted from governance.lots l
        where l.lot_id = governance.stripe_whole(c.correction -> 'lot_id')) end) end,
    greatest(abs(c.amount_minor), case when p_effects is not null and c.correction ->> 'action' in ('grant', 'relabel')
      then abs(coalesce(governance.stripe_whole(c.correction -> 'amount_minor'), 0)) end)
$$;
comment on function governance.stake_of(governance.reconciliation_cases, jsonb) is
  'The tokens and minor units at stake when a case is booked with these effects, or (null) written off. The booked '
  'effects count, not the figures of the proposal.';

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
comment on function governance.lock_person(text) is
  'Locks one operator: only one of their decisions runs at a time, as those made alone are added up. Taken before any '
  'case and account.';

create function public.console_reconciliation_cases(
  p_status text[] default null, p_difference_ids text[] default null, p_limit int default 500,
    p_after text default null,
  p_run_id text default null, p_class text default null, p_assigned_to text default null,
    p_older_than_days int default null, p_undecided boolean default null, p_text text default null,
    p_sort text default null, p_descending boolean default false
) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
declare
  v_text text := lower(nullif(btrim(p_text), ''));
begin
  perform governance.refuse_others('console_reconciliation_cases');
  perform governance.check_optional('p_text', p_text, 200);
  if p_sort not in ('money', 'tokens', 'age', 'class') then
    perform governance.fail('PT400', 'invalid_argument', 'p_sort is money, tokens, age or class');
  end if;
  if p_limit is null or p_limit not between 1 and 5000 then
    perform governance.fail('PT400', 'invalid_argument', 'p_limit is a whole number from 1 to 5000');
  elsif p_older_than_days not between 0 and 36500 then
    perform governance.fail('PT400', 'invalid_argument', 'p_older_than_days is a whole number from 0 to 36500');
  end if;
  return (
    with scope as (
      select c.difference_id, c.class, c.status, c.assigned_to, c.currency, c.amount_minor, c.tokens, c.user_id,
        governance.is_undecided(c) as is_undecided,
        -- The sort key, as text that sorts like it; of an amount at stake its size, whichever way it goes.
        case p_sort when 'money' then lpad(abs(c.amount_minor)::text, 20, '0')
          when 'tokens' then lpad(abs(c.tokens)::text, 20, '0')
          when 'age' then to_char(coalesce(c.occurred_at, c.opened_at) at time zone 'UTC', 'YYYYMMDDHH24MISSUS')
          when 'class' then c.class else '' end collate "C" as sort_key,
        (p_status is null or c.status = any (p_status))
          and (p_difference_ids is null or c.difference_id = any (p_difference_ids))
        and (p_class is null or c.class = p_class) and (p_undecided is null or governance.is_undecided(c) = p_undecided)
        and (p_assigned_to is null or coalesce(c.assigned_to, '') = p_assigned_to)
        and (p_older_than_days is null
          or coalesce(c.occurred_at, c.opened_at) <= governance.now() - p_older_than_days * interval '1 day')
        and (v_text is null or strpos(lower(concat_ws(E'\n', c.difference_id, c.user_id, c.assigned_to, c.currency,
          c.difference ->> 'explanation', c.difference ->> 'stripe', c.difference ->> 'ledger')), v_text) > 0) as fits
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
        else jsonb_build_object('difference', c.difference) end order by page.place), '[]')
        from (select x.difference_id, row_number() over (order by
            case when p_descending then x.sort_key end desc, case when not p_descending then x.sort_key end,
            x.difference_id) as place
          from scope x where x.fits and (p_after is null or case
            when (select y.sort_key from scope y where y.difference_id = p_after) = x.sort_key
              then x.difference_id > p_after
            when p_descending then x.sort_key < (select y.sort_key from scope y where y.difference_id = p_after)
            else x.sort_key > (select y.sort_key from scope y where y.difference_id = p_after) end)
          order by place limit p_limit) page
        join governance.reconciliation_cases c using (difference_id))));
end
$$;
comment on function public.console_reconciliation_cases(text[], text[], int, text, text, text, text, int, boolean,
  text, text, boolean) is
  'Cases in order of p_sort (money or tokens at stake, age by when it happened, class) and then id, p_after being the '
    'last id of the page before; of one run, or all. p_text is part of an id, name or explanation. p_assigned_to '''' '
    'means nobody; p_undecided true, what still keeps a period open. Cases asked for by id come with both sides. '
    'counts, undecided, classes and assignees are of the run or the project; total, tokens, users and money of what '
    'fits. Errors: invalid_argument.';
revoke all on function public.console_reconciliation_cases(text[], text[], int, text, text, text, text, int, boolean,
  text, text, boolean) from public, anon, authenticated;
grant execute on function public.console_reconciliation_cases(text[], text[], int, text, text, text, text, int,
  boolean, text, text, boolean) to service_role;

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
  elsif p_action = 'undo' then
    if c.status not in ('posted', 'verified') or governance.inverse_correction(c) is null then
      return row('PT409', 'nothing_to_post',
        format('%s has nothing posted that an entry could undo', v_name))::governance.refusal;
    end if;
    return null;
  elsif c.correction ? 'undoes' and c.status in ('proposed', 'approved') and p_action not in ('approve', 'reopen') then
    return row('PT409', 'already_decided',
      format('It is proposed to undo what was posted for %s: post that, or reopen the case to leave it as it is',
      v_name))::governance.refusal;
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
  v_leaves_undo boolean;
begin
  perform governance.refuse_others('console_case_action');
  perform governance.check_id('p_command_id', p_command_id);
  perform governance.check_id('p_operator', p_operator);
  perform governance.check_optional('p_reason', p_reason, 2000);
  perform governance.check_metadata('p_details', p_details);
  if p_action is null or p_action not in ('investigate', 'assign', 'note', 'propose', 'approve', 'carry_forward',
    'write_off', 'reopen', 'undo') then
    perform governance.fail('PT400', 'invalid_argument',
      'p_action is one of investigate, assign, note, propose, approve, carry_forward, write_off, reopen, undo');
  elsif p_difference_ids is null or cardinality(p_difference_ids) not between 1 and 1000
    or array_ndims(p_difference_ids) > 1 or array_position(p_difference_ids, null) is not null then
    perform governance.fail('PT400', 'invalid_argument', 'p_difference_ids is a list of 1 to 1,000 ids');
  elsif p_action in ('note', 'write_off', 'reopen', 'undo') and coalesce(btrim(p_reason), '') = '' then
    perform governance.fail('PT400', 'invalid_argument', 'p_reason is needed');
  elsif p_action = 'assign'
    and (coalesce(jsonb_typeof(p_details -> 'assigned_to'), '') not in ('string', 'null')
    or length(p_details ->> 'assigned_to') > 255) then
    perform governance.fail('PT400', 'invalid_argument',
      'p_details.assigned_to is a name of at most 255 characters, or null for nobody');
  elsif jsonb_typeof(p_expected_versions) <> 'object' then
    perform governance.fail('PT400', 'invalid_argument', 'p_expected_versions is an object: difference id → version');
  elsif exists (select from jsonb_each(p_expected_versions) v where governance.stripe_whole(v.value) is null) then
    -- A version that cannot be read would check nothing.
    perform governance.fail('PT400', 'invalid_argument',
      'A version in p_expected_versions is a whole number: the version at which the case was read');
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
    -- A case whose undoing is proposed goes back to what was posted.
    v_leaves_undo := p_action = 'reopen' and c.correction ? 'undoes' and c.status in ('proposed', 'approved');
    v_status := case p_action when 'investigate' then 'investigating' when 'propose' then 'proposed'
      when 'undo' then 'proposed'
      when 'approve' then case c.resolution when 'write_off' then 'written_off' else 'approved' end
      when 'carry_forward' then 'carried_forward' when 'write_off' then case when v_waits then 'proposed'
        else 'written_off' end when 'reopen' then case when v_leaves_undo then 'posted' else 'open' end
      else c.status end;
    update governance.reconciliation_cases x set
      status = v_status, status_at = case when x.status = v_status then x.status_at
        else v_now end, updated_at = v_now, version = x.version + 1,
      assigned_to = case p_action when 'assign' then nullif(btrim(p_details ->> 'assigned_to'), '')
        else x.assigned_to end,
      -- A proposal may name what the report could not: the user, the tokens, another action.
      correction = case p_action when 'propose'
        then governance.complete_correction(x.correction || governance.stripe_object(p_details -> 'correction'))
        when 'undo' then governance.inverse_correction(x)
        else case when v_leaves_undo then x.correction -> 'undoes' else x.correction end end,
      user_id = case p_action when 'propose'
        then coalesce(governance.person_of(x.correction || governance.stripe_object(p_details -> 'correction')),
          x.user_id)
        else x.user_id end,
      -- The stake is the amount that the proposal moves.
      tokens = case when p_action = 'propose'
          and governance.stripe_whole(p_details #> '{correction,tokens}') is not null
        then -governance.stripe_whole(p_details #> '{correction,tokens}')
        when p_action = 'undo' or v_leaves_undo then -x.tokens else x.tokens end,
      resolution = case when p_action = 'write_off' then 'write_off'
        when p_action in ('note', 'assign', 'approve') then x.resolution else 'correct' end,
      proposed_by = case when p_action in ('propose', 'write_off', 'undo') then p_operator
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
    elsif p_action = 'reopen' and not v_leaves_undo then
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
  'limit only proposed, until somebody else approves), reopen, undo (proposes the entry that undoes what was posted); '
  'all of them or none. p_expected_versions names the '
  'versions that were looked at. Audited. Errors: invalid_argument, not_found, version_conflict, already_decided, '
  'not_proposed, same_person, nothing_to_post, unknown_user, idempotency_conflict.';
revoke all on function public.console_case_action(text, text[], text, text, text, jsonb, jsonb)
  from public, anon, authenticated;
grant execute on function public.console_case_action(text, text[], text, text, text, jsonb, jsonb) to service_role;

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
comment on function public.console_finance_counts() is
  'How much waits on the finance desk, and the limits above which a second person must approve.';
revoke all on function public.console_finance_counts() from public, anon, authenticated;
grant execute on function public.console_finance_counts() to service_role;
