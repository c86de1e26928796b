import { say, type UserLanguage, userLanguageOf, userMessage } from "../rules/user-words.ts";
import type { GuardFailure } from "./types.ts";

/** How to answer a user. */
export interface ToHttpOptions {
  /**
   * The user's language as a browser or an account names it (`de-AT`). Without it the database's own words are kept, which
   * are in the language of the account.
   */
  readonly language?: string;
}

/** What to answer over HTTP for a call that was not made: status, Retry-After, and a body that says what to do. */
export function toHttp(
  failure: GuardFailure,
  options: ToHttpOptions = {},
): {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Readonly<Record<string, unknown>>;
} {
  const answer = failure.kind === "blocked" ? failure.answer : null;
  const retryAfter = answer?.retry_after_seconds ?? (failure.kind === "unavailable" ? 5 : null);
  const language: UserLanguage = userLanguageOf(options.language);
  const said =
    answer && (options.language !== undefined || answer.message === null)
      ? userMessage(failure.reason, answer.message, language)
      : answer?.message;
  return {
    status: failure.http_status,
    headers: {
      "content-type": "application/json",
      ...(retryAfter === null ? {} : { "retry-after": String(retryAfter) }),
    },
    body: {
      error: failure.kind === "blocked" ? failure.reason : failure.kind,
      message: said ?? (failure.kind === "misuse" ? failure.reason : say("unavailable", language)),
      ...(retryAfter === null ? {} : { retry_after_seconds: retryAfter }),
      ...(answer?.shortfall ? { shortfall: answer.shortfall } : {}),
      ...(answer?.upgrade ? { upgrade: answer.upgrade } : {}),
      ...(answer?.buy_url ? { buy_url: answer.buy_url } : {}),
      ...(answer?.contact_url ? { contact_url: answer.contact_url } : {}),
      ...(answer?.balance ? { balance: answer.balance } : {}),
    },
  };
}
