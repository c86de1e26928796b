-- What the local project's realtime endpoint hears: each committed change of a table in the publication
-- `supabase_realtime`, as a notification. Made by the endpoint, in a schema of its own, never by a migration;
-- a real Supabase project reads the write-ahead log instead. Safe to run again.
create schema if not exists local_realtime;

create or replace function local_realtime.notify_change() returns trigger
language plpgsql set search_path = ''
as $$
declare
  v_change jsonb := pg_catalog.jsonb_build_object(
    'schema', tg_table_schema, 'table', tg_table_name, 'type', tg_op,
    'commit_timestamp', pg_catalog.to_char(pg_catalog.now() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'));
  v_rows jsonb := '{}';
begin
  if tg_op <> 'DELETE' then
    v_rows := v_rows || pg_catalog.jsonb_build_object('record', pg_catalog.to_jsonb(new));
  end if;
  if tg_op <> 'INSERT' then
    v_rows := v_rows || pg_catalog.jsonb_build_object('old_record', pg_catalog.to_jsonb(old));
  end if;
  -- A notification holds less than 8000 bytes.
  if pg_catalog.octet_length((v_change || v_rows)::text) > 7900 then
    v_rows := '{"too_large": true}';
  end if;
  perform pg_catalog.pg_notify('local_realtime', (v_change || v_rows)::text);
  return null;
end
$$;

do $$
declare
  v_table record;
begin
  for v_table in
    select p.schemaname, p.tablename
    from pg_catalog.pg_publication_tables p
    where p.pubname = 'supabase_realtime'
      and not exists (
        select from pg_catalog.pg_trigger t
        where t.tgname = 'local_realtime_notify_change'
          and t.tgrelid = pg_catalog.format('%I.%I', p.schemaname, p.tablename)::regclass)
  loop
    execute pg_catalog.format(
      'create trigger local_realtime_notify_change after insert or update or delete on %I.%I
       for each row execute function local_realtime.notify_change()', v_table.schemaname, v_table.tablename);
  end loop;
end
$$;
