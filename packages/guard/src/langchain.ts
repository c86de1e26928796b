import { isRecord } from "../../../shared/governance/values.ts";
import type { Guard } from "../../../shared/governance/guard/index.ts";
import { type Caller, requestOf, tellAnswer } from "./caller.ts";
import { lengthOfPrompt } from "./endpoints.ts";
import { thrownFor } from "./refusal.ts";

type Fields = Readonly<Record<string, unknown>>;

/** Runs kept for the usage that they may still report: one that took too long, or whose stream was left, may never. */
const mostRuns = 10_000;

/** One run of a model between its start and its end. */
interface Run {
  end(response: unknown): void;
  fail(cause: unknown): void;
}

/** Callbacks of LangChain.js: given to a model or a chain as `callbacks: [guardCallbacks(guard, { user })]`. */
export interface GuardCallbacks {
  readonly name: string;
  readonly awaitHandlers: true;
  readonly raiseError: true;
  handleChatModelStart(
    model: unknown,
    messages: readonly (readonly unknown[])[],
    runId: string,
    parentRunId?: string,
    extraParams?: Record<string, unknown>,
    tags?: string[],
    metadata?: Record<string, unknown>,
  ): Promise<void>;
  handleLLMStart(
    model: unknown,
    prompts: string[],
    runId: string,
    parentRunId?: string,
    extraParams?: Record<string, unknown>,
    tags?: string[],
    metadata?: Record<string, unknown>,
  ): Promise<void>;
  handleLLMEnd(output: unknown, runId: string): Promise<void>;
  handleLLMError(error: unknown, runId: string): Promise<void>;
}

function modelIn(extra: Fields | undefined, metadata: Fields | undefined): string {
  const invocation = extra?.["invocation_params"];
  const parameters = isRecord(invocation) ? invocation : {};
  const name = parameters["model"] ?? parameters["model_name"] ?? metadata?.["ls_model_name"];
  return typeof name === "string" ? name : "unknown";
}

/** The text of the last message where a person wrote it. */
function humanText(messages: readonly unknown[]): string | undefined {
  const last = messages.at(-1);
  if (!isRecord(last)) return undefined;
  const type: unknown = typeof last["getType"] === "function" ? last["getType"]() : last["type"];
  if (type !== "human") return undefined;
  const { content } = last;
  if (typeof content === "string") return content;
  const part: unknown = Array.isArray(content)
    ? content.findLast((each: unknown) => isRecord(each) && typeof each["text"] === "string")
    : null;
  return isRecord(part) ? String(part["text"]) : undefined;
}

/** What a run reports of its tokens: the message's own usage, or the provider's as LangChain keeps it. */
function responseIn(output: unknown): unknown {
  const { generations, llmOutput } = output as { generations?: unknown; llmOutput?: unknown };
  const first: unknown = Array.isArray(generations) ? generations.flat()[0] : null;
  const message = isRecord(first) ? first["message"] : null;
  if (isRecord(message) && isRecord(message["usage_metadata"])) {
    const metadata = message["response_metadata"];
    const model = isRecord(metadata) ? (metadata["model_name"] ?? metadata["model"]) : undefined;
    return {
      usage_metadata: message["usage_metadata"],
      model,
      content: message["content"],
      tool_calls: message["tool_calls"],
      // Names the tier that served it.
      response_metadata: metadata,
    };
  }
  return { ...(isRecord(llmOutput) ? llmOutput : {}), text: isRecord(first) ? first["text"] : "" };
}

/**
 * Guards each run of a model in LangChain.js. A refused run throws a GuardRefusal before its provider is asked. Callbacks
 * cannot change a call: one that a rule sends to another model, or shortens, is refused too, for it would not be what was decided; where you
 * have such rules, give the model `guardFetch` in its `configuration` instead.
 */
export function guardCallbacks(guard: Guard, caller: Caller): GuardCallbacks {
  const runs = new Map<string, Run>();

  function ended(runId: string): Run | undefined {
    const run = runs.get(runId);
    runs.delete(runId);
    return run;
  }

  async function start(runId: string, model: string, message: string | undefined, length: number) {
    await new Promise<void>((resolve, reject) => {
      const request = requestOf(caller, { model, message, input_tokens: Math.ceil(length / 4) });
      void guard
        .run(
          request,
          (context) =>
            new Promise<unknown>((end, fail) => {
              if (context.model !== model || context.message !== message) {
                const what =
                  context.model === model ? "shortens its message" : `sends it to ${context.model}`;
                // A 4xx: nothing was generated.
                fail(Object.assign(new Error(`A rule ${what}, which callbacks cannot do.`), { status: 400 }));
                return;
              }
              runs.set(runId, { end, fail });
              const [oldest] = runs.keys();
              if (runs.size > mostRuns && oldest !== undefined) runs.delete(oldest);
              resolve();
            }),
        )
        .then((result) => {
          // One that took too long is charged what it reports when it ends after all.
          if (result.ok || result.error.kind !== "call_timed_out") runs.delete(runId);
          tellAnswer(caller, result);
          if (!result.ok) reject(thrownFor(result.error));
        });
    });
  }

  return {
    name: "token-governance",
    awaitHandlers: true,
    raiseError: true,
    handleChatModelStart(_model, messages, runId, _parent, extra, _tags, metadata) {
      const prompt = messages[0] ?? [];
      return start(runId, modelIn(extra, metadata), humanText(prompt), lengthOfPrompt(prompt));
    },
    handleLLMStart(_model, prompts, runId, _parent, extra, _tags, metadata) {
      const prompt = prompts[0] ?? "";
      return start(runId, modelIn(extra, metadata), prompt, prompt.length);
    },
    async handleLLMEnd(output, runId) {
      ended(runId)?.end(responseIn(output));
    },
    async handleLLMError(error, runId) {
      ended(runId)?.fail(error);
    },
  };
}
