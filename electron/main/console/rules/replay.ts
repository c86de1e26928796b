/** Replays drafts of rules over a project's past calls: reads them page by page, judges them in a thread. */
import { randomUUID } from "node:crypto";
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
import type { Connection } from "../connection/connection.ts";
import { notConnected } from "../connection/link.ts";
import { type DeskContext, readThrough } from "../desk-context.ts";
import type { Handlers, Log } from "../dispatch.ts";
import type { ReplayJob } from "./replay-messages.ts";
import { openThread, type ReplayThread } from "./replay-thread.ts";

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

export function createReplay({ desk, workerUrl, log }: ReplayOptions) {
  const { connection } = desk;
  const runs = new Map<string, Running>();
  const followers = new Map<string, Set<(run: ReplayRun) => void>>();
  let thread: ReplayThread | null = null;

  function publish(running: Running, change: Partial<ReplayRun>): void {
    running.run = { ...running.run, ...change };
    for (const emit of followers.get(running.run.run_id) ?? []) emit(running.run);
  }

  function drop(): void {
    thread?.end();
    thread = null;
  }

  /** The thread that has this past already, or a new one. */
  function threadFor(key: string): ReplayThread {
    if (thread?.has(key)) return thread;
    drop();
    const opened = openThread(key, workerUrl, (error) => {
      log(redact(`error in a replay: ${error.stack ?? error.message}`));
      if (thread === opened) thread = null;
    });
    thread = opened;
    return opened;
  }

  async function judge(running: Running, job: ReplayJob, key: string): Promise<void> {
    const { since, until } = running.run;
    const spanMs = Math.max(1, Date.parse(until) - Date.parse(since));
    const ending = await threadFor(key).judge(job, {
      pages: readEvents(connection, running),
      isCancelled: () => running.isCancelled,
      onPage: (events, lastAt) =>
        publish(running, {
          events,
          progress: lastAt === null ? null : Math.min(1, (Date.parse(lastAt) - Date.parse(since)) / spanMs),
        }),
    });
    // Cancelling ended the thread already.
    if (running.isCancelled || ending.kind === "cancelled") return publish(running, { status: "cancelled" });
    if (ending.kind === "unread") {
      drop();
      return publish(running, { status: "failed", failure: ending.failure });
    }
    if (ending.kind === "broken")
      return publish(running, { status: "failed", failure: crashed(ending.error) });
    const { events, result } = ending;
    publish(running, {
      status: "finished",
      progress: 1,
      events: Math.max(events, running.run.events, result.report.calls),
      report: result.report,
      curve: result.curve,
    });
  }

  async function start(draft: Rule, input: ReplayInput): Promise<Result<ReplayRun, Failure>> {
    const profileId = connection.profileId();
    if (profileId === null) return fail(notConnected);
    const job = await readJob(desk, draft, input);
    if (!job.ok) return job;
    const running: Running = { isCancelled: false, run: newRun(draft, input) };
    // One replay at a time: the last one asked for.
    for (const other of runs.values()) if (other.run.status === "running") cancel(other);
    runs.set(running.run.run_id, running);
    for (const id of [...runs.keys()].slice(0, -mostRuns)) runs.delete(id);
    judge(running, job.value, `${profileId} ${input.since} ${input.until}`).catch((error: unknown) => {
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

/** The calls of the run's time, page by page. */
async function* readEvents(
  connection: Connection,
  running: Running,
): AsyncGenerator<ReplayEvent[], Failure | null> {
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

interface ReplayInput {
  readonly since: string;
  readonly until: string;
  readonly paying_plans: readonly string[];
  /** The threshold whose curve is wanted; null: the first. */
  readonly path: string | null;
}

/** The rules in force with the draft among them, and the prices of today. */
async function readJob(
  desk: DeskContext,
  draft: Rule,
  input: ReplayInput,
): Promise<Result<ReplayJob, Failure>> {
  const list = await readThrough(desk, "rules", "list_rules", {}, z.array(ruleRecord));
  if (!list.ok) return list;
  const current = parseRules(list.value.value);
  if (!current.ok) return fail(unreadable);
  // What a reroute saves; without prices the report says that it is not known.
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
  return ok({
    rules: [...current.value.filter((rule) => rule.rule_name !== draft.rule_name), draftInForce],
    rule_name: draft.rule_name,
    threshold: thresholds.find((each) => each.path === input.path) ?? thresholds[0] ?? null,
    paying_plans: input.paying_plans,
    prices: prices?.ok ? prices.value : null,
  });
}

const newRun = (draft: Rule, { since, until }: ReplayInput): ReplayRun => ({
  run_id: randomUUID(),
  rule_name: draft.rule_name,
  since,
  until,
  status: "running",
  events: 0,
  progress: null,
  thresholds: thresholdsOf(draft).map((each) => ({ ...each })),
  report: null,
  curve: null,
  failure: null,
});

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
