import { fail, type Result } from "../result.ts";
import type { UsageProblem } from "./counts.ts";
import { readAnthropicUsage, type ReadUsage, readUsage } from "./response.ts";

/** What is known of a stream that broke off. Lengths are UTF-16 units; chunks are counted. */
export interface PartialUsage {
  /** The provider's last word on counts (cumulative), null if it had not said anything. */
  readonly reported: ReadUsage | null;
  /** UTF-16 units of text that came, for an estimate of what the provider had not counted yet. */
  readonly text_length: number;
  /** The part of it that came after the provider's last word. */
  readonly text_since_report: number;
  readonly chunks: number;
}

/** Reads usage from a stream's chunks as they pass by, in constant memory. */
export interface UsageStream {
  /**
   * Takes one chunk: the provider's parsed JSON, in order. A string is text that a library has taken out of its chunks:
   * it tells no usage, but how much there was. Unknown chunks are let pass.
   */
  push(chunk: unknown): void;
  /** The counts, once the stream has ended by itself. */
  result(): Result<ReadUsage, UsageProblem>;
  /** What is known so far, for a stream that broke. */
  partial(): PartialUsage;
}

interface Chunk {
  readonly type?: unknown;
  readonly usage?: unknown;
  readonly usageMetadata?: unknown;
  readonly message?: { readonly usage?: unknown; readonly model?: unknown };
  readonly response?: { readonly usage?: unknown };
  readonly delta?: unknown;
  readonly choices?: readonly ({ readonly delta?: unknown } | null)[];
  readonly candidates?: readonly ({
    readonly content?: { readonly parts?: readonly ({ readonly text?: unknown } | null)[] } | null;
  } | null)[];
  readonly model?: unknown;
}

const textLength = (text: unknown): number => (typeof text === "string" ? text.length : 0);

/** Length of the text that a chat delta adds; tool calls lie a few levels deep. */
function deltaLength(delta: unknown, depth = 0): number {
  if (typeof delta !== "object" || delta === null || depth > 4) return 0;
  let length = 0;
  for (const key in delta) {
    const value = (delta as Record<string, unknown>)[key];
    if (typeof value === "string") length += spoken.has(key) ? value.length : 0;
    else if (typeof value === "object") length += deltaLength(value, depth + 1);
  }
  return length;
}
const spoken: ReadonlySet<string> = new Set([
  "content",
  "refusal",
  "reasoning_content",
  "reasoning",
  "name",
  "arguments",
]);

/**
 * A reader for the streams of OpenAI (chat with `stream_options: {include_usage: true}`, and responses), Anthropic,
 * Google and Perplexity. All report cumulative counts, so the last word counts and nothing is added up twice.
 * Sources: platform.openai.com/docs/api-reference/chat-streaming, …/responses-streaming;
 * docs.anthropic.com/en/docs/build-with-claude/streaming; ai.google.dev/api/generate-content#method:-models.streamgeneratecontent;
 * docs.perplexity.ai/guides/streaming.
 */
export function readUsageStream(): UsageStream {
  /** The last chunk with counts, read only when asked for. */
  let last: unknown = null;
  /** Anthropic says what it read at the start and what it wrote at the end: both merged. */
  let anthropic: Record<string, unknown> | null = null;
  let anthropicModel: unknown = null;
  let anthropicEnded = false;
  let length = 0;
  let lengthAtReport = 0;
  let chunks = 0;

  function merge(usage: unknown): void {
    if (typeof usage !== "object" || usage === null) return;
    anthropic ??= {};
    lengthAtReport = length;
    for (const [key, value] of Object.entries(usage))
      if (value !== null && value !== undefined) anthropic[key] = value;
  }

  function report(chunk: unknown): void {
    last = chunk;
    lengthAtReport = length;
  }

  function pushTyped(type: string, chunk: Chunk): void {
    switch (type) {
      case "message_start":
        anthropicModel = chunk.message?.model ?? null;
        merge(chunk.message?.usage);
        break;
      case "message_delta":
        merge(chunk.usage);
        anthropicEnded ||= (chunk.delta as { stop_reason?: unknown } | undefined)?.stop_reason != null;
        break;
      case "message_stop":
        anthropicEnded = true;
        break;
      case "content_block_delta": {
        const delta = chunk.delta as
          | { text?: unknown; thinking?: unknown; partial_json?: unknown }
          | undefined;
        length += textLength(delta?.text) + textLength(delta?.thinking) + textLength(delta?.partial_json);
        break;
      }
      case "response.completed":
      case "response.incomplete":
      case "response.failed":
        if (chunk.response?.usage) report(chunk.response);
        break;
      default:
        // Sound comes as text as well, of which a thousand signs may be one token.
        if (type.endsWith(".delta")) length += type.endsWith("audio.delta") ? 0 : textLength(chunk.delta);
        else if (chunk.usage) report(chunk);
    }
  }

  const read = (): Result<ReadUsage, UsageProblem> => {
    if (anthropic) return readAnthropicUsage(anthropic, anthropicModel);
    if (last !== null) return readUsage(last);
    return fail({
      code: "no_usage",
      path: "",
      message:
        chunks === 0
          ? "The stream was empty."
          : "The stream ended without usage: ask for it (OpenAI chat: stream_options {include_usage: true}).",
    });
  };

  return {
    push(given) {
      if (given === undefined || given === null) return;
      chunks++;
      if (typeof given !== "object") {
        length += textLength(given);
        return;
      }
      const chunk = given as Chunk;
      const type = chunk.type;
      if (typeof type === "string") {
        pushTyped(type, chunk);
        return;
      }
      const choices = chunk.choices;
      if (choices !== undefined) {
        if (Array.isArray(choices)) for (const choice of choices) length += deltaLength(choice?.delta);
        if (chunk.usage) report(chunk);
        return;
      }
      const candidates = chunk.candidates;
      if (Array.isArray(candidates))
        for (const candidate of candidates) {
          const parts = candidate?.content?.parts;
          if (Array.isArray(parts)) for (const part of parts) length += textLength(part?.text);
        }
      if (chunk.usageMetadata || chunk.usage) report(chunk);
    },
    result: () =>
      // What message_start says of the output is only its beginning; a placeholder before the text is less than that.
      (anthropic && !anthropicEnded) || ((anthropic || last !== null) && length > lengthAtReport)
        ? fail({ code: "no_usage", path: "", message: "The stream was cut off before its last count." })
        : read(),
    partial() {
      const reported = read();
      return {
        reported: reported.ok ? reported.value : null,
        text_length: length,
        text_since_report: length - lengthAtReport,
        chunks,
      };
    },
  };
}

/**
 * Feeds server-sent events as they come over the wire to a reader: for backends that pass a provider's stream through
 * without its SDK. Answers a function that takes text pieces of any length; lines may be split anywhere.
 */
export function readServerSentEvents(stream: UsageStream): (text: string) => void {
  let rest = "";
  return (text) => {
    // What is left holds no line end: look in the new piece alone, else a long line costs its square.
    const looked = rest.length;
    rest += text;
    let start = 0;
    for (let end = rest.indexOf("\n", looked); end >= 0; end = rest.indexOf("\n", start)) {
      const line = rest.slice(start, rest.charCodeAt(end - 1) === 13 ? end - 1 : end);
      start = end + 1;
      if (!line.startsWith("data:")) continue;
      const data = line.slice(5).trimStart();
      if (data === "[DONE]" || data === "") continue;
      try {
        stream.push(JSON.parse(data));
      } catch {
        // A line that is no JSON carries no usage; if it should have, the result says so.
      }
    }
    rest = rest.slice(start);
    // An endless line is no event stream: do not keep it.
    if (rest.length > 16_000_000) rest = "";
  };
}
