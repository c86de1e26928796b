import type { CallContext, Guard, GuardRequest } from "../../../shared/governance/guard/index.ts";
import { type Caller, requestOf, tellAnswer } from "./caller.ts";
import { lastMessage, lengthOfPrompt } from "./endpoints.ts";
import { unwrap } from "./refusal.ts";

/** A language model of Vercel's AI SDK 5, 6 or 7, as far as the guard needs it. */
export interface AiSdkModel {
  readonly specificationVersion: string;
  readonly modelId: string;
  // Each version has its own types, which the middleware takes from the model it is made for.
  // oxlint-disable-next-line typescript/no-explicit-any
  doGenerate(options: any): PromiseLike<any>;
  // oxlint-disable-next-line typescript/no-explicit-any
  doStream(options: any): PromiseLike<any>;
}

/** A middleware for `wrapLanguageModel`, of the same version as the model. */
export interface AiSdkMiddleware<M extends AiSdkModel> {
  readonly specificationVersion: M["specificationVersion"];
  wrapGenerate(options: {
    doGenerate: () => ReturnType<M["doGenerate"]>;
    doStream: () => ReturnType<M["doStream"]>;
    params: Parameters<M["doGenerate"]>[0];
    model: M;
  }): Promise<Awaited<ReturnType<M["doGenerate"]>>>;
  wrapStream(options: {
    doGenerate: () => ReturnType<M["doGenerate"]>;
    doStream: () => ReturnType<M["doStream"]>;
    params: Parameters<M["doStream"]>[0];
    model: M;
  }): Promise<Awaited<ReturnType<M["doStream"]>>>;
}

interface Params {
  readonly prompt: readonly unknown[];
  readonly abortSignal?: AbortSignal | undefined;
}

function requestFor(caller: Caller, model: AiSdkModel, { prompt, abortSignal }: Params): GuardRequest {
  const request = requestOf(caller, {
    model: model.modelId,
    message: lastMessage(prompt)?.text,
    input_tokens: Math.ceil(lengthOfPrompt(prompt) / 4),
  });
  return { ...request, ...(abortSignal ? { signal: abortSignal } : {}) };
}

/** The parameters as the guard decided: the message shortened, the call stopped when the guard says. */
function paramsFor(params: Params, context: CallContext): Params {
  const { message } = context;
  const ended = new AbortController();
  context.onAbort(() => ended.abort());
  const signals = params.abortSignal ? [params.abortSignal, ended.signal] : [ended.signal];
  const prompt = structuredCloneOfLast(params.prompt);
  const last = lastMessage(prompt);
  if (message !== undefined && last && last.text !== message) last.replace(message);
  return { ...params, prompt, abortSignal: AbortSignal.any(signals) };
}

/** The prompt, with a last message that may be changed: the caller's own stays as it is. */
function structuredCloneOfLast(prompt: readonly unknown[]): readonly unknown[] {
  const last = prompt.at(-1);
  if (typeof last !== "object" || last === null) return prompt;
  const { content } = last as { content?: unknown };
  const copy = Array.isArray(content) ? content.map((part: object) => ({ ...part })) : content;
  return [...prompt.slice(0, -1), { ...last, content: copy }];
}

async function* partsOf<P>(stream: ReadableStream<P>): AsyncGenerator<P> {
  const reader = stream.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

function streamOf<P>(parts: AsyncIterable<P>): ReadableStream<P> {
  const iterator = parts[Symbol.asyncIterator]();
  return new ReadableStream<P>({
    async pull(controller) {
      const { done, value } = await iterator.next();
      if (done) controller.close();
      else controller.enqueue(value);
    },
    async cancel() {
      await iterator.return?.();
    },
  });
}

/**
 * Guards each call of a model in Vercel's AI SDK (5, 6 and 7), and so each step of a chain of tools:
 * `wrapLanguageModel({ model: openai("gpt-4o"), middleware: guardMiddleware(guard, { user }, openai) })`. The last
 * argument gives the model to which a rule sent the call. Throws a GuardRefusal for a call that was not made.
 */
export function guardMiddleware<M extends AiSdkModel>(
  guard: Guard,
  caller: Caller,
  modelOf: (id: string) => M,
): AiSdkMiddleware<M> {
  const decided = (asked: M, id: string): M => (id === asked.modelId ? asked : modelOf(id));
  return {
    // The type asks for the model's own version; what is there does for all of them.
    specificationVersion: "v4" as M["specificationVersion"],
    async wrapGenerate({ params, model }): Promise<Awaited<ReturnType<M["doGenerate"]>>> {
      const result = await guard.run(
        requestFor(caller, model, params as Params),
        async (context): Promise<unknown> =>
          decided(model, context.model).doGenerate(paramsFor(params as Params, context)),
      );
      tellAnswer(caller, result);
      return unwrap(result) as Awaited<ReturnType<M["doGenerate"]>>;
    },
    async wrapStream({ params, model }): Promise<Awaited<ReturnType<M["doStream"]>>> {
      let begun: { readonly stream: ReadableStream<unknown> } | null = null;
      const result = await guard.stream(requestFor(caller, model, params as Params), async (context) => {
        const answer = (await decided(model, context.model).doStream(
          paramsFor(params as Params, context),
        )) as { readonly stream: ReadableStream<unknown> };
        begun = answer;
        return { [Symbol.asyncIterator]: () => partsOf(answer.stream) };
      });
      tellAnswer(caller, result);
      const stream = streamOf(unwrap(result));
      return { ...(begun as object | null), stream } as Awaited<ReturnType<M["doStream"]>>;
    },
  };
}
