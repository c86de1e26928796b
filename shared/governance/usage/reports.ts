/** What a stream reports of its usage, report after report. */
import { isCount, readCount } from "./counts.ts";
import { usageShapes } from "./shapes.ts";

/** A report as it lies in a chunk, by the provider's own names. */
export type Report = Record<string, unknown>;

/** In JSON an ordinary key; reading or setting it on an object of ours would reach the prototype of all objects. */
const reservedKey = "__proto__";

/** Keeps the highest value of each count: reports are cumulative, and a placeholder of zero may come late. */
export function keepMost(kept: Report, report: object, depth = 0): void {
  for (const key in report) {
    if (key === reservedKey) continue;
    const value = readCount((report as Report)[key]);
    const before = kept[key];
    if (typeof value === "number") {
      // A value that is not a count is replaced by one.
      if (before === undefined || (isCount(value) && !(isCount(before) && value <= before)))
        kept[key] = value;
    } else if (Array.isArray(value)) {
      if (value.length > 0 || before === undefined) kept[key] = value;
    } else if (typeof value === "object" && value !== null) {
      if (depth > 4) continue;
      const inner = typeof before === "object" && before !== null && !Array.isArray(before) ? before : {};
      keepMost(inner as Report, value, depth + 1);
      kept[key] = inner;
    } else if (value !== null && value !== undefined) kept[key] = value;
  }
}

/** Adds the counts of a step to those of the steps before it. */
export function addStep(sum: Report, step: object, depth = 0): Report {
  const added = { ...sum };
  for (const key in step) {
    if (key === reservedKey) continue;
    const value = readCount((step as Report)[key]);
    const before = added[key];
    if (isCount(value)) added[key] = value + (isCount(before) ? before : 0);
    else if (typeof value === "object" && value !== null && !Array.isArray(value) && depth < 4)
      added[key] = addStep((before ?? {}) as Report, value, depth + 1);
  }
  return added;
}

/** Where the output counts of all shapes lie, read without knowing which it is. */
const outputPaths: readonly (readonly string[])[] = [
  ...new Set(usageShapes.flatMap((shape) => shape.output.flatMap((paths) => paths.split("|")))),
].map((path) => path.split("."));

/** Counts that lie in a chunk itself. */
export const bareCounts = usageShapes
  .filter(({ shape }) => ["ollama", "llama_cpp", "bedrock_invoke", "bedrock_titan"].includes(shape))
  .flatMap(({ input, output }) => [...input, ...output].flatMap((paths) => paths.split("|")));

/** The most output that a report counts, in whatever shape. */
export function outputIn(report: Report): number {
  let output = 0;
  for (const [key = "", part] of outputPaths) {
    let value = report[key];
    if (part !== undefined)
      value = typeof value === "object" && value !== null ? (value as Report)[part] : undefined;
    const count = readCount(value);
    if (isCount(count) && count > output) output = count;
  }
  return output;
}

/** Whether an object has no keys: some gateways send such a report in each chunk. */
export function isEmpty(object: object): boolean {
  for (const _ in object) return false;
  return true;
}
