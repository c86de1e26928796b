-- Whether a purchase may begin.

create table governance.checkouts (
  checkout_id bigint generated always as identity primary key,
  account_id bigint not null references governance.accounts (account_id),
  pack_id text not null,
  opened_at timestamptz not null,
  closed_at timestamptz
);

create index checkouts_account on governance.checkouts (account_id, opened_at desc);

comment on table governance.checkouts is 'Checkouts that were allowed to begin: for the cooldown and the limit of open '
  'ones.';

create function public.begin_checkout(p_user_id text, p_pack_id text) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_account governance.accounts;
  v_plan governance.plans;
  v_pack governance.packs;
  v_now timestamptz;
  v_cooldown bigint;
  v_limit bigint;
  v_minutes bigint;
  v_last timestamptz;
  v_open int;
  v_oldest timestamptz;
  v_reason text;
  v_retry numeric;
  v_checkout_id bigint;
begin
  perform governance.refuse_others('begin_checkout');
  perform governance.check_id('p_user_id', p_user_id);
  perform governance.check_id('p_pack_id', p_pack_id);
  v_account := governance.lock_account(p_user_id);
  v_now := governance.now();
  select * into v_pack from governance.packs p
    where p.pack_id = p_pack_id and p.retired_at is null and p.effective_from <= v_now
  order by p.effective_from desc limit 1;
  if v_pack.pack_id is null then
    perform governance.fail('PT404', 'unknown_pack', format('There is no pack "%s" on sale', left(p_pack_id, 64)));
  end if;
  select * into strict v_plan from governance.plans p where p.plan_id = v_account.plan_id;
  v_cooldown := governance.setting_number('purchase_cooldown_seconds', 10);
  v_limit := governance.setting_number('open_checkout_limit', 3);
  v_minutes := governance.setting_number('open_checkout_minutes', 60);
  select max(c.opened_at),
    count(*) filter (where c.closed_at is null
    and c.opened_at > v_now - least(v_minutes, 525600) * interval '1 minute'),
    min(c.opened_at) filter (where c.closed_at is null
      and c.opened_at > v_now - least(v_minutes, 525600) * interval '1 minute')
  into v_last, v_open, v_oldest
  from governance.checkouts c where c.account_id = v_account.account_id;
  if v_account.blocked_at is not null and (v_account.blocked_until is null or v_account.blocked_until > v_now) then
    v_reason := 'user_blocked';
    v_retry := extract(epoch from v_account.blocked_until - v_now);
  elsif not (case when v_pack.plans is null then v_plan.allows_top_up else v_account.plan_id = any (v_pack.plans) end)
    then
    v_reason := 'plan_not_allowed';
  elsif v_last > v_now - least(v_cooldown, 31536000) * interval '1 second' then
    v_reason := 'cooldown';
    v_retry := extract(epoch from v_last - v_now) + v_cooldown;
  elsif v_open >= v_limit then
    v_reason := 'too_many_open_checkouts';
    v_retry := extract(epoch from v_oldest - v_now) + v_minutes * 60;
  else
    insert into governance.checkouts (account_id, pack_id, opened_at) values (v_account.account_id, p_pack_id, v_now)
    returning checkout_id into v_checkout_id;
  end if;
  return jsonb_build_object('allowed', v_reason is null, 'reason', v_reason, 'retry_after_seconds', case
    when v_retry is not null then greatest(ceil(v_retry), 1)::bigint end,
    'message', governance.say('checkout.' || v_reason, governance.user_language(v_account)),
    'pack', jsonb_build_object('pack_id', v_pack.pack_id, 'tokens', v_pack.tokens, 'price_minor', v_pack.price_minor,
      'currency', v_pack.currency), 'checkout_id', v_checkout_id);
end
$$;
comment on function public.begin_checkout(text, text) is
  'Whether a user may begin to buy a pack now: plan, block, cooldown (setting purchase_cooldown_seconds), open '
  'checkouts (open_checkout_limit within open_checkout_minutes); message is the text for the user. Allowed ones '
  'count; cancel_checkout takes one back. Errors: invalid_argument, unknown_user, unknown_pack.';
revoke all on function public.begin_checkout(text, text) from public, anon, authenticated;
grant execute on function public.begin_checkout(text, text) to service_role;

create function public.cancel_checkout(p_checkout_id bigint) returns jsonb
  language plpgsql security definer set search_path = '' as $$
begin
  perform governance.refuse_others('cancel_checkout');
  if p_checkout_id is null then
    perform governance.fail('PT400', 'invalid_argument', 'p_checkout_id is missing');
  end if;
  delete from governance.checkouts c where c.checkout_id = p_checkout_id and c.closed_at is null;
  return jsonb_build_object('cancelled', found);
end
$$;
comment on function public.cancel_checkout(bigint) is
  'Takes back a checkout that begin_checkout allowed and for which Stripe made no payment page: it no longer counts '
  'for the cooldown and the limit of open ones. Safe to repeat; one that was paid or has expired stays. Errors: '
  'invalid_argument.';
revoke all on function public.cancel_checkout(bigint) from public, anon, authenticated;
grant execute on function public.cancel_checkout(bigint) to service_role;
