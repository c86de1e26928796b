/**
 * One project being followed: reads what is new when a wake-up comes and at intervals all the same; sends what waits in
 * the outbox; knows whether the project can be reached.
 */
import { type ConnectionState, type Failure, isReached } from "../../../../shared/contract/index.ts";
import type { Result } from "../../../../shared/governance/result.ts";
import { isUnreachable } from "../../backend/failures.ts";
import type { Backend } from "../../backend/backend.ts";
import type { SignalTopic } from "../../backend/signals.ts";
import { askProject, missing, type ProjectAnswer } from "./project.ts";
import { followReplica, type ReplicaState } from "./replica-state.ts";

type SessionStatus = Exclude<ConnectionState["status"], "starting">;

interface SessionOptions {
  readonly backend: Backend;
  readonly migrations: readonly string[];
  /** Reads everything new; answers how much that was, once it has caught up. */
  readonly readNew: () => Promise<Result<number, Failure>>;
  /** Sends what waits; keeps what cannot be sent. */
  readonly sendPending: () => Promise<void>;
  readonly onSignal: (topic: SignalTopic) => void;
  readonly onStatus: (status: SessionStatus, failure: Failure | null) => void;
  readonly onProject: (answer: ProjectAnswer) => void;
  readonly onReplica: (replica: ReplicaState | null) => void;
}

export interface Session {
  readonly backend: Backend;
  /** Tries at once instead of at the next interval. */
  wake(): void;
  /** A call outside the loop met this failure. */
  reportFailure(failure: Failure): void;
  stop(): Promise<void>;
}

const pollMs = 10_000;
/** A read that takes longer is shown as catching up: what is on the screen may be old. */
const slowReadMs = 3_000;
const shortestRetryMs = 1_000;
const longestRetryMs = 30_000;
/**
 * Wake-ups come at most every few hundred milliseconds, so what happens right after one has none of its own: while
 * something comes, look again soon.
 */
const busyMs = 400;
/** Wake-ups closer together than this are read together. */
const gatherMs = 100;

export function startSession(options: SessionOptions): Session {
  const { backend } = options;
  let isStopped = false;
  let isWoken = false;
  let endWait: (() => void) | null = null;
  let status: SessionStatus | null = null;

  function become(next: SessionStatus, failure: Failure | null = null): void {
    if (isStopped || (next === status && failure === null)) return;
    status = next;
    options.onStatus(next, failure);
  }

  function wake(): void {
    isWoken = true;
    endWait?.();
  }

  function wait(ms: number): Promise<void> {
    if (isWoken || isStopped) return Promise.resolve();
    return new Promise((resolve) => {
      const end = (): void => {
        clearTimeout(timer);
        endWait = null;
        resolve();
      };
      const timer = setTimeout(end, ms);
      endWait = end;
    });
  }

  /** Null once the project answered and fits. */
  async function greet(): Promise<Failure | null> {
    const answer = await askProject(backend, options.migrations, { timeoutMs: 10_000 });
    if (!answer.ok) return answer.error;
    options.onProject(answer.value);
    const { missing_migrations: lacking } = answer.value;
    return lacking.length > 0 ? missing(lacking, null) : null;
  }

  async function read(): Promise<Result<number, Failure>> {
    await options.sendPending();
    return options.readNew();
  }

  /** Connects, then follows until something fails; answers what. */
  async function follow(): Promise<Failure | null> {
    if (status !== "offline" && status !== "refused") become("connecting");
    const refusal = await greet();
    if (refusal) return refusal;
    become("catching_up");
    const stopListening = backend.listen((topic) => {
      if (topic !== null && topic !== "feed") options.onSignal(topic);
      if (topic === null || topic === "feed") wake();
    });
    try {
      while (!isStopped) {
        isWoken = false;
        const slow = setTimeout(() => become("catching_up"), slowReadMs);
        const answer = await read().finally(() => clearTimeout(slow));
        if (!answer.ok) return answer.error;
        become("live");
        await wait(answer.value > 0 ? busyMs : pollMs);
        if (isWoken) await new Promise((resolve) => setTimeout(resolve, gatherMs));
      }
      return null;
    } finally {
      stopListening();
    }
  }

  async function run(): Promise<void> {
    let retryMs = shortestRetryMs;
    while (!isStopped) {
      // A wake-up from here on, while the project is asked in vain, means to ask again at once.
      isWoken = false;
      const failure = await follow();
      if (isStopped || !failure) return;
      if (isReached(status)) retryMs = shortestRetryMs;
      // A refusal is asked again too, rarely: someone may have applied the migrations.
      become(isUnreachable(failure) ? "offline" : "refused", failure);
      await wait(isUnreachable(failure) ? retryMs : longestRetryMs);
      retryMs = Math.min(retryMs * 2, longestRetryMs);
    }
  }
  const ended = run();
  const stopReplica = followReplica(backend, () => status !== "offline", options.onReplica);

  return {
    backend,
    wake,
    reportFailure(failure) {
      // The loop finds out for itself, now instead of at the next interval.
      if (isUnreachable(failure) && status === "live") wake();
    },
    async stop() {
      isStopped = true;
      stopReplica();
      endWait?.();
      await backend.close();
      await ended;
    },
  };
}
