/** How smaller providers, SDKs and agents write what a call used: more of the conventions of usage-reports.ts. */
import type { Call, Written } from "./usage-call.ts";

const answer = { choices: [{ message: { role: "assistant", content: "Hi" } }] };

export const libraryConventions: Readonly<Record<string, (call: Call) => Written>> = {
  Writer: (c) => {
    const [input, output] = [c.fresh + c.cached, c.text + c.thought];
    const usage = {
      prompt_tokens: input,
      completion_tokens: output,
      total_tokens: input + output,
      prompt_token_details: { cached_tokens: c.cached },
      completion_tokens_details: { reasoning_tokens: c.thought },
    };
    return [{ ...answer, usage }, input, output, { cached: c.cached, thought: c.thought }];
  },
  "xAI's SDK: thoughts beside the completion, by themselves": (c) => {
    const input = c.fresh + c.cached;
    const usage = {
      prompt_tokens: input,
      completion_tokens: c.text,
      reasoning_tokens: c.thought,
      total_tokens: input + c.text + c.thought,
      cached_prompt_text_tokens: c.cached,
    };
    return [{ ...answer, usage }, input, c.text + c.thought, { cached: c.cached, thought: c.thought }];
  },
  Codex: (c) => {
    const usage = {
      input_tokens: c.fresh + c.cached,
      cached_input_tokens: c.cached,
      output_tokens: c.text + c.thought,
      reasoning_output_tokens: c.thought,
    };
    const told = { cached: c.cached, thought: c.thought };
    return [{ items: [], finalResponse: "Hi", usage }, c.fresh + c.cached, c.text + c.thought, told];
  },
  PydanticAI: (c) => {
    const input = c.fresh + c.cached + c.written5m;
    const usage = {
      input_tokens: input,
      cache_read_tokens: c.cached,
      cache_write_tokens: c.written5m,
      output_tokens: c.text,
      details: {},
    };
    return [{ kind: "response", usage }, input, c.text, { cached: c.cached, written: c.written5m }];
  },
  "Microsoft.Extensions.AI": (c) => {
    const [input, output] = [c.fresh + c.cached, c.text + c.thought];
    const usage = {
      inputTokenCount: input,
      outputTokenCount: output,
      totalTokenCount: input + output,
      cachedInputTokenCount: c.cached,
      reasoningTokenCount: c.thought,
    };
    return [{ messages: [], usage }, input, output, { cached: c.cached, thought: c.thought }];
  },
  "Genkit over Gemini: thoughts beside the output": (c) => {
    const input = c.fresh + c.cached;
    const usage = {
      inputTokens: input,
      outputTokens: c.text,
      thoughtsTokens: c.thought,
      cachedContentTokens: c.cached,
      totalTokens: input + c.text + c.thought,
    };
    return [{ text: "Hi", usage }, input, c.text + c.thought, { cached: c.cached, thought: c.thought }];
  },
  "Nova Sonic": (c) => {
    const event = {
      details: { delta: {}, total: { input: { speechTokens: c.fresh, textTokens: c.tools } } },
      totalInputTokens: c.fresh + c.tools,
      totalOutputTokens: c.text,
      totalTokens: c.fresh + c.tools + c.text,
    };
    return [{ event: { usageEvent: event } }, c.fresh + c.tools, c.text];
  },
  "Yandex Cloud": (c) => {
    const usage = {
      inputTextTokens: String(c.fresh),
      completionTokens: String(c.text + c.thought),
      totalTokens: String(c.fresh + c.text + c.thought),
      completionTokensDetails: { reasoningTokens: String(c.thought) },
    };
    return [{ result: { usage } }, c.fresh, c.text + c.thought, { thought: c.thought }];
  },
  "Tencent's Hunyuan": (c) => {
    const Usage = { PromptTokens: c.fresh, CompletionTokens: c.text, TotalTokens: c.fresh + c.text };
    return [{ Response: { Usage, RequestId: "x" } }, c.fresh, c.text];
  },
  Coze: (c) => {
    const usage = { token_count: c.fresh + c.text, output_count: c.text, input_count: c.fresh };
    return [{ data: { status: "completed", usage } }, c.fresh, c.text];
  },
};
