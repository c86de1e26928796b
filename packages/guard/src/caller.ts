import { safely } from "../../../shared/governance/guard/safely.ts";
import type {
  AuthorizeAnswer,
  Guarded,
  GuardRequest,
  GuardResult,
} from "../../../shared/governance/guard/index.ts";

/** For whom a call is made. The rest of a call (model, message, length) the integrations read from the call itself. */
export type Caller = Omit<GuardRequest, "model" | "message" | "request_id" | "signal"> & {
  /**
   * Called with the decision on each call that was made: its `warnings` are for the user, its `balance` for the page.
   */
  readonly onAnswer?: (answer: AuthorizeAnswer) => void;
};

/** The request of a call for this caller. */
export function requestOf(
  caller: Caller,
  call: { readonly model: string; readonly message: string | undefined; readonly input_tokens: number },
): GuardRequest {
  const { onAnswer: _, ...request } = caller;
  const { model, message, input_tokens } = call;
  return { input_tokens, ...request, model, ...(message === undefined ? {} : { message }) };
}

/** Calls it with the decision on a call that was made. What it throws is its own: the call goes on. */
export function tellAnswer<T>(caller: Caller, result: GuardResult<T>): void {
  const made: Guarded<T> | null = result.ok ? result.value : null;
  const answer = made?.answer;
  if (answer) safely(() => caller.onAnswer?.(answer));
}
