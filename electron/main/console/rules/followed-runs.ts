/** Runs that take a while: kept by id, followed by screens, the oldest forgotten. */
import { randomUUID } from "node:crypto";

interface Run {
  readonly run_id: string;
  readonly status: string;
}

const mostRuns = 20;

export function createFollowedRuns<R extends Run>() {
  const runs = new Map<string, R>();
  const followers = new Map<string, Set<(run: R) => void>>();
  return {
    get: (id: string): R | null => runs.get(id) ?? null,
    begin(run: Omit<R, "run_id">): R {
      const begun = { ...run, run_id: randomUUID() } as R;
      runs.set(begun.run_id, begun);
      for (const id of [...runs.keys()].slice(0, -mostRuns)) runs.delete(id);
      return begun;
    },
    /** Changes a run that is still under way; what has ended stays as it is. */
    publish(id: string, change: Partial<R>): void {
      const run = runs.get(id);
      if (run?.status !== "running") return;
      const changed = { ...run, ...change };
      runs.set(id, changed);
      for (const emit of followers.get(id) ?? []) emit(changed);
    },
    running: (): readonly R[] => [...runs.values()].filter(({ status }) => status === "running"),
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
