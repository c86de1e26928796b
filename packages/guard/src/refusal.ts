import { isRecord } from "../../../shared/governance/values.ts";
import {
  type GuardFailure,
  type GuardResult,
  toHttp,
  type ToHttpOptions,
} from "../../../shared/governance/guard/index.ts";

/** What to answer over HTTP for a call that was refused. */
export type Refusal = ReturnType<typeof toHttp>;

/** The header by which an answer of the guard's is known among a provider's. */
export const refusalHeader = "x-token-governance";

/** Thrown for a call that was not made: `failure` says why, `status` what to answer. */
export class GuardRefusal extends Error {
  readonly failure: GuardFailure;
  readonly status: number;
  constructor(failure: GuardFailure) {
    const { status, body } = toHttp(failure);
    super(`${failure.reason}: ${String(body["message"])}`);
    this.name = "GuardRefusal";
    this.failure = failure;
    this.status = status;
  }
}

/**
 * The value of a guarded call. Throws a GuardRefusal where it was not made, and what the provider's call threw where it
 * failed.
 */
export function unwrap<T>(result: GuardResult<T>): T {
  if (result.ok) return result.value.value;
  throw thrownFor(result.error);
}

/** What to throw for a call that was not made or failed: its caller's own leaving looks as it does without a guard. */
export const thrownFor = (failure: GuardFailure): unknown =>
  failure.kind === "call_failed" || failure.kind === "aborted" ? failure.cause : new GuardRefusal(failure);

/** The body that a client library keeps of an answer: parsed, as text, or its `error` alone. */
function bodyOf(error: Record<string, unknown>): Record<string, unknown> | null {
  const kept = error["error"] ?? error["responseBody"] ?? error["data"];
  let body: unknown = kept;
  if (typeof kept === "string")
    try {
      body = JSON.parse(kept);
    } catch {
      return null;
    }
  if (!isRecord(body)) return null;
  return isRecord(body["error"]) ? body["error"] : body;
}

const headerOf = (headers: unknown, name: string): string | null => {
  if (headers instanceof Headers) return headers.get(name);
  const value = isRecord(headers) ? headers[name] : null;
  return typeof value === "string" ? value : null;
};

/**
 * Why a call was refused, from whatever it threw: a GuardRefusal, or the error that a client library made of the
 * guard's answer. null for every other error. A language words it for a user whose account has none.
 */
export function refusalOf(thrown: unknown, options: ToHttpOptions = {}): Refusal | null {
  for (let error = thrown, depth = 0; isRecord(error) && depth < 5; depth++) {
    if (error instanceof GuardRefusal) return toHttp(error.failure, options);
    const headers = error["headers"] ?? error["responseHeaders"];
    if (headerOf(headers, refusalHeader) !== null) {
      const status = Number(error["status"] ?? error["statusCode"]);
      const body = bodyOf(error);
      const retryAfter = headerOf(headers, "retry-after");
      if (status >= 400 && body) {
        const { code: reason, type: _, ...rest } = body;
        return {
          status,
          headers: {
            "content-type": "application/json",
            ...(retryAfter === null ? {} : { "retry-after": retryAfter }),
          },
          body: { error: reason, ...rest },
        };
      }
    }
    error = error["lastError"] ?? error["cause"];
  }
  return null;
}

/** A refusal as an answer that client libraries read as the provider's own, and do not try again. */
export function refusalResponse(failure: GuardFailure): Response {
  const { status, headers, body } = toHttp(failure);
  const { error: code, ...rest } = body;
  return new Response(JSON.stringify({ error: { code, type: "token_governance", ...rest } }), {
    status,
    headers: { ...headers, "x-should-retry": "false", [refusalHeader]: String(code) },
  });
}
