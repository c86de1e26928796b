import { fail, type Result } from "../result.ts";
import { isRecord } from "../values.ts";
import { type Chunk, chunkWithin, messagesOfNodes, usageInTrace } from "./chunks.ts";
import { isCount, readCount, type UsageCounts, type UsageProblem } from "./counts.ts";
import { lengthOfOutput, lengthOfPart } from "./output.ts";
import { addStep, bareCounts, isEmpty, keepMost, outputIn, type Report } from "./reports.ts";
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
  /** UTF-16 units of text in chunks of a shape that nobody knows, where no text was found in any other. */
  readonly unknown_text_length?: number;
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

const textLength = (text: unknown): number => (typeof text === "string" ? text.length : 0);

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
  /** Ids of LangChain's messages whose usage is among the steps. */
  readonly messages: Set<string>;
  isAnthropic: boolean;
  hasEnded: boolean;
  /** The most output that was reported; a report that counts none does not cover the text before it. */
  mostOutput: number;
  textLength: number;
  textLengthAtReport: number;
  /** The content of chunks in which no text and no usage was found: an unknown shape. */
  unknownLength: number;
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
    messages: new Set(),
    isAnthropic: false,
    hasEnded: false,
    mostOutput: 0,
    textLength: 0,
    textLengthAtReport: 0,
    unknownLength: 0,
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
        ...(seen.textLength === 0 && seen.unknownLength > 0
          ? { unknown_text_length: seen.unknownLength }
          : {}),
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

/** Anthropic reports the prompt's tokens twice. In the second report, tokens may have moved from one cache to the other. */
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

/**
 * SDKs wrap what came: Mistral's `{data}`, OpenAI's Assistants `{event, data}`, Strands Agents' and Llama's `{event}`,
 * LlamaIndex's `{raw}`; LangGraph's messages are pairs of a chunk and what is known of it.
 */
function takeChunk(seen: Seen, given: Chunk, depth = 0): void {
  if (depth > 4) return;
  if (Array.isArray(given)) {
    for (const each of given) if (isRecord(each)) takeChunk(seen, each as Chunk, depth + 1);
    return;
  }
  const within = chunkWithin(given as Report);
  if (typeof within === "string") seen.textLength += within.length;
  if (within !== null) return isRecord(within) ? takeChunk(seen, within as Chunk, depth + 1) : undefined;
  // Google's SDK has getters of these names.
  const wrapped = (key: string): unknown =>
    Object.hasOwn(given, key) ? (given as Readonly<Record<string, unknown>>)[key] : undefined;
  const [data, event, raw] = [wrapped("data"), wrapped("event"), wrapped("raw")];
  const isWhole = typeof given.type === "string" || given.choices || given.usage || given.usageMetadata;
  if (typeof event === "string" && isRecord(data) && /^on_(chat_model|llm)_/.test(event))
    takeLangChainEvent(seen, event, data);
  else if (isRecord(event)) {
    // A Strands agent in Python reports each call of a model so.
    const { metadata } = event;
    if (isRecord(metadata) && isRecord(metadata["usage"])) takeStep(seen, metadata["usage"]);
    else takeChunk(seen, event as Chunk, depth + 1);
  } else if (!isWhole && isRecord(raw)) takeChunk(seen, raw as Chunk, depth + 1);
  else {
    const chunk = isWhole || !isRecord(data) ? given : (data as Chunk);
    const { textLength, report } = seen;
    if (typeof chunk.type === "string") takeTyped(seen, chunk.type, chunk);
    else takeUntyped(seen, chunk);
    if (seen.textLength !== textLength || isKnown(chunk) || takeNodes(seen, chunk as Report)) return;
    if (!report.usage && !report.usageMetadata) seen.unknownLength += lengthOfPart(chunk);
  }
}

/** Chunks that hold no output, whatever text is in them: what was asked, what tools answered, and errors. */
const isKnown = (chunk: Chunk): boolean =>
  chunk.choices !== undefined ||
  "textOutput" in chunk ||
  "audioOutput" in chunk ||
  (typeof chunk.type === "string" &&
    /^(response\.|message_|content_block|user$|system$|human$|tool|error)/.test(chunk.type));

/** LangChain.js and LangGraph, `streamEvents`: a model's chunks are text alone, its end has the usage of the run. */
function takeLangChainEvent(seen: Seen, event: string, data: Report): void {
  const { chunk, output } = data as { readonly chunk?: unknown; readonly output?: unknown };
  if (event.endsWith("_stream") && isRecord(chunk)) seen.textLength += lengthOfMessage(chunk);
  if (event.endsWith("_end") && isRecord(output)) takeLangChain(seen, output);
}

/** LangChain's messages repeat these in other fields. */
const lengthOfMessage = ({ content, tool_call_chunks: calls }: Report): number =>
  lengthOfPart({ content, calls });

/** LangChain's reports are added up: each of a stream's chunks, and each run of a model, reports its own. */
function takeLangChain(seen: Seen, message: Report): void {
  const metadata = message["response_metadata"];
  const model = isRecord(metadata) ? (metadata["model_name"] ?? metadata["model"]) : undefined;
  if (typeof model === "string") seen.report.model = model;
  const { id, usage_metadata: usage } = message;
  takeStep(seen, usage);
  // A chunk without usage leaves it to its node's update.
  if (isRecord(usage) && typeof id === "string") seen.messages.add(id);
}

/**
 * LangGraph's "updates": what each node of a graph has added to the messages; false for any other chunk. A message that
 * came in chunks before is not counted again.
 */
function takeNodes(seen: Seen, chunk: Report): boolean {
  const lists = messagesOfNodes(chunk);
  for (const message of lists.flat()) {
    if (!isRecord(message) || !isRecord(message["usage_metadata"])) continue;
    if (seen.messages.has(message["id"] as string)) continue;
    // The text of its chunks may be counted already; the usage that follows it covers both.
    seen.textLength += lengthOfMessage(message);
    takeLangChain(seen, message);
  }
  return lists.length > 0;
}

function takeStep(seen: Seen, usage: unknown): void {
  if (!isRecord(usage)) return;
  seen.steps = addStep(seen.steps, usage);
  takeUsage(seen, "usage", seen.steps);
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
    // A chunk of LangChain's, in JavaScript and as its Python library writes it.
    case "ai":
    case "AIMessageChunk":
      seen.textLength += lengthOfMessage(chunk as Report);
      takeLangChain(seen, chunk as Report);
      break;
    // OpenAI's agents: what each of their models says, and what it used.
    case "raw_model_stream_event": {
      const { data } = chunk as { readonly data?: unknown };
      if (isRecord(data) && typeof data["type"] === "string") takeTyped(seen, data["type"], data as Chunk);
      break;
    }
    case "response_done":
      takeStep(seen, chunk.response?.usage);
      break;
    // Strands Agents: each call of a model.
    case "modelMetadataEvent":
      takeStep(seen, chunk.usage);
      break;
    // Anthropic's agents close with the sum of all that their models reported before.
    case "result":
      if ("total_cost_usd" in chunk && isRecord(chunk.usage)) {
        seen.report.type = "message";
        delete seen.report.usage;
        seen.hasEnded = true;
      }
      takeUsage(seen, "usage", chunk.usage);
      break;
    case "response-metadata":
      seen.report.model = (chunk as { modelId?: unknown }).modelId ?? seen.report.model;
      break;
    // The AI SDK reports what each step used, and at the end the sum: `totalUsage`, in version 4 `usage`.
    case "finish-step":
    case "step-finish":
      takeStep(seen, chunk.usage);
      break;
    case "conversation.item.input_audio_transcription.completed":
      if (isRecord(chunk.usage)) seen.beside = addStep(seen.beside ?? {}, chunk.usage);
      break;
    default:
      // The AI SDK and Cohere write "…-delta"; version 4 of the SDK "reasoning".
      if (/[._-]delta$|^reasoning$/.test(type)) seen.textLength += lengthOfDelta(type, chunk);
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
  if (chunk.delta) seen.textLength += textLength(chunk.delta) || lengthOfPart(chunk.delta);
  if (chunk.interaction) {
    seen.report.model = chunk.interaction.model ?? seen.report.model;
    seen.report.service_tier = chunk.interaction.service_tier ?? seen.report.service_tier;
    takeUsage(seen, "usage", chunk.interaction.usage);
  }
  const tier = chunk.metadata?.serviceTier ?? chunk.serviceTier;
  if (isRecord(tier)) seen.report.service_tier = tier["type"];
  takeBare(seen, chunk as unknown as Report);
  takeSpeech(seen, chunk as unknown as Report);
  takeStep(seen, usageInTrace(chunk as unknown as Report));
  takeUsage(seen, "usageMetadata", chunk.usageMetadata);
  takeUsage(seen, "usage", chunk.usage ?? chunk.metadata?.usage);
  takeUsage(seen, "usage", chunk.x_groq?.usage);
  takeUsage(seen, "usage", chunk.response?.meta);
  // Yandex Cloud and Tencent.
  const { result, Usage } = chunk as unknown as { readonly result?: unknown; readonly Usage?: unknown };
  takeUsage(seen, "usage", isRecord(result) ? result["usage"] : Usage);
  const langChain = chunk.usage_metadata;
  // Google's library in Python writes its own counts under the same name.
  if (isRecord(langChain) && "input_tokens" in langChain) takeLangChain(seen, chunk as Report);
  else takeUsage(seen, "usage", langChain);
}

/** Ollama, llama.cpp, Bedrock's InvokeModel and others: text and counts lie in the chunk itself. */
function takeBare(seen: Seen, chunk: Report): void {
  const { message, response, content, generation, outputText, token } = chunk;
  // Google's SDK has a getter of this name, which repeats its candidates.
  const text = Object.hasOwn(chunk, "text") ? chunk["text"] : undefined;
  const choices = chunk["choices"];
  if (typeof message === "object" && choices === undefined) seen.textLength += lengthOfPart(message);
  const said = textLength(response) + textLength(content) + textLength(generation) + textLength(outputText);
  // Cohere's older chat, and Hugging Face's own API.
  seen.textLength += said || textLength(text) || lengthOfPart(token);
  // A chunk with text in `choices` is counted by `usage`; most chunks of most streams are such.
  if (!Array.isArray(choices) || choices.length === 0) {
    const counts: Report = {};
    for (const key of bareCounts) if (typeof chunk[key] === "number") counts[key] = chunk[key];
    takeUsage(seen, "usage", counts);
  }
  takeUsage(seen, "usage", chunk["amazon-bedrock-invocationMetrics"]);
  const { results, details, metrics } = chunk;
  // watsonx.
  const [result] = Array.isArray(results) ? (results as unknown[]) : [];
  if (isRecord(result) && "generated_token_count" in result) {
    seen.textLength += textLength(result["generated_text"]);
    takeUsage(seen, "usage", result);
  }
  // Hugging Face's own API, with its last token.
  if (isRecord(details) && "generated_tokens" in details) takeUsage(seen, "usage", { details });
  // Llama's API.
  if (Array.isArray(metrics)) {
    const counts: Report = {};
    for (const each of metrics as unknown[])
      if (isRecord(each) && typeof each["metric"] === "string") counts[each["metric"]] = each["value"];
    takeUsage(seen, "usage", counts);
  }
}

/**
 * Nova Sonic: its usage counts all since the session began. What the user said is text too; each answer is said twice,
 * before it is spoken and after.
 */
function takeSpeech(seen: Seen, { usageEvent, textOutput, toolUse, completionEnd }: Report): void {
  if (isRecord(textOutput) && textOutput["role"] !== "USER")
    seen.textLength += textLength(textOutput["content"]);
  if (isRecord(toolUse)) seen.textLength += textLength(toolUse["content"]);
  takeUsage(seen, "usage", usageEvent);
  if (completionEnd && isReported(seen)) seen.textLengthAtReport = seen.textLength;
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

/** The output count in message_start is only its beginning. */
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
