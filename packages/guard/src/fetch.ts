import type {
  CallContext,
  Guard,
  GuardFailure,
  GuardRequest,
} from "../../../shared/governance/guard/index.ts";
import { readUsage } from "../../../shared/governance/usage/index.ts";
import { type Caller, requestOf, tellAnswer } from "./caller.ts";
import { type ProviderCall, readCall } from "./endpoints.ts";
import { refusalResponse, thrownFor } from "./refusal.ts";

/** How `guardFetch` reaches the provider. */
export interface GuardFetchOptions {
  /** What sends the request: the runtime's own by default. */
  readonly fetch?: typeof fetch;
}

/** A provider's answer that is no success: thrown for the guard, and given to the caller as it came. */
class ProviderAnswer extends Error {
  readonly status: number;
  readonly response: Response;
  constructor(response: Response) {
    super(`The provider answered ${response.status}.`);
    this.status = response.status;
    this.response = response;
  }
}

/** One event of a stream: its text as it came, and what the guard reads of it. */
interface SentEvent {
  readonly raw: string;
  readonly json: unknown;
}

function eventOf(raw: string): SentEvent {
  const data = raw
    .split(/\r?\n/)
    .flatMap((line) => (line.startsWith("data:") ? [line.slice(5).trimStart()] : []))
    .join("\n");
  try {
    return { raw, json: data === "" || data === "[DONE]" ? null : JSON.parse(data) };
  } catch {
    return { raw, json: null };
  }
}

/** An event that never ends is none. */
const longestEvent = 16_000_000;

async function* eventsIn(body: ReadableStream<Uint8Array>): AsyncGenerator<SentEvent> {
  const reader = body.getReader();
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  let rest = "";
  let looked = 0;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      rest += done ? decoder.decode() : decoder.decode(value, { stream: true });
      for (;;) {
        const border = /\r?\n\r?\n/g;
        border.lastIndex = Math.max(0, looked - 3);
        const found = border.exec(rest);
        if (!found) break;
        const end = found.index + found[0].length;
        yield eventOf(rest.slice(0, end));
        rest = rest.slice(end);
        looked = 0;
      }
      looked = rest.length;
      if (done) break;
      if (rest.length > longestEvent) {
        yield { raw: rest, json: null };
        rest = "";
        looked = 0;
      }
    }
    if (rest !== "") yield eventOf(rest);
  } finally {
    // Also where the reader has left: the provider is to stop.
    await reader.cancel().catch(() => undefined);
  }
}

/** The chunk with the usage that the caller did not ask for, and would not expect. */
const isUsageAlone = (json: unknown): boolean => {
  const { choices, usage } = (json ?? {}) as { choices?: unknown; usage?: unknown };
  return Array.isArray(choices) && choices.length === 0 && typeof usage === "object" && usage !== null;
};

function headersFor(response: Response): Headers {
  const headers = new Headers(response.headers);
  // The body was decoded on the way.
  headers.delete("content-encoding");
  headers.delete("content-length");
  return headers;
}

function answerTo(failure: GuardFailure): Response {
  if (failure.kind === "call_failed" && failure.cause instanceof ProviderAnswer)
    return failure.cause.response;
  if (failure.kind === "call_failed" || failure.kind === "aborted") throw thrownFor(failure);
  return refusalResponse(failure);
}

/**
 * A `fetch` with every call of a model guarded for this caller, in the interfaces of OpenAI and its followers (Azure,
 * Mistral, OpenRouter, xAI, DeepSeek, Groq), Anthropic, Cohere and Google; other requests pass. A refused call is
 * answered by the guard with its status, and not sent; retries of a client are calls of their own. Rejects as `fetch` does.
 */
export function guardFetch(guard: Guard, caller: Caller, options: GuardFetchOptions = {}): typeof fetch {
  const send = options.fetch ?? fetch;
  return async (input, init) => {
    const isRequest = input instanceof Request;
    const method = init?.method ?? (isRequest ? input.method : "GET");
    const given = init?.body ?? (isRequest && input.body ? await input.clone().text() : null);
    const url = isRequest ? input.url : String(input);
    const call = method.toUpperCase() === "POST" && typeof given === "string" ? readCall(url, given) : null;
    if (!call) return send(input, init);
    const signals: AbortSignal[] = [];
    const signal = init?.signal ?? (isRequest ? input.signal : null);
    if (signal) signals.push(signal);
    const request = { ...requestOf(caller, call), ...(signal ? { signal } : {}) };
    async function sendCall(context: CallContext): Promise<Response> {
      const ended = new AbortController();
      context.onAbort(() => ended.abort());
      const { url: to, body } = (call as ProviderCall).rewritten(context.model, context.message);
      const headers = new Headers(init?.headers ?? (isRequest ? input.headers : undefined));
      headers.delete("content-length");
      const response = await send(to, {
        ...init,
        method,
        headers,
        body,
        signal: AbortSignal.any([...signals, ended.signal]),
      });
      if (!response.ok) throw new ProviderAnswer(response);
      return response;
    }
    return call.isStream
      ? streamed(guard, caller, request, call, sendCall)
      : whole(guard, caller, request, sendCall);
  };
}

type Send = (context: CallContext) => Promise<Response>;

/** An answer in one piece. */
async function whole(guard: Guard, caller: Caller, request: GuardRequest, send: Send): Promise<Response> {
  let response: Response | null = null;
  let text = "";
  const result = await guard.run(
    request,
    async (context): Promise<unknown> => {
      response = await send(context);
      text = await response.text();
      try {
        return JSON.parse(text);
      } catch {
        return null;
      }
    },
    { readUsage },
  );
  tellAnswer(caller, result);
  if (!result.ok) return answerTo(result.error);
  const { status, statusText } = response as unknown as Response;
  return new Response(text, { status, statusText, headers: headersFor(response as unknown as Response) });
}

/** A stream of events, passed on as they come. */
async function streamed(
  guard: Guard,
  caller: Caller,
  request: GuardRequest,
  call: ProviderCall,
  send: Send,
): Promise<Response> {
  let response: Response | null = null;
  /** What came and is not passed on yet, beside what the guard reads of it. */
  const raws: string[] = [];
  const result = await guard.stream(request, async (context): Promise<AsyncIterable<unknown>> => {
    const begun = await send(context);
    response = begun;
    const body = begun.body;
    return {
      async *[Symbol.asyncIterator]() {
        if (!body) return;
        for await (const { raw, json } of eventsIn(body)) {
          raws.push(call.asksForUsage && isUsageAlone(json) ? "" : raw);
          yield json;
        }
      },
    };
  });
  tellAnswer(caller, result);
  if (!result.ok) return answerTo(result.error);
  const events = result.value.value[Symbol.asyncIterator]();
  const encoder = new TextEncoder();
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      for (let raw = ""; raw === ""; ) {
        const { done } = await events.next();
        if (done) return controller.close();
        raw = raws.shift() ?? "";
        if (raw !== "") controller.enqueue(encoder.encode(raw));
      }
    },
    async cancel() {
      await events.return?.();
    },
  });
  const { status, statusText } = response as unknown as Response;
  return new Response(body, { status, statusText, headers: headersFor(response as unknown as Response) });
}
