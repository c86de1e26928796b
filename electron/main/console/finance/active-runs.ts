/** The reconciliations under way: how far each is, who follows it, and how it ends. */
import type { Worker } from "node:worker_threads";
import type { ReconciliationRun } from "../../../../shared/contract/index.ts";
import { redact } from "../../backend/redact.ts";
import type { Store } from "../../store/store.ts";
import type { ChosenProject } from "../connection/link.ts";
import type { Log } from "../dispatch.ts";
import type { ReportHead } from "./messages.ts";
import { crashed } from "./run-failures.ts";

export interface ActiveRun {
  run: ReconciliationRun;
  readonly profileId: string;
  /** Its ledger is matched. */
  readonly project: ChosenProject;
  /** Null while Stripe is read: the thread has no network. */
  worker: Worker | null;
  readonly stop: AbortController;
}

export interface ActiveRuns {
  readonly store: Store;
  readonly now: () => Date;
  readonly log: Log;
  readonly onChange: () => void;
  readonly byId: Map<string, ActiveRun>;
  readonly followers: Map<string, Set<(run: ReconciliationRun) => void>>;
}

/** Enters a run and keeps it, so that a crash leaves a trace of it. */
export function addRun(runs: ActiveRuns, active: ActiveRun): void {
  runs.byId.set(active.run.run_id, active);
  runs.store.putRun(active.profileId, { run: active.run, report: null });
}

export function updateRun(runs: ActiveRuns, active: ActiveRun, change: Partial<ReconciliationRun>): void {
  active.run = { ...active.run, ...change };
  for (const emit of runs.followers.get(active.run.run_id) ?? []) emit(active.run);
}

/** Ends a run, once: what arrives after its end changes nothing. */
export function finishRun(
  runs: ActiveRuns,
  active: ActiveRun,
  change: Partial<ReconciliationRun>,
  report: ReportHead | null = null,
): void {
  if (!runs.byId.delete(active.run.run_id)) return;
  updateRun(runs, active, { ...change, finished_at: runs.now().toISOString() });
  runs.store.putRun(active.profileId, { run: active.run, report });
  void active.worker?.terminate();
  runs.onChange();
}

/** Ends a run after an error in this program. */
export function crashRun(runs: ActiveRuns, active: ActiveRun, error: unknown): void {
  runs.log(redact(`error in a reconciliation: ${(error as Error).stack ?? String(error)}`));
  finishRun(runs, active, { status: "failed", failure: crashed(redact((error as Error).message)) });
}

/** A run under way or kept, as it is now. */
export function findRun(runs: ActiveRuns, runId: string): ReconciliationRun | null {
  return runs.byId.get(runId)?.run ?? runs.store.getRun(runId)?.run ?? null;
}

/** Emits the run as it is now, then each change, until the returned function is called. */
export function followRun(
  runs: ActiveRuns,
  runId: string,
  emit: (run: ReconciliationRun) => void,
): () => void {
  const set = runs.followers.get(runId) ?? new Set();
  runs.followers.set(runId, set.add(emit));
  const run = findRun(runs, runId);
  if (run) emit(run);
  return () => {
    set.delete(emit);
    if (set.size === 0) runs.followers.delete(runId);
  };
}
