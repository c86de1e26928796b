import { fail, ok, type Result } from "../result.ts";
import { isRecord } from "../rules/problems.ts";
import { countCharacters, truncateToWords } from "../rules/text.ts";
import { tokens } from "../money/index.ts";
import { makeCounts, totalTokens, type UsageCounts } from "../usage/counts.ts";
import { estimateCall } from "../usage/estimate.ts";
import { type ReadUsage, readReport, readUsage } from "../usage/response.ts";
import { lengthOfOutput } from "../usage/output.ts";
import { readUsageStream } from "../usage/stream.ts";
import { batchCalls } from "./batching.ts";
import { ask, reasonOf, within } from "./rpc.ts";
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

/** A text as PostgreSQL can keep it: without NUL and halves of pairs, and no longer than so many characters. */
const storable = (text: string, longest: number): string =>
  text.slice(0, longest).toWellFormed().replaceAll("\0", "\ufffd");

/** Codes of Node's network errors that come before anything was sent. */
const neverSent: ReadonlySet<unknown> = new Set([
  "ECONNREFUSED",
  "ENOTFOUND",
  "EAI_AGAIN",
  "CERT_HAS_EXPIRED",
]);

/** Whether a provider certainly did no work: it answered with a 4xx, or was never reached. */
function wasRefused(cause: unknown): boolean {
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
function wasCutOff(cause: unknown): boolean {
  for (let error = cause, depth = 0; isRecord(error) && depth < 5; error = error["cause"], depth++) {
    const status = Number(error["status"] ?? error["statusCode"]);
    if (status === 408 || status === 499 || status === 504 || status === 524) return true;
    if (cutOffNames.has(error["name"]) || cutOffCodes.test(String(error["code"]))) return true;
    if (error instanceof Error && cutOffNames.has(error.constructor.name)) return true;
  }
  return false;
}

/** Stands between a backend and its AI provider: no call without a decision, no call without a settlement. Counts are settlements. */
export interface Guard {
  /**
   * Authorises, makes the call, settles what it used. The value's tokens are read by `readUsage` unless told otherwise;
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
  /** Resolves when no settlement is on its way or waiting: for a graceful stop. Calls still running are not waited for. */
  idle(): Promise<void>;
}

interface Admission {
  /** null: nobody could be asked, and the plan lets calls through. */
  readonly answer: AuthorizeAnswer | null;
  readonly args: Readonly<Record<string, unknown>>;
  /** What the call is charged, before any factor, where nobody can tell what it used. */
  readonly expected_tokens: number;
  /** The estimate is the learner's: it tells nothing of how wrong the others are. */
  readonly is_learnt: boolean;
  /** The key is the caller's, so others may come under it. */
  readonly is_repeatable: boolean;
}

const rememberedUsers = 10_000;
const maximalDoubtfulReleases = 1_000;
const timedOut = Symbol("timed out");

function isAnswer(value: unknown): value is AuthorizeAnswer {
  return (
    isRecord(value) &&
    (value["decision"] === "allow" || value["decision"] === "warn" || value["decision"] === "block") &&
    typeof value["http_status"] === "number" &&
    (value["decision"] === "block" ||
      (typeof value["model"] === "string" &&
        Number.isSafeInteger(value["reserved_tokens"]) &&
        Number.isSafeInteger(value["estimated_tokens"] ?? 0)))
  );
}

/**
 * Makes a guard. It keeps no state that matters outside the given store. Throws nothing itself: a stream that breaks
 * throws to its reader.
 */
export function createGuard(options: GuardOptions): Guard {
  /** The backend's own functions may throw or reject; a guarded call, or the process, must not end for that. */
  function safely<R>(run: () => R): R | undefined {
    try {
      const answer = run();
      void Promise.resolve(answer).catch(() => undefined);
      return answer;
    } catch {
      return undefined;
    }
  }
  const report = (problem: GuardProblem): void => safely(() => options.onProblem?.(problem));
  const batching = { ...options, client: batchCalls(options.client, options, options.batch) };
  const settlements = keepSettlements(batching, report);
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
    const { p_message: _, ...callArgs } = admission.args;
    const { p_task_type: task, p_model: model } = callArgs;
    const id = options.newId();
    // Only what a provider counted to the end is worth learning from.
    if (metadata["usage_shape"] !== undefined)
      safely(() =>
        options.learner?.learn({
          task_type: typeof task === "string" ? task : null,
          model: String(model),
          expected: admission.answer && !admission.is_learnt ? admission.expected_tokens : null,
          used: totalTokens(usage),
        }),
      );
    return settlements.submit({
      id,
      request_id: requestId,
      function: "settle_usage",
      args: {
        p_request_id: requestId,
        p_input_tokens: usage.input_tokens,
        p_output_tokens: usage.output_tokens,
        p_metadata: {
          ...(usage.cached_input_tokens > 0 ? { cached_input_tokens: usage.cached_input_tokens } : {}),
          ...(usage.cache_write_tokens > 0 ? { cache_write_tokens: usage.cache_write_tokens } : {}),
          ...(usage.cache_write_1h_tokens ? { cache_write_1h_tokens: usage.cache_write_1h_tokens } : {}),
          ...(usage.reasoning_tokens > 0 ? { reasoning_tokens: usage.reasoning_tokens } : {}),
          // Two uses under one key are two also where they used the same.
          ...(admission.is_repeatable ? { use_id: id } : {}),
          ...metadata,
        },
      },
      queued_at_ms: options.now(),
      // The message is not kept, not even while the database is away.
      call_args: callArgs,
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
      id: options.newId(),
      request_id: requestId,
      function: "release_usage",
      args: { p_request_id: requestId, p_reason: storable(reason, 500) },
      queued_at_ms: options.now(),
    });
  }

  async function admit(requestId: string, request: GuardRequest): Promise<Result<Admission, GuardFailure>> {
    for (const [name, least] of [
      ["estimated_tokens", 1],
      ["input_tokens", 0],
    ] as const) {
      const count = request[name] ?? least;
      if (!Number.isSafeInteger(count) || count < least)
        return fail({
          kind: "misuse",
          http_status: 400,
          reason: `invalid_argument: ${name} is a whole number of tokens from ${least} up to 2^53 - 1, not ${count}`,
        });
    }
    // What a user sends need not be what its type says.
    const message: unknown = request.message ?? "";
    if (typeof message !== "string")
      return fail({
        kind: "misuse",
        http_status: 400,
        reason: `invalid_argument: message is a text, not of type ${typeof message}`,
      });
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
    const isRepeatable = request.request_id !== undefined;
    const learnt =
      request.estimated_tokens === undefined && !isRepeatable
        ? safely(() => options.learner?.estimate(request.task ?? null, request.model))
        : null;
    if (learnt) args["p_estimated_tokens"] = Math.max(1, learnt.tokens);
    const admission = { args, is_learnt: Boolean(learnt), is_repeatable: isRepeatable };
    const asked = await ask(batching, "authorize_usage", args, options.rpcRetries, request.signal);
    if (request.signal?.aborted) {
      const holds = asked.ok
        ? isAnswer(asked.value) && asked.value.decision !== "block"
        : asked.error.kind === "unknown";
      if (holds) void release(requestId, "the caller left", null);
      return fail({ kind: "aborted", http_status: 499, reason: "The caller left before the call was made." });
    }
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
      // What is held has a rule's factor in it already, which settling would put in once more.
      return ok({
        ...admission,
        answer,
        expected_tokens: answer.estimated_tokens ?? answer.reserved_tokens,
      });
    }
    if (!asked.ok && asked.error.kind === "refused")
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
      const known = request.estimated_tokens ?? learnt?.tokens ?? null;
      const estimate = estimateCall({ estimated_tokens: known, message: request.message ?? null }, {});
      return ok({ ...admission, answer: null, expected_tokens: estimate.tokens });
    }
    // The question may have been heard, its answer lost: give back what it may hold.
    if (asked.ok || asked.error.kind !== "unasked")
      void release(requestId, "no answer to authorize_usage", null);
    return fail({ kind: "unavailable", http_status: 503, reason: why });
  }

  function contextOf(
    requestId: string,
    request: GuardRequest,
    admission: Admission,
  ): { context: CallContext; abort: () => void; forgetSignal: () => void } {
    const handlers: (() => void)[] = [];
    let isAborted = false;
    const words = admission.answer?.truncate_to_words ?? null;
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
        model: admission.answer?.model ?? request.model,
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

  /** The counts of a value, and never an exception: the reader may be the caller's own. */
  function countsOf<T>(
    value: T,
    read: NonNullable<CallOptions<T>["readUsage"]>,
  ): Result<ReadUsage, { readonly message: string }> {
    try {
      const usage = read(value);
      if (!usage.ok) return fail({ message: usage.error.message });
      const { counts } = usage.value;
      const checked = makeCounts({
        input: counts.input_tokens,
        output: counts.output_tokens,
        cached: counts.cached_input_tokens,
        cacheWrite: counts.cache_write_tokens,
        cacheWrite1h: counts.cache_write_1h_tokens ?? 0,
        reasoning: counts.reasoning_tokens,
      });
      return checked.ok ? ok({ ...usage.value, counts: checked.value }) : checked;
    } catch (error) {
      return fail({ message: reasonOf(error) });
    }
  }

  const described = ({ shape, model, by_other_models: others }: ReadUsage): Record<string, unknown> => ({
    usage_shape: shape,
    ...(model ? { provider_model: storable(model, 200) } : {}),
    ...(others
      ? {
          by_other_models: others.slice(0, 20).map((other) => ({
            model: storable(other.model, 200),
            ...other.counts,
          })),
        }
      : {}),
  });

  const expectedInput = (request: GuardRequest): number =>
    request.input_tokens ?? Math.ceil(countCharacters(request.message ?? "") / 4);

  function settleValue<T>(
    requestId: string,
    request: GuardRequest,
    value: T,
    admission: Admission,
    callOptions: CallOptions<T> | undefined,
  ): Promise<SettlementOutcome> {
    const usage = countsOf(value, callOptions?.readUsage ?? readUsage);
    if (usage.ok) return settle(requestId, usage.value.counts, described(usage.value), admission);
    report({ kind: "usage_unknown", request_id: requestId, message: usage.error.message });
    const reported = readReport(value);
    const read = reported.ok ? reported.value.counts : null;
    const input = (read?.input_tokens ?? 0) || expectedInput(request);
    const output = Math.ceil(lengthOfOutput(value) / 4);
    if (input + output <= admission.expected_tokens)
      return settleUnknown(requestId, usage.error.message, admission);
    // What is there to see is more than was expected.
    const metadata = { usage_unknown: storable(usage.error.message, 200), estimated: true };
    return settleEstimate(requestId, input, output, read, metadata, admission);
  }

  /**
   * What threw is charged where it tells its usage: the provider had answered before. Else its tokens are given back,
   * and said unless the provider plainly refused the call: it may have worked, and will be on its bill.
   */
  function endFailed(requestId: string, cause: unknown, what: string, admission: Admission): void {
    const told = countsOf(cause, readUsage);
    if (told.ok) {
      void settle(requestId, told.value.counts, { call_failed: storable(reasonOf(cause), 200) }, admission);
      return;
    }
    const isRefused = wasRefused(cause);
    if (!isRefused && wasCutOff(cause)) {
      void endUnsure(requestId, what, cause, admission);
      return;
    }
    if (!isRefused)
      report({
        kind: "released_unsure",
        request_id: requestId,
        message: `${what}, and its tokens were given back: the provider may have worked. ${reasonOf(cause)}`,
      });
    void release(requestId, `${what}: ${reasonOf(cause)}`, admission);
  }

  /** Ends a call that was cut off by the setting, and says so: it stays held until that is known. */
  function endUnsure(
    requestId: string,
    what: string,
    cause: unknown,
    admission: Admission,
  ): Promise<SettlementOutcome> {
    const reason = cause === undefined ? what : `${what}: ${reasonOf(cause)}`;
    const setting = options.unsure ?? "estimate";
    const giveBack = (why: string): Promise<SettlementOutcome> => {
      report({ kind: "released_unsure", request_id: requestId, message: `${reason}. ${why}` });
      return release(requestId, reason, admission);
    };
    const charge = (): Promise<SettlementOutcome> => {
      const message = `${reason}. Its provider may have worked: what was expected of it is charged.`;
      report({ kind: "settled_unsure", request_id: requestId, message });
      return settleUnknown(requestId, reason, admission);
    };
    if (setting === "release") return giveBack("Its tokens were given back: the provider may have worked.");
    if (setting === "estimate") return charge();
    const call = {
      request_id: requestId,
      user: String(admission.args["p_user_id"]),
      model: admission.answer?.model ?? String(admission.args["p_model"]),
      reason,
      cause,
    };
    const looking = (async () => setting(call))();
    const found = within(looking, options.callTimeoutMs ?? 300_000, options.timer, undefined).then(
      (record) => {
        if (record === null) return giveBack("Its provider has no record of it: its tokens were given back.");
        const told = countsOf(record, readUsage);
        if (!told.ok) return charge();
        const metadata = { ...described(told.value), by_record: true, call_failed: storable(reason, 200) };
        return settle(requestId, told.value.counts, metadata, admission);
      },
      charge,
    );
    safely(() => options.waitUntil?.(found));
    return found;
  }

  /** Charges what was expected of a call whose usage nobody can tell. */
  function settleUnknown(requestId: string, why: string, admission: Admission): Promise<SettlementOutcome> {
    const metadata = { usage_unknown: storable(why, 200), estimated: true };
    return settleEstimate(requestId, admission.expected_tokens, 0, null, metadata, admission);
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
    const { context, abort, forgetSignal } = contextOf(requestId, request, admission);
    const pending = (async () => call(context))();
    pending.then(forgetSignal, forgetSignal);
    try {
      const value = await within(pending, options.callTimeoutMs ?? 300_000, options.timer, timedOut);
      if (value !== timedOut)
        return ok({
          value,
          request_id: requestId,
          answer: admission.answer,
          settlement: settleValue(requestId, request, value, admission, callOptions),
        });
    } catch (cause) {
      endFailed(requestId, cause, "call failed", admission);
      return fail({ kind: "call_failed", http_status: 502, reason: reasonOf(cause), cause });
    }
    // What a late answer used is charged when it comes. One that does not come in as long again ends as unsure.
    const late = within(pending, options.callTimeoutMs ?? 300_000, options.timer, timedOut).then(
      (value) =>
        value === timedOut
          ? endUnsure(requestId, "the call never ended", undefined, admission)
          : settleValue(requestId, request, value, admission, callOptions),
      (cause: unknown) => endFailed(requestId, cause, "call failed after its time-out", admission),
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
      request.signal?.removeEventListener("abort", leaveEarly);
      if (broken === null) {
        const result = usage.result();
        if (result.ok) {
          settled(settle(requestId, result.value.counts, described(result.value), admission));
          return;
        }
        report({ kind: "usage_unknown", request_id: requestId, message: result.error.message });
      } else abort();
      const partial = usage.partial();
      const spoken = Math.ceil(partial.text_since_report / 4);
      const reported = partial.reported?.counts ?? null;
      if (partial.chunks === 0) {
        settled(
          broken === null
            ? release(requestId, "the stream was empty", admission)
            : endUnsure(
                requestId,
                `the stream broke before its first chunk: ${broken}`,
                undefined,
                admission,
              ),
        );
        return;
      }
      if (broken === null && reported === null && spoken === 0) {
        settled(settleUnknown(requestId, "the stream ended without usage or text", admission));
        return;
      }
      const metadata =
        broken === null
          ? { usage_unknown: "stream without usage" }
          : { stream_broken: storable(broken, 200) };
      if (reported && spoken === 0) {
        settled(settle(requestId, reported, metadata, admission));
        return;
      }
      // A placeholder of zero is no count.
      const input = (reported?.input_tokens ?? 0) || expectedInput(request);
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
      void safely(() => {
        // Also a stream that nobody has begun to read holds its connection.
        iterator ??= source[Symbol.asyncIterator]();
        return iterator.return?.();
      });
    }
    function leaveEarly(): void {
      end("the caller left");
      leave();
    }
    request.signal?.addEventListener("abort", leaveEarly);
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
          // The reader has left while this chunk was on its way.
          if (ended) return { done: true, value: undefined };
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
          if (ended) return { done: true, value: undefined };
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
    if (request.signal?.aborted) leaveEarly();
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
    const { context, abort, forgetSignal } = contextOf(requestId, request, admission);
    const pending = (async () => call(context))();
    pending.then(forgetSignal, forgetSignal);
    try {
      const source = await within(pending, options.callTimeoutMs ?? 300_000, options.timer, timedOut);
      if (source !== timedOut) return ok(passOn(requestId, request, source, admission, abort));
    } catch (cause) {
      endFailed(requestId, cause, "call failed", admission);
      return fail({ kind: "call_failed", http_status: 502, reason: reasonOf(cause), cause });
    }
    abort();
    // A stream that starts after all is left at once.
    void pending.then((late) => late[Symbol.asyncIterator]().return?.()).catch(() => undefined);
    void endUnsure(requestId, "the stream did not start in time", undefined, admission);
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
      ...(answer?.shortfall ? { shortfall: answer.shortfall } : {}),
      ...(answer?.upgrade ? { upgrade: answer.upgrade } : {}),
      ...(answer?.buy_url ? { buy_url: answer.buy_url } : {}),
      ...(answer?.balance ? { balance: answer.balance } : {}),
    },
  };
}
