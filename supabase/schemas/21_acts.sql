-- What operators do to accounts, and the audit log.

create table governance.commands (
  kind text not null,
  command_id text not null check (command_id <> '' and length(command_id) <= 255),
  fingerprint bytea not null,
  answer jsonb,
  created_at timestamptz not null default now(),
  primary key (kind, command_id)
);

create index commands_time on governance.commands (created_at);

comment on table governance.commands is
  'Keys of commands already done, with their answers: a repeat gets the same answer and does nothing. Kept at least 30 '
  'days.';

create function governance.request_device() returns text
  language plpgsql stable set search_path = '' as $$
begin
  return nullif(left(regexp_replace(nullif(current_setting('request.headers', true), '')::jsonb
    ->> 'x-console-device', '[^ -~]', '', 'g'), 120), '');
exception when data_exception then
  return null;
end
$$;
comment on function governance.request_device() is
  'The machine that a console says it runs on (the header x-console-device, which PostgREST passes on); null for '
  'anything else. Like the operator''s name, it is what the caller sends, and not proven.';

create table governance.audit_log (
  audit_id bigint generated always as identity primary key,
  created_at timestamptz not null,
  operator text,
  action text not null,
  account_id bigint,
  rule_name text,
  reason text,
  command_id text,
  details jsonb not null default '{}',
  -- The machine that it was done from.
  device text default governance.request_device()
);

create index audit_log_account on governance.audit_log (account_id, audit_id desc) where account_id is not null;

create index audit_log_operator on governance.audit_log (operator, audit_id desc) where operator is not null;

create index audit_log_time on governance.audit_log (created_at desc);

comment on table governance.audit_log is 'Acts of operators and rules on accounts and configuration; append-only.';

create function governance.begin_command(p_kind text, p_command_id text, p_parameters text) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_fingerprint bytea := sha256(convert_to(p_parameters, 'UTF8'));
  v_command governance.commands;
begin
  insert into governance.commands (kind, command_id, fingerprint) values (p_kind, p_command_id, v_fingerprint)
  on conflict do nothing;
  if found then return null; end if;
  select * into strict v_command from governance.commands c where c.kind = p_kind and c.command_id = p_command_id;
  if v_command.fingerprint <> v_fingerprint then
    perform governance.fail('PT409', 'idempotency_conflict',
      format('"%s" was used before with other parameters', left(p_command_id, 64)));
  end if;
  return v_command.answer;
end
$$;
comment on function governance.begin_command(text, text, text) is
  'Claims a command id: null means do it now and call governance.end_command; otherwise the answer given before. A '
  'concurrent twin waits.';

create function governance.end_command(p_kind text, p_command_id text, p_answer jsonb) returns jsonb
  language sql set search_path = '' as $$
  update governance.commands set answer = p_answer where kind = p_kind and command_id = p_command_id returning answer
$$;
comment on function governance.end_command(text, text, jsonb) is 'Keeps the answer of a command for its repeats.';

create function governance.check_operator_command(p_command_id text, p_user_id text, p_reason text,
  p_operator text) returns void
  language plpgsql immutable set search_path = '' as $$
begin
  perform governance.check_id('p_command_id', p_command_id);
  perform governance.check_id('p_user_id', p_user_id);
  perform governance.check_id('p_reason', p_reason, 1000);
  perform governance.check_optional('p_operator', p_operator, 255);
end
$$;
comment on function governance.check_operator_command(text, text, text,
  text) is 'Refuses an operator''s command without an id, a user or a reason.';

create function governance.begin_act(p_action text, p_command_id text, p_user_id text, p_reason text,
  p_operator text, p_expected_version int, p_parameters text default null) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_account governance.accounts;
  v_answer jsonb;
begin
  perform governance.check_operator_command(p_command_id, p_user_id, p_reason, p_operator);
  v_account := governance.lock_account(p_user_id);
  v_answer := governance.begin_command('operator', p_command_id,
    row(p_action, p_user_id, p_reason, p_operator, p_expected_version, p_parameters)::text);
  if v_answer is null and p_expected_version <> v_account.version then
    perform governance.fail('PT409', 'version_conflict',
      format('The account was changed in the meantime: it is version %s now, not %s', v_account.version,
      p_expected_version), governance.account_json(v_account)::text);
  end if;
  return v_answer;
end
$$;
comment on function governance.begin_act(text, text, text, text, text, int, text) is
  'Begins an operator''s act on an account: checks, locks the account, claims the command id. Null: do it now and call '
  'governance.end_act; otherwise the answer given before. An account of another version than the expected one (null '
  'for any) is a version_conflict with the account in its details.';

create function governance.end_act(p_action text, p_command_id text, p_user_id text, p_reason text, p_operator text,
  p_details jsonb default '{}', p_act jsonb default null) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  v_account governance.accounts;
  v_now timestamptz := governance.now();
begin
  update governance.accounts a set version = a.version + 1 where a.user_id = p_user_id returning * into v_account;
  insert into governance.audit_log (created_at, operator, action, account_id, reason, command_id, details)
  values (v_now, p_operator, p_action, v_account.account_id, p_reason, p_command_id, p_details);
  perform governance.ring('accounts', v_now);
  return governance.end_command('operator', p_command_id, case when p_act is null
    then governance.account_json(v_account)
    else jsonb_build_object('act', p_act, 'account', governance.account_json(v_account)) end);
end
$$;
comment on function governance.end_act(text, text, text, text, text, jsonb, jsonb) is
  'Ends an operator''s act on an account: its version rises, the audit has it, and its answer is kept: the account, '
  'with p_act beside it where there is one.';

create function governance.change_standing(a governance.accounts, p_act jsonb, p_reason text, p_operator text,
  p_now timestamptz) returns jsonb
  language plpgsql set search_path = '' as $$
begin
  case p_act ->> 'kind'
  when 'flag_user' then
    update governance.accounts y set flagged_at = p_now, flag_reason = p_reason, flagged_by = p_operator
    where y.account_id = a.account_id;
  when 'unflag_user' then
    update governance.accounts y set flagged_at = null, flag_reason = null, flagged_by = null
    where y.account_id = a.account_id;
  when 'block_user' then
    update governance.accounts y set blocked_at = p_now, blocked_until = (p_act ->> 'until')::timestamptz,
      block_reason = p_reason, blocked_by = p_operator
    where y.account_id = a.account_id;
  when 'unblock_user' then
    update governance.accounts y set
      blocked_at = null, blocked_until = null, block_reason = null, blocked_by = null,
      rule_blocked_until = null, rule_block_reason = null, rule_block_message = null, rule_block_version_id = null,
      forgiven_at = p_now, rapid_messages = 0
    where y.account_id = a.account_id;
  end case;
  return jsonb_build_object('at', p_now, 'standing', jsonb_build_object('flagged_at', a.flagged_at, 'flag_reason',
    a.flag_reason, 'flagged_by', a.flagged_by, 'blocked_at', a.blocked_at, 'blocked_until', a.blocked_until,
    'block_reason', a.block_reason, 'blocked_by', a.blocked_by, 'rule_blocked_until', a.rule_blocked_until,
    'rule_block_reason', a.rule_block_reason, 'rule_block_message', a.rule_block_message, 'rule_block_version_id',
    a.rule_block_version_id));
end
$$;
comment on function governance.change_standing(governance.accounts, jsonb, text, text, timestamptz) is
  'Flags an account, clears its flag, blocks or unblocks it, as p_act asks ({kind, until}); returns what undoing it '
  'needs. The caller holds the account''s lock.';

create function governance.put_back_standing(a governance.accounts, p_kind text, p_undo jsonb, p_now timestamptz)
  returns void
  language plpgsql set search_path = '' as $$
declare
  v_at timestamptz := (p_undo ->> 'at')::timestamptz;
  v_was governance.accounts := jsonb_populate_record(a, p_undo -> 'standing');
  v_why text := case p_kind
    when 'flag_user' then case when a.flagged_at is distinct from v_at
      then 'The flag was cleared, or set again, since' end
    when 'unflag_user' then case when a.flagged_at is not null then 'The user was flagged again since' end
    when 'block_user' then case when a.blocked_at is distinct from v_at
      then 'The user was unblocked, or blocked otherwise, since' end
    when 'unblock_user' then case when governance.blocked_until(a) > p_now then 'The user was blocked again since' end
    end;
begin
  if v_why is not null then perform governance.fail('PT409', 'changed_since', v_why); end if;
  -- Messages that were forgiven are not counted again.
  update governance.accounts y set
    flagged_at = v_was.flagged_at, flag_reason = v_was.flag_reason, flagged_by = v_was.flagged_by
  where y.account_id = a.account_id and p_kind in ('flag_user', 'unflag_user');
  update governance.accounts y set
    blocked_at = v_was.blocked_at, blocked_until = v_was.blocked_until, block_reason = v_was.block_reason,
    blocked_by = v_was.blocked_by
  where y.account_id = a.account_id and p_kind in ('block_user', 'unblock_user');
  update governance.accounts y set
    rule_blocked_until = v_was.rule_blocked_until, rule_block_reason = v_was.rule_block_reason,
    rule_block_message = v_was.rule_block_message, rule_block_version_id = v_was.rule_block_version_id
  where y.account_id = a.account_id and p_kind = 'unblock_user';
end
$$;
comment on function governance.put_back_standing(governance.accounts, text, jsonb, timestamptz) is
  'Undoes a flag, a block, or the end of one: the account is flagged and blocked as it was before. The caller holds '
  'the account''s lock. Errors: changed_since.';

create function governance.act_on_standing(p_act jsonb, p_command_id text, p_user_id text, p_reason text,
  p_operator text, p_details jsonb) returns jsonb
  language plpgsql set search_path = '' as $$
declare
  a governance.accounts := governance.lock_account(p_user_id);
  v_now timestamptz := governance.now();
  v_effects jsonb := governance.run_act(a, p_act, null, p_command_id, p_reason, p_operator, v_now);
begin
  -- Kept in the operator's list of acts, where it can be undone. A program that names no operator has no such list.
  if p_operator is not null then
    insert into governance.account_acts (command_id, account_id, kind, fields, reason, operator, status, effects,
      created_at, done_at)
    values (p_command_id, a.account_id, p_act ->> 'kind', p_act, p_reason, p_operator, 'done', v_effects, v_now, v_now)
    on conflict (command_id) do nothing;
  end if;
  return governance.end_act(p_act ->> 'kind', p_command_id, p_user_id, p_reason, p_operator, p_details);
end
$$;
comment on function governance.act_on_standing(jsonb, text, text, text, text, jsonb) is
  'Flags, clears a flag, blocks or unblocks after governance.begin_act; kept among the operator''s acts. Returns the '
  'account.';

create function public.flag_user(p_command_id text, p_user_id text, p_reason text,
  p_operator text default null, p_expected_version int default null) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_answer jsonb;
begin
  perform governance.refuse_others('flag_user');
  v_answer := governance.begin_act('flag_user', p_command_id, p_user_id, p_reason, p_operator, p_expected_version);
  if v_answer is not null then return v_answer; end if;
  return governance.act_on_standing('{"kind": "flag_user"}', p_command_id, p_user_id, p_reason, p_operator, '{}');
end
$$;
comment on function public.flag_user(text, text, text, text, int) is
  'Marks an account for review; its calls go on. Returns the account. Errors: invalid_argument, unknown_user, '
  'version_conflict, idempotency_conflict.';
revoke all on function public.flag_user(text, text, text, text, int) from public, anon, authenticated;
grant execute on function public.flag_user(text, text, text, text, int) to service_role;

create function public.unflag_user(p_command_id text, p_user_id text, p_reason text,
  p_operator text default null, p_expected_version int default null) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_answer jsonb;
begin
  perform governance.refuse_others('unflag_user');
  v_answer := governance.begin_act('unflag_user', p_command_id, p_user_id, p_reason, p_operator, p_expected_version);
  if v_answer is not null then return v_answer; end if;
  return governance.act_on_standing('{"kind": "unflag_user"}', p_command_id, p_user_id, p_reason, p_operator, '{}');
end
$$;
comment on function public.unflag_user(text, text, text, text, int) is
  'Clears the flag of an account that was reviewed. Returns the account. Errors: invalid_argument, unknown_user, '
  'version_conflict, idempotency_conflict.';
revoke all on function public.unflag_user(text, text, text, text, int) from public, anon, authenticated;
grant execute on function public.unflag_user(text, text, text, text, int) to service_role;

create function public.block_user(p_command_id text, p_user_id text, p_reason text, p_until timestamptz default null,
  p_operator text default null, p_expected_version int default null) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_answer jsonb;
begin
  perform governance.refuse_others('block_user');
  if not governance.is_date(p_until) then
    perform governance.fail('PT400', 'invalid_argument',
      'p_until is a moment in the future, or null until someone unblocks');
  end if;
  v_answer := governance.begin_act('block_user', p_command_id, p_user_id, p_reason, p_operator, p_expected_version,
    extract(epoch from p_until)::text);
  if v_answer is not null then return v_answer; end if;
  if p_until <= governance.now() then
    perform governance.fail('PT400', 'invalid_argument',
      'p_until is a moment in the future, or null until someone unblocks');
  end if;
  return governance.act_on_standing(jsonb_build_object('kind', 'block_user', 'until', p_until), p_command_id, p_user_id,
    p_reason, p_operator, jsonb_build_object('until', p_until));
end
$$;
comment on function public.block_user(text, text, text, timestamptz, text, int) is
  'Stops an account''s calls from the next one on, until a moment or until someone unblocks. Returns the account. '
  'Errors: invalid_argument, unknown_user, version_conflict, idempotency_conflict.';
revoke all on function public.block_user(text, text, text, timestamptz, text, int) from public, anon, authenticated;
grant execute on function public.block_user(text, text, text, timestamptz, text, int) to service_role;

create function public.unblock_user(p_command_id text, p_user_id text, p_reason text,
  p_operator text default null, p_expected_version int default null) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_answer jsonb;
  v_lifted jsonb;
begin
  perform governance.refuse_others('unblock_user');
  v_answer := governance.begin_act('unblock_user', p_command_id, p_user_id, p_reason, p_operator, p_expected_version);
  if v_answer is not null then return v_answer; end if;
  select jsonb_strip_nulls(governance.block_json(a, governance.now())) - 'is_blocked' into v_lifted
  from governance.accounts a where a.user_id = p_user_id;
  return governance.act_on_standing('{"kind": "unblock_user"}', p_command_id, p_user_id, p_reason, p_operator,
    jsonb_build_object('lifted', v_lifted));
end
$$;
comment on function public.unblock_user(text, text, text, text, int) is
  'Lifts an operator''s and a rule''s block, and forgives: identical and rapid messages count from zero. A flag '
  'stays. Returns the account; the audit keeps what was lifted. Errors: invalid_argument, unknown_user, '
  'version_conflict, idempotency_conflict.';
revoke all on function public.unblock_user(text, text, text, text, int) from public, anon, authenticated;
grant execute on function public.unblock_user(text, text, text, text, int) to service_role;

create function public.console_audit(p_filter jsonb default '{}', p_before_id bigint default null,
  p_limit int default 100) returns jsonb
  language plpgsql stable security definer set search_path = '' set plan_cache_mode = 'force_custom_plan' as $$
declare
  v_account_id bigint;
  v_from timestamptz;
  v_to timestamptz;
begin
  perform governance.refuse_others('console_audit');
  perform governance.check_limit(p_limit, 1000);
  if p_filter is null or jsonb_typeof(p_filter) <> 'object' then
    perform governance.fail('PT400', 'invalid_argument',
      'p_filter is an object: operator, device, action, user_id, from, to, by (people or rules)');
  end if;
  begin
    v_from := (p_filter ->> 'from')::timestamptz;
    v_to := (p_filter ->> 'to')::timestamptz;
  exception when data_exception then
    perform governance.fail('PT400', 'invalid_argument', 'p_filter.from and to are moments');
  end;
  if p_filter ->> 'user_id' is not null then
    v_account_id := governance.account_id_of(p_filter ->> 'user_id');
  end if;
  return (
    with page as (
      select x.*, row_number() over (order by x.audit_id desc) as n from (
        select g.* from governance.audit_log g
        where g.audit_id < coalesce(p_before_id, 9223372036854775807)
          and (v_account_id is null or g.account_id = v_account_id)
          and (p_filter ->> 'operator' is null or g.operator = p_filter ->> 'operator')
          and (p_filter ->> 'device' is null or g.device = p_filter ->> 'device')
          and (p_filter ->> 'action' is null or g.action = p_filter ->> 'action')
          and (p_filter ->> 'by' is distinct from 'people' or g.operator is not null)
          and (p_filter ->> 'by' is distinct from 'rules' or g.operator is null)
          and (v_from is null or g.created_at >= v_from) and (v_to is null or g.created_at < v_to)
        order by g.audit_id desc limit p_limit + 1) x)
    select jsonb_build_object(
      'entries', coalesce(jsonb_agg(jsonb_build_object('audit_id', g.audit_id, 'at', g.created_at, 'operator',
        g.operator, 'action', g.action, 'user_id', a.user_id, 'display_name', a.display_name, 'email', a.email,
        'rule_name', g.rule_name, 'reason', g.reason, 'command_id', g.command_id, 'device', g.device,
        'details', g.details) order by g.n) filter (where g.n <= p_limit), '[]'),
      'next_before_id', case when count(*) > p_limit then max(g.audit_id) filter (where g.n = p_limit) end)
    from page g left join governance.accounts a using (account_id));
end
$$;
comment on function public.console_audit(jsonb, bigint, int) is
  'The audit log, newest first: who did what to whom, when, why and from which device. p_filter may name operator, '
  'device, action, user_id, from, to, and by (people: operators alone; rules: rules and upkeep alone). Errors: '
  'invalid_argument, unknown_user.';
revoke all on function public.console_audit(jsonb, bigint, int) from public, anon, authenticated;
grant execute on function public.console_audit(jsonb, bigint, int) to service_role;

create trigger audit_log_append_only before update or delete or truncate on governance.audit_log
  for each statement execute function governance.refuse_change();
