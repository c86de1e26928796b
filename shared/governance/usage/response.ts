import { fail, ok, type Result } from "../result.ts";
import { isRecord } from "../rules/problems.ts";
import { makeCounts, type UsageCounts, type UsageProblem } from "./counts.ts";
import { lengthOfOutput } from "./output.ts";
import { modelNames, type ShapeOfUsage, usagePlaces, usageShapes } from "./shapes.ts";

/** Whose counts they are: the documented shape that was recognised. */
export type UsageShape = (typeof usageShapes)[number]["shape"];

/** Counts read from a response, in whose shape, of which model. */
export interface ReadUsage {
  readonly counts: UsageCounts;
  readonly shape: UsageShape;
  /** The model as the provider names it (often a dated one); null where it does not say. */
  readonly model: string | null;
  /** False for `tokensUsed`, which is one total: all of it stands as input. */
  readonly split_known: boolean;
  /** Parts of `counts` that another model worked for (Anthropic's advisor), where the provider names it. */
  readonly by_other_models?: readonly { readonly model: string; readonly counts: UsageCounts }[];
}

type Fields = Readonly<Record<string, unknown>>;

const problem = (code: UsageProblem["code"], path: string, message: string): Result<never, UsageProblem> =>
  fail({ code, path, message });

const isGiven = (value: unknown): boolean => value !== undefined && value !== null;

/** The value at a dotted path; undefined where there is none. */
function at(value: unknown, path: string): unknown {
  if (path === "") return value;
  let found = value;
  for (const key of path.split(".")) {
    if (typeof found !== "object" || found === null || !Object.hasOwn(found, key)) return undefined;
    found = (found as Fields)[key];
  }
  return found;
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

/** Reads a report by one shape. */
function readShape(
  shape: ShapeOfUsage & { readonly shape: UsageShape },
  report: Fields,
  model: unknown,
  path: string,
): Result<ReadUsage, UsageProblem> {
  for (const needed of shape.needs) {
    const [missing, value] = firstGiven(report, needed);
    if (!isGiven(value)) {
      const last = needed.split("|").at(-1) ?? missing;
      return problem("no_usage", join(path, last), "The usage is there, but this count of it is missing.");
    }
  }
  let broken: Result<never, UsageProblem> | null = null;
  const count = (paths: string | undefined): number => {
    if (paths === undefined) return 0;
    const [found, value] = firstGiven(report, paths);
    if (value === undefined) return 0;
    if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return value;
    broken ??= problem(
      "not_whole",
      join(path, found),
      `The provider reports ${JSON.stringify(value)}, which is no whole count.`,
    );
    return 0;
  };
  const sum = (list: readonly string[]) => list.reduce((added, paths) => added + count(paths), 0);
  const input = sum(shape.input);
  let output = sum(shape.output);
  const parts = {
    cached: count(shape.cached),
    cacheWrite: count(shape.cache_write),
    cacheWrite1h: count(shape.cache_write_1h),
    reasoning: count(shape.reasoning),
  };
  const total = count(shape.total);
  if (broken) return broken;
  // A total of zero beside counts is a name that a proxy did not fill.
  const isTotalGiven = total > 0;
  const beside = isTotalGiven ? total - input - output : 0;
  if (beside !== 0) {
    // Google, "OpenAI compatibility" (ai.google.dev/gemini-api/docs/openai): thinking shows in the total alone.
    const isHidden = parts.reasoning === 0 && typeof model === "string" && model.includes("gemini");
    if (beside < 0 || (beside !== parts.reasoning && !isHidden))
      return problem("inconsistent", path, `The total is ${total}, the parts add up to ${input + output}.`);
    output += beside;
    parts.reasoning = beside;
  }
  if (isTotalGiven) {
    // Counts that agree with their total are believed; a detail that does not fit into them is not.
    if (parts.cached + parts.cacheWrite > input) parts.cached = parts.cacheWrite = parts.cacheWrite1h = 0;
    if (parts.reasoning > output) parts.reasoning = 0;
  }
  const made = makeCounts({ input, output, ...parts }, path);
  if (!made.ok) return made;
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
 * the top level leaves compaction and advisor iterations out.
 */
function addIterations(read: ReadUsage, report: Fields): Result<ReadUsage, UsageProblem> {
  const iterations = report["iterations"];
  if (read.shape !== "anthropic_messages" || !Array.isArray(iterations)) return ok(read);
  let counts = read.counts;
  const others: { model: string; counts: UsageCounts }[] = [];
  const shape = usageShapes.find((one) => one.shape === "anthropic_messages");
  for (const [index, iteration] of iterations.entries()) {
    if (!shape || !isRecord(iteration) || !addedIterations.has(iteration["type"])) continue;
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
  const image = at(response, "tool_usage.image_gen");
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
 * Reads the counts that a response reports, also where there is output that they leave out: `readUsage` refuses these.
 */
export function readReport(response: unknown): Result<ReadUsage, UsageProblem> {
  if (!isRecord(response))
    return problem(
      "unknown_shape",
      "",
      "The response is not an object: pass the provider's JSON as it came.",
    );
  const model = firstGiven(response, modelNames)[1];
  let first: Result<ReadUsage, UsageProblem> | null = null;
  let strange: Result<never, UsageProblem> | null = null;
  for (const place of usagePlaces) {
    const report = at(response, place);
    if (!isRecord(report)) continue;
    let isKnown = false;
    for (const shape of usageShapes) {
      if (("only_total" in shape && isKnown) || !fits(shape, report, response, model)) continue;
      isKnown = true;
      let read = readShape(shape, report, model, place);
      if (read.ok) read = addIterations(read.value, report);
      if (read.ok) read = addTools(read.value, response);
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

/** Whether counts say nothing of output that is there. */
export function leavesOutOutput(read: ReadUsage, outputLength: number): boolean {
  return (
    outputLength > 0 &&
    read.counts.output_tokens === 0 &&
    (read.split_known || read.counts.input_tokens === 0)
  );
}

/**
 * Reads the exact token counts of a whole response, in any of the documented shapes. Unknown shapes, missing usage,
 * broken numbers, totals that do not add up and output without a count are failures: nothing is guessed, least of all
 * zero.
 */
export function readUsage(response: unknown): Result<ReadUsage, UsageProblem> {
  const read = readReport(response);
  if (read.ok && leavesOutOutput(read.value, lengthOfOutput(response)))
    return problem("no_usage", "usage", "The response has output, but its usage counts none.");
  return read;
}
