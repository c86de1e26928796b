import { Progress } from "@mantine/core";
import type { ReactNode } from "react";
import type { Failure } from "../../../shared/contract/basics.ts";
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
  if (run.status === "running")
    return (
      <div aria-live="polite">
        <Progress
          value={run.progress === null ? 100 : run.progress * 100}
          animated={run.progress === null}
          aria-label={`Progress of the ${what}`}
        />
        <span className={css.quiet}>{counted(run.events, "event")} judged</span>
      </div>
    );
  if (run.status === "cancelled") return <Note tone="grey">Cancelled. Nothing was changed.</Note>;
  return run.status === "failed" && run.failure ? <FailureLine failure={run.failure} /> : null;
}
