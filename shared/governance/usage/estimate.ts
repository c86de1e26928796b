import type { TaskEstimate } from "../plans/plan.ts";
import { estimateFromLength } from "../rules/text.ts";

/** Where an estimate came from. */
export type EstimateSource = "given" | "history" | "task" | "length" | "default";

export interface Estimate {
  readonly tokens: number;
  readonly source: EstimateSource;
  /** For `history`: how many calls it was learnt from, and the share of them that it would have covered. */
  readonly calls?: number;
  readonly covered?: number;
}

export interface EstimateSettings {
  readonly estimates?: readonly TaskEstimate[];
  /** Tokens expected of a reply. Default 500. */
  readonly reply_tokens?: number;
  /** For calls nothing is known of. Default 300 (row 003.1). */
  readonly default_estimate?: number;
}

/**
 * The tokens to hold for a call, as the database fixes it (docs/RULES.md, step 6): the caller's own number, else the
 * task's, else from the message's length, else the default.
 */
export function estimateCall(
  call: {
    readonly estimated_tokens?: number | null;
    readonly task_type?: string | null;
    readonly message?: string | null;
  },
  settings: EstimateSettings,
): Estimate {
  if (call.estimated_tokens !== null && call.estimated_tokens !== undefined)
    return { tokens: call.estimated_tokens, source: "given" };
  const task = settings.estimates?.find((entry) => entry.task_type === call.task_type);
  if (task) return { tokens: task.tokens, source: "task" };
  if (call.message !== null && call.message !== undefined)
    return { tokens: estimateFromLength(call.message, settings.reply_tokens ?? 500), source: "length" };
  return { tokens: settings.default_estimate ?? 300, source: "default" };
}

/** Learns what calls of a task on a model really use. Bounded: a fixed number of counters for each pair. */
export interface EstimateLearner {
  /** Takes a finished call: what was expected (null if nothing was) and what was used, in tokens. */
  learn(call: {
    readonly task_type: string | null;
    readonly model: string;
    readonly expected: number | null;
    readonly used: number;
  }): void;
  /** Tokens that cover `quantile` (0 to 1) of the calls seen; null until `minimumCalls` were. */
  estimate(task: string | null, model: string, quantile: number, minimumCalls?: number): Estimate | null;
  /** How wrong expectations were: mean of |expected − used| ÷ used, over calls that had one. */
  error(
    task: string | null,
    model: string,
  ): { readonly calls: number; readonly mean_relative_error: number } | null;
}

/** Buckets are 1/8 of a doubling apart, so an estimate is at most 9.1 % above the true quantile. */
const bucketsPerDoubling = 8;
const bucketCount = 53 * bucketsPerDoubling;
const bucketOf = (used: number): number =>
  used <= 1 ? 0 : Math.min(bucketCount - 1, Math.ceil(Math.log2(used) * bucketsPerDoubling - 1e-9));
const topOf = (bucket: number): number => Math.floor(2 ** (bucket / bucketsPerDoubling) + 1e-6);

interface Learnt {
  readonly buckets: Map<number, number>;
  calls: number;
  expectedCalls: number;
  relativeErrors: number;
}

/** Makes a learner that remembers at most `maximumPairs` (task, model) pairs, forgetting the longest unused. */
export function learnEstimates(maximumPairs = 1_000): EstimateLearner {
  const pairs = new Map<string, Learnt>();
  const keyOf = (task: string | null, model: string): string => JSON.stringify([task, model]);
  return {
    learn({ task_type, model, expected, used }) {
      if (!Number.isSafeInteger(used) || used < 0) return;
      const key = keyOf(task_type, model);
      const learnt = pairs.get(key) ?? { buckets: new Map(), calls: 0, expectedCalls: 0, relativeErrors: 0 };
      pairs.delete(key);
      pairs.set(key, learnt);
      if (pairs.size > maximumPairs) {
        const oldest = pairs.keys().next();
        if (!oldest.done) pairs.delete(oldest.value);
      }
      learnt.calls++;
      learnt.buckets.set(bucketOf(used), (learnt.buckets.get(bucketOf(used)) ?? 0) + 1);
      if (expected !== null && used > 0) {
        learnt.expectedCalls++;
        learnt.relativeErrors += Math.abs(expected - used) / used;
      }
    },
    estimate(task, model, quantile, minimumCalls = 20) {
      const learnt = pairs.get(keyOf(task, model));
      if (!learnt || learnt.calls < minimumCalls) return null;
      const wanted = Math.max(1, Math.ceil(learnt.calls * Math.min(1, Math.max(0, quantile))));
      let covered = 0;
      for (const bucket of [...learnt.buckets.keys()].toSorted((a, b) => a - b)) {
        covered += learnt.buckets.get(bucket) ?? 0;
        if (covered >= wanted)
          return {
            tokens: topOf(bucket),
            source: "history",
            calls: learnt.calls,
            covered: covered / learnt.calls,
          };
      }
      return null;
    },
    error(task, model) {
      const learnt = pairs.get(keyOf(task, model));
      if (!learnt || learnt.expectedCalls === 0) return null;
      return {
        calls: learnt.expectedCalls,
        mean_relative_error: learnt.relativeErrors / learnt.expectedCalls,
      };
    },
  };
}
