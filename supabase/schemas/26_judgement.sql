-- A call that something stops, warns of or changes: what is decided of it, and what it does to its account.
-- governance.authorize_calls (33_authorize.sql) asks here; most calls never do.

-- The decision about one call, before it becomes a row of governance.requests.
create type governance.judgement as (account_id bigint, decision_id bigint, decision text, reason text,
  http_status int, message text, warnings text[],
  model text, truncate_to_words int, retry_after_seconds int, upgrade_plan text, upgrade jsonb, cost_factor numeric,
  reserved_tokens bigint, version_id bigint, matched_version_ids bigint[], rule_blocked_until timestamptz,
  flag_reason text, flag_version_id bigint);

create function governance.judge_call(a governance.accounts, p governance.plans, c governance.active_config,
  f governance.facts, p_message text, p_phrases text, p_now timestamptz) returns governance.judgement
  language plpgsql stable set search_path = '' as $$
declare
  j governance.judgement;
  v governance.verdict;
  v_need bigint;
  v_retry_at timestamptz;
  v_percent int;
begin
  if not (a.blocked_at is not null and (a.blocked_until is null or a.blocked_until > p_now)
    or coalesce(a.rule_blocked_until > p_now, false)) then
    v := governance.evaluate_rules(f, p_message, p_phrases, p.monthly_allowance, p.daily_limit, p.monthly_limit,
      p_now);
  end if;
  v_need := case when v.cost_factor is null then f.estimated_tokens
    else least(ceil(f.estimated_tokens * v.cost_factor), 9007199254740991) end;
  if a.blocked_at is not null and (a.blocked_until is null or a.blocked_until > p_now) then
    j.reason := 'user_blocked';
    v_retry_at := a.blocked_until;
  elsif a.rule_blocked_until > p_now then
    j.reason := a.rule_block_reason;
    j.message := a.rule_block_message;
    j.version_id := a.rule_block_version_id;
    v_retry_at := a.rule_blocked_until;
  elsif v.blocked then
    j.reason := v.reason;
    j.message := v.message;
    j.version_id := v.version_id;
    j.rule_blocked_until := p_now + v.block_minutes * interval '1 minute';
    v_retry_at := j.rule_blocked_until;
  elsif f.tokens_today + v_need > p.daily_limit then
    j.reason := 'daily_limit';
    v_retry_at := a.day_ends_at;
  elsif f.tokens_this_month + v_need > p.monthly_limit then
    j.reason := 'monthly_limit';
    v_retry_at := a.month_ends_at;
  elsif v_need > f.available_tokens then
    j.reason := 'insufficient_tokens';
  else
    if p.daily_limit > 0 then
      select max(w) into v_percent from unnest(p.warn_at) w
        where (f.tokens_today + v_need)::numeric * 100 >= p.daily_limit::numeric * w;
      if v_percent is not null then
        v.warnings := v.warnings || governance.say('warning.daily_limit', governance.user_language(a),
          jsonb_build_object('percent', v_percent));
      end if;
    end if;
    if p.monthly_limit > 0 then
      select max(w) into v_percent from unnest(p.warn_at) w
        where (f.tokens_this_month + v_need)::numeric * 100 >= p.monthly_limit::numeric * w;
      if v_percent is not null then
        v.warnings := v.warnings || governance.say('warning.monthly_limit', governance.user_language(a),
          jsonb_build_object('percent', v_percent));
      end if;
    end if;
  end if;

  if j.reason is not null then
    j.http_status := governance.http_status(j.reason);
    j.message := governance.user_message(j.reason, j.message, governance.user_language(a));
    if v_retry_at is null and j.http_status = 429 then
      v_retry_at := case j.reason
        when 'daily_limit' then a.day_ends_at
        when 'monthly_limit' then a.month_ends_at
        when 'token_hogging' then a.day_ends_at
        when 'budget_exhausted' then a.month_ends_at
        when 'spam_identical' then p_now + c.identical_window_minutes * interval '1 minute'
        when 'bot_behavior' then p_now + interval '2 seconds'
        else p_now + interval '1 minute' end;
    end if;
    if v_retry_at is not null then
      j.retry_after_seconds := least(ceil(extract(epoch from v_retry_at - p_now)), 2147483647);
    end if;
    if j.reason in ('insufficient_tokens', 'daily_limit', 'monthly_limit') and p.upgrade_to is not null then
      j.upgrade_plan := p.upgrade_to;
      j.upgrade := governance.upgrade_json(p.upgrade_to);
    end if;
  end if;
  j.decision := case when j.reason is not null then 'block' when v.warnings is not null then 'warn' else 'allow' end;
  j.reserved_tokens := case when j.reason is null then v_need else 0 end;
  j.warnings := v.warnings;
  j.model := v.model;
  j.truncate_to_words := v.truncate_to_words;
  j.cost_factor := v.cost_factor;
  j.matched_version_ids := v.matched_version_ids;
  -- An account is flagged once.
  j.flag_reason := case when a.flagged_at is null then v.flag_reason end;
  j.flag_version_id := v.flag_version_id;
  return j;
end
$$;
comment on function governance.judge_call(governance.accounts, governance.plans, governance.active_config,
  governance.facts, text, text, timestamptz) is 'Steps 4 to 10 of docs/RULES.md for a call that something stops, '
    'warns of or changes.';

create function governance.punish_account(j governance.judgement, p_now timestamptz) returns void
  language plpgsql set search_path = '' as $$
begin
  if j.rule_blocked_until is not null then
    update governance.accounts y set rule_blocked_until = j.rule_blocked_until, rule_block_reason = j.reason,
      rule_block_message = j.message, rule_block_version_id = j.version_id
    where y.account_id = j.account_id;
    insert into governance.audit_log (created_at, action, account_id, rule_name, reason, details)
    select p_now, 'rule_block', j.account_id, x.rule_name, j.reason,
      jsonb_build_object('until', j.rule_blocked_until, 'rule_version', x.version, 'decision_id', j.decision_id)
    from governance.rule_versions x where x.version_id = j.version_id;
  end if;
  if j.flag_reason is not null then
    update governance.accounts y set flagged_at = p_now, flag_reason = j.flag_reason, flagged_by = 'rule',
      version = y.version + 1 where y.account_id = j.account_id;
    insert into governance.audit_log (created_at, action, account_id, rule_name, reason, details)
    select p_now, 'rule_flag', j.account_id, x.rule_name, j.flag_reason,
      jsonb_build_object('rule_version', x.version, 'decision_id', j.decision_id)
    from governance.rule_versions x where x.version_id = j.flag_version_id;
  end if;
end
$$;
comment on function governance.punish_account(governance.judgement, timestamptz) is
  'Blocks the account for a while or flags it, as a rule decided for a call.';
