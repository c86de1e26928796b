import { fail, type Result } from "../result.ts";
import { isRecord } from "../rules/problems.ts";
import { isCount, readCount, type UsageCounts, type UsageProblem } from "./counts.ts";
import { lengthOfOutput, lengthOfPart } from "./output.ts";
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
  /** What was reported at least, where the reported counts are there and disagree. */
  readonly at_least?: UsageCounts;
  /** True where the output that was reported is known to be only its beginning (Anthropic's `message_start`). */
  readonly is_beginning?: true;
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
  readonly usage_metadata?: unknown;
  readonly totalUsage?: unknown;
  readonly x_groq?: { readonly usage?: unknown } | null;
  readonly message?: { readonly usage?: unknown; readonly model?: unknown } | null;
  readonly response?: {
    readonly usage?: unknown;
    readonly model?: unknown;
    readonly service_tier?: unknown;
    readonly tool_usage?: unknown;
    readonly meta?: unknown;
  } | null;
  readonly service_tier?: unknown;
  readonly delta?: unknown;
  readonly choices?: readonly ({
    readonly delta?: unknown;
    readonly message?: unknown;
    readonly text?: unknown;
    readonly usage?: unknown;
  } | null)[];
  readonly candidates?: readonly ({ readonly content?: unknown } | null)[];
  readonly model?: unknown;
  readonly modelVersion?: unknown;
  readonly content_block?: unknown;
  readonly metadata?: { readonly usage?: unknown; readonly serviceTier?: unknown } | null;
  readonly serviceTier?: unknown;
  readonly providerMetadata?: unknown;
  readonly interaction?: {
    readonly usage?: unknown;
    readonly model?: unknown;
    readonly service_tier?: unknown;
  } | null;
  readonly "amazon-bedrock-invocationMetrics"?: Readonly<Record<string, unknown>> | null;
  readonly contentBlockDelta?: { readonly delta?: unknown } | null;
  readonly serverContent?: { readonly modelTurn?: unknown } | null;
}

type Report = Record<string, unknown>;

const textLength = (text: unknown): number => (typeof text === "string" ? text.length : 0);

/** Keeps the highest value of each count: reports are cumulative, and a placeholder of zero may come late. */
function keepMost(kept: Report, report: object, depth = 0): void {
  for (const key in report) {
    const value = readCount((report as Report)[key]);
    const before = kept[key];
    if (typeof value === "number") {
      // What is no count gives way to one.
      if (before === undefined || (isCount(value) && !(isCount(before) && value <= before)))
        kept[key] = value;
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

/** Adds the counts of a step to those of the steps before it. */
function addStep(sum: Report, step: object, depth = 0): Report {
  const added = { ...sum };
  for (const key in step) {
    const value = readCount((step as Report)[key]);
    const before = added[key];
    if (isCount(value)) added[key] = value + (isCount(before) ? before : 0);
    else if (typeof value === "object" && value !== null && !Array.isArray(value) && depth < 4)
      added[key] = addStep((before ?? {}) as Report, value, depth + 1);
  }
  return added;
}

/** Where the output counts of all shapes lie, read without knowing which it is. */
const outputPaths: readonly (readonly string[])[] = [
  ...new Set(usageShapes.flatMap((shape) => shape.output.flatMap((paths) => paths.split("|")))),
].map((path) => path.split("."));

/** Counts that lie in a chunk itself. */
const bareCounts = usageShapes
  .filter(({ shape }) => ["ollama", "llama_cpp", "bedrock_invoke", "bedrock_titan"].includes(shape))
  .flatMap(({ input, output }) => [...input, ...output].flatMap((paths) => paths.split("|")));

function outputIn(report: Report): number {
  let output = 0;
  for (const [key = "", part] of outputPaths) {
    let value = report[key];
    if (part !== undefined)
      value = typeof value === "object" && value !== null ? (value as Report)[part] : undefined;
    const count = readCount(value);
    if (isCount(count) && count > output) output = count;
  }
  return output;
}

/** What a stream has shown so far. */
interface Seen {
  /** What was reported, as a whole response would have it. */
  readonly report: {
    type?: string;
    model?: unknown;
    service_tier?: unknown;
    tool_usage?: unknown;
    providerMetadata?: unknown;
    usage?: Report;
    usageMetadata?: Report;
  };
  /** The last report that counted something, by itself: where counts fell, those before do not fit to it. */
  last: { usage?: object; usageMetadata?: object };
  /** What was used beside the answer and is counted apart: Realtime's transcript of what the user said. */
  beside: Report | null;
  /** What the steps of an agent's stream used so far, added up. */
  steps: Report;
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
    last: {},
    beside: null,
    steps: {},
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
      else takeChunk(seen, chunk as Chunk);
    },
    result: () => resultOf(seen),
    partial() {
      const reported = isReported(seen) ? readSeen(seen) : null;
      return {
        ...(reported?.ok === false && reported.error.at_least ? { at_least: reported.error.at_least } : {}),
        ...(isBeginning(seen) ? { is_beginning: true as const } : {}),
        reported: reported?.ok ? reported.value : null,
        text_length: seen.textLength,
        text_since_report: seen.textLength - seen.textLengthAtReport,
        chunks: seen.chunks,
      };
    },
  };
}

const anthropicPrompt = ["input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"];
const promptOf = (report: Report): number =>
  anthropicPrompt.reduce((sum, key) => {
    const count = readCount(report[key]);
    return sum + (isCount(count) ? count : 0);
  }, 0);

const isFallback = ({ iterations }: Report): boolean =>
  Array.isArray(iterations) && iterations.some((one) => isRecord(one) && one["type"] === "fallback_message");

/** Anthropic's prompt is told twice: what is told again in full may have moved from one cache to the other. */
function takeAgain(seen: Seen, usage: unknown): void {
  const kept = seen.report.usage;
  // Where a fallback served the turn, what was begun with was another model's.
  if (
    kept &&
    isRecord(usage) &&
    (promptOf(usage) >= promptOf(kept) || (isFallback(usage) && promptOf(usage) > 0))
  )
    for (const key of anthropicPrompt)
      if (isCount(readCount((usage as Report)[key]))) {
        if (key === "cache_creation_input_tokens" && (usage as Report)[key] !== kept[key])
          delete kept["cache_creation"];
        delete kept[key];
      }
  takeUsage(seen, "usage", usage);
}

/** SDKs wrap what came in an event: Mistral's `{data}`, OpenAI's Assistants `{event, data}`. */
function takeChunk(seen: Seen, chunk: Chunk): void {
  // Google's SDK has getters of these names.
  const data = Object.hasOwn(chunk, "data") ? (chunk as { data?: unknown }).data : undefined;
  const isWhole = typeof chunk.type === "string" || chunk.choices || chunk.usage || chunk.usageMetadata;
  const inner = isWhole || !isRecord(data) ? chunk : (data as Chunk);
  if (typeof inner.type === "string") takeTyped(seen, inner.type, inner);
  else takeUntyped(seen, inner);
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
    // An answer that was to be a stream, and came whole.
    case "message":
      seen.report.type = "message";
      seen.report.model = chunk.model;
      seen.textLength += lengthOfOutput(chunk);
      takeUsage(seen, "usage", chunk.usage);
      break;
    case "message_delta":
      seen.isAnthropic = true;
      seen.report.type = "message";
      takeAgain(seen, chunk.usage);
      seen.hasEnded ||= (chunk.delta as { stop_reason?: unknown } | undefined)?.stop_reason != null;
      break;
    case "message_stop": {
      // On Bedrock the caches may be counted here alone.
      const metrics = chunk["amazon-bedrock-invocationMetrics"];
      if (metrics)
        takeAgain(seen, {
          input_tokens: metrics["inputTokenCount"],
          cache_creation_input_tokens: metrics["cacheWriteInputTokenCount"],
          cache_read_input_tokens: metrics["cacheReadInputTokenCount"],
          output_tokens: metrics["outputTokenCount"],
        });
      seen.hasEnded = true;
      break;
    }
    case "content_block_start":
      seen.textLength += lengthOfPart(chunk.content_block);
      break;
    case "content_block_delta":
      seen.textLength += lengthOfPart(chunk.delta);
      break;
    case "response.completed":
    case "response.incomplete":
    case "response.failed":
    case "response.done":
      seen.report.model = chunk.response?.model ?? seen.report.model;
      seen.report.service_tier = chunk.response?.service_tier;
      seen.report.tool_usage = chunk.response?.tool_usage;
      takeUsage(seen, "usage", chunk.response?.usage);
      break;
    case "response-metadata":
      seen.report.model = (chunk as { modelId?: unknown }).modelId ?? seen.report.model;
      break;
    // The AI SDK tells what each step used, and at the end the sum: `totalUsage`, in version 4 `usage`.
    case "finish-step":
    case "step-finish":
      if (typeof chunk.usage !== "object" || chunk.usage === null) break;
      seen.steps = addStep(seen.steps, chunk.usage);
      takeUsage(seen, "usage", seen.steps);
      break;
    case "conversation.item.input_audio_transcription.completed":
      if (isRecord(chunk.usage)) seen.beside = addStep(seen.beside ?? {}, chunk.usage);
      break;
    default:
      // The AI SDK and Cohere write "…-delta"; version 4 of the SDK "reasoning".
      if (/[.-]delta$|^reasoning$/.test(type)) seen.textLength += lengthOfDelta(type, chunk);
      else
        takeUsage(
          seen,
          "usage",
          chunk.totalUsage ?? chunk.usage ?? (chunk.delta as { usage?: unknown } | null | undefined)?.usage,
        );
  }
  if (chunk.providerMetadata) seen.report.providerMetadata = chunk.providerMetadata;
}

/** Where the text of a delta lies beside `delta`: the AI SDK's 5 and 4, and Mistral's conversations. */
const deltaTexts = ["text", "textDelta", "argsTextDelta", "inputTextDelta", "content"] as const;

/** Audio comes as text as well; a thousand characters of it may be one token. */
function lengthOfDelta(type: string, chunk: Chunk): number {
  if (type.endsWith("audio.delta")) return 0;
  const { delta } = chunk;
  if (delta !== undefined && delta !== null)
    return typeof delta === "string" ? delta.length : lengthOfPart(delta);
  const texts: Report = {};
  for (const key of deltaTexts) texts[key] = (chunk as Report)[key];
  return Math.max(lengthOfPart(texts), ...deltaTexts.map((key) => textLength(texts[key])));
}

/** Chunks without a type: OpenAI's chat and what speaks like it, and Gemini. */
function takeUntyped(seen: Seen, chunk: Chunk): void {
  const model = chunk.model ?? chunk.modelVersion;
  if (typeof model === "string") seen.report.model = model;
  if (typeof chunk.service_tier === "string") seen.report.service_tier = chunk.service_tier;
  const choices = chunk.choices;
  if (Array.isArray(choices))
    for (const choice of choices) {
      // The older completions have their text beside no delta; an answer that was to be a stream may come whole.
      seen.textLength += lengthOfPart(choice?.delta ?? choice?.message) + textLength(choice?.text);
      takeUsage(seen, "usage", choice?.usage);
    }
  const candidates = chunk.candidates;
  if (Array.isArray(candidates))
    for (const candidate of candidates) seen.textLength += lengthOfPart(candidate?.content);
  // Bedrock's ConverseStream, and Google's Live API.
  if (chunk.contentBlockDelta) seen.textLength += lengthOfPart(chunk.contentBlockDelta.delta);
  if (chunk.serverContent) seen.textLength += lengthOfPart(chunk.serverContent.modelTurn);
  if ((chunk as Report)["object"] === "response") seen.textLength += lengthOfOutput(chunk);
  // Gemini's Interactions.
  if (chunk.delta) seen.textLength += lengthOfPart(chunk.delta);
  if (chunk.interaction) {
    seen.report.model = chunk.interaction.model ?? seen.report.model;
    seen.report.service_tier = chunk.interaction.service_tier ?? seen.report.service_tier;
    takeUsage(seen, "usage", chunk.interaction.usage);
  }
  const tier = chunk.metadata?.serviceTier ?? chunk.serviceTier;
  if (isRecord(tier)) seen.report.service_tier = tier["type"];
  takeBare(seen, chunk as unknown as Report);
  takeUsage(seen, "usageMetadata", chunk.usageMetadata);
  takeUsage(seen, "usage", chunk.usage ?? chunk.metadata?.usage);
  takeUsage(seen, "usage", chunk.x_groq?.usage);
  takeUsage(seen, "usage", chunk.response?.meta);
  const langChain = chunk.usage_metadata;
  // LangChain's chunks are added up; Google's library in Python writes its own counts under the same name.
  if (isRecord(langChain) && "input_tokens" in langChain) {
    seen.steps = addStep(seen.steps, langChain);
    takeUsage(seen, "usage", seen.steps);
  } else takeUsage(seen, "usage", langChain);
}

/** Ollama, llama.cpp, Bedrock's InvokeModel and others: text and counts lie in the chunk itself. */
function takeBare(seen: Seen, chunk: Report): void {
  const { message, response, content, generation, outputText, token } = chunk;
  // Google's SDK has a getter of this name, which says again what its candidates say.
  const text = Object.hasOwn(chunk, "text") ? chunk["text"] : undefined;
  const choices = chunk["choices"];
  if (typeof message === "object" && choices === undefined) seen.textLength += lengthOfPart(message);
  const said = textLength(response) + textLength(content) + textLength(generation) + textLength(outputText);
  // Cohere's older chat, and Hugging Face's own API.
  seen.textLength += said || textLength(text) || lengthOfPart(token);
  // What says something in choices counts in `usage`; most chunks of most streams are such.
  if (!Array.isArray(choices) || choices.length === 0) {
    const counts: Report = {};
    for (const key of bareCounts) if (typeof chunk[key] === "number") counts[key] = chunk[key];
    takeUsage(seen, "usage", counts);
  }
  takeUsage(seen, "usage", chunk["amazon-bedrock-invocationMetrics"]);
}

function takeUsage(seen: Seen, place: "usage" | "usageMetadata", usage: unknown): void {
  if (typeof usage !== "object" || usage === null || Array.isArray(usage) || isEmpty(usage)) return;
  keepMost((seen.report[place] ??= {}), usage);
  const output = outputIn(usage as Report);
  if (output > 0) seen.last = { [place]: usage };
  if (output === 0 || output < seen.mostOutput) return;
  seen.mostOutput = output;
  seen.textLengthAtReport = seen.textLength;
}

function isEmpty(object: object): boolean {
  for (const _ in object) return false;
  return true;
}

/** What message_start says of the output is only its beginning. */
const isBeginning = ({ isAnthropic, hasEnded }: Seen): boolean => isAnthropic && !hasEnded;

function isReported({ report, beside }: Seen): boolean {
  return report.usage !== undefined || report.usageMetadata !== undefined || beside !== null;
}

/** Reads what was reported: the highest of each count, or, where these do not fit together, the last report. */
function readSeen({ report, last, beside }: Seen): Result<ReadUsage, UsageProblem> {
  const { usage, usageMetadata: _, ...rest } = report;
  if (beside) return readReport({ ...report, usage: addStep(usage ?? {}, beside) });
  const read = readReport(report);
  if (read.ok || read.error.code !== "inconsistent") return read;
  const again = readReport({ ...rest, ...last });
  return again.ok ? again : read;
}

function resultOf(seen: Seen): Result<ReadUsage, UsageProblem> {
  if (!isReported(seen))
    return noUsage(
      "",
      seen.chunks === 0
        ? "The stream was empty."
        : "The stream ended without usage: ask for it (OpenAI chat: stream_options {include_usage: true}).",
    );
  // A placeholder before the text is less than the output.
  if (isBeginning(seen) || seen.textLength > seen.textLengthAtReport)
    return noUsage("", "The stream was cut off before its last count, or counts no output beside its text.");
  const read = readSeen(seen);
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
  /** Data of the event so far that is no JSON yet: it may go on in its next line. */
  let begun = "";
  function push(json: string): boolean {
    try {
      stream.push(JSON.parse(json));
      return true;
    } catch {
      // What is no JSON carries no usage; if it should have, the result reports that usage is missing.
      return false;
    }
  }
  function read(line: string): void {
    if (line === "") begun = "";
    if (!line.startsWith("data:")) return;
    const data = line.slice(5).trimStart();
    if (data === "[DONE]" || data === "") return;
    if (push(data) || (begun !== "" && push(`${begun}\n${data}`))) begun = "";
    else if (begun.length + data.length < 50_000) begun += begun === "" ? data : `\n${data}`;
  }
  let isBegun = false;
  let endsInReturn = false;
  return (text) => {
    if (text === "") return;
    // What is left holds no line end: look in the new piece alone, else a long line costs its square.
    const looked = rest.length;
    // A byte order mark before all, and the second half of a line end.
    const isPassedOver = (!isBegun && text.startsWith("\uFEFF")) || (endsInReturn && text.startsWith("\n"));
    isBegun = true;
    endsInReturn = text.endsWith("\r");
    rest += isPassedOver ? text.slice(1) : text;
    let start = 0;
    const lineEnd = /\r\n?|\n/g;
    lineEnd.lastIndex = looked;
    for (let end = lineEnd.exec(rest); end; end = lineEnd.exec(rest)) {
      read(rest.slice(start, end.index));
      start = lineEnd.lastIndex;
    }
    rest = rest.slice(start);
    // The last line may come without an end.
    if (rest.endsWith("}") && rest.length < 4_000 && rest.startsWith("data:") && push(rest.slice(5)))
      rest = "";
    // An endless line is no event stream: do not keep it.
    if (rest.length > 16_000_000) rest = "";
  };
}
