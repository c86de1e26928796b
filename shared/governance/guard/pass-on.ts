/** A provider's stream on its way to the reader, and its settlement when it ends, breaks or is left. */
import { readUsageStream } from "../usage/stream.ts";
import type { Admission } from "./call-context.ts";
import type { Charges } from "./charges.ts";
import { described, type Endings, expectedInput } from "./endings.ts";
import { reportedError } from "./failures.ts";
import { reasonOf, reasonToStop, within } from "./rpc.ts";
import { safely, storable } from "./safely.ts";
import type { Guarded, GuardOptions, GuardProblem, SettlementOutcome } from "./types.ts";

const timedOut = Symbol("timed out");

/** The parts of a guard that passing a stream on needs. */
interface PassOnOptions {
  readonly options: GuardOptions;
  readonly charges: Charges;
  readonly endings: Endings;
  readonly report: (problem: GuardProblem) => void;
}

/**
 * Charges what a stream used; `broken` is the reason why it did not come to its end, `providerError` an error that a chunk
 * carried.
 */
function settleStream(
  { charges, endings, report }: PassOnOptions,
  admission: Admission,
  usage: ReturnType<typeof readUsageStream>,
  broken: string | null,
  providerError: Error | null,
): Promise<SettlementOutcome> {
  const { settle, settleEstimate, settleUnknown, release } = charges;
  const { request_id: requestId, request } = admission;
  const result = broken === null ? usage.result() : null;
  if (result?.ok) return settle(admission, result.value.counts, described(result.value));
  const partial = usage.partial();
  if (result) {
    if (providerError && partial.reported === null && partial.text_length === 0)
      return endings.endFailed(admission, providerError, "the provider's stream reported an error");
    report({ kind: "usage_unknown", request_id: requestId, message: result.error.message });
  }
  const reported = partial.reported?.counts ?? partial.at_least ?? null;
  // A stream of an unknown shape is not free because it was left before its end.
  const unknown = broken !== null && reported === null ? (partial.unknown_text_length ?? 0) : 0;
  const spoken = Math.ceil((partial.text_since_report + unknown) / 4);
  if (partial.chunks === 0)
    return broken === null
      ? release(admission, "the stream was empty")
      : endings.endUnsure(admission, `the stream broke before its first chunk: ${broken}`, undefined);
  if (broken === null && reported === null && spoken === 0)
    return settleUnknown(admission, "the stream ended without usage or text");
  const metadata =
    broken === null ? { usage_unknown: "stream without usage" } : { stream_broken: storable(broken, 200) };
  // Reasoning that has not appeared in the output is in no count yet.
  const isCounted = partial.reported !== null && !partial.is_beginning && (reported?.output_tokens ?? 0) > 0;
  if (reported && isCounted && spoken === 0) return settle(admission, reported, metadata);
  // A placeholder of zero is no count.
  const input = (reported?.input_tokens ?? 0) || expectedInput(request);
  const output = (reported?.output_tokens ?? 0) + spoken;
  return settleEstimate(admission, { input, output, read: reported }, metadata);
}

/**
 * Passes a stream on as it comes and charges it at whichever end it takes. Throws to its
 * reader what the source throws, the signal's reason where the caller leaves, and an Error where the source falls silent
 * or nobody reads for too long.
 */
export function passOn<C>(
  parts: PassOnOptions,
  source: AsyncIterable<C>,
  admission: Admission,
  abort: () => void,
): Guarded<AsyncIterable<C>> {
  const { options } = parts;
  const { chunkTimeoutMs = 60_000 } = options;
  const { request_id: requestId, request } = admission;
  const usage = readUsageStream();
  let settled: (outcome: Promise<SettlementOutcome>) => void = () => undefined;
  const settlement = new Promise<SettlementOutcome>((resolve) => {
    settled = resolve;
  });
  let ended = false;
  let providerError: Error | null = null;
  /** What the reader gets who did not end the stream: without it a part would look like the whole. */
  let cut: { readonly error: unknown } | null = null;
  let stopWaiting: () => void = () => undefined;

  /** A reader that just stops, without leaving, must not leave what was used uncharged. */
  function waitForReader(): void {
    stopWaiting = options.timer(() => {
      cut = { error: new Error("The stream was given up: nobody had read it for too long.") };
      end("nobody read the stream any more");
      leave();
    }, options.callTimeoutMs ?? 300_000);
  }

  function end(broken: string | null): void {
    if (ended) return;
    ended = true;
    stopWaiting();
    request.signal?.removeEventListener("abort", leaveEarly);
    if (broken !== null) abort();
    settled(settleStream(parts, admission, usage, broken, providerError));
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
    cut = { error: reasonToStop(request.signal) };
    end("the caller left");
    leave();
  }
  function afterEnd(): IteratorReturnResult<undefined> {
    if (cut) throw cut.error;
    return { done: true, value: undefined };
  }
  request.signal?.addEventListener("abort", leaveEarly);
  // Not a generator: one that is left before its first chunk, or while it waits for one, could not settle.
  const value: AsyncIterableIterator<C> = {
    [Symbol.asyncIterator]: () => value,
    async next() {
      if (ended) return afterEnd();
      stopWaiting();
      try {
        iterator ??= source[Symbol.asyncIterator]();
        const step = await within(iterator.next(), chunkTimeoutMs, options.timer, timedOut, request.signal);
        // The reader has left while this chunk was on its way.
        if (ended) return afterEnd();
        if (step === timedOut) throw new Error(`The stream was silent for ${chunkTimeoutMs} ms.`);
        if (step.done) {
          end(null);
          return { done: true, value: undefined };
        }
        usage.push(step.value);
        providerError ??= reportedError(step.value);
        waitForReader();
        return { done: false, value: step.value };
      } catch (cause) {
        if (ended) return afterEnd();
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
