-- What a new Supabase project already has, for a plain PostgreSQL or PGlite: its API roles, a non-superuser owner
-- who applies the migrations, the extensions' own schema, the realtime publication, auth's helpers, and the
-- default privileges that grant everything new in `public` to all three API roles.
-- Run as superuser, once a database; safe to run again. The tests use this same file.
do $$
declare
  v_role text;
  v_extension text;
begin
  perform pg_catalog.pg_advisory_xact_lock(7254001);
  foreach v_role in array array['anon', 'authenticated', 'service_role', 'authenticator', 'project_owner'] loop
    if not exists (select from pg_catalog.pg_roles where rolname = v_role) then
      execute pg_catalog.format('create role %I nologin noinherit', v_role);
    end if;
  end loop;
  alter role service_role bypassrls;
  alter role authenticator login;
  alter role project_owner login inherit createrole;
  grant anon, authenticated, service_role to authenticator;
  grant anon, authenticated, service_role to project_owner;
  execute pg_catalog.format('alter database %I owner to project_owner', pg_catalog.current_database());
  alter schema public owner to project_owner;
  create schema if not exists extensions authorization project_owner;
  foreach v_extension in array array['pg_trgm', 'pgcrypto'] loop
    if exists (select from pg_catalog.pg_available_extensions where name = v_extension) then
      execute pg_catalog.format('create extension if not exists %I schema extensions', v_extension);
    end if;
  end loop;
  if not exists (select from pg_catalog.pg_publication where pubname = 'supabase_realtime') then
    create publication supabase_realtime;
    alter publication supabase_realtime owner to project_owner;
  end if;
end
$$;

grant usage on schema public, extensions to anon, authenticated, service_role;
alter default privileges for role project_owner in schema public grant all on tables to anon, authenticated, service_role;
alter default privileges for role project_owner in schema public grant all on functions to anon, authenticated, service_role;
alter default privileges for role project_owner in schema public grant all on sequences to anon, authenticated, service_role;

create schema if not exists auth authorization project_owner;
grant usage on schema auth to anon, authenticated, service_role;

create or replace function auth.jwt() returns jsonb
language sql stable set search_path = ''
as $$ select nullif(pg_catalog.current_setting('request.jwt.claims', true), '')::jsonb $$;

create or replace function auth.uid() returns uuid
language sql stable set search_path = ''
as $$ select (auth.jwt() ->> 'sub')::uuid $$;

create or replace function auth.role() returns text
language sql stable set search_path = ''
as $$ select auth.jwt() ->> 'role' $$;
