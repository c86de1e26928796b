import { fail, ok, type Result } from "../result.ts";
import { isRecord } from "../values.ts";
import {
  isCount,
  makeCounts,
  readCount,
  totalTokens,
  type UsageCounts,
  type UsageProblem,
} from "./counts.ts";
import { hasMade, lengthOfOutput } from "./output.ts";
import { modelNames, moreModelNames, pricedTiers, tierNames, usagePlaces } from "./places.ts";
import { type ShapeOfUsage, usageShapes } from "./shapes.ts";

/** Whose counts they are: the documented shape that was recognised. */
export type UsageShape = (typeof usageShapes)[number]["shape"];

/** Counts read from a response, in whose shape, of which model. */
export interface ReadUsage {
  readonly counts: UsageCounts;
  readonly shape: UsageShape;
  /** The model as the provider names it (often a dated one); null where it does not say. */
  readonly model: string | null;
  /** False for `tokensUsed`, which is one total: all of it counts as input. */
  readonly split_known: boolean;
  /** Parts of `counts` that another model worked for (Anthropic's advisor), where the provider names it. */
  readonly by_other_models?: readonly { readonly model: string; readonly counts: UsageCounts }[];
}

type Fields = Readonly<Record<string, unknown>>;

const problem = (code: UsageProblem["code"], path: string, message: string): Result<never, UsageProblem> =>
  fail({ code, path, message });

const isGiven = (value: unknown): boolean => value !== undefined && value !== null;

/**
 * The value at a dotted path; undefined where there is none. `[key=value]` is the entry of a list that has it; of `[]`,
 * what its entries have is added up.
 */
function at(value: unknown, path: string): unknown {
  if (path === "") return value;
  let found = value;
  const keys = path.split(".");
  for (const [index, key] of keys.entries()) {
    if (key === "[]") return Array.isArray(found) ? sumOf(found, keys.slice(index + 1).join(".")) : undefined;
    if (key.startsWith("[") && Array.isArray(found)) {
      const [name = "", wanted] = key.slice(1, -1).split("=");
      found = found.find((entry: unknown) => isRecord(entry) && entry[name] === wanted);
      continue;
    }
    if (typeof found !== "object" || found === null || !Object.hasOwn(found, key)) return undefined;
    found = (found as Fields)[key];
  }
  return found;
}

/** What the entries of a list have at a path, added up; the first that is no count as it is. */
function sumOf(list: readonly unknown[], path: string): unknown {
  const given = list.map((entry) => readCount(at(entry, path))).filter(isGiven);
  const strange = given.find((value) => !isCount(value));
  if (strange !== undefined || given.length === 0) return strange;
  return given.filter(isCount).reduce((sum, value) => sum + value, 0);
}

/** Of `a|b` the first that is given: its path and value. */
function firstGiven(report: unknown, paths: string): readonly [path: string, value: unknown] {
  const alternatives = paths.split("|");
  for (const path of alternatives) {
    const value = at(report, path);
    if (isGiven(value)) return [path, value];
  }
  return [alternatives[0] ?? "", undefined];
}

function fits(shape: ShapeOfUsage, report: Fields, response: Fields, model: unknown): boolean {
  const [first, ...further] = shape.has;
  const has = (keys: readonly string[] | undefined) =>
    keys?.some((key) => isGiven(at(report, key)) || key in report);
  if (!has(first)) return false;
  return (
    further.every(has) ||
    (shape.model !== undefined && typeof model === "string" && new RegExp(shape.model).test(model)) ||
    (shape.type !== undefined && response["type"] === shape.type)
  );
}

/** Counts of a report before they are checked. */
interface RawCounts {
  input: number;
  output: number;
  cached: number;
  cacheWrite: number;
  cacheWrite1h: number;
  reasoning: number;
}

/** Cached parts that are more than the input, or that the total has beside it: they are input too. */
function addCachesBeside(raw: RawCounts, total: number, mayLieBeside: boolean): number {
  const caches = raw.cached + raw.cacheWrite;
  const sum = raw.input + raw.output;
  if (caches > raw.input && mayLieBeside) {
    raw.input += caches;
    // A total without them is the sum of the others.
    return total === sum ? total + caches : total;
  }
  const beside = total - sum;
  if (beside > 0 && [caches, raw.cached, raw.cacheWrite].includes(beside)) raw.input += beside;
  return total;
}

/** What the total has more than the parts, where it is known what that is. Answers what is left of it. */
function addRest(raw: RawCounts, beside: number, isInput: boolean, isGemini: boolean): number {
  // Counted beside the output by xAI, and by SDKs that hand Google's counts on.
  if (beside === raw.reasoning || (isInput && beside > raw.reasoning)) {
    raw.output += raw.reasoning;
    raw.input += beside - raw.reasoning;
    return 0;
  }
  // Google, "OpenAI compatibility" (ai.google.dev/gemini-api/docs/openai): thinking shows in the total alone.
  if (raw.reasoning > 0 || !isGemini) return beside;
  raw.output += beside;
  raw.reasoning = beside;
  return 0;
}

const plain = (input: number, output: number): UsageCounts | undefined => {
  const made = makeCounts({ input, output });
  return made.ok ? made.value : undefined;
};

/** A failure that says what was reported at least. */
function inconsistent(path: string, message: string, least: UsageCounts | undefined) {
  return fail<UsageProblem>({
    code: "inconsistent",
    path,
    message,
    ...(least ? { at_least: least } : {}),
  });
}

/** Reads a report by one shape. */
function readShape(
  shape: ShapeOfUsage & { readonly shape: UsageShape },
  report: Fields,
  model: unknown,
  path: string,
  isEmbedding = false,
): Result<ReadUsage, UsageProblem> {
  for (const [index, needed] of shape.needs.entries()) {
    const [missing, value] = firstGiven(report, needed);
    // Embeddings write nothing; Gemini's report only what they read.
    if (!isGiven(value) && !(isEmbedding && index > 0)) {
      const last = needed.split("|").at(-1) ?? missing;
      return problem("no_usage", join(path, last), "The usage is there, but this count of it is missing.");
    }
  }
  let broken: Result<never, UsageProblem> | null = null;
  const count = (paths: string | undefined): number => {
    if (paths === undefined) return 0;
    const [found, given] = firstGiven(report, paths);
    const value = readCount(given);
    if (value === undefined) return 0;
    if (isCount(value)) return value;
    broken ??= problem(
      "not_whole",
      join(path, found),
      `The provider reports ${JSON.stringify(value)}, which is no whole count.`,
    );
    return 0;
  };
  const sum = (list: readonly string[]) => list.reduce((added, paths) => added + count(paths), 0);
  const given = (paths: string | undefined) => paths !== undefined && isGiven(firstGiven(report, paths)[1]);
  const cacheWrite1h = count(shape.cache_write_1h);
  const raw: RawCounts = {
    input: sum(shape.input),
    output: sum(shape.output),
    cached: count(shape.cached),
    cacheWrite: Math.max(count(shape.cache_write), count(shape.cache_write_5m) + cacheWrite1h),
    cacheWrite1h,
    reasoning: count(shape.reasoning),
  };
  const besideInput = count(shape.input_beside);
  let total = count(shape.total);
  if (broken) return broken;
  // A total of zero beside counts is a field that a proxy left unfilled.
  const isTotalGiven = total > 0;
  if (!isTotalGiven || total >= raw.input + raw.output + besideInput) raw.input += besideInput;
  const isReasoning = raw.reasoning > 0 && total - raw.input - raw.output === raw.reasoning;
  if (!isReasoning) total = addCachesBeside(raw, total, given(shape.cached_beside));
  const beside = isTotalGiven ? total - raw.input - raw.output : 0;
  if (beside !== 0) {
    const isGemini = typeof model === "string" && model.includes("gemini");
    const isOutputTold = shape.output.some(given);
    // Where the output alone is left out, it is what the total has more.
    if (beside > 0 && !isOutputTold) raw.output += beside;
    const left =
      beside < 0 || !isOutputTold
        ? Math.min(beside, 0)
        : addRest(raw, beside, given(shape.rest_is_input), isGemini);
    if (left !== 0) {
      const message = `The total is ${total}, the parts add up to ${raw.input + raw.output}.`;
      return inconsistent(path, message, plain(raw.input + Math.max(0, left), raw.output));
    }
  }
  if (isTotalGiven) {
    // Counts that agree with their total are taken; a detail that does not fit into them is not.
    if (raw.cached + raw.cacheWrite > raw.input) raw.cached = raw.cacheWrite = raw.cacheWrite1h = 0;
    if (raw.reasoning > raw.output) raw.reasoning = 0;
  }
  const made = makeCounts(raw, path);
  if (!made.ok)
    return made.error.code === "inconsistent"
      ? inconsistent(path, made.error.message, plain(raw.input, raw.output))
      : made;
  return ok({
    counts: made.value,
    shape: shape.shape,
    model: typeof model === "string" ? model : null,
    split_known: shape.only_total !== true,
  });
}

const join = (path: string, key: string): string => (path === "" ? key : `${path}.${key}`);

function addCounts(a: UsageCounts, b: UsageCounts): Result<UsageCounts, UsageProblem> {
  return makeCounts({
    input: a.input_tokens + b.input_tokens,
    output: a.output_tokens + b.output_tokens,
    cached: a.cached_input_tokens + b.cached_input_tokens,
    cacheWrite: a.cache_write_tokens + b.cache_write_tokens,
    cacheWrite1h: (a.cache_write_1h_tokens ?? 0) + (b.cache_write_1h_tokens ?? 0),
    reasoning: a.reasoning_tokens + b.reasoning_tokens,
  });
}

/** Iterations that the counts above them leave out. Messages are in them already; declined fallbacks are not charged. */
const addedIterations: ReadonlySet<unknown> = new Set(["compaction", "advisor_message"]);

/**
 * Adds what Anthropic reports beside a message's counts. Source: "Compaction" and "Advisor tool" (docs.anthropic.com):
 * the top level leaves compaction and advisor iterations out. "Refusals and fallback": where a fallback served the turn
 * the top level is that model's.
 */
function addIterations(read: ReadUsage, report: Fields): Result<ReadUsage, UsageProblem> {
  const iterations = report["iterations"];
  if (read.shape !== "anthropic_messages" || !Array.isArray(iterations)) return ok(read);
  let counts = read.counts;
  const others: { model: string; counts: UsageCounts }[] = [];
  const shape = usageShapes.find((one) => one.shape === "anthropic_messages");
  // Once, however many iterations it took: each of them is in the top level already.
  const fallback: unknown = iterations.findLast((one) => isRecord(one) && one["type"] === "fallback_message");
  if (isRecord(fallback) && typeof fallback["model"] === "string")
    others.push({ model: fallback["model"], counts: read.counts });
  for (const [index, iteration] of iterations.entries()) {
    if (!shape || !isRecord(iteration)) continue;
    if (!addedIterations.has(iteration["type"])) continue;
    const one = readShape(shape, iteration, iteration["model"], `usage.iterations.${index}`);
    if (!one.ok) return one;
    const added = addCounts(counts, one.value.counts);
    if (!added.ok) return added;
    counts = added.value;
    if (one.value.model !== null && one.value.model !== read.model)
      others.push({ model: one.value.model, counts: one.value.counts });
  }
  return ok({ ...read, counts, ...(others.length > 0 ? { by_other_models: others } : {}) });
}

/** Adds tokens of the image tool, which the Responses API reports beside the response's own. */
function addTools(read: ReadUsage, response: Fields): Result<ReadUsage, UsageProblem> {
  const [, image] = firstGiven(
    response,
    "tool_usage.image_gen|response.tool_usage.image_gen|response.body.tool_usage.image_gen",
  );
  if (read.shape !== "openai_responses" || !isRecord(image) || !isGiven(image["output_tokens"]))
    return ok(read);
  const made = makeCounts(
    { input: Number(image["input_tokens"] ?? 0), output: Number(image["output_tokens"]) },
    "tool_usage.image_gen",
  );
  if (!made.ok) return made;
  const added = addCounts(read.counts, made.value);
  return added.ok ? ok({ ...read, counts: added.value }) : added;
}

/**
 * Anthropic's own report, which Vercel's AI SDK hands on beside its own: that leaves out the caches (versions 4 and 5),
 * how long they are kept, and who else worked. Taken where it is of the same step.
 */
function readBeside(read: ReadUsage, response: Fields): Result<ReadUsage, UsageProblem> {
  if (read.shape !== "ai_sdk") return ok(read);
  const report = at(response, "providerMetadata.anthropic.usage");
  if (isRecord(report)) {
    const theirs = findReport({ type: "message", model: read.model, usage: report });
    if (!theirs.ok) return ok(read);
    const { input_tokens: input, output_tokens: output } = theirs.value.counts;
    return ok(input >= read.counts.input_tokens && output >= read.counts.output_tokens ? theirs.value : read);
  }
  // Version 4 names the caches there alone.
  const anthropic = at(response, "providerMetadata.anthropic");
  const cached = readCount(at(anthropic, "cacheReadInputTokens") ?? 0);
  const cacheWrite = readCount(at(anthropic, "cacheCreationInputTokens") ?? 0);
  if (!isGiven(at(response, "usage.promptTokens")) || !isCount(cached) || !isCount(cacheWrite))
    return ok(read);
  const caches = makeCounts({ input: cached + cacheWrite, output: 0, cached, cacheWrite });
  const added = caches.ok ? addCounts(read.counts, caches.value) : caches;
  return added.ok ? ok({ ...read, counts: added.value }) : added;
}

/**
 * The tier that served a call, where it is one that providers charge otherwise. Sources: OpenAI, `service_tier`
 * (platform.openai.com/docs/api-reference/chat/object, …/responses/object); Anthropic, `usage.service_tier`
 * (docs.anthropic.com/en/api/service-tiers); the others beside their names in `tierNames`.
 */
function tierOf(response: Fields): string | undefined {
  for (const path of tierNames) {
    const name = at(response, path);
    // Google writes ON_DEMAND_PRIORITY.
    const tier = typeof name === "string" ? name.toLowerCase().replace(/^.*_/, "") : "";
    if (pricedTiers.has(tier)) return tier;
  }
  return undefined;
}

/**
 * The steps of the AI SDK's result, added up: version 5 has no usage beside them but in getters, and only the steps
 * hold what Anthropic itself reported. Null where they report none.
 */
function readSteps(response: unknown): ReadUsage | null {
  if (!isRecord(response) || !Object.hasOwn(response, "steps")) return null;
  const { steps } = response;
  if (!Array.isArray(steps)) return null;
  let sum: ReadUsage | null = null;
  for (const step of steps) {
    const read = isRecord(step) && Object.hasOwn(step, "usage") ? readTold(step) : null;
    if (!read?.ok) return null;
    const counts: Result<UsageCounts, unknown> = sum
      ? addCounts(sum.counts, read.value.counts)
      : ok(read.value.counts);
    if (!counts.ok) return null;
    const others: NonNullable<ReadUsage["by_other_models"]> = [
      ...(sum?.by_other_models ?? []),
      ...(read.value.by_other_models ?? []),
    ];
    const tier = read.value.counts.service_tier;
    sum = {
      ...read.value,
      counts: { ...counts.value, ...(tier ? { service_tier: tier } : {}) },
      ...(others.length > 0 ? { by_other_models: others } : {}),
    };
  }
  return sum;
}

/** The counts that a response reports in itself, with its tier. */
function readTold(response: unknown): Result<ReadUsage, UsageProblem> {
  const read = findReport(response);
  const tier = read.ok && isRecord(response) ? tierOf(response) : undefined;
  if (!read.ok || tier === undefined) return read;
  return ok({ ...read.value, counts: { ...read.value.counts, service_tier: tier } });
}

/** The counts that a response reports, with its tier; also where there is output that they leave out: `readUsage` refuses these. */
export function readReport(response: unknown): Result<ReadUsage, UsageProblem> {
  const read = readTold(response);
  const steps = readSteps(response);
  return steps && (!read.ok || totalTokens(steps.counts) >= totalTokens(read.value.counts))
    ? ok(steps)
    : read;
}

function findReport(response: unknown): Result<ReadUsage, UsageProblem> {
  if (!isRecord(response))
    return problem(
      "unknown_shape",
      "",
      "The response is not an object: pass the provider's JSON as it came.",
    );
  const model = firstGiven(response, `${modelNames}|${moreModelNames}`)[1];
  const isEmbedding = isGiven(response["embedding"] ?? response["embeddings"]);
  let first: Result<ReadUsage, UsageProblem> | null = null;
  let strange: Result<never, UsageProblem> | null = null;
  for (const place of usagePlaces) {
    const report = at(response, place);
    if (!isRecord(report)) continue;
    let isKnown = false;
    for (const shape of usageShapes) {
      if (("only_total" in shape && isKnown) || !fits(shape, report, response, model)) continue;
      isKnown = true;
      let read = readShape(shape, report, model, place, isEmbedding);
      if (read.ok) read = addIterations(read.value, report);
      if (read.ok) read = addTools(read.value, response);
      if (read.ok) read = readBeside(read.value, response);
      // Some proxies fill the names of several providers, one of them with zeros.
      if (read.ok && read.value.counts.input_tokens + read.value.counts.output_tokens > 0) return read;
      if (first === null || (read.ok && !first.ok)) first = read;
    }
    if (place === "usageMetadata" && !isKnown)
      first ??= problem(
        "no_usage",
        "usageMetadata.promptTokenCount",
        "The usage is there, but this count of it is missing.",
      );
    if (place === "usage" && !isKnown)
      strange = problem(
        "unknown_shape",
        "usage",
        `The usage holds ${Object.keys(report).slice(0, 8).join(", ") || "nothing"}, which no known provider reports.`,
      );
  }
  if (first) return first;
  if (strange) return strange;
  return "usage" in response || "usageMetadata" in response
    ? problem("no_usage", "usage", "The response carries no usage: it was asked for without, or was cut off.")
    : problem(
        "unknown_shape",
        "",
        "No usage was found: expected usage, usageMetadata, tokensUsed or metadata.tokensUsed.",
      );
}

/** Whether counts leave out output that is there. */
export function leavesOutOutput(read: ReadUsage, outputLength: number, isMade = false): boolean {
  return (
    (isMade && read.counts.input_tokens + read.counts.output_tokens === 0) ||
    (outputLength > 0 &&
      read.counts.output_tokens === 0 &&
      (read.split_known || read.counts.input_tokens === 0))
  );
}

/**
 * Reads the exact token counts of a whole response, in any of the documented shapes. Unknown shapes, missing usage,
 * broken numbers, totals that do not add up and output without a count are failures: nothing is guessed, least of all
 * zero.
 */
export function readUsage(response: unknown): Result<ReadUsage, UsageProblem> {
  const read = readReport(response);
  if (read.ok && leavesOutOutput(read.value, lengthOfOutput(response), hasMade(response)))
    return problem("no_usage", "usage", "The response has output, but its usage counts none.");
  return read;
}
