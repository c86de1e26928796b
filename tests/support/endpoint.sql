-- Functions of every shape, for the tests of the local project's endpoint.
create schema governance;
create function public.apply_preset(p_preset jsonb) returns jsonb language sql set search_path = '' as $$ select p_preset $$;

create schema fixture;
create table fixture.people (id int generated always as identity primary key, name text not null unique, age int, nick text);
insert into fixture.people (name, age, nick) values ('Ada', 36, null), ('Bob', 20, 'b'), ('Cyd', 70, 'c');

create function public.add(a int, b int) returns int language sql immutable set search_path = '' as $$ select a + b $$;
create function public.greet(p_name text default 'world') returns text language sql stable set search_path = ''
as $$ select 'hello ' || p_name $$;
create function public.nothing() returns void language sql set search_path = '' as $$ select null $$;
create function public.no_text() returns text language sql set search_path = '' as $$ select null::text $$;
create function public.no_json() returns jsonb language sql set search_path = '' as $$ select null::jsonb $$;
create function public.text_length(p_text text) returns int language sql set search_path = '' as $$ select length(p_text) $$;
create function public.echo(p_value jsonb) returns jsonb language sql set search_path = '' as $$ select p_value $$;
create function public.whole(jsonb) returns jsonb language sql set search_path = ''
as $$ select pg_catalog.jsonb_build_object('got', $1) $$;
create function public.total(variadic n int[]) returns bigint language sql set search_path = ''
as $$ select sum(x) from unnest(n) as x $$;
create function public.types(p_at timestamptz, p_ids int[], p_amount numeric, p_flag bool, p_big bigint, p_when date default null)
returns jsonb language sql set search_path = '' as $$
  select pg_catalog.jsonb_build_object('at', p_at at time zone 'UTC', 'ids', p_ids, 'amount', p_amount, 'flag', p_flag, 'big', p_big)
$$;

create function public.people() returns setof fixture.people language sql stable security definer set search_path = ''
as $$ select * from fixture.people $$;
create function public.people_table(p_older_than int default 0) returns table (name text, age int)
language sql stable security definer set search_path = ''
as $$ select p.name, p.age from fixture.people p where p.age > p_older_than order by p.id $$;
create function public.person(p_id int) returns fixture.people language sql stable security definer set search_path = ''
as $$ select p from fixture.people p where p.id = p_id $$;
create function public.numbers(n int) returns setof int language sql immutable set search_path = ''
as $$ select generate_series(1, n) $$;
create function public.out_one(num int, out num_plus_one int) language sql immutable set search_path = ''
as $$ select num + 1 $$;
create function public.out_many(out one int, out two text) language sql immutable set search_path = ''
as $$ select 1, 'two' $$;

create function public.overloaded(a int) returns text language sql immutable set search_path = '' as $$ select 'a' $$;
create function public.overloaded(a int, b int) returns text language sql immutable set search_path = '' as $$ select 'ab' $$;
create function public.ambiguous(a int) returns text language sql immutable set search_path = '' as $$ select 'int' $$;
create function public.ambiguous(a text) returns text language sql immutable set search_path = '' as $$ select 'text' $$;

create function public.add_person(p_name text, p_times int default 1) returns setof fixture.people
language sql security definer set search_path = ''
as $$ insert into fixture.people (name) select p_name || case when i > 1 then i::text else '' end from generate_series(1, p_times) i returning * $$;
create function public.stable_writer(p_name text) returns void language plpgsql stable security definer set search_path = ''
as $$ begin perform public.add_person(p_name); end $$;

create function public.who() returns jsonb language sql set search_path = '' as $$
  select pg_catalog.jsonb_build_object('role', current_user, 'claims', pg_catalog.current_setting('request.jwt.claims', true)::jsonb,
    'method', pg_catalog.current_setting('request.method', true), 'path', pg_catalog.current_setting('request.path', true),
    'read_only', pg_catalog.current_setting('transaction_read_only'))
$$;
create function public.server_only() returns int language sql set search_path = '' as $$ select 1 $$;
revoke execute on function public.server_only() from public, anon, authenticated;

create function public.fail(p_code text, p_message text default 'no', p_detail text default null, p_hint text default null)
returns void language plpgsql set search_path = '' as $$
begin
  if p_detail is null then raise exception using errcode = p_code, message = p_message;
  elsif p_hint is null then raise exception using errcode = p_code, message = p_message, detail = p_detail;
  else raise exception using errcode = p_code, message = p_message, detail = p_detail, hint = p_hint;
  end if;
end $$;
create function public.fail_after_writing(p_name text) returns void language plpgsql security definer set search_path = '' as $$
begin
  perform public.add_person(p_name);
  raise exception 'stop' using errcode = 'PT409';
end $$;
create function public.divide(a int, b int) returns int language sql immutable set search_path = '' as $$ select a / b $$;

-- For realtime: one table that only the service reads, one with row level security, one that is not published.
create table public.wake_ups (topic text primary key, at timestamptz not null default now(), secret text);
create table public.notes (id int primary key, owner text not null, body text);
alter table public.notes enable row level security;
create policy notes_own on public.notes for select to authenticated
  using (owner = (pg_catalog.current_setting('request.jwt.claims', true)::jsonb ->> 'sub'));
create table public.unpublished (id int primary key);
revoke all on public.wake_ups from anon, authenticated;
revoke select on public.wake_ups from service_role;
grant select (topic, at) on public.wake_ups to service_role;
alter publication supabase_realtime add table public.wake_ups, public.notes;
create function public.wake(p_topic text, p_secret text default null) returns void language sql set search_path = '' security definer
as $$ insert into public.wake_ups values (p_topic, now(), p_secret) on conflict (topic) do update set at = clock_timestamp() $$;
create function public.write_note(p_id int, p_owner text, p_body text) returns void language sql set search_path = '' security definer
as $$ insert into public.notes values (p_id, p_owner, p_body) on conflict (id) do update set body = p_body $$;
create function public.delete_note(p_id int) returns void language sql set search_path = '' security definer
as $$ delete from public.notes where id = p_id $$;
create function public.fail_after_waking(p_topic text) returns void language plpgsql security definer set search_path = '' as $$
begin
  perform public.wake(p_topic);
  raise exception 'stop';
end $$;
