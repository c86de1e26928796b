-- One correction of many accounts: worked out before it starts, done in small steps that are each kept, stopped, gone
-- on with and undone as a whole. A step holds the locks of a few accounts for a moment, so calls and operators go on.

create table governance.bulk_acts (
  bulk_id bigint generated always as identity primary key,
  command_id text not null unique,
  -- The act as it was asked for, as governance.check_act reads it.
  fields jsonb not null,
  reason text not null,
  operator text not null,
  -- proposed: a second person decides. stopped: goes on when somebody resumes it. undoing goes over to undone.
  status text not null check (status in ('proposed', 'rejected', 'running', 'stopped', 'done', 'undoing', 'undone')),
  why text,
  -- Its effects as they were worked out when it started.
  plan jsonb not null,
  accounts int not null,
  done int not null default 0,
  refused int not null default 0,
  undone int not null default 0,
  -- Tokens given or taken so far, without those of them that paid debt.
  tokens bigint not null default 0,
  created_at timestamptz not null,
  -- When the last step was kept.
  stepped_at timestamptz,
  ended_at timestamptz,
  -- The second person, who approved or rejected it.
  decided_by text,
  undo_reason text,
  undone_by text
);

create index bulk_acts_open on governance.bulk_acts (bulk_id desc) where status in ('proposed', 'running', 'stopped',
  'undoing');

comment on table governance.bulk_acts is 'Corrections of many accounts at once, and how far each is.';

create table governance.bulk_act_accounts (
  bulk_id bigint not null,
  account_id bigint not null,
  -- Accounts are taken in the order of their locks.
  lock_key bigint not null,
  status text not null default 'waiting' check (status in ('waiting', 'done', 'refused', 'undone', 'kept')),
  act_id bigint,
  tokens bigint,
  -- Why it was refused, or why it could not be undone (kept).
  hint text,
  message text,
  primary key (bulk_id, account_id)
);

create index bulk_act_accounts_next on governance.bulk_act_accounts (bulk_id, status, lock_key, account_id);

comment on table governance.bulk_act_accounts is 'The outcome of a bulk act, account by account.';

create type governance.bulk_line as (account_id bigint, tokens bigint, debt_paid bigint, hint text);

create function governance.bulk_lines(p_act jsonb, p_account_ids bigint[]) returns setof governance.bulk_line
  language sql stable set search_path = '' as $$
  -- As governance.apply_act does it, for all at once and without a lock.
  select a.account_id,
    case when x.hint is null then x.tokens else 0 end,
    case when x.hint is null then least(a.debt_tokens, greatest(x.tokens, 0)) else 0 end,
    x.hint
  from governance.accounts a
  left join governance.plans p on p.plan_id = p_act ->> 'plan_id' and p.retired_at is null
  cross join (select governance.now() as at offset 0) t
  cross join lateral (select a.subscription_tokens + a.purchased_tokens + a.promotional_tokens as total) b
  cross join lateral (select
    case p_act ->> 'kind' when 'give_tokens' then (p_act ->> 'tokens')::bigint
      when 'take_tokens' then -(p_act ->> 'tokens')::bigint
      when 'change_plan' then case when p_act ->> 'when' = 'next_period' then 0
        else greatest(p.monthly_allowance - a.month_allowance, 0) end else 0 end as tokens,
    case p_act ->> 'kind'
      when 'give_tokens' then case when b.total + (p_act ->> 'tokens')::numeric > 9007199254740991
        then 'invalid_argument' end
      when 'take_tokens' then case when b.total - a.reserved_tokens < (p_act ->> 'tokens')::bigint
        then 'insufficient_tokens' end
      else case when governance.why_unchanged(a, p_act, t.at) is not null then 'nothing_to_change' end
      end as hint) x
  where a.account_id = any (p_account_ids)
$$;
comment on function governance.bulk_lines(jsonb, bigint[]) is
  'Effects that an act would have on each of these accounts: tokens that it adds (or takes, below zero), how many of '
  'them pay debt, or the word it would be refused with.';

create function governance.check_bulk_act(p_act jsonb) returns jsonb
  language plpgsql stable set search_path = '' as $$
declare
  v_act jsonb := governance.check_act(p_act);
begin
  if v_act ->> 'kind' in ('refund_call', 'end_hold') then
    perform governance.fail('PT400', 'invalid_argument',
      format('p_act.kind %s is for one call of one user, not for many users',
      v_act ->> 'kind'));
  elsif v_act ->> 'kind' = 'change_plan' and not exists (select from governance.plans p
    where p.plan_id = v_act ->> 'plan_id' and p.retired_at is null) then
    perform governance.fail('PT404', 'unknown_plan', format('There is no plan "%s"', left(v_act ->> 'plan_id', 64)));
  end if;
  return v_act;
end
$$;
comment on function governance.check_bulk_act(jsonb) is 'Refuses an act that many accounts cannot get at once. Errors: '
  'invalid_argument, unknown_plan.';

create function governance.plan_bulk_act(p_act jsonb, p_user_ids jsonb, p_operator text, p_now timestamptz)
  returns jsonb
  language plpgsql stable set search_path = '' as $$
declare
  c_most constant int := 20000;
  c_shown constant int := 100;
  v_user_ids text[];
  v_missing text[];
  v_account_ids bigint[];
  v_plan jsonb;
begin
  if p_user_ids is null or jsonb_typeof(p_user_ids) <> 'array' or jsonb_array_length(p_user_ids) = 0
    or exists (select from jsonb_array_elements(p_user_ids) u where jsonb_typeof(u) <> 'string') then
    perform governance.fail('PT400', 'invalid_argument', 'p_user_ids is a list of at least one user id');
  elsif jsonb_array_length(p_user_ids) > c_most then
    perform governance.fail('PT400', 'invalid_argument',
      format('p_user_ids names %s users: at most %s go into one act', jsonb_array_length(p_user_ids), c_most));
  end if;
  select array_agg(distinct u) into v_user_ids from jsonb_array_elements_text(p_user_ids) u;
  select array_agg(a.account_id), array_agg(u order by u) filter (where a.account_id is null)
    into v_account_ids, v_missing
  from unnest(v_user_ids) u left join governance.accounts a on a.user_id = u;
  v_account_ids := array_remove(v_account_ids, null);
  with lines as materialized (select * from governance.bulk_lines(p_act, v_account_ids))
  select jsonb_build_object(
    'accounts', count(*), 'changes', count(*) filter (where l.hint is null),
    'refused', count(*) filter (where l.hint is not null),
    'missing', coalesce(cardinality(v_missing), 0),
    'missing_ids', to_jsonb(coalesce(v_missing[1:c_shown], '{}')),
    'tokens', coalesce(sum(l.tokens), 0), 'debt_paid', coalesce(sum(l.debt_paid), 0),
    'stake', coalesce(sum(abs(l.tokens) + l.debt_paid), 0),
    'by_refusal', (select coalesce(jsonb_agg(jsonb_build_object('hint', y.hint, 'accounts', y.n) order by y.n desc),
      '[]') from (select z.hint, count(*) as n from lines z where z.hint is not null group by z.hint) y),
    'by_plan', (select coalesce(jsonb_agg(jsonb_build_object('plan_id', y.plan_id, 'name', p.name, 'accounts', y.n,
        'tokens', y.tokens) order by y.n desc, y.plan_id), '[]')
      from (select a.plan_id, count(*) as n, sum(z.tokens) as tokens from lines z
        join governance.accounts a using (account_id) where z.hint is null group by a.plan_id) y
      join governance.plans p using (plan_id)),
    'shown', (select coalesce(jsonb_agg(jsonb_build_object('user_id', y.user_id, 'display_name', y.display_name,
        'email', y.email, 'plan_id', y.plan_id, 'before', y.free, 'after', y.free + y.tokens - y.debt_paid,
        'debt_paid', y.debt_paid, 'hint', y.hint, 'is_flagged', y.is_flagged, 'is_blocked', y.blocked_until > p_now,
        'blocked_until', case when y.blocked_until > p_now and isfinite(y.blocked_until) then y.blocked_until end,
        'daily_limit', y.daily_limit, 'monthly_limit', y.monthly_limit) order by y.hint nulls last, y.user_id), '[]')
      from (select a.user_id, a.display_name, a.email, a.plan_id, z.tokens, z.debt_paid, z.hint,
          a.subscription_tokens + a.purchased_tokens + a.promotional_tokens - a.reserved_tokens as free,
          a.flagged_at is not null as is_flagged, coalesce(governance.blocked_until(a), '-infinity') as blocked_until,
          governance.raised_limit(p.daily_limit, a.raised_daily_limit, a.raised_daily_until, p_now) as daily_limit,
          governance.raised_limit(p.monthly_limit, a.raised_monthly_limit, a.raised_monthly_until,
            p_now) as monthly_limit
        from lines z join governance.accounts a using (account_id) join governance.plans p using (plan_id)
        order by z.hint nulls last, a.user_id limit c_shown) y))
    -- Who they are: what an act that moves no tokens costs them and us.
    || (select jsonb_build_object(
        'blocked', count(*) filter (where governance.blocked_until(a) > p_now),
        'flagged', count(*) filter (where a.flagged_at is not null),
        'paying', count(*) filter (where exists (select from governance.stripe_payments y
          where y.account_id = a.account_id)),
        'holding', count(*) filter (where a.reserved_tokens > 0),
        'used_this_month', coalesce(sum(a.month_tokens) filter (where a.month_ends_at > p_now), 0))
      from lines z join governance.accounts a using (account_id) where z.hint is null)
  into v_plan from lines l;
  if (v_plan ->> 'stake')::numeric > 9007199254740991 then
    perform governance.fail('PT400', 'invalid_argument',
      'This act would move 2^53 tokens or more in all: choose fewer users or fewer tokens');
  end if;
  return v_plan || jsonb_build_object('account_ids', to_jsonb(coalesce(v_account_ids, '{}')),
    'why', governance.why_second_person(p_operator, (v_plan ->> 'stake')::bigint, p_now));
end
$$;
comment on function governance.plan_bulk_act(jsonb, jsonb, text, timestamptz) is
  'Whom an act on many hits and what it costs: counts, tokens, by plan, who is refused and why, users that are gone, '
  'of those that change how many pay, are blocked, are flagged or have calls in flight and what they used this month, '
  'the first hundred by user, and why a second person must approve. Errors: invalid_argument.';

create function governance.bulk_json(b governance.bulk_acts) returns jsonb
  language sql stable set search_path = '' as $$
  select jsonb_build_object('bulk_id', b.bulk_id, 'command_id', b.command_id, 'kind', b.fields ->> 'kind', 'fields',
    b.fields - 'kind', 'reason', b.reason, 'operator', b.operator, 'status', b.status, 'why', b.why, 'plan',
    b.plan - 'shown', 'accounts', b.accounts, 'done', b.done, 'refused', b.refused, 'undone', b.undone, 'tokens',
    b.tokens, 'created_at', b.created_at, 'stepped_at', b.stepped_at, 'ended_at', b.ended_at, 'decided_by',
    b.decided_by, 'undo_reason', b.undo_reason, 'undone_by', b.undone_by,
    'can_undo', b.status in ('done', 'stopped') and b.fields ->> 'kind' <> 'note' and b.done > b.undone)
$$;
comment on function governance.bulk_json(governance.bulk_acts) is 'A bulk act as the console reads it.';

create function governance.find_bulk_act(p_bulk_id bigint, p_for_update boolean default false)
  returns governance.bulk_acts
  language plpgsql set search_path = '' as $$
declare
  b governance.bulk_acts;
begin
  if p_for_update then
    select * into b from governance.bulk_acts x where x.bulk_id = p_bulk_id for update;
  else
    select * into b from governance.bulk_acts x where x.bulk_id = p_bulk_id;
  end if;
  if b.bulk_id is null then
    perform governance.fail('PT404', 'not_found', 'There is no such bulk act');
  end if;
  return b;
end
$$;
comment on function governance.find_bulk_act(bigint, boolean) is 'A bulk act by its number. Errors: not_found.';

create function public.console_preview_bulk_act(p_act jsonb, p_user_ids jsonb, p_operator text) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
begin
  perform governance.refuse_others('console_preview_bulk_act');
  perform governance.check_id('p_operator', p_operator);
  return governance.plan_bulk_act(governance.check_bulk_act(p_act), p_user_ids, p_operator, governance.now())
    - 'account_ids';
end
$$;
comment on function public.console_preview_bulk_act(jsonb, jsonb, text) is
  'Whom a correction of many users would hit and what it would cost; changes nothing. Users that do not exist are '
  'counted and left out. At most 20,000 users. Errors: invalid_argument, unknown_plan.';
revoke all on function public.console_preview_bulk_act(jsonb, jsonb, text) from public, anon, authenticated;
grant execute on function public.console_preview_bulk_act(jsonb, jsonb, text) to service_role;

create function public.console_start_bulk_act(p_command_id text, p_act jsonb, p_user_ids jsonb, p_reason text,
  p_operator text, p_expected_changes int default null, p_expected_tokens bigint default null) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_act jsonb;
  v_plan jsonb;
  v_answer jsonb;
  v_now timestamptz := governance.now();
  b governance.bulk_acts;
begin
  perform governance.refuse_others('console_start_bulk_act');
  perform governance.check_id('p_command_id', p_command_id);
  perform governance.check_id('p_reason', p_reason, 1000);
  perform governance.check_id('p_operator', p_operator);
  v_act := governance.check_bulk_act(p_act);
  perform governance.lock_person(p_operator);
  v_answer := governance.begin_command('operator', p_command_id,
    row('bulk_act', v_act, p_user_ids, p_reason, p_operator, p_expected_changes, p_expected_tokens)::text);
  if v_answer is not null then return v_answer; end if;
  v_plan := governance.plan_bulk_act(v_act, p_user_ids, p_operator, v_now);
  if (v_plan ->> 'changes')::int <> p_expected_changes or (v_plan ->> 'tokens')::bigint <> p_expected_tokens then
    perform governance.fail('PT409', 'changed_since',
      'Some of these users changed since the preview: look at what the act would do now',
      (v_plan - 'account_ids')::text);
  elsif (v_plan ->> 'changes')::int = 0 then
    perform governance.fail('PT409', 'nothing_to_change', 'None of these users would be changed');
  end if;
  insert into governance.bulk_acts (command_id, fields, reason, operator, status, why, plan, accounts, created_at)
  values (p_command_id, v_act, p_reason, p_operator,
    case when v_plan ->> 'why' is null then 'running' else 'proposed' end, v_plan ->> 'why',
    v_plan - '{account_ids,shown}'::text[], (v_plan ->> 'accounts')::int, v_now)
  returning * into b;
  insert into governance.bulk_act_accounts (bulk_id, account_id, lock_key)
  select b.bulk_id, a.account_id, governance.lock_key(a.user_id) from governance.accounts a
  where a.account_id = any (array(select x::bigint from jsonb_array_elements_text(v_plan -> 'account_ids') x));
  if b.why is null and (v_plan ->> 'stake')::bigint > 0 then
    insert into governance.lone_decisions (bulk_id, what, decided_at, decided_by, tokens, amount_minor)
    values (b.bulk_id, 'act', v_now, p_operator, (v_plan ->> 'stake')::bigint, 0);
  end if;
  return governance.end_bulk_command(b, case when b.why is null then 'start_bulk' else 'propose_bulk' end,
    p_command_id, p_reason, p_operator);
end
$$;
comment on function public.console_start_bulk_act(text, jsonb, jsonb, text, text, int, bigint) is
  'Starts a correction of many users, and does none of it yet: console_step_bulk_act does, step by step. Returns the '
  'bulk act; above what one person may decide alone, for all of it together, its status is proposed until somebody '
  'else approves with console_change_bulk_act. Where it would change other than the expected number of accounts or '
  'tokens it is refused with what it does now in the details. Audited, and safe to repeat. Errors: invalid_argument, '
  'unknown_plan, changed_since, nothing_to_change, idempotency_conflict.';
revoke all on function public.console_start_bulk_act(text, jsonb, jsonb, text, text, int, bigint)
  from public, anon, authenticated;
grant execute on function public.console_start_bulk_act(text, jsonb, jsonb, text, text, int, bigint) to service_role;

create function governance.end_bulk_command(b governance.bulk_acts, p_action text, p_command_id text, p_reason text,
  p_operator text) returns jsonb
  language plpgsql set search_path = '' as $$
begin
  insert into governance.audit_log (created_at, operator, action, reason, command_id, details)
  values (governance.now(), p_operator, p_action, p_reason, p_command_id, b.fields || jsonb_build_object('bulk_id',
    b.bulk_id, 'accounts', b.accounts, 'done', b.done, 'tokens', b.plan -> 'tokens'));
  return governance.end_command('operator', p_command_id, governance.bulk_json(b));
end
$$;
comment on function governance.end_bulk_command(governance.bulk_acts, text, text, text, text) is
  'Audits a decision about a bulk act, and keeps the answer for a repeat.';

create function governance.step_account(b governance.bulk_acts, r governance.bulk_act_accounts)
  returns governance.bulk_act_accounts
  language plpgsql set search_path = '' as $$
declare
  a governance.accounts;
  x governance.account_acts;
  y governance.account_acts;
  v_command_id constant text := gen_random_uuid()::text;
  v_undoes boolean := b.status = 'undoing';
  v_operator text := case when b.status = 'undoing' then b.undone_by else b.operator end;
  v_reason text := case when b.status = 'undoing' then b.undo_reason else b.reason end;
  v_effects jsonb;
  v_now timestamptz;
  v_state text;
  v_why text;
begin
  a := governance.lock_account_id(r.account_id);
  v_now := governance.now();
  v_why := case when not v_undoes then governance.why_unchanged(a, b.fields, v_now) end;
  if v_why is not null then perform governance.fail('PT409', 'nothing_to_change', v_why); end if;
  if v_undoes then
    x := governance.find_act(r.act_id);
    if x.status <> 'done' then
      r.status := 'undone';
      return r;
    end if;
  end if;
  v_effects := governance.run_act(a, case when not v_undoes then b.fields end, x, v_command_id, v_reason, v_operator,
    v_now);
  insert into governance.account_acts (command_id, account_id, kind, fields, reason, operator, status, effects,
    created_at, done_at, decided_by, undoes, bulk_id)
  values (v_command_id, a.account_id, b.fields ->> 'kind', b.fields, v_reason, v_operator, 'done', v_effects, v_now,
    v_now, case when not v_undoes then b.decided_by end, x.act_id, b.bulk_id)
  returning * into y;
  if v_undoes then
    update governance.account_acts z set status = 'undone', undone_by = y.act_id where z.act_id = x.act_id;
    r.status := 'undone';
  else
    r.status := 'done';
    r.act_id := y.act_id;
    r.tokens := (select coalesce(sum((e ->> 'amount')::bigint), 0)
      from jsonb_array_elements(v_effects -> 'entries') e where e ->> 'type' <> 'debt_recovery');
  end if;
  perform governance.end_act(case when v_undoes then 'undo_' else '' end || (b.fields ->> 'kind'), v_command_id,
    a.user_id, v_reason, v_operator, (b.fields - 'kind') || jsonb_build_object('act_id', y.act_id, 'bulk_id',
    b.bulk_id));
  return r;
exception
  -- The whole step is tried again.
  when deadlock_detected or serialization_failure or lock_not_available or query_canceled then raise;
  -- One account that refuses, or that is gone, does not hold up the others.
  when others then
    get stacked diagnostics r.hint = pg_exception_hint, r.message = message_text, v_state = returned_sqlstate;
    if v_state !~ '^PT' then
      r.hint := 'failed';
      r.message := case when v_state = 'P0002' then 'This account is gone' else format('%s (%s)', r.message, v_state)
        end;
    end if;
    if v_undoes then
      r.status := 'kept';
    else
      r := row(r.bulk_id, r.account_id, r.lock_key, 'refused', null, null, r.hint, r.message);
    end if;
    return r;
end
$$;
comment on function governance.step_account(governance.bulk_acts, governance.bulk_act_accounts) is
  'Does a bulk act to one account, or undoes it there; returns what came of it. Takes the account''s lock.';

create function public.console_step_bulk_act(p_bulk_id bigint, p_limit int default 50) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  -- How long a step may hold the locks of its accounts, unless the first alone takes longer.
  c_until constant timestamptz := clock_timestamp() + interval '100 milliseconds';
  b governance.bulk_acts;
  r governance.bulk_act_accounts;
  v_status text;
  v_done int := 0;
  v_refused int := 0;
  v_undone int := 0;
  v_tokens bigint := 0;
begin
  perform governance.refuse_others('console_step_bulk_act');
  perform governance.check_limit(p_limit, 1000);
  b := governance.find_bulk_act(p_bulk_id);
  if b.status not in ('running', 'undoing') then return governance.bulk_json(b); end if;
  v_status := case b.status when 'running' then 'waiting' else 'done' end;
  -- A step beside this one takes other accounts.
  for r in select * from governance.bulk_act_accounts x where x.bulk_id = p_bulk_id and x.status = v_status
    order by x.lock_key, x.account_id limit p_limit for update skip locked
  loop
    r := governance.step_account(b, r);
    update governance.bulk_act_accounts x set status = r.status, act_id = r.act_id, tokens = r.tokens, hint = r.hint,
      message = left(r.message, 500) where x.bulk_id = r.bulk_id and x.account_id = r.account_id;
    v_done := v_done + (r.status = 'done')::int;
    v_refused := v_refused + (r.status = 'refused')::int;
    v_undone := v_undone + (r.status = 'undone')::int;
    v_tokens := v_tokens + case when r.status = 'done' then r.tokens when r.status = 'undone' then -r.tokens else 0
      end;
    exit when clock_timestamp() > c_until;
  end loop;
  update governance.bulk_acts x set done = x.done + v_done, refused = x.refused + v_refused,
    undone = x.undone + v_undone, tokens = x.tokens + v_tokens, stepped_at = governance.now()
  where x.bulk_id = p_bulk_id returning * into b;
  if b.status in ('running', 'undoing') and not exists (select from governance.bulk_act_accounts x
    where x.bulk_id = p_bulk_id and x.status = case b.status when 'running' then 'waiting' else 'done' end) then
    update governance.bulk_acts x set status = case b.status when 'running' then 'done' else 'undone' end,
      ended_at = governance.now()
    where x.bulk_id = p_bulk_id returning * into b;
    if b.status = 'undone' then
      delete from governance.lone_decisions d where d.bulk_id = b.bulk_id;
    end if;
    insert into governance.audit_log (created_at, operator, action, reason, command_id, details)
    values (governance.now(), coalesce(b.undone_by, b.operator), case b.status when 'done' then 'end_bulk'
      else 'end_undo_bulk' end, coalesce(b.undo_reason, b.reason), null, jsonb_build_object('bulk_id', b.bulk_id,
      'accounts', b.accounts, 'done', b.done, 'refused', b.refused, 'undone', b.undone, 'tokens', b.tokens));
  end if;
  return governance.bulk_json(b);
end
$$;
comment on function public.console_step_bulk_act(bigint, int) is
  'Does the next accounts of a bulk act that runs or is being undone, for about 100 ms, and answers how far it is. The '
  'effects of a step are kept with it: a step that is lost with its connection did nothing, and the next step goes on '
  'there. Several may step at once; no account is done twice. Errors: invalid_argument, not_found.';
revoke all on function public.console_step_bulk_act(bigint, int) from public, anon, authenticated;
grant execute on function public.console_step_bulk_act(bigint, int) to service_role;

create function public.console_change_bulk_act(p_command_id text, p_bulk_id bigint, p_action text, p_reason text,
  p_operator text) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  b governance.bulk_acts;
  v_answer jsonb;
  v_next text;
begin
  perform governance.refuse_others('console_change_bulk_act');
  perform governance.check_id('p_command_id', p_command_id);
  perform governance.check_id('p_reason', p_reason, 1000);
  perform governance.check_id('p_operator', p_operator);
  v_answer := governance.begin_command('operator', p_command_id,
    row('change_bulk_act', p_bulk_id, p_action, p_reason, p_operator)::text);
  if v_answer is not null then return v_answer; end if;
  b := governance.find_bulk_act(p_bulk_id, true);
  v_next := case p_action
    when 'approve' then case b.status when 'proposed' then 'running' end
    when 'reject' then case b.status when 'proposed' then 'rejected' end
    when 'stop' then case when b.status = 'running' then 'stopped' end
    when 'go_on' then case when b.status = 'stopped' then 'running' end
    when 'undo' then case when b.status in ('stopped', 'done') and b.fields ->> 'kind' <> 'note'
      then 'undoing' end end;
  if p_action is null or p_action not in ('approve', 'reject', 'stop', 'go_on', 'undo') then
    perform governance.fail('PT400', 'invalid_argument', 'p_action is approve, reject, stop, go_on or undo');
  elsif v_next is null then
    perform governance.fail('PT409', case when p_action in ('approve', 'reject') then 'already_decided'
      when p_action = 'undo' then 'not_undoable' else 'changed_since' end,
      format('This bulk act is %s', b.status), governance.bulk_json(b)::text);
  elsif p_action = 'approve' and governance.is_same_person(b.operator, p_operator) then
    perform governance.fail('PT403', 'same_person', 'Somebody else must approve what you proposed');
  end if;
  update governance.bulk_acts x set status = v_next,
    decided_by = case when p_action in ('approve', 'reject') then p_operator else x.decided_by end,
    undone_by = case when p_action = 'undo' then p_operator else x.undone_by end,
    undo_reason = case when p_action = 'undo' then p_reason else x.undo_reason end,
    ended_at = case when p_action in ('reject', 'stop') then governance.now() end
  where x.bulk_id = p_bulk_id returning * into b;
  return governance.end_bulk_command(b, p_action || '_bulk', p_command_id, p_reason, p_operator);
end
$$;
comment on function public.console_change_bulk_act(text, bigint, text, text, text) is
  'Approves or rejects a proposed bulk act, stops a running one, goes on with a stopped one, or undoes what it did (a '
  'compensating entry for each account, as console_undo_act makes it). Returns the bulk act; console_step_bulk_act '
  'does the work. Audited, and safe to repeat. Errors: invalid_argument, not_found, already_decided, same_person, '
  'changed_since, not_undoable, idempotency_conflict.';
revoke all on function public.console_change_bulk_act(text, bigint, text, text, text)
  from public, anon, authenticated;
grant execute on function public.console_change_bulk_act(text, bigint, text, text, text) to service_role;

create function public.console_bulk_act(p_bulk_id bigint, p_status text default null,
  p_after_id bigint default null, p_limit int default 100) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
begin
  perform governance.refuse_others('console_bulk_act');
  perform governance.check_limit(p_limit, 1000);
  if p_status is not null and p_status not in ('waiting', 'done', 'refused', 'undone', 'kept') then
    perform governance.fail('PT400', 'invalid_argument', 'p_status is waiting, done, refused, undone or kept');
  end if;
  return (
    with page as (
      select r.*, row_number() over (order by r.account_id) as n from governance.bulk_act_accounts r
      where r.bulk_id = p_bulk_id and r.account_id > coalesce(p_after_id, 0)
        and (p_status is null or r.status = p_status)
      order by r.account_id limit p_limit + 1)
    select jsonb_build_object('bulk', governance.bulk_json(governance.find_bulk_act(p_bulk_id)),
      'rows', coalesce(jsonb_agg(jsonb_build_object('user_id', a.user_id, 'display_name', a.display_name, 'email',
        a.email, 'status', p.status, 'act_id', p.act_id, 'tokens', p.tokens, 'hint', p.hint, 'message', p.message)
        order by p.n) filter (where p.n <= p_limit), '[]'),
      'next_after_id', case when count(*) > p_limit then max(p.account_id) filter (where p.n = p_limit) end)
    from page p left join governance.accounts a using (account_id));
end
$$;
comment on function public.console_bulk_act(bigint, text, bigint, int) is
  'A bulk act, and what came of it by user: waiting, done, refused (why), undone, or kept (could not be undone, why). '
  'Errors: invalid_argument, not_found.';
revoke all on function public.console_bulk_act(bigint, text, bigint, int) from public, anon, authenticated;
grant execute on function public.console_bulk_act(bigint, text, bigint, int) to service_role;

create function public.console_list_bulk_acts(p_before_id bigint default null, p_limit int default 50) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
begin
  perform governance.refuse_others('console_list_bulk_acts');
  perform governance.check_limit(p_limit, 200);
  return (
    with page as (
      select b as bulk, row_number() over (order by b.bulk_id desc) as n from governance.bulk_acts b
      where b.bulk_id < coalesce(p_before_id, 9223372036854775807) order by b.bulk_id desc limit p_limit + 1)
    select jsonb_build_object(
      'bulks', coalesce(jsonb_agg(governance.bulk_json(p.bulk) order by p.n) filter (where p.n <= p_limit), '[]'),
      'next_before_id', case when count(*) > p_limit then max((p.bulk).bulk_id) filter (where p.n = p_limit) end)
    from page p);
end
$$;
comment on function public.console_list_bulk_acts(bigint, int) is
  'Corrections of many users, newest first, with how far each is. Errors: invalid_argument.';
revoke all on function public.console_list_bulk_acts(bigint, int) from public, anon, authenticated;
grant execute on function public.console_list_bulk_acts(bigint, int) to service_role;
