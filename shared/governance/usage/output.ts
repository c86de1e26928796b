/** How much a model wrote, in UTF-16 units: for an estimate where its provider counts nothing. */

/** Where output is spoken, in whole responses and in chunks. */
const written: ReadonlySet<string> = new Set([
  "content",
  "text",
  "refusal",
  "reasoning_content",
  "reasoning",
  "thinking",
  "name",
  "arguments",
  "partial_json",
  "transcript",
  "response",
  "generation",
  "generated_text",
]);
/** Arguments of function calls that come as objects. */
const argumentsOfCalls: ReadonlySet<string> = new Set(["args", "input"]);
const outputOf = [
  "choices",
  "candidates",
  "content",
  "output",
  "message",
  "text",
  "response",
  "generation",
  "results",
] as const;

/** Length of what a part of a response says; tool calls lie a few levels deep. */
export function lengthOfPart(part: unknown, depth = 0): number {
  if (typeof part !== "object" || part === null || depth > 8) return 0;
  let length = 0;
  for (const key in part) {
    const value = (part as Record<string, unknown>)[key];
    if (isToldAgain(part as Record<string, unknown>, key)) continue;
    if (typeof value === "string") length += written.has(key) ? value.length : 0;
    else if (typeof value !== "object" || value === null) continue;
    else if (argumentsOfCalls.has(key)) length += lengthOfJson(value);
    else length += lengthOfPart(value, depth + 1);
  }
  return length;
}

/** Gateways tell the same reasoning under several names (openrouter.ai/docs, "Reasoning tokens"). */
function isToldAgain(part: Record<string, unknown>, key: string): boolean {
  const { reasoning } = part;
  if (typeof reasoning !== "string" || reasoning === "") return false;
  return key === "reasoning_details" || (key === "reasoning_content" && part[key] === reasoning);
}

function lengthOfJson(value: object): number {
  try {
    return JSON.stringify(value).length;
  } catch {
    return 0;
  }
}

/** Length of the output of a whole response. */
export function lengthOfOutput(response: unknown): number {
  if (typeof response !== "object" || response === null) return 0;
  const parts: Record<string, unknown> = {};
  for (const key of outputOf) parts[key] = (response as Record<string, unknown>)[key];
  return lengthOfPart(parts);
}
