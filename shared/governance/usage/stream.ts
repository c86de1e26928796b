import { fail, type Result } from "../result.ts";
import type { UsageProblem } from "./counts.ts";
import { lengthOfPart } from "./output.ts";
import { usageShapes } from "./shapes.ts";
import { leavesOutOutput, type ReadUsage, readReport } from "./response.ts";

/** What is known of a stream that broke off. Lengths are UTF-16 units; chunks are counted. */
export interface PartialUsage {
  /** The highest value the provider reported of each count (cumulative); null where it reported none. */
  readonly reported: ReadUsage | null;
  /** UTF-16 units of text that came, for an estimate of what the provider had not counted yet. */
  readonly text_length: number;
  /** The part of it that came after the provider's last report. */
  readonly text_since_report: number;
  readonly chunks: number;
}

/** Reads usage from a stream's chunks as they pass by, in constant memory. */
export interface UsageStream {
  /**
   * Takes one chunk: the provider's parsed JSON, in order. A string is text that a library has taken out of its chunks:
   * it carries no usage, only how much text there was. Unknown chunks are passed over.
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
  readonly choices?: readonly ({
    readonly delta?: unknown;
    readonly text?: unknown;
    readonly usage?: unknown;
  } | null)[];
  readonly candidates?: readonly ({ readonly content?: unknown } | null)[];
  readonly model?: unknown;
  readonly modelVersion?: unknown;
  readonly content_block?: unknown;
  readonly metadata?: { readonly usage?: unknown } | null;
  readonly contentBlockDelta?: { readonly delta?: unknown } | null;
  readonly serverContent?: { readonly modelTurn?: unknown } | null;
}

type Report = Record<string, unknown>;

const textLength = (text: unknown): number => (typeof text === "string" ? text.length : 0);

/** Keeps the highest value of each count: reports are cumulative, and a placeholder of zero may come late. */
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

/** Counts that lie in a chunk itself. */
const bareCounts = usageShapes
  .filter(({ shape }) => shape === "ollama" || shape === "llama_cpp" || shape === "bedrock_invoke")
  .flatMap(({ input, output }) => [...input, ...output].flatMap((paths) => paths.split("|")));

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

/** What a stream has shown so far. */
interface Seen {
  /** What was reported, as a whole response would have it. */
  readonly report: { type?: string; model?: unknown; usage?: Report; usageMetadata?: Report };
  isAnthropic: boolean;
  hasEnded: boolean;
  /** The most output that was reported; a report that counts none says nothing of the text before it. */
  mostOutput: number;
  textLength: number;
  textLengthAtReport: number;
  chunks: number;
}

/**
 * A reader for the streams of the providers in `usageShapes`. All report cumulative counts, so nothing is added up
 * twice, and a count that falls is one that a later report leaves out.
 * Sources: platform.openai.com/docs/api-reference/chat-streaming (ask for usage: `stream_options: {include_usage: true}`),
 * …/responses-streaming, …/realtime-server-events; docs.anthropic.com/en/docs/build-with-claude/streaming;
 * ai.google.dev/api/generate-content#method:-models.streamgeneratecontent; docs.perplexity.ai/guides/streaming;
 * docs.cohere.com/v2/docs/streaming; docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html;
 * ai.google.dev/api/live. A sample of each, with its source, is in samples.json.
 */
export function readUsageStream(): UsageStream {
  const seen: Seen = {
    report: {},
    isAnthropic: false,
    hasEnded: false,
    mostOutput: 0,
    textLength: 0,
    textLengthAtReport: 0,
    chunks: 0,
  };
  return {
    push(chunk) {
      if (chunk === undefined || chunk === null) return;
      seen.chunks++;
      if (typeof chunk !== "object") seen.textLength += textLength(chunk);
      else if (typeof (chunk as Chunk).type === "string")
        takeTyped(seen, (chunk as Chunk).type as string, chunk as Chunk);
      else takeUntyped(seen, chunk as Chunk);
    },
    result: () => resultOf(seen),
    partial() {
      const reported = isReported(seen) ? readReport(seen.report) : null;
      return {
        reported: reported?.ok ? reported.value : null,
        text_length: seen.textLength,
        text_since_report: seen.textLength - seen.textLengthAtReport,
        chunks: seen.chunks,
      };
    },
  };
}

/** Chunks that name their type: Anthropic's messages, OpenAI's responses and realtime. */
function takeTyped(seen: Seen, type: string, chunk: Chunk): void {
  switch (type) {
    case "message_start":
      seen.isAnthropic = true;
      seen.report.type = "message";
      seen.report.model = chunk.message?.model;
      takeUsage(seen, "usage", chunk.message?.usage);
      break;
    case "message_delta":
      seen.isAnthropic = true;
      seen.report.type = "message";
      takeUsage(seen, "usage", chunk.usage);
      seen.hasEnded ||= (chunk.delta as { stop_reason?: unknown } | undefined)?.stop_reason != null;
      break;
    case "message_stop":
      seen.hasEnded = true;
      break;
    case "content_block_start":
      seen.textLength += lengthOfPart(chunk.content_block);
      break;
    case "content_block_delta": {
      const delta = chunk.delta as { text?: unknown; thinking?: unknown; partial_json?: unknown } | undefined;
      seen.textLength +=
        textLength(delta?.text) + textLength(delta?.thinking) + textLength(delta?.partial_json);
      break;
    }
    case "response.completed":
    case "response.incomplete":
    case "response.failed":
    case "response.done":
      seen.report.model = chunk.response?.model ?? seen.report.model;
      takeUsage(seen, "usage", chunk.response?.usage);
      break;
    default:
      // The AI SDK and Cohere write "…-delta".
      if (/[.-]delta$/.test(type)) seen.textLength += lengthOfDelta(type, chunk.delta);
      else
        takeUsage(
          seen,
          "usage",
          chunk.usage ?? (chunk.delta as { usage?: unknown } | null | undefined)?.usage,
        );
  }
}

/** Audio comes as text as well; a thousand characters of it may be one token. */
function lengthOfDelta(type: string, delta: unknown): number {
  if (type.endsWith("audio.delta")) return 0;
  return typeof delta === "string" ? delta.length : lengthOfPart(delta);
}

/** Chunks without a type: OpenAI's chat and what speaks like it, and Gemini. */
function takeUntyped(seen: Seen, chunk: Chunk): void {
  const model = chunk.model ?? chunk.modelVersion;
  if (typeof model === "string") seen.report.model = model;
  const choices = chunk.choices;
  if (Array.isArray(choices))
    for (const choice of choices) {
      // The older completions have their text beside no delta.
      seen.textLength += lengthOfPart(choice?.delta) + textLength(choice?.text);
      takeUsage(seen, "usage", choice?.usage);
    }
  const candidates = chunk.candidates;
  if (Array.isArray(candidates))
    for (const candidate of candidates) seen.textLength += lengthOfPart(candidate?.content);
  // Bedrock's ConverseStream, and Google's Live API.
  if (chunk.contentBlockDelta) seen.textLength += lengthOfPart(chunk.contentBlockDelta.delta);
  if (chunk.serverContent) seen.textLength += lengthOfPart(chunk.serverContent.modelTurn);
  takeBare(seen, chunk as unknown as Report);
  takeUsage(seen, "usageMetadata", chunk.usageMetadata);
  takeUsage(seen, "usage", chunk.usage ?? chunk.metadata?.usage);
  takeUsage(seen, "usage", chunk.x_groq?.usage);
}

/** Ollama, llama.cpp and Bedrock's InvokeModel: text and counts lie in the chunk itself. */
function takeBare(seen: Seen, chunk: Report): void {
  const { message, response, content, generation } = chunk;
  if (typeof message === "object" && chunk["choices"] === undefined) seen.textLength += lengthOfPart(message);
  seen.textLength += textLength(response) + textLength(content) + textLength(generation);
  const counts: Report = {};
  for (const key of bareCounts) if (typeof chunk[key] === "number") counts[key] = chunk[key];
  takeUsage(seen, "usage", counts);
  takeUsage(seen, "usage", chunk["amazon-bedrock-invocationMetrics"]);
}

function takeUsage(seen: Seen, place: "usage" | "usageMetadata", usage: unknown): void {
  if (typeof usage !== "object" || usage === null || Array.isArray(usage) || isEmpty(usage)) return;
  keepMost((seen.report[place] ??= {}), usage);
  const output = outputIn(usage as Report);
  if (output === 0 || output < seen.mostOutput) return;
  seen.mostOutput = output;
  seen.textLengthAtReport = seen.textLength;
}

function isEmpty(object: object): boolean {
  for (const _ in object) return false;
  return true;
}

function isReported({ report }: Seen): boolean {
  return report.usage !== undefined || report.usageMetadata !== undefined;
}

function resultOf(seen: Seen): Result<ReadUsage, UsageProblem> {
  if (!isReported(seen))
    return noUsage(
      "",
      seen.chunks === 0
        ? "The stream was empty."
        : "The stream ended without usage: ask for it (OpenAI chat: stream_options {include_usage: true}).",
    );
  // What message_start says of the output is only its beginning; a placeholder before the text is less than that.
  if ((seen.isAnthropic && !seen.hasEnded) || seen.textLength > seen.textLengthAtReport)
    return noUsage("", "The stream was cut off before its last count, or counts no output beside its text.");
  const read = readReport(seen.report);
  return read.ok && leavesOutOutput(read.value, seen.textLength)
    ? noUsage("usage", "The stream has output, but its usage counts none.")
    : read;
}

function noUsage(path: string, message: string): Result<never, UsageProblem> {
  return fail({ code: "no_usage", path, message });
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
        // A line that is no JSON carries no usage; if it should have, the result reports that usage is missing.
      }
    }
    rest = rest.slice(start);
    // An endless line is no event stream: do not keep it.
    if (rest.length > 16_000_000) rest = "";
  };
}
