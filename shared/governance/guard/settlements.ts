import { fail, type Result } from "../result.ts";
import { isRecord } from "../rules/problems.ts";
import { ask, pause, reasonOf, type RpcFailure, within } from "./rpc.ts";
import type {
  BatchingClient,
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
   * Tries everything that waits, oldest first, until several in a row cannot be sent; goes on trying later by itself.
   * Rejects when the store cannot be read, after what is in memory was tried.
   */
  drain(): Promise<{ readonly sent: number; readonly waiting: number; readonly parked: number }>;
  /** Settlements that wait, by this process's knowledge; `drain` looks at the store. */
  readonly length: number;
  /** Resolves when nothing is being sent. */
  idle(): Promise<void>;
}

const longestPauseMs = 60_000;
/** One that cannot be sent must not keep the others waiting; many in a row are a database that is away. */
const failuresInARow = 3;
/** What is owed is sent so many at a time, once the first few have shown that the database is there. */
const sentAtOnce = 256;
const hung = Symbol("hung");

/** Makes the keeper of a guard's settlements, over its store. Its `drain` rejects when the store cannot be read. */
export function keepSettlements(
  options: GuardOptions & { readonly client: BatchingClient },
  report: (problem: GuardProblem) => void,
): Settlements {
  /** What waits, by id: the entry itself where the store does not have it. */
  const waiting = new Map<string, QueuedSettlement | null>();
  const running = new Set<Promise<unknown>>();
  let retryLoop: Promise<void> | null = null;

  const track = <T>(promise: Promise<T>): Promise<T> => {
    running.add(promise);
    const forget = (): void => void running.delete(promise);
    promise.then(forget, forget);
    return promise;
  };

  /** The store may hang as the database may: nothing waits for it longer than for an answer. */
  async function inTime<T>(promise: Promise<T>): Promise<T> {
    const answer = await within(promise, options.rpcTimeoutMs ?? 5_000, options.timer, hung);
    if (answer === hung) throw new Error("The store did not answer in time.");
    return answer;
  }

  const reportStore = (requestId: string, error: unknown): void =>
    report({ kind: "store_failed", request_id: requestId, message: reasonOf(error) });

  /** A store that fails must not lose the settlement: it is still sent, and kept, from memory. */
  async function store(requestId: string, write: () => Promise<void>): Promise<boolean> {
    try {
      await inTime(write());
      return true;
    } catch (error) {
      reportStore(requestId, error);
      return false;
    }
  }

  const keep = (entry: QueuedSettlement): Promise<boolean> =>
    store(entry.request_id, () => options.store.put(entry));

  async function park(entry: QueuedSettlement, reason: string): Promise<SettlementOutcome> {
    waiting.delete(entry.id);
    await keep({ ...entry, parked: reason });
    report({ kind: "settlement_parked", request_id: entry.request_id, message: reason });
    return { status: "parked", reason };
  }

  async function done(entry: QueuedSettlement, outcome: SettlementOutcome): Promise<SettlementOutcome> {
    waiting.delete(entry.id);
    await store(entry.request_id, () => options.store.remove(entry.id));
    return outcome;
  }

  /** Charges a call whose own key cannot take it: authorised now, under a key that can. It was used already, so it asks for as little as can be held. */
  async function chargeAs(
    requestId: string,
    entry: QueuedSettlement,
    callArgs: NonNullable<QueuedSettlement["call_args"]>,
    retries: number | undefined,
  ): Promise<Result<unknown, RpcFailure>> {
    const authorized = await ask(
      options,
      "authorize_usage",
      { ...callArgs, p_request_id: requestId, p_estimated_tokens: 1 },
      retries,
    );
    if (!authorized.ok && authorized.error.kind !== "refused") return authorized;
    const answer = authorized.ok && isRecord(authorized.value) ? authorized.value : {};
    if (answer["decision"] === "block")
      return fail({
        kind: "refused",
        http_status: 409,
        reason: String(answer["reason"]),
        message: "The call was made, and the database would have stopped it.",
      });
    const metadata = isRecord(entry.args["p_metadata"]) ? entry.args["p_metadata"] : {};
    // Not authorised under this key for another reason: then the settlement is refused as well, and says why.
    return ask(
      options,
      entry.function,
      requestId === entry.request_id
        ? entry.args
        : {
            ...entry.args,
            p_request_id: requestId,
            p_metadata: { ...metadata, repeat_of: entry.request_id },
          },
      retries,
    );
  }

  async function send(entry: QueuedSettlement, retries?: number): Promise<SettlementOutcome> {
    let answer = await ask(options, entry.function, entry.args, retries);
    if (!answer.ok && answer.error.kind === "refused" && entry.call_args) {
      const { reason } = answer.error;
      if (reason === "unknown_request")
        answer = await chargeAs(entry.request_id, entry, entry.call_args, retries);
      else if (reason === "already_released" || reason === "idempotency_conflict")
        answer = await chargeAs(entry.id, entry, entry.call_args, retries);
    }
    if (answer.ok) {
      const record = isRecord(answer.value) ? answer.value : {};
      const status = record["status"];
      // A gateway's empty page is no word of the database: supabase-js takes a 404 without a body for success.
      if (typeof status !== "string") {
        report({
          kind: "malformed_answer",
          request_id: entry.request_id,
          message: `The answer is not one that ${entry.function} gives.`,
        });
        return { status: "queued" };
      }
      if (status === "quarantined")
        report({
          kind: "settlement_quarantined",
          request_id: entry.request_id,
          message: "The settlement is beyond the ceiling and waits for a person.",
        });
      return done(entry, {
        status:
          status === "quarantined"
            ? "quarantined"
            : entry.function === "settle_usage"
              ? "settled"
              : "released",
        answer: record,
      });
    }
    // What is not set up is mended by a person: keep trying rather than lose what is owed.
    if (answer.error.kind !== "refused") return { status: "queued" };
    // Nothing was held under this key, or it has ended already: then there is nothing to give back.
    if (entry.function === "release_usage") return done(entry, { status: "released", answer: {} });
    return park(entry, `${answer.error.reason}: ${answer.error.message}`);
  }

  async function drain(): Promise<{ sent: number; waiting: number; parked: number }> {
    const before = [...waiting.keys()];
    const owed = new Map<string, QueuedSettlement>();
    let parked = 0;
    let unreadable: { readonly error: unknown } | null = null;
    try {
      for (const entry of await inTime(options.store.list()))
        if (entry.parked === undefined) owed.set(entry.id, entry);
        else parked++;
    } catch (error) {
      unreadable = { error };
    }
    for (const entry of waiting.values()) if (entry) owed.set(entry.id, entry);
    // What another process has sent meanwhile is in the store no more.
    if (!unreadable) for (const id of before) if (!owed.has(id)) waiting.delete(id);
    for (const id of owed.keys()) if (!waiting.has(id)) waiting.set(id, null);
    let sent = 0;
    let newlyParked = 0;
    let failures = 0;
    const entries = [...owed.values()];
    while (entries.length > 0 && failures < failuresInARow) {
      const outcomes = await Promise.all(
        entries.splice(0, sent + newlyParked > 0 ? sentAtOnce : failuresInARow).map(async (entry) => {
          if (!unreadable && waiting.get(entry.id) && (await keep(entry))) waiting.set(entry.id, null);
          return send(entry, 0);
        }),
      );
      for (const { status } of outcomes) {
        failures = status === "queued" ? failures + 1 : 0;
        if (status === "parked") newlyParked++;
        else if (status !== "queued") sent++;
      }
    }
    if (waiting.size > 0) retryLater();
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
    const isKept = await keep(entry);
    const outcome = await send(entry);
    if (outcome.status === "queued") {
      waiting.set(entry.id, isKept || (await keep(entry)) ? null : entry);
      retryLater();
    }
    return outcome;
  }

  return {
    submit: (entry) => {
      const promise = track(submit(entry));
      try {
        options.waitUntil?.(promise);
      } catch {
        // The runtime's own function: without it the settlement is sent all the same.
      }
      return promise;
    },
    drain: () => track(drain()),
    get length() {
      return waiting.size;
    },
    async idle() {
      while (running.size > 0) await Promise.allSettled(running);
    },
  };
}
