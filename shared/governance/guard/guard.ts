import { fail, ok, type Result } from "../result.ts";
import { isRecord } from "../rules/problems.ts";
import { countCharacters, truncateToWords } from "../rules/text.ts";
import { tokens } from "../money/index.ts";
import { totalTokens, type UsageCounts } from "../usage/counts.ts";
import { type ReadUsage, readUsage } from "../usage/response.ts";
import { readUsageStream } from "../usage/stream.ts";
import { ask, within } from "./rpc.ts";
import { keepSettlements } from "./settlements.ts";
import type {
  AuthorizeAnswer,
  CallContext,
  CallOptions,
  Guarded,
  GuardFailure,
  GuardOptions,
  GuardProblem,
  GuardRequest,
  GuardResult,
  QueuedSettlement,
  SettlementOutcome,
} from "./types.ts";

/** Stands between a backend and its AI provider: no call without a decision, no call without a settlement. Counts are settlements. */
export interface Guard {
  /**
   * Authorises, makes the call, settles what it used. The value's tokens are read by `readUsage` unless told otherwise;
   * where they cannot be read, the tokens held are charged and the problem is reported. Never rejects.
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
  /** Sends what waits in the store; call it at start-up, for what an earlier process left. */
  drain(): Promise<{ readonly sent: number; readonly waiting: number; readonly parked: number }>;
  /** Settlements that a person must look at. */
  parked(): Promise<readonly QueuedSettlement[]>;
  /** Resolves when no settlement is on its way or waiting: for a graceful stop. Calls still running are not waited for. */
  idle(): Promise<void>;
}

type Admission =
  | { readonly answer: AuthorizeAnswer; readonly args: Readonly<Record<string, unknown>> }
  /** Nobody could be asked, and the plan lets calls through. */
  | { readonly answer: null; readonly args: Readonly<Record<string, unknown>> };

const rememberedUsers = 10_000;
const maximalDoubtfulReleases = 1_000;
const timedOut = Symbol("timed out");

function isAnswer(value: unknown): value is AuthorizeAnswer {
  return (
    isRecord(value) &&
    (value["decision"] === "allow" || value["decision"] === "warn" || value["decision"] === "block") &&
    typeof value["http_status"] === "number" &&
    (value["decision"] === "block" ||
      (typeof value["model"] === "string" && Number.isSafeInteger(value["reserved_tokens"])))
  );
}

/**
 * Makes a guard. It keeps no state that matters outside the given store. Throws nothing itself: a stream that breaks
 * throws to its reader.
 */
export function createGuard(options: GuardOptions): Guard {
  /** The backend's own functions may throw; a guarded call must not end for that. */
  function safely<R>(run: () => R): R | undefined {
    try {
      return run();
    } catch {
      return undefined;
    }
  }
  const report = (problem: GuardProblem): void => safely(() => options.onProblem?.(problem));
  const settlements = keepSettlements(options, report);
  const failModes = new Map<string, "closed" | "open">();

  function rememberFailMode(user: string, answer: AuthorizeAnswer): void {
    const mode = answer["fail_mode"];
    if (mode !== "open" && mode !== "closed") return;
    failModes.delete(user);
    failModes.set(user, mode);
    if (failModes.size > rememberedUsers) {
      const oldest = failModes.keys().next();
      if (!oldest.done) failModes.delete(oldest.value);
    }
  }

  function settle(
    requestId: string,
    usage: UsageCounts,
    metadata: Record<string, unknown>,
    admission: Admission,
  ): Promise<SettlementOutcome> {
    const { p_message: _, p_task_type: task, p_model: model, ...rest } = admission.args;
    const estimate = admission.answer?.["estimated_tokens"];
    // Only what a provider counted to the end is worth learning from.
    if (metadata["usage_shape"] !== undefined)
      options.learner?.learn({
        task_type: typeof task === "string" ? task : null,
        model: String(model),
        expected: typeof estimate === "number" ? estimate : null,
        used: totalTokens(usage),
      });
    return settlements.submit({
      request_id: requestId,
      function: "settle_usage",
      args: {
        p_request_id: requestId,
        p_input_tokens: usage.input_tokens,
        p_output_tokens: usage.output_tokens,
        p_metadata: {
          ...(usage.cached_input_tokens > 0 ? { cached_input_tokens: usage.cached_input_tokens } : {}),
          ...(usage.cache_write_tokens > 0 ? { cache_write_tokens: usage.cache_write_tokens } : {}),
          ...(usage.reasoning_tokens > 0 ? { reasoning_tokens: usage.reasoning_tokens } : {}),
          ...metadata,
        },
      },
      queued_at_ms: options.now(),
      // The message is not kept, not even while the database is away.
      call: {
        args: { ...rest, p_model: model, ...(task === undefined ? {} : { p_task_type: task }) },
        own_id: options.newId(),
      },
    });
  }

  /** Charges numbers that stand for usage nobody could read; what was read of it stays. */
  function settleEstimate(
    requestId: string,
    input: number,
    output: number,
    read: UsageCounts | null,
    metadata: Record<string, unknown>,
    admission: Admission,
  ): Promise<SettlementOutcome> {
    const none = tokens(0);
    const parts = read ?? { cached_input_tokens: none, cache_write_tokens: none, reasoning_tokens: none };
    return settle(
      requestId,
      { ...parts, input_tokens: tokens(input), output_tokens: tokens(output) },
      metadata,
      admission,
    );
  }

  function release(
    requestId: string,
    reason: string,
    admission: Admission | null,
  ): Promise<SettlementOutcome> {
    // Without a hold there is nothing to give back.
    if (admission && !admission.answer) return Promise.resolve({ status: "released", answer: {} });
    // A hold that may not even exist expires by itself: not worth a queue that grows all through an outage.
    if (!admission && settlements.length >= maximalDoubtfulReleases)
      return Promise.resolve({ status: "released", answer: {} });
    return settlements.submit({
      request_id: requestId,
      function: "release_usage",
      args: { p_request_id: requestId, p_reason: reason.slice(0, 500) },
      queued_at_ms: options.now(),
    });
  }

  async function admit(requestId: string, request: GuardRequest): Promise<Result<Admission, GuardFailure>> {
    const args: Record<string, unknown> = {
      p_request_id: requestId,
      p_user_id: request.user,
      p_model: request.model,
    };
    const given: readonly [string, unknown][] = [
      ["p_estimated_tokens", request.estimated_tokens],
      ["p_message", request.message],
      ["p_conversation_id", request.conversation],
      ["p_task_type", request.task],
      ["p_scope_id", request.scope],
      ["p_complexity", request.complexity],
    ];
    for (const [name, value] of given) if (value !== undefined) args[name] = value;
    if (request.estimated_tokens === undefined && request.request_id === undefined) {
      const learnt = options.learner?.estimate(request.task ?? null, request.model);
      if (learnt) args["p_estimated_tokens"] = Math.max(1, learnt.tokens);
    }
    const asked = await ask(options, "authorize_usage", args);
    if (asked.ok && isAnswer(asked.value)) {
      const answer = asked.value;
      rememberFailMode(request.user, answer);
      if (answer.decision === "block")
        return fail({
          kind: "blocked",
          http_status: answer.http_status,
          reason: answer.reason ?? "blocked",
          answer,
        });
      return ok({ answer, args });
    }
    if (
      !asked.ok &&
      asked.error.kind === "refused" &&
      asked.error.http_status !== 401 &&
      asked.error.http_status !== 403 &&
      !asked.error.reason.startsWith("PGRST")
    )
      return fail({
        kind: "misuse",
        http_status: asked.error.http_status,
        reason: `${asked.error.reason}: ${asked.error.message}`,
      });
    const why = asked.ok ? "The answer is not one that authorize_usage gives." : asked.error.message;
    if (asked.ok) report({ kind: "malformed_answer", request_id: requestId, message: why });
    const mode = safely(() => options.failMode?.(request.user)) ?? failModes.get(request.user) ?? "closed";
    if (mode === "open") {
      report({ kind: "ran_unauthorized", request_id: requestId, message: why });
      return ok({ answer: null, args });
    }
    // The question may have been heard, its answer lost: give back what it may hold.
    void release(requestId, "no answer to authorize_usage", null);
    return fail({ kind: "unavailable", http_status: 503, reason: why });
  }

  function contextOf(
    requestId: string,
    request: GuardRequest,
    admission: Admission,
  ): { context: CallContext; abort: () => void } {
    const handlers: (() => void)[] = [];
    const words = admission.answer?.truncate_to_words ?? null;
    return {
      context: {
        request_id: requestId,
        model: admission.answer?.model ?? request.model,
        message:
          request.message !== undefined && words !== null
            ? truncateToWords(request.message, words)
            : request.message,
        truncate_to_words: words,
        onAbort: (run) => void handlers.push(run),
      },
      abort() {
        for (const handler of handlers.splice(0)) safely(handler);
      },
    };
  }

  const reasonOf = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause));

  function settleValue<T>(
    requestId: string,
    value: T,
    admission: Admission,
    callOptions: CallOptions<T> | undefined,
  ): Promise<SettlementOutcome> {
    let usage: Result<ReadUsage, { message: string }>;
    try {
      usage = (callOptions?.readUsage ?? readUsage)(value);
    } catch (error) {
      usage = fail({ message: reasonOf(error) });
    }
    if (usage.ok)
      return settle(
        requestId,
        usage.value.counts,
        {
          usage_shape: usage.value.shape,
          ...(usage.value.model ? { provider_model: usage.value.model } : {}),
        },
        admission,
      );
    report({ kind: "usage_unknown", request_id: requestId, message: usage.error.message });
    return settleUnknown(requestId, usage.error.message, admission);
  }

  /** Charges what was held for a call whose usage nobody can tell. */
  function settleUnknown(requestId: string, why: string, admission: Admission): Promise<SettlementOutcome> {
    const held = admission.answer?.reserved_tokens ?? Number(admission.args["p_estimated_tokens"] ?? 0);
    return settleEstimate(requestId, held, 0, null, { usage_unknown: why.slice(0, 200) }, admission);
  }

  async function run<T>(
    request: GuardRequest,
    call: (context: CallContext) => Promise<T>,
    callOptions?: CallOptions<T>,
  ): Promise<GuardResult<T>> {
    const requestId = request.request_id ?? options.newId();
    const admitted = await admit(requestId, request);
    if (!admitted.ok) return admitted;
    const admission = admitted.value;
    const { context, abort } = contextOf(requestId, request, admission);
    let pending: Promise<T>;
    try {
      pending = call(context);
    } catch (cause) {
      pending = Promise.reject(cause instanceof Error ? cause : new Error(String(cause)));
    }
    try {
      const value = await within(pending, options.callTimeoutMs ?? 300_000, options.timer, timedOut);
      if (value !== timedOut)
        return ok({
          value,
          request_id: requestId,
          answer: admission.answer,
          settlement: settleValue(requestId, value, admission, callOptions),
        });
    } catch (cause) {
      void release(requestId, `call failed: ${reasonOf(cause)}`, admission);
      return fail({ kind: "call_failed", http_status: 502, reason: reasonOf(cause), cause });
    }
    // What a late answer used is charged when it comes. One that never comes leaves its hold to expire.
    const late = pending.then(
      (value) => settleValue(requestId, value, admission, callOptions),
      (cause: unknown) => release(requestId, `call failed after its time-out: ${reasonOf(cause)}`, admission),
    );
    safely(() => options.waitUntil?.(late));
    abort();
    return fail({
      kind: "call_timed_out",
      http_status: 504,
      reason: `The call took longer than ${options.callTimeoutMs ?? 300_000} ms.`,
    });
  }

  function passOn<C>(
    requestId: string,
    request: GuardRequest,
    source: AsyncIterable<C>,
    admission: Admission,
    abort: () => void,
  ): Guarded<AsyncIterable<C>> {
    const usage = readUsageStream();
    let settled: (outcome: Promise<SettlementOutcome>) => void = () => undefined;
    const settlement = new Promise<SettlementOutcome>((resolve) => {
      settled = resolve;
    });
    let ended = false;
    let isGivenUp = false;
    let stopWaiting: () => void = () => undefined;

    /** A reader that just stops, without leaving, must not leave what was used uncharged. */
    function waitForReader(): void {
      stopWaiting = options.timer(() => {
        isGivenUp = true;
        end("nobody read the stream any more");
        leave();
      }, options.callTimeoutMs ?? 300_000);
    }

    function end(broken: string | null): void {
      if (ended) return;
      ended = true;
      stopWaiting();
      if (broken === null) {
        const result = usage.result();
        if (result.ok) {
          const { counts, shape, model } = result.value;
          settled(
            settle(
              requestId,
              counts,
              { usage_shape: shape, ...(model ? { provider_model: model } : {}) },
              admission,
            ),
          );
          return;
        }
        report({ kind: "usage_unknown", request_id: requestId, message: result.error.message });
      } else abort();
      const partial = usage.partial();
      const spoken = Math.ceil(partial.text_since_report / 4);
      const reported = partial.reported?.counts ?? null;
      if (partial.chunks === 0) {
        settled(release(requestId, broken ?? "the stream was empty", admission));
        return;
      }
      if (broken === null && reported === null && spoken === 0) {
        settled(settleUnknown(requestId, "the stream ended without usage or text", admission));
        return;
      }
      const metadata =
        broken === null ? { usage_unknown: "stream without usage" } : { stream_broken: broken.slice(0, 200) };
      if (reported && spoken === 0) {
        settled(settle(requestId, reported, metadata, admission));
        return;
      }
      const input =
        reported?.input_tokens ??
        request.input_tokens ??
        Math.ceil(countCharacters(request.message ?? "") / 4);
      settled(
        settleEstimate(
          requestId,
          input,
          (reported?.output_tokens ?? 0) + spoken,
          reported,
          { ...metadata, estimated: true },
          admission,
        ),
      );
    }

    let iterator: AsyncIterator<C> | null = null;
    /** Not awaited: a provider that never answers must not hold up the reader. */
    function leave(): void {
      const left = iterator?.return?.();
      if (left) void Promise.resolve(left).catch(() => undefined);
    }
    // Not a generator: one that is left before its first chunk, or while it waits for one, could not settle.
    const value: AsyncIterableIterator<C> = {
      [Symbol.asyncIterator]: () => value,
      async next() {
        if (isGivenUp) throw new Error("The stream was given up: nobody had read it for too long.");
        if (ended) return { done: true, value: undefined };
        stopWaiting();
        try {
          iterator ??= source[Symbol.asyncIterator]();
          const step = await within(
            iterator.next(),
            options.chunkTimeoutMs ?? 60_000,
            options.timer,
            timedOut,
          );
          if (step === timedOut)
            throw new Error(`The stream was silent for ${options.chunkTimeoutMs ?? 60_000} ms.`);
          if (step.done) {
            end(null);
            return { done: true, value: undefined };
          }
          usage.push(step.value);
          waitForReader();
          return { done: false, value: step.value };
        } catch (cause) {
          end(reasonOf(cause));
          leave();
          throw cause;
        }
      },
      async return() {
        end("the reader left the stream");
        leave();
        return { done: true, value: undefined };
      },
    };

    waitForReader();
    return { value, request_id: requestId, answer: admission.answer, settlement };
  }

  async function stream<C>(
    request: GuardRequest,
    call: (context: CallContext) => Promise<AsyncIterable<C>>,
  ): Promise<GuardResult<AsyncIterable<C>>> {
    const requestId = request.request_id ?? options.newId();
    const admitted = await admit(requestId, request);
    if (!admitted.ok) return admitted;
    const admission = admitted.value;
    const { context, abort } = contextOf(requestId, request, admission);
    let pending: Promise<AsyncIterable<C>>;
    try {
      pending = call(context);
    } catch (cause) {
      pending = Promise.reject(cause instanceof Error ? cause : new Error(String(cause)));
    }
    try {
      const source = await within(pending, options.callTimeoutMs ?? 300_000, options.timer, timedOut);
      if (source !== timedOut) return ok(passOn(requestId, request, source, admission, abort));
    } catch (cause) {
      void release(requestId, `call failed: ${reasonOf(cause)}`, admission);
      return fail({ kind: "call_failed", http_status: 502, reason: reasonOf(cause), cause });
    }
    abort();
    // A stream that starts after all is left at once.
    void pending.then((late) => late[Symbol.asyncIterator]().return?.()).catch(() => undefined);
    void release(requestId, "the stream did not start in time", admission);
    return fail({
      kind: "call_timed_out",
      http_status: 504,
      reason: `The stream did not start within ${options.callTimeoutMs ?? 300_000} ms.`,
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

/** What to answer over HTTP for a call that was not made: status, Retry-After, and a body that says what to do. */
export function toHttp(failure: GuardFailure): {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Readonly<Record<string, unknown>>;
} {
  const answer = failure.kind === "blocked" ? failure.answer : null;
  const retryAfter = answer?.retry_after_seconds ?? (failure.kind === "unavailable" ? 5 : null);
  return {
    status: failure.http_status,
    headers: {
      "content-type": "application/json",
      ...(retryAfter === null ? {} : { "retry-after": String(retryAfter) }),
    },
    body: {
      error: failure.kind === "blocked" ? failure.reason : failure.kind,
      message:
        answer?.message ??
        (failure.kind === "misuse" ? failure.reason : "The service cannot answer now. Please try again."),
      ...(retryAfter === null ? {} : { retry_after_seconds: retryAfter }),
      ...(answer?.upgrade ? { upgrade: answer.upgrade } : {}),
      ...(answer?.balance ? { balance: answer.balance } : {}),
    },
  };
}
