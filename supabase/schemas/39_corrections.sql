-- Corrections: what an operator changes of an account's tokens, plan or calls. Each is previewed by doing it and
-- rolling it back, counted against what one person may decide alone, kept with its effects, and undone by
-- compensating entries.

create function governance.run_act(a governance.accounts, p_act jsonb, x governance.account_acts, p_command_id text,
  p_reason text, p_operator text, p_now timestamptz) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  c_shown constant text[] := '{user_id,plan_id,plan_name,balance,limits,is_blocked,is_flagged,raised,next_plan}';
  v_before jsonb := governance.account_json(a);
  v_books_before jsonb := governance.account_books(array[a.user_id]) -> a.user_id;
  v_after jsonb;
  v_books_after jsonb;
  v_undo jsonb := '{}';
  v_last_message_id bigint := (select coalesce(max(n.notification_id), 0) from governance.notifications n);
begin
  if x.act_id is not null then
    perform governance.reverse_act(a, x, p_command_id, p_reason, p_operator, p_now);
  else
    v_undo := governance.apply_act(a, p_act || jsonb_build_object('last_lot_id',
      (select coalesce(max(l.lot_id), 0) from governance.lots l where l.account_id = a.account_id)),
      p_command_id, p_reason, p_operator, p_now);
  end if;
  select governance.account_json(y) into strict v_after from governance.accounts y where y.account_id = a.account_id;
  v_books_after := governance.account_books(array[a.user_id]) -> a.user_id;
  return jsonb_build_object('undo', v_undo, 'local_month', a.local_month,
    'before', (select jsonb_object_agg(k, v_before -> k) from unnest(c_shown) k),
    'after', (select jsonb_object_agg(k, v_after -> k) from unnest(c_shown) k),
    -- Entries of this transaction from before the act are not the act's: they brought the account up to date.
    'entries', (select coalesce(jsonb_agg(e order by n), '[]')
      from jsonb_array_elements(v_books_after -> 'entries') with ordinality x(e, n)
      where n > jsonb_array_length(v_books_before -> 'entries')),
    'user_messages', (select coalesce(jsonb_agg(n.body order by n.notification_id), '[]')
      from governance.notifications n
      where n.notification_id > v_last_message_id and n.account_id = a.account_id and n.audience = 'user'),
    'lots', (select coalesce(jsonb_agg(jsonb_build_object('lot_id', y.key::bigint, 'before',
        v_books_before #> array['lots', y.key], 'after', y.value) order by y.key::bigint), '[]')
      from jsonb_each(v_books_after -> 'lots') y
      where y.value is distinct from v_books_before #> array['lots', y.key]));
end
$$;
comment on function governance.run_act(governance.accounts, jsonb, governance.account_acts, text, text, text,
  timestamptz) is
  'Does an act, or takes act x back where it is given; returns its effects: the account before and after, ledger '
  'entries, changed lots, mails to the user, and what undoing needs. The caller holds the account''s lock.';

create function governance.act_stake(p_effects jsonb) returns bigint
  language sql immutable set search_path = '' as $$
  select least(coalesce(sum(abs((e ->> 'amount')::numeric)), 0)
    + abs((p_effects #>> '{after,balance,debt}')::numeric - (p_effects #>> '{before,balance,debt}')::numeric),
    9007199254740991)::bigint
  from jsonb_array_elements(p_effects -> 'entries') e where e ->> 'type' <> 'debt_recovery'
$$;
comment on function governance.act_stake(jsonb) is 'How many tokens an act moves: what counts against the limit of one '
  'person.';

create function governance.why_second_person(p_operator text, p_tokens bigint, p_now timestamptz) returns text
  language plpgsql stable set search_path = '' as $$
declare
  v_limit bigint := governance.setting_number('approval_above_tokens', 1000000);
  v_alone numeric;
begin
  if p_tokens = 0 then return null; end if;
  if p_tokens > v_limit then
    return format('More than %s tokens need the approval of a second person', governance.with_separators(v_limit));
  end if;
  select p_tokens + coalesce(sum(d.tokens), 0) into v_alone from governance.lone_decisions d
  where d.decided_at > p_now - interval '24 hours' and governance.is_same_person(d.decided_by, p_operator);
  if v_alone > v_limit then
    return format('With this one you would have decided %s tokens alone within 24 hours: above %s a second person must '
      'approve', governance.with_separators(v_alone::bigint), governance.with_separators(v_limit));
  end if;
  return null;
end
$$;
comment on function governance.why_second_person(text, bigint, timestamptz) is
  'Why a second person must approve so many tokens, in a sentence; null where one is enough. The limit is finance''s '
  '(setting approval_above_tokens), and what one person decided alone within 24 hours is added up over both desks.';

create function governance.act_json(x governance.account_acts) returns jsonb
  language sql stable set search_path = '' as $$
  select jsonb_build_object('act_id', x.act_id, 'command_id', x.command_id, 'user_id', a.user_id, 'display_name',
    a.display_name, 'kind', x.kind, 'fields', x.fields - 'kind', 'reason', x.reason, 'operator', x.operator, 'status',
    x.status, 'why', x.why, 'effects', x.effects - '{undo,local_month}'::text[], 'created_at', x.created_at, 'done_at',
    x.done_at, 'decided_by', x.decided_by, 'undoes', x.undoes, 'undone_by', x.undone_by, 'bulk_id',
    x.bulk_id, 'can_undo', x.status = 'done' and x.undoes is null
      and (x.effects -> 'undo') is distinct from '{}' and x.kind <> 'end_hold')
  from governance.accounts a where a.account_id = x.account_id
$$;
comment on function governance.act_json(governance.account_acts) is 'A correction as the console reads it.';

create function public.console_act(p_command_id text, p_user_id text, p_act jsonb, p_reason text, p_operator text,
  p_expected_version int default null, p_dry_run boolean default false) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_act jsonb;
  a governance.accounts;
  x governance.account_acts;
  v_answer jsonb;
  v_effects jsonb;
  v_why text;
  v_now timestamptz;
begin
  perform governance.refuse_others('console_act');
  perform governance.check_operator_command(p_command_id, p_user_id, p_reason, p_operator);
  perform governance.check_id('p_operator', p_operator);
  v_act := governance.check_act(p_act);
  if not coalesce(p_dry_run, false) then
    perform governance.lock_person(p_operator);
    v_answer := governance.begin_act('act', p_command_id, p_user_id, p_reason, p_operator, p_expected_version,
      v_act::text);
    if v_answer is not null then return v_answer; end if;
  end if;
  a := governance.lock_account(p_user_id);
  v_now := governance.now();
  begin
    v_effects := governance.run_act(a, v_act, null, p_command_id, p_reason, p_operator, v_now);
    v_why := governance.why_second_person(p_operator, governance.act_stake(v_effects), v_now);
    if p_dry_run or v_why is not null then
      raise exception using errcode = 'PT0DR', message = 'preview';
    end if;
  exception when sqlstate 'PT0DR' then null;
  end;
  if p_dry_run then
    return jsonb_build_object('effects', v_effects - '{undo,local_month}'::text[], 'version', a.version, 'why', v_why);
  end if;
  insert into governance.account_acts (command_id, account_id, kind, fields, reason, operator, status, why, effects,
    created_at, done_at)
  values (p_command_id, a.account_id, v_act ->> 'kind', v_act, p_reason, p_operator,
    case when v_why is null then 'done' else 'proposed' end, v_why, v_effects, v_now, case when v_why is null
    then v_now end)
  returning * into x;
  if v_why is null and governance.act_stake(v_effects) > 0 then
    insert into governance.lone_decisions (act_id, what, decided_at, decided_by, tokens, amount_minor)
    values (x.act_id, 'act', v_now, p_operator, governance.act_stake(v_effects), 0);
  end if;
  return governance.end_act(case when v_why is null then '' else 'propose_' end || x.kind, p_command_id, p_user_id,
    p_reason, p_operator, (v_act - 'kind') || jsonb_build_object('act_id', x.act_id), governance.act_json(x));
end
$$;
comment on function public.console_act(text, text, jsonb, text, text, int, boolean) is
  'An operator''s correction of an account: p_act is {kind, ...} as in governance.check_act. Returns {act, '
  'account}. Above what one person may decide alone (setting approval_above_tokens, added up over 24 hours) '
  'act.status is proposed, nothing has moved, and somebody else decides with console_decide_act. p_dry_run answers '
  '{effects, why, version} and changes nothing. Audited, and safe to repeat. Errors: invalid_argument, '
  'unknown_user, version_conflict, idempotency_conflict, insufficient_tokens, unknown_request, nothing_to_refund, '
  'already_refunded, already_resolved, unknown_plan, nothing_to_change.';
revoke all on function public.console_act(text, text, jsonb, text, text, int, boolean)
  from public, anon, authenticated;
grant execute on function public.console_act(text, text, jsonb, text, text, int, boolean) to service_role;

create function governance.find_act(p_act_id bigint) returns governance.account_acts
  language plpgsql stable set search_path = '' as $$
declare
  x governance.account_acts;
begin
  select * into x from governance.account_acts y where y.act_id = p_act_id;
  if not found then
    perform governance.fail('PT404', 'not_found', 'There is no such act');
  end if;
  return x;
end
$$;
comment on function governance.find_act(bigint) is 'A correction by its number. Errors: not_found.';

create function public.console_decide_act(p_command_id text, p_act_id bigint, p_decision text, p_reason text,
  p_operator text, p_dry_run boolean default false) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  x governance.account_acts;
  a governance.accounts;
  v_user_id text;
  v_answer jsonb;
  v_effects jsonb;
  v_now timestamptz;
begin
  perform governance.refuse_others('console_decide_act');
  perform governance.check_id('p_command_id', p_command_id);
  perform governance.check_id('p_reason', p_reason, 1000);
  perform governance.check_id('p_operator', p_operator);
  if p_decision is null or p_decision not in ('approve', 'reject') then
    perform governance.fail('PT400', 'invalid_argument', 'p_decision is approve or reject');
  end if;
  x := governance.find_act(p_act_id);
  a := governance.lock_account_id(x.account_id);
  if not coalesce(p_dry_run, false) then
    v_answer := governance.begin_command('operator', p_command_id,
      row('decide_act', p_act_id, p_decision, p_reason, p_operator)::text);
    if v_answer is not null then return v_answer; end if;
  end if;
  x := governance.find_act(p_act_id);
  if x.status <> 'proposed' then
    perform governance.fail('PT409', 'already_decided', format('This act is %s already%s', x.status,
      coalesce(': ' || left(x.decided_by, 64), '')), governance.act_json(x)::text);
  elsif p_decision = 'approve' and governance.is_same_person(x.operator, p_operator) then
    perform governance.fail('PT403', 'same_person', 'Somebody else must approve what you proposed');
  end if;
  v_now := governance.now();
  if p_decision = 'approve' then
    begin
      v_effects := governance.run_act(a, x.fields, null, x.command_id, x.reason, x.operator, v_now);
      if p_dry_run then
        raise exception using errcode = 'PT0DR', message = 'preview';
      end if;
    exception when sqlstate 'PT0DR' then
      return jsonb_build_object('effects', v_effects - '{undo,local_month}'::text[], 'version', a.version, 'why', null);
    end;
  end if;
  update governance.account_acts y set status = case p_decision when 'approve' then 'done' else 'rejected' end,
    effects = coalesce(v_effects, y.effects), done_at = v_now, decided_by = p_operator
  where y.act_id = p_act_id returning * into x;
  select y.user_id into strict v_user_id from governance.accounts y where y.account_id = x.account_id;
  return governance.end_act(p_decision || '_' || x.kind, p_command_id, v_user_id, p_reason, p_operator,
    (x.fields - 'kind') || jsonb_build_object('act_id', x.act_id, 'proposed_by', x.operator), governance.act_json(x));
end
$$;
comment on function public.console_decide_act(text, bigint, text, text, text, boolean) is
  'A second person approves a proposed correction, which is done then and there, or rejects it (its proposer may too). '
  'Returns {act, account}; p_dry_run what approving would do now. Audited. Errors: invalid_argument, not_found, '
  'already_decided, same_person, and those of console_act.';
revoke all on function public.console_decide_act(text, bigint, text, text, text, boolean)
  from public, anon, authenticated;
grant execute on function public.console_decide_act(text, bigint, text, text, text, boolean) to service_role;

create function public.console_undo_act(p_command_id text, p_act_id bigint, p_reason text, p_operator text,
  p_dry_run boolean default false) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  x governance.account_acts;
  y governance.account_acts;
  a governance.accounts;
  v_answer jsonb;
  v_effects jsonb;
  v_now timestamptz;
begin
  perform governance.refuse_others('console_undo_act');
  perform governance.check_id('p_command_id', p_command_id);
  perform governance.check_id('p_reason', p_reason, 1000);
  perform governance.check_id('p_operator', p_operator);
  x := governance.find_act(p_act_id);
  a := governance.lock_account_id(x.account_id);
  if not coalesce(p_dry_run, false) then
    v_answer := governance.begin_command('operator', p_command_id,
      row('undo_act', p_act_id, p_reason, p_operator)::text);
    if v_answer is not null then return v_answer; end if;
  end if;
  x := governance.find_act(p_act_id);
  if x.status <> 'done' then
    perform governance.fail('PT409', 'not_undoable', format('This act is %s: there is nothing to undo', x.status),
      governance.act_json(x)::text);
  elsif x.undoes is not null then
    perform governance.fail('PT409', 'not_undoable', 'An undo cannot be undone: do the act again');
  end if;
  v_now := governance.now();
  begin
    v_effects := governance.run_act(a, null, x, p_command_id, p_reason, p_operator, v_now);
    if p_dry_run then
      raise exception using errcode = 'PT0DR', message = 'preview';
    end if;
  exception when sqlstate 'PT0DR' then
    return jsonb_build_object('effects', v_effects - '{undo,local_month}'::text[], 'version', a.version, 'why', null);
  end;
  insert into governance.account_acts (command_id, account_id, kind, fields, reason, operator, status, effects,
    created_at, done_at, undoes)
  values (p_command_id, x.account_id, x.kind, x.fields, p_reason, p_operator, 'done', v_effects, v_now, v_now,
    x.act_id)
  returning * into y;
  update governance.account_acts z set status = 'undone', undone_by = y.act_id where z.act_id = x.act_id;
  delete from governance.lone_decisions d where d.act_id = x.act_id;
  return governance.end_act('undo_' || x.kind, p_command_id, a.user_id, p_reason, p_operator,
    (x.fields - 'kind') || jsonb_build_object('act_id', y.act_id, 'undoes', x.act_id), governance.act_json(y));
end
$$;
comment on function public.console_undo_act(text, bigint, text, text, boolean) is
  'Takes a correction back with compensating entries: tokens given are taken from their lot (what was spent of them '
  'becomes debt), tokens taken come back to their lots, the plan of before is put back. Returns {act, account}; '
  'p_dry_run the effects. Audited. Errors: invalid_argument, not_found, not_undoable, changed_since, '
  'idempotency_conflict.';
revoke all on function public.console_undo_act(text, bigint, text, text, boolean) from public, anon, authenticated;
grant execute on function public.console_undo_act(text, bigint, text, text, boolean) to service_role;

create function public.console_command_outcome(p_command_id text) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_answer jsonb;
begin
  perform governance.refuse_others('console_command_outcome');
  perform governance.check_id('p_command_id', p_command_id);
  insert into governance.commands (kind, command_id, fingerprint, answer)
  values ('operator', p_command_id, '', '{"is_void": true}') on conflict do nothing;
  select c.answer into strict v_answer from governance.commands c
  where c.kind = 'operator' and c.command_id = p_command_id;
  return jsonb_build_object('is_done', not coalesce(v_answer ? 'is_void', false), 'answer', case
    when not v_answer ? 'is_void' then v_answer end);
end
$$;
comment on function public.console_command_outcome(text) is
  'Whether an operator''s command whose answer was lost was done, with its answer: {is_done, answer}. A command that '
  'never arrived is void from now on: if it still comes, it is refused. Errors: invalid_argument.';
revoke all on function public.console_command_outcome(text) from public, anon, authenticated;
grant execute on function public.console_command_outcome(text) to service_role;

create function public.console_list_acts(p_filter jsonb default '{}', p_before_id bigint default null,
  p_limit int default 50) returns jsonb
  language plpgsql stable security definer set search_path = '' as $$
declare
  v_account_id bigint;
begin
  perform governance.refuse_others('console_list_acts');
  perform governance.check_limit(p_limit, 200);
  if p_filter is null or jsonb_typeof(p_filter) <> 'object' then
    perform governance.fail('PT400', 'invalid_argument', 'p_filter is an object: operator, user_id, status');
  end if;
  if p_filter ->> 'user_id' is not null then
    v_account_id := governance.account_id_of(p_filter ->> 'user_id');
  end if;
  return (
    with page as (
      select x as act, row_number() over (order by x.act_id desc) as n
      from governance.account_acts x
      where x.act_id < coalesce(p_before_id, 9223372036854775807)
        and (v_account_id is null or x.account_id = v_account_id)
        -- Thousands of a bulk act would hide all others: that is listed as one.
        and (v_account_id is not null or x.bulk_id is null)
        and (p_filter ->> 'operator' is null or x.operator = p_filter ->> 'operator')
        and (p_filter ->> 'status' is null or x.status = p_filter ->> 'status')
      order by x.act_id desc limit p_limit + 1)
    select jsonb_build_object(
      'acts', coalesce(jsonb_agg(governance.act_json(p.act) order by p.n) filter (where p.n <= p_limit), '[]'),
      'next_before_id', case when count(*) > p_limit then max((p.act).act_id) filter (where p.n = p_limit) end)
    from page p);
end
$$;
comment on function public.console_list_acts(jsonb, bigint, int) is
  'Corrections of accounts, newest first; p_filter may name operator, user_id, status. Those of bulk acts are listed '
  'by user alone. Errors: invalid_argument, unknown_user.';
revoke all on function public.console_list_acts(jsonb, bigint, int) from public, anon, authenticated;
grant execute on function public.console_list_acts(jsonb, bigint, int) to service_role;
