/** Messages between the console and the replay's thread. */
import type {
  BacktestReport,
  PlanSimulation,
  PriceBook,
  ReplayEvent,
  Rule,
  Scenario,
  Threshold,
  ThresholdCurve,
} from "../../../../shared/governance/index.ts";

/** What is judged: all rules as they would be, and the number that can be dragged. */
interface ReplayJob {
  readonly is: "rule";
  readonly rules: readonly Rule[];
  readonly rule_name: string;
  readonly threshold: Threshold | null;
  readonly paying_plans: readonly string[];
  readonly prices: PriceBook | null;
}

/** Plans and prices as they would be. */
interface SimulationJob {
  readonly is: "plans";
  readonly scenario: Scenario;
}

export type JudgeJob = ReplayJob | SimulationJob;

export type ToReplay =
  | { readonly type: "judge"; readonly job: JudgeJob }
  | { readonly type: "events"; readonly events: readonly ReplayEvent[] }
  | { readonly type: "end" };

export type FromReplay =
  /** So many events are judged: more may be sent. */
  | { readonly type: "judged"; readonly events: number }
  | {
      readonly type: "done";
      readonly of:
        | { readonly is: "rule"; readonly report: BacktestReport; readonly curve: ThresholdCurve | null }
        | { readonly is: "plans"; readonly report: PlanSimulation };
    };
