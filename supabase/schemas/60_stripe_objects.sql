-- Reading Stripe's JSON.

create function governance.stripe_id(p_value jsonb) returns text
  language plpgsql immutable set search_path = '' as $$
declare
  v_id text;
begin
  if jsonb_typeof(p_value) = 'string' then
    v_id := p_value #>> '{}';
  elsif jsonb_typeof(p_value) = 'object' then
    v_id := p_value ->> 'id';
  end if;
  if length(v_id) between 1 and 255 then return v_id; end if;
  return null;
end
$$;
comment on function governance.stripe_id(jsonb) is 'An id, also out of an expanded object; null for anything else.';

create function governance.stripe_whole(p_value jsonb) returns bigint
  language plpgsql immutable set search_path = '' as $$
declare
  v_number numeric;
begin
  if jsonb_typeof(p_value) = 'number' then
    v_number := p_value::numeric;
    if scale(v_number) = 0 and v_number between -9007199254740991 and 9007199254740991 then return v_number; end if;
  end if;
  return null;
end
$$;
comment on function governance.stripe_whole(jsonb) is 'A whole number below 2^53 in size; null for anything else.';

create function governance.stripe_time(p_value jsonb) returns timestamptz
  language plpgsql immutable set search_path = '' as $$
begin
  -- Of all JSON values only numbers sort between two numbers.
  return case when p_value between '0' and '253402300799' then to_timestamp(p_value::double precision) end;
end
$$;
comment on function governance.stripe_time(jsonb) is 'Seconds since 1970 as a moment; null for anything else.';

create function governance.stripe_object(p_value jsonb) returns jsonb
  language sql immutable set search_path = '' as $$
  select case when jsonb_typeof(p_value) = 'object' then p_value else '{}' end
$$;
comment on function governance.stripe_object(jsonb) is 'The object, or an empty one.';

create function governance.stripe_list(p_value jsonb) returns jsonb
  language sql immutable set search_path = '' as $$
  select case when jsonb_typeof(p_value -> 'data') = 'array' then p_value -> 'data'
    when jsonb_typeof(p_value) = 'array' then p_value else '[]' end
$$;
comment on function governance.stripe_list(jsonb) is 'The items of a Stripe list, or none.';

create function governance.stripe_currency(p_value jsonb) returns text
  language sql immutable set search_path = '' as $$
  select case when jsonb_typeof(p_value) = 'string' and p_value #>> '{}' ~ '^[A-Za-z]{3}$' then lower(p_value #>> '{}')
    end
$$;
comment on function governance.stripe_currency(jsonb) is 'A currency code in lower case; null for anything else.';

create function governance.plain_key(p_key text) returns text
  language sql immutable set search_path = '' as $$ select lower(translate(left(p_key, 100), '_- ', '')) $$;
comment on function governance.plain_key(text) is 'A metadata key without the ways to spell it.';

create function governance.metadata_text(p_metadata jsonb, variadic p_keys text[]) returns text
  language plpgsql immutable set search_path = '' as $$
declare
  v_key text;
  v_found text;
begin
  foreach v_key in array p_keys loop
    v_found := btrim(p_metadata ->> v_key);
    if v_found <> '' then
      if length(v_found) <= 255 then return v_found; end if;
      return null;
    end if;
  end loop;
  -- Keys are typed by hand, so their spelling may differ.
  select btrim(x.value) into v_found
  from jsonb_each_text(governance.stripe_object(p_metadata)) x, unnest(p_keys) with ordinality k(key, n)
  where btrim(x.value) <> '' and governance.plain_key(x.key) = governance.plain_key(k.key) order by k.n, x.key limit 1;
  return case when length(v_found) <= 255 then v_found end;
end
$$;
comment on function governance.metadata_text(jsonb, text[]) is
  'The first of these metadata keys that is filled, as it is spelt here or else in capital letters, with spaces or '
  'dashes.';

create function governance.is_token_order(p_metadata jsonb) returns boolean
  language sql immutable set search_path = '' as $$
  -- Any filled value counts: one that is too long to be a pack waits for a person, and is not passed over.
  select exists (select from jsonb_each_text(governance.stripe_object(p_metadata)) x
      where governance.plain_key(x.key) in ('packid', 'tokens') and btrim(x.value) <> '')
    or coalesce(p_metadata ->> 'type', '') in ('token_pack_purchase', 'token_purchase')
$$;
comment on function governance.is_token_order(jsonb) is 'Whether an order is for tokens at all: a project sells other '
  'things too.';

create function governance.sum_amounts(p_list jsonb) returns bigint
  language sql immutable set search_path = '' as $$
  select coalesce(sum(governance.stripe_whole(x.value -> 'amount')), 0)::bigint
  from jsonb_array_elements(case when jsonb_typeof(p_list) = 'array' then p_list else '[]' end) x
$$;
comment on function governance.sum_amounts(jsonb) is 'The sum of "amount" over a list such as total_discount_amounts.';

create function governance.sum_credits(p_list jsonb) returns bigint
  language sql immutable set search_path = '' as $$
  -- The same list repeats the discounts.
  select governance.sum_amounts(jsonb_path_query_array(p_list, '$[*] ? (@.type == "credit_balance_transaction")'))
$$;
comment on function governance.sum_credits(jsonb) is
  'Billing credits in a list such as total_pretax_credit_amounts: they lower what is to be paid, as a discount does.';

create function governance.released_minor(o jsonb, p_version text) returns bigint
  language sql immutable set search_path = '' as $$
  select case
    -- Not counted where less was refunded than was released. Counted where more was refunded than was captured. Where
    -- both amounts would fit, the charge's own 'refunded' decides.
    when c.refunded < c.released then 0
    when c.refunded > c.captured then c.released
    when o -> 'refunded' = 'true' and c.refunded < c.captured + c.released then 0
    when c.refunded = c.captured and o -> 'refunded' = 'false' then c.released
    when p_version >= '2025-03-31' then 0
    else c.released end
  from (select governance.stripe_whole(o -> 'amount_refunded') as refunded,
    governance.stripe_whole(o -> 'amount_captured') as captured,
    greatest(coalesce(governance.stripe_whole(o -> 'amount') - governance.stripe_whole(o -> 'amount_captured'), 0), 0)
      as released) c
$$;
comment on function governance.released_minor(jsonb, text) is
  'The part of a charge that Stripe counts as refunded although it was only authorised and never captured: before '
  '2025-03-31 Stripe made a refund of it. The version of an event says how it is written, not how its charge was '
  'captured, so it has the last word alone.';

create function governance.paid_by_records(o jsonb) returns bigint
  language sql immutable set search_path = '' as $$
  select coalesce(sum(governance.stripe_whole(x.value -> 'amount_paid')), 0)::bigint
  from jsonb_array_elements(governance.stripe_list(o -> 'payments')) x
  where x.value #>> '{payment,type}' = 'payment_record' and coalesce(x.value ->> 'status', 'paid') = 'paid'
$$;
comment on function governance.paid_by_records(jsonb) is
  'How much of an invoice was paid outside of Stripe, by its list of payments: since 2025-03-31 nothing else in it '
  'shows that.';

create function governance.invoice_tax(o jsonb) returns bigint
  language sql immutable set search_path = '' as $$
  select greatest(coalesce(governance.stripe_whole(o -> 'total') - governance.stripe_whole(o -> 'total_excluding_tax'),
    governance.stripe_whole(o -> 'tax'), governance.sum_amounts(o -> 'total_taxes')
      + governance.sum_amounts(o -> 'total_tax_amounts')), 0)
$$;
comment on function governance.invoice_tax(jsonb) is
  'Tax within an invoice''s total, in the form of any API version.';

create function governance.is_proration(p_line jsonb) returns boolean
  language sql immutable set search_path = '' as $$
  select coalesce('true' in (p_line -> 'proration', p_line #> '{parent,subscription_item_details,proration}',
    p_line #> '{parent,invoice_item_details,proration}'), false)
$$;
comment on function governance.is_proration(jsonb) is
  'Whether an invoice''s line is for a part of a period, in the form of any API version.';

create function governance.is_subscription_line(p_line jsonb) returns boolean
  language sql immutable set search_path = '' as $$
  select coalesce(p_line #>> '{parent,type}' = 'subscription_item_details', false)
    or coalesce(p_line ->> 'type' = 'subscription', false)
    or governance.is_proration(p_line)
    or governance.stripe_id(p_line -> 'subscription') is not null and p_line ->> 'type' is distinct from 'invoiceitem'
$$;
comment on function governance.is_subscription_line(jsonb) is
  'Whether an invoice''s line is for a period of a subscription, or for a part of one; another item on its invoice (a '
  'fee, hours of work) is not.';

create type governance.invoice_share as (booked_minor bigint, collected_minor bigint, covered_minor bigint);

create function governance.apportion(p_total bigint, p_weights bigint[]) returns bigint[]
  language plpgsql immutable set search_path = '' as $$
declare
  v_sum numeric := (select sum(w) from unnest(p_weights) w);
  v_upto numeric := 0;
  v_given bigint := 0;
  v_next bigint;
  v_parts bigint[] := '{}';
  v_weight bigint;
begin
  foreach v_weight in array p_weights loop
    v_upto := v_upto + v_weight;
    v_next := case when v_sum > 0 then trunc(p_total * v_upto / v_sum) else 0 end;
    v_parts := v_parts || (v_next - v_given);
    v_given := v_next;
  end loop;
  return v_parts;
end
$$;
comment on function governance.apportion(bigint, bigint[]) is
  'Splits an amount by weights into whole parts that add up to it; all 0 where the weights are.';

create function governance.invoice_shares(o jsonb) returns governance.invoice_share[]
  language plpgsql immutable set search_path = '' as $$
declare
  v_paid bigint := greatest(coalesce(governance.stripe_whole(o -> 'amount_paid'), 0), 0);
  v_total bigint := coalesce(governance.stripe_whole(o -> 'total'), v_paid);
  v_tax bigint := governance.invoice_tax(o);
  v_is_outside boolean := coalesce(o -> 'paid_out_of_band' = 'true', false);
  v_listed bigint[];
  v_net bigint;
  v_weights bigint[];
  v_booked bigint[];
  v_collected bigint[];
  v_added bigint[];
begin
  select coalesce(array_agg(greatest(l.amount, 0) order by l.n), '{}'), least(coalesce(sum(l.amount - l.discount), 0),
      coalesce(sum(l.amount), 0) - governance.sum_amounts(o -> 'total_discount_amounts')
        - governance.sum_credits(o -> 'total_pretax_credit_amounts')),
    coalesce(array_agg(greatest(l.amount - l.discount, 0) order by l.n), '{}')
  into v_listed, v_net, v_weights
  from (select x.n, coalesce(governance.stripe_whole(x.value -> 'amount'), 0) as amount,
      governance.sum_amounts(x.value -> 'discount_amounts')
        + governance.sum_credits(x.value -> 'pretax_credit_amounts') as discount
    from jsonb_array_elements(governance.stripe_list(o -> 'lines')) with ordinality x(value, n)) l;
  v_collected := governance.apportion(case when v_is_outside then 0
    else greatest(v_paid - governance.paid_by_records(o), 0) end, v_weights);
  v_booked := governance.apportion(case when v_is_outside then greatest(v_total - v_tax, 0)
    -- An amount paid above the total was owed from before.
    when v_total > 0 then least(v_paid, v_total) - trunc(v_tax::numeric * least(v_paid, v_total) / v_total)::bigint
    else 0 end, v_weights);
  -- A line's price, and the tax that is added to it, less what was collected for it: of a line that is free, all of it.
  v_added := governance.apportion(greatest(v_total - v_net, 0), v_weights);
  return array(select row(v_booked[n], v_collected[n],
      greatest(v_listed[n] + v_added[n] - v_collected[n], 0))::governance.invoice_share
    from generate_series(1, cardinality(v_weights)) n order by n);
end
$$;
comment on function governance.invoice_shares(jsonb) is
  'The money that each line of an invoice brought: booked (paid for it, net of tax), collected (through Stripe, tax '
  'included), covered (by a discount, a credit, the customer''s balance or outside of Stripe). A line has its own '
  'discounts and billing credits; all lines share the rest in proportion, so that collected adds up to what Stripe '
  'collected.';

create function governance.invoice_covered_by(o jsonb) returns text
  language sql immutable set search_path = '' as $$
  select nullif(concat_ws(', ',
    case when o -> 'paid_out_of_band' = 'true' or governance.paid_by_records(o) > 0
      then 'paid outside of Stripe' end,
    case when governance.sum_amounts(o -> 'total_discount_amounts') > 0 then 'discount' end,
    case when governance.sum_credits(o -> 'total_pretax_credit_amounts') > 0 then 'billing credits' end,
    case when o -> 'paid_out_of_band' is distinct from 'true'
      and governance.stripe_whole(o -> 'total') > governance.stripe_whole(o -> 'amount_paid')
        + coalesce(governance.stripe_whole(o -> 'pre_payment_credit_notes_amount'), 0)
      then 'customer balance' end,
    case when governance.stripe_whole(o -> 'pre_payment_credit_notes_amount') > 0 then 'credit note' end,
    case when exists (select from jsonb_array_elements(governance.stripe_list(o -> 'lines')) x
      where governance.stripe_whole(x.value -> 'amount') < 0) then 'credit' end,
    case when governance.stripe_whole(o -> 'amount_paid') = 0 and not exists (
      select from jsonb_array_elements(governance.stripe_list(o -> 'lines')) x
      where governance.stripe_whole(x.value -> 'amount') <> 0) then 'trial' end), '')
$$;
comment on function governance.invoice_covered_by(jsonb) is
  'In words, what paid for an invoice beside the payment; null where the payment did.';

create function governance.invoice_order(o jsonb) returns jsonb
  language sql immutable set search_path = '' as $$
  -- A credit note before the payment is a lower price, which is for a person to judge: it is no part of what was sold.
  select o || jsonb_build_object('invoice', o -> 'id', 'amount_sold', d.due, 'total_details', jsonb_strip_nulls(
    jsonb_build_object('amount_tax', governance.invoice_tax(o), 'amount_discount',
        governance.sum_amounts(o -> 'total_discount_amounts')
          + governance.sum_credits(o -> 'total_pretax_credit_amounts'),
      'amount_outside', nullif(case when d.is_outside then d.due else governance.paid_by_records(o) end, 0),
      'amount_balance', nullif(case when not d.is_outside then d.due - d.paid end, 0),
      'covered_by', governance.invoice_covered_by(o))))
  from (select governance.stripe_whole(o -> 'amount_paid') as paid,
    coalesce(o -> 'paid_out_of_band' = 'true', false) as is_outside,
    coalesce(governance.stripe_whole(o -> 'total') - coalesce(governance.stripe_whole(
      o -> 'pre_payment_credit_notes_amount'), 0), governance.stripe_whole(o -> 'amount_paid')) as due) d
$$;
comment on function governance.invoice_order(jsonb) is
  'A single invoice as an order, in a Checkout Session''s words: amount_sold, and in total_details what was paid '
  'outside of Stripe (amount_outside) and from the customer''s balance (amount_balance, below zero for what was owed '
  'from before).';

create function governance.invoice_time(o jsonb) returns timestamptz
  language sql immutable set search_path = '' as $$
  select coalesce(governance.stripe_time(o #> '{status_transitions,finalized_at}'),
    governance.stripe_time(o -> 'created'))
$$;
comment on function governance.invoice_time(jsonb) is
  'The moment from which an invoice has its subscription''s metadata and prices.';

create function governance.price_object(p_item jsonb) returns jsonb
  language sql immutable set search_path = '' as $$
  select case when jsonb_typeof(p_item -> 'price') = 'object' then p_item -> 'price'
    else governance.stripe_object(p_item #> '{pricing,price_details,price}') end
$$;
comment on function governance.price_object(jsonb) is
  'The price within a subscription item or invoice line, where it is more than an id: from 2025-03-31 a line has it '
  'in pricing, expanded; or an empty object.';

create function governance.pack_of_lines(o jsonb) returns jsonb
  language sql immutable set search_path = '' as $$
  select coalesce((select m.metadata
    from jsonb_array_elements(governance.stripe_list(o -> 'lines')) with ordinality x(value, n)
    cross join lateral (select governance.stripe_object(governance.price_object(x.value) -> 'metadata')
      || governance.stripe_object(x.value -> 'metadata')) m(metadata)
    where governance.metadata_text(m.metadata, 'pack_id', 'packId', 'packid') is not null order by x.n limit 1), '{}')
$$;
comment on function governance.pack_of_lines(jsonb) is
  'The metadata of the first line of an invoice that names a pack, its price''s included; or nothing.';

create function governance.lock_stripe_ids(p_one text, p_two text default null, p_three text default null,
  p_four text default null) returns void
  language plpgsql set search_path = '' as $$
declare
  v_first bigint := hashtextextended(coalesce(p_one, p_two, p_three, p_four), 7255);
  v_last bigint := hashtextextended(coalesce(p_four, p_three, p_two, p_one), 7255);
begin
  -- In one order for everybody, and before any account's lock.
  if num_nonnulls(p_one, p_two, p_three, p_four) < 3 then
    perform pg_advisory_xact_lock(least(v_first, v_last)), pg_advisory_xact_lock(greatest(v_first, v_last));
  else
    perform pg_advisory_xact_lock(k.key)
    from (select distinct hashtextextended(i.id, 7255) as key from unnest(array[p_one, p_two, p_three, p_four]) i(id)
      where i.id is not null order by 1) k;
  end if;
end
$$;
comment on function governance.lock_stripe_ids(text, text, text, text) is
  'Lets one transaction at a time work on the payments, prices or subscriptions that these ids of Stripe''s name.';
