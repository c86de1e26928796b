import { fail, ok, type Result } from "../result.ts";
import { safely } from "./safely.ts";
import type { BatchingClient, GuardOptions, RpcReply, StopSignal } from "./types.ts";

/** In `hint` of the error of a call that found the queue full: it was never sent. */
export const tooManyWaiting = "too_many_waiting";

/** Why a question has no answer. */
export type RpcFailure =
  /** The database said no to what was asked: asking again gives the same. */
  | {
      readonly kind: "refused";
      readonly http_status: number;
      readonly reason: string;
      readonly message: string;
    }
  /**
   * The project is not set up for the question (wrong key, missing migration): a person must put that right, not the
   * caller.
   */
  | { readonly kind: "misconfigured"; readonly message: string }
  /** It was never sent: too many wait, or it waited too long or until its caller had left. */
  | { readonly kind: "unasked"; readonly message: string }
  /** It is not known whether it was done: ask again with the same key. */
  | { readonly kind: "unknown"; readonly message: string };

/** SQLSTATEs that mean "not done, try again": conflicts, too many connections, shutting down, cancelled. */
const transient = /^(40001|40P01|55P03|57014|57P0[1-5]|53\d{3}|08\d{3}|58\d{3}|PGRST00[0-3])$/;
/** Errors of ours, which name themselves in `hint`, and PostgreSQL's own about the data of a question. */
const ours = /^PT4\d\d$/;
const aboutData = /^2[23]/;

function judge(reply: RpcReply): Result<unknown, RpcFailure> {
  const { error, status = 0 } = reply;
  if (!error) return ok(reply.data);
  if (error.hint === tooManyWaiting) return fail({ kind: "unasked", message: error.message });
  const code = error.code ?? "";
  const definite = status >= 400 && status < 500 && status !== 408 && status !== 425 && status !== 429;
  // Whatever status a gateway made of it.
  if (ours.test(code) || (aboutData.test(code) && definite))
    return fail({
      kind: "refused",
      http_status: definite ? status : Number(code.slice(2)) || 400,
      reason: (ours.test(code) && error.hint) || code,
      message: error.message,
    });
  // An error without a code is not the database's: a gateway that does not find it says 404 as well.
  return fail({
    kind: definite && code !== "" && !transient.test(code) ? "misconfigured" : "unknown",
    message: error.message || "The database did not answer.",
  });
}

type Timing = Pick<GuardOptions, "timer" | "rpcTimeoutMs" | "rpcRetries" | "retryDelayMs">;

/** The longest time that setTimeout takes: anything longer, Infinity too, it treats as 0. */
const longestMs = 2 ** 31 - 1;

/**
 * The promise, or `late` after so many ms or when the signal says stop. Neither timer nor listener outlives the promise;
 * what it rejects with is passed on.
 */
export function within<T, L>(
  promise: PromiseLike<T>,
  ms: number,
  timer: GuardOptions["timer"],
  late: L,
  signal?: StopSignal,
): Promise<T | L> {
  return new Promise((resolve, reject) => {
    const stop = (): void => {
      cancel();
      resolve(late);
    };
    const stopTimer = timer(stop, Math.min(ms, longestMs));
    const cancel = (): void => {
      stopTimer();
      signal?.removeEventListener("abort", stop);
    };
    signal?.addEventListener("abort", stop);
    if (signal?.aborted) stop();
    promise.then(
      (value) => {
        cancel();
        resolve(value);
      },
      (error: unknown) => {
        cancel();
        reject(error);
      },
    );
  });
}

/** What was thrown, in words; whatever it is, for anything can be thrown. */
export const reasonOf = (cause: unknown): string =>
  safely(() => String(cause instanceof Error ? cause.message : cause)) ?? "What was thrown has no words.";

/** What to throw where the signal says stop: its own reason, as `fetch` does. */
export const reasonToStop = (signal: StopSignal | undefined): unknown =>
  signal?.reason ?? Object.assign(new Error("The caller left."), { name: "AbortError" });

/** Waits for so many ms. */
export function pause(ms: number, timer: GuardOptions["timer"]): Promise<void> {
  return new Promise((resolve) => void timer(resolve, ms));
}

/**
 * Asks the database. Every function asked here carries its own key, so a question whose outcome is unknown (no answer,
 * too late, server error) is asked again as it was.
 */
export async function ask(
  options: { readonly client: BatchingClient } & Timing,
  name: string,
  args: Readonly<Record<string, unknown>>,
  retries = options.rpcRetries ?? 3,
  signal?: StopSignal,
): Promise<Result<unknown, RpcFailure>> {
  let delayMs = options.retryDelayMs ?? 100;
  for (let attempt = 0; ; attempt++) {
    let answer: Result<unknown, RpcFailure>;
    try {
      const pending = options.client.rpc(name, { ...args });
      const reply = await within(pending, options.rpcTimeoutMs ?? 5_000, options.timer, null, signal);
      if (reply !== null) answer = judge(reply);
      // An earlier attempt was sent, so the database may have it.
      else if (pending.cancel() && attempt === 0)
        answer = fail({ kind: "unasked", message: `${name} waited too long behind other calls.` });
      else answer = fail({ kind: "unknown", message: `${name} did not answer in time.` });
    } catch (error) {
      answer = fail({ kind: "unknown", message: reasonOf(error) });
    }
    if (answer.ok || answer.error.kind !== "unknown" || attempt >= retries || signal?.aborted) return answer;
    await pause(delayMs, options.timer);
    delayMs *= 2;
  }
}
