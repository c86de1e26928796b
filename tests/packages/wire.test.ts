/**
 * The guard's one line in the SDKs that people use, against these SDKs themselves: each talks over HTTP to a provider
 * that answers in its documented shapes. The database answers by script, and what it was asked is what counts.
 */
import Anthropic from "@anthropic-ai/sdk";
import { createOpenAI as createOpenAI7 } from "@ai-sdk/openai";
import { HumanMessage } from "@langchain/core/messages";
import { ChatOpenAI } from "@langchain/openai";
import { generateText, stepCountIs, streamText, tool, wrapLanguageModel } from "ai";
import * as ai5 from "ai-5";
import * as ai6 from "ai-6";
import { createOpenAI as createOpenAI5 } from "ai-sdk-openai-2";
import { createOpenAI as createOpenAI6 } from "ai-sdk-openai-3";
import express from "express";
import { Hono } from "hono";
import type { AddressInfo } from "node:net";
import OpenAI from "openai";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { z } from "zod";
import {
  createGuard,
  expressRefusals,
  type Guard,
  guardCallbacks,
  guardClient,
  guardFetch,
  guardMiddleware,
  GuardRefusal,
  honoRefusals,
  refusalOf,
  withRefusals,
} from "../../packages/guard/src/index.ts";
import { type Provider, startProvider, words } from "../support/provider.ts";
import { allowed } from "../support/allowed.ts";

const text = words.join("");
const user = "ada";
let provider: Provider;
let guard: Guard;
/** What the database was asked, in order. */
let books: { readonly name: string; readonly args: Record<string, unknown> }[];
/** What the database decides beside allowing. */
let decides: Record<string, unknown>;
const problems: string[] = [];

beforeAll(async () => {
  provider = await startProvider();
});
afterAll(() => provider.close());
beforeEach(() => {
  books = [];
  decides = {};
  problems.length = 0;
  provider.asked.length = 0;
  provider.status = null;
  provider.breaksAfter = Number.POSITIVE_INFINITY;
  guard = createGuard({
    client: {
      async rpc(name, args) {
        books.push({ name, args });
        const isQuestion = name === "authorize_usage";
        const data = isQuestion
          ? { ...allowed(args), ...decides }
          : { status: name === "settle_usage" ? "settled" : "released" };
        return { data, error: null, status: 200 };
      },
    },
    onProblem: ({ kind }) => problems.push(kind),
  });
});

const blocked = {
  decision: "block",
  reason: "daily_limit",
  http_status: 429,
  message: "That is enough for today.",
  retry_after_seconds: 60,
};
const asksOf = (name: string) => books.filter((each) => each.name === name).map(({ args }) => args);
/** Every call was asked for and settled with what the provider counted. */
async function expectSettled(times = 1, counts: Record<string, unknown> = {}): Promise<void> {
  await guard.idle();
  expect(books.map(({ name }) => name).toSorted()).toEqual([
    ...Array.from({ length: times }, () => "authorize_usage"),
    ...Array.from({ length: times }, () => "settle_usage"),
  ]);
  for (const args of asksOf("authorize_usage")) expect(args["p_user_id"]).toBe(user);
  for (const args of asksOf("settle_usage"))
    expect(args).toMatchObject({ p_input_tokens: 21, p_output_tokens: 9, ...counts });
  expect(problems).toEqual([]);
}

describe("OpenAI's client", () => {
  const client = (): OpenAI =>
    guardClient(new OpenAI({ baseURL: `${provider.url}/v1`, apiKey: "k" }), guard, { user, task: "chat" });
  const question = [{ role: "user" as const, content: "How are tokens counted?" }];

  it("settles a chat with what it used", async () => {
    const answer = await client().chat.completions.create({ model: "gpt-4o", messages: question });
    expect(answer.choices[0]?.message.content).toBe(text);
    await expectSettled();
    expect(asksOf("authorize_usage")[0]).toMatchObject({
      p_model: "gpt-4o",
      p_message: "How are tokens counted?",
      p_task_type: "chat",
    });
    expect(asksOf("settle_usage")[0]?.["p_metadata"]).toMatchObject({
      cached_input_tokens: 5,
      reasoning_tokens: 2,
      usage_shape: "openai_chat",
      provider_model: "gpt-4o-2026-01-01",
    });
  });

  it("asks for the usage of a stream, and keeps the chunk from a caller who did not", async () => {
    const chunks = [];
    const stream = await client().chat.completions.create({
      model: "gpt-4o",
      messages: question,
      stream: true,
    });
    for await (const chunk of stream) chunks.push(chunk);
    expect(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("")).toBe(text);
    expect(chunks.every((chunk) => chunk.choices.length === 1)).toBe(true);
    expect(provider.asked[0]?.body["stream_options"]).toEqual({ include_usage: true });
    await expectSettled();
  });

  it("leaves the chunk to a caller who asked for it", async () => {
    const chunks = [];
    const stream = await client().chat.completions.create({
      model: "gpt-4o",
      messages: question,
      stream: true,
      stream_options: { include_usage: true },
    });
    for await (const chunk of stream) chunks.push(chunk);
    expect(chunks.at(-1)?.usage?.total_tokens).toBe(30);
    await expectSettled();
  });

  it("guards its helpers too: stream(), and the Responses API", async () => {
    const helper = client().chat.completions.stream({ model: "gpt-4o", messages: question });
    expect((await helper.finalChatCompletion()).choices[0]?.message.content).toBe(text);
    await expectSettled();
    books.length = 0;
    expect((await client().responses.create({ model: "gpt-4o", input: "How?" })).output_text).toBe(text);
    await expectSettled();
    books.length = 0;
    let said = "";
    for await (const event of await client().responses.create({
      model: "gpt-4o",
      input: "How?",
      stream: true,
    }))
      if (event.type === "response.output_text.delta") said += event.delta;
    expect(said).toBe(text);
    await expectSettled();
  });

  it("throws its own error for a refused call, once, and the provider is not asked", async () => {
    decides = blocked;
    const error: unknown = await client()
      .chat.completions.create({ model: "gpt-4o", messages: question })
      .catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(OpenAI.RateLimitError);
    expect(error).toMatchObject({ status: 429, code: "daily_limit", type: "token_governance" });
    expect(refusalOf(error)).toMatchObject({
      status: 429,
      headers: { "retry-after": "60" },
      body: { error: "daily_limit", message: "That is enough for today.", retry_after_seconds: 60 },
    });
    expect([provider.asked.length, books.length]).toEqual([0, 1]);
  });

  it("sends the call where a rule sends it, with the message that a rule leaves", async () => {
    decides = { decision: "warn", model: "gpt-4o-mini", truncate_to_words: 2 };
    await client().chat.completions.create({ model: "gpt-4o", messages: question });
    expect(provider.asked[0]?.body).toMatchObject({
      model: "gpt-4o-mini",
      messages: [{ role: "user", content: "How are" }],
    });
    await expectSettled();
  });

  it("gives back what a provider refused, and throws the provider's own error", async () => {
    provider.status = 400;
    const error: unknown = await client()
      .chat.completions.create({ model: "gpt-4o", messages: question })
      .catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(OpenAI.BadRequestError);
    expect(refusalOf(error)).toBeNull();
    await guard.idle();
    expect(books.map(({ name }) => name)).toEqual(["authorize_usage", "release_usage"]);
    expect(problems).toEqual([]);
  });

  it("charges a broken and an abandoned stream for what came", async () => {
    const read = async (leavesAfter: number): Promise<void> => {
      const stream = await client().chat.completions.create({
        model: "gpt-4o",
        messages: question,
        stream: true,
      });
      let count = 0;
      for await (const _ of stream) if (++count === leavesAfter) break;
    };
    provider.breaksAfter = 3;
    await expect(read(99)).rejects.toThrow();
    provider.breaksAfter = Number.POSITIVE_INFINITY;
    await read(3);
    await expect.poll(() => asksOf("settle_usage").length).toBe(2);
    for (const args of asksOf("settle_usage")) {
      expect(args["p_metadata"]).toMatchObject({ estimated: true });
      expect(args["p_input_tokens"]).toBe(6);
      expect(args["p_output_tokens"]).toBeGreaterThan(1);
    }
  });

  it("throws its own error for a call that its caller stopped before it was made", async () => {
    const stop = new AbortController();
    stop.abort();
    const asking = guardFetch(guard, { user })(`${provider.url}/v1/chat/completions`, {
      method: "POST",
      body: JSON.stringify({ model: "gpt-4o", messages: question }),
      signal: stop.signal,
    });
    await expect(asking).rejects.toMatchObject({ name: "AbortError" });
    expect(provider.asked).toEqual([]);
  });

  it("lets what is no call of a model pass", async () => {
    provider.status = 404;
    await client()
      .models.list()
      .catch(() => undefined);
    expect(provider.asked.map(({ path }) => path)).toEqual(["/v1/models"]);
    expect(books).toEqual([]);
  });
});

describe("Anthropic's client", () => {
  const ask = {
    model: "claude-sonnet-4",
    max_tokens: 100,
    messages: [{ role: "user" as const, content: "How?" }],
  };
  const client = (): Anthropic =>
    guardClient(new Anthropic({ baseURL: provider.url, apiKey: "k" }), guard, { user });

  it("settles messages and streams, cached tokens included", async () => {
    const answer = await client().messages.create(ask);
    expect(answer.content[0]).toMatchObject({ text });
    await expectSettled(1, { p_metadata: expect.objectContaining({ cached_input_tokens: 5 }) });
    books.length = 0;
    const final = await client().messages.stream(ask).finalMessage();
    expect(final.content[0]).toMatchObject({ text });
    await expectSettled();
  });

  it("throws its own error for a refused call", async () => {
    decides = { ...blocked, http_status: 402, reason: "insufficient_tokens" };
    const error: unknown = await client()
      .messages.create(ask)
      .catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(Anthropic.APIError);
    expect(refusalOf(error)).toMatchObject({ status: 402, body: { error: "insufficient_tokens" } });
    expect(provider.asked).toEqual([]);
  });
});

describe("a guarded fetch", () => {
  const calls: readonly [name: string, path: string, body: Record<string, unknown>, model: string][] = [
    [
      "Azure",
      "/openai/deployments/gpt-4o/chat/completions",
      { messages: [{ role: "user", content: "Hi" }] },
      "gpt-4o",
    ],
    [
      "Gemini",
      "/v1beta/models/gemini-2.5-flash:generateContent",
      { contents: [{ role: "user", parts: [{ text: "Hi" }] }] },
      "gemini-2.5-flash",
    ],
    [
      "Gemini, streamed",
      "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
      { contents: [{ role: "user", parts: [{ text: "Hi" }] }] },
      "gemini-2.5-flash",
    ],
    [
      "Vertex",
      "/v1/projects/p/locations/l/publishers/google/models/gemini-2.5-flash:generateContent",
      { contents: [{ role: "user", parts: [{ text: "Hi" }] }] },
      "gemini-2.5-flash",
    ],
    ["Cohere", "/v2/chat", { model: "command-a", messages: [{ role: "user", content: "Hi" }] }, "command-a"],
    [
      "Cohere, streamed",
      "/v2/chat",
      { model: "command-a", stream: true, messages: [{ role: "user", content: "Hi" }] },
      "command-a",
    ],
    [
      "OpenRouter",
      "/api/v1/chat/completions",
      { model: "openai/gpt-4o", stream: true, messages: [{ role: "user", content: "Hi" }] },
      "openai/gpt-4o",
    ],
  ];
  it.each(calls)("settles %s", async (_name, path, body, model) => {
    const ask = guardFetch(guard, { user });
    const response = await ask(provider.url + path, { method: "POST", body: JSON.stringify(body) });
    expect(response.status).toBe(200);
    expect(await response.text()).toContain("counted ");
    await expectSettled();
    expect(asksOf("authorize_usage")[0]).toMatchObject({ p_model: model, p_message: "Hi" });
  });

  const interaction = { usage: { total_input_tokens: 21, total_output_tokens: 9, total_tokens: 30 } };
  const said = { messages: [{ role: "user", content: "Hi" }] };
  const contents = { contents: [{ role: "user", parts: [{ text: "Hi" }] }] };
  const further: typeof calls = [
    ["a compaction of OpenAI's", "/v1/responses/compact", { model: "gpt-5", input: "Hi" }, "gpt-5"],
    [
      "Gemini's Interactions",
      "/v1beta/interactions",
      { model: "gemini-3.5-flash", input: [{ type: "text", text: "Hi" }] },
      "gemini-3.5-flash",
    ],
    ["Azure's AI inference", "/models/chat/completions?api-version=1", { model: "phi-4", ...said }, "phi-4"],
    ["a path that ends in a slash", "/v1/chat/completions/", { model: "m", ...said }, "m"],
    ["a tuned model of Gemini's", "/v1beta/tunedModels/ours-1:generateContent", contents, "ours-1"],
    ["a tuned model of Vertex'", "/v1/projects/p/locations/l/endpoints/12:generateContent", contents, "12"],
    [
      "Mistral's conversations",
      "/v1/conversations",
      { model: "mistral-medium", inputs: "Hi" },
      "mistral-medium",
    ],
    [
      "Mistral's agents",
      "/v1/agents/completions",
      { agent_id: "ag_1", messages: [{ role: "user", content: "Hi" }] },
      "ag_1",
    ],
  ];
  it.each(further)("settles %s, and sends it as it was", async (_name, path, body, model) => {
    let sent: unknown;
    const send: typeof fetch = async (_url, init) => {
      sent = JSON.parse(init?.body as string);
      return Response.json(interaction);
    };
    const ask = guardFetch(guard, { user }, { fetch: send });
    await ask(`https://provider.test${path}`, { method: "POST", body: JSON.stringify(body) });
    await expectSettled();
    expect(asksOf("authorize_usage")[0]).toMatchObject({ p_model: model, p_message: "Hi" });
    expect(sent).toEqual(body);
  });

  const embeddings: readonly [name: string, path: string, body: object, answer: object][] = [
    [
      "Vertex AI's",
      "/v1/projects/p/locations/l/publishers/google/models/text-embedding-005:predict",
      { instances: [{ content: "Hi" }] },
      { predictions: [{ embeddings: { statistics: { token_count: 30 }, values: [0.1] } }] },
    ],
    [
      "Cohere's, by its older interface",
      "/v1/embed",
      { model: "text-embedding-005", texts: ["Hi"] },
      { embeddings: [[0.1]], meta: { billed_units: { input_tokens: 30 } } },
    ],
  ];
  it.each(embeddings)("settles embeddings of %s", async (_name, path, body, answer) => {
    const send: typeof fetch = async () => Response.json(answer);
    const ask = guardFetch(guard, { user }, { fetch: send });
    await ask(`https://provider.test${path}`, { method: "POST", body: JSON.stringify(body) });
    await expect
      .poll(() => asksOf("settle_usage")[0])
      .toMatchObject({ p_input_tokens: 30, p_output_tokens: 0 });
    expect(asksOf("authorize_usage")[0]).toMatchObject({ p_model: "text-embedding-005" });
    expect(asksOf("authorize_usage")[0]?.["p_message"] ?? null).toBeNull();
  });

  /** OpenAI's own client, guarded, on a provider that answers each path so; what it was sent is kept. */
  function openAiAnswering(answers: Readonly<Record<string, () => Response>>) {
    const sent: Request[] = [];
    const client = new OpenAI({
      apiKey: "k",
      maxRetries: 0,
      fetch: async (url, init) => {
        const request = new Request(url as string, init);
        // The client looks first what this fetch can do.
        if (request.method === "POST") sent.push(request.clone());
        return answers[new URL(request.url).pathname]?.() ?? new Response(null, { status: 404 });
      },
    });
    return { sent, ai: guardClient(client, guard, { user }) };
  }
  const counts = { total_tokens: 30, input_tokens: 21, output_tokens: 9 };

  it("settles what OpenAI's client sends as a form: sounds to write down, and pictures to edit", async () => {
    decides = { model: "another" };
    const { ai, sent } = openAiAnswering({
      "/v1/audio/transcriptions": () => Response.json({ text: "Hi", usage: { type: "tokens", ...counts } }),
      "/v1/images/edits": () => Response.json({ data: [{ b64_json: "AA==" }], usage: counts }),
    });
    const file = new File([new Uint8Array([0, 255, 13, 10])], "a.wav");
    const heard = await ai.audio.transcriptions.create({ model: "gpt-4o-transcribe", file });
    expect(heard.text).toBe("Hi");
    await expectSettled();
    expect(asksOf("authorize_usage")[0]).toMatchObject({ p_model: "gpt-4o-transcribe" });
    expect(asksOf("authorize_usage")[0]?.["p_message"] ?? null).toBeNull();
    const form = (await sent[0]?.formData()) ?? new FormData();
    expect(form.get("model")).toBe("another");
    expect([...new Uint8Array(await (form.get("file") as File).arrayBuffer())]).toEqual([0, 255, 13, 10]);

    books = [];
    await ai.images.edit({ model: "gpt-image-1", image: file, prompt: "Hi" });
    await expectSettled();
    expect(asksOf("authorize_usage")[0]).toMatchObject({ p_model: "gpt-image-1", p_message: "Hi" });
  });

  it("asks before it speaks, and hands the sound on as it is", async () => {
    const sound = new Uint8Array([0, 255, 128, 195, 40]);
    const { ai } = openAiAnswering({ "/v1/audio/speech": () => new Response(sound) });
    const spoken = await ai.audio.speech.create({ model: "gpt-4o-mini-tts", voice: "alloy", input: "Hi" });
    expect([...new Uint8Array(await spoken.arrayBuffer())]).toEqual([...sound]);
    await expect.poll(() => asksOf("settle_usage")).toHaveLength(1);
    expect(asksOf("authorize_usage")[0]).toMatchObject({ p_model: "gpt-4o-mini-tts", p_message: "Hi" });
  });

  it("lets no call of a blocked user through, as whatever its body is given", async () => {
    decides = { decision: "block", http_status: 403, reason: "user_blocked" };
    const json = JSON.stringify({ model: "m", input: "Hi" });
    const form = new FormData();
    form.set("model", "m");
    const bytes = new TextEncoder().encode(json);
    for (const [path, body] of [
      ["responses", json],
      ["responses", bytes],
      ["responses", bytes.buffer],
      ["responses", new Blob([json])],
      ["audio/transcriptions", form],
      ["audio/translations", form],
      ["images/edits", form],
      ["images/variations", form],
      ["audio/speech", json],
    ] as const) {
      let calls = 0;
      const send: typeof fetch = async () => {
        calls++;
        return Response.json({});
      };
      const ask = guardFetch(guard, { user }, { fetch: send });
      const url = `https://provider.test/v1/${path}`;
      for (const response of [
        await ask(url, { method: "POST", body }),
        await ask(new Request(url, { method: "POST", body })),
      ])
        expect([path, response.status, calls]).toEqual([path, 403, 0]);
    }
  });

  it("asks for the usage of an older completion's stream too", async () => {
    let sent: unknown;
    const send: typeof fetch = async (_url, init) => {
      sent = JSON.parse(init?.body as string);
      return new Response(
        `data: ${JSON.stringify({ choices: [{ text: "Hi" }] })}\n\ndata: ${JSON.stringify(counted)}\n\n`,
      );
    };
    const body = JSON.stringify({ model: "m", prompt: "Hi", stream: true });
    const response = await guardFetch(
      guard,
      { user },
      { fetch: send },
    )("https://provider.test/v1/completions", {
      method: "POST",
      body,
    });
    expect(await response.text()).not.toContain("total_tokens");
    expect(sent).toMatchObject({ stream_options: { include_usage: true } });
    await expectSettled();
  });

  const gemini = (text: string, output?: number): object => ({
    candidates: [{ content: { parts: [{ text }] } }],
    usageMetadata: {
      promptTokenCount: 21,
      ...(output ? { candidatesTokenCount: output, totalTokenCount: 21 + output } : {}),
    },
  });
  const chat = (text: string): object => ({ choices: [{ delta: { content: text } }] });
  const counted = {
    choices: [],
    usage: { prompt_tokens: 21, completion_tokens: 9, total_tokens: 30 },
  };
  const wires: readonly [name: string, path: string, wire: string][] = [
    [
      "Google's array of objects, without alt=sse",
      "/v1beta/models/gemini-2.5-flash:streamGenerateContent",
      `[${JSON.stringify(gemini('"}] {'), null, 2)}\r\n,\r\n${JSON.stringify(gemini("ho", 9))}\n]\n`,
    ],
    [
      "objects one after the other",
      "/v1/chat/completions",
      `${JSON.stringify(chat("hi"))}\n${JSON.stringify(counted)}`,
    ],
    [
      "events without the empty lines between them",
      "/v1/chat/completions",
      `data: ${JSON.stringify(chat("hi"))}\ndata: ${JSON.stringify(counted)}\ndata: [DONE]`,
    ],
  ];
  const events = [chat("hi"), counted].map((said) => `data: ${JSON.stringify(said)}`);
  const marked: typeof wires = [
    ["events after a byte order mark", "/v1/chat/completions", `\uFEFF${events[1]}\n\n`],
    ["events whose lines end in CR alone", "/v1/chat/completions", `${events.join("\r\r")}\r\r`],
    ["events whose lines end in CRLF", "/v1/chat/completions", `${events.join("\r\n\r\n")}\r\n\r\n`],
  ];
  it.each([...wires, ...marked])(
    "settles a stream that comes as %s, and passes it on as it came",
    async (_name, path, wire) => {
      const bytes = new TextEncoder().encode(wire);
      const send: typeof fetch = async () =>
        new Response(
          new ReadableStream({
            start(controller) {
              for (let at = 0; at < bytes.length; at += 7) controller.enqueue(bytes.slice(at, at + 7));
              controller.close();
            },
          }),
        );
      const response = await guardFetch(
        guard,
        { user },
        { fetch: send },
      )(`https://provider.test${path}`, {
        method: "POST",
        body: JSON.stringify({
          model: "m",
          stream: true,
          stream_options: { include_usage: true },
          messages: [{ role: "user", content: "Hi" }],
        }),
      });
      expect(new Uint8Array(await response.arrayBuffer())).toEqual(bytes);
      await expectSettled();
    },
  );

  describe("on Bedrock", () => {
    const model = "anthropic.claude-sonnet-4-20250514-v1:0";
    const of = (path: string): string => `https://bedrock-runtime.us-east-1.amazonaws.com${path}`;
    const post = (body: string): RequestInit => ({ method: "POST", body });
    // As its caller signed it, spaces and all.
    const converse = '{"messages": [{"role": "user", "content": [{"text": "Hi"}]}]}';
    /** A frame of AWS's event stream; its check sums are zeros, which nobody here reads. */
    function frame(name: string, payload: unknown, kind = "event"): Buffer {
      const header = (key: string, value: string): Buffer =>
        Buffer.concat([
          Buffer.from([key.length]),
          Buffer.from(key),
          Buffer.from([7, 0, value.length]),
          Buffer.from(value),
        ]);
      const headers = Buffer.concat([header(":message-type", kind), header(`:${kind}-type`, name)]);
      const body = Buffer.from(JSON.stringify(payload));
      const prelude = Buffer.alloc(12);
      prelude.writeUInt32BE(16 + headers.length + body.length, 0);
      prelude.writeUInt32BE(headers.length, 4);
      return Buffer.concat([prelude, headers, body, Buffer.alloc(4)]);
    }
    const chunk = (said: object): Buffer =>
      frame("chunk", { bytes: Buffer.from(JSON.stringify(said)).toString("base64"), p: "abc" });
    const inPieces = (wire: Uint8Array, size: number): Response =>
      new Response(
        new ReadableStream({
          start(controller) {
            for (let at = 0; at < wire.length; at += size) controller.enqueue(wire.slice(at, at + size));
            controller.close();
          },
        }),
        { headers: { "content-type": "application/vnd.amazon.eventstream" } },
      );

    it("settles Converse, and sends it to the letter", async () => {
      const sent: unknown[] = [];
      const send: typeof fetch = async (url, init) => {
        sent.push(url, init?.body);
        return Response.json({
          output: { message: { role: "assistant", content: [{ text: "Hello" }] } },
          usage: { inputTokens: 16, outputTokens: 9, totalTokens: 30, cacheReadInputTokens: 5 },
        });
      };
      const url = of(`/model/${model}/converse`);
      await guardFetch(guard, { user }, { fetch: send })(url, post(converse));
      expect(sent).toEqual([url, converse]);
      await expectSettled();
      expect(asksOf("authorize_usage")[0]).toMatchObject({ p_model: model, p_message: "Hi" });
    });

    it("puts the model where a rule sends it", async () => {
      decides = { model: "us.amazon.nova-lite-v1:0" };
      let asked = "";
      const send: typeof fetch = async (url) => {
        asked = url as string;
        return Response.json({ usage: { inputTokens: 21, outputTokens: 9, totalTokens: 30 } });
      };
      const url = of(`/model/${encodeURIComponent(model)}/converse`);
      await guardFetch(guard, { user }, { fetch: send })(url, post(converse));
      expect(decodeURIComponent(asked)).toBe(of("/model/us.amazon.nova-lite-v1:0/converse"));
      await expectSettled();
      expect(asksOf("authorize_usage")[0]).toMatchObject({ p_model: model });
    });

    it.each([1, 7, 10_000])(
      "settles ConverseStream in pieces of %i, and passes it on as it came",
      async (size) => {
        const wire = Buffer.concat([
          frame("messageStart", { role: "assistant", p: "ab" }),
          frame("contentBlockDelta", { contentBlockIndex: 0, delta: { text: "Grüezi" } }),
          frame("messageStop", { stopReason: "end_turn" }),
          frame("metadata", { usage: { inputTokens: 21, outputTokens: 9, totalTokens: 30 } }),
        ]);
        const ask = guardFetch(guard, { user }, { fetch: async () => inPieces(wire, size) });
        const response = await ask(of(`/model/${model}/converse-stream`), post(converse));
        expect(Buffer.from(await response.arrayBuffer()).equals(wire)).toBe(true);
        await expectSettled();
      },
    );

    it("settles InvokeModel's stream by the model's own chunks", async () => {
      const wire = Buffer.concat([
        chunk({ type: "message_start", message: { model, usage: { input_tokens: 21, output_tokens: 1 } } }),
        chunk({ type: "content_block_delta", delta: { type: "text_delta", text: "Hello" } }),
        chunk({ type: "message_delta", delta: { stop_reason: "end_turn" }, usage: { output_tokens: 9 } }),
        chunk({
          type: "message_stop",
          "amazon-bedrock-invocationMetrics": { inputTokenCount: 21, outputTokenCount: 9 },
        }),
      ]);
      const ask = guardFetch(guard, { user }, { fetch: async () => inPieces(wire, 50) });
      const response = await ask(of(`/model/${model}/invoke-with-response-stream`), post(converse));
      await response.arrayBuffer();
      await expectSettled();
    });

    it("charges what came of a stream that is cut off within a frame, and passes on what is no frame", async () => {
      const said = frame("contentBlockDelta", { delta: { text: "x".repeat(400) } });
      const cut = said.subarray(0, 100);
      for (const rest of [cut, Buffer.from("<html>Gateway</html>")]) {
        const wire = Buffer.concat([said, rest]);
        const ask = guardFetch(guard, { user }, { fetch: async () => inPieces(wire, 64) });
        const response = await ask(of(`/model/${model}/converse-stream`), post(converse));
        expect(Buffer.from(await response.arrayBuffer()).equals(wire)).toBe(true);
        await guard.idle();
      }
      const settled = asksOf("settle_usage");
      expect(settled).toHaveLength(2);
      for (const args of settled) expect(args["p_output_tokens"]).toBeGreaterThanOrEqual(100);
    });

    it("gives back a stream that is an error and nothing else", async () => {
      const wire = frame("throttlingException", { message: "Too many tokens." }, "exception");
      const ask = guardFetch(guard, { user }, { fetch: async () => inPieces(wire, 64) });
      const response = await ask(of(`/model/${model}/converse-stream`), post(converse));
      expect(Buffer.from(await response.arrayBuffer()).equals(wire)).toBe(true);
      await guard.idle();
      expect(books.map(({ name }) => name)).toEqual(["authorize_usage", "release_usage"]);
    });

    it("reads InvokeModel's headers where the model counts nothing", async () => {
      const headers = {
        "x-amzn-bedrock-input-token-count": "21",
        "x-amzn-bedrock-output-token-count": "9",
      };
      const send: typeof fetch = async () =>
        Response.json({ outputs: [{ text: "Hello", stop_reason: "stop" }] }, { headers });
      const ask = guardFetch(guard, { user }, { fetch: send });
      await ask(of("/model/mistral.mistral-7b-instruct-v0:2/invoke"), post('{"prompt":"Hi"}'));
      await expectSettled();
      expect(asksOf("authorize_usage")[0]).toMatchObject({ p_message: "Hi" });
    });
  });

  it("judges the message of Cohere's older chat", async () => {
    const send: typeof fetch = async () =>
      Response.json({ text: "Hello", meta: { tokens: { input_tokens: 21, output_tokens: 9 } } });
    const body = JSON.stringify({ model: "command-r", message: "Hi", chat_history: [] });
    await guardFetch(
      guard,
      { user },
      { fetch: send },
    )("https://api.cohere.com/v1/chat", { method: "POST", body });
    await expectSettled();
    expect(asksOf("authorize_usage")[0]).toMatchObject({ p_message: "Hi" });
  });

  it("takes a Request, and puts the model of a path where a rule sends it", async () => {
    decides = { model: "gemini-2.5-flash-lite" };
    const request = new Request(`${provider.url}/v1beta/models/gemini-2.5-pro:generateContent`, {
      method: "POST",
      body: JSON.stringify({ contents: [{ parts: [{ text: "Hi" }] }] }),
    });
    expect((await guardFetch(guard, { user })(request)).status).toBe(200);
    expect(provider.asked[0]?.path).toBe("/v1beta/models/gemini-2.5-flash-lite:generateContent");
    await expectSettled();
  });
});

describe("Vercel's AI SDK", () => {
  const openai7 = () => {
    const api = createOpenAI7({ baseURL: `${provider.url}/v1`, apiKey: "k" });
    return (id: string) => api.chat(id);
  };
  const openai6 = () => {
    const api = createOpenAI6({ baseURL: `${provider.url}/v1`, apiKey: "k" });
    return (id: string) => api.chat(id);
  };
  const openai5 = () => {
    const api = createOpenAI5({ baseURL: `${provider.url}/v1`, apiKey: "k" });
    return (id: string) => api.chat(id);
  };
  const prompt = "How are tokens counted?";

  it("settles generateText and streamText of version 7", async () => {
    const openai = openai7();
    const model = wrapLanguageModel({
      model: openai("gpt-4o"),
      middleware: guardMiddleware(guard, { user }, openai),
    });
    expect((await generateText({ model, prompt })).text).toBe(text);
    await expectSettled();
    books.length = 0;
    let said = "";
    for await (const piece of streamText({ model, prompt }).textStream) said += piece;
    expect(said).toBe(text);
    await expectSettled();
  });

  it("settles generateText and streamText of version 6", async () => {
    const openai = openai6();
    const model = ai6.wrapLanguageModel({
      model: openai("gpt-4o"),
      middleware: guardMiddleware(guard, { user }, openai),
    });
    expect((await ai6.generateText({ model, prompt })).text).toBe(text);
    await expectSettled();
    books.length = 0;
    let said = "";
    for await (const piece of ai6.streamText({ model, prompt }).textStream) said += piece;
    expect(said).toBe(text);
    await expectSettled();
  });

  it("settles generateText and streamText of version 5", async () => {
    const openai = openai5();
    const model = ai5.wrapLanguageModel({
      model: openai("gpt-4o"),
      middleware: guardMiddleware(guard, { user }, openai),
    });
    expect((await ai5.generateText({ model, prompt })).text).toBe(text);
    await expectSettled();
    books.length = 0;
    let said = "";
    for await (const piece of ai5.streamText({ model, prompt }).textStream) said += piece;
    expect(said).toBe(text);
    await expectSettled();
  });

  const tools = {
    weather: tool({
      description: "Weather of a city",
      inputSchema: z.object({ city: z.string() }),
      execute: async () => "sunny",
    }),
  };

  it("settles what generateText itself answers, run as any other call: version 5 has its usage in getters", async () => {
    for (const call of [
      () => generateText({ model: openai7()("gpt-4o"), prompt }),
      () => ai6.generateText({ model: openai6()("gpt-4o"), prompt }),
      () => ai5.generateText({ model: openai5()("gpt-4o"), prompt }),
    ]) {
      const result = await guard.run<unknown>({ user, model: "gpt-4o", message: prompt }, call);
      expect(result.ok).toBe(true);
    }
    await expectSettled(3);
  });

  it("guards each step of a chain of tools", async () => {
    const openai = openai7();
    const model = wrapLanguageModel({
      model: openai("gpt-4o"),
      middleware: guardMiddleware(guard, { user }, openai),
    });
    const answer = await generateText({ model, prompt, tools, stopWhen: stepCountIs(3) });
    expect([answer.text, answer.steps.length]).toEqual([text, 2]);
    await expectSettled(2);
    // The second step is the answer to a tool: no message of the user's.
    expect(asksOf("authorize_usage").map((args) => args["p_message"])).toEqual([prompt, undefined]);
  });

  it("asks the model to which a rule sent the call, and refuses what is refused", async () => {
    const openai = openai7();
    const model = wrapLanguageModel({
      model: openai("gpt-4o"),
      middleware: guardMiddleware(guard, { user }, openai),
    });
    decides = { model: "gpt-4o-mini", truncate_to_words: 1 };
    await generateText({ model, prompt });
    expect(provider.asked[0]?.body).toMatchObject({ model: "gpt-4o-mini" });
    expect(JSON.stringify(provider.asked[0]?.body["messages"])).not.toContain("counted");
    await expectSettled();
    decides = blocked;
    const error: unknown = await generateText({ model, prompt }).catch((thrown: unknown) => thrown);
    expect(refusalOf(error)).toMatchObject({ status: 429, body: { error: "daily_limit" } });
    expect(provider.asked.length).toBe(1);
  });
});

describe("LangChain's callbacks", () => {
  const model = () =>
    new ChatOpenAI({
      model: "gpt-4o",
      apiKey: "k",
      maxRetries: 0,
      configuration: { baseURL: `${provider.url}/v1` },
      callbacks: [guardCallbacks(guard, { user })],
    });

  it("settle a run and a stream", async () => {
    expect((await model().invoke([new HumanMessage("How?")])).content).toBe(text);
    await expectSettled();
    expect(asksOf("authorize_usage")[0]).toMatchObject({ p_model: "gpt-4o", p_message: "How?" });
    books.length = 0;
    let said = "";
    for await (const chunk of await model().stream([new HumanMessage("How?")])) said += chunk.text;
    expect(said).toBe(text);
    await expectSettled();
  });

  it("refuse before the provider is asked, and give back what it refused", async () => {
    decides = blocked;
    const error: unknown = await model()
      .invoke([new HumanMessage("How?")])
      .catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(GuardRefusal);
    expect(provider.asked).toEqual([]);
    decides = { model: "gpt-4o-mini" };
    await expect(model().invoke([new HumanMessage("How?")])).rejects.toThrow("sends it to gpt-4o-mini");
    expect(provider.asked).toEqual([]);
    await guard.idle();
    decides = {};
    books.length = 0;
    provider.status = 400;
    await expect(model().invoke([new HumanMessage("How?")])).rejects.toThrow();
    await guard.idle();
    expect(books.map(({ name }) => name)).toEqual(["authorize_usage", "release_usage"]);
  });
});

describe("a server", () => {
  const refused = { error: "daily_limit", message: "That is enough for today.", retry_after_seconds: 60 };
  const chat = async (): Promise<string> => {
    const ai = guardClient(new OpenAI({ baseURL: `${provider.url}/v1`, apiKey: "k" }), guard, { user });
    const answer = await ai.chat.completions.create({
      model: "gpt-4o",
      messages: [{ role: "user", content: "How?" }],
    });
    return answer.choices[0]?.message.content ?? "";
  };
  beforeEach(() => {
    decides = blocked;
  });

  it("of Express answers a refusal", async () => {
    const app = express();
    app.post("/chat", async (_request: unknown, response: { json(body: unknown): void }) =>
      response.json(await chat()),
    );
    app.post("/broken", () => {
      throw new Error("mine");
    });
    app.use(expressRefusals());
    app.use(
      (
        error: Error,
        _request: unknown,
        response: { status(code: number): { end(text: string): void } },
        _next: unknown,
      ) => response.status(500).end(error.message),
    );
    const server = app.listen(0);
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const answer = await fetch(`${url}/chat`, { method: "POST" });
    expect([answer.status, answer.headers.get("retry-after"), await answer.json()]).toEqual([
      429,
      "60",
      refused,
    ]);
    expect(await (await fetch(`${url}/broken`, { method: "POST" })).text()).toBe("mine");
    server.close();
  });

  it("of Hono answers a refusal", async () => {
    const app = new Hono();
    app.post("/chat", async (c) => c.text(await chat()));
    app.onError(honoRefusals);
    const answer = await app.request("/chat", { method: "POST" });
    expect([answer.status, answer.headers.get("retry-after"), await answer.json()]).toEqual([
      429,
      "60",
      refused,
    ]);
  });

  it("of web requests (Next.js, Edge Functions) answers a refusal, and throws other errors on", async () => {
    const POST = withRefusals(async (_request: Request, _context: { params: Promise<{ id: string }> }) =>
      Response.json(await chat()),
    );
    const context = { params: Promise.resolve({ id: "1" }) };
    const answer = await POST(new Request("http://app/chat", { method: "POST" }), context);
    expect([answer.status, await answer.json()]).toEqual([429, refused]);
    decides = {};
    expect(await (await POST(new Request("http://app/chat", { method: "POST" }), context)).json()).toBe(text);
    await expect(
      withRefusals(() => {
        throw new Error("mine");
      })(),
    ).rejects.toThrow("mine");
  });
});
