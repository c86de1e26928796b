/**
 * Puts an invented history into the database's own tables, one account a transaction. The hash chain, the ids of
 * accounts and lots and the daily roll-up are made by the database itself.
 */
import { quoteLiteral } from "../database.ts";
import type { Call, Entry, History, Lot, Snapshot } from "./history.ts";

/** Places in the feed: one order of ids over all accounts, in order of time. */
interface Ids {
  readonly decision: ReadonlyMap<Call, number>;
  readonly entry: ReadonlyMap<Entry, number>;
  /** Of the ends that are not in the ledger: released and expired holds. */
  readonly end: ReadonlyMap<Call, number>;
}

export function assignIds(
  histories: readonly History[],
  { first_id, reserved_ids }: { readonly first_id: number; readonly reserved_ids: number },
): Ids {
  const decision = new Map<Call, number>();
  const entry = new Map<Entry, number>();
  const end = new Map<Call, number>();
  const moments: { readonly at: number; readonly take: (id: number) => void }[] = [];
  for (const history of histories) {
    for (const call of history.calls) {
      moments.push({ at: call.at, take: (id) => decision.set(call, id) });
      if (call.status === "released" || call.status === "expired") {
        moments.push({ at: call.ended_at ?? call.at, take: (id) => end.set(call, id) });
      }
    }
    for (const one of history.entries) moments.push({ at: one.at, take: (id) => entry.set(one, id) });
  }
  if (moments.length > reserved_ids)
    throw new Error("The sample's history has more events than ids kept for it.");
  moments.sort((one, other) => one.at - other.at);
  for (const [index, moment] of moments.entries()) moment.take(first_id + index);
  return { decision, entry, end };
}

const iso = (at: number | null): string | null => (at === null ? null : new Date(at).toISOString());

/** The account as the loading statement reads it; names are those of the tables. */
export function accountToLoad(history: History, ids: Ids): Record<string, unknown> {
  const entryIds = new Map<Call, number>();
  for (const entry of history.entries) if (entry.call) entryIds.set(entry.call, issued(ids.entry.get(entry)));
  return {
    account: accountRow(history),
    lots: history.lots.map(lotRow),
    entries: history.entries.map((entry) => entryRow(entry, ids)),
    calls: history.calls.map((call) => callRow(call, ids, entryIds.get(call) ?? null)),
    scope_id: history.person.scope_id,
    daily_limit: history.plan.daily_limit,
    monthly_limit: history.plan.monthly_limit,
  };
}

function issued(id: number | undefined): number {
  if (id === undefined) throw new Error("An event of the sample has no id.");
  return id;
}

function accountRow(history: History) {
  const { person, plan, day, month, balance } = history;
  return {
    user_id: person.user_id,
    plan_id: plan.plan_id,
    timezone: person.timezone,
    email: person.email,
    display_name: person.display_name,
    metadata: { sample_data: true, habit: person.habit },
    created_at: iso(history.joined_at),
    flagged_at: iso(history.flag?.at ?? null),
    flag_reason: history.flag?.reason ?? null,
    blocked_at: iso(history.block?.at ?? null),
    block_reason: history.block?.reason ?? null,
    local_day: day.date,
    day_ends_at: iso(day.ends_at),
    local_month: month.date,
    month_ends_at: iso(month.ends_at),
    month_allowance: plan.monthly_allowance,
    last_message_at: iso(history.last_message_at),
    last_activity_at: iso(history.last_activity_at),
    rapid_messages: history.rapid_messages,
    day_messages: day.messages,
    month_messages: month.messages,
    day_calls: day.calls,
    month_calls: month.calls,
    day_tokens: day.tokens,
    month_tokens: month.tokens,
    day_cost_micros: day.cost_micros,
    month_cost_micros: month.cost_micros,
    subscription_tokens: balance.subscription,
    purchased_tokens: balance.purchased,
    promotional_tokens: balance.promotional,
    debt_tokens: balance.debt,
  };
}

function lotRow(lot: Lot) {
  return {
    kind: lot.kind,
    expires_at: iso(lot.expires_at),
    created_at: iso(lot.at),
    description: lot.description,
    pack_id: lot.payment?.pack_id ?? null,
    stripe_charge_id: lot.payment?.charge_id ?? null,
    stripe_payment_intent_id: lot.payment?.payment_intent_id ?? null,
    stripe_checkout_session_id: lot.payment?.checkout_session_id ?? null,
    amount_minor: lot.payment?.amount_minor ?? null,
    currency: lot.payment?.currency ?? null,
    metadata: lot.payment
      ? {
          sample_data: true,
          balance_transaction_id: lot.payment.balance_transaction_id,
          customer_id: lot.payment.customer_id,
          ...(lot.payment.invoice_id ? { invoice_id: lot.payment.invoice_id } : {}),
          ...(lot.payment.plant ? { plant: lot.payment.plant } : {}),
        }
      : { sample_data: true },
    granted: lot.granted,
    remaining: lot.remaining,
    frozen: lot.frozen,
    spent: lot.spent,
    expired: lot.expired,
    clawed_back: lot.clawed_back,
  };
}

function entryRow(entry: Entry, ids: Ids) {
  return {
    transaction_id: issued(ids.entry.get(entry)),
    created_at: iso(entry.at),
    transaction_type: entry.type,
    amount: entry.amount,
    new_balance: entry.new_balance,
    debt_after: entry.debt_after,
    // Pairs of the lot's place in `lots`, from 1, and tokens.
    lots: entry.lots.flat(),
    reference: entry.reference,
    decision_id: entry.call ? issued(ids.decision.get(entry.call)) : null,
    description: entry.description,
  };
}

/** `entryId` is the ledger entry that settled the call. */
function callRow(call: Call, ids: Ids, entryId: number | null) {
  return {
    decision_id: issued(ids.decision.get(call)),
    created_at: iso(call.at),
    request_id: call.request_id,
    requested_model: call.price.model,
    provider: call.price.provider,
    task_type: call.task_type,
    conversation_id: call.conversation_id,
    message_hash: call.message,
    reason: call.reason,
    warning: call.warning,
    estimated_tokens: call.estimated_tokens,
    facts: {
      tokens_today: call.seen.tokens_today,
      tokens_this_month: call.seen.tokens_month,
      cost_today_micros: call.seen.cost_today,
      cost_this_month_micros: call.seen.cost_month,
      messages_today: call.seen.messages_today,
      rapid_messages: call.seen.rapid_messages,
      identical_messages: call.seen.identical_messages,
      conversation_messages: call.seen.conversation_messages,
      seconds_since_last_message: call.seen.seconds_since,
      usage_percent: call.seen.usage_percent,
      message_words: call.message_words,
      message_characters: call.message_words * 6,
      estimated_tokens: call.estimated_tokens,
      is_flagged: false,
    },
    day_ends_at: iso(call.day_ends_at),
    month_ends_at: iso(call.month_ends_at),
    ...balanceColumns("", call.answer),
    status: call.status,
    ended_at: iso(call.ended_at),
    input_tokens: call.status === "settled" ? call.input_tokens : null,
    output_tokens: call.status === "settled" ? call.output_tokens : null,
    cost_micros: call.status === "settled" ? call.cost_micros : null,
    transaction_id: entryId,
    end_id: ids.end.get(call) ?? null,
    ...(call.end ? balanceColumns("end_", call.end) : {}),
  };
}

function balanceColumns(prefix: "" | "end_", at: Snapshot): Record<string, number> {
  return {
    [`${prefix}subscription_tokens`]: at.subscription,
    [`${prefix}purchased_tokens`]: at.purchased,
    [`${prefix}promotional_tokens`]: at.promotional,
    [prefix === "" ? "total_reserved_tokens" : "end_reserved_tokens"]: at.reserved,
    [`${prefix}debt_tokens`]: at.debt,
  };
}

/** One transaction: an account with its lots, ledger, calls and daily usage, as written by the transaction `xid`. */
export function accountToLoadSql(account: Record<string, unknown>, xid: string): string {
  const values = quoteLiteral(JSON.stringify({ ...account, xid }));
  return `select set_config('governance.sample_account', ${values}, true);\n${LOAD}`;
}

const LOAD = /* sql */ `
do $load$
declare
  v jsonb := current_setting('governance.sample_account')::jsonb;
  v_account governance.accounts;
  v_lot_ids bigint[];
  v_entry record;
  v_hash bytea;
  v_previous_hash bytea;
  v_last bigint;
  v_xid xid8 := (v ->> 'xid')::xid8;
  v_recent timestamptz := governance.now() - interval '2 days';
  v_config governance.active_config := (select c from governance.active_config c);
begin
  -- No day is closed while this adds to it: aggregate_days takes this lock alone.
  perform pg_advisory_xact_lock_shared(7254013);
  v_account := jsonb_populate_record(null::governance.accounts, v -> 'account');
  insert into governance.accounts (user_id, plan_id, timezone, email, display_name, metadata, created_at,
    flagged_at, flag_reason, flagged_by, blocked_at, block_reason, blocked_by, local_day, day_ends_at, local_month,
    month_ends_at, month_allowance, last_message_at, last_activity_at, rapid_messages, day_messages, month_messages,
    day_calls, month_calls, day_tokens, month_tokens, day_cost_micros, month_cost_micros, subscription_tokens,
    purchased_tokens, promotional_tokens, debt_tokens)
  select (v_account).user_id, (v_account).plan_id, (v_account).timezone, (v_account).email, (v_account).display_name,
    (v_account).metadata, (v_account).created_at, (v_account).flagged_at, (v_account).flag_reason,
    case when (v_account).flagged_at is not null then 'sample' end, (v_account).blocked_at, (v_account).block_reason,
    case when (v_account).blocked_at is not null then 'sample' end, (v_account).local_day, (v_account).day_ends_at,
    (v_account).local_month, (v_account).month_ends_at, (v_account).month_allowance, (v_account).last_message_at,
    (v_account).last_activity_at, (v_account).rapid_messages, (v_account).day_messages, (v_account).month_messages,
    (v_account).day_calls, (v_account).month_calls, (v_account).day_tokens, (v_account).month_tokens,
    (v_account).day_cost_micros, (v_account).month_cost_micros, (v_account).subscription_tokens,
    (v_account).purchased_tokens, (v_account).promotional_tokens, (v_account).debt_tokens
  returning * into v_account;

  with made as (
    insert into governance.lots (account_id, kind, expires_at, created_at, description, pack_id, stripe_charge_id,
      stripe_payment_intent_id, stripe_checkout_session_id, amount_minor, currency, metadata, granted, is_open, remaining,
      frozen, spent, expired, clawed_back)
    select v_account.account_id, l.kind, l.expires_at, l.created_at, l.description, l.pack_id, l.stripe_charge_id,
      l.stripe_payment_intent_id, l.stripe_checkout_session_id, l.amount_minor, l.currency, l.metadata, l.granted,
      l.remaining + l.frozen > 0, l.remaining, l.frozen, l.spent, l.expired, l.clawed_back
    from rows from (jsonb_to_recordset(v -> 'lots') as (kind text, expires_at timestamptz, created_at timestamptz,
      description text, pack_id text, stripe_charge_id text, stripe_payment_intent_id text,
      stripe_checkout_session_id text, amount_minor bigint, currency text, metadata jsonb, granted bigint, remaining bigint,
      frozen bigint, spent bigint, expired bigint, clawed_back bigint)) with ordinality as l
    order by l.ordinality
    returning lot_id)
  select array_agg(lot_id order by lot_id) into v_lot_ids from made;

  -- The chain: each entry's hash covers the one before.
  for v_entry in
    select e.transaction_id, e.created_at, e.transaction_type, e.amount, e.new_balance - e.amount as previous_balance,
      e.new_balance, e.debt_after, e.reference, e.decision_id, e.description,
      array(select case when n % 2 = 1 then v_lot_ids[e.lots[n]] else e.lots[n] end
        from generate_series(1, cardinality(e.lots)) n order by n) as lot_changes
    from jsonb_to_recordset(v -> 'entries') as e (transaction_id bigint, created_at timestamptz, transaction_type text,
      amount bigint, new_balance bigint, debt_after bigint, lots bigint[], reference text, decision_id bigint, description text)
    order by e.transaction_id
  loop
    v_previous_hash := v_hash;
    v_hash := governance.entry_hash(v_previous_hash, governance.entry_payload(v_entry.transaction_id, v_entry.created_at,
      v_entry.transaction_type, v_entry.amount, v_entry.previous_balance, v_entry.new_balance, v_entry.debt_after,
      v_entry.lot_changes, v_entry.decision_id, v_account.user_id, v_entry.reference, v_entry.description, null));
    insert into governance.token_transactions (transaction_id, account_id, created_at, transaction_type, amount,
      previous_balance, new_balance, debt_after, lot_changes, reference, decision_id, description, previous_hash, hash, xid)
    values (v_entry.transaction_id, v_account.account_id, v_entry.created_at, v_entry.transaction_type, v_entry.amount,
      v_entry.previous_balance, v_entry.new_balance, v_entry.debt_after, v_entry.lot_changes, v_entry.reference,
      v_entry.decision_id, v_entry.description, v_previous_hash, v_hash, v_xid);
    v_last := v_entry.transaction_id;
  end loop;
  update governance.accounts a set last_transaction_id = v_last, last_hash = v_hash, lots_check_at = (
    select min(l.expires_at) from governance.lots l where l.account_id = a.account_id and l.is_open and l.remaining > 0)
  where a.account_id = v_account.account_id;

  with calls as (
    select c.* from jsonb_to_recordset(v -> 'calls') as c (decision_id bigint, created_at timestamptz, request_id text,
      requested_model text, provider text, task_type text, conversation_id text, message_hash bigint,
      reason text, warning text, estimated_tokens bigint, facts jsonb, day_ends_at timestamptz, month_ends_at timestamptz, subscription_tokens bigint, purchased_tokens bigint, promotional_tokens bigint,
      total_reserved_tokens bigint, debt_tokens bigint, status text, ended_at timestamptz, input_tokens bigint,
      output_tokens bigint, cost_micros bigint, transaction_id bigint, end_id bigint, end_subscription_tokens bigint,
      end_purchased_tokens bigint, end_promotional_tokens bigint, end_reserved_tokens bigint, end_debt_tokens bigint)
  ), ends as (
    insert into governance.hold_events (event_id, created_at, kind, decision_id, account_id, tokens, reason, xid)
    select c.end_id, c.ended_at, c.status, c.decision_id, v_account.account_id, c.estimated_tokens,
      case c.status when 'released' then 'provider_error' end, v_xid
    from calls c where c.end_id is not null
  ), days as (
    insert into governance.usage_daily (account_id, day, model, task_type, scope_id, calls, messages, input_tokens,
      output_tokens, charged_tokens, cost_micros, first_activity_at, last_activity_at)
    select v_account.account_id, (c.ended_at at time zone v_account.timezone)::date, c.requested_model, c.task_type,
      v ->> 'scope_id', count(*), count(*), sum(c.input_tokens), sum(c.output_tokens),
      sum(c.input_tokens + c.output_tokens), sum(c.cost_micros), min(c.ended_at),
      max(c.ended_at)
    from calls c where c.status = 'settled' group by 2, 3, 4
  ), keys as (
    insert into governance.request_keys (request_id, created_at, decision_id, account_id, lock_key, message_hash)
    select c.request_id, c.created_at, c.decision_id, v_account.account_id, governance.lock_key(v_account.user_id), c.message_hash from calls c
  )
  insert into governance.requests (decision_id, created_at, account_id, request_id, fingerprint, requested_model, task_type,
    scope_id, conversation_id, message_hash, decision, reason, http_status, message,
    warnings, model, expires_at, upgrade_plan, plan_id, rule_set_id, rule_version_id, matched_version_ids,
    facts, reserved_tokens, daily_limit, day_ends_at, monthly_limit,
    month_ends_at, subscription_tokens, purchased_tokens, promotional_tokens, total_reserved_tokens, debt_tokens,
    status, ended_at, usage_day, end_reason, settled_model, provider, input_tokens, output_tokens, charged_tokens,
    released_tokens, unpaid_tokens, cost_micros, currency, transaction_id, end_subscription_tokens,
    end_purchased_tokens, end_promotional_tokens, end_reserved_tokens, end_debt_tokens, xid)
  select c.decision_id, c.created_at, v_account.account_id, c.request_id, hashtextextended(c.request_id, 0),
    c.requested_model, c.task_type, v ->> 'scope_id', c.conversation_id, c.message_hash,
    case when c.reason is not null then 'block' when c.warning is not null then 'warn' else 'allow' end,
    c.reason,
    case when c.reason is null then 200 when c.reason = 'insufficient_tokens' then 402 when c.reason = 'off_topic' then 403 else 429 end,
    rule.message, case when c.warning is not null then array[c.warning] end, c.requested_model,
    case when c.reason is null then c.created_at + v_config.hold_minutes * interval '1 minute' end,
    case when c.reason = 'insufficient_tokens' then plan.upgrade_to end, v_account.plan_id, v_config.rule_set_id,
    rule.version_id, case when rule.version_id is not null then array[rule.version_id] end,
    jsonb_populate_record(null::governance.facts, c.facts || jsonb_build_object(
      'hour_utc', date_part('hour', c.created_at at time zone 'UTC'),
      'hour_local', date_part('hour', c.created_at at time zone v_account.timezone),
      'weekday_local', date_part('isodow', c.created_at at time zone v_account.timezone),
      'plan', v_account.plan_id, 'model', c.requested_model, 'provider', c.provider, 'task_type', c.task_type,
      'scope_id', v ->> 'scope_id',
      'available_tokens', c.subscription_tokens + c.purchased_tokens + c.promotional_tokens - c.total_reserved_tokens
        + case when c.reason is null then c.estimated_tokens else 0 end,
      'account_age_days', floor(date_part('epoch', c.created_at - v_account.created_at) / 86400))),
    case when c.reason is null then c.estimated_tokens else 0 end, plan.daily_limit,
    c.day_ends_at, plan.monthly_limit, c.month_ends_at, c.subscription_tokens, c.purchased_tokens,
    c.promotional_tokens, c.total_reserved_tokens, c.debt_tokens, c.status, c.ended_at,
    case when c.status = 'settled' then (c.ended_at at time zone v_account.timezone)::date end,
    case c.status when 'released' then 'provider_error' end,
    case when c.status = 'settled' then c.requested_model end, c.provider, c.input_tokens, c.output_tokens,
    c.input_tokens + c.output_tokens,
    case when c.status = 'settled' then greatest(c.estimated_tokens - c.input_tokens - c.output_tokens, 0)
      when c.reason is null then c.estimated_tokens end,
    case when c.status = 'settled' then 0 end, c.cost_micros,
    case when c.status = 'settled' then v_config.currency end, c.transaction_id, c.end_subscription_tokens,
    c.end_purchased_tokens, c.end_promotional_tokens, c.end_reserved_tokens, c.end_debt_tokens, v_xid
  from calls c
  join governance.plans plan on plan.plan_id = v_account.plan_id
  left join lateral (
    select r.version_id, coalesce(r.action -> 'block' ->> 'message', r.action -> 'deflect' ->> 'message') as message
    from governance.rules r
    where r.retired_at is null and r.mode = 'enforce' and r.is_active
      and (r.action -> 'block' ->> 'reason' = c.reason or (c.reason = 'off_topic' and r.action ? 'deflect'))
    order by r.priority, r.rule_name limit 1) rule on c.reason is not null
  order by c.decision_id;

  -- Into the books of payments, where there is one.
  perform governance.adopt_purchases() where exists (select from jsonb_array_elements(v -> 'lots') l where l ->> 'stripe_charge_id' is not null);

  -- Days of the past are added to: one that was closed meanwhile is added up again, as after an import.
  delete from governance.usage_days u
  where u.day in (select d.day from governance.usage_daily d where d.account_id = v_account.account_id);

  -- What governance.follow_events does for what happens live.
  perform governance.add_to_totals(array(select c
    from governance.count_calls_of(v_account.account_id, '-infinity', 'infinity', 0) c), governance.now());
  perform governance.add_named_usage(0, 9223372036854775807, v_account.account_id);
  perform governance.add_savings(0, 9223372036854775807, v_account.account_id);
  insert into governance.rule_matches as m (slot, version_id, matches)
  select date_bin('5 minutes', r.created_at, '2000-01-01'), x.version_id, count(*)
  from governance.requests r cross join unnest(r.matched_version_ids) x (version_id)
  where r.account_id = v_account.account_id and r.created_at > v_recent group by 1, 2
  on conflict (slot, version_id) do update set matches = m.matches + excluded.matches;
  perform governance.copy_to_listings(array[v_account.account_id]);

  insert into governance.audit_log (created_at, operator, action, account_id, reason, details)
  select m.at, 'sample', m.action, v_account.account_id, m.reason, '{"sample_data": true}'
  from (values (v_account.flagged_at, 'flag_user', v_account.flag_reason), (v_account.blocked_at, 'block_user', v_account.block_reason)) m (at, action, reason)
  where m.at is not null
  order by m.at;
end $load$;`;
