/**
 * How providers report the tokens of a call, as data: `readUsage` follows this table, and so does
 * `governance.read_usage` in SQL, whose copy a test compares. To add a provider's shape, add a line to both, and an
 * example to usage.test.ts.
 */

/** A provider's report. Counts are named by their path in the report; of `a|b` the first that is given counts. */
export interface ShapeOfUsage {
  readonly shape: string;
  /** The report has one of these (and one of each further list). */
  readonly has: readonly (readonly string[])[];
  /** Or: the model is named so, where that alone tells (part of a regular expression). */
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
  /** Part of the cache writes that is kept for an hour. */
  readonly cache_write_1h?: string;
  readonly reasoning?: string;
  /** Must be what input and output add up to; what it has more may be reasoning that stands beside the output. */
  readonly total?: string;
  /** Tokens that it counts as input, where it does not say what they were. */
  readonly only_total?: true;
}

/** Where a response names its model. */
export const modelNames = "modelVersion|model|response.model|message.model|model_used|modelUsed";

/** Where a report lies in a response, a stream's chunk or a stored message: the first place that has one is read. */
export const usagePlaces: readonly string[] = [
  "usageMetadata",
  "usage_metadata",
  "usage.tokens",
  "usage",
  "choices.0.usage",
  "amazon-bedrock-invocationMetrics",
  "results.0",
  "x_groq.usage",
  "response.usage",
  "message.usage",
  "meta.tokens",
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
  // total. DeepSeek (api-docs.deepseek.com) and LiteLLM (docs.litellm.ai) name the cached parts in their own way.
  {
    shape: "openai_chat",
    has: [["prompt_tokens"]],
    needs: ["prompt_tokens", "total_tokens|completion_tokens"],
    input: ["prompt_tokens"],
    output: ["completion_tokens"],
    cached: "prompt_tokens_details.cached_tokens|prompt_cache_hit_tokens|cache_read_input_tokens",
    cache_write: "prompt_tokens_details.cache_write_tokens|prompt_tokens_details.cache_creation_tokens",
    reasoning: "completion_tokens_details.reasoning_tokens",
    total: "total_tokens",
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
  // are part of input_tokens, reasoning tokens part of output_tokens. LangChain's usage_metadata, and Cohere's tokens.
  {
    shape: "openai_responses",
    has: [["input_tokens"]],
    needs: ["input_tokens", "output_tokens"],
    input: ["input_tokens"],
    output: ["output_tokens"],
    cached:
      "input_tokens_details.cached_tokens|input_token_details.cached_tokens|input_token_details.cache_read",
    cache_write: "input_tokens_details.cache_write_tokens|input_token_details.cache_creation",
    reasoning: "output_tokens_details.reasoning_tokens|output_token_details.reasoning",
    total: "total_tokens",
  },
  // Google, "UsageMetadata" (ai.google.dev/api/generate-content#UsageMetadata): the prompt holds the cached part;
  // thoughts and tool-use prompts are counted beside candidates and prompt. Zeros are left out on Google's wire, so a
  // total speaks for the parts that are missing. The Live API says responseTokenCount.
  {
    shape: "google_generate_content",
    has: [["promptTokenCount", "candidatesTokenCount", "totalTokenCount"]],
    needs: ["totalTokenCount|promptTokenCount", "totalTokenCount|candidatesTokenCount"],
    input: ["promptTokenCount", "toolUsePromptTokenCount"],
    output: ["candidatesTokenCount|responseTokenCount", "thoughtsTokenCount"],
    cached: "cachedContentTokenCount",
    reasoning: "thoughtsTokenCount",
    total: "totalTokenCount",
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
  // the cached parts out.
  {
    shape: "bedrock_converse",
    has: [["inputTokens"], ["cacheReadInputTokens", "cacheWriteInputTokens"]],
    needs: ["inputTokens", "outputTokens"],
    input: ["inputTokens", "cacheReadInputTokens", "cacheWriteInputTokens"],
    output: ["outputTokens"],
    cached: "cacheReadInputTokens",
    cache_write: "cacheWriteInputTokens",
  },
  // Vercel's AI SDK 6 (ai-sdk.dev), as its providers report, and 5 and 4.
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
    cached: "inputTokenDetails.cacheReadTokens|cachedInputTokens",
    cache_write: "inputTokenDetails.cacheWriteTokens",
    reasoning: "outputTokenDetails.reasoningTokens|reasoningTokens",
    total: "totalTokens",
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
  // Ollama's own API (docs.ollama.com/api/chat).
  {
    shape: "ollama",
    has: [["eval_count"]],
    needs: ["prompt_eval_count", "eval_count"],
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
  // Backends' own wrappers: one total (row 003.2). Read only where nothing above fits.
  {
    shape: "tokens_used",
    has: [["tokensUsed", "tokens_used", "total_tokens", "totalTokens"]],
    needs: ["tokensUsed|tokens_used|total_tokens|totalTokens"],
    input: ["tokensUsed|tokens_used|total_tokens|totalTokens"],
    output: [],
    only_total: true,
  },
] as const satisfies readonly ShapeOfUsage[];
