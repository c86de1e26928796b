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
  /** A batch of another kind went before it, as many more waited for that one. */
  wasPassedOver: boolean;
  isCancelled: boolean;
  readonly resolve: (reply: RpcReply) => void;
  readonly reject: (cause: unknown) => void;
}

/** Limits of a batch and of the whole queue: a count of calls, and bytes as JSON. */
interface QueueLimits {
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

  /**
   * Which function the next batch calls: the one of the oldest call that may go. Where at least twice as many (and eight)
   * wait for another, theirs goes first, once: a straggler must not take the place of a whole batch.
   */
  function nextName(accountsUnderWay: ReadonlySet<string>): string | undefined {
    let oldest: Call | undefined;
    const counts = new Map<string, number>();
    // What its account waits for first: calls of another kind behind that cannot go yet.
    const firstOf = new Map<string, string>();
    let counted = 0;
    for (const call of waiting) {
      if (accountsUnderWay.has(call.account)) continue;
      oldest ??= call;
      if (oldest.wasPassedOver || ++counted > mostCalls) break;
      const first = firstOf.get(call.account) ?? call.name;
      firstOf.set(call.account, first);
      if (call.name === first) counts.set(first, (counts.get(first) ?? 0) + 1);
    }
    if (!oldest || oldest.wasPassedOver) return oldest?.name;
    const own = counts.get(oldest.name) ?? 0;
    const [name, most] = [...counts].reduce((a, b) => (b[1] > a[1] ? b : a));
    if (most < Math.max(8, 2 * own)) return oldest.name;
    oldest.wasPassedOver = true;
    return name;
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

    /**
     * The oldest calls that may go together: up to their share, and beyond that only what is
     * of the same accounts, as that must wait for this batch anyway.
     */
    nextBatch(accountsUnderWay: ReadonlySet<string>, share: number): Call[] {
      const batch: Call[] = [];
      const itsAccounts = new Set<string>();
      const name = nextName(accountsUnderWay);
      const heldBack = new Set(accountsUnderWay);
      let bytes = 0;
      let most = mostCalls;
      for (const call of waiting) {
        if (heldBack.has(call.account) || (batch.length >= share && !itsAccounts.has(call.account))) continue;
        const isTooMuch = batch.length > 0 && (call.most <= batch.length || bytes + call.bytes > mostBytes);
        if (call.name !== name || isTooMuch) {
          // Those behind it of the same account wait as well.
          heldBack.add(call.account);
          continue;
        }
        batch.push(call);
        itsAccounts.add(call.account);
        bytes += call.bytes;
        most = Math.min(most, call.most);
        if (batch.length === most) break;
      }
      for (const call of batch) leave(call);
      return batch;
    },
  };
}
