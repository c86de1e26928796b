-- Reconciliation runs that are kept, their differences, and what changed from one run to another.

create table governance.reconciliation_runs (
  run_id text primary key check (run_id <> '' and length(run_id) <= 255),
  period_from timestamptz not null,
  period_to timestamptz not null check (period_to > period_from),
  tied_out boolean not null,
  -- The report without its differences.
  report jsonb not null,
  created_at timestamptz not null,
  created_by text not null,
  -- When the ledger was read: the run cannot know of corrections that were posted later.
  ledger_read_at timestamptz not null,
  is_complete boolean not null default false,
  -- The answer to its last page, given again when that page comes again.
  outcome jsonb not null default '{}'
);

create index reconciliation_runs_time on governance.reconciliation_runs (created_at desc);

comment on table governance.reconciliation_runs is 'Reconciliations that were kept.';

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

create function governance.read_report(p_report jsonb, p_differences jsonb, p_is_last boolean,
  out period_from timestamptz, out period_to timestamptz, out read_at timestamptz)
  language plpgsql stable set search_path = '' as $$
begin
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
    perform (d ->> 'occurred_at')::timestamptz from jsonb_array_elements(p_differences) d
      where d ->> 'occurred_at' ~ '^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d';
  exception when data_exception then
    perform governance.fail('PT400', 'invalid_argument',
      'occurred_at of a difference is a moment, as 2026-03-31T12:00:00Z');
  end;
  begin
    period_from := (p_report #>> '{period,from}')::timestamptz;
    period_to := (p_report #>> '{period,to}')::timestamptz;
    read_at := (p_report ->> 'ledger_read_at')::timestamptz;
  exception when data_exception then
    perform governance.fail('PT400', 'invalid_argument',
      'p_report.period.from, p_report.period.to and p_report.ledger_read_at must be moments');
  end;
  if period_from is null or period_to is null or not isfinite(period_from) or not isfinite(period_to)
    or period_from >= period_to then
    perform governance.fail('PT400', 'invalid_argument', 'p_report.period needs two moments: from, and a later to');
  end if;
end
$$;
comment on function governance.read_report(jsonb, jsonb, boolean) is
  'The period of a reconciliation''s report, and when its ledger was read. Refuses what is no report, or no page of '
  'its differences. Errors: invalid_argument.';

create function governance.verify_gone(p_run governance.reconciliation_runs, p_operator text, p_now timestamptz,
  out verified bigint, out gone bigint, out not_looked_for bigint)
  language plpgsql set search_path = '' as $$
declare
  v_covered text[];
begin
  -- Cases are gone only among those that this run would have found again.
  select coalesce(array_agg(r.run_id), '{}') into v_covered from governance.reconciliation_runs r
  where r.run_id in (select c.last_run_id from governance.reconciliation_cases c
    where c.status in ('open', 'investigating', 'proposed', 'approved', 'posted'))
    and r.run_id <> p_run.run_id and governance.run_covers(p_run.report, r.report);
  with due as (
    select c.difference_id, c.status, c.last_run_id = any (v_covered) as is_covered
    from governance.reconciliation_cases c
    where c.status in ('open', 'investigating', 'proposed', 'approved', 'posted') and c.period_from >= p_run.period_from
      and c.period_to <= p_run.period_to and c.checked_at <= p_run.ledger_read_at
      and c.last_run_id <> p_run.run_id and (c.posted_at is null or c.posted_at <= p_run.ledger_read_at)
      and not exists (select from governance.reconciliation_run_differences x
        where x.run_id = p_run.run_id and x.difference_id = c.difference_id)
      -- That a difference is gone does not decide whether its correction is to be undone.
      and not (c.correction ? 'undoes' and c.status in ('proposed', 'approved'))
    order by c.difference_id for update
  ), ended as (
    update governance.reconciliation_cases c set status = 'verified', status_at = p_now,
      checked_at = p_run.ledger_read_at, updated_at = p_now, version = c.version + 1,
      history = c.history || jsonb_build_object('at', p_now, 'by', p_operator, 'action', case d.status
        when 'posted' then 'verified' else 'gone' end, 'reason', 'Gone in run ' || p_run.run_id)
    from due d where d.difference_id = c.difference_id and d.is_covered
    returning d.status)
  select (select count(*) from ended v where v.status = 'posted'),
    (select count(*) from ended v where v.status <> 'posted'), (select count(*) from due d where not d.is_covered)
  into verified, gone, not_looked_for;
end
$$;
comment on function governance.verify_gone(governance.reconciliation_runs, text, timestamptz) is
  'Ends the cases that a whole run would have found again and did not: verified where a correction was posted, else '
  'gone. Cases that the run could not find from its files stay as they are (not_looked_for).';

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
  select r.period_from, r.period_to, r.read_at into v_from, v_to, v_read_at
  from governance.read_report(p_report, p_differences, p_is_last) r;

  -- Pages, runs and closes one after the other, and no case changes meanwhile.
  perform pg_advisory_xact_lock(7254101);
  v_now := governance.now();
  -- A ledger cannot have been read in the future.
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
  -- A correction posted just before the reading may have been committed just after it: looking again is safer than
  -- booking again.
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
      -- A case is open again where it was posted or gone and a ledger that was read later has it (the correction did
      -- not help), or where it is now more than was written off (nobody has decided that).
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
    -- A run that read an older ledger has nothing new.
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
    select g.verified, g.gone, g.not_looked_for into v_verified, v_gone, v_skipped
    from governance.verify_gone(v_run, p_operator, v_now) g;
  end if;
  v_answer := jsonb_build_object('run_id', p_run_id, 'kept', v_kept, 'verified', v_verified, 'gone', v_gone, 'reopened',
    v_reopened, 'not_looked_for', v_skipped, 'is_complete', p_is_last);
  update governance.reconciliation_runs r set outcome = v_answer, is_complete = p_is_last where r.run_id = p_run_id;
  return v_answer;
end
$$;
comment on function public.console_keep_reconciliation(text, text, jsonb, jsonb, boolean) is
  'Keeps a run and its differences as cases, page by page, the last with p_is_last. Then cases that the run no longer '
  'finds are verified where a correction was posted, else gone; posted cases that it still finds are open again '
  '(reopened), and so are those that are more than was written off; cases whose files this run did not read stay as '
  'they are (not_looked_for). Safe to repeat, and to go on with after a break: kept is how many differences the '
  'project has. report.ledger_read_at is when the ledger was read. Errors: invalid_argument, idempotency_conflict, '
  'incomplete_run.';
revoke all on function public.console_keep_reconciliation(text, text, jsonb, jsonb, boolean)
  from public, anon, authenticated;
grant execute on function public.console_keep_reconciliation(text, text, jsonb, jsonb, boolean) to service_role;

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
    -- One file does not count as two of its kind.
    and not exists (
      select from (select o ->> 'kind' as kind, sum(governance.stripe_whole(o -> 'rows')) as rows
        from jsonb_array_elements(coalesce(p_old -> 'inputs', '[]')) o group by 1) k
      where k.rows > coalesce((select sum(governance.stripe_whole(n -> 'rows'))
        from jsonb_array_elements(coalesce(p_new -> 'inputs', '[]')) n
        where n ->> 'kind' is not distinct from k.kind), 0))
$$;
comment on function governance.run_covers(jsonb, jsonb) is
  'Whether a report was made from everything that another was made from: the same files, or of each kind as many rows, '
  'in files with as wide windows. Only then does a difference that is not found again count as gone.';

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
      perform governance.fail('PT404', 'not_found',
        'No run with the id p_before_run_id is kept: read from the beginning');
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
    perform governance.fail('PT404', 'not_found', 'Both runs must be kept with all their differences');
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
  'Differences of the first run that the second had not (new), that it no longer has (gone), that it has with other '
  'figures (changed), and that are the same. Errors: invalid_argument, not_found.';
revoke all on function public.console_compare_reconciliations(text, text, int) from public, anon, authenticated;
grant execute on function public.console_compare_reconciliations(text, text, int) to service_role;
