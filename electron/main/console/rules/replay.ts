/** Replays drafts of rules over a project's past calls: reads them page by page, judges them in a thread. */
import { randomUUID } from "node:crypto";
import { Worker } from "node:worker_threads";
import { z } from "zod";
import { type Failure, type ReplayRun, rule as ruleRecord } from "../../../../shared/contract/index.ts";
import {
  isReplayEvent,
  parsePrices,
  parseRule,
  parseRules,
  type ReplayEvent,
  type Rule,
  thresholdsOf,
} from "../../../../shared/governance/index.ts";
import { fail, ok, type Result } from "../../../../shared/governance/result.ts";
import { redact } from "../../backend/redact.ts";
import { usageEventPages } from "../../backend/usage-events.ts";
import { notConnected } from "../connection/link.ts";
import { type DeskContext, readThrough } from "../desk-context.ts";
import type { Handlers, Log } from "../dispatch.ts";
import type { FromReplay, ReplayJob, ToReplay } from "./replay-messages.ts";

export interface ReplayOptions {
  readonly desk: DeskContext;
  /** The thread's entry where the program is bundled. */
  readonly workerUrl: URL | null;
  readonly log: Log;
}

const mostAttempts = 6;
const mostRuns = 20;

interface Running {
  run: ReplayRun;
  isCancelled: boolean;
}

/** A thread with the past that it has read; drafts over the same past are judged by it again. */
interface Reader {
  readonly key: string;
  readonly worker: Worker;
  /** All of the past is in the thread. */
  isWhole: boolean;
  onMessage: (message: FromReplay) => void;
  onBroken: (error: Error) => void;
}

/** Above this the thread does not keep what it has read. */
const mostKept = 150_000;

export function createReplay({ desk, workerUrl, log }: ReplayOptions) {
  const { connection } = desk;
  const runs = new Map<string, Running>();
  const followers = new Map<string, Set<(run: ReplayRun) => void>>();
  let reader: Reader | null = null;

  function publish(running: Running, change: Partial<ReplayRun>): void {
    running.run = { ...running.run, ...change };
    for (const emit of followers.get(running.run.run_id) ?? []) emit(running.run);
  }

  function drop(): void {
    void reader?.worker.terminate();
    reader = null;
  }

  function openReader(key: string): Reader {
    drop();
    const worker = new Worker(workerUrl ?? new URL("./replay-worker.ts", import.meta.url));
    const opened: Reader = { key, worker, isWhole: false, onMessage: () => {}, onBroken: () => {} };
    worker.on("message", (message: FromReplay) => opened.onMessage(message));
    worker.on("error", (error) => {
      log(redact(`error in a replay: ${error.stack ?? error.message}`));
      if (reader === opened) reader = null;
      opened.onBroken(error);
    });
    worker.unref();
    reader = opened;
    return opened;
  }

  /** The calls of the run's time, page by page. */
  async function* readEvents(running: Running): AsyncGenerator<ReplayEvent[], Failure | null> {
    const { since, until } = running.run;
    const pages = usageEventPages(connection, {
      since,
      mostAttempts,
      isCancelled: () => running.isCancelled,
    });
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

  async function judge(running: Running, job: ReplayJob, key: string): Promise<void> {
    const isThere = reader?.key === key && reader.isWhole;
    const opened = isThere && reader ? reader : openReader(key);
    const tell = (message: ToReplay): void => opened.worker.postMessage(message);
    let onJudged: (() => void) | null = null;
    let events = 0;
    let onDone: (result: Extract<FromReplay, { type: "done" }> | Error) => void = () => {};
    const done = new Promise<Extract<FromReplay, { type: "done" }> | Error>((resolve) => {
      onDone = resolve;
    });
    opened.onBroken = (error) => {
      onDone(error);
      onJudged?.();
    };
    opened.onMessage = (message) => {
      if (message.type === "done") return onDone(message);
      onJudged?.();
    };
    tell({ type: "judge", job });
    if (!isThere) {
      const { since, until } = running.run;
      const spanMs = Math.max(1, Date.parse(until) - Date.parse(since));
      const pages = readEvents(running);
      for (;;) {
        const next = await pages.next();
        if (running.isCancelled) {
          drop();
          return publish(running, { status: "cancelled" });
        }
        if (next.done) {
          if (next.value === null) break;
          drop();
          return publish(running, { status: "failed", failure: next.value });
        }
        // One page is judged while the next is read, and no more wait.
        const judged = new Promise<void>((resolve) => {
          onJudged = resolve;
        });
        tell({ type: "events", events: next.value });
        events += next.value.length;
        await judged;
        const last = next.value.at(-1);
        publish(running, {
          events,
          progress: last ? Math.min(1, (Date.parse(last.at) - Date.parse(since)) / spanMs) : null,
        });
      }
      opened.isWhole = events < mostKept;
    }
    tell({ type: "end" });
    const result = await done;
    if (running.isCancelled) return publish(running, { status: "cancelled" });
    if (result instanceof Error) return publish(running, { status: "failed", failure: crashed(result) });
    publish(running, {
      status: "finished",
      progress: 1,
      events: Math.max(events, running.run.events, result.report.calls),
      report: result.report,
      curve: result.curve,
    });
  }

  async function start(
    draft: Rule,
    input: { since: string; until: string; paying_plans: readonly string[]; path: string | null },
  ): Promise<Result<ReplayRun, Failure>> {
    const profileId = connection.profileId();
    if (profileId === null) return fail(notConnected);
    const list = await readThrough(desk, "rules", "list_rules", {}, z.array(ruleRecord));
    if (!list.ok) return list;
    const current = parseRules(list.value.value);
    if (!current.ok) return fail(unreadable);
    // What a reroute saves; without prices the report says that it cannot be told.
    const listed = await readThrough(
      desk,
      "prices",
      "console_prices",
      {},
      z.looseObject({ prices: z.unknown() }),
    );
    const prices = listed.ok ? parsePrices(listed.value.value.prices) : null;
    const draftInForce: Rule = { ...draft, mode: "enforce", is_active: true };
    const thresholds = thresholdsOf(draft);
    const running: Running = {
      isCancelled: false,
      run: {
        run_id: randomUUID(),
        rule_name: draft.rule_name,
        since: input.since,
        until: input.until,
        status: "running",
        events: 0,
        progress: null,
        thresholds: thresholds.map((each) => ({ ...each })),
        report: null,
        curve: null,
        failure: null,
      },
    };
    // One replay at a time: the last one asked for.
    for (const other of runs.values()) if (other.run.status === "running") cancel(other);
    runs.set(running.run.run_id, running);
    for (const id of [...runs.keys()].slice(0, -mostRuns)) runs.delete(id);
    const job: ReplayJob = {
      rules: [...current.value.filter((rule) => rule.rule_name !== draft.rule_name), draftInForce],
      rule_name: draft.rule_name,
      threshold: thresholds.find((each) => each.path === input.path) ?? thresholds[0] ?? null,
      paying_plans: input.paying_plans,
      prices: prices?.ok ? prices.value : null,
    };
    judge(running, job, `${profileId} ${input.since} ${input.until}`).catch((error: unknown) => {
      log(redact(`error in a replay: ${(error as Error).stack ?? String(error)}`));
      publish(running, { status: "failed", failure: crashed(error as Error) });
    });
    return ok(running.run);
  }

  function cancel(running: Running): void {
    running.isCancelled = true;
    publish(running, { status: "cancelled" });
    drop();
  }

  return {
    handlers: {
      "rules.replay_start": ({ rule, since, until, paying_plans, path }) => {
        const parsed = parseRule(rule);
        if (!parsed.ok) return fail(wrongDraft);
        if (!(Date.parse(since) < Date.parse(until))) return fail(wrongPeriod);
        return start(parsed.value, { since, until, paying_plans, path });
      },
      "rules.replay_cancel": ({ run_id }) => {
        const running = runs.get(run_id);
        if (!running) return fail(gone);
        if (running.run.status === "running") cancel(running);
        return ok(running.run);
      },
    } satisfies Pick<Handlers, "rules.replay_start" | "rules.replay_cancel">,
    follow(runId: string, emit: (run: ReplayRun) => void): () => void {
      const set = followers.get(runId) ?? new Set();
      set.add(emit);
      followers.set(runId, set);
      const running = runs.get(runId);
      if (running) emit(running.run);
      return () => {
        set.delete(emit);
        if (set.size === 0) followers.delete(runId);
      };
    },
    close(): void {
      for (const running of runs.values()) running.isCancelled = true;
      drop();
    },
  };
}

const crashed = (error: Error): Failure => ({
  code: "replay_failed",
  message: "The replay ended before it was done.",
  advice: "Try again, perhaps over a shorter time.",
  details: redact(error.message),
});
const unreadable: Failure = {
  code: "unreadable_rules",
  message: "This console cannot read the rules in force; the project may be newer.",
  advice: "Update the console.",
  details: null,
};
const wrongDraft: Failure = {
  code: "invalid_rule",
  message: "The draft does not hold yet.",
  advice: "Mend it where it is marked.",
  details: null,
};
const wrongPeriod: Failure = {
  code: "invalid_argument",
  message: "The time to replay ends before it begins.",
  advice: null,
  details: null,
};
const gone: Failure = {
  code: "not_found",
  message: "This replay is not kept any more.",
  advice: "Start it again.",
  details: null,
};
