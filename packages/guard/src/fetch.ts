import type {
  CallContext,
  Guard,
  GuardFailure,
  GuardRequest,
} from "../../../shared/governance/guard/index.ts";
import { readUsage } from "../../../shared/governance/usage/index.ts";
import { framesIn, type SentEvent } from "./aws-events.ts";
import { type Caller, requestOf, tellAnswer } from "./caller.ts";
import { isCall, type ProviderCall, readCall } from "./endpoints.ts";
import { refusalResponse, thrownFor } from "./refusal.ts";
import { readBody } from "./request-body.ts";

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

function parsed(json: string): unknown {
  try {
    return json === "" || json === "[DONE]" ? null : JSON.parse(json);
  } catch {
    return null;
  }
}

function eventsOf(raw: string): SentEvent[] {
  const lines = raw
    .replace(/^\uFEFF/, "")
    .split(/\r\n?|\n/)
    .flatMap((line) => (line.startsWith("data:") ? [line.slice(5).trimStart()] : []));
  const json = parsed(lines.join("\n"));
  if (json !== null || lines.length < 2) return [{ raw, json }];
  // A proxy that left out the lines between events.
  return lines.map((line, index) => ({ raw: index === 0 ? raw : "", json: parsed(line) }));
}

/** What never ends is not an event. */
const longestEvent = 16_000_000;

/** Takes whole events off the text that came; answers them, and what is left of the text. */
type Split = (text: string) => readonly [events: SentEvent[], rest: string];

function splitEvents(): Split {
  let looked = 0;
  return (text) => {
    const events: SentEvent[] = [];
    let start = 0;
    const border = /(?:\r\n|\n|\r(?!\n)){2}/g;
    border.lastIndex = Math.max(0, looked - 3);
    for (let found = border.exec(text); found; found = border.exec(text)) {
      events.push(...eventsOf(text.slice(start, border.lastIndex)));
      start = border.lastIndex;
    }
    looked = text.length - start;
    return [events, text.slice(start)];
  };
}

/** Objects in an array, or one after the other: Google's stream without `alt=sse`, and Ollama's. */
function splitObjects(): Split {
  let [at, depth, begin] = [0, 0, -1];
  let [isText, isEscaped] = [false, false];
  return (text) => {
    const events: SentEvent[] = [];
    let start = 0;
    for (; at < text.length; at += 1) {
      const sign = text[at];
      if (isEscaped) isEscaped = false;
      else if (isText) {
        if (sign === "\\") isEscaped = true;
        else if (sign === '"') isText = false;
      } else if (sign === '"') isText = true;
      else if (sign === "{") {
        if (depth === 0) begin = at;
        depth += 1;
      } else if (sign === "}" && depth > 0) {
        depth -= 1;
        if (depth > 0) continue;
        events.push({ raw: text.slice(start, at + 1), json: parsed(text.slice(begin, at + 1)) });
        start = at + 1;
      }
    }
    at -= start;
    begin -= start;
    return [events, text.slice(start)];
  };
}

async function* eventsIn(body: ReadableStream<Uint8Array>): AsyncGenerator<SentEvent> {
  const reader = body.getReader();
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  let rest = "";
  let split: Split | null = null;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      rest += done ? decoder.decode() : decoder.decode(value, { stream: true });
      if (!split && rest.trim() !== "") split = /^\s*[[{]/.test(rest) ? splitObjects() : splitEvents();
      if (split) {
        const [events, left] = split(rest);
        rest = left;
        yield* events;
      }
      if (done) break;
      if (rest.length > longestEvent) {
        yield { raw: rest, json: null };
        rest = "";
        split = null;
      }
    }
    if (rest !== "") yield* eventsOf(rest);
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
 * Mistral, OpenRouter, xAI, DeepSeek, Groq), Anthropic, Cohere, Google and Bedrock; other requests pass. A refused call
 * is answered by the guard with its status, and not sent; retries of a client are calls of their own. Rejects as `fetch`
 * does. A request that the guard changes (another model, a shortened message) loses a signature made over it. A streamed
 * body is read before the call is decided, and one of more than 64 MB is refused with a TypeError: nothing is sent.
 */
export function guardFetch(guard: Guard, caller: Caller, options: GuardFetchOptions = {}): typeof fetch {
  const send = options.fetch ?? fetch;
  return async (input, init) => {
    const isRequest = input instanceof Request;
    const method = init?.method ?? (isRequest ? input.method : "GET");
    const url = isRequest ? input.url : String(input);
    if (method.toUpperCase() !== "POST" || !isCall(url)) return send(input, init);
    const signals: AbortSignal[] = [];
    const signal = init?.signal ?? (isRequest ? input.signal : null);
    const given = new Headers(init?.headers ?? (isRequest ? input.headers : undefined));
    const type = given.get("content-type");
    const { said, bytes } = await readBody(init?.body ?? (isRequest ? input.body : null), type, signal);
    const call = said === null ? null : readCall(url, said);
    if (!call) {
      if (!bytes) return send(input, init);
      return isRequest && !init?.body
        ? send(new Request(input, { method, body: bytes }), init)
        : send(input, { ...init, body: bytes });
    }
    if (signal) signals.push(signal);
    const request = { ...requestOf(caller, call), ...(signal ? { signal } : {}) };
    async function sendCall(context: CallContext): Promise<Response> {
      const ended = new AbortController();
      context.onAbort(() => ended.abort());
      const { url: to, body } = (call as ProviderCall).rewritten(context.model, context.message);
      const headers = new Headers(given);
      headers.delete("content-length");
      // A form that is written again has another boundary between its parts.
      if (typeof body !== "string") headers.delete("content-type");
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

/**
 * The counts of Bedrock's InvokeModel, where the model itself reports none
 * (docs.aws.amazon.com/bedrock/latest/userguide/inference-invoke.html).
 */
function countsInHeaders({ headers }: Response): object | null {
  const count = (name: string): string | null => headers.get(`x-amzn-bedrock-${name}-token-count`);
  if (count("input") === null) return null;
  return {
    inputTokenCount: count("input"),
    outputTokenCount: count("output") ?? 0,
    cacheReadInputTokenCount: count("cache-read-input"),
    cacheWriteInputTokenCount: count("cache-write-input"),
  };
}

/** An answer in one piece. */
async function whole(guard: Guard, caller: Caller, request: GuardRequest, send: Send): Promise<Response> {
  let response: Response | null = null;
  // Speech is no text.
  let bytes = new ArrayBuffer(0);
  const result = await guard.run(
    request,
    async (context): Promise<unknown> => {
      response = await send(context);
      bytes = await response.arrayBuffer();
      try {
        return JSON.parse(new TextDecoder().decode(bytes));
      } catch {
        return null;
      }
    },
    {
      readUsage(value) {
        const read = readUsage(value);
        const told = read.ok || !response ? null : countsInHeaders(response);
        return told ? readUsage(told) : read;
      },
    },
  );
  tellAnswer(caller, result);
  if (!result.ok) return answerTo(result.error);
  const { status, statusText } = response as unknown as Response;
  return new Response(bytes, { status, statusText, headers: headersFor(response as unknown as Response) });
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
  const raws: (string | Uint8Array)[] = [];
  const result = await guard.stream(request, async (context): Promise<AsyncIterable<unknown>> => {
    const begun = await send(context);
    response = begun;
    const body = begun.body;
    const isBinary = /amazon\.eventstream/.test(begun.headers.get("content-type") ?? "");
    return {
      async *[Symbol.asyncIterator]() {
        if (!body) return;
        for await (const { raw, json } of isBinary ? framesIn(body) : eventsIn(body)) {
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
      for (let raw: string | Uint8Array = ""; raw.length === 0; ) {
        const { done } = await events.next();
        if (done) return controller.close();
        raw = raws.shift() ?? "";
        if (raw.length > 0) controller.enqueue(typeof raw === "string" ? encoder.encode(raw) : raw);
      }
    },
    async cancel() {
      await events.return?.();
    },
  });
  const { status, statusText } = response as unknown as Response;
  return new Response(body, { status, statusText, headers: headersFor(response as unknown as Response) });
}
