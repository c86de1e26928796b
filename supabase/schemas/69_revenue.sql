-- Revenue by day: what was sold, given back and recognised, and what is deferred. Counted from the ledger as it grows,
-- so that any range is a sum of days and never a walk through the ledger.

create table governance.lot_positions (
  lot_id bigint primary key,
  -- As of the last entry that was counted: tokens in the lot, and given back of it in all.
  tokens bigint not null,
  given_back_tokens bigint not null,
  -- Their money, by the price of the lot as it was then.
  amount_minor bigint not null,
  deferred_minor bigint not null,
  given_back_minor bigint not null
) with (fillfactor = 70);

comment on table governance.lot_positions is 'How far each paid lot is counted in revenue_days.';

create table governance.revenue_days (
  -- Of UTC.
  day date not null,
  kind text not null,
  currency text not null,
  sold_minor bigint not null,
  given_back_minor bigint not null,
  recognised_minor bigint not null,
  deferred_change_minor bigint not null,
  primary key (day, kind, currency)
) with (fillfactor = 70);

comment on table governance.revenue_days is
  'Money of paid lots by day: sold = given back + recognised + what deferred revenue changed by.';

create table governance.revenue_rates (
  -- Of UTC: from this day on, so much more (or less) is recognised a day.
  day date not null,
  kind text not null,
  currency text not null,
  change_minor bigint not null,
  primary key (day, kind, currency)
) with (fillfactor = 70);

comment on table governance.revenue_rates is
  'Money of paid periods (governance.paid_periods) that is recognised by days, as changes of the daily amount: '
  'revenue_days has what they sold and gave back, and the days that were over when they were counted.';

create function governance.rate_changes(p_net bigint, p_first date, p_days int, p_after date)
  returns table (day date, change_minor bigint)
  language sql immutable set search_path = '' as $$
  select x.day, x.change from (values
    (greatest(p_first, p_after + 1), p_net / p_days),
    (greatest(p_first + (p_days - p_net % p_days)::int, p_after + 1), (p_net % p_days > 0)::int::bigint),
    (p_first + p_days, -(p_net / p_days) - (p_net % p_days > 0)::int)) x(day, change)
  where x.change <> 0 and p_after + 1 < p_first + p_days
$$;
comment on function governance.rate_changes(bigint, date, int, date) is
  'The days after one on which governance.recognised_minor grows, as changes of the daily amount.';

create function governance.rates_moved(p_net bigint, p_old_net bigint, p_first date, p_days int, p_day date)
  returns table (day date, change_minor bigint)
  language sql immutable set search_path = '' as $$
  select x.day, x.change_minor from governance.rate_changes(p_net, p_first, p_days, p_day) x
  union all
  select x.day, -x.change_minor from governance.rate_changes(p_old_net, p_first, p_days, p_day) x
$$;
comment on function governance.rates_moved(bigint, bigint, date, int, date) is
  'How the daily amounts after a day change when the money of a paid period does; nothing for other lots.';

create function governance.lot_moves(p_after bigint, p_upto bigint)
  returns table (lot_id bigint, day date, kind text, currency text, is_last boolean, tokens bigint,
    given_back_tokens bigint, amount_minor bigint, deferred_minor bigint, given_back_minor bigint, sold bigint,
    given_back bigint, deferred_change bigint, first_day date, days int, old_net_minor bigint)
  language sql stable set search_path = '' as $$
  with moves as (
    select t.lot_changes[n * 2 - 1] as lot_id, (t.created_at at time zone 'UTC')::date as day,
      sum(t.lot_changes[n * 2] + case when t.transaction_type = 'subscription_grant'
        then coalesce((t.metadata ->> 'tokens_left')::bigint, 0) else 0 end)::bigint as tokens,
      -- As console_token_roll_forward: refunds and clawbacks less what came back.
      coalesce(-sum(t.lot_changes[n * 2]) filter (where t.transaction_type in ('refund', 'reversal')),
        0)::bigint as given
    from governance.token_transactions t cross join lateral generate_series(1, cardinality(t.lot_changes) / 2) n
    where t.transaction_id > p_after and t.transaction_id <= p_upto
      -- An allowance that was there before it was paid counts from then on, with the tokens it still had.
      and t.transaction_id >= coalesce((select min(r.transaction_id) from governance.purchase_records r
        where r.lot_id = t.lot_changes[n * 2 - 1] and r.record_type = 'grant'), 0)
      and not exists (select from governance.paid_periods y where y.lot_id = t.lot_changes[n * 2 - 1])
    group by 1, 2
    union all
    -- A paid period moves with its money alone.
    select r.lot_id, (r.created_at at time zone 'UTC')::date, 0,
      ((array_agg(r.taken_back_tokens order by r.transaction_id desc))[1])::bigint
    from governance.purchase_records r join governance.paid_periods y using (lot_id)
    where r.transaction_id > p_after and r.transaction_id <= p_upto
    group by 1, 2
  ), placed as (
    select m.lot_id, m.day, l.kind, l.currency, l.amount_minor, p.amount_minor as old_amount,
      -- As console_token_roll_forward: what was bought, corrections included.
      coalesce((select sum(r.tokens)::bigint from governance.purchase_records r
        where r.lot_id = m.lot_id and r.record_type in ('grant', 'adjustment') and r.transaction_id <= p_upto
          and r.created_at < (m.day + 1)::timestamp at time zone 'UTC'), l.granted) as bought,
      p.deferred_minor as old_deferred, p.given_back_minor as old_given, y.first_day, y.days,
      (coalesce(p.tokens, 0) + sum(m.tokens) over w)::bigint as tokens,
      case when y.days is null then coalesce(p.given_back_tokens, 0) + sum(m.given) over w
        else m.given end::bigint as given,
      row_number() over w as place, m.day = max(m.day) over (partition by m.lot_id) as is_last
    from moves m join governance.lots l using (lot_id)
    left join governance.lot_positions p using (lot_id)
    left join governance.paid_periods y using (lot_id)
    where l.amount_minor is not null and l.currency is not null
    window w as (partition by m.lot_id order by m.day)
  ), given as (
    select x.*, governance.part_of(x.amount_minor, x.given, x.bought) as given_minor
    from placed x
  ), valued as (
    select x.*, case when x.days is null
        then governance.part_of(x.amount_minor, x.tokens, x.bought)
        else x.amount_minor - x.given_minor
          - governance.recognised_minor(x.amount_minor - x.given_minor, x.first_day, x.days, x.day) end as deferred,
      coalesce(lag(x.given_minor) over w, x.old_given, 0) as was_given,
      case when x.place = 1 then coalesce(x.old_amount - x.old_given, 0)
        else x.amount_minor - lag(x.given_minor) over w end as old_net
    from given x window w as (partition by x.lot_id order by x.day)
  )
  select v.lot_id, v.day, v.kind, v.currency, v.is_last, v.tokens, v.given, v.amount_minor, v.deferred, v.given_minor,
    case when v.place = 1 then v.amount_minor - coalesce(v.old_amount, 0) else 0 end,
    v.given_minor - v.was_given,
    v.deferred - case when v.days is null then coalesce(lag(v.deferred) over w, v.old_deferred, 0)
      -- Revenue that is recognised by days until now is in revenue_rates.
      else v.old_net - governance.recognised_minor(v.old_net, v.first_day, v.days, v.day) end,
    v.first_day, v.days, v.old_net
  from valued v window w as (partition by v.lot_id order by v.day)
$$;
comment on function governance.lot_moves(bigint, bigint) is
  'Changes of paid lots by the entries with ids after the first and up to the second, by lot and day, in tokens and '
  'money, from where lot_positions left them.';

create function governance.count_revenue(p_limit int default 20000) returns int
  language plpgsql set search_path = '' set jit = off as $$
declare
  v_state jsonb;
  v_after bigint;
  v_upto bigint;
  v_count int;
begin
  select s.value into v_state from governance.maintenance_state s where s.key = 'counted_revenue'
    for update skip locked;
  if v_state is null then return 0; end if;
  v_after := (v_state ->> 'consumed')::bigint;
  select max(x.transaction_id), count(*) into v_upto, v_count from (
    select t.transaction_id from governance.token_transactions t
    where t.transaction_id > v_after
      -- No entry up to there can still come.
      and t.transaction_id <= (select (s.value ->> 'consumed')::bigint from governance.maintenance_state s
        where s.key = 'followed_events')
    order by t.transaction_id limit p_limit) x;
  if v_count = 0 then return 0; end if;
  with moves as materialized (
    select * from governance.lot_moves(v_after, v_upto)
  ), positions as (
    insert into governance.lot_positions as p (lot_id, tokens, given_back_tokens, amount_minor, deferred_minor,
      given_back_minor)
    select m.lot_id, m.tokens, m.given_back_tokens, m.amount_minor, m.deferred_minor, m.given_back_minor
    from moves m where m.is_last
    on conflict (lot_id) do update set tokens = excluded.tokens, given_back_tokens = excluded.given_back_tokens,
      amount_minor = excluded.amount_minor, deferred_minor = excluded.deferred_minor,
      given_back_minor = excluded.given_back_minor
  ), rates as (
    insert into governance.revenue_rates as r (day, kind, currency, change_minor)
    select c.day, m.kind, m.currency, sum(c.change_minor) from moves m
      cross join lateral governance.rates_moved(m.amount_minor - m.given_back_minor, m.old_net_minor, m.first_day,
        m.days, m.day) c
    group by 1, 2, 3
    on conflict (day, kind, currency) do update set change_minor = r.change_minor + excluded.change_minor
  )
  insert into governance.revenue_days as d (day, kind, currency, sold_minor, given_back_minor, recognised_minor,
    deferred_change_minor)
  select m.day, m.kind, m.currency, sum(m.sold), sum(m.given_back), sum(m.sold - m.given_back - m.deferred_change),
    sum(m.deferred_change)
  from moves m group by 1, 2, 3
  on conflict (day, kind, currency) do update set sold_minor = d.sold_minor + excluded.sold_minor,
    given_back_minor = d.given_back_minor + excluded.given_back_minor,
    recognised_minor = d.recognised_minor + excluded.recognised_minor,
    deferred_change_minor = d.deferred_change_minor + excluded.deferred_change_minor;
  update governance.maintenance_state s set value = jsonb_build_object('consumed', v_upto),
    updated_at = clock_timestamp() where s.key = 'counted_revenue';
  return v_count;
end
$$;
comment on function governance.count_revenue(int) is
  'Counts the next entries of the ledger into revenue_days; returns how many. A second one that runs at the '
  'same time ends at once.';

create function public.console_revenue(p_from date, p_to date, p_step text default 'month') returns jsonb
  language plpgsql security definer set search_path = '' set jit = off as $$
declare
  v_answer jsonb;
begin
  perform governance.refuse_others('console_revenue');
  perform governance.check_days(p_from, p_to, p_step);
  if current_setting('transaction_read_only') = 'off' then
    perform governance.count_revenue();
  end if;
  with uncounted as materialized (
    select m.* from governance.lot_moves((select (s.value ->> 'consumed')::bigint from governance.maintenance_state s
      where s.key = 'counted_revenue'), 9223372036854775807) m
  ), rates as (
    -- All before the range as one day before it.
    select greatest(r.day, p_from - 1) as day, r.kind, r.currency, r.day as since, r.change_minor
    from (select r.day, r.kind, r.currency, r.change_minor from governance.revenue_rates r
      union all
      select c.day, m.kind, m.currency, c.change_minor from uncounted m
        cross join lateral governance.rates_moved(m.amount_minor - m.given_back_minor, m.old_net_minor, m.first_day,
          m.days, m.day) c) r
    where r.day <= p_to
  ), daily as (
    select k.kind, k.currency, g.day::date as day, sum(coalesce(c.change_minor, 0)) over (partition by k.kind,
      k.currency order by g.day) as amount
    from (select distinct r.kind, r.currency from rates r) k
      cross join generate_series(p_from - 1, p_to, interval '1 day') g(day)
      left join (select r.day, r.kind, r.currency, sum(r.change_minor) as change_minor from rates r group by 1, 2, 3) c
        on c.day = g.day::date and c.kind = k.kind and c.currency = k.currency
  ), days as materialized (
    select d.* from governance.revenue_days d where d.day <= p_to
    union all
    -- Entries booked since the last count.
    select m.day, m.kind, m.currency, m.sold, m.given_back, m.sold - m.given_back - m.deferred_change,
      m.deferred_change
    from uncounted m where m.day <= p_to
    union all
    select d.day, d.kind, d.currency, 0, 0, d.amount, -d.amount from daily d where d.day >= p_from and d.amount <> 0
    union all
    select p_from - 1, x.kind, x.currency, 0, 0, x.amount, -x.amount
    from (select r.kind, r.currency, sum(r.change_minor * (p_from - r.since)) as amount from rates r
      where r.since < p_from group by 1, 2) x
  )
  select jsonb_build_object('from', p_from, 'to', p_to, 'step', p_step,
    'lines', (select coalesce(jsonb_agg(to_jsonb(l) order by l.currency, l.kind), '[]') from (
      select d.currency, d.kind,
        coalesce(sum(d.deferred_change_minor) filter (where d.day < p_from), 0) as opening_deferred_minor,
        coalesce(sum(d.sold_minor) filter (where d.day >= p_from), 0) as sold_minor,
        coalesce(sum(d.given_back_minor) filter (where d.day >= p_from), 0) as given_back_minor,
        coalesce(sum(d.recognised_minor) filter (where d.day >= p_from), 0) as recognised_minor,
        coalesce(sum(d.deferred_change_minor), 0) as closing_deferred_minor
      from days d group by 1, 2) l),
    'periods', (select coalesce(jsonb_agg(jsonb_build_object('from', greatest(x.first, p_from),
        'to', least(x.next - 1, p_to), 'currency', x.currency, 'sold_minor', x.sold, 'given_back_minor', x.given_back,
        'recognised_minor', x.recognised) order by x.first, x.currency), '[]')
      from (select date_trunc(p_step, d.day::timestamp)::date as first,
          (date_trunc(p_step, d.day::timestamp) + ('1 ' || p_step)::interval)::date as next, d.currency,
          sum(d.sold_minor) as sold, sum(d.given_back_minor) as given_back, sum(d.recognised_minor) as recognised
        from days d where d.day >= p_from group by 1, 2, 3) x))
  into v_answer;
  return v_answer;
end
$$;
comment on function public.console_revenue(date, date, text) is
  'Money of paid tokens from p_from to p_to, days of UTC, both included, in minor units, by currency and kind: '
  'deferred revenue at the beginning, sold, given back, recognised (used or expired; of a year paid in advance the '
  'days that passed), deferred at the end; and by day, week (from Monday) or month. Errors: invalid_argument.';
revoke all on function public.console_revenue(date, date, text) from public, anon, authenticated;
grant execute on function public.console_revenue(date, date, text) to service_role;
