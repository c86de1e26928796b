/** Ends a call in the books: charges what it used, or gives back what it held. */
import { tokens } from "../money/index.ts";
import { totalTokens, type UsageCounts } from "../usage/counts.ts";
import type { Admission } from "./call-context.ts";
import { safely, storable } from "./safely.ts";
import type { Settlements } from "./settlements.ts";
import type { GuardOptions, SettlementOutcome } from "./types.ts";

const maximalDoubtfulReleases = 1_000;

type Released = Pick<Admission, "request_id" | "hold" | "is_repeatable">;

/** What `createCharges` makes: settle, estimate, wait for certainty, or give back. */
export type Charges = ReturnType<typeof createCharges>;

/** How a call is charged or given back once its fate is known. */
export function createCharges(options: GuardOptions, settlements: Settlements) {
  function learn(
    { args, answer, is_learnt: isLearnt, expected_tokens: expected }: Admission,
    usage: UsageCounts,
  ): void {
    const { p_task_type: task, p_model: model } = args;
    safely(() =>
      options.learner?.learn({
        task_type: typeof task === "string" ? task : null,
        model: String(model),
        expected: answer && !isLearnt ? expected : null,
        used: totalTokens(usage),
      }),
    );
  }

  function settle(
    admission: Admission,
    usage: UsageCounts,
    metadata: Record<string, unknown>,
  ): Promise<SettlementOutcome> {
    const { p_message: _, ...callArgs } = admission.args;
    const id = options.newId();
    // Only what a provider counted to the end is worth learning from.
    if (metadata["usage_shape"] !== undefined) learn(admission, usage);
    return settlements.submit({
      id,
      request_id: admission.request_id,
      function: "settle_usage",
      args: {
        p_request_id: admission.request_id,
        p_input_tokens: usage.input_tokens,
        p_output_tokens: usage.output_tokens,
        p_metadata: {
          ...(usage.cached_input_tokens > 0 ? { cached_input_tokens: usage.cached_input_tokens } : {}),
          ...(usage.cache_write_tokens > 0 ? { cache_write_tokens: usage.cache_write_tokens } : {}),
          ...(usage.cache_write_1h_tokens ? { cache_write_1h_tokens: usage.cache_write_1h_tokens } : {}),
          ...(usage.reasoning_tokens > 0 ? { reasoning_tokens: usage.reasoning_tokens } : {}),
          ...(usage.service_tier ? { service_tier: usage.service_tier } : {}),
          // Two uses under one key are two also where they used the same.
          ...(admission.is_repeatable ? { use_id: id } : {}),
          ...metadata,
        },
      },
      queued_at_ms: options.now(),
      // The message is not kept, not even while the database is away.
      call_args: callArgs,
    });
  }

  /** Charges numbers that stand for usage nobody could read; what was read of it stays. */
  function settleEstimate(
    admission: Admission,
    {
      input,
      output,
      read,
    }: { readonly input: number; readonly output: number; readonly read: UsageCounts | null },
    metadata: Record<string, unknown>,
  ): Promise<SettlementOutcome> {
    const none = tokens(0);
    const parts = read ?? { cached_input_tokens: none, cache_write_tokens: none, reasoning_tokens: none };
    const usage = { ...parts, input_tokens: tokens(input), output_tokens: tokens(output) };
    return settle(admission, usage, { ...metadata, estimated: true });
  }

  /** Charges what was expected of a call whose usage is not known. */
  function settleUnknown(admission: Admission, why: string): Promise<SettlementOutcome> {
    const expected = { input: admission.expected_tokens, output: 0, read: null };
    return settleEstimate(admission, expected, { usage_unknown: storable(why, 200) });
  }

  /** Gives back what is held, or may be. */
  function release(
    { request_id: requestId, hold, is_repeatable: isRepeatable }: Released,
    reason: string,
  ): Promise<SettlementOutcome> {
    // What may be held expires by itself. Under a caller's own key it is the repeat's: a release that is on its way would
    // take it from under the repeat. Under others it is not worth a queue that grows all through an outage.
    const isLeft = hold === "unknown" && (isRepeatable || settlements.length >= maximalDoubtfulReleases);
    if (hold === "none" || isLeft) return Promise.resolve({ status: "released", answer: {} });
    return settlements.submit({
      id: options.newId(),
      request_id: requestId,
      function: "release_usage",
      args: { p_request_id: requestId, p_reason: storable(reason, 500) },
      queued_at_ms: options.now(),
    });
  }

  return { settle, settleEstimate, settleUnknown, release };
}
