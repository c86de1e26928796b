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

create function governance.token_count(p_value jsonb) returns bigint
  language sql immutable set search_path = '' as $$
  select case when (p_value #>> '{}') ~ '^\d{1,15}(\.0+)?$' then (p_value #>> '{}')::numeric::bigint end
$$;
comment on function governance.token_count(jsonb) is 'A whole number of tokens, from a number or a text; null if it is '
  'none.';

create function governance.usage_shapes() returns jsonb
  language sql immutable set search_path = '' as $shapes$
  select jsonb '[
  {"shape":"perplexity_chat","has":[["prompt_tokens"],["citation_tokens","num_search_queries",
    "search_context_size"]],"model":"(^|/)(sonar|r1-1776)","needs":["prompt_tokens",
    "completion_tokens|total_tokens"],"input":["prompt_tokens","citation_tokens"],"output":["completion_tokens",
    "reasoning_tokens"],"reasoning":"reasoning_tokens"},
  {"shape":"openai_chat","has":[["prompt_tokens"]],"needs":["prompt_tokens","total_tokens|completion_tokens"],
    "input":["prompt_tokens"],"output":["completion_tokens"],
    "cached":"prompt_tokens_details.cached_tokens|prompt_cache_hit_tokens|cache_read_input_tokens|'
'num_cached_tokens|cached_tokens",
    "cache_write":"prompt_tokens_details.cache_write_tokens|prompt_tokens_details.cache_creation_tokens|'
'prompt_tokens_details.cache_creation_input_tokens|cache_creation_input_tokens",
    "cache_write_1h":"prompt_tokens_details.cache_creation_token_details.ephemeral_1h_input_tokens|'
'cache_creation.ephemeral_1h_input_tokens","cached_beside":"cache_read_input_tokens|cache_creation_input_tokens",
    "input_beside":"connector_tokens|guardrails_tokens","reasoning":"completion_tokens_details.reasoning_tokens",
    "total":"total_tokens","rest_is_input":"prompt_audio_seconds"},
  {"shape":"anthropic_messages","has":[["input_tokens"],["cache_creation_input_tokens","cache_read_input_tokens"]],
    "type":"message","needs":["input_tokens","output_tokens"],"input":["input_tokens","cache_creation_input_tokens",
    "cache_read_input_tokens"],"output":["output_tokens"],"cached":"cache_read_input_tokens",
    "cache_write":"cache_creation_input_tokens","cache_write_1h":"cache_creation.ephemeral_1h_input_tokens",
    "reasoning":"output_tokens_details.thinking_tokens"},
  {"shape":"openai_responses","has":[["input_tokens"]],"needs":["input_tokens","output_tokens"],
    "input":["input_tokens"],"output":["output_tokens"],
    "cached":"input_tokens_details.cached_tokens|input_token_details.cached_tokens|'
'input_token_details.cache_read|prompt_tokens_details.cached_tokens",
    "cache_write":"input_tokens_details.cache_write_tokens|input_token_details.cache_creation",
    "cache_write_5m":"input_token_details.ephemeral_5m_input_tokens",
    "cache_write_1h":"input_token_details.ephemeral_1h_input_tokens",
    "cached_beside":"input_token_details.cache_read|input_token_details.cache_creation",
    "reasoning":"output_tokens_details.reasoning_tokens|output_token_details.reasoning","total":"total_tokens"},
  {"shape":"google_generate_content","has":[["promptTokenCount","candidatesTokenCount","totalTokenCount",
    "candidates_token_count","total_token_count"]],
    "needs":["totalTokenCount|promptTokenCount|total_token_count|prompt_token_count",
    "totalTokenCount|candidatesTokenCount|total_token_count|candidates_token_count"],
    "input":["promptTokenCount|prompt_token_count","toolUsePromptTokenCount|tool_use_prompt_token_count"],
    "output":["candidatesTokenCount|responseTokenCount|candidates_token_count",
    "thoughtsTokenCount|thoughts_token_count"],"cached":"cachedContentTokenCount|cached_content_token_count",
    "reasoning":"thoughtsTokenCount|thoughts_token_count","total":"totalTokenCount|total_token_count"},
  {"shape":"google_interactions","has":[["total_input_tokens"]],"needs":["total_input_tokens",
    "total_output_tokens"],"input":["total_input_tokens","total_tool_use_tokens"],"output":["total_output_tokens",
    "total_thought_tokens"],"cached":"total_cached_tokens","reasoning":"total_thought_tokens","total":"total_tokens"
    },
  {"shape":"bedrock_converse","has":[["inputTokens"],["cacheReadInputTokens","cacheWriteInputTokens",
    "cacheReadInputTokenCount","cacheWriteInputTokenCount"]],"needs":["inputTokens","outputTokens"],
    "input":["inputTokens","cacheReadInputTokens|cacheReadInputTokenCount",
    "cacheWriteInputTokens|cacheWriteInputTokenCount"],"output":["outputTokens"],
    "cached":"cacheReadInputTokens|cacheReadInputTokenCount",
    "cache_write":"cacheWriteInputTokens|cacheWriteInputTokenCount",
    "cache_write_1h":"cacheDetails.[ttl=1h].inputTokens"},
  {"shape":"ai_sdk","has":[["inputTokens.total"]],"needs":["inputTokens.total","outputTokens.total"],
    "input":["inputTokens.total"],"output":["outputTokens.total"],"cached":"inputTokens.cacheRead",
    "cache_write":"inputTokens.cacheWrite","reasoning":"outputTokens.reasoning"},
  {"shape":"ai_sdk","has":[["inputTokens","promptTokens"]],"needs":["inputTokens|promptTokens",
    "outputTokens|completionTokens|totalTokens"],"input":["inputTokens|promptTokens"],
    "output":["outputTokens|completionTokens"],
    "cached":"inputTokenDetails.cacheReadTokens|cachedInputTokens|inputTokensDetails.cachedTokens|'
'promptTokensDetails.cachedTokens",
    "cache_write":"inputTokenDetails.cacheWriteTokens|inputTokensDetails.cacheWriteTokens|'
'promptTokensDetails.cacheWriteTokens","cached_beside":"cachedInputTokens|inputTokenDetails.cacheReadTokens",
    "input_beside":"connectorTokens",
    "reasoning":"outputTokenDetails.reasoningTokens|reasoningTokens|outputTokensDetails.reasoningTokens|'
'completionTokensDetails.reasoningTokens","total":"totalTokens","rest_is_input":"totalTokens"},
  {"shape":"bedrock_invoke","has":[["inputTokenCount","prompt_token_count"]],
    "needs":["inputTokenCount|prompt_token_count","outputTokenCount|generation_token_count"],
    "input":["inputTokenCount|prompt_token_count","cacheReadInputTokenCount","cacheWriteInputTokenCount"],
    "output":["outputTokenCount|generation_token_count"],"cached":"cacheReadInputTokenCount",
    "cache_write":"cacheWriteInputTokenCount"},
  {"shape":"bedrock_titan","has":[["inputTextTokenCount"]],"needs":["inputTextTokenCount",
    "totalOutputTextTokenCount|results.0.tokenCount|embedding"],"input":["inputTextTokenCount"],
    "output":["totalOutputTextTokenCount|results.0.tokenCount"]},
  {"shape":"ollama","has":[["eval_count","prompt_eval_count"]],"needs":["prompt_eval_count",
    "eval_count|embeddings"],"input":["prompt_eval_count"],"output":["eval_count"]},
  {"shape":"llama_cpp","has":[["tokens_predicted"]],"needs":["tokens_evaluated","tokens_predicted"],
    "input":["tokens_evaluated"],"output":["tokens_predicted"]},
  {"shape":"watsonx","has":[["generated_token_count"]],"needs":["input_token_count","generated_token_count"],
    "input":["input_token_count"],"output":["generated_token_count"]},
  {"shape":"cohere_chat","has":[["tokens.input_tokens","tokens.inputTokens"]],
    "needs":["tokens.input_tokens|tokens.inputTokens","tokens.output_tokens|tokens.outputTokens"],
    "input":["tokens.input_tokens|tokens.inputTokens"],"output":["tokens.output_tokens|tokens.outputTokens"],
    "cached":"cached_tokens|cachedTokens"},
  {"shape":"cohere_billed","has":[["billed_units.input_tokens"]],"needs":["billed_units.input_tokens"],
    "input":["billed_units.input_tokens"],"output":["billed_units.output_tokens"]},
  {"shape":"openrouter_generation","has":[["native_tokens_prompt"]],"needs":["native_tokens_prompt",
    "native_tokens_completion"],"input":["native_tokens_prompt"],"output":["native_tokens_completion"],
    "cached":"native_tokens_cached","reasoning":"native_tokens_reasoning"},
  {"shape":"replicate","has":[["input_token_count"],["output_token_count"]],"needs":["input_token_count",
    "output_token_count"],"input":["input_token_count"],"output":["output_token_count"]},
  {"shape":"tokens_used","has":[["tokensUsed","tokens_used","total_tokens","totalTokens","usage.tokens"]],
    "needs":["tokensUsed|tokens_used|total_tokens|totalTokens|usage.tokens"],
    "input":["tokensUsed|tokens_used|total_tokens|totalTokens|usage.tokens"],"output":[],"only_total":true}
]'
$shapes$;
comment on function governance.usage_shapes() is
  'How providers report the tokens of a call: the core''s table (shared/governance/usage/shapes.ts), line for line.';

create function governance.usage_places() returns text[]
  language sql immutable set search_path = '' as $$
  select array['usageMetadata', 'usage_metadata', 'totalUsage', 'usage', 'choices.0.usage',
    'amazon-bedrock-invocationMetrics', 'results.0', 'x_groq.usage', 'response.usage', 'message.usage',
    'response.body.usage', 'response.usageMetadata', 'result.message.usage', 'result.usage', 'interaction.usage',
    'response.meta', 'response_metadata.usage', 'response_metadata.tokenUsage',
    'response_metadata.token_usage', 'llmOutput.tokenUsage', 'kwargs.usage_metadata', 'meta',
    'data.usageMetadata', 'data.usage', 'body.usageMetadata', 'body.usage', 'data', 'token_usage', 'tokenUsage',
    'metrics', 'metadata', '']
$$;
comment on function governance.usage_places() is
  'Where a report of usage lies in a message''s metadata, by dotted path; the first that has one is read.';

create function governance.first_given(p_report jsonb, p_paths text) returns jsonb
  language plpgsql immutable strict set search_path = '' as $$
declare
  v_path text;
  v_found jsonb;
begin
  foreach v_path in array string_to_array(p_paths, '|') loop
    v_found := p_report #> string_to_array(v_path, '.');
    if v_found <> 'null' then return v_found; end if;
  end loop;
  return null;
end
$$;
comment on function governance.first_given(jsonb, text) is 'Of the dotted paths `a|b` the first that is given.';

create function governance.has_any(p_report jsonb, p_paths jsonb) returns boolean
  language plpgsql immutable strict set search_path = '' as $$
declare
  v_path text;
begin
  for v_path in select * from jsonb_array_elements_text(p_paths) loop
    if governance.first_given(p_report, v_path) is not null then return true; end if;
  end loop;
  return false;
end
$$;
comment on function governance.has_any(jsonb, jsonb) is 'Whether a report has a value at one of the dotted paths.';

create function governance.reported_count(p_report jsonb, p_paths jsonb) returns bigint
  language plpgsql immutable strict set search_path = '' as $$
declare
  v_paths text;
  v_sum bigint;
  v_count bigint;
begin
  for v_paths in select * from jsonb_array_elements_text(p_paths) loop
    v_count := governance.token_count(governance.first_given(p_report, v_paths));
    v_sum := coalesce(v_sum + v_count, v_sum, v_count);
  end loop;
  return v_sum;
end
$$;
comment on function governance.reported_count(jsonb, jsonb) is
  'The counts of a report at these paths, added up; null where none is given.';

create function governance.caches_beside(p_report jsonb, p_shape jsonb, p_input bigint, p_beside bigint) returns bigint
  language sql immutable set search_path = '' as $$
  select case
    when c.cached + c.written > p_input and governance.first_given(p_report, p_shape ->> 'cached_beside') is not null
      then c.cached + c.written
    when p_beside > 0 and p_beside in (c.cached + c.written, c.cached, c.written) then p_beside
    else 0
  end
  from (select
    coalesce(governance.token_count(governance.first_given(p_report, p_shape ->> 'cached')), 0) as cached,
    greatest(governance.token_count(governance.first_given(p_report, p_shape ->> 'cache_write')),
      coalesce(governance.token_count(governance.first_given(p_report, p_shape ->> 'cache_write_5m')), 0)
        + coalesce(governance.token_count(governance.first_given(p_report, p_shape ->> 'cache_write_1h')), 0))
      as written) c
$$;
comment on function governance.caches_beside(jsonb, jsonb, bigint, bigint) is
  'Cached tokens that lie beside a report''s input: they are more than it, or its total has so many more.';

create function governance.read_usage(p_metadata jsonb, out input_tokens bigint, out output_tokens bigint,
  out model text)
  language plpgsql immutable strict set search_path = '' as $$
declare
  v_report jsonb;
  s jsonb;
  v_place text;
  v_name text := governance.first_given(p_metadata,
    'modelVersion|model|response.model|message.model|response.body.model|model_used|modelUsed') #>> '{}';
  v_shapes jsonb := governance.usage_shapes();
  v_caches bigint;
  v_reasoning bigint;
  v_total bigint;
  v_beside bigint;
begin
  v_name := coalesce(v_name, governance.first_given(p_metadata,
    'result.message.model|interaction.model|response.modelId|response_metadata.model_name|response_metadata.model|'
    'modelId|model_name|model_version|model_id|data.model|body.model') #>> '{}');
  foreach v_place in array governance.usage_places() loop
    v_report := p_metadata #> string_to_array(v_place, '.');
    continue when jsonb_typeof(v_report) is distinct from 'object';
    for s in select * from jsonb_array_elements(v_shapes) loop
      continue when not governance.has_any(v_report, s -> 'has' -> 0);
      continue when s -> 'has' -> 1 is not null and not governance.has_any(v_report, s -> 'has' -> 1)
        and (s ->> 'model' is null or v_name is null or v_name !~ (s ->> 'model'))
        and (s ->> 'type' is null or p_metadata ->> 'type' is distinct from s ->> 'type');
      input_tokens := governance.reported_count(v_report, s -> 'input');
      output_tokens := governance.reported_count(v_report, s -> 'output');
      v_beside := coalesce(governance.token_count(governance.first_given(v_report, s ->> 'input_beside')), 0);
      continue when coalesce(input_tokens, 0) + coalesce(output_tokens, 0) + v_beside = 0;
      v_total := nullif(governance.token_count(governance.first_given(v_report, s ->> 'total')), 0);
      if v_beside > 0 and coalesce(input_tokens, 0) + coalesce(output_tokens, 0) + v_beside
          <= coalesce(v_total, 9007199254740991) then
        input_tokens := coalesce(input_tokens, 0) + v_beside;
      end if;
      v_reasoning := coalesce(governance.token_count(governance.first_given(v_report, s ->> 'reasoning')), 0);
      v_beside := coalesce(v_total - coalesce(input_tokens, 0) - coalesce(output_tokens, 0), 0);
      if (v_reasoning = 0 or v_beside <> v_reasoning)
        and (v_beside > 0 or governance.first_given(v_report, s ->> 'cached_beside') is not null) then
        v_caches := governance.caches_beside(v_report, s, coalesce(input_tokens, 0), v_beside);
        if v_caches > 0 then input_tokens := coalesce(input_tokens, 0) + v_caches; end if;
        -- A total without the caches is the sum of the others.
        v_beside := v_beside - case when v_beside = 0 then 0 else v_caches end;
      end if;
      -- What the total has more is reasoning beside the output, or the part that was left out. History is taken as far
      -- as it tells: unlike a call's own report it is not refused for a total that does not add up.
      if v_beside > 0 and input_tokens is null then
        input_tokens := v_beside;
      elsif v_beside > 0 and (output_tokens is null or v_beside = v_reasoning) then
        output_tokens := coalesce(output_tokens, 0) + v_beside;
      elsif v_beside > v_reasoning and governance.first_given(v_report, s ->> 'rest_is_input') is not null then
        output_tokens := output_tokens + v_reasoning;
        input_tokens := input_tokens + v_beside - v_reasoning;
      elsif v_beside > 0 and v_reasoning = 0 and v_name like '%gemini%' then
        output_tokens := output_tokens + v_beside;
      end if;
      input_tokens := coalesce(input_tokens, 0);
      output_tokens := coalesce(output_tokens, 0);
      model := coalesce(nullif(v_report ->> 'model', ''), nullif(v_name, ''));
      return;
    end loop;
  end loop;
  input_tokens := null;
  output_tokens := null;
end
$$;
comment on function governance.read_usage(jsonb) is 'Tokens and model of a chat message''s metadata, in the shapes of '
  'governance.usage_shapes; null where it has none.';

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
        format('p_columns.%s is unknown: id, user_id, created_at, metadata, conversation_id, model, task_type are',
        left(v_key, 64)));
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
    perform governance.fail('PT400', 'invalid_argument', 'p_columns.created_at names no timestamp');
  end if;
  -- Batches go by the key: without order or with twins a row would be lost between two of them.
  if types ->> 'id' not in ('bigint', 'integer', 'smallint', 'uuid', 'text', 'character varying',
    'timestamp with time zone') then
    perform governance.fail('PT400', 'invalid_argument', 'p_columns.id names no whole number, uuid or text');
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
