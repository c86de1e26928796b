/** Calls that wait for the database, in the order of their arrival. */
import type { RpcReply } from "./types.ts";

/** A call that waits or is under way; `bytes` is its size as JSON, `most` a count of calls. */
export interface Call {
  readonly name: string;
  readonly args: Record<string, unknown>;
  /** Calls of one account keep their order: one of them is under way, or several in one batch. */
  readonly account: string;
  readonly bytes: number;
  /** Calls in its batch, with it: fewer once a batch with it had no answer, so that it fails alone if it is the cause. */
  most: number;
  isCancelled: boolean;
  readonly resolve: (reply: RpcReply) => void;
  readonly reject: (cause: unknown) => void;
}

/** Limits of a batch and of the whole queue: a count of calls, and bytes as JSON. */
export interface QueueLimits {
  readonly mostCalls: number;
  readonly mostBytes: number;
  readonly mostWaiting: number;
  readonly mostWaitingBytes: number;
}

/** A queue in the order of arrival that knows its size, and which calls may go together in the next batch. */
export function createQueue({ mostCalls, mostBytes, mostWaiting, mostWaitingBytes }: QueueLimits) {
  const waiting = new Set<Call>();
  let waitingBytes = 0;

  function leave(call: Call): boolean {
    const wasWaiting = waiting.delete(call);
    if (wasWaiting) waitingBytes -= call.bytes;
    return wasWaiting;
  }

  return {
    get size(): number {
      return waiting.size;
    },
    get bytes(): number {
      return waitingBytes;
    },
    /** One call alone may be larger than all may be together. */
    isFull: (more: number): boolean =>
      waiting.size >= mostWaiting || waitingBytes + more > Math.max(mostWaitingBytes, more),
    add(call: Call): void {
      waiting.add(call);
      waitingBytes += call.bytes;
    },
    leave,

    /** The oldest call that may go, and those behind it that may go with it. */
    nextBatch(accountsUnderWay: ReadonlySet<string>): Call[] {
      const batch: Call[] = [];
      const heldBack = new Set(accountsUnderWay);
      let bytes = 0;
      let most = mostCalls;
      for (const call of waiting) {
        if (heldBack.has(call.account)) continue;
        const [first] = batch;
        if (
          first &&
          (call.name !== first.name || call.most <= batch.length || bytes + call.bytes > mostBytes)
        ) {
          // Those behind it of the same account wait as well.
          heldBack.add(call.account);
          continue;
        }
        batch.push(call);
        bytes += call.bytes;
        most = Math.min(most, call.most);
        if (batch.length === most) break;
      }
      for (const call of batch) leave(call);
      return batch;
    },
  };
}
