/** A report of usage, the page that documents it, and what it says. Counts: [input, output, cached, cache writes, reasoning]. */
export type UsageExample = readonly [
  page: string,
  response: unknown,
  counts: readonly number[],
  shape: string,
];

/** Shapes of SDKs, gateways and providers' further interfaces, where parts lie beside what they belong to. */
export const libraryUsageExamples: readonly UsageExample[] = [
  [
    "docs.mistral.ai/agents/connectors/websearch (what connectors read is beside the prompt)",
    {
      object: "conversation.response",
      outputs: [{ type: "message.output", content: "Hi", model: "mistral-medium-latest" }],
      usage: {
        prompt_tokens: 188,
        completion_tokens: 55,
        total_tokens: 7355,
        connector_tokens: 7112,
        connectors: { web_search: 1 },
      },
    },
    [7300, 55, 0, 0, 0],
    "openai_chat",
  ],
  [
    "docs.mistral.ai/capabilities/audio (sound is in the total alone)",
    {
      model: "voxtral-mini-latest",
      choices: [{ message: { content: "Hi" } }],
      usage: { prompt_audio_seconds: 203, prompt_tokens: 4, total_tokens: 3264, completion_tokens: 635 },
    },
    [2629, 635, 0, 0, 0],
    "openai_chat",
  ],
  [
    "github.com/vercel/ai, generateText of version 5 over Google with a search (tool use and thoughts in the total)",
    {
      text: "Hi",
      response: { modelId: "gemini-2.5-flash" },
      usage: { inputTokens: 151, outputTokens: 1089, reasoningTokens: 1120, totalTokens: 20689 },
    },
    [18480, 2209, 0, 0, 1120],
    "ai_sdk",
  ],
  [
    "github.com/vercel/ai, generateText of version 5 over Bedrock (caches in the total)",
    { usage: { inputTokens: 4, outputTokens: 30, totalTokens: 4334, cachedInputTokens: 4000 } },
    [4304, 30, 4000, 0, 0],
    "ai_sdk",
  ],
  [
    "openrouter.ai/docs/agent-sdk/typescript/models/openresponsesusage",
    {
      usage: {
        inputTokens: 10,
        inputTokensDetails: { cachedTokens: 4 },
        outputTokens: 25,
        outputTokensDetails: { reasoningTokens: 7 },
        totalTokens: 35,
      },
    },
    [10, 25, 4, 0, 7],
    "ai_sdk",
  ],
  [
    "github.com/langchain-ai/langchainjs/pull/9520 (before it, caches were beside the input)",
    {
      content: "Hi",
      usage_metadata: {
        input_tokens: 4,
        output_tokens: 10,
        total_tokens: 14,
        input_token_details: { cache_creation: 300, cache_read: 4000 },
      },
      response_metadata: { model: "claude-sonnet-4-5" },
    },
    [4304, 10, 4000, 300, 0],
    "openai_responses",
  ],
  [
    "platform.openai.com/docs/api-reference/audio/json-object (a transcription)",
    {
      text: "Hi there",
      usage: {
        type: "tokens",
        input_tokens: 14,
        input_token_details: { text_tokens: 0, audio_tokens: 14 },
        output_tokens: 45,
        total_tokens: 59,
      },
    },
    [14, 45, 0, 0, 0],
    "openai_responses",
  ],
  [
    "platform.openai.com/docs/api-reference/responses/compact",
    {
      object: "response.compaction",
      output: [{ type: "compaction", encrypted_content: "x" }],
      usage: {
        input_tokens: 139,
        output_tokens: 438,
        output_tokens_details: { reasoning_tokens: 64 },
        total_tokens: 577,
      },
    },
    [139, 438, 0, 0, 64],
    "openai_responses",
  ],
  [
    "ai.google.dev/gemini-api/docs/embeddings (only what was read)",
    { embeddings: [{ values: [0.1] }], usageMetadata: { promptTokenCount: 6 } },
    [6, 0, 0, 0, 0],
    "google_generate_content",
  ],
  [
    "ai-sdk.dev/docs/ai-sdk-core/embeddings",
    { value: "Hi", embedding: [0.1], usage: { tokens: 12 } },
    [12, 0, 0, 0, 0],
    "tokens_used",
  ],
  [
    "github.com/BerriAI/litellm, a gateway that copies Anthropic's names and leaves the caches out of the prompt",
    {
      choices: [{ message: { content: "Hi" } }],
      usage: {
        prompt_tokens: 3,
        completion_tokens: 50,
        total_tokens: 53,
        cache_read_input_tokens: 5000,
        cache_creation_input_tokens: 100,
      },
    },
    [5103, 50, 5000, 100, 0],
    "openai_chat",
  ],
  [
    "axios-http.com/docs/res_schema, around OpenAI's answer",
    {
      status: 200,
      data: {
        model: "gpt-4o",
        choices: [{ message: { content: "Hi" } }],
        usage: { prompt_tokens: 10, completion_tokens: 3, total_tokens: 13 },
      },
    },
    [10, 3, 0, 0, 0],
    "openai_chat",
  ],
  [
    "vercel.com/docs/ai-gateway (cache writes among the prompt's details)",
    {
      choices: [{ message: { content: "Hi" } }],
      usage: {
        prompt_tokens: 1500,
        completion_tokens: 50,
        total_tokens: 1550,
        prompt_tokens_details: { cached_tokens: 1000, cache_creation_input_tokens: 200 },
      },
    },
    [1500, 50, 1000, 200, 0],
    "openai_chat",
  ],
  [
    "help.aliyun.com/model-studio, DashScope's own API",
    {
      output: { text: "Hi" },
      usage: {
        input_tokens: 10,
        output_tokens: 5,
        total_tokens: 15,
        prompt_tokens_details: { cached_tokens: 3 },
      },
    },
    [10, 5, 3, 0, 0],
    "openai_responses",
  ],
  [
    "docs.cohere.com/reference/embed (pictures are billed beside the text)",
    {
      embeddings: { float: [[0.1]] },
      meta: { api_version: { version: "2" }, billed_units: { input_tokens: 3, image_tokens: 1000 } },
    },
    [1003, 0, 0, 0, 0],
    "cohere_billed",
  ],
  [
    "github.com/cohere-ai/cohere-typescript (a picture alone)",
    { embeddings: { float: [[0.1]] }, meta: { billedUnits: { images: 1, imageTokens: 1000 } } },
    [1000, 0, 0, 0, 0],
    "cohere_billed",
  ],
  [
    "cloud.google.com/vertex-ai/generative-ai/docs/model-reference/text-embeddings-api (each text is counted)",
    {
      predictions: [6, 4].map((token_count) => ({
        embeddings: { statistics: { truncated: false, token_count }, values: [0.1] },
      })),
      metadata: { billableCharacterCount: 35 },
    },
    [10, 0, 0, 0, 0],
    "vertex_embeddings",
  ],
  [
    "googleapis.github.io/js-genai, embedContent of Vertex AI",
    { embeddings: [{ values: [0.1], statistics: { truncated: false, tokenCount: 6 } }] },
    [6, 0, 0, 0, 0],
    "vertex_embeddings",
  ],
  [
    "llama.developer.meta.com/docs/api/chat (a list of metrics)",
    {
      completion_message: { role: "assistant", content: { type: "text", text: "Hi" } },
      metrics: [
        { metric: "num_completion_tokens", value: 25, unit: "tokens" },
        { metric: "num_prompt_tokens", value: 30, unit: "tokens" },
        { metric: "num_total_tokens", value: 55, unit: "tokens" },
      ],
    },
    [30, 25, 0, 0, 0],
    "llama_api",
  ],
  [
    "strandsagents.com, metrics of a result (added up over its calls)",
    {
      stopReason: "endTurn",
      metrics: { accumulatedUsage: { inputTokens: 20, outputTokens: 3, totalTokens: 23 } },
    },
    [20, 3, 0, 0, 0],
    "ai_sdk",
  ],
  [
    "openai.github.io/openai-agents-js, the usage of a run (a list of each call's details)",
    {
      state: {
        _context: {
          usage: {
            requests: 2,
            inputTokens: 100,
            outputTokens: 20,
            totalTokens: 120,
            inputTokensDetails: [{ cached_tokens: 40 }, { cached_tokens: 10 }],
            outputTokensDetails: [{ reasoning_tokens: 3 }, {}],
          },
        },
      },
    },
    [100, 20, 50, 0, 3],
    "ai_sdk",
  ],
  [
    "developers.llamaindex.ai, a ChatResponse (the provider's answer in raw)",
    {
      message: { role: "assistant", content: "Hi" },
      raw: { model: "gpt-4o", usage: { prompt_tokens: 5, completion_tokens: 6, total_tokens: 11 } },
    },
    [5, 6, 0, 0, 0],
    "openai_chat",
  ],
  [
    "ai-sdk.dev/docs/ai-sdk-ui/message-metadata (a message as it is kept)",
    {
      role: "assistant",
      parts: [{ type: "text", text: "Hi" }],
      metadata: { totalUsage: { inputTokens: 5, outputTokens: 6, totalTokens: 11 } },
    },
    [5, 6, 0, 0, 0],
    "ai_sdk",
  ],
  [
    "help.sap.com, Orchestration of AI Core",
    {
      intermediate_results: {},
      final_result: { model: "m", usage: { prompt_tokens: 5, completion_tokens: 6, total_tokens: 11 } },
    },
    [5, 6, 0, 0, 0],
    "openai_chat",
  ],
  [
    "docs.oracle.com, Generative AI's ChatResult",
    {
      chatResult: {
        modelId: "m",
        chatResponse: {
          apiFormat: "GENERIC",
          usage: { completionTokens: 6, promptTokens: 5, totalTokens: 11 },
        },
      },
    },
    [5, 6, 0, 0, 0],
    "ai_sdk",
  ],
  [
    "dev.writer.com/api-reference/completion-api/chat-completion",
    {
      model: "palmyra-x5",
      choices: [{ message: { role: "assistant", content: "Hi" } }],
      usage: {
        prompt_tokens: 40,
        completion_tokens: 21,
        total_tokens: 61,
        prompt_token_details: { cached_tokens: 16 },
        completion_tokens_details: { reasoning_tokens: 5 },
      },
    },
    [40, 21, 16, 0, 5],
    "openai_chat",
  ],
  [
    "developer.salesforce.com/docs/ai/agentforce/guide/access-models-api-with-rest.html",
    {
      generationDetails: {
        generations: [{ role: "assistant", content: "Hi" }],
        parameters: {
          model: "gpt-4o-mini",
          usage: { prompt_tokens: 73, completion_tokens: 12, total_tokens: 85 },
        },
      },
    },
    [73, 12, 0, 0, 0],
    "openai_chat",
  ],
  [
    "docs.haystack.deepset.ai/docs/chatmessage",
    {
      role: "assistant",
      content: [{ text: "Hi" }],
      meta: { model: "gpt-4o-mini", usage: { prompt_tokens: 7, completion_tokens: 2, total_tokens: 9 } },
    },
    [7, 2, 0, 0, 0],
    "openai_chat",
  ],
  [
    "docs.agno.com/concepts/agents/metrics (Anthropic's caches beside the input)",
    {
      content: "Hi",
      metrics: { input_tokens: 5, output_tokens: 10, total_tokens: 15, cache_read_tokens: 50 },
    },
    [55, 10, 50, 0, 0],
    "openai_responses",
  ],
  [
    "docs.crewai.com/concepts/crews#crew-usage-metrics",
    {
      raw: "Hi",
      token_usage: {
        prompt_tokens: 90,
        cached_prompt_tokens: 60,
        completion_tokens: 10,
        total_tokens: 100,
        successful_requests: 2,
      },
    },
    [90, 10, 60, 0, 0],
    "openai_chat",
  ],
  [
    "docs.langchain4j.dev, a TokenUsage as JSON",
    { tokenUsage: { inputTokenCount: 10, outputTokenCount: 5, totalTokenCount: 15 } },
    [10, 5, 0, 0, 0],
    "microsoft_ai",
  ],
  [
    "github.com/predibase/lorax, its own API",
    { generated_text: "Hi", details: { prompt_tokens: 6, generated_tokens: 2, finish_reason: "stop" } },
    [6, 2, 0, 0, 0],
    "hugging_face",
  ],
  [
    "docs.aws.amazon.com/bedrock/latest/userguide/batch-inference-results.html (a line of a batch)",
    {
      recordId: "1",
      modelInput: { max_tokens: 10 },
      modelOutput: {
        type: "message",
        model: "claude-haiku-4-5",
        content: [{ type: "text", text: "Hi" }],
        usage: { input_tokens: 5, output_tokens: 6 },
      },
    },
    [5, 6, 0, 0, 0],
    "openai_responses",
  ],
  [
    "python.langchain.com, an LLMResult",
    {
      generations: [],
      llm_output: {
        token_usage: { prompt_tokens: 5, completion_tokens: 6, total_tokens: 11 },
        model_name: "gpt-4o",
      },
    },
    [5, 6, 0, 0, 0],
    "openai_chat",
  ],
  [
    "microsoft.github.io/autogen, a message of an agent",
    { content: "Hi", models_usage: { prompt_tokens: 5, completion_tokens: 6 } },
    [5, 6, 0, 0, 0],
    "openai_chat",
  ],
  [
    "xfyun.cn/doc/spark/Web.html",
    {
      payload: {
        usage: { text: { question_tokens: 4, prompt_tokens: 5, completion_tokens: 6, total_tokens: 11 } },
      },
    },
    [5, 6, 0, 0, 0],
    "openai_chat",
  ],
];
