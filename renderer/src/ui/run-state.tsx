import { Progress } from "@mantine/core";
import { type ReactNode, useState } from "react";
import type { Failure } from "../../../shared/contract/basics.ts";
import { useNow } from "../lib/clock.ts";
import { counted } from "../lib/text.ts";
import { Note } from "./parts.tsx";
import css from "./run-state.module.css";
import { FailureLine } from "./states.tsx";

/** How far a replay or a simulation is, or why it has no report. */
export function RunState({
  run,
  what,
}: {
  readonly run: {
    readonly status: "running" | "finished" | "cancelled" | "failed";
    readonly events: number;
    /** 0 to 1; null where it is not known. */
    readonly progress: number | null;
    readonly failure: Failure | null;
  };
  readonly what: string;
}): ReactNode {
  const leftMs = useTimeLeft(run.status === "running" ? run.progress : null);
  if (run.status === "running")
    return (
      <div aria-live="polite">
        <Progress
          value={run.progress === null ? 100 : run.progress * 100}
          animated={run.progress === null}
          aria-label={`Progress of the ${what}`}
        />
        <span className={css.quiet}>{counted(run.events, "event")} judged</span>{" "}
        {leftMs === null ? null : leftMs < 60_000 ? (
          <span className={css.quiet}>Less than a minute left</span>
        ) : (
          <span className={css.quiet}>About {counted(Math.round(leftMs / 60_000), "minute")} left</span>
        )}
      </div>
    );
  if (run.status === "cancelled") return <Note tone="grey">Cancelled. Nothing was changed.</Note>;
  return run.status === "failed" && run.failure ? <FailureLine failure={run.failure} /> : null;
}

/** How long it still takes at its pace since this was first shown; null until that is known. */
function useTimeLeft(progress: number | null): number | null {
  const nowMs = useNow(1000);
  const [first, setFirst] = useState<{ readonly at: number; readonly progress: number } | null>(null);
  if (progress !== null && (first === null || progress < first.progress)) setFirst({ at: nowMs, progress });
  if (progress === null && first !== null) setFirst(null);
  if (first === null || progress === null) return null;
  const [tookMs, made] = [nowMs - first.at, progress - first.progress];
  return tookMs < 3000 || made <= 0 ? null : ((1 - progress) * tookMs) / made;
}
