-- The schema. Everything lives in schema governance, which no API exposes; the functions in schema public are the only
-- way in. supabase/CONVENTIONS.md lists the invariants that every writer keeps.
create schema governance;

comment on schema governance is
  'What AI usage costs, who may spend it, and the proof. Not exposed: use the functions in schema public.';

revoke all on schema governance from public;

alter default privileges in schema governance revoke all on functions from public;

-- One order of ids for decisions, ledger entries and hold events: the feed merges them by id.
create sequence governance.event_ids as bigint;

create function governance.refuse_change() returns trigger
  language plpgsql set search_path = '' as $$
begin
  raise exception using errcode = 'PT403', hint = 'append_only',
    message = format('%s is append-only: a correction is a new entry', tg_table_name);
end
$$;
comment on function governance.refuse_change() is 'Keeps a table append-only, also against the owner of the tables.';
