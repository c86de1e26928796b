/** Judgements of the past that take a while: kept by id, followed by screens, the oldest forgotten. */
import { randomUUID } from "node:crypto";
import type { Failure } from "../../../../shared/contract/index.ts";
import { fail, ok, type Result } from "../../../../shared/governance/result.ts";
import { redact } from "../../backend/redact.ts";
import type { Log } from "../dispatch.ts";
import { crashed, type Judged, type Judgement, type PastJudge } from "./past-judge.ts";

interface Run {
  readonly run_id: string;
  readonly status: "running" | "finished" | "cancelled" | "failed";
  /** Events judged so far. */
  readonly events: number;
  /** 0 to 1; null where it is not known. */
  readonly progress: number | null;
  readonly failure: Failure | null;
}

type Done = Extract<Judged, { is: "done" }>;

interface JudgedRunsOptions {
  readonly judge: PastJudge;
  readonly log: Log;
  /** What a run is to people: "replay". */
  readonly what: string;
}

const mostRuns = 20;

export function createJudgedRuns<R extends Run>({ judge, log, what }: JudgedRunsOptions) {
  const runs = new Map<string, R>();
  const followers = new Map<string, Set<(run: R) => void>>();

  /** Changes a run that is still under way; what has ended stays as it is. */
  function publish(id: string, change: Partial<Run> | Partial<R>): void {
    const run = runs.get(id);
    if (run?.status !== "running") return;
    const changed = { ...run, ...change };
    runs.set(id, changed);
    for (const emit of followers.get(id) ?? []) emit(changed);
  }

  return {
    /** Begins a run, the one under way is cancelled. `onDone` gives what the end adds to it; null: no result of its kind. */
    start(
      about: Omit<R, keyof Run>,
      judgement: Omit<Judgement, "onProgress">,
      onDone: (answer: Done) => Partial<R> | null,
    ): R {
      // One at a time: the last one asked for.
      for (const other of runs.keys()) publish(other, { status: "cancelled" });
      const id = randomUUID();
      const run = {
        ...about,
        run_id: id,
        status: "running",
        events: 0,
        progress: null,
        failure: null,
      } as unknown as R;
      runs.set(id, run);
      for (const old of [...runs.keys()].slice(0, -mostRuns)) runs.delete(old);
      judge
        .judge({ ...judgement, onProgress: (events, progress) => publish(id, { events, progress }) })
        .then((answer) => {
          if (answer.is === "cancelled") return publish(id, { status: "cancelled" });
          if (answer.is === "failed") return publish(id, { status: "failed", failure: answer.failure });
          const result = onDone(answer);
          if (result) publish(id, { ...result, status: "finished", progress: 1 });
        })
        .catch((error: unknown) => {
          log(redact(`error in a ${what}: ${(error as Error).stack ?? String(error)}`));
          publish(id, { status: "failed", failure: crashed(error as Error) });
        });
      return run;
    },
    cancel(id: string): Result<R, Failure> {
      const run = runs.get(id);
      if (!run)
        return fail({
          code: "not_found",
          message: `This ${what} is not kept any more.`,
          advice: "Start it again.",
          details: null,
        });
      if (run.status === "running") {
        publish(id, { status: "cancelled" });
        judge.cancel();
      }
      return ok(runs.get(id) ?? run);
    },
    follow(id: string, emit: (run: R) => void): () => void {
      const set = followers.get(id) ?? new Set();
      set.add(emit);
      followers.set(id, set);
      const run = runs.get(id);
      if (run) emit(run);
      return () => {
        set.delete(emit);
        if (set.size === 0) followers.delete(id);
      };
    },
  };
}
