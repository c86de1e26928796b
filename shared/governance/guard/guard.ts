import { fail, ok } from "../result.ts";
import { createAdmission } from "./admission.ts";
import { batchCalls } from "./batching.ts";
import { contextOf } from "./call-context.ts";
import { createCharges } from "./charges.ts";
import { createEndings } from "./endings.ts";
import { passOn } from "./pass-on.ts";
import { reasonOf, within } from "./rpc.ts";
import { safely } from "./safely.ts";
import { keepSettlements } from "./settlements.ts";
import type {
  CallContext,
  CallOptions,
  GuardOptions,
  GuardProblem,
  GuardRequest,
  GuardResult,
  QueuedSettlement,
} from "./types.ts";

const timedOut = Symbol("timed out");

/** Stands between a backend and its AI provider: no call without a decision, no call without a settlement. Counts are settlements. */
export interface Guard {
  /**
   * Authorises, makes the call, settles what it used. The value's tokens are read by `readUsage` unless given otherwise;
   * where they cannot be read, the tokens estimated are charged and the problem is reported. Never rejects.
   */
  run<T>(
    request: GuardRequest,
    call: (context: CallContext) => Promise<T>,
    options?: CallOptions<T>,
  ): Promise<GuardResult<T>>;
  /**
   * The same for a stream of the provider's chunks. The value is the stream to pass on; it is settled exactly when it
   * has ended, and with what was used when it broke or was left.
   */
  stream<C>(
    request: GuardRequest,
    call: (context: CallContext) => Promise<AsyncIterable<C>>,
  ): Promise<GuardResult<AsyncIterable<C>>>;
  /** Settlements owed to the database that this process knows of: watch it. */
  readonly queueLength: number;
  /**
   * Sends what waits in the store, and goes on trying where it cannot: call it at start-up, for what an earlier process
   * left. Rejects when the store cannot be read.
   */
  drain(): Promise<{ readonly sent: number; readonly waiting: number; readonly parked: number }>;
  /** Settlements that a person must look at. */
  parked(): Promise<readonly QueuedSettlement[]>;
  /**
   * Resolves when no settlement is on its way or waiting, nor a record looked up (`unsure`): for a graceful stop. Calls
   * still running are not waited for.
   */
  idle(): Promise<void>;
}

/**
 * Makes a guard. It keeps no state that matters outside the given store. Throws nothing itself: a stream that breaks
 * throws to its reader.
 */
export function createGuard(options: GuardOptions): Guard {
  const report = (problem: GuardProblem): void => safely(() => options.onProblem?.(problem));
  const batching = { ...options, client: batchCalls(options.client, options, options.batch) };
  const settlements = keepSettlements(batching, report);
  const charges = createCharges(options, settlements);
  const endings = createEndings(options, charges, settlements, report);
  const { admit, leave } = createAdmission(batching, charges, report);
  const parts = { options, charges, endings, report };
  const { settleValue, endFailed, endUnsure } = endings;
  const callTimeoutMs = options.callTimeoutMs ?? 300_000;

  async function run<T>(
    request: GuardRequest,
    call: (context: CallContext) => Promise<T>,
    callOptions?: CallOptions<T>,
  ): Promise<GuardResult<T>> {
    const requestId = request.request_id ?? options.newId();
    const admitted = await admit(requestId, request);
    if (!admitted.ok) return admitted;
    const admission = admitted.value;
    // The caller may have left since the decision.
    if (request.signal?.aborted) return leave(admission);
    const { context, abort, forgetSignal } = contextOf(admission);
    const pending = (async () => call(context))();
    pending.then(forgetSignal, forgetSignal);
    try {
      const value = await within(pending, callTimeoutMs, options.timer, timedOut);
      if (value !== timedOut)
        return ok({
          value,
          request_id: requestId,
          answer: admission.answer,
          settlement: settleValue(admission, value, callOptions),
        });
    } catch (cause) {
      void endFailed(admission, cause, "call failed");
      return fail({ kind: "call_failed", http_status: 502, reason: reasonOf(cause), cause });
    }
    // What a late answer used is charged when it comes. One that does not come in as long again ends as unsure.
    const late = within(pending, callTimeoutMs, options.timer, timedOut).then(
      (value) =>
        value === timedOut
          ? endUnsure(admission, "the call never ended", undefined)
          : settleValue(admission, value, callOptions),
      (cause: unknown) => endFailed(admission, cause, "call failed after its time-out"),
    );
    safely(() => options.waitUntil?.(late));
    abort();
    return fail({
      kind: "call_timed_out",
      http_status: 504,
      reason: `The call took longer than ${callTimeoutMs} ms.`,
    });
  }

  async function stream<C>(
    request: GuardRequest,
    call: (context: CallContext) => Promise<AsyncIterable<C>>,
  ): Promise<GuardResult<AsyncIterable<C>>> {
    const requestId = request.request_id ?? options.newId();
    const admitted = await admit(requestId, request);
    if (!admitted.ok) return admitted;
    const admission = admitted.value;
    // The caller may have left since the decision.
    if (request.signal?.aborted) return leave(admission);
    const { context, abort, forgetSignal } = contextOf(admission);
    const pending = (async () => call(context))();
    pending.then(forgetSignal, forgetSignal);
    try {
      const source = await within(pending, callTimeoutMs, options.timer, timedOut);
      if (source !== timedOut) return ok(passOn(parts, source, admission, abort));
    } catch (cause) {
      void endFailed(admission, cause, "call failed");
      return fail({ kind: "call_failed", http_status: 502, reason: reasonOf(cause), cause });
    }
    abort();
    // A stream that starts after all is left at once.
    void pending.then((late) => late[Symbol.asyncIterator]().return?.()).catch(() => undefined);
    void endUnsure(admission, "the stream did not start in time", undefined);
    return fail({
      kind: "call_timed_out",
      http_status: 504,
      reason: `The stream did not start within ${callTimeoutMs} ms.`,
    });
  }

  return {
    run,
    stream,
    get queueLength() {
      return settlements.length;
    },
    drain: () => settlements.drain(),
    parked: async () => (await options.store.list()).filter((entry) => entry.parked !== undefined),
    idle: () => settlements.idle(),
  };
}
