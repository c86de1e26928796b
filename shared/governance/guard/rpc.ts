import { fail, ok, type Result } from "../result.ts";
import type { GuardOptions, RpcReply } from "./types.ts";

/** Why a question has no answer. */
export type RpcFailure =
  /** The database said no: asking again gives the same. */
  | {
      readonly kind: "refused";
      readonly http_status: number;
      readonly reason: string;
      readonly message: string;
    }
  /** Nobody knows whether it was done: ask again with the same key. */
  | { readonly kind: "unknown"; readonly message: string };

/** SQLSTATEs that mean "not done, try again": conflicts, too many connections, shutting down, cancelled. */
const transient = /^(40001|40P01|55P03|57014|57P0[1-5]|53\d{3}|08\d{3}|58\d{3}|PGRST00[0-3])$/;

function judge(reply: RpcReply): Result<unknown, RpcFailure> {
  const { error, status = 0 } = reply;
  if (!error) return ok(reply.data);
  const code = error.code ?? "";
  const definite = status >= 400 && status < 500 && status !== 408 && status !== 425 && status !== 429;
  // A refusal of ours names itself in `hint`, whatever status a gateway made of it.
  const ours = /^PT4\d\d$/.test(code);
  if (!transient.test(code) && (ours || definite))
    return fail({
      kind: "refused",
      http_status: definite ? status : Number(code.slice(2)) || 400,
      reason: error.hint ?? (code || "refused"),
      message: error.message,
    });
  return fail({ kind: "unknown", message: error.message || "The database did not answer." });
}

type Timing = Pick<GuardOptions, "timer" | "rpcTimeoutMs" | "rpcRetries" | "retryDelayMs">;

/** The promise, or `late` after so many ms. The timer never outlives the promise. */
export function within<T, L>(
  promise: PromiseLike<T>,
  ms: number,
  timer: GuardOptions["timer"],
  late: L,
): Promise<T | L> {
  return new Promise((resolve, reject) => {
    const cancel = timer(() => resolve(late), ms);
    promise.then(
      (value) => {
        cancel();
        resolve(value);
      },
      (error: unknown) => {
        cancel();
        reject(error instanceof Error ? error : new Error(String(error)));
      },
    );
  });
}

/** Waits for so many ms. */
export function pause(ms: number, timer: GuardOptions["timer"]): Promise<void> {
  return new Promise((resolve) => void timer(resolve, ms));
}

/**
 * Asks the database. Every function asked here carries its own key, so a question whose outcome is unknown (no answer,
 * too late, server error) is asked again as it was.
 */
export async function ask(
  options: Pick<GuardOptions, "client"> & Timing,
  name: string,
  args: Readonly<Record<string, unknown>>,
  retries = options.rpcRetries ?? 3,
): Promise<Result<unknown, RpcFailure>> {
  let delayMs = options.retryDelayMs ?? 100;
  for (let attempt = 0; ; attempt++) {
    let answer: Result<unknown, RpcFailure>;
    try {
      const reply = await within(
        options.client.rpc(name, { ...args }),
        options.rpcTimeoutMs ?? 5_000,
        options.timer,
        null,
      );
      answer =
        reply === null ? fail({ kind: "unknown", message: `${name} did not answer in time.` }) : judge(reply);
    } catch (error) {
      answer = fail({ kind: "unknown", message: error instanceof Error ? error.message : String(error) });
    }
    if (answer.ok || answer.error.kind === "refused" || attempt >= retries) return answer;
    await pause(delayMs, options.timer);
    delayMs *= 2;
  }
}
