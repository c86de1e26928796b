-- Usage taken over from an existing chat table.

create table governance.imported_usage (
  -- Whose key message_key is: the table it came from, as schema.name.
  source text not null,
  message_key text not null,
  account_id bigint not null,
  at timestamptz not null,
  -- The date then in the zone that the account had at the import: stamped once, like a settlement's.
  day date not null,
  model text not null,
  conversation_id text,
  task_type text not null default '',
  input_tokens bigint not null check (input_tokens >= 0),
  output_tokens bigint not null check (output_tokens >= 0),
  cost_micros bigint,
  primary key (source, message_key)
);

create index imported_usage_account on governance.imported_usage (account_id, at);

comment on table governance.imported_usage is
  'Messages whose usage was brought in from a chat table (import_usage_history). They count as usage, and were never '
  'charged.';

create table governance.usage_imports (
  source text primary key,
  columns jsonb not null,
  -- Where the next batch begins: the last row read, in the order of time and key.
  last_at timestamptz,
  last_key text,
  rows_read bigint not null default 0,
  rows_imported bigint not null default 0,
  -- Rows without a user, a time or tokens.
  rows_skipped bigint not null default 0,
  started_at timestamptz not null,
  updated_at timestamptz not null,
  finished_at timestamptz
);

comment on table governance.usage_imports is 'How far each import has come.';

create function governance.import_source(p_table text, p_columns jsonb, out source text, out columns jsonb,
  out types jsonb)
  language plpgsql stable set search_path = '' as $$
declare
  v_table regclass;
  v_kind "char";
  v_role text;
  v_schema text;
  v_key text;
  v_name text;
begin
  columns := '{"id":"id","user_id":"user_id","created_at":"created_at","metadata":"metadata"}';
  types := '{}';
  begin
    v_table := to_regclass(p_table);
  exception when others then
    v_table := null;
  end;
  select c.relkind, n.nspname, format('%I.%I', n.nspname, c.relname) into v_kind, v_schema, source
  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = v_table;
  if v_table is null or v_kind not in ('r', 'p', 'v', 'm', 'f')
    or v_schema in ('governance', 'pg_catalog', 'information_schema') or v_schema like 'pg\_%' then
    perform governance.fail('PT404', 'not_found',
      format('There is no table or view "%s" to read: name it as schema.table', left(p_table, 64)));
  end if;
  -- This function runs as its owner, who may read more than the caller: what the caller may not read stays closed.
  v_role := case current_setting('role') when 'none' then session_user else current_setting('role') end;
  if not has_table_privilege(v_role, v_table, 'select') or not has_schema_privilege(v_role, v_schema, 'usage') then
    perform governance.fail('PT403', 'not_readable', format('%s may not read %s: grant it select', v_role, source));
  end if;
  if p_columns is null or jsonb_typeof(p_columns) <> 'object' then
    perform governance.fail('PT400', 'invalid_argument', 'p_columns is a JSON object');
  end if;
  columns := columns || p_columns;
  for v_key, v_name in select * from jsonb_each_text(columns) loop
    if v_key not in ('id', 'user_id', 'created_at', 'metadata', 'conversation_id', 'model', 'task_type') then
      perform governance.fail('PT400', 'invalid_argument',
        format('p_columns has no key "%s"; it takes id, user_id, created_at, metadata, conversation_id, model, '
          'task_type', left(v_key, 64)));
    end if;
    continue when v_name is null and v_key in ('conversation_id', 'model', 'task_type');
    types := types || coalesce((
      select jsonb_build_object(v_key, pg_catalog.format_type(a.atttypid, null)) from pg_catalog.pg_attribute a
      where a.attrelid = v_table and a.attname = v_name and a.attnum > 0 and not a.attisdropped), '{}');
    if types -> v_key is null then
      perform governance.fail('PT400', 'invalid_argument',
        format('p_columns.%s: %s has no column "%s"', v_key, source, left(v_name, 64)));
    end if;
  end loop;
  if types ->> 'created_at' not in ('timestamp with time zone', 'timestamp without time zone') then
    perform governance.fail('PT400', 'invalid_argument', 'p_columns.created_at must name a column of timestamps');
  end if;
  -- Batches go by the key: without order or with twins a row would be lost between two of them.
  if types ->> 'id' not in ('bigint', 'integer', 'smallint', 'uuid', 'text', 'character varying',
    'timestamp with time zone') then
    perform governance.fail('PT400', 'invalid_argument',
      'p_columns.id must name a column of whole numbers, uuids, texts or moments');
  end if;
  if v_kind in ('r', 'p') and not exists (
    select from pg_catalog.pg_index i
      join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
    where i.indrelid = v_table and i.indisunique and i.indisvalid and i.indpred is null and i.indnkeyatts = 1
      and a.attname = columns ->> 'id') then
    perform governance.fail('PT400', 'invalid_argument',
      format('p_columns.id: "%s" is not unique in %s', left(columns ->> 'id', 64), source));
  end if;
end
$$;
comment on function governance.import_source(text, jsonb) is
  'The table of an import as schema.table, its columns, and the type of each. Errors: invalid_argument, not_found, '
  'not_readable.';

create function public.import_usage_history(p_table text, p_columns jsonb default '{}', p_batch int default 1000,
  p_restart boolean default false) returns jsonb
  language plpgsql security definer set search_path = '' as $$
declare
  v_source text;
  v_columns jsonb;
  v_types jsonb;
  v_import governance.usage_imports;
  v_user text;
  v_rows jsonb;
  v_read int;
  v_done int;
  v_last text;
  v_now timestamptz := governance.now();
begin
  perform governance.refuse_others('import_usage_history');
  perform governance.check_id('p_table', p_table, 255);
  if p_batch is null or p_batch not between 1 and 10000 then
    perform governance.fail('PT400', 'invalid_argument', 'p_batch is a whole number from 1 to 10000');
  end if;
  select s.* into v_source, v_columns, v_types from governance.import_source(p_table, p_columns) s;

  -- One batch at a time of one source.
  perform pg_advisory_xact_lock(hashtextextended('import ' || v_source, 7254));
  -- No day is closed while this batch adds to it: aggregate_days takes this lock alone.
  perform pg_advisory_xact_lock_shared(7254013);
  insert into governance.usage_imports as u (source, columns, started_at, updated_at)
    values (v_source, v_columns, v_now, v_now)
  on conflict (source) do update set updated_at = v_now,
    last_key = case when p_restart or u.columns <> v_columns then null else u.last_key end,
    rows_read = case when p_restart or u.columns <> v_columns then 0 else u.rows_read end,
    rows_skipped = case when p_restart or u.columns <> v_columns then 0 else u.rows_skipped end,
    finished_at = null, columns = v_columns
  returning * into v_import;

  begin
    execute format($q$
    select coalesce(jsonb_agg(to_jsonb(x) order by x.n), '[]'), count(*), (array_agg(x.key order by x.n desc))[1]
    from (
      select row_number() over (order by t.%1$I) as n, t.%1$I::text as key, left(t.%2$I::text, 300) as user_id,
        %3$s as at,
        governance.read_usage(governance.try_jsonb(t.%4$I::text)) as usage, %5$s as conversation_id, %6$s as model,
          %7$s as task_type
      from %8$s t
      where %9$s
      order by t.%1$I limit %10$s) x
    $q$,
    v_columns ->> 'id', v_columns ->> 'user_id',
    case v_types ->> 'created_at'
      when 'timestamp without time zone' then format('t.%I at time zone ''UTC''', v_columns ->> 'created_at')
      else format('t.%I', v_columns ->> 'created_at') end,
    v_columns ->> 'metadata',
    case when v_types ? 'conversation_id' then format('left(t.%I::text, 255)', v_columns ->> 'conversation_id')
      else 'null::text' end,
    case when v_types ? 'model' then format('left(t.%I::text, 200)', v_columns ->> 'model') else 'null::text' end,
    case when v_types ? 'task_type' then format('left(t.%I::text, 255)', v_columns ->> 'task_type')
      else 'null::text' end,
    v_source, case when v_import.last_key is not null
      then format('t.%I > %L::%s', v_columns ->> 'id', v_import.last_key, v_types ->> 'id') else 'true' end,
    p_batch)
  into v_rows, v_read, v_last;
  exception when insufficient_privilege then
    perform governance.fail('PT403', 'not_readable',
      format('The owner of the governance schema may not read %s: grant it select', v_source));
  end;

  -- A user of the old table who has made no call here yet gets an account, as at a first call.
  for v_user in
    select distinct x ->> 'user_id' from jsonb_array_elements(v_rows) x
    where x -> 'usage' ->> 'input_tokens' is not null and btrim(coalesce(x ->> 'user_id', '')) <> ''
      and char_length(x ->> 'user_id') <= 255
      and x ->> 'at' is not null and isfinite((x ->> 'at')::timestamptz)
      and not exists (select from governance.accounts a where a.user_id = x ->> 'user_id')
    order by 1
  loop
    perform governance.lock_account(v_user, true);
  end loop;
  with new_rows as (
    insert into governance.imported_usage (source, message_key, account_id, at, day, model, conversation_id, task_type,
      input_tokens, output_tokens, cost_micros)
    select v_source, x.key, a.account_id, x.at, governance.local_time(x.at, a.timezone)::date, m.model,
      nullif(x.conversation_id, ''), coalesce(x.task_type, ''),
      (x.usage ->> 'input_tokens')::bigint, (x.usage ->> 'output_tokens')::bigint,
      governance.cost_of(m.model, x.at, (x.usage ->> 'input_tokens')::bigint, (x.usage ->> 'output_tokens')::bigint)
    from jsonb_to_recordset(v_rows) x(key text, user_id text, at timestamptz, usage jsonb, conversation_id text,
      model text, task_type text)
    join governance.accounts a on a.user_id = x.user_id
    cross join lateral (select left(coalesce(nullif(x.model, ''), x.usage ->> 'model', 'unknown'), 200) as model) m
    where x.usage ->> 'input_tokens' is not null and x.at between '1900-01-01' and '2200-01-01'
    on conflict do nothing
    returning *
  ), counted as (
    insert into governance.usage_daily as d (account_id, day, model, task_type, scope_id, calls, messages, input_tokens,
      output_tokens, charged_tokens, cost_micros, first_activity_at, last_activity_at)
    select n.account_id, n.day, n.model, n.task_type, '', count(*), count(*), sum(n.input_tokens), sum(n.output_tokens),
      0, coalesce(sum(n.cost_micros), 0), min(n.at), max(n.at)
    -- In one order, so that batches of two tables never wait for each other.
    from new_rows n group by 1, 2, 3, 4 order by 1, 2, 3, 4
    on conflict (account_id, day, model, task_type, scope_id) do update set
      calls = d.calls + excluded.calls, messages = d.messages + excluded.messages,
      input_tokens = d.input_tokens + excluded.input_tokens, output_tokens = d.output_tokens + excluded.output_tokens,
      cost_micros = d.cost_micros + excluded.cost_micros,
      first_activity_at = least(d.first_activity_at, excluded.first_activity_at),
      last_activity_at = greatest(d.last_activity_at, excluded.last_activity_at)
  ), reopened as (
    delete from governance.usage_days u where u.day in (select n.day from new_rows n)
  )
  select count(*) into v_done from new_rows;

  update governance.usage_imports u set
    last_key = coalesce(v_last, u.last_key), rows_read = u.rows_read + v_read, rows_imported = u.rows_imported + v_done,
    rows_skipped = u.rows_skipped + (select count(*) from jsonb_array_elements(v_rows) x where not exists (
      select from governance.imported_usage i where i.source = v_source and i.message_key = x ->> 'key')),
    finished_at = case when v_read < p_batch then v_now end
  where u.source = v_source returning * into v_import;
  return jsonb_build_object('source', v_source, 'batch_read', v_read, 'batch_imported', v_done,
    'rows_read', v_import.rows_read, 'rows_imported', v_import.rows_imported,
    'rows_skipped', v_import.rows_skipped, 'finished', v_import.finished_at is not null);
end
$$;
comment on function public.import_usage_history(text, jsonb, int, boolean) is
  'Reads one batch of a chat table or view (schema.name) whose metadata holds token counts, and counts it as usage; '
  'nothing is charged, and the table is only read. p_columns names its columns where they are not id, user_id, '
  'created_at, metadata (and conversation_id, model, task_type if it has them). Call it until finished; a message '
  'counts once, however often. p_restart reads from the beginning again. Errors: invalid_argument, not_found, '
  'not_configured.';
revoke all on function public.import_usage_history(text, jsonb, int, boolean) from public, anon, authenticated;
grant execute on function public.import_usage_history(text, jsonb, int, boolean) to service_role;
