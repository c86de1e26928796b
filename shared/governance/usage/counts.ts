import { type Tokens, tokens } from "../money/index.ts";
import { fail, ok, type Result } from "../result.ts";

/** Tokens of one call, as `settle_usage` takes them. */
export interface UsageCounts {
  /** Everything read: plain, cached and written to the cache. */
  readonly input_tokens: Tokens;
  /** Everything written, reasoning included. */
  readonly output_tokens: Tokens;
  /** Part of the input that came from a cache. */
  readonly cached_input_tokens: Tokens;
  /** Part of the input that was written to a cache. */
  readonly cache_write_tokens: Tokens;
  /** Part of the cache writes that is kept for an hour, which costs more; absent for none. */
  readonly cache_write_1h_tokens?: Tokens;
  /** Part of the output that was reasoning. */
  readonly reasoning_tokens: Tokens;
  /** The tier that the provider served the call in, as it names it: `batch`, `priority` … Absent: not reported. */
  readonly service_tier?: string;
}

/** What is charged before any factor: input and output. */
export function totalTokens(usage: UsageCounts): Tokens {
  return tokens(usage.input_tokens + usage.output_tokens);
}

/** Why counts could not be read. `message` says what to do. */
export interface UsageProblem {
  readonly code: "unknown_shape" | "no_usage" | "not_whole" | "inconsistent";
  /** Where in the response. */
  readonly path: string;
  readonly message: string;
  /** What was reported at least, where counts are there and disagree: for an estimate, never for a count. */
  readonly at_least?: UsageCounts;
}

/** A count as a provider writes it: a number, or digits as a text, as some gateways do. Anything else comes back as it is. */
export function readCount(value: unknown): unknown {
  return typeof value === "bigint" || (typeof value === "string" && /^\d{1,15}(\.0+)?$/.test(value))
    ? Number(value)
    : value;
}

/** Whether a value is a whole number of tokens. */
export const isCount = (value: unknown): value is number =>
  typeof value === "number" && Number.isSafeInteger(value) && value >= 0;

/** Makes counts from plain numbers. Refuses negative or broken ones, and parts that exceed their whole. */
export function makeCounts(
  given: {
    readonly input: number;
    readonly output: number;
    readonly cached?: number;
    readonly cacheWrite?: number;
    readonly cacheWrite1h?: number;
    readonly reasoning?: number;
    readonly tier?: string | undefined;
  },
  path = "usage",
): Result<UsageCounts, UsageProblem> {
  const { input, output, cached = 0, cacheWrite = 0, cacheWrite1h = 0, reasoning = 0, tier } = given;
  for (const count of [input, output, cached, cacheWrite, cacheWrite1h, reasoning, input + output])
    if (!Number.isSafeInteger(count) || count < 0)
      return fail({
        code: "not_whole",
        path,
        message: `${count} is not a whole number of tokens below 2^53.`,
      });
  if (cached + cacheWrite > input)
    return fail({ code: "inconsistent", path, message: "More input was cached than there was input." });
  if (cacheWrite1h > cacheWrite)
    return fail({ code: "inconsistent", path, message: "More was cached for an hour than was cached." });
  if (reasoning > output)
    return fail({ code: "inconsistent", path, message: "More reasoning than output is reported." });
  return ok({
    input_tokens: tokens(input),
    output_tokens: tokens(output),
    cached_input_tokens: tokens(cached),
    cache_write_tokens: tokens(cacheWrite),
    ...(cacheWrite1h > 0 ? { cache_write_1h_tokens: tokens(cacheWrite1h) } : {}),
    reasoning_tokens: tokens(reasoning),
    ...(tier === undefined ? {} : { service_tier: tier }),
  });
}
