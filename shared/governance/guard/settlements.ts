import { queueReports } from "./queue-reports.ts";
import { pause, reasonOf, within } from "./rpc.ts";
import { safely } from "./safely.ts";
import { type SendingOptions, sendSettlement } from "./settlement-sending.ts";
import type {
  GuardOptions,
  GuardProblem,
  QueuedSettlement,
  SettlementOutcome,
  SettlementStore,
} from "./types.ts";

/** A store in memory: for tests, and where losing what is queued at a crash is acceptable. */
export function memoryStore(): SettlementStore {
  const entries = new Map<string, QueuedSettlement>();
  return {
    put: async (entry) => void entries.set(entry.id, entry),
    remove: async (id) => void entries.delete(id),
    list: async () => [...entries.values()],
  };
}

/** Sends settlements, keeps those that could not be sent, and tries them again until the database has them. */
export interface Settlements {
  /** Writes the settlement down, then sends it. Never rejects. */
  submit(entry: QueuedSettlement): Promise<SettlementOutcome>;
  /**
   * Tries everything that waits, until several in a row cannot be sent; goes on trying later by itself. Oldest first,
   * but what could not be sent the last time goes last.
   * Rejects when the store cannot be read, after what is in memory was tried.
   */
  drain(): Promise<{ readonly sent: number; readonly waiting: number; readonly parked: number }>;
  /** Settlements that wait, by this process's knowledge; `drain` looks at the store. */
  readonly length: number;
  /** Keeps `idle` waiting, and the runtime awake, for what will be submitted. */
  waitFor<T>(promise: Promise<T>): Promise<T>;
  /** Resolves when nothing is being sent, or waited for. */
  idle(): Promise<void>;
}

const longestPauseMs = 60_000;
/** One that cannot be sent must not keep the others waiting; many in a row are a database that is away. */
const failuresInARow = 3;
/** What is owed is sent so many at a time, once the first few have shown that the database is there. */
const sentAtOnce = 256;
const hung = Symbol("hung");

/** The store, which may hang or fail as the database may. */
function guardStore(
  { store, rpcTimeoutMs = 5_000, timer }: GuardOptions,
  report: (problem: GuardProblem) => void,
) {
  /** Nothing waits for the store longer than for an answer. */
  async function inTime<T>(promise: Promise<T>): Promise<T> {
    const answer = await within(promise, rpcTimeoutMs, timer, hung);
    if (answer === hung) throw new Error("The store did not answer in time.");
    return answer;
  }

  const reportStore = (requestId: string, error: unknown): void =>
    report({ kind: "store_failed", request_id: requestId, message: reasonOf(error) });

  /** A store that fails must not lose the settlement: it is still sent, and kept, from memory. */
  async function write(requestId: string, run: () => Promise<void>): Promise<boolean> {
    try {
      await inTime(run());
      return true;
    } catch (error) {
      reportStore(requestId, error);
      return false;
    }
  }

  return {
    reportStore,
    list: () => inTime(store.list()),
    put: (entry: QueuedSettlement): Promise<boolean> => write(entry.request_id, () => store.put(entry)),
    remove: (entry: QueuedSettlement): Promise<boolean> =>
      write(entry.request_id, () => store.remove(entry.id)),
  };
}

/** Sends what is owed, in this order, until several in a row cannot be sent. */
async function sendInTurn(
  entries: QueuedSettlement[],
  send: (entry: QueuedSettlement) => Promise<SettlementOutcome>,
): Promise<{ sent: number; parked: number }> {
  let sent = 0;
  let parked = 0;
  let failures = 0;
  while (entries.length > 0 && failures < failuresInARow) {
    const outcomes = await Promise.all(
      entries.splice(0, sent + parked > 0 ? sentAtOnce : failuresInARow).map(send),
    );
    for (const { status } of outcomes) {
      failures = status === "queued" ? failures + 1 : 0;
      if (status === "parked") parked++;
      else if (status !== "queued") sent++;
    }
  }
  return { sent, parked };
}

/** What the store has, and what only memory has. What is on its way just now is not owed yet. */
function allOwed(
  kept: readonly QueuedSettlement[],
  waiting: ReadonlyMap<string, QueuedSettlement | null>,
): QueuedSettlement[] {
  const ids = new Set(kept.map((entry) => entry.id));
  return [
    ...kept.filter((entry) => entry.parked !== undefined || waiting.has(entry.id)),
    ...[...waiting.values()].filter((entry) => entry !== null && !ids.has(entry.id)),
  ].filter((entry) => entry !== null);
}

/** What is under way, for those who wait until nothing is. */
function keepTrack(options: Pick<GuardOptions, "waitUntil">) {
  const running = new Set<Promise<unknown>>();
  function track<T>(promise: Promise<T>): Promise<T> {
    running.add(promise);
    const forget = (): void => void running.delete(promise);
    promise.then(forget, forget);
    return promise;
  }
  function waitFor<T>(promise: Promise<T>): Promise<T> {
    // The runtime's own function: without it the settlement is sent all the same.
    safely(() => options.waitUntil?.(promise));
    return track(promise);
  }
  async function idle(): Promise<void> {
    while (running.size > 0) await Promise.allSettled(running);
  }
  return { track, waitFor, idle };
}

/** Makes the keeper of a guard's settlements, over its store. Its `drain` rejects when the store cannot be read. */
export function keepSettlements(
  options: SendingOptions,
  report: (problem: GuardProblem) => void,
): Settlements {
  /**
   * What waits, by id: the entry itself where the store does not have it. In the order of its turns: what could not be
   * sent goes to the end, for it must not keep the others waiting for ever.
   */
  const waiting = new Map<string, QueuedSettlement | null>();
  let retryLoop: Promise<void> | null = null;

  const { track, waitFor, idle } = keepTrack(options);
  const { reportStore, list, put, remove } = guardStore(options, report);

  const changed = queueReports(options, async () => allOwed(await list(), waiting));

  async function park(entry: QueuedSettlement, reason: string): Promise<SettlementOutcome> {
    // Where the store does not take it, it is owed as before: it will be refused, and parked, again.
    if (!(await put({ ...entry, parked: reason }))) return { status: "queued" };
    waiting.delete(entry.id);
    report({ kind: "settlement_parked", request_id: entry.request_id, message: reason });
    changed();
    return { status: "parked", reason };
  }

  async function done(entry: QueuedSettlement, outcome: SettlementOutcome): Promise<SettlementOutcome> {
    waiting.delete(entry.id);
    await remove(entry);
    return outcome;
  }

  async function send(entry: QueuedSettlement, retries?: number): Promise<SettlementOutcome> {
    const sent = await sendSettlement(options, report, entry, retries);
    if (sent.kind === "queued") return { status: "queued" };
    return sent.kind === "done" ? done(entry, sent.outcome) : park(entry, sent.reason);
  }

  async function drain(): Promise<{ sent: number; waiting: number; parked: number }> {
    const before = [...waiting.keys()];
    const owed = new Map<string, QueuedSettlement>();
    let parked = 0;
    let unreadable: { readonly error: unknown } | null = null;
    try {
      for (const entry of await list())
        if (entry.parked === undefined) owed.set(entry.id, entry);
        else parked++;
    } catch (error) {
      unreadable = { error };
    }
    for (const entry of waiting.values()) if (entry) owed.set(entry.id, entry);
    // What another process has sent meanwhile is in the store no more.
    if (!unreadable) for (const id of before) if (!owed.has(id)) waiting.delete(id);
    for (const id of owed.keys()) if (!waiting.has(id)) waiting.set(id, null);
    const inTurn = [...waiting.keys()].map((id) => owed.get(id)).filter((entry) => entry !== undefined);
    const { sent, parked: newlyParked } = await sendInTurn(inTurn, async (entry) => {
      if (!unreadable && waiting.get(entry.id) && (await put(entry))) waiting.set(entry.id, null);
      const outcome = await send(entry, 0);
      const kept = waiting.get(entry.id);
      if (outcome.status === "queued" && kept !== undefined) {
        waiting.delete(entry.id);
        waiting.set(entry.id, kept);
      }
      return outcome;
    });
    if (waiting.size > 0) retryLater();
    changed();
    if (unreadable) throw unreadable.error;
    return { sent, waiting: owed.size - sent - newlyParked, parked: parked + newlyParked };
  }

  /** One loop at a time, while something waits. */
  function retryLater(): void {
    retryLoop ??= track(
      (async () => {
        const firstMs = Math.max(1, options.retryDelayMs ?? 100);
        let delayMs = firstMs;
        while (waiting.size > 0) {
          await pause(delayMs, options.timer);
          delayMs = Math.min(longestPauseMs, delayMs * 2);
          try {
            const { sent } = await drain();
            if (sent > 0) delayMs = firstMs;
          } catch (error) {
            reportStore("", error);
          }
        }
        retryLoop = null;
      })(),
    );
  }

  async function submit(entry: QueuedSettlement): Promise<SettlementOutcome> {
    const isKept = await put(entry);
    const outcome = await send(entry);
    if (outcome.status === "queued") {
      waiting.set(entry.id, isKept || (await put(entry)) ? null : entry);
      changed();
      retryLater();
    }
    return outcome;
  }

  return {
    submit: (entry) => waitFor(submit(entry)),
    waitFor,
    drain: () => track(drain()),
    get length() {
      return waiting.size;
    },
    idle,
  };
}
