/** How much a model wrote, in UTF-16 units: for an estimate where its provider counts nothing. */

/** Where output lies, in whole responses and in chunks. */
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
  "outputText",
  "tool_plan",
]);
/** Arguments of function calls: objects, or pieces of their JSON. */
const argumentsOfCalls: ReadonlySet<string> = new Set([
  "args",
  "input",
  "arguments",
  // Gemini's arguments as they are streamed, and the programs that it writes and runs.
  "partialArgs",
  "executableCode",
]);
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
  "outputs",
  "toolCalls",
  "tool_calls",
  // Hugging Face's own API, and Llama's.
  "generated_text",
  "completion_message",
] as const;

/** Length of what a part of a response says; tool calls lie a few levels deep. */
export function lengthOfPart(part: unknown, depth = 0): number {
  if (typeof part !== "object" || part === null || depth > 8) return 0;
  let length = 0;
  for (const key in part) {
    const value = (part as Record<string, unknown>)[key];
    if (isRepeated(part as Record<string, unknown>, key)) continue;
    if (typeof value === "string") length += written.has(key) || argumentsOfCalls.has(key) ? value.length : 0;
    else if (typeof value !== "object" || value === null) continue;
    else if (argumentsOfCalls.has(key)) length += lengthOfJson(value);
    else length += lengthOfPart(value, depth + 1);
  }
  return length;
}

/** Whether a part is there under another name too: gateways report the same reasoning under several (openrouter.ai/docs, "Reasoning tokens"). */
function isRepeated(part: Record<string, unknown>, key: string): boolean {
  if (key !== "reasoning_details" && key !== "reasoning_content") return false;
  const { reasoning } = part;
  if (typeof reasoning !== "string" || reasoning === "") return false;
  return key === "reasoning_details" || part[key] === reasoning;
}

function lengthOfJson(value: object): number {
  try {
    return JSON.stringify(value).length;
  } catch {
    return 0;
  }
}

/** A response's own value: a getter of a library's class may start work, or say the same again. */
const own = (response: object, key: string): unknown =>
  Object.hasOwn(response, key) ? (response as Record<string, unknown>)[key] : undefined;

function lengthOfWhole(response: unknown): number {
  if (typeof response !== "object" || response === null || Array.isArray(response)) return 0;
  const parts: Record<string, unknown> = {};
  for (const key of outputOf) parts[key] = own(response, key);
  // Gemini's Interactions say all in their steps, and so do the AI SDK's results; some say it beside them again.
  return lengthOfPart(parts) || lengthOfPart({ steps: own(response, "steps") });
}

/** Length of the output of a whole response, or of one in an HTTP client's answer. */
export function lengthOfOutput(response: unknown): number {
  if (typeof response !== "object" || response === null) return 0;
  const wrapped = [own(response, "data"), own(response, "body")];
  return lengthOfWhole(response) || Math.max(...wrapped.map(lengthOfWhole));
}

/** Whether a response holds what is no text: embeddings, or pictures. */
export function hasMade(response: unknown): boolean {
  if (typeof response !== "object" || response === null) return false;
  const made = ["data", "embedding", "embeddings", "images"].map((key) => own(response, key));
  return made.some((each) => Array.isArray(each) && each.length > 0);
}
