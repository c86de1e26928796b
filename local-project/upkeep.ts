/**
 * Upkeep for a project without pg_cron: holds that expired come back, new allowances begin, alerts are raised, though
 * nobody calls. At start, then every minute, as pg_cron would.
 */
import type { RunSql } from "./database.ts";

interface Upkeep {
  /** No round begins any more; settles when the one under way is over. */
  stop(): Promise<void>;
}

interface UpkeepOptions {
  readonly run: RunSql;
  readonly intervalMs: number;
  readonly log: (sentence: string) => void;
}

const SHORTEST_PAUSE_MS = 250;

export function startUpkeep({ run, intervalMs, log }: UpkeepOptions): Upkeep {
  let stopped = false;
  let timer: NodeJS.Timeout | null = null;
  let round: Promise<void> = Promise.resolve();
  /** What went wrong the last time: reported once, not every minute. */
  let problem: string | null = null;

  function next(afterMs: number): void {
    if (stopped) return;
    timer = setTimeout(() => {
      round = runRound();
    }, afterMs);
  }

  async function runRound(): Promise<void> {
    const startedAt = performance.now();
    let hasMore = false;
    try {
      const [row] = await run("select public.run_maintenance() ->> 'more'");
      hasMore = row?.[0] === "true";
      if (problem !== null) log("Upkeep works again.");
      problem = null;
    } catch (error) {
      const { message } = error as Error;
      if (message !== problem && !stopped) log(`Upkeep failed and is tried again: ${message}.`);
      problem = message;
    }
    // A round is short, and calls wait for it on PGlite: where there is more to do, they get twice the time between.
    const tookMs = performance.now() - startedAt;
    next(hasMore ? Math.max(SHORTEST_PAUSE_MS, 2 * tookMs) : intervalMs);
  }

  next(0);
  return {
    async stop() {
      stopped = true;
      if (timer) clearTimeout(timer);
      await round;
    },
  };
}
