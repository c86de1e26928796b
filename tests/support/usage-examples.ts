import type { UsageCounts } from "../../shared/governance/index.ts";
import { libraryUsageExamples, type UsageExample } from "./library-usage-examples.ts";

/** The counts that were read, in the order of the examples. */
export const inOrder = (counts: UsageCounts): readonly number[] => [
  counts.input_tokens,
  counts.output_tokens,
  counts.cached_input_tokens,
  counts.cache_write_tokens,
  counts.reasoning_tokens,
];

/**
 * Shapes as each provider documents them; the page is named beside each.
 * Counts: [input, output, cached input, cache writes, reasoning].
 */
export const usageExamples: readonly UsageExample[] = [
  [
    "platform.openai.com/docs/api-reference/chat/object",
    {
      id: "chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG",
      object: "chat.completion",
      created: 1741570283,
      model: "gpt-4o-2024-08-06",
      choices: [
        { index: 0, message: { role: "assistant", content: "…", refusal: null }, finish_reason: "stop" },
      ],
      usage: {
        prompt_tokens: 1117,
        completion_tokens: 46,
        total_tokens: 1163,
        prompt_tokens_details: { cached_tokens: 1024, audio_tokens: 0 },
        completion_tokens_details: {
          reasoning_tokens: 30,
          audio_tokens: 0,
          accepted_prediction_tokens: 0,
          rejected_prediction_tokens: 0,
        },
      },
      service_tier: "default",
    },
    [1117, 46, 1024, 0, 30],
    "openai_chat",
  ],
  [
    "platform.openai.com/docs/api-reference/responses/object",
    {
      id: "resp_67ccd3a9da748190baa7f1570fe91ac604becb25c45c1d41",
      object: "response",
      status: "completed",
      model: "gpt-4o-2024-08-06",
      output: [],
      usage: {
        input_tokens: 328,
        input_tokens_details: { cached_tokens: 100 },
        output_tokens: 52,
        output_tokens_details: { reasoning_tokens: 7 },
        total_tokens: 380,
      },
      metadata: {},
    },
    [328, 52, 100, 0, 7],
    "openai_responses",
  ],
  [
    "docs.anthropic.com/en/api/messages",
    {
      id: "msg_013Zva2CMHLNnXjNJJKqJ2EF",
      type: "message",
      role: "assistant",
      model: "claude-sonnet-4-20250514",
      content: [{ type: "text", text: "Hi! My name is Claude." }],
      stop_reason: "end_turn",
      usage: { input_tokens: 2095, output_tokens: 503 },
    },
    [2095, 503, 0, 0, 0],
    "anthropic_messages",
  ],
  [
    "docs.anthropic.com/en/docs/build-with-claude/prompt-caching",
    {
      type: "message",
      model: "claude-sonnet-4-20250514",
      usage: {
        input_tokens: 2048,
        cache_read_input_tokens: 1800,
        cache_creation_input_tokens: 248,
        output_tokens: 503,
        cache_creation: { ephemeral_5m_input_tokens: 148, ephemeral_1h_input_tokens: 100 },
      },
    },
    [4096, 503, 1800, 248, 0],
    "anthropic_messages",
  ],
  [
    "ai.google.dev/api/generate-content#UsageMetadata",
    {
      candidates: [{ content: { parts: [{ text: "…" }], role: "model" }, finishReason: "STOP", index: 0 }],
      usageMetadata: {
        promptTokenCount: 120,
        cachedContentTokenCount: 100,
        candidatesTokenCount: 40,
        toolUsePromptTokenCount: 15,
        thoughtsTokenCount: 25,
        totalTokenCount: 200,
        promptTokensDetails: [{ modality: "TEXT", tokenCount: 120 }],
      },
      modelVersion: "gemini-2.5-flash",
    },
    [135, 65, 100, 0, 25],
    "google_generate_content",
  ],
  [
    "ai.google.dev/gemini-api/docs/openai (thinking shows in the total alone)",
    {
      model: "gemini-2.5-pro",
      choices: [],
      usage: { completion_tokens: 102, prompt_tokens: 758, total_tokens: 1725 },
    },
    [758, 967, 0, 0, 865],
    "openai_chat",
  ],
  [
    "docs.x.ai/docs/guides/reasoning (reasoning beside the completion)",
    {
      model: "grok-3-mini",
      choices: [],
      usage: {
        prompt_tokens: 32,
        completion_tokens: 9,
        total_tokens: 135,
        completion_tokens_details: { reasoning_tokens: 94 },
      },
    },
    [32, 103, 0, 0, 94],
    "openai_chat",
  ],
  [
    "docs.perplexity.ai/api-reference/chat-completions-post",
    {
      id: "3c90c3cc-0d44-4b50-8888-8dd25736052a",
      model: "sonar-pro",
      choices: [{ index: 0, finish_reason: "stop", message: { role: "assistant", content: "…" } }],
      usage: { prompt_tokens: 14, completion_tokens: 70, total_tokens: 84, search_context_size: "low" },
    },
    [14, 70, 0, 0, 0],
    "perplexity_chat",
  ],
  [
    "docs.perplexity.ai/guides/pricing (deep research: citations are input, reasoning is output)",
    {
      model: "sonar-deep-research",
      usage: {
        prompt_tokens: 33,
        completion_tokens: 7163,
        total_tokens: 7196,
        citation_tokens: 20016,
        num_search_queries: 18,
        reasoning_tokens: 95305,
      },
    },
    [20049, 102468, 0, 0, 95305],
    "perplexity_chat",
  ],
  [
    "platform.openai.com/docs/api-reference/embeddings (nothing is written)",
    {
      object: "list",
      data: [],
      model: "text-embedding-3-small",
      usage: { prompt_tokens: 8, total_tokens: 8 },
    },
    [8, 0, 0, 0, 0],
    "openai_chat",
  ],
  [
    "ai.google.dev/api/generate-content#UsageMetadata (zeros are left out of JSON)",
    { candidates: [], usageMetadata: { promptTokenCount: 7, totalTokenCount: 7 } },
    [7, 0, 0, 0, 0],
    "google_generate_content",
  ],
  [
    "a backend's own answer (row 003.2)",
    { success: true, tokensUsed: 423 },
    [423, 0, 0, 0, 0],
    "tokens_used",
  ],
  [
    "a backend's own answer (row 003.2)",
    { vision: "…", metadata: { tokensUsed: 1234 } },
    [1234, 0, 0, 0, 0],
    "tokens_used",
  ],
  [
    "api-docs.deepseek.com (the cached part has a name of its own)",
    {
      usage: {
        prompt_tokens: 1204,
        completion_tokens: 50,
        total_tokens: 1254,
        prompt_cache_hit_tokens: 1024,
        prompt_cache_miss_tokens: 180,
      },
    },
    [1204, 50, 1024, 0, 0],
    "openai_chat",
  ],
  [
    "docs.litellm.ai (Anthropic's cache writes under OpenAI's names)",
    {
      usage: {
        prompt_tokens: 12307,
        completion_tokens: 50,
        total_tokens: 12357,
        prompt_tokens_details: { cached_tokens: 0, cache_creation_tokens: 12304 },
      },
    },
    [12307, 50, 0, 12304, 0],
    "openai_chat",
  ],
  [
    "docs.anthropic.com, compaction and advisor (both add; messages are in already; declined fallbacks are free)",
    {
      type: "message",
      model: "claude-sonnet",
      usage: {
        input_tokens: 23_000,
        output_tokens: 1_000,
        iterations: [
          { type: "compaction", input_tokens: 180_000, output_tokens: 3_500 },
          { type: "message", input_tokens: 23_000, output_tokens: 1_000 },
          { type: "advisor_message", model: "claude-opus", input_tokens: 900, output_tokens: 100 },
          { type: "fallback_declined", input_tokens: 5_000, output_tokens: 7 },
        ],
      },
    },
    [203_900, 4_600, 0, 0, 0],
    "anthropic_messages",
  ],
  [
    "a detail that does not fit into counts that agree with their total is left out",
    {
      usage: {
        prompt_tokens: 53154,
        completion_tokens: 2809,
        total_tokens: 55963,
        prompt_tokens_details: { cached_tokens: 49408 },
        completion_tokens_details: { reasoning_tokens: 3364 },
      },
    },
    [53154, 2809, 49408, 0, 0],
    "openai_chat",
  ],
  [
    "docs.aws.amazon.com/bedrock, TokenUsage (inputTokens leaves the cached parts out)",
    {
      usage: {
        inputTokens: 25,
        outputTokens: 60,
        totalTokens: 185,
        cacheReadInputTokens: 100,
        cacheWriteInputTokens: 0,
      },
    },
    [125, 60, 100, 0, 0],
    "bedrock_converse",
  ],
  [
    "ai-sdk.dev 5",
    {
      text: "",
      usage: {
        inputTokens: 100,
        outputTokens: 50,
        totalTokens: 150,
        reasoningTokens: 10,
        cachedInputTokens: 80,
      },
    },
    [100, 50, 80, 0, 10],
    "ai_sdk",
  ],
  [
    "ai-sdk.dev 6, as providers report",
    {
      usage: {
        inputTokens: { total: 100, noCache: 20, cacheRead: 80 },
        outputTokens: { total: 50, reasoning: 10 },
      },
    },
    [100, 50, 80, 0, 10],
    "ai_sdk",
  ],
  [
    "docs.langchain.com, usage_metadata",
    {
      usage_metadata: {
        input_tokens: 100,
        output_tokens: 50,
        total_tokens: 150,
        input_token_details: { cache_read: 80 },
      },
    },
    [100, 50, 80, 0, 0],
    "openai_responses",
  ],
  [
    "docs.cohere.com, tokens rather than billed units",
    {
      usage: {
        billed_units: { input_tokens: 5, output_tokens: 10 },
        tokens: { input_tokens: 71, output_tokens: 10 },
        cached_tokens: 64,
      },
    },
    [71, 10, 64, 0, 0],
    "cohere_chat",
  ],
  [
    "docs.snowflake.com, Cortex COMPLETE with its guard",
    { usage: { prompt_tokens: 93, completion_tokens: 402, guardrails_tokens: 677, total_tokens: 1172 } },
    [770, 402, 0, 0, 0],
    "openai_chat",
  ],
  [
    "ai.google.dev, Live API",
    { usageMetadata: { promptTokenCount: 10, responseTokenCount: 20, totalTokenCount: 30 } },
    [10, 20, 0, 0, 0],
    "google_generate_content",
  ],
  [
    "ai.google.dev, Interactions API",
    { usage: { total_input_tokens: 10, total_output_tokens: 20, total_thought_tokens: 5, total_tokens: 35 } },
    [10, 25, 0, 0, 5],
    "google_interactions",
  ],
  [
    "a proxy that fills one provider's names with zeros",
    {
      usage: { prompt_tokens: 0, completion_tokens: 0, total_tokens: 0, input_tokens: 52, output_tokens: 17 },
    },
    [52, 17, 0, 0, 0],
    "openai_responses",
  ],
  [
    "platform.openai.com, the image tool's tokens beside the response's",
    {
      object: "response",
      usage: { input_tokens: 100, output_tokens: 50, total_tokens: 150 },
      tool_usage: { image_gen: { input_tokens: 30, output_tokens: 4160 } },
    },
    [130, 4210, 0, 0, 0],
    "openai_responses",
  ],
  [
    "docs.ollama.com, a chat",
    {
      model: "llama3.2",
      message: { role: "assistant", content: "Hi" },
      done: true,
      prompt_eval_count: 26,
      eval_count: 298,
    },
    [26, 298, 0, 0, 0],
    "ollama",
  ],
  [
    "docs.ollama.com, a completion",
    { model: "llama3.2", response: "Hi", done: true, prompt_eval_count: 26, eval_count: 2 },
    [26, 2, 0, 0, 0],
    "ollama",
  ],
  [
    "llama.cpp, a completion",
    {
      content: "Hi",
      tokens_predicted: 100,
      tokens_evaluated: 20,
      timings: { prompt_n: 20, predicted_n: 100 },
    },
    [20, 100, 0, 0, 0],
    "llama_cpp",
  ],
  [
    "docs.aws.amazon.com, InvokeModel of Meta's models",
    { generation: "Hi", prompt_token_count: 5, generation_token_count: 20, stop_reason: "stop" },
    [5, 20, 0, 0, 0],
    "bedrock_invoke",
  ],
  [
    "docs.aws.amazon.com, the metrics of InvokeModelWithResponseStream",
    {
      "amazon-bedrock-invocationMetrics": { inputTokenCount: 10, outputTokenCount: 7, invocationLatency: 90 },
    },
    [10, 7, 0, 0, 0],
    "bedrock_invoke",
  ],
  [
    "cloud.ibm.com, watsonx text generation",
    {
      model_id: "ibm/granite",
      results: [{ generated_text: "Hi", generated_token_count: 20, input_token_count: 5 }],
    },
    [5, 20, 0, 0, 0],
    "watsonx",
  ],
  [
    "docs.cohere.com/reference/embed",
    {
      id: "da6e531f",
      embeddings: { float: [[0.1]] },
      texts: ["hello"],
      meta: { api_version: { version: "2" }, billed_units: { input_tokens: 2 } },
    },
    [2, 0, 0, 0, 0],
    "cohere_billed",
  ],
  [
    "openrouter.ai/docs/api-reference/get-a-generation",
    {
      data: {
        id: "gen-3bhGkxlo4XFrqiabUM7NDtwDzWwG",
        model: "openai/gpt-4o",
        streamed: true,
        tokens_prompt: 10,
        tokens_completion: 25,
        native_tokens_prompt: 12,
        native_tokens_completion: 30,
        native_tokens_reasoning: 5,
        native_tokens_cached: 3,
        total_cost: 0.0015,
      },
    },
    [12, 30, 3, 0, 5],
    "openrouter_generation",
  ],
  [
    "replicate.com/docs/reference/http, a prediction of a language model",
    { id: "x", output: ["Hi"], metrics: { input_token_count: 5, output_token_count: 20, predict_time: 1.2 } },
    [5, 20, 0, 0, 0],
    "replicate",
  ],
  [
    "js.langchain.com, an AIMessage as it is kept",
    {
      lc: 1,
      type: "constructor",
      id: ["langchain_core", "messages", "AIMessage"],
      kwargs: {
        content: "Hi",
        usage_metadata: {
          input_tokens: 10,
          output_tokens: 5,
          total_tokens: 15,
          input_token_details: { cache_read: 4 },
          output_token_details: { reasoning: 2 },
        },
      },
    },
    [10, 5, 4, 0, 2],
    "openai_responses",
  ],
  ...libraryUsageExamples,
];
