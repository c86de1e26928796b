import { fail, type Result } from "../result.ts";
import { isRecord } from "../rules/problems.ts";
import { ask, pause, type RpcFailure, within } from "./rpc.ts";
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
    put: async (entry) => void entries.set(entry.request_id, entry),
    remove: async (requestId) => void entries.delete(requestId),
    list: async () => [...entries.values()],
  };
}

/** Sends settlements, keeps those that could not be sent, and tries them again until the database has them. */
export interface Settlements {
  /** Writes the settlement down, then sends it. Never rejects. */
  submit(entry: QueuedSettlement): Promise<SettlementOutcome>;
  /** Tries everything that waits, oldest first, stopping at the first that still cannot be sent. */
  drain(): Promise<{ readonly sent: number; readonly waiting: number; readonly parked: number }>;
  /** Settlements that wait, by this process's knowledge; `drain` looks at the store. */
  readonly length: number;
  /** Resolves when nothing is being sent. */
  idle(): Promise<void>;
}

const longestPauseMs = 60_000;
const hung = Symbol("hung");

/** Makes the keeper of a guard's settlements, over its store. Its `drain` rejects when the store cannot be read. */
export function keepSettlements(options: GuardOptions, report: (problem: GuardProblem) => void): Settlements {
  const waiting = new Set<string>();
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

  /** A store that fails must not lose the settlement: it is still sent from memory. */
  async function store(requestId: string, write: () => Promise<void>): Promise<boolean> {
    try {
      await inTime(write());
      return true;
    } catch (error) {
      report({
        kind: "store_failed",
        request_id: requestId,
        message: error instanceof Error ? error.message : String(error),
      });
      return false;
    }
  }

  async function park(entry: QueuedSettlement, reason: string): Promise<SettlementOutcome> {
    waiting.delete(entry.request_id);
    await store(entry.request_id, () => options.store.put({ ...entry, parked: reason }));
    report({ kind: "settlement_parked", request_id: entry.request_id, message: reason });
    return { status: "parked", reason };
  }

  async function done(entry: QueuedSettlement, outcome: SettlementOutcome): Promise<SettlementOutcome> {
    waiting.delete(entry.request_id);
    await store(entry.request_id, () => options.store.remove(entry.request_id));
    return outcome;
  }

  /** Charges a call whose own key cannot take it: authorised now, under a key that can. It was used already, so it asks for as little as can be held. */
  async function chargeAs(
    requestId: string,
    entry: QueuedSettlement,
    call: NonNullable<QueuedSettlement["call"]>,
    retries: number | undefined,
  ): Promise<Result<unknown, RpcFailure>> {
    const authorized = await ask(
      options,
      "authorize_usage",
      { ...call.args, p_request_id: requestId, p_estimated_tokens: 1 },
      retries,
    );
    if (!authorized.ok && authorized.error.kind === "unknown") return authorized;
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
    if (!answer.ok && answer.error.kind === "refused" && entry.call) {
      const { reason } = answer.error;
      if (reason === "unknown_request") answer = await chargeAs(entry.request_id, entry, entry.call, retries);
      else if (reason === "already_released" || reason === "idempotency_conflict")
        answer = await chargeAs(entry.call.own_id, entry, entry.call, retries);
    }
    if (answer.ok) {
      const record = isRecord(answer.value) ? answer.value : {};
      const status = record["status"];
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
    if (answer.error.kind === "unknown") return { status: "queued" };
    // Nothing was held under this key, or it has ended already: then there is nothing to give back.
    if (
      entry.function === "release_usage" &&
      answer.error.http_status !== 401 &&
      answer.error.http_status !== 403
    )
      return done(entry, { status: "released", answer: {} });
    // A wrong key or missing migration is mended by a person: keep trying rather than lose what is owed.
    if (
      answer.error.http_status === 401 ||
      answer.error.http_status === 403 ||
      answer.error.reason.startsWith("PGRST")
    )
      return { status: "queued" };
    return park(entry, `${answer.error.reason}: ${answer.error.message}`);
  }

  async function sendSafely(entry: QueuedSettlement, retries?: number): Promise<SettlementOutcome> {
    const outcome = await send(entry, retries);
    if (outcome.status === "queued") waiting.add(entry.request_id);
    return outcome;
  }

  async function drain(): Promise<{ sent: number; waiting: number; parked: number }> {
    let sent = 0;
    let parked = 0;
    const entries = await inTime(options.store.list());
    const open = entries.filter((entry) => entry.parked === undefined);
    for (const entry of open) {
      const outcome = await sendSafely(entry, 0);
      if (outcome.status === "queued") break;
      if (outcome.status === "parked") parked++;
      else sent++;
    }
    return { sent, waiting: open.length - sent - parked, parked: entries.length - open.length + parked };
  }

  /** One loop at a time, while something waits. */
  function retryLater(): void {
    retryLoop ??= track(
      (async () => {
        let delayMs = Math.max(1, options.retryDelayMs ?? 100);
        while (waiting.size > 0) {
          await pause(delayMs, options.timer);
          delayMs = Math.min(longestPauseMs, delayMs * 2);
          try {
            const { sent, waiting: left } = await drain();
            if (left === 0) waiting.clear();
            if (sent > 0) delayMs = Math.max(1, options.retryDelayMs ?? 100);
          } catch (error) {
            report({
              kind: "store_failed",
              request_id: "",
              message: error instanceof Error ? error.message : String(error),
            });
          }
        }
        retryLoop = null;
      })(),
    );
  }

  async function submit(entry: QueuedSettlement): Promise<SettlementOutcome> {
    const kept = await store(entry.request_id, () => options.store.put(entry));
    const outcome = await sendSafely(entry);
    if (outcome.status === "queued") {
      if (!kept) await store(entry.request_id, () => options.store.put(entry));
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
