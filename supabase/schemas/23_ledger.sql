-- The ledger: append-only, one hash chain for each account.

create table governance.token_transactions (
  transaction_id bigint primary key default nextval('governance.event_ids'),
  account_id bigint not null,
  created_at timestamptz not null,
  -- purchase, usage, refund, adjustment, bonus, subscription_grant, expiry, reversal, debt_recovery
  transaction_type text not null,
  amount bigint not null,
  previous_balance bigint not null,
  new_balance bigint not null,
  debt_after bigint not null,
  -- Pairs lot_id, tokens: what this entry put into lots and took out of them. The tokens add up to amount.
  lot_changes bigint[] not null,
  -- Its cause: the request of a usage, the idempotency key, charge or dispute of anything else.
  reference text,
  -- The decision that a usage settles.
  decision_id bigint,
  description text,
  metadata jsonb,
  -- SHA-256 over the entry before it and this one: see governance.entry_hash.
  previous_hash bytea,
  hash bytea not null,
  -- No checks: a check is read again at every insert, and the chain and public.verify_ledger prove more.
  xid xid8 not null default pg_current_xact_id()
);

create index token_transactions_account on governance.token_transactions (account_id, transaction_id);

create index token_transactions_unusual on governance.token_transactions (account_id, created_at)
  where transaction_type <> 'usage';

comment on table governance.token_transactions is 'The ledger: append-only for every role, one hash chain an account.';

create function governance.entry_payload(
  p_transaction_id bigint, p_created_at timestamptz, p_type text, p_amount bigint, p_previous_balance bigint,
    p_new_balance bigint,
  p_debt_after bigint, p_lot_changes bigint[], p_decision_id bigint, p_user_id text, p_reference text,
    p_description text, p_metadata jsonb
) returns text
  language sql stable as $$
  select concat_ws('|', p_transaction_id, (extract(epoch from p_created_at) * 1000000)::bigint, p_type, p_amount,
    p_previous_balance, p_new_balance,
    p_debt_after, array_to_string(p_lot_changes, ','), coalesce(p_decision_id::text, '-'), octet_length(p_user_id)
      || ':' || p_user_id,
    coalesce(octet_length(p_reference) || ':' || p_reference, '-'),
      coalesce(octet_length(p_description) || ':' || p_description, '-'),
    coalesce(octet_length(p_metadata::text) || ':' || p_metadata::text, '-'))
$$;
comment on function governance.entry_payload(bigint, timestamptz, text, bigint, bigint, bigint, bigint, bigint[],
  bigint, text, text, text, jsonb) is
  'The text of a ledger entry over which its hash is taken: supabase/CONVENTIONS.md has the format.';

create function governance.entry_hash(p_previous_hash bytea, p_payload text) returns bytea
  language sql stable as $$
  select sha256(coalesce(p_previous_hash, ''::bytea) || convert_to(p_payload, 'UTF8'))
$$;
comment on function governance.entry_hash(bytea,
  text) is 'SHA-256 over the hash of the entry before (nothing for the first) and the payload.';

create function governance.append_entry(
  p_account_id bigint, p_type text, p_now timestamptz, p_lot_changes bigint[], p_subscription bigint,
    p_purchased bigint,
  p_promotional bigint, p_debt bigint, p_reference text default null, p_description text default null,
    p_metadata jsonb default null,
  p_decision_id bigint default null
) returns governance.token_transactions
  language plpgsql set search_path = '' as $$
declare
  v_entry governance.token_transactions;
  v_user_id text;
  v_expires_at timestamptz;
begin
  -- The transaction has its number before it draws an id: readers of the feed rely on it.
  v_entry.xid := pg_current_xact_id();
  select a.user_id, a.last_hash, a.subscription_tokens + a.purchased_tokens + a.promotional_tokens,
    a.debt_tokens + p_debt
  into strict v_user_id, v_entry.previous_hash, v_entry.previous_balance, v_entry.debt_after
  from governance.accounts a where a.account_id = p_account_id;
  if governance.seals_lot(p_type, p_lot_changes, p_metadata) then
    select coalesce(p_metadata, '{}') || jsonb_build_object('lot_seal', governance.lot_seal(l)), case
      when p_lot_changes[2] > 0 then l.expires_at end
    into strict p_metadata, v_expires_at
    from governance.lots l where l.lot_id = p_lot_changes[1];
  end if;
  v_entry.transaction_id := nextval('governance.event_ids');
  v_entry.amount := p_subscription + p_purchased + p_promotional;
  v_entry.new_balance := v_entry.previous_balance + v_entry.amount;
  v_entry.hash := governance.entry_hash(v_entry.previous_hash,
    governance.entry_payload(v_entry.transaction_id, p_now, p_type, v_entry.amount,
    v_entry.previous_balance, v_entry.new_balance, v_entry.debt_after, p_lot_changes, p_decision_id, v_user_id,
      p_reference, p_description, p_metadata));
  insert into governance.token_transactions (transaction_id, account_id, created_at, transaction_type, amount,
    previous_balance, new_balance, debt_after,
    lot_changes, reference, decision_id, description, metadata, previous_hash, hash, xid)
  values (v_entry.transaction_id, p_account_id, p_now, p_type, v_entry.amount, v_entry.previous_balance,
    v_entry.new_balance, v_entry.debt_after,
    p_lot_changes, p_reference, p_decision_id, p_description, p_metadata, v_entry.previous_hash, v_entry.hash,
      v_entry.xid)
  returning * into v_entry;
  update governance.accounts a set
    subscription_tokens = a.subscription_tokens + p_subscription, purchased_tokens = a.purchased_tokens + p_purchased,
    promotional_tokens = a.promotional_tokens + p_promotional, debt_tokens = a.debt_tokens + p_debt,
    last_transaction_id = v_entry.transaction_id, last_hash = v_entry.hash,
    -- Tokens that come into a lot expire with it, whatever their source.
    lots_check_at = least(a.lots_check_at, v_expires_at)
  where a.account_id = p_account_id;
  return v_entry;
end
$$;
comment on function governance.append_entry(bigint, text, timestamptz, bigint[], bigint, bigint, bigint, bigint, text,
  text, jsonb, bigint) is
  'Writes one ledger entry and carries it into the account; an entry that does more to a lot than spend it records its '
  'seal. The caller holds the account''s lock and has changed the lots already; amounts are changes by kind.';

create function public.update_user_token_balance(
  p_user_id text, p_amount bigint, p_transaction_type text, p_description text default null,
    p_metadata jsonb default '{}',
  p_idempotency_key text default null, p_expires_at timestamptz default null
) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_account governance.accounts;
  v_now timestamptz;
  v_answer jsonb;
  v_available bigint;
  v_granted governance.granted;
  v_spent governance.lot_spending;
  v_entry governance.token_transactions;
begin
  perform governance.refuse_others('update_user_token_balance');
  perform governance.check_id('p_user_id', p_user_id);
  perform governance.check_optional('p_description', p_description, 2000);
  perform governance.check_metadata('p_metadata', p_metadata);
  if p_idempotency_key is not null then
    perform governance.check_id('p_idempotency_key', p_idempotency_key);
  end if;
  if p_amount is null or p_amount = 0 or p_amount not between -9007199254740991 and 9007199254740991 then
    perform governance.fail('PT400', 'invalid_argument',
      'p_amount is a whole number of tokens, not zero, below 2^53 in size');
  end if;
  if p_transaction_type is null
    or p_transaction_type not in ('purchase', 'usage', 'refund', 'adjustment', 'bonus', 'subscription_grant', 'expiry',
    'reversal') then
    perform governance.fail('PT400', 'invalid_argument',
      'p_transaction_type is one of purchase, usage, refund, adjustment, bonus, subscription_grant, expiry, reversal');
  end if;
  if (p_transaction_type in ('purchase', 'bonus', 'subscription_grant') and p_amount < 0)
    or (p_transaction_type in ('usage', 'expiry') and p_amount > 0) then
    perform governance.fail('PT400', 'invalid_argument',
      format('p_amount of a %s must be %s', p_transaction_type, case when p_amount < 0 then 'positive'
      else 'negative' end));
  end if;
  if p_expires_at is not null
    and (p_amount < 0 or not governance.is_date(p_expires_at) or p_expires_at <= governance.now()) then
    perform governance.fail('PT400', 'invalid_argument',
      'p_expires_at must be a moment in the future, and only tokens that are added have one');
  end if;

  v_account := governance.lock_account(p_user_id);
  if p_idempotency_key is not null then
    v_answer := governance.begin_command('balance', p_idempotency_key,
      row(p_user_id, p_amount, p_transaction_type, p_description, p_metadata, extract(epoch from p_expires_at))::text);
    if v_answer is not null then return v_answer; end if;
  end if;
  v_now := governance.now();
  v_available := v_account.subscription_tokens + v_account.purchased_tokens + v_account.promotional_tokens -
    v_account.reserved_tokens;
  if p_amount > 0 then
    if v_available + v_account.reserved_tokens + p_amount > 9007199254740991 then
      perform governance.fail('PT400', 'invalid_argument', 'The balance would reach 2^53 tokens or more: add fewer');
    end if;
    v_granted := governance.grant_tokens(v_account.account_id,
      case p_transaction_type when 'purchase' then 'purchased' when 'subscription_grant' then 'subscription'
        else 'promotional' end,
      p_amount, p_transaction_type, v_now, p_expires_at, p_idempotency_key, p_description, p_metadata);
    v_answer := jsonb_build_object('transaction_id', v_granted.transaction_id, 'previous_balance',
      v_granted.previous_balance,
      'new_balance', v_granted.new_balance, 'lot_id', v_granted.lot_id, 'debt_recovered', v_granted.debt_recovered);
  else
    if -p_amount > v_available then
      perform governance.fail('PT402', 'insufficient_tokens',
        format('%s tokens are free, %s are needed', governance.with_separators(v_available),
          governance.with_separators(-p_amount)),
        jsonb_build_object('have', v_available, 'need', -p_amount)::text);
    end if;
    v_spent := governance.spend_lots(v_account.account_id, -p_amount);
    v_entry := governance.append_entry(v_account.account_id, p_transaction_type, v_now, v_spent.lot_changes,
      v_spent.subscription,
      v_spent.purchased, v_spent.promotional, 0, p_idempotency_key, p_description, p_metadata);
    v_answer := jsonb_build_object('transaction_id', v_entry.transaction_id, 'previous_balance',
      v_entry.previous_balance, 'new_balance', v_entry.new_balance);
  end if;
  if p_idempotency_key is not null then
    v_answer := governance.end_command('balance', p_idempotency_key, v_answer);
  end if;
  perform governance.ring('accounts', v_now);
  return v_answer;
end
$$;
comment on function public.update_user_token_balance(text, bigint, text, text, jsonb, text, timestamptz) is
  'Adds a lot (purchase: purchased; subscription_grant: subscription; else promotional; debt is paid first) or takes '
  'tokens in spending order, with a ledger entry. Returns transaction_id, previous_balance, new_balance. Errors: '
  'invalid_argument, unknown_user, insufficient_tokens, idempotency_conflict.';
revoke all on function public.update_user_token_balance(text, bigint, text, text, jsonb, text, timestamptz)
  from public, anon, authenticated;
grant execute on function public.update_user_token_balance(text, bigint, text, text, jsonb, text,
  timestamptz) to service_role;

create function public.get_user_token_balance(p_user_id text) returns bigint
  language plpgsql security definer set search_path = '' as $$
declare
  v_account governance.accounts;
begin
  perform governance.refuse_others('get_user_token_balance');
  perform governance.check_id('p_user_id', p_user_id);
  v_account := governance.current_account(p_user_id);
  return v_account.subscription_tokens + v_account.purchased_tokens + v_account.promotional_tokens
    - v_account.reserved_tokens;
end
$$;
comment on function public.get_user_token_balance(text) is 'Tokens that are free to use. Errors: invalid_argument, '
  'unknown_user.';
revoke all on function public.get_user_token_balance(text) from public, anon, authenticated;
grant execute on function public.get_user_token_balance(text) to service_role;

create function public.get_user_transaction_history(p_user_id text, p_limit int default 50,
  p_before_id bigint default null)
  returns table (transaction_id bigint, transaction_type text, amount bigint, previous_balance bigint,
    new_balance bigint,
    description text, metadata jsonb, created_at timestamptz, payload text, hash text)
  language plpgsql stable security definer set search_path = '' as $$
declare
  v_account_id bigint;
begin
  perform governance.refuse_others('get_user_transaction_history');
  perform governance.check_id('p_user_id', p_user_id);
  if p_limit is null or p_limit not between 1 and 1000 then
    perform governance.fail('PT400', 'invalid_argument', 'p_limit is a whole number from 1 to 1000');
  end if;
  v_account_id := governance.account_id_of(p_user_id);
  return query
    select t.transaction_id, t.transaction_type, t.amount, t.previous_balance, t.new_balance, t.description,
      coalesce(t.metadata, '{}') || case when t.transaction_type = 'usage' and t.decision_id is not null
        then jsonb_build_object('request_id', t.reference, 'decision_id', t.decision_id) else '{}' end,
      t.created_at,
      governance.entry_payload(t.transaction_id, t.created_at, t.transaction_type, t.amount, t.previous_balance,
        t.new_balance, t.debt_after,
        t.lot_changes, t.decision_id, p_user_id, t.reference, t.description, t.metadata),
      encode(t.hash, 'hex')
    from governance.token_transactions t
    where t.account_id = v_account_id and t.transaction_id < coalesce(p_before_id, 9223372036854775807)
    order by t.transaction_id desc limit p_limit;
end
$$;
comment on function public.get_user_transaction_history(text, int, bigint) is
  'Ledger entries, newest first; p_before_id is the last transaction_id of the page before. Errors: invalid_argument, '
  'unknown_user.';
revoke all on function public.get_user_transaction_history(text, int, bigint) from public, anon, authenticated;
grant execute on function public.get_user_transaction_history(text, int, bigint) to service_role;

create function public.my_token_history(p_limit int default 50, p_before_id bigint default null) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_account governance.accounts;
  v_entries jsonb;
begin
  if p_limit is null or p_limit not between 1 and 200 then
    perform governance.fail('PT400', 'invalid_argument', 'p_limit is a whole number from 1 to 200');
  end if;
  v_account := governance.my_account();
  -- Descriptions and metadata are the operators' own: not for the user.
  select coalesce(jsonb_agg(to_jsonb(e) order by e.transaction_id desc), '[]') into v_entries from (
    select t.transaction_id, t.transaction_type, t.amount, t.previous_balance, t.new_balance, t.created_at
    from governance.token_transactions t
    where t.account_id = v_account.account_id and t.transaction_id < coalesce(p_before_id, 9223372036854775807)
    order by t.transaction_id desc limit p_limit) e;
  return jsonb_build_object('entries', v_entries, 'next_before_id',
    case when jsonb_array_length(v_entries) = p_limit then v_entries -> -1 -> 'transaction_id' end);
end
$$;
comment on function public.my_token_history(int, bigint) is
  'The signed-in user''s ledger entries, newest first, at most p_limit (1 to 200); next_before_id, where there may be '
  'more, is p_before_id of the next page. Errors: not_signed_in, invalid_argument, not_configured.';
revoke all on function public.my_token_history(int, bigint) from public, anon, authenticated;
grant execute on function public.my_token_history(int, bigint) to authenticated;

create trigger token_transactions_append_only before update or delete or truncate on governance.token_transactions
  for each statement execute function governance.refuse_change();
