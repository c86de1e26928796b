/**
 * How providers report the tokens of a call, as data: `readUsage` follows this table, and so does
 * `governance.read_usage` in SQL, whose copy a test compares. To add a provider's shape, add a line to both, and an
 * example to tests/support/usage-examples.ts. Where a report lies in a response: places.ts.
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
  // total. DeepSeek (api-docs.deepseek.com), LiteLLM (docs.litellm.ai), Mistral (docs.mistral.ai), Moonshot
  // (platform.moonshot.ai), Writer (dev.writer.com), xAI's SDK (github.com/xai-org/xai-sdk-python) and CrewAI
  // (docs.crewai.com) name the cached parts in their own way, the last two and Writer the reasoning too.
  {
    shape: "openai_chat",
    has: [["prompt_tokens"]],
    needs: ["prompt_tokens", "total_tokens|completion_tokens"],
    input: ["prompt_tokens"],
    output: ["completion_tokens"],
    cached:
      "prompt_tokens_details.cached_tokens|prompt_token_details.cached_tokens|prompt_cache_hit_tokens|cache_read_input_tokens|num_cached_tokens|cached_tokens|cached_prompt_tokens|cached_prompt_text_tokens|prompt_cached_tokens",
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
    reasoning:
      "completion_tokens_details.reasoning_tokens|completion_token_details.reasoning_tokens|reasoning_tokens",
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
  // are part of input_tokens, reasoning tokens part of output_tokens. LangChain's usage_metadata, Cohere's tokens,
  // DashScope's own API (help.aliyun.com/model-studio), Codex (developers.openai.com/codex/sdk), and the agents of
  // PydanticAI (ai.pydantic.dev) and Agno (docs.agno.com).
  {
    shape: "openai_responses",
    has: [["input_tokens"]],
    needs: ["input_tokens", "output_tokens"],
    input: ["input_tokens"],
    output: ["output_tokens"],
    cached:
      "input_tokens_details.cached_tokens|input_token_details.cached_tokens|input_token_details.cache_read|prompt_tokens_details.cached_tokens|cached_input_tokens|cache_read_tokens",
    cache_write:
      "input_tokens_details.cache_write_tokens|input_token_details.cache_creation|cache_write_input_tokens|cache_write_tokens",
    cache_write_5m: "input_token_details.ephemeral_5m_input_tokens",
    cache_write_1h: "input_token_details.ephemeral_1h_input_tokens",
    // LangChain.js before 1.3.11 left Anthropic's caches out of its input (github.com/langchain-ai/langchainjs/pull/9520).
    // Agno hands Anthropic's counts on as they are.
    cached_beside:
      "input_token_details.cache_read|input_token_details.cache_creation|cache_read_tokens|cache_write_tokens",
    reasoning:
      "output_tokens_details.reasoning_tokens|output_token_details.reasoning|reasoning_output_tokens|reasoning_tokens",
    total: "total_tokens",
  },
  // Microsoft.Extensions.AI, "UsageDetails" (learn.microsoft.com/dotnet/api/microsoft.extensions.ai.usagedetails), and
  // LangChain4j's "TokenUsage" (docs.langchain4j.dev): caches and reasoning are parts.
  {
    shape: "microsoft_ai",
    has: [["inputTokenCount"], ["totalTokenCount"]],
    needs: ["inputTokenCount", "outputTokenCount|totalTokenCount"],
    input: ["inputTokenCount"],
    output: ["outputTokenCount"],
    cached: "cachedInputTokenCount|inputTokensDetails.cachedTokens",
    reasoning: "reasoningTokenCount|outputTokensDetails.reasoningTokens",
    total: "totalTokenCount",
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
  // Genkit (genkit.dev) names Google's thoughts and cache, the thoughts beside its output.
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
      "inputTokenDetails.cacheReadTokens|cachedInputTokens|inputTokensDetails.cachedTokens|promptTokensDetails.cachedTokens|inputTokensDetails.cached_tokens|inputTokensDetails.[].cached_tokens|cachedContentTokens",
    cache_write:
      "inputTokenDetails.cacheWriteTokens|inputTokensDetails.cacheWriteTokens|promptTokensDetails.cacheWriteTokens|inputTokensDetails.cache_write_tokens|inputTokensDetails.[].cache_write_tokens",
    cached_beside: "cachedInputTokens|inputTokenDetails.cacheReadTokens",
    input_beside: "connectorTokens",
    reasoning:
      "outputTokenDetails.reasoningTokens|reasoningTokens|outputTokensDetails.reasoningTokens|completionTokensDetails.reasoningTokens|outputTokensDetails.reasoning_tokens|outputTokensDetails.[].reasoning_tokens|thoughtsTokens",
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
  // AWS, Nova Sonic (docs.aws.amazon.com/nova/latest/userguide/output-events.html): speech and text, since the session
  // began.
  {
    shape: "nova_sonic",
    has: [["totalInputTokens"], ["totalOutputTokens"]],
    needs: ["totalInputTokens", "totalOutputTokens"],
    input: ["totalInputTokens"],
    output: ["totalOutputTokens"],
    total: "totalTokens",
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
  // a whole answer does not tell how long its prompt was. LoRAX (loraexchange.ai) tells it by another name.
  {
    shape: "hugging_face",
    has: [["details.generated_tokens"]],
    needs: ["details.input_length|details.prompt_tokens", "details.generated_tokens"],
    input: ["details.input_length|details.prompt_tokens"],
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
  // Yandex Cloud, "TextGeneration" (yandex.cloud/docs/foundation-models/text-generation/api-ref): texts of digits.
  {
    shape: "yandex",
    has: [["inputTextTokens"]],
    needs: ["inputTextTokens", "completionTokens|totalTokens"],
    input: ["inputTextTokens"],
    output: ["completionTokens"],
    reasoning: "completionTokensDetails.reasoningTokens",
    total: "totalTokens",
  },
  // Tencent, Hunyuan's own API (cloud.tencent.com/document/api/1729/105701).
  {
    shape: "hunyuan",
    has: [["PromptTokens"]],
    needs: ["PromptTokens", "CompletionTokens|TotalTokens"],
    input: ["PromptTokens"],
    output: ["CompletionTokens"],
    total: "TotalTokens",
  },
  // Coze, "Chat" (coze.com/docs/developer_guides/chat_v3).
  {
    shape: "coze",
    has: [["token_count"], ["input_count", "output_count"]],
    needs: ["input_count", "output_count"],
    input: ["input_count"],
    output: ["output_count"],
    total: "token_count",
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
