/**
 * What a call used, and how each provider, SDK and gateway writes it: which parts lie within which, what the total
 * holds, and what is left out. A reader of reports must find the call again.
 */
import { dice } from "../dice.ts";
import { libraryConventions } from "./library-conventions.ts";
import type { Call, UsageReport, Written } from "./usage-call.ts";

const answer = { choices: [{ message: { role: "assistant", content: "Hi" } }] };
const gemini = { candidates: [{ content: { parts: [{ text: "Hi" }] } }], modelVersion: "gemini-3-flash" };

/** The ways of writing, each with the sums that it documents. */
const conventions: Readonly<Record<string, (call: Call) => Written>> = {
  "OpenAI chat": (c) => {
    const input = c.fresh + c.cached;
    const output = c.text + c.thought;
    const usage = {
      prompt_tokens: input,
      completion_tokens: output,
      total_tokens: input + output,
      prompt_tokens_details: { cached_tokens: c.cached, audio_tokens: 0 },
      completion_tokens_details: { reasoning_tokens: c.thought, audio_tokens: 0 },
    };
    return [{ ...answer, usage }, input, output, { cached: c.cached, thought: c.thought }];
  },
  "OpenAI Responses": (c) => {
    const [input, output] = [c.fresh + c.cached, c.text + c.thought];
    const usage = {
      input_tokens: input,
      input_tokens_details: { cached_tokens: c.cached },
      output_tokens: output,
      output_tokens_details: { reasoning_tokens: c.thought },
      total_tokens: input + output,
    };
    return [{ object: "response", usage }, input, output, { cached: c.cached, thought: c.thought }];
  },
  "xAI: thoughts beside the completion": (c) => {
    const usage = {
      prompt_tokens: c.fresh + c.cached,
      completion_tokens: c.text,
      total_tokens: c.fresh + c.cached + c.text + c.thought,
      prompt_tokens_details: { cached_tokens: c.cached },
      completion_tokens_details: { reasoning_tokens: c.thought },
      num_sources_used: 0,
    };
    const response = { ...answer, model: "grok-4", usage };
    return [response, c.fresh + c.cached, c.text + c.thought, { cached: c.cached, thought: c.thought }];
  },
  "Gemini's OpenAI interface: thoughts in the total alone": (c) => {
    const usage = {
      prompt_tokens: c.fresh,
      completion_tokens: c.text,
      total_tokens: c.fresh + c.text + c.thought,
    };
    const response = { ...answer, model: "gemini-2.5-pro", usage };
    return [response, c.fresh, c.text + c.thought, { thought: c.thought }];
  },
  "Anthropic: caches beside the input": (c) => {
    const written = c.written5m + c.written1h;
    const usage = {
      input_tokens: c.fresh,
      cache_read_input_tokens: c.cached,
      cache_creation_input_tokens: written,
      cache_creation: { ephemeral_5m_input_tokens: c.written5m, ephemeral_1h_input_tokens: c.written1h },
      output_tokens: c.text,
    };
    const told = { cached: c.cached, written, written1h: c.written1h };
    return [{ type: "message", usage }, c.fresh + c.cached + written, c.text, told];
  },
  "Gemini: thoughts and tools beside, the cache within": (c) => {
    const prompt = c.fresh + c.cached;
    const usageMetadata = {
      promptTokenCount: prompt,
      cachedContentTokenCount: c.cached,
      candidatesTokenCount: c.text,
      thoughtsTokenCount: c.thought,
      toolUsePromptTokenCount: c.tools,
      totalTokenCount: prompt + c.text + c.thought + c.tools,
    };
    const told = { cached: c.cached, thought: c.thought };
    return [{ ...gemini, usageMetadata }, prompt + c.tools, c.text + c.thought, told];
  },
  "Gemini Interactions": (c) => {
    const usage = {
      total_input_tokens: c.fresh + c.cached,
      total_cached_tokens: c.cached,
      total_output_tokens: c.text,
      total_thought_tokens: c.thought,
      total_tool_use_tokens: c.tools,
      total_tokens: c.fresh + c.cached + c.text + c.thought + c.tools,
    };
    const told = { cached: c.cached, thought: c.thought };
    return [{ interaction: { usage } }, c.fresh + c.cached + c.tools, c.text + c.thought, told];
  },
  "Bedrock Converse: caches beside the input": (c) => {
    const written = c.written5m + c.written1h;
    const usage = {
      inputTokens: c.fresh,
      outputTokens: c.text,
      totalTokens: c.fresh + c.text + c.cached + written,
      cacheReadInputTokens: c.cached,
      cacheWriteInputTokens: written,
      cacheDetails: [
        { ttl: "1h", inputTokens: c.written1h },
        { ttl: "5m", inputTokens: c.written5m },
      ],
    };
    const told = { cached: c.cached, written, written1h: c.written1h };
    return [{ usage }, c.fresh + c.cached + written, c.text, told];
  },
  "Mistral: connectors beside the prompt": (c) => {
    const usage = {
      prompt_tokens: c.fresh,
      completion_tokens: c.text,
      connector_tokens: c.tools,
      total_tokens: c.fresh + c.text + c.tools,
      connectors: { web_search: 1 },
    };
    return [{ object: "conversation.response", usage }, c.fresh + c.tools, c.text];
  },
  "Mistral: sound in the total alone": (c) => {
    const usage = {
      prompt_audio_seconds: 12,
      prompt_tokens: c.fresh,
      completion_tokens: c.text,
      total_tokens: c.fresh + c.text + c.tools,
    };
    return [{ ...answer, usage }, c.fresh + c.tools, c.text];
  },
  "LiteLLM: Anthropic's caches within the prompt": (c) => {
    const written = c.written5m + c.written1h;
    const prompt = c.fresh + c.cached + written;
    const usage = {
      prompt_tokens: prompt,
      completion_tokens: c.text,
      total_tokens: prompt + c.text,
      prompt_tokens_details: {
        cached_tokens: c.cached,
        cache_creation_tokens: written,
        cache_creation_token_details: {
          ephemeral_5m_input_tokens: c.written5m,
          ephemeral_1h_input_tokens: c.written1h,
        },
      },
      cache_read_input_tokens: c.cached,
      cache_creation_input_tokens: written,
    };
    return [{ ...answer, usage }, prompt, c.text, { cached: c.cached, written, written1h: c.written1h }];
  },
  "a gateway that copies Anthropic's counts: caches beside the prompt": (c) => {
    const usage = {
      prompt_tokens: c.fresh,
      completion_tokens: c.text,
      total_tokens: c.fresh + c.text,
      // More than the prompt: else nobody can tell.
      cache_read_input_tokens: c.fresh + c.cached,
      cache_creation_input_tokens: c.written5m,
    };
    const cached = c.fresh + c.cached;
    const input = c.fresh + cached + c.written5m;
    return [{ ...answer, usage }, input, c.text, { cached, written: c.written5m }];
  },
  "AI SDK 5 over Anthropic: caches beside the input, not in the total": (c) => {
    const cached = c.fresh + c.cached + 1;
    const usage = {
      inputTokens: c.fresh,
      outputTokens: c.text,
      totalTokens: c.fresh + c.text,
      cachedInputTokens: cached,
    };
    return [{ text: "Hi", usage }, c.fresh + cached, c.text, { cached }];
  },
  "AI SDK 5 over Anthropic, with Anthropic's own report": (c) => {
    const written = c.written5m + c.written1h;
    const report = {
      input_tokens: c.fresh,
      cache_read_input_tokens: c.cached,
      cache_creation_input_tokens: written,
      cache_creation: { ephemeral_5m_input_tokens: c.written5m, ephemeral_1h_input_tokens: c.written1h },
      output_tokens: c.text,
    };
    const usage = {
      inputTokens: c.fresh,
      outputTokens: c.text,
      totalTokens: c.fresh + c.text,
      cachedInputTokens: c.cached,
    };
    const response = { text: "Hi", usage, providerMetadata: { anthropic: { usage: report } } };
    const told = { cached: c.cached, written, written1h: c.written1h, isLive: true };
    return [response, c.fresh + c.cached + written, c.text, told];
  },
  "AI SDK 4 over Anthropic: caches in its metadata alone": (c) => {
    const usage = {
      promptTokens: c.fresh,
      completionTokens: c.text,
      totalTokens: c.fresh + c.text,
    };
    const anthropic = { cacheReadInputTokens: c.cached, cacheCreationInputTokens: c.written5m };
    const told = { cached: c.cached, written: c.written5m, isLive: true };
    return [
      { text: "Hi", usage, providerMetadata: { anthropic } },
      c.fresh + c.cached + c.written5m,
      c.text,
      told,
    ];
  },
  "AI SDK 5 over Bedrock: caches in the total": (c) => {
    const usage = {
      inputTokens: c.fresh,
      outputTokens: c.text,
      totalTokens: c.fresh + c.text + c.cached + c.written5m,
      cachedInputTokens: c.cached,
    };
    return [{ text: "Hi", usage }, c.fresh + c.cached + c.written5m, c.text, { cached: c.cached }];
  },
  "AI SDK 5 over Google: thoughts and tools in the total": (c) => {
    const usage = {
      inputTokens: c.fresh,
      outputTokens: c.text,
      reasoningTokens: c.thought,
      totalTokens: c.fresh + c.text + c.thought + c.tools,
    };
    const response = { text: "Hi", usage, response: { modelId: "gemini-2.5-flash" } };
    return [response, c.fresh + c.tools, c.text + c.thought, { thought: c.thought }];
  },
  "AI SDK 6: all within": (c) => {
    const input = c.fresh + c.cached + c.written5m;
    const output = c.text + c.thought;
    const usage = {
      inputTokens: input,
      inputTokenDetails: {
        noCacheTokens: c.fresh,
        cacheReadTokens: c.cached,
        cacheWriteTokens: c.written5m,
      },
      outputTokens: output,
      outputTokenDetails: { textTokens: c.text, reasoningTokens: c.thought },
      totalTokens: input + output,
      cachedInputTokens: c.cached,
      reasoningTokens: c.thought,
    };
    const told = { cached: c.cached, written: c.written5m, thought: c.thought };
    return [{ text: "Hi", usage }, input, output, told];
  },
  "OpenRouter's SDK": (c) => {
    const [input, output] = [c.fresh + c.cached + c.written5m, c.text + c.thought];
    const usage = {
      promptTokens: input,
      promptTokensDetails: { cachedTokens: c.cached, cacheWriteTokens: c.written5m },
      completionTokens: output,
      completionTokensDetails: { reasoningTokens: c.thought },
      totalTokens: input + output,
    };
    const told = { cached: c.cached, written: c.written5m, thought: c.thought };
    return [{ ...answer, usage }, input, output, told];
  },
  "LangChain over Anthropic: an old one, caches beside the input": (c) => {
    const usage_metadata = {
      input_tokens: c.fresh,
      output_tokens: c.text,
      total_tokens: c.fresh + c.text,
      input_token_details: { cache_read: c.fresh + c.cached, cache_creation: c.written5m },
    };
    const cached = c.fresh + c.cached;
    const input = c.fresh + cached + c.written5m;
    return [{ content: "Hi", usage_metadata }, input, c.text, { cached, written: c.written5m }];
  },
  "LangChain over Anthropic: writes named by how long they are kept": (c) => {
    const written = c.written5m + c.written1h;
    const input = c.fresh + c.cached + written;
    const usage_metadata = {
      input_tokens: input,
      output_tokens: c.text,
      total_tokens: input + c.text,
      input_token_details: {
        cache_read: c.cached,
        cache_creation: 0,
        ephemeral_5m_input_tokens: c.written5m,
        ephemeral_1h_input_tokens: c.written1h,
      },
    };
    const told = { cached: c.cached, written, written1h: c.written1h };
    return [{ content: "Hi", usage_metadata }, input, c.text, told];
  },
  ...libraryConventions,
};

/** Counts as texts, as some gateways write them. */
const asTexts = (value: unknown): unknown => {
  if (typeof value === "number") return String(value);
  if (Array.isArray(value)) return value.map(asTexts);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, asTexts(each)]));
};

/** So many reports of calls, each in a convention in turn; the same for the same seed. */
export function usageReports(seed: number, count: number): readonly UsageReport[] {
  const random = dice(seed);
  const upTo = (most: number): number => 1 + Math.floor(random() * most);
  const ways = Object.entries(conventions);
  return Array.from({ length: count }, (_, index): UsageReport => {
    const sizes = Array.from({ length: 7 }, () => upTo(random() < 0.5 ? 300 : 1_000_000));
    const [fresh = 1, text = 1, written5m = 1, ...parts] = sizes;
    const [cached = 0, written1h = 0, tools = 0, thought = 0] = parts.map((part) =>
      random() < 0.2 ? 0 : part,
    );
    const call = { fresh, cached, written5m, written1h, tools, text, thought };
    const [convention, write] = ways[index % ways.length] ?? ["", () => [null, 0, 0] as const];
    const [response, input, output, told = {}] = write(call);
    return {
      convention,
      response: random() < 0.2 ? asTexts(response) : response,
      input,
      output,
      cached: 0,
      written: 0,
      written1h: 0,
      thought: 0,
      isLive: false,
      ...told,
    };
  });
}

/** A report whose parts and total need not fit together, and what it names: nobody's arithmetic can be relied on. */
interface StrangeReport {
  readonly response: unknown;
  /** Input and output as they are named. */
  readonly parts: number;
  readonly total: number;
  /** All else that is named. */
  readonly details: number;
}

type Parts = Readonly<Record<"i" | "o" | "t" | "c" | "w" | "r" | "x", number | undefined>>;
const strange: readonly ((part: Parts) => object)[] = [
  ({ i, o, t, c, w, r }) => ({
    choices: [],
    usage: {
      prompt_tokens: i,
      completion_tokens: o,
      total_tokens: t,
      prompt_tokens_details: { cached_tokens: c, cache_write_tokens: w },
      completion_tokens_details: { reasoning_tokens: r },
    },
  }),
  ({ i, o, t, c, w, x }) => ({
    choices: [],
    usage: {
      prompt_tokens: i,
      completion_tokens: o,
      total_tokens: t,
      cache_read_input_tokens: c,
      cache_creation_input_tokens: w,
      connector_tokens: x,
    },
  }),
  ({ i, o, t, c, w, r }) => ({
    usage_metadata: {
      input_tokens: i,
      output_tokens: o,
      total_tokens: t,
      input_token_details: { cache_read: c, cache_creation: w },
      output_token_details: { reasoning: r },
    },
  }),
  ({ i, o, t, c, r }) => ({
    usage: { inputTokens: i, outputTokens: o, totalTokens: t, cachedInputTokens: c, reasoningTokens: r },
  }),
  ({ i, o, t, c, x }) => ({
    usageMetadata: {
      promptTokenCount: i,
      candidatesTokenCount: o,
      totalTokenCount: t,
      cachedContentTokenCount: c,
      toolUsePromptTokenCount: x,
    },
  }),
];

/** So many strange reports; the same for the same seed. */
export function strangeReports(seed: number, count: number): readonly StrangeReport[] {
  const random = dice(seed);
  const part = (most: number): number | undefined =>
    random() < 0.3 ? undefined : Math.floor(random() * most);
  return Array.from({ length: count }, (_, index): StrangeReport => {
    const parts = { i: part(30), o: part(30), c: part(30), w: part(30), r: part(30), x: part(30) };
    const sum = (parts.i ?? 0) + (parts.o ?? 0);
    const t = random() < 0.3 ? sum : part(90);
    const response = strange[index % strange.length]?.({ ...parts, t });
    const details = (parts.c ?? 0) + (parts.w ?? 0) + (parts.r ?? 0) + (parts.x ?? 0);
    return { response, parts: sum, total: t ?? 0, details };
  });
}
