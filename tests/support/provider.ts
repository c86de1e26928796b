/**
 * A provider on this machine that answers in the documented shapes of several: OpenAI's chat and responses, Anthropic's
 * messages, Cohere's chat, Gemini. What it was asked is kept. Sources of the shapes stand beside them in
 * shared/governance/usage/shapes.ts.
 */
import { type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { createTestServer } from "./server.ts";

interface Asked {
  readonly path: string;
  readonly body: Readonly<Record<string, unknown>>;
}

export interface Provider {
  readonly url: string;
  readonly asked: Asked[];
  /** Answers every call with this status, until null. */
  status: number | null;
  /** Streams break after so many chunks. */
  breaksAfter: number;
  close(): void;
}

export const words = ["Tokens ", "are ", "counted ", "here."];
const chatUsage = {
  prompt_tokens: 21,
  completion_tokens: 9,
  total_tokens: 30,
  prompt_tokens_details: { cached_tokens: 5 },
  completion_tokens_details: { reasoning_tokens: 2 },
};
const responsesUsage = {
  input_tokens: 21,
  input_tokens_details: { cached_tokens: 5 },
  output_tokens: 9,
  output_tokens_details: { reasoning_tokens: 2 },
  total_tokens: 30,
};
const anthropicUsage = {
  input_tokens: 16,
  cache_creation_input_tokens: 0,
  cache_read_input_tokens: 5,
  output_tokens: 9,
};

/** One tool call, where the request offers tools and has no answer of one yet. */
const wantsTool = (body: Asked["body"]): boolean =>
  Array.isArray(body["tools"]) &&
  Array.isArray(body["messages"]) &&
  !body["messages"].some(({ role }: { role?: unknown }) => role === "tool");

function chat(body: Asked["body"]): { whole: unknown; chunks: unknown[] } {
  const base = { id: "chatcmpl-1", created: 1_790_000_000, model: `${String(body["model"])}-2026-01-01` };
  const call = {
    id: "call_1",
    type: "function",
    function: { name: "weather", arguments: '{"city":"Bern"}' },
  };
  const isTool = wantsTool(body);
  const message = isTool
    ? { role: "assistant", content: null, tool_calls: [call] }
    : { role: "assistant", content: words.join(""), refusal: null };
  const finish_reason = isTool ? "tool_calls" : "stop";
  const chunk = (delta: unknown, finish: string | null = null): unknown => ({
    ...base,
    object: "chat.completion.chunk",
    choices: [{ index: 0, delta, finish_reason: finish }],
  });
  const { include_usage } = (body["stream_options"] ?? {}) as { include_usage?: boolean };
  return {
    whole: {
      ...base,
      object: "chat.completion",
      choices: [{ index: 0, message, finish_reason, logprobs: null }],
      usage: chatUsage,
    },
    chunks: [
      chunk({ role: "assistant", content: "" }),
      ...(isTool
        ? [chunk({ tool_calls: [{ index: 0, ...call }] })]
        : words.map((content) => chunk({ content }))),
      chunk({}, finish_reason),
      ...(include_usage ? [{ ...base, object: "chat.completion.chunk", choices: [], usage: chatUsage }] : []),
      "[DONE]",
    ],
  };
}

function responses(body: Asked["body"]): { whole: unknown; chunks: unknown[] } {
  const text = words.join("");
  const part = { type: "output_text", text, annotations: [], logprobs: [] };
  const item = { id: "msg_1", type: "message", role: "assistant", status: "completed", content: [part] };
  const whole = {
    id: "resp_1",
    object: "response",
    created_at: 1_790_000_000,
    status: "completed",
    model: `${String(body["model"])}-2026-01-01`,
    output: [item],
    usage: responsesUsage,
  };
  const at = { item_id: "msg_1", output_index: 0, content_index: 0 };
  const events: Record<string, unknown>[] = [
    { type: "response.created", response: { ...whole, status: "in_progress", output: [], usage: null } },
    { type: "response.output_item.added", output_index: 0, item: { ...item, content: [] } },
    { type: "response.content_part.added", ...at, part: { ...part, text: "" } },
    ...words.map((delta) => ({ type: "response.output_text.delta", ...at, delta, logprobs: [] })),
    { type: "response.output_text.done", ...at, text, logprobs: [] },
    { type: "response.output_item.done", output_index: 0, item },
    { type: "response.completed", response: whole },
  ];
  return { whole, chunks: events.map((event, n) => ({ sequence_number: n, ...event })) };
}

function messages(body: Asked["body"]): { whole: unknown; chunks: unknown[] } {
  const base = { id: "msg_1", type: "message", role: "assistant", model: body["model"] };
  const ends = { stop_reason: "end_turn", stop_sequence: null };
  return {
    whole: { ...base, ...ends, content: [{ type: "text", text: words.join("") }], usage: anthropicUsage },
    chunks: [
      {
        type: "message_start",
        message: {
          ...base,
          content: [],
          stop_reason: null,
          stop_sequence: null,
          usage: { ...anthropicUsage, output_tokens: 1 },
        },
      },
      { type: "content_block_start", index: 0, content_block: { type: "text", text: "" } },
      ...words.map((text) => ({
        type: "content_block_delta",
        index: 0,
        delta: { type: "text_delta", text },
      })),
      { type: "content_block_stop", index: 0 },
      { type: "message_delta", delta: ends, usage: { output_tokens: 9 } },
      { type: "message_stop" },
    ],
  };
}

/** Gemini's generateContent; a stream's chunks are whole responses. */
function gemini(): { whole: unknown; chunks: unknown[] } {
  const said = (text: string, usageMetadata: unknown): unknown => ({
    candidates: [{ content: { role: "model", parts: [{ text }] }, finishReason: "STOP", index: 0 }],
    usageMetadata,
    modelVersion: "gemini-2.5-flash",
  });
  const usage = {
    promptTokenCount: 21,
    candidatesTokenCount: 7,
    thoughtsTokenCount: 2,
    totalTokenCount: 30,
    cachedContentTokenCount: 5,
  };
  return { whole: said(words.join(""), usage), chunks: words.map((text) => said(text, usage)) };
}

/** Cohere, "Chat API (v2)" (docs.cohere.com/reference/chat). */
function cohere(): { whole: unknown; chunks: unknown[] } {
  const usage = {
    billed_units: { input_tokens: 18, output_tokens: 9 },
    tokens: { input_tokens: 21, output_tokens: 9 },
  };
  const message = { role: "assistant", content: [{ type: "text", text: words.join("") }] };
  return {
    whole: { id: "c1", finish_reason: "COMPLETE", message, usage },
    chunks: [
      { type: "message-start", id: "c1", delta: { message: { role: "assistant", content: [] } } },
      ...words.map((text) => ({
        type: "content-delta",
        index: 0,
        delta: { message: { content: { text } } },
      })),
      { type: "message-end", id: "c1", delta: { finish_reason: "COMPLETE", usage } },
    ],
  };
}

const kinds = [
  [/\/chat\/completions$/, chat],
  [/\/responses$/, responses],
  [/\/messages$/, messages],
  [/:(stream)?[gG]enerateContent$/, gemini],
  [/\/v2\/chat$/, cohere],
] as const;

export async function startProvider(): Promise<Provider> {
  const asked: Asked[] = [];
  async function stream(response: ServerResponse, chunks: readonly unknown[]): Promise<void> {
    response.writeHead(200, { "content-type": "text/event-stream" });
    for (const [n, chunk] of chunks.entries()) {
      if (n >= provider.breaksAfter) return void response.destroy();
      const type = (chunk as { type?: unknown }).type;
      if (typeof type === "string") response.write(`event: ${type}\n`);
      response.write(`data: ${typeof chunk === "string" ? chunk : JSON.stringify(chunk)}\n\n`);
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    response.end();
  }
  const server = createTestServer(async (request, response) => {
    let text = "";
    for await (const piece of request) text += String(piece);
    const path = (request.url ?? "").split("?")[0] ?? "";
    const body = JSON.parse(text === "" ? "{}" : text) as Asked["body"];
    asked.push({ path, body });
    const answer = kinds.find(([pattern]) => pattern.test(path))?.[1](body);
    const json = { "content-type": "application/json" };
    if (provider.status !== null || !answer)
      return void response
        .writeHead(provider.status ?? 404, { ...json, "x-should-retry": "false" })
        .end('{"type":"error","error":{"type":"some_error","message":"Refused by the provider."}}');
    if (body["stream"] === true || path.includes(":stream")) return void stream(response, answer.chunks);
    response.writeHead(200, json).end(JSON.stringify(answer.whole));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const provider: Provider = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    asked,
    status: null,
    breaksAfter: Number.POSITIVE_INFINITY,
    close: () => {
      server.closeAllConnections();
      server.close();
    },
  };
  return provider;
}
