import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  learnEstimates,
  readServerSentEvents,
  readUsage,
  readUsageStream,
  estimateCall,
  totalTokens,
} from "../index.ts";
import { usageExamples } from "../../../tests/support/usage-examples.ts";

describe("readUsage", () => {
  it.each(usageExamples)("reads %s", (_page, response, counts, shape) => {
    const read = readUsage(response);
    if (!read.ok) throw new Error(read.error.message);
    const c = read.value.counts;
    expect([
      c.input_tokens,
      c.output_tokens,
      c.cached_input_tokens,
      c.cache_write_tokens,
      c.reasoning_tokens,
    ]).toEqual(counts);
    expect(read.value.shape).toBe(shape);
  });

  it.each<[string, unknown, string, string]>([
    ["nothing", undefined, "unknown_shape", ""],
    ["text", "hello", "unknown_shape", ""],
    ["an empty object", {}, "unknown_shape", ""],
    ["usage that is null", { choices: [], usage: null }, "no_usage", "usage"],
    ["usage of a stranger", { usage: { credits: 3 } }, "unknown_shape", "usage"],
    ["an empty usage of Google's", { usageMetadata: {} }, "no_usage", "usageMetadata.promptTokenCount"],
    ["a prompt alone", { usage: { prompt_tokens: 5 } }, "no_usage", "usage.completion_tokens"],
    [
      "a prompt of null",
      { usage: { prompt_tokens: null, completion_tokens: 3 } },
      "no_usage",
      "usage.prompt_tokens",
    ],
    [
      "a message without output",
      { type: "message", usage: { input_tokens: 5 } },
      "no_usage",
      "usage.output_tokens",
    ],
    ["a response without output", { usage: { input_tokens: 5 } }, "no_usage", "usage.output_tokens"],
    [
      "a fraction",
      { usage: { prompt_tokens: 1.5, completion_tokens: 1 } },
      "not_whole",
      "usage.prompt_tokens",
    ],
    [
      "a number as text",
      { usage: { input_tokens: "12", output_tokens: 1 } },
      "not_whole",
      "usage.input_tokens",
    ],
    [
      "a negative count",
      { usageMetadata: { promptTokenCount: -1, candidatesTokenCount: 1 } },
      "not_whole",
      "usageMetadata.promptTokenCount",
    ],
    ["a count of 2^53", { tokensUsed: 2 ** 53 }, "not_whole", "tokensUsed"],
    ["a sum of 2^53", { usage: { prompt_tokens: 2 ** 53 - 1, completion_tokens: 1 } }, "not_whole", "usage"],
    ["NaN", { metadata: { tokensUsed: Number.NaN } }, "not_whole", "metadata.tokensUsed"],
    [
      "a total that is more",
      { usage: { prompt_tokens: 1, completion_tokens: 1, total_tokens: 9 } },
      "inconsistent",
      "usage",
    ],
    [
      "a total that is less",
      { usage: { input_tokens: 5, output_tokens: 5, total_tokens: 9 } },
      "inconsistent",
      "usage",
    ],
    [
      "more cached than read",
      { usage: { prompt_tokens: 5, completion_tokens: 5, prompt_tokens_details: { cached_tokens: 6 } } },
      "inconsistent",
      "usage",
    ],
  ])("says what is wrong with %s, and where", (_name, response, code, path) => {
    expect(readUsage(response)).toMatchObject({ ok: false, error: { code, path } });
  });

  it("names the other model that worked for a part of the call, and what is cached for an hour", () => {
    const usage = {
      input_tokens: 10,
      output_tokens: 1,
      cache_creation_input_tokens: 500,
      cache_creation: { ephemeral_5m_input_tokens: 200, ephemeral_1h_input_tokens: 300 },
      iterations: [{ type: "advisor_message", model: "claude-opus", input_tokens: 900, output_tokens: 100 }],
    };
    const read = readUsage({ type: "message", model: "claude-sonnet", usage });
    expect(read).toMatchObject({
      ok: true,
      value: {
        counts: {
          input_tokens: 1_410,
          output_tokens: 101,
          cache_write_tokens: 500,
          cache_write_1h_tokens: 300,
        },
        by_other_models: [{ model: "claude-opus", counts: { input_tokens: 900, output_tokens: 100 } }],
      },
    });
  });

  it.each([
    [
      "text",
      { choices: [{ message: { content: "Hello" } }], usage: { prompt_tokens: 0, completion_tokens: 0 } },
    ],
    [
      "a function call",
      {
        candidates: [{ content: { parts: [{ functionCall: { name: "f", args: { q: 1 } } }] } }],
        usageMetadata: { promptTokenCount: 5, totalTokenCount: 5 },
      },
    ],
    [
      "text",
      {
        type: "message",
        content: [{ type: "text", text: "Hi" }],
        usage: { input_tokens: 3, output_tokens: 0 },
      },
    ],
    [
      "text",
      {
        object: "response",
        output: [{ content: [{ type: "output_text", text: "Hi" }] }],
        usage: { input_tokens: 0, output_tokens: 0 },
      },
    ],
  ])("refuses to call %s free", (_what, response) => {
    expect(readUsage(response)).toMatchObject({ ok: false, error: { code: "no_usage" } });
  });

  it("never throws, and answers zero only where the response says zero", () => {
    const keys = [
      "usage",
      "usageMetadata",
      "metadata",
      "tokensUsed",
      "prompt_tokens",
      "completion_tokens",
      "input_tokens",
      "output_tokens",
      "total_tokens",
      "promptTokenCount",
      "totalTokenCount",
      "type",
    ];
    let read = 0;
    fc.assert(
      fc.property(
        fc.object({
          key: fc.constantFrom(...keys),
          values: [fc.integer({ min: 0, max: 3 }), fc.constant(null), fc.constant("message"), fc.double()],
          maxDepth: 2,
        }),
        (response) => {
          const usage = readUsage(response);
          if (usage.ok) read++;
          return (
            !usage.ok || totalTokens(usage.value.counts) > 0 || /:-?0[,}]/.test(JSON.stringify(response))
          );
        },
      ),
      { numRuns: 5_000 },
    );
    expect(read).toBeGreaterThan(50);
  });
});

const chat = (content: string, usage: unknown = null) => ({
  object: "chat.completion.chunk",
  model: "gpt-4o-mini",
  choices: [{ index: 0, delta: { content }, finish_reason: null }],
  usage,
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
];

describe("readUsageStream", () => {
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
    const c = read.value.counts;
    expect([
      c.input_tokens,
      c.output_tokens,
      c.cached_input_tokens,
      c.cache_write_tokens,
      c.reasoning_tokens,
    ]).toEqual(counts);
  });

  it.each(streams)("reads the same from server-sent events split anywhere: %s", (_page, chunks, counts) => {
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

describe("estimates", () => {
  it("take the caller's number, then the task's, then the length, then the default", () => {
    const settings = { estimates: [{ task_type: "generate-characters", tokens: 2500 }], reply_tokens: 100 };
    expect(estimateCall({ estimated_tokens: 7, task_type: "generate-characters" }, settings)).toEqual({
      tokens: 7,
      source: "given",
    });
    expect(estimateCall({ task_type: "generate-characters", message: "hi" }, settings)).toEqual({
      tokens: 2500,
      source: "task",
    });
    expect(estimateCall({ message: "hello 😀😀😀" }, settings)).toEqual({ tokens: 103, source: "length" });
    expect(estimateCall({ task_type: "other" }, settings)).toEqual({ tokens: 300, source: "default" });
  });

  it("are what was learnt, where a call of its task and model was seen often enough", () => {
    const learner = learnEstimates({ minimum_calls: 2 });
    for (const used of [90, 100]) learner.learn({ task_type: "chat", model: "m", expected: null, used });
    const settings = { estimates: [{ task_type: "chat", tokens: 2500 }], learner };
    expect(estimateCall({ task_type: "chat", model: "m" }, settings)).toMatchObject({
      source: "history",
      calls: 2,
    });
    expect(estimateCall({ task_type: "chat", model: "other" }, settings)).toEqual({
      tokens: 2500,
      source: "task",
    });
    expect(estimateCall({ task_type: "chat", model: "m", estimated_tokens: 7 }, settings).source).toBe(
      "given",
    );
  });

  it("learn a quantile that covers the calls it promises, at most 10 % too high", () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 200_000 }), { minLength: 20, maxLength: 300 }),
        fc.double({ min: 0.5, max: 1, noNaN: true }),
        (used, quantile) => {
          const learner = learnEstimates({ quantile });
          for (const tokens of used)
            learner.learn({ task_type: "t", model: "m", expected: null, used: tokens });
          const estimate = learner.estimate("t", "m")?.tokens ?? -1;
          const sorted = used.toSorted((a, b) => a - b);
          const exact = sorted[Math.ceil(used.length * quantile) - 1] ?? 0;
          return estimate >= exact && estimate <= Math.max(1, exact * 1.1);
        },
      ),
    );
  });

  it("say the error that expectations had, and nothing before enough calls were seen", () => {
    const learner = learnEstimates();
    learner.learn({ task_type: null, model: "m", expected: 150, used: 100 });
    learner.learn({ task_type: null, model: "m", expected: 80, used: 100 });
    expect(learner.error(null, "m")).toEqual({
      expected: { calls: 2, covered: 0.5, mean_relative_error: 0.35 },
      learnt: null,
    });
    expect(learner.estimate(null, "m")).toBeNull();
  });

  it("are judged by calls they had not seen, keep their promise on them, and follow when use changes", () => {
    const learner = learnEstimates({ quantile: 0.9 });
    // A fixed sequence over 100 to 1,099 that repeats nothing soon: 617 is prime to 1,000.
    const used = (index: number): number => 100 + ((index * 617) % 1_000);
    for (let index = 0; index < 2_000; index++)
      learner.learn({ task_type: "t", model: "m", expected: 300, used: used(index) });
    const { expected, learnt } = learner.error("t", "m");
    expect(expected?.covered).toBeCloseTo(0.2, 1);
    expect(learnt?.calls).toBe(1_980);
    expect(learnt?.covered).toBeGreaterThan(0.89);
    expect(learnt?.covered).toBeLessThan(0.97);
    expect(learner.estimate("t", "m")?.tokens).toBeLessThan(1_100);
    for (let index = 0; index < 20_000; index++)
      learner.learn({ task_type: "t", model: "m", expected: null, used: 10 * used(index) });
    const now = learner.estimate("t", "m")?.tokens ?? 0;
    expect(now).toBeGreaterThanOrEqual(9_900);
    expect(now).toBeLessThan(11_000);
  });

  it("forget the pair that was unused longest rather than grow", () => {
    const learner = learnEstimates({ maximal_pairs: 2 });
    for (const model of ["a", "b", "a", "c"]) learner.learn({ task_type: null, model, expected: 1, used: 1 });
    expect(
      [learner.error(null, "a"), learner.error(null, "b"), learner.error(null, "c")].map(
        (e) => e.expected?.calls,
      ),
    ).toEqual([2, undefined, 1]);
  });
});
