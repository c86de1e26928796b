/** How a call ended, and what is charged or given back for it. */
import { fail, ok, type Result } from "../result.ts";
import { countCharacters } from "../rules/text.ts";
import { makeCounts, type UsageCounts } from "../usage/counts.ts";
import { lengthOfOutput } from "../usage/output.ts";
import { type ReadUsage, readReport, readUsage } from "../usage/response.ts";
import type { Admission } from "./call-context.ts";
import type { Charges } from "./charges.ts";
import { reportedError, wasCutOff, wasRefused } from "./failures.ts";
import { reasonOf, within } from "./rpc.ts";
import { safely, storable } from "./safely.ts";
import type { Settlements } from "./settlements.ts";
import type { CallOptions, GuardOptions, GuardProblem, GuardRequest, SettlementOutcome } from "./types.ts";

/** The counts of a value, and never an exception: the reader may be the caller's own. */
function countsOf<T>(
  value: T,
  read: NonNullable<CallOptions<T>["readUsage"]>,
): Result<ReadUsage, { readonly message: string; readonly at_least?: UsageCounts | undefined }> {
  try {
    const usage = read(value);
    if (!usage.ok) return fail({ message: usage.error.message, at_least: usage.error.at_least });
    const { counts } = usage.value;
    const checked = makeCounts({
      input: counts.input_tokens,
      output: counts.output_tokens,
      cached: counts.cached_input_tokens,
      cacheWrite: counts.cache_write_tokens,
      cacheWrite1h: counts.cache_write_1h_tokens ?? 0,
      reasoning: counts.reasoning_tokens,
      tier: counts.service_tier,
    });
    return checked.ok ? ok({ ...usage.value, counts: checked.value }) : checked;
  } catch (error) {
    return fail({ message: reasonOf(error) });
  }
}

/** What was read from a response, as metadata of its settlement. */
export const described = ({ shape, model, by_other_models: others }: ReadUsage): Record<string, unknown> => ({
  usage_shape: shape,
  ...(model ? { provider_model: storable(model, 200) } : {}),
  ...(others
    ? {
        by_other_models: others.slice(0, 20).map((other) => ({
          model: storable(other.model, 200),
          ...other.counts,
        })),
      }
    : {}),
});

/** Input tokens of a request: as the caller counted them, else a quarter of its message's characters. */
export const expectedInput = (request: GuardRequest): number =>
  request.input_tokens ?? Math.ceil(countCharacters(request.message ?? "") / 4);

/** What `createEndings` makes: an ending for each way a call can end. */
export type Endings = ReturnType<typeof createEndings>;

/** What happens to the held tokens for each way a call can end: with a value, with an error, or cut off. */
export function createEndings(
  options: GuardOptions,
  { settle, settleEstimate, settleUnknown, release }: Charges,
  { waitFor }: Pick<Settlements, "waitFor">,
  report: (problem: GuardProblem) => void,
) {
  function settleValue<T>(
    admission: Admission,
    value: T,
    callOptions: CallOptions<T> | undefined,
  ): Promise<SettlementOutcome> {
    const usage = countsOf(value, callOptions?.readUsage ?? readUsage);
    if (usage.ok) return settle(admission, usage.value.counts, described(usage.value));
    const providerError = lengthOfOutput(value) === 0 ? reportedError(value) : null;
    if (providerError) return endFailed(admission, providerError, "the provider answered with an error");
    report({ kind: "usage_unknown", request_id: admission.request_id, message: usage.error.message });
    const { at_least: least } = usage.error;
    const reported = least ? null : readReport(value);
    const read = least ?? (reported?.ok ? reported.value.counts : null);
    const input = (read?.input_tokens ?? 0) || expectedInput(admission.request);
    const output = Math.max(least?.output_tokens ?? 0, Math.ceil(lengthOfOutput(value) / 4));
    // A report whose parts disagree is not a count, but still closer than what was expected.
    const isReported = least !== undefined && least.input_tokens + least.output_tokens > 0;
    if (!isReported && input + output <= admission.expected_tokens)
      return settleUnknown(admission, usage.error.message);
    // The visible part alone is more than was expected.
    return settleEstimate(
      admission,
      { input, output, read },
      { usage_unknown: storable(usage.error.message, 200) },
    );
  }

  /**
   * An error that reports usage is charged: the provider had answered before. Otherwise the tokens are given back.
   * Unless the provider clearly refused the call, that is reported: the provider may have worked, and will bill it.
   */
  function endFailed(admission: Admission, cause: unknown, what: string): Promise<SettlementOutcome> {
    const usage = countsOf(cause, readUsage);
    if (usage.ok)
      return settle(admission, usage.value.counts, { call_failed: storable(reasonOf(cause), 200) });
    // Anything can be thrown, also what throws when it is looked at.
    const isRefused = safely(() => wasRefused(cause)) ?? false;
    if (!isRefused && safely(() => wasCutOff(cause))) return endUnsure(admission, what, cause);
    if (!isRefused)
      report({
        kind: "released_unsure",
        request_id: admission.request_id,
        message: `${what}, and its tokens were given back: the provider may have worked. ${reasonOf(cause)}`,
      });
    return release(admission, `${what}: ${reasonOf(cause)}`);
  }

  /** Ends a call that was cut off by the setting, and reports it: the tokens stay held until it is known what the call used. */
  function endUnsure(admission: Admission, what: string, cause: unknown): Promise<SettlementOutcome> {
    const reason = cause === undefined ? what : `${what}: ${reasonOf(cause)}`;
    const setting = options.unsure ?? "estimate";
    const giveBack = (why: string): Promise<SettlementOutcome> => {
      report({ kind: "released_unsure", request_id: admission.request_id, message: `${reason}. ${why}` });
      return release(admission, reason);
    };
    const charge = (): Promise<SettlementOutcome> => {
      const message = `${reason}. Its provider may have worked: what was expected of it is charged.`;
      report({ kind: "settled_unsure", request_id: admission.request_id, message });
      return settleUnknown(admission, reason);
    };
    if (setting === "release") return giveBack("Its tokens were given back: the provider may have worked.");
    if (setting === "estimate") return charge();
    const call = {
      request_id: admission.request_id,
      user: String(admission.args["p_user_id"]),
      model: admission.answer?.model ?? String(admission.args["p_model"]),
      reason,
      cause,
    };
    const looking = (async () => setting(call))();
    const found = within(looking, options.callTimeoutMs ?? 300_000, options.timer, undefined).then(
      (record) => {
        if (record === null) return giveBack("Its provider has no record of it: its tokens were given back.");
        const usage = countsOf(record, readUsage);
        if (!usage.ok) return charge();
        const metadata = { ...described(usage.value), by_record: true, call_failed: storable(reason, 200) };
        return settle(admission, usage.value.counts, metadata);
      },
      charge,
    );
    return waitFor(found);
  }

  return { settleValue, endFailed, endUnsure };
}
