/** What the console and the replay's thread say to each other. */
import type {
  BacktestReport,
  PriceBook,
  ReplayEvent,
  Rule,
  Threshold,
  ThresholdCurve,
} from "../../../../shared/governance/index.ts";

/** What is judged: all rules as they would be, and the number that can be dragged. */
export interface ReplayJob {
  readonly rules: readonly Rule[];
  readonly rule_name: string;
  readonly threshold: Threshold | null;
  readonly paying_plans: readonly string[];
  readonly prices: PriceBook | null;
}

export type ToReplay =
  | { readonly type: "judge"; readonly job: ReplayJob }
  | { readonly type: "events"; readonly events: readonly ReplayEvent[] }
  | { readonly type: "end" };

export type FromReplay =
  /** So many events are judged: more may be sent. */
  | { readonly type: "judged"; readonly events: number }
  | { readonly type: "done"; readonly report: BacktestReport; readonly curve: ThresholdCurve | null };
