/** The thread that judges past calls. It keeps the calls it has read: more drafts over the same time are judged by it again. */
import { Worker } from "node:worker_threads";
import type { Failure } from "../../../../shared/contract/index.ts";
import type { ReplayEvent } from "../../../../shared/governance/index.ts";
import type { FromReplay, ReplayJob, ToReplay } from "./replay-messages.ts";

export type Judged = Extract<FromReplay, { type: "done" }>;

/** How a judging ended, with the calls that were read for it. */
export type Ending =
  | { readonly kind: "judged"; readonly result: Judged; readonly events: number }
  | { readonly kind: "cancelled" }
  | { readonly kind: "broken"; readonly error: Error }
  | { readonly kind: "unread"; readonly failure: Failure };

/** The past to be judged, where the thread has not read it yet. */
export interface Past {
  /** Answers why it ended early, or null at its end. */
  readonly pages: AsyncGenerator<readonly ReplayEvent[], Failure | null>;
  readonly isCancelled: () => boolean;
  /** A page was judged: all the calls so far, and the last one's moment. */
  readonly onPage: (events: number, lastAt: string | null) => void;
}

/** Above this the thread does not keep what it has read. */
const mostKept = 150_000;

export type ReplayThread = ReturnType<typeof openThread>;

/** `workerUrl`: the thread's entry where the program is bundled. `key`: which past it is for. */
export function openThread(key: string, workerUrl: URL | null, onError: (error: Error) => void) {
  const worker = new Worker(workerUrl ?? new URL("./replay-worker.ts", import.meta.url));
  let isWhole = false;
  let onMessage: (message: FromReplay) => void = () => {};
  let onBroken: (error: Error) => void = () => {};
  worker.on("message", (message: FromReplay) => onMessage(message));
  worker.on("error", (error) => {
    onError(error);
    onBroken(error);
  });
  worker.unref();
  const tell = (message: ToReplay): void => worker.postMessage(message);

  /** Null once all of it was judged, with the number of calls. */
  async function sendPages(past: Past, nextJudged: () => Promise<void>): Promise<Ending | number> {
    let events = 0;
    for (;;) {
      const next = await past.pages.next();
      if (past.isCancelled()) return { kind: "cancelled" };
      if (next.done) return next.value === null ? events : { kind: "unread", failure: next.value };
      // One page is judged while the next is read, and no more wait.
      const judged = nextJudged();
      tell({ type: "events", events: [...next.value] });
      events += next.value.length;
      await judged;
      past.onPage(events, next.value.at(-1)?.at ?? null);
    }
  }

  return {
    /** Whether this thread has all of that past. */
    has: (wanted: string): boolean => key === wanted && isWhole,

    async judge(job: ReplayJob, past: Past): Promise<Ending> {
      let pageJudged: () => void = () => {};
      const done = new Promise<Judged | Error>((resolve) => {
        onBroken = (error) => {
          resolve(error);
          pageJudged();
        };
        onMessage = (message) => (message.type === "done" ? resolve(message) : pageJudged());
      });
      tell({ type: "judge", job });
      let events = 0;
      if (!isWhole) {
        const sent = await sendPages(past, () => new Promise((resolve) => (pageJudged = resolve)));
        if (typeof sent !== "number") return sent;
        events = sent;
        isWhole = events < mostKept;
      }
      tell({ type: "end" });
      const result = await done;
      return result instanceof Error ? { kind: "broken", error: result } : { kind: "judged", result, events };
    },

    end: (): void => void worker.terminate(),
  };
}
