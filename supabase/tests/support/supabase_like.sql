-- What a new Supabase project already has, on a plain PostgreSQL: run as superuser, once a database.
do $$
declare
  v_role text;
begin
  perform pg_advisory_xact_lock(7254001);
  foreach v_role in array array['anon', 'authenticated', 'service_role', 'authenticator', 'project_owner'] loop
    if not exists (select from pg_catalog.pg_roles where rolname = v_role) then
      execute format('create role %I nologin noinherit', v_role);
    end if;
  end loop;
  alter role service_role bypassrls;
  alter role authenticator login;
  alter role project_owner login inherit createrole;
  grant anon, authenticated, service_role to authenticator;
  grant anon, authenticated, service_role to project_owner;
  execute format('alter database %I owner to project_owner', current_database());
  alter schema public owner to project_owner;
end
$$;
grant usage on schema public to anon, authenticated, service_role;
create schema if not exists extensions authorization project_owner;
grant usage on schema extensions to anon, authenticated, service_role;
create extension if not exists pg_trgm schema extensions;
create extension if not exists pgcrypto schema extensions;
alter default privileges for role project_owner in schema public grant all on tables to anon, authenticated, service_role;
alter default privileges for role project_owner in schema public grant all on functions to anon, authenticated, service_role;
alter default privileges for role project_owner in schema public grant all on sequences to anon, authenticated, service_role;
