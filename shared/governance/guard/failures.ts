/** What an error of a provider shows about the work that it did. */
import { isRecord } from "../values.ts";

/** Codes of Node's network errors that come before anything was sent. */
const neverSent =
  /^(ECONNREFUSED|ENOTFOUND|EAI_\w+|EHOSTUNREACH|ENETUNREACH|UND_ERR_CONNECT_TIMEOUT|CERT_\w+|ERR_TLS_\w+|DEPTH_ZERO_SELF_SIGNED_CERT|SELF_SIGNED_CERT_IN_CHAIN|UNABLE_TO_\w+)$/;

/** An error, and what it names as its cause: an SDK's, a library's, a runtime's own. */
function* causesOf(cause: unknown): Generator<Readonly<Record<string, unknown>>> {
  let error = cause;
  for (let depth = 0; isRecord(error) && depth < 5; depth++) {
    yield error;
    // The AI SDK's RetryError keeps the last of its attempts.
    error = error["cause"] ?? error["lastError"];
  }
}

/** The HTTP status that an error carries: most SDKs', AWS's, axios'. NaN for none. */
function statusOf(error: Readonly<Record<string, unknown>>): number {
  const { $metadata: aws, response } = error;
  const candidates = [
    error["status"],
    error["statusCode"],
    isRecord(aws) ? aws["httpStatusCode"] : undefined,
    isRecord(response) ? response["status"] : undefined,
  ];
  return candidates.map(Number).find((status) => status >= 100 && status < 600) ?? Number.NaN;
}

/** Whether a connection was never made: Node names the step; for a name with several addresses in each error. */
function wasNotConnected(error: Readonly<Record<string, unknown>>): boolean {
  const { errors, syscall, code } = error;
  if (syscall === "connect" || neverSent.test(String(code))) return true;
  return (
    Array.isArray(errors) &&
    errors.length > 0 &&
    errors.every((each) => isRecord(each) && each["syscall"] === "connect")
  );
}

/** Whether a provider certainly did no work: it answered with a 4xx, or was never reached. */
export function wasRefused(cause: unknown): boolean {
  for (const error of causesOf(cause)) {
    const status = statusOf(error);
    // 408 is a time-out: what was begun then is unknown. 499 is the caller's own leaving.
    if (status >= 400 && status < 500) return status !== 408 && status !== 499;
    if (wasNotConnected(error)) return true;
  }
  return false;
}

/** The words and the status of an error in one of the forms below; null where there is none. */
function errorIn(value: Readonly<Record<string, unknown>>): unknown {
  const { response, interaction, errors, base_resp: base } = value;
  for (const holder of [value, response, interaction])
    if (isRecord(holder) && holder["error"]) return holder["error"];
  // OpenAI's Responses write their event `error` flat; Cloudflare lists errors; MiniMax answers 200 to all.
  if (value["type"] === "error") return value;
  if (value["success"] === false && Array.isArray(errors) && errors.length > 0) return errors[0];
  if (isRecord(base) && Number(base["status_code"] ?? 0) !== 0) return { message: base["status_msg"] };
  return null;
}

/**
 * The error that an answer, or a chunk of a stream, carries instead of throwing it: `error` in a body of status 200
 * (OpenRouter, OpenAI's `response.failed`), the event `error` (Anthropic, OpenAI). Null where it carries none.
 */
export function reportedError(value: unknown): Error | null {
  if (!isRecord(value)) return null;
  const found = errorIn(value);
  if (!found) return null;
  const words = isRecord(found) ? (found["message"] ?? found["type"] ?? found["code"]) : found;
  const error = new Error(typeof words === "string" ? words : "The provider reported an error.");
  // Google names its status in words, and in a number beside them.
  return isRecord(found)
    ? Object.assign(error, { status: statusOf({ status: found["status"], statusCode: found["code"] }) })
    : error;
}

const cutOffNames: ReadonlySet<unknown> = new Set([
  "AbortError",
  "TimeoutError",
  "CanceledError",
  "APIUserAbortError",
  "APIConnectionError",
  "APIConnectionTimeoutError",
]);
/** Codes of connections that ended after something was sent; undici's own begin all alike. */
const cutOffCodes =
  /^(ECONNRESET|ECONNABORTED|EPIPE|ETIMEDOUT|ERR_CANCELED|ERR_STREAM_\w+|ERR_HTTP2_\w+|UND_ERR_\w+)$/;

/** Whether a call was stopped, timed out, or lost its connection: its provider may have worked, and bills it then. */
export function wasCutOff(cause: unknown): boolean {
  for (const error of causesOf(cause)) {
    const status = statusOf(error);
    if (status === 408 || status === 499 || status === 504 || status === 524) return true;
    if (cutOffNames.has(error["name"]) || cutOffCodes.test(String(error["code"]))) return true;
    if (error instanceof Error && cutOffNames.has(error.constructor.name)) return true;
  }
  return false;
}
