/** A call that may be made: what it gets beside its request, and how it is stopped. */
import { truncateToWords } from "../rules/text.ts";
import { safely } from "./safely.ts";
import type { AuthorizeAnswer, CallContext, GuardRequest } from "./types.ts";

/** A call that may be made. */
export interface Admission {
  readonly request_id: string;
  readonly request: GuardRequest;
  /** null: nobody could be asked, and the plan lets calls through. */
  readonly answer: AuthorizeAnswer | null;
  readonly args: Readonly<Record<string, unknown>>;
  /** Whether tokens are held for it: unknown where the question may have arrived and its answer was lost. */
  readonly hold: "held" | "unknown" | "none";
  /** What the call is charged, before any factor, where its usage is not known. */
  readonly expected_tokens: number;
  /** The estimate is the learner's, so its error is not counted for the other estimates. */
  readonly is_learnt: boolean;
  /** The key is the caller's, so others may come under it. */
  readonly is_repeatable: boolean;
}

/** What the function that makes the call gets, how to abort it, and how to forget the caller's signal. */
export function contextOf({ request_id: requestId, request, answer }: Admission): {
  context: CallContext;
  abort: () => void;
  forgetSignal: () => void;
} {
  const handlers: (() => void)[] = [];
  let isAborted = false;
  const words = answer?.truncate_to_words ?? null;
  // A signal may outlive its call by far.
  const forgetSignal = (): void => request.signal?.removeEventListener("abort", abort);
  function abort(): void {
    isAborted = true;
    forgetSignal();
    for (const handler of handlers.splice(0)) safely(handler);
  }
  request.signal?.addEventListener("abort", abort);
  return {
    context: {
      request_id: requestId,
      model: answer?.model ?? request.model,
      message:
        typeof request.message === "string" && words !== null
          ? truncateToWords(request.message, words)
          : request.message,
      truncate_to_words: words,
      onAbort(run) {
        if (isAborted) safely(run);
        else handlers.push(run);
      },
    },
    abort,
    forgetSignal,
  };
}
