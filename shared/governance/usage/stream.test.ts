import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { readServerSentEvents, readUsageStream, totalTokens } from "../index.ts";
import { inOrder } from "../../../tests/support/usage-examples.ts";

const chat = (content: string, usage: unknown = null) => ({
  object: "chat.completion.chunk",
  model: "gpt-4o-mini",
  choices: [{ index: 0, delta: { content }, finish_reason: null }],
  usage,
});

/** As AWS's SDK for JavaScript hands chunks on. */
const bytes = (said: unknown) => ({
  chunk: { bytes: new TextEncoder().encode(typeof said === "string" ? said : JSON.stringify(said)) },
});
const sonicUsage = (input: number, output: number) => ({
  event: {
    usageEvent: {
      details: { delta: {}, total: { input: { speechTokens: input, textTokens: 0 } } },
      totalInputTokens: input,
      totalOutputTokens: output,
      totalTokens: input + output,
    },
  },
});
const sonicText = (role: string, content: string) => ({ event: { textOutput: { role, content } } });
const mastra = (type: string, payload: object) => ({ type, runId: "r", from: "AGENT", payload });
const agentTrace = (inputTokens: number, outputTokens: number) => ({
  trace: {
    trace: {
      orchestrationTrace: {
        modelInvocationOutput: { metadata: { usage: { inputTokens, outputTokens } } },
      },
    },
  },
});

const streams: readonly [page: string, chunks: readonly unknown[], counts: readonly number[]][] = [
  [
    "platform.openai.com/docs/api-reference/chat-streaming",
    [
      chat("Hel"),
      chat("lo"),
      {
        object: "chat.completion.chunk",
        model: "gpt-4o-mini",
        choices: [],
        usage: {
          prompt_tokens: 9,
          completion_tokens: 2,
          total_tokens: 11,
          prompt_tokens_details: { cached_tokens: 4 },
        },
      },
    ],
    [9, 2, 4, 0, 0],
  ],
  [
    "platform.openai.com/docs/api-reference/responses-streaming",
    [
      { type: "response.created", response: { object: "response", usage: null } },
      { type: "response.output_text.delta", delta: "Hi" },
      {
        type: "response.completed",
        response: {
          object: "response",
          usage: {
            input_tokens: 37,
            output_tokens: 11,
            output_tokens_details: { reasoning_tokens: 3 },
            total_tokens: 48,
          },
        },
      },
    ],
    [37, 11, 0, 0, 3],
  ],
  [
    "docs.anthropic.com/en/docs/build-with-claude/streaming",
    [
      {
        type: "message_start",
        message: {
          type: "message",
          model: "claude-opus-4",
          usage: { input_tokens: 25, cache_read_input_tokens: 10, output_tokens: 1 },
        },
      },
      { type: "content_block_start", index: 0, content_block: { type: "text", text: "" } },
      { type: "ping" },
      { type: "content_block_delta", index: 0, delta: { type: "text_delta", text: "Hello" } },
      { type: "message_delta", delta: { stop_reason: null }, usage: { output_tokens: 7 } },
      { type: "message_delta", delta: { stop_reason: "end_turn" }, usage: { output_tokens: 15 } },
      { type: "message_stop" },
    ],
    [35, 15, 10, 0, 0],
  ],
  [
    "ai.google.dev/api/generate-content#method:-models.streamgeneratecontent",
    [
      {
        candidates: [{ content: { parts: [{ text: "One" }] } }],
        usageMetadata: { promptTokenCount: 8, candidatesTokenCount: 1, totalTokenCount: 9 },
        modelVersion: "gemini-2.5-flash",
      },
      {
        candidates: [{ content: { parts: [{ text: "two" }] }, finishReason: "STOP" }],
        usageMetadata: {
          promptTokenCount: 8,
          candidatesTokenCount: 5,
          thoughtsTokenCount: 2,
          totalTokenCount: 15,
        },
        modelVersion: "gemini-2.5-flash",
      },
    ],
    [8, 7, 0, 0, 2],
  ],
  [
    "docs.perplexity.ai/guides/streaming (every chunk carries the count so far)",
    [1, 2, 3].map((completion_tokens) => ({
      model: "sonar",
      choices: [{ delta: { content: "a" } }],
      usage: { prompt_tokens: 5, completion_tokens, total_tokens: 5 + completion_tokens },
    })),
    [5, 3, 0, 0, 0],
  ],
  [
    "platform.moonshot.ai (usage in the last choice)",
    [
      { choices: [{ delta: { content: "Hi" } }] },
      {
        choices: [
          {
            delta: {},
            finish_reason: "stop",
            usage: { prompt_tokens: 23, completion_tokens: 19, total_tokens: 42 },
          },
        ],
      },
    ],
    [23, 19, 0, 0, 0],
  ],
  [
    "console.groq.com (usage in x_groq)",
    [
      { choices: [{ delta: { content: "Hi" } }] },
      {
        choices: [{ delta: {} }],
        x_groq: { usage: { prompt_tokens: 23, completion_tokens: 19, total_tokens: 42 } },
      },
    ],
    [23, 19, 0, 0, 0],
  ],
  [
    "platform.openai.com/docs/api-reference/realtime-server-events/response/done",
    [
      { type: "response.output_text.delta", delta: "Hi" },
      {
        type: "response.done",
        response: {
          usage: {
            total_tokens: 275,
            input_tokens: 127,
            output_tokens: 148,
            input_token_details: { cached_tokens: 64 },
          },
        },
      },
    ],
    [127, 148, 64, 0, 0],
  ],
  [
    "Anthropic behind a proxy whose last report leaves the input out",
    [
      {
        type: "message_start",
        message: { usage: { input_tokens: 4200, cache_read_input_tokens: 1500, output_tokens: 1 } },
      },
      { type: "content_block_delta", delta: { text: "Hello" } },
      {
        type: "message_delta",
        delta: { stop_reason: "end_turn" },
        usage: { input_tokens: 0, cache_read_input_tokens: 0, output_tokens: 15 },
      },
    ],
    [5700, 15, 1500, 0, 0],
  ],
  [
    "docs.aws.amazon.com/nova/latest/userguide/output-events.html",
    [
      sonicText("USER", "What is the time?"),
      sonicUsage(90, 0),
      sonicText("ASSISTANT", "It is noon."),
      { event: { audioOutput: { content: "AAAA" } } },
      sonicUsage(120, 45),
      sonicText("ASSISTANT", "It is noon."),
      { event: { completionEnd: { stopReason: "END_TURN" } } },
    ],
    [120, 45, 0, 0, 0],
  ],
  [
    "docs.aws.amazon.com/nova/latest/userguide/speech-bidirection.html, by AWS's SDK",
    [bytes(sonicUsage(90, 0)), bytes(sonicText("ASSISTANT", "Noon.")), bytes(sonicUsage(120, 45))],
    [120, 45, 0, 0, 0],
  ],
  [
    "docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModelWithResponseStream.html, by AWS's SDK",
    [
      bytes({
        type: "message_start",
        message: { model: "claude", usage: { input_tokens: 5, output_tokens: 1 } },
      }),
      bytes({ type: "content_block_delta", delta: { type: "text_delta", text: "Hi" } }),
      bytes({ type: "message_delta", delta: { stop_reason: "end_turn" }, usage: { output_tokens: 9 } }),
      bytes({ type: "message_stop" }),
    ],
    [5, 9, 0, 0, 0],
  ],
  [
    "docs.aws.amazon.com/bedrock/latest/userguide/trace-events.html (an agent: each call of its model)",
    [agentTrace(10, 2), agentTrace(20, 3), bytes("It is noon."), agentTrace(5, 1)],
    [35, 6, 0, 0, 0],
  ],
  [
    "mastra.ai/reference/streaming/ChunkType",
    [
      mastra("text-delta", { id: "1", text: "It is" }),
      mastra("step-finish", { output: { usage: { inputTokens: 10, outputTokens: 3, totalTokens: 13 } } }),
      mastra("text-delta", { id: "1", text: "noon." }),
      mastra("step-finish", { output: { usage: { inputTokens: 20, outputTokens: 4, totalTokens: 24 } } }),
      mastra("finish", { output: { usage: { inputTokens: 30, outputTokens: 7, totalTokens: 37 } } }),
    ],
    [30, 7, 0, 0, 0],
  ],
  [
    "developers.openai.com/codex/sdk",
    [
      { type: "item.completed", item: { type: "agent_message", text: "Noon." } },
      {
        type: "turn.completed",
        usage: { input_tokens: 100, cached_input_tokens: 60, output_tokens: 5, reasoning_output_tokens: 2 },
      },
    ],
    [100, 5, 60, 0, 2],
  ],
  [
    "yandex.cloud/docs/foundation-models/text-generation/api-ref",
    [
      { result: { usage: { inputTextTokens: "5", completionTokens: "1", totalTokens: "6" } } },
      { result: { usage: { inputTextTokens: "5", completionTokens: "4", totalTokens: "9" } } },
    ],
    [5, 4, 0, 0, 0],
  ],
  [
    "cloud.tencent.com/document/api/1729/105701",
    [
      {
        Choices: [{ Delta: { Content: "No" } }],
        Usage: { PromptTokens: 3, CompletionTokens: 1, TotalTokens: 4 },
      },
      {
        Choices: [{ Delta: { Content: "on" } }],
        Usage: { PromptTokens: 3, CompletionTokens: 2, TotalTokens: 5 },
      },
    ],
    [3, 2, 0, 0, 0],
  ],
];

/** Streams in the words of SDKs and of newer interfaces: 1,200 characters, then the count (input, output). */
const said = "x".repeat(1_200);
const wrapped: readonly (readonly [
  who: string,
  chunks: readonly unknown[],
  input: number,
  output: number,
])[] = [
  [
    "Mistral's SDK, which wraps each chunk",
    [
      { data: { model: "m", choices: [{ delta: { content: said } }] } },
      {
        data: {
          choices: [{ delta: {} }],
          usage: { promptTokens: 13, completionTokens: 300, totalTokens: 313 },
        },
      },
    ],
    13,
    300,
  ],
  [
    "Mistral's conversations",
    [
      { type: "message.output.delta", content: said },
      {
        type: "conversation.response.done",
        usage: { prompt_tokens: 10, completion_tokens: 300, total_tokens: 405, connector_tokens: 95 },
      },
    ],
    105,
    300,
  ],
  [
    "Cohere's SDK",
    [
      { type: "content-delta", delta: { message: { content: { text: said } } } },
      { type: "message-end", delta: { usage: { tokens: { inputTokens: 71, outputTokens: 300 } } } },
    ],
    71,
    300,
  ],
  [
    "Cohere's older chat",
    [
      { event_type: "text-generation", text: said },
      {
        event_type: "stream-end",
        response: { text: said, meta: { tokens: { input_tokens: 71, output_tokens: 300 } } },
      },
    ],
    71,
    300,
  ],
  [
    "Cohere's plans of tools",
    [
      { type: "tool-plan-delta", delta: { message: { tool_plan: said } } },
      { type: "message-end", delta: { usage: { tokens: { input_tokens: 71, output_tokens: 300 } } } },
    ],
    71,
    300,
  ],
  [
    "Gemini's Interactions",
    [
      { event_type: "interaction.created", interaction: { id: "i" } },
      { event_type: "step.delta", delta: { type: "text", text: said } },
      {
        event_type: "interaction.completed",
        interaction: { usage: { total_input_tokens: 7, total_output_tokens: 300, total_tokens: 307 } },
      },
    ],
    7,
    300,
  ],
  [
    "LangChain over Anthropic, whose chunks are added up",
    [
      { content: "", usage_metadata: { input_tokens: 10, output_tokens: 0, total_tokens: 10 } },
      { content: said },
      { content: "", usage_metadata: { input_tokens: 0, output_tokens: 300, total_tokens: 300 } },
    ],
    10,
    300,
  ],
  [
    "the AI SDK's fullStream of version 5",
    [
      { type: "text-delta", id: "0", text: said },
      { type: "finish", totalUsage: { inputTokens: 5, outputTokens: 300, totalTokens: 305 } },
    ],
    5,
    300,
  ],
  [
    "the AI SDK's fullStream of version 4",
    [
      { type: "reasoning", textDelta: said },
      { type: "finish", usage: { promptTokens: 5, completionTokens: 300, totalTokens: 305 } },
    ],
    5,
    300,
  ],
  [
    "the AI SDK over Anthropic, with Anthropic's own report",
    [
      { type: "text-delta", id: "0", delta: said },
      {
        type: "finish",
        usage: { inputTokens: 4, outputTokens: 300, totalTokens: 304, cachedInputTokens: 4000 },
        providerMetadata: {
          anthropic: {
            usage: {
              input_tokens: 4,
              cache_creation_input_tokens: 300,
              cache_read_input_tokens: 4000,
              output_tokens: 300,
            },
          },
        },
      },
    ],
    4_304,
    300,
  ],
  [
    "Anthropic with a compaction",
    [
      { type: "message_start", message: { usage: { input_tokens: 100, output_tokens: 1 } } },
      { type: "content_block_delta", delta: { type: "compaction_delta", content: said } },
      {
        type: "message_delta",
        delta: { stop_reason: "end_turn" },
        usage: {
          input_tokens: 100,
          output_tokens: 50,
          iterations: [{ type: "compaction", input_tokens: 1000, output_tokens: 250 }],
        },
      },
    ],
    1_100,
    300,
  ],
  [
    "Gemini, whose prompt falls by what it names as its tools' in the end",
    [
      {
        candidates: [{ content: { parts: [{ text: said }] } }],
        usageMetadata: { promptTokenCount: 30, totalTokenCount: 30 },
      },
      {
        candidates: [{ content: { parts: [] }, finishReason: "STOP" }],
        usageMetadata: {
          promptTokenCount: 10,
          candidatesTokenCount: 300,
          toolUsePromptTokenCount: 20,
          totalTokenCount: 330,
        },
      },
    ],
    30,
    300,
  ],
  [
    "LangChain.js 1, whose chunks name their type",
    [
      { type: "ai", lc_kwargs: { content: said }, content: said },
      {
        type: "ai",
        content: "",
        usage_metadata: { input_tokens: 10, output_tokens: 300, total_tokens: 310 },
      },
    ],
    10,
    300,
  ],
  [
    "LangGraph's messages, pairs of a chunk and what is known of it",
    [
      [{ type: "ai", content: [{ type: "text", text: said }] }, { langgraph_node: "agent" }],
      [{ type: "ai", content: "", usage_metadata: { input_tokens: 10, output_tokens: 300 } }, {}],
    ],
    10,
    300,
  ],
  [
    "LangChain's events, whose last has the sum of its chunks",
    [
      {
        event: "on_chat_model_stream",
        data: { chunk: { content: said, usage_metadata: { input_tokens: 1 } } },
      },
      {
        event: "on_chat_model_end",
        data: { output: { content: said, usage_metadata: { input_tokens: 10, output_tokens: 300 } } },
      },
    ],
    10,
    300,
  ],
  [
    "LlamaIndex, which keeps the provider's chunks",
    [
      { delta: said, raw: { choices: [{ delta: { content: said } }] } },
      {
        delta: "",
        raw: { choices: [], usage: { prompt_tokens: 5, completion_tokens: 300, total_tokens: 305 } },
      },
    ],
    5,
    300,
  ],
  [
    "OpenAI's agents",
    [
      { type: "raw_model_stream_event", data: { type: "output_text_delta", delta: said } },
      {
        type: "raw_model_stream_event",
        data: { type: "response_done", response: { usage: { inputTokens: 10, outputTokens: 300 } } },
      },
    ],
    10,
    300,
  ],
  [
    "Anthropic's agents, which close with the sum of their messages",
    [
      {
        type: "stream_event",
        event: { type: "message_start", message: { usage: { input_tokens: 4, output_tokens: 1 } } },
      },
      { type: "stream_event", event: { type: "content_block_delta", delta: { text: said } } },
      {
        type: "result",
        total_cost_usd: 0.1,
        usage: { input_tokens: 8, cache_read_input_tokens: 900, output_tokens: 300 },
      },
    ],
    908,
    300,
  ],
  [
    "Llama's API",
    [
      { event: { event_type: "progress", delta: { type: "text", text: said } } },
      {
        event: {
          event_type: "metrics",
          delta: { type: "text", text: "" },
          metrics: [
            { metric: "num_completion_tokens", value: 300, unit: "tokens" },
            { metric: "num_prompt_tokens", value: 30, unit: "tokens" },
            { metric: "num_total_tokens", value: 330, unit: "tokens" },
          ],
        },
      },
    ],
    30,
    300,
  ],
  [
    "Hugging Face's own API",
    [
      { index: 1, token: { id: 1, text: said, special: false }, generated_text: null, details: null },
      {
        index: 2,
        token: { id: 2, text: "", special: true },
        generated_text: said,
        details: { finish_reason: "eos_token", generated_tokens: 300, input_length: 7 },
      },
    ],
    7,
    300,
  ],
  [
    "watsonx",
    [
      { results: [{ generated_text: said, generated_token_count: 0, input_token_count: 5 }] },
      { results: [{ generated_text: "", generated_token_count: 300, input_token_count: 0 }] },
    ],
    5,
    300,
  ],
  [
    "an answer that came whole",
    [
      { choices: [{ message: { content: said } }] },
      { choices: [], usage: { prompt_tokens: 4, completion_tokens: 300 } },
    ],
    4,
    300,
  ],
];

describe("readUsageStream", () => {
  it.each(wrapped)("reads %s, whole and cut off before its count", (_who, chunks, input, output) => {
    const stream = readUsageStream();
    for (const chunk of chunks.slice(0, -1)) stream.push(chunk);
    expect(stream.partial()).toMatchObject({ text_since_report: 1_200 });
    expect(stream.result().ok).toBe(false);
    stream.push(chunks.at(-1));
    expect(stream.result()).toMatchObject({
      ok: true,
      value: { counts: { input_tokens: input, output_tokens: output } },
    });
  });

  it("takes a chunk's keys as data alone: none reaches what all objects share", () => {
    const usage = '"prompt_tokens":3,"completion_tokens":4,"constructor":{"prototype":{"reached":2}}';
    const details = '"completion_tokens_details":{"__proto__":{"reached":3},"reasoning_tokens":1}';
    for (const chunk of [
      `{"usage":{"__proto__":{"reached":1,"completion_tokens":9},${usage},${details}}}`,
      `{"__proto__":{"usage":{"completion_tokens":9}},"usage":{${usage},${details}}}`,
    ]) {
      const stream = readUsageStream();
      stream.push(JSON.parse(chunk));
      stream.push(JSON.parse(chunk));
      expect(stream.result()).toMatchObject({
        ok: true,
        value: { counts: { input_tokens: 3, output_tokens: 4 } },
      });
    }
    const shared = Object.getOwnPropertyNames(Object.prototype);
    delete (Object.prototype as { reached?: unknown }).reached;
    expect(shared).not.toContain("reached");
  });

  it("does not call a whole answer free because it was to be a stream", () => {
    const text = [{ type: "text", text: said }];
    for (const chunk of [
      { choices: [{ message: { content: said } }], usage: { prompt_tokens: 4, completion_tokens: 0 } },
      { type: "message", content: text, usage: { input_tokens: 4, output_tokens: 0 } },
      { object: "response", output: [{ content: text }], usage: { input_tokens: 4, output_tokens: 0 } },
    ]) {
      const stream = readUsageStream();
      stream.push(chunk);
      expect(stream.result()).toMatchObject({ ok: false, error: { code: "no_usage" } });
      expect(stream.partial().text_since_report).toBe(1_200);
    }
  });

  it("looks at no getter of a library's chunk: it says again what is there, or starts work", () => {
    class Chunk {
      readonly candidates = [{ content: { parts: [{ text: said }] } }];
      get text(): string {
        return said;
      }
      get data(): string {
        throw new Error("There are parts that are no data.");
      }
    }
    const stream = readUsageStream();
    stream.push(new Chunk());
    expect(stream.partial()).toMatchObject({ text_length: 1_200 });
  });

  it("adds what the image tool used to a streamed response", () => {
    const stream = readUsageStream();
    const response = {
      usage: { input_tokens: 100, output_tokens: 50, total_tokens: 150 },
      tool_usage: { image_gen: { input_tokens: 30, output_tokens: 4_160 } },
    };
    stream.push({ type: "response.completed", response });
    expect(stream.result()).toMatchObject({
      ok: true,
      value: { counts: { input_tokens: 130, output_tokens: 4_210 } },
    });
  });

  it("takes neither speech nor what the user said for output of Nova Sonic's", () => {
    const reader = readUsageStream();
    reader.push(sonicText("USER", "What is the time?"));
    reader.push({ event: { audioOutput: { content: "AAAA".repeat(10_000) } } });
    expect(reader.result().ok).toBe(false);
    expect(reader.partial()).toEqual({ reported: null, text_length: 0, text_since_report: 0, chunks: 2 });
  });

  it("counts what Realtime heard beside what it answered", () => {
    const stream = readUsageStream();
    const heard = { type: "tokens", input_tokens: 500, output_tokens: 20, total_tokens: 520 };
    stream.push({
      type: "conversation.item.input_audio_transcription.completed",
      transcript: "Hi",
      usage: heard,
    });
    const usage = { input_tokens: 132, output_tokens: 121, total_tokens: 253 };
    stream.push({ type: "response.done", response: { usage } });
    expect(stream.result()).toMatchObject({
      ok: true,
      value: { counts: { input_tokens: 632, output_tokens: 141 } },
    });
  });

  it("reads the tier and the writes for an hour in the last event of Bedrock's stream", () => {
    const stream = readUsageStream();
    stream.push({ contentBlockDelta: { delta: { text: "Hi" } } });
    const usage = {
      inputTokens: 10,
      outputTokens: 3,
      totalTokens: 513,
      cacheWriteInputTokens: 500,
      cacheDetails: [{ ttl: "1h", inputTokens: 300 }],
    };
    stream.push({ metadata: { usage, serviceTier: { type: "priority" } } });
    expect(stream.result()).toMatchObject({
      ok: true,
      value: { counts: { cache_write_tokens: 500, cache_write_1h_tokens: 300, service_tier: "priority" } },
    });
  });

  const told = "x".repeat(1_200);
  it.each<[string, readonly unknown[], number]>([
    [
      "reasoning that a gateway tells twice, once",
      [{ choices: [{ delta: { reasoning: told, reasoning_details: [{ text: told }] } }] }],
      1_200,
    ],
    [
      "reasoning under two names, once",
      [{ choices: [{ delta: { reasoning: told, reasoning_content: told } }] }],
      1_200,
    ],
    [
      "arguments that Gemini streams, and programs that it writes",
      [
        {
          candidates: [
            { content: { parts: [{ functionCall: { partialArgs: [{ stringValue: told }] } }] } },
            { content: { parts: [{ executableCode: { code: told } }] } },
          ],
        },
      ],
      // With what stands around them.
      2_400 + '[{"stringValue":""}]{"code":""}'.length,
    ],
    ["the text of an older completion", [{ choices: [{ index: 0, text: told }] }], 1_200],
    [
      "the transcript of audio, and not its bytes",
      [{ choices: [{ delta: { audio: { transcript: told, data: "AAAA".repeat(3_000) } } }] }],
      1_200,
    ],
    [
      "what Ollama and llama.cpp write into the chunk itself",
      [{ message: { content: told } }, { response: told }, { content: told }],
      3_600,
    ],
  ])("counts %s, of a stream that breaks off", (_what, chunks, length) => {
    const stream = readUsageStream();
    for (const chunk of chunks) stream.push(chunk);
    expect(stream.partial()).toMatchObject({ reported: null, text_length: length });
    expect(stream.result()).toMatchObject({ ok: false, error: { code: "no_usage" } });
  });

  it("adds up what each call of an agent used", () => {
    const usage = { inputTokens: 10, outputTokens: 5, totalTokens: 15 };
    for (const call of [
      { type: "modelMetadataEvent", usage },
      { type: "raw_model_stream_event", data: { type: "response_done", response: { usage } } },
      { type: "modelStreamUpdateEvent", event: { type: "modelMetadataEvent", usage } },
      { event: { metadata: { usage, metrics: { latencyMs: 5 } } } },
      { type: "ai", content: "", usage_metadata: { input_tokens: 10, output_tokens: 5 } },
    ]) {
      const stream = readUsageStream();
      for (const chunk of [call, call]) stream.push(chunk);
      expect(stream.result()).toMatchObject({
        ok: true,
        value: { counts: { input_tokens: 20, output_tokens: 10 } },
      });
    }
  });

  it("says how much text came in a shape that nobody knows, and nothing where there was other text", () => {
    const stream = readUsageStream();
    stream.push({ type: "response.created", response: { instructions: told, tools: [{ name: told }] } });
    stream.push({ type: "user", message: { content: told } });
    expect(stream.partial()).not.toHaveProperty("unknown_text_length");
    stream.push({ generations: [[{ text: told }]] });
    stream.push({ type: "assistant", message: { content: [{ type: "text", text: told }] } });
    expect(stream.partial()).toMatchObject({ text_length: 0, unknown_text_length: 2_400 });
    stream.push(chat("Hi"));
    expect(stream.partial()).not.toHaveProperty("unknown_text_length");
  });

  it("reads counts that lie in the last chunk itself", () => {
    const stream = readUsageStream();
    stream.push({ model: "llama3.2", message: { content: "Hi" }, done: false });
    stream.push({
      model: "llama3.2",
      message: { content: "" },
      done: true,
      prompt_eval_count: 26,
      eval_count: 2,
    });
    expect(stream.result()).toMatchObject({
      ok: true,
      value: { shape: "ollama", model: "llama3.2", counts: { input_tokens: 26, output_tokens: 2 } },
    });
    const bedrock = readUsageStream();
    bedrock.push({ generation: "Hi", prompt_token_count: 5, generation_token_count: 1 });
    bedrock.push({
      generation: "!",
      generation_token_count: 2,
      "amazon-bedrock-invocationMetrics": { inputTokenCount: 5, outputTokenCount: 2 },
    });
    expect(bedrock.result()).toMatchObject({
      ok: true,
      value: { counts: { input_tokens: 5, output_tokens: 2 } },
    });
  });

  it.each(streams)("reads %s", (_page, chunks, counts) => {
    const stream = readUsageStream();
    for (const chunk of chunks) stream.push(chunk);
    const read = stream.result();
    if (!read.ok) throw new Error(read.error.message);
    expect(inOrder(read.value.counts)).toEqual(counts);
  });

  // What AWS's SDK hands on as bytes is on no wire of text.
  const asText = streams.filter(([page]) => !page.endsWith("SDK"));
  it.each(asText)("reads the same from server-sent events split anywhere: %s", (_page, chunks, counts) => {
    const wire = `: comment\r\n${chunks.map((chunk) => `event: x\r\ndata: ${JSON.stringify(chunk)}\r\n\r\n`).join("")}data: {broken\n\ndata: [DONE]\n\n`;
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1 }), (sizes) => {
        const stream = readUsageStream();
        const feed = readServerSentEvents(stream);
        for (let at = 0, turn = 0; at < wire.length; turn++) {
          const size = sizes[turn % sizes.length] ?? 1;
          feed(wire.slice(at, at + size));
          at += size;
        }
        const read = stream.result();
        expect(read.ok && totalTokens(read.value.counts)).toBe((counts[0] ?? 0) + (counts[1] ?? 0));
      }),
      { numRuns: 20 },
    );
  });

  it("reads what Anthropic reports of the prompt a second time: the caches, and tokens that moved between them", () => {
    const told = (begin: object, end: object): unknown => {
      const stream = readUsageStream();
      stream.push({ type: "message_start", message: { usage: { output_tokens: 1, ...begin } } });
      stream.push({ type: "content_block_delta", delta: { text: "Hi" } });
      stream.push({ type: "message_delta", delta: {}, usage: { output_tokens: 8, ...end } });
      stream.push({ type: "message_stop", ...end });
      const read = stream.result();
      return read.ok
        ? [
            read.value.counts.input_tokens,
            read.value.counts.cached_input_tokens,
            read.value.counts.cache_write_tokens,
          ]
        : read.error;
    };
    const [write, read] = ["cache_creation_input_tokens", "cache_read_input_tokens"];
    // github.com/BerriAI/litellm/issues/40736
    expect(
      told(
        { input_tokens: 2, [write]: 50, cache_creation: { ephemeral_1h_input_tokens: 50 }, [read]: 0 },
        { input_tokens: 2, [write]: 0, [read]: 50 },
      ),
    ).toEqual([52, 50, 0]);
    // A second telling of less leaves something out.
    expect(told({ input_tokens: 42, [read]: 15 }, { input_tokens: 42, [read]: 0 })).toEqual([57, 15, 0]);
    expect(told({ input_tokens: 42, [read]: 15 }, { input_tokens: 0, [read]: 0 })).toEqual([57, 15, 0]);
    // github.com/BerriAI/litellm/issues/34497
    const metrics = { inputTokenCount: 2, outputTokenCount: 8, cacheReadInputTokenCount: 50 };
    expect(told({ input_tokens: 2 }, { "amazon-bedrock-invocationMetrics": metrics })).toEqual([52, 50, 0]);
  });

  it("reads events over several lines, and a last line that comes without its end", () => {
    const stream = readUsageStream();
    const feed = readServerSentEvents(stream);
    feed('data: {"choices": [],\ndata: "usage": {"prompt_tokens": 3,\n');
    feed('data: "completion_tokens": 1, "total_tokens": 4}}\n\n');
    expect(stream.result()).toMatchObject({ ok: true, value: { counts: { input_tokens: 3 } } });
    feed('data: {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11}}');
    expect(stream.result()).toMatchObject({ ok: true, value: { counts: { output_tokens: 6 } } });
  });

  it.each(["\n", "\r\n", "\r"])(
    "reads events after a byte order mark, whose lines end in %j, in any pieces",
    (end) => {
      const events = [
        { choices: [{ delta: { content: said } }] },
        { choices: [], usage: { prompt_tokens: 5, completion_tokens: 6, total_tokens: 11 } },
      ];
      const text = events.map((event) => `data: ${JSON.stringify(event)}${end}${end}`).join("");
      for (const size of [1, 13, text.length + 1]) {
        const stream = readUsageStream();
        const feed = readServerSentEvents(stream);
        const marked = `\uFEFF${text}`;
        for (let at = 0; at < marked.length; at += size) feed(marked.slice(at, at + size));
        expect(stream.result()).toMatchObject({ ok: true, value: { counts: { output_tokens: 6 } } });
        expect(stream.partial().text_length).toBe(said.length);
      }
    },
  );

  it("adds up the steps of an agent's stream, whether or not it came to its end, and measures calls of tools", () => {
    const usage = (inputTokens: number, outputTokens: number): object => ({
      inputTokens,
      outputTokens,
      totalTokens: inputTokens + outputTokens,
    });
    const chunks = [
      { type: "text-delta", text: "One. " },
      { type: "finish-step", usage: usage(10, 100) },
      { type: "text-delta", text: "Two." },
      { type: "finish-step", usage: usage(120, 100) },
      { type: "finish", totalUsage: usage(130, 200) },
    ];
    for (const end of [4, 5]) {
      const reader = readUsageStream();
      for (const chunk of chunks.slice(0, end)) reader.push(chunk);
      expect(reader.result()).toMatchObject({
        ok: true,
        value: { counts: { input_tokens: 130, output_tokens: 200 } },
      });
    }
    const tools = readUsageStream();
    tools.push({ contentBlockDelta: { delta: { toolUse: { input: '{"q":1}' } } } });
    tools.push({ usage: { prompt_tokens: 1e308, completion_tokens: 1e308 } });
    expect(tools.partial()).toMatchObject({ text_length: 7, text_since_report: 7 });
    tools.push({ usage: { prompt_tokens: "4", completion_tokens: "3" } });
    expect(tools.result()).toMatchObject({
      ok: true,
      value: { counts: { input_tokens: 4, output_tokens: 3 } },
    });
  });

  it("says that a stream which ended without usage has none, and how to get it", () => {
    const stream = readUsageStream();
    stream.push(chat("Hello"));
    expect(stream.result()).toMatchObject({ ok: false, error: { code: "no_usage" } });
    expect(stream.partial()).toEqual({ reported: null, text_length: 5, text_since_report: 5, chunks: 1 });
  });

  it("does not take what Anthropic says at the start for the count of a stream that was cut off", () => {
    const stream = readUsageStream();
    const chunks = streams.find(([page]) => page.includes("anthropic"))?.[1] ?? [];
    for (const chunk of chunks.slice(0, 4)) stream.push(chunk);
    expect(stream.result()).toMatchObject({ ok: false, error: { code: "no_usage" } });
    expect(stream.partial()).toMatchObject({
      reported: { counts: { input_tokens: 35, output_tokens: 1 } },
      text_since_report: 5,
    });
  });

  it("does not take a count that text came after for the stream's: a placeholder of zeros, or one that was cut off", () => {
    const stream = readUsageStream();
    const usage = { prompt_tokens: 0, completion_tokens: 0, total_tokens: 0 };
    stream.push({ ...chat("Hello"), usage });
    stream.push(chat(" there"));
    expect(stream.result()).toMatchObject({ ok: false, error: { code: "no_usage" } });
    expect(stream.partial()).toMatchObject({ text_since_report: 11 });
    stream.push({ choices: [], usage: { prompt_tokens: 9, completion_tokens: 2, total_tokens: 11 } });
    expect(stream.result()).toMatchObject({ ok: true, value: { counts: { output_tokens: 2 } } });
  });

  it("measures text that a library took out of its chunks, and no sound", () => {
    const stream = readUsageStream();
    for (const chunk of ["Hel", "lo", { type: "response.audio.delta", delta: "UklGRg==" }])
      stream.push(chunk);
    expect(stream.partial()).toMatchObject({ text_length: 5, chunks: 3 });
    expect(stream.result()).toMatchObject({ ok: false, error: { code: "no_usage" } });
  });

  it("counts all that a model says for a stream that may break: tool calls, refusals, thoughts, every choice", () => {
    const lengthOf = (...chunks: unknown[]): number => {
      const stream = readUsageStream();
      for (const chunk of chunks) stream.push(chunk);
      return stream.partial().text_length;
    };
    expect(
      lengthOf(
        { choices: [{ delta: { role: "assistant", content: "ab" } }, { delta: { content: "cd" } }] },
        { choices: [{ delta: { refusal: "ef" } }, { delta: { reasoning_content: "gh" } }] },
        {
          choices: [
            { delta: { tool_calls: [{ id: "call_1", function: { name: "f", arguments: '{"a"' } }] } },
          ],
        },
      ),
    ).toBe(13);
    expect(lengthOf({ candidates: [{ content: { parts: [{ text: "ab" }, { text: "c" }] } }, null] })).toBe(3);
    expect(lengthOf({ type: "response.function_call_arguments.delta", delta: "ab" })).toBe(2);
    let deep: unknown = "x";
    for (let level = 0; level < 100_000; level++) deep = [deep];
    expect(lengthOf({ choices: [{ delta: deep }] })).toBe(0);
  });

  it("keeps the provider's last word of a stream that broke", () => {
    const stream = readUsageStream();
    for (const chunk of (streams[2]?.[1] ?? []).slice(0, 5)) stream.push(chunk);
    expect(stream.partial()).toMatchObject({
      reported: { counts: { input_tokens: 35, output_tokens: 7 } },
      text_length: 5,
    });
  });

  it("lets hostile chunks pass", () => {
    const stream = readUsageStream();
    for (const chunk of [
      null,
      1,
      "x",
      [],
      { choices: 3 },
      { choices: [null] },
      { type: {} },
      { candidates: [{}] },
      { type: "message_delta", usage: 3 },
    ])
      stream.push(chunk);
    expect(stream.result().ok).toBe(false);
  });
});
