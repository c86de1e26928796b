import { fail, type Result } from "../result.ts";
import type { UsageProblem } from "./counts.ts";
import { lengthOfPart } from "./output.ts";
import { usageShapes } from "./shapes.ts";
import { leavesOutOutput, type ReadUsage, readReport } from "./response.ts";

/** What is known of a stream that broke off. Lengths are UTF-16 units; chunks are counted. */
export interface PartialUsage {
  /** The most that the provider has said of each count (cumulative), null if it had not said anything. */
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
  readonly x_groq?: { readonly usage?: unknown } | null;
  readonly message?: { readonly usage?: unknown; readonly model?: unknown } | null;
  readonly response?: { readonly usage?: unknown; readonly model?: unknown } | null;
  readonly delta?: unknown;
  readonly choices?: readonly ({ readonly delta?: unknown; readonly usage?: unknown } | null)[];
  readonly candidates?: readonly ({ readonly content?: unknown } | null)[];
  readonly model?: unknown;
  readonly modelVersion?: unknown;
  readonly content_block?: unknown;
}

type Report = Record<string, unknown>;

const textLength = (text: unknown): number => (typeof text === "string" ? text.length : 0);

/** Keeps the most that was said of each count: reports are cumulative, and placeholders of zero come late, too. */
function keepMost(kept: Report, report: object, depth = 0): void {
  for (const key in report) {
    const value = (report as Report)[key];
    const before = kept[key];
    if (typeof value === "number") {
      if (typeof before !== "number" || !(value <= before)) kept[key] = value;
    } else if (Array.isArray(value)) {
      if (value.length > 0 || before === undefined) kept[key] = value;
    } else if (typeof value === "object" && value !== null) {
      if (depth > 4) continue;
      const inner = typeof before === "object" && before !== null && !Array.isArray(before) ? before : {};
      keepMost(inner as Report, value, depth + 1);
      kept[key] = inner;
    } else if (value !== null && value !== undefined) kept[key] = value;
  }
}

/** Where the output counts of all shapes lie, read without knowing which it is. */
const outputPaths: readonly (readonly string[])[] = [
  ...new Set(usageShapes.flatMap((shape) => shape.output.flatMap((paths) => paths.split("|")))),
]
  // Cohere keeps its counts in usage.tokens.
  .concat("tokens.output_tokens")
  .map((path) => path.split("."));

function outputIn(report: Report): number {
  let output = 0;
  for (const [key = "", part] of outputPaths) {
    let value = report[key];
    if (part !== undefined)
      value = typeof value === "object" && value !== null ? (value as Report)[part] : undefined;
    if (typeof value === "number" && value > output) output = value;
  }
  return output;
}

/**
 * A reader for the streams of the providers in `usageShapes`. All report cumulative counts, so nothing is added up
 * twice, and a count that falls is one that a later report leaves out.
 * Sources: platform.openai.com/docs/api-reference/chat-streaming (ask for usage: `stream_options: {include_usage: true}`),
 * …/responses-streaming, …/realtime-server-events; docs.anthropic.com/en/docs/build-with-claude/streaming;
 * ai.google.dev/api/generate-content#method:-models.streamgeneratecontent; docs.perplexity.ai/guides/streaming.
 */
export function readUsageStream(): UsageStream {
  /** What was reported, as a whole response would have it. */
  const said: { type?: string; model?: unknown; usage?: Report; usageMetadata?: Report } = {};
  let isAnthropic = false;
  let hasEnded = false;
  /** The most output that was reported; a report that counts none says nothing of the text before it. */
  let most = 0;
  let length = 0;
  let lengthAtReport = 0;
  let chunks = 0;

  function report(place: "usage" | "usageMetadata", usage: unknown): void {
    if (typeof usage !== "object" || usage === null || Array.isArray(usage)) return;
    let isEmpty = true;
    for (const _ in usage) {
      isEmpty = false;
      break;
    }
    if (isEmpty) return;
    keepMost((said[place] ??= {}), usage);
    const output = outputIn(usage as Report);
    if (output === 0 || output < most) return;
    most = output;
    lengthAtReport = length;
  }

  function pushTyped(type: string, chunk: Chunk): void {
    switch (type) {
      case "message_start":
        isAnthropic = true;
        said.type = "message";
        said.model = chunk.message?.model;
        report("usage", chunk.message?.usage);
        break;
      case "message_delta":
        isAnthropic = true;
        said.type = "message";
        report("usage", chunk.usage);
        hasEnded ||= (chunk.delta as { stop_reason?: unknown } | undefined)?.stop_reason != null;
        break;
      case "message_stop":
        hasEnded = true;
        break;
      case "content_block_start":
        length += lengthOfPart(chunk.content_block);
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
      case "response.done":
        said.model = chunk.response?.model ?? said.model;
        report("usage", chunk.response?.usage);
        break;
      default:
        // Sound comes as text as well, of which a thousand signs may be one token. The AI SDK and Cohere say "…-delta".
        if (/[.-]delta$/.test(type))
          length += type.endsWith("audio.delta")
            ? 0
            : typeof chunk.delta === "string"
              ? chunk.delta.length
              : lengthOfPart(chunk.delta);
        else report("usage", chunk.usage ?? (chunk.delta as { usage?: unknown } | null | undefined)?.usage);
    }
  }

  const isReported = (): boolean => said.usage !== undefined || said.usageMetadata !== undefined;

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
      const model = chunk.model ?? chunk.modelVersion;
      if (typeof model === "string") said.model = model;
      const choices = chunk.choices;
      if (Array.isArray(choices))
        for (const choice of choices) {
          length += lengthOfPart(choice?.delta);
          report("usage", choice?.usage);
        }
      const candidates = chunk.candidates;
      if (Array.isArray(candidates))
        for (const candidate of candidates) length += lengthOfPart(candidate?.content);
      report("usageMetadata", chunk.usageMetadata);
      report("usage", chunk.usage);
      report("usage", chunk.x_groq?.usage);
    },
    result() {
      if (!isReported())
        return fail({
          code: "no_usage",
          path: "",
          message:
            chunks === 0
              ? "The stream was empty."
              : "The stream ended without usage: ask for it (OpenAI chat: stream_options {include_usage: true}).",
        });
      // What message_start says of the output is only its beginning; a placeholder before the text is less than that.
      if ((isAnthropic && !hasEnded) || length > lengthAtReport)
        return fail({
          code: "no_usage",
          path: "",
          message: "The stream was cut off before its last count, or counts no output beside its text.",
        });
      const read = readReport(said);
      return read.ok && leavesOutOutput(read.value, length)
        ? fail({
            code: "no_usage",
            path: "usage",
            message: "The stream has output, but its usage counts none.",
          })
        : read;
    },
    partial() {
      const reported = isReported() ? readReport(said) : null;
      return {
        reported: reported?.ok ? reported.value : null,
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
