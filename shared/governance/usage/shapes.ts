/**
 * How providers report the tokens of a call, as data: `readUsage` follows this table, and so does
 * `governance.read_usage` in SQL, whose copy a test compares. To add a provider's shape, add a line to both, and an
 * example to tests/support/usage-examples.ts.
 */

/** A provider's report. Counts are named by their path in the report; of `a|b` the first that is given counts. */
export interface ShapeOfUsage {
  readonly shape: string;
  /** The report has one of these (and one of each further list). */
  readonly has: readonly (readonly string[])[];
  /** Or: the model is named so, where that alone decides (part of a regular expression). */
  readonly model?: string;
  /** Or: the response has this `type`. */
  readonly type?: string;
  /** Without these counts nothing is known; a missing one is a failure, never 0. */
  readonly needs: readonly string[];
  /** Added up: everything read, and everything written. */
  readonly input: readonly string[];
  readonly output: readonly string[];
  /** Parts of the input and output. */
  readonly cached?: string;
  readonly cache_write?: string;
  /** Parts of the cache writes that are kept for five minutes, and for an hour: where the whole is left out, its sum. */
  readonly cache_write_5m?: string;
  readonly cache_write_1h?: string;
  /** Where one of these is given, cached parts that are more than the input lie beside it. */
  readonly cached_beside?: string;
  /** Lies beside the input, unless the total says that it does not. */
  readonly input_beside?: string;
  readonly reasoning?: string;
  /** Must be what input and output add up to; what it has more may be reasoning counted beside the output. */
  readonly total?: string;
  /** Where this is given, what the total has more, and no other part explains, is input. */
  readonly rest_is_input?: string;
  /** Tokens that it counts as input, where it does not say what they were. */
  readonly only_total?: true;
}

/** Where a response names its model. */
export const modelNames =
  "modelVersion|model|response.model|message.model|response.body.model|model_used|modelUsed";
/** Where libraries, batches and older answers name it, looked at after `modelNames`. */
export const moreModelNames =
  "result.message.model|interaction.model|response.modelId|response_metadata.model_name|response_metadata.model|modelId|model_name|model_version|model_id|data.model|body.model|raw.model|raw.modelVersion|orchestration_result.model|final_result.model|chatResult.modelId";

/** Where a response names the tier that served it, in the response and in its report. */
export const tierNames: readonly string[] = [
  "usage.service_tier",
  // Anthropic, "Fast mode" (platform.claude.com/docs/en/build-with-claude/fast-mode).
  "usage.speed",
  "service_tier",
  // Bedrock (docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ServiceTier.html), and SDKs that write it so.
  "serviceTier.type",
  "serviceTier",
  // Gemini and Vertex AI (ai.google.dev/gemini-api/docs/priority-inference; TrafficType).
  "usageMetadata.serviceTier",
  "usageMetadata.trafficType",
  "usage_metadata.service_tier",
  "usage_metadata.traffic_type",
  "usage.extra_properties.google.traffic_type",
  "interaction.service_tier",
  "response.service_tier",
  "message.usage.service_tier",
  "message.usage.speed",
  // A line of a batch's file.
  "response.body.service_tier",
  "response.usageMetadata.trafficType",
  "result.message.usage.service_tier",
  // Vercel's AI SDK and LangChain.
  "providerMetadata.openai.serviceTier",
  "providerMetadata.anthropic.usage.service_tier",
  "providerMetadata.anthropic.usage.speed",
  "providerMetadata.google.usageMetadata.serviceTier",
  "providerMetadata.google.usageMetadata.trafficType",
  "providerMetadata.vertex.usageMetadata.trafficType",
  "data.service_tier",
  "body.service_tier",
  "response_metadata.service_tier",
  "response_metadata.usage.service_tier",
  "response_metadata.usage.speed",
];
/**
 * The tiers that may cost otherwise than the model's own price. OpenAI's priority is called fast since 30 July 2026
 * (developers.openai.com/api/docs/guides/fast-mode); both names are answered.
 */
export const pricedTiers: ReadonlySet<string> = new Set(["batch", "flex", "priority", "fast"]);

/** Where a report lies in a response, a stream's chunk or a stored message: the first place that has one is read. */
export const usagePlaces: readonly string[] = [
  "usageMetadata",
  "usage_metadata",
  // The AI SDK's result of several steps: its usage is that of the last one.
  "totalUsage",
  "usage",
  "choices.0.usage",
  "amazon-bedrock-invocationMetrics",
  "results.0",
  "x_groq.usage",
  "response.usage",
  "message.usage",
  // A line of a batch's file: OpenAI's, Gemini's, Anthropic's.
  "response.body.usage",
  "response.usageMetadata",
  "result.message.usage",
  // Cloudflare's API wraps the answer; LangChain keeps the provider's report beside its own.
  "result.usage",
  // Gemini's Interactions, streamed; Cohere's older chat, streamed.
  "interaction.usage",
  "response.meta",
  "response_metadata.usage",
  "response_metadata.tokenUsage",
  "response_metadata.token_usage",
  "llmOutput.tokenUsage",
  // A LangChain message as it is written to be kept.
  "kwargs.usage_metadata",
  "meta",
  // AI SDK's messages of a chat, and backends that keep the report beside their own data.
  "metadata.totalUsage",
  "metadata.usage",
  // LlamaIndex keeps the provider's answer.
  "raw.usageMetadata",
  "raw.usage",
  "raw",
  // Agents, added up over their calls: Strands (strandsagents.com, "Metrics"), OpenAI's (openai.github.io/openai-agents-js).
  "metrics.accumulatedUsage",
  "metrics.accumulated_usage",
  "state._context.usage",
  // SAP's AI Core (help.sap.com, "Orchestration") and Oracle's Generative AI (docs.oracle.com, "ChatResult").
  "final_result.usage",
  "orchestration_result.usage",
  "chatResult.chatResponse.usage",
  // HTTP clients (axios, OpenAI's withResponse()) and functions wrap the answer.
  "data.usageMetadata",
  "data.usage",
  "body.usageMetadata",
  "body.usage",
  "data",
  "token_usage",
  "tokenUsage",
  "metrics",
  "metadata",
  "",
];

/** The shapes, in the order in which they are tried. */
export const usageShapes = [
  // Perplexity, "Pricing" (docs.perplexity.ai/guides/pricing): citation tokens are input and reasoning tokens output,
  // both beside the total.
  {
    shape: "perplexity_chat",
    has: [["prompt_tokens"], ["citation_tokens", "num_search_queries", "search_context_size"]],
    model: "(^|/)(sonar|r1-1776)",
    needs: ["prompt_tokens", "completion_tokens|total_tokens"],
    input: ["prompt_tokens", "citation_tokens"],
    output: ["completion_tokens", "reasoning_tokens"],
    reasoning: "reasoning_tokens",
  },
  // OpenAI, "The chat completion object" (platform.openai.com/docs/api-reference/chat/object): cached tokens are part of
  // prompt_tokens, reasoning tokens part of completion_tokens. Embeddings write nothing: they report the prompt and a
  // total. DeepSeek (api-docs.deepseek.com), LiteLLM (docs.litellm.ai), Mistral (docs.mistral.ai) and Moonshot
  // (platform.moonshot.ai) name the cached parts in their own way.
  {
    shape: "openai_chat",
    has: [["prompt_tokens"]],
    needs: ["prompt_tokens", "total_tokens|completion_tokens"],
    input: ["prompt_tokens"],
    output: ["completion_tokens"],
    cached:
      "prompt_tokens_details.cached_tokens|prompt_cache_hit_tokens|cache_read_input_tokens|num_cached_tokens|cached_tokens",
    cache_write:
      "prompt_tokens_details.cache_write_tokens|prompt_tokens_details.cache_creation_tokens|prompt_tokens_details.cache_creation_input_tokens|cache_creation_input_tokens",
    cache_write_1h:
      "prompt_tokens_details.cache_creation_token_details.ephemeral_1h_input_tokens|cache_creation.ephemeral_1h_input_tokens",
    // A gateway that copies Anthropic's names often copies what they mean.
    cached_beside: "cache_read_input_tokens|cache_creation_input_tokens",
    // Mistral, "Conversations" (docs.mistral.ai/agents/connectors): what its connectors read. Its sound is in the total
    // alone (docs.mistral.ai/capabilities/audio).
    // Snowflake Cortex (docs.snowflake.com, "COMPLETE"): what its guard read.
    input_beside: "connector_tokens|guardrails_tokens",
    reasoning: "completion_tokens_details.reasoning_tokens",
    total: "total_tokens",
    rest_is_input: "prompt_audio_seconds",
  },
  // Anthropic, "Messages" and "Prompt caching" (docs.anthropic.com): input_tokens leaves the cached parts out; all three
  // add up to what was read. Thinking is part of output_tokens.
  {
    shape: "anthropic_messages",
    has: [["input_tokens"], ["cache_creation_input_tokens", "cache_read_input_tokens"]],
    type: "message",
    needs: ["input_tokens", "output_tokens"],
    input: ["input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"],
    output: ["output_tokens"],
    cached: "cache_read_input_tokens",
    cache_write: "cache_creation_input_tokens",
    cache_write_1h: "cache_creation.ephemeral_1h_input_tokens",
    reasoning: "output_tokens_details.thinking_tokens",
  },
  // OpenAI, "The response object" (platform.openai.com/docs/api-reference/responses/object) and "Realtime": cached tokens
  // are part of input_tokens, reasoning tokens part of output_tokens. LangChain's usage_metadata, Cohere's tokens, and
  // DashScope's own API (help.aliyun.com/model-studio).
  {
    shape: "openai_responses",
    has: [["input_tokens"]],
    needs: ["input_tokens", "output_tokens"],
    input: ["input_tokens"],
    output: ["output_tokens"],
    cached:
      "input_tokens_details.cached_tokens|input_token_details.cached_tokens|input_token_details.cache_read|prompt_tokens_details.cached_tokens",
    cache_write: "input_tokens_details.cache_write_tokens|input_token_details.cache_creation",
    cache_write_5m: "input_token_details.ephemeral_5m_input_tokens",
    cache_write_1h: "input_token_details.ephemeral_1h_input_tokens",
    // LangChain.js before 1.3.11 left Anthropic's caches out of its input (github.com/langchain-ai/langchainjs/pull/9520).
    cached_beside: "input_token_details.cache_read|input_token_details.cache_creation",
    reasoning: "output_tokens_details.reasoning_tokens|output_token_details.reasoning",
    total: "total_tokens",
  },
  // Google, "UsageMetadata" (ai.google.dev/api/generate-content#UsageMetadata): the prompt holds the cached part;
  // thoughts and tool-use prompts are counted beside candidates and prompt. Zeros are left out on Google's wire, so a
  // total speaks for the parts that are missing. The Live API says responseTokenCount. Its Python library writes the
  // same names with underscores, and null for what is missing.
  {
    shape: "google_generate_content",
    has: [
      [
        "promptTokenCount",
        "candidatesTokenCount",
        "totalTokenCount",
        "candidates_token_count",
        "total_token_count",
      ],
    ],
    needs: [
      "totalTokenCount|promptTokenCount|total_token_count|prompt_token_count",
      "totalTokenCount|candidatesTokenCount|total_token_count|candidates_token_count",
    ],
    input: ["promptTokenCount|prompt_token_count", "toolUsePromptTokenCount|tool_use_prompt_token_count"],
    output: [
      "candidatesTokenCount|responseTokenCount|candidates_token_count",
      "thoughtsTokenCount|thoughts_token_count",
    ],
    cached: "cachedContentTokenCount|cached_content_token_count",
    reasoning: "thoughtsTokenCount|thoughts_token_count",
    total: "totalTokenCount|total_token_count",
  },
  // Google, "Interactions API" (ai.google.dev/gemini-api/docs/interactions): thoughts and tool use beside the rest.
  {
    shape: "google_interactions",
    has: [["total_input_tokens"]],
    needs: ["total_input_tokens", "total_output_tokens"],
    input: ["total_input_tokens", "total_tool_use_tokens"],
    output: ["total_output_tokens", "total_thought_tokens"],
    cached: "total_cached_tokens",
    reasoning: "total_thought_tokens",
    total: "total_tokens",
  },
  // AWS, "TokenUsage" (docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_TokenUsage.html): inputTokens leaves
  // the cached parts out. Nova's InvokeModel (docs.aws.amazon.com/nova/latest/userguide/invoke.html) ends two names in Count.
  {
    shape: "bedrock_converse",
    has: [
      ["inputTokens"],
      [
        "cacheReadInputTokens",
        "cacheWriteInputTokens",
        "cacheReadInputTokenCount",
        "cacheWriteInputTokenCount",
      ],
    ],
    needs: ["inputTokens", "outputTokens"],
    input: [
      "inputTokens",
      "cacheReadInputTokens|cacheReadInputTokenCount",
      "cacheWriteInputTokens|cacheWriteInputTokenCount",
    ],
    output: ["outputTokens"],
    cached: "cacheReadInputTokens|cacheReadInputTokenCount",
    cache_write: "cacheWriteInputTokens|cacheWriteInputTokenCount",
    cache_write_1h: "cacheDetails.[ttl=1h].inputTokens",
  },
  // Vercel's AI SDK 6 (ai-sdk.dev), as its providers report, and 5 and 4. Version 5 leaves the caches of Anthropic and
  // Bedrock out of its input, and Google's thoughts and tool-use prompts out of both: its total may have them. OpenRouter's
  // and Mistral's SDKs write OpenAI's names in this way; so do OpenAI's agents, with a list of each call's details.
  {
    shape: "ai_sdk",
    has: [["inputTokens.total"]],
    needs: ["inputTokens.total", "outputTokens.total"],
    input: ["inputTokens.total"],
    output: ["outputTokens.total"],
    cached: "inputTokens.cacheRead",
    cache_write: "inputTokens.cacheWrite",
    reasoning: "outputTokens.reasoning",
  },
  {
    shape: "ai_sdk",
    has: [["inputTokens", "promptTokens"]],
    needs: ["inputTokens|promptTokens", "outputTokens|completionTokens|totalTokens"],
    input: ["inputTokens|promptTokens"],
    output: ["outputTokens|completionTokens"],
    cached:
      "inputTokenDetails.cacheReadTokens|cachedInputTokens|inputTokensDetails.cachedTokens|promptTokensDetails.cachedTokens|inputTokensDetails.cached_tokens|inputTokensDetails.[].cached_tokens",
    cache_write:
      "inputTokenDetails.cacheWriteTokens|inputTokensDetails.cacheWriteTokens|promptTokensDetails.cacheWriteTokens|inputTokensDetails.cache_write_tokens|inputTokensDetails.[].cache_write_tokens",
    cached_beside: "cachedInputTokens|inputTokenDetails.cacheReadTokens",
    input_beside: "connectorTokens",
    reasoning:
      "outputTokenDetails.reasoningTokens|reasoningTokens|outputTokensDetails.reasoningTokens|completionTokensDetails.reasoningTokens|outputTokensDetails.reasoning_tokens|outputTokensDetails.[].reasoning_tokens",
    total: "totalTokens",
    rest_is_input: "totalTokens",
  },
  // AWS, InvokeModel (docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-meta.html), and the metrics that close
  // its streams.
  {
    shape: "bedrock_invoke",
    has: [["inputTokenCount", "prompt_token_count"]],
    needs: ["inputTokenCount|prompt_token_count", "outputTokenCount|generation_token_count"],
    input: ["inputTokenCount|prompt_token_count", "cacheReadInputTokenCount", "cacheWriteInputTokenCount"],
    output: ["outputTokenCount|generation_token_count"],
    cached: "cacheReadInputTokenCount",
    cache_write: "cacheWriteInputTokenCount",
  },
  // AWS, Titan text and embeddings by InvokeModel
  // (docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-titan-text.html, …/model-parameters-titan-embed-text.html).
  {
    shape: "bedrock_titan",
    has: [["inputTextTokenCount"]],
    needs: ["inputTextTokenCount", "totalOutputTextTokenCount|results.0.tokenCount|embedding"],
    input: ["inputTextTokenCount"],
    output: ["totalOutputTextTokenCount|results.0.tokenCount"],
  },
  // Ollama's own API (docs.ollama.com/api/chat, …/api/embed).
  {
    shape: "ollama",
    has: [["eval_count", "prompt_eval_count"]],
    needs: ["prompt_eval_count", "eval_count|embeddings"],
    input: ["prompt_eval_count"],
    output: ["eval_count"],
  },
  // llama.cpp's own API (github.com/ggml-org/llama.cpp, tools/server/README.md).
  {
    shape: "llama_cpp",
    has: [["tokens_predicted"]],
    needs: ["tokens_evaluated", "tokens_predicted"],
    input: ["tokens_evaluated"],
    output: ["tokens_predicted"],
  },
  // IBM, watsonx.ai text generation (cloud.ibm.com/apidocs/watsonx-ai).
  {
    shape: "watsonx",
    has: [["generated_token_count"]],
    needs: ["input_token_count", "generated_token_count"],
    input: ["input_token_count"],
    output: ["generated_token_count"],
  },
  // Cohere, "Chat" (docs.cohere.com/reference/chat): what was used, not what is billed; the cached part beside it.
  {
    shape: "cohere_chat",
    has: [["tokens.input_tokens", "tokens.inputTokens"]],
    needs: ["tokens.input_tokens|tokens.inputTokens", "tokens.output_tokens|tokens.outputTokens"],
    input: ["tokens.input_tokens|tokens.inputTokens"],
    output: ["tokens.output_tokens|tokens.outputTokens"],
    cached: "cached_tokens|cachedTokens",
  },
  // Cohere, "Embed" and older answers (docs.cohere.com/reference/embed): only what was billed is reported, pictures
  // beside the text.
  {
    shape: "cohere_billed",
    has: [
      [
        "billed_units.input_tokens",
        "billed_units.image_tokens",
        "billedUnits.inputTokens",
        "billedUnits.imageTokens",
      ],
    ],
    needs: [
      "billed_units.input_tokens|billed_units.image_tokens|billedUnits.inputTokens|billedUnits.imageTokens",
    ],
    input: [
      "billed_units.input_tokens|billedUnits.inputTokens",
      "billed_units.image_tokens|billedUnits.imageTokens",
    ],
    output: ["billed_units.output_tokens|billedUnits.outputTokens"],
  },
  // Hugging Face, Text Generation Inference (huggingface.co/docs/text-generation-inference): the last event of a stream;
  // a whole answer does not tell how long its prompt was.
  {
    shape: "hugging_face",
    has: [["details.generated_tokens"]],
    needs: ["details.input_length", "details.generated_tokens"],
    input: ["details.input_length"],
    output: ["details.generated_tokens"],
  },
  // Meta's Llama API (llama.developer.meta.com/docs/api/chat): a list of metrics; by their names where it is streamed.
  {
    shape: "llama_api",
    has: [["metrics.[metric=num_prompt_tokens].value", "num_prompt_tokens"]],
    needs: [
      "metrics.[metric=num_prompt_tokens].value|num_prompt_tokens",
      "metrics.[metric=num_completion_tokens].value|num_completion_tokens",
    ],
    input: ["metrics.[metric=num_prompt_tokens].value|num_prompt_tokens"],
    output: ["metrics.[metric=num_completion_tokens].value|num_completion_tokens"],
    total: "metrics.[metric=num_total_tokens].value|num_total_tokens",
  },
  // Vertex AI, "Text embeddings API" (cloud.google.com/vertex-ai/generative-ai/docs/model-reference/text-embeddings-api),
  // and Google's SDK: each text is counted by itself.
  {
    shape: "vertex_embeddings",
    has: [["predictions.[].embeddings.statistics.token_count", "embeddings.[].statistics.tokenCount"]],
    needs: ["predictions.[].embeddings.statistics.token_count|embeddings.[].statistics.tokenCount"],
    input: ["predictions.[].embeddings.statistics.token_count|embeddings.[].statistics.tokenCount"],
    output: [],
  },
  // OpenRouter, "Get a generation" (openrouter.ai/docs/api-reference/get-a-generation): the native counts are charged.
  {
    shape: "openrouter_generation",
    has: [["native_tokens_prompt"]],
    needs: ["native_tokens_prompt", "native_tokens_completion"],
    input: ["native_tokens_prompt"],
    output: ["native_tokens_completion"],
    cached: "native_tokens_cached",
    reasoning: "native_tokens_reasoning",
  },
  // Replicate's language models (replicate.com/docs/reference/http#predictions.get, metrics).
  {
    shape: "replicate",
    has: [["input_token_count"], ["output_token_count"]],
    needs: ["input_token_count", "output_token_count"],
    input: ["input_token_count"],
    output: ["output_token_count"],
  },
  // Backends' own wrappers: one total (row 003.2), and the AI SDK's embeddings. Read only where nothing above fits.
  {
    shape: "tokens_used",
    has: [["tokensUsed", "tokens_used", "total_tokens", "totalTokens", "usage.tokens"]],
    needs: ["tokensUsed|tokens_used|total_tokens|totalTokens|usage.tokens"],
    input: ["tokensUsed|tokens_used|total_tokens|totalTokens|usage.tokens"],
    output: [],
    only_total: true,
  },
] as const satisfies readonly ShapeOfUsage[];
