import { fail, ok, type Result } from "../result.ts";
import { isRecord } from "../rules/problems.ts";
import { makeCounts, type UsageCounts, type UsageProblem } from "./counts.ts";

/** Whose counts they are: the documented shape that was recognised. */
export type UsageShape =
  | "openai_chat"
  | "openai_responses"
  | "anthropic_messages"
  | "google_generate_content"
  | "perplexity_chat"
  | "tokens_used";

/** Counts read from a response, in whose shape, of which model. */
export interface ReadUsage {
  readonly counts: UsageCounts;
  readonly shape: UsageShape;
  /** The model as the provider names it (often a dated one); null where it does not say. */
  readonly model: string | null;
  /** False for `tokensUsed`, which is one total: all of it stands as input. */
  readonly split_known: boolean;
}

type Fields = Readonly<Record<string, unknown>>;

const problem = (code: UsageProblem["code"], path: string, message: string): Result<never, UsageProblem> =>
  fail({ code, path, message });

/** What must be there for the counts to be known at all: a missing one is said, never taken for 0. */
function need(fields: Fields, keys: readonly string[], path: string): Result<true, UsageProblem> {
  for (const key of keys)
    if (fields[key] === undefined || fields[key] === null)
      return problem("no_usage", `${path}.${key}`, "The usage is there, but this count of it is missing.");
  return ok(true);
}

/** A count that may be left out: undefined and null are 0. Anything else that is not a whole number is a problem. */
function count(fields: Fields, key: string, path: string): Result<number, UsageProblem> {
  const value = fields[key];
  if (value === undefined || value === null) return ok(0);
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return ok(value);
  return problem(
    "not_whole",
    `${path}.${key}`,
    `The provider reports ${JSON.stringify(value)}, which is no whole count.`,
  );
}

/** Reads several counts at once; the first problem wins. */
function counts<K extends string>(
  fields: Fields,
  keys: readonly K[],
  path: string,
): Result<Readonly<Record<K, number>>, UsageProblem> {
  const read: Partial<Record<K, number>> = {};
  for (const key of keys) {
    const one = count(fields, key, path);
    if (!one.ok) return one;
    read[key] = one.value;
  }
  return ok(read as Record<K, number>);
}

const isGiven = (value: unknown): boolean => value !== undefined && value !== null;
const inner = (fields: Fields, key: string): Fields => (isRecord(fields[key]) ? fields[key] : {});

function finish(
  given: Parameters<typeof makeCounts>[0],
  path: string,
  shape: UsageShape,
  model: unknown,
): Result<ReadUsage, UsageProblem> {
  const made = makeCounts(given, path);
  if (!made.ok) return made;
  return ok({
    counts: made.value,
    shape,
    model: typeof model === "string" ? model : null,
    split_known: true,
  });
}

/**
 * Chat completions of OpenAI and of those who follow it.
 * Sources: OpenAI, "The chat completion object" (platform.openai.com/docs/api-reference/chat/object): cached tokens
 * are part of prompt_tokens, reasoning tokens part of completion_tokens. Perplexity, "Pricing"
 * (docs.perplexity.ai/guides/pricing): citation tokens are input and reasoning tokens output, both beside the total.
 * Google, "OpenAI compatibility" (ai.google.dev/gemini-api/docs/openai): thinking shows in the total alone.
 */
function readChat(usage: Fields, response: Fields): Result<ReadUsage, UsageProblem> {
  const path = "usage";
  // Embeddings write nothing: they report the prompt and a total.
  const known = need(
    usage,
    ["prompt_tokens", isGiven(usage["total_tokens"]) ? "total_tokens" : "completion_tokens"],
    path,
  );
  if (!known.ok) return known;
  const main = counts(
    usage,
    ["prompt_tokens", "completion_tokens", "total_tokens", "citation_tokens", "reasoning_tokens"],
    path,
  );
  if (!main.ok) return main;
  const input = counts(
    inner(usage, "prompt_tokens_details"),
    ["cached_tokens", "cache_write_tokens"],
    `${path}.prompt_tokens_details`,
  );
  if (!input.ok) return input;
  const output = counts(
    inner(usage, "completion_tokens_details"),
    ["reasoning_tokens"],
    `${path}.completion_tokens_details`,
  );
  if (!output.ok) return output;
  const { prompt_tokens, completion_tokens, total_tokens } = main.value;
  const isPerplexity =
    "citation_tokens" in usage ||
    "num_search_queries" in usage ||
    "search_context_size" in usage ||
    (typeof response["model"] === "string" && /(^|\/)(sonar|r1-1776)/.test(response["model"]));
  if (isPerplexity) {
    const apart = main.value.reasoning_tokens;
    return finish(
      {
        input: prompt_tokens + main.value.citation_tokens,
        output: completion_tokens + apart,
        reasoning: apart,
      },
      path,
      "perplexity_chat",
      response["model"],
    );
  }
  let reasoning = output.value.reasoning_tokens;
  let written = completion_tokens;
  const unexplained = isGiven(usage["total_tokens"]) ? total_tokens - prompt_tokens - completion_tokens : 0;
  if (unexplained !== 0) {
    const isGemini = typeof response["model"] === "string" && response["model"].includes("gemini");
    // Some providers count reasoning beside completion_tokens: then it is exactly what the total has more.
    if (unexplained > 0 && (unexplained === reasoning || (isGemini && reasoning === 0))) {
      written += unexplained;
      reasoning = unexplained;
    } else
      return problem(
        "inconsistent",
        path,
        `total_tokens is ${total_tokens}, the parts add up to ${prompt_tokens + completion_tokens}.`,
      );
  }
  return finish(
    {
      input: prompt_tokens,
      output: written,
      cached: input.value.cached_tokens,
      cacheWrite: input.value.cache_write_tokens,
      reasoning,
    },
    path,
    "openai_chat",
    response["model"],
  );
}

/**
 * OpenAI's Responses API. Source: "The response object" (platform.openai.com/docs/api-reference/responses/object):
 * cached tokens are part of input_tokens, reasoning tokens part of output_tokens.
 */
function readResponses(usage: Fields, response: Fields): Result<ReadUsage, UsageProblem> {
  const path = "usage";
  const known = need(usage, ["input_tokens", "output_tokens"], path);
  if (!known.ok) return known;
  const main = counts(usage, ["input_tokens", "output_tokens", "total_tokens"], path);
  if (!main.ok) return main;
  const input = counts(
    inner(usage, "input_tokens_details"),
    ["cached_tokens", "cache_write_tokens"],
    `${path}.input_tokens_details`,
  );
  if (!input.ok) return input;
  const output = counts(
    inner(usage, "output_tokens_details"),
    ["reasoning_tokens"],
    `${path}.output_tokens_details`,
  );
  if (!output.ok) return output;
  const { input_tokens, output_tokens, total_tokens } = main.value;
  if (isGiven(usage["total_tokens"]) && total_tokens !== input_tokens + output_tokens)
    return problem(
      "inconsistent",
      path,
      `total_tokens is ${total_tokens}, the parts add up to ${input_tokens + output_tokens}.`,
    );
  return finish(
    {
      input: input_tokens,
      output: output_tokens,
      cached: input.value.cached_tokens,
      cacheWrite: input.value.cache_write_tokens,
      reasoning: output.value.reasoning_tokens,
    },
    path,
    "openai_responses",
    response["model"],
  );
}

/**
 * Anthropic's Messages API. Source: "Messages" and "Prompt caching" (docs.anthropic.com/en/api/messages,
 * docs.anthropic.com/en/docs/build-with-claude/prompt-caching): input_tokens leaves the cached parts out; all three
 * add up to what was read. Thinking is part of output_tokens.
 */
function readAnthropic(usage: Fields, model: unknown): Result<ReadUsage, UsageProblem> {
  const known = need(usage, ["input_tokens", "output_tokens"], "usage");
  if (!known.ok) return known;
  const read = counts(
    usage,
    ["input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens"],
    "usage",
  );
  if (!read.ok) return read;
  const thinking = counts(
    inner(usage, "output_tokens_details"),
    ["thinking_tokens"],
    "usage.output_tokens_details",
  );
  if (!thinking.ok) return thinking;
  const { input_tokens, cache_creation_input_tokens, cache_read_input_tokens, output_tokens } = read.value;
  return finish(
    {
      input: input_tokens + cache_creation_input_tokens + cache_read_input_tokens,
      output: output_tokens,
      cached: cache_read_input_tokens,
      cacheWrite: cache_creation_input_tokens,
      reasoning: thinking.value.thinking_tokens,
    },
    "usage",
    "anthropic_messages",
    model,
  );
}

/**
 * Google's Gemini API. Source: "UsageMetadata" (ai.google.dev/api/generate-content#UsageMetadata): the prompt holds
 * the cached part; thoughts and tool-use prompts are counted beside candidates and prompt.
 */
function readGoogle(usage: Fields, response: Fields): Result<ReadUsage, UsageProblem> {
  const path = "usageMetadata";
  // Zeros are left out on Google's wire, so a total speaks for the parts that are missing; it must add up.
  const known = isGiven(usage["totalTokenCount"])
    ? ok(true)
    : need(usage, ["promptTokenCount", "candidatesTokenCount"], path);
  if (!known.ok) return known;
  const read = counts(
    usage,
    [
      "promptTokenCount",
      "cachedContentTokenCount",
      "candidatesTokenCount",
      "toolUsePromptTokenCount",
      "thoughtsTokenCount",
      "totalTokenCount",
    ],
    path,
  );
  if (!read.ok) return read;
  const v = read.value;
  const sum = v.promptTokenCount + v.toolUsePromptTokenCount + v.candidatesTokenCount + v.thoughtsTokenCount;
  if (isGiven(usage["totalTokenCount"]) && v.totalTokenCount !== sum)
    return problem(
      "inconsistent",
      path,
      `totalTokenCount is ${v.totalTokenCount}, the parts add up to ${sum}.`,
    );
  return finish(
    {
      input: v.promptTokenCount + v.toolUsePromptTokenCount,
      output: v.candidatesTokenCount + v.thoughtsTokenCount,
      cached: v.cachedContentTokenCount,
      reasoning: v.thoughtsTokenCount,
    },
    path,
    "google_generate_content",
    response["modelVersion"] ?? response["model"],
  );
}

function isAnthropic(usage: Fields, response: Fields): boolean {
  return (
    response["type"] === "message" ||
    "cache_creation_input_tokens" in usage ||
    "cache_read_input_tokens" in usage
  );
}

/**
 * Reads the exact token counts of a whole response, in any of the documented shapes. Unknown shapes, missing usage,
 * broken numbers and totals that do not add up are failures: nothing is guessed, least of all zero.
 */
export function readUsage(response: unknown): Result<ReadUsage, UsageProblem> {
  if (!isRecord(response))
    return problem(
      "unknown_shape",
      "",
      "The response is not an object: pass the provider's JSON as it came.",
    );
  const metadata = response["usageMetadata"];
  if (isRecord(metadata)) return readGoogle(metadata, response);
  const usage = response["usage"];
  if (isRecord(usage)) {
    if ("prompt_tokens" in usage) return readChat(usage, response);
    if ("input_tokens" in usage)
      return isAnthropic(usage, response)
        ? readAnthropic(usage, response["model"])
        : readResponses(usage, response);
    return problem(
      "unknown_shape",
      "usage",
      `The usage holds ${Object.keys(usage).slice(0, 8).join(", ") || "nothing"}, which no known provider reports.`,
    );
  }
  // Backends' own wrappers: one total, at the root or in metadata (row 003.2).
  const wrapped = isRecord(response["metadata"]) ? response["metadata"] : {};
  for (const [fields, path] of [
    [response, "tokensUsed"],
    [wrapped, "metadata.tokensUsed"],
  ] as const) {
    const value = fields["tokensUsed"];
    if (value === undefined || value === null) continue;
    if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0)
      return problem("not_whole", path, `${JSON.stringify(value)} is not a whole number of tokens.`);
    const made = makeCounts({ input: value, output: 0 }, path);
    return made.ok ? ok({ counts: made.value, shape: "tokens_used", model: null, split_known: false }) : made;
  }
  return "usage" in response || "usageMetadata" in response
    ? problem("no_usage", "usage", "The response carries no usage: it was asked for without, or was cut off.")
    : problem(
        "unknown_shape",
        "",
        "No usage was found: expected usage, usageMetadata, tokensUsed or metadata.tokensUsed.",
      );
}

export { readAnthropic as readAnthropicUsage };
