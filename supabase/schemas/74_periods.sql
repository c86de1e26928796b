-- Closing a period.

create table governance.reconciliation_periods (
  period_from timestamptz primary key,
  period_to timestamptz not null check (period_to > period_from),
  run_id text not null references governance.reconciliation_runs (run_id),
  -- SHA-256 over what was closed: run, inputs by their hashes, cases.
  seal bytea not null,
  sealed jsonb not null,
  closed_at timestamptz not null,
  closed_by text not null,
  sign_off text
);

comment on table governance.reconciliation_periods is 'Closed periods with their seal; append-only. What comes late is '
  'posted in the period in which it comes.';

create function public.console_close_period(p_command_id text, p_run_id text, p_operator text,
  p_sign_off text default null) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_now timestamptz;
  v_answer jsonb;
  v_run governance.reconciliation_runs;
  v_block jsonb;
  v_sealed jsonb;
  v_seal bytea;
  v_carried bigint;
begin
  perform governance.refuse_others('console_close_period');
  perform governance.check_id('p_command_id', p_command_id);
  perform governance.check_id('p_run_id', p_run_id);
  perform governance.check_id('p_operator', p_operator);
  perform governance.check_optional('p_sign_off', p_sign_off, 2000);
  v_answer := governance.begin_command('close_period', p_command_id, row(p_run_id, p_operator, p_sign_off)::text);
  if v_answer is not null then return v_answer; end if;
  perform pg_advisory_xact_lock(7254101);
  -- After the lock: closes follow each other by the clock, as their seals do.
  v_now := governance.now();
  select * into v_run from governance.reconciliation_runs r where r.run_id = p_run_id;
  if v_run.run_id is null then
    perform governance.fail('PT404', 'not_found', 'There is no such run: keep it first');
  end if;
  select k.value into v_block from jsonb_array_elements(governance.closing_checks(v_run, v_now)) with ordinality k
  where k.value -> 'blocks' = 'true' and k.value -> 'ok' = 'false' order by k.ordinality limit 1;
  if v_block is not null then
    perform governance.fail('PT409', v_block ->> 'hint', v_block ->> 'sentence');
  end if;
  v_sealed := jsonb_build_object('run_id', v_run.run_id, 'period',
    jsonb_build_object('from', v_run.period_from, 'to', v_run.period_to), 'report', v_run.report,
    'cases', (select coalesce(jsonb_agg(jsonb_build_object('difference_id', c.difference_id, 'class', c.class, 'status',
      c.status, 'amount_minor', c.amount_minor,
      'currency', c.currency, 'tokens', c.tokens, 'effects', c.effects, 'history', c.history) order by c.difference_id),
        '[]')
      from governance.cases_closed_with(v_run) c),
    'closed_at', v_now, 'closed_by', p_operator, 'sign_off', p_sign_off,
    'seal_before', (select encode(p.seal, 'hex') from governance.reconciliation_periods p
      order by p.closed_at desc, p.period_from desc limit 1));
  v_seal := sha256(convert_to(v_sealed::text, 'UTF8'));
  insert into governance.reconciliation_periods (period_from, period_to, run_id, seal, sealed, closed_at, closed_by,
    sign_off)
  values (v_run.period_from, v_run.period_to, p_run_id, v_seal, v_sealed, v_now, p_operator, p_sign_off);
  -- Carried forward means: into the next period, where somebody must decide again.
  with carried as (
    update governance.reconciliation_cases c set status = 'open', status_at = v_now, resolution = 'correct',
      proposed_by = null, approved_by = null, times_carried = c.times_carried + 1,
      updated_at = v_now, version = c.version + 1,
      history = c.history || jsonb_build_object('at', v_now, 'by', p_operator, 'action', 'carried_over', 'reason',
        'Its period was closed: it is a late item of the next one')
    where c.status = 'carried_forward' and c.blocks
      and c.difference_id in (select x.difference_id from governance.cases_in_close(v_run) x)
    returning 1)
  select count(*) into v_carried from carried;
  insert into governance.audit_log (created_at, operator, action, reason, command_id, details)
  values (v_now, p_operator, 'close_period', p_sign_off, p_command_id,
    jsonb_build_object('run_id', p_run_id, 'seal', encode(v_seal, 'hex')));
  return governance.end_command('close_period', p_command_id,
    jsonb_build_object('period_from', v_run.period_from, 'period_to', v_run.period_to, 'run_id', p_run_id, 'seal',
      encode(v_seal, 'hex'), 'closed_at', v_now, 'carried_over', v_carried));
end
$$;
comment on function public.console_close_period(text, text, text, text) is
  'Closes the period of a kept run whose differences are all dealt with, and seals it (SHA-256 over run, input hashes, '
  'cases with their history, and the seal before). What was carried forward is open again, as a late item of the next '
  'period. Audited. Errors: invalid_argument, not_found, incomplete_run, period_not_over, already_closed, superseded, '
  'unexplained, still_open, idempotency_conflict.';
revoke all on function public.console_close_period(text, text, text, text) from public, anon, authenticated;
grant execute on function public.console_close_period(text, text, text, text) to service_role;

create function public.console_closed_periods() returns jsonb
  language sql stable security definer set search_path = '' as $$
  select governance.refuse_others('console_closed_periods');
  select coalesce(jsonb_agg(jsonb_build_object('period_from', p.period_from, 'period_to', p.period_to, 'run_id',
    p.run_id, 'seal', encode(p.seal, 'hex'),
    -- Shows what was sealed, and reads it only where it matches the seal.
    'is_intact', case when p.seal = sha256(convert_to(p.sealed::text, 'UTF8')) then
      (p.run_id, p.period_from, p.period_to, p.closed_at, p.closed_by, p.sign_off)
        is not distinct from (p.sealed ->> 'run_id', (p.sealed #>> '{period,from}')::timestamptz,
        (p.sealed #>> '{period,to}')::timestamptz, (p.sealed ->> 'closed_at')::timestamptz, p.sealed ->> 'closed_by',
          p.sealed ->> 'sign_off')
      and (p.sealed ->> 'seal_before' is null
        or exists (select from governance.reconciliation_periods b
        where encode(b.seal, 'hex') = p.sealed ->> 'seal_before')) else false end,
    'seal_before', p.sealed -> 'seal_before', 'cases', jsonb_array_length(p.sealed -> 'cases'),
    'closed_at', p.closed_at, 'closed_by', p.closed_by, 'sign_off', p.sign_off) order by p.period_from desc), '[]')
  from governance.reconciliation_periods p
$$;
comment on function public.console_closed_periods() is 'Closed periods, newest first, each with its seal, whether it '
  'still fits, and the seal before, which must be there too.';
revoke all on function public.console_closed_periods() from public, anon, authenticated;
grant execute on function public.console_closed_periods() to service_role;

-- Sets, not questions about one case: a close asks them of every case that there ever was.
create function governance.cases_in_close(r governance.reconciliation_runs)
  returns setof governance.reconciliation_cases
  language sql stable set search_path = '' as $$
  select c.* from governance.reconciliation_cases c
  left join governance.reconciliation_run_differences d on d.run_id = r.run_id and d.difference_id = c.difference_id
  where coalesce(c.occurred_at, c.period_from) < r.period_to or d.run_id is not null
$$;
comment on function governance.cases_in_close(governance.reconciliation_runs) is
  'The cases that a close with this run must deal with: those that it found, and those of its period or before, late '
  'items of closed periods included.';

create function governance.cases_closed_with(r governance.reconciliation_runs)
  returns setof governance.reconciliation_cases
  language sql stable set search_path = '' as $$
  select c.* from governance.cases_in_close(r) c
  left join governance.reconciliation_run_differences d on d.run_id = r.run_id and d.difference_id = c.difference_id
  where d.run_id is not null or c.status = 'carried_forward'
    or c.status_at > coalesce((select max(p.closed_at) from governance.reconciliation_periods p), '-infinity')
$$;
comment on function governance.cases_closed_with(governance.reconciliation_runs) is
  'The cases that are sealed with this run''s period: found by it, or decided since the last close.';

create function governance.is_unexplained(p_figure jsonb, p_explained numeric default 0) returns boolean
  language sql immutable set search_path = '' as $$
  select coalesce(p_figure, 'null') <> 'null'
    -- A figure of zero is never unexplained, whatever p_explained is.
    and coalesce(governance.stripe_whole(p_figure) not in (0, -coalesce(p_explained, 0)), true)
$$;
comment on function governance.is_unexplained(jsonb,
  numeric) is 'Whether a figure of a report leaves something unexplained; one that is no whole number does.';

create function governance.closing_checks(r governance.reconciliation_runs, p_now timestamptz) returns jsonb
  language plpgsql stable set search_path = '' as $$
declare
  v_checks jsonb := '[]';
  v_count bigint;
  v_other bigint;
  v_posted bigint;
  v_text text;
  v_closed governance.reconciliation_periods;
begin
  v_checks := v_checks || jsonb_build_object('check', 'kept_wholly', 'hint', 'incomplete_run', 'ok', r.is_complete,
    'blocks', true, 'count', 0,
    'sentence', case when r.is_complete then 'The run is kept with all its differences'
      else 'The run is not kept wholly: keep it again' end);
  v_checks := v_checks || jsonb_build_object('check', 'period_over', 'hint', 'period_not_over', 'ok',
    r.period_to <= p_now and r.period_to <= r.ledger_read_at, 'blocks', true, 'count', 0,
    'sentence', case when r.period_to > p_now then 'The period has not ended yet' when r.period_to > r.ledger_read_at
      then 'The period had not ended when the ledger was read: reconcile it again' else 'The period has ended' end);
  select * into v_closed from governance.reconciliation_periods p
    where p.period_from < r.period_to and p.period_to > r.period_from order by p.period_from limit 1;
  v_checks := v_checks || jsonb_build_object('check', 'not_closed', 'hint', 'already_closed', 'ok',
    v_closed.run_id is null, 'blocks', true, 'count', 0,
    'sentence', case when v_closed.run_id is null then 'No part of it is closed'
      else format('The period, or a part of it, is closed already (by %s)', v_closed.closed_by) end);
  v_checks := v_checks || (select jsonb_build_object('check', 'newest_run', 'hint', 'superseded', 'ok', count(*) = 0,
    'blocks', true, 'count', count(*),
      'sentence', case when count(*) = 0 then 'It is the newest run of this period'
        else 'A newer run of this period is kept: close with that one' end)
    from governance.reconciliation_runs n
      where n.period_from = r.period_from and n.period_to = r.period_to and n.is_complete and n.run_id <> r.run_id
      and (n.ledger_read_at, n.created_at) > (r.ledger_read_at, r.created_at));
  -- Figures that the statements leave unexplained; one that is no number counts as unexplained. A row whose net is
  -- wrong is a difference of its own, and explains that much.
  select string_agg(x.sentence, ', ' order by x.sentence), count(*) into v_text, v_count from (
    select format('%s %s minor units between Stripe and ledger', b ->> 'currency', b ->> 'unexplained_minor')
      as sentence
    from jsonb_array_elements(coalesce(r.report -> 'bridge', '[]')) b
      where governance.is_unexplained(b -> 'unexplained_minor')
    union all
    select format('%s %s minor units in Stripe''s own figures', t ->> 'currency', t ->> 'unexplained_minor')
    from jsonb_array_elements(coalesce(r.report -> 'tie_out', '[]')) t
    where governance.is_unexplained(t -> 'unexplained_minor',
      (select sum(d.amount_minor) from governance.reconciliation_run_differences d
      where d.run_id = r.run_id and d.class = 'FEE_VARIANCE' and d.currency = t ->> 'currency'))
    union all
    select format('%s tokens (%s)', coalesce(nullif(f -> 'unexplained_tokens', '0'), f -> 'drift_tokens'), f ->> 'kind')
    from jsonb_array_elements(coalesce(r.report -> 'roll_forward', '[]')) f
    where governance.is_unexplained(f -> 'unexplained_tokens') or governance.is_unexplained(f -> 'drift_tokens')
    union all
    select format('%s %s minor units of deferred revenue (%s)', f ->> 'currency', f ->> 'unexplained_deferred_minor',
      f ->> 'kind')
    from jsonb_array_elements(coalesce(r.report -> 'roll_forward', '[]')) f
      where governance.is_unexplained(f -> 'unexplained_deferred_minor')) x;
  v_checks := v_checks || jsonb_build_object('check', 'unexplained', 'hint', 'unexplained', 'ok', v_count = 0, 'blocks',
    true, 'count', v_count,
    'sentence', case when v_count = 0
      and jsonb_array_length(coalesce(r.report -> 'roll_forward', '[]')) = 0
      then 'Nothing is unexplained in money; the report has no statement of tokens'
      when v_count = 0 then 'Nothing is unexplained, in money or in tokens'
        else 'Unexplained: ' || left(v_text, 500) end);
  -- Differences of the run, and what is older and was never decided: a late item belongs to the next period.
  select count(*) filter (where c.status in ('open', 'investigating')),
    count(*) filter (where c.status in ('proposed', 'approved')),
    count(*) filter (where c.status = 'posted') into v_count, v_other, v_posted
  from governance.cases_in_close(r) c where governance.is_undecided(c);
  v_checks := v_checks || jsonb_build_object('check', 'decided', 'hint', 'still_open', 'ok', v_count = 0, 'blocks',
    true, 'count', v_count,
    'sentence', case v_count when 0 then 'Every difference is decided'
      when 1 then '1 difference is neither corrected, carried forward nor written off'
      else format('%s differences are neither corrected, carried forward nor written off', v_count) end);
  v_checks := v_checks || jsonb_build_object('check', 'posted', 'hint', 'still_open', 'ok', v_other = 0, 'blocks', true,
    'count', v_other,
    'sentence', case v_other when 0 then 'No proposal waits' when 1 then '1 proposal is not posted'
      else format('%s proposals are not posted', v_other) end);
  v_checks := v_checks || jsonb_build_object('check', 'verified', 'hint', 'still_open', 'ok', v_posted = 0, 'blocks',
    true, 'count', v_posted,
    'sentence', case v_posted when 0 then 'Every posted correction is verified by a run'
      else format('%s posted, not verified: reconcile the same files again and keep that run', v_posted) end);
  -- For information: it does not block.
  select * into v_closed from governance.reconciliation_periods p order by p.period_to desc limit 1;
  if v_closed.run_id is not null then
    v_checks := v_checks || jsonb_build_object('check', 'no_gap', 'ok', v_closed.period_to = r.period_from, 'blocks',
      false, 'count', 0,
      'sentence', case when v_closed.period_to = r.period_from then 'It begins where the last closed period ended'
        else 'It does not begin where the last closed period ended' end);
  end if;
  select count(*) into v_count from governance.webhook_events_processed w where w.status = 'quarantined';
  v_checks := v_checks || jsonb_build_object('check', 'stripe_events', 'ok', v_count = 0, 'blocks', false, 'count',
    v_count,
    'sentence', case v_count when 0 then 'No Stripe event waits for a person'
      when 1 then '1 Stripe event waits for a person' else format('%s Stripe events wait for a person', v_count) end);
  return v_checks;
end
$$;
comment on function governance.closing_checks(governance.reconciliation_runs, timestamptz) is
  'The conditions for closing a period with this run, each with whether it is met; closing itself checks the same.';

create function public.console_closing(p_run_id text) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
declare
  v_run governance.reconciliation_runs;
  v_checks jsonb;
begin
  perform governance.refuse_others('console_closing');
  select * into v_run from governance.reconciliation_runs r where r.run_id = p_run_id;
  if v_run.run_id is null then
    perform governance.fail('PT404', 'not_found', 'There is no such run: keep it first');
  end if;
  v_checks := governance.closing_checks(v_run, governance.now());
  return jsonb_build_object('run', governance.run_json(v_run), 'checks', v_checks,
    'can_close', not exists (select from jsonb_array_elements(v_checks) k
      where k -> 'blocks' = 'true' and k -> 'ok' = 'false'),
    'decided', (select coalesce(jsonb_agg(jsonb_build_object('status', s.status, 'currency', s.currency, 'count', s.n,
      'amount_minor', s.amount, 'tokens', s.tokens) order by s.status, s.currency nulls last), '[]')
      from (select c.status, c.currency, count(*) as n, sum(abs(c.amount_minor)) as amount, sum(abs(c.tokens)) as tokens
        from governance.cases_closed_with(v_run) c
          where c.blocks and c.status in ('verified', 'carried_forward', 'written_off')
        group by 1, 2) s));
end
$$;
comment on function public.console_closing(text) is 'The checklist of closing a period with this run: what still '
  'blocks it, and what was decided. Errors: not_found.';
revoke all on function public.console_closing(text) from public, anon, authenticated;
grant execute on function public.console_closing(text) to service_role;

create function public.console_sealed_period(p_run_id text) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
declare
  v_period governance.reconciliation_periods;
begin
  perform governance.refuse_others('console_sealed_period');
  select * into v_period from governance.reconciliation_periods p where p.run_id = p_run_id;
  if v_period.run_id is null then
    perform governance.fail('PT404', 'not_found', 'No period was closed with this run');
  end if;
  return jsonb_build_object('run_id', v_period.run_id, 'seal', encode(v_period.seal, 'hex'), 'sealed',
    v_period.sealed::text);
end
$$;
comment on function public.console_sealed_period(text) is
  'The sealed record of a period, as the very text over whose UTF-8 bytes the seal is the SHA-256: anybody can check '
  'it. Errors: not_found.';
revoke all on function public.console_sealed_period(text) from public, anon, authenticated;
grant execute on function public.console_sealed_period(text) to service_role;

create trigger reconciliation_periods_append_only before update or delete
  or truncate on governance.reconciliation_periods
  for each statement execute function governance.refuse_change();
