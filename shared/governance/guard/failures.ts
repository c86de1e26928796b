/** What an error of a provider says about the work that it did. */
import { isRecord } from "../rules/problems.ts";

/** Codes of Node's network errors that come before anything was sent. */
const neverSent: ReadonlySet<unknown> = new Set([
  "ECONNREFUSED",
  "ENOTFOUND",
  "EAI_AGAIN",
  "CERT_HAS_EXPIRED",
]);

/** Whether a provider certainly did no work: it answered with a 4xx, or was never reached. */
export function wasRefused(cause: unknown): boolean {
  for (let error = cause, depth = 0; isRecord(error) && depth < 5; error = error["cause"], depth++) {
    const status = Number(error["status"] ?? error["statusCode"]);
    // 408 is a time-out: what was begun then is unknown. 499 is the caller's own leaving.
    if (status >= 400 && status < 500) return status !== 408 && status !== 499;
    if (neverSent.has(error["code"])) return true;
  }
  return false;
}

const cutOffNames: ReadonlySet<unknown> = new Set([
  "AbortError",
  "TimeoutError",
  "APIUserAbortError",
  "APIConnectionError",
  "APIConnectionTimeoutError",
]);
/** Codes of connections that ended after something was sent; undici's own begin all alike. */
const cutOffCodes = /^(ECONNRESET|ECONNABORTED|EPIPE|ETIMEDOUT|UND_ERR_\w+)$/;

/** Whether a call was stopped, timed out, or lost its connection: its provider may have worked, and bills it then. */
export function wasCutOff(cause: unknown): boolean {
  for (let error = cause, depth = 0; isRecord(error) && depth < 5; error = error["cause"], depth++) {
    const status = Number(error["status"] ?? error["statusCode"]);
    if (status === 408 || status === 499 || status === 504 || status === 524) return true;
    if (cutOffNames.has(error["name"]) || cutOffCodes.test(String(error["code"]))) return true;
    if (error instanceof Error && cutOffNames.has(error.constructor.name)) return true;
  }
  return false;
}
