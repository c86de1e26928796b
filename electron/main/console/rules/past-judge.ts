/** Reads a project's past calls page by page, and has them judged in a thread of its own. One judgement at a time. */
import { Worker } from "node:worker_threads";
import type { Failure } from "../../../../shared/contract/index.ts";
import { isReplayEvent, type ReplayEvent } from "../../../../shared/governance/index.ts";
import { redact } from "../../backend/redact.ts";
import { usageEventPages } from "../../backend/usage-events.ts";
import type { ChosenProject } from "../connection/link.ts";
import type { Log } from "../dispatch.ts";
import type { FromReplay, JudgeJob, ToReplay } from "./replay-messages.ts";

interface PastJudgeOptions {
  /** The thread's entry where the program is bundled. */
  readonly workerUrl: URL | null;
  readonly log: Log;
}

/** What is judged, and who gets its progress. */
export interface Judgement {
  /** Its calls are judged. */
  readonly project: ChosenProject;
  readonly since: string;
  readonly until: string;
  readonly job: JudgeJob;
  readonly onProgress: (events: number, progress: number | null) => void;
}

export type Judged =
  | { readonly is: "done"; readonly events: number; readonly result: Extract<FromReplay, { type: "done" }> }
  | { readonly is: "failed"; readonly failure: Failure }
  | { readonly is: "cancelled" };

const mostAttempts = 6;
/** Above this the thread does not keep what it has read. */
const mostKept = 150_000;

/** A thread with the past that it has read; other drafts over the same past are judged by it again. */
interface Reader {
  readonly key: string;
  readonly worker: Worker;
  /** All of the past is in the thread. */
  isWhole: boolean;
  onMessage: (message: FromReplay) => void;
  onGone: (error: Error | null) => void;
}

interface Bench extends PastJudgeOptions {
  reader: Reader | null;
  /** Stops the judgement under way. */
  stop: () => void;
}

export type PastJudge = ReturnType<typeof createPastJudge>;

export function createPastJudge(options: PastJudgeOptions) {
  const bench: Bench = { ...options, reader: null, stop: () => {} };
  return {
    /** Judges; the judgement before it, if it is still under way, is cancelled. */
    judge: (judgement: Judgement): Promise<Judged> => judge(bench, judgement),
    /** Cancels what is under way. */
    cancel: (): void => bench.stop(),
    close(): void {
      bench.stop();
      drop(bench);
    },
  };
}

function drop(bench: Bench): void {
  const { reader } = bench;
  bench.reader = null;
  void reader?.worker.terminate();
  reader?.onGone(null);
}

function openReader(bench: Bench, key: string): Reader {
  drop(bench);
  const worker = new Worker(bench.workerUrl ?? new URL("./replay-worker.ts", import.meta.url));
  const opened: Reader = { key, worker, isWhole: false, onMessage: () => {}, onGone: () => {} };
  worker.on("message", (message: FromReplay) => opened.onMessage(message));
  worker.on("error", (error) => {
    bench.log(redact(`error in a replay: ${error.stack ?? error.message}`));
    if (bench.reader === opened) bench.reader = null;
    opened.onGone(error);
  });
  worker.unref();
  bench.reader = opened;
  return opened;
}

/** The calls of a time, page by page; returns why it ended before its end, or null. */
async function* readEvents(
  { project, since, until }: Judgement,
  isCancelled: () => boolean,
): AsyncGenerator<ReplayEvent[], Failure | null> {
  const pages = usageEventPages(project, { since, mostAttempts, isCancelled });
  for (;;) {
    const next = await pages.next();
    if (next.done) return next.value;
    const within = next.value.filter(
      (event): event is ReplayEvent => isReplayEvent(event) && Date.parse(event.at) < Date.parse(until),
    );
    yield within;
    if (next.value.length > 0 && within.length === 0) return null;
  }
}

async function judge(bench: Bench, judgement: Judgement): Promise<Judged> {
  bench.stop();
  let isCancelled = false;
  bench.stop = (): void => {
    isCancelled = true;
    drop(bench);
  };
  const key = `${judgement.project.profileId} ${judgement.since} ${judgement.until}`;
  const isThere = bench.reader?.key === key && bench.reader.isWhole;
  const reader = isThere && bench.reader ? bench.reader : openReader(bench, key);
  const ended = followThread(reader);
  reader.worker.postMessage({ type: "judge", job: judgement.job } satisfies ToReplay);
  let events = 0;
  if (!isThere) {
    const read = await feed(reader, judgement, ended, () => isCancelled);
    if (isCancelled) return { is: "cancelled" };
    if (read.failure) {
      drop(bench);
      return { is: "failed", failure: read.failure };
    }
    events = read.events;
    reader.isWhole = events < mostKept;
  }
  reader.worker.postMessage({ type: "end" } satisfies ToReplay);
  const result = await ended.done;
  if (isCancelled) return { is: "cancelled" };
  bench.stop = () => {};
  return result instanceof Error
    ? { is: "failed", failure: crashed(result) }
    : { is: "done", events, result };
}

/** What a thread says of the judgement that begins now. */
interface Ended {
  readonly done: Promise<Extract<FromReplay, { type: "done" }> | Error>;
  /** Resolves when the thread has judged a page, or is gone. */
  readonly nextJudged: () => Promise<void>;
}

function followThread(reader: Reader): Ended {
  let onJudged: () => void = () => {};
  let onDone: (result: Extract<FromReplay, { type: "done" }> | Error) => void = () => {};
  const done = new Promise<Extract<FromReplay, { type: "done" }> | Error>((resolve) => {
    onDone = resolve;
  });
  reader.onGone = (error) => {
    onDone(error ?? new Error("The thread was ended."));
    onJudged();
  };
  reader.onMessage = (message) => {
    if (message.type === "done") onDone(message);
    else onJudged();
  };
  return {
    done,
    nextJudged: () =>
      new Promise<void>((resolve) => {
        onJudged = resolve;
      }),
  };
}

/** Sends the past to the thread: one page is judged while the next is read, and no more wait. */
async function feed(
  reader: Reader,
  judgement: Judgement,
  ended: Ended,
  isCancelled: () => boolean,
): Promise<{ readonly events: number; readonly failure: Failure | null }> {
  const { since, until, onProgress } = judgement;
  const spanMs = Math.max(1, Date.parse(until) - Date.parse(since));
  const pages = readEvents(judgement, isCancelled);
  let events = 0;
  let reading = pages.next();
  for (;;) {
    const next = await reading;
    if (isCancelled()) return { events, failure: null };
    if (next.done) return { events, failure: next.value };
    const judged = ended.nextJudged();
    reader.worker.postMessage({ type: "events", events: next.value } satisfies ToReplay);
    events += next.value.length;
    reading = pages.next();
    await judged;
    if (isCancelled()) return { events, failure: null };
    const last = next.value.at(-1);
    onProgress(events, last ? Math.min(1, (Date.parse(last.at) - Date.parse(since)) / spanMs) : null);
  }
}

export const crashed = (error: Error): Failure => ({
  code: "replay_failed",
  message: "The replay ended before it was done.",
  advice: "Try again, perhaps over a shorter time.",
  details: redact(error.message),
});
