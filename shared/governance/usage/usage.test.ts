import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { learnEstimates, readUsage, readUsageStream, estimateCall, totalTokens } from "../index.ts";
import { inOrder, usageExamples } from "../../../tests/support/usage-examples.ts";

const openAi = { prompt_tokens: 5, completion_tokens: 2, total_tokens: 7 };
const anthropic = { input_tokens: 5, output_tokens: 2, cache_read_input_tokens: 0 };
const google = { promptTokenCount: 5, candidatesTokenCount: 2, totalTokenCount: 7 };

describe("readUsage", () => {
  it.each(usageExamples)("reads %s", (_page, response, counts, shape) => {
    const read = readUsage(response);
    if (!read.ok) throw new Error(read.error.message);
    expect(inOrder(read.value.counts)).toEqual(counts);
    expect(read.value.shape).toBe(shape);
  });

  it("reports the tier where it is one that costs otherwise, whole or streamed", () => {
    const usage = { prompt_tokens: 5, completion_tokens: 2, total_tokens: 7 };
    const tier = (response: unknown) => {
      const read = readUsage(response);
      return read.ok ? read.value.counts.service_tier : read.error;
    };
    expect(tier({ model: "gpt-5", service_tier: "priority", usage })).toBe("priority");
    expect(tier({ model: "gpt-5", service_tier: "default", usage })).toBeUndefined();
    const anthropic = {
      input_tokens: 5,
      output_tokens: 2,
      cache_read_input_tokens: 0,
      service_tier: "batch",
    };
    expect(tier({ type: "message", usage: anthropic })).toBe("batch");
    expect(tier({ type: "message", usage: { ...anthropic, service_tier: { odd: 1 } } })).toBeUndefined();
    const streams = [
      [{ model: "gpt-5", service_tier: "flex", choices: [], usage }],
      [
        { type: "message_start", message: { model: "claude", usage: anthropic } },
        { type: "message_delta", delta: { stop_reason: "end_turn" }, usage: { output_tokens: 2 } },
        { type: "message_stop" },
      ],
    ];
    const read = streams.map((chunks) => {
      const stream = readUsageStream();
      for (const chunk of chunks) stream.push(chunk);
      const result = stream.result();
      return result.ok ? result.value.counts.service_tier : result.error;
    });
    expect(read).toEqual(["flex", "batch"]);
  });

  it.each([
    ["OpenAI's newer name", { service_tier: "fast", usage: openAi }, "fast"],
    ["OpenAI's default", { service_tier: "default", usage: openAi }, undefined],
    ["a line of OpenAI's batch", { response: { body: { service_tier: "batch", usage: openAi } } }, "batch"],
    [
      "Anthropic's fast mode",
      { type: "message", usage: { ...anthropic, service_tier: "standard", speed: "fast" } },
      "fast",
    ],
    [
      "Anthropic's standard speed",
      { type: "message", usage: { ...anthropic, service_tier: "standard", speed: "standard" } },
      undefined,
    ],
    [
      "a line of Anthropic's batch",
      { result: { message: { usage: { ...anthropic, service_tier: "batch" } } } },
      "batch",
    ],
    ["Bedrock", { usage: { inputTokens: 5, outputTokens: 2 }, serviceTier: { type: "flex" } }, "flex"],
    [
      "Bedrock's default",
      { usage: { inputTokens: 5, outputTokens: 2 }, serviceTier: { type: "default" } },
      undefined,
    ],
    ["Vertex AI", { usageMetadata: { ...google, trafficType: "ON_DEMAND_PRIORITY" } }, "priority"],
    ["Vertex AI on demand", { usageMetadata: { ...google, trafficType: "ON_DEMAND" } }, undefined],
    ["Gemini", { usageMetadata: { ...google, serviceTier: "flex" } }, "flex"],
    ["an HTTP client", { status: 200, data: { service_tier: "flex", usage: openAi } }, "flex"],
    ["Groq", { service_tier: "on_demand", usage: openAi }, undefined],
    [
      "the AI SDK over Anthropic",
      {
        usage: { inputTokens: 5, outputTokens: 2, totalTokens: 7 },
        providerMetadata: { anthropic: { usage: { ...anthropic, speed: "fast" } } },
      },
      "fast",
    ],
  ])("finds the tier where %s tells it", (_who, response, tier) => {
    const read = readUsage(response);
    expect(read.ok ? read.value.counts.service_tier : read.error).toBe(tier);
  });

  it("names the model that a server-side fallback put in another's place, and counts nothing twice", () => {
    const counts = { cache_read_input_tokens: 0, cache_creation_input_tokens: 0 };
    const iterations = [
      { type: "message", model: "claude-fable-5", input_tokens: 535, output_tokens: 0, ...counts },
      {
        type: "fallback_message",
        model: "claude-opus-4-8",
        input_tokens: 412,
        output_tokens: 264,
        ...counts,
      },
    ];
    const usage = { input_tokens: 412, output_tokens: 264, ...counts, iterations };
    const served = { input_tokens: 412, output_tokens: 264 };
    const expected = {
      ok: true,
      value: { counts: served, by_other_models: [{ model: "claude-opus-4-8", counts: served }] },
    };
    expect(readUsage({ type: "message", model: "claude-opus-4-8", usage })).toMatchObject(expected);
    // A fallback that went on after a tool: both are in the top level, which is that model's, once.
    const again = { ...usage, iterations: [...iterations, { ...iterations[1], input_tokens: 0 }] };
    const twice = readUsage({ type: "message", model: "claude-opus-4-8", usage: again });
    expect(twice.ok && twice.value.by_other_models?.length).toBe(1);
    const stream = readUsageStream();
    stream.push({
      type: "message_start",
      message: { model: "claude-fable-5", usage: { input_tokens: 535, output_tokens: 1 } },
    });
    stream.push({ type: "content_block_delta", delta: { type: "text_delta", text: "Hi" } });
    stream.push({ type: "message_delta", delta: { stop_reason: "end_turn" }, usage });
    expect(stream.result()).toMatchObject(expected);
  });

  it("says what was reported at least where counts disagree: for an estimate", () => {
    const least = (usage: object) => {
      const read = readUsage({ choices: [], usage });
      return read.ok ? "read" : [read.error.at_least?.input_tokens, read.error.at_least?.output_tokens];
    };
    expect(least({ prompt_tokens: 100, completion_tokens: 50, total_tokens: 9_999 })).toEqual([9_949, 50]);
    expect(least({ prompt_tokens: 100, completion_tokens: 50, total_tokens: 99 })).toEqual([100, 50]);
    const cached = { prompt_tokens_details: { cached_tokens: 101 } };
    expect(least({ prompt_tokens: 100, completion_tokens: 50, ...cached })).toEqual([100, 50]);
    expect(least({ prompt_tokens: 100, completion_tokens: -50 })).toEqual([undefined, undefined]);
  });

  it("adds up the steps of the AI SDK's result, each by its provider's own report", () => {
    const own = (output_tokens: number) => ({
      anthropic: { usage: { ...anthropic, cache_read_input_tokens: 4_000, output_tokens, speed: "fast" } },
    });
    const step = (outputTokens: number) => ({
      usage: { inputTokens: 5, outputTokens, totalTokens: 5 + outputTokens },
      providerMetadata: own(outputTokens),
    });
    const expected = {
      ok: true,
      value: {
        counts: {
          input_tokens: 8_010,
          output_tokens: 50,
          cached_input_tokens: 8_000,
          service_tier: "fast",
        },
      },
    };
    const steps = [step(20), step(30)];
    expect(readUsage({ steps })).toMatchObject(expected);
    const totalUsage = { inputTokens: 10, outputTokens: 50, totalTokens: 60 };
    expect(readUsage({ steps, totalUsage })).toMatchObject(expected);
    expect(readUsage({ steps: [step(20), { usage: {} }], totalUsage })).toMatchObject({
      value: { counts: { input_tokens: 10, output_tokens: 50 } },
    });
  });

  it("bears answers that are wrapped without end", () => {
    let deep: object = { usage: openAi };
    for (let level = 0; level < 50_000; level++) deep = { data: deep, steps: [deep], usage: {} };
    expect(readUsage(deep).ok).toBe(false);
  });

  it("refuses to call a wrapped answer free", () => {
    const usage = { prompt_tokens: 5, completion_tokens: 0, total_tokens: 5 };
    const data = { model: "m", choices: [{ message: { content: "Hi" } }], usage };
    expect(readUsage({ status: 200, data })).toMatchObject({ error: { code: "no_usage" } });
  });

  it("refuses to call embeddings or pictures free", () => {
    const usage = { prompt_tokens: 0, total_tokens: 0 };
    expect(readUsage({ data: [{ embedding: [0.1] }], usage })).toMatchObject({ error: { code: "no_usage" } });
    expect(readUsage({ data: [], usage }).ok).toBe(true);
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
      "a number as text that is no whole count",
      { usage: { input_tokens: "12.5", output_tokens: 1 } },
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

  it("reads a line of a batch's file as OpenAI, Gemini and Anthropic write it", () => {
    const lines = [
      {
        custom_id: "a",
        response: {
          status_code: 200,
          body: { model: "m", usage: { prompt_tokens: 10, completion_tokens: 5, total_tokens: 15 } },
        },
      },
      {
        key: "a",
        response: {
          modelVersion: "m",
          usageMetadata: { promptTokenCount: 10, candidatesTokenCount: 5, totalTokenCount: 15 },
        },
      },
      {
        custom_id: "a",
        result: { type: "succeeded", message: { model: "m", usage: { input_tokens: 10, output_tokens: 5 } } },
      },
    ];
    for (const line of lines) {
      const read = readUsage(line);
      expect(read.ok && [read.value.counts.input_tokens, read.value.counts.output_tokens]).toEqual([10, 5]);
    }
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
