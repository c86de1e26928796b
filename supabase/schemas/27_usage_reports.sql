-- How providers report what a call used, read from what a chat table has kept of it.

create function governance.token_count(p_value jsonb) returns bigint
  language sql immutable set search_path = '' as $$
  select case when (p_value #>> '{}') ~ '^\d{1,15}(\.0+)?$' then (p_value #>> '{}')::numeric::bigint end
$$;
comment on function governance.token_count(jsonb) is
  'A whole number of tokens, from a number or a text; null for anything else.';

create function governance.usage_shapes() returns jsonb
  language sql immutable set search_path = '' as $shapes$
  select jsonb '[
  {"shape":"perplexity_chat","has":[["prompt_tokens"],["citation_tokens","num_search_queries","search_context_size"]],
    "model":"(^|/)(sonar|r1-1776)","needs":["prompt_tokens","completion_tokens|total_tokens"],
    "input":["prompt_tokens","citation_tokens"],"output":["completion_tokens","reasoning_tokens"],
    "reasoning":"reasoning_tokens"},
  {"shape":"openai_chat","has":[["prompt_tokens"]],"needs":["prompt_tokens","total_tokens|completion_tokens"],
    "input":["prompt_tokens"],"output":["completion_tokens"],"cached":"prompt_tokens_details.cached_tokens|'
'prompt_token_details.cached_tokens|prompt_cache_hit_tokens|cache_read_input_tokens|num_cached_tokens|cached_tokens|'
'cached_prompt_tokens|cached_prompt_text_tokens|prompt_cached_tokens",
    "cache_write":"prompt_tokens_details.cache_write_tokens|prompt_tokens_details.cache_creation_tokens|'
'prompt_tokens_details.cache_creation_input_tokens|cache_creation_input_tokens",
    "cache_write_1h":"prompt_tokens_details.cache_creation_token_details.ephemeral_1h_input_tokens|'
'cache_creation.ephemeral_1h_input_tokens","cached_beside":"cache_read_input_tokens|cache_creation_input_tokens",
    "input_beside":"connector_tokens|guardrails_tokens","reasoning":"completion_tokens_details.reasoning_tokens|'
'completion_token_details.reasoning_tokens|reasoning_tokens","total":"total_tokens",
    "rest_is_input":"prompt_audio_seconds"},
  {"shape":"anthropic_messages","has":[["input_tokens"],["cache_creation_input_tokens","cache_read_input_tokens"]],
    "type":"message","needs":["input_tokens","output_tokens"],"input":["input_tokens","cache_creation_input_tokens",
    "cache_read_input_tokens"],"output":["output_tokens"],"cached":"cache_read_input_tokens",
    "cache_write":"cache_creation_input_tokens","cache_write_1h":"cache_creation.ephemeral_1h_input_tokens",
    "reasoning":"output_tokens_details.thinking_tokens"},
  {"shape":"openai_responses","has":[["input_tokens"]],"needs":["input_tokens","output_tokens"],
    "input":["input_tokens"],"output":["output_tokens"],"cached":"input_tokens_details.cached_tokens|'
'input_token_details.cached_tokens|input_token_details.cache_read|prompt_tokens_details.cached_tokens|'
'cached_input_tokens|cache_read_tokens","cache_write":"input_tokens_details.cache_write_tokens|'
'input_token_details.cache_creation|cache_write_input_tokens|cache_write_tokens",
    "cache_write_5m":"input_token_details.ephemeral_5m_input_tokens",
    "cache_write_1h":"input_token_details.ephemeral_1h_input_tokens","cached_beside":"input_token_details.cache_read|'
'input_token_details.cache_creation|cache_read_tokens|cache_write_tokens",
    "reasoning":"output_tokens_details.reasoning_tokens|output_token_details.reasoning|reasoning_output_tokens|'
'reasoning_tokens","total":"total_tokens"},
  {"shape":"microsoft_ai","has":[["inputTokenCount"],["totalTokenCount"]],"needs":["inputTokenCount",
    "outputTokenCount|totalTokenCount"],"input":["inputTokenCount"],"output":["outputTokenCount"],
    "cached":"cachedInputTokenCount|inputTokensDetails.cachedTokens","reasoning":"reasoningTokenCount|'
'outputTokensDetails.reasoningTokens","total":"totalTokenCount"},
  {"shape":"google_generate_content","has":[["promptTokenCount","candidatesTokenCount","totalTokenCount",
    "candidates_token_count","total_token_count"]],"needs":["totalTokenCount|promptTokenCount|total_token_count|'
'prompt_token_count","totalTokenCount|candidatesTokenCount|total_token_count|candidates_token_count"],
    "input":["promptTokenCount|prompt_token_count","toolUsePromptTokenCount|tool_use_prompt_token_count"],
    "output":["candidatesTokenCount|responseTokenCount|candidates_token_count","thoughtsTokenCount|'
'thoughts_token_count"],"cached":"cachedContentTokenCount|cached_content_token_count","reasoning":"thoughtsTokenCount|'
'thoughts_token_count","total":"totalTokenCount|total_token_count"},
  {"shape":"google_interactions","has":[["total_input_tokens"]],"needs":["total_input_tokens","total_output_tokens"],
    "input":["total_input_tokens","total_tool_use_tokens"],"output":["total_output_tokens","total_thought_tokens"],
    "cached":"total_cached_tokens","reasoning":"total_thought_tokens","total":"total_tokens"},
  {"shape":"bedrock_converse","has":[["inputTokens"],["cacheReadInputTokens","cacheWriteInputTokens",
    "cacheReadInputTokenCount","cacheWriteInputTokenCount"]],"needs":["inputTokens","outputTokens"],
    "input":["inputTokens","cacheReadInputTokens|cacheReadInputTokenCount","cacheWriteInputTokens|'
'cacheWriteInputTokenCount"],"output":["outputTokens"],"cached":"cacheReadInputTokens|cacheReadInputTokenCount",
    "cache_write":"cacheWriteInputTokens|cacheWriteInputTokenCount",
    "cache_write_1h":"cacheDetails.[ttl=1h].inputTokens"},
  {"shape":"ai_sdk","has":[["inputTokens.total"]],"needs":["inputTokens.total","outputTokens.total"],
    "input":["inputTokens.total"],"output":["outputTokens.total"],"cached":"inputTokens.cacheRead",
    "cache_write":"inputTokens.cacheWrite","reasoning":"outputTokens.reasoning"},
  {"shape":"ai_sdk","has":[["inputTokens","promptTokens"]],"needs":["inputTokens|promptTokens","outputTokens|'
'completionTokens|totalTokens"],"input":["inputTokens|promptTokens"],"output":["outputTokens|completionTokens"],
    "cached":"inputTokenDetails.cacheReadTokens|cachedInputTokens|inputTokensDetails.cachedTokens|'
'promptTokensDetails.cachedTokens|inputTokensDetails.cached_tokens|inputTokensDetails.[].cached_tokens|'
'cachedContentTokens","cache_write":"inputTokenDetails.cacheWriteTokens|inputTokensDetails.cacheWriteTokens|'
'promptTokensDetails.cacheWriteTokens|inputTokensDetails.cache_write_tokens|inputTokensDetails.[].cache_write_tokens",
    "cached_beside":"cachedInputTokens|inputTokenDetails.cacheReadTokens","input_beside":"connectorTokens",
    "reasoning":"outputTokenDetails.reasoningTokens|reasoningTokens|outputTokensDetails.reasoningTokens|'
'completionTokensDetails.reasoningTokens|outputTokensDetails.reasoning_tokens|outputTokensDetails.[].reasoning_tokens|'
'thoughtsTokens","total":"totalTokens","rest_is_input":"totalTokens"},
  {"shape":"bedrock_invoke","has":[["inputTokenCount","prompt_token_count"]],"needs":["inputTokenCount|'
'prompt_token_count","outputTokenCount|generation_token_count"],"input":["inputTokenCount|prompt_token_count",
    "cacheReadInputTokenCount","cacheWriteInputTokenCount"],"output":["outputTokenCount|generation_token_count"],
    "cached":"cacheReadInputTokenCount","cache_write":"cacheWriteInputTokenCount"},
  {"shape":"nova_sonic","has":[["totalInputTokens"],["totalOutputTokens"]],"needs":["totalInputTokens",
    "totalOutputTokens"],"input":["totalInputTokens"],"output":["totalOutputTokens"],"total":"totalTokens"},
  {"shape":"bedrock_titan","has":[["inputTextTokenCount"]],"needs":["inputTextTokenCount","totalOutputTextTokenCount|'
'results.0.tokenCount|embedding"],"input":["inputTextTokenCount"],"output":["totalOutputTextTokenCount|'
'results.0.tokenCount"]},
  {"shape":"ollama","has":[["eval_count","prompt_eval_count"]],"needs":["prompt_eval_count","eval_count|embeddings"],
    "input":["prompt_eval_count"],"output":["eval_count"]},
  {"shape":"llama_cpp","has":[["tokens_predicted"]],"needs":["tokens_evaluated","tokens_predicted"],
    "input":["tokens_evaluated"],"output":["tokens_predicted"]},
  {"shape":"watsonx","has":[["generated_token_count"]],"needs":["input_token_count","generated_token_count"],
    "input":["input_token_count"],"output":["generated_token_count"]},
  {"shape":"cohere_chat","has":[["tokens.input_tokens","tokens.inputTokens"]],"needs":["tokens.input_tokens|'
'tokens.inputTokens","tokens.output_tokens|tokens.outputTokens"],"input":["tokens.input_tokens|tokens.inputTokens"],
    "output":["tokens.output_tokens|tokens.outputTokens"],"cached":"cached_tokens|cachedTokens"},
  {"shape":"cohere_billed","has":[["billed_units.input_tokens","billed_units.image_tokens","billedUnits.inputTokens",
    "billedUnits.imageTokens"]],"needs":["billed_units.input_tokens|billed_units.image_tokens|billedUnits.inputTokens|'
'billedUnits.imageTokens"],"input":["billed_units.input_tokens|billedUnits.inputTokens","billed_units.image_tokens|'
'billedUnits.imageTokens"],"output":["billed_units.output_tokens|billedUnits.outputTokens"]},
  {"shape":"hugging_face","has":[["details.generated_tokens"]],"needs":["details.input_length|details.prompt_tokens",
    "details.generated_tokens"],"input":["details.input_length|details.prompt_tokens"],
    "output":["details.generated_tokens"]},
  {"shape":"llama_api","has":[["metrics.[metric=num_prompt_tokens].value","num_prompt_tokens"]],
    "needs":["metrics.[metric=num_prompt_tokens].value|num_prompt_tokens",
    "metrics.[metric=num_completion_tokens].value|num_completion_tokens"],
    "input":["metrics.[metric=num_prompt_tokens].value|num_prompt_tokens"],
    "output":["metrics.[metric=num_completion_tokens].value|num_completion_tokens"],
    "total":"metrics.[metric=num_total_tokens].value|num_total_tokens"},
  {"shape":"vertex_embeddings","has":[["predictions.[].embeddings.statistics.token_count",
    "embeddings.[].statistics.tokenCount"]],"needs":["predictions.[].embeddings.statistics.token_count|'
'embeddings.[].statistics.tokenCount"],"input":["predictions.[].embeddings.statistics.token_count|'
'embeddings.[].statistics.tokenCount"],"output":[]},
  {"shape":"yandex","has":[["inputTextTokens"]],"needs":["inputTextTokens","completionTokens|totalTokens"],
    "input":["inputTextTokens"],"output":["completionTokens"],"reasoning":"completionTokensDetails.reasoningTokens",
    "total":"totalTokens"},
  {"shape":"hunyuan","has":[["PromptTokens"]],"needs":["PromptTokens","CompletionTokens|TotalTokens"],
    "input":["PromptTokens"],"output":["CompletionTokens"],"total":"TotalTokens"},
  {"shape":"coze","has":[["token_count"],["input_count","output_count"]],"needs":["input_count","output_count"],
    "input":["input_count"],"output":["output_count"],"total":"token_count"},
  {"shape":"openrouter_generation","has":[["native_tokens_prompt"]],"needs":["native_tokens_prompt",
    "native_tokens_completion"],"input":["native_tokens_prompt"],"output":["native_tokens_completion"],
    "cached":"native_tokens_cached","reasoning":"native_tokens_reasoning"},
  {"shape":"replicate","has":[["input_token_count"],["output_token_count"]],"needs":["input_token_count",
    "output_token_count"],"input":["input_token_count"],"output":["output_token_count"]},
  {"shape":"tokens_used","has":[["tokensUsed","tokens_used","total_tokens","totalTokens","usage.tokens"]],
    "needs":["tokensUsed|tokens_used|total_tokens|totalTokens|usage.tokens"],"input":["tokensUsed|tokens_used|'
'total_tokens|totalTokens|usage.tokens"],"output":[],"only_total":true}
]'
$shapes$;
comment on function governance.usage_shapes() is
  'How providers report the tokens of a call: the core''s table (shared/governance/usage/shapes.ts), line for line.';

create function governance.usage_places() returns text[]
  language sql immutable set search_path = '' as $$
  select array['usageMetadata', 'usage_metadata', 'totalUsage', 'usage', 'choices.0.usage',
    'amazon-bedrock-invocationMetrics', 'results.0', 'x_groq.usage', 'response.usage', 'message.usage',
    'response.body.usage', 'response.usageMetadata', 'result.message.usage', 'modelOutput.usage',
    'result.usage', 'interaction.usage', 'response.meta', 'response_metadata.usage',
    'response_metadata.tokenUsage', 'response_metadata.token_usage', 'llmOutput.tokenUsage',
    'llm_output.token_usage', 'kwargs.usage_metadata', 'meta', 'meta.usage', 'metadata.totalUsage',
    'metadata.usage', 'raw.usageMetadata', 'raw.usage', 'raw', 'metrics.accumulatedUsage',
    'metrics.accumulated_usage', 'state._context.usage', 'final_result.usage',
    'orchestration_result.usage', 'chatResult.chatResponse.usage', 'event.usageEvent', 'usageEvent',
    'Response.Usage', 'Usage', 'generationDetails.parameters.usage', 'payload.usage',
    'payload.output.usage', 'models_usage', 'payload.usage.text', 'data.usageMetadata', 'data.usage',
    'body.usageMetadata', 'body.usage', 'data', 'token_usage', 'tokenUsage', 'metrics', 'metadata', '']
$$;
comment on function governance.usage_places() is
  'Where a report of usage lies in a message''s metadata, by dotted path; the first that has one is read.';

create function governance.report_at(p_report jsonb, p_path text) returns jsonb
  language plpgsql immutable strict set search_path = '' as $$
declare
  v_found jsonb := p_report;
  v_rest text := p_path;
  v_key text;
begin
  while v_rest <> '' loop
    v_key := split_part(v_rest, '.', 1);
    v_rest := substr(v_rest, length(v_key) + 2);
    if v_key not like '[%]' then
      v_found := v_found -> v_key;
    elsif jsonb_typeof(v_found) is distinct from 'array' then
      return null;
    elsif v_key = '[]' then
      return (select to_jsonb(sum(governance.token_count(governance.report_at(e, v_rest))))
        from jsonb_array_elements(v_found) e);
    else
      v_key := btrim(v_key, '[]');
      v_found := (select e from jsonb_array_elements(v_found) with ordinality x(e, place)
        where e ->> split_part(v_key, '=', 1) = split_part(v_key, '=', 2) order by place limit 1);
    end if;
  end loop;
  return v_found;
end
$$;
comment on function governance.report_at(jsonb, text) is
  'The value of a report at a dotted path. `[key=value]` means the entry of a list that has this key; `[]` means all '
  'entries, their values added up.';

create function governance.first_given(p_report jsonb, p_paths text) returns jsonb
  language plpgsql immutable strict set search_path = '' as $$
declare
  v_path text;
  v_found jsonb;
begin
  foreach v_path in array string_to_array(p_paths, '|') loop
    v_found := case when strpos(v_path, '[') = 0 then p_report #> string_to_array(v_path, '.')
      else governance.report_at(p_report, v_path) end;
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
  'Cached tokens that a report counts beside its input, not within it: where they are more than the input, or the '
  'total is larger by as many.';

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
    'result.message.model|interaction.model|response.modelId|response_metadata.model_name|'
    'response_metadata.model|modelId|model_name|model_version|model_id|data.model|body.model|raw.model|'
    'raw.modelVersion|orchestration_result.model|final_result.model|chatResult.modelId|'
    'generationDetails.parameters.model|modelOutput.model|llm_output.model_name') #>> '{}');
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
      -- Where the total is larger, the rest is reasoning beside the output, or the part that was left out. History is
      -- read as far as it goes: unlike a call's own report it is not refused for a total that does not add up.
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
