import type { TaskEstimate } from "../plans/plan.ts";
import { estimateFromLength } from "../rules/text.ts";

/** Where an estimate came from. */
export type EstimateSource = "given" | "history" | "task" | "length" | "default";

/** Tokens to hold, and why so many. */
export interface Estimate {
  readonly tokens: number;
  readonly source: EstimateSource;
  /** For `history`: how many calls it was learnt from, and the share of them that it would have covered. */
  readonly calls?: number;
  readonly covered?: number;
}

/** What estimates are made of, beside the call. */
export interface EstimateSettings {
  readonly estimates?: readonly TaskEstimate[];
  /** Tokens expected of a reply. Default 500. */
  readonly reply_tokens?: number;
  /** For calls nothing is known of. Default 300 (row 003.1). */
  readonly default_estimate?: number;
  /** What calls of a task on a model really used; asked first, where the call's model is given. */
  readonly learner?: EstimateLearner;
}

/**
 * The tokens to hold for a call: the caller's own number, else what was learnt of its task and model, else the task's,
 * else from the message's length, else the default. Without a learner it is what the database fixes (docs/RULES.md,
 * step 6); what was learnt reaches the database as the caller's own number.
 */
export function estimateCall(
  call: {
    readonly estimated_tokens?: number | null;
    readonly task_type?: string | null;
    readonly model?: string | null;
    readonly message?: string | null;
  },
  settings: EstimateSettings,
): Estimate {
  if (call.estimated_tokens !== null && call.estimated_tokens !== undefined)
    return { tokens: call.estimated_tokens, source: "given" };
  const learnt = call.model ? settings.learner?.estimate(call.task_type || null, call.model) : null;
  if (learnt) return learnt;
  const task = settings.estimates?.find((entry) => entry.task_type === call.task_type);
  if (task) return { tokens: task.tokens, source: "task" };
  if (call.message !== null && call.message !== undefined)
    return { tokens: estimateFromLength(call.message, settings.reply_tokens ?? 500), source: "length" };
  return { tokens: settings.default_estimate ?? 300, source: "default" };
}

/** How far from what calls used some estimates were. */
export interface EstimateError {
  /** Calls that had such an estimate. */
  readonly calls: number;
  /** Share of them that used no more than the estimate, 0 to 1. */
  readonly covered: number;
  /** Mean of |estimate − used| ÷ used. */
  readonly mean_relative_error: number;
}

/** Learns what calls of a task on a model really use, in tokens. Bounded: a fixed number of counters for each pair. */
export interface EstimateLearner {
  /** Takes a finished call: what was expected (null if nothing was) and what was used, in tokens. */
  learn(call: {
    readonly task_type: string | null;
    readonly model: string;
    readonly expected: number | null;
    readonly used: number;
  }): void;
  /** Tokens that cover the wanted share of such calls; null until enough were seen. */
  estimate(task: string | null, model: string): Estimate | null;
  /**
   * The error that estimates had: those that were `expected`, and those that would have been `learnt` from the calls
   * before each one (so a learner is judged by calls it had not seen). Null where there were none.
   */
  error(
    task: string | null,
    model: string,
  ): { readonly expected: EstimateError | null; readonly learnt: EstimateError | null };
}

/** How a learner promises and forgets. */
export interface LearnerOptions {
  /** Share of calls that an estimate should cover, 0 to 1. Default 0.95. */
  readonly quantile?: number;
  /** Calls of a pair before an estimate is given for it. Default 20. */
  readonly minimum_calls?: number;
  /** (task, model) pairs remembered; the one unused longest is forgotten. Default 1,000. */
  readonly maximal_pairs?: number;
}

/** Buckets are 1/8 of a doubling apart, so an estimate is at most 9.1 % above the true quantile. */
const bucketsPerDoubling = 8;
const bucketCount = 53 * bucketsPerDoubling + 1;
const bucketOf = (used: number): number =>
  used <= 1 ? 0 : Math.min(bucketCount - 1, Math.ceil(Math.log2(used) * bucketsPerDoubling - 1e-9));
const topOf = (bucket: number): number => Math.floor(2 ** (bucket / bucketsPerDoubling) + 1e-6);
/** At so many calls all counters are halved: what calls use changes, and old ones must not outvote the new for ever. */
const memoryCalls = 4_096;

/** Sums of the errors of one kind of estimate. */
class ErrorSum {
  calls = 0;
  covered = 0;
  relative = 0;

  add(estimate: number, used: number): void {
    if (used <= 0) return;
    this.calls++;
    if (used <= estimate) this.covered++;
    this.relative += Math.abs(estimate - used) / used;
  }

  read(): EstimateError | null {
    return this.calls === 0
      ? null
      : {
          calls: this.calls,
          covered: this.covered / this.calls,
          mean_relative_error: this.relative / this.calls,
        };
  }
}

class Learnt {
  readonly buckets = new Uint32Array(bucketCount);
  calls = 0;
  readonly expected = new ErrorSum();
  readonly learnt = new ErrorSum();

  estimate(quantile: number): Estimate {
    const wanted = Math.max(1, Math.ceil(this.calls * quantile));
    let covered = 0;
    let bucket = 0;
    for (; bucket < bucketCount; bucket++) {
      covered += this.buckets[bucket] ?? 0;
      if (covered >= wanted) break;
    }
    return { tokens: topOf(bucket), source: "history", calls: this.calls, covered: covered / this.calls };
  }

  add(used: number): void {
    const bucket = bucketOf(used);
    this.buckets[bucket] = (this.buckets[bucket] ?? 0) + 1;
    this.calls++;
    if (this.calls < memoryCalls) return;
    this.calls = 0;
    for (let index = 0; index < bucketCount; index++) {
      const half = (this.buckets[index] ?? 0) >> 1;
      this.buckets[index] = half;
      this.calls += half;
    }
  }
}

/** Makes a learner that has seen nothing yet. */
export function learnEstimates(options: LearnerOptions = {}): EstimateLearner {
  const quantile = Math.min(1, Math.max(0, options.quantile ?? 0.95));
  const minimalCalls = Math.max(1, options.minimum_calls ?? 20);
  const pairs = new Map<string, Learnt>();
  const keyOf = (task: string | null, model: string): string => JSON.stringify([task, model]);
  return {
    learn({ task_type, model, expected, used }) {
      if (!Number.isSafeInteger(used) || used < 0) return;
      const key = keyOf(task_type, model);
      const learnt = pairs.get(key) ?? new Learnt();
      pairs.delete(key);
      pairs.set(key, learnt);
      if (pairs.size > (options.maximal_pairs ?? 1_000)) {
        const oldest = pairs.keys().next();
        if (!oldest.done) pairs.delete(oldest.value);
      }
      if (expected !== null) learnt.expected.add(expected, used);
      if (learnt.calls >= minimalCalls) learnt.learnt.add(learnt.estimate(quantile).tokens, used);
      learnt.add(used);
    },
    estimate(task, model) {
      const learnt = pairs.get(keyOf(task, model));
      return learnt && learnt.calls >= minimalCalls ? learnt.estimate(quantile) : null;
    },
    error(task, model) {
      const learnt = pairs.get(keyOf(task, model));
      return { expected: learnt?.expected.read() ?? null, learnt: learnt?.learnt.read() ?? null };
    },
  };
}
